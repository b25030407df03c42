// The client behind a proxy that cuts, stalls, truncates, delays, delivers byte by byte, answers 502 and refuses:
// nothing is lost, nothing comes twice, each publish is published once, and what the history no longer has is told.
//
//     cc -std=c99 -g -fsanitize=address,undefined tests/client_c/faults.c -o build/client_faults -pthread && build/client_faults
//     FAULTS_LONG=1    10,000 messages over each transport instead of some hundreds
//     FAULTS_SEED=N    other faults
//
// Server, proxy, client and a publisher from outside take turns on one thread.
#include "lib.h"

// ============================================================================
// the proxy
// ============================================================================

enum fault { CUT_RST, CUT_FIN, STALL, BYTEWISE, DELAY, BAD_GATEWAY, REFUSAL, BLOCKED, FAULT_KINDS };
static const char *const fault_names[FAULT_KINDS] = {"resets", "ends", "stalls", "byte by byte", "delays", "502", "refusals", "blocked"};
enum kind { UNKNOWN, SOCKET, EVENTS, LONG_POLL, SHORT_POLL, POST, KINDS };

enum { PAIRS_MAX = 16, PIPE = 32768 };

// One connection through it. Side 0 is the client's, 1 the server's; pipe[i] has what side i sent.
typedef struct pair {
    int fd[2]; // -1: none
    char pipe[2][PIPE];
    size_t size[2];
    bool has_ended[2], is_refused; // refused: it gets a 502
    int kind;
    enum fault fault;
    size_t left;   // the fault strikes after so many bytes, of either side
    size_t slow;   // that many bytes of the answer come one by one
    int delay;     // each piece waits up to so long
    uint64_t held_until;
    bool is_in_head;
} pair;

static struct {
    int listener, port, target;
    uint64_t closed_until, blocked_until;
    bool is_clean;      // no new faults: the end of a run
    bool is_blocking;   // some transports do not pass
    unsigned blocked;   // bits of kind
    pair pairs[PAIRS_MAX];
    long faults[FAULT_KINDS], in_head, in_chunk, in_frame, in_body, connections;
} proxy;

static void pair_end(pair *p, bool is_hard) {
    for (int i = 0; i < 2; i++) {
        if (p->fd[i] < 0) continue;
        if (is_hard) reset(p->fd[i]);
        else close(p->fd[i]);
        p->fd[i] = -1;
    }
}

// When the next thing happens to it: mostly early, sometimes after much has passed.
static void pair_plan(pair *p) {
    static const unsigned scales[] = {60, 400, 800, 2000, 2000, 6000, 6000, 20000, 400000};
    static const enum fault kinds[] = {CUT_RST, CUT_RST, CUT_FIN, CUT_FIN, CUT_FIN, STALL};
    p->fault = kinds[chance(COUNT(kinds))];
    p->left = 1 + chance(scales[chance(COUNT(scales))]);
    if (!chance(8)) p->slow = 1 + chance(1500), proxy.faults[BYTEWISE]++;
    p->delay = chance(8) ? 0 : 1 + (int)chance(15);
    if (p->delay) proxy.faults[DELAY]++;
}

static void pair_begin(int fd) {
    pair *p = proxy.pairs;
    while (p < proxy.pairs + PAIRS_MAX && p->fd[0] >= 0) p++;
    if (p == proxy.pairs + PAIRS_MAX) { reset(fd); return; }
    memset(p, 0, sizeof *p);
    unblock(fd);
    p->fd[0] = fd;
    p->is_in_head = true;
    p->is_refused = !proxy.is_clean && !chance(12);
    p->fd[1] = p->is_refused ? -1 : dial_at(proxy.target);
    p->left = SIZE_MAX;
    if (!proxy.is_clean) pair_plan(p);
    proxy.connections++;
}

