// rtcat: reads and publishes from a terminal or a script. To an rtpush server by whatever transport works; to any
// WebSocket with --plain, to any event stream with --sse.
//
//     cc -O2 tools/rtcat.c -o rtcat && ./rtcat http://127.0.0.1:8080/live/chat/general
//     cc -O2 -DRTPUSH_OPENSSL tools/rtcat.c -o rtcat -lssl -lcrypto           with https: and wss:
//
// Exit status: 0 a clean end, 1 gave up, 2 a bad flag or URL, 3 the server broke the protocol.
#define RTPUSH_IMPLEMENTATION
#include "../rtpush.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PENDING_MAX = 256, HEADERS_MAX = 16384 };

typedef struct cat {
    rtpush_client_desc desc;
    char headers[HEADERS_MAX];
    bool plain, sse, json, quiet, is_terminal;
    long long count, seen;
    const char *event;

    rtpush_hub *hub;
    rtpush_client client;
    int state, status;
    bool is_done;

    char *line; // of stdin, as far as it has come
    size_t line_size, line_cap;
    bool is_eof;
} cat;

static const char usage[] =
    "usage: rtcat [flags] URL\n"
    "  URL                  http, https, ws or wss://HOST[:PORT]/live/TOPIC, or unix:SOCKET:/live/TOPIC\n"
    "  What comes is printed, a line each; what is typed is published, a line each.\n"
    "\n"
    "  --since CURSOR       where to start: a cursor, earliest, latest, -N\n"
    "  --topic TOPIC        one topic or pattern more; repeatable\n"
    "  --transport NAME     ws, sse, lp, sp, or auto (the first of these that works; ws: URLs use ws alone)\n"
    "  --plain              any WebSocket: text frames out, stdin in\n"
    "  --sse                any event stream\n"
    "  --event NAME         the event of what is published\n"
    "  --json               print whole messages, as JSON\n"
    "  --count N            end after N messages\n"
    "  --quiet              say nothing on stderr but errors that end it\n"
    "  --no-reconnect       end when the connection does\n"
    "  --timeout MS         for connecting; 10000\n"
    "  --header 'N: V'      with every request; repeatable\n"
    "  --token TOKEN        Authorization: Bearer\n"
    "  --protocol LIST      of --plain: the subprotocols offered\n"
    "  --proxy URL          http://HOST:PORT, by CONNECT\n"
    "  --redirects N        follow so many\n"
    "  --mount PATH         what of the URL's path is not the topic; /live\n"
    "  --insecure           believe any certificate\n"
    "  --ca FILE            believe these authorities (PEM)\n"
    "  --cert FILE, --key FILE   who we are (PEM)\n"
    "  --help, --version\n";

// The bytes of a control character at p (C0, DEL, and U+0080 to U+009F in UTF-8); 0: it is none.
static size_t control(const char *p, size_t size) {
    unsigned char b = (unsigned char)*p;
    if (b == 0xc2 && size > 1 && (unsigned char)p[1] >= 0x80 && (unsigned char)p[1] < 0xa0) return 2;
    return b < 0x20 || b == 0x7f;
}

// What comes from a stranger, or a command line: no control character of it reaches the terminal.
static void put_error(const char *text) {
    for (size_t size = strlen(text), n; size; size -= n ? n : 1, text += n ? n : 1) {
        n = control(text, size);
        fputc(n ? '?' : *text, stderr);
    }
}

static void fail(int status, const char *what, const char *value, const char *why) {
    fprintf(stderr, "rtcat: %s", what);
    if (*value) fputs(" \"", stderr), put_error(value), fputc('"', stderr);
    fprintf(stderr, ": %s\n", why);
    exit(status);
}

static void end(cat *c, int status) {
    if (c->is_done) return;
    c->status = status;
    c->is_done = true;
    rtpush_client_close(c->hub, c->client, 1000, "");
    rtpush_stop(c->hub);
}

// --- printing ---

