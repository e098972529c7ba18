#!/usr/bin/env bash
# Builds the worker image: build.sh [--browser | --arch ARCH] OUT.tar
# The result is an OCI archive of artilleryio/artillery:latest, made from npm packages on an empty root, without a base image
# and without Docker. It is kept in the cache folder by a hash of its inputs, so a second run only copies it.
# With --browser the image is artilleryio/artillery:browser: the same layer, and a second one with Playwright and Chromium, which
# is Debian's.
# With --arch the image is for another architecture (amd64 or arm64). Its C library and busybox are those of Debian packages, and its
# compile cache is filled in qemu-user.
set -euo pipefail
# shellcheck source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
help_option "$@"
umask 022

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
flavor=small name=docker.io/artilleryio/artillery:latest cached=worker-image arch=$(architecture "$(uname -m)-") foreign=''
if [ "${1-}" = --browser ]; then
  shift
  flavor=browser name=docker.io/artilleryio/artillery:browser cached=worker-image-browser
elif [ "${1-}" = --arch ]; then
  case ${2-} in
  "$arch") ;;
  amd64) foreign=x86_64 ;;
  arm64) foreign=aarch64 ;;
  *) die "--arch must be amd64 or arm64" ;;
  esac
  arch=$2 cached+=${foreign:+-$2}
  shift 2
fi
cache=${XDG_CACHE_HOME:-$HOME/.cache}/artillery-operator
parts=(package.json package-lock.json bundle.mjs rootfs.sh warm.sh warm artillery.sh)

[ $# = 1 ] || die "usage: build.sh [--browser | --arch ARCH] OUT.tar"
out=$1

require_command npm ldd:libc-bin strip:binutils unshare:util-linux flock:util-linux chroot:coreutils sha256sum:coreutils tar \
  gzip /bin/busybox:busybox-static /etc/ssl/certs/ca-certificates.crt:ca-certificates
! ldd /bin/busybox >/dev/null 2>&1 || die "/bin/busybox is not static: install the Debian package busybox-static"

mkdir -p "$cache"
work=$(mktemp -d "$cache/$cached-build.XXXXXX")
trap 'rm -rf "$work"' EXIT
# foreign_files FOLDER: fills the folder with files of Debian packages for the other architecture.
foreign_files() {
  local apt=(apt-get -qq -o "APT::Architecture=$arch" -o "APT::Architectures=$arch" -o APT::Sandbox::User=root
    -o "Dir::State=$work/apt" -o "Dir::Cache=$work/apt" -o Dir::State::status=/dev/null) package
  mkdir -p "$work/apt/lists/partial" "$work/apt/archives/partial"
  "${apt[@]}" update >&2
  (cd "$work/apt" && "${apt[@]}" download libc6 libgcc-s1 libstdc++6 busybox-static >&2)
  for package in "$work"/apt/*.deb; do dpkg-deb --extract "$package" "$1"; done
}
if [ -n "$foreign" ]; then
  require_command apt-get:apt dpkg-deb:dpkg readelf:binutils "qemu-$foreign-static:qemu-user-static" \
    "$foreign-linux-gnu-strip:binutils-$(tr _ - <<<"$foreign")-linux-gnu"
  foreign_files "$work/files"
fi

# What the image depends on, for its hash.
inputs() {
  echo "$arch"
  cd "$here" && find "${parts[@]}" build.sh -type f -print0 | sort -z | xargs -0 sha256sum
  sha256sum /bin/busybox /etc/ssl/certs/ca-certificates.crt "$(ldd /bin/sh | grep -o '/[^ ]*libc\.so\.6')"
  [ -z "$foreign" ] || (cd "$work/files" && find . -type f -print0 | sort -z | xargs -0 sha256sum)
  [ $flavor = small ] || sha256sum browser/*.* browser/warm/* $chromium
}
chromium=/usr/lib/chromium/chromium-headless-shell
[ $flavor = small ] || require_command $chromium:chromium-headless-shell /usr/share/fonts/truetype/liberation:fonts-liberation
archive=$cache/$cached-$(inputs | sha256sum | cut -c1-16).tar

build_small() {
  local work=$1 app=$1/app root=$1/root image=$1/image
  mkdir -p "$app" "$image/blobs/sha256"
  (cd "$here" && cp -R "${parts[@]}" "$app")

  log "1/4 installing Artillery and Node from npm (half a minute, or more if the npm cache is empty)"
  install_packages "$app"
  if [ -n "$foreign" ]; then
    mkdir "$work/node" && cp "$here"/package*.json "$work/node"
    install_packages "$work/node" --omit=dev "--cpu=${arch/amd64/x64}"
    cp -R "$work"/node/node_modules/node-linux-* "$app/node_modules"
  fi

  log "2/4 filling the root file system"
  fill_root "$app" "$root"

  log "3/4 filling the compile cache by running Artillery in the root file system"
  fill_cache "$app" "$root"

  log "4/4 packing $(du -sm --apparent-size "$root" | cut -f1) MB"
  archive_root "$root" . >"$work/layer.tar"
  write_image "$work" "$(add_layer "$image" "$work/layer.tar")"
}

build_browser() {
  local work=$1 app=$1/app root=$1/root image=$1/image base=$2 blob small
  mkdir -p "$image" "$root"
  cp -R "$here/browser" "$app"

  log "1/4 unpacking the small image"
  tar -C "$image" -xf "$base"
  for blob in "$image"/blobs/sha256/*; do
    if ! gzip -t "$blob" 2>/dev/null; then rm "$blob" && continue; fi
    tar -C "$root" -xzf "$blob"
    small=$(gzip -dc "$blob" | sha256sum | cut -d' ' -f1):${blob##*/}
  done

  log "2/4 adding Playwright and Chromium"
  install_packages "$app"
  fill_root "$app" "$root"

  log "3/4 adding Playwright to the compile cache by running Chromium in the root file system"
  fill_cache "$app" "$root"

  # The files of the first layer have the modification time 0.
  log "4/4 packing $(du -sm --apparent-size "$root" | cut -f1) MB"
  (cd "$root" && find . -newermt @1 ! -path './proc/*' ! -path './dev/*' -print0) | sort -z |
    archive_root "$root" --no-recursion --null --files-from=- >"$work/layer.tar"
  write_image "$work" "$small" "$(add_layer "$image" "$work/layer.tar")"
}