static int kind_of(const char *head) {
    if (!strncmp(head, "POST ", 5)) return POST;
    if (strstr(head, "Upgrade: websocket")) return SOCKET;
    if (strstr(head, "text/event-stream")) return EVENTS;
    return strstr(head, "wait=") ? LONG_POLL : SHORT_POLL;
}

// Where in the answer it was truncated.
static void count_place(const pair *p) {
    if (p->is_in_head) proxy.in_head++;
    else if (p->kind == SOCKET) proxy.in_frame++;
    else if (p->kind == EVENTS) proxy.in_chunk++;
    else proxy.in_body++;
}

static void pair_strike(pair *p) {
    enum fault fault = p->fault;
    proxy.faults[fault]++;
    if (fault == STALL) {
        p->held_until = real_ms() + 200 + chance(1300);
        pair_plan(p);
        return;
    }
    count_place(p);
    pair_end(p, fault == CUT_RST);
}

static void pair_502(pair *p) {
    static const char answer[] = "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 41\r\nConnection: close\r\n\r\n<html><body>502 Bad Gateway</body></html>";
    proxy.faults[BAD_GATEWAY]++;
    if (send(p->fd[0], answer, sizeof answer - 1, MSG_NOSIGNAL) < 0) proxy.faults[CUT_RST]++;
    shutdown(p->fd[0], SHUT_WR);
    pair_end(p, false);
}

// A blocked transport: a 502, nothing at all for a while and then the end, or the end at once.
static void pair_block(pair *p) {
    proxy.faults[BLOCKED]++;
    switch (chance(3)) {
    case 0: pair_502(p); return;
    case 1: pair_end(p, true); return;
    default:
        p->held_until = real_ms() + 300 + chance(500);
        p->left = 0;
        p->fault = CUT_FIN;
    }
}

// The head of a request has come, or more bytes of what is known.
static void pair_look(pair *p) {
    char *head = p->pipe[0];
    size_t size = p->size[0] < PIPE - 1 ? p->size[0] : PIPE - 1;
    char kept = head[size];
    head[size] = 0;
    bool is_whole = strstr(head, "\r\n\r\n") != NULL;
    if (is_whole && p->kind != SOCKET && p->kind != EVENTS) p->kind = kind_of(head), p->is_in_head = true;
    head[size] = kept;
    if (is_whole && p->is_refused) pair_502(p);
    else if (is_whole && proxy.is_blocking && proxy.blocked >> p->kind & 1 && p->held_until < real_ms() && p->left) pair_block(p);
}

static void pair_receive(pair *p, int i) {
    size_t room = PIPE - p->size[i];
    if (p->fd[i] < 0 || p->has_ended[i] || !room) return;
    ssize_t n = recv(p->fd[i], p->pipe[i] + p->size[i], room, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) p->has_ended[i] = true;
    else p->size[i] += (size_t)n;
    if (n > 0 && i == 0) pair_look(p);
}

// How much of what side i sent may go on now.
static size_t pair_allowance(const pair *p, int i) {
    size_t n = p->size[i] < p->left ? p->size[i] : p->left;
    return i == 1 && p->slow && n > 1 ? 1 : n;
}

static void pair_forward(pair *p, int i) {
    size_t n = pair_allowance(p, i);
    if (n && p->fd[!i] >= 0) {
        ssize_t sent = send(p->fd[!i], p->pipe[i], n, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != EINTR) { pair_end(p, false); return; }
        n = sent > 0 ? (size_t)sent : 0;
        if (i == 1 && n && p->is_in_head) p->is_in_head = !memmem(p->pipe[1], p->size[1], "\r\n\r\n", 4);
        p->size[i] -= n;
        memmove(p->pipe[i], p->pipe[i] + n, p->size[i]);
        if (p->left != SIZE_MAX) p->left -= n;
        if (i == 1 && p->slow) p->slow -= p->slow < n ? p->slow : n;
        if (n && p->delay) p->held_until = real_ms() + chance((unsigned)p->delay);
    }
    if (!p->left) pair_strike(p);
    else if (p->has_ended[i] && !p->size[i]) pair_end(p, false);
}

