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
PROGRAM=${CARGO_TARGET_DIR:-target}/release/pipeline # As whoever stands in ROOT calls it.
BIN=$SERVICES/s3
VERSION=v1.8.0
KEY=test-key SECRET=test-secret

NAME=s3 PORT=9000 DIR=$SERVICES/developer-s3 MARK=data
# shellcheck source=tests/services/developer.sh
. "$HERE/developer.sh"

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
  mkdir -p "$1"
  serve_by gateway "$@"
}

bucket() { mkdir -p "$DIR/data/my-bucket"; }

up() {
  up_by gateway bucket
  cat << END
An S3 server is on http://localhost:9000, with the bucket my-bucket. Try:

  export AWS_ENDPOINT_URL=http://localhost:9000 AWS_ACCESS_KEY_ID=$KEY AWS_SECRET_ACCESS_KEY=$SECRET
  $PROGRAM process --source file testdata/data1.json --s3-bucket my-bucket
  $PROGRAM -s file testdata/data1.json -o s3://my-bucket/prefix -z gzip
  find ${DIR#"$PWD"/}/data/my-bucket -type f
  make s3-down
END
}

down() { down_by objects; }

command=${1:-}; shift || true
case $command in
  fetch | missing | serve | up | down) "$command" "$@" ;;
  *) sed -n '2,/^set/p' "$0" | sed '$d' >&2; exit 2 ;;
esac
