# shellcheck shell=bash
# Sourced by cluster.sh. The node: its namespaces, containerd, kubelet, kube-proxy, CoreDNS, the registry.
#
# Everything runs in a network namespace without a route to the outside, and in a mount namespace with private copies of the
# folders that containerd, the kubelet and CNI use below /run and /var. When the last process has ended and the two namespaces
# are unmounted, the kernel removes all mounts, interfaces and packet filter rules.

PAUSE_IMAGE=localhost/pause:1
# Folders of the machine that are private in every cluster.
OWN_FOLDERS=(/run/containerd /var/lib/containerd /var/lib/cni /var/lib/kubelet /var/log/pods /var/log/containers)
# Settings that the kubelet changes for the whole machine. Here it changes copies.
KEPT_SYSCTLS=(vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes)

require_root() { [ "$(id -u)" = 0 ] || die "a cluster needs root (namespaces, containerd): use sudo -E, or $0 control-plane"; }

node_tools() {
  require_command runc "$(cni_folder)/ptp:containernetworking-plugins" iptables conntrack ip:iproute2 \
    docker-registry openssl nsenter:util-linux unshare:util-linux flock:util-linux mountpoint:util-linux
}

is_namespace() { [ "$(stat -fc %T "$RUN/ns/$1" 2>/dev/null)" = nsfs ]; }
inside() { nsenter --net="$RUN/ns/net" "$@"; }

# cgroups: prints the paths of the cluster's cgroups, innermost first. cgroup v1 has one hierarchy for each controller.
cgroups() { find /sys/fs/cgroup/*/"$CGROUP" "/sys/fs/cgroup/$CGROUP" -depth -type d 2>/dev/null || true; }

make_namespaces() {
  if is_namespace net && is_namespace mnt && [ -f "$RUN/made" ]; then return; fi
  mkdir -p "$RUN/ns"
  # A mount namespace can be bind-mounted only below a mount that does not propagate.
  mount --bind "$RUN/ns" "$RUN/ns"
  mount --make-private "$RUN/ns"
  touch "$RUN/ns/net" "$RUN/ns/mnt"
  unshare --net="$RUN/ns/net" --mount="$RUN/ns/mnt" --propagation slave true
  local dir
  for dir in "${OWN_FOLDERS[@]}"; do mkdir -p "$dir" "$(own_folder "$dir")"; done
  # shellcheck disable=SC2016
  nsenter --net="$RUN/ns/net" --mount="$RUN/ns/mnt" bash -euo pipefail -s <<S
$(declare -f own_folder)
STATE='$STATE' RUN='$RUN'
for dir in ${OWN_FOLDERS[*]}; do mount --bind "\$(own_folder "\$dir")" "\$dir"; done
for sysctl in ${KEPT_SYSCTLS[*]}; do
  [ -e "/proc/sys/\$sysctl" ] || continue
  mkdir -p "\$RUN/sysctl/\$(dirname "\$sysctl")"
  cat "/proc/sys/\$sysctl" >"\$RUN/sysctl/\$sysctl"
  mount --bind "\$RUN/sysctl/\$sysctl" "/proc/sys/\$sysctl"
done
ip link set lo up
ip link add node0 type bridge
ip address add $NODE_IP/32 dev node0
ip link set node0 up
# Without a route, packets to Service addresses would not reach the rules of kube-proxy.
ip route add $SERVICE_CIDR dev node0 src $NODE_IP
echo 1 >/proc/sys/net/ipv4/ip_forward
S
  touch "$RUN/made"
}

# own_folder DIR: prints the private copy of a folder. Folders below /run stay there, because paths of sockets must be short.
own_folder() {
  case $1 in
  /run/*) echo "$RUN/${1##*/}" ;;
  *) echo "$STATE/${1//\//-}" ;;
  esac
}

