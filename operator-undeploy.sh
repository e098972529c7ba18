#!/usr/bin/env bash
# Removes the operator, its CRD and all load tests from the cluster of the current kubeconfig.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=hack/kubectl.sh
. hack/kubectl.sh

need_cluster
need_right delete customresourcedefinitions.apiextensions.k8s.io
echo "Removing the Artillery operator from $(kubectl config current-context)"
# The load tests go first, and wait for their Jobs and pods: nothing is left running that nobody watches.
if kubectl get crd loadtests.loadtest.artillery.io >/dev/null 2>&1; then
  tests=$(kubectl get loadtests --all-namespaces 2>/dev/null)
  printf 'With it go these load tests and their workers:\n%s\n' "${tests:-(none)}"
  kubectl delete loadtests --all --all-namespaces --cascade=foreground --wait --timeout=120s |
    { grep -vx 'No resources found' || true; }
fi
kubectl kustomize config/default | kubectl delete --ignore-not-found --wait --timeout=120s -f -
# What workers were given, in each namespace that had load tests.
kubectl delete configmaps --all-namespaces -l artillery.io/component=loadtest-worker-files |
  { grep -vx 'No resources found' || true; }
# Those of an installation that is limited to some namespaces.
kubectl delete roles,rolebindings --all-namespaces -l artillery.io/rights=namespaced |
  { grep -vx 'No resources found' || true; }
echo "The operator is removed."
