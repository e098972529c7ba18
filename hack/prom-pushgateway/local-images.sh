#!/usr/bin/env bash
# Puts images of the Pushgateway and of Prometheus into the local cluster's registry, made from Debian's packages: no
# image registry is reached. Kept in the cache folder, so that only the first run downloads anything.
# They answer requests and have no web pages: no browser reaches into the local cluster.
set -euo pipefail
umask 022
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/artillery-operator
repository=artillery-operator

say() { echo "local-images.sh: $*" >&2; }
die() { say "$*" && exit 1; }

need() {
  local tool missing=()
  for tool; do command -v "$tool" >/dev/null || missing+=("$tool"); done
  [ ${#missing[@]} = 0 ] || die "missing: ${missing[*]}; these images are made from Debian's packages, on Debian or the like"
}

# fetch FOLDER: the packages that the images are made of, into the folder
fetch() {
  say "downloading Debian's prometheus and prometheus-pushgateway"
  # As root apt would write as another user, who may not enter the folder.
  download() { (cd "$1" && apt-get download -qq -o APT::Sandbox::User=root prometheus prometheus-pushgateway 2>"$1/errors"); }
  download "$1" && return
  # The list of packages may be missing or old; only root can renew it.
  [ "$(id -u)" != 0 ] || apt-get update -qq >&2 || true
  download "$1" || die "apt-get download failed: $(tail -n 1 "$1/errors"). If the list of packages is old: apt-get update"
}

# blob IMAGE: puts its input among the image's blobs, and prints its hash
blob() {
  local file hash
  file=$(mktemp "$1/blobs/sha256/new.XXXXXX")
  cat >"$file"
  hash=$(sha256sum "$file" | cut -d' ' -f1)
  chmod 644 "$file" && mv "$file" "$1/blobs/sha256/$hash"
  echo "$hash"
}

# describe IMAGE TYPE HASH: a blob's descriptor, without the closing brace
describe() {
  printf '{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%s' "$2" "$3" "$(stat -c %s "$1/blobs/sha256/$3")"
}

# pack WORK PACKAGE ARCHIVE: an image of the package's program, its other files, and the libraries it is linked to
pack() {
  local work=$1 package=$2 root=$1/$2.root image=$1/$2.image program=/usr/bin/$2 library layer config manifest
  mkdir -p "$root" "$image/blobs/sha256"
  dpkg -x "$work/$package"_*.deb "$root"
  rm -rf "${root:?}/etc" "${root:?}/lib" "${root:?}/var" "${root:?}/usr/share/doc" "${root:?}/usr/share/man" "$root/usr/bin/promtool"
  # A static program has none, and ldd fails.
  { ldd "$root$program" | grep -o '/[^ ]*' || true; } | while read -r library; do
    mkdir -p "$root${library%/*}"
    cp -L "$library" "$root$library"
  done
  mkdir -m 1777 "$root/tmp"
  tar -C "$root" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$work/layer.tar" .
  layer=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
  # Go's own resolver: that of libc would want files that are not here.
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
# Two that run at once: the second waits, and finds the images of the first.
exec 9>"$cache/prom-images.lock"
flock 9
hash=$({ uname -m && cat "${BASH_SOURCE[0]}"; } | sha256sum | cut -c1-12)
packages=(prometheus-pushgateway prometheus)
for package in "${packages[@]}"; do
  [ ! -e "$cache/image-$package-$hash.tar" ] || continue
  if [ -z "${work:-}" ]; then
    need apt-get dpkg ldd tar gzip sha256sum
    work=$(mktemp -d "$cache/prom-images.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    fetch "$work"
  fi
  say "making the image of $package"
  rm -f "$cache/image-$package"-????????????.tar
  pack "$work" "$package" "$cache/image-$package-$hash.tar"
done
for package in "${packages[@]}"; do
  "$here/../local-cluster/cluster.sh" push "oci-archive:$cache/image-$package-$hash.tar" "$repository/$package:local"
done
