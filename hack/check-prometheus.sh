#!/usr/bin/env bash
# Checks the alert rules of config/prometheus and runs their tests, and checks the dashboard. Needs promtool and jq.
# Run by `make lint`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../config/prometheus"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
sed -n '/^spec:/,$ s/^  //p' alerts.yaml >"$work/rules.yaml"
cp alerts_test.yaml "$work"
promtool check rules --lint=all --lint-fatal "$work/rules.yaml"
promtool test rules "$work/alerts_test.yaml"
# What the dashboard asks for, as rules: Grafana puts its intervals in.
jq '{groups: [{name: "dashboard", rules: [.panels[].targets[] | .expr | gsub("\\$__rate_interval|\\$__range"; "5m")] |
  to_entries | map({record: "dashboard:\(.key)", expr: .value})}]}' dashboard.json >"$work/dashboard.yaml"
promtool check rules "$work/dashboard.yaml"
