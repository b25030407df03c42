// Many clients of rtpush.h in one process, all reading one topic of numbered messages ("1", "2", …): each must see
// each number once and in order.
//
//     herd --ws A --sse B --lp C --sp D [--until N] [--interval MS] URL
//
// Prints `open` when all are, `seen` when all have seen --until, and at SIGTERM (or at once after `seen` with
// --end) one line of JSON. The same line comes from herd.mjs, so one reader checks both.
#define RTPUSH_IMPLEMENTATION
#include "../../rtpush.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>

enum { NUMBERS_MAX = 16384, GAPS_MAX = 16, LOST_MAX = 20000 };

typedef struct one {
    const char *name;
    unsigned char seen[NUMBERS_MAX / 8];
    int last, count, doubled, back, back_in_epoch; // back: a number lower than the one before it
    char epoch[9];
    int gaps, evicted, opens;
    char gap_to[GAPS_MAX][9];
    bool is_open;
} one;

static one *ones;
static int ones_count, open_count, seen_count, until, highest;
static bool is_seen_told, ends;
static long long *returns; // when a client began to connect again, ms of the day's clock
static int returns_count, returns_max;
static rtpush_hub *the_hub;
static volatile sig_atomic_t is_over;

static long long now_ms(void) {
    struct timeval t;
    gettimeofday(&t, NULL);
    return (long long)t.tv_sec * 1000 + t.tv_usec / 1000;
}

static void on_signal(int number) {
    (void)number;
    is_over = 1;
    rtpush_stop(the_hub);
}

static void on_message(rtpush_hub *hub, rtpush_client client, const rtpush_message *m, const char *id, void *user) {
    one *o = (one *)user;
    int n = 0;
    (void)hub;
    (void)client;
    for (size_t i = 0; i < m->size && i < 6; i++) n = n * 10 + ((const char *)m->data)[i] - '0';
    if (n < 1 || n >= NUMBERS_MAX) { fprintf(stderr, "herd: not a number of ours: %.*s\n", (int)m->size, (const char *)m->data); exit(3); }
    if (o->seen[n / 8] >> n % 8 & 1) o->doubled++;
    else {
        o->seen[n / 8] |= (unsigned char)(1 << n % 8);
        o->count++;
        if (n == until && ++seen_count == ones_count && !is_seen_told) {
            is_seen_told = true;
            puts("seen");
            if (ends) on_signal(0);
        }
    }
    if (n < o->last) o->back++, o->back_in_epoch += !strncmp(o->epoch, id, 8);
    snprintf(o->epoch, sizeof o->epoch, "%.8s", id);
    o->last = n;
    if (n > highest) highest = n;
}

static void on_gap(rtpush_hub *hub, rtpush_client client, const char *from, const char *to, const char *reason, void *user) {
    one *o = (one *)user;
    (void)hub;
    (void)client;
    (void)from;
    if (strcmp(reason, "epoch")) o->evicted++;
    else if (o->gaps < GAPS_MAX) snprintf(o->gap_to[o->gaps], 9, "%.8s", to);
    o->gaps++;
}

static void on_state(rtpush_hub *hub, rtpush_client client, const rtpush_client_status *s, void *user) {
    one *o = (one *)user;
    (void)hub;
    (void)client;
    if (s->state == RTPUSH_CLIENT_CLOSED && !is_over) fprintf(stderr, "herd: %s closed for good: %s (%s)\n", o->name, rtpush_strerror(s->code), s->reason);
    if (s->state == RTPUSH_CLIENT_CONNECTING && o->opens) {
        if (returns_count == returns_max) {
            returns_max = returns_max * 2 + 1024;
            returns = (long long *)realloc(returns, sizeof *returns * (size_t)returns_max);
            if (!returns) exit(1);
        }
        returns[returns_count++] = now_ms();
    }
    if (s->state != RTPUSH_CLIENT_OPEN) return;
    if (!o->opens++ && ++open_count == ones_count) puts("open");
}

