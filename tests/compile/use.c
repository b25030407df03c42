// Calls every public function at least once and looks at what comes back; a unit of its own in C99 and in C++11.
// run.sh builds it with every compiler and standard. Everything goes over socket pairs and loopback.
//
//     cc tests/compile/use.c -o build/use && build/use
//
// -DUSE_EXTERN: declarations only, to be linked with impl.c. -DUSE_FEW: also with static_few.c.
#ifdef USE_EXTERN
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#else
#define RTPUSH_IMPLEMENTATION
#endif
#include "../../rtpush.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int failures;

#define NEED(condition) ((condition) ? (void)0 : need_failed(__LINE__, #condition))

static void need_failed(int line, const char *what) {
    fprintf(stderr, "use.c:%d: not so: %s\n", line, what);
    failures++;
}

// --- what the callbacks saw ---

typedef struct seen {
    int opened, closed, requests, published, posted, timers, logins, each;
    rtpush_session echo;
    rtpush_stream stream;
} seen;

static void on_open(rtpush_hub *hub, rtpush_session session, void *user) {
    (void)hub;
    (void)session;
    ((seen *)user)->opened++;
}

static void on_close(rtpush_hub *hub, rtpush_session session, int code, void *user) {
    (void)hub;
    (void)session;
    (void)code;
    ((seen *)user)->closed++;
}

static void on_message(rtpush_hub *hub, rtpush_session from, const rtpush_message *m, void *user) {
    NEED(m->topic[0] == 0 && m->kind == RTPUSH_TEXT);
    NEED(from == ((seen *)user)->echo);
    NEED(rtpush_send(hub, from, m->data, m->size, RTPUSH_TEXT) == RTPUSH_OK);
}

static int on_publish(rtpush_hub *hub, rtpush_session from, rtpush_publication *what, void *user) {
    (void)hub;
    (void)from;
    (void)user;
    return what->size == 3 ? RTPUSH_E_FORBIDDEN : RTPUSH_OK;
}

static int on_login(rtpush_hub *hub, rtpush_login *login, void *user) {
    (void)hub;
    ((seen *)user)->logins++;
    memcpy(login->identity, "ann", 4);
    return RTPUSH_OK;
}

static bool on_allow(rtpush_hub *hub, const char *identity, int verb, const char *topic, void *user) {
    (void)hub;
    (void)user;
    return verb >= RTPUSH_VERB_READ && verb <= RTPUSH_VERB_DELETE && !strcmp(identity, "ann") && topic[0];
}

static void on_log(rtpush_hub *hub, const char *line, void *user) {
    (void)hub;
    (void)line;
    (void)user;
}

static bool is_text(rtpush_slice s, const char *text) {
    return s.size == strlen(text) && (!s.size || !memcmp(s.data, text, s.size));
}

static void look_at_request(rtpush_request *request) {
    char value[16];
    NEED(is_text(rtpush_method(request), "POST") && is_text(rtpush_body(request), "body"));
    NEED(is_text(rtpush_header(request, "x-name"), "value") && rtpush_header(request, "x-none").data == NULL);
    NEED(rtpush_query(request, "q", value, sizeof value) == 3 && !strcmp(value, "a b"));
    NEED(rtpush_query(request, "none", value, sizeof value) == -1);
    NEED(rtpush_query_text(request).size > 4);
    NEED(is_text(rtpush_cookie(request, "c"), "d"));
    rtpush_peer peer = rtpush_request_peer(request);
    char name[64];
    NEED(!rtpush_is_secure(request) && rtpush_certificate(request, name, sizeof name) == -1);
    NEED(peer.port == 0); // a socket pair has none
}

