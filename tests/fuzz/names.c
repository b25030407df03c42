// Cursors, topics and patterns. The input is a pattern and a name, with a NUL between them.
#define RTPUSH_IMPLEMENTATION
#define RTPUSH_PARSERS_ONLY
#include "../../rtpush.h"

#include "fuzz.h"

const fuzz_seed fuzz_seeds[] = {
    SEED("k3f9x2ab-1042"),
    SEED("00000000-18446744073709551615"),
    SEED("sport/*\0sport/a"),
    SEED("sport/**\0sport/a/b"),
    SEED("**\0@user/ann"),
    SEED("@presence/*\0@presence/a"),
    SEED("\xc3\xa4/b\0\xc3\xa4/b"),
    {NULL, 0},
};

static void check_cursor(const char *data, size_t size) {
    rtpush_cursor c, again;
    if (!rtpush_parse_cursor(&c, data, size)) return;
    char text[40];
    int len = snprintf(text, sizeof text, "%s-%llu", c.epoch, (unsigned long long)c.seq);
    RULE(strlen(c.epoch) == 8 && size >= 10 && size <= 29 && !memcmp(text, data, 9));
    RULE(rtpush_parse_cursor(&again, text, (size_t)len) && again.seq == c.seq && !strcmp(again.epoch, c.epoch));
}

static void check_topic(const char *data, size_t size) {
    bool is_name = rtpush_is_topic(data, size, false), is_pattern = rtpush_is_topic(data, size, true);
    RULE(!is_name || is_pattern);
    if (!is_pattern) return;
    RULE(size >= 1 && size <= 255 && rtpush_utf8(0, data, size) == 0);
    RULE(data[0] != '/' && data[size - 1] != '/' && is_name == !memchr(data, '*', size));
    for (size_t i = 0; i < size; i++) RULE((unsigned char)data[i] >= ' ' && data[i] != 127 && (i == 0 || data[i] != '/' || data[i - 1] != '/'));
}

// Both are NUL-terminated and valid.
static void check_match(const char *pattern, const char *name) {
    bool matches = rtpush_matches(pattern, name);
    size_t stem = strcspn(pattern, "*");
    RULE(rtpush_matches(name, name));
    if (!pattern[stem]) RULE(matches == !strcmp(pattern, name));
    else if (matches) {
        RULE(strlen(name) > stem && !memcmp(pattern, name, stem));
        RULE(pattern[stem + 1] == '*' || !strchr(name + stem, '/'));
        RULE(stem > 0 || name[0] != '@');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    const char *data = (const char *)bytes;
    const char *nul = size ? (const char *)memchr(data, 0, size) : NULL;
    check_cursor(data, size);
    check_topic(data, size);
    if (!nul) return 0;
    size_t len = size - (size_t)(nul + 1 - data);
    check_topic(nul + 1, len);
    char *name = (char *)malloc(len + 1);
    if (!name) return 0;
    memcpy(name, nul + 1, len);
    name[len] = 0;
    if (rtpush_is_topic(data, (size_t)(nul - data), true) && rtpush_is_topic(name, len, false)) check_match(data, name);
    free(name);
    return 0;
}
