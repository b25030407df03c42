// rtpushd: the ready daemon. Topics below one mount point, over WebSocket, SSE, long and short polls.
//
//     cc -O2 tools/rtpushd.c -o rtpushd && ./rtpushd --verbose
//     cc -O2 -DRTPUSH_OPENSSL tools/rtpushd.c -o rtpushd -lssl -lcrypto        with https: and wss:
//
// SIGTERM and SIGINT drain, a second one ends at once; SIGHUP reads the certificates again.
// Exit status: 0 after a drain, 1 where the system refused, 2 for a bad flag or value.
#define RTPUSH_IMPLEMENTATION
#include "../rtpush.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define LIST_MAX 64 // of --listen, and of rules

typedef struct options {
    rtpush_desc desc;
    const char *listen[LIST_MAX];
    int listens;
    rtpush_rule rules[LIST_MAX + 1]; // --presence, --durable; one for each pattern
    int rule_count;
    const char *echo, *hello;
    rtpush_tls_desc tls;
    const char *certs[LIST_MAX], *keys[LIST_MAX];
    int cert_count, key_count;
    int64_t drain_spread, drain_deadline; // -1: none
    const char *journal;
    rtpush_journal_desc journal_desc;
    const char *redis;
    rtpush_redis_desc redis_desc;
} options;

static const char usage[] =
    "usage: rtpushd [flags]\n"
    "  --listen URL         http://HOST:PORT, https://HOST:PORT, unix:PATH, or fd:N (a listening socket that was\n"
    "                       inherited; fd:N:https for TLS); repeatable; http://127.0.0.1:8080\n"
    "  --cert FILE          for https: the certificate chain (PEM); repeatable, chosen by the name asked for\n"
    "  --key FILE           its key; in the order of --cert; if there is none, it is in the same file\n"
    "  --client-ca FILE     ask clients for a certificate signed by one of these\n"
    "  --mount PATH         where the topics are; /live\n"
    "  --echo PATH          a WebSocket opened there gets its own frames back\n"
    "  --hello PATH         answers hello, or the body it was sent\n"
    "  --presence PATTERN   tell who reads these topics, in @presence/TOPIC; repeatable\n"
    "  --publish open|off   whether clients may publish; open\n"
    "  --drain-spread MS    SIGTERM: readers are sent away within this time; 3000\n"
    "  --drain-deadline MS  and who is left after this one is cut; 10000; off: nobody is\n"
    "  --threads N          so many loops share the work; 1\n"
    "  --journal DIR        keep the log there: a restart continues it\n"
    "  --fsync MS           how long what was answered may be off the disk; 100; always: not at all; off: as the system likes\n"
    "  --redis URL          share the log with the other nodes there: redis://[USER:PASS@]HOST[:PORT][/DB], rediss (TLS),\n"
    "                       unix:PATH, redis+sentinel://HOST,HOST/MASTER\n"
    "  --redis-log NAME     which log; rtpush\n"
    "  --redis-ca FILE      rediss: who may have signed its certificate; the system's authorities\n"
    "  --durable PATTERN    with --redis: these topics have streams of their own, as @user/NAME has; repeatable\n"
    "  --node NAME          this node's name, no other's; a random one\n"
    "  --set NAME=VALUE     a setting from the list below; repeatable\n"
    "  --verbose            say what happens, on stderr\n"
    "  --help, --version\n"
    "\n"
    "settings of --set, with their defaults (0 switches off where \"off\" is said):\n";

// --- settings ---

typedef struct setting {
    const char *name;
    size_t at;        // its int64_t in the desc
    bool can_be_off;  // 0 and -1 are allowed, and mean what -1 means in the desc
    const char *help;
} setting;

#define AT(name) #name, offsetof(rtpush_desc, name)