static bool on_request(rtpush_hub *hub, rtpush_request *request, void *user) {
    seen *s = (seen *)user;
    s->requests++;
    if (is_text(rtpush_path(request), "/ws")) return rtpush_accept_websocket(request, &s->echo) == RTPUSH_OK && s->echo;
    if (is_text(rtpush_path(request), "/file")) return rtpush_reply_file(request, ".", "none/such", "text/plain") == RTPUSH_OK;
    if (is_text(rtpush_path(request), "/stream")) {
        s->stream = rtpush_reply_begin(request, 200, "Content-Type: text/plain\r\n");
        NEED(rtpush_stream_write(hub, s->stream, "piece", 5) == RTPUSH_OK);
        NEED(rtpush_stream_end(hub, s->stream) == RTPUSH_OK);
        return s->stream != 0;
    }
    if (!is_text(rtpush_path(request), "/look")) return false;
    look_at_request(request);
    NEED(rtpush_reply(request, 200, "X-Bad: a\r\nb", "", 0) != RTPUSH_OK);
    return rtpush_reply(request, 200, "X-Good: yes\r\n", "seen", 4) == RTPUSH_OK;
}

// --- one client over a socket pair ---

static int client(rtpush_hub *hub) {
    int pair[2] = {-1, -1};
    NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    NEED(fcntl(pair[0], F_SETFL, O_NONBLOCK) == 0 && fcntl(pair[1], F_SETFL, O_NONBLOCK) == 0);
    NEED(rtpush_adopt(hub, pair[1]) == RTPUSH_OK);
    return pair[0];
}

// Sends, and turns the hub until `until` has come back.
static void talk(rtpush_hub *hub, int fd, const char *text, size_t size, const char *until) {
    char got[8192];
    size_t have = 0;
    NEED(write(fd, text, size) == (ssize_t)size);
    for (int i = 0; i < 500; i++) {
        rtpush_step(hub, 1);
        ssize_t n = read(fd, got + have, sizeof got - 1 - have);
        if (n > 0) have += (size_t)n;
        got[have] = 0;
        for (size_t at = 0; at + strlen(until) <= have; at++)
            if (!memcmp(got + at, until, strlen(until))) return;
    }
    fprintf(stderr, "use.c: no \"%s\" in:\n%s\n", until, got);
    failures++;
}

#define TALK(hub, fd, text, until) talk(hub, fd, text, sizeof(text) - 1, until)

static bool each_session(rtpush_hub *hub, rtpush_session session, void *user) {
    rtpush_session_info info;
    NEED(rtpush_info(hub, session, &info) == RTPUSH_OK);
    ((seen *)user)->each++;
    return true;
}

static void use_http(rtpush_hub *hub) {
    int fd = client(hub);
    TALK(hub, fd, "POST /look?q=a%20b HTTP/1.1\r\nHost: h\r\nX-Name: value\r\nCookie: a=b; c=d\r\nContent-Length: 4\r\n\r\nbody", "seen");
    TALK(hub, fd, "GET /file HTTP/1.1\r\nHost: h\r\n\r\n", " 404 ");
    TALK(hub, fd, "GET /stream HTTP/1.1\r\nHost: h\r\n\r\n", "piece");
    TALK(hub, fd, "POST /live/t HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", "\"topic\":\"t\"");
    TALK(hub, fd, "GET /live/t HTTP/1.1\r\nHost: h\r\n\r\n", "\"data\":\"hello\"");
    close(fd);
}

