#!/usr/bin/env bash
# A cluster on this machine: Redis holds the log, three rtpushd share it, HAProxy and nginx stand in front, and a page
# shows who serves what and lets one kill it.
#
#     examples/cluster/run.sh               then open http://127.0.0.1:8080/; Ctrl-C ends all
#
# Ports, by environment: NGINX_PORT 8080, HAPROXY_PORT 8090, N1 8081, N2 8082, N3 8083, CONTROL_PORT 8084,
# REDIS_PORT 8085. RTPUSHD, RTCAT: programs to take instead of compiling our own.
set -u
HERE=$(cd "$(dirname "$0")" && pwd)
top=$HERE/../..
export HERE NGINX_PORT=${NGINX_PORT:-8080} HAPROXY_PORT=${HAPROXY_PORT:-8090} REDIS_PORT=${REDIS_PORT:-8085}
export N1=${N1:-8081} N2=${N2:-8082} N3=${N3:-8083} CONTROL_PORT=${CONTROL_PORT:-8084}
PATH=$PATH:/usr/sbin:/sbin # where Debian has nginx and haproxy

missing=
for program in redis-server haproxy nginx curl; do command -v $program >/dev/null || missing+=" $program"; done
[ -z "$missing" ] || { echo "run.sh: missing:$missing (Debian: apt-get install redis-server haproxy nginx-light curl)" >&2 && exit 1; }

# compile NAME: tools/NAME.c, if it is not there already.
compile() {
    local out=$top/build/cluster/$1
    if [ "$top/tools/$1.c" -nt "$out" ] || [ "$top/rtpush.h" -nt "$out" ]; then
        echo "compiling $1" >&2
        mkdir -p "$top/build/cluster" && ${CC:-cc} -O2 "$top/tools/$1.c" -o "$out" -pthread || exit 1
    fi
    echo "$out"
}
RTPUSHD=${RTPUSHD:-$(compile rtpushd)} && RTCAT=${RTCAT:-$(compile rtcat)} || exit 1

DIR=$(mktemp -d) && export DIR || exit 1
declare -A pid=()
end() {
    trap '' INT TERM
    kill -CONT "${pid[@]}" 2>/dev/null # who is stopped does not hear
    kill "${pid[@]}" 2>/dev/null
    kill "${pid[@]}" 2>/dev/null # of the daemons: at once, without a drain
    wait
    rm -rf "$DIR"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start NAME COMMAND...: its output goes to NAME.log.
start() {
    local name=$1
    shift
    "$@" >>"$DIR/$name.log" 2>&1 </dev/null &
    pid[$name]=$!
}

# until_ok WHAT COMMAND...
until_ok() {
    local what=$1
    shift
    for _ in {1..100}; do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    echo "run.sh: $what does not answer:" >&2
    tail -n 5 "$DIR"/*.log >&2
    exit 1
}

# The page comes from nginx and talks to HAProxy, too: another origin, which must be allowed.
node() {
    local port=${1^^}
    start "$1" "$RTPUSHD" --listen "http://127.0.0.1:${!port}" --redis "redis://127.0.0.1:$REDIS_PORT" --redis-log cluster --node "$1" \
        --presence 'chat/*' --set "origin=http://127.0.0.1:$NGINX_PORT,http://localhost:$NGINX_PORT" --verbose
}

alive() { [ -n "${pid[$1]:-}" ] && kill -0 "${pid[$1]}" 2>/dev/null; }

# What the page's buttons say: a word and a name, both from a list, whatever came.
control() {
    case "$1 $2" in
    "kill "n[123]) alive "$2" && kill -KILL "${pid[$2]}" && { wait "${pid[$2]}" 2>/dev/null || true; } ;; # or bash tells of it
    "drain "n[123]) alive "$2" && kill -TERM "${pid[$2]}" ;;
    "stop "n[123]) alive "$2" && kill -STOP "${pid[$2]}" ;;
    "start "n[123]) if alive "$2"; then kill -CONT "${pid[$2]}"; else node "$2"; fi ;;
    *) false ;;
    esac && echo "$1 $2"
}

# appendfsync always: what was acknowledged is on the disk, and a restart of Redis loses nothing.
start redis redis-server --port "$REDIS_PORT" --bind 127.0.0.1 --dir "$DIR" --appendonly yes --appendfsync always --save ''
until_ok Redis bash -c "exec 3<>/dev/tcp/127.0.0.1/$REDIS_PORT"
for name in n1 n2 n3; do node $name; done
start haproxy haproxy -W -db -f "$HERE/haproxy.cfg"
# shellcheck disable=SC2016
sed "$(for name in DIR HERE NGINX_PORT N1 N2 N3 CONTROL_PORT; do echo "s|\${$name}|${!name}|g"; done)" "$HERE/nginx.conf" >"$DIR/nginx.conf"
start nginx nginx -e "$DIR/nginx.log" -g "user $(id -un);" -c "$DIR/nginx.conf"
# One more rtpushd, without Redis, carries the buttons' words to the loop below: from our own page (it tests the
# Origin), on loopback, through nginx.
start control "$RTPUSHD" --listen "http://127.0.0.1:$CONTROL_PORT" --mount /control
for name in N1 N2 N3; do until_ok "node $name" curl -fs "http://127.0.0.1:${!name}/healthz"; done
until_ok HAProxy curl -fs "http://127.0.0.1:$HAPROXY_PORT/healthz"
until_ok nginx curl -fs "http://127.0.0.1:$NGINX_PORT/live/chat/lobby"

query=$([ "$HAPROXY_PORT" = 8090 ] || echo "?haproxy=$HAPROXY_PORT") # the page does not know else
echo "open http://127.0.0.1:$NGINX_PORT/$query (Ctrl-C ends all; logs in $DIR)"
exec 3< <(exec "$RTCAT" --quiet --mount /control --since latest "http://127.0.0.1:$CONTROL_PORT/control/word" </dev/null)
pid[rtcat]=$!
while read -r verb name <&3; do control "$verb" "$name"; done
