#!/usr/bin/env bash
# Creates a cluster, installs the operator, and runs the basic example to its end. Run by `make demo`.
# The cluster is that of KUBECONFIG if it is set, otherwise a kind cluster if Docker and kind are available, otherwise one
# of hack/local-cluster. TIMEOUT is how long to wait for the load test (300s).
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
no_arguments "$@"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
CLUSTER=hack/local-cluster/cluster.sh
WORKER_ARCHIVE=${XDG_CACHE_HOME:-$HOME/.cache}/artillery-operator/worker-image.tar
TEST=basic-test
REPORT=target/$TEST.html

step() { printf '\n== %s (after %d s)\n' "$*" $SECONDS; }
# run COMMAND...: prints the command as a user would type it, and runs it in the cluster.
run() {
  printf '$ %s\n' "$*"
  "${IN_CLUSTER[@]}" "$@"
}
# quietly COMMAND...: runs the command in the cluster without printing it.
quietly() { "${IN_CLUSTER[@]}" "$@"; }

BUILDS=()
# A background job of a script ignores Ctrl-C, and would continue.
trap 'trap - INT; kill 0' INT
# build NAME COMMAND...: starts a build. Its output follows its name.
build() {
  local name=$1 begin=$SECONDS
  shift
  { CARGO_TERM_QUIET=true "$@" && echo "done after $((SECONDS - begin)) s"; } 2>&1 | sed -u "s/^/[$name] /" &
  BUILDS+=("$!:$name")
}
# wait_for_builds: waits for all builds, and exits if one of them failed.
wait_for_builds() {
  local build failed=()
  for build in "${BUILDS[@]}"; do wait "${build%%:*}" || failed+=("${build#*:}"); done
  [ ${#failed[@]} = 0 ] || die "the build of ${failed[*]} failed: see above"
}

# The operator runs as a local process, because another cluster cannot pull an image that was not pushed to a registry.
own_process() {
  require_command cargo:https://rustup.rs kubectl:https://kubernetes.io/docs/tasks/tools
  step "Installing the CRD and starting the operator on this machine"
  run make install
  cargo build --profile quick --workspace --bins
  PLUGIN=target/quick/kubectl-artillery
  target/quick/artillery-operator --metrics-bind-address=0 --health-probe-bind-address=0 &
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
  step "Building Kubernetes, the worker image with Artillery, and the operator"
  build Kubernetes $CLUSTER build
  build "worker image" hack/worker-image/build.sh "$WORKER_ARCHIVE"
  build operator env PROFILE=quick hack/operator-image.sh
  wait_for_builds
  step "Creating a local cluster of one node"
  $CLUSTER up
  $CLUSTER push "oci-archive:$WORKER_ARCHIVE" artilleryio/artillery:latest
  image=$(PROFILE=quick hack/operator-image.sh --push)
  PLUGIN=target/$(uname -m)-unknown-linux-gnu/quick/kubectl-artillery
  step "Installing the operator in the cluster"
  IN_CLUSTER=("$CLUSTER" exec)
  run env IMG="$image" ./operator-deploy.sh
  LOOK="$CLUSTER exec kubectl" DOWN="make down"
fi

step "Running a load test of two workers"
if quietly kubectl get loadtest $TEST >/dev/null 2>&1; then
  echo "(a LoadTest runs once, so the one of an earlier demo is deleted first)"
  run kubectl delete loadtest $TEST --wait
fi
run kubectl apply -k hack/examples/basic-loadtest
step "Watching the load test"
phase() { quietly kubectl get loadtest $TEST -o jsonpath='{.status.phase}'; }
outcome=0
# kubectl finds its plugins in PATH.
PATH=$PWD/${PLUGIN%/*}:$PATH run kubectl artillery watch $TEST --plain --timeout "${TIMEOUT:-300s}" --report "$REPORT" || outcome=$?
step "Results"
run kubectl describe loadtests $TEST
worker=$(quietly kubectl get pods -l artillery.io/test-name=$TEST -o jsonpath='{.items[0].metadata.name}')
printf '\n$ kubectl logs %s | tail -n 30\n' "$worker"
quietly kubectl logs "$worker" | tail -n 30

if [ $outcome != 0 ] || [ "$(phase)" != Completed ]; then
  printf '\nThe load test has not completed: its phase is %s.\n' "$(phase)"
  run kubectl get pods -o wide
  quietly kubectl -n artillery-operator-system logs deployment/artillery-operator-controller-manager --tail=50 || true
  exit 1
fi
cat <<E2

The load test completed $SECONDS s after the start of the demo. Its report: $PWD/$REPORT
The cluster keeps running. To inspect it:
  $LOOK get loadtests
  $LOOK logs $worker
To remove it:
  $DOWN
E2