make_cgroups() {
  local hierarchy
  if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    mkdir -p "/sys/fs/cgroup/$CGROUP"
    for hierarchy in $(cat /sys/fs/cgroup/cgroup.controllers); do
      echo "+$hierarchy" >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || true
    done
  else
    for hierarchy in /sys/fs/cgroup/*/; do
      mountpoint -q "$hierarchy" && mkdir -p "$hierarchy/$CGROUP"
      # A new group of the controller cpuset has no CPU and no memory.
      for file in cpuset.cpus cpuset.mems; do
        [ ! -f "$hierarchy/$file" ] || cat "$hierarchy/$file" >"$hierarchy/$CGROUP/$file"
      done
    done
  fi
}

# registry_config: writes the configuration of the registry, for the cluster and for `push`.
registry_config() {
  mkdir -p "$CACHE/registry"
  printf 'version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: "%s"}, delete: {enabled: true}}\nhttp: {addr: "127.0.0.1:5000"}\n' \
    "$CACHE/registry" >"$CACHE/registry.yaml.$$"
  mv "$CACHE/registry.yaml.$$" "$CACHE/registry.yaml"
}

start_containerd() {
  mkdir -p "$STATE/hosts/_default" "$STATE/cni"
  # All images are pulled from the local registry, because no other can be reached.
  cat >"$STATE/hosts/_default/hosts.toml" <<'K'
server = "http://127.0.0.1:5000"
[host."http://127.0.0.1:5000"]
  capabilities = ["pull", "resolve"]
K
  # With a bridge and without br_netfilter, traffic between pods would bypass the rules of kube-proxy.
  cat >"$STATE/cni/10-pods.conflist" <<K
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "ptp", "ipMasq": false, "ipam": {"type": "host-local", "ranges": [[{"subnet": "$POD_CIDR"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
K
  local snapshotter=overlayfs
  [ "$(stat -fc %T "$STATE")" != overlayfs ] || snapshotter=native # overlayfs cannot be its own lower layer
  cat >"$STATE/containerd.toml" <<K
version = 3
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs",
  "io.containerd.differ.v1.erofs", "io.containerd.nri.v1.nri"]
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "$snapshotter"
  max_concurrent_downloads = 10
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "$PAUSE_IMAGE"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "$STATE/hosts"
[plugins."io.containerd.cri.v1.runtime"]
  # Without CAP_SYS_RESOURCE, lowering oom_score_adj fails and no pod starts.
  restrict_oom_score_adj = true
  # The default, /var/run/netns, is visible to the whole machine.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["$(cni_folder)"]
    conf_dir = "$STATE/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      SystemdCgroup = false
K
  start containerd "$BIN/containerd" -c "$STATE/containerd.toml"
}

# ctr_here ARGS...: that of containerd, without its warnings about the version of cgroups.
ctr_here() { "$BIN/ctr" -a "$RUN/containerd/containerd.sock" -n k8s.io "$@" 2> >(grep -v DEPRECATION >&2); }

import_pause() {
  [ -n "$(ctr_here images list -q "name==$PAUSE_IMAGE")" ] || ctr_here images import "$BIN/pause.tar" >/dev/null
}

start_dns() {
  # All other names do not exist (NXDOMAIN). With REFUSED some resolvers would wait for seconds.
  cat >"$STATE/Corefile" <<K
.:53 {
  errors
  ready 127.0.0.1:8181
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $STATE/coredns.kubeconfig
    pods insecure
    fallthrough in-addr.arpa
  }
  template ANY ANY . {
    rcode NXDOMAIN
  }
}
K
  start coredns "$BIN/coredns" -conf "$STATE/Corefile"
}

start_kubelet() {
  echo "nameserver $NODE_IP" >"$STATE/resolv.conf"
  # Rate limits are off, because this is the only node. Image garbage collection is off, because an image may no longer be in
  # the registry.
  cat >"$STATE/kubelet.yaml" <<K
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "$PKI/ca.crt"}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
volumePluginDir: $STATE/volume-plugins
resolvConf: $STATE/resolv.conf
clusterDNS: ["$NODE_IP"]
clusterDomain: cluster.local
maxPods: 250
evictionHard: {memory.available: 100Mi, nodefs.available: "1%", imagefs.available: "1%"}
imageGCHighThresholdPercent: 100
registryPullQPS: 0
eventRecordQPS: 0
kubeAPIQPS: 100
kubeAPIBurst: 200
serializeImagePulls: false
maxParallelImagePulls: 5
K
  start kubelet "$BIN/kubelet" --config "$STATE/kubelet.yaml" --kubeconfig "$STATE/kubelet.kubeconfig" \
    --hostname-override "$NAME" --node-ip "$NODE_IP"
}

start_proxy() {
  start kube-proxy "$BIN/kube-proxy" --kubeconfig "$STATE/kube-proxy.kubeconfig" --proxy-mode iptables \
    --cluster-cidr "$POD_CIDR" --hostname-override "$NAME" --conntrack-max-per-core 0
}

# answers PORT PATH: whether a server of the node responds with the status 200.
answers() {
  # shellcheck disable=SC2016
  inside timeout 2 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0" && printf "GET %s HTTP/1.0\r\n\r\n" "$1" >&3 && read -r _ code _ <&3 && [ "$code" = 200 ]' "$@"
}

node_ready() { [ "$(admin get node "$NAME" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')" = True ]; }

is_up() {
  local part
  is_namespace net && is_namespace mnt || return 1
  for part in "${PARTS[@]}"; do alive "$part" || return 1; done
  answers 10248 /healthz && api_ready && node_ready && has_service_account && ctr_here version
}

bring_up() {
  forget_dead
  make_namespaces
  make_cgroups
  registry_config
  start registry docker-registry serve "$CACHE/registry.yaml"
  start_containerd
  start_plane || return 1
  cert kubelet "/O=system:nodes/CN=system:node:$NAME"
  cert kube-proxy /CN=system:kube-proxy
  cert coredns /O=system:masters/CN=system:coredns
  for part in kubelet kube-proxy coredns; do kubeconfig "$STATE/$part.kubeconfig" "$part"; done
  start_dns
  wait_for 30 containerd ctr_here version || return 1
  import_pause
  start_kubelet
  start_proxy
  wait_for 30 "the kubelet" answers 10248 /healthz || return 1
  wait_for 60 "the node to be Ready" node_ready || return 1
  wait_for 30 "the default service account" has_service_account || return 1
  wait_for 30 CoreDNS answers 8181 /ready || return 1
  wait_for 30 kube-proxy answers 10256 /healthz || return 1
}

up() {
  if is_up >/dev/null 2>&1; then
    echo "$TITLE is already up"
    return
  fi
  node_tools
  binaries "${SERVERS[@]}" kubectl pause
  BEGIN=$(now)
  if [ -f "$RUN/made" ] && is_namespace net && is_namespace mnt && [ -d "$STATE/etcd" ]; then
    log "some components of $TITLE are not running: starting them"
    if bring_up; then
      echo "$TITLE is repaired after $(seconds_since "$BEGIN") s"
      return
    fi
    log "restarting $TITLE"
  fi
  down
  mkdir -p "$STATE" "$RUN"
  rm -f "$STATE"/*.log
  echo "$STATE" >"$RUN/state"
  bring_up || die "$TITLE did not start: see the logs in $STATE"
  echo "$TITLE is up after $(seconds_since "$BEGIN") s"
}

down() {
  if is_namespace net && [ "$(stat -Lc %i "$RUN/ns/net")" = "$(stat -Lc %i /proc/self/ns/net)" ]; then
    die "this shell runs in the network of $TITLE and would be killed: use a shell outside"
  fi
  kill_all
  local pin dir deadline=$((SECONDS + 10))
  for pin in "$RUN/ns/net" "$RUN/ns/mnt" "$RUN/ns"; do
    while mountpoint -q "$pin"; do umount "$pin"; done
  done
  # A cgroup stays busy for a moment after its last process has ended.
  while [ -n "$(cgroups)" ]; do
    cgroups | while read -r dir; do rmdir "$dir" 2>/dev/null || true; done
    [ $SECONDS -lt $deadline ] || die "the cgroup is still busy: $(cgroups | head -n 1)"
    [ -z "$(cgroups)" ] || sleep 0.1
  done
  forget
  rm -rf --one-file-system "$RUN"
  rmdir --ignore-fail-on-non-empty "${RUN%/*}" 2>/dev/null || true
}

# push SOURCE REFERENCE: copies an image to the registry. Needs no cluster, because it starts the registry itself.
push() {
  require_root
  [ $# = 2 ] || die "usage: push SOURCE REFERENCE, such as push oci-archive:image.tar artilleryio/artillery:latest"
  require_command docker-registry skopeo ip:iproute2 unshare:util-linux
  local path
  path=$(registry_path "$2")
  case $1 in
  *:*) ;;
  *) die "invalid source: $1 (use a source such as oci-archive:image.tar or docker-archive:image.tar)" ;;
  esac
  registry_config
  # shellcheck disable=SC2016
  unshare --net --pid --fork --kill-child bash -euo pipefail -c '
    ip link set lo up
    docker-registry serve "$1" >/dev/null 2>&1 &
    for _ in {1..100}; do
      if (exec 3<>/dev/tcp/127.0.0.1/5000) 2>/dev/null; then
        skopeo copy --quiet --insecure-policy --dest-tls-verify=false "$2" "docker://127.0.0.1:5000/$3"
        exit
      fi
      sleep 0.1
    done
    echo "the registry did not start" >&2
    exit 1' push "$CACHE/registry.yaml" "$1" "$path" >&2
  echo "$path"
}

# registry_path REFERENCE: prints the path and tag under which containerd requests an image from the registry.
registry_path() {
  local path=$1 first=${1%%/*}
  if [[ $path == */* && ($first == *[.:]* || $first == localhost) ]]; then
    path=${path#*/}
    [[ $first != docker.io || $path == */* ]] || path=library/$path
  elif [[ $path != */* ]]; then
    path=library/$path
  fi
  [[ ${path##*/} == *:* ]] || path=$path:latest
  echo "$path"
}

images() {
  local root=$CACHE/registry/docker/registry/v2/repositories
  [ -d "$root" ] || return 0
  find "$root" -path '*/_manifests/tags/*' -name link -path '*/current/*' |
    sed "s|^$root/||; s|/_manifests/tags/|:|; s|/current/link\$||" | sort
}
