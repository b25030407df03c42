// The client's public functions and callbacks over real sockets: what each returns, what it says to which mistake, that
// a host may do anything inside any callback, and what servers of all kinds do to it.
//
//     cc -std=c99 -g -fsanitize=address,undefined tests/client_c/api.c -o build/client_api -pthread && build/client_api
//     build/client_api --only TEXT --no-fork      one test, for a debugger
//
// The server is a hub, or a script over plain sockets; it and the client take turns on one thread.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
// Names that end in .test are ours: two.test has an address where nobody listens, then one where somebody does.
static int look_up(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **found);
#define getaddrinfo look_up
#define RTPUSH_DEBUG
#include "lib.h"
#undef getaddrinfo

static int look_up(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **found) {
    struct addrinfo *second;
    size_t size = strlen(host);
    if (size < 5 || strcmp(host + size - 5, ".test")) return getaddrinfo(host, port, hints, found);
    if (hints->ai_flags & AI_NUMERICHOST) return EAI_NONAME;
    int failed = getaddrinfo("127.0.0.9", port, hints, found);
    if (failed) return failed;
    failed = getaddrinfo("127.0.0.1", port, hints, &second);
    if (failed) return freeaddrinfo(*found), failed;
    (*found)->ai_next = second;
    return 0;
}

// ============================================================================
// what a client was told, and what is done inside its callbacks
// ============================================================================

enum place { IN_MESSAGE, IN_GAP, IN_CONNECTING, IN_OPEN, IN_WAITING, IN_CLOSED, IN_TOKEN, IN_DONE, PLACES };
static const char *const place_names[PLACES] = {"on_message", "on_gap", "on_state(connecting)", "on_state(open)", "on_state(waiting)", "on_state(closed)", "on_token", "done"};

static struct {
    rtpush_client client;
    int messages, gaps, tokens, states[4], dones, good_dones, code_of_done;
    uint64_t seq_of_done;
    char data[256], topic[256], event[64], id[64], gap[128], reason[400], all[4000]; // all: each message's data and a blank
    size_t size;
    int kind;
    bool is_ephemeral;
    rtpush_client_status status; // the last one; its reason is above
    int last_code, last_status;  // of the last state that had a code
    int64_t delay_ms;
    enum place place; // where `act` is called, once
    void (*act)(void);
    bool has_acted;
    const char *token;
} seen;

static int port; // the server's or the script's
static char url[200];
static bool is_destroyed; // by an act: the hub goes when its turn ends

static void act(enum place place) {
    if (!seen.act || seen.has_acted || seen.place != place) return;
    seen.has_acted = true;
    seen.act();
}

static void on_message(rtpush_hub *hub, rtpush_client client, const rtpush_message *m, const char *id, void *user) {
    (void)hub, (void)client, (void)user;
    size_t have = strlen(seen.all);
    seen.messages++;
    seen.kind = m->kind;
    seen.size = m->size;
    seen.is_ephemeral = m->ephemeral;
    snprintf(seen.data, sizeof seen.data, "%.*s", (int)RP_MIN(m->size, sizeof seen.data - 1), (const char *)m->data);
    snprintf(seen.all + have, sizeof seen.all - have, "%.30s ", seen.data);
    snprintf(seen.topic, sizeof seen.topic, "%s", m->topic);
    snprintf(seen.event, sizeof seen.event, "%s", m->event);
    snprintf(seen.id, sizeof seen.id, "%s", id);
    act(IN_MESSAGE);
}

static void on_gap(rtpush_hub *hub, rtpush_client client, const char *from, const char *to, const char *reason, void *user) {
    (void)hub, (void)client, (void)user;
    seen.gaps++;
    snprintf(seen.gap, sizeof seen.gap, "%.40s %.40s %.20s", from, to, reason);
    act(IN_GAP);
}

static void on_state(rtpush_hub *hub, rtpush_client client, const rtpush_client_status *status, void *user) {
    (void)hub, (void)client, (void)user;
    seen.states[status->state]++;
    seen.status = *status;
    if (status->code || status->status) {
        seen.last_code = status->code;
        seen.last_status = status->status;
        snprintf(seen.reason, sizeof seen.reason, "%s", status->reason);
    }
    if (status->state == RTPUSH_CLIENT_WAITING) seen.delay_ms = status->delay_ms;
    act((enum place)(IN_CONNECTING + status->state));
}

static const char *on_token(rtpush_hub *hub, rtpush_client client, void *user) {
    (void)hub, (void)client, (void)user;
    seen.tokens++;
    act(IN_TOKEN);
    return seen.token;
}

static void on_done(rtpush_hub *hub, uint64_t ticket, uint64_t seq, int code, void *user) {
    (void)hub, (void)ticket, (void)user;
    seen.dones++;
    seen.good_dones += !code;
    seen.code_of_done = code;
    seen.seq_of_done = seq;
    act(IN_DONE);
}

static rtpush_client_desc client_desc(void) {
    rtpush_client_desc d;
    memset(&d, 0, sizeof d);
    d.url = url;
    d.backoff_ms = 10;
    d.backoff_max_ms = 50;
    d.interval_ms = 20;
    d.wait_ms = 1000;
    d.connect_timeout_ms = 2000;
    d.on_message = on_message;
    d.on_gap = on_gap;
    d.on_state = on_state;
    return d;
}

static void connect_by(const rtpush_client_desc *d) {
    seen.client = rtpush_connect(loop, d);
    if (!seen.client) wrong(__LINE__, "rtpush_connect: %s", rtpush_last_error(loop));
}

static int publish_to(const char *topic, const void *data, size_t size, int kind) {
    rtpush_publication what;
    memset(&what, 0, sizeof what);
    what.topic = topic;
    what.data = data;
    what.size = size;
    what.kind = kind;
    what.done = on_done;
    return rtpush_client_publish(loop, seen.client, &what);
}

static int publish(const char *text) { return publish_to(NULL, text, strlen(text), 0); }
static int say(const char *topic, const char *text) { return rtpush_publish(server, topic, text, strlen(text)); }

// --- memory that is counted, and that fails ---

static long blocks, fail_after = -1; // allocations until one fails; -1: none does
static int fails;                    // so many fail then
static bool has_failed;

static void *counted(void *old, size_t size, void *user) {
    (void)user;
    if (!size) {
        blocks -= old != NULL;
        free(old);
        return NULL;
    }
    if (fail_after > 0) fail_after--;
    else if (!fail_after && fails) return fails--, has_failed = true, NULL;
    blocks += old == NULL;
    return realloc(old, size);
}

// ============================================================================
// a script that serves
// ============================================================================

enum { PEERS_MAX = 8, REQUEST_MAX = 16384 };

typedef struct peer {
    int fd; // 0: none
    char in[REQUEST_MAX];
    size_t size;
    bool is_socket;
    int tunnel; // of a proxy: the other end; 0: none
} peer;

static struct {
    int listener, port, requests, frames;
    char heads[8192]; // of all requests so far
    peer peers[PEERS_MAX];
    void (*on_request)(peer *p, const char *head); // NULL: whoever comes is let wait
    void (*on_frame)(peer *p, const char *text);
} script;

static void peer_end(peer *p) {
    if (p->fd) close(p->fd);
    if (p->tunnel) close(p->tunnel);
    p->fd = p->tunnel = 0;
}

static void tell_bytes(peer *p, const void *data, size_t size) {
    for (const char *at = (const char *)data; size;) {
        ssize_t n = send(p->fd, at, size, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR) return;
        if (n > 0) at += n, size -= (size_t)n;
    }
}

static void tell(peer *p, const char *text) { tell_bytes(p, text, strlen(text)); }

