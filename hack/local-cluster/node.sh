# shellcheck shell=bash
# Sourced by cluster.sh. The node: its namespaces, containerd, kubelet, kube-proxy, CoreDNS, the registry.
#
# Everything runs in a network namespace without a route out, and in a mount namespace in which the folders that
# containerd, the kubelet and CNI keep below /run and /var are the cluster's own. When the last process has ended and
# the two are let go of, the kernel removes every mount, interface and packet filter rule with them.

PAUSE_IMAGE=localhost/pause:1
# Folders of the machine, which every cluster sees as its own.
OWN_FOLDERS=(/run/containerd /var/lib/containerd /var/lib/cni /var/lib/kubelet /var/log/pods /var/log/containers)
# The kubelet sets these for a machine that it has to itself; here it sets copies.
KEPT_SYSCTLS=(vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes)

need_root() { [ "$(id -u)" = 0 ] || die "this needs root (namespaces, containerd): run it by sudo -E, or use '$0 control-plane'"; }

node_tools() {
  # Debian calls the packages so
  need_tools containerd ctr:containerd runc cni:containernetworking-plugins iptables conntrack ip:iproute2 \
    docker-registry openssl nsenter:util-linux unshare:util-linux flock:util-linux mountpoint:util-linux
}

is_namespace() { [ "$(stat -fc %T "$RUN/ns/$1" 2>/dev/null)" = nsfs ]; }
inside() { nsenter --net="$RUN/ns/net" "$@"; }

# One path per hierarchy with cgroup v1, one in all with v2; the innermost first.
cgroups() { find /sys/fs/cgroup/*/"$CGROUP" "/sys/fs/cgroup/$CGROUP" -depth -type d 2>/dev/null || true; }

make_namespaces() {
  if is_namespace net && is_namespace mnt && [ -f "$RUN/made" ]; then return; fi
  mkdir -p "$RUN/ns"
  # A mount namespace can be pinned only below a mount that does not propagate.
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
# Service addresses must be routed somewhere, or kube-proxy's rules never get to see them.
ip route add $SERVICE_CIDR dev node0 src $NODE_IP
echo 1 >/proc/sys/net/ipv4/ip_forward
S
  touch "$RUN/made"
}

# Sockets have to have short paths, so what is below /run stays there.
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
      # cpuset alone gives a new group nothing: no processor, no memory
      for file in cpuset.cpus cpuset.mems; do
        [ ! -f "$hierarchy/$file" ] || cat "$hierarchy/$file" >"$hierarchy/$CGROUP/$file"
      done
    done
  fi
}

registry_config() { # also that of `push`
  mkdir -p "$CACHE/registry"
  printf 'version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: "%s"}, delete: {enabled: true}}\nhttp: {addr: "127.0.0.1:5000"}\n' \
    "$CACHE/registry" >"$CACHE/registry.yaml.$$"
  mv "$CACHE/registry.yaml.$$" "$CACHE/registry.yaml"
}

start_containerd() {
  mkdir -p "$STATE/hosts/_default" "$STATE/cni"
  # whatever registry an image names: nothing else can be reached
  cat >"$STATE/hosts/_default/hosts.toml" <<'K'
server = "http://127.0.0.1:5000"
[host."http://127.0.0.1:5000"]
  capabilities = ["pull", "resolve"]
K
  # Not a bridge: pods on one bridge answer each other past kube-proxy's rules where br_netfilter is missing.
  cat >"$STATE/cni/10-pods.conflist" <<K
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "ptp", "ipMasq": false, "ipam": {"type": "host-local", "ranges": [[{"subnet": "$POD_CIDR"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
K
  local snapshotter=overlayfs
  [ "$(stat -fc %T "$STATE")" != overlayfs ] || snapshotter=native # overlays do not stack
  cat >"$STATE/containerd.toml" <<K
version = 2
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[plugins."io.containerd.grpc.v1.cri"]
  # where CAP_SYS_RESOURCE is missing, lowering oom_score_adj fails and no pod starts
  restrict_oom_score_adj = true
  # else they are below /var/run/netns, for all the machine to see
  netns_mounts_under_state_dir = true
  sandbox_image = "$PAUSE_IMAGE"
  max_concurrent_downloads = 10
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "$STATE/hosts"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$(cni_folder)"
    conf_dir = "$STATE/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "$snapshotter"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
K
  start containerd containerd -c "$STATE/containerd.toml"
}

ctr_here() { ctr -a "$RUN/containerd/containerd.sock" -n k8s.io "$@"; }

import_pause() {
  [ -n "$(ctr_here images list -q "name==$PAUSE_IMAGE")" ] || ctr_here images import "$BIN/pause.tar" >/dev/null
}

start_dns() {
  # Names outside do not exist, and are said so at once: a refusal lets some resolvers wait for seconds.
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
  # The limits on calls and events are for nodes among hundreds, and the image collector does not know that
  # a collected image may be in no registry any more.
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

# answers PORT PATH: whether a server of the node says 200 there
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
    say "$TITLE is up in part: starting what is missing"
    if bring_up; then
      echo "$TITLE is mended after $(seconds_since "$BEGIN") s"
      return
    fi
    say "starting it anew"
  fi
  down
  mkdir -p "$STATE" "$RUN"
  rm -f "$STATE"/*.log
  echo "$STATE" >"$RUN/state"
  bring_up || die "$TITLE did not come up: see the logs in $STATE, or try again"
  echo "$TITLE is up after $(seconds_since "$BEGIN") s"
}

down() {
  if is_namespace net && [ "$(stat -Lc %i "$RUN/ns/net")" = "$(stat -Lc %i /proc/self/ns/net)" ]; then
    die "this shell is inside of $TITLE, and would be ended with it: run it outside"
  fi
  kill_all
  local pin dir deadline=$((SECONDS + 10))
  for pin in "$RUN/ns/net" "$RUN/ns/mnt" "$RUN/ns"; do
    while mountpoint -q "$pin"; do umount "$pin"; done
  done
  # A group is busy for a moment after its last process has ended.
  while [ -n "$(cgroups)" ]; do
    cgroups | while read -r dir; do rmdir "$dir" 2>/dev/null || true; done
    [ $SECONDS -lt $deadline ] || die "a cgroup stays busy: $(cgroups | head -n 1)"
    [ -z "$(cgroups)" ] || sleep 0.1
  done
  forget
  rm -rf --one-file-system "$RUN"
  rmdir --ignore-fail-on-non-empty "${RUN%/*}" 2>/dev/null || true
}

# push SOURCE REFERENCE: needs no cluster, for the registry is started for the while
push() {
  need_root
  [ $# = 2 ] || die "usage: push SOURCE REFERENCE, for instance push oci-archive:image.tar artilleryio/artillery:latest"
  need_tools docker-registry skopeo ip:iproute2 unshare:util-linux
  local path
  path=$(registry_path "$2")
  case $1 in
  *:*) ;;
  *) die "a source is like oci-archive:image.tar or docker-archive:image.tar: $1" ;;
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

# What containerd asks the registry for when a pod names an image.
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
