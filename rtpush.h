// ============================================================================
// >>declarations  what a program sees: types, one desc per constructor, functions
//
// Every size is in bytes, every duration in milliseconds. Zero in a desc is the
// sensible default; -1 switches a limit off where that is said. Unless a comment
// says otherwise a function is called on the hub's own thread, which is the one
// that calls rtpush_step or rtpush_run, and may be called inside any callback.
// ============================================================================
#ifndef RTPUSH_H
#define RTPUSH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RTPUSH_VERSION "0.1.0"

#ifndef RTPUSH_DEF
#ifdef RTPUSH_STATIC
#define RTPUSH_DEF static
#else
#define RTPUSH_DEF extern
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

// --- codes ---

// One list of every error: its name and its text. The text names the setting that would change it.
#define RTPUSH_CODES(X)                                                                             \
    X(OK, "no error")                                                                               \
    X(E_ARGUMENT, "an argument is missing or out of range")                                         \
    X(E_MEMORY, "out of memory (desc.alloc)")                                                       \
    X(E_TOPIC, "not a topic name: 1 to 255 bytes of UTF-8, no control characters, no empty segment") \
    X(E_EVENT, "not an event name: no control characters, and not gap")                             \
    X(E_UTF8, "text is not valid UTF-8 (publish it as RTPUSH_BINARY)")                              \
    X(E_JSON, "not a JSON text")                                                                    \
    X(E_TOO_BIG, "larger than desc.message_max")                                                    \
    X(E_FULL, "the session has no room for it now (desc.ring_max)")                                 \
    X(E_GONE, "no such session, stream or timer any more")                                          \
    X(E_TRANSPORT, "only a WebSocket can be sent to directly; publish to @user/NAME instead")       \
    X(E_UNAUTHORIZED, "not authenticated")                                                          \
    X(E_FORBIDDEN, "not allowed")                                                                   \
    X(E_UNAVAILABLE, "the bus does not accept messages now")                                        \
    X(E_TOPICS, "too many topics, all of them read (desc.topics_max)")                              \
    X(E_PATTERNS, "too many patterns (desc.patterns_max)")                                          \
    X(E_SUBSCRIPTIONS, "too many topics for one session (desc.session_topics_max)")                 \
    X(E_URL, "not an address to listen on: http://HOST:PORT or unix:PATH")                          \
    X(E_IN_USE, "the address is in use")                                                            \
    X(E_SYSTEM, "a system call failed")                                                             \
    X(E_BACKEND, "no such back-end here: epoll, kqueue or poll (desc.backend_name)")                \
    X(E_HEADER, "a header or reason with CR, LF or NUL in it")                                      \
    X(E_STATE, "not possible in this state")

enum rtpush_code {
#define RTPUSH_CODE_NAME(name, text) RTPUSH_##name,
    RTPUSH_CODES(RTPUSH_CODE_NAME)
#undef RTPUSH_CODE_NAME
    RTPUSH_CODE_COUNT
};

// The text of a code. Any thread. Never NULL; the string is static.
RTPUSH_DEF const char *rtpush_strerror(int code);

// --- things ---

typedef struct rtpush_hub rtpush_hub;         // one log, its readers, their sockets; one thread
typedef struct rtpush_request rtpush_request; // an HTTP request; lives until on_request returns
typedef uint64_t rtpush_session;              // a reader or two-way client; 0 is none, a stale one a no-op
typedef uint64_t rtpush_stream;               // an HTTP reply still being written; likewise
typedef uint64_t rtpush_timer;                // likewise

// What the data of a message is. AUTO is for publishing: text if it is valid UTF-8, else binary.
enum rtpush_kind { RTPUSH_AUTO, RTPUSH_TEXT, RTPUSH_JSON, RTPUSH_BINARY };

// What happens to a reader whose next message is no longer held: it is closed (and may resume), it is told
// of the gap and goes on from the oldest that is held, or from the newest.
enum rtpush_slow { RTPUSH_SLOW_DEFAULT, RTPUSH_SLOW_CLOSE, RTPUSH_SLOW_SKIP, RTPUSH_SLOW_LATEST };

