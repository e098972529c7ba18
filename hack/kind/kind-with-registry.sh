#!/usr/bin/env bash
# A cluster by kind, of one control plane and two workers, and a registry beside it: what is pushed to
# kind-registry:5000, the nodes can pull. The folder data, made beside this script, is /data on each node.
# Once more does no harm. Removed by: kind delete cluster; docker rm -f kind-registry
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
CLUSTER=${KIND_CLUSTER_NAME:-kind}
REGISTRY=kind-registry
PORT=5000

fail() {
  echo "kind-with-registry.sh: $*" >&2
  exit 1
}
command -v docker >/dev/null || fail "docker is missing: see https://docs.docker.com/get-docker. Without it: hack/local-cluster"
command -v kind >/dev/null || fail "kind is missing: see https://kind.sigs.k8s.io/docs/user/quick-start"
command -v kubectl >/dev/null || fail "kubectl is missing: see https://kubernetes.io/docs/tasks/tools"
docker info >/dev/null 2>&1 || fail "docker does not answer: is it started, and may $(id -un) use it?"

case $(docker inspect -f '{{.State.Running}}' $REGISTRY 2>/dev/null || echo missing) in
true) echo "the registry is running" ;;
false) docker start $REGISTRY ;;
*) docker run -d --restart=always -p "127.0.0.1:$PORT:5000" --network bridge --name $REGISTRY registry:2 ;;
esac

if kind get clusters 2>/dev/null | grep -qx "$CLUSTER"; then
  echo "the cluster $CLUSTER is there"
else
  mkdir -p data
  nodes=''
  for role in control-plane worker worker; do
    nodes+=$(printf '\n  - {role: %s, extraMounts: [{hostPath: "%s", containerPath: /data}]}' $role "$PWD/data")
  done
  # Nodes of kind before v0.27 do not read certs.d by themselves.
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

# The registry speaks plain HTTP, which containerd has to be told, by either name it is pushed to.
for node in $(kind get nodes --name "$CLUSTER"); do
  for name in "$REGISTRY:$PORT" "localhost:$PORT"; do
    docker exec "$node" mkdir -p "/etc/containerd/certs.d/$name"
    docker exec -i "$node" tee "/etc/containerd/certs.d/$name/hosts.toml" >/dev/null <<<"[host.\"http://$REGISTRY:5000\"]"
  done
done

if [ "$(docker inspect -f '{{json .NetworkSettings.Networks.kind}}' $REGISTRY)" = null ]; then
  docker network connect kind $REGISTRY
fi

# Tells tools where the registry is: KEP-1755.
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
  echo "To push to $REGISTRY:$PORT, this machine has to know the name. Add to /etc/hosts: 127.0.0.1 $REGISTRY"
