#!/usr/bin/env bash
# Is the model sharp? Runs tests/model.c for each rule of the log with that rule broken (RTPUSH_BREAK in the header), and
# counts the seeds until a life fails: by all that the model looks at, and `blind`, by what readers get alone. A crash or
# an endless loop is a find, too, and is said to be one. A rule whose breakage no life notices is a failure, and so is a
# life that fails with no rule broken. A count above SEEDS: one of the lives that failed once, which are kept. From
# anywhere: bash tests/model_breaks.sh [SEEDS]
set -u
cd "$(dirname "$0")/.." || exit 1
seeds=${1:-5000} out=build/model_breaks
mkdir -p "$out"
passed=0 failed=0
cc=gcc
command -v $cc >/dev/null || cc=clang
ok() { lines+=("ok $1") && passed=$((passed + 1)); }
not_ok() { lines+=("not ok $1: $2") && failed=$((failed + 1)); }
lines=()

what_is() {
    case $1 in
    0) echo "none" ;;
    1) echo "a message is in its ring and in the spine" ;;
    2) echo "what a topic lost is remembered when it goes" ;;
    3) echo "a pattern's mark rises at each eviction" ;;
    9) echo "a cursor that is told is written down" ;;
    32) echo "below what was lost at its start, a new loss is told" ;;
    31) echo "a new pattern knows the marks of the dead" ;;
    4) echo "nothing is trimmed before all had a turn at it" ;;
    5) echo "a publish marks the patterns that match" ;;
    51) echo "a walk begins again when the entries change" ;;
    52) echo "a publish in a walk begins another circle" ;;
    6) echo "the half-sent message is pinned and ended" ;;
    7) echo "what one subscription passed none brings again" ;;
    8) echo "no @ name matches a pattern without one" ;;
    *) echo "rule $1" ;;
    esac
}

# run RULE FLAGS...: sets found (a number, or nothing) and how.
run() {
    local rule=$1 status
    shift
    timeout 120 "$out/model" --break "$rule" --until --runs "$seeds" "$@" >"$out/found_$rule" 2>&1
    status=$?
    found=$(sed -n 's/^found after \([0-9]*\): .*/\1/p' "$out/found_$rule" | head -n 1)
    how=$(sed -n 's/^found after [0-9]*: //p' "$out/found_$rule" | head -n 1)
    if [ -z "$found" ] && [ $status -ge 124 ]; then found='?' how="crash, status $status"; fi
}

# --- each rule ---

rules=$(grep -o 'RTPUSH_BREAK([0-9]*)' rtpush.h | tr -dc '0-9\n' | sort -un)
for rule in 1 2 3 4 5 6 7 8 9; do # the core's invariants
    grep -qx "$rule" <<<"$rules" || not_ok "model_break_$rule" "the header has no place that breaks it"
done
$cc -std=c99 -D_GNU_SOURCE -O1 -w -DMODEL_BREAKS tests/model.c -o "$out/model" -pthread 2>"$out/log" || not_ok model_breaks "does not compile"
printf '%-5s %-48s %7s %7s  %s\n' rule "broken -> seeds until found" all blind "found by"
for rule in 0 $rules; do
    name=model_break_$rule
    [ "$rule" != 0 ] || name=model_with_no_rule_broken
    run "$rule" --blind
    blind=$found
    run "$rule"
    printf '%-5s %-48s %7s %7s  %s\n' "$rule" "$(what_is "$rule")" "${found:--}" "${blind:--}" "${how:0:90}"
    if [ "$rule" = 0 ]; then
        if [ -z "$found$blind" ]; then ok "$name"; else not_ok "$name" "a life fails: $how"; fi
    elif [ -n "$found" ]; then
        ok "$name"
    else
        not_ok "$name" "nobody noticed in $seeds lives"
    fi
done
printf '%s\n' "${lines[@]}"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
