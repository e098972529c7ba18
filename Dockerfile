# The operator's image: one static program. `make docker-build` builds the program first, so that nothing has to be
# pulled, and gives its folder as the context.
FROM scratch
COPY artillery-operator /artillery-operator
USER 65532:65532
# Buffers of this size and more go back to the system when they are freed: else the allocator's own threshold grows with the
# first long list, and what lies between the buffers is kept.
ENV GLIBC_TUNABLES=glibc.malloc.mmap_threshold=65536
ENTRYPOINT ["/artillery-operator"]
