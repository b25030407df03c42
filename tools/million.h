// A million readers of one server in one process: the server is the real one, its sockets are simulated. Each reader is
// a connection that was accepted, whose request was parsed and answered, and each byte that it is sent is compared with
// what it should get. For tools/rtlab.c (rtlab million) and tests/million.c; rtpush.h comes before it.
//
// What is left out is the kernel: no system call, no socket buffer, no packet. So it shows what the library costs for a
// million, in memory and in time, not what a machine can do: see examples/course and the README for the rest.
#ifndef MILLION_H
#define MILLION_H
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MILLION_FD = 1 << 20, MILLION_ROUNDS_MAX = 1000, MILLION_SIZE_MAX = 16384, MILLION_HEARTBEAT_MS = 20000 };
enum million_phase { MILLION_NEW, MILLION_ASKED, MILLION_OPEN };
enum million_transport { MILLION_WEBSOCKET, MILLION_SSE, MILLION_LONGPOLL, MILLION_TRANSPORTS };

typedef struct million_peer {
    uint64_t tag;       // the back-end's
    uint32_t at;        // bytes of the message at hand that it has
    uint32_t round;     // the last message that it has whole
    uint8_t phase, watched;
    bool owes;          // it has a pong, or its next poll, to send
    bool is_full;       // its socket takes nothing until the next wait
    bool is_queued;
} million_peer;

typedef struct million {
    // what is asked for
    long sessions, publishes, size;
    enum million_transport transport;
    bool as_json;
    // the network
    million_peer *peers;
    uint32_t *queue;            // who may be ready, a ring
    long queue_first, queue_count, accepted;
    uint64_t listener_tag, now_ms;
    bool is_listening;
    unsigned long sends;
    // what is expected
    rtpush_backend backend;
    rtpush_hub *hub;
    uint32_t round;             // the message at hand, from 1
    char epoch[9];
    unsigned char expected[MILLION_SIZE_MAX + 512];
    size_t expected_size;
    // what came
    long opened, delivered, doubled, wrong, pings;
    const char *why;            // of the first that was wrong
    size_t held;                // bytes of the library's allocator
} million;

// --- memory: counted ---

// Each block has its size in front of it.
static void *million_alloc(void *old, size_t size, void *user) {
    million *m = (million *)user;
    size_t *head = old ? (size_t *)old - 2 : NULL, was = head ? *head : 0;
    if (!size) { m->held -= was; free(head); return NULL; }
    head = (size_t *)realloc(head, size + 2 * sizeof *head);
    if (!head) return NULL;
    m->held += size - was;
    *head = size;
    return head + 2;
}

static size_t million_resident(void) {
    unsigned long total = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file) return 0;
    if (fscanf(file, "%lu %lu", &total, &resident) != 2) resident = 0;
    fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

static double million_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

// --- the network ---

static million_peer *million_find(million *m, int fd) { return fd >= MILLION_FD && fd - MILLION_FD < m->sessions ? &m->peers[fd - MILLION_FD] : NULL; }

static void million_enqueue(million *m, million_peer *peer) {
    if (peer->is_queued) return;
    peer->is_queued = true;
    m->queue[(m->queue_first + m->queue_count++) % m->sessions] = (uint32_t)(peer - m->peers);
}

static int million_listen(void *user, const char *url) {
    (void)user, (void)url;
    return MILLION_FD - 1;
}

static int million_accept(void *user, int listener, rtpush_peer *peer) {
    million *m = (million *)user;
    (void)listener;
    memset(peer, 0, sizeof *peer);
    return m->accepted < m->sessions ? MILLION_FD + (int)m->accepted++ : -EAGAIN;
}

static size_t million_request(const million *m, const million_peer *peer, char *text, size_t cap) {
    static const char handshake[] = "GET /live/million HTTP/1.1\r\nHost: m\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"; // RFC 6455 §1.3
    static const char events[] = "GET /live/million HTTP/1.1\r\nHost: m\r\nAccept: text/event-stream\r\n\r\n";
    int size = 0;
    switch (m->transport) {
    case MILLION_WEBSOCKET: size = snprintf(text, cap, "%s", handshake); break;
    case MILLION_SSE: size = snprintf(text, cap, "%s", events); break;
    default: size = snprintf(text, cap, "GET /live/million?wait=55&since=%s-%u HTTP/1.1\r\nHost: m\r\n\r\n", m->epoch, (unsigned)peer->round); break;
    }
    return (size_t)size;
}