static void use_websocket(rtpush_hub *hub, seen *s) {
    static int mine;
    int fd = client(hub);
    TALK(hub, fd,
         "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
         "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="); // RFC 6455 §1.3
    TALK(hub, fd, "\x81\x82\x01\x02\x03\x04ik", "\x81\x02hi");
    NEED(s->echo != 0);
    NEED(rtpush_set_user(hub, s->echo, &mine) == RTPUSH_OK && rtpush_get_user(hub, s->echo) == &mine);
    NEED(rtpush_subscribe(hub, s->echo, "t", NULL) == RTPUSH_OK && rtpush_subscribers(hub, "t") == 1);
    NEED(rtpush_publish(hub, "t", "to all", 6) == RTPUSH_OK);
    TALK(hub, fd, "", "to all");
    NEED(rtpush_unsubscribe(hub, s->echo, "t") == RTPUSH_OK && rtpush_subscribers(hub, "t") == 0);
    NEED(rtpush_each(hub, each_session, s) == 1 && s->each == 1);
    NEED(rtpush_close(hub, s->echo, 3000, "bye") == RTPUSH_OK);
    TALK(hub, fd, "", "bye");
    rtpush_kick(hub, "ann", 3001, "kicked");
    close(fd);
    for (int i = 0; i < 100 && s->closed < s->opened; i++) rtpush_step(hub, 1);
    NEED(s->opened > 0 && s->closed == s->opened);
    NEED(rtpush_send(hub, s->echo, "x", 1, RTPUSH_AUTO) == RTPUSH_E_GONE); // a stale handle is a no-op
}

// --- the log ---

static void done(rtpush_hub *hub, uint64_t ticket, uint64_t seq, int code, void *user) {
    (void)hub;
    (void)ticket;
    NEED(code == RTPUSH_OK && seq > 0);
    ((seen *)user)->published++;
}

static bool each_message(const rtpush_message *m, void *user) {
    (void)user;
    return m->seq > 0;
}

static bool each_member(const char *name, void *user) {
    (void)user;
    return name != NULL;
}

static void not_posted(rtpush_hub *hub, void *arg) {
    (void)hub;
    (void)arg;
}

static void posted(rtpush_hub *hub, void *arg) {
    (void)hub;
    ((seen *)arg)->posted++;
}

static void timer(rtpush_hub *hub, void *user) {
    (void)hub;
    ((seen *)user)->timers++;
}

static void stop(rtpush_hub *hub, void *user) {
    (void)user;
    rtpush_stop(hub);
}

static void use_log(rtpush_hub *hub, seen *s) {
    char text[32];
    uint64_t ticket = 0;
    rtpush_topic_desc kept;
    rtpush_publication what;
    memset(&kept, 0, sizeof kept);
    memset(&what, 0, sizeof what);
    kept.history = 2;
    kept.presence = true;
    NEED(rtpush_configure(hub, "log/*", &kept) == RTPUSH_OK && rtpush_configure(hub, "a//b", &kept) == RTPUSH_E_TOPIC);
    what.topic = "log/a";
    what.event = "event";
    what.data = "[1]";
    what.size = 3;
    what.kind = RTPUSH_JSON;
    what.done = done;
    what.done_user = s;
    NEED(rtpush_publish_ex(hub, &what, &ticket) == RTPUSH_OK && s->published == 1);
    what.data = "[1,";
    NEED(rtpush_publish_ex(hub, &what, NULL) == RTPUSH_E_JSON && s->published == 1);
    NEED(rtpush_publish(hub, "log/a", "text", 4) == RTPUSH_OK && rtpush_publish_user(hub, "ann", "you", 3) == RTPUSH_OK);
    NEED(rtpush_publish_async(hub, "log/a", "later", 5) == RTPUSH_OK && rtpush_post(hub, posted, s) == RTPUSH_OK);
    NEED(rtpush_post_session(hub, 0, not_posted, s) == RTPUSH_OK);
    rtpush_timer gone = rtpush_after(hub, 1, timer, s), kept_timer = rtpush_after(hub, 1, timer, s);
    NEED(gone && kept_timer);
    rtpush_cancel(hub, gone);
    for (int i = 0; i < 200 && (!s->posted || !s->timers); i++) rtpush_step(hub, 5);
    NEED(s->posted == 1 && s->timers == 1);
    NEED(rtpush_history(hub, "log/a", 0, each_message, NULL) == 2);
    NEED(rtpush_presence(hub, "log/a", each_member, NULL) == 0);
    NEED(rtpush_where(hub, "nobody", NULL, NULL) == 0);
    NEED(rtpush_clear(hub, "log/a") == RTPUSH_OK && rtpush_history(hub, "log/a", 0, each_message, NULL) == 0);
    NEED(strlen(rtpush_cursor_text(hub, text)) >= 10);
}

