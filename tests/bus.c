// A bus that answers when the test says so: late, in another order, not at all. Whoever published gets the same
// answer as from the hub's own log, only later, or a 503.
//
//     cc -std=c99 -g -fsanitize=address,undefined tests/bus.c -o build/bus -pthread && build/bus
//     build/bus --only TEXT --no-fork      one test, for a debugger
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "client.h"

// ============================================================================
// the bus
// ============================================================================

enum { ITEMS = 512 };

typedef struct item {
    uint64_t ticket, seq;
    char topic[64], event[32], data[128], key[32], identity[32];
    size_t size;
    int kind;
    bool ephemeral, is_delivered, is_done;
} item;

static struct {
    item items[ITEMS];
    int count;
    uint64_t head;
    int opened, closed, refuse, open_code; // refuse: what append answers; open_code: what open does
    bool is_instant;                       // delivered and done inside append
    const char *epoch;
    uint64_t floor;
} B;

static int deliver(int i) {
    rtpush_message m;
    item *at = &B.items[i];
    memset(&m, 0, sizeof m);
    if (!at->seq) at->seq = ++B.head;
    m.topic = at->topic;
    m.event = at->event;
    m.data = at->data;
    m.size = at->size;
    m.kind = at->kind;
    m.ephemeral = at->ephemeral;
    m.seq = at->seq;
    int code = rtpush_bus_deliver(hub, &m);
    at->is_delivered = code == RTPUSH_OK;
    return code;
}

static void done(int i, int code) {
    if (i >= B.count) {
        wrong(__LINE__, "the bus has only %d items", B.count);
        return;
    }
    B.items[i].is_done = true;
    rtpush_bus_done(hub, B.items[i].ticket, code ? 0 : B.items[i].seq, code);
}

static void complete(int i) {
    if (i >= B.count) {
        wrong(__LINE__, "the bus has only %d items", B.count);
        return;
    }
    CHECK_CODE(deliver(i), RTPUSH_OK);
    done(i, RTPUSH_OK);
}

// Somebody else's message.
static int foreign(const char *topic, const char *text) {
    item *at = &B.items[B.count++];
    memset(at, 0, sizeof *at);
    snprintf(at->topic, sizeof at->topic, "%s", topic);
    snprintf(at->data, sizeof at->data, "%s", text);
    at->size = strlen(text);
    at->kind = RTPUSH_TEXT;
    at->is_done = true;
    return deliver(B.count - 1);
}

static int bus_open(void *user, rtpush_hub *h) {
    (void)user;
    B.opened++;
    if (B.open_code) return B.open_code;
    return B.epoch ? rtpush_bus_start(h, B.epoch, B.floor) : RTPUSH_OK;
}

static int bus_append(void *user, rtpush_hub *h, const rtpush_publication *what, uint64_t ticket) {
    (void)user, (void)h;
    if (B.refuse) return B.refuse;
    if (B.count == ITEMS || what->size >= sizeof B.items[0].data) return RTPUSH_E_UNAVAILABLE;
    item *at = &B.items[B.count++];
    memset(at, 0, sizeof *at);
    at->ticket = ticket;
    at->size = what->size;
    at->kind = what->kind;
    at->ephemeral = what->ephemeral;
    snprintf(at->topic, sizeof at->topic, "%s", what->topic);
    snprintf(at->event, sizeof at->event, "%s", what->event ? what->event : "");
    snprintf(at->key, sizeof at->key, "%s", what->key ? what->key : "");
    snprintf(at->identity, sizeof at->identity, "%s", what->identity ? what->identity : "");
    memcpy(at->data, what->data, what->size);
    if (what->kind == RTPUSH_AUTO) wrong(__LINE__, "append with RTPUSH_AUTO");
    if (B.is_instant) complete(B.count - 1);
    return RTPUSH_OK;
}

static void bus_close(void *user, rtpush_hub *h) {
    (void)user, (void)h;
    B.closed++;
}

static const rtpush_bus bus = {"test", bus_open, bus_append, NULL, bus_close, NULL};

static rtpush_desc with_bus(void) {
    rtpush_desc d;
    memset(&d, 0, sizeof d);
    d.bus = &bus;
    if (!B.epoch) B.epoch = "abcdefgh";
    B.head = B.floor;
    return d;
}

static bool start_with_bus(void) {
    rtpush_desc d = with_bus();
    return start(&d) != NULL;
}

static const char *cursor_of(uint64_t seq) {
    static char text[4][40];
    static int at;
    at = (at + 1) % 4;
    snprintf(text[at], sizeof text[at], "%s-%" PRIu64, B.epoch, seq);
    return text[at];
}

static client *post(const char *target, const char *headers, const char *body) {
    client *c = dial();
    say(c, "POST %s HTTP/1.1\r\nHost: h\r\n%sContent-Length: %zu\r\n\r\n%s", target, headers ? headers : "", strlen(body), body);
    turns(3);
    return c;
}

static void expect_quiet(int line, client *c) {
    turns(3);
    take_in(c, SIZE_MAX);
    if (c->size || c->has_ended) wrong(line, "there is an answer already: %.100s", c->in);
}
#define EXPECT_QUIET(c) expect_quiet(__LINE__, c)

static void expect_posted(int line, client *c, int status, const char *id) {
    char want[80];
    reply r = await_reply(c, false);
    snprintf(want, sizeof want, "{\"id\":\"%s\"", id);
    if (r.status != status || (id && !strstr(body_text, want))) wrong(line, "%d %.150s, not %d %s", r.status, body_text, status, want);
}
#define EXPECT_POSTED(c, status, seq) expect_posted(__LINE__, c, status, cursor_of(seq))

// ============================================================================
// epoch and floor
// ============================================================================

