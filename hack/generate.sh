#!/usr/bin/env bash
# Writes the files that are generated from the Rust types, and the files of the Helm chart that are generated from config/:
# generate.sh [--check]
# With --check it changes nothing, and fails if a file is out of date.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_option "$@"
[ "${1:---check}" = --check ] || no_arguments "$@"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
require_command cargo:https://rustup.rs kubectl:https://kubernetes.io/docs/tasks/tools

# select_objects PATTERN: prints the objects on stdin whose kind/name matches the pattern.
select_objects() {
  awk -v pattern="^($1)\$" '
    function flush() { if (kind "/" name ~ pattern) printf "%s%s", (n++ ? "---\n" : ""), text; text = kind = name = "" }
    /^---$/ { flush(); next }
    { text = text $0 "\n" }
    /^kind: / { kind = $2 }
    /^  name: / && name == "" { name = $2 }
    END { flush() }'
}

crdgen=(cargo run --quiet -p loadtest-api --bin crdgen --)
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
"${crdgen[@]}" >"$new/crd"
"${crdgen[@]}" --reference >"$new/reference"
kubectl kustomize config/default >"$new/default"
name=artillery-operator
select_objects 'Namespace/.*' <"$new/default" >"$new/namespace"
select_objects "ClusterRole/$name-loadtest-.*" <"$new/default" >"$new/user-roles"
select_objects "ClusterRole(Binding)?/$name-manager-.*" <"$new/default" >"$new/rights"
select_objects "ClusterRole(Binding)?/$name-(proxy|metrics)-.*" <"$new/default" >"$new/metrics-rights"
select_objects 'ValidatingAdmissionPolicy(Binding)?/.*' <"$new/default" >"$new/policies"
select_objects 'NetworkPolicy/.*' <"$new/default" >"$new/network-policy"
select_objects "ConfigMap/$name-manager-config" <"$new/default" >"$new/manager-config"
select_objects "ConfigMap/$name-worker-defaults" <"$new/default" >"$new/worker-defaults"
kubectl kustomize config/namespaced/rights | sed 's/^metadata:$/&\n  namespace: "@watched-namespace@"/' >"$new/namespace-rights"
kubectl kustomize config/prometheus >"$new/prometheus"
# The CRD of the chart is that of the types, also when config/crd is out of date.
cp "$new/crd" "$new/chart-crd"
while read -r generated file; do
  if [ "${1:-}" != --check ]; then
    cp "$new/$generated" "$file"
    chmod 644 "$file"
  elif ! diff -u "$file" "$new/$generated"; then
    die "$file does not match the Rust types or config/: run make manifests"
  fi
done <<'FILES'
crd config/crd/loadtest.artillery.io_loadtests.yaml
reference docs/user/reference.md
chart-crd charts/artillery-operator/files/crd.yaml
namespace charts/artillery-operator/files/namespace.yaml
user-roles charts/artillery-operator/files/user-roles.yaml
rights charts/artillery-operator/files/rights.yaml
metrics-rights charts/artillery-operator/files/metrics-rights.yaml
namespace-rights charts/artillery-operator/files/namespace-rights.yaml
policies charts/artillery-operator/files/policies.yaml
network-policy charts/artillery-operator/files/network-policy.yaml
manager-config charts/artillery-operator/files/manager-config.yaml
worker-defaults charts/artillery-operator/files/worker-defaults.yaml
prometheus charts/artillery-operator/files/prometheus.yaml
FILES
