// rtplan: from users to machines. What a number of users, a rate and a payload ask of servers, lines, Redis and batteries,
// and which transport to take.
//
//     cc -O2 tools/rtplan.c -o rtplan && ./rtplan --users 1000000 --poll-interval 5 --rate 1000 --fanout 100 --payload 128
//
// Every figure is a formula over the inputs and the figures before it. The formulas stand below as text and are what is
// computed, so that --explain cannot say anything else. Exit status: 0 done, 1 measuring failed, 2 a bad flag.
#define RTPUSH_IMPLEMENTATION
#include "../rtpush.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// --- the inputs: flags and constants ---

#define README "README.md"
#define RTLAB "README.md, rtlab's table"
#define MEASURED "rtplan --measure, on two cores"
#define ASSUMED "assumed"
#define DEFAULT "default"

typedef struct input {
    const char *key; // as in formulas; the flag has - for _
    double value, least, most;
    const char *unit, *source, *title;
    bool is_whole;
} input;

static input inputs[] = {
    {"users", 1000000, 1, 1e9, "", DEFAULT, "people", true},
    {"online", 1, 1e-6, 1, "", DEFAULT, "share of them that is connected at the same time", false},
    {"poll_interval", 5, 0.01, 86400, "s", DEFAULT, "between two short polls of a client", false},
    {"rate", 1000, 0.001, 1e8, "1/s", DEFAULT, "messages published, over all topics", false},
    {"fanout", 100, 1, 1e9, "", DEFAULT, "readers of a message", true},
    {"payload", 128, 1, 1e6, "bytes", DEFAULT, "of a message", true},
    {"tls", 0, 0, 1, "", DEFAULT, "1: https and wss end in the servers", true},
    {"session", 600, 1, 1e7, "s", ASSUMED, "how long a client stays", false},
    {"rtt", 0.05, 0, 10, "s", ASSUMED, "to a client and back", false},

    {"connections_per_server", 15000, 1, 1e7, "", DEFAULT, "that one server is to hold", true},
    {"descriptors", 65536, 128, 1e9, "", ASSUMED, "that its process may open (ulimit -n); 64 are kept apart", true},
    {"memory", 4, 0.05, 1e5, "GB", ASSUMED, "of a server", false},
    {"memory_share", 0.5, 0.01, 1, "", ASSUMED, "of it for connections", false},
    {"ports", 28232, 1, 64511, "", "Linux's default, 32768 to 60999", "local ports of a balancer for one server's address", true},
    {"balancers", 1, 1, 1e4, "", DEFAULT, "addresses that a server is reached from", true},
    {"cores", 2, 1, 1024, "", ASSUMED, "of a server", true},
    {"cpu_share", 0.5, 0.01, 1, "", ASSUMED, "of them in use at most", false},
    {"memory_per_connection", 498, 1, 1e7, "bytes", README, "of the process for an idle connection", false},
    {"kernel_per_connection", 3200, 0, 1e7, "bytes", MEASURED, "of the kernel for it: socket, file, watch", false},
    {"tls_memory", 14900, 0, 1e7, "bytes", README, "more behind TLS: 15.4 KB in all", false},
    {"cpu_per_message", 9, 0.001, 1e6, "us", RTLAB, "server CPU for a message to one stream or socket", false},
    {"cpu_per_poll", 56, 0.001, 1e6, "us", RTLAB, "server CPU for a request and its answer", false},
    {"cpu_per_connect", 40, 0.001, 1e6, "us", MEASURED, "server CPU for a new connection and its upgrade", false},
    {"cpu_per_heartbeat", 20, 0.001, 1e6, "us", MEASURED, "server CPU for a ping and its pong", false},
    {"tls_handshake", 1000, 0, 1e6, "us", "a constant, not measured: ECDSA P-256, nothing resumed", "server CPU for a TLS handshake", false},

    {"poll_request", 133, 1, 1e5, "bytes", RTLAB, "a poll of the C client; a browser's has some 500 more (--browser-head)", false},
    {"browser_head", 0, 0, 1e5, "bytes", DEFAULT, "more in each request: cookies, User-Agent and the like", false},
    {"poll_answer", 191, 1, 1e5, "bytes", RTLAB, "a poll's answer without messages", false},
    {"poll_item", 42, 0, 1e5, "bytes", RTLAB, "around a message in a poll's answer", false},
    {"sse_around", 87, 0, 1e5, "bytes", RTLAB, "around a message on an event stream", false},
    {"websocket_around", 62, 0, 1e5, "bytes", RTLAB, "around a message in rtpush.v1's frames", false},
    {"packet", 52, 0, 200, "bytes", "IPv4 20 and TCP with time stamps 32", "head of a packet, and a bare acknowledgement; 0: payload alone", false},
    {"tls_record", 22, 0, 100, "bytes", "TLS 1.3: 5 + 1 + 16", "around what one packet carries", false},
    {"wait", 25, 1, 3600, "s", "rtpush.h", "a long poll is held at most", false},
    {"heartbeat", 20, 0.1, 86400, "s", "rtpush.h", "between two of a WebSocket", false},
    {"sse_heartbeat", 15, 0.1, 86400, "s", "rtpush.h", "between two of an event stream", false},
    {"websocket_beat", 52, 0, 1e4, "bytes", "counted: an envelope with a cursor of seven digits, and a ping", "a heartbeat down", false},
    {"sse_beat", 40, 0, 1e4, "bytes", "counted: a comment and an id of seven digits, in a chunk", "a heartbeat down", false},
    {"pong", 6, 0, 1e4, "bytes", "RFC 6455", "its answer up", false},

    {"redis_ceiling", 15000, 1, 1e9, "1/s", README, "publishes that one log takes: 15,000 to 39,000 there", false},
    {"redis_message", 178, 0, 1e5, "bytes", README, "around a payload, to each node", false},
    {"redis_answer", 10, 0, 1e5, "bytes", README, "the answer to who publishes", false},
    {"redis_command", 263, 0, 1e5, "bytes", README ", by its table", "around a payload on its way in", false},
    {"redis_poll", 95, 0, 1e5, "bytes", README ", by its table", "that each node asks with for a publish", false},
    {"hop", 73, 0, 1e5, "bytes", README, "around a payload from node to node, by a bare POST", false},

    {"herd", 0.1, 0.001, 3600, "s", ASSUMED, "in which all come back without jitter", false},
    {"backoff", 0.5, 0.001, 3600, "s", "rtpush.h", "full jitter: a random time below this", false},
    {"backoff_max", 30, 0.001, 86400, "s", "rtpush.h", "and below this after failures", false},
    {"drain_spread", 3, 0, 86400, "s", "rtpush.h", "over which a server sends its clients away", false},
    {"drain_settle", 0.2, 0, 3600, "s", "rtpush.h", "in which it still takes what is on its way", false},
    {"restart", 2, 0, 3600, "s", ASSUMED, "until the next server is up", false},
    {"radio_tail", 10, 0, 600, "s", ASSUMED, "that a phone's radio stays awake after a packet", false}};
