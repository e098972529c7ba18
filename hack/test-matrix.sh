#!/usr/bin/env bash
# Runs the integration tests on control planes of other versions of Kubernetes: test-matrix.sh [VERSION...], by default all
# supported ones. The control planes are built once and kept in the cache folder. The results are printed as a table of
# docs/operator/clusters.md. FILTER selects tests by a part of their names.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_option "$@"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# The oldest version with validating admission policies, the first patch release of the next, and the last of the others.
[ $# -gt 0 ] || set -- 1.30.14 1.31.0 1.33.13 1.35.4 1.36.3 1.37.2
require_command cargo:https://rustup.rs
export CLUSTER_NAME=matrix
CLUSTER=hack/local-cluster/cluster.sh
rows=() passed=0 failed=0

cargo build --quiet -p kubectl-artillery
cargo test --quiet --no-run --test integration
trap '$CLUSTER control-plane down matrix' EXIT
for version; do
  export KUBERNETES_VERSION=$version
  printf '\n== Kubernetes %s\n' "$version"
  output=$(mktemp)
  build=$SECONDS begin=$SECONDS ok=0 bad=1
  if $CLUSTER control-plane down matrix && $CLUSTER control-plane up matrix; then
    begin=$SECONDS
    cargo test --test integration -- ${FILTER:+"$FILTER"} 2>&1 | tee "$output" || true
    read -r ok bad < <(awk '/^test result:/ {p += $4; f += $6} END {print p + 0, f + (p == 0)}' "$output")
  fi
  rows+=("$(printf '| %s | %d passed, %d failed | %d s | %d s |' "$version" "$ok" "$bad" $((SECONDS - begin)) $((begin - build)))")
  passed=$((passed + ok)) failed=$((failed + bad))
  rm "$output"
done

printf '\n| Kubernetes | integration tests | tests took | build and start took |\n|---|---|---|---|\n'
printf '%s\n' "${rows[@]}"
printf '\nin all versions: %d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
