// What api.c, bus.c and threads.c share: tests that run each in a process of their own, a hub whose clock can
// be moved, and a small client that is stepped in turns with the hub.
#ifndef CLIENT_H
#define CLIENT_H
#ifndef RTPUSH_DEBUG
#define RTPUSH_DEBUG
#endif
#define RTPUSH_IMPLEMENTATION
#include "../rtpush.h"

#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>

#define UNUSED __attribute__((unused))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))

// --- one test, one process: a crash or a leak costs only its own test ---

typedef struct verdict {
    char why[500];   // the first thing that was wrong; empty: nothing
    char where[120]; // what was being tried, for a crash
} verdict;

static verdict *V; // shared with the child
static int passed_count, failed_count;
static const char *only; // --only TEXT: the names that contain it
static bool no_fork;

static void wrong(int line, const char *format, ...) PRINTF_LIKE(2, 3);
static void wrong(int line, const char *format, ...) {
    va_list args;
    char text[400];
    if (*V->why) return; // the first reason is the one to read
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20) *p = '|';
    snprintf(V->why, sizeof V->why, "line %d: %.300s%s%.100s", line, text, *V->where ? " in " : "", V->where);
}

#define CHECK(x)                                \
    do {                                        \
        if (!(x)) wrong(__LINE__, "not %s", #x); \
    } while (0)
#define CHECK_INT(got, want)                                                                                               \
    do {                                                                                                                   \
        long long got_ = (long long)(got), want_ = (long long)(want);                                                      \
        if (got_ != want_) wrong(__LINE__, "%s is %lld, not %lld", #got, got_, want_);                                      \
    } while (0)
#define CHECK_CODE(got, want)                                                                                              \
    do {                                                                                                                   \
        int got_ = (got), want_ = (want);                                                                                  \
        if (got_ != want_) wrong(__LINE__, "%s is \"%s\", not \"%s\"", #got, rtpush_strerror(got_), rtpush_strerror(want_)); \
    } while (0)
#define CHECK_TEXT(got, want)                                                                              \
    do {                                                                                                   \
        const char *got_ = (got), *want_ = (want);                                                         \
        if (!got_ || strcmp(got_, want_)) wrong(__LINE__, "%s is \"%.200s\", not \"%.100s\"", #got, got_ ? got_ : "(null)", want_); \
    } while (0)
#define CHECK_HAS(text, part)                                                                      \
    do {                                                                                           \
        const char *text_ = (text), *part_ = (part);                                               \
        if (!text_ || !strstr(text_, part_)) wrong(__LINE__, "no \"%.100s\" in \"%.250s\"", part_, text_ ? text_ : "(null)"); \
    } while (0)

static void run(const char *name, void (*test)(void)) {
    int status = 0;
    if (only && !strstr(name, only)) return;
    memset(V, 0, sizeof *V);
    fflush(stdout);
    if (no_fork) {
        test();
    } else {
        pid_t pid = fork();
        if (pid == 0) {
            alarm(120);
            test();
            exit(0); // the leak checker's status, if it finds one
        }
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
        if (status && !*V->why) snprintf(V->why, sizeof V->why, "%s %d%s%.120s", WIFSIGNALED(status) ? "killed by signal" : "a sanitizer's report, status", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), *V->where ? " in " : "", V->where);
    }
    if (*V->why) printf("not ok %s: %s\n", name, V->why);
    else printf("ok %s\n", name);
    if (*V->why) failed_count++;
    else passed_count++;
}

static int begin(int argc, char **argv) {
    void *page = mmap(NULL, sizeof *V, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return 1;
    V = (verdict *)page;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--no-fork")) no_fork = true;
        else if (!strcmp(argv[i], "--only") && i + 1 < argc) only = argv[++i];
        else return fprintf(stderr, "%s [--only TEXT] [--no-fork]\n", argv[0]), 2;
    }
    return 0;
}

static int end(void) {
    printf("%d passed, %d failed\n", passed_count, failed_count);
    return failed_count || !passed_count;
}

// --- the hub at hand, its clock, its memory ---

static rtpush_hub *hub;
static bool is_destroyed; // rtpush_destroy was called inside a callback: the hub goes when its turn ends
static uint64_t skipped_ms; // what the tests added to the clock

static uint64_t real_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static uint64_t clock_now(void *user) { return (void)user, real_ms() + skipped_ms; }
static const rtpush_sys clock_sys = {.now_ms = clock_now};

static long blocks; // live allocations of a hub with desc.alloc = counted
static long fail_after = -1; // allocations until one fails; -1: none does
static UNUSED void *counted(void *old, size_t size, void *user) {
    (void)user;
    if (!size) {
        if (old) blocks--;
        free(old);
        return NULL;
    }
    if (fail_after >= 0 && fail_after-- == 0) return NULL;
    if (!old) blocks++;
    return realloc(old, size);
}

// A hub with a clock that can be moved and counted memory, unless the desc has its own.
static UNUSED rtpush_hub *start(const rtpush_desc *desc) {
    rtpush_desc d = *desc;
    int code = 0;
    if (!d.sys) d.sys = &clock_sys;
    if (!d.alloc) d.alloc = counted;
    hub = rtpush_create_ex(&d, &code);
    if (!hub) wrong(__LINE__, "rtpush_create_ex: %s", rtpush_strerror(code));
    return hub;
}

// One turn. The hub may be gone afterwards.
static int turn(int timeout_ms) {
    if (!hub) return RTPUSH_E_STATE;
    int code = rtpush_step(hub, timeout_ms);
    if (!is_destroyed) return code;
    if (code != RTPUSH_E_STATE) wrong(__LINE__, "rtpush_step of a destroyed hub: %s", rtpush_strerror(code));
    hub = NULL;
    return RTPUSH_E_STATE;
}

static void turns(int count) {
    for (int i = 0; i < count && hub; i++) turn(0);
    const char *bad = hub ? rtpush_check(hub) : NULL;
    if (bad) wrong(__LINE__, "rtpush_check: %s", bad);
}

// The clock jumps: what was due is done.
static UNUSED void skip(uint64_t ms) {
    skipped_ms += ms;
    turns(3);
}

// Ends the hub, if there is one, and all its memory must be back.
static UNUSED void finish(void) {
    if (hub) {
        const char *bad = rtpush_check(hub);
        if (bad) wrong(__LINE__, "rtpush_check: %s", bad);
        rtpush_destroy(hub);
    }
    hub = NULL;
    if (blocks) wrong(__LINE__, "%ld allocations are left", blocks);
}

static UNUSED rtpush_stats stats(void) {
    rtpush_stats s;
    memset(&s, 0, sizeof s);
    if (hub) rtpush_get_stats(hub, &s);
    return s;
}

// --- a client ---

typedef struct client {
    int fd;
    char *in; // what came and was not taken, NUL-terminated
    size_t size, cap;
    bool has_ended; // the hub closed it, or reset it
} client;

enum { PATIENCE_MS = 3000 };

static client *client_new(int fd) {
    client *c = (client *)calloc(1, sizeof *c);
    if (!c) exit(3);
    c->fd = fd;
    c->in = (char *)calloc(1, c->cap = 4096);
    if (!c->in) exit(3);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    return c;
}

// One end of a pair; the hub has the other.
static UNUSED client *dial(void) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) exit(3);
    int code = RTPUSH_OK;
    if (hub) code = rtpush_adopt(hub, pair[1]);
    else close(pair[1]);
    if (code) wrong(__LINE__, "rtpush_adopt: %s", rtpush_strerror(code));
    return client_new(pair[0]);
}

static UNUSED client *dial_tcp(int port) {
    struct sockaddr_in to;
    memset(&to, 0, sizeof to);
    to.sin_family = AF_INET;
    to.sin_port = htons((uint16_t)port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to)) wrong(__LINE__, "connect: %s", strerror(errno));
    return client_new(fd);
}

