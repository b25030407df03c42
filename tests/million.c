// The run of tools/million.h, each transport: small under the sanitizers, a million without them.
//
//     cc -O2 tests/million.c -o million && ./million [the flags of rtlab million]
//
// Without flags: the smoke test. flags: -D_GNU_SOURCE is added by tests/run.
#define RTPUSH_IMPLEMENTATION
#include "../rtpush.h"

#include "../tools/million.h"

int main(int argc, char **argv) {
    static const char *const transports[] = {"websocket", "sse", "longpoll"};
    int passed = 0, failed = 0;
    if (argc > 1) return million_run(argc - 1, argv + 1);
    for (int i = 0; i < 3; i++) {
        char sessions[] = "--sessions", count[] = "20000", transport[] = "--transport", publishes[] = "--publishes", five[] = "5", name[16];
        char *flags[] = {sessions, count, publishes, five, transport, name};
        snprintf(name, sizeof name, "%s", transports[i]);
        bool is_good = !million_run(6, flags);
        printf("%s million_%s\n", is_good ? "ok" : "not ok", name);
        if (is_good) passed++;
        else failed++;
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
