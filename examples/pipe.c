// Two processes, one log: a bus of one's own. The parent gives numbers to all that is published in either, the child
// follows over a socket pair; whoever reads at one of them gets the same messages, in the same order, with the same ids.
//
//     cc -O2 examples/pipe.c -o pipe && ./pipe
//     curl -N -H 'Accept: text/event-stream' http://127.0.0.1:8081/live/t &
//     curl -d hello http://127.0.0.1:8082/live/t
#define RTPUSH_IMPLEMENTATION
#include "../rtpush.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DATA_MAX = 16384 };

typedef struct record {
    uint64_t seq, ticket; // ticket: of the child's publish; 0: it was not the child's
    int kind;
    bool is_ephemeral, is_clear;
    size_t size;
    char topic[256], event[256], data[DATA_MAX];
} record;

static int other;       // our end of the socket pair
static bool is_parent;
static uint64_t head;   // the parent's: the last number given

static size_t bytes_of(const record *r) { return offsetof(record, data) + r->size; }

static void deliver(rtpush_hub *hub, const record *r) {
    rtpush_message m;
    memset(&m, 0, sizeof m);
    m.topic = r->topic;
    m.event = r->event;
    m.data = r->data;
    m.size = r->size;
    m.kind = r->kind;
    m.ephemeral = r->is_ephemeral;
    m.seq = r->seq;
    if (r->is_clear) rtpush_bus_clear(hub, r->topic, r->seq);
    else rtpush_bus_deliver(hub, &m);
}

// The parent: it comes into the log now, here and then there.
static int number(rtpush_hub *hub, record *r) {
    r->seq = ++head;
    deliver(hub, r);
    return send(other, r, bytes_of(r), 0) < 0 ? RTPUSH_E_UNAVAILABLE : RTPUSH_OK;
}

static int append(void *user, rtpush_hub *hub, const rtpush_publication *what, uint64_t ticket) {
    static record r;
    (void)user;
    if (what->size > DATA_MAX) return RTPUSH_E_TOO_BIG;
    memset(&r, 0, offsetof(record, data));
    r.ticket = is_parent ? 0 : ticket;
    r.kind = what->kind;
    r.is_ephemeral = what->ephemeral;
    r.is_clear = what->clear;
    r.size = what->size;
    strcpy(r.topic, what->topic); // both are checked: 255 bytes at most
    strcpy(r.event, what->event);
    if (r.size) memcpy(r.data, what->data, r.size);
    if (!is_parent) return send(other, &r, bytes_of(&r), 0) < 0 ? RTPUSH_E_UNAVAILABLE : RTPUSH_OK;
    int code = number(hub, &r);
    rtpush_bus_done(hub, ticket, r.seq, code);
    return RTPUSH_OK;
}

// What the other one says. false: it has ended.
static bool take(rtpush_hub *hub) {
    static record r;
    ssize_t n;
    while ((n = recv(other, &r, sizeof r, MSG_DONTWAIT)) > 0) {
        if (is_parent) { number(hub, &r); continue; }
        deliver(hub, &r);
        if (r.ticket) rtpush_bus_done(hub, r.ticket, r.seq, RTPUSH_OK);
    }
    return n < 0;
}

static int open_bus(void *user, rtpush_hub *hub) {
    (void)user;
    return rtpush_bus_start(hub, "pipe0000", 0);
}

static int run(const char *url) {
    const rtpush_bus bus = {"pipe", open_bus, append, NULL, NULL, NULL};
    rtpush_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.listen = url;
    desc.bus = &bus;
    rtpush_hub *hub = rtpush_create(&desc);
    if (!hub) return 1;
    printf("%s reads and writes the log at %s/live/…\n", is_parent ? "the parent" : "the child", url);
    fflush(stdout);
    struct pollfd fds[2] = {{rtpush_fd(hub), POLLIN, 0}, {other, POLLIN, 0}};
    do poll(fds, 2, rtpush_timeout(hub));
    while (take(hub) && !rtpush_step(hub, 0));
    rtpush_destroy(hub);
    return 0;
}

int main(int argc, char **argv) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends)) return 1;
    is_parent = fork() != 0;
    other = ends[!is_parent];
    close(ends[is_parent]);
    if (argc == 3) return run(argv[is_parent ? 1 : 2]);
    return run(is_parent ? "http://127.0.0.1:8081" : "http://127.0.0.1:8082");
}
