// rtlab: the table of every course on system design, measured: short poll, long poll, SSE and WebSocket on real
// sockets of this machine.
//
//     cc -O2 tools/rtlab.c -o rtlab && ./rtlab compare --rate 1 --interval 5 --clients 1000 --seconds 10
//
// Each measurement has two new processes: a server, and the clients (one hub, rtpush_connect for each). The server reads
// its own CPU, memory and counters; the clients time each message. Exit status: 0 done, 1 it failed, 2 a bad flag.
#define RTPUSH_IMPLEMENTATION
#include "../rtpush.h"
#include "million.h"

#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <malloc.h>
#define BLOCK_SIZE(block) malloc_usable_size(block)
#elif defined(__APPLE__)
#include <malloc/malloc.h>
#define BLOCK_SIZE(block) malloc_size(block)
#else
#define BLOCK_SIZE(block) ((void)(block), (size_t)0)
#endif

enum { ROUNDS_MAX = 99, KINDS_MAX = 6, SIZE_LEAST = 64, SIZE_MOST = 1000000, DELIVERIES_MAX = 100000000, DESCRIPTORS_APART = 100 };
#define TOPIC "lab"

static const char usage[] =
    "usage: rtlab compare [flags]\n"
    "       rtlab million [--sessions N] [--publishes N] [--size BYTES] [--transport websocket|sse|longpoll] [--json]\n"
    "  million: N readers (1,000,000) of one server in one process, over simulated sockets; each byte is checked.\n"
    "  compare: measures what each transport costs, on this machine, over loopback, and prints a table.\n"
    "\n"
    "  --rate R             messages a second, of one topic that all read; 1\n"
    "  --interval S         seconds between two short polls of a client; 5\n"
    "  --clients N          clients of each transport; 1000\n"
    "  --seconds S          the measured window; 10\n"
    "  --size BYTES         of each payload, 64 to 1000000; 128\n"
    "  --rounds N           repeats all of it; 3. The table has the median, and (least to most)\n"
    "  --cut S              after the window all connections are reset at once, and new ones refused for S seconds; 1.\n"
    "                       0: no cut\n"
    "  --random             messages come at random (Poisson) instead of at equal distances\n"
    "  --transports LIST    of shortpoll,longpoll,sse,websocket (these four), rawsse,rawwebsocket (no envelope)\n"
    "  --markdown, --json, --svg   instead of a table for people; --json has each round and what was to be expected\n"
    "  --quiet              say nothing on stderr but errors\n"
    "  --help, --version\n"
    "\n"
    "What the figures are:\n"
    "  bytes      of TCP's payload, both ways, as the server counts them: HTTP heads, frames, envelopes and messages; no\n"
    "             TCP and IP headers (40 to 52 bytes a packet more), no TLS. Divided by the messages delivered. A stream's\n"
    "             heartbeats, one in 15 to 20 s, are in it if they fall into the window.\n"
    "  latency    of every delivered message, from the publish to the client's callback. On two cores or fewer the\n"
    "             clients' own work is in it.\n"
    "  CPU        of the server process in the window, with the kernel's share; on loopback that holds part of the\n"
    "             receivers' network stack.\n"
    "  memory     of the server process: resident, and as its allocator counts, with all clients connected and idle, less\n"
    "             what it was before them. The kernel's socket buffers are not in it.\n"
    "  cut        back: when each client has had an answer on a new connection, from the moment of the cut. lost, doubled:\n"
    "             messages over all clients, from the first one on. By replay: what was published while its reader was\n"
    "             away, and came later.\n";

enum style { STYLE_TABLE, STYLE_MARKDOWN, STYLE_JSON, STYLE_SVG };

typedef struct kind {
    const char *name, *label, *transport;
    int server; // rtpush_client_kind
    bool is_polled;
} kind;

static const kind kinds[] = {
    {"shortpoll", "short poll", "shortpoll", RTPUSH_SERVER_RTPUSH, true},
    {"longpoll", "long poll", "longpoll", RTPUSH_SERVER_RTPUSH, false},
    {"sse", "SSE", "sse", RTPUSH_SERVER_RTPUSH, false},
    {"websocket", "WebSocket", "websocket", RTPUSH_SERVER_RTPUSH, false},
    {"rawsse", "SSE, raw", NULL, RTPUSH_SERVER_EVENTS, false},
    {"rawwebsocket", "WebSocket, raw", NULL, RTPUSH_SERVER_WEBSOCKET, false}};

typedef struct settings {
    double rate, interval, seconds, cut;
    long long clients, size, rounds;
    bool is_random, is_quiet;
    int style;
    const kind *kinds[KINDS_MAX];
    int kind_count;
} settings;

// What is measured of a transport in a round, each as one number; NAN_: it is not known.
enum figure {
    REQUESTS, BYTES_UP, BYTES_DOWN, BYTES_AROUND, LATENCY_MEAN, LATENCY_P50, LATENCY_P99, LATENCY_MAX, CONNECTIONS, CPU, MEMORY, HEAP,
    EMPTY, EMPTY_SHARE, BACK_HALF, BACK, LOST, DOUBLED, GAPS, REPLAYED, DELIVERED, PUBLISHED, WINDOW, CLIENT_DELIVERED, CLIENT_UP, CLIENT_DOWN,
    FIGURES
};

typedef struct figure_name {
    const char *key, *title;
} figure_name;

static const figure_name figure_names[FIGURES] = {
    {"requests_per_second", "requests per second"},
    {"bytes_up_per_message", "bytes up per message"},
    {"bytes_down_per_message", "bytes down per message"},
    {"bytes_down_around_payload", "of these around the payload"},
    {"latency_mean_ms", "latency, mean (ms)"},
    {"latency_p50_ms", "latency, p50 (ms)"},
    {"latency_p99_ms", "latency, p99 (ms)"},
    {"latency_max_ms", "latency, most (ms)"},
    {"connections", "open connections"},
    {"cpu_us_per_message", "server CPU per message (us)"},
    {"memory_per_client", "server memory per client (bytes)"},
    {"heap_per_client", "of these by its allocator"},
    {"empty_per_message", "empty answers per message"},
    {"empty_share", "share of the answers that are empty"},
    {"back_half_s", "cut: half of them"},
    {"back_s", "cut: all are back after (s)"},
    {"lost", "cut: messages lost"},
    {"doubled", "cut: messages doubled"},
    {"gaps", "cut: gaps told"},
    {"replayed", "cut: messages by replay"},
    {"delivered", "messages delivered"},
    {"published", "messages published"},
    {"window_s", "the window (s)"},
    {"client_delivered", "messages delivered, by the clients' count"},
    {"client_bytes_up", "bytes up, by the clients' count"},
    {"client_bytes_down", "bytes down, by the clients' count"}};

// The rows of a table, in their order.
static const enum figure rows[] = {REQUESTS, BYTES_UP, BYTES_DOWN, BYTES_AROUND, LATENCY_MEAN, LATENCY_P50, LATENCY_P99, CONNECTIONS,
                                   CPU, MEMORY, HEAP, EMPTY, BACK, BACK_HALF, LOST, DOUBLED, GAPS, REPLAYED};
enum { ROWS = (int)(sizeof rows / sizeof *rows) };

typedef struct result {
    double v[FIGURES];
} result;

// Prints a sentence and ends this process.
static void fail(int status, const char *format, ...) {
    va_list list;
    va_start(list, format);
    fputs("rtlab: ", stderr);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    va_end(list);
    exit(status);
}

