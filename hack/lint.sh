#!/usr/bin/env bash
# Format, code, generated files, shell scripts, licences. Changes nothing. Run by `make lint`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

need() { # TOOL [PACKAGE]
  command -v "$1" >/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update -q && apt-get install -qy --no-install-recommends "${2:-$1}"; } >&2 </dev/null && return
  fi
  echo "lint.sh: $1 is missing" >&2
  exit 1
}
need cargo
need jq
need shellcheck

echo "== format"
cargo fmt --all --check
echo "== clippy"
cargo clippy --workspace --all-targets --quiet -- -D warnings
# --all-targets leaves out what plain `cargo test` does not run.
cargo clippy --test faults --test bench --test bench-node --quiet -- -D warnings
echo "== generated files"
hack/generate.sh --check
echo "== layers"
hack/check-layers.sh
echo "== tests named in docs/invariants.md"
# shellcheck disable=SC2016 # the backticks are Markdown's
grep -oE '`[a-z_/.-]+[.]rs::[a-z0-9_]+`' docs/invariants.md | tr -d '`' | while IFS= read -r test; do
  grep -qE "fn ${test##*::}\\b" "${test%%::*}" || { echo "lint.sh: docs/invariants.md names $test, which does not exist" >&2; exit 1; }
done
echo "== shell scripts"
# What a script sources is checked with it.
git ls-files --stage | awk '$1 == 100755 {print $4}' | xargs shellcheck -x -P SCRIPTDIR
echo "== alerts and dashboard"
# Not installed on a developer's machine: the package brings a server along.
[ "${CI:-}" != true ] || need promtool prometheus
if command -v promtool >/dev/null; then hack/check-prometheus.sh; else echo "left out: promtool is missing"; fi
echo "== licences"
# A dependency is fine if one of these covers it, alone or in a choice with others.
allowed='["Apache-2.0","Apache-2.0 WITH LLVM-exception","BSD-2-Clause","BSD-3-Clause","CC0-1.0","CDLA-Permissive-2.0","ISC","MIT","MIT-0","Unicode-3.0","Unlicense","Zlib","0BSD"]'
bad=$(cargo metadata --format-version 1 --locked | jq -r --argjson allowed "$allowed" '
  def fine: gsub("[()]"; "") | split(" OR ") | any(split(" AND ") | all(. as $l | $allowed | index($l)));
  .packages[] | select((.license // "none" | gsub(" */ *"; " OR ") | fine) | not) | "\(.name) \(.version): \(.license // "none")"')
[ -z "$bad" ] || { printf 'lint.sh: these licences are not on the list of those allowed:\n%s\n' "$bad" >&2; exit 1; }
echo "lint: all is well"
