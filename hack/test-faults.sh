#!/usr/bin/env bash
# Lets faults befall the operator's requests and its world, on a control plane of its own: see tests/faults.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
  cat <<'U'
usage: test-faults.sh [OPTION]...

Learns the operator's requests, and lets one fault befall each of many runs: all that are known, unless an option says
otherwise. Prints a table of the faults, and each violation with the history of the objects.
  --subset      some of every kind, in about three minutes (all: about twenty)
  --only NAME   those whose name contains NAME, such as 'completes: create jobs 1'; can be given more than once
  --list        say which they would be, and end
  --seed N      another subset, and another order
  --parallel N  so many runs at a time (8 of a subset, else 24)
  --minutes N   begin no run after so many minutes
From the environment:
  KEEP=1        leave the control plane up
U
  exit
fi

NAME=faults
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
