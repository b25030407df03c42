// What other threads may call: rtpush_post, rtpush_publish_async, rtpush_stop, rtpush_strerror. For the thread sanitizer:
//
//     cc -std=c99 -g -fsanitize=thread tests/threads.c -o build/threads -pthread && build/threads
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "client.h"

enum { THREADS = 4, EACH = 500 };

static struct {
    int posted[THREADS];   // what ran of each thread's, counted on the hub's thread
    int last[THREADS];     // the number of its last one
    int ended;             // threads that said so by a posted call
} P;

typedef struct work {
    int thread, number;
} work;

static void posted(rtpush_hub *h, void *arg) {
    work *w = (work *)arg;
    (void)h;
    if (w->number != P.last[w->thread] + 1) wrong(__LINE__, "thread %d: number %d after %d", w->thread, w->number, P.last[w->thread]);
    P.last[w->thread] = w->number;
    P.posted[w->thread]++;
    free(w);
}

static void thread_ends(rtpush_hub *h, void *arg) {
    (void)arg;
    if (++P.ended == THREADS) rtpush_stop(h);
}

static void *poster(void *arg) {
    int thread = *(int *)arg;
    char topic[24], text[32];
    snprintf(topic, sizeof topic, "from/%d", thread);
    for (int i = 1; i <= EACH; i++) {
        work *w = (work *)malloc(sizeof *w);
        if (!w) return NULL;
        w->thread = thread;
        w->number = i;
        if (rtpush_post(hub, posted, w)) wrong(__LINE__, "rtpush_post");
        snprintf(text, sizeof text, "<%d>", i);
        if (rtpush_publish_async(hub, topic, text, strlen(text))) wrong(__LINE__, "rtpush_publish_async");
        if (rtpush_publish_async(hub, "bad/*", text, 1) != RTPUSH_E_TOPIC) wrong(__LINE__, "a bad topic was taken");
        if (!*rtpush_strerror(i % RTPUSH_CODE_COUNT)) wrong(__LINE__, "rtpush_strerror");
        if (i % 50 == 0) sched_yield();
    }
    rtpush_post(hub, thread_ends, NULL);
    return NULL;
}

static bool in_order(const rtpush_message *m, void *user) {
    int *last = (int *)user, number = atoi((const char *)m->data + 1);
    if (number != *last + 1) wrong(__LINE__, "%d after %d", number, *last);
    *last = number;
    return true;
}

static void four_threads_post_and_publish_in_their_order(void) {
    rtpush_desc d;
    pthread_t threads[THREADS];
    int numbers[THREADS];
    static const char *const backends[] = {NULL, "poll"};
    for (int b = 0; b < 2; b++) {
        memset(&d, 0, sizeof d);
        memset(&P, 0, sizeof P);
        d.history = EACH;
        d.backend_name = backends[b];
        d.alloc = NULL;
        if (!start(&d)) return;
        client *reader = open_events("/live?topic=from/*", NULL);
        for (int i = 0; i < THREADS; i++) {
            numbers[i] = i;
            if (pthread_create(&threads[i], NULL, poster, &numbers[i])) wrong(__LINE__, "pthread_create");
        }
        while (P.ended < THREADS && !rtpush_step(hub, 1000)) take_in(reader, SIZE_MAX);
        for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
        turns(3);
        for (int i = 0; i < THREADS; i++) {
            char topic[24];
            int last = 0;
            snprintf(topic, sizeof topic, "from/%d", i);
            CHECK_INT(P.posted[i], EACH);
            CHECK_INT(rtpush_history(hub, topic, 0, in_order, &last), EACH);
        }
        hang_up(reader);
        turns(3);
        finish();
    }
}

static void *stopper(void *arg) {
    struct timespec pause = {0, 20000000};
    (void)arg;
    nanosleep(&pause, NULL);
    rtpush_stop(hub);
    return NULL;
}

static void stop_ends_run_from_four_threads(void) {
    rtpush_desc d;
    pthread_t threads[THREADS];
    memset(&d, 0, sizeof d);
    if (!start(&d)) return;
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < THREADS; i++)
            if (pthread_create(&threads[i], NULL, stopper, NULL)) wrong(__LINE__, "pthread_create");
        CHECK_CODE(rtpush_run(hub), RTPUSH_OK);
        for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
        while (rtpush_step(hub, 0)) {} // the stops that came after it had stopped
    }
    finish();
}

