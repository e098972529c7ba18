# shellcheck shell=bash
# Sourced by cluster.sh. The control plane: etcd, kube-apiserver, controller manager, scheduler, their certificates, and
# the keeping of processes. It serves both kinds: the whole cluster, and `control-plane`, which has no node.

# Carried in the environment of every process that is started: a stale pid file can then not mislead anyone.
MARK=ARTILLERY_LOCAL_CLUSTER

# alive PART
alive() {
  local pid
  pid=$(cat "$STATE/$1.pid" 2>/dev/null) && grep -qzsxF "$MARK=$STATE" "/proc/$pid/environ"
}

# start PART COMMAND...: unless it runs. It outlives the script and holds none of the caller's files open.
start() {
  local part=$1 enter=() pid
  shift
  alive "$part" && return
  [ "$KIND" = plane ] || enter=(nsenter --net="$RUN/ns/net" --mount="$RUN/ns/mnt")
  (
    for fd in /proc/self/fd/*; do
      fd=${fd##*/}
      if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi
    done
    cd /
    # -i: a proxy or a debugging variable of the caller has no business here
    exec env -i "$MARK=$STATE" PATH="$BIN:$PATH" HOME="$STATE" setsid "${enter[@]}" "$@" </dev/null >>"$STATE/$part.log" 2>&1
  ) &
  pid=$!
  disown "$pid" # or the shell reports its end
  echo "$pid" >"$STATE/$part.pid"
  until alive "$part" || [ ! -d "/proc/$pid" ]; do sleep 0.01; done
}

# What died before is not what `wait_for` watches for.
forget_dead() {
  local part
  for part in "${PARTS[@]}"; do alive "$part" || rm -f "$STATE/$part.pid"; done
}

# wait_for SECONDS WHAT COMMAND...: until the command succeeds; fails at once when a part has ended
wait_for() {
  local deadline=$((SECONDS + $1)) what=$2 part
  shift 2
  until "$@" >/dev/null 2>&1; do
    for part in "${PARTS[@]}"; do
      if [ -f "$STATE/$part.pid" ] && ! alive "$part"; then
        say "$part has ended; the last lines of $STATE/$part.log:"
        tail -n 5 "$STATE/$part.log" | cut -c1-300 >&2
        return 1
      fi
    done
    if [ $SECONDS -ge $deadline ]; then
      say "waited in vain for $what; see the logs in $STATE"
      return 1
    fi
    sleep 0.1
  done
}

# cert NAME SUBJECT [EXTENSION]: elliptic curves, because RSA keys for ten parties take seconds
cert() {
  [ ! -f "$PKI/$1.crt" ] || return 0
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$PKI/$1.key" -subj "$2" 2>/dev/null |
    openssl x509 -req -CA "$PKI/ca.crt" -CAkey "$PKI/ca.key" -CAcreateserial -days 3650 \
      -extfile <(printf '%s\n' "${3:-extendedKeyUsage=clientAuth}") -out "$PKI/$1.crt.new" 2>/dev/null
  mv "$PKI/$1.crt.new" "$PKI/$1.crt"
}

# kubeconfig FILE CERTIFICATE
kubeconfig() {
  [ ! -f "$1" ] || return 0
  (
    umask 077
    cat >"$1.new" <<K
apiVersion: v1
kind: Config
clusters:
- name: $NAME
  cluster: {server: "https://127.0.0.1:$API_PORT", certificate-authority-data: "$(base64 -w0 "$PKI/ca.crt")"}
users:
- name: $2
  user: {client-certificate-data: "$(base64 -w0 "$PKI/$2.crt")", client-key-data: "$(base64 -w0 "$PKI/$2.key")"}
contexts:
- name: $NAME
  context: {cluster: $NAME, user: $2}
current-context: $NAME
K
  )
  mv "$1.new" "$1"
}

# user NAME [GROUP]: prints the path of a kubeconfig
user() {
  [[ ${1:-} =~ ^[A-Za-z0-9:._@-]+$ && ${2:-x} =~ ^[A-Za-z0-9:._@-]+$ ]] || die "usage: user NAME [GROUP], of letters, digits and :._@-"
  [ -f "$PKI/ca.crt" ] || die "$TITLE is not up"
  local file="user-$1${2:+-$2}"
  cert "$file" "${2:+/O=$2}/CN=$1"
  kubeconfig "$STATE/$file.kubeconfig" "$file"
  echo "$STATE/$file.kubeconfig"
}

