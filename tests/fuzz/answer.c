// The answer's head, as a client reads it: what is accepted is clean, and a prefix never says otherwise than the whole.
#define RTPUSH_IMPLEMENTATION
#define RTPUSH_PARSERS_ONLY
#include "../../rtpush.h"

#include "fuzz.h"

const fuzz_seed fuzz_seeds[] = {
    SEED("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"),
    SEED("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"),
    SEED("HTTP/1.0 503 \r\nRetry-After: 5\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nhi"),
    SEED("HTTP/1.1 204\r\n\r\n"),
    SEED("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
    SEED("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\nX: \x80\xff\t y\r\n\r\n"),
    {NULL, 0},
};

static void check_accepted(const rtpush_head *h, const char *data, size_t size) {
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)data[i];
        RULE((c >= ' ' && c != 127) || c == '\t' || c == '\r' || c == '\n');
        if (c == '\r') RULE(i + 1 < size && data[i + 1] == '\n');
        if (c == '\n') RULE(i > 0 && data[i - 1] == '\r');
    }
    RULE(size >= 4 && !memcmp(data + size - 4, "\r\n\r\n", 4) && !memcmp(data, "HTTP/1.", 7));
    RULE(h->status >= 100 && h->status <= 599 && (h->minor == 0 || h->minor == 1) && h->count <= RTPUSH_HEADERS_MAX);
    RULE(!(h->is_chunked && h->has_length) && (h->minor || !h->is_chunked));
    RULE(!h->wants_websocket || (h->status == 101 && h->minor));
    for (size_t i = 0; i < h->count; i++) {
        const char *name = h->headers[i].name.data, *value = h->headers[i].value.data;
        RULE(h->headers[i].name.size && name > data && name + h->headers[i].name.size < data + size);
        RULE(value > name && value + h->headers[i].value.size <= data + size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    static rtpush_head h;
    const char *data = (const char *)bytes;
    ptrdiff_t whole = rtpush_parse_answer(&h, data, size, 0, 0);
    RULE(whole <= (ptrdiff_t)size);
    RULE(whole >= 0 || whole == -400 || whole == -417 || whole == -431 || whole == -501);
    if (whole > 0) check_accepted(&h, data, (size_t)whole);
    size_t step = size > 256 ? size / 64 : 1;
    for (size_t n = 0; n < size; n += step) {
        ptrdiff_t got = rtpush_parse_answer(&h, data, n, 0, 0);
        if (whole > 0) RULE(got == (n >= (size_t)whole ? whole : 0));
        else if (whole == 0) RULE(got == 0);
        else RULE(got <= 0);
    }
    return 0;
}