static void proxy_accept(void) {
    uint64_t now = real_ms();
    if (proxy.listener < 0 && now >= proxy.closed_until) proxy.listener = listen_at(&proxy.port);
    for (int fd; proxy.listener >= 0 && (fd = accept(proxy.listener, NULL, NULL)) >= 0;) {
        if (proxy.is_clean || chance(50)) { pair_begin(fd); continue; }
        reset(fd);
        close(proxy.listener); // whoever comes now is refused
        proxy.listener = -1;
        proxy.closed_until = now + 20 + chance(180);
        proxy.faults[REFUSAL]++;
    }
    if (!proxy.is_blocking || now < proxy.blocked_until) return;
    proxy.blocked_until = now + 200 + chance(400);
    proxy.blocked = proxy.is_clean ? 0 : (chance(16) << 1) & ~(1u << (1 + chance(4))); // one passes, at least
}

static void proxy_turn(void) {
    uint64_t now = real_ms();
    proxy_accept();
    for (pair *p = proxy.pairs; p < proxy.pairs + PAIRS_MAX; p++) {
        if (p->fd[0] < 0) continue;
        for (int i = 0; i < 2; i++) pair_receive(p, i);
        for (int i = 0; i < 2 && p->fd[0] >= 0 && now >= p->held_until; i++) pair_forward(p, i);
    }
}

static void proxy_open(int target) {
    memset(&proxy, 0, sizeof proxy);
    proxy.target = target;
    proxy.listener = listen_at(&proxy.port);
    for (int i = 0; i < PAIRS_MAX; i++) proxy.pairs[i].fd[0] = proxy.pairs[i].fd[1] = -1;
    if (proxy.listener < 0) wrong(__LINE__, "the proxy cannot listen");
}

static void proxy_close(void) {
    for (int i = 0; i < PAIRS_MAX; i++) pair_end(&proxy.pairs[i], false);
    if (proxy.listener >= 0) close(proxy.listener);
}

// ============================================================================
// what is published, by whom, and what is read
// ============================================================================

enum { MESSAGES_MAX = 12000, TOPICS = 5, DATA_MAX = 80000, BOTH = 2 };
static const char *const names[TOPICS] = {"n", "w/a", "w/b", "m", "k"};

static struct {
    long total, burst;                 // how many there are to be; published at once, when it bursts
    int topics;                        // over so many topics
    long given[BOTH], answered[BOTH];  // 0: by the client, 1: by POSTs
    uint64_t seq_of[MESSAGES_MAX];     // of the client's, what `done` said
    int done_calls[MESSAGES_MAX];
    rtpush_client client;
    long messages, lost, doubled, foreign, gaps, idle_gaps, connects, opens;
    uint64_t last, gap_to;
    bool has_gap, is_over, is_short; // short: of history
    uint64_t seqs[TOPICS][MESSAGES_MAX]; // what came, by topic
    long counts[TOPICS];
    uint64_t late_from;                  // the first of topic `k` that came, and how many there were by then
    long late_held;
    char reason[200];
    uint64_t moved; // when anything last came
    int poster;     // a socket
    size_t matched; // of the text below
    size_t said, say_size;
    long noted;
    char say[DATA_MAX + 500];
} world;

// What the n-th message of a publisher says; the same each time.
static size_t content(int by, long n, char *data, int *kind) {
    size_t fill = n % 401 == 7 ? 70000 : (size_t)(n * 37 % 300), size;
    *kind = by ? RTPUSH_TEXT : n % 5 == 1 ? RTPUSH_JSON : n % 5 == 2 ? RTPUSH_BINARY : RTPUSH_TEXT;
    size = (size_t)snprintf(data, 100, *kind == RTPUSH_JSON ? "[%d,%ld,\"" : "%d %ld \xc3\xa9\"\\\n", by, n);
    for (size_t i = 0; i < fill; i++) data[size++] = *kind == RTPUSH_BINARY ? (char)(i * 7) : (char)('a' + i % 26);
    if (*kind == RTPUSH_BINARY) data[size++] = (char)0xff;
    if (*kind == RTPUSH_JSON) memcpy(data + size, "\"]", 2), size += 2;
    return size;
}