static UNUSED void hang_up(client *c) {
    if (!c) return;
    close(c->fd);
    free(c->in);
    free(c);
}

// Closes with an RST instead of a FIN (TCP).
static UNUSED void reset(client *c) {
    struct linger now = {1, 0};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    hang_up(c);
}

// What has come, at most `max` bytes of it.
static bool take_in(client *c, size_t max) {
    bool any = false;
    while (max && !c->has_ended) {
        if (c->size + 1 == c->cap && !(c->in = (char *)realloc(c->in, c->cap *= 2))) exit(3);
        size_t room = c->cap - c->size - 1;
        ssize_t n = recv(c->fd, c->in + c->size, RP_MIN(room, max), 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) break;
        if (n <= 0) {
            c->has_ended = true;
            break;
        }
        c->size += (size_t)n;
        max -= (size_t)n;
        c->in[c->size] = 0;
        any = true;
    }
    return any;
}

static void drop(client *c, size_t size) {
    memmove(c->in, c->in + size, c->size - size + 1);
    c->size -= size;
}

// Sends all, in turns with the hub where the socket is full.
static void put(client *c, const void *data, size_t size) {
    const char *at = (const char *)data;
    uint64_t until_ms = real_ms() + PATIENCE_MS;
    while (size && real_ms() < until_ms) {
        ssize_t n = send(c->fd, at, size, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR) return; // the hub closed it
        if (n > 0) at += n, size -= (size_t)n;
        if (size) turn(1);
    }
}

