#!/usr/bin/env bash
# fetch.sh [kafka] [registry] [clickhouse]: put the real parts, at their pinned versions, into Sluice's cache.
#
# The one place that downloads. The Makefile runs it beside the build; the library carries it (include_str!) and runs it
# when a part is missing. Only package managers are asked (Maven, npm), and nothing is used whose SHA-256 differs from the
# list beside this script. A part appears in the cache by one rename, so a reader sees all of it or nothing; a lock makes
# a second fetch wait instead of fighting. Cache: $SLUICE_CACHE, else $XDG_CACHE_HOME/sluice, else ~/.cache/sluice.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${SLUICE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sluice}
parts=$cache/parts
java=java
[ ! -x "${JAVA_HOME:-/none}/bin/java" ] || java=$JAVA_HOME/bin/java

say() { printf 'fetch: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
need() { command -v "$1" >/dev/null || fail "'$1' is not on the PATH: it is needed to fetch $2 ($3)"; }

name_of() { # the directory of a part carries its version: two versions of Sluice can share a cache
  case $1 in
    kafka) echo kafka-4.3.1 ;;
    registry) echo registry-3.0.9 ;;
    clickhouse) echo clickhouse-26.7.3 ;;
    *) fail "'$1' is not a part: kafka, registry or clickhouse" ;;
  esac
}

# A part is there when its directory holds the very list of checksums that this script would check it against.
present() { cmp -s "$here/$1.sha256" "$parts/$(name_of "$1")/SHA256SUMS"; }

# check PART DIR: every file of the list is in DIR with that checksum, and DIR holds no other file.
check() {
  (cd "$2" && LC_ALL=C ls | diff - <(awk '{print $2}' "$here/$1.sha256") >&2) ||
    fail "$1: the files above ('<' came, '>' was expected) differ from $1.sha256; nothing was installed"
  (cd "$2" && sha256sum --quiet --strict -c "$here/$1.sha256" >&2) ||
    fail "$1: the files above differ from $1.sha256; nothing was installed"
}

maven() { # PART DIR ARGS...; a repository of its own: concurrent Maven runs on one repository can break it
  need mvn "$1" "package 'maven'"
  local part=$1 dir=$2
  shift 2
  mvn -B -q -ntp "-Dmaven.repo.local=$dir/m2" "$@" >"$dir/maven.log" 2>&1 || { cat "$dir/maven.log" >&2; fail "$part: Maven failed, as above"; }
}

