# shellcheck shell=bash
# Sourced by cluster.sh. The programs of the cluster: those on PATH if their version fits, otherwise built with Go.

K8S_VERSION=1.34.4
SERVERS=(etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet coredns)
PLANE=(etcd kube-apiserver kube-controller-manager kube-scheduler kubectl)
CACHE=${XDG_CACHE_HOME:-${HOME:?}/.cache}/artillery-operator
# The hash of the sources is part of the path, so a changed plugin or version is always built again.
SOURCES_HASH=$(cd "$HERE" && cat main.go pause/main.go go.mod go.sum | sha256sum | cut -c1-12)
BIN=$CACHE/kubernetes-$K8S_VERSION-$SOURCES_HASH/bin

# binaries PROGRAM...: links or builds each program that is missing in $BIN.
binaries() {
  local program missing=()
  for program; do [ -x "$BIN/$program" ] || missing+=("$program"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  require_command flock:util-linux
  mkdir -p "$BIN"
  exec 8>"$BIN.lock"
  flock -n 8 || { log "waiting for another build"; flock 8; }
  local build=()
  for program in "${missing[@]}"; do
    [ ! -x "$BIN/$program" ] || continue # the other build made it
    if fits_on_path "$program"; then
      ln -sfn "$(type -P "$program")" "$BIN/$program"
      log "using $(type -P "$program")"
    else
      build+=("$program")
    fi
  done
  [ ${#build[@]} -eq 0 ] || build "${build[@]}"
  exec 8>&-
}

fits_on_path() {
  local version
  type -P "$1" >/dev/null || return 1
  case $1 in
  kubectl) version=$(kubectl version --client 2>/dev/null) ;;
  coredns) version=$(coredns -version 2>/dev/null) ;;
  pause) return 1 ;; # other programs have the same name
  *) version=$("$1" --version 2>/dev/null) ;;
  esac || return 1
  case $1 in
  etcd) [[ $version == *"etcd Version: 3.6."* ]] ;;
  coredns) [[ $version == *CoreDNS-1.1[1-9].* ]] ;;
  *) [[ $version == *" v${K8S_VERSION%.*}."* ]] ;;
  esac
}

build() {
  local packages=() program
  require_command "go:https://go.dev/dl (1.21 or later)"
  local have
  have=$(cd / && GOTOOLCHAIN=local go env GOVERSION)
  # Go 1.21 and later downloads the version that go.mod requires.
  [[ $have =~ ^go1\.([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -ge 21 ] || [[ $have == devel* ]] ||
    die "building Kubernetes needs Go 1.21 or later, but $(command -v go) is $have: see https://go.dev/dl"
  for program; do
    case $program in
    pause) packages+=(./pause) ;;
    kubectl) packages+=(k8s.io/kubernetes/cmd/kubectl) ;;
    *) [[ " ${packages[*]} " == *" . "* ]] || packages+=(.) ;;
    esac
  done

  local new=$BIN.new v=k8s.io/component-base/version stamp
  rm -rf "$new" && mkdir "$new"
  # Without these variables the server has the version v0.0.0, which clients reject.
  stamp="-X $v.gitVersion=v$K8S_VERSION -X $v.gitMajor=1 -X $v.gitMinor=$(cut -d. -f2 <<<"$K8S_VERSION")"
  stamp+=" -X $v.gitCommit=unknown -X $v.buildDate=1970-01-01T00:00:00Z"
  export CGO_ENABLED=0 GOFLAGS=-mod=readonly GOWORK=off
  cd "$HERE"
  progress "reading the sources of Kubernetes $K8S_VERSION" "modules downloaded" "" go list -deps "${packages[@]}"
  local total
  total=$(grep -c . "$BIN.out")
  progress "building Kubernetes $K8S_VERSION" "packages" "$total" \
    go build -v -trimpath -ldflags "-s -w $stamp" -o "$new/" "${packages[@]}"
  cd - >/dev/null

  [ ! -e "$new/local-cluster" ] || mv "$new/local-cluster" "$new/kubernetes"
  [ ! -e "$new/pause" ] || pause_image "$new/pause" "$new/pause.tar"
  # The archive is moved before the program: if the program exists, so does the archive.
  for program in "$new"/*.tar "$new"/*; do [ ! -e "$program" ] || mv -f "$program" "$BIN/"; done
  for program; do
    [ -e "$BIN/$program" ] || ln -sfn kubernetes "$BIN/$program"
  done
  rm -rf "$new" "$BIN.out" "$BIN.err"
  log "built in $BIN"
}

# progress WHAT UNIT TOTAL COMMAND...: runs the command, and reports its progress by the number of lines of its stderr.
progress() {
  local what=$1 unit=$2 total=$3 every=15 start=$SECONDS reported=$SECONDS pid line
  shift 3
  [ ! -t 2 ] || every=2
  "$@" >"$BIN.out" 2>"$BIN.err" 8>&- &
  pid=$!
  # shellcheck disable=SC2064 # a background job of a script ignores Ctrl-C, and would continue
  trap "kill $pid 2>/dev/null || true" EXIT
  while [ -d "/proc/$pid" ]; do
    sleep 0.3
    [ $((SECONDS - reported)) -ge $every ] || continue
    reported=$SECONDS
    line="$what: $(wc -l <"$BIN.err")${total:+ of $total} $unit, $(((SECONDS - start) / 60))m$(((SECONDS - start) % 60))s"
    if [ -t 2 ]; then printf '\r\033[K%s' "$line" >&2; else log "$line"; fi
  done
  [ ! -t 2 ] || printf '\r\033[K' >&2
  trap - EXIT
  wait "$pid" || { tail -n 20 "$BIN.err" >&2; die "$what failed: the last lines are above, the whole output is in $BIN.err"; }
}

# pause_image PROGRAM ARCHIVE: makes an image of one file, without an image builder.
pause_image() {
  local dir layer
  dir=$(mktemp -d)
  tar -C "$(dirname "$1")" --owner=0 --group=0 --mtime=@0 --sort=name -cf "$dir/layer.tar" "$(basename "$1")"
  layer=$(sha256sum "$dir/layer.tar" | cut -d' ' -f1)
  printf '{"architecture":"%s","os":"linux","config":{"Entrypoint":["/pause"],"User":"65535:65535"},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$(go env GOARCH)" "$layer" >"$dir/config.json"
  printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$PAUSE_IMAGE" >"$dir/manifest.json"
  tar -C "$dir" -cf "$2" manifest.json config.json layer.tar
  rm -rf "$dir"
}