enum { INPUTS = (int)(sizeof inputs / sizeof *inputs) };

// --- the figures ---

typedef struct figure {
    const char *section; // NULL: as before
    const char *key, *unit, *title, *formula;
} figure;

#define LIMITS "limit_connections, limit_descriptors, limit_memory, limit_ports, "

static const figure figures[] = {
    {"Load", "connections", "", "clients connected", "users * online"},
    {NULL, "deliveries", "1/s", "messages delivered", "rate * fanout"},
    {NULL, "per_client", "1/s", "of these to each client", "deliveries / connections"},
    {NULL, "setups", "1/s", "clients that come, as others go", "connections / session"},

    {"Requests", "shortpoll_requests", "1/s", "short polls", "connections / poll_interval"},
    {NULL, "shortpoll_empty", "", "share of them that brings nothing, if messages come at random", "exp(-per_client * poll_interval)"},
    {NULL, "longpoll_hold", "s", "a long poll is held, on average", "(1 - exp(-per_client * wait)) / per_client"},
    {NULL, "longpoll_requests", "1/s", "long polls", "connections / (longpoll_hold + rtt)"},

    {"Latency", "shortpoll_latency", "ms", "of a short poll's message, on average", "(poll_interval / 2 + rtt / 2) * 1000"},
    {NULL, "shortpoll_latency_most", "ms", "at most", "(poll_interval + rtt / 2) * 1000"},
    {NULL, "push_latency", "ms", "long poll, SSE, WebSocket", "rtt / 2 * 1000"},

    {"Bandwidth, of all servers", "packets", "", "packets for a message (1,448 bytes each)", "ceil((payload + 100) / 1448)"},
    {NULL, "per_packet", "bytes", "around what one carries", "packet + tls * tls_record"},
    {NULL, "request", "bytes", "a request with its packet, and the acknowledgement of the answer",
     "poll_request + browser_head + per_packet + packet"},
    {NULL, "shortpoll_up", "Mbit/s", "short poll, up", "shortpoll_requests * request * 8 / 1e6"},
    {NULL, "shortpoll_down", "Mbit/s", "short poll, down",
     "(shortpoll_requests * (poll_answer + per_packet) + deliveries * (payload + poll_item + (packets - 1) * per_packet)) * 8 / 1e6"},
    {NULL, "longpoll_up", "Mbit/s", "long poll, up", "longpoll_requests * request * 8 / 1e6"},
    {NULL, "longpoll_down", "Mbit/s", "long poll, down",
     "(longpoll_requests * (poll_answer + per_packet) + deliveries * (payload + poll_item + (packets - 1) * per_packet)) * 8 / 1e6"},
    {NULL, "sse_up", "Mbit/s", "SSE, up: acknowledgements", "(deliveries * packets + connections / sse_heartbeat) * packet * 8 / 1e6"},
    {NULL, "sse_down", "Mbit/s", "SSE, down",
     "(deliveries * (payload + sse_around + packets * per_packet) + connections / sse_heartbeat * (sse_beat + per_packet)) * 8 / 1e6"},
    {NULL, "websocket_up", "Mbit/s", "WebSocket, up: acknowledgements and pongs",
     "(deliveries * packets * packet + connections / heartbeat * (pong + per_packet)) * 8 / 1e6"},
    {NULL, "websocket_down", "Mbit/s", "WebSocket, down",
     "(deliveries * (payload + websocket_around + packets * per_packet) "
     "+ connections / heartbeat * (websocket_beat + per_packet)) * 8 / 1e6"},

    {"Servers: each holds the least of these, and one more is there (N + 1)", "limit_connections", "", "connections that are wanted of one",
     "connections_per_server"},
    {NULL, "limit_descriptors", "", "by descriptors", "descriptors - 64"},
    {NULL, "memory_each", "bytes", "a connection takes", "memory_per_connection + tls * tls_memory + kernel_per_connection"},
    {NULL, "limit_memory", "", "by memory", "floor(memory * 1e9 * memory_share / memory_each)"},
    {NULL, "limit_ports", "", "by a balancer's ports", "ports * balancers"},
    {NULL, "cpu_budget", "us/s", "CPU of a server", "cores * cpu_share * 1e6"},
    {NULL, "shortpoll_cpu", "us/s", "short poll: CPU of a client", "cpu_per_poll / poll_interval"},
    {NULL, "longpoll_cpu", "us/s", "long poll", "cpu_per_poll * longpoll_requests / connections"},
    {NULL, "sse_cpu", "us/s", "SSE", "cpu_per_message * per_client + cpu_per_heartbeat / sse_heartbeat"},
    {NULL, "websocket_cpu", "us/s", "WebSocket", "cpu_per_message * per_client + cpu_per_heartbeat / heartbeat"},
    {NULL, "shortpoll_per_server", "", "short poll: clients of a server", "max(1, floor(min(" LIMITS "cpu_budget / shortpoll_cpu)))"},
    {NULL, "shortpoll_servers", "", "servers", "ceil(connections / shortpoll_per_server) + 1"},
    {NULL, "longpoll_per_server", "", "long poll: clients of a server", "max(1, floor(min(" LIMITS "cpu_budget / longpoll_cpu)))"},
    {NULL, "longpoll_servers", "", "servers", "ceil(connections / longpoll_per_server) + 1"},
    {NULL, "sse_per_server", "", "SSE: clients of a server", "max(1, floor(min(" LIMITS "cpu_budget / sse_cpu)))"},
    {NULL, "sse_servers", "", "servers", "ceil(connections / sse_per_server) + 1"},
    {NULL, "websocket_per_server", "", "WebSocket: clients of a server", "max(1, floor(min(" LIMITS "cpu_budget / websocket_cpu)))"},
    {NULL, "websocket_servers", "", "servers", "ceil(connections / websocket_per_server) + 1"},
    {NULL, "load", "", "WebSocket: clients of each while all live", "connections / websocket_servers"},

    {"Between the servers, three ways (for the WebSocket's number of servers)", "logs", "", "everyone to everyone: logs, as one takes so many publishes",
     "ceil(rate / redis_ceiling)"},
    {NULL, "log_rate", "1/s", "publishes of each log", "rate / logs"},
    {NULL, "all_in", "Mbit/s", "into Redis", "rate * (payload + redis_command + redis_poll * websocket_servers) * 8 / 1e6"},
    {NULL, "all_out", "Mbit/s", "out of Redis", "rate * (redis_answer + websocket_servers * (payload + redis_message)) * 8 / 1e6"},
    {NULL, "all_node", "Mbit/s", "of these to each server", "rate * (payload + redis_message) * 8 / 1e6"},
    {NULL, "sticky_hops", "1/s", "sticky by topic: messages that go to another server, once", "rate * (1 - 1 / websocket_servers)"},
    {NULL, "sticky_between", "Mbit/s", "between servers", "sticky_hops * (payload + hop) * 8 / 1e6"},
    {NULL, "sticky_readers_most", "", "readers that one topic may have: those of one server", "websocket_per_server"},
    {NULL, "registry_copies", "", "registry: servers that a message is sent to",
     "(websocket_servers - 1) * (1 - pow(1 - 1 / websocket_servers, fanout))"},
    {NULL, "registry_between", "Mbit/s", "between servers", "rate * registry_copies * (payload + hop) * 8 / 1e6"},
    {NULL, "registry_lookups", "1/s", "questions to the registry, if none is remembered", "rate"},
    {NULL, "registry_writes", "1/s", "writes: one for each reader that comes, one as it goes", "2 * setups"},

    {"One server is lost, and its WebSockets come back", "storm_plain", "1/s", "connections without jitter", "load / herd"},
    {NULL, "storm_jitter", "1/s", "with full jitter", "load / backoff"},
    {NULL, "storm_plain_each", "1/s", "at each server that is left, without", "storm_plain / (websocket_servers - 1)"},
    {NULL, "storm_jitter_each", "1/s", "with", "storm_jitter / (websocket_servers - 1)"},
    {NULL, "connects_most", "1/s", "that a server can take", "cpu_budget / (cpu_per_connect + tls * tls_handshake)"},
    {NULL, "storm_absorb", "s", "until all are taken, at least", "load / ((websocket_servers - 1) * connects_most)"},
    {NULL, "storm_missed", "", "messages that each asks for again", "per_client * (backoff / 2 + rtt)"},
    {NULL, "storm_all_plain", "1/s", "all servers are lost: without jitter", "connections / herd"},
    {NULL, "storm_all_jitter", "1/s", "with, when the bound has grown", "connections / backoff_max"},

    {"Heartbeats, while nothing is said", "websocket_beats", "1/s", "WebSocket", "connections / heartbeat"},
    {NULL, "websocket_beats_down", "Mbit/s", "down", "websocket_beats * (websocket_beat + per_packet) * 8 / 1e6"},
    {NULL, "websocket_beats_up", "Mbit/s", "up", "websocket_beats * (pong + per_packet) * 8 / 1e6"},
    {NULL, "websocket_beats_cores", "cores", "of all servers", "websocket_beats * cpu_per_heartbeat / 1e6"},
    {NULL, "sse_beats", "1/s", "SSE", "connections / sse_heartbeat"},
    {NULL, "sse_beats_down", "Mbit/s", "down", "sse_beats * (sse_beat + per_packet) * 8 / 1e6"},

    {"A deploy, one server after another", "drain_over", "s", "clients are sent away over", "max(drain_spread, storm_absorb)"},
    {NULL, "drain_rate", "1/s", "connections that come anew meanwhile", "load / max(drain_over, 0.001)"},
    {NULL, "drain", "s", "a server's drain", "drain_settle + drain_over"},
    {NULL, "deploy", "s", "all servers", "websocket_servers * (drain + restart)"},

    {"Wake-ups of a client", "shortpoll_wakeups", "1/h", "short poll", "3600 / poll_interval"},
    {NULL, "longpoll_wakeups", "1/h", "long poll", "3600 * longpoll_requests / connections"},
    {NULL, "sse_wakeups", "1/h", "SSE", "3600 * (per_client + 1 / sse_heartbeat)"},
    {NULL, "websocket_wakeups", "1/h", "WebSocket", "3600 * (per_client + 1 / heartbeat)"},
    {NULL, "shortpoll_radio", "", "share of time a phone's radio is awake: short poll", "min(1, radio_tail / poll_interval)"},
    {NULL, "longpoll_radio", "", "long poll", "(1 - exp(-per_client * min(radio_tail, wait))) / (1 - exp(-per_client * wait))"},
    {NULL, "sse_radio", "", "SSE", "1 - exp(-per_client * radio_tail) * (1 - min(1, radio_tail / sse_heartbeat))"},
    {NULL, "websocket_radio", "", "WebSocket", "1 - exp(-per_client * radio_tail) * (1 - min(1, radio_tail / heartbeat))"}};
