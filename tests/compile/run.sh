#!/usr/bin/env bash
# Every compiler and standard, without a warning, and the programs must run. From the repository's top:
#     bash tests/compile/run.sh
set -u
cd "$(dirname "$0")/../.." || exit 1
here=tests/compile out=build/compile
rm -rf "$out"
mkdir -p "$out"
warnings=(-Wall -Wextra -pedantic -Wconversion -Wshadow -Wcast-qual -Werror)
passed=0 failed=0 skipped=0

ok() { echo "ok $1"; passed=$((passed + 1)); }
not_ok() {
    echo "not ok $1: $2"
    failed=$((failed + 1))
}
skip() {
    echo "skip $1: $2"
    skipped=$((skipped + 1))
}

# try NAME COMMAND...: the command succeeds.
try() {
    local name=$1
    shift
    if "$@" >"$out/log" 2>&1; then ok "$name"; else
        not_ok "$name" "$*"
        head -n 12 "$out/log" | cut -c 1-240 | sed 's/^/    /'
    fi
}

# build NAME COMMAND...: it compiles and links to $out/NAME, which then runs.
build() {
    local name=$1
    shift
    rm -f "$out/$name"
    try "$name" bash -c '"$@" -o "$0" && "$0"' "$out/$name" "$@"
}

# build_32 NAME COMMAND...: the same for 32 bits, run where the kernel runs such programs.
build_32() {
    local name=$1
    shift
    if [ $runs_32 ]; then build "$name" "$@"; else try "${name}_links" "$@" -o "$out/$name"; fi
}

# empty NAME TEXT: nothing was found.
empty() {
    if [ -z "$2" ]; then ok "$1"; else not_ok "$1" "$(echo $2 | cut -c 1-300)"; fi
}

# --- every standard ---

c=() cxx=()
for name in gcc clang; do if command -v $name >/dev/null; then c+=("$name"); else skip "compile_$name" "no $name"; fi; done
for name in g++ clang++; do if command -v $name >/dev/null; then cxx+=("$name"); else skip "compile_$name" "no $name"; fi; done
for name in "${c[@]}"; do
    for std in c99 c2x; do build "${name}_$std" "$name" -std=$std "${warnings[@]}" $here/use.c; done
    for std in c11 c17; do try "${name}_$std" "$name" -fsyntax-only -std=$std "${warnings[@]}" $here/use.c; done
    build "${name}_c99_O2" "$name" -std=c99 -O2 "${warnings[@]}" $here/use.c
    if [ "$name" = gcc ]; then build "${name}_c11_O3_native_without_assertions" "$name" -std=c11 -O3 -march=native -DNDEBUG "${warnings[@]}" $here/use.c; fi
    build "${name}_default_standard_after_stdio" "$name" "${warnings[@]}" -include stdio.h $here/use.c
    build "${name}_gnu_source_given" "$name" -D_GNU_SOURCE "${warnings[@]}" $here/use.c
    if echo 'int main(void) { return 0; }' | "$name" -m32 -x c - -o "$out/m32" 2>/dev/null; then
        runs_32=
        if "$out/m32" 2>/dev/null; then runs_32=yes; else echo "    $name -m32: this kernel runs no 32-bit program; compiled and linked only"; fi
        build_32 "${name}_m32_O0" "$name" -m32 -std=c99 "${warnings[@]}" $here/use.c
        if [ "$name" = gcc ]; then build_32 "${name}_m32_O2" "$name" -m32 -O2 -std=c99 "${warnings[@]}" $here/use.c; fi
    else skip "${name}_m32" "no 32-bit libc (gcc-multilib)"; fi
done
for name in "${cxx[@]}"; do
    for std in c++11 c++20; do build "${name}_$std" "$name" -std=$std "${warnings[@]}" -x c++ $here/use.c; done
    for std in c++14 c++17; do try "${name}_$std" "$name" -fsyntax-only -std=$std "${warnings[@]}" -x c++ $here/use.c; done
    if [ "$name" = g++ ]; then build "${name}_c++11_O2" "$name" -std=c++11 -O2 "${warnings[@]}" -x c++ $here/use.c; fi
done

# --- units ---

