#!/bin/sh
# Fills the compile cache: run inside the image, as root, with the scripts of warm/ in /tmp/warm.
# node caches the code of a file only once, with the functions used so far, so one run uses most features of tests.
set -eu
export HOME=/tmp ARTILLERY_DISABLE_TELEMETRY=true NODE_COMPILE_CACHE=/opt/artillery/compile-cache WARM_PORT=18080
cd /tmp/warm
node server.js &
server=$!
trap 'kill $server; rm -rf /tmp/warm' EXIT
until wget -q -O /dev/null "http://127.0.0.1:$WARM_PORT/" 2>/dev/null; do
  kill -0 $server
  sleep 0.1
done
node /opt/artillery/node_modules/artillery/bin/run run test.yml --environment warm --output /tmp/warm/report.json >/tmp/warm/log || { cat /tmp/warm/log; exit 1; }
node /opt/artillery/node_modules/artillery/bin/run run typescript.yml >/tmp/warm/log || { cat /tmp/warm/log; exit 1; }
# Every user of the image can read the cache, and none can write it.
chmod -R a+rX,go-w /opt/artillery/compile-cache
