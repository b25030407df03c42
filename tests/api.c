// The public functions and callbacks over real sockets: what each returns, what it says to which mistake, and
// that a host may do anything inside any callback.
//
//     cc -std=c99 -g -fsanitize=address,undefined tests/api.c -o build/api -pthread && build/api
//     build/api --only TEXT --no-fork      one test, for a debugger
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "client.h"

// ============================================================================
// a host that remembers what it was told
// ============================================================================

enum { SEEN_MAX = 256 };

static struct {
    rtpush_session sessions[SEEN_MAX]; // each that was opened
    int opened[SEEN_MAX], closed[SEEN_MAX], close_code[SEEN_MAX];
    int session_count, opens, closes;
    rtpush_session last; // the last one opened
    int messages, publishes, requests, logins, allows, logs;
    char topic[260], data[256]; // of the last on_message or on_publish
    size_t size;
    int kind;
} seen;

static void see_open(rtpush_hub *h, rtpush_session session, void *user) {
    (void)h, (void)user;
    seen.opens++;
    seen.last = session;
    for (int i = 0; i < seen.session_count; i++)
        if (seen.sessions[i] == session) wrong(__LINE__, "on_open twice for one session");
    if (!session) wrong(__LINE__, "on_open with no session");
    if (seen.session_count < SEEN_MAX) {
        seen.sessions[seen.session_count] = session;
        seen.opened[seen.session_count++] = 1;
    }
}

static void see_close(rtpush_hub *h, rtpush_session session, int code, void *user) {
    (void)h, (void)user;
    seen.closes++;
    for (int i = 0; i < seen.session_count; i++) {
        if (seen.sessions[i] != session) continue;
        if (seen.closed[i]++) wrong(__LINE__, "on_close twice for one session");
        seen.close_code[i] = code;
        return;
    }
    if (seen.session_count < SEEN_MAX) wrong(__LINE__, "on_close without on_open");
}

static int code_of(rtpush_session session) {
    for (int i = 0; i < seen.session_count; i++)
        if (seen.sessions[i] == session) return seen.closed[i] ? seen.close_code[i] : -1;
    return -2;
}

static void see_message(rtpush_hub *h, rtpush_session from, const rtpush_message *m, void *user) {
    (void)h, (void)from, (void)user;
    seen.messages++;
    seen.kind = m->kind;
    seen.size = m->size;
    snprintf(seen.topic, sizeof seen.topic, "%s", m->topic);
    snprintf(seen.data, sizeof seen.data, "%.*s", (int)RP_MIN(m->size, sizeof seen.data - 1), (const char *)m->data);
}

static void see_log(rtpush_hub *h, const char *line, void *user) {
    (void)h, (void)user;
    seen.logs++;
    if (strchr(line, '\n')) wrong(__LINE__, "on_log with more than one line: %s", line);
}

// What rtpush_history gave.
static struct {
    int count, stop_at;
    uint64_t seqs[64];
    char data[64][32], event[64][32], topic[64][32];
    int kind[64];
    bool ephemeral;
    int64_t time_ms;
    size_t size[64];
} past;

static bool see_past(const rtpush_message *m, void *user) {
    (void)user;
    if (past.count < 64) {
        int i = past.count;
        past.seqs[i] = m->seq;
        past.kind[i] = m->kind;
        past.size[i] = m->size;
        past.time_ms = m->time_ms;
        snprintf(past.data[i], 32, "%.*s", (int)RP_MIN(m->size, (size_t)31), (const char *)m->data);
        snprintf(past.event[i], 32, "%s", m->event);
        snprintf(past.topic[i], 32, "%s", m->topic);
        past.ephemeral |= m->ephemeral;
    }
    return ++past.count != past.stop_at;
}

static size_t history_of(const char *topic, uint64_t since) {
    memset(&past, 0, sizeof past);
    return rtpush_history(hub, topic, since, see_past, NULL);
}

static uint64_t head(void) {
    char text[32];
    rtpush_cursor cursor;
    rtpush_cursor_text(hub, text);
    if (!rtpush_parse_cursor(&cursor, text, strlen(text))) return wrong(__LINE__, "not a cursor: %s", text), 0;
    return cursor.seq;
}

// ============================================================================
// create, listen, run
// ============================================================================

static void strerror_has_a_text_for_every_code(void) {
    for (int i = 0; i < RTPUSH_CODE_COUNT; i++) CHECK(rtpush_strerror(i) && *rtpush_strerror(i));
    CHECK(rtpush_strerror(-1) && rtpush_strerror(RTPUSH_CODE_COUNT) && rtpush_strerror(1 << 30));
    CHECK_TEXT(rtpush_strerror(RTPUSH_OK), "no error");
}

static rtpush_hub *create_with(rtpush_desc d, int want) {
    int code = 12345;
    d.alloc = counted;
    rtpush_hub *made = rtpush_create_ex(&d, &code);
    CHECK_CODE(code, want);
    CHECK((made != NULL) == (want == RTPUSH_OK));
    if (!made) CHECK_INT(blocks, 0);
    return made;
}

static void create_says_what_is_wrong(void) {
    rtpush_desc zero;
    int code = 7, port = 0;
    char url[64];
    memset(&zero, 0, sizeof zero);
    rtpush_desc d = zero;
    d.backend_name = "no such thing";
    create_with(d, RTPUSH_E_BACKEND);
    d.backend_name = "";
    create_with(d, RTPUSH_E_BACKEND);
    static const char *const bad_urls[] = {"", "nonsense", "ftp://127.0.0.1:0", "http://", "http://127.0.0.1", "http://127.0.0.1:", "http://127.0.0.1:65536", "http://127.0.0.1:x", "unix:"};
    for (size_t i = 0; i < RP_COUNT(bad_urls); i++) {
        snprintf(V->where, sizeof V->where, "%s", bad_urls[i]);
        d = zero;
        d.listen = bad_urls[i];
        create_with(d, RTPUSH_E_URL);
    }
    *V->where = 0;
    d.listen = "http://192.0.2.1:0"; // RFC 5737: nobody's own address
    create_with(d, RTPUSH_E_SYSTEM);
    rtpush_hub *first = rtpush_create_ex(&zero, &code);
    CHECK_CODE(code, RTPUSH_OK);
    CHECK_CODE(rtpush_listen(first, "http://127.0.0.1:0", &port), RTPUSH_OK);
    snprintf(url, sizeof url, "http://127.0.0.1:%d", port);
    d.listen = url;
    create_with(d, RTPUSH_E_IN_USE);
    CHECK(rtpush_create(&d) == NULL);
    rtpush_destroy(first);
    rtpush_destroy(NULL);
}

static int no_random(void *user, void *buf, size_t size) { return (void)user, (void)buf, (void)size, -EIO; }
static void *no_open(void *user) { return (void)user, NULL; }
static void no_close(void *state) { wrong(__LINE__, "close of a back-end that did not open: %p", state); }
static int no_watch(void *state, int fd, uint64_t tag, unsigned was, unsigned want) { return (void)state, (void)fd, (void)tag, (void)was, (void)want, -EIO; }
static int no_wait(void *state, rtpush_event *events, int cap, int timeout_ms) { return (void)state, (void)events, (void)cap, (void)timeout_ms, 0; }

static void create_without_random_bytes_or_a_back_end_is_e_system(void) {
    static const rtpush_sys sys = {.random = no_random};
    static const rtpush_backend backend = {"broken", no_open, no_close, no_watch, no_wait, NULL, NULL};
    rtpush_desc d;
    memset(&d, 0, sizeof d);
    d.sys = &sys;
    create_with(d, RTPUSH_E_SYSTEM);
    d.sys = NULL;
    d.backend = &backend;
    create_with(d, RTPUSH_E_SYSTEM);
}

static void create_survives_every_allocation_that_fails(void) {
    rtpush_desc d;
    int code = 0, n = 0;
    memset(&d, 0, sizeof d);
    d.alloc = counted;
    d.listen = "http://127.0.0.1:0";
    d.mount = "/m";
    d.origin = "http://a";
    for (;; n++) {
        fail_after = n;
        rtpush_hub *made = rtpush_create_ex(&d, &code);
        if (made) {
            fail_after = -1;
            rtpush_destroy(made);
            break;
        }
        CHECK_CODE(code, RTPUSH_E_MEMORY);
        CHECK_INT(blocks, 0);
        if (n > 1000) break;
    }
    CHECK(n > 5 && n < 1000);
    CHECK_INT(blocks, 0);
}

static void desc_is_not_kept(void) {
    rtpush_desc d;
    char mount[] = "/here", origin[] = "http://friend", url[] = "http://127.0.0.1:0";
    int value = 3;
    memset(&d, 0, sizeof d);
    d.mount = mount;
    d.origin = origin;
    d.listen = url;
    d.user = &value;
    if (!start(&d)) return;
    memset(&d, 0xff, sizeof d);
    memset(mount, 'x', sizeof mount - 1);
    memset(origin, 'x', sizeof origin - 1);
    memset(url, 'x', sizeof url - 1);
    CHECK(rtpush_user(hub) == &value);
    CHECK_INT(request_once("GET", "/here/t", NULL, NULL).status, 200);
    CHECK_INT(request_once("GET", "/live/t", NULL, NULL).status, 404);
    CHECK_INT(request_once("GET", "/here/t", "Origin: http://friend\r\n", NULL).status, 200);
    CHECK_INT(request_once("GET", "/here/t", "Origin: http://other\r\n", NULL).status, 403);
    finish();
}

static void hello_over(int port) {
    client *c = dial_tcp(port);
    CHECK_INT(request(c, "GET", "/healthz", NULL, NULL).status, 200);
    CHECK_TEXT(body_text, "ok");
    hang_up(c);
    turns(3);
}

static void every_back_end_serves_and_a_descriptor_tells_when(void) {
    static const char *const names[] = {"epoll", "poll", "kqueue", NULL};
    for (size_t i = 0; i < 4; i++) {
        rtpush_desc d;
        int port = 0;
        memset(&d, 0, sizeof d);
        d.backend_name = names[i];
        snprintf(V->where, sizeof V->where, "%s", names[i] ? names[i] : "the default");
#ifdef __linux__
        if (i == 2) {
            create_with(d, RTPUSH_E_BACKEND);
            continue;
        }
#else
        if (i == 0) continue;
#endif
        if (!start(&d)) return;
        CHECK_CODE(rtpush_listen(hub, "http://127.0.0.1:0", &port), RTPUSH_OK);
        CHECK(port > 0);
        if (i == 1) CHECK_INT(rtpush_fd(hub), -1);
        else CHECK(rtpush_fd(hub) >= 0);
        hello_over(port);
        client *c = open_raw("/live/t", NULL);
        publish_text("t", "over this back-end");
        EXPECT_TEXT(c, "over this back-end");
        hang_up(c);
        finish();
    }
}

static void listen_takes_tcp_ipv6_and_unix_and_names_its_errors(void) {
    rtpush_desc d;
    int port = 0, port6 = 0, unix_port = -1;
    char url[64], path[] = P_tmpdir "/rtpush-api-XXXXXX", unix_url[80], too_long[300];
    memset(&d, 0, sizeof d);
    if (!start(&d)) return;
    CHECK_TEXT(rtpush_last_error(hub), "");
    CHECK_CODE(rtpush_listen(hub, "http://127.0.0.1:0", NULL), RTPUSH_OK);
    CHECK_CODE(rtpush_listen(hub, "http://127.0.0.1:0", &port), RTPUSH_OK);
    hello_over(port);
    if (rtpush_listen(hub, "http://[::1]:0", &port6) == RTPUSH_OK) CHECK(port6 > 0);
    snprintf(url, sizeof url, "http://127.0.0.1:%d", port);
    CHECK_CODE(rtpush_listen(hub, url, NULL), RTPUSH_E_IN_USE);
    CHECK_HAS(rtpush_last_error(hub), url);
    CHECK_CODE(rtpush_listen(hub, "gopher://x:1", NULL), RTPUSH_E_URL);
    CHECK_CODE(rtpush_listen(hub, "http://192.0.2.1:0", NULL), RTPUSH_E_SYSTEM);
    CHECK(*rtpush_last_error(hub));
    CHECK(mkdtemp(path) != NULL);
    snprintf(unix_url, sizeof unix_url, "unix:%s/s", path);
    CHECK_CODE(rtpush_listen(hub, unix_url, &unix_port), RTPUSH_OK);
    CHECK_INT(unix_port, 0);
    struct sockaddr_un to;
    memset(&to, 0, sizeof to);
    to.sun_family = AF_UNIX;
    snprintf(to.sun_path, sizeof to.sun_path, "%s", unix_url + 5);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(!connect(fd, (struct sockaddr *)&to, sizeof to));
    client *c = client_new(fd);
    CHECK_INT(request(c, "GET", "/healthz", NULL, NULL).status, 200);
    hang_up(c);
    CHECK_CODE(rtpush_listen(hub, unix_url, NULL), RTPUSH_E_IN_USE);
    memset(too_long, 'x', sizeof too_long - 1);
    memcpy(too_long, "unix:/", 6);
    too_long[sizeof too_long - 1] = 0;
    CHECK_CODE(rtpush_listen(hub, too_long, NULL), RTPUSH_E_URL);
    turns(2);
    finish();
    CHECK(access(unix_url + 5, F_OK)); // a Unix socket's file goes with the hub
    unlink(unix_url + 5);
    rmdir(path);
}

static void adopt_listener_takes_the_hosts_own(void) {
    rtpush_desc d;
    struct sockaddr_in at;
    socklen_t size = sizeof at;
    memset(&d, 0, sizeof d);
    memset(&at, 0, sizeof at);
    if (!start(&d)) return;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(!bind(fd, (struct sockaddr *)&at, sizeof at) && !listen(fd, 8) && !getsockname(fd, (struct sockaddr *)&at, &size));
    CHECK_CODE(rtpush_adopt_listener(hub, fd), RTPUSH_OK);
    hello_over(ntohs(at.sin_port));
    finish();
    CHECK(fcntl(fd, F_GETFD) < 0); // closed with the hub
}

static void stop_soon(rtpush_hub *h, void *user) { (void)user, rtpush_stop(h); }
static void drain_soon(rtpush_hub *h, void *user) { (void)user, rtpush_drain(h, -1, -1); }

static void run_ends_by_stop_and_by_a_drain(void) {
    rtpush_desc d;
    memset(&d, 0, sizeof d);
    if (!start(&d)) return;
    CHECK_INT(rtpush_timeout(hub), -1);
    rtpush_after(hub, 5, stop_soon, NULL);
    CHECK(rtpush_timeout(hub) >= 0 && rtpush_timeout(hub) <= 6);
    CHECK_CODE(rtpush_run(hub), RTPUSH_OK);
    CHECK(!rtpush_is_draining(hub));
    rtpush_stop(hub); // before the loop runs: it must not be lost
    CHECK_CODE(rtpush_run(hub), RTPUSH_OK);
    rtpush_after(hub, 5, drain_soon, NULL);
    CHECK_CODE(rtpush_run(hub), RTPUSH_OK);
    CHECK(rtpush_is_draining(hub));
    CHECK_CODE(rtpush_step(hub, 0), RTPUSH_E_STATE);
    CHECK_CODE(rtpush_drain(hub, 0, 0), RTPUSH_E_STATE);
    CHECK_CODE(rtpush_listen(hub, "http://127.0.0.1:0", NULL), RTPUSH_E_STATE);
    finish();
}

static int flag_a, flag_b;
static void raise_flag(rtpush_hub *h, void *arg) { (void)h, ++*(int *)arg; }

static void a_host_loop_by_fd_and_timeout(void) {
    rtpush_desc d;
    int port = 0;
    memset(&d, 0, sizeof d);
    if (!start(&d)) return;
    rtpush_listen(hub, "http://127.0.0.1:0", &port);
    turn(0);
    uint64_t began = real_ms();
    rtpush_after(hub, 30, raise_flag, &flag_a);
    client *c = dial_tcp(port);
    send(c->fd, "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n", 34, 0);
    uint64_t until_ms = real_ms() + PATIENCE_MS;
    int steps = 0;
    while ((!flag_a || !strstr(c->in, "ok")) && real_ms() < until_ms) {
        struct pollfd p = {rtpush_fd(hub), POLLIN, 0};
        int timeout = rtpush_timeout(hub);
        CHECK(timeout >= 0); // a timer is armed, and a connection's deadline
        poll(&p, 1, RP_MIN(timeout, 100));
        rtpush_step(hub, 0);
        take_in(c, SIZE_MAX);
        steps++;
    }
    CHECK_INT(flag_a, 1);
    CHECK(real_ms() - began >= 29); // a timer is never early
    CHECK_HAS(c->in, "200 OK");
    CHECK(steps < 60); // nothing spins
    rtpush_post(hub, raise_flag, &flag_b);
    CHECK_INT(rtpush_timeout(hub), 0);
    struct pollfd woken = {rtpush_fd(hub), POLLIN, 0};
    CHECK_INT(poll(&woken, 1, 1000), 1);
    turn(0);
    CHECK_INT(flag_b, 1);
    hang_up(c);
    finish();
}

static void stepping_inside(rtpush_hub *h, void *arg) {
    *(int *)arg = rtpush_step(h, 0);
}

static void step_inside_a_callback_is_e_state(void) {
    rtpush_desc d;
    int code = -1;
    memset(&d, 0, sizeof d);
    if (!start(&d)) return;
    rtpush_post(hub, stepping_inside, &code);
    turns(1);
    CHECK_CODE(code, RTPUSH_E_STATE);
    finish();
}

// ============================================================================
// timers and posted calls
// ============================================================================

static char order[32];
static void note(rtpush_hub *h, void *arg) { (void)h, strncat(order, (const char *)arg, 1); }
static rtpush_timer timer_to_cancel;
static void cancel_other(rtpush_hub *h, void *arg) {
    note(h, arg);
    rtpush_cancel(h, timer_to_cancel);
}
static void again(rtpush_hub *h, void *arg) {
    note(h, arg);
    if (strlen(order) < 8) rtpush_after(h, 10, again, arg);
}