enum rtpush_transport { RTPUSH_NO_TRANSPORT, RTPUSH_WEBSOCKET, RTPUSH_ENVELOPE, RTPUSH_SSE, RTPUSH_LONG_POLL, RTPUSH_SHORT_POLL };

enum rtpush_verb { RTPUSH_VERB_READ = 1, RTPUSH_VERB_PUBLISH, RTPUSH_VERB_DELETE };

typedef struct rtpush_slice {
    const char *data; // not NUL-terminated
    size_t size;
} rtpush_slice;

// A message as callbacks see it. Everything it points to is the library's and lives until the callback returns.
typedef struct rtpush_message {
    const char *topic; // NUL-terminated
    const char *event; // NUL-terminated, "" if none
    const void *data;
    size_t size;
    int kind;        // rtpush_kind, never AUTO
    bool ephemeral;  // was delivered to whoever was there, is not in the history
    uint64_t seq;    // 0 while it is not yet published
    int64_t time_ms; // wall clock, since 1970
} rtpush_message;

// The end of a publish. code RTPUSH_OK: the message has the number seq. Called once for each ticket, inside
// rtpush_publish_ex with the local log, in a later step with a bus.
typedef void (*rtpush_published)(rtpush_hub *hub, uint64_t ticket, uint64_t seq, int code, void *user);

// What is to be published. The library copies what it keeps.
typedef struct rtpush_publication {
    const char *topic;
    const char *event; // NULL or "": none
    const void *data;
    size_t size;
    int kind;
    bool ephemeral;        // to whoever is there now; never stored, never a gap
    const char *key;       // idempotency key: the same key on the same topic by the same identity within two
    const char *identity;  // minutes is the first one's message again; NULL: none
    rtpush_published done; // may be NULL
    void *done_user;
} rtpush_publication;

// --- login ---

// Who is it? The hook reads the credentials and fills identity and expires_ms. `request` has the headers,
// cookies and query; it is NULL for the first message of an envelope connection, which has a token alone.
typedef struct rtpush_login {
    const rtpush_request *request; // NULL for a token that came as a message
    rtpush_slice token;            // Authorization: Bearer, else ?token=, else the message's; may be empty
    char identity[128];            // to fill: the name, NUL-terminated UTF-8; "" is an anonymous reader
    int64_t expires_ms;            // to fill: milliseconds from now, 0 never
} rtpush_login;

// --- seams: what a host may put under the library ---

typedef struct rtpush_iov {
    const void *base;
    size_t len;
} rtpush_iov;

enum { RTPUSH_READ = 1, RTPUSH_WRITE = 2 };

typedef struct rtpush_event {
    uint64_t tag;   // what `watch` was given
    unsigned ready; // RTPUSH_READ, RTPUSH_WRITE or both; an error or hang-up is both
} rtpush_event;

// A reactor back-end. `watch` says what a descriptor was watched for and what it is to be watched for now
// (0: not at all); it returns 0 or -errno. `wait` fills at most `cap` events, waits at most timeout_ms (-1:
// without end, 0: not at all) and returns their number, 0 also when interrupted.
typedef struct rtpush_backend {
    const char *name;
    void *(*open)(void *user); // NULL: failed
    void (*close)(void *state);
    int (*watch)(void *state, int fd, uint64_t tag, unsigned was, unsigned want);
    int (*wait)(void *state, rtpush_event *events, int cap, int timeout_ms);
    int (*fd)(void *state); // a descriptor that a host may poll for reading, or -1
    void *user;
} rtpush_backend;

typedef struct rtpush_peer {
    unsigned char addr[16]; // IPv6, or IPv4 as ::ffff:a.b.c.d; all zero for a Unix socket
    uint16_t port;
} rtpush_peer;