// --- a bus, and the hub's life ---

static int bus_open(void *user, rtpush_hub *hub) {
    (void)user;
    return rtpush_bus_start(hub, "abcdefgh", 0);
}

static int bus_append(void *user, rtpush_hub *hub, const rtpush_publication *what, uint64_t ticket) {
    uint64_t seq = ++*(uint64_t *)user;
    rtpush_message m;
    memset(&m, 0, sizeof m);
    m.topic = what->topic;
    m.event = "";
    m.data = what->data;
    m.size = what->size;
    m.kind = RTPUSH_TEXT;
    m.seq = seq;
    NEED(rtpush_bus_deliver(hub, &m) == RTPUSH_OK);
    rtpush_bus_done(hub, ticket, seq, RTPUSH_OK);
    return RTPUSH_OK;
}

static void bus_close(void *user, rtpush_hub *hub) {
    (void)user;
    (void)hub;
}

static void use_bus(void) {
    uint64_t seq = 0;
    char text[32];
    rtpush_bus bus = {"test", bus_open, bus_append, NULL, bus_close, NULL};
    rtpush_desc desc;
    memset(&desc, 0, sizeof desc);
    bus.user = &seq;
    desc.bus = &bus;
    desc.backend_name = "poll";
    rtpush_hub *hub = rtpush_create(&desc);
    NEED(hub != NULL);
    if (!hub) return;
    NEED(rtpush_publish(hub, "t", "x", 1) == RTPUSH_OK && rtpush_step(hub, 0) == RTPUSH_OK && seq == 1);
    NEED(!strcmp(rtpush_cursor_text(hub, text), "abcdefgh-1"));
    NEED(rtpush_bus_clear(hub, "t", 1) == RTPUSH_OK);
    rtpush_bus_wake(hub);
    rtpush_destroy(hub);
}

static void use_journal(void) {
    rtpush_journal_desc journal;
    rtpush_desc desc;
    int code;
    memset(&journal, 0, sizeof journal);
    memset(&desc, 0, sizeof desc);
    journal.sync_always = true;
    desc.bus = rtpush_journal("/dev/null/no_directory", &journal);
    NEED(desc.bus != NULL);
    NEED(!rtpush_create_ex(&desc, &code) && code == RTPUSH_E_SYSTEM);
}

#ifndef RTPUSH_NO_REDIS
static void use_redis(void) {
    rtpush_redis_desc redis;
    rtpush_desc desc;
    int code;
    memset(&redis, 0, sizeof redis);
    memset(&desc, 0, sizeof desc);
    redis.node = "not a name";
    desc.bus = rtpush_redis("redis://127.0.0.1:1", &redis);
    NEED(desc.bus != NULL);
    NEED(!rtpush_create_ex(&desc, &code) && code == RTPUSH_E_ARGUMENT);
}
#endif

// Without a certificate TLS says no; with OpenSSL it would say why.
static void use_tls(rtpush_hub *hub) {
    rtpush_tls_desc tls;
    memset(&tls, 0, sizeof tls);
    tls.cert = "/no/such/file.pem";
    NEED(rtpush_tls(hub, &tls) == RTPUSH_E_TLS && *rtpush_last_error(hub));
    NEED(rtpush_tls_reload(hub) == RTPUSH_OK);
    NEED(rtpush_adopt_tls_listener(hub, -1) == RTPUSH_E_TLS);
    NEED(rtpush_listen(hub, "https://127.0.0.1:0", NULL) == RTPUSH_E_TLS);
}

