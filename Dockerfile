# The operator's image: one static program. `make docker-build` builds the program first, so that nothing has to be
# pulled, and gives its folder as the context.
FROM scratch
COPY artillery-operator /artillery-operator
USER 65532:65532
ENTRYPOINT ["/artillery-operator"]
