#!/usr/bin/env bash
# programs.sh: every program, and the one whose crash points work, which the tests kill. Cargo keeps both variants side by side.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build --workspace --bins
cargo build --workspace --features cli/crash-points --bin sluice-crashing