static void on_signal(int number) {
    (void)number;
    rtpush_stop(hub);
}

static void stop_ends_run_from_a_signal_handler(void) {
    rtpush_desc d;
    struct sigaction action;
    memset(&d, 0, sizeof d);
    memset(&action, 0, sizeof action);
    if (!start(&d)) return;
    action.sa_handler = on_signal;
    sigaction(SIGALRM, &action, NULL);
    struct itimerval soon = {{0, 0}, {0, 20000}};
    setitimer(ITIMER_REAL, &soon, NULL);
    CHECK_CODE(rtpush_run(hub), RTPUSH_OK);
    finish();
}

static void count_and_free(rtpush_hub *h, void *arg) {
    (void)h;
    P.ended++;
    free(arg);
}

static void *late_poster(void *arg) {
    (void)arg;
    for (int i = 0; i < 20; i++) rtpush_post(hub, count_and_free, malloc(1));
    return NULL;
}

static void what_was_posted_before_destroy_still_runs(void) {
    rtpush_desc d;
    pthread_t threads[THREADS];
    memset(&d, 0, sizeof d);
    if (!start(&d)) return;
    for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, late_poster, NULL);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    finish();
    CHECK_INT(P.ended, THREADS * 20);
}

// --- several loops (desc.threads) ---

enum { READERS = 9 };

static struct {
    int open, kicked, others; // clients: that are open; that were closed by 4005; that were closed otherwise
} K;

static int name_is_token(rtpush_hub *h, rtpush_login *login, void *user) {
    (void)h, (void)user;
    snprintf(login->identity, sizeof login->identity, "%.*s", (int)login->token.size, login->token.data);
    return RTPUSH_OK;
}

static void *run_leader(void *arg) {
    rtpush_run((rtpush_hub *)arg);
    return NULL;
}

static void on_reader(rtpush_hub *h, rtpush_client client, const rtpush_client_status *status, void *user) {
    (void)h, (void)client, (void)user;
    if (status->state == RTPUSH_CLIENT_OPEN) K.open++;
    if (status->state != RTPUSH_CLIENT_CLOSED) return;
    if (status->status == 4005) K.kicked++;
    else K.others++;
}

static void kick_ann(rtpush_hub *h, void *arg) {
    (void)arg;
    rtpush_kick(h, "ann", 4005, "out");
}

static void a_kick_reaches_the_sessions_of_each_loop(void) {
    int port = 0, code = 0;
    char url[64];
    pthread_t thread;
    rtpush_desc desc = {.threads = 3, .on_login = name_is_token}, none = {0};
    rtpush_hub *leader = rtpush_create_ex(&desc, &code), *clients = rtpush_create(&none);
    if (!leader || !clients || rtpush_listen(leader, "http://127.0.0.1:0", &port)) { wrong(__LINE__, "no hub: %s", rtpush_strerror(code)); return; }
    pthread_create(&thread, NULL, run_leader, leader);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/live/t", port);
    for (int i = 0; i < READERS; i++) {
        rtpush_client_desc reader = {.url = url, .token = i % 3 == 2 ? "bob" : "ann", .transports = "websocket", .once = true, .on_state = on_reader};
        if (!rtpush_connect(clients, &reader)) wrong(__LINE__, "%s", rtpush_last_error(clients));
        while (K.open <= i && !K.others) rtpush_step(clients, 100); // one after the other: they are dealt round
    }
    rtpush_post(leader, kick_ann, NULL);
    for (int i = 0; i < 100 && K.kicked < 6; i++) rtpush_step(clients, 50);
    for (int i = 0; i < 4; i++) rtpush_step(clients, 50);
    CHECK_INT(K.kicked, 6);
    CHECK_INT(K.others, 0);
    rtpush_destroy(clients);
    rtpush_stop(leader);
    pthread_join(thread, NULL);
    rtpush_destroy(leader);
}

// --- what several loops have is in memory once ---

enum { LARGE = 5000 };

static struct {
    int whole;          // messages that came as they were sent
    rp_shared *shared;  // where the large one is, in the leader
    bool is_small_own;  // and the small one is not shared
} L;

