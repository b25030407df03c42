// A private copy of the library of which a program calls little: no warning about the rest, no name exported.
#ifndef RTPUSH_STATIC
#define RTPUSH_STATIC
#endif
#define RTPUSH_IMPLEMENTATION
#include "../../rtpush.h"

#include <string.h>

#ifdef __cplusplus
extern "C"
#endif
int few(void);

int few(void) {
    rtpush_desc desc;
    memset(&desc, 0, sizeof desc);
    rtpush_hub *hub = rtpush_create(&desc);
    if (!hub) return 1;
    int code = rtpush_publish(hub, "t", "x", 1);
    rtpush_destroy(hub);
    return code;
}
