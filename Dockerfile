# The operator's image: two static programs and no base image. `make docker-build` builds them first, and uses their folder as the
# build context. Pipelines and CronJobs run /kubectl-artillery.
FROM scratch
COPY artillery-operator kubectl-artillery /
LABEL org.opencontainers.image.title="Artillery operator" \
  org.opencontainers.image.source="https://github.com/artilleryio/artillery-operator" \
  org.opencontainers.image.licenses="Apache-2.0"
USER 65532:65532
ENTRYPOINT ["/artillery-operator"]
