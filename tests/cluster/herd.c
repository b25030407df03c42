// Many clients of rtpush.h in one process, each reading a few of the topics of numbered messages ("17 1764000000000":
// the number on its topic, and when it was first sent). herd.mjs is the same in JavaScript, with the same lines.
//
//     herd --first I --count N [--interval MS] [--backoff MS] http://HOST:PORT/live
//
// Client i reads what reads() says, by the transport i says. On stdout: `open` when each client has had a message of
// each of its topics; each second `tick SECOND DELIVERED WORST_MS RECONNECTS`; `probe K ALL_MS HALF_MS` when all have
// seen number K of the topic `probe`, and half of them had. On stdin: `until N0 N1 …` (the last number of each topic),
// answered by `seen`; `who`, answered on stderr by who has not; `end`, answered by one line of JSON.
#define RTPUSH_IMPLEMENTATION
#include "../../rtpush.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

enum { TOPICS = 60, GROUP = 10, PROBE = TOPICS, NUMBERS_MAX = 16384, PROBES_MAX = 512, SUBS_MAX = GROUP + 1, GAPS_MAX = 64, EPOCHS_MAX = 64, TOLD_MAX = 200 };

typedef struct reading {
    int topic, last, until;
    unsigned long long last_seq;
    int last_epoch;
    bool is_warm;
    unsigned char *seen; // of each number, the epoch it was seen in (1…)
} reading;

typedef struct one {
    int index;
    reading readings[SUBS_MAX];
    int count, warm, left;
    int gaps;
    struct { char from[40], to[40], reason[12]; } gap[GAPS_MAX];
    unsigned long long left_epochs; // a bit each
    int opens, doubled, across, back, sent_back;
    bool is_sent_back;
} one;

static const char *const transports[] = {"websocket", "sse", "longpoll", "websocket", "sse", "longpoll", "websocket", "sse", "longpoll", "shortpoll"};
static one *ones;
static int ones_count, warm_count, left_count, first_index;
static char epochs[EPOCHS_MAX][9];
static int epochs_count;
static struct { int seen; long long half; } probes[PROBES_MAX];
static long long delivered, worst, reconnects;
static rtpush_hub *the_hub;
static bool is_over;

static long long now_ms(void) {
    struct timeval t;
    gettimeofday(&t, NULL);
    return (long long)t.tv_sec * 1000 + t.tv_usec / 1000;
}

// Two topics each; each fiftieth a pattern of ten. All read the probe.
static int reads(int i, int *topics, bool *is_pattern) {
    *is_pattern = i % 50 == 7;
    if (*is_pattern) {
        for (int k = 0; k < GROUP; k++) topics[k] = i / 50 % (TOPICS / GROUP) * GROUP + k;
        return GROUP;
    }
    topics[0] = i % TOPICS;
    topics[1] = (i * 7 + 13) % TOPICS;
    if (topics[1] == topics[0]) topics[1] = (topics[1] + 1) % TOPICS;
    return 2;
}

static void name_of(int topic, char *name) {
    if (topic == PROBE) strcpy(name, "probe");
    else sprintf(name, "n/%d/%d", topic / GROUP, topic % GROUP);
}

static int epoch_of(const char *id) {
    for (int i = epochs_count; i > 0; i--)
        if (!strncmp(epochs[i - 1], id, 8)) return i;
    if (epochs_count == EPOCHS_MAX - 1) { fputs("herd: too many epochs\n", stderr); exit(3); }
    snprintf(epochs[epochs_count], 9, "%.8s", id);
    return ++epochs_count;
}

static void fail(const one *o, const char *what, const char *id, int n) {
    static int told;
    if (told++ < TOLD_MAX) fprintf(stderr, "herd: client %d (%s): %s: number %d, %s\n", o->index, transports[o->index % 10], what, n, id);
}

