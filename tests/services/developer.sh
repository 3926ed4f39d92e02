# What json.sh and s3.sh share: a server that ends with whoever started it, and a developer's in the background. To be
# sourced, by a script that sets NAME (of the script and its make targets), PORT and DIR (the developer's server's), and
# MARK (a path below DIR that the command line of that server has in it).

die() { echo "$NAME.sh: $*" >&2; exit 1; }

# serve_by SERVER DIR PORT [OPTION]...: runs the function SERVER, which becomes the server, until stdin ends; then kills
# it and removes DIR.
serve_by() {
  local pid
  "$@" & pid=$!
  # shellcheck disable=SC2064
  trap "kill -KILL $pid 2> /dev/null || true; wait 2> /dev/null || true; rm -rf '$2'" EXIT
  trap 'exit 1' HUP INT TERM
  cat > /dev/null
}

is_up() {
  [ -s "$DIR/pid" ] && tr '\0' ' ' 2> /dev/null < "/proc/$(cat "$DIR/pid")/cmdline" | grep -qF "$DIR/$MARK"
}

is_open() { (exec 3<> "/dev/tcp/127.0.0.1/$PORT") 2> /dev/null; }

# up_by SERVER PREPARE: in the background, unless it runs already; PREPARE makes its data.
up_by() {
  local lack number
  lack=$(missing)
  [ -z "$lack" ] || die "no $lack"
  ! is_up || return 0
  ! is_open || die "something else listens on port $PORT"
  mkdir -p "$DIR"
  "$2"
  set -m
  "$1" "$DIR" "$PORT" &
  echo $! > "$DIR/pid"
  disown
  for number in $(seq 300); do
    is_open && break
    [ "$number" != 300 ] || { tail -20 "$DIR/log" >&2; die "the server did not start"; }
    sleep 0.1
  done
}

# down_by KEPT: says what is kept.
down_by() {
  local number
  is_up || { echo "no server of make $NAME-up is running"; return; }
  kill -TERM "$(cat "$DIR/pid")"
  for number in $(seq 100); do is_up || break; sleep 0.1; done
  ! is_up || kill -KILL "$(cat "$DIR/pid")"
  rm -f "$DIR/pid"
  echo "stopped; its $1 are kept in $DIR"
}
