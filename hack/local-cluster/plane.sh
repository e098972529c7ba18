# shellcheck shell=bash
# Sourced by cluster.sh. The control plane: etcd, kube-apiserver, controller manager, scheduler, their certificates, and
# functions to start and stop processes. Both kinds use it: the whole cluster, and `control-plane`, which has no node.

# Every started process has this variable in its environment, so a stale pid file does no harm.
MARK=ARTILLERY_LOCAL_CLUSTER

# alive PART: whether the process of a component runs.
alive() {
  local pid
  pid=$(cat "$STATE/$1.pid" 2>/dev/null) && grep -qzsxF "$MARK=$STATE" "/proc/$pid/environ"
}

# start PART COMMAND...: starts a component unless it runs. It outlives the script, and does not inherit open files.
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
    # -i: variables of the caller, such as a proxy, must not affect the cluster.
    exec env -i "$MARK=$STATE" PATH="$BIN:$PATH" HOME="$STATE" setsid "${enter[@]}" "$@" </dev/null >>"$STATE/$part.log" 2>&1
  ) &
  pid=$!
  disown "$pid" # otherwise the shell would report its end
  echo "$pid" >"$STATE/$part.pid"
  until alive "$part" || [ ! -d "/proc/$pid" ]; do sleep 0.01; done
}

# forget_dead: removes stale pid files, so that `wait_for` does not report an earlier exit.
forget_dead() {
  local part
  for part in "${PARTS[@]}"; do alive "$part" || rm -f "$STATE/$part.pid"; done
}

# wait_for SECONDS WHAT COMMAND...: waits until the command succeeds. Fails as soon as a component has ended.
wait_for() {
  local deadline=$((SECONDS + $1)) what=$2 part
  shift 2
  until "$@" >/dev/null 2>&1; do
    for part in "${PARTS[@]}"; do
      if [ -f "$STATE/$part.pid" ] && ! alive "$part"; then
        log "$part has exited; the last lines of $STATE/$part.log:"
        tail -n 5 "$STATE/$part.log" | cut -c1-300 >&2
        return 1
      fi
    done
    if [ $SECONDS -ge $deadline ]; then
      log "timed out waiting for $what; see the logs in $STATE"
      return 1
    fi
    sleep 0.1
  done
}

# cert NAME SUBJECT [EXTENSION]: creates a key and a certificate, with elliptic curves because RSA keys take seconds.
cert() {
  [ ! -f "$PKI/$1.crt" ] || return 0
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$PKI/$1.key" -subj "$2" 2>/dev/null |
    openssl x509 -req -CA "$PKI/ca.crt" -CAkey "$PKI/ca.key" -CAcreateserial -days 3650 \
      -extfile <(printf '%s\n' "${3:-extendedKeyUsage=clientAuth}") -out "$PKI/$1.crt.new" 2>/dev/null
  mv "$PKI/$1.crt.new" "$PKI/$1.crt"
}

# kubeconfig FILE CERTIFICATE: writes a kubeconfig.
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

# user NAME [GROUP]: creates a certificate and a kubeconfig, and prints the path of the kubeconfig.
user() {
  [[ ${1:-} =~ ^[A-Za-z0-9:._@-]+$ && ${2:-x} =~ ^[A-Za-z0-9:._@-]+$ ]] || die "usage: user NAME [GROUP] (letters, digits and :._@-)"
  [ -f "$PKI/ca.crt" ] || die "$TITLE is not up"
  local file="user-$1${2:+-$2}"
  cert "$file" "${2:+/O=$2}/CN=$1"
  kubeconfig "$STATE/$file.kubeconfig" "$file"
  echo "$STATE/$file.kubeconfig"
}

certificates() {
  mkdir -p -m 700 "$PKI"
  # A file gets its final name when it is complete, so an interrupted start leaves no incomplete file.
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
  # The data of a test cluster need not survive a power failure, and each fsync takes milliseconds. The benchmark of tenants needs more
  # than the 2 GiB that etcd allows by default.
  start etcd "$BIN/etcd" --data-dir "$STATE/etcd" --unsafe-no-fsync --quota-backend-bytes 8589934592 \
    --listen-client-urls "$client" --advertise-client-urls "$client" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer"
}

start_apiserver() {
  # Reads by the components of Kubernetes are omitted, because they would be most of the log.
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
    # Only the loopback interface is used. Tests simulate the nodes, so nothing would remove the taints of new nodes.
    flags+=(--bind-address 127.0.0.1 --advertise-address 192.0.2.1 --endpoint-reconciler-type none
      --disable-admission-plugins TaintNodesByCondition)
  else
    flags+=(--advertise-address "$NODE_IP")
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
  # The garbage collector of finished pods is off: it would delete all but 12,500.
  [ "$KIND" != plane ] || flags+=(--controllers '*,-node-lifecycle-controller' --terminated-pod-gc-threshold 0)
  start kube-controller-manager "$BIN/kube-controller-manager" --kubeconfig "$STATE/kube-controller-manager.kubeconfig" \
    --service-account-private-key-file "$PKI/sa.key" --root-ca-file "$PKI/ca.crt" --use-service-account-credentials \
    --concurrent-job-syncs 20 "${limits[@]}" "${flags[@]}"
  start kube-scheduler "$BIN/kube-scheduler" --kubeconfig "$STATE/kube-scheduler.kubeconfig" "${limits[@]}"
}

# A node can be Ready before the default service account exists. Until then pods are rejected.
has_service_account() { admin get serviceaccount default; }
api_ready() { admin get --raw /readyz; }

start_plane() {
  certificates
  start_etcd
  start_apiserver
  wait_for 60 "kube-apiserver" api_ready || return 1
  start_controllers
}

# processes: prints the pids of all processes of the cluster, independently of the pid files.
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
    [ $SECONDS -lt $deadline ] || die "these processes cannot be killed: ${pids//$'\n'/ }"
    # shellcheck disable=SC2086 # a list of numbers
    kill -KILL $pids 2>/dev/null || true
    sleep 0.1
  done
}

# forget: removes the state of the cluster except the logs, which the next `up` of a new cluster removes.
forget() {
  [ -d "$STATE" ] || return 0
  find "$STATE" -mindepth 1 -maxdepth 1 ! -name '*.log' -exec rm -rf --one-file-system {} +
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
  require_command openssl flock:util-linux setsid:util-linux
  binaries "${PLANE[@]}"
  if plane_is_up; then
    echo "$TITLE is already up"
    return
  fi
  # Another attempt uses other ports, because another process may have taken one in between.
  for _ in 1 2 3; do
    [ -d "$STATE/etcd" ] || { plane_down && rm -f "$STATE"/*.log; }
    if plane_bring_up; then
      echo "$TITLE is up after $(seconds_since "$BEGIN") s"
      return
    fi
    log "restarting $TITLE with other ports"
    plane_down
  done
  die "$TITLE did not start: see the logs in $STATE"
}