static void on_message(rtpush_hub *hub, rtpush_client client, const rtpush_message *m, const char *id, void *user) {
    one *o = (one *)user;
    char text[48] = "";
    int n, topic = PROBE, group, nth, epoch = epoch_of(id);
    long long sent;
    reading *r = o->readings;
    (void)hub;
    (void)client;
    memcpy(text, m->data, m->size < sizeof text - 1 ? m->size : sizeof text - 1);
    if (strcmp(m->topic, "probe")) {
        if (sscanf(m->topic, "n/%d/%d", &group, &nth) != 2) { fprintf(stderr, "herd: a strange topic: %s\n", m->topic); exit(3); }
        topic = group * GROUP + nth;
    }
    if (sscanf(text, "%d %lld", &n, &sent) != 2 || n < 0 || n >= NUMBERS_MAX) { fprintf(stderr, "herd: not a number of ours: %s\n", text); exit(3); }
    while (r < o->readings + o->count && r->topic != topic) r++;
    if (r == o->readings + o->count) { fprintf(stderr, "herd: client %d does not read %s\n", o->index, m->topic); exit(3); }
    if (!r->is_warm) {
        r->is_warm = true;
        if (++o->warm == o->count && ++warm_count == ones_count) puts("open");
    }
    unsigned long long seq = strtoull(id + 9, NULL, 10);
    if (epoch == r->last_epoch && seq <= r->last_seq) o->back++, fail(o, "out of order", id, n);
    else if (epoch == r->last_epoch && n && n < r->last) o->back++, fail(o, "a lower number", id, n);
    r->last_epoch = epoch;
    r->last_seq = seq;
    if (!n) return; // of the warming up
    r->last = n;
    delivered++;
    long long took = now_ms() - sent;
    if (took > worst && o->index % 10 != 9) worst = took; // a short poll's is its interval
    if (r->seen[n]) {
        if (r->seen[n] == epoch) o->doubled++, o->sent_back += o->is_sent_back, fail(o, "doubled", id, n);
        else o->across++;
        return;
    }
    r->seen[n] = (unsigned char)epoch;
    if (topic == PROBE && n < PROBES_MAX) {
        if (++probes[n].seen == (ones_count + 1) / 2) probes[n].half = now_ms();
        if (probes[n].seen == ones_count) printf("probe %d %lld %lld\n", n, now_ms(), probes[n].half);
    }
    if (r->until && n == r->until && !--o->left && !--left_count) puts("seen");
}

static void on_gap(rtpush_hub *hub, rtpush_client client, const char *from, const char *to, const char *reason, void *user) {
    one *o = (one *)user;
    (void)hub;
    (void)client;
    if (o->gaps < GAPS_MAX) {
        snprintf(o->gap[o->gaps].from, 40, "%s", from);
        snprintf(o->gap[o->gaps].to, 40, "%s", to);
        snprintf(o->gap[o->gaps].reason, 12, "%s", reason);
    }
    if (strcmp(reason, "epoch") || !*from) return;
    // Sent back to an epoch that it had left, or to the begin of its own: what follows is doubled, and that is why.
    o->is_sent_back = !strncmp(from, to, 8) || (o->left_epochs >> epoch_of(to) & 1);
    if (strncmp(from, to, 8)) o->left_epochs |= 1ull << epoch_of(from);
    o->gaps++;
}

static void on_state(rtpush_hub *hub, rtpush_client client, const rtpush_client_status *s, void *user) {
    one *o = (one *)user;
    (void)hub;
    (void)client;
    if (s->state == RTPUSH_CLIENT_CLOSED && !is_over) fprintf(stderr, "herd: client %d closed for good: %s (%d %s)\n", o->index, rtpush_strerror(s->code), s->status, s->reason);
    if (s->state == RTPUSH_CLIENT_OPEN && s->code) fprintf(stderr, "herd: client %d: %s refused: %s\n", o->index, s->reason, rtpush_strerror(s->code));
    if (s->state == RTPUSH_CLIENT_CONNECTING && o->opens++) reconnects++;
}

static void tick(rtpush_hub *hub, void *user) {
    (void)user;
    printf("tick %lld %lld %lld %lld\n", now_ms() / 1000, delivered, worst, reconnects);
    delivered = worst = reconnects = 0;
    rtpush_after(hub, 1000, tick, NULL);
}

// --- what the driver says ---

static void take_until(char *text) {
    int last[TOPICS] = {0};
    for (int k = 0; k < TOPICS; k++) last[k] = (int)strtol(text, &text, 10);
    left_count = 0;
    for (int i = 0; i < ones_count; i++) {
        one *o = &ones[i];
        o->left = 0;
        for (int k = 0; k < o->count; k++) {
            reading *r = &o->readings[k];
            if (r->topic == PROBE) continue;
            r->until = last[r->topic];
            o->left += r->until && !r->seen[r->until];
        }
        left_count += o->left > 0;
    }
    if (!left_count) puts("seen");
}

static void print_who(void) {
    for (int i = 0; i < ones_count; i++)
        for (int k = 0; k < ones[i].count; k++) {
            reading *r = &ones[i].readings[k];
            char name[16];
            name_of(r->topic, name);
            if (r->until && !r->seen[r->until]) fprintf(stderr, "herd: client %d (%s): %s: has %d of %d, gaps %d, last epoch %s\n", ones[i].index, transports[ones[i].index % 10], name, r->last, r->until, ones[i].gaps, r->last_epoch ? epochs[r->last_epoch - 1] : "none");
        }
}