static ptrdiff_t million_recv(void *user, int fd, void *buf, size_t cap) {
    static const unsigned char pong[6] = {0x8a, 0x80, 1, 2, 3, 4}; // masked, empty, as the ping was (RFC 6455 §5.5.3)
    million *m = (million *)user;
    million_peer *peer = million_find(m, fd);
    bool is_new = peer->phase == MILLION_NEW;
    if (!is_new && !peer->owes) return -EAGAIN;
    peer->owes = false;
    if (is_new) peer->phase = MILLION_ASKED;
    if (is_new || m->transport == MILLION_LONGPOLL) return (ptrdiff_t)million_request(m, peer, (char *)buf, cap);
    memcpy(buf, pong, sizeof pong);
    return (ptrdiff_t)sizeof pong;
}

// --- what is sent is looked at ---

static void million_wrong(million *m, const char *why) {
    if (!m->wrong++) m->why = why;
}

static bool million_has(const char *text, const char *part) { return strstr(text, part) != NULL; }

static void million_answered(million *m, million_peer *peer, const char *text) {
    bool is_good = m->transport == MILLION_WEBSOCKET
                       ? million_has(text, "HTTP/1.1 101 ") && million_has(text, "\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n")
                       : million_has(text, "HTTP/1.1 200 OK\r\n") && million_has(text, "\r\nContent-Type: text/event-stream");
    if (!is_good) million_wrong(m, "the answer to the request");
    peer->phase = MILLION_OPEN;
    m->opened++;
}

static void million_got(million *m, million_peer *peer) {
    peer->at = 0;
    if (peer->round == m->round) { m->doubled++; return; }
    if (peer->round + 1 != m->round) million_wrong(m, "a message was passed over");
    peer->round = m->round;
    m->delivered++;
}

// A poll's answer comes in one piece; then it asks again.
static void million_polled(million *m, million_peer *peer, const char *text, size_t size) {
    bool is_good = size > m->expected_size && !strncmp(text, "HTTP/1.1 200 OK\r\n", 17) && !memcmp(text + size - m->expected_size, m->expected, m->expected_size);
    if (!is_good) { million_wrong(m, "the answer to a poll"); return; }
    million_got(m, peer);
    peer->owes = true;
    million_enqueue(m, peer);
}

static void million_streamed(million *m, million_peer *peer, const unsigned char *bytes, size_t size) {
    bool is_ping = m->transport == MILLION_WEBSOCKET && !peer->at && size == 2 && bytes[0] == 0x89 && !bytes[1];
    bool is_comment = m->transport == MILLION_SSE && !peer->at && million_has((const char *)bytes, "\r\n:") && !million_has((const char *)bytes, "data:");
    if (is_ping || is_comment) {
        m->pings++;
        peer->owes = is_ping;
        if (is_ping) million_enqueue(m, peer);
        return;
    }
    if (peer->at + size > m->expected_size || memcmp(m->expected + peer->at, bytes, size)) { million_wrong(m, "bytes of a message"); return; }
    peer->at += (uint32_t)size;
    if (peer->at == m->expected_size) million_got(m, peer);
}

// Each 64th time a stream's socket takes the half of a message, and no more until the next wait.
static ptrdiff_t million_send(void *user, int fd, const rtpush_iov *iov, int count) {
    million *m = (million *)user;
    million_peer *peer = million_find(m, fd);
    unsigned char bytes[MILLION_SIZE_MAX + 2048];
    size_t size = 0;
    if (peer->is_full) return -EAGAIN;
    for (int i = 0; i < count && size + iov[i].len < sizeof bytes; i++) {
        memcpy(bytes + size, iov[i].base, iov[i].len);
        size += iov[i].len;
    }
    bytes[size] = 0;
    bool is_short = peer->phase == MILLION_OPEN && peer->round != m->round && m->transport != MILLION_LONGPOLL && ++m->sends % 64 == 0;
    if (is_short) {
        size /= 2;
        peer->is_full = true;
        million_enqueue(m, peer);
    }
    if (m->transport == MILLION_LONGPOLL) million_polled(m, peer, (char *)bytes, size);
    else if (peer->phase == MILLION_ASKED) million_answered(m, peer, (char *)bytes);
    else million_streamed(m, peer, bytes, size);
    return (ptrdiff_t)size;
}