static const setting settings[] = {
    {AT(history), true, "messages kept of a topic; 100; off: none"},
    {AT(history_bytes), false, "bytes kept of a topic; 1048576"},
    {AT(history_ms), true, "how long a message is kept; 3600000; off: as long as there is room"},
    {AT(history_total_bytes), false, "bytes kept of all topics; 67108864"},
    {AT(heartbeat_ms), true, "WebSocket ping; 20000; off: none"},
    {AT(dead_ms), false, "without a byte after a ping: dropped; 10000"},
    {AT(sse_heartbeat_ms), true, "SSE comment; 15000; off: none"},
    {AT(stall_ms), false, "without the peer taking a byte: closed; 30000"},
    {AT(poll_max_ms), false, "the longest hold of a long poll; 55000"},
    {AT(body_max), false, "bytes of an HTTP body; 1048576"},
    {AT(message_max), false, "bytes of a message; 1048576"},
    {AT(fragments_max), false, "fragments of a WebSocket message; 1024"},
    {AT(header_timeout_ms), false, "for the whole request head; 10000"},
    {AT(idle_timeout_ms), false, "between two requests; 30000"},
    {AT(topics_max), false, "topics; 100000"},
    {AT(session_topics_max), false, "topics of one connection; 64"},
    {AT(connections_max), false, "what the process may open, less 64"},
    {AT(connections_per_ip_max), true, "off"},
    {AT(ring_max), false, "a connection's own bytes under way; 262144"},
    {AT(linger_ms), true, "how long a ?session= outlives its last request; 15000; off: not at all"},
};

#define SETTINGS (sizeof settings / sizeof *settings)

static void help(void) {
    fputs(usage, stdout);
    for (size_t i = 0; i < SETTINGS; i++) printf("  %-22s  %s\n", settings[i].name, settings[i].help);
    puts("  slow                    a reader whose next message is gone: close, skip or latest; close\n"
         "  backend                 epoll, kqueue or poll; the best here\n"
         "  origin                  origins allowed, comma separated, or *; the same host");
}

static void fail(int status, const char *what, const char *value, const char *why) {
    fprintf(stderr, "rtpushd: %s%s%s: %s\n", what, *value ? " " : "", value, why);
    exit(status);
}

static void set_number(rtpush_desc *desc, const setting *s, const char *text, const char *given) {
    char *end;
    errno = 0;
    long long number = strtoll(given, &end, 10);
    if (errno || end == given || *end) fail(2, "--set", text, "not a number");
    if (number < (s->can_be_off ? -1 : 1)) fail(2, "--set", text, "out of range");
    // In the desc 0 is the default; a person who writes 0 means none.
    int64_t value = number ? number : -1;
    memcpy((char *)desc + s->at, &value, sizeof value);
}

// A duration of at least 0; `off` where that is allowed: -1.
static int64_t duration(const char *flag, const char *text, bool can_be_off) {
    char *end;
    errno = 0;
    long long ms = strtoll(text, &end, 10);
    if (can_be_off && !strcmp(text, "off")) return -1;
    if (errno || end == text || *end || ms < 0 || ms > 86400000) fail(2, flag, text, "not a number of milliseconds");
    return ms;
}

static int64_t threads_of(const char *text) {
    char *end;
    long n = strtol(text, &end, 10);
    if (end == text || *end || n < 1 || n > 64) fail(2, "--threads", text, "1 to 64");
    return n;
}

static void set_fsync(rtpush_journal_desc *desc, const char *text) {
    desc->sync_always = !strcmp(text, "always");
    int64_t ms = desc->sync_always ? 0 : duration("--fsync", text, true);
    if (!ms && !desc->sync_always) desc->sync_always = true;
    else desc->sync_ms = ms;
}

static int slow_by_name(const char *name) {
    if (!strcmp(name, "close")) return RTPUSH_SLOW_CLOSE;
    if (!strcmp(name, "skip")) return RTPUSH_SLOW_SKIP;
    if (!strcmp(name, "latest")) return RTPUSH_SLOW_LATEST;
    return RTPUSH_SLOW_DEFAULT;
}

static bool is_name(const char *text, size_t size, const char *name) {
    return size == strlen(name) && !memcmp(text, name, size);
}

static void set(rtpush_desc *desc, const char *text) {
    const char *equals = strchr(text, '=');
    if (!equals) fail(2, "--set", text, "not NAME=VALUE");
    size_t size = (size_t)(equals - text);
    const char *value = equals + 1;
    if (is_name(text, size, "slow")) {
        desc->slow = slow_by_name(value);
        if (desc->slow == RTPUSH_SLOW_DEFAULT) fail(2, "--set", text, "close, skip or latest");
        return;
    }
    if (is_name(text, size, "backend")) {
        desc->backend_name = value;
        return;
    }
    if (is_name(text, size, "origin")) {
        desc->origin = value;
        return;
    }
    for (size_t i = 0; i < SETTINGS; i++)
        if (is_name(text, size, settings[i].name)) {
            set_number(desc, &settings[i], text, value);
            return;
        }
    fail(2, "--set", text, "no such setting (--help lists them)");
}

// --- the hub's callbacks ---

static bool is_path(rtpush_slice path, const char *wanted) {
    return wanted && is_name(path.data, path.size, wanted);
}

