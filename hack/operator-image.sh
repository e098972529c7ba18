#!/usr/bin/env bash
# Builds the operator, the kubectl plugin and their image.
#   operator-image.sh               an OCI archive for the local cluster; prints its path. It is kept in the cache folder until a
#                                   program changes.
#   operator-image.sh --push        copies this image to the registry of the local cluster, and prints its reference
#   operator-image.sh --index FILE  an OCI layout with one index for all TARGETS, as a tar archive; prints the digest of the index
# Environment variables:
#   TARGETS             Rust targets, separated by spaces (the target of this machine); only --index accepts several
#   PROFILE             the Cargo profile (release)
#   SOURCE_DATE_EPOCH   the time of the image and its files (0)
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_option "$@"
push=false index=''
case ${1:-} in
--push) push=true && shift ;;
--index)
  index=$(realpath -m "${2:?--index needs the path of a file}")
  shift 2
  ;;
esac
no_arguments "$@"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
require_command cargo:https://rustup.rs buildah jq
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/artillery-operator
TARGETS=${TARGETS:-$(uname -m)-unknown-linux-gnu} PROFILE=${PROFILE:-release}

# buildah's storage is in the cache folder, because the default one may be missing or belong to another user.
b() { buildah --storage-driver vfs --root "$CACHE/buildah" --runroot "$CACHE/buildah-run" "$@"; }

# build_image TARGET OPTION...: builds the image of the programs of a target, and prints its ID. The same programs give the same image.
build_image() {
  local target=$1
  shift
  b build --isolation chroot -q --platform "linux/$(architecture "$target")" --timestamp "${SOURCE_DATE_EPOCH:-0}" --identity-label=false \
    --label "org.opencontainers.image.version=$(project_version)" "$@" -f Dockerfile "target/$target/$PROFILE"
}

for target in $TARGETS; do
  # Cargo would compile all C code again, and what depends on it, whenever the time changes. No program contains it.
  env -u SOURCE_DATE_EPOCH make --no-print-directory "TARGET=$target" "PROFILE=$PROFILE" "target/$target/$PROFILE/artillery-operator" >&2
done

if [ -n "$index" ]; then
  work=$(mktemp -d)
  list=artillery-operator-index-$$
  trap 'rm -rf "$work"; b manifest rm "$list" >/dev/null 2>&1 || true' EXIT
  ids=()
  for target in $TARGETS; do
    ids+=("$(build_image "$target" --manifest "$list")")
  done
  b manifest push -q --all "$list" "oci:$work:v$(project_version)" >&2
  b rmi -f "${ids[@]}" >/dev/null
  reproducible_tar --mode=u=rwX,go=rX -C "$work" -cf "$index" blobs index.json oci-layout
  jq -r '.manifests[0].digest' "$work/index.json"
  exit
fi

[[ $TARGETS != *" "* ]] || die "only --index accepts several TARGETS"
folder=target/$TARGETS/$PROFILE
archive=$CACHE/operator-$(sha256sum "$folder/artillery-operator" "$folder/kubectl-artillery" Dockerfile | sha256sum | cut -c1-12).tar
if [ ! -f "$archive" ]; then
  mkdir -p "$CACHE"
  rm -f "$CACHE"/operator-*.tar
  image=$(build_image "$TARGETS")
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