// Within its own list, what was not seen; a number that nobody saw is found by who knows what was published.
static void print_summary(void) {
    int lost = 0, doubled = 0, back = 0, in_epoch = 0, gaps = 0, evicted = 0, gaps_most = 0, twice = 0, told = 0;
    if (until > highest) highest = until;
    printf("{\"clients\":%d,\"highest\":%d,\"losses\":[", ones_count, highest);
    for (int i = 0; i < ones_count; i++) {
        one *o = &ones[i];
        for (int n = 1; n <= highest; n++) {
            if (o->seen[n / 8] >> n % 8 & 1) continue;
            if (told++ < LOST_MAX) printf("%s[\"%s\",%d,%d]", told > 1 ? "," : "", o->name, n, i);
            lost++;
        }
        doubled += o->doubled, back += o->back, in_epoch += o->back_in_epoch, gaps += o->gaps, evicted += o->evicted;
        if (o->gaps > gaps_most) gaps_most = o->gaps;
        for (int a = 0; a < o->gaps && a < GAPS_MAX; a++)
            for (int b = 0; b < a; b++) twice += !strcmp(o->gap_to[a], o->gap_to[b]);
    }
    printf("],\"lost\":%d,\"doubled\":%d,\"back\":%d,\"back_in_epoch\":%d,\"gaps\":%d,\"gaps_evicted\":%d,\"gaps_most\":%d,\"gaps_twice\":%d,\"doublers\":{", lost, doubled,
           back, in_epoch, gaps, evicted, gaps_most, twice);
    const char *names[] = {"ws", "sse", "lp", "sp"};
    for (int k = 0; k < 4; k++) {
        int sum = 0;
        for (int i = 0; i < ones_count; i++) sum += strcmp(ones[i].name, names[k]) ? 0 : ones[i].doubled;
        printf("%s\"%s\":%d", k ? "," : "", names[k], sum);
    }
    printf("},\"reconnects\":%d,\"times\":[", returns_count);
    for (int i = 0; i < returns_count; i++) printf("%s%lld", i ? "," : "", returns[i]);
    puts("]}");
    fflush(stdout);
}

int main(int argc, char **argv) {
    static rtpush_desc hub_desc;
    static const struct { const char *flag, *name, *transport; } kinds[] = {
        {"--ws", "ws", "websocket"}, {"--sse", "sse", "sse"}, {"--lp", "lp", "longpoll"}, {"--sp", "sp", "shortpoll"}};
    int counts[4] = {0}, interval = 0;
    const char *url = NULL;
    for (int i = 1; i < argc; i++) {
        int value = i + 1 < argc ? atoi(argv[i + 1]) : 0, k = 0;
        while (k < 4 && strcmp(argv[i], kinds[k].flag)) k++;
        if (k < 4) counts[k] = value, i++;
        else if (!strcmp(argv[i], "--until")) until = value, i++;
        else if (!strcmp(argv[i], "--interval")) interval = value, i++;
        else if (!strcmp(argv[i], "--end")) ends = true;
        else url = argv[i];
    }
    if (!url) return fputs("herd: no URL\n", stderr), 2;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    setvbuf(stdout, NULL, _IOLBF, 0);
    ones = (one *)calloc((size_t)(counts[0] + counts[1] + counts[2] + counts[3]), sizeof *ones);
    the_hub = rtpush_create(&hub_desc);
    if (!ones || !the_hub) return fputs("herd: no hub\n", stderr), 1;
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    // By turns, so that the server's list of connections is as mixed as in life.
    for (bool any = true; any;) {
        any = false;
        for (int k = 0; k < 4; k++) {
            rtpush_client_desc d;
            if (!counts[k]) continue;
            counts[k]--;
            any = true;
            memset(&d, 0, sizeof d);
            d.url = url;
            d.transports = kinds[k].transport;
            d.interval_ms = interval;
            d.user = &ones[ones_count];
            d.on_message = on_message;
            d.on_gap = on_gap;
            d.on_state = on_state;
            ones[ones_count++].name = kinds[k].name;
            if (!rtpush_connect(the_hub, &d)) return fprintf(stderr, "herd: %s\n", rtpush_last_error(the_hub)), 1;
        }
    }
    int code = 0;
    while (!is_over && !(code = rtpush_step(the_hub, -1))) {}
    if (code && !is_over) fprintf(stderr, "herd: %s\n", rtpush_strerror(code));
    print_summary();
    is_over = 1;
    rtpush_destroy(the_hub);
    free(ones);
    free(returns);
    return 0;
}