fill_root() { "$1/rootfs.sh" "$1" "$2" ${foreign:+"$foreign" "$work/files"} 2> >(sed 's/^/build.sh:     /' >&2); }

# fill_cache APP ROOT: runs Artillery in the root file system, so that node keeps what it has compiled.
fill_cache() {
  cp -R "$1/warm" "$2/tmp/warm"
  cp "$1/warm.sh" "$2/tmp/warm/"
  [ -z "$foreign" ] || host_tools "$2/tmp/host"
  enter "$2" sh /tmp/warm/warm.sh
  rm -rf "$2/tmp/host"
}

# host_tools FOLDER: fills a folder of a foreign root file system with busybox and qemu-user of this machine, and a node that runs there.
host_tools() {
  local applet
  mkdir "$1"
  cp /bin/busybox "$(command -v "qemu-$foreign-static")" "$1"
  for applet in $(/bin/busybox --list | grep -vx busybox); do ln -s busybox "$1/$applet"; done
  # V8 uses a cache only on a processor with the same features. Neoverse N1 is that of most machines in clouds.
  printf '#!/tmp/host/sh\nexec /tmp/host/qemu-%s-static %s/bin/node "$@"\n' "$foreign" \
    "$([ "$foreign" != aarch64 ] || echo '-cpu neoverse-n1 ')" >"$1/node"
  chmod +x "$1/node"
}

# archive_root ROOT ARGUMENT...: prints a tar archive of files of the root file system. The second layer is what is newer than 0.
archive_root() {
  local root=$1
  shift
  chmod -R go-w "$root" && chmod 1777 "$root/tmp"
  SOURCE_DATE_EPOCH=0 reproducible_tar -C "$root" -cf - "$@"
}

# install_packages FOLDER OPTION...
install_packages() { (cd "$1" && npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error "${@:2}" >&2); }

# add_layer IMAGE LAYER.tar: adds a layer to the blobs of the image, and prints its hash and that of its blob.
add_layer() {
  local diff
  diff=$(sha256sum "$2" | cut -d' ' -f1)
  gzip -n -6 "$2"
  echo "$diff:$(blob "$1" <"$2.gz")"
}