static int topic_of(long n) { return world.topics == 1 ? 0 : (int)(n % world.topics); }

static void on_done(rtpush_hub *hub, uint64_t ticket, uint64_t seq, int code, void *user) {
    long n = (long)(intptr_t)user;
    (void)hub, (void)ticket;
    if (code) wrong(__LINE__, "a publish ends with \"%s\"", rtpush_strerror(code));
    if (world.done_calls[n]++) wrong(__LINE__, "done is called twice for message %ld", n);
    world.seq_of[n] = seq;
    world.answered[0]++;
    world.moved = real_ms();
}

static void publish_one(void) {
    static char data[DATA_MAX];
    char event[32];
    long n = world.given[0];
    rtpush_publication what;
    memset(&what, 0, sizeof what);
    what.topic = world.topics == 1 ? NULL : names[topic_of(n)];
    what.event = event;
    what.data = data;
    what.size = content(0, n, data, &what.kind);
    what.done = on_done;
    what.done_user = (void *)(intptr_t)n;
    snprintf(event, sizeof event, "0 %ld", n);
    int code = rtpush_client_publish(loop, world.client, &what);
    if (code) wrong(__LINE__, "rtpush_client_publish: %s", rtpush_strerror(code));
    world.given[0]++;
}

// The publisher from outside: one POST after another, over one connection past the proxy.
static void post_one(void) {
    static char data[DATA_MAX];
    int kind;
    long n = world.given[1];
    size_t size = content(1, n, data, &kind);
    int head = snprintf(world.say, 400, "POST /live/%s?event=1%%20%ld HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n", names[topic_of(n)], n, size);
    memcpy(world.say + head, data, size);
    world.say_size = (size_t)head + size;
    world.said = 0;
    world.given[1]++;
}

static void poster_turn(void) {
    static const char good[] = "HTTP/1.1 20";
    char in[4096];
    ssize_t n = world.said < world.say_size ? send(world.poster, world.say + world.said, world.say_size - world.said, MSG_NOSIGNAL) : 0;
    if (n > 0) world.said += (size_t)n;
    n = recv(world.poster, in, sizeof in, 0);
    if (!n) wrong(__LINE__, "the server has closed the publisher's connection");
    for (ssize_t i = 0; i < n; i++) {
        world.matched = in[i] == good[world.matched] ? world.matched + 1 : in[i] == good[0];
        if (good[world.matched]) continue;
        world.matched = 0;
        world.answered[1]++;
        world.moved = real_ms();
    }
}

// --- reading ---

static char trail[8000]; // what happened, its end: printed with a failure

static void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *format, ...) {
    char line[300];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (world.noted++ >= 40) return;
    size_t have = strlen(trail);
    snprintf(trail + have, sizeof trail - have, "#    after %ld messages: %.*s\n", world.messages, n, line);
}

// One topic: the numbers have no hole, but for a gap that was told.
static void see_in_order(uint64_t seq) {
    if (seq <= world.last) { note("%" PRIu64 " came again, behind %" PRIu64, seq, world.last); world.doubled++; return; }
    bool is_jump = seq != world.last + 1 && (world.last || !world.is_short); // "earliest" is what is held then
    if (is_jump && !world.has_gap) note("%" PRIu64 " came behind %" PRIu64 " without a gap", seq, world.last), world.lost += (long)(seq - world.last - 1);
    if (is_jump && world.has_gap && seq != world.gap_to + 1) wrong(__LINE__, "a gap to %" PRIu64 " was told, and %" PRIu64 " follows", world.gap_to, seq);
    if (!is_jump && world.has_gap) world.idle_gaps++;
    world.has_gap = false;
    world.last = seq;
}

