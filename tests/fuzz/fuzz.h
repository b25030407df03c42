// What the targets share. Each target is one file: seeds, and LLVMFuzzerTestOneInput with the rules that must
// hold for any bytes. A broken rule traps, which libFuzzer and main.c both report.
//
//     clang -g -fsanitize=fuzzer,address,undefined tests/fuzz/head.c -o build/fuzz-head && build/fuzz-head
//     cc -g -fsanitize=address,undefined tests/fuzz/main.c tests/fuzz/head.c -o build/fuzz-head && build/fuzz-head
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct fuzz_seed {
    const char *data;
    size_t size;
} fuzz_seed;

#define SEED(text) {text, sizeof(text) - 1}

extern const fuzz_seed fuzz_seeds[]; // ends with one whose data is NULL

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RULE(condition)                                                                  \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #condition);      \
            abort();                                                                     \
        }                                                                                \
    } while (0)

#endif
