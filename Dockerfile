# The operator's image: one static program and no base image. `make docker-build` builds the program first, and uses its folder
# as the build context.
FROM scratch
COPY artillery-operator /artillery-operator
USER 65532:65532
ENTRYPOINT ["/artillery-operator"]