static void see_topic(int topic, uint64_t seq) {
    long *count = &world.counts[topic];
    if (*count && seq <= world.seqs[topic][*count - 1]) { note("%" PRIu64 " of topic %s came behind %" PRIu64, seq, names[topic], world.seqs[topic][*count - 1]); world.doubled++; return; }
    if (*count < MESSAGES_MAX) world.seqs[topic][(*count)++] = seq;
}

static bool count_one(const rtpush_message *m, void *user) { return (void)m, ++*(long *)user, true; }

static void on_message(rtpush_hub *hub, rtpush_client client, const rtpush_message *m, const char *id, void *user) {
    static char data[DATA_MAX];
    int by = -1, kind, topic = 0;
    long n = -1;
    rtpush_cursor cursor;
    (void)hub, (void)client, (void)user;
    world.moved = real_ms();
    world.messages++;
    if (sscanf(m->event, "%d %ld", &by, &n) != 2 || by < 0 || by > 1 || n < 0 || n >= world.given[by]) { wrong(__LINE__, "a message of nobody: event \"%.50s\"", m->event); return; }
    size_t size = content(by, n, data, &kind);
    if (m->kind != kind || m->size != size || memcmp(m->data, data, size)) wrong(__LINE__, "message %d %ld came as another: kind %d, %zu bytes", by, n, m->kind, m->size);
    if (!rtpush_parse_cursor(&cursor, id, strlen(id)) || cursor.seq != m->seq) wrong(__LINE__, "its id is \"%s\", its seq %" PRIu64, id, m->seq);
    if (!by && world.seq_of[n] && world.seq_of[n] != m->seq) wrong(__LINE__, "message %ld was acknowledged as %" PRIu64 " and read as %" PRIu64, n, world.seq_of[n], m->seq);
    if (!by) world.seq_of[n] = m->seq;
    if (strcmp(m->topic, names[topic_of(n)])) wrong(__LINE__, "message %d %ld came in topic %s", by, n, m->topic);
    if (world.topics == 1) { see_in_order(m->seq); return; }
    topic = topic_of(n);
    if (topic == 4 && !world.counts[4]) {
        world.late_from = m->seq;
        rtpush_history(server, "k", 0, count_one, &world.late_held);
    }
    see_topic(topic, m->seq);
}

static void on_gap(rtpush_hub *hub, rtpush_client client, const char *from, const char *to, const char *reason, void *user) {
    rtpush_cursor cursor;
    (void)hub, (void)client, (void)user;
    note("a gap from %s to %s", from, to);
    world.gaps++;
    world.has_gap = true;
    if (strcmp(reason, "evicted")) wrong(__LINE__, "a gap for the reason %s", reason);
    if (!rtpush_parse_cursor(&cursor, to, strlen(to))) wrong(__LINE__, "a gap to \"%s\"", to);
    else world.gap_to = cursor.seq;
}

static void on_state(rtpush_hub *hub, rtpush_client client, const rtpush_client_status *status, void *user) {
    (void)hub, (void)client, (void)user;
    world.connects += status->state == RTPUSH_CLIENT_CONNECTING;
    world.opens += status->state == RTPUSH_CLIENT_OPEN;
    if (status->code) snprintf(world.reason, sizeof world.reason, "%s: %.150s", rtpush_strerror(status->code), status->reason);
    if (status->state == RTPUSH_CLIENT_CLOSED && !world.is_over) wrong(__LINE__, "the client has given up: %s", world.reason);
    if (status->code == RTPUSH_E_PROTOCOL) wrong(__LINE__, "the client takes a fault for a broken protocol: %s", world.reason);
}

// ============================================================================
// a run
// ============================================================================

static bool is_long;

