// The transport lab: short poll, long poll, SSE and WebSocket side by side, on one log, through faults, measured.
//
//     cc -O2 examples/lab.c -o lab && ./lab                         then open http://127.0.0.1:8080/
//     cc -O2 examples/lab.c -o lab -pthread                         where the C library is older than 2021
//     ./lab --listen http://0.0.0.0:8080 --page examples/lab.html   for a class; the page from a file, read anew each time
//
// How a message travels, and in which thread:
//
//     publisher --> bus: one log under a lock       one order, one epoch, the same ids in every lane
//                    |      |      |     |
//                  short   long   sse    ws         four lanes: a hub and a thread each, so that what one costs is known
//                    |      |      |     |
//                   proxy: one port a lane          one thread that makes the faults: it delays, holds, forgets, cuts
//                    |      |      |     |
//          browsers' connections and C clients      the C clients are one thread with a hub, by rtpush_connect
//
//     control hub (main thread): the page, /lab/set, /lab/do, /lab/stats, and the topics `figures` and `trace` that the page
//     reads. It asks each thread for its figures when they are wanted; nobody else is asked anything, all are only told.
//
// What crosses threads is behind a lock: settings, the log, each lane's figures, the proxy's sums. No lock is held while
// another one is taken, but the publisher's, which comes before all.
#define RTPUSH_IMPLEMENTATION
#include "../rtpush.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/epoll.h>
#else
#include <sys/event.h>
#endif

enum { SHORT, LONG, SSE, WS, LANES };
enum { CLIENTS_MAX = 3000, LOG_MAX = 10000, LOG_BYTES = 64 << 20, MESSAGE_MAX = 16384, SLOTS = 100, BUFFER_BYTES = 16384 };

// --- time, text, chance ---

static uint64_t clock_us(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t wall_us(void) { return clock_us(CLOCK_REALTIME); }
static uint64_t now_us(void) { return clock_us(CLOCK_MONOTONIC); }
static uint64_t now_ms(void) { return now_us() / 1000; }

static double lower(double a, double b) { return a < b ? a : b; } // fmin is in a library of its own
static double upper(double a, double b) { return a > b ? a : b; }

// Waits for the condition, at most until so many microseconds from now.
static void wait_at_most(pthread_cond_t *condition, pthread_mutex_t *lock, uint64_t us) {
    uint64_t at = wall_us() + us;
    struct timespec until;
    until.tv_sec = (time_t)(at / 1000000);
    until.tv_nsec = (long)(at % 1000000) * 1000;
    pthread_cond_timedwait(condition, lock, &until);
}

// A text that grows. Out of memory: it is cut off, and is_broken.
typedef struct text {
    char *data;
    size_t size, cap;
    bool is_broken;
} text;

static bool text_room(text *t, size_t more) {
    size_t cap = t->cap ? t->cap : 4096;
    while (cap < t->size + more + 1) cap *= 2;
    char *data = cap > t->cap ? (char *)realloc(t->data, cap) : t->data;
    if (!data) t->is_broken = true;
    else t->data = data, t->cap = cap;
    return data != NULL;
}

#ifdef __GNUC__
__attribute__((format(printf, 2, 3)))
#endif
static void say(text *t, const char *format, ...) {
    va_list list;
    va_start(list, format);
    int size = vsnprintf(NULL, 0, format, list);
    va_end(list);
    if (size < 0 || !text_room(t, (size_t)size)) return;
    va_start(list, format);
    vsnprintf(t->data + t->size, (size_t)size + 1, format, list);
    va_end(list);
    t->size += (size_t)size;
}

static void say_base64(text *t, const unsigned char *p, size_t size) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (!text_room(t, size / 3 * 4 + 4)) return;
    for (size_t i = 0; i < size; i += 3) {
        unsigned long bits = (unsigned long)p[i] << 16 | (i + 1 < size ? (unsigned long)p[i + 1] << 8 : 0) | (i + 2 < size ? p[i + 2] : 0);
        t->data[t->size++] = letters[bits >> 18];
        t->data[t->size++] = letters[bits >> 12 & 63];
        t->data[t->size++] = i + 1 < size ? letters[bits >> 6 & 63] : '=';
        t->data[t->size++] = i + 2 < size ? letters[bits & 63] : '=';
    }
    t->data[t->size] = 0;
}

// splitmix64: good enough to spread clients, of no use for secrets. Each thread has its own state.
static uint64_t chance(uint64_t *state, uint64_t below) {
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return below ? (z ^ (z >> 31)) % below : 0;
}

// --- settings: what the page sets ---

// name, least, most, at the start. `slow` is a word; `rate` is kept in thousandths, for it may be a fraction.
#define SETTINGS(X)                                                                                                      \
    X(rate, 0, 1000000, 1000) X(burst, 1, 1000, 1) X(size, 64, MESSAGE_MAX, 128) X(interval, 100, 60000, 5000)       \
    X(wait, 1000, 55000, 25000) X(clients_short, 0, CLIENTS_MAX, 0) X(clients_long, 0, CLIENTS_MAX, 0)                    \
    X(clients_sse, 0, CLIENTS_MAX, 0) X(clients_ws, 0, CLIENTS_MAX, 0) X(latency, 0, 2000, 0) X(buffer, 0, 1, 0)          \
    X(block, 0, 1, 0) X(nat, 0, 120, 0) X(throttle, 0, 10000000, 0) X(resume, 0, 1, 1) X(jitter, 0, 1, 1)                 \
    X(fallback, 0, 1, 0) X(heartbeat, 500, 120000, 20000) X(slow, 0, 2, 0) X(history, 1, LOG_MAX, 1000)

typedef struct settings {
#define SETTING_FIELD(name, least, most, first) uint64_t name;
    SETTINGS(SETTING_FIELD)
#undef SETTING_FIELD
} settings;

static const struct { const char *name; uint64_t least, most, first; } setting_table[] = {
#define SETTING_ROW(name, least, most, first) {#name, least, most, first},
    SETTINGS(SETTING_ROW)
#undef SETTING_ROW
};

enum { SETTING_COUNT = sizeof setting_table / sizeof *setting_table, RATE = 0 };

static const char *const slow_words[] = {"close", "skip", "latest"};

static pthread_mutex_t settings_lock = PTHREAD_MUTEX_INITIALIZER;
static settings the_settings;

static settings settings_now(void) {
    pthread_mutex_lock(&settings_lock);
    settings s = the_settings;
    pthread_mutex_unlock(&settings_lock);
    return s;
}

static void settings_put(const settings *s) {
    pthread_mutex_lock(&settings_lock);
    the_settings = *s;
    pthread_mutex_unlock(&settings_lock);
}

// The i-th of the table: all are of one type, one behind the other.
static uint64_t *setting_at(settings *s, size_t i) { return (uint64_t *)(void *)((char *)s + i * sizeof(uint64_t)); }

static bool is_slow(size_t i) { return !strcmp(setting_table[i].name, "slow"); }

static void settings_say(text *t, settings s) {
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        uint64_t value = *setting_at(&s, i);
        say(t, "%s\"%s\":", i ? "," : "{", setting_table[i].name);
        if (is_slow(i)) say(t, "\"%s\"", slow_words[value]);
        else say(t, "%.10g", (double)value / (i == RATE ? 1000 : 1));
    }
    say(t, "}");
}

static bool setting_read(size_t i, const char *value, uint64_t *out) {
    if (is_slow(i)) {
        for (*out = 0; *out < 3 && strcmp(value, slow_words[*out]) != 0; ++*out) {}
        return *out < 3;
    }
    char *tail;
    if (!*value || strspn(value, "0123456789.") != strlen(value)) return false;
    double number = strtod(value, &tail) * (i == RATE ? 1000 : 1);
    if (*tail || number > (double)setting_table[i].most) return false;
    *out = (uint64_t)(number + 0.5);
    return *out >= setting_table[i].least && (i == RATE || (double)*out == number);
}

// --- a thread with a hub: others may post to it, and ask it for an answer ---

typedef struct loop {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t told;
    rtpush_hub *hub; // NULL: there is none now
    uint64_t asked, answered;
    bool is_over;
} loop;

static void loop_init(loop *l) {
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->told, NULL);
}

static void loop_set(loop *l, rtpush_hub *hub) {
    pthread_mutex_lock(&l->lock);
    l->hub = hub;
    pthread_mutex_unlock(&l->lock);
}

static void loop_post(loop *l, void (*fn)(rtpush_hub *hub, void *arg), void *arg) {
    pthread_mutex_lock(&l->lock);
    if (l->hub) rtpush_post(l->hub, fn, arg);
    pthread_mutex_unlock(&l->lock);
}

// fn will call loop_answer. A hub that ends meanwhile runs what was posted to it, so the answer comes.
static void loop_ask(loop *l, void (*fn)(rtpush_hub *hub, void *arg), void *arg) {
    pthread_mutex_lock(&l->lock);
    if (l->hub && !rtpush_post(l->hub, fn, arg)) l->asked++;
    pthread_mutex_unlock(&l->lock);
}

static void loop_answer(loop *l) {
    pthread_mutex_lock(&l->lock);
    l->answered++;
    pthread_cond_broadcast(&l->told);
    pthread_mutex_unlock(&l->lock);
}

// For all that was asked. A thread that is so busy that it does not answer is not waited for without end.
static void loop_wait(loop *l) {
    uint64_t end = now_ms() + 3000;
    pthread_mutex_lock(&l->lock);
    while (l->answered < l->asked && now_ms() < end) wait_at_most(&l->told, &l->lock, 100000);
    pthread_mutex_unlock(&l->lock);
}

// Waits so long, or until the program ends. false: it does.
static bool loop_rest(loop *l, int64_t ms) {
    uint64_t end = now_ms() + (uint64_t)ms;
    pthread_mutex_lock(&l->lock);
    for (uint64_t now; !l->is_over && (now = now_ms()) < end;) wait_at_most(&l->told, &l->lock, (end - now) * 1000);
    bool is_over = l->is_over;
    pthread_mutex_unlock(&l->lock);
    return !is_over;
}

static void loop_end(loop *l) {
    pthread_mutex_lock(&l->lock);
    l->is_over = true;
    if (l->hub) rtpush_stop(l->hub);
    pthread_cond_broadcast(&l->told);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
}

// --- sockets ---

// "[::1]" is ::1 to getaddrinfo.
static struct addrinfo *find_host(const char *host) {
    char name[128];
    struct addrinfo hints, *found = NULL;
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    snprintf(name, sizeof name, "%s", *host == '[' ? host + 1 : host);
    name[strcspn(name, "]")] = 0;
    return getaddrinfo(name, "0", &hints, &found) ? NULL : found;
}

static in_port_t *port_of(struct sockaddr_storage *at) {
    return at->ss_family == AF_INET6 ? &((struct sockaddr_in6 *)(void *)at)->sin6_port : &((struct sockaddr_in *)(void *)at)->sin_port;
}

static void set_option(int fd, int level, int name, int value) { setsockopt(fd, level, name, &value, sizeof value); }

static void socket_prepare(int fd) {
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, O_NONBLOCK);
}

// A listener at the port, 0: at any, which is told. What it accepts has a small buffer, as on a real way: inside a machine
// it would grow to megabytes, where all waits and no reader is ever slow. -1: errno says why.
static int listen_at(struct sockaddr_storage at, socklen_t size, int *port) {
    int fd = socket(at.ss_family, SOCK_STREAM, 0);
    if (fd < 0) return -1;
    *port_of(&at) = htons((uint16_t)*port);
    set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    set_option(fd, SOL_SOCKET, SO_SNDBUF, BUFFER_BYTES);
    socket_prepare(fd);
    struct sockaddr *to = (struct sockaddr *)(void *)&at;
    if (bind(fd, to, size) || listen(fd, 4096) || getsockname(fd, to, &size)) return close(fd), -1;
    *port = ntohs(*port_of(&at));
    return fd;
}

// --- the lanes, as all sections know them ---

typedef struct lane_figures {
    rtpush_stats stats; // of all its hubs since the program's start
    uint64_t cpu_us, memory, payload;
} lane_figures;

typedef struct carried { // what the proxy has carried for a lane
    uint64_t up, down, swallowed, connections;
    uint32_t accepts[SLOTS]; // by 100 ms; slot k has those of the moments that are k modulo SLOTS
    uint64_t moment;         // of the latest slot
} carried;

typedef struct lane {
    const char *name, *transports;
    int index;
    loop loop;
    int direct, port; // of its hub; of the proxy. Written before anybody else looks

    // its own thread's
    rtpush_bus bus;
    settings adopted;
    int64_t away_ms;    // between this hub and the next
    bool is_forgetting; // the next one begins a new log
    uint64_t seq;       // it has the log up to here
    unsigned life;      // of the log
    rtpush_stats before; // the counters of the hubs that were
    uint64_t counted, size; // of `delivered`: counted in payload; how large each is now
    size_t memory;

    // under loop.lock
    lane_figures figures;
    bool is_told, is_draining, has_failed;

    // under proxy.lock
    carried carried;
} lane;

static lane lanes[LANES] = {{.name = "short", .transports = "shortpoll", .index = SHORT},
                            {.name = "long", .transports = "longpoll", .index = LONG},
                            {.name = "sse", .transports = "sse", .index = SSE},
                            {.name = "ws", .transports = "websocket", .index = WS}};

static char near_host[128]; // how --listen's host is reached from here
static struct sockaddr_storage listen_address, near_address; // with port 0
static socklen_t address_size;

// ============================================================================
// bus: one log, in memory, under a lock. Each lane's hub follows it.
// ============================================================================

typedef struct entry {
    char *data;
    size_t size;
    int64_t time_ms;
} entry;

static struct {
    pthread_mutex_t lock;
    char epoch[9];
    unsigned life, wanted; // life grows with each new epoch; wanted: which life a `forget` has asked for
    uint64_t head, oldest; // seqs; oldest is head + 1 if nothing is held
    size_t bytes;
    entry ring[LOG_MAX]; // seq modulo LOG_MAX
} the_log = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void log_drop_oldest(void) {
    entry *e = &the_log.ring[the_log.oldest++ % LOG_MAX];
    the_log.bytes -= e->size;
    free(e->data);
    e->data = NULL;
}

// The log that is wanted: a new one has another epoch, where the old numbers mean nothing. Where four lanes come back from
// one `forget`, the first begins it.
static void log_begin(void) {
    static uint64_t state;
    pthread_mutex_lock(&the_log.lock);
    bool is_there = the_log.life >= the_log.wanted;
    while (!is_there && the_log.head && the_log.oldest <= the_log.head) log_drop_oldest();
    if (is_there) { pthread_mutex_unlock(&the_log.lock); return; }
    state ^= wall_us() ^ (uint64_t)getpid() << 40;
    for (int i = 0; i < 8; i++) the_log.epoch[i] = "abcdefghijklmnopqrstuvwxyz0123456789"[chance(&state, 36)];
    the_log.head = 0;
    the_log.oldest = 1;
    the_log.life = the_log.wanted;
    pthread_mutex_unlock(&the_log.lock);
}

static void log_doom(void) {
    pthread_mutex_lock(&the_log.lock);
    the_log.wanted = the_log.life + 1;
    pthread_mutex_unlock(&the_log.lock);
}

static bool log_append(const char *data, size_t size, uint64_t us) {
    size_t keep = (size_t)settings_now().history;
    char *copy = (char *)malloc(size);
    if (!copy) return false;
    memcpy(copy, data, size);
    pthread_mutex_lock(&the_log.lock);
    while (the_log.head + 1 - the_log.oldest >= keep || (the_log.bytes + size > LOG_BYTES && the_log.bytes)) log_drop_oldest();
    entry *e = &the_log.ring[++the_log.head % LOG_MAX];
    e->data = copy;
    e->size = size;
    e->time_ms = (int64_t)(us / 1000);
    the_log.bytes += size;
    pthread_mutex_unlock(&the_log.lock);
    return true;
}

static int log_deliver(rtpush_hub *hub, uint64_t seq) {
    const entry *e = &the_log.ring[seq % LOG_MAX];
    rtpush_message m;
    memset(&m, 0, sizeof m);
    m.topic = "lab";
    m.event = "";
    m.data = e->data;
    m.size = e->size;
    m.kind = RTPUSH_JSON;
    m.seq = seq;
    m.time_ms = e->time_ms;
    return rtpush_bus_deliver(hub, &m);
}

// The lane's thread: its hub gets what it has not. Where the log is another, or has moved on too far, the hub begins
// anew from the oldest that is held, and tells its readers of the gap.
static int bus_follow(lane *l, rtpush_hub *hub) {
    int code = RTPUSH_OK;
    pthread_mutex_lock(&the_log.lock);
    if (l->life != the_log.life || l->seq + 1 < the_log.oldest) {
        code = rtpush_bus_start(hub, the_log.epoch, the_log.oldest - 1);
        l->seq = the_log.oldest - 1;
        l->life = the_log.life;
    }
    while (!code && l->seq < the_log.head && (code = log_deliver(hub, l->seq + 1)) == RTPUSH_OK) l->seq++;
    pthread_mutex_unlock(&the_log.lock);
    return code;
}

static int bus_open(void *user, rtpush_hub *hub) {
    lane *l = (lane *)user;
    l->life = 0; // this hub has nothing yet
    return bus_follow(l, hub);
}

// Only the publisher writes to this log.
static int bus_append(void *user, rtpush_hub *hub, const rtpush_publication *what, uint64_t ticket) {
    (void)user, (void)hub, (void)what, (void)ticket;
    return RTPUSH_E_FORBIDDEN;
}

static void bus_pulled(rtpush_hub *hub, void *arg) {
    lane *l = (lane *)arg;
    pthread_mutex_lock(&l->loop.lock);
    l->is_told = false; // from here on news is told again
    pthread_mutex_unlock(&l->loop.lock);
    bus_follow(l, hub);
}

// Any thread: there is something new in the log. One call under way is enough for all of it.
static void bus_tell(void) {
    for (lane *l = lanes; l < lanes + LANES; l++) {
        pthread_mutex_lock(&l->loop.lock);
        if (l->loop.hub && !l->is_told) l->is_told = !rtpush_post(l->loop.hub, bus_pulled, l);
        pthread_mutex_unlock(&l->loop.lock);
    }
}

// ============================================================================
// lanes: a thread each, that has one hub after another
// ============================================================================

// desc.alloc: counts what the hub holds. The size stands before each block.
typedef union block_head { size_t size; long double align; } block_head;

static void *lane_alloc(void *old, size_t size, void *user) {
    lane *l = (lane *)user;
    block_head *head = old ? (block_head *)old - 1 : NULL;
    size_t was = head ? head->size : 0;
    if (!size) {
        free(head);
        l->memory -= was;
        return NULL;
    }
    head = (block_head *)realloc(head, size + sizeof *head);
    if (!head) return NULL;
    l->memory += size - was;
    head->size = size;
    return head + 1;
}

// What the lane has done until now. Counters go on over its hubs; a gauge is this hub's, and 0 where there is none.
static void lane_note(lane *l, rtpush_hub *hub, bool is_last) {
    rtpush_stats now, all;
    rtpush_get_stats(hub, &now);
#define ADD_STAT(name, type, help) all.name = type[0] == 'c' ? now.name + l->before.name : is_last ? 0 : now.name;
    RTPUSH_STATS(ADD_STAT)
#undef ADD_STAT
    uint64_t cpu_us = clock_us(CLOCK_THREAD_CPUTIME_ID);
    pthread_mutex_lock(&l->loop.lock);
    l->figures.stats = all;
    l->figures.cpu_us = cpu_us;
    l->figures.memory = is_last ? 0 : l->memory;
    l->figures.payload += (all.delivered - l->counted) * l->size;
    l->counted = all.delivered;
    pthread_mutex_unlock(&l->loop.lock);
    if (is_last) l->before = all;
}

static void lane_answer(rtpush_hub *hub, void *arg) {
    lane *l = (lane *)arg;
    lane_note(l, hub, false);
    loop_answer(&l->loop);
}

// All is closed, nothing freed yet: the hub's last counters are whole.
static void bus_close(void *user, rtpush_hub *hub) {
    if (hub) lane_note((lane *)user, hub, true);
}

static rtpush_topic_desc lane_topic(const settings *s) {
    rtpush_topic_desc topic;
    memset(&topic, 0, sizeof topic);
    topic.history = (int64_t)s->history;
    topic.history_bytes = LOG_BYTES;
    topic.slow = RTPUSH_SLOW_CLOSE + (int)s->slow;
    return topic;
}

static void lane_leave(lane *l, rtpush_hub *hub, int64_t away_ms) {
    l->away_ms = away_ms;
    rtpush_stop(hub);
}

// The settings are others.
static void lane_adopt(rtpush_hub *hub, void *arg) {
    lane *l = (lane *)arg;
    settings s = settings_now();
    rtpush_topic_desc topic = lane_topic(&s);
    rtpush_configure(hub, "lab", &topic);
    lane_note(l, hub, false);
    l->size = (uint64_t)s.size; // what was published before and is delivered later counts as if it had this size, too
    if (s.heartbeat != l->adopted.heartbeat) lane_leave(l, hub, 50);
    l->adopted = s;
}

static void lane_restart(rtpush_hub *hub, void *arg) { lane_leave((lane *)arg, hub, 1000); }

static void lane_forget(rtpush_hub *hub, void *arg) {
    lane *l = (lane *)arg;
    l->is_forgetting = true;
    lane_leave(l, hub, 1000);
}

static void lane_set_draining(lane *l, bool is_draining) {
    pthread_mutex_lock(&l->loop.lock);
    l->is_draining = is_draining;
    pthread_mutex_unlock(&l->loop.lock);
}

static void lane_drain(rtpush_hub *hub, void *arg) {
    lane_set_draining((lane *)arg, true);
    rtpush_drain(hub, 2000, 5000);
}

static rtpush_hub *lane_make(lane *l, int *code) {
    const settings *s = &l->adopted;
    const rtpush_rule rules[] = {{"lab", lane_topic(s)}, {NULL, lane_topic(s)}};
    rtpush_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.origin = "*";
    desc.publish_off = true;
    desc.heartbeat_ms = desc.sse_heartbeat_ms = (int64_t)s->heartbeat;
    desc.dead_ms = (int64_t)(s->heartbeat < 1000 ? 500 : s->heartbeat < 20000 ? s->heartbeat / 2 : 10000);
    desc.history_total_bytes = LOG_BYTES;
    desc.rules = rules;
    desc.bus = &l->bus;
    desc.alloc = lane_alloc;
    desc.alloc_user = l;
    return rtpush_create_ex(&desc, code);
}

// Its old port is the lane's again as soon as the old listener is gone. false: it is not to be had.
static bool lane_listen(lane *l, rtpush_hub *hub) {
    int fd, port = l->direct;
    while ((fd = listen_at(listen_address, address_size, &port)) < 0 && errno == EADDRINUSE && port && loop_rest(&l->loop, 50)) {}
    if (!l->direct) l->direct = port; // others read it from here on
    if (fd >= 0) return !rtpush_adopt_listener(hub, fd);
    fprintf(stderr, "lab: lane %s: %s\n", l->name, strerror(errno));
    return false;
}

// A new hub, at the lane's port. NULL: there can be none.
static rtpush_hub *lane_open(lane *l) {
    const rtpush_bus bus = {"lab", bus_open, bus_append, NULL, bus_close, l};
    int code;
    l->bus = bus;
    l->adopted = settings_now();
    l->size = l->adopted.size;
    if (l->is_forgetting) log_begin();
    rtpush_hub *hub = lane_make(l, &code);
    if (!hub) return fprintf(stderr, "lab: lane %s: %s\n", l->name, rtpush_strerror(code)), NULL;
    if (lane_listen(l, hub)) return hub;
    rtpush_destroy(hub);
    return NULL;
}

static void *lane_main(void *arg) {
    lane *l = (lane *)arg;
    rtpush_hub *hub;
    do {
        hub = lane_open(l);
        pthread_mutex_lock(&l->loop.lock);
        l->loop.hub = hub;
        l->has_failed = !hub;
        l->is_told = l->is_draining = false;
        pthread_cond_broadcast(&l->loop.told);
        pthread_mutex_unlock(&l->loop.lock);
        if (!hub) break;
        if (l->is_forgetting) bus_tell(), l->is_forgetting = false; // the others, that live
        bus_follow(l, hub); // what came before anybody could tell this hub
        lane_adopt(hub, l);
        l->away_ms = 0;
        rtpush_run(hub);
        loop_set(&l->loop, NULL); // nobody posts any more
        rtpush_destroy(hub);
    } while (loop_rest(&l->loop, l->away_ms));
    return NULL;
}

static bool lane_start(lane *l) {
    loop_init(&l->loop);
    if (pthread_create(&l->loop.thread, NULL, lane_main, l)) return false;
    pthread_mutex_lock(&l->loop.lock);
    while (!l->loop.hub && !l->has_failed) pthread_cond_wait(&l->loop.told, &l->loop.lock);
    bool is_good = !l->has_failed;
    pthread_mutex_unlock(&l->loop.lock);
    return is_good;
}

// ============================================================================
// proxy: what stands between, and what goes wrong there. One thread, level-triggered, all bounded.
//
//     client --recv--> queue of side[LANE]   --send--> lane's hub
//     client <--send-- queue of side[CLIENT] <--recv-- lane's hub
//
// A side is not read while the other side's queue is full. A piece is sent when it is due (latency), when the
// throttle allows it, and when the middlebox lets it go. An empty piece is the end (FIN).
// ============================================================================

enum { READ_MAX = 16384, QUEUE_MAX = 65536, LATE_QUEUE_MAX = 524288, SLOW_QUEUE_MAX = 4096, HELD_MAX = 16384, READY_MAX = 256 };
enum { SILENT_MS = 30000, LINGER_MS = 2000, ZOMBIE_MS = 60000, REST_MS = 100 };
enum { TRACE_EVENTS = 200, TRACE_BYTES = 2048, TRACE_MS = 100 };

typedef struct watched {
    int fd;
    unsigned want; // RTPUSH_READ, RTPUSH_WRITE or both; 0: it is in no poller, so that a hang-up cannot make it spin
    void (*ready)(struct watched *w, unsigned ready);
} watched;

static int poller = -1;
static struct { watched *watched; unsigned ready; } ready_list[READY_MAX];

#ifdef __linux__
static bool poller_open(void) { return (poller = epoll_create1(EPOLL_CLOEXEC)) >= 0; }

static bool watch(watched *w, unsigned want) {
    struct epoll_event event;
    int verb = !want ? EPOLL_CTL_DEL : w->want ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (want == w->want) return true;
    memset(&event, 0, sizeof event);
    event.events = (want & RTPUSH_READ ? (unsigned)EPOLLIN : 0) | (want & RTPUSH_WRITE ? (unsigned)EPOLLOUT : 0);
    event.data.ptr = w;
    w->want = want;
    return !epoll_ctl(poller, verb, w->fd, &event);
}