static void on_large(rtpush_hub *h, rtpush_client client, const rtpush_message *m, const char *id, void *user) {
    bool is_whole = m->size == LARGE;
    for (size_t i = 0; i < m->size && is_whole; i++) is_whole = ((const char *)m->data)[i] == (char)('a' + i % 26);
    (void)h, (void)client, (void)id, (void)user;
    L.whole += is_whole;
}

static void publish_large(rtpush_hub *h, void *arg) {
    char data[LARGE];
    (void)arg;
    for (size_t i = 0; i < LARGE; i++) data[i] = (char)('a' + i % 26);
    if (rtpush_publish(h, "t", data, LARGE) || rtpush_publish(h, "t", data, 10)) wrong(__LINE__, "rtpush_publish");
    L.shared = rp_log_find(&h->log, 1)->as[RP_RAW].block->shared;
    L.is_small_own = !rp_log_find(&h->log, 2)->as[RP_RAW].block->shared;
}

static void clear_large(rtpush_hub *h, void *arg) {
    (void)arg;
    rtpush_clear(h, "t");
}

static void a_large_message_is_in_memory_once(void) {
    int port = 0;
    char url[64];
    pthread_t thread;
    rtpush_desc desc = {.threads = 3}, none = {0};
    rtpush_hub *leader = rtpush_create(&desc), *clients = rtpush_create(&none);
    if (!leader || !clients || rtpush_listen(leader, "http://127.0.0.1:0", &port)) { wrong(__LINE__, "no hub"); return; }
    pthread_create(&thread, NULL, run_leader, leader);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/live/t", port);
    memset(&K, 0, sizeof K);
    for (int i = 0; i < READERS; i++) {
        rtpush_client_desc reader = {.url = url, .transports = i % 2 ? "websocket" : "sse", .once = true, .on_state = on_reader, .on_message = on_large};
        rtpush_connect(clients, &reader);
        while (K.open <= i && !K.others) rtpush_step(clients, 100);
    }
    rtpush_post(leader, publish_large, NULL);
    for (int i = 0; i < 100 && L.whole < READERS; i++) rtpush_step(clients, 50);
    CHECK_INT(L.whole, READERS);
    CHECK(L.shared && L.is_small_own);
    // One reference of each loop's log; the list's own goes when all have passed it, or with the next message.
    CHECK(L.shared && RP_ATOMIC_READ(&L.shared->refs) >= 3 && RP_ATOMIC_READ(&L.shared->refs) <= 4);
    rtpush_post(leader, clear_large, NULL); // the last loop to drop it frees it
    for (int i = 0; i < 4; i++) rtpush_step(clients, 50);
    rtpush_destroy(clients);
    rtpush_stop(leader);
    pthread_join(thread, NULL);
    rtpush_destroy(leader);
}

// A loop's question for older messages is on its way when the hub is destroyed: nobody is left to be told.
static bool has_all(rtpush_hub *h, rtpush_slice topic, const rp_start *start, uint64_t conn, const rtpush_slice *ref) {
    return (void)h, (void)topic, (void)start, (void)conn, (void)ref, false;
}

static void a_question_that_comes_too_late_is_for_nobody(void) {
    rtpush_desc desc = {.threads = 2};
    rtpush_hub *leader = rtpush_create(&desc);
    if (!leader) { wrong(__LINE__, "no hub"); return; }
    CHECK_CODE(rtpush_publish(leader, "@user/ann", "x", 1), RTPUSH_OK);
    rp_hub_find_topic(leader, rp_slice_of("@user/ann"))->is_whole = true;
    leader->fetch = has_all;
    CHECK(rp_loop_want(leader->crew->loops[1].hub, "@user/ann"));
    rtpush_destroy(leader);
}

int main(int argc, char **argv) {
    int status = begin(argc, argv);
    if (status) return status;
#define RUN(test) run(#test, test)
    RUN(four_threads_post_and_publish_in_their_order);
    RUN(stop_ends_run_from_four_threads);
    RUN(stop_ends_run_from_a_signal_handler);
    RUN(what_was_posted_before_destroy_still_runs);
    RUN(a_kick_reaches_the_sessions_of_each_loop);
    RUN(a_large_message_is_in_memory_once);
    RUN(a_question_that_comes_too_late_is_for_nobody);
    return end();
}
