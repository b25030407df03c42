#!/usr/bin/env bash
# The `cc` of the pages under test: -O0 for -O2, which changes nothing but the time it takes; every warning an error;
# and what was compiled once with the same arguments is taken from the cache. CACHE, REAL_CC, REAL_PATH: from the test.
set -u
PATH=$REAL_PATH # without our own folder: or this `cc` would call itself for ever
args=(-std=c99 -Wall -Wextra -Werror) sources=() out=a.out
while [ $# -gt 0 ]; do
    case $1 in
    -O[0-9s]) args+=(-O0) ;;
    -o) out=$2 && shift ;;
    *.c) sources+=("$1") && args+=("$1") ;;
    *) args+=("$1") ;;
    esac
    shift
done
key=$CACHE/$({ echo "${args[@]}" && cat "${sources[@]}"; } | cksum | tr ' ' -)
exec 9>"$key.lock" && flock 9 # the same program may be on its way already
if [ ! -f "$key.status" ]; then
    "$REAL_CC" "${args[@]}" -o "$key.out" 2>"$key.said"
    echo $? >"$key.status"
fi
cat "$key.said" >&2
# Another file in its place: the old one may be running.
[ "$(cat "$key.status")" -ne 0 ] || { cp "$key.out" "$out.new" && mv "$out.new" "$out"; }
exit "$(cat "$key.status")"