static void put_json_text(const char *data, size_t size) {
    putchar('"');
    for (size_t i = 0; i < size; i++) {
        unsigned char b = (unsigned char)data[i];
        if (b == '"' || b == '\\') printf("\\%c", b);
        else if (b == '\n') fputs("\\n", stdout);
        else if (b == '\r') fputs("\\r", stdout);
        else if (b == '\t') fputs("\\t", stdout);
        else if (b < 0x20 || b == 0x7f) printf("\\u%04x", b);
        else putchar(b);
    }
    putchar('"');
}

static void put_base64(const void *data, size_t size) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = (const unsigned char *)data;
    for (size_t i = 0; i < size; i += 3) {
        unsigned long bits = (unsigned long)p[i] << 16 | (i + 1 < size ? (unsigned long)p[i + 1] << 8 : 0) | (i + 2 < size ? p[i + 2] : 0);
        putchar(letters[bits >> 18]);
        putchar(letters[bits >> 12 & 63]);
        putchar(i + 1 < size ? letters[bits >> 6 & 63] : '=');
        putchar(i + 2 < size ? letters[bits & 63] : '=');
    }
}

// As it is; but a terminal gets no control character, so that nobody moves its cursor.
static void put_line(const cat *c, const char *data, size_t size) {
    if (!c->is_terminal && size) fwrite(data, 1, size, stdout);
    for (size_t i = 0, n; c->is_terminal && i < size; i += n ? n : 1) {
        n = data[i] == '\t' || data[i] == '\n' ? 0 : control(data + i, size - i);
        if (n) printf("\\x%02x", (unsigned char)data[i + n - 1]);
        else putchar(data[i]);
    }
}

static void put_message(const rtpush_message *m, const char *id) {
    fputs("{\"id\":", stdout);
    put_json_text(id, strlen(id));
    fputs(",\"topic\":", stdout);
    put_json_text(m->topic, strlen(m->topic));
    if (*m->event) fputs(",\"event\":", stdout), put_json_text(m->event, strlen(m->event));
    if (m->kind == RTPUSH_BINARY) fputs(",\"encoding\":\"base64\"", stdout);
    fputs(",\"data\":", stdout);
    if (m->kind == RTPUSH_TEXT) {
        put_json_text((const char *)m->data, m->size);
    } else if (m->kind == RTPUSH_JSON) {
        for (size_t i = 0; i < m->size; i++) { // a line end in it is white space
            char b = ((const char *)m->data)[i];
            putchar(b == '\n' || b == '\r' ? ' ' : b);
        }
    } else {
        putchar('"');
        put_base64(m->data, m->size);
        putchar('"');
    }
    putchar('}');
}

static void on_message(rtpush_hub *hub, rtpush_client client, const rtpush_message *m, const char *id, void *user) {
    cat *c = (cat *)user;
    (void)hub;
    (void)client;
    if (c->is_done) return;
    if (c->json) put_message(m, id);
    else if (m->kind == RTPUSH_BINARY) put_base64(m->data, m->size);
    else put_line(c, (const char *)m->data, m->size);
    putchar('\n');
    if (fflush(stdout) || ferror(stdout)) {
        if (errno != EPIPE) fprintf(stderr, "rtcat: stdout: %s\n", strerror(errno)); // EPIPE: nobody reads it any more
        end(c, 1);
        return;
    }
    if (c->count && ++c->seen == c->count) end(c, 0);
}

static void on_gap(rtpush_hub *hub, rtpush_client client, const char *from, const char *to, const char *reason, void *user) {
    const cat *c = (const cat *)user;
    (void)hub;
    (void)client;
    if (c->json) {
        fputs("{\"gap\":{\"from\":", stdout);
        put_json_text(from, strlen(from));
        printf(",\"to\":\"%s\",\"reason\":", to);
        put_json_text(reason, strlen(reason));
        puts("}}");
        fflush(stdout);
    }
    if (!c->quiet) fprintf(stderr, "rtcat: gap from %s to %s (%s)\n", *from ? from : "nowhere", to, reason);
}

