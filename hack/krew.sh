#!/usr/bin/env bash
# Packs the kubectl plugin for krew: an archive and the manifest artillery.yaml in target/krew, and prints their paths.
# With --test, krew installs the plugin from these files without a network, and kubectl runs it. Prints how many tests passed.
# TARGET names another Rust target. URL is the folder from which krew downloads the archive.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_option "$@"
test=false
case ${1:-} in
--test) test=true && shift ;;
esac
no_arguments "$@"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
require_command cargo:https://rustup.rs
KREW_VERSION=v0.4.3
TARGET=${TARGET:-$(uname -m)-unknown-linux-gnu}
version=$(project_version)
URL=${URL:-https://github.com/artilleryio/artillery-operator/releases/download/v$version}
case $TARGET in
aarch64-*) arch=arm64 ;;
*) arch=amd64 ;;
esac
program=target/$TARGET/release/kubectl-artillery
[ -f "$program" ] || make --no-print-directory "TARGET=$TARGET" "target/$TARGET/release/artillery-operator" >&2
out=target/krew archive=kubectl-artillery-v$version-linux-$arch.tar.gz
mkdir -p "$out"
# The same files give the same bytes.
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --mode=755 -C "$(dirname "$program")" -cf - kubectl-artillery \
  -C "$PWD" LICENSE | gzip -n >"$out/$archive"
cat >"$out/artillery.yaml" <<M
apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata:
  name: artillery
spec:
  version: v$version
  homepage: https://github.com/artilleryio/artillery-operator
  shortDescription: Run distributed Artillery load tests
  description: |
    Runs load tests on Kubernetes, follows them, and reports and compares their results. It needs the Artillery operator in the cluster.
  platforms:
    - selector:
        matchLabels:
          os: linux
          arch: $arch
      uri: $URL/$archive
      sha256: $(sha256sum "$out/$archive" | cut -d ' ' -f 1)
      bin: kubectl-artillery
      files:
        - from: kubectl-artillery
          to: .
        - from: LICENSE
          to: .
M
echo "$out/$archive"
echo "$out/artillery.yaml"
$test || exit 0

require_command go:golang-go kubectl:https://kubernetes.io/docs/tasks/tools
KREW_ROOT=$(mktemp -d)
export KREW_ROOT
trap 'rm -rf "$KREW_ROOT"' EXIT
# krew runs without git, because it uses no index here.
GOBIN=$KREW_ROOT GOFLAGS=-mod=mod go install "sigs.k8s.io/krew/cmd/krew@$KREW_VERSION"
"$KREW_ROOT/krew" install --manifest="$out/artillery.yaml" --archive="$out/$archive" >&2
shown=$(PATH=$KREW_ROOT/bin:$PATH kubectl artillery --version)
[ "$shown" = "kubectl-artillery $version" ] || die "kubectl artillery --version printed '$shown'"
# krew uninstalls only with an index, which it would download.
echo "1 passed, 0 failed"
