#!/usr/bin/env bash
# Installs the operator into the cluster of the current kubeconfig, or brings an installed one up to date.
# IMG names another image than the published one. NAMESPACES=a,b limits the operator to these namespaces, and its rights
# to Roles in them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=hack/kubectl.sh
. hack/kubectl.sh
IMG=${IMG:-ghcr.io/artilleryio/artillery-operator-alpha:latest}
NAMESPACES=${NAMESPACES:-}
NAMESPACE=artillery-operator-system
DEPLOYMENT=artillery-operator-controller-manager

need_cluster
need_right create customresourcedefinitions.apiextensions.k8s.io
need_right create clusterroles.rbac.authorization.k8s.io
echo "Installing the Artillery operator, image $IMG, into $(kubectl config current-context)"
FOLDER=config/default
if [ -n "$NAMESPACES" ]; then
  FOLDER=config/namespaced
  [[ ,$NAMESPACES =~ ^(,[a-z0-9]([-a-z0-9]*[a-z0-9])?)+$ ]] || fail "NAMESPACES is not a list such as a,b: $NAMESPACES"
  echo "It is limited to these namespaces, which have to exist: $NAMESPACES"
  for namespace in ${NAMESPACES//,/ }; do
    kubectl apply -n "$namespace" -k config/namespaced/rights
  done
fi
kubectl kustomize $FOLDER |
  sed -e "s|image: controller:latest|image: $IMG|" -e "/name: NAMESPACES/{n;s|value: .*|value: \"$NAMESPACES\"|;}" |
  kubectl apply -f -
if ! kubectl -n $NAMESPACE rollout status deployment/$DEPLOYMENT --timeout="${TIMEOUT:-120s}"; then
  echo >&2
  kubectl -n $NAMESPACE get pods >&2
  kubectl -n $NAMESPACE get events --field-selector type=Warning >&2
  echo "operator-deploy.sh: this version of the operator is not up; see above (an earlier one goes on). Its log: kubectl -n $NAMESPACE logs POD" >&2
  exit 1
fi
# What an earlier installation gave, and this one does not.
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
echo "The operator is up. Next: kubectl apply -k hack/examples/basic-loadtest"