static void use_listeners(rtpush_hub *hub) {
    int port = 0, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in any;
    memset(&any, 0, sizeof any);
    any.sin_family = AF_INET;
    any.sin_addr.s_addr = inet_addr("127.0.0.1");
    NEED(rtpush_listen(hub, "http://127.0.0.1:0", &port) == RTPUSH_OK && port > 0);
    NEED(rtpush_listen(hub, "gopher://x", NULL) == RTPUSH_E_URL && rtpush_last_error(hub) != NULL);
    NEED(fd >= 0 && bind(fd, (struct sockaddr *)&any, sizeof any) == 0 && listen(fd, 5) == 0);
    NEED(rtpush_adopt_listener(hub, fd) == RTPUSH_OK);
    use_tls(hub);
}

#ifndef RTPUSH_NO_CLIENT
typedef struct spoken {
    int messages, done, closed;
    rtpush_client client;
} spoken;

static void on_client_message(rtpush_hub *hub, rtpush_client client, const rtpush_message *m, const char *id, void *user) {
    spoken *s = (spoken *)user;
    char cursor[32];
    NEED(client == s->client && m->size == 2 && !memcmp(m->data, "hi", 2) && *id);
    NEED(!strcmp(rtpush_client_cursor(hub, client, cursor), id));
    s->messages++;
}

static void on_client_gap(rtpush_hub *hub, rtpush_client client, const char *from, const char *to, const char *reason, void *user) {
    (void)hub, (void)client, (void)from, (void)to, (void)reason, (void)user;
    need_failed(__LINE__, "no gap was to come");
}

static void on_client_state(rtpush_hub *hub, rtpush_client client, const rtpush_client_status *status, void *user) {
    (void)hub, (void)client;
    ((spoken *)user)->closed += status->state == RTPUSH_CLIENT_CLOSED;
}

static const char *on_client_token(rtpush_hub *hub, rtpush_client client, void *user) {
    (void)hub, (void)client, (void)user;
    return "t";
}

static void on_client_done(rtpush_hub *hub, uint64_t ticket, uint64_t seq, int code, void *user) {
    (void)hub, (void)ticket, (void)seq;
    ((spoken *)user)->done += code == RTPUSH_OK;
}

// A hub talks to itself.
static void use_client(void) {
    spoken s = {0, 0, 0, 0};
    rtpush_desc server;
    rtpush_client_desc desc;
    rtpush_publication what;
    char url[64];
    int port = 0;
    memset(&server, 0, sizeof server);
    memset(&desc, 0, sizeof desc);
    memset(&what, 0, sizeof what);
    rtpush_hub *hub = rtpush_create(&server);
    NEED(hub && rtpush_listen(hub, "http://127.0.0.1:0", &port) == RTPUSH_OK);
    if (!hub) return;
    snprintf(url, sizeof url, "http://127.0.0.1:%d/live/t", port);
    desc.url = url;
    desc.user = &s;
    desc.on_message = on_client_message;
    desc.on_gap = on_client_gap;
    desc.on_state = on_client_state;
    desc.on_token = on_client_token;
    s.client = rtpush_connect(hub, &desc);
    NEED(s.client && rtpush_client_topics(hub, s.client) == 1);
    NEED(rtpush_client_subscribe(hub, s.client, "u/*", NULL) == RTPUSH_OK && rtpush_client_unsubscribe(hub, s.client, "u/*") == RTPUSH_OK);
    NEED(rtpush_client_send(hub, s.client, "x", 1, RTPUSH_TEXT) == RTPUSH_E_STATE);
    what.data = "hi";
    what.size = 2;
    what.done = on_client_done;
    what.done_user = &s;
    NEED(rtpush_client_publish(hub, s.client, &what) == RTPUSH_OK && rtpush_client_pending(hub, s.client) == 1);
    for (int i = 0; i < 2000 && (!s.messages || !s.done); i++) rtpush_step(hub, 5);
    NEED(s.messages == 1 && s.done == 1 && !rtpush_client_pending(hub, s.client));
    NEED(rtpush_client_close(hub, s.client, 1000, "bye") == RTPUSH_OK && s.closed == 1);
    NEED(rtpush_client_close(hub, s.client, 1000, "bye") == RTPUSH_E_GONE);
    rtpush_destroy(hub);
}
#endif

