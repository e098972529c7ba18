# shellcheck shell=bash
# shellcheck disable=SC2034 # those who source it use what it sets
# Sourced by up.sh and down.sh, in the repository's folder: which cluster is meant, and what both of them name.

# shellcheck source=../kubectl.sh
. hack/kubectl.sh
HERE=hack/prom-pushgateway
CLUSTER=hack/local-cluster/cluster.sh
# The service that the example's test-script.yaml names, and where Prometheus is.
PUSHGATEWAY=prometheus-pushgateway PUSHGATEWAY_NAMESPACE=default
PROMETHEUS=prometheus MONITORING=monitoring
DASHBOARD=artillery-load-tests
MARK=artillery-operator/made-by MADE_BY=prom-pushgateway

# arguments ARGS...: sets LOCAL to the local cluster's name, if that is meant, and FORWARD
arguments() {
  LOCAL='' FORWARD=yes
  # What cluster.sh exec sets.
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
    kubectl version >/dev/null || fail "the local cluster $LOCAL does not answer; see above"
  else
    # helm first: who has neither wants to know of both.
    command -v helm >/dev/null || fail "helm is missing: see https://helm.sh/docs/intro/install. For a cluster of hack/local-cluster use --local"
    need_cluster
  fi
}
