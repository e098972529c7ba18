# shellcheck shell=bash
# Functions shared by the scripts of this repository. A script sources this file by a path relative to itself.
# The files of the worker image do not source it, because they are copied and run alone.

# log MESSAGE...: prints the message to stderr, after the name of the script.
log() { echo "${0##*/}: $*" >&2; }

# die MESSAGE...: logs the message and exits with 1.
die() {
  log "$@"
  exit 1
}

# help_option "$@": prints the comment at the top of the script and exits, if the first argument is -h or --help.
help_option() {
  [ "${1:-}" = -h ] || [ "${1:-}" = --help ] || return 0
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
  exit
}

# no_arguments "$@": like help_option, and exits with 2 if there is any other argument.
no_arguments() {
  help_option "$@"
  [ $# = 0 ] && return
  log "unexpected argument: $1 (see ${0##*/} --help)"
  exit 2
}

# require_command COMMAND[:SOURCE]...: exits if a command is missing, after logging every missing one.
# SOURCE is a Debian package (by default the one named COMMAND) or a URL. As root on Debian, missing packages are
# installed first. A COMMAND that begins with / is a file that must exist.
require_command() {
  local messages packages
  find_missing "$@"
  if [ ${#packages[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    log "installing the Debian packages ${packages[*]}"
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${packages[@]}"; } </dev/null >&2 ||
      log "apt-get failed"
    find_missing "$@"
  fi
  [ ${#messages[@]} -gt 0 ] || return 0
  local message
  for message in "${messages[@]}"; do log "$message"; done
  exit 1
}

# find_missing COMMAND[:SOURCE]...: sets `messages` and `packages` of require_command.
find_missing() {
  local item command source
  messages=() packages=()
  for item; do
    command=${item%%:*} source=${item#*:}
    case $command in
    /*) [ ! -e "$command" ] || continue ;;
    *) ! command -v "$command" >/dev/null || continue ;;
    esac
    case $source in
    http*) messages+=("$command is missing: see $source") ;;
    *)
      messages+=("$command is missing: install the Debian package $source")
      [[ " ${packages[*]} " == *" $source "* ]] || packages+=("$source")
      ;;
    esac
  done
}

# project_version: prints the version of this project. The current folder is the repository.
project_version() { sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1; }

# architecture TARGET: prints the name that images and krew use for the architecture of a Rust target.
architecture() {
  case $1 in
  x86_64-*) echo amd64 ;;
  aarch64-*) echo arm64 ;;
  *) die "no image can be built for $1" ;;
  esac
}

# reproducible_tar ARGUMENT...: tar, whose archive does not depend on the owners, times and order of the files.
reproducible_tar() { tar --sort=name --format=gnu --owner=0 --group=0 --numeric-owner --mtime="@${SOURCE_DATE_EPOCH:-0}" "$@"; }

# free_port: prints a port of the loopback interface that nothing uses, below the range of outgoing connections.
free_port() {
  local port
  while port=$((20000 + RANDOM % 10000)); (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo "$port"
}

# image_archive ARCHIVE REFERENCE CONFIG FOLDER FILE...: writes an image of these files of the folder, without an image builder.
# CONFIG is the JSON object of its `config`. The format is that of `docker save`:
# https://github.com/moby/moby/blob/master/image/spec/v1.2.md
image_archive() {
  local archive=$1 reference=$2 config=$3 folder=$4 dir layer
  shift 4
  dir=$(mktemp -d)
  tar -C "$folder" --owner=0 --group=0 --mtime=@0 --sort=name -cf "$dir/layer.tar" "$@"
  layer=$(sha256sum "$dir/layer.tar" | cut -d' ' -f1)
  printf '{"architecture":"%s","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$(architecture "$(uname -m)-")" "$config" "$layer" >"$dir/config.json"
  printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$reference" >"$dir/manifest.json"
  tar -C "$dir" -cf "$archive" manifest.json config.json layer.tar
  rm -rf "$dir"
}

# check NAME COMMAND...: counts a test in `passed` or `failed`, and prints the output of the command if it failed.
check() {
  local name=$1 begin=$SECONDS output status
  shift
  # In a condition, bash would ignore failures in the middle of a function.
  set +e
  output=$(set -e; "$@" 2>&1)
  status=$?
  set -e
  if [ $status = 0 ]; then
    passed=$((passed + 1))
    echo "ok: $name ($((SECONDS - begin)) s)"
  else
    failed=$((failed + 1))
    echo "FAILED: $name"
    tail -n 40 <<<"$output"
  fi
}

# require_cluster: exits unless kubectl exists and reaches the cluster of the current kubeconfig.
require_cluster() {
  require_command kubectl:https://kubernetes.io/docs/tasks/tools
  local error
  error=$(kubectl version --request-timeout=10s 2>&1 >/dev/null) ||
    die "cannot reach the cluster of the current kubeconfig (KUBECONFIG=${KUBECONFIG:-~/.kube/config}): ${error##*$'\n'}"
}

# require_kubernetes MAJOR.MINOR: exits if the cluster of the current kubeconfig is older than this version.
require_kubernetes() {
  local reply
  # Every version of kubectl prints this reply unchanged, unlike that of `kubectl version`.
  reply=$(kubectl get --raw /version 2>&1) || die "cannot read the version of the cluster: ${reply##*$'\n'}"
  [[ $reply =~ \"gitVersion\":\ *\"(v([0-9]+)\.([0-9]+)[^\"]*)\" ]] || die "cannot find the version of the cluster in this reply: $reply"
  [ $((BASH_REMATCH[2] * 1000 + BASH_REMATCH[3])) -ge $((${1%.*} * 1000 + ${1#*.})) ] ||
    die "Kubernetes v$1 or newer is required, but the cluster has ${BASH_REMATCH[1]}. Nothing was changed."
}

# require_permission VERB RESOURCE: exits unless the current user may do this in the whole cluster.
require_permission() {
  [ "$(kubectl auth can-i "$1" "$2" 2>/dev/null)" = yes ] ||
    die "$(kubectl auth whoami -o jsonpath='{.status.userInfo.username}' 2>/dev/null || echo 'the current user') may not $1 $2 in this cluster: ask its administrator"
}

# kustomize_operator FOLDER IMAGE [NAMESPACES]: prints the objects of this kustomization with another image of the operator, and for
# config/namespaced with the namespaces that it is limited to. The current folder is the repository.
kustomize_operator() {
  local folder=$1 image=$2 namespaces=${3:-} default name tag='' digest='' overlay up
  default=$(sed -n 's/^ *image: //p' config/manager/manager.yaml)
  name=${image%%@*}
  [ "$name" = "$image" ] || digest=${image#*@}
  # A colon after the last slash begins a tag. One before it begins the port of a registry.
  if [[ ${name##*/} == *:* ]]; then tag=${name##*:} name=${name%:*}; fi
  [ -n "$tag$digest" ] || tag=latest
  overlay=$(mktemp -d)
  # kustomize accepts only relative paths of folders.
  up=$(cd "$overlay" && pwd -P | sed -E 's|/[^/]+|../|g')
  {
    printf 'resources: ["%s%s/%s"]\n' "$up" "$(pwd -P | cut -c2-)" "$folder"
    printf 'images: [{name: "%s", newName: "%s", ' "${default%:*}" "$name"
    if [ -n "$digest" ]; then printf 'digest: "%s"}]\n' "$digest"; else printf 'newTag: "%s"}]\n' "$tag"; fi
    if [ -n "$namespaces" ]; then
      printf 'patches:\n  - target: {kind: Deployment}\n    patch: |\n      - op: replace\n'
      printf '        path: /spec/template/spec/containers/0/env/0/value\n        value: "%s"\n' "$namespaces"
    fi
  } >"$overlay/kustomization.yaml"
  kubectl kustomize "$overlay" || {
    rm -r "$overlay"
    return 1
  }
  rm -r "$overlay"
}