// Every system call the server makes. A NULL member is the real one. Results below 0 are -errno.
typedef struct rtpush_sys {
    int (*listen)(void *user, const char *url);                    // a non-blocking listening descriptor
    int (*accept)(void *user, int listener, rtpush_peer *peer);    // a non-blocking connection
    ptrdiff_t (*recv)(void *user, int fd, void *buf, size_t cap);  // 0: the peer has ended
    ptrdiff_t (*send)(void *user, int fd, const rtpush_iov *iov, int count);
    int (*shutdown)(void *user, int fd); // the writing half
    int (*close)(void *user, int fd);
    uint64_t (*now_ms)(void *user);  // monotonic
    int64_t (*wall_ms)(void *user);  // since 1970
    int (*random)(void *user, void *buf, size_t size); // unpredictable bytes; 0, or -errno: nothing is started
    void *user;
} rtpush_sys;

// Memory. `alloc` with old == NULL allocates; size 0 frees. As realloc: a failed call leaves `old` alone.
typedef void *(*rtpush_alloc)(void *old, size_t size, void *user);

// A bus is the same log elsewhere. The hub appends to it and follows it: whatever comes into the log, own or
// foreign, comes by rtpush_bus_deliver in seq order, and each ticket is completed once by rtpush_bus_done.
// All of it on the hub's thread. With no bus the log is the hub's own.
typedef struct rtpush_bus {
    const char *name;
    int (*open)(void *user, rtpush_hub *hub); // may call rtpush_bus_start and rtpush_bus_deliver; 0 or a code
    int (*append)(void *user, rtpush_hub *hub, const rtpush_publication *what, uint64_t ticket); // copies; 0 or a code
    void (*close)(void *user, rtpush_hub *hub);
    void *user;
} rtpush_bus;

// The bus tells which epoch its log has and up to which seq it begins unknown (what was before is lost).
// epoch: 8 of [a-z0-9]. A changed epoch tells every reader of a gap.
RTPUSH_DEF int rtpush_bus_start(rtpush_hub *hub, const char *epoch, uint64_t floor);
// The next message of the log. seq must be above all before. `m` is copied. RTPUSH_E_MEMORY: deliver it again.
RTPUSH_DEF int rtpush_bus_deliver(rtpush_hub *hub, const rtpush_message *m);
// A ticket's end: code RTPUSH_OK and the seq it got (or the older one its idempotency key had), or an error.
RTPUSH_DEF void rtpush_bus_done(rtpush_hub *hub, uint64_t ticket, uint64_t seq, int code);

// --- the hub ---