enum { FIGURES = (int)(sizeof figures / sizeof *figures), NAME_MAX_ = 64 };

static double values[FIGURES];
static int known; // so many figures have their value

static void fail(int status, const char *format, ...) {
    va_list list;
    va_start(list, format);
    fputs("rtplan: ", stderr);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    va_end(list);
    exit(status);
}

static input *find_input(const char *key) {
    for (int i = 0; i < INPUTS; i++)
        if (!strcmp(inputs[i].key, key)) return &inputs[i];
    return NULL;
}

// An input, or a figure that stands before the one at hand.
static bool find_value(const char *key, double *value) {
    const input *in = find_input(key);
    if (in) return *value = in->value, true;
    for (int i = 0; i < known; i++)
        if (!strcmp(figures[i].key, key)) return *value = values[i], true;
    return false;
}

static double value_of(const char *key) {
    double value = 0;
    if (!find_value(key, &value)) fail(1, "no figure \"%s\"", key);
    return value;
}

// --- formulas: numbers, names, + - * / ( ), and min max ceil floor exp pow ---

static bool is_name(char c) { return (c >= 'a' && c <= 'z') || c == '_'; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The name at p, into name. Returns what is behind it.
static const char *read_name(const char *p, char name[NAME_MAX_]) {
    size_t n = 0;
    while ((is_name(*p) || is_digit(*p)) && n + 1 < NAME_MAX_) name[n++] = *p++;
    name[n] = 0;
    return p;
}

static void skip_spaces(const char **p) { while (**p == ' ') ++*p; }

// e to the power of x <= 0, without the mathematics library: a series for a small part of x, squared again and again.
static double exp_of(double x) {
    int halvings = 0;
    double sum = 1, term = 1;
    if (x < -700) return 0;
    for (; x < -0.01; halvings++) x /= 2;
    for (int i = 1; i < 9; i++) sum += term *= x / i;
    while (halvings--) sum *= sum;
    return sum;
}

static double floor_of(double x) {
    if (x >= 9e15 || x <= -9e15) return x; // has no fraction
    double whole = (double)(int64_t)x;
    return whole > x ? whole - 1 : whole;
}

static double pow_of(double x, double whole) {
    double product = 1;
    for (uint64_t n = (uint64_t)whole; n; n >>= 1, x *= x)
        if (n & 1) product *= x;
    return product;
}

static double sum_of(const char **p);

static double call(const char *name, const char **p) {
    double value = sum_of(p);
    bool is_min = !strcmp(name, "min");
    for (skip_spaces(p); **p == ','; skip_spaces(p)) {
        ++*p;
        double other = sum_of(p);
        if (!strcmp(name, "pow")) value = pow_of(value, other);
        else if (is_min ? other < value : other > value) value = other;
    }
    if (*(*p)++ != ')') fail(1, "a formula with a ( that is not closed, at \"%s\"", *p - 1);
    if (!strcmp(name, "ceil")) return -floor_of(-value);
    if (!strcmp(name, "floor")) return floor_of(value);
    return strcmp(name, "exp") ? value : exp_of(value);
}

static double atom_of(const char **p) {
    char name[NAME_MAX_], *tail;
    double value;
    skip_spaces(p);
    if (**p == '-') return ++*p, -atom_of(p);
    if (**p == '(') return ++*p, call("", p);
    if (is_digit(**p)) return value = strtod(*p, &tail), *p = tail, value;
    *p = read_name(*p, name);
    if (**p == '(') return ++*p, call(name, p);
    if (!find_value(name, &value)) fail(1, "a formula with the name \"%s\", which has no value", name);
    return value;
}

static double product_of(const char **p) {
    double value = atom_of(p);
    for (skip_spaces(p); **p == '*' || **p == '/'; skip_spaces(p)) {
        bool is_product = *(*p)++ == '*';
        double other = atom_of(p);
        value = is_product ? value * other : value / other;
    }
    return value;
}

static double sum_of(const char **p) {
    double value = product_of(p);
    for (skip_spaces(p); **p == '+' || **p == '-'; skip_spaces(p)) {
        bool is_sum = *(*p)++ == '+';
        double other = product_of(p);
        value = is_sum ? value + other : value - other;
    }
    return value;
}

static void compute(void) {
    for (known = 0; known < FIGURES; known++) {
        const char *p = figures[known].formula;
        values[known] = sum_of(&p);
        if (*p) fail(1, "the formula of %s is not understood at \"%s\"", figures[known].key, p);
        if (!isfinite(values[known])) fail(2, "%s is out of range with these inputs (%s)", figures[known].key, figures[known].formula);
    }
}

// --- which limit decides ---

typedef struct transport {
    const char *key, *label;
} transport;

enum { SHORT_POLL, LONG_POLL, SSE, WEBSOCKET, TRANSPORTS };
static const transport transports[TRANSPORTS] = {{"shortpoll", "short poll"}, {"longpoll", "long poll"}, {"sse", "SSE"}, {"websocket", "WebSocket"}};

static double of(int which, const char *what) {
    char key[NAME_MAX_];
    snprintf(key, sizeof key, "%s_%s", transports[which].key, what);
    return value_of(key);
}

// The first of the least.
static const char *limit_of(int which) {
    static const char *const names[] = {"connections", "descriptors", "memory", "ports", "cpu"};
    double limits[] = {value_of("limit_connections"), value_of("limit_descriptors"), value_of("limit_memory"), value_of("limit_ports"),
                       value_of("cpu_budget") / of(which, "cpu")};
    int least = 0;
    for (int i = 1; i < 5; i++)
        if (limits[i] < limits[least]) least = i;
    return names[least];
}

// --- numbers for people ---

static void write_number(char *to, size_t cap, double x) {
    char digits[64];
    double size = x < 0 ? -x : x;
    int decimals = size >= 100 ? 0 : size >= 10 ? 1 : size >= 0.1 || x == 0 ? 2 : 4;
    if (x == floor_of(x)) decimals = 0;
    if (size > 0 && size < 0.001) { snprintf(to, cap, "%.3g", x); return; }
    snprintf(digits, sizeof digits, "%.*f", decimals, x);
    size_t whole = strcspn(digits, "."), at = 0;
    for (size_t i = 0; digits[i] && at + 2 < cap; i++) {
        if (i && i < whole && (whole - i) % 3 == 0 && digits[i - 1] != '-') to[at++] = ',';
        to[at++] = digits[i];
    }
    to[at] = 0;
}

static const char *text_of(double x) { // good for sixteen calls
    static char texts[16][48];
    static unsigned next;
    char *text = texts[next++ % 16];
    write_number(text, sizeof texts[0], x);
    return text;
}

// --- the decision ---

typedef struct wishes {
    bool is_two_way, is_hostile, has_browsers;
    double latency_ms;
} wishes;

typedef struct decision {
    int which;
    char because[3][400];
} decision;

// Polling is good enough where a message may be as late as a poll, and dearer streams would wake clients more often.
static bool may_short_poll(const wishes *w) {
    bool is_in_time = value_of("poll_interval") * 1000 <= w->latency_ms; // the line's own time is the same for all
    return is_in_time && (w->is_hostile || value_of("shortpoll_wakeups") <= value_of("sse_wakeups"));
}

static int choose(const wishes *w) {
    if (may_short_poll(w) && !w->is_two_way) return SHORT_POLL;
    if (w->is_hostile) return LONG_POLL;
    if (w->is_two_way) return WEBSOCKET;
    return w->has_browsers || value_of("per_client") <= 1 ? SSE : WEBSOCKET;
}

static void say_why(decision *d, const wishes *w) {
    char *to = d->because[0];
    size_t cap = sizeof d->because[0];
    if (d->which == SHORT_POLL)
        snprintf(to, cap, "Short polling: %s ms may pass, a poll each %s s brings a message after %s ms at most, and no stream wakes a client less "
                          "often.",
                 text_of(w->latency_ms), text_of(value_of("poll_interval")), text_of(value_of("shortpoll_latency_most")));
    else if (d->which == LONG_POLL)
        snprintf(to, cap, "Long polling: what stands between holds event streams back and lets no upgrade through, and %s ms do not leave the time for "
                          "a poll each %s s%s.",
                 text_of(w->latency_ms), text_of(value_of("poll_interval")), w->is_two_way ? "; what clients say goes by POST" : "");
    else if (d->which == WEBSOCKET && w->is_two_way)
        snprintf(to, cap, "WebSocket: both sides speak, and on one open connection a word of the client costs a frame instead of a request.");
    else if (d->which == WEBSOCKET)
        snprintf(to, cap, "WebSocket: no browser needs EventSource, and at %s messages/s for each client the %s bytes that a frame saves of each "
                          "count.",
                 text_of(value_of("per_client")), text_of(value_of("sse_around") - value_of("websocket_around")));
    else
        snprintf(to, cap, "SSE: only the server speaks, and an event stream is plain HTTP%s that resumes by its last id.",
                 w->has_browsers ? ", which browsers read by themselves," : "");
}

// What it asks for, beside short polling, or that beside a stream.
static void say_cost(decision *d) {
    static const char *const latencies[] = {"push_latency", "shortpoll_latency"};
    int other = d->which == SHORT_POLL ? SSE : SHORT_POLL;
    snprintf(d->because[1], sizeof d->because[1],
             "%s clients take %s servers (%s each, by %s, and one to spare), %s Mbit/s down and %s up; by %s it would be %s servers, %s down and "
             "%s up, and %s ms instead of %s.",
             text_of(value_of("connections")), text_of(of(d->which, "servers")), text_of(of(d->which, "per_server")), limit_of(d->which),
             text_of(of(d->which, "down")), text_of(of(d->which, "up")), transports[other].label, text_of(of(other, "servers")),
             text_of(of(other, "down")), text_of(of(other, "up")), text_of(value_of(latencies[other == SHORT_POLL])),
             text_of(value_of(latencies[other != SHORT_POLL])));
}

static void say_caution(decision *d, const wishes *w) {
    char *to = d->because[2];
    size_t cap = sizeof d->because[2];
    if (w->latency_ms < value_of("push_latency"))
        snprintf(to, cap, "No transport brings a message in %s ms over a line that takes %s there: clients must be nearer.",
                 text_of(w->latency_ms), text_of(value_of("push_latency")));
    else if (d->which == SHORT_POLL)
        snprintf(to, cap, "Change when less than %s s are wanted, or clients speak too; %s %% of the polls bring nothing if messages come at random.",
                 text_of(value_of("poll_interval")), text_of(value_of("shortpoll_empty") * 100));
    else if (d->which == LONG_POLL)
        snprintf(to, cap, "Let clients try WebSocket and SSE first, as some lines let them through; %s requests/s are the price%s.",
                 text_of(value_of("longpoll_requests")), value_of("per_client") > 1 ? ", and at more than a message a second each answer carries several" : "");
    else
        snprintf(to, cap, "Keep long polling below it for lines that %s; a lost server sends %s connections/s to the others with full jitter, %s without%s.",
                 d->which == SSE ? "hold streams back" : "block the upgrade", text_of(value_of("storm_jitter")), text_of(value_of("storm_plain")),
                 d->which == SSE && w->has_browsers ? ", and a browser has six connections to a host over HTTP/1.1, so tabs must share one" : "");
}

static void decide(decision *d, const wishes *w) {
    d->which = choose(w);
    say_why(d, w);
    say_cost(d);
    say_caution(d, w);
}

// --- measuring this machine ---

enum { MEASURE_SOCKETS = 1000, MEASURE_POLLS = 200, MEASURE_PUBLISHES = 30 };

typedef struct bench {
    rtpush_hub *hub;
    pid_t pid;
    int port;
    long long open, messages, sends;
    bool is_ending;
} bench;

typedef struct bench_client {
    bench *b;
    rtpush_client client;
    bool is_open;
} bench_client;

static rtpush_hub *stopped_hub; // for the handler

static void on_term(int number) {
    (void)number;
    rtpush_stop(stopped_hub);
}

static pid_t server_pid; // to be ended with us

static void end_server(void) {
    if (server_pid) kill(server_pid, SIGTERM);
}

// The server: a process of its own, that only serves. It tells its port and goes on until SIGTERM.
static void serve(int to) {
    rtpush_desc desc;
    int port = 0;
    memset(&desc, 0, sizeof desc);
    desc.heartbeat_ms = 1000; // so that heartbeats can be measured in seconds
    stopped_hub = rtpush_create(&desc);
    if (!stopped_hub || rtpush_listen(stopped_hub, "http://127.0.0.1:0", &port)) fail(1, "--measure: no server");
    signal(SIGTERM, on_term);
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGTERM); // also if that one is killed
#endif
    if (write(to, &port, sizeof port) != (ssize_t)sizeof port) exit(1);
    close(to);
    rtpush_run(stopped_hub);
    rtpush_destroy(stopped_hub);
    exit(0);
}

