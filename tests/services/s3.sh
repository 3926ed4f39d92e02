#!/usr/bin/env bash
# An S3 server, versitygw, for the tests and for developers, from Go modules. Called by the Makefile and tests/services.
#
#   s3.sh fetch           the program, once, into target/services/s3; says so and goes on where Go is missing, unless
#                         CI=true
#   s3.sh missing         prints what is missing for a server, and nothing if all is there
#   s3.sh serve DIR PORT [OPTION]...
#                         a server whose buckets are the directories in DIR/data; when stdin ends it is killed and DIR is
#                         removed: whoever starts it leaves nothing behind, whatever ends it
#   s3.sh up | down       a developer's server on localhost:9000 with the bucket my-bucket, its data under target/services
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
SERVICES=${CARGO_TARGET_DIR:-$ROOT/target}/services
BIN=$SERVICES/s3
VERSION=v1.8.0
KEY=test-key SECRET=test-secret

die() { echo "s3.sh: $*" >&2; exit 1; }

missing() {
  [ -e "$BIN/$VERSION" ] && return
  command -v go > /dev/null || { echo "Go (go)"; return; }
  echo "S3 server (make services)"
}

fetch() {
  mkdir -p "$BIN"
  ( flock 8 || true; fetch_locked ) 8> "$BIN/.lock"
}

fetch_locked() {
  local lack
  lack=$(missing)
  case $lack in
    '') return ;;
    Go*) [ "${CI:-}" != true ] || die "$lack is needed for the tests; install it"
         echo "services: no $lack, so tests with a real S3 server will be skipped" >&2
         return ;;
  esac
  GOBIN=$BIN GOFLAGS=-modcacherw go install "github.com/versity/versitygw/cmd/versitygw@$VERSION" ||
    die "Go could not build the S3 server"
  touch "$BIN/$VERSION"
}

gateway() { # DIR PORT [OPTION]...: becomes the server
  mkdir -p "$1/data" "$1/iam" "$1/versions"
  cd /
  ROOT_ACCESS_KEY=$KEY ROOT_SECRET_KEY=$SECRET exec "$BIN/versitygw" --quiet --keep-alive --port "127.0.0.1:$2" --health /health \
    --iam-dir "$1/iam" "${@:3}" posix --versioning-dir "$1/versions" "$1/data" >> "$1/log" 2>&1 < /dev/null
}

serve() { # DIR PORT [OPTION]...
  local pid
  mkdir -p "$1"
  gateway "$@" & pid=$!
  # shellcheck disable=SC2064
  trap "kill -KILL $pid 2> /dev/null || true; wait 2> /dev/null || true; rm -rf '$1'" EXIT
  trap 'exit 1' HUP INT TERM
  cat > /dev/null
}

is_up() {
  [ -s "$DIR/pid" ] && tr '\0' ' ' 2> /dev/null < "/proc/$(cat "$DIR/pid")/cmdline" | grep -qF "$DIR/data"
}

is_open() { (exec 3<> /dev/tcp/127.0.0.1/9000) 2> /dev/null; }

up() {
  local lack number
  DIR=$SERVICES/developer-s3
  lack=$(missing)
  [ -z "$lack" ] || die "no $lack"
  if ! is_up; then
    is_open && die "something else listens on port 9000"
    mkdir -p "$DIR/data/my-bucket"
    set -m
    gateway "$DIR" 9000 &
    echo $! > "$DIR/pid"
    disown
    for number in $(seq 100); do
      is_open && break
      [ "$number" != 100 ] || { tail -20 "$DIR/log" >&2; die "the server did not start"; }
      sleep 0.1
    done
  fi
  cat << END
An S3 server is on http://localhost:9000, with the bucket my-bucket. Try:

  export AWS_ENDPOINT_URL=http://localhost:9000 AWS_ACCESS_KEY_ID=$KEY AWS_SECRET_ACCESS_KEY=$SECRET
  target/release/pipeline process --source file testdata/data1.json --s3-bucket my-bucket
  target/release/pipeline -s file testdata/data1.json -o s3://my-bucket/prefix -z gzip
  find ${DIR#"$PWD"/}/data/my-bucket -type f
  make s3-down
END
}

down() {
  local number
  DIR=$SERVICES/developer-s3
  is_up || { echo "no server of make s3-up is running"; return; }
  kill -TERM "$(cat "$DIR/pid")"
  for number in $(seq 100); do is_up || break; sleep 0.1; done
  ! is_up || kill -KILL "$(cat "$DIR/pid")"
  rm -f "$DIR/pid"
  echo "stopped; its objects are kept in $DIR"
}

command=${1:-}; shift || true
case $command in
  fetch | missing | serve | up | down) "$command" "$@" ;;
  *) sed -n '2,/^set/p' "$0" | sed '$d' >&2; exit 2 ;;
esac
