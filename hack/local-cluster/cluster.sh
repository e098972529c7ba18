#!/usr/bin/env bash
# Runs a Kubernetes cluster of one node on this machine, without Docker and without outside access: see README.md.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../lib.sh
source "$HERE/../lib.sh"
# The PATH of a user may not contain the folders of administration tools.
PATH=$PATH:/usr/sbin:/sbin

usage() {
  cat <<'U'
usage: cluster.sh COMMAND

  build                        build the programs (other commands do this when programs are missing)
  up [NAME]                    start a cluster, or the missing components of a damaged one
  down [NAME]                  stop a cluster and remove everything except its logs
  exec [--name NAME] CMD...    run a command in the cluster's network, with KUBECONFIG set and kubectl on PATH
  kubeconfig [NAME]            print the path of the administrator's kubeconfig, for use in `exec`
  user [--name NAME] USER [GROUP]
                               create a user, and print the path of its kubeconfig
  logs [--name NAME] [PART]    print the end of a component's log, or the paths of all logs
  push SOURCE REFERENCE        copy an image to the registry: push oci-archive:image.tar artilleryio/artillery:latest
  images                       list the images in the registry

  control-plane up|down|kubeconfig [NAME]
  control-plane exec|user|logs [--name NAME] ...
                               the same for a control plane without a node, on the loopback interface, without root

The default NAME is `artillery` for a cluster and `control-plane` for a control plane.
U
}

now() { date +%s%N; }
seconds_since() { printf '%d.%d' $((($(now) - $1) / 1000000000)) $((($(now) - $1) / 100000000 % 10)); }

# cni_folder: prints the folder of the CNI plugins, by default that of Debian.
cni_folder() {
  local dir
  for dir in /usr/lib/cni /opt/cni/bin /usr/libexec/cni; do
    if [ -x "$dir/ptp" ] && [ -x "$dir/host-local" ]; then
      echo "$dir"
      return
    fi
  done
  echo /usr/lib/cni
}

# choose KIND NAME: selects the cluster or control plane that the other functions use.
choose() {
  KIND=$1 NAME=$2
  # NAME is the name of the node, and part of paths and of a cgroup.
  [[ $NAME =~ ^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$ ]] || die "invalid name: $NAME (at most 32 lower case letters, digits and -, beginning with a letter)"
  local states=${XDG_STATE_HOME:-${HOME:?}/.local/state}/artillery-operator
  STATE=$states/$NAME
  PARTS=(etcd kube-apiserver kube-controller-manager kube-scheduler)
  SERVICE_CIDR=10.0.0.0/16 SERVICE_IP=10.0.0.1 POD_CIDR=10.88.0.0/16 NODE_IP=10.89.0.1
  if [ "$KIND" = full ]; then
    TITLE="cluster $NAME"
    RUN=/run/artillery-operator/$NAME CGROUP=artillery-operator-$NAME
    # The cluster is the same with another HOME, such as that of sudo.
    STATE=$(cat "$RUN/state" 2>/dev/null || echo "$STATE")
    PARTS+=(registry containerd coredns kubelet kube-proxy)
    ETCD_PORT=2379 ETCD_PEER_PORT=2380 API_PORT=6443
  else
    TITLE="control plane $NAME"
    STATE=$states/$NAME.plane RUN='' CGROUP=''
    plane_ports
  fi
  PKI=$STATE/pki
}

# lock: allows one `up` or `down` of a name at a time. The started processes do not inherit the lock.
lock() {
  mkdir -p "$STATE"
  exec 9>"$STATE.lock"
  flock -n 9 || { log "waiting for another ${0##*/} of $TITLE"; flock 9; }
}

# admin ARGS...: kubectl as the administrator. The time limit of kubectl does not cover a server that accepts a connection and
# never responds.
admin() {
  if [ "$KIND" = full ]; then
    inside timeout 10 "$BIN/kubectl" --kubeconfig "$STATE/admin.kubeconfig" "$@"
  else
    timeout 10 "$BIN/kubectl" --kubeconfig "$STATE/admin.kubeconfig" "$@"
  fi
}

run() {
  [ $# -gt 0 ] || die "exec needs a command"
  local up="$0 up $NAME"
  [ "$KIND" = full ] || up="$0 control-plane up $NAME"
  [ -f "$STATE/admin.kubeconfig" ] || die "$TITLE is not up: start it with $up"
  export KUBECONFIG=$STATE/admin.kubeconfig PATH=$BIN:$PATH
  [ "$KIND" = full ] || exec "$@"
  require_root
  is_namespace net || die "$TITLE is not up: start it with $up"
  # `ip netns exec` would mount a new /sys without cgroups.
  exec nsenter --net="$RUN/ns/net" "$@"
}

logs() {
  if [ $# = 0 ]; then
    find "$STATE" -maxdepth 1 -name '*.log' 2>/dev/null | sort
  else
    [ -f "$STATE/$1.log" ] || die "there is no log of $1; the components are ${PARTS[*]} audit"
    tail -n "${LINES:-50}" "$STATE/$1.log"
  fi
}

# shellcheck source=binaries.sh
source "$HERE/binaries.sh"
# shellcheck source=plane.sh
source "$HERE/plane.sh"
# shellcheck source=node.sh
source "$HERE/node.sh"

main() {
  local kind=full name=artillery command
  BEGIN=$(now)
  if [ "${1:-}" = control-plane ]; then
    kind=plane name=control-plane
    shift
  fi
  command=${1:-help}
  [ $# = 0 ] || shift
  case $command in
  up | down | kubeconfig)
    if [ "${1:-}" = --name ]; then shift; fi
    [ $# -le 1 ] || die "$command takes only one name"
    choose $kind "${1:-$name}"
    ;;
  exec | user | logs)
    if [ "${1:-}" = --name ]; then
      name=${2:?--name needs a name}
      shift 2
    fi
    if [ "${1:-}" = -- ]; then shift; fi
    choose $kind "$name"
    ;;
  *) choose full artillery ;;
  esac
  case $command in
  build) binaries "${SERVERS[@]}" kubectl pause ;;
  up)
    [ $kind = plane ] || require_root
    lock
    if [ $kind = full ]; then up; else plane_up; fi
    ;;
  down)
    [ $kind = plane ] || require_root
    lock
    if [ $kind = full ]; then down; else plane_down; fi
    echo "$TITLE is down"
    ;;
  exec) run "$@" ;;
  user) user "$@" ;;
  kubeconfig) echo "$STATE/admin.kubeconfig" ;;
  logs) logs "$@" ;;
  push) push "$@" ;;
  images) images ;;
  help | -h | --help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
  esac
}

main "$@"
