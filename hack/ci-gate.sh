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
  3   the test is inconclusive: no threshold is violated, but the workers did not send the planned load
  64  the script was called incorrectly, or kubectl is missing
  66  the LoadTest does not exist, or was deleted
  69  kubectl failed, for instance because the cluster cannot be reached
U
}

# fail CODE MESSAGE: exits with this code.
fail() {
  printf 'ci-gate.sh: %s\n' "$2" >&2
  exit "$1"
}

case ${1:-} in
-h | --help) usage && exit ;;
'') usage >&2 && exit 64 ;;
-* | */*) fail 64 "the first argument must be the name of a LoadTest, not '$1' (see ci-gate.sh --help)" ;;
esac
command -v kubectl >/dev/null || fail 64 "kubectl is missing: see https://kubernetes.io/docs/tasks/tools"
name=$1 timeout=10m
shift
if [ $# -gt 0 ] && [[ $1 != -* ]]; then
  timeout=$1
  shift
fi
[[ $timeout =~ ^([0-9]+([.][0-9]+)?(h|m|s|ms))+$ ]] || fail 64 "TIMEOUT must be a duration with a unit, such as 15m or 90s, not '$timeout'"
for option; do
  case $option in
  -o* | --output* | -w | --watch*) fail 64 "the option $option changes the output of kubectl, which ci-gate.sh reads" ;;
  esac
done
errors=$(mktemp)
trap 'rm -f "$errors"' EXIT

# read_status KUBECTL OPTION...: sets the variables below. If kubectl fails, exits with the code of the cause.
completed='' verdict='' passed='' progressing=''
fields='{.status.completionTime}{"\n"}{.status.verdict}{"\n"}'
fields+='{.status.conditions[?(@.type=="Passed")].message}{"\n"}{.status.conditions[?(@.type=="Progressing")].message}{"\n"}'
read_status() {
  local status message
  if ! status=$(kubectl get loadtest "$name" --request-timeout=30s -o jsonpath="$fields" "$@" 2>"$errors"); then
    message=$(<"$errors")
    case $message in
    # The NotFound of a wrong URL is "the server could not find the requested resource".
    *'(NotFound)'*'not found'*) fail 66 "there is no LoadTest $name: $message" ;;
    # kubectl refers to its help when it rejects an option.
    *'for usage'*) fail 64 "kubectl rejects the options $*: $message" ;;
    *) fail 69 "cannot read the LoadTest $name: $message" ;;
    esac
  fi
  # The command substitution drops empty lines at the end.
  { IFS= read -r completed && IFS= read -r verdict && IFS= read -r passed && IFS= read -r progressing; } <<<"$status" || true
}

read_status "$@"
if [ -z "$completed" ]; then
  wait_error=''
  kubectl wait --for=jsonpath='{.status.completionTime}' "loadtest/$name" --timeout="$timeout" "$@" >/dev/null 2>"$errors" ||
    wait_error=$(<"$errors")
  # The test can have ended although the wait failed.
  read_status "$@"
  if [ -z "$completed" ]; then
    case $wait_error in
    *'timed out waiting for the condition'*) ;;
    *'for usage'*) fail 64 "kubectl rejects the options $*: $wait_error" ;;
    *) fail 69 "cannot wait for the LoadTest $name: ${wait_error:-it was replaced while it was awaited}" ;;
    esac
    kubectl get loadtest "$name" "$@" || true
    echo "Not ended: $progressing"
    exit 2
  fi
fi
kubectl get loadtest "$name" "$@" || true
echo "$verdict: $passed"
case $verdict in
Passed) ;;
Inconclusive) exit 3 ;;
*) exit 1 ;;
esac
