#!/usr/bin/env bash
# machine.sh: see that the machine has what Sluice is built and run with. Missing system packages are installed where that
# is possible (root on Debian or Ubuntu), otherwise named in one line.
set -euo pipefail

fail() { printf 'make: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null; }

has cargo || fail "cargo is missing: install rustup (https://rustup.rs)"
has npm || fail "npm is missing: install Node.js 20 or newer"

packages=()
has g++ || packages+=(g++)
has make || packages+=(make)
has cmake || packages+=(cmake)
has pkg-config || packages+=(pkg-config)
has mvn || packages+=(maven)
has strace || packages+=(strace)
has flock || packages+=(util-linux)
has java || [ -x "${JAVA_HOME:-/none}/bin/java" ] || packages+=(openjdk-17-jre-headless)
[ -e /usr/include/openssl/ssl.h ] || packages+=(libssl-dev)
[ -e /usr/include/zlib.h ] || packages+=(zlib1g-dev)
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || has initdb || packages+=(postgresql)

if [ ${#packages[@]} -gt 0 ]; then
  if has apt-get && [ "$(id -u)" = 0 ]; then
    printf 'make: installing %s\n' "${packages[*]}" >&2
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}"; } >"$log" 2>&1 ||
      { tail -20 "$log" >&2; fail "apt-get could not install: ${packages[*]}"; }
  else
    fail "missing system packages: ${packages[*]} (on Debian: sudo apt-get install ${packages[*]})"
  fi
fi

java=java
[ ! -x "${JAVA_HOME:-/none}/bin/java" ] || java=$JAVA_HOME/bin/java
version=$("$java" -version 2>&1 | sed -nE '1s/.*"([0-9]+).*/\1/p')
[ "${version:-0}" -ge 17 ] || fail "'$java' is Java ${version:-unknown}: Kafka needs 17 or newer (package openjdk-17-jre-headless, or set JAVA_HOME)"
