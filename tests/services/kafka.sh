#!/usr/bin/env bash
# Apache Kafka (KRaft) for the tests and for developers, from Maven packages. Called by the Makefile and tests/services.
#
#   kafka.sh fetch               the jars, once, into target/services/kafka; says so and goes on where Java or Maven is
#                                missing, unless CI=true
#   kafka.sh missing             prints what is missing for a broker, and nothing if all is there
#   kafka.sh serve DIR NODES PORT [NAME=VALUE]...
#                                NODES brokers, commanded by lines on stdin (see serve); when stdin ends they are
#                                killed and DIR is removed: whoever starts it leaves nothing behind, whatever ends it
#   kafka.sh tool CLASS ARGS...  one of Kafka's own programs, such as TopicCommand
#   kafka.sh up | down           a developer's broker on localhost:9092, its data under target/services
#
# Listeners of node I are on PORT + 10 * (I - 1) and the ports after it, in the order of NAMES. Users are alice
# (alice-secret) and bob (bob-secret); who does not log in is a super user; others may do what no ACL forbids.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
SERVICES=${CARGO_TARGET_DIR:-$ROOT/target}/services
PROGRAM=${CARGO_TARGET_DIR:-target}/release/pipeline # As whoever stands in ROOT calls it.
LIB=$SERVICES/kafka
TLS=$ROOT/testdata/kafka/tls
NAMES=(PLAINTEXT SASL_PLAINTEXT SSL SASL_SSL MUTUAL EXPIRED ELSEWHERE)
CONTROLLER=9

die() { echo "kafka.sh: $*" >&2; exit 1; }

# ---- the jars ----------------------------------------------------------------------------------------------------

java_version() { java -XshowSettings:properties -version 2>&1 | sed -n 's/^ *java.specification.version = \([0-9]*\).*/\1/p'; }

missing() {
  local version
  command -v java > /dev/null || { echo "Java 17 or newer (java)"; return; }
  version=$(java_version)
  [ "${version:-0}" -ge 17 ] || { echo "Java 17 or newer (java is ${version:-unknown})"; return; }
  [ -e "$LIB/.whole" ] && return
  command -v mvn > /dev/null || { echo "Maven (mvn)"; return; }
  echo "Kafka's jars (make services)"
}

fetch() {
  mkdir -p "$LIB"
  ( flock 9 || true; fetch_locked ) 9> "$LIB/.lock"
}

