#!/usr/bin/env bash
# Prints the operator as one file, for `kubectl apply -f`: install-yaml.sh >install.yaml. It needs kubectl, and no cluster.
# Environment variables:
#   IMG   the operator's image, if it is not the one of config/manager
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
no_arguments "$@"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
require_command kubectl:https://kubernetes.io/docs/tasks/tools
IMG=${IMG:-$(sed -n 's/^ *image: //p' config/manager/manager.yaml)}
objects=$(kustomize_operator config/default "$IMG")
cat <<INSTALL
# The Artillery operator, image $IMG. It needs Kubernetes 1.30 or newer.
# Install or update it: kubectl apply -f install.yaml
# Remove it, its CRD and all load tests: kubectl delete -f install.yaml
$objects
INSTALL