for name in "${c[@]}" "${cxx[@]}"; do
    case $name in *++) language=c++ ;; *) language=c ;; esac
    flags=("${warnings[@]}" -x $language)
    # What each compiler sees differently it has seen above; here a C and a C++ compiler are enough, of two makers.
    [ "$name" = gcc ] || [ "$name" = clang++ ] || continue
    build "${name}_two_units" "$name" "${flags[@]}" -DUSE_EXTERN $here/use.c $here/impl.c
    build "${name}_static" "$name" "${flags[@]}" -DRTPUSH_STATIC $here/use.c
    build "${name}_static_two_copies" "$name" "${flags[@]}" -DRTPUSH_STATIC -DUSE_FEW $here/use.c $here/static_few.c
    build "${name}_parsers_only" "$name" "${flags[@]}" $here/parsers_only.c
    build "${name}_no_client" "$name" "${flags[@]}" -DRTPUSH_NO_CLIENT $here/use.c
    build "${name}_no_redis" "$name" "${flags[@]}" -DRTPUSH_NO_REDIS $here/use.c
    build "${name}_no_client_no_redis_no_threads" "$name" "${flags[@]}" -DRTPUSH_NO_CLIENT -DRTPUSH_NO_REDIS -DRTPUSH_NO_THREADS $here/use.c
    build "${name}_no_threads" "$name" "${flags[@]}" -DRTPUSH_NO_THREADS $here/use.c
    if echo '#include <openssl/ssl.h>' | "$name" -x c -E - >/dev/null 2>&1; then
        build "${name}_openssl" "$name" "${flags[@]}" -DRTPUSH_OPENSSL $here/use.c -x none -lssl -lcrypto
        build "${name}_openssl_no_client" "$name" "${flags[@]}" -DRTPUSH_OPENSSL -DRTPUSH_NO_CLIENT $here/use.c -x none -lssl -lcrypto
    else skip "${name}_openssl" "no OpenSSL headers (libssl-dev)"; fi
done
if [ ${#c[@]} -gt 0 ] && [ ${#cxx[@]} -gt 0 ]; then
    try c_unit_compiles "${c[0]}" -c $here/impl.c -o "$out/impl.o"
    build c_library_in_a_c++_program "${cxx[0]}" "${warnings[@]}" -DUSE_EXTERN -x c++ $here/use.c -x none "$out/impl.o"
    try c++_unit_compiles "${cxx[0]}" -x c++ -c $here/impl.c -o "$out/impl++.o"
    build c++_library_in_a_c_program "${cxx[0]}" "${warnings[@]}" -x c -DUSE_EXTERN $here/use.c -x none "$out/impl++.o"
fi

# --- names ---

for name in "${c[@]}"; do
    "$name" -fno-pic -c $here/impl.c -o "$out/names.o" 2>/dev/null
    exported=$(nm -g --defined-only "$out/names.o" | awk '{ print $3 }')
    empty "${name}_exports_only_rtpush_names" "$([ -n "$exported" ] || echo 'nothing exported'; grep -v '^rtpush_' <<<"$exported")"
    empty "${name}_has_no_mutable_file_scope_variable" "$(nm "$out/names.o" | awk '$2 ~ /^[bBdDC]$/ { print $3 }')"
    "$name" -DRTPUSH_STATIC -c $here/static_few.c -o "$out/few.o" 2>/dev/null
    empty "${name}_static_exports_nothing" "$([ -s "$out/few.o" ] || echo 'not compiled'; nm -g --defined-only "$out/few.o" | awk '$3 != "few" { print $3 }')"
    "$name" -c $here/parsers_only.c -o "$out/parsers.o" 2>/dev/null
    empty "${name}_parsers_only_defines_no_more" "$([ -s "$out/parsers.o" ] || echo 'not compiled'
        nm -g --defined-only "$out/parsers.o" | awk '{ print $3 }' | grep -vE '^(main|rtpush_(strerror|parse_(head|answer|chunked|frame|cursor)|mask|utf8|is_json|is_topic|matches))$')"
    empty "${name}_parsers_only_needs_only_memory_and_strings" "$(nm -u "$out/parsers.o" | awk '{ print $2 }' | grep -vE '^(mem|str)[a-z]+$|^__stack_chk_fail$|^_GLOBAL_OFFSET_TABLE_$')"
    "$name" $here/use.c -o "$out/needs" 2>/dev/null
    empty "${name}_needs_only_libc" "$([ -s "$out/needs" ] || echo 'not linked'; objdump -p "$out/needs" 2>/dev/null | awk '$1 == "NEEDED" && $2 !~ /^libc\.so/ { print $2 }')"
done

# --- the programs: their own cc line, in a clean copy, and every warning ---

rm -rf "$out/copy"
mkdir -p "$out/copy"
cp -r rtpush.h examples tools "$out/copy"
for file in examples/*.c tools/*.c; do
    [ -e "$file" ] || continue
    name=$(basename "$file" .c)
    line=$(grep -m 1 -oE '\bcc .*' "$file" | sed 's/ *&&.*//; s/ *\*\/$//')
    # With every warning. That the header has none with -O2 was seen above; the program's own line is taken with -O0, which
    # is done in a third of the time, and clang's warnings come from its front end.
    if [[ $line == *"$file"* ]]; then try "${name}_its_own_cc_line_without_warnings" bash -c "cd '$out/copy' && ${line/-O2/-O0} ${warnings[*]}"; else not_ok "${name}_its_own_cc_line" "no cc line with $file in its first comment"; fi
    if command -v clang >/dev/null; then try "${name}_clang_without_warnings" clang -fsyntax-only "${warnings[@]}" "$file"; fi
done

echo "$passed passed, $failed failed$([ $skipped -gt 0 ] && echo ", $skipped skipped")"
[ $failed -eq 0 ]
