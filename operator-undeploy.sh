#!/usr/bin/env bash
# Removes the operator, its CRD and all load tests from the cluster of the current kubeconfig.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/hack/lib.sh"
no_arguments "$@"
cd "$(dirname "${BASH_SOURCE[0]}")"

require_cluster
require_permission delete customresourcedefinitions.apiextensions.k8s.io
echo "Removing the Artillery operator from $(kubectl config current-context)"
# The load tests are deleted first, together with their Jobs and pods, so no worker is left running.
if kubectl get crd loadtests.loadtest.artillery.io >/dev/null 2>&1; then
  tests=$(kubectl get loadtests --all-namespaces 2>/dev/null)
  printf 'These load tests are deleted with their workers:\n%s\n' "${tests:-(none)}"
  kubectl delete loadtests --all --all-namespaces --cascade=foreground --wait --timeout=120s |
    { grep -vx 'No resources found' || true; }
fi
kubectl kustomize config/default | kubectl delete --ignore-not-found --wait --timeout=120s -f -
# The files of the workers, in each namespace that had load tests.
kubectl delete configmaps --all-namespaces -l artillery.io/component=loadtest-worker-files |
  { grep -vx 'No resources found' || true; }
# The Roles of an installation that is limited to some namespaces.
kubectl delete roles,rolebindings --all-namespaces -l artillery.io/rights=namespaced |
  { grep -vx 'No resources found' || true; }
echo "The operator is removed."