fetch_locked() {
  local lack try
  # What was fetched stays good until the list changes.
  cmp -s "$HERE/pom.xml" "$LIB/.whole" && return
  rm -f "$LIB/.whole"
  lack=$(missing)
  case $lack in
    Kafka*) ;;
    *) [ "${CI:-}" != true ] || die "$lack is needed for the tests; install it"
       echo "services: no $lack, so tests with a real Kafka will be skipped" >&2
       return ;;
  esac
  for try in 1 2 3 4; do
    rm -f "$LIB"/*.jar
    if mvn -q -B -f "$HERE/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$LIB" >&2; then
      cp "$HERE/pom.xml" "$LIB/.whole"
      return
    fi
    [ "$try" = 4 ] && die "Maven could not fetch Kafka's jars"
    sleep $((try * 5))
  done
}

# ---- one broker --------------------------------------------------------------------------------------------------

jvm() { # LEVEL OPTIONS...: replaces the shell by a JVM
  local level=$1; shift
  exec java -XX:TieredStopAtLevel="${KAFKA_JIT:-1}" -Djava.awt.headless=true \
    -Dlog4j2.configurationFile="$HERE/log4j2.properties" -Dlevel="$level" -cp "$LIB/*" "$@"
}

tool() { # CLASS ARGS...
  local class=$1 package=org.apache.kafka.tools; shift
  case $class in
    *.*) package= ;;
    ConsumerGroupCommand) package+=.consumer.group. ;;
    ConsoleConsumer) package+=.consumer. ;;
    ReassignPartitionsCommand) package+=.reassign. ;;
    *) package+=. ;;
  esac
  jvm WARN -XX:+UseSerialGC -Xmx"${KAFKA_HEAP:-256m}" "$package$class" "$@"
}

port() { echo $((PORT + 10 * ($1 - 1) + $2)); } # NODE NUMBER

listeners() { # NODE HOST
  local number list=
  for number in "${!NAMES[@]}"; do list+="${list:+,}${NAMES[number]}://$2:$(port "$1" "$number")"; done
  echo "$list"
}

login() { # LISTENER
  local at=listener.name.$1 package=org.apache.kafka.common.security strength
  echo "$at.plain.sasl.jaas.config=$package.plain.PlainLoginModule required user_alice=\"alice-secret\" user_bob=\"bob-secret\";"
  for strength in 256 512; do
    echo "$at.scram-sha-$strength.sasl.jaas.config=$package.scram.ScramLoginModule required;"
  done
}

properties() { # NODE: the configuration of a broker that is also a controller
  local node voters= replicas=1 majority=1
  for node in $(seq "$NODES"); do voters+="${voters:+,}$node@127.0.0.1:$(port "$node" $CONTROLLER)"; done
  [ "$NODES" -lt 3 ] || replicas=3 majority=2
  cat << END
process.roles=broker,controller
node.id=$1
controller.quorum.voters=$voters
controller.listener.names=CONTROLLER
listeners=$(listeners "$1" 127.0.0.1),CONTROLLER://127.0.0.1:$(port "$1" $CONTROLLER)
advertised.listeners=$(listeners "$1" localhost)
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL,MUTUAL:SSL,EXPIRED:SSL,ELSEWHERE:SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs=$DIR/$1/data

sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
$(login sasl_plaintext)
$(login sasl_ssl)
ssl.keystore.type=PEM
ssl.keystore.location=$TLS/server.pem
ssl.truststore.type=PEM
ssl.truststore.location=$TLS/ca.pem
listener.name.mutual.ssl.client.auth=required
listener.name.expired.ssl.keystore.location=$TLS/expired.pem
listener.name.elsewhere.ssl.keystore.location=$TLS/wrong-host.pem
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=true

auto.create.topics.enable=false
default.replication.factor=$replicas
min.insync.replicas=$majority
offsets.topic.num.partitions=5
offsets.topic.replication.factor=$replicas
transaction.state.log.num.partitions=5
transaction.state.log.replication.factor=$replicas
transaction.state.log.min.isr=$majority
share.coordinator.state.topic.num.partitions=5
share.coordinator.state.topic.replication.factor=$replicas
share.coordinator.state.topic.min.isr=$majority
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
broker.session.timeout.ms=6000
num.network.threads=1
num.io.threads=4
log.segment.bytes=67108864
log.retention.ms=-1
log.index.size.max.bytes=1048576
log.cleaner.dedupe.buffer.size=4194304
END
  [ "${#EXTRA[@]}" = 0 ] || printf '%s\n' "${EXTRA[@]}"
}

format() { # NODE: once; the users are part of it
  local at=$DIR/$1 user strength users=()
  [ -e "$at/data/meta.properties" ] && return
  mkdir -p "$at/data"
  properties "$1" > "$at/server.properties"
  for user in alice bob; do for strength in 256 512; do
    users+=(--add-scram "SCRAM-SHA-$strength=[name=$user,password=$user-secret,iterations=4096]")
  done; done
  (tool kafka.tools.StorageTool format -t pipeline-tests-AAAAAA -c "$at/server.properties" "${users[@]}" > "$at/log" 2>&1)
}

broker() { # NODE: formats and becomes the broker; for `broker I &`
  cd /
  format "$1"
  jvm INFO -Xms128m -Xmx"${KAFKA_HEAP:-384m}" -XX:+UseG1GC -XX:MaxGCPauseMillis=20 kafka.Kafka "$DIR/$1/server.properties" \
    >> "$DIR/$1/log" 2>&1 < /dev/null
}

# ---- many, for the tests -----------------------------------------------------------------------------------------

# Reads `start I`, `stop I` (as asked, killed after 20 s), `kill I`, `freeze I`, `thaw I`, `alive I`, and answers each
# with one line: `done`, or `gone` where no such broker runs. Stdin ends with whoever holds its other end, also if that
# dies by SIGKILL.
serve() { # DIR NODES PORT NAME=VALUE...
  DIR=$1 NODES=$2 PORT=$3; shift 3
  EXTRA=("$@")
  local word node; pids=()
  exec 2> "$DIR/serve.log" # The shell tells of every job that is killed.
  set -m # Each broker gets a process group of its own, so that what it starts ends with it.
  trap 'exit 1' HUP INT TERM
  trap end EXIT
  while read -r word node; do
    if [ "$word" = start ]; then
      broker "$node" > /dev/null 2>&1 & pids[node]=$!
      echo done
    elif is_alive "$node"; then
      one "$word" "$node"
      echo done
    else
      echo gone
    fi
  done
}

is_alive() { kill -0 "${pids[$1]:-x}" 2> /dev/null; } # NODE

one() { # WORD NODE
  local pid=${pids[$2]} try
  case $1 in
    alive) return ;;
    freeze) kill -STOP "$pid"; return ;;
    thaw) kill -CONT "$pid"; return ;;
    stop) kill -TERM "$pid"
      for try in $(seq 200); do is_alive "$2" || return 0; sleep 0.1; done ;;
  esac
  kill -KILL -- "-$pid" 2> /dev/null || true
  wait "$pid" 2> /dev/null || true
}

end() {
  local pid
  for pid in "${pids[@]}"; do kill -KILL -- "-$pid" 2> /dev/null || true; done
  wait 2> /dev/null || true
  rm -rf "$DIR"
}

# ---- one, for developers -----------------------------------------------------------------------------------------

developer() { # what up and down share
  DIR=$SERVICES/developer NODES=1 PORT=9092 NAMES=(PLAINTEXT) CONTROLLER=1 EXTRA=()
}

is_up() {
  [ -s "$DIR/pid" ] && tr '\0' ' ' 2> /dev/null < "/proc/$(cat "$DIR/pid")/cmdline" | grep -qF "$DIR/1/server.properties"
}

is_open() { (exec 3<> /dev/tcp/127.0.0.1/$PORT) 2> /dev/null; }

up() {
  local lack number topic new=
  developer
  lack=$(missing)
  [ -z "$lack" ] || die "no $lack"
  if ! is_up; then
    is_open && die "something else listens on port $PORT"
    [ -e "$DIR/1/data" ] || new=1
    mkdir -p "$DIR"
    set -m
    broker 1 > /dev/null 2>&1 &
    echo $! > "$DIR/pid"
    disown
    for number in $(seq 600); do
      is_open && break
      kill -0 "$(cat "$DIR/pid")" 2> /dev/null && [ "$number" != 600 ] || { tail -20 "$DIR/1/log" >&2; die "the broker did not start"; }
      sleep 0.1
    done
    [ -z "$new" ] || fill
  fi
  try
}

create() { # TOPIC PARTITIONS
  timeout 60 "$0" tool TopicCommand --bootstrap-server localhost:$PORT --create --topic "$1" --partitions "$2" > /dev/null
}

fill() {
  create data-input 3 & create processing-results 1 & create data-input-failed 1 &
  wait
  awk '{ print "key-" NR % 7 "\t" $0 }' "$ROOT/testdata/data1.json" | timeout 60 "$0" tool ConsoleProducer \
    --bootstrap-server localhost:$PORT --topic data-input --reader-property parse.key=true > /dev/null
}

try() {
  cat << END
Kafka is on localhost:$PORT. Its topics are data-input (3 partitions, a few records), processing-results and
data-input-failed. Try:

  $PROGRAM process --source kafka --brokers localhost:$PORT --topic data-input --until end     # into ./out
  $PROGRAM process --source kafka --brokers localhost:$PORT --topic data-input --until end -o -
  tests/services/kafka.sh tool ConsoleProducer --bootstrap-server localhost:$PORT --topic data-input
  make kafka-down
END
}

down() {
  local number
  developer
  is_up || { echo "no broker of make kafka-up is running"; return; }
  kill -TERM "$(cat "$DIR/pid")"
  for number in $(seq 200); do is_up || break; sleep 0.1; done
  ! is_up || kill -KILL "$(cat "$DIR/pid")"
  rm -f "$DIR/pid"
  echo "stopped; its records are kept in $DIR"
}

command=${1:-}; shift || true
case $command in
  fetch | missing | serve | tool | up | down) "$command" "$@" ;;
  *) sed -n '2,/^set/p' "$0" | sed '$d' >&2; exit 2 ;;
esac
