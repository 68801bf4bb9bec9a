#!/usr/bin/env bash
# checks.sh: what `make test` and CI run. Every check is run even when one before it failed, so that one run tells all;
# only tests need a build. Ends with a summary, and with the exit code of the whole.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

began=$SECONDS
results=()
failed=0

check() { # NAME COMMAND...
  local name=$1 from=$SECONDS
  shift
  printf '\n== %s\n' "$name"
  if "$@"; then
    results+=("ok      $name ($((SECONDS - from)) s)")
  else
    results+=("FAILED  $name ($((SECONDS - from)) s): $*")
    failed=$((failed + 1))
    return 1
  fi
}

everything() { scripts/programs.sh && cargo test --workspace --no-run; }
# Of a failed test its message tells, and what it shows; frames of the test's harness hide both.
export RUST_BACKTRACE=0
tests() { cargo test --workspace --no-fail-fast 2>&1 | tee "$log"; }

log=$(mktemp)
trap 'rm -f "$log"' EXIT
export -f everything

check "machine" scripts/machine.sh || exit 1
check "format" cargo fmt --all --check
check "build, and fetch the real parts beside it" scripts/beside-fetch.sh bash -c everything && built=1
check "lints" cargo clippy --workspace --all-targets -- -D warnings
if [ -n "${built:-}" ]; then
  check "tests" tests
else
  results+=("FAILED  tests: not run, the build or the fetch failed")
fi

printf '\n== summary after %s\n' "$(printf '%d min %02d s' $(((SECONDS - began) / 60)) $(((SECONDS - began) % 60)))"
printf '%s\n' "${results[@]}"
awk '/^test result: / { passed += $4; failed += $6; skipped += $8 } END { printf "tests: %d passed, %d failed, %d skipped\n", passed, failed, skipped }' "$log"
[ $failed -eq 0 ] && [ -n "${built:-}" ]
