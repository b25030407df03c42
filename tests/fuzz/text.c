// UTF-8 and JSON: cuts change nothing, what was impossible stays so, and a JSON text is UTF-8 that can be wrapped.
#define RTPUSH_IMPLEMENTATION
#define RTPUSH_PARSERS_ONLY
#include "../../rtpush.h"

#include "fuzz.h"

const fuzz_seed fuzz_seeds[] = {
    SEED("{\"a\":[1,-2.5e+3,true,false,null,\"\\u00e4\\n\"],\"b\":{}}"),
    SEED("[[[[[[[[1]]]]]]]]"),
    SEED("\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\""),
    SEED(" [ 0 , -0.1E-9 , \"\\\"\\\\\\/\\b\\f\\n\\r\\t\" ] \r\n"),
    SEED("plain text that is long enough for what goes by words or vectors \xf4\x8f\xbf\xbf and on and on and on"),
    SEED("\xed\x9f\xbf\xee\x80\x80\xe0\xa0\x80\xf0\x90\x80\x80"),
    {NULL, 0},
};

static int class_of(uint32_t state) {
    return state == 0 ? 0 : state == RTPUSH_UTF8_BAD ? 1 : 2;
}

static int check_utf8(const uint8_t *data, size_t size) {
    int whole = class_of(rtpush_utf8(0, data, size));
    uint32_t state = 0;
    for (size_t i = 0; i < size; i++) {
        bool was_bad = class_of(state) == 1;
        state = rtpush_utf8(state, data + i, 1);
        RULE(!was_bad || class_of(state) == 1);
    }
    RULE(class_of(state) == whole);
    for (size_t cut = 0; cut <= size && cut < 64; cut++) RULE(class_of(rtpush_utf8(rtpush_utf8(0, data, cut), data + cut, size - cut)) == whole);
    return whole;
}

static void check_json(const uint8_t *data, size_t size, int utf8) {
    bool is_json = rtpush_is_json(data, size);
    RULE(!is_json || utf8 == 0);
    size_t depth = 0;
    for (size_t i = 0; i < size; i++) depth += data[i] == '[' || data[i] == '{';
    if (depth > 60) return;
    char *wrapped = (char *)malloc(size + 9);
    if (!wrapped) return;
    memcpy(wrapped, " {\"k\":", 6);
    if (size) memcpy(wrapped + 6, data, size);
    memcpy(wrapped + 6 + size, "} ", 2);
    if (is_json) RULE(rtpush_is_json(wrapped, size + 8));
    memcpy(wrapped + 6 + size, "\0}", 2);
    RULE(!rtpush_is_json(wrapped, size + 8));
    free(wrapped);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    check_json(data, size, check_utf8(data, size));
    return 0;
}
