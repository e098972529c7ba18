#!/usr/bin/env bash
# Installs Prometheus and the Pushgateway for load tests that publish metrics. Running it again does no harm.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=common.sh
. hack/prom-pushgateway/common.sh

usage() {
  cat <<'U'
usage: up.sh [--no-forward]    the cluster of the current kubeconfig, by helm; then forwards a port to the Pushgateway
       up.sh --local [NAME]    a cluster of hack/local-cluster (default: artillery), by images made from Debian packages
                               (in `cluster.sh exec` this is the default)

Environment variables:
  CHARTS    a mirror of https://prometheus-community.github.io/helm-charts
  TIMEOUT   how long to wait for each component
U
}
arguments "$@"

# wait_for NAMESPACE DEPLOYMENT: waits until the Deployment is ready.
wait_for() {
  kubectl -n "$1" rollout status "deployment/$2" --timeout="${TIMEOUT:-120s}" && return
  kubectl -n "$1" get pods >&2
  kubectl -n "$1" get events --field-selector type=Warning >&2
  die "$2 is not ready; the pods and warnings are above"
}

if [ -n "$LOCAL" ]; then
  "$HERE/local-images.sh" >/dev/null
  kubectl apply -k "$HERE/local"
  wait_for $PUSHGATEWAY_NAMESPACE $PUSHGATEWAY
  wait_for $MONITORING prometheus-k8s
  cat <<E2

These services are running in the local cluster $LOCAL:
  Pushgateway  http://$PUSHGATEWAY:9091 in the namespace $PUSHGATEWAY_NAMESPACE
  Prometheus   http://prometheus-k8s.$MONITORING:9090
A browser cannot reach them there, but kubectl can:
  hack/local-cluster/cluster.sh exec --name $LOCAL kubectl get --raw /api/v1/namespaces/$PUSHGATEWAY_NAMESPACE/services/$PUSHGATEWAY:9091/proxy/metrics
E2
  exit
fi

CHARTS=${CHARTS:-https://prometheus-community.github.io/helm-charts}
# ours: whether this script installed Prometheus.
ours() { helm -n $MONITORING status $PROMETHEUS >/dev/null 2>&1; }
others() { kubectl get prometheuses.monitoring.coreos.com -A -o jsonpath='{range .items[*]}{.metadata.namespace}/{.metadata.name} {end}' 2>/dev/null; }

if ! ours && found=$(others) && [ -n "$found" ]; then
  # Two Prometheus Operators in one cluster would conflict.
  monitors=${found%%/*}
  echo "This cluster already has Prometheus: ${found% }. It is left unchanged and must select the ServiceMonitor $monitors/$PUSHGATEWAY."
else
  monitors=$MONITORING
  if ! kubectl get namespace $MONITORING >/dev/null 2>&1; then
    kubectl create namespace $MONITORING
    kubectl label namespace $MONITORING $MARK=$MADE_BY
  fi
  echo "Installing Prometheus and Grafana in the namespace $MONITORING"
  # Older versions of the charts do not have the values that are set here.
  helm upgrade --install $PROMETHEUS kube-prometheus-stack --repo "$CHARTS" --version '>=67.8.0' \
    --namespace $MONITORING --values "$HERE/helm/prometheus.yaml" --wait --timeout "${TIMEOUT:-10m}"
  # Grafana loads ConfigMaps with this label.
  kubectl -n $MONITORING create configmap $DASHBOARD --from-file="$HERE/dashboard.json" --dry-run=client -o yaml |
    kubectl label --local -f - grafana_dashboard=1 -o yaml | kubectl apply -f -
fi
echo "Installing the Pushgateway in the namespace $PUSHGATEWAY_NAMESPACE"
helm upgrade --install $PUSHGATEWAY prometheus-pushgateway --repo "$CHARTS" --version '^3.2.0' \
  --namespace $PUSHGATEWAY_NAMESPACE --values "$HERE/helm/pushgateway.yaml" \
  --set serviceMonitor.namespace="$monitors" --wait --timeout "${TIMEOUT:-5m}"

cat <<E2

The Pushgateway is running: svc/$PUSHGATEWAY in the namespace $PUSHGATEWAY_NAMESPACE.
E2
if [ "$monitors" = $MONITORING ] && ours; then
  cat <<E2
To open Prometheus, and the dashboard "Artillery load tests" in Grafana:
  kubectl -n $MONITORING port-forward service/prometheus-k8s 9090
  kubectl -n $MONITORING port-forward service/$PROMETHEUS-grafana 3000:80
E2
fi
if [ $FORWARD = yes ]; then
  echo "The Pushgateway is available at http://localhost:9091 until Ctrl-C:"
  exec kubectl -n $PUSHGATEWAY_NAMESPACE port-forward service/$PUSHGATEWAY 9091
fi
