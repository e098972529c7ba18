#!/usr/bin/env bash
# Injects faults into the operator's requests and into the cluster, on a separate control plane: see tests/faults.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
  cat <<'U'
usage: test-faults.sh [OPTION]...

Records the operator's requests, then injects one fault into each of many runs. Without options it injects every known
fault. Prints a table of the faults, and each violation with the history of the objects.
  --subset      some faults of every kind, in about three minutes (all: about twenty-five)
  --only NAME   the faults whose name contains NAME, such as 'completes: create jobs 1'; can be repeated
  --list        list the selected faults and exit
  --seed N      another subset, and another order
  --parallel N  runs at a time (8 for a subset, otherwise 24)
  --minutes N   start no run after N minutes
Environment variables:
  KEEP=1        leave the control plane running
  NAME          the name of the control plane (faults)
U
}
case ${1:-} in -h | --help) usage && exit ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
require_command cargo:https://rustup.rs

NAME=${NAME:-faults}
chosen=--all
for option; do
  case $option in --subset | --only) chosen= ;; esac
done
plane() { hack/local-cluster/cluster.sh control-plane "$@"; }
down() {
  [ "${KEEP:-}" = 1 ] || plane down "$NAME"
}
trap down EXIT
plane up "$NAME"
KUBECONFIG=$(plane kubeconfig "$NAME")
export KUBECONFIG
cargo test --quiet --test faults -- ${chosen:+"$chosen"} "$@"
