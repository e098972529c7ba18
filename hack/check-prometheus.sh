#!/usr/bin/env bash
# Checks the alert rules of config/prometheus, runs their tests, and checks the queries of the dashboards. Run by `make lint`.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
no_arguments "$@"
cd "$(dirname "${BASH_SOURCE[0]}")/../config/prometheus"
require_command promtool:https://prometheus.io/download jq
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
sed -n '/^spec:/,$ s/^  //p' alerts.yaml >"$work/rules.yaml"
cp alerts_test.yaml "$work"
promtool check rules --lint=all --lint-fatal "$work/rules.yaml"
promtool test rules "$work/alerts_test.yaml"
# The queries are checked as recording rules. Grafana replaces the interval variables; here they are 5m.
for dashboard in dashboard.json loadtest_dashboard.json; do
  jq '{groups: [{name: "dashboard", rules: [.panels[].targets[] | .expr | gsub("\\$__rate_interval|\\$__range"; "5m")] |
    to_entries | map({record: "dashboard:\(.key)", expr: .value})}]}' $dashboard >"$work/$dashboard"
  promtool check rules "$work/$dashboard"
done
