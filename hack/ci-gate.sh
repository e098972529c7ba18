#!/usr/bin/env bash
# Waits for a load test to end, for a pipeline: 0 if it has passed, 1 if it has not, 2 if it has not ended in time.
set -euo pipefail

if [ $# -lt 1 ] || [ "$1" = -h ] || [ "$1" = --help ]; then
  cat <<'U'
usage: ci-gate.sh NAME [TIMEOUT] [KUBECTL OPTION]...

Waits until the LoadTest NAME has ended, for TIMEOUT (10m) at most, and prints its results:
  ci-gate.sh checkout 15m -n shop
Ends with 0 if it has passed, 1 if it has not, 2 if it has not ended by then.
U
  exit 64
fi
command -v kubectl >/dev/null || { echo "ci-gate.sh: kubectl is missing: see https://kubernetes.io/docs/tasks/tools" >&2; exit 64; }
name=$1 timeout=${2:-10m}
shift $(($# < 2 ? $# : 2))

if ! kubectl wait --for=jsonpath='{.status.completionTime}' "loadtest/$name" --timeout="$timeout" "$@" >/dev/null; then
  kubectl get loadtest "$name" "$@" || true
  kubectl get loadtest "$name" "$@" -o jsonpath='{"Not ended: "}{.status.conditions[?(@.type=="Progressing")].message}{"\n"}' || true
  exit 2
fi
kubectl get loadtest "$name" "$@"
kubectl get loadtest "$name" "$@" -o jsonpath='{.status.verdict}{": "}{.status.conditions[?(@.type=="Passed")].message}{"\n"}'
[ "$(kubectl get loadtest "$name" "$@" -o jsonpath='{.status.verdict}')" = Passed ]
