#!/usr/bin/env bash
# Creates a kind cluster with one control plane and two workers, and a registry: the nodes can pull what is pushed to
# kind-registry:5000. The folder `data` beside this script is /data on each node. Running the script again does no harm.
# To remove both: kind delete cluster; docker rm -f kind-registry
# KIND_CLUSTER_NAME names the cluster (kind).
set -euo pipefail
# shellcheck source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
no_arguments "$@"
cd "$(dirname "${BASH_SOURCE[0]}")"
CLUSTER=${KIND_CLUSTER_NAME:-kind}
REGISTRY=kind-registry
PORT=5000

require_command "docker:https://docs.docker.com/get-docker (hack/local-cluster needs no Docker)" \
  kind:https://kind.sigs.k8s.io/docs/user/quick-start kubectl:https://kubernetes.io/docs/tasks/tools
docker info >/dev/null 2>&1 || die "docker does not respond: check that it is running and that $(id -un) may use it"

case $(docker inspect -f '{{.State.Running}}' $REGISTRY 2>/dev/null || echo missing) in
true) echo "The registry is already running" ;;
false) docker start $REGISTRY ;;
*) docker run -d --restart=always -p "127.0.0.1:$PORT:5000" --network bridge --name $REGISTRY registry:2 ;;
esac

if kind get clusters 2>/dev/null | grep -qx "$CLUSTER"; then
  echo "The cluster $CLUSTER already exists"
else
  mkdir -p data
  nodes=''
  for role in control-plane worker worker; do
    nodes+=$(printf '\n  - {role: %s, extraMounts: [{hostPath: "%s", containerPath: /data}]}' $role "$PWD/data")
  done
  # Before v0.27, nodes of kind do not read certs.d by default.
  kind create cluster --name "$CLUSTER" --wait 120s --config=- <<C
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
containerdConfigPatches:
  - |-
    [plugins."io.containerd.grpc.v1.cri".registry]
      config_path = "/etc/containerd/certs.d"
nodes:
$nodes
C
fi

# containerd must be configured to use plain HTTP for both names of the registry.
for node in $(kind get nodes --name "$CLUSTER"); do
  for name in "$REGISTRY:$PORT" "localhost:$PORT"; do
    docker exec "$node" mkdir -p "/etc/containerd/certs.d/$name"
    docker exec -i "$node" tee "/etc/containerd/certs.d/$name/hosts.toml" >/dev/null <<<"[host.\"http://$REGISTRY:5000\"]"
  done
done

if [ "$(docker inspect -f '{{json .NetworkSettings.Networks.kind}}' $REGISTRY)" = null ]; then
  docker network connect kind $REGISTRY
fi

# Publishes the address of the registry for other tools (KEP-1755).
kubectl --context "kind-$CLUSTER" apply -f - <<C
apiVersion: v1
kind: ConfigMap
metadata:
  name: local-registry-hosting
  namespace: kube-public
data:
  localRegistryHosting.v1: |
    host: "localhost:$PORT"
    hostFromContainerRuntime: "$REGISTRY:5000"
    hostFromClusterNetwork: "$REGISTRY:5000"
    help: "https://kind.sigs.k8s.io/docs/user/local-registry/"
C

kubectl --context "kind-$CLUSTER" get nodes
grep -qE "^[^#]*[[:space:]]$REGISTRY([[:space:]]|$)" /etc/hosts ||
  echo "To push to $REGISTRY:$PORT from this machine, add this line to /etc/hosts: 127.0.0.1 $REGISTRY"
