#!/usr/bin/env bash
# beside-fetch.sh COMMAND...: run a command (a build) while the real parts are fetched; fails when either does.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

devstack/parts/fetch.sh &
fetch=$!
trap 'kill $fetch 2>/dev/null || true' EXIT
"$@"
wait $fetch
