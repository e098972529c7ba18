#!/usr/bin/env bash
# Tests the Helm chart with Helm 3 and Helm 4, without a cluster. Run by `make test`.
# HELM_VERSIONS=3 limits the tests to this version.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
no_arguments "$@"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
require_command kubectl:https://kubernetes.io/docs/tasks/tools jq node:nodejs
CHART=charts/artillery-operator
NAMESPACE=artillery-operator-system
IMAGE=$(sed -n 's/^ *image: //p' config/manager/manager.yaml)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

# result NAME STATUS [FILE]: counts a test, and prints the file if the status is not 0.
result() {
  if [ "$2" = 0 ]; then
    passed=$((passed + 1))
    echo "ok: $1"
  else
    failed=$((failed + 1))
    echo "FAILED: $1"
    [ -z "${3:-}" ] || head -40 "$3"
  fi
}

# normalized: prints the objects on stdin with sorted fields and in a fixed order, and fails for duplicates.
normalized() {
  local folder
  folder=$(mktemp -d "$work/XXXX")
  cat >"$folder/objects.yaml"
  printf 'resources: [objects.yaml]\nsortOptions: {order: legacy}\n' >"$folder/kustomization.yaml"
  kubectl kustomize "$folder"
}

# rendered ARGUMENT...: prints the objects of the chart without its tests.
rendered() {
  "$helm" template artillery $CHART --namespace $NAMESPACE --no-hooks "$@"
}

# equal NAME EXPECTED ARGUMENT...: compares the chart with the objects in a file.
equal() {
  local name=$1 expected=$2 status=0
  shift 2
  { rendered "$@" | normalized | diff "$expected" - >"$work/diff"; } 2>"$work/error" || status=1
  cat "$work/diff" >>"$work/error"
  result "$name" $status "$work/error"
}

# One changed value for each setting: its path in values.yaml, and an option that changes it.
CHANGES='name --set=name=other
image.repository --set=image.repository=x/y
image.tag --set=image.tag=v9
image.digest --set=image.digest=sha256:0123456789012345678901234567890123456789012345678901234567890123
image.pullPolicy --set=image.pullPolicy=Never
imagePullSecrets --set=imagePullSecrets[0].name=s
replicas --set=replicas=2
namespace.create --set=namespace.create=true
crds.install --set=crds.install=false
crds.keep --set=crds.keep=true
rbac.create --set=rbac.create=false
serviceAccount.annotations --set=serviceAccount.annotations.a=b
namespaces --set=namespaces={a}
selector --set=selector=shard=a,leaderElection.lease=other
leaderElection.enabled --set=leaderElection.enabled=false
leaderElection.lease --set=leaderElection.lease=other
leaderElection.namespace --set=leaderElection.namespace=other
worker.image --set=worker.image=x/w
worker.imagePullPolicy --set=worker.imagePullPolicy=Never
worker.user --set=worker.user=none
worker.liveResults --set=worker.liveResults=false
worker.defaults --set=worker.defaults.nodeSelector.pool=load
log.format --set=log.format=json
log.level --set=log.level=debug
metrics.enabled --set=metrics.enabled=false
metrics.secure --set=metrics.secure=false
metrics.port --set=metrics.port=9443
metrics.certificateSecret --set=metrics.certificateSecret=s
probes.port --set=probes.port=9081
state.enabled --set=state.enabled=false
policies.enabled --set=policies.enabled=false
networkPolicy.enabled --set=networkPolicy.enabled=false
priorityClass.create --set=priorityClass.create=false
priorityClass.value --set=priorityClass.value=7
priorityClass.name --set=priorityClass.create=false,priorityClass.name=p
prometheus.enabled --set=prometheus.enabled=true
resources --set=resources.limits.memory=1Gi
podAnnotations --set=podAnnotations.a=b
podLabels --set=podLabels.a=b
nodeSelector --set=nodeSelector.a=b
tolerations --set=tolerations[0].operator=Exists
affinity --set=affinity.nodeAffinity.a=b
topologySpreadConstraints --set=topologySpreadConstraints=null
terminationGracePeriodSeconds --set=terminationGracePeriodSeconds=5
extraArgs --set=extraArgs={--x}
extraEnv --set=extraEnv[0].name=A
test.image --set=test.image=x/t
test.labels --set=test.labels.a=b
test.timeoutSeconds --set=test.timeoutSeconds=5'

INVALID='replicas=-1
replicas=x
log.format=xml
worker.user=0
worker.imagePullPolicy=Sometimes
metrics.port=70000
name=Upper
image.digest=sha256:12
namespaces={a,a}
unknown=1
metrics.unknown=1
selector=shard=a'

