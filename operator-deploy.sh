#!/usr/bin/env bash
# Installs the operator into the cluster of the current kubeconfig, or brings an installed one up to date.
# IMG names another image than the published one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=hack/kubectl.sh
. hack/kubectl.sh
IMG=${IMG:-ghcr.io/artilleryio/artillery-operator-alpha:latest}
NAMESPACE=artillery-operator-system
DEPLOYMENT=artillery-operator-controller-manager

need_cluster
need_right create customresourcedefinitions.apiextensions.k8s.io
need_right create clusterroles.rbac.authorization.k8s.io
echo "Installing the Artillery operator, image $IMG, into $(kubectl config current-context)"
kubectl kustomize config/default | sed "s|image: controller:latest|image: $IMG|" | kubectl apply -f -
if ! kubectl -n $NAMESPACE rollout status deployment/$DEPLOYMENT --timeout="${TIMEOUT:-120s}"; then
  echo >&2
  kubectl -n $NAMESPACE get pods >&2
  kubectl -n $NAMESPACE get events --field-selector type=Warning >&2
  echo "operator-deploy.sh: the operator is not up; see above. Its log: kubectl -n $NAMESPACE logs deployment/$DEPLOYMENT" >&2
  exit 1
fi
echo "The operator is up. Next: kubectl apply -k hack/examples/basic-loadtest"
