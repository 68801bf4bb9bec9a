#!/usr/bin/env bash
# flamegraph.sh [SVG]: where a worker's time goes, as a flame graph: perf looks at the worker while `sluice-bench peers --alone` moves EVENTS events
# (3000000), and inferno draws what it saw. Needs perf, and a release build (`make bench` makes one). inferno is installed into the cache once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

svg=$(realpath -m "${1:-docs/performance-worker.svg}")
events=${EVENTS:-3000000}
cache=${SLUICE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sluice}
bench=${BENCH:-${CARGO_TARGET_DIR:-$cache/target}/release/sluice-bench}
version=0.12.8

fail() { printf 'flamegraph.sh: %s\n' "$*" >&2; exit 1; }
command -v perf >/dev/null || fail "there is no perf (Debian: apt-get install linux-perf)"
[ -x "$bench" ] || fail "$bench is missing: \`make bench ONLY=1\` builds it"
tool=$cache/inferno-$version
[ -x "$tool/bin/inferno-flamegraph" ] ||
  cargo install inferno --version "$version" --locked --root "$tool" --target-dir "$tool/target"

dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$dir"' EXIT
"$bench" peers --alone --runs 1 --events "$events" >"$dir/bench.txt" 2>&1 &
running=$!
# The worker is a child of it.
worker=
until worker=$(ps -o pid=,args= --ppid "$running" | awk '$0 ~ / worker / { print $1; exit }') && [ -n "$worker" ]; do
  kill -0 "$running" 2>/dev/null || fail "sluice-bench has ended: $(tail -5 "$dir/bench.txt")"
  sleep 0.05
done
# Of each stack 16 KiB are kept, enough for the lanes; with smaller buffers perf loses some. It ends with the worker, and gives up where one of
# the worker's threads ends while it begins.
until perf record --quiet --freq 199 --call-graph dwarf,16384 --mmap-pages 16M --pid "$worker" --output "$dir/perf.data" 2>"$dir/perf.txt"; do
  kill -0 "$worker" 2>/dev/null || fail "perf has failed: $(tail -5 "$dir/perf.txt")"
done
wait "$running" || fail "sluice-bench has failed: $(tail -5 "$dir/bench.txt")"
cat "$dir/bench.txt"

perf script --input "$dir/perf.data" --no-inline 2>/dev/null |
  "$tool/bin/inferno-collapse-perf" 2>/dev/null |
  # Frames of the runtime and hashes of symbols tell nothing here.
  sed -E 's/::h[0-9a-f]{16}//g; s/[^;]*(std::(sys|rt|panic|thread|panicking)|core::(ops::function|future)|futures_util::future|__rust_begin_short|catch_unwind|tokio::(runtime|future|task))[^;]*;//g' >"$dir/folded.txt"
[ -s "$dir/folded.txt" ] || fail "perf has seen nothing"
"$tool/bin/inferno-flamegraph" --title "A worker of Sluice, CPU time" --subtitle "sluice-bench peers --alone, $events events" \
  --countname ns --minwidth 0.4 --hash "$dir/folded.txt" >"$svg"
printf '%s: %s bytes\n' "$svg" "$(stat -c %s "$svg")"
