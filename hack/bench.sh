#!/usr/bin/env bash
# Measures the operator against a control plane of its own with simulated nodes: see tests/bench.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
  cat <<'U'
usage: bench.sh [N COUNT]...
       bench.sh --case CASE [N]

Measures N LoadTests of COUNT workers each, every pair on a new control plane: 100 2 and then 1000 2, unless given.
Or one case, with N of 1000 unless given:
  depth         one LoadTest of N workers
  memory        N finished LoadTests with their Jobs and two pods each: the memory they take
  rest          the same: what is done about them, and the processor time
  restart       the same: a new operator, and one that takes over from one that was killed
  refresh       N running LoadTests, of which only DURATION changes
  foreign       N pods and Jobs of others: what they take
  angry         429 for a minute, 2 s a call, and a namespace that takes no Jobs with N LoadTests in it
  instructions  what a decision and an event take, by valgrind; without a control plane
memory,rest,restart measures all three of the same LoadTests.

From the environment:
  KEEP=1         leave the last control plane up
  NAME           the control plane's name (bench)
  CONCURRENCY    LoadTests that are created at a time (20)
  OPERATOR       the command to measure, instead of this operator as its image has it; to see what holds the memory:
                 OPERATOR="valgrind --tool=massif PROGRAM --metrics-bind-address=0 --health-probe-bind-address=0"
  RUN_S, QUIET_S, LIMIT_S, NODES, RUST_LOG
                 as for tests/bench, whose usage tells more
U
  exit
fi
runs=()
if [ "${1:-}" = --case ]; then
  if [ $# -lt 2 ] || [ $# -gt 3 ]; then echo "bench.sh: --case CASE [N]" >&2; exit 2; fi
  runs=("--case $2 ${3:-1000}")
else
  [ $(($# % 2)) = 0 ] || { echo "bench.sh: N and COUNT come in pairs" >&2; exit 2; }
  [ $# -gt 0 ] || set -- 100 2 1000 2
  while [ $# -gt 0 ]; do
    runs+=("$1 $2")
    shift 2
  done
fi

NAME=${NAME:-bench}
TARGET=x86_64-unknown-linux-gnu
plane() { hack/local-cluster/cluster.sh control-plane "$@"; }

# What measures is to be light on the machine, but need not be small: it is built in seconds where the operator takes
# minutes, and apart, since the profile's settings differ.
level=1
# Here it is itself what is measured.
[ "${runs[0]}" != "--case instructions ${3:-1000}" ] || level=s
bench=(env CARGO_PROFILE_BENCH_LTO=off CARGO_PROFILE_BENCH_CODEGEN_UNITS=16 CARGO_PROFILE_BENCH_OPT_LEVEL="$level"
  cargo test --quiet --profile bench --target-dir target/bench-tool --test bench)
if [ "$level" = s ]; then
  command -v valgrind >/dev/null || { echo "bench.sh: valgrind is missing; Debian has it in valgrind" >&2; exit 1; }
  exec "${bench[@]}" -- --case instructions
fi

operator=()
if [ -n "${OPERATOR:-}" ]; then
  read -ra operator <<<"$OPERATOR"
else
  # as for the image
  make --no-print-directory "TARGET=$TARGET" "target/$TARGET/release/artillery-operator"
  operator=("target/$TARGET/release/artillery-operator" --leader-elect --leader-elect-namespace=default
    --metrics-bind-address=127.0.0.1:0 --health-probe-bind-address=127.0.0.1:0)
  echo "the program: $(($(stat -c %s "${operator[0]}") / 1024)) KiB, of at most 12288"
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
  # KUBECONFIG is a list separated by colons, and a group's name has one
  operator_kubeconfig=$(dirname "$user")/operator.kubeconfig
  cp "$user" "$operator_kubeconfig"
  plane exec --name "$NAME" kubectl apply --server-side -f config/crd/loadtest.artillery.io_loadtests.yaml
  # The condition Established is missing at first, which `kubectl wait` takes for an error.
  timeout 30 sh -c 'until "$@" >/dev/null 2>&1; do sleep 0.1; done' - hack/local-cluster/cluster.sh control-plane exec --name "$NAME" \
    kubectl get loadtests -A || { echo "bench.sh: the API server does not serve LoadTests after 30 s" >&2; exit 1; }
  read -ra numbers <<<"$run"
  OPERATOR_KUBECONFIG=$operator_kubeconfig plane exec --name "$NAME" "${bench[@]}" -- "${numbers[@]}" "${CONCURRENCY:-20}" -- \
    "${operator[@]}"
done