kubectl kustomize config/default | normalized >"$work/default"
{
  kustomize_operator config/namespaced "$IMAGE" a,b
  for namespace in a b; do
    echo ---
    # kustomize accepts only relative paths.
    mkdir "$work/rights-$namespace"
    kubectl kustomize config/namespaced/rights >"$work/rights-$namespace/rights.yaml"
    printf 'namespace: %s\nresources: [rights.yaml]\n' $namespace >"$work/rights-$namespace/kustomization.yaml"
    kubectl kustomize "$work/rights-$namespace"
  done
} | normalized >"$work/namespaced"
{
  cat "$work/default"
  echo ---
  kubectl kustomize config/prometheus
} | normalized >"$work/prometheus"

# without_namespace FILE: prints the objects without the Namespace, which Helm creates.
without_namespace() {
  awk '
    function flush() { if (text != "" && kind != "Namespace") printf "%s%s", (n++ ? "---\n" : ""), text; text = kind = "" }
    /^---$/ { flush(); next }
    { text = text $0 "\n" }
    /^kind: / { kind = $2 }
    END { flush() }' "$1"
}

grep -qx "version: $(project_version)" $CHART/Chart.yaml && status=0 || status=1
result "the chart has the version of Cargo.toml" "$status"
# The paths of all settings in the schema, as far as the schema names them.
jq -r 'def leaves($at): to_entries[] | ($at + .key) as $path | if .value.properties then .value.properties | leaves($path + ".")
  else $path end; .properties | del(.global) | leaves("")' $CHART/values.schema.json | sort >"$work/settings"
status=0
cut -d' ' -f1 <<<"$CHANGES" | sort | diff "$work/settings" - >"$work/diff" || status=1
result "every setting of the schema is tested" $status "$work/diff"

for version in ${HELM_VERSIONS:-3 4}; do
  helm=$(hack/helm.sh "$version")
  "$helm" lint --strict --quiet $CHART >"$work/lint" 2>&1 && status=0 || status=1
  result "Helm $version: lint" $status "$work/lint"
  equal "Helm $version: everything equals config/default" "$work/default" --set namespace.create=true
  without_namespace "$work/default" >"$work/expected"
  equal "Helm $version: the default equals config/default without the namespace" "$work/expected"
  without_namespace "$work/namespaced" >"$work/expected"
  equal "Helm $version: two namespaces equal config/namespaced and its rights" "$work/expected" --set 'namespaces={a,b}'
  equal "Helm $version: prometheus equals config/prometheus" "$work/prometheus" --set namespace.create=true,prometheus.enabled=true

  "$helm" template artillery $CHART --namespace $NAMESPACE >"$work/whole"
  while read -r path option; do
    if ! "$helm" template artillery $CHART --namespace $NAMESPACE "$option" >"$work/changed" 2>"$work/error"; then
      result "Helm $version: $path" 1 "$work/error"
    elif cmp -s "$work/whole" "$work/changed"; then
      result "Helm $version: $path changes nothing" 1
    else
      normalized <"$work/changed" >/dev/null 2>"$work/error" && status=0 || status=1
      result "Helm $version: $path" $status "$work/error"
    fi
  done <<<"$CHANGES"
  while read -r setting; do
    rendered --set "$setting" >"$work/out" 2>&1 && status=1 || status=0
    result "Helm $version: $setting is rejected" $status "$work/out"
  done <<<"$INVALID"

  rendered --kube-version 1.29.15 >"$work/out" 2>&1 && status=1 || status=0
  rendered --kube-version 1.30.0 >"$work/out" 2>&1 || status=1
  result "Helm $version: a cluster that is too old is rejected" $status "$work/out"

  # Settings that the operator reads only when it starts replace its pods.
  rendered --set log.level=debug | grep -q 'checksum/settings' && status=0 || status=1
  result "Helm $version: a changed setting replaces the pods" $status
  # The Deployment keeps other namespaces and names apart.
  "$helm" template other $CHART --namespace elsewhere --set name=second --no-hooks |
    grep -nE 'artillery-operator-(system|manager|controller|worker|leader|proxy|metrics|loadtest)' >"$work/out" && status=1 || status=0
  result "Helm $version: name and namespace replace all others" $status "$work/out"
done

node hack/test-chart.mjs $CHART/files/test.mjs >"$work/out" 2>&1 && status=0 || status=1
result "helm test passes and fails with its load test" $status "$work/out"

printf '\n%d passed, %d failed\n' $passed $failed
[ $failed = 0 ]