static int million_close(void *user, int fd) { (void)user, (void)fd; return 0; }
static uint64_t million_now(void *user) { return ((million *)user)->now_ms; }

// --- the back-end ---

static void *million_open(void *user) { return user; }
static void million_shut(void *state) { (void)state; }

static int million_watch(void *state, int fd, uint64_t tag, unsigned was, unsigned want) {
    million *m = (million *)state;
    million_peer *peer = million_find(m, fd);
    (void)was;
    if (fd == MILLION_FD - 1) m->listener_tag = tag, m->is_listening = want != 0;
    if (!peer) return 0;
    peer->tag = tag;
    peer->watched = (uint8_t)want;
    million_enqueue(m, peer);
    return 0;
}

static unsigned million_ready(const million_peer *peer) {
    unsigned ready = (peer->phase == MILLION_NEW || peer->owes ? RTPUSH_READ : 0u) | (peer->is_full ? 0u : RTPUSH_WRITE);
    return ready & peer->watched;
}

// With nothing ready the clock goes on by what the loop would have waited.
static int million_wait(void *state, rtpush_event *events, int cap, int timeout_ms) {
    million *m = (million *)state;
    int count = 0;
    if (m->is_listening && m->accepted < m->sessions) {
        events[count].tag = m->listener_tag;
        events[count++].ready = RTPUSH_READ;
    }
    for (long left = m->queue_count; left > 0 && count < cap; left--) {
        million_peer *peer = &m->peers[m->queue[m->queue_first]];
        m->queue_first = (m->queue_first + 1) % m->sessions;
        m->queue_count--;
        peer->is_queued = false;
        peer->is_full = false;
        unsigned ready = million_ready(peer);
        if (!ready) continue;
        events[count].tag = peer->tag;
        events[count++].ready = ready;
        million_enqueue(m, peer);
    }
    if (!count && timeout_ms > 0) m->now_ms += (uint64_t)timeout_ms;
    return count;
}

// --- the measurement ---

static bool million_until(million *m, const long *counter, long wanted, int timeout_ms) {
    for (long idle = 0, last = -1; *counter < wanted && !m->wrong; idle = *counter == last ? idle + 1 : 0) {
        last = *counter;
        if (idle > 100000) { million_wrong(m, "nothing moves any more"); break; }
        if (rtpush_step(m->hub, timeout_ms)) { million_wrong(m, "rtpush_step"); break; }
    }
    return *counter >= wanted && !m->wrong;
}

// The bytes that each reader must get for this payload, by the standards alone.
static void million_expect(million *m, const char *payload) {
    size_t n = (size_t)m->size, head = 0;
    char block[MILLION_SIZE_MAX + 256];
    int size = 0;
    switch (m->transport) {
    case MILLION_WEBSOCKET: // RFC 6455 §5.2
        m->expected[head++] = 0x81;
        m->expected[head++] = (unsigned char)(n < 126 ? n : 126);
        if (n >= 126) m->expected[head++] = (unsigned char)(n >> 8), m->expected[head++] = (unsigned char)n;
        memcpy(m->expected + head, payload, n);
        m->expected_size = head + n;
        return;
    case MILLION_SSE: // a block in a chunk (RFC 9112 §7.1)
        size = snprintf(block, sizeof block, "id: %s-%u\ndata: %s\n\n", m->epoch, (unsigned)m->round, payload);
        size = snprintf((char *)m->expected, sizeof m->expected, "%x\r\n%s\r\n", (unsigned)size, block);
        break;
    default:
        size = snprintf((char *)m->expected, sizeof m->expected, "\r\n\r\n{\"cursor\":\"%s-%u\",\"messages\":[{\"id\":\"%s-%u\",\"topic\":\"million\",\"data\":\"%s\"}]}\n",
                        m->epoch, (unsigned)m->round, m->epoch, (unsigned)m->round, payload);
        break;
    }
    m->expected_size = (size_t)size;
}

// Publishes one message; all have it. Seconds, or below 0.
static double million_publish(million *m) {
    char payload[MILLION_SIZE_MAX + 1];
    m->round++;
    m->delivered = 0;
    int head = snprintf(payload, sizeof payload, "message %u ", (unsigned)m->round);
    if (head < m->size) memset(payload + head, 'x', (size_t)(m->size - head));
    payload[m->size] = 0;
    million_expect(m, payload);
    double began = million_seconds();
    if (rtpush_publish(m->hub, "million", payload, (size_t)m->size)) million_wrong(m, "rtpush_publish");
    return million_until(m, &m->delivered, m->sessions, 0) ? million_seconds() - began : -1;
}