static void timers_fire_once_in_order_and_can_be_cancelled(void) {
    rtpush_desc d;
    char a[] = "a", b[] = "b", x[] = "x", r[] = "r";
    memset(&d, 0, sizeof d);
    if (!start(&d)) return;
    uint64_t now = rtpush_now(hub);
    CHECK(now <= clock_now(NULL) && now + 1000 > clock_now(NULL));
    rtpush_timer tb = rtpush_after(hub, 4000, note, b), ta = rtpush_after(hub, 1000, note, a), tx = rtpush_after(hub, 1500, note, x);
    CHECK(ta && tb && tx && ta != tb);
    rtpush_cancel(hub, tx);
    rtpush_cancel(hub, tx);
    rtpush_cancel(hub, 0);
    rtpush_cancel(hub, 0xdeadbeefdeadbeefu);
    skip(500);
    CHECK_TEXT(order, "");
    skip(700);
    CHECK_TEXT(order, "a");
    rtpush_cancel(hub, ta); // has fired: a no-op
    skip(5000);
    CHECK_TEXT(order, "ab");
    *order = 0;
    rtpush_after(hub, 10, cancel_other, a);
    timer_to_cancel = rtpush_after(hub, 11, note, x);
    skip(100); // both are due in one turn
    CHECK_TEXT(order, "a");
    *order = 0;
    rtpush_after(hub, 10, again, r);
    for (int i = 0; i < 20; i++) skip(11);
    CHECK_TEXT(order, "rrrrrrrr");
    *order = 0;
    rtpush_after(hub, 0, note, a);
    rtpush_after(hub, -5, note, a);
    skip(2);
    CHECK_TEXT(order, "aa");
    rtpush_after(hub, 3600000, note, x); // pending at the end: neither called nor leaked
    rtpush_after(hub, INT64_MAX, note, x);
    turns(2);
    finish();
    CHECK_TEXT(order, "aa");
}

static void post_again(rtpush_hub *h, void *arg) {
    note(h, arg);
    if (strlen(order) == 3) rtpush_post(h, post_again, arg);
}

static void posted_calls_run_in_order_in_the_next_turn(void) {
    rtpush_desc d;
    char a[] = "a", b[] = "b", c[] = "c", z[] = "z";
    memset(&d, 0, sizeof d);
    if (!start(&d)) return;
    CHECK_CODE(rtpush_post(hub, note, a), RTPUSH_OK);
    CHECK_CODE(rtpush_post(hub, note, b), RTPUSH_OK);
    CHECK_CODE(rtpush_post(hub, post_again, c), RTPUSH_OK);
    CHECK_TEXT(order, "");
    turn(0);
    CHECK_TEXT(order, "abc");
    turn(0);
    CHECK_TEXT(order, "abcc");
    CHECK_CODE(rtpush_publish_async(hub, "t", "later", 5), RTPUSH_OK);
    CHECK_INT(history_of("t", 0), 0);
    turn(0);
    CHECK_INT(history_of("t", 0), 1);
    CHECK_CODE(rtpush_publish_async(hub, "no/*/topic", "x", 1), RTPUSH_E_TOPIC);
    CHECK_CODE(rtpush_publish_async(hub, "t", "x", (size_t)1 << 40), RTPUSH_E_TOO_BIG);
    rtpush_post(hub, note, z); // at the end: its arg may be the host's to free, so it still runs
    finish();
    CHECK_TEXT(order, "abccz");
}

// ============================================================================
// publishing, history, topics
// ============================================================================

static struct { int calls, code; uint64_t ticket, seq; } ended;
static void see_done(rtpush_hub *h, uint64_t ticket, uint64_t seq, int code, void *user) {
    (void)h;
    ended.calls++;
    ended.ticket = ticket;
    ended.seq = seq;
    ended.code = code;
    if (user) ++*(int *)user;
}

static int publish_as(const char *topic, const char *event, const void *data, size_t size, int kind) {
    rtpush_publication p;
    memset(&p, 0, sizeof p);
    p.topic = topic;
    p.event = event;
    p.data = data;
    p.size = size;
    p.kind = kind;
    p.done = see_done;
    return rtpush_publish_ex(hub, &p, NULL);
}

static void publish_says_what_is_wrong(void) {
    rtpush_desc d;
    char name[300];
    memset(&d, 0, sizeof d);
    d.message_max = 100;
    if (!start(&d)) return;
    memset(name, 'n', sizeof name);
    name[255] = 0;
    CHECK_CODE(publish_text(name, "x"), RTPUSH_OK);
    name[255] = 'n', name[256] = 0;
    CHECK_CODE(publish_text(name, "x"), RTPUSH_E_TOPIC);
    CHECK_CODE(publish_text("", "x"), RTPUSH_E_TOPIC);
    CHECK_CODE(publish_text("a//b", "x"), RTPUSH_E_TOPIC);
    CHECK_CODE(publish_text("/a", "x"), RTPUSH_E_TOPIC);
    CHECK_CODE(publish_text("a/", "x"), RTPUSH_E_TOPIC);
    CHECK_CODE(publish_text("a/*", "x"), RTPUSH_E_TOPIC);
    CHECK_CODE(publish_text("a\x7f", "x"), RTPUSH_E_TOPIC);
    CHECK_CODE(publish_text("a\xff", "x"), RTPUSH_E_TOPIC);
    CHECK_CODE(rtpush_publish(hub, NULL, "x", 1), RTPUSH_E_ARGUMENT);
    CHECK_CODE(rtpush_publish(hub, "t", NULL, 1), RTPUSH_E_ARGUMENT);
    CHECK_CODE(rtpush_publish(hub, "t", NULL, 0), RTPUSH_OK);
    CHECK_CODE(publish_as("t", NULL, "x", 1, 4), RTPUSH_E_ARGUMENT);
    CHECK_CODE(publish_as("t", NULL, "x", 1, -1), RTPUSH_E_ARGUMENT);
    CHECK_CODE(publish_as("t", "gap", "x", 1, RTPUSH_TEXT), RTPUSH_E_EVENT);
    CHECK_CODE(publish_as("t", "a\nb", "x", 1, RTPUSH_TEXT), RTPUSH_E_EVENT);
    CHECK_CODE(publish_as("t", "a\xff", "x", 1, RTPUSH_TEXT), RTPUSH_E_EVENT);
    CHECK_CODE(publish_as("t", NULL, "\xff", 1, RTPUSH_TEXT), RTPUSH_E_UTF8);
    CHECK_CODE(publish_as("t", NULL, "{", 1, RTPUSH_JSON), RTPUSH_E_JSON);
    CHECK_CODE(publish_as("t", NULL, "", 0, RTPUSH_JSON), RTPUSH_E_JSON);
    CHECK_INT(ended.calls, 0); // a publish that failed has no end
    memset(name, 'd', sizeof name);
    CHECK_CODE(rtpush_publish(hub, "t", name, 100), RTPUSH_OK);
    CHECK_CODE(rtpush_publish(hub, "t", name, 101), RTPUSH_E_TOO_BIG);
    CHECK_CODE(rtpush_publish_async(hub, "t", name, 101), RTPUSH_E_TOO_BIG);
    CHECK_CODE(publish_as("t", "ev", "[1]", 3, RTPUSH_JSON), RTPUSH_OK);
    CHECK_INT(ended.calls, 1);
    CHECK_CODE(rtpush_publish(hub, "t", "\xff\0\1", 3), RTPUSH_OK);
    CHECK_CODE(publish_as("t", "", "plain", 5, RTPUSH_BINARY), RTPUSH_OK);
    CHECK_CODE(rtpush_publish(hub, "t", "text", 4), RTPUSH_OK);
    CHECK_CODE(rtpush_publish_user(hub, "ann", "hi", 2), RTPUSH_OK);
    CHECK_CODE(rtpush_publish_user(hub, "", "hi", 2), RTPUSH_E_TOPIC);
    memset(name, 'n', 250), name[250] = 0;
    CHECK_CODE(rtpush_publish_user(hub, name, "hi", 2), RTPUSH_E_TOPIC);
    CHECK_INT(history_of("t", 0), 6);
    CHECK_INT(past.kind[2], RTPUSH_JSON);
    CHECK_TEXT(past.event[2], "ev");
    CHECK_INT(past.kind[3], RTPUSH_BINARY);
    CHECK_INT(past.kind[4], RTPUSH_BINARY);
    CHECK_INT(past.kind[5], RTPUSH_TEXT);
    CHECK_INT(past.size[0], 0);
    CHECK_INT(history_of("@user/ann", 0), 1);
    finish();
}

static void done_comes_inside_publish_ex_with_the_local_log(void) {
    rtpush_desc d;
    int mine = 0;
    uint64_t ticket = 0;
    rtpush_publication p;
    memset(&d, 0, sizeof d);
    memset(&p, 0, sizeof p);
    if (!start(&d)) return;
    p.topic = "t";
    p.data = "x";
    p.size = 1;
    p.done = see_done;
    p.done_user = &mine;
    CHECK_CODE(rtpush_publish_ex(hub, &p, &ticket), RTPUSH_OK);
    CHECK_INT(mine, 1);
    CHECK_CODE(ended.code, RTPUSH_OK);
    CHECK(ticket && ticket == ended.ticket);
    CHECK_INT(ended.seq, head());
    p.done = NULL;
    CHECK_CODE(rtpush_publish_ex(hub, &p, NULL), RTPUSH_OK);
    CHECK_INT(mine, 1);
    finish();
}

static uint64_t publish_key(const char *topic, const char *key, const char *identity) {
    rtpush_publication p;
    memset(&p, 0, sizeof p);
    p.topic = topic;
    p.data = "k";
    p.size = 1;
    p.key = key;
    p.identity = identity;
    p.done = see_done;
    memset(&ended, 0, sizeof ended);
    CHECK_CODE(rtpush_publish_ex(hub, &p, NULL), RTPUSH_OK);
    CHECK_INT(ended.calls, 1);
    return ended.seq;
}

static void a_key_is_the_same_message_within_two_minutes(void) {
    rtpush_desc d;
    memset(&d, 0, sizeof d);
    d.keys_max = 3;
    if (!start(&d)) return;
    uint64_t first = publish_key("t", "k", "ann");
    CHECK_INT(publish_key("t", "k", "ann"), first);
    CHECK_INT(publish_key("t", "k", "bob"), first + 1);
    CHECK_INT(publish_key("u", "k", "ann"), first + 2);
    CHECK_INT(publish_key("t", "k", "ann"), first);
    publish_key("t", "", "ann"); // none
    publish_key("t", NULL, NULL);
    CHECK_INT(head(), first + 4);
    skip(119000);
    CHECK_INT(publish_key("t", "k", "ann"), first);
    skip(1100);
    CHECK_INT(publish_key("t", "k", "ann"), first + 5);
    publish_key("t", "k2", "ann");
    publish_key("t", "k3", "ann");
    CHECK_INT(publish_key("t", "k", "ann"), first + 5); // three are kept
    publish_key("t", "k4", "ann");
    CHECK(publish_key("t", "k", "ann") != first + 5); // the oldest was dropped
    finish();
}

static void history_is_oldest_first_until_told_to_stop(void) {
    rtpush_desc d;
    memset(&d, 0, sizeof d);
    if (!start(&d)) return;
    CHECK_INT(history_of("t", 0), 0);
    for (int i = 0; i < 5; i++) publish_text(i == 2 ? "other" : "t", &"abcde"[i]);
    CHECK_INT(history_of("t", 0), 4);
    CHECK_TEXT(past.data[0], "abcde");
    CHECK_INT(past.seqs[2], past.seqs[1] + 2);
    CHECK_TEXT(past.topic[3], "t");
    CHECK(past.time_ms > 1600000000000);
    uint64_t second = past.seqs[1];
    CHECK_INT(history_of("t", second), 2);
    CHECK_TEXT(past.data[0], "de");
    CHECK_INT(history_of("t", second + 100), 0);
    CHECK_INT(history_of("t", UINT64_MAX), 0);
    memset(&past, 0, sizeof past);
    past.stop_at = 3;
    CHECK_INT(rtpush_history(hub, "t", 0, see_past, NULL), 3);
    CHECK_INT(rtpush_history(hub, "t", 0, NULL, NULL), 4);
    rtpush_publication p;
    memset(&p, 0, sizeof p);
    p.topic = "t";
    p.data = "gone";
    p.size = 4;
    p.ephemeral = true;
    CHECK_CODE(rtpush_publish_ex(hub, &p, NULL), RTPUSH_OK);
    CHECK_INT(history_of("t", 0), 4);
    turns(1);
    CHECK_INT(history_of("t", 0), 4);
    CHECK_CODE(rtpush_clear(hub, "t"), RTPUSH_OK);
    CHECK_INT(history_of("t", 0), 0);
    CHECK_INT(history_of("other", 0), 1);
    CHECK_CODE(rtpush_clear(hub, "never"), RTPUSH_OK);
    CHECK_CODE(rtpush_clear(hub, "not/*"), RTPUSH_E_TOPIC);
    finish();
}

static const char *cleared;
static bool clear_and_look(const rtpush_message *m, void *user) {
    ++*(int *)user;
    rtpush_clear(hub, cleared);
    rtpush_publish(hub, m->topic, "new", 3);
    if (strncmp((const char *)m->data, "old", 3) || strcmp(m->topic, "t") || strcmp(m->event, "")) wrong(__LINE__, "the message changed");
    return true;
}

static void a_message_lives_until_the_callback_returns(void) {
    rtpush_desc d;
    int calls = 0;
    memset(&d, 0, sizeof d);
    if (!start(&d)) return;
    publish_text("t", "old1");
    publish_text("t", "old2");
    turns(1);
    cleared = "t";
    CHECK_INT(rtpush_history(hub, "t", 0, clear_and_look, &calls), 1);
    CHECK_INT(calls, 1);
    CHECK_INT(history_of("t", 0), 1);
    finish();
}

static bool publish_inside(const rtpush_message *m, void *user) {
    ++*(int *)user;
    return !rtpush_publish(hub, m->topic, "more", 4);
}

static void publishing_inside_history_is_not_seen(void) {
    rtpush_desc d;
    int calls = 0;
    memset(&d, 0, sizeof d);
    if (!start(&d)) return;
    for (int i = 0; i < 3; i++) publish_text("t", "x");
    CHECK_INT(rtpush_history(hub, "t", 0, publish_inside, &calls), 3);
    CHECK_INT(calls, 3);
    CHECK_INT(history_of("t", 0), 6);
    finish();
}

static void retention_by_count_bytes_age_and_over_all(void) {
    rtpush_desc d;
    rtpush_topic_desc t;
    char data[1000];
    memset(&d, 0, sizeof d);
    memset(&t, 0, sizeof t);
    memset(data, 'd', sizeof data);
    if (!start(&d)) return;
    for (int i = 0; i < 101; i++) publish_text("t", "x");
    turns(1);
    CHECK_INT(rtpush_history(hub, "t", 0, NULL, NULL), 100); // the default
    skip(3600000 - 5000);
    CHECK_INT(rtpush_history(hub, "t", 0, NULL, NULL), 100);
    skip(6000);
    publish_text("t", "new");
    turns(2);
    CHECK_INT(rtpush_history(hub, "t", 0, NULL, NULL), 1);
    t.history = 3;
    CHECK_CODE(rtpush_configure(hub, "few/*", &t), RTPUSH_OK);
    t.history = -1;
    CHECK_CODE(rtpush_configure(hub, "none", &t), RTPUSH_OK);
    memset(&t, 0, sizeof t);
    t.history_bytes = 5000;
    CHECK_CODE(rtpush_configure(hub, "small", &t), RTPUSH_OK);
    memset(&t, 0, sizeof t);
    t.history_ms = -1;
    CHECK_CODE(rtpush_configure(hub, "ever", &t), RTPUSH_OK);
    CHECK_CODE(rtpush_configure(hub, "a//b", &t), RTPUSH_E_TOPIC);
    CHECK_CODE(rtpush_configure(hub, "a/*/b", &t), RTPUSH_E_TOPIC);
    for (int i = 0; i < 10; i++) {
        publish_text("few/1", "x"), publish_text("none", "x"), publish_text("ever", "x");
        rtpush_publish(hub, "small", data, sizeof data);
    }
    turns(1);
    CHECK_INT(rtpush_history(hub, "few/1", 0, NULL, NULL), 3);
    CHECK_INT(rtpush_history(hub, "none", 0, NULL, NULL), 0);
    size_t small = rtpush_history(hub, "small", 0, NULL, NULL);
    CHECK(small >= 3 && small <= 5);
    skip(30u * 24 * 3600 * 1000);
    CHECK_INT(rtpush_history(hub, "ever", 0, NULL, NULL), 10);
    t.history = 5; // the last call that matches decides
    rtpush_configure(hub, "few/1", &t);
    t.history = 2;
    rtpush_configure(hub, "few/**", &t);
    for (int i = 0; i < 10; i++) publish_text("few/1", "x");
    turns(1);
    CHECK_INT(rtpush_history(hub, "few/1", 0, NULL, NULL), 2);
    finish();
    d.history_total_bytes = 100000;
    if (!start(&d)) return;
    for (int i = 0; i < 1000; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%d", i % 50);
        CHECK_CODE(rtpush_publish(hub, name, data, sizeof data), RTPUSH_OK); // never fails because of old history
        if (i % 10 == 0) turns(1);
    }
    turns(1);
    CHECK(stats().history_bytes <= 100000);
    CHECK(stats().messages_held > 20 && stats().messages_held < 100);
    finish();
}

static void topics_max_drops_the_oldest_without_readers_first(void) {
    rtpush_desc d;
    memset(&d, 0, sizeof d);
    d.topics_max = 3;
    if (!start(&d)) return;
    for (int i = 0; i < 10; i++) {
        char name[8] = {'t', (char)('0' + i), 0};
        CHECK_CODE(publish_text(name, "x"), RTPUSH_OK);
        turns(1);
    }
    CHECK(stats().topics <= 3);
    CHECK_INT(history_of("t9", 0), 1);
    CHECK_INT(history_of("t0", 0), 0);
    client *c = open_envelope("/live?topic=r1&topic=r2&topic=r3", NULL);
    CHECK_CODE(publish_text("t5", "x"), RTPUSH_E_TOPICS); // all of them are read
    CHECK_HAS(rtpush_strerror(RTPUSH_E_TOPICS), "topics_max");
    CHECK_INT(request_once("POST", "/live/t5", NULL, "x").status, 503);
    CHECK_CODE(publish_text("r2", "x"), RTPUSH_OK);
    hang_up(c);
    turns(3);
    CHECK_CODE(publish_text("t5", "x"), RTPUSH_OK);
    finish();
}

