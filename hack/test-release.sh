#!/usr/bin/env bash
# Tests the files of a release: test-release.sh VERSION. Prints how many tests passed.
# The programs of both architectures run; those of a foreign one in qemu-user, as does an operator that creates the Job of a LoadTest.
# Environment variables:
#   PUBLIC_KEY     a file with the public key in PEM format, to verify the signature
#   CLUSTER_NAME   the name of the control plane that the test creates (release)
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_option "$@"
[ $# = 1 ] || die "usage: test-release.sh VERSION (see test-release.sh --help)"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VERSION=$1 FOLDER=$PWD/dist/$1 PUBLIC_KEY=${PUBLIC_KEY:-} NAME=${CLUSTER_NAME:-release}
CLUSTER=hack/local-cluster/cluster.sh NAMESPACE=artillery-operator-system
[ -f "$FOLDER/SHA256SUMS" ] || die "$FOLDER does not exist: run make release VERSION=$VERSION"
require_command skopeo jq od:coreutils kubectl:https://kubernetes.io/docs/tasks/tools node:https://nodejs.org npm:https://nodejs.org \
  qemu-aarch64-static:qemu-user-static qemu-x86_64-static:qemu-user-static
work=$(mktemp -d)
operator=''
# Invoked by the trap.
# shellcheck disable=SC2317
clean_up() {
  [ -z "$operator" ] || kill "$operator" 2>/dev/null || true
  $CLUSTER control-plane down "$NAME" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap clean_up EXIT
passed=0 failed=0

# emulate ARCHITECTURE PROGRAM ARGUMENT...: runs a program, in qemu-user if it is that of another machine.
emulate() {
  local arch=$1
  shift
  case $arch-$(uname -m) in
  amd64-x86_64 | arm64-aarch64) "$@" ;;
  amd64-*) qemu-x86_64-static "$@" ;;
  arm64-*) qemu-aarch64-static "$@" ;;
  esac
}

checksums() {
  cd "$FOLDER"
  sha256sum --check --strict --quiet SHA256SUMS
  # Every file but these has a checksum.
  diff <(cut -c67- SHA256SUMS) <(find . -type f ! -name 'SHA256SUMS*' -printf '%P\n' | LC_ALL=C sort)
}

signature() { openssl dgst -sha256 -verify "$PUBLIC_KEY" -signature "$FOLDER/SHA256SUMS.sig" "$FOLDER/SHA256SUMS"; }

image_index() {
  skopeo inspect --raw "$IMAGE" >"$work/index"
  [ "$(jq -r '[.manifests[].platform | "\(.os)/\(.architecture)"] | sort | join(" ")' "$work/index")" = "linux/amd64 linux/arm64" ]
  grep -qF "\`sha256:$(sha256sum "$work/index" | cut -d ' ' -f 1)\`" "$FOLDER/NOTES.md"
}

# image_of ARCHITECTURE: unpacks the image of a platform into $work/ARCHITECTURE, and compares its configuration with its programs.
image_of() {
  local arch=$1 blobs=$work/$1-image/blobs/sha256 manifest config layer program
  skopeo copy --quiet --insecure-policy --override-os linux --override-arch "$arch" "$IMAGE" "oci:$work/$arch-image"
  manifest=$blobs/$(jq -r '.manifests[0].digest' "$work/$arch-image/index.json" | cut -d : -f 2)
  config=$blobs/$(jq -r .config.digest "$manifest" | cut -d : -f 2)
  jq -e --arg arch "$arch" --arg version "$VERSION" '.architecture == $arch and .os == "linux" and .config.User == "65532:65532"
    and .config.Entrypoint == ["/artillery-operator"] and .config.Labels["org.opencontainers.image.version"] == $version' "$config"
  mkdir "$work/$arch"
  for layer in $(jq -r '.layers[].digest' "$manifest" | cut -d : -f 2); do tar -C "$work/$arch" -xzf "$blobs/$layer"; done
  for program in artillery-operator kubectl-artillery; do
    # The machine in the header of an ELF file: 62 is x86_64, 183 is AArch64.
    case $arch-$(od -An -j 18 -N 2 -t u2 "$work/$arch/$program" | tr -d ' ') in
    amd64-62 | arm64-183) ;;
    *) die "$program is not a program for $arch" ;;
    esac
    [ "$(emulate "$arch" "$work/$arch/$program" --version)" = "$program $VERSION" ]
  done
}

# no_paths ARCHITECTURE: the programs contain no path of the machine that built them.
no_paths() { ! grep -aoE "($HOME|$PWD)/[a-zA-Z0-9._/-]*" "$work/$1/artillery-operator" "$work/$1/kubectl-artillery"; }

# validates ARCHITECTURE: the plugin accepts an example, and rejects a script with a misspelled key.
validates() {
  local plugin=$work/$1/kubectl-artillery status=0
  emulate "$1" "$plugin" validate hack/examples/basic-loadtest/test-script.yaml
  sed 's/target:/targte:/' hack/examples/basic-loadtest/test-script.yaml >"$work/wrong.yaml"
  emulate "$1" "$plugin" validate "$work/wrong.yaml" >"$work/found" 2>&1 || status=$?
  cat "$work/found"
  [ $status = 1 ]
  grep -q "unknown key \`targte\`; did you mean \`target\`?" "$work/found"
}