// An error or a hang-up makes all ready that is wanted: the read or write then says what it is.
static int poller_wait(int timeout_ms) {
    struct epoll_event events[READY_MAX];
    int n = epoll_wait(poller, events, READY_MAX, timeout_ms);
    for (int i = 0; i < n; i++) {
        unsigned bits = events[i].events, broken = bits & (EPOLLERR | EPOLLHUP);
        ready_list[i].watched = (watched *)events[i].data.ptr;
        ready_list[i].ready = ((bits & EPOLLIN) | broken ? RTPUSH_READ : 0) | ((bits & EPOLLOUT) | broken ? RTPUSH_WRITE : 0);
        ready_list[i].ready &= ready_list[i].watched->want;
    }
    return n;
}
#else
static bool poller_open(void) { return (poller = kqueue()) >= 0; }

static bool watch(watched *w, unsigned want) {
    static const struct { unsigned bit; short filter; } filters[] = {{RTPUSH_READ, EVFILT_READ}, {RTPUSH_WRITE, EVFILT_WRITE}};
    struct kevent changes[2];
    int n = 0;
    for (int i = 0; i < 2; i++) {
        if (!((want ^ w->want) & filters[i].bit)) continue;
        EV_SET(&changes[n], (uintptr_t)w->fd, filters[i].filter, want & filters[i].bit ? EV_ADD : EV_DELETE, 0, 0, w);
        n++;
    }
    w->want = want;
    return kevent(poller, changes, n, NULL, 0, NULL) >= 0;
}

static int poller_wait(int timeout_ms) {
    struct kevent events[READY_MAX];
    struct timespec timeout;
    timeout.tv_sec = timeout_ms / 1000;
    timeout.tv_nsec = timeout_ms % 1000 * 1000000L;
    int n = kevent(poller, NULL, 0, events, READY_MAX, timeout_ms < 0 ? NULL : &timeout);
    for (int i = 0; i < n; i++) {
        ready_list[i].watched = (watched *)events[i].udata;
        ready_list[i].ready = events[i].filter == EVFILT_READ ? RTPUSH_READ : RTPUSH_WRITE;
    }
    return n;
}
#endif

// --- connections ---

typedef struct chunk {
    struct chunk *next;
    uint64_t due;
    size_t size, at; // size 0: the end
    unsigned char data[1];
} chunk;

enum { CLIENT, LANE };

// One of a connection's two sockets, and the queue of what is on its way to it.
typedef struct side {
    watched watched;
    struct conn *conn;
    bool is_open;  // connected
    bool is_ended; // nothing more comes from it
    bool is_full;  // its socket takes no more now
    chunk *first, *last;
    size_t queued;
} side;

typedef struct conn {
    struct conn *next, *prev; // of all; a dead one's next is the next dead
    lane *lane;
    uint64_t number;
    side side[2];
    uint64_t touched;  // when bytes passed last
    uint64_t wake;     // when to look at it again; UINT64_MAX: when a socket is ready
    uint64_t deadline; // when it is cut; UINT64_MAX: never
    uint64_t retry;    // when to try again to reach the lane; 0: not
    double allowance;  // bytes that the throttle allows
    uint64_t filled;   // when it was filled up last
    bool is_traced, has_spoken, is_events, is_flowing, is_forgotten, is_refused, is_dead;
} conn;

typedef struct door { // where connections of a lane come in
    watched watched;
    lane *lane;
} door;

static struct {
    pthread_t thread;
    int wake[2];

    pthread_mutex_t lock;
    unsigned to_cut; // by lane, a bit each
    bool is_over, is_changed;

    // its own thread's
    watched waker;
    door doors[LANES];
    settings set;
    conn all, *dead; // all: the head of a ring
    uint64_t now, next_wake, resume_at, numbers; // resume_at: when the doors open again; 0: they are open
    unsigned char buffer[READ_MAX];
    text trace;
    unsigned traced, untraced;
    uint64_t trace_at;
} proxy = {.lock = PTHREAD_MUTEX_INITIALIZER};

static loop control; // the main thread's hub

static void proxy_wake(void) {
    ssize_t n = write(proxy.wake[1], "", 1); // a full pipe wakes, too
    (void)n;
}

static void carry(conn *c, uint64_t up, uint64_t down, uint64_t swallowed) {
    pthread_mutex_lock(&proxy.lock);
    c->lane->carried.up += up;
    c->lane->carried.down += down;
    c->lane->carried.swallowed += swallowed;
    pthread_mutex_unlock(&proxy.lock);
}

// --- the trace: what the page's own connections carry ---

static void trace(conn *c, const char *dir, const char *way, const unsigned char *data, size_t size) {
    if (!c->is_traced) return;
    if (proxy.traced == TRACE_EVENTS) { proxy.untraced++; return; }
    say(&proxy.trace, "%s{\"us\":%llu,\"lane\":\"%s\",\"conn\":%llu,\"dir\":\"%s\",", proxy.traced++ ? "}," : "{\"events\":[",
        (unsigned long long)wall_us(), c->lane->name, (unsigned long long)c->number, dir);
    if (*way) say(&proxy.trace, "\"way\":\"%s\",", way);
    say(&proxy.trace, "\"size\":%zu,\"data\":\"", size);
    say_base64(&proxy.trace, data, size < TRACE_BYTES ? size : TRACE_BYTES);
    say(&proxy.trace, "\"");
}

static void publish_json(rtpush_hub *hub, const char *topic, const text *t) {
    rtpush_publication what;
    memset(&what, 0, sizeof what);
    what.topic = topic;
    what.data = t->data;
    what.size = t->size;
    what.kind = RTPUSH_JSON;
    what.ephemeral = true;
    if (!t->is_broken) rtpush_publish_ex(hub, &what, NULL);
}

static void trace_publish(rtpush_hub *hub, void *arg) {
    text *t = (text *)arg;
    publish_json(hub, "trace", t);
    free(t->data);
    free(t);
}

static void trace_flush(void) {
    if (!proxy.traced || proxy.now < proxy.trace_at) return;
    if (proxy.untraced) say(&proxy.trace, ",\"more\":%u", proxy.untraced);
    say(&proxy.trace, "}]}");
    text *t = (text *)malloc(sizeof *t);
    pthread_mutex_lock(&control.lock);
    if (t) *t = proxy.trace;
    bool is_posted = t && control.hub && !rtpush_post(control.hub, trace_publish, t);
    pthread_mutex_unlock(&control.lock);
    if (!is_posted) free(proxy.trace.data), free(t);
    memset(&proxy.trace, 0, sizeof proxy.trace);
    proxy.traced = proxy.untraced = 0;
    proxy.trace_at = proxy.now + TRACE_MS;
}

// --- the end of a side, and of a connection ---

static void side_clear(side *s) {
    for (chunk *k = s->first, *next; k; k = next) {
        next = k->next;
        free(k);
    }
    s->first = s->last = NULL;
    s->queued = 0;
}

static void side_close(side *s, bool is_reset) {
    struct linger at_once = {1, 0};
    if (s->watched.fd < 0) return;
    watch(&s->watched, 0);
    if (is_reset) setsockopt(s->watched.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once); // the close sends RST
    close(s->watched.fd);
    s->watched.fd = -1;
    s->is_open = false;
    s->is_ended = true;
}

// It is freed when all that is ready has been handled: there may be more of it in the list.
static void conn_drop(conn *c, bool is_reset, const char *why) {
    if (c->is_dead) return;
    trace(c, why, "", NULL, 0);
    for (int i = 0; i < 2; i++) side_close(&c->side[i], is_reset), side_clear(&c->side[i]);
    c->prev->next = c->next;
    c->next->prev = c->prev;
    c->is_dead = true;
    c->next = proxy.dead;
    proxy.dead = c;
    pthread_mutex_lock(&proxy.lock);
    c->lane->carried.connections--;
    pthread_mutex_unlock(&proxy.lock);
}

static void conn_wake_at(conn *c, uint64_t at) {
    if (at < c->wake) c->wake = at;
}

// --- queues ---

static bool side_put(side *s, const void *data, size_t size) {
    chunk *k = (chunk *)malloc(sizeof *k + size);
    if (!k) return false;
    k->next = NULL;
    k->due = proxy.now + proxy.set.latency;
    if (s->last && k->due < s->last->due) k->due = s->last->due; // the latency is less now, the order stays
    k->size = size;
    k->at = 0;
    if (size) memcpy(k->data, data, size);
    if (s->last) s->last->next = k;
    else s->first = k;
    s->last = k;
    s->queued += size;
    return true;
}

static void side_pop(side *s) {
    chunk *k = s->first;
    s->first = k->next;
    if (!k->next) s->last = NULL;
    free(k);
}

// The middlebox that gathers an event stream: nothing goes on before there is enough, or the end.
static bool is_held(conn *c, const side *s) {
    if (s != &c->side[CLIENT] || !proxy.set.buffer || !c->is_events) return false;
    if (s->queued >= HELD_MAX || s->last->size == 0) c->is_flowing = true;
    return !c->is_flowing;
}

// How much of so many bytes may go down now; 0: none before conn.wake.
static size_t throttled(conn *c, const side *s, size_t size) {
    double rate = (double)proxy.set.throttle, least = lower((double)size, upper(rate / 20, 1));
    if (!proxy.set.throttle || s != &c->side[CLIENT]) return size;
    c->allowance = lower(c->allowance + (double)(proxy.now - c->filled) * rate / 1000, upper(rate / 10, least));
    c->filled = proxy.now;
    if (c->allowance < least) {
        conn_wake_at(c, proxy.now + 1 + (uint64_t)((least - c->allowance) * 1000 / rate));
        return 0;
    }
    size = (double)size < c->allowance ? size : (size_t)c->allowance;
    c->allowance -= (double)size;
    return size;
}

// Sends what may go. false: the connection broke.
static bool side_flush(conn *c, side *s) {
    while (s->first && s->is_open && !s->is_full) {
        chunk *k = s->first;
        if (k->due > proxy.now) { conn_wake_at(c, k->due); return true; }
        if (is_held(c, s)) return true;
        if (!k->size) { shutdown(s->watched.fd, SHUT_WR), side_pop(s); continue; }
        size_t size = throttled(c, s, k->size - k->at);
        if (!size) return true;
        ssize_t n = send(s->watched.fd, k->data + k->at, size, 0);
        if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) return false;
        if (n < (ssize_t)size) s->is_full = true;
        if (n <= 0) continue;
        if (s == &c->side[LANE]) carry(c, (uint64_t)n, 0, 0);
        s->queued -= (size_t)n;
        if ((k->at += (size_t)n) == k->size) side_pop(s);
    }
    if (!s->first) c->is_flowing = false;
    return true;
}

// --- the way to the lane ---

static int lane_socket(const lane *l) {
    struct sockaddr_storage to = near_address;
    int fd = socket(to.ss_family, SOCK_STREAM, 0);
    if (fd < 0) return -1;
    *port_of(&to) = htons((uint16_t)l->direct);
    set_option(fd, SOL_SOCKET, SO_RCVBUF, BUFFER_BYTES);
    set_option(fd, IPPROTO_TCP, TCP_MAXSEG, 1460);
    socket_prepare(fd);
    if (!connect(fd, (struct sockaddr *)(void *)&to, address_size) || errno == EINPROGRESS) return fd;
    close(fd);
    return -1;
}

// The lane is not to be reached. In a deploy, which a balancer knows of, who comes is held until there is a server again;
// else the connection is closed.
static bool conn_refused(conn *c) {
    pthread_mutex_lock(&c->lane->loop.lock);
    bool is_draining = c->lane->is_draining;
    pthread_mutex_unlock(&c->lane->loop.lock);
    side_close(&c->side[LANE], false);
    c->side[LANE].is_ended = false;
    if (!is_draining) return false;
    c->retry = proxy.now + 100;
    return true;
}

static bool conn_connect(conn *c) {
    c->retry = 0;
    c->side[LANE].watched.fd = lane_socket(c->lane);
    return c->side[LANE].watched.fd >= 0 || conn_refused(c);
}

static bool conn_connected(conn *c) {
    int error = 0;
    socklen_t size = sizeof error;
    side *s = &c->side[LANE];
    getsockopt(s->watched.fd, SOL_SOCKET, SO_ERROR, &error, &size);
    s->is_open = !error;
    return !error || conn_refused(c);
}

// --- what passes ---

// Is this line part of the head that the bytes begin with?
static bool head_has(const unsigned char *data, size_t size, const char *line) {
    size_t n = strlen(line);
    for (size_t i = 0; i + n <= size; i++) {
        if (i + 4 <= size && !memcmp(data + i, "\r\n\r\n", 4)) return false;
        if (!strncasecmp((const char *)data + i, line, n)) return true;
    }
    return false;
}

static bool begins(const unsigned char *data, size_t size, const char *with) {
    return size >= strlen(with) && !memcmp(data, with, strlen(with));
}

static bool line_has(const unsigned char *data, size_t size, const char *word) {
    const unsigned char *end = (const unsigned char *)memchr(data, '\r', size);
    return end && head_has(data, (size_t)(end - data), word);
}

// NAT: who was silent too long is forgotten. What was on its way is lost, too; nobody is told.
static bool conn_is_forgotten(conn *c) {
    bool is_late = proxy.set.nat && c->has_spoken && proxy.now - c->touched >= proxy.set.nat * 1000;
    if (is_late && !c->is_forgotten) side_clear(&c->side[CLIENT]), side_clear(&c->side[LANE]), c->is_forgotten = true;
    return c->is_forgotten;
}

// The middlebox that knows no WebSocket answers by itself.
static bool conn_refuse_upgrade(conn *c) {
    static const char answer[] = "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 32\r\nConnection: close\r\n\r\n"
                                 "This middlebox knows no Upgrade\n";
    c->is_refused = true;
    c->deadline = proxy.now + LINGER_MS;
    trace(c, "down", "", (const unsigned char *)answer, sizeof answer - 1);
    return side_put(&c->side[CLIENT], answer, sizeof answer - 1) && side_put(&c->side[CLIENT], NULL, 0);
}

// Bytes from a client. false: no memory, or no way to the lane.
static bool conn_up(conn *c, const unsigned char *data, size_t size) {
    if (!c->has_spoken) {
        c->has_spoken = true;
        c->deadline = UINT64_MAX;
        c->is_traced = line_has(data, size, "watch=1");
        trace(c, "open", "", NULL, 0);
    }
    trace(c, "up", "", data, size);
    if (proxy.set.block && begins(data, size, "GET ") && head_has(data, size, "\nUpgrade: websocket")) return conn_refuse_upgrade(c);
    if (c->side[LANE].watched.fd < 0 && !c->retry && !conn_connect(c)) return false;
    return side_put(&c->side[LANE], data, size);
}

// Bytes from a lane.
static bool conn_down(conn *c, const unsigned char *data, size_t size) {
    if (begins(data, size, "HTTP/1.1 ")) c->is_events = head_has(data, size, "\nContent-Type: text/event-stream");
    carry(c, 0, size, 0);
    trace(c, "down", "", data, size);
    return side_put(&c->side[CLIENT], data, size);
}

static bool conn_pass(conn *c, side *from, size_t size) {
    bool is_up = from == &c->side[CLIENT];
    if (c->is_refused) return true; // it has its answer
    if (conn_is_forgotten(c)) {
        trace(c, "swallowed", is_up ? "up" : "down", proxy.buffer, size);
        carry(c, 0, is_up ? 0 : size, size);
        return true;
    }
    c->touched = proxy.now;
    return is_up ? conn_up(c, proxy.buffer, size) : conn_down(c, proxy.buffer, size);
}

// A side has ended. What NAT has forgotten ends on this side alone; the other one lives on until it gives up, as TCP
// would by itself after a quarter of an hour.
static bool side_ended(conn *c, side *s, bool is_broken) {
    if (conn_is_forgotten(c)) {
        side_close(s, false);
        if (c->deadline == UINT64_MAX) c->deadline = proxy.now + ZOMBIE_MS;
        return c->side[CLIENT].watched.fd >= 0 || c->side[LANE].watched.fd >= 0;
    }
    side *other = &c->side[s == &c->side[CLIENT] ? LANE : CLIENT];
    s->is_ended = true;
    if (is_broken || (s == &c->side[CLIENT] && other->watched.fd < 0 && !c->retry)) return false;
    return side_put(other, NULL, 0);
}

// false: the connection is over.
static bool side_receive(conn *c, side *s) {
    ssize_t n = recv(s->watched.fd, proxy.buffer, sizeof proxy.buffer, 0);
    if (n > 0) return conn_pass(c, s, (size_t)n);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return true;
    return side_ended(c, s, n < 0);
}

// --- one connection's turn ---

static unsigned side_wants(const conn *c, const side *s) {
    const side *other = &c->side[s == &c->side[CLIENT] ? LANE : CLIENT];
    size_t most = proxy.set.throttle ? SLOW_QUEUE_MAX : proxy.set.latency ? LATE_QUEUE_MAX : QUEUE_MAX;
    if (s->watched.fd < 0) return 0;
    if (!s->is_open) return RTPUSH_WRITE; // it is connecting
    bool may_read = !s->is_ended && (other->queued < most || c->is_forgotten);
    return (may_read ? RTPUSH_READ : 0) | (s->is_full ? RTPUSH_WRITE : 0);
}

static bool conn_is_over(const conn *c) {
    bool is_silent = c->side[CLIENT].is_ended && !c->side[CLIENT].first;
    return !c->is_forgotten && is_silent && (c->is_refused || (c->side[LANE].is_ended && !c->side[LANE].first));
}

// Who takes nothing, or does not end when the lane has, is not waited for without end.
static void conn_set_deadline(conn *c) {
    bool is_stuck = c->side[CLIENT].is_full || c->side[LANE].is_ended;
    bool is_other = !c->has_spoken || c->is_refused || c->is_forgotten; // those have one of another kind
    if (!is_other && !is_stuck) c->deadline = UINT64_MAX;
    else if (!is_other && c->deadline == UINT64_MAX) c->deadline = proxy.now + ZOMBIE_MS;
    conn_wake_at(c, c->deadline);
}

// After whatever has happened to it.
static void conn_pump(conn *c) {
    if (c->is_dead) return;
    c->wake = UINT64_MAX;
    bool is_well = c->deadline > proxy.now;
    if (is_well && c->retry && c->retry <= proxy.now) is_well = conn_connect(c);
    if (is_well && c->retry) conn_wake_at(c, c->retry);
    for (int i = 0; is_well && i < 2; i++) is_well = side_flush(c, &c->side[i]);
    if (!is_well || conn_is_over(c)) { conn_drop(c, !is_well && c->side[LANE].is_open, "close"); return; }
    conn_set_deadline(c);
    for (int i = 0; i < 2; i++)
        if (!watch(&c->side[i].watched, side_wants(c, &c->side[i]))) { conn_drop(c, true, "close"); return; }
    if (c->wake < proxy.next_wake) proxy.next_wake = c->wake;
}

static void side_ready(watched *w, unsigned ready) {
    side *s = (side *)(void *)w; // its first member
    conn *c = s->conn;
    bool is_well = true;
    if (c->is_dead || w->fd < 0) return;
    if (ready & RTPUSH_WRITE) {
        s->is_full = false;
        if (!s->is_open) is_well = conn_connected(c);
    }
    if (is_well && (ready & RTPUSH_READ) && s->is_open) is_well = side_receive(c, s);
    if (is_well) conn_pump(c);
    else conn_drop(c, c->side[LANE].is_open, "close"); // a reset goes on to both; where no lane was reached it is a plain end
}

// --- new connections ---

static void side_init(side *s, conn *c, int fd) {
    s->watched.fd = fd;
    s->watched.ready = side_ready;
    s->conn = c;
}

static void count_accept(lane *l) {
    uint64_t moment = proxy.now / 100;
    carried *k = &l->carried;
    pthread_mutex_lock(&proxy.lock);
    for (; k->moment < moment; k->accepts[k->moment % SLOTS] = 0) // the slots of the moments between
        if (++k->moment + SLOTS < moment) k->moment = moment - SLOTS;
    k->accepts[moment % SLOTS]++;
    k->connections++;
    pthread_mutex_unlock(&proxy.lock);
}

static bool conn_new(lane *l, int fd) {
    conn *c = (conn *)calloc(1, sizeof *c);
    if (!c) return close(fd), false;
    socket_prepare(fd);
    c->lane = l;
    c->number = ++proxy.numbers;
    c->touched = c->filled = proxy.now;
    c->deadline = proxy.now + SILENT_MS;
    side_init(&c->side[CLIENT], c, fd);
    side_init(&c->side[LANE], c, -1);
    c->side[CLIENT].is_open = true;
    c->next = proxy.all.next;
    c->prev = &proxy.all;
    c->next->prev = c->prev->next = c;
    count_accept(l);
    conn_pump(c);
    return true;
}

static void doors_open(bool is_open) {
    for (int i = 0; i < LANES; i++) watch(&proxy.doors[i].watched, is_open ? RTPUSH_READ : 0);
    proxy.resume_at = is_open ? 0 : proxy.now + REST_MS;
}