// The server's CPU time, read from here.
static double server_cpu_us(const bench *b) {
    clockid_t clock;
    struct timespec t;
    if (clock_getcpuclockid(b->pid, &clock) || clock_gettime(clock, &t)) fail(1, "--measure: the server's CPU time cannot be read");
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

// Its resident memory, bytes; 0: this system does not tell.
static double server_memory(const bench *b) {
    char name[64], text[128] = "";
    unsigned long long pages = 0;
    snprintf(name, sizeof name, "/proc/%ld/statm", (long)b->pid);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 && sscanf(text, "%*u %llu", &pages) == 1 ? (double)pages * (double)sysconf(_SC_PAGESIZE) : 0;
}

// What the kernel holds in small objects, bytes: sockets, files, watches; 0: it does not tell.
static double kernel_memory(void) {
    char line[128];
    unsigned long long kb = 0;
    FILE *file = fopen("/proc/meminfo", "r");
    if (!file) return 0;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "Slab: %llu kB", &kb) == 1) break;
    fclose(file);
    return (double)kb * 1024;
}

static double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static ptrdiff_t count_send(void *user, int fd, const rtpush_iov *iov, int count) {
    ssize_t n = count ? send(fd, iov->base, iov->len, MSG_NOSIGNAL) : 0; // of several the first: a short write
    if (n > 0) ((bench *)user)->sends++;
    return n < 0 ? -errno : n;
}

