#!/usr/bin/env bash
# Builds the operator, the kubectl plugin and their image for the local cluster, as an OCI archive, and prints the path of the archive.
# The archive is kept in the cache folder until a program changes. TARGET names another Rust target, and PROFILE
# another Cargo profile.
# With --push, it is copied to the registry of the local cluster, and the reference of the image is printed.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_option "$@"
push=false
case ${1:-} in
--push) push=true && shift ;;
esac
no_arguments "$@"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
require_command cargo:https://rustup.rs buildah
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/artillery-operator
TARGET=${TARGET:-$(uname -m)-unknown-linux-gnu}
PROFILE=${PROFILE:-release}
folder=target/$TARGET/$PROFILE
make --no-print-directory "TARGET=$TARGET" "PROFILE=$PROFILE" "$folder/artillery-operator" >&2
archive=$CACHE/operator-$(sha256sum "$folder/artillery-operator" "$folder/kubectl-artillery" Dockerfile | sha256sum | cut -c1-12).tar
if [ ! -f "$archive" ]; then
  mkdir -p "$CACHE"
  rm -f "$CACHE"/operator-*.tar
  # buildah's storage is in the cache folder, because the default one may be missing or belong to another user.
  b() { buildah --storage-driver vfs --root "$CACHE/buildah" --runroot "$CACHE/buildah-run" "$@"; }
  image=$(b build --isolation chroot -q -f Dockerfile "$folder")
  b push -q "$image" "oci-archive:$archive.new:artillery-operator" >&2
  b rmi -f "$image" >/dev/null
  mv "$archive.new" "$archive"
fi
if ! $push; then
  echo "$archive"
  exit
fi
# Each image has its own tag, because a node does not pull a tag again that it already has.
image=ghcr.io/artilleryio/artillery-operator-alpha:$(basename "$archive" .tar)
hack/local-cluster/cluster.sh push "oci-archive:$archive" "$image" >&2
echo "$image"
