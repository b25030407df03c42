#!/usr/bin/env bash
# Puts tools/rtpush.js into the room `script` of rtpush.h, a string a line, between its two marks.
#     tools/embed.sh           writes the header
#     tools/embed.sh --check   says whether both are the same; 1: they are not
set -eu
cd "$(dirname "$0")/.."
script=tools/rtpush.js header=rtpush.h
new=$(mktemp) lines=$(mktemp)
trap 'rm -f "$new" "$lines"' EXIT
if LC_ALL=C grep -n '[^ -~]' $script | head -n 3 | grep .; then echo "$script: only ASCII goes into a string" >&2 && exit 1; fi

# As C strings; no trigraph in them. Lines alone, for a string of C99 has 4,095 characters at most.
sed 's/\\/\\\\/g; s/"/\\"/g; s/??/?\\?/g; s/^/    "/; s/$/\\n",/' $script >"$lines"

# The entity tag is the content's CRC and size, by POSIX cksum.
awk -v lines="$lines" -v tag="$(cksum <$script | tr ' ' '-')" '
    /^\/\/ <script>/ {
        print
        print "static const char rp_script_tag[] = \"\\\"" tag "\\\"\";"
        print "static const char *const rp_script[] = {"
        while ((getline line <lines) > 0) print line
        print "    NULL};"
        skips = 1
    }
    /^\/\/ <\/script>/ { skips = 0 }
    !skips { print }' $header >"$new"
if [ "${1:-}" = --check ]; then cmp -s "$new" $header || { echo "rtpush.h has another rtpush.js: run tools/embed.sh" >&2 && exit 1; }; else cat "$new" >$header; fi
