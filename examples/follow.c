// follow: the client side. Reads a topic of any rtpush server, says each message, and publishes what it is given.
//
//     cc -O2 examples/follow.c -o follow && ./follow http://127.0.0.1:8080/live/chat/general "hello from C"
//
// It tries WebSocket, then SSE, then polls; it comes back by itself, goes on where it was, and says so if something was lost.
#define RTPUSH_IMPLEMENTATION
#include "../rtpush.h"

#include <stdio.h>
#include <string.h>

static void on_message(rtpush_hub *hub, rtpush_client client, const rtpush_message *m, const char *id, void *user) {
    (void)hub, (void)client, (void)user;
    printf("%s %s: %.*s\n", id, m->topic, (int)m->size, (const char *)m->data);
}

static void on_gap(rtpush_hub *hub, rtpush_client client, const char *from, const char *to, const char *reason, void *user) {
    (void)hub, (void)client, (void)user;
    printf("lost: what was after %s, up to %s (%s)\n", *from ? from : "nothing", to, reason);
}

static void on_state(rtpush_hub *hub, rtpush_client client, const rtpush_client_status *s, void *user) {
    static const char *const names[] = {"connecting", "open", "waiting", "closed"};
    (void)client, (void)user;
    printf("%s%s%s%s%s\n", names[s->state], s->code ? ": " : "", s->code ? rtpush_strerror(s->code) : "", *s->reason ? ": " : "", s->reason);
    if (s->state == RTPUSH_CLIENT_CLOSED) rtpush_stop(hub);
}

static void on_published(rtpush_hub *hub, uint64_t ticket, uint64_t seq, int code, void *user) {
    (void)hub, (void)ticket, (void)user;
    if (code) printf("not published: %s\n", rtpush_strerror(code));
    else printf("published as number %llu\n", (unsigned long long)seq);
}

int main(int argc, char **argv) {
    rtpush_client_desc desc = {0};
    rtpush_publication what = {0};
    rtpush_hub *hub = rtpush_create(&(rtpush_desc){0}); // no listener: only the loop
    setvbuf(stdout, NULL, _IOLBF, 0);
    desc.url = argc > 1 ? argv[1] : "http://127.0.0.1:8080/live/chat/general";
    desc.since = "-10"; // the last ten, then what comes
    desc.on_message = on_message;
    desc.on_gap = on_gap;
    desc.on_state = on_state;
    rtpush_client client = hub ? rtpush_connect(hub, &desc) : 0;
    if (!client) {
        fprintf(stderr, "follow: %s\n", hub ? rtpush_last_error(hub) : "no memory");
        return 1;
    }
    what.done = on_published; // it is sent when the connection is open, and again if that breaks before the answer
    for (int i = 2; i < argc; i++) {
        what.data = argv[i];
        what.size = strlen(argv[i]);
        rtpush_client_publish(hub, client, &what);
    }
    int code = rtpush_run(hub);
    rtpush_destroy(hub);
    return code;
}
