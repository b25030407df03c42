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

enum { SHORT, LONG, SSE, WS, LANES, CLIENTS_MAX = 3000, LOG_MAX = 10000, LOG_BYTES = 64 << 20, SIZE_MAX_MESSAGE = 16384, SLOTS = 100, BUFFER_BYTES = 16384 };

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
    X(rate, 0, 1000000, 1000) X(burst, 1, 1000, 1) X(size, 64, SIZE_MAX_MESSAGE, 128) X(interval, 100, 60000, 5000)       \
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

static lane lanes[LANES] = {{.name = "short", .transports = "shortpoll", .index = SHORT}, {.name = "long", .transports = "longpoll", .index = LONG},
                            {.name = "sse", .transports = "sse", .index = SSE}, {.name = "ws", .transports = "websocket", .index = WS}};

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
        bool is_broken = events[i].events & (EPOLLERR | EPOLLHUP);
        ready_list[i].watched = (watched *)events[i].data.ptr;
        ready_list[i].ready = (events[i].events & EPOLLIN || is_broken ? RTPUSH_READ : 0) | (events[i].events & EPOLLOUT || is_broken ? RTPUSH_WRITE : 0);
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

static bool begins(const unsigned char *data, size_t size, const char *with) { return size >= strlen(with) && !memcmp(data, with, strlen(with)); }

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
    char data[SIZE_MAX_MESSAGE + 1];
    size_t size = (size_t)s->size;
    for (int i = 0; i < (int)s->burst; i++) {
        uint64_t us = wall_us();
        int n = snprintf(data, sizeof data, "{\"n\":%llu,\"t\":%llu,\"pad\":\"", (unsigned long long)publisher.number + 1, (unsigned long long)us);
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
        } else if (now < next) {
            wait_at_most(&publisher.changed, &publisher.lock, (uint64_t)(lower(next - now, 1) * 1e6) + 1);
        } else {
            publish_burst(&s);
            next = upper(next + 1000 / (double)rate, now - 1); // what cannot be kept up with is left out, not made up for later
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
    "<!doctype html><title>rtpush lab</title><p>The page is in examples/lab.html: ./lab --page examples/lab.html\n",
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
    rtpush_slice query = request->head->query; // no public function lists what a query has
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
    rtpush_slice query = request->head->query;
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
        say(&t, "%s{\"name\":\"%s\",\"transport\":\"%s\",\"port\":%d,\"direct\":%d}", l == lanes ? "" : ",", l->name, l->transports, l->port, l->direct);
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
        bool is_get = !strcmp(routes[i].method, "GET"), is_right = slice_is(method, routes[i].method) || (is_get && slice_is(method, "HEAD"));
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
