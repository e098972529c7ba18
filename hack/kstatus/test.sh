#!/usr/bin/env bash
# Tests what kstatus and Argo CD's health script make of LoadTests in every phase. Run by `make test`.
# The objects are in loadtests.json, which a unit test keeps equal to what the operator writes.
set -euo pipefail
# shellcheck source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
no_arguments "$@"
cd "$(dirname "${BASH_SOURCE[0]}")"
require_command go:https://go.dev/doc/install jq

seen=$(mktemp)
trap 'rm -f "$seen"' EXIT
jq -c '.[].object' loadtests.json | go run . ../../config/gitops/argocd-health.lua >"$seen"
passed=0 failed=0
printf '%-26s %-12s %s\n' LOADTEST KSTATUS "ARGO CD"
while IFS=$'\t' read -r name kstatus health message <&3 && IFS=$'\t' read -r expected_kstatus expected_health <&4; do
  printf '%-26s %-12s %s: %s\n' "$name" "$kstatus" "$health" "$message"
  if [ "$kstatus $health" = "$expected_kstatus $expected_health" ] && [ -n "$message" ]; then
    passed=$((passed + 1))
  else
    log "$name: expected $expected_kstatus and $expected_health, with a message"
    failed=$((failed + 1))
  fi
done 3<"$seen" 4< <(jq -r '.[] | [.kstatus, .health] | @tsv' loadtests.json)
[ $((passed + failed)) = "$(jq length loadtests.json)" ] || failed=$((failed + 1))
printf '\n%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
