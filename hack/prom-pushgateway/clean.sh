#!/usr/bin/env bash
# Removes a load test's metrics from the Pushgateway, which itself forgets nothing: the groups of all workers that a
# LoadTest of this name has ever had, also when their pods are gone. Prometheus keeps its history.
# Not while the test runs, for its workers would push again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=../kubectl.sh
. hack/kubectl.sh

if [[ ! ${1:-} =~ ^[a-z0-9]([a-z0-9-]*[a-z0-9])?$ ]] || [ $# != 1 ]; then
  echo "usage: clean.sh LOADTEST; PUSHGATEWAY=NAMESPACE/SERVICE:PORT if it is not default/prometheus-pushgateway:9091" >&2
  exit 2
fi
pushgateway=${PUSHGATEWAY:-default/prometheus-pushgateway:9091}
proxy=/api/v1/namespaces/${pushgateway%%/*}/services/${pushgateway#*/}/proxy

need_cluster
metrics=$(kubectl get --raw "$proxy/metrics") || fail "the Pushgateway $pushgateway does not answer; PUSHGATEWAY names another one"
# Each group has this metric. The name of a worker's pod is the test's, the worker's number, and five random characters.
groups=$(sed -nE 's/^push_time_seconds\{(.*,)?job="('"$1"'-[0-9]+-[a-z0-9]{5})".*/\2/p' <<<"$metrics" | sort)
for group in $groups; do
  kubectl delete --raw "$proxy/metrics/job/$group" >/dev/null
  echo "removed $group"
done
[ -n "$groups" ] || echo "the Pushgateway has nothing of $1"
