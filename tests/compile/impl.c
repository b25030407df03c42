// The unit that holds the library; use.c with -DUSE_EXTERN is the other one.
#define RTPUSH_IMPLEMENTATION
#include "../../rtpush.h"