static bool on_request(rtpush_hub *hub, rtpush_request *request, void *user) {
    const options *o = (const options *)user;
    const char *text = "Content-Type: text/plain; charset=utf-8\r\n";
    (void)hub;
    if (is_path(rtpush_path(request), o->echo)) {
        rtpush_session session;
        if (rtpush_accept_websocket(request, &session) != RTPUSH_OK)
            rtpush_reply(request, 426, "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", "", 0);
        return true;
    }
    if (!is_path(rtpush_path(request), o->hello)) return false;
    rtpush_slice body = rtpush_body(request);
    if (!body.size) {
        body.data = "hello";
        body.size = 5;
    }
    rtpush_reply(request, 200, text, body.data, body.size);
    return true;
}

// A frame at the echo path has no topic and goes back; another is a publish, as without --echo.
static void on_message(rtpush_hub *hub, rtpush_session from, const rtpush_message *m, void *user) {
    const options *o = (const options *)user;
    if (!*m->topic) {
        // What cannot be sent back must not be lost in silence: 4100, "try again after a pause".
        if (rtpush_send(hub, from, m->data, m->size, m->kind) == RTPUSH_E_FULL) rtpush_close(hub, from, 4100, "slow");
        return;
    }
    if (o->desc.publish_off || *m->topic == '@') return; // no client publishes to the library's own topics
    rtpush_publication what = {0};
    what.topic = m->topic;
    what.data = m->data;
    what.size = m->size;
    what.kind = m->kind;
    rtpush_publish_ex(hub, &what, NULL);
}

static void on_log(rtpush_hub *hub, const char *line, void *user) {
    (void)hub;
    (void)user;
    fprintf(stderr, "rtpushd: %s\n", line);
}

static void on_open(rtpush_hub *hub, rtpush_session session, void *user) {
    rtpush_session_info info;
    (void)user;
    if (rtpush_info(hub, session, &info) == RTPUSH_OK)
        fprintf(stderr, "rtpushd: session %llx opened, transport %d, identity \"%s\"\n", (unsigned long long)session, info.transport,
                info.identity);
}

static void on_close(rtpush_hub *hub, rtpush_session session, int code, void *user) {
    (void)hub;
    (void)user;
    fprintf(stderr, "rtpushd: session %llx closed, %d\n", (unsigned long long)session, code);
}

// --- flags ---

static void add(const char **list, int *count, const char *flag, const char *value) {
    if (*count == LIST_MAX) fail(2, flag, value, "too many of them");
    list[(*count)++] = value;
}

// The rule of a pattern, the first time with it.
static rtpush_topic_desc *rule_of(options *o, const char *flag, const char *pattern) {
    if (!rtpush_is_topic(pattern, strlen(pattern), true)) fail(2, flag, pattern, rtpush_strerror(RTPUSH_E_TOPIC));
    for (int i = 0; i < o->rule_count; i++)
        if (!strcmp(o->rules[i].pattern, pattern)) return &o->rules[i].desc;
    if (o->rule_count == LIST_MAX) fail(2, flag, pattern, "too many of them");
    o->rules[o->rule_count].pattern = pattern;
    return &o->rules[o->rule_count++].desc;
}

static const char *path_of(const char *flag, const char *value) {
    if (*value != '/') fail(2, flag, value, "a path starts with /");
    return value;
}

static void verbose(rtpush_desc *desc) {
    desc->on_log = on_log;
    desc->on_open = on_open;
    desc->on_close = on_close;
}

// A flag that stands alone. Does not return for --help and --version.
static bool take_word(options *o, const char *flag) {
    if (!strcmp(flag, "--verbose")) {
        verbose(&o->desc);
        return true;
    }
    if (!strcmp(flag, "--help")) help();
    else if (!strcmp(flag, "--version")) puts("rtpushd " RTPUSH_VERSION);
    else return false;
    exit(0);
}

