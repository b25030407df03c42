// How long a node takes to begin, with a stream as long as one likes (the daemon has Redis keep 100,000 messages).
//
//     start fill N REDIS_URL LOG     publishes N messages of 100 bytes on 1,000 topics
//     start load N REDIS_URL LOG     begins as a node that keeps N, prints `MS CPU_MS HELD RESIDENT_MB`
#define RTPUSH_IMPLEMENTATION
#include "../../rtpush.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { UNDER_WAY = 4000, TOPICS = 1000 };

static long under_way, failed;

static void done(rtpush_hub *hub, uint64_t ticket, uint64_t seq, int code, void *user) {
    (void)hub, (void)ticket, (void)user;
    under_way--;
    failed += !seq || code;
}

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int fill(rtpush_hub *hub, long count) {
    char topic[32], data[101];
    memset(data, 'x', 100);
    data[100] = 0;
    for (long i = 0; i < count || under_way; rtpush_step(hub, under_way ? 10 : 0))
        for (; i < count && under_way < UNDER_WAY; i++) {
            rtpush_publication p;
            memset(&p, 0, sizeof p);
            snprintf(topic, sizeof topic, "load/%ld", i % TOPICS);
            p.topic = topic;
            p.data = data;
            p.size = 100;
            p.done = done;
            under_way++;
            int code = rtpush_publish_ex(hub, &p, NULL);
            if (code) return fprintf(stderr, "start: %s\n", rtpush_strerror(code)), 1;
        }
    if (failed) fprintf(stderr, "start: %ld were refused\n", failed);
    return failed != 0;
}

int main(int argc, char **argv) {
    rtpush_desc desc;
    rtpush_redis_desc redis;
    rtpush_stats stats;
    struct rusage used;
    int code = 0;
    if (argc != 5) return fputs("start: fill|load N REDIS_URL LOG\n", stderr), 2;
    memset(&desc, 0, sizeof desc);
    memset(&redis, 0, sizeof redis);
    long count = atol(argv[2]);
    redis.log = argv[4];
    redis.stream_max = 2 * count;
    redis.start_ms = 300000;
    desc.bus = rtpush_redis(argv[3], &redis);
    desc.history = 1000;
    desc.history_total_bytes = INT64_C(4) << 30;
    if (!strcmp(argv[1], "fill")) desc.history = -1;
    int64_t began = now_ms();
    rtpush_hub *hub = desc.bus ? rtpush_create_ex(&desc, &code) : NULL;
    if (!hub) return fprintf(stderr, "start: %s\n", rtpush_strerror(code)), 1;
    int64_t took = now_ms() - began;
    if (!strcmp(argv[1], "fill")) code = fill(hub, count);
    else {
        getrusage(RUSAGE_SELF, &used);
        rtpush_get_stats(hub, &stats);
        printf("%lld %lld %llu %ld\n", (long long)took, (long long)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000 + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1000,
               (unsigned long long)stats.messages_held, used.ru_maxrss / 1024);
    }
    rtpush_destroy(hub);
    return code;
}