static void *grown(void *old, size_t size) {
    void *block = realloc(old, size);
    if (!block) fail(1, "out of memory (%zu bytes)", size);
    return block;
}

static double nothing(void) { return strtod("nan", NULL); }
static bool is_known(double x) { return x == x; } // NaN is not itself

// Monotonic, and the same for all processes of a machine.
static int64_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
static int64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

// --- between the processes ---

// All of it, or false: the other side is gone.
static bool send_all(int fd, const void *data, size_t size) {
    const char *p = (const char *)data;
    while (size) {
        ssize_t n = send(fd, p, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        p += n;
        size -= (size_t)n;
    }
    return true;
}

static bool receive_all(int fd, void *data, size_t size) {
    char *p = (char *)data;
    while (size) {
        ssize_t n = recv(fd, p, size, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        p += n;
        size -= (size_t)n;
    }
    return true;
}

enum command { COMMAND_READ, COMMAND_WARM, COMMAND_START, COMMAND_STOP, COMMAND_WINDOW, COMMAND_END };
static const char commands[] = {COMMAND_READ, COMMAND_WARM, COMMAND_START, COMMAND_STOP, COMMAND_WINDOW, COMMAND_END};

// What the server says of itself, in answer to each command but END; to WINDOW three times: when it will begin (at_ns), when
// it does, when it ends.
typedef struct reading {
    rtpush_stats stats;
    int64_t at_ns, cpu_ns;
    double resident, heap;
    uint64_t published; // the number of the last message
    int port;
} reading;

// --- the server process ---

typedef struct server {
    const settings *set;
    rtpush_hub *hub;
    int control, port;
    char *payload;
    int64_t first_ns, next_ns, window_ns; // first_ns: when publishing began
    uint64_t published, seed;
    bool is_publishing;
} server;

static size_t heap_bytes; // what the server's hub holds; its loop and the thread that hears commands allocate

static void *counting_alloc(void *old, size_t size, void *user) {
    size_t before = old ? BLOCK_SIZE(old) : 0;
    void *block = NULL;
    (void)user;
    if (size) block = realloc(old, size);
    else free(old);
    if (size && !block) return NULL;
    __atomic_add_fetch(&heap_bytes, (block ? BLOCK_SIZE(block) : 0) - before, __ATOMIC_RELAXED);
    return block;
}

// Resident memory of this process, where the system tells it by a file.
static double resident_bytes(void) {
    char text[128] = "";
    unsigned long long pages;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return nothing();
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0 || sscanf(text, "%*u %llu", &pages) != 1) return nothing();
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static void tell(server *s) {
    reading r;
    memset(&r, 0, sizeof r);
    rtpush_get_stats(s->hub, &r.stats);
    r.at_ns = now_ns();
    r.cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    r.resident = resident_bytes();
    r.heap = (double)__atomic_load_n(&heap_bytes, __ATOMIC_RELAXED);
    r.published = s->published;
    r.port = s->port;
    if (!send_all(s->control, &r, sizeof r)) rtpush_stop(s->hub);
}

// JSON of exactly `size` bytes, with its number and its time.
static void publish(server *s, uint64_t number) {
    size_t size = (size_t)s->set->size;
    rtpush_publication what;
    int head = snprintf(s->payload, size, "{\"n\":%llu,\"t\":%lld,\"pad\":\"", (unsigned long long)number, (long long)now_ns());
    memset(s->payload + head, 'x', size - (size_t)head - 2);
    memcpy(s->payload + size - 2, "\"}", 2);
    memset(&what, 0, sizeof what);
    what.topic = TOPIC;
    what.data = s->payload;
    what.size = size;
    what.kind = RTPUSH_JSON;
    int code = rtpush_publish_ex(s->hub, &what, NULL);
    if (code) fail(1, "the server cannot publish: %s", rtpush_strerror(code));
}

static double random_unit(uint64_t *seed) {
    *seed ^= *seed << 13; // Marsaglia's xorshift, 64 bits
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return (double)(*seed >> 11) / 9007199254740992.0;
}

// Exponential with mean 1, by von Neumann's comparisons: no logarithm. The first of a falling run whose length is odd is
// distributed as exp(-x) on [0, 1); each run of even length moves it on by one.
static double random_exponential(uint64_t *seed) {
    for (int whole = 0;; whole++) {
        double first = random_unit(seed), last = first, next;
        unsigned length = 1;
        for (; (next = random_unit(seed)) < last; length++) last = next;
        if (length & 1) return whole + first;
    }
}

static int64_t until_ms(int64_t at_ns) {
    int64_t ns = at_ns - now_ns();
    return ns <= 0 ? 0 : (ns + 999999) / 1000000;
}

// All that is due, then the timer for the next.
static void on_publish(rtpush_hub *hub, void *user) {
    server *s = (server *)user;
    double period_ns = 1e9 / s->set->rate;
    if (!s->is_publishing) return;
    for (int64_t now = now_ns(); s->next_ns <= now;) {
        publish(s, ++s->published);
        s->next_ns = s->set->is_random ? s->next_ns + (int64_t)(random_exponential(&s->seed) * period_ns)
                                       : s->first_ns + (int64_t)((double)s->published * period_ns);
    }
    if (!rtpush_after(hub, until_ms(s->next_ns), on_publish, s)) fail(1, "the server has no memory for a timer");
}

static void on_window_end(rtpush_hub *hub, void *user) {
    (void)hub;
    tell((server *)user);
}

static void on_window_begin(rtpush_hub *hub, void *user) {
    server *s = (server *)user;
    tell(s);
    rtpush_after(hub, until_ms(s->window_ns + (int64_t)(s->set->seconds * 1e9)), on_window_end, s);
}

// The window begins in the middle between two messages, so that rate * seconds of them are in it.
static void begin_window(server *s) {
    double period_ns = 1e9 / s->set->rate;
    int64_t soonest = now_ns() + 30000000, past = soonest - s->first_ns;
    s->window_ns = soonest;
    if (!s->set->is_random) s->window_ns = s->first_ns + (int64_t)(((double)(int64_t)((double)past / period_ns + 0.5) + 0.5) * period_ns);
    reading r;
    memset(&r, 0, sizeof r);
    r.at_ns = s->window_ns;
    if (!send_all(s->control, &r, sizeof r)) rtpush_stop(s->hub);
    rtpush_after(s->hub, until_ms(s->window_ns), on_window_begin, s);
}

static void start_publishing(server *s) {
    s->is_publishing = true;
    s->first_ns = s->next_ns = now_ns();
    tell(s);
    on_publish(s->hub, s);
}

// On the server's loop; arg points into `commands`.
static void on_command(rtpush_hub *hub, void *arg) {
    server *s = (server *)rtpush_user(hub);
    switch ((enum command)*(const char *)arg) {
    case COMMAND_WARM: publish(s, 0); tell(s); return;
    case COMMAND_START: start_publishing(s); return;
    case COMMAND_STOP: s->is_publishing = false; tell(s); return;
    case COMMAND_READ: tell(s); return;
    case COMMAND_WINDOW: begin_window(s); return;
    case COMMAND_END: rtpush_stop(hub); return;
    }
}

// A thread waits for commands, so that the loop makes no system call that a server without a lab would not make.
static void *hear_commands(void *arg) {
    server *s = (server *)arg;
    char letter;
    for (;;) {
        if (!receive_all(s->control, &letter, 1)) letter = COMMAND_END;
        union { const char *from; void *to; } command; // rtpush_post's arg is not const; it is only read
        command.from = &commands[(int)letter];
        if (rtpush_post(s->hub, on_command, command.to) || letter == COMMAND_END) return NULL;
    }
}

// How many messages may be asked for again: those of an interval, and of a cut with what reconnecting takes.
static int64_t history_of(const settings *set) { return (int64_t)(set->rate * (set->interval + set->cut + 30)) + 100; }

static void make_server(server *s) {
    rtpush_desc desc;
    int code;
    memset(&desc, 0, sizeof desc);
    desc.user = s;
    desc.publish_off = desc.expose_off = desc.script_off = true;
    desc.history = history_of(s->set);
    desc.history_bytes = desc.history_total_bytes = desc.history * (s->set->size + 1024);
    desc.idle_timeout_ms = (int64_t)(s->set->interval * 2000) + 30000; // a polling client keeps its connection
    desc.alloc = counting_alloc;
    s->hub = rtpush_create_ex(&desc, &code);
    if (!s->hub) fail(1, "the server does not start: %s", rtpush_strerror(code));
    code = rtpush_listen(s->hub, "http://127.0.0.1:0", &s->port);
    if (code) fail(1, "the server does not listen: %s", rtpush_strerror(code));
}

static void run_server(const settings *set, int control, int round) {
    static server s;
    pthread_t thread;
    s.set = set;
    s.control = control;
    s.seed = UINT64_C(0x9e3779b97f4a7c15) * (uint64_t)(round + 1);
    s.payload = (char *)grown(NULL, (size_t)set->size + 1);
    make_server(&s);
    tell(&s);
    if (pthread_create(&thread, NULL, hear_commands, &s)) fail(1, "no thread for the server");
    rtpush_run(s.hub);
    shutdown(control, SHUT_RDWR);
    pthread_join(thread, NULL);
    rtpush_destroy(s.hub);
    free(s.payload);
    exit(0);
}

// --- the clients' process: what came ---

struct lab;
typedef struct reader {
    struct lab *lab;
    rtpush_client client;
    uint32_t index;
    bool is_open, is_warm; // is_warm: not one of those that count
} reader;

// One message, over all readers.
typedef struct row {
    int64_t sent_ns;
    uint32_t count; // how many have it
} row;

enum fd_state { FD_NONE, FD_OPEN, FD_ANSWERED };

typedef struct lab {
    const settings *set;
    const kind *kind;
    int control, port;
    rtpush_hub *hub;
    reader *readers;
    long long connected, open, gaps, doubled, warm;

    row *rows;           // by the message's number
    unsigned char *seen; // a bit for each reader, row by row
    uint64_t row_cap, last; // last: the highest number that came

    int64_t begin_ns, end_ns; // the window
    uint32_t *latencies;      // us, of what came in it
    size_t latency_count, latency_cap;
    double latency_sum_ns;
    double bytes_up, bytes_down, window_up, window_down;

    unsigned char *fds; // fd_state of each descriptor
    size_t fd_cap;
    int64_t cut_ns, refuse_until_ns;
    long long answered;   // connections since the cut that have been answered
    int64_t *back_ns;     // when each of them was
    size_t back_count, back_cap;

    reading told;
    unsigned told_count;
    int64_t looked_ns;
    pid_t parent;
} lab;

static size_t bytes_per_row(const lab *l) { return ((size_t)l->set->clients + 7) / 8; }

static void need_row(lab *l, uint64_t number) {
    uint64_t cap = l->row_cap ? l->row_cap : 64;
    if (number > (uint64_t)DELIVERIES_MAX) fail(1, "a message has the number %llu", (unsigned long long)number);
    while (cap <= number) cap *= 2;
    if (cap == l->row_cap) return;
    l->rows = (row *)grown(l->rows, (size_t)cap * sizeof *l->rows);
    l->seen = (unsigned char *)grown(l->seen, (size_t)cap * bytes_per_row(l));
    memset(l->rows + l->row_cap, 0, (size_t)(cap - l->row_cap) * sizeof *l->rows);
    memset(l->seen + l->row_cap * bytes_per_row(l), 0, (size_t)(cap - l->row_cap) * bytes_per_row(l));
    l->row_cap = cap;
}

static void take_latency(lab *l, int64_t ns) {
    if (l->latency_count == l->latency_cap) {
        l->latency_cap = l->latency_cap * 2 + 4096;
        l->latencies = (uint32_t *)grown(l->latencies, l->latency_cap * sizeof *l->latencies);
    }
    l->latencies[l->latency_count++] = ns / 1000 > (int64_t)UINT32_MAX ? UINT32_MAX : (uint32_t)(ns / 1000);
    l->latency_sum_ns += (double)ns;
}

static void take(lab *l, uint32_t index, uint64_t number, int64_t sent_ns, int64_t came_ns) {
    need_row(l, number);
    row *r = &l->rows[number];
    unsigned char *byte = &l->seen[number * bytes_per_row(l) + index / 8], bit = (unsigned char)(1u << index % 8);
    if (number > l->last) l->last = number;
    if (*byte & bit) { l->doubled++; return; }
    *byte |= bit;
    r->count++;
    r->sent_ns = sent_ns;
    if (came_ns >= l->begin_ns && came_ns < l->end_ns) take_latency(l, came_ns - sent_ns);
}

// The number behind this head of a member. Returns what is behind it, NULL: it is not there.
static const char *read_member(const char *p, const char *end, const char *head, int64_t *value) {
    size_t size = strlen(head);
    if (!p || (size_t)(end - p) <= size || memcmp(p, head, size)) return NULL;
    *value = 0;
    for (p += size; p < end && *p >= '0' && *p <= '9'; p++) *value = *value * 10 + (*p - '0');
    return p;
}

static void on_message(rtpush_hub *hub, rtpush_client client, const rtpush_message *m, const char *id, void *user) {
    reader *r = (reader *)user;
    int64_t came_ns = now_ns(), number, sent_ns;
    const char *data = (const char *)m->data, *end = data + m->size;
    (void)hub;
    (void)client;
    (void)id;
    const char *rest = read_member(read_member(data, end, "{\"n\":", &number), end, ",\"t\":", &sent_ns);
    if (!rest || m->size != (size_t)r->lab->set->size) fail(1, "a message that was not sent so: %zu bytes, %.80s", m->size, data);
    if (!number) r->lab->warm++;
    else if (!r->is_warm) take(r->lab, r->index, (uint64_t)number, sent_ns, came_ns);
}

static void on_gap(rtpush_hub *hub, rtpush_client client, const char *from, const char *to, const char *reason, void *user) {
    (void)hub;
    (void)client;
    (void)from;
    (void)to;
    (void)reason;
    ((reader *)user)->lab->gaps++;
}

static void on_state(rtpush_hub *hub, rtpush_client client, const rtpush_client_status *status, void *user) {
    reader *r = (reader *)user;
    bool is_open = status->state == RTPUSH_CLIENT_OPEN;
    (void)hub;
    (void)client;
    if (status->state == RTPUSH_CLIENT_CLOSED && r->client) fail(1, "a client gave up: %s (%s)", rtpush_strerror(status->code), status->reason);
    if (!r->is_warm) r->lab->open += (int)is_open - (int)r->is_open;
    r->is_open = is_open;
}

// --- their sockets: counted, and cut ---

static int lab_connect(void *user, const rtpush_peer *peer, const char *path) {
    lab *l = (lab *)user;
    struct sockaddr_in to;
    int on = 1;
    (void)path;
    if (now_ns() < l->refuse_until_ns) return -ECONNREFUSED;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) return -errno;
    memset(&to, 0, sizeof to);
    to.sin_family = AF_INET;
    to.sin_port = htons(peer->port);
    memcpy(&to.sin_addr, peer->addr + 12, 4);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    bool is_under_way = !connect(fd, (const struct sockaddr *)(const void *)&to, sizeof to) || errno == EINPROGRESS || errno == EINTR;
    int failed = is_under_way ? 0 : (size_t)fd >= l->fd_cap ? EMFILE : errno;
    if (failed) { close(fd); return -failed; }
    l->fds[fd] = FD_OPEN;
    return fd;
}

// A reader is back when it is answered on a connection made after the cut.
static void note_answer(lab *l, int fd) {
    if (!l->cut_ns || l->fds[fd] != FD_OPEN) return;
    l->fds[fd] = FD_ANSWERED;
    l->answered++;
    if (l->back_count == l->back_cap) {
        l->back_cap = l->back_cap * 2 + 256;
        l->back_ns = (int64_t *)grown(l->back_ns, l->back_cap * sizeof *l->back_ns);
    }
    l->back_ns[l->back_count++] = now_ns();
}

static ptrdiff_t lab_recv(void *user, int fd, void *buf, size_t cap) {
    lab *l = (lab *)user;
    ssize_t n = recv(fd, buf, cap, 0);
    if (n < 0) return -errno;
    l->bytes_down += (double)n;
    if (n) note_answer(l, fd);
    return n;
}

static ptrdiff_t lab_send(void *user, int fd, const rtpush_iov *iov, int count) {
    lab *l = (lab *)user;
    ssize_t n = count ? send(fd, iov->base, iov->len, MSG_NOSIGNAL) : 0; // of several the first: a short write
    if (n < 0) return -errno;
    l->bytes_up += (double)n;
    return n;
}

static int lab_close(void *user, int fd) {
    lab *l = (lab *)user;
    if (l->fds[fd] == FD_ANSWERED) l->answered--;
    l->fds[fd] = FD_NONE;
    return close(fd) ? -errno : 0;
}

// TCP's reset, with the descriptor left to its owner: a connect to no address (POSIX connect, AF_UNSPEC). Where that
// does nothing: no linger, and both halves shut.
static void reset_connection(int fd) {
    struct sockaddr nowhere;
    struct linger none = {1, 0};
    memset(&nowhere, 0, sizeof nowhere);
    nowhere.sa_family = AF_UNSPEC;
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    if (connect(fd, &nowhere, sizeof nowhere)) shutdown(fd, SHUT_RDWR);
}

static void reset_all(lab *l) {
    for (size_t fd = 0; fd < l->fd_cap; fd++)
        if (l->fds[fd]) reset_connection((int)fd);
}

// --- their loop ---

static void hear_server(lab *l) {
    if (!receive_all(l->control, &l->told, sizeof l->told)) fail(1, "the server has ended");
    l->told_count++;
}

// Whoever started us is gone: so are we.
static void look_for_parent(lab *l) {
    int64_t now = now_ns();
    if (now - l->looked_ns < 200000000) return;
    l->looked_ns = now;
    if (getppid() != l->parent) exit(1);
}

static void turn(lab *l, int most_ms) {
    struct pollfd fds[2];
    int timeout = rtpush_timeout(l->hub), fd = rtpush_fd(l->hub);
    memset(fds, 0, sizeof fds);
    fds[0].fd = fd;
    fds[1].fd = l->control;
    fds[0].events = fds[1].events = POLLIN;
    if (timeout < 0 || timeout > most_ms) timeout = most_ms;
    if (fd < 0 && timeout > 1) timeout = 1; // a back-end without a descriptor: look often
    if (poll(fds, 2, timeout) < 0 && errno != EINTR) fail(1, "poll: %s", strerror(errno));
    if (fds[1].revents) hear_server(l);
    rtpush_step(l->hub, 0);
    look_for_parent(l);
}

// Turns until it is so. false: not within this time.
static bool turn_until(lab *l, bool (*is_so)(const lab *l), double seconds) {
    int64_t end = now_ns() + (int64_t)(seconds * 1e9);
    while (!is_so(l)) {
        if (now_ns() >= end) return false;
        turn(l, 20);
    }
    return true;
}

// Sends a command, turns until the server has answered it.
static const reading *ask(lab *l, enum command command) {
    char letter = (char)command;
    unsigned before = l->told_count;
    if (!send_all(l->control, &letter, 1)) fail(1, "the server has ended");
    while (l->told_count == before) turn(l, 20);
    return &l->told;
}

static bool is_warm(const lab *l) { return l->warm > 0; }
static bool are_open(const lab *l) { return l->open == l->set->clients; }
static bool are_begun(const lab *l) { return l->row_cap > 1 && l->rows[1].count == (uint32_t)l->set->clients; }
static bool are_back(const lab *l) { return l->answered >= l->set->clients; }
static bool have_all(const lab *l) {
    uint64_t last = l->told.published;
    return !last || (last < l->row_cap && l->rows[last].count == (uint32_t)l->set->clients);
}

static void connect_reader(lab *l, reader *r, double interval) {
    rtpush_client_desc desc;
    char url[64];
    memset(&desc, 0, sizeof desc);
    snprintf(url, sizeof url, "%s://127.0.0.1:%d/live/" TOPIC, l->kind->server == RTPUSH_SERVER_WEBSOCKET ? "ws" : "http", l->port);
    desc.url = url;
    desc.kind = l->kind->server;
    desc.transports = l->kind->transport;
    desc.interval_ms = (int64_t)(interval * 1000 + 0.5);
    desc.user = r;
    desc.on_message = on_message;
    desc.on_gap = on_gap;
    desc.on_state = on_state;
    r->lab = l;
    r->client = rtpush_connect(l->hub, &desc);
    if (!r->client) fail(1, "no client: %s", rtpush_last_error(l->hub));
}

// --- one measurement ---

// One client comes, hears a message and leaves, so that what the first one needs once is not counted as the others'.
static void warm_up(lab *l) {
    reader r;
    memset(&r, 0, sizeof r);
    r.is_warm = true;
    connect_reader(l, &r, 0.1);
    int64_t end = now_ns() + INT64_C(15000000000);
    while (!r.is_open && now_ns() < end) turn(l, 20);
    ask(l, COMMAND_WARM);
    if (!turn_until(l, is_warm, 15)) fail(1, "%s: the first client hears nothing", l->kind->name);
    rtpush_client client = r.client;
    r.client = 0; // its end is no failure
    rtpush_client_close(l->hub, client, 1000, "");
    for (end = now_ns() + 100000000; now_ns() < end;) turn(l, 20);
}

// One after another, short polls over a whole interval: their times are then spread evenly, as those of people are.
static void connect_all(lab *l) {
    long long n = l->set->clients;
    double spread = (double)n / 2000.0;
    if (l->kind->is_polled && spread < l->set->interval) spread = l->set->interval;
    int64_t begin = now_ns();
    for (long long i = 0; i < n; i++) {
        while ((double)(now_ns() - begin) < (double)i * spread * 1e9 / (double)n) turn(l, 1);
        l->readers[i].index = (uint32_t)i;
        connect_reader(l, &l->readers[i], l->set->interval);
    }
    if (!turn_until(l, are_open, 20)) fail(1, "%s: after 20 s only %lld of %lld clients are connected", l->kind->name, l->open, n);
}

static void measure_memory(const lab *l, const reading *before, const reading *after, result *to) {
    double n = (double)l->set->clients;
    to->v[MEMORY] = (after->resident - before->resident) / n;
    to->v[HEAP] = (after->heap - before->heap) / n;
}

static int compare_latencies(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

// The nearest rank: the least that so large a share of them does not exceed.
static double percentile_ms(const lab *l, double share) {
    size_t rank = (size_t)(share * (double)l->latency_count);
    if ((double)rank < share * (double)l->latency_count) rank++;
    return l->latency_count ? l->latencies[rank ? rank - 1 : 0] / 1000.0 : nothing();
}

static void measure_latency(lab *l, result *to) {
    if (l->latency_count) qsort(l->latencies, l->latency_count, sizeof *l->latencies, compare_latencies);
    to->v[LATENCY_MEAN] = l->latency_count ? l->latency_sum_ns / 1e6 / (double)l->latency_count : nothing();
    to->v[LATENCY_P50] = percentile_ms(l, 0.50);
    to->v[LATENCY_P99] = percentile_ms(l, 0.99);
    to->v[LATENCY_MAX] = percentile_ms(l, 1);
    to->v[CLIENT_DELIVERED] = (double)l->latency_count;
}

static double between(uint64_t before, uint64_t after) { return (double)(after - before); }

// From the server's two readings, at the begin of the window and at its end.
static void measure_costs(const lab *l, const reading *a, const reading *b, result *to) {
    double n = between(a->stats.delivered, b->stats.delivered), requests = between(a->stats.requests, b->stats.requests);
    double empty = between(a->stats.polls_empty, b->stats.polls_empty);
    if (n < 1) fail(1, "%s: nothing was delivered in the window", l->kind->name);
    to->v[DELIVERED] = n;
    to->v[PUBLISHED] = between(a->published, b->published);
    to->v[WINDOW] = (double)(b->at_ns - a->at_ns) / 1e9;
    to->v[REQUESTS] = requests / to->v[WINDOW];
    to->v[BYTES_UP] = between(a->stats.bytes_in, b->stats.bytes_in) / n;
    to->v[BYTES_DOWN] = between(a->stats.bytes_out, b->stats.bytes_out) / n;
    to->v[BYTES_AROUND] = to->v[BYTES_DOWN] - (double)l->set->size;
    to->v[CONNECTIONS] = (double)b->stats.connections;
    to->v[CPU] = (double)(b->cpu_ns - a->cpu_ns) / 1000 / n;
    to->v[EMPTY] = empty / n;
    to->v[EMPTY_SHARE] = requests > 0 ? empty / requests : 0;
    to->v[CLIENT_UP] = l->window_up / n;
    to->v[CLIENT_DOWN] = l->window_down / n;
}

// The clients' own count of bytes, between the two moments.
static void on_bytes(rtpush_hub *hub, void *user) {
    lab *l = (lab *)user;
    (void)hub;
    l->window_up = l->bytes_up - l->window_up;
    l->window_down = l->bytes_down - l->window_down;
}

static void measure_window(lab *l, result *to) {
    reading begin;
    l->begin_ns = ask(l, COMMAND_WINDOW)->at_ns;
    l->end_ns = l->begin_ns + (int64_t)(l->set->seconds * 1e9);
    rtpush_after(l->hub, until_ms(l->begin_ns), on_bytes, l);
    rtpush_after(l->hub, until_ms(l->end_ns), on_bytes, l);
    unsigned before = l->told_count;
    while (l->told_count == before) turn(l, 20);
    begin = l->told;
    while (l->told_count == before + 1) turn(l, 20);
    reading end = l->told;
    int64_t later = now_ns() + 20000000; // what the clients count at the end of it
    while (now_ns() < later) turn(l, 5);
    measure_costs(l, &begin, &end, to);
    measure_latency(l, to);
}

// Pairs of a message and a reader that was away when it was published: those since the cut, each times who was not back.
static double missed(const lab *l) {
    double sum = 0;
    size_t back = 0;
    for (uint64_t n = 1; n <= l->last; n++) {
        if (l->rows[n].sent_ns < l->cut_ns) continue;
        while (back < l->back_count && l->back_ns[back] <= l->rows[n].sent_ns) back++;
        if ((long long)back < l->set->clients) sum += (double)(l->set->clients - (long long)back);
    }
    return sum;
}

static double lost(const lab *l) {
    double sum = 0;
    for (uint64_t n = 1; n <= l->told.published; n++) sum += (double)l->set->clients - (n < l->row_cap ? l->rows[n].count : 0);
    return sum;
}

// Everything breaks at once, and for a while nobody can come back. Without a cut: only what was lost or doubled so far.
static void measure_cut(lab *l, result *to) {
    if (l->set->cut > 0) {
        l->cut_ns = now_ns();
        l->refuse_until_ns = l->cut_ns + (int64_t)(l->set->cut * 1e9);
        reset_all(l);
        bool is_back = turn_until(l, are_back, l->set->cut + l->set->interval + 60);
        if (is_back) to->v[BACK] = (double)(l->back_ns[l->back_count - 1] - l->cut_ns) / 1e9;
        if (is_back) to->v[BACK_HALF] = (double)(l->back_ns[(l->back_count - 1) / 2] - l->cut_ns) / 1e9;
    }
    ask(l, COMMAND_STOP);
    turn_until(l, have_all, l->set->interval + 5);
    to->v[LOST] = lost(l);
    to->v[DOUBLED] = (double)l->doubled;
    to->v[GAPS] = (double)l->gaps;
    if (l->set->cut <= 0) return;
    to->v[REPLAYED] = missed(l) - to->v[LOST];
    if (to->v[REPLAYED] < 0) to->v[REPLAYED] = 0;
}

static void make_clients(lab *l) {
    static rtpush_sys sys;
    rtpush_desc desc;
    int code;
    l->fd_cap = (size_t)l->set->clients + DESCRIPTORS_APART; // the system gives the lowest that is free
    l->fds = (unsigned char *)grown(NULL, l->fd_cap);
    memset(l->fds, FD_NONE, l->fd_cap);
    l->readers = (reader *)grown(NULL, (size_t)l->set->clients * sizeof *l->readers);
    memset(l->readers, 0, (size_t)l->set->clients * sizeof *l->readers);
    memset(&desc, 0, sizeof desc);
    sys.user = l;
    sys.connect = lab_connect;
    sys.recv = lab_recv;
    sys.send = lab_send;
    sys.close = lab_close;
    desc.sys = &sys;
    l->hub = rtpush_create_ex(&desc, &code);
    if (!l->hub) fail(1, "the clients do not start: %s", rtpush_strerror(code));
}

static void free_clients(lab *l) {
    char letter = COMMAND_END;
    for (long long i = 0; i < l->set->clients; i++) l->readers[i].client = 0; // their end is no failure
    reset_all(l); // no port waits for late packets
    rtpush_destroy(l->hub);
    send_all(l->control, &letter, 1);
    free(l->readers);
    free(l->fds);
    free(l->rows);
    free(l->seen);
    free(l->latencies);
    free(l->back_ns);
}

static void run_clients(const settings *set, const kind *which, int control, int to, pid_t parent) {
    static lab l;
    result r;
    for (int i = 0; i < FIGURES; i++) r.v[i] = nothing();
    l.set = set;
    l.kind = which;
    l.control = control;
    l.parent = parent;
    make_clients(&l);
    hear_server(&l);
    l.port = l.told.port;
    warm_up(&l);
    reading before = *ask(&l, COMMAND_READ);
    connect_all(&l);
    measure_memory(&l, &before, ask(&l, COMMAND_READ), &r);
    ask(&l, COMMAND_START);
    if (!turn_until(&l, are_begun, set->interval + 15)) fail(1, "%s: not every client had the first message in time", which->name);
    measure_window(&l, &r);
    measure_cut(&l, &r);
    free_clients(&l);
    exit(send_all(to, &r, sizeof r) ? 0 : 1);
}

static pid_t fork_or_fail(void) {
    fflush(stdout);
    pid_t child = fork();
    if (child < 0) fail(1, "fork: %s", strerror(errno));
    return child;
}

// In two processes of their own, so that none has memory or ports of an earlier one.
static result measure(const settings *set, const kind *which, int round) {
    int control[2], answer[2], status = 0;
    pid_t parent = getpid();
    result r;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, control) || socketpair(AF_UNIX, SOCK_STREAM, 0, answer)) fail(1, "socketpair: %s", strerror(errno));
    pid_t server_pid = fork_or_fail();
    if (!server_pid) {
        close(control[1]), close(answer[0]), close(answer[1]);
        run_server(set, control[0], round);
    }
    pid_t clients_pid = fork_or_fail();
    if (!clients_pid) {
        close(control[0]), close(answer[0]);
        run_clients(set, which, control[1], answer[1], parent);
    }
    close(control[0]), close(control[1]), close(answer[1]);
    bool is_there = receive_all(answer[0], &r, sizeof r);
    close(answer[0]);
    waitpid(clients_pid, &status, 0);
    bool is_well = is_there && WIFEXITED(status) && !WEXITSTATUS(status);
    waitpid(server_pid, &status, 0);
    if (!is_well || !WIFEXITED(status) || WEXITSTATUS(status)) fail(1, "%s: the measurement failed", which->name);
    return r;
}