static void subscribers_and_the_limits_of_subscriptions(void) {
    rtpush_desc d;
    memset(&d, 0, sizeof d);
    d.session_topics_max = 3;
    d.patterns_max = 2;
    d.on_open = see_open;
    if (!start(&d)) return;
    client *c = open_envelope("/live/a/b", NULL), *e = open_events("/live?topic=a/b&topic=a/*&topic=a/**", NULL);
    CHECK_INT(rtpush_subscribers(hub, "a/b"), 4);
    CHECK_INT(rtpush_subscribers(hub, "a/c"), 2);
    CHECK_INT(rtpush_subscribers(hub, "a"), 0);
    rtpush_session s = seen.sessions[0];
    CHECK_CODE(rtpush_subscribe(hub, s, "b/*", NULL), RTPUSH_E_PATTERNS);
    CHECK_CODE(rtpush_subscribe(hub, s, "a/*", NULL), RTPUSH_OK); // there already
    CHECK_CODE(rtpush_subscribe(hub, s, "x", "latest"), RTPUSH_OK);
    CHECK_CODE(rtpush_subscribe(hub, s, "x", NULL), RTPUSH_OK); // twice is once
    CHECK_CODE(rtpush_subscribe(hub, s, "y", NULL), RTPUSH_E_SUBSCRIPTIONS);
    CHECK_CODE(rtpush_subscribe(hub, s, "a//b", NULL), RTPUSH_E_TOPIC);
    CHECK_CODE(rtpush_unsubscribe(hub, s, "x"), RTPUSH_OK);
    CHECK_CODE(rtpush_subscribe(hub, s, "y", "nonsense"), RTPUSH_E_ARGUMENT);
    CHECK_CODE(rtpush_subscribe(hub, s, "y", "-2"), RTPUSH_OK);
    CHECK_CODE(rtpush_unsubscribe(hub, s, "never"), RTPUSH_OK);
    publish_text("y", "to y");
    publish_text("x", "to x");
    publish_text("a/b", "to a/b");
    EXPECT_TEXT(c, "to y");
    frame f = ws_next(c);
    CHECK_HAS(f.data, "to a/b");
    EXPECT(e, "data: to a/b");
    CHECK_INT(stats().subscriptions, 6);
    ws_text(c, "{\"type\":\"subscribe\",\"topic\":\"z\",\"ref\":1}");
    EXPECT_TEXT(c, "\"error\"");
    client *over = dial();
    CHECK_INT(ws_handshake(over, "/live?topic=1&topic=2&topic=3&topic=4", NULL, NULL), 400);
    hang_up(over);
    CHECK_CODE(rtpush_subscribe(hub, seen.sessions[1], "y", NULL), RTPUSH_E_SUBSCRIPTIONS);
    hang_up(c);
    hang_up(e);
    turns(5);
    CHECK_INT(rtpush_subscribers(hub, "a/b"), 0);
    CHECK_INT(stats().patterns, 0);
    finish();
}

static void subscribe_since_replays_and_tells_of_a_gap(void) {
    rtpush_desc d;
    memset(&d, 0, sizeof d);
    d.history = 3;
    d.on_open = see_open;
    if (!start(&d)) return;
    for (int i = 0; i < 6; i++) publish_text("t", &"abcdef"[i]);
    turns(1);
    client *w = open_envelope("/live", NULL), *e = open_events("/live/other", NULL), *p = open_poll("/live/t?wait=20", NULL);
    CHECK_CODE(rtpush_subscribe(hub, seen.sessions[0], "t", "-2"), RTPUSH_OK);
    EXPECT_TEXT(w, "\"ef\"");
    EXPECT_TEXT(w, "\"f\"");
    CHECK_CODE(rtpush_subscribe(hub, seen.sessions[1], "t", "0"), RTPUSH_OK);
    EXPECT(e, "event: gap");
    EXPECT(e, "data: def\n");
    EXPECT(e, "data: f\n");
    CHECK_CODE(rtpush_subscribe(hub, seen.sessions[2], "u", NULL), RTPUSH_E_TRANSPORT);
    CHECK_CODE(rtpush_unsubscribe(hub, seen.sessions[2], "t"), RTPUSH_E_TRANSPORT);
    CHECK_CODE(rtpush_subscribe(hub, 12345, "u", NULL), RTPUSH_E_GONE);
    CHECK_CODE(rtpush_unsubscribe(hub, 12345, "t"), RTPUSH_E_GONE);
    hang_up(w), hang_up(e), hang_up(p);
    turns(3);
    finish();
}

// ============================================================================
// sessions
// ============================================================================

static bool count_each(rtpush_hub *h, rtpush_session s, void *user) {
    (void)h, (void)s;
    return ++*(int *)user != 3;
}

static void info_for_each_transport(void) {
    rtpush_desc d;
    rtpush_session_info info;
    int port = 0, mine = 0, count = 0;
    memset(&d, 0, sizeof d);
    d.on_open = see_open;
    d.on_close = see_close;
    if (!start(&d)) return;
    rtpush_listen(hub, "http://127.0.0.1:0", &port);
    client *raw = open_raw("/live?topic=a&topic=b", NULL), *env = open_envelope("/live/a", NULL), *sse = open_events("/live/a", NULL);
    client *poll = open_poll("/live/a?wait=20&session=0123456789abcdef", NULL);
    static const int transports[] = {RTPUSH_WEBSOCKET, RTPUSH_ENVELOPE, RTPUSH_SSE, RTPUSH_LONG_POLL};
    CHECK_INT(seen.opens, 4);
    publish_text("a", "1");
    for (int i = 0; i < 4; i++) {
        snprintf(V->where, sizeof V->where, "transport %d", transports[i]);
        CHECK_CODE(rtpush_info(hub, seen.sessions[i], &info), RTPUSH_OK);
        CHECK_INT(info.transport, transports[i]);
        CHECK_TEXT(info.identity, "");
        CHECK_INT(info.topics, i ? 1 : 2);
        CHECK_INT(info.lag, 1);
        CHECK_INT(info.cursor, 0);
        CHECK_INT(info.own_bytes, 0);
        CHECK(info.user == NULL && rtpush_get_user(hub, seen.sessions[i]) == NULL);
        CHECK_CODE(rtpush_set_user(hub, seen.sessions[i], &mine), RTPUSH_OK);
        CHECK(rtpush_get_user(hub, seen.sessions[i]) == &mine);
    }
    *V->where = 0;
    turns(2);
    CHECK_CODE(rtpush_info(hub, seen.sessions[0], &info), RTPUSH_OK);
    CHECK_INT(info.lag, 0);
    CHECK_INT(info.cursor, 1);
    CHECK(info.user == &mine);
    CHECK_CODE(rtpush_info(hub, seen.sessions[3], &info), RTPUSH_OK); // it lingers
    CHECK_INT(info.transport, RTPUSH_NO_TRANSPORT);
    CHECK_INT(info.topics, 0);
    CHECK(info.user == &mine);
    CHECK_INT(rtpush_each(hub, count_each, &count), 3);
    CHECK_INT(stats().sessions, 4);
    client *tcp = dial_tcp(port);
    CHECK_INT(ws_handshake(tcp, "/live/a", NULL, NULL), 101);
    CHECK_CODE(rtpush_info(hub, seen.last, &info), RTPUSH_OK);
    static const unsigned char local[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1};
    CHECK(!memcmp(info.peer.addr, local, 16) && info.peer.port);
    CHECK_CODE(rtpush_info(hub, 0, &info), RTPUSH_E_GONE);
    hang_up(raw), hang_up(env), hang_up(sse), hang_up(poll), hang_up(tcp);
    turns(5);
    CHECK_INT(seen.closes, 4);
    skip(15100); // linger_ms
    CHECK_INT(seen.closes, 5);
    CHECK_INT(code_of(seen.sessions[3]), 1000);
    finish();
}

static void stale_handles_are_harmless(void) {
    rtpush_desc d;
    rtpush_session_info info;
    memset(&d, 0, sizeof d);
    d.on_open = see_open;
    d.on_close = see_close;
    if (!start(&d)) return;
    client *c = open_raw("/live/a", NULL);
    rtpush_session old = seen.last, handles[] = {old, 0, 1, UINT64_MAX, old + 1, old + ((uint64_t)1 << 32)};
    hang_up(c);
    turns(3);
    CHECK_INT(seen.closes, 1);
    client *other = open_raw("/live/a", NULL); // has the same slot
    for (size_t i = 0; i < RP_COUNT(handles); i++) {
        rtpush_session s = handles[i];
        if (s == seen.last) continue;
        snprintf(V->where, sizeof V->where, "handle %" PRIx64, s);
        CHECK_CODE(rtpush_info(hub, s, &info), RTPUSH_E_GONE);
        CHECK_CODE(rtpush_set_user(hub, s, &d), RTPUSH_E_GONE);
        CHECK(rtpush_get_user(hub, s) == NULL);
        CHECK_CODE(rtpush_send(hub, s, "x", 1, RTPUSH_TEXT), RTPUSH_E_GONE);
        CHECK_CODE(rtpush_close(hub, s, 1000, NULL), RTPUSH_E_GONE);
        CHECK_CODE(rtpush_subscribe(hub, s, "t", NULL), RTPUSH_E_GONE);
        CHECK_CODE(rtpush_unsubscribe(hub, s, "t"), RTPUSH_E_GONE);
        CHECK_CODE(rtpush_stream_write(hub, s, "x", 1), RTPUSH_E_GONE);
        CHECK_CODE(rtpush_stream_end(hub, s), RTPUSH_E_GONE);
        rtpush_cancel(hub, s);
    }
    publish_text("a", "still here");
    EXPECT_TEXT(other, "still here");
    hang_up(other);
    turns(2);
    finish();
}

static void close_by_code_and_reason(void) {
    rtpush_desc d;
    char reason[200];
    memset(&d, 0, sizeof d);
    d.on_open = see_open;
    d.on_close = see_close;
    if (!start(&d)) return;
    client *c = open_raw("/live/a", NULL);
    static const int bad[] = {0, 999, 1001, 1005, 1006, 1015, 2999, 5000, -1, 70000};
    for (size_t i = 0; i < RP_COUNT(bad); i++) CHECK_CODE(rtpush_close(hub, seen.last, bad[i], NULL), RTPUSH_E_ARGUMENT);
    CHECK_CODE(rtpush_close(hub, seen.last, 1000, "\xff"), RTPUSH_E_ARGUMENT);
    memset(reason, 'r', sizeof reason);
    reason[124] = 0;
    CHECK_CODE(rtpush_close(hub, seen.last, 4000, reason), RTPUSH_E_ARGUMENT); // at most 123 bytes
    reason[123] = 0;
    CHECK_CODE(rtpush_close(hub, seen.last, 4000, reason), RTPUSH_OK);
    CHECK_CODE(rtpush_close(hub, seen.last, 4001, "again"), RTPUSH_E_GONE);
    CHECK_CODE(rtpush_send(hub, seen.last, "x", 1, RTPUSH_TEXT), RTPUSH_E_GONE);
    CHECK_INT(seen.closes, 0); // never inside rtpush_close
    frame f = ws_next(c);
    CHECK_INT(f.opcode, 8);
    CHECK_INT(f.code, 4000);
    CHECK_TEXT(f.data, reason);
    CHECK_INT(seen.closes, 1);
    CHECK_INT(code_of(seen.last), 4000);
    ws_close(c, 4000);
    EXPECT_END(c);
    CHECK_INT(c->size, 0); // nothing after a close (RFC 6455 §5.5.1)
    hang_up(c);
    static const int good[] = {1000, 3000, 4999};
    for (size_t i = 0; i < RP_COUNT(good); i++) {
        c = open_raw("/live/a", NULL);
        CHECK_CODE(rtpush_close(hub, seen.last, good[i], NULL), RTPUSH_OK);
        EXPECT_CLOSE(c, good[i]);
        hang_up(c);
    }
    c = open_events("/live/a", NULL);
    CHECK_CODE(rtpush_close(hub, seen.last, 4000, "x"), RTPUSH_OK);
    EXPECT(c, "\r\n0\r\n\r\n");
    EXPECT_END(c);
    CHECK_INT(code_of(seen.last), 4000);
    hang_up(c);
    c = open_poll("/live/a?wait=20&session=0123456789abcdef", NULL);
    CHECK_CODE(rtpush_close(hub, seen.last, 4002, NULL), RTPUSH_OK);
    EXPECT_END(c);
    CHECK_INT(code_of(seen.last), 4002); // and it does not linger
    hang_up(c);
    turns(3);
    CHECK_INT(seen.opens, seen.closes);
    finish();
}

static void one_open_and_one_close_over_linger_and_transports(void) {
    rtpush_desc d;
    memset(&d, 0, sizeof d);
    d.on_open = see_open;
    d.on_close = see_close;
    d.linger_ms = 5000;
    if (!start(&d)) return;
#define SESSION "session=abcdefgh_-ABCDEF09"
    for (int i = 0; i < 3; i++) {
        CHECK_INT(request_once("GET", "/live/t?" SESSION, NULL, NULL).status, 200);
        skip(4900);
    }
    CHECK_INT(seen.opens, 1);
    client *w = open_raw("/live/t?" SESSION, NULL), *e = open_events("/live/t?" SESSION, NULL);
    skip(10000); // two connections hold it
    hang_up(w);
    turns(2);
    skip(10000); // one holds it
    CHECK_INT(seen.opens, 1);
    CHECK_INT(seen.closes, 0);
    client *p = open_poll("/live/t?wait=20&" SESSION, NULL);
    hang_up(e);
    turns(2);
    skip(9000);
    hang_up(p);
    turns(2);
    skip(4900);
    CHECK_INT(seen.closes, 0);
    skip(200);
    CHECK_INT(seen.opens, 1);
    CHECK_INT(seen.closes, 1);
    CHECK_INT(request_once("GET", "/live/t?" SESSION, NULL, NULL).status, 200); // a new one
    CHECK_INT(seen.opens, 2);
    CHECK(seen.sessions[0] != seen.sessions[1]);
    CHECK_INT(request_once("GET", "/live/t?session=short", NULL, NULL).status, 400);
    CHECK_INT(request_once("GET", "/live/t", NULL, NULL).status, 200); // one of its own, without linger
    turns(2);
    CHECK_INT(seen.opens, 3);
    CHECK_INT(seen.closes, 2);
    finish();
    CHECK_INT(seen.closes, 3);
    d.linger_ms = -1;
    memset(&seen, 0, sizeof seen);
    if (!start(&d)) return;
    request_once("GET", "/live/t?" SESSION, NULL, NULL);
    turns(2);
    CHECK_INT(seen.opens, 1);
    CHECK_INT(seen.closes, 1);
    finish();
}

// ============================================================================
// login and permission
// ============================================================================

static int64_t login_ms;
static bool login_by(rtpush_login *login, rtpush_slice credential) {
    if (credential.size < 3 || memcmp(credential.data, "ok-", 3)) return false;
    snprintf(login->identity, sizeof login->identity, "%.*s", (int)credential.size - 3, credential.data + 3);
    login->expires_ms = login_ms;
    return true;
}

static int test_login(rtpush_hub *h, rtpush_login *login, void *user) {
    (void)h, (void)user;
    seen.logins++;
    if (login->token.size == 6 && !memcmp(login->token.data, "banned", 6)) return RTPUSH_E_FORBIDDEN;
    if (login_by(login, login->token)) return RTPUSH_OK;
    if (login->request && login_by(login, rtpush_cookie(login->request, "sid"))) return RTPUSH_OK;
    return RTPUSH_E_UNAUTHORIZED;
}

static bool test_allow(rtpush_hub *h, const char *identity, int verb, const char *topic, void *user) {
    (void)h, (void)user;
    seen.allows++;
    if (!strcmp(identity, "root")) return true;
    if (*topic == '@') return false;
    if (strchr(topic, '*')) return verb == RTPUSH_VERB_READ && !strcmp(topic, "open/*");
    if (!strncmp(topic, "read/", 5)) return verb == RTPUSH_VERB_READ;
    if (!strncmp(topic, "write/", 6)) return verb == RTPUSH_VERB_PUBLISH;
    if (!strncmp(topic, "delete/", 7)) return verb == RTPUSH_VERB_DELETE;
    return strncmp(topic, "secret", 6) != 0;
}

static bool start_with_login(void) {
    rtpush_desc d;
    memset(&d, 0, sizeof d);
    d.on_open = see_open;
    d.on_close = see_close;
    d.on_login = test_login;
    d.on_allow = test_allow;
    return start(&d) != NULL;
}

static const char *last_identity(void) {
    static rtpush_session_info info;
    rtpush_info(hub, seen.last, &info);
    return info.identity ? info.identity : "(gone)";
}

static void login_by_header_cookie_query_and_first_message(void) {
    char value[64];
    if (!start_with_login()) return;
    client *c = open_raw("/live/t", "Authorization: Bearer ok-ann\r\n");
    CHECK_TEXT(last_identity(), "ann");
    hang_up(c);
    c = open_events("/live/t", "Cookie: a=1; sid=ok-bob; b=2\r\n");
    CHECK_TEXT(last_identity(), "bob");
    hang_up(c);
    c = open_poll("/live/t?wait=20&token=ok-%C3%A9va", NULL);
    CHECK_TEXT(last_identity(), "\xc3\xa9va");
    hang_up(c);
    c = open_envelope("/live/t", NULL); // let in, to say who it is
    int opens = seen.opens;
    ws_text(c, "{\"type\":\"subscribe\",\"topic\":\"t\",\"ref\":1}");
    publish_text("t", "not for strangers");
    frame f = ws_next(c);
    CHECK(!strstr(f.data, "hello") && !strstr(f.data, "not for strangers") && !strstr(f.data, "ack"));
    CHECK_INT(seen.opens, opens);
    if (f.opcode == 1) {
        ws_text(c, "{\"type\":\"auth\",\"token\":\"ok-cat\",\"ref\":2}");
        EXPECT_TEXT(c, "\"hello\"");
        CHECK_INT(seen.opens, opens + 1);
        CHECK_TEXT(last_identity(), "cat");
        publish_text("t", "for cat");
        EXPECT_TEXT(c, "for cat");
    }
    hang_up(c);
    c = open_envelope("/live/t", NULL);
    ws_text(c, "{\"type\":\"auth\",\"token\":\"nonsense\"}");
    EXPECT_CLOSE(c, 4001);
    hang_up(c);
    c = open_envelope("/live/t", NULL);
    ws_text(c, "{\"type\":\"auth\",\"token\":\"banned\"}");
    EXPECT_CLOSE(c, 4003);
    hang_up(c);
    c = open_envelope("/live/secret", NULL);
    ws_text(c, "{\"type\":\"auth\",\"token\":\"ok-cat\"}");
    EXPECT_CLOSE(c, 4003);
    hang_up(c);
    c = open_envelope("/live/t", NULL);
    skip(10100); // auth_timeout_ms
    EXPECT_CLOSE(c, 4001);
    hang_up(c);
    opens = seen.opens;
    reply r = request_once("GET", "/live/t", NULL, NULL);
    CHECK_INT(r.status, 401);
    CHECK(header_of(&r, "WWW-Authenticate", value, sizeof value) != NULL);
    CHECK_HAS(body_text, "{\"error\":");
    CHECK_INT(request_once("GET", "/live/t", "Authorization: Bearer wrong\r\n", NULL).status, 401);
    CHECK_INT(request_once("POST", "/live/t", NULL, "x").status, 401);
    CHECK_INT(request_once("DELETE", "/live/t", NULL, NULL).status, 401);
    CHECK_INT(request_once("GET", "/live/t?token=banned", NULL, NULL).status, 403);
    c = dial();
    CHECK_INT(ws_handshake(c, "/live/t", NULL, NULL), 401);
    hang_up(c);
    c = dial();
    CHECK_INT(ws_handshake(c, "/live/t?token=banned", "rtpush.v1", NULL), 403);
    hang_up(c);
    c = dial();
    CHECK_INT(ws_handshake(c, "/live/t?token=wrong", "rtpush.v1", NULL), 401);
    hang_up(c);
    CHECK_INT(seen.opens, opens);
    turns(3);
    CHECK_INT(seen.opens, seen.closes);
    finish();
}

