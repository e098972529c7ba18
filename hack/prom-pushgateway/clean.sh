#!/usr/bin/env bash
# Removes the metrics of a load test from the Pushgateway: clean.sh LOADTEST
# It removes the groups of all workers that a LoadTest of this name has ever had, whether or not their pods still exist.
# Prometheus keeps its history. Use it after the test has ended, because running workers push again.
# PUSHGATEWAY=NAMESPACE/SERVICE:PORT names the Pushgateway (default/prometheus-pushgateway:9091).
set -euo pipefail
# shellcheck source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
help_option "$@"

if [[ ! ${1:-} =~ ^[a-z0-9]([a-z0-9-]*[a-z0-9])?$ ]] || [ $# != 1 ]; then
  log "usage: clean.sh LOADTEST"
  exit 2
fi
pushgateway=${PUSHGATEWAY:-default/prometheus-pushgateway:9091}
proxy=/api/v1/namespaces/${pushgateway%%/*}/services/${pushgateway#*/}/proxy

require_cluster
metrics=$(kubectl get --raw "$proxy/metrics") || die "the Pushgateway $pushgateway does not respond; set PUSHGATEWAY to use another one"
# Every group has this metric. A pod's name consists of the test's name, the index of the worker, and five random characters.
groups=$(sed -nE 's/^push_time_seconds\{(.*,)?job="('"$1"'-[0-9]+-[a-z0-9]{5})".*/\2/p' <<<"$metrics" | sort)
for group in $groups; do
  kubectl delete --raw "$proxy/metrics/job/$group" >/dev/null
  echo "removed $group"
done
[ -n "$groups" ] || echo "The Pushgateway has no metrics of $1"