static void on_message(rtpush_hub *hub, rtpush_client client, const rtpush_message *m, const char *id, void *user) {
    (void)hub;
    (void)client;
    (void)m;
    (void)id;
    ((bench_client *)user)->b->messages++;
}

static void on_state(rtpush_hub *hub, rtpush_client client, const rtpush_client_status *status, void *user) {
    bench_client *c = (bench_client *)user;
    bool is_open = status->state == RTPUSH_CLIENT_OPEN;
    (void)hub;
    (void)client;
    if (status->state == RTPUSH_CLIENT_CLOSED && !c->b->is_ending) fail(1, "--measure: %s", status->reason);
    c->b->open += (int)is_open - (int)c->is_open;
    c->is_open = is_open;
}

static void turns(bench *b, double seconds) {
    for (double end = seconds_now() + seconds; seconds_now() < end;) rtpush_step(b->hub, 5);
}

// Connects so many, a few each millisecond, and waits until all are open.
static void connect_clients(bench *b, bench_client *all, int count, const char *how, double spread) {
    rtpush_client_desc desc;
    char url[64];
    double begin = seconds_now();
    long long wanted = b->open + count;
    memset(&desc, 0, sizeof desc);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/live/plan", b->port);
    desc.url = url;
    desc.transports = how;
    desc.interval_ms = 50;
    desc.on_message = on_message;
    desc.on_state = on_state;
    for (int i = 0; i < count; i++) {
        all[i].b = b;
        desc.user = &all[i];
        while (seconds_now() - begin < spread * i / count) rtpush_step(b->hub, 1);
        all[i].client = rtpush_connect(b->hub, &desc);
        if (!all[i].client) fail(1, "--measure: %s", rtpush_last_error(b->hub));
    }
    while (b->open < wanted && seconds_now() - begin < 15) rtpush_step(b->hub, 5);
    if (b->open < wanted) fail(1, "--measure: only %lld of %lld clients are connected after 15 s (descriptors? ulimit -n)", b->open, wanted);
}