static void turn_all(void) {
    struct pollfd fds[2 * PAIRS_MAX + 4];
    nfds_t count = 0;
    int wait = least_wait(5);
    for (pair *p = proxy.pairs; p < proxy.pairs + PAIRS_MAX; p++) {
        if (p->fd[0] >= 0 && p->slow && p->size[1] && real_ms() >= p->held_until) wait = 0;
        for (int i = 0; i < 2; i++)
            if (p->fd[i] >= 0 && !p->has_ended[i] && p->size[i] < PIPE) fds[count++] = (struct pollfd){p->fd[i], POLLIN, 0};
    }
    fds[count++] = (struct pollfd){rtpush_fd(server), POLLIN, 0};
    fds[count++] = (struct pollfd){rtpush_fd(loop), POLLIN, 0};
    fds[count++] = (struct pollfd){world.poster, POLLIN, 0};
    fds[count++] = (struct pollfd){proxy.listener, POLLIN, 0};
    if (world.said < world.say_size) wait = 0;
    poll(fds, count, wait);
    rtpush_step(server, 0);
    proxy_turn();
    rtpush_step(loop, 0);
    poster_turn();
}

static long published(void) { return world.answered[0] + world.answered[1]; }

// Publishers give what they may: not far ahead of what is answered, nor (without bursts) of what is read.
static void give(void) {
    long ahead = world.given[0] + world.given[1] - world.messages, room = world.burst ? world.total : 150;
    long half = world.total / 2;
    if (world.topics > 1) ahead = world.given[0] + world.given[1] - TOPICS * world.counts[0]; // by a topic that is read all along
    if (world.given[0] < half && world.given[0] - world.answered[0] < 20 && ahead < room) publish_one();
    if (world.given[1] < half && world.given[1] == world.answered[1] && world.said == world.say_size && ahead < room) {
        if (!world.burst || chance(100) < 90 || world.given[1] % world.burst) post_one();
    }
}

static void world_begin(const char *transports, const rtpush_client_desc *more, long total, int64_t history) {
    rtpush_desc d;
    rtpush_client_desc c = *more;
    char url[80];
    int port = 0, code;
    const char *given = getenv("FAULTS_SEED");
    memset(&world, 0, sizeof world);
    memset(&d, 0, sizeof d);
    seed = UINT64_C(0x9e3779b97f4a7c15) * (1 + strtoull(given ? given : "1", NULL, 10)) ^ strlen(transports);
    world.total = total;
    world.topics = 1;
    d.history = history;
    d.history_bytes = d.history_total_bytes = INT64_C(1) << 30;
    d.heartbeat_ms = d.sse_heartbeat_ms = 300;
    d.sse_retry_ms = 20;
    d.dead_ms = 1000;
    d.poll_max_ms = 1000;
    d.idle_timeout_ms = 3600000; // the publisher from outside may be through long before the client
    server = make(&d);
    code = rtpush_listen(server, "http://127.0.0.1:0", &port);
    if (code) wrong(__LINE__, "rtpush_listen: %s", rtpush_strerror(code));
    memset(&d, 0, sizeof d);
    loop = make(&d);
    proxy_open(port);
    world.poster = dial_at(port);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/live%s", proxy.port, c.url ? c.url : "/n");
    c.url = url;
    c.transports = transports;
    c.backoff_ms = 20;
    c.backoff_max_ms = 100;
    c.connect_timeout_ms = 1000;
    c.silence_ms = 700;
    c.wait_ms = 1000;
    c.interval_ms = 5;
    c.on_message = on_message;
    c.on_gap = on_gap;
    c.on_state = on_state;
    world.client = rtpush_connect(loop, &c);
    world.moved = real_ms();
    if (!world.client) wrong(__LINE__, "rtpush_connect: %s", rtpush_last_error(loop));
}

// Turns until `is_there`, or nothing has moved for long.
static void go(bool (*is_there)(void)) {
    while (!*why && !is_there()) {
        give();
        turn_all();
        if (real_ms() - world.moved < 20000) continue;
        wrong(__LINE__, "it stands still: %ld of %ld published (%ld and %ld), %ld messages read, last %" PRIu64 "; %s", published(), world.total, world.answered[0], world.answered[1], world.messages, world.last, world.reason);
    }
}

