#!/usr/bin/env bash
# Installs the operator into the cluster of the current kubeconfig, or updates an existing installation.
# Environment variables:
#   IMG             the operator's image, if it is not the one of config/manager
#   NAMESPACES=a,b  limits the operator to these namespaces, and its permissions to Roles in them
#   TIMEOUT         how long to wait for the operator to become ready (120s)
# A cluster that is too old is rejected before anything is changed. After the rollout the script checks that the image is this operator.
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
VERSION=$(project_version)
PUSH_YOUR_OWN="Build and push your own image, and install it:
  make docker-build docker-push deploy IMG=registry.example/artillery-operator:v$VERSION"

# verify_image: exits unless the running image is this operator. An archived operator of another program is published under a
# similar name.
verify_image() {
  local reply
  if [ "$(kubectl auth can-i create pods/exec -n $NAMESPACE 2>/dev/null)" != yes ]; then
    log "the image was not verified, because the current user may not create pods/exec in $NAMESPACE"
    return
  fi
  reply=$(kubectl -n $NAMESPACE exec deployment/$DEPLOYMENT -c manager -- /artillery-operator --version 2>&1) || true
  # Warnings of kubectl come before it.
  reply=${reply##*$'\n'}
  case $reply in
  "artillery-operator $VERSION") echo "The image is this operator, version $VERSION." ;;
  "artillery-operator "[0-9]*) log "the image has version ${reply#* }, but the manifests are those of version $VERSION" ;;
  # The request failed, and not the program.
  "Error from server"* | "error: unable to upgrade connection"*) log "the image was not verified: $reply" ;;
  *) die "the image $IMG is not this operator: /artillery-operator --version replied: $reply
$PUSH_YOUR_OWN" ;;
  esac
}

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
  kubectl -n $NAMESPACE logs deployment/$DEPLOYMENT --tail=5 >&2 || true
  die "the new version of the operator is not ready; its pods, warnings and log are above. A previous version keeps running.
If the image cannot be pulled, or its log shows another program (such as an unknown flag), $IMG is not this operator.
$PUSH_YOUR_OWN"
fi
verify_image
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