static void an_expired_login_of_a_parked_poll_is_the_reason_of_its_close(void) {
    if (!start_with_login()) return;
    login_ms = 5000;
    client *poll = open_poll("/live/t?wait=20&token=ok-d", NULL);
    skip(5500);
    EXPECT_END(poll);
    hang_up(poll);
    skip(60000); // it lingers
    CHECK_INT(seen.closes, 1);
    CHECK_INT(code_of(seen.last), 4001);
    finish();
}

static int posted_twice[2];

static void post_once_more(rtpush_hub *h, void *arg) {
    (void)arg;
    posted_twice[0] = rtpush_post(h, post_once_more, NULL);
    posted_twice[1] = rtpush_publish_async(h, "t", "too late", 8);
}

static void what_is_posted_in_a_destroy_is_refused(void) {
    if (!start_with_login()) return;
    CHECK_INT(rtpush_post(hub, post_once_more, NULL), RTPUSH_OK);
    finish();
    CHECK_INT(posted_twice[0], RTPUSH_E_STATE);
    CHECK_INT(posted_twice[1], RTPUSH_E_STATE);
}

static void a_name_that_is_null_is_an_error(void) {
    if (!start_with_login()) return;
    rtpush_topic_desc desc;
    memset(&desc, 0, sizeof desc);
    client *raw = open_raw("/live/t?token=ok-a", NULL);
    CHECK_INT(rtpush_configure(hub, NULL, &desc), RTPUSH_E_TOPIC);
    CHECK_INT(rtpush_subscribe(hub, seen.last, NULL, NULL), RTPUSH_E_TOPIC);
    CHECK_INT(rtpush_unsubscribe(hub, seen.last, NULL), RTPUSH_E_TOPIC);
    CHECK_INT(rtpush_unsubscribe(hub, seen.last, "a//b"), RTPUSH_E_TOPIC);
    CHECK_INT(rtpush_clear(hub, NULL), RTPUSH_E_TOPIC);
    CHECK_INT(rtpush_publish(hub, NULL, "x", 1), RTPUSH_E_ARGUMENT);
    CHECK_INT(rtpush_publish_user(hub, NULL, "x", 1), RTPUSH_E_TOPIC);
    CHECK_INT(rtpush_history(hub, NULL, 0, NULL, NULL), 0);
    CHECK_INT(rtpush_presence(hub, NULL, NULL, NULL), 0);
    CHECK_INT(rtpush_subscribers(hub, NULL), 0);
    CHECK_INT(rtpush_kick(hub, NULL, 4002, NULL), 0);
    hang_up(raw);
    finish();
}

static void an_expired_login_ends_the_stream_and_auth_renews_it(void) {
    if (!start_with_login()) return;
    login_ms = 5000;
    client *raw = open_raw("/live/t?token=ok-a", NULL), *env = open_envelope("/live/t?token=ok-b", NULL);
    client *sse = open_events("/live/t?token=ok-c", NULL), *poll = open_poll("/live/t?wait=20&token=ok-d", NULL);
    skip(4000);
    ws_text(env, "{\"type\":\"auth\",\"token\":\"ok-b\",\"ref\":7}");
    EXPECT_TEXT(env, "\"ref\":7");
    skip(1500);
    EXPECT_CLOSE(raw, 4001);
    EXPECT_END(sse);
    EXPECT_END(poll);
    publish_text("t", "you stay");
    EXPECT_TEXT(env, "you stay");
    skip(3000);
    ws_text(env, "{\"type\":\"auth\",\"token\":\"ok-else\",\"ref\":8}"); // another's token is no renewal
    EXPECT_CLOSE(env, 4003);
    hang_up(raw), hang_up(env), hang_up(sse), hang_up(poll);
    env = open_envelope("/live/t?token=ok-b", NULL);
    skip(5100);
    frame f = ws_until_close(env);
    CHECK_INT(f.code, 4001);
    CHECK_TEXT(f.data, "expired");
    CHECK_INT(code_of(seen.last), 4001);
    hang_up(env);
    env = open_envelope("/live/t", NULL);
    ws_text(env, "{\"type\":\"auth\",\"token\":\"ok-late\"}");
    EXPECT_TEXT(env, "hello");
    skip(5100);
    EXPECT_CLOSE(env, 4001);
    hang_up(env);
    login_ms = 0;
    env = open_envelope("/live/t?token=ok-b", NULL);
    skip(1000);
    CHECK(!env->has_ended && rtpush_info(hub, seen.last, &(rtpush_session_info){0}) == RTPUSH_OK);
    hang_up(env);
    turns(3);
    finish();
}

static void permission_per_topic_pattern_and_verb(void) {
    static const struct { const char *method, *topic; int status; } cases[] = {
        {"GET", "read/1", 200},   {"POST", "read/1", 403},   {"DELETE", "read/1", 403},   {"GET", "write/1", 403},  {"POST", "write/1", 202},
        {"DELETE", "write/1", 403}, {"GET", "delete/1", 403}, {"POST", "delete/1", 403},  {"DELETE", "delete/1", 204}, {"GET", "open/*", 200},
        {"GET", "secret", 403},   {"GET", "other/*", 403},   {"GET", "@user/ann", 200},   {"GET", "@user/bob", 403}, {"GET", "@user/*", 403},
        {"POST", "@user/ann", 403}, {"GET", "@secret/x", 403}, {"DELETE", "@user/ann", 403}};
    if (!start_with_login()) return;
    for (size_t i = 0; i < RP_COUNT(cases); i++) {
        char target[64];
        snprintf(V->where, sizeof V->where, "%s %s", cases[i].method, cases[i].topic);
        snprintf(target, sizeof target, "/live/%s", cases[i].topic);
        CHECK_INT(request_once(cases[i].method, target, "Authorization: Bearer ok-ann\r\n", *cases[i].method == 'P' ? "x" : NULL).status, cases[i].status);
    }
    *V->where = 0;
    CHECK_INT(request_once("GET", "/live/@user/bob?token=ok-root", NULL, NULL).status, 200);
    CHECK_INT(request_once("GET", "/live?topic=open/1&topic=secret&token=ok-ann", NULL, NULL).status, 403);
    client *c = open_envelope("/live?token=ok-ann", NULL);
    ws_text(c, "{\"type\":\"subscribe\",\"topic\":\"secret\",\"ref\":1}");
    EXPECT_TEXT(c, "\"forbidden\"");
    ws_text(c, "{\"type\":\"publish\",\"topic\":\"read/1\",\"data\":1,\"ref\":2}");
    EXPECT_TEXT(c, "\"forbidden\"");
    ws_text(c, "{\"type\":\"publish\",\"topic\":\"@user/ann\",\"data\":1,\"ref\":3}");
    EXPECT_TEXT(c, "\"forbidden\"");
    ws_text(c, "{\"type\":\"publish\",\"topic\":\"write/1\",\"data\":1,\"ref\":4}");
    EXPECT_TEXT(c, "\"ack\",\"ref\":4");
    hang_up(c);
    client *raw = open_raw("/live/read/1?token=ok-ann", NULL); // where publishing is not allowed, its frame is dropped
    ws_text(raw, "dropped");
    turns(3);
    CHECK_INT(history_of("read/1", 0), 0);
    hang_up(raw);
    turns(2);
    finish();
}

static void without_on_allow_publish_off_and_foreign_users_are_refused(void) {
    rtpush_desc d;
    memset(&d, 0, sizeof d);
    d.publish_off = true;
    d.on_login = test_login;
    if (!start(&d)) return;
    CHECK_INT(request_once("POST", "/live/t?token=ok-ann", NULL, "x").status, 403);
    CHECK_INT(request_once("DELETE", "/live/t?token=ok-ann", NULL, NULL).status, 403);
    CHECK_INT(request_once("GET", "/live/t?token=ok-ann", NULL, NULL).status, 200);
    CHECK_INT(request_once("GET", "/live/@user/bob?token=ok-ann", NULL, NULL).status, 403);
    CHECK_INT(request_once("GET", "/live/@user/ann?token=ok-ann", NULL, NULL).status, 200);
    CHECK_INT(request_once("GET", "/live/@presence/t?token=ok-ann", NULL, NULL).status, 403);
    CHECK_CODE(publish_text("t", "the host may"), RTPUSH_OK);
    finish();
}

static void a_users_queue_waits_while_the_user_is_away(void) {
    if (!start_with_login()) return;
    rtpush_publish_user(hub, "ann", "one", 3);
    rtpush_publish_user(hub, "ann", "two", 3);
    client *c = open_events("/live/@user/ann?since=earliest", "Cookie: sid=ok-ann\r\n");
    EXPECT(c, "data: one\n");
    EXPECT(c, "data: two\n");
    rtpush_publish_user(hub, "ann", "three", 5);
    EXPECT(c, "data: three\n");
    hang_up(c);
    turns(2);
    rtpush_publish_user(hub, "ann", "four", 4);
    c = dial();
    reply r = request(c, "GET", "/live/@user/ann?since=3&token=ok-ann", NULL, NULL);
    CHECK_INT(r.status, 200);
    CHECK_HAS(body_text, "\"four\"");
    CHECK(!strstr(body_text, "three"));
    hang_up(c);
    turns(2);
    finish();
}

static void kick_closes_all_of_an_identity(void) {
    if (!start_with_login()) return;
    client *a = open_raw("/live/t?token=ok-ann", NULL), *b = open_events("/live/t?token=ok-ann", NULL), *o = open_raw("/live/t?token=ok-bob", NULL);
    CHECK_INT(rtpush_kick(hub, "nobody", 4000, NULL), 0);
    CHECK_INT(rtpush_kick(hub, "ann", 4005, "out"), 2);
    CHECK_INT(rtpush_kick(hub, "ann", 4005, "out"), 0);
    EXPECT_CLOSE(a, 4005);
    EXPECT_END(b);
    publish_text("t", "for bob");
    EXPECT_TEXT(o, "for bob");
    hang_up(a), hang_up(b), hang_up(o);
    turns(3);
    CHECK_INT(seen.opens, seen.closes);
    finish();
}

// ============================================================================
// on_publish
// ============================================================================

static int test_publish(rtpush_hub *h, rtpush_session from, rtpush_publication *what, void *user) {
    static const char changed[] = "changed";
    (void)h, (void)user;
    seen.publishes++;
    seen.kind = what->kind;
    if (from) seen.last = from;
    snprintf(seen.topic, sizeof seen.topic, "%s", what->topic);
    snprintf(seen.data, sizeof seen.data, "%.*s", (int)RP_MIN(what->size, sizeof seen.data - 1), (const char *)what->data);
    if (!strncmp(seen.data, "refuse", 6)) return RTPUSH_E_FORBIDDEN;
    if (!strncmp(seen.data, "argument", 8)) return RTPUSH_E_ARGUMENT;
    if (!strncmp(seen.data, "change", 6)) {
        what->data = changed;
        what->size = 7;
        what->event = "ev";
    }
    if (!strncmp(seen.data, "gapify", 6)) what->event = "gap"; // a mistake of the hook's: refused
    if (!strncmp(seen.data, "move", 4)) what->topic = "elsewhere";
    if (!strncmp(seen.data, "steal", 5)) what->done = NULL;
    return RTPUSH_OK;
}

static void on_publish_allows_changes_and_refuses(void) {
    rtpush_desc d;
    memset(&d, 0, sizeof d);
    d.on_publish = test_publish;
    d.on_open = see_open;
    if (!start(&d)) return;
    CHECK_INT(request_once("POST", "/live/t", NULL, "plain").status, 202);
    CHECK_INT(request_once("POST", "/live/t", NULL, "change me").status, 202);
    CHECK_INT(request_once("POST", "/live/t", NULL, "refuse me").status, 403);
    CHECK_INT(request_once("POST", "/live/t", NULL, "argument").status, 400);
    CHECK_INT(request_once("POST", "/live/t", NULL, "gapify").status, 400);
    CHECK_INT(request_once("POST", "/live/t", NULL, "move").status, 202);
    CHECK_INT(request_once("POST", "/live/t", NULL, "steal").status, 202);
    CHECK_INT(seen.publishes, 7);
    CHECK_INT(history_of("t", 0), 3);
    CHECK_TEXT(past.data[0], "plain");
    CHECK_TEXT(past.data[1], "changed");
    CHECK_TEXT(past.event[1], "ev");
    CHECK_INT(history_of("elsewhere", 0), 1);
    client *raw = open_raw("/live/t", NULL), *env = open_envelope("/live/t", NULL);
    ws_text(raw, "refuse");
    ws_text(raw, "change");
    EXPECT_TEXT(raw, "changed");
    EXPECT_TEXT(env, "changed");
    CHECK_INT(history_of("t", 0), 4);
    ws_text(env, "{\"type\":\"publish\",\"topic\":\"t\",\"data\":\"refuse\",\"ref\":\"r\"}");
    EXPECT_TEXT(env, "\"error\",\"ref\":\"r\",\"code\":\"forbidden\"");
    ws_text(env, "{\"type\":\"publish\",\"topic\":\"t\",\"data\":\"AAE=\",\"encoding\":\"base64\",\"ref\":\"b\"}");
    EXPECT_TEXT(env, "\"ack\",\"ref\":\"b\"");
    CHECK_INT(seen.kind, RTPUSH_BINARY);
    ws_text(env, "{\"type\":\"publish\",\"topic\":\"t\",\"data\":\"steal\",\"ref\":\"s\"}");
    EXPECT_TEXT(env, "\"ack\",\"ref\":\"s\"");
    publish_text("t", "refuse"); // the host's own do not pass it
    CHECK_INT(history_of("t", 0), 7);
    seen.last = 0;
    request_once("POST", "/live/t", NULL, "from nobody");
    CHECK_INT(seen.last, 0);
    client *s = open_poll("/live/z?wait=20&" SESSION, NULL);
    rtpush_session named = seen.last;
    seen.last = 0;
    request_once("POST", "/live/t?" SESSION, NULL, "from somebody");
    CHECK(seen.last && seen.last == named);
    hang_up(raw), hang_up(env), hang_up(s);
    turns(3);
    finish();
}

static void on_message_gets_raw_frames_and_nothing_is_published(void) {
    rtpush_desc d;
    memset(&d, 0, sizeof d);
    d.on_message = see_message;
    if (!start(&d)) return;
    client *c = open_raw("/live?topic=first&topic=second", NULL);
    ws_text(c, "a frame");
    ws_send(c, 2, true, "\1\2", 2);
    ws_send(c, 1, false, "in ", 3);
    ws_send(c, 0, true, "pieces", 6);
    ws_send(c, 1, true, "", 0);
    for (int i = 0; i < 50 && seen.messages < 4; i++) turns(1);
    CHECK_INT(seen.messages, 4);
    CHECK_TEXT(seen.topic, "first");
    CHECK_INT(seen.size, 0);
    CHECK_INT(seen.kind, RTPUSH_TEXT);
    CHECK_INT(history_of("first", 0), 0);
    hang_up(c);
    turns(2);
    finish();
}

static void keep_topic(rtpush_hub *h, rtpush_session from, const rtpush_message *m, void *user) {
    (void)user;
    rtpush_unsubscribe(h, from, "t");
    if (strcmp(m->topic, "t")) wrong(__LINE__, "the topic's name went: %s", m->topic);
    rtpush_close(h, from, 1000, NULL);
    if (strcmp(m->topic, "t") || memcmp(m->data, "data", 4)) wrong(__LINE__, "the message went");
    seen.messages++;
}

static void a_frames_topic_lives_until_on_message_returns(void) {
    rtpush_desc d;
    memset(&d, 0, sizeof d);
    d.on_message = keep_topic;
    if (!start(&d)) return;
    client *c = open_raw("/live/t", NULL);
    ws_text(c, "data");
    EXPECT_CLOSE(c, 1000);
    CHECK_INT(seen.messages, 1);
    hang_up(c);
    turns(2);
    finish();
}

// ============================================================================
// requests of the host's own
// ============================================================================

static char folder[64]; // of files
static rtpush_stream stream;
static rtpush_session accepted;
static int codes[8]; // what a handler was told

static size_t put_slice(char *to, size_t cap, size_t at, const char *name, rtpush_slice s) {
    return at + (size_t)snprintf(to + at, cap - at, "%s=%.*s;", name, s.data ? (int)s.size : 6, s.data ? s.data : "(none)");
}

