#!/usr/bin/env bash
# Checks format, code, generated files, layers, shell scripts, alerts and licenses. Changes nothing. Run by `make lint`.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
no_arguments "$@"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
require_command cargo:https://rustup.rs jq shellcheck

echo "== format"
cargo fmt --all --check
echo "== clippy"
cargo clippy --workspace --all-targets --quiet -- -D warnings
# --all-targets omits the targets that plain `cargo test` does not run.
cargo clippy --test faults --test bench --test bench-node --quiet -- -D warnings
echo "== generated files"
hack/generate.sh --check
echo "== versions"
hack/set-version.sh --check
echo "== layers"
hack/check-layers.sh
echo "== tests named in the docs"
# shellcheck disable=SC2016 # backticks of Markdown
grep -oE '`[a-z_/.-]+[.]rs::[a-z0-9_]+`' docs/invariants.md docs/operator/{your-cluster,gitops}.md | tr -d '`' | while IFS=: read -r page test; do
  grep -qE "fn ${test##*::}\\b" "${test%%::*}" || die "$page names $test, which does not exist"
done
echo "== shell scripts"
# -x also checks the files that a script sources.
git ls-files --stage | awk '$1 == 100755 {print $4}' | xargs shellcheck -x -P SCRIPTDIR
echo "== alerts and dashboard"
# The Debian package of promtool also installs a server, so it is required only in continuous integration.
[ "${CI:-}" != true ] || require_command promtool:prometheus
if command -v promtool >/dev/null; then hack/check-prometheus.sh; else echo "skipped: promtool is missing"; fi
echo "== licenses"
# A dependency is allowed if one of these licenses covers it, alone or as one of several choices.
allowed='["Apache-2.0","Apache-2.0 WITH LLVM-exception","BSD-2-Clause","BSD-3-Clause","CC0-1.0","CDLA-Permissive-2.0","ISC","MIT","MIT-0","Unicode-3.0","Unlicense","Zlib","0BSD"]'
bad=$(cargo metadata --format-version 1 --locked | jq -r --argjson allowed "$allowed" '
  def fine: gsub("[()]"; "") | split(" OR ") | any(split(" AND ") | all(. as $l | $allowed | index($l)));
  .packages[] | select((.license // "none" | gsub(" */ *"; " OR ") | fine) | not) | "\(.name) \(.version): \(.license // "none")"')
[ -z "$bad" ] || die "the licenses of these dependencies are not allowed:
$bad"
echo "lint: all checks passed"