static void take(options *o, const char *flag, const char *value) {
    if (!strcmp(flag, "--listen")) add(o->listen, &o->listens, flag, value);
    else if (!strcmp(flag, "--presence")) rule_of(o, flag, value)->presence = true;
    else if (!strcmp(flag, "--durable")) rule_of(o, flag, value)->durable = 1;
    else if (!strcmp(flag, "--mount")) o->desc.mount = path_of(flag, value);
    else if (!strcmp(flag, "--echo")) o->echo = path_of(flag, value);
    else if (!strcmp(flag, "--hello")) o->hello = path_of(flag, value);
    else if (!strcmp(flag, "--set")) set(&o->desc, value);
    else if (!strcmp(flag, "--cert")) add(o->certs, &o->cert_count, flag, value);
    else if (!strcmp(flag, "--key")) add(o->keys, &o->key_count, flag, value);
    else if (!strcmp(flag, "--client-ca")) o->tls.client_ca = value;
    else if (!strcmp(flag, "--drain-spread")) o->drain_spread = duration(flag, value, false);
    else if (!strcmp(flag, "--threads")) o->desc.threads = threads_of(value);
    else if (!strcmp(flag, "--journal")) o->journal = value;
    else if (!strcmp(flag, "--redis")) o->redis = value;
    else if (!strcmp(flag, "--redis-log")) o->redis_desc.log = value;
    else if (!strcmp(flag, "--redis-ca")) o->redis_desc.ca = value;
    else if (!strcmp(flag, "--node")) o->redis_desc.node = value;
    else if (!strcmp(flag, "--fsync")) set_fsync(&o->journal_desc, value);
    else if (!strcmp(flag, "--drain-deadline")) o->drain_deadline = duration(flag, value, true);
    else if (strcmp(value, "open") && strcmp(value, "off")) fail(2, flag, value, "open or off");
    else o->desc.publish_off = !strcmp(value, "off");
}

static bool takes_value(const char *flag) {
    static const char *const flags[] = {"--listen", "--presence", "--mount", "--echo", "--hello", "--set", "--publish",
                                        "--cert",   "--key",      "--client-ca", "--drain-spread", "--drain-deadline",
                                        "--threads", "--journal", "--fsync", "--durable", "--redis", "--redis-log", "--redis-ca", "--node"};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (!strcmp(flag, flags[i])) return true;
    return false;
}

static void parse(options *o, int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        char *equals = !strncmp(argv[i], "--", 2) ? strchr(argv[i], '=') : NULL; // --flag VALUE or --flag=VALUE
        if (!equals && take_word(o, argv[i])) continue;
        if (equals) *equals = 0;
        if (!takes_value(argv[i])) fail(2, argv[i], "", equals ? "no such flag with a value (see --help)" : "no such flag (see --help)");
        if (!equals && i + 1 == argc) fail(2, argv[i], "", "its value is missing");
        take(o, argv[i], equals ? equals + 1 : argv[i + 1]);
        if (!equals) i++;
    }
    if (!o->listens) o->listen[o->listens++] = "http://127.0.0.1:8080";
}

// --- start and end ---

static rtpush_hub *the_hub; // for the signal handler
static volatile sig_atomic_t signals;

static volatile sig_atomic_t is_hung_up;

static void on_signal(int number) {
    if (number == SIGHUP) is_hung_up = 1;
    else signals = signals + 1;
    rtpush_stop(the_hub);
}

static void catch_signals(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    sigemptyset(&action.sa_mask);
    action.sa_handler = on_signal;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

// As many descriptors as we are allowed: connections_max follows from it.
static void raise_descriptors(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit)) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static int status_of(int code) {
    bool is_value = code == RTPUSH_E_ARGUMENT || code == RTPUSH_E_TLS || code == RTPUSH_E_URL || code == RTPUSH_E_TOPIC || code == RTPUSH_E_BACKEND;
    return is_value ? 2 : 1;
}

// A socket that another process opened and left to us, as systemd and inetd do: fd:3, or fd:3:https.
static void listen_on_inherited(rtpush_hub *hub, const char *url) {
    char *end;
    long fd = strtol(url + 3, &end, 10);
    bool is_tls = !strcmp(end, ":https");
    int is_listening = 0;
    socklen_t size = sizeof is_listening;
    if (end == url + 3 || (*end && !is_tls) || fd < 3 || fd > 1 << 20) fail(2, "--listen", url, "fd:N, N of at least 3, or fd:N:https");
    if (getsockopt((int)fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &size) || !is_listening) fail(1, "--listen", url, "not a listening socket");
    int code = is_tls ? rtpush_adopt_tls_listener(hub, (int)fd) : rtpush_adopt_listener(hub, (int)fd);
    if (code) fail(status_of(code), "--listen", url, rtpush_last_error(hub));
    printf("listening on %s\n", url);
}