// --- over the rounds ---

typedef struct spread {
    double median, least, most;
} spread;

typedef struct table {
    const settings *set;
    result results[KINDS_MAX][ROUNDS_MAX];
} table;

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// What is not known in one round is not known of all.
static spread spread_of(const table *t, int which, enum figure f) {
    double v[ROUNDS_MAX];
    size_t n = (size_t)t->set->rounds;
    spread s;
    s.median = s.least = s.most = nothing();
    for (size_t i = 0; i < n; i++) {
        v[i] = t->results[which][i].v[f];
        if (!is_known(v[i])) return s;
    }
    qsort(v, n, sizeof *v, compare_doubles);
    s.least = v[0];
    s.most = v[n - 1];
    s.median = n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
    return s;
}

// e to the power of -x, without the mathematics library: a series for a small part of x, squared again and again.
static double exp_minus(double x) {
    int halvings = 0;
    double sum = 1, term = 1;
    if (x > 700) return 0;
    for (; x > 0.01; halvings++) x /= 2;
    for (int i = 1; i < 8; i++) sum += term *= -x / i;
    while (halvings--) sum *= sum;
    return sum;
}

// What arithmetic expects of a transport; NaN: nothing simple.
static double expected(const settings *set, const kind *k, enum figure f) {
    double messages = set->rate * set->interval, share = messages < 1 ? 1 - messages : 0;
    bool is_long = k->transport && !strcmp(k->transport, "longpoll");
    if (f == CONNECTIONS) return (double)set->clients;
    if (f == REQUESTS) return k->is_polled ? (double)set->clients / set->interval : is_long ? (double)set->clients * set->rate : 0;
    if (f == LATENCY_MEAN && k->is_polled) return set->interval * 500;
    if (f == EMPTY_SHARE && k->is_polled) return set->is_random ? exp_minus(messages) : share;
    return f == EMPTY_SHARE && !is_long ? 0 : nothing();
}

