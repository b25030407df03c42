#!/usr/bin/env bash
# Reads the repository as its readers do: is the header in the order that it promises, and does it hold nothing
# that it should not? From anywhere: bash tools/check.sh
set -u
cd "$(dirname "$0")/.." || exit 1
header=rtpush.h out=build/check
mkdir -p "$out"
passed=0 failed=0 skipped=0

# empty NAME TEXT: nothing was found that should not be there.
empty() {
    if [ -z "$2" ]; then
        echo "ok $1"
        passed=$((passed + 1))
        return
    fi
    echo "not ok $1: $(head -n 1 <<<"$2")"
    sed -n '2,12s/^/    /p' <<<"$2"
    failed=$((failed + 1))
}
skip() {
    echo "skip $1: $2"
    skipped=$((skipped + 1))
}

# --- the manual ---

tags=$(sed -n 's,^// >>\([^ ]*\).*,\1,p' $header)

# The contents list: the lines `//   >>tag  purpose` of the manual, in the order of the banners.
contents=$(sed -n 's|^//   *>>\([a-z0-9_]*\).*|\1|p' $header)
empty contents_list_is_the_banners "$(diff <(echo "$contents") <(grep -v '^manual$' <<<"$tags") | grep '^[<>]' | sed 's/^</not a banner:/; s/^>/not in the contents:/')"

# The program: from its #define to the end of main, in the manual behind `//     `, in the example behind its comment.
program() {
    awk '/^ *#define RTPUSH_IMPLEMENTATION/ { on = 1; text = "" } on { text = text $0 "\n" }
        on && /^ *int main/ { main = 1 } main && /^ *}/ { printf "%s", text; exit }' |
        sed 's,"\.\./rtpush\.h","rtpush.h",; s/^[[:space:]]*//; s/[[:space:]]*$//; /^$/d'
}
# Indentation is not compared.
shown=$(sed -n 's|^//  *||p' $header | program)
empty manual_shows_hello_c "$([ -n "$shown" ] || echo 'the manual shows no program'; diff <(echo "$shown") <(program <examples/hello.c))"

empty browser_client_in_the_header_is_the_file "$(tools/embed.sh --check 2>&1)"

# --- the one-way rule ---

empty banners_stand_outside_of_if "$(awk '/^# *if/ { depth++ } /^# *endif/ { depth-- } /^\/\/ >>/ && depth > 0 { print $2 " at line " NR }' $header)"
empty no_private_prototypes "$(grep -nE '^(RTPUSH_UNUSED )?static [a-z].*\brp_[a-z0-9_]*\([^;{]*\);$' $header)"

if command -v ctags >/dev/null && ctags --version | grep -q Universal; then
    ctags -x --_xformat='%N %n %{end}' --kinds-C=f --language-force=C $header >"$out/functions"
    # Calls from a function to one of a later room, and the functions' lengths. Strings and comments are cut out first.
    awk -v lengths="$out/lengths" -v functions="$out/functions" '
        FILENAME == functions { if ($3 != "" && (!($1 in end) || $3 - $2 > end[$1] - start[$1])) { start[$1] = $2; end[$1] = $3 } next }
        /^\/\/ >>/ { room++; name[room] = substr($2, 3) }
        { at[FNR] = room }
        { gsub(/\\./, ""); gsub(/"[^"]*"/, "\"\""); sub(/\/\/.*/, ""); gsub(/\/\*[^*]*\*\//, ""); line[FNR] = $0 }
        END {
            for (f in start) {
                print end[f] - start[f] + 1 " " f > lengths
                for (i = start[f]; i <= end[f]; i++) {
                    rest = line[i]
                    while (match(rest, /[A-Za-z_][A-Za-z0-9_]*/)) {
                        g = substr(rest, RSTART, RLENGTH)
                        rest = substr(rest, RSTART + RLENGTH)
                        if (g != f && (g in start) && at[start[g]] > at[start[f]] && !((f, g) in told)) {
                            told[f, g] = 1
                            print "[" name[at[start[f]]] "] " f " calls down to [" name[at[start[g]]] "] " g
                        }
                    }
                }
            }
        }' "$out/functions" $header | sort >"$out/down"
    [ -f "$out/lengths" ] || : >"$out/lengths"
    empty no_call_runs_down_the_page "$(cat "$out/down")"
    sort -n "$out/lengths" | awk '{ n[NR] = $1; f = $2 } END { if (!NR) exit; m = int((NR + 1) / 2); q = int(NR * 0.95); if (q < 1) q = 1
        printf "%d %d %d %d %s\n", NR, n[m], n[q], n[NR], f }' >"$out/figures"
    read -r count median p95 longest longest_name <"$out/figures" || count=0 median=0 p95=0 longest=0 longest_name=none
    echo "# $count functions: median $median lines, 95th percentile $p95, longest $longest ($longest_name)"
    empty functions_are_short "$([ "$count" -gt 0 ] || echo 'no function found'; [ "$median" -le 12 ] || echo "median $median, at most 12"; [ "$p95" -le 45 ] || echo "95th percentile $p95, at most 45")"
    # A private function says where it stands: rp_<room>_<verb>.
    empty private_names_begin_with_rp "$(awk '$1 !~ /^(rp_|rtpush_)/ { print $1 " at line " $2 }' "$out/functions")"
