# shellcheck shell=bash
# shellcheck disable=SC2034 # used by the scripts that source this file
# Sourced by up.sh and down.sh, in the root of the repository: selects the cluster, and defines names that both scripts use.

# shellcheck source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
HERE=hack/prom-pushgateway
CLUSTER=hack/local-cluster/cluster.sh
# The service that test-script.yaml of the example names, and the namespace of Prometheus.
PUSHGATEWAY=prometheus-pushgateway PUSHGATEWAY_NAMESPACE=default
PROMETHEUS=prometheus MONITORING=monitoring
DASHBOARD=artillery-load-tests
MARK=artillery-operator/made-by MADE_BY=prom-pushgateway

# arguments ARGS...: sets FORWARD, and LOCAL to the name of the local cluster or to nothing.
arguments() {
  LOCAL='' FORWARD=yes
  # `cluster.sh exec` sets such a KUBECONFIG.
  [[ ! ${KUBECONFIG:-} =~ /artillery-operator/([a-z0-9-]+)/admin\.kubeconfig$ ]] || LOCAL=${BASH_REMATCH[1]}
  while [ $# -gt 0 ]; do
    case $1 in
    --local)
      LOCAL=${LOCAL:-artillery}
      if [[ ${2:-} =~ ^[a-z] ]]; then LOCAL=$2 && shift; fi
      ;;
    --no-forward) FORWARD=no ;;
    -h | --help) usage && exit ;;
    *) usage >&2 && exit 2 ;;
    esac
    shift
  done
  if [ -n "$LOCAL" ]; then
    kubectl() { "$CLUSTER" exec --name "$LOCAL" kubectl "$@"; }
    kubectl version >/dev/null || die "the local cluster $LOCAL does not respond; the error is above"
  else
    require_command "helm:https://helm.sh/docs/intro/install (a cluster of hack/local-cluster needs --local instead)" \
      kubectl:https://kubernetes.io/docs/tasks/tools
    require_cluster
  fi
}