static void use_hub(seen *s) {
    int code = -1;
    rtpush_stats stats;
    rtpush_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.mount = "/live";
    desc.user = s;
    desc.on_open = on_open;
    desc.on_close = on_close;
    desc.on_message = on_message;
    desc.on_publish = on_publish;
    desc.on_request = on_request;
    desc.on_login = on_login;
    desc.on_allow = on_allow;
    desc.on_log = on_log;
    rtpush_hub *hub = rtpush_create_ex(&desc, &code);
    NEED(hub != NULL && code == RTPUSH_OK);
    if (!hub) return;
    NEED(rtpush_user(hub) == s);
    NEED(rtpush_fd(hub) >= -1 && rtpush_timeout(hub) >= -1);
    use_listeners(hub);
    use_http(hub);
    use_websocket(hub, s);
    use_log(hub, s);
    NEED(s->requests == 4 && s->logins > 0 && rtpush_now(hub) > 0);
    rtpush_get_stats(hub, &stats);
    NEED(stats.requests == 6 && stats.published >= 5);
    NEED(rtpush_check(hub) == NULL);
    rtpush_after(hub, 1, stop, NULL);
    NEED(rtpush_run(hub) == RTPUSH_OK);
    NEED(!rtpush_is_draining(hub) && rtpush_drain(hub, 1, 1) == RTPUSH_OK && rtpush_is_draining(hub));
    NEED(rtpush_run(hub) == RTPUSH_OK);
    rtpush_destroy(hub);
}

// --- the parsers ---

static void use_parsers(void) {
    static rtpush_head head;
    rtpush_chunked chunked;
    rtpush_frame frame;
    rtpush_cursor cursor;
    rtpush_slice body;
    unsigned char data[] = {0x81, 0x82, 1, 2, 3, 4, 'h' ^ 1, 'i' ^ 2};
    memset(&chunked, 0, sizeof chunked);
    NEED(rtpush_parse_head(&head, "GET / HTTP/1.0\r\n\r\n", 18, 0, 0, 0) == 18 && is_text(head.path, "/"));
    NEED(rtpush_parse_answer(&head, "HTTP/1.1 204 \r\n\r\n", 17, 0, 0) == 17 && head.status == 204 && head.keep_alive);
    NEED(rtpush_parse_chunked(&chunked, "0\r\n\r\n", 5, &body) == 5 && chunked.is_done);
    NEED(rtpush_parse_frame(&frame, data, sizeof data) == 6 && frame.length == 2);
    NEED(rtpush_mask(data + 6, 2, frame.key, 0) == 2 && !memcmp(data + 6, "hi", 2));
    NEED(rtpush_utf8(0, "a", 1) == 0 && rtpush_is_json("{}", 2));
    NEED(rtpush_parse_cursor(&cursor, "abcdefgh-7", 10) && cursor.seq == 7);
    NEED(rtpush_is_topic("a/b", 3, false) && rtpush_matches("a/*", "a/b"));
}

#ifdef USE_FEW
#ifdef __cplusplus
extern "C"
#endif
int few(void);
#endif

int main(void) {
    static seen s;
    for (int code = 0; code < RTPUSH_CODE_COUNT; code++) NEED(rtpush_strerror(code)[0] != 0);
    use_parsers();
    use_bus();
    use_journal();
#ifndef RTPUSH_NO_REDIS
    use_redis();
#endif
    use_hub(&s);
#ifndef RTPUSH_NO_CLIENT
    use_client();
#endif
#ifdef USE_FEW
    NEED(few() == 0);
#endif
    return failures ? 1 : 0;
}
