# shellcheck shell=bash
# Sourced by cluster.sh. The programs of the cluster: those on PATH if their version fits, otherwise built with Go.

DEFAULT_VERSION=1.37.2
K8S_VERSION=${KUBERNETES_VERSION:-$DEFAULT_VERSION}
PLANE_SERVERS=(kube-apiserver kube-controller-manager kube-scheduler)
SERVERS=(etcd "${PLANE_SERVERS[@]}" kube-proxy kubelet coredns containerd ctr containerd-shim-runc-v2)
PLANE=(etcd "${PLANE_SERVERS[@]}" kubectl)
CACHE=${XDG_CACHE_HOME:-${HOME:?}/.cache}/artillery-operator
# The hash of the sources is part of the path, so a changed plugin or version is always built again.
SOURCES_HASH=$(cd "$HERE" && cat ./*.go pause/main.go go.mod go.sum | sha256sum | cut -c1-12)
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
    elif [ "$K8S_VERSION" != "$DEFAULT_VERSION" ] && [[ " ${PLANE_SERVERS[*]} " != *" $program "* ]]; then
      # The other programs work with every supported version.
      env -u KUBERNETES_VERSION "$HERE/cluster.sh" build
      ln -sfn "${BIN/-$K8S_VERSION-/-$DEFAULT_VERSION-}/$program" "$BIN/$program"
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
  pause | containerd-shim-runc-v2) return 1 ;; # other programs have the first name, and the second must fit containerd
  *) version=$("$1" --version 2>/dev/null) ;;
  esac || return 1
  case $1 in
  etcd) [[ $version == *"etcd Version: 3.7."* ]] ;;
  coredns) [[ $version == *CoreDNS-1.1[1-9].* ]] ;;
  containerd | ctr) [[ $version == *" v2."[2-9].* ]] ;;
  *) [[ $version == *" v${K8S_VERSION%.*}."* ]] ;;
  esac
}

# package_of PROGRAM: prints the package that contains the program.
package_of() {
  case $1 in
  pause) echo ./pause ;;
  kubectl) echo k8s.io/kubernetes/cmd/kubectl ;;
  containerd-shim-runc-v2) echo github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2 ;;
  *) echo . ;;
  esac
}

build() {
  local packages program
  require_command "go:https://go.dev/dl (1.21 or later)"
  local have
  have=$(cd / && GOTOOLCHAIN=local go env GOVERSION)
  # Go 1.21 and later downloads the version that go.mod requires.
  [[ $have =~ ^go1\.([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -ge 21 ] || [[ $have == devel* ]] ||
    die "building Kubernetes needs Go 1.21 or later, but $(command -v go) is $have: see https://go.dev/dl"
  mapfile -t packages < <(for program; do package_of "$program"; done | sort -u)

  local new=$BIN.new v=k8s.io/component-base/version stamp module=$HERE mode=readonly compile=all=-dwarf=false
  rm -rf "$new" && mkdir "$new"
  # Without these variables the server has the version v0.0.0, which clients reject.
  stamp="-X $v.gitVersion=v$K8S_VERSION -X $v.gitMajor=1 -X $v.gitMinor=$(cut -d. -f2 <<<"$K8S_VERSION")"
  stamp+=" -X $v.gitCommit=unknown -X $v.buildDate=1970-01-01T00:00:00Z"
  # The garbage collector takes a tenth of the time of a compilation, and one process seldom needs more than 1 GiB without it.
  export CGO_ENABLED=0 GOFLAGS='' GOWORK=off GOGC=off GOMEMLIMIT=2GiB
  if [ "$K8S_VERSION" != "$DEFAULT_VERSION" ]; then
    # Without inlining the compilation takes a fifth less time, and the servers are fast enough for the integration tests.
    module=$BIN.module mode=mod compile+=" -l"
    other_module "$module"
  fi
  # Debug information would take a tenth of the time. The tags leave out snapshotters that need devices.
  GOFLAGS="-mod=$mode -trimpath '-gcflags=$compile' -tags=no_devmapper,no_zfs,no_tracing"
  cd "$module"
  progress "reading the sources of Kubernetes $K8S_VERSION" "modules downloaded" "" go list -deps "${packages[@]}"
  local total
  total=$(grep -c . "$BIN.out")
  progress "building Kubernetes $K8S_VERSION" "packages" "$total" \
    go build -v -ldflags "-s -w $stamp" -o "$new/" "${packages[@]}"
  cd - >/dev/null

  [ ! -e "$new/local-cluster" ] || mv "$new/local-cluster" "$new/kubernetes"
  [ ! -e "$new/pause" ] ||
    image_archive "$new/pause.tar" "$PAUSE_IMAGE" '{"Entrypoint":["/pause"],"User":"65535:65535"}' "$new" pause
  # The archive is moved before the program: if the program exists, so does the archive.
  for program in "$new"/*.tar "$new"/*; do [ ! -e "$program" ] || mv -f "$program" "$BIN/"; done
  for program; do
    [ -e "$BIN/$program" ] || ln -sfn kubernetes "$BIN/$program"
  done
  rm -rf "$new" "$BIN.out" "$BIN.err" "$BIN.module"
  log "built in $BIN"
}

# other_module FOLDER: makes the Go module of a control plane of version $K8S_VERSION. Its requirements and checksums are those
# that this version of Kubernetes itself is built with.
other_module() {
  local kubernetes release=v0.${K8S_VERSION#1.}
  rm -rf "$1" && mkdir -p "$1"
  cp "$HERE/main.go" "$HERE/plane.go" "$1"
  kubernetes=$(cd "$1" && go mod download -json "k8s.io/kubernetes@v$K8S_VERSION" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  [ -d "$kubernetes" ] || die "the Go module proxy does not have k8s.io/kubernetes v$K8S_VERSION"
  {
    printf 'module local-cluster\n'
    sed -n '/^go /p; /^godebug /p' "$kubernetes/go.mod"
    printf 'require k8s.io/kubernetes v%s\n' "$K8S_VERSION"
    # Kubernetes replaces its own modules by folders of its repository. They are published with the version of the release.
    sed -n '/^require (/,/^)/p' "$kubernetes/go.mod"
    # No server needs the examples, and the module proxy does not have them for every version.
    sed -n "s|^\t\(k8s.io/sample-[^ ]*\) => \./staging/.*|replace \1 => ./none/\1|p; t
      s|^\t\(k8s.io/[^ ]*\) => \./staging/.*|replace \1 => \1 $release|p" "$kubernetes/go.mod"
  } >"$1/go.mod"
  local example
  while read -r example; do
    mkdir -p "$1/none/$example"
    echo "module $example" >"$1/none/$example/go.mod"
  done < <(sed -n 's|.* => ./none/||p' "$1/go.mod")
  install -m 644 "$kubernetes/go.sum" "$1/go.sum"
}

# progress WHAT UNIT TOTAL COMMAND...: runs the command, and reports its progress by the number of lines of its stderr.
progress() {
  local what=$1 unit=$2 total=$3 every=15 start=$SECONDS reported=$SECONDS pid line count
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
    count=$(wc -l <"$BIN.err")
    line="$what: $count${total:+ of $total} $unit, $(((SECONDS - start) / 60))m$(((SECONDS - start) % 60))s"
    # Packages are compiled at an almost constant rate.
    [ -z "$total" ] || [ "$count" = 0 ] || line+=", about $((((total - count) * (SECONDS - start) / count + 59) / 60)) min left"
    if [ -t 2 ]; then printf '\r\033[K%s' "$line" >&2; else log "$line"; fi
  done
  [ ! -t 2 ] || printf '\r\033[K' >&2
  trap - EXIT
  wait "$pid" || { tail -n 20 "$BIN.err" >&2; die "$what failed: the last lines are above, the whole output is in $BIN.err"; }
}