certificates() {
  mkdir -p -m 700 "$PKI"
  # Under another name until it is whole: an interrupted start must leave nothing that the next one takes for done.
  if [ ! -f "$PKI/ca.crt" ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$PKI/ca.key" \
      -out "$PKI/ca.crt.new" -subj "/CN=$NAME" -days 3650 2>/dev/null
    mv "$PKI/ca.crt.new" "$PKI/ca.crt"
  fi
  if [ ! -f "$PKI/sa.pub" ]; then
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out "$PKI/sa.key" 2>/dev/null
    openssl pkey -in "$PKI/sa.key" -pubout -out "$PKI/sa.pub.new"
    mv "$PKI/sa.pub.new" "$PKI/sa.pub"
  fi
  cert apiserver /CN=kube-apiserver "subjectAltName=IP:127.0.0.1,IP:$SERVICE_IP,IP:$NODE_IP,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
  cert admin /O=system:masters/CN=admin
  cert apiserver-kubelet-client /O=system:masters/CN=apiserver-kubelet-client
  cert kube-controller-manager /CN=system:kube-controller-manager
  cert kube-scheduler /CN=system:kube-scheduler
  kubeconfig "$STATE/admin.kubeconfig" admin
  kubeconfig "$STATE/kube-controller-manager.kubeconfig" kube-controller-manager
  kubeconfig "$STATE/kube-scheduler.kubeconfig" kube-scheduler
}

start_etcd() {
  local peer=http://127.0.0.1:$ETCD_PEER_PORT client=http://127.0.0.1:$ETCD_PORT
  # A cluster for tests has nothing to lose by a power cut, and each fsync costs milliseconds.
  start etcd "$BIN/etcd" --data-dir "$STATE/etcd" --unsafe-no-fsync \
    --listen-client-urls "$client" --advertise-client-urls "$client" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer"
}

start_apiserver() {
  # The reads of the parts of Kubernetes themselves would be most of the log, and nobody asks for them.
  cat >"$STATE/audit-policy.yaml" <<'K'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  verbs: [get, list, watch]
  users: [system:apiserver, system:kube-controller-manager, system:kube-scheduler, system:kube-proxy, system:coredns]
- level: None
  verbs: [get, list, watch]
  userGroups: [system:nodes, system:serviceaccounts:kube-system]
- level: Metadata
K
  local flags=()
  if [ "$KIND" = plane ]; then
    # no address but loopback, and nodes that tests only pretend: they stay free of taints that nobody would lift
    flags+=(--bind-address 127.0.0.1 --advertise-address 192.0.2.1 --endpoint-reconciler-type none
      --disable-admission-plugins TaintNodesByCondition)
  else
    # the policies stand for the webhooks by which service meshes put their containers into pods
    flags+=(--advertise-address "$NODE_IP" --feature-gates MutatingAdmissionPolicy=true
      --runtime-config admissionregistration.k8s.io/v1beta1=true)
  fi
  start kube-apiserver "$BIN/kube-apiserver" --etcd-servers "http://127.0.0.1:$ETCD_PORT" --secure-port "$API_PORT" \
    --tls-cert-file "$PKI/apiserver.crt" --tls-private-key-file "$PKI/apiserver.key" --client-ca-file "$PKI/ca.crt" \
    --service-account-key-file "$PKI/sa.pub" --service-account-signing-key-file "$PKI/sa.key" \
    --service-account-issuer https://kubernetes.default.svc --service-cluster-ip-range "$SERVICE_CIDR" \
    --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --allow-privileged \
    --kubelet-client-certificate "$PKI/apiserver-kubelet-client.crt" \
    --kubelet-client-key "$PKI/apiserver-kubelet-client.key" --kubelet-preferred-address-types InternalIP \
    --max-requests-inflight 3000 --max-mutating-requests-inflight 1500 \
    --audit-policy-file "$STATE/audit-policy.yaml" --audit-log-path "$STATE/audit.log" --audit-log-mode blocking \
    --audit-log-maxsize 100000 "${flags[@]}"
}

start_controllers() {
  local flags=() limits=(--kube-api-qps 500 --kube-api-burst 1000 --leader-elect=false --secure-port 0)
  # nor does anybody else remove finished pods: of 20,000 it would leave 12,500
  [ "$KIND" != plane ] || flags+=(--controllers '*,-node-lifecycle-controller' --terminated-pod-gc-threshold 0)
  start kube-controller-manager "$BIN/kube-controller-manager" --kubeconfig "$STATE/kube-controller-manager.kubeconfig" \
    --service-account-private-key-file "$PKI/sa.key" --root-ca-file "$PKI/ca.crt" --use-service-account-credentials \
    --concurrent-job-syncs 20 "${limits[@]}" "${flags[@]}"
  start kube-scheduler "$BIN/kube-scheduler" --kubeconfig "$STATE/kube-scheduler.kubeconfig" "${limits[@]}"
}

# A node is Ready before the first namespace has its service account, and until then pods are refused.
has_service_account() { admin get serviceaccount default; }
api_ready() { admin get --raw /readyz; }

start_plane() {
  certificates
  start_etcd
  start_apiserver
  wait_for 60 "kube-apiserver" api_ready || return 1
  start_controllers
}

# The pids of everything that belongs to the cluster, whatever the pid files say.
processes() {
  local namespace inode
  {
    grep -lzsxF "$MARK=$STATE" /proc/[0-9]*/environ | cut -d/ -f3
    if [ "$KIND" = full ]; then
      for namespace in net mnt; do
        is_namespace "$namespace" || continue
        inode=$(stat -Lc %i "$RUN/ns/$namespace")
        find /proc/[0-9]*/ns/"$namespace" -lname "*:\[$inode\]" 2>/dev/null | cut -d/ -f3
      done
      cgroups | while read -r dir; do cat "$dir/cgroup.procs" 2>/dev/null; done
    fi
  } | sort -un || true
}

kill_all() {
  local pids deadline=$((SECONDS + 30))
  while pids=$(processes) && [ -n "$pids" ]; do
    [ $SECONDS -lt $deadline ] || die "these processes do not end: ${pids//$'\n'/ }"
    # shellcheck disable=SC2086 # a list of numbers
    kill -KILL $pids 2>/dev/null || true
    sleep 0.1
  done
}

# The logs stay, for whoever wants to know what went wrong; the next start from nothing removes them.
forget() {
  [ -d "$STATE" ] || return 0
  find "$STATE" -mindepth 1 -maxdepth 1 ! -name '*.log' -exec rm -rf --one-file-system {} +
}

free_port() {
  local port
  # below the range from which the kernel takes ports for outgoing connections
  while port=$((20000 + RANDOM % 10000)); (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo "$port"
}

plane_is_up() {
  local part
  for part in "${PARTS[@]}"; do alive "$part" || return 1; done
  api_ready >/dev/null 2>&1
}

plane_down() {
  kill_all
  forget
}

plane_bring_up() {
  if [ ! -f "$STATE/ports" ]; then
    echo "ETCD_PORT=$(free_port) ETCD_PEER_PORT=$(free_port) API_PORT=$(free_port)" >"$STATE/ports"
  fi
  plane_ports
  forget_dead
  start_plane || return 1
  wait_for 30 "the default service account" has_service_account
}

plane_ports() {
  [ ! -f "$STATE/ports" ] || read -r ETCD_PORT ETCD_PEER_PORT API_PORT < <(tr -d 'A-Z_=' <"$STATE/ports")
}

plane_up() {
  need_tools openssl flock:util-linux setsid:util-linux
  binaries "${PLANE[@]}"
  if plane_is_up; then
    echo "$TITLE is already up"
    return
  fi
  # A second try takes other ports: one may have been taken by somebody else in between.
  for _ in 1 2 3; do
    [ -d "$STATE/etcd" ] || { plane_down && rm -f "$STATE"/*.log; }
    if plane_bring_up; then
      echo "$TITLE is up after $(seconds_since "$BEGIN") s"
      return
    fi
    say "starting it anew"
    plane_down
  done
  die "$TITLE did not come up"
}