typedef struct rtpush_desc {
    const char *listen; // "http://127.0.0.1:8080", "http://[::1]:0", "unix:/run/x.sock"; more by rtpush_listen
    const char *mount;  // "/live"
    void *user;         // handed to every callback below

    // Callbacks; any may be NULL. They may publish, close, subscribe, drain and destroy the session at hand.
    void (*on_open)(rtpush_hub *hub, rtpush_session session, void *user);
    void (*on_close)(rtpush_hub *hub, rtpush_session session, int code, void *user);
    // A raw WebSocket's data frame. If it is set, the library publishes nothing by itself for those.
    void (*on_message)(rtpush_hub *hub, rtpush_session from, const rtpush_message *m, void *user);
    // A client publishes (POST, envelope, raw frame without on_message). RTPUSH_OK publishes what `what` says
    // now (it may be changed), another code refuses. from is 0 for a POST without ?session=.
    int (*on_publish)(rtpush_hub *hub, rtpush_session from, rtpush_publication *what, void *user);
    // Another path than the library's. Answer by rtpush_reply and return true; false is a 404.
    bool (*on_request)(rtpush_hub *hub, rtpush_request *request, void *user);
    // Who is it? RTPUSH_OK, RTPUSH_E_UNAUTHORIZED (401, 4001) or RTPUSH_E_FORBIDDEN (403, 4003).
    int (*on_login)(rtpush_hub *hub, rtpush_login *login, void *user);
    // May this identity do this with this topic or pattern? Without the hook: read all but foreign @user/…, and
    // publish and delete as desc.publish says. With it, @ names other than one's own @user/NAME need its yes.
    bool (*on_allow)(rtpush_hub *hub, const char *identity, int verb, const char *topic, void *user);
    void (*on_log)(rtpush_hub *hub, const char *line, void *user); // what went wrong, one line, no secrets

    bool publish_off;    // clients may not publish or delete (unless on_allow says so)
    const char *origin;  // allowed origins, comma separated, exact; "*" all; NULL: the same host
    bool expose_off;     // no /healthz, /metrics, /stats

    // HTTP
    int64_t head_max;          // 16 KiB: request line and headers; 431
    int64_t line_max;          // 8 KiB: the request line; 414
    int64_t headers_max;       // 64 (at most 64); 431
    int64_t body_max;          // 1 MiB; 413
    int64_t header_timeout_ms; // 10,000 for the whole head; 408
    int64_t body_timeout_ms;   // 30,000 for the whole body; 408
    int64_t body_rate_min;     // 1 KiB per second after 5 s, -1 off; 408
    int64_t idle_timeout_ms;   // 30,000 between requests; the connection closes

    // WebSocket and streams
    int64_t message_max;        // 1 MiB in one message; 1009
    int64_t fragments_max;      // 1,024 in one message; 1008
    int64_t frame_timeout_ms;   // 30,000 from a message's first byte to its last; 1008
    int64_t pings_max;          // 60 pings a second from one peer; 1008
    int64_t heartbeat_ms;       // 20,000: WebSocket ping and envelope heartbeat; -1 off
    int64_t dead_ms;            // 10,000 without a byte after a ping: dropped
    int64_t sse_heartbeat_ms;   // 15,000; -1 off
    int64_t sse_retry_ms;       // 3,000, with up to 20 % jitter: what `retry:` says
    int64_t poll_max_ms;        // 55,000: the longest hold
    int64_t poll_default_ms;    // 25,000: for Prefer: wait without a number
    int64_t close_timeout_ms;   // 5,000 for the peer to answer a close; 1,000 to read what it still sends
    int64_t auth_timeout_ms;    // 10,000 for the first-message login; 4001
    int64_t stall_ms;           // 30,000 without the peer taking a byte: closed
    int64_t ring_max;           // 256 KiB of a connection's own bytes under way
    int64_t linger_ms;          // 15,000: how long a ?session= outlives its last request; -1 not at all

    // the log
    int64_t history;             // 100 messages a topic; -1 none
    int64_t history_bytes;       // 1 MiB a topic
    int64_t history_ms;          // 3,600,000; -1 without end
    int64_t history_total_bytes; // 64 MiB over all topics
    int64_t topics_max;          // 100,000
    int64_t patterns_max;        // 1,000
    int64_t dead_max;            // 16,384 names of topics that are no more
    int64_t session_topics_max;  // 64
    int64_t keys_max;            // 65,536 idempotency keys
    int64_t keys_ms;             // 120,000
    int64_t presence_ms;         // 250: at most one presence message in this time
    int64_t presence_list_max;   // 100 members; above it only their count is told
    int slow;                    // rtpush_slow; RTPUSH_SLOW_CLOSE

    // the loop
    int64_t connections_max;        // what the process may open less 64; 503
    int64_t connections_per_ip_max; // -1 off (behind a proxy all come from one); 429
    int64_t accepts_per_turn;       // 128
    int64_t input_per_turn;         // 256 KiB from one connection
    int64_t writes_per_turn;        // 1,024 in one flush
    const char *backend_name;       // "epoll", "kqueue", "poll"; NULL: the best
    const rtpush_backend *backend;  // the host's own
    const rtpush_sys *sys;          // the host's own system calls
    const rtpush_bus *bus;          // the log elsewhere
    rtpush_alloc alloc;             // NULL: RTPUSH_REALLOC and RTPUSH_FREE
    void *alloc_user;
} rtpush_desc;

