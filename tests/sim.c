// The simulator: the whole server on a virtual network and a virtual clock, in one process without threads.
//
//   cc -std=c99 -D_GNU_SOURCE -g -O1 -fsanitize=address,undefined tests/sim.c -o build/sim -lpthread
//   build/sim [--lives N] [--first SEED]     the seeds of sim_seeds.txt, then N lives (2000), the scenarios
//   build/sim --seed SEED [--verbose]        one life again; --verbose tells what happens in it
//   build/sim --stall | --nth [N] | --self   one scenario alone
//
// One seed is one life: the limits, the faults, the clients, the host's calls and the server's random bytes
// all come from it. The clients remember what they were told and are the oracle; the rules they hold the
// server to are the texts given to broke(). Nothing but the public API is used.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RTPUSH_IMPLEMENTATION
#include "../rtpush.h"

#define NEVER UINT64_MAX

// ============================================================================
// bytes and chance
// ============================================================================

typedef struct buf {
    unsigned char *p;
    size_t n, cap;
} buf;

static void *must(void *p) {
    if (!p) {
        fprintf(stderr, "sim: out of memory\n");
        exit(3);
    }
    return p;
}

static void buf_put(buf *b, const void *data, size_t n) {
    if (b->n + n + 1 > b->cap) {
        b->cap = (b->n + n + 1) * 2;
        b->p = must(realloc(b->p, b->cap));
    }
    if (n) memcpy(b->p + b->n, data, n);
    b->n += n;
    b->p[b->n] = 0; // so that it may be read as a string
}

static void buf_str(buf *b, const char *s) { buf_put(b, s, strlen(s)); }

static void buf_byte(buf *b, unsigned c) {
    unsigned char x = (unsigned char)c;
    buf_put(b, &x, 1);
}

#if defined(__GNUC__)
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))
#else
#define PRINTF_LIKE(f, a)
#endif

static void buf_fmt(buf *b, const char *format, ...) PRINTF_LIKE(2, 3);
static void buf_fmt(buf *b, const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    buf_put(b, text, n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

static void buf_cut(buf *b, size_t n) {
    if (n == 0) return;
    memmove(b->p, b->p + n, b->n - n);
    b->n -= n;
    b->p[b->n] = 0;
}

static void buf_free(buf *b) {
    free(b->p);
    memset(b, 0, sizeof *b);
}

static uint64_t mix(uint64_t x) { // splitmix64's finish
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint64_t rng_next(uint64_t *state) { return mix(*state += 0x9e3779b97f4a7c15u); }

// ============================================================================
// the world
// ============================================================================

enum { FD_BASE = 1000, FDS = 128, CONNS = 256, CLIENTS = 24, SLOTS = 12, SESSIONS = 512, TIMERS = 512, TRIES = 4 };

typedef struct segment {
    uint64_t at;
    size_t n;
} segment;

// One direction of a connection: bytes on their way and bytes that have arrived, `limit` in all.
typedef struct flow {
    buf bytes;
    segment seg[64];
    int segs;
    size_t ready;
    size_t limit;
    uint64_t last_at; // when the newest of it arrives
    bool is_ended;
    uint64_t end_at; // when the end (FIN) arrives
} flow;

typedef struct vconn {
    bool is_used, is_accepted, is_reset;
    bool server_closed, client_closed;
    uint64_t arrive_at; // at the listener
    unsigned latency;
    flow up, down; // to the server, to the client
    int owner;
} vconn;

typedef struct vfd {
    bool is_open, is_listener;
    vconn *conn;
    unsigned watched;
    uint64_t tag;
} vfd;

enum via { VIA_POST, VIA_ENVELOPE, VIA_RAW, VIA_API, VIA_BUS, VIA_COUNT };

// What somebody wants to publish, once. A retry with its idempotency key is the same publication.
typedef struct pub {
    char topic[80], event[16], key[24];
    unsigned char *data;
    size_t size;
    int kind;
    bool is_ephemeral;
    int via, owner;
    uint64_t seq; // 0: not known
    int tries, refusals;
    uint64_t first_ms;
    bool answered;
} pub;

typedef struct session_record { // the open ones, and for a while the closed ones
    rtpush_session handle;
    bool is_open;
} session_record;

typedef struct limits {
    // what the life is like
    bool is_clean, has_login, has_presence, has_bus, has_callbacks, has_alloc_faults, has_on_message, host_loop, clock_ticks;
    bool may_refuse; // limits are so small that some clients find no place
    bool is_suicidal, is_crowded; // crowded: many readers of one topic
    unsigned p_short, p_eagain, p_eintr, p_reset, p_accept, p_alloc, p_small_limit, p_stall; // of 65536
    unsigned latency_max;
    int readers, posters, vandals;
    unsigned steps_max;
    uint64_t chaos_ms;
    size_t data_max;
} limits;

typedef struct bus_item {
    uint32_t pub; // 0: the library's own message (presence), which is `own` on `topic`
    char topic[80];
    buf own;
    uint64_t ticket, deliver_at, done_at, seq;
    int code, kind;
    bool is_delivered, is_done;
} bus_item;

typedef struct world {
    uint64_t seed, rng, server_rng;
    uint64_t now, started;
    int64_t wall_offset;
    limits is;
    rtpush_desc desc;
    rtpush_backend backend;
    rtpush_sys sys;
    rtpush_bus bus;
    rtpush_hub *hub;
    bool is_destroyed, is_closing, is_draining, is_calm, is_failed;
    uint64_t calm_since;
    vfd fds[FDS];
    vconn conns[CONNS];
    uint64_t famine_until; // accept says EMFILE
    uint64_t host_closed;  // when the host closed a session last
    bool has_progress;
    unsigned idle_waits, waits_in_step;
    int64_t promised_timeout; // what rtpush_timeout said before the step, -2: nothing
    // the oracle's memory
    pub *pubs;
    uint32_t pub_count, pub_cap;
    uint32_t *by_seq; // seq - base -> publication + 1
    uint64_t seq_cap;
    char epoch[9];
    uint64_t head, highest_seen;
    uint32_t expected_pub; // on_publish said yes to it: it is to get expected_seq
    uint64_t expected_seq;
    session_record sessions[SESSIONS];
    int session_count;
    int depth; // of callbacks
    int posts_sent, posts_run, timers_set, timers_run, timer_count;
    uint64_t timer_due[TIMERS];
    // the bus
    bus_item *items;
    size_t item_count, item_cap, items_open;
    uint64_t bus_head;
    // memory
    size_t live_bytes, live_blocks, peak_bytes, base_bytes;
    uint64_t alloc_calls, fail_at, alloc_failed;
    unsigned hurt; // connections ended by the server, 5xx and E_MEMORY: for the n-th allocation
    uint64_t hash; // over all that the server sent and when
} world;

static world W;
static bool is_verbose;

// What the lives exercised, over all of them.
static struct totals {
    uint64_t lives, virtual_ms, steps, waits, up, down, conns, published[VIA_COUNT], received[8], replays, gaps, acks, heartbeats, keyed_retries;
    uint64_t sessions, reconnects, changes, answers, refusals, polls, not_modified, slow_closes, stalls, pings, closes, drains, epochs, directs, probes;
    uint64_t f_short, f_eagain, f_eintr, f_reset, f_accept, f_alloc, f_famine, f_half, f_peer_gone, f_wall, callbacks, host_calls, largest;
} T;

static uint64_t rnd(void) { return rng_next(&W.rng); }
static unsigned below(unsigned n) { return n < 2 ? 0 : (unsigned)(rnd() % n); }
static unsigned between(unsigned lo, unsigned hi) { return lo + below(hi - lo + 1); }
static bool chance(unsigned p) { return p > 0 && (rnd() & 65535) < p; } // p of 65536
static bool one_in(unsigned n) { return below(n) == 0; }
static unsigned spread(unsigned max) { return below(1u + (max >> below(12))); } // mostly small

static void hash_bytes(const void *data, size_t n) {
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++) W.hash = (W.hash ^ p[i]) * 0x100000001b3u;
}
static void hash_number(uint64_t x) { W.hash = mix(W.hash ^ x); }

static void say(const char *format, ...) PRINTF_LIKE(1, 2);
static void say(const char *format, ...) {
    if (!is_verbose) return;
    va_list args;
    va_start(args, format);
    printf("%8" PRIu64 "  ", W.now - W.started);
    vprintf(format, args);
    putchar('\n');
    va_end(args);
}

// A rule is broken. The first one of a life is printed; the life ends there.
static void broke(const char *rule, const char *format, ...) PRINTF_LIKE(2, 3);
static void broke(const char *rule, const char *format, ...) {
    if (W.is_failed) return;
    W.is_failed = true;
    va_list args;
    va_start(args, format);
    printf("FAIL seed %" PRIu64 " at %" PRIu64 " ms: %s: ", W.seed, W.now - W.started, rule);
    vprintf(format, args);
    putchar('\n');
    va_end(args);
    fflush(stdout);
}

// ============================================================================
// the network
// ============================================================================

static size_t random_limit(void) {
    if (W.is_calm) return 1 << 20;
    if (chance(W.is.p_small_limit)) return between(1, 600);
    return (size_t)1024 << below(8);
}

static void flow_free(flow *f) {
    buf_free(&f->bytes);
    memset(f, 0, sizeof *f);
}

static void flow_arrive(flow *f) {
    int i = 0;
    while (i < f->segs && f->seg[i].at <= W.now) f->ready += f->seg[i++].n;
    if (i) {
        memmove(f->seg, f->seg + i, (size_t)(f->segs - i) * sizeof *f->seg);
        f->segs -= i;
    }
}

static void flow_put(flow *f, const void *data, size_t n, unsigned latency) {
    uint64_t at = W.now + latency;
    if (at < f->last_at) at = f->last_at; // a stream keeps its order
    f->last_at = at;
    buf_put(&f->bytes, data, n);
    if (f->segs && (f->seg[f->segs - 1].at == at || f->segs == 64)) {
        f->seg[f->segs - 1].at = at;
        f->seg[f->segs - 1].n += n;
    } else {
        f->seg[f->segs].at = at;
        f->seg[f->segs++].n = n;
    }
    flow_arrive(f);
}

static size_t flow_room(const flow *f) { return f->bytes.n < f->limit ? f->limit - f->bytes.n : 0; }

static size_t flow_take(flow *f, void *out, size_t n) {
    flow_arrive(f);
    if (n > f->ready) n = f->ready;
    if (n) memcpy(out, f->bytes.p, n);
    buf_cut(&f->bytes, n);
    f->ready -= n;
    return n;
}

static void flow_drop(flow *f) {
    f->bytes.n = f->ready = 0;
    f->segs = 0;
}

static void flow_end(flow *f, unsigned latency) {
    if (f->is_ended) return;
    f->is_ended = true;
    f->end_at = W.now + latency > f->last_at ? W.now + latency : f->last_at;
}

// All of it was read and the end has arrived.
static bool flow_at_end(flow *f) { return f->is_ended && f->end_at <= W.now && f->bytes.n == 0; }

static uint64_t flow_next(flow *f) { // the next moment at which it changes by itself
    flow_arrive(f);
    uint64_t at = f->segs ? f->seg[0].at : NEVER;
    if (f->is_ended && f->end_at > W.now && f->end_at < at) at = f->end_at;
    return at;
}

static void conn_reset(vconn *k) {
    k->is_reset = true;
    flow_drop(&k->up);
    if (one_in(2)) flow_drop(&k->down); // a reset may overtake what was sent before it
}

static void conn_release(vconn *k) {
    if (!k->client_closed || (k->is_accepted && !k->server_closed)) return;
    flow_free(&k->up);
    flow_free(&k->down);
    memset(k, 0, sizeof *k);
}

static bool has_listener(void) {
    for (int i = 0; i < FDS; i++)
        if (W.fds[i].is_open && W.fds[i].is_listener) return true;
    return false;
}

static vconn *net_connect(int owner) {
    if (!has_listener()) return NULL;
    for (int i = 0; i < CONNS; i++) {
        vconn *k = &W.conns[i];
        if (k->is_used) continue;
        memset(k, 0, sizeof *k);
        k->is_used = true;
        k->owner = owner;
        k->latency = W.is.latency_max ? spread(W.is.latency_max) : 0;
        k->arrive_at = W.now + k->latency;
        k->up.limit = random_limit();
        k->down.limit = random_limit();
        T.conns++;
        return k;
    }
    return NULL;
}

static vconn *net_waiting(void) { // the first one in the listener's queue
    vconn *first = NULL;
    for (int i = 0; i < CONNS; i++) {
        vconn *k = &W.conns[i];
        if (k->is_used && !k->is_accepted && !k->client_closed && !k->is_reset && k->arrive_at <= W.now && (!first || k->arrive_at < first->arrive_at))
            first = k;
    }
    return first;
}

// What the client does to its end. Returns the bytes taken.
static size_t net_write(vconn *k, const void *data, size_t n) {
    if (k->is_reset) return n; // into the void
    if (k->server_closed) {    // the server's kernel answers by a reset
        conn_reset(k);
        return n;
    }
    size_t room = flow_room(&k->up);
    if (n > room) n = room;
    if (n) flow_put(&k->up, data, n, k->latency);
    T.up += n;
    return n;
}

static void net_close(vconn *k, bool by_reset) {
    if (k->client_closed) return;
    k->client_closed = true;
    if (by_reset || k->down.bytes.n > 0) {
        flow_drop(&k->down);
        if (by_reset || one_in(2)) conn_reset(k);
    }
    flow_end(&k->up, k->latency);
    conn_release(k);
}

static uint64_t net_next(void) {
    uint64_t next = NEVER;
    for (int i = 0; i < CONNS; i++) {
        vconn *k = &W.conns[i];
        if (!k->is_used) continue;
        if (!k->is_accepted && k->arrive_at > W.now && k->arrive_at < next) next = k->arrive_at;
        uint64_t at = flow_next(&k->up);
        if (at < next) next = at;
        at = flow_next(&k->down);
        if (at < next) next = at;
    }
    return next;
}

// ============================================================================
// what the server stands on: system calls, back-end, memory
// ============================================================================

static vfd *fd_of(int fd, const char *call) {
    if (fd < FD_BASE || fd >= FD_BASE + FDS || !W.fds[fd - FD_BASE].is_open) {
        broke("a closed descriptor is not used", "%s of %d", call, fd);
        return NULL;
    }
    return &W.fds[fd - FD_BASE];
}

static int fd_new(void) { // the lowest free number, as a kernel does
    for (int i = 0; i < FDS; i++) {
        if (W.fds[i].is_open) continue;
        memset(&W.fds[i], 0, sizeof W.fds[i]);
        W.fds[i].is_open = true;
        return i;
    }
    return -1;
}

static int sys_listen(void *user, const char *url) {
    (void)user;
    say("listen %s", url);
    int i = fd_new();
    if (i < 0) return -EMFILE;
    W.fds[i].is_listener = true;
    return FD_BASE + i;
}

static int sys_accept(void *user, int listener, rtpush_peer *peer) {
    (void)user;
    vfd *l = fd_of(listener, "accept");
    if (!l) return -EBADF;
    if (W.now < W.famine_until) {
        T.f_famine++;
        return one_in(2) ? -EMFILE : -ENFILE;
    }
    vconn *k = net_waiting();
    if (!k) return -EAGAIN;
    if (chance(W.is.p_accept)) {
        static const int errors[] = {EINTR, EAGAIN, ECONNABORTED, EMFILE, ENFILE, EPROTO};
        int e = errors[below(6)];
        T.f_accept++;
        W.has_progress = true;
        if (e == ECONNABORTED || e == EPROTO) conn_reset(k);
        if (e == EMFILE || e == ENFILE) W.famine_until = W.now + spread(4000);
        return -e;
    }
    int i = fd_new();
    if (i < 0) return -EMFILE;
    W.fds[i].conn = k;
    k->is_accepted = true;
    W.has_progress = true;
    memset(peer, 0, sizeof *peer);
    peer->addr[10] = peer->addr[11] = 0xff;
    peer->addr[12] = 10;
    peer->addr[15] = (unsigned char)k->owner;
    peer->port = (uint16_t)(40000 + k->owner);
    return FD_BASE + i;
}

static int random_error(void) {
    if (chance(W.is.p_eintr)) {
        T.f_eintr++;
        return EINTR;
    }
    if (chance(W.is.p_eagain)) {
        T.f_eagain++;
        return EAGAIN;
    }
    return 0;
}

static size_t random_short(size_t n) {
    if (n < 2 || !chance(W.is.p_short)) return n;
    T.f_short++;
    size_t most = n >> below(16);
    return most < 2 ? 1 : 1 + (size_t)(rnd() % most);
}

static ptrdiff_t sys_recv(void *user, int fd, void *out, size_t cap) {
    (void)user;
    vfd *f = fd_of(fd, "recv");
    if (!f || !f->conn || cap == 0) return f && f->conn ? (broke("recv has room", "recv of 0 bytes"), -EINVAL) : -EBADF;
    vconn *k = f->conn;
    int e = random_error();
    if (e) return W.has_progress = true, -e;
    if (chance(W.is.p_reset) && !k->is_reset) {
        T.f_reset++;
        conn_reset(k);
    }
    if (k->is_reset) return -ECONNRESET;
    flow_arrive(&k->up);
    if (k->up.ready == 0) return flow_at_end(&k->up) ? 0 : -EAGAIN;
    W.has_progress = true;
    return (ptrdiff_t)flow_take(&k->up, out, random_short(cap < k->up.ready ? cap : k->up.ready));
}

static ptrdiff_t sys_send(void *user, int fd, const rtpush_iov *iov, int count) {
    (void)user;
    vfd *f = fd_of(fd, "send");
    if (!f || !f->conn) return -EBADF;
    vconn *k = f->conn;
    size_t total = 0;
    for (int i = 0; i < count; i++) total += iov[i].len;
    if (count < 1 || count > 1024 || total == 0) broke("a send has bytes, in at most IOV_MAX pieces", "%d pieces, %zu bytes", count, total);
    int e = random_error();
    if (e) return W.has_progress = true, -e;
    if (chance(W.is.p_reset) && !k->is_reset) {
        T.f_reset++;
        conn_reset(k);
    }
    if (k->down.is_ended) broke("nothing is sent after shutdown", "fd %d", fd);
    if (k->is_reset) return one_in(2) ? -EPIPE : -ECONNRESET;
    if (k->client_closed) { // taken, and answered by a reset
        T.f_peer_gone++;
        k->is_reset = true;
        W.has_progress = true;
        return (ptrdiff_t)total;
    }
    size_t n = flow_room(&k->down) < total ? flow_room(&k->down) : total;
    if (n == 0) return -EAGAIN;
    n = random_short(n);
    W.has_progress = true;
    hash_number(W.now);
    size_t left = n;
    for (int i = 0; left > 0; i++) {
        size_t part = iov[i].len < left ? iov[i].len : left;
        if (part == 0) continue;
        flow_put(&k->down, iov[i].base, part, k->latency);
        hash_bytes(iov[i].base, part);
        left -= part;
    }
    T.down += n;
    return (ptrdiff_t)n;
}

static int sys_shutdown(void *user, int fd) {
    (void)user;
    vfd *f = fd_of(fd, "shutdown");
    if (!f || !f->conn) return -EBADF;
    W.has_progress = true;
    if (f->conn->is_reset) return -ENOTCONN;
    flow_end(&f->conn->down, f->conn->latency);
    return 0;
}

static int sys_close(void *user, int fd) {
    (void)user;
    if (fd >= 0 && fd < FD_BASE) return close(fd) ? -errno : 0; // the server's own (a wake-up, a spare one)
    vfd *f = fd_of(fd, "close");
    if (!f) return -EBADF;
    f->is_open = false;
    W.has_progress = true;
    if (f->is_listener) {
        say("the listener closes");
        for (int i = 0; i < CONNS && !has_listener(); i++) // whoever waits in its queue is reset
            if (W.conns[i].is_used && !W.conns[i].is_accepted) W.conns[i].is_reset = true;
        return 0;
    }
    vconn *k = f->conn;
    k->server_closed = true;
    if (k->up.bytes.n > 0 && !k->is_reset) conn_reset(k); // TCP: a close with bytes unread is a reset
    flow_end(&k->down, k->latency);
    conn_release(k);
    return 0;
}

static uint64_t sys_now(void *user) {
    (void)user;
    if (W.is.clock_ticks && one_in(64)) W.now++;
    return W.now;
}

static int64_t sys_wall(void *user) {
    (void)user;
    return (int64_t)W.now + W.wall_offset;
}

static int sys_random(void *user, void *out, size_t n) {
    (void)user;
    unsigned char *p = out;
    for (size_t i = 0; i < n; i++) p[i] = (unsigned char)rng_next(&W.server_rng);
    return 0;
}

// Real descriptors of the server's own (its wake-up) are watched by poll(2), without waiting.
static struct {
    int fd;
    uint64_t tag;
    unsigned want;
} real_fds[8];

static void *backend_open(void *user) {
    memset(real_fds, 0, sizeof real_fds);
    return user;
}

static void backend_close(void *state) { (void)state; }
static int backend_fd(void *state) { return (void)state, -1; }

static int backend_watch(void *state, int fd, uint64_t tag, unsigned was, unsigned want) {
    (void)state;
    if (fd >= 0 && fd < FD_BASE) {
        int at = -1;
        for (int i = 0; i < 8; i++)
            if (real_fds[i].want && real_fds[i].fd == fd) at = i;
        for (int i = 0; i < 8 && at < 0; i++)
            if (!real_fds[i].want) at = i;
        if (at < 0) return -ENOMEM;
        real_fds[at].fd = fd;
        real_fds[at].tag = tag;
        real_fds[at].want = want;
        return 0;
    }
    vfd *f = fd_of(fd, "watch");
    if (!f) return -EBADF;
    if (f->watched != was) broke("watch: `was` is what it was watched for", "fd %d: %u, said %u", fd, f->watched, was);
    f->watched = want;
    f->tag = tag;
    return 0;
}

static int collect(rtpush_event *events, int cap) {
    int n = 0;
    for (int i = 0; i < 8 && n < cap; i++) {
        struct pollfd p = {real_fds[i].fd, POLLIN, 0};
        if (real_fds[i].want && poll(&p, 1, 0) > 0) {
            events[n].tag = real_fds[i].tag;
            events[n++].ready = RTPUSH_READ;
        }
    }
    int start = (int)below(FDS); // no order is promised
    for (int j = 0; j < FDS && n < cap; j++) {
        vfd *f = &W.fds[(start + j) % FDS];
        if (!f->is_open || !f->watched) continue;
        unsigned ready = 0;
        if (f->is_listener) {
            if (net_waiting()) ready = RTPUSH_READ;
        } else if (f->conn->is_reset) {
            events[n].tag = f->tag;
            events[n++].ready = RTPUSH_READ | RTPUSH_WRITE; // an error is both, whatever was asked for
            continue;
        } else {
            flow_arrive(&f->conn->up);
            if (f->conn->up.ready || flow_at_end(&f->conn->up)) ready |= RTPUSH_READ;
            if (flow_room(&f->conn->down)) ready |= RTPUSH_WRITE;
        }
        ready &= f->watched;
        if (!ready) continue;
        events[n].tag = f->tag;
        events[n++].ready = ready;
    }
    return n;
}

static void clients_run(void);
static uint64_t clients_next(void);

static int backend_wait(void *state, rtpush_event *events, int cap, int timeout_ms) {
    (void)state;
    T.waits++;
    if (cap < 1) broke("wait has room for an event", "cap %d", cap);
    if (timeout_ms < -1) broke("a timeout is -1 or more", "%d", timeout_ms);
    if (W.promised_timeout >= 0 && W.waits_in_step == 0 && (timeout_ms < 0 || timeout_ms > W.promised_timeout))
        broke("a step waits no longer than rtpush_timeout said", "%d, said %" PRId64, timeout_ms, W.promised_timeout);
    if (++W.waits_in_step > 200) broke("a step ends", "%u waits", W.waits_in_step);
    if (W.has_progress) W.idle_waits = 0;
    else if (++W.idle_waits > 300) broke("the loop does not spin", "%u waits at one moment, nothing done", W.idle_waits);
    W.has_progress = false;
    clients_run();
    int n = collect(events, cap);
    uint64_t until = W.now + (timeout_ms < 0 ? 60000u : (uint64_t)timeout_ms);
    while (n == 0 && W.now < until && !W.is_failed) {
        uint64_t at = net_next(), next = clients_next();
        if (next < at) at = next;
        if (at > until) at = until;
        if (at > W.now) {
            W.now = at;
            W.idle_waits = 0;
        }
        clients_run();
        n = collect(events, cap);
    }
    return n;
}

// Every block moves when it is resized, so that a stale pointer into it is found; it carries its size.
typedef union block {
    size_t size;
    long double align_a;
    void *align_b;
    char room[32];
} block;

static void *sim_alloc(void *old, size_t size, void *user) {
    (void)user;
    block *was = old ? (block *)old - 1 : NULL;
    if (size == 0) {
        if (was) {
            W.live_bytes -= was->size;
            W.live_blocks--;
            free(was);
        }
        return NULL;
    }
    W.alloc_calls++;
    if (W.alloc_calls == W.fail_at || (W.is.has_alloc_faults && !W.is_calm && W.hub && chance(W.is.p_alloc))) {
        T.f_alloc++;
        W.alloc_failed++;
        say("allocation %" PRIu64 " of %zu bytes fails", W.alloc_calls, size);
        return NULL;
    }
    if (size > (size_t)64 << 20) {
        broke("no allocation is enormous", "%zu bytes", size);
        return NULL;
    }
    block *now = must(malloc(sizeof *now + size));
    memset(now + 1, 0xa5, size);
    now->size = size;
    if (was) memcpy(now + 1, was + 1, was->size < size ? was->size : size);
    if (was) {
        W.live_bytes -= was->size;
        W.live_blocks--;
        free(was);
    }
    W.live_bytes += size;
    W.live_blocks++;
    if (W.live_bytes > W.peak_bytes) W.peak_bytes = W.live_bytes;
    return now + 1;
}

// ============================================================================
// the clients' own parsers: strict, and not the library's
// ============================================================================

// --- JSON: a tree of values that point into the text ---

enum { J_NULL, J_BOOL, J_NUMBER, J_STRING, J_ARRAY, J_OBJECT };

typedef struct jvalue {
    int type;
    size_t at, len;  // the value as written
    size_t str, str_len; // a string's bytes, in the pool
    size_t key, key_len; // its name in an object, in the pool
    int child, next; // -1: none
} jvalue;

typedef struct json {
    const unsigned char *p;
    size_t n, at;
    jvalue *v;
    int count, cap;
    buf pool;
    bool bad;
} json;

static void json_space(json *j) {
    while (j->at < j->n && strchr(" \t\r\n", j->p[j->at]) && j->p[j->at]) j->at++;
}

static bool json_is(json *j, char c) {
    if (j->at >= j->n || j->p[j->at] != (unsigned char)c) return false;
    j->at++;
    return true;
}

static int json_hex4(json *j) {
    int x = 0;
    for (int i = 0; i < 4; i++) {
        if (j->at >= j->n) return -1;
        int c = j->p[j->at++];
        int d = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (d < 0) return -1;
        x = x * 16 + d;
    }
    return x;
}

static void put_utf8(buf *b, unsigned c) {
    if (c < 0x80) buf_byte(b, c);
    else if (c < 0x800) buf_byte(b, 0xc0 | c >> 6), buf_byte(b, 0x80 | (c & 63));
    else if (c < 0x10000) buf_byte(b, 0xe0 | c >> 12), buf_byte(b, 0x80 | (c >> 6 & 63)), buf_byte(b, 0x80 | (c & 63));
    else buf_byte(b, 0xf0 | c >> 18), buf_byte(b, 0x80 | (c >> 12 & 63)), buf_byte(b, 0x80 | (c >> 6 & 63)), buf_byte(b, 0x80 | (c & 63));
}

static bool json_string(json *j, size_t *at, size_t *len) {
    if (!json_is(j, '"')) return false;
    *at = j->pool.n;
    while (j->at < j->n) {
        unsigned c = j->p[j->at++];
        if (c == '"') {
            *len = j->pool.n - *at;
            buf_byte(&j->pool, 0);
            return true;
        }
        if (c < 0x20) return false;
        if (c != '\\') {
            buf_byte(&j->pool, c);
            continue;
        }
        if (j->at >= j->n) return false;
        c = j->p[j->at++];
        static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
        const char *hit = c ? strchr(from, (int)c) : NULL;
        if (hit) {
            buf_byte(&j->pool, (unsigned char)to[hit - from]);
            continue;
        }
        if (c != 'u') return false;
        int u = json_hex4(j);
        if (u < 0 || (u >= 0xdc00 && u < 0xe000)) return false;
        if (u >= 0xd800 && u < 0xdc00) { // RFC 8259 §7: a pair
            if (!json_is(j, '\\') || !json_is(j, 'u')) return false;
            int low = json_hex4(j);
            if (low < 0xdc00 || low > 0xdfff) return false;
            u = 0x10000 + ((u - 0xd800) << 10) + (low - 0xdc00);
        }
        put_utf8(&j->pool, (unsigned)u);
    }
    return false;
}

static bool json_digits(json *j) {
    size_t from = j->at;
    while (j->at < j->n && j->p[j->at] >= '0' && j->p[j->at] <= '9') j->at++;
    return j->at > from;
}

static bool json_number(json *j) { // RFC 8259 §6
    json_is(j, '-');
    if (json_is(j, '0')) { // no digit may follow
        if (j->at < j->n && j->p[j->at] >= '0' && j->p[j->at] <= '9') return false;
    } else if (!json_digits(j)) return false;
    if (json_is(j, '.') && !json_digits(j)) return false;
    if (json_is(j, 'e') || json_is(j, 'E')) {
        if (!json_is(j, '+')) json_is(j, '-');
        if (!json_digits(j)) return false;
    }
    return true;
}

static bool json_word(json *j, const char *word) {
    size_t n = strlen(word);
    if (j->n - j->at < n || memcmp(j->p + j->at, word, n) != 0) return false;
    j->at += n;
    return true;
}

static int json_value(json *j, int depth) {
    json_space(j);
    if (j->at >= j->n || depth > 80) return -1;
    if (j->count == j->cap) {
        j->cap = j->cap ? j->cap * 2 : 64;
        j->v = must(realloc(j->v, (size_t)j->cap * sizeof *j->v));
    }
    int me = j->count++, last = -1;
    jvalue v = {0};
    v.child = v.next = -1;
    v.at = j->at;
    unsigned char c = j->p[j->at];
    bool ok = true;
    if (c == '"') v.type = J_STRING, ok = json_string(j, &v.str, &v.str_len);
    else if (c == 't' || c == 'f') v.type = J_BOOL, ok = json_word(j, c == 't' ? "true" : "false");
    else if (c == 'n') ok = json_word(j, "null");
    else if (c == '[' || c == '{') {
        v.type = c == '[' ? J_ARRAY : J_OBJECT;
        char end = c == '[' ? ']' : '}';
        j->at++;
        json_space(j);
        while (ok && !json_is(j, end)) {
            if (last >= 0) ok = json_is(j, ',');
            size_t key = 0, key_len = 0;
            json_space(j);
            if (ok && c == '{') {
                ok = json_string(j, &key, &key_len);
                json_space(j);
                ok = ok && json_is(j, ':');
            }
            int child = ok ? json_value(j, depth + 1) : -1;
            ok = ok && child >= 0;
            if (!ok) break;
            j->v[child].key = key;
            j->v[child].key_len = key_len;
            if (last < 0) v.child = child;
            else j->v[last].next = child;
            last = child;
            json_space(j);
        }
    } else v.type = J_NUMBER, ok = json_number(j);
    if (!ok) return -1;
    v.len = j->at - v.at;
    j->v[me] = v;
    return me;
}

static json J; // one text at a time

static bool json_parse(const void *data, size_t n) {
    J.p = data;
    J.n = n;
    J.at = 0;
    J.count = 0;
    J.pool.n = 0;
    if (rtpush_utf8(0, data, n) != 0 || json_value(&J, 0) != 0) return false;
    json_space(&J);
    return J.at == n;
}

static int json_get(int object, const char *key) {
    if (object < 0 || J.v[object].type != J_OBJECT) return -1;
    int found = -1;
    for (int i = J.v[object].child; i >= 0; i = J.v[i].next) {
        if (strlen(key) != J.v[i].key_len || memcmp(J.pool.p + J.v[i].key, key, J.v[i].key_len) != 0) continue;
        if (found >= 0) broke("JSON objects have no name twice", "%s", key);
        found = i;
    }
    return found;
}

static const char *json_text(int object, const char *key) { // NULL where there is no such string
    int i = json_get(object, key);
    return i >= 0 && J.v[i].type == J_STRING ? (const char *)J.pool.p + J.v[i].str : NULL;
}

static bool json_true(int object, const char *key) {
    int i = json_get(object, key);
    return i >= 0 && J.v[i].type == J_BOOL && J.v[i].len == 4;
}

static int64_t json_int(int object, const char *key) {
    int i = json_get(object, key);
    return i >= 0 && J.v[i].type == J_NUMBER ? strtoll((const char *)J.p + J.v[i].at, NULL, 10) : -1;
}

static void put_json_string(buf *b, const unsigned char *p, size_t n) {
    buf_byte(b, '"');
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '"' || p[i] == '\\') buf_byte(b, '\\'), buf_byte(b, p[i]);
        else if (p[i] < 0x20) buf_fmt(b, "\\u%04x", p[i]);
        else buf_byte(b, p[i]);
    }
    buf_byte(b, '"');
}

