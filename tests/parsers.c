// The public parsers by vectors. Every vector is tried whole, at every split or prefix, byte by byte where the
// parser keeps a state, and always from memory that ends (and once begins) at a page nobody may touch.
//
//     cc -g -fsanitize=address,undefined tests/parsers.c -o build/parsers && build/parsers
#if !defined(_WIN32) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#define RTPUSH_IMPLEMENTATION
#define RTPUSH_PARSERS_ONLY
#include "../rtpush.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

// --- counting ---

static int passed, failed;
static char why[600]; // of the vector at hand; empty: all is well so far

static void wrong(const char *format, ...) {
    va_list args;
    if (*why) return; // the first reason is the one to read
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
}

static void end_of(const char *name) {
    if (*why) printf("not ok %s: %s\n", name, why);
    else printf("ok %s\n", name);
    if (*why) failed++;
    else passed++;
    *why = 0;
}

// --- memory at a guard page ---

#define ROOM ((size_t)1 << 18)
static unsigned char *room; // ROOM bytes, with an untouchable page before and behind

static void make_room(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *all = (unsigned char *)mmap(NULL, ROOM + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == (unsigned char *)MAP_FAILED || mprotect(all, page, PROT_NONE) || mprotect(all + page + ROOM, page, PROT_NONE)) {
        perror("mmap");
        exit(1);
    }
    room = all + page;
}

// A copy whose last byte is the last one before the guard page.
static unsigned char *at_end(const void *data, size_t size) {
    unsigned char *to = room + ROOM - size;
    if (size) memcpy(to, data, size);
    return to;
}

// A copy whose first byte is the first one behind the guard page.
static unsigned char *at_start(const void *data, size_t size) {
    if (size) memcpy(room, data, size);
    return room;
}

static bool is_inside(rtpush_slice s, const char *data, size_t size) {
    if (!s.size) return true;
    return s.data >= data && s.size <= size && (size_t)(s.data - data) <= size - s.size;
}

static bool is_text(rtpush_slice s, const char *text) {
    return s.size == strlen(text) && (!s.size || !memcmp(s.data, text, s.size));
}

static uint64_t random_state = 0x9e3779b97f4a7c15u; // the same numbers in every run

static uint32_t random_below(uint32_t bound) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % bound;
}

// --- the request head ---

// `say` is the verdict: 1 accepted (all but `behind` bytes are the head), else the status. `or_say` is a second
// status that the RFC leaves open, or 0.
typedef struct head_vector {
    const char *name, *text;
    size_t size;
    int say, or_say;
    size_t behind;
} head_vector;

#define HEAD(name, text, say, or_say) {name, text, sizeof(text) - 1, say, or_say, 0}
#define GET(name, headers, say, or_say) HEAD(name, "GET /a HTTP/1.1\r\n" headers "\r\n", say, or_say)
#define WITH(name, headers, say, or_say) GET(name, "Host: a\r\n" headers, say, or_say)
#define LINE(name, line, say, or_say) HEAD(name, line "\r\nHost: a\r\n\r\n", say, or_say)

