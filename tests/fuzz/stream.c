// The event stream, as a client reads it (WHATWG HTML §9.2.6): however the bytes are cut, the same events come.
#define RTPUSH_IMPLEMENTATION
#define RTPUSH_STATIC
#include "../../rtpush.h"

#include "fuzz.h"

const fuzz_seed fuzz_seeds[] = {
    SEED("retry: 3000\n: rtpush\nid: k3f9x2ab-0\n\nid: k3f9x2ab-1\ndata: a\ndata: b\n\n"),
    SEED("\xef\xbb\xbf""data: x\r\rdata:y\r\n\r\nevent: gap\rdata: {}\n\n"),
    SEED("id\nid: a\nid: \0\ndata\ndata\n\nretry: 1x\nretry: 20\nfoo: bar\n:\n\ndata: unfinished\n"),
    SEED("data:  two spaces\n\nid: unfinished"),
    {NULL, 0},
};

enum { LIMIT = 64 };

// All that a stream says, as one text; `cut` bytes at a time.
static size_t events_of(rp_mem *mem, rp_buf *said, const char *data, size_t size, size_t cut) {
    rp_stream_in in;
    size_t count = 0, at = 0;
    memset(&in, 0, sizeof in);
    rp_buf_rewind(said);
    while (at < size) {
        bool is_event;
        ptrdiff_t n = rp_stream_in_take(mem, &in, data + at, RP_MIN(cut, size - at), LIMIT, &is_event);
        if (n < 0) { rp_buf_text(mem, said, "!"); break; }
        RULE(n > 0 && (size_t)n <= RP_MIN(cut, size - at));
        RULE(rp_buf_size(&in.line) <= LIMIT && rp_buf_size(&in.data) <= 2 * LIMIT);
        at += (size_t)n;
        if (!is_event) continue;
        count++;
        RULE(!rp_buf_size(&in.line) && (in.has_data || !rp_buf_size(&in.data)));
        rp_buf_text(mem, said, in.has_data ? in.is_moved ? "D" : "d" : in.is_moved ? "I" : "i");
        rp_buf_slice_put(mem, said, rp_buf_slice(&in.data));
        rp_buf_put(mem, said, "\1", 1);
        rp_buf_slice_put(mem, said, rp_buf_slice(&in.event));
        rp_buf_put(mem, said, "\2", 1);
        rp_buf_slice_put(mem, said, rp_buf_slice(&in.id));
        RULE(!rp_buf_size(&in.id) || !memchr(rp_buf_slice(&in.id).data, 0, rp_buf_size(&in.id)));
        rp_buf_put(mem, said, "\3", 1);
        rp_buf_number(mem, said, in.has_retry ? in.retry_ms : 0);
        rp_stream_in_next(&in);
    }
    rp_stream_in_free(mem, &in);
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    rp_mem mem = {rp_mem_default, NULL, 0};
    rp_buf whole, cut;
    memset(&whole, 0, sizeof whole);
    memset(&cut, 0, sizeof cut);
    size_t count = events_of(&mem, &whole, (const char *)bytes, size, size + 1);
    for (size_t n = 1; n <= 7; n += 2) {
        RULE(events_of(&mem, &cut, (const char *)bytes, size, n) == count && rp_buf_size(&cut) == rp_buf_size(&whole));
        RULE(!rp_buf_size(&whole) || !memcmp(rp_buf_slice(&cut).data, rp_buf_slice(&whole).data, rp_buf_size(&whole)));
    }
    rp_buf_free(&mem, &whole);
    rp_buf_free(&mem, &cut);
    return 0;
}