static void close_clients(bench *b, bench_client *all, int count) {
    b->is_ending = true;
    for (int i = 0; i < count; i++) rtpush_client_close(b->hub, all[i].client, 1000, "");
    turns(b, 0.2);
    b->is_ending = false;
}

static void set_measured(const char *key, double value) {
    input *in = find_input(key);
    if (!strcmp(in->source, "given")) return; // who says it knows better
    in->value = value < in->least ? in->least : value > in->most ? in->most : value;
    in->source = "measured here";
}

// WebSockets: what one costs to come, to be there, to be pinged, to be told.
static void measure_sockets(bench *b) {
    static bench_client first, all[MEASURE_SOCKETS];
    connect_clients(b, &first, 1, "websocket", 0);
    double memory = server_memory(b), kernel = kernel_memory(), cpu = server_cpu_us(b);
    connect_clients(b, all, MEASURE_SOCKETS, "websocket", 0.5);
    set_measured("cpu_per_connect", (server_cpu_us(b) - cpu) / MEASURE_SOCKETS);
    if (memory > 0) set_measured("memory_per_connection", (server_memory(b) - memory) / MEASURE_SOCKETS);
    kernel = (kernel_memory() - kernel) / (2.0 * MEASURE_SOCKETS); // both ends are here
    if (kernel > 500 && kernel < 50000) set_measured("kernel_per_connection", kernel); // else something else moved it
    turns(b, 1.1);
    double begin = seconds_now();
    cpu = server_cpu_us(b);
    turns(b, 1); // a ping for each in a second, at this server
    set_measured("cpu_per_heartbeat", (server_cpu_us(b) - cpu) / (MEASURE_SOCKETS * (seconds_now() - begin)));
    rtpush_publication what;
    char payload[128];
    memset(payload, 'x', sizeof payload);
    memset(&what, 0, sizeof what);
    what.data = payload;
    what.size = sizeof payload;
    long long before = b->messages, wanted = before + (long long)MEASURE_PUBLISHES * (MEASURE_SOCKETS + 1);
    cpu = server_cpu_us(b);
    for (int i = 0; i < MEASURE_PUBLISHES; i++) {
        if (rtpush_client_publish(b->hub, first.client, &what)) fail(1, "--measure: a publish is not taken");
        turns(b, 0.03);
    }
    for (double end = seconds_now() + 10; b->messages < wanted && seconds_now() < end;) rtpush_step(b->hub, 5);
    if (b->messages < wanted) fail(1, "--measure: %lld of %lld messages came", b->messages - before, wanted - before);
    set_measured("cpu_per_message", (server_cpu_us(b) - cpu) / (double)(wanted - before));
    close_clients(b, all, MEASURE_SOCKETS);
    close_clients(b, &first, 1);
}

