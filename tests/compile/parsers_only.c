// The parsers alone, as a program that has its own server would take them.
#define RTPUSH_PARSERS_ONLY
#define RTPUSH_IMPLEMENTATION
#include "../../rtpush.h"

static int text_is_good(const char *text, size_t size) {
    return rtpush_utf8(0, text, size) == 0 && rtpush_is_json(text, size);
}

static int names_are_good(void) {
    rtpush_cursor cursor;
    return rtpush_is_topic("a/*", 3, true) && rtpush_matches("a/*", "a/b") && rtpush_parse_cursor(&cursor, "abcdefgh-7", 10);
}

int main(void) {
    static rtpush_head head;
    static rtpush_chunked chunked;
    rtpush_frame frame;
    rtpush_slice body;
    unsigned char data[] = {0x81, 0x82, 1, 2, 3, 4, 'h' ^ 1, 'i' ^ 2};
    int good = rtpush_parse_head(&head, "GET / HTTP/1.0\r\n\r\n", 18, 0, 0, 0) == 18;
    good = good && rtpush_parse_chunked(&chunked, "0\r\n\r\n", 5, &body) == 5 && chunked.is_done;
    good = good && rtpush_parse_frame(&frame, data, sizeof data) == 6 && rtpush_mask(data + 6, 2, frame.key, 0) == 2;
    return good && data[6] == 'h' && text_is_good("[]", 2) && names_are_good() ? 0 : 1;
}
