#!/usr/bin/env bash
# Runs all tests, layer by layer. Exits with 0 only if every layer ran and passed. Run by `make test`.
# CLUSTER_NAME names the cluster and the control plane that the tests create (tests).
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
no_arguments "$@"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
CLUSTER=hack/local-cluster/cluster.sh
WORKER_ARCHIVE=${XDG_CACHE_HOME:-$HOME/.cache}/artillery-operator/worker-image.tar
BROWSER_ARCHIVE=${WORKER_ARCHIVE%.tar}-browser.tar
# The tests use their own cluster, not that of a demo. A second copy of this repository needs another name.
export CLUSTER_NAME=${CLUSTER_NAME:-tests}
NAME=$CLUSTER_NAME
LAYERS=() passed=0 failed=0 skipped=()

require_command cargo:https://rustup.rs

# layer NAME COMMAND...: runs the command, prints its output, and counts its tests.
layer() {
  local name=$1 start=$SECONDS output ok fail status=0
  shift
  printf '\n== %s tests\n' "$name"
  output=$(mktemp)
  "$@" 2>&1 | tee "$output" || status=$?
  ok=$(awk '/^test result:/ {n += $4} /^[0-9]+ passed, [0-9]+ failed$/ {n += $1} END {print n + 0}' "$output")
  fail=$(awk '/^test result:/ {n += $6} /^[0-9]+ passed, [0-9]+ failed$/ {n += $3} END {print n + 0}' "$output")
  # A command that was not built, did not start or was aborted prints no result line. That counts as a failure.
  if [ $status != 0 ] && [ "$fail" = 0 ] || [ "$ok" = 0 ]; then fail=$((fail + 1)); fi
  rm "$output"
  LAYERS+=("$(printf '%-12s %3d passed, %d failed, %d s' "$name" "$ok" "$fail" $((SECONDS - start)))")
  passed=$((passed + ok)) failed=$((failed + fail))
}

# skip NAME WHY: records that a layer cannot run on this machine.
skip() {
  LAYERS+=("$(printf '%-12s not run: %s' "$1" "$2")")
  skipped+=("$1")
}

# Integration and end-to-end tests run the plugin.
cargo build -p kubectl-artillery
layer unit cargo test --workspace --lib --bins --test faults-unit -- --skip model_check
# The model check explores hundreds of thousands of states, so it is optimized.
layer model-check cargo test --config profile.test.package.artillery-operator.opt-level=2 --lib model_check
if command -v go >/dev/null; then
  layer gitops hack/kstatus/test.sh
  layer chart hack/test-chart.sh
else
  skip gitops "needs Go: see https://go.dev/doc/install"
  skip chart "needs Go, to build Helm"
fi
if [ "$(uname)" = Linux ]; then
  trap '$CLUSTER control-plane down "$NAME"' EXIT
  if $CLUSTER control-plane up "$NAME"; then
    layer integration cargo test --test integration
  else
    skip integration "the control plane did not start; see above"
  fi
  # The oldest supported version. `make test-matrix` tests all.
  layer oldest hack/test-matrix.sh 1.30.14
  if command -v go >/dev/null; then
    layer kueue env NAME="$NAME-kueue" hack/kueue.sh --test
  else
    skip kueue "needs Go, to build Kueue"
  fi
  layer faults hack/test-faults.sh --subset
else
  skip integration "needs Linux, for etcd and kube-apiserver: run make test on a Linux machine or in a container"
  skip oldest "needs the same as integration"
  skip kueue "needs the same as integration"
  skip faults "needs the same as integration"
fi
if [ "$(uname)" = Linux ] && [ "$(id -u)" = 0 ]; then
  trap '$CLUSTER control-plane down "$NAME"; $CLUSTER down "$NAME"' EXIT
  require_command prometheus tmux
  cargo test --no-run --test e2e
  TEKTON=$(hack/tekton.sh)
  export TEKTON
  if $CLUSTER up "$NAME" && hack/worker-image/build.sh "$WORKER_ARCHIVE" &&
    $CLUSTER push "oci-archive:$WORKER_ARCHIVE" artilleryio/artillery:latest &&
    hack/worker-image/build.sh --browser "$BROWSER_ARCHIVE" &&
    $CLUSTER push "oci-archive:$BROWSER_ARCHIVE" artilleryio/artillery:browser &&
    OPERATOR_IMAGE=$(hack/operator-image.sh --push) &&
    hack/prom-pushgateway/local-images.sh >/dev/null; then
    export OPERATOR_IMAGE
    layer krew hack/krew.sh --test
    layer helm hack/test-helm.sh
    layer report hack/report-browser/test.sh
    layer image hack/worker-image/test.sh "$WORKER_ARCHIVE"
    layer browser hack/worker-image/test.sh --browser "$BROWSER_ARCHIVE"
    layer plugins hack/worker-image/test.sh --plugins "$WORKER_ARCHIVE"
    layer end-to-end $CLUSTER exec --name "$NAME" cargo test --offline --test e2e
    # Compares the requests of the end-to-end tests with the permissions of their operators. It must follow them directly.
    layer rights $CLUSTER exec --name "$NAME" cargo test --offline --test e2e -- --ignored --nocapture --test-threads=1 rbac_audit
    layer kubelet $CLUSTER exec --name "$NAME" cargo test --offline --test e2e -- --ignored --nocapture --test-threads=1 kubelet
  else
    for name in krew helm report image browser plugins end-to-end rights kubelet; do
      skip "$name" "the local cluster or its images were not made; see above"
    done
  fi
else
  skip krew "needs Linux and root: sudo hack/krew.sh --test"
  skip helm "needs Linux and root: sudo OPERATOR_IMAGE=... hack/test-helm.sh"
  skip report "needs Linux and root: sudo hack/report-browser/test.sh"
  skip image "needs Linux and root: sudo hack/worker-image/test.sh"
  skip browser "needs Linux and root: sudo hack/worker-image/test.sh --browser"
  skip plugins "needs Linux and root: sudo hack/worker-image/test.sh --plugins; make worker runs the same tests\
 with Artillery from npm"
  skip end-to-end "needs Linux and root: sudo make test; or use a test cluster of your own that can pull\
 artilleryio/artillery:latest and artilleryio/artillery:browser: KUBECONFIG=... cargo test --test e2e"
  skip rights "needs the audit log of the local cluster"
  skip kubelet "needs the local cluster, whose kubelet it stops and starts"
fi

printf '\n== Tests, by layer\n'
printf '%s\n' "${LAYERS[@]}"
if [ ${#skipped[@]} -gt 0 ]; then echo "NOT RUN: ${skipped[*]}"; fi
printf '\n%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ] && [ ${#skipped[@]} = 0 ]