static void say(client *c, const char *format, ...) PRINTF_LIKE(2, 3);
static void say(client *c, const char *format, ...) {
    char text[8192];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    put(c, text, n < 0 ? 0 : RP_MIN((size_t)n, sizeof text - 1));
}

// Turns until `done` says so, with the client reading. false: it took too long.
static bool wait_for(client *c, bool (*done)(client *c, const void *arg), const void *arg) {
    uint64_t until_ms = real_ms() + PATIENCE_MS;
    for (;;) {
        turn(0);
        if (c) take_in(c, SIZE_MAX);
        if (done(c, arg)) return true;
        if (real_ms() >= until_ms || (c && c->has_ended && !hub)) return false;
        if (turn(2) && c) { // no hub any more: what it sent may still come
            take_in(c, SIZE_MAX);
            if (done(c, arg)) return true;
        }
    }
}

static UNUSED bool has_text(client *c, const void *text) { return strstr(c->in, (const char *)text) != NULL; }
static UNUSED bool has_ended(client *c, const void *arg) { return (void)arg, c->has_ended; }
static UNUSED bool has_value(client *c, const void *flag) { return (void)c, *(const int *)flag != 0; }

#define EXPECT(c, text)                                                                                            \
    do {                                                                                                           \
        if (!wait_for((c), has_text, (text))) wrong(__LINE__, "did not get \"%.100s\", but \"%.250s\"%s", (text), (c)->in, (c)->has_ended ? " and the end" : ""); \
    } while (0)
#define EXPECT_END(c)                                                                                    \
    do {                                                                                                 \
        if (!wait_for((c), has_ended, NULL)) wrong(__LINE__, "it was not closed, after \"%.250s\"", (c)->in); \
    } while (0)
