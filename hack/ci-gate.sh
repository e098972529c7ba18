#!/usr/bin/env bash
# Makes a pipeline fail when a load test does not pass. It needs only kubectl, and can be copied: it sources no other file.
set -euo pipefail

usage() {
  cat <<'U'
usage: ci-gate.sh NAME [TIMEOUT] [KUBECTL OPTION]...

Waits until the LoadTest NAME has ended, for at most TIMEOUT (10m), and prints its results:
  ci-gate.sh checkout 15m -n shop

Exit codes:
  0   the test passed
  1   the test did not pass
  2   the test has not ended in time
  64  the script was called incorrectly, or kubectl is missing
U
}
case ${1:-} in
-h | --help) usage && exit ;;
'') usage >&2 && exit 64 ;;
esac
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
