#!/usr/bin/env bash
# Measures the operator against a control plane of its own with simulated nodes: see tests/bench.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
  cat <<'U'
usage: bench.sh [N COUNT]...

Measures N LoadTests of COUNT workers each, every pair on a new control plane: 100 2 and then 1000 2, unless given.
From the environment:
  KEEP=1         leave the last control plane up
  CONCURRENCY    LoadTests that are created at a time (20)
  OPERATOR       the command to measure, instead of this operator as its image has it
  RUN_S, QUIET_S, LIMIT_S, NODES, RUST_LOG
                 as for tests/bench, whose usage tells more
U
  exit
fi
[ $(($# % 2)) = 0 ] || { echo "bench.sh: N and COUNT come in pairs" >&2; exit 2; }
[ $# -gt 0 ] || set -- 100 2 1000 2

NAME=bench
TARGET=x86_64-unknown-linux-gnu
plane() { hack/local-cluster/cluster.sh control-plane "$@"; }

operator=()
if [ -n "${OPERATOR:-}" ]; then
  read -ra operator <<<"$OPERATOR"
else
  # as for the image
  RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --target "$TARGET" --bin artillery-operator
  operator=("target/$TARGET/release/artillery-operator" --leader-elect --leader-elect-namespace=default
    --metrics-bind-address=127.0.0.1:0 --health-probe-bind-address=127.0.0.1:0)
fi
# What measures is to be light on the machine, but need not be small: it is built in seconds where the operator takes
# minutes, and apart, since the profile's settings differ.
bench=(env CARGO_PROFILE_BENCH_LTO=off CARGO_PROFILE_BENCH_CODEGEN_UNITS=16 CARGO_PROFILE_BENCH_OPT_LEVEL=1
  cargo test --quiet --profile bench --target-dir target/bench-tool --test bench)
"${bench[@]}" --no-run

down() {
  [ "${KEEP:-}" = 1 ] || plane down "$NAME"
}
trap down EXIT

while [ $# -gt 0 ]; do
  plane down "$NAME"
  plane up "$NAME"
  user=$(plane user --name "$NAME" operator system:masters)
  # KUBECONFIG is a list separated by colons, and a group's name has one
  operator_kubeconfig=$(dirname "$user")/operator.kubeconfig
  cp "$user" "$operator_kubeconfig"
  plane exec --name "$NAME" kubectl apply --server-side -f config/crd/loadtest.artillery.io_loadtests.yaml
  plane exec --name "$NAME" kubectl wait --for=condition=Established crd/loadtests.loadtest.artillery.io --timeout=30s
  OPERATOR_KUBECONFIG=$operator_kubeconfig plane exec --name "$NAME" "${bench[@]}" -- "$1" "$2" "${CONCURRENCY:-20}" -- "${operator[@]}"
  shift 2
done