// Makes a hub and, where desc.listen says so, listens. desc is read, not kept; strings are copied; the tables
// behind backend, sys and bus must outlive the hub. NULL on error; rtpush_create_ex says which.
RTPUSH_DEF rtpush_hub *rtpush_create(const rtpush_desc *desc);
// The same, and *code tells what went wrong.
RTPUSH_DEF rtpush_hub *rtpush_create_ex(const rtpush_desc *desc, int *code);
// Listens on one more address. `port` may be NULL; it gets the port (asked for with port 0).
RTPUSH_DEF int rtpush_listen(rtpush_hub *hub, const char *url, int *port);
// Takes a listening descriptor, or a connected one, that the host opened; it is closed with the hub.
RTPUSH_DEF int rtpush_adopt_listener(rtpush_hub *hub, int fd);
RTPUSH_DEF int rtpush_adopt(rtpush_hub *hub, int fd);
// One turn: waits at most timeout_ms (-1: until something happens), handles what is ready, runs due timers,
// sends what readers are behind on. 0, or RTPUSH_E_STATE once the hub has stopped or drained.
RTPUSH_DEF int rtpush_step(rtpush_hub *hub, int timeout_ms);
// Turns until rtpush_stop, or until a drain has ended. 0 or a code. Does not destroy.
RTPUSH_DEF int rtpush_run(rtpush_hub *hub);
// Makes rtpush_run return. Any thread, and signal handlers.
RTPUSH_DEF void rtpush_stop(rtpush_hub *hub);
// For a host's own loop: poll this for reading and call rtpush_step(hub, 0) when it is ready or when
// rtpush_timeout has passed. -1: the back-end has none (poll), call rtpush_step at least that often.
RTPUSH_DEF int rtpush_fd(rtpush_hub *hub);
// Milliseconds until rtpush_step has something to do by itself; 0 now, -1 never.
RTPUSH_DEF int rtpush_timeout(rtpush_hub *hub);
// A deploy: the listeners close, parked polls are answered at once, each other reader is closed at its own
// moment within spread_ms and told its own delay; at deadline_ms (-1 none) what is left is cut. 0 is 3,000 and 10,000.
RTPUSH_DEF int rtpush_drain(rtpush_hub *hub, int64_t spread_ms, int64_t deadline_ms);
RTPUSH_DEF bool rtpush_is_draining(rtpush_hub *hub);
// Closes every connection (on_close runs), frees all. Inside a callback it is done at the end of the turn.
RTPUSH_DEF void rtpush_destroy(rtpush_hub *hub);
// Details of the last error on this hub, for people. Never NULL; valid until the next call.
RTPUSH_DEF const char *rtpush_last_error(rtpush_hub *hub);
RTPUSH_DEF void *rtpush_user(rtpush_hub *hub);

// --- publishing ---

// Publishes to a topic: text if it is valid UTF-8, else binary. 0 or a code.
RTPUSH_DEF int rtpush_publish(rtpush_hub *hub, const char *topic, const void *data, size_t size);
// With all there is to say. `ticket` may be NULL. 0: `done` was or will be called; else it was not and will not be.
RTPUSH_DEF int rtpush_publish_ex(rtpush_hub *hub, const rtpush_publication *what, uint64_t *ticket);
// From any other thread; `data` is copied, and published in the hub's next turn.
RTPUSH_DEF int rtpush_publish_async(rtpush_hub *hub, const char *topic, const void *data, size_t size);
// Runs fn(hub, arg) on the hub's thread in its next turn. Any thread.
RTPUSH_DEF int rtpush_post(rtpush_hub *hub, void (*fn)(rtpush_hub *hub, void *arg), void *arg);
// To one WebSocket, past the log. kind AUTO, TEXT or BINARY. RTPUSH_E_FULL: nothing was sent.
RTPUSH_DEF int rtpush_send(rtpush_hub *hub, rtpush_session session, const void *data, size_t size, int kind);
// To one user, away or not: the topic @user/NAME.
RTPUSH_DEF int rtpush_publish_user(rtpush_hub *hub, const char *name, const void *data, size_t size);

// --- topics ---

typedef struct rtpush_topic_desc {
    int64_t history;       // 0: desc.history, -1 none
    int64_t history_bytes; // 0: desc.history_bytes
    int64_t history_ms;    // 0: desc.history_ms, -1 without end
    int slow;              // 0: desc.slow
    bool presence;         // tell in @presence/TOPIC who reads it
} rtpush_topic_desc;