static const head_vector head_vectors[] = {
    // request line, RFC 9112 §3
    LINE("head_plain_get__rfc9112_3", "GET / HTTP/1.1", 1, 0),
    HEAD("head_http10_without_host__rfc9112_3_2", "GET / HTTP/1.0\r\n\r\n", 1, 0),
    LINE("head_method_is_any_token__rfc9110_9_1", "M-!#$%&'*+.^_`|~09azAZ /x HTTP/1.1", 1, 0),
    LINE("head_absolute_form__rfc9112_3_2_2", "GET http://a/x?y HTTP/1.1", 1, 0),
    LINE("head_options_asterisk__rfc9112_3_2_4", "OPTIONS * HTTP/1.1", 1, 0),
    LINE("head_get_asterisk_is_400__rfc9112_3_2_4", "GET * HTTP/1.1", 400, 0),
    LINE("head_connect_is_refused__rfc9112_3_2_3", "CONNECT a:80 HTTP/1.1", 400, 501),
    LINE("head_target_without_slash_is_400__rfc9112_3_2", "GET a HTTP/1.1", 400, 0),
    LINE("head_two_spaces_before_target_is_400__rfc9112_3", "GET  / HTTP/1.1", 400, 0),
    LINE("head_two_spaces_before_version_is_400__rfc9112_3", "GET /  HTTP/1.1", 400, 505),
    LINE("head_leading_space_is_400__rfc9112_3", " GET / HTTP/1.1", 400, 0),
    LINE("head_trailing_space_is_400__rfc9112_3", "GET / HTTP/1.1 ", 400, 505),
    LINE("head_tab_for_space_is_400__rfc9112_3", "GET\t/ HTTP/1.1", 400, 0),
    LINE("head_tab_before_version_is_400__rfc9112_3", "GET /\tHTTP/1.1", 400, 0),
    LINE("head_space_in_target_is_400__rfc9112_3_2", "GET /a b HTTP/1.1", 400, 505),
    LINE("head_nul_in_target_is_400__rfc9112_3_2", "GET /a\0b HTTP/1.1", 400, 0),
    LINE("head_ctl_in_target_is_400__rfc9112_3_2", "GET /a\001b HTTP/1.1", 400, 0),
    LINE("head_del_in_target_is_400__rfc9112_3_2", "GET /a\177b HTTP/1.1", 400, 0),
    LINE("head_empty_method_is_400__rfc9112_3_1", "/ HTTP/1.1", 400, 505),
    LINE("head_method_not_a_token_is_400__rfc9112_3_1", "G(T / HTTP/1.1", 400, 0),
    LINE("head_no_target_is_400__rfc9112_3", "GET HTTP/1.1", 400, 505),
    HEAD("head_http09_is_refused__rfc9112_2_3", "GET /\r\n\r\n", 400, 505),
    LINE("head_version_20_is_505__rfc9110_15_6_6", "GET / HTTP/2.0", 505, 0),
    LINE("head_version_30_is_505__rfc9110_15_6_6", "GET / HTTP/3.0", 505, 0),
    LINE("head_version_09_is_505__rfc9110_15_6_6", "GET / HTTP/0.9", 505, 0),
    LINE("head_version_12_is_505__rfc9110_15_6_6", "GET / HTTP/1.2", 505, 0),
    LINE("head_version_of_two_digits_is_refused__rfc9112_2_3", "GET / HTTP/1.11", 400, 505),
    LINE("head_version_without_minor_is_refused__rfc9112_2_3", "GET / HTTP/1", 400, 505),
    LINE("head_version_lower_case_is_refused__rfc9112_2_3", "GET / http/1.1", 400, 505),
    LINE("head_version_misspelled_is_refused__rfc9112_2_3", "GET / HTTQ/1.1", 400, 505),
    LINE("head_version_with_sign_is_refused__rfc9112_2_3", "GET / HTTP/+1.1", 400, 505),

    // line ends, RFC 9112 §2.2
    {"head_leading_empty_line_is_ignored__rfc9112_2_2", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 29, 1, 0, 0},
    {"head_ends_at_its_empty_line__rfc9112_2_1", "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2", 33, 1, 0, 6},
    HEAD("head_bare_lf_after_request_line_is_400__rfc9112_2_2", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400, 0),
    HEAD("head_bare_lf_after_header_is_400__rfc9112_2_2", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400, 0),
    HEAD("head_bare_lf_as_last_line_is_400__rfc9112_2_2", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400, 0),
    HEAD("head_bare_lf_throughout_is_400__rfc9112_2_2", "GET / HTTP/1.1\nHost: a\n\n", 400, 0),
    HEAD("head_bare_cr_after_request_line_is_400__rfc9112_2_2", "GET / HTTP/1.1\rHost: a\r\n\r\n", 400, 505),
    HEAD("head_bare_cr_in_value_is_400__rfc9112_2_2", "GET / HTTP/1.1\r\nHost: a\r\nX: y\rZ: z\r\n\r\n", 400, 0),
    HEAD("head_two_crs_before_lf_is_400__rfc9112_2_2", "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400, 0),
    HEAD("head_cr_before_last_crlf_is_400__rfc9112_2_2", "GET / HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n", 400, 0),

    // header lines, RFC 9112 §5
    WITH("head_value_may_be_empty__rfc9110_5_5", "X:\r\nY: \r\n", 1, 0),
    WITH("head_value_needs_no_space__rfc9112_5", "X:y\r\n", 1, 0),
    WITH("head_value_may_hold_tab_and_obs_text__rfc9110_5_5", "X: a\tb\x80\xff\r\n", 1, 0),
    WITH("head_obs_fold_is_400__rfc9112_5_2", "X: a\r\n b\r\n", 400, 0),
    WITH("head_obs_fold_by_tab_is_400__rfc9112_5_2", "X: a\r\n\tb\r\n", 400, 0),
    GET("head_space_before_first_header_is_400__rfc9112_2_2", " Host: a\r\n", 400, 0),
    WITH("head_space_before_colon_is_400__rfc9112_5_1", "X : y\r\n", 400, 0),
    WITH("head_tab_before_colon_is_400__rfc9112_5_1", "X\t: y\r\n", 400, 0),
    WITH("head_space_in_name_is_400__rfc9112_5_1", "X Y: z\r\n", 400, 0),
    WITH("head_name_missing_is_400__rfc9112_5_1", ": y\r\n", 400, 0),
    WITH("head_colon_missing_is_400__rfc9112_5", "X\r\n", 400, 0),
    WITH("head_name_not_a_token_is_400__rfc9110_5_1", "X(y): z\r\n", 400, 0),
    WITH("head_name_with_obs_text_is_400__rfc9110_5_1", "X\xc3\xa4: z\r\n", 400, 0),
    WITH("head_nul_in_name_is_400__rfc9110_5_1", "X\0: z\r\n", 400, 0),
    WITH("head_nul_in_value_is_400__rfc9110_5_5", "X: y\0z\r\n", 400, 0),
    WITH("head_ctl_in_value_is_400__rfc9110_5_5", "X: y\001z\r\n", 400, 0),
    WITH("head_del_in_value_is_400__rfc9110_5_5", "X: y\177z\r\n", 400, 0),

    // Host, RFC 9112 §3.2
    GET("head_host_missing_is_400__rfc9112_3_2", "X: y\r\n", 400, 0),
    GET("head_no_header_at_all_is_400__rfc9112_3_2", "", 400, 0),
    WITH("head_two_equal_hosts_is_400__rfc9112_3_2", "Host: a\r\n", 400, 0),
    WITH("head_two_hosts_is_400__rfc9112_3_2", "X: y\r\nhOST: b\r\n", 400, 0),
    HEAD("head_two_hosts_in_http10_is_400__rfc9112_3_2", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400, 0),
    GET("head_host_with_port__rfc9110_7_2", "Host: a.example:8080\r\n", 1, 0),
    GET("head_host_ipv6__rfc3986_3_2_2", "Host: [::1]:8080\r\n", 1, 0),
    GET("head_host_with_space_is_400__rfc9112_3_2", "Host: a b\r\n", 400, 0),
    GET("head_host_with_slash_is_400__rfc9112_3_2", "Host: a/b\r\n", 400, 0),
    GET("head_host_with_userinfo_is_400__rfc9110_7_2", "Host: u@a\r\n", 400, 0),
    GET("head_host_port_not_digits_is_400__rfc9112_3_2", "Host: a:b\r\n", 400, 0),

    WITH("head_unknown_expectation_is_417__rfc9110_10_1_1", "Expect: the-unexpected\r\n", 417, 0),

    // body framing, RFC 9112 §6
    WITH("head_length__rfc9112_6_2", "Content-Length: 5\r\n", 1, 0),
    WITH("head_length_zero__rfc9112_6_2", "Content-Length: 0\r\n", 1, 0),
    WITH("head_length_largest__rfc9112_6_2", "Content-Length: 9223372036854775807\r\n", 1, 0),
    WITH("head_length_twice_equal_is_400__rfc9112_6_3", "Content-Length: 5\r\nContent-Length: 5\r\n", 400, 0),
    WITH("head_length_twice_differing_is_400__rfc9112_6_3", "Content-Length: 5\r\nX: y\r\ncontent-length: 6\r\n", 400, 0),
    WITH("head_length_list_is_400__rfc9112_6_3", "Content-Length: 5, 5\r\n", 400, 0),
    WITH("head_length_plus_is_400__rfc9112_6_3", "Content-Length: +5\r\n", 400, 0),
    WITH("head_length_minus_is_400__rfc9112_6_3", "Content-Length: -5\r\n", 400, 0),
    WITH("head_length_hex_is_400__rfc9112_6_3", "Content-Length: 0x5\r\n", 400, 0),
    WITH("head_length_space_inside_is_400__rfc9112_6_3", "Content-Length: 5 5\r\n", 400, 0),
    WITH("head_length_fraction_is_400__rfc9112_6_3", "Content-Length: 5.0\r\n", 400, 0),
    WITH("head_length_empty_is_400__rfc9112_6_3", "Content-Length:\r\n", 400, 0),
    WITH("head_length_2_to_64_is_400__rfc9112_6_3", "Content-Length: 18446744073709551616\r\n", 400, 413),
    WITH("head_length_2_to_64_plus_5_is_400__rfc9112_6_3", "Content-Length: 18446744073709551621\r\n", 400, 413),
    WITH("head_length_of_40_digits_is_400__rfc9112_6_3", "Content-Length: 1000000000000000000000000000000000000000\r\n", 400, 413),
    WITH("head_chunked__rfc9112_6_1", "Transfer-Encoding: chunked\r\n", 1, 0),
    WITH("head_chunked_any_case__rfc9112_7", "transfer-encoding: ChunkeD\r\n", 1, 0),
    WITH("head_length_then_chunked_is_400__rfc9112_6_1", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400, 0),
    WITH("head_chunked_then_length_is_400__rfc9112_6_1", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400, 0),
    WITH("head_gzip_and_length_is_refused__rfc9112_6_1", "Transfer-Encoding: gzip\r\nContent-Length: 5\r\n", 400, 501),
    WITH("head_gzip_chunked_is_501__rfc9112_6_1", "Transfer-Encoding: gzip, chunked\r\n", 501, 400),
    WITH("head_chunked_gzip_is_400__rfc9112_6_3", "Transfer-Encoding: chunked, gzip\r\n", 400, 501),
    WITH("head_chunked_twice_is_400__rfc9112_7", "Transfer-Encoding: chunked, chunked\r\n", 400, 501),
    WITH("head_chunked_in_two_lines_is_400__rfc9112_7", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400, 501),
    WITH("head_two_codings_in_two_lines_is_refused__rfc9112_6_1", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 400, 501),
    WITH("head_identity_is_501__rfc9112_6_1", "Transfer-Encoding: identity\r\n", 501, 400),
    WITH("head_xchunked_is_501__rfc9112_6_1", "Transfer-Encoding: xchunked\r\n", 501, 400),
    WITH("head_chunkedx_is_501__rfc9112_6_1", "Transfer-Encoding: chunkedx\r\n", 501, 400),
    WITH("head_chunked_with_parameter_is_refused__rfc9112_7", "Transfer-Encoding: chunked;a=b\r\n", 400, 501),
    WITH("head_chunked_with_comma_is_refused__rfc9112_7", "Transfer-Encoding: chunked,\r\n", 400, 501),
    WITH("head_coding_empty_is_refused__rfc9112_6_1", "Transfer-Encoding:\r\n", 400, 501),
    WITH("head_chunked_with_vertical_tab_is_400__rfc9110_5_5", "Transfer-Encoding: \vchunked\r\n", 400, 0),
    HEAD("head_chunked_in_http10_is_refused__rfc9112_6_1", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, 501),
};

// The slices of an accepted head lie in its bytes.
static void head_slices(const rtpush_head *h, const char *data, size_t size) {
    // RFC 9112 §3.2.1: an absolute form without a path means "/", which stands nowhere in the bytes.
    bool is_root = h->path.size == 1 && *h->path.data == '/' && *h->target.data != '/';
    bool good = is_inside(h->method, data, size) && is_inside(h->target, data, size) && (is_root || is_inside(h->path, data, size)) &&
                is_inside(h->query, data, size) && is_inside(h->host, data, size) && h->count <= RTPUSH_HEADERS_MAX;
    for (size_t i = 0; good && i < h->count; i++)
        good = h->headers[i].name.size && is_inside(h->headers[i].name, data, size) && is_inside(h->headers[i].value, data, size);
    if (!good) wrong("a slice lies outside of the head");
}

static ptrdiff_t head_parse(const char *text, size_t size, bool from_start) {
    static rtpush_head h;
    const char *data = (const char *)(from_start ? at_start(text, size) : at_end(text, size));
    memset(&h, 0xa5, sizeof h); // nothing that the parser is to set may be left to the caller
    ptrdiff_t got = rtpush_parse_head(&h, data, size, 0, 0, 0);
    if (got > (ptrdiff_t)size) wrong("%ld bytes taken of %zu", (long)got, size);
    else if (got > 0) head_slices(&h, data, (size_t)got);
    return got;
}

static void head_vector_all_ways(const head_vector *v) {
    ptrdiff_t whole = head_parse(v->text, v->size, false);
    bool accepted = whole == (ptrdiff_t)(v->size - v->behind);
    if (v->say == 1 ? !accepted : whole != -v->say && !(v->or_say && whole == -v->or_say)) wrong("the verdict is %ld", (long)whole);
    if (head_parse(v->text, v->size, true) != whole) wrong("another verdict at the start of a page");
    for (size_t n = 0; n < v->size; n++) {
        ptrdiff_t got = head_parse(v->text, n, false);
        bool whole_is_in = whole > 0 && n >= (size_t)whole;
        if (whole_is_in ? got != whole : got != 0 && (whole > 0 || got != whole)) wrong("%ld after %zu bytes, %ld whole", (long)got, n, (long)whole);
    }
    end_of(v->name);
}

static rtpush_head fields;

static void head_of(const char *text) {
    ptrdiff_t got = rtpush_parse_head(&fields, text, strlen(text), 0, 0, 0);
    if (got != (ptrdiff_t)strlen(text)) {
        wrong("the verdict is %ld", (long)got);
        memset(&fields, 0, sizeof fields);
    }
}

#define EXPECT(condition) ((condition) ? (void)0 : wrong("not so: %s", #condition))

static void head_field_tests(void) {
    head_of("POST /a/%20b?c=d&e HTTP/1.1\r\nHost: h:81\r\nX-Y:  z \t\r\n\r\n");
    EXPECT(is_text(fields.method, "POST") && is_text(fields.target, "/a/%20b?c=d&e"));
    EXPECT(is_text(fields.path, "/a/%20b") && is_text(fields.query, "c=d&e") && is_text(fields.host, "h:81"));
    EXPECT(fields.minor == 1 && fields.keep_alive && !fields.is_chunked && !fields.has_length && !fields.expects_continue);
    EXPECT(!fields.wants_websocket && fields.count == 2);
    EXPECT(is_text(fields.headers[0].name, "Host") && is_text(fields.headers[1].name, "X-Y"));
    EXPECT(is_text(fields.headers[1].value, "z")); // RFC 9112 §5.1: white space around a value is no part of it
    end_of("head_fields__rfc9112_3");

    head_of("GET http://h:81/p?q?r HTTP/1.1\r\nHost: other\r\n\r\n");
    EXPECT(is_text(fields.path, "/p") && is_text(fields.query, "q?r"));
    EXPECT(is_text(fields.host, "h:81"));
    end_of("head_absolute_form_decides_the_host__rfc9112_3_2_2");

    head_of("GET http://h HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT(is_text(fields.path, "/") && fields.query.size == 0);
    head_of("GET http://h?q HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT(is_text(fields.path, "/") && is_text(fields.query, "q"));
    end_of("head_absolute_form_without_a_path__rfc9112_3_2_1");

    head_of("GET /? HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT(is_text(fields.path, "/") && fields.query.size == 0);
    end_of("head_empty_query__rfc3986_3_4");

    head_of("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: \t00123 \r\n\r\n");
    EXPECT(fields.has_length && fields.length == 123 && !fields.is_chunked);
    head_of("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n");
    EXPECT(fields.has_length && fields.length == INT64_MAX);
    head_of("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n");
    EXPECT(!fields.has_length && fields.is_chunked);
    end_of("head_body_fields__rfc9112_6");

    head_of("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\n\r\n");
    EXPECT(fields.expects_continue);
    end_of("head_expects_continue__rfc9110_10_1_1");
}

// A row: the headers, and what they mean.
typedef struct head_bool {
    const char *name, *line, *headers;
    bool want;
} head_bool;

static const head_bool keep_alive_rows[] = {
    {"head_11_keeps_alive__rfc9112_9_3", "GET / HTTP/1.1", "", true},
    {"head_11_close__rfc9112_9_6", "GET / HTTP/1.1", "Connection: close\r\n", false},
    {"head_11_close_in_a_list__rfc9112_9_6", "GET / HTTP/1.1", "Connection: foo ,\tClose\r\n", false},
    {"head_11_close_in_a_second_line__rfc9110_5_2", "GET / HTTP/1.1", "Connection: foo\r\nConnection: close\r\n", false},
    {"head_11_closed_is_another_token__rfc9110_7_6_1", "GET / HTTP/1.1", "Connection: closed, xclose\r\n", true},
    {"head_10_closes__rfc9112_9_3", "GET / HTTP/1.0", "", false},
    {"head_10_keep_alive__rfc9112_9_3", "GET / HTTP/1.0", "Connection: Keep-Alive\r\n", true},
    {"head_close_beats_keep_alive__rfc9112_9_3", "GET / HTTP/1.0", "Connection: keep-alive, close\r\n", false},
};

static const head_bool websocket_rows[] = {
    {"head_upgrade__rfc6455_4_2_1", "GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n", true},
    {"head_upgrade_any_case_any_order__rfc6455_4_2_1", "GET / HTTP/1.1", "Upgrade: WebSocket\r\nConnection: upgrade\r\n", true},
    {"head_upgrade_in_lists__rfc6455_4_2_1", "GET / HTTP/1.1", "Connection: keep-alive, Upgrade\r\nUpgrade: h2c, websocket\r\n", true},
    {"head_upgrade_in_two_lines__rfc9110_5_2", "GET / HTTP/1.1", "Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", true},
    {"head_upgrade_needs_connection__rfc6455_4_2_1", "GET / HTTP/1.1", "Connection: keep-alive\r\nUpgrade: websocket\r\n", false},
    {"head_upgrade_needs_upgrade__rfc6455_4_2_1", "GET / HTTP/1.1", "Connection: Upgrade\r\n", false},
    {"head_upgrade_whole_tokens__rfc6455_4_2_1", "GET / HTTP/1.1", "Connection: upgraded, xupgrade\r\nUpgrade: websocket\r\n", false},
    {"head_upgrade_to_another__rfc6455_4_2_1", "GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket2, xwebsocket\r\n", false},
    {"head_upgrade_in_http10_is_ignored__rfc9110_7_8", "GET / HTTP/1.0", "Connection: Upgrade\r\nUpgrade: websocket\r\n", false},
};

static void head_bool_tests(const head_bool *rows, size_t count, bool is_websocket) {
    for (size_t i = 0; i < count; i++) {
        char text[400];
        snprintf(text, sizeof text, "%s\r\nHost: a\r\n%s\r\n", rows[i].line, rows[i].headers);
        head_of(text);
        if ((is_websocket ? fields.wants_websocket : fields.keep_alive) != rows[i].want) wrong("not %s", rows[i].want ? "true" : "false");
        end_of(rows[i].name);
    }
}

static bool is_tchar(int c) { // RFC 9110 §5.6.2
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c && strchr("!#$%&'*+-.^_`|~", c));
}

// Every byte value at one place of a head: accepted exactly where the grammar has it.
static void head_every_byte(const char *name, const char *before, const char *after, bool (*is_good)(int c)) {
    for (int c = 0; c < 256; c++) {
        char text[200];
        size_t size = (size_t)snprintf(text, sizeof text, "%sa?b%s", before, after);
        text[strlen(before) + 1] = (char)c;
        ptrdiff_t got = head_parse(text, size, false);
        if (is_good(c) ? got != (ptrdiff_t)size : got != -400) wrong("byte 0x%02x: %ld", (unsigned)c, (long)got);
    }
    end_of(name);
}

static bool is_name_byte(int c) { return is_tchar(c) || c == ':'; } // "a:b: v" is the name a and the value "b: v"
static bool is_value_byte(int c) { return c == '\t' || (c >= ' ' && c != 127); }

static void head_byte_tests(void) {
    head_every_byte("head_every_byte_in_a_name__rfc9110_5_1", "GET / HTTP/1.1\r\nHost: a\r\n", ": v\r\n\r\n", is_name_byte);
    head_every_byte("head_every_byte_in_a_value__rfc9110_5_5", "GET / HTTP/1.1\r\nHost: a\r\nX: ", "\r\n\r\n", is_value_byte);
    for (int c = 0; c < 256; c++) {
        char text[] = "G?T / HTTP/1.1\r\nHost: a\r\n\r\n";
        text[1] = (char)c;
        ptrdiff_t got = head_parse(text, sizeof text - 1, false);
        if (is_tchar(c) ? got <= 0 : got != -400 && !(c == ' ' && got == -505)) wrong("byte 0x%02x: %ld", (unsigned)c, (long)got);
    }
    end_of("head_every_byte_in_a_method__rfc9110_9_1");
    for (int c = 0; c < 128; c++) { // above 127 the grammar says no and clients say yes: left open
        char text[] = "GET /a?a HTTP/1.1\r\nHost: a\r\n\r\n";
        bool is_sure = (c && strchr("!$&'()*+,;=:@-._~/?", c)) || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        text[6] = (char)c;
        ptrdiff_t got = head_parse(text, sizeof text - 1, false);
        if (is_sure && got <= 0) wrong("byte 0x%02x refused: %ld", (unsigned)c, (long)got);
        if ((c <= ' ' || c == 127) && got != -400 && !(c == ' ' && got == -505)) wrong("byte 0x%02x taken: %ld", (unsigned)c, (long)got);
    }
    end_of("head_every_byte_in_a_target__rfc9112_3_2");
}

// A head with a path of so many bytes, and so many headers, of which the last is so long.
static size_t head_with(char *text, size_t path, int headers, size_t last) {
    size_t at = 5;
    memcpy(text, "GET /", 5);
    memset(text + at, 'p', path);
    at += path;
    at += (size_t)snprintf(text + at, 40, " HTTP/1.1\r\nHost: a\r\n");
    for (int i = 1; i < headers; i++) at += (size_t)snprintf(text + at, last + 40, "X%d: %*s\r\n", i, i + 1 < headers ? 1 : (int)last, "y");
    return at + (size_t)snprintf(text + at, 3, "\r\n");
}

static void head_limit(size_t path, int headers, size_t last, size_t line_max, size_t head_max, size_t headers_max, ptrdiff_t want) {
    static char text[60000];
    static rtpush_head h;
    size_t size = head_with(text, path, headers, last);
    ptrdiff_t got = rtpush_parse_head(&h, (const char *)at_end(text, size), size, line_max, head_max, headers_max);
    if (got != (want ? want : (ptrdiff_t)size)) wrong("path of %zu, %d headers, the last of %zu: %ld", path, headers, last, (long)got);
    if (got > 0 && h.count != (size_t)headers) wrong("%zu headers counted of %d", h.count, headers);
}

static void head_limit_tests(void) {
    head_limit(1, 64, 1, 0, 0, 0, 0);
    head_limit(1, 65, 1, 0, 0, 0, -431);
    head_limit(1, 1000, 1, 0, 0, 0, -431);
    head_limit(1, 3, 1, 0, 0, 3, 0);
    head_limit(1, 4, 1, 0, 0, 3, -431);
    end_of("head_too_many_headers_is_431__rfc6585_5");
    head_limit(8000, 1, 1, 0, 0, 0, 0);
    head_limit(8300, 1, 1, 0, 0, 0, -414);
    head_limit(15000, 1, 1, 0, 0, 0, -414);
    head_limit(30000, 1, 1, 32000, 40000, 0, 0);
    head_limit(40, 1, 1, 64, 0, 0, 0);
    head_limit(80, 1, 1, 64, 0, 0, -414);
    end_of("head_long_request_line_is_414__rfc9112_3");
    head_limit(1, 2, 16000, 0, 0, 0, 0);
    head_limit(1, 2, 16500, 0, 0, 0, -431);
    head_limit(1, 2, 40000, 0, 0, 0, -431);
    head_limit(1, 2, 16500, 0, 20000, 0, 0);
    head_limit(1, 2, 200, 0, 200, 0, -431);
    end_of("head_too_large_is_431__rfc6585_5");
    // Without an end in sight it must not be "more" for ever.
    static char endless[20000];
    static rtpush_head h;
    memset(endless, 'x', sizeof endless);
    ptrdiff_t got = rtpush_parse_head(&h, endless, sizeof endless, 0, 0, 0);
    if (got >= 0) wrong("a request line without an end: %ld", (long)got);
    memcpy(endless, "GET / HTTP/1.1\r\nHost: a\r\nX: ", 29);
    got = rtpush_parse_head(&h, endless, sizeof endless, 0, 0, 0);
    if (got != -431) wrong("a header without an end: %ld", (long)got);
    end_of("head_without_an_end_is_refused__rfc6585_5");
}

static void head_tests(void) {
    for (size_t i = 0; i < COUNT(head_vectors); i++) head_vector_all_ways(&head_vectors[i]);
    head_field_tests();
    head_bool_tests(keep_alive_rows, COUNT(keep_alive_rows), false);
    head_bool_tests(websocket_rows, COUNT(websocket_rows), true);
    head_byte_tests();
    head_limit_tests();
}

// --- chunked ---

typedef struct chunked_vector {
    const char *name, *text;
    size_t size;
    const char *body; // NULL: malformed
    size_t behind;    // bytes that belong to the next request
} chunked_vector;

#define CHUNKED(name, text, body) {name, text, sizeof(text) - 1, body, 0}

static const chunked_vector chunked_vectors[] = {
    CHUNKED("chunked_plain__rfc9112_7_1", "5\r\nhello\r\n0\r\n\r\n", "hello"),
    CHUNKED("chunked_empty__rfc9112_7_1", "0\r\n\r\n", ""),
    CHUNKED("chunked_many__rfc9112_7_1", "1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n0\r\n\r\n", "abcdef"),
    CHUNKED("chunked_hex_both_cases__rfc9112_7_1", "a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", "01234567890123456789a"),
    CHUNKED("chunked_size_above_15__rfc9112_7_1", "10\r\n0123456789abcdef\r\n0\r\n\r\n", "0123456789abcdef"),
    CHUNKED("chunked_leading_zeros__rfc9112_7_1", "0005\r\nhello\r\n000\r\n\r\n", "hello"),
    CHUNKED("chunked_size_of_16_digits__rfc9112_7_1", "0000000000000005\r\nhello\r\n0\r\n\r\n", "hello"),
    CHUNKED("chunked_body_may_look_like_chunks__rfc9112_7_1", "7\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n\r\n"),
    CHUNKED("chunked_extension_is_ignored__rfc9112_7_1_1", "5;a=b;c=\"d;e\"\r\nhello\r\n0;f\r\n\r\n", "hello"),
    CHUNKED("chunked_trailer_is_ignored__rfc9112_7_1_2", "0\r\nX: y\r\nZ: z\r\n\r\n", ""),
    {"chunked_ends_at_its_end__rfc9112_7_1", "1\r\na\r\n0\r\n\r\nGET / HTTP/1.1", 25, "a", 14},
    {"chunked_trailer_then_the_next__rfc9112_7_1_2", "0\r\nX: y\r\n\r\n\r\n", 13, "", 2},

    CHUNKED("chunked_size_missing_is_bad__rfc9112_7_1", "\r\nhello\r\n0\r\n\r\n", NULL),
    CHUNKED("chunked_size_of_17_digits_is_bad__rfc9112_7_1", "00000000000000005\r\nhello\r\n0\r\n\r\n", NULL),
    CHUNKED("chunked_size_2_to_64_is_bad__rfc9112_7_1", "10000000000000000\r\nhello\r\n0\r\n\r\n", NULL),
    CHUNKED("chunked_size_plus_is_bad__rfc9112_7_1", "+5\r\nhello\r\n0\r\n\r\n", NULL),
    CHUNKED("chunked_size_minus_is_bad__rfc9112_7_1", "-5\r\nhello\r\n0\r\n\r\n", NULL),
    CHUNKED("chunked_size_0x_is_bad__rfc9112_7_1", "0x5\r\nhello\r\n0\r\n\r\n", NULL),
    CHUNKED("chunked_size_g_is_bad__rfc9112_7_1", "g\r\nhello\r\n0\r\n\r\n", NULL),
    CHUNKED("chunked_space_before_size_is_bad__rfc9112_7_1", " 5\r\nhello\r\n0\r\n\r\n", NULL),
    CHUNKED("chunked_space_behind_size_is_bad__rfc9112_7_1", "5 \r\nhello\r\n0\r\n\r\n", NULL),
    CHUNKED("chunked_size_in_two_words_is_bad__rfc9112_7_1", "0 5\r\nhello\r\n0\r\n\r\n", NULL),
    CHUNKED("chunked_bare_lf_behind_size_is_bad__rfc9112_2_2", "5\nhello\r\n0\r\n\r\n", NULL),
    CHUNKED("chunked_bare_cr_behind_size_is_bad__rfc9112_2_2", "5\rhello\r\n0\r\n\r\n", NULL),
    CHUNKED("chunked_two_crs_behind_size_is_bad__rfc9112_2_2", "5\r\r\nhello\r\n0\r\n\r\n", NULL),
    CHUNKED("chunked_bare_lf_behind_data_is_bad__rfc9112_2_2", "5\r\nhello\n0\r\n\r\n", NULL),
    CHUNKED("chunked_bare_cr_behind_data_is_bad__rfc9112_2_2", "5\r\nhello\rX0\r\n\r\n", NULL),
    CHUNKED("chunked_no_crlf_behind_data_is_bad__rfc9112_7_1", "5\r\nhello0\r\n\r\n", NULL),
    CHUNKED("chunked_data_too_long_is_bad__rfc9112_7_1", "5\r\nhello!\r\n0\r\n\r\n", NULL),
    CHUNKED("chunked_data_too_short_is_bad__rfc9112_7_1", "5\r\nhell\r\n0\r\n\r\n", NULL),
    CHUNKED("chunked_bare_lf_in_extension_is_bad__rfc9112_7_1_1", "5;a\nhello\r\n0\r\n\r\n", NULL),
    CHUNKED("chunked_bare_cr_in_extension_is_bad__rfc9112_7_1_1", "5;a\rb\r\nhello\r\n0\r\n\r\n", NULL),
    CHUNKED("chunked_nul_in_extension_is_bad__rfc9112_7_1_1", "5;a\0\r\nhello\r\n0\r\n\r\n", NULL),
    CHUNKED("chunked_bare_lf_at_the_end_is_bad__rfc9112_2_2", "0\r\n\n", NULL),
    CHUNKED("chunked_bare_cr_at_the_end_is_bad__rfc9112_2_2", "0\r\n\rX", NULL),
    CHUNKED("chunked_bare_lf_behind_trailer_is_bad__rfc9112_2_2", "0\r\nX: y\n\r\n", NULL),
    CHUNKED("chunked_nul_in_trailer_is_bad__rfc9110_5_5", "0\r\nX: \0y\r\n\r\n", NULL),
};

typedef struct chunked_run {
    rtpush_chunked state;
    char body[4096];
    size_t body_size, taken;
    bool is_bad;
} chunked_run;

// Feeds one piece as the declarations say: again while it takes.
static void chunked_feed(chunked_run *r, const char *text, size_t size) {
    const char *data = (const char *)at_end(text, size);
    while (size && !r->state.is_done && !r->is_bad) {
        rtpush_slice body = {NULL, 0};
        ptrdiff_t got = rtpush_parse_chunked(&r->state, data, size, &body);
        r->is_bad = got < 0;
        if (r->is_bad) break;
        if (got == 0 || (size_t)got > size) {
            wrong("%ld bytes taken of %zu", (long)got, size);
            break;
        }
        if (!is_inside(body, data, (size_t)got) || body.size > sizeof r->body - r->body_size) {
            wrong("the body's run lies outside of what was taken");
            break;
        }
        if (body.size) memcpy(r->body + r->body_size, body.data, body.size);
        r->body_size += body.size;
        r->taken += (size_t)got;
        data += got;
        size -= (size_t)got;
    }
}

static void chunked_verdict(const chunked_vector *v, const chunked_run *r, const char *how) {
    if (r->is_bad != !v->body) wrong("%s: %s", how, r->is_bad ? "refused" : "accepted");
    if (!v->body || r->is_bad) return;
    if (!r->state.is_done) wrong("%s: has not ended", how);
    if (r->body_size != strlen(v->body) || memcmp(r->body, v->body, r->body_size)) wrong("%s: another body", how);
    if (r->taken != v->size - v->behind) wrong("%s: %zu bytes taken", how, r->taken);
}

// In three pieces, cut at a and b.
static void chunked_cut(const chunked_vector *v, size_t a, size_t b) {
    static chunked_run r;
    char how[60];
    memset(&r, 0, sizeof r);
    chunked_feed(&r, v->text, a);
    chunked_feed(&r, v->text + a, b - a);
    chunked_feed(&r, v->text + b, v->size - b);
    snprintf(how, sizeof how, "cut at %zu and %zu", a, b);
    chunked_verdict(v, &r, how);
}

static void chunked_byte_by_byte(const chunked_vector *v) {
    static chunked_run r;
    memset(&r, 0, sizeof r);
    for (size_t i = 0; i < v->size; i++) chunked_feed(&r, v->text + i, 1);
    chunked_verdict(v, &r, "byte by byte");
}

// What has ended takes nothing more; what was refused stays so.
static void chunked_after_the_end(void) {
    static chunked_run r;
    for (size_t i = 0; i < COUNT(chunked_vectors); i++) {
        rtpush_slice body;
        memset(&r, 0, sizeof r);
        chunked_feed(&r, chunked_vectors[i].text, chunked_vectors[i].size);
        ptrdiff_t got = rtpush_parse_chunked(&r.state, (const char *)at_end("0\r\n\r\n", 5), 5, &body);
        if (got != (r.is_bad ? -1 : 0)) wrong("%s, then more: %ld", chunked_vectors[i].name, (long)got);
    }
    end_of("chunked_an_end_and_a_refusal_are_final__rfc9112_7_1");
}

static void chunked_long(const char *name, const char *head, char fill, size_t size) {
    static chunked_run r;
    static char text[200000];
    memset(&r, 0, sizeof r);
    memset(text, fill, size);
    chunked_feed(&r, head, strlen(head));
    for (size_t i = 0; i < size && !r.is_bad; i += 100) chunked_feed(&r, text + i, 100);
    if (!r.is_bad) wrong("%zu bytes and no end in sight", size);
    end_of(name);
}

static void chunked_trailer_lines(void) {
    static chunked_run r;
    memset(&r, 0, sizeof r);
    chunked_feed(&r, "0\r\n", 3);
    for (int i = 0; i < 30000 && !r.is_bad; i++) chunked_feed(&r, "X: y\r\n", 6);
    if (!r.is_bad) wrong("180,000 bytes of trailers and no end in sight");
    end_of("chunked_trailers_are_bounded__rfc9112_7_1_2");
}

static void chunked_huge(void) {
    static chunked_run r;
    memset(&r, 0, sizeof r);
    chunked_feed(&r, "7fffffffffffffff\r\nabc", 21);
    EXPECT(!r.is_bad && !r.state.is_done && r.body_size == 3 && !memcmp(r.body, "abc", 3));
    end_of("chunked_largest_size_is_no_overflow__rfc9112_7_1");
}

static void chunked_tests(void) {
    for (size_t i = 0; i < COUNT(chunked_vectors); i++) {
        const chunked_vector *v = &chunked_vectors[i];
        for (size_t a = 0; a <= v->size; a++)
            for (size_t b = a; b <= v->size; b++) chunked_cut(v, a, b);
        chunked_byte_by_byte(v);
        end_of(v->name);
    }
    chunked_after_the_end();
    chunked_long("chunked_extension_is_bounded__rfc9112_7_1_1", "5;", 'a', 100000);
    chunked_long("chunked_trailer_line_is_bounded__rfc9112_7_1_2", "0\r\nX: ", 'a', 100000);
    chunked_trailer_lines();
    chunked_huge();
}

// --- frames ---

// RFC 6455 §5.2 in the plainest words. Returns as rtpush_parse_frame; *may_refuse: accepting and 1002 are both right
// (RSV bits, which an extension may have given a meaning; a length that is not in its shortest form).
static ptrdiff_t frame_model(const unsigned char *d, size_t size, uint64_t *length, bool *may_refuse) {
    *may_refuse = false;
    if (size < 2) return 0;
    int opcode = d[0] & 15, len7 = d[1] & 127;
    bool is_control = opcode >= 8;
    if ((opcode > 2 && opcode < 8) || opcode > 10) return -1002;
    if (is_control && (!(d[0] & 128) || len7 > 125)) return -1002; // RFC 6455 §5.5
    size_t extra = len7 == 126 ? 2 : len7 == 127 ? 8 : 0, head = 2 + extra + (d[1] & 128 ? 4 : 0);
    *may_refuse = d[0] & 0x70;
    *length = extra ? 0 : (uint64_t)len7;
    for (size_t i = 0; i < extra && i + 2 < size; i++) *length = *length << 8 | d[2 + i];
    if (size >= 2 + extra) *may_refuse |= (extra == 2 && *length < 126) || (extra == 8 && *length < 65536);
    if (len7 == 127 && size > 2 && d[2] & 128) return -1002; // the most significant bit must be 0
    return size < head ? 0 : (ptrdiff_t)head;
}

static void frame_fields(const rtpush_frame *f, const unsigned char *d, uint64_t length) {
    bool masked = d[1] & 128;
    size_t extra = (d[1] & 127) == 126 ? 2 : (d[1] & 127) == 127 ? 8 : 0;
    if (f->is_final != ((d[0] & 128) != 0) || f->is_masked != masked || f->opcode != (d[0] & 15)) wrong("head %02x %02x: other fields", d[0], d[1]);
    if ((f->rsv != 0) != ((d[0] & 0x70) != 0)) wrong("head %02x %02x: rsv is %u", d[0], d[1], (unsigned)f->rsv);
    if (f->length != length) wrong("head %02x %02x: length %llu", d[0], d[1], (unsigned long long)f->length);
    if (masked && memcmp(f->key, d + 2 + extra, 4)) wrong("head %02x %02x: another key", d[0], d[1]);
}

// Every prefix of the bytes, each at the guard page. A 64-bit length with its top bit set may also be 1009, and all
// refusals may come as soon as the bytes that prove them are there, but not later than with the whole head.
static void frame_compare(const unsigned char *bytes, size_t size) {
    size_t head = bytes[1] & 128 ? 14 : 10; // with a 64-bit length
    ptrdiff_t verdict = 0;
    for (size_t n = 0; n <= size; n++) {
        rtpush_frame f;
        uint64_t length = 0;
        bool may_refuse;
        const unsigned char *d = at_end(bytes, n);
        memset(&f, 0xa5, sizeof f);
        ptrdiff_t want = frame_model(d, n, &length, &may_refuse), got = rtpush_parse_frame(&f, d, n);
        bool is_huge = want < 0 && n > 2 && (d[1] & 127) == 127 && d[2] & 128;
        bool good = got == want || (may_refuse && got == -1002) || (is_huge && got == -1009) || (is_huge && got == 0 && n < head);
        if (!good) wrong("head %02x %02x, %zu bytes: %ld for %ld", bytes[0], bytes[1], n, (long)got, (long)want);
        if (verdict < 0 && got != verdict) wrong("head %02x %02x, %zu bytes: refused before, now %ld", bytes[0], bytes[1], n, (long)got);
        if (got > 0) frame_fields(&f, d, length);
        verdict = got;
    }
}

static void frame_tests(void) {
    static const unsigned char tails[][12] = {
        {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
        {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12},
        {0, 0, 0, 0, 0, 1, 0, 0, 0xde, 0xad, 0xbe, 0xef}, // 65,536 in 64 bits
        {0, 126, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10},          // 126 in 16 bits
        {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4},
        {0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4},
    };
    for (size_t t = 0; t < COUNT(tails); t++)
        for (unsigned first = 0; first < 256; first++)
            for (unsigned second = 0; second < 256; second++) {
                unsigned char bytes[14] = {(unsigned char)first, (unsigned char)second};
                memcpy(bytes + 2, tails[t], 12);
                frame_compare(bytes, sizeof bytes);
            }
    end_of("frame_every_head_at_every_prefix__rfc6455_5_2");
}

static void frame_refused(const char *name, unsigned first, unsigned second) {
    rtpush_frame f;
    unsigned char bytes[2] = {(unsigned char)first, (unsigned char)second};
    ptrdiff_t got = rtpush_parse_frame(&f, at_end(bytes, 2), 2);
    if (got != -1002) wrong("%ld after two bytes", (long)got);
    end_of(name);
}

static void frame_refusal_tests(void) {
    frame_refused("frame_control_over_125_is_1002_at_once__rfc6455_5_5", 0x89, 0xfe);
    frame_refused("frame_control_fragment_is_1002_at_once__rfc6455_5_5", 0x09, 0x80);
    frame_refused("frame_close_fragment_is_1002_at_once__rfc6455_5_5", 0x08, 0x80);
    frame_refused("frame_reserved_data_opcode_is_1002_at_once__rfc6455_5_2", 0x83, 0x80);
    frame_refused("frame_reserved_control_opcode_is_1002_at_once__rfc6455_5_2", 0x8b, 0x80);
}

// --- masking ---

static void mask_one(size_t align, size_t size, uint64_t at) {
    static const unsigned char key[4] = {0x12, 0x9f, 0x00, 0xe7};
    unsigned char *data = room + 64 + align;
    memset(room, 0xcc, 512);
    for (size_t i = 0; i < size; i++) data[i] = (unsigned char)(i * 7 + 3);
    if (rtpush_mask(data, size, key, at) != at + size) wrong("size %zu at %llu: another return value", size, (unsigned long long)at);
    for (size_t i = 0; i < size; i++)
        if (data[i] != (unsigned char)((unsigned char)(i * 7 + 3) ^ key[(at + i) & 3])) wrong("align %zu, size %zu, at %llu: byte %zu", align, size, (unsigned long long)at, i);
    for (size_t i = 0; i < 64; i++)
        if (data[size + i] != 0xcc || data[-(ptrdiff_t)i - 1] != 0xcc) wrong("align %zu, size %zu: wrote outside", align, size);
}

static void mask_tests(void) {
    static const uint64_t places[] = {0, 1, 2, 3, 4, 7, 1001, 0xffffffffu, 0x100000001u};
    for (size_t align = 0; align < 16; align++)
        for (size_t size = 0; size <= 200; size++)
            for (size_t i = 0; i < COUNT(places); i++) mask_one(align, size, places[i]);
    end_of("mask_is_the_byte_loop__rfc6455_5_3");

    for (size_t size = 0; size <= 200; size++)
        for (size_t cut = 0; cut <= size; cut++) {
            static const unsigned char key[4] = {1, 2, 3, 4};
            unsigned char plain[200];
            memset(plain, 0, sizeof plain);
            unsigned char *data = at_end(plain, size);
            uint64_t at = rtpush_mask(data, cut, key, 0);
            at = rtpush_mask(data + cut, size - cut, key, at);
            for (size_t i = 0; i < size; i++)
                if (data[i] != key[i & 3]) wrong("size %zu cut at %zu: byte %zu", size, cut, i);
            if (at != size) wrong("size %zu cut at %zu: ends at %llu", size, cut, (unsigned long long)at);
        }
    end_of("mask_at_every_split_at_the_guard_page__rfc6455_5_3");
}

// --- UTF-8 ---

enum { WHOLE, BAD, MIDDLE };

static int utf8_class(uint32_t state) {
    return state == 0 ? WHOLE : state == RTPUSH_UTF8_BAD ? BAD : MIDDLE;
}

// The table of RFC 3629 §4, one byte at a time: BAD at the first byte after which no character can follow.
static int utf8_model(const unsigned char *d, size_t size) {
    size_t left = 0;
    unsigned low = 0x80, high = 0xbf;
    for (size_t i = 0; i < size; i++) {
        unsigned c = d[i];
        if (left) {
            if (c < low || c > high) return BAD;
            low = 0x80;
            high = 0xbf;
            left--;
        } else if (c >= 0x80) {
            if (c < 0xc2 || c > 0xf4) return BAD;
            left = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
            low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
            high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
        }
    }
    return left ? MIDDLE : WHOLE;
}

// Byte by byte with the verdict after each, whole, and at every split. BAD stays BAD.
static void utf8_compare(const unsigned char *bytes, size_t size) {
    const unsigned char *d = at_end(bytes, size);
    uint32_t state = 0;
    for (size_t i = 0; i < size; i++) {
        state = rtpush_utf8(state, d + i, 1);
        if (utf8_class(state) != utf8_model(d, i + 1)) wrong("%02x %02x %02x %02x of %zu: byte %zu", d[0], d[size > 1], d[size > 2 ? 2 : 0], d[size - 1], size, i);
    }
    int want = utf8_model(d, size);
    for (size_t cut = 0; cut <= size; cut++)
        if (utf8_class(rtpush_utf8(rtpush_utf8(0, d, cut), d + cut, size - cut)) != want) wrong("%zu bytes from %02x: cut at %zu", size, d[0], cut);
}

static void utf8_combinations(void) {
    static const unsigned char values[] = {0x00, 0x41, 0x7f, 0x80, 0x81, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf,
                                           0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf8, 0xff};
    unsigned char d[4];
    for (size_t a = 0; a < COUNT(values); a++) {
        d[0] = values[a];
        utf8_compare(d, 1);
        for (size_t b = 0; b < COUNT(values); b++) {
            d[1] = values[b];
            utf8_compare(d, 2);
            for (size_t c = 0; c < COUNT(values); c++) {
                d[2] = values[c];
                utf8_compare(d, 3);
                for (size_t e = 0; e < COUNT(values); e++) {
                    d[3] = values[e];
                    utf8_compare(d, 4);
                }
            }
        }
    }
    end_of("utf8_all_of_1_to_4_interesting_bytes__rfc3629_4");
}

static size_t utf8_put(unsigned char *d, uint32_t c) {
    if (c < 0x80) return d[0] = (unsigned char)c, (size_t)1;
    size_t more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    for (size_t i = more; i; i--, c >>= 6) d[i] = (unsigned char)(0x80 | (c & 0x3f));
    d[0] = (unsigned char)(0xff00u >> (more + 1) | c);
    return more + 1;
}

static void utf8_every_character(void) {
    for (uint32_t c = 0; c < 0x110100; c++) {
        unsigned char d[4];
        size_t size = utf8_put(d, c);
        bool is_character = c < 0xd800 || (c > 0xdfff && c < 0x110000);
        if ((rtpush_utf8(0, d, size) == 0) != is_character) wrong("U+%04X", (unsigned)c);
    }
    end_of("utf8_every_code_point_and_no_surrogate__rfc3629_3");
}

// One piece of text inside of much ASCII, at every place: what goes by words or vectors must see it too.
static void utf8_long(void) {
    static const char *const pieces[] = {"\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\x80", "\xff", "\xc3", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "\xf0\x9f\x98"};
    for (size_t p = 0; p < COUNT(pieces); p++)
        for (size_t before = 0; before <= 80; before++)
            for (size_t behind = 0; behind <= 40; behind += 1 + behind / 4) {
                unsigned char text[200];
                size_t len = strlen(pieces[p]), size = before + len + behind;
                memset(text, 'a', sizeof text);
                memcpy(text + before, pieces[p], len);
                utf8_compare(text, size);
                if (utf8_class(rtpush_utf8(0, at_start(text, size), size)) != utf8_model(text, size)) wrong("at the start of a page");
            }
    for (int round = 0; round < 3000; round++) { // random characters, now and then a wrong byte
        unsigned char text[300];
        size_t size = 0;
        while (size < 280 && random_below(80)) size += utf8_put(text + size, random_below(4) ? random_below(128) : random_below(0x10ffff));
        if (size && random_below(2)) text[random_below((uint32_t)size)] = (unsigned char)random_below(256);
        if (size) utf8_compare(text, size);
    }
    end_of("utf8_in_long_text_at_every_place__rfc3629_4");
}

static void utf8_tests(void) {
    if (rtpush_utf8(0, "", 0) != 0) wrong("nothing is not whole");
    end_of("utf8_nothing_is_whole__rfc3629_4");
    utf8_combinations();
    utf8_every_character();
    utf8_long();
}

// --- JSON ---

// RFC 8259 in the plainest words, as a second opinion. UTF-8 is not looked at: only ASCII comes here.
typedef struct json_model {
    const char *at, *end;
} json_model;

static bool json_value(json_model *m, int depth);

static void json_space(json_model *m) {
    while (m->at < m->end && *m->at && strchr(" \t\r\n", *m->at)) m->at++;
}

static bool json_take(json_model *m, const char *text) {
    size_t len = strlen(text);
    if ((size_t)(m->end - m->at) < len || memcmp(m->at, text, len)) return false;
    m->at += len;
    return true;
}

static size_t json_digits(json_model *m) {
    const char *from = m->at;
    while (m->at < m->end && *m->at >= '0' && *m->at <= '9') m->at++;
    return (size_t)(m->at - from);
}

static bool json_number(json_model *m) {
    json_take(m, "-");
    if (!json_take(m, "0") && !json_digits(m)) return false;
    if (json_take(m, ".") && !json_digits(m)) return false;
    if (!json_take(m, "e") && !json_take(m, "E")) return true;
    if (!json_take(m, "+")) json_take(m, "-");
    return json_digits(m) > 0;
}

static bool json_escape(json_model *m) {
    if (m->at == m->end) return false;
    char c = *m->at++;
    if (c != 'u') return c && strchr("\"\\/bfnrt", c);
    for (int i = 0; i < 4; i++, m->at++)
        if (m->at == m->end || !*m->at || !strchr("0123456789abcdefABCDEF", *m->at)) return false;
    return true;
}

static bool json_string(json_model *m) {
    if (!json_take(m, "\"")) return false;
    while (m->at < m->end) {
        unsigned char c = (unsigned char)*m->at++;
        if (c == '"') return true;
        if (c < ' ' || (c == '\\' && !json_escape(m))) return false;
    }
    return false;
}

static bool json_list(json_model *m, int depth, bool is_object) {
    const char *close = is_object ? "}" : "]";
    if (depth > 64) return false;
    json_space(m);
    if (json_take(m, close)) return true;
    for (;;) {
        json_space(m);
        if (is_object && !json_string(m)) return false;
        json_space(m);
        if (is_object && !json_take(m, ":")) return false;
        if (!json_value(m, depth)) return false;
        if (json_take(m, close)) return true;
        if (!json_take(m, ",")) return false;
    }
}

static bool json_value(json_model *m, int depth) {
    json_space(m);
    if (m->at == m->end) return false;
    bool good;
    if (*m->at == '"') good = json_string(m);
    else if (json_take(m, "{")) good = json_list(m, depth + 1, true);
    else if (json_take(m, "[")) good = json_list(m, depth + 1, false);
    else good = json_take(m, "true") || json_take(m, "false") || json_take(m, "null") || json_number(m);
    json_space(m);
    return good;
}

static bool json_is(const char *text, size_t size) {
    json_model m = {text, text + size};
    return json_value(&m, 0) && m.at == m.end;
}

typedef struct json_vector {
    const char *name, *text;
    size_t size;
    bool want;
} json_vector;

#define JSON(name, text, want) {name, text, sizeof(text) - 1, want}

static const json_vector json_vectors[] = {
    JSON("json_object__rfc8259_4", " {\"a\" : [1, -2.5e+3, true, false, null, \"x\"], \"b\":{}} \r\n\t", true),
    JSON("json_any_value_is_a_text__rfc8259_2", "\"a\"", true),
    JSON("json_number_zero__rfc8259_6", "-0", true),
    JSON("json_number_exponent__rfc8259_6", "1E400", true),
    JSON("json_all_escapes__rfc8259_7", "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e4\\uD83D\\uDE00\"", true),
    JSON("json_utf8_in_string__rfc8259_8_1", "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\x7f\"", true),
    JSON("json_same_name_twice__rfc8259_4", "{\"a\":1,\"a\":2}", true),
    JSON("json_empty_is_none__rfc8259_2", "", false),
    JSON("json_white_space_is_none__rfc8259_2", " \n", false),
    JSON("json_two_texts_is_none__rfc8259_2", "1 2", false),
    JSON("json_byte_order_mark_is_none__rfc8259_8_1", "\xef\xbb\xbf{}", false),
    JSON("json_nul_behind_is_none__rfc8259_2", "1\0", false),
    JSON("json_nul_in_string_is_none__rfc8259_7", "\"a\0b\"", false),
    JSON("json_control_in_string_is_none__rfc8259_7", "\"a\nb\"", false),
    JSON("json_unit_separator_in_string_is_none__rfc8259_7", "\"\x1f\"", false),
    JSON("json_unknown_escape_is_none__rfc8259_7", "\"\\x41\"", false),
    JSON("json_quote_escape_single_is_none__rfc8259_7", "\"\\'\"", false),
    JSON("json_short_u_is_none__rfc8259_7", "\"\\u00e\"", false),
    JSON("json_u_not_hex_is_none__rfc8259_7", "\"\\u00eg\"", false),
    JSON("json_bad_utf8_is_none__rfc8259_8_1", "\"\xff\"", false),
    JSON("json_cut_utf8_is_none__rfc8259_8_1", "\"\xe2\x82\"", false),
    JSON("json_surrogate_in_utf8_is_none__rfc3629_3", "\"\xed\xa0\x80\"", false),
    JSON("json_overlong_quote_is_none__rfc3629_3", "\"\xc0\xa2\"", false),
    JSON("json_utf8_outside_of_string_is_none__rfc8259_2", "\xc2\xa0""1", false),
    JSON("json_form_feed_is_no_white_space__rfc8259_2", "\f1", false),
    JSON("json_vertical_tab_is_no_white_space__rfc8259_2", "1\v", false),
    JSON("json_number_leading_zero_is_none__rfc8259_6", "01", false),
    JSON("json_number_plus_is_none__rfc8259_6", "+1", false),
    JSON("json_number_dot_first_is_none__rfc8259_6", ".5", false),
    JSON("json_number_dot_last_is_none__rfc8259_6", "1.", false),
    JSON("json_number_exponent_empty_is_none__rfc8259_6", "1e+", false),
    JSON("json_number_minus_alone_is_none__rfc8259_6", "-", false),
    JSON("json_number_hex_is_none__rfc8259_6", "0x10", false),
    JSON("json_nan_is_none__rfc8259_6", "NaN", false),
    JSON("json_infinity_is_none__rfc8259_6", "-Infinity", false),
    JSON("json_literal_cut_is_none__rfc8259_3", "tru", false),
    JSON("json_literal_upper_case_is_none__rfc8259_3", "True", false),
    JSON("json_literal_long_is_none__rfc8259_3", "nulll", false),
    JSON("json_name_without_quotes_is_none__rfc8259_4", "{a:1}", false),
    JSON("json_name_a_number_is_none__rfc8259_4", "{1:1}", false),
    JSON("json_single_quotes_is_none__rfc8259_7", "'a'", false),
    JSON("json_comment_is_none__rfc8259_2", "1 // one", false),
    JSON("json_trailing_comma_in_array_is_none__rfc8259_5", "[1,]", false),
    JSON("json_trailing_comma_in_object_is_none__rfc8259_4", "{\"a\":1,}", false),
    JSON("json_mixed_brackets_is_none__rfc8259_2", "[1}", false),
    JSON("json_open_array_is_none__rfc8259_5", "[[1]", false),
};

static void json_vector_all_ways(const json_vector *v) {
    if (rtpush_is_json(at_end(v->text, v->size), v->size) != v->want) wrong("%s", v->want ? "refused" : "accepted");
    if (rtpush_is_json(at_start(v->text, v->size), v->size) != v->want) wrong("another verdict at the start of a page");
    char first = v->want ? v->text[strspn(v->text, " \t\r\n")] : 0;
    bool needs_end = first && strchr("{[\"", first); // no true prefix of those is a text, but for white space behind
    size_t last = v->size;
    while (last && strchr(" \t\r\n", v->text[last - 1])) last--;
    for (size_t n = 0; needs_end && n < last; n++)
        if (rtpush_is_json(at_end(v->text, n), n)) wrong("its first %zu bytes are accepted", n);
    end_of(v->name);
}

static void json_depth(int depth, char open, char close, bool want) {
    char text[400];
    size_t size = 0;
    for (int i = 0; i < depth; i++) {
        text[size++] = open;
        if (open == '{' && i + 1 < depth) {
            memcpy(text + size, "\"\":", 3);
            size += 3;
        }
    }
    for (int i = 0; i < depth; i++) text[size++] = close;
    if (rtpush_is_json(at_end(text, size), size) != want) wrong("%c %d deep", open, depth);
}

// Every text of up to five of these characters, against the second opinion.
static void json_exhaustive(void) {
    static const char letters[] = "[]{}\",:01-.eE+\\ n";
    const size_t base = sizeof letters - 1;
    for (size_t len = 0, count = 1; len <= 5; len++, count *= base)
        for (size_t k = 0; k < count; k++) {
            char text[5];
            size_t rest = k;
            for (size_t i = 0; i < len; i++, rest /= base) text[i] = letters[rest % base];
            if (rtpush_is_json(at_end(text, len), len) != json_is(text, len)) wrong("%.*s", (int)len, text);
        }
    end_of("json_every_short_text_against_a_second_reader__rfc8259_2");
}

// Texts of whole tokens, so that most of the grammar is walked.
static void json_random(void) {
    static const char *const tokens[] = {"[", "]", "{", "}", ",", ":", "\"\"", "\"a\"", "\"\\u12aF\"", "\"\\n\"", "0", "-1.5e3", "true", "false", "null", " ", "\n", "\"", "1"};
    for (int round = 0; round < 400000; round++) {
        char text[200] = "";
        for (uint32_t i = 0, n = random_below(14); i < n; i++) strcat(text, tokens[random_below(COUNT(tokens))]);
        size_t size = strlen(text);
        if (rtpush_is_json(at_end(text, size), size) != json_is(text, size)) wrong("%s", text);
    }
    end_of("json_random_tokens_against_a_second_reader__rfc8259_2");
}

static void json_tests(void) {
    for (size_t i = 0; i < COUNT(json_vectors); i++) json_vector_all_ways(&json_vectors[i]);
    json_depth(64, '[', ']', true);
    json_depth(65, '[', ']', false);
    json_depth(64, '{', '}', true);
    json_depth(65, '{', '}', false);
    end_of("json_depth_is_at_most_64__rfc8259_9");
    json_exhaustive();
    json_random();
}

// --- cursors ---

static bool cursor_model(const char *d, size_t size, char *epoch, uint64_t *seq) {
    static const char most[] = "18446744073709551615";
    if (size < 10 || size > 29 || d[8] != '-') return false;
    for (size_t i = 0; i < 8; i++)
        if (!((d[i] >= 'a' && d[i] <= 'z') || (d[i] >= '0' && d[i] <= '9'))) return false;
    *seq = 0;
    for (size_t i = 9; i < size; i++) {
        if (d[i] < '0' || d[i] > '9') return false;
        *seq = *seq * 10 + (uint64_t)(d[i] - '0');
    }
    if (size == 29 && memcmp(d + 9, most, 20) > 0) return false;
    memcpy(epoch, d, 8);
    epoch[8] = 0;
    return true;
}

static void cursor_compare(const char *text, size_t size) {
    rtpush_cursor c;
    char epoch[9];
    uint64_t seq = 0;
    memset(&c, 0xa5, sizeof c);
    bool want = cursor_model(text, size, epoch, &seq), got = rtpush_parse_cursor(&c, (const char *)at_end(text, size), size);
    if (got != want) wrong("%.*s %s", (int)size, text, got ? "accepted" : "refused");
    if (got && want && (memcmp(c.epoch, epoch, 9) || c.seq != seq)) wrong("%.*s read as %.8s-%llu", (int)size, text, c.epoch, (unsigned long long)c.seq);
    if (rtpush_parse_cursor(&c, (const char *)at_start(text, size), size) != want) wrong("%.*s at the start of a page", (int)size, text);
}

static void cursor_tests(void) {
    static const char *const good[] = {"k3f9x2ab-1042", "k3f9x2ab-0", "00000000-1", "zzzzzzzz-9223372036854775807"};
    static const char *const bad[] = {"k3f9x2ab-", "k3f9x2ab", "-1", "", "1042", "k3f9x2a-1", "k3f9x2abc-1", "K3f9x2ab-1", "k3f9x2ab--1", "k3f9x2ab-+1", "k3f9x2ab-1 ", " k3f9x2ab-1",
                                      "k3f9x2ab-1-1", "k3f9x2ab-0x1", "k3f9x2ab-18446744073709551616", "k3f9x2ab-99999999999999999999", "k3f9x2ab-184467440737095516150"};
    for (size_t i = 0; i < COUNT(good); i++)
        for (size_t n = 0; n <= strlen(good[i]); n++) cursor_compare(good[i], n);
    end_of("cursor_is_8_letters_a_dash_and_a_number_at_every_prefix");
    for (size_t i = 0; i < COUNT(bad); i++) cursor_compare(bad[i], strlen(bad[i]));
    cursor_compare("k3f9x2ab-1\0", 11);
    end_of("cursor_in_another_form_is_none");
    for (size_t at = 0; at < 13; at++)
        for (int c = 0; c < 256; c++) {
            char text[] = "k3f9x2ab-1042";
            text[at] = (char)c;
            if (at != 9 || c != '0') cursor_compare(text, 13); // a leading zero, never issued: left open
        }
    end_of("cursor_with_every_byte_at_every_place");
}

// --- names and patterns ---

typedef struct topic_vector {
    const char *text;
    size_t size;
    bool is_name, is_pattern;
} topic_vector;

#define TOPIC(text, is_name, is_pattern) {text, sizeof(text) - 1, is_name, is_pattern}

static const topic_vector topic_vectors[] = {
    TOPIC("a", true, true), TOPIC("chat/general", true, true), TOPIC("@user/ann", true, true), TOPIC("a b", true, true),
    TOPIC("\xc3\xa4/\xf0\x9f\x98\x80", true, true), TOPIC("a?b#c", true, true), TOPIC("a\\\"b", true, true),
    TOPIC("a/*", false, true), TOPIC("a/**", false, true), TOPIC("*", false, true), TOPIC("**", false, true), TOPIC("@user/*", false, true),
    TOPIC("", false, false), TOPIC("/", false, false), TOPIC("/a", false, false), TOPIC("a/", false, false), TOPIC("a//b", false, false),
    TOPIC("a/*/b", false, false), TOPIC("*/a", false, false), TOPIC("**/a", false, false), TOPIC("a/***", false, false), TOPIC("a*", false, false), TOPIC("*a", false, false),
    TOPIC("a/b*", false, false), TOPIC("a*b", false, false), TOPIC("a/*/", false, false), TOPIC("a/ *", false, false),
    TOPIC("a\0b", false, false), TOPIC("a\nb", false, false), TOPIC("a\rb", false, false), TOPIC("a\tb", false, false), TOPIC("\001", false, false), TOPIC("a\177", false, false),
    TOPIC("\xff", false, false), TOPIC("a\xc3", false, false), TOPIC("\xed\xa0\x80", false, false), TOPIC("\xc0\xaf", false, false),
};

static void topic_tests(void) {
    for (size_t i = 0; i < COUNT(topic_vectors); i++) {
        const topic_vector *v = &topic_vectors[i];
        const char *ends = (const char *)at_end(v->text, v->size);
        if (rtpush_is_topic(ends, v->size, false) != v->is_name) wrong("%.*s as a name", (int)v->size, v->text);
        if (rtpush_is_topic(ends, v->size, true) != v->is_pattern) wrong("%.*s as a pattern", (int)v->size, v->text);
    }
    end_of("topic_forms__protocol_1");
    for (int c = 0; c < 128; c++) {
        char text[] = "a?b";
        text[1] = (char)c;
        if (rtpush_is_topic((const char *)at_end(text, 3), 3, true) != (c >= ' ' && c != 127 && c != '*')) wrong("byte 0x%02x", (unsigned)c);
    }
    end_of("topic_no_control_characters__protocol_1");
    for (size_t size = 1; size < 600; size++) {
        char text[600];
        memset(text, 'a', size);
        if (rtpush_is_topic((const char *)at_end(text, size), size, false) != (size <= 255)) wrong("%zu bytes", size);
    }
    end_of("topic_is_1_to_255_bytes__protocol_1");
}

// By segments, and otherwise than any clever way would: both are cut into lists.
static size_t segments_of(const char *text, char out[8][16]) {
    size_t count = 0;
    for (const char *at = text; count < 8; at++) {
        size_t len = strcspn(at, "/");
        snprintf(out[count++], 16, "%.*s", (int)len, at);
        at += len;
        if (!*at) break;
    }
    return count;
}

static bool match_model(const char *pattern, const char *name) {
    char p[8][16], n[8][16];
    size_t ps = segments_of(pattern, p), ns = segments_of(name, n);
    bool one = !strcmp(p[ps - 1], "*"), more = !strcmp(p[ps - 1], "**");
    if (!one && !more) return !strcmp(pattern, name);
    if (one ? ns != ps : ns < ps) return false;
    if (ps == 1 && n[0][0] == '@') return false; // its own first segment must be spelled
    for (size_t i = 0; i + 1 < ps; i++)
        if (strcmp(p[i], n[i])) return false;
    return true;
}

static void match_one(const char *pattern, const char *name, bool want) {
    // Both NUL-terminated: the NUL is the last byte before the guard page.
    size_t size = strlen(name) + 1;
    if (rtpush_matches(pattern, (const char *)at_end(name, size)) != want) wrong("%s on %s", pattern, name);
    size = strlen(pattern) + 1;
    if (rtpush_matches((const char *)at_end(pattern, size), name) != want) wrong("%s on %s", pattern, name);
}

static void match_tests(void) {
    match_one("sport/*", "sport/a", true);
    match_one("sport/*", "sport/a/b", false);
    match_one("sport/*", "sport", false);
    match_one("sport/**", "sport/a", true);
    match_one("sport/**", "sport/a/b", true);
    match_one("sport/**", "sport", false);
    match_one("sport/*", "sports/a", false);
    match_one("sport", "sport", true);
    match_one("sport", "Sport", false);
    end_of("matches_one_segment_or_more__protocol_1");
    match_one("*", "@user", false);
    match_one("**", "@user/ann", false);
    match_one("@user/*", "@user/ann", true);
    match_one("@presence/**", "@presence/a/b", true);
    match_one("a/*", "a/@b", true);
    end_of("matches_no_at_name_by_a_wild_first_segment__protocol_1");
    static const char *const parts[] = {"a", "b", "ab", "@a"};
    static char names[340][24], patterns[1020][24];
    size_t count = 0, more = 0;
    for (size_t depth = 1; depth <= 4; depth++)
        for (size_t k = 0, all = (size_t)1 << (2 * depth); k < all; k++, count++)
            for (size_t i = 0; i < depth; i++) snprintf(names[count] + strlen(names[count]), 8, "%s%s", i ? "/" : "", parts[k >> (2 * i) & 3]);
    for (size_t i = 0; i < count; i++) {
        const char *slash = strrchr(names[i], '/');
        int stem = slash ? (int)(slash - names[i]) + 1 : 0;
        snprintf(patterns[more++], 24, "%s", names[i]);
        snprintf(patterns[more++], 24, "%.*s*", stem, names[i]);
        snprintf(patterns[more++], 24, "%.*s**", stem, names[i]);
    }
    for (size_t p = 0; p < more; p++)
        for (size_t n = 0; n < count; n++)
            if (rtpush_matches(patterns[p], names[n]) != match_model(patterns[p], names[n])) wrong("%s on %s", patterns[p], names[n]);
    end_of("matches_as_the_lists_of_segments_do__protocol_1");
}

// --- an answer's head, as a client reads it ---

typedef struct answer_vector {
    const char *name, *text;
    ptrdiff_t say; // 0: the whole text is the head; else the verdict
} answer_vector;

static const answer_vector answer_vectors[] = {
    {"answer_plain__rfc9112_4", "HTTP/1.1 200 OK\r\n\r\n", 0},
    {"answer_without_reason__rfc9112_4", "HTTP/1.1 204 \r\n\r\n", 0},
    {"answer_without_the_space_behind_the_status", "HTTP/1.1 204\r\n\r\n", 0},
    {"answer_of_http10", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", 0},
    {"answer_reason_of_any_bytes", "HTTP/1.1 404 \xe4\xf6\t!\r\n\r\n", 0},
    {"answer_without_host_is_none_of_its_business", "HTTP/1.1 200 OK\r\nServer: x\r\n\r\n", 0},
    {"answer_101", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: x, upgrade\r\n\r\n", 0},
    {"answer_in_lower_case", "http/1.1 200 OK\r\n\r\n", -400},
    {"answer_of_http2", "HTTP/2.0 200 OK\r\n\r\n", -400},
    {"answer_two_digits", "HTTP/1.1 20 OK\r\n\r\n", -400},
    {"answer_four_digits", "HTTP/1.1 2000 OK\r\n\r\n", -400},
    {"answer_status_99", "HTTP/1.1 099 X\r\n\r\n", -400},
    {"answer_status_600", "HTTP/1.1 600 X\r\n\r\n", -400},
    {"answer_status_with_a_sign", "HTTP/1.1 +20 X\r\n\r\n", -400},
    {"answer_two_spaces", "HTTP/1.1  200 OK\r\n\r\n", -400},
    {"answer_leading_line_end", "\r\nHTTP/1.1 200 OK\r\n\r\n", -400},
    {"answer_bare_lf__rfc9112_2_2", "HTTP/1.1 200 OK\n\n", -400},
    {"answer_nul_in_a_value", "HTTP/1.1 200 OK\r\nA: b\1c\r\n\r\n", -400},
    {"answer_folded__rfc9112_5_2", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", -400},
    {"answer_space_before_the_colon__rfc9112_5_1", "HTTP/1.1 200 OK\r\nA : b\r\n\r\n", -400},
    {"answer_no_colon", "HTTP/1.1 200 OK\r\nAb\r\n\r\n", -400},
    {"answer_two_lengths__rfc9112_6_3", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", -400},
    {"answer_length_and_chunked__rfc9112_6_3", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", -400},
    {"answer_length_negative", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", -400},
    {"answer_length_of_2_pow_63", "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\n", -400},
    {"answer_chunked_in_http10__rfc9112_6_1", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", -400},
    {"answer_gzip_chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", -501},
    {"answer_garbage_is_seen_early", "SSH-2.0-OpenSSH", -400},
};

static void answer_tests(void) {
    static rtpush_head h;
    for (size_t i = 0; i < sizeof answer_vectors / sizeof *answer_vectors; i++) {
        const answer_vector *v = &answer_vectors[i];
        size_t size = strlen(v->text);
        ptrdiff_t got = rtpush_parse_answer(&h, (const char *)at_end(v->text, size), size, 0, 0);
        if (got != (v->say ? v->say : (ptrdiff_t)size)) wrong("the verdict is %ld", (long)got);
        for (size_t n = 0; n < size; n++) {
            ptrdiff_t part = rtpush_parse_answer(&h, (const char *)at_end(v->text, n), n, 0, 0);
            if (part > 0 || (part && part != v->say)) wrong("%ld after %zu bytes", (long)part, n);
        }
        end_of(v->name);
    }
    const char *text = answer_vectors[6].text;
    EXPECT(rtpush_parse_answer(&h, text, strlen(text), 0, 0) > 0 && h.wants_websocket && h.status == 101 && h.count == 2);
    text = "HTTP/1.0 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    EXPECT(rtpush_parse_answer(&h, text, strlen(text), 0, 0) > 0 && !h.wants_websocket && !h.keep_alive);
    text = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\n";
    EXPECT(rtpush_parse_answer(&h, text, strlen(text), 0, 0) > 0 && h.has_length && h.length == 12 && !h.keep_alive && !h.is_chunked);
    end_of("answer_fields_say_where_it_ends");
    text = "HTTP/1.1 200 OK\r\nA: 1\r\nB: 2\r\n\r\n";
    EXPECT(rtpush_parse_answer(&h, text, strlen(text), 0, 1) == -431 && rtpush_parse_answer(&h, text, strlen(text), 20, 0) == -431);
    end_of("answer_limits");
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    make_room();
    head_tests();
    answer_tests();
    chunked_tests();
    frame_tests();
    frame_refusal_tests();
    mask_tests();
    utf8_tests();
    json_tests();
    cursor_tests();
    topic_tests();
    match_tests();
    printf("%d passed, %d failed\n", passed, failed);
    return failed ? 1 : 0;
}
