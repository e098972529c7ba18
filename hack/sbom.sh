#!/usr/bin/env bash
# Prints the bill of materials of an image, as CycloneDX JSON:
#   sbom.sh operator   the crates of both programs, and the C library that is part of them
#   sbom.sh worker     the npm packages of the worker image, and the Debian packages whose files it contains
# Environment variables:
#   TARGETS             Rust targets, separated by spaces (the target of this machine)
#   SOURCE_DATE_EPOCH   the time of the document (0)
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_option "$@"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
TARGETS=${TARGETS:-$(uname -m)-unknown-linux-gnu}
version=$(project_version)
timestamp=$(date -u -d "@${SOURCE_DATE_EPOCH:-0}" +%FT%TZ)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# debian PACKAGE...: prints the installed ones of these packages as a JSON list of components. On other systems the list is empty.
debian() {
  # shellcheck disable=SC2016 # variables of dpkg-query
  { dpkg-query -W -f '${db:Status-Status} ${Package} ${Version} ${Architecture}\n' "$@" 2>/dev/null || true; } |
    jq -Rn --arg machine "$(dpkg --print-architecture 2>/dev/null)" '
      [inputs | split(" ") | select(.[0] == "installed" and (.[3] == $machine or .[3] == "all")) | (@uri "pkg:deb/debian/\(.[1])@\(.[2])?arch=\(.[3])") as $purl |
      {type: "library", "bom-ref": $purl, name: .[1], version: .[2], scope: "required", purl: $purl}]'
}

operator() {
  require_command cargo:https://rustup.rs jq
  local target programs=(-p artillery-operator -p kubectl-artillery) libraries=()
  for target in $TARGETS; do
    # Build scripts and procedural macros run at build time, and are no part of the programs.
    cargo tree --locked "${programs[@]}" --target "$target" -e normal,no-proc-macro --prefix none -f '{p}' >>"$work/linked"
    cargo tree --locked "${programs[@]}" --target "$target" -e normal,build --prefix none -f '{p}' >>"$work/used"
    if [ "${target%%-*}" = "$(uname -m)" ]; then libraries+=(libc6-dev); else libraries+=("libc6-dev-$(architecture "$target")-cross"); fi
  done
  cargo metadata --locked --format-version 1 >"$work/metadata"
  awk -F '"' '/^name = / {name = $2} /^version = / {version = $2} /^checksum = / {print name, version, $2}' Cargo.lock >"$work/checksums"
  debian "${libraries[@]}" >"$work/libraries"
  jq -n --arg version "$version" --arg timestamp "$timestamp" --arg rust "$(rustc -V | cut -d ' ' -f 2)" \
    --slurpfile metadata "$work/metadata" --slurpfile libraries "$work/libraries" \
    --rawfile linked "$work/linked" --rawfile used "$work/used" --rawfile checksums "$work/checksums" '
    # "name v1.2.3 (path)" as {"name@1.2.3": true}
    def crates: [split("\n")[] | select(. != "") | split(" ") | {"\(.[0])@\(.[1][1:])": true}] | add;
    def crate: "\(.name)@\(.version)";
    ($linked | crates) as $linked | ($used | crates) as $used |
    ([$checksums | split("\n")[] | select(. != "") | split(" ") | {"\(.[0])@\(.[1])": .[2]}] | add) as $checksum |
    $metadata[0] as $metadata |
    (reduce ($metadata.packages[] | select($used[crate])) as $p ({}; .[$p.id] = ($p | crate))) as $crate_of |
    {type: "library", "bom-ref": "rust-std@\($rust)", name: "rust-std", version: $rust, scope: "required",
      description: "The standard library of Rust"} as $std |
    {
      bomFormat: "CycloneDX", specVersion: "1.5", version: 1,
      metadata: {
        timestamp: $timestamp,
        tools: {components: [{type: "application", name: "rustc", version: $rust}]},
        component: {type: "container", "bom-ref": "image", name: "artillery-operator", version: $version,
          description: "The image of the operator and the kubectl plugin"}
      },
      components: ([$metadata.packages[] | select($crate_of[.id]) | {
          type: (if .name == "artillery-operator" or .name == "kubectl-artillery" then "application" else "library" end),
          "bom-ref": crate, name, version,
          scope: (if $linked[crate] then "required" else "excluded" end),
          licenses: [{expression: (.license | gsub(" */ *"; " OR "))}]
        }
        + (if .source then {purl: "pkg:cargo/\(crate)", hashes: [{alg: "SHA-256", content: $checksum[crate]}]} else {} end)
        + (if .repository then {externalReferences: [{type: "vcs", url: .repository}]} else {} end)
      ] + [$std] + $libraries[0] | sort_by(."bom-ref")),
      dependencies: ([
        {ref: "image", dependsOn: ["artillery-operator@\($version)", "kubectl-artillery@\($version)"]},
        ($metadata.resolve.nodes[] | select($crate_of[.id]) | .id as $id | {
          ref: $crate_of[$id],
          dependsOn: ([.deps[] | select(any(.dep_kinds[]; .kind != "dev")) | $crate_of[.pkg] | values] | unique)
        } | if .ref == "artillery-operator@\($version)" or .ref == "kubectl-artillery@\($version)"
          then .dependsOn += [$std."bom-ref"] + [$libraries[0][]."bom-ref"] else . end)
      ] | sort_by(.ref))
    }'
}

worker() {
  require_command npm jq
  jq --arg version "$version" '.version = $version' hack/worker-image/package.json >"$work/package.json"
  cp hack/worker-image/package-lock.json "$work"
  (cd "$work" && npm sbom --package-lock-only --omit=dev --sbom-format cyclonedx) >"$work/npm"
  debian busybox-static libc6 libgcc-s1 libstdc++6 ca-certificates >"$work/libraries"
  jq --arg version "$version" --arg timestamp "$timestamp" --slurpfile libraries "$work/libraries" '
    # npm names the root after its folder.
    del(.serialNumber) | .metadata.timestamp = $timestamp |
    .metadata.component |= {type: "container", "bom-ref": "image", name: "artillery-worker", version: $version,
      description: "The image of the workers"} |
    .components |= (. + $libraries[0] | unique_by(."bom-ref")) |
    .dependencies |= (map(if .ref | startswith("artillery-worker") then .ref = "image" | .dependsOn += [$libraries[0][]."bom-ref"] else . end)
      | unique_by(.ref))' "$work/npm"
}

case ${1:-} in
operator | worker) [ $# = 1 ] && "$1" ;;
*) die "the argument must be operator or worker (see sbom.sh --help)" ;;
esac
