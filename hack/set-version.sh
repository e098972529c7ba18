#!/usr/bin/env bash
# Sets the version of the project everywhere, and begins its section in CHANGELOG.md: set-version.sh VERSION
# With --check instead of VERSION it changes nothing, and fails if a file has another version than Cargo.toml.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_option "$@"
[ $# = 1 ] || die "usage: set-version.sh VERSION, such as set-version.sh 0.2.0 (see set-version.sh --help)"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
old=$(project_version)
CHART=charts/artillery-operator/Chart.yaml
# What precedes the version in manifests, examples and pages: the image, and the names of a release's files.
PREFIX='(artillery-operator-alpha:v|registry\.example/[a-z-]+:v|\.tar:v|(operator|worker)-image-v|kubectl-artillery-v|(operator|worker)-v|artillery-operator-)'
mapfile -t files < <(git grep -lE "${PREFIX}[0-9]" -- config docs hack/examples README.md)

if [ "$1" = --check ]; then
  bad=$({
    grep -noE "${PREFIX}[0-9]+\.[0-9]+\.[0-9]+" "${files[@]}"
    grep -nE '^(version|appVersion): ' $CHART | sed "s|^|$CHART:|"
  } | grep -vE "[v -]${old//./\\.}\$" || true)
  [ -z "$bad" ] || die "Cargo.toml has the version $old, but these lines do not:
$bad"
  exit
fi

new=$1
[[ $new =~ ^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?$ ]] || die "not a semantic version: $new"
[ "$new" != "$old" ] || die "the version is already $new"
! grep -qF "## [$new]" CHANGELOG.md || die "CHANGELOG.md already has a section of $new"
awk '/^## \[/ {inside = $0 == "## [Unreleased]"; next} inside && NF {found = 1} END {exit !found}' CHANGELOG.md ||
  die "CHANGELOG.md has nothing under [Unreleased]: describe the changes for users there first"
require_command cargo:https://rustup.rs
sed -i "0,/^version = .*/s//version = \"$new\"/" Cargo.toml
# Updates only the versions of the workspace's own crates.
cargo update --quiet --offline --workspace
sed -i -E "s/^(version|appVersion): .*/\1: $new/" $CHART
sed -i -E "s/$PREFIX${old//./\\.}/\1$new/g" "${files[@]}"
sed -i "s|^## \[Unreleased\]\$|&\n\n## [$new] - $(date +%F)|; s|^\[$old\]: \(.*\)/v.*|[$new]: \1/v$new\n&|
  s|^\(\[Unreleased\]: .*/compare/\)v.*|\1v$new...HEAD|" CHANGELOG.md
echo "The version is $new. Review and commit the changes: git diff"
