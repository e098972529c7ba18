#!/usr/bin/env bash
# Tests the worker image: test.sh [--plugins|--browser] [IMAGE.tar]    (without IMAGE.tar it builds the image)
# Unpacks the image to a root that is read-only except /tmp, as in a cluster, and runs Artillery in it against a target on
# the loopback interface, in a network namespace without any other interface. Needs root.
# With --browser it runs tests of the browser engine instead, in the image of the flavor browser.
# With --plugins it runs the tests of the worker's JavaScript (worker/) instead, with the Artillery of the image.
set -euo pipefail
# shellcheck source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
help_option "$@"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if [ "${1-}" != --inside ]; then
  what=image
  if [ "${1-}" = --plugins ]; then what=plugins && shift; fi
  if [ "${1-}" = --browser ]; then what=browser && shift; fi
  [ "$(id -u)" = 0 ] || die "needs root, for namespaces and other user IDs"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  image=${1-}
  flavor=()
  [ $what != browser ] || flavor=(--browser)
  [ -n "$image" ] || image=$("$here/build.sh" "${flavor[@]}" "$work/image.tar")
  mkdir "$work/image" "$work/root"
  tar -C "$work/image" -xf "$image"
  for blob in "$work"/image/blobs/sha256/*; do
    if gzip -t "$blob" 2>/dev/null; then tar -C "$work/root" -xzf "$blob"; fi
  done
  unshare --mount --net --pid --fork --kill-child "$here/test.sh" --inside "$work/root" $what
  exit
fi

root=$2 what=$3
ip() { busybox ip "$@"; }
ip link set lo up
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc /proc
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mount -o bind,remount,ro "$root"
tests=/tmp/tests
mkdir "$root$tests" && cp -R "$here"/test/. "$root$tests" && chmod -R a+rwX "$root$tests"

user=1000
environment=()
within() {
  chroot --userspec="$user:$user" "$root" /bin/env -i PATH=/bin:/usr/bin HOME=/tmp ARTILLERY_DISABLE_TELEMETRY=true \
    NODE_COMPILE_CACHE=/opt/artillery/compile-cache PLAYWRIGHT_BROWSERS_PATH=/opt/playwright "${environment[@]}" "$@"
}

if [ "$what" = plugins ]; then
  # The image provides Artillery, so node_modules is not copied.
  mkdir "$root/tmp/worker"
  cp -R "$here"/../../worker/{package.json,plugins,preload,test} "$root/tmp/worker/"
  chmod -R a+rX "$root/tmp/worker"
  environment=(ARTILLERY=/opt/artillery/node_modules NODE_COMPILE_CACHE=/tmp/compile-cache)
  ended=0
  # shellcheck disable=SC2016 # expanded by the inner shell
  within sh -c 'exec node --test --test-concurrency=2 --test-reporter=tap /tmp/worker/test/*.test.mjs' >"$root/tmp/output" || ended=$?
  grep -vE '^ *(---|\.\.\.|type:|TAP version|1\.\.)' "$root/tmp/output" || true
  number() { awk -v what="$1" '$1 == "#" && $2 == what {n = $3} END {print n + 0}' "$root/tmp/output"; }
  # A cancelled test exceeded its time limit.
  failed=$(($(number fail) + $(number cancelled) + $(number skipped)))
  echo "$(number pass) passed, $failed failed"
  [ $ended = 0 ] && [ $failed = 0 ]
  exit
fi
log=$root/tmp/requests
within env LOG=/tmp/requests node $tests/server.js &
for _ in $(seq 50); do ! grep -qs ready "$log" || break; sleep 0.1; done

failed=0 passed=0
# check WHAT EXIT-CODE PATTERN... -- ARGUMENT...: runs artillery. Each pattern must match the output or the log of the target.
check() {
  local what=$1 code=$2 patterns=() ended=0 bad=()
  shift 2
  while [ "$1" != -- ]; do patterns+=("$1") && shift; done
  shift
  : >"$log"
  within sh -c 'cd /tmp/tests && exec timeout 60 artillery "$@"' sh "$@" >"$root/tmp/output" 2>&1 || ended=$?
  [ "$ended" = "$code" ] || bad+=("exit code $ended, not $code")
  for pattern in "${patterns[@]}"; do
    grep -aqE -- "$pattern" "$root/tmp/output" "$log" || bad+=("no match for: $pattern")
  done
  result "$what" "${bad[@]}"
}
# result WHAT PROBLEM...: prints and counts the result of a test, which failed if there is a problem.
result() {
  local what=$1
  shift
  if [ $# = 0 ]; then
    passed=$((passed + 1))
    echo "ok      $what"
  else
    failed=$((failed + 1)) && echo "FAILED  $what" && printf '        %s\n' "$@"
    sed 's/^/        | /' "$root/tmp/output" | tail -n 25
    sed 's/^/        > /' "$log" | tail -n 10
  fi
}

if [ "$what" = browser ]; then
  check "browser, TypeScript" 0 'browser.page.codes.200: \.+ 4$' 'browser.page.LCP.http://127.0.0.1:8080/page\?id=NUMBER:' \
    'browser.step.press:' 'vusers.completed: \.+ 2$' 'GET /page/2' -- run browser.yml
  check "browser, CommonJS" 0 'browser.page.CLS.http' 'browser.step.open:' 'vusers.completed: \.+ 2$' -- run browser.yml -e javascript
  check "browser, metrics by the name of the scenario" 0 'browser.page.LCP.Visit:' -- run browser.yml -e aggregated
  check "browser, one for each virtual user" 0 'vusers.completed: \.+ 2$' -- run browser.yml -e separate
  environment=(HEADING=other)
  check "failed assertion" 0 'errors.pw_failed_assertion.toHaveText: \.+ 2$' 'vusers.failed: \.+ 2$' -- run browser.yml -e javascript
  # The operator's preload worker-id.cjs sets WORKER_ID.
  environment=(WORKER_ID=worker-1)
  check "headless: false" 0 'vusers.completed: \.+ 2$' 'Forcing Playwright headless mode' -- run browser.yml -e headed
  environment=()
  check "Chromium's sandbox is not available" 11 'Chromium sandboxing failed' -- run browser.yml -e sandbox
  user=1234567
  check "a user without a name" 0 'vusers.completed: \.+ 2$' -- run browser.yml -e javascript
  environment=(NODE_DEBUG_NATIVE=COMPILE_CACHE)
  check "the compile cache has Playwright" 0 'code cache for CommonJS .*playwright-core/lib/coreBundle.js was accepted' -- run browser.yml -e javascript
  echo "$passed passed, $failed failed"
  [ "$failed" = 0 ]
  exit
fi
check "version" 0 "Artillery: 2\." "Node.js: +v2[4-9]" -- version
check "http" 0 'http.requests: \.+ 15$' 'http.codes.404: \.+ 5$' 'GET /before' 'GET /after' 'POST /post/7 application/json \{"a":"3"\}' -- run http.yml
check "environment" 0 "GET /other/get" -- run http.yml --environment other
check "output" 0 "Log file: /tmp/report.json" -- run http.yml --output /tmp/report.json
bad=()
within node -e '
  const { aggregate, intermediate } = JSON.parse(fs.readFileSync("/tmp/report.json"));
  const good = aggregate.counters["http.requests"] === 15 && aggregate.summaries["http.response_time"].count === 15;
  process.exitCode = good && intermediate.length > 0 ? 0 : 1' || bad+=("/tmp/report.json does not contain the measurements of the run")
result "output is complete" "${bad[@]}"
check "overrides and target" 0 "GET /elsewhere/get" 'http.requests: \.+ 3$' -- run http.yml -t http://127.0.0.1:8080/elsewhere --overrides '{"config": {"phases": [{"duration": 1, "arrivalCount": 1}]}}'
check "processor, CommonJS" 0 "GET /chosen/cjs" 'test.chosen: \.+ 1$' -- run processor-cjs.yml
check "processor, ES module with top-level await" 0 "GET /chosen/esm" -- run processor-esm.yml
check "processor, TypeScript of two files" 0 "GET /chosen/ts" -- run processor-ts.yml
check "payload" 0 "GET /person/ann/30" "GET /person/bob/31" "GET /person/carl/32" -- run payload.yml
check "ensure holds" 0 "http.codes.200 > 0" -- run ensure.yml
check "ensure fails" 1 "http.response_time.p99" -- run ensure.yml --environment failing
check "expect fails" 21 "expected: 201" -- run expect.yml
environment=("ARTILLERY_PLUGIN_PATH=$tests/plugins")
check "plugins, built in and on the plugin path" 0 "apdex" "plugins.metrics-by-endpoint" "of-cjs has 1" "of-esm is here" "GET /plugins/[a-z]" -- run plugins.yml
environment=()
# Artillery looks for engines beside itself and on NODE_PATH, and not on the plugin path.
environment=("NODE_PATH=$tests/plugins")
check "an engine and a plugin on NODE_PATH" 0 'own.steps: \.+ 2$' "of-cjs has" -- run own-engine.yml
environment=(WORD=hello)
check "variables of the environment" 0 "GET /variables/hello/hello/hello" -- run variables.yml
environment=()
check "plugin slack" 0 "POST /slack .*run finished" -- run http.yml --overrides '{"config": {"plugins": {"slack": {"webhookUrl": "http://127.0.0.1:8080/slack"}}}}'
check "reporter statsd" 0 "UDP artillery.http.requests:" -- run http.yml --overrides '{"config": {"plugins": {"publish-metrics": [{"type": "statsd", "host": "127.0.0.1", "port": 8125}]}}}'
# Artillery may divide the requests between two of its periods.
sent=$(awk -F '[:|]' '/UDP artillery.http.requests:/ {n += $2} END {print n + 0}' "$log")
if [ "$sent" = 15 ]; then result "reporter statsd, all requests"; else result "reporter statsd, all requests" "$sent requests, not 15"; fi
check "engine ws" 0 'websocket.messages_sent: \.+ 2$' "WS /ws hello" -- run ws.yml
check "engine socketio" 0 'socketio.emit: \.+ 2$' 'vusers.completed: \.+ 2$' "WS .*ask" -- run socketio.yml
environment=(AWS_ENDPOINT_URL=http://127.0.0.1:8080 AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=b WORKER_ID=worker-1)
check "reporters: Prometheus, CloudWatch, Datadog, OpenTelemetry" 0 "(PUT|POST) /metrics/job/worker-1.*artillery_" '"Namespace":"artillery"' "UDP .*artillery" "POST /v1/metrics" "POST /v1/traces" -- run reporters.yml
environment=()
# These reporters send only to the servers of their vendors, so the test checks only that they load.
check "reporters: Splunk, New Relic, Mixpanel" 0 -- run reporters.yml --overrides '{"config": {"plugins": {"publish-metrics": [
  {"type": "splunk", "realm": "us1", "accessToken": "a"}, {"type": "newrelic", "licenseKey": "a"}, {"type": "mixpanel", "projectToken": "a"}]}}}'
check "the browser engine without a browser" 11 "Cannot find module '@playwright/test'" -- run browser.yml -e javascript
check "unknown engine" 11 "engine nowhere specified but module artillery-engine-nowhere could not be loaded" -- run engine.yml
check "no such flag" 2 "Nonexistent flag: --bad" -- run --bad http.yml
check "no such script" 1 "not-there.yml" -- run not-there.yml
check "no such processor" 11 "not-there.js" -- run no-processor.yml

user=1234567
check "a user without a name" 0 'http.requests: \.+ 15$' -- run http.yml
environment=(NODE_DEBUG_NATIVE=COMPILE_CACHE)
check "the compile cache is used by any user" 0 "code cache for ESM .*worker.js was accepted" "code cache for ESM .*dist.lib.cmds.run.js was accepted" -- run http.yml
environment=()
missed=$(grep -ac 'code cache for .*/opt/artillery/.* was rejected' "$root/tmp/output" || true)
bad=()
[ "$missed" = 0 ] || bad+=("$missed were rejected")
result "no file's cache is rejected" "${bad[@]}"