static bool echo_request(rtpush_request *r) {
    char text[1024], query[16], short_one[4];
    size_t n = put_slice(text, sizeof text, 0, "method", rtpush_method(r));
    n = put_slice(text, sizeof text, n, "path", rtpush_path(r));
    n = put_slice(text, sizeof text, n, "x-a", rtpush_header(r, "x-a"));
    n = put_slice(text, sizeof text, n, "X-NONE", rtpush_header(r, "X-NONE"));
    n = put_slice(text, sizeof text, n, "cookie", rtpush_cookie(r, "c"));
    n = put_slice(text, sizeof text, n, "no cookie", rtpush_cookie(r, "d"));
    n = put_slice(text, sizeof text, n, "body", rtpush_body(r));
    ptrdiff_t q = rtpush_query(r, "q", query, sizeof query);
    n += (size_t)snprintf(text + n, sizeof text - n, "q=%d:%s;none=%d;fit=%d;all=%.*s;port=%d;", (int)q, q < 0 ? "" : query, (int)rtpush_query(r, "none", query, sizeof query),
                          (int)rtpush_query(r, "q", short_one, sizeof short_one), (int)rtpush_query_text(r).size, rtpush_query_text(r).data, rtpush_request_peer(r).port > 0);
    return rtpush_reply(r, 200, "Content-Type: text/plain\r\nX-Own: yes\r\n", text, n) == RTPUSH_OK;
}

static bool bad_headers_request(rtpush_request *r) {
    static const char *const bad[] = {"X: a\n", "X: a", "X: a\r", "X: a\nY: b\r\n", "X: a\rb\r\n", "\r\n", "X: a\r\n\r\n", "no colon\r\n", "X : a\r\n", ": a\r\n",
                                      "Content-Length: 3\r\n", "connection: close\r\n", "Transfer-Encoding: chunked\r\n", " folded\r\n", "X: a\r\n b\r\n"};
    for (size_t i = 0; i < RP_COUNT(bad); i++) {
        if (rtpush_reply(r, 200, bad[i], "x", 1) != RTPUSH_E_HEADER) wrong(__LINE__, "rtpush_reply took headers %zu", i);
        if (rtpush_reply_begin(r, 200, bad[i])) wrong(__LINE__, "rtpush_reply_begin took headers %zu", i);
    }
    if (rtpush_reply_file(r, folder, "a.txt", "text/plain\r\nX-Evil: 1") != RTPUSH_E_HEADER) {
        wrong(__LINE__, "rtpush_reply_file took a type with CR and LF");
        return true;
    }
    return rtpush_reply(r, 200, NULL, "fine", 4) == RTPUSH_OK;
}

static bool test_request(rtpush_hub *h, rtpush_request *r, void *user) {
    char path[256], file[200];
    rtpush_slice p = rtpush_path(r);
    snprintf(path, sizeof path, "%.*s", (int)RP_MIN(p.size, sizeof path - 1), p.data);
    (void)user;
    seen.requests++;
    if (!strncmp(path, "/echo", 5)) return echo_request(r);
    if (!strcmp(path, "/bad-headers")) return bad_headers_request(r);
    if (!strcmp(path, "/silent")) return true;
    if (!strcmp(path, "/false")) return false;
    if (!strcmp(path, "/status")) {
        CHECK_CODE(rtpush_reply(r, 199, NULL, "", 0), RTPUSH_E_ARGUMENT);
        CHECK_CODE(rtpush_reply(r, 600, NULL, "", 0), RTPUSH_E_ARGUMENT);
        CHECK(rtpush_reply_begin(r, 99, NULL) == 0);
        CHECK_CODE(rtpush_reply(r, 418, NULL, "tea", 3), RTPUSH_OK);
        CHECK_CODE(rtpush_reply(r, 200, NULL, "", 0), RTPUSH_E_STATE);
        CHECK(rtpush_reply_begin(r, 200, NULL) == 0);
        CHECK_CODE(rtpush_reply_file(r, folder, "a.txt", NULL), RTPUSH_E_STATE);
        CHECK_CODE(rtpush_accept_websocket(r, &accepted), RTPUSH_E_STATE);
        return true;
    }
    if (!strcmp(path, "/nothing")) return rtpush_reply(r, 204, NULL, "ignored", 7) == RTPUSH_OK;
    if (!strcmp(path, "/stream")) {
        stream = rtpush_reply_begin(r, 200, "X-S: 1\r\n");
        CHECK(stream != 0);
        CHECK_CODE(rtpush_reply(r, 200, NULL, "", 0), RTPUSH_E_STATE);
        CHECK_CODE(rtpush_stream_write(h, stream, "one ", 4), RTPUSH_OK);
        CHECK_CODE(rtpush_stream_write(h, stream, "", 0), RTPUSH_OK); // is not the end
        CHECK_CODE(rtpush_stream_write(h, stream, "two", 3), RTPUSH_OK);
        CHECK_CODE(rtpush_stream_end(h, stream), RTPUSH_OK);
        CHECK_CODE(rtpush_stream_end(h, stream), RTPUSH_E_GONE);
        CHECK_CODE(rtpush_stream_write(h, stream, "x", 1), RTPUSH_E_GONE);
        return true;
    }
    if (!strcmp(path, "/later")) return (stream = rtpush_reply_begin(r, 200, NULL)) != 0;
    if (!strncmp(path, "/file/", 6)) {
        CHECK(rtpush_query(r, "f", file, sizeof file) >= 0);
        CHECK_CODE(rtpush_reply_file(r, folder, file, !strcmp(path, "/file/typed") ? "x/y" : NULL), RTPUSH_OK);
        return true;
    }
    if (!strcmp(path, "/no-folder")) return rtpush_reply_file(r, "/no/such/folder", "a.txt", NULL) == RTPUSH_OK;
    if (!strcmp(path, "/ws")) {
        codes[0] = rtpush_accept_websocket(r, &accepted);
        if (codes[0] == RTPUSH_E_TRANSPORT) rtpush_reply(r, 400, NULL, "an upgrade is expected", 22);
        return true;
    }
    return false;
}

static bool start_with_requests(void) {
    rtpush_desc d;
    memset(&d, 0, sizeof d);
    d.on_request = test_request;
    d.on_message = see_message;
    d.on_open = see_open;
    d.on_close = see_close;
    return start(&d) != NULL;
}

