#!/usr/bin/env bash
# Builds the operator's program and its image for the local cluster, as an OCI archive; prints the archive's path.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v cargo >/dev/null || { echo "operator-image.sh: cargo is missing: see https://rustup.rs" >&2; exit 1; }
if ! command -v buildah >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends buildah; } </dev/null >&2
fi
command -v buildah >/dev/null || { echo "operator-image.sh: buildah is missing; Debian has it in the package of this name" >&2; exit 1; }
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/artillery-operator
TARGET=${TARGET:-$(uname -m)-unknown-linux-gnu}
folder=target/$TARGET/release
make --no-print-directory "TARGET=$TARGET" "$folder/artillery-operator" >&2
archive=$CACHE/operator-$(sha256sum "$folder/artillery-operator" Dockerfile | sha256sum | cut -c1-12).tar
if [ ! -f "$archive" ]; then
  mkdir -p "$CACHE"
  rm -f "$CACHE"/operator-*.tar
  # buildah keeps its storage here: the machine's own may be another user's, or none
  b() { buildah --storage-driver vfs --root "$CACHE/buildah" --runroot "$CACHE/buildah-run" "$@"; }
  image=$(b build --isolation chroot -q -f Dockerfile "$folder")
  b push -q "$image" "oci-archive:$archive.new:artillery-operator" >&2
  b rmi -f "$image" >/dev/null
  mv "$archive.new" "$archive"
fi
echo "$archive"
