// The request head: what is accepted is clean, and a prefix never says otherwise than the whole.
#define RTPUSH_IMPLEMENTATION
#define RTPUSH_PARSERS_ONLY
#include "../../rtpush.h"

#include "fuzz.h"

const fuzz_seed fuzz_seeds[] = {
    SEED("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    SEED("POST /live/a%20b?c=d&e HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello"),
    SEED("POST /x HTTP/1.1\r\nHost: [::1]:8080\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    SEED("GET /w HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"),
    SEED("GET http://a.b:1/p?q HTTP/1.1\r\nHost: a.b:1\r\nConnection: close\r\n\r\n"),
    SEED("OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
    SEED("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\nX: \x80\xff\t y\r\n\r\n"),
    {NULL, 0},
};

static bool is_inside(rtpush_slice s, const char *data, size_t size) {
    return !s.size || (s.data >= data && s.size <= size && (size_t)(s.data - data) <= size - s.size);
}

static bool is_named(rtpush_slice s, const char *name) {
    if (s.size != strlen(name)) return false;
    for (size_t i = 0; i < s.size; i++)
        if ((s.data[i] | 0x20) != (name[i] | 0x20)) return false;
    return true;
}

static size_t count_of(const rtpush_head *h, const char *name) {
    size_t count = 0;
    for (size_t i = 0; i < h->count; i++) count += is_named(h->headers[i].name, name);
    return count;
}

// RFC 9112 §2.2: no bare CR or LF, no control character but the tab, and no two ways to see where the body ends.
static void check_accepted(const rtpush_head *h, const char *data, size_t size) {
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)data[i];
        RULE(c >= ' ' || c == '\t' || c == '\r' || c == '\n');
        RULE(c != 127);
        if (c == '\r') RULE(i + 1 < size && data[i + 1] == '\n');
        if (c == '\n') RULE(i > 0 && data[i - 1] == '\r');
    }
    RULE(size >= 4 && !memcmp(data + size - 4, "\r\n\r\n", 4));
    RULE(h->count <= RTPUSH_HEADERS_MAX && (h->minor == 0 || h->minor == 1));
    RULE(is_inside(h->method, data, size) && is_inside(h->target, data, size));
    // RFC 9112 §3.2.1: an absolute form without a path means "/", which stands nowhere in the bytes.
    RULE(is_inside(h->path, data, size) || (h->path.size == 1 && *h->path.data == '/' && *h->target.data != '/'));
    RULE(is_inside(h->query, data, size) && is_inside(h->host, data, size) && h->method.size && h->target.size);
    for (size_t i = 0; i < h->count; i++) RULE(is_inside(h->headers[i].name, data, size) && is_inside(h->headers[i].value, data, size) && h->headers[i].name.size);
    size_t lengths = count_of(h, "Content-Length"), codings = count_of(h, "Transfer-Encoding"), hosts = count_of(h, "Host");
    RULE(lengths + codings <= 1 && hosts <= 1 && (hosts == 1 || h->minor == 0));
    RULE(h->has_length == (lengths == 1) && h->is_chunked == (codings == 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    static rtpush_head h;
    const char *data = (const char *)bytes;
    ptrdiff_t whole = rtpush_parse_head(&h, data, size, 0, 0, 0);
    RULE(whole <= (ptrdiff_t)size);
    RULE(whole >= 0 || whole == -400 || whole == -414 || whole == -417 || whole == -431 || whole == -501 || whole == -505);
    if (whole > 0) check_accepted(&h, data, (size_t)whole);
    size_t step = size > 256 ? size / 64 : 1;
    for (size_t n = 0; n < size; n += step) {
        ptrdiff_t got = rtpush_parse_head(&h, data, n, 0, 0, 0);
        if (whole > 0) RULE(got == (n >= (size_t)whole ? whole : 0));
        else if (whole == 0) RULE(got == 0);
        else RULE(got <= 0); // a refusal may be another once more is known, but never an acceptance
    }
    return 0;
}
