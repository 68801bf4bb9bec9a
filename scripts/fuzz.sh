#!/usr/bin/env bash
# fuzz.sh TARGET SECONDS FOLDER: run one target of fuzz/fuzz_targets for so long. Everything it makes or installs goes to
# FOLDER: cargo-fuzz, the build, the corpus (which grows from run to run) and what it finds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

target=${1-} seconds=${2-} folder=${3-}
targets=$(cd fuzz/fuzz_targets && ls | sed 's/\.rs$//' | tr '\n' ' ')
if [ -z "$target" ] || [ ! -f "fuzz/fuzz_targets/$target.rs" ] || ! [[ $seconds =~ ^[0-9]+$ ]]; then
  echo "make fuzz TARGET=<one of: ${targets% }> SECONDS=<a whole number>" >&2
  exit 2
fi

version=0.13.2
export PATH="$folder/tool/bin:$PATH"
if ! cargo-fuzz --version 2>/dev/null | grep -qF "$version"; then
  cargo install cargo-fuzz --version "$version" --locked --root "$folder/tool" --target-dir "$folder/tool/target"
fi

# Another clone's build is not this one's.
CARGO_TARGET_DIR="$folder/target" scripts/own-build.sh
# What is fuzzed is what is shipped: the same versions of everything.
cp Cargo.lock fuzz/Cargo.lock

corpus="$folder/corpus/$target" found="$folder/found/$target/"
mkdir -p "$corpus" "$found"
features=()
case $target in rule_document | expression) features=(--features rules) ;; esac
case $target in
  pipeline_file) cp examples/shop/pipeline.yaml "$corpus/" ;;
  rule_document) cp examples/shop/rules/*.yaml "$corpus/" ;;
  expression)
    # One file for each condition, text and quantity of the examples.
    grep -hoE '(when|text|quantity): ("[^"]+"|[^,}]+)' examples/shop/rules/*.yaml | sed -E 's/^[a-z]+: //; s/^"(.*)"$/\1/' |
      awk -v folder="$corpus" '{ file = folder "/example-" NR; printf "%s", $0 > file; close(file) }' ;;
  promise)
    printf 's3;;;99;' > "$corpus/settled"
    printf 's3;0000000000000000000000000000001f;000000000000b111,000000000000b112;100;250;150;%s;3;%s;%s;%s;1;%s;90;9,10;' \
      00000000000000000000000000000005 0000000000000004 0000000000000006 0000000000000008 1795228766362 > "$corpus/promised" ;;
  frame_and_decode)
    # Schema, mode, and zeros or ones that decide what a valid payload looks like.
    for schema in 0 1 2 3 4 5; do
      for fill in 0 1; do
        printf "\\x0$schema\\x01\\x00$(printf "\\\\x0$fill%.0s" {1..60})" > "$corpus/grown-$schema-$fill"
      done
    done
    printf '\x00\x03\x00\x00\x00\x00\x07abc' > "$corpus/prefix"
    printf '\x00\x02\x0212abc' > "$corpus/header" ;;
esac

# Without a sanitizer the pinned compiler will do: there is next to no unsafe code, and panics, memory and time are what
# this is about.
exec cargo fuzz run --fuzz-dir fuzz --target-dir "$folder/target" --sanitizer none "${features[@]}" "$target" "$corpus" -- \
  -artifact_prefix="$found" -max_total_time="$seconds" -max_len=4096 -timeout=20 -rss_limit_mb=2048 -print_final_stats=1