static int million_compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef struct million_figures {
    double connect_s, heartbeat_s, rounds[MILLION_ROUNDS_MAX];
    size_t held, resident; // of all the readers
} million_figures;

static bool million_connect(million *m, million_figures *f) {
    char cursor[64];
    rtpush_stats stats;
    memset(&stats, 0, sizeof stats);
    size_t held = m->held, resident = million_resident();
    snprintf(m->epoch, sizeof m->epoch, "%.8s", rtpush_cursor_text(m->hub, cursor));
    double began = million_seconds();
    bool is_poll = m->transport == MILLION_LONGPOLL; // nothing is answered yet: the server says who waits
    for (long last = -1; is_poll && (long)stats.parked_polls < m->sessions && (m->accepted < m->sessions || (long)stats.parked_polls != last);) {
        last = (long)stats.parked_polls;
        for (int i = 0; i < 1000; i++) rtpush_step(m->hub, 0);
        rtpush_get_stats(m->hub, &stats);
    }
    if (is_poll) m->opened = (long)stats.parked_polls;
    bool is_open = million_until(m, &m->opened, m->sessions, 0);
    f->connect_s = million_seconds() - began;
    f->held = m->held - held;
    f->resident = million_resident() - resident;
    return is_open;
}

// The clock goes on until each has had its ping, and has answered.
static bool million_heartbeat(million *m, million_figures *f) {
    double began = million_seconds();
    if (!million_until(m, &m->pings, m->sessions, MILLION_HEARTBEAT_MS)) return false;
    for (int i = 0; m->queue_count && i < 1000000; i++) rtpush_step(m->hub, 0);
    f->heartbeat_s = million_seconds() - began;
    return m->opened == m->sessions;
}

static bool million_measure(million *m, million_figures *f) {
    rtpush_stats stats;
    if (!million_connect(m, f)) return false;
    for (long i = 0; i < m->publishes; i++)
        if ((f->rounds[i] = million_publish(m)) < 0) return false;
    qsort(f->rounds, (size_t)m->publishes, sizeof *f->rounds, million_compare);
    if (m->transport != MILLION_LONGPOLL && !million_heartbeat(m, f)) return false;
    rtpush_get_stats(m->hub, &stats);
    if (stats.delivered != (uint64_t)(m->sessions * m->publishes)) million_wrong(m, "the server's own count of deliveries");
    if (stats.connections != (uint64_t)m->sessions) million_wrong(m, "a connection was lost");
    return !m->wrong && !m->doubled;
}

static rtpush_hub *million_hub(million *m) {
    rtpush_backend *backend = &m->backend;
    rtpush_sys sys;
    rtpush_desc desc;
    memset(&sys, 0, sizeof sys);
    memset(&desc, 0, sizeof desc);
    backend->name = "simulated";
    backend->open = million_open;
    backend->close = million_shut;
    backend->watch = million_watch;
    backend->wait = million_wait;
    sys.listen = million_listen;
    sys.accept = million_accept;
    sys.recv = million_recv;
    sys.send = million_send;
    sys.shutdown = million_close;
    sys.close = million_close;
    sys.now_ms = million_now;
    sys.user = backend->user = desc.alloc_user = m;
    desc.listen = "http://127.0.0.1:80";
    desc.backend = backend;
    desc.sys = &sys;
    desc.alloc = million_alloc;
    desc.connections_max = m->sessions + 1;
    desc.sse_heartbeat_ms = desc.heartbeat_ms = MILLION_HEARTBEAT_MS;
    return rtpush_create(&desc);
}

// --- what is printed ---

static const char *const million_names[MILLION_TRANSPORTS] = {"websocket", "sse", "longpoll"};