// --- printing ---

// 12345.6 as "12,346", 1.234 as "1.23"; a whole number without a point.
static void write_number(char *to, size_t cap, double x) {
    char digits[64];
    int decimals = x >= 100 || x <= -100 ? 0 : x >= 10 || x <= -10 ? 1 : 2;
    if (!is_known(x)) { snprintf(to, cap, "-"); return; }
    if (x < 9e15 && x > -9e15 && x == (double)(int64_t)x) decimals = 0;
    snprintf(digits, sizeof digits, "%.*f", decimals, x);
    size_t whole = strcspn(digits, "."), at = 0;
    for (size_t i = 0; digits[i] && at + 2 < cap; i++) {
        if (i && i < whole && (whole - i) % 3 == 0 && digits[i - 1] != '-') to[at++] = ',';
        to[at++] = digits[i];
    }
    to[at] = 0;
}

// "median (least to most)"; one number where they read alike.
static void write_spread(char *to, size_t cap, spread s) {
    char median[40], least[40], most[40];
    write_number(median, sizeof median, s.median);
    write_number(least, sizeof least, s.least);
    write_number(most, sizeof most, s.most);
    if (!strcmp(least, most)) snprintf(to, cap, "%s", median);
    else snprintf(to, cap, "%s (%s to %s)", median, least, most);
}