else
    for name in no_call_runs_down_the_page functions_are_short private_names_begin_with_rp; do skip $name "no Universal Ctags"; done
fi

# Every prefix of the header that ends before a banner is a library by itself: what it calls stands above. Each is
# compiled; each fifth, and the whole, is linked, too.
if gcc -fkeep-static-functions -x c -c /dev/null -o "$out/probe.o" 2>/dev/null; then
    prefix() { # prefix NAME LINES VERB FLAGS...
        local name=$1 verb=$3
        head -n "$2" $header >"$out/prefix.h"
        gcc -std=c11 -D_GNU_SOURCE -DRTPUSH_IMPLEMENTATION -Werror=implicit-function-declaration "${@:4}" -x c "$out/prefix.h" >"$out/log" 2>&1
        empty "prefix_before_${name}_$verb" "$([ $? -eq 0 ] || { grep -E 'error|undefined' "$out/log" || cat "$out/log"; } | head -n 6)"
    }
    compiles() { prefix "$1" "$2" compiles -fsyntax-only; }
    links() { prefix "$1" "$2" links -shared -fPIC -fkeep-static-functions -Wl,-z,defs -o "$out/prefix.so"; }
    prefixes=0
    while IFS=: read -r line banner; do
        tag=$(sed 's,^// >>\([^ ]*\).*,\1,' <<<"$banner")
        [ "$line" -ge 4 ] || continue
        prefixes=$((prefixes + 1))
        if [ $((prefixes % 5)) -eq 0 ]; then links "$tag" $((line - 2)); else compiles "$tag" $((line - 2)); fi
    done < <(grep -n '^// >>' $header)
    links the_end "$(wc -l <$header)"
else skip prefixes_link "no gcc with -fkeep-static-functions"; fi

# --- the tests know the whole API ---

declared=$(sed -n '1,/^#endif \/\/ RTPUSH_H/s/^RTPUSH_DEF [^(]*[ *]\(rtpush_[a-z0-9_]*\)(.*/\1/p' $header)
empty every_public_function_is_called_in_use_c "$([ -n "$declared" ] || echo 'no declaration found'; for name in $declared; do grep -q "\b$name(" tests/compile/use.c || echo "$name"; done)"

# --- the files ---

files() { { git ls-files -co --exclude-standard 2>/dev/null || find . -type f -not -path '*/node_modules/*' -not -path './build/*' -not -path './.git/*' | sed 's,^\./,,'; } | while read -r f; do [ ! -f "$f" ] || echo "$f"; done; }
# lines_with PATTERN: the text lines that hold it.
lines_with() { files | tr '\n' '\0' | xargs -0 grep -nIE "$1" /dev/null; }
empty no_trailing_white_space "$(lines_with '[[:space:]]+$' | grep -v '\.patch:[0-9]*: $')" # a patch has its empty lines so
empty no_path_of_one_machine "$(lines_with '/wor[k]/|/tmp/part[s]|/hom[e]/[a-z]|/roo[t]/')"
empty no_registry_host "$(lines_with 'registr[y]\.[a-z]|npmj[s]\.|pyp[i]\.org|(deb|ftp|security|archive)\.(debia[n]|ubunt[u])|crate[s]\.io|prox[y]\.golang')"
empty nothing_else_at_the_top "$(files | sed 's,/.*,,' | sort -u | grep -vxE 'rtpush\.h|examples|tests|tools|README\.md|UNLICENSE|\..*')"

if [ $skipped -gt 0 ]; then echo "$passed passed, $failed failed, $skipped skipped"; else echo "$passed passed, $failed failed"; fi
[ $failed -eq 0 ]
