// Frame heads and masks: a prefix never says otherwise than the whole; masking twice, and in any pieces, is nothing.
#define RTPUSH_IMPLEMENTATION
#define RTPUSH_PARSERS_ONLY
#include "../../rtpush.h"

#include "fuzz.h"

const fuzz_seed fuzz_seeds[] = {
    SEED("\x81\x85\x01\x02\x03\x04hello"),
    SEED("\x82\xfe\x01\x00\xaa\xbb\xcc\xdd"),
    SEED("\x02\xff\x00\x00\x00\x00\x00\x01\x00\x00\x11\x22\x33\x44"),
    SEED("\x89\x80\x00\x00\x00\x00"),
    SEED("\x88\x82\x01\x02\x03\x04\x02\xea"),
    SEED("\x80\x05hello"),
    {NULL, 0},
};

static void check_head(const uint8_t *data, size_t size) {
    rtpush_frame f, again;
    ptrdiff_t whole = rtpush_parse_frame(&f, data, size);
    RULE(whole <= 14 && whole <= (ptrdiff_t)size);
    RULE(whole >= 0 || whole == -1002 || whole == -1009);
    RULE(whole != 0 || size < 14);
    for (size_t n = 0; n < size && n < 14; n++) {
        ptrdiff_t got = rtpush_parse_frame(&again, data, n);
        RULE(got == 0 || got == whole);
        if (whole > 0) RULE((got == whole) == (n >= (size_t)whole));
    }
    if (whole <= 0) return;
    RULE(f.length >> 63 == 0 && f.opcode <= 10 && (f.opcode < 3 || f.opcode > 7));
    RULE(f.opcode < 8 || (f.is_final && f.length <= 125)); // RFC 6455 §5.5
    RULE(f.is_masked == (data[1] >> 7 != 0) && f.is_final == (data[0] >> 7 != 0));
}

static void check_mask(const uint8_t *data, size_t size) {
    if (size < 6) return;
    size_t len = size - 6, cut = data[4] < len ? data[4] : len;
    uint64_t at = data[5];
    uint8_t *text = (uint8_t *)malloc(len ? len : 1);
    if (!text) return;
    memcpy(text, data + 6, len);
    RULE(rtpush_mask(text, len, data, at) == at + len);
    for (size_t i = 0; i < len; i++) RULE(text[i] == (data[6 + i] ^ data[(at + i) & 3]));
    uint64_t next = rtpush_mask(text, cut, data, at);
    RULE(rtpush_mask(text + cut, len - cut, data, next) == at + len);
    RULE(!memcmp(text, data + 6, len));
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    check_head(data, size);
    check_mask(data, size);
    return 0;
}
