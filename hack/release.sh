#!/usr/bin/env bash
# Builds everything that a release publishes: images, chart, manifests, plugin, bills of materials, checksums and notes.
#   release.sh VERSION            into dist/VERSION
#   release.sh --verify VERSION   builds the same commit again in another folder, without caches of images, and compares the bytes with
#                                 dist/VERSION
# VERSION must be the version of the project, and the working copy must have no changes. The same commit gives the same bytes, if the
# versions of the tools are the same. The compile cache of the worker image and the signature are exceptions.
# Environment variables:
#   SIGNING_KEY   a file with an EC or RSA private key in PEM format, which signs SHA256SUMS
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_option "$@"
verify=false
case ${1:-} in
--verify) verify=true && shift ;;
esac
[ $# = 1 ] || die "usage: release.sh [--verify] VERSION (see release.sh --help)"
umask 022
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VERSION=$1 OUT=dist/$1
SIGNING_KEY=${SIGNING_KEY:-}
# npm and Node.js are available for these architectures, and most nodes have one of them.
export TARGETS="x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu"

# check_sources: exits unless the sources are those of a commit with this version.
check_sources() {
  local current tagged
  current=$(project_version)
  [ "$VERSION" = "$current" ] || die "the project has the version $current: hack/set-version.sh $VERSION sets another one. Commit its changes first."
  hack/set-version.sh --check
  grep -qF "## [$VERSION]" CHANGELOG.md || die "CHANGELOG.md has no section of $VERSION"
  [ -z "$(git status --porcelain)" ] || die "the working copy has changes: commit or stash them first (git status)"
  tagged=$(git rev-parse -q --verify "refs/tags/v$VERSION^{commit}") || return 0
  [ "$tagged" = "$(git rev-parse HEAD)" ] || die "the tag v$VERSION is another commit: git checkout v$VERSION"
}

# build FOLDER: fills the folder.
build() {
  local out=$1 target digest
  SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
  export SOURCE_DATE_EPOCH

  log "1/5 programs and the operator's image, for amd64 and arm64"
  for target in $TARGETS; do
    rustc --print target-libdir --target "$target" | xargs test -d || die "the Rust target is missing: rustup target add $target"
    [ "${target%%-*}" = "$(uname -m)" ] || require_command "${target%%-*}-linux-gnu-gcc:gcc-$(tr _ - <<<"${target%%-*}")-linux-gnu"
  done
  digest=$(hack/operator-image.sh --index "$out/operator-image-v$VERSION.tar")

  log "2/5 worker image, for amd64 and arm64"
  worker_index "$out/worker-image-v$VERSION.tar"

  log "3/5 plugin, manifests and chart"
  OUT=$out hack/krew.sh >&2
  IMG='' hack/install-yaml.sh >"$out/install.yaml"
  # `helm package` adds the same files, with the time at which it runs.
  git ls-files -z charts/artillery-operator | grep -zv '/\.helmignore$' | reproducible_tar --mode=644 --null --no-recursion \
    --transform 's|^charts/||' -cf - -T - | gzip -n >"$out/artillery-operator-$VERSION.tgz"

  log "4/5 bills of materials"
  hack/sbom.sh operator >"$out/operator-v$VERSION.cdx.json"
  hack/sbom.sh worker >"$out/worker-v$VERSION.cdx.json"

  log "5/5 notes, checksums and signature"
  notes "$digest" >"$out/NOTES.md"
  (cd "$out" && sha256sum -- * >SHA256SUMS)
  if [ -n "$SIGNING_KEY" ]; then
    openssl dgst -sha256 -sign "$SIGNING_KEY" -out "$out/SHA256SUMS.sig" "$out/SHA256SUMS"
  else
    log "not signed: SIGNING_KEY names no key"
  fi
}

# notes DIGEST: prints the changes of this version, and what its files are.
notes() {
  cat <<NOTES
# Artillery Operator $VERSION
$(awk -v version="$VERSION" '/^## / || /^\[.*\]: / {inside = index($0, "## [" version "]") == 1; next} inside' CHANGELOG.md)

## Files

| file | content |
|---|---|
| \`install.yaml\` | the operator for \`kubectl apply -f\` |
| \`artillery-operator-$VERSION.tgz\` | the Helm chart |
| \`operator-image-v$VERSION.tar\` | the operator's image for amd64 and arm64, an OCI layout |
| \`worker-image-v$VERSION.tar\` | the worker image for amd64 and arm64, an OCI layout |
| \`kubectl-artillery-v$VERSION-*.tar.gz\`, \`artillery.yaml\` | the kubectl plugin and its manifest for krew |
| \`*.cdx.json\` | the bills of materials of the images, in CycloneDX format |
| \`SHA256SUMS\` | the checksums of all files |

The digest of the operator's image is \`$1\`. All files were built from the commit \`$(git rev-parse HEAD)\`.

[Install from a release](https://github.com/artilleryio/artillery-operator/blob/v$VERSION/docs/operator/install.md#from-a-release)
describes how to verify and install these files.
NOTES
}

# worker_index FILE: builds the worker image for all architectures, as an OCI layout with one index.
worker_index() {
  local arch work layout digest manifests=''
  work=$(mktemp -d)
  layout=$work/layout
  mkdir "$layout"
  for arch in amd64 arm64; do
    hack/worker-image/build.sh --arch "$arch" "$work/$arch.tar" >&2
    tar -C "$layout" -xf "$work/$arch.tar"
    manifests+=$(jq -c --arg arch "$arch" '.manifests[0] | del(.annotations) | .platform = {architecture: $arch, os: "linux"}' "$layout/index.json")
  done
  jq -cjs '{schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests: .}' <<<"$manifests" >"$work/index"
  digest=$(sha256sum "$work/index" | cut -d' ' -f1)
  mv "$work/index" "$layout/blobs/sha256/$digest"
  jq -cjn --arg digest "sha256:$digest" --argjson size "$(stat -c %s "$layout/blobs/sha256/$digest")" --arg tag "v$VERSION" \
    '{schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests: [{mediaType: "application/vnd.oci.image.index.v1+json",
      digest: $digest, size: $size, annotations: {"org.opencontainers.image.ref.name": $tag}}]}' >"$layout/index.json"
  reproducible_tar --mode=u=rwX,go=rX -C "$layout" -cf "$1" blobs index.json oci-layout
  rm -rf "$work"
}

# unpack_worker FOLDER ROOT: unpacks the worker images of a release, without their compile caches.
unpack_worker() {
  local blobs=$2/image/blobs/sha256 arch manifest
  mkdir -p "$2/image"
  tar -C "$2/image" -xf "$1/worker-image-v$VERSION.tar"
  for arch in amd64 arm64; do
    manifest=$(jq -r --arg arch "$arch" '.manifests[] | select(.platform.architecture == $arch).digest' \
      "$blobs/$(jq -r '.manifests[0].digest' "$2/image/index.json" | cut -d : -f 2)" | cut -d : -f 2)
    mkdir -p "$2/root/$arch"
    tar -C "$2/root/$arch" --exclude='./opt/artillery/compile-cache/*' \
      -xzf "$blobs/$(jq -r '.layers[0].digest' "$blobs/$manifest" | cut -d : -f 2)"
  done
}

# verify: builds the release again from a clone, and compares it with dist/VERSION.
verify() {
  [ -f "$OUT/SHA256SUMS" ] || die "$OUT does not exist: run hack/release.sh $VERSION first"
  grep -qF "\`$(git rev-parse HEAD)\`" "$OUT/NOTES.md" || die "$OUT was built from another commit: run hack/release.sh $VERSION again"
  local work second
  work=$(mktemp -d)
  # shellcheck disable=SC2064 # `work` is local
  trap "rm -rf '$work'" EXIT
  git clone --quiet . "$work/with-a-longer-path/artillery-operator"
  # An empty cache folder, so that no image comes from an earlier build.
  SIGNING_KEY='' XDG_CACHE_HOME=$work/cache "$work/with-a-longer-path/artillery-operator/hack/release.sh" "$VERSION" >&2
  second=$work/with-a-longer-path/artillery-operator/$OUT
  # V8 writes uninitialized memory into its compile cache, so of the worker images all other files are compared.
  unpack_worker "$OUT" "$work/first"
  unpack_worker "$second" "$work/second"
  diff -r --no-dereference "$work/first/root" "$work/second/root" >&2 || die "two builds of the worker image differ in these files"
  diff <(compared "$OUT") <(compared "$second") >&2 || die "two builds of the same commit differ in these files"
  compared "$OUT"
  echo "Both builds have these bytes, and the same files in the worker images except their compile caches."
}

# compared FOLDER: prints the checksums of the files of a release that are the same in each build.
compared() {
  (cd "$1" && find . -type f ! -name 'SHA256SUMS*' ! -name 'worker-image-*' -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum)
}

require_command git cargo:https://rustup.rs jq openssl gzip
check_sources
if $verify; then
  verify
  exit
fi
mkdir -p dist
rm -rf "$OUT.new"
mkdir "$OUT.new"
build "$PWD/$OUT.new"
rm -rf "$OUT"
mv "$OUT.new" "$OUT"
ls -l "$OUT"