# As process 1, `artillery` is a shell that forwards the exit code and the signals.
# shellcheck disable=SC2016 # expanded by the inner shell
first=(unshare --pid --fork --kill-child bash -c 'mount -t proc proc "$1/proc" && exec chroot --userspec=1000:1000 "$@"' bash "$root" /bin/env -i
  PATH=/bin HOME=/tmp NODE_COMPILE_CACHE=/opt/artillery/compile-cache artillery)
ended=0 bad=()
"${first[@]}" run /tmp/tests/ensure.yml --environment failing >"$root/tmp/output" 2>&1 || ended=$?
[ "$ended" = 1 ] || bad+=("exit code $ended, not 1")
result "exit code as process 1" "${bad[@]}"
for after in 0.1 0.3 0.6 1 3; do
  ended=0 started=$(date +%s%N)
  "${first[@]}" run /tmp/tests/long.yml >"$root/tmp/output" 2>&1 &
  outer=$!
  sleep "$after"
  kill -TERM "$(ps -o pid= --ppid "$outer" | tr -d " ")"
  wait "$outer" || ended=$?
  took=$((($(date +%s%N) - started) / 1000000))
  bad=()
  [ "$ended" = 143 ] || bad+=("exit code $ended, not 143")
  [ "$took" -lt $((${after%.*} * 1000 + 5000)) ] || bad+=("took $took ms")
  result "SIGTERM as process 1 after $after s ends it ($took ms)" "${bad[@]}"
done

for tool in sh cat env sleep ls node; do
  within sh -c "command -v $tool" >/dev/null || result "the image has $tool" "it is not on PATH"
done

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
