#!/usr/bin/env bash
# Measures a LoadTest and a bare Indexed Job on a real node: see tests/bench_node. Needs Linux and root.
# KEEP=1 leaves the cluster `bench` running.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
no_arguments "$@"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
CLUSTER=hack/local-cluster/cluster.sh
NAME=bench
WORKER_ARCHIVE=${XDG_CACHE_HOME:-$HOME/.cache}/artillery-operator/worker-image.tar
IMG=ghcr.io/artilleryio/artillery-operator-alpha:bench

require_command cargo:https://rustup.rs
bench=(env CARGO_PROFILE_BENCH_LTO=off CARGO_PROFILE_BENCH_CODEGEN_UNITS=16 CARGO_PROFILE_BENCH_OPT_LEVEL=1
  cargo test --quiet --profile bench --target-dir target/bench-tool --test bench-node)
"${bench[@]}" --no-run
operator=$(hack/operator-image.sh)
trap '[ "${KEEP:-}" = 1 ] || $CLUSTER down $NAME' EXIT
$CLUSTER up $NAME
hack/worker-image/build.sh "$WORKER_ARCHIVE"
$CLUSTER push "oci-archive:$WORKER_ARCHIVE" artilleryio/artillery:latest
$CLUSTER push "oci-archive:$operator" $IMG
run() { $CLUSTER exec --name $NAME "$@"; }
IMG=$IMG run ./operator-deploy.sh
run kubectl apply -k hack/examples/target
run kubectl rollout status deployment/target --timeout=60s
run "${bench[@]}"