static void answer(peer *p, const char *status, const char *headers, const char *body) {
    char text[4000];
    snprintf(text, sizeof text, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n%s\r\n%s", status, strlen(body), headers, body);
    tell(p, text);
}

// A frame; an unmasked text of less than 126 bytes, or a close with its code.
static void tell_frame(peer *p, int opcode, const char *body, size_t size) {
    char head[2] = {(char)(0x80 | opcode), (char)size};
    tell_bytes(p, head, 2);
    tell_bytes(p, body, size);
}
static void tell_text(peer *p, const char *text) { tell_frame(p, 1, text, strlen(text)); }

// The 101 of a WebSocket.
static void take_socket(peer *p, const char *head, const char *headers) {
    char accept_key[32] = "", text[400];
    const char *key = strcasestr(head, "Sec-WebSocket-Key: ");
    if (!key) { wrong(__LINE__, "not a WebSocket's request"); return; }
    rp_ws_accept(accept_key, rp_slice(key + 19, 24));
    accept_key[28] = 0;
    snprintf(text, sizeof text, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n%s\r\n", accept_key, headers);
    p->is_socket = true;
    tell(p, text);
}

static void peer_frames(peer *p) {
    rtpush_frame frame;
    for (;;) {
        ptrdiff_t n = rtpush_parse_frame(&frame, (const unsigned char *)p->in, p->size);
        if (n <= 0 || p->size - (size_t)n < frame.length) return;
        char text[REQUEST_MAX];
        size_t size = (size_t)frame.length;
        memcpy(text, p->in + n, size);
        rtpush_mask((unsigned char *)text, size, frame.key, 0);
        text[size] = 0;
        p->size -= (size_t)n + size;
        memmove(p->in, p->in + n + size, p->size);
        script.frames++;
        if (frame.opcode == 1 && script.on_frame) script.on_frame(p, text);
        if (!p->fd) return;
    }
}

// A whole request, its body too.
static void peer_request(peer *p) {
    rtpush_head head;
    ptrdiff_t n = rtpush_parse_head(&head, p->in, p->size, 0, 0, 0);
    const char *end_of_head = (const char *)memmem(p->in, p->size, "\r\n\r\n", 4);
    if (n < 0 && end_of_head) n = end_of_head + 4 - p->in, memset(&head, 0, sizeof head); // a CONNECT
    if (n <= 0 || p->size - (size_t)n < head.length) return;
    char text[REQUEST_MAX];
    size_t size = (size_t)n + (size_t)head.length, have = strlen(script.heads);
    memcpy(text, p->in, size);
    text[size] = 0;
    p->size -= size;
    memmove(p->in, p->in + size, p->size);
    script.requests++;
    snprintf(script.heads + have, sizeof script.heads - have, "%s", text);
    if (script.on_request) script.on_request(p, text);
}

static void pass_on(int from, int to, bool *is_over) {
    char data[4096];
    ssize_t n = recv(from, data, sizeof data, 0);
    if (n > 0 && send(to, data, (size_t)n, MSG_NOSIGNAL) != n) *is_over = true;
    if (!n) *is_over = true;
}

static void peer_turn(peer *p) {
    bool is_over = false;
    if (p->tunnel) {
        pass_on(p->fd, p->tunnel, &is_over);
        pass_on(p->tunnel, p->fd, &is_over);
        if (is_over) peer_end(p);
        return;
    }
    ssize_t n = recv(p->fd, p->in + p->size, sizeof p->in - p->size - 1, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) { peer_end(p); return; }
    p->size += (size_t)n;
    if (p->is_socket) peer_frames(p);
    else peer_request(p);
}

static void script_turn(void) {
    int fd = script.listener ? accept(script.listener, NULL, NULL) : -1;
    for (int i = 0; i < PEERS_MAX; i++) {
        peer *p = &script.peers[i];
        if (!p->fd && fd >= 0) {
            memset(p, 0, sizeof *p);
            unblock(p->fd = fd);
            fd = -1;
        }
        if (p->fd) peer_turn(p);
    }
    if (fd >= 0) close(fd);
}

static void script_begin(void (*on_request)(peer *p, const char *head)) {
    memset(&script, 0, sizeof script);
    script.on_request = on_request;
    script.listener = listen_at(&script.port);
    port = script.port;
    snprintf(url, sizeof url, "http://127.0.0.1:%d/live/n", port);
}

static void script_cut(void) {
    for (int i = 0; i < PEERS_MAX; i++) peer_end(&script.peers[i]);
}

// ============================================================================
// turns
// ============================================================================

static void turn(void) {
    struct pollfd fds[PEERS_MAX * 2 + 4];
    nfds_t count = 0;
    if (server) fds[count++] = (struct pollfd){rtpush_fd(server), POLLIN, 0};
    if (loop) fds[count++] = (struct pollfd){rtpush_fd(loop), POLLIN, 0};
    if (script.listener) fds[count++] = (struct pollfd){script.listener, POLLIN, 0};
    for (int i = 0; i < PEERS_MAX; i++) {
        if (script.peers[i].fd) fds[count++] = (struct pollfd){script.peers[i].fd, POLLIN, 0};
        if (script.peers[i].tunnel) fds[count++] = (struct pollfd){script.peers[i].tunnel, POLLIN, 0};
    }
    poll(fds, count, least_wait(10));
    if (server) rtpush_step(server, 0);
    script_turn();
    if (loop) rtpush_step(loop, 0);
    if (is_destroyed) loop = NULL;
}

static void turns(int count) {
    while (count--) turn();
}

static void pass(int ms) {
    for (uint64_t end_ms = real_ms() + (uint64_t)ms; real_ms() < end_ms;) turn();
}

#define UNTIL(x)                                                                                                     \
    do {                                                                                                             \
        uint64_t until_ms_ = real_ms() + 5000;                                                                       \
        while (!*why && !(x) && real_ms() < until_ms_) turn();                                                       \
        if (!(x)) wrong(__LINE__, "%s did not happen; %d messages, last code %s, \"%.150s\"", #x, seen.messages, rtpush_strerror(seen.last_code), seen.reason); \
    } while (0)

static void begin_loop(void) {
    rtpush_desc d;
    memset(&d, 0, sizeof d);
    memset(&seen, 0, sizeof seen);
    d.alloc = counted;
    is_destroyed = false;
    loop = make(&d);
}

static void begin_server(const rtpush_desc *desc) {
    rtpush_desc d;
    memset(&d, 0, sizeof d);
    if (desc) d = *desc;
    server = make(&d);
    port = 0;
    CHECK_CODE(rtpush_listen(server, "http://127.0.0.1:0", &port), RTPUSH_OK);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/live/n", port);
}

// Both ends; all of the client's memory must be back.
static void finish(void) {
    if (loop && !is_destroyed) rtpush_destroy(loop);
    loop = NULL;
    if (server) rtpush_destroy(server);
    server = NULL;
    script_cut();
    if (script.listener) close(script.listener);
    script.listener = 0;
    if (blocks) wrong(__LINE__, "%ld allocations are left", blocks);
    blocks = 0;
}

static const char *const transports[] = {"websocket", "sse", "longpoll", "shortpoll"};
enum { TRANSPORTS = 4 };

// A server and a client by one transport, open.
static void begin_both(const char *transport, const char *since) {
    rtpush_client_desc d = client_desc();
    begin_server(NULL);
    begin_loop();
    d.transports = transport;
    d.since = since;
    connect_by(&d);
    UNTIL(seen.states[RTPUSH_CLIENT_OPEN]);
}

// ============================================================================
// mistakes
// ============================================================================

static void expect_no(const rtpush_client_desc *d, const char *what) {
    if (rtpush_connect(loop, d)) wrong(__LINE__, "rtpush_connect takes %s", what);
    if (!*rtpush_last_error(loop)) wrong(__LINE__, "rtpush_last_error is silent about %s", what);
}

static void connect_refuses_bad_urls(void) {
    static const char *const bad[] = {NULL, "", "x", "ftp://h/live/n", "http:/h/live", "http://", "http:///live/n", "http://h:0/live", "http://h:65536/live", "http://h:/live/n",
                                      "http://h:8x/live", "http://a b/live/n", "http://h/live/a b", "http://[::1/live/n", "http://[::g]/live/n", "http://u:p@h/live/n", "unix:", "unix::/live/n",
                                      "http://h/live/\n", "http://h/live/\x80", "http://h/live//n", "http://h/live/n/", "http://h/live/a*b", "http://h/live/a%00b", "http://h/live/a%ffb",
                                      "http://h/live/%", "http://h/live?topic=", "http://h/live?topic=a//b", "http://h/live?topic=%f", "https://h/live/n"};
    char name[600];
    rtpush_client_desc d = client_desc();
    begin_loop();
    for (size_t i = 0; i < COUNT(bad); i++) {
        d.url = bad[i];
#ifdef RTPUSH_OPENSSL
        if (bad[i] && !strncmp(bad[i], "https", 5)) continue;
#endif
        expect_no(&d, bad[i] ? bad[i] : "(null)");
    }
    d.url = name;
    memset(name, 'a', sizeof name);
    memcpy(name, "http://", 7);
    memcpy(name + 300, "/live/n", 8);
    expect_no(&d, "a host of 293 bytes");
    memcpy(name, "http://h/live/", 14);
    memset(name + 14, 'a', 256);
    name[14 + 256] = 0;
    expect_no(&d, "a topic of 256 bytes");
    finish();
}

static void connect_refuses_bad_headers_lists_and_starts(void) {
    static const char *const headers[] = {"X", "X: y", "X: y\r\nZ", "X : y\r\n", ": y\r\n", "X: a\nY: b\r\n\r\n", "X: y\r\n\r\nGET / HTTP/1.1\r\n", "X: \x01\r\n", "Content-Length: 3\r\n", "connection: close\r\n",
                                          "Transfer-Encoding: chunked\r\n", "Upgrade: x\r\n", "Sec-WebSocket-Version: 8\r\n", "Last-Event-ID: 3\r\n", "X\xc3\xa9: y\r\n"};
    static const char *const orders[] = {"", ",", "webSocket2", "sse,sse", "sse,,longpoll", "sse,longpoll,", "websocket,sse,longpoll,shortpoll,sse"};
    static const char *const starts[] = {"x", "-", "--1", "aaaaaaaa-", "AAAAAAAA-1", "18446744073709551616", "earliest "};
    rtpush_client_desc d = client_desc();
    begin_loop();
    for (size_t i = 0; i < COUNT(headers); i++) d.headers = headers[i], expect_no(&d, headers[i]);
    d = client_desc();
    for (size_t i = 0; i < COUNT(orders); i++) {
        if (i == 4 || i == 5) continue; // an empty word in a list: either way is good
        d.transports = orders[i], expect_no(&d, orders[i]);
    }
    d = client_desc();
    for (size_t i = 0; i < COUNT(starts); i++) d.since = starts[i], expect_no(&d, starts[i]);
    d = client_desc();
    d.token = "a\r\nX: y", expect_no(&d, "a token with a line end");
    d = client_desc();
    d.kind = 3, expect_no(&d, "kind 3");
    d.kind = -1, expect_no(&d, "kind -1");
    d = client_desc();
    d.proxy = "https://h:1", expect_no(&d, "a proxy by TLS");
    d.proxy = "h:1", expect_no(&d, "a proxy without a scheme");
    finish();
}

static void a_client_is_closed_before_it_began(void) {
    rtpush_client_desc d = client_desc();
    script_begin(NULL);
    begin_loop();
    connect_by(&d);
    CHECK_CODE(rtpush_client_close(loop, seen.client, 1000, NULL), RTPUSH_OK);
    CHECK_INT(seen.states[RTPUSH_CLIENT_CLOSED], 1);
    turns(3);
    CHECK_INT(seen.states[RTPUSH_CLIENT_CONNECTING], 0);
    finish();
}

static void publish_and_subscribe_say_what_is_wrong(void) {
    rtpush_publication what;
    static char big[2000];
    rtpush_client_desc d = client_desc();
    script_begin(NULL);
    begin_loop();
    d.message_max = 1000;
    connect_by(&d);
    memset(big, 'a', sizeof big);
    CHECK_CODE(publish_to("a//b", "x", 1, 0), RTPUSH_E_TOPIC);
    CHECK_CODE(publish_to("a/*", "x", 1, 0), RTPUSH_E_TOPIC);
    CHECK_CODE(publish_to("", "x", 1, 0), RTPUSH_E_TOPIC);
    CHECK_CODE(publish_to("a\nb", "x", 1, 0), RTPUSH_E_TOPIC);
    CHECK_CODE(publish_to("a", "\xff", 1, RTPUSH_TEXT), RTPUSH_E_UTF8);
    CHECK_CODE(publish_to("a", "{", 1, RTPUSH_JSON), RTPUSH_E_JSON);
    CHECK_CODE(publish_to("a", "", 0, RTPUSH_JSON), RTPUSH_E_JSON);
    CHECK_CODE(publish_to("a", big, 1001, 0), RTPUSH_E_TOO_BIG);
    CHECK_CODE(publish_to("a", "x", 1, 4), RTPUSH_E_ARGUMENT);
    CHECK_CODE(publish_to("a", "x", 1, -1), RTPUSH_E_ARGUMENT);
    memset(&what, 0, sizeof what);
    what.event = "gap";
    CHECK_CODE(rtpush_client_publish(loop, seen.client, &what), RTPUSH_E_EVENT);
    what.event = "a\rb";
    CHECK_CODE(rtpush_client_publish(loop, seen.client, &what), RTPUSH_E_EVENT);
    what.event = "\xff";
    CHECK_CODE(rtpush_client_publish(loop, seen.client, &what), RTPUSH_E_EVENT);
    what.event = NULL;
    what.key = "a\nb";
    CHECK_CODE(rtpush_client_publish(loop, seen.client, &what), RTPUSH_E_ARGUMENT);
    CHECK_CODE(rtpush_client_subscribe(loop, seen.client, "a//b", NULL), RTPUSH_E_TOPIC);
    CHECK_CODE(rtpush_client_subscribe(loop, seen.client, "*/b", NULL), RTPUSH_E_TOPIC);
    CHECK_CODE(rtpush_client_subscribe(loop, seen.client, "a", "x"), RTPUSH_E_ARGUMENT);
    CHECK_CODE(rtpush_client_close(loop, seen.client, 1005, ""), RTPUSH_E_ARGUMENT);
    CHECK_CODE(rtpush_client_close(loop, seen.client, 5000, ""), RTPUSH_E_ARGUMENT);
    CHECK_CODE(rtpush_client_send(loop, seen.client, "x", 1, 0), RTPUSH_E_STATE);
    CHECK_INT(rtpush_client_pending(loop, seen.client), 0);
    CHECK_INT(rtpush_client_topics(loop, seen.client), 1);
    CHECK_CODE(rtpush_client_subscribe(loop, seen.client, "a", NULL), RTPUSH_OK);
    CHECK_CODE(rtpush_client_subscribe(loop, seen.client, "a", "earliest"), RTPUSH_OK);
    CHECK_INT(rtpush_client_topics(loop, seen.client), 2);
    CHECK_CODE(rtpush_client_unsubscribe(loop, seen.client, "b"), RTPUSH_OK);
    CHECK_CODE(rtpush_client_unsubscribe(loop, seen.client, "a"), RTPUSH_OK);
    CHECK_INT(rtpush_client_topics(loop, seen.client), 1);
    finish();
}

static void a_pattern_is_no_place_to_publish_to(void) {
    rtpush_client_desc d = client_desc();
    script_begin(NULL);
    begin_loop();
    d.url = "http://127.0.0.1:1/live/a/*";
    connect_by(&d);
    CHECK_CODE(publish("x"), RTPUSH_E_TOPIC);
    finish();
}

static void queue_max_is_e_full_until_there_is_room(void) {
    rtpush_client_desc d = client_desc();
    static char data[600];
    script_begin(NULL);
    begin_loop();
    d.queue_max = 1000;
    d.publish_ms = 100;
    d.transports = "shortpoll";
    connect_by(&d);
    CHECK_CODE(publish_to("a", data, 600, 0), RTPUSH_OK);
    CHECK_CODE(publish_to("a", data, 600, 0), RTPUSH_E_FULL);
    CHECK_CODE(publish_to("a", data, 400, 0), RTPUSH_OK);
    CHECK_INT(seen.dones, 0);
    UNTIL(seen.dones == 2);
    CHECK_CODE(seen.code_of_done, RTPUSH_E_UNAVAILABLE);
    CHECK_CODE(publish_to("a", data, 600, 0), RTPUSH_OK);
    finish();
    CHECK_INT(seen.dones, 3);
    CHECK_CODE(seen.code_of_done, RTPUSH_E_GONE);
}

static void a_stale_handle_is_a_no_op(void) {
    char buf[32] = "x";
    rtpush_client stale[3] = {0, UINT64_C(0xdeadbeef12345678), 0};
    begin_both("websocket", NULL);
    stale[2] = seen.client;
    CHECK_CODE(rtpush_client_close(loop, seen.client, 1000, "bye"), RTPUSH_OK);
    for (size_t i = 0; i < COUNT(stale); i++) {
        if (i == 2) turns(3);
        seen.client = stale[i];
        if (i == 2) stale[2] = rtpush_connect(loop, &(rtpush_client_desc){.url = url}); // takes its place
        CHECK_CODE(publish("x"), RTPUSH_E_GONE);
        CHECK_CODE(rtpush_client_subscribe(loop, seen.client, "a", NULL), RTPUSH_E_GONE);
        CHECK_CODE(rtpush_client_unsubscribe(loop, seen.client, "a"), RTPUSH_E_GONE);
        CHECK_CODE(rtpush_client_send(loop, seen.client, "x", 1, 0), RTPUSH_E_GONE);
        CHECK_CODE(rtpush_client_close(loop, seen.client, 1000, ""), RTPUSH_E_GONE);
        CHECK_TEXT(rtpush_client_cursor(loop, seen.client, buf), "");
        CHECK_INT(rtpush_client_topics(loop, seen.client), 0);
        CHECK_INT(rtpush_client_pending(loop, seen.client), 0);
    }
    CHECK_INT(seen.states[RTPUSH_CLIENT_CLOSED], 1);
    finish();
}

// ============================================================================
// anything inside any callback
// ============================================================================

static void act_close(void) { rtpush_client_close(loop, seen.client, 1000, "inside"); }
static void act_destroy(void) { is_destroyed = true, rtpush_destroy(loop); }
static void act_subscribe(void) { rtpush_client_subscribe(loop, seen.client, "other", "earliest"); }
static void act_unsubscribe(void) { rtpush_client_unsubscribe(loop, seen.client, "n"); }
static void act_publish(void) { publish_to("other", "inside", 6, 0); }
static void act_connect(void) {
    rtpush_client_desc d = client_desc();
    d.on_state = NULL;
    if (!rtpush_connect(loop, &d) && !is_destroyed && seen.place != IN_CLOSED) wrong(__LINE__, "rtpush_connect inside a callback: %s", rtpush_last_error(loop));
}
static void act_unsubscribe_and_close(void) { act_unsubscribe(), act_publish(), act_close(), act_close(); }

static const struct { const char *name; void (*act)(void); } acts[] = {
    {"close", act_close}, {"destroy", act_destroy}, {"subscribe", act_subscribe}, {"unsubscribe", act_unsubscribe},
    {"publish", act_publish}, {"connect", act_connect}, {"unsubscribe, publish, close twice", act_unsubscribe_and_close}};

// All callbacks come: a gap and two messages, a publish, an end of the connection.
static void scenario(const char *transport, enum place place, size_t which) {
    rtpush_desc s;
    rtpush_client_desc d = client_desc();
    memset(&s, 0, sizeof s);
    s.history = 2;
    begin_server(&s);
    begin_loop();
    for (int i = 0; i < 5; i++) say("n", "old");
    say("other", "o");
    d.transports = transport;
    d.since = "1";
    d.on_token = on_token;
    seen.place = place;
    seen.act = acts[which].act;
    connect_by(&d);
    publish("mine");
    publish_to("other", "mine", 4, 0);
    bool comes_late = place == IN_WAITING || place == IN_CLOSED;
    for (uint64_t end_ms = real_ms() + (comes_late ? 60 : 2000); !seen.has_acted && real_ms() < end_ms;) turn();
    if (place == IN_WAITING && !seen.has_acted) { // it comes by an end
        rtpush_destroy(server);
        server = NULL;
        for (uint64_t end_ms = real_ms() + 2000; !seen.has_acted && real_ms() < end_ms;) turn();
    }
    if (loop && !seen.has_acted) rtpush_client_close(loop, seen.client, 1000, "");
    if (is_destroyed) loop = NULL;
    if (!seen.has_acted) wrong(__LINE__, "%s never came over %s", place_names[place], transport);
    turns(6);
    finish();
    CHECK_INT(seen.states[RTPUSH_CLIENT_CLOSED], 1);
    if (*why && !strstr(why, " | ")) snprintf(why + strlen(why), WHY_MAX - strlen(why), " | %s in %s over %s", acts[which].name, place_names[place], transport);
}

static void anything_inside_any_callback(const char *transport) {
    for (int place = 0; place < PLACES && !*why; place++)
        for (size_t i = 0; i < COUNT(acts) && !*why; i++) scenario(transport, (enum place)place, i);
}

static void anything_inside_any_callback_over_websocket(void) { anything_inside_any_callback("websocket"); }
static void anything_inside_any_callback_over_sse(void) { anything_inside_any_callback("sse"); }
static void anything_inside_any_callback_over_long_polls(void) { anything_inside_any_callback("longpoll"); }
static void anything_inside_any_callback_over_short_polls(void) { anything_inside_any_callback("shortpoll"); }

static void done_that_closes_when_all_is_due_at_once(void) {
    rtpush_client_desc d = client_desc();
    script_begin(NULL);
    begin_loop();
    d.transports = "shortpoll";
    d.publish_ms = d.connect_timeout_ms = 100; // the publish and its POST end in the same turn
    d.on_token = on_token;
    seen.place = IN_DONE;
    seen.act = act_close;
    connect_by(&d);
    publish("a");
    publish("b");
    UNTIL(seen.dones == 2);
    turns(2);
    connect_by(&d); // in the place of the one that is gone
    pass(150);
    finish();
}

static void say_401_to_posts(peer *p, const char *head) {
    if (!strncmp(head, "POST", 4)) seen.place = IN_TOKEN, answer(p, "401 Unauthorized", "", "{}");
    else answer(p, "200 OK", "", "{\"cursor\":\"aaaaaaaa-0\",\"messages\":[]}\n");
}

static void on_token_that_closes_after_a_posts_401(void) {
    rtpush_client_desc d = client_desc();
    script_begin(say_401_to_posts);
    begin_loop();
    d.transports = "shortpoll";
    d.on_token = on_token;
    seen.place = PLACES;
    seen.act = act_close;
    connect_by(&d);
    publish("a");
    UNTIL(seen.has_acted);
    turns(2);
    connect_by(&d); // in the place of the one that is gone
    pass(150);
    CHECK_INT(seen.dones, 1);
    finish();
}

static void destroy_ends_all_that_is_under_way(void) {
    rtpush_client_desc d = client_desc();
    for (int t = 0; t < TRANSPORTS; t++) {
        script_begin(NULL);
        begin_loop();
        d.transports = transports[t];
        for (int i = 0; i < 5; i++) connect_by(&d);
        d.url = "http://localhost:1/live/n"; // a name that is being looked up
        connect_by(&d);
        d.url = url;
        connect_by(&d);
        for (int i = 0; i < 10; i++) CHECK_CODE(publish("x"), RTPUSH_OK);
        CHECK_INT(rtpush_client_pending(loop, seen.client), 10);
        turns(t);
        finish();
        CHECK_INT(seen.dones, 10);
        CHECK_CODE(seen.code_of_done, RTPUSH_E_GONE);
        CHECK_INT(seen.states[RTPUSH_CLIENT_CLOSED], 7);
    }
}

// ============================================================================
// data
// ============================================================================

static void all_kinds_of_data_pass_over_every_transport(void) {
    static char text[0x120 * 4];
    static const char binary[] = "\0\xff\x80 binary \r\n";
    size_t size = 0;
    for (unsigned c = 0; c < 0x100; c++) { // all of U+0000 to U+00FF
        if (c >= 0x80) text[size++] = (char)(0xc0 | c >> 6), text[size++] = (char)(0x80 | (c & 63));
        else text[size++] = (char)c;
    }
    memcpy(text + size, "\xe2\x80\xa8\xf0\x9f\x98\x80\xef\xbf\xbf", 10), size += 10;
    const struct { const char *data; size_t size; int kind; } all[] = {
        {"plain", 5, RTPUSH_TEXT}, {"", 0, RTPUSH_TEXT}, {text, size, RTPUSH_TEXT}, {"{\"a\":[1,\"\\u00e9\"]}", 18, RTPUSH_JSON}, {"\"text\"", 6, RTPUSH_TEXT},
        {" 5 ", 3, RTPUSH_TEXT}, {"null", 4, RTPUSH_JSON}, {binary, sizeof binary, RTPUSH_BINARY}, {"", 0, RTPUSH_BINARY}, {"data: x\n\nid: 3\n", 15, RTPUSH_TEXT}, {"\r\n\r", 3, RTPUSH_TEXT}};
    for (int t = 0; t < TRANSPORTS && !*why; t++) {
        begin_both(transports[t], "earliest");
        for (size_t i = 0; i < COUNT(all) && !*why; i++) {
            CHECK_CODE(publish_to(NULL, all[i].data, all[i].size, all[i].kind), RTPUSH_OK);
            UNTIL(seen.messages == (int)i + 1 && seen.dones == (int)i + 1);
            CHECK_CODE(seen.code_of_done, RTPUSH_OK);
            CHECK_INT(seen.kind, all[i].kind);
            CHECK_INT(seen.size, all[i].size);
            CHECK(!memcmp(seen.data, all[i].data, strnlen(all[i].data, RP_MIN(all[i].size, (size_t)200))));
            CHECK_TEXT(seen.topic, "n");
            if (*why && !strstr(why, " | ")) snprintf(why + strlen(why), WHY_MAX - strlen(why), " | the data %zu over %s", i, transports[t]);
        }
        finish();
    }
}

static void names_with_all_characters_pass(void) {
    static const char topic[] = "a b/%2F?&=#+\xc3\xa9/\"\\~";
    for (int t = 0; t < TRANSPORTS && !*why; t++) {
        rtpush_publication what;
        begin_both(transports[t], "earliest");
        CHECK_CODE(rtpush_client_subscribe(loop, seen.client, topic, "earliest"), RTPUSH_OK);
        memset(&what, 0, sizeof what);
        what.topic = topic;
        what.event = "\xc3\xa9&=\" \\x";
        what.key = "a key\"\\";
        what.data = "x";
        what.size = 1;
        what.done = on_done;
        CHECK_CODE(rtpush_client_publish(loop, seen.client, &what), RTPUSH_OK);
        CHECK_CODE(rtpush_client_publish(loop, seen.client, &what), RTPUSH_OK);
        UNTIL(seen.messages && seen.dones == 2);
        CHECK_INT(seen.seq_of_done, 1);
        CHECK_TEXT(seen.topic, topic);
        CHECK_TEXT(seen.event, what.event);
        pass(60);
        CHECK_INT(seen.messages, 1); // one key, one message
        finish();
    }
}

static void a_message_over_message_max_breaks_the_protocol(void) {
    static char big[3000];
    memset(big, 'a', sizeof big - 1);
    for (int t = 0; t < TRANSPORTS && !*why; t++) {
        rtpush_client_desc d = client_desc();
        begin_server(NULL);
        begin_loop();
        d.message_max = 1000;
        d.transports = transports[t];
        d.since = "earliest";
        d.backoff_ms = d.backoff_max_ms = 5000;
        connect_by(&d);
        rtpush_publish(server, "n", big, 1000);
        UNTIL(seen.messages == 1);
        rtpush_publish(server, "n", big, 1001);
        UNTIL(seen.last_code);
        CHECK_CODE(seen.last_code, RTPUSH_E_PROTOCOL);
        CHECK_INT(seen.messages, 1);
        finish();
    }
}

static void presence_is_told_whole_then_by_changes(void) {
    rtpush_topic_desc told;
    memset(&told, 0, sizeof told);
    told.presence = true;
    for (int t = 0; t < 3 && !*why; t++) { // a short poll has but the snapshot
        rtpush_client_desc d = client_desc();
        rtpush_desc s;
        memset(&s, 0, sizeof s);
        s.presence_ms = 20;
        s.linger_ms = -1;
        begin_server(&s);
        rtpush_configure(server, "n", &told);
        begin_loop();
        d.transports = transports[t];
        snprintf(url, sizeof url, "http://127.0.0.1:%d/live/@presence/n", port);
        connect_by(&d);
        UNTIL(strstr(seen.data, "\"here\""));
        seen.messages = 0;
        rtpush_client watcher = seen.client;
        snprintf(url, sizeof url, "http://127.0.0.1:%d/live/n", port);
        d.on_message = NULL;
        d.transports = "websocket";
        connect_by(&d);

        UNTIL(strstr(seen.data, "\"join\"") || strstr(seen.data, "\"count\":1"));
        rtpush_client_close(loop, seen.client, 1000, "");
        UNTIL(strstr(seen.data, "\"leave\":[\"") || strstr(seen.data, "\"count\":0"));
        CHECK_TEXT(seen.topic, "@presence/n");
        rtpush_client_close(loop, watcher, 1000, "");
        finish();
    }
}

static void ephemeral_messages_come_and_are_not_kept(void) {
    for (int t = 0; t < 3 && !*why; t++) {
        rtpush_publication what;
        begin_both(transports[t], NULL);
        pass(30);
        memset(&what, 0, sizeof what);
        what.data = "passing";
        what.size = 7;
        what.ephemeral = true;
        what.done = on_done;
        CHECK_CODE(rtpush_client_publish(loop, seen.client, &what), RTPUSH_OK);
        UNTIL(seen.messages == 1 && seen.dones == 1);
        long count = (long)rtpush_history(server, "n", 0, NULL, NULL);
        (void)count;
        rtpush_stats stats;
        rtpush_get_stats(server, &stats);
        CHECK_INT(stats.messages_held, 0);
        CHECK_INT(seen.gaps, 0);
        finish();
    }
}

// ============================================================================
// addresses
// ============================================================================

static void reach(const char *at) {
    rtpush_client_desc d = client_desc();
    d.url = at;
    d.since = "earliest";
    begin_loop();
    connect_by(&d);
    UNTIL(seen.states[RTPUSH_CLIENT_OPEN] == 1);
    CHECK_CODE(publish("here"), RTPUSH_OK);
    UNTIL(seen.dones == 1 && seen.messages);
    rtpush_destroy(loop);
    loop = NULL;
}

static void a_unix_socket_is_reached(void) {
    char path[80], at[200];
    begin_server(NULL);
    snprintf(path, sizeof path, "unix:/tmp/rtpush-client-%ld.sock", (long)getpid());
    CHECK_CODE(rtpush_listen(server, path, NULL), RTPUSH_OK);
    snprintf(at, sizeof at, "%s:/live/n", path);
    reach(at);
    finish();
    unlink(path + 5);
}

static void an_ipv6_address_is_reached(void) {
    char at[100];
    begin_server(NULL);
    int port6 = 0;
    if (!rtpush_listen(server, "http://[::1]:0", &port6)) {
        snprintf(at, sizeof at, "http://[::1]:%d/live/n", port6);
        reach(at);
    }
    finish();
}

static void a_name_is_looked_up_and_each_address_tried(void) {
    static const char *const hosts[] = {"localhost", "two.test", "LOCALHOST"};
    char at[100];
    begin_server(NULL);
    for (size_t i = 0; i < COUNT(hosts) && !*why; i++) {
        snprintf(at, sizeof at, "http://%s:%d/live/n", hosts[i], port);
        reach(at);
    }
    finish();
}

static void a_name_that_is_none_is_e_connect_again_and_again(void) {
    rtpush_client_desc d = client_desc();
    begin_loop();
    d.url = "http://nonexistent.invalid/live/n";
    d.connect_timeout_ms = 20000;
    connect_by(&d);
    uint64_t end_ms = real_ms() + 15000; // the system's resolver may take its time
    while (seen.states[RTPUSH_CLIENT_WAITING] < 2 && real_ms() < end_ms) turn();
    CHECK(seen.states[RTPUSH_CLIENT_WAITING] >= 2);
    CHECK_CODE(seen.last_code, RTPUSH_E_CONNECT);
    CHECK(*seen.reason);
    finish();
}

static void a_look_up_outlives_its_client_and_its_hub(void) {
    for (int i = 0; i < 20; i++) {
        rtpush_client_desc d = client_desc();
        begin_loop();
        d.url = i & 1 ? "http://localhost:1/live/n" : "http://two.test:1/live/n";
        connect_by(&d);
        turns(i % 3);
        if (i & 2) rtpush_client_close(loop, seen.client, 1000, "");
        turns(i % 2);
        finish();
    }
}

static void nobody_there_is_e_connect(void) {
    rtpush_client_desc d = client_desc();
    begin_loop();
    d.url = "http://127.0.0.1:1/live/n";
    connect_by(&d);
    UNTIL(seen.states[RTPUSH_CLIENT_WAITING] >= 3);
    CHECK_CODE(seen.last_code, RTPUSH_E_CONNECT);
    finish();
}

static void serve_connect(peer *p, const char *head) {
    int to = 0;
    if (sscanf(head, "CONNECT 127.0.0.1:%d HTTP/1.1", &to) != 1) { answer(p, "403 Forbidden", "", "no"); return; }
    p->tunnel = dial_at(to);
    tell(p, "HTTP/1.1 200 OK\r\n\r\n");
}

static void a_proxy_is_passed_by_connect(void) {
    for (int t = 0; t < TRANSPORTS && !*why; t++) {
        rtpush_client_desc d = client_desc();
        char at[100], proxy[100];
        begin_server(NULL);
        snprintf(at, sizeof at, "http://127.0.0.1:%d/live/n", port);
        script_begin(serve_connect);
        snprintf(proxy, sizeof proxy, "http://127.0.0.1:%d", script.port);
        begin_loop();
        d.url = at;
        d.proxy = proxy;
        d.token = "secret";
        d.transports = transports[t];
        d.since = "earliest";
        connect_by(&d);
        publish("through");
        UNTIL(seen.messages == 1 && seen.dones == 1);
        CHECK(!strstr(script.heads, "secret"));
        finish();
        begin_loop();
        script_begin(serve_connect);
        snprintf(proxy, sizeof proxy, "http://127.0.0.1:%d", script.port);
        d.url = "http://unknown.test/live/n";
        connect_by(&d);
        UNTIL(seen.states[RTPUSH_CLIENT_WAITING]);
        CHECK_CODE(seen.last_code, RTPUSH_E_CONNECT);
        CHECK(strstr(seen.reason, "403") != NULL);
        finish();
    }
}

// ============================================================================
// redirects
// ============================================================================

static char location[200];

static void redirect(peer *p, const char *head) {
    char line[300];
    if (strncmp(head, "GET", 3)) { answer(p, "404 Not Found", "", ""); return; }
    snprintf(line, sizeof line, "Location: %s\r\n", location);
    answer(p, "302 Found", line, "");
}

static void a_redirect_is_refused_unless_it_may_be_followed(void) {
    rtpush_client_desc d = client_desc();
    begin_server(NULL);
    snprintf(location, sizeof location, "http://127.0.0.1:%d/live/n", port);
    script_begin(redirect);
    begin_loop();
    d.transports = "longpoll";
    connect_by(&d);
    UNTIL(seen.states[RTPUSH_CLIENT_CLOSED]);
    CHECK_CODE(seen.last_code, RTPUSH_E_REFUSED);
    CHECK_INT(seen.last_status, 302);
    finish();
}

// What the other host of a redirect was told.
static bool has_told_secrets;

static bool see_headers(rtpush_hub *hub, rtpush_request *request, void *user) { return (void)hub, (void)request, (void)user, false; }

static int see_login(rtpush_hub *hub, rtpush_login *login, void *user) {
    (void)hub, (void)user;
    if (login->token.size || (login->request && rtpush_header(login->request, "x-mine").data)) has_told_secrets = true;
    return RTPUSH_OK;
}

static void a_redirect_is_followed_without_the_secrets(void) {
    for (int t = 0; t < TRANSPORTS && !*why; t++) {
        rtpush_client_desc d = client_desc();
        rtpush_desc s;
        memset(&s, 0, sizeof s);
        s.on_login = see_login;
        s.on_request = see_headers;
        s.mount = "/live";
        begin_server(&s);
        has_told_secrets = false;
        snprintf(location, sizeof location, "http://127.0.0.1:%d/live/n", port);
        script_begin(redirect);
        begin_loop();
        d.transports = transports[t];
        d.redirects = 2;
        d.token = "secret";
        d.headers = "X-Mine: secret\r\n";
        d.since = "earliest";
        connect_by(&d);
        UNTIL(seen.states[RTPUSH_CLIENT_OPEN]);
        CHECK(strstr(script.heads, "Bearer secret") != NULL);
        CHECK(!has_told_secrets);
        say("n", "there");
        UNTIL(seen.messages == 1);
        CHECK_CODE(publish("mine"), RTPUSH_OK);
        UNTIL(seen.dones == 1);
        CHECK_CODE(seen.code_of_done, RTPUSH_OK);
        UNTIL(seen.messages == 2); // it went to the same topic
        CHECK_CODE(rtpush_client_subscribe(loop, seen.client, "late", "earliest"), RTPUSH_OK);
        say("late", "late");
        UNTIL(seen.messages == 3);
        CHECK_TEXT(seen.topic, "late");
        CHECK_TEXT(seen.all, "there mine late ");
        if (*why) snprintf(why + strlen(why), WHY_MAX - strlen(why), " | over %s", transports[t]);
        finish();
    }
}

static void redirects_end(void) {
    rtpush_client_desc d = client_desc();
    begin_loop();
    script_begin(redirect);
    snprintf(location, sizeof location, "/live/n");
    d.transports = "sse";
    d.redirects = 3;
    connect_by(&d);
    UNTIL(seen.states[RTPUSH_CLIENT_CLOSED]);
    CHECK_INT(script.requests, 4);
    CHECK_CODE(seen.last_code, RTPUSH_E_REFUSED);
    finish();
}

// ============================================================================
// login
// ============================================================================

static const char *good_token;
static int64_t good_for_ms;

static int check_login(rtpush_hub *hub, rtpush_login *login, void *user) {
    (void)hub, (void)user;
    if (login->token.size != strlen(good_token) || memcmp(login->token.data, good_token, login->token.size)) return RTPUSH_E_UNAUTHORIZED;
    snprintf(login->identity, sizeof login->identity, "ann");
    login->expires_ms = good_for_ms;
    return RTPUSH_OK;
}

static void begin_login(const char *transport, bool is_asked) {
    rtpush_client_desc d = client_desc();
    rtpush_desc s;
    memset(&s, 0, sizeof s);
    s.on_login = check_login;
    s.sse_retry_ms = 20;
    begin_server(&s);
    begin_loop();
    d.transports = transport;
    d.token = "old";
    d.since = "earliest";
    if (is_asked) d.on_token = on_token;
    seen.token = "old";
    connect_by(&d);
}

static void act_new_token(void) { seen.token = "new"; }

static void on_token_is_asked_again_after_a_401(void) {
    for (int t = 0; t < TRANSPORTS && !*why; t++) {
        good_token = "new";
        good_for_ms = 0;
        begin_login(transports[t], true);
        seen.place = IN_WAITING;
        seen.act = act_new_token;
        UNTIL(seen.states[RTPUSH_CLIENT_OPEN]);
        CHECK_INT(seen.tokens, 2);
        publish("x");
        UNTIL(seen.messages && seen.dones);
        CHECK_CODE(seen.code_of_done, RTPUSH_OK);
        finish();
    }
}

static void a_401_without_on_token_or_thrice_is_the_end(void) {
    for (int t = 0; t < TRANSPORTS && !*why; t++) {
        for (int asked = 0; asked < 2; asked++) {
            good_token = "new";
            begin_login(transports[t], asked);
            UNTIL(seen.states[RTPUSH_CLIENT_CLOSED]);
            CHECK_CODE(seen.last_code, RTPUSH_E_UNAUTHORIZED);
            CHECK_INT(seen.last_status, 401);
            if (asked) CHECK(seen.tokens >= 2 && seen.tokens <= 4);
            finish();
        }
    }
}

static void an_expired_login_is_renewed_and_nothing_lost(void) {
    for (int t = 0; t < TRANSPORTS && !*why; t++) {
        good_token = "old";
        good_for_ms = 100;
        begin_login(transports[t], true);
        UNTIL(seen.states[RTPUSH_CLIENT_OPEN]);
        for (int i = 0; i < 40; i++) {
            char text[16];
            snprintf(text, sizeof text, "%d", i);
            say("n", text);
            pass(10);
        }
        UNTIL(seen.messages == 40);
        CHECK(!strncmp(seen.all, "0 1 2 3 ", 8));
        if (t < 2) CHECK(seen.tokens >= 3);
        CHECK_INT(seen.gaps, 0);
        CHECK_INT(seen.states[RTPUSH_CLIENT_CLOSED], 0);
        finish();
    }
}

// ============================================================================
// scripts: what a server may say
// ============================================================================

static void hello_then_4001(peer *p, const char *head) {
    take_socket(p, head, "Sec-WebSocket-Protocol: rtpush.v1\r\n");
    tell_text(p, "{\"type\":\"hello\",\"cursor\":\"aaaaaaaa-5\",\"heartbeat\":20000}");
    if (script.requests == 1) tell_frame(p, 8, "\x0f\xa1" "expired", 9);
}

static void on_token_is_asked_again_after_close_4001(void) {
    rtpush_client_desc d = client_desc();
    script_begin(hello_then_4001);
    begin_loop();
    d.transports = "websocket";
    d.on_token = on_token;
    seen.token = "a";
    connect_by(&d);
    UNTIL(seen.states[RTPUSH_CLIENT_OPEN] == 2);
    CHECK_INT(seen.tokens, 2);
    CHECK_INT(seen.last_status, 4001);
    CHECK(strstr(script.heads, "since=aaaaaaaa-5") != NULL);
    finish();
}

static void hello_then_4003(peer *p, const char *head) {
    take_socket(p, head, "Sec-WebSocket-Protocol: rtpush.v1\r\n");
    tell_text(p, "{\"type\":\"hello\",\"cursor\":\"aaaaaaaa-5\"}");
    tell_frame(p, 8, "\x0f\xa3" "no", 4);
}

static void close_4003_is_the_end(void) {
    rtpush_client_desc d = client_desc();
    script_begin(hello_then_4003);
    begin_loop();
    connect_by(&d);
    UNTIL(seen.states[RTPUSH_CLIENT_CLOSED]);
    CHECK_INT(seen.last_status, 4003);
    CHECK_INT(script.requests, 1);
    finish();
}

// An ack with its cursor; then the connection is cut, before anything has moved the client's cursor.
static void say_past_then_cut(peer *p, const char *text) {
    unsigned long ref;
    char ack[100];
    const char *at = strstr(text, "\"ref\":");
    if (!strstr(text, "subscribe") || !at || sscanf(at, "\"ref\":%lu", &ref) != 1) return;
    tell_text(p, "{\"type\":\"message\",\"id\":\"aaaaaaaa-7\",\"topic\":\"b\",\"data\":\"seven\",\"replay\":true}");
    tell_text(p, "{\"type\":\"message\",\"id\":\"aaaaaaaa-9\",\"topic\":\"b\",\"data\":\"nine\",\"replay\":true}");
    snprintf(ack, sizeof ack, "{\"type\":\"ack\",\"ref\":%lu,\"cursor\":\"aaaaaaaa-9\"}", ref);
    tell_text(p, ack);
    peer_end(p);
}

static void say_hello_and_all_of_b(peer *p, const char *head) {
    take_socket(p, head, "Sec-WebSocket-Protocol: rtpush.v1\r\n");
    tell_text(p, "{\"type\":\"hello\",\"cursor\":\"aaaaaaaa-5\"}");
    if (!strstr(head, "topic=b")) return;
    tell_text(p, "{\"type\":\"message\",\"id\":\"aaaaaaaa-7\",\"topic\":\"b\",\"data\":\"seven\"}");
    tell_text(p, "{\"type\":\"message\",\"id\":\"aaaaaaaa-9\",\"topic\":\"b\",\"data\":\"nine\"}");
    tell_text(p, "{\"type\":\"message\",\"id\":\"aaaaaaaa-10\",\"topic\":\"b\",\"data\":\"ten\"}");
}

static void a_past_that_was_acknowledged_does_not_come_twice(void) {
    rtpush_client_desc d = client_desc();
    script_begin(say_hello_and_all_of_b);
    script.on_frame = say_past_then_cut;
    begin_loop();
    d.transports = "websocket";
    connect_by(&d);
    rtpush_client_subscribe(loop, seen.client, "b", "earliest");
    UNTIL(strstr(seen.all, "ten"));
    CHECK_TEXT(seen.all, "seven nine ten ");
    finish();
}

static void a_late_topic_does_not_move_the_urls_start(void) {
    for (int t = 0; t < TRANSPORTS && !*why; t++) {
        rtpush_client_desc d = client_desc();
        begin_server(NULL);
        begin_loop();
        say("n", "one");
        say("b", "two");
        say("n", "three");
        say("b", "four");
        d.transports = transports[t];
        d.since = "earliest";
        connect_by(&d);
        rtpush_client_subscribe(loop, seen.client, "b", "-1"); // before it is connected
        pass(300);
        say("n", "five");
        UNTIL(strstr(seen.all, "five"));
        pass(50);
        CHECK(strstr(seen.all, "one ") && strstr(seen.all, "three ") && strstr(seen.all, "four "));
        CHECK_INT(seen.messages, 4);
        if (*why) snprintf(why + strlen(why), WHY_MAX - strlen(why), " | over %s came: %s", transports[t], seen.all);
        finish();
    }
}

static void act_subscribe_b(void) { rtpush_client_subscribe(loop, seen.client, "b", NULL); }

static void a_topic_that_is_added_in_on_message_is_read_under_traffic(void) {
    for (int t = 0; t < TRANSPORTS && !*why; t++) {
        begin_both(transports[t], NULL);
        seen.place = IN_MESSAGE;
        seen.act = act_subscribe_b;
        uint64_t end_ms = real_ms() + 1000;
        for (int i = 1; !strstr(seen.all, "here") && real_ms() < end_ms; i++) {
            say(i % 8 ? "n" : "b", i % 8 ? "x" : "here");
            if (strlen(seen.all) > 3000) *seen.all = 0;
            turn();
        }
        CHECK(strstr(seen.all, "here"));
        if (*why) snprintf(why + strlen(why), WHY_MAX - strlen(why), " | over %s", transports[t]);
        finish();
    }
}

static void say_retry_after(peer *p, const char *head) {
    (void)head;
    if (script.requests == 1) answer(p, "503 Service Unavailable", "Retry-After: 1\r\n", "{\"error\":\"full\",\"reason\":\"full\"}\n");
    else answer(p, "200 OK", "", "{\"cursor\":\"aaaaaaaa-0\",\"messages\":[]}\n");
}

static void retry_after_is_obeyed(void) {
    rtpush_client_desc d = client_desc();
    script_begin(say_retry_after);
    begin_loop();
    d.transports = "shortpoll";
    connect_by(&d);
    UNTIL(seen.states[RTPUSH_CLIENT_WAITING]);
    uint64_t told_ms = real_ms();
    CHECK_INT(seen.delay_ms, 1000);
    UNTIL(script.requests == 2);
    CHECK(real_ms() - told_ms >= 950);
    finish();
}

static void say_empty_poll(peer *p, const char *head) { (void)head, answer(p, "200 OK", "", "{\"cursor\":\"aaaaaaaa-0\",\"messages\":[]}\n"); }

static void short_polls_come_at_their_interval(void) {
    rtpush_client_desc d = client_desc();
    script_begin(say_empty_poll);
    begin_loop();
    d.transports = "shortpoll";
    d.interval_ms = 100;
    connect_by(&d);
    UNTIL(script.requests == 1);
    pass(1000);
    CHECK(script.requests >= 7 && script.requests <= 12);
    CHECK(!strstr(script.heads, "wait="));
    finish();
}

static void long_polls_ask_for_wait_ms_and_do_not_hurry(void) {
    rtpush_client_desc d = client_desc();
    script_begin(say_empty_poll); // at once, though they were asked to wait
    begin_loop();
    d.transports = "longpoll";
    d.wait_ms = 7000;
    connect_by(&d);
    UNTIL(script.requests == 2);
    pass(1500);
    CHECK(strstr(script.heads, "wait=7") != NULL);
    CHECK(script.requests <= 5);
    finish();
}

static void say_one_poll(peer *p, const char *head) {
    if (script.requests == 1) say_empty_poll(p, head); // the next one is held
}

// A poll is held on a connection that has carried one before it.
static void begin_held_poll(void) {
    rtpush_client_desc d = client_desc();
    script_begin(say_one_poll);
    begin_loop();
    d.transports = "longpoll";
    d.backoff_ms = 5000;
    connect_by(&d);
    UNTIL(script.requests == 2);
}

// Where a server is lost, all its long polls end in one moment: they must not ask again in one.
static void a_held_poll_that_is_cut_waits_before_it_asks_again(void) {
    begin_held_poll();
    pass(1200);
    script_cut();
    UNTIL(seen.states[RTPUSH_CLIENT_WAITING] == 1);
    CHECK_INT(script.requests, 2);
    finish();
}

// One that was closed while the request was on its way is asked again at once: nothing was wrong.
static void a_kept_connection_that_closed_meanwhile_is_made_anew_at_once(void) {
    begin_held_poll();
    script_cut();
    UNTIL(script.requests == 3);
    CHECK_INT(seen.states[RTPUSH_CLIENT_WAITING], 0);
    finish();
}

static void once_ends_with_its_connection(void) {
    for (int t = 0; t < TRANSPORTS && !*why; t++) {
        rtpush_client_desc d = client_desc();
        begin_server(NULL);
        begin_loop();
        d.transports = transports[t];
        d.once = true;
        connect_by(&d);
        UNTIL(seen.states[RTPUSH_CLIENT_OPEN]);
        rtpush_destroy(server);
        server = NULL;
        UNTIL(seen.states[RTPUSH_CLIENT_CLOSED]);
        CHECK_INT(seen.states[RTPUSH_CLIENT_WAITING], 0);
        finish();
    }
}

static void say_hello_alone(peer *p, const char *head) {
    if (strstr(head, "Upgrade")) {
        take_socket(p, head, "Sec-WebSocket-Protocol: rtpush.v1\r\n");
        tell_text(p, "{\"type\":\"hello\",\"cursor\":\"aaaaaaaa-5\"}");
    } else {
        tell(p, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hello\n\n");
    }
}

static void silence_ms_is_an_end(void) {
    for (int t = 0; t < 2 && !*why; t++) {
        rtpush_client_desc d = client_desc();
        script_begin(say_hello_alone);
        begin_loop();
        d.transports = transports[t];
        d.silence_ms = 200;
        connect_by(&d);
        UNTIL(seen.states[RTPUSH_CLIENT_OPEN]);
        uint64_t opened_ms = real_ms();
        UNTIL(seen.last_code);
        CHECK_CODE(seen.last_code, RTPUSH_E_TIMEOUT);
        CHECK(real_ms() - opened_ms >= 180 && real_ms() - opened_ms < 1500);
        UNTIL(seen.states[RTPUSH_CLIENT_OPEN] == 2);
        finish();
    }
}

static bool is_barred; // WebSocket does not pass

static void bar_websocket(peer *p, const char *head) {
    if (is_barred && strstr(head, "Upgrade")) { answer(p, "502 Bad Gateway", "Connection: close\r\n", "<html>"); return; }
    size_t size = strlen(head);
    p->tunnel = dial_at(rtpush_user(server) ? *(int *)rtpush_user(server) : 0);
    if (p->tunnel < 0 || send(p->tunnel, head, size, MSG_NOSIGNAL) != (ssize_t)size) wrong(__LINE__, "no tunnel");
}

static void what_did_not_work_is_passed_over_and_tried_again(void) {
    rtpush_client_desc d = client_desc();
    rtpush_desc s;
    int direct = 0;
    memset(&s, 0, sizeof s);
    s.user = &direct;
    begin_server(&s);
    direct = port;
    script_begin(bar_websocket);
    begin_loop();
    d.remember_ms = 500;
    d.since = "earliest";
    is_barred = true;
    connect_by(&d);
    UNTIL(seen.states[RTPUSH_CLIENT_OPEN]);
    CHECK_INT(seen.status.transport, RTPUSH_SSE);
    is_barred = false;
    int count = 0;
    for (uint64_t end_ms = real_ms() + 4000; seen.status.transport != RTPUSH_ENVELOPE && real_ms() < end_ms; pass(20)) say("n", "x"), count++;
    UNTIL(seen.status.transport == RTPUSH_ENVELOPE && seen.status.state == RTPUSH_CLIENT_OPEN);
    say("n", "x"), count++;
    UNTIL(seen.messages >= count);
    CHECK_INT(seen.messages, count);
    CHECK_INT(seen.gaps, 0);
    finish();
}

static void a_drain_is_obeyed(void) {
    for (int t = 0; t < TRANSPORTS && !*why; t++) {
        rtpush_client_desc d = client_desc();
        begin_server(NULL);
        begin_loop();
        d.transports = transports[t];
        d.since = "earliest";
        d.wait_ms = 20000;
        connect_by(&d);
        UNTIL(seen.states[RTPUSH_CLIENT_OPEN]);
        pass(30);
        say("n", "last");
        rtpush_drain(server, 400, 2000);
        UNTIL(seen.states[RTPUSH_CLIENT_WAITING]);
        uint64_t told_ms = real_ms();
        int64_t delay = seen.delay_ms;
        if (t < 3) CHECK_INT(seen.messages, 1); // a short poll may find nobody any more
        if (t < 3) CHECK_CODE(seen.status.code, RTPUSH_OK);
        CHECK(delay >= 0 && delay <= 1000);
        UNTIL(seen.states[RTPUSH_CLIENT_CONNECTING] >= 2);
        CHECK((int64_t)(real_ms() - told_ms) >= delay - 5);
        if (*why) snprintf(why + strlen(why), WHY_MAX - strlen(why), " | over %s", transports[t]);
        finish();
    }
}

static void a_hundred_clients_live_in_one_hub(void) {
    rtpush_client_desc d = client_desc();
    rtpush_client all[100];
    begin_server(NULL);
    begin_loop();
    d.since = "earliest";
    for (int i = 0; i < 100; i++) {
        d.transports = transports[i % TRANSPORTS];
        all[i] = rtpush_connect(loop, &d);
        CHECK(all[i] != 0);
    }
    UNTIL(seen.states[RTPUSH_CLIENT_OPEN] == 100);
    say("n", "to all");
    UNTIL(seen.messages == 100);
    for (int i = 0; i < 100; i += 2) rtpush_client_close(loop, all[i], 1000, "");
    say("n", "to half");
    UNTIL(seen.messages == 150);
    pass(50);
    CHECK_INT(seen.messages, 150);
    for (int i = 1; i < 100; i += 2) seen.client = all[i], publish("from each");
    UNTIL(seen.good_dones == 50 && seen.messages == 150 + 50 * 50);
    finish();
}

// ============================================================================
// no memory
// ============================================================================

// A client that connects, reads, publishes and adds a topic, while the n-th allocation from there on fails, and some more.
static void starve(const char *transport, long n, int count) {
    rtpush_client_desc d = client_desc();
    begin_server(NULL);
    begin_loop();
    say("n", "past");
    say("b", "late");
    d.transports = transport;
    d.since = "earliest";
    d.connect_timeout_ms = 300;
    has_failed = false;
    fail_after = n;
    fails = count;
    for (int i = 0; i < 9 && !(seen.client = rtpush_connect(loop, &d)); i++) {}
    for (int i = 0; i < 9 && publish("mine"); i++) {}
    for (int i = 0; i < 9 && rtpush_client_subscribe(loop, seen.client, "b", "earliest"); i++) {}
    UNTIL(seen.messages >= 3 && seen.dones == 1);
    fail_after = -1;
    CHECK_CODE(seen.code_of_done, RTPUSH_OK);
    CHECK_INT(seen.messages, 3);
    CHECK_INT(seen.gaps, 0);
    if (*why) snprintf(why + strlen(why), WHY_MAX - strlen(why), " | the allocation %ld over %s; what came: %s", n, transport, seen.all);
    finish();
}

static void every_allocation_may_fail(const char *transport) {
    for (int count = 1; count < 6 && !*why; count += 2) {
        long n = 0;
        do starve(transport, n++, count);
        while (has_failed && !*why && n < 2000);
        printf("# %ld allocations over %s, %d of them fail at a time\n", n - 1, transport, count);
        if (!*why && n < 10) wrong(__LINE__, "only %ld allocations", n);
    }
}

static void every_allocation_may_fail_over_websocket(void) { every_allocation_may_fail("websocket"); }
static void every_allocation_may_fail_over_sse(void) { every_allocation_may_fail("sse"); }
static void every_allocation_may_fail_over_long_polls(void) { every_allocation_may_fail("longpoll"); }
static void every_allocation_may_fail_over_short_polls(void) { every_allocation_may_fail("shortpoll"); }

// ============================================================================
// servers of other kinds
// ============================================================================

static void echo(rtpush_hub *hub, rtpush_session from, const rtpush_message *m, void *user) {
    (void)user;
    rtpush_send(hub, from, m->data, m->size, m->kind);
}

static void a_foreign_websocket_says_and_hears(void) {
    rtpush_desc s;
    rtpush_client_desc d = client_desc();
    memset(&s, 0, sizeof s);
    s.on_message = echo;
    begin_server(&s);
    begin_loop();
    d.kind = RTPUSH_SERVER_WEBSOCKET;
    connect_by(&d);
    CHECK_CODE(rtpush_client_send(loop, seen.client, "x", 1, 0), RTPUSH_E_STATE); // not open
    UNTIL(seen.states[RTPUSH_CLIENT_OPEN]);
    CHECK_INT(seen.status.transport, RTPUSH_WEBSOCKET);
    CHECK_CODE(publish("x"), RTPUSH_E_STATE);
    CHECK_CODE(rtpush_client_subscribe(loop, seen.client, "a", NULL), RTPUSH_E_STATE);
    CHECK_CODE(rtpush_client_send(loop, seen.client, "\xff", 1, RTPUSH_TEXT), RTPUSH_E_UTF8);
    CHECK_CODE(rtpush_client_send(loop, seen.client, "{}", 2, RTPUSH_JSON), RTPUSH_E_ARGUMENT);
    CHECK_CODE(rtpush_client_send(loop, seen.client, "text", 4, RTPUSH_AUTO), RTPUSH_OK);
    UNTIL(seen.messages == 1);
    CHECK_INT(seen.kind, RTPUSH_TEXT);
    CHECK_TEXT(seen.data, "text");
    CHECK_TEXT(seen.topic, "");
    CHECK_CODE(rtpush_client_send(loop, seen.client, "\xff\0", 2, RTPUSH_AUTO), RTPUSH_OK);
    UNTIL(seen.messages == 2);
    CHECK_INT(seen.kind, RTPUSH_BINARY);
    CHECK_INT(seen.size, 2);
    static char big[300000];
    int code = RTPUSH_OK, sent = 0;
    while (!(code = rtpush_client_send(loop, seen.client, big, sizeof big, RTPUSH_BINARY)) && sent < 50) sent++;
    CHECK_CODE(code, RTPUSH_E_FULL);
    UNTIL(seen.messages == 2 + sent);
    CHECK_CODE(rtpush_client_close(loop, seen.client, 4321, "a reason that is much longer than the 123 bytes that a close frame has room for: \xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"), RTPUSH_OK);
    turns(5);
    finish();
}

static int close_code;
static void note_close(rtpush_hub *hub, rtpush_session session, int code, void *user) { (void)hub, (void)session, (void)user, close_code = code; }

static void a_close_carries_its_code(void) {
    static const char long_reason[] = "a reason that is longer than the 123 bytes that a close frame has room for, and ends within a letter, if it is cut where the\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9";
    const char *const reasons[] = {"bye", NULL, long_reason, long_reason + 1};
    for (size_t i = 0; i < COUNT(reasons) && !*why; i++) {
        rtpush_desc s;
        rtpush_client_desc d = client_desc();
        memset(&s, 0, sizeof s);
        s.on_close = note_close;
        s.linger_ms = -1;
        begin_server(&s);
        begin_loop();
        d.transports = "websocket";
        connect_by(&d);
        UNTIL(seen.states[RTPUSH_CLIENT_OPEN]);
        close_code = 0;
        CHECK_CODE(rtpush_client_close(loop, seen.client, 4321, reasons[i]), RTPUSH_OK);
        UNTIL(close_code);
        CHECK_INT(close_code, 4321);
        finish();
    }
}

static void a_foreign_event_stream_is_read_and_resumed(void) {
    rtpush_client_desc d = client_desc();
    rtpush_desc s;
    memset(&s, 0, sizeof s);
    s.sse_retry_ms = 20;
    begin_server(&s);
    begin_loop();
    d.kind = RTPUSH_SERVER_EVENTS;
    connect_by(&d);
    UNTIL(seen.states[RTPUSH_CLIENT_OPEN]);
    CHECK_CODE(publish("x"), RTPUSH_E_STATE);
    CHECK_CODE(rtpush_client_send(loop, seen.client, "x", 1, 0), RTPUSH_E_STATE);
    pass(30);
    say("n", "one\ntwo");
    UNTIL(seen.messages == 1);
    CHECK_TEXT(seen.data, "one\ntwo");
    CHECK(*seen.id);
    finish();
}

static void say_events(peer *p, const char *head) {
    (void)head;
    tell(p, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n");
    if (script.requests == 1) tell(p, "\xef\xbb\xbfretry: 30\nid: \xc3\xa9 1\nevent: e\ndata: first\n\ndata: unfinished\n");
    if (script.requests == 1) peer_end(p);
    else tell(p, "data: second\r\r");
}

static void a_foreign_stream_resumes_by_its_last_id(void) {
    rtpush_client_desc d = client_desc();
    script_begin(say_events);
    begin_loop();
    d.kind = RTPUSH_SERVER_EVENTS;
    connect_by(&d);
    UNTIL(seen.messages == 2);
    CHECK_TEXT(seen.all, "first second ");
    CHECK_TEXT(seen.id, "\xc3\xa9 1");
    CHECK_TEXT(seen.event, "");
    CHECK_INT(seen.delay_ms, 30);
    CHECK(strstr(script.heads, "Last-Event-ID: \xc3\xa9 1\r\n") != NULL);
    finish();
}

int main(int argc, char **argv) {
    int status = begin(argc, argv);
    if (status) return status;
    RUN(connect_refuses_bad_urls);
    RUN(connect_refuses_bad_headers_lists_and_starts);
    RUN(a_client_is_closed_before_it_began);
    RUN(publish_and_subscribe_say_what_is_wrong);
    RUN(a_pattern_is_no_place_to_publish_to);
    RUN(queue_max_is_e_full_until_there_is_room);
    RUN(a_stale_handle_is_a_no_op);
    RUN(anything_inside_any_callback_over_websocket);
    RUN(anything_inside_any_callback_over_sse);
    RUN(anything_inside_any_callback_over_long_polls);
    RUN(anything_inside_any_callback_over_short_polls);
    RUN(done_that_closes_when_all_is_due_at_once);
    RUN(on_token_that_closes_after_a_posts_401);
    RUN(destroy_ends_all_that_is_under_way);
    RUN(all_kinds_of_data_pass_over_every_transport);
    RUN(names_with_all_characters_pass);
    RUN(a_message_over_message_max_breaks_the_protocol);
    RUN(presence_is_told_whole_then_by_changes);
    RUN(ephemeral_messages_come_and_are_not_kept);
    RUN(a_unix_socket_is_reached);
    RUN(an_ipv6_address_is_reached);
    RUN(a_name_is_looked_up_and_each_address_tried);
    RUN(a_name_that_is_none_is_e_connect_again_and_again);
    RUN(a_look_up_outlives_its_client_and_its_hub);
    RUN(nobody_there_is_e_connect);
    RUN(a_proxy_is_passed_by_connect);
    RUN(a_redirect_is_refused_unless_it_may_be_followed);
    RUN(a_redirect_is_followed_without_the_secrets);
    RUN(redirects_end);
    RUN(on_token_is_asked_again_after_a_401);
    RUN(a_401_without_on_token_or_thrice_is_the_end);
    RUN(an_expired_login_is_renewed_and_nothing_lost);
    RUN(on_token_is_asked_again_after_close_4001);
    RUN(close_4003_is_the_end);
    RUN(a_past_that_was_acknowledged_does_not_come_twice);
    RUN(a_late_topic_does_not_move_the_urls_start);
    RUN(a_topic_that_is_added_in_on_message_is_read_under_traffic);
    RUN(retry_after_is_obeyed);
    RUN(short_polls_come_at_their_interval);
    RUN(long_polls_ask_for_wait_ms_and_do_not_hurry);
    RUN(a_held_poll_that_is_cut_waits_before_it_asks_again);
    RUN(a_kept_connection_that_closed_meanwhile_is_made_anew_at_once);
    RUN(once_ends_with_its_connection);
    RUN(silence_ms_is_an_end);
    RUN(what_did_not_work_is_passed_over_and_tried_again);
    RUN(a_drain_is_obeyed);
    RUN(a_hundred_clients_live_in_one_hub);
    RUN(every_allocation_may_fail_over_websocket);
    RUN(every_allocation_may_fail_over_sse);
    RUN(every_allocation_may_fail_over_long_polls);
    RUN(every_allocation_may_fail_over_short_polls);
    RUN(a_foreign_websocket_says_and_hears);
    RUN(a_close_carries_its_code);
    RUN(a_foreign_event_stream_is_read_and_resumed);
    RUN(a_foreign_stream_resumes_by_its_last_id);
    return end();
}
