// The daemon with names, which a daemon without a login has not: ?token=ann is ann.
//   POST /to/NAME     a message to the user NAME, wherever she is: rtpush_publish_user
//   GET /where/NAME   the nodes on which she has a session, one a line: rtpush_where
#define RTPUSH_IMPLEMENTATION
#include "../../rtpush.h"

#include <stdio.h>
#include <string.h>

static bool (*daemons_request)(rtpush_hub *hub, rtpush_request *request, void *user);

static int login_by_token(rtpush_hub *hub, rtpush_login *login, void *user) {
    (void)hub;
    (void)user;
    if (login->token.size >= sizeof login->identity) return RTPUSH_E_UNAUTHORIZED;
    if (login->token.size) memcpy(login->identity, login->token.data, login->token.size);
    login->identity[login->token.size] = 0;
    return RTPUSH_OK;
}

typedef struct list {
    char text[1024];
    size_t size;
} list;

static bool add_node(const char *node, void *user) {
    list *l = (list *)user;
    int n = snprintf(l->text + l->size, sizeof l->text - l->size, "%s\n", node);
    if (n > 0 && (size_t)n < sizeof l->text - l->size) l->size += (size_t)n;
    return true;
}

// The NAME in `prefix`NAME; false: another path.
static bool name_in(rtpush_slice path, const char *prefix, char *name, size_t cap) {
    size_t skip = strlen(prefix);
    if (path.size <= skip || path.size - skip >= cap || memcmp(path.data, prefix, skip)) return false;
    memcpy(name, path.data + skip, path.size - skip);
    name[path.size - skip] = 0;
    return true;
}

static bool user_request(rtpush_hub *hub, rtpush_request *request, void *user) {
    rtpush_slice path = rtpush_path(request), body = rtpush_body(request);
    char name[128];
    if (name_in(path, "/where/", name, sizeof name)) {
        list found = {"", 0};
        rtpush_where(hub, name, add_node, &found);
        rtpush_reply(request, 200, "Content-Type: text/plain\r\n", found.text, found.size);
        return true;
    }
    if (!name_in(path, "/to/", name, sizeof name)) return daemons_request && daemons_request(hub, request, user);
    int code = rtpush_publish_user(hub, name, body.data, body.size);
    const char *text = code ? rtpush_strerror(code) : "sent";
    rtpush_reply(request, code ? 503 : 202, "Content-Type: text/plain\r\n", text, strlen(text));
    return true;
}

static rtpush_hub *create_with_names(const rtpush_desc *given, int *code) {
    rtpush_desc desc = *given;
    daemons_request = desc.on_request;
    desc.on_request = user_request;
    desc.on_login = login_by_token;
    return rtpush_create_ex(&desc, code);
}

// The daemon's own source, with another way to make the hub.
#define rtpush_create_ex create_with_names
#include "../../tools/rtpushd.c"
