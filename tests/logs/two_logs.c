// Two logs in one process, on one loop: how one goes past the ceiling of one log. Each has its own mount, epoch, cursors
// and journal; a client reads both, a cursor each.
//
//     cc -g tests/logs/two_logs.c -o build/two_logs -pthread && build/two_logs FOLDER PORT
#define RTPUSH_IMPLEMENTATION
#include "../../rtpush.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static rtpush_hub *make(const char *folder, const char *mount, const char *port, int at) {
    rtpush_journal_desc journal;
    rtpush_desc desc;
    char dir[300], url[64];
    memset(&journal, 0, sizeof journal);
    memset(&desc, 0, sizeof desc);
    snprintf(dir, sizeof dir, "%s%s", folder, mount);
    snprintf(url, sizeof url, "http://127.0.0.1:%d", atoi(port) + at);
    desc.bus = rtpush_journal(dir, &journal);
    desc.mount = mount;
    desc.listen = url;
    return rtpush_create(&desc);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    rtpush_hub *hubs[2] = {make(argv[1], "/one", argv[2], 0), make(argv[1], "/two", argv[2], 1)};
    if (!hubs[0] || !hubs[1]) return 1;
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct pollfd fds[2] = {{rtpush_fd(hubs[0]), POLLIN, 0}, {rtpush_fd(hubs[1]), POLLIN, 0}};
        int a = rtpush_timeout(hubs[0]), b = rtpush_timeout(hubs[1]);
        poll(fds, 2, a < 0 ? b : b < 0 || a < b ? a : b);
        if (rtpush_step(hubs[0], 0) || rtpush_step(hubs[1], 0)) return 1;
    }
}