// Of each client, the numbers up to `until` that it did not see, in ranges, and the gaps it was told.
static void print_summary(void) {
    int across = 0, doubled = 0, back = 0, sent_back = 0, told = 0;
    printf("{\"clients\":%d,\"missing\":[", ones_count);
    for (int i = 0; i < ones_count; i++)
        for (int k = 0; k < ones[i].count; k++) {
            reading *r = &ones[i].readings[k];
            for (int n = 1, from; n <= r->until; n++) {
                if (r->seen[n]) continue;
                for (from = n; n < r->until && !r->seen[n + 1];) n++;
                printf("%s[%d,%d,%d,%d]", told++ ? "," : "", ones[i].index, r->topic, from, n);
            }
        }
    fputs("],\"gaps\":[", stdout);
    told = 0;
    for (int i = 0; i < ones_count; i++) {
        one *o = &ones[i];
        across += o->across, doubled += o->doubled, back += o->back, sent_back += o->sent_back;
        for (int g = 0; g < o->gaps && g < GAPS_MAX; g++) printf("%s[%d,\"%s\",\"%s\",\"%s\"]", told++ ? "," : "", o->index, o->gap[g].from, o->gap[g].to, o->gap[g].reason);
        if (o->gaps > GAPS_MAX) fprintf(stderr, "herd: client %d was told %d gaps\n", o->index, o->gaps);
    }
    printf("],\"doubled\":%d,\"across\":%d,\"back\":%d,\"sentBack\":%d}\n", doubled, across, back, sent_back);
}

static void read_stdin(rtpush_hub *hub, void *user) {
    static char text[4096];
    static size_t size;
    char *line = text, *end;
    (void)user;
    ssize_t n = read(0, text + size, sizeof text - 1 - size);
    if (!n) is_over = true; // the driver is gone
    if (n > 0) size += (size_t)n;
    text[size] = 0;
    for (; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        if (!strncmp(line, "until ", 6)) take_until(line + 6);
        else if (!strcmp(line, "who")) print_who();
        else if (!strcmp(line, "end")) is_over = true, print_summary();
    }
    size -= (size_t)(line - text);
    memmove(text, line, size);
    if (is_over) rtpush_stop(hub);
    else rtpush_after(hub, 50, read_stdin, NULL);
}

static void begin(one *o, const char *url, int64_t interval, int64_t backoff) {
    rtpush_client_desc d;
    char name[16];
    int topics[GROUP];
    bool is_pattern;
    memset(&d, 0, sizeof d);
    o->count = reads(o->index, topics, &is_pattern);
    for (int k = 0; k <= o->count; k++) {
        o->readings[k].topic = k < o->count ? topics[k] : PROBE;
        o->readings[k].seen = (unsigned char *)calloc(NUMBERS_MAX, 1);
        if (!o->readings[k].seen) exit(1);
    }
    d.url = url;
    d.transports = transports[o->index % 10];
    d.interval_ms = interval;
    d.backoff_max_ms = backoff;
    d.user = o;
    d.on_message = on_message;
    d.on_gap = on_gap;
    d.on_state = on_state;
    rtpush_client client = rtpush_connect(the_hub, &d);
    if (!client) { fprintf(stderr, "herd: %s\n", rtpush_last_error(the_hub)); exit(1); }
    for (int k = 0; k <= o->count; k++) {
        name_of(o->readings[k].topic, name);
        if (is_pattern && k) {
            if (k < o->count) continue;
        } else if (is_pattern) sprintf(name, "n/%d/*", topics[0] / GROUP);
        int code = rtpush_client_subscribe(the_hub, client, name, NULL);
        if (code) { fprintf(stderr, "herd: %s: %s\n", name, rtpush_strerror(code)); exit(1); }
    }
    o->count++; // the probe
}

int main(int argc, char **argv) {
    static rtpush_desc hub_desc;
    const char *url = NULL;
    int64_t interval = 500, backoff = 4000;
    for (int i = 1; i < argc; i++) {
        int value = i + 1 < argc ? atoi(argv[i + 1]) : 0;
        if (!strcmp(argv[i], "--first")) first_index = value, i++;
        else if (!strcmp(argv[i], "--count")) ones_count = value, i++;
        else if (!strcmp(argv[i], "--interval")) interval = value, i++;
        else if (!strcmp(argv[i], "--backoff")) backoff = value, i++;
        else url = argv[i];
    }
    if (!url || !ones_count) return fputs("herd: no URL, or no --count\n", stderr), 2;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    setvbuf(stdout, NULL, _IOLBF, 0);
    fcntl(0, F_SETFL, O_NONBLOCK);
    signal(SIGINT, SIG_IGN);
    ones = (one *)calloc((size_t)ones_count, sizeof *ones);
    the_hub = rtpush_create(&hub_desc);
    if (!ones || !the_hub) return fputs("herd: no hub\n", stderr), 1;
    for (int i = 0; i < ones_count; i++) {
        ones[i].index = first_index + i;
        begin(&ones[i], url, interval, backoff);
    }
    tick(the_hub, NULL);
    read_stdin(the_hub, NULL);
    int code = rtpush_run(the_hub);
    if (code && !is_over) fprintf(stderr, "herd: %s\n", rtpush_strerror(code));
    is_over = true;
    rtpush_destroy(the_hub);
    for (int i = 0; i < ones_count; i++)
        for (int k = 0; k < ones[i].count; k++) free(ones[i].readings[k].seen);
    free(ones);
    return 0;
}