static void write_title(char *to, size_t cap, const settings *set) {
    char clients[40], rate[40], size[40], seconds[40], interval[40];
    write_number(clients, sizeof clients, (double)set->clients);
    write_number(rate, sizeof rate, set->rate);
    write_number(size, sizeof size, (double)set->size);
    write_number(seconds, sizeof seconds, set->seconds);
    write_number(interval, sizeof interval, set->interval);
    snprintf(to, cap, "%s client%s each, %s message%s/s%s of %s bytes, polls every %s s; %s s, %lld round%s", clients,
             set->clients == 1 ? "" : "s", rate, set->rate > 1 || set->rate < 1 ? "s" : "", set->is_random ? " at random" : "", size, interval, seconds,
             set->rounds, set->rounds == 1 ? "" : "s");
}

static void write_row_title(char *to, size_t cap, const settings *set, enum figure f) {
    char cut[40];
    write_number(cut, sizeof cut, set->cut);
    if (f == BACK) snprintf(to, cap, "cut, %s s of refusals: all are back after (s)", cut);
    else snprintf(to, cap, "%s", figure_names[f].title);
}

// The rows of a cut are the last ones.
static bool has_row(const settings *set, enum figure f) { return set->cut > 0 || f < BACK_HALF; }

static void print_markdown(const table *t) {
    char text[300];
    write_title(text, sizeof text, t->set);
    printf("| %s |", text);
    for (int k = 0; k < t->set->kind_count; k++) printf(" %s |", t->set->kinds[k]->label);
    printf("\n|---|");
    for (int k = 0; k < t->set->kind_count; k++) printf("---|");
    for (int i = 0; i < ROWS; i++) {
        if (!has_row(t->set, rows[i])) continue;
        write_row_title(text, sizeof text, t->set, rows[i]);
        printf("\n| %s |", text);
        for (int k = 0; k < t->set->kind_count; k++) {
            write_spread(text, sizeof text, spread_of(t, k, rows[i]));
            printf(" %s |", text);
        }
    }
    putchar('\n');
}