// --- base64 and SHA-1 ---

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void put_base64(buf *b, const unsigned char *p, size_t n) {
    for (size_t i = 0; i < n; i += 3) {
        unsigned x = (unsigned)p[i] << 16 | (i + 1 < n ? (unsigned)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
        buf_byte(b, (unsigned char)base64_digits[x >> 18]);
        buf_byte(b, (unsigned char)base64_digits[x >> 12 & 63]);
        buf_byte(b, i + 1 < n ? (unsigned char)base64_digits[x >> 6 & 63] : '=');
        buf_byte(b, i + 2 < n ? (unsigned char)base64_digits[x & 63] : '=');
    }
}

static bool take_base64(buf *out, const unsigned char *p, size_t n) { // RFC 4648 §4, canonical
    if (n % 4) return false;
    for (size_t i = 0; i < n; i += 4) {
        unsigned x = 0, pad = 0;
        for (size_t k = 0; k < 4; k++) {
            const char *hit = p[i + k] ? strchr(base64_digits, p[i + k]) : NULL;
            if (!hit && (p[i + k] != '=' || i + 4 != n || k < 2)) return false;
            if (hit && pad) return false;
            if (!hit) pad++;
            x = x << 6 | (hit ? (unsigned)(hit - base64_digits) : 0);
        }
        if ((pad == 1 && x & 255) || (pad == 2 && x & 65535)) return false;
        buf_byte(out, x >> 16 & 255);
        if (pad < 2) buf_byte(out, x >> 8 & 255);
        if (pad < 1) buf_byte(out, x & 255);
    }
    return true;
}

static uint32_t rotl(uint32_t x, int n) { return x << n | x >> (32 - n); }

static void sha1(const char *text, unsigned char out[20]) { // FIPS 180-4; texts of less than 119 bytes
    unsigned char m[128] = {0};
    size_t n = strlen(text), blocks = n < 56 ? 1 : 2;
    memcpy(m, text, n);
    m[n] = 0x80;
    m[blocks * 64 - 2] = (unsigned char)(n * 8 >> 8);
    m[blocks * 64 - 1] = (unsigned char)(n * 8);
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    for (size_t b = 0; b < blocks; b++) {
        uint32_t w[80], v[5];
        for (int i = 0; i < 16; i++) {
            const unsigned char *q = m + b * 64 + i * 4;
            w[i] = (uint32_t)q[0] << 24 | (uint32_t)q[1] << 16 | (uint32_t)q[2] << 8 | q[3];
        }
        for (int i = 16; i < 80; i++) w[i] = rotl(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        memcpy(v, h, sizeof v);
        for (int i = 0; i < 80; i++) {
            uint32_t f = i < 20 ? (v[1] & v[2]) | (~v[1] & v[3]) : i >= 40 && i < 60 ? (v[1] & v[2]) | (v[1] & v[3]) | (v[2] & v[3]) : v[1] ^ v[2] ^ v[3];
            static const uint32_t k[4] = {0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6};
            uint32_t t = rotl(v[0], 5) + f + v[4] + k[i / 20] + w[i];
            v[4] = v[3];
            v[3] = v[2];
            v[2] = rotl(v[1], 30);
            v[1] = v[0];
            v[0] = t;
        }
        for (int i = 0; i < 5; i++) h[i] += v[i];
    }
    for (int i = 0; i < 20; i++) out[i] = (unsigned char)(h[i / 4] >> (24 - i % 4 * 8));
}

// --- an HTTP response's head (RFC 9112 §4, §5), strictly ---

typedef struct response {
    int status;
    bool is_chunked, has_length, closes;
    uint64_t length;
    char type[64], etag[64], accept[40], protocol[32], gap[96];
} response;

static bool is_token(unsigned char c) { return c > 32 && c < 127 && !strchr("\"(),/:;<=>?@[\\]{}", c); }

static bool same_name(const char *name, size_t n, const char *want) {
    if (strlen(want) != n) return false;
    for (size_t i = 0; i < n; i++)
        if ((name[i] | 32) != (want[i] | 32)) return false;
    return true;
}

static void keep(char *out, size_t cap, const char *value, size_t n) { snprintf(out, cap, "%.*s", (int)n, value); }

static bool parse_response_line(response *r, const char *line, size_t n) {
    if (n < 13 || memcmp(line, "HTTP/1.1 ", 9) != 0 || line[12] != ' ') return false;
    for (int i = 9; i < 12; i++) {
        if (line[i] < '0' || line[i] > '9') return false;
        r->status = r->status * 10 + line[i] - '0';
    }
    return r->status >= 100 && r->status < 600;
}

static bool parse_field(response *r, const char *line, size_t n) {
    size_t k = 0;
    while (k < n && is_token((unsigned char)line[k])) k++;
    if (k == 0 || k >= n || line[k] != ':') return false;
    const char *name = line, *v = line + k + 1;
    size_t len = n - k - 1;
    while (len && *v == ' ') v++, len--;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)v[i] < 32 || v[i] == 127) return false;
    if (len && v[len - 1] == ' ') return false;
    if (same_name(name, k, "content-length")) {
        if (r->has_length || len == 0) return false;
        r->has_length = true;
        for (size_t i = 0; i < len; i++) {
            if (v[i] < '0' || v[i] > '9') return false;
            r->length = r->length * 10 + (uint64_t)(v[i] - '0');
        }
    } else if (same_name(name, k, "transfer-encoding")) {
        if (r->is_chunked || !same_name(v, len, "chunked")) return false;
        r->is_chunked = true;
    } else if (same_name(name, k, "connection")) r->closes = r->closes || same_name(v, len, "close");
    else if (same_name(name, k, "content-type")) keep(r->type, sizeof r->type, v, len);
    else if (same_name(name, k, "etag")) keep(r->etag, sizeof r->etag, v, len);
    else if (same_name(name, k, "sec-websocket-accept")) keep(r->accept, sizeof r->accept, v, len);
    else if (same_name(name, k, "sec-websocket-protocol")) keep(r->protocol, sizeof r->protocol, v, len);
    else if (same_name(name, k, "rtpush-gap")) keep(r->gap, sizeof r->gap, v, len);
    return true;
}

// > 0: so many bytes are the head; 0: more; -1: bad.
static ptrdiff_t parse_response(response *r, const unsigned char *p, size_t n) {
    memset(r, 0, sizeof *r);
    bool is_first = true;
    for (size_t at = 0;;) {
        size_t end = at;
        while (end < n && p[end] != '\r' && p[end] != '\n') end++;
        if (end + 1 >= n) return end < n && p[end] == '\n' ? -1 : 0;
        if (p[end] != '\r' || p[end + 1] != '\n') return -1;
        const char *line = (const char *)p + at;
        size_t len = end - at;
        at = end + 2;
        if (is_first ? !parse_response_line(r, line, len) : len > 0 && !parse_field(r, line, len)) return -1;
        if (!is_first && len == 0) return r->is_chunked && r->has_length ? -1 : (ptrdiff_t)at;
        is_first = false;
    }
}

// --- chunks (RFC 9112 §7.1): takes what it can from b into out; 1 ended, 0 more, -1 bad ---

typedef struct chunks {
    uint64_t left; // of the chunk's data
    int state;     // 0: a size line, 1: data, 2: the line end behind data, 3: the last line
} chunks;

static int take_chunks(chunks *c, buf *b, buf *out) {
    size_t at = 0;
    int verdict = 0;
    while (verdict == 0 && at < b->n) {
        if (c->state == 1) {
            size_t n = b->n - at < c->left ? b->n - at : (size_t)c->left;
            buf_put(out, b->p + at, n);
            at += n;
            c->left -= n;
            if (c->left) break;
            c->state = 2;
            continue;
        }
        size_t end = at;
        while (end < b->n && b->p[end] != '\n') end++;
        if (end == b->n) break;
        if (end == at || b->p[end - 1] != '\r') return -1;
        size_t len = end - 1 - at;
        if (c->state == 0) {
            if (len == 0 || len > 16) return -1;
            c->left = 0;
            for (size_t i = 0; i < len; i++) {
                const char *hex = "0123456789abcdef", *hit = strchr(hex, b->p[at + i] | (b->p[at + i] >= 'A' ? 32 : 0));
                if (!hit || !b->p[at + i]) return -1;
                c->left = c->left * 16 + (uint64_t)(hit - hex);
            }
            c->state = c->left ? 1 : 3;
        } else if (len != 0) return -1; // no trailers, nothing behind a chunk's data
        else if (c->state == 2) c->state = 0;
        else verdict = 1;
        at = end + 1;
    }
    buf_cut(b, at);
    return verdict;
}

// --- a server's WebSocket frame (RFC 6455 §5.2) ---

typedef struct frame {
    int opcode;
    bool is_final;
    size_t head, length;
} frame;

static const char *parse_ws(frame *f, const buf *b, bool *is_whole) { // NULL, or what is wrong
    *is_whole = false;
    if (b->n < 2) return NULL;
    const unsigned char *p = b->p;
    f->is_final = p[0] >> 7;
    f->opcode = p[0] & 15;
    if (p[0] & 0x70) return "RSV bits, nothing was negotiated";
    if (p[1] & 0x80) return "a server's frame is masked";
    if (f->opcode != 1 && f->opcode != 2 && (f->opcode < 8 || f->opcode > 10)) return "an opcode that a server of this kind does not use";
    if (!f->is_final) return "a fragment";
    unsigned short_len = p[1] & 127, extra = short_len == 126 ? 2 : short_len == 127 ? 8 : 0;
    if (f->opcode >= 8 && extra) return "a control frame of more than 125 bytes";
    f->head = 2 + extra;
    if (b->n < f->head) return NULL;
    uint64_t n = extra ? 0 : short_len;
    for (unsigned i = 0; i < extra; i++) n = n << 8 | p[2 + i];
    if ((extra == 2 && n < 126) || (extra == 8 && n < 65536) || n > (1u << 30)) return "a length that is not the shortest";
    f->length = (size_t)n;
    *is_whole = b->n >= f->head + f->length;
    return NULL;
}

// ============================================================================
// the oracle: what was published, under which id, and who is to have it
// ============================================================================

static const char *const topic_names[] = {"a", "b", "c/1", "c/2", "c/3", "d/x/y", "d/z", "\xc3\xbc/\xc3\x9f"};
static const char *const pattern_names[] = {"c/*", "d/**", "c/**", "\xc3\xbc/*", "*", "**"};
enum { TOPICS = 8, PATTERNS = 6 };

typedef struct place { // a cursor as text says it
    char epoch[9];
    uint64_t seq;
} place;

static bool parse_place(place *k, const char *text) {
    if (!text) return false;
    for (int i = 0; i < 8; i++)
        if (!((text[i] >= 'a' && text[i] <= 'z') || (text[i] >= '0' && text[i] <= '9'))) return false;
    memcpy(k->epoch, text, 8);
    k->epoch[8] = 0;
    const char *p = text + 9;
    size_t n = text[8] == '-' ? strlen(p) : 0;
    if (n < 1 || n > 19 || (n > 1 && p[0] == '0') || strspn(p, "0123456789") != n) return false;
    k->seq = strtoull(p, NULL, 10);
    return true;
}

static bool topic_matches(const char *pattern, const char *name) { // PROTOCOL §1
    size_t n = strlen(pattern);
    if (pattern[n - 1] != '*') return strcmp(pattern, name) == 0;
    if (name[0] == '@' && pattern[0] != '@') return false;
    bool deep = n > 1 && pattern[n - 2] == '*';
    size_t head = n - (deep ? 2 : 1); // with its slash
    if (strncmp(pattern, name, head) != 0 || name[head] == 0) return false;
    return deep || !strchr(name + head, '/');
}

