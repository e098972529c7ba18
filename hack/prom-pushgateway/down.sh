#!/usr/bin/env bash
# Removes what up.sh installed, including all metrics. Running it again does no harm.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=common.sh
. hack/prom-pushgateway/common.sh

usage() {
  cat <<'U'
usage: down.sh                 the cluster of the current kubeconfig
       down.sh --local [NAME]  a cluster of hack/local-cluster (default: artillery)
U
}
arguments "$@"

if [ -n "$LOCAL" ]; then
  kubectl delete --ignore-not-found -k "$HERE/local"
  exit
fi

# release NAMESPACE NAME: uninstalls a release of helm, if it exists.
release() {
  if helm -n "$1" status "$2" >/dev/null 2>&1; then
    helm -n "$1" uninstall "$2" --wait --timeout "${TIMEOUT:-5m}"
  else
    echo "There is no helm release $2 in the namespace $1"
  fi
}
release $PUSHGATEWAY_NAMESPACE $PUSHGATEWAY
release $MONITORING $PROMETHEUS
kubectl -n $MONITORING delete --ignore-not-found configmap $DASHBOARD
# A namespace that up.sh did not create may contain other objects.
kubectl delete namespace -l $MARK=$MADE_BY
if kubectl get crd prometheuses.monitoring.coreos.com >/dev/null 2>&1; then
  cat <<'E2'
helm does not remove the CRDs of monitoring.coreos.com, which others may use. To remove them with all their objects:
  kubectl get crd -o name | grep monitoring.coreos.com | xargs kubectl delete
E2
fi