# worker_image ARCHITECTURE: Artillery runs with the node and the C library of the worker image.
worker_image() {
  local arch=$1 image=$work/worker-$1 blobs=$work/worker-$1/blobs/sha256 root=$work/worker-$1/root manifest
  skopeo copy --quiet --insecure-policy --override-os linux --override-arch "$arch" \
    "oci-archive:$FOLDER/worker-image-v$VERSION.tar" "oci:$image"
  manifest=$blobs/$(jq -r '.manifests[0].digest' "$image/index.json" | cut -d : -f 2)
  [ "$(jq -r .architecture "$blobs/$(jq -r .config.digest "$manifest" | cut -d : -f 2)")" = "$arch" ]
  mkdir "$root"
  tar -C "$root" -xzf "$blobs/$(jq -r '.layers[0].digest' "$manifest" | cut -d : -f 2)"
  [ "$(QEMU_LD_PREFIX=$root emulate "$arch" "$root/bin/node" -p process.arch)" = "${arch/amd64/x64}" ]
  QEMU_LD_PREFIX=$root emulate "$arch" "$root/bin/node" "$root/opt/artillery/node_modules/artillery/bin/run" --version >"$work/artillery"
  cat "$work/artillery"
  grep -qF "$(jq -r .dependencies.artillery hack/worker-image/package.json)" "$work/artillery"
}

# chart HELM: the package renders the same objects as the chart in this copy.
chart() {
  local helm
  helm=$(hack/helm.sh "$1")
  "$helm" template artillery "$FOLDER/artillery-operator-$VERSION.tgz" --namespace $NAMESPACE >"$work/packed"
  "$helm" template artillery charts/artillery-operator --namespace $NAMESPACE | diff - "$work/packed"
  grep -qF "image: \"ghcr.io/artilleryio/artillery-operator-alpha:v$VERSION\"" "$work/packed" ||
    grep -qF "image: ghcr.io/artilleryio/artillery-operator-alpha:v$VERSION" "$work/packed"
}

# krew ARCHITECTURE: the archive has the checksum of the manifest, and the plugin of the image.
krew() {
  local archive=kubectl-artillery-v$VERSION-linux-$1.tar.gz
  grep -A1 "/$archive\$" "$FOLDER/artillery.yaml" | grep -qF "sha256: $(sha256sum "$FOLDER/$archive" | cut -d ' ' -f 1)"
  tar -xzOf "$FOLDER/$archive" kubectl-artillery | cmp - "$work/$1/kubectl-artillery"
}

bills() {
  if [ ! hack/sbom-schema/node_modules/.package-lock.json -nt hack/sbom-schema/package-lock.json ]; then
    npm ci --prefix hack/sbom-schema --no-audit --no-fund
  fi
  node hack/sbom-schema/validate.mjs "$FOLDER"/*.cdx.json
}

install_yaml() {
  grep -qF "image: ghcr.io/artilleryio/artillery-operator-alpha:v$VERSION" "$FOLDER/install.yaml"
  kubectl apply -f "$FOLDER/install.yaml"
  kubectl wait --for=condition=Established --timeout=30s crd/loadtests.loadtest.artillery.io
}

# reconciles ARCHITECTURE: the operator of the image creates the Job of a LoadTest, and the plugin lists it.
reconciles() {
  kubectl apply -k hack/examples/basic-loadtest
  kubectl wait --for=create --timeout=120s job/basic-test
  kubectl wait --for='jsonpath={.status.conditions[?(@.type=="Progressing")].status}=True' --timeout=60s loadtest/basic-test
  [ "$(kubectl get job basic-test -o jsonpath='{.metadata.ownerReferences[0].name}/{.spec.completions}')" = basic-test/2 ]
  emulate "$1" "$work/$1/kubectl-artillery" list >"$work/list"
  cat "$work/list"
  grep -q '^basic-test ' "$work/list"
}

IMAGE=oci-archive:$FOLDER/operator-image-v$VERSION.tar
check "every file has its checksum" checksums
if [ -n "$PUBLIC_KEY" ]; then check "the signature is that of the key" signature; fi
check "the image index has amd64 and arm64, and the digest of the notes" image_index
for arch in amd64 arm64; do
  check "$arch: the image has the programs of its architecture, and they run" image_of $arch
  check "$arch: the programs contain no path of this machine" no_paths $arch
  check "$arch: the plugin validates scripts" validates $arch
  check "$arch: the archive for krew has the plugin of the image" krew $arch
  check "$arch: Artillery runs in the worker image" worker_image $arch
done
for version in 3 4; do check "Helm $version: the package equals the chart" chart $version; done
check "the bills of materials follow the schema of CycloneDX" bills

foreign=arm64
[ "$(uname -m)" = x86_64 ] || foreign=amd64
$CLUSTER control-plane up "$NAME"
KUBECONFIG=$($CLUSTER control-plane kubeconfig "$NAME")
export KUBECONFIG
check "the API server accepts install.yaml" install_yaml
emulate $foreign "$work/$foreign/artillery-operator" --metrics-bind-address=127.0.0.1:0 --health-probe-bind-address=127.0.0.1:0 \
  >"$work/operator.log" 2>&1 &
operator=$!
check "$foreign: the operator creates the Job of a LoadTest" reconciles $foreign
head -n 5 "$work/operator.log"

printf '\n%d passed, %d failed\n' $passed $failed
[ $failed = 0 ]