static bool overlaps(const char *a, const char *b) {
    if (strcmp(a, b) == 0) return true;
    for (int i = 0; i < TOPICS; i++)
        if (topic_matches(a, topic_names[i]) && topic_matches(b, topic_names[i])) return true;
    return false;
}

// --- payloads: each carries its number, so that a reader without ids knows it too ---

static size_t payload_number(const unsigned char *p, size_t n) { // 0: none
    size_t at = 0, x = 0;
    if (n >= 7 && p[0] == 0 && p[1] == 0xff && p[2] == 'm') return (size_t)(p[3] | p[4] << 8 | p[5] << 16 | p[6] << 24);
    if (n > 5 && memcmp(p, "{\"m\":", 5) == 0) at = 5;
    else if (n > 1 && p[0] == 'm') at = 1;
    else return 0;
    for (; at < n && p[at] >= '0' && p[at] <= '9'; at++) x = x * 10 + (size_t)(p[at] - '0');
    return x;
}

static void put_filler(buf *b, size_t n, bool plain) {
    static const char *const bits[] = {"a", "lorem ", " ", "\n", "\r", "\r\n", "\"", "\\", "\xc3\xa9", "\xf0\x9f\x98\x80", "\t", "\x7f", "\xe2\x80\xa8",
                                       "data: ", "\n\n", "\x01", ":", "</script>", "ipsum", "0", "\nid: 1\n", "{", "]", "'", "\xef\xbb\xbf"};
    size_t from = b->n;
    while (b->n - from < n) {
        if (plain) buf_byte(b, 'a' + below(26));
        else buf_str(b, bits[below(25)]);
    }
}

static void put_json_filler(buf *b, int depth) {
    switch (below(depth > 3 ? 5 : 8)) {
    case 0: buf_str(b, "null"); break;
    case 1: buf_fmt(b, "%d", (int)below(100000) - 50000); break;
    case 2: buf_str(b, "-1.50e+3"); break;
    case 3: buf_str(b, one_in(2) ? "true" : "false"); break;
    case 4: buf_str(b, "\"a\\n\\u00e9\\ud83d\\ude00\xc3\xa9\\\\\\\"/\""); break;
    case 5: buf_str(b, "[]"); break;
    case 6:
        buf_str(b, "[");
        put_json_filler(b, depth + 1);
        buf_str(b, one_in(2) ? "," : " ,\n\t");
        put_json_filler(b, depth + 1);
        buf_str(b, "]");
        break;
    default:
        buf_str(b, "{\"k\":");
        put_json_filler(b, depth + 1);
        buf_str(b, one_in(2) ? "}" : "\r\n}");
    }
}

static size_t random_size(void) {
    if (one_in(12)) return (size_t)(rnd() % (W.is.data_max + 1));
    return spread(300);
}

static uint32_t pub_new(int via, int owner, const char *topic, int kind, bool ephemeral) {
    if (W.pub_count == W.pub_cap) {
        W.pub_cap = W.pub_cap ? W.pub_cap * 2 : 256;
        W.pubs = must(realloc(W.pubs, W.pub_cap * sizeof *W.pubs));
    }
    if (W.pub_count == 0) memset(&W.pubs[W.pub_count++], 0, sizeof *W.pubs); // 0 is none
    uint32_t no = W.pub_count++;
    pub *p = &W.pubs[no];
    memset(p, 0, sizeof *p);
    snprintf(p->topic, sizeof p->topic, "%s", topic);
    p->kind = kind;
    p->via = via;
    p->owner = owner;
    p->is_ephemeral = ephemeral;
    buf b = {0};
    if (kind == RTPUSH_BINARY) {
        const unsigned char head[7] = {0, 0xff, 'm', (unsigned char)no, (unsigned char)(no >> 8), (unsigned char)(no >> 16), (unsigned char)(no >> 24)};
        buf_put(&b, head, 7);
        for (size_t n = random_size(); n > 0; n--) buf_byte(&b, (unsigned)(rnd() & 255));
    } else if (kind == RTPUSH_JSON) {
        buf_fmt(&b, "{\"m\":%u,\"v\":", no);
        if (one_in(12)) {
            buf_byte(&b, '"');
            put_filler(&b, random_size(), true);
            buf_byte(&b, '"');
        } else put_json_filler(&b, 0);
        buf_byte(&b, '}');
    } else {
        buf_fmt(&b, "m%u.", no);
        put_filler(&b, random_size(), one_in(2));
    }
    p->data = b.p;
    p->size = b.n;
    if (via != VIA_RAW && one_in(4)) snprintf(p->event, sizeof p->event, "%s", one_in(2) ? "tick" : "\xc3\xa9 x");
    return no;
}

// --- ids ---

static uint32_t pub_at(uint64_t seq) { return seq < W.seq_cap ? W.by_seq[seq] : 0; }

static bool is_stored(const pub *p) { return !p->is_ephemeral; }

static void pub_refused(uint32_t no, const char *how) {
    pub *p = &W.pubs[no];
    p->refusals++;
    T.refusals++;
    if (p->seq && p->refusals >= p->tries) broke("what was refused is not published", "message %u was refused (%s) and has the id %" PRIu64, no, how, p->seq);
}

// This publication has this id. Told by whoever knows it first, and again by everybody else.
static void bind_id(uint32_t no, uint64_t seq, const char *by) {
    pub *p = &W.pubs[no];
    if (p->seq == seq) return;
    if (seq == 0 || seq > 1000000) {
        broke("ids are small here", "%" PRIu64 " by %s", seq, by);
        return;
    }
    if (p->seq) broke("one publication is one message", "message %u has the ids %" PRIu64 " and %" PRIu64 " (%s)", no, p->seq, seq, by);
    if (seq >= W.seq_cap) {
        uint64_t cap = seq * 2 + 64;
        W.by_seq = must(realloc(W.by_seq, (size_t)cap * sizeof *W.by_seq));
        memset(W.by_seq + W.seq_cap, 0, (size_t)(cap - W.seq_cap) * sizeof *W.by_seq);
        W.seq_cap = cap;
    }
    if (W.by_seq[seq]) broke("one id is one message", "%" PRIu64 " is %u and %u (%s)", seq, W.by_seq[seq], no, by);
    if (p->tries && p->refusals >= p->tries) broke("what was refused is not published", "message %u was refused and has the id %" PRIu64 " (%s)", no, seq, by);
    W.by_seq[seq] = no;
    p->seq = seq;
    T.published[p->via]++;
    if (p->size > T.largest) T.largest = p->size;
    say("message %u on %s is %" PRIu64 " (%s)%s", no, p->topic, seq, by, p->is_ephemeral ? " ephemeral" : "");
}

static uint64_t hub_head(void) {
    char text[32];
    place k;
    if (!parse_place(&k, rtpush_cursor_text(W.hub, text))) {
        broke("the head is a cursor", "%.31s", text);
        return 0;
    }
    if (W.epoch[0] && strcmp(W.epoch, k.epoch) != 0) broke("the epoch stays", "%s, %s", W.epoch, k.epoch);
    memcpy(W.epoch, k.epoch, 9);
    return k.seq;
}

// on_publish foretells the next id: was it taken since? (Nothing else publishes unseen in lives that use this.)
static bool foretells(void) { return !W.is.has_presence && !W.is.has_bus && !W.is.has_alloc_faults && !W.fail_at; }

static void settle_expected(void) {
    if (!W.expected_pub || W.is_destroyed) return;
    uint32_t no = W.expected_pub;
    W.expected_pub = 0;
    if (hub_head() >= W.expected_seq && !pub_at(W.expected_seq)) bind_id(no, W.expected_seq, "on_publish");
}

// ============================================================================
// clients
// ============================================================================

enum kind { READER, POSTER, VANDAL, PROBE };
enum transport { RAW, ENVELOPE, SSE, LONG_POLL, SHORT_POLL, TRANSPORTS };
static const char *const transport_names[] = {"raw", "envelope", "sse", "long poll", "short poll"};
enum asked_kind { ASK_POLL, ASK_SSE, ASK_WS, ASK_POST, ASK_DELETE, ASK_OTHER };
enum slot_state { SLOT_FREE, SLOT_ON, SLOT_LEAVING, SLOT_LEFT };

// A topic or pattern that a client reads, and from where to where it is to miss nothing.
typedef struct slot {
    char name[80];
    int state;
    bool is_host;             // the host subscribed it: allowed, not owed
    uint64_t need_from, need_to;
    bool is_replaying;        // subscribed with `since`, not yet acknowledged
    uint64_t since_seq;       // what it then has a right to, NEVER: no exact place
    char since[40];
} slot;

typedef struct gap {
    uint64_t from, to;
    char name[80]; // of a subscribe, "": of all
} gap;

typedef struct asked {
    int kind;
    uint32_t pub;
    bool is_head, is_fresh, is_conditional;
    int start; // 0 a cursor, 1 latest, 2 earliest or -N, 3 a lie
    uint64_t at, hold_ms;
} asked;

typedef struct client {
    int kind, id;
    char name[24], session[64], user_topic[96];
    uint64_t due, stall_until, last_rx, opened_at;
    // the connection
    vconn *conn;
    unsigned serial; // of connections
    buf tx, rx, body, sse;
    asked asks[8];
    int ask_count;
    int mode; // of the input
    response head;
    chunks chunk;
    uint64_t body_left;
    char ws_accept[32];
    bool sent_close, got_close, half_closed, is_open, is_deaf, seen_hello, seen_block, closing_after_answer;
    unsigned char ping[8];
    int pings_open;
    // what it reads
    int transport;
    bool is_loyal; // keeps its transport
    slot slots[SLOTS];
    int slot_count;
    bool has_cursor, epoch_gap, expects_gap;
    place cursor;
    uint64_t checked;
    uint64_t *got; // by publication: connection << 2 | how
    uint32_t got_cap;
    gap *gaps;
    int gap_count, gap_cap;
    uint32_t *raw; // received without an id that is known yet
    int raw_count, raw_cap;
    int replay_subs;
    bool saw_event_topic;
    // what it publishes
    uint32_t retry[16];
    int retry_count;
    // a probe's find
    uint64_t *found;
    int found_count;
    bool is_done;
} client;

static client C[CLIENTS];
static int client_count;

enum { GOT_NO, GOT_LIVE, GOT_REPLAY };
enum { MODE_HEAD, MODE_LENGTH, MODE_CHUNKED, MODE_UNTIL_END, MODE_WS };

static void client_lost(client *c, bool by_us, const char *why);

static uint64_t *got_of(client *c, uint32_t no) {
    if (no >= c->got_cap) {
        uint32_t cap = no * 2 + 64;
        c->got = must(realloc(c->got, cap * sizeof *c->got));
        memset(c->got + c->got_cap, 0, (cap - c->got_cap) * sizeof *c->got);
        c->got_cap = cap;
    }
    return &c->got[no];
}

static bool is_covered(const client *c, uint64_t seq, const char *topic) {
    for (int i = 0; i < c->gap_count; i++) {
        const gap *g = &c->gaps[i];
        if (seq > g->from && seq <= g->to && (!g->name[0] || topic_matches(g->name, topic))) return true;
    }
    return false;
}

// The first stored message with lo < seq <= hi that it is owed, has not and was told no gap of. 0: none.
static uint64_t first_missing(client *c, uint64_t lo, uint64_t hi) {
    if (hi >= W.seq_cap) hi = W.seq_cap ? W.seq_cap - 1 : 0;
    for (uint64_t seq = lo + 1; seq <= hi; seq++) {
        uint32_t no = W.by_seq[seq];
        if (!no || !is_stored(&W.pubs[no]) || *got_of(c, no)) continue;
        for (int i = 0; i < c->slot_count; i++) {
            const slot *s = &c->slots[i];
            if (s->state == SLOT_FREE || s->is_host || seq <= s->need_from || seq > s->need_to) continue;
            if (topic_matches(s->name, W.pubs[no].topic) && !is_covered(c, seq, W.pubs[no].topic)) return seq;
        }
    }
    return 0;
}

static void check_missing(client *c, uint64_t lo, uint64_t hi, const char *by) {
    uint64_t seq = first_missing(c, lo, hi);
    if (seq) broke("no message is missing below the cursor", "client %s (%s) at %" PRIu64 " by %s has not %" PRIu64 " of %s", c->name,
                   transport_names[c->transport], hi, by, seq, W.pubs[W.by_seq[seq]].topic);
}

static void client_place(client *c, const place *k, bool is_message, const char *by) {
    if (k->seq > W.highest_seen) W.highest_seen = k->seq;
    if (c->has_cursor) {
        if (strcmp(k->epoch, c->cursor.epoch) != 0 && !c->epoch_gap)
            broke("the epoch changes only behind a gap", "client %s: %s to %s by %s", c->name, c->cursor.epoch, k->epoch, by);
        if (is_message ? k->seq <= c->cursor.seq : k->seq < c->cursor.seq)
            broke("ids ascend", "client %s (%s) at %" PRIu64 " got %" PRIu64 " by %s", c->name, transport_names[c->transport], c->cursor.seq, k->seq, by);
        check_missing(c, c->checked, is_message ? k->seq - 1 : k->seq, by);
    }
    c->epoch_gap = false;
    c->has_cursor = true;
    c->cursor = *k;
    if (k->seq > c->checked) c->checked = k->seq;
}

// Where a fresh reader begins to have a right to everything.
static void client_begins(client *c, uint64_t seq) {
    for (int i = 0; i < c->slot_count; i++) {
        slot *s = &c->slots[i];
        if (s->state == SLOT_ON && !s->is_replaying && !s->is_host && s->need_from > seq) s->need_from = seq;
    }
    if (c->checked < seq && !c->has_cursor) c->checked = seq;
}

static bool same_text_lines(const unsigned char *got, size_t n, const pub *p) { // SSE knows only LF
    size_t at = 0;
    for (size_t i = 0; i < p->size; i++) {
        unsigned char c = p->data[i];
        if (c == '\r') {
            if (i + 1 < p->size && p->data[i + 1] == '\n') i++;
            c = '\n';
        }
        if (at >= n || got[at++] != c) return false;
    }
    return at == n;
}

static void bad_payload(client *c, uint32_t no) {
    broke("the payload is what was published, byte for byte", "client %s (%s), message %u", c->name, transport_names[c->transport], no);
}

static uint32_t known_pub(client *c, const unsigned char *data, size_t n) {
    size_t no = payload_number(data, n);
    if (no > 0 && no < W.pub_count) return (uint32_t)no;
    broke("only what was published arrives", "client %s (%s) got %zu bytes: %.*s", c->name, transport_names[c->transport], n, (int)(n < 60 ? n : 60), (const char *)data);
    return 0;
}

static bool is_allowed(const client *c, const char *topic) {
    for (int i = 0; i < c->slot_count; i++) {
        const slot *s = &c->slots[i];
        if ((s->state == SLOT_ON || s->state == SLOT_LEAVING) && topic_matches(s->name, topic)) return true;
    }
    return false;
}

// A message with its id, whole and verified.
static void client_has(client *c, uint32_t no, const char *epoch, uint64_t seq, bool is_replay) {
    pub *p = &W.pubs[no];
    place k;
    memcpy(k.epoch, epoch, 9);
    k.seq = seq;
    bind_id(no, seq, c->name);
    say("%s has %" PRIu64 " of %s%s", c->name, seq, p->topic, is_replay ? " again" : "");
    T.received[c->transport]++;
    if (!is_allowed(c, p->topic)) broke("a reader gets its topics only", "client %s got %" PRIu64 " of %s", c->name, seq, p->topic);
    if (c->expects_gap && !is_replay) broke("a cursor of another epoch is told a gap first", "client %s got %" PRIu64, c->name, seq);
    uint64_t *g = got_of(c, no), how = *g & 3;
    bool is_same = *g >> 2 == c->serial;
    if (is_replay ? how == GOT_REPLAY && is_same && c->replay_subs < 2 : how == GOT_LIVE || (how == GOT_REPLAY && is_same))
        broke("no message comes twice", "client %s (%s) got %" PRIu64 " of %s again", c->name, transport_names[c->transport], seq, p->topic);
    if (is_replay) {
        bool found = false;
        T.replays++;
        for (int i = 0; i < c->slot_count; i++) found = found || (c->slots[i].is_replaying && topic_matches(c->slots[i].name, p->topic));
        if (!found) broke("replay is between a subscribe with since and its ack", "client %s: %" PRIu64 " of %s", c->name, seq, p->topic);
        for (int i = 0; i < c->slot_count && how == GOT_LIVE && is_same; i++) {
            slot *s = &c->slots[i];
            if (s->state == SLOT_ON && !s->is_replaying && !s->is_host && s->need_from < seq && topic_matches(s->name, p->topic))
                broke("what one subscription has passed another does not bring again", "client %s: %" PRIu64 " of %s", c->name, seq, p->topic);
        }
        if (how != GOT_LIVE) *g = (uint64_t)c->serial << 2 | GOT_REPLAY;
        return;
    }
    client_place(c, &k, true, "a message");
    *got_of(c, no) = (uint64_t)c->serial << 2 | GOT_LIVE;
}

// A raw WebSocket tells no id: its messages wait here until the id is known from elsewhere.
static void client_raw_settle(client *c) {
    int done = 0;
    while (done < c->raw_count && W.pubs[c->raw[done]].seq && !W.is_failed) {
        uint32_t no = c->raw[done++];
        client_has(c, no, c->has_cursor && !c->epoch_gap ? c->cursor.epoch : W.epoch, W.pubs[no].seq, false);
    }
    if (done == 0) return;
    memmove(c->raw, c->raw + done, (size_t)(c->raw_count - done) * sizeof *c->raw);
    c->raw_count -= done;
}

static void client_raw(client *c, uint32_t no) {
    if (c->raw_count == c->raw_cap) {
        c->raw_cap = c->raw_cap * 2 + 8;
        c->raw = must(realloc(c->raw, (size_t)c->raw_cap * sizeof *c->raw));
    }
    c->raw[c->raw_count++] = no;
    client_raw_settle(c);
}

// In lives where every id is known: a gap that nothing was lost in is a false one (PROTOCOL §2).
static bool gap_is_true(const gap *g, client *c) {
    if (!foretells() || W.is.may_refuse) return true;
    for (uint64_t seq = g->from + 1; seq <= g->to; seq++) {
        uint32_t no = pub_at(seq);
        if (!no) return true; // not ours to say
        if (!is_stored(&W.pubs[no])) continue;
        if (g->name[0] ? topic_matches(g->name, W.pubs[no].topic) : is_allowed(c, W.pubs[no].topic)) return true;
    }
    return false;
}

static void client_gap(client *c, const char *from, const char *to, const char *reason, const char *topic) {
    gap g = {0};
    place a, b;
    if (!from || !to || !reason || (strcmp(reason, "evicted") != 0 && strcmp(reason, "epoch") != 0) || !parse_place(&b, to)) {
        broke("a gap says from, to and reason", "client %s: %s, %s, %s", c->name, from ? from : "-", to ? to : "-", reason ? reason : "-");
        return;
    }
    bool is_epoch = strcmp(reason, "epoch") == 0;
    bool has_from = parse_place(&a, from) && strcmp(a.epoch, b.epoch) == 0;
    if (from[0] && strcmp(from, "-") != 0 && !parse_place(&a, from)) broke("a gap's from is a cursor or empty", "client %s: %s", c->name, from);
    g.from = is_epoch || !has_from ? 0 : a.seq;
    g.to = b.seq;
    if (topic) snprintf(g.name, sizeof g.name, "%s", topic);
    say("%s is told of a gap from %s to %s: %s%s%s", c->name, from, to, reason, topic ? " on " : "", topic ? topic : "");
    T.gaps++;
    if (is_epoch) c->epoch_gap = true;
    if (is_epoch && !topic && c->has_cursor && !c->expects_gap && strcmp(b.epoch, c->cursor.epoch) == 0 && !W.fail_at)
        broke("a gap of the epoch is told to those of another", "client %s at %s-%" PRIu64 ": from %s to %s", c->name, c->cursor.epoch, c->cursor.seq, from, to);
    if (b.seq > W.highest_seen) W.highest_seen = b.seq;
    if (!is_epoch && g.to > g.from && !gap_is_true(&g, c)) broke("no gap is told where nothing was lost", "client %s: from %s to %s", c->name, from, to);
    if (!is_epoch && g.to <= g.from) broke("a gap is not empty", "client %s: from %s to %s", c->name, from, to);
    c->expects_gap = false;
    if (c->gap_count == c->gap_cap) {
        c->gap_cap = c->gap_cap * 2 + 8;
        c->gaps = must(realloc(c->gaps, (size_t)c->gap_cap * sizeof *c->gaps));
    }
    c->gaps[c->gap_count++] = g;
}

// --- what each spelling says ---

static void trim_json(const pub *p, size_t *at, size_t *n) {
    *at = 0;
    *n = p->size;
    while (*n && strchr(" \t\r\n", p->data[*at]) && p->data[*at]) ++*at, --*n;
    while (*n && strchr(" \t\r\n", p->data[*at + *n - 1]) && p->data[*at + *n - 1]) --*n;
}

// JSON as written, but that a line's end between its tokens may have become a space.
static bool same_json(const unsigned char *published, const unsigned char *got, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (got[i] != published[i] && !(got[i] == ' ' && (published[i] == '\n' || published[i] == '\r'))) return false;
    return true;
}

// A message as polls and the envelope spell it: {id, topic, event?, data, encoding?}.
static void client_item(client *c, int item, bool may_replay) {
    place k;
    const char *topic = json_text(item, "topic"), *encoding = json_text(item, "encoding");
    int data = json_get(item, "data"), event = json_get(item, "event");
    if (!parse_place(&k, json_text(item, "id")) || !topic || data < 0 || (encoding && strcmp(encoding, "base64") != 0)) {
        broke("an item has id, topic and data", "client %s: %.200s", c->name, (const char *)J.p);
        return;
    }
    const unsigned char *text = J.pool.p + J.v[data].str;
    size_t n = J.v[data].str_len;
    bool is_text = J.v[data].type == J_STRING && !encoding, ok = true;
    buf raw = {0};
    if (encoding && (J.v[data].type != J_STRING || !take_base64(&raw, text, n))) broke("binary is base64", "client %s", c->name);
    if (encoding) text = raw.p, n = raw.n;
    if (!is_text && !encoding) text = J.p + J.v[data].at, n = J.v[data].len;
    uint32_t no = known_pub(c, text, n);
    pub *p = &W.pubs[no];
    if (no && p->kind == RTPUSH_JSON) {
        size_t at, len;
        trim_json(p, &at, &len);
        ok = !is_text && !encoding && len == n && same_json(p->data + at, text, n);
    } else if (no) {
        ok = (p->kind == RTPUSH_BINARY) == (encoding != NULL) && (encoding || is_text) && p->size == n && memcmp(p->data, text, n) == 0;
    }
    buf_free(&raw);
    if (!no) return;
    if (!ok) bad_payload(c, no);
    const char *name = json_text(item, "event");
    if (strcmp(p->topic, topic) != 0) broke("a message says its topic", "client %s: %s for %s", c->name, topic, p->topic);
    if (p->event[0] ? !name || strcmp(name, p->event) != 0 : event >= 0) broke("a message says its event", "client %s: %s for %s", c->name, name ? name : "-", p->event);
    client_has(c, no, k.epoch, k.seq, may_replay && json_true(item, "replay"));
}

