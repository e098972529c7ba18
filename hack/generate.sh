#!/usr/bin/env bash
# Writes the files that are generated from the Rust types: generate.sh [--check]
# With --check it changes nothing, and fails if a file is out of date.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_option "$@"
[ "${1:---check}" = --check ] || no_arguments "$@"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
require_command cargo:https://rustup.rs

crdgen=(cargo run --quiet -p loadtest-api --bin crdgen --)
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
"${crdgen[@]}" >"$new/crd"
"${crdgen[@]}" --reference >"$new/reference"
while read -r generated file; do
  if [ "${1:-}" != --check ]; then
    cp "$new/$generated" "$file"
    chmod 644 "$file"
  elif ! diff -u "$file" "$new/$generated"; then
    die "$file does not match the Rust types: run make manifests"
  fi
done <<'FILES'
crd config/crd/loadtest.artillery.io_loadtests.yaml
reference docs/user/reference.md
FILES