// Where descriptors have run out the doors rest: a listener that stays ready must not make the loop spin.
static void door_ready(watched *w, unsigned ready) {
    door *d = (door *)(void *)w;
    (void)ready;
    for (int i = 0; i < READY_MAX; i++) {
        int fd = accept(w->fd, NULL, NULL);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
        if (fd < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
        if (fd < 0 || !conn_new(d->lane, fd)) { doors_open(false); return; }
    }
}

// --- its thread ---

static void waker_ready(watched *w, unsigned ready) {
    char bytes[64];
    (void)ready;
    while (read(w->fd, bytes, sizeof bytes) > 0) {}
}

static void proxy_pump_all(void) {
    proxy.next_wake = UINT64_MAX;
    for (conn *c = proxy.all.next, *next; c != &proxy.all; c = next) {
        next = c->next;
        if (c->wake <= proxy.now) conn_pump(c);
        else if (c->wake < proxy.next_wake) proxy.next_wake = c->wake;
    }
}

// What others have asked for meanwhile. false: the program ends.
static bool proxy_take_orders(void) {
    pthread_mutex_lock(&proxy.lock);
    unsigned to_cut = proxy.to_cut;
    bool is_changed = proxy.is_changed, is_over = proxy.is_over;
    proxy.to_cut = 0;
    proxy.is_changed = false;
    pthread_mutex_unlock(&proxy.lock);
    if (is_changed) proxy.set = settings_now();
    for (conn *c = proxy.all.next, *next; (to_cut || is_changed || is_over) && c != &proxy.all; c = next) {
        next = c->next;
        if (is_over || to_cut >> c->lane->index & 1) conn_drop(c, true, "cut");
        else c->wake = 0; // it looks at the new settings
    }
    if (to_cut || is_changed) proxy.next_wake = 0;
    return !is_over;
}

static int proxy_timeout(void) {
    uint64_t next = proxy.next_wake;
    if (proxy.resume_at && proxy.resume_at < next) next = proxy.resume_at;
    if (proxy.traced && proxy.trace_at < next) next = proxy.trace_at;
    if (next == UINT64_MAX) return -1;
    return next <= proxy.now ? 0 : (int)(next - proxy.now < 60000 ? next - proxy.now : 60000);
}

static void proxy_reap(void) {
    for (conn *c = proxy.dead, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    proxy.dead = NULL;
}

static void *proxy_main(void *arg) {
    (void)arg;
    proxy.next_wake = UINT64_MAX;
    do {
        int n = poller_wait(proxy_timeout());
        proxy.now = now_ms();
        for (int i = 0; i < n; i++) ready_list[i].watched->ready(ready_list[i].watched, ready_list[i].ready);
        if (proxy.resume_at && proxy.resume_at <= proxy.now) doors_open(true);
        if (proxy.next_wake <= proxy.now) proxy_pump_all();
        trace_flush();
        proxy_reap();
    } while (proxy_take_orders());
    proxy_reap();
    free(proxy.trace.data);
    return NULL;
}

static bool proxy_start(void) {
    if (!poller_open() || pipe(proxy.wake)) return false;
    for (int i = 0; i < 2; i++) fcntl(proxy.wake[i], F_SETFL, O_NONBLOCK), fcntl(proxy.wake[i], F_SETFD, FD_CLOEXEC);
    proxy.all.next = proxy.all.prev = &proxy.all;
    proxy.now = now_ms();
    proxy.set = settings_now();
    proxy.waker.fd = proxy.wake[0];
    proxy.waker.ready = waker_ready;
    watch(&proxy.waker, RTPUSH_READ);
    for (int i = 0; i < LANES; i++) {
        door *d = &proxy.doors[i];
        d->lane = &lanes[i];
        d->watched.ready = door_ready;
        if ((d->watched.fd = listen_at(listen_address, address_size, &lanes[i].port)) < 0) return false;
    }
    doors_open(true);
    return !pthread_create(&proxy.thread, NULL, proxy_main, NULL);
}

static void proxy_order(unsigned to_cut, bool is_changed, bool is_over) {
    pthread_mutex_lock(&proxy.lock);
    proxy.to_cut |= to_cut;
    proxy.is_changed |= is_changed;
    proxy.is_over |= is_over;
    pthread_mutex_unlock(&proxy.lock);
    proxy_wake();
}

static void proxy_end(void) {
    proxy_order(0, false, true);
    pthread_join(proxy.thread, NULL);
    for (int i = 0; i < LANES; i++) close(proxy.doors[i].watched.fd);
    close(proxy.wake[0]);
    close(proxy.wake[1]);
    close(poller);
}

// ============================================================================
// clients: up to some thousands a lane, all in one thread with a hub that only connects
//
// Each is the library's own client, that comes back by itself at its cursor. Only where the settings take that from it
// (resume=0, jitter=0) the lab ends it when it has lost its connection, and begins another one in its place.
// ============================================================================

enum { FINE = 16, FINE_BUCKETS = 29 * FINE, BUCKETS = 32, BACKOFF_MS = 1000, BACKOFF_MAX_MS = 4000 };

typedef struct client {
    lane *lane;
    rtpush_client handle; // 0: it has none now
    rtpush_timer timer;   // of its next beginning
    uint64_t last;        // the number it has had last
    uint64_t opened_us;   // when its connection was opened
    char cursor[32];
    bool is_wanted, is_open, was_open, is_gap; // gap: one was told since the last message
    bool knows;           // `last` is good: the next number is known
} client;

typedef struct seen {
    uint64_t want, open, received, lost, gap, doubled, replayed, gaps, reconnects;
    uint64_t count, sum_us, max_us, buckets[BUCKETS], fine[FINE_BUCKETS]; // latency
} seen;

static struct {
    loop loop;
    client list[LANES][CLIENTS_MAX];
    size_t begun[LANES]; // so many of each list are wanted
    seen seen[LANES];
    settings adopted;
    uint64_t chance, reset_us;
    seen told[LANES]; // under loop.lock: what the control thread reads
} crowd;

static void crowd_connect(rtpush_hub *hub, void *arg);

static void client_begin(client *c, uint64_t delay_ms) {
    rtpush_cancel(crowd.loop.hub, c->timer);
    c->timer = rtpush_after(crowd.loop.hub, (int64_t)delay_ms, crowd_connect, c);
}

// Away from its connection, but its place in the log is kept.
static void client_leave(client *c) {
    rtpush_client handle = c->handle;
    char cursor[32];
    if (*rtpush_client_cursor(crowd.loop.hub, handle, cursor)) memcpy(c->cursor, cursor, sizeof cursor);
    c->handle = 0; // what on_state says of it from here on is not news
    c->is_open = false;
    rtpush_cancel(crowd.loop.hub, c->timer);
    rtpush_client_close(crowd.loop.hub, handle, 1000, "");
}

// --- what a client sees ---

// The fine buckets: 16 for each power of two.
static size_t fine_of(uint64_t us) {
    unsigned power = 0;
    if (us < FINE) return (size_t)us;
    while (us >> (power + 5)) power++;
    size_t at = (size_t)(power + 1) * FINE + (size_t)(us >> power & (FINE - 1));
    return at < FINE_BUCKETS ? at : FINE_BUCKETS - 1;
}

static uint64_t fine_middle(size_t at) {
    if (at < FINE) return at;
    unsigned power = (unsigned)(at / FINE - 1);
    return ((uint64_t)(FINE + at % FINE) << power) + ((uint64_t)1 << power) / 2;
}

static void count_latency(seen *s, uint64_t us) {
    unsigned k = 0;
    while (k < BUCKETS - 1 && us >> k) k++;
    s->buckets[k]++;
    s->fine[fine_of(us)]++;
    s->count++;
    s->sum_us += us;
    if (us > s->max_us) s->max_us = us;
}

static void count_number(client *c, seen *s, uint64_t number) {
    uint64_t next = c->last + 1;
    if (c->knows && number < next) { s->doubled++; return; }
    if (c->knows && c->is_gap) s->gap += number - next;
    else if (c->knows) s->lost += number - next;
    c->last = number;
    c->knows = true;
    c->is_gap = false;
}

static uint64_t digits(const char **p, const char *end) {
    uint64_t n = 0;
    for (; *p < end && **p >= '0' && **p <= '9'; ++*p) n = n * 10 + (uint64_t)(**p - '0');
    return n;
}

// {"n":N,"t":T,"pad":"..."}: as the publisher writes it, to the byte.
static void on_message(rtpush_hub *hub, rtpush_client handle, const rtpush_message *m, const char *id, void *user) {
    client *c = (client *)user;
    seen *s = &crowd.seen[c->lane->index];
    const char *p = (const char *)m->data + 5, *end = (const char *)m->data + m->size;
    (void)hub;
    if (handle != c->handle || m->size < 64) return;
    snprintf(c->cursor, sizeof c->cursor, "%s", id);
    uint64_t number = digits(&p, end), now = wall_us();
    p += 5;
    uint64_t published_us = digits(&p, end);
    s->received++;
    if (published_us < crowd.reset_us) return; // of before the reset: it has no number in what is counted now
    s->replayed += published_us < c->opened_us;
    count_number(c, s, number);
    count_latency(s, now > published_us ? now - published_us : 0);
}

static void on_gap(rtpush_hub *hub, rtpush_client handle, const char *from, const char *to, const char *reason, void *user) {
    client *c = (client *)user;
    (void)hub, (void)from, (void)to, (void)reason;
    if (handle != c->handle) return;
    c->is_gap = true;
    crowd.seen[c->lane->index].gaps++;
}

static void client_opened(client *c) {
    c->is_open = true;
    c->opened_us = wall_us();
    crowd.seen[c->lane->index].reconnects += c->was_open;
    c->was_open = true;
}

static void on_state(rtpush_hub *hub, rtpush_client handle, const rtpush_client_status *status, void *user) {
    client *c = (client *)user;
    settings s;
    (void)hub;
    if (handle != c->handle) return;
    c->is_open = false;
    switch (status->state) {
    case RTPUSH_CLIENT_OPEN: client_opened(c); break;
    case RTPUSH_CLIENT_WAITING:
        s = settings_now();
        if (s.jitter && s.resume) break; // the library's own way
        client_leave(c);
        if (!s.resume) c->cursor[0] = 0;
        client_begin(c, s.jitter ? (uint64_t)status->delay_ms : BACKOFF_MS);
        break;
    case RTPUSH_CLIENT_CLOSED: // it was refused (403): it tries again all the same
        c->handle = 0;
        if (!settings_now().resume) c->cursor[0] = 0;
        client_begin(c, 1000 + chance(&crowd.chance, 2000));
        break;
    default: break;
    }
}

static void crowd_connect(rtpush_hub *hub, void *arg) {
    client *c = (client *)arg;
    const settings *s = &crowd.adopted;
    rtpush_client_desc desc;
    char url[160];
    memset(&desc, 0, sizeof desc);
    snprintf(url, sizeof url, "http://%s:%d/live/lab", near_host, c->lane->port);
    c->timer = 0;
    desc.url = url;
    desc.transports = c->lane->index == WS && s->fallback ? "websocket,sse,longpoll,shortpoll" : c->lane->transports;
    desc.since = *c->cursor ? c->cursor : "latest";
    desc.interval_ms = (int64_t)s->interval;
    desc.wait_ms = (int64_t)s->wait;
    desc.silence_ms = 2 * (int64_t)s->heartbeat;
    desc.backoff_ms = BACKOFF_MS; // a random time below it, where jitter=0 has just this one
    desc.backoff_max_ms = BACKOFF_MAX_MS;
    desc.remember_ms = 10000;     // so that it soon tries again what was blocked
    desc.user = c;
    desc.on_message = on_message;
    desc.on_gap = on_gap;
    desc.on_state = on_state;
    if (!(c->handle = rtpush_connect(hub, &desc))) client_begin(c, 1000);
}

// --- how many there are ---

// When it comes: those that poll at a random moment of the interval, so that their polls are spread over it as those of
// strangers are; others within a second for each thousand.
static uint64_t crowd_delay(int index, size_t want) {
    return chance(&crowd.chance, 1 + (index == SHORT ? crowd.adopted.interval : want));
}

static void crowd_set(int index, size_t want, bool is_renewed) {
    client *list = crowd.list[index];
    for (size_t i = 0; is_renewed && i < crowd.begun[index] && i < want; i++) {
        client_leave(&list[i]);
        list[i].was_open = false;
        client_begin(&list[i], crowd_delay(index, want));
    }
    while (crowd.begun[index] > want) client_leave(&list[--crowd.begun[index]]);
    while (crowd.begun[index] < want) {
        client *c = &list[crowd.begun[index]++];
        memset(c, 0, sizeof *c);
        c->lane = &lanes[index];
        client_begin(c, crowd_delay(index, want));
    }
}

static void crowd_adopt(rtpush_hub *hub, void *arg) {
    settings was = crowd.adopted, s = settings_now();
    bool is_interval = was.interval != s.interval, is_wait = was.wait != s.wait, is_heartbeat = was.heartbeat != s.heartbeat;
    bool is_ws = is_heartbeat || was.fallback != s.fallback || (s.fallback && (is_interval || is_wait));
    (void)hub, (void)arg;
    crowd.adopted = s;
    crowd_set(SHORT, (size_t)s.clients_short, is_interval);
    crowd_set(LONG, (size_t)s.clients_long, is_wait);
    crowd_set(SSE, (size_t)s.clients_sse, is_heartbeat);
    crowd_set(WS, (size_t)s.clients_ws, is_ws);
}

static void crowd_answer(rtpush_hub *hub, void *arg) {
    (void)hub, (void)arg;
    for (int k = 0; k < LANES; k++) {
        seen *s = &crowd.seen[k];
        s->want = crowd.begun[k];
        s->open = 0;
        for (size_t i = 0; i < crowd.begun[k]; i++) s->open += crowd.list[k][i].is_open;
    }
    pthread_mutex_lock(&crowd.loop.lock);
    memcpy(crowd.told, crowd.seen, sizeof crowd.told);
    pthread_mutex_unlock(&crowd.loop.lock);
    loop_answer(&crowd.loop);
}

// All numbers begin anew: who was there before expects the number 1 next.
static void crowd_reset(rtpush_hub *hub, void *arg) {
    (void)hub;
    memset(crowd.seen, 0, sizeof crowd.seen);
    memcpy(&crowd.reset_us, arg, sizeof crowd.reset_us);
    for (int k = 0; k < LANES; k++)
        for (size_t i = 0; i < crowd.begun[k]; i++) crowd.list[k][i].last = 0, crowd.list[k][i].knows = crowd.list[k][i].was_open;
    loop_answer(&crowd.loop);
}

static void *crowd_main(void *arg) {
    (void)arg;
    rtpush_run(crowd.loop.hub);
    return NULL;
}

static bool crowd_start(void) {
    rtpush_desc desc; // no listener: a loop alone
    memset(&desc, 0, sizeof desc);
    loop_init(&crowd.loop);
    crowd.chance = wall_us();
    crowd.adopted = settings_now();
    crowd.loop.hub = rtpush_create(&desc);
    return crowd.loop.hub && !pthread_create(&crowd.loop.thread, NULL, crowd_main, NULL);
}

static void crowd_end(void) {
    loop_end(&crowd.loop);
    for (int k = 0; k < LANES; k++)
        for (size_t i = 0; i < CLIENTS_MAX; i++) crowd.list[k][i].handle = 0; // their end is no news
    rtpush_destroy(crowd.loop.hub);
}

// ============================================================================
// publisher: so many a second, each time so many at once
// ============================================================================

static struct {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t number; // of the last message since the reset
    bool is_over;
} publisher = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

// With the lock held. A message has exactly `size` bytes.
static void publish_burst(const settings *s) {
    char data[MESSAGE_MAX + 1];
    size_t size = (size_t)s->size;
    for (int i = 0; i < (int)s->burst; i++) {
        uint64_t us = wall_us();
        unsigned long long number = publisher.number + 1;
        int n = snprintf(data, sizeof data, "{\"n\":%llu,\"t\":%llu,\"pad\":\"", number, (unsigned long long)us);
        memset(data + n, 'x', size - (size_t)n - 2);
        memcpy(data + size - 2, "\"}", 2);
        if (log_append(data, size, us)) publisher.number++;
    }
    bus_tell();
}

static void *publisher_main(void *arg) {
    uint64_t rate = 0;
    double next = 0;
    (void)arg;
    pthread_mutex_lock(&publisher.lock);
    while (!publisher.is_over) {
        settings s = settings_now();
        double now = (double)now_us() / 1e6;
        if (s.rate != rate) rate = s.rate, next = now + 1000 / upper((double)rate, 1);
        if (!rate) {
            pthread_cond_wait(&publisher.changed, &publisher.lock);
        } else {
            if (now >= next) publish_burst(&s), next = upper(next + 1000 / (double)rate, now - 0.1); // far behind: it is left out
            // At least for a moment, for others want the lock, too.
            wait_at_most(&publisher.changed, &publisher.lock, (uint64_t)(lower(upper(next - now, 0), 1) * 1e6) + 100);
        }
    }
    pthread_mutex_unlock(&publisher.lock);
    return NULL;
}

static void publisher_end(void) {
    pthread_mutex_lock(&publisher.lock);
    publisher.is_over = true;
    pthread_cond_signal(&publisher.changed);
    pthread_mutex_unlock(&publisher.lock);
    pthread_join(publisher.thread, NULL);
}

// ============================================================================
// control: the page, the settings, the figures. The main thread.
// ============================================================================

// <page>
static const char *const lab_page[] = {
    "<!doctype html>\n",
    "<html lang=\"en\">\n",
    "<head>\n",
    "<meta charset=\"utf-8\">\n",
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1, viewport-fit=cover\">\n",
    "<title>rtpush transport lab</title>\n",
    "<link rel=\"icon\" href=\"data:,\">\n",
    "<style>\n",
    ":root { color-scheme: light dark; --bg: #f3f4f7; --panel: #fff; --ink: #18202c; --soft: #545f70; --line: #d5dae2;\n",
    "  --fill: #e9ecf1; --accent: #1f4fd0; --bad: #b3202a; --good: #0a7040; --rest: #8792a3;\n",
    "  --short: #b54700; --long: #9c3f86; --sse: #00755a; --ws: #0065a8; }\n",
    "@media (prefers-color-scheme: dark) {\n",
    "  :root { --bg: #10141b; --panel: #181e28; --ink: #e8ecf3; --soft: #a3aebf; --line: #2f3847;\n",
    "    --fill: #242c39; --accent: #91b2ff; --bad: #ff8d8d; --good: #58d795; --rest: #7d899b;\n",
    "    --short: #ff9c55; --long: #ee9ddb; --sse: #4cd6ac; --ws: #6cbcff; } }\n",
    "* { box-sizing: border-box; margin: 0; }\n",
    "[hidden] { display: none !important; }\n",
    "body { background: var(--bg); color: var(--ink); padding: 1rem 1.5rem 3rem; max-width: 118rem; margin: 0 auto;\n",
    "  font: 17px/1.45 system-ui, -apple-system, \"Segoe UI\", Roboto, \"Liberation Sans\", sans-serif; }\n",
    "h1 { font-size: 1.6rem; letter-spacing: -.02em; }\n",
    "h2 { font-size: 1.2rem; letter-spacing: -.01em; }\n",
    "h3 { font-size: 1rem; }\n",
    "small, .small { font-size: .82rem; color: var(--soft); }\n",
    "a { color: var(--accent); }\n",
    "button, input, select { font: inherit; color: inherit; background: var(--panel); border: 1px solid var(--rest);\n",
    "  border-radius: .5rem; padding: .3rem .6rem; min-height: 2.3rem; }\n",
    "button { cursor: pointer; } button:hover:not(:disabled) { border-color: var(--accent); color: var(--accent); }\n",
    "button:disabled { opacity: .5; cursor: default; }\n",
    "button.main { background: var(--accent); color: var(--panel); border-color: var(--accent); font-weight: 600; }\n",
    "button.main:hover:not(:disabled) { color: var(--panel); filter: brightness(1.1); }\n",
    ":focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }\n",
    "input[type=checkbox], input[type=radio] { min-height: 0; width: 1.15rem; height: 1.15rem; accent-color: var(--accent); vertical-align: -.2rem; }\n",
    "summary { cursor: pointer; }\n",
    ".panel { background: var(--panel); border: 1px solid var(--line); border-radius: .8rem; padding: .9rem 1.1rem; margin-top: 1rem; }\n",
    ".hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }\n",
    ".row { display: flex; flex-wrap: wrap; gap: .5rem .7rem; align-items: center; }\n",
    "table { border-collapse: collapse; font-variant-numeric: tabular-nums; }\n",
    "th, td { text-align: left; padding: .2rem .6rem .2rem 0; vertical-align: top; }\n",
    "th { font-weight: 600; }\n",
    "[data-of=short] { --c: var(--short); } [data-of=long] { --c: var(--long); }\n",
    "[data-of=sse] { --c: var(--sse); } [data-of=ws] { --c: var(--ws); }\n",
    "\n",
    "body > header { display: flex; flex-wrap: wrap; gap: .3rem 1.5rem; align-items: baseline; }\n",
    "body > header p { color: var(--soft); flex: 1 1 22rem; }\n",
    "#status { flex: 0 1 auto; min-height: 1.4em; }\n",
    "#status.bad { color: var(--bad); }\n",
    "\n",
    "/* lessons */\n",
    "#lessons { display: grid; grid-template-columns: repeat(4, 1fr); gap: .5rem; list-style: none; padding: 0; margin-top: .8rem; }\n",
    "#lessons button { width: 100%; height: 100%; text-align: left; display: flex; gap: .6rem; align-items: center; line-height: 1.2; }\n",
    "#lessons b { display: inline-grid; place-items: center; flex: none; width: 1.7rem; height: 1.7rem; border-radius: 50%;\n",
    "  background: var(--fill); color: var(--ink); }\n",
    "#lessons [aria-pressed=true] { border-color: var(--accent); box-shadow: inset 0 0 0 1px var(--accent); }\n",
    "#lessons [aria-pressed=true] b { background: var(--accent); color: var(--panel); }\n",
    "@media (min-width: 100rem) { #lessons { grid-template-columns: repeat(8, 1fr); } }\n",
    "#lesson { border-left: .4rem solid var(--accent); } #lesson > p, #lesson form { max-width: 62rem; }\n",
    "#lesson .question { font-size: 1.25rem; font-weight: 600; line-height: 1.3; margin: .5rem 0; }\n",
    "#lesson form { display: grid; gap: .6rem; margin-top: .4rem; }\n",
    "#lesson .choice { display: flex; gap: .5rem 1.4rem; flex-wrap: wrap; border: 0; padding: 0; }\n",
    "#lesson input[type=number] { width: 8rem; font-size: 1.2rem; } #lesson progress { width: 100%; height: .9rem; accent-color: var(--accent); }\n",
    "#verdict { display: grid; grid-template-columns: repeat(3, minmax(0, 15rem)); gap: .7rem; margin: .7rem 0; }\n",
    "#verdict div { background: var(--fill); border-radius: .6rem; padding: .5rem .8rem; }\n",
    "#verdict b { display: block; font-size: 1.7rem; line-height: 1.2; overflow-wrap: anywhere; }\n",
    "#verdict div:last-child { background: var(--accent); color: var(--panel); } #verdict div:last-child :is(span, small) { color: inherit; }\n",
    "#verdict small { font-size: 1rem; font-weight: 400; }\n",
    "#rows th { font-weight: 400; padding-right: 1.5rem; } #rows thead th { color: var(--soft); font-size: .85rem; }\n",
    "#rows td { padding-right: 1.5rem; } #rows tr + tr > * , #rows tbody tr:first-child > * { border-top: 1px solid var(--line); }\n",
    "#conclusion { font-size: 1.1rem; margin-top: .7rem; }\n",
    "#charts { display: flex; flex-wrap: wrap; gap: .4rem 2rem; margin-top: .7rem; } #charts figure { flex: 1 1 18rem; max-width: 34rem; }\n",
    "#charts svg { width: 100%; display: block; }\n",
    "\n",
    "/* lanes */\n",
    "#lanes { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 1rem; margin-top: 1rem; grid-auto-rows: auto; }\n",
    ".lane { background: var(--panel); border: 1px solid var(--line); border-top: .4rem solid var(--c); border-radius: .8rem;\n",
    "  padding: .7rem 1rem; display: grid; grid-row: span 6; grid-template-rows: subgrid; gap: .6rem; align-content: start; }\n",
    ".lane h2 { color: var(--c); display: flex; gap: .5rem; align-items: center; } .lane h2 svg { width: 1.1rem; height: 1.1rem; flex: none; }\n",
    ".lane .state { min-height: 1.3em; }\n",
    ".hero { display: grid; grid-template-columns: 1fr 1fr; gap: .2rem .8rem; }\n",
    ".hero b { display: block; font-size: 1.75rem; line-height: 1.15; letter-spacing: -.02em; font-variant-numeric: tabular-nums; }\n",
    ".bar { display: flex; height: 1.1rem; background: var(--fill); border-radius: .3rem; overflow: hidden; }\n",
    ".bar i { display: block; height: 100%; } .bar .up { background: repeating-linear-gradient(45deg, var(--rest) 0 4px, var(--fill) 4px 7px); }\n",
    ".bar .head { background: var(--rest); } .bar .load { background: var(--c); }\n",
    ".key { display: flex; flex-wrap: wrap; gap: .1rem .8rem; font-size: .82rem; color: var(--soft); margin-top: .2rem; }\n",
    ".key b { color: var(--ink); font-weight: 600; font-variant-numeric: tabular-nums; }\n",
    ".key i { display: inline-block; width: .75rem; height: .75rem; border-radius: .15rem; vertical-align: -.05rem; margin-right: .25rem; }\n",
    ".key .up { background: repeating-linear-gradient(45deg, var(--rest) 0 3px, var(--fill) 3px 5px); }\n",
    ".key .head { background: var(--rest); } .key .load { background: var(--c); }\n",
    ".histogram svg { width: 100%; display: block; overflow: visible; }\n",
    ".histogram .grid { stroke: var(--line); } .histogram text, #charts text { fill: var(--soft); font-size: 11px; }\n",
    ".histogram .bars { fill: var(--c); opacity: .55; } .histogram .dot { fill: var(--c); stroke: var(--panel); stroke-width: .6; }\n",
    ".histogram .mean { stroke: var(--ink); stroke-width: 2; stroke-dasharray: 4 3; }\n",
    ".lane details { font-size: .85rem; } .lane table { width: 100%; font-size: .88rem; line-height: 1.3; }\n",
    ".lane table th, .lane table td { padding-top: .06rem; padding-bottom: .06rem; }\n",
    ".lane td, .lane thead th { text-align: right; padding-right: 0; padding-left: .5rem; } .lane table th { font-weight: 400; color: var(--soft); }\n",
    ".lane table th:first-child { text-align: left; } .lane td { font-weight: 600; } .lane td.bad { color: var(--bad); }\n",
    ".lane thead th { font-size: .82rem; vertical-align: bottom; }\n",
    ".lane .server { display: grid; grid-template-columns: auto 1fr auto 1fr; gap: .05rem .6rem; font-size: .88rem; line-height: 1.35; }\n",
    ".lane .server dt { color: var(--soft); } .lane .server dd { margin: 0; text-align: right; font-weight: 600; font-variant-numeric: tabular-nums; white-space: nowrap; }\n",
    "#held { display: flex; gap: .8rem; align-items: center; flex-wrap: wrap; margin-top: 1rem; }\n",
    "\n",
    "/* sequence diagram */\n",
    "#sequence .scroll { height: 30rem; overflow-y: auto; overflow-x: hidden; border: 1px solid var(--line); border-radius: .5rem; margin-top: .6rem;\n",
    "  position: relative; scrollbar-gutter: stable; contain: strict; }\n",
    "#heads { position: sticky; top: 0; background: var(--panel); border-bottom: 1px solid var(--line); height: 2.9rem; z-index: 1; }\n",
    "#heads div { position: absolute; transform: translateX(-50%); text-align: center; font-size: .82rem; color: var(--soft); line-height: 1.25; top: .15rem; white-space: nowrap; }\n",
    "#heads strong { color: var(--c); font-size: .95rem; }\n",
    "#diagram { display: block; width: 100%; } #diagram text { font-size: 13px; fill: var(--ink); }\n",
    "#diagram .time { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }\n",
    "#diagram .life { stroke: var(--rest); stroke-width: 1.5; } #diagram .held { fill: var(--c); opacity: .28; }\n",
    "#diagram .arrow line { stroke: var(--c); stroke-width: 2; } #diagram .arrow path { fill: var(--c); }\n",
    "#diagram .arrow.mark path { stroke: var(--bad); stroke-width: 2.5; fill: none; } #diagram .arrow.mark.calm path { stroke: var(--rest); }\n",
    "#diagram .arrow .hit { fill: transparent; } #diagram .arrow { cursor: pointer; outline: none; }\n",
    "#diagram .arrow:hover .hit { fill: var(--fill); opacity: .6; }\n",
    "#diagram .arrow:focus-visible .hit { stroke: var(--accent); stroke-width: 2.5; }\n",
    "\n",
    "/* bytes */\n",
    "dialog { margin: auto; width: min(70rem, 96vw); max-height: 92vh; border: 1px solid var(--rest); border-radius: .8rem; background: var(--panel);\n",
    "  color: var(--ink); padding: 1rem 1.2rem; }\n",
    "dialog::backdrop { background: #0008; } dialog .row { justify-content: space-between; }\n",
    "#parts { width: 100%; margin-top: .6rem; } #parts td, #parts th { border-top: 1px solid var(--line); padding: .3rem .8rem .3rem 0; }\n",
    "#parts code, #hex { font: .85rem/1.4 ui-monospace, \"DejaVu Sans Mono\", monospace; overflow-wrap: anywhere; white-space: pre-wrap; }\n",
    "#parts code { background: var(--fill); border-radius: .25rem; padding: .1rem .3rem; box-decoration-break: clone; -webkit-box-decoration-break: clone; }\n",
    "#parts i { font: 600 .68rem system-ui, sans-serif; color: var(--soft); border: 1px solid var(--rest); border-radius: .2rem; padding: 0 .15rem; margin: 0 .08rem; }\n",
    "#parts td:nth-child(1) { width: 45%; } #parts td:nth-child(4) { white-space: nowrap; color: var(--soft); font-size: .85rem; }\n",
    "#hex { overflow-x: auto; white-space: pre; background: var(--fill); padding: .6rem; border-radius: .5rem; margin-top: .4rem; }\n",
    ".frame { display: flex; flex-wrap: wrap; gap: .5rem .25rem; margin-top: .7rem; }\n",
    ".field { text-align: center; font-size: .78rem; color: var(--soft); } .field span { display: flex; }\n",
    ".field i { font: normal 600 .95rem/1.7rem ui-monospace, \"DejaVu Sans Mono\", monospace; border: 1px solid var(--rest); min-width: 1.35rem; padding: 0 .15rem;\n",
    "  margin-left: -1px; background: var(--panel); color: var(--ink); }\n",
    ".field b { display: block; color: var(--ink); }\n",
    ".field.key i { background: var(--fill); }\n",
    "\n",
    "/* controls */\n",
    "#controls { margin-top: 1rem; } #controls > summary { font-size: 1.2rem; font-weight: 600; }\n",
    "#groups { display: grid; gap: .8rem 1.4rem; grid-template-columns: repeat(auto-fit, minmax(14.2rem, 1fr)); margin-top: .6rem; }\n",
    "fieldset { border: 0; padding: 0; min-width: 0; }\n",
    "legend { font-weight: 600; padding: 0; margin-bottom: .25rem; }\n",
    "#groups fieldset { display: grid; grid-template-columns: 1fr 6.4rem; gap: .3rem .6rem; align-items: center; align-content: start; }\n",
    "#groups fieldset legend { grid-column: 1 / -1; } #groups label { font-size: .92rem; line-height: 1.2; }\n",
    "#groups input[type=number], #groups select { width: 100%; min-height: 2rem; padding: .1rem .4rem; }\n",
    "#groups label.check { grid-column: 1 / -1; display: flex; gap: .5rem; align-items: baseline; }\n",
    "\n",
    "@media (max-width: 75rem) { #lanes { grid-template-columns: 1fr 1fr; } }\n",
    "@media (max-width: 48rem) {\n",
    "  body { padding: .8rem .7rem 2rem; font-size: 16px; }\n",
    "  #lessons { grid-template-columns: 1fr 1fr; gap: .4rem; }\n",
    "  #lessons button { font-size: .88rem; padding: .3rem .4rem; gap: .4rem; }\n",
    "  #lessons b { width: 1.4rem; height: 1.4rem; }\n",
    "  #lanes { grid-template-columns: minmax(0, 1fr); }\n",
    "  .panel, .lane { padding: .7rem .8rem; }\n",
    "  #verdict { grid-template-columns: 1fr 1fr; } #verdict div:last-child { grid-column: 1 / -1; }\n",
    "  #rows thead { display: none; } #rows tr { display: grid; grid-template-columns: 1fr 1fr; padding: .3rem 0; border-top: 1px solid var(--line); }\n",
    "  #rows td .small { display: block; line-height: 1.25; }\n",
    "  #status { min-height: 0; }\n",
    "  #rows th { grid-column: 1 / -1; } #rows tr > * { border: 0 !important; }\n",
    "  #rows td::before { content: attr(data-as) \" \"; color: var(--soft); font-size: .82rem; }\n",
    "  #parts thead { display: none; } #parts tr { display: grid; border-top: 1px solid var(--line); padding: .4rem 0; }\n",
    "  #parts td, #parts th { border: 0; padding: .05rem 0; } #parts td:nth-child(1) { width: auto; }\n",
    "}\n",
    "</style>\n",
    "</head>\n",
    "<body>\n",
    "<header>\n",
    "  <h1>Transport lab</h1>\n",
    "  <p>Four ways to read one log. Each lane is a real connection of this browser; all bytes are counted.</p>\n",
    "  <p id=\"status\" role=\"status\"></p>\n",
    "</header>\n",
    "\n",
    "<nav aria-label=\"Lessons\"><ol id=\"lessons\"></ol></nav>\n",
    "\n",
    "<section id=\"lesson\" class=\"panel\" aria-labelledby=\"lesson-title\" hidden>\n",
    "  <h2 id=\"lesson-title\" tabindex=\"-1\"></h2>\n",
    "  <p id=\"lesson-about\"></p>\n",
    "  <p class=\"question\" id=\"lesson-question\"></p>\n",
    "  <form id=\"lesson-form\">\n",
    "    <div id=\"lesson-guess\"></div>\n",
    "    <div class=\"row\"><button class=\"main\" id=\"lesson-run\">Run</button><button type=\"button\" id=\"lesson-stop\" hidden>Stop</button>\n",
    "      <button type=\"button\" id=\"lesson-close\">Close the lesson</button></div>\n",
    "  </form>\n",
    "  <div id=\"lesson-progress\" hidden>\n",
    "    <progress id=\"lesson-bar\" max=\"1\" value=\"0\" aria-label=\"Progress of the run\"></progress>\n",
    "    <p class=\"small\"><span id=\"lesson-phase\"></span> <span id=\"lesson-left\"></span></p>\n",
    "  </div>\n",
    "  <div id=\"lesson-result\" tabindex=\"-1\" role=\"group\" aria-label=\"Result\" hidden>\n",
    "    <div id=\"verdict\">\n",
    "      <div><span class=\"small\">Your prediction</span><b data-result=\"guess\"></b></div>\n",
    "      <div><span class=\"small\">By hand</span><b data-result=\"hand\"></b></div>\n",
    "      <div><span class=\"small\">Measured</span><b data-result=\"measured\"></b></div>\n",
    "    </div>\n",
    "    <table id=\"rows\"><caption class=\"hidden\">Hand arithmetic and measurement</caption>\n",
    "      <thead><tr><th scope=\"col\"></th><th scope=\"col\">By hand</th><th scope=\"col\">Measured</th></tr></thead><tbody></tbody></table>\n",
    "    <div id=\"charts\"></div>\n",
    "    <p id=\"conclusion\"></p>\n",
    "  </div>\n",
    "  <p id=\"lesson-live\" class=\"hidden\" role=\"status\"></p>\n",
    "</section>\n",
    "\n",
    "<div id=\"held\" class=\"panel\" hidden><span>The lanes hold the figures of the run that has just ended.</span>\n",
    "  <button id=\"go-on\">Go on live</button></div>\n",
    "\n",
    "<main id=\"lanes\" aria-label=\"The four lanes\"></main>\n",
    "\n",
    "<section id=\"sequence\" class=\"panel\" aria-labelledby=\"sequence-title\">\n",
    "  <div class=\"row\"><h2 id=\"sequence-title\">What travels</h2>\n",
    "    <button id=\"pause\" aria-pressed=\"false\">Pause</button>\n",
    "    <fieldset class=\"row\"><legend class=\"hidden\">Lanes in the diagram</legend><span id=\"shown\" class=\"row\"></span></fieldset>\n",
    "    <small>This browser's own connections, time downward. Arrow keys move, Enter opens an arrow's bytes.</small></div>\n",
    "  <div class=\"scroll\" id=\"scroll\"><div id=\"heads\" aria-hidden=\"true\"></div>\n",
    "    <svg id=\"diagram\" role=\"group\" aria-label=\"Sequence diagram of this browser's connections\"></svg></div>\n",
    "  <details id=\"log\"><summary class=\"small\">As a list</summary><table><thead><tr><th scope=\"col\">Second</th><th scope=\"col\">Lane</th>\n",
    "    <th scope=\"col\">From</th><th scope=\"col\">What</th><th scope=\"col\">Bytes</th></tr></thead><tbody></tbody></table></details>\n",
    "</section>\n",
    "\n",
    "<details id=\"controls\" class=\"panel\"><summary>Controls</summary>\n",
    "  <div id=\"groups\"></div>\n",
    "  <div class=\"row\" id=\"actions\" style=\"margin-top:.8rem\"></div>\n",
    "</details>\n",
    "\n",
    "<dialog id=\"bytes\" aria-labelledby=\"bytes-title\">\n",
    "  <div class=\"row\"><h2 id=\"bytes-title\" tabindex=\"-1\"></h2><span class=\"row\"><button id=\"bytes-back\">Earlier</button>\n",
    "    <button id=\"bytes-next\">Later</button><button id=\"bytes-close\">Close</button></span></div>\n",
    "  <p id=\"bytes-about\" class=\"small\"></p>\n",
    "  <div id=\"frames\"></div>\n",
    "  <table id=\"parts\"><thead><tr><th scope=\"col\">Bytes</th><th scope=\"col\">Part</th><th scope=\"col\">Meaning</th><th scope=\"col\">Standard</th></tr></thead><tbody></tbody></table>\n",
    "  <details open><summary>All bytes</summary><pre id=\"hex\" tabindex=\"0\"></pre></details>\n",
    "</dialog>\n",
    "\n",
    "<script>\n",
    "'use strict';\n",
    "// =====================================================================================================================\n",
    "// The four transports. Each opens one connection, tells its link what happens, and returns a function that closes it.\n",
    "//   link.opened()                      it works\n",
    "//   link.take(messages, cursor, gap)   what came; the cursor is where to go on after a break\n",
    "//   link.lost(delay)                   it is over; delay: when to come back, if the server said so\n",
    "// Where to go on (the cursor), when to come back, and what to count is the same for all four: class Lane, below.\n",
    "// =====================================================================================================================\n",
    "\n",
    "// One GET that is given up after `ms`: a connection that a NAT has forgotten never answers.\n",
    "async function ask(link, query, stop, ms) {\n",
    "  const timer = setTimeout(() => stop.abort(), ms);\n",
    "  try {\n",
    "    const answer = await fetch(link.url(query), { signal: stop.signal, cache: 'no-store' });\n",
    "    if (!answer.ok) throw new Error(answer.status);\n",
    "    return await answer.json();   // {\"cursor\":\"...\",\"messages\":[{\"id\":\"...\",\"data\":...}],\"gap\":{...}}\n",
    "  } finally {\n",
    "    clearTimeout(timer);\n",
    "  }\n",
    "}\n",
    "\n",
    "// Short poll: ask, sleep, ask again. ?since= says what we have. (If-None-Match would turn an empty answer into a 304,\n",
    "// but it is no safelisted header: from another origin the browser would first send an OPTIONS request.)\n",
    "function shortPoll(link) {\n",
    "  const stop = new AbortController();\n",
    "  async function loop() {\n",
    "    while (!stop.signal.aborted) {\n",
    "      const body = await ask(link, { since: link.cursor || 'latest' }, stop, 15000);\n",
    "      link.opened();\n",
    "      link.take(body.messages, body.cursor, body.gap);\n",
    "      if (body.reconnect !== undefined) return link.lost(body.reconnect);\n",
    "      if (!body.more) await link.sleep();             // news that comes now waits until we ask again\n",
    "    }\n",
    "  }\n",
    "  loop().catch(() => link.lost());\n",
    "  return () => stop.abort();\n",
    "}\n",
    "\n",
    "// Long poll: the server keeps the request until there is news. The next request is the acknowledgement of the answer.\n",
    "function longPoll(link) {\n",
    "  const stop = new AbortController();\n",
    "  async function loop() {\n",
    "    while (!stop.signal.aborted) {\n",
    "      const wait = link.isOpen ? link.wait : 0;       // the first one is answered at once, so that we know it works\n",
    "      const body = await ask(link, { since: link.cursor || 'latest', wait }, stop, wait * 1000 + 15000);\n",
    "      link.opened();\n",
    "      link.take(body.messages, body.cursor, body.gap);\n",
    "      if (body.reconnect !== undefined) return link.lost(body.reconnect);\n",
    "    }\n",
    "  }\n",
    "  loop().catch(() => link.lost());\n",
    "  return () => stop.abort();\n",
    "}\n",
    "\n",
    "// Server-sent events: one request, one answer without an end. The browser parses it, keeps the last id, and comes back\n",
    "// by itself after the server's `retry:`, with that id in Last-Event-ID. It shows no heartbeats, so it cannot see silence.\n",
    "function eventStream(link) {\n",
    "  const source = new EventSource(link.url(link.cursor ? { last_event_id: link.cursor } : {}));\n",
    "  let worked = false;\n",
    "  source.onopen = () => { worked = true; link.opened(); };\n",
    "  source.onmessage = e => link.take([{ id: e.lastEventId, data: JSON.parse(e.data) }], e.lastEventId);\n",
    "  source.addEventListener('gap', e => link.take([], e.lastEventId, JSON.parse(e.data)));\n",
    "  source.onerror = () => {\n",
    "    const isComingBack = worked && source.readyState === EventSource.CONNECTING && link.mayReturnByItself;\n",
    "    worked = false;\n",
    "    if (isComingBack) return link.waits();\n",
    "    source.close();                                   // it failed to come back, or must forget where it was\n",
    "    link.lost();\n",
    "  };\n",
    "  return () => source.close();\n",
    "}\n",
    "\n",
    "// WebSocket with the subprotocol rtpush.v1: JSON in frames, both ways. Nothing comes back by itself: the cursor, the\n",
    "// second try and noticing silence (the server's heartbeat, twice missed) are the program's affair.\n",
    "function webSocket(link) {\n",
    "  const socket = new WebSocket(link.url(link.cursor ? { since: link.cursor } : {}).replace(/^http/, 'ws'), 'rtpush.v1');\n",
    "  let timer, heartbeat = 20000;\n",
    "  socket.onmessage = e => {\n",
    "    const m = JSON.parse(e.data);\n",
    "    clearTimeout(timer);\n",
    "    if (m.type === 'hello') {\n",
    "      heartbeat = m.heartbeat;\n",
    "      link.opened();\n",
    "    }\n",
    "    timer = setTimeout(() => link.lost(), 2 * heartbeat);\n",
    "    if (m.type === 'message') link.take([m], m.id);\n",
    "    else if (m.type === 'gap') link.take([], m.to, m);\n",
    "    else if (m.type === 'hello' || m.type === 'heartbeat') link.take([], m.cursor);\n",
    "    else if (m.type === 'reconnect') link.lost(m.after);\n",
    "  };\n",
    "  socket.onclose = e => {\n",
    "    const told = /^retry=(\\d+)/.exec(e.reason);\n",
    "    link.lost(told ? Number(told[1]) : undefined);\n",
    "  };\n",
    "  return () => { clearTimeout(timer); socket.onclose = socket.onmessage = null; socket.close(); };\n",
    "}\n",
    "\n",
    "// --- what all four share: the cursor, coming back, falling back, counting ---\n",
    "\n",
    "const NAMES = { short: 'Short poll', long: 'Long poll', sse: 'SSE', ws: 'WebSocket' };\n",
    "const HOW = { shortpoll: shortPoll, longpoll: longPoll, sse: eventStream, websocket: webSocket };\n",
    "const FALLBACK = ['websocket', 'sse', 'longpoll', 'shortpoll'];\n",
    "const isFast = /[?&]fast=1/.test(location.search);\n",
    "const sleep = ms => new Promise(done => setTimeout(done, ms));\n",
    "\n",
    "class Lane {\n",
    "  constructor(name, transport, port) {\n",
    "    Object.assign(this, { name, transport, port, cursor: '', tries: 0, rung: 0, state: 'connecting', via: transport, events: [], base: 0 });\n",
    "    this.clear();\n",
    "  }\n",
    "\n",
    "  open() {\n",
    "    clearTimeout(this.timer);\n",
    "    const link = this.link = new Link(this);\n",
    "    this.via = this.mayFall() ? FALLBACK[this.rung] : this.transport;\n",
    "    this.state = 'connecting';\n",
    "    this.timer = setTimeout(() => link.lost(), this.mayFall() ? Lane.firstByte : 10000);   // a middlebox may swallow it\n",
    "    this.close = HOW[this.via](link);\n",
    "  }\n",
    "\n",
    "  mayFall() { return this.name === 'ws' && settings.fallback === 1; }\n",
    "\n",
    "  opened() {\n",
    "    clearTimeout(this.timer);\n",
    "    if (this.state !== 'open') this.openedAt = now();\n",
    "    this.state = 'open';\n",
    "    this.tries = 0;\n",
    "  }\n",
    "\n",
    "  // Exponential backoff with full jitter: a random time below 1 s, 2 s, 4 s ... 30 s. Without jitter: one second.\n",
    "  lost(delay) {\n",
    "    const worked = this.state === 'open';\n",
    "    this.close();\n",
    "    clearTimeout(this.timer);\n",
    "    if (worked) this.reconnects++;\n",
    "    if (!settings.resume) this.cursor = '';\n",
    "    if (!worked && this.mayFall() && this.rung + 1 < FALLBACK.length) {\n",
    "      this.rung++;\n",
    "      return this.open();\n",
    "    }\n",
    "    this.rung = 0;\n",
    "    if (delay === undefined) delay = settings.jitter ? Math.random() * Math.min(30000, 1000 * 2 ** this.tries) : 1000;\n",
    "    this.tries++;\n",
    "    this.state = 'waiting';\n",
    "    this.timer = setTimeout(() => this.open(), delay);\n",
    "  }\n",
    "\n",
    "  // The transport comes back by itself. If it does not, it is lost all the same.\n",
    "  waits() {\n",
    "    const { link } = this;\n",
    "    this.state = 'waiting';\n",
    "    this.reconnects++;\n",
    "    this.timer = setTimeout(() => link.lost(), 15000);\n",
    "  }\n",
    "\n",
    "  clear() {\n",
    "    Object.assign(this, { received: 0, lostCount: 0, gapCount: 0, gaps: 0, replayed: 0, doubled: 0, reconnects: 0, ids: [], latencies: [], sum: 0,\n",
    "      last: this.base ? 0 : null, isGap: false });\n",
    "  }\n",
    "\n",
    "  // Since a reset at `base` (microseconds, the server's clock): what was published before is not counted.\n",
    "  reset(base) {\n",
    "    const events = this.events;\n",
    "    this.base = base;\n",
    "    this.events = [];\n",
    "    this.clear();\n",
    "    for (const e of events) if (e.t >= base) this.count(e);\n",
    "  }\n",
    "\n",
    "  take(messages, cursor, gap) {\n",
    "    const at = now();\n",
    "    if (gap) this.count({ gap: true, t: at });\n",
    "    for (const m of messages) this.count({ n: m.data.n, t: m.data.t, id: m.id, at, openedAt: this.openedAt });\n",
    "    if (cursor) this.cursor = cursor;\n",
    "  }\n",
    "\n",
    "  // n says what is missing: told of (a gap) or not (lost). A late one is only a replay: it waited while we were away.\n",
    "  count(e) {\n",
    "    if (e.t < this.base) return;\n",
    "    if (this.events.push(e) > 20000) this.events.splice(0, 5000);\n",
    "    if (e.gap) {\n",
    "      this.isGap = true;\n",
    "      this.gaps++;\n",
    "      return;\n",
    "    }\n",
    "    this.received++;\n",
    "    if (this.last !== null && e.n <= this.last) {\n",
    "      this.doubled++;\n",
    "      return;\n",
    "    }\n",
    "    const missing = this.last === null ? 0 : e.n - this.last - 1;\n",
    "    if (this.isGap) this.gapCount += missing;\n",
    "    else this.lostCount += missing;\n",
    "    this.isGap = false;\n",
    "    this.last = e.n;\n",
    "    this.ids.push(e.id);\n",
    "    if (e.t < e.openedAt) this.replayed++;\n",
    "    else {\n",
    "      this.latencies.push(e.at - e.t);\n",
    "      this.sum += e.at - e.t;\n",
    "    }\n",
    "  }\n",
    "\n",
    "  get mean() { return this.latencies.length ? this.sum / this.latencies.length : NaN; }\n",
    "}\n",
    "Lane.firstByte = isFast ? 2000 : 3000;\n",
    "\n",
    "// One connection's view of its lane: when the lane has another one, this one's words no longer count.\n",
    "class Link {\n",
    "  constructor(lane) { this.lane = lane; }\n",
    "  get isLive() { return this.lane.link === this; }\n",
    "  get isOpen() { return this.lane.state === 'open'; }\n",
    "  get cursor() { return this.lane.cursor; }\n",
    "  get wait() { return Math.max(1, Math.round(settings.wait / 1000)); }\n",
    "  get mayReturnByItself() { return settings.resume === 1 && settings.jitter === 1 && !this.lane.mayFall(); }\n",
    "  url(query) {\n",
    "    const pairs = Object.entries(query).map(([key, value]) => key + '=' + encodeURIComponent(value));\n",
    "    return 'http://' + location.hostname + ':' + this.lane.port + '/live/lab?' + pairs.concat('watch=1').join('&');\n",
    "  }\n",
    "  opened() { if (this.isLive) this.lane.opened(); }\n",
    "  take(messages, cursor, gap) { if (this.isLive) this.lane.take(messages, cursor, gap); }\n",
    "  waits() { if (this.isLive) this.lane.waits(); }\n",
    "  lost(delay) {\n",
    "    if (!this.isLive) return;\n",
    "    this.lane.link = null;\n",
    "    this.lane.lost(delay);\n",
    "  }\n",
    "  // Until the next poll. A shorter interval counts at once.\n",
    "  async sleep() {\n",
    "    const from = performance.now();\n",
    "    for (let left; (left = settings.interval - (performance.now() - from)) > 0;) await sleep(Math.min(left, 250));\n",
    "  }\n",
    "}\n",
    "\n",
    "// =====================================================================================================================\n",
    "// The control connection: figures and trace by one EventSource, settings by POST.\n",
    "// =====================================================================================================================\n",
    "const $ = id => document.getElementById(id);\n",
    "const lanes = {};\n",
    "let settings = { interval: 5000, wait: 25000, resume: 1, jitter: 1, fallback: 0 }, figures = null, offset = 0, heldFigures = null;\n",
    "const past = [];   // figures of the last eight seconds\n",
    "\n",
    "const now = () => (performance.timeOrigin + performance.now()) * 1000 + offset;   // microseconds, the server's clock\n",
    "\n",
    "// The server's clock against ours: the answer with the least round trip says it best (Cristian).\n",
    "async function setClock() {\n",
    "  let best = Infinity;\n",
    "  for (let i = 0; i < 8; i++) {\n",
    "    const before = performance.now(), { us } = await (await fetch('/lab/time', { cache: 'no-store' })).json(), trip = performance.now() - before;\n",
    "    if (trip >= best) continue;\n",
    "    best = trip;\n",
    "    offset = us - (performance.timeOrigin + before + trip / 2) * 1000;\n",
    "  }\n",
    "}\n",
    "\n",
    "function el(tag, attributes, ...children) {\n",
    "  const e = tag.startsWith('svg:') ? document.createElementNS('http://www.w3.org/2000/svg', tag.slice(4)) : document.createElement(tag);\n",
    "  for (const [name, value] of Object.entries(attributes || {})) if (value !== null && value !== undefined) e.setAttribute(name, value);\n",
    "  e.append(...children);\n",
    "  return e;\n",
    "}\n",
    "\n",
    "function say(text, isBad) {\n",
    "  if ($('status').textContent !== text) $('status').textContent = text;\n",
    "  $('status').className = isBad ? 'bad' : '';\n",
    "}\n",
    "\n",
    "async function call(path) {\n",
    "  const answer = await fetch(path, { method: 'POST' });\n",
    "  const text = await answer.text();\n",
    "  if (answer.ok) return text;\n",
    "  let reason = text;\n",
    "  try { reason = JSON.parse(text).reason || text; } catch (e) { /* a plain sentence */ }\n",
    "  throw new Error(reason);\n",
    "}\n",
    "async function set(values) {\n",
    "  const query = Object.entries(values).map(([key, value]) => key + '=' + encodeURIComponent(value)).join('&');\n",
    "  adopt(JSON.parse(await call('/lab/set?' + query)));\n",
    "}\n",
    "\n",
    "function adopt(state) {\n",
    "  settings = state;\n",
    "  showSettings();\n",
    "  for (const lane of Object.values(lanes)) if (lane.link && lane.via !== lane.transport && !lane.mayFall()) lane.close(), lane.open();\n",
    "}\n",
    "const act = (what, lane) => call('/lab/do?what=' + what + (lane ? '&lane=' + lane : ''));\n",
    "const stats = async () => (await fetch('/lab/stats', { cache: 'no-store' })).json();\n",
    "\n",
    "async function reset() {\n",
    "  await act('reset');\n",
    "  take(await stats());\n",
    "}\n",
    "\n",
    "// New figures. Their time and age say when the last reset was: the lanes count from then, too.\n",
    "function take(f) {\n",
    "  const base = f.us - f.seconds * 1e6;\n",
    "  if (Object.values(lanes).some(lane => base > lane.base + 250000)) {\n",
    "    for (const lane of Object.values(lanes)) lane.reset(base - 2000);\n",
    "    past.length = 0;\n",
    "  }\n",
    "  past.push(f);\n",
    "  while (past.length > 2 && f.us - past[0].us > 8e6) past.shift();\n",
    "  figures = f;\n",
    "  adopt(f.state);\n",
    "  if (!heldFigures) show();\n",
    "}\n",
    "\n",
    "function listen() {\n",
    "  const source = new EventSource('/live?topic=figures&topic=trace&events=topic');\n",
    "  source.addEventListener('figures', e => take(JSON.parse(e.data)));\n",
    "  source.addEventListener('trace', e => traced(JSON.parse(e.data)));\n",
    "  source.onopen = () => say('');\n",
    "  source.onerror = () => say('The lab does not answer. Is it running?', true);\n",
    "}\n",
    "\n",
    "// =====================================================================================================================\n",
    "// The lanes, shown\n",
    "// =====================================================================================================================\n",
    "const SHAPES = { short: 'M2 2H14V14H2Z', long: 'M8 1L15 14H1Z', sse: 'M8 1A7 7 0 1 1 7.9 1Z', ws: 'M8 0L16 8L8 16L0 8Z' };\n",
    "const shape = (name, attributes) => el('svg:path', Object.assign({ d: SHAPES[name] }, attributes));\n",
    "\n",
    "function whole(x) {\n",
    "  return Math.round(x).toString().replace(/\\B(?=(\\d{3})+(?!\\d))/g, '\\u202f');\n",
    "}\n",
    "function number(x, digits = 3) {   // three digits that matter, no exponent\n",
    "  if (!isFinite(x)) return '\\u2013';\n",
    "  if (Math.abs(x) >= 100 || x === 0) return whole(x);\n",
    "  return String(Number(x.toPrecision(digits)));\n",
    "}\n",
    "const ms = us => !isFinite(us) ? '\\u2013' : us >= 10e6 ? number(us / 1e6) + ' s' : number(us / 1000) + ' ms';\n",
    "function bytes(n) {\n",
    "  if (!isFinite(n)) return '\\u2013';\n",
    "  return n >= 1e6 ? number(n / 1e6) + ' MB' : n >= 10000 ? number(n / 1000) + ' kB' : whole(n) + ' B';\n",
    "}\n",
    "\n",
    "const SERVER = [['connections', 'connections'], ['requests', 'requests'], ['delivered', 'delivered'], ['empty', 'empty'],\n",
    "  ['cpu', 'CPU'], ['cpu-share', 'share'], ['memory', 'memory'], ['memory-share', 'share']];\n",
    "const COUNTS = [['received', 'received'], ['lost', 'lost'], ['gap', 'gap (told)'], ['replayed', 'replayed'], ['doubled', 'doubled'],\n",
    "  ['reconnects', 'reconnects']];\n",
    "\n",
    "const figure = (name, tag = 'b') => el(tag, { 'data-figure': name });\n",
    "const hero = (name, label) => el('div', {}, figure(name), el('span', { class: 'small' }, label));\n",
    "const key = (name, label) => el('span', {}, el('i', { class: name }), label + ' ', figure('each-' + name));\n",
    "\n",
    "function makeLane(name) {\n",
    "  const rows = COUNTS.map(([id, label]) => el('tr', {}, el('th', { scope: 'row' }, label), figure(id, 'td'), figure('c-' + id, 'td')));\n",
    "  const list = SERVER.flatMap(([id, label]) => [el('dt', {}, label), figure(id, 'dd')]);\n",
    "  const article = el('article', { class: 'lane', id: 'lane-' + name, 'data-lane': name, 'data-of': name, 'aria-labelledby': 'name-' + name },\n",
    "    el('div', {}, el('h2', { id: 'name-' + name }, el('svg:svg', { viewBox: '0 0 16 16', 'aria-hidden': 'true' },\n",
    "      shape(name, { fill: 'currentColor' })), NAMES[name]),\n",
    "      el('p', { class: 'small state', 'data-figure': 'state' })),\n",
    "    el('div', { class: 'hero' }, hero('mean', 'mean latency'), hero('request-rate', 'requests a second')),\n",
    "    el('div', {}, el('h3', { class: 'small' }, 'Bytes per delivered message: ', figure('each')),\n",
    "      el('div', { class: 'bar', role: 'img', 'data-figure': 'bar' }, el('i', { class: 'load' }), el('i', { class: 'head' }), el('i', { class: 'up' })),\n",
    "      el('div', { class: 'key' }, key('load', 'payload'), key('head', 'headers and framing'), key('up', 'sent up'))),\n",
    "    el('div', { class: 'histogram' }, el('h3', { class: 'small' }, 'Latency'),\n",
    "      el('svg:svg', { viewBox: '0 0 260 92', role: 'img', 'data-figure': 'histogram' }),\n",
    "      el('p', { class: 'key' }, el('span', {}, 'dots: this browser, dashed: its mean'),\n",
    "        el('span', {}, 'bars: ', figure('c-count'), ' by C clients, mean ', figure('c-mean'), ', p99 ', figure('c-p99'))),\n",
    "      el('details', {}, el('summary', { class: 'small' }, 'Numbers'), el('table', { 'data-figure': 'buckets' }))),\n",
    "    el('dl', { class: 'server', 'aria-label': 'The server of this lane' }, ...list),\n",
    "    el('table', {}, el('thead', {}, el('tr', {}, el('th', { scope: 'col' }, 'messages'), el('th', { scope: 'col' }, 'this browser'),\n",
    "      el('th', { scope: 'col' }, figure('c-open', 'span'), ' C clients'))), el('tbody', {}, ...rows)));\n",
    "  $('lanes').append(article);\n",
    "  const at = lanes[name].at = {};\n",
    "  for (const e of article.querySelectorAll('[data-figure]')) at[e.dataset.figure] = e;\n",
    "}\n",
    "\n",
    "function put(lane, name, text, value) {\n",
    "  const e = lane.at[name];\n",
    "  if (e.textContent !== text) e.textContent = text;\n",
    "  if (value !== undefined) e.dataset.value = value;\n",
    "}\n",
    "\n",
    "function stateText(lane) {\n",
    "  const by = { websocket: 'WebSocket', sse: 'SSE', longpoll: 'long poll', shortpoll: 'short poll' }[lane.via];\n",
    "  const fell = lane.via === lane.transport ? '' : ' by ' + by;\n",
    "  return lane.state === 'open' ? 'connected' + fell : lane.state === 'waiting' ? 'waiting to come back' : 'connecting' + fell;\n",
    "}\n",
    "\n",
    "// What a lane used a second, over the last seconds.\n",
    "function rateOf(name, pick) {\n",
    "  const a = past[0], b = past[past.length - 1];\n",
    "  return past.length < 2 || b.us <= a.us ? NaN : Math.max(0, pick(b.lanes[name]) - pick(a.lanes[name])) / (b.us - a.us) * 1e6;\n",
    "}\n",
    "\n",
    "const each = f => ({ load: f.payload / f.delivered, head: (f.bytes_out - f.payload) / f.delivered, up: f.bytes_in / f.delivered });\n",
    "\n",
    "function showServer(lane, f, all) {\n",
    "  const cpu = name => rateOf(name, l => l.server.cpu_us) / 1e4, names = Object.keys(lanes);\n",
    "  const cpuOfAll = names.reduce((sum, name) => sum + cpu(name), 0), memoryOfAll = names.reduce((sum, name) => sum + all[name].server.memory, 0);\n",
    "  put(lane, 'request-rate', number(rateOf(lane.name, l => l.requests)));\n",
    "  for (const name of ['connections', 'requests', 'empty', 'delivered']) put(lane, name, whole(f[name]), f[name]);\n",
    "  put(lane, 'cpu', number(cpu(lane.name), 2) + ' %', f.server.cpu_us);\n",
    "  put(lane, 'cpu-share', number(cpu(lane.name) / cpuOfAll * 100, 2) + ' %');\n",
    "  put(lane, 'memory-share', number(f.server.memory / memoryOfAll * 100, 2) + ' %');\n",
    "  put(lane, 'memory', bytes(f.server.memory), f.server.memory);\n",
    "}\n",
    "\n",
    "function showBytes(lane, f, most) {\n",
    "  const e = each(f), [load, head, up] = lane.at.bar.children, width = x => (f.delivered ? Math.max(0, x) / most * 100 : 0) + '%';\n",
    "  load.style.width = width(e.load);\n",
    "  head.style.width = width(e.head);\n",
    "  up.style.width = width(e.up);\n",
    "  for (const name of ['load', 'head', 'up']) put(lane, 'each-' + name, bytes(e[name]), e[name]);\n",
    "  put(lane, 'each', bytes(e.load + e.head + e.up), f.bytes_in + f.bytes_out);\n",
    "  lane.at.bar.setAttribute('aria-label', f.delivered ? `${bytes(e.load)} payload, ${bytes(e.head)} headers and framing, ${bytes(e.up)} sent up` :\n",
    "    'nothing delivered yet');\n",
    "}\n",
    "\n",
    "// --- histogram: a bucket for each doubling; 128 us to 33 s ---\n",
    "const FIRST = 8, LAST = 25, xOf = us => 8 + (Math.log2(Math.min(Math.max(us, 128), 2 ** LAST)) - FIRST + 1) / (LAST - FIRST + 1) * 244;\n",
    "\n",
    "function binned(buckets) {\n",
    "  const bins = new Array(LAST - FIRST + 1).fill(0);\n",
    "  buckets.forEach((n, k) => { bins[Math.min(Math.max(k, FIRST), LAST) - FIRST] += n; });\n",
    "  return bins;\n",
    "}\n",
    "function ownBuckets(latencies) {\n",
    "  const buckets = new Array(32).fill(0);\n",
    "  for (const us of latencies) buckets[Math.max(0, Math.min(31, Math.floor(Math.log2(Math.max(1, us))) + 1))]++;\n",
    "  return buckets;\n",
    "}\n",
    "\n",
    "function showHistogram(lane, f) {\n",
    "  const svg = lane.at.histogram, c = f.clients.latency, bins = binned(c.buckets), most = Math.max(1, ...bins), step = 244 / bins.length;\n",
    "  const version = `${lane.latencies.length} ${lane.sum} ${c.count} ${c.mean_us} ${lane.at.buckets.parentNode.open}`;\n",
    "  if (svg.dataset.version === version) return;\n",
    "  svg.dataset.version = version;\n",
    "  const parts = [el('svg:line', { class: 'grid', x1: 4, x2: 256, y1: 56, y2: 56 })];\n",
    "  for (const [us, text] of [[1e3, '1 ms'], [1e4, '10'], [1e5, '100'], [1e6, '1 s'], [1e7, '10 s']])\n",
    "    parts.push(el('svg:line', { class: 'grid', x1: xOf(us), x2: xOf(us), y1: 0, y2: 76 }),\n",
    "      el('svg:text', { x: xOf(us), y: 89, 'text-anchor': 'middle' }, text));\n",
    "  bins.forEach((n, i) => { if (n) parts.push(el('svg:rect', { class: 'bars', x: 8 + i * step + .5, width: step - 1, y: 56 - 54 * n / most,\n",
    "    height: 54 * n / most })); });\n",
    "  lane.latencies.slice(-40).forEach((us, i) => parts.push(shape(lane.name, { class: 'dot',\n",
    "    transform: `translate(${xOf(us) - 3} ${59 + i % 3 * 5}) scale(.38)` })));\n",
    "  if (isFinite(lane.mean)) parts.push(el('svg:line', { class: 'mean', x1: xOf(lane.mean), x2: xOf(lane.mean), y1: 4, y2: 76 }));\n",
    "  svg.replaceChildren(...parts);\n",
    "  svg.setAttribute('aria-label', `Latency. C clients: ${c.count} messages, mean ${ms(c.count ? c.mean_us : NaN)}, p99 ` +\n",
    "    `${ms(c.count ? c.p99_us : NaN)}. This browser: ${lane.latencies.length}, mean ${ms(lane.mean)}.`);\n",
    "  const table = lane.at.buckets;\n",
    "  if (!table.parentNode.open) return;\n",
    "  const own = binned(ownBuckets(lane.latencies));\n",
    "  table.replaceChildren(el('caption', { class: 'hidden' }, 'Latency distribution'), el('tr', {}, el('th', {}, 'below'), el('th', {}, 'this browser'),\n",
    "    el('th', {}, 'C clients')),\n",
    "    ...bins.map((n, i) => n || own[i] ? el('tr', {}, el('th', { scope: 'row' }, ms(2 ** (i + FIRST))), el('td', {}, whole(own[i])), el('td', {}, whole(n))) : ''));\n",
    "}\n",
    "\n",
    "function showCounts(lane, f) {\n",
    "  const own = { received: lane.received, lost: lane.lostCount, gap: lane.gapCount, replayed: lane.replayed, doubled: lane.doubled,\n",
    "    reconnects: lane.reconnects };\n",
    "  for (const [id] of COUNTS) {\n",
    "    put(lane, id, whole(own[id]), own[id]);\n",
    "    put(lane, 'c-' + id, whole(f.clients[id]), f.clients[id]);\n",
    "    if (id === 'lost') lane.at.lost.className = own.lost ? 'bad' : '', lane.at['c-lost'].className = f.clients.lost ? 'bad' : '';\n",
    "  }\n",
    "  put(lane, 'c-open', whole(f.clients.open), f.clients.open);\n",
    "}\n",
    "\n",
    "function show() {\n",
    "  const f = heldFigures || figures;\n",
    "  const most = Math.max(1, ...Object.keys(lanes).map(name => { const e = each(f.lanes[name]); return e.load + e.head + e.up || 0; }));\n",
    "  for (const lane of Object.values(lanes)) {\n",
    "    const l = f.lanes[lane.name], c = l.clients.latency;\n",
    "    put(lane, 'state', stateText(lane));\n",
    "    put(lane, 'mean', ms(lane.mean), lane.mean);\n",
    "    put(lane, 'c-count', whole(c.count), c.count);\n",
    "    put(lane, 'c-mean', ms(c.count ? c.mean_us : NaN), c.mean_us);\n",
    "    put(lane, 'c-p99', ms(c.count ? c.p99_us : NaN), c.p99_us);\n",
    "    showServer(lane, l, f.lanes);\n",
    "    showBytes(lane, l, most);\n",
    "    showHistogram(lane, l);\n",
    "    showCounts(lane, l);\n",
    "  }\n",
    "}\n",
    "\n",
    "// =====================================================================================================================\n",
    "// Controls\n",
    "// =====================================================================================================================\n",
    "const GROUPS = [\n",
    "  ['Publisher', [['rate', 'per second', 0, 1000, 'any'], ['burst', 'at once', 1, 1000], ['size', 'bytes each', 64, 16384],\n",
    "    ['history', 'messages kept', 1, 10000]]],\n",
    "  ['C clients', [['clients_short', 'short poll', 0, 3000], ['clients_long', 'long poll', 0, 3000], ['clients_sse', 'SSE', 0, 3000],\n",
    "    ['clients_ws', 'WebSocket', 0, 3000]]],\n",
    "  ['Timing', [['interval', 'poll every (ms)', 100, 60000], ['wait', 'hold for (ms)', 1000, 55000], ['heartbeat', 'heartbeat (ms)', 500, 120000]]],\n",
    "  ['Faults on the path', [['latency', 'one way (ms)', 0, 2000], ['nat', 'NAT forgets (s)', 0, 120], ['throttle', 'bytes/s down', 0, 10000000],\n",
    "    ['buffer', 'a middlebox buffers SSE'], ['block', 'a middlebox blocks Upgrade']]],\n",
    "  ['Readers', [['slow', 'too slow a reader', ['close', 'skip', 'latest']], ['resume', 'come back with a cursor'], ['jitter', 'come back with jitter'],\n",
    "    ['fallback', 'WebSocket lane may fall back']]],\n",
    "];\n",
    "const DEFAULTS = { rate: 1, burst: 1, size: 128, interval: 5000, wait: 25000, clients_short: 0, clients_long: 0, clients_sse: 0, clients_ws: 0,\n",
    "  latency: 0, buffer: 0,\n",
    "  block: 0, nat: 0, throttle: 0, resume: 1, jitter: 1, fallback: 0, heartbeat: 20000, slow: 'close', history: 1000 };\n",
    "const ACTIONS = [['publish', 'Publish now'], ['cut', 'Cut'], ['restart', 'Restart the server'], ['forget', 'Restart, log lost'], ['drain', 'Drain'],\n",
    "  ['reset', 'Reset figures']];\n",
    "\n",
    "function makeInput([id, label, a, b, step]) {\n",
    "  const name = 'set-' + id;\n",
    "  if (Array.isArray(a)) return [el('label', { for: name }, label), el('select', { id: name, 'data-key': id }, ...a.map(x => el('option', {}, x)))];\n",
    "  if (a === undefined) return [el('label', { class: 'check' }, el('input', { type: 'checkbox', id: name, 'data-key': id }), label)];\n",
    "  return [el('label', { for: name }, label), el('input', { type: 'number', id: name, 'data-key': id, min: a, max: b, step: step || 1 })];\n",
    "}\n",
    "\n",
    "function makeControls() {\n",
    "  for (const [name, inputs] of GROUPS) $('groups').append(el('fieldset', {}, el('legend', {}, name), ...inputs.flatMap(makeInput)));\n",
    "  const where = el('select', { id: 'action-lane' }, el('option', { value: '' }, 'all lanes'),\n",
    "    ...Object.keys(NAMES).map(n => el('option', { value: n }, NAMES[n])));\n",
    "  $('actions').append(el('label', { for: 'action-lane' }, 'Do to'), where);\n",
    "  for (const [what, label] of ACTIONS) {\n",
    "    const button = $('actions').appendChild(el('button', { id: 'do-' + what, 'data-do': what }, label));\n",
    "    button.onclick = () => (what === 'reset' ? reset() : act(what, what === 'publish' ? '' : where.value)).then(() => say(label + ': done'),\n",
    "      e => say(e.message, true));\n",
    "  }\n",
    "  $('actions').append(el('button', { id: 'defaults' }, 'Defaults'));\n",
    "  $('defaults').onclick = () => set(DEFAULTS).then(() => say('Defaults set'), e => say(e.message, true));\n",
    "  $('groups').onchange = e => {\n",
    "    const input = e.target, value = input.type === 'checkbox' ? Number(input.checked) : input.value;\n",
    "    set({ [input.dataset.key]: value }).then(() => say(''), error => { say(error.message, true); showSettings(true); });\n",
    "  };\n",
    "  $('controls').open = innerWidth > 768;\n",
    "}\n",
    "\n",
    "function showSettings(evenFocused) {\n",
    "  for (const input of document.querySelectorAll('[data-key]')) {\n",
    "    const value = settings[input.dataset.key];\n",
    "    if (value === undefined || (!evenFocused && document.activeElement === input)) continue;\n",
    "    if (input.type === 'checkbox') input.checked = value === 1;\n",
    "    else if (input.value !== String(value)) input.value = value;\n",
    "  }\n",
    "}\n",
    "\n",
    "// =====================================================================================================================\n",
    "// What bytes mean. A flow is one direction of one connection: what it is in the middle of when a read ends.\n",
    "//   head -> body | size -> chunk -> crlf -> size ... -> head       HTTP, with a length or in chunks\n",
    "//   head -> frame -> payload -> frame ...                          WebSocket, after the 101\n",
    "// =====================================================================================================================\n",
    "const HEADERS = {\n",
    "  'accept': ['RFC 9110 12.5.1', 'which media types we take'], 'accept-encoding': ['RFC 9110 12.5.3', 'which compressions we take'],\n",
    "  'accept-language': ['RFC 9110 12.5.4', 'which languages we prefer'], 'access-control-allow-origin': ['Fetch 3.3.3', 'which origins may read the answer'],\n",
    "  'access-control-allow-credentials': ['Fetch 3.3.3', 'also with cookies'], 'access-control-expose-headers': ['Fetch 3.3.3',\n",
    "    'which headers a script of another origin sees'],\n",
    "  'cache-control': ['RFC 9111 5.2', 'no cache on the path may answer this'], 'connection': ['RFC 9110 7.6.1', 'what happens to this connection afterwards'],\n",
    "  'content-length': ['RFC 9110 8.6', 'how many bytes the body has'], 'content-type': ['RFC 9110 8.3', 'what the body is'],\n",
    "    'cookie': ['RFC 6265 4.2', 'cookies'],\n",
    "  'date': ['RFC 9110 6.6.1', 'when it was made'], 'etag': ['RFC 9110 8.8.3', 'this version\\'s name: here the cursor'],\n",
    "    'host': ['RFC 9110 7.2', 'which server is meant'],\n",
    "  'if-none-match': ['RFC 9110 13.1.2', 'only if there is another version'], 'last-event-id': ['HTML 9.2.4', 'where a returning event stream goes on'],\n",
    "  'origin': ['Fetch 3.2', 'whose page asks'], 'pragma': ['RFC 9111 5.4', 'Cache-Control of HTTP/1.0'], 'referer': ['RFC 9110 10.1.3', 'which page asks'],\n",
    "  'retry-after': ['RFC 9110 10.2.3', 'when to come again'], 'sec-websocket-accept': ['RFC 6455 11.3.3', 'the key, answered: the server knows what it does'],\n",
    "  'sec-websocket-extensions': ['RFC 6455 11.3.2', 'extensions offered, such as compression'],\n",
    "    'sec-websocket-key': ['RFC 6455 11.3.1', '16 random bytes, to be answered'],\n",
    "  'sec-websocket-protocol': ['RFC 6455 11.3.4', 'what is spoken in the frames'], 'sec-websocket-version': ['RFC 6455 11.3.5', 'always 13'],\n",
    "  'server': ['RFC 9110 10.2.4', 'what answers'], 'transfer-encoding': ['RFC 9112 6.1', 'the body comes in chunks; its end is not known yet'],\n",
    "  'upgrade': ['RFC 9110 7.8', 'another protocol on this connection'], 'user-agent': ['RFC 9110 10.1.5', 'which browser'],\n",
    "    'vary': ['RFC 9110 12.5.5', 'what the answer depends on'],\n",
    "  'x-accel-buffering': ['nginx', 'a proxy shall not hold the stream back'], 'x-content-type-options': ['Fetch 3.6', 'believe the Content-Type'],\n",
    "};\n",
    "const QUERY = { since: 'since: we have everything up to this cursor', wait: 'wait: hold the request so many seconds',\n",
    "  watch: 'watch: show this connection in the diagram',\n",
    "  last_event_id: 'last_event_id: we have everything up to this cursor' };\n",
    "const OPCODES = { 0: 'continuation', 1: 'text', 2: 'binary', 8: 'close', 9: 'ping', 10: 'pong' };\n",
    "const SSE_FIELDS = { id: 'the cursor behind this message; the browser keeps it for Last-Event-ID', event: 'which listener gets it', data: 'the message',\n",
    "  retry: 'so many milliseconds until the browser comes back' };\n",
    "const utf8 = new TextDecoder(), latin1 = b => Array.from(b, x => String.fromCharCode(x)).join('');\n",
    "const conns = new Map();\n",
    "\n",
    "class Reading {\n",
    "  constructor(event, conn) {\n",
    "    const own = Uint8Array.from(atob(event.data || ''), c => c.charCodeAt(0));\n",
    "    Object.assign(this, { conn, flow: conn[event.dir], isUp: event.dir === 'up', bytes: own, parts: [], frames: [], words: [], at: 0 });\n",
    "    this.cut = event.size - own.length;        // so many bytes are not shown\n",
    "    const rest = this.flow.rest;\n",
    "    this.data = new Uint8Array(rest.length + own.length);\n",
    "    this.data.set(rest);\n",
    "    this.data.set(own, rest.length);\n",
    "    this.flow.rest = new Uint8Array(0);\n",
    "    if (rest.length) this.add('', 'goes on', `the first ${rest.length} bytes came with the read before`, '');\n",
    "    try {\n",
    "      while (this.at < this.data.length && this[this.flow.mode]());\n",
    "    } catch (e) {                              // events were dropped: not where a head or chunk begins\n",
    "      conn[event.dir] = this.flow = resumed(conn, this.flow);\n",
    "      this.at = this.data.length;\n",
    "    }\n",
    "    if (this.at < this.data.length) this.keep();\n",
    "    if (this.cut > 0) this.skip();\n",
    "    const ns = Array.from(latin1(own).matchAll(/\"n\":(\\d+)/g), m => Number(m[1]));   // masked frames have been read already\n",
    "    this.n = this.isUp ? [] : ns;\n",
    "  }\n",
    "\n",
    "  add(text, name, meaning, standard) { this.parts.push([text, name, meaning, standard]); }\n",
    "  get left() { return this.data.length - this.at; }\n",
    "\n",
    "  // The read ends in the middle of something.\n",
    "  keep() {\n",
    "    this.flow.rest = this.data.slice(this.at);\n",
    "    this.add(latin1(this.flow.rest), 'begins', 'goes on with the next read', '');\n",
    "  }\n",
    "  skip() {\n",
    "    const flow = this.flow, isInside = flow.left >= this.cut && !flow.rest.length;\n",
    "    this.add('', 'not shown', `${this.cut} bytes more`, '');\n",
    "    if (isInside) {\n",
    "      flow.left -= this.cut;\n",
    "      if (!flow.left) this.finish();\n",
    "    } else Object.assign(flow, { left: 0, rest: new Uint8Array(0), mode: this.conn.isSocket ? 'frame' : flow.isChunked ? 'size' : 'head' });\n",
    "    if (!isInside && flow.mode === 'head' && !this.isUp) this.ends = true;\n",
    "  }\n",
    "\n",
    "  line() {   // up to and with CR LF, or null\n",
    "    for (let i = this.at; i + 1 < this.data.length; i++) {\n",
    "      if (this.data[i] !== 13 || this.data[i + 1] !== 10) continue;\n",
    "      const text = latin1(this.data.subarray(this.at, i));\n",
    "      this.at = i + 2;\n",
    "      return text;\n",
    "    }\n",
    "    return null;\n",
    "  }\n",
    "\n",
    "  head() {\n",
    "    const text = latin1(this.data.subarray(this.at)), end = text.indexOf('\\r\\n\\r\\n');\n",
    "    if (!/^(HTTP\\/1|[A-Z]+ \\/|[A-Z]{1,7}$)/.test(text)) throw new Error('no head');\n",
    "    if (end < 0) return false;\n",
    "    const first = this.line(), headers = {};\n",
    "    this.isUp ? this.request(first) : this.status(first);\n",
    "    for (let line; (line = this.line());) {\n",
    "      const [, name, value] = /^([^:]*):\\s*(.*)/.exec(line) || [, line, ''], [standard, meaning] = HEADERS[name.toLowerCase()] || this.unknown(name);\n",
    "      headers[name.toLowerCase()] = value;\n",
    "      this.add(line + '\\r\\n', name, meaning, standard);\n",
    "    }\n",
    "    this.add('\\r\\n', 'empty line', 'the head ends', 'RFC 9112 2.1');\n",
    "    this.afterHead(headers);\n",
    "    return true;\n",
    "  }\n",
    "  unknown(name) { return /^sec-ch/i.test(name) ? ['Client Hints', 'what the browser is'] : /^sec-fetch/i.test(name) ? ['Fetch Metadata',\n",
    "    'what the request is for'] : ['', '']; }\n",
    "\n",
    "  request(line) {\n",
    "    const [method, target] = line.split(' '), query = new URLSearchParams(target.split('?')[1] || '');\n",
    "    const known = Array.from(query.keys(), k => QUERY[k]).filter(Boolean).join('; ');\n",
    "    this.add(line + '\\r\\n', 'request line', `method, target, version. ${known}`, 'RFC 9112 3');\n",
    "    const since = query.get('since') || query.get('last_event_id') || '', wait = query.get('wait');\n",
    "    this.words.push(method + (since ? ' since ' + since.replace(/^.*-/, '') : '') + (Number(wait) ? ', wait ' + wait : ''));\n",
    "    this.starts = true;\n",
    "  }\n",
    "  status(line) {\n",
    "    this.flow.status = Number(line.split(' ')[1]);\n",
    "    this.add(line + '\\r\\n', 'status line', 'version, code, phrase', 'RFC 9112 4');\n",
    "    this.words.push(String(this.flow.status));\n",
    "  }\n",
    "\n",
    "  afterHead(headers) {\n",
    "    const flow = this.flow, length = Number(headers['content-length'] || 0);\n",
    "    if (this.isUp) {\n",
    "      if (headers.upgrade) this.words.push('Upgrade');\n",
    "      else if (/event-stream/.test(headers.accept)) this.words.push('event stream');\n",
    "      return;\n",
    "    }\n",
    "    flow.isChunked = /chunked/i.test(headers['transfer-encoding'] || '');\n",
    "    flow.isEvents = /event-stream/.test(headers['content-type'] || '');\n",
    "    if (flow.status === 101) {\n",
    "      this.conn.isSocket = true;\n",
    "      this.conn.up.mode = flow.mode = 'frame';\n",
    "    } else if (flow.isChunked) flow.mode = 'size';\n",
    "    else if (length) Object.assign(flow, { mode: 'body', left: length });\n",
    "    else this.ends = true;\n",
    "  }\n",
    "\n",
    "  takeBytes() {\n",
    "    const take = Math.min(this.flow.left, this.left), bytes = this.data.subarray(this.at, this.at + take);\n",
    "    this.at += take;\n",
    "    this.flow.left -= take;\n",
    "    return bytes;\n",
    "  }\n",
    "  body() {\n",
    "    this.content(utf8.decode(this.takeBytes()));\n",
    "    if (!this.flow.left) this.finish();\n",
    "    return true;\n",
    "  }\n",
    "  finish() {   // what had a length is whole\n",
    "    this.ends = this.flow.mode === 'body';\n",
    "    this.flow.mode = { body: 'head', chunk: 'crlf', payload: 'frame' }[this.flow.mode];\n",
    "  }\n",
    "  size() {\n",
    "    const line = this.line();\n",
    "    if (line === null) return false;\n",
    "    const size = parseInt(line, 16);\n",
    "    if (!/^[0-9a-f]+$/i.test(line)) throw new Error('no chunk');\n",
    "    this.add(line + '\\r\\n', 'chunk size', `hexadecimal ${line} = ${size} bytes` + (size ? '' : ': the last chunk'), 'RFC 9112 7.1');\n",
    "    Object.assign(this.flow, { left: size, mode: size ? 'chunk' : 'trailer' });\n",
    "    return true;\n",
    "  }\n",
    "  chunk() {\n",
    "    this.content(utf8.decode(this.takeBytes()));\n",
    "    if (!this.flow.left) this.finish();\n",
    "    return true;\n",
    "  }\n",
    "  crlf() {\n",
    "    if (this.line() === null) return false;\n",
    "    this.add('\\r\\n', 'end of chunk', '', 'RFC 9112 7.1');\n",
    "    this.flow.mode = 'size';\n",
    "    return true;\n",
    "  }\n",
    "  trailer() {\n",
    "    if (this.line() === null) return false;\n",
    "    this.add('\\r\\n', 'end of body', 'no trailer', 'RFC 9112 7.1.2');\n",
    "    this.flow.mode = 'head';\n",
    "    this.ends = true;\n",
    "    return true;\n",
    "  }\n",
    "\n",
    "  content(text) {\n",
    "    if (this.flow.isEvents) return this.events(text);\n",
    "    let meaning = 'JSON';\n",
    "    try {\n",
    "      const body = JSON.parse(text), count = body.messages ? body.messages.length : 0;\n",
    "      meaning = body.messages ? `cursor: where to go on; ${count} messages${body.gap ? '; gap: something is lost' : ''}` : body.reason || 'JSON';\n",
    "      if (body.messages && !count) this.words.push('nothing new');\n",
    "      if (body.gap) this.words.push('gap');\n",
    "      if (body.reconnect !== undefined) this.words.push('reconnect');\n",
    "    } catch (e) { meaning = 'JSON, a part of it'; }\n",
    "    this.add(text, 'payload', meaning, 'RFC 8259');\n",
    "  }\n",
    "  events(text) {\n",
    "    for (const line of text.split(/(?<=\\n)/)) {\n",
    "      const [, field, value] = /^(\\w*):? ?(.*)/.exec(line);\n",
    "      if (line === '\\n') this.add('\\n', 'empty line', 'the block ends: it is dispatched if it has data', 'HTML 9.2.6');\n",
    "      else if (line[0] === ':') this.add(line, 'comment', 'ignored: keeps the connection alive', 'HTML 9.2.6'), this.words.push('comment');\n",
    "      else this.add(line, field === 'data' ? 'payload' : field, (field === 'data' ? 'data: ' : '') + (SSE_FIELDS[field] || 'ignored'), 'HTML 9.2.6');\n",
    "      if (field === 'event') this.words.push('event ' + value);\n",
    "      if (field === 'retry') this.words.push('retry');\n",
    "    }\n",
    "  }\n",
    "\n",
    "  frame() {\n",
    "    const d = this.data, at = this.at;\n",
    "    if (this.left < 2) return false;\n",
    "    const len7 = d[at + 1] & 127, isMasked = d[at + 1] > 127, extra = len7 === 126 ? 2 : len7 === 127 ? 8 : 0, size = 2 + extra + (isMasked ? 4 : 0);\n",
    "    if (this.left < size) return false;\n",
    "    let length = extra ? 0 : len7;\n",
    "    for (let i = 0; i < extra; i++) length = length * 256 + d[at + 2 + i];\n",
    "    const f = { first: d[at], second: d[at + 1], opcode: d[at] & 15, extra: d.slice(at + 2, at + 2 + extra),\n",
    "      key: isMasked ? d.slice(at + 2 + extra, at + size) : null, length };\n",
    "    this.frames.push(f);\n",
    "    this.add(hexOf(d.subarray(at, at + size)), 'frame head', `${OPCODES[f.opcode] || 'opcode ' + f.opcode}, ${length} ` +\n",
    "      `bytes${isMasked ? ', masked' : ''}`, 'RFC 6455 5.2');\n",
    "    this.at += size;\n",
    "    Object.assign(this.flow, { frame: f, left: length, done: 0, mode: length ? 'payload' : 'frame' });\n",
    "    if (!length) this.words.push(OPCODES[f.opcode]);\n",
    "    return true;\n",
    "  }\n",
    "  payload() {\n",
    "    const flow = this.flow, { key, opcode } = flow.frame, bytes = this.takeBytes().map((b, i) => key ? b ^ key[(flow.done + i) % 4] : b);\n",
    "    flow.done += bytes.length;\n",
    "    if (!flow.left) this.finish();\n",
    "    const code = opcode === 8 && bytes.length >= 2 ? bytes[0] * 256 + bytes[1] : 0;\n",
    "    const text = code ? `${code} ${utf8.decode(bytes.subarray(2))}` : utf8.decode(bytes), type = (/^\\{\"type\":\"(\\w+)\"/.exec(text) || [])[1];\n",
    "    this.words.push(code ? 'close ' + code : opcode > 8 ? OPCODES[opcode] : type === 'message' ? '' : type || OPCODES[opcode]);\n",
    "    const standard = { 8: 'RFC 6455 5.5.1', 9: 'RFC 6455 5.5.2', 10: 'RFC 6455 5.5.3' }[opcode] || (key ? 'RFC 6455 5.3' : 'RFC 6455 5.6');\n",
    "    this.add(text, 'payload', (key ? 'unmasked by the key: ' : '') + (code ? 'close code and reason' :\n",
    "      type === 'message' ? 'rtpush.v1: id is the cursor behind it, data the message' : type ? `rtpush.v1: ${type}` : OPCODES[opcode]), standard);\n",
    "    return true;\n",
    "  }\n",
    "\n",
    "  label() {\n",
    "    const n = this.n, words = this.words.filter((w, i, all) => w && all.indexOf(w) === i);\n",
    "    if (n.length) words.push(n.length === 1 ? 'n ' + n[0] : `n ${n[0]}\\u2013${n[n.length - 1]}`);\n",
    "    return words.join(', ') || 'goes on';\n",
    "  }\n",
    "}\n",
    "const hexOf = b => Array.from(b, x => x.toString(16).padStart(2, '0')).join(' ');\n",
    "\n",
    "// =====================================================================================================================\n",
    "// The sequence diagram: one row an event, so time is downward but not to scale; a long silence is a wider row.\n",
    "// =====================================================================================================================\n",
    "const sequence = { items: [], due: [], timer: 0, held: [], y: 0, top: 0, isPaused: false, shown: new Set(), started: 0, count: 0 };\n",
    "const KEPT = 100, AT_ONCE = 24, DRAW_MS = 250;   // drawing costs more than all the rest: four times a second is enough\n",
    "\n",
    "function traced(batch) {\n",
    "  const items = batch.events.map(read).filter(Boolean);\n",
    "  const shown = sequence.isPaused || $('bytes').open ? [] : items.filter(i => sequence.shown.has(i.lane));\n",
    "  if (shown.length > AT_ONCE) {   // no eye follows more in a tenth of a second\n",
    "    const more = shown.splice(AT_ONCE / 2, shown.length - AT_ONCE);\n",
    "    shown[AT_ONCE / 2 - 1].label += ` (+${more.length} not drawn)`;\n",
    "    for (const item of more) item.isSkipped = true;\n",
    "  }\n",
    "  sequence.items.push(...items.filter(i => !i.isSkipped && !(sequence.isPaused || $('bytes').open)));\n",
    "  sequence.due.push(...shown);\n",
    "  if (shown.length && !sequence.timer) sequence.timer = setTimeout(drawDue, DRAW_MS);\n",
    "}\n",
    "function drawDue() {\n",
    "  const due = sequence.due.filter(i => sequence.shown.has(i.lane) && !i.g);\n",
    "  sequence.timer = 0;\n",
    "  sequence.due = [];\n",
    "  if (due.length) draw(due);\n",
    "}\n",
    "\n",
    "const newFlow = () => ({ mode: 'head', left: 0, rest: new Uint8Array(0) });\n",
    "\n",
    "// Events are missing from here on: every flow begins anew where a frame, chunk or head may begin.\n",
    "function lose(item, count) {\n",
    "  item.label += ` (+${count} not traced)`;\n",
    "  for (const conn of conns.values()) conn.up = resumed(conn, conn.up), conn.down = resumed(conn, conn.down);\n",
    "}\n",
    "const resumed = (conn, flow) => Object.assign(newFlow(), { isChunked: flow.isChunked, isEvents: flow.isEvents,\n",
    "  mode: conn.isSocket ? 'frame' : flow.mode !== 'head' && flow.isChunked ? 'size' : 'head' });\n",
    "\n",
    "function read(event) {\n",
    "  if (!lanes[event.lane]) return null;\n",
    "  let conn = conns.get(event.conn);\n",
    "  if (!conn) conns.set(event.conn, conn = { up: newFlow(), down: newFlow(), held: null });\n",
    "  const item = { us: event.us, lane: event.lane, conn: event.conn, dir: event.dir, size: event.size || 0, id: ++sequence.count };\n",
    "  if (event.dir === 'up' || event.dir === 'down') {\n",
    "    const reading = new Reading(event, conn);\n",
    "    Object.assign(item, { reading, label: reading.label(), n: reading.n });\n",
    "    hold(conn, item, reading);\n",
    "    if (event.more) lose(item, event.more);\n",
    "  } else {\n",
    "    item.label = { open: 'connection opens', close: 'connection closes', cut: 'cut: RST', swallowed: 'swallowed by the NAT' }[event.dir] || event.dir;\n",
    "    if (event.dir !== 'open' && event.dir !== 'swallowed') {\n",
    "      if (conn.held) conn.held.to = item;\n",
    "      conns.delete(event.conn);\n",
    "    }\n",
    "  }\n",
    "  return item;\n",
    "}\n",
    "\n",
    "// The server is at work on a request until its answer is whole: a bar on its life line. A stream has no end.\n",
    "function hold(conn, item, reading) {\n",
    "  if (reading.starts) sequence.held.push(conn.held = { from: item, to: null, lane: item.lane });\n",
    "  if (reading.ends && conn.held) {\n",
    "    conn.held.to = item;\n",
    "    conn.held = null;\n",
    "  }\n",
    "}\n",
    "\n",
    "function columns() {\n",
    "  const names = Object.keys(lanes).filter(n => sequence.shown.has(n)), gutter = 52, width = Math.max(280, $('scroll').clientWidth),\n",
    "    each = (width - gutter) / names.length;\n",
    "  const at = {};\n",
    "  names.forEach((name, i) => { at[name] = { from: gutter + each * (i + .13), to: gutter + each * (i + .87), mid: gutter + each * (i + .5) }; });\n",
    "  return { at, width };\n",
    "}\n",
    "\n",
    "function drawAll() {\n",
    "  const { at, width } = sequence.columns = columns();\n",
    "  $('diagram').replaceChildren(el('svg:g', { id: 'lives' }), el('svg:g', { id: 'holds' }), el('svg:g', { id: 'times' }), el('svg:g', { id: 'arrows' }));\n",
    "  $('heads').replaceChildren();\n",
    "  for (const [name, x] of Object.entries(at)) {\n",
    "    $('lives').append(...[x.from, x.to].map(p => el('svg:line', { class: 'life', x1: p, x2: p, y1: -100, y2: 1e7 })));\n",
    "    $('heads').append(el('div', { 'data-of': name, style: `left:${x.mid}px` }, el('strong', {}, NAMES[name])),\n",
    "      ...[[x.from, 'browser'], [x.to, 'server']].map(([p, text]) => el('div', { style: `left:${p}px;top:1.45rem` }, text)));\n",
    "  }\n",
    "  Object.assign(sequence, { y: 6, last: 0, width });\n",
    "  for (const item of sequence.items) item.g = null;\n",
    "  draw(sequence.items.filter(i => sequence.shown.has(i.lane)));\n",
    "}\n",
    "\n",
    "function draw(items) {\n",
    "  const box = $('scroll'), isAtEnd = box.scrollTop + box.clientHeight > box.scrollHeight - 40;\n",
    "  for (const item of items) {\n",
    "    if (!sequence.started) sequence.started = item.us;\n",
    "    const pause = sequence.last ? Math.max(0, item.us - sequence.last) / 1000 : 0;\n",
    "    sequence.y += 26 + 12 * Math.log10(1 + pause / 20);\n",
    "    sequence.last = item.us;\n",
    "    item.y = sequence.y;\n",
    "    $('arrows').append(item.g = arrow(item));\n",
    "    $('times').append(item.time = el('svg:text', { class: 'time', x: 46, y: item.y + 3, 'text-anchor': 'end' }, timeOf(item)));\n",
    "  }\n",
    "  prune();\n",
    "  drawHeld();\n",
    "  const top = sequence.items.length ? Math.max(0, Math.min(...sequence.items.slice(0, 40).map(i => i.y || Infinity)) - 40) : 0;\n",
    "  const from = isFinite(top) ? top : 0, height = Math.max(box.clientHeight - 50, sequence.y - from + 24), moved = from - sequence.top;\n",
    "  sequence.top = from;\n",
    "  $('diagram').setAttribute('viewBox', `0 ${from} ${sequence.width} ${height}`);\n",
    "  $('diagram').style.height = height + 'px';\n",
    "  if (isAtEnd) box.scrollTop = box.scrollHeight;\n",
    "  else if (moved > 0) box.scrollTop -= moved;\n",
    "  rove();\n",
    "  if ($('log').open) list();\n",
    "}\n",
    "\n",
    "function prune() {\n",
    "  const gone = sequence.items.splice(0, Math.max(0, sequence.items.length - KEPT));\n",
    "  for (const item of gone) {\n",
    "    if (item.g) item.g.remove(), item.time.remove();\n",
    "    item.g = null;\n",
    "  }\n",
    "  sequence.held = sequence.held.filter(h => !h.to || h.to.g || h.from.g);\n",
    "}\n",
    "\n",
    "function drawHeld() {\n",
    "  $('holds').replaceChildren(...sequence.held.filter(h => sequence.columns.at[h.lane]).map(h => {\n",
    "    const y = h.from.g ? h.from.y : sequence.top - 50, to = !h.to ? sequence.y + 1000 : h.to.g ? h.to.y : y + 8;\n",
    "    return el('svg:rect', { class: 'held', 'data-of': h.lane, x: sequence.columns.at[h.lane].to - 6, width: 12, y, height: Math.max(6, to - y) });\n",
    "  }));\n",
    "}\n",
    "\n",
    "const timeOf = item => ((item.us - sequence.started) / 1e6).toFixed(2);\n",
    "\n",
    "function arrow(item) {\n",
    "  const x = sequence.columns.at[item.lane], y = item.y, isUp = item.dir === 'up', isDown = item.dir === 'down';\n",
    "  const room = Math.floor((x.to - x.from) / 7), text = item.label.length > room ? item.label.slice(0, room - 1) + '\\u2026' : item.label;\n",
    "  const g = el('svg:g', { class: 'arrow', 'data-of': item.lane, 'data-dir': item.dir, 'data-id': item.id, 'data-n': (item.n || []).join(' ') || null,\n",
    "    role: 'button',\n",
    "    tabindex: -1, 'aria-label': `${NAMES[item.lane]}, ${timeOf(item)} s, ${isUp ? 'browser to server' : isDown ? 'server to browser' : ''}: ` +\n",
    "      `${item.label}, ${item.size} bytes` });\n",
    "  g.append(el('svg:rect', { class: 'hit', x: x.from - 4, y: y - 18, width: x.to - x.from + 8, height: 24, rx: 4 }));\n",
    "  if (isUp || isDown) {\n",
    "    const [a, b, back] = isUp ? [x.from, x.to - 6, -1] : [x.to - 6, x.from, 1];\n",
    "    g.append(el('svg:line', { x1: a, y1: y - 3, x2: b + back * 6, y2: y + 3 }), el('svg:path', { d: `M${b} ${y + 3}l${back * 11} -6v10z` }));\n",
    "  } else {\n",
    "    g.classList.add('mark');\n",
    "    if (item.dir === 'open' || item.dir === 'close') g.classList.add('calm');\n",
    "    g.append(el('svg:path', { d: item.dir === 'cut' || item.dir === 'swallowed' ? `M${x.mid - 6} ${y - 4}l12 10m0 -10l-12 10` :\n",
    "      `M${x.from} ${y + 2}H${x.to}` }));\n",
    "    if (item.dir === 'open' || item.dir === 'close') g.lastChild.setAttribute('stroke-dasharray', item.dir === 'open' ? '2 4' : '8 4');\n",
    "  }\n",
    "  g.append(el('svg:text', { x: x.mid, y: y - 5, 'text-anchor': 'middle' }, text));\n",
    "  return g;\n",
    "}\n",
    "\n",
    "// One arrow is in the order of tabs; the arrow keys go to the others.\n",
    "function rove(to) {\n",
    "  const all = Array.from($('arrows').children);\n",
    "  const current = to || all.find(g => g.tabIndex === 0) || all[all.length - 1];\n",
    "  for (const g of all) if (g.tabIndex === 0 && g !== current) g.setAttribute('tabindex', -1);\n",
    "  if (current) current.setAttribute('tabindex', 0);\n",
    "  if (to) to.focus({ preventScroll: true }), to.scrollIntoView({ block: 'nearest' });\n",
    "}\n",
    "function onArrowKey(e) {\n",
    "  const g = e.target.closest('.arrow'), step = { ArrowDown: 'nextElementSibling', ArrowUp: 'previousElementSibling' }[e.key];\n",
    "  if (!g) return;\n",
    "  if (e.key === 'Enter' || e.key === ' ') openBytes(itemOf(g));\n",
    "  else if (step && g[step]) rove(g[step]);\n",
    "  else if (e.key === 'Home' || e.key === 'End') rove(e.key === 'Home' ? g.parentNode.firstChild : g.parentNode.lastChild);\n",
    "  else if (!step) return;\n",
    "  e.preventDefault();\n",
    "}\n",
    "const itemOf = g => sequence.items.find(i => i.id === Number(g.dataset.id));\n",
    "\n",
    "function list() {\n",
    "  const from = { up: 'browser', down: 'server' };\n",
    "  $('log').querySelector('tbody').replaceChildren(...sequence.items.filter(i => sequence.shown.has(i.lane)).slice(-30).map(i =>\n",
    "    el('tr', {}, el('td', {}, timeOf(i)), el('td', {}, NAMES[i.lane]), el('td', {}, from[i.dir] || ''), el('td', {}, i.label), el('td', {}, whole(i.size)))));\n",
    "}\n",
    "\n",
    "function pause(is) {\n",
    "  sequence.isPaused = is;\n",
    "  $('pause').setAttribute('aria-pressed', is);\n",
    "  $('pause').textContent = is ? 'Go on' : 'Pause';\n",
    "}\n",
    "\n",
    "function makeSequence() {\n",
    "  for (const name of Object.keys(lanes)) {\n",
    "    const isShown = innerWidth > 768 || name === 'ws', box = el('input', { type: 'checkbox', id: 'show-' + name, value: name });\n",
    "    box.checked = isShown;\n",
    "    if (isShown) sequence.shown.add(name);\n",
    "    box.onchange = () => { box.checked ? sequence.shown.add(name) : sequence.shown.delete(name); drawAll(); };\n",
    "    $('shown').append(el('label', { class: 'small' }, box, ' ' + NAMES[name]));\n",
    "  }\n",
    "  $('diagram').onclick = e => { const g = e.target.closest('.arrow'); if (g) rove(g), openBytes(itemOf(g)); };\n",
    "  $('diagram').onkeydown = onArrowKey;\n",
    "  $('pause').onclick = () => pause(!sequence.isPaused);\n",
    "  $('log').ontoggle = list;\n",
    "  let width = -1;\n",
    "  new ResizeObserver(() => { if (width !== $('scroll').clientWidth) width = $('scroll').clientWidth, drawAll(); }).observe($('scroll'));\n",
    "}\n",
    "\n",
    "// --- an arrow's bytes ---\n",
    "\n",
    "// As code: CR and LF by name, other control characters as dots.\n",
    "const visible = text => el('code', {}, ...text.replace(/[^\\n\\r\\x20-\\uffff]/g, '\\u00b7').split(/([\\r\\n])/).filter(Boolean)\n",
    "  .map(t => t === '\\r' ? el('i', {}, 'CR') : t === '\\n' ? el('i', {}, 'LF') : t));\n",
    "const bit = (x, i) => x >> i & 1;\n",
    "\n",
    "function field(name, cells, note) {\n",
    "  return el('div', { class: 'field' + (name === 'masking key' ? ' key' : ''), 'data-field': name },\n",
    "    el('span', {}, ...cells.map(c => el('i', {}, String(c)))), el('b', {}, name), note);\n",
    "}\n",
    "function frameOf(f) {   // RFC 6455 5.2, drawn\n",
    "  const { first, second, opcode, extra, key } = f, len7 = second & 127, bytesOf = b => Array.from(b, x => x.toString(16).padStart(2, '0'));\n",
    "  const box = el('div', { class: 'frame', role: 'img', 'aria-label': `Frame: FIN ${bit(first, 7)}, opcode ${opcode} ${OPCODES[opcode] || ''}, MASK ` +\n",
    "    `${bit(second, 7)}, length ${f.length}` },\n",
    "    field('FIN', [bit(first, 7)], bit(first, 7) ? 'last' : 'more follow'), field('RSV1', [bit(first, 6)], ''), field('RSV2', [bit(first, 5)], ''),\n",
    "      field('RSV3', [bit(first, 4)], ''),\n",
    "    field('opcode', [3, 2, 1, 0].map(i => bit(first, i)), `${opcode}: ${OPCODES[opcode] || 'reserved'}`),\n",
    "      field('MASK', [bit(second, 7)], bit(second, 7) ? 'client' : 'server'),\n",
    "    field('length', [6, 5, 4, 3, 2, 1, 0].map(i => bit(second, i)), len7 < 126 ? len7 +\n",
    "      ' bytes' : len7 === 126 ? '126: 16 bits follow' : '127: 64 bits follow'));\n",
    "  if (extra.length) box.append(field('extended length', bytesOf(extra), f.length + ' bytes'));\n",
    "  if (key) box.append(field('masking key', bytesOf(key), '32 bits'));\n",
    "  box.append(field('payload', ['\\u2026'], f.length + ' bytes'));\n",
    "  return box;\n",
    "}\n",
    "\n",
    "function hexDump(b) {\n",
    "  const lines = [];\n",
    "  for (let i = 0; i < b.length; i += 16) {\n",
    "    const row = b.slice(i, i + 16);\n",
    "    lines.push(i.toString(16).padStart(4, '0') + '  ' + hexOf(row).padEnd(48) + ' ' + latin1(row).replace(/[^\\x20-\\x7e]/g, '.'));\n",
    "  }\n",
    "  return lines.join('\\n');\n",
    "}\n",
    "\n",
    "function openBytes(item) {\n",
    "  if (!item) return;\n",
    "  const r = item.reading, isUp = item.dir === 'up', box = $('bytes');\n",
    "  Object.assign(box.dataset, { id: item.id, of: item.lane, dir: item.dir });\n",
    "  $('bytes-title').textContent = `${NAMES[item.lane]}: ${item.label}`;\n",
    "  $('bytes-about').textContent = (r ? isUp ? 'Browser to server. ' : 'Server to browser. ' : '') +\n",
    "    `${timeOf(item)} s, ${whole(item.size)} bytes, connection ${item.conn}.`;\n",
    "  $('frames').replaceChildren(...(r ? r.frames.slice(0, 6).map(frameOf) : []));\n",
    "  $('parts').querySelector('tbody').replaceChildren(...(r ? r.parts : []).map(([text, name, meaning, standard]) =>\n",
    "    el('tr', { 'data-part': name }, el('td', {}, text ? visible(text.length > 1200 ? text.slice(0, 1200) + '\\u2026' : text) : ''),\n",
    "      el('th', { scope: 'row' }, name),\n",
    "      el('td', {}, meaning), el('td', {}, standard.replace(/^(RFC \\d+|HTML|Fetch) ([\\d.]+)$/, '$1 \\u00a7 $2')))));\n",
    "  $('parts').hidden = !r || !r.parts.length;\n",
    "  $('hex').textContent = r ? hexDump(r.bytes) : '';\n",
    "  $('hex').parentNode.hidden = !r;\n",
    "  for (const [id, by] of [['bytes-back', -1], ['bytes-next', 1]]) {\n",
    "    const next = neighbour(item, by);\n",
    "    $(id).disabled = !next;\n",
    "    $(id).onclick = () => openBytes(next);\n",
    "  }\n",
    "  if (!box.open) box.showModal();\n",
    "  $('bytes-title').focus();\n",
    "  box.scrollTop = 0;\n",
    "}\n",
    "function neighbour(item, by) {\n",
    "  const all = sequence.items.filter(i => i.lane === item.lane);\n",
    "  return all[all.indexOf(item) + by] || null;\n",
    "}\n",
    "\n",
    "// =====================================================================================================================\n",
    "// Lessons. Each sets the controls, asks, runs, and computes what it says from what was measured.\n",
    "//   guess   what is to be predicted: a unit, or a list of choices\n",
    "//   run     measures, by a Run; gives { hand, measured, rows: [[what, by hand, measured]], text, charts }\n",
    "// =====================================================================================================================\n",
    "const T = isFast ? 0.5 : 1;   // ?fast=1: half the time, for tests\n",
    "\n",
    "// What a run may do: set, wait with the progress bar, ask the server.\n",
    "class Run {\n",
    "  constructor(seconds) { Object.assign(this, { seconds, from: performance.now(), isStopped: false }); }\n",
    "\n",
    "  check() { if (this.isStopped) throw new Error('stopped'); }\n",
    "  phase(text) { $('lesson-phase').textContent = text; }\n",
    "  progress() {\n",
    "    const gone = (performance.now() - this.from) / 1000;\n",
    "    $('lesson-bar').value = Math.min(.99, gone / this.seconds);\n",
    "    $('lesson-left').textContent = `${Math.max(0, Math.ceil(this.seconds - gone))} s left`;\n",
    "  }\n",
    "  async wait(time) {\n",
    "    for (const end = performance.now() + time, left = () => end - performance.now(); left() > 0; this.check()) {\n",
    "      await sleep(Math.min(100, left()));\n",
    "      this.progress();\n",
    "    }\n",
    "  }\n",
    "  async until(is, time) {\n",
    "    for (const end = performance.now() + time; performance.now() < end; await this.wait(150)) if (await is()) return true;\n",
    "    return false;\n",
    "  }\n",
    "  // The lesson's settings on top of the defaults; then all connections are there, and the counters begin.\n",
    "  async start(values) {\n",
    "    await set(Object.assign({}, DEFAULTS, { rate: 0 }, values));\n",
    "    await this.connected();\n",
    "    await reset();\n",
    "  }\n",
    "  connected() {\n",
    "    this.phase('Connecting');\n",
    "    return this.until(async () => {\n",
    "      const f = await stats();\n",
    "      return Object.values(lanes).every(l => l.state === 'open' && f.lanes[l.name].clients.open >= f.lanes[l.name].clients.want);\n",
    "    }, 8000);\n",
    "  }\n",
    "  async publish(rate, time) {\n",
    "    await set({ rate });\n",
    "    await this.wait(time);\n",
    "    await set({ rate: 0 });\n",
    "  }\n",
    "  async figures() {\n",
    "    const f = this.last = await stats();\n",
    "    take(f);\n",
    "    return f;\n",
    "  }\n",
    "}\n",
    "\n",
    "// The mean over the C clients and this browser, in ms; likewise sums of what they counted.\n",
    "function meanOf(f, name) {\n",
    "  const c = f.lanes[name].clients.latency, own = lanes[name];\n",
    "  return (c.count * c.mean_us + own.sum) / (c.count + own.latencies.length) / 1000;\n",
    "}\n",
    "const OWN = { received: 'received', lost: 'lostCount', gap: 'gapCount', replayed: 'replayed', doubled: 'doubled', reconnects: 'reconnects' };\n",
    "const countOf = (f, name, what) => f.lanes[name].clients[what] + lanes[name][OWN[what]];\n",
    "const sumOf = (f, what) => Object.keys(lanes).reduce((sum, name) => sum + countOf(f, name, what), 0);\n",
    "const readersOf = (f, name) => f.lanes[name].clients.want + 1;   // and this browser\n",
    "const worst = slots => Math.max(0, ...slots.map((n, i) => n + (slots[i + 1] || 0)));   // two slots: a fifth of a second\n",
    "const percent = x => number(x) + ' %';\n",
    "const times = (n, one, many = one + 's') => `${number(n)} ${Number(number(n)) === 1 ? one : many}`;\n",
    "\n",
    "const LESSONS = [\n",
    "  { id: 'polling', title: 'Cost of polling', seconds: 2.5 + 18 * T, guess: 'polls of 100', interval: 500, clients: 20,\n",
    "    get rate() { return 1000 / (2.618 * this.interval); },   // no multiple: each message falls elsewhere between two polls\n",
    "    about() { return `${this.clients} C clients and this browser ask every ${this.interval} ms; as many wait on a WebSocket. Somebody publishes ` +\n",
    "      `${number(this.rate)} messages a second.`; },\n",
    "    question: 'Of 100 short polls, how many find nothing new?',\n",
    "    async run(run) {\n",
    "      await run.start({ interval: this.interval, clients_short: this.clients, clients_ws: this.clients });\n",
    "      run.phase('Publishing');\n",
    "      await run.publish(this.rate, 18000 * T);\n",
    "      await run.wait(this.interval + 200);     // until all have asked once more\n",
    "      const f = await run.figures(), s = f.lanes.short, w = f.lanes.ws, n = readersOf(f, 'short');\n",
    "      const polls = n * f.seconds * 1000 / this.interval, empty = polls - n * f.published, hand = empty / polls * 100, measured = s.empty / s.requests * 100;\n",
    "      const mean = meanOf(f, 'short'), fast = meanOf(f, 'ws'), cost = l => (l.bytes_in + l.bytes_out) / l.delivered;\n",
    "      return { hand, measured, unit: 'of 100', rows: [\n",
    "        ['requests', polls, s.requests, `${n} readers x ${number(f.seconds)} s / ${number(this.interval / 1000)} s`],\n",
    "        ['empty answers', empty, s.empty, `requests - ${n} readers x ${f.published} messages`],\n",
    "        ['mean latency, ms', this.interval / 2, mean, 'half the interval'],\n",
    "        ['requests of the WebSocket lane', 0, w.requests, 'it is open already']],\n",
    "        text: `${percent(measured)} of the polls found nothing, and what was found was ${number(mean)} ms old on average: half of the ` +\n",
    "          `${this.interval} ms between two polls. ` +\n",
    "          `A message cost ${bytes(cost(s))} by short poll and ${bytes(cost(w))} by WebSocket, where it came after ${number(fast)} ms. ` +\n",
    "          `A shorter interval buys latency with requests: half the latency is ${number(2 * s.requests / f.seconds)} requests a second instead of ` +\n",
    "            `${number(s.requests / f.seconds)}.` };\n",
    "    } },\n",
    "\n",
    "  { id: 'batches', title: 'Why long poll batches', seconds: 4 + 10 * T, guess: 'messages', latency: 200, clients: 5,\n",
    "    get rate() { return 4000 / this.latency; },\n",
    "    about() { return `The path takes ${this.latency} ms in each direction. Somebody publishes ${number(this.rate)} messages a second, one at a time.`; },\n",
    "    question: 'How many messages does one answer of the long poll carry?',\n",
    "    async run(run) {\n",
    "      await run.start({ latency: this.latency, clients_long: this.clients, clients_ws: this.clients });\n",
    "      run.phase('Publishing');\n",
    "      await run.publish(this.rate, 10000 * T);\n",
    "      await run.wait(4 * this.latency);\n",
    "      const f = await run.figures(), l = f.lanes.long, trip = 2 * this.latency / 1000, hand = this.rate * trip,\n",
    "        measured = l.delivered / (l.requests - l.empty);\n",
    "      const mean = meanOf(f, 'long'), fast = meanOf(f, 'ws'), w = f.lanes.ws, over = x => (x.bytes_in + x.bytes_out - x.payload) / x.delivered;\n",
    "      return { hand, measured, unit: 'messages', rows: [\n",
    "        ['messages an answer', hand, measured, `${number(this.rate)} a second x ${number(trip)} s for a round trip`],\n",
    "        ['mean latency of long poll, ms', 2 * this.latency, mean, 'half a round trip until the next request is there, then one way'],\n",
    "        ['mean latency of WebSocket, ms', this.latency, fast, 'one way']],\n",
    "        text: `After an answer the server has no request to answer for a whole round trip of ${number(trip * 1000)} ms. What is published meanwhile ` +\n",
    "          `waits for the next request: ` +\n",
    "          `${times(measured, 'message')} an answer, ${number(mean - fast)} ms later than by WebSocket on average. It has a good side, too: ` +\n",
    "          `headers are shared, so that a message costs ${bytes(over(l))} around its payload (WebSocket ${bytes(over(w))}).` };\n",
    "    } },\n",
    "\n",
    "  { id: 'nat', title: 'Heartbeats and NAT', seconds: isFast ? 17 : 20, guess: 'of 5 messages', clients: 5, nat: 2, beat: 1000, silence: isFast ? 2800 : 3500,\n",
    "    about() { return `Between browser and server a NAT forgets a connection that was silent for ${this.nat} s, and tells nobody. After ` +\n",
    "      `${this.silence / 1000} s of silence five messages are published. First the heartbeat is every 20 s, then every ${this.beat / 1000} s.`; },\n",
    "    question: 'With the heartbeat every 20 s: how many of the five does a WebSocket client have one second later?',\n",
    "    async half(run, values) {\n",
    "      await set(values);\n",
    "      await act('cut');                  // connections that the NAT has not forgotten\n",
    "      await run.wait(1200);\n",
    "      await run.connected();\n",
    "      const late = countOf(await run.figures(), 'ws', 'received') / readersOf(figures, 'ws');\n",
    "      await reset();\n",
    "      run.phase(`Silence, heartbeat every ${values.heartbeat / 1000} s`);\n",
    "      const before = (await stats()).lanes.ws.bytes_out;\n",
    "      await run.wait(this.silence);\n",
    "      const silent = (await stats()).lanes.ws.bytes_out - before;\n",
    "      for (let i = 0; i < 5; i++, await run.wait(100)) await act('publish');\n",
    "      run.phase('Five messages, one second');\n",
    "      await run.wait(1000);\n",
    "      const f = await run.figures(), got = name => countOf(f, name, 'received') / readersOf(f, name);\n",
    "      return { ws: got('ws'), sse: got('sse'), long: got('long'), short: got('short'), beat: silent / readersOf(f, 'ws') / this.silence * 1000, late };\n",
    "    },\n",
    "    async run(run) {\n",
    "      const base = { nat: this.nat, interval: this.nat * 250, clients_ws: this.clients, clients_sse: this.clients };\n",
    "      await run.start(base);\n",
    "      const a = await this.half(run, Object.assign({ heartbeat: 20000 }, base)), b = await this.half(run,\n",
    "        Object.assign({ heartbeat: this.beat, wait: 1000 }, base));\n",
    "      return { hand: 0, measured: a.ws, unit: 'of 5', rows: [\n",
    "        ['WebSocket, heartbeat every 20 s', 0, a.ws, `20 s > ${this.nat} s: forgotten`],\n",
    "          [`WebSocket, heartbeat every ${this.beat / 1000} s`, 5, b.ws, `${this.beat / 1000} s < ${this.nat} s: remembered`],\n",
    "        ['SSE, heartbeat every 20 s', 0, a.sse, ''], [`SSE, heartbeat every ${this.beat / 1000} s`, 5, b.sse, ''],\n",
    "        ['long poll, held for 25 s', 0, a.long, ''], ['long poll, held for 1 s', 5, b.long, 'its heartbeat is to be held shorter'],\n",
    "        [`short poll every ${this.nat / 4} s`, 5, a.short, 'never silent']],\n",
    "        text: `Of five messages a WebSocket client had ${number(a.ws)} with the heartbeat every 20 s, and ${number(b.ws)} with one every ` +\n",
    "          `${this.beat / 1000} s; nothing had broken that anybody could see. ` +\n",
    "          `A heartbeat must come more often than the path forgets, and it is what tells a client that its connection is dead. It costs ` +\n",
    "            `${number(b.beat)} bytes a second for each connection here. ` +\n",
    "          `After the cut each came back with its cursor and had ${number(b.late)} of the first five: late, not lost.` };\n",
    "    } },\n",
    "\n",
    "  { id: 'sequence', title: 'Sequence numbers', seconds: isFast ? 12.5 : 14.5, guess: 'messages', clients: 10, rate: 20,\n",
    "    about() { return `${this.rate} messages a second. All connections are cut; everybody is back after one second. First they come back without a ` +\n",
    "      `cursor (at most once), then with the last id they have.`; },\n",
    "    question: 'Without a cursor: how many messages does a WebSocket reader lose at one cut?',\n",
    "    async half(run, resume) {\n",
    "      await run.start({ resume, jitter: 0, interval: 500, clients_ws: this.clients, clients_sse: this.clients, clients_long: this.clients });\n",
    "      run.phase(resume ? 'With a cursor' : 'Without a cursor');\n",
    "      await set({ rate: this.rate });\n",
    "      await run.wait(1500);\n",
    "      await act('cut');\n",
    "      await run.wait(isFast ? 2500 : 3500);\n",
    "      await set({ rate: 0 });\n",
    "      await run.wait(700);\n",
    "      const f = await run.figures(), of = (name, what) => countOf(f, name, what) / readersOf(f, name);\n",
    "      return { lost: of('ws', 'lost'), sse: of('sse', 'lost'), long: of('long', 'lost'), short: of('short', 'lost'), replayed: of('ws', 'replayed'),\n",
    "        all: sumOf(f, 'lost'), doubled: sumOf(f, 'doubled') };\n",
    "    },\n",
    "    async run(run) {\n",
    "      const a = await this.half(run, 0), b = await this.half(run, 1), hand = this.rate * 1;\n",
    "      return { hand, measured: a.lost, unit: 'messages', rows: [\n",
    "        ['lost without a cursor: WebSocket', hand, a.lost, `${this.rate} a second x 1 s away`], ['... SSE', hand, a.sse, ''],\n",
    "        ['... long poll', 0, a.long, 'each request has its own cursor; a GET that broke is sent again'],\n",
    "          ['... short poll', 0, a.short, 'between two polls there is nothing to cut'],\n",
    "        ['lost with a cursor: all lanes', 0, b.all, 'the server has them'], ['replayed with a cursor: WebSocket', hand, b.replayed,\n",
    "          'what was lost before'], ['doubled', 0, b.doubled, 'a cursor says exactly where']],\n",
    "        text: `Without a cursor each WebSocket reader lost ${times(a.lost, 'message')} in one second away, and nothing told it: only the hole in n ` +\n",
    "          `shows it. With the last id it got ` +\n",
    "          `${number(b.replayed)} of them again and lost ${number(b.all)}. A connection does not deliver messages; a log with numbers does, and the ` +\n",
    "            `connection only carries them.` };\n",
    "    } },\n",
    "\n",
    "  { id: 'herd', title: 'Thundering herd', seconds: 10.5, guess: 'connections', clients: isFast ? 200 : 500,\n",
    "    about() { return `${this.clients} WebSocket clients lose their connection at the same moment. First each comes back after a random time below one ` +\n",
    "      `second (full jitter), then after exactly one second.`; },\n",
    "    question: 'With jitter: how many connect in the worst fifth of a second?',\n",
    "    async half(run, jitter) {\n",
    "      await set({ jitter });\n",
    "      run.phase(jitter ? 'Cut, with jitter' : 'Cut, without jitter');\n",
    "      const from = performance.now();\n",
    "      await act('cut', 'ws');\n",
    "      await run.wait(3500);\n",
    "      const f = await run.figures();\n",
    "      return f.lanes.ws.accepts.slice(-Math.ceil((performance.now() - from) / 100 + 1));\n",
    "    },\n",
    "    async run(run) {\n",
    "      await run.start({ clients_ws: this.clients, rate: 0 });\n",
    "      await run.wait(400);\n",
    "      const b = await this.half(run, 1);\n",
    "      await run.connected();\n",
    "      await run.wait(500);\n",
    "      const a = await this.half(run, 0), n = this.clients + 1, hand = n * 200 / 1000, total = b.reduce((x, y) => x + y, 0);\n",
    "      return { hand, measured: worst(b), unit: 'connections', rows: [\n",
    "        ['worst fifth of a second without jitter', n, worst(a), 'all at once'], ['worst fifth of a second with jitter', hand, worst(b),\n",
    "          `${n} x 0.2 s / 1 s`]],\n",
    "        charts: [{ title: 'Connections accepted in each tenth of a second', step: '0.1 s', series: [['all after one second', a], ['with jitter', b]] }],\n",
    "        text: `Without jitter ${times(worst(a), 'client')} knocked within a fifth of a second; with it ${number(worst(b))}, and all ${number(total)} ` +\n",
    "          `were back as well. ` +\n",
    "          `The random time spreads the same work over ${number(worst(a) / worst(b))} times the time. A server that takes 100 handshakes a second ` +\n",
    "            `would have had a queue of ${number(worst(a) / 100)} s.` };\n",
    "    } },\n",
    "\n",
    "  { id: 'slow', title: 'Slow reader', seconds: isFast ? 23 : 25, guess: '%', size: 16384, rate: 100, throttle: 400000, history: 200, clients: 2,\n",
    "    about() { return `${this.rate} messages of 16 KiB a second are published; each connection gets ${this.throttle / 1000} kB a second. The server ` +\n",
    "      `keeps ${this.history} messages. First a reader that falls behind them is told of a gap and goes on from the oldest held (skip), then from the ` +\n",
    "        `newest (latest).`; },\n",
    "    question: 'Policy skip: which share of the messages reaches a WebSocket reader?',\n",
    "    async half(run, slow) {\n",
    "      await set({ throttle: 0, rate: 0 });\n",
    "      await act('cut');                  // nothing old is on its way\n",
    "      await run.wait(1200);\n",
    "      await run.start({ slow, size: this.size, history: this.history, throttle: this.throttle, interval: 60000, clients_ws: this.clients });\n",
    "      run.phase('Policy ' + slow);\n",
    "      await set({ rate: this.rate });\n",
    "      await run.wait(isFast ? 6000 : 7000);\n",
    "      const f = await run.figures(), n = readersOf(f, 'ws'), last = lanes.ws.latencies.slice(-20);\n",
    "      return { share: countOf(f, 'ws', 'received') / n / f.published * 100, gap: countOf(f, 'ws', 'gap') / n, lost: countOf(f, 'ws', 'lost'),\n",
    "        published: f.published,\n",
    "        age: last.reduce((sum, us) => sum + us, 0) / last.length / 1e6, memory: f.lanes.ws.server.memory };\n",
    "    },\n",
    "    async run(run) {\n",
    "      const a = await this.half(run, 'skip'), b = await this.half(run, 'latest'), hand = this.throttle / (this.rate * this.size) * 100;\n",
    "      return { hand, measured: a.share, unit: '%', rows: [\n",
    "        ['share that arrived, skip, %', hand, a.share, `${this.throttle} B/s / (${this.rate} a second x ${this.size} B)`],\n",
    "          ['share that arrived, latest, %', hand, b.share, 'the path is as narrow'],\n",
    "        ['missing and not told, both', 0, a.lost + b.lost, 'every hole is told as a gap'],\n",
    "        ['age of what came last, skip, s', this.history / this.rate, a.age, `at least: ${this.history} held / ${this.rate} a second, and what is on ` +\n",
    "          `the path`],\n",
    "        ['age of what came last, latest, s', '', b.age, 'from nothing up to the same, again and again']],\n",
    "        text: `${percent(a.share)} arrived, which is what the path carries; of the rest each reader was told (${number(a.gap)} messages in gaps so ` +\n",
    "          `far), and ${number(a.lost + b.lost)} were missing untold. ` +\n",
    "          `The publisher never waited: ${number(a.published)} messages went into the log, and the server held ${bytes(a.memory)} for this lane, for a ` +\n",
    "            `slow reader costs a position in the log, not a queue. ` +\n",
    "          `What came last was ${number(a.age)} s old with skip and ${number(b.age)} s with latest: prices want latest, a chat wants skip or close.` };\n",
    "    } },\n",
    "\n",
    "  { id: 'drain', title: 'Drain', seconds: isFast ? 18 : 20.5, guess: ['nothing', 'what was published while it was away', 'what was on its way'],\n",
    "    answer: 0, clients: isFast ? 100 : 200, rate: 20,\n",
    "    about() { return `A deploy. ${this.clients} WebSocket clients and ${this.rate} messages a second. First the server is simply restarted (away for ` +\n",
    "      `a second), then it drains over 2 s: it sends each client away with a delay of its own.`; },\n",
    "    question: 'What does a reader that comes back with its cursor lose at the drain?',\n",
    "    async half(run, what, time) {\n",
    "      await run.start({ interval: 500, clients_ws: this.clients });\n",
    "      run.phase(what === 'drain' ? 'Drain' : 'Restart');\n",
    "      await set({ rate: this.rate });\n",
    "      await run.wait(1000);\n",
    "      const from = performance.now();\n",
    "      await act(what, 'ws');\n",
    "      await run.wait(time);\n",
    "      const accepts = (await run.figures()).lanes.ws.accepts.slice(-Math.ceil((performance.now() - from) / 100 + 1));\n",
    "      await set({ rate: 0 });\n",
    "      await run.connected();\n",
    "      await run.wait(500);\n",
    "      const f = await run.figures();\n",
    "      return { accepts, lost: sumOf(f, 'lost') + sumOf(f, 'gap'), received: countOf(f, 'ws', 'received'), due: f.published * readersOf(f, 'ws'),\n",
    "        back: countOf(f, 'ws', 'reconnects') };\n",
    "    },\n",
    "    async run(run) {\n",
    "      const a = await this.half(run, 'restart', isFast ? 4000 : 5000), b = await this.half(run, 'drain', isFast ? 6000 : 7000), n = this.clients + 1;\n",
    "      return { hand: 0, measured: b.lost ? 1 : 0, rows: [\n",
    "        ['messages lost at the restart', 0, a.lost, 'the log is kept, the cursor says where'], ['messages lost at the drain', 0, b.lost, ''],\n",
    "        ['messages that the WebSocket readers got at the drain', b.due, b.received, `${number(b.due / n)} x ${n} readers`],\n",
    "        ['worst fifth of a second at the restart', '', worst(a.accepts), 'connections'],\n",
    "          ['worst fifth of a second at the drain', n * .2 / 4, worst(b.accepts), `${n} x 0.2 s / 4 s: closed within 2 s, each told a delay of up to 2 s`]],\n",
    "        charts: [{ title: 'Connections accepted in each tenth of a second', step: '0.1 s', series: [['restart', a.accepts], ['drain', b.accepts]] }],\n",
    "        text: `At the drain ${number(b.received)} of ${number(b.due)} messages reached the WebSocket readers, ` +\n",
    "          `${b.lost ? number(b.lost) + ' were lost' : 'none was lost'}; at the restart ${number(a.lost)} were lost. ` +\n",
    "          `The restart let ${times(worst(a.accepts), 'client')} connect in its worst fifth of a second, the drain ${number(worst(b.accepts))}, since ` +\n",
    "            `each was told another moment. ` +\n",
    "          `With a second server the drained clients would find it at once: nobody would wait.` };\n",
    "    } },\n",
    "\n",
    "  { id: 'fallback', title: 'Fallback', seconds: isFast ? 9 : 12, guess: ['WebSocket', 'SSE', 'long poll', 'short poll'], answer: 2,\n",
    "    about: () => 'The WebSocket lane may fall back: WebSocket, SSE, long poll, short poll, in that order. ' +\n",
    "      'Then a middlebox answers Upgrade by 403, and another one holds SSE answers back.',\n",
    "    question: 'With both middleboxes: on which transport does the WebSocket lane end?',\n",
    "    async half(run, values, text) {\n",
    "      await set(Object.assign({ rate: 4 }, values));\n",
    "      run.phase(text);\n",
    "      await act('cut', 'ws');\n",
    "      await run.wait(600);\n",
    "      const from = performance.now();\n",
    "      await run.until(() => lanes.ws.state === 'open', 9000);\n",
    "      await run.wait(isFast ? 900 : 1500);\n",
    "      await set({ rate: 0 });\n",
    "      await run.wait(400);                 // nobody is between two polls\n",
    "      const f = await run.figures(), s = f.lanes.ws.server;\n",
    "      return { via: lanes.ws.via, state: lanes.ws.state, ms: (lanes.ws.openedAt / 1000 - now() / 1000) + performance.now() - from, mean: lanes.ws.mean / 1000,\n",
    "        got: lanes.ws.received, kinds: `${s.websockets} WebSocket, ${s.event_streams} SSE, ${s.parked_polls} long poll` };\n",
    "    },\n",
    "    async run(run) {\n",
    "      await run.start({ fallback: 1 });\n",
    "      const steps = [await this.half(run, {}, 'Nothing in the way'), await this.half(run, { block: 1 }, 'Upgrade is blocked'),\n",
    "        await this.half(run, { block: 1, buffer: 1 }, 'SSE is buffered, too')];\n",
    "      const names = ['websocket', 'sse', 'longpoll', 'shortpoll'], at = s => this.guess[names.indexOf(s.via)], lost = lanes.ws.lostCount;\n",
    "      return { hand: 2, measured: names.indexOf(steps[2].via), rows: [\n",
    "        ['nothing in the way', 'WebSocket', at(steps[0]), ''], ['Upgrade blocked', 'SSE', at(steps[1]), 'a 403 is seen at once'],\n",
    "        ['and SSE buffered', 'long poll', at(steps[2]), `no byte within ${Lane.firstByte / 1000} s`],\n",
    "          ['open on the server then', '0 WebSocket, 0 SSE, 1 long poll', steps[2].kinds, ''],\n",
    "        ['messages lost over it', 0, lost, 'one cursor serves all four']],\n",
    "        text: `The lane went from ${at(steps[0])} to ${at(steps[1])} to ${at(steps[2])} and lost ${times(lost, 'message')} of ` +\n",
    "          `${number(lanes.ws.lostCount + lanes.ws.received)}: the cursor is the same on every transport. ` +\n",
    "          `A refused Upgrade is seen at once; a middlebox that buffers says nothing, so the client gives SSE ${Lane.firstByte / 1000} s and goes on. ` +\n",
    "          `A long poll's answer has an end, and whoever buffers lets it go: that is why it is kept as the last but one.` };\n",
    "    } },\n",
    "];\n",
    "\n",
    "// --- a lesson's course: question, prediction, run, result ---\n",
    "\n",
    "const course = { lesson: null, state: 'none', guess: null, result: null, run: null };\n",
    "\n",
    "function makeLessons() {\n",
    "  LESSONS.forEach((lesson, i) => {\n",
    "    const button = el('button', { id: 'lesson-' + lesson.id, 'aria-pressed': 'false' }, el('b', { 'aria-hidden': 'true' }, String(i + 1)), lesson.title);\n",
    "    button.onclick = () => openLesson(lesson);\n",
    "    $('lessons').append(el('li', {}, button));\n",
    "  });\n",
    "  $('lesson-form').onsubmit = e => { e.preventDefault(); runLesson(); };\n",
    "  $('lesson-stop').onclick = () => { if (course.run) course.run.isStopped = true; };\n",
    "  $('lesson-close').onclick = () => closeLesson();\n",
    "  $('go-on').onclick = () => goOn().catch(e => say(e.message, true));\n",
    "}\n",
    "\n",
    "function openLesson(lesson) {\n",
    "  if (course.run) return;\n",
    "  Object.assign(course, { lesson, state: 'asks', guess: null, result: null });\n",
    "  for (const b of $('lessons').querySelectorAll('button')) b.setAttribute('aria-pressed', b.id === 'lesson-' + lesson.id);\n",
    "  $('lesson-title').textContent = `${LESSONS.indexOf(lesson) + 1}. ${lesson.title}`;\n",
    "  $('lesson-about').textContent = lesson.about();\n",
    "  $('lesson-question').textContent = lesson.question;\n",
    "  const isChoice = Array.isArray(lesson.guess);\n",
    "  $('lesson-guess').replaceChildren(isChoice\n",
    "    ? el('fieldset', { class: 'choice' }, el('legend', {}, 'Your prediction'), ...lesson.guess.map((text, i) =>\n",
    "      el('label', {}, el('input', { type: 'radio', name: 'guess', value: i, required: '' }), ' ' + text)))\n",
    "    : el('label', {}, 'Your prediction ', el('input', { type: 'number', name: 'guess', step: 'any', min: 0, required: '' }), ' ' + lesson.guess));\n",
    "  $('lesson-run').textContent = `Run (${Math.round(lesson.seconds)} s)`;\n",
    "  $('lesson').hidden = false;\n",
    "  $('lesson-result').hidden = $('lesson-progress').hidden = true;\n",
    "  $('lesson-title').focus();\n",
    "}\n",
    "\n",
    "function closeLesson() {\n",
    "  if (course.run) course.run.isStopped = true;\n",
    "  $('lesson').hidden = true;\n",
    "  const button = $('lesson-' + course.lesson.id);\n",
    "  button.setAttribute('aria-pressed', 'false');\n",
    "  button.focus();\n",
    "  Object.assign(course, { state: 'none', lesson: null });\n",
    "}\n",
    "\n",
    "function busy(is) {\n",
    "  $('lesson-progress').hidden = !is;\n",
    "  $('lesson-stop').hidden = !is;\n",
    "  $('lesson-run').disabled = $('lesson-close').disabled = is;\n",
    "  for (const b of $('lessons').querySelectorAll('button')) b.disabled = is;\n",
    "}\n",
    "\n",
    "async function runLesson() {\n",
    "  const { lesson } = course, form = new FormData($('lesson-form'));\n",
    "  if (course.run) return;\n",
    "  Object.assign(course, { guess: Number(form.get('guess')), state: 'runs', result: null, run: new Run(lesson.seconds) });\n",
    "  heldFigures = null;\n",
    "  $('held').hidden = $('lesson-result').hidden = true;\n",
    "  busy(true);\n",
    "  $('lesson-stop').focus();\n",
    "  try {\n",
    "    await setClock();\n",
    "    course.result = await lesson.run(course.run);\n",
    "    heldFigures = course.run.last;\n",
    "    show();\n",
    "    showResult();\n",
    "    course.state = 'done';\n",
    "  } catch (e) {\n",
    "    course.state = 'asks';\n",
    "    say(e.message === 'stopped' ? 'Stopped.' : e.message, e.message !== 'stopped');\n",
    "  }\n",
    "  course.run = null;\n",
    "  busy(false);\n",
    "  $('held').hidden = !heldFigures;\n",
    "  // The faults go; the figures stay to be looked at.\n",
    "  await set(Object.assign({}, DEFAULTS, { rate: 0 })).then(() => act('cut')).catch(e => say(e.message, true));\n",
    "  if (!heldFigures) await goOn().catch(e => say(e.message, true));\n",
    "}\n",
    "\n",
    "async function goOn() {\n",
    "  heldFigures = null;\n",
    "  $('held').hidden = true;\n",
    "  await set({ rate: DEFAULTS.rate });\n",
    "  await reset();\n",
    "}\n",
    "\n",
    "const shownAs = x => typeof x === 'number' ? number(x) : x === '' ? '\\u2013' : x;\n",
    "\n",
    "function showResult() {\n",
    "  const { lesson, guess, result } = course, isChoice = Array.isArray(lesson.guess);\n",
    "  const plain = x => isChoice ? lesson.guess[x] || '\\u2013' : number(x), text = x => plain(x) + (isChoice ? '' : ' ' + result.unit);\n",
    "  for (const e of $('verdict').querySelectorAll('[data-result]')) {\n",
    "    const value = { guess, hand: result.hand, measured: result.measured }[e.dataset.result];\n",
    "    e.replaceChildren(plain(value), isChoice ? '' : el('small', {}, ' ' + result.unit));\n",
    "    e.dataset.value = value;\n",
    "  }\n",
    "  $('rows').querySelector('tbody').replaceChildren(...result.rows.map(([what, hand, measured, why]) => el('tr', {}, el('th', { scope: 'row' }, what),\n",
    "    el('td', { 'data-as': 'by hand', 'data-value': hand }, shownAs(hand), why ? el('span', { class: 'small' }, ' ' + why) : ''),\n",
    "    el('td', { 'data-as': 'measured', 'data-value': measured }, shownAs(measured)))));\n",
    "  $('charts').replaceChildren(...(result.charts || []).map(barChart));\n",
    "  $('conclusion').textContent = result.text;\n",
    "  $('lesson-result').hidden = false;\n",
    "  $('lesson-bar').value = 1;\n",
    "  if (!document.activeElement || $('lesson').contains(document.activeElement) || document.activeElement === document.body) $('lesson-result').focus();\n",
    "  $('lesson-live').textContent = `Measured: ${text(result.measured)}. By hand: ${text(result.hand)}. Your prediction: ${text(guess)}.`;\n",
    "}\n",
    "\n",
    "// Two series over time, one scale; the numbers are in a table below.\n",
    "function barChart({ title, step, series }) {\n",
    "  const most = Math.max(1, ...series.flatMap(s => s[1])), colors = ['var(--short)', 'var(--ws)'];\n",
    "  const figures = series.map(([name, values], k) => {\n",
    "    const width = 340 / values.length, svg = el('svg:svg', { viewBox: '0 0 350 110', role: 'img',\n",
    "      'aria-label': `${title}, ${name}: most ${Math.max(0, ...values)}` });\n",
    "    values.forEach((n, i) => { if (n) svg.append(el('svg:rect', { x: 5 + i * width, width: Math.max(1, width - 1), y: 92 - 80 * n / most,\n",
    "      height: 80 * n / most, fill: colors[k] })); });\n",
    "    const top = values.indexOf(Math.max(...values));\n",
    "    svg.append(el('svg:line', { x1: 5, x2: 345, y1: 92, y2: 92, stroke: 'var(--line)' }), el('svg:text', { x: 5, y: 106 }, name),\n",
    "      el('svg:text', { x: Math.min(320, 5 + (top + .5) * width), y: 92 - 80 * values[top] / most - 3, 'text-anchor': 'middle' }, String(values[top])));\n",
    "    return el('figure', {}, svg);\n",
    "  });\n",
    "  const rows = series[0][1].map((n, i) => series.some(s => s[1][i]) ? el('tr', {}, el('th', { scope: 'row' }, String(i)),\n",
    "    ...series.map(s => el('td', {}, String(s[1][i] || 0)))) : '');\n",
    "  const box = el('div', { style: 'flex:1 1 100%' }, el('h3', {}, title), el('div', { class: 'row', style: 'align-items:end' }, ...figures),\n",
    "    el('details', {}, el('summary', { class: 'small' }, 'Numbers'), el('table', {}, el('tr', {}, el('th', {}, step),\n",
    "      ...series.map(s => el('th', {}, s[0]))), ...rows)));\n",
    "  return box;\n",
    "}\n",
    "\n",
    "// =====================================================================================================================\n",
    "// The page begins\n",
    "// =====================================================================================================================\n",
    "window.lab = {\n",
    "  get figures() { return heldFigures || figures; }, get settings() { return settings; }, lanes, sequence, get clockOffset() { return offset; },\n",
    "  get lesson() { return { id: course.lesson && course.lesson.id, state: course.state, guess: course.guess, result: course.result }; },\n",
    "  get isReady() { return Object.keys(lanes).length === 4 && Object.values(lanes).every(l => l.state === 'open'); },\n",
    "};\n",
    "\n",
    "async function begin() {\n",
    "  const config = await (await fetch('/lab/config')).json();\n",
    "  await setClock();\n",
    "  const f = await stats();\n",
    "  settings = f.state;\n",
    "  for (const { name, transport, port } of config.lanes) {\n",
    "    lanes[name] = new Lane(name, { shortpoll: 'shortpoll', longpoll: 'longpoll', sse: 'sse', websocket: 'websocket' }[transport], port);\n",
    "    lanes[name].base = f.us - f.seconds * 1e6 - 2000;\n",
    "    makeLane(name);\n",
    "  }\n",
    "  makeControls();\n",
    "  makeLessons();\n",
    "  makeSequence();\n",
    "  take(f);\n",
    "  listen();\n",
    "  // One cursor for all four: it is the place in the log, whatever reads it.\n",
    "  const { cursor } = await (await fetch(`http://${location.hostname}:${config.lanes[0].port}/live/lab?since=latest`)).json();\n",
    "  for (const lane of Object.values(lanes)) {\n",
    "    lane.cursor = cursor;\n",
    "    lane.open();\n",
    "  }\n",
    "  $('bytes-close').onclick = () => $('bytes').close();\n",
    "}\n",
    "begin().catch(e => say('The lab does not answer: ' + e.message, true));\n",
    "</script>\n",
    "</body>\n",
    "</html>\n",
    NULL};
// </page>

static lane_figures since[LANES]; // the figures at the last reset: what is told is what came after
static carried carried_since[LANES];
static uint64_t reset_at;   // monotonic
static char *page_folder, *page_name; // of --page; NULL: the one above

// --- figures ---

static void say_count(text *t, const char *name, uint64_t value) { say(t, ",\"%s\":%llu", name, (unsigned long long)value); }

static void say_server(text *t, const lane_figures *now, const lane_figures *then) {
    say(t, "\"server\":{\"cpu_us\":%llu", (unsigned long long)(now->cpu_us - then->cpu_us));
#define SAY_STAT(name, type, help) say_count(t, #name, now->stats.name - (type[0] == 'c' ? then->stats.name : 0));
    RTPUSH_STATS(SAY_STAT)
#undef SAY_STAT
    say_count(t, "memory", now->memory);
    say(t, "}");
    say_count(t, "requests", now->stats.requests - then->stats.requests);
    say_count(t, "empty", now->stats.polls_empty - then->stats.polls_empty);
    say_count(t, "delivered", now->stats.delivered - then->stats.delivered);
    say_count(t, "payload", now->payload - then->payload);
    say_count(t, "bytes_in", now->stats.bytes_in - then->stats.bytes_in);
    say_count(t, "bytes_out", now->stats.bytes_out - then->stats.bytes_out);
    say_count(t, "connections", now->stats.connections);
}

// The latency below which so many of a thousand are, within 3 % (the fine buckets).
static uint64_t seen_quantile(const seen *s, uint64_t per_mille) {
    uint64_t wanted = (s->count * per_mille + 999) / 1000, sum = 0;
    for (size_t i = 0; i < FINE_BUCKETS && s->count; i++)
        if ((sum += s->fine[i]) >= wanted) return fine_middle(i) < s->max_us ? fine_middle(i) : s->max_us;
    return 0;
}

static void say_clients(text *t, const seen *s) {
    say(t, ",\"clients\":{\"want\":%llu", (unsigned long long)s->want);
    say_count(t, "open", s->open);
    say_count(t, "received", s->received);
    say_count(t, "lost", s->lost);
    say_count(t, "gap", s->gap);
    say_count(t, "doubled", s->doubled);
    say_count(t, "replayed", s->replayed);
    say_count(t, "gaps", s->gaps);
    say_count(t, "reconnects", s->reconnects);
    say(t, ",\"latency\":{\"count\":%llu", (unsigned long long)s->count);
    say_count(t, "mean_us", s->count ? s->sum_us / s->count : 0);
    say_count(t, "p50_us", seen_quantile(s, 500));
    say_count(t, "p90_us", seen_quantile(s, 900));
    say_count(t, "p99_us", seen_quantile(s, 990));
    say_count(t, "max_us", s->max_us);
    for (int k = 0; k < BUCKETS; k++) say(t, "%s%llu", k ? "," : ",\"buckets\":[", (unsigned long long)s->buckets[k]);
    say(t, "]}}");
}

static void say_carried(text *t, const carried *now, const carried *then) {
    uint64_t moment = now_ms() / 100;
    for (uint64_t k = moment - SLOTS + 1; k <= moment; k++) { // a slot beyond the latest accept is empty
        bool is_there = k <= now->moment && k + SLOTS > now->moment;
        say(t, "%s%u", k == moment - SLOTS + 1 ? ",\"accepts\":[" : ",", is_there ? (unsigned)now->accepts[k % SLOTS] : 0u);
    }
    say(t, "],\"proxy\":{\"up\":%llu", (unsigned long long)(now->up - then->up));
    say_count(t, "down", now->down - then->down);
    say_count(t, "swallowed", now->swallowed - then->swallowed);
    say_count(t, "connections", now->connections);
    say(t, "}");
}

static lane_figures lane_figures_now(lane *l) {
    pthread_mutex_lock(&l->loop.lock);
    lane_figures f = l->figures;
    pthread_mutex_unlock(&l->loop.lock);
    return f;
}

static carried carried_now(lane *l) {
    pthread_mutex_lock(&proxy.lock);
    carried k = l->carried;
    pthread_mutex_unlock(&proxy.lock);
    return k;
}

static seen seen_now(const lane *l) {
    pthread_mutex_lock(&crowd.loop.lock);
    seen s = crowd.told[l->index];
    pthread_mutex_unlock(&crowd.loop.lock);
    return s;
}

// The clients first: what they have received a lane has delivered.
static void ask_all(void (*of_crowd)(rtpush_hub *hub, void *arg), void *arg) {
    loop_ask(&crowd.loop, of_crowd, arg);
    loop_wait(&crowd.loop);
    for (lane *l = lanes; l < lanes + LANES; l++) loop_ask(&l->loop, lane_answer, l);
    for (lane *l = lanes; l < lanes + LANES; l++) loop_wait(&l->loop);
}

static void say_figures(text *t) {
    ask_all(crowd_answer, NULL);
    pthread_mutex_lock(&publisher.lock);
    uint64_t published = publisher.number;
    pthread_mutex_unlock(&publisher.lock);
    say(t, "{\"us\":%llu,\"seconds\":%.3f,\"state\":", (unsigned long long)wall_us(), (double)(now_us() - reset_at) / 1e6);
    settings_say(t, settings_now());
    say_count(t, "published", published);
    for (lane *l = lanes; l < lanes + LANES; l++) {
        lane_figures figures = lane_figures_now(l);
        carried k = carried_now(l);
        seen s = seen_now(l);
        say(t, "%s\"%s\":{", l == lanes ? ",\"lanes\":{" : ",", l->name);
        say_server(t, &figures, &since[l->index]);
        say_clients(t, &s);
        say_carried(t, &k, &carried_since[l->index]);
        say(t, "}");
    }
    say(t, "}}");
}

static void figures_tick(rtpush_hub *hub, void *user) {
    text t;
    (void)user;
    memset(&t, 0, sizeof t);
    rtpush_after(hub, 500, figures_tick, NULL);
    if (!rtpush_subscribers(hub, "figures")) return;
    say_figures(&t);
    publish_json(hub, "figures", &t);
    free(t.data);
}

// --- what can be done ---

static void do_cut(lane *l) { proxy_order(1u << l->index, false, false); }
static void do_restart(lane *l) { loop_post(&l->loop, lane_restart, l); }
static void do_forget(lane *l) { loop_post(&l->loop, lane_forget, l); }
static void do_drain(lane *l) { loop_post(&l->loop, lane_drain, l); }

static void do_publish(void) {
    settings s = settings_now();
    pthread_mutex_lock(&publisher.lock);
    publish_burst(&s);
    pthread_mutex_unlock(&publisher.lock);
}

// Nothing is published meanwhile, so that the number 1 is the first message that counts.
static void do_reset(void) {
    pthread_mutex_lock(&publisher.lock);
    uint64_t us = wall_us();
    publisher.number = 0;
    ask_all(crowd_reset, &us);
    for (lane *l = lanes; l < lanes + LANES; l++) since[l->index] = lane_figures_now(l), carried_since[l->index] = carried_now(l);
    reset_at = now_us();
    pthread_mutex_unlock(&publisher.lock);
}

static const struct { const char *name; void (*to_lane)(lane *l); void (*to_all)(void); } deeds[] = {
    {"cut", do_cut, NULL},     {"restart", do_restart, NULL}, {"forget", do_forget, NULL},
    {"drain", do_drain, NULL}, {"reset", NULL, do_reset},     {"publish", NULL, do_publish}};
enum { DEEDS = sizeof deeds / sizeof *deeds };

// --- HTTP ---

#define JSON_HEADERS "Content-Type: application/json\r\nCache-Control: no-store\r\n"

static void reply(rtpush_request *request, int status, const char *headers, text *t) {
    say(t, "\n");
    if (t->is_broken) rtpush_reply(request, 503, NULL, "", 0);
    else rtpush_reply(request, status, headers, t->data, t->size);
    free(t->data);
}

#ifdef __GNUC__
__attribute__((format(printf, 3, 4)))
#endif
static void refuse(rtpush_request *request, int status, const char *format, ...) {
    char why[256];
    text t;
    va_list list;
    va_start(list, format);
    vsnprintf(why, sizeof why, format, list);
    va_end(list);
    memset(&t, 0, sizeof t);
    say(&t, "{\"error\":\"%s\",\"reason\":\"%s\"}", status == 405 ? "method" : status == 403 ? "forbidden" : "bad_request", why);
    reply(request, status, status == 405 ? JSON_HEADERS "Allow: GET, HEAD, POST\r\n" : JSON_HEADERS, &t);
}

static size_t setting_find(const char *name) {
    size_t i = 0;
    while (i < SETTING_COUNT && strcmp(setting_table[i].name, name)) i++;
    return i;
}

// Takes the next NAME=VALUE of a query. Neither is one of ours if it is percent-encoded. false: there is none.
static bool next_pair(rtpush_slice *query, char name[32], char value[32]) {
    while (query->size && *query->data == '&') query->data++, query->size--;
    if (!query->size) return false;
    const char *end = (const char *)memchr(query->data, '&', query->size);
    size_t size = end ? (size_t)(end - query->data) : query->size;
    const char *equals = (const char *)memchr(query->data, '=', size);
    size_t name_size = equals ? (size_t)(equals - query->data) : size;
    snprintf(name, 32, "%.*s", (int)(name_size < 31 ? name_size : 31), query->data);
    snprintf(value, 32, "%.*s", equals ? (int)(size - name_size - 1 < 31 ? size - name_size - 1 : 31) : 0, equals ? equals + 1 : "");
    query->data += size;
    query->size -= size;
    return true;
}

// Before a text of a stranger's goes into JSON.
static const char *plain(char *name) {
    for (char *p = name; *p; p++)
        if (!strchr("abcdefghijklmnopqrstuvwxyz_0123456789.-", *p)) *p = '?';
    return name;
}

// Each C client has four descriptors here: its own, two of the proxy, one of the lane.
static bool has_descriptors(const settings *s, uint64_t *limit) {
    struct rlimit r;
    uint64_t clients = s->clients_short + s->clients_long + s->clients_sse + s->clients_ws;
    *limit = getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur == RLIM_INFINITY ? UINT64_C(1) << 40 : (uint64_t)r.rlim_cur;
    return clients * 4 + 256 <= *limit;
}

static void tell_settings(void) {
    for (lane *l = lanes; l < lanes + LANES; l++) loop_post(&l->loop, lane_adopt, l);
    loop_post(&crowd.loop, crowd_adopt, NULL);
    proxy_order(0, true, false);
    pthread_mutex_lock(&publisher.lock);
    pthread_cond_signal(&publisher.changed);
    pthread_mutex_unlock(&publisher.lock);
}

static void serve_set(rtpush_request *request) {
    settings s = settings_now();
    rtpush_slice query = rtpush_query_text(request);
    char name[32], value[32];
    uint64_t limit;
    text t;
    while (next_pair(&query, name, value)) {
        size_t i = setting_find(name);
        if (i == SETTING_COUNT) { refuse(request, 400, "there is no setting %s", plain(name)); return; }
        if (setting_read(i, value, setting_at(&s, i))) continue;
        if (!strcmp(name, "slow")) refuse(request, 400, "slow is close, skip or latest");
        else refuse(request, 400, "%s is a number from %.10g to %.10g%s", name, (double)setting_table[i].least,
                    (double)setting_table[i].most / (i == RATE ? 1000 : 1), i == RATE ? "" : ", whole");
        return;
    }
    if (!has_descriptors(&s, &limit)) {
        refuse(request, 400, "a client takes four descriptors, and this process may have %llu (ulimit -n)", (unsigned long long)limit);
        return;
    }
    settings_put(&s);
    tell_settings();
    memset(&t, 0, sizeof t);
    settings_say(&t, s);
    reply(request, 200, JSON_HEADERS, &t);
}

static int deed_find(const char *name) {
    int i = 0;
    while (i < DEEDS && strcmp(deeds[i].name, name)) i++;
    return i;
}

static int lane_find(const char *name) {
    int i = 0;
    while (i < LANES && strcmp(lanes[i].name, name)) i++;
    return i;
}

static void serve_do(rtpush_request *request) {
    rtpush_slice query = rtpush_query_text(request);
    char name[32], value[32];
    int deed = DEEDS, only = -1;
    text t;
    while (next_pair(&query, name, value)) {
        if (!strcmp(name, "what")) deed = deed_find(value);
        else if (!strcmp(name, "lane")) only = lane_find(value);
        else { refuse(request, 400, "there is no parameter %s", plain(name)); return; }
    }
    if (deed == DEEDS) { refuse(request, 400, "what is cut, restart, forget, drain, reset or publish"); return; }
    if (only == LANES) { refuse(request, 400, "lane is short, long, sse or ws"); return; }
    if (only >= 0 && deeds[deed].to_all) { refuse(request, 400, "%s is of all lanes", deeds[deed].name); return; }
    if (deeds[deed].to_lane == do_forget) log_doom();
    if (deeds[deed].to_all) deeds[deed].to_all();
    for (int i = 0; i < LANES && deeds[deed].to_lane; i++)
        if (only < 0 || only == i) deeds[deed].to_lane(&lanes[i]);
    memset(&t, 0, sizeof t);
    say(&t, "{\"done\":\"%s\"}", deeds[deed].name);
    reply(request, 200, JSON_HEADERS, &t);
}

static void serve_config(rtpush_request *request) {
    text t;
    memset(&t, 0, sizeof t);
    say(&t, "{\"topic\":\"lab\",\"epoch_us\":%llu,\"lanes\":[", (unsigned long long)wall_us());
    for (const lane *l = lanes; l < lanes + LANES; l++)
        say(&t, "%s{\"name\":\"%s\",\"transport\":\"%s\",\"port\":%d,\"direct\":%d}", l == lanes ? "" : ",", l->name, l->transports,
            l->port, l->direct);
    say(&t, "]}");
    reply(request, 200, JSON_HEADERS, &t);
}

static void serve_time(rtpush_request *request) {
    text t;
    memset(&t, 0, sizeof t);
    say(&t, "{\"us\":%llu}", (unsigned long long)wall_us());
    reply(request, 200, JSON_HEADERS, &t);
}

static void serve_stats(rtpush_request *request) {
    text t;
    memset(&t, 0, sizeof t);
    say_figures(&t);
    reply(request, 200, JSON_HEADERS, &t);
}

static void serve_page(rtpush_request *request) {
    text t;
    memset(&t, 0, sizeof t);
    if (page_name) { rtpush_reply_file(request, page_folder, page_name, "text/html; charset=utf-8"); return; }
    for (const char *const *line = lab_page; *line; line++) say(&t, "%s", *line);
    rtpush_reply(request, 200, "Content-Type: text/html; charset=utf-8\r\nCache-Control: no-cache\r\n", t.data, t.size);
    free(t.data);
}

static bool slice_is(rtpush_slice s, const char *word) { return s.size == strlen(word) && !memcmp(s.data, word, s.size); }

// A page of another origin may not change anything: a browser says where its request comes from.
static bool is_foreign(rtpush_request *request) {
    rtpush_slice origin = rtpush_header(request, "origin"), host = rtpush_header(request, "host");
    if (!origin.data) return false;
    return origin.size != host.size + 7 || memcmp(origin.data, "http://", 7) != 0 || memcmp(origin.data + 7, host.data, host.size) != 0;
}

static const struct { const char *path, *method; void (*serve)(rtpush_request *request); } routes[] = {
    {"/", "GET", serve_page},           {"/lab/config", "GET", serve_config}, {"/lab/time", "GET", serve_time},
    {"/lab/stats", "GET", serve_stats}, {"/lab/set", "POST", serve_set},      {"/lab/do", "POST", serve_do}};

static bool on_request(rtpush_hub *hub, rtpush_request *request, void *user) {
    rtpush_slice path = rtpush_path(request), method = rtpush_method(request);
    (void)hub, (void)user;
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (!slice_is(path, routes[i].path)) continue;
        bool is_get = !strcmp(routes[i].method, "GET");
        bool is_right = slice_is(method, routes[i].method) || (is_get && slice_is(method, "HEAD"));
        if (!is_right) refuse(request, 405, "%s is for %s", routes[i].path, routes[i].method);
        else if (!is_get && is_foreign(request)) refuse(request, 403, "from another origin");
        else routes[i].serve(request);
        return true;
    }
    return false;
}

// ============================================================================
// main
// ============================================================================

static void on_signal(int number) {
    (void)number;
    rtpush_stop(control.hub);
}

static int usage(void) {
    fputs("usage: lab [--listen http://HOST:PORT] [--page FILE]\n", stderr);
    return 2;
}

// HOST of http://HOST:PORT, in brackets if it has them. Where it is every address, this machine is reached by loopback.
static bool take_hosts(const char *url) {
    char host[100];
    const char *colon = strrchr(url, ':');
    if (strncmp(url, "http://", 7) || colon < url + 7 || colon - url - 7 >= 100) return false;
    snprintf(host, sizeof host, "%.*s", (int)(colon - url - 7), url + 7);
    snprintf(near_host, sizeof near_host, "%s", !strcmp(host, "0.0.0.0") ? "127.0.0.1" : !strcmp(host, "[::]") ? "[::1]" : host);
    struct addrinfo *there = find_host(host), *near = find_host(near_host);
    bool is_good = there && near && there->ai_family == near->ai_family;
    if (is_good) memcpy(&listen_address, there->ai_addr, there->ai_addrlen), memcpy(&near_address, near->ai_addr, near->ai_addrlen);
    if (is_good) address_size = there->ai_addrlen;
    if (there) freeaddrinfo(there);
    if (near) freeaddrinfo(near);
    return is_good;
}

static void take_page(char *path) {
    char *slash = strrchr(path, '/');
    page_folder = slash == path ? (char *)"/" : slash ? path : (char *)".";
    page_name = slash ? slash + 1 : path;
    if (slash) *slash = 0;
}

static void raise_descriptors(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit)) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static bool start_all(const char *url, int *port) {
    rtpush_desc desc;
    int code = 0;
    memset(&desc, 0, sizeof desc);
    desc.publish_off = true;
    desc.on_request = on_request;
    loop_init(&control);
    log_doom();
    log_begin();
    control.hub = rtpush_create_ex(&desc, &code);
    if (control.hub) code = rtpush_listen(control.hub, url, port);
    if (code) return fprintf(stderr, "lab: %s: %s\n", url, rtpush_strerror(code)), false;
    for (int i = 0; i < LANES; i++)
        if (!lane_start(&lanes[i])) return false;
    if (!proxy_start()) return perror("lab: the proxy"), false;
    if (!crowd_start() || pthread_create(&publisher.thread, NULL, publisher_main, NULL)) return perror("lab"), false;
    return true;
}

static void end_all(void) {
    rtpush_hub *hub = control.hub;
    publisher_end();
    crowd_end();
    proxy_end();
    for (int i = 0; i < LANES; i++) loop_end(&lanes[i].loop);
    loop_set(&control, NULL);
    rtpush_destroy(hub);
    log_doom();
    log_begin(); // frees the messages of the old one
}

int main(int argc, char **argv) {
    const char *url = "http://127.0.0.1:8080";
    int port = 0;
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc) return usage();
        if (!strcmp(argv[i], "--listen")) url = argv[i + 1];
        else if (!strcmp(argv[i], "--page")) take_page(argv[i + 1]);
        else return usage();
    }
    if (!take_hosts(url)) return usage();
    raise_descriptors();
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < SETTING_COUNT; i++) *setting_at(&the_settings, i) = setting_table[i].first;
    reset_at = now_us();
    if (!start_all(url, &port)) return 1;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    rtpush_after(control.hub, 500, figures_tick, NULL);
    printf("the lab is at http://%s:%d/\n", near_host, port);
    fflush(stdout);
    rtpush_run(control.hub);
    end_all();
    return 0;
}
