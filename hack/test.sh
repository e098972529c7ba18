#!/usr/bin/env bash
# All tests, in layers. Ends with 0 only when all of them have run and passed. Run by `make test`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
CLUSTER=hack/local-cluster/cluster.sh
WORKER_ARCHIVE=${XDG_CACHE_HOME:-$HOME/.cache}/artillery-operator/worker-image.tar
# A cluster of their own, so that a demo's is left alone; another name for another copy of this repository.
export CLUSTER_NAME=${CLUSTER_NAME:-tests}
NAME=$CLUSTER_NAME
LAYERS=() passed=0 failed=0 left_out=()

command -v cargo >/dev/null || { echo "test.sh: cargo is missing: see https://rustup.rs" >&2; exit 1; }

# layer NAME COMMAND...: runs it, shows its output, and counts its tests
layer() {
  local name=$1 begun=$SECONDS log ok fail status=0
  shift
  printf '\n== %s tests\n' "$name"
  log=$(mktemp)
  "$@" 2>&1 | tee "$log" || status=$?
  ok=$(awk '/^test result:/ {n += $4} /^[0-9]+ passed, [0-9]+ failed$/ {n += $1} END {print n + 0}' "$log")
  fail=$(awk '/^test result:/ {n += $6} /^[0-9]+ passed, [0-9]+ failed$/ {n += $3} END {print n + 0}' "$log")
  # What could not be built or started, or broke off, has no result line: that is a failure, not an empty success.
  if [ $status != 0 ] && [ "$fail" = 0 ] || [ "$ok" = 0 ]; then fail=$((fail + 1)); fi
  rm "$log"
  LAYERS+=("$(printf '%-12s %3d passed, %d failed, %d s' "$name" "$ok" "$fail" $((SECONDS - begun)))")
  passed=$((passed + ok)) failed=$((failed + fail))
}

leave_out() {
  LAYERS+=("$(printf '%-12s not run: %s' "$1" "$2")")
  left_out+=("$1")
}

layer unit cargo test --workspace --lib --bins --test faults-pure -- --skip model_check
# It goes through hundreds of thousands of states.
layer model-check cargo test --config profile.test.package.artillery-operator.opt-level=2 --lib model_check
if [ "$(uname)" = Linux ]; then
  trap '$CLUSTER control-plane down "$NAME"' EXIT
  if $CLUSTER control-plane up "$NAME"; then
    layer integration cargo test --test integration
  else
    leave_out integration "the control plane did not start; see above"
  fi
  layer faults hack/test-faults.sh --subset
else
  leave_out integration "it needs Linux, for etcd and kube-apiserver: run make test in a Linux machine or container"
  leave_out faults "they need what the integration tests need"
fi
if [ "$(uname)" = Linux ] && [ "$(id -u)" = 0 ]; then
  trap '$CLUSTER control-plane down "$NAME"; $CLUSTER down "$NAME"' EXIT
  cargo test --no-run --test e2e
  if $CLUSTER up "$NAME" && hack/worker-image/build.sh "$WORKER_ARCHIVE" &&
    $CLUSTER push "oci-archive:$WORKER_ARCHIVE" artilleryio/artillery:latest &&
    hack/prom-pushgateway/local-images.sh >/dev/null; then
    layer image hack/worker-image/test.sh "$WORKER_ARCHIVE"
    layer plugins hack/worker-image/test.sh --plugins "$WORKER_ARCHIVE"
    layer end-to-end $CLUSTER exec --name "$NAME" cargo test --offline --test e2e
    # Compares the operator's permissions with the requests of the last end-to-end run, so no other run may come between.
    layer rights $CLUSTER exec --name "$NAME" cargo test --offline --test e2e -- --ignored --nocapture --test-threads=1 rbac_audit
    layer kubelet $CLUSTER exec --name "$NAME" cargo test --offline --test e2e -- --ignored --nocapture --test-threads=1 kubelet
  else
    leave_out image "the local cluster did not start; see above"
    leave_out plugins "the local cluster did not start; see above"
    leave_out end-to-end "the local cluster did not start; see above"
    leave_out rights "they are compared with what the end-to-end tests use"
    leave_out kubelet "the local cluster did not start; see above"
  fi
else
  leave_out image "it needs Linux and root, to run in the image's root: sudo hack/worker-image/test.sh"
  leave_out plugins "they need what the image's tests need: sudo hack/worker-image/test.sh --plugins; make worker runs them\
 with Artillery from npm"
  leave_out end-to-end "it needs Linux and root, for a node: sudo make test; or, with a cluster of yours that can pull\
 artilleryio/artillery:latest and is there for tests alone, KUBECONFIG=... cargo test --test e2e"
  leave_out rights "they are compared with what the end-to-end tests use, by the local cluster's audit log"
  leave_out kubelet "it ends and starts the kubelet of the local cluster"
fi

printf '\n== Tests, by layer\n'
printf '%s\n' "${LAYERS[@]}"
if [ ${#left_out[@]} -gt 0 ]; then echo "NOT RUN: ${left_out[*]}"; fi
printf '\n%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ] && [ ${#left_out[@]} = 0 ]
