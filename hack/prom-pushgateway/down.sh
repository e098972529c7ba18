#!/usr/bin/env bash
# Removes what up.sh has installed, with all metrics. Once more does no harm.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=common.sh
. hack/prom-pushgateway/common.sh

usage() {
  cat <<'U'
usage: down.sh                 the cluster of the current kubeconfig
       down.sh --local [NAME]  a cluster of hack/local-cluster, `artillery` unless given
U
}
arguments "$@"

if [ -n "$LOCAL" ]; then
  kubectl delete --ignore-not-found -k "$HERE/local"
  exit
fi

# release NAMESPACE NAME
release() {
  if helm -n "$1" status "$2" >/dev/null 2>&1; then
    helm -n "$1" uninstall "$2" --wait --timeout "${TIMEOUT:-5m}"
  else
    echo "helm has no release $2 in $1"
  fi
}
release $PUSHGATEWAY_NAMESPACE $PUSHGATEWAY
release $MONITORING $PROMETHEUS
kubectl -n $MONITORING delete --ignore-not-found configmap $DASHBOARD
# A namespace that was there before may hold other things.
kubectl delete namespace -l $MARK=$MADE_BY
if kubectl get crd prometheuses.monitoring.coreos.com >/dev/null 2>&1; then
  cat <<'E2'
helm leaves the definitions of monitoring.coreos.com, which others may use. To remove them, and all that is of them:
  kubectl get crd -o name | grep monitoring.coreos.com | xargs kubectl delete
E2
fi
