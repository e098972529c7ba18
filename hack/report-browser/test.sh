#!/usr/bin/env bash
# Opens HTML reports in a headless Chromium: they make no request, show the numbers of the status, and are accessible.
#   test.sh [SCREENSHOTS]
# SCREENSHOTS is the folder for the screenshots; default: target/report-screenshots. CHROMIUM is the path of the browser, if
# it is none of chromium-headless-shell, chromium and google-chrome.
set -euo pipefail
# shellcheck source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
help_option "$@"
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
SCREENSHOTS=${1:-target/report-screenshots}
SCREENSHOTS=$(realpath -m "$SCREENSHOTS")

find_browser() {
  local name
  for name in chromium-headless-shell chromium google-chrome; do
    command -v "$name" && return
  done
}
CHROMIUM=${CHROMIUM:-$(find_browser || true)}
if [ -z "$CHROMIUM" ]; then
  require_command chromium-headless-shell
  CHROMIUM=$(find_browser)
fi
require_command cargo:https://rustup.rs node:https://nodejs.org npm:https://nodejs.org
export CHROMIUM

REPORTS=$(mktemp -d)
trap 'rm -rf "$REPORTS"' EXIT
# hack/test.sh counts this test with the unit tests, so its output is shown only if it fails.
output=$(REPORT_DIR=$REPORTS cargo test --quiet -p kubectl-artillery --lib report::tests::every_format 2>&1) || die "$output"
cd hack/report-browser
if [ ! node_modules/.package-lock.json -nt package-lock.json ]; then npm ci --no-audit --no-fund >&2; fi
node test.mjs "$REPORTS" "$SCREENSHOTS"