# write_image WORK LAYER...: writes WORK/image.tar, an archive of WORK/image with these layers of add_layer.
write_image() {
  local work=$1 image=$1/image layer config layers='' diffs='' history=''
  shift
  # describe TYPE HASH: prints the descriptor of a blob, without the closing brace.
  describe() { printf '{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%s' "$1" "$2" "$(stat -c %s "$image/blobs/sha256/$2")"; }
  for layer; do
    diffs+=",\"sha256:${layer%:*}\""
    layers+=",$(describe layer.v1.tar+gzip "${layer#*:}")}"
    history+=',{"created_by":"hack/worker-image/build.sh"}'
  done
  config=$(config "${diffs#,}" "${history#,}" | blob "$image")
  manifest=$(printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s},"layers":[%s]}' \
    "$(describe config.v1+json "$config")" "${layers#,}" | blob "$image")
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s,"annotations":{"io.containerd.image.name":"%s","org.opencontainers.image.ref.name":"%s"}}]}' \
    "$(describe manifest.v1+json "$manifest")" "$name" "$name" >"$image/index.json"
  printf '{"imageLayoutVersion":"1.0.0"}' >"$image/oci-layout"
  SOURCE_DATE_EPOCH=0 reproducible_tar -C "$image" -cf "$work/image.tar" .
}

# enter ROOT COMMAND...: runs a command as root in the root file system, with only a loopback network. A caller that is not
# root needs user namespaces.
enter() {
  local root=$1 rights=() tools=/bin
  shift
  [ -z "$foreign" ] || tools=/tmp/host
  [ "$(id -u)" = 0 ] || rights=(--map-root-user)
  # shellcheck disable=SC2016 # expanded by the inner shell
  unshare "${rights[@]}" --mount --net --pid --fork --kill-child /bin/busybox sh -c '
    root=$1 tools=$2 && shift 2 && mount --rbind /dev "$root/dev" && mount -t proc proc "$root/proc" &&
    /bin/busybox ip link set lo up && exec /bin/busybox chroot "$root" "$tools/env" -i PATH="$tools:/usr/bin" "$@"' sh "$root" "$tools" "$@" >&2 ||
    die "cannot run a command in the new root file system; without root, user namespaces must be enabled (kernel.unprivileged_userns_clone=1)"
}

# blob IMAGE: adds its input to the blobs of the image, and prints the hash.
blob() {
  local file hash
  file=$(mktemp "$1/blob.XXXXXX")
  cat >"$file"
  hash=$(sha256sum "$file" | cut -d' ' -f1)
  chmod 644 "$file" && mv "$file" "$1/blobs/sha256/$hash"
  echo "$hash"
}

# config DIFF_IDS HISTORY: prints the configuration of the image.
config() {
  local more=''
  [ $flavor = small ] || more=',"PLAYWRIGHT_BROWSERS_PATH=/opt/playwright"'
  cat <<JSON
{"architecture":"$arch","os":"linux","created":"1970-01-01T00:00:00Z",
"config":{"User":"1000","WorkingDir":"/home/node","Entrypoint":["artillery"],
"Env":["PATH=/bin:/usr/bin","HOME=/tmp","ARTILLERY_DISABLE_TELEMETRY=true","NODE_COMPILE_CACHE=/opt/artillery/compile-cache"$more]},
"rootfs":{"type":"layers","diff_ids":[$1]},"history":[$2]}
JSON
}

# If two builds overlap, the second waits and uses the result of the first.
exec 9>"$cache/$cached.lock"
flock -n 9 || { log "waiting for another build" && flock 9; }
if [ -e "$archive" ]; then
  log "unchanged: using $archive"
else
  if [ $flavor = small ]; then
    build_small "$work"
  else
    build_browser "$work" "$("$here/build.sh" "$work/small.tar")"
  fi
  mv "$work/image.tar" "$archive"
  log "$(($(stat -c %s "$archive") / 1000000)) MB packed, stored as $archive"
fi
if [ "$(realpath -m "$out")" != "$(realpath "$archive")" ]; then
  cp "$archive" "$out.$$" && mv "$out.$$" "$out"
fi
echo "$out"
