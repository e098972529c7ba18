#!/usr/bin/env bash
# Installs the operator into the cluster of the current kubeconfig, or updates an existing installation.
# Environment variables:
#   IMG             the operator's image, if it is not the one of config/manager
#   NAMESPACES=a,b  limits the operator to these namespaces, and its permissions to Roles in them
#   TIMEOUT         how long to wait for the operator to become ready (120s)
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/hack/lib.sh"
no_arguments "$@"
cd "$(dirname "${BASH_SOURCE[0]}")"
DEFAULT_IMG=$(sed -n 's/^ *image: //p' config/manager/manager.yaml)
IMG=${IMG:-$DEFAULT_IMG}
NAMESPACES=${NAMESPACES:-}
NAMESPACE=artillery-operator-system
# The first version that serves ValidatingAdmissionPolicy as admissionregistration.k8s.io/v1 (config/policy).
MINIMUM_KUBERNETES=1.30
DEPLOYMENT=artillery-operator-controller-manager

require_cluster
require_kubernetes $MINIMUM_KUBERNETES
require_permission create customresourcedefinitions.apiextensions.k8s.io
require_permission create clusterroles.rbac.authorization.k8s.io
echo "Installing the Artillery operator, image $IMG, into $(kubectl config current-context)"
FOLDER=config/default
if [ -n "$NAMESPACES" ]; then
  FOLDER=config/namespaced
  [[ ,$NAMESPACES =~ ^(,[a-z0-9]([-a-z0-9]*[a-z0-9])?)+$ ]] || die "NAMESPACES must be a comma-separated list such as a,b: $NAMESPACES"
  echo "The operator is limited to these namespaces, which must exist: $NAMESPACES"
  for namespace in ${NAMESPACES//,/ }; do
    kubectl apply -n "$namespace" -k config/namespaced/rights
  done
fi
kustomize_operator $FOLDER "$IMG" "$NAMESPACES" | kubectl apply -f -
if ! kubectl -n $NAMESPACE rollout status deployment/$DEPLOYMENT --timeout="${TIMEOUT:-120s}"; then
  echo >&2
  kubectl -n $NAMESPACE get pods >&2
  kubectl -n $NAMESPACE get events --field-selector type=Warning >&2
  die "the new version of the operator is not ready; the pods and warnings are above. A previous version keeps running. See its log: kubectl -n $NAMESPACE logs POD"
fi
# Permissions that a previous installation had, and this one does not need.
if [ -n "$NAMESPACES" ]; then
  kubectl delete --ignore-not-found clusterrolebindings,clusterroles \
    artillery-operator-{manager,proxy}-rolebinding artillery-operator-{manager,proxy}-role artillery-operator-metrics-reader
  kubectl -n $NAMESPACE delete --ignore-not-found service $DEPLOYMENT-metrics-service
fi
kubectl get roles,rolebindings --all-namespaces -l artillery.io/rights=namespaced --no-headers \
  -o custom-columns=N:.metadata.namespace,K:.kind,M:.metadata.name |
  while read -r namespace kind name; do
    case ,$NAMESPACES, in
    *,$namespace,*) ;;
    *) kubectl delete -n "$namespace" "$kind" "$name" </dev/null ;;
    esac
  done
echo "The operator is running. Next: kubectl apply -k hack/examples/basic-loadtest"