static void print_table(const table *t) {
    char text[300];
    write_title(text, sizeof text, t->set);
    printf("%s\nmedian (least to most)\n\n%-46s", text, "");
    for (int k = 0; k < t->set->kind_count; k++) printf("  %-24s", t->set->kinds[k]->label);
    putchar('\n');
    for (int i = 0; i < ROWS; i++) {
        if (!has_row(t->set, rows[i])) continue;
        write_row_title(text, sizeof text, t->set, rows[i]);
        printf("%-46s", text);
        for (int k = 0; k < t->set->kind_count; k++) {
            write_spread(text, sizeof text, spread_of(t, k, rows[i]));
            printf("  %-24s", text);
        }
        putchar('\n');
    }
}

static void print_json_number(const char *key, double x) {
    printf("\"%s\":", key);
    if (is_known(x)) printf("%.10g", x);
    else printf("null");
}

// One of the three numbers of each figure's spread.
static void print_json_spread(const table *t, int which, const char *key, int part) {
    printf(",\"%s\":{", key);
    for (int f = 0; f < FIGURES; f++) {
        spread s = spread_of(t, which, (enum figure)f);
        if (f) putchar(',');
        print_json_number(figure_names[f].key, part == 0 ? s.median : part == 1 ? s.least : s.most);
    }
    putchar('}');
}

