// Own loop: rtpush as a guest in a poll() loop that is yours, beside a descriptor of your own. Here that is the
// standard input: each line typed becomes a message of the topic `lines`.
//
//   cc -O2 examples/own_loop.c -o own_loop && ./own_loop [PORT]
//   curl -N -H 'Accept: text/event-stream' http://127.0.0.1:8080/live/lines
//
// Three calls make a guest: rtpush_fd is readable when there is work, rtpush_timeout says when there will be some
// by itself (timers, heartbeats), and rtpush_step(hub, 0) does it without waiting. What you publish between two
// turns goes out in the next step: rtpush_timeout is 0 until then.
#define RTPUSH_IMPLEMENTATION
#include "../rtpush.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Some back-ends (poll) have no descriptor that stands for all their sockets, so nothing wakes your loop when a
// client speaks: then rtpush_fd is -1, and you look this often.
enum { BLIND_MS = 20 };

static rtpush_hub *hub; // for the signal handler

static void on_signal(int number) {
    (void)number;
    rtpush_stop(hub); // makes rtpush_fd readable, and the next step says RTPUSH_E_STATE
}

// Publishes the whole lines in buf and keeps the rest; a line that fills the buffer goes out in pieces.
static size_t publish_lines(char *buf, size_t size, size_t cap, bool is_end) {
    size_t from = 0;
    for (char *nl; (nl = memchr(buf + from, '\n', size - from)) != NULL; from = (size_t)(nl - buf) + 1)
        rtpush_publish(hub, "lines", buf + from, (size_t)(nl - buf) - from);
    if (size > from && (is_end || (!from && size == cap))) {
        rtpush_publish(hub, "lines", buf + from, size - from);
        from = size;
    }
    memmove(buf, buf + from, size - from);
    return size - from;
}

int main(int argc, char **argv) {
    int code = 0, port = argc > 1 ? atoi(argv[1]) : 8080;
    char url[64], line[4096];
    size_t size = 0;
    snprintf(url, sizeof url, "http://127.0.0.1:%d", port);
    hub = rtpush_create_ex(&(rtpush_desc){ .publish_off = true }, &code);
    if (hub) code = rtpush_listen(hub, url, &port);
    if (code) {
        fprintf(stderr, "own_loop: %s: %s\n", url, rtpush_strerror(code));
        if (hub) rtpush_destroy(hub);
        return 1;
    }
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    printf("type lines; they are read at http://127.0.0.1:%d/live/lines\n", port);
    fflush(stdout);

    // poll() leaves out a negative descriptor, so -1 needs no other case than the shorter wait.
    struct pollfd fds[2] = { { .fd = rtpush_fd(hub), .events = POLLIN }, { .fd = STDIN_FILENO, .events = POLLIN } };
    while (!code) {
        int wait = rtpush_timeout(hub); // -1: without end, as poll() has it
        if (fds[0].fd < 0 && (wait < 0 || wait > BLIND_MS)) wait = BLIND_MS;
        if (poll(fds, 2, wait) < 0 && errno != EINTR) break;
        if (fds[1].revents) {
            ssize_t got = read(STDIN_FILENO, line + size, sizeof line - size);
            if (got > 0) size += (size_t)got;
            if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN)) fds[1].fd = -1; // no more lines
            size = publish_lines(line, size, sizeof line, fds[1].fd < 0);
        }
        code = rtpush_step(hub, 0); // cheap when there is nothing to do
    }
    rtpush_destroy(hub);
    return 0;
}
