// two CERT KEY CLIENT_CA CERT2 KEY2: a server whose first name asks for a client's certificate, and whose second does
// not: what rtpushd cannot be told, as its --client-ca is for all.
#define RTPUSH_IMPLEMENTATION
#include "../../rtpush.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static rtpush_hub *hub;

static void on_signal(int number) {
    (void)number;
    rtpush_stop(hub);
}

static bool on_request(rtpush_hub *h, rtpush_request *request, void *user) {
    (void)h, (void)user;
    rtpush_reply(request, 200, "", "hello", 5);
    return true;
}

int main(int argc, char **argv) {
    rtpush_desc desc = {0};
    rtpush_tls_desc first = {0}, second = {0};
    int port = 0;
    if (argc != 6) return 2;
    desc.on_request = on_request;
    first.cert = argv[1], first.key = argv[2], first.client_ca = argv[3];
    second.cert = argv[4], second.key = argv[5];
    hub = rtpush_create(&desc);
    if (!hub || rtpush_tls(hub, &first) || rtpush_tls(hub, &second) || rtpush_listen(hub, "https://127.0.0.1:0", &port)) {
        fprintf(stderr, "two: %s\n", hub ? rtpush_last_error(hub) : "no memory");
        return 1;
    }
    signal(SIGTERM, on_signal);
    printf("listening on https://127.0.0.1:%d\n", port);
    fflush(stdout);
    int code = rtpush_run(hub);
    rtpush_destroy(hub);
    return code ? 1 : 0;
}