static void print_json_kind(const table *t, int which) {
    const kind *k = t->set->kinds[which];
    static const enum figure foretold[] = {REQUESTS, LATENCY_MEAN, CONNECTIONS, EMPTY_SHARE};
    printf("{\"transport\":\"%s\",\"label\":\"%s\",\"expected\":{", k->name, k->label);
    for (int i = 0; i < 4; i++) {
        if (i) putchar(',');
        print_json_number(figure_names[foretold[i]].key, expected(t->set, k, foretold[i]));
    }
    putchar('}');
    print_json_spread(t, which, "median", 0);
    print_json_spread(t, which, "least", 1);
    print_json_spread(t, which, "most", 2);
    printf(",\"rounds\":[");
    for (int i = 0; i < t->set->rounds; i++) {
        printf(i ? ",{" : "{");
        for (int f = 0; f < FIGURES; f++) {
            if (f) putchar(',');
            print_json_number(figure_names[f].key, t->results[which][i].v[f]);
        }
        putchar('}');
    }
    printf("]}");
}

static void print_json(const table *t) {
    const settings *set = t->set;
    printf("{\"tool\":\"rtlab compare\",\"version\":\"" RTPUSH_VERSION "\",\"settings\":{\"rate\":%.10g,\"interval\":%.10g,\"clients\":%lld,",
           set->rate, set->interval, set->clients);
    printf("\"seconds\":%.10g,\"size\":%lld,\"rounds\":%lld,\"cut\":%.10g,\"random\":%s},\n\"transports\":[\n",
           set->seconds, set->size, set->rounds, set->cut, set->is_random ? "true" : "false");
    for (int k = 0; k < set->kind_count; k++) {
        print_json_kind(t, k);
        printf(k + 1 < set->kind_count ? ",\n" : "\n");
    }
    printf("]}\n");
}

// --- a picture ---

enum { SVG_WIDTH = 880, SVG_PANEL = 424, SVG_BAR = 17, SVG_LABEL = 112, SVG_LENGTH = 176 };

static const enum figure panels[] = {REQUESTS, BYTES_UP, BYTES_DOWN, LATENCY_MEAN, LATENCY_P99, CPU, MEMORY, BACK};

// The bar, a thin line from the least to the most, and the number.
static void print_svg_bar(const table *t, int which, enum figure f, double scale, int x, int y) {
    spread s = spread_of(t, which, f);
    char text[120];
    int from = x + SVG_LABEL;
    double length = is_known(s.median) && s.median > 0 ? s.median * scale : 0;
    write_spread(text, sizeof text, s);
    printf("<text class='l' x='%d' y='%d'>%s</text>", from - 8, y + 12, t->set->kinds[which]->label);
    printf("<rect class='b k%d' x='%d' y='%d' width='%.1f' height='12' rx='2'/>", which, from, y + 2, length < 1 ? 1 : length);
    double most = is_known(s.most) && s.most > 0 ? s.most * scale : 0, end = length > most ? length : most;
    double begin = is_known(s.least) && s.least > 0 ? s.least * scale : 0;
    if (most > 1 && most > begin) printf("<path class='w' d='M%.1f %dh%.1f'/>", from + begin, y + 8, most - begin);
    printf("<text class='v' x='%.1f' y='%d'>%s</text>\n", from + end + 7, y + 12, text);
}

static void print_svg_panel(const table *t, enum figure f, int x, int y) {
    char text[120];
    double most = 0;
    for (int k = 0; k < t->set->kind_count; k++) {
        spread s = spread_of(t, k, f);
        if (is_known(s.most) && s.most > most) most = s.most;
    }
    write_row_title(text, sizeof text, t->set, f);
    printf("<text class='h' x='%d' y='%d'>%s</text>\n", x, y, text);
    for (int k = 0; k < t->set->kind_count; k++) print_svg_bar(t, k, f, most > 0 ? SVG_LENGTH / most : 0, x, y + 8 + k * SVG_BAR);
}

static void print_svg_style(void) {
    printf("<style>.g{fill:#fff}text{font:12px system-ui,'Segoe UI','Liberation Sans',sans-serif;fill:#1a2230}.t{font-size:15px;font-weight:600}"
           ".h{font-weight:600}.l{text-anchor:end;fill:#566072}.w{stroke:#1a2230;stroke-width:1.5;fill:none}\n"
           ".k0{fill:#b8560f}.k1{fill:#8a5fc7}.k2{fill:#2f7d4f}.k3{fill:#2f5fd8}.k4{fill:#5b8a6f}.k5{fill:#6f8fd0}\n"
           "@media(prefers-color-scheme:dark){.g{fill:#11151c}text{fill:#e6ebf3}.l{fill:#9ca8ba}.w{stroke:#e6ebf3}"
           ".k0{fill:#e08a45}.k1{fill:#b493e6}.k2{fill:#4fb37a}.k3{fill:#7d9fff}.k4{fill:#86b89a}.k5{fill:#9db4ea}}</style>\n");
}

static void print_svg(const table *t) {
    int count = (int)(sizeof panels / sizeof *panels) - (t->set->cut > 0 ? 0 : 1), step = t->set->kind_count * SVG_BAR + 42;
    int height = 56 + (count + 1) / 2 * step;
    char title[300];
    write_title(title, sizeof title, t->set);
    printf("<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %d %d' width='%d' height='%d' role='img' aria-labelledby='t d'>\n",
           SVG_WIDTH, height, SVG_WIDTH, height);
    printf("<title id='t'>What each transport costs</title><desc id='d'>%s. Bars: the median; the line: least to most. The numbers stand beside "
           "them.</desc>\n", title);
    print_svg_style();
    printf("<rect class='g' width='100%%' height='100%%'/><text class='t' x='16' y='28'>%s</text>\n", title);
    for (int i = 0; i < count; i++) print_svg_panel(t, panels[i], 16 + i % 2 * SVG_PANEL, 60 + i / 2 * step);
    printf("</svg>\n");
}

// --- flags ---