static void measure_polls(bench *b) {
    static bench_client all[MEASURE_POLLS];
    connect_clients(b, all, MEASURE_POLLS, "shortpoll", 0.2);
    double cpu = server_cpu_us(b);
    long long before = b->sends;
    turns(b, 1.5);
    if (b->sends == before) fail(1, "--measure: no poll in 1.5 s");
    set_measured("cpu_per_poll", (server_cpu_us(b) - cpu) / (double)(b->sends - before));
    close_clients(b, all, MEASURE_POLLS);
}

static void raise_descriptors(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit)) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (!getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_cur != RLIM_INFINITY) set_measured("descriptors", (double)limit.rlim_cur);
}

// A server in a process of its own, clients in this one.
static void measure(void) {
    static bench b;
    static rtpush_sys sys;
    rtpush_desc desc;
    int pipes[2], status = 0;
    raise_descriptors();
    if (pipe(pipes)) fail(1, "--measure: pipe: %s", strerror(errno));
    fflush(stdout);
    b.pid = fork();
    if (b.pid < 0) fail(1, "--measure: fork: %s", strerror(errno));
    if (!b.pid) close(pipes[0]), serve(pipes[1]);
    server_pid = b.pid;
    atexit(end_server);
    close(pipes[1]);
    if (read(pipes[0], &b.port, sizeof b.port) != (ssize_t)sizeof b.port) fail(1, "--measure: the server does not start");
    close(pipes[0]);
    sys.user = &b;
    sys.send = count_send;
    memset(&desc, 0, sizeof desc);
    desc.sys = &sys;
    b.hub = rtpush_create(&desc);
    if (!b.hub) fail(1, "--measure: no clients");
    measure_sockets(&b);
    measure_polls(&b);
    b.is_ending = true;
    rtpush_destroy(b.hub);
    kill(b.pid, SIGTERM);
    waitpid(b.pid, &status, 0);
    server_pid = 0;
    if (!WIFEXITED(status) || WEXITSTATUS(status)) fail(1, "--measure: the server failed");
}

// --- printing ---

// The formula with its names replaced by their values.
static void print_numbers(const char *formula) {
    char name[NAME_MAX_];
    double value;
    for (const char *p = formula; *p;) {
        if (is_digit(*p)) { // "1e6" is a number, and its e no name
            while (is_digit(*p) || *p == '.' || *p == 'e') putchar(*p++);
            continue;
        }
        if (!is_name(*p)) { putchar(*p++); continue; }
        p = read_name(p, name);
        if (*p != '(' && find_value(name, &value)) printf("%.10g", value);
        else fputs(name, stdout);
    }
}

static void print_explained(const figure *f) {
    printf("      = %s\n      = ", f->formula);
    print_numbers(f->formula);
    putchar('\n');
}

static void print_inputs(bool all) {
    printf("%s\n", all ? "Inputs" : "Inputs that were given or measured");
    for (int i = 0; i < INPUTS; i++) {
        bool is_shown = all || !strcmp(inputs[i].source, "given") || !strcmp(inputs[i].source, "measured here");
        if (!is_shown) continue;
        printf("  %-24s %14s %-6s %s (%s)\n", inputs[i].key, text_of(inputs[i].value), inputs[i].unit, inputs[i].title, inputs[i].source);
    }
    putchar('\n');
}

static void print_text(const decision *d, bool is_explained) {
    print_inputs(is_explained);
    for (int i = 0; i < FIGURES; i++) {
        const figure *f = &figures[i];
        if (f->section) printf("%s%s\n", i ? "\n" : "", f->section);
        printf("  %-22s %16s %-7s %s", f->key, text_of(values[i]), f->unit, f->title);
        for (int t = 0; t < TRANSPORTS; t++) {
            char key[NAME_MAX_];
            snprintf(key, sizeof key, "%s_per_server", transports[t].key);
            if (!strcmp(f->key, key)) printf(" (limited by %s)", limit_of(t));
        }
        putchar('\n');
        if (is_explained) print_explained(f);
    }
    printf("\nDecision\n");
    for (int i = 0; i < 3; i++) printf("  %s\n", d->because[i]);
}

// The inputs and figures that a formula names.
static void print_json_names(const char *formula) {
    char name[NAME_MAX_];
    bool is_first = true;
    double value;
    for (const char *p = formula; *p;) {
        if (is_digit(*p)) {
            while (is_digit(*p) || *p == '.' || *p == 'e') p++;
        } else if (!is_name(*p)) {
            p++;
        } else {
            p = read_name(p, name);
            if (*p == '(' || !find_value(name, &value)) continue;
            printf("%s\"%s\":%.17g", is_first ? "" : ",", name, value);
            is_first = false;
        }
    }
}

static void print_json(const decision *d) {
    printf("{\"tool\":\"rtplan\",\"version\":\"" RTPUSH_VERSION "\",\n\"inputs\":{");
    for (int i = 0; i < INPUTS; i++)
        printf("%s\n\"%s\":{\"value\":%.17g,\"unit\":\"%s\",\"source\":\"%s\",\"title\":\"%s\"}", i ? "," : "", inputs[i].key,
               inputs[i].value, inputs[i].unit, inputs[i].source, inputs[i].title);
    printf("},\n\"figures\":{");
    for (int i = 0; i < FIGURES; i++) {
        printf("%s\n\"%s\":{\"value\":%.17g,\"unit\":\"%s\",\"title\":\"%s\",\"formula\":\"%s\",\"from\":{", i ? "," : "",
               figures[i].key, values[i], figures[i].unit, figures[i].title, figures[i].formula);
        print_json_names(figures[i].formula);
        printf("}}");
    }
    printf("},\n\"limits\":{");
    for (int i = 0; i < TRANSPORTS; i++) printf("%s\"%s\":\"%s\"", i ? "," : "", transports[i].key, limit_of(i));
    printf("},\n\"decision\":{\"transport\":\"%s\",\"because\":[", transports[d->which].key);
    for (int i = 0; i < 3; i++) printf("%s\"%s\"", i ? "," : "", d->because[i]);
    printf("]}}\n");
}

// --- flags ---

typedef struct options {
    wishes wishes;
    bool is_json, is_explained, is_measured;
} options;

