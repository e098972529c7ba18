#!/usr/bin/env bash
# Checks that a module of src/ imports only modules of layers below its own. Run by `make lint`.
#
# An import is any `crate::MODULE` outside tests. Within a layer, imports of two modules may go
# in only one direction, so there is no cycle.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
no_arguments "$@"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# From top to bottom.
layers='controller
apply watch
observe report
decide
build context error
cache
runtime config
state'

# shellcheck disable=SC2016 # an awk program
find src -name '*.rs' ! -path 'src/main.rs' ! -path 'src/lib.rs' ! -path 'src/fixtures.rs' ! -path '*/tests/*' ! -name 'tests.rs' \
  ! -path '*/model_check/*' ! -name 'fuzz.rs' -print0 | sort -z | xargs -0 awk -v layers="$layers" '
  BEGIN {
    count = split(layers, lines, "\n")
    for (rank = 1; rank <= count; rank++) {
      modules = split(lines[rank], names, " ")
      for (i = 1; i <= modules; i++) level[names[i]] = rank
    }
  }
  FNR == 1 {
    in_tests = 0
    own = FILENAME
    sub(/^src\//, "", own)
    sub(/[\/.].*/, "", own)
    if (!(own in level)) { print FILENAME ": the layer " own " is not in hack/check-layers.sh"; bad++ }
  }
  /^#\[cfg\(test\)\]/ { in_tests = 1 }
  in_tests { next }
  {
    rest = $0
    sub(/\/\/.*/, "", rest)
    while (match(rest, /crate::[a-z_]+/)) {
      other = substr(rest, RSTART + 7, RLENGTH - 7)
      rest = substr(rest, RSTART + RLENGTH)
      if (other == own) continue
      imports++
      if (!(other in level)) { print FILENAME ":" FNR ": the layer " other " is not in hack/check-layers.sh"; bad++ }
      else if (level[other] < level[own]) { print FILENAME ":" FNR ": " own " imports " other ", which is above it"; bad++ }
      else if (level[other] == level[own]) sideways[own " " other] = FILENAME ":" FNR
    }
  }
  END {
    for (pair in sideways) {
      split(pair, names, " ")
      if ((names[2] " " names[1]) in sideways) { print sideways[pair] ": " names[1] " and " names[2] " import each other"; bad++ }
    }
    printf "layers: %d imports across layers, %d wrong\n", imports, bad
    exit bad > 0
  }'
