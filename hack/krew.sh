#!/usr/bin/env bash
# Packs the kubectl plugin for krew: an archive for each target, and the manifest artillery.yaml. Prints their paths.
# With --test, krew installs the plugin from these files without a network, and kubectl runs it. Prints how many tests passed.
# Environment variables:
#   TARGETS   Rust targets, separated by spaces (the target of this machine)
#   OUT       the folder of the files (target/krew)
#   URL       the folder from which krew downloads the archives
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
machine=$(uname -m)-unknown-linux-gnu
TARGETS=${TARGETS:-$machine} OUT=${OUT:-target/krew}
version=$(project_version)
URL=${URL:-https://github.com/artilleryio/artillery-operator/releases/download/v$version}
mkdir -p "$OUT"
platforms=''
for target in $TARGETS; do
  arch=$(architecture "$target")
  program=target/$target/release/kubectl-artillery
  [ -f "$program" ] || make --no-print-directory "TARGET=$target" "target/$target/release/artillery-operator" >&2
  archive=kubectl-artillery-v$version-linux-$arch.tar.gz
  reproducible_tar --mode=755 -C "$(dirname "$program")" -cf - kubectl-artillery -C "$PWD" LICENSE | gzip -n >"$OUT/$archive"
  echo "$OUT/$archive"
  platforms+="
    - selector:
        matchLabels:
          os: linux
          arch: $arch
      uri: $URL/$archive
      sha256: $(sha256sum "$OUT/$archive" | cut -d ' ' -f 1)
      bin: kubectl-artillery
      files:
        - from: kubectl-artillery
          to: .
        - from: LICENSE
          to: ."
done
cat >"$OUT/artillery.yaml" <<M
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
  platforms:$platforms
M
echo "$OUT/artillery.yaml"
$test || exit 0

require_command go:golang-go kubectl:https://kubernetes.io/docs/tasks/tools
KREW_ROOT=$(mktemp -d)
export KREW_ROOT
trap 'rm -rf "$KREW_ROOT"' EXIT
# krew runs without git, because it uses no index here.
GOBIN=$KREW_ROOT GOFLAGS=-mod=mod go install "sigs.k8s.io/krew/cmd/krew@$KREW_VERSION"
"$KREW_ROOT/krew" install --manifest="$OUT/artillery.yaml" \
  --archive="$OUT/kubectl-artillery-v$version-linux-$(architecture "$machine").tar.gz" >&2
shown=$(PATH=$KREW_ROOT/bin:$PATH kubectl artillery --version)
[ "$shown" = "kubectl-artillery $version" ] || die "kubectl artillery --version printed '$shown'"
# krew uninstalls only with an index, which it would download.
echo "1 passed, 0 failed"