static uint64_t began;

static void world_end(const char *name) {
    rtpush_stats stats;
    rtpush_get_stats(server, &stats);
    if (!*why) CHECK_INT(stats.published, world.total);
    if (!*why) CHECK_INT(rtpush_client_pending(loop, world.client), 0);
    for (long n = 0; n < world.given[0] && !*why; n++) CHECK_INT(world.done_calls[n], 1);
    printf("# %s: %ld messages read, %ld published by the client, %ld by POST; %ld lost, %ld doubled, %ld gaps (%ld of them with nothing missing); %ld connections, %ld opens, %.1f s\n#    ",
           name, world.messages, world.answered[0], world.answered[1], world.lost, world.doubled, world.gaps, world.idle_gaps, world.connects, world.opens, (double)(real_ms() - began) / 1000);
    for (int i = 0; i < FAULT_KINDS; i++) printf(" %ld %s,", proxy.faults[i], fault_names[i]);
    printf(" truncated: %ld in a head, %ld in a chunk, %ld in a frame, %ld in a body\n", proxy.in_head, proxy.in_chunk, proxy.in_frame, proxy.in_body);
    if (world.lost + world.doubled || *why) fputs(trail, stdout);
    world.is_over = true;
    rtpush_destroy(loop);
    rtpush_destroy(server);
    close(world.poster);
    proxy_close();
}

static bool is_read(void) { return published() == world.total && world.last == (uint64_t)world.total; }

static void over(const char *name, const char *transports, bool is_blocking) {
    rtpush_client_desc c;
    memset(&c, 0, sizeof c);
    began = real_ms();
    c.since = "earliest";
    c.remember_ms = 300;
    world_begin(transports, &c, is_long ? 10000 : 300, 20000);
    proxy.is_blocking = is_blocking;
    go(is_read);
    world_end(name);
    CHECK_INT(world.lost, 0);
    CHECK_INT(world.doubled, 0);
    CHECK_INT(world.gaps, 0);
    if (!*why) CHECK_INT(world.messages, world.total);
}

static void all_arrive_once_over_websocket(void) { over("websocket", "websocket", false); }
static void all_arrive_once_over_sse(void) { over("sse", "sse", false); }
static void all_arrive_once_over_long_polls(void) { over("longpoll", "longpoll", false); }
static void all_arrive_once_over_short_polls(void) { over("shortpoll", "shortpoll", false); }
static void all_arrive_once_over_what_is_not_blocked(void) { over("all", "websocket,sse,longpoll,shortpoll", true); }

// A history of 50, and many published at once while the client is cut off.
static void short_of_history(const char *name, const char *transports) {
    rtpush_client_desc c;
    memset(&c, 0, sizeof c);
    began = real_ms();
    c.since = "earliest";
    world_begin(transports, &c, is_long ? 4000 : 400, 50);
    world.burst = 200;
    world.is_short = true;
    go(is_read);
    world_end(name);
    CHECK_INT(world.lost, 0);
    CHECK_INT(world.doubled, 0);
}

static void each_jump_is_told_over_websocket(void) { short_of_history("websocket, history 50", "websocket"); }
static void each_jump_is_told_over_sse(void) { short_of_history("sse, history 50", "sse"); }
static void each_jump_is_told_over_long_polls(void) { short_of_history("longpoll, history 50", "longpoll"); }
static void each_jump_is_told_over_short_polls(void) { short_of_history("shortpoll, history 50", "shortpoll"); }

// --- more topics, and late ones ---

static uint64_t truth[MESSAGES_MAX];
static long truth_count;

static bool note_truth(const rtpush_message *m, void *user) {
    (void)user;
    truth[truth_count++] = m->seq;
    return true;
}

// Is what came of the topic the end of what there is of it?
static bool has_end_of(int topic) {
    truth_count = 0;
    rtpush_history(server, names[topic], 0, note_truth, NULL);
    long count = world.counts[topic];
    return count && world.seqs[topic][count - 1] == truth[truth_count - 1];
}