static void million_tell(const million *m, const million_figures *f, bool is_good, size_t leaked) {
    double n = (double)m->sessions, least = f->rounds[0], median = f->rounds[m->publishes / 2], most = f->rounds[m->publishes - 1];
    if (m->as_json) {
        printf("{\"sessions\":%ld,\"transport\":\"%s\",\"publishes\":%ld,\"size\":%ld,\"connects_per_s\":%.0f,\"bytes_per_session\":%.1f,\"resident_per_session\":%.1f,"
               "\"deliveries_per_s\":{\"median\":%.0f,\"least\":%.0f,\"most\":%.0f},\"heartbeats_per_s\":%.0f,\"doubled\":%ld,\"wrong\":%ld,\"leaked\":%zu,\"ok\":%s}\n",
               m->sessions, million_names[m->transport], m->publishes, m->size, n / f->connect_s, (double)f->held / n, (double)f->resident / n,
               n / median, n / most, n / least, f->heartbeat_s > 0 ? n / f->heartbeat_s : 0, m->doubled, m->wrong, leaked, is_good ? "true" : "false");
        return;
    }
    printf("%ld readers by %s in one process, sockets simulated\n", m->sessions, million_names[m->transport]);
    printf("  connect     %.0f a second: accepted, request parsed, answered\n", n / f->connect_s);
    printf("  memory      %.0f bytes each by the allocator's count, %.0f resident\n", (double)f->held / n, (double)f->resident / n);
    printf("  deliver     %.0f a second, median of %ld messages of %ld bytes to all (%.0f to %.0f); %.0f ns each\n", n / median, m->publishes, m->size, n / most,
           n / least, median / n * 1e9);
    if (f->heartbeat_s > 0) printf("  heartbeat   %.0f a second: %s\n", n / f->heartbeat_s, m->transport == MILLION_WEBSOCKET ? "a ping and its pong" : "a comment");
    printf("  wrong %ld, doubled %ld, leaked %zu bytes%s%s\n", m->wrong, m->doubled, leaked, m->why ? ": " : "", m->why ? m->why : "");
}

static int million_usage(const char *wrong) {
    fprintf(stderr,
            "%s%smillion [--sessions N] [--publishes N] [--size BYTES] [--transport websocket|sse|longpoll] [--json]\n"
            "N readers (1,000,000) of one server over simulated sockets; 10 messages of 64 bytes to all; each byte is checked.\n",
            wrong, *wrong ? "\n" : "");
    return 2;
}

static bool million_number(const char *text, long least, long most, long *to) {
    char *end;
    errno = 0;
    *to = strtol(text, &end, 10);
    return !errno && end != text && !*end && *to >= least && *to <= most;
}

static bool million_flag(million *m, const char *name, const char *value) {
    if (!strcmp(name, "--sessions")) return million_number(value, 1, 20000000, &m->sessions);
    if (!strcmp(name, "--publishes")) return million_number(value, 1, MILLION_ROUNDS_MAX, &m->publishes);
    if (!strcmp(name, "--size")) return million_number(value, 24, MILLION_SIZE_MAX, &m->size);
    if (strcmp(name, "--transport") != 0) return false;
    for (int i = 0; i < MILLION_TRANSPORTS; i++)
        if (!strcmp(value, million_names[i])) { m->transport = (enum million_transport)i; return true; }
    return false;
}

// argv: the flags alone. 0: all is as it should be; 1: it is not; 2: a bad flag, or no memory.
static int million_run(int argc, char **argv) {
    million *m = (million *)calloc(1, sizeof *m);
    million_figures *figures = (million_figures *)calloc(1, sizeof *figures);
    int status = 2;
    if (!m || !figures) { free(m); free(figures); return 2; }
    m->sessions = 1000000;
    m->publishes = 10;
    m->size = 64;
    m->now_ms = 1;
    for (int i = 0; i < argc; i++) {
        if (!strcmp(argv[i], "--json")) { m->as_json = true; continue; }
        if (i + 1 < argc && million_flag(m, argv[i], argv[i + 1])) { i++; continue; }
        status = million_usage(argv[i]);
        goto out;
    }
    m->peers = (million_peer *)calloc((size_t)m->sessions, sizeof *m->peers);
    m->queue = (uint32_t *)calloc((size_t)m->sessions, sizeof *m->queue);
    if (m->peers) memset(m->peers, 0, (size_t)m->sessions * sizeof *m->peers); // resident before it is counted
    if (m->queue) memset(m->queue, 0, (size_t)m->sessions * sizeof *m->queue);
    m->hub = m->peers && m->queue ? million_hub(m) : NULL;
    if (!m->hub) { fprintf(stderr, "million: no memory\n"); goto out; }
    bool is_good = million_measure(m, figures);
    rtpush_destroy(m->hub);
    if (m->held) is_good = false;
    million_tell(m, figures, is_good, m->held);
    status = !is_good;
out:
    free(m->peers);
    free(m->queue);
    free(figures);
    free(m);
    return status;
}
#endif // MILLION_H
