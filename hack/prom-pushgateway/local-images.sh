#!/usr/bin/env bash
# Puts images of the Pushgateway and Prometheus into the registry of the local cluster. The images are made from Debian
# packages, without an image registry, and kept in the cache folder, so only the first run downloads anything.
# They do not contain the web pages, because no browser can reach the local cluster.
set -euo pipefail
# shellcheck source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
no_arguments "$@"
umask 022
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/artillery-operator
repository=artillery-operator

# fetch FOLDER: downloads the packages into the folder.
fetch() {
  log "downloading the Debian packages prometheus and prometheus-pushgateway"
  # As root, apt would download as another user, who cannot write to the folder.
  download() { (cd "$1" && apt-get download -qq -o APT::Sandbox::User=root prometheus prometheus-pushgateway 2>"$1/errors"); }
  download "$1" && return
  # The package list may be missing or outdated. Only root can update it.
  [ "$(id -u)" != 0 ] || apt-get update -qq >&2 || true
  download "$1" || die "apt-get download failed: $(tail -n 1 "$1/errors"). If the package list is outdated, run apt-get update"
}

# blob IMAGE: adds its input to the blobs of the image, and prints the hash.
blob() {
  local file hash
  file=$(mktemp "$1/blobs/sha256/new.XXXXXX")
  cat >"$file"
  hash=$(sha256sum "$file" | cut -d' ' -f1)
  chmod 644 "$file" && mv "$file" "$1/blobs/sha256/$hash"
  echo "$hash"
}

# describe IMAGE TYPE HASH: prints the descriptor of a blob, without the closing brace.
describe() {
  printf '{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%s' "$2" "$3" "$(stat -c %s "$1/blobs/sha256/$3")"
}

# pack WORK PACKAGE ARCHIVE: makes an image of the files of the package and the libraries that its program is linked to.
pack() {
  local work=$1 package=$2 root=$1/$2.root image=$1/$2.image program=/usr/bin/$2 library layer config manifest
  mkdir -p "$root" "$image/blobs/sha256"
  dpkg -x "$work/$package"_*.deb "$root"
  rm -rf "${root:?}/etc" "${root:?}/lib" "${root:?}/var" "${root:?}/usr/share/doc" "${root:?}/usr/share/man" "$root/usr/bin/promtool"
  # ldd fails for a static program.
  { ldd "$root$program" | grep -o '/[^ ]*' || true; } | while read -r library; do
    mkdir -p "$root${library%/*}"
    cp -L "$library" "$root$library"
  done
  mkdir -m 1777 "$root/tmp"
  tar -C "$root" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$work/layer.tar" .
  layer=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
  # The resolver of Go is used, because that of libc needs files that are not in the image.
  config=$(printf '{"architecture":"%s","os":"linux","config":{"User":"65534:65534","Env":["GODEBUG=netdns=go"],"Entrypoint":["%s"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$(dpkg --print-architecture)" "$program" "$layer" | blob "$image")
  layer=$(gzip -n -1 <"$work/layer.tar" | blob "$image")
  manifest=$(printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s},"layers":[%s}]}' \
    "$(describe "$image" config.v1+json "$config")" "$(describe "$image" layer.v1.tar+gzip "$layer")" | blob "$image")
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s}]}' \
    "$(describe "$image" manifest.v1+json "$manifest")" >"$image/index.json"
  printf '{"imageLayoutVersion":"1.0.0"}' >"$image/oci-layout"
  tar -C "$image" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$work/image.tar" .
  mv "$work/image.tar" "$3"
}

mkdir -p "$cache"
# If two runs overlap, the second waits and uses the images of the first.
exec 9>"$cache/prom-images.lock"
flock 9
hash=$({ uname -m && cat "${BASH_SOURCE[0]}"; } | sha256sum | cut -c1-12)
packages=(prometheus-pushgateway prometheus)
for package in "${packages[@]}"; do
  [ ! -e "$cache/image-$package-$hash.tar" ] || continue
  if [ -z "${work:-}" ]; then
    command -v apt-get >/dev/null || die "apt-get is missing: the images are made from Debian packages, on Debian or a derivative"
    require_command dpkg ldd:libc-bin tar gzip sha256sum:coreutils
    work=$(mktemp -d "$cache/prom-images.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    fetch "$work"
  fi
  log "building the image of $package"
  rm -f "$cache/image-$package"-????????????.tar
  pack "$work" "$package" "$cache/image-$package-$hash.tar"
done
for package in "${packages[@]}"; do
  "$here/../local-cluster/cluster.sh" push "oci-archive:$cache/image-$package-$hash.tar" "$repository/$package:local"
done
