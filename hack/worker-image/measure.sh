#!/usr/bin/env bash
# Compares the worker image with a plain `npm install artillery`: measure.sh [--browser] [IMAGE.tar [ROUNDS]]
# Prints the sizes, and the seconds from the start of a command to its first HTTP request (with four at once: of the last).
# With --browser it measures the image of the flavor browser alone, until Chromium requests its first page.
# The commands run in a network namespace with only a loopback interface. Needs root.
set -euo pipefail
# shellcheck source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
help_option "$@"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

flavor=()
if [ "${1-}" = --browser ]; then flavor=(--browser) && shift; fi
if [ "${1-}" != --inside ]; then
  [ "$(id -u)" = 0 ] || die "needs root, for namespaces"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  image=${1-}
  [ -n "$image" ] || image=$("$here/build.sh" "${flavor[@]}" "$work/image.tar")
  mkdir "$work/image" "$work/root" "$work/plain"
  tar -C "$work/image" -xf "$image"
  for blob in "$work"/image/blobs/sha256/*; do
    if gzip -t "$blob" 2>/dev/null; then tar -C "$work/root" -xzf "$blob"; fi
  done
  size="$(($(stat -c %s "$image") / 1000000)) MB packed, $(du -sm "$work/root" | cut -f1) MB unpacked, of which"
  if [ ${#flavor[@]} -gt 0 ]; then
    echo "image: $size Chromium $(du -sm "$work/root/usr/lib/chromium" | cut -f1), its libraries $(du -sm "$work/root/lib" | cut -f1), Artillery and Playwright $(du -sm "$work/root/opt" | cut -f1)"
    BROWSER=true unshare --mount --net --pid --fork --kill-child "$here/measure.sh" --inside "$work/root" "" "${2:-5}"
    exit
  fi
  log "installing Artillery from npm for comparison"
  cp "$here"/package*.json "$work/plain/"
  (cd "$work/plain" && npm ci --omit=dev --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error >&2)
  echo "image: $size node $(du -m "$work/root/bin/node" | cut -f1), Artillery $(du -sm "$work/root/opt" | cut -f1)"
  echo "plain: $(du -sm --exclude='node-linux-*' "$work/plain/node_modules" | cut -f1) MB of node_modules, without node"
  unshare --mount --net --pid --fork --kill-child "$here/measure.sh" --inside "$work/root" "$work/plain/node_modules" "${2:-5}"
  exit
fi

root=$2 plain=$3 rounds=$4
busybox ip link set lo up
mount -t proc proc /proc
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mkdir "$root/tmp/measure" "$root/tmp/cache"
# Both variants use the same file names. The plain one runs outside the root, with this mount.
mkdir -p /tmp/measure && mount --bind "$root/tmp/measure" /tmp/measure
node="$root/bin/node"

ours="chroot --userspec=1000:1000 $root /bin/env -i PATH=/bin HOME=/tmp ARTILLERY_DISABLE_TELEMETRY=true NODE_COMPILE_CACHE=/opt/artillery/compile-cache PLAYWRIGHT_BROWSERS_PATH=/opt/playwright"
if [ -n "${BROWSER-}" ]; then
  echo "load before: $(cat /proc/loadavg), $(nproc) cores"
  "$node" "$here/measure.js" "$rounds" "$root/tmp/measure" "image=$ours artillery"
  echo "load after: $(cat /proc/loadavg)"
  exit
fi
run=$plain/artillery/bin/run
for _ in 1 2; do # the first run fills the compile cache
  echo '{"config": {"target": "http://127.0.0.1:9", "phases": [{"duration": 1, "arrivalCount": 1}]}, "scenarios": [{"flow": [{"get": {"url": "/"}}]}]}' >"$root/tmp/measure/first.json"
  env ARTILLERY_DISABLE_TELEMETRY=true NODE_COMPILE_CACHE="$root/tmp/cache" "$node" "$run" run /tmp/measure/first.json >/dev/null
done
echo "load before: $(cat /proc/loadavg), $(nproc) cores"
"$node" "$here/measure.js" "$rounds" "$root/tmp/measure" \
  "plain=env ARTILLERY_DISABLE_TELEMETRY=true $node $run" \
  "plain, with a warm compile cache=env ARTILLERY_DISABLE_TELEMETRY=true NODE_COMPILE_CACHE=$root/tmp/cache $node $run" \
  "image, without its compile cache=$ours NODE_DISABLE_COMPILE_CACHE=1 artillery" \
  "image=$ours artillery"
echo "load after: $(cat /proc/loadavg)"
