#!/usr/bin/env bash
# Prints the folder of Tekton's Go module, which contains the CRDs of Tekton. The tests validate the example for Tekton with them.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
no_arguments "$@"
require_command go:golang-go jq
VERSION=v1.6.0
cd /
go mod download -json "github.com/tektoncd/pipeline@$VERSION" | jq -er .Dir
