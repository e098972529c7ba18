#!/usr/bin/env bash
# Installs, tests, upgrades, rolls back and uninstalls the Helm chart in a cluster of its own, with Helm 3 and Helm 4, while load
# tests run. Needs root, the operator's image in OPERATOR_IMAGE, and the worker image in the registry of the local cluster.
# HELM_VERSIONS=3 limits the tests to this version. PREVIOUS_CHART and PREVIOUS_IMAGE are installed before the upgrade: by default
# those of this version.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
no_arguments "$@"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -n "${OPERATOR_IMAGE:-}" ] || die "OPERATOR_IMAGE must name an image in the registry of the local cluster: see hack/operator-image.sh --push"
CLUSTER=hack/local-cluster/cluster.sh
NAMESPACE=artillery-operator-system
PREVIOUS_CHART=${PREVIOUS_CHART:-charts/artillery-operator} PREVIOUS_IMAGE=${PREVIOUS_IMAGE:-$OPERATOR_IMAGE}
passed=0 failed=0

inside() { $CLUSTER exec --name helm "$@"; }
image_values() { echo "image.repository=${1%:*},image.tag=${1##*:}"; }
# start_test NAME: starts a load test of two workers for 20 s, and waits until it runs.
start_test() {
  inside kubectl apply -f - <<Y
apiVersion: v1
kind: ConfigMap
metadata: {name: load}
data:
  test-script.yaml: |
    config: {target: "http://target", phases: [{duration: 20, arrivalRate: 2}]}
    scenarios: [{flow: [{get: {url: "/upgrade"}}]}]
---
apiVersion: loadtest.artillery.io/v1alpha1
kind: LoadTest
metadata: {name: $1}
spec: {count: 2, testScript: {config: {configMap: load}}}
Y
  inside kubectl wait loadtest "$1" --for=jsonpath='{.status.phase}'=Running --timeout=120s
}
# completed_once NAME: waits for the end of a test, and compares its load with the plan: 2 workers x 20 s x 2 requests per second.
completed_once() {
  inside kubectl wait loadtest "$1" --for=condition=Completed --timeout=120s
  [ "$(inside kubectl get loadtest "$1" -o jsonpath='{.status.results.requests} {.status.results.load.sent}')" = "80 100%" ] || {
    inside kubectl get loadtest "$1" -o yaml
    return 1
  }
}
# operators: prints the names of the operator's pods that are not being deleted.
operators() { inside kubectl get pods -n $NAMESPACE -o go-template='{{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}} {{end}}{{end}}'; }
replaced() { [ "$(operators)" != "$1" ]; }
gone() { ! inside kubectl get crd loadtests.loadtest.artillery.io && ! inside kubectl get clusterrole artillery-operator-manager; }

trap '$CLUSTER down helm' EXIT
$CLUSTER down helm
$CLUSTER up helm
inside kubectl apply -k hack/examples/target >/dev/null
for version in ${HELM_VERSIONS:-3 4}; do
  helm=$(hack/helm.sh "$version")
  printf '\n$ helm version: %s\n' "$("$helm" version --short)"
  check "Helm $version: install waits until the operator is ready" inside "$helm" install artillery "$PREVIOUS_CHART" \
    --namespace $NAMESPACE --create-namespace --wait --timeout 2m --set "$(image_values "$PREVIOUS_IMAGE")"
  check "Helm $version: helm test runs a load test" inside "$helm" test artillery --namespace $NAMESPACE --logs --timeout 3m
  before=$(operators)
  check "Helm $version: a load test starts" start_test upgraded
  check "Helm $version: an upgrade during the load test" inside "$helm" upgrade artillery charts/artillery-operator \
    --namespace $NAMESPACE --wait --timeout 2m --reset-then-reuse-values --set "$(image_values "$OPERATOR_IMAGE"),log.level=debug"
  check "Helm $version: the upgrade replaced the operator" replaced "$before"
  check "Helm $version: the load test ends as planned under the new operator" completed_once upgraded
  before=$(operators)
  check "Helm $version: another load test starts" start_test rolled-back
  check "Helm $version: a rollback during the load test" inside "$helm" rollback artillery 1 --namespace $NAMESPACE --wait --timeout 2m
  check "Helm $version: the rollback replaced the operator" replaced "$before"
  check "Helm $version: the load test ends as planned under the old operator" completed_once rolled-back
  inside "$helm" history artillery --namespace $NAMESPACE
  inside kubectl get loadtests -o wide
  check "Helm $version: uninstall" inside "$helm" uninstall artillery --namespace $NAMESPACE --wait --timeout 2m
  check "Helm $version: nothing remains" gone
done

printf '\n%d passed, %d failed\n' $passed $failed
[ $failed = 0 ]