static void open_and_close_once_and_its_code_is_creates(void) {
    rtpush_desc d = with_bus();
    int code = 0;
    B.open_code = RTPUSH_E_UNAVAILABLE;
    d.alloc = counted;
    CHECK(rtpush_create_ex(&d, &code) == NULL);
    CHECK_CODE(code, RTPUSH_E_UNAVAILABLE);
    CHECK_INT(blocks, 0);
    CHECK_INT(B.opened, 1);
    B.open_code = B.opened = B.closed = 0;
    if (!start(&d)) return;
    CHECK_INT(B.opened, 1);
    CHECK_INT(B.closed, 0);
    finish();
    CHECK_INT(B.closed, 1);
}

static void start_sets_epoch_and_floor(void) {
    char text[32];
    static const char *const bad[] = {"", "short", "ABCDEFGH", "abcdefghi", "abcdefg-", "abcdefg\x80", "abc efgh"};
    B.floor = 41;
    if (!start_with_bus()) return;
    CHECK_TEXT(rtpush_cursor_text(hub, text), "abcdefgh-41");
    for (size_t i = 0; i < RP_COUNT(bad); i++) CHECK_CODE(rtpush_bus_start(hub, bad[i], 0), RTPUSH_E_ARGUMENT);
    CHECK_CODE(rtpush_bus_start(hub, NULL, 0), RTPUSH_E_ARGUMENT);
    CHECK_TEXT(rtpush_cursor_text(hub, text), "abcdefgh-41");
    foreign("t", "42");
    CHECK_TEXT(rtpush_cursor_text(hub, text), "abcdefgh-42");
    request_once("GET", "/live/t?since=abcdefgh-41", NULL, NULL); // nothing lost
    CHECK(!strstr(body_text, "gap"));
    CHECK_HAS(body_text, "\"42\"");
    request_once("GET", "/live/t?since=abcdefgh-40", NULL, NULL); // 41 is not known
    CHECK_HAS(body_text, "\"gap\":{\"from\":\"abcdefgh-40\",\"to\":\"abcdefgh-41\",\"reason\":\"evicted\"}");
    CHECK_HAS(body_text, "\"42\"");
    request_once("GET", "/live/other?since=abcdefgh-40", NULL, NULL);
    CHECK_HAS(body_text, "\"to\":\"abcdefgh-41\"");
    request_once("GET", "/live/t?since=zzzzzzzz-42", NULL, NULL);
    CHECK_HAS(body_text, "\"reason\":\"epoch\"");
    finish();
}

static void a_changed_epoch_tells_every_reader_of_a_gap(void) {
    char text[32];
    if (!start_with_bus()) return;
    foreign("t", "old life");
    turns(1);
    client *raw = open_raw("/live/t", NULL), *env = open_envelope("/live/t", NULL), *sse = open_events("/live/t", NULL), *poll = open_poll("/live/t?wait=20", NULL);
    CHECK_CODE(rtpush_bus_start(hub, "newepoch", 5), RTPUSH_OK);
    CHECK_TEXT(rtpush_cursor_text(hub, text), "newepoch-5");
    B.head = 5;
    CHECK_CODE(foreign("t", "new life"), RTPUSH_OK);
    for (int i = 0; i < 20; i++) turn(1), take_in(raw, SIZE_MAX), take_in(env, SIZE_MAX), take_in(sse, SIZE_MAX), take_in(poll, SIZE_MAX);
    // In band, or by a close after which it comes back and is told then.
    frame f = ws_next(env);
    while (f.opcode == 1 && !strstr(f.data, "\"reason\":\"epoch\"") && !strstr(f.data, "new life")) f = ws_next(env);
    CHECK(f.opcode == 8 || strstr(f.data, "\"reason\":\"epoch\""));
    CHECK(sse->has_ended || strstr(sse->in, "\"reason\":\"epoch\""));
    EXPECT_CLOSE(raw, 4100);
    await_reply(poll, false);
    CHECK_HAS(body_text, "\"reason\":\"epoch\"");
    hang_up(raw), hang_up(env), hang_up(sse), hang_up(poll);
    turns(3);
    request_once("GET", "/live/t?since=abcdefgh-1", NULL, NULL);
    CHECK_HAS(body_text, "\"reason\":\"epoch\"");
    CHECK(!strstr(body_text, "old life"));
    finish();
}

static void deliver_wants_growing_numbers_and_good_messages(void) {
    rtpush_message m;
    B.floor = 10;
    if (!start_with_bus()) return;
    memset(&m, 0, sizeof m);
    m.topic = "t";
    m.event = "";
    m.data = "x";
    m.size = 1;
    m.kind = RTPUSH_TEXT;
    m.seq = 10;
    CHECK_CODE(rtpush_bus_deliver(hub, &m), RTPUSH_E_ARGUMENT);
    m.seq = 0;
    CHECK_CODE(rtpush_bus_deliver(hub, &m), RTPUSH_E_ARGUMENT);
    m.seq = 15; // a hole is allowed: ephemeral messages of others, say
    CHECK_CODE(rtpush_bus_deliver(hub, &m), RTPUSH_OK);
    CHECK_CODE(rtpush_bus_deliver(hub, &m), RTPUSH_E_ARGUMENT);
    m.seq = 16;
    m.topic = "bad/*";
    CHECK_CODE(rtpush_bus_deliver(hub, &m), RTPUSH_E_TOPIC);
    m.topic = "t";
    m.data = "\xff";
    CHECK_CODE(rtpush_bus_deliver(hub, &m), RTPUSH_E_UTF8);
    m.data = "x";
    fail_after = 0;
    int code = rtpush_bus_deliver(hub, &m);
    fail_after = -1;
    if (code) {
        CHECK_CODE(code, RTPUSH_E_MEMORY);
        CHECK_CODE(rtpush_bus_deliver(hub, &m), RTPUSH_OK); // deliver it again
    }
    m.seq = 17;
    m.ephemeral = true;
    client *sse = open_events("/live/t", NULL);
    CHECK_CODE(rtpush_bus_deliver(hub, &m), RTPUSH_OK);
    EXPECT(sse, "id: abcdefgh-17");
    CHECK_INT(rtpush_history(hub, "t", 0, NULL, NULL), 2);
    hang_up(sse);
    turns(2);
    finish();
}