static void client_told_gap(client *c, int g) {
    client_gap(c, json_text(g, "from"), json_text(g, "to"), json_text(g, "reason"), json_text(g, "topic"));
}

static int publish_answered(client *c, uint32_t no, const char *id, const char *by) {
    place k;
    if (!parse_place(&k, id)) return broke("a publish is answered by an id", "client %s, message %u: %s", c->name, no, id ? id : "-"), -1;
    bind_id(no, k.seq, by);
    W.pubs[no].answered = true;
    T.answers++;
    return 0;
}

static void client_poll(client *c, const asked *a) {
    place k;
    if (!json_parse(c->body.p, c->body.n) || c->body.p[c->body.n - 1] != '\n') {
        broke("a poll's body is JSON and a newline", "client %s: %.*s", c->name, (int)c->body.n, (const char *)c->body.p);
        return;
    }
    const char *text = json_text(0, "cursor");
    int messages = json_get(0, "messages"), g = json_get(0, "gap"), count = 0;
    bool more = json_true(0, "more"), moving = json_get(0, "reconnect") >= 0;
    if (!parse_place(&k, text) || messages < 0 || J.v[messages].type != J_ARRAY) {
        broke("a poll has cursor and messages", "client %s: %.200s", c->name, (const char *)c->body.p);
        return;
    }
    char etag[48];
    snprintf(etag, sizeof etag, "\"%s\"", text);
    if (strcmp(etag, c->head.etag) != 0) broke("a poll's ETag is its cursor", "client %s: %s for %s", c->name, c->head.etag, text);
    T.polls++;
    if (g >= 0) client_told_gap(c, g);
    for (int i = J.v[messages].child; i >= 0 && !W.is_failed; i = J.v[i].next, count++) client_item(c, i, false);
    if (count == 0 && a->hold_ms && g < 0 && !moving && !more && !c->head.closes && W.host_closed < a->at && !W.is.has_alloc_faults && !W.fail_at && !W.is.has_presence && a->start != 2 &&
        W.now - a->at + 2 < a->hold_ms - a->hold_ms / 10)
        broke("a long poll is held", "client %s: %" PRIu64 " ms of %" PRIu64, c->name, W.now - a->at, a->hold_ms);
    if (!c->has_cursor || k.seq >= c->cursor.seq || c->epoch_gap) {
        if (a->is_fresh) {
            c->checked = k.seq; // what was before the first answer is owed to nobody
            client_begins(c, k.seq);
        }
    }
    client_place(c, &k, false, "a poll's cursor");
    if (moving && !W.is_draining) broke("reconnect is said in a drain", "client %s", c->name);
}

static void client_sse_block(client *c, const unsigned char *p, size_t n) {
    buf data = {0};
    char id[48] = "", event[96] = "";
    bool has_data = false, has_id = false, has_retry = false, has_comment = false;
    for (size_t at = 0; at < n;) {
        size_t end = at;
        while (p[end] != '\n') end++;
        const char *line = (const char *)p + at;
        size_t len = end - at;
        if (memchr(line, '\r', len)) broke("an SSE line ends with LF alone", "client %s", c->name);
        at = end + 1;
        if (len >= 1 && line[0] == ':') has_comment = true;
        else if (len >= 4 && memcmp(line, "id: ", 4) == 0 && !has_id) has_id = true, keep(id, sizeof id, line + 4, len - 4);
        else if (len >= 7 && memcmp(line, "event: ", 7) == 0 && !event[0]) keep(event, sizeof event, line + 7, len - 7);
        else if (len >= 7 && memcmp(line, "retry: ", 7) == 0) has_retry = true;
        else if (len >= 5 && memcmp(line, "data:", 5) == 0) {
            size_t skip = len > 5 && line[5] == ' ' ? 6 : 5;
            if (has_data) buf_byte(&data, '\n');
            buf_put(&data, line + skip, len - skip);
            has_data = true;
        } else broke("an SSE line is a field or a comment", "client %s: %.*s", c->name, (int)len, line);
    }
    if (!data.p) buf_put(&data, "", 0);
    place k;
    if (has_id && !parse_place(&k, id)) broke("an SSE id is a cursor", "client %s: %s", c->name, id);
    if (!c->seen_block) {
        if (!has_retry || !has_comment || has_data) broke("an event stream begins with retry, a comment and id", "client %s: %.*s", c->name, (int)n, (const char *)p);
        c->seen_block = true;
    }
    if (W.is_failed) goto done;
    if (has_data && strcmp(event, "gap") == 0) {
        if (!json_parse(data.p, data.n)) broke("a gap's data is JSON", "client %s: %s", c->name, (const char *)data.p);
        else client_told_gap(c, 0);
        if (!has_id) broke("a gap has an id", "client %s", c->name);
        else client_place(c, &k, false, "a gap's id");
    } else if (has_data) {
        buf raw = {0};
        const unsigned char *text = data.p;
        size_t len = data.n;
        bool is_text = true;
        if (!(len > 5 && memcmp(text, "{\"m\":", 5) == 0) && !(len > 1 && text[0] == 'm' && memchr(text, '.', len < 12 ? len : 12))) {
            is_text = false;
            if (!take_base64(&raw, text, len)) broke("binary is base64", "client %s: %.60s", c->name, (const char *)text);
            text = raw.p;
            len = raw.n;
        }
        uint32_t no = W.is_failed ? 0 : known_pub(c, text, len);
        if (no) {
            pub *q = &W.pubs[no];
            bool ok = is_text == (q->kind != RTPUSH_BINARY) && (is_text ? same_text_lines(text, len, q) : len == q->size && memcmp(text, q->data, len) == 0);
            if (!ok) bad_payload(c, no);
            if (!has_id) broke("an SSE message has an id", "client %s", c->name);
            bool event_ok = strcmp(event, q->event) == 0;
            if (!q->event[0] && q->kind == RTPUSH_BINARY && strcmp(event, "binary") == 0) event_ok = true;
            else if (!q->event[0] && q->kind == RTPUSH_BINARY && !event[0]) event_ok = false;
            if (!q->event[0] && c->saw_event_topic && strcmp(event, q->topic) == 0) event_ok = true;
            if (!event_ok) broke("a message says its event", "client %s: %s for %s", c->name, event, q->event);
            if (!W.is_failed) client_has(c, no, k.epoch, k.seq, false);
        }
        buf_free(&raw);
    } else if (has_id) {
        if (c->asks[0].start == 1) client_begins(c, k.seq);
        if (has_comment && !has_retry) T.heartbeats++;
        client_place(c, &k, false, "a heartbeat");
    }
done:
    buf_free(&data);
}

static void client_sse(client *c) {
    size_t at = 0;
    while (!W.is_failed) { // an empty line ends a block
        size_t end = at;
        while (end < c->sse.n && !(c->sse.p[end] == '\n' && (end == at || c->sse.p[end - 1] == '\n'))) end++;
        if (end >= c->sse.n) break;
        if (end > at) client_sse_block(c, c->sse.p + at, end - at);
        at = end + 1;
    }
    buf_cut(&c->sse, at);
}

static void client_ack(client *c, int m) {
    const char *ref = json_text(m, "ref");
    unsigned n = ref ? (unsigned)strtoul(ref + 1, NULL, 10) : 0;
    T.acks++;
    if (ref && ref[0] == 'p' && n > 0 && n < W.pub_count) {
        publish_answered(c, n, json_text(m, "id"), "an ack");
    } else if (ref && ref[0] == 's' && n < (unsigned)c->slot_count) {
        slot *s = &c->slots[n];
        place k;
        if (!parse_place(&k, json_text(m, "cursor"))) {
            broke("the ack of a subscribe has its cursor", "client %s", c->name);
            return;
        }
        if (k.seq > W.highest_seen) W.highest_seen = k.seq;
        if (s->state != SLOT_ON) return;
        if (s->is_replaying) {
            s->is_replaying = false;
            s->need_from = s->since_seq == NEVER ? k.seq : s->since_seq;
            check_missing(c, s->need_from, k.seq, "an ack");
        } else if (s->need_from > k.seq) s->need_from = k.seq;
    } else if (ref && ref[0] == 'u' && n < (unsigned)c->slot_count) {
        if (c->slots[n].state == SLOT_LEAVING) c->slots[n].state = SLOT_LEFT;
    } else if (!ref || ref[0] != 'x') broke("an ack has the ref of what it answers", "client %s: %s", c->name, ref ? ref : "-");
}

static void client_error(client *c, int m) {
    const char *ref = json_text(m, "ref");
    unsigned n = ref ? (unsigned)strtoul(ref + 1, NULL, 10) : 0;
    if (!json_text(m, "reason") || json_get(m, "code") < 0) broke("an error has code and reason", "client %s: %.200s", c->name, (const char *)J.p);
    if (W.is_calm || W.fail_at) W.hurt++;
    if (ref && ref[0] == 'p' && n > 0 && n < W.pub_count) pub_refused(n, "an error");
    if (ref && ref[0] == 's' && n < (unsigned)c->slot_count && c->slots[n].state == SLOT_ON) c->slots[n].state = SLOT_LEFT;
}

static void envelope_subscribe(client *c, int i, bool has_since);

static void client_envelope(client *c, const unsigned char *p, size_t n) {
    if (!json_parse(p, n) || J.v[0].type != J_OBJECT || !json_text(0, "type")) {
        broke("an envelope is a JSON object with a type", "client %s: %.*s", c->name, (int)(n < 200 ? n : 200), (const char *)p);
        return;
    }
    char type[24];
    snprintf(type, sizeof type, "%s", json_text(0, "type"));
    place k;
    if (!c->seen_hello && strcmp(type, "hello") != 0 && strcmp(type, "error") != 0) broke("hello comes first", "client %s: %s", c->name, type);
    if (strcmp(type, "hello") == 0) {
        if (c->seen_hello) broke("hello comes once", "client %s", c->name);
        c->seen_hello = true;
        const char *text = json_text(0, "cursor");
        if (json_int(0, "heartbeat") < 0) broke("hello has heartbeat", "client %s", c->name);
        if (!text || (text[0] && !parse_place(&k, text) && c->asks[0].start != 3)) broke("hello has a cursor", "client %s: %s", c->name, text ? text : "-");
        else if (text[0] && c->asks[0].start != 3 && parse_place(&k, text)) {
            if (c->asks[0].start == 1) client_begins(c, k.seq);
            client_place(c, &k, false, "hello");
        }
        for (int i = 0; i < c->slot_count; i++) // what was asked with since and not acknowledged is asked again
            if (c->slots[i].state == SLOT_ON && c->slots[i].is_replaying) envelope_subscribe(c, i, true);
    } else if (strcmp(type, "message") == 0) client_item(c, 0, true);
    else if (strcmp(type, "gap") == 0) client_told_gap(c, 0);
    else if (strcmp(type, "ack") == 0) client_ack(c, 0);
    else if (strcmp(type, "error") == 0) client_error(c, 0);
    else if (strcmp(type, "heartbeat") == 0) {
        T.heartbeats++;
        if (!parse_place(&k, json_text(0, "cursor"))) broke("a heartbeat has a cursor", "client %s", c->name);
        else client_place(c, &k, false, "a heartbeat");
    } else if (strcmp(type, "reconnect") == 0) {
        if (!W.is_draining || json_int(0, "after") < 0) broke("reconnect is said in a drain, with after", "client %s", c->name);
    } else if (strcmp(type, "direct") == 0) T.directs++;
    else broke("an envelope's type is known", "client %s: %s", c->name, type);
}

// --- a client's connection ---

static void client_backoff(client *c, unsigned most) {
    uint64_t at = W.now + 1 + (W.is_calm ? below(200) : spread(most));
    c->due = at;
}

static void client_lost(client *c, bool by_us, const char *why) {
    vconn *k = c->conn;
    say("%s: connection ends: %s", c->name, why);
    for (int i = 0; i < c->ask_count; i++) {
        asked *a = &c->asks[i];
        if (a->kind != ASK_POST) continue;
        pub *p = &W.pubs[a->pub]; // it may have been published or not
        if (p->key[0] && c->retry_count < 16 && p->tries < TRIES) c->retry[c->retry_count++] = a->pub;
    }
    for (int i = 0; i < c->raw_count; i++) *got_of(c, c->raw[i]) = (uint64_t)c->serial << 2 | GOT_REPLAY;
    for (int i = 0; i < c->slot_count; i++)
        if (c->slots[i].state == SLOT_LEAVING) c->slots[i].state = SLOT_LEFT;
    if (!by_us) W.hurt++;
    c->raw_count = c->ask_count = c->pings_open = c->replay_subs = 0;
    c->tx.n = c->rx.n = c->body.n = c->sse.n = 0;
    c->mode = MODE_HEAD;
    c->sent_close = c->got_close = c->half_closed = c->is_open = c->is_deaf = c->seen_hello = c->seen_block = c->closing_after_answer = false;
    c->expects_gap = c->saw_event_topic = false;
    c->stall_until = 0;
    c->conn = NULL;
    if (k) net_close(k, by_us && one_in(3));
    client_backoff(c, 3000);
}

static bool client_connect(client *c) {
    c->conn = net_connect(c->id);
    c->serial++;
    c->last_rx = c->opened_at = W.now;
    if (!c->conn) client_backoff(c, 3000);
    else T.reconnects += c->serial > 1;
    return c->conn != NULL;
}

static void put_frame(buf *b, int opcode, bool is_final, const unsigned char *p, size_t n) {
    unsigned char key[4];
    for (int i = 0; i < 4; i++) key[i] = (unsigned char)rnd();
    buf_byte(b, (unsigned)(opcode | (is_final ? 128 : 0)));
    if (n < 126) buf_byte(b, 128 | (unsigned)n);
    else {
        int bytes = n < 65536 ? 2 : 8;
        buf_byte(b, 128 | (bytes == 2 ? 126 : 127));
        for (int i = bytes - 1; i >= 0; i--) buf_byte(b, (unsigned)((uint64_t)n >> (8 * i) & 255));
    }
    buf_put(b, key, 4);
    for (size_t i = 0; i < n; i++) buf_byte(b, p[i] ^ key[i & 3]);
}

static void client_ping(client *c) {
    if (c->pings_open >= 8 || c->sent_close) return;
    unsigned char x = (unsigned char)rnd();
    c->ping[c->pings_open++] = x;
    put_frame(&c->tx, 9, true, &x, 1);
    T.pings++;
}

static void send_message(client *c, int opcode, const unsigned char *p, size_t n) { // in one frame or several, pings between
    size_t at = 0;
    int pieces = one_in(4) ? (int)between(2, 5) : 1;
    for (int i = 0; i < pieces; i++) {
        size_t part = i + 1 == pieces ? n - at : (size_t)(rnd() % (n - at + 1));
        put_frame(&c->tx, i ? 0 : opcode, i + 1 == pieces, p + at, part);
        at += part;
        if (i + 1 < pieces && one_in(4)) client_ping(c);
    }
}

static void send_text(client *c, const buf *b) { send_message(c, 1, b->p, b->n); }

static void client_pong(client *c, const unsigned char *p, size_t n) { // RFC 6455 §5.5.3: the newest may answer all before it
    for (int i = 0; n == 1 && i < c->pings_open; i++) {
        if (c->ping[i] != p[0]) continue;
        c->pings_open -= i + 1;
        memmove(c->ping, c->ping + i + 1, (size_t)c->pings_open);
        return;
    }
    broke("a pong is a ping's", "client %s: %zu bytes", c->name, n);
}

static void client_close_frame(client *c, const unsigned char *p, size_t n) {
    unsigned code = n >= 2 ? (unsigned)p[0] << 8 | p[1] : 1005;
    if (n == 1 || (n >= 2 && (code < 1000 || (code > 1003 && code < 1007) || (code > 1014 && code < 3000) || code > 4999)))
        broke("a close code may be sent", "client %s: %u", c->name, code);
    if (n > 2 && rtpush_utf8(0, p + 2, n - 2) != 0) broke("a close's reason is UTF-8", "client %s", c->name);
    say("%s is closed by %u %.*s", c->name, code, n > 2 ? (int)(n - 2) : 0, n > 2 ? (const char *)p + 2 : "");
    T.closes++;
    if (code == 4100) T.slow_closes++;
    if (code == 1012 && !W.is_draining) broke("1012 is a drain's", "client %s", c->name);
    if (code == 1002 || code == 1007 || code == 1003) broke("a good client is not refused", "client %s: %u", c->name, code);
    c->got_close = true;
    if (!c->sent_close) {
        c->tx.n = 0;
        put_frame(&c->tx, 8, true, p, n >= 2 ? 2 : 0);
        c->sent_close = true;
    }
}

static bool client_ws(client *c) { // one frame; false: none is whole
    frame f;
    bool is_whole;
    const char *wrong = parse_ws(&f, &c->rx, &is_whole);
    if (wrong) broke("frames are whole and plain", "client %s: %s", c->name, wrong);
    if (wrong || !is_whole) return false;
    const unsigned char *p = c->rx.p + f.head;
    if (c->got_close) broke("nothing follows a close frame", "client %s: opcode %d", c->name, f.opcode);
    if (f.opcode == 1 && rtpush_utf8(0, p, f.length) != 0) broke("a text frame is UTF-8", "client %s", c->name);
    buf copy = {0};
    buf_put(&copy, p, f.length);
    buf_cut(&c->rx, f.head + f.length);
    if (f.opcode == 8) client_close_frame(c, copy.p, copy.n);
    else if (f.opcode == 9 && !c->is_deaf && !c->sent_close) put_frame(&c->tx, 10, true, copy.p, copy.n);
    else if (f.opcode == 10) client_pong(c, copy.p, copy.n);
    else if (f.opcode <= 2 && copy.n > 2 && memcmp(copy.p, "D:", 2) == 0) T.directs++;
    else if (f.opcode <= 2 && c->transport == ENVELOPE) {
        if (f.opcode == 2) broke("the envelope is text", "client %s", c->name);
        client_envelope(c, copy.p, copy.n);
    } else if (f.opcode <= 2) {
        uint32_t no = known_pub(c, copy.p, copy.n);
        if (no) {
            pub *q = &W.pubs[no];
            if ((f.opcode == 2) != (q->kind == RTPUSH_BINARY) || copy.n != q->size || memcmp(copy.p, q->data, copy.n) != 0) bad_payload(c, no);
            client_raw(c, no);
        }
    }
    buf_free(&copy);
    return true;
}

static void client_upgraded(client *c) {
    const response *r = &c->head;
    asked *a = &c->asks[0];
    if (a->kind != ASK_WS) {
        broke("101 answers an upgrade", "client %s", c->name);
        return;
    }
    if (strcmp(r->accept, c->ws_accept) != 0) broke("Sec-WebSocket-Accept is the key's", "client %s: %s", c->name, r->accept);
    if (strcmp(r->protocol, c->transport == ENVELOPE ? "rtpush.v1" : "") != 0) broke("the subprotocol is what was offered", "client %s: %s", c->name, r->protocol);
    c->mode = MODE_WS;
    c->is_open = true;
    if (a->is_fresh) client_begins(c, W.head);
    if (r->gap[0]) {
        char from[32], to[32], reason[16];
        if (c->transport != RAW || sscanf(r->gap, "%31s %31s %15s", from, to, reason) != 3) broke("Rtpush-Gap is from, to and reason", "client %s: %s", c->name, r->gap);
        else client_gap(c, from, to, reason, NULL);
    }
}

static void client_publish_answer(client *c, const asked *a) {
    pub *p = &W.pubs[a->pub];
    int status = c->head.status;
    if (status == 201 || status == 202) {
        if (!json_parse(c->body.p, c->body.n)) broke("a publish's answer is JSON", "client %s: %s", c->name, (const char *)c->body.p);
        else if (publish_answered(c, a->pub, json_text(0, "id"), "a POST's answer") == 0) {
            const char *topic = json_text(0, "topic");
            int64_t n = json_int(0, "subscribers");
            if (!topic || strcmp(topic, p->topic) != 0) broke("a publish's answer has the topic", "client %s: %s", c->name, topic ? topic : "-");
            if (n < 0 || (n > 0) != (status == 201)) broke("201 where a reader was there, 202 where none", "client %s: %d for %" PRId64, c->name, status, n);
        }
        if (p->key[0] && one_in(8) && c->retry_count < 16 && p->tries < TRIES) c->retry[c->retry_count++] = a->pub;
    } else if (status < 400) broke("a publish is answered by 201 or 202", "client %s: %d", c->name, status);
    else pub_refused(a->pub, "an HTTP status");
}

static bool status_allowed(const client *c, const asked *a, int status) {
    if (status == 500 || status == 503) return W.is.has_alloc_faults || W.fail_at || W.is.may_refuse || W.is_draining || W.is.has_bus;
    if (status == 429) return W.is.may_refuse;
    if (status == 408) return true;
    if (status == 400) return W.desc.session_topics_max > 0;
    if (status == 403) return a && (a->kind == ASK_POST || a->kind == ASK_DELETE) && W.is.has_callbacks;
    if (status == 413) return a && a->kind == ASK_POST && (W.pubs[a->pub].size * 4 > (size_t)W.desc.body_max || W.pubs[a->pub].size > (size_t)W.desc.message_max);
    if (status == 401) return W.is.has_login && W.is.has_callbacks;
    (void)c;
    return status < 400;
}

