#!/usr/bin/env bash
# Puts files into C sources, a string a line, between two marks: tools/rtpush.js into the room `script` of rtpush.h, and
# the page of the lab into examples/lab.c.
#     tools/embed.sh           writes them
#     tools/embed.sh --check   says whether they are the same; 1: they are not
set -eu
cd "$(dirname "$0")/.."
new=$(mktemp) lines=$(mktemp)
trap 'rm -f "$new" "$lines"' EXIT
status=0

# embed FILE SOURCE MARK DECLARATIONS: what stands between // <MARK> and // </MARK> in the source.
embed() {
    local file=$1 source=$2
    if LC_ALL=C grep -n '[^ -~]' "$file" | head -n 3 | grep .; then echo "$file: only ASCII goes into a string" >&2 && exit 1; fi
    # As C strings; no trigraph in them. Lines alone, for a string of C99 has 4,095 characters at most.
    sed 's/\\/\\\\/g; s/"/\\"/g; s/??/?\\?/g; s/^/    "/; s/$/\\n",/' "$file" >"$lines"
    awk -v lines="$lines" -v mark="$3" -v declarations="$4" '
        $0 ~ "^// <" mark ">" {
            print
            print declarations
            while ((getline line <lines) > 0) print line
            print "    NULL};"
            skips = 1
        }
        $0 ~ "^// </" mark ">" { skips = 0 }
        !skips { print }' "$source" >"$new"
    if cmp -s "$new" "$source"; then return; fi
    if [ -n "$check" ]; then echo "$source has another $file: run tools/embed.sh" >&2 && status=1; else cat "$new" >"$source"; fi
}

check=
[ "${1:-}" != --check ] || check=yes
# The entity tag is the content's CRC and size, by POSIX cksum.
embed tools/rtpush.js rtpush.h script "static const char rp_script_tag[] = \"\\\\\"$(cksum <tools/rtpush.js | tr ' ' '-')\\\\\"\";
static const char *const rp_script[] = {"
embed examples/lab.html examples/lab.c page "static const char *const lab_page[] = {"
exit $status
