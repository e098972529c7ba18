#!/usr/bin/env bash
# Builds Kueue from source, and prints the path of the program and of the folder of its Go module: kueue.sh
# Runs the tests with Kueue, on a control plane of their own: kueue.sh --test [FILTER]
# The program is kept in the cache folder. NAME names the control plane (kueue); KEEP=1 leaves it and Kueue running.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_option "$@"
VERSION=v0.17.0
require_command go:https://go.dev/doc/install jq
# The folder does not depend on the current folder: this repository has Go modules of its own.
module=$(cd / && go mod download -json "sigs.k8s.io/kueue@$VERSION" | jq -er .Dir)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/artillery-operator/kueue-$VERSION
if [ ! -x "$folder/kueue" ]; then
  log "building Kueue $VERSION; this takes some minutes the first time"
  # In a folder of its own first, so that an interrupted build leaves no program.
  new=$(mktemp -d)
  mkdir -p "$new/source/cmd"
  cp -r "$module"/{go.mod,go.sum,apis,client-go,internal,pkg} "$new/source"
  cp -r "$module/cmd/kueue" "$new/source/cmd"
  chmod -R u+w "$new/source"
  # The only path that no option changes: that of the certificate of the metrics.
  sed -i 's|"/etc/kueue/metrics/certs"|os.Getenv("KUEUE_METRICS_CERTS")|' "$new/source/cmd/kueue/main.go"
  grep -q KUEUE_METRICS_CERTS "$new/source/cmd/kueue/main.go" || die "Kueue's main.go has changed"
  # Without debug information the linker needs far less memory.
  CGO_ENABLED=0 GOFLAGS='' go build -C "$new/source" -trimpath -gcflags=all=-dwarf=false -ldflags '-s -w' -o "$new/kueue" ./cmd/kueue >&2
  mkdir -p "$folder"
  mv "$new/kueue" "$folder/kueue"
  rm -r "$new"
fi
if [ "${1:-}" != --test ]; then
  no_arguments "$@"
  printf '%s\n' "$folder/kueue" "$module"
  exit
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
require_command cargo:https://rustup.rs openssl
NAME=${NAME:-kueue}
plane() { hack/local-cluster/cluster.sh control-plane "$@"; }
state=$(mktemp -d) kueue=
down() {
  if [ "${KEEP:-}" = 1 ]; then
    log "Kueue runs with the pid $kueue; its log is $state/kueue.log"
    return
  fi
  [ -z "$kueue" ] || kill "$kueue" 2>/dev/null || true
  plane down "$NAME" >&2
  rm -r "$state"
}
trap down EXIT
plane up "$NAME" >&2
KUBECONFIG=$(plane kubeconfig "$NAME")
export KUBECONFIG
k() { plane exec --name "$NAME" kubectl "$@"; }

port=$(free_port)
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$state/tls.key" -out "$state/tls.crt" \
  -subj /CN=kueue -addext subjectAltName=IP:127.0.0.1 -days 3650 2>/dev/null
cat >"$state/config.yaml" <<K
apiVersion: config.kueue.x-k8s.io/v1beta2
kind: Configuration
health: {healthProbeBindAddress: "0"}
metrics: {bindAddress: "0"}
webhook: {host: 127.0.0.1, port: $port, certDir: "$state"}
leaderElection: {leaderElect: false}
internalCertManagement: {enable: false}
manageJobsWithoutQueueName: false
integrations: {frameworks: [batch/job]}
featureGates: {VisibilityOnDemand: false}
K
k apply --server-side -f "$module/config/components/crd/bases" >/dev/null
k wait --for=condition=Established --timeout=60s crd --all >/dev/null
k create namespace kueue-system >/dev/null 2>&1 || true
KUEUE_METRICS_CERTS=$state "$folder/kueue" --config "$state/config.yaml" >"$state/kueue.log" 2>&1 &
kueue=$!
until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
  kill -0 "$kueue" 2>/dev/null || die "Kueue has ended: $(tail -n 3 "$state/kueue.log")"
  sleep 0.1
done
# The webhooks of Kueue's own kinds and of Jobs, at an address instead of a Service.
k create --dry-run=client -o json -f "$module/config/components/webhook/manifests.yaml" |
  jq --arg url "https://127.0.0.1:$port" --arg ca "$(base64 -w0 "$state/tls.crt")" '
    (.items? // [.])[] | .webhooks |= [.[] | select(.rules[0].apiGroups[0] | IN("batch", "kueue.x-k8s.io"))
      | .clientConfig = {url: ($url + .clientConfig.service.path), caBundle: $ca}]' |
  k apply -f - >/dev/null
log "Kueue $VERSION is up"
CLUSTER_NAME=$NAME cargo test --test integration -- --ignored "${2:-kueue}"