static void response_done(client *c) {
    asked a = c->asks[0];
    response *r = &c->head;
    if (c->ask_count > 0) {
        c->ask_count--;
        memmove(c->asks, c->asks + 1, (size_t)c->ask_count * sizeof *c->asks);
    } else memset(&a, 0, sizeof a), a.kind = ASK_OTHER;
    c->mode = MODE_HEAD;
    if (!c->body.p) buf_put(&c->body, "", 0);
    say("%s: %d%s", c->name, r->status, r->status >= 400 ? (const char *)c->body.p : "");
    if (!status_allowed(c, &a, r->status)) broke("a good request is served", "client %s: %d %s", c->name, r->status, (const char *)c->body.p);
    if (r->status >= 500) W.hurt++;
    if (r->status >= 400 && !a.is_head && c->kind != PROBE) {
        if (!json_parse(c->body.p, c->body.n) || !json_text(0, "error") || !json_text(0, "reason") || c->body.p[c->body.n - 1] != '\n')
            broke("an error's body has error and reason", "client %s: %d %s", c->name, r->status, (const char *)c->body.p);
    }
    if (W.is_failed) return;
    if (a.kind == ASK_POST) client_publish_answer(c, &a);
    else if (a.kind == ASK_DELETE && r->status < 400 && r->status != 204) broke("DELETE is answered by 204", "client %s: %d", c->name, r->status);
    else if (a.kind == ASK_POLL && c->kind == PROBE) {
        c->is_done = true;
        c->found_count = 0;
        if (r->status == 200 && json_parse(c->body.p, c->body.n)) {
            int m = json_get(0, "messages");
            for (int i = m < 0 ? -1 : J.v[m].child; i >= 0; i = J.v[i].next) {
                place k;
                if (!parse_place(&k, json_text(i, "id"))) continue;
                c->found = must(realloc(c->found, (size_t)(c->found_count + 1) * sizeof *c->found));
                c->found[c->found_count++] = k.seq;
            }
        }
    } else if (a.kind == ASK_POLL && r->status == 200) {
        client_poll(c, &a);
        c->due = W.now + 1 + (one_in(3) ? 0 : spread(W.is_calm ? 300 : 2000));
    } else if (a.kind == ASK_POLL && r->status == 304) {
        place k;
        T.not_modified++;
        size_t n = strlen(r->etag);
        if (!a.is_conditional) broke("304 answers If-None-Match", "client %s", c->name);
        if (n > 2) r->etag[n - 1] = 0;
        if (n < 3 || !parse_place(&k, r->etag + 1)) broke("304 has the head in ETag", "client %s: %s", c->name, r->etag);
        else client_place(c, &k, false, "a 304");
        c->due = W.now + 1 + spread(1000);
    } else if (r->status >= 400 && c->kind == READER) c->due = W.now + 1 + spread(2000);
    c->body.n = 0;
    if (c->conn && (r->closes || c->closing_after_answer)) client_lost(c, true, "after the answer");
    else if (c->conn && a.kind != ASK_POLL && c->kind == READER) client_lost(c, true, "refused");
}

static void client_head(client *c) {
    response *r = &c->head;
    asked *a = &c->asks[0];
    if (r->status == 100) return;
    if (c->ask_count == 0 && r->status != 408 && r->status != 503 && r->status != 429) {
        broke("nothing comes unasked", "client %s: %d", c->name, r->status);
        return;
    }
    c->body.n = 0;
    c->body_left = r->length;
    if (r->status == 101) {
        client_upgraded(c);
        return;
    }
    bool has_body = !(c->ask_count && a->is_head) && r->status != 204 && r->status != 304;
    c->mode = !has_body ? MODE_HEAD : r->is_chunked ? MODE_CHUNKED : r->has_length ? MODE_LENGTH : MODE_UNTIL_END;
    memset(&c->chunk, 0, sizeof c->chunk);
    if (c->mode == MODE_UNTIL_END && !r->closes) broke("a body has an end", "client %s: %d", c->name, r->status);
    if (c->ask_count && a->kind == ASK_SSE && r->status == 200) {
        if (strncmp(r->type, "text/event-stream", 17) != 0) broke("an event stream says what it is", "client %s: %s", c->name, r->type);
        c->is_open = true;
        if (a->is_fresh && a->start != 1) client_begins(c, W.head);
    }
    if (!has_body || (c->mode == MODE_LENGTH && r->length == 0)) response_done(c);
}

static bool client_body(client *c) { // false: it needs more
    buf *out = c->is_open && c->kind == READER ? &c->sse : &c->body;
    if (c->mode == MODE_CHUNKED) {
        int verdict = take_chunks(&c->chunk, &c->rx, out);
        if (verdict < 0) broke("chunks are well-formed", "client %s", c->name);
        if (out == &c->sse) client_sse(c);
        if (verdict <= 0) return false;
        if (c->is_open) { // the stream has ended
            if (c->sse.n) broke("an event stream ends behind a block", "client %s: %.*s", c->name, (int)c->sse.n, (const char *)c->sse.p);
            client_lost(c, false, "the stream ends");
            return false;
        }
    } else if (c->mode == MODE_LENGTH) {
        size_t n = c->rx.n < c->body_left ? c->rx.n : (size_t)c->body_left;
        buf_put(out, c->rx.p, n);
        buf_cut(&c->rx, n);
        c->body_left -= n;
        if (c->body_left) return false;
    } else {
        buf_put(out, c->rx.p, c->rx.n);
        c->rx.n = 0;
        if (out == &c->sse) client_sse(c);
        return false;
    }
    response_done(c);
    return true;
}

static void client_parse(client *c) {
    if (c->kind == VANDAL) c->rx.n = 0;
    while (c->conn && c->rx.n > 0 && !W.is_failed) {
        if (c->mode == MODE_WS) {
            if (!client_ws(c)) return;
        } else if (c->mode != MODE_HEAD) {
            if (!client_body(c)) return;
        } else {
            ptrdiff_t n = parse_response(&c->head, c->rx.p, c->rx.n);
            if (n < 0) broke("a response's head is well-formed", "client %s: %.*s", c->name, (int)(c->rx.n < 200 ? c->rx.n : 200), (const char *)c->rx.p);
            if (n <= 0) return;
            buf_cut(&c->rx, (size_t)n);
            client_head(c);
        }
    }
}

static void client_ended(client *c) { // the server's end (FIN) came
    if (c->mode == MODE_UNTIL_END && c->is_open) client_sse(c);
    else if (c->mode == MODE_UNTIL_END) response_done(c);
    if (c->conn) client_lost(c, c->sent_close && c->got_close, c->got_close ? "closed" : "the server ends it");
}

static void client_io(client *c) {
    vconn *k = c->conn;
    if (!k) return;
    if (c->tx.n && !c->half_closed) {
        size_t n = W.is_calm || one_in(3) ? c->tx.n : 1 + (size_t)(rnd() % c->tx.n);
        buf_cut(&c->tx, net_write(k, c->tx.p, n));
    }
    if (W.now >= c->stall_until) {
        unsigned char room[4096];
        size_t n, most = W.is_calm || one_in(2) ? 1 << 20 : 1 + (size_t)(rnd() % 5000);
        while (c->conn == k && most > 0 && (n = flow_take(&k->down, room, most < sizeof room ? most : sizeof room)) > 0) {
            buf_put(&c->rx, room, n);
            c->last_rx = W.now;
            most -= n;
            client_parse(c);
        }
        if (c->conn != k) return;
        flow_arrive(&k->down);
        if (k->is_reset && k->down.ready == 0) client_lost(c, false, "reset");
        else if (flow_at_end(&k->down)) client_ended(c);
    }
}

// --- what a client sends ---

static void put_percent(buf *b, const char *s, bool keep_slash) {
    for (; *s; s++) {
        unsigned char x = (unsigned char)*s;
        if ((x >= 'a' && x <= 'z') || (x >= '0' && x <= '9') || (keep_slash && x == '/') || x == '-' || x == '_') buf_byte(b, x);
        else if (x == '*' && one_in(2)) buf_byte(b, x);
        else buf_fmt(b, "%%%02X", x);
    }
}

static void put_mount(buf *b) { buf_str(b, W.desc.mount ? W.desc.mount : "/live"); }

static void put_query(buf *b, bool *any, const char *name, const char *value) {
    buf_byte(b, *any ? '&' : '?');
    *any = true;
    buf_str(b, name);
    buf_byte(b, '=');
    put_percent(b, value, one_in(2));
}

static void put_end(client *c, buf *b) { // the headers that every request has, and the empty line
    buf_str(b, " HTTP/1.1\r\nHost: sim\r\n");
    if (W.is.has_login) buf_fmt(b, "Authorization: Bearer %s\r\n", c->name);
}

static asked *ask(client *c, int kind) {
    asked *a = &c->asks[c->ask_count++];
    memset(a, 0, sizeof *a);
    a->kind = kind;
    a->at = W.now;
    return a;
}

static void put_topics(client *c, buf *b, bool *any) { // the first may stand in the path
    bool in_path = one_in(2);
    put_mount(b);
    for (int i = 0; i < c->slot_count; i++) {
        slot *s = &c->slots[i];
        if (s->state != SLOT_ON || s->is_replaying || s->is_host) continue;
        if (in_path && !*any) {
            buf_byte(b, '/');
            put_percent(b, s->name, true);
            in_path = false;
        } else put_query(b, any, "topic", s->name);
    }
}

static const char *own_cursor(const client *c, char *text) {
    snprintf(text, 40, "%s-%" PRIu64, c->cursor.epoch, c->cursor.seq);
    return text;
}

static bool is_replaying(const client *c) {
    for (int i = 0; i < c->slot_count; i++)
        if (c->slots[i].state == SLOT_ON && c->slots[i].is_replaying) return true;
    return false;
}

