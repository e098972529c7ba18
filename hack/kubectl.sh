# shellcheck shell=bash
# Sourced by the scripts that need a cluster: says clearly what is missing.

fail() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}

need_cluster() {
  command -v kubectl >/dev/null || fail "kubectl is missing: see https://kubernetes.io/docs/tasks/tools"
  local error
  error=$(kubectl version --request-timeout=10s 2>&1 >/dev/null) ||
    fail "no cluster can be reached with the current kubeconfig (KUBECONFIG=${KUBECONFIG:-~/.kube/config}): ${error##*$'\n'}"
}

# need_right VERB RESOURCE
need_right() {
  [ "$(kubectl auth can-i "$1" "$2" 2>/dev/null)" = yes ] ||
    fail "$(kubectl auth whoami -o jsonpath='{.status.userInfo.username}' 2>/dev/null || echo 'the current user') may not $1 $2 in this cluster: ask its administrator"
}