static void deliver_again_after_every_allocation_that_fails(void) {
    if (!start_with_bus()) return;
    client *sse = open_events("/live?topic=t1&topic=t/**", NULL);
    for (int n = 0; n < 40; n++) {
        rtpush_message m;
        char topic[32], text[32];
        memset(&m, 0, sizeof m);
        snprintf(topic, sizeof topic, n % 2 ? "t1" : "t/%d", n);
        snprintf(text, sizeof text, "<%d>", n);
        m.topic = topic, m.event = "", m.data = text, m.size = strlen(text), m.kind = RTPUSH_TEXT, m.seq = ++B.head;
        fail_after = n / 2;
        int code = rtpush_bus_deliver(hub, &m);
        fail_after = -1;
        if (code) CHECK_CODE(code, RTPUSH_E_MEMORY);
        if (code) CHECK_CODE(rtpush_bus_deliver(hub, &m), RTPUSH_OK);
        EXPECT(sse, text);
    }
    hang_up(sse);
    turns(2);
    finish();
}

// ============================================================================
// answers that come late
// ============================================================================

static void a_post_is_answered_when_the_bus_has_answered(void) {
    if (!start_with_bus()) return;
    client *c = post("/live/t?event=e", NULL, "body");
    EXPECT_QUIET(c);
    CHECK_INT(B.count, 1);
    CHECK_TEXT(B.items[0].event, "e");
    CHECK_TEXT(B.items[0].data, "body");
    complete(0);
    EXPECT_POSTED(c, 202, 1);
    client *reader = open_events("/live/t", NULL);
    say(c, "POST /live/t HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n2"); // the connection serves on
    EXPECT_QUIET(c);
    CHECK_CODE(deliver(1), RTPUSH_OK); // its readers may have it before its publisher
    EXPECT(reader, "data: 2\n");
    EXPECT_QUIET(c);
    done(1, RTPUSH_OK);
    EXPECT_POSTED(c, 201, 2);
    say(c, "POST /live/t HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n3");
    turns(2);
    B.items[2].seq = ++B.head;
    done(2, RTPUSH_OK); // or the other way round
    EXPECT_POSTED(c, 201, 3);
    CHECK_CODE(deliver(2), RTPUSH_OK);
    EXPECT(reader, "data: 3\n");
    hang_up(c), hang_up(reader);
    turns(2);
    finish();
}

static void a_bus_that_fails_is_a_503_or_the_codes_status(void) {
    char value[32];
    static const struct { int code, status; } cases[] = {{RTPUSH_E_UNAVAILABLE, 503}, {RTPUSH_E_MEMORY, 503}, {RTPUSH_E_TOO_BIG, 413}, {RTPUSH_E_FORBIDDEN, 403}};
    if (!start_with_bus()) return;
    for (size_t i = 0; i < RP_COUNT(cases); i++) {
        client *c = post("/live/t", NULL, "late");
        EXPECT_QUIET(c);
        done((int)i, cases[i].code);
        reply r = await_reply(c, false);
        CHECK_INT(r.status, cases[i].status);
        CHECK((header_of(&r, "Retry-After", value, sizeof value) != NULL) == (cases[i].status == 503));
        CHECK_HAS(body_text, "{\"error\":");
        hang_up(c);
        B.refuse = cases[i].code;
        c = post("/live/t", NULL, "at once");
        CHECK_INT(await_reply(c, false).status, cases[i].status);
        B.refuse = 0;
        hang_up(c);
    }
    CHECK_INT(stats().publish_failed, 2 * RP_COUNT(cases));
    CHECK_INT(stats().published, 0);
    CHECK_INT(rtpush_history(hub, "t", 0, NULL, NULL), 0);
    finish();
}

static void an_ack_comes_when_the_bus_has_answered(void) {
    if (!start_with_bus()) return;
    client *c = open_envelope("/live/t", NULL);
    EXPECT_TEXT(c, "hello");
    ws_text(c, "{\"type\":\"publish\",\"topic\":\"t\",\"data\":{\"a\":1},\"ref\":\"one\"}");
    ws_text(c, "{\"type\":\"publish\",\"topic\":\"u\",\"data\":\"x\",\"ref\":{\"any\":[2]}}");
    ws_text(c, "{\"type\":\"publish\",\"topic\":\"t\",\"data\":\"no ref\"}");
    ws_text(c, "{\"type\":\"publish\",\"topic\":\"t\",\"data\":\"fails\",\"ref\":4}");
    EXPECT_QUIET(c);
    CHECK_INT(B.count, 4);
    foreign("t", "meanwhile");
    EXPECT_TEXT(c, "meanwhile");
    complete(1);
    frame f = ws_next(c);
    CHECK_HAS(f.data, "\"ref\":{\"any\":[2]},\"id\":\"abcdefgh-2\"");
    CHECK_CODE(deliver(0), RTPUSH_OK);
    EXPECT_TEXT(c, "{\"a\":1}");
    done(0, RTPUSH_OK);
    EXPECT_TEXT(c, "{\"type\":\"ack\",\"ref\":\"one\",\"id\":\"abcdefgh-3\"}");
    done(3, RTPUSH_E_UNAVAILABLE);
    EXPECT_TEXT(c, "\"type\":\"error\",\"ref\":4,\"code\":");
    complete(2);
    EXPECT_TEXT(c, "no ref");
    EXPECT_QUIET(c);
    B.refuse = RTPUSH_E_UNAVAILABLE;
    ws_text(c, "{\"type\":\"publish\",\"topic\":\"t\",\"data\":\"x\",\"ref\":5}");
    EXPECT_TEXT(c, "\"type\":\"error\",\"ref\":5,\"code\":");
    hang_up(c);
    turns(2);
    finish();
}