#define EXPECT_FLAG(flag)                                                              \
    do {                                                                               \
        if (!wait_for(NULL, has_value, &(flag))) wrong(__LINE__, "%s did not happen", #flag); \
    } while (0)

// Drops all up to and including this text.
static UNUSED void drop_past(client *c, const char *text) {
    char *at = strstr(c->in, text);
    if (at) drop(c, (size_t)(at - c->in) + strlen(text));
}

// --- HTTP ---

typedef struct reply {
    int status;
    char head[2048], *body; // body: NUL-terminated, inside the client's buffer until the next reply is awaited
    size_t size, taken;
} reply;

static const char *header_of(const reply *r, const char *name, char *value, size_t cap) {
    size_t n = strlen(name);
    for (const char *line = r->head; (line = strstr(line, "\r\n")) != NULL;) {
        line += 2;
        if (strncasecmp(line, name, n) || line[n] != ':') continue;
        const char *from = line + n + 1 + (line[n + 1] == ' ');
        snprintf(value, cap, "%.*s", (int)strcspn(from, "\r"), from);
        return value;
    }
    return NULL;
}

// Undoes the chunks in place. 0: not whole yet; else the bytes they took.
static size_t dechunk(char *data, size_t size, size_t *out) {
    rtpush_chunked state;
    size_t at = 0;
    memset(&state, 0, sizeof state);
    *out = 0;
    while (!state.is_done) {
        rtpush_slice part;
        ptrdiff_t n = rtpush_parse_chunked(&state, data + at, size - at, &part);
        if (n < 0) wrong(__LINE__, "a malformed chunk at \"%.60s\"", data + at);
        if (n <= 0) return 0;
        memmove(data + *out, part.data ? part.data : "", part.size);
        *out += part.size;
        at += (size_t)n;
    }
    return at;
}

static char *whole_copy; // of a chunked body, as undoing it destroys it

static bool reply_is_whole(client *c, const void *arg) {
    reply *r;
    memcpy(&r, &arg, sizeof r);
    bool is_head = r->size == SIZE_MAX;
    char value[64];
    char *end_of_head = strstr(c->in, "\r\n\r\n");
    if (!end_of_head) return false;
    size_t head = (size_t)(end_of_head - c->in) + 4;
    snprintf(r->head, sizeof r->head, "%.*s", (int)head, c->in);
    r->status = atoi(c->in + 9);
    r->body = c->in + head;
    if (is_head || r->status == 304 || r->status == 204 || r->status < 200) return r->taken = head, r->size = 0, true;
    if (header_of(r, "Content-Length", value, sizeof value)) {
        size_t size = (size_t)atol(value);
        if (c->size < head + size) return false;
        return r->taken = head + size, r->size = size, true;
    }
    if (header_of(r, "Transfer-Encoding", value, sizeof value)) {
        free(whole_copy);
        if (!(whole_copy = (char *)malloc(c->size - head + 1))) exit(3);
        memcpy(whole_copy, r->body, c->size - head + 1);
        size_t size, taken = dechunk(whole_copy, c->size - head, &size);
        if (!taken) return false;
        whole_copy[size] = 0;
        r->body = whole_copy;
        return r->taken = head + taken, r->size = size, true;
    }
    if (!c->has_ended) return false;
    return r->taken = c->size, r->size = c->size - head, true;
}

static char body_text[65536]; // the last reply's body (its beginning)

// The next whole reply; status 0: none came.
static reply await_reply(client *c, bool is_head) {
    reply r;
    memset(&r, 0, sizeof r);
    r.size = is_head ? SIZE_MAX : 0;
    *body_text = 0;
    if (!wait_for(c, reply_is_whole, &r)) {
        memset(&r, 0, sizeof r);
        snprintf(r.head, sizeof r.head, "(none: %.200s%s)", c->in, c->has_ended ? ", ended" : "");
        r.body = body_text;
        return r;
    }
    size_t n = RP_MIN(r.size, sizeof body_text - 1);
    memcpy(body_text, r.body, n);
    body_text[n] = 0;
    r.body = body_text;
    drop(c, r.taken);
    return r;
}

static UNUSED reply request(client *c, const char *method, const char *target, const char *headers, const char *body) {
    say(c, "%s %s HTTP/1.1\r\nHost: h\r\n%s", method, target, headers ? headers : "");
    if (body) say(c, "Content-Length: %zu\r\n\r\n%s", strlen(body), body);
    else say(c, "\r\n");
    return await_reply(c, !strcmp(method, "HEAD"));
}

// A request on a connection of its own.
static UNUSED reply request_once(const char *method, const char *target, const char *headers, const char *body) {
    client *c = dial();
    reply r = request(c, method, target, headers, body);
    hang_up(c);
    turns(2);
    return r;
}

// --- WebSocket ---

typedef struct frame {
    int opcode; // 0: none came
    bool is_final;
    size_t size;
    int code;        // of a close
    char data[4096]; // its beginning, NUL-terminated; a close's reason
} frame;

static int ws_handshake(client *c, const char *target, const char *protocol, const char *headers) {
    say(c, "GET %s HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", target);
    if (protocol) say(c, "Sec-WebSocket-Protocol: %s\r\n", protocol);
    say(c, "%s\r\n", headers ? headers : "");
    return await_reply(c, false).status;
}

static UNUSED void ws_send(client *c, int opcode, bool is_final, const void *data, size_t size) {
    unsigned char head[14], key[4] = {0x12, 0x34, 0x56, 0x78};
    size_t n = 2;
    head[0] = (unsigned char)((is_final ? 0x80 : 0) | opcode);
    if (size < 126) {
        head[1] = (unsigned char)(0x80 | size);
    } else if (size < 65536) {
        head[1] = 0x80 | 126;
        head[2] = (unsigned char)(size >> 8);
        head[3] = (unsigned char)size;
        n = 4;
    } else {
        head[1] = 0x80 | 127;
        for (int i = 0; i < 8; i++) head[2 + i] = (unsigned char)((uint64_t)size >> (56 - 8 * i));
        n = 10;
    }
    memcpy(head + n, key, 4);
    unsigned char *all = (unsigned char *)malloc(n + 4 + size); // in one piece: RFC 896 would keep the second one back
    if (!all) exit(3);
    memcpy(all, head, n + 4);
    if (size) memcpy(all + n + 4, data, size);
    rtpush_mask(all + n + 4, size, key, 0);
    put(c, all, n + 4 + size);
    free(all);
}

static UNUSED void ws_text(client *c, const char *text) { ws_send(c, 1, true, text, strlen(text)); }

static UNUSED void ws_close(client *c, int code) {
    unsigned char data[2] = {(unsigned char)(code >> 8), (unsigned char)code};
    ws_send(c, 8, true, data, 2);
}

static bool frame_is_whole(client *c, const void *arg) {
    frame *f;
    rtpush_frame head;
    memcpy(&f, &arg, sizeof f);
    ptrdiff_t n = rtpush_parse_frame(&head, (const unsigned char *)c->in, c->size);
    if (n < 0) wrong(__LINE__, "a malformed frame from the hub");
    if (n <= 0 || c->size - (size_t)n < head.length) return false;
    const char *data = c->in + n;
    size_t skip_code = head.opcode == 8 && head.length >= 2 ? 2 : 0;
    if (head.is_masked) wrong(__LINE__, "a masked frame from the hub");
    f->opcode = head.opcode;
    f->is_final = head.is_final;
    f->size = (size_t)head.length;
    f->code = skip_code ? (unsigned char)data[0] << 8 | (unsigned char)data[1] : 0;
    size_t kept = RP_MIN((size_t)head.length - skip_code, sizeof f->data - 1);
    memcpy(f->data, data + skip_code, kept);
    f->data[kept] = 0;
    drop(c, (size_t)n + (size_t)head.length);
    return true;
}

static UNUSED frame ws_next(client *c) {
    frame f;
    memset(&f, 0, sizeof f);
    wait_for(c, frame_is_whole, &f);
    return f;
}

// Frames until a text with this in it; what came instead, if it is a close or nothing.
static UNUSED frame ws_until(client *c, const char *text) {
    frame f;
    do f = ws_next(c);
    while (f.opcode && f.opcode != 8 && !(f.opcode == 1 && strstr(f.data, text)));
    return f;
}

static UNUSED frame ws_until_close(client *c) {
    frame f;
    do f = ws_next(c);
    while (f.opcode && f.opcode != 8);
    return f;
}

#define EXPECT_TEXT(c, text)                                                                                       \
    do {                                                                                                           \
        frame f_ = ws_until((c), (text));                                                                          \
        if (f_.opcode != 1) wrong(__LINE__, "no text with \"%.100s\", but opcode %d, code %d, \"%.150s\"%s", (text), f_.opcode, f_.code, f_.data, (c)->has_ended ? " and the end" : ""); \
    } while (0)
#define EXPECT_CLOSE(c, want)                                                                                      \
    do {                                                                                                           \
        frame f_ = ws_until_close((c));                                                                            \
        if (f_.opcode != 8 || f_.code != (want)) wrong(__LINE__, "no close %d, but opcode %d, code %d, \"%.150s\"%s", (want), f_.opcode, f_.code, f_.data, (c)->has_ended ? " and the end" : ""); \
    } while (0)

// A raw or an envelope WebSocket that is open.
static UNUSED client *open_raw(const char *target, const char *headers) {
    client *c = dial();
    int status = ws_handshake(c, target, NULL, headers);
    if (status != 101) wrong(__LINE__, "%s: %d, not 101", target, status);
    return c;
}

static UNUSED client *open_envelope(const char *target, const char *headers) {
    client *c = dial();
    int status = ws_handshake(c, target, "rtpush.v1", headers);
    if (status != 101) wrong(__LINE__, "%s: %d, not 101", target, status);
    return c;
}

static UNUSED client *open_events(const char *target, const char *headers) {
    client *c = dial();
    say(c, "GET %s HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n%s\r\n", target, headers ? headers : "");
    EXPECT(c, "retry: ");
    return c;
}

// A long poll that is parked.
static UNUSED client *open_poll(const char *target, const char *headers) {
    client *c = dial();
    uint64_t before = stats().parked_polls;
    say(c, "GET %s HTTP/1.1\r\nHost: h\r\n%s\r\n", target, headers ? headers : "");
    for (int i = 0; i < 20 && stats().parked_polls == before; i++) turns(1);
    CHECK_INT(stats().parked_polls, before + 1);
    return c;
}

static UNUSED int publish_text(const char *topic, const char *text) { return rtpush_publish(hub, topic, text, strlen(text)); }
#endif