static void on_request_reads_everything_and_replies(void) {
    char value[64];
    int port = 0;
    if (!start_with_requests()) return;
    client *c = dial();
    reply r = request(c, "PATCH", "/echo%20%2f?q=a%20b+c&z=1", "X-A: 1\r\nx-a: 2\r\nCookie: b=1; c=\"v\"; e=f\r\n", "the body");
    CHECK_INT(r.status, 200);
    CHECK_TEXT(body_text, "method=PATCH;path=/echo /;x-a=1;X-NONE=(none);cookie=\"v\";no cookie=(none);body=the body;q=5:a b c;none=-1;fit=-2;all=q=a%20b+c&z=1;port=0;");
    CHECK_TEXT(header_of(&r, "X-Own", value, sizeof value), "yes");
    r = request(c, "HEAD", "/echo", NULL, NULL); // RFC 9110 §9.3.2: the length without the body
    CHECK_INT(r.status, 200);
    CHECK(header_of(&r, "Content-Length", value, sizeof value) && atoi(value) > 20);
    CHECK_INT(request(c, "GET", "/status", NULL, NULL).status, 418);
    CHECK_TEXT(body_text, "tea");
    CHECK_INT(request(c, "GET", "/silent", NULL, NULL).status, 500);
    CHECK_INT(request(c, "GET", "/false", NULL, NULL).status, 404);
    CHECK_INT(request(c, "GET", "/nothing", NULL, NULL).status, 204);
    CHECK_INT(request(c, "GET", "/bad-headers", NULL, NULL).status, 200);
    CHECK_TEXT(body_text, "fine");
    CHECK_INT(seen.requests, 7);
    CHECK_INT(request(c, "GET", "/healthz", NULL, NULL).status, 200); // not asked about the library's own
    CHECK_INT(request(c, "GET", "/live/t", NULL, NULL).status, 200);
    CHECK_INT(seen.requests, 7);
    say(c, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\nGET /stream HTTP/1.1\r\nHost: h\r\n\r\nGET /nothing HTTP/1.1\r\nHost: h\r\n\r\n");
    CHECK_INT(await_reply(c, false).status, 200);
    CHECK_INT(await_reply(c, false).status, 200);
    CHECK_TEXT(body_text, "one two");
    CHECK_INT(await_reply(c, false).status, 204);
    hang_up(c);
    rtpush_listen(hub, "http://127.0.0.1:0", &port);
    c = dial_tcp(port);
    request(c, "GET", "/echo", NULL, NULL);
    CHECK_HAS(body_text, "port=1");
    hang_up(c);
    turns(2);
    finish();
}

static void a_stream_goes_on_after_on_request_and_says_full(void) {
    static char piece[65536];
    char value[64];
    if (!start_with_requests()) return;
    client *c = dial();
    say(c, "GET /later HTTP/1.1\r\nHost: h\r\n\r\nGET /nothing HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT(c, "\r\n\r\n");
    CHECK_CODE(rtpush_stream_write(hub, stream, "early", 5), RTPUSH_OK);
    EXPECT(c, "early");
    uint64_t given = 0;
    int pieces = 0;
    for (;; pieces++) {
        memset(piece, 'a' + pieces % 26, sizeof piece);
        int code = rtpush_stream_write(hub, stream, piece, sizeof piece);
        if (code == RTPUSH_OK) given += sizeof piece;
        if (code == RTPUSH_E_FULL || pieces > 200) break;
        CHECK_CODE(code, RTPUSH_OK);
        turns(1);
    }
    CHECK(pieces >= 4 && pieces < 40); // ring_max, and what the socket holds
    CHECK_CODE(rtpush_stream_write(hub, stream, "", 0), RTPUSH_E_FULL);
    uint64_t before = c->size;
    for (int i = 0; i < 2000 && c->size < before + given; i++) turns(1), take_in(c, 10000);
    CHECK_CODE(rtpush_stream_write(hub, stream, "late", 4), RTPUSH_OK);
    CHECK_CODE(rtpush_stream_end(hub, stream), RTPUSH_OK);
    reply r = await_reply(c, false);
    CHECK_INT(r.status, 200);
    CHECK_INT(r.size, 5 + given + 4); // what was not taken is not there
    CHECK_INT(await_reply(c, false).status, 204); // the pipelined one
    CHECK_CODE(rtpush_stream_write(hub, stream, "x", 1), RTPUSH_E_GONE);
    hang_up(c);
    c = dial();
    say(c, "GET /later HTTP/1.0\r\n\r\n"); // RFC 9112 §6.3: until the end
    EXPECT(c, "\r\n\r\n");
    rtpush_stream_write(hub, stream, "old", 3);
    rtpush_stream_end(hub, stream);
    EXPECT_END(c);
    CHECK_HAS(c->in, "\r\n\r\nold");
    CHECK(!strstr(c->in, "chunked"));
    hang_up(c);
    c = dial();
    say(c, "HEAD /later HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT(c, "\r\n\r\n");
    CHECK_CODE(rtpush_stream_write(hub, stream, "none of it", 10), RTPUSH_OK);
    CHECK_CODE(rtpush_stream_end(hub, stream), RTPUSH_OK);
    r = await_reply(c, true);
    CHECK(header_of(&r, "Transfer-Encoding", value, sizeof value) != NULL);
    CHECK_INT(request(c, "GET", "/nothing", NULL, NULL).status, 204);
    CHECK_INT(c->size, 0);
    hang_up(c);
    c = dial();
    say(c, "GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT(c, "\r\n\r\n");
    hang_up(c);
    turns(3); // half-closed: the answer still goes out, and then finds nobody
    int code = RTPUSH_OK;
    for (int i = 0; i < 5 && !code; i++) code = rtpush_stream_write(hub, stream, "x", 1), turns(1);
    CHECK_CODE(code, RTPUSH_E_GONE);
    CHECK_CODE(rtpush_stream_end(hub, stream), RTPUSH_E_GONE);
    c = dial();
    say(c, "GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT(c, "\r\n\r\n");
    hang_up(c);
    finish(); // with a reply under way
}

static void put_file(const char *name, const void *data, size_t size) {
    char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(data, 1, size, f) == size);
    if (f) fclose(f);
}

static void make_folder(void) {
    char path[200];
    snprintf(folder, sizeof folder, P_tmpdir "/rtpush-api-XXXXXX");
    CHECK(mkdtemp(folder) != NULL);
    put_file("a.txt", "hello", 5);
    put_file("empty.css", "", 0);
    put_file("no-type", "?", 1);
    snprintf(path, sizeof path, "%s/sub", folder);
    mkdir(path, 0700);
    put_file("sub/b.html", "<p>", 3);
    snprintf(path, sizeof path, "%s/link.txt", folder);
    CHECK(!symlink("a.txt", path));
    snprintf(path, sizeof path, "%s/out", folder);
    CHECK(!symlink("/etc", path));
    snprintf(path, sizeof path, "%s/pipe", folder);
    CHECK(!mkfifo(path, 0600));
}

static void remove_folder(void) {
    static const char *const names[] = {"a.txt", "empty.css", "no-type", "sub/b.html", "sub", "link.txt", "out", "pipe", "big.bin", ""};
    char path[200];
    for (size_t i = 0; i < RP_COUNT(names); i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        remove(path);
    }
}

static void reply_file_serves_regular_files_below_its_folder(void) {
    static const struct { const char *file; int status; const char *type, *body; } cases[] = {
        {"a.txt", 200, "text/plain", "hello"}, {"sub/b.html", 200, "text/html", "<p>"}, {"empty.css", 200, "text/css", ""}, {"no-type", 200, "application/octet-stream", "?"},
        {"none.txt", 404, NULL, NULL}, {"sub", 404, NULL, NULL}, {"sub/", 404, NULL, NULL}, {"", 404, NULL, NULL}, {".", 404, NULL, NULL}, {"..", 404, NULL, NULL},
        {"../etc/passwd", 404, NULL, NULL}, {"sub/../a.txt", 404, NULL, NULL}, {"../../../../etc/passwd", 404, NULL, NULL}, {"/etc/passwd", 404, NULL, NULL},
        {"link.txt", 404, NULL, NULL}, {"out/passwd", 404, NULL, NULL}, {"pipe", 404, NULL, NULL}, {"a.txt/x", 404, NULL, NULL}, {"..\\a.txt", 404, NULL, NULL}};
    char target[300], value[64];
    make_folder();
    if (!start_with_requests()) return;
    client *c = dial();
    for (size_t i = 0; i < RP_COUNT(cases); i++) {
        snprintf(V->where, sizeof V->where, "\"%s\"", cases[i].file);
        snprintf(target, sizeof target, "/file/x?f=%s", cases[i].file);
        reply r = request(c, "GET", target, NULL, NULL);
        CHECK_INT(r.status, cases[i].status);
        if (!cases[i].body) continue;
        CHECK_TEXT(body_text, cases[i].body);
        CHECK_HAS(header_of(&r, "Content-Type", value, sizeof value), cases[i].type);
    }
    *V->where = 0;
    reply r = request(c, "GET", "/file/typed?f=a.txt", NULL, NULL);
    CHECK_TEXT(header_of(&r, "Content-Type", value, sizeof value), "x/y");
    CHECK_INT(request(c, "GET", "/no-folder", NULL, NULL).status, 404);
    r = request(c, "HEAD", "/file/x?f=a.txt", NULL, NULL);
    CHECK_INT(r.status, 200);
    CHECK_TEXT(header_of(&r, "Content-Length", value, sizeof value), "5");
    CHECK_INT(request(c, "HEAD", "/file/x?f=none", NULL, NULL).status, 404);
    CHECK_INT(c->size, 0);
    hang_up(c);
    turns(2);
    finish();
    remove_folder();
}

static void a_big_file_goes_whole_to_a_slow_reader(void) {
    enum { BIG = 3000001 };
    static char big[BIG];
    char value[64];
    for (size_t i = 0; i < BIG; i++) big[i] = (char)(i * 2654435761u >> 13);
    make_folder();
    put_file("big.bin", big, BIG);
    if (!start_with_requests()) return;
    client *c = dial();
    say(c, "GET /file/x?f=big.bin HTTP/1.1\r\nHost: h\r\n\r\nGET /nothing HTTP/1.1\r\nHost: h\r\n\r\n");
    for (int i = 0; i < 20000 && c->size < BIG; i++) turns(1), take_in(c, i % 3 ? 4000 : 20);
    reply r = await_reply(c, false);
    CHECK_INT(r.status, 200);
    CHECK_INT(r.size, BIG);
    CHECK_INT(await_reply(c, false).status, 204);
    say(c, "GET /file/x?f=big.bin HTTP/1.1\r\nHost: h\r\n\r\n");
    uint64_t until_ms = real_ms() + 5000;
    while (c->size < BIG + 100 && real_ms() < until_ms) turns(1), take_in(c, SIZE_MAX), reply_is_whole(c, &r);
    const char *body = strstr(c->in, "\r\n\r\n");
    CHECK(body && c->size == (size_t)(body + 4 - c->in) + BIG && !memcmp(body + 4, big, BIG));
    drop(c, c->size);
    r = request(c, "HEAD", "/file/x?f=big.bin", NULL, NULL);
    CHECK_TEXT(header_of(&r, "Content-Length", value, sizeof value), "3000001");
    say(c, "GET /file/x?f=big.bin HTTP/1.1\r\nHost: h\r\n\r\n");
    turns(3);
    put_file("big.bin", "", 0); // it becomes shorter: the length was promised, so the connection must end
    EXPECT_END(c);
    hang_up(c);
    put_file("big.bin", big, BIG);
    c = dial();
    say(c, "GET /file/x?f=big.bin HTTP/1.1\r\nHost: h\r\n\r\n");
    turns(3);
    hang_up(c);
    turns(3);
    CHECK_INT(stats().connections, 0);
    finish();
    remove_folder();
}

static void accept_websocket_is_raw_without_topics(void) {
    rtpush_session_info info;
    if (!start_with_requests()) return;
    client *c = open_raw("/ws", NULL);
    CHECK_CODE(codes[0], RTPUSH_OK);
    CHECK(accepted && accepted == seen.last);
    CHECK_CODE(rtpush_info(hub, accepted, &info), RTPUSH_OK);
    CHECK_INT(info.topics, 0);
    CHECK_INT(info.transport, RTPUSH_WEBSOCKET);
    snprintf(seen.topic, sizeof seen.topic, "unset");
    ws_text(c, "up");
    for (int i = 0; i < 20 && !seen.messages; i++) turns(1);
    CHECK_TEXT(seen.topic, "");
    CHECK_TEXT(seen.data, "up");
    CHECK_CODE(rtpush_send(hub, accepted, "down", 4, RTPUSH_AUTO), RTPUSH_OK);
    EXPECT_TEXT(c, "down");
    CHECK_CODE(rtpush_subscribe(hub, accepted, "late", NULL), RTPUSH_OK);
    publish_text("late", "by topic");
    EXPECT_TEXT(c, "by topic");
    ws_close(c, 4321);
    EXPECT_CLOSE(c, 4321);
    EXPECT_END(c);
    CHECK_INT(code_of(accepted), 4321);
    hang_up(c);
    CHECK_INT(request_once("GET", "/ws", NULL, NULL).status, 400);
    CHECK_CODE(codes[0], RTPUSH_E_TRANSPORT);
    CHECK(!accepted);
    c = dial();
    say(c, "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 12\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n");
    CHECK_INT(await_reply(c, false).status, 426);
    CHECK(codes[0] != RTPUSH_OK);
    hang_up(c);
    c = dial();
    CHECK_INT(ws_handshake(c, "/ws", NULL, "Origin: http://evil\r\n"), 403);
    CHECK_CODE(codes[0], RTPUSH_E_FORBIDDEN);
    hang_up(c);
    turns(2);
    CHECK_INT(seen.opens, 1);
    CHECK_INT(seen.closes, 1);
    finish();
}

// ============================================================================
// direct sends and slow readers
// ============================================================================

static void send_is_for_websockets_and_says_full(void) {
    static char data[32768];
    rtpush_desc d;
    rtpush_session_info info;
    memset(&d, 0, sizeof d);
    d.on_open = see_open;
    d.message_max = sizeof data;
    if (!start(&d)) return;
    client *raw = open_raw("/live/t", NULL), *env = open_envelope("/live/t", NULL), *sse = open_events("/live/t", NULL), *poll = open_poll("/live/t?wait=20", NULL);
    CHECK_CODE(rtpush_send(hub, seen.sessions[0], "t", 1, RTPUSH_TEXT), RTPUSH_OK);
    CHECK_CODE(rtpush_send(hub, seen.sessions[0], "b", 1, RTPUSH_BINARY), RTPUSH_OK);
    CHECK_CODE(rtpush_send(hub, seen.sessions[0], "\xff", 1, RTPUSH_AUTO), RTPUSH_OK);
    CHECK_CODE(rtpush_send(hub, seen.sessions[0], "\xff", 1, RTPUSH_TEXT), RTPUSH_E_UTF8);
    CHECK_CODE(rtpush_send(hub, seen.sessions[0], "", 0, RTPUSH_AUTO), RTPUSH_OK);
    CHECK_CODE(rtpush_send(hub, seen.sessions[0], "x", 1, 99), RTPUSH_E_ARGUMENT);
    static const int opcodes[] = {1, 2, 2, 1};
    for (size_t i = 0; i < 4; i++) CHECK_INT(ws_next(raw).opcode, opcodes[i]);
    ws_next(env);
    CHECK_CODE(rtpush_send(hub, seen.sessions[1], "{}", 2, RTPUSH_TEXT), RTPUSH_OK);
    EXPECT_TEXT(env, "{}");
    CHECK_CODE(rtpush_send(hub, seen.sessions[2], "x", 1, RTPUSH_TEXT), RTPUSH_E_TRANSPORT);
    CHECK_CODE(rtpush_send(hub, seen.sessions[3], "x", 1, RTPUSH_TEXT), RTPUSH_E_TRANSPORT);
    memset(data, 'd', sizeof data);
    CHECK_CODE(rtpush_send(hub, seen.sessions[0], data, sizeof data + 1, RTPUSH_BINARY), RTPUSH_E_TOO_BIG);
    int given = 0, code = RTPUSH_OK;
    for (; given < 200; given++) {
        if ((code = rtpush_send(hub, seen.sessions[0], data, sizeof data, RTPUSH_BINARY)) != RTPUSH_OK) break;
        turns(1);
    }
    CHECK_CODE(code, RTPUSH_E_FULL);
    CHECK(given >= 8 && given < 60);
    CHECK_CODE(rtpush_info(hub, seen.sessions[0], &info), RTPUSH_OK);
    CHECK(info.own_bytes >= 262144 - sizeof data && info.own_bytes <= 262144 + sizeof data + 14);
    for (int i = 0; i < given; i++) CHECK_INT(ws_next(raw).size, sizeof data);
    CHECK_CODE(rtpush_send(hub, seen.sessions[0], "after", 5, RTPUSH_TEXT), RTPUSH_OK);
    EXPECT_TEXT(raw, "after");
    hang_up(raw), hang_up(env), hang_up(sse), hang_up(poll);
    turns(3);
    finish();
}

static rtpush_session slow_one(int policy, client **c, const char *kind) {
    rtpush_desc d;
    rtpush_topic_desc t;
    static char data[2001];
    memset(&d, 0, sizeof d);
    memset(&t, 0, sizeof t);
    d.on_open = see_open;
    d.on_close = see_close;
    d.history = 20;
    d.history_bytes = 1000000;
    if (!start(&d)) return 0;
    t.slow = policy;
    rtpush_configure(hub, "t", &t);
    *c = !strcmp(kind, "raw") ? open_raw("/live/t", NULL) : !strcmp(kind, "env") ? open_envelope("/live/t", NULL) : open_events("/live/t", NULL);
    for (int i = 1; i <= 1000; i++) {
        memset(data, 'x', sizeof data - 1);
        snprintf(data, sizeof data, "<%d>", i);
        data[strlen(data)] = 'x';
        rtpush_publish(hub, "t", data, sizeof data - 1);
        if (i % 5 == 0) turns(1);
    }
    rtpush_session_info info;
    CHECK_CODE(rtpush_info(hub, seen.last, &info), RTPUSH_OK);
    CHECK(info.lag > 0);
    CHECK(info.own_bytes < 20000); // a slow reader is a cursor, not a queue
    return seen.last;
}

static void slow_reader_by_policy(void) {
    client *c = NULL;
    static const char *const kinds[] = {"raw", "env", "sse"};
    static const int policies[] = {RTPUSH_SLOW_CLOSE, RTPUSH_SLOW_SKIP, RTPUSH_SLOW_LATEST, RTPUSH_SLOW_DEFAULT};
    for (int k = 0; k < 3; k++) {
        for (int p = 0; p < 4; p++) {
            memset(&seen, 0, sizeof seen);
            snprintf(V->where, sizeof V->where, "%s, policy %d", kinds[k], policies[p]);
            rtpush_session s = slow_one(policies[p], &c, kinds[k]);
            bool closes = k == 0 || policies[p] == RTPUSH_SLOW_CLOSE || policies[p] == RTPUSH_SLOW_DEFAULT;
            uint64_t until_ms = real_ms() + PATIENCE_MS;
            while (!(closes ? seen.closes > 0 : rtpush_info(hub, s, &(rtpush_session_info){0}) == RTPUSH_OK && stats().pending == 0) && real_ms() < until_ms) turns(2), take_in(c, SIZE_MAX);
            turns(3), take_in(c, SIZE_MAX);
            c->in[c->size] = 0;
            for (size_t i = 0; i < c->size; i++)
                if (!c->in[i]) c->in[i] = '0'; // so that it can be searched
            if (closes) {
                CHECK_INT(code_of(s), 4100);
                CHECK_INT(stats().closed_slow, 1);
                CHECK(!strstr(c->in, "<1000>"));
            } else {
                CHECK_INT(seen.closes, 0);
                CHECK(stats().gaps >= 1);
                const char *gap = strstr(c->in, k == 1 ? "\"type\":\"gap\"" : "event: gap");
                CHECK(gap != NULL);
                bool latest = policies[p] == RTPUSH_SLOW_LATEST;
                if (gap) CHECK((strstr(gap, "<1000>") != NULL) == !latest);
                publish_text("t", "next one");
                EXPECT(c, "next one");
            }
            hang_up(c);
            turns(3);
            finish();
        }
    }
}

// ============================================================================
// anything inside any callback
// ============================================================================

enum place { ON_OPEN, ON_CLOSE, ON_MESSAGE, ON_PUBLISH, ON_REQUEST, ON_LOGIN, ON_ALLOW, ON_DONE, ON_TIMER, ON_POST, ON_EACH, ON_HISTORY, ON_PRESENCE, ON_LOG, PLACES };
enum act { DO_PUBLISH, DO_CLOSE, DO_CLOSE_ALL, DO_SUBSCRIBE, DO_UNSUBSCRIBE, DO_CONFIGURE, DO_CLEAR, DO_SEND, DO_TIMERS, DO_POST, DO_LISTEN, DO_DRAIN, DO_DESTROY, ACTS };
static const char *const place_names[] = {"on_open", "on_close", "on_message", "on_publish", "on_request", "on_login", "on_allow", "done", "a_timer", "a_posted_call", "each", "history", "presence", "on_log"};
static const char *const act_names[] = {"publishing", "closing", "closing_all", "subscribing", "unsubscribing", "configuring", "clearing", "sending", "timers", "posting", "listening", "draining", "destroying"};

static struct {
    enum place place;
    enum act act;
    int left, done;        // how often it is still to act, and how often it did
    bool is_acting, in_turn;
    rtpush_session latest; // the session at hand, or the last one heard of
    int published, ended;  // of publishes with a `done`
    bool refuses;          // on_publish refuses after it acted
} M;

static void m_done(rtpush_hub *h, uint64_t ticket, uint64_t seq, int code, void *user);

static bool close_each(rtpush_hub *h, rtpush_session s, void *user) {
    (void)user;
    rtpush_close(h, s, 4000, "all");
    return true;
}

static void nothing(rtpush_hub *h, void *arg) { (void)h, (void)arg; }

static void m_publish(rtpush_hub *h, const char *topic) {
    rtpush_publication p;
    memset(&p, 0, sizeof p);
    p.topic = topic;
    p.data = "inside";
    p.size = 6;
    p.done = m_done;
    if (rtpush_publish_ex(h, &p, NULL) == RTPUSH_OK) M.published++;
}

static void m_act(rtpush_hub *h, rtpush_session s) {
    rtpush_topic_desc t;
    memset(&t, 0, sizeof t);
    switch (M.act) {
    case DO_PUBLISH:
        for (int i = 0; i < 3; i++) m_publish(h, "room/1");
        m_publish(h, "new/topic");
        rtpush_publish_user(h, "ann", "x", 1);
        break;
    case DO_CLOSE: rtpush_close(h, s, 4000, "inside"); break;
    case DO_CLOSE_ALL:
        rtpush_each(h, close_each, NULL);
        rtpush_kick(h, "", 4001, NULL);
        break;
    case DO_SUBSCRIBE:
        rtpush_subscribe(h, s, "room/2", NULL);
        rtpush_subscribe(h, s, "room/*", "earliest");
        rtpush_subscribe(h, s, "room/1", "-1");
        rtpush_subscribe(h, s, "@presence/room/1", NULL);
        break;
    case DO_UNSUBSCRIBE:
        rtpush_unsubscribe(h, s, "room/1");
        rtpush_unsubscribe(h, s, "room/*");
        rtpush_subscribe(h, s, "room/1", NULL);
        rtpush_unsubscribe(h, s, "room/1");
        break;
    case DO_CONFIGURE:
        t.history = 1;
        t.presence = M.done % 2;
        rtpush_configure(h, "room/**", &t);
        rtpush_configure(h, "**", &t);
        break;
    case DO_CLEAR:
        rtpush_clear(h, "room/1");
        rtpush_clear(h, "@presence/room/1");
        break;
    case DO_SEND:
        for (int i = 0; i < 5; i++) rtpush_send(h, s, "sent inside", 11, RTPUSH_AUTO);
        rtpush_set_user(h, s, &M);
        break;
    case DO_TIMERS: {
        rtpush_timer first = rtpush_after(h, 0, nothing, NULL), second = rtpush_after(h, 1, nothing, NULL);
        rtpush_cancel(h, second);
        rtpush_cancel(h, first);
        rtpush_after(h, 2, nothing, NULL);
        break;
    }
    case DO_POST:
        rtpush_post(h, nothing, NULL);
        rtpush_publish_async(h, "room/1", "async", 5);
        rtpush_stop(h);
        break;
    case DO_LISTEN: rtpush_listen(h, "http://127.0.0.1:0", NULL); break;
    case DO_DRAIN: rtpush_drain(h, 100, 500); break;
    case DO_DESTROY:
        rtpush_destroy(h);
        is_destroyed = true;
        m_publish(h, "room/1"); // the hub lives until the callback has returned
        rtpush_destroy(h);
        break;
    case ACTS: break;
    }
}

static void m_at(rtpush_hub *h, enum place place, rtpush_session s) {
    if (s) M.latest = s;
    if (M.place != place || !M.left || M.is_acting) return;
    M.is_acting = true;
    M.left--;
    m_act(h, s ? s : M.latest);
    M.done++;
    M.is_acting = false;
}

static void m_open(rtpush_hub *h, rtpush_session s, void *user) { see_open(h, s, user), m_at(h, ON_OPEN, s); }
static void m_close(rtpush_hub *h, rtpush_session s, int code, void *user) { see_close(h, s, code, user), m_at(h, ON_CLOSE, s); }
static void m_message(rtpush_hub *h, rtpush_session s, const rtpush_message *m, void *user) {
    char before[8];
    (void)user;
    memcpy(before, m->data, RP_MIN(m->size, sizeof before));
    m_at(h, ON_MESSAGE, s);
    if (memcmp(before, m->data, RP_MIN(m->size, sizeof before)) || !m->topic || strlen(m->topic) > 255) wrong(__LINE__, "the message changed");
}
static int m_on_publish(rtpush_hub *h, rtpush_session s, rtpush_publication *what, void *user) {
    (void)user, (void)what;
    bool was_left = M.left > 0;
    m_at(h, ON_PUBLISH, s);
    return M.refuses && M.place == ON_PUBLISH && was_left ? RTPUSH_E_FORBIDDEN : RTPUSH_OK;
}
static bool m_request(rtpush_hub *h, rtpush_request *r, void *user) {
    (void)user;
    rtpush_session s = 0;
    if (rtpush_path(r).size == 3 && rtpush_accept_websocket(r, &s) == RTPUSH_OK) return m_at(h, ON_REQUEST, s), true; // /ws
    m_at(h, ON_REQUEST, 0);
    if (rtpush_path(r).size == 7) { // /stream
        stream = rtpush_reply_begin(r, 200, NULL);
        rtpush_stream_write(h, stream, "part", 4);
        return stream != 0;
    }
    int code = rtpush_reply(r, 200, NULL, "ok", 2);
    if (code && !is_destroyed) wrong(__LINE__, "rtpush_reply: %s", rtpush_strerror(code));
    return true;
}
static int m_login(rtpush_hub *h, rtpush_login *login, void *user) {
    (void)user;
    m_at(h, ON_LOGIN, 0);
    if (login->token.size == 4 && !memcmp(login->token.data, "none", 4)) return RTPUSH_E_UNAUTHORIZED;
    if (!login->request && !login->token.size) return RTPUSH_E_UNAUTHORIZED;
    if (login->request && rtpush_header(login->request, "X-Later").data && !login->token.size) return RTPUSH_E_UNAUTHORIZED;
    return RTPUSH_OK;
}
static bool m_allow(rtpush_hub *h, const char *identity, int verb, const char *topic, void *user) {
    (void)identity, (void)verb, (void)user;
    char before[16];
    snprintf(before, sizeof before, "%s", topic);
    m_at(h, ON_ALLOW, 0);
    if (strncmp(before, topic, 15)) wrong(__LINE__, "the topic's name changed");
    return true;
}
static void m_done(rtpush_hub *h, uint64_t ticket, uint64_t seq, int code, void *user) {
    (void)ticket, (void)seq, (void)code, (void)user;
    M.ended++;
    m_at(h, ON_DONE, 0);
}
static void m_timer(rtpush_hub *h, void *user) { (void)user, m_at(h, ON_TIMER, 0); }
static bool m_each(rtpush_hub *h, rtpush_session s, void *user) { return (void)user, m_at(h, ON_EACH, s), true; }
static bool m_history(const rtpush_message *m, void *user) {
    rtpush_hub *h = hub;
    char before[8];
    (void)user;
    memcpy(before, m->data, RP_MIN(m->size, sizeof before));
    m_at(h, ON_HISTORY, 0);
    if (memcmp(before, m->data, RP_MIN(m->size, sizeof before)) || strcmp(m->topic, "room/1")) wrong(__LINE__, "the message changed");
    return !is_destroyed;
}
static bool m_presence(const char *name, void *user) {
    (void)user;
    size_t size = strlen(name);
    m_at(hub, ON_PRESENCE, 0);
    if (strlen(name) != size) wrong(__LINE__, "the member's name changed");
    return !is_destroyed;
}
static void m_log(rtpush_hub *h, const char *line, void *user) { see_log(h, line, user), m_at(h, ON_LOG, 0); }

// What a host calls by itself, whose callbacks may act.
static void m_walks(rtpush_hub *h, void *arg) {
    (void)arg;
    m_at(h, ON_POST, 0);
    if (!is_destroyed) m_publish(h, "room/1");
    if (!is_destroyed) rtpush_each(h, m_each, NULL);
    if (!is_destroyed) rtpush_history(h, "room/1", 0, m_history, NULL);
    if (!is_destroyed) rtpush_presence(h, "room/1", m_presence, NULL);
}

// Outside of a turn: a destroy inside is done when the function that called the callback returns.
static void m_outside(void) {
    static const int count = 4;
    for (int i = 0; i < count && hub; i++) {
        if (i == 0) m_publish(hub, "room/1");
        if (i == 1) rtpush_each(hub, m_each, NULL);
        if (i == 2) rtpush_history(hub, "room/1", 0, m_history, NULL);
        if (i == 3) rtpush_presence(hub, "room/1", m_presence, NULL);
        if (is_destroyed) hub = NULL;
    }
}

// Is what a WebSocket client got a head and then frames, and nothing behind a close?
static void check_frames(client *c) {
    rtpush_frame f;
    bool is_closed = false;
    const char *end = strstr(c->in, "\r\n\r\n");
    if (strncmp(c->in, "HTTP/1.1 101", 12) || !end) return;
    for (size_t at = (size_t)(end + 4 - c->in); at < c->size;) {
        ptrdiff_t n = rtpush_parse_frame(&f, (const unsigned char *)c->in + at, c->size - at);
        if (is_closed) wrong(__LINE__, "something after the close frame (RFC 6455 5.5.1): %.60s", c->in + at + 2);
        if (n <= 0 || f.is_masked || f.length > c->size - at - (size_t)n) {
            if (!c->has_ended && !is_destroyed) wrong(__LINE__, "a broken frame at %zu of %zu", at, c->size);
            return;
        }
        is_closed = f.opcode == 8;
        at += (size_t)n + (size_t)f.length;
    }
}

enum { KINDS = 8 };
static const char *const kind_names[] = {"raw", "envelope", "sse", "long poll", "short poll", "post", "accepted", "late login"};

static client *m_client(int kind, const char *session) {
    static const char upgrade[] = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    client *c = dial();
    const char *tail = kind == 0 || kind == 6 ? upgrade : kind == 2 ? "Accept: text/event-stream\r\n" : "";
    if (kind == 5) return say(c, "POST /live/room/1?session=%s HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody", session), c;
    if (kind == 6) say(c, "GET /ws HTTP/1.1\r\nHost: h\r\n%s\r\n", upgrade);
    else if (kind == 1 || kind == 7) say(c, "GET /live/room/1?session=%s HTTP/1.1\r\nHost: h\r\n%sSec-WebSocket-Protocol: rtpush.v1\r\n%s\r\n", session, upgrade, kind == 7 ? "X-Later: 1\r\n" : "");
    else say(c, "GET /live/room/1?session=%s%s HTTP/1.1\r\nHost: h\r\n%s\r\n", session, kind == 3 ? "&wait=20" : "", tail);
    return c;
}

static void m_farewell(client *c) {
    take_in(c, SIZE_MAX);
    check_frames(c);
    hang_up(c);
}

static void m_scene(int kind) {
    static const char *const sessions[] = {"aaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbbbb", "cccccccccccccccccc", "dddddddddddddddddd"};
    rtpush_desc d;
    rtpush_topic_desc t;
    client *by[4], *c, *c2;
    memset(&d, 0, sizeof d);
    memset(&t, 0, sizeof t);
    memset(&seen, 0, sizeof seen);
    d.on_open = m_open, d.on_close = m_close, d.on_message = m_message, d.on_publish = m_on_publish, d.on_request = m_request;
    d.on_login = m_login, d.on_allow = m_allow, d.on_log = m_log;
    d.linger_ms = 1000;
    d.topics_max = 50;
    is_destroyed = false;
    M.done = M.published = M.ended = 0;
    M.latest = 0;
    int left = M.left;
    M.left = M.place == ON_ALLOW || M.place == ON_LOGIN || M.place == ON_OPEN ? 0 : left; // first the bystanders
    if (!start(&d)) return;
    t.presence = true;
    rtpush_configure(hub, "room/**", &t);
    publish_text("room/1", "before");
    for (int i = 0; i < 4; i++) by[i] = m_client(i, sessions[i]);
    turns(3);
    M.left = left;
    c = m_client(kind, "eeeeeeeeeeeeeeeeee");
    turns(3);
    c2 = m_client(kind, "aaaaaaaaaaaaaaaaaa"); // a session that has another connection
    turns(2);
    if (hub) publish_text("room/1", "hello all");
    turns(2);
    if (kind == 0 || kind == 6) ws_text(c, "a raw frame"), ws_text(c2, "another");
    if (kind == 7) ws_text(c, "{\"type\":\"auth\",\"token\":\"t\",\"ref\":0}");
    if (kind == 1 || kind == 7) {
        ws_text(c, "{\"type\":\"publish\",\"topic\":\"room/1\",\"data\":[1],\"ref\":1}");
        ws_text(c, "{\"type\":\"subscribe\",\"topic\":\"room/*\",\"since\":\"earliest\",\"ref\":2}");
        ws_text(c, "{\"type\":\"auth\",\"token\":\"t\",\"ref\":3}");
        ws_text(c, "{\"type\":\"unsubscribe\",\"topic\":\"room/1\",\"ref\":4}");
    }
    if (kind == 4) say(c, "GET /live/room/1?session=%s HTTP/1.1\r\nHost: h\r\n\r\n", sessions[3]);
    if (kind >= 3 && kind <= 5) say(c, "GET /other HTTP/1.1\r\nHost: h\r\n\r\nGET /stream HTTP/1.1\r\nHost: h\r\n\r\n");
    turns(3);
    client *other = dial();
    say(other, "GET /other HTTP/1.1\r\nHost: h\r\n\r\n");
    turns(2);
    say(other, "GET /other HTTP/1.1\r\nHost: h\r\n\r\nGET /other HTTP/1.1\r\nHost: h\r\n\r\n");
    if (hub) rtpush_after(hub, 1, m_timer, NULL);
    skip(2);
    if (M.left > 1) m_outside();
    if (hub) rtpush_post(hub, m_walks, NULL);
    turns(2);
    m_outside();
    if (hub) rtpush_publish_async(hub, "room/1", "async", 5);
    if (hub && M.place == ON_LOG) { // a publish_async that fails is logged
        for (int i = 0; i < 60; i++) {
            char name[24];
            snprintf(name, sizeof name, "filler/%d", i);
            rtpush_subscribe(hub, seen.sessions[0], name, NULL);
            rtpush_publish_async(hub, name, "x", 1);
        }
    }
    turns(3);
    for (int i = 0; i < 4; i++) m_farewell(by[i]);
    turns(2);
    m_farewell(c), m_farewell(c2), m_farewell(other);
    if (hub) rtpush_stream_end(hub, stream);
    turns(3);
    for (int i = 0; i < 6; i++) skip(700);
    if (hub && M.act != DO_DRAIN && (M.act != DO_LISTEN)) CHECK_INT(stats().connections, 0);
    finish();
    CHECK_INT(M.ended, M.published);
    CHECK_INT(seen.closes, seen.opens);
    CHECK_INT(blocks, 0);
}

static void m_run(void) {
    for (int refuses = 0; refuses <= (M.place == ON_PUBLISH); refuses++) {
        int acted = 0;
        for (int left = 1; left <= 1000; left += 999) {
            for (int kind = 0; kind < KINDS; kind++) {
                snprintf(V->where, sizeof V->where, "%s in %s, %s, %s%s", act_names[M.act], place_names[M.place], kind_names[kind], left == 1 ? "once" : "always", refuses ? ", then refusing" : "");
                M.left = left;
                M.refuses = refuses;
                m_scene(kind);
                acted += M.done;
            }
        }
        if (!acted && M.place != ON_LOG) wrong(__LINE__, "it never acted");
    }
}

// ============================================================================
// the client is killed at any byte
// ============================================================================

static char script[4096];
static size_t script_size;

static void script_text(const char *text) {
    size_t n = strlen(text);
    memcpy(script + script_size, text, n);
    script_size += n;
}

static void script_frame(int opcode, bool is_final, const char *data, size_t size) {
    unsigned char key[4] = {9, 8, 7, 6};
    script[script_size++] = (char)((is_final ? 0x80 : 0) | opcode);
    script[script_size++] = (char)(0x80 | size);
    memcpy(script + script_size, key, 4);
    script_size += 4;
    memcpy(script + script_size, data, size);
    rtpush_mask((unsigned char *)script + script_size, size, key, 0);
    script_size += size;
}

enum { BY_CLOSE, BY_RESET, BY_CLOSE_AT_ONCE, BY_RESET_AT_ONCE, WAYS };
static const char *const ways[] = {"close", "RST", "close at once", "RST at once"};

static void kill_at_every_byte(const char *name) {
    rtpush_desc d;
    rtpush_topic_desc t;
    int port = 0;
    memset(&d, 0, sizeof d);
    memset(&t, 0, sizeof t);
    d.on_open = see_open;
    d.on_close = see_close;
    d.on_request = test_request;
    d.linger_ms = -1;
    if (!start(&d)) return;
    t.presence = true;
    rtpush_configure(hub, "a", &t);
    rtpush_listen(hub, "http://127.0.0.1:0", &port);
    turns(1);
    long base = 0;
    for (int way = 0; way < WAYS; way++) {
        for (size_t cut = 0; cut <= script_size; cut++) {
            memset(&seen, 0, sizeof seen);
            int opens = seen.opens, closes = seen.closes;
            snprintf(V->where, sizeof V->where, "%s cut at %zu by %s", name, cut, ways[way]);
            client *c = dial_tcp(port);
            put(c, script, cut);
            if (way == BY_CLOSE || way == BY_RESET) {
                turns(2);
                publish_text("a", "ends a poll");
                turns(2);
                take_in(c, SIZE_MAX);
                rtpush_publish(hub, "a", "\1", 1);
                turns(1);
            }
            if (way == BY_RESET || way == BY_RESET_AT_ONCE) reset(c);
            else hang_up(c);
            for (int i = 0; i < 20 && (i < 2 || stats().connections); i++) turns(1);
            if (stats().connections) skip(1100);  // what is read past
            if (stats().connections) skip(20000); // a parked poll behind which bytes wait
            for (int i = 0; i < 20 && stats().connections; i++) turns(1);
            CHECK_INT(stats().connections, 0);
            CHECK_INT(stats().sessions, 0);
            CHECK_INT(stats().subscriptions, 0);
            CHECK_INT(stats().pending, 0);
            CHECK_INT(seen.opens - opens, seen.closes - closes);
            if (*V->why) break;
        }
        skip(4000000); // the history is gone, too
        rtpush_clear(hub, "a");
        rtpush_clear(hub, "@presence/a");
        skip(1000);
        if (way == 1) base = blocks;
        if (way == 3 && blocks > base + 8) wrong(__LINE__, "%ld allocations more than before", blocks - base);
        if (*V->why) break;
    }
    finish();
}

static void a_client_killed_at_any_byte__http_poll_websocket(void) {
    script_size = 0;
    script_text("GET /echo?q=1 HTTP/1.1\r\nHost: h\r\n\r\n");
    script_text("POST /live/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nIdempotency-Key: k\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: 1\r\n\r\n");
    script_text("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n12345");
    script_text("GET /live/a?wait=20&session=abcdefghijklmnopq HTTP/1.1\r\nHost: h\r\n\r\n");
    script_text("GET /stream HTTP/1.1\r\nHost: h\r\n\r\n");
    script_text("GET /live/a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n");
    script_frame(1, false, "a fragmented ", 13);
    script_frame(9, true, "ping", 4);
    script_frame(0, false, "mess", 4);
    script_frame(0, true, "age", 3);
    script_frame(2, true, "\1\2\3", 3);
    script_frame(8, true, "\x03\xe8" "bye", 5);
    kill_at_every_byte("http");
}

static void a_client_killed_at_any_byte__sse(void) {
    script_size = 0;
    script_text("GET /live?topic=a&topic=b/*&since=earliest HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\nOrigin: http://h\r\n\r\nmore");
    kill_at_every_byte("sse");
}

static void a_client_killed_at_any_byte__envelope(void) {
    script_size = 0;
    script_text("GET /live/@presence/a?session=abcdefghijklmnopq HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: rtpush.v1\r\n\r\n");
    script_frame(1, true, "{\"type\":\"subscribe\",\"topic\":\"a\",\"since\":\"earliest\",\"ref\":1}", 60);
    script_frame(1, false, "{\"type\":\"publish\",\"topic\":\"a\",", 30);
    script_frame(0, true, "\"data\":{\"x\":1},\"key\":\"k\",\"ref\":2}", 33);
    script_frame(1, true, "{\"type\":\"unsubscribe\",\"topic\":\"a\"}", 34);
    script_frame(8, true, "", 0);
    kill_at_every_byte("envelope");
}

// ============================================================================
// limits: at the bound, and over it
// ============================================================================

static char padding[40000];

// A GET with a request line of `line` bytes and a head of `size` bytes (CR LF counted; 0: as it comes) and `count` headers.
static int head_status(size_t line, size_t size, int count) {
    client *c = dial();
    size_t n = 0;
    n += (size_t)snprintf(padding, sizeof padding, "GET /healthz");
    if (line) {
        padding[n++] = '?';
        while (n < line - 11) padding[n++] = 'q';
    }
    n += (size_t)snprintf(padding + n, sizeof padding - n, " HTTP/1.1\r\nHost: h\r\n");
    for (int i = 1; i < count; i++) n += (size_t)snprintf(padding + n, sizeof padding - n, "X-%d: y\r\n", i);
    if (size) {
        n += (size_t)snprintf(padding + n, sizeof padding - n, "X-Pad: ");
        while (n < size - 4) padding[n++] = 'p';
        n += (size_t)snprintf(padding + n, sizeof padding - n, "\r\n");
    }
    n += (size_t)snprintf(padding + n, sizeof padding - n, "\r\n");
    put(c, padding, n);
    int status = await_reply(c, false).status;
    hang_up(c);
    turns(2);
    return status;
}

static void the_limits_of_a_head(void) {
    rtpush_desc d;
    for (int small = 0; small < 2; small++) {
        memset(&d, 0, sizeof d);
        snprintf(V->where, sizeof V->where, "%s limits", small ? "small" : "default");
        if (small) d.line_max = 200, d.head_max = 1000, d.headers_max = 5;
        size_t line = small ? 200 : 8192, size = small ? 1000 : 16384;
        int count = small ? 5 : 64;
        if (!start(&d)) return;
        CHECK_INT(head_status(line - 2, 0, 1), 200);
        CHECK_INT(head_status(line + 3, 0, 1), 414);
        CHECK_INT(head_status(0, size, 1), 200);
        CHECK_INT(head_status(0, size + 1, 1), 431);
        CHECK_INT(head_status(0, 0, count), 200);
        CHECK_INT(head_status(0, 0, count + 1), 431);
        CHECK_INT(stats().requests_bad, 3);
        finish();
    }
}

static int body_status(size_t size, bool chunked) {
    client *c = dial();
    static char body[2000000];
    memset(body, 'b', size);
    if (chunked) say(c, "POST /live/t HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n%zx\r\n", size);
    else say(c, "POST /live/t HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n", size);
    put(c, body, size);
    if (chunked) say(c, "\r\n0\r\n\r\n");
    int status = await_reply(c, false).status;
    hang_up(c);
    turns(2);
    return status;
}

static void the_limits_of_a_body_and_of_a_message(void) {
    rtpush_desc d;
    for (int small = 0; small < 2; small++) {
        memset(&d, 0, sizeof d);
        snprintf(V->where, sizeof V->where, "%s limits", small ? "small" : "default");
        if (small) d.body_max = d.message_max = 1000;
        size_t max = small ? 1000 : 1048576;
        if (!start(&d)) return;
        for (int chunked = 0; chunked < 2; chunked++) {
            CHECK_INT(body_status(max, chunked), 202);
            CHECK_INT(body_status(max + 1, chunked), 413);
        }
        static char data[1048577];
        memset(data, 'm', sizeof data);
        client *c = open_raw("/live/t", NULL);
        ws_send(c, 2, true, data, max);
        frame f = ws_next(c);
        CHECK_INT(f.size, max);
        ws_send(c, 2, true, data, max + 1);
        EXPECT_CLOSE(c, 1009);
        hang_up(c);
        c = open_raw("/live/t", NULL);
        ws_send(c, 2, false, data, max);
        ws_send(c, 0, true, "x", 1); // one too many over all fragments
        EXPECT_CLOSE(c, 1009);
        hang_up(c);
        turns(2);
        finish();
    }
    memset(&d, 0, sizeof d);
    *V->where = 0;
    d.message_max = 10; // below body_max: the publish is refused
    if (!start(&d)) return;
    CHECK_INT(body_status(10, false), 202);
    CHECK_INT(body_status(11, false), 413);
    finish();
}

static void fragments_max_and_pings_max_are_1008(void) {
    rtpush_desc d;
    memset(&d, 0, sizeof d);
    d.fragments_max = 5;
    d.pings_max = 3;
    if (!start(&d)) return;
    client *c = open_raw("/live/t", NULL);
    for (int n = 5; n <= 6; n++) {
        for (int i = 1; i < n; i++) ws_send(c, i == 1, false, "f", 1);
        if (n == 5) ws_send(c, 0, true, "!", 1);
        if (n == 5) EXPECT_TEXT(c, "ffff!");
    }
    ws_send(c, 0, false, "", 0);
    EXPECT_CLOSE(c, 1008);
    hang_up(c);
    c = open_raw("/live/t", NULL);
    skip(1000 - clock_now(NULL) % 1000); // a second begins
    for (int i = 0; i < 3; i++) ws_send(c, 9, true, "p", 1);
    for (int i = 0; i < 3; i++) CHECK_INT(ws_next(c).opcode, 10);
    skip(1000);
    for (int i = 0; i < 3; i++) ws_send(c, 9, true, "p", 1);
    for (int i = 0; i < 3; i++) CHECK_INT(ws_next(c).opcode, 10);
    for (int i = 0; i < 4; i++) ws_send(c, 9, true, "p", 1);
    EXPECT_CLOSE(c, 1008);
    hang_up(c);
    turns(2);
    finish();
}

static void slow_heads_bodies_and_idle_connections_by_the_clock(void) {
    rtpush_desc d;
    memset(&d, 0, sizeof d);
    if (!start(&d)) return;
    client *none = dial(), *part = dial(), *kept = dial(), *body = dial(), *trickle = dial();
    say(part, "GET /healthz HT");
    say(body, "POST /live/t HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n");
    say(trickle, "POST /live/t HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n");
    CHECK_INT(request(kept, "GET", "/healthz", NULL, NULL).status, 200);
    for (int i = 0; i < 6; i++) put(body, padding, 4000), skip(1000); // fast enough
    CHECK(!body->has_ended);
    EXPECT(trickle, "HTTP/1.1 408"); // less than 1 KiB/s after 5 s
    skip(3800);
    say(part, "TP/1.1\r\nHost:"); // bytes do not move its deadline
    turns(2);
    take_in(part, SIZE_MAX);
    CHECK(!part->size && !part->has_ended);
    skip(400);
    EXPECT(part, "HTTP/1.1 408"); // header_timeout_ms from its beginning
    EXPECT_END(part);
    EXPECT_END(none);
    for (int i = 0; i < 18; i++) put(body, padding, 2000), skip(1000);
    turns(2), take_in(kept, SIZE_MAX);
    CHECK(!kept->has_ended); // since 28 s
    skip(2500);
    EXPECT_END(kept); // idle_timeout_ms
    EXPECT(body, "HTTP/1.1 408"); // body_timeout_ms
    hang_up(none), hang_up(part), hang_up(kept), hang_up(body), hang_up(trickle);
    turns(3);
    skip(2000);
    CHECK_INT(stats().connections, 0);
    finish();
}

static void websocket_deadlines_by_the_clock(void) {
    rtpush_desc d;
    memset(&d, 0, sizeof d);
    d.on_open = see_open;
    d.on_close = see_close;
    if (!start(&d)) return;
    client *c = open_raw("/live/t", NULL), *e = open_envelope("/live/t", NULL), *dead = open_raw("/live/t", NULL);
    rtpush_session dead_one = seen.last;
    EXPECT_TEXT(e, "\"heartbeat\":20000");
    skip(19000);
    turns(2), take_in(c, SIZE_MAX);
    CHECK_INT(c->size, 0);
    skip(1100);
    CHECK_INT(ws_next(c).opcode, 9);
    ws_send(c, 10, true, "", 0);
    EXPECT_TEXT(e, "{\"type\":\"heartbeat\",\"cursor\":");
    CHECK_INT(ws_next(e).opcode, 9);
    ws_send(e, 1, true, "{}", 2); // any byte counts as life
    turns(2);
    skip(9000);
    CHECK_INT(code_of(dead_one), -1);
    skip(1100); // dead_ms
    CHECK_INT(stats().closed_dead, 1);
    EXPECT_END(dead);
    CHECK(!c->has_ended && !e->has_ended);
    ws_send(c, 1, false, "never", 5);
    turns(2);
    for (int i = 0; i < 29; i++) {
        skip(1000);
        turns(1), take_in(c, SIZE_MAX);
        ws_send(c, 10, true, "", 0);
        ws_send(e, 10, true, "", 0);
        turns(2);
    }
    CHECK(!c->has_ended);
    skip(1100); // frame_timeout_ms
    EXPECT_CLOSE(c, 1008);
    rtpush_close(hub, seen.sessions[1], 4000, "bye"); // the peer does not answer
    EXPECT_CLOSE(e, 4000);
    skip(4000);
    CHECK(!e->has_ended);
    skip(1100); // close_timeout_ms
    EXPECT_END(e);
    hang_up(c), hang_up(e), hang_up(dead);
    turns(3);
    skip(2000);
    CHECK_INT(stats().connections, 0);
    finish();
}

static void a_reader_that_takes_nothing_is_closed_after_stall_ms(void) {
    rtpush_desc d;
    static char data[100000];
    memset(&d, 0, sizeof d);
    d.on_open = see_open;
    d.on_close = see_close;
    d.heartbeat_ms = d.sse_heartbeat_ms = -1;
    if (!start(&d)) return;
    client *raw = open_raw("/live/t", NULL), *sse = open_events("/live/t", NULL);
    memset(data, 'd', sizeof data);
    for (int i = 0; i < 10; i++) rtpush_publish(hub, "t", data, sizeof data);
    turns(3);
    skip(29000);
    CHECK_INT(seen.closes, 0);
    take_in(raw, 300000); // one that moves lives on
    turns(3);
    skip(2000);
    CHECK_INT(seen.closes, 1);
    CHECK(code_of(seen.sessions[1]) != -1);
    skip(28500);
    CHECK_INT(seen.closes, 2);
    hang_up(raw), hang_up(sse);
    turns(3);
    skip(2000);
    CHECK_INT(stats().connections, 0);
    finish();
}

static void event_streams_and_polls_by_the_clock(void) {
    rtpush_desc d;
    memset(&d, 0, sizeof d);
    if (!start(&d)) return;
    client *e = open_events("/live/t", NULL);
    int retry = atoi(strstr(e->in, "retry: ") + 7);
    CHECK(retry >= 3000 && retry <= 3600);
    drop(e, e->size);
    publish_text("other", "x");
    skip(14000);
    turns(1), take_in(e, SIZE_MAX);
    CHECK_INT(e->size, 0);
    skip(1100);
    EXPECT(e, "\n\n");
    CHECK_HAS(e->in, ":");
    CHECK_HAS(e->in, "-1\n"); // the head, though its topic is quiet
    static const struct { const char *target, *headers; int min, max; } polls[] = {
        {"/live/t?wait=10", "", 9000, 10000}, {"/live/t?wait=1000", "", 49500, 55000}, {"/live/t", "Prefer: wait\r\n", 22500, 25000}, {"/live/t", "Prefer: wait=5\r\n", 4500, 5000}};
    for (size_t i = 0; i < RP_COUNT(polls); i++) {
        snprintf(V->where, sizeof V->where, "%s %s", polls[i].target, polls[i].headers);
        client *p = open_poll(polls[i].target, polls[i].headers);
        skip((uint64_t)polls[i].min - 100);
        turns(1), take_in(p, SIZE_MAX);
        CHECK_INT(p->size, 0);
        skip((uint64_t)(polls[i].max - polls[i].min) + 200);
        CHECK_INT(await_reply(p, false).status, 200);
        CHECK_HAS(body_text, "\"messages\":[]");
        hang_up(p);
    }
    hang_up(e);
    turns(3);
    finish();
}

static void connections_max_is_503_and_per_address_429(void) {
    rtpush_desc d;
    int port = 0;
    char value[16];
    for (int per_ip = 0; per_ip < 2; per_ip++) {
        client *c[3], *over;
        memset(&d, 0, sizeof d);
        if (per_ip) d.connections_per_ip_max = 3;
        else d.connections_max = 3;
        if (!start(&d)) return;
        rtpush_listen(hub, "http://127.0.0.1:0", &port);
        for (int i = 0; i < 3; i++) {
            c[i] = dial_tcp(port);
            CHECK_INT(request(c[i], "GET", "/healthz", NULL, NULL).status, 200);
        }
        over = dial_tcp(port);
        reply r = await_reply(over, false);
        CHECK_INT(r.status, per_ip ? 429 : 503);
        CHECK(header_of(&r, "Retry-After", value, sizeof value) != NULL);
        EXPECT_END(over);
        CHECK_INT(stats().refused, 1);
        hang_up(over);
        hang_up(c[0]);
        for (int i = 0; i < 20 && stats().connections > 2; i++) turn(1);
        skip(2000);
        c[0] = dial_tcp(port);
        CHECK_INT(request(c[0], "GET", "/healthz", NULL, NULL).status, 200);
        for (int i = 0; i < 3; i++) hang_up(c[i]);
        turns(3);
        finish();
    }
}

static bool see_member(const char *name, void *user) {
    strncat((char *)user, name, 20);
    strncat((char *)user, " ", 2);
    return strchr(name, '!') == NULL;
}

static int login_any(rtpush_hub *h, rtpush_login *login, void *user) {
    (void)h, (void)user;
    snprintf(login->identity, sizeof login->identity, "%.*s", (int)login->token.size, login->token.data ? login->token.data : "");
    return RTPUSH_OK;
}

static void presence_of_a_topic(void) {
    rtpush_desc d;
    rtpush_topic_desc t;
    char members[200] = "", target[64];
    memset(&d, 0, sizeof d);
    memset(&t, 0, sizeof t);
    d.on_login = login_any;
    d.presence_list_max = 3;
    d.linger_ms = 5000;
    if (!start(&d)) return;
    t.presence = true;
    rtpush_configure(hub, "room", &t);
    CHECK_INT(rtpush_presence(hub, "room", see_member, members), 0);
    client *w = open_envelope("/live/@presence/room?token=watcher", NULL);
    EXPECT_TEXT(w, "{\"here\":[],\"count\":0}");
    client *a = open_raw("/live/room?token=ann", NULL), *a2 = open_events("/live/room?token=ann", NULL), *b = open_poll("/live/room?wait=50&token=bob&" SESSION, NULL);
    client *wild = open_raw("/live/*?token=wild", NULL); // by a pattern: not present
    CHECK_INT(rtpush_presence(hub, "room", NULL, NULL), 2);
    CHECK_INT(rtpush_presence(hub, "room", see_member, members), 2);
    CHECK(strstr(members, "ann ") && strstr(members, "bob ") && strlen(members) == 8);
    skip(260); // presence_ms: all in one message
    EXPECT_TEXT(w, "\"count\":2}");
    hang_up(a);
    turns(2);
    skip(300);
    CHECK_INT(rtpush_presence(hub, "room", NULL, NULL), 2); // ann is there by another
    hang_up(a2);
    turns(2);
    skip(300);
    EXPECT_TEXT(w, "{\"join\":[],\"leave\":[\"ann\"],\"count\":1}");
    hang_up(b);
    turns(2);
    skip(4500);
    CHECK_INT(rtpush_presence(hub, "room", NULL, NULL), 1); // bob's session lingers
    skip(1000);
    EXPECT_TEXT(w, "{\"join\":[],\"leave\":[\"bob\"],\"count\":0}");
    client *many[4];
    for (int i = 0; i < 4; i++) {
        snprintf(target, sizeof target, "/live/room?token=u%d", i);
        many[i] = open_raw(target, NULL);
        if (i == 2) skip(300);
        if (i == 2) EXPECT_TEXT(w, "\"leave\":[],\"count\":3}"); // at presence_list_max
    }
    skip(300);
    EXPECT_TEXT(w, "\"data\":{\"count\":4}"); // over it
    request_once("GET", "/live/@presence/room?token=x", NULL, NULL);
    CHECK_HAS(body_text, "\"data\":{\"count\":4}");
    for (int i = 0; i < 4; i++) hang_up(many[i]);
    hang_up(w), hang_up(wild);
    turns(3);
    finish();
}

static void drain_tells_each_and_ends(void) {
    rtpush_desc d;
    int port = 0;
    memset(&d, 0, sizeof d);
    d.on_open = see_open;
    d.on_close = see_close;
    d.on_request = test_request;
    if (!start(&d)) return;
    rtpush_listen(hub, "http://127.0.0.1:0", &port);
    client *env = open_envelope("/live/t", NULL), *raw = open_raw("/live/t", NULL), *sse = open_events("/live/t", NULL), *poll = open_poll("/live/t?wait=20", NULL);
    client *kept = dial(), *slow = dial();
    request(kept, "GET", "/healthz", NULL, NULL);
    say(slow, "GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
    turns(2);
    CHECK(!rtpush_is_draining(hub));
    CHECK_CODE(rtpush_drain(hub, 1000, 5000), RTPUSH_OK);
    CHECK(rtpush_is_draining(hub));
    CHECK_CODE(rtpush_drain(hub, 1000, 5000), RTPUSH_E_STATE);
    CHECK_CODE(rtpush_listen(hub, "http://127.0.0.1:0", NULL), RTPUSH_E_STATE);
    struct sockaddr_in to;
    memset(&to, 0, sizeof to);
    to.sin_family = AF_INET, to.sin_port = htons((uint16_t)port), to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(fd, (struct sockaddr *)&to, sizeof to) != 0); // the listener is closed
    close(fd);
    reply r = await_reply(poll, false);
    CHECK_INT(r.status, 200);
    CHECK_HAS(body_text, "\"reconnect\":");
    CHECK_HAS(r.head, "Connection: close");
    EXPECT_END(kept);
    skip(1100);
    EXPECT_TEXT(env, "{\"type\":\"reconnect\",\"after\":");
    frame f = ws_until_close(env);
    CHECK_INT(f.code, 1012);
    CHECK(!strncmp(f.data, "retry=", 6));
    EXPECT_CLOSE(raw, 1012);
    EXPECT_END(sse);
    CHECK(strstr(strstr(sse->in, "retry: ") + 1, "retry: ") != NULL);
    ws_close(env, 1012), ws_close(raw, 1012);
    turns(3);
    hang_up(env), hang_up(raw), hang_up(sse), hang_up(poll), hang_up(kept);
    CHECK_CODE(rtpush_stream_write(hub, stream, "still", 5), RTPUSH_OK); // what is under way may end
    EXPECT(slow, "still");
    CHECK_INT(seen.closes, 4);
    CHECK_CODE(turn(0), RTPUSH_OK);
    skip(5000); // deadline_ms
    for (int i = 0; i < 10 && turn(1) == RTPUSH_OK; i++) {}
    CHECK_CODE(rtpush_step(hub, 0), RTPUSH_E_STATE);
    EXPECT_END(slow);
    hang_up(slow);
    finish();
}

static bool drain_and_reply(rtpush_hub *h, rtpush_request *r, void *user) {
    (void)user;
    CHECK_CODE(rtpush_drain(h, 10, 1000), RTPUSH_OK);
    CHECK_CODE(rtpush_reply(r, 200, NULL, "bye", 3), RTPUSH_OK);
    return true;
}

static void a_request_under_way_is_answered_through_a_drain(void) {
    rtpush_desc d;
    memset(&d, 0, sizeof d);
    d.on_request = drain_and_reply;
    if (!start(&d)) return;
    client *c = dial();
    CHECK_INT(request(c, "GET", "/healthz", NULL, NULL).status, 200);
    reply r = request(c, "GET", "/drain", NULL, NULL); // not its first: the connection was idle a moment ago
    CHECK_INT(r.status, 200);
    CHECK_HAS(r.head, "Connection: close");
    EXPECT_END(c);
    hang_up(c);
    finish();
}

static void a_parked_poll_with_bytes_behind_it_sees_its_client_go(void) {
    rtpush_desc d;
    memset(&d, 0, sizeof d);
    if (!start(&d)) return;
    client *c = dial();
    say(c, "GET /live/t?wait=50 HTTP/1.1\r\nHost: h\r\n\r\nG");
    turns(3);
    CHECK_INT(stats().parked_polls, 1);
    hang_up(c);
    turns(5);
    CHECK_INT(stats().connections, 0); // and not only when the 50 s are over
    finish();
}

static void the_librarys_own_pages_can_be_switched_off(void) {
    rtpush_desc d;
    for (int off = 0; off < 2; off++) {
        memset(&d, 0, sizeof d);
        d.expose_off = d.script_off = off;
        if (!start(&d)) return;
        CHECK_INT(request_once("GET", "/rtpush.js", NULL, NULL).status, off ? 404 : 200);
        CHECK_INT(request_once("GET", "/healthz", NULL, NULL).status, off ? 404 : 200);
        CHECK_INT(request_once("GET", "/metrics", NULL, NULL).status, off ? 404 : 200);
        if (!off) CHECK_HAS(body_text, "\nrtpush_delivered");
        CHECK_INT(request_once("GET", "/stats", NULL, NULL).status, off ? 404 : 200);
        if (!off) CHECK(rtpush_is_json(body_text, strlen(body_text)));
        finish();
    }
}

int main(int argc, char **argv) {
    int status = begin(argc, argv);
    if (status) return status;
#define RUN(test) run(#test, test)
    RUN(strerror_has_a_text_for_every_code);
    RUN(create_says_what_is_wrong);
    RUN(create_without_random_bytes_or_a_back_end_is_e_system);
    RUN(create_survives_every_allocation_that_fails);
    RUN(desc_is_not_kept);
    RUN(every_back_end_serves_and_a_descriptor_tells_when);
    RUN(listen_takes_tcp_ipv6_and_unix_and_names_its_errors);
    RUN(adopt_listener_takes_the_hosts_own);
    RUN(run_ends_by_stop_and_by_a_drain);
    RUN(a_host_loop_by_fd_and_timeout);
    RUN(step_inside_a_callback_is_e_state);
    RUN(timers_fire_once_in_order_and_can_be_cancelled);
    RUN(posted_calls_run_in_order_in_the_next_turn);
    RUN(publish_says_what_is_wrong);
    RUN(done_comes_inside_publish_ex_with_the_local_log);
    RUN(a_key_is_the_same_message_within_two_minutes);
    RUN(history_is_oldest_first_until_told_to_stop);
    RUN(a_message_lives_until_the_callback_returns);
    RUN(publishing_inside_history_is_not_seen);
    RUN(retention_by_count_bytes_age_and_over_all);
    RUN(topics_max_drops_the_oldest_without_readers_first);
    RUN(subscribers_and_the_limits_of_subscriptions);
    RUN(subscribe_since_replays_and_tells_of_a_gap);
    RUN(info_for_each_transport);
    RUN(stale_handles_are_harmless);
    RUN(close_by_code_and_reason);
    RUN(one_open_and_one_close_over_linger_and_transports);
    RUN(login_by_header_cookie_query_and_first_message);
    RUN(an_expired_login_of_a_parked_poll_is_the_reason_of_its_close);
    RUN(a_name_that_is_null_is_an_error);
    RUN(what_is_posted_in_a_destroy_is_refused);
    RUN(an_expired_login_ends_the_stream_and_auth_renews_it);
    RUN(permission_per_topic_pattern_and_verb);
    RUN(without_on_allow_publish_off_and_foreign_users_are_refused);
    RUN(a_users_queue_waits_while_the_user_is_away);
    RUN(kick_closes_all_of_an_identity);
    RUN(on_publish_allows_changes_and_refuses);
    RUN(on_message_gets_raw_frames_and_nothing_is_published);
    RUN(a_frames_topic_lives_until_on_message_returns);
    RUN(on_request_reads_everything_and_replies);
    RUN(a_stream_goes_on_after_on_request_and_says_full);
    RUN(reply_file_serves_regular_files_below_its_folder);
    RUN(a_big_file_goes_whole_to_a_slow_reader);
    RUN(accept_websocket_is_raw_without_topics);
    RUN(send_is_for_websockets_and_says_full);
    RUN(slow_reader_by_policy);
    RUN(the_limits_of_a_head);
    RUN(the_limits_of_a_body_and_of_a_message);
    RUN(fragments_max_and_pings_max_are_1008);
    RUN(slow_heads_bodies_and_idle_connections_by_the_clock);
    RUN(websocket_deadlines_by_the_clock);
    RUN(a_reader_that_takes_nothing_is_closed_after_stall_ms);
    RUN(event_streams_and_polls_by_the_clock);
    RUN(connections_max_is_503_and_per_address_429);
    RUN(presence_of_a_topic);
    RUN(drain_tells_each_and_ends);
    RUN(a_request_under_way_is_answered_through_a_drain);
    RUN(a_parked_poll_with_bytes_behind_it_sees_its_client_go);
    RUN(the_librarys_own_pages_can_be_switched_off);
    RUN(a_client_killed_at_any_byte__http_poll_websocket);
    RUN(a_client_killed_at_any_byte__sse);
    RUN(a_client_killed_at_any_byte__envelope);
    for (int place = 0; place < PLACES; place++) {
        for (int act = 0; act < ACTS; act++) {
            char name[64];
            snprintf(name, sizeof name, "%s_inside_%s", act_names[act], place_names[place]);
            M.place = (enum place)place;
            M.act = (enum act)act;
            run(name, m_run);
        }
    }
    return end();
}