# warm_up PART DIR PORT ARGS...: run a Java part once until it answers, and keep the archive of its loaded classes (AppCDS):
# it then starts in half the time. Run beside a build this costs nobody a second. Paths are relative to the part, because
# the archive is only valid for the class path it was made with. A part without an archive works, only slower.
warm_up() {
  local part=$1 dir=$2 port=$3 log=$2/warm-up.log pid end=$((SECONDS + 90))
  shift 3
  (cd "$dir" && exec "$java" -XX:ArchiveClassesAtExit=classes.jsa -Xlog:cds=off -Xlog:cds+dynamic=off "$@") >"$log" 2>&1 9>&- &
  pid=$!
  until "answers_$part" "$port" "$log"; do
    if [ "$SECONDS" -ge "$end" ] || ! kill -0 "$pid" 2>/dev/null; then
      say "$part: its first run failed as below; it will work, but start slower"
      tail -5 "$log" >&2
      break
    fi
    sleep 0.2
  done
  kill "$pid" 2>/dev/null || true
  wait "$pid" || true
  rm -f "$log"
}
answers_kafka() { grep -q 'Kafka Server started' "$2"; }
answers_registry() {
  (exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET /apis/ccompat/v7/subjects HTTP/1.0\r\n\r\n' >&3 && grep -q ' 200 ' <&3) 2>/dev/null
}
a_port() { echo $((20000 + RANDOM % 6000 * 2)); } # an even one below the range of outgoing connections; its neighbour goes with it

fetch_kafka() { # DIR OUT
  need "$java" kafka "Java 17 or newer, package 'openjdk-17-jre-headless'"
  maven kafka "$1" -f "$here/kafka-pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DincludeScope=runtime "-DoutputDirectory=$1/got"
  check kafka "$1/got"
  mv "$1/got" "$2/lib"
  cp "$here/log4j2.properties" "$2/"
  # A formatted data directory as a template saves each stack a second of formatting. All stacks so share one cluster id.
  local port
  port=$(a_port)
  cat >"$1/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 1))
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
controller.listener.names=CONTROLLER
log.dirs=$1/data
PROPERTIES
  (cd "$2" && "$java" -cp 'lib/*' kafka.tools.StorageTool format -t SluiceDevstackCluster0 -c "$1/server.properties") >"$1/format.log" 2>&1 ||
    { cat "$1/format.log" >&2; fail "kafka: formatting failed, as above"; }
  cp -r "$1/data" "$2/template"
  warm_up kafka "$2" "$port" -Xmx256m -Dlog4j2.configurationFile=log4j2.properties -cp 'lib/*' kafka.Kafka "$1/server.properties"
}

fetch_registry() {
  need "$java" registry "Java 17 or newer, package 'openjdk-17-jre-headless'"
  # Plugin 2.8 on purpose: newer ones read the artifact's POM, whose parent is not on Maven Central.
  maven registry "$1" org.apache.maven.plugins:maven-dependency-plugin:2.8:get \
    -Dartifact=io.apicurio:apicurio-registry-app:3.0.9:tar.gz:all -Dtransitive=false
  mkdir "$1/got"
  mv "$1/m2/io/apicurio/apicurio-registry-app/3.0.9/apicurio-registry-app-3.0.9-all.tar.gz" "$1/got/"
  check registry "$1/got"
  tar -xzf "$1/got/apicurio-registry-app-3.0.9-all.tar.gz" -C "$2"
  local port
  port=$(a_port)
  warm_up registry "$2" "$port" -Xmx256m -Dquarkus.http.host=127.0.0.1 "-Dquarkus.http.port=$port" \
    -Dquarkus.management.host=127.0.0.1 "-Dquarkus.management.port=$((port + 1))" \
    -Dapicurio.storage.kind=sql -Dapicurio.storage.sql.kind=h2 \
    "-Dapicurio.datasource.url=jdbc:h2:file:$1/h2" \
    -jar apicurio-registry-app-3.0.9-runner.jar
}

fetch_clickhouse() {
  need npm clickhouse "Node.js"
  [ "$(uname -sm)" = "Linux x86_64" ] || fail "clickhouse: only packaged for Linux on x86_64; put a 'clickhouse' on the PATH instead"
  mkdir "$1/got"
  (cd "$1" && npm pack --silent --pack-destination "$1/got" @chdb/lib-linux-x64-gnu@26.7.3-stable.1 >/dev/null)
  check clickhouse "$1/got"
  tar -xzf "$1"/got/*.tgz -C "$2" --strip-components=1 package/libchdb.so
}

install_part() ( # PART: fetch beside the final place, then one rename; a subshell, so that the trap is its own
  part=$1 t0=$SECONDS final=$parts/$(name_of "$1")
  tmp=$(mktemp -d "$parts/.tmp.XXXXXX")
  trap 'rm -rf "$tmp"' EXIT
  mkdir "$tmp/out"
  "fetch_$part" "$tmp" "$tmp/out"
  cp "$here/$part.sha256" "$tmp/out/SHA256SUMS"
  [ ! -e "$final" ] || mv "$final" "$tmp/old"
  mv "$tmp/out" "$final"
  say "$(name_of "$part"): ready after $((SECONDS - t0)) s"
)

wanted=("$@")
[ $# -gt 0 ] || wanted=(kafka registry clickhouse)
missing=()
for part in "${wanted[@]}"; do
  name_of "$part" >/dev/null
  present "$part" || missing+=("$part")
done
[ ${#missing[@]} -gt 0 ] || exit 0

mkdir -p "$parts"
need flock "the parts" "package 'util-linux'"
exec 9>"$parts/.lock"
flock -n 9 || { say "another fetch is at work: waiting for it"; flock 9; }
rm -rf "$parts"/.tmp.* # left by a fetch that was killed: whoever holds the lock is the only one at work

running=()
for part in "${missing[@]}"; do
  present "$part" && continue
  say "$(name_of "$part"): fetching"
  install_part "$part" &
  running+=($!)
done
status=0
for pid in "${running[@]}"; do wait "$pid" || status=1; done
exit "$status"