// --- how it stands ---

static const char *transport_name(int transport) {
    switch (transport) {
    case RTPUSH_WEBSOCKET:
    case RTPUSH_ENVELOPE: return "WebSocket";
    case RTPUSH_SSE: return "SSE";
    case RTPUSH_LONG_POLL: return "long polling";
    default: return "short polling";
    }
}

static void say(const char *what, const char *reason) {
    fprintf(stderr, "rtcat: %s", what);
    if (*reason) fputs(": ", stderr), put_error(reason);
    fputc('\n', stderr);
}

static void on_state(rtpush_hub *hub, rtpush_client client, const rtpush_client_status *s, void *user) {
    cat *c = (cat *)user;
    char text[120];
    (void)hub;
    (void)client;
    c->state = s->state;
    if (c->is_done) return;
    if (s->code == RTPUSH_E_TLS) { // it will not be another one in a moment
        say(rtpush_strerror(s->code), s->reason);
        end(c, 1);
    } else if (s->code == RTPUSH_E_PROTOCOL) {
        say("the server broke the protocol", s->reason);
        end(c, 3);
    } else if (s->state == RTPUSH_CLIENT_CLOSED) {
        if (s->code) say(rtpush_strerror(s->code), s->reason);
        end(c, s->code ? 1 : 0);
    } else if (s->state == RTPUSH_CLIENT_WAITING && !c->quiet) {
        snprintf(text, sizeof text, "%s, again in %lld ms", s->code ? rtpush_strerror(s->code) : "disconnected", (long long)s->delay_ms);
        say(text, s->reason);
    } else if (s->code && !c->quiet) {
        say(rtpush_strerror(s->code), s->reason);
    } else if (s->state == RTPUSH_CLIENT_OPEN && !c->quiet && c->is_terminal) {
        say("connected by", transport_name(s->transport));
    }
}

// --- stdin ---

static void on_published(rtpush_hub *hub, uint64_t ticket, uint64_t seq, int code, void *user) {
    const cat *c = (const cat *)user;
    (void)hub;
    (void)ticket;
    (void)seq;
    if (code && !c->is_done) say("not published", rtpush_strerror(code));
}

static void publish(cat *c, const char *data, size_t size) {
    rtpush_publication what;
    int code;
    memset(&what, 0, sizeof what);
    what.data = data;
    what.size = size;
    what.event = c->event;
    what.done = on_published;
    what.done_user = c;
    if (c->desc.kind == RTPUSH_SERVER_WEBSOCKET) code = rtpush_client_send(c->hub, c->client, data, size, RTPUSH_AUTO);
    else if (c->desc.kind == RTPUSH_SERVER_EVENTS) return; // it only reads
    else code = rtpush_client_publish(c->hub, c->client, &what);
    if (code) say("not sent", rtpush_strerror(code));
}

// May another line be read? Not while many publishes have no answer, nor before a foreign WebSocket is open.
static bool wants_stdin(const cat *c) {
    if (c->is_eof || c->is_done) return false;
    if (c->desc.kind == RTPUSH_SERVER_WEBSOCKET) return c->state == RTPUSH_CLIENT_OPEN;
    return rtpush_client_pending(c->hub, c->client) < PENDING_MAX;
}

static void take_lines(cat *c) {
    size_t from = 0;
    for (size_t i = 0; i < c->line_size; i++) {
        if (c->line[i] != '\n') continue;
        publish(c, c->line + from, i - from - (i > from && c->line[i - 1] == '\r'));
        from = i + 1;
    }
    c->line_size -= from;
    if (from) memmove(c->line, c->line + from, c->line_size);
    if (c->is_eof && c->line_size) { // a last line without its end
        publish(c, c->line, c->line_size);
        c->line_size = 0;
    }
}

