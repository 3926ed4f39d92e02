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
PROGRAM=${CARGO_TARGET_DIR:-target}/release/pipeline # As whoever stands in ROOT calls it.
BIN=$SERVICES/json
LIST=$HERE/json/package-lock.json

NAME=json PORT=3000 DIR=$SERVICES/developer-json MARK=db.json
# shellcheck source=tests/services/developer.sh
. "$HERE/developer.sh"

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

serve() { serve_by server "$@"; } # DIR PORT

# One list of the records of testdata/data1.json.
records() {
  [ -e "$DIR/db.json" ] || { echo '{"items":['; paste -sd, "$ROOT/testdata/data1.json"; echo ']}'; } > "$DIR/db.json"
}

up() {
  up_by server records
  cat << END
A JSON API is on http://localhost:3000/items. Try:

  $PROGRAM -s http --url 'http://localhost:3000/items?_page=1&_limit=50' --set http.pagination.style=link -o api
  find api -type f
  make json-down
END
}

down() { down_by records; }

command=${1:-}; shift || true
case $command in
  fetch | missing | serve | up | down) "$command" "$@" ;;
  *) sed -n '2,/^set/p' "$0" | sed '$d' >&2; exit 2 ;;
esac