static void client_read(client *c) { // asks for what it reads, over its transport of now
    buf b = {0};
    char start[48] = "";
    bool any = false, by_header = false;
    int t = c->transport;
    asked *a = ask(c, t == SSE ? ASK_SSE : t <= ENVELOPE ? ASK_WS : ASK_POLL);
    c->expects_gap = false;
    a->is_fresh = !c->has_cursor;
    if (c->has_cursor) own_cursor(c, start);
    else if (!W.is_calm && one_in(12)) {
        a->start = 3;
        snprintf(start, sizeof start, "zzzzzzzz-%u", below(100));
        c->expects_gap = true;
    } else if (t == SHORT_POLL || one_in(3)) {
        a->start = one_in(3) && t != SHORT_POLL ? 1 : 2;
        if (a->start == 1) snprintf(start, sizeof start, "latest");
        else if (t != SHORT_POLL || one_in(2)) snprintf(start, sizeof start, one_in(2) ? "earliest" : "-%u", between(1, 5));
    } else a->start = 1;
    for (int i = 0; i < c->slot_count; i++) {
        slot *s = &c->slots[i];
        if (s->state != SLOT_ON || s->is_replaying || s->is_host) continue;
        if (!c->has_cursor) s->need_from = NEVER; // it begins anew
        else if (s->need_from > c->cursor.seq) s->need_from = c->cursor.seq;
    }
    buf_str(&b, "GET ");
    put_topics(c, &b, &any);
    if (c->session[0]) put_query(&b, &any, "session", c->session);
    if (t == SSE && one_in(2)) {
        put_query(&b, &any, "events", "topic");
        c->saw_event_topic = true;
    }
    if (start[0] && (a->start == 1 || a->start == 2)) put_query(&b, &any, "since", start);
    else if (start[0]) {
        if (t == SHORT_POLL && one_in(2)) a->is_conditional = true;
        else if (one_in(3)) by_header = true;
        else put_query(&b, &any, one_in(2) ? "since" : "last_event_id", start);
    }
    unsigned wait = 0;
    bool prefers = one_in(3);
    if (t == LONG_POLL) {
        char text[12];
        wait = W.is_calm ? between(1, 3) : between(1, 20);
        snprintf(text, sizeof text, "%u", wait);
        if (!prefers) put_query(&b, &any, "wait", text);
        a->hold_ms = (int64_t)wait * 1000 < W.desc.poll_max_ms ? (uint64_t)wait * 1000 : (uint64_t)W.desc.poll_max_ms;
    }
    put_end(c, &b);
    if (wait && prefers) buf_fmt(&b, "Prefer: wait=%u\r\n", wait);
    if (by_header) buf_fmt(&b, "Last-Event-ID: %s\r\n", start);
    if (a->is_conditional) buf_fmt(&b, "If-None-Match: \"%s\"\r\n", start);
    if (t == SSE) buf_str(&b, "Accept: text/event-stream\r\n");
    if (t == RAW || t == ENVELOPE) {
        unsigned char key[16], digest[20];
        for (int i = 0; i < 16; i++) key[i] = (unsigned char)rnd();
        buf text = {0}, accept = {0};
        put_base64(&text, key, 16);
        buf_fmt(&b, "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n", (char *)text.p);
        if (t == ENVELOPE) buf_fmt(&b, "Sec-WebSocket-Protocol: %srtpush.v1\r\n", one_in(2) ? "other, " : "");
        buf_str(&text, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"); // RFC 6455 §1.3
        sha1((char *)text.p, digest);
        put_base64(&accept, digest, 20);
        keep(c->ws_accept, sizeof c->ws_accept, (char *)accept.p, accept.n);
        buf_free(&text);
        buf_free(&accept);
    }
    buf_str(&b, "\r\n");
    say("%s asks: %.*s", c->name, (int)strcspn((char *)b.p, "\r"), (char *)b.p);
    buf_put(&c->tx, b.p, b.n);
    buf_free(&b);
}

static void client_post(client *c, uint32_t no) {
    pub *p = &W.pubs[no];
    buf b = {0};
    bool any = false;
    ask(c, ASK_POST)->pub = no;
    p->tries++;
    if (p->tries == 1) p->first_ms = W.now;
    else T.keyed_retries++;
    buf_str(&b, "POST ");
    put_mount(&b);
    buf_byte(&b, '/');
    put_percent(&b, p->topic, true);
    if (p->event[0]) put_query(&b, &any, "event", p->event);
    if (p->is_ephemeral) put_query(&b, &any, "ephemeral", "1");
    put_end(c, &b);
    if (p->key[0]) buf_fmt(&b, "Idempotency-Key: %s\r\n", p->key);
    buf_fmt(&b, "Content-Type: %s\r\n", p->kind == RTPUSH_JSON ? "application/json" : p->kind == RTPUSH_BINARY ? "application/octet-stream" : "text/plain; charset=utf-8");
    if (one_in(8)) buf_str(&b, "Expect: 100-continue\r\n");
    if (one_in(3)) {
        buf_str(&b, "Transfer-Encoding: chunked\r\n\r\n");
        for (size_t at = 0; at < p->size;) {
            size_t n = one_in(3) ? p->size - at : 1 + (size_t)(rnd() % (p->size - at));
            buf_fmt(&b, "%zx\r\n", n);
            buf_put(&b, p->data + at, n);
            buf_str(&b, "\r\n");
            at += n;
        }
        buf_str(&b, "0\r\n\r\n");
    } else {
        buf_fmt(&b, "Content-Length: %zu\r\n\r\n", p->size);
        buf_put(&b, p->data, p->size);
    }
    say("%s posts message %u", c->name, no);
    buf_put(&c->tx, b.p, b.n);
    buf_free(&b);
}

static void client_other(client *c) { // what is not the log's, on the same connection
    static const char *const what[] = {"GET /healthz", "GET /stats", "GET /metrics", "HEAD /healthz", "OPTIONS", "DELETE", "HEAD"};
    int i = (int)below(7);
    asked *a = ask(c, i == 5 ? ASK_DELETE : ASK_OTHER);
    a->is_head = i == 3 || i == 6;
    buf_str(&c->tx, what[i]);
    if (i >= 4) {
        buf_byte(&c->tx, ' ');
        put_mount(&c->tx);
        buf_str(&c->tx, one_in(2) ? "/a" : "/c/1");
    }
    put_end(c, &c->tx);
    buf_str(&c->tx, "\r\n");
}

static const char *random_topic(void) { return W.is.is_crowded && !one_in(8) ? "a" : topic_names[below(one_in(3) ? TOPICS : 3)]; }

static void envelope_publish(client *c) {
    const char *topic = random_topic();
    int kind = (int)between(RTPUSH_TEXT, RTPUSH_BINARY);
    uint32_t no = pub_new(VIA_ENVELOPE, c->id, topic, kind, one_in(8));
    pub *p = &W.pubs[no];
    buf b = {0};
    p->tries++;
    buf_str(&b, "{\"type\":\"publish\",\"topic\":");
    put_json_string(&b, (const unsigned char *)topic, strlen(topic));
    if (p->event[0]) {
        buf_str(&b, ",\"event\":");
        put_json_string(&b, (const unsigned char *)p->event, strlen(p->event));
    }
    buf_str(&b, ",\"data\":");
    if (kind == RTPUSH_BINARY) {
        buf_byte(&b, '"');
        put_base64(&b, p->data, p->size);
        buf_str(&b, "\",\"encoding\":\"base64\"");
    } else if (kind == RTPUSH_JSON) buf_put(&b, p->data, p->size);
    else put_json_string(&b, p->data, p->size);
    if (p->is_ephemeral) buf_str(&b, ",\"ephemeral\":true");
    if (one_in(6)) buf_fmt(&b, ",\"key\":\"e%u\"", no);
    if (!one_in(5)) buf_fmt(&b, ",\"ref\":\"p%u\"", no);
    else p->tries++; // nobody will tell
    buf_byte(&b, '}');
    say("%s publishes message %u", c->name, no);
    send_text(c, &b);
    buf_free(&b);
}

static void raw_publish(client *c) {
    const char *first = NULL;
    for (int i = 0; i < c->slot_count && !first; i++)
        if (c->slots[i].state == SLOT_ON && !c->slots[i].is_host) first = c->slots[i].name;
    if (!first || first[0] == '@' || strchr(first, '*') || is_replaying(c)) return;
    int kind = one_in(3) ? RTPUSH_BINARY : RTPUSH_TEXT;
    uint32_t no = pub_new(VIA_RAW, c->id, first, kind, false);
    W.pubs[no].tries++;
    say("%s sends message %u", c->name, no);
    send_message(c, kind == RTPUSH_BINARY ? 2 : 1, W.pubs[no].data, W.pubs[no].size);
}

static slot *slot_new(client *c, const char *name) {
    if (c->slot_count == SLOTS) return NULL;
    slot *s = &c->slots[c->slot_count++];
    memset(s, 0, sizeof *s);
    snprintf(s->name, sizeof s->name, "%s", name);
    s->state = SLOT_ON;
    s->need_from = s->need_to = NEVER;
    return s;
}

static void envelope_subscribe(client *c, int i, bool has_since) {
    buf b = {0};
    buf_str(&b, "{\"type\":\"subscribe\",\"topic\":");
    put_json_string(&b, (const unsigned char *)c->slots[i].name, strlen(c->slots[i].name));
    if (has_since) {
        buf_fmt(&b, ",\"since\":\"%s\"", c->slots[i].since);
        c->replay_subs++;
    }
    buf_fmt(&b, ",\"ref\":\"s%d\"}", i);
    say("%s subscribes: %s", c->name, (char *)b.p);
    send_text(c, &b);
    buf_free(&b);
}

static void envelope_resubscribe(client *c) { // a new topic, perhaps from an earlier place, or one less
    if (one_in(3)) {
        int on = 0, pick = -1;
        for (int i = 0; i < c->slot_count; i++)
            if (c->slots[i].state == SLOT_ON && !c->slots[i].is_replaying && !c->slots[i].is_host && c->slots[i].need_from != NEVER) on++, pick = one_in((unsigned)on) ? i : pick;
        if (on < 2) return;
        slot *s = &c->slots[pick];
        s->state = SLOT_LEAVING;
        s->need_to = c->has_cursor ? c->cursor.seq : 0;
        buf b = {0};
        buf_str(&b, "{\"type\":\"unsubscribe\",\"topic\":");
        put_json_string(&b, (const unsigned char *)s->name, strlen(s->name));
        buf_fmt(&b, ",\"ref\":\"u%d\"}", pick);
        say("%s unsubscribes: %s", c->name, s->name);
        send_text(c, &b);
        buf_free(&b);
        return;
    }
    const char *name = one_in(3) ? pattern_names[below(PATTERNS)] : random_topic();
    bool is_apart = true;
    for (int i = 0; i < c->slot_count; i++) {
        if (c->slots[i].state == SLOT_ON || c->slots[i].state == SLOT_LEAVING) {
            if (strcmp(c->slots[i].name, name) == 0) return;
            if (overlaps(c->slots[i].name, name)) is_apart = false;
        }
    }
    slot *s = slot_new(c, name);
    if (!s) return;
    if (one_in(2)) { // over what others bring already it has no right to the past
        s->is_replaying = true;
        s->since_seq = NEVER;
        if (one_in(3)) snprintf(s->since, sizeof s->since, one_in(2) ? "earliest" : "-%u", between(1, 6));
        else {
            s->since_seq = W.head ? rnd() % (W.head + 1) : 0;
            if (c->has_cursor && s->since_seq > c->cursor.seq) s->since_seq = c->cursor.seq;
            snprintf(s->since, sizeof s->since, "%s-%" PRIu64, W.epoch, s->since_seq);
            if (!is_apart) s->since_seq = NEVER;
        }
    }
    envelope_subscribe(c, c->slot_count - 1, s->is_replaying);
}

// A new reader in the same chair: it remembers nothing.
static void client_rebirth(client *c) {
    c->slot_count = c->gap_count = c->raw_count = 0;
    c->has_cursor = c->epoch_gap = false;
    c->checked = 0;
    if (c->got) memset(c->got, 0, c->got_cap * sizeof *c->got);
    unsigned n = one_in(2) ? 1 : between(2, 4);
    for (unsigned i = 0; i < n; i++) {
        const char *name = one_in(4) ? pattern_names[below(PATTERNS)] : W.is.has_login && one_in(4) ? c->user_topic : random_topic();
        bool is_new = true;
        for (int k = 0; k < c->slot_count; k++) is_new = is_new && strcmp(c->slots[k].name, name) != 0;
        if (is_new) slot_new(c, name);
    }
    c->session[0] = 0;
    if (one_in(2)) snprintf(c->session, sizeof c->session, "session_of_%s_%08x", c->name, (unsigned)rnd());
    c->transport = (int)below(TRANSPORTS);
}

static void reader_idle(client *c) {
    if (W.is_draining && !has_listener()) {
        c->due = NEVER;
        return;
    }
    if (!c->conn) {
        if (!W.is_calm && one_in(25)) client_rebirth(c);
        if (is_replaying(c)) c->transport = ENVELOPE;
        else if (!c->is_loyal && one_in(3)) {
            int t = (int)below(TRANSPORTS);
            T.changes += t != c->transport;
            c->transport = t;
        }
        if (!client_connect(c)) return;
    } else if (c->conn->up.is_ended || (one_in(10) && !W.is_calm)) {
        client_lost(c, true, "it changes its mind");
        return;
    }
    c->due = NEVER;
    client_read(c);
    if (c->transport <= SSE || one_in(4)) c->due = W.now + 1 + spread(3000);
}

static void client_stall(client *c) {
    c->stall_until = W.now + 1 + spread(one_in(6) ? 60000 : 6000);
    if (one_in(2) && c->conn->down.limit > 3000) c->conn->down.limit = between(1, 3000);
    T.stalls++;
    say("%s stops reading for %" PRIu64 " ms", c->name, c->stall_until - W.now);
}

static void reader_open(client *c) { // something it does with an open stream
    c->due = W.now + 1 + spread(4000);
    if (W.is_calm) return;
    bool is_ws = c->mode == MODE_WS && !c->sent_close;
    if (chance(W.is.p_stall)) client_stall(c);
    if (one_in(6)) c->conn->down.limit = random_limit();
    switch (W.fail_at ? between(4, 15) : below(24)) { // for the n-th allocation it gives the server no reason
    case 0: client_lost(c, true, "it closes"); return;
    case 1:
        if (is_ws) {
            unsigned char code[2] = {3, 232}; // 1000
            put_frame(&c->tx, 8, true, code, one_in(2) ? 2 : 0);
            c->sent_close = true;
        }
        break;
    case 2:
        if (!c->half_closed && c->tx.n == 0 && one_in(3)) {
            T.f_half++;
            c->half_closed = true;
            flow_end(&c->conn->up, c->conn->latency);
        }
        break;
    case 3: c->is_deaf = one_in(4); break; // answers no pings
    case 4: case 5:
        if (is_ws) client_ping(c);
        break;
    case 6: case 7: case 8: case 9: case 10: case 11:
        if (is_ws && c->transport == RAW) raw_publish(c);
        if (is_ws && c->transport == ENVELOPE && c->seen_hello) envelope_publish(c);
        break;
    case 12: case 13: case 14: case 15:
        if (is_ws && c->transport == ENVELOPE && c->seen_hello) envelope_resubscribe(c);
        break;
    case 16:
        if (is_ws && c->transport == ENVELOPE && one_in(3)) { // an error, and it lives
            static const char *const bad[] = {"{\"type\":\"what\"}", "{", "[]", "{\"type\":\"subscribe\"}", "\"\"", "{\"type\":\"subscribe\",\"topic\":\"a//b\"}"};
            const char *text = bad[below(6)];
            send_message(c, 1, (const unsigned char *)text, strlen(text));
        }
        break;
    default: break;
    }
}

static void poster_act(client *c) {
    c->due = W.now + 1 + spread(1500);
    if (W.is_draining) {
        c->due = NEVER;
        return;
    }
    if (!c->conn && !client_connect(c)) return;
    if (c->conn->is_reset || c->closing_after_answer) return;
    if (!W.is_calm && chance(W.is.p_stall)) client_stall(c);
    if (!W.is_calm && one_in(25)) {
        client_lost(c, true, "it closes");
        return;
    }
    for (unsigned n = one_in(3) ? 3 : 1; n > 0 && c->ask_count < 4; n--) {
        uint32_t no = 0;
        if (c->retry_count > 0) {
            no = c->retry[--c->retry_count];
            if (W.now - W.pubs[no].first_ms > 20000) no = 0; // its key may be forgotten soon
        } else if (W.is_calm) return;
        else if (one_in(20)) client_other(c);
        else {
            no = pub_new(VIA_POST, c->id, random_topic(), (int)between(RTPUSH_TEXT, RTPUSH_BINARY), one_in(8));
            if (one_in(3)) snprintf(W.pubs[no].key, sizeof W.pubs[no].key, "k%u", no);
        }
        if (no) client_post(c, no);
    }
}

static void vandal_act(client *c) { // nonsense, and requests with a byte changed; never a publish
    c->due = W.now + 1 + spread(2000);
    if (W.is_calm) {
        c->due = NEVER;
        if (c->conn) client_lost(c, true, "it gives up");
        return;
    }
    if (c->conn && one_in(2)) {
        client_lost(c, true, "it has enough");
        return;
    }
    if (!c->conn && !client_connect(c)) return;
    buf b = {0};
    switch (below(5)) {
    case 0:
        for (unsigned n = between(1, 300); n > 0; n--) buf_byte(&b, (unsigned)(rnd() & 255));
        break;
    case 1:
        buf_str(&b, "GET ");
        for (unsigned n = between(1, 20000); n > 0; n--) buf_byte(&b, 'a' + below(26));
        break;
    case 2: buf_str(&b, "GET /live/zz HTTP/1.1\r\nHost: sim\r\nAccept: text/event-stream\r\n\r\n"); break;
    case 3: buf_str(&b, "GET /live/zz?wait=9 HTTP/1.1\r\nHost: sim\r\n\r\nGET /live/zz HTTP/1.0\r\n\r\n"); break;
    default:
        buf_str(&b, "GET /live?topic=zz HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: rtpush.v1\r\n\r\n");
        for (unsigned n = below(6); n > 0; n--) {
            static const unsigned char junk[] = "{\"type\":\"ping\"}";
            put_frame(&b, (int)below(16), one_in(2), junk, below(15));
        }
    }
    if (b.n > 4 && one_in(2)) b.p[4 + below((unsigned)b.n - 4)] = (unsigned char)rnd();
    if (one_in(3)) b.n = 1 + below((unsigned)b.n);
    c->tx.n = 0;
    buf_put(&c->tx, b.p, b.n);
    buf_free(&b);
}

static void probe_ask(client *c) { // reads one topic's whole history by a short poll
    c->due = W.now + 500;
    if (!c->conn && !client_connect(c)) return;
    if (c->ask_count) return;
    ask(c, ASK_POLL);
    buf_str(&c->tx, "GET ");
    put_mount(&c->tx);
    buf_byte(&c->tx, '/');
    put_percent(&c->tx, c->user_topic, true);
    put_end(c, &c->tx);
    buf_str(&c->tx, "\r\n");
    T.probes++;
}

static uint64_t silence_max(const client *c) {
    int64_t ms = c->transport == SSE ? W.desc.sse_heartbeat_ms : W.desc.heartbeat_ms;
    if (ms == 0) ms = c->transport == SSE ? 15000 : 20000;
    return ms < 0 ? NEVER : (uint64_t)ms + (uint64_t)ms / 4 + 1500 + W.is.latency_max;
}

static void client_watch(client *c) { // what is owed in time while the network is good
    uint64_t since = c->last_rx > W.calm_since ? c->last_rx : W.calm_since;
    if (!W.is_calm || W.is_draining || !c->conn || c->kind == VANDAL || W.fail_at) return;
    if (c->is_open && c->kind == READER && c->transport <= SSE && !c->sent_close && W.now - since > silence_max(c))
        broke("a stream has its heartbeat", "client %s (%s): nothing for %" PRIu64 " ms", c->name, transport_names[c->transport], W.now - since);
    if (c->ask_count && !c->is_open) {
        uint64_t at = c->asks[0].at > W.calm_since ? c->asks[0].at : W.calm_since;
        if (W.now - at > 20000 + 1000 + c->asks[0].hold_ms + 2 * (uint64_t)W.is.latency_max + 20000)
            broke("a request is answered", "client %s (%s): nothing for %" PRIu64 " ms", c->name, transport_names[c->transport], W.now - at);
    }
}

static void client_run(client *c) {
    client_io(c);
    client_watch(c);
    if (W.now < c->due || W.is_failed) return;
    switch (c->kind) {
    case POSTER: poster_act(c); break;
    case VANDAL: vandal_act(c); break;
    case PROBE: c->is_done ? (void)(c->due = NEVER) : probe_ask(c); break;
    default:
        if (!c->conn || (c->ask_count == 0 && c->mode == MODE_HEAD)) reader_idle(c);
        else if (c->is_open) reader_open(c);
        else { // waits for an answer
            c->due = W.now + 1 + spread(8000);
            if (!W.is_calm && one_in(12)) client_lost(c, true, "it waits no longer");
        }
    }
    if (c->conn) client_io(c);
    if (c->due <= W.now) c->due = W.now + 1;
}

static void clients_run(void) {
    for (int i = 0; i < client_count && !W.is_failed; i++) client_run(&C[i]);
}

static uint64_t clients_next(void) {
    uint64_t next = NEVER;
    for (int i = 0; i < client_count; i++) {
        if (C[i].due < next) next = C[i].due;
        if (C[i].stall_until > W.now && C[i].stall_until < next) next = C[i].stall_until;
        // a client with more to send or to read goes on in a millisecond
        if (C[i].conn && W.now >= C[i].stall_until && (C[i].conn->down.ready || (C[i].tx.n && flow_room(&C[i].conn->up)))) next = W.now + 1 < next ? W.now + 1 : next;
    }
    return next;
}

// ============================================================================
// the host: callbacks, calls, a bus
// ============================================================================

static session_record *session_of(rtpush_session handle) {
    for (int i = 0; i < SESSIONS && handle; i++)
        if (W.sessions[i].handle == handle) return &W.sessions[i];
    return NULL;
}

static int session_client(rtpush_hub *hub, rtpush_session s) { // by the name it logged in with
    rtpush_session_info info;
    if (!W.is.has_login || rtpush_info(hub, s, &info) != RTPUSH_OK) return -1;
    for (int i = 0; i < client_count; i++)
        if (strcmp(C[i].name, info.identity) == 0) return i;
    return -1;
}

static void host_done(rtpush_hub *hub, uint64_t ticket, uint64_t seq, int code, void *user) {
    (void)hub;
    (void)ticket;
    uint32_t no = (uint32_t)(uintptr_t)user;
    if (W.pubs[no].answered) broke("a publish completes once", "message %u", no);
    W.pubs[no].answered = true;
    if (code == RTPUSH_OK) bind_id(no, seq, "its completion");
    else if (W.is_destroyed || W.is_closing) W.pubs[no].tries++; // the end of the hub came first
    else pub_refused(no, "its completion");
}

static void host_publish(rtpush_hub *hub) {
    int kind = (int)between(RTPUSH_AUTO, RTPUSH_BINARY), how = (int)below(8);
    bool is_user = W.is.has_login && one_in(6);
    char topic[80];
    if (is_user) snprintf(topic, sizeof topic, "@user/%s", C[below((unsigned)client_count)].name);
    else snprintf(topic, sizeof topic, "%s", random_topic());
    if (how < 3 || kind == RTPUSH_AUTO) kind = one_in(3) ? RTPUSH_BINARY : RTPUSH_TEXT;
    uint32_t no = pub_new(VIA_API, -1, topic, kind, how >= 6 && one_in(2));
    pub *p = &W.pubs[no];
    p->tries++;
    settle_expected();
    int code;
    if (how < 2) {
        p->event[0] = 0;
        code = is_user && one_in(2) ? rtpush_publish_user(hub, topic + 6, p->data, p->size) : rtpush_publish(hub, topic, p->data, p->size);
        if (code == RTPUSH_OK && !W.is.has_bus) bind_id(no, hub_head(), "rtpush_publish");
    } else if (how == 2 && !foretells()) {
        p->event[0] = 0;
        code = rtpush_publish_async(hub, topic, p->data, p->size);
        p->tries++; // nobody tells how it ended
    } else {
        rtpush_publication what = {0};
        what.topic = topic;
        what.event = p->event[0] ? p->event : NULL;
        what.data = p->data;
        what.size = p->size;
        what.kind = one_in(3) && kind != RTPUSH_JSON ? RTPUSH_AUTO : kind;
        what.ephemeral = p->is_ephemeral;
        what.done = host_done;
        what.done_user = (void *)(uintptr_t)no;
        uint64_t ticket;
        code = rtpush_publish_ex(hub, &what, one_in(2) ? &ticket : NULL);
        p = &W.pubs[no];
        if (code == RTPUSH_OK && !W.is.has_bus && !p->answered) broke("the local log completes at once", "message %u", no);
        if (code != RTPUSH_OK && p->answered) broke("a refused publish is not completed", "message %u", no);
    }
    p = &W.pubs[no]; // a callback may have published
    if (code == RTPUSH_E_MEMORY) W.hurt++;
    if (code != RTPUSH_OK) {
        bool is_expected = code == RTPUSH_E_TOO_BIG ? p->size > (size_t)W.desc.message_max
                                                    : code == RTPUSH_E_MEMORY ? W.is.has_alloc_faults || W.fail_at
                                                                              : code == RTPUSH_E_TOPICS ? W.is.may_refuse : code == RTPUSH_E_UNAVAILABLE && W.is.has_bus;
        if (!is_expected) broke("a good publish is taken", "message %u: %s (%s)", no, rtpush_strerror(code), rtpush_last_error(hub));
        W.pubs[no].tries = 1;
        pub_refused(no, rtpush_strerror(code));
    }
}

static void count_post(rtpush_hub *hub, void *arg) {
    if (arg != &W) broke("a post has its argument", "%p", arg);
    W.posts_run++;
    if (one_in(3)) host_publish(hub);
}

static void host_timer(rtpush_hub *hub, void *user) {
    uint64_t due = *(uint64_t *)user;
    W.timers_run++;
    if (rtpush_now(hub) < due) broke("a timer is not early", "%" PRIu64 " before %" PRIu64, rtpush_now(hub), due);
    if (W.now > due + 2 && !W.is.clock_ticks) broke("a timer is not late", "%" PRIu64 " ms", W.now - due);
    if (one_in(2)) host_publish(hub);
}

static rtpush_session random_session(bool is_open) {
    for (int i = 0; i < 16; i++) {
        session_record *s = &W.sessions[((unsigned)W.session_count + SESSIONS - 1 - below(40)) % SESSIONS];
        if (s->is_open || !is_open) return s->handle;
    }
    return 0;
}

static bool each_session(rtpush_hub *hub, rtpush_session s, void *user) {
    unsigned *n = user;
    session_record *r = session_of(s);
    if (!r || !r->is_open) broke("rtpush_each shows open sessions", "%" PRIu64, s);
    if (one_in(20) && W.is.has_callbacks) {
        W.host_closed = W.now;
        rtpush_close(hub, s, 4201, "each");
    }
    return ++*n < 50;
}

static bool each_held(const rtpush_message *m, void *user) {
    uint64_t *last = user;
    if (m->seq <= *last) broke("the history ascends", "%" PRIu64 " behind %" PRIu64, m->seq, *last);
    *last = m->seq;
    uint32_t no = (uint32_t)payload_number(m->data, m->size);
    if (no == 0 || no >= W.pub_count) {
        if (strcmp(m->topic, "zz") != 0) broke("the history holds what was published", "%" PRIu64 " of %s", m->seq, m->topic);
        return true;
    }
    pub *p = &W.pubs[no];
    if (p->size != m->size || memcmp(p->data, m->data, m->size) != 0 || strcmp(p->topic, m->topic) != 0 || strcmp(p->event, m->event) != 0 || p->kind != m->kind)
        broke("the history holds what was published", "message %u: %s, %s, kind %d, %zu bytes; published %s, %s, kind %d, %zu bytes", no, m->topic, m->event, m->kind, m->size,
              p->topic, p->event, p->kind, p->size);
    if (m->ephemeral || p->is_ephemeral) broke("an ephemeral message is not in the history", "message %u", no);
    bind_id(no, m->seq, "the history");
    return true;
}

static void walk_histories(void) {
    for (int i = 0; i < TOPICS; i++) {
        uint64_t last = 0;
        rtpush_history(W.hub, topic_names[i], 0, each_held, &last);
    }
}

static void random_topic_desc(rtpush_topic_desc *d) {
    memset(d, 0, sizeof *d);
    if (one_in(2)) d->history = one_in(6) ? -1 : (int64_t)between(1, 20);
    if (one_in(3)) d->history_bytes = (int64_t)between(200, 20000);
    if (one_in(4)) d->history_ms = (int64_t)between(200, 20000);
    d->slow = (int)below(4);
    d->presence = W.is.has_presence && one_in(2);
}

static void host_call(rtpush_hub *hub) { // anything that a host may do, also inside a callback
    rtpush_session s = random_session(!one_in(10));
    T.host_calls++;
    switch (W.fail_at ? between(2, 25) : below(26)) { // for the n-th allocation the host closes nobody
    case 0:
        W.host_closed = W.now;
        if (one_in(3)) say("the host closes a session: %d", rtpush_close(hub, s, one_in(2) ? 4200 : 1000, one_in(2) ? "bye" : NULL));
        break;
    case 1:
        W.host_closed = W.now;
        if (one_in(3) && W.is.has_login) rtpush_kick(hub, C[below((unsigned)client_count)].name, 4201, "kicked");
        break;
    case 2: {
        unsigned n = 0;
        rtpush_each(hub, each_session, &n);
        break;
    }
    case 3: {
        rtpush_topic_desc d;
        random_topic_desc(&d);
        const char *name = one_in(3) ? pattern_names[below(PATTERNS)] : random_topic();
        int code = rtpush_configure(hub, name, &d);
        say("the host configures %s: history %d, slow %d: %d", name, (int)d.history, d.slow, code);
        break;
    }
    case 4:
        if (one_in(6)) {
            const char *topic = random_topic();
            say("the host clears %s", topic);
            rtpush_clear(hub, topic);
        }
        break;
    case 5: {
        rtpush_session_info info;
        if (rtpush_info(hub, s, &info) != RTPUSH_OK) break;
        if (info.cursor > hub_head()) broke("a session's cursor is not ahead", "%" PRIu64, info.cursor);
        size_t ring = W.desc.ring_max ? (size_t)W.desc.ring_max : 262144; // and one message, escaped
        if (info.transport <= RTPUSH_SSE && info.own_bytes > ring + 6 * (size_t)W.desc.message_max + 1000)
            broke("a connection's own bytes stay below ring_max and a message", "%zu", info.own_bytes);
        char text[200];
        if (info.transport == RTPUSH_ENVELOPE) snprintf(text, sizeof text, "{\"type\":\"direct\",\"n\":%u}", below(1000));
        else snprintf(text, sizeof text, "D:%u", below(1000));
        int code = rtpush_send(hub, s, text, strlen(text), RTPUSH_TEXT);
        bool is_ws = info.transport == RTPUSH_WEBSOCKET || info.transport == RTPUSH_ENVELOPE;
        if (is_ws ? code == RTPUSH_E_TRANSPORT : code == RTPUSH_OK) broke("rtpush_send is a WebSocket's", "transport %d: %s", info.transport, rtpush_strerror(code));
        break;
    }
    case 6: {
        int i = s ? session_client(hub, s) : -1;
        if (i < 0) break;
        const char *name = one_in(3) ? pattern_names[below(PATTERNS)] : random_topic();
        int code = rtpush_subscribe(hub, s, name, NULL);
        say("the host subscribes %s to %s: %d", C[i].name, name, code);
        slot *extra = code == RTPUSH_OK ? slot_new(&C[i], name) : NULL;
        if (extra) extra->is_host = true;
        else if (code == RTPUSH_OK) W.host_closed = W.now, rtpush_close(hub, s, 4201, "no slot left");
        break;
    }
    case 7:
        if (rtpush_post(hub, count_post, &W) == RTPUSH_OK) W.posts_sent++;
        break;
    case 8: {
        if (W.timer_count == TIMERS) break;
        uint64_t *due = &W.timer_due[W.timer_count++];
        int64_t ms = (int64_t)spread(5000);
        *due = rtpush_now(hub) + (uint64_t)ms;
        rtpush_timer t = rtpush_after(hub, ms, host_timer, due);
        if (t && one_in(4)) {
            rtpush_cancel(hub, t);
            rtpush_cancel(hub, t);
        } else if (t) W.timers_set++;
        break;
    }
    case 9: rtpush_subscribers(hub, random_topic()); break;
    case 10: rtpush_presence(hub, random_topic(), NULL, NULL); break;
    case 11:
        rtpush_set_user(hub, s, &W);
        if (rtpush_get_user(hub, s) != NULL && rtpush_get_user(hub, s) != &W) broke("the host's pointer is kept", "%" PRIu64, s);
        break;
    case 12:
        if (!W.is.is_clean && one_in(4)) {
            W.wall_offset += one_in(3) ? -(int64_t)spread(5000) : (int64_t)spread(10000000);
            T.f_wall++;
        }
        break;
    default: host_publish(hub); break;
    }
}

static void maybe_host_call(rtpush_hub *hub, unsigned n) {
    T.callbacks++;
    if (!W.is.has_callbacks || (W.is_calm && !W.is_closing) || W.is_destroyed || W.depth >= 3 || !one_in(n)) return;
    W.depth++;
    if (W.is.is_suicidal && one_in(30) && !W.is_closing) {
        say("the host destroys the hub in a callback");
        W.is_destroyed = true;
        rtpush_destroy(hub);
    } else host_call(hub);
    W.depth--;
}

static void on_open(rtpush_hub *hub, rtpush_session session, void *user) {
    if (user != &W) broke("desc.user is handed on", "on_open");
    if (session == 0 || session_of(session)) broke("a session opens once", "%" PRIu64, session);
    for (int i = 0; i < SESSIONS && W.sessions[W.session_count].is_open; i++) W.session_count = (W.session_count + 1) % SESSIONS;
    session_record *r = &W.sessions[W.session_count];
    if (r->is_open) {
        broke("a life has few open sessions", "%d", SESSIONS);
        return;
    }
    W.session_count = (W.session_count + 1) % SESSIONS;
    r->handle = session;
    r->is_open = true;
    T.sessions++;
    say("session %" PRIx64 " opens", session);
    maybe_host_call(hub, 6);
}

static void on_close(rtpush_hub *hub, rtpush_session session, int code, void *user) {
    (void)user;
    say("session %" PRIx64 " closes: %d", session, code);
    session_record *r = session_of(session);
    if (!r || !r->is_open) broke("a session closes once, behind its opening", "%" PRIu64, session);
    else r->is_open = false;
    maybe_host_call(hub, 6);
}

static void on_message(rtpush_hub *hub, rtpush_session from, const rtpush_message *m, void *user) {
    (void)user;
    session_record *r = session_of(from);
    if (!r || !r->is_open) broke("a message comes from an open session", "%" PRIu64, from);
    uint32_t no = (uint32_t)payload_number(m->data, m->size);
    if (no == 0 || no >= W.pub_count) {
        if (strcmp(m->topic, "zz") != 0) broke("on_message gets what was sent", "%zu bytes on %s", m->size, m->topic);
        return;
    }
    pub *p = &W.pubs[no];
    if (p->size != m->size || memcmp(p->data, m->data, m->size) != 0 || strcmp(p->topic, m->topic) != 0) broke("on_message gets what was sent", "message %u", no);
    if (p->answered) broke("on_message gets it once", "message %u", no);
    p->answered = true;
    settle_expected();
    int code = rtpush_publish(hub, m->topic, m->data, m->size);
    if (code == RTPUSH_OK && !W.is.has_bus) bind_id(no, hub_head(), "on_message");
    if (code != RTPUSH_OK) pub_refused(no, "on_message");
    maybe_host_call(hub, 8);
}

static int on_publish(rtpush_hub *hub, rtpush_session from, rtpush_publication *what, void *user) {
    (void)user;
    settle_expected();
    uint32_t no = (uint32_t)payload_number(what->data, what->size);
    if (from && (!session_of(from) || !session_of(from)->is_open)) broke("a publish comes from an open session", "%" PRIu64, from);
    if (no == 0 || no >= W.pub_count) {
        if (strcmp(what->topic, "zz") != 0) broke("on_publish gets what was sent", "%zu bytes on %s", what->size, what->topic);
        return RTPUSH_E_FORBIDDEN;
    }
    pub *p = &W.pubs[no];
    bool same = p->size == what->size && memcmp(p->data, what->data, what->size) == 0 && strcmp(p->topic, what->topic) == 0 && what->ephemeral == p->is_ephemeral;
    if (!same && !(W.is.has_callbacks && p->tries > 1)) broke("on_publish gets what was sent", "message %u", no);
    if (W.is.has_callbacks) { // what it decides is the same for each retry
        uint64_t x = mix(W.seed ^ no);
        if (x % 16 == 0) return RTPUSH_E_FORBIDDEN;
        if (x % 16 == 1) {
            what->event = "changed";
            snprintf(p->event, sizeof p->event, "changed");
        }
        if (x % 16 == 2) what->ephemeral = p->is_ephemeral = true;
    }
    maybe_host_call(hub, 6);
    settle_expected();
    if (foretells() && !W.pubs[no].key[0] && !W.is_destroyed) {
        W.expected_pub = no;
        W.expected_seq = hub_head() + 1;
    }
    return RTPUSH_OK;
}

static int on_login(rtpush_hub *hub, rtpush_login *login, void *user) {
    (void)hub;
    (void)user;
    if (login->token.size >= sizeof login->identity) return RTPUSH_E_UNAUTHORIZED;
    if (login->token.size) memcpy(login->identity, login->token.data, login->token.size);
    login->identity[login->token.size] = 0;
    if (login->token.size && one_in(20) && !W.is_calm && !W.is.is_clean) login->expires_ms = (int64_t)between(500, 20000);
    return RTPUSH_OK;
}

static void on_log(rtpush_hub *hub, const char *line, void *user) {
    (void)hub;
    (void)user;
    say("log: %s", line);
}

// --- a bus that is late, completes in another order, and sometimes refuses ---

static int bus_open(void *user, rtpush_hub *hub) {
    (void)user;
    return rtpush_bus_start(hub, W.epoch, W.bus_head);
}

static void bus_close(void *user, rtpush_hub *hub) {
    (void)user;
    (void)hub;
}

static int bus_append(void *user, rtpush_hub *hub, const rtpush_publication *what, uint64_t ticket) {
    (void)user;
    if (!W.is_calm && one_in(40)) return RTPUSH_E_UNAVAILABLE;
    if (what->clear) { // a DELETE, at once
        rtpush_bus_clear(hub, what->topic, 0);
        rtpush_bus_done(hub, ticket, 0, RTPUSH_OK);
        return RTPUSH_OK;
    }
    if (W.item_count == W.item_cap) {
        W.item_cap = W.item_cap * 2 + 64;
        W.items = must(realloc(W.items, W.item_cap * sizeof *W.items));
    }
    bus_item *it = &W.items[W.item_count++];
    memset(it, 0, sizeof *it);
    snprintf(it->topic, sizeof it->topic, "%s", what->topic);
    buf_put(&it->own, what->data, what->size);
    it->kind = what->kind;
    it->pub = strncmp(what->topic, "@presence/", 10) ? (uint32_t)payload_number(what->data, what->size) : 0;
    it->ticket = ticket;
    it->deliver_at = W.now + (one_in(3) ? 0 : spread(800));
    W.items_open++;
    if ((it->pub == 0 || it->pub >= W.pub_count) && strncmp(what->topic, "@presence/", 10) != 0) {
        broke("the bus gets what was published", "%zu bytes on %s", what->size, what->topic);
        it->pub = 0;
    }
    if (!W.is_calm && one_in(40)) it->code = RTPUSH_E_UNAVAILABLE;
    return RTPUSH_OK;
}

static void bus_run(rtpush_hub *hub) {
    for (size_t i = 0; i < W.item_count && !W.is_failed && !W.is_destroyed; i++) { // deliver in order, as far as it is time
        bus_item *it = &W.items[i];
        if (it->is_delivered) continue;
        if (it->deliver_at > W.now) break;
        pub own = {0}, *p = it->pub ? &W.pubs[it->pub] : &own;
        if (!it->pub) { // the library's
            snprintf(own.topic, sizeof own.topic, "%s", it->topic);
            own.data = it->own.p;
            own.size = it->own.n;
            own.kind = it->kind;
            own.is_ephemeral = true;
        }
        if (it->code == RTPUSH_OK && p->seq) it->seq = p->seq; // its key was seen before
        else if (it->code == RTPUSH_OK) {
            rtpush_message m = {0};
            m.topic = p->topic;
            m.event = p->event;
            m.data = p->data;
            m.size = p->size;
            m.kind = p->kind;
            m.ephemeral = p->is_ephemeral;
            m.seq = W.bus_head + 1;
            m.time_ms = sys_wall(NULL);
            int code = rtpush_bus_deliver(hub, &m);
            if (code == RTPUSH_E_MEMORY) {
                it->deliver_at = W.now + 10;
                break;
            }
            if (code != RTPUSH_OK) say("the hub takes %" PRIu64 " of %s not: %s", m.seq, m.topic, rtpush_strerror(code));
            if (code != RTPUSH_OK && !W.is.may_refuse) broke("what the bus delivers is taken", "%s", rtpush_strerror(code));
            it->code = code; // a hub that has no room for its topic: the publisher is told
            if (code == RTPUSH_OK) it->seq = ++W.bus_head;
            if (it->pub && it->seq) bind_id(it->pub, it->seq, "the bus");
            if (one_in(10)) W.bus_head += below(3); // a seq that never was is no gap
        }
        it->is_delivered = true;
        it->done_at = W.now + (one_in(2) ? 0 : spread(500));
    }
    for (size_t i = 0; i < W.item_count && !W.is_failed; i++) {
        bus_item *it = &W.items[i];
        if (!it->is_delivered || it->is_done || it->done_at > W.now) continue;
        it->is_done = true;
        W.items_open--;
        uint64_t ticket = it->ticket;
        rtpush_bus_done(hub, ticket, it->seq, it->code);
    }
}

static void bus_new_epoch(rtpush_hub *hub) { // the log elsewhere was lost
    if (W.items_open) return;
    char epoch[9] = "epoch";
    for (int i = 5; i < 8; i++) epoch[i] = (char)('a' + below(26));
    if (strcmp(epoch, W.epoch) == 0) return;
    int code = rtpush_bus_start(hub, epoch, W.bus_head);
    say("the bus begins the epoch %s above %" PRIu64 ": %d", epoch, W.bus_head, code);
    if (code != RTPUSH_OK) return;
    memcpy(W.epoch, epoch, 9);
    T.epochs++;
}

// ============================================================================
// a life
// ============================================================================

static unsigned rate(void) { // of a fault, of 65536
    return one_in(3) ? 0 : 65536u >> between(3, 12);
}

static void random_life(limits *l) {
    memset(l, 0, sizeof *l);
    l->is_clean = one_in(8);
    l->has_login = one_in(2);
    l->has_presence = one_in(5);
    l->has_bus = one_in(5);
    l->has_callbacks = !l->is_clean && one_in(3);
    l->has_alloc_faults = !l->is_clean && one_in(4);
    l->has_on_message = one_in(6);
    l->host_loop = one_in(3);
    l->clock_ticks = one_in(4);
    l->may_refuse = !l->is_clean && one_in(6);
    l->is_suicidal = l->has_callbacks && one_in(6);
    if (!l->is_clean) {
        l->p_short = one_in(4) ? 0 : 65536u >> between(0, 6);
        l->p_eagain = rate() / 2;
        l->p_eintr = rate() / 2;
        l->p_reset = rate() / 4;
        l->p_accept = one_in(2) ? rate() * 2 : 0;
        l->p_alloc = 65536u >> between(3, 9);
        l->p_small_limit = rate() * 2;
    }
    l->p_stall = one_in(3) ? 0 : rate() * 4;
    l->latency_max = one_in(3) ? 0 : spread(300);
    l->readers = (int)between(2, 9);
    l->is_crowded = one_in(6);
    if (l->is_crowded) l->readers = (int)between(9, 16);
    l->posters = (int)below(4);
    l->vandals = l->is_clean ? 0 : (int)below(2);
    l->steps_max = between(100, 900);
    l->chaos_ms = between(2000, one_in(6) ? 200000 : 40000);
    l->data_max = one_in(4) ? 20000 : one_in(2) ? 4000 : 400;
}

static void random_desc(rtpush_desc *d) {
    limits *l = &W.is;
    d->listen = "http://127.0.0.1:8080";
    d->mount = one_in(3) ? "/x/y" : NULL;
    d->message_max = (int64_t)l->data_max + 64 + (l->is_clean || !one_in(8) ? 100 : -(int64_t)l->data_max / 2);
    d->body_max = d->message_max * 4 + 1000; // escapes and base64 make it longer
    if (one_in(2)) d->heartbeat_ms = (int64_t)between(500, 20000);
    if (one_in(2)) d->sse_heartbeat_ms = one_in(5) ? -1 : (int64_t)between(300, 15000);
    if (one_in(2)) d->dead_ms = (int64_t)between(1000, 10000);
    d->poll_max_ms = (int64_t)between(1000, 20000);
    d->poll_default_ms = d->poll_max_ms;
    if (one_in(2)) d->linger_ms = one_in(4) ? -1 : (int64_t)between(100, 10000);
    if (one_in(2)) d->stall_ms = (int64_t)between(2000, 30000);
    if (one_in(2)) d->ring_max = (int64_t)between(4096, 65536);
    d->history = one_in(10) ? -1 : one_in(3) ? 0 : (int64_t)between(1, 20);
    if (one_in(3)) d->history_bytes = (int64_t)between(500, 50000);
    if (one_in(4)) d->history_ms = one_in(5) ? -1 : (int64_t)between(1000, 60000);
    d->history_total_bytes = one_in(3) ? (int64_t)between(2000, 30000) : 1 << 20;
    if (one_in(2)) d->input_per_turn = (int64_t)between(1, 5000);
    if (one_in(2)) d->writes_per_turn = (int64_t)between(1, l->is_crowded ? 3 : 8);
    if (one_in(3)) d->accepts_per_turn = (int64_t)between(1, 3);
    if (one_in(4)) d->keys_ms = 120000;
    d->slow = (int)below(4);
    if (l->may_refuse) {
        if (one_in(2)) d->connections_max = (int64_t)between(2, 8);
        if (one_in(3)) d->topics_max = (int64_t)between(2, 6);
        if (one_in(3)) d->patterns_max = (int64_t)between(1, 2);
        if (one_in(3)) d->dead_max = (int64_t)between(1, 3);
        if (one_in(3)) d->session_topics_max = (int64_t)between(2, 4);
        if (one_in(3)) d->connections_per_ip_max = 2;
    }
}

static client *client_new(int kind) {
    client *c = &C[client_count];
    memset(c, 0, sizeof *c);
    c->id = client_count++;
    c->kind = kind;
    snprintf(c->name, sizeof c->name, "%c%d", "rpvq"[kind], c->id);
    snprintf(c->user_topic, sizeof c->user_topic, "@user/%c%d", "rpvq"[kind], c->id);
    c->due = W.now + spread(3000) + 1;
    if (kind == READER) client_rebirth(c);
    return c;
}

static void client_free(client *c) {
    buf_free(&c->tx);
    buf_free(&c->rx);
    buf_free(&c->body);
    buf_free(&c->sse);
    free(c->got);
    free(c->gaps);
    free(c->raw);
    free(c->found);
    memset(c, 0, sizeof *c);
}

static void world_begin(uint64_t seed) {
    memset(&W, 0, sizeof W);
    W.seed = seed;
    W.rng = mix(seed + 1);
    W.server_rng = mix(seed + 2);
    W.now = W.started = 1000000 + rnd() % 1000000000;
    W.wall_offset = 1700000000000;
    W.promised_timeout = -2;
    client_count = 0;
}

static bool world_open(void) {
    W.desc.user = &W;
    W.desc.on_open = on_open;
    W.desc.on_close = on_close;
    W.desc.on_publish = on_publish;
    W.desc.on_log = on_log;
    if (W.is.has_on_message) W.desc.on_message = on_message;
    if (W.is.has_login) W.desc.on_login = on_login;
    const rtpush_backend b = {"virtual", backend_open, backend_close, backend_watch, backend_wait, backend_fd, &W};
    const rtpush_sys s = {sys_listen, sys_accept, sys_recv, sys_send, sys_shutdown, sys_close, sys_now, sys_wall, sys_random, NULL, &W};
    const rtpush_bus bus = {"virtual", bus_open, bus_append, NULL, bus_close, &W};
    W.backend = b;
    W.sys = s;
    W.bus = bus;
    W.desc.backend = &W.backend;
    W.desc.sys = &W.sys;
    if (W.is.has_bus) {
        W.desc.bus = &W.bus;
        memcpy(W.epoch, "busepoch", 9);
    }
    W.desc.alloc = sim_alloc;
    int code;
    rtpush_hub *hub = rtpush_create_ex(&W.desc, &code);
    W.hub = hub;
    W.base_bytes = W.live_bytes;
    if (!hub && code != RTPUSH_E_MEMORY) broke("a good desc makes a hub", "%s", rtpush_strerror(code));
    if (hub && W.is.has_presence) {
        rtpush_topic_desc d = {0};
        d.presence = true;
        if (rtpush_configure(hub, "c/**", &d) == RTPUSH_E_MEMORY) W.hurt++;
    }
    return hub != NULL;
}

static int open_fds(void) { // the process's real ones
    int n = 0;
    for (int fd = 0; fd < 64; fd++) n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static int open_virtual(void) {
    int n = 0;
    for (int i = 0; i < FDS; i++) n += W.fds[i].is_open;
    return n;
}

static void check_stats(void) {
    rtpush_stats s;
    rtpush_get_stats(W.hub, &s);
    if (s.owed != s.delivered + s.skipped + s.abandoned + s.pending)
        broke("owed = delivered + skipped + abandoned + pending", "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64, s.owed, s.delivered, s.skipped, s.abandoned, s.pending);
    if (s.connections > (uint64_t)open_virtual()) broke("connections are counted", "%" PRIu64, s.connections);
}

static void check_memory(void) {
    size_t conns = (size_t)open_virtual();
    size_t ring = W.desc.ring_max ? (size_t)W.desc.ring_max : 262144;
    size_t bound = W.base_bytes + 2 * (size_t)W.desc.history_total_bytes + 262144 + conns * (2 * (size_t)(W.desc.message_max + W.desc.body_max) + ring + 32768);
    if (W.live_bytes > bound) broke("memory stays below its bound", "%zu bytes, %zu connections, bound %zu", W.live_bytes, conns, bound);
}

// Everything that is to hold between turns.
static void check_turn(void) {
    if (W.is_failed || W.is_destroyed) return;
    const char *wrong = rtpush_check(W.hub);
    if (wrong) broke("rtpush_check", "%s", wrong);
    settle_expected();
    if (!W.is_failed) walk_histories();
    for (int i = 0; i < client_count && !W.is_failed; i++)
        if (C[i].raw_count) client_raw_settle(&C[i]);
    W.head = hub_head();
    if (W.highest_seen > W.head) broke("no id is ahead of the head", "%" PRIu64 ", head %" PRIu64, W.highest_seen, W.head);
    check_stats();
    check_memory();
}

static int turn(uint64_t host_due) { // one step of the server, one of the host's loop
    T.steps++;
    W.waits_in_step = 0;
    int wait_ms = host_due > W.now ? (int)(host_due - W.now) : 0;
    if (W.is.host_loop) { // the host waits by itself and calls step with 0
        rtpush_event room[64];
        int t = rtpush_timeout(W.hub);
        uint64_t until = t < 0 || (uint64_t)t > host_due - W.now ? host_due : W.now + (uint64_t)t;
        if (host_due <= W.now) until = W.now;
        clients_run();
        while (W.now < until && collect(room, 64) == 0 && !W.is_failed) {
            uint64_t at = net_next(), next = clients_next();
            if (next < at) at = next;
            if (at > until) at = until;
            if (at > W.now) {
                W.now = at;
                W.idle_waits = 0;
            }
            clients_run();
        }
        wait_ms = 0;
    } else if (one_in(3)) wait_ms = (int)below((unsigned)wait_ms + 1);
    int promised = rtpush_timeout(W.hub);
    if (promised < -1) broke("a timeout is -1 or more", "%d", promised);
    W.promised_timeout = W.is.clock_ticks || W.is.host_loop ? -2 : promised;
    int code = rtpush_step(W.hub, wait_ms);
    if (W.is_destroyed) return RTPUSH_E_STATE;
    if (code != RTPUSH_OK && !(code == RTPUSH_E_STATE && W.is_draining)) broke("a step is taken", "%s", rtpush_strerror(code));
    if (code == RTPUSH_OK) check_turn();
    return code;
}

static bool all_have_all(bool tell) { // every reader has everything that it has a right to
    for (int i = 0; i < client_count; i++) {
        client *c = &C[i];
        if (c->kind == POSTER && (c->ask_count || c->retry_count)) {
            if (tell) broke("every publish is answered in the end", "client %s: %d open", c->name, c->ask_count);
            return false;
        }
        if (c->kind != READER) continue;
        uint64_t seq = c->raw_count ? W.pubs[c->raw[0]].seq : first_missing(c, 0, W.head);
        bool is_there = c->is_open || c->transport >= LONG_POLL;
        if (seq == 0 && is_there && !c->tx.n && !is_replaying(c)) continue;
        if (tell && seq)
            broke("nothing is lost in the end", "client %s (%s, cursor %" PRIu64 ") has not %" PRIu64 " of %s", c->name, transport_names[c->transport], c->cursor.seq, seq,
                  pub_at(seq) ? W.pubs[pub_at(seq)].topic : "?");
        if (tell && !seq) broke("every reader gets in in the end", "client %s (%s)%s", c->name, transport_names[c->transport], is_replaying(c) ? ": no ack" : "");
        return false;
    }
    return W.items_open == 0 && W.posts_run == W.posts_sent;
}

static void be_calm(void) {
    W.is_calm = true;
    W.calm_since = W.now;
    W.famine_until = 0;
    limits *l = &W.is;
    l->p_short = l->p_eagain = l->p_eintr = l->p_reset = l->p_accept = l->p_small_limit = l->p_stall = 0;
    for (int i = 0; i < client_count; i++) {
        client *c = &C[i];
        c->stall_until = 0;
        c->is_deaf = false;
        if (!c->conn) {
            if (c->due > W.now + 200) c->due = W.now + below(200);
            continue;
        }
        c->conn->down.limit = c->conn->up.limit = 1 << 20;
        if (c->half_closed || c->sent_close || (W.is.may_refuse && one_in(2))) client_lost(c, true, "calm");
        else if (c->due > W.now + 3000 && c->kind != READER) c->due = W.now + below(3000);
    }
    say("calm");
}

static void live(uint64_t until, unsigned steps_max, bool (*is_done)(bool tell)) {
    unsigned period = W.is_calm ? between(100, 400) : between(1, 400);
    uint64_t host_due = W.now + 1 + below(period);
    for (unsigned n = 0; n < steps_max && W.now < until && !W.is_failed && !W.is_destroyed; n++) {
        if (W.now >= host_due) {
            if (!W.is_calm && one_in(3)) host_call(W.hub);
            if (!W.is_calm && one_in(40) && W.is.p_accept) W.famine_until = W.now + spread(3000);
            if (W.is.has_bus) bus_run(W.hub);
            if (W.is.has_bus && !W.is_calm && one_in(150)) bus_new_epoch(W.hub);
            host_due = W.now + 1 + below(period);
        }
        if (W.is_failed || W.is_destroyed || turn(host_due) != RTPUSH_OK) return;
        if (is_done && n % 8 == 0 && is_done(false)) return;
    }
}

static bool each_seq(const rtpush_message *m, void *user) {
    uint64_t *list = user;
    if (list[0] >= 1023) return false;
    list[++list[0]] = m->seq;
    return true;
}

static bool is_in(uint64_t x, const uint64_t *list, uint64_t n) {
    for (uint64_t i = 0; i < n; i++)
        if (list[i] == x) return true;
    return false;
}

static bool probe_done(bool tell) {
    (void)tell;
    return C[client_count - 1].is_done;
}

static void probe_topic(const char *topic) { // a short poll from the beginning gives what rtpush_history gives
    static uint64_t before[1024], after[1024];
    before[0] = after[0] = 0;
    rtpush_history(W.hub, topic, 0, each_seq, before);
    client *c = client_new(PROBE);
    snprintf(c->user_topic, sizeof c->user_topic, "%s", topic);
    c->due = W.now + 1;
    live(W.now + 30000, 4000, probe_done);
    if (W.is_failed || W.is_destroyed) return;
    if (!c->is_done) broke("a request is answered", "a probe of %s", topic);
    rtpush_history(W.hub, topic, 0, each_seq, after);
    if (c->head.status == 200 && before[0] < 1000) {
        for (int i = 0; i < c->found_count; i++)
            if (!is_in(c->found[i], before + 1, before[0]) && !is_in(c->found[i], after + 1, after[0])) broke("a short poll gives what is held", "%" PRIu64 " of %s", c->found[i], topic);
        for (uint64_t i = 1; i <= after[0]; i++)
            if (is_in(after[i], before + 1, before[0]) && !is_in(after[i], c->found, (uint64_t)c->found_count)) broke("a short poll gives all that is held", "%" PRIu64 " of %s", after[i], topic);
    }
    if (c->conn) client_lost(c, true, "the probe is done");
    client_free(c);
    client_count--;
}

static bool all_quiet(bool tell) {
    (void)tell;
    rtpush_stats s;
    rtpush_get_stats(W.hub, &s);
    return s.sessions == 0 && s.connections == 0;
}

static void everybody_leaves(void) {
    for (int i = 0; i < client_count; i++) {
        if (C[i].conn) client_lost(&C[i], true, "everybody leaves");
        C[i].due = NEVER;
    }
    live(W.now + 200000, 4000, all_quiet);
    if (W.is_failed || W.is_destroyed) return;
    rtpush_stats s;
    rtpush_get_stats(W.hub, &s);
    if (s.sessions || s.connections || s.subscriptions || s.websockets || s.event_streams || s.parked_polls || s.pending)
        broke("nobody is left when everybody has left", "%" PRIu64 " sessions, %" PRIu64 " connections, %" PRIu64 " subscriptions, %" PRIu64 " pending", s.sessions, s.connections, s.subscriptions, s.pending);
    if (W.now > W.calm_since + 6000 && W.timers_run != W.timers_set) broke("every timer runs", "%d of %d", W.timers_run, W.timers_set);
    for (int i = 0; i < TOPICS; i++)
        if (rtpush_presence(W.hub, topic_names[i], NULL, NULL) != 0) broke("nobody is present when everybody has left", "%s", topic_names[i]);
}

static void drain(void) {
    int64_t span = (int64_t)spread(3000) + 1, deadline = span + (int64_t)spread(8000) + 1;
    uint64_t begin = W.now;
    T.drains++;
    say("drain within %d ms, deadline %d ms", (int)span, (int)deadline);
    W.is_draining = true;
    if (rtpush_drain(W.hub, span, deadline) != RTPUSH_OK || !rtpush_is_draining(W.hub)) broke("a drain begins", "%s", rtpush_last_error(W.hub));
    for (int n = 0; n < 20000 && !W.is_failed && !W.is_destroyed; n++) {
        if (W.is.has_bus) bus_run(W.hub);
        if (turn(W.now + 100) != RTPUSH_OK) break;
        if (has_listener()) broke("in a drain the listeners are closed", "%d", n);
        if (W.now > begin + (uint64_t)deadline + 3000) broke("a drain ends at its deadline", "%" PRIu64 " ms of %d", W.now - begin, (int)deadline);
    }
}

static void world_close(void) {
    W.is_closing = true; // on_close may still call
    if (W.hub && !W.is_destroyed) rtpush_destroy(W.hub);
    W.is_destroyed = true;
    bool was_failed = W.is_failed;
    for (int i = 0; i < SESSIONS && !was_failed; i++)
        if (W.sessions[i].is_open) broke("a session that was opened is closed", "%" PRIu64, W.sessions[i].handle);
    if (!was_failed && W.live_blocks) broke("rtpush_destroy frees all", "%zu blocks, %zu bytes", W.live_blocks, W.live_bytes);
    if (!was_failed && open_virtual()) broke("rtpush_destroy closes all", "%d descriptors", open_virtual());
    if (!was_failed && W.posts_run > W.posts_sent) broke("a post runs once", "%d of %d", W.posts_run, W.posts_sent);
    T.virtual_ms += W.now - W.started;
    for (int i = 0; i < client_count; i++) client_free(&C[i]);
    client_count = 0;
    for (int i = 0; i < CONNS; i++) {
        flow_free(&W.conns[i].up);
        flow_free(&W.conns[i].down);
    }
    for (uint32_t i = 0; i < W.pub_count; i++) free(W.pubs[i].data);
    free(W.pubs);
    free(W.by_seq);
    for (size_t i = 0; i < W.item_count; i++) buf_free(&W.items[i].own);
    free(W.items);
}

// One life. *hash: of everything that the server sent and when.
static bool life(uint64_t seed, uint64_t *hash) {
    int fds = open_fds();
    world_begin(seed);
    random_life(&W.is);
    random_desc(&W.desc);
    T.lives++;
    if (world_open()) {
        for (int i = 0; i < W.is.readers; i++) client_new(READER);
        for (int i = 0; i < W.is.posters; i++) client_new(POSTER);
        for (int i = 0; i < W.is.vandals; i++) client_new(VANDAL);
        check_turn();
        live(W.now + W.is.chaos_ms, W.is.steps_max, NULL);
        unsigned end = below(8);
        if (end == 0 && !W.is_failed && !W.is_destroyed) drain(); // in the midst of it
        else if (end > 1 && !W.is_failed && !W.is_destroyed) {
            be_calm();
            live(W.now + 400000, 20000, all_have_all);
            if (!W.is_failed && !W.is_destroyed && !W.is.may_refuse && !all_have_all(false)) all_have_all(true);
            if (one_in(6)) live(W.now + between(100, 60000), 1500, NULL); // heartbeats
            for (int i = 0; i < 3 && !W.is_failed && !W.is_destroyed && !W.is.may_refuse; i++) probe_topic(topic_names[below(TOPICS)]);
            if (!W.is_failed && !W.is_destroyed && end < 5) everybody_leaves();
            else if (!W.is_failed && !W.is_destroyed && end == 5) drain();
        }
    }
    world_close();
    if (!W.is_failed && open_fds() != fds) broke("rtpush_destroy closes all", "%d real descriptors", open_fds() - fds);
    if (hash) *hash = W.hash;
    return !W.is_failed;
}

// ============================================================================
// scenarios
// ============================================================================

// The n-th allocation of a fixed scenario fails; everything else goes on.
static bool life_of_nth(uint64_t n, bool *has_failed) {
    world_begin(1);
    W.fail_at = n;
    W.is.has_login = true;
    W.is.has_presence = true;
    W.is.is_clean = true;
    W.is.data_max = 300;
    rtpush_desc *d = &W.desc;
    d->listen = "http://127.0.0.1:8080";
    d->message_max = 1000;
    d->body_max = 5000;
    d->history = 5;
    d->history_total_bytes = 1 << 20;
    d->poll_max_ms = d->poll_default_ms = 2000;
    d->slow = RTPUSH_SLOW_SKIP;
    if (world_open()) {
        for (int i = 0; i < TRANSPORTS; i++) {
            client *c = client_new(READER);
            c->slot_count = 0;
            slot_new(c, i % 2 ? "c/*" : "c/1");
            slot_new(c, "a");
            c->transport = i;
            c->is_loyal = i < 3;
        }
        client_new(POSTER);
        check_turn();
        live(W.now + 20000, 350, NULL);
        if (!W.is_failed) {
            be_calm();
            live(W.now + 200000, 6000, all_have_all);
            if (!W.is_failed && !all_have_all(false)) all_have_all(true);
            if (!W.is_failed) everybody_leaves();
        }
    }
    world_close();
    if (W.hurt > 1) broke("only the request or connection at hand suffers", "%u did", W.hurt);
    *has_failed = W.alloc_failed > 0;
    return !W.is_failed;
}

static int nth_failures(uint64_t only, uint64_t *ran) {
    int failed = 0;
    uint64_t n = only ? only : 1, worst = 0, worst_n = 0;
    bool has_failed;
    do {
        if (!life_of_nth(n, &has_failed)) {
            failed++;
            printf("     (allocation %" PRIu64 " of the scenario failed; again: build/sim --nth %" PRIu64 ")\n", n, n);
        }
        if (W.hurt > worst) worst = W.hurt, worst_n = n;
        ++*ran;
        n++;
    } while (!only && has_failed && failed < 20);
    printf("each of %" PRIu64 " allocations failed once: %d failed; at most %" PRIu64 " requests or connections suffered (at %" PRIu64 ")\n", *ran, failed, worst, worst_n);
    return failed;
}

// Readers that read nothing cost no memory, however much is published.
static bool stalled_readers(int slow) {
    world_begin((uint64_t)(1000 + slow));
    W.is.is_clean = true;
    W.is.data_max = 400;
    rtpush_desc *d = &W.desc;
    d->listen = "http://127.0.0.1:8080";
    d->history = 20;
    d->history_total_bytes = 256 << 10;
    d->message_max = d->body_max = 4096;
    d->stall_ms = 1 << 30;
    d->heartbeat_ms = d->sse_heartbeat_ms = -1;
    d->poll_max_ms = d->poll_default_ms = 20000;
    d->slow = slow;
    size_t early = 0;
    if (world_open()) {
        W.is_calm = true; // no whims
        W.calm_since = W.now;
        for (int i = 0; i < 9; i++) {
            client *c = client_new(READER);
            c->slot_count = 0;
            slot_new(c, "a");
            c->transport = i % 3;
            c->is_loyal = true;
            c->due = W.now + 1;
        }
        for (int i = 0; i < 40; i++) turn(W.now + 10);
        for (int i = 0; i < 8; i++) { // the ninth goes on reading
            C[i].stall_until = NEVER;
            C[i].due = NEVER;
            if (C[i].conn) C[i].conn->down.limit = 2000;
            if (!C[i].is_open) broke("every reader gets in", "client %s", C[i].name);
        }
        for (int i = 0; i < 8000 && !W.is_failed; i++) {
            uint32_t no = pub_new(VIA_API, -1, "a", RTPUSH_TEXT, false);
            W.pubs[no].event[0] = 0;
            rtpush_publish(W.hub, "a", W.pubs[no].data, W.pubs[no].size);
            bind_id(no, hub_head(), "rtpush_publish");
            if (i % 5 == 0) turn(W.now + 1);
            if (i == 3000) early = W.peak_bytes, W.peak_bytes = 0; // all that grows to a bound has grown
        }
        if (!W.is_failed && W.peak_bytes > early + 4096) broke("a stalled reader costs no memory", "policy %d: %zu bytes, then %zu", slow, early, W.peak_bytes);
    }
    world_close();
    return !W.is_failed;
}

// --- the simulator itself ---

static int self_failed;
static void expect(bool ok, const char *what) {
    if (ok) return;
    self_failed++;
    printf("FAIL the simulator itself: %s\n", what);
}

static void self_network(void) { // what goes in comes out, in order, whatever the limits and latencies
    for (uint64_t seed = 1; seed <= 50; seed++) {
        world_begin(seed);
        random_life(&W.is);
        W.is.p_reset = W.is.p_accept = 0;
        sys_listen(NULL, "http://sim");
        W.fds[0].watched = RTPUSH_READ;
        vconn *k = net_connect(0);
        int fd = -1;
        unsigned in[2] = {0, 0}, out[2] = {0, 0};
        bool ended = false;
        for (int i = 0; i < 200000 && !ended; i++) {
            unsigned char room[64];
            rtpush_peer peer;
            rtpush_event e[8];
            for (int j = 0; j < 64; j++) room[j] = (unsigned char)(in[0] + (unsigned)j);
            if (i < 2000) in[0] += (unsigned)net_write(k, room, between(1, 64));
            if (fd < 0 && collect(e, 8) == 1 && (fd = sys_accept(NULL, FD_BASE, &peer)) >= 0) backend_watch(NULL, fd, 7, 0, RTPUSH_READ | RTPUSH_WRITE);
            if (fd < 0) {
                W.now++;
                continue;
            }
            ptrdiff_t n = sys_recv(NULL, fd, room, between(1, 64));
            for (ptrdiff_t j = 0; j < n; j++) expect(room[j] == (unsigned char)out[0]++, "bytes upward keep their order");
            for (int j = 0; j < 64; j++) room[j] = (unsigned char)(in[1] + (unsigned)j);
            rtpush_iov v[2] = {{room, 5}, {room + 5, 20}};
            n = i < 2000 ? sys_send(NULL, fd, v, 2) : 0;
            if (n > 0) in[1] += (unsigned)n;
            size_t got = flow_take(&k->down, room, 64);
            for (size_t j = 0; j < got; j++) expect(room[j] == (unsigned char)out[1]++, "bytes downward keep their order");
            W.now += below(3);
            if (i == 2000) flow_end(&k->up, k->latency), sys_shutdown(NULL, fd);
            ended = flow_at_end(&k->up) && flow_at_end(&k->down);
        }
        if (W.is_failed) self_failed++;
        expect(ended && in[0] == out[0] && in[1] == out[1] && in[0] > 100, "every byte arrives");
        sys_close(NULL, fd);
        sys_close(NULL, FD_BASE);
        net_close(k, false);
        expect(!k->is_used, "a connection that both have closed is gone");
        world_close();
    }
}

static void self_parsers(void) {
    unsigned char digest[20];
    buf b = {0}, out = {0};
    world_begin(1);
    sha1("dGhlIHNhbXBsZSBub25jZQ==258EAFA5-E914-47DA-95CA-C5AB0DC85B11", digest); // RFC 6455 §1.3
    put_base64(&b, digest, 20);
    expect(strcmp((char *)b.p, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") == 0, "Sec-WebSocket-Accept");
    expect(take_base64(&out, b.p, b.n) && out.n == 20 && memcmp(out.p, digest, 20) == 0, "base64 back");
    expect(!take_base64(&out, (const unsigned char *)"ab=c", 4) && !take_base64(&out, (const unsigned char *)"ab", 2), "bad base64");
    static const char *const good[] = {"{\"a\":[1,-0.5e+2,null,true],\"b\":\"\\ud83d\\ude00\\n\"}", " [] ", "\"\"", "0"};
    static const char *const bad[] = {"{\"a\":1,}", "[1 2]", "01", "\"\\ud83d\"", "\"\n\"", "{a:1}", "", "nul", "[", "1."};
    for (int i = 0; i < 4; i++) expect(json_parse(good[i], strlen(good[i])), good[i]);
    for (int i = 0; i < 10; i++) expect(!json_parse(bad[i], strlen(bad[i])), bad[i]);
    response r;
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n";
    for (size_t n = 0; n < sizeof head - 1; n++) expect(parse_response(&r, (const unsigned char *)head, n) == 0, "half a head");
    expect(parse_response(&r, (const unsigned char *)head, sizeof head - 1) == (ptrdiff_t)sizeof head - 1 && r.status == 200 && r.length == 5, "a head");
    expect(parse_response(&r, (const unsigned char *)"HTTP/1.1 200 OK\nA: b\n\n", 22) < 0, "bare LF");
    chunks k = {0};
    b.n = out.n = 0;
    buf_str(&b, "3\r\nabc\r\n0\r\n\r\nrest");
    expect(take_chunks(&k, &b, &out) == 1 && out.n == 3 && b.n == 4, "chunks");
    memset(&k, 0, sizeof k);
    b.n = 0;
    buf_str(&b, "3\r\nabcd\r\n");
    expect(take_chunks(&k, &b, &out) < 0, "bad chunks");
    expect(topic_matches("*", "a") && !topic_matches("*", "c/1") && topic_matches("**", "c/1"), "patterns of one segment");
    expect(topic_matches("c/*", "c/1") && !topic_matches("c/*", "c/1/2") && topic_matches("c/**", "c/1/2") && !topic_matches("c/**", "c") && !topic_matches("**", "@x"), "patterns");
    for (int i = 0; i < 300; i++) {
        W.is.data_max = 2000;
        uint32_t no = pub_new(VIA_API, 0, "a", 1 + i % 3, false);
        expect(payload_number(W.pubs[no].data, W.pubs[no].size) == no, "a payload has its number");
        if (i % 3 == 1) expect(json_parse(W.pubs[no].data, W.pubs[no].size), "a JSON payload is JSON");
        if (i % 3 != 2) expect(rtpush_utf8(0, W.pubs[no].data, W.pubs[no].size) == 0, "a text payload is UTF-8");
    }
    buf_free(&b);
    buf_free(&out);
    world_close();
}

// ============================================================================
// main
// ============================================================================

static void print_totals(void) {
    printf("%" PRIu64 " lives, %.1f h of their time, %" PRIu64 " turns, %" PRIu64 " waits, %" PRIu64 " connections, %.1f MB up, %.1f MB down\n", T.lives,
           (double)T.virtual_ms / 3.6e6, T.steps, T.waits, T.conns, (double)T.up / 1e6, (double)T.down / 1e6);
    printf("published: %" PRIu64 " POST, %" PRIu64 " envelope, %" PRIu64 " raw, %" PRIu64 " API; %" PRIu64 " answered, %" PRIu64 " refused, %" PRIu64 " retried by key, largest %" PRIu64 " bytes\n",
           T.published[VIA_POST], T.published[VIA_ENVELOPE], T.published[VIA_RAW], T.published[VIA_API], T.answers, T.refusals, T.keyed_retries, T.largest);
    printf("received: %" PRIu64 " raw, %" PRIu64 " envelope, %" PRIu64 " SSE, %" PRIu64 " long poll, %" PRIu64 " short poll; %" PRIu64 " replayed, %" PRIu64 " gaps, %" PRIu64 " 304, %" PRIu64 " heartbeats, %" PRIu64 " acks, %" PRIu64 " direct\n",
           T.received[RAW], T.received[ENVELOPE], T.received[SSE], T.received[LONG_POLL], T.received[SHORT_POLL], T.replays, T.gaps, T.not_modified, T.heartbeats, T.acks, T.directs);
    printf("readers: %" PRIu64 " sessions, %" PRIu64 " reconnects, %" PRIu64 " changes of transport, %" PRIu64 " stalls, %" PRIu64 " close frames, %" PRIu64 " of them 4100, %" PRIu64 " drains, %" PRIu64 " new epochs, %" PRIu64 " probes\n",
           T.sessions, T.reconnects, T.changes, T.stalls, T.closes, T.slow_closes, T.drains, T.epochs, T.probes);
    printf("faults: %" PRIu64 " short, %" PRIu64 " EAGAIN, %" PRIu64 " EINTR, %" PRIu64 " resets, %" PRIu64 " half-closes, %" PRIu64 " at accept, %" PRIu64 " in a famine, %" PRIu64 " allocations, %" PRIu64 " sends to nobody, %" PRIu64 " clock jumps; %" PRIu64 " callbacks, %" PRIu64 " calls of the host\n",
           T.f_short, T.f_eagain, T.f_eintr, T.f_reset, T.f_half, T.f_accept, T.f_famine, T.f_alloc, T.f_peer_gone, T.f_wall, T.callbacks, T.host_calls);
}

static int check_totals(void) { // the lives were not empty: least numbers for each life
    const struct {
        const char *what;
        uint64_t n, least_of_100_lives;
    } least[] = {{"POSTs", T.published[VIA_POST], 300}, {"envelope publishes", T.published[VIA_ENVELOPE], 50}, {"raw publishes", T.published[VIA_RAW], 20},
                 {"API publishes", T.published[VIA_API], 500}, {"raw receipts", T.received[RAW], 200}, {"envelope receipts", T.received[ENVELOPE], 200},
                 {"SSE receipts", T.received[SSE], 200}, {"long poll receipts", T.received[LONG_POLL], 200}, {"short poll receipts", T.received[SHORT_POLL], 200},
                 {"replays", T.replays, 10}, {"gaps", T.gaps, 100}, {"304", T.not_modified, 20}, {"heartbeats", T.heartbeats, 20}, {"acks", T.acks, 50},
                 {"reconnects", T.reconnects, 500}, {"changes of transport", T.changes, 200}, {"stalls", T.stalls, 20}, {"close frames", T.closes, 20},
                 {"4100", T.slow_closes, 2}, {"drains", T.drains, 10}, {"short I/O", T.f_short, 500}, {"EAGAIN", T.f_eagain, 100}, {"EINTR", T.f_eintr, 100},
                 {"resets", T.f_reset, 50}, {"half-closes", T.f_half, 5}, {"accept faults", T.f_accept, 20}, {"failed allocations", T.f_alloc, 100},
                 {"sends to nobody", T.f_peer_gone, 5}, {"retries by key", T.keyed_retries, 10}, {"callbacks", T.callbacks, 500}};
    int failed = 0;
    for (size_t i = 0; i < sizeof least / sizeof *least; i++) {
        if (least[i].n >= least[i].least_of_100_lives * T.lives / 100) continue;
        failed++;
        printf("FAIL the lives are too poor: %" PRIu64 " %s\n", least[i].n, least[i].what);
    }
    return failed;
}

static int known_seeds(uint64_t *out, int cap) { // beside this file
    char path[1024];
    snprintf(path, sizeof path, "%s", __FILE__);
    char *slash = strrchr(path, '/');
    snprintf(slash ? slash + 1 : path, sizeof path - (size_t)(slash ? slash + 1 - path : 0), "sim_seeds.txt");
    FILE *f = fopen(path, "r");
    if (!f) {
        printf("FAIL no %s\n", path);
        return -1;
    }
    char line[256];
    int n = 0;
    while (fgets(line, sizeof line, f) && n < cap)
        if (line[0] >= '0' && line[0] <= '9') out[n++] = strtoull(line, NULL, 10);
    fclose(f);
    return n;
}

int main(int argc, char **argv) {
    uint64_t lives = 2000, first = 1, seed = 0, nth = 0;
    bool one = false, only_stall = false, only_nth = false, only_self = false;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(argv[i], "--verbose")) is_verbose = true;
        else if (!strcmp(argv[i], "--stall")) only_stall = true;
        else if (!strcmp(argv[i], "--self")) only_self = true;
        else if (!strcmp(argv[i], "--nth")) {
            only_nth = true;
            if (value && value[0] != '-') nth = strtoull(argv[++i], NULL, 10);
        } else if (value && !strcmp(argv[i], "--lives")) lives = strtoull(argv[++i], NULL, 10);
        else if (value && !strcmp(argv[i], "--first")) first = strtoull(argv[++i], NULL, 10);
        else if (value && !strcmp(argv[i], "--seed")) one = true, seed = strtoull(argv[++i], NULL, 10);
        else {
            fprintf(stderr, "usage: sim [--lives N] [--first SEED] [--seed SEED] [--verbose] [--stall] [--nth [N]] [--self]\n");
            return 2;
        }
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    uint64_t passed = 0, failed = 0;
    bool all = !one && !only_stall && !only_nth && !only_self;
    clock_t began = clock();
    if (one) *(life(seed, NULL) ? &passed : &failed) += 1;
    if (all || only_self) {
        self_network();
        self_parsers();
        *(self_failed ? &failed : &passed) += 1;
    }
    if (all) {
        uint64_t known[256];
        int n = known_seeds(known, 256);
        if (n < 0) failed++;
        for (int i = 0; i < n; i++) *(life(known[i], NULL) ? &passed : &failed) += 1;
        for (uint64_t i = 0; i < lives; i++) {
            uint64_t a, b;
            bool ok = life(first + i, &a);
            if (ok && i < 20) { // the same seed, the same bytes
                ok = life(first + i, &b) && a == b;
                if (!ok) printf("FAIL seed %" PRIu64 ": one seed is one life: a second run differs\n", first + i);
            }
            *(ok ? &passed : &failed) += 1;
        }
        print_totals();
        printf("%.0f ms a life\n", (double)(clock() - began) * 1000 / CLOCKS_PER_SEC / (double)(T.lives ? T.lives : 1));
        if (lives >= 500) *(check_totals() ? &failed : &passed) += 1;
    }
    if (all || only_nth) {
        uint64_t ran = 0;
        int bad = nth_failures(nth, &ran);
        failed += (uint64_t)bad;
        passed += ran - (uint64_t)bad;
    }
    if (all || only_stall)
        for (int slow = RTPUSH_SLOW_CLOSE; slow <= RTPUSH_SLOW_LATEST; slow++) *(stalled_readers(slow) ? &passed : &failed) += 1;
    buf_free(&J.pool);
    free(J.v);
    printf("%" PRIu64 " passed, %" PRIu64 " failed\n", passed, failed);
    return failed ? 1 : 0;
}
