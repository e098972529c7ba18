#!/usr/bin/env bash
# Builds the worker image: build.sh OUT.tar
# An OCI archive of artilleryio/artillery:latest, made from npm packages on an empty root: no base image, no Docker.
# The result is kept in the cache folder, by a hash of all that goes into it, so that a second run only copies it.
set -euo pipefail
umask 022

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
name=docker.io/artilleryio/artillery:latest
cache=${XDG_CACHE_HOME:-$HOME/.cache}/artillery-operator
parts=(package.json package-lock.json bundle.mjs rootfs.sh warm.sh warm artillery.sh)

say() { echo "worker image: $*" >&2; }
die() { say "$*" && exit 1; }

[ $# = 1 ] || die "usage: build.sh OUT.tar"
out=$1

# What is needed, and the Debian package that has it.
tools='npm npm
ldd libc-bin
strip binutils
unshare util-linux
flock util-linux
chroot coreutils
sha256sum coreutils
tar tar
gzip gzip
/bin/busybox busybox-static
/etc/ssl/certs/ca-certificates.crt ca-certificates'
missing() {
  local tool package
  while read -r tool package; do
    if [ "${tool#/}" = "$tool" ]; then command -v "$tool" >/dev/null; else [ -e "$tool" ]; fi || echo "$package"
  done <<<"$tools" | sort -u
}
need() {
  local packages
  mapfile -t packages < <(missing)
  if [ ${#packages[@]} != 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing from Debian: ${packages[*]}"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}"; } >&2 || true
    mapfile -t packages < <(missing)
  fi
  [ ${#packages[@]} = 0 ] || die "missing what these Debian packages have: ${packages[*]}; install them: apt-get install --no-install-recommends ${packages[*]}"
  ! ldd /bin/busybox >/dev/null 2>&1 || die "/bin/busybox is not static; install it, on Debian: apt-get install busybox-static"
}
need

hash=$({
  uname -m
  cd "$here" && find "${parts[@]}" build.sh -type f -print0 | sort -z | xargs -0 sha256sum
  sha256sum /bin/busybox /etc/ssl/certs/ca-certificates.crt "$(ldd /bin/sh | grep -o '/[^ ]*libc\.so\.6')"
} | sha256sum | cut -c1-16)
archive=$cache/worker-image-$hash.tar

build() {
  local work=$1 app=$1/app root=$1/root image=$1/image
  mkdir -p "$app" "$image/blobs/sha256"
  (cd "$here" && cp -R "${parts[@]}" "$app")

  say "1/4 installing Artillery and Node from npm (half a minute, or more when npm's cache is empty)"
  (cd "$app" && npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error >&2)

  say "2/4 filling the root"
  "$app/rootfs.sh" "$app" "$root" 2> >(sed 's/^/worker image:     /' >&2)
  local unpacked
  unpacked=$(du -sm --apparent-size "$root" | cut -f1)

  say "3/4 filling the compile cache, by running Artillery in the root, with only a loopback network"
  cp -R "$app/warm" "$root/tmp/warm"
  cp "$app/warm.sh" "$root/tmp/warm/"
  # shellcheck disable=SC2016 # $1 is the inner shell's
  enter "$root" sh /tmp/warm/warm.sh
  unpacked=$(du -sm --apparent-size "$root" | cut -f1)

  say "4/4 packing $unpacked MB"
  chmod -R go-w "$root" && chmod 1777 "$root/tmp"
  tar -C "$root" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$work/layer.tar" .
  local layer config
  layer=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
  gzip -n -6 "$work/layer.tar"
  config=$(config "sha256:$layer" | blob "$image")
  # A blob's descriptor: its type, hash and size.
  describe() { printf '{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%s' "$1" "$2" "$(stat -c %s "$image/blobs/sha256/$2")"; }
  layer=$(blob "$image" <"$work/layer.tar.gz")
  manifest=$(printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s},"layers":[%s}]}' \
    "$(describe config.v1+json "$config")" "$(describe layer.v1.tar+gzip "$layer")" | blob "$image")
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s,"annotations":{"io.containerd.image.name":"%s","org.opencontainers.image.ref.name":"%s"}}]}' \
    "$(describe manifest.v1+json "$manifest")" "$name" "$name" >"$image/index.json"
  printf '{"imageLayoutVersion":"1.0.0"}' >"$image/oci-layout"
  tar -C "$image" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$work/image.tar" .
}

# Runs a command in the root as its user 0, with no network but a loopback; without rights in a user namespace.
enter() {
  local root=$1 rights=()
  shift
  [ "$(id -u)" = 0 ] || rights=(--map-root-user)
  # shellcheck disable=SC2016 # expanded by the inner shell
  unshare "${rights[@]}" --mount --net --pid --fork --kill-child /bin/busybox sh -c '
    root=$1 && shift && mount --rbind /dev "$root/dev" && mount -t proc proc "$root/proc" &&
    /bin/busybox ip link set lo up && exec /bin/busybox chroot "$root" /bin/env -i PATH=/bin:/usr/bin "$@"' sh "$root" "$@" >&2 ||
    die "could not run in the new root; without rights, user namespaces must be allowed (kernel.unprivileged_userns_clone=1)"
}

# Puts its input among the image's blobs and prints its hash.
blob() {
  local file hash
  file=$(mktemp "$1/blob.XXXXXX")
  cat >"$file"
  hash=$(sha256sum "$file" | cut -d' ' -f1)
  chmod 644 "$file" && mv "$file" "$1/blobs/sha256/$hash"
  echo "$hash"
}

config() {
  local arch=amd64
  [ "$(uname -m)" = x86_64 ] || arch=arm64
  cat <<JSON
{"architecture":"$arch","os":"linux","created":"1970-01-01T00:00:00Z",
"config":{"User":"1000","WorkingDir":"/home/node","Entrypoint":["artillery"],
"Env":["PATH=/bin:/usr/bin","HOME=/tmp","ARTILLERY_DISABLE_TELEMETRY=true","NODE_COMPILE_CACHE=/opt/artillery/compile-cache"]},
"rootfs":{"type":"layers","diff_ids":["$1"]},"history":[{"created_by":"hack/worker-image/build.sh"}]}
JSON
}

mkdir -p "$cache"
# Two that run at once: the second waits, and finds the result of the first.
exec 9>"$cache/worker-image.lock"
flock -n 9 || { say "waiting for another build" && flock 9; }
if [ -e "$archive" ]; then
  say "unchanged, from $archive"
else
  work=$(mktemp -d "$cache/worker-image-build.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  build "$work"
  mv "$work/image.tar" "$archive"
  say "$(($(stat -c %s "$archive") / 1000000)) MB packed, kept as $archive"
fi
if [ "$(realpath -m "$out")" != "$(realpath "$archive")" ]; then
  cp "$archive" "$out.$$" && mv "$out.$$" "$out"
fi
echo "$out"