static struct { int calls; uint64_t ticket, seq; int code; } E[64];
static void ended(rtpush_hub *h, uint64_t ticket, uint64_t seq, int code, void *user) {
    int i = *(int *)user;
    (void)h;
    E[i].calls++;
    E[i].ticket = ticket;
    E[i].seq = seq;
    E[i].code = code;
}

static int numbers[64];
static int publish_number(int i, const char *topic, const char *key, uint64_t *ticket) {
    rtpush_publication p;
    memset(&p, 0, sizeof p);
    p.topic = topic;
    p.data = "api";
    p.size = 3;
    p.key = key;
    p.done = ended;
    numbers[i] = i;
    p.done_user = &numbers[i];
    return rtpush_publish_ex(hub, &p, ticket);
}

static void done_is_called_once_and_never_for_a_code(void) {
    uint64_t tickets[3] = {0, 0, 0};
    if (!start_with_bus()) return;
    for (int i = 0; i < 3; i++) CHECK_CODE(publish_number(i, i == 1 ? "u" : "t", NULL, &tickets[i]), RTPUSH_OK);
    turns(2);
    CHECK_INT(E[0].calls + E[1].calls + E[2].calls, 0);
    CHECK(tickets[0] && tickets[1] > tickets[0] && tickets[2] > tickets[1]);
    complete(1); // another topic's comes first
    CHECK_INT(E[1].calls, 1);
    CHECK_INT(E[1].seq, 1);
    CHECK_INT(E[1].ticket, tickets[1]);
    done(2, RTPUSH_E_UNAVAILABLE);
    CHECK_CODE(E[2].code, RTPUSH_E_UNAVAILABLE);
    CHECK_INT(E[2].seq, 0);
    complete(0);
    CHECK_INT(E[0].seq, 2);
    for (int i = 0; i < 3; i++) rtpush_bus_done(hub, tickets[i], 9, RTPUSH_OK); // twice is ignored
    rtpush_bus_done(hub, 12345, 9, RTPUSH_OK);
    for (int i = 0; i < 3; i++) CHECK_INT(E[i].calls, 1);
    B.refuse = RTPUSH_E_UNAVAILABLE;
    CHECK_CODE(publish_number(3, "t", NULL, NULL), RTPUSH_E_UNAVAILABLE);
    CHECK_CODE(publish_number(3, "bad/*", NULL, NULL), RTPUSH_E_TOPIC);
    CHECK_INT(E[3].calls, 0);
    B.refuse = 0;
    B.is_instant = true; // a bus may end it inside append
    CHECK_CODE(publish_number(4, "t", NULL, NULL), RTPUSH_OK);
    CHECK_INT(E[4].calls, 1);
    CHECK_INT(E[4].seq, 3);
    CHECK_CODE(publish_number(5, "t", "key", NULL), RTPUSH_OK);
    CHECK_CODE(publish_number(6, "t", "key", NULL), RTPUSH_OK);
    CHECK_INT(E[6].seq, E[5].seq);
    CHECK_CODE(rtpush_publish(hub, "t", "x", 1), RTPUSH_OK);
    finish();
    for (int i = 0; i < 3; i++) CHECK_INT(E[i].calls, 1);
}

static void completions_in_another_order_reach_their_own_publishers(void) {
    if (!start_with_bus()) return;
    client *a = post("/live/a", NULL, "1"), *b = post("/live/b", NULL, "2"), *c = post("/live/c", NULL, "3");
    complete(2);
    EXPECT_POSTED(c, 202, 1);
    EXPECT_QUIET(a);
    complete(0);
    EXPECT_POSTED(a, 202, 2);
    EXPECT_QUIET(b);
    done(1, RTPUSH_E_UNAVAILABLE);
    CHECK_INT(await_reply(b, false).status, 503);
    hang_up(a), hang_up(b), hang_up(c);
    turns(2);
    finish();
}

