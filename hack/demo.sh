#!/usr/bin/env bash
# The whole way, once: a cluster, the operator, a load test. Run by `make demo`.
# Uses the cluster of KUBECONFIG if that is set, else a new one by kind where Docker and kind are there, else a local one
# made of its parts (hack/local-cluster).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
CLUSTER=hack/local-cluster/cluster.sh
WORKER_ARCHIVE=${XDG_CACHE_HOME:-$HOME/.cache}/artillery-operator/worker-image.tar
TEST=basic-test

step() { printf '\n== %s (after %d s)\n' "$*" $SECONDS; }
# shows a command as the user would type it, and runs it in the cluster
run() {
  printf '$ %s\n' "$*"
  "${IN_CLUSTER[@]}" "$@"
}
# the same without showing it
quietly() { "${IN_CLUSTER[@]}" "$@"; }

own_process() {
  # The operator as a process of this machine: a cluster elsewhere could not pull an image that was never pushed.
  step "Installing the CRD and starting the operator on this machine"
  run make install
  cargo build --release
  target/release/artillery-operator --metrics-bind-address=0 --health-probe-bind-address=0 &
  trap 'kill %1' EXIT
  LOOK="kubectl" DOWN="kubectl delete -k hack/examples/basic-loadtest; make uninstall"
}

if [ -n "${KUBECONFIG:-}" ]; then
  step "Using the cluster of KUBECONFIG=$KUBECONFIG"
  IN_CLUSTER=()
  own_process
elif command -v kind >/dev/null && docker info >/dev/null 2>&1; then
  step "Creating a cluster with kind"
  kind get clusters 2>/dev/null | grep -qx artillery || kind create cluster --name artillery
  IN_CLUSTER=()
  own_process
  DOWN="kind delete cluster --name artillery"
else
  step "Bringing up a cluster of one node on this machine"
  $CLUSTER up
  step "Building the workers' image: the real Artillery"
  hack/worker-image/build.sh "$WORKER_ARCHIVE"
  $CLUSTER push "oci-archive:$WORKER_ARCHIVE" artilleryio/artillery:latest
  step "Building the operator"
  archive=$(hack/operator-image.sh)
  # A tag for each image: one that a node has under the same name would not be pulled again.
  image=ghcr.io/artilleryio/artillery-operator-alpha:$(basename "$archive" .tar)
  $CLUSTER push "oci-archive:$archive" "$image"
  step "Installing the operator in the cluster"
  IN_CLUSTER=("$CLUSTER" exec)
  run env IMG="$image" ./operator-deploy.sh
  LOOK="$CLUSTER exec kubectl" DOWN="make down"
fi

step "Running a load test of two workers"
if quietly kubectl get loadtest $TEST >/dev/null 2>&1; then
  echo "(a LoadTest runs once: the one of an earlier demo is deleted first)"
  run kubectl delete loadtest $TEST --wait
fi
run kubectl apply -k hack/examples/basic-loadtest
step "Following it"
printf '$ kubectl get loadtests %s --watch\n' $TEST
# A process group of its own, so that all of it ends.
set -m
quietly kubectl get loadtests $TEST --watch &
watch=$!
set +m
phase() { quietly kubectl get loadtest $TEST -o jsonpath='{.status.phase}'; }
outcome=0
quietly kubectl wait --for=jsonpath='{.status.completionTime}' loadtest/$TEST --timeout="${TIMEOUT:-300s}" >/dev/null || outcome=$?
kill -- -$watch 2>/dev/null || true
wait $watch 2>/dev/null || true
step "How it went"
run kubectl describe loadtests $TEST
worker=$(quietly kubectl get pods -l artillery.io/test-name=$TEST -o jsonpath='{.items[0].metadata.name}')
printf '\n$ kubectl logs %s | tail -n 30\n' "$worker"
quietly kubectl logs "$worker" | tail -n 30

if [ $outcome != 0 ] || [ "$(phase)" != Completed ]; then
  printf '\nThe load test has not completed (%s). What there is:\n' "$(phase)"
  run kubectl get pods -o wide
  quietly kubectl -n artillery-operator-system logs deployment/artillery-operator-controller-manager --tail=50 || true
  exit 1
fi
cat <<E2

The load test has completed, $SECONDS s after the start. The cluster stays up. To look around:
  $LOOK get loadtests
  $LOOK logs $worker
To take it down:
  $DOWN
E2
