#!/usr/bin/env bash
# Builds Helm 3 or Helm 4 from source, and prints the path of the program: helm.sh 3|4
# The program is kept in the cache folder.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_option "$@"
case ${1:-} in
3) module=helm.sh/helm/v3/cmd/helm@v3.22.0 ;;
4) module=helm.sh/helm/v4/cmd/helm@v4.3.1 ;;
*) die "the argument must be 3 or 4 (see helm.sh --help)" ;;
esac
require_command go:https://go.dev/doc/install
folder=${XDG_CACHE_HOME:-$HOME/.cache}/artillery-operator/helm-${module##*@}
if [ ! -x "$folder/helm" ]; then
  log "building Helm ${module##*@}; this takes some minutes the first time"
  # In a folder of its own first, so that an interrupted build leaves no program.
  new=$(mktemp -d)
  GOBIN=$new GOFLAGS='' go install -trimpath "$module" >&2
  mkdir -p "$folder"
  mv "$new/helm" "$folder/helm"
  rmdir "$new"
fi
echo "$folder/helm"