static void what_is_pipelined_behind_a_pending_post_waits_its_turn(void) {
    char value[40];
    if (!start_with_bus()) return;
    client *c = dial();
    say(c, "POST /live/t HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\none"
           "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
           "POST /live/t HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\ntwo"
           "GET /live/t?since=earliest HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT_QUIET(c);
    CHECK_INT(B.count, 1);
    complete(0);
    EXPECT_POSTED(c, 202, 1);
    CHECK_INT(await_reply(c, false).status, 200);
    CHECK_TEXT(body_text, "ok");
    EXPECT_QUIET(c);
    CHECK_INT(B.count, 2);
    done(1, RTPUSH_E_UNAVAILABLE);
    CHECK_INT(await_reply(c, false).status, 503);
    reply r = await_reply(c, false);
    CHECK_INT(r.status, 200);
    CHECK_HAS(body_text, "\"one\"");
    CHECK_TEXT(header_of(&r, "ETag", value, sizeof value), "\"abcdefgh-1\"");
    hang_up(c);
    c = dial(); // the peer has said all it has to say: the answers still come, then the end
    say(c, "POST /live/t HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n3GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n");
    shutdown(c->fd, SHUT_WR);
    EXPECT_QUIET(c);
    complete(2);
    EXPECT_POSTED(c, 202, 2);
    CHECK_INT(await_reply(c, false).status, 200);
    EXPECT_END(c);
    hang_up(c);
    turns(2);
    finish();
}

// ============================================================================
// idempotency keys
// ============================================================================

static int login_by_token(rtpush_hub *h, rtpush_login *login, void *user) {
    (void)h, (void)user;
    snprintf(login->identity, sizeof login->identity, "%.*s", (int)login->token.size, login->token.data ? login->token.data : "");
    return RTPUSH_OK;
}

static void a_key_that_is_pending_is_waited_for(void) {
    rtpush_desc d = with_bus();
    d.on_login = login_by_token;
    if (!start(&d)) return;
    client *a = post("/live/t?token=ann", "Idempotency-Key: k\r\n", "one"), *b = post("/live/t?token=ann", "Idempotency-Key: k\r\n", "two");
    client *e = open_envelope("/live?token=ann", NULL), *o = post("/live/t?token=bob", "Idempotency-Key: k\r\n", "bob's");
    EXPECT_TEXT(e, "hello");
    ws_text(e, "{\"type\":\"publish\",\"topic\":\"t\",\"key\":\"k\",\"data\":\"three\",\"ref\":1}");
    EXPECT_QUIET(a);
    EXPECT_QUIET(b);
    EXPECT_QUIET(e);
    CHECK_INT(B.count, 2); // ann's and bob's
    CHECK_TEXT(B.items[0].key, "k");
    CHECK_TEXT(B.items[0].identity, "ann");
    complete(1);
    EXPECT_POSTED(o, 202, 1);
    EXPECT_QUIET(b);
    complete(0);
    EXPECT_POSTED(a, 202, 2);
    EXPECT_POSTED(b, 202, 2);
    EXPECT_TEXT(e, "\"ack\",\"ref\":1,\"id\":\"abcdefgh-2\"");
    client *late = post("/live/t?token=ann", "Idempotency-Key: k\r\n", "four");
    EXPECT_POSTED(late, 202, 2);
    CHECK_INT(B.count, 2);
    hang_up(a), hang_up(b), hang_up(e), hang_up(o), hang_up(late);
    turns(2);
    finish();
}

static void a_key_whose_first_publish_failed_is_free_again(void) {
    if (!start_with_bus()) return;
    client *a = post("/live/t", "Idempotency-Key: k\r\n", "one"), *b = post("/live/t", "Idempotency-Key: k\r\n", "two");
    CHECK_CODE(publish_number(0, "t", "k", NULL), RTPUSH_OK);
    CHECK_INT(B.count, 1);
    done(0, RTPUSH_E_UNAVAILABLE);
    CHECK_INT(await_reply(a, false).status, 503);
    CHECK_INT(await_reply(b, false).status, 503);
    CHECK_INT(E[0].calls, 1);
    CHECK_CODE(E[0].code, RTPUSH_E_UNAVAILABLE);
    client *c = post("/live/t", "Idempotency-Key: k\r\n", "three");
    CHECK_INT(B.count, 2);
    B.items[1].seq = B.head = 7; // the bus says: that key had 7 already
    done(1, RTPUSH_OK);
    EXPECT_POSTED(c, 202, 7);
    CHECK_CODE(publish_number(1, "t", "k", NULL), RTPUSH_OK);
    CHECK_INT(E[1].seq, 7);
    B.refuse = RTPUSH_E_UNAVAILABLE;
    CHECK_CODE(publish_number(2, "t", "k2", NULL), RTPUSH_E_UNAVAILABLE);
    B.refuse = 0;
    CHECK_CODE(publish_number(3, "t", "k2", NULL), RTPUSH_OK);
    CHECK_INT(B.count, 3);
    hang_up(a), hang_up(b), hang_up(c);
    turns(2);
    finish();
}

static void a_pending_key_outlives_two_minutes_and_a_full_table(void) {
    rtpush_desc d = with_bus();
    d.keys_max = 2;
    if (!start(&d)) return;
    CHECK_CODE(publish_number(0, "t", "k", NULL), RTPUSH_OK);
    skip(200000);
    for (int i = 1; i < 8; i++) {
        char key[8] = {'o', (char)('0' + i), 0};
        CHECK_CODE(publish_number(i, "t", key, NULL), RTPUSH_OK);
        complete(i);
    }
    CHECK_CODE(publish_number(8, "t", "k", NULL), RTPUSH_OK); // waits for the first
    CHECK_INT(B.count, 8);
    complete(0);
    CHECK_INT(E[8].calls, 1);
    CHECK_INT(E[8].seq, E[0].seq);
    finish();
}

// ============================================================================
// those who leave before the answer
// ============================================================================

static void a_client_that_is_gone_gets_no_answer_and_nobody_gets_it_instead(void) {
    for (int how = 0; how < 4; how++) {
        snprintf(V->where, sizeof V->where, "way %d", how);
        memset(&B, 0, sizeof B);
        if (!start_with_bus()) return;
        int port = 0;
        rtpush_listen(hub, "http://127.0.0.1:0", &port);
        client *c = dial_tcp(port);
        if (how < 2) {
            say(c, "POST /live/t HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx");
        } else {
            CHECK_INT(ws_handshake(c, "/live/t", "rtpush.v1", NULL), 101);
            ws_text(c, "{\"type\":\"publish\",\"topic\":\"t\",\"data\":1,\"ref\":1}");
        }
        for (int i = 0; i < 100 && !B.count; i++) turns(1);
        CHECK_INT(B.count, 1);
        if (how % 2) reset(c);
        else hang_up(c);
        for (int i = 0; i < 10; i++) turn(1);
        client *other = how < 2 ? dial() : open_envelope("/live/x", NULL); // takes a free place
        if (how >= 2) EXPECT_TEXT(other, "hello");
        else say(other, "POST /live/u HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\ny");
        turns(2);
        complete(0);
        EXPECT_QUIET(other);
        for (int i = 0; i < 10 && stats().connections > 1; i++) turn(1);
        CHECK_INT(stats().connections, 1);
        hang_up(other);
        turns(2);
        finish();
    }
}

static void a_hub_destroyed_with_publishes_pending_ends_each_once(void) {
    if (!start_with_bus()) return;
    client *a = post("/live/t", "Idempotency-Key: k\r\n", "1"), *b = post("/live/t", "Idempotency-Key: k\r\n", "2"), *e = open_envelope("/live/t", NULL);
    ws_text(e, "{\"type\":\"publish\",\"topic\":\"t\",\"data\":1,\"ref\":1,\"key\":\"k\"}");
    ws_text(e, "{\"type\":\"publish\",\"topic\":\"t\",\"data\":1,\"ref\":1}");
    turns(2);
    CHECK_CODE(publish_number(0, "t", NULL, NULL), RTPUSH_OK);
    CHECK_CODE(publish_number(1, "t", "k", NULL), RTPUSH_OK);  // waits for the POST's
    CHECK_CODE(publish_number(2, "t", "k2", NULL), RTPUSH_OK);
    CHECK_CODE(publish_number(3, "t", "k2", NULL), RTPUSH_OK); // waits for the one before
    finish();
    for (int i = 0; i < 4; i++) {
        CHECK_INT(E[i].calls, 1);
        CHECK(E[i].code != RTPUSH_OK);
    }
    CHECK_INT(B.closed, 1);
    hang_up(a), hang_up(b), hang_up(e);
}

static int again_calls, again_published;
static void publish_again(rtpush_hub *h, uint64_t ticket, uint64_t seq, int code, void *user) {
    rtpush_publication p;
    (void)ticket, (void)seq, (void)code, (void)user;
    again_calls++;
    memset(&p, 0, sizeof p);
    p.topic = "t";
    p.data = "retry";
    p.size = 5;
    p.done = publish_again;
    if (again_published < 100 && rtpush_publish_ex(h, &p, NULL) == RTPUSH_OK) again_published++;
}

static void retrying_in_done_while_the_hub_is_destroyed_is_harmless(void) {
    if (!start_with_bus()) return;
    rtpush_publication p;
    memset(&p, 0, sizeof p);
    p.topic = "t";
    p.data = "x";
    p.size = 1;
    p.done = publish_again;
    for (int i = 0; i < 3; i++) {
        p.key = i == 2 ? "k" : NULL;
        CHECK_CODE(rtpush_publish_ex(hub, &p, NULL), RTPUSH_OK);
        again_published++;
    }
    done(0, RTPUSH_E_UNAVAILABLE); // a retry that succeeds
    CHECK_INT(again_calls, 1);
    finish();
    CHECK_INT(again_calls, again_published);
}

static void destroy_in_done(rtpush_hub *h, uint64_t ticket, uint64_t seq, int code, void *user) {
    (void)ticket, (void)seq, (void)code;
    ++*(int *)user;
    rtpush_destroy(h);
    is_destroyed = true;
}

static void complete_first(rtpush_hub *h, void *arg) { (void)h, (void)arg, complete(0); }

static void destroying_inside_done(void) {
    for (int in_turn = 0; in_turn < 2; in_turn++) {
        int calls = 0;
        rtpush_publication p;
        snprintf(V->where, sizeof V->where, "%s a turn", in_turn ? "inside" : "outside");
        memset(&B, 0, sizeof B);
        memset(&p, 0, sizeof p);
        is_destroyed = false;
        if (!start_with_bus()) return;
        p.topic = "t";
        p.data = "x";
        p.size = 1;
        p.key = "k";
        p.done = destroy_in_done;
        p.done_user = &calls;
        CHECK_CODE(rtpush_publish_ex(hub, &p, NULL), RTPUSH_OK);
        CHECK_CODE(rtpush_publish_ex(hub, &p, NULL), RTPUSH_OK);
        if (in_turn) rtpush_post(hub, complete_first, NULL), turns(1);
        else complete(0), hub = NULL; // done when rtpush_bus_done returns
        CHECK_INT(calls, 2);
        CHECK(hub == NULL);
        CHECK_INT(blocks, 0);
        CHECK_INT(B.closed, 1);
    }
}

static void a_drain_waits_for_what_is_pending(void) {
    if (!start_with_bus()) return;
    client *c = post("/live/t", NULL, "x"), *e = open_envelope("/live/t", NULL);
    EXPECT_TEXT(e, "hello");
    ws_text(e, "{\"type\":\"publish\",\"topic\":\"t\",\"data\":1,\"ref\":1}");
    turns(2);
    CHECK_CODE(rtpush_drain(hub, 100, 10000), RTPUSH_OK);
    turns(3);
    skip(50);
    EXPECT_QUIET(c);
    complete(0);
    EXPECT_POSTED(c, 201, 1); // readers go a moment later, so that it reaches them
    EXPECT_END(c);
    hang_up(c);
    skip(300);
    EXPECT_CLOSE(e, 1012);
    complete(1); // nobody waits for it any more
    hang_up(e);
    for (int i = 0; i < 50 && turn(1) == RTPUSH_OK; i++) {}
    CHECK_CODE(rtpush_step(hub, 0), RTPUSH_E_STATE);
    finish();
}

// ============================================================================
// a cursor ahead of this node
// ============================================================================

static void a_cursor_ahead_goes_on_when_the_head_reaches_it(void) {
    if (!start_with_bus()) return;
    foreign("t", "one");
    turns(1);
    client *sse = open_events("/live/t?last_event_id=abcdefgh-3", NULL), *env = open_envelope("/live/t?since=abcdefgh-3", NULL);
    client *raw = open_raw("/live/t?since=abcdefgh-3", NULL), *poll = open_poll("/live/t?wait=20&since=abcdefgh-3", NULL);
    client *brief = dial();
    say(brief, "GET /live/t?since=abcdefgh-3 HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT_TEXT(env, "hello");
    EXPECT_QUIET(brief);
    skip(4000);
    foreign("t", "two");
    EXPECT_QUIET(raw);
    EXPECT_QUIET(brief);
    foreign("u", "three");
    skip(60);
    reply r = await_reply(brief, false); // the short poll: it has all
    CHECK_INT(r.status, 200);
    CHECK_HAS(body_text, "\"cursor\":\"abcdefgh-3\"");
    CHECK(!strstr(body_text, "gap") && !strstr(body_text, "two"));
    EXPECT_QUIET(raw);
    EXPECT_QUIET(poll); // a long poll waits on for a message
    skip(4000);         // the 5 s are not over for somebody who was reached
    foreign("t", "four");
    EXPECT_TEXT(raw, "four");
    EXPECT_TEXT(env, "\"four\"");
    EXPECT(sse, "data: four\n");
    CHECK(!strstr(sse->in, "gap") && !strstr(sse->in, "two") && !strstr(sse->in, "three"));
    r = await_reply(poll, false);
    CHECK_HAS(body_text, "\"four\"");
    CHECK(!strstr(body_text, "gap") && !strstr(body_text, "two"));
    hang_up(sse), hang_up(env), hang_up(raw), hang_up(poll), hang_up(brief);
    turns(3);
    finish();
}

static void a_cursor_ahead_is_of_another_epoch_after_five_seconds(void) {
    if (!start_with_bus()) return;
    foreign("t", "one");
    turns(1);
    client *sse = open_events("/live/t?last_event_id=abcdefgh-9", NULL), *env = open_envelope("/live/t?since=abcdefgh-9", NULL);
    client *raw = open_raw("/live/t?since=abcdefgh-9", NULL), *poll = open_poll("/live/t?wait=20&since=abcdefgh-9", NULL);
    client *brief = dial();
    say(brief, "GET /live/t?since=abcdefgh-9 HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT_TEXT(env, "hello");
    skip(4800);
    foreign("t", "two");
    EXPECT_QUIET(raw);
    EXPECT_QUIET(brief);
    EXPECT_QUIET(poll);
    EXPECT_QUIET(env);
    skip(300);
    EXPECT_TEXT(env, "{\"type\":\"gap\",\"from\":\"abcdefgh-9\",\"to\":\"abcdefgh-0\",\"reason\":\"epoch\"}");
    EXPECT_TEXT(env, "\"one\""); // and then all that is held
    EXPECT_TEXT(env, "\"two\"");
    EXPECT(sse, "event: gap\ndata: {\"from\":\"abcdefgh-9\",\"to\":\"abcdefgh-0\",\"reason\":\"epoch\"}\n");
    EXPECT(sse, "data: one\n");
    EXPECT(sse, "data: two\n");
    EXPECT_CLOSE(raw, 4100);
    await_reply(poll, false);
    CHECK_HAS(body_text, "\"gap\":{\"from\":\"abcdefgh-9\",\"to\":\"abcdefgh-0\",\"reason\":\"epoch\"}");
    CHECK_HAS(body_text, "\"one\"");
    await_reply(brief, false);
    CHECK_HAS(body_text, "\"reason\":\"epoch\"");
    CHECK_HAS(body_text, "\"two\"");
    foreign("t", "three");
    EXPECT(sse, "data: three\n");
    hang_up(sse), hang_up(env), hang_up(raw), hang_up(poll), hang_up(brief);
    turns(3);
    finish();
}

static void a_client_gone_while_it_waits_for_the_head(void) {
    if (!start_with_bus()) return;
    client *all[4] = {open_events("/live/t?since=abcdefgh-9", NULL), open_envelope("/live/t?since=abcdefgh-9", NULL), open_raw("/live/t?since=abcdefgh-9", NULL), open_poll("/live/t?wait=20&since=abcdefgh-9", NULL)};
    skip(100);
    for (int i = 0; i < 4; i++) hang_up(all[i]);
    turns(4);
    skip(6000);
    CHECK_INT(stats().connections, 0);
    CHECK_INT(stats().subscriptions, 0);
    client *c = open_events("/live/t?since=abcdefgh-9", NULL);
    finish(); // and a hub that goes meanwhile
    hang_up(c);
}

static void a_subscribe_ahead_of_the_head(void) {
    if (!start_with_bus()) return;
    client *e = open_envelope("/live", NULL);
    EXPECT_TEXT(e, "hello");
    ws_text(e, "{\"type\":\"subscribe\",\"topic\":\"t\",\"since\":\"abcdefgh-2\",\"ref\":1}");
    turns(2);
    foreign("t", "one");
    foreign("t", "two");
    skip(60);
    foreign("t", "three");
    frame f = ws_until(e, "three");
    CHECK_HAS(f.data, "three");
    ws_text(e, "{\"type\":\"subscribe\",\"topic\":\"u\",\"since\":\"abcdefgh-99\",\"ref\":2}");
    turns(2);
    skip(5100);
    EXPECT_TEXT(e, "\"reason\":\"epoch\"");
    hang_up(e);
    turns(2);
    finish();
}

// ============================================================================
// the rest of the hub on a bus
// ============================================================================

static void presence_goes_through_the_bus(void) {
    rtpush_topic_desc t;
    memset(&t, 0, sizeof t);
    if (!start_with_bus()) return;
    t.presence = true;
    rtpush_configure(hub, "room", &t);
    client *w = open_envelope("/live/@presence/room", NULL), *r = open_events("/live/room?session=abcdefghijklmnopq", NULL);
    EXPECT_TEXT(w, "\"here\":[]");
    skip(300);
    CHECK_INT(B.count, 1);
    CHECK_TEXT(B.items[0].topic, "@presence/room");
    CHECK(B.items[0].ephemeral);
    CHECK_INT(B.items[0].kind, RTPUSH_JSON);
    complete(0);
    EXPECT_TEXT(w, "{\"join\":[\"abcdefghijklmnopq\"],\"leave\":[],\"count\":1}");
    hang_up(w), hang_up(r);
    turns(3);
    finish();
}

static void raw_frames_and_on_publish_on_a_bus(void) {
    if (!start_with_bus()) return;
    client *c = open_raw("/live/t", NULL);
    ws_text(c, "a frame");
    turns(2);
    CHECK_INT(B.count, 1);
    EXPECT_QUIET(c);
    complete(0);
    EXPECT_TEXT(c, "a frame");
    B.refuse = RTPUSH_E_UNAVAILABLE;
    ws_text(c, "lost");
    turns(2);
    B.refuse = 0;
    foreign("t", "still open");
    EXPECT_TEXT(c, "still open");
    hang_up(c);
    turns(2);
    finish();
}

// Random publishers on a random bus: every publish has one end, which tells the truth.
static uint64_t rng;
static unsigned below(unsigned n) {
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(rng >> 33) % n;
}

static void life(unsigned seed) {
    enum { PUBS = 40, CLIENTS = 6 };
    client *posters[CLIENTS], *env;
    int owed[CLIENTS] = {0}, acks_owed = 0, api = 0;
    static const char *const topics[] = {"a", "b", "c/d"};
    char text[32];
    rng = seed;
    memset(&B, 0, sizeof B);
    memset(E, 0, sizeof E);
    if (!start_with_bus()) return;
    for (int i = 0; i < CLIENTS; i++) posters[i] = dial();
    env = open_envelope("/live", NULL);
    EXPECT_TEXT(env, "hello");
    client *reader = open_events("/live?topic=a&topic=b&topic=c/*", NULL);
    for (int n = 0; n < PUBS || B.count > 0;) {
        unsigned what = below(10);
        bool more = n < PUBS;
        if (more && what < 3) {
            int i = (int)below(CLIENTS);
            say(posters[i], "POST /live/%s HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n<%02d>", topics[below(3)], n++);
            owed[i]++;
        } else if (more && what < 5) {
            snprintf(text, sizeof text, "<%02d>", n);
            ws_text(env, below(2) ? "{\"type\":\"publish\",\"topic\":\"a\",\"data\":1,\"ref\":1}" : "{\"type\":\"publish\",\"topic\":\"b\",\"data\":2,\"ref\":2}");
            acks_owed++, n++;
        } else if (more && what < 6) {
            B.refuse = below(4) ? 0 : RTPUSH_E_UNAVAILABLE;
            if (publish_number(api, topics[below(3)], NULL, NULL) == RTPUSH_OK) api++;
            B.refuse = 0;
            n++;
        } else {
            int open[ITEMS], count = 0;
            for (int i = 0; i < B.count; i++)
                if (!B.items[i].is_done) open[count++] = i;
            if (count) {
                int i = open[below((unsigned)count)];
                if (!below(5)) done(i, RTPUSH_E_UNAVAILABLE);
                else if (!B.items[i].is_delivered && below(2)) deliver(i);
                else if (B.items[i].is_delivered) done(i, RTPUSH_OK);
                else complete(i);
            }
            if (!more && !count) {
                turns(3);
                bool all = true;
                for (int i = 0; i < B.count; i++) all &= B.items[i].is_done;
                if (all) break;
            }
        }
        turn(0);
    }
    for (int i = 0; i < CLIENTS; i++) {
        while (owed[i]) {
            reply r = await_reply(posters[i], false);
            owed[i]--;
            if (r.status == 503) continue;
            if (r.status != 201) {
                wrong(__LINE__, "seed %u: status %d", seed, r.status);
                break;
            }
            uint64_t seq = strtoull(strstr(body_text, "abcdefgh-") + 9, NULL, 10);
            bool found = false;
            for (int k = 0; k < B.count; k++) {
                snprintf(text, sizeof text, "\"topic\":\"%s\"", B.items[k].topic);
                found |= B.items[k].seq == seq && strstr(body_text, text);
            }
            if (!found) wrong(__LINE__, "seed %u: an answer that is nobody's: %s", seed, body_text);
        }
        CHECK_INT(posters[i]->size, 0);
        hang_up(posters[i]);
    }
    while (acks_owed) {
        frame f = ws_next(env);
        if (!strstr(f.data, "\"ack\"") && !strstr(f.data, "\"error\"")) {
            wrong(__LINE__, "seed %u: %d acks are missing: %s", seed, acks_owed, f.data);
            break;
        }
        acks_owed--;
    }
    for (int i = 0; i < api; i++) CHECK_INT(E[i].calls, 1);
    for (int i = 0; i < B.count; i++) {
        if (!B.items[i].is_delivered) continue;
        snprintf(text, sizeof text, "id: %s\n", cursor_of(B.items[i].seq));
        EXPECT(reader, text);
    }
    hang_up(env), hang_up(reader);
    turns(3);
    finish();
}

static void every_publish_has_one_true_answer_in_random_lives(void) {
    for (unsigned seed = 1; seed <= 60 && !*V->why; seed++) {
        snprintf(V->where, sizeof V->where, "seed %u", seed);
        life(seed);
    }
}

int main(int argc, char **argv) {
    int status = begin(argc, argv);
    if (status) return status;
#define RUN(test) run(#test, test)
    RUN(open_and_close_once_and_its_code_is_creates);
    RUN(start_sets_epoch_and_floor);
    RUN(a_changed_epoch_tells_every_reader_of_a_gap);
    RUN(deliver_wants_growing_numbers_and_good_messages);
    RUN(deliver_again_after_every_allocation_that_fails);
    RUN(a_post_is_answered_when_the_bus_has_answered);
    RUN(a_bus_that_fails_is_a_503_or_the_codes_status);
    RUN(an_ack_comes_when_the_bus_has_answered);
    RUN(done_is_called_once_and_never_for_a_code);
    RUN(completions_in_another_order_reach_their_own_publishers);
    RUN(what_is_pipelined_behind_a_pending_post_waits_its_turn);
    RUN(a_key_that_is_pending_is_waited_for);
    RUN(a_key_whose_first_publish_failed_is_free_again);
    RUN(a_pending_key_outlives_two_minutes_and_a_full_table);
    RUN(a_client_that_is_gone_gets_no_answer_and_nobody_gets_it_instead);
    RUN(a_hub_destroyed_with_publishes_pending_ends_each_once);
    RUN(retrying_in_done_while_the_hub_is_destroyed_is_harmless);
    RUN(destroying_inside_done);
    RUN(a_drain_waits_for_what_is_pending);
    RUN(a_cursor_ahead_goes_on_when_the_head_reaches_it);
    RUN(a_cursor_ahead_is_of_another_epoch_after_five_seconds);
    RUN(a_client_gone_while_it_waits_for_the_head);
    RUN(a_subscribe_ahead_of_the_head);
    RUN(presence_goes_through_the_bus);
    RUN(raw_frames_and_on_publish_on_a_bus);
    RUN(every_publish_has_one_true_answer_in_random_lives);
    return end();
}