// How topics that match the name or pattern are kept, from now on. The last call that matches decides.
RTPUSH_DEF int rtpush_configure(rtpush_hub *hub, const char *pattern, const rtpush_topic_desc *desc);
// Subscribes a WebSocket or SSE session; since as in ?since= (NULL: latest). No permission is asked.
RTPUSH_DEF int rtpush_subscribe(rtpush_hub *hub, rtpush_session session, const char *topic, const char *since);
RTPUSH_DEF int rtpush_unsubscribe(rtpush_hub *hub, rtpush_session session, const char *topic);
// Calls each for the held messages of a topic with seq > since, oldest first, until it returns false. Returns
// how many. Publishing inside is allowed and not seen.
RTPUSH_DEF size_t rtpush_history(rtpush_hub *hub, const char *topic, uint64_t since,
                                 bool (*each)(const rtpush_message *m, void *user), void *user);
// Calls each for the members present in a topic, until it returns false (each may be NULL). Returns their number.
RTPUSH_DEF size_t rtpush_presence(rtpush_hub *hub, const char *topic, bool (*each)(const char *name, void *user), void *user);
// Drops a topic's history; readers behind it see a gap.
RTPUSH_DEF int rtpush_clear(rtpush_hub *hub, const char *topic);
// How many subscriptions a publish to this topic would reach on this hub.
RTPUSH_DEF size_t rtpush_subscribers(rtpush_hub *hub, const char *topic);
// The cursor of the head, "epoch-seq", into buf of at least 32 bytes. Returns buf.
RTPUSH_DEF const char *rtpush_cursor_text(rtpush_hub *hub, char *buf);

// --- sessions ---

typedef struct rtpush_session_info {
    const char *identity; // "" if anonymous; the library's, until the callback or next step
    int transport;        // rtpush_transport; none while it lingers between requests
    rtpush_peer peer;
    uint64_t cursor;      // it has everything up to here
    uint64_t lag;         // messages of its topics that it has not
    size_t topics;
    size_t own_bytes;     // of its own, waiting for the socket
    void *user;
} rtpush_session_info;

RTPUSH_DEF int rtpush_info(rtpush_hub *hub, rtpush_session session, rtpush_session_info *info);
// A pointer of the host's with the session; the library never looks at it.
RTPUSH_DEF int rtpush_set_user(rtpush_hub *hub, rtpush_session session, void *user);
RTPUSH_DEF void *rtpush_get_user(rtpush_hub *hub, rtpush_session session);
// Closes a session: WebSocket by this code (1000, 3000 to 4999) and reason (at most 123 bytes), others by their end.
RTPUSH_DEF int rtpush_close(rtpush_hub *hub, rtpush_session session, int code, const char *reason);
// Closes all sessions of an identity. Returns how many.
RTPUSH_DEF size_t rtpush_kick(rtpush_hub *hub, const char *identity, int code, const char *reason);
// Calls each for every session until it returns false. Returns how many. Closing inside is allowed.
RTPUSH_DEF size_t rtpush_each(rtpush_hub *hub, bool (*each)(rtpush_hub *hub, rtpush_session session, void *user), void *user);

// --- HTTP inside on_request ---

