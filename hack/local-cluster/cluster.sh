#!/usr/bin/env bash
# A Kubernetes of one node on this machine, without Docker and without a way out: see README.md beside it.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# where tools for administrators are, should a user's PATH lack it
PATH=$PATH:/usr/sbin:/sbin

usage() {
  cat <<'U'
usage: cluster.sh COMMAND

  build                        make the binaries (the other commands do so as well when they are missing)
  up [NAME]                    start a cluster, or what is missing of it
  down [NAME]                  stop it and remove all of it, but for its logs
  exec [--name NAME] CMD...    run a command in its network, with KUBECONFIG set and kubectl on PATH
  kubeconfig [NAME]            path of the administrator's kubeconfig, for use within `exec`
  user [--name NAME] USER [GROUP]
                               path of a kubeconfig for one more user
  logs [--name NAME] [PART]    the end of a part's log, or the paths of all
  push SOURCE REFERENCE        put an image in the registry: push oci-archive:image.tar artilleryio/artillery:latest
  images                       what is in the registry

  control-plane up|down|kubeconfig [NAME]
  control-plane exec|user|logs [--name NAME] ...
                               the same for a control plane without a node, on loopback and without root

NAME is `artillery` for a cluster and `control-plane` for a control plane, unless given.
U
}

say() { echo "cluster.sh: $*" >&2; }
die() {
  say "$*"
  exit 1
}
now() { date +%s%N; }
seconds_since() { printf '%d.%d' $((($(now) - $1) / 1000000000)) $((($(now) - $1) / 100000000 % 10)); }

cni_folder() {
  local dir
  for dir in /usr/lib/cni /opt/cni/bin /usr/libexec/cni; do
    if [ -x "$dir/ptp" ] && [ -x "$dir/host-local" ]; then
      echo "$dir"
      return
    fi
  done
  return 1
}

# need_tools TOOL[:PACKAGE]...: installs what is missing where that is possible, and else names all of it at once
need_tools() {
  local tool missing=() packages=() other=()
  missing_tools "$@"
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ ${#packages[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing ${packages[*]}"
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${packages[@]}"; } </dev/null >&2 ||
      say "apt-get failed"
    missing_tools "$@"
    [ ${#missing[@]} -gt 0 ] || return 0
  fi
  local hint=""
  [ ${#packages[@]} = 0 ] || hint+="; Debian has them in ${packages[*]}"
  [ ${#other[@]} = 0 ] || hint+="; ${other[*]}"
  die "missing on this machine: ${missing[*]}$hint"
}

missing_tools() {
  local package
  missing=() packages=() other=()
  for tool; do
    package=${tool#*:} tool=${tool%%:*}
    case $tool in
    cni) ! cni_folder >/dev/null || continue ;;
    *) ! command -v "$tool" >/dev/null || continue ;;
    esac
    missing+=("$tool")
    case $package in
    http*) other+=("$tool: $package") ;;
    *) [[ " ${packages[*]} " == *" $package "* ]] || packages+=("$package") ;;
    esac
  done
}

# choose KIND NAME: what the rest of the script works on
choose() {
  KIND=$1 NAME=$2
  # The node's name, part of paths and of a cgroup
  [[ $NAME =~ ^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$ ]] || die "not a name of a cluster (lower case, digits and -, 32 at most): $NAME"
  local states=${XDG_STATE_HOME:-${HOME:?}/.local/state}/artillery-operator
  STATE=$states/$NAME
  PARTS=(etcd kube-apiserver kube-controller-manager kube-scheduler)
  SERVICE_CIDR=10.0.0.0/16 SERVICE_IP=10.0.0.1 POD_CIDR=10.88.0.0/16 NODE_IP=10.89.0.1
  if [ "$KIND" = full ]; then
    TITLE="cluster $NAME"
    RUN=/run/artillery-operator/$NAME CGROUP=artillery-operator-$NAME
    # With another HOME, as by sudo, it is still the same cluster.
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

# One up or down of a name at a time. Those that are started do not inherit the lock.
lock() {
  mkdir -p "$STATE"
  exec 9>"$STATE.lock"
  flock -n 9 || { say "waiting for another $0 of $TITLE"; flock 9; }
}

admin() { # kubectl as the administrator; its own time limit does not cover a server that accepts and never answers
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
  [ -f "$STATE/admin.kubeconfig" ] || die "$TITLE is not up: start it by $up"
  export KUBECONFIG=$STATE/admin.kubeconfig PATH=$BIN:$PATH
  [ "$KIND" = full ] || exec "$@"
  need_root
  is_namespace net || die "$TITLE is not up: start it by $up"
  # not `ip netns exec`: that mounts a new /sys, in which there are no cgroups
  exec nsenter --net="$RUN/ns/net" "$@"
}

logs() {
  if [ $# = 0 ]; then
    find "$STATE" -maxdepth 1 -name '*.log' 2>/dev/null | sort
  else
    [ -f "$STATE/$1.log" ] || die "no log of $1: the parts are ${PARTS[*]} audit"
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
    [ $# -le 1 ] || die "$command takes one name"
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
    [ $kind = plane ] || need_root
    lock
    if [ $kind = full ]; then up; else plane_up; fi
    ;;
  down)
    [ $kind = plane ] || need_root
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