static void read_stdin(cat *c) {
    if (c->line_cap - c->line_size < 4096) {
        size_t cap = c->line_cap * 2 + 8192;
        char *line = cap > ((size_t)1 << 24) ? NULL : (char *)realloc(c->line, cap);
        if (!line) fail(1, "stdin", "", "a line too long");
        c->line = line;
        c->line_cap = cap;
    }
    ssize_t n = read(0, c->line + c->line_size, 4096);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (n <= 0) c->is_eof = true;
    else c->line_size += (size_t)n;
    take_lines(c);
}

// --- flags ---

static const char *transports_of(const char *name) {
    if (!strcmp(name, "ws")) return "websocket";
    if (!strcmp(name, "sse")) return "sse";
    if (!strcmp(name, "lp")) return "longpoll";
    if (!strcmp(name, "sp")) return "shortpoll";
    if (!strcmp(name, "auto")) return "websocket,sse,longpoll,shortpoll";
    fail(2, "--transport", name, "ws, sse, lp, sp or auto");
    return NULL;
}

static long long number(const char *flag, const char *text, long long least, long long most) {
    char *tail;
    errno = 0;
    long long n = strtoll(text, &tail, 10);
    if (errno || tail == text || *tail || n < least || n > most) fail(2, flag, text, "not a number, or out of range");
    return n;
}

static void add_header(cat *c, const char *line) {
    size_t have = strlen(c->headers), size = strlen(line);
    if (strpbrk(line, "\r\n") || !strchr(line, ':')) fail(2, "--header", "", "a header is 'Name: value', on one line");
    if (have + size + 3 > sizeof c->headers) fail(2, "--header", "", "too many of them");
    snprintf(c->headers + have, sizeof c->headers - have, "%s\r\n", line);
    c->desc.headers = c->headers;
}

static bool take_word(cat *c, const char *flag) {
    if (!strcmp(flag, "--plain")) c->plain = true, c->desc.kind = RTPUSH_SERVER_WEBSOCKET;
    else if (!strcmp(flag, "--sse")) c->sse = true, c->desc.kind = RTPUSH_SERVER_EVENTS;
    else if (!strcmp(flag, "--json")) c->json = true;
    else if (!strcmp(flag, "--quiet")) c->quiet = true;
    else if (!strcmp(flag, "--no-reconnect")) c->desc.once = true;
    else if (!strcmp(flag, "--insecure")) c->desc.insecure = true;
    else if (!strcmp(flag, "--help")) fputs(usage, stdout), exit(0);
    else if (!strcmp(flag, "--version")) puts("rtcat " RTPUSH_VERSION), exit(0);
    else return false;
    return true;
}

enum { TOPICS_MAX = 63 };
static const char *topics[TOPICS_MAX];
static int topic_count;

static bool take_value(cat *c, const char *flag, const char *value) {
    const struct { const char *flag; const char **at; } texts[] = {
        {"--since", &c->desc.since}, {"--token", &c->desc.token}, {"--protocol", &c->desc.protocol}, {"--proxy", &c->desc.proxy},
        {"--mount", &c->desc.mount}, {"--ca", &c->desc.ca},       {"--cert", &c->desc.cert},         {"--key", &c->desc.key},
        {"--event", &c->event}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (!strcmp(flag, texts[i].flag)) return *texts[i].at = value, true;
    if (!strcmp(flag, "--transport")) c->desc.transports = transports_of(value);
    else if (!strcmp(flag, "--count")) c->count = number(flag, value, 1, INT64_MAX);
    else if (!strcmp(flag, "--timeout")) c->desc.connect_timeout_ms = number(flag, value, 1, 86400000);
    else if (!strcmp(flag, "--redirects")) c->desc.redirects = (int)number(flag, value, 0, 20);
    else if (!strcmp(flag, "--header")) add_header(c, value);
    else if (!strcmp(flag, "--topic") && topic_count == TOPICS_MAX) fail(2, flag, value, "too many of them");
    else if (!strcmp(flag, "--topic")) topics[topic_count++] = value;
    else return false;
    return true;
}

static void parse(cat *c, int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        char *equals = !strncmp(argv[i], "--", 2) ? strchr(argv[i], '=') : NULL; // --flag VALUE or --flag=VALUE
        if (argv[i][0] != '-') {
            if (c->desc.url) fail(2, "URL", argv[i], "one is enough");
            c->desc.url = argv[i];
            continue;
        }
        if (!equals && take_word(c, argv[i])) continue;
        if (equals) *equals = 0;
        const char *value = equals ? equals + 1 : argv[i + 1];
        if (!value && take_value(c, argv[i], "1")) fail(2, argv[i], "", "its value is missing");
        if (!value || !take_value(c, argv[i], value)) fail(2, "flag", argv[i], "there is none of that name (see --help)");
        if (!equals) i++;
    }
    if (!c->desc.url) fail(2, "URL", "", "it is missing (see --help)");
    if (c->plain && c->sse) fail(2, "--plain", "", "it and --sse exclude each other");
}