RTPUSH_DEF rtpush_slice rtpush_method(const rtpush_request *request);
// The path, percent-decoded, without the query.
RTPUSH_DEF rtpush_slice rtpush_path(const rtpush_request *request);
RTPUSH_DEF rtpush_slice rtpush_body(const rtpush_request *request);
RTPUSH_DEF rtpush_peer rtpush_request_peer(const rtpush_request *request);
// The first header of that name (any case), its value; .data is NULL where there is none.
RTPUSH_DEF rtpush_slice rtpush_header(const rtpush_request *request, const char *name);
// A query parameter, decoded into buf (NUL-terminated). -1: none, or it does not fit; else its length.
RTPUSH_DEF ptrdiff_t rtpush_query(const rtpush_request *request, const char *name, char *buf, size_t cap);
// A cookie's value as sent (RFC 6265 §5.4). .data is NULL where there is none.
RTPUSH_DEF rtpush_slice rtpush_cookie(const rtpush_request *request, const char *name);
// The whole answer. headers: "Name: value\r\n…" or NULL; Content-Length and Connection are ours.
RTPUSH_DEF int rtpush_reply(rtpush_request *request, int status, const char *headers, const void *body, size_t size);
// An answer in pieces, also after on_request has returned: chunked for HTTP/1.1, until the end for 1.0.
// 0 on error. Pieces over desc.ring_max wait: rtpush_stream_write then says RTPUSH_E_FULL and takes nothing.
RTPUSH_DEF rtpush_stream rtpush_reply_begin(rtpush_request *request, int status, const char *headers);
RTPUSH_DEF int rtpush_stream_write(rtpush_hub *hub, rtpush_stream stream, const void *data, size_t size);
RTPUSH_DEF int rtpush_stream_end(rtpush_hub *hub, rtpush_stream stream);
// A regular file below the folder root; `path` relative to it, no .. and no link is followed. 404 where there
// is none. type: the Content-Type, NULL guesses by the name's end.
RTPUSH_DEF int rtpush_reply_file(rtpush_request *request, const char *root, const char *path, const char *type);

// --- timers ---

// Calls fn once, after ms. 0: no memory.
RTPUSH_DEF rtpush_timer rtpush_after(rtpush_hub *hub, int64_t ms, void (*fn)(rtpush_hub *hub, void *user), void *user);
RTPUSH_DEF void rtpush_cancel(rtpush_hub *hub, rtpush_timer timer);
// The hub's monotonic clock at the start of this turn.
RTPUSH_DEF uint64_t rtpush_now(rtpush_hub *hub);

// --- statistics ---

// Counters since the start and gauges of now. owed = delivered + skipped + abandoned + pending, each counted
// once for every matching subscription.
#define RTPUSH_STATS(X)                                                                    \
    X(connections, "gauge", "open connections")                                            \
    X(accepted, "counter", "connections accepted")                                         \
    X(refused, "counter", "connections refused by a limit")                                \
    X(sessions, "gauge", "sessions, lingering ones included")                              \
    X(websockets, "gauge", "open WebSocket connections")                                   \
    X(event_streams, "gauge", "open SSE streams")                                          \
    X(parked_polls, "gauge", "long polls waiting")                                         \
    X(subscriptions, "gauge", "subscriptions")                                             \
    X(topics, "gauge", "topics")                                                           \
    X(patterns, "gauge", "wildcard patterns that are read")                                \
    X(messages_held, "gauge", "messages in the history")                                   \
    X(history_bytes, "gauge", "memory of the history")                                     \
    X(requests, "counter", "HTTP requests")                                                \
    X(requests_bad, "counter", "HTTP requests refused as malformed or over a limit")       \
    X(frames_in, "counter", "WebSocket frames received")                                   \
    X(published, "counter", "messages published")                                          \
    X(publish_failed, "counter", "publishes that the bus refused")                         \
    X(owed, "counter", "messages owed to subscriptions")                                   \
    X(delivered, "counter", "messages given whole to the kernel")                          \
    X(skipped, "counter", "messages a subscription passed without getting them")           \
    X(abandoned, "counter", "messages owed to subscriptions that left")                    \
    X(pending, "gauge", "messages owed and not yet given")                                 \
    X(gaps, "counter", "gaps told")                                                        \
    X(evicted, "counter", "messages dropped from the history")                             \
    X(closed_slow, "counter", "readers closed as too slow")                                \
    X(closed_dead, "counter", "peers dropped as dead")                                     \
    X(bytes_in, "counter", "bytes received")                                               \
    X(bytes_out, "counter", "bytes sent")                                                  \
    X(reads, "counter", "receive calls")                                                   \
    X(writes, "counter", "send calls")                                                     \
    X(turns, "counter", "turns of the loop")                                               \
    X(no_memory, "counter", "allocations that failed")

