#!/bin/sh
# Adds Playwright to the compile cache, and checks that Chromium starts: run inside the image, as root, with the files of warm/ in
# /tmp/warm.
set -eu
export HOME=/tmp ARTILLERY_DISABLE_TELEMETRY=true NODE_COMPILE_CACHE=/opt/artillery/compile-cache PLAYWRIGHT_BROWSERS_PATH=/opt/playwright
cd /tmp/warm
trap 'rm -rf /tmp/warm' EXIT
node /opt/artillery/node_modules/artillery/bin/run run test.yml >/tmp/warm/log 2>&1 || { cat /tmp/warm/log; exit 1; }
grep -q 'browser.step.open: *$' /tmp/warm/log || { cat /tmp/warm/log; exit 1; }
chmod -R a+rX,go-w /opt/artillery/compile-cache