static void listen_on(rtpush_hub *hub, const char *url) {
    int port = 0;
    if (!strncmp(url, "fd:", 3)) {
        listen_on_inherited(hub, url);
        return;
    }
    int code = rtpush_listen(hub, url, &port);
    if (code == RTPUSH_E_SYSTEM || code == RTPUSH_E_TLS) fail(status_of(code), "--listen", url, rtpush_last_error(hub));
    if (code) fail(status_of(code), "--listen", url, rtpush_strerror(code));
    const char *colon = strrchr(url, ':');
    if (!strncmp(url, "unix:", 5)) printf("listening on %s\n", url);
    else printf("listening on %.*s:%d\n", (int)(colon - url), url, port);
}

static void take_certificates(rtpush_hub *hub, options *o) {
    if (o->key_count > o->cert_count) fail(2, "--key", o->keys[o->cert_count], "there is no --cert for it");
    for (int i = 0; i < o->cert_count; i++) {
        o->tls.cert = o->certs[i];
        o->tls.key = i < o->key_count ? o->keys[i] : NULL;
        int code = rtpush_tls(hub, &o->tls);
        if (code) fail(status_of(code), "--cert", o->certs[i], rtpush_last_error(hub));
    }
}

// In a deploy the process before us lets go of the journal as soon as its readers are sent away.
enum { JOURNAL_WAIT_MS = 5000 };

static void choose_bus(options *o) {
    if (!o->journal && !o->redis) return;
    if (o->journal && o->redis) fail(2, "--journal", o->journal, "not beside --redis: the log is in one place");
    if (!o->desc.on_log) o->desc.on_log = on_log; // what is said of a journal or of Redis is to be read
    o->journal_desc.wait_ms = JOURNAL_WAIT_MS;
    o->desc.bus = o->journal ? rtpush_journal(o->journal, &o->journal_desc) : rtpush_redis(o->redis, &o->redis_desc);
    if (!o->desc.bus) fail(1, "start", "", rtpush_strerror(RTPUSH_E_MEMORY));
}

static rtpush_hub *start(options *o) {
    int code = 0;
    o->desc.rules = o->rules;
    choose_bus(o);
    rtpush_hub *hub = rtpush_create_ex(&o->desc, &code);
    if (code == RTPUSH_E_BACKEND) fail(2, "--set backend", o->desc.backend_name, rtpush_strerror(code));
    if (!hub && o->journal) fail(status_of(code), "--journal", o->journal, code == RTPUSH_E_IN_USE ? "another process has it" : rtpush_strerror(code));
    if (!hub && o->redis) fail(status_of(code), code == RTPUSH_E_IN_USE ? "--node" : "--redis", code == RTPUSH_E_IN_USE ? o->redis_desc.node : o->redis,
                               code == RTPUSH_E_IN_USE ? "another node has this name" : rtpush_strerror(code));
    if (!hub) fail(status_of(code), "start", "", rtpush_strerror(code));
    take_certificates(hub, o);
    the_hub = hub;
    catch_signals(); // before the line that tells a supervisor that we are there
    for (int i = 0; i < o->listens; i++) listen_on(hub, o->listen[i]);
    fflush(stdout);
    return hub;
}

static void reload(rtpush_hub *hub) {
    is_hung_up = 0;
    int code = rtpush_tls_reload(hub);
    if (code) fprintf(stderr, "rtpushd: the certificates stay as they are: %s (%s)\n", rtpush_strerror(code), rtpush_last_error(hub));
}

// Runs until a signal, other than SIGHUP, has come; or until a drain has ended.
static int run(rtpush_hub *hub, int number) {
    int code;
    do {
        code = rtpush_run(hub);
        if (is_hung_up) reload(hub);
        else break;
    } while (!code && signals < number);
    return code;
}

// The first signal ends the first run and begins the drain; a second one ends that too.
static int serve(rtpush_hub *hub, const options *o) {
    int code = run(hub, 1);
    if (code) return code;
    if (signals < 2) code = rtpush_drain(hub, o->drain_spread ? o->drain_spread : -1, o->drain_deadline ? o->drain_deadline : 1);
    if (signals < 2 && !code) code = run(hub, 2);
    return code;
}

int main(int argc, char **argv) {
    static options o;
    o.drain_spread = 3000;
    o.drain_deadline = 10000;
    parse(&o, argc, argv);
    o.desc.user = &o;
    o.desc.on_request = on_request;
    if (o.echo) o.desc.on_message = on_message;
    raise_descriptors();
    rtpush_hub *hub = start(&o);
    int code = serve(hub, &o);
    if (code) fprintf(stderr, "rtpushd: %s (%s)\n", rtpush_strerror(code), rtpush_last_error(hub));
    // A late signal must not find a hub that is gone.
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    rtpush_destroy(hub);
    return code ? 1 : 0;
}
