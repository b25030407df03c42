// What faults.c and api.c share: tests that run each in a process of their own, a seeded generator, a server hub and
// a hub with clients that are stepped in turns on one thread, and sockets that do not block.
#ifndef LIB_H
#define LIB_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define RTPUSH_IMPLEMENTATION
#include "../../rtpush.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))
#define COUNT(array) (sizeof(array) / sizeof *(array))

// --- one test, one process: a crash or a leak costs only its own test ---

static char *why; // shared with the child: the first thing that was wrong; empty: nothing
enum { WHY_MAX = 600 };
static int passed_count, failed_count;
static const char *only; // --only TEXT: the names that contain it
static bool no_fork;
static unsigned part, parts = 1; // --part I/N: every N-th test, from the I-th on, so that N processes share them

static void wrong(int line, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void wrong(int line, const char *format, ...) {
    va_list args;
    if (*why) return; // the first reason is the one to read
    int n = snprintf(why, WHY_MAX, "line %d: ", line);
    va_start(args, format);
    vsnprintf(why + n, WHY_MAX - (size_t)n, format, args);
    va_end(args);
    for (char *p = why; *p; p++)
        if ((unsigned char)*p < 0x20) *p = '|';
}

#define CHECK(x)                                 \
    do {                                         \
        if (!(x)) wrong(__LINE__, "not %s", #x); \
    } while (0)
#define CHECK_INT(got, want)                                                                          \
    do {                                                                                              \
        long long got_ = (long long)(got), want_ = (long long)(want);                                 \
        if (got_ != want_) wrong(__LINE__, "%s is %lld, not %lld", #got, got_, want_);                 \
    } while (0)
#define CHECK_CODE(got, want)                                                                                                \
    do {                                                                                                                     \
        int got_ = (got), want_ = (want);                                                                                    \
        if (got_ != want_) wrong(__LINE__, "%s is \"%s\", not \"%s\"", #got, rtpush_strerror(got_), rtpush_strerror(want_)); \
    } while (0)
#define CHECK_TEXT(got, want)                                                                     \
    do {                                                                                          \
        const char *text_ = (got), *wish_ = (want);                                               \
        if (strcmp(text_, wish_)) wrong(__LINE__, "%s is \"%.200s\", not \"%.100s\"", #got, text_, wish_); \
    } while (0)

static UNUSED void run(const char *name, void (*test)(void)) {
    int status = 0;
    static unsigned place;
    if (place++ % parts != part || (only && !strstr(name, only))) return;
    *why = 0;
    fflush(stdout);
    pid_t pid = no_fork ? -1 : fork();
    if (pid <= 0) {
        if (!pid) alarm(no_fork ? 0 : 600);
        test();
        if (!pid) exit(0); // the leak checker's status, if it finds one
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    if (status && !*why) snprintf(why, WHY_MAX, WIFSIGNALED(status) ? "killed by signal %d" : "a sanitizer's report, status %d", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    if (*why) printf("not ok %s: %s\n", name, why);
    else printf("ok %s\n", name);
    if (*why) failed_count++;
    else passed_count++;
}
#define RUN(test) run(#test, test)

static int begin(int argc, char **argv) {
    why = (char *)mmap(NULL, WHY_MAX, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (why == (char *)MAP_FAILED) return 1;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--no-fork")) no_fork = true;
        else if (!strcmp(argv[i], "--only") && i + 1 < argc) only = argv[++i];
        else if (!strcmp(argv[i], "--part") && i + 1 < argc && sscanf(argv[i + 1], "%u/%u", &part, &parts) == 2 && parts) i++;
        else return fprintf(stderr, "%s [--only TEXT] [--part I/N] [--no-fork]\n", argv[0]), 2;
    }
    return 0;
}

static int end(void) {
    printf("%d passed, %d failed\n", passed_count, failed_count);
    return failed_count || !passed_count;
}

// --- time, chance ---

static uint64_t real_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static uint64_t seed = 1;

// Below n, by xorshift: the same seed, the same faults.
static UNUSED unsigned chance(unsigned n) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)((seed >> 20) % n);
}

// --- two hubs: who is connected to, and who connects ---

static rtpush_hub *server, *loop;

static UNUSED rtpush_hub *make(const rtpush_desc *desc) {
    int code = 0;
    rtpush_hub *hub = rtpush_create_ex(desc, &code);
    if (!hub) wrong(__LINE__, "rtpush_create_ex: %s", rtpush_strerror(code));
    return hub;
}

// The least of what the hubs want to wait, and `most`.
static int least_wait(int most) {
    rtpush_hub *const hubs[] = {server, loop};
    for (size_t i = 0; i < COUNT(hubs); i++) {
        int wait = hubs[i] ? rtpush_timeout(hubs[i]) : -1;
        if (wait >= 0 && wait < most) most = wait;
    }
    return most;
}

// --- sockets ---

static void unblock(int fd) {
    int on = 1;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

// A listener on the loopback; *port of 0 is chosen.
static UNUSED int listen_at(int *port) {
    struct sockaddr_in at;
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    memset(&at, 0, sizeof at);
    at.sin_family = AF_INET;
    at.sin_port = htons((uint16_t)*port);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 128) || getsockname(fd, (struct sockaddr *)&at, &size)) return close(fd), -1;
    *port = ntohs(at.sin_port);
    unblock(fd);
    return fd;
}

static UNUSED int dial_at(int port) {
    struct sockaddr_in at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    memset(&at, 0, sizeof at);
    at.sin_family = AF_INET;
    at.sin_port = htons((uint16_t)port);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&at, sizeof at)) return close(fd), -1;
    unblock(fd);
    return fd;
}

// Closes with an RST instead of a FIN.
static UNUSED void reset(int fd) {
    struct linger now = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
}
#endif
