#!/usr/bin/env bash
# Measures the operator on a separate control plane with simulated nodes: see tests/bench.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
  cat <<'U'
usage: bench.sh [N COUNT]...
       bench.sh --case CASE [N]

Measures N LoadTests of COUNT workers each, every pair on a new control plane (default: 100 2 1000 2).
With --case it measures one case, with N = 1000 by default:
  depth         one LoadTest of N workers
  memory        N finished LoadTests with their Jobs and two pods each: memory
  rest          the same: requests and CPU time while nothing changes
  restart       the same: the start of a new operator, and the takeover from a killed one
  refresh       N running LoadTests of which only DURATION changes: status writes
  foreign       N pods and Jobs of others: memory and CPU time
  degraded      429 for a minute, 2 s more for each request, and N LoadTests in a namespace whose quota forbids Jobs
  tenants       N suspended LoadTests with inline scripts of 60 KiB, and other inputs of one tenant: memory, and the wait of others
  instructions  CPU instructions of a decision and of an event, by valgrind; without a control plane
memory,rest,restart measures all three with the same LoadTests.

Environment variables:
  KEEP=1         leave the last control plane running
  NAME           the name of the control plane (bench)
  CONCURRENCY    LoadTests that are created at a time (20)
  OPERATOR       the command to measure, instead of the operator as it is built for its image. To profile the memory:
                 OPERATOR="valgrind --tool=massif PROGRAM --metrics-bind-address=0 --health-probe-bind-address=0"
  RUN_S, QUIET_S, LIMIT_S, NODES, RUST_LOG
                 see the usage of tests/bench
U
}
case ${1:-} in -h | --help) usage && exit ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
require_command cargo:https://rustup.rs
runs=()
if [ "${1:-}" = --case ]; then
  if [ $# -lt 2 ] || [ $# -gt 3 ]; then usage >&2 && exit 2; fi
  runs=("--case $2 ${3:-1000}")
else
  [ $(($# % 2)) = 0 ] || { usage >&2 && exit 2; }
  [ $# -gt 0 ] || set -- 100 2 1000 2
  while [ $# -gt 0 ]; do
    runs+=("$1 $2")
    shift 2
  done
fi

NAME=${NAME:-bench}
TARGET=x86_64-unknown-linux-gnu
plane() { hack/local-cluster/cluster.sh control-plane "$@"; }

# The benchmark is built with its own profile settings, which take seconds instead of minutes, and therefore in its own folder.
level=1
# This case measures code of the benchmark itself, so it is optimized as the operator is.
[ "${runs[0]}" != "--case instructions ${3:-1000}" ] || level=s
bench=(env CARGO_PROFILE_BENCH_LTO=off CARGO_PROFILE_BENCH_CODEGEN_UNITS=16 CARGO_PROFILE_BENCH_OPT_LEVEL="$level"
  cargo test --quiet --profile bench --target-dir target/bench-tool --test bench)
if [ "$level" = s ]; then
  require_command valgrind
  exec "${bench[@]}" -- --case instructions
fi

operator=()
if [ -n "${OPERATOR:-}" ]; then
  read -ra operator <<<"$OPERATOR"
else
  # The same build as for the image.
  make --no-print-directory "TARGET=$TARGET" "target/$TARGET/release/artillery-operator"
  operator=("target/$TARGET/release/artillery-operator" --leader-elect --leader-elect-namespace=default
    --metrics-bind-address=127.0.0.1:0 --health-probe-bind-address=127.0.0.1:0)
  echo "size of the operator: $(($(stat -c %s "${operator[0]}") / 1024)) KiB (at most 12288)"
fi
"${bench[@]}" --no-run

down() {
  [ "${KEEP:-}" = 1 ] || plane down "$NAME"
}
trap down EXIT

for run in "${runs[@]}"; do
  plane down "$NAME"
  plane up "$NAME"
  user=$(plane user --name "$NAME" operator system:masters)
  # KUBECONFIG is a list separated by colons, and the file name contains a colon of the group's name.
  operator_kubeconfig=$(dirname "$user")/operator.kubeconfig
  cp "$user" "$operator_kubeconfig"
  read -ra numbers <<<"$run"
  OPERATOR_KUBECONFIG=$operator_kubeconfig plane exec --name "$NAME" "${bench[@]}" -- "${numbers[@]}" "${CONCURRENCY:-20}" -- \
    "${operator[@]}"
done
