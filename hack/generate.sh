#!/usr/bin/env bash
# Writes the files that are generated from the Rust types. With --check it changes nothing and fails on a difference.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v cargo >/dev/null || { echo "generate.sh: cargo is missing: see https://rustup.rs" >&2; exit 1; }

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
    echo "generate.sh: $file does not match the Rust types: run make manifests" >&2
    exit 1
  fi
done <<'FILES'
crd config/crd/loadtest.artillery.io_loadtests.yaml
reference docs/user/reference.md
FILES