// A plain decimal number; no sign, no exponent.
static double read_number(const char *flag, const char *text, double least, double most) {
    char *tail;
    double x = strtod(text, &tail);
    if (!*text || strspn(text, "0123456789.") != strlen(text) || *tail || !(x >= least && x <= most))
        fail(2, "%s \"%s\": a number from %.10g to %.10g is wanted", flag, text, least, most);
    return x;
}

static long long read_whole(const char *flag, const char *text, long long least, long long most) {
    errno = 0;
    long long n = *text && strspn(text, "0123456789") == strlen(text) ? strtoll(text, NULL, 10) : -1;
    if (errno || n < least || n > most) fail(2, "%s \"%s\": a whole number from %lld to %lld is wanted", flag, text, least, most);
    return n;
}

static void add_kind(settings *set, const char *name, size_t size) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strlen(kinds[i].name) != size || memcmp(kinds[i].name, name, size)) continue;
        for (int k = 0; k < set->kind_count; k++)
            if (set->kinds[k] == &kinds[i]) fail(2, "--transports: %s is there twice", kinds[i].name);
        set->kinds[set->kind_count++] = &kinds[i];
        return;
    }
    fail(2, "--transports \"%.*s\": shortpoll, longpoll, sse, websocket, rawsse or rawwebsocket is wanted", (int)size, name);
}

static void read_kinds(settings *set, const char *list) {
    set->kind_count = 0;
    for (;;) {
        size_t size = strcspn(list, ",");
        add_kind(set, list, size);
        if (!list[size]) return;
        list += size + 1;
    }
}

static bool take_word(settings *set, const char *flag) {
    if (!strcmp(flag, "--markdown")) set->style = STYLE_MARKDOWN;
    else if (!strcmp(flag, "--json")) set->style = STYLE_JSON;
    else if (!strcmp(flag, "--svg")) set->style = STYLE_SVG;
    else if (!strcmp(flag, "--random")) set->is_random = true;
    else if (!strcmp(flag, "--quiet")) set->is_quiet = true;
    else if (!strcmp(flag, "--help")) fputs(usage, stdout), exit(0);
    else return false;
    return true;
}

static bool take_value(settings *set, const char *flag, const char *value) {
    if (!strcmp(flag, "--rate")) set->rate = read_number(flag, value, 0.01, 100000);
    else if (!strcmp(flag, "--interval")) set->interval = read_number(flag, value, 0.05, 600);
    else if (!strcmp(flag, "--seconds")) set->seconds = read_number(flag, value, 0.1, 3600);
    else if (!strcmp(flag, "--cut")) set->cut = read_number(flag, value, 0, 60);
    else if (!strcmp(flag, "--clients")) set->clients = read_whole(flag, value, 1, 1000000);
    else if (!strcmp(flag, "--size")) set->size = read_whole(flag, value, SIZE_LEAST, SIZE_MOST);
    else if (!strcmp(flag, "--rounds")) set->rounds = read_whole(flag, value, 1, ROUNDS_MAX);
    else if (!strcmp(flag, "--transports")) read_kinds(set, value);
    else return false;
    return true;
}

static void parse(settings *set, int argc, char **argv) {
    for (int i = 0; i < argc; i++) {
        char *equals = !strncmp(argv[i], "--", 2) ? strchr(argv[i], '=') : NULL; // --flag VALUE or --flag=VALUE
        if (!equals && take_word(set, argv[i])) continue;
        settings unused = *set;
        if (equals) *equals = 0;
        const char *value = equals ? equals + 1 : argv[i + 1];
        const char *sample = !strcmp(argv[i], "--transports") ? "sse" : !strcmp(argv[i], "--size") ? "64" : "1";
        if (!take_value(&unused, argv[i], sample)) fail(2, "\"%s\": there is no such flag (see --help)", argv[i]);
        if (!value) fail(2, "%s: its value is missing", argv[i]);
        take_value(set, argv[i], value);
        if (!equals) i++;
    }
}

// What makes sense only together.
static void check(const settings *set) {
    double messages = set->rate * set->seconds, all = set->rate * (set->seconds + 2 * set->interval + set->cut + 30) * (double)set->clients;
    if (messages < 1) fail(2, "at %g messages/s fewer than one comes in %g s: a higher --rate or more --seconds", set->rate, set->seconds);
    if (all > DELIVERIES_MAX) fail(2, "--rate, --clients and the time make %.3g deliveries; more than %d are not counted", all, DELIVERIES_MAX);
    if ((double)history_of(set) * (double)(set->size + 1024) > 1e9) fail(2, "--rate and --size: the server's history would take more than 1 GB");
}

// Both processes need a descriptor for each client.
static void raise_descriptors(const settings *set) {
    struct rlimit limit;
    rlim_t wanted = (rlim_t)set->clients + DESCRIPTORS_APART;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < wanted) {
        if (limit.rlim_max < wanted) limit.rlim_max = wanted; // for who may
        limit.rlim_cur = wanted;
        if (!setrlimit(RLIMIT_NOFILE, &limit)) return;
        getrlimit(RLIMIT_NOFILE, &limit);
        fail(2, "--clients %lld: each process would need %lld descriptors, and may have %llu (ulimit -Hn). At most --clients %lld",
             set->clients, (long long)wanted, (unsigned long long)limit.rlim_max, (long long)limit.rlim_max - DESCRIPTORS_APART);
    }
}

// All connections go to one address, so each needs a port of its own.
static void check_ports(const settings *set) {
    long long least = 0, most = 0;
    FILE *file = fopen("/proc/sys/net/ipv4/ip_local_port_range", "r");
    if (!file) return;
    int n = fscanf(file, "%lld %lld", &least, &most);
    fclose(file);
    if (n == 2 && set->clients > most - least - DESCRIPTORS_APART)
        fail(2, "--clients %lld: this machine has %lld local ports (net.ipv4.ip_local_port_range)", set->clients, most - least + 1);
}

static int compare(int argc, char **argv) {
    static settings set;
    static table t;
    set.rate = 1, set.interval = 5, set.seconds = 10, set.cut = 1, set.clients = 1000, set.size = 128, set.rounds = 3;
    read_kinds(&set, "shortpoll,longpoll,sse,websocket");
    parse(&set, argc, argv);
    check(&set);
    raise_descriptors(&set);
    check_ports(&set);
    t.set = &set;
    for (int round = 0; round < set.rounds; round++)
        for (int k = 0; k < set.kind_count; k++) { // in turn, so that what else the machine does hits all alike
            if (!set.is_quiet) fprintf(stderr, "rtlab: round %d of %lld, %s\n", round + 1, set.rounds, set.kinds[k]->name);
            t.results[k][round] = measure(&set, set.kinds[k], round);
        }
    if (set.style == STYLE_MARKDOWN) print_markdown(&t);
    else if (set.style == STYLE_JSON) print_json(&t);
    else if (set.style == STYLE_SVG) print_svg(&t);
    else print_table(&t);
    return fflush(stdout) || ferror(stdout) ? 1 : 0;
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    if (argc > 1 && !strcmp(argv[1], "compare")) return compare(argc - 2, argv + 2);
    if (argc > 1 && !strcmp(argv[1], "million")) return million_run(argc - 2, argv + 2);
    if (argc > 1 && !strcmp(argv[1], "--help")) return fputs(usage, stdout), 0;
    if (argc > 1 && !strcmp(argv[1], "--version")) return puts("rtlab " RTPUSH_VERSION), 0;
    if (argc > 1) fail(2, "\"%s\": there is no such command: compare or million (see --help)", argv[1]);
    fputs(usage, stderr);
    return 2;
}