// --- start and end ---

static rtpush_hub *the_hub; // for the signal handler
static volatile sig_atomic_t is_interrupted;

static void on_signal(int signal_number) {
    (void)signal_number;
    is_interrupted = 1;
    rtpush_stop(the_hub);
}

static void catch_signals(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    sigemptyset(&action.sa_mask);
    action.sa_handler = on_signal;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN); // fflush says it
}

static const char *why_not(const cat *c) {
    bool is_tls = !strncmp(c->desc.url, "https:", 6) || !strncmp(c->desc.url, "wss:", 4);
#ifndef RTPUSH_OPENSSL
    if (is_tls) return "this rtcat was built without TLS (RTPUSH_OPENSSL)";
#endif
    (void)is_tls;
    return "it, a header or a flag's value cannot be used (see --help)";
}

static void start(cat *c) {
    static rtpush_desc desc; // no listener: a loop alone
    c->desc.user = c;
    c->desc.on_message = on_message;
    c->desc.on_gap = on_gap;
    c->desc.on_state = on_state;
    c->hub = rtpush_create(&desc);
    if (!c->hub) fail(1, "start", "", "no memory, or no random numbers");
    the_hub = c->hub;
    c->client = rtpush_connect(c->hub, &c->desc);
    if (!c->client) fail(2, "URL", c->desc.url, why_not(c));
    for (int i = 0; i < topic_count; i++)
        if (rtpush_client_subscribe(c->hub, c->client, topics[i], c->desc.since)) fail(2, "--topic", topics[i], "not a topic or pattern");
    if (c->desc.kind == RTPUSH_SERVER_RTPUSH && !rtpush_client_topics(c->hub, c->client)) fail(2, "URL", c->desc.url, "it names no topic");
}

// The hub's loop and stdin, by one poll.
static void run(cat *c) {
    while (!c->is_done && !is_interrupted) {
        struct pollfd fds[2];
        int timeout = rtpush_timeout(c->hub), fd = rtpush_fd(c->hub);
        fds[0].fd = fd;
        fds[1].fd = wants_stdin(c) ? 0 : -1;
        fds[0].events = fds[1].events = POLLIN;
        fds[0].revents = fds[1].revents = 0;
        if (fd < 0 && (timeout < 0 || timeout > 10)) timeout = 10; // a back-end without a descriptor: look often
        if (poll(fds, 2, timeout) < 0 && errno != EINTR) return;
        if (fds[1].revents) read_stdin(c);
        if (rtpush_step(c->hub, 0)) return;
    }
}

int main(int argc, char **argv) {
    static cat c;
    parse(&c, argc, argv);
    c.is_terminal = isatty(1) != 0;
    start(&c);
    catch_signals();
    run(&c);
    c.is_done = true;
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    rtpush_client_close(c.hub, c.client, 1000, "");
    rtpush_step(c.hub, 0);
    rtpush_destroy(c.hub);
    free(c.line);
    return c.status;
}