static const char usage_head[] =
    "usage: rtplan [flags]\n"
    "  What so many users ask of servers, lines, Redis and batteries, and which transport to take.\n"
    "\n"
    "  --explain            with each figure its formula and numbers, and all inputs with their sources\n"
    "  --measure            measures this machine first, some seconds: memory of an idle connection, CPU of a message, a\n"
    "                       poll, a connection and a heartbeat. Without it these are figures of README.md\n"
    "  --json               all of it as JSON\n"
    "  --direction D        one-way (from the server; the default) or two-way\n"
    "  --latency MS         that a message may take; 1000\n"
    "  --proxies P          ok (the default), or hostile: they hold streams back and block upgrades\n"
    "  --browsers YES       yes (the default) or no: are clients pages?\n"
    "  --tls                https and wss\n"
    "  --help, --version\n"
    "\n"
    "Numbers; k, M and G stand for thousands, millions and billions:\n";

static void print_usage(void) {
    fputs(usage_head, stdout);
    for (int i = 0; i < INPUTS; i++) {
        char flag[NAME_MAX_ + 2] = "--";
        if (!strcmp(inputs[i].key, "tls")) continue;
        for (size_t n = 0; inputs[i].key[n]; n++) flag[n + 2] = inputs[i].key[n] == '_' ? '-' : inputs[i].key[n], flag[n + 3] = 0;
        printf("  %-26s %s %s%s%s (%s)\n", flag, inputs[i].title, text_of(inputs[i].value),
               *inputs[i].unit ? " " : "", inputs[i].unit, inputs[i].source);
    }
}

// A plain number with an optional k, M or G.
static double read_number(const char *flag, const char *text, double least, double most, bool is_whole) {
    char *tail;
    size_t size = strspn(text, "0123456789.");
    double x = size ? strtod(text, &tail) : -1, scale = text[size] == 'k' ? 1e3 : text[size] == 'M' ? 1e6 : text[size] == 'G' ? 1e9 : 1;
    bool is_number = size && tail == text + size && (!text[size] || (scale > 1 && !text[size + 1]));
    x *= scale;
    if (!is_number || !(x >= least && x <= most)) fail(2, "%s \"%s\": a number from %.10g to %.10g is wanted", flag, text, least, most);
    if (is_whole && x != floor_of(x)) fail(2, "%s \"%s\": a whole number is wanted", flag, text);
    return x;
}

static bool read_word(const char *flag, const char *text, const char *no, const char *yes) {
    if (strcmp(text, no) && strcmp(text, yes)) fail(2, "%s \"%s\": %s or %s is wanted", flag, text, no, yes);
    return !strcmp(text, yes);
}

static bool take_word(options *o, const char *flag) {
    if (!strcmp(flag, "--json")) o->is_json = true;
    else if (!strcmp(flag, "--explain")) o->is_explained = true;
    else if (!strcmp(flag, "--measure")) o->is_measured = true;
    else if (!strcmp(flag, "--tls")) find_input("tls")->value = 1, find_input("tls")->source = "given";
    else if (!strcmp(flag, "--help")) print_usage(), exit(0);
    else if (!strcmp(flag, "--version")) puts("rtplan " RTPUSH_VERSION), exit(0);
    else return false;
    return true;
}

// The input of a flag; NULL: there is none of that name.
static input *input_of_flag(const char *flag) {
    char key[NAME_MAX_];
    size_t n = strlen(flag);
    if (n < 3 || n >= NAME_MAX_ || strncmp(flag, "--", 2) || strchr(flag, '_') || !strcmp(flag, "--tls")) return NULL;
    for (size_t i = 2; i <= n; i++) key[i - 2] = flag[i] == '-' ? '_' : flag[i];
    return find_input(key);
}

static bool takes_value(const char *flag) {
    static const char *const words[] = {"--direction", "--latency", "--proxies", "--browsers"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(flag, words[i])) return true;
    return input_of_flag(flag) != NULL;
}

static void take_value(options *o, const char *flag, const char *value) {
    input *in = input_of_flag(flag);
    if (in) {
        in->value = read_number(flag, value, in->least, in->most, in->is_whole);
        in->source = "given";
    } else if (!strcmp(flag, "--direction")) {
        o->wishes.is_two_way = read_word(flag, value, "one-way", "two-way");
    } else if (!strcmp(flag, "--proxies")) {
        o->wishes.is_hostile = read_word(flag, value, "ok", "hostile");
    } else if (!strcmp(flag, "--browsers")) {
        o->wishes.has_browsers = read_word(flag, value, "no", "yes");
    } else {
        o->wishes.latency_ms = read_number(flag, value, 1, 1e9, false);
    }
}

static void parse(options *o, int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        char *equals = !strncmp(argv[i], "--", 2) ? strchr(argv[i], '=') : NULL; // --flag VALUE or --flag=VALUE
        if (!equals && take_word(o, argv[i])) continue;
        if (equals) *equals = 0;
        if (!takes_value(argv[i])) fail(2, "\"%s\": there is no such flag (see --help)", argv[i]);
        const char *value = equals ? equals + 1 : argv[i + 1];
        if (!value) fail(2, "%s: its value is missing", argv[i]);
        take_value(o, argv[i], value);
        if (!equals) i++;
    }
}

static void check(void) {
    double connections = value_of("users") * value_of("online");
    input *fanout = find_input("fanout");
    if (!strcmp(fanout->source, DEFAULT) && fanout->value > connections) fanout->value = connections < 1 ? 1 : floor_of(connections);
    if (connections < 1) fail(2, "--online leaves fewer than one of the users");
    if (value_of("fanout") > connections)
        fail(2, "--fanout %.10g: a message cannot have more readers than the %.10g that are connected", value_of("fanout"), connections);
    if (value_of("backoff") > value_of("backoff_max")) fail(2, "--backoff is above --backoff-max");
}

int main(int argc, char **argv) {
    static options o;
    static decision d;
    signal(SIGPIPE, SIG_IGN);
    o.wishes.latency_ms = 1000;
    o.wishes.has_browsers = true;
    parse(&o, argc, argv);
    check();
    if (o.is_measured) measure();
    compute();
    decide(&d, &o.wishes);
    if (o.is_json) print_json(&d);
    else print_text(&d, o.is_explained);
    return fflush(stdout) || ferror(stdout) ? 1 : 0;
}