typedef struct rtpush_stats {
#define RTPUSH_STAT_FIELD(name, type, help) uint64_t name;
    RTPUSH_STATS(RTPUSH_STAT_FIELD)
#undef RTPUSH_STAT_FIELD
} rtpush_stats;

RTPUSH_DEF void rtpush_get_stats(rtpush_hub *hub, rtpush_stats *stats);
// Is every invariant of the log and the equation of the counters true now? Walks everything: for tests. NULL:
// all is well, else what is wrong (static text).
RTPUSH_DEF const char *rtpush_check(rtpush_hub *hub);

// --- parsers: bytes in, verdict out; no I/O, no memory, any thread (RTPUSH_PARSERS_ONLY has only these) ---

#define RTPUSH_HEADERS_MAX 64

typedef struct rtpush_head {
    rtpush_slice method, target, path, query; // path and query as sent (of an absolute form: behind the authority)
    rtpush_slice host;
    int minor;              // HTTP/1.minor
    bool keep_alive;        // the connection may serve another request
    bool is_chunked, has_length;
    bool expects_continue;  // Expect: 100-continue
    bool wants_websocket;   // Connection: upgrade and Upgrade: websocket
    uint64_t length;        // Content-Length
    size_t count;
    struct { rtpush_slice name, value; } headers[RTPUSH_HEADERS_MAX];
} rtpush_head;

// A request's head (RFC 9112 §2 to §7), strictly. > 0: so many bytes are the head; 0: it is not complete; < 0:
// refused, the negated status (400, 414, 431, 501, 505). Limits of 0 are the defaults.
RTPUSH_DEF ptrdiff_t rtpush_parse_head(rtpush_head *head, const char *data, size_t size, size_t line_max, size_t headers_max);

// Chunked transfer coding (RFC 9112 §7.1). Start with a zeroed struct. Takes from data, gives at most one run of
// body bytes in *body (inside data). Returns bytes taken, or -1: malformed. Call again while it takes; is_done: ended.
typedef struct rtpush_chunked {
    uint64_t left;
    uint32_t state, digits, trailer;
    bool is_done;
} rtpush_chunked;
RTPUSH_DEF ptrdiff_t rtpush_parse_chunked(rtpush_chunked *chunked, const char *data, size_t size, rtpush_slice *body);

// A WebSocket frame's head (RFC 6455 §5.2). > 0: its size; 0: more; < 0: refused, the negated close code.
typedef struct rtpush_frame {
    bool is_final, is_masked;
    unsigned char rsv, opcode, key[4];
    uint64_t length;
} rtpush_frame;
RTPUSH_DEF ptrdiff_t rtpush_parse_frame(rtpush_frame *frame, const unsigned char *data, size_t size);
// Masks or unmasks in place (RFC 6455 §5.3); at: how many bytes of the frame were before. Returns at + size.
RTPUSH_DEF uint64_t rtpush_mask(unsigned char *data, size_t size, const unsigned char key[4], uint64_t at);

// UTF-8 (RFC 3629) in pieces: begin with state 0. Returns the new state: 0 whole, RTPUSH_UTF8_BAD impossible,
// else in the middle of a character.
#define RTPUSH_UTF8_BAD 1u
RTPUSH_DEF uint32_t rtpush_utf8(uint32_t state, const void *data, size_t size);

// Is it one JSON text (RFC 8259), in UTF-8, at most 64 deep? Surrounding white space is allowed.
RTPUSH_DEF bool rtpush_is_json(const void *data, size_t size);

// "epoch-seq". false: it is none.
typedef struct rtpush_cursor {
    char epoch[9]; // NUL-terminated
    uint64_t seq;
} rtpush_cursor;
RTPUSH_DEF bool rtpush_parse_cursor(rtpush_cursor *cursor, const char *data, size_t size);

// Is it a topic's name, or (with allow_wild) a pattern?
RTPUSH_DEF bool rtpush_is_topic(const char *name, size_t size, bool allow_wild);
// Does the pattern (or name) match the name?
RTPUSH_DEF bool rtpush_matches(const char *pattern, const char *name);

#ifdef __cplusplus
}
#endif
#endif // RTPUSH_H

