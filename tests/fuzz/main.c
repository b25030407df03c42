// A driver for compilers without libFuzzer: a fixed number of random mutations of the target's seeds, the same
// ones in every run. `--corpus DIR` writes the seeds as files instead, for libFuzzer to start from.
//
//     cc tests/fuzz/main.c tests/fuzz/head.c -o build/fuzz-head && build/fuzz-head [ROUNDS [SEED]]
#include "fuzz.h"

#define ROOM 4096

static uint64_t state;

static size_t below(size_t bound) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(state >> 33) % bound;
}

static size_t seed_count(void) {
    size_t count = 0;
    while (fuzz_seeds[count].data) count++;
    return count;
}

static size_t insert(char *text, size_t size, size_t at, const char *what, size_t len) {
    if (len > ROOM - size) return size;
    memmove(text + at + len, text + at, size - at);
    memmove(text + at, what, len);
    return size + len;
}

static size_t mutate(char *text, size_t size) {
    static const char *const tokens[] = {"\r\n", "\n", "\r", " ", "\t", ":", "0", "ffffffffffffffff", "9223372036854775808", "\xff", "\xed\xa0\x80",
                                         "\xf4\x8f\xbf\xbf", ",", "*", "/", "-", "\"", "\\u", "[", "{", "chunked", "\x7f", "\x80", "@"};
    size_t at = size ? below(size) : 0;
    size_t len = size - at ? 1 + below(size - at < 40 ? size - at : 40) : 0;
    char copy[40];
    switch (below(7)) {
    case 0:
        if (size) text[at] = (char)(text[at] ^ (1 << below(8)));
        return size;
    case 1:
        if (size) text[at] = (char)below(256);
        return size;
    case 2:
        memmove(text + at, text + at + len, size - at - len);
        return size - len;
    case 3:
        memcpy(copy, text + at, len);
        return insert(text, size, below(size + 1), copy, len);
    case 4: {
        const char *token = tokens[below(sizeof tokens / sizeof *tokens)];
        return insert(text, size, at, token, strlen(token));
    }
    case 5: return insert(text, size, at, "", 1); // a NUL
    default: {
        const fuzz_seed *other = &fuzz_seeds[below(seed_count())];
        size_t from = other->size ? below(other->size) : 0;
        return insert(text, at, at, other->data + from, other->size - from); // what was behind is gone
    }
    }
}

static void one(void) {
    static char text[ROOM];
    const fuzz_seed *seed = &fuzz_seeds[below(seed_count())];
    size_t size = seed->size;
    memcpy(text, seed->data, size);
    for (size_t i = below(8); i; i--) size = mutate(text, size);
    uint8_t *exact = (uint8_t *)malloc(size ? size : 1); // so that a sanitizer sees the first byte too far
    if (!exact) exit(1);
    memcpy(exact, text, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

static int write_corpus(const char *folder) {
    for (size_t i = 0; i < seed_count(); i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/seed-%zu", folder, i);
        FILE *file = fopen(path, "wb");
        if (!file || fwrite(fuzz_seeds[i].data, 1, fuzz_seeds[i].size, file) != fuzz_seeds[i].size || fclose(file)) return 1;
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "--corpus")) return write_corpus(argv[2]);
    long rounds = argc > 1 ? atol(argv[1]) : 200000;
    state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    for (long i = 0; i < rounds; i++) one();
    printf("%ld inputs\n", rounds);
    return 0;
}
