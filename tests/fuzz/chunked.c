// Chunked coding: however the bytes are cut, the same body, the same end, the same verdict.
#define RTPUSH_IMPLEMENTATION
#define RTPUSH_PARSERS_ONLY
#include "../../rtpush.h"

#include "fuzz.h"

const fuzz_seed fuzz_seeds[] = {
    SEED("5\r\nhello\r\n0\r\n\r\n"),
    SEED("a;x=\"y\"\r\n0123456789\r\n1\r\na\r\n0\r\nX: y\r\n\r\nGET /"),
    SEED("0000000000000005\r\nhello\r\n000;z\r\n\r\n"),
    SEED("7fffffffffffffff\r\nabc"),
    SEED("1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\nA: b\r\nC: d\r\n\r\n"),
    {NULL, 0},
};

typedef struct run {
    rtpush_chunked state;
    uint64_t hash; // of the body
    size_t body, taken;
    bool is_bad;
} run;

static void feed(run *r, const char *data, size_t size) {
    while (size && !r->state.is_done && !r->is_bad) {
        rtpush_slice body = {NULL, 0};
        ptrdiff_t got = rtpush_parse_chunked(&r->state, data, size, &body);
        if (got < 0) {
            RULE(got == -1);
            r->is_bad = true;
            return;
        }
        RULE(got > 0 && (size_t)got <= size);
        RULE(!body.size || (body.data >= data && body.size <= (size_t)got && (size_t)(body.data - data) <= (size_t)got - body.size));
        for (size_t i = 0; i < body.size; i++) r->hash = (r->hash ^ (unsigned char)body.data[i]) * 1099511628211u;
        r->body += body.size;
        r->taken += (size_t)got;
        data += got;
        size -= (size_t)got;
    }
}

static run cut(const char *data, size_t size, size_t piece) {
    run r;
    memset(&r, 0, sizeof r);
    for (size_t at = 0; at < size; at += piece) feed(&r, data + at, piece < size - at ? piece : size - at);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    const char *data = (const char *)bytes;
    run whole = cut(data, size, size ? size : 1);
    for (size_t piece = 1; piece <= 7; piece++) {
        run r = cut(data, size, piece);
        RULE(r.is_bad == whole.is_bad && r.state.is_done == whole.state.is_done);
        if (r.is_bad) continue; // how much of a bad body was given before depends on the cuts
        RULE(r.body == whole.body && r.hash == whole.hash && r.taken == whole.taken);
    }
    if (whole.state.is_done) RULE(whole.taken >= 5 && !memcmp(data + whole.taken - 2, "\r\n", 2));
    return 0;
}