static bool is_all_read(void) {
    if (published() != world.total) return false;
    for (int topic = 0; topic < TOPICS; topic++)
        if (!has_end_of(topic)) return false;
    return true;
}

static bool is_third(void) { return published() >= world.total / 3; }
static bool is_half(void) { return published() >= world.total / 2; }

// least: so many must have come, counted from the end; -1: all.
static void check_topic(int topic, long least) {
    has_end_of(topic);
    long count = world.counts[topic], from = truth_count - count;
    if (least < 0) least = truth_count;
    if (count < least || from < 0) { wrong(__LINE__, "%ld of %ld came of topic %s, at least %ld are due", count, truth_count, names[topic], least); return; }
    for (long i = 0; i < count; i++)
        if (world.seqs[topic][i] != truth[from + i]) { wrong(__LINE__, "the message %" PRIu64 " of topic %s came where %" PRIu64 " was due", world.seqs[topic][i], names[topic], truth[from + i]); return; }
}

static void late_topics(const char *name, const char *transports, bool is_blocking) {
    rtpush_client_desc c;
    memset(&c, 0, sizeof c);
    began = real_ms();
    c.since = "earliest";
    c.remember_ms = 300;
    c.url = "/n?topic=w/*&topic=w/a";
    world_begin(transports, &c, is_long ? 5000 : 250, 20000);
    world.topics = TOPICS;
    proxy.is_blocking = is_blocking;
    go(is_third);
    CHECK_CODE(rtpush_client_subscribe(loop, world.client, "m", "earliest"), RTPUSH_OK);
    go(is_half);
    long before = 0;
    rtpush_history(server, "k", 0, count_one, &before);
    CHECK_CODE(rtpush_client_subscribe(loop, world.client, "k", "-20"), RTPUSH_OK);
    go(is_all_read);
    for (int i = 0; i < 200 && !*why; i++) turn_all(); // what would come twice may come now
    for (int topic = 0; topic < 4 && !*why; topic++) check_topic(topic, -1);
    if (!*why) check_topic(4, 20);
    if (!*why && truth_count - world.counts[4] < before - 20) wrong(__LINE__, "more than the last 20 came of a topic's past");
    if (!*why && truth_count - world.counts[4] > world.late_held - 20) wrong(__LINE__, "less than the last 20 came of a topic's past");
    world_end(name);
    CHECK_INT(world.doubled, 0);
    CHECK_INT(world.gaps, 0);
}

static void late_topics_over_websocket(void) { late_topics("websocket, late topics", "websocket", false); }
static void late_topics_over_sse(void) { late_topics("sse, late topics", "sse", false); }
static void late_topics_over_long_polls(void) { late_topics("longpoll, late topics", "longpoll", false); }
static void late_topics_over_short_polls(void) { late_topics("shortpoll, late topics", "shortpoll", false); }
static void late_topics_over_what_is_not_blocked(void) { late_topics("all, late topics", "websocket,sse,longpoll,shortpoll", true); }

int main(int argc, char **argv) {
    int status = begin(argc, argv);
    if (status) return status;
    is_long = getenv("FAULTS_LONG") && *getenv("FAULTS_LONG") == '1';
    RUN(all_arrive_once_over_websocket);
    RUN(all_arrive_once_over_sse);
    RUN(all_arrive_once_over_long_polls);
    RUN(all_arrive_once_over_short_polls);
    RUN(all_arrive_once_over_what_is_not_blocked);
    RUN(each_jump_is_told_over_websocket);
    RUN(each_jump_is_told_over_sse);
    RUN(each_jump_is_told_over_long_polls);
    RUN(each_jump_is_told_over_short_polls);
    RUN(late_topics_over_websocket);
    RUN(late_topics_over_sse);
    RUN(late_topics_over_long_polls);
    RUN(late_topics_over_short_polls);
    RUN(late_topics_over_what_is_not_blocked);
    return end();
}
