#!/usr/bin/env bash
# A JSON API, json-server, for the tests and for developers, from npm. Called by the Makefile and tests/services.
#
#   json.sh fetch           the program, once, into target/services/json; says so and goes on where Node.js or npm is
#                           missing, unless CI=true
#   json.sh missing         prints what is missing for a server, and nothing if all is there
#   json.sh serve DIR PORT  a server of the lists in DIR/db.json; when stdin ends it is killed and DIR is removed: whoever
#                           starts it leaves nothing behind, whatever ends it
#   json.sh up | down       a developer's server on localhost:3000 with the list items, its data under target/services
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
SERVICES=${CARGO_TARGET_DIR:-$ROOT/target}/services
BIN=$SERVICES/json
LIST=$HERE/json/package-lock.json

die() { echo "json.sh: $*" >&2; exit 1; }

node_version() { node --version 2> /dev/null | sed -n 's/^v\([0-9]*\).*/\1/p'; }

missing() {
  local version
  command -v node > /dev/null || { echo "Node.js 16 or newer (node)"; return; }
  version=$(node_version)
  [ "${version:-0}" -ge 16 ] || { echo "Node.js 16 or newer (node is ${version:-unknown})"; return; }
  # What was fetched stays good until the list changes.
  cmp -s "$LIST" "$BIN/.whole" && return
  command -v npm > /dev/null || { echo "npm (npm)"; return; }
  echo "JSON server (make services)"
}

fetch() {
  mkdir -p "$BIN"
  ( flock 7 || true; fetch_locked ) 7> "$BIN/.lock"
}

fetch_locked() {
  local lack try
  lack=$(missing)
  case $lack in
    '') return ;;
    JSON*) ;;
    *) [ "${CI:-}" != true ] || die "$lack is needed for the tests; install it"
       echo "services: no $lack, so tests with a real JSON server will be skipped" >&2
       return ;;
  esac
  rm -f "$BIN/.whole"
  cp "$HERE/json/package.json" "$LIST" "$BIN/"
  for try in 1 2 3 4; do
    if npm --prefix "$BIN" ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2; then
      cp "$LIST" "$BIN/.whole"
      return
    fi
    [ "$try" = 4 ] && die "npm could not fetch the JSON server"
    sleep $((try * 5))
  done
}

server() { # DIR PORT: becomes the server
  cd "$1"
  exec node "$BIN/node_modules/json-server/lib/cli/bin.js" --quiet --host 127.0.0.1 --port "$2" --snapshots "$1" \
    "$1/db.json" >> "$1/log" 2>&1 < /dev/null
}

serve() { # DIR PORT
  local pid
  server "$1" "$2" & pid=$!
  # shellcheck disable=SC2064
  trap "kill -KILL $pid 2> /dev/null || true; wait 2> /dev/null || true; rm -rf '$1'" EXIT
  trap 'exit 1' HUP INT TERM
  cat > /dev/null
}

is_up() {
  [ -s "$DIR/pid" ] && tr '\0' ' ' 2> /dev/null < "/proc/$(cat "$DIR/pid")/cmdline" | grep -qF "$DIR/db.json"
}

is_open() { (exec 3<> /dev/tcp/127.0.0.1/3000) 2> /dev/null; }

up() {
  local lack number
  DIR=$SERVICES/developer-json
  lack=$(missing)
  [ -z "$lack" ] || die "no $lack"
  if ! is_up; then
    is_open && die "something else listens on port 3000"
    mkdir -p "$DIR"
    # One list of the records of testdata/data1.json.
    [ -e "$DIR/db.json" ] || { echo '{"items":['; paste -sd, "$ROOT/testdata/data1.json"; echo ']}'; } > "$DIR/db.json"
    set -m
    server "$DIR" 3000 &
    echo $! > "$DIR/pid"
    disown
    for number in $(seq 300); do
      is_open && break
      [ "$number" != 300 ] || { tail -20 "$DIR/log" >&2; die "the server did not start"; }
      sleep 0.1
    done
  fi
  cat << END
A JSON API is on http://localhost:3000/items. Try:

  target/release/pipeline -s http --url 'http://localhost:3000/items?_page=1&_limit=50' --set http.pagination.style=link -o api
  find api -type f
  make json-down
END
}

down() {
  local number
  DIR=$SERVICES/developer-json
  is_up || { echo "no server of make json-up is running"; return; }
  kill -TERM "$(cat "$DIR/pid")"
  for number in $(seq 100); do is_up || break; sleep 0.1; done
  ! is_up || kill -KILL "$(cat "$DIR/pid")"
  rm -f "$DIR/pid"
  echo "stopped; its records are kept in $DIR"
}

command=${1:-}; shift || true
case $command in
  fetch | missing | serve | up | down) "$command" "$@" ;;
  *) sed -n '2,/^set/p' "$0" | sed '$d' >&2; exit 2 ;;
esac
