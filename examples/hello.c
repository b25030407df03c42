// Hello: what a WebSocket client sends to a topic, everybody who reads that topic gets, on any transport.
//   cc -O2 examples/hello.c -o hello && ./hello        then read: curl 'http://127.0.0.1:8080/live/t?wait=50'
#define RTPUSH_IMPLEMENTATION
#include "../rtpush.h"

static void on_message(rtpush_hub *hub, rtpush_session from, const rtpush_message *m, void *user) {
    (void)from; (void)user;
    rtpush_publish(hub, m->topic, m->data, m->size);
}
int main(void) {
    rtpush_hub *hub = rtpush_create(&(rtpush_desc){ .listen = "http://127.0.0.1:8080", .on_message = on_message });
    return hub ? rtpush_run(hub) : 1;
}
