// rtpush: real-time push for C in one file. One log, four ways to read it: WebSocket, server-sent events, long
// polling, short polling; with history, resume, presence, drain, TLS, and a client in C and one for browsers. Public
// domain (UNLICENSE).
//
// ============================================================================
// >>manual  what it is, how to use it, what it promises
//
// Do this:
//
//     // in ONE source file
//     #define RTPUSH_IMPLEMENTATION
//     #include "rtpush.h"
//     // everywhere else: #include "rtpush.h"
//
//     cc -O2 program.c -o program
//
// In the implementing file include rtpush.h before the system's headers: it asks for what it needs of them.
//
// THE PROGRAM (examples/hello.c): what a WebSocket sends to a topic, all who read that topic get, on any transport.
//
//     #define RTPUSH_IMPLEMENTATION
//     #include "rtpush.h"
//
//     static void on_message(rtpush_hub *hub, rtpush_session from, const rtpush_message *m, void *user) {
//         (void)from; (void)user;
//         rtpush_publish(hub, m->topic, m->data, m->size);
//     }
//     int main(void) {
//         rtpush_hub *hub = rtpush_create(&(rtpush_desc){ .listen = "http://127.0.0.1:8080", .on_message = on_message });
//         return hub ? rtpush_run(hub) : 1;
//     }
//
//     curl -d hello 'http://127.0.0.1:8080/live/t'                 publishes
//     curl 'http://127.0.0.1:8080/live/t?wait=25'                  waits for what comes (long poll)
//     curl -N -H 'Accept: text/event-stream' '…/live/t'            streams (SSE)
//     new WebSocket("ws://127.0.0.1:8080/live/t")                  both ways
//
// WHAT IT DOES NOT DO
//
//     HTTP/2 and 3 (a proxy does that), compression, templating, a JSON document model, Windows. The history is in
//     memory unless desc.bus is a journal (rtpush_journal) or Redis (rtpush_redis): a restart without one begins a new
//     epoch, and every reader hears of a gap.
//
// CONTENTS (grep -n '^// >>' finds them)
//
//     >>declarations  what a program sees
//     >>base          the compiler, the platform
//     >>memory        allocator, slabs
//     >>bytes         buffers
//     >>codec         UTF-8, masking, base64, SHA-1, SipHash
//     >>time          timer wheel
//     >>table         hash table
//     >>loop          epoll, kqueue, poll, wake-up
//     >>socket        system calls
//     >>tls           OpenSSL, behind the calls of a socket
//     >>json          reader, writer
//     >>http          requests, answers
//     >>ws            WebSocket frames
//     >>sse           event-stream blocks
//     >>longpoll      cursors, starts
//     >>topic         the log
//     >>hub           names, subscriptions
//     >>spell         a message in five spellings
//     >>reader        cursors move: start, catch up, fan out, flush
//     >>publish       tickets, idempotency keys, the bus
//     >>session       identity, linger, presence
//     >>registry      who is where, over all nodes
//     >>auth          who may do what
//     >>conn          a connection's life
//     >>reply         HTTP answers
//     >>push          the transports
//     >>open          a reader begins
//     >>envelope      what an rtpush.v1 client says
//     >>route         what a request is
//     >>script        the browser client, /rtpush.js
//     >>stats         figures
//     >>input         bytes in
//     >>clock         deadlines, heartbeats, drain
//     >>posted        calls from other threads
//     >>dial          outgoing connections
//     >>exchange      a request and its answer
//     >>client        a reader of a server elsewhere
//     >>told          what a server says
//     >>seek          connecting, losing
//     >>parcel        publishes under way
//     >>hear          what comes
//     >>connect       a client is made and kept
//     >>bus           what a bus tells the hub
//     >>record        what stands in a journal's files
//     >>journal       the log on disk
//     >>load          and how it is read again
//     >>await         who waits for older messages
//     >>resp          Redis's protocol
//     >>redis         two connections to a Redis
//     >>stream        the log as a Redis stream
//     >>durable       topics that Redis keeps by themselves
//     >>join          a node joins, is counted, leaves
//     >>server        listeners, the turn
//     >>create        a hub is made, steps, ends
//     >>crew          several loops, one log
//     >>api           the public functions
//
// THE TRANSPORTS
//
//                   asked for by                      gets                       costs per message and reader
//     short poll    GET /live/T                       what is held, 304 if none  a request each interval, news or not
//     long poll     GET /live/T?wait=25               held until there is news   a request and an answer
//     SSE           GET, Accept: text/event-stream    a stream of blocks         about 40 bytes around the data
//     WebSocket     GET, Upgrade: websocket           frames, both ways          2 to 10 bytes around the data
//     rtpush.v1     the same, with that subprotocol   JSON in frames             about 75 bytes around the data
//
// TEN STEPS
//
//      1  rtpush_create with desc.listen; rtpush_run.
//      2  rtpush_publish(hub, "sport/tennis", data, size) from anywhere on that thread.
//      3  Clients read /live/sport/tennis, or /live/sport/* (one more segment), /live/sport/** (one or more).
//      4  A client that was away comes back with the last id it has (Last-Event-ID, ?since=) and gets the rest.
//      5  desc.on_login says who it is, desc.on_allow what it may; without them everybody reads and publishes.
//      6  rtpush_publish_user(hub, "ann", …) keeps for ann in @user/ann what comes while she is away.
//      7  rtpush_configure(hub, "chat/*", …) sets how much is kept, what slow readers get, whether presence is told.
//      8  desc.on_request serves your own pages beside it: rtpush_reply, rtpush_reply_file.
//      9  Other threads call rtpush_publish_async and rtpush_post, and nothing else.
//     10  On SIGTERM: rtpush_stop in the handler; when rtpush_run is back, rtpush_drain and rtpush_run once more.
//
// THE IDEAS
//
//     topic    a name, `chat/general`. Its messages are kept for a while, by count, bytes and age.
//     seq      a number that grows by one for each message, over all topics.
//     epoch    8 characters that name this log. Another epoch: another log, where the numbers mean nothing.
//     cursor   `epoch-seq`: "I have everything up to here". One cursor covers all topics and all transports, and is
//              what a message has as its id.
//     gap      what comes after a cursor is no longer held. It is told before the first message that follows, on
//              every transport. It may be told too often (after very many topics have come and gone), never too rarely.
//
// WHAT DELIVERY PROMISES
//
//     A reader gets each message of its topics once, in the order of seq, or is told of a gap. Publishing never waits
//     for a reader. A reader whose socket is full costs its position and at most one half-sent message; when it has
//     room it goes on from the log. If the log has moved on meanwhile its topic's policy decides: close (it may
//     resume; the default), skip (the gap is told, it goes on from the oldest held), latest (from the newest).
//     An ephemeral message goes to whoever is there; it is never stored and never a gap.
//     Acknowledged (201, 202, ack, code 0) means: it is in the log: the memory of this process, or what desc.bus is.
//
// THE LOG ELSEWHERE (desc.bus)
//
//     rtpush_journal(dir, …)   on this machine's disk: a restart goes on with the same epoch and ids
//     rtpush_redis(url, …)     a Redis stream for many nodes: one order, and a cursor of one node is good on each
//     a table of your own      open, append, close (examples/pipe.c): deliver what comes into the log, in its order
//
//     A publish is acknowledged when the bus has it. A bus that is away: readers stay, publishes wait and then get
//     RTPUSH_E_UNAVAILABLE. One that has lost something: a new epoch, and every reader hears of a gap. What several
//     processes share is the log, presence and who is where (rtpush_where); limits are each one's own.
//
// HOW A BYTE TRAVELS
//
//     `server` waits in a back-end of `loop`; a ready connection's bytes go into one buffer, `input` finds the requests
//     and frames in it with the parsers of `http` and `ws`, `route` sees what they ask for. A publish ends in `topic`:
//     the message is put in its ring and the spine, the topic is marked; no reader is touched. When all that was ready
//     is handled, `reader` flushes: it walks the entries of each marked topic, and all who are level get the same bytes
//     (`spell`: made once), with their own in one send (`conn`). What is no longer to be kept goes after that.
//
// THE CLIENT (examples/follow.c; tools/rtcat.c is a program around it)
//
//     rtpush_client_desc desc = { .url = "http://host/live/chat/general", .since = "-10", .on_message = on_message };
//     rtpush_client client = rtpush_connect(hub, &desc);        any hub; one without desc.listen is only the loop
//
//     It tries WebSocket, SSE, long and short polling in that order. One that is not let through is passed over for
//     remember_ms once a later one has worked. When its connection ends it waits (a random time below backoff_ms,
//     doubled each time up to backoff_max_ms; or what the server said) and goes on from its cursor, on whatever
//     transport: each message comes once and in order, or on_gap tells what is lost. Publishes are kept and sent again
//     under one idempotency key until they are answered. A stream that is silent for twice its heartbeat is lost.
//     tools/rtpush.js does the same in a page; the server has it at /rtpush.js.
//
//     It also reads any WebSocket (RTPUSH_SERVER_WEBSOCKET) and any event stream (RTPUSH_SERVER_EVENTS). It believes
//     nothing that a server says: answers, frames, JSON and cursors are read as strictly as the server reads a client,
//     within message_max; what breaks the protocol ends the connection with RTPUSH_E_PROTOCOL and a sentence. A redirect
//     is refused unless desc.redirects says otherwise; where it leads to another host, token and headers stay behind.
//     Names are looked up by a thread of their own, so that the loop does not wait (with RTPUSH_NO_THREADS it does).
//
// TLS (RTPUSH_OPENSSL and -lssl -lcrypto; OpenSSL 3 or 1.1.1)
//
//     rtpush_tls(hub, &(rtpush_tls_desc){ .cert = "chain.pem", .key = "key.pem" });
//     rtpush_listen(hub, "https://0.0.0.0:8443", NULL);          rtpush_tls_reload(hub) when the files have changed
//
//     TLS 1.2 and 1.3, SNI over several certificates, ALPN http/1.1, resumption by tickets, no renegotiation, client
//     certificates if asked for. The handshake is within header_timeout_ms. A client checks the certificate and its name
//     against the system's authorities or desc.ca; only desc.insecure, so named, does not. OpenSSL reads and writes
//     through rtpush_sys, so kernel TLS is not used.
//
// LIMITS (in desc; what happens is the answer a client sees)
//
//     head_max 16 KiB, headers_max 64       431            message_max 1 MiB                 1009, 413
//     line_max 8 KiB                        414            fragments_max 1,024               1008
//     body_max 1 MiB                        413            frame_timeout_ms 30 s             1008
//     header_timeout_ms 10 s                408            pings_max 60 a second             1008
//     body_timeout_ms 30 s                  408            dead_ms 10 s after a ping         dropped
//     body_rate_min 1 KiB/s after 5 s       408            auth_timeout_ms 10 s              4001
//     idle_timeout_ms 30 s                  the end        close_timeout_ms 5 s              the end
//     connections_max (descriptors - 64)    503            stall_ms 30 s                     dropped
//     connections_per_ip_max off            429            ring_max 256 KiB of own bytes     reading pauses; E_FULL
//     session_topics_max 64                 400            poll_max_ms 55 s                  answered empty
//     topics_max 100,000, all read          503            keys_max 65,536 in keys_ms 120 s  the oldest is forgotten
//     patterns_max 1,000                    503            history 100, 1 MiB, 1 h a topic   the oldest goes
//     dead_max 16,384                       a gap too many history_total_bytes 64 MiB        the oldest goes
//     a ref of 256 bytes, JSON 64 deep      an error       accepts, input, writes per turn   next turn goes on
//     an answer to a poll: 1,000 messages or 1 MiB, then "more":true
//
// THREADS, FORKS, SIGNALS, YOUR OWN LOOP
//
//     A hub lives on one thread; desc.threads gives it more loops, each with a hub of its own for its sessions' callbacks,
//     all with one log. rtpush_publish_async, rtpush_post and rtpush_stop may be called from others (stop from
//     signal handlers too). Callbacks run inside rtpush_step and may do anything, also destroy the session at hand or
//     the hub: what they destroy is freed when the turn ends. No signal, locale or standard stream is touched; a broken
//     connection raises no SIGPIPE. All descriptors are close-on-exec; a fork without exec must leave the hub alone.
//     In your own loop: poll rtpush_fd for reading, wait at most rtpush_timeout, then rtpush_step(hub, 0).
//
// ERRORS AND MEMORY
//
//     Functions return RTPUSH_OK (0) or a code; rtpush_strerror has its text, which names the setting that would change
//     it; rtpush_last_error has details. Out of memory costs the connection or message at hand and is counted. Nothing
//     exits, prints or asserts (RTPUSH_DEBUG checks the log's invariants and the sum of the counters after each turn).
//     An idle WebSocket, event stream or parked poll costs about 500 bytes; a message its payload, about 120 bytes and
//     the spellings that readers asked for.
//
// SECURITY
//
//     A browser's request from another origin is refused unless desc.origin lists it. Tokens go by Authorization or
//     cookie; by ?token= only where headers cannot, by the first message (rtpush.v1) else. Nothing a client sends is
//     logged. Names are hashed with a secret key, and every queue is bounded in bytes and in items.
//
// A FIFTH TRANSPORT (examples/course/fifth.patch is one, newline-delimited JSON, in 63 lines)
//
//      1  spell   how a message reads: a rp_spelling and its branch in rp_spell, if all readers get the same bytes
//      2  push    a const rp_wire: write (rp_conn_write), put, gap, close; or `answer`, if it answers as a whole
//      3  push    its first bytes, its heartbeat (rp_push_heartbeat), who is there (rp_push_presence), its last words
//      4  route   how it is asked for (rp_route_read): its wire, the head of its answer, the phase it lives in
//      5  open    what a late subscription has lost (rp_open_gap)
//      6  conn    a phase of its own only if its deadlines are others (rp_conn_deadline, `clock`); then a gauge, too
//      7  tests   tests/wire: start, resume, gap, a slow reader, drain; and the wire's paper first
//
// COMPILE-TIME OPTIONS
//
//     RTPUSH_IMPLEMENTATION   the code, in one file        RTPUSH_PARSERS_ONLY    only the parsers
//     RTPUSH_OPENSSL          with TLS                     RTPUSH_NO_CLIENT       without the C client
//     RTPUSH_STATIC           all of it static             RTPUSH_NO_THREADS      no lock; then nothing from other threads
//     RTPUSH_NO_REDIS         without rtpush_redis
//     RTPUSH_DEF              what public functions are    RTPUSH_DEBUG           check everything after each turn (slow)
//     RTPUSH_REALLOC, RTPUSH_FREE   the default allocator  RTPUSH_ASSERT          what RTPUSH_DEBUG calls
// ============================================================================
#if defined(RTPUSH_IMPLEMENTATION) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE // before the first system header: accept4 and the like
#endif
#if defined(RTPUSH_IMPLEMENTATION) && defined(__APPLE__) && !defined(_DARWIN_C_SOURCE)
#define _DARWIN_C_SOURCE
#endif

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
#if defined(__GNUC__) || defined(__clang__)
#define RTPUSH_DEF static __attribute__((unused))
#else
#define RTPUSH_DEF static
#endif
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
    X(E_UNAVAILABLE, "messages are not taken now: the bus does not, or the server drains")                                        \
    X(E_TOPICS, "too many topics, all of them read (desc.topics_max)")                              \
    X(E_PATTERNS, "too many patterns (desc.patterns_max)")                                          \
    X(E_SUBSCRIPTIONS, "too many topics for one session (desc.session_topics_max)")                 \
    X(E_URL, "not an address: http://HOST:PORT or unix:PATH, https too; of a client ws and wss too")                          \
    X(E_IN_USE, "the address is in use")                                                            \
    X(E_SYSTEM, "a system call failed")                                                             \
    X(E_BACKEND, "no such back-end here: epoll, kqueue or poll (desc.backend_name)")                \
    X(E_HEADER, "a header with CR, LF or NUL in it")                                                \
    X(E_STATE, "not possible in this state")                                                         \
    X(E_CONNECT, "the server cannot be reached")                                                    \
    X(E_TLS, "TLS failed")                                                                          \
    X(E_TIMEOUT, "the server says nothing in time")                                                 \
    X(E_CLOSED, "the connection broke off")                                                         \
    X(E_REFUSED, "the server refuses")                                                              \
    X(E_PROTOCOL, "the server broke the protocol")

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
    bool clear;            // no message: the topic's history is dropped (DELETE)
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

#define RTPUSH_READ 1u
#define RTPUSH_WRITE 2u

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
    // A non-blocking connection that has begun, to an address or (path not NULL) a Unix socket.
    int (*connect)(void *user, const rtpush_peer *peer, const char *path);
    void *user;
} rtpush_sys;

// Memory. `alloc` with old == NULL allocates; size 0 frees. As realloc: a failed call leaves `old` alone.
typedef void *(*rtpush_alloc)(void *old, size_t size, void *user);

// A bus is the same log elsewhere. The hub appends to it and follows it: whatever comes into the log, own or
// foreign, comes by rtpush_bus_deliver in seq order (what->clear: by rtpush_bus_clear), and each ticket is completed
// once by rtpush_bus_done. All of it on the hub's thread. With no bus the log is the hub's own.
typedef struct rtpush_bus {
    const char *name;
    int (*open)(void *user, rtpush_hub *hub); // may call rtpush_bus_start and rtpush_bus_deliver; 0 or a code
    int (*append)(void *user, rtpush_hub *hub, const rtpush_publication *what, uint64_t ticket); // copies; 0 or a code
    // NULL, or called before the readers are served in each turn in which something was appended, or that
    // rtpush_bus_wake asked for: what was appended since is one batch.
    void (*turn)(void *user, rtpush_hub *hub);
    void (*close)(void *user, rtpush_hub *hub); // once; also when open has failed, and then even with hub NULL
    void *user;
} rtpush_bus;

// The bus tells which epoch its log has and up to which seq it begins unknown (what was before is lost).
// epoch: 8 of [a-z0-9]. A changed epoch tells every reader of a gap.
RTPUSH_DEF int rtpush_bus_start(rtpush_hub *hub, const char *epoch, uint64_t floor);
// The next message of the log. seq must be above all before. `m` is copied; its time_ms counts for retention, 0 is now.
// RTPUSH_E_MEMORY: deliver it again.
RTPUSH_DEF int rtpush_bus_deliver(rtpush_hub *hub, const rtpush_message *m);
// What is held of the topic is dropped, up to the seq (0: all). It has no seq of its own, or one that nothing else has.
RTPUSH_DEF int rtpush_bus_clear(rtpush_hub *hub, const char *topic, uint64_t seq);
// A ticket's end: code RTPUSH_OK and the seq it got (or the older one its idempotency key had), or an error.
RTPUSH_DEF void rtpush_bus_done(rtpush_hub *hub, uint64_t ticket, uint64_t seq, int code);
// Asks for a call of `turn` in the next turn, which comes at once.
RTPUSH_DEF void rtpush_bus_wake(rtpush_hub *hub);

// --- the journal: the log on disk ---

// Zero is the default.
typedef struct rtpush_journal_desc {
    bool sync_always;      // a publish is answered when it is on the disk: one fsync for all of a turn
    int64_t sync_ms;       // 100: else so long at most until it is; -1: when the system likes
    int64_t segment_bytes; // 8 MiB: of one file; what is no longer held goes as whole files
    int64_t wait_ms;       // how long to wait at the start for another process to let go of it; 0: not at all
} rtpush_journal_desc;

// A bus for desc.bus of one hub, which owns it from then on. A restart continues the log in `dir` (made if it is
// missing): what was acknowledged is there under the same id. The epoch changes only if the tail may be lost: a file cut
// or damaged, or, without sync_always, a crash of the machine. Errors come from rtpush_create_ex, with a line by on_log:
// RTPUSH_E_IN_USE (another process has it), RTPUSH_E_SYSTEM. A disk that fails later: publishes get
// RTPUSH_E_UNAVAILABLE until it works again. NULL: no memory.
RTPUSH_DEF const rtpush_bus *rtpush_journal(const char *dir, const rtpush_journal_desc *desc);

#ifndef RTPUSH_NO_REDIS
// --- Redis: one log for many nodes (not with RTPUSH_NO_REDIS) ---

// Zero is the default. Texts are copied.
typedef struct rtpush_redis_desc {
    const char *log;     // "rtpush": whoever names the same one shares it; 1 to 64 of A-Z a-z 0-9 . _ -
    const char *node;    // this node's name, likewise; no two that live have the same. NULL: a random one
    const char *ca;      // rediss: a PEM file of the authorities to trust instead of the system's
    bool insecure;       // rediss: whoever answers is believed
    int64_t stream_max;  // 100,000: entries that Redis keeps, about
    int64_t durable_max; // 1,000: messages that it keeps of a durable topic,
    int64_t durable_ms;  // for 30 days behind the last one
    int64_t queue_bytes; // 4 MiB of publishes that are on their way,
    int64_t queue_ms;    // and 5,000 so long at most; then RTPUSH_E_UNAVAILABLE
    int64_t start_ms;    // 15,000: rtpush_create waits so long for Redis
} rtpush_redis_desc;

// A bus for desc.bus of one hub, which owns it from then on. "redis://[USER:PASS@]HOST[:PORT][/DB]", rediss (TLS),
// "unix:PATH", "redis+sentinel://HOST[:PORT],HOST…/MASTER". Redis 6.2 to 8, Valkey. All nodes have one order, one epoch
// and the same ids, so a cursor of one is good on each. While Redis is away readers stay and publishes wait. When Redis
// has lost something that a node had, the epoch changes. rtpush_create_ex: RTPUSH_E_IN_USE: another node has the name.
RTPUSH_DEF const rtpush_bus *rtpush_redis(const char *url, const rtpush_redis_desc *desc);
#endif
// Calls each for the name of every node on which this identity has a session, until it returns false. Returns on how
// many it has. Where the log is not shared: 1 with "" if it is here, else 0.
RTPUSH_DEF size_t rtpush_where(rtpush_hub *hub, const char *identity, bool (*each)(const char *node, void *user), void *user);

// --- the hub ---

typedef struct rtpush_desc {
    const char *listen; // "http://127.0.0.1:8080", "http://[::1]:0", "unix:/run/x.sock"; https and more by rtpush_listen
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
    // Who is it? RTPUSH_OK, RTPUSH_E_UNAUTHORIZED (401, 4001) or RTPUSH_E_FORBIDDEN (403, 4003). Asked for what is
    // below the mount; not for on_request's paths, /healthz and /metrics.
    int (*on_login)(rtpush_hub *hub, rtpush_login *login, void *user);
    // May this identity do this with this topic or pattern? Without the hook: read all but foreign @user/…, and
    // publish and delete as desc.publish says. With it, @ names other than one's own @user/NAME need its yes.
    bool (*on_allow)(rtpush_hub *hub, const char *identity, int verb, const char *topic, void *user);
    void (*on_log)(rtpush_hub *hub, const char *line, void *user); // what went wrong, one line, no secrets

    bool publish_off;    // clients may not publish or delete (unless on_allow says so)
    const char *origin;  // allowed origins, comma separated, exact; "*" all; NULL: the same host
    bool expose_off;     // no /healthz, /metrics, /stats
    bool script_off;     // no /rtpush.js

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
    // 1: how many loops share the work, at most 64, each in a thread of its own but the first, which is rtpush_run's.
    // Each has its own hub: a callback gets that of the session it is about, and runs in its thread; `user`, sys, backend
    // and alloc must bear that. Sessions, timers and clients are of one loop (rtpush_post_session); publishing, drain,
    // stop, kick and figures are of all. rtpush_each and rtpush_info see their own loop's.
    int64_t threads;
    const char *backend_name;       // "epoll", "kqueue", "poll"; NULL: the best
    const rtpush_backend *backend;  // the host's own; it outlives the hub
    const rtpush_sys *sys;          // the host's own system calls
    const rtpush_bus *bus;          // the log elsewhere
    const struct rtpush_rule *rules; // how topics are kept, from the first message of a bus on; a NULL pattern ends them
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
// Takes a listening descriptor (the second: its connections speak TLS), or a connected one, that the host opened; it is
// closed with the hub.
RTPUSH_DEF int rtpush_adopt_listener(rtpush_hub *hub, int fd);
RTPUSH_DEF int rtpush_adopt_tls_listener(rtpush_hub *hub, int fd);
RTPUSH_DEF int rtpush_adopt(rtpush_hub *hub, int fd);
// A certificate for "https://…" listeners; more than one: the first that is valid for the name a client asks for (SNI,
// RFC 6066 §3), else the first of all. TLS 1.2 and 1.3. All are PEM files. RTPUSH_E_TLS: rtpush_last_error has OpenSSL's
// reason, or there is no OpenSSL (compile with RTPUSH_OPENSSL).
typedef struct rtpush_tls_desc {
    const char *cert;      // the chain, our own first
    const char *key;       // NULL: in the same file
    const char *client_ca; // who may have signed a client's certificate; NULL: none is asked for
    bool client_optional;  // a client without one is let in too
} rtpush_tls_desc;
RTPUSH_DEF int rtpush_tls(rtpush_hub *hub, const rtpush_tls_desc *desc);
// Reads all the files again; who is connected keeps what he has. On error nothing has changed.
RTPUSH_DEF int rtpush_tls_reload(rtpush_hub *hub);
// One turn: waits at most timeout_ms (-1: until something happens), handles what is ready, runs due timers,
// sends what readers are behind on. 0, or RTPUSH_E_STATE once the hub has stopped or drained.
RTPUSH_DEF int rtpush_step(rtpush_hub *hub, int timeout_ms);
// Turns until rtpush_stop, or until a drain has ended. 0 or a code. Does not destroy.
RTPUSH_DEF int rtpush_run(rtpush_hub *hub);
// Makes rtpush_run return. Any thread, and signal handlers.
RTPUSH_DEF void rtpush_stop(rtpush_hub *hub);
// For a host's own loop: poll this for reading and call rtpush_step(hub, 0) when it is ready or when
// rtpush_timeout has passed. -1: the back-end has none (poll); call rtpush_step every few ms, for nothing tells you
// that a socket is ready.
RTPUSH_DEF int rtpush_fd(rtpush_hub *hub);
// Milliseconds until rtpush_step has something to do by itself; 0 now, -1 never.
RTPUSH_DEF int rtpush_timeout(rtpush_hub *hub);
// A deploy: the listeners close; for 200 ms more what is on its way is taken; then clients publish no more (503), parked
// polls are answered, each other reader is closed at its own moment within spread_ms and told its own delay; at
// deadline_ms (-1 none) what is left is cut. 0 is 3,000 and 10,000.
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
// Runs fn(hub, arg) on the hub's thread in its next turn, or at last in rtpush_destroy. Any thread. RTPUSH_E_STATE:
// the hub is being destroyed, and fn will not run.
RTPUSH_DEF int rtpush_post(rtpush_hub *hub, void (*fn)(rtpush_hub *hub, void *arg), void *arg);
// The same, in the loop that this session is of (desc.threads): there rtpush_send and the like may be called for it.
RTPUSH_DEF int rtpush_post_session(rtpush_hub *hub, rtpush_session session, void (*fn)(rtpush_hub *hub, void *arg), void *arg);
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
    int durable;           // with Redis: 1 it has a stream of its own, -1 not; 0: @user/NAME alone has
} rtpush_topic_desc;

// One of desc.rules: what rtpush_configure would say.
typedef struct rtpush_rule {
    const char *pattern;
    rtpush_topic_desc desc;
} rtpush_rule;

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
// Closes all sessions of an identity. Returns how many; those of other loops (desc.threads) follow, and are not counted.
RTPUSH_DEF size_t rtpush_kick(rtpush_hub *hub, const char *identity, int code, const char *reason);
// Calls each for every session until it returns false. Returns how many. Closing inside is allowed.
RTPUSH_DEF size_t rtpush_each(rtpush_hub *hub, bool (*each)(rtpush_hub *hub, rtpush_session session, void *user), void *user);

// --- HTTP inside on_request ---

RTPUSH_DEF rtpush_slice rtpush_method(const rtpush_request *request);
// The path, percent-decoded, without the query.
RTPUSH_DEF rtpush_slice rtpush_path(const rtpush_request *request);
RTPUSH_DEF rtpush_slice rtpush_body(const rtpush_request *request);
RTPUSH_DEF rtpush_peer rtpush_request_peer(const rtpush_request *request);
// Did it come over TLS?
RTPUSH_DEF bool rtpush_is_secure(const rtpush_request *request);
// The common name of the client's certificate, verified, into buf (NUL-terminated). -1: none, or it does not fit.
RTPUSH_DEF ptrdiff_t rtpush_certificate(const rtpush_request *request, char *buf, size_t cap);
// The first header of that name (any case), its value; .data is NULL where there is none.
RTPUSH_DEF rtpush_slice rtpush_header(const rtpush_request *request, const char *name);
// A query parameter, decoded into buf (NUL-terminated). Its length; -1: there is none; -2: it does not fit or decode.
RTPUSH_DEF ptrdiff_t rtpush_query(const rtpush_request *request, const char *name, char *buf, size_t cap);
// All of the query as sent, without its `?`; empty if there is none.
RTPUSH_DEF rtpush_slice rtpush_query_text(const rtpush_request *request);
// A cookie's value as sent (RFC 6265 §5.4). .data is NULL where there is none.
RTPUSH_DEF rtpush_slice rtpush_cookie(const rtpush_request *request, const char *name);
// The whole answer. headers: "Name: value\r\n…" or NULL; Content-Length and Connection are ours.
RTPUSH_DEF int rtpush_reply(rtpush_request *request, int status, const char *headers, const void *body, size_t size);
// An answer in pieces, also after on_request has returned: chunked for HTTP/1.1, until the end for 1.0.
// 0 on error. Pieces over desc.ring_max wait: rtpush_stream_write then says RTPUSH_E_FULL and takes nothing.
RTPUSH_DEF rtpush_stream rtpush_reply_begin(rtpush_request *request, int status, const char *headers);
RTPUSH_DEF int rtpush_stream_write(rtpush_hub *hub, rtpush_stream stream, const void *data, size_t size);
RTPUSH_DEF int rtpush_stream_end(rtpush_hub *hub, rtpush_stream stream);
// A regular file below the folder root; `path` relative to it; no name in it that begins with a dot and no link is
// followed. 404 where there is none. type: the Content-Type, NULL guesses by the name's end.
RTPUSH_DEF int rtpush_reply_file(rtpush_request *request, const char *root, const char *path, const char *type);

// An upgrade request (RFC 6455 §4.2.1) outside the mount becomes a raw WebSocket without topics: its frames come to
// on_message with topic "", and rtpush_send answers. 0: the session is in *session. RTPUSH_E_TRANSPORT: it asks for no
// upgrade, answer it otherwise. Another code: it is refused and answered (§4.2.2, its origin, no room).
RTPUSH_DEF int rtpush_accept_websocket(rtpush_request *request, rtpush_session *session);

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
    X(polls_empty, "counter", "polls answered without a message")                          \
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

#ifndef RTPUSH_NO_CLIENT
// --- the client: reads, and publishes to, a server elsewhere (not with RTPUSH_NO_CLIENT) ---

// One reader of a server, over whatever transport works, that comes back by itself and goes on where it was. It lives
// on a hub's loop; a hub without desc.listen is a loop alone. 0 is none, a stale one is a no-op.
typedef uint64_t rtpush_client;

enum rtpush_client_state {
    RTPUSH_CLIENT_CONNECTING, // a transport is being tried
    RTPUSH_CLIENT_OPEN,       // what is published reaches it
    RTPUSH_CLIENT_WAITING,    // will try again after delay_ms
    RTPUSH_CLIENT_CLOSED      // for good: the handle is stale when on_state has returned
};

typedef struct rtpush_client_status {
    int state;          // rtpush_client_state
    int transport;      // rtpush_transport: tried, open, or the last one
    int code;           // why it is not open: RTPUSH_OK is a clean end (or none yet), else what went wrong. Of OPEN: why a
                        // late subscription was refused; `reason` is its topic, which is wanted no more
    int status;         // the HTTP status or WebSocket close code that said so; 0: none did
    int64_t delay_ms;   // of WAITING
    const char *reason; // a sentence for people, "" if none; the library's, until the callback returns
} rtpush_client_status;

// What a server is taken for.
enum rtpush_client_kind {
    RTPUSH_SERVER_RTPUSH,    // rtpush: topics, cursors, all transports
    RTPUSH_SERVER_WEBSOCKET, // any WebSocket: frames in and out
    RTPUSH_SERVER_EVENTS     // any event stream (SSE)
};

// Zero in a number is the default. Strings are copied.
typedef struct rtpush_client_desc {
    // "http://HOST[:PORT]/live/TOPIC", https, ws, wss, or "unix:SOCKET:/live/TOPIC". With or without a topic behind the
    // mount; the query is kept. ws and wss try WebSocket alone unless `transports` says otherwise.
    const char *url;
    const char *mount;      // "/live": what of the path is not the topic
    int kind;               // rtpush_client_kind
    const char *transports; // in the order of trying: "websocket,sse,longpoll,shortpoll"
    const char *since;      // where to start, as ?since=; NULL: the transport's own default, see PROTOCOL §2
    const char *headers;    // "Name: value\r\n…" with every request
    const char *token;      // sent as Authorization: Bearer
    const char *protocol;   // of a foreign WebSocket: the subprotocols offered, comma separated
    const char *proxy;      // "http://HOST:PORT": reached by CONNECT (RFC 9110 §9.3.6)
    const char *ca;         // https: a PEM file of the authorities to trust instead of the system's
    const char *cert, *key; // https: PEM files that show who we are
    bool insecure;          // https: whoever answers is believed
    bool once;              // does not come back: CLOSED when its connection has ended
    int redirects;          // how many are followed; 0: a redirect is a refusal

    int64_t connect_timeout_ms; // 10,000 from the name to the answer's head
    int64_t backoff_ms;         // 500: waits a random time up to this, doubled with each failure,
    int64_t backoff_max_ms;     // 30,000 at most,
    int64_t stable_ms;          // and begins anew after 10,000 of being open
    int64_t remember_ms;        // 300,000: so long is a transport passed over when a later one worked
    int64_t wait_ms;            // 25,000: how long a poll is held
    int64_t interval_ms;        // 3,000 between two short polls
    int64_t silence_ms;         // 40,000 without a byte of an open stream: lost (a hello's heartbeat, doubled, decides if told)
    int64_t message_max;        // 1 MiB; a server that sends a larger one has broken the protocol
    int64_t queue_max;          // 4 MiB of publishes that wait; RTPUSH_E_FULL
    int64_t publish_ms;         // 100,000: so long is a publish tried again before RTPUSH_E_UNAVAILABLE

    void *user;
    // A message, once and in order. id: the cursor just behind it, or what a foreign stream gave, or "". All until return.
    void (*on_message)(rtpush_hub *hub, rtpush_client client, const rtpush_message *m, const char *id, void *user);
    // Messages after `from` up to `to` are lost (PROTOCOL §2). reason: "evicted" or "epoch". Told before what follows.
    void (*on_gap)(rtpush_hub *hub, rtpush_client client, const char *from, const char *to, const char *reason, void *user);
    void (*on_state)(rtpush_hub *hub, rtpush_client client, const rtpush_client_status *status, void *user);
    // Asked before each connection, and again after a 401 or 4001. NULL: without. Copied.
    const char *(*on_token)(rtpush_hub *hub, rtpush_client client, void *user);
} rtpush_client_desc;

// Starts one; it connects in the hub's next turn. 0: rtpush_last_error says why (a bad URL, header or list, no memory).
RTPUSH_DEF rtpush_client rtpush_connect(rtpush_hub *hub, const rtpush_client_desc *desc);
// One topic or pattern more. since: as ?since=, NULL: from now. What it brings of the past moves no cursor.
RTPUSH_DEF int rtpush_client_subscribe(rtpush_hub *hub, rtpush_client client, const char *topic, const char *since);
RTPUSH_DEF int rtpush_client_unsubscribe(rtpush_hub *hub, rtpush_client client, const char *topic);
// Publishes; topic NULL: the URL's. Tried again over reconnects under one idempotency key (made if there is none), so
// that it is published once. 0: `done` will be called, with seq or a code, never inside this call. RTPUSH_E_FULL.
RTPUSH_DEF int rtpush_client_publish(rtpush_hub *hub, rtpush_client client, const rtpush_publication *what);
// A frame to a foreign WebSocket that is open. kind TEXT or BINARY. RTPUSH_E_STATE, RTPUSH_E_FULL: nothing was sent.
RTPUSH_DEF int rtpush_client_send(rtpush_hub *hub, rtpush_client client, const void *data, size_t size, int kind);
// Ends it: a WebSocket by this code and reason. on_state(CLOSED) runs, and `done` of what was not published.
RTPUSH_DEF int rtpush_client_close(rtpush_hub *hub, rtpush_client client, int code, const char *reason);
// Its cursor, "" before it has one, into buf of at least 32 bytes. Returns buf.
RTPUSH_DEF const char *rtpush_client_cursor(rtpush_hub *hub, rtpush_client client, char *buf);
// How many topics and patterns it reads.
RTPUSH_DEF size_t rtpush_client_topics(rtpush_hub *hub, rtpush_client client);
// How many publishes have no answer yet.
RTPUSH_DEF size_t rtpush_client_pending(rtpush_hub *hub, rtpush_client client);
#endif // RTPUSH_NO_CLIENT

// --- parsers: bytes in, verdict out; no I/O, no memory, any thread (RTPUSH_PARSERS_ONLY has only these) ---

#define RTPUSH_HEADERS_MAX 64

typedef struct rtpush_head {
    rtpush_slice method, target, path, query; // path and query as sent; of an absolute form behind the authority, "/" if empty
    rtpush_slice host;
    int minor;              // HTTP/1.minor
    int status;             // of an answer
    bool keep_alive;        // the connection may serve another request
    bool is_chunked, has_length;
    bool expects_continue;  // Expect: 100-continue
    bool wants_websocket;   // Connection: upgrade and Upgrade: websocket; of an answer: and it is a 101
    uint64_t length;        // Content-Length
    size_t count;
    struct { rtpush_slice name, value; } headers[RTPUSH_HEADERS_MAX];
} rtpush_head;

// A request's head (RFC 9112 §2 to §7), strictly. > 0: so many bytes are the head; 0: it is not complete; < 0:
// refused, the negated status (400, 414, 417, 431, 501, 505). line_max, head_max and headers_max of 0 are the
// defaults of desc. Slices point into data.
RTPUSH_DEF ptrdiff_t rtpush_parse_head(rtpush_head *head, const char *data, size_t size, size_t line_max, size_t head_max,
                                       size_t headers_max);

// An answer's head (RFC 9112 §4 to §7), as strictly; method, target, path, query and host mean nothing in it. < 0:
// refused: -400 malformed, -431 over a limit, -501 a transfer coding other than chunked.
RTPUSH_DEF ptrdiff_t rtpush_parse_answer(rtpush_head *head, const char *data, size_t size, size_t head_max, size_t headers_max);

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

// ============================================================================
// >>base  the compiler, the platform, the few words everything is written in
//
// Rooms below stand inside `#ifdef RP_OPEN` (parsers too) or `#ifdef RP_SERVER`
// (all but them); both are closed again at the end of the file, so that a second
// include adds nothing. Platform #ifs live here, in `loop` and in `socket`.
// ============================================================================
#if defined(RTPUSH_IMPLEMENTATION) && !defined(RTPUSH_IMPLEMENTED)
#define RTPUSH_IMPLEMENTED
#define RP_OPEN
#ifndef RTPUSH_PARSERS_ONLY
#define RP_SERVER
#ifndef RTPUSH_NO_CLIENT
#define RP_CLIENT
#endif
#ifndef RTPUSH_NO_REDIS
#define RP_REDIS
#endif
#if defined(RP_CLIENT) || defined(RP_REDIS)
#define RP_DIAL
#endif
#ifndef RTPUSH_NO_THREADS
#define RP_CREW
#endif
#if defined(RP_CREW) || defined(RP_REDIS)
#define RP_SHARED
#endif
#endif

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef RP_SERVER
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#ifndef RTPUSH_NO_THREADS
#include <pthread.h>
#include <signal.h>
#endif
#ifdef RTPUSH_OPENSSL
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#endif
#if defined(__linux__)
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#define RP_HAS_EPOLL
#elif defined(__APPLE__) || defined(__FreeBSD__) || defined(__NetBSD__) || defined(__OpenBSD__) || defined(__DragonFly__)
#include <sys/event.h>
#define RP_HAS_KQUEUE
#endif
#endif // RP_SERVER

#ifndef RTPUSH_REALLOC
#define RTPUSH_REALLOC(old, size) realloc(old, size)
#define RTPUSH_FREE(old) free(old)
#endif

// What is never true unless rtpush is wrong; in debug builds (RTPUSH_DEBUG) the host's assert sees it.
#ifndef RTPUSH_ASSERT
#ifdef RTPUSH_DEBUG
#include <assert.h>
#define RTPUSH_ASSERT(x) assert(x)
#else
#define RTPUSH_ASSERT(x) ((void)0)
#endif
#endif

// A place where tests break a rule on purpose, to see that the model notices (tests/model.c). Nothing in a user's build.
#ifndef RTPUSH_BREAK
#define RTPUSH_BREAK(rule) 0
#endif

#if defined(__GNUC__) || defined(__clang__)
#define RP_ATOMIC_READ(at) __atomic_load_n(at, __ATOMIC_ACQUIRE)
#define RP_ATOMIC_WRITE(at, value) __atomic_store_n(at, value, __ATOMIC_RELEASE)
#define RP_ATOMIC_ADD(at, value) __atomic_add_fetch(at, value, __ATOMIC_ACQ_REL)
#else
#define RP_ATOMIC_READ(at) (*(at))
#define RP_ATOMIC_WRITE(at, value) (*(at) = (value))
#define RP_ATOMIC_ADD(at, value) (*(at) += (value))
#endif

#define RP_MIN(a, b) ((a) < (b) ? (a) : (b))
#define RP_MAX(a, b) ((a) > (b) ? (a) : (b))
#define RP_COUNT(array) (sizeof(array) / sizeof(array)[0])
// The struct that has `member` at this address.
#define RP_OWNER(type, member, address) ((type *)(void *)((char *)(address) - offsetof(type, member)))

static rtpush_slice rp_slice(const void *data, size_t size) {
    rtpush_slice s;
    s.data = (const char *)data;
    s.size = size;
    return s;
}

static rtpush_slice rp_slice_of(const char *text) { return rp_slice(text, text ? strlen(text) : 0); }

static char rp_lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }

// Is `s` this word, in any case of ASCII letters?
static bool rp_slice_is(rtpush_slice s, const char *word) {
    size_t i = 0;
    while (i < s.size && word[i] && rp_lower(s.data[i]) == rp_lower(word[i])) i++;
    return i == s.size && !word[i];
}

static bool rp_slice_equals(rtpush_slice s, const char *text) { return s.size == strlen(text) && !memcmp(s.data, text, s.size); }

static rtpush_slice rp_slice_trim(rtpush_slice s) {
    while (s.size && (s.data[0] == ' ' || s.data[0] == '\t')) s.data++, s.size--;
    while (s.size && (s.data[s.size - 1] == ' ' || s.data[s.size - 1] == '\t')) s.size--;
    return s;
}

// Takes what is before the next `mark` (all, if there is none) off the front of *rest. false: nothing is left.
static bool rp_slice_next(rtpush_slice *rest, char mark, rtpush_slice *part) {
    if (!rest->data) return false;
    const char *end = rest->size ? (const char *)memchr(rest->data, mark, rest->size) : NULL;
    *part = rp_slice(rest->data, end ? (size_t)(end - rest->data) : rest->size);
    if (end) *rest = rp_slice(end + 1, rest->size - part->size - 1);
    else *rest = rp_slice(NULL, 0);
    return true;
}

// Decimal digits alone; false: none, another character, or over 64 bits.
static bool rp_slice_number(rtpush_slice s, uint64_t *number) {
    uint64_t n = 0;
    if (!s.size || s.size > 20) return false;
    for (size_t i = 0; i < s.size; i++) {
        unsigned digit = (unsigned)(unsigned char)s.data[i] - '0';
        if (digit > 9 || n > (UINT64_MAX - digit) / 10) return false;
        n = n * 10 + digit;
    }
    *number = n;
    return true;
}

static int rp_hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c = rp_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

#ifdef RP_SERVER
// Writes n in decimal, returns how many digits; buf of at least 20.
static size_t rp_format_number(char *buf, uint64_t n) {
    char digits[20];
    size_t count = 0;
    do digits[count++] = (char)('0' + n % 10);
    while (n /= 10);
    for (size_t i = 0; i < count; i++) buf[i] = digits[count - 1 - i];
    return count;
}
#endif

static const char *const rp_code_texts[] = {
#define RP_CODE_TEXT(name, text) text,
    RTPUSH_CODES(RP_CODE_TEXT)
#undef RP_CODE_TEXT
};

RTPUSH_DEF const char *rtpush_strerror(int code) {
    return code >= 0 && code < RTPUSH_CODE_COUNT ? rp_code_texts[code] : "unknown code";
}
#endif // RTPUSH_IMPLEMENTATION

// ============================================================================
// >>memory  one allocator for all, and slabs  (uses: base)
//
// Every allocation can fail and every caller goes on. A slab hands out slots that
// never move, by chunks, and names them by index and generation: a handle that
// outlived its slot finds nothing.
// ============================================================================
#ifdef RP_SERVER
typedef struct rp_mem {
    rtpush_alloc alloc;
    void *user;
    uint64_t failed;
} rp_mem;

static void *rp_mem_default(void *old, size_t size, void *user) {
    (void)user;
    if (size) return RTPUSH_REALLOC(old, size);
    RTPUSH_FREE(old);
    return NULL;
}

static void *rp_mem_resize(rp_mem *mem, void *old, size_t size) {
    void *p = mem->alloc(old, size, mem->user);
    if (!p) mem->failed++;
    return p;
}

static void *rp_mem_get(rp_mem *mem, size_t size) {
    void *p = rp_mem_resize(mem, NULL, size);
    if (p) memset(p, 0, size);
    return p;
}

static void rp_mem_free(rp_mem *mem, void *p) {
    if (p) mem->alloc(p, 0, mem->user);
}

static char *rp_mem_text(rp_mem *mem, rtpush_slice s) {
    char *copy = (char *)rp_mem_get(mem, s.size + 1);
    if (copy && s.size) memcpy(copy, s.data, s.size);
    return copy;
}

// Makes room in an array for one element more, doubling. Old content stays on failure.
static bool rp_mem_grow(rp_mem *mem, void **array, uint32_t *cap, uint32_t count, size_t element) {
    if (count < *cap) return true;
    uint32_t wanted = *cap ? *cap * 2 : 4;
    void *p = rp_mem_resize(mem, *array, wanted * element);
    if (!p) return false;
    *array = p;
    *cap = wanted;
    return true;
}

enum { RP_CHUNK = 256 };
static const uint32_t RP_NO_SLOT = UINT32_MAX;

// At the start of whatever lives in a slab. The generation is odd while the slot is taken.
typedef struct rp_slot {
    uint32_t generation, index;
} rp_slot;

typedef struct rp_slab {
    rp_mem *mem;
    size_t size;
    char **chunks;
    uint32_t chunk_count, chunk_cap;
    uint32_t free_first; // index of a free slot, whose .index is the next one's
    uint32_t live;
} rp_slab;

static void rp_slab_init(rp_slab *slab, rp_mem *mem, size_t size) {
    memset(slab, 0, sizeof *slab);
    slab->mem = mem;
    slab->size = size;
    slab->free_first = RP_NO_SLOT;
}

static rp_slot *rp_slab_at(const rp_slab *slab, uint32_t index) {
    return (rp_slot *)(void *)(slab->chunks[index / RP_CHUNK] + (size_t)(index % RP_CHUNK) * slab->size);
}

static uint32_t rp_slab_end(const rp_slab *slab) { return slab->chunk_count * RP_CHUNK; }

static bool rp_slab_grow(rp_slab *slab) {
    if (!rp_mem_grow(slab->mem, (void **)&slab->chunks, &slab->chunk_cap, slab->chunk_count, sizeof *slab->chunks)) return false;
    char *chunk = (char *)rp_mem_get(slab->mem, RP_CHUNK * slab->size);
    if (!chunk) return false;
    slab->chunks[slab->chunk_count++] = chunk;
    for (uint32_t i = RP_CHUNK; i-- > 0;) {
        uint32_t index = (slab->chunk_count - 1) * RP_CHUNK + i;
        rp_slab_at(slab, index)->index = slab->free_first;
        slab->free_first = index;
    }
    return true;
}

// A zeroed slot with its .index and a new generation, or NULL.
static void *rp_slab_take(rp_slab *slab) {
    if (slab->free_first == RP_NO_SLOT && !rp_slab_grow(slab)) return NULL;
    uint32_t index = slab->free_first;
    rp_slot *slot = rp_slab_at(slab, index);
    uint32_t generation = slot->generation + 1;
    slab->free_first = slot->index;
    memset(slot, 0, slab->size);
    slot->generation = generation;
    slot->index = index;
    slab->live++;
    return slot;
}

static void rp_slab_give(rp_slab *slab, rp_slot *slot) {
    uint32_t index = slot->index;
    slot->generation++;
    slot->index = slab->free_first;
    slab->free_first = index;
    slab->live--;
}

static uint64_t rp_slab_handle(const rp_slot *slot) { return (uint64_t)slot->generation << 32 | slot->index; }

static void *rp_slab_find(const rp_slab *slab, uint64_t handle) {
    uint32_t index = (uint32_t)handle, generation = (uint32_t)(handle >> 32);
    if (!(generation & 1) || index >= rp_slab_end(slab)) return NULL;
    rp_slot *slot = rp_slab_at(slab, index);
    return slot->generation == generation ? slot : NULL;
}

static void rp_slab_free(rp_slab *slab) {
    for (uint32_t i = 0; i < slab->chunk_count; i++) rp_mem_free(slab->mem, slab->chunks[i]);
    rp_mem_free(slab->mem, slab->chunks);
}
#endif // RP_SERVER

// ============================================================================
// >>bytes  a buffer that grows, is read from the front and written at the back  (uses: memory)
//
// A connection's own bytes, an incomplete input, a text being made. A write that
// finds no memory marks the buffer as broken and drops what it was to write; whoever
// made the text looks once, at the end.
// ============================================================================
#ifdef RP_SERVER
typedef struct rp_buf {
    char *data;
    size_t start, end, cap; // what is in it: data[start..end)
    bool is_broken;         // a write was lost
} rp_buf;

static size_t rp_buf_size(const rp_buf *buf) { return buf->end - buf->start; }
static rtpush_slice rp_buf_slice(const rp_buf *buf) { return rp_slice(buf->data ? buf->data + buf->start : NULL, rp_buf_size(buf)); }

static void rp_buf_free(rp_mem *mem, rp_buf *buf) {
    rp_mem_free(mem, buf->data);
    memset(buf, 0, sizeof *buf);
}

static void rp_buf_rewind(rp_buf *buf) {
    buf->start = buf->end = 0;
    buf->is_broken = false;
}

// Room for `size` bytes at the end: where to write them (then add to .end), or NULL.
static char *rp_buf_room(rp_mem *mem, rp_buf *buf, size_t size) {
    if (buf->data && size <= buf->cap - buf->end) return buf->data + buf->end;
    if (buf->start && size <= buf->cap - rp_buf_size(buf) && buf->start >= rp_buf_size(buf)) {
        memmove(buf->data, buf->data + buf->start, rp_buf_size(buf));
    } else {
        size_t cap = RP_MAX(buf->cap, (size_t)256), need = rp_buf_size(buf) + size;
        if (need < size) { buf->is_broken = true; return NULL; }
        while (cap < need) cap = cap > SIZE_MAX / 2 ? need : cap * 2;
        char *data = (char *)rp_mem_resize(mem, NULL, cap);
        if (!data) { buf->is_broken = true; return NULL; }
        if (buf->data) memcpy(data, buf->data + buf->start, rp_buf_size(buf));
        rp_mem_free(mem, buf->data);
        buf->data = data;
        buf->cap = cap;
    }
    buf->end -= buf->start;
    buf->start = 0;
    return buf->data + buf->end;
}

static bool rp_buf_put(rp_mem *mem, rp_buf *buf, const void *data, size_t size) {
    char *room = size ? rp_buf_room(mem, buf, size) : NULL;
    if (!room) return !size;
    memcpy(room, data, size);
    buf->end += size;
    return true;
}

static void rp_buf_slice_put(rp_mem *mem, rp_buf *buf, rtpush_slice s) { rp_buf_put(mem, buf, s.data, s.size); }
static void rp_buf_text(rp_mem *mem, rp_buf *buf, const char *text) { rp_buf_put(mem, buf, text, strlen(text)); }

static void rp_buf_number(rp_mem *mem, rp_buf *buf, uint64_t n) {
    char digits[20];
    rp_buf_put(mem, buf, digits, rp_format_number(digits, n));
}
#endif // RP_SERVER

// ============================================================================
// >>codec  UTF-8, masking, base64, SHA-1, keyed hash  (uses: base)
//
// Pure functions on bytes. The fast paths read eight bytes at a time by memcpy, so
// alignment and byte order do not matter.
// ============================================================================
#ifdef RP_OPEN
static uint64_t rp_load64(const void *p) {
    uint64_t word;
    memcpy(&word, p, 8);
    return word;
}

// The state between two bytes of a character: how many follow, and the range of the next one (RFC 3629 §4: the
// first continuation byte has a narrower range behind E0, ED, F0 and F4). 0 between characters.
static uint32_t rp_utf8_lead(unsigned char byte) {
    uint32_t need, low = 0x80, high = 0xbf;
    if (byte >= 0xc2 && byte <= 0xdf) need = 1;
    else if (byte >= 0xe0 && byte <= 0xef) need = 2;
    else if (byte >= 0xf0 && byte <= 0xf4) need = 3;
    else return RTPUSH_UTF8_BAD;
    if (byte == 0xe0) low = 0xa0; // no overlong forms
    if (byte == 0xed) high = 0x9f; // no surrogates
    if (byte == 0xf0) low = 0x90;
    if (byte == 0xf4) high = 0x8f; // nothing above U+10FFFF
    return need | low << 8 | high << 16;
}

static uint32_t rp_utf8_next(uint32_t state, unsigned char byte) {
    if (!state) return byte < 0x80 ? 0 : rp_utf8_lead(byte);
    if (byte < (state >> 8 & 0xff) || byte > (state >> 16 & 0xff)) return RTPUSH_UTF8_BAD;
    uint32_t need = (state & 0xff) - 1;
    return need ? need | 0x80u << 8 | 0xbfu << 16 : 0;
}

RTPUSH_DEF uint32_t rtpush_utf8(uint32_t state, const void *data, size_t size) {
    const unsigned char *p = (const unsigned char *)data, *end = size ? p + size : p;
    while (p < end && state != RTPUSH_UTF8_BAD) {
        if (!state && end - p >= 8 && !(rp_load64(p) & UINT64_C(0x8080808080808080))) p += 8;
        else state = rp_utf8_next(state, *p++);
    }
    return state;
}

// RFC 6455 §5.3: octet i is XORed with key octet i MOD 4.
RTPUSH_DEF uint64_t rtpush_mask(unsigned char *data, size_t size, const unsigned char key[4], uint64_t at) {
    unsigned char turned[8];
    for (unsigned i = 0; i < 8; i++) turned[i] = key[(at + i) & 3];
    uint64_t mask = rp_load64(turned), word;
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        word = rp_load64(data + i) ^ mask;
        memcpy(data + i, &word, 8);
    }
    for (; i < size; i++) data[i] ^= turned[i & 7];
    return at + size;
}
#endif // RP_OPEN

#ifdef RP_SERVER
static const char rp_base64_letters[65] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static size_t rp_base64_size(size_t size) { return (size + 2) / 3 * 4; }

static void rp_base64_write(char *out, const void *data, size_t size) {
    const unsigned char *p = (const unsigned char *)data;
    for (; size >= 3; size -= 3, p += 3, out += 4) {
        uint32_t bits = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
        for (unsigned i = 0; i < 4; i++) out[i] = rp_base64_letters[bits >> (18 - 6 * i) & 63];
    }
    if (!size) return;
    uint32_t bits = (uint32_t)p[0] << 16 | (size == 2 ? (uint32_t)p[1] << 8 : 0);
    out[0] = rp_base64_letters[bits >> 18];
    out[1] = rp_base64_letters[bits >> 12 & 63];
    out[2] = size == 2 ? rp_base64_letters[bits >> 6 & 63] : '=';
    out[3] = '=';
}

static int rp_base64_digit(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

// RFC 4648 §4, with its padding and nothing else. Returns the size, -1: not base64. May decode in place.
static ptrdiff_t rp_base64_read(char *out, const char *text, size_t size) {
    size_t pad = 0, n = 0;
    uint32_t bits = 0;
    if (size % 4) return -1;
    while (pad < 2 && pad < size && text[size - 1 - pad] == '=') pad++;
    for (size_t i = 0; i < size - pad; i++) {
        int digit = rp_base64_digit(text[i]);
        if (digit < 0) return -1;
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4) out[n++] = (char)(bits >> (6 - 2 * (i % 4)) & 255);
    }
    if (pad && (bits & (pad == 2 ? 15u : 3u))) return -1; // RFC 4648 §3.5: pad bits must be zero
    return (ptrdiff_t)n;
}

static uint32_t rp_rotate32(uint32_t x, unsigned n) { return x << n | x >> (32 - n); }

static void rp_sha1_block(uint32_t h[5], const unsigned char *p) {
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (unsigned i = 0; i < 16; i++, p += 4) w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    for (unsigned i = 16; i < 80; i++) w[i] = rp_rotate32(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (unsigned i = 0; i < 80; i++) {
        uint32_t f, k;
        if (i < 20) f = (b & c) | (~b & d), k = 0x5a827999;
        else if (i < 40) f = b ^ c ^ d, k = 0x6ed9eba1;
        else if (i < 60) f = (b & c) | (b & d) | (c & d), k = 0x8f1bbcdc;
        else f = b ^ c ^ d, k = 0xca62c1d6;
        uint32_t t = rp_rotate32(a, 5) + f + e + k + w[i];
        e = d, d = c, c = rp_rotate32(b, 30), b = a, a = t;
    }
    h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
}

// SHA-1 (RFC 3174) of a text of at most 119 bytes, all that the WebSocket handshake needs.
static void rp_sha1(unsigned char digest[20], const void *data, size_t size) {
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    unsigned char block[128];
    size_t total = size > 55 ? 128 : 64;
    memset(block, 0, sizeof block);
    memcpy(block, data, size);
    block[size] = 0x80;
    for (unsigned i = 0; i < 8; i++) block[total - 1 - i] = (unsigned char)((uint64_t)size * 8 >> (8 * i));
    for (size_t at = 0; at < total; at += 64) rp_sha1_block(h, block + at);
    for (unsigned i = 0; i < 20; i++) digest[i] = (unsigned char)(h[i / 4] >> (24 - 8 * (i % 4)));
}

// SipHash-1-3: names come from strangers, so the tables' hash has a secret key.
typedef struct rp_hash_key {
    uint64_t k0, k1;
} rp_hash_key;

static uint64_t rp_rotate64(uint64_t x, unsigned n) { return x << n | x >> (64 - n); }

static void rp_hash_round(uint64_t v[4]) {
    v[0] += v[1], v[1] = rp_rotate64(v[1], 13) ^ v[0], v[0] = rp_rotate64(v[0], 32);
    v[2] += v[3], v[3] = rp_rotate64(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = rp_rotate64(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = rp_rotate64(v[1], 17) ^ v[2], v[2] = rp_rotate64(v[2], 32);
}

static uint64_t rp_hash(const rp_hash_key *key, const void *data, size_t size) {
    uint64_t v[4] = {key->k0 ^ UINT64_C(0x736f6d6570736575), key->k1 ^ UINT64_C(0x646f72616e646f6d),
                     key->k0 ^ UINT64_C(0x6c7967656e657261), key->k1 ^ UINT64_C(0x7465646279746573)};
    const char *p = (const char *)data;
    uint64_t word;
    for (size_t left = size; left >= 8; left -= 8, p += 8) {
        word = rp_load64(p);
        v[3] ^= word;
        rp_hash_round(v);
        v[0] ^= word;
    }
    word = (uint64_t)size << 56;
    for (size_t i = 0; i < size % 8; i++) word |= (uint64_t)(unsigned char)p[i] << (8 * i);
    v[3] ^= word;
    rp_hash_round(v);
    v[0] ^= word;
    v[2] ^= 0xff;
    for (unsigned i = 0; i < 3; i++) rp_hash_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
#endif // RP_SERVER

// ============================================================================
// >>time  a hierarchical timer wheel  (uses: base)
//
// Millisecond ticks, six levels of 64 slots. A timer lies at the level of the highest
// bit in which its time differs from now, so that every slot of a level is ahead of the
// clock; when the clock reaches a slot of a higher level, its timers move down. Adding
// and removing is O(1), the next time is found by six bit scans.
// ============================================================================
#ifdef RP_SERVER
enum { RP_WHEEL_LEVELS = 6, RP_WHEEL_SLOTS = 64 };

typedef struct rp_timer rp_timer;
struct rp_timer {
    rp_timer *next, *prev; // NULL: not armed
    uint64_t due;
    void (*fire)(rtpush_hub *hub, rp_timer *timer);
};

typedef struct rp_wheel {
    uint64_t now;
    uint64_t busy[RP_WHEEL_LEVELS];
    rp_timer slots[RP_WHEEL_LEVELS][RP_WHEEL_SLOTS]; // list heads
} rp_wheel;

static unsigned rp_bit_low(uint64_t x) {
#if defined(__GNUC__) || defined(__clang__)
    return (unsigned)__builtin_ctzll(x);
#else
    unsigned n = 0;
    while (!(x & 1)) x >>= 1, n++;
    return n;
#endif
}

static void rp_wheel_init(rp_wheel *wheel, uint64_t now) {
    memset(wheel, 0, sizeof *wheel);
    wheel->now = now;
    for (unsigned i = 0; i < RP_WHEEL_LEVELS * RP_WHEEL_SLOTS; i++) {
        rp_timer *head = &wheel->slots[0][0] + i;
        head->next = head->prev = head;
    }
}

static bool rp_timer_is_armed(const rp_timer *timer) { return timer->next != NULL; }

static unsigned rp_wheel_level(uint64_t now, uint64_t due) {
    unsigned level = 0;
    for (uint64_t differ = (now ^ due) >> 6; differ; differ >>= 6) level++;
    return level;
}

static void rp_timer_stop(rp_wheel *wheel, rp_timer *timer) {
    if (!timer->next) return;
    bool alone = timer->next == timer->prev; // then both are the slot's head
    timer->next->prev = timer->prev;
    timer->prev->next = timer->next;
    if (alone) {
        size_t slot = (size_t)(timer->next - &wheel->slots[0][0]);
        wheel->busy[slot / RP_WHEEL_SLOTS] &= ~(UINT64_C(1) << slot % RP_WHEEL_SLOTS);
    }
    timer->next = timer->prev = NULL;
}

// Fires once, not before `due` and never inside this call. One that is armed is moved.
static void rp_timer_start(rp_wheel *wheel, rp_timer *timer, uint64_t due) {
    rp_timer_stop(wheel, timer);
    timer->due = due = RP_MIN(RP_MAX(due, wheel->now + 1), wheel->now + (UINT64_C(1) << 34));
    unsigned level = rp_wheel_level(wheel->now, due);
    if (level >= RP_WHEEL_LEVELS) level = RP_WHEEL_LEVELS - 1; // the clock's highest bits turn: waits for a slot of the top level
    unsigned slot = (unsigned)(due >> (6 * level)) & (RP_WHEEL_SLOTS - 1);
    rp_timer *head = &wheel->slots[level][slot];
    timer->prev = head->prev;
    timer->next = head;
    head->prev->next = timer;
    head->prev = timer;
    wheel->busy[level] |= UINT64_C(1) << slot;
}

// When the clock next reaches a slot that is not empty; UINT64_MAX: never.
static uint64_t rp_wheel_next(const rp_wheel *wheel) {
    uint64_t best = UINT64_MAX;
    for (unsigned level = 0; level < RP_WHEEL_LEVELS; level++) {
        if (!wheel->busy[level]) continue;
        unsigned shift = 6 * level, at = (unsigned)(wheel->now >> shift) & 63;
        uint64_t ahead = wheel->busy[level] >> at << at; // slots from here on; else the next time round
        uint64_t base = wheel->now >> shift >> 6 << 6;
        uint64_t slot = ahead ? rp_bit_low(ahead) : 64 + rp_bit_low(wheel->busy[level]);
        best = RP_MIN(best, RP_MAX((base + slot) << shift, wheel->now));
    }
    return best;
}

// Moves a slot's timers: those that are due fire, the others go down a level.
static void rp_wheel_empty(rtpush_hub *hub, rp_wheel *wheel, unsigned level) {
    rp_timer *head = &wheel->slots[level][(wheel->now >> (6 * level)) & 63], *timer;
    while ((timer = head->next) != head) {
        rp_timer_stop(wheel, timer);
        if (timer->due > wheel->now) { rp_timer_start(wheel, timer, timer->due); continue; }
        timer->fire(hub, timer);
    }
}

// Advances the clock, firing on the way in the order of their time.
static void rp_wheel_advance(rtpush_hub *hub, rp_wheel *wheel, uint64_t now) {
    uint64_t next;
    while ((next = rp_wheel_next(wheel)) <= now) {
        wheel->now = next;
        for (unsigned level = RP_WHEEL_LEVELS; level-- > 0;) rp_wheel_empty(hub, wheel, level);
    }
    wheel->now = RP_MAX(wheel->now, now);
}
#endif // RP_SERVER

// ============================================================================
// >>table  a hash table of things that carry their own node  (uses: memory)
//
// Chained, so that removing is simple and running out of memory while growing only
// makes the chains longer: adding never fails once the first slots are there.
// ============================================================================
#ifdef RP_SERVER
typedef struct rp_node rp_node;
struct rp_node {
    rp_node *next;
    uint64_t hash;
};

typedef struct rp_table {
    rp_node **slots;
    size_t cap, count; // cap: a power of two
} rp_table;

static bool rp_table_init(rp_mem *mem, rp_table *table) {
    table->cap = 64;
    table->count = 0;
    table->slots = (rp_node **)rp_mem_get(mem, table->cap * sizeof *table->slots);
    return table->slots != NULL;
}

// The first node of this hash at or behind `node`'s place in its chain: find by rp_table_first, go on by this.
static rp_node *rp_table_same(rp_node *node, uint64_t hash) {
    while (node && node->hash != hash) node = node->next;
    return node;
}

static rp_node *rp_table_first(const rp_table *table, uint64_t hash) {
    return rp_table_same(table->slots[hash & (table->cap - 1)], hash);
}

static void rp_table_grow(rp_mem *mem, rp_table *table) {
    size_t cap = table->cap * 2;
    rp_node **slots = (rp_node **)rp_mem_get(mem, cap * sizeof *slots);
    if (!slots) return;
    for (size_t i = 0; i < table->cap; i++) {
        for (rp_node *node = table->slots[i], *next; node; node = next) {
            next = node->next;
            node->next = slots[node->hash & (cap - 1)];
            slots[node->hash & (cap - 1)] = node;
        }
    }
    rp_mem_free(mem, table->slots);
    table->slots = slots;
    table->cap = cap;
}

static void rp_table_add(rp_mem *mem, rp_table *table, rp_node *node, uint64_t hash) {
    if (table->count >= table->cap) rp_table_grow(mem, table);
    node->hash = hash;
    node->next = table->slots[hash & (table->cap - 1)];
    table->slots[hash & (table->cap - 1)] = node;
    table->count++;
}

static void rp_table_remove(rp_table *table, rp_node *node) {
    rp_node **at = &table->slots[node->hash & (table->cap - 1)];
    while (*at != node) at = &(*at)->next;
    *at = node->next;
    table->count--;
}

// Walks all nodes: the first for NULL, then the one behind, NULL at the end. The table must not change meanwhile,
// except that the node given back last may be removed after the next one was asked for.
static rp_node *rp_table_next(const rp_table *table, const rp_node *node) {
    if (node && node->next) return node->next;
    size_t i = node ? (size_t)(node->hash & (table->cap - 1)) + 1 : 0;
    while (i < table->cap && !table->slots[i]) i++;
    return i < table->cap ? table->slots[i] : NULL;
}
#endif // RP_SERVER

// ============================================================================
// >>loop  back-ends of the reactor: epoll, kqueue, poll; and the wake-up  (uses: memory)
//
// A back-end is five functions in a const table. Readiness is level-triggered, an
// event carries the 64-bit tag its descriptor was watched with, so that one for a
// connection that is no more is recognised by its generation.
// ============================================================================
#ifdef RP_SERVER
enum { RP_EVENTS = 256 };

#ifdef RP_HAS_EPOLL
typedef struct rp_epoll {
    int fd;
    struct epoll_event events[RP_EVENTS];
} rp_epoll;

static void *rp_epoll_open(void *user) {
    (void)user;
    rp_epoll *e = (rp_epoll *)calloc(1, sizeof *e);
    if (e && (e->fd = epoll_create1(EPOLL_CLOEXEC)) < 0) { free(e); return NULL; }
    return e;
}

static void rp_epoll_close(void *state) {
    close(((rp_epoll *)state)->fd);
    free(state);
}

static int rp_epoll_watch(void *state, int fd, uint64_t tag, unsigned was, unsigned want) {
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.events = (want & RTPUSH_READ ? (uint32_t)EPOLLIN : 0) | (want & RTPUSH_WRITE ? (uint32_t)EPOLLOUT : 0);
    event.data.u64 = tag;
    int op = !want ? EPOLL_CTL_DEL : was ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    return epoll_ctl(((rp_epoll *)state)->fd, op, fd, &event) ? -errno : 0;
}

static int rp_epoll_wait(void *state, rtpush_event *events, int cap, int timeout_ms) {
    rp_epoll *e = (rp_epoll *)state;
    int n = epoll_wait(e->fd, e->events, RP_MIN(cap, (int)RP_EVENTS), timeout_ms);
    for (int i = 0; i < n; i++) {
        uint32_t bits = e->events[i].events;
        events[i].tag = e->events[i].data.u64;
        events[i].ready = (bits & EPOLLIN ? RTPUSH_READ : 0u) | (bits & EPOLLOUT ? RTPUSH_WRITE : 0u);
        if (bits & (EPOLLERR | EPOLLHUP)) events[i].ready = RTPUSH_READ | RTPUSH_WRITE;
    }
    return n < 0 ? (errno == EINTR ? 0 : -errno) : n;
}

static int rp_epoll_fd(void *state) { return ((rp_epoll *)state)->fd; }

static const rtpush_backend rp_backend_epoll = {"epoll", rp_epoll_open, rp_epoll_close, rp_epoll_watch, rp_epoll_wait, rp_epoll_fd, NULL};
#endif // RP_HAS_EPOLL

#ifdef RP_HAS_KQUEUE
typedef struct rp_kqueue {
    int fd;
    struct kevent events[RP_EVENTS];
} rp_kqueue;

static void *rp_kqueue_open(void *user) {
    (void)user;
    rp_kqueue *k = (rp_kqueue *)calloc(1, sizeof *k);
    if (k && (k->fd = kqueue()) < 0) { free(k); return NULL; }
    if (k) fcntl(k->fd, F_SETFD, FD_CLOEXEC);
    return k;
}

static void rp_kqueue_close(void *state) {
    close(((rp_kqueue *)state)->fd);
    free(state);
}

// The tag travels in udata where that holds 64 bits; the descriptor's two filters are added and removed apart.
static int rp_kqueue_watch(void *state, int fd, uint64_t tag, unsigned was, unsigned want) {
    struct kevent changes[2];
    int n = 0;
    for (unsigned bit = RTPUSH_READ; bit <= RTPUSH_WRITE; bit <<= 1) {
        if ((was & bit) == (want & bit)) continue;
        struct kevent *change = &changes[n++];
        memset(change, 0, sizeof *change);
        change->ident = (uintptr_t)fd;
        change->filter = bit == RTPUSH_READ ? EVFILT_READ : EVFILT_WRITE;
        change->flags = want & bit ? EV_ADD : EV_DELETE;
        memcpy(&change->udata, &tag, RP_MIN(sizeof change->udata, sizeof tag));
    }
    return n && kevent(((rp_kqueue *)state)->fd, changes, n, NULL, 0, NULL) < 0 ? -errno : 0;
}

static int rp_kqueue_wait(void *state, rtpush_event *events, int cap, int timeout_ms) {
    rp_kqueue *k = (rp_kqueue *)state;
    struct timespec limit;
    limit.tv_sec = timeout_ms / 1000;
    limit.tv_nsec = (long)(timeout_ms % 1000) * 1000000;
    int n = kevent(k->fd, NULL, 0, k->events, RP_MIN(cap, (int)RP_EVENTS), timeout_ms < 0 ? NULL : &limit);
    for (int i = 0; i < n; i++) {
        events[i].tag = 0;
        memcpy(&events[i].tag, &k->events[i].udata, RP_MIN(sizeof k->events[i].udata, sizeof events[i].tag));
        events[i].ready = k->events[i].filter == EVFILT_READ ? RTPUSH_READ : RTPUSH_WRITE;
        if (k->events[i].flags & (EV_ERROR | EV_EOF)) events[i].ready = RTPUSH_READ | RTPUSH_WRITE;
    }
    return n < 0 ? (errno == EINTR ? 0 : -errno) : n;
}

static int rp_kqueue_fd(void *state) { return ((rp_kqueue *)state)->fd; }

static const rtpush_backend rp_backend_kqueue = {"kqueue",         rp_kqueue_open, rp_kqueue_close, rp_kqueue_watch,
                                                 rp_kqueue_wait, rp_kqueue_fd,   NULL};
#endif // RP_HAS_KQUEUE

// poll: a dense array of what is watched, and for each descriptor its place in it.
typedef struct rp_poll {
    struct pollfd *fds;
    uint64_t *tags;
    int *places; // by descriptor: place + 1, 0 none
    size_t count, cap, places_cap, turn;
} rp_poll;

static void *rp_poll_open(void *user) {
    (void)user;
    return calloc(1, sizeof(rp_poll));
}

static void rp_poll_close(void *state) {
    rp_poll *p = (rp_poll *)state;
    free(p->fds);
    free(p->tags);
    free(p->places);
    free(p);
}

static int rp_poll_reserve(rp_poll *p, int fd) {
    if ((size_t)fd >= p->places_cap) {
        size_t cap = RP_MAX((size_t)fd + 1, p->places_cap * 2);
        int *places = (int *)realloc(p->places, cap * sizeof *places);
        if (!places) return -ENOMEM;
        memset(places + p->places_cap, 0, (cap - p->places_cap) * sizeof *places);
        p->places = places;
        p->places_cap = cap;
    }
    if (p->count < p->cap) return 0;
    size_t cap = p->cap ? p->cap * 2 : 64;
    struct pollfd *fds = (struct pollfd *)realloc(p->fds, cap * sizeof *fds);
    if (!fds) return -ENOMEM;
    p->fds = fds;
    uint64_t *tags = (uint64_t *)realloc(p->tags, cap * sizeof *tags);
    if (!tags) return -ENOMEM;
    p->tags = tags;
    p->cap = cap;
    return 0;
}

static void rp_poll_remove(rp_poll *p, int fd) {
    size_t place = (size_t)p->places[fd] - 1, last = --p->count;
    p->fds[place] = p->fds[last];
    p->tags[place] = p->tags[last];
    p->places[p->fds[place].fd] = (int)place + 1;
    p->places[fd] = 0;
}

static int rp_poll_watch(void *state, int fd, uint64_t tag, unsigned was, unsigned want) {
    rp_poll *p = (rp_poll *)state;
    if (!want) {
        if ((size_t)fd < p->places_cap && p->places[fd]) rp_poll_remove(p, fd);
        return 0;
    }
    (void)was;
    int failed = rp_poll_reserve(p, fd);
    if (failed) return failed;
    if (!p->places[fd]) p->places[fd] = (int)++p->count;
    size_t place = (size_t)p->places[fd] - 1;
    p->fds[place].fd = fd;
    p->fds[place].events = (short)((want & RTPUSH_READ ? POLLIN : 0) | (want & RTPUSH_WRITE ? POLLOUT : 0));
    p->fds[place].revents = 0;
    p->tags[place] = tag;
    return 0;
}

// Reports from a place that goes round, so that a full `events` starves nobody.
static int rp_poll_wait(void *state, rtpush_event *events, int cap, int timeout_ms) {
    rp_poll *p = (rp_poll *)state;
    int ready = poll(p->fds, (nfds_t)p->count, timeout_ms), n = 0;
    if (ready < 0) return errno == EINTR ? 0 : -errno;
    for (size_t i = 0; i < p->count && n < ready && n < cap; i++) {
        size_t place = (p->turn + i) % p->count;
        int bits = p->fds[place].revents;
        if (!bits) continue;
        events[n].tag = p->tags[place];
        events[n].ready = (bits & POLLIN ? RTPUSH_READ : 0u) | (bits & POLLOUT ? RTPUSH_WRITE : 0u);
        if (bits & (POLLERR | POLLHUP | POLLNVAL)) events[n].ready = RTPUSH_READ | RTPUSH_WRITE;
        if (++n == cap) p->turn = place + 1;
    }
    return n;
}

static int rp_poll_fd(void *state) {
    (void)state;
    return -1;
}

static const rtpush_backend rp_backend_poll = {"poll", rp_poll_open, rp_poll_close, rp_poll_watch, rp_poll_wait, rp_poll_fd, NULL};

static const rtpush_backend *const rp_backends[] = {
#ifdef RP_HAS_EPOLL
    &rp_backend_epoll,
#endif
#ifdef RP_HAS_KQUEUE
    &rp_backend_kqueue,
#endif
    &rp_backend_poll,
};

static const rtpush_backend *rp_backend_find(const char *name) {
    for (size_t i = 0; i < RP_COUNT(rp_backends); i++)
        if (!name || !strcmp(name, rp_backends[i]->name)) return rp_backends[i];
    return NULL;
}

// --- the wake-up: a byte from any thread or signal handler makes `wait` return ---

typedef struct rp_wake {
    int read_fd, write_fd; // one eventfd, or a pipe's two ends
} rp_wake;

static void rp_fd_prepare(int fd) {
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL, 0) | O_NONBLOCK);
}

static int rp_wake_open(rp_wake *wake) {
    wake->read_fd = wake->write_fd = -1;
#ifdef RP_HAS_EPOLL
    wake->read_fd = wake->write_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return wake->read_fd < 0 ? -errno : 0;
#else
    int ends[2];
    if (pipe(ends)) return -errno;
    wake->read_fd = ends[0];
    wake->write_fd = ends[1];
    rp_fd_prepare(ends[0]);
    rp_fd_prepare(ends[1]);
    return 0;
#endif
}

static void rp_wake_close(rp_wake *wake) {
    if (wake->read_fd >= 0) close(wake->read_fd);
    if (wake->write_fd >= 0 && wake->write_fd != wake->read_fd) close(wake->write_fd);
    wake->read_fd = wake->write_fd = -1;
}

static void rp_wake_up(const rp_wake *wake) {
    uint64_t one = 1;
    int kept = errno; // this runs in signal handlers
    ptrdiff_t n = write(wake->write_fd, &one, wake->read_fd == wake->write_fd ? 8 : 1);
    (void)n; // full: then it is awake
    errno = kept;
}

static void rp_wake_clear(const rp_wake *wake) {
    char bytes[64];
    while (read(wake->read_fd, bytes, sizeof bytes) == (ptrdiff_t)sizeof bytes) {}
}
#endif // RP_SERVER

// ============================================================================
// >>socket  the real system calls behind rtpush_sys  (uses: base)
//
// Descriptors are close-on-exec and non-blocking; no call raises a signal. TCP options
// are set on the listener: its connections inherit them, which costs no call each.
// ============================================================================
#ifdef RP_SERVER
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 // then SO_NOSIGPIPE is there
#endif

enum { RP_IOV = 64 };

static void rp_socket_option(int fd, int level, int name, int value) { setsockopt(fd, level, name, &value, sizeof value); }

// A peer that is gone without a word is found in about 90 s when the line is idle, in 30 s when it is not.
static void rp_socket_options(int fd) {
    rp_socket_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    rp_socket_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
#ifdef TCP_KEEPIDLE
    rp_socket_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 60);
    rp_socket_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 10);
    rp_socket_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
#endif
#ifdef TCP_USER_TIMEOUT
    rp_socket_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 30000);
#endif
#ifdef SO_NOSIGPIPE
    rp_socket_option(fd, SOL_SOCKET, SO_NOSIGPIPE, 1);
#endif
}

static int rp_socket_new(int family) {
#ifdef SOCK_CLOEXEC
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
#else
    int fd = socket(family, SOCK_STREAM, 0);
    if (fd >= 0) rp_fd_prepare(fd);
#endif
    return fd < 0 ? -errno : fd;
}

static int rp_socket_bound(int family, const struct sockaddr *address, socklen_t size) {
    int fd = rp_socket_new(family);
    if (fd < 0) return fd;
    if (family != AF_UNIX) {
        rp_socket_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
        rp_socket_options(fd);
    }
    if (!bind(fd, address, size) && !listen(fd, 4096)) return fd;
    int failed = -errno;
    close(fd);
    return failed;
}

// A socket file that nobody answers at any more is in the way; one that somebody answers at is in use.
static bool rp_socket_is_stale(const struct sockaddr *address, socklen_t size) {
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0) return false;
    bool stale = connect(fd, address, size) && errno == ECONNREFUSED;
    close(fd);
    return stale;
}

static int rp_listen_unix(const char *path) {
    struct sockaddr_un address;
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    if (!*path || strlen(path) >= sizeof address.sun_path) return -EINVAL;
    memcpy(address.sun_path, path, strlen(path));
    int fd = rp_socket_bound(AF_UNIX, (const struct sockaddr *)(const void *)&address, sizeof address);
    if (fd != -EADDRINUSE || !rp_socket_is_stale((const struct sockaddr *)(const void *)&address, sizeof address)) return fd;
    unlink(path);
    return rp_socket_bound(AF_UNIX, (const struct sockaddr *)(const void *)&address, sizeof address);
}

// "HOST:PORT", an IPv6 address in brackets. false: not of that form.
static bool rp_socket_split(const char *text, char host[256], char port[8]) {
    const char *colon = strrchr(text, ':'), *end = colon;
    if (!colon || strlen(colon + 1) > 5 || strspn(colon + 1, "0123456789") != strlen(colon + 1) || !colon[1]) return false;
    if (*text == '[') {
        if (colon == text || colon[-1] != ']') return false;
        text++, end--;
    }
    size_t size = (size_t)(end - text);
    if (!size || size > 255) return false;
    memcpy(host, text, size);
    host[size] = 0;
    memcpy(port, colon + 1, strlen(colon + 1) + 1);
    return atoi(port) <= 65535;
}

static int rp_listen_tcp(const char *text) {
    char host[256], port[8];
    struct addrinfo hints, *found = NULL;
    if (!rp_socket_split(text, host, port)) return -EINVAL;
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
    if (getaddrinfo(host, port, &hints, &found) || !found) return -EADDRNOTAVAIL;
    int fd = rp_socket_bound(found->ai_family, found->ai_addr, (socklen_t)found->ai_addrlen);
    freeaddrinfo(found);
    return fd;
}

static int rp_real_listen(void *user, const char *url) {
    (void)user;
    if (!strncmp(url, "unix:", 5)) return rp_listen_unix(url + 5);
    size_t scheme = !strncmp(url, "http://", 7) ? 7 : !strncmp(url, "https://", 8) ? 8 : 0;
    if (!scheme) return -EINVAL;
    size_t size = strcspn(url + scheme, "/");
    char text[300];
    if (size >= sizeof text || (url[scheme + size] && url[scheme + size + 1])) return -EINVAL; // a path says nothing here
    memcpy(text, url + scheme, size);
    text[size] = 0;
    return rp_listen_tcp(text);
}

// IPv4 as ::ffff:a.b.c.d, so that addresses compare as 16 bytes.
static void rp_peer_of(rtpush_peer *peer, const struct sockaddr_storage *from) {
    memset(peer, 0, sizeof *peer);
    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)from;
        peer->addr[10] = peer->addr[11] = 0xff;
        memcpy(peer->addr + 12, &in->sin_addr, 4);
        peer->port = ntohs(in->sin_port);
    } else if (from->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)from;
        memcpy(peer->addr, &in6->sin6_addr, 16);
        peer->port = ntohs(in6->sin6_port);
    }
}

static int rp_real_accept(void *user, int listener, rtpush_peer *peer) {
    (void)user;
    struct sockaddr_storage from;
    socklen_t size = sizeof from;
    memset(&from, 0, sizeof from);
#if defined(RP_HAS_EPOLL) && defined(__USE_GNU)
    int fd = accept4(listener, (struct sockaddr *)(void *)&from, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
#else
    int fd = accept(listener, (struct sockaddr *)(void *)&from, &size);
    if (fd >= 0) rp_fd_prepare(fd);
#endif
    if (fd < 0) return -errno;
    rp_peer_of(peer, &from);
    return fd;
}

static ptrdiff_t rp_real_recv(void *user, int fd, void *buf, size_t cap) {
    (void)user;
    ptrdiff_t n = recv(fd, buf, cap, 0);
    return n < 0 ? -errno : n;
}

static ptrdiff_t rp_real_send(void *user, int fd, const rtpush_iov *iov, int count) {
    (void)user;
    ptrdiff_t n;
    if (count == 1) {
        n = send(fd, iov->base, iov->len, MSG_NOSIGNAL);
    } else {
        struct iovec parts[RP_IOV + 2];
        struct msghdr message;
        memset(&message, 0, sizeof message);
        for (int i = 0; i < count; i++) {
            memcpy(&parts[i].iov_base, &iov[i].base, sizeof(void *)); // iov_base is not const, and is not written to
            parts[i].iov_len = iov[i].len;
        }
        message.msg_iov = parts;
#ifdef __GLIBC__
        message.msg_iovlen = (size_t)count;
#else
        message.msg_iovlen = count; // POSIX: an int
#endif
        n = sendmsg(fd, &message, MSG_NOSIGNAL);
    }
    return n < 0 ? -errno : n;
}

static int rp_real_shutdown(void *user, int fd) {
    (void)user;
    return shutdown(fd, SHUT_WR) ? -errno : 0;
}

static int rp_real_close(void *user, int fd) {
    (void)user;
    return close(fd) ? -errno : 0;
}

static uint64_t rp_real_now(void *user) {
    (void)user;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int64_t rp_real_wall(void *user) {
    (void)user;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int rp_real_random(void *user, void *buf, size_t size) {
    (void)user;
#if defined(__linux__)
    while (size) {
        ptrdiff_t n = getrandom(buf, size, 0);
        if (n < 0 && errno != EINTR) return -errno;
        if (n > 0) buf = (char *)buf + n, size -= (size_t)n;
    }
#else
    arc4random_buf(buf, size);
#endif
    return 0;
}

// Begins; how it ends the first send says, or the socket's error.
static int rp_real_connect(void *user, const rtpush_peer *peer, const char *path) {
    static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}; // an IPv4 address
    struct sockaddr_storage to;
    socklen_t size;
    (void)user;
    memset(&to, 0, sizeof to);
    if (path) {
        struct sockaddr_un *un = (struct sockaddr_un *)(void *)&to;
        if (strlen(path) >= sizeof un->sun_path) return -EINVAL;
        memcpy(un->sun_path, path, strlen(path));
        to.ss_family = AF_UNIX;
        size = sizeof *un;
    } else if (!memcmp(peer->addr, mapped, sizeof mapped)) {
        struct sockaddr_in *in = (struct sockaddr_in *)(void *)&to;
        memcpy(&in->sin_addr, peer->addr + 12, 4);
        in->sin_port = htons(peer->port);
        to.ss_family = AF_INET;
        size = sizeof *in;
    } else {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)&to;
        memcpy(&in6->sin6_addr, peer->addr, 16);
        in6->sin6_port = htons(peer->port);
        to.ss_family = AF_INET6;
        size = sizeof *in6;
    }
    int fd = rp_socket_new(to.ss_family);
    if (fd < 0) return fd;
    if (!path) rp_socket_options(fd);
    if (!connect(fd, (const struct sockaddr *)(const void *)&to, size) || errno == EINPROGRESS || errno == EINTR) return fd;
    int failed = -errno;
    close(fd);
    return failed;
}

static const rtpush_sys rp_sys_real = {rp_real_listen, rp_real_accept, rp_real_recv,   rp_real_send,    rp_real_shutdown, rp_real_close,
                                       rp_real_now,    rp_real_wall,   rp_real_random, rp_real_connect, NULL};

// The host's calls, and the real ones where it has none.
static void rp_sys_merge(rtpush_sys *sys, const rtpush_sys *host) {
    *sys = rp_sys_real;
    if (!host) return;
    sys->user = host->user;
    if (host->listen) sys->listen = host->listen;
    if (host->accept) sys->accept = host->accept;
    if (host->recv) sys->recv = host->recv;
    if (host->send) sys->send = host->send;
    if (host->shutdown) sys->shutdown = host->shutdown;
    if (host->close) sys->close = host->close;
    if (host->now_ms) sys->now_ms = host->now_ms;
    if (host->wall_ms) sys->wall_ms = host->wall_ms;
    if (host->random) sys->random = host->random;
    if (host->connect) sys->connect = host->connect;
}

static bool rp_errno_is_again(ptrdiff_t code) { return code == -EAGAIN || code == -EWOULDBLOCK; }
#endif // RP_SERVER

// ============================================================================
// >>tls  TLS by OpenSSL, behind the calls of a socket (RTPUSH_OPENSSL)  (uses: memory, socket)
//
// A connection with an rp_tls sends and receives through it, everything else stays as it
// is. OpenSSL reads and writes by rtpush_sys, so that no call raises a signal. What it has
// taken and the socket has not (at most one record) is kept here. Without RTPUSH_OPENSSL
// the same functions say that there is no TLS.
// ============================================================================
#ifdef RP_SERVER
// What a client believes. ctx and session are made on first use and kept for the next connection.
typedef struct rp_tls_trust {
    const char *ca, *cert, *key;
    bool insecure;
    void *ctx, *session;
} rp_tls_trust;

typedef struct rp_tls rp_tls;
typedef struct rp_tls_kit rp_tls_kit; // of a hub: what its TLS connections share

enum { RP_RECORD = 16384 }; // bytes in a record at most (RFC 8446 §5.1)

#ifdef RTPUSH_OPENSSL

// A certificate of the server's, and the names of the files it is from.
typedef struct rp_tls_cert {
    struct rp_tls_cert *next;
    SSL_CTX *ctx, *fresh; // fresh: while all are read again
    char *cert, *key, *client_ca;
    bool client_optional;
    unsigned char own_id[4]; // tells its sessions from those of the others
} rp_tls_cert;

struct rp_tls_kit {
    rp_mem *mem;
    const rtpush_sys *sys;
    BIO_METHOD *method;
    rp_tls_cert *certs; // the first is for whoever names no other
    char record[RP_RECORD];
};

struct rp_tls {
    rp_tls_kit *kit;
    SSL *ssl;
    rp_tls_trust *trust; // of a client; NULL: we are the server
    int fd;
    bool wants_write, is_ended, is_eof, is_over; // over: the next recv says so at once
    bool is_closing; // close_notify is to go, or has gone
    char *kept; // taken, and not yet out
    size_t kept_size;
    const char *why;
};

// --- OpenSSL's way to the socket ---

static int rp_tls_bio_said(BIO *bio, ptrdiff_t n, int flag) {
    BIO_clear_retry_flags(bio);
    if (n >= 0) return (int)n;
    if (n == -EINTR || rp_errno_is_again(n)) BIO_set_flags(bio, flag | BIO_FLAGS_SHOULD_RETRY);
    return -1;
}

static int rp_tls_bio_write(BIO *bio, const char *data, int size) {
    rp_tls *tls = (rp_tls *)BIO_get_data(bio);
    rtpush_iov iov;
    iov.base = data;
    iov.len = (size_t)size;
    return rp_tls_bio_said(bio, tls->kit->sys->send(tls->kit->sys->user, tls->fd, &iov, 1), BIO_FLAGS_WRITE);
}

static int rp_tls_bio_read(BIO *bio, char *data, int size) {
    rp_tls *tls = (rp_tls *)BIO_get_data(bio);
    ptrdiff_t n = tls->kit->sys->recv(tls->kit->sys->user, tls->fd, data, (size_t)size);
    tls->is_eof = n == 0;
    return rp_tls_bio_said(bio, n, BIO_FLAGS_READ);
}

static long rp_tls_bio_ctrl(BIO *bio, int command, long number, void *pointer) {
    const rp_tls *tls = (const rp_tls *)BIO_get_data(bio);
    (void)number, (void)pointer;
    if (command == BIO_CTRL_EOF) return tls->is_eof;
    return command == BIO_CTRL_FLUSH;
}

static int rp_tls_bio_create(BIO *bio) {
    BIO_set_init(bio, 1);
    return 1;
}

static rp_tls_kit *rp_tls_prepare(rp_tls_kit **at, rp_mem *mem, const rtpush_sys *sys) {
    if (*at) return *at;
    rp_tls_kit *kit = (rp_tls_kit *)rp_mem_get(mem, sizeof *kit);
    if (!kit) return NULL;
    kit->mem = mem;
    kit->sys = sys;
    kit->method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "rtpush");
    if (!kit->method) { rp_mem_free(mem, kit); return NULL; }
    BIO_meth_set_write(kit->method, rp_tls_bio_write);
    BIO_meth_set_read(kit->method, rp_tls_bio_read);
    BIO_meth_set_ctrl(kit->method, rp_tls_bio_ctrl);
    BIO_meth_set_create(kit->method, rp_tls_bio_create);
    return *at = kit;
}

static void rp_tls_cert_free(rp_mem *mem, rp_tls_cert *cert) {
    SSL_CTX_free(cert->ctx);
    rp_mem_free(mem, cert->cert);
    rp_mem_free(mem, cert->key);
    rp_mem_free(mem, cert->client_ca);
    rp_mem_free(mem, cert);
}

static void rp_tls_kit_free(rp_tls_kit *kit) {
    if (!kit) return;
    for (rp_tls_cert *cert = kit->certs, *next; cert; cert = next) {
        next = cert->next;
        rp_tls_cert_free(kit->mem, cert);
    }
    BIO_meth_free(kit->method);
    rp_mem_free(kit->mem, kit);
}

// --- contexts ---

static const char *rp_tls_error(void) {
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    return reason ? reason : "TLS failed";
}

// Common to both ends: TLS 1.2 and 1.3, no renegotiation, buffers only while they are used.
static SSL_CTX *rp_tls_ctx(const SSL_METHOD *method) {
    SSL_CTX *ctx = SSL_CTX_new(method);
    if (!ctx) return NULL;
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    return ctx;
}

// RFC 7301 §3.2: http/1.1 if it is among what the client offers, else the handshake fails.
static int rp_tls_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_size, const unsigned char *in, unsigned in_size, void *arg) {
    static const unsigned char ours[] = "\x08http/1.1";
    unsigned char *chosen;
    (void)ssl, (void)arg;
    if (SSL_select_next_proto(&chosen, out_size, ours, sizeof ours - 1, in, in_size) != OPENSSL_NPN_NEGOTIATED) return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

// The one name in a ClientHello's server_name (RFC 6066 §3), "" if there is none that can be one.
static void rp_tls_hello_name(SSL *ssl, char name[256]) {
    const unsigned char *p;
    size_t size;
    *name = 0;
    if (!SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &p, &size) || size < 5) return;
    size_t named = (size_t)p[3] << 8 | p[4]; // behind the list's size and the type
    if (p[2] != TLSEXT_NAMETYPE_host_name || named != size - 5 || named > 255 || memchr(p + 5, 0, named)) return;
    memcpy(name, p + 5, named);
    name[named] = 0;
}

// The first certificate that is valid for the name the client asks for. It is chosen here, before a session is looked at,
// and sessions are each certificate's own: one made where none is asked for opens no other (CVE-2025-23419).
static int rp_tls_hello(SSL *ssl, int *alert, void *arg) {
    const rp_tls_kit *kit = (const rp_tls_kit *)arg;
    char name[256];
    (void)alert;
    rp_tls_hello_name(ssl, name);
    for (const rp_tls_cert *cert = kit->certs; cert && *name; cert = cert->next) {
        X509 *x509 = SSL_CTX_get0_certificate(cert->ctx);
        if (!x509 || X509_check_host(x509, name, 0, 0, NULL) != 1) continue;
        SSL_set_SSL_CTX(ssl, cert->ctx);
        SSL_set_verify(ssl, SSL_CTX_get_verify_mode(cert->ctx), NULL); // which the line above leaves as it was
        break;
    }
    return SSL_CLIENT_HELLO_SUCCESS;
}

// A server's context from its files. NULL: *why.
static SSL_CTX *rp_tls_server_ctx(rp_tls_kit *kit, const rp_tls_cert *cert, const char **why) {
    ERR_clear_error();
    SSL_CTX *ctx = rp_tls_ctx(TLS_server_method());
    bool is_good = ctx && SSL_CTX_use_certificate_chain_file(ctx, cert->cert) == 1 && SSL_CTX_use_PrivateKey_file(ctx, cert->key, SSL_FILETYPE_PEM) == 1 &&
                   SSL_CTX_check_private_key(ctx) == 1;
    if (is_good && cert->client_ca) {
        STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(cert->client_ca);
        SSL_CTX_set_client_CA_list(ctx, names);
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | (cert->client_optional ? 0 : SSL_VERIFY_FAIL_IF_NO_PEER_CERT), NULL);
        is_good = names && SSL_CTX_load_verify_locations(ctx, cert->client_ca, NULL) == 1;
    }
    if (!is_good) {
        *why = rp_tls_error();
        SSL_CTX_free(ctx);
        return NULL;
    }
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF); // resumption by tickets, which cost us no memory
    SSL_CTX_set_session_id_context(ctx, cert->own_id, sizeof cert->own_id);
    SSL_CTX_set_num_tickets(ctx, 1);
    SSL_CTX_set_alpn_select_cb(ctx, rp_tls_alpn, NULL);
    SSL_CTX_set_client_hello_cb(ctx, rp_tls_hello, kit);
    return ctx;
}

// One certificate more. *why: what is wrong with its files.
static int rp_tls_add(rp_tls_kit *kit, const char *cert, const char *key, const char *client_ca, bool client_optional, const char **why) {
    rp_tls_cert *added = (rp_tls_cert *)rp_mem_get(kit->mem, sizeof *added), **at = &kit->certs;
    if (!added) return RTPUSH_E_MEMORY;
    for (; *at; at = &(*at)->next) added->own_id[0]++;
    added->own_id[1] = !added->own_id[0];
    added->cert = rp_mem_text(kit->mem, rp_slice_of(cert));
    added->key = rp_mem_text(kit->mem, rp_slice_of(key ? key : cert));
    added->client_ca = client_ca ? rp_mem_text(kit->mem, rp_slice_of(client_ca)) : NULL;
    added->client_optional = client_optional;
    bool has_all = added->cert && added->key && (!client_ca || added->client_ca);
    added->ctx = has_all ? rp_tls_server_ctx(kit, added, why) : NULL;
    if (!added->ctx) {
        rp_tls_cert_free(kit->mem, added);
        return has_all ? RTPUSH_E_TLS : RTPUSH_E_MEMORY;
    }
    *at = added;
    return RTPUSH_OK;
}

// Reads every certificate's files again: all of them take effect, or none. Who is connected keeps the old ones.
static int rp_tls_reload(rp_tls_kit *kit, const char **why) {
    bool is_good = true;
    for (rp_tls_cert *cert = kit->certs; cert && is_good; cert = cert->next) {
        cert->fresh = rp_tls_server_ctx(kit, cert, why);
        is_good = cert->fresh != NULL;
    }
    for (rp_tls_cert *cert = kit->certs; cert; cert = cert->next) {
        SSL_CTX_free(is_good ? cert->ctx : cert->fresh);
        if (is_good) cert->ctx = cert->fresh;
        cert->fresh = NULL;
    }
    return is_good ? RTPUSH_OK : RTPUSH_E_TLS;
}

// --- a connection ---

static void rp_tls_free(rp_mem *mem, rp_tls *tls) {
    if (!tls) return;
    SSL_free(tls->ssl);
    rp_mem_free(mem, tls->kept);
    rp_mem_free(mem, tls);
}

static rp_tls *rp_tls_new(rp_tls_kit *kit, SSL_CTX *ctx, int fd) {
    rp_tls *tls = (rp_tls *)rp_mem_get(kit->mem, sizeof *tls);
    if (!tls) return NULL;
    tls->kit = kit;
    tls->fd = fd;
    tls->why = "";
    tls->ssl = SSL_new(ctx);
    BIO *bio = tls->ssl ? BIO_new(kit->method) : NULL;
    if (!bio) { rp_tls_free(kit->mem, tls); return NULL; }
    BIO_set_data(bio, tls);
    SSL_set_bio(tls->ssl, bio, bio);
    return tls;
}

// A connection that a listener took. NULL: no certificate, or no memory.
static rp_tls *rp_tls_accept(rp_tls_kit *kit, int fd) {
    rp_tls *tls = kit && kit->certs ? rp_tls_new(kit, kit->certs->ctx, fd) : NULL;
    if (tls) SSL_set_accept_state(tls->ssl);
    return tls;
}

#ifdef RP_DIAL
static SSL_CTX *rp_tls_client_ctx(const rp_tls_trust *trust) {
    SSL_CTX *ctx = rp_tls_ctx(TLS_client_method());
    if (!ctx) return NULL;
    bool is_good = trust->insecure || (trust->ca ? SSL_CTX_load_verify_locations(ctx, trust->ca, NULL) == 1 : SSL_CTX_set_default_verify_paths(ctx) == 1);
    if (trust->cert)
        is_good = is_good && SSL_CTX_use_certificate_chain_file(ctx, trust->cert) == 1 &&
                  SSL_CTX_use_PrivateKey_file(ctx, trust->key ? trust->key : trust->cert, SSL_FILETYPE_PEM) == 1;
    if (!is_good) { SSL_CTX_free(ctx); return NULL; }
    SSL_CTX_set_verify(ctx, trust->insecure ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_alpn_protos(ctx, (const unsigned char *)"\x08http/1.1", 9);
    return ctx;
}

// The name, or address, that the certificate must be for (RFC 6125, RFC 5280 §4.2.1.6). No SNI for addresses.
static bool rp_tls_name(SSL *ssl, const char *host) {
    unsigned char address[16];
    if (inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1) return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
    char name[256]; // OpenSSL's macro wants it not const
    snprintf(name, sizeof name, "%s", host);
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

// Our side of a connection to `host`. NULL: why.
static rp_tls *rp_tls_connect(rp_tls_kit *kit, int fd, rp_tls_trust *trust, const char *host, const char **why) {
    if (!kit) return NULL;
    ERR_clear_error();
    if (!trust->ctx) trust->ctx = rp_tls_client_ctx(trust);
    if (!trust->ctx) { *why = rp_tls_error(); return NULL; }
    rp_tls *tls = rp_tls_new(kit, (SSL_CTX *)trust->ctx, fd);
    if (!tls || !rp_tls_name(tls->ssl, host)) {
        *why = tls ? "not a host's name" : "out of memory";
        rp_tls_free(kit->mem, tls);
        return NULL;
    }
    tls->trust = trust;
    if (trust->session) SSL_set_session(tls->ssl, (SSL_SESSION *)trust->session);
    SSL_set_connect_state(tls->ssl);
    return tls;
}

static void rp_tls_trust_free(rp_tls_trust *trust) {
    SSL_SESSION_free((SSL_SESSION *)trust->session);
    SSL_CTX_free((SSL_CTX *)trust->ctx);
    trust->session = trust->ctx = NULL;
}
#endif // RP_DIAL

// What a call that did not succeed means: as rtpush_sys.recv says it.
static ptrdiff_t rp_tls_verdict(rp_tls *tls, int n) {
    int error = SSL_get_error(tls->ssl, n);
    long verified = SSL_get_verify_result(tls->ssl);
    tls->wants_write = error == SSL_ERROR_WANT_WRITE;
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return -EAGAIN;
    if (error == SSL_ERROR_ZERO_RETURN) return 0;
    tls->is_ended = true; // nothing more may be said over it
    if (tls->is_eof || error == SSL_ERROR_SYSCALL) { tls->why = "the connection broke off"; return -ECONNRESET; }
    tls->why = verified != X509_V_OK && tls->trust && !tls->trust->insecure ? X509_verify_cert_error_string(verified) : rp_tls_error();
    return -EPROTO;
}

#ifdef RP_DIAL
// > 0: done; 0: not yet; < 0: it failed, -EPROTO by what was said, another by the connection.
static int rp_tls_handshake(rp_tls *tls) {
    ERR_clear_error();
    int n = SSL_do_handshake(tls->ssl);
    if (n == 1) { tls->wants_write = false; return 1; }
    ptrdiff_t verdict = rp_tls_verdict(tls, n);
    return rp_errno_is_again(verdict) ? 0 : verdict ? (int)verdict : -ECONNRESET;
}

static const char *rp_tls_why(const rp_tls *tls) { return tls->why; }
#endif // RP_DIAL

static bool rp_tls_wants_write(const rp_tls *tls) { return tls->wants_write; }

// An end came with the last data: no back-end will tell of it.
static bool rp_tls_is_over(const rp_tls *tls) { return tls->is_over; }


// Sends what is kept. 0, or -errno.
static ptrdiff_t rp_tls_flush(rp_tls *tls) {
    if (!tls->kept) return 0;
    ERR_clear_error();
    int n = SSL_write(tls->ssl, tls->kept, (int)tls->kept_size);
    if (n <= 0) {
        ptrdiff_t verdict = rp_tls_verdict(tls, n);
        return verdict ? verdict : -EPIPE;
    }
    tls->wants_write = false;
    rp_mem_free(tls->kit->mem, tls->kept);
    tls->kept = NULL;
    return 0;
}

// One record. Returns what was taken (all of it), or -errno.
static ptrdiff_t rp_tls_write(rp_tls *tls, const char *data, size_t size) {
    ERR_clear_error();
    int n = SSL_write(tls->ssl, data, (int)size);
    if (n > 0) return n;
    ptrdiff_t verdict = rp_tls_verdict(tls, n);
    if (!rp_errno_is_again(verdict)) return verdict ? verdict : -EPIPE;
    tls->kept = (char *)rp_mem_resize(tls->kit->mem, NULL, size); // it must be offered again as it was
    if (!tls->kept) return -ENOMEM;
    memcpy(tls->kept, data, size);
    tls->kept_size = size;
    return (ptrdiff_t)size;
}

// Fills a record from the pieces, from *piece and *at on. A piece that fills one alone is not copied.
static rtpush_slice rp_tls_gather(rp_tls_kit *kit, const rtpush_iov *iov, int count, int *piece, size_t *at) {
    size_t size = 0;
    while (*piece < count && *at == iov[*piece].len) ++*piece, *at = 0;
    if (*piece < count && iov[*piece].len - *at >= RP_RECORD) {
        *at += RP_RECORD;
        return rp_slice((const char *)iov[*piece].base + *at - RP_RECORD, RP_RECORD);
    }
    while (*piece < count && size < RP_RECORD) {
        size_t n = RP_MIN(iov[*piece].len - *at, (size_t)RP_RECORD - size);
        memcpy(kit->record + size, (const char *)iov[*piece].base + *at, n);
        size += n;
        *at += n;
        if (*at == iov[*piece].len) ++*piece, *at = 0;
    }
    return rp_slice(kit->record, size);
}

// As rtpush_sys.send. What it took may still be kept: rp_tls_wants_write.
static ptrdiff_t rp_tls_send(rp_tls *tls, const rtpush_iov *iov, int count) {
    size_t taken = 0, at = 0;
    int piece = 0;
    if (tls->is_ended) return count ? -EPIPE : 0;
    ptrdiff_t n = tls->is_closing ? 0 : rp_tls_flush(tls);
    if (tls->is_closing) tls->wants_write = false; // the close_notify is offered again
    while (n >= 0 && !tls->kept) {
        rtpush_slice record = rp_tls_gather(tls->kit, iov, count, &piece, &at);
        if (!record.size) break;
        n = rp_tls_write(tls, record.data, record.size);
        if (n > 0) taken += (size_t)n;
    }
    return n < 0 && !taken ? n : (ptrdiff_t)taken;
}

// As rtpush_sys.recv; cap of at least RP_RECORD, so that nothing that came stays inside, where no back-end sees it.
// -EPROTO: rp_tls_why.
static ptrdiff_t rp_tls_recv(rp_tls *tls, char *buf, size_t cap) {
    size_t got = 0;
    int n = 1;
    if (tls->is_ended) return 0;
    ERR_clear_error();
    while (got + RP_RECORD <= cap && (n = SSL_read(tls->ssl, buf + got, (int)RP_MIN(cap - got, (size_t)INT32_MAX))) > 0) got += (size_t)n;
    ptrdiff_t verdict = n > 0 ? -EAGAIN : rp_tls_verdict(tls, n);
    tls->is_over = !rp_errno_is_again(verdict);
    if (tls->kept && !tls->is_over) rp_tls_flush(tls); // it may have waited for this handshake
    return got ? (ptrdiff_t)got : verdict;
}

// A client keeps the session for its next connection.
static void rp_tls_keep_session(rp_tls *tls) {
    SSL_SESSION *session = tls->trust && SSL_is_init_finished(tls->ssl) ? SSL_get1_session(tls->ssl) : NULL;
    if (session && SSL_SESSION_is_resumable(session)) {
        SSL_SESSION_free((SSL_SESSION *)tls->trust->session);
        tls->trust->session = session;
    } else {
        SSL_SESSION_free(session);
    }
}

// Our half ends, with a close_notify. false: the socket does not take it yet; to be called again when it does.
static bool rp_tls_end(rp_tls *tls) {
    if (tls->is_ended) return true;
    if (!tls->is_closing) rp_tls_keep_session(tls);
    tls->is_closing = true;
    ERR_clear_error();
    int n = SSL_is_init_finished(tls->ssl) ? SSL_shutdown(tls->ssl) : 0;
    if (n < 0 && rp_errno_is_again(rp_tls_verdict(tls, n)) && tls->wants_write) return false;
    tls->wants_write = false;
    tls->is_ended = true;
    ERR_clear_error();
    return true;
}

// The common name of a client's certificate that was verified. -1: none; else its length, in buf.
static ptrdiff_t rp_tls_peer_name(const rp_tls *tls, char *buf, size_t cap) {
    X509 *x509 = SSL_get_verify_result(tls->ssl) == X509_V_OK ? SSL_get_peer_certificate(tls->ssl) : NULL;
    if (!x509) return -1;
    int n = X509_NAME_get_text_by_NID(X509_get_subject_name(x509), NID_commonName, buf, (int)cap);
    X509_free(x509);
    return n < 0 || strlen(buf) != (size_t)n ? -1 : n; // a NUL inside is no name
}

#else // without OpenSSL

struct rp_tls { int unused; };
struct rp_tls_kit { int unused; };

static rp_tls_kit *rp_tls_prepare(rp_tls_kit **at, rp_mem *mem, const rtpush_sys *sys) { (void)mem, (void)sys; return *at; }
static void rp_tls_kit_free(rp_tls_kit *kit) { (void)kit; }
static int rp_tls_add(rp_tls_kit *kit, const char *cert, const char *key, const char *client_ca, bool client_optional, const char **why) {
    (void)kit, (void)cert, (void)key, (void)client_ca, (void)client_optional;
    *why = "built without RTPUSH_OPENSSL";
    return RTPUSH_E_TLS;
}
static int rp_tls_reload(rp_tls_kit *kit, const char **why) { return rp_tls_add(kit, NULL, NULL, NULL, false, why); }
static void rp_tls_free(rp_mem *mem, rp_tls *tls) { (void)mem, (void)tls; }
static rp_tls *rp_tls_accept(rp_tls_kit *kit, int fd) { (void)kit, (void)fd; return NULL; }
static ptrdiff_t rp_tls_send(rp_tls *tls, const rtpush_iov *iov, int count) { (void)tls, (void)iov, (void)count; return -EPIPE; }
static ptrdiff_t rp_tls_recv(rp_tls *tls, char *buf, size_t cap) { (void)tls, (void)buf, (void)cap; return -EPIPE; }
static bool rp_tls_wants_write(const rp_tls *tls) { (void)tls; return false; }
static bool rp_tls_end(rp_tls *tls) { (void)tls; return true; }
static bool rp_tls_is_over(const rp_tls *tls) { (void)tls; return false; }
static ptrdiff_t rp_tls_peer_name(const rp_tls *tls, char *buf, size_t cap) { (void)tls, (void)buf, (void)cap; return -1; }
#ifdef RP_DIAL
static const char *rp_tls_why(const rp_tls *tls) { (void)tls; return ""; }
static void rp_tls_trust_free(rp_tls_trust *trust) { (void)trust; }
static int rp_tls_handshake(rp_tls *tls) { (void)tls; return -1; }
static rp_tls *rp_tls_connect(rp_tls_kit *kit, int fd, rp_tls_trust *trust, const char *host, const char **why) {
    (void)kit, (void)fd, (void)trust, (void)host;
    *why = "built without RTPUSH_OPENSSL";
    return NULL;
}
#endif
#endif // RTPUSH_OPENSSL
#endif // RP_SERVER

// ============================================================================
// >>json  a strict reader and a writer  (uses: bytes, codec)
//
// RFC 8259. The reader never recurses (64 levels in the bits of one word) and never
// allocates: it finds where a value ends. Members of an object are then taken one by
// one, as slices of the text.
// ============================================================================
#ifdef RP_OPEN
enum { RP_JSON_DEPTH = 64 };

static const char *rp_json_space(const char *p, const char *end) {
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')) p++;
    return p;
}

// p is behind the opening quote; returns behind the closing one, NULL if there is none or an escape is wrong.
static const char *rp_json_string_end(const char *p, const char *end) {
    while (p < end && *p != '"') {
        if ((unsigned char)*p < 0x20) return NULL;
        if (*p++ != '\\') continue;
        if (p == end) return NULL;
        if (*p == 'u') {
            for (int i = 1; i <= 4; i++)
                if (end - p <= i || rp_hex_digit(p[i]) < 0) return NULL;
            p += 5;
        } else if (*p && strchr("\"\\/bfnrt", *p)) {
            p++;
        } else {
            return NULL;
        }
    }
    return p < end ? p + 1 : NULL;
}

static const char *rp_json_digits(const char *p, const char *end) {
    const char *start = p;
    while (p < end && *p >= '0' && *p <= '9') p++;
    return p > start ? p : NULL;
}

static const char *rp_json_number_end(const char *p, const char *end) {
    if (p < end && *p == '-') p++;
    if (p < end && *p == '0') p++;
    else p = rp_json_digits(p, end);
    if (p && p < end && *p == '.') p = rp_json_digits(p + 1, end);
    if (p && p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-')) p++;
        p = rp_json_digits(p, end);
    }
    return p;
}

static const char *rp_json_word_end(const char *p, const char *end, const char *word) {
    size_t size = strlen(word);
    return (size_t)(end - p) >= size && !memcmp(p, word, size) ? p + size : NULL;
}

static const char *rp_json_scalar_end(const char *p, const char *end) {
    switch (*p) {
    case '"': return rp_json_string_end(p + 1, end);
    case 't': return rp_json_word_end(p, end, "true");
    case 'f': return rp_json_word_end(p, end, "false");
    case 'n': return rp_json_word_end(p, end, "null");
    default: return rp_json_number_end(p, end);
    }
}

// A member's name and colon: returns where its value begins.
static const char *rp_json_name_end(const char *p, const char *end) {
    p = rp_json_space(p, end);
    if (p == end || *p != '"' || !(p = rp_json_string_end(p + 1, end))) return NULL;
    p = rp_json_space(p, end);
    return p < end && *p == ':' ? p + 1 : NULL;
}

// Behind a value: goes over closing brackets and one comma. Returns where the next value begins, or the end of the
// outermost value with *depth 0; NULL if it is wrong. Bit i of `objects`: level i is an object.
static const char *rp_json_after(const char *p, const char *end, unsigned *depth, uint64_t objects) {
    while (*depth) {
        bool is_object = objects >> (*depth - 1) & 1;
        p = rp_json_space(p, end);
        if (p == end) return NULL;
        if (*p == ',') return is_object ? rp_json_name_end(p + 1, end) : p + 1;
        if (*p++ != (is_object ? '}' : ']')) return NULL;
        --*depth;
    }
    return p;
}

// Where the value that begins at p (white space before it allowed) ends; NULL: it is none.
static const char *rp_json_value_end(const char *p, const char *end) {
    uint64_t objects = 0;
    unsigned depth = 0;
    do {
        p = rp_json_space(p, end);
        if (p == end) return NULL;
        if (*p == '{' || *p == '[') {
            bool is_object = *p == '{';
            if (depth == RP_JSON_DEPTH) return NULL;
            objects = (objects & ~(UINT64_C(1) << depth)) | (uint64_t)is_object << depth;
            depth++;
            const char *inside = rp_json_space(p + 1, end);
            bool is_empty = inside < end && *inside == (is_object ? '}' : ']');
            if (!is_empty) {
                p = is_object ? rp_json_name_end(inside, end) : inside;
                continue;
            }
            p = inside; // its closing bracket
        } else {
            p = rp_json_scalar_end(p, end);
        }
        if (p) p = rp_json_after(p, end, &depth, objects);
    } while (p && depth);
    return p;
}

RTPUSH_DEF bool rtpush_is_json(const void *data, size_t size) {
    const char *p = (const char *)data, *end = size ? p + size : p;
    if (rtpush_utf8(0, data, size)) return false;
    p = rp_json_value_end(p, end);
    return p && rp_json_space(p, end) == end;
}
#endif // RP_OPEN

#ifdef RP_SERVER
// Takes the next member of an object that rtpush_is_json has passed. *rest begins as the object's text.
static bool rp_json_member(rtpush_slice *rest, rtpush_slice *name, rtpush_slice *value) {
    const char *end = rest->data + rest->size, *p = rp_json_space(rest->data, end);
    if (p < end && (*p == '{' || *p == ',')) p = rp_json_space(p + 1, end);
    if (p == end || *p != '"') return false;
    const char *after = rp_json_string_end(p + 1, end);
    *name = rp_slice(p + 1, (size_t)(after - p) - 2);
    p = rp_json_space(rp_json_space(after, end) + 1, end);
    after = rp_json_value_end(p, end);
    *value = rp_slice(p, (size_t)(after - p));
    after = rp_json_space(after, end);
    *rest = rp_slice(after, (size_t)(end - after));
    return true;
}

#ifdef RP_CLIENT
// Takes the next element of an array that rtpush_is_json has passed. *rest begins as the array's text.
static bool rp_json_element(rtpush_slice *rest, rtpush_slice *value) {
    const char *end = rest->data + rest->size, *p = rp_json_space(rest->data, end);
    if (p < end && (*p == '[' || *p == ',')) p = rp_json_space(p + 1, end);
    if (p == end || *p == ']') return false;
    const char *after = rp_json_value_end(p, end);
    *value = rp_slice(p, (size_t)(after - p));
    after = rp_json_space(after, end);
    *rest = rp_slice(after, (size_t)(end - after));
    return true;
}
#endif // RP_CLIENT

static size_t rp_utf8_write(char *out, uint32_t c) {
    if (c < 0x80) { out[0] = (char)c; return 1; }
    size_t more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const unsigned char lead[4] = {0, 0xc0, 0xe0, 0xf0};
    out[0] = (char)(lead[more] | c >> (6 * more));
    for (size_t i = 1; i <= more; i++) out[i] = (char)(0x80 | (c >> (6 * (more - i)) & 0x3f));
    return more + 1;
}

static uint32_t rp_json_hex4(const char *p) {
    uint32_t c = 0;
    for (int i = 0; i < 4; i++) c = c << 4 | (uint32_t)rp_hex_digit(p[i]);
    return c;
}

// A \u escape (p behind the u), with its second half where it is a surrogate pair. A lone surrogate is kept as one:
// what it becomes is not UTF-8, and is refused as that.
static uint32_t rp_json_escape(const char **at, const char *end) {
    const char *p = *at;
    uint32_t c = rp_json_hex4(p);
    p += 4;
    if (c >= 0xd800 && c <= 0xdfff) {
        uint32_t low = c < 0xdc00 && end - p >= 6 && p[0] == '\\' && p[1] == 'u' ? rp_json_hex4(p + 2) : 0;
        if (low >= 0xdc00 && low <= 0xdfff) {
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
            p += 6;
        }
    }
    *at = p;
    return c;
}

// What a string (the text between its quotes, already checked) stands for, into out of the same size. Returns its size.
static size_t rp_json_unescape(char *out, rtpush_slice inside) {
    const char *p = inside.data, *end = p + inside.size;
    char *o = out;
    while (p < end) {
        if (*p != '\\') { *o++ = *p++; continue; }
        char c = p[1];
        p += 2;
        switch (c) {
        case 'b': *o++ = '\b'; break;
        case 'f': *o++ = '\f'; break;
        case 'n': *o++ = '\n'; break;
        case 'r': *o++ = '\r'; break;
        case 't': *o++ = '\t'; break;
        case 'u': o += rp_utf8_write(o, rp_json_escape(&p, end)); break;
        default: *o++ = c;
        }
    }
    return (size_t)(o - out);
}

// Writes a string with its quotes. data is valid UTF-8.
static void rp_json_string(rp_mem *mem, rp_buf *buf, const char *data, size_t size) {
    static const char hex[] = "0123456789abcdef";
    size_t from = 0;
    rp_buf_put(mem, buf, "\"", 1);
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)data[i];
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        char escape[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
        const char *known = strchr("\"\"\\\\\nn\rr\tt", c);
        if (c && known) escape[1] = known[1];
        rp_buf_put(mem, buf, data + from, i - from);
        rp_buf_put(mem, buf, escape, c && known ? 2 : 6);
        from = i + 1;
    }
    rp_buf_put(mem, buf, data + from, size - from);
    rp_buf_put(mem, buf, "\"", 1);
}

// Writes a JSON text as one line: CR and LF can only be white space between its tokens.
static void rp_json_line(rp_mem *mem, rp_buf *buf, const char *data, size_t size) {
    size_t at = rp_buf_size(buf);
    if (!rp_buf_put(mem, buf, data, size)) return;
    for (char *p = buf->data + buf->start + at, *end = buf->data + buf->end; p < end; p++)
        if (*p == '\n' || *p == '\r') *p = ' ';
}

static void rp_json_text(rp_mem *mem, rp_buf *buf, const char *text) { rp_json_string(mem, buf, text, strlen(text)); }
#endif // RP_SERVER

// ============================================================================
// >>http  a request's head and body, strictly; answers  (uses: codec, bytes)
//
// The head is parsed statelessly and again when bytes have come; the body by a small
// state machine. What RFC 9112 lets a server be lenient about is refused here, since
// two parsers that read one text differently are how requests are smuggled.
// ============================================================================
#ifdef RP_OPEN
enum { RP_HEAD_MAX = 16384, RP_LINE_MAX = 8192, RP_TRAILER_MAX = 8192 };

// RFC 9110 §5.6.2: the characters of a token.
static bool rp_http_is_token(char c) {
    if ((c >= '0' && c <= '9') || (rp_lower(c) >= 'a' && rp_lower(c) <= 'z')) return true;
    return c && strchr("!#$%&'*+-.^_`|~", c) != NULL;
}

// What may stand in a field value (RFC 9110 §5.5): no control character but the tab.
static bool rp_http_is_value(char c) { return (unsigned char)c >= 0x20 ? c != 0x7f : c == '\t'; }

static bool rp_http_is_host(char c) {
    if ((c >= '0' && c <= '9') || (rp_lower(c) >= 'a' && rp_lower(c) <= 'z')) return true;
    return c && strchr("-._~%!$&'()*+,;=:[]", c) != NULL;
}

static bool rp_slice_all(rtpush_slice s, bool (*is)(char)) {
    for (size_t i = 0; i < s.size; i++)
        if (!is(s.data[i])) return false;
    return true;
}

// uri-host [":" port] (RFC 9110 §7.2), or empty: the characters of a host, and digits behind a colon outside brackets.
static bool rp_http_is_authority(rtpush_slice s) {
    const char *bracket = s.size ? (const char *)memchr(s.data, ']', s.size) : NULL;
    size_t i = bracket ? (size_t)(bracket - s.data) : 0;
    if (!rp_slice_all(s, rp_http_is_host)) return false;
    while (i < s.size && s.data[i] != ':') i++;
    for (i++; i < s.size; i++)
        if (s.data[i] < '0' || s.data[i] > '9') return false;
    return true;
}

// A line that ends with CR LF. > 0: its size with them, *line without; 0: more; -400: a bare CR or LF.
static ptrdiff_t rp_http_line(const char *data, size_t size, rtpush_slice *line) {
    size_t i = 0;
    while (i < size && data[i] != '\r' && data[i] != '\n') i++;
    if (i == size || (data[i] == '\r' && i + 1 == size)) return 0;
    if (data[i] == '\n' || data[i + 1] != '\n') return -400; // RFC 9112 §2.2 allows a bare LF; we refuse it (smuggling)
    *line = rp_slice(data, i);
    return (ptrdiff_t)i + 2;
}

static bool rp_http_is_target(char c) { return (unsigned char)c > 0x20 && (unsigned char)c < 0x7f && c != '#'; }

// RFC 9112 §3.2: origin-form, absolute-form, and * for OPTIONS. Fills path, query and, of an absolute form, host.
static bool rp_http_target(rtpush_head *head) {
    rtpush_slice t = head->target;
    head->host = rp_slice(NULL, 0);
    if (!t.size || !rp_slice_all(t, rp_http_is_target)) return false;
    if (t.size == 1 && *t.data == '*' && rp_slice_equals(head->method, "OPTIONS")) {
        head->path = t;
        head->query = rp_slice(NULL, 0);
        return true;
    }
    size_t scheme = t.size > 7 && rp_slice_is(rp_slice(t.data, 7), "http://") ? 7
                  : t.size > 8 && rp_slice_is(rp_slice(t.data, 8), "https://") ? 8 : 0;
    if (scheme) {
        size_t size = scheme;
        while (size < t.size && t.data[size] != '/' && t.data[size] != '?') size++;
        head->host = rp_slice(t.data + scheme, size - scheme);
        if (!head->host.size || !rp_http_is_authority(head->host)) return false;
        t = rp_slice(t.data + size, t.size - size);
    } else if (*t.data != '/') {
        return false;
    }
    const char *mark = t.size ? (const char *)memchr(t.data, '?', t.size) : NULL;
    head->path = mark ? rp_slice(t.data, (size_t)(mark - t.data)) : t;
    head->query = mark ? rp_slice(mark + 1, t.size - head->path.size - 1) : rp_slice(NULL, 0);
    if (!head->path.size) head->path = rp_slice("/", 1);
    return true;
}

// RFC 9112 §3: method SP request-target SP HTTP-version, one space each.
static int rp_http_request_line(rtpush_head *head, rtpush_slice line) {
    rtpush_slice version;
    if (!rp_slice_next(&line, ' ', &head->method) || !rp_slice_next(&line, ' ', &head->target) || !line.data) return -400;
    version = line;
    if (!head->method.size || !rp_slice_all(head->method, rp_http_is_token) || !rp_http_target(head)) return -400;
    if (version.size != 8 || memcmp(version.data, "HTTP/", 5) || version.data[6] != '.') return -400;
    char major = version.data[5], minor = version.data[7];
    if (major < '0' || major > '9' || minor < '0' || minor > '9') return -400;
    if (major != '1' || minor > '1') return -505;
    head->minor = minor - '0';
    return 0;
}

// RFC 9112 §5: name ":" OWS value OWS. No space before the colon, no folded line (§5.2).
static bool rp_http_field(rtpush_slice line, rtpush_slice *name, rtpush_slice *value) {
    const char *colon = (const char *)memchr(line.data, ':', line.size);
    if (!colon || colon == line.data) return false;
    *name = rp_slice(line.data, (size_t)(colon - line.data));
    *value = rp_slice(colon + 1, line.size - name->size - 1);
    if (!rp_slice_all(*name, rp_http_is_token) || !rp_slice_all(*value, rp_http_is_value)) return false;
    *value = rp_slice_trim(*value);
    return true;
}

// Is the word one of a comma-separated list (RFC 9110 §5.6.1)?
static bool rp_http_list_has(rtpush_slice list, const char *word) {
    rtpush_slice part;
    while (rp_slice_next(&list, ',', &part))
        if (rp_slice_is(rp_slice_trim(part), word)) return true;
    return false;
}

// What is gathered from the fields that decide where a request ends and what becomes of the connection.
typedef struct rp_framing {
    unsigned hosts, lengths, codings;
    bool close, persists, upgrade, websocket;
} rp_framing;

static int rp_http_frame_field(rtpush_head *head, rp_framing *f, rtpush_slice name, rtpush_slice value) {
    if (rp_slice_is(name, "host")) {
        if (f->hosts++ || !rp_http_is_authority(value)) return -400; // RFC 9112 §3.2: exactly one
        if (!head->host.data) head->host = value; // an absolute form's authority goes before (§3.2.2)
    } else if (rp_slice_is(name, "content-length")) {
        // RFC 9112 §6.3 lets equal ones pass; we refuse any second one (smuggling).
        if (f->lengths++ || !rp_slice_number(value, &head->length) || head->length > INT64_MAX) return -400;
        head->has_length = true;
    } else if (rp_slice_is(name, "transfer-encoding")) {
        if (f->codings++ || !head->minor) return -400; // RFC 9112 §6.1: not in HTTP/1.0
        if (!rp_slice_is(value, "chunked")) return -501;
        head->is_chunked = true;
    } else if (rp_slice_is(name, "connection")) {
        f->close |= rp_http_list_has(value, "close");
        f->persists |= rp_http_list_has(value, "keep-alive");
        f->upgrade |= rp_http_list_has(value, "upgrade");
    } else if (rp_slice_is(name, "upgrade")) {
        f->websocket |= rp_http_list_has(value, "websocket");
    } else if (rp_slice_is(name, "expect")) {
        if (!rp_slice_is(value, "100-continue")) return -417; // RFC 9110 §10.1.1
        head->expects_continue = head->minor == 1;
    }
    return 0;
}

static int rp_http_finish(rtpush_head *head, const rp_framing *f) {
    if (head->minor && !f->hosts) return -400;
    if (head->has_length && head->is_chunked) return -400; // RFC 9112 §6.3: it might be smuggling
    head->keep_alive = !f->close && (head->minor || f->persists);
    head->wants_websocket = head->minor && f->upgrade && f->websocket && rp_slice_equals(head->method, "GET");
    return 0;
}

static void rp_http_reset(rtpush_head *head) {
    head->minor = head->status = 0;
    head->keep_alive = head->is_chunked = head->has_length = head->expects_continue = head->wants_websocket = false;
    head->length = 0;
    head->count = 0;
}

// The fields up to the empty line, from data + at. As rtpush_parse_head.
static ptrdiff_t rp_http_fields(rtpush_head *head, rp_framing *framing, const char *data, size_t at, size_t size, size_t headers_max) {
    rtpush_slice line, name, value;
    for (;;) {
        ptrdiff_t n = rp_http_line(data + at, size - at, &line);
        if (n <= 0) return n;
        at += (size_t)n;
        if (!line.size) return (ptrdiff_t)at;
        if (!rp_http_field(line, &name, &value)) return -400;
        if (head->count == RP_MIN(headers_max, (size_t)RTPUSH_HEADERS_MAX)) return -431;
        head->headers[head->count].name = name;
        head->headers[head->count++].value = value;
        int refused = rp_http_frame_field(head, framing, name, value);
        if (refused < 0) return refused;
    }
}

RTPUSH_DEF ptrdiff_t rtpush_parse_head(rtpush_head *head, const char *data, size_t size, size_t line_max, size_t head_max,
                                       size_t headers_max) {
    rtpush_slice line = rp_slice(NULL, 0);
    size_t at = 0;
    if (!line_max) line_max = RP_LINE_MAX;
    if (!head_max) head_max = RP_HEAD_MAX;
    if (!headers_max) headers_max = RTPUSH_HEADERS_MAX;
    rp_http_reset(head);
    while (at < 4 && size - at >= 2 && data[at] == '\r' && data[at + 1] == '\n') at += 2; // RFC 9112 §2.2: empty lines before it
    if (size - at == 1 && data[at] == '\r') return 0;
    ptrdiff_t n = rp_http_line(data + at, size - at, &line);
    if (n < 0) return n;
    if ((n ? line.size : size - at) > line_max) return -414;
    if (!n) return 0;
    rp_framing framing;
    memset(&framing, 0, sizeof framing);
    int refused = rp_http_request_line(head, line);
    if (refused) return refused;
    n = rp_http_fields(head, &framing, data, at + (size_t)n, size, headers_max);
    if (n > 0 && (refused = rp_http_finish(head, &framing)) < 0) return refused;
    return (n > 0 ? (size_t)n : size) > head_max && n >= 0 ? -431 : n;
}

// RFC 9112 §4: HTTP-version SP status-code SP [reason]. The space before an absent reason may be absent too.
static bool rp_http_status_line(rtpush_head *head, rtpush_slice line) {
    if (line.size < 12 || memcmp(line.data, "HTTP/1.", 7) || line.data[8] != ' ') return false;
    if (line.data[7] != '0' && line.data[7] != '1') return false;
    uint64_t status;
    if (!rp_slice_number(rp_slice(line.data + 9, 3), &status) || status < 100 || status > 599) return false;
    if (line.size > 12 && line.data[12] != ' ') return false;
    head->minor = line.data[7] - '0';
    head->status = (int)status;
    return rp_slice_all(rp_slice(line.data + 12, line.size - 12), rp_http_is_value);
}

RTPUSH_DEF ptrdiff_t rtpush_parse_answer(rtpush_head *head, const char *data, size_t size, size_t head_max, size_t headers_max) {
    rtpush_slice line = rp_slice(NULL, 0);
    rp_framing framing;
    if (!head_max) head_max = RP_HEAD_MAX;
    if (!headers_max) headers_max = RTPUSH_HEADERS_MAX;
    rp_http_reset(head);
    memset(&framing, 0, sizeof framing);
    ptrdiff_t n = rp_http_line(data, size, &line);
    if (n < 0) return n;
    if (!n && size > 4 && memcmp(data, "HTTP/", 5)) return -400; // no need to wait for the end of what is no answer
    if (n && !rp_http_status_line(head, line)) return -400;
    if (n) n = rp_http_fields(head, &framing, data, (size_t)n, size, headers_max);
    if (n < 0) return n;
    if ((n ? (size_t)n : size) > head_max) return -431;
    if (!n) return 0;
    if (head->has_length && head->is_chunked) return -400; // RFC 9112 §6.3
    head->keep_alive = !framing.close && (head->minor || framing.persists);
    head->wants_websocket = head->status == 101 && head->minor && framing.upgrade && framing.websocket;
    return n;
}

// --- chunked transfer coding (RFC 9112 §7.1) ---

enum rp_chunk_state {
    RP_CHUNK_SIZE,       // hex digits
    RP_CHUNK_EXT,        // what follows them up to the CR: read over, within a bound
    RP_CHUNK_SIZE_LF,    // the LF behind the size
    RP_CHUNK_DATA,       // `left` bytes of body
    RP_CHUNK_DATA_CR,    // the CR LF behind them
    RP_CHUNK_DATA_LF,
    RP_CHUNK_TRAILER,    // at the start of a trailer line, or of the empty one
    RP_CHUNK_TRAILER_IN, // inside one: read over, within the bound
    RP_CHUNK_TRAILER_LF,
    RP_CHUNK_END_LF,     // the LF of the empty line
    RP_CHUNK_BAD         // refused: for good
};

// One byte of what is not body. false: malformed.
static bool rp_chunk_step(rtpush_chunked *c, char byte) {
    int digit = rp_hex_digit(byte);
    switch ((enum rp_chunk_state)c->state) {
    case RP_CHUNK_SIZE:
        if (digit >= 0) {
            if (c->digits++ == 16 || c->left >> 59) return false;
            c->left = c->left << 4 | (uint64_t)digit;
            return true;
        }
        if (!c->digits || (byte != '\r' && byte != ';')) return false;
        c->state = byte == '\r' ? RP_CHUNK_SIZE_LF : RP_CHUNK_EXT;
        return true;
    case RP_CHUNK_EXT:
        if (byte == '\r') c->state = RP_CHUNK_SIZE_LF;
        return byte == '\r' || (rp_http_is_value(byte) && c->trailer++ < RP_TRAILER_MAX);
    case RP_CHUNK_SIZE_LF:
        c->state = c->left ? RP_CHUNK_DATA : RP_CHUNK_TRAILER;
        return byte == '\n';
    case RP_CHUNK_DATA_CR:
        c->state = RP_CHUNK_DATA_LF;
        return byte == '\r';
    case RP_CHUNK_DATA_LF:
        c->state = RP_CHUNK_SIZE;
        c->digits = 0;
        return byte == '\n';
    case RP_CHUNK_TRAILER:
        c->state = byte == '\r' ? RP_CHUNK_END_LF : RP_CHUNK_TRAILER_IN;
        return byte == '\r' || (rp_http_is_token(byte) && c->trailer++ < RP_TRAILER_MAX);
    case RP_CHUNK_TRAILER_IN:
        if (byte == '\r') c->state = RP_CHUNK_TRAILER_LF;
        return byte == '\r' || (rp_http_is_value(byte) && c->trailer++ < RP_TRAILER_MAX);
    case RP_CHUNK_TRAILER_LF:
        c->state = RP_CHUNK_TRAILER;
        return byte == '\n';
    case RP_CHUNK_END_LF:
        c->is_done = byte == '\n';
        return c->is_done;
    case RP_CHUNK_DATA:
    case RP_CHUNK_BAD: break;
    }
    return false;
}

RTPUSH_DEF ptrdiff_t rtpush_parse_chunked(rtpush_chunked *chunked, const char *data, size_t size, rtpush_slice *body) {
    size_t at = 0;
    *body = rp_slice(data, 0);
    while (at < size && !chunked->is_done) {
        if (chunked->state != RP_CHUNK_DATA) {
            if (rp_chunk_step(chunked, data[at++])) continue;
            chunked->state = RP_CHUNK_BAD;
            return -1;
        }
        size_t n = (size_t)RP_MIN(chunked->left, (uint64_t)(size - at));
        *body = rp_slice(data + at, n);
        chunked->left -= n;
        if (!chunked->left) chunked->state = RP_CHUNK_DATA_CR;
        return (ptrdiff_t)(at + n);
    }
    return (ptrdiff_t)at;
}
#endif // RP_OPEN

#ifdef RP_SERVER
static const char *rp_http_reason(int status) {
    static const struct { int status; const char *reason; } known[] = {
        {200, "OK"}, {201, "Created"}, {202, "Accepted"}, {204, "No Content"}, {206, "Partial Content"}, {301, "Moved Permanently"},
        {302, "Found"}, {303, "See Other"}, {304, "Not Modified"}, {307, "Temporary Redirect"}, {308, "Permanent Redirect"},
        {400, "Bad Request"}, {401, "Unauthorized"}, {403, "Forbidden"}, {404, "Not Found"}, {405, "Method Not Allowed"},
        {408, "Request Timeout"}, {409, "Conflict"}, {410, "Gone"}, {413, "Content Too Large"}, {414, "URI Too Long"},
        {415, "Unsupported Media Type"}, {417, "Expectation Failed"}, {422, "Unprocessable Content"}, {426, "Upgrade Required"},
        {429, "Too Many Requests"}, {431, "Request Header Fields Too Large"}, {500, "Internal Server Error"},
        {501, "Not Implemented"}, {502, "Bad Gateway"}, {503, "Service Unavailable"}, {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"}};
    for (size_t i = 0; i < RP_COUNT(known); i++)
        if (known[i].status == status) return known[i].reason;
    return "Unknown";
}

// The short code of an error body, for programs.
static const char *rp_http_error_code(int status) {
    switch (status) {
    case 400: return "bad_request";
    case 401: return "unauthorized";
    case 403: return "forbidden";
    case 404: return "not_found";
    case 405: return "method_not_allowed";
    case 408: return "timeout";
    case 413: return "too_large";
    case 414: return "uri_too_long";
    case 417: return "expectation_failed";
    case 426: return "upgrade_required";
    case 429: return "too_many_requests";
    case 431: return "header_too_large";
    case 501: return "not_implemented";
    case 503: return "unavailable";
    case 505: return "http_version";
    default: return "internal";
    }
}

static rtpush_slice rp_http_header(const rtpush_head *head, const char *name) {
    for (size_t i = 0; i < head->count; i++)
        if (rp_slice_is(head->headers[i].name, name)) return head->headers[i].value;
    return rp_slice(NULL, 0);
}

// Percent-decoding into out of at least the same size; false: a bad escape or a NUL. `plus`: + is a space (a query).
static bool rp_http_decode(char *out, size_t *size, rtpush_slice s, bool plus) {
    size_t n = 0;
    for (size_t i = 0; i < s.size; i++) {
        char c = s.data[i];
        if (c == '%') {
            int high = s.size - i > 2 ? rp_hex_digit(s.data[i + 1]) : -1, low = high < 0 ? -1 : rp_hex_digit(s.data[i + 2]);
            if (low < 0) return false;
            c = (char)(high << 4 | low);
            i += 2;
        } else if (plus && c == '+') {
            c = ' ';
        }
        if (!c) return false;
        out[n++] = c;
    }
    *size = n;
    return true;
}

// The date of RFC 9110 §5.6.7, 29 characters, from days since 1970 by the civil calendar.
static void rp_http_date(char out[30], int64_t wall_ms) {
    char text[64];
    static const char days[] = "ThuFriSatSunMonTueWed", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    int64_t seconds = wall_ms / 1000, day = seconds / 86400, rest = seconds % 86400;
    int64_t z = day + 719468, era = z / 146097, doe = z - era * 146097; // era: 400 years from 1 March 0000
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365, doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t mp = (5 * doy + 2) / 153, month = mp < 10 ? mp + 2 : mp - 10; // 0 is January
    snprintf(text, sizeof text, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT", days + day % 7 * 3, (int)(doy - (153 * mp + 2) / 5 + 1),
             months + month * 3, (int)((yoe + era * 400 + (month < 2)) % 10000), (int)(rest / 3600), (int)(rest / 60 % 60), (int)(rest % 60));
    memcpy(out, text, 29);
    out[29] = 0;
}
#endif // RP_SERVER

// ============================================================================
// >>ws  WebSocket frames, close codes, the handshake's key  (uses: codec, bytes)
//
//     0               1               2               3          RFC 6455 §5.2
//     F R R R  opcode | M  length 7   | 16 or 64 bits of length if 126 or 127
//     I S S S         | A             | 32 bits of masking key if MASK
//     N V V V (4)     | S             | payload
//
// The head is parsed statelessly; a message is put together by rp_ws, which exists
// only while one is under way.
// ============================================================================
#ifdef RP_OPEN
enum { RP_WS_CONTINUATION, RP_WS_TEXT, RP_WS_BINARY, RP_WS_CLOSE = 8, RP_WS_PING, RP_WS_PONG };
enum { RP_WS_HEAD_MAX = 14, RP_WS_CONTROL_MAX = 125 };

RTPUSH_DEF ptrdiff_t rtpush_parse_frame(rtpush_frame *frame, const unsigned char *data, size_t size) {
    if (size < 2) return 0;
    frame->is_final = data[0] >> 7;
    frame->rsv = data[0] >> 4 & 7;
    frame->opcode = data[0] & 15;
    frame->is_masked = data[1] >> 7;
    frame->length = data[1] & 127;
    if (frame->rsv) return -1002; // RFC 6455 §5.2: no extension gave them a meaning
    if (frame->opcode > RP_WS_PONG || (frame->opcode > RP_WS_BINARY && frame->opcode < RP_WS_CLOSE)) return -1002; // §5.2: unknown
    // RFC 6455 §5.5: a control frame is not fragmented and has at most 125 bytes.
    if (frame->opcode >= RP_WS_CLOSE && (!frame->is_final || frame->length > RP_WS_CONTROL_MAX)) return -1002;
    size_t extra = frame->length < 126 ? 0 : frame->length == 126 ? 2 : 8, total = 2 + extra + (frame->is_masked ? 4 : 0);
    if (size < total) return 0;
    if (extra) frame->length = 0;
    for (size_t i = 0; i < extra; i++) frame->length = frame->length << 8 | data[2 + i];
    if (frame->length >> 63) return -1002; // RFC 6455 §5.2: the most significant bit must be 0
    memset(frame->key, 0, 4);
    if (frame->is_masked) memcpy(frame->key, data + 2 + extra, 4);
    return (ptrdiff_t)total;
}
#endif // RP_OPEN

#ifdef RP_SERVER
// A server's frame head (not masked, RFC 6455 §5.1); returns its size, 2, 4 or 10.
static size_t rp_ws_head(unsigned char out[RP_WS_HEAD_MAX], unsigned opcode, uint64_t size) {
    out[0] = (unsigned char)(0x80 | opcode);
    if (size < 126) { out[1] = (unsigned char)size; return 2; }
    unsigned extra = size < 65536 ? 2 : 8;
    out[1] = extra == 2 ? 126 : 127;
    for (unsigned i = 0; i < extra; i++) out[2 + i] = (unsigned char)(size >> (8 * (extra - 1 - i)));
    return 2 + extra;
}

static size_t rp_ws_head_size(uint64_t size) { return size < 126 ? 2 : size < 65536 ? 4 : 10; }

static void rp_ws_put(rp_mem *mem, rp_buf *buf, unsigned opcode, const void *data, size_t size) {
    unsigned char head[RP_WS_HEAD_MAX];
    size_t n = rp_ws_head(head, opcode, size);
    if (!rp_buf_room(mem, buf, n + size)) return; // whole or not at all
    rp_buf_put(mem, buf, head, n);
    rp_buf_put(mem, buf, data, size);
}

// A code and a reason, cut to what a control frame holds without splitting a character.
static void rp_ws_put_close(rp_mem *mem, rp_buf *buf, int code, const char *reason) {
    char body[RP_WS_CONTROL_MAX];
    size_t size = strlen(reason);
    if (size > sizeof body - 2)
        for (size = sizeof body - 2; size && ((unsigned char)reason[size] & 0xc0) == 0x80;) size--;
    body[0] = (char)(code >> 8);
    body[1] = (char)(code & 255);
    memcpy(body + 2, reason, size);
    rp_ws_put(mem, buf, RP_WS_CLOSE, body, code ? size + 2 : 0);
}

// RFC 6455 §7.4: the codes that may stand in a close frame.
static bool rp_ws_is_code(unsigned code) {
    if (code >= 3000 && code <= 4999) return true;
    return code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006;
}

// The code a close frame's body brings, 1005 if it is empty (RFC 6455 §7.1.5). < 0: refused, the negated code.
static int rp_ws_close_code(const unsigned char *body, size_t size) {
    if (!size) return 1005;
    if (size == 1) return -1002;
    unsigned code = (unsigned)body[0] << 8 | body[1];
    if (!rp_ws_is_code(code)) return -1002;
    return rtpush_utf8(0, body + 2, size - 2) ? -1007 : (int)code; // §5.5.1: the reason is UTF-8
}

// RFC 6455 §4.2.1: base64 of 16 bytes, 24 characters.
static bool rp_ws_is_key(rtpush_slice key) {
    char bytes[24];
    return key.size == 24 && rp_base64_read(bytes, key.data, 24) == 16;
}

// RFC 6455 §4.2.2, 5.4: base64 of the SHA-1 of the key and this GUID.
static void rp_ws_accept(char out[28], rtpush_slice key) {
    char text[60];
    unsigned char digest[20];
    memcpy(text, key.data, 24);
    memcpy(text + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    rp_sha1(digest, text, sizeof text);
    rp_base64_write(out, digest, sizeof digest);
}

// A message being put together: RFC 6455 §5.4, with control frames in between.
typedef struct rp_ws {
    rtpush_frame frame;  // the data frame under way
    uint64_t left, at;   // bytes of it still to come, bytes that came
    uint64_t began_ms;   // when the message's first byte came
    uint32_t utf8;       // state at the end of `message`
    uint32_t fragments;
    unsigned char opcode; // of the message; 0: none begun
    rp_buf message;
} rp_ws;

// What a frame's head means for the message under way: 0, or the negated close code.
static int rp_ws_begin(rp_ws *ws, const rtpush_frame *frame, uint64_t message_max, uint32_t fragments_max) {
    bool continues = frame->opcode == RP_WS_CONTINUATION;
    if (continues != (ws->opcode != 0)) return -1002; // RFC 6455 §5.4
    uint64_t have = rp_buf_size(&ws->message);
    if (frame->length > message_max - RP_MIN(have, message_max)) return -1009; // before anything is allocated
    if (++ws->fragments > fragments_max) return -1008;
    if (!continues) ws->opcode = frame->opcode;
    ws->frame = *frame;
    ws->left = frame->length;
    ws->at = 0;
    return 0;
}

// Takes what has come of the frame's payload. 0, -1007, or -1011: no memory.
static int rp_ws_take(rp_mem *mem, rp_ws *ws, const char *data, size_t size) {
    char *room = rp_buf_room(mem, &ws->message, size);
    if (size && !room) return -1011;
    if (size) memcpy(room, data, size);
    if (size) ws->at = rtpush_mask((unsigned char *)room, size, ws->frame.key, ws->at);
    ws->message.end += size;
    ws->left -= size;
    if (ws->opcode != RP_WS_TEXT) return 0;
    ws->utf8 = rtpush_utf8(ws->utf8, room, size); // RFC 6455 §8.1: at the first byte that cannot be
    bool ends = !ws->left && ws->frame.is_final;
    return ws->utf8 == RTPUSH_UTF8_BAD || (ends && ws->utf8) ? -1007 : 0;
}
#endif // RP_SERVER
#ifdef RP_CLIENT
// A client's frame, masked by a key that nobody can foretell (RFC 6455 §5.3).
static void rp_ws_put_masked(rp_mem *mem, rp_buf *buf, unsigned opcode, const void *data, size_t size, const unsigned char key[4]) {
    unsigned char head[RP_WS_HEAD_MAX];
    size_t n = rp_ws_head(head, opcode, size);
    head[1] |= 0x80;
    memcpy(head + n, key, 4);
    if (!rp_buf_room(mem, buf, n + 4 + size)) return; // whole or not at all
    rp_buf_put(mem, buf, head, n + 4);
    rp_buf_put(mem, buf, data, size);
    rtpush_mask((unsigned char *)buf->data + buf->end - size, size, key, 0);
}
#endif // RP_CLIENT

// ============================================================================
// >>sse  server-sent events: how a block is spelled  (uses: bytes)
//
// WHATWG HTML §9.2. Lines end with LF. Data may hold CR, LF and CRLF: each ends a line
// and begins another `data:`, so that no payload can forge a field.
// ============================================================================
#ifdef RP_SERVER
static void rp_sse_field(rp_mem *mem, rp_buf *buf, const char *name, const char *value, size_t size) {
    rp_buf_text(mem, buf, name);
    rp_buf_put(mem, buf, value, size);
    rp_buf_put(mem, buf, "\n", 1);
}

static void rp_sse_data(rp_mem *mem, rp_buf *buf, const char *data, size_t size) {
    size_t from = 0;
    for (size_t i = 0; i < size; i++) {
        if (data[i] != '\r' && data[i] != '\n') continue;
        rp_sse_field(mem, buf, "data: ", data + from, i - from);
        if (data[i] == '\r' && i + 1 < size && data[i + 1] == '\n') i++;
        from = i + 1;
    }
    rp_sse_field(mem, buf, "data: ", data + from, size - from);
}

// The head of a chunk (RFC 9112 §7.1): the size in hex and CR LF; returns its size.
enum { RP_CHUNK_HEAD_MAX = 18 };

static size_t rp_chunk_head(char out[RP_CHUNK_HEAD_MAX], size_t size) {
    static const char hex[] = "0123456789abcdef";
    size_t n = 1;
    while (n < 16 && (uint64_t)size >> (4 * n)) n++;
    for (size_t i = 0; i < n; i++) out[i] = hex[(uint64_t)size >> (4 * (n - 1 - i)) & 15];
    out[n] = '\r';
    out[n + 1] = '\n';
    return n + 2;
}

static void rp_chunk_put(rp_mem *mem, rp_buf *buf, const void *data, size_t size) {
    char head[RP_CHUNK_HEAD_MAX];
    size_t n = rp_chunk_head(head, size);
    if (!size || !rp_buf_room(mem, buf, n + size + 2)) return; // whole or not at all; an empty one would end the body
    rp_buf_put(mem, buf, head, n);
    rp_buf_put(mem, buf, data, size);
    rp_buf_put(mem, buf, "\r\n", 2);
}
#endif // RP_SERVER
#ifdef RP_CLIENT
// --- reading a stream (WHATWG HTML §9.2.6) ---

typedef struct rp_stream_in {
    rp_buf line, data, event;
    rp_buf id;          // the last event ID: stays from event to event, and over connections
    rp_buf next_id;     // what it will be when the block at hand is whole
    uint64_t retry_ms;
    bool has_retry, has_data, has_id; // in the block at hand
    bool is_moved; // the block that is whole had an id
    bool is_behind_cr, is_begun;
} rp_stream_in;

static void rp_stream_in_free(rp_mem *mem, rp_stream_in *in) {
    rp_buf_free(mem, &in->line);
    rp_buf_free(mem, &in->data);
    rp_buf_free(mem, &in->event);
    rp_buf_free(mem, &in->id);
    rp_buf_free(mem, &in->next_id);
}

// Another connection: what was incomplete is forgotten, the last event ID is not.
static void rp_stream_in_restart(rp_stream_in *in) {
    rp_buf_rewind(&in->line);
    rp_buf_rewind(&in->data);
    rp_buf_rewind(&in->event);
    in->has_data = in->has_id = in->is_moved = in->is_behind_cr = in->is_begun = in->has_retry = false;
}

static void rp_stream_in_field(rp_mem *mem, rp_stream_in *in, rtpush_slice name, rtpush_slice value) {
    if (rp_slice_equals(name, "data")) {
        if (in->has_data) rp_buf_put(mem, &in->data, "\n", 1);
        rp_buf_slice_put(mem, &in->data, value);
        in->has_data = true;
    } else if (rp_slice_equals(name, "event")) {
        rp_buf_rewind(&in->event);
        rp_buf_slice_put(mem, &in->event, value);
    } else if (rp_slice_equals(name, "id") && !(value.size && memchr(value.data, 0, value.size))) {
        rp_buf_rewind(&in->next_id);
        rp_buf_slice_put(mem, &in->next_id, value);
        in->has_id = true;
    } else if (rp_slice_equals(name, "retry") && rp_slice_number(value, &in->retry_ms)) {
        in->has_retry = true;
    }
}

// A whole line. true: it was the empty one, which ends an event.
static bool rp_stream_in_line(rp_mem *mem, rp_stream_in *in) {
    rtpush_slice line = rp_buf_slice(&in->line), name;
    if (!in->is_begun && line.size >= 3 && !memcmp(line.data, "\xef\xbb\xbf", 3)) line = rp_slice(line.data + 3, line.size - 3);
    in->is_begun = true;
    bool is_end = !line.size;
    if (line.size && *line.data != ':') {
        rp_slice_next(&line, ':', &name);
        if (line.size && *line.data == ' ') line = rp_slice(line.data + 1, line.size - 1);
        rp_stream_in_field(mem, in, name, line);
    }
    rp_buf_rewind(&in->line);
    if (is_end) in->is_moved = in->has_id;
    if (is_end && in->has_id) {
        rp_buf whole = in->next_id;
        in->next_id = in->id;
        in->id = whole;
        in->has_id = false;
    }
    return is_end;
}

// Takes from data up to the end of an event (*is_event; it is in `in` until rp_stream_in_next) or of the data. Returns
// what was taken, -1: larger than max, or no memory.
static ptrdiff_t rp_stream_in_take(rp_mem *mem, rp_stream_in *in, const char *data, size_t size, size_t max, bool *is_event) {
    size_t at = 0;
    *is_event = false;
    while (at < size && !*is_event) {
        if (in->is_behind_cr && data[at] == '\n') at++;
        in->is_behind_cr = false;
        size_t from = at;
        while (at < size && data[at] != '\n' && data[at] != '\r') at++;
        if (at - from > max - RP_MIN(max, rp_buf_size(&in->line) + rp_buf_size(&in->data))) return -1;
        if (!rp_buf_put(mem, &in->line, data + from, at - from)) return -1;
        if (at == size) break;
        in->is_behind_cr = data[at++] == '\r';
        *is_event = rp_stream_in_line(mem, in);
    }
    return in->data.is_broken || in->event.is_broken || in->id.is_broken || in->next_id.is_broken ? -1 : (ptrdiff_t)at;
}

static void rp_stream_in_next(rp_stream_in *in) {
    rp_buf_rewind(&in->data);
    rp_buf_rewind(&in->event);
    in->has_data = false;
}
#endif // RP_CLIENT

// ============================================================================
// >>longpoll  cursors as text, and where a reader starts  (uses: json)
//
// `epoch-seq` names a position in the log, on every transport. How parked polls wait
// and are answered is in `reader` (they are subscriptions like all others) and `conn`.
// ============================================================================
#ifdef RP_OPEN
RTPUSH_DEF bool rtpush_parse_cursor(rtpush_cursor *cursor, const char *data, size_t size) {
    if (size < 10 || size > 29 || data[8] != '-') return false;
    for (size_t i = 0; i < 8; i++) {
        bool good = (data[i] >= 'a' && data[i] <= 'z') || (data[i] >= '0' && data[i] <= '9');
        if (!good) return false;
        cursor->epoch[i] = data[i];
    }
    cursor->epoch[8] = 0;
    return rp_slice_number(rp_slice(data + 9, size - 9), &cursor->seq);
}
#endif // RP_OPEN

#ifdef RP_SERVER
enum { RP_CURSOR_MAX = 30 };

static size_t rp_cursor_write(char out[RP_CURSOR_MAX], const char *epoch, uint64_t seq) {
    memcpy(out, epoch, 8);
    out[8] = '-';
    size_t n = 9 + rp_format_number(out + 9, seq);
    out[n] = 0;
    return n;
}

// 8 of [a-z0-9], as in a cursor.
static bool rp_is_epoch(rtpush_slice s) {
    rtpush_cursor cursor;
    char text[RP_CURSOR_MAX];
    if (s.size != 8) return false;
    memcpy(text, s.data, 8);
    memcpy(text + 8, "-0", 2);
    return rtpush_parse_cursor(&cursor, text, 10);
}

// Where a reader starts (PROTOCOL §2).
enum rp_start_kind { RP_START_NONE, RP_START_LATEST, RP_START_EARLIEST, RP_START_LAST, RP_START_SEQ, RP_START_CURSOR, RP_START_BAD };

typedef struct rp_start {
    enum rp_start_kind kind;
    uint64_t seq; // of SEQ and CURSOR; of LAST: how many of each topic
    char epoch[9];
} rp_start;

static rp_start rp_start_parse(rtpush_slice text) {
    rp_start start;
    rtpush_cursor cursor;
    memset(&start, 0, sizeof start);
    if (!text.size) start.kind = RP_START_NONE;
    else if (rp_slice_equals(text, "latest")) start.kind = RP_START_LATEST;
    else if (rp_slice_equals(text, "earliest")) start.kind = RP_START_EARLIEST;
    else if (*text.data == '-' && rp_slice_number(rp_slice(text.data + 1, text.size - 1), &start.seq)) start.kind = RP_START_LAST;
    else if (rp_slice_number(text, &start.seq)) start.kind = RP_START_SEQ;
    else if (rtpush_parse_cursor(&cursor, text.data, text.size)) {
        start.kind = RP_START_CURSOR;
        start.seq = cursor.seq;
        memcpy(start.epoch, cursor.epoch, 9);
    } else start.kind = RP_START_BAD;
    return start;
}
#endif // RP_SERVER

// ============================================================================
// >>topic  the log: messages, their spellings, retention  (uses: ws, time, table)
//
// A message is immutable and lies in its topic's ring and in the spine, which is all
// held messages in the order of seq. Its bytes lie in blocks: one topic's messages in
// one spelling, appended, so that neighbours go out as one piece. The raw WebSocket
// frame is made at publish and is the payload's home; other spellings on first use.
//
//     block   [event\0 | frame head | payload][frame head | payload]...
//                        ^ as[RP_RAW]: raw readers get this span as it is
//
// A source is what can be subscribed to: a topic, or a pattern without a ring.
// Nothing is trimmed above `safe`: every reader with room has had its turn up to there.
// ============================================================================
#ifdef RP_OPEN
enum { RP_TOPIC_MAX = 255 };

// The segments of a name: the next one up to '/' off the front of *rest.
RTPUSH_DEF bool rtpush_is_topic(const char *name, size_t size, bool allow_wild) {
    rtpush_slice rest = rp_slice(name, size), part;
    if (!size || size > RP_TOPIC_MAX || rtpush_utf8(0, name, size)) return false;
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)name[i];
        bool is_c1 = c == 0xc2 && (unsigned char)name[i + 1] < 0xa0; // U+0080 to U+009F
        if (c < 0x20 || c == 0x7f || is_c1) return false;
    }
    while (rp_slice_next(&rest, '/', &part)) {
        if (!part.size) return false;
        if (!memchr(part.data, '*', part.size)) continue;
        bool is_wild = part.size <= 2 && part.data[0] == '*' && part.data[part.size - 1] == '*';
        if (!allow_wild || !is_wild || rest.data) return false; // only the last segment, and only as a whole
    }
    return true;
}

static bool rp_topic_is_pattern(rtpush_slice name) { return name.size && name.data[name.size - 1] == '*'; }

// Does a pattern match? `*`: one more segment; `**`: one or more. Behind a first segment with @ only one spelled so.
static bool rp_topic_matches(rtpush_slice pattern, rtpush_slice name) {
    if (!rp_topic_is_pattern(pattern)) return pattern.size == name.size && !memcmp(pattern.data, name.data, name.size);
    bool is_deep = pattern.size > 1 && pattern.data[pattern.size - 2] == '*';
    size_t prefix = pattern.size - (is_deep ? 2 : 1);
    if (name.size <= prefix || memcmp(pattern.data, name.data, prefix)) return false;
    if (!prefix && name.data[0] == '@' && !RTPUSH_BREAK(8)) return false;
    return is_deep || !memchr(name.data + prefix, '/', name.size - prefix);
}

RTPUSH_DEF bool rtpush_matches(const char *pattern, const char *name) {
    return rp_topic_matches(rp_slice_of(pattern), rp_slice_of(name));
}
#endif // RP_OPEN

#ifdef RP_SERVER
typedef struct rp_topic rp_topic;
typedef struct rp_source rp_source;
typedef struct rp_reader rp_reader;

// A message's bytes that several loops have; they follow.
typedef struct rp_shared {
    uint32_t refs, size; // refs: of all threads
} rp_shared;

// Bytes shared by whoever sends them. refs: messages spelled in it, connections that pin it, and the topic that still
// appends to it.
typedef struct rp_block {
    uint32_t refs, used, cap;
    rp_shared *shared; // NULL: its bytes follow
} rp_block;

typedef struct rp_piece {
    rp_block *block;
    uint32_t at, size;
} rp_piece;

enum rp_spelling { RP_RAW, RP_ENVELOPE, RP_EVENT, RP_EVENT_ENVELOPE, RP_ITEM, RP_SPELLINGS };

typedef struct rp_msg {
    uint64_t seq, born_ms;
    rp_topic *topic;
    rp_piece as[RP_SPELLINGS];
    uint32_t size;
    uint16_t event_size;
    uint8_t kind;
    bool is_ephemeral;
} rp_msg;

// "It has everything of this source up to pos", and how many of its messages were done with when it had.
typedef struct rp_entry {
    uint64_t pos;
    rp_reader *reader;
    uint32_t done; // in units of source.total
} rp_entry;

struct rp_source {
    rp_node node; // in hub.names
    uint64_t last, evicted; // evicted <= last: the highest seq of a stored message that is no longer held
    rp_entry *entries;      // dense; removed by moving the last one into the place
    uint32_t count, cap;
    uint32_t total; // messages so far, modulo 2^32
    uint32_t lost;  // how many of them were dropped, modulo 2^32
    uint32_t at, left; // the walk in progress: place, entries still to visit
    uint64_t circle, safe, fresh; // seq the circle is for; up to where all had their turn; the first since it is dirty, less 1
    rp_source *next_dirty;
    rp_source **links; // topic: patterns that match it; pattern: none
    uint32_t link_count, link_cap;
    bool is_dirty, is_pattern;
    uint8_t slow; // rtpush_slow
    uint8_t name_size;
    char *name;
};

typedef struct rp_keep {
    uint32_t count;
    uint64_t bytes;
    int64_t ms; // -1: without end
} rp_keep;

struct rp_topic {
    rp_source source;
    rp_msg **ring; // circular, cap a power of two
    uint32_t first, count, cap, ephemerals;
    uint64_t bytes;    // payloads held
    uint64_t cleared;  // all up to here is dropped as soon as it is safe
    rp_keep keep;
    rp_block *tails[RP_SPELLINGS]; // what is still appended to
    rp_topic *next_trim;
    rp_topic *quiet_next, *quiet_prev; // the list of topics without readers, oldest first
    bool is_to_trim, is_quiet, has_presence;
    bool is_whole; // of a durable one: nothing that Redis has of it is missing here
    rp_timer expiry;
    char text[1]; // the name
};

typedef struct rp_spine_item {
    uint64_t seq;
    rp_msg *msg; // NULL: a hole
} rp_spine_item;

typedef struct rp_log {
    rp_mem *mem;
    char epoch[9];
    uint64_t head, floor, safe;
    uint64_t bytes, evictions; // bytes: blocks, messages
    rp_spine_item *spine;      // items [spine_first, spine_end)
    uint32_t spine_first, spine_end, spine_cap, held;
    uint64_t despelled; // no message up to here has a spelling but the raw one
    rp_source *dirty_first, *dirty_last;
    rp_topic *trim_first;
    bool shares;         // other loops have the same messages: large ones are in memory once
    rp_shared *arriving; // the bytes of the message that is being taken from another loop, if they are shared
} rp_log;

static rtpush_slice rp_source_name(const rp_source *s) { return rp_slice(s->name, s->name_size); }
static rp_topic *rp_source_topic(rp_source *s) { return s->is_pattern ? NULL : (rp_topic *)(void *)s; }
static rp_msg *rp_topic_at(const rp_topic *t, uint32_t i) { return t->ring[(t->first + i) & (t->cap - 1)]; }

// Does a message of this topic come to this source's readers?
static bool rp_source_has(const rp_source *s, const rp_topic *t) {
    if (!s->is_pattern) return s == &t->source;
    for (uint32_t i = 0; i < t->source.link_count; i++)
        if (t->source.links[i] == s) return true;
    return false;
}

// Up to where messages of the source are lost to who comes now.
static uint64_t rp_source_lost(const rp_source *s) {
    if (s->is_pattern) return s->evicted;
    return RP_MAX(s->evicted, ((const rp_topic *)(const void *)s)->cleared);
}

// --- blocks ---

// Below RP_SHARE_MIN a copy for each loop is cheaper than a counter that all cores write.
enum { RP_BLOCK_FIRST = 256, RP_BLOCK_LAST = 65536, RP_BLOCK_ALONE = 16384, RP_SHARE_MIN = 1024 };

static char *rp_block_bytes(rp_block *block) { return block->shared ? (char *)(block->shared + 1) : (char *)(block + 1); }

static rp_shared *rp_shared_hold(rp_shared *shared) {
    if (shared) RP_ATOMIC_ADD(&shared->refs, 1u);
    return shared;
}

static void rp_shared_drop(rp_shared *shared) {
    if (shared && !RP_ATOMIC_ADD(&shared->refs, (uint32_t)-1)) RTPUSH_FREE(shared);
}

// The system's memory: whichever loop is the last to let go of it frees it.
static rp_shared *rp_shared_new(size_t size) {
    if (size > UINT32_MAX - sizeof(rp_shared)) return NULL; // as rp_block_new
    rp_shared *shared = (rp_shared *)RTPUSH_REALLOC(NULL, sizeof *shared + size);
    if (!shared) return NULL;
    shared->refs = 1;
    shared->size = (uint32_t)size;
    return shared;
}

static rp_block *rp_block_new(rp_log *log, size_t cap) {
    if (cap > UINT32_MAX - sizeof(rp_block)) return NULL;
    rp_block *block = (rp_block *)rp_mem_resize(log->mem, NULL, sizeof *block + cap);
    if (!block) return NULL;
    block->refs = 1;
    block->used = 0;
    block->cap = (uint32_t)cap;
    block->shared = NULL;
    log->bytes += sizeof *block + cap;
    return block;
}

static void rp_block_unref(rp_log *log, rp_block *block) {
    if (!block || --block->refs) return;
    log->bytes -= sizeof *block + block->cap;
    rp_shared_drop(block->shared);
    rp_mem_free(log->mem, block);
}

static rp_piece rp_piece_of(rp_block *block, uint32_t at, size_t size) {
    rp_piece piece;
    piece.block = block;
    piece.at = at;
    piece.size = (uint32_t)size;
    return piece;
}

static void rp_piece_drop(rp_log *log, rp_piece *piece) {
    rp_block_unref(log, piece->block);
    memset(piece, 0, sizeof *piece);
}

// Room for `size` bytes of a topic's spelling, next to what came before where it fits: *piece names it and has a
// reference. NULL: no memory.
static char *rp_topic_room(rp_log *log, rp_topic *t, enum rp_spelling spelling, size_t size, rp_piece *piece) {
    rp_block *tail = t->tails[spelling];
    if (tail && tail->refs == 1) tail->used = 0; // nobody has anything in it any more
    if (size > RP_BLOCK_ALONE) {
        rp_block *alone = rp_block_new(log, size);
        if (!alone) return NULL;
        alone->used = (uint32_t)size;
        *piece = rp_piece_of(alone, 0, size);
        return rp_block_bytes(alone);
    }
    if (!tail || tail->cap - tail->used < size) {
        size_t cap = tail ? RP_MIN((size_t)tail->cap * 2, (size_t)RP_BLOCK_LAST) : (size_t)RP_BLOCK_FIRST;
        while (cap < size) cap *= 2;
        rp_block *next = rp_block_new(log, cap);
        if (!next) return NULL;
        rp_block_unref(log, tail);
        t->tails[spelling] = tail = next;
    }
    *piece = rp_piece_of(tail, tail->used, size);
    tail->refs++;
    tail->used += (uint32_t)size;
    return rp_block_bytes(tail) + piece->at;
}

// The same for bytes that all loops share; is_there: they are written already.
static char *rp_log_room_shared(rp_log *log, size_t size, rp_piece *piece, bool *is_there) {
    rp_block *block = rp_block_new(log, 0);
    if (!block) return NULL;
    *is_there = log->arriving && log->arriving->size == size;
    block->shared = *is_there ? rp_shared_hold(log->arriving) : rp_shared_new(size);
    if (!block->shared) { rp_block_unref(log, block); return NULL; }
    block->used = block->cap = (uint32_t)size;
    log->bytes += size;
    *piece = rp_piece_of(block, 0, size);
    return rp_block_bytes(block);
}

// --- messages ---

static const char *rp_msg_data(const rp_msg *m) {
    return rp_block_bytes(m->as[RP_RAW].block) + m->as[RP_RAW].at + rp_ws_head_size(m->size);
}

static const char *rp_msg_event(const rp_msg *m) {
    return m->event_size ? rp_block_bytes(m->as[RP_RAW].block) + m->as[RP_RAW].at - m->event_size - 1 : "";
}

static size_t rp_msg_charge(const rp_msg *m) { return m->size + m->event_size; }

static void rp_msg_free(rp_log *log, rp_msg *m) {
    for (unsigned i = 0; i < RP_SPELLINGS; i++) rp_piece_drop(log, &m->as[i]);
    log->bytes -= sizeof *m;
    rp_mem_free(log->mem, m);
}

// The home of a message: event, frame head, payload.
static bool rp_msg_home(rp_log *log, rp_topic *t, rp_msg *m, const rtpush_message *from) {
    unsigned char head[RP_WS_HEAD_MAX];
    size_t before = m->event_size ? (size_t)m->event_size + 1 : 0;
    size_t head_size = rp_ws_head(head, m->kind == RTPUSH_BINARY ? RP_WS_BINARY : RP_WS_TEXT, from->size);
    size_t size = before + head_size + from->size;
    bool is_there = false, is_shared = log->shares && size > RP_SHARE_MIN;
    char *room = is_shared ? rp_log_room_shared(log, size, &m->as[RP_RAW], &is_there) : rp_topic_room(log, t, RP_RAW, size, &m->as[RP_RAW]);
    if (!room) return false;
    if (!is_there) {
        if (before) memcpy(room, from->event, before);
        memcpy(room + before, head, head_size);
        if (from->size) memcpy(room + before + head_size, from->data, from->size);
    }
    m->as[RP_RAW].at += (uint32_t)before;
    m->as[RP_RAW].size -= (uint32_t)before;
    return true;
}

static rp_msg *rp_msg_new(rp_log *log, rp_topic *t, const rtpush_message *from, uint64_t now) {
    rp_msg *m = (rp_msg *)rp_mem_get(log->mem, sizeof *m);
    if (!m) return NULL;
    log->bytes += sizeof *m;
    m->seq = from->seq;
    m->born_ms = now;
    m->topic = t;
    m->size = (uint32_t)from->size;
    m->event_size = (uint16_t)strlen(from->event);
    m->kind = (uint8_t)from->kind;
    m->is_ephemeral = from->ephemeral;
    if (rp_msg_home(log, t, m, from)) return m;
    rp_msg_free(log, m);
    return NULL;
}

// --- the spine ---

// The first item with a seq above `seq`; spine_end if there is none.
static uint32_t rp_log_after(const rp_log *log, uint64_t seq) {
    uint32_t low = log->spine_first, high = log->spine_end;
    if (low < high && log->spine[high - 1].seq <= seq) return high; // the usual case: level
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (log->spine[middle].seq > seq) high = middle;
        else low = middle + 1;
    }
    return low;
}

static void rp_log_compact(rp_log *log) {
    uint32_t kept = 0;
    for (uint32_t i = log->spine_first; i < log->spine_end; i++)
        if (log->spine[i].msg) log->spine[kept++] = log->spine[i];
    log->spine_first = 0;
    log->spine_end = kept;
}

static bool rp_log_reserve(rp_log *log) {
    if (log->spine_end < log->spine_cap) return true;
    if (log->held < log->spine_cap / 2) { rp_log_compact(log); return true; }
    return rp_mem_grow(log->mem, (void **)&log->spine, &log->spine_cap, log->spine_end, sizeof *log->spine);
}

static void rp_log_hole(rp_log *log, uint64_t seq) {
    if (seq == 0) return;
    uint32_t i = rp_log_after(log, seq - 1);
    if (i == log->spine_end || log->spine[i].seq != seq) return;
    log->spine[i].msg = NULL;
    log->held--;
    while (log->spine_first < log->spine_end && !log->spine[log->spine_first].msg) log->spine_first++;
    if (log->spine_first == log->spine_end) log->spine_first = log->spine_end = 0;
}

// --- the ring ---

static bool rp_topic_reserve(rp_log *log, rp_topic *t) {
    if (t->count < t->cap) return true;
    uint32_t cap = t->cap ? t->cap * 2 : 4;
    rp_msg **ring = (rp_msg **)rp_mem_resize(log->mem, NULL, cap * sizeof(rp_msg *));
    if (!ring) return false;
    for (uint32_t i = 0; i < t->count; i++) ring[i] = rp_topic_at(t, i);
    rp_mem_free(log->mem, t->ring);
    t->ring = ring;
    t->first = 0;
    t->cap = cap;
    return true;
}

// The place in the ring of the first message above `seq`; t->count if there is none.
static uint32_t rp_topic_after(const rp_topic *t, uint64_t seq) {
    uint32_t low = 0, high = t->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (rp_topic_at(t, middle)->seq > seq) high = middle;
        else low = middle + 1;
    }
    return low;
}

// --- appending ---

// Somebody may have something to read: the flush walks the source's entries. A walk under way goes on; its next
// circle sees the newer message.
static void rp_log_mark(rp_log *log, rp_source *s, uint64_t seq) {
    if (s->is_dirty) return;
    s->is_dirty = true;
    s->circle = seq;
    s->left = s->count;
    s->safe = s->fresh = seq - 1;
    s->next_dirty = NULL;
    if (log->dirty_last) log->dirty_last->next_dirty = s;
    else log->dirty_first = s;
    log->dirty_last = s;
}

static void rp_log_trim_later(rp_log *log, rp_topic *t) {
    if (t->is_to_trim) return;
    t->is_to_trim = true;
    t->next_trim = log->trim_first;
    log->trim_first = t;
}

static void rp_source_count(rp_log *log, rp_source *s, uint64_t seq, uint64_t *owed) {
    s->last = seq;
    s->total++;
    *owed += s->count;
    rp_log_mark(log, s, seq);
}

// Puts a message at the head of the log; from->seq is above all before it. Adds to *owed. NULL: no memory, and
// nothing has changed.
static rp_msg *rp_log_append(rp_log *log, rp_topic *t, const rtpush_message *from, uint64_t now, uint64_t *owed) {
    if (!rp_topic_reserve(log, t) || !rp_log_reserve(log)) return NULL;
    rp_msg *m = rp_msg_new(log, t, from, now);
    if (!m) return NULL;
    t->ring[(t->first + t->count++) & (t->cap - 1)] = m;
    if (!RTPUSH_BREAK(1)) {
        log->spine[log->spine_end].seq = m->seq;
        log->spine[log->spine_end++].msg = m;
        log->held++;
    }
    t->bytes += rp_msg_charge(m);
    t->ephemerals += m->is_ephemeral;
    log->head = m->seq;
    rp_source_count(log, &t->source, m->seq, owed);
    for (uint32_t i = 0; i < t->source.link_count && !RTPUSH_BREAK(5); i++) rp_source_count(log, t->source.links[i], m->seq, owed);
    rp_log_trim_later(log, t);
    return m;
}

#ifdef RP_SHARED
// Makes room in the spine for so many more, which may be older than what is there.
static bool rp_log_reserve_all(rp_log *log, uint32_t count) {
    rp_log_compact(log);
    while (log->spine_cap < log->spine_end + count)
        if (!rp_mem_grow(log->mem, (void **)&log->spine, &log->spine_cap, log->spine_cap, sizeof *log->spine)) return false;
    return true;
}

// From the back, so that each moves once: both are ascending.
static void rp_log_merge(rp_log *log, rp_msg **msgs, uint32_t count) {
    uint32_t to = log->spine_end + count, from = log->spine_end;
    log->spine_end = to;
    log->held += count;
    while (count) {
        bool is_old = from && log->spine[from - 1].seq > msgs[count - 1]->seq;
        to--;
        if (is_old) { log->spine[to] = log->spine[--from]; continue; }
        log->spine[to].msg = msgs[--count];
        log->spine[to].seq = log->spine[to].msg->seq;
    }
}

// Messages older than all that the topic holds come back; up to `lost` there is nothing. false: no memory, or a reader is
// in the midst of them; nothing has changed.
static bool rp_topic_take_back(rp_log *log, rp_topic *t, rp_msg **msgs, uint32_t count, uint64_t lost) {
    uint64_t last = count ? msgs[count - 1]->seq : 0;
    uint32_t cap = t->cap ? t->cap : 4;
    for (uint32_t i = 0; i < t->source.count; i++)
        if (t->source.entries[i].pos < last) return false;
    if (count && t->count && rp_topic_at(t, 0)->seq <= last) return false; // one came meanwhile
    while (cap < t->count + count) cap *= 2;
    rp_msg **ring = (rp_msg **)rp_mem_resize(log->mem, NULL, cap * sizeof(rp_msg *));
    if (!ring || !rp_log_reserve_all(log, count)) { rp_mem_free(log->mem, ring); return false; }
    for (uint32_t i = 0; i < count; i++) {
        ring[i] = msgs[i];
        t->bytes += rp_msg_charge(msgs[i]);
    }
    for (uint32_t i = 0; i < t->count; i++) ring[count + i] = rp_topic_at(t, i);
    rp_mem_free(log->mem, t->ring);
    t->ring = ring;
    t->first = 0;
    t->cap = cap;
    t->count += count;
    rp_log_merge(log, msgs, count);
    t->source.last = RP_MAX(t->source.last, last);
    t->source.evicted = RP_MAX(lost, t->cleared);
    return true;
}
#endif

// --- retention ---

static void rp_topic_forget(rp_log *log, rp_topic *t, rp_msg *m) {
    t->count--;
    t->ephemerals -= m->is_ephemeral;
    t->bytes -= rp_msg_charge(m);
    rp_log_hole(log, m->seq);
    rp_msg_free(log, m);
}

static void rp_source_raise(rp_topic *t, uint64_t evicted) {
    t->source.evicted = RP_MAX(t->source.evicted, evicted);
    t->source.lost++;
    for (uint32_t i = 0; i < t->source.link_count && !RTPUSH_BREAK(3); i++) {
        t->source.links[i]->evicted = RP_MAX(t->source.links[i]->evicted, evicted);
        t->source.links[i]->lost++;
    }
}

static void rp_topic_evict(rp_log *log, rp_topic *t) {
    rp_msg *m = rp_topic_at(t, 0);
    if (!m->is_ephemeral) {
        rp_source_raise(t, m->seq);
        log->evictions++;
        t->is_whole = false;
    }
    t->first = (t->first + 1) & (t->cap - 1);
    rp_topic_forget(log, t, m);
}

// Ephemeral messages that everybody had go from wherever they are; they leave no mark.
static void rp_topic_drop_ephemerals(rp_log *log, rp_topic *t) {
    for (uint32_t i = t->count; i-- > 0 && t->ephemerals;) {
        rp_msg *m = rp_topic_at(t, i);
        if (!m->is_ephemeral || m->seq > log->safe) continue;
        for (uint32_t k = i; k + 1 < t->count; k++) t->ring[(t->first + k) & (t->cap - 1)] = rp_topic_at(t, k + 1);
        rp_topic_forget(log, t, m);
    }
}

static bool rp_topic_is_over(const rp_topic *t, uint64_t now) {
    const rp_msg *oldest = rp_topic_at(t, 0);
    if (t->count - t->ephemerals > t->keep.count || t->bytes > t->keep.bytes || oldest->seq <= t->cleared) return true;
    return t->keep.ms >= 0 && now - oldest->born_ms >= (uint64_t)t->keep.ms;
}

static void rp_topic_trim(rp_log *log, rp_topic *t, uint64_t now) {
    if (t->ephemerals) rp_topic_drop_ephemerals(log, t);
    while (t->count && rp_topic_is_over(t, now) && (rp_topic_at(t, 0)->seq <= log->safe || RTPUSH_BREAK(4))) rp_topic_evict(log, t);
    if (t->count) return;
    for (unsigned i = 0; i < RP_SPELLINGS; i++) {
        rp_block_unref(log, t->tails[i]);
        t->tails[i] = NULL;
    }
}

// The oldest messages lose the spellings that can be made again.
static void rp_log_despell(rp_log *log, uint64_t bytes_max) {
    for (uint32_t i = rp_log_after(log, log->despelled); i < log->spine_end && log->bytes > bytes_max; i++) {
        rp_msg *m = log->spine[i].msg;
        if (log->spine[i].seq > log->safe) return;
        for (unsigned k = RP_RAW + 1; m && k < RP_SPELLINGS; k++) rp_piece_drop(log, &m->as[k]);
        log->despelled = log->spine[i].seq;
    }
}

// Over the budget of all history: spellings go before messages, the oldest first, nothing above safe.
static void rp_log_trim(rp_log *log, uint64_t bytes_max, uint64_t now) {
    if (log->bytes > bytes_max) rp_log_despell(log, bytes_max);
    while (log->bytes > bytes_max && log->held) {
        rp_topic *t = log->spine[log->spine_first].msg->topic;
        if (log->spine[log->spine_first].seq > log->safe) return;
        rp_topic_evict(log, t); // the oldest of all is the oldest of its topic
        if (!t->count) rp_topic_trim(log, t, now); // then its blocks
        rp_log_trim_later(log, t); // it may disappear
    }
}

// The view that callbacks get.
static rtpush_message rp_msg_view(const rp_msg *m, uint64_t now, int64_t wall) {
    rtpush_message view;
    view.topic = m->topic->text;
    view.event = rp_msg_event(m);
    view.data = rp_msg_data(m);
    view.size = m->size;
    view.kind = m->kind;
    view.ephemeral = m->is_ephemeral;
    view.seq = m->seq;
    view.time_ms = wall - (int64_t)(now - m->born_ms);
    return view;
}

static void rp_log_free(rp_log *log) {
    for (uint32_t i = log->spine_first; i < log->spine_end; i++)
        if (log->spine[i].msg) rp_msg_free(log, log->spine[i].msg);
    rp_mem_free(log->mem, log->spine);
}
#endif // RP_SERVER

// ============================================================================
// >>hub  names, readers, subscriptions: who is behind on what  (uses: topic, time, table)
//
// All names, topics and patterns alike, stand in one hash table. A topic that had
// messages and is gone leaves its mark, the highest seq it lost, in a bounded queue of
// the dead; a mark that falls out of it raises the floor, below which nobody knows.
//
// A reader has subscriptions, each an entry in its source; how its messages are spelled
// and where they go is its wire, a const table that the rooms below fill.
// ============================================================================
#ifdef RP_SERVER
enum { RP_AT_MAX = 0x3fffffff }; // entries of a source: below 2^30

typedef struct rp_sub {
    rp_source *source;
    uint64_t start; // where it began: what was before has not been passed by it
    uint64_t told;  // losses up to here are told, or were lost before it began
    uint32_t seen;  // source->lost when it began
    uint32_t at : 30; // where its entry is in source->entries
    uint32_t is_dark : 1; // it began below `told` without being told (`earliest`, `-N`)
    uint32_t is_late : 1; // it joined a reader under way
} rp_sub;

// A subscription that begins behind its reader: its messages up to `mark` come first, marked as replayed.
typedef struct rp_replay rp_replay;
struct rp_replay {
    rp_replay *next;
    rp_source *source;
    uint64_t mark;
    uint32_t last_n;
    uint32_t size; // of what follows: what the wire wants back when it is done
};

enum rp_closing { RP_CLOSE_SLOW = 1, RP_CLOSE_MEMORY };

typedef struct rp_gap {
    bool is_told;
    uint64_t start; // of a new reader: the position it was given
    char from[RP_CURSOR_MAX]; // "" where what was asked does not parse
    uint64_t to;
    const char *reason;
} rp_gap;

// What a transport does. A new one is such a table, a route and a test.
typedef struct rp_wire {
    const char *name;
    int transport;  // rtpush_transport
    int spelling;   // rp_spelling of the shared bytes; -1: `put` writes each message into the reader's own bytes
    // Sends own bytes, then these. Returns how many of these were taken; fewer: the reader is blocked. -1: it is gone.
    ptrdiff_t (*write)(rtpush_hub *hub, rp_reader *reader, const rtpush_iov *iov, int count, size_t size);
    // One message into the own bytes. false: there is no room now (blocked), or it is gone.
    bool (*put)(rtpush_hub *hub, rp_reader *reader, const rp_msg *m, bool is_replay);
    // Answers as a whole, with all it is behind on; NULL: messages go out as they come.
    void (*answer)(rtpush_hub *hub, rp_reader *reader);
    void (*gap)(rtpush_hub *hub, rp_reader *reader, const rp_gap *gap);
    void (*close)(rtpush_hub *hub, rp_reader *reader, enum rp_closing why);
    void (*replayed)(rtpush_hub *hub, rp_reader *reader, const rp_replay *replay);
} rp_wire;

struct rp_reader {
    const rp_wire *wire;
    rp_sub *subs; // &one while there is at most one
    rp_sub one;
    uint16_t count, cap;
    bool is_blocked; // the socket is full: it comes back by itself
    bool is_level;   // it had everything when it was last served
    bool is_queued;  // in hub.again
    uint32_t rest_owed;  // subscriptions that get the half-sent message
    uint64_t began;  // the head when it started: ephemerals up to here are not for it
    uint64_t ahead;  // its cursor was of a head that this log has not reached; 0: was not
    uint64_t ahead_until; // so long the log may take (PROTOCOL §2)
    uint32_t last_n; // of patterns, only the last n of each topic up to `began`; 0: all
    rp_piece rest;   // what is left of the message half sent
    rp_replay *replays;
    rp_reader *next_again;
};

// The same bytes for all readers of a source who are level: made once, until something changes.
typedef struct rp_run {
    const rp_source *source;
    uint64_t pos, last;  // for readers at pos, while the source is at last
    uint64_t end;        // the last message's seq
    rtpush_iov iov[RP_IOV];
    int count;
    uint32_t messages;
    size_t size;
} rp_run;

typedef struct rp_dead {
    rp_node node;
    struct rp_dead *next;
    uint64_t evicted;
    uint8_t size;
    char name[1];
} rp_dead;

// How topics that match are kept; the newest rule first.
typedef struct rp_rule {
    struct rp_rule *next;
    rtpush_topic_desc desc;
    size_t size;
    char pattern[1];
} rp_rule;

// What came into the log, for the other loops of the process: a message, or what is spelled like one. A word's kind is
// its letter and its event the life; a restart's event is the epoch.
enum rp_item_type { RP_ITEM_MESSAGE, RP_ITEM_CLEAR, RP_ITEM_RESTART, RP_ITEM_WORD, RP_ITEM_PAST, RP_ITEM_WHOLE };

// How a hub is one of several (room `crew`). NULL: it is alone.
typedef struct rp_hooks {
    bool (*tap)(rtpush_hub *hub, enum rp_item_type type, const rtpush_message *m); // false: it is left out
    void (*wake)(rtpush_hub *hub);
    bool (*is_behind)(const rtpush_hub *hub);
    void (*subscribed)(rtpush_hub *hub, const rp_source *s, int by);
    size_t (*subscribers)(rtpush_hub *hub, rtpush_slice name);
    void (*gather)(rtpush_hub *hub, rtpush_stats *n);
    void (*note)(rtpush_hub *hub, const rtpush_stats *n);
    uint64_t (*connected)(rtpush_hub *hub, int by); // how many connections all have
    bool (*deal)(rtpush_hub *hub, int fd, const rtpush_peer *peer, bool is_tls);
    bool (*is_over)(rtpush_hub *hub);
    void (*past)(rtpush_hub *hub, const char *topic); // what is held of it is for the other loops, too
    void (*end)(rtpush_hub *hub);
} rp_hooks;

struct rtpush_hub {
    rtpush_desc desc; // with every default filled in
    const rp_hooks *hooks;
    struct rp_crew *crew;
    uint32_t loop, loops; // which of the crew, of how many
    rp_mem mem;
    rtpush_sys sys;
    rp_wheel wheel;
    int64_t wall_ms; // the wall clock at wheel.now, once asked for in a turn
    rp_hash_key hash_key;
    uint64_t jitter;
    rp_log log;
    rtpush_stats stats;
    // names
    rp_table names, dead;
    rp_dead *dead_first, *dead_last;
    rp_rule *rules;
    rp_source **patterns;
    uint32_t pattern_count, pattern_cap, topic_count;
    rp_topic quiet; // head of the list of topics without readers
    // readers
    rp_reader *again_first, *again_last; // who has something to be done at the end of the turn
    rp_run runs[RP_SPELLINGS];
    rp_buf text; // where texts are made before they are copied to where they belong
    uint32_t budget, flushes; // writes left in this turn; turns so far, where the budget is tiny
    // what the rooms below keep
    struct rp_people *people;   // sessions, presence
    struct rp_registry *registry; // who is where; NULL: the log is not shared with other nodes
    int (*announce)(rtpush_hub *hub, const char *topic, rtpush_slice changes); // the registry's
    struct rp_outbox *outbox;   // publishes under way, idempotency keys
    bool is_loading;            // the bus: rtpush_create waits
    int load_code;              // it failed
    // Of a bus that has more than the memory: must this reader wait for it? Then it is woken. NULL: nobody waits.
    bool (*fetch)(rtpush_hub *hub, rtpush_slice topic, const rp_start *start, uint64_t conn, const rtpush_slice *ref);
    // Of a bus that can say where the log really is: when it was asked what it answered last, and that; and whether it
    // is out of reach, so that nobody is to be told that he is of another log.
    bool bus_confirms, bus_is_away;
    uint64_t bus_asked_ms, bus_head;
    bool bus_is_due;            // something was appended, or it asked: its turn comes
    const char *bus_why;        // why it takes nothing now; NULL: it does
    bool is_leaving;            // of a drain: readers are sent away, nothing is published any more
    struct rp_server *server;   // connections, listeners, the loop
    struct rp_tls_kit *tls;     // certificates; NULL: nothing is encrypted yet
    bool has_certificate;
    struct rp_dials *dials;     // clients and their connections; NULL: there was none yet
    const char *last_error;
    char last_error_text[200];
};

static uint64_t rp_hub_hash(const rtpush_hub *hub, rtpush_slice s) { return rp_hash(&hub->hash_key, s.data, s.size); }

static rp_buf *rp_hub_text(rtpush_hub *hub) {
    rp_buf_rewind(&hub->text);
    return &hub->text;
}

// A number below `limit`, for jitter alone: predictable to nobody, since it begins with random bytes, but no secret.
static uint64_t rp_hub_jitter(rtpush_hub *hub, uint64_t limit) {
    uint64_t x = hub->jitter += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return limit ? (x ^ x >> 31) % limit : 0;
}

static int64_t rp_hub_wall(rtpush_hub *hub) {
    if (!hub->wall_ms) hub->wall_ms = hub->sys.wall_ms(hub->sys.user);
    return hub->wall_ms;
}

static const char *rp_hub_cursor(const rtpush_hub *hub, char out[RP_CURSOR_MAX], uint64_t seq) {
    rp_cursor_write(out, hub->log.epoch, seq);
    return out;
}

// A new epoch: 8 of [a-z0-9].
static bool rp_hub_random_epoch(rtpush_hub *hub, char epoch[9]) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    unsigned char bytes[8];
    if (hub->sys.random(hub->sys.user, bytes, sizeof bytes)) return false;
    for (unsigned i = 0; i < 8; i++) epoch[i] = letters[bytes[i] % 36];
    epoch[8] = 0;
    return true;
}

static void rp_hub_tap(rtpush_hub *hub, enum rp_item_type type, const rtpush_message *m) {
    if (hub->hooks) hub->hooks->tap(hub, type, m);
}

// What is no message, in the members of one.
static void rp_hub_tap_other(rtpush_hub *hub, enum rp_item_type type, int kind, const char *topic, const char *event, rtpush_slice data, uint64_t seq) {
    rtpush_message m;
    memset(&m, 0, sizeof m);
    m.topic = topic;
    m.event = event;
    m.data = data.data;
    m.size = data.size;
    m.kind = kind;
    m.seq = seq;
    rp_hub_tap(hub, type, &m);
}

// --- errors and log lines ---

static int rp_hub_error(rtpush_hub *hub, int code, const char *detail) {
    snprintf(hub->last_error_text, sizeof hub->last_error_text, "%s%s%s", rtpush_strerror(code), detail ? ": " : "", detail ? detail : "");
    hub->last_error = hub->last_error_text;
    return code;
}

// What a client is told of a code: where the bus is the reason, its own.
static const char *rp_hub_reason(const rtpush_hub *hub, int code) {
    return code == RTPUSH_E_UNAVAILABLE && hub->bus_why ? hub->bus_why : rtpush_strerror(code);
}

static void rp_hub_log(rtpush_hub *hub, const char *format, ...) {
    char line[256];
    va_list args;
    if (!hub->desc.on_log) return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    for (char *p = line; *p; p++)
        if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f) *p = '?'; // no forged lines
    hub->desc.on_log(hub, line, hub->desc.user);
}

// --- the dead ---

static rp_dead *rp_dead_find(const rtpush_hub *hub, rtpush_slice name, uint64_t hash) {
    rp_node *node = rp_table_first(&hub->dead, hash);
    for (; node; node = rp_table_same(node->next, hash)) {
        rp_dead *dead = RP_OWNER(rp_dead, node, node);
        if (dead->size == name.size && !memcmp(dead->name, name.data, name.size)) return dead;
    }
    return NULL;
}

// Up to where messages of a name that has no topic are lost: its mark, else the floor.
static uint64_t rp_dead_lost(const rtpush_hub *hub, rtpush_slice name, uint64_t hash) {
    const rp_dead *dead = rp_dead_find(hub, name, hash);
    return RP_MAX(dead ? dead->evicted : 0, hub->log.floor);
}

static void rp_dead_drop_oldest(rtpush_hub *hub) {
    rp_dead *oldest = hub->dead_first;
    hub->log.floor = RP_MAX(hub->log.floor, oldest->evicted);
    hub->dead_first = oldest->next;
    if (!hub->dead_first) hub->dead_last = NULL;
    rp_table_remove(&hub->dead, &oldest->node);
    rp_mem_free(&hub->mem, oldest);
}

// Remembers what a name has lost. Without memory the floor rises instead: a false gap, never a silent one.
static void rp_dead_mark(rtpush_hub *hub, rtpush_slice name, uint64_t hash, uint64_t evicted) {
    if (evicted <= hub->log.floor || RTPUSH_BREAK(2)) return;
    rp_dead *dead = rp_dead_find(hub, name, hash);
    if (dead) { dead->evicted = RP_MAX(dead->evicted, evicted); return; } // its place in the queue stays: no harm, it falls out sooner
    dead = (rp_dead *)rp_mem_get(&hub->mem, sizeof *dead + name.size);
    if (!dead) { hub->log.floor = RP_MAX(hub->log.floor, evicted); return; }
    dead->evicted = evicted;
    dead->size = (uint8_t)name.size;
    memcpy(dead->name, name.data, name.size);
    rp_table_add(&hub->mem, &hub->dead, &dead->node, hash);
    if (hub->dead_last) hub->dead_last->next = dead;
    else hub->dead_first = dead;
    hub->dead_last = dead;
    while (hub->dead.count > (size_t)hub->desc.dead_max) rp_dead_drop_oldest(hub);
}

// --- names ---

static rp_source *rp_hub_find(const rtpush_hub *hub, rtpush_slice name, uint64_t hash) {
    rp_node *node = rp_table_first(&hub->names, hash);
    for (; node; node = rp_table_same(node->next, hash)) {
        rp_source *s = RP_OWNER(rp_source, node, node);
        if (s->name_size == name.size && !memcmp(s->name, name.data, name.size)) return s;
    }
    return NULL;
}

static rp_topic *rp_hub_find_topic(const rtpush_hub *hub, rtpush_slice name) {
    rp_source *s = name.size ? rp_hub_find(hub, name, rp_hub_hash(hub, name)) : NULL;
    return s ? rp_source_topic(s) : NULL;
}

static bool rp_source_link(rtpush_hub *hub, rp_topic *t, rp_source *pattern) {
    rp_source *s = &t->source;
    if (!rp_mem_grow(&hub->mem, (void **)&s->links, &s->link_cap, s->link_count, sizeof *s->links)) return false;
    s->links[s->link_count++] = pattern;
    return true;
}

static void rp_source_unlink(rp_topic *t, const rp_source *pattern) {
    rp_source *s = &t->source;
    for (uint32_t i = 0; i < s->link_count; i++)
        if (s->links[i] == pattern) { s->links[i--] = s->links[--s->link_count]; }
}

static void rp_topic_set(rtpush_hub *hub, rp_topic *t, const rtpush_topic_desc *rule) {
    int64_t count = rule->history ? rule->history : hub->desc.history;
    int64_t bytes = rule->history_bytes ? rule->history_bytes : hub->desc.history_bytes;
    int64_t ms = rule->history_ms ? rule->history_ms : hub->desc.history_ms;
    t->keep.count = count < 0 ? 0 : (uint32_t)RP_MIN(count, (int64_t)UINT32_MAX);
    t->keep.bytes = bytes < 0 ? 0 : (uint64_t)bytes;
    t->keep.ms = ms < 0 ? -1 : ms;
    t->source.slow = (uint8_t)(rule->slow ? rule->slow : hub->desc.slow);
    t->has_presence = rule->presence;
}

static const rtpush_topic_desc *rp_hub_rule(const rtpush_hub *hub, rtpush_slice name) {
    static const rtpush_topic_desc none = {0, 0, 0, 0, false, 0};
    for (const rp_rule *rule = hub->rules; rule; rule = rule->next)
        if (rp_topic_matches(rp_slice(rule->pattern, rule->size), name)) return &rule->desc;
    return &none;
}

#ifdef RP_SHARED
// Has it a stream of its own, where the bus has such?
static bool rp_hub_is_durable(const rtpush_hub *hub, rtpush_slice name) {
    int rule = rp_hub_rule(hub, name)->durable;
    return rule ? rule > 0 : name.size > 6 && !memcmp(name.data, "@user/", 6);
}
#endif

// One rule more, the newest; topics that exist already do not change by it. 0 or a code.
static int rp_rule_add(rtpush_hub *hub, const char *pattern, const rtpush_topic_desc *desc) {
    size_t size = rp_slice_of(pattern).size;
    if (!rtpush_is_topic(pattern, size, true)) return RTPUSH_E_TOPIC;
    rp_rule *rule = (rp_rule *)rp_mem_get(&hub->mem, sizeof *rule + size);
    if (!rule) return RTPUSH_E_MEMORY;
    rule->desc = *desc;
    rule->size = size;
    memcpy(rule->pattern, pattern, size);
    rule->next = hub->rules;
    hub->rules = rule;
    return RTPUSH_OK;
}

static void rp_quiet_remove(rp_topic *t) {
    if (!t->is_quiet) return;
    t->quiet_prev->quiet_next = t->quiet_next;
    t->quiet_next->quiet_prev = t->quiet_prev;
    t->is_quiet = false;
}

// To the end of the topics without readers: the one used last.
static void rp_quiet_add(rtpush_hub *hub, rp_topic *t) {
    rp_quiet_remove(t);
    t->quiet_prev = hub->quiet.quiet_prev;
    t->quiet_next = &hub->quiet;
    t->quiet_prev->quiet_next = t;
    hub->quiet.quiet_prev = t;
    t->is_quiet = true;
}

static void rp_topic_die(rtpush_hub *hub, rp_topic *t) {
    rp_dead_mark(hub, rp_source_name(&t->source), t->source.node.hash, t->source.evicted);
    rp_quiet_remove(t);
    rp_timer_stop(&hub->wheel, &t->expiry);
    rp_table_remove(&hub->names, &t->source.node);
    hub->topic_count--;
    for (unsigned i = 0; i < RP_SPELLINGS; i++) rp_block_unref(&hub->log, t->tails[i]);
    rp_mem_free(&hub->mem, t->ring);
    rp_mem_free(&hub->mem, t->source.links);
    rp_mem_free(&hub->mem, t->source.entries);
    rp_mem_free(&hub->mem, t);
}

static void rp_pattern_die(rtpush_hub *hub, rp_source *p) {
    for (rp_node *node = rp_table_next(&hub->names, NULL); node; node = rp_table_next(&hub->names, node)) {
        rp_source *s = RP_OWNER(rp_source, node, node);
        if (!s->is_pattern) rp_source_unlink(rp_source_topic(s), p);
    }
    for (uint32_t i = 0; i < hub->pattern_count; i++)
        if (hub->patterns[i] == p) { hub->patterns[i] = hub->patterns[--hub->pattern_count]; break; }
    rp_table_remove(&hub->names, &p->node);
    rp_mem_free(&hub->mem, p->entries);
    rp_mem_free(&hub->mem, p);
}

// A source that nobody reads and that holds nothing goes.
static void rp_source_release(rtpush_hub *hub, rp_source *s) {
    rp_topic *t = rp_source_topic(s);
    if (s->count || s->is_dirty) return;
    if (!t) rp_pattern_die(hub, s);
    else if (!t->count && !t->is_to_trim) rp_topic_die(hub, t);
}

static void rp_topic_expire(rtpush_hub *hub, rp_timer *timer) {
    rp_topic *t = RP_OWNER(rp_topic, expiry, timer);
    rp_log_trim_later(&hub->log, t); // the next flush, with all the rest
}

// All topics are read or the oldest without readers goes, with what it held.
static bool rp_hub_make_room(rtpush_hub *hub) {
    if (hub->topic_count < (uint64_t)hub->desc.topics_max) return true;
    for (rp_topic *t = hub->quiet.quiet_next; t != &hub->quiet; t = t->quiet_next) {
        if (t->source.is_dirty || t->source.last > hub->log.safe) continue;
        while (t->count) rp_topic_evict(&hub->log, t);
        if (t->is_to_trim) { // it stands in the list: take it out
            rp_topic **at = &hub->log.trim_first;
            while (*at != t) at = &(*at)->next_trim;
            *at = t->next_trim;
        }
        rp_topic_die(hub, t);
        return true;
    }
    return false;
}

// Links a new topic to the patterns that match it: at each segment's start there can be two, `*` and `**`.
static bool rp_topic_link_all(rtpush_hub *hub, rp_topic *t) {
    char key[RP_TOPIC_MAX + 3];
    rtpush_slice name = rp_source_name(&t->source);
    for (size_t i = 0; i < name.size && hub->pattern_count; i++) {
        if (i && name.data[i - 1] != '/') continue;
        memcpy(key, name.data, i);
        memcpy(key + i, "**", 2);
        for (size_t stars = 1; stars <= 2; stars++) {
            rtpush_slice pattern = rp_slice(key, i + stars);
            if (!rp_topic_matches(pattern, name)) continue;
            rp_source *p = rp_hub_find(hub, pattern, rp_hub_hash(hub, pattern));
            if (!p) continue;
            if (!rp_source_link(hub, t, p)) return false;
            p->evicted = RP_MAX(p->evicted, t->source.evicted); // invariant 3: no lower than its topics' marks
        }
    }
    return true;
}

// A topic is born where its name died, or at the floor.
static rp_topic *rp_topic_new(rtpush_hub *hub, rtpush_slice name, uint64_t hash) {
    rp_topic *t = (rp_topic *)rp_mem_get(&hub->mem, sizeof *t + name.size);
    if (!t) return NULL;
    memcpy(t->text, name.data, name.size);
    t->source.name = t->text;
    t->source.name_size = (uint8_t)name.size;
    t->source.last = t->source.evicted = rp_dead_lost(hub, name, hash);
    t->expiry.fire = rp_topic_expire;
    rp_topic_set(hub, t, rp_hub_rule(hub, name));
    if (!rp_topic_link_all(hub, t)) {
        rp_mem_free(&hub->mem, t->source.links);
        rp_mem_free(&hub->mem, t);
        return NULL;
    }
    rp_table_add(&hub->mem, &hub->names, &t->source.node, hash);
    hub->topic_count++;
    rp_quiet_add(hub, t);
    return t;
}

// The topic of a valid name, made if there is none. *code says why not.
static rp_topic *rp_hub_topic(rtpush_hub *hub, rtpush_slice name, int *code) {
    uint64_t hash = rp_hub_hash(hub, name);
    rp_source *s = rp_hub_find(hub, name, hash);
    if (s) return rp_source_topic(s);
    if (!rp_hub_make_room(hub)) { *code = RTPUSH_E_TOPICS; return NULL; }
    rp_topic *t = rp_topic_new(hub, name, hash);
    if (!t) *code = RTPUSH_E_MEMORY;
    return t;
}

// What a new pattern has to know: the topics it matches and what any of them, living or dead, has lost.
static bool rp_pattern_join(rtpush_hub *hub, rp_source *p) {
    uint64_t lost = hub->log.floor;
    for (const rp_dead *dead = hub->dead_first; dead && !RTPUSH_BREAK(31); dead = dead->next)
        if (rp_topic_matches(rp_source_name(p), rp_slice(dead->name, dead->size))) lost = RP_MAX(lost, dead->evicted);
    for (rp_node *node = rp_table_next(&hub->names, NULL); node; node = rp_table_next(&hub->names, node)) {
        rp_topic *t = rp_source_topic(RP_OWNER(rp_source, node, node));
        if (!t || !rp_topic_matches(rp_source_name(p), rp_source_name(&t->source))) continue;
        if (!rp_source_link(hub, t, p)) return false;
        lost = RP_MAX(lost, rp_source_lost(&t->source));
        p->last = RP_MAX(p->last, t->source.last);
    }
    p->evicted = lost;
    p->last = RP_MAX(p->last, lost);
    return true;
}

static rp_source *rp_hub_pattern(rtpush_hub *hub, rtpush_slice name, int *code) {
    uint64_t hash = rp_hub_hash(hub, name);
    rp_source *p = rp_hub_find(hub, name, hash);
    if (p) return p;
    bool is_full = hub->pattern_count >= (uint64_t)hub->desc.patterns_max;
    *code = is_full ? RTPUSH_E_PATTERNS : RTPUSH_E_MEMORY;
    if (is_full || !rp_mem_grow(&hub->mem, (void **)&hub->patterns, &hub->pattern_cap, hub->pattern_count, sizeof *hub->patterns)) return NULL;
    p = (rp_source *)rp_mem_get(&hub->mem, sizeof *p + name.size + 1);
    if (!p) return NULL;
    p->is_pattern = true;
    p->name = (char *)(p + 1);
    p->name_size = (uint8_t)name.size;
    memcpy(p->name, name.data, name.size);
    const rtpush_topic_desc *rule = rp_hub_rule(hub, name);
    p->slow = (uint8_t)(rule->slow ? rule->slow : hub->desc.slow);
    rp_table_add(&hub->mem, &hub->names, &p->node, hash);
    hub->patterns[hub->pattern_count++] = p;
    if (!rp_pattern_join(hub, p)) { rp_pattern_die(hub, p); return NULL; }
    *code = RTPUSH_OK;
    return p;
}

// The topic or pattern of a valid name.
static rp_source *rp_hub_source(rtpush_hub *hub, rtpush_slice name, int *code) {
    if (rp_topic_is_pattern(name)) return rp_hub_pattern(hub, name, code);
    rp_topic *t = rp_hub_topic(hub, name, code);
    return t ? &t->source : NULL;
}

// --- subscriptions ---

static void rp_reader_init(rp_reader *r, const rp_wire *wire) {
    memset(r, 0, sizeof *r);
    r->wire = wire;
    r->subs = &r->one;
    r->cap = 1;
}

static rp_sub *rp_reader_sub(rp_reader *r, const rp_source *s) {
    for (uint16_t i = 0; i < r->count; i++)
        if (r->subs[i].source == s) return &r->subs[i];
    return NULL;
}

static rp_entry *rp_sub_entry(const rp_sub *sub) { return &sub->source->entries[sub->at]; }

static bool rp_reader_reserve(rtpush_hub *hub, rp_reader *r) {
    if (r->count < r->cap) return true;
    uint16_t cap = (uint16_t)(r->cap * 2);
    rp_sub *subs = (rp_sub *)rp_mem_resize(&hub->mem, r->subs == &r->one ? NULL : r->subs, cap * sizeof *subs);
    if (!subs) return false;
    if (r->subs == &r->one) subs[0] = r->one;
    r->subs = subs;
    r->cap = cap;
    return true;
}

// The array of entries changed under a walk: it goes round once more; who was served costs one compare.
static void rp_source_changed(rp_source *s) {
    if (s->is_dirty && !RTPUSH_BREAK(51)) s->left = s->count;
}

// Subscribes at pos. false: no memory, nothing changed. A source the reader has already stays as it is.
static bool rp_reader_add(rtpush_hub *hub, rp_reader *r, rp_source *s, uint64_t pos) {
    if (rp_reader_sub(r, s)) return true;
    if (!rp_reader_reserve(hub, r)) return false;
    if (!rp_mem_grow(&hub->mem, (void **)&s->entries, &s->cap, s->count, sizeof *s->entries)) return false;
    rp_entry *e = &s->entries[s->count];
    e->pos = pos;
    e->reader = r;
    e->done = s->total;
    memset(&r->subs[r->count], 0, sizeof *r->subs);
    r->subs[r->count].source = s;
    r->subs[r->count].start = pos;
    r->subs[r->count++].at = s->count++ & RP_AT_MAX;
    rp_source_changed(s);
    if (!s->is_pattern) rp_quiet_remove(rp_source_topic(s));
    hub->stats.subscriptions++;
    if (hub->hooks) hub->hooks->subscribed(hub, s, 1);
    return true;
}

// Messages before the reader's place in the source that it will not get any more.
static void rp_entry_settle(const rp_source *s, rp_entry *e, uint64_t *counter) {
    *counter += (uint32_t)(s->total - e->done);
    e->done = s->total;
}

static void rp_reader_remove(rtpush_hub *hub, rp_reader *r, rp_sub *sub) {
    rp_source *s = sub->source;
    uint32_t at = sub->at;
    rp_entry_settle(s, &s->entries[at], &hub->stats.abandoned);
    s->entries[at] = s->entries[--s->count];
    if (at < s->count) rp_reader_sub(s->entries[at].reader, s)->at = at & RP_AT_MAX;
    *sub = r->subs[--r->count];
    rp_source_changed(s);
    hub->stats.subscriptions--;
    if (hub->hooks) hub->hooks->subscribed(hub, s, -1);
    if (!s->count && !s->is_pattern) rp_quiet_add(hub, rp_source_topic(s));
    rp_source_release(hub, s);
}

static void rp_replay_drop(rtpush_hub *hub, rp_reader *r) {
    rp_replay *done = r->replays;
    r->replays = done->next;
    rp_mem_free(&hub->mem, done);
}

// A reader leaves everything, the half-sent message included.
static void rp_reader_leave(rtpush_hub *hub, rp_reader *r) {
    while (r->count) rp_reader_remove(hub, r, &r->subs[r->count - 1]);
    while (r->replays) rp_replay_drop(hub, r);
    if (r->subs != &r->one) rp_mem_free(&hub->mem, r->subs);
    r->subs = &r->one;
    r->cap = 1;
    hub->stats.abandoned += r->rest_owed;
    r->rest_owed = 0;
}

// The reader is to be looked at when the turn ends.
static void rp_hub_again(rtpush_hub *hub, rp_reader *r) {
    if (r->is_queued) return;
    r->is_queued = true;
    r->next_again = NULL;
    if (hub->again_last) hub->again_last->next_again = r;
    else hub->again_first = r;
    hub->again_last = r;
}

// A reader that will be no more is not looked at.
static void rp_hub_not_again(rtpush_hub *hub, rp_reader *r) {
    if (!r->is_queued) return;
    rp_reader *before = NULL;
    for (rp_reader *at = hub->again_first; at != r; at = at->next_again) before = at;
    if (before) before->next_again = r->next_again;
    else hub->again_first = r->next_again;
    if (hub->again_last == r) hub->again_last = before;
    r->is_queued = false;
}

// --- the log's end ---

// Appends, tells nobody: the flush does. 0, or a code and nothing changed.
static int rp_hub_append(rtpush_hub *hub, const rtpush_message *m) {
    int code = RTPUSH_OK;
    rp_topic *t = rp_hub_topic(hub, rp_slice_of(m->topic), &code);
    if (!t) return code;
    int64_t age = m->time_ms ? RP_MAX(rp_hub_wall(hub) - m->time_ms, (int64_t)0) : 0;
    if (!rp_log_append(&hub->log, t, m, hub->wheel.now - (uint64_t)age, &hub->stats.owed)) { // may be before the clock's 0
        rp_source_release(hub, &t->source);
        return RTPUSH_E_MEMORY;
    }
    if (t->is_quiet) rp_quiet_add(hub, t);
    hub->stats.published++;
    if (RTPUSH_BREAK(4)) rp_topic_trim(&hub->log, t, hub->wheel.now);
    return RTPUSH_OK;
}

// Drops a topic's history up to a seq: what is safe at once, the rest as soon as all had their turn.
static void rp_hub_clear(rtpush_hub *hub, rp_topic *t, uint64_t seq) {
    for (uint32_t i = rp_topic_after(t, seq); i-- > 0;) {
        if (rp_topic_at(t, i)->is_ephemeral) continue; // invariant 2: never to an ephemeral one's
        t->cleared = RP_MAX(t->cleared, rp_topic_at(t, i)->seq);
        break;
    }
    rp_topic_trim(&hub->log, t, hub->wheel.now);
    if (t->count) rp_log_trim_later(&hub->log, t);
    else rp_source_release(hub, &t->source);
}

// Up to where messages of the name are lost to who comes now, whether the topic exists or not.
static uint64_t rp_hub_lost(const rtpush_hub *hub, rtpush_slice name) {
    uint64_t hash = rp_hub_hash(hub, name);
    const rp_source *s = rp_hub_find(hub, name, hash);
    return s ? rp_source_lost(s) : rp_dead_lost(hub, name, hash);
}

// A mark from elsewhere: of the topic nothing up to seq is to be had.
static void rp_topic_lose(rp_topic *t, uint64_t seq) {
    if (seq <= t->source.evicted) return;
    rp_source_raise(t, seq);
    t->source.last = RP_MAX(t->source.last, seq);
}

// Another log begins: nothing of the old one is held or remembered, everybody stands at its start.
static void rp_hub_restart(rtpush_hub *hub, const char *epoch, uint64_t floor) {
    for (rp_node *node = rp_table_next(&hub->names, NULL); node; node = rp_table_next(&hub->names, node)) {
        rp_source *s = RP_OWNER(rp_source, node, node);
        while (!s->is_pattern && rp_source_topic(s)->count) rp_topic_evict(&hub->log, rp_source_topic(s));
    }
    for (rp_node *node = rp_table_next(&hub->names, NULL); node; node = rp_table_next(&hub->names, node)) {
        rp_source *s = RP_OWNER(rp_source, node, node);
        s->last = s->evicted = s->circle = s->safe = s->fresh = floor;
        for (uint32_t i = 0; i < s->count; i++) {
            rp_entry_settle(s, &s->entries[i], &hub->stats.skipped);
            s->entries[i].pos = floor;
        }
        if (!s->is_pattern) rp_source_topic(s)->cleared = 0, rp_log_trim_later(&hub->log, rp_source_topic(s));
    }
    while (hub->dead_first) rp_dead_drop_oldest(hub);
    memcpy(hub->log.epoch, epoch, 8);
    hub->log.head = hub->log.floor = hub->log.safe = floor;
    hub->log.despelled = 0;
    for (unsigned i = 0; i < RP_SPELLINGS; i++) hub->runs[i].source = NULL;
}

// Retention of the topics that changed. Those that hold what not all had their turn at come again.
static void rp_hub_trim_topics(rtpush_hub *hub) {
    rp_topic *t = hub->log.trim_first, *later = NULL;
    hub->log.trim_first = NULL;
    for (rp_topic *next; t; t = next) {
        next = t->next_trim;
        t->is_to_trim = false;
        rp_topic_trim(&hub->log, t, hub->wheel.now);
        if (t->count && rp_topic_at(t, t->count - 1)->seq > hub->log.safe) {
            t->is_to_trim = true;
            t->next_trim = later;
            later = t;
        } else if (t->count && t->keep.ms >= 0) {
            uint64_t due = rp_topic_at(t, 0)->born_ms + (uint64_t)t->keep.ms;
            if (!rp_timer_is_armed(&t->expiry) || t->expiry.due > due) rp_timer_start(&hub->wheel, &t->expiry, due);
        } else {
            rp_source_release(hub, &t->source);
        }
    }
    hub->log.trim_first = later;
}

// After a flush: retention topic by topic, then the budget of all.
static void rp_hub_trim(rtpush_hub *hub) {
    uint64_t bytes_max = (uint64_t)hub->desc.history_total_bytes;
    if (hub->log.trim_first) rp_hub_trim_topics(hub);
    if (hub->log.bytes > bytes_max) {
        rp_log_trim(&hub->log, bytes_max, hub->wheel.now);
        rp_hub_trim_topics(hub);
    }
    for (unsigned i = 0; i < RP_SPELLINGS; i++) hub->runs[i].source = NULL; // they may point to what is gone
}
#endif // RP_SERVER

// ============================================================================
// >>spell  a message in the five spellings  (uses: hub, json, sse, ws)
//
// The raw frame is the message's home (see topic). The other four are made on first
// use, once, next to their neighbours' on the same topic.
// ============================================================================
#ifdef RP_SERVER
static void rp_spell_cursor(rtpush_hub *hub, rp_buf *buf, uint64_t seq) {
    char cursor[RP_CURSOR_MAX];
    rp_buf_put(&hub->mem, buf, cursor, rp_cursor_write(cursor, hub->log.epoch, seq));
}

static void rp_spell_base64(rtpush_hub *hub, rp_buf *buf, const void *data, size_t size) {
    char *room = rp_buf_room(&hub->mem, buf, rp_base64_size(size));
    if (!room) return;
    rp_base64_write(room, data, size);
    buf->end += rp_base64_size(size);
}

// The members of a message in JSON (PROTOCOL §3), without the braces.
static void rp_spell_members(rtpush_hub *hub, rp_buf *buf, const rtpush_message *m) {
    rp_mem *mem = &hub->mem;
    rp_buf_text(mem, buf, "\"id\":\"");
    rp_spell_cursor(hub, buf, m->seq);
    rp_buf_text(mem, buf, "\",\"topic\":");
    rp_json_text(mem, buf, m->topic);
    if (*m->event) {
        rp_buf_text(mem, buf, ",\"event\":");
        rp_json_text(mem, buf, m->event);
    }
    rp_buf_text(mem, buf, m->kind == RTPUSH_BINARY ? ",\"encoding\":\"base64\",\"data\":\"" : ",\"data\":");
    if (m->kind == RTPUSH_TEXT) rp_json_string(mem, buf, (const char *)m->data, m->size);
    else if (m->kind == RTPUSH_JSON) rp_json_line(mem, buf, (const char *)m->data, m->size);
    else rp_spell_base64(hub, buf, m->data, m->size);
    if (m->kind == RTPUSH_BINARY) rp_buf_text(mem, buf, "\"");
}

static void rp_spell_envelope(rtpush_hub *hub, rp_buf *buf, const rtpush_message *m, bool is_replay) {
    rp_buf_text(&hub->mem, buf, "{\"type\":\"message\",");
    rp_spell_members(hub, buf, m);
    rp_buf_text(&hub->mem, buf, is_replay ? ",\"replay\":true}" : "}");
}

// An SSE block; event: what the message's own is, else `other` (NULL: none). A replay has no id: it moves nothing.
static void rp_spell_event(rtpush_hub *hub, rp_buf *buf, const rtpush_message *m, const char *other, bool is_replay) {
    rp_mem *mem = &hub->mem;
    const char *event = *m->event ? m->event : other ? other : m->kind == RTPUSH_BINARY ? "binary" : "";
    if (!is_replay) rp_buf_text(mem, buf, "id: "), rp_spell_cursor(hub, buf, m->seq), rp_buf_text(mem, buf, "\n");
    if (*event) rp_sse_field(mem, buf, "event: ", event, strlen(event));
    if (m->kind == RTPUSH_BINARY) {
        rp_buf_text(mem, buf, "data: ");
        rp_spell_base64(hub, buf, m->data, m->size);
        rp_buf_text(mem, buf, "\n");
    } else {
        rp_sse_data(mem, buf, (const char *)m->data, m->size);
    }
    rp_buf_text(mem, buf, "\n");
}

// The same block with the envelope's JSON as its data (?events=envelope).
static void rp_spell_event_envelope(rtpush_hub *hub, rp_buf *buf, const rtpush_message *m, bool is_replay) {
    rp_mem *mem = &hub->mem;
    if (!is_replay) rp_buf_text(mem, buf, "id: "), rp_spell_cursor(hub, buf, m->seq), rp_buf_text(mem, buf, "\n");
    rp_buf_text(mem, buf, "data: ");
    rp_spell_envelope(hub, buf, m, is_replay);
    rp_buf_text(mem, buf, "\n\n");
}

// Puts head, text and tail where the topic's messages of this spelling lie.
static bool rp_spell_store(rtpush_hub *hub, rp_msg *m, enum rp_spelling spelling, const char *head, size_t head_size,
                           rtpush_slice text, rtpush_slice tail) {
    char *room = rp_topic_room(&hub->log, m->topic, spelling, head_size + text.size + tail.size, &m->as[spelling]);
    if (!room) return false;
    if (head_size) memcpy(room, head, head_size);
    memcpy(room + head_size, text.data, text.size);
    if (tail.size) memcpy(room + head_size + text.size, tail.data, tail.size);
    if (m->seq <= hub->log.despelled) hub->log.despelled = m->seq - 1;
    return true;
}

static bool rp_spell(rtpush_hub *hub, rp_msg *m, enum rp_spelling spelling) {
    char head[RP_CHUNK_HEAD_MAX];
    size_t head_size = 0;
    if (m->as[spelling].block) return true;
    rp_buf *buf = rp_hub_text(hub);
    rtpush_message view = rp_msg_view(m, 0, 0);
    if (spelling == RP_ENVELOPE) {
        rp_spell_envelope(hub, buf, &view, false);
        head_size = rp_ws_head((unsigned char *)head, RP_WS_TEXT, rp_buf_size(buf));
    } else if (spelling == RP_EVENT || spelling == RP_EVENT_ENVELOPE) {
        if (spelling == RP_EVENT) rp_spell_event(hub, buf, &view, NULL, false);
        else rp_spell_event_envelope(hub, buf, &view, false);
        head_size = rp_chunk_head(head, rp_buf_size(buf));
    } else {
        rp_buf_text(&hub->mem, buf, "{");
        rp_spell_members(hub, buf, &view);
        rp_buf_text(&hub->mem, buf, "}");
    }
    if (buf->is_broken) return false;
    return rp_spell_store(hub, m, spelling, head, head_size, rp_buf_slice(buf), rp_slice("\r\n", spelling == RP_EVENT || spelling == RP_EVENT_ENVELOPE ? 2 : 0));
}

// {"from":…,"to":…,"reason":…}, without the braces.
static void rp_spell_gap(rtpush_hub *hub, rp_buf *buf, const rp_gap *gap) {
    rp_mem *mem = &hub->mem;
    rp_buf_text(mem, buf, "\"from\":");
    rp_json_text(mem, buf, gap->from);
    rp_buf_text(mem, buf, ",\"to\":\"");
    rp_spell_cursor(hub, buf, gap->to);
    rp_buf_text(mem, buf, "\",\"reason\":\"");
    rp_buf_text(mem, buf, gap->reason);
    rp_buf_text(mem, buf, "\"");
}
#endif // RP_SERVER

// ============================================================================
// >>reader  the cursor moves: start, catch up, fan out, flush  (uses: hub, spell)
//
// ONE piece of code for replay, resume, poll and live push: advance a reader over the
// messages that match. A message goes to a reader iff some subscription that matches
// is before it and none is past it. A publish touches no reader; the flush, once a turn,
// walks the entries of what was marked, and whoever is level there shares one run of
// bytes. A reader whose socket is full owns its position and one half-sent message.
//
//     start -> catching up -> level <-> behind
//                  ^  \__ blocked __/      (comes back when its socket drains)
// ============================================================================
#ifdef RP_SERVER
enum { RP_SCAN_TOPICS = 64, RP_TURN_BYTES = 65536, RP_TURN_MESSAGES = 64, RP_AHEAD_MS = 5000 };

// --- which messages ---

// Is the stored message among the last n of its topic up to `head`?
static bool rp_msg_is_recent(const rp_msg *m, uint32_t n, uint64_t head) {
    uint32_t later = 0;
    for (uint32_t i = rp_topic_after(m->topic, m->seq); i < m->topic->count && later < n; i++) {
        const rp_msg *other = rp_topic_at(m->topic, i);
        if (other->seq > head) break;
        later += !other->is_ephemeral;
    }
    return later < n;
}

// Invariant 7: some subscription that matches is before it, and none has brought it. With `-N` only the last ones of
// what was before it began. `only`: as if the reader had this subscription alone to bring it (a replay).
static bool rp_reader_takes(const rp_reader *r, const rp_msg *m, const rp_source *only) {
    bool takes = false;
    for (uint16_t i = 0; i < r->count; i++) {
        const rp_source *s = r->subs[i].source;
        if (!rp_source_has(s, m->topic)) continue;
        if (rp_sub_entry(&r->subs[i])->pos >= m->seq) {
            if (m->seq > r->subs[i].start && !RTPUSH_BREAK(7)) return false; // it brought it
        } else if (!only || only == s) {
            bool is_all = only || r->subs[i].is_late || !r->last_n || m->seq > r->began;
            takes |= is_all || rp_msg_is_recent(m, r->last_n, r->began);
        }
    }
    return takes;
}

// No ephemeral message of before it began.
static bool rp_reader_wants(const rp_reader *r, const rp_msg *m) { return m->seq > r->began || !m->is_ephemeral; }

// Up to where a subscription has everything. A level reader's entries are not moved by what other sources get: it had
// all that was before this source became dirty, which its position need not say.
static uint64_t rp_sub_pos(const rp_reader *r, const rp_sub *sub) {
    uint64_t pos = rp_sub_entry(sub)->pos;
    return r->is_level && pos < sub->source->last ? RP_MAX(pos, sub->source->fresh) : pos;
}

// A walk over what is held for a reader, in the order of seq: over the rings of its topics, or, with a pattern, the spine.
typedef struct rp_scan {
    rtpush_hub *hub;
    const rp_reader *reader;
    bool is_spine;
    uint32_t at, next[RP_SCAN_TOPICS];
} rp_scan;

// The position behind which the spine has all it may be behind on.
static uint64_t rp_reader_from(const rp_reader *r) {
    uint64_t from = UINT64_MAX;
    for (uint16_t i = 0; i < r->count; i++) {
        uint64_t pos = rp_sub_pos(r, &r->subs[i]);
        if (pos < r->subs[i].source->last) from = RP_MIN(from, pos);
    }
    return from;
}

static void rp_scan_begin(rp_scan *scan, rtpush_hub *hub, const rp_reader *r) {
    scan->hub = hub;
    scan->reader = r;
    scan->is_spine = r->count > RP_SCAN_TOPICS;
    for (uint16_t i = 0; i < r->count; i++) scan->is_spine |= r->subs[i].source->is_pattern;
    if (scan->is_spine) scan->at = rp_log_after(&hub->log, rp_reader_from(r));
    for (uint16_t i = 0; i < r->count && !scan->is_spine; i++)
        scan->next[i] = rp_topic_after(rp_source_topic(r->subs[i].source), rp_sub_entry(&r->subs[i])->pos);
}

// The least next message of the topics.
static rp_msg *rp_scan_merge(rp_scan *scan) {
    rp_msg *least = NULL;
    uint16_t from = 0;
    for (uint16_t i = 0; i < scan->reader->count; i++) {
        const rp_topic *t = rp_source_topic(scan->reader->subs[i].source);
        if (scan->next[i] == t->count) continue;
        rp_msg *m = rp_topic_at(t, scan->next[i]);
        if (!least || m->seq < least->seq) least = m, from = i;
    }
    if (least) scan->next[from]++;
    return least;
}

static rp_msg *rp_scan_next(rp_scan *scan) {
    const rp_log *log = &scan->hub->log;
    if (!scan->is_spine) {
        rp_msg *m;
        while ((m = rp_scan_merge(scan)) != NULL)
            if (rp_reader_wants(scan->reader, m)) return m;
        return NULL;
    }
    while (scan->at < log->spine_end) {
        rp_msg *m = log->spine[scan->at++].msg;
        if (m && rp_reader_takes(scan->reader, m, NULL) && rp_reader_wants(scan->reader, m)) return m;
    }
    return NULL;
}

// --- where it is ---

static bool rp_reader_is_behind(const rp_reader *r) {
    for (uint16_t i = 0; i < r->count; i++)
        if (rp_sub_entry(&r->subs[i])->pos < r->subs[i].source->last) return true;
    return false;
}

// Writes down where it is: what it is not behind on it has up to the head.
static void rp_reader_settle(rtpush_hub *hub, rp_reader *r) {
    for (uint16_t i = 0; i < r->count; i++) {
        rp_entry *e = rp_sub_entry(&r->subs[i]);
        e->pos = e->pos < r->subs[i].source->last ? rp_sub_pos(r, &r->subs[i]) : RP_MAX(e->pos, hub->log.head);
    }
    for (rp_replay *job = r->replays; job; job = job->next)
        if (job->mark >= job->source->last) job->mark = RP_MAX(job->mark, hub->log.head);
}

// No longer level: from now on its entries say where it is.
static void rp_reader_unlevel(rtpush_hub *hub, rp_reader *r) {
    if (r->is_level) rp_reader_settle(hub, r);
    r->is_level = false;
}

// What it would resume with: the least position it is behind at, the head when it is behind at none. It is told to the
// client, so it is written down, too: a cursor never goes back.
static uint64_t rp_reader_cursor(rtpush_hub *hub, rp_reader *r) {
    uint64_t least = UINT64_MAX;
    if (!RTPUSH_BREAK(9)) rp_reader_settle(hub, r);
    for (uint16_t i = 0; i < r->count; i++) {
        const rp_source *s = r->subs[i].source;
        uint64_t pos = rp_sub_entry(&r->subs[i])->pos;
        for (const rp_replay *job = r->replays; job; job = job->next)
            if (job->source == s) pos = RP_MAX(pos, job->mark); // what is replayed does not move the cursor
        if (pos < s->last) least = RP_MIN(least, pos);
    }
    return least == UINT64_MAX ? RP_MAX(hub->log.head, r->ahead) : least;
}

static uint64_t rp_reader_lag(const rp_reader *r) {
    uint64_t lag = r->rest_owed;
    for (uint16_t i = 0; i < r->count; i++) lag += (uint32_t)(r->subs[i].source->total - rp_sub_entry(&r->subs[i])->done);
    return lag;
}

// It has everything: its subscriptions are at the head, what they were owed and did not get is skipped.
static void rp_reader_level(rtpush_hub *hub, rp_reader *r) {
    for (uint16_t i = 0; i < r->count; i++) {
        rp_entry *e = rp_sub_entry(&r->subs[i]);
        e->pos = RP_MAX(e->pos, hub->log.head);
        rp_entry_settle(r->subs[i].source, e, &hub->stats.skipped);
    }
    r->is_level = true;
}

// A message has begun to go out: every subscription it is owed to is done with it, none is before it any more.
static void rp_reader_took(rtpush_hub *hub, rp_reader *r, const rp_msg *m, bool is_whole) {
    for (uint16_t i = 0; i < r->count; i++) {
        rp_entry *e = rp_sub_entry(&r->subs[i]);
        if (e->pos >= m->seq) continue;
        e->pos = m->seq;
        if (!rp_source_has(r->subs[i].source, m->topic)) continue;
        e->done++;
        if (is_whole) hub->stats.delivered++;
        else r->rest_owed++;
    }
}

// --- starting ---

// Puts an entry back to pos; what is held behind it is owed from now on.
static void rp_entry_rewind(rtpush_hub *hub, const rp_source *s, rp_entry *e, uint64_t pos) {
    uint32_t held = 0;
    rp_entry_settle(s, e, &hub->stats.skipped); // what it was owed where it was
    e->pos = pos;
    if (!s->is_pattern) {
        const rp_topic *t = (const rp_topic *)(const void *)s;
        held = t->count - rp_topic_after(t, pos);
    } else {
        for (uint32_t i = rp_log_after(&hub->log, pos); i < hub->log.spine_end; i++)
            held += hub->log.spine[i].msg && rp_source_has(s, hub->log.spine[i].msg->topic);
    }
    e->done = s->total - held;
    hub->stats.owed += held;
}

// `-N`: just before the last n stored messages; of a pattern, before the oldest of those of all its topics.
static uint64_t rp_source_before_last(rtpush_hub *hub, const rp_source *s, uint32_t n) {
    uint64_t pos = hub->log.head;
    if (s->is_pattern) {
        for (uint32_t i = hub->log.spine_first; i < hub->log.spine_end; i++) {
            const rp_msg *m = hub->log.spine[i].msg;
            if (m && !m->is_ephemeral && rp_source_has(s, m->topic) && rp_msg_is_recent(m, n, pos)) return m->seq - 1;
        }
        return pos;
    }
    const rp_topic *t = (const rp_topic *)(const void *)s;
    for (uint32_t i = t->count; i-- > 0 && n;) {
        const rp_msg *m = rp_topic_at(t, i);
        if (!m->is_ephemeral) pos = m->seq - 1, n--;
    }
    return pos;
}

// What a start means for sources that have lost all up to `lost`: the position, and the gap where there is one.
static uint64_t rp_start_verdict(rtpush_hub *hub, const rp_start *start, uint64_t lost, rp_gap *gap) {
    bool is_other = start->kind == RP_START_BAD;
    uint64_t seq = start->seq;
    memset(gap, 0, sizeof *gap);
    if (start->kind == RP_START_NONE || start->kind == RP_START_LATEST) return hub->log.head;
    if (start->kind == RP_START_EARLIEST || start->kind == RP_START_LAST) return 0;
    if (start->kind == RP_START_CURSOR) is_other = memcmp(start->epoch, hub->log.epoch, 8) != 0;
    if (!is_other && seq > hub->log.head && !hub->desc.bus) is_other = true; // never issued
    if (!is_other && seq >= lost) return seq;
    gap->is_told = true;
    gap->to = lost;
    gap->reason = is_other ? "epoch" : "evicted";
    if (start->kind != RP_START_BAD) rp_cursor_write(gap->from, start->kind == RP_START_CURSOR ? start->epoch : hub->log.epoch, seq);
    return is_other ? 0 : seq;
}

// Puts a subscription where it starts.
static void rp_reader_place(rtpush_hub *hub, rp_reader *r, rp_sub *sub, const rp_start *start, uint64_t pos, const rp_gap *gap) {
    const rp_source *s = sub->source;
    sub->told = gap->is_told ? gap->to : rp_source_lost(s);
    sub->is_dark = start->kind == RP_START_EARLIEST || start->kind == RP_START_LAST;
    sub->seen = s->lost;
    if (start->kind == RP_START_LAST) pos = rp_source_before_last(hub, s, (uint32_t)RP_MIN(start->seq, (uint64_t)UINT32_MAX));
    if (!s->is_pattern) pos = RP_MAX(pos, rp_source_lost(s));
    sub->start = pos;
    if (pos >= s->last) pos = RP_MAX(pos, hub->log.head);
    if (pos < hub->log.head) {
        rp_reader_unlevel(hub, r);
        rp_entry_rewind(hub, s, rp_sub_entry(sub), pos);
    } else {
        rp_sub_entry(sub)->pos = pos;
    }
}

// Places all of a new reader's subscriptions, atomically with having made them, and says what is lost.
static void rp_reader_start(rtpush_hub *hub, rp_reader *r, const rp_start *start, rp_gap *gap) {
    uint64_t lost = 0;
    for (uint16_t i = 0; i < r->count; i++) lost = RP_MAX(lost, rp_source_lost(r->subs[i].source));
    uint64_t pos = rp_start_verdict(hub, start, lost, gap);
    r->began = hub->log.head;
    r->is_level = true;
    r->ahead = pos > hub->log.head ? pos : 0;
    r->ahead_until = hub->wheel.now + RP_AHEAD_MS;
    if (start->kind == RP_START_LAST) r->last_n = (uint32_t)RP_MIN(start->seq, (uint64_t)UINT32_MAX);
    for (uint16_t i = 0; i < r->count; i++) rp_reader_place(hub, r, &r->subs[i], start, pos, gap);
    gap->start = start->kind >= RP_START_SEQ ? pos : rp_reader_cursor(hub, r);
    if (!r->is_level) rp_hub_again(hub, r);
}

// One more subscription on a reader that is under way. *replay gets what is to be done before the `ack` (the wire
// fills in what it wants to know then), NULL if nothing. 0 or a code.
static int rp_reader_join(rtpush_hub *hub, rp_reader *r, rp_source *s, const rp_start *start, size_t extra, rp_gap *gap, rp_replay **replay) {
    uint64_t mark = rp_reader_cursor(hub, r), pos = rp_start_verdict(hub, start, rp_source_lost(s), gap);
    bool is_back = start->kind == RP_START_LAST || pos < mark;
    rp_replay *job = NULL, **end = &r->replays;
    *replay = NULL;
    if (is_back && !(job = (rp_replay *)rp_mem_get(&hub->mem, sizeof *job + extra))) return RTPUSH_E_MEMORY;
    if (!rp_reader_add(hub, r, s, hub->log.head)) { rp_mem_free(&hub->mem, job); return RTPUSH_E_MEMORY; }
    rp_reader_place(hub, r, rp_reader_sub(r, s), start, pos, gap);
    rp_reader_sub(r, s)->is_late = true;
    if (!r->is_level) rp_hub_again(hub, r);
    if (pos > hub->log.head) r->ahead = RP_MAX(r->ahead, pos), r->ahead_until = hub->wheel.now + RP_AHEAD_MS;
    if (!job) return RTPUSH_OK;
    job->source = s;
    job->mark = mark;
    job->size = (uint32_t)extra;
    job->last_n = start->kind == RP_START_LAST ? (uint32_t)RP_MIN(start->seq, (uint64_t)UINT32_MAX) : 0;
    while (*end) end = &(*end)->next;
    *end = *replay = job;
    rp_reader_unlevel(hub, r);
    rp_hub_again(hub, r);
    return RTPUSH_OK;
}

// One subscription fewer, with its replay if that is not done.
static void rp_reader_part_from(rtpush_hub *hub, rp_reader *r, rp_sub *sub) {
    for (rp_replay **at = &r->replays; *at;) {
        rp_replay *job = *at;
        if (job->source != sub->source) { at = &job->next; continue; }
        *at = job->next;
        rp_mem_free(&hub->mem, job);
    }
    rp_reader_remove(hub, r, sub);
}

// --- losing ---

// A gap has taken the place of what was to be replayed: whoever waits for the end of that hears of it.
static void rp_reader_end_replays(rtpush_hub *hub, rp_reader *r) {
    while (r->replays) {
        if (r->wire->replayed) r->wire->replayed(hub, r, r->replays);
        if (r->replays) rp_replay_drop(hub, r);
    }
}

// What it still needs is gone (found when its turn comes): the policy of the source decides. false: it is closing.
static bool rp_reader_lost(rtpush_hub *hub, rp_reader *r, const rp_source *s) {
    rp_gap gap;
    memset(&gap, 0, sizeof gap);
    if (s->slow == RTPUSH_SLOW_CLOSE || !r->wire->gap) {
        hub->stats.closed_slow++;
        r->wire->close(hub, r, RP_CLOSE_SLOW);
        return false;
    }
    gap.is_told = true;
    gap.reason = "evicted";
    rp_cursor_write(gap.from, hub->log.epoch, rp_reader_cursor(hub, r));
    bool is_latest = s->slow == RTPUSH_SLOW_LATEST;
    if (is_latest) rp_reader_level(hub, r);
    gap.to = is_latest ? hub->log.head : s->evicted;
    for (uint16_t i = 0; i < r->count; i++) {
        r->subs[i].told = RP_MAX(r->subs[i].told, gap.to);
        r->subs[i].is_dark = false;
    }
    hub->stats.gaps++;
    r->wire->gap(hub, r, &gap);
    if (is_latest) rp_reader_end_replays(hub, r);
    return true;
}

// Has it lost messages of this source that it was not told of? Below `told` the mark cannot say so: there a loss since
// it began is enough.
static bool rp_sub_is_gone(const rp_reader *r, const rp_sub *sub) {
    const rp_source *s = sub->source;
    uint64_t pos = rp_sub_pos(r, sub);
    if (pos >= s->last) return false; // it has everything: the mark is of what was before it, or of the floor
    return RP_MAX(pos, sub->told) < s->evicted || (sub->is_dark && pos < sub->told && sub->seen != s->lost && !RTPUSH_BREAK(32));
}

// The first source of which it has lost messages it was not told of; NULL: none.
static const rp_source *rp_reader_gone(const rp_reader *r) {
    for (uint16_t i = 0; i < r->count; i++)
        if (rp_sub_is_gone(r, &r->subs[i])) return r->subs[i].source;
    return NULL;
}

// --- sending ---

static rtpush_iov rp_piece_iov(const rp_piece *piece) {
    rtpush_iov iov;
    iov.base = rp_block_bytes(piece->block) + piece->at;
    iov.len = piece->size;
    return iov;
}

// Adds a piece to a vector, joined to the last one where they are neighbours. false: the vector is full.
static bool rp_iov_add(rtpush_iov *iov, int *count, const rp_piece *piece) {
    rtpush_iov part = rp_piece_iov(piece);
    rtpush_iov *last = *count ? &iov[*count - 1] : NULL;
    if (last && (const char *)last->base + last->len == (const char *)part.base) {
        last->len += part.len;
        return true;
    }
    if (*count == RP_IOV) return false;
    iov[(*count)++] = part;
    return true;
}

// What a write took: whole messages are delivered, the one it broke off in is pinned.
static void rp_reader_advance(rtpush_hub *hub, rp_reader *r, rp_msg *m, size_t *taken) {
    const rp_piece *piece = &m->as[r->wire->spelling];
    bool is_whole = *taken >= piece->size;
    rp_reader_took(hub, r, m, is_whole);
    if (!is_whole && !RTPUSH_BREAK(6)) {
        r->rest = *piece;
        r->rest.at += (uint32_t)*taken;
        r->rest.size -= (uint32_t)*taken;
        r->rest.block->refs++;
    }
    *taken -= is_whole ? piece->size : *taken;
}

// The half-sent message is out.
static void rp_reader_rest_sent(rtpush_hub *hub, rp_reader *r) {
    rp_piece_drop(&hub->log, &r->rest);
    hub->stats.delivered += r->rest_owed;
    r->rest_owed = 0;
}

// The general way: any subscriptions, or far behind. One write; more to do: it is queued again.
static void rp_reader_fill_shared(rtpush_hub *hub, rp_reader *r) {
    rp_msg *taken[RP_TURN_MESSAGES], *m;
    rtpush_iov iov[RP_IOV];
    int count = 0, messages = 0;
    size_t size = 0;
    rp_scan scan;
    rp_scan_begin(&scan, hub, r);
    while ((m = rp_scan_next(&scan)) != NULL) {
        if (messages == RP_TURN_MESSAGES || size >= RP_TURN_BYTES) break;
        if (!rp_spell(hub, m, (enum rp_spelling)r->wire->spelling)) { r->wire->close(hub, r, RP_CLOSE_MEMORY); return; }
        if (!rp_iov_add(iov, &count, &m->as[r->wire->spelling])) break;
        taken[messages++] = m;
        size += m->as[r->wire->spelling].size;
    }
    ptrdiff_t n = r->wire->write(hub, r, iov, count, size);
    if (n < 0) return;
    size_t left = (size_t)n;
    for (int i = 0; i < messages && (left || !r->is_blocked); i++) rp_reader_advance(hub, r, taken[i], &left);
    if (r->is_blocked) rp_reader_unlevel(hub, r);
    else if (m) rp_reader_unlevel(hub, r), rp_hub_again(hub, r);
    else rp_reader_level(hub, r);
}

// Message by message into its own bytes: what no other reader shares.
static void rp_reader_fill_own(rtpush_hub *hub, rp_reader *r) {
    rp_scan scan;
    rp_msg *m;
    int messages = 0;
    rp_scan_begin(&scan, hub, r);
    while ((m = rp_scan_next(&scan)) != NULL && messages++ < RP_TURN_MESSAGES) {
        if (!r->wire->put(hub, r, m, false)) break;
        rp_reader_took(hub, r, m, true);
    }
    if (m) rp_reader_unlevel(hub, r);
    else rp_reader_level(hub, r);
    if (r->wire->write(hub, r, NULL, 0, 0) == 0 && m && !r->is_blocked) rp_hub_again(hub, r);
}

// A late subscription's messages up to its mark. true: it is done with, or closed.
static bool rp_reader_replay(rtpush_hub *hub, rp_reader *r) {
    rp_replay *job = r->replays;
    rp_source *s = job->source;
    rp_entry *e = rp_sub_entry(rp_reader_sub(r, s));
    int messages = 0;
    if (rp_sub_is_gone(r, rp_reader_sub(r, s))) {
        if (!rp_reader_lost(hub, r, s) || !r->replays) return true;
    }
    for (uint32_t i = rp_log_after(&hub->log, e->pos); i < hub->log.spine_end && hub->log.spine[i].seq <= job->mark; i++) {
        rp_msg *m = hub->log.spine[i].msg;
        if (!m || m->is_ephemeral || !rp_source_has(s, m->topic) || !rp_reader_takes(r, m, s)) continue;
        if (job->last_n && !rp_msg_is_recent(m, job->last_n, job->mark)) continue;
        if (messages++ == RP_TURN_MESSAGES || !r->wire->put(hub, r, m, true)) return false;
        e->pos = m->seq;
        e->done++;
        hub->stats.delivered++;
    }
    e->pos = RP_MAX(e->pos, job->mark);
    if (r->wire->replayed) r->wire->replayed(hub, r, job);
    rp_replay_drop(hub, r);
    return true;
}

static void rp_reader_fill(rtpush_hub *hub, rp_reader *r) {
    const rp_source *gone;
    rp_reader_settle(hub, r);
    while (r->replays && !r->is_blocked)
        if (!rp_reader_replay(hub, r)) { // more to do, or no room
            if (r->wire->write(hub, r, NULL, 0, 0) == 0 && !r->is_blocked) rp_hub_again(hub, r);
            return;
        }
    if (r->replays) return;
    while ((gone = rp_reader_gone(r)) != NULL)
        if (!rp_reader_lost(hub, r, gone)) return;
    if (!rp_reader_is_behind(r)) { rp_reader_level(hub, r); r->wire->write(hub, r, NULL, 0, 0); }
    else if (r->wire->spelling < 0) rp_reader_fill_own(hub, r);
    else rp_reader_fill_shared(hub, r);
}

// --- fan-out: level readers of one topic ---

// The bytes behind pos, made once for all who are there. NULL: no memory.
static const rp_run *rp_hub_run(rtpush_hub *hub, rp_topic *t, uint64_t pos, int spelling) {
    rp_run *run = &hub->runs[spelling];
    if (run->source == &t->source && run->pos == pos && run->last == t->source.last) return run;
    run->source = NULL;
    run->pos = pos;
    run->last = t->source.last;
    run->end = pos;
    run->count = 0;
    run->messages = 0;
    run->size = 0;
    uint32_t i = rp_topic_after(t, pos);
    for (; i < t->count; i++) {
        rp_msg *m = rp_topic_at(t, i);
        if (!rp_spell(hub, m, (enum rp_spelling)spelling)) return NULL;
        if (!rp_iov_add(run->iov, &run->count, &m->as[spelling])) break;
        run->messages++;
        run->size += m->as[spelling].size;
        run->end = m->seq;
    }
    if (i == t->count) run->end = run->last;
    run->source = &t->source;
    return run;
}

// A write that took only a part of a run.
static void rp_reader_part(rtpush_hub *hub, rp_reader *r, const rp_topic *t, size_t taken) {
    rp_reader_unlevel(hub, r);
    for (uint32_t i = rp_topic_after(t, rp_sub_entry(r->subs)->pos); taken && i < t->count; i++)
        rp_reader_advance(hub, r, rp_topic_at(t, i), &taken);
}

// The hot path: one compare, one load, one write for all that a topic has got in this turn.
static void rp_reader_one(rtpush_hub *hub, rp_reader *r, rp_topic *t) {
    rp_source *s = &t->source;
    rp_entry *e = rp_sub_entry(r->subs);
    while (e->pos < s->last && !r->is_blocked) {
        const rp_run *run = rp_hub_run(hub, t, e->pos, r->wire->spelling);
        if (!run) { r->wire->close(hub, r, RP_CLOSE_MEMORY); return; }
        ptrdiff_t n = r->wire->write(hub, r, run->iov, run->count, run->size);
        if (n < 0) return;
        if ((size_t)n < run->size) { rp_reader_part(hub, r, t, (size_t)n); return; }
        e->pos = run->end;
        e->done += run->messages;
        hub->stats.delivered += run->messages;
    }
    if (e->pos >= s->last) rp_reader_level(hub, r);
}

// A reader's turn for a source that has something new.
static void rp_reader_turn(rtpush_hub *hub, rp_reader *r, rp_source *s) {
    bool is_simple = r->count == 1 && !s->is_pattern && !r->replays && r->wire->spelling >= 0;
    const rp_entry *e = rp_sub_entry(r->subs);
    if (r->wire->answer) r->wire->answer(hub, r);
    else if (is_simple && e->pos >= r->began && !rp_sub_is_gone(r, r->subs)) rp_reader_one(hub, r, rp_source_topic(s));
    else rp_reader_fill(hub, r);
}

// Walks a dirty source's entries, downward and round: fair, and removing never hides one. A message that comes
// meanwhile starts another circle. false: the budget is spent.
static bool rp_source_walk(rtpush_hub *hub, rp_source *s) {
    while (s->is_dirty) {
        while (s->left && s->count) {
            if (!hub->budget) return false;
            s->at = (s->at && s->at <= s->count ? s->at : s->count) - 1;
            s->left--;
            rp_entry *e = &s->entries[s->at];
            if (e->reader->is_blocked) rp_reader_unlevel(hub, e->reader); // what it is passed over for is before the next mark
            else if (e->pos >= s->last && e->done != s->total) rp_entry_settle(s, e, &hub->stats.skipped); // it was ahead
            if (e->reader->is_blocked || e->pos >= s->last) continue;
            hub->budget--;
            rp_reader_turn(hub, e->reader, s);
        }
        s->safe = s->circle;
        if (s->last > s->circle && !RTPUSH_BREAK(52)) {
            s->circle = s->last;
            s->left = s->count;
        } else {
            s->is_dirty = false;
        }
    }
    return true;
}

// All dirty sources, as far as the budget goes. What is left stays in front. Returns up to where all had their turn.
static uint64_t rp_hub_walk(rtpush_hub *hub) {
    uint64_t safe = hub->log.head;
    rp_source *s;
    while ((s = hub->log.dirty_first) != NULL && rp_source_walk(hub, s)) {
        hub->log.dirty_first = s->next_dirty;
        if (!hub->log.dirty_first) hub->log.dirty_last = NULL;
        rp_source_release(hub, s);
    }
    for (; s; s = s->next_dirty) safe = RP_MIN(safe, s->safe);
    return safe;
}

// Those who came back, began, or have own bytes. false: the budget was spent before all had their turn.
static bool rp_hub_serve_again(rtpush_hub *hub) {
    rp_reader *end = hub->again_last, *r;
    while (end && (r = hub->again_first) != NULL) {
        if (!hub->budget) return false;
        hub->again_first = r->next_again;
        if (!hub->again_first) hub->again_last = NULL;
        r->is_queued = false;
        hub->budget--;
        if (!r->is_blocked && r->wire->answer) r->wire->answer(hub, r);
        else if (!r->is_blocked) rp_reader_fill(hub, r);
        if (r == end) break;
    }
    return true;
}

// Once a turn, before waiting: everyone with room gets what is new, then retention. A quarter of the writes is kept
// for those who are queued, so that a topic in full flow starves nobody.
static void rp_hub_flush(rtpush_hub *hub) {
    uint32_t all = (uint32_t)hub->desc.writes_per_turn, share = all < 4 ? hub->flushes++ & 1 : all / 4;
    uint32_t kept = hub->again_first ? share : 0;
    hub->budget = all - kept;
    uint64_t safe = rp_hub_walk(hub);
    hub->budget += kept;
    if (rp_hub_serve_again(hub)) hub->log.safe = RP_MAX(hub->log.safe, safe);
    rp_hub_trim(hub);
}

static bool rp_hub_has_work(const rtpush_hub *hub) { return hub->log.dirty_first || hub->again_first; }

// --- is all of it true? (tests, debug builds) ---

static const char *rp_check_topic(const rtpush_hub *hub, const rp_topic *t) {
    uint64_t before = t->source.evicted, bytes = 0;
    if (t->source.evicted > t->source.last) return "evicted is above last";
    if (t->source.last > hub->log.head) return "last is above the head";
    for (uint32_t i = 0; i < t->count; i++) {
        const rp_msg *m = rp_topic_at(t, i);
        if (i && m->seq <= before) return "a ring is not ascending";
        if (!i && m->seq <= before && !m->is_ephemeral) return "a held message is marked as evicted";
        before = m->seq;
        bytes += rp_msg_charge(m);
        uint32_t at = rp_log_after(&hub->log, m->seq - 1);
        if (at == hub->log.spine_end || hub->log.spine[at].msg != m) return "a message is in a ring and not in the spine";
    }
    if (bytes != t->bytes) return "a topic's bytes are miscounted";
    for (uint32_t i = 0; i < t->source.link_count; i++) {
        const rp_source *p = t->source.links[i];
        if (p->evicted < t->source.evicted) return "a pattern's mark is below a topic's";
        if (p->last < t->source.last && t->count) return "a pattern's last is below a topic's";
        if (!rp_topic_matches(rp_source_name(p), rp_source_name(&t->source))) return "a pattern does not match its topic";
    }
    return NULL;
}

static const char *rp_check_entries(rp_source *s, uint64_t *pending) {
    for (uint32_t i = 0; i < s->count; i++) {
        const rp_entry *e = &s->entries[i];
        rp_reader *r = e->reader;
        const rp_sub *sub = rp_reader_sub(r, s);
        if (!sub || sub->at != i) return "an entry and its subscription differ";
        *pending += (uint32_t)(s->total - e->done);
        if (e->pos < s->last && !s->is_dirty && !r->is_blocked && !r->is_queued) return "a reader is behind and nobody will serve it";
        if (e->pos >= s->last && e->done != s->total && !r->is_queued && !r->is_blocked && !s->is_dirty) return "a level reader is owed something";
        if (r->rest.block && !r->is_blocked && !r->is_queued) return "a reader has a half-sent message and is not blocked";
    }
    return NULL;
}

static const char *rp_check_all(rtpush_hub *hub) {
    uint64_t pending = 0, rest = 0, held = 0;
    const char *wrong = NULL;
    for (rp_node *node = rp_table_next(&hub->names, NULL); node && !wrong; node = rp_table_next(&hub->names, node)) {
        rp_source *s = RP_OWNER(rp_source, node, node);
        if (!s->is_pattern) {
            wrong = rp_check_topic(hub, rp_source_topic(s));
            held += rp_source_topic(s)->count;
        }
        if (!wrong) wrong = rp_check_entries(s, &pending);
        for (uint32_t i = 0; i < s->count; i++)
            if (s->entries[i].reader->subs[0].source == s) rest += s->entries[i].reader->rest_owed;
    }
    if (wrong) return wrong;
    if (held != hub->log.held) return "the spine and the rings hold different messages";
    for (uint32_t i = hub->log.spine_first; i + 1 < hub->log.spine_end; i++)
        if (hub->log.spine[i].seq >= hub->log.spine[i + 1].seq) return "the spine is not ascending";
    const rtpush_stats *n = &hub->stats;
    if (n->owed != n->delivered + n->skipped + n->abandoned + pending + rest) return "owed is not delivered + skipped + abandoned + pending";
    return NULL;
}
#endif // RP_SERVER

// ============================================================================
// >>publish  tickets, idempotency keys, the bus  (uses: hub, table)
//
// A publish ends by its completion: at once with the hub's own log, later with a bus.
// The hub knows a bus only as a table of verbs. A key (identity, topic, key) remembers
// its message's seq for keys_ms; a second publish while the first is under way waits for
// it, and gets the same answer. Keys are kept as two keyed hashes, not as texts.
// ============================================================================
#ifdef RP_SERVER
// Somebody who is told how a publish ended.
typedef struct rp_waiter {
    struct rp_waiter *next;
    uint64_t ticket;
    rtpush_published done;
    void *user;
} rp_waiter;

typedef struct rp_key {
    rp_node node; // in outbox.keys
    struct rp_key *next; // younger
    uint64_t check, seq, expires;
    bool is_pending;
    rp_waiter *waiters;
} rp_key;

// A publish that the bus has and has not ended.
typedef struct rp_ticket {
    rp_node node; // in outbox.tickets, hashed by its number
    rp_waiter waiter;
    rp_key *key;
} rp_ticket;

typedef struct rp_outbox {
    rp_table tickets, keys;
    rp_key *key_first, *key_last;
    uint64_t last_ticket;
    bool is_closed; // the hub is being destroyed
} rp_outbox;

static bool rp_outbox_open(rtpush_hub *hub) {
    rp_outbox *outbox = (rp_outbox *)rp_mem_get(&hub->mem, sizeof *outbox);
    hub->outbox = outbox;
    return outbox && rp_table_init(&hub->mem, &outbox->tickets) && rp_table_init(&hub->mem, &outbox->keys);
}

// --- keys ---

static void rp_key_remove(rtpush_hub *hub, rp_key *key) {
    rp_outbox *outbox = hub->outbox;
    rp_key *before = NULL;
    for (rp_key *at = outbox->key_first; at != key; at = at->next) before = at;
    if (before) before->next = key->next;
    else outbox->key_first = key->next;
    if (outbox->key_last == key) outbox->key_last = before;
    rp_table_remove(&outbox->keys, &key->node);
    rp_mem_free(&hub->mem, key);
}

// The oldest go when they are two minutes old or too many; one that is under way stays until it has ended.
static void rp_key_expire(rtpush_hub *hub) {
    rp_outbox *outbox = hub->outbox;
    while (outbox->key_first && !outbox->key_first->is_pending &&
           (outbox->key_first->expires <= hub->wheel.now || outbox->keys.count > (size_t)hub->desc.keys_max))
        rp_key_remove(hub, outbox->key_first);
}

static void rp_key_hash(rtpush_hub *hub, const rtpush_publication *what, uint64_t *hash, uint64_t *check) {
    const char *parts[3] = {what->identity ? what->identity : "", what->topic, what->key};
    rp_buf *buf = rp_hub_text(hub);
    for (unsigned i = 0; i < 3; i++) rp_buf_put(&hub->mem, buf, parts[i], strlen(parts[i]) + 1);
    rp_hash_key other = hub->hash_key;
    other.k0 ^= UINT64_C(0x5bd1e9955bd1e995);
    *hash = rp_hash(&hub->hash_key, buf->data, rp_buf_size(buf));
    *check = rp_hash(&other, buf->data, rp_buf_size(buf));
}

static rp_key *rp_key_find(const rtpush_hub *hub, uint64_t hash, uint64_t check) {
    rp_node *node = rp_table_first(&hub->outbox->keys, hash);
    for (; node; node = rp_table_same(node->next, hash))
        if (RP_OWNER(rp_key, node, node)->check == check) return RP_OWNER(rp_key, node, node);
    return NULL;
}

static rp_key *rp_key_new(rtpush_hub *hub, uint64_t hash, uint64_t check) {
    rp_outbox *outbox = hub->outbox;
    rp_key *key = (rp_key *)rp_mem_get(&hub->mem, sizeof *key);
    if (!key) return NULL;
    key->check = check;
    key->is_pending = true;
    key->expires = hub->wheel.now + (uint64_t)hub->desc.keys_ms;
    rp_table_add(&hub->mem, &outbox->keys, &key->node, hash);
    if (outbox->key_last) outbox->key_last->next = key;
    else outbox->key_first = key;
    outbox->key_last = key;
    return key;
}

// The first publish of a key has ended: whoever waited for it gets the same.
static void rp_key_end(rtpush_hub *hub, rp_key *key, uint64_t seq, int code) {
    rp_waiter *waiter = key->waiters;
    key->waiters = NULL;
    key->is_pending = false;
    key->seq = seq;
    if (code) rp_key_remove(hub, key);
    for (rp_waiter *next; waiter; waiter = next) {
        next = waiter->next;
        if (waiter->done) waiter->done(hub, waiter->ticket, seq, code, waiter->user);
        rp_mem_free(&hub->mem, waiter);
    }
}

// --- publishing ---

// Fills *m from what is asked, where it is in order. 0 or a code.
static int rp_publish_check(rtpush_hub *hub, const rtpush_publication *what, rtpush_message *m) {
    memset(m, 0, sizeof *m);
    if (!what->topic || (what->size && !what->data) || what->kind < RTPUSH_AUTO || what->kind > RTPUSH_BINARY) return RTPUSH_E_ARGUMENT;
    if (!rtpush_is_topic(what->topic, strlen(what->topic), false)) return RTPUSH_E_TOPIC;
    m->topic = what->topic;
    m->event = what->event && !what->clear ? what->event : "";
    m->data = "";
    if (what->clear) return RTPUSH_OK;
    if (!strcmp(m->event, "gap") || strlen(m->event) > RP_TOPIC_MAX || rtpush_utf8(0, m->event, strlen(m->event))) return RTPUSH_E_EVENT;
    for (const char *p = m->event; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f) return RTPUSH_E_EVENT;
    if (what->size > (uint64_t)hub->desc.message_max) return RTPUSH_E_TOO_BIG;
    if (what->data) m->data = what->data;
    m->size = what->size;
    m->kind = what->kind;
    m->ephemeral = what->ephemeral;
    bool is_text = what->kind == RTPUSH_BINARY || what->kind == RTPUSH_JSON || !rtpush_utf8(0, m->data, m->size);
    if (what->kind == RTPUSH_AUTO) m->kind = is_text ? RTPUSH_TEXT : RTPUSH_BINARY;
    if (m->kind == RTPUSH_TEXT && !is_text) return RTPUSH_E_UTF8;
    return m->kind == RTPUSH_JSON && !rtpush_is_json(m->data, m->size) ? RTPUSH_E_JSON : RTPUSH_OK;
}

static void rp_waiter_set(rp_waiter *waiter, uint64_t ticket, const rtpush_publication *what) {
    waiter->ticket = ticket;
    waiter->done = what->done;
    waiter->user = what->done_user;
}

// Hands it to the bus; the answer comes by rtpush_bus_done.
static int rp_publish_bus(rtpush_hub *hub, const rtpush_publication *what, uint64_t number, rp_key *key) {
    rp_ticket *ticket = (rp_ticket *)rp_mem_get(&hub->mem, sizeof *ticket);
    if (!ticket) return RTPUSH_E_MEMORY;
    rp_waiter_set(&ticket->waiter, number, what);
    ticket->key = key;
    rp_table_add(&hub->mem, &hub->outbox->tickets, &ticket->node, number);
    hub->bus_is_due = true;
    int code = hub->desc.bus->append(hub->desc.bus->user, hub, what, number);
    if (!code) return RTPUSH_OK; // it may have ended already
    rp_table_remove(&hub->outbox->tickets, &ticket->node);
    rp_mem_free(&hub->mem, ticket);
    hub->stats.publish_failed++;
    return code;
}

static void rp_clear_local(rtpush_hub *hub, const char *topic) {
    rp_topic *t = rp_hub_find_topic(hub, rp_slice_of(topic));
    if (t) rp_hub_clear(hub, t, UINT64_MAX);
    rp_hub_tap_other(hub, RP_ITEM_CLEAR, 0, topic, "", rp_slice(NULL, 0), 0);
}

static int rp_publish_local(rtpush_hub *hub, rtpush_message *m, const rtpush_publication *what, uint64_t number, rp_key *key) {
    int code = RTPUSH_OK;
    m->seq = hub->log.head + !what->clear;
    if (what->clear) rp_clear_local(hub, what->topic);
    else code = rp_hub_append(hub, m);
    if (code) return code;
    uint64_t seq = m->seq;
    if (!what->clear) rp_hub_tap(hub, RP_ITEM_MESSAGE, m);
    if (key) rp_key_end(hub, key, seq, RTPUSH_OK);
    if (what->done) what->done(hub, number, seq, RTPUSH_OK, what->done_user);
    return RTPUSH_OK;
}

// The key was used before: its message, or a wait for it.
static int rp_publish_again(rtpush_hub *hub, const rtpush_publication *what, uint64_t number, rp_key *key) {
    if (!key->is_pending) {
        if (what->done) what->done(hub, number, key->seq, RTPUSH_OK, what->done_user);
        return RTPUSH_OK;
    }
    rp_waiter *waiter = (rp_waiter *)rp_mem_get(&hub->mem, sizeof *waiter);
    if (!waiter) return RTPUSH_E_MEMORY;
    rp_waiter_set(waiter, number, what);
    waiter->next = key->waiters;
    key->waiters = waiter;
    return RTPUSH_OK;
}

static int rp_publish(rtpush_hub *hub, const rtpush_publication *what, uint64_t *ticket) {
    rtpush_message m;
    rp_key *key = NULL;
    int code = hub->outbox->is_closed ? RTPUSH_E_STATE : hub->is_leaving && hub->desc.bus ? RTPUSH_E_UNAVAILABLE : rp_publish_check(hub, what, &m);
    if (code) return code;
    uint64_t number = ++hub->outbox->last_ticket;
    if (ticket) *ticket = number;
    if (what->key && *what->key && !what->clear) {
        uint64_t hash, check;
        rp_key_hash(hub, what, &hash, &check);
        rp_key_expire(hub);
        if (hub->text.is_broken) return RTPUSH_E_MEMORY;
        if ((key = rp_key_find(hub, hash, check)) != NULL && (key->is_pending || key->expires > hub->wheel.now)) return rp_publish_again(hub, what, number, key);
        if (key) rp_key_remove(hub, key);
        if (!(key = rp_key_new(hub, hash, check))) return RTPUSH_E_MEMORY;
    }
    rtpush_publication resolved = *what;
    resolved.kind = m.kind;
    resolved.event = m.event;
    resolved.data = m.data;
    resolved.size = m.size;
    code = hub->desc.bus ? rp_publish_bus(hub, &resolved, number, key) : rp_publish_local(hub, &m, what, number, key);
    if (code && key) rp_key_end(hub, key, 0, code);
    return code;
}

// The library's own ephemeral JSON (presence).
static int rp_publish_own(rtpush_hub *hub, const char *topic, rtpush_slice json) {
    rtpush_publication what;
    memset(&what, 0, sizeof what);
    what.topic = topic;
    what.data = json.data;
    what.size = json.size;
    what.kind = RTPUSH_JSON;
    what.ephemeral = true;
    return rp_publish(hub, &what, NULL);
}

static void rp_outbox_free(rtpush_hub *hub) {
    rp_outbox *outbox = hub->outbox;
    if (!outbox) return;
    outbox->is_closed = true;
    for (rp_node *node; outbox->tickets.slots && (node = rp_table_next(&outbox->tickets, NULL)) != NULL;) {
        rp_waiter waiter = RP_OWNER(rp_ticket, node, node)->waiter;
        rp_table_remove(&outbox->tickets, node);
        rp_mem_free(&hub->mem, RP_OWNER(rp_ticket, node, node));
        if (waiter.done) waiter.done(hub, waiter.ticket, 0, RTPUSH_E_UNAVAILABLE, waiter.user);
    }
    while (outbox->key_first) rp_key_end(hub, outbox->key_first, 0, RTPUSH_E_UNAVAILABLE);
    rp_mem_free(&hub->mem, outbox->tickets.slots);
    rp_mem_free(&hub->mem, outbox->keys.slots);
    rp_mem_free(&hub->mem, outbox);
    hub->outbox = NULL;
}

static void rp_publish_end(rtpush_hub *hub, uint64_t ticket, uint64_t seq, int code) {
    rp_node *node = hub->outbox && !hub->outbox->is_closed ? rp_table_first(&hub->outbox->tickets, ticket) : NULL;
    if (!node) return;
    rp_ticket *ended = RP_OWNER(rp_ticket, node, node);
    rp_waiter waiter = ended->waiter;
    rp_key *key = ended->key;
    rp_table_remove(&hub->outbox->tickets, node);
    rp_mem_free(&hub->mem, ended);
    hub->stats.publish_failed += code != RTPUSH_OK;
    if (key) rp_key_end(hub, key, seq, code);
    if (waiter.done) waiter.done(hub, ticket, seq, code, waiter.user);
}
#endif // RP_SERVER

// ============================================================================
// >>session  who reads: identity, linger, presence  (uses: reader, time, table)
//
// A session outlives a request where the client names it (?session=): it then lingers
// between two requests, so that presence does not flap. on_open is called once, on_close
// exactly once, never inside a flush. Presence is a crowd for each topic that has it: its
// members, each with how often it is there, and what was told of it; told at most once
// in presence_ms, so who comes and goes in between is not told.
// ============================================================================
#ifdef RP_SERVER
typedef struct rp_conn rp_conn;
typedef struct rp_session rp_session;

typedef struct rp_member {
    rp_node node;
    uint32_t refs;  // sessions here
    uint32_t nodes; // of those that share the log: who has it, as far as the log says
    bool is_announced; // the log was told that it is here
    bool is_told;
    bool is_shown; // since the last telling somebody who came was shown otherwise than it had told
    char name[1];
} rp_member;

typedef struct rp_crowd {
    rp_node node; // in people.crowds, by the topic's name
    rp_table members;
    uint32_t present; // members that are there
    uint64_t changed;       // seq of the last presence message
    uint64_t owed_at;       // where nodes share a log: when we tell it to show what is new; 0: nothing is, or another does
    rp_timer timer;
    uint8_t size;
    char topic[1];
} rp_crowd;

// A session's being in a topic, over all its connections; it lasts its linger longer than the last of them.
typedef struct rp_attend {
    struct rp_attend *next;
    rp_session *session;
    rp_crowd *crowd;
    rp_member *member;
    uint32_t refs;
    rp_timer linger;
} rp_attend;

struct rp_session {
    rp_slot slot;
    rp_node node; // in people.named, if it has a key
    rp_conn *conns;
    rp_session *next_ending;
    void *user;
    char *identity; // NULL: anonymous
    char *key;      // ?session=, NULL: none
    uint64_t expires;     // of the login, 0 never
    rp_attend *attends;
    rp_timer linger;
    int code; // for on_close
    uint8_t transport, loop;
    bool is_ending, is_announced;
};

typedef struct rp_people {
    rp_slab sessions;
    rp_table named, crowds;
    rp_session *ending;
    uint64_t forgotten; // no crowd that is gone changed after this
} rp_people;

static bool rp_people_open(rtpush_hub *hub) {
    rp_people *people = (rp_people *)rp_mem_get(&hub->mem, sizeof *people);
    hub->people = people;
    if (!people) return false;
    rp_slab_init(&people->sessions, &hub->mem, sizeof(rp_session));
    return rp_table_init(&hub->mem, &people->named) && rp_table_init(&hub->mem, &people->crowds);
}

// --- presence ---

enum { RP_ANNOUNCE_MS = 2 };

static rp_crowd *rp_crowd_find(const rtpush_hub *hub, rtpush_slice topic) {
    uint64_t hash = rp_hub_hash(hub, topic);
    rp_node *node = rp_table_first(&hub->people->crowds, hash);
    for (; node; node = rp_table_same(node->next, hash)) {
        rp_crowd *crowd = RP_OWNER(rp_crowd, node, node);
        if (crowd->size == topic.size && !memcmp(crowd->topic, topic.data, topic.size)) return crowd;
    }
    return NULL;
}

// Is it there? Where nodes share a log, that says so.
static bool rp_member_is_there(const rtpush_hub *hub, const rp_member *member) { return hub->announce ? member->nodes > 0 : member->refs > 0; }

// Is there something to tell of it? Also of one who is as was told, if a new reader was shown it otherwise in between.
static bool rp_member_is_news(const rtpush_hub *hub, const rp_member *member) { return member->is_told != rp_member_is_there(hub, member) || member->is_shown; }

// "label":[…]: the members that are news, and are there or not.
static void rp_crowd_list(rtpush_hub *hub, rp_buf *buf, rp_crowd *crowd, const char *label, bool is_there) {
    bool begun = false;
    rp_buf_text(&hub->mem, buf, label);
    for (rp_node *node = rp_table_next(&crowd->members, NULL); node; node = rp_table_next(&crowd->members, node)) {
        const rp_member *member = RP_OWNER(rp_member, node, node);
        if (!rp_member_is_news(hub, member) || rp_member_is_there(hub, member) != is_there) continue;
        if (begun) rp_buf_text(&hub->mem, buf, ",");
        rp_json_text(&hub->mem, buf, member->name);
        begun = true;
    }
    rp_buf_text(&hub->mem, buf, "]");
}

static void rp_crowd_count(rtpush_hub *hub, rp_buf *buf, uint32_t count, bool first) {
    rp_buf_text(&hub->mem, buf, first ? "{\"count\":" : ",\"count\":");
    rp_buf_number(&hub->mem, buf, count);
    rp_buf_text(&hub->mem, buf, "}");
}

// How many are there, those too whom the log has not heard of yet.
static uint32_t rp_crowd_size(const rtpush_hub *hub, const rp_crowd *crowd) {
    uint32_t count = crowd->present;
    for (rp_node *node = hub->announce ? rp_table_next(&crowd->members, NULL) : NULL; node; node = rp_table_next(&crowd->members, node))
        count += RP_OWNER(rp_member, node, node)->refs && !RP_OWNER(rp_member, node, node)->nodes;
    return count;
}

// {"here":[…],"count":N}: who is there now.
static void rp_crowd_here(rtpush_hub *hub, rp_buf *buf, rtpush_slice topic) {
    rp_crowd *crowd = rp_crowd_find(hub, topic);
    uint32_t count = crowd ? rp_crowd_size(hub, crowd) : 0;
    bool is_listed = count <= (uint64_t)hub->desc.presence_list_max, begun = false;
    if (is_listed) rp_buf_text(&hub->mem, buf, "{\"here\":[");
    for (rp_node *node = crowd && is_listed ? rp_table_next(&crowd->members, NULL) : NULL; node; node = rp_table_next(&crowd->members, node)) {
        rp_member *member = RP_OWNER(rp_member, node, node);
        bool is_there = rp_member_is_there(hub, member) || member->refs; // who came here a moment ago, too
        if (is_there != member->is_told) member->is_shown = true;
        if (!is_there) continue;
        if (begun) rp_buf_text(&hub->mem, buf, ",");
        rp_json_text(&hub->mem, buf, member->name);
        begun = true;
    }
    if (is_listed) rp_buf_text(&hub->mem, buf, "]");
    rp_crowd_count(hub, buf, count, !is_listed);
}

static void rp_crowd_drop_member(rtpush_hub *hub, rp_crowd *crowd, rp_member *member) {
    rp_table_remove(&crowd->members, &member->node);
    rp_mem_free(&hub->mem, member);
}

static void rp_crowd_free(rtpush_hub *hub, rp_crowd *crowd) {
    hub->people->forgotten = RP_MAX(hub->people->forgotten, crowd->changed);
    rp_timer_stop(&hub->wheel, &crowd->timer);
    rp_table_remove(&hub->people->crowds, &crowd->node);
    for (rp_node *node = rp_table_next(&crowd->members, NULL), *next; node; node = next) {
        next = rp_table_next(&crowd->members, node);
        rp_crowd_drop_member(hub, crowd, RP_OWNER(rp_member, node, node));
    }
    rp_mem_free(&hub->mem, crowd->members.slots);
    rp_mem_free(&hub->mem, crowd);
}

// What was told becomes what is. Who left and was told of goes.
static void rp_crowd_settle(rtpush_hub *hub, rp_crowd *crowd) {
    for (rp_node *node = rp_table_next(&crowd->members, NULL), *next; node; node = next) {
        rp_member *member = RP_OWNER(rp_member, node, node);
        next = rp_table_next(&crowd->members, node);
        member->is_told = rp_member_is_there(hub, member);
        member->is_shown = false;
        if (!member->refs && !member->nodes && !member->is_announced) rp_crowd_drop_member(hub, crowd, member);
    }
}

static bool rp_crowd_has_news(const rtpush_hub *hub, const rp_crowd *crowd) {
    for (rp_node *node = rp_table_next(&crowd->members, NULL); node; node = rp_table_next(&crowd->members, node))
        if (rp_member_is_news(hub, RP_OWNER(rp_member, node, node))) return true;
    return false;
}

// What changed: {"join":[…],"leave":[…],"count":N}, above presence_list_max the count alone.
static rp_buf *rp_crowd_news(rtpush_hub *hub, rp_crowd *crowd) {
    rp_buf *buf = rp_hub_text(hub);
    bool is_listed = crowd->present <= (uint64_t)hub->desc.presence_list_max;
    if (is_listed) rp_crowd_list(hub, buf, crowd, "{\"join\":[", true);
    if (is_listed) rp_crowd_list(hub, buf, crowd, ",\"leave\":[", false);
    rp_crowd_count(hub, buf, crowd->present, !is_listed);
    return buf;
}

// Tells the log who came here and who left; what comes of it, all nodes hear from the log. false: later, then.
static bool rp_crowd_announce(rtpush_hub *hub, rp_crowd *crowd) {
    rp_buf buf;
    memset(&buf, 0, sizeof buf);
    for (rp_node *node = rp_table_next(&crowd->members, NULL); node; node = rp_table_next(&crowd->members, node)) {
        const rp_member *member = RP_OWNER(rp_member, node, node);
        if (member->is_announced == (member->refs > 0)) continue;
        rp_buf_put(&hub->mem, &buf, member->refs ? "+" : "-", 1);
        rp_buf_put(&hub->mem, &buf, member->name, strlen(member->name) + 1);
    }
    bool is_due = rp_buf_size(&buf) || (crowd->owed_at && hub->wheel.now >= crowd->owed_at); // an empty word shows what is new
    bool is_told = !buf.is_broken && (!is_due || !hub->announce(hub, crowd->topic, rp_buf_slice(&buf)));
    if (is_told && is_due && !rp_buf_size(&buf)) crowd->owed_at = 0;
    rp_buf_free(&hub->mem, &buf);
    for (rp_node *node = rp_table_next(&crowd->members, NULL); node && is_told; node = rp_table_next(&crowd->members, node)) {
        rp_member *member = RP_OWNER(rp_member, node, node);
        member->is_announced = member->refs > 0;
    }
    return is_told;
}

static void rp_crowd_tell(rtpush_hub *hub, rp_timer *timer) {
    rp_crowd *crowd = RP_OWNER(rp_crowd, timer, timer);
    char topic[RP_TOPIC_MAX + 12];
    bool is_told = true;
    if (hub->announce) {
        is_told = rp_crowd_announce(hub, crowd);
    } else if (rp_crowd_has_news(hub, crowd)) {
        rp_buf *buf = rp_crowd_news(hub, crowd);
        snprintf(topic, sizeof topic, "@presence/%s", crowd->topic);
        is_told = !buf->is_broken && (strlen(topic) > RP_TOPIC_MAX || !rp_publish_own(hub, topic, rp_buf_slice(buf)));
        if (is_told) crowd->changed = hub->log.head;
    }
    if (!is_told) { rp_timer_start(&hub->wheel, timer, hub->wheel.now + (uint64_t)hub->desc.presence_ms); return; } // later, then
    if (!hub->announce) rp_crowd_settle(hub, crowd);
    if (!crowd->members.count) rp_crowd_free(hub, crowd);
    else if (crowd->owed_at) rp_timer_start(&hub->wheel, timer, RP_MAX(crowd->owed_at, hub->wheel.now + 1));
}

// Something changed here. Where nodes share a log it hears of that soon; what is shown of it waits for presence_ms.
static void rp_crowd_touch(rtpush_hub *hub, rp_crowd *crowd) {
    uint64_t due = hub->wheel.now + (hub->announce ? (uint64_t)RP_ANNOUNCE_MS : (uint64_t)hub->desc.presence_ms);
    if (!rp_timer_is_armed(&crowd->timer) || crowd->timer.due > due) rp_timer_start(&hub->wheel, &crowd->timer, due);
}

#ifdef RP_SHARED
// The log is to be told of all who are here.
static void rp_crowd_announce_all(rtpush_hub *hub, rp_crowd *crowd) {
    for (rp_node *node = rp_table_next(&crowd->members, NULL); node; node = rp_table_next(&crowd->members, node))
        RP_OWNER(rp_member, node, node)->is_announced = false;
    rp_crowd_touch(hub, crowd);
}
#endif

static rp_crowd *rp_crowd_get(rtpush_hub *hub, rtpush_slice topic) {
    rp_crowd *crowd = rp_crowd_find(hub, topic);
    if (crowd) return crowd;
    crowd = (rp_crowd *)rp_mem_get(&hub->mem, sizeof *crowd + topic.size);
    if (crowd && rp_table_init(&hub->mem, &crowd->members)) {
        memcpy(crowd->topic, topic.data, topic.size);
        crowd->size = (uint8_t)topic.size;
        crowd->timer.fire = rp_crowd_tell;
        rp_table_add(&hub->mem, &hub->people->crowds, &crowd->node, rp_hub_hash(hub, topic));
        return crowd;
    }
    rp_mem_free(&hub->mem, crowd);
    return NULL;
}

static rp_member *rp_crowd_find_member(const rtpush_hub *hub, const rp_crowd *crowd, const char *name) {
    uint64_t hash = rp_hub_hash(hub, rp_slice_of(name));
    rp_node *node = rp_table_first(&crowd->members, hash);
    for (; node; node = rp_table_same(node->next, hash))
        if (!strcmp(RP_OWNER(rp_member, node, node)->name, name)) return RP_OWNER(rp_member, node, node);
    return NULL;
}

static rp_member *rp_crowd_member(rtpush_hub *hub, rp_crowd *crowd, const char *name) {
    rp_member *member = rp_crowd_find_member(hub, crowd, name);
    if (member || !(member = (rp_member *)rp_mem_get(&hub->mem, sizeof *member + strlen(name)))) return member;
    memcpy(member->name, name, strlen(name));
    rp_table_add(&hub->mem, &crowd->members, &member->node, rp_hub_hash(hub, rp_slice_of(name)));
    return member;
}

static void rp_attend_end(rtpush_hub *hub, rp_attend *attend) {
    rp_attend **at = &attend->session->attends;
    while (*at != attend) at = &(*at)->next;
    *at = attend->next;
    rp_timer_stop(&hub->wheel, &attend->linger);
    if (!--attend->member->refs && !hub->announce) attend->crowd->present--;
    rp_crowd_touch(hub, attend->crowd);
    rp_mem_free(&hub->mem, attend);
}

static void rp_attend_expire(rtpush_hub *hub, rp_timer *timer) { rp_attend_end(hub, RP_OWNER(rp_attend, linger, timer)); }

static void rp_session_name(rtpush_hub *hub, const rp_session *session, char out[160]) {
    unsigned char bytes[8];
    if (session->identity || session->key) {
        snprintf(out, 160, "%s", session->identity ? session->identity : session->key);
        return;
    }
    memcpy(out, "guest-", 6);
    if (hub->sys.random(hub->sys.user, bytes, sizeof bytes)) memcpy(bytes, &session->slot, sizeof bytes);
    for (unsigned i = 0; i < sizeof bytes; i++) snprintf(out + 6 + 2 * i, 3, "%02x", bytes[i]);
}

static rp_attend *rp_attend_find(const rp_session *session, rtpush_slice topic) {
    for (rp_attend *attend = session->attends; attend; attend = attend->next)
        if (attend->crowd->size == topic.size && !memcmp(attend->crowd->topic, topic.data, topic.size)) return attend;
    return NULL;
}

// The session reads the topic once more. Without memory its presence is not told: no more than that is lost.
static void rp_session_attend(rtpush_hub *hub, rp_session *session, rtpush_slice topic) {
    char name[160];
    rp_attend *attend = rp_attend_find(session, topic);
    if (!attend) {
        rp_crowd *crowd = rp_crowd_get(hub, topic);
        if (!crowd) return;
        rp_session_name(hub, session, name);
        rp_member *member = rp_crowd_member(hub, crowd, name);
        attend = member ? (rp_attend *)rp_mem_get(&hub->mem, sizeof *attend) : NULL;
        rp_crowd_touch(hub, crowd);
        if (!attend) return;
        attend->session = session;
        attend->crowd = crowd;
        attend->member = member;
        attend->linger.fire = rp_attend_expire;
        attend->next = session->attends;
        session->attends = attend;
        if (!member->refs++ && !hub->announce) crowd->present++;
    }
    attend->refs++;
    rp_timer_stop(&hub->wheel, &attend->linger);
}

static void rp_session_unattend(rtpush_hub *hub, rp_session *session, rtpush_slice topic) {
    rp_attend *attend = rp_attend_find(session, topic);
    if (!attend || !attend->refs || --attend->refs) return;
    if (session->key && hub->desc.linger_ms > 0) rp_timer_start(&hub->wheel, &attend->linger, hub->wheel.now + (uint64_t)hub->desc.linger_ms);
    else rp_attend_end(hub, attend);
}

// --- sessions ---

enum { RP_LOOP_SHIFT = 26, RP_LOOP_MASK = 63 }; // which loop it is of stands in the upper bits of a handle's index

static uint64_t rp_session_handle(const rp_session *session) {
    return session ? rp_slab_handle(&session->slot) | (uint64_t)session->loop << RP_LOOP_SHIFT : 0;
}

static const char *rp_session_identity(const rp_session *session) { return session && session->identity ? session->identity : ""; }

static rp_session *rp_session_find(const rtpush_hub *hub, rtpush_session handle) {
    if ((handle >> RP_LOOP_SHIFT & RP_LOOP_MASK) != hub->loop) return NULL;
    return (rp_session *)rp_slab_find(&hub->people->sessions, handle & ~((uint64_t)RP_LOOP_MASK << RP_LOOP_SHIFT));
}

// The session of that name under that identity: another identity's is another session.
static rp_session *rp_session_named(rtpush_hub *hub, const char *identity, rtpush_slice key) {
    uint64_t hash = rp_hub_hash(hub, key);
    rp_node *node = key.size ? rp_table_first(&hub->people->named, hash) : NULL;
    for (; node; node = rp_table_same(node->next, hash)) {
        rp_session *session = RP_OWNER(rp_session, node, node);
        if (rp_slice_equals(key, session->key) && !session->is_ending && !strcmp(rp_session_identity(session), identity)) return session;
    }
    return NULL;
}

static void rp_session_end(rtpush_hub *hub, rp_session *session, int code) {
    if (session->is_ending) return;
    session->is_ending = true;
    session->code = code;
    session->next_ending = hub->people->ending;
    hub->people->ending = session;
}

static void rp_session_expire(rtpush_hub *hub, rp_timer *timer) {
    rp_session *session = RP_OWNER(rp_session, linger, timer);
    rp_session_end(hub, session, session->code);
}

static void rp_session_free(rtpush_hub *hub, rp_session *session) {
    while (session->attends) rp_attend_end(hub, session->attends);
    rp_timer_stop(&hub->wheel, &session->linger);
    if (session->key) rp_table_remove(&hub->people->named, &session->node);
    rp_mem_free(&hub->mem, session->identity);
    rp_mem_free(&hub->mem, session->key);
    rp_slab_give(&hub->people->sessions, &session->slot);
    hub->stats.sessions--;
}

// A new session, or the one of that name. NULL: no memory.
static rp_session *rp_session_get(rtpush_hub *hub, const char *identity, rtpush_slice key, uint64_t expires) {
    rp_session *session = rp_session_named(hub, identity, key);
    if (!session) {
        char *own_identity = *identity ? rp_mem_text(&hub->mem, rp_slice_of(identity)) : NULL;
        char *own_key = key.size ? rp_mem_text(&hub->mem, key) : NULL;
        bool is_short = (*identity && !own_identity) || (key.size && !own_key);
        session = is_short ? NULL : (rp_session *)rp_slab_take(&hub->people->sessions);
        if (!session) {
            rp_mem_free(&hub->mem, own_identity);
            rp_mem_free(&hub->mem, own_key);
            return NULL;
        }
        session->identity = own_identity;
        session->key = own_key;
        session->linger.fire = rp_session_expire;
        session->loop = (uint8_t)hub->loop;
        hub->stats.sessions++;
        if (key.size) rp_table_add(&hub->mem, &hub->people->named, &session->node, rp_hub_hash(hub, key));
        if (hub->announce && *identity) rp_session_attend(hub, session, rp_slice("", 0)); // where a user is
    }
    session->expires = expires;
    return session;
}

static void rp_session_announce(rtpush_hub *hub, rp_session *session) {
    if (session->is_announced) return;
    session->is_announced = true;
    if (hub->desc.on_open) hub->desc.on_open(hub, rp_session_handle(session), hub->desc.user);
}

// The last connection is gone: it lingers, or ends.
static void rp_session_idle(rtpush_hub *hub, rp_session *session, int code) {
    if (session->is_ending) return;
    session->code = code;
    session->transport = RTPUSH_NO_TRANSPORT;
    if (!session->key || hub->desc.linger_ms <= 0) rp_session_end(hub, session, code);
    else rp_timer_start(&hub->wheel, &session->linger, hub->wheel.now + (uint64_t)hub->desc.linger_ms);
}

// Outside of every walk: tells of the sessions that ended, and frees them.
static void rp_people_reap(rtpush_hub *hub) {
    rp_session *session;
    while ((session = hub->people->ending) != NULL) {
        hub->people->ending = session->next_ending;
        if (session->is_announced && hub->desc.on_close) hub->desc.on_close(hub, rp_session_handle(session), session->code, hub->desc.user);
        rp_session_free(hub, session);
    }
}

static void rp_people_free(rtpush_hub *hub) {
    rp_people *people = hub->people;
    if (!people) return;
    for (rp_node *node = people->crowds.slots ? rp_table_next(&people->crowds, NULL) : NULL, *next; node; node = next) {
        next = rp_table_next(&people->crowds, node);
        rp_crowd_free(hub, RP_OWNER(rp_crowd, node, node));
    }
    rp_mem_free(&hub->mem, people->crowds.slots);
    rp_mem_free(&hub->mem, people->named.slots);
    rp_slab_free(&people->sessions);
    rp_mem_free(&hub->mem, people);
}
#endif // RP_SERVER

// ============================================================================
// >>registry  who is where, over all nodes that share a log  (uses: session, hub)
//
// A node tells the log which members came to it and which left it; each node reads that,
// its own words too, and so all know the same. A life is a node between its start and its
// end: when others have not heard of it for a while, one of them says that it is over.
// The crowd of the empty name is all identities with a session.
// ============================================================================
#ifdef RP_SHARED
typedef struct rp_life {
    struct rp_life *next;
    uint32_t refs;  // members that it has
    bool is_buried;
    uint32_t missed; // counts in a row in which it was not there
    char name[1];   // node:random
} rp_life;

// A life's having a member.
typedef struct rp_where {
    rp_node node; // among the registry's places
    rp_life *life;
    rp_crowd *crowd;
    rp_member *member;
} rp_where;

typedef struct rp_registry {
    rp_table places;
    rp_life *lives;
    char own[RP_TOPIC_MAX]; // our life's name
    int (*tell)(rtpush_hub *hub, const char *life, const char *topic, rtpush_slice changes); // so that the log has it
} rp_registry;

static rp_life *rp_life_get(rtpush_hub *hub, const char *name) {
    for (rp_life *life = hub->registry->lives; life; life = life->next)
        if (!strcmp(life->name, name)) return life;
    rp_life *life = (rp_life *)rp_mem_get(&hub->mem, sizeof *life + strlen(name));
    if (!life) return NULL;
    memcpy(life->name, name, strlen(name));
    life->next = hub->registry->lives;
    hub->registry->lives = life;
    return life;
}

static uint64_t rp_where_hash(rtpush_hub *hub, const rp_life *life, const rp_member *member) {
    const void *both[2] = {life, member};
    return rp_hash(&hub->hash_key, both, sizeof both);
}

static rp_where *rp_where_find(rtpush_hub *hub, const rp_life *life, const rp_member *member) {
    uint64_t hash = rp_where_hash(hub, life, member);
    rp_node *node = rp_table_first(&hub->registry->places, hash);
    for (; node; node = rp_table_same(node->next, hash)) {
        rp_where *where = RP_OWNER(rp_where, node, node);
        if (where->life == life && where->member == member) return where;
    }
    return NULL;
}

static void rp_where_remove(rtpush_hub *hub, rp_where *where) {
    if (!--where->member->nodes) where->crowd->present--;
    where->life->refs--;
    rp_table_remove(&hub->registry->places, &where->node);
    rp_mem_free(&hub->mem, where);
}

static bool rp_where_add(rtpush_hub *hub, rp_life *life, rp_crowd *crowd, rp_member *member) {
    if (rp_where_find(hub, life, member)) return true;
    rp_where *where = (rp_where *)rp_mem_get(&hub->mem, sizeof *where);
    if (!where) return false;
    where->life = life;
    where->crowd = crowd;
    where->member = member;
    rp_table_add(&hub->mem, &hub->registry->places, &where->node, rp_where_hash(hub, life, member));
    life->refs++;
    if (!member->nodes++) crowd->present++;
    return true;
}

// A word has changed a crowd: whose word it was tells the log, later, to show what is new by then.
static void rp_registry_changed(rtpush_hub *hub, rp_crowd *crowd, bool is_own) {
    if (!is_own || crowd->owed_at) return;
    crowd->owed_at = hub->wheel.now + (uint64_t)hub->desc.presence_ms;
    if (!rp_timer_is_armed(&crowd->timer)) rp_timer_start(&hub->wheel, &crowd->timer, crowd->owed_at);
}

// Tells who reads @presence/TOPIC what is new: the message has the word's seq.
static int rp_registry_show(rtpush_hub *hub, rp_crowd *crowd, uint64_t seq) {
    char topic[RP_TOPIC_MAX + 12];
    rtpush_message m;
    int code = RTPUSH_OK;
    snprintf(topic, sizeof topic, "@presence/%s", crowd->topic);
    if (crowd->size && strlen(topic) <= RP_TOPIC_MAX && rp_crowd_has_news(hub, crowd)) {
        rp_buf *buf = rp_crowd_news(hub, crowd);
        memset(&m, 0, sizeof m);
        m.topic = topic;
        m.event = "";
        m.data = rp_buf_slice(buf).data;
        m.size = rp_buf_size(buf);
        m.kind = RTPUSH_JSON;
        m.ephemeral = true;
        m.seq = seq;
        code = buf->is_broken ? RTPUSH_E_MEMORY : rp_hub_append(hub, &m);
        if (code) return code;
        crowd->changed = seq;
    }
    rp_crowd_settle(hub, crowd);
    if (!crowd->members.count) rp_crowd_free(hub, crowd);
    return code;
}

// "+name\0-name\0…": who came to a life, and who left it.
static int rp_registry_change(rtpush_hub *hub, const char *name, const char *topic, rtpush_slice changes, uint64_t seq) {
    rp_life *life = rp_life_get(hub, name);
    rp_crowd *crowd = life ? rp_crowd_get(hub, rp_slice_of(topic)) : NULL;
    rtpush_slice word;
    char text[160];
    bool is_empty = !changes.size;
    if (!crowd) return RTPUSH_E_MEMORY;
    life->is_buried = false;
    while (rp_slice_next(&changes, 0, &word)) {
        if (word.size < 2 || word.size > sizeof text || (*word.data != '+' && *word.data != '-')) continue;
        memcpy(text, word.data + 1, word.size - 1);
        text[word.size - 1] = 0;
        rp_member *member = rp_crowd_member(hub, crowd, text);
        if (!member) return RTPUSH_E_MEMORY;
        rp_where *where = rp_where_find(hub, life, member);
        if (*word.data == '+' && !rp_where_add(hub, life, crowd, member)) return RTPUSH_E_MEMORY;
        if (*word.data == '-' && where) rp_where_remove(hub, where);
    }
    if (is_empty) return rp_registry_show(hub, crowd, seq);
    rp_registry_changed(hub, crowd, !strcmp(name, hub->registry->own));
    return RTPUSH_OK;
}

// A life is over: nobody is there by it any more.
static void rp_registry_drop(rtpush_hub *hub, const char *teller, rtpush_slice life, const char *topic) {
    rp_crowd *crowd = rp_crowd_find(hub, rp_slice_of(topic));
    if (!crowd) return;
    for (rp_node *node = rp_table_next(&hub->registry->places, NULL), *next; node; node = next) {
        rp_where *where = RP_OWNER(rp_where, node, node);
        next = rp_table_next(&hub->registry->places, node);
        if (where->crowd == crowd && rp_slice_equals(life, where->life->name)) rp_where_remove(hub, where);
    }
    if (rp_slice_equals(life, hub->registry->own)) rp_crowd_announce_all(hub, crowd); // we were taken for dead
    rp_registry_changed(hub, crowd, !strcmp(teller, hub->registry->own));
}

// The log is to be told of all who are here, wherever that is.
static void rp_registry_announce_all(rtpush_hub *hub) {
    for (rp_node *node = rp_table_next(&hub->people->crowds, NULL); node; node = rp_table_next(&hub->people->crowds, node))
        rp_crowd_announce_all(hub, RP_OWNER(rp_crowd, node, node));
}

// We may have missed some words: all is to be told anew.
static void rp_registry_forget(rtpush_hub *hub) {
    rp_registry *registry = hub->registry;
    for (rp_node *node = rp_table_next(&registry->places, NULL), *next; node; node = next) {
        next = rp_table_next(&registry->places, node);
        rp_where_remove(hub, RP_OWNER(rp_where, node, node));
    }
    rp_registry_announce_all(hub);
}

// A word of a life, out of the log: p members came or left, x a life is over, h one began; another one is passed.
static int rp_registry_hear(rtpush_hub *hub, char kind, const char *life, const char *topic, rtpush_slice data, uint64_t seq) {
    int code = kind == 'p' ? rp_registry_change(hub, life, topic, data, seq) : RTPUSH_OK;
    if (code == RTPUSH_E_MEMORY) return code;
    if (kind == 'x') rp_registry_drop(hub, life, data, topic);
    if (kind == 'h' && strcmp(life, hub->registry->own) != 0) rp_registry_announce_all(hub); // one that knows nobody
    hub->log.head = RP_MAX(hub->log.head, seq); // it has its seq, as a message has
    rp_hub_tap_other(hub, RP_ITEM_WORD, kind, topic, life, data, seq);
    return code;
}

#ifdef RP_REDIS
// --- the count of lives ---

static void rp_registry_count(rtpush_hub *hub) {
    for (rp_life **at = &hub->registry->lives, *life; (life = *at) != NULL;) {
        life->missed++;
        if (life->refs) { at = &life->next; continue; }
        *at = life->next;
        rp_mem_free(&hub->mem, life);
    }
}

// A life that is there, and with it those of its loops: `life.1`.
static void rp_registry_counted(rtpush_hub *hub, rtpush_slice name) {
    for (rp_life *life = hub->registry->lives; life; life = life->next)
        if (!strncmp(life->name, name.data, name.size) && strchr(".", life->name[name.size])) life->missed = 0;
}

// Says of each life that was missed so often, topic by topic, that it is over.
static void rp_registry_bury(rtpush_hub *hub, uint32_t missed, int (*tell)(rtpush_hub *hub, const char *life, const char *topic)) {
    for (rp_life *life = hub->registry->lives; life; life = life->next) {
        if (life->missed < missed || life->is_buried || !strcmp(life->name, hub->registry->own)) continue;
        const rp_crowd *last = NULL; // of many members of one crowd in a row one is enough
        for (rp_node *node = rp_table_next(&hub->registry->places, NULL); node; node = rp_table_next(&hub->registry->places, node)) {
            const rp_where *where = RP_OWNER(rp_where, node, node);
            if (where->life == life && where->crowd != last && tell(hub, life->name, where->crowd->topic)) return; // without memory: at the next count
            if (where->life == life) last = where->crowd;
        }
        life->is_buried = true;
    }
}
#endif

// --- its beginning and end ---

static int rp_registry_announce(rtpush_hub *hub, const char *topic, rtpush_slice changes) {
    return hub->registry->tell(hub, hub->registry->own, topic, changes);
}

static int rp_registry_open(rtpush_hub *hub, const char *own, int (*tell)(rtpush_hub *, const char *, const char *, rtpush_slice)) {
    rp_registry *registry = (rp_registry *)rp_mem_get(&hub->mem, sizeof *registry);
    hub->registry = registry;
    if (!registry || !rp_table_init(&hub->mem, &registry->places)) return RTPUSH_E_MEMORY;
    snprintf(registry->own, sizeof registry->own, "%s", own);
    registry->tell = tell;
    hub->announce = rp_registry_announce;
    return RTPUSH_OK;
}

static void rp_registry_free(rtpush_hub *hub) {
    rp_registry *registry = hub->registry;
    if (!registry) return;
    for (rp_node *node = registry->places.slots ? rp_table_next(&registry->places, NULL) : NULL, *next; node; node = next) {
        next = rp_table_next(&registry->places, node);
        rp_table_remove(&registry->places, node);
        rp_mem_free(&hub->mem, RP_OWNER(rp_where, node, node));
    }
    for (rp_life *life = registry->lives, *next; life; life = next) {
        next = life->next;
        rp_mem_free(&hub->mem, life);
    }
    rp_mem_free(&hub->mem, registry->places.slots);
    rp_mem_free(&hub->mem, registry);
    hub->registry = NULL;
}
#endif // RP_SHARED

// ============================================================================
// >>auth  who may do what  (uses: session)
//
// The host's hooks decide; without them everybody may read and, unless desc.publish_off,
// publish. Names with a leading @ are the library's: `@user/NAME` is for NAME, presence
// for whoever may read the topic, the rest only where the hook says so.
// ============================================================================
#ifdef RP_SERVER
static bool rp_auth_ask(rtpush_hub *hub, const char *identity, int verb, rtpush_slice name) {
    char text[RP_TOPIC_MAX + 1];
    memcpy(text, name.data, name.size);
    text[name.size] = 0;
    return hub->desc.on_allow(hub, identity, verb, text, hub->desc.user);
}

static bool rp_slice_begins(rtpush_slice s, const char *prefix) {
    return s.size >= strlen(prefix) && !memcmp(s.data, prefix, strlen(prefix));
}

static rtpush_slice rp_slice_from(rtpush_slice s, size_t at) { return rp_slice(s.data + at, s.size - at); }

static bool rp_auth_may_plain(rtpush_hub *hub, const char *identity, int verb, rtpush_slice name) {
    if (hub->desc.on_allow) return rp_auth_ask(hub, identity, verb, name);
    return verb == RTPUSH_VERB_READ || !hub->desc.publish_off;
}

// May this identity ("" anonymous) do this with the topic or pattern?
static bool rp_auth_may(rtpush_hub *hub, const char *identity, int verb, rtpush_slice name) {
    if (*name.data != '@') return rp_auth_may_plain(hub, identity, verb, name);
    if (verb == RTPUSH_VERB_PUBLISH) return false; // PROTOCOL §1: a client never does
    bool is_read = verb == RTPUSH_VERB_READ && !rp_topic_is_pattern(name);
    if (is_read && rp_slice_begins(name, "@user/") && *identity) {
        rtpush_slice own = rp_slice_from(name, 6);
        if (rp_slice_equals(own, identity)) return true;
    }
    if (is_read && rp_slice_begins(name, "@presence/")) {
        rtpush_slice topic = rp_slice_from(name, 10);
        return topic.size && rp_hub_rule(hub, topic)->presence && rp_auth_may(hub, identity, verb, topic);
    }
    return hub->desc.on_allow && rp_auth_ask(hub, identity, verb, name);
}
#endif // RP_SERVER

// ============================================================================
// >>conn  a connection's life: its phase, its own bytes, its end  (uses: session, loop, socket)
//
//     HEAD -> BODY -> HEAD        a request comes
//     HEAD -> WAIT | REPLY | PARKED -> HEAD   it is answered: by a bus, in pieces, by a poll
//     HEAD -> STREAM              server-sent events
//     HEAD -> SOCKET -> CLOSING   WebSocket; a close frame is out, the peer's is awaited
//     any  -> LINGER -> DEAD      the last bytes go out, then what still comes is read and dropped
//
// Own bytes (replies, control frames, direct sends) are in `own`, which exists only while
// there are some. A write sends the half-sent message, then own bytes, then what the reader
// is behind on, in one call. One timer watches all the deadlines of a connection: it fires
// at the earliest, looks, and is armed again. Nothing is freed before the turn ends.
// ============================================================================
#ifdef RP_SERVER
enum rp_phase {
    RP_PHASE_HEAD,
    RP_PHASE_BODY,
    RP_PHASE_WAIT,
    RP_PHASE_REPLY,
    RP_PHASE_PARKED,
    RP_PHASE_STREAM,
    RP_PHASE_SOCKET,
    RP_PHASE_CLOSING,
    RP_PHASE_LINGER,
    RP_PHASE_DEAD
};

// What may follow each phase, a bit each.
#define RP_TO(phase) (1u << RP_PHASE_##phase)
static const uint16_t rp_phase_next[] = {
    /* HEAD    */ RP_TO(BODY) | RP_TO(WAIT) | RP_TO(REPLY) | RP_TO(PARKED) | RP_TO(STREAM) | RP_TO(SOCKET) | RP_TO(LINGER) | RP_TO(DEAD),
    /* BODY    */ RP_TO(HEAD) | RP_TO(LINGER) | RP_TO(DEAD),
    /* WAIT    */ RP_TO(HEAD) | RP_TO(LINGER) | RP_TO(DEAD),
    /* REPLY   */ RP_TO(HEAD) | RP_TO(LINGER) | RP_TO(DEAD),
    /* PARKED  */ RP_TO(HEAD) | RP_TO(LINGER) | RP_TO(DEAD),
    /* STREAM  */ RP_TO(LINGER) | RP_TO(DEAD),
    /* SOCKET  */ RP_TO(CLOSING) | RP_TO(LINGER) | RP_TO(DEAD),
    /* CLOSING */ RP_TO(LINGER) | RP_TO(DEAD),
    /* LINGER  */ RP_TO(DEAD),
    /* DEAD    */ 0};
#undef RP_TO

// Input that has begun and not ended: a request with a body, or a WebSocket message.
typedef struct rp_inflow {
    rp_buf head, body;
    rtpush_chunked chunked;
    uint64_t left;
    rp_ws ws;
} rp_inflow;

// Why a connection is one too many.
enum rp_over { RP_OVER_NOT, RP_OVER_ALL, RP_OVER_IP };

// ?events=: data alone; named by topic where a message has no event; each message as an envelope's JSON (PROTOCOL §3).
enum rp_events { RP_EVENTS_PLAIN, RP_EVENTS_TOPIC, RP_EVENTS_ENVELOPE };

// A reply in pieces: the host's, or a file's.
typedef struct rp_stream {
    rp_slot slot;
    rp_conn *conn;
    int file; // -1: none
    uint64_t left;
} rp_stream;

struct rp_conn {
    rp_slot slot;
    rp_reader reader;
    int fd;
#ifdef RTPUSH_OPENSSL
    rp_tls *tls; // NULL: in the clear
#endif
    uint8_t phase, want;
    bool is_http11, keeps, is_head; // of the request at hand: version, may be followed by another, HEAD
    bool is_first;    // no request has been answered yet
    uint8_t is_over;  // beyond a limit: its first request gets this (rp_over)
    bool has_bytes;   // of the next request
    bool is_shut;     // our half is closed
    bool is_ended;    // the peer's half is
    bool is_paused;   // nothing is read: input waits in `tail`
    bool is_resuming; // in server.resume
    bool is_in_input; // its input is being looked at
    bool is_held;   // its request waits for what a bus has, and is read again,
    uint16_t holds; // after it has waited so often
    bool is_counted;  // in server.ips
    bool awaits_pong;
    uint8_t events;   // rp_events: how a stream of events is spelled
    bool is_unknown;  // has to log in by its first message
    uint16_t code;    // for on_close
    uint16_t pings, ping_second; // pings in this second
    rp_buf *own, *tail;
    rp_inflow *inflow;
    rp_stream *stream;
    char *text; // the origin, for the CORS headers of a later reply; of one that logs in later, what it asked for
    rp_session *session;
    rp_conn *next, *next_resume; // next: of its session's connections, or of the dead
    rp_timer timer;
    uint64_t since;   // when the phase (of HEAD: its first byte) began
    uint64_t seen;    // when a byte last came
    uint64_t beat;    // when a heartbeat last went
    uint64_t due;     // of PARKED: when to answer; of SOCKET: when the first ping went that no byte has followed
    uint64_t stalled; // since when the socket takes nothing, 0: it does
    uint64_t drain_at;
    uint64_t bytes;   // of BODY: that came; of CLOSING: of a frame, to pass over; of LINGER: read past
    uint32_t drain_ms;
    rtpush_peer peer;
};

typedef struct rp_ip {
    rp_node node;
    unsigned char addr[16];
    uint32_t count;
} rp_ip;

typedef struct rp_listener {
    struct rp_listener *next;
    int fd;
    bool is_watched, is_tls;
    uint64_t tag;
    char *path; // of a Unix socket, to be removed
} rp_listener;

typedef struct rp_posted {
    struct rp_posted *next;
    void (*fn)(rtpush_hub *hub, void *arg);
    void *arg;
} rp_posted;

typedef struct rp_host_timer {
    rp_slot slot;
    rp_timer timer;
    void (*fn)(rtpush_hub *hub, void *user);
    void *user;
} rp_host_timer;

enum { RP_BUFS_KEPT = 64, RP_BUF_KEPT_CAP = 16384, RP_NAMES_MAX = 256 };

typedef struct rp_server {
    const rtpush_backend *backend;
    void *state;
    rp_wake wake;
    rp_slab conns, streams, timers;
    rp_table ips;
    rp_listener *listeners;
    uint32_t listener_count;
    int spare_fd;         // given up to accept and refuse one when descriptors run out
    rp_timer accept_again;
    rp_conn *dead, *resume;
    char *input;          // what a receive fills; one for all
    size_t input_cap;
    rp_buf *bufs[RP_BUFS_KEPT]; // empty buffers that kept their memory
    uint32_t buf_count;
    rp_buf body, here;    // a poll's items, while the answer is made; who is present, or an answer's head
    rp_piece answer;      // the poll answer shared by all who are level at answer_pos
    const rp_source *answer_source;
    uint64_t answer_pos, answer_last;
    uint32_t answer_messages;
    char *names_text, *path_text, *token_text; // the topics, path and token of the request at hand, decoded
    rtpush_slice names[RP_NAMES_MAX];
    uint32_t name_count;
    char date[30];
    int64_t date_second;
    bool is_draining, is_in_step, is_doomed, is_over;
    uint32_t depth;       // of calls that may run callbacks: what is destroyed inside goes when the outermost ends
    uint64_t drain_deadline, drain_spread;
    rp_timer drain_timer, leave_timer;
    rtpush_head head;     // of the request at hand
    rtpush_event events[RP_EVENTS];
    volatile int is_stopped; // set by any thread or signal handler
    rp_posted *posted;    // newest first; under the lock
    bool is_awake;        // a wake-up is under way
    bool is_closed;       // nothing can be posted any more; under the lock
#ifndef RTPUSH_NO_THREADS
    pthread_mutex_t lock;
#endif
} rp_server;

static rp_conn *rp_conn_of(rp_reader *r) { return RP_OWNER(rp_conn, reader, r); }

static rp_tls *rp_conn_tls(const rp_conn *c) {
#ifdef RTPUSH_OPENSSL
    return c->tls;
#else
    (void)c;
    return NULL;
#endif
}

// OpenSSL waits for the socket to take what it has.
static bool rp_conn_tls_waits(const rp_conn *c) { return rp_conn_tls(c) && rp_tls_wants_write(rp_conn_tls(c)); }

static bool rp_conn_is_live(const rp_conn *c) { return c->phase < RP_PHASE_LINGER; }
static bool rp_conn_is_reader(const rp_conn *c) { return c->phase == RP_PHASE_PARKED || c->phase == RP_PHASE_STREAM || c->phase == RP_PHASE_SOCKET; }

static void rp_conn_count(rtpush_hub *hub, const rp_conn *c, int by) {
    uint64_t *gauge = c->phase == RP_PHASE_STREAM ? &hub->stats.event_streams
                    : c->phase == RP_PHASE_PARKED ? &hub->stats.parked_polls
                    : c->phase == RP_PHASE_SOCKET ? &hub->stats.websockets : NULL;
    if (gauge) *gauge += (uint64_t)(int64_t)by;
}

// The one way to change the phase.
static void rp_conn_enter(rtpush_hub *hub, rp_conn *c, enum rp_phase phase) {
    bool is_allowed = rp_phase_next[c->phase] >> phase & 1;
    RTPUSH_ASSERT(is_allowed);
    (void)is_allowed;
    rp_conn_count(hub, c, -1);
    c->phase = (uint8_t)phase;
    rp_conn_count(hub, c, 1);
}

// --- buffers ---

static rp_buf *rp_server_buf(rtpush_hub *hub) {
    rp_server *server = hub->server;
    if (server->buf_count) return server->bufs[--server->buf_count];
    return (rp_buf *)rp_mem_get(&hub->mem, sizeof(rp_buf));
}

static void rp_server_buf_back(rtpush_hub *hub, rp_buf **buf) {
    rp_server *server = hub->server;
    if (!*buf) return;
    if (server->buf_count < RP_BUFS_KEPT && (*buf)->cap <= RP_BUF_KEPT_CAP) {
        rp_buf_rewind(*buf);
        server->bufs[server->buf_count++] = *buf;
    } else {
        rp_buf_free(&hub->mem, *buf);
        rp_mem_free(&hub->mem, *buf);
    }
    *buf = NULL;
}

static size_t rp_conn_own_size(const rp_conn *c) { return c->own ? rp_buf_size(c->own) : 0; }

// May one message more be added to its own bytes? It may be larger than what is left: the bound is ring_max and one message.
static bool rp_conn_has_room(const rtpush_hub *hub, const rp_conn *c) { return rp_conn_own_size(c) < (uint64_t)hub->desc.ring_max; }

// --- the end of a connection ---

// It leaves its topics and its session.
static void rp_conn_leave(rtpush_hub *hub, rp_conn *c) {
    rp_session *session = c->session;
    for (uint16_t i = 0; i < c->reader.count && session; i++) rp_session_unattend(hub, session, rp_source_name(c->reader.subs[i].source));
    rp_reader_leave(hub, &c->reader);
    if (!session) return;
    rp_conn **at = &session->conns;
    while (*at != c) at = &(*at)->next;
    *at = c->next;
    c->session = NULL;
    if (!session->conns) rp_session_idle(hub, session, c->code);
}

// Gone: at the turn's end it is freed. code: for on_close, unless one is set.
static void rp_conn_drop(rtpush_hub *hub, rp_conn *c, int code) {
    if (c->phase == RP_PHASE_DEAD) return;
    if (!c->code) c->code = (uint16_t)code;
    rp_conn_enter(hub, c, RP_PHASE_DEAD);
    rp_conn_leave(hub, c);
    c->reader.is_blocked = true; // nobody serves it any more
    rp_timer_stop(&hub->wheel, &c->timer);
    c->next = hub->server->dead;
    hub->server->dead = c;
}

static void rp_inflow_free(rtpush_hub *hub, rp_conn *c) {
    if (!c->inflow) return;
    rp_buf_free(&hub->mem, &c->inflow->head);
    rp_buf_free(&hub->mem, &c->inflow->body);
    rp_buf_free(&hub->mem, &c->inflow->ws.message);
    rp_mem_free(&hub->mem, c->inflow);
    c->inflow = NULL;
}

static void rp_stream_free(rtpush_hub *hub, rp_conn *c) {
    if (!c->stream) return;
    if (c->stream->file >= 0) close(c->stream->file);
    rp_slab_give(&hub->server->streams, &c->stream->slot);
    c->stream = NULL;
}

static void rp_conn_forget_text(rtpush_hub *hub, char **text) {
    rp_mem_free(&hub->mem, *text);
    *text = NULL;
}

// --- deadlines ---

static uint64_t rp_later(uint64_t when, int64_t ms) { return ms < 0 ? UINT64_MAX : when + (uint64_t)ms; }

static uint64_t rp_conn_body_deadline(const rtpush_hub *hub, const rp_conn *c) {
    uint64_t due = rp_later(c->since, hub->desc.body_timeout_ms);
    if (hub->desc.body_rate_min > 0) due = RP_MIN(due, c->since + 5000 + c->bytes * 1000 / (uint64_t)hub->desc.body_rate_min);
    return due;
}

static uint64_t rp_conn_socket_deadline(const rtpush_hub *hub, const rp_conn *c) {
    uint64_t due = rp_later(c->beat, hub->desc.heartbeat_ms);
    if (c->awaits_pong) due = RP_MIN(due, rp_later(c->due, hub->desc.dead_ms));
    if (c->inflow) due = RP_MIN(due, rp_later(c->inflow->ws.began_ms, hub->desc.frame_timeout_ms));
    if (c->is_unknown) due = RP_MIN(due, rp_later(c->since, hub->desc.auth_timeout_ms));
    return due;
}

// When something is to be done with it by itself.
static uint64_t rp_conn_deadline(const rtpush_hub *hub, const rp_conn *c) {
    uint64_t due = UINT64_MAX;
    switch ((enum rp_phase)c->phase) {
    case RP_PHASE_HEAD: due = rp_later(c->since, c->is_first || c->has_bytes ? hub->desc.header_timeout_ms : hub->desc.idle_timeout_ms); break;
    case RP_PHASE_BODY: due = rp_conn_body_deadline(hub, c); break;
    case RP_PHASE_PARKED: due = c->due; break;
    case RP_PHASE_STREAM: due = rp_later(c->beat, hub->desc.sse_heartbeat_ms); break;
    case RP_PHASE_SOCKET: due = rp_conn_socket_deadline(hub, c); break;
    case RP_PHASE_CLOSING: due = rp_later(c->since, hub->desc.close_timeout_ms); break;
    case RP_PHASE_LINGER: due = c->is_shut ? c->since + 1000 : UINT64_MAX; break;
    case RP_PHASE_WAIT:
    case RP_PHASE_REPLY:
    case RP_PHASE_DEAD: break;
    }
    if (c->stalled) due = RP_MIN(due, rp_later(c->stalled, hub->desc.stall_ms));
    if (c->session && c->session->expires) due = RP_MIN(due, c->session->expires);
    if (c->drain_at) due = RP_MIN(due, c->drain_at);
    if (c->reader.ahead) due = RP_MIN(due, hub->wheel.now + 50); // has the log caught up?
    return due;
}

// An armed timer that is early enough stays: it will look again.
static void rp_conn_arm(rtpush_hub *hub, rp_conn *c) {
    uint64_t due = c->phase == RP_PHASE_DEAD ? UINT64_MAX : rp_conn_deadline(hub, c);
    if (due == UINT64_MAX || (rp_timer_is_armed(&c->timer) && c->timer.due <= due)) return;
    rp_timer_start(&hub->wheel, &c->timer, due);
}

// --- what it is watched for ---

static uint64_t rp_conn_tag(const rp_conn *c) { return rp_slab_handle(&c->slot); }

// Reading stops while its input waits, while it does not take what it was sent, and when the peer has ended.
static void rp_conn_watch(rtpush_hub *hub, rp_conn *c) {
    unsigned want = c->reader.is_blocked || rp_conn_tls_waits(c) ? RTPUSH_WRITE : 0u;
    bool is_slow = !rp_conn_has_room(hub, c);
    if (!c->is_paused && !c->is_ended && !is_slow) want |= RTPUSH_READ;
    if (c->phase == RP_PHASE_DEAD || want == c->want) return;
    int failed = hub->server->backend->watch(hub->server->state, c->fd, rp_conn_tag(c), c->want, want);
    if (failed) rp_conn_drop(hub, c, 1006);
    else c->want = (uint8_t)want;
}

// --- writing ---

// Its waiting input is looked at in the next turn.
static void rp_conn_resume_later(rtpush_hub *hub, rp_conn *c) {
    if (!c->tail || c->is_in_input || c->is_resuming) return;
    c->is_resuming = true;
    c->next_resume = hub->server->resume;
    hub->server->resume = c;
}

static void rp_conn_block(rtpush_hub *hub, rp_conn *c, bool is_blocked, bool is_moving) {
    bool was_stalled = c->stalled != 0;
    c->reader.is_blocked = is_blocked;
    if (is_blocked && (is_moving || !was_stalled)) c->stalled = hub->wheel.now;
    if (!is_blocked) c->stalled = 0;
    rp_conn_watch(hub, c);
    if (is_blocked) rp_conn_arm(hub, c);
}

// All own bytes are out: input that waited for room goes on; the last step of its end.
static void rp_conn_drained(rtpush_hub *hub, rp_conn *c) {
    if (c->is_paused && (c->phase == RP_PHASE_HEAD || c->phase == RP_PHASE_SOCKET)) rp_conn_resume_later(hub, c);
    if (c->phase != RP_PHASE_LINGER || c->is_shut) return;
    if (rp_conn_tls(c) && !rp_tls_end(rp_conn_tls(c))) { rp_conn_block(hub, c, true, false); return; }
    hub->sys.shutdown(hub->sys.user, c->fd);
    c->is_shut = true;
    c->stalled = 0;
    c->since = hub->wheel.now;
    if (c->is_ended) rp_conn_drop(hub, c, 1006);
    else rp_conn_arm(hub, c);
}

// What a send took: the half-sent message first, then own bytes. Returns what is left for shared ones.
static size_t rp_conn_took(rtpush_hub *hub, rp_conn *c, size_t sent) {
    rp_reader *r = &c->reader;
    if (r->rest.block) {
        size_t n = RP_MIN(sent, (size_t)r->rest.size);
        r->rest.at += (uint32_t)n;
        r->rest.size -= (uint32_t)n;
        sent -= n;
        if (!r->rest.size) rp_reader_rest_sent(hub, r);
    }
    if (c->own) {
        size_t n = RP_MIN(sent, rp_buf_size(c->own));
        c->own->start += n;
        sent -= n;
        if (c->own->start == c->own->end) rp_server_buf_back(hub, &c->own);
    }
    return sent;
}

// One send, again when a signal broke it off. -1: the connection is gone.
static ptrdiff_t rp_conn_send(rtpush_hub *hub, rp_conn *c, const rtpush_iov *iov, int count) {
    ptrdiff_t sent;
    do {
        sent = rp_conn_tls(c) ? rp_tls_send(rp_conn_tls(c), iov, count) : hub->sys.send(hub->sys.user, c->fd, iov, count);
        hub->stats.writes++;
    } while (sent == -EINTR);
    if (sent >= 0) {
        hub->stats.bytes_out += (uint64_t)sent;
        return sent;
    }
    if (rp_errno_is_again(sent)) return 0;
    rp_conn_drop(hub, c, 1006);
    return -1;
}

// The writing of every wire: see rp_wire.write.
static ptrdiff_t rp_conn_write(rtpush_hub *hub, rp_reader *r, const rtpush_iov *iov, int count, size_t size) {
    rp_conn *c = rp_conn_of(r);
    rtpush_iov all[RP_IOV + 2];
    int before = 0;
    if (c->phase == RP_PHASE_DEAD) return -1;
    if (c->own && c->own->is_broken) { rp_conn_drop(hub, c, 1011); return -1; }
    if (r->rest.block) all[before++] = rp_piece_iov(&r->rest);
    if (c->own) all[before].base = rp_buf_slice(c->own).data, all[before++].len = rp_buf_size(c->own);
    if (!before && !count && rp_conn_tls(c)) {
        if (rp_conn_send(hub, c, NULL, 0) < 0) return -1;
        if (rp_conn_tls_waits(c)) { rp_conn_block(hub, c, true, false); return 0; }
    }
    if (!before && !count) {
        if (c->want != RTPUSH_READ) rp_conn_block(hub, c, false, false);
        rp_conn_drained(hub, c);
        return 0;
    }
    size_t total = size + r->rest.size + rp_conn_own_size(c);
    if (before && count) memcpy(all + before, iov, (size_t)count * sizeof *iov);
    ptrdiff_t sent = rp_conn_send(hub, c, before ? all : iov, before + count);
    if (sent < 0) return -1;
    bool is_short = (size_t)sent < total || rp_conn_tls_waits(c);
    size_t left = before ? rp_conn_took(hub, c, (size_t)sent) : (size_t)sent;
    if (is_short || c->want != RTPUSH_READ) rp_conn_block(hub, c, is_short, sent > 0);
    if (!is_short) rp_conn_drained(hub, c);
    return c->phase == RP_PHASE_DEAD ? -1 : (ptrdiff_t)left;
}

static void rp_wire_nothing(rtpush_hub *hub, rp_reader *r, enum rp_closing why) {
    (void)why;
    rp_conn_drop(hub, rp_conn_of(r), 1011);
}

// Not a reader: a connection between requests, or one that ends.
static const rp_wire rp_wire_none = {"http", RTPUSH_NO_TRANSPORT, -1, rp_conn_write, NULL, NULL, NULL, rp_wire_nothing, NULL};

// Where own bytes are written to, to go out when the turn ends. NULL: no memory, and it is gone.
static rp_buf *rp_conn_own(rtpush_hub *hub, rp_conn *c) {
    if (!c->own && !(c->own = rp_server_buf(hub))) { rp_conn_drop(hub, c, 1011); return NULL; }
    rp_hub_again(hub, &c->reader);
    return c->own;
}

static void rp_conn_put(rtpush_hub *hub, rp_conn *c, rtpush_slice bytes) {
    rp_buf *own = rp_conn_own(hub, c);
    if (own) rp_buf_slice_put(&hub->mem, own, bytes);
}

// No more input counts; what is under way goes out, then the connection ends.
static void rp_conn_finish(rtpush_hub *hub, rp_conn *c) {
    if (!rp_conn_is_live(c)) return;
    rp_conn_enter(hub, c, RP_PHASE_LINGER);
    rp_conn_leave(hub, c);
    c->reader.wire = &rp_wire_none;
    c->is_paused = false;
    c->since = hub->wheel.now;
    c->bytes = 0;
    c->stalled = hub->wheel.now; // it has stall_ms for what is left
    rp_server_buf_back(hub, &c->tail);
    rp_hub_again(hub, &c->reader);
    rp_conn_watch(hub, c);
    rp_conn_arm(hub, c);
}

// --- reaping ---

// Counts the connections of an address. Returns how many there are now, 0 if that is not known.
static uint32_t rp_ip_count(rtpush_hub *hub, rp_conn *c, int by) {
    rp_table *ips = &hub->server->ips;
    const unsigned char *addr = c->peer.addr;
    uint64_t hash = rp_hash(&hub->hash_key, addr, sizeof c->peer.addr);
    rp_node *node = rp_table_first(ips, hash);
    while (node && memcmp(RP_OWNER(rp_ip, node, node)->addr, addr, sizeof c->peer.addr)) node = rp_table_same(node->next, hash);
    rp_ip *ip = node ? RP_OWNER(rp_ip, node, node) : NULL;
    if (!ip && by > 0 && (ip = (rp_ip *)rp_mem_get(&hub->mem, sizeof *ip)) != NULL) {
        memcpy(ip->addr, addr, sizeof ip->addr);
        rp_table_add(&hub->mem, ips, &ip->node, hash);
    }
    if (!ip) return 0;
    c->is_counted = by > 0;
    ip->count += (uint32_t)by;
    if (ip->count) return ip->count;
    rp_table_remove(ips, &ip->node);
    rp_mem_free(&hub->mem, ip);
    return 0;
}

static void rp_conn_not_resume(rtpush_hub *hub, rp_conn *c) {
    if (!c->is_resuming) return;
    rp_conn **at = &hub->server->resume;
    while (*at != c) at = &(*at)->next_resume;
    *at = c->next_resume;
    c->is_resuming = false;
}

static void rp_conn_free(rtpush_hub *hub, rp_conn *c) {
    rp_server *server = hub->server;
    rp_hub_not_again(hub, &c->reader);
    rp_conn_not_resume(hub, c);
    if (c->want) server->backend->watch(server->state, c->fd, rp_conn_tag(c), c->want, 0);
    rp_tls_free(&hub->mem, rp_conn_tls(c));
    hub->sys.close(hub->sys.user, c->fd);
    hub->stats.abandoned += c->reader.rest_owed;
    rp_piece_drop(&hub->log, &c->reader.rest);
    rp_server_buf_back(hub, &c->own);
    rp_server_buf_back(hub, &c->tail);
    rp_inflow_free(hub, c);
    rp_stream_free(hub, c);
    rp_conn_forget_text(hub, &c->text);
    if (c->is_counted) rp_ip_count(hub, c, -1);
    rp_slab_give(&server->conns, &c->slot);
    if (hub->hooks) hub->hooks->connected(hub, -1);
    hub->stats.connections--;
}

static void rp_server_reap(rtpush_hub *hub) {
    rp_conn *c;
    while ((c = hub->server->dead) != NULL) {
        hub->server->dead = c->next;
        rp_conn_free(hub, c);
    }
}
#endif // RP_SERVER

// ============================================================================
// >>reply  HTTP answers  (uses: conn, http)
//
// One way to write a head, one for a whole answer, one for a refusal. Every answer says
// how long it is, or is chunked, or ends with the connection.
// ============================================================================
#ifdef RP_SERVER
static const char *rp_server_date(rtpush_hub *hub) {
    int64_t wall = rp_hub_wall(hub);
    if (wall / 1000 != hub->server->date_second) {
        hub->server->date_second = wall / 1000;
        rp_http_date(hub->server->date, wall);
    }
    return hub->server->date;
}

// RFC 9110 §8.6, §15.4.5: these have no body, and say no length.
static bool rp_status_is_bare(int status) { return status < 200 || status == 204 || status == 304; }

static void rp_reply_cors(rtpush_hub *hub, rp_buf *buf, const char *origin) {
    bool is_any = hub->desc.origin && !strcmp(hub->desc.origin, "*");
    rp_buf_text(&hub->mem, buf, "Access-Control-Allow-Origin: ");
    rp_buf_text(&hub->mem, buf, is_any ? "*" : origin);
    rp_buf_text(&hub->mem, buf, "\r\nAccess-Control-Expose-Headers: ETag, Retry-After, Rtpush-Gap\r\n");
    if (!is_any) rp_buf_text(&hub->mem, buf, "Access-Control-Allow-Credentials: true\r\nVary: Origin\r\n");
}

enum { RP_LENGTH_NONE = -1, RP_LENGTH_CHUNKED = -2 };

// The head of an answer. length: the body's, or one of the two above. extra: more header lines, each with its CR LF.
static void rp_reply_head(rtpush_hub *hub, rp_conn *c, rp_buf *buf, int status, const char *type, rtpush_slice extra, int64_t length) {
    rp_mem *mem = &hub->mem;
    char text[96];
    bool is_chunked = length == RP_LENGTH_CHUNKED && c->is_http11;
    if (length == RP_LENGTH_CHUNKED && !is_chunked) c->keeps = false; // RFC 9112 §6.1: to HTTP/1.0 it ends with the connection
    snprintf(text, sizeof text, "HTTP/1.1 %d %s\r\nDate: ", status, rp_http_reason(status));
    rp_buf_text(mem, buf, text);
    rp_buf_text(mem, buf, rp_server_date(hub));
    if (type) rp_buf_text(mem, buf, "\r\nContent-Type: "), rp_buf_text(mem, buf, type);
    rp_buf_text(mem, buf, "\r\n");
    if (length >= 0 && !rp_status_is_bare(status)) {
        rp_buf_text(mem, buf, "Content-Length: ");
        rp_buf_number(mem, buf, (uint64_t)length);
        rp_buf_text(mem, buf, "\r\n");
    }
    if (is_chunked) rp_buf_text(mem, buf, "Transfer-Encoding: chunked\r\n");
    if (status != 101) rp_buf_text(mem, buf, !c->keeps ? "Connection: close\r\n" : c->is_http11 ? "" : "Connection: keep-alive\r\n");
    if (c->text) rp_reply_cors(hub, buf, c->text);
    rp_buf_slice_put(mem, buf, extra);
    rp_buf_text(mem, buf, "\r\n");
}

// An answer is complete: the next request, or the end.
static void rp_reply_done(rtpush_hub *hub, rp_conn *c) {
    rp_conn_forget_text(hub, &c->text);
    rp_stream_free(hub, c);
    if (!rp_conn_is_live(c)) return;
    c->is_first = c->has_bytes = false;
    c->since = hub->wheel.now;
    if (!c->keeps || c->is_ended) { rp_conn_finish(hub, c); return; }
    if (c->phase != RP_PHASE_HEAD) rp_conn_enter(hub, c, RP_PHASE_HEAD);
    c->reader.wire = &rp_wire_none;
    rp_conn_resume_later(hub, c); // a pipelined request may wait
    if (!c->tail) c->is_paused = false;
    rp_conn_watch(hub, c);
    rp_conn_arm(hub, c);
}

static void rp_reply_whole(rtpush_hub *hub, rp_conn *c, int status, const char *type, rtpush_slice extra, rtpush_slice body) {
    rp_buf *own = rp_conn_own(hub, c);
    if (!own) return;
    rp_reply_head(hub, c, own, status, type, extra, (int64_t)body.size);
    if (!c->is_head && !rp_status_is_bare(status)) rp_buf_slice_put(&hub->mem, own, body);
    rp_reply_done(hub, c);
}

// A refusal: {"error":…,"reason":…} (PROTOCOL §5).
static void rp_reply_error(rtpush_hub *hub, rp_conn *c, int status, const char *reason, const char *extra) {
    char body[512];
    int n = snprintf(body, sizeof body, "{\"error\":\"%s\",\"reason\":\"%s\"}\n", rp_http_error_code(status), reason);
    rp_reply_whole(hub, c, status, "application/json", rp_slice_of(extra), rp_slice(body, (size_t)n));
}

// true: another method was asked, and it is refused.
static bool rp_reply_only_get(rtpush_hub *hub, rp_conn *c, const rtpush_head *head) {
    if (rp_slice_equals(head->method, "GET") || c->is_head) return false;
    rp_reply_error(hub, c, 405, "only GET and HEAD are answered here", "Allow: GET, HEAD\r\n");
    return true;
}

// An error after which nothing the peer sends can be understood.
static void rp_reply_refuse(rtpush_hub *hub, rp_conn *c, int status, const char *reason) {
    hub->stats.requests_bad++;
    c->keeps = false;
    rp_reply_error(hub, c, status, reason, "");
}

// --- a file: read as the socket takes it ---

static void rp_file_turn(rtpush_hub *hub, rp_reader *r) {
    rp_conn *c = rp_conn_of(r);
    rp_stream *stream = c->stream;
    if (rp_conn_write(hub, r, NULL, 0, 0) < 0 || r->is_blocked) return;
    if (!stream->left) { rp_reply_done(hub, c); return; }
    rp_buf *own = rp_conn_own(hub, c);
    char *room = own ? rp_buf_room(&hub->mem, own, RP_TURN_BYTES) : NULL;
    ptrdiff_t n = room ? read(stream->file, room, (size_t)RP_MIN(stream->left, (uint64_t)RP_TURN_BYTES)) : -1;
    if (n <= 0) { rp_conn_drop(hub, c, 1006); return; } // it became shorter: the length was promised
    own->end += (size_t)n;
    stream->left -= (uint64_t)n;
    rp_conn_write(hub, r, NULL, 0, 0);
}

static const rp_wire rp_wire_file = {"file", RTPUSH_NO_TRANSPORT, -1, rp_conn_write, NULL, rp_file_turn, NULL, rp_wire_nothing, NULL};

// A reply in pieces begins. NULL: no memory.
static rp_stream *rp_stream_new(rtpush_hub *hub, rp_conn *c) {
    rp_stream *stream = (rp_stream *)rp_slab_take(&hub->server->streams);
    if (!stream) return NULL;
    stream->conn = c;
    stream->file = -1;
    c->stream = stream;
    rp_conn_enter(hub, c, RP_PHASE_REPLY);
    return stream;
}

// A code of the API as an HTTP status.
static int rp_reply_status(int code) {
    switch (code) {
    case RTPUSH_E_MEMORY:
    case RTPUSH_E_TOPICS:
    case RTPUSH_E_PATTERNS:
    case RTPUSH_E_UNAVAILABLE: return 503;
    case RTPUSH_E_TOO_BIG: return 413;
    case RTPUSH_E_UNAUTHORIZED: return 401;
    case RTPUSH_E_FORBIDDEN: return 403;
    case RTPUSH_E_FULL: return 503;
    default: return 400;
    }
}

static void rp_reply_code(rtpush_hub *hub, rp_conn *c, int code) {
    int status = rp_reply_status(code);
    rp_reply_error(hub, c, status, rp_hub_reason(hub, code), status == 503 ? "Retry-After: 1\r\n" : status == 401 ? "WWW-Authenticate: Bearer\r\n" : "");
}
#endif // RP_SERVER

// ============================================================================
// >>push  the transports: how a reader is opened, told, kept alive and closed  (uses: reply, reader, ws, sse)
//
// Six wires over one reader: raw WebSocket, envelope, SSE, SSE with the envelope's JSON,
// SSE with a reader's own spelling, poll. To add a transport: a wire here, a way to ask for it in `route`, its
// deadlines in `conn` and `clock`, a spelling in `spell` if its bytes can be shared, tests.
// ============================================================================
#ifdef RP_SERVER
// The cursor a new reader is told: where it starts, or, behind a gap, what fits before all that follows (PROTOCOL §2).
static uint64_t rp_push_first_id(rtpush_hub *hub, const rp_reader *r, const rp_gap *gap) {
    rp_scan scan;
    if (!gap->is_told) return gap->start;
    rp_scan_begin(&scan, hub, r);
    const rp_msg *oldest = rp_scan_next(&scan);
    return oldest && oldest->seq <= gap->to ? oldest->seq - 1 : gap->to;
}

// Whether a name is presence of a topic, and of which.
static bool rp_push_is_presence(rtpush_slice name, rtpush_slice *topic) {
    if (!rp_slice_begins(name, "@presence/") || rp_topic_is_pattern(name)) return false;
    *topic = rp_slice_from(name, 10);
    return true;
}

// {"here":…} as a message of the presence topic, made in hub.body. NULL: no memory.
static bool rp_push_here(rtpush_hub *hub, rtpush_slice name, uint64_t id, char topic[RP_TOPIC_MAX + 1], rtpush_message *m) {
    rtpush_slice of = rp_slice_from(name, 10);
    rp_buf *buf = &hub->server->here;
    rp_buf_rewind(buf);
    rp_crowd_here(hub, buf, of);
    memcpy(topic, name.data, name.size);
    topic[name.size] = 0;
    memset(m, 0, sizeof *m);
    m->topic = topic;
    m->event = "";
    m->data = buf->data;
    m->size = rp_buf_size(buf);
    m->kind = RTPUSH_JSON;
    m->seq = id;
    return !buf->is_broken;
}

// --- WebSocket ---

static void rp_socket_put(rtpush_hub *hub, rp_conn *c, unsigned opcode, const void *data, size_t size) {
    rp_buf *own = c->phase == RP_PHASE_SOCKET ? rp_conn_own(hub, c) : NULL; // RFC 6455 §5.5.1: nothing follows a close frame
    if (own) rp_ws_put(&hub->mem, own, opcode, data, size);
}

static void rp_socket_put_close(rtpush_hub *hub, rp_conn *c, int code, const char *reason) {
    rp_buf *own = rp_conn_own(hub, c);
    if (!c->code) c->code = (uint16_t)(code ? code : 1005);
    if (own) rp_ws_put_close(&hub->mem, own, code, reason);
}

// The peer broke a rule (RFC 6455 §7.1.7): it is told why, nothing more it sends is looked at.
static void rp_socket_fail(rtpush_hub *hub, rp_conn *c, int code, const char *reason) {
    if (!rp_conn_is_live(c)) return;
    if (c->phase == RP_PHASE_SOCKET) rp_socket_put_close(hub, c, code, reason);
    rp_inflow_free(hub, c);
    rp_conn_finish(hub, c);
}

// We close (RFC 6455 §7.1.2): the peer has close_timeout_ms to answer.
static void rp_socket_close(rtpush_hub *hub, rp_conn *c, int code, const char *reason) {
    if (c->phase != RP_PHASE_SOCKET) return;
    rp_socket_put_close(hub, c, code, reason);
    if (c->phase != RP_PHASE_SOCKET) return; // no memory: it is gone
    rp_conn_enter(hub, c, RP_PHASE_CLOSING);
    rp_conn_leave(hub, c);
    c->reader.wire = &rp_wire_none;
    c->since = hub->wheel.now;
    c->bytes = c->inflow ? c->inflow->ws.left : 0;
    rp_inflow_free(hub, c);
    rp_conn_arm(hub, c);
}

static void rp_socket_closing(rtpush_hub *hub, rp_reader *r, enum rp_closing why) {
    rp_socket_close(hub, rp_conn_of(r), why == RP_CLOSE_SLOW ? 4100 : 1011, why == RP_CLOSE_SLOW ? "slow" : "out of memory");
}

static bool rp_raw_put(rtpush_hub *hub, rp_reader *r, const rp_msg *m, bool is_replay) {
    rp_conn *c = rp_conn_of(r);
    (void)is_replay;
    if (!rp_conn_has_room(hub, c)) return false;
    rp_socket_put(hub, c, m->kind == RTPUSH_BINARY ? RP_WS_BINARY : RP_WS_TEXT, rp_msg_data(m), m->size);
    return rp_conn_is_live(c);
}

static const rp_wire rp_wire_raw = {"websocket", RTPUSH_WEBSOCKET, RP_RAW, rp_conn_write, rp_raw_put, NULL, NULL, rp_socket_closing, NULL};

// --- the envelope: what the server says (PROTOCOL §3) ---

// A text frame of what is in hub.text.
static void rp_envelope_send(rtpush_hub *hub, rp_conn *c, const rp_buf *text) {
    if (text->is_broken) rp_conn_drop(hub, c, 1011);
    else rp_socket_put(hub, c, RP_WS_TEXT, text->data, rp_buf_size(text));
}

static void rp_envelope_ref(rtpush_hub *hub, rp_buf *buf, rtpush_slice ref) {
    if (!ref.size) return;
    rp_buf_text(&hub->mem, buf, ",\"ref\":");
    rp_buf_slice_put(&hub->mem, buf, ref);
}

static void rp_envelope_cursor(rtpush_hub *hub, rp_buf *buf, const char *member, uint64_t seq) {
    rp_buf_text(&hub->mem, buf, ",\"");
    rp_buf_text(&hub->mem, buf, member);
    rp_buf_text(&hub->mem, buf, "\":\"");
    rp_spell_cursor(hub, buf, seq);
    rp_buf_text(&hub->mem, buf, "\"");
}

// member: "id", "cursor", or NULL for neither. Without a ref there is no ack.
static void rp_envelope_ack(rtpush_hub *hub, rp_conn *c, rtpush_slice ref, const char *member, uint64_t seq) {
    if (!ref.size) return;
    rp_buf *buf = rp_hub_text(hub);
    rp_buf_text(&hub->mem, buf, "{\"type\":\"ack\"");
    rp_envelope_ref(hub, buf, ref);
    if (member) rp_envelope_cursor(hub, buf, member, seq);
    rp_buf_text(&hub->mem, buf, "}");
    rp_envelope_send(hub, c, buf);
}

static void rp_envelope_error(rtpush_hub *hub, rp_conn *c, rtpush_slice ref, const char *code, const char *reason) {
    rp_buf *buf = rp_hub_text(hub);
    rp_buf_text(&hub->mem, buf, "{\"type\":\"error\"");
    rp_envelope_ref(hub, buf, ref);
    rp_buf_text(&hub->mem, buf, ",\"code\":");
    rp_json_text(&hub->mem, buf, code);
    rp_buf_text(&hub->mem, buf, ",\"reason\":");
    rp_json_text(&hub->mem, buf, reason);
    rp_buf_text(&hub->mem, buf, "}");
    rp_envelope_send(hub, c, buf);
}

static void rp_envelope_gap_of(rtpush_hub *hub, rp_conn *c, const rp_gap *gap, const char *topic) {
    rp_buf *buf = rp_hub_text(hub);
    rp_buf_text(&hub->mem, buf, "{\"type\":\"gap\",");
    rp_spell_gap(hub, buf, gap);
    if (topic) rp_buf_text(&hub->mem, buf, ",\"topic\":"), rp_json_text(&hub->mem, buf, topic);
    rp_buf_text(&hub->mem, buf, "}");
    rp_envelope_send(hub, c, buf);
}

static void rp_envelope_gap(rtpush_hub *hub, rp_reader *r, const rp_gap *gap) { rp_envelope_gap_of(hub, rp_conn_of(r), gap, NULL); }

static void rp_envelope_message(rtpush_hub *hub, rp_conn *c, const rtpush_message *m, bool is_replay) {
    rp_buf *buf = rp_hub_text(hub);
    rp_spell_envelope(hub, buf, m, is_replay);
    rp_envelope_send(hub, c, buf);
}

static bool rp_envelope_put(rtpush_hub *hub, rp_reader *r, const rp_msg *m, bool is_replay) {
    rp_conn *c = rp_conn_of(r);
    rtpush_message view = rp_msg_view(m, 0, 0);
    if (!rp_conn_has_room(hub, c)) return false;
    rp_envelope_message(hub, c, &view, is_replay);
    return rp_conn_is_live(c);
}

static void rp_envelope_replayed(rtpush_hub *hub, rp_reader *r, const rp_replay *replay) {
    rp_envelope_ack(hub, rp_conn_of(r), rp_slice(replay + 1, replay->size), "cursor", rp_reader_cursor(hub, r));
}

static const rp_wire rp_wire_envelope = {"envelope",      RTPUSH_ENVELOPE,   RP_ENVELOPE,         rp_conn_write, rp_envelope_put, NULL,
                                         rp_envelope_gap, rp_socket_closing, rp_envelope_replayed};

static void rp_envelope_hello_text(rtpush_hub *hub, rp_buf *buf, const rp_gap *gap, int64_t heartbeat_ms) {
    rp_buf_text(&hub->mem, buf, "{\"type\":\"hello\"");
    if (gap->is_told) rp_buf_text(&hub->mem, buf, ",\"cursor\":"), rp_json_text(&hub->mem, buf, gap->from);
    else rp_envelope_cursor(hub, buf, "cursor", gap->start);
    rp_buf_text(&hub->mem, buf, ",\"heartbeat\":");
    rp_buf_number(&hub->mem, buf, (uint64_t)RP_MAX(heartbeat_ms, (int64_t)0));
    rp_buf_text(&hub->mem, buf, "}");
}

static void rp_envelope_hello(rtpush_hub *hub, rp_conn *c, const rp_gap *gap) {
    rp_buf *buf = rp_hub_text(hub);
    rp_envelope_hello_text(hub, buf, gap, hub->desc.heartbeat_ms);
    rp_envelope_send(hub, c, buf);
}

static void rp_envelope_reconnect_text(rtpush_hub *hub, rp_buf *buf, uint64_t after_ms) {
    rp_buf_text(&hub->mem, buf, "{\"type\":\"reconnect\",\"after\":");
    rp_buf_number(&hub->mem, buf, after_ms);
    rp_buf_text(&hub->mem, buf, "}");
}

// --- SSE ---

// What is in hub.text, as a chunk of the stream, or as it is for HTTP/1.0.
static void rp_event_send(rtpush_hub *hub, rp_conn *c, const rp_buf *text) {
    rp_buf *own = rp_conn_own(hub, c);
    if (!own) return;
    if (text->is_broken) rp_conn_drop(hub, c, 1011);
    else if (c->is_http11) rp_chunk_put(&hub->mem, own, text->data, rp_buf_size(text));
    else rp_buf_put(&hub->mem, own, text->data, rp_buf_size(text));
}

static void rp_event_id(rtpush_hub *hub, rp_buf *buf, uint64_t seq) {
    rp_buf_text(&hub->mem, buf, "id: ");
    rp_spell_cursor(hub, buf, seq);
    rp_buf_text(&hub->mem, buf, "\n");
}

static void rp_event_gap_text(rtpush_hub *hub, rp_buf *buf, const rp_gap *gap, uint64_t id) {
    rp_event_id(hub, buf, id);
    rp_buf_text(&hub->mem, buf, "event: gap\ndata: {");
    rp_spell_gap(hub, buf, gap);
    rp_buf_text(&hub->mem, buf, "}\n\n");
}

static void rp_event_gap(rtpush_hub *hub, rp_reader *r, const rp_gap *gap) {
    uint64_t id = rp_push_first_id(hub, r, gap);
    rp_buf *buf = rp_hub_text(hub);
    rp_event_gap_text(hub, buf, gap, id);
    rp_event_send(hub, rp_conn_of(r), buf);
}

// A message in the spelling that this reader asked for.
static void rp_event_text(rtpush_hub *hub, const rp_conn *c, rp_buf *buf, const rtpush_message *m, bool is_replay) {
    const char *other = c->events == RP_EVENTS_TOPIC && strcmp(m->topic, "gap") ? m->topic : NULL;
    if (c->events == RP_EVENTS_ENVELOPE) rp_spell_event_envelope(hub, buf, m, is_replay);
    else rp_spell_event(hub, buf, m, other, is_replay);
}

static bool rp_event_put(rtpush_hub *hub, rp_reader *r, const rp_msg *m, bool is_replay) {
    rp_conn *c = rp_conn_of(r);
    rtpush_message view = rp_msg_view(m, 0, 0);
    if (!rp_conn_has_room(hub, c)) return false;
    rp_buf *buf = rp_hub_text(hub);
    rp_event_text(hub, c, buf, &view, is_replay);
    rp_event_send(hub, c, buf);
    return rp_conn_is_live(c);
}

// The end of a stream that was chunked is a last chunk: the client knows that it is whole.
static void rp_event_end(rtpush_hub *hub, rp_conn *c) {
    if (c->phase != RP_PHASE_STREAM) return;
    if (c->is_http11) rp_conn_put(hub, c, rp_slice("0\r\n\r\n", 5));
    rp_conn_finish(hub, c);
}

static void rp_event_closing(rtpush_hub *hub, rp_reader *r, enum rp_closing why) {
    if (!rp_conn_of(r)->code) rp_conn_of(r)->code = why == RP_CLOSE_SLOW ? 4100 : 1011;
    rp_event_end(hub, rp_conn_of(r));
}

static const rp_wire rp_wire_event = {"sse", RTPUSH_SSE, RP_EVENT, rp_conn_write, rp_event_put, NULL, rp_event_gap, rp_event_closing, NULL};
static const rp_wire rp_wire_event_envelope = {"sse", RTPUSH_SSE, RP_EVENT_ENVELOPE, rp_conn_write, rp_event_put, NULL, rp_event_gap, rp_event_closing, NULL};
// For HTTP/1.0 (no chunks) and ?events=topic: spelled for this reader alone.
static const rp_wire rp_wire_event_own = {"sse", RTPUSH_SSE, -1, rp_conn_write, rp_event_put, NULL, rp_event_gap, rp_event_closing, NULL};

// `retry:` with up to 20 % jitter, so that a server's readers do not come back as one.
static uint64_t rp_event_retry(rtpush_hub *hub) {
    uint64_t ms = (uint64_t)hub->desc.sse_retry_ms;
    return ms + rp_hub_jitter(hub, ms / 5 + 1);
}

static void rp_event_retry_text(rtpush_hub *hub, rp_buf *buf, uint64_t ms) {
    rp_buf_text(&hub->mem, buf, "retry: ");
    rp_buf_number(&hub->mem, buf, ms);
    rp_buf_text(&hub->mem, buf, "\n");
}

// The first bytes: they make a proxy pass the head on, and set the browser's Last-Event-ID.
static void rp_event_hello(rtpush_hub *hub, rp_conn *c, const rp_gap *gap) {
    uint64_t id = rp_push_first_id(hub, &c->reader, gap);
    rp_buf *buf = rp_hub_text(hub);
    rp_event_retry_text(hub, buf, rp_event_retry(hub));
    rp_buf_text(&hub->mem, buf, ": rtpush\n");
    if (!gap->is_told) rp_event_id(hub, buf, id);
    if (c->events == RP_EVENTS_ENVELOPE) {
        rp_buf_text(&hub->mem, buf, "data: ");
        rp_envelope_hello_text(hub, buf, gap, hub->desc.sse_heartbeat_ms);
        rp_buf_text(&hub->mem, buf, "\n");
    }
    rp_buf_text(&hub->mem, buf, "\n");
    if (gap->is_told) rp_event_gap_text(hub, buf, gap, id);
    rp_event_send(hub, c, buf);
}

// Its last words before a drain ends it: when to come back.
static void rp_event_goodbye(rtpush_hub *hub, rp_conn *c, uint64_t after_ms) {
    rp_buf *buf = rp_hub_text(hub);
    rp_event_retry_text(hub, buf, after_ms);
    if (c->events == RP_EVENTS_ENVELOPE) {
        rp_buf_text(&hub->mem, buf, "data: ");
        rp_envelope_reconnect_text(hub, buf, after_ms);
        rp_buf_text(&hub->mem, buf, "\n");
    }
    rp_buf_text(&hub->mem, buf, "\n");
    rp_event_send(hub, c, buf);
}

// --- who is there, to a new reader of presence ---

static void rp_push_presence(rtpush_hub *hub, rp_conn *c, rtpush_slice name, uint64_t id) {
    char topic[RP_TOPIC_MAX + 1];
    rtpush_message m;
    if (!rp_push_here(hub, name, id, topic, &m)) { rp_conn_drop(hub, c, 1011); return; }
    if (c->reader.wire == &rp_wire_raw) {
        rp_socket_put(hub, c, RP_WS_TEXT, m.data, m.size);
    } else if (c->reader.wire == &rp_wire_envelope) {
        rp_envelope_message(hub, c, &m, false);
    } else {
        rp_buf *buf = rp_hub_text(hub);
        rp_event_text(hub, c, buf, &m, false);
        rp_event_send(hub, c, buf);
    }
}

// To each presence topic among a new reader's.
static void rp_push_presences(rtpush_hub *hub, rp_conn *c, uint64_t id) {
    rtpush_slice topic;
    for (uint16_t i = 0; i < c->reader.count && rp_conn_is_live(c); i++) {
        rtpush_slice name = rp_source_name(c->reader.subs[i].source);
        if (rp_push_is_presence(name, &topic)) rp_push_presence(hub, c, name, id);
    }
}

// --- polls ---

enum { RP_POLL_MESSAGES = 1000, RP_POLL_BYTES = 1048576 };

typedef struct rp_poll_answer {
    const rp_gap *gap;     // NULL: none
    int64_t reconnect_ms;  // -1: not asked to
    bool has_here;         // presence topics say who is there
    uint32_t messages;
    bool has_more;
    uint64_t cursor;
} rp_poll_answer;

static void rp_poll_item(rtpush_hub *hub, rp_poll_answer *answer, const void *data, size_t size) {
    if (answer->messages++) rp_buf_text(&hub->mem, &hub->server->body, ",");
    rp_buf_put(&hub->mem, &hub->server->body, data, size);
}

static void rp_poll_heres(rtpush_hub *hub, rp_conn *c, rp_poll_answer *answer, uint64_t id) {
    char name[RP_TOPIC_MAX + 1];
    rtpush_slice topic;
    rtpush_message m;
    for (uint16_t i = 0; i < c->reader.count; i++) {
        if (!rp_push_is_presence(rp_source_name(c->reader.subs[i].source), &topic)) continue;
        if (!rp_push_here(hub, rp_source_name(c->reader.subs[i].source), id, name, &m)) hub->server->body.is_broken = true;
        rp_buf *buf = rp_hub_text(hub);
        rp_buf_text(&hub->mem, buf, "{");
        rp_spell_members(hub, buf, &m);
        rp_buf_text(&hub->mem, buf, "}");
        rp_poll_item(hub, answer, buf->data, rp_buf_size(buf));
    }
}

// Puts all that the reader is behind on, within one answer's bounds, into server.body.
static void rp_poll_items(rtpush_hub *hub, rp_conn *c, rp_poll_answer *answer) {
    rp_reader *r = &c->reader;
    rp_scan scan;
    rp_msg *m, *last = NULL;
    rp_buf *body = &hub->server->body;
    rp_buf_rewind(body);
    if (answer->has_here) rp_poll_heres(hub, c, answer, rp_reader_cursor(hub, r));
    rp_scan_begin(&scan, hub, r);
    while ((m = rp_scan_next(&scan)) != NULL) {
        if (!rp_spell(hub, m, RP_ITEM)) { body->is_broken = true; return; }
        answer->has_more = last && (answer->messages >= RP_POLL_MESSAGES || rp_buf_size(body) + m->as[RP_ITEM].size > RP_POLL_BYTES);
        if (answer->has_more) break;
        rp_poll_item(hub, answer, rp_piece_iov(&m->as[RP_ITEM]).base, m->as[RP_ITEM].size);
        rp_reader_took(hub, r, m, true);
        last = m;
    }
    if (!answer->has_more) rp_reader_level(hub, r);
    answer->cursor = answer->has_more ? last->seq : RP_MAX(hub->log.head, r->ahead);
}

// The body around the items, into hub.text.
static void rp_poll_body(rtpush_hub *hub, const rp_poll_answer *answer) {
    rp_buf *buf = rp_hub_text(hub);
    rp_mem *mem = &hub->mem;
    rp_buf_text(mem, buf, "{\"cursor\":\"");
    rp_spell_cursor(hub, buf, answer->cursor);
    rp_buf_text(mem, buf, "\"");
    if (answer->gap && answer->gap->is_told) {
        rp_buf_text(mem, buf, ",\"gap\":{");
        rp_spell_gap(hub, buf, answer->gap);
        rp_buf_text(mem, buf, "}");
    }
    if (answer->has_more) rp_buf_text(mem, buf, ",\"more\":true");
    if (answer->reconnect_ms >= 0) {
        rp_buf_text(mem, buf, ",\"reconnect\":");
        rp_buf_number(mem, buf, (uint64_t)answer->reconnect_ms);
    }
    rp_buf_text(mem, buf, ",\"messages\":[");
    rp_buf_slice_put(mem, buf, rp_buf_slice(&hub->server->body));
    rp_buf_text(mem, buf, "]}\n");
    buf->is_broken |= hub->server->body.is_broken;
}

static void rp_poll_extra(rtpush_hub *hub, char extra[96], uint64_t cursor) {
    char text[RP_CURSOR_MAX];
    snprintf(extra, 96, "Cache-Control: no-store\r\nETag: \"%s\"\r\n", rp_hub_cursor(hub, text, cursor));
}

static void rp_server_forget_answer(rtpush_hub *hub) {
    rp_piece_drop(&hub->log, &hub->server->answer);
    hub->server->answer_source = NULL;
}

// Everybody who is level at a topic gets the same answer in this circle: head and body in one block.
static bool rp_poll_is_shared(const rp_conn *c) {
    const rp_reader *r = &c->reader;
    return r->count == 1 && !r->subs[0].source->is_pattern && c->is_http11 && c->keeps && !c->is_head && !c->text && rp_sub_entry(r->subs)->pos >= r->began && !r->rest.block;
}

static bool rp_poll_share(rtpush_hub *hub, rp_conn *c, const rp_poll_answer *answer, const rp_source *s, uint64_t pos) {
    char extra[96];
    rp_server *server = hub->server;
    rp_server_forget_answer(hub);
    rp_poll_extra(hub, extra, answer->cursor);
    rp_buf *head = &server->here;
    rp_buf_rewind(head);
    rp_reply_head(hub, c, head, 200, "application/json", rp_slice_of(extra), (int64_t)rp_buf_size(&hub->text));
    size_t head_size = rp_buf_size(head), size = head_size + rp_buf_size(&hub->text);
    rp_block *block = head->is_broken ? NULL : rp_block_new(&hub->log, size);
    if (!block) return false;
    memcpy(rp_block_bytes(block), head->data, head_size);
    memcpy(rp_block_bytes(block) + head_size, hub->text.data, rp_buf_size(&hub->text));
    server->answer = rp_piece_of(block, 0, size);
    server->answer_source = s;
    server->answer_pos = pos;
    server->answer_last = s->last;
    server->answer_messages = answer->messages;
    return true;
}

// Ends the poll: the request is answered, the reader leaves.
static void rp_poll_end(rtpush_hub *hub, rp_conn *c) {
    if (!c->code) c->code = 1000;
    rp_conn_leave(hub, c);
    c->code = 0;
    c->due = 0;
    c->reader.wire = &rp_wire_none;
    rp_reply_done(hub, c);
}

static void rp_poll_send_shared(rtpush_hub *hub, rp_conn *c) {
    rp_reader *r = &c->reader;
    r->rest = hub->server->answer;
    r->rest.block->refs++;
    rp_poll_end(hub, c);
    rp_conn_write(hub, r, NULL, 0, 0);
}

// Answers with what there is; is_due: also with nothing.
static void rp_poll_reply(rtpush_hub *hub, rp_conn *c, rp_poll_answer *answer, bool is_due) {
    char extra[96];
    rp_reader *r = &c->reader;
    if (hub->server->is_draining && answer->reconnect_ms < 0) answer->reconnect_ms = (int64_t)rp_hub_jitter(hub, hub->server->drain_spread + 1);
    bool is_shared = rp_poll_is_shared(c) && !answer->has_here && answer->reconnect_ms < 0 && !(answer->gap && answer->gap->is_told);
    const rp_source *s = r->count ? r->subs[0].source : NULL;
    uint64_t pos = s ? rp_sub_entry(r->subs)->pos : 0;
    rp_server *server = hub->server;
    if (is_shared && server->answer_source == s && server->answer_pos == pos && server->answer_last == s->last) {
        rp_sub_entry(r->subs)->done += server->answer_messages;
        hub->stats.delivered += server->answer_messages;
        rp_poll_send_shared(hub, c);
        return;
    }
    rp_poll_items(hub, c, answer);
    if (!answer->messages && !is_due && !server->body.is_broken) return; // nothing for it: it waits on
    if (!answer->messages) hub->stats.polls_empty++;
    rp_poll_body(hub, answer);
    if (hub->text.is_broken) { rp_conn_drop(hub, c, 1011); return; }
    if (is_shared && answer->messages && rp_poll_share(hub, c, answer, s, pos)) { rp_poll_send_shared(hub, c); return; }
    rp_poll_extra(hub, extra, answer->cursor);
    rp_buf *own = rp_conn_own(hub, c);
    if (!own) return;
    rp_reply_head(hub, c, own, 200, "application/json", rp_slice_of(extra), (int64_t)rp_buf_size(&hub->text));
    if (!c->is_head) rp_buf_slice_put(&hub->mem, own, rp_buf_slice(&hub->text));
    rp_poll_end(hub, c);
}

static void rp_poll_answer_init(rp_poll_answer *answer, const rp_gap *gap) {
    memset(answer, 0, sizeof *answer);
    answer->gap = gap;
    answer->reconnect_ms = -1;
}

// What a poll has lost since it began: it is told, whatever the policy.
static void rp_poll_gap(rtpush_hub *hub, rp_reader *r, rp_gap *gap) {
    uint64_t to = 0;
    for (uint16_t i = 0; i < r->count; i++)
        if (rp_sub_is_gone(r, &r->subs[i])) to = RP_MAX(to, r->subs[i].source->evicted);
    gap->to = RP_MAX(gap->to, to);
    if (!to || gap->is_told) return; // it began with one: that goes further now
    gap->is_told = true;
    gap->reason = "evicted";
    rp_cursor_write(gap->from, hub->log.epoch, rp_reader_cursor(hub, r));
    hub->stats.gaps++;
}

static void rp_poll_turn(rtpush_hub *hub, rp_reader *r) {
    rp_poll_answer answer;
    rp_gap gap;
    memset(&gap, 0, sizeof gap);
    rp_poll_gap(hub, r, &gap);
    rp_poll_answer_init(&answer, &gap);
    if (gap.is_told || rp_reader_is_behind(r)) rp_poll_reply(hub, rp_conn_of(r), &answer, gap.is_told);
    else rp_conn_write(hub, r, NULL, 0, 0);
}

static void rp_poll_closing(rtpush_hub *hub, rp_reader *r, enum rp_closing why) {
    (void)why;
    rp_conn_drop(hub, rp_conn_of(r), 1011);
}

static const rp_wire rp_wire_poll = {"poll", RTPUSH_LONG_POLL, RP_ITEM, rp_conn_write, NULL, rp_poll_turn, NULL, rp_poll_closing, NULL};

// --- closing, whatever the transport ---

static void rp_push_close(rtpush_hub *hub, rp_conn *c, int code, const char *reason) {
    rp_poll_answer answer;
    c->code = (uint16_t)code;
    switch ((enum rp_phase)c->phase) {
    case RP_PHASE_SOCKET: rp_socket_close(hub, c, code, reason); break;
    case RP_PHASE_STREAM: rp_event_end(hub, c); break;
    case RP_PHASE_PARKED:
        c->keeps = false;
        rp_poll_answer_init(&answer, NULL);
        rp_poll_reply(hub, c, &answer, true);
        break;
    default: break;
    }
}

// --- heartbeats ---

static void rp_push_heartbeat(rtpush_hub *hub, rp_conn *c) {
    c->beat = hub->wheel.now;
    if (c->reader.is_blocked) return; // stall_ms decides about it
    if (c->phase == RP_PHASE_SOCKET) {
        if (c->reader.wire == &rp_wire_envelope && !c->is_unknown) {
            rp_buf *buf = rp_hub_text(hub);
            rp_buf_text(&hub->mem, buf, "{\"type\":\"heartbeat\"");
            rp_envelope_cursor(hub, buf, "cursor", rp_reader_cursor(hub, &c->reader));
            rp_buf_text(&hub->mem, buf, "}");
            rp_envelope_send(hub, c, buf);
        }
        if (!rp_conn_is_live(c)) return;
        rp_socket_put(hub, c, RP_WS_PING, NULL, 0);
        if (!c->awaits_pong) c->due = hub->wheel.now;
        c->awaits_pong = true;
    } else if (c->phase == RP_PHASE_STREAM) {
        rp_buf *buf = rp_hub_text(hub);
        rp_buf_text(&hub->mem, buf, ": heartbeat\n");
        if (!rp_reader_is_behind(&c->reader)) rp_event_id(hub, buf, RP_MAX(hub->log.head, c->reader.ahead));
        rp_buf_text(&hub->mem, buf, "\n");
        rp_event_send(hub, c, buf);
    }
}
#endif // RP_SERVER

// ============================================================================
// >>open  a reader begins: which topics, whose session, from where  (uses: push, auth, publish)
//
// What a request's target asks for is read here, once for all transports: the topics of
// the path and of ?topic=, ?session=, where to start. Then subscriptions, placing them and
// the verdict about what is lost are one step of the loop.
// ============================================================================
#ifdef RP_SERVER
struct rtpush_request {
    rtpush_hub *hub;
    rp_conn *conn;
    const rtpush_head *head;
    rtpush_slice body, path; // path: decoded
    bool is_answered;
    rtpush_login login;
};

// The next parameter of a query, as sent.
static bool rp_query_next(rtpush_slice *rest, rtpush_slice *name, rtpush_slice *value) {
    rtpush_slice part;
    while (rp_slice_next(rest, '&', &part)) {
        if (!part.size) continue;
        rp_slice_next(&part, '=', name);
        *value = part.data ? part : rp_slice("", 0);
        return true;
    }
    return false;
}

// The first parameter of that name, decoded and NUL-terminated. -1: none; -2: it does not decode or fit.
static ptrdiff_t rp_query_find(rtpush_slice query, const char *wanted, char *out, size_t cap) {
    rtpush_slice name, value;
    size_t size;
    while (rp_query_next(&query, &name, &value)) {
        if (!rp_slice_equals(name, wanted)) continue;
        if (value.size >= cap || !rp_http_decode(out, &size, value, true)) return -2;
        out[size] = 0;
        return (ptrdiff_t)size;
    }
    return -1;
}

static const char rp_session_key_rule[] = "session is 16 to 64 of A-Z a-z 0-9 _ -";

// What rp_query_find gave for ?session=: none, or one of the right form.
static bool rp_session_key_is_asked(const char *key, ptrdiff_t size) {
    if (size == -1) return true;
    if (size < 16 || size > 64) return false;
    for (ptrdiff_t i = 0; i < size; i++) {
        char c = key[i];
        bool is_good = (c >= '0' && c <= '9') || (rp_lower(c) >= 'a' && rp_lower(c) <= 'z') || c == '_' || c == '-';
        if (!is_good) return false;
    }
    return true;
}

// Decodes one topic name behind the others in server.names. NULL, or what is wrong with it.
static const char *rp_names_add(rtpush_hub *hub, size_t *used, rtpush_slice encoded, bool is_query, bool allow_wild) {
    rp_server *server = hub->server;
    char *at = server->names_text + *used;
    size_t size;
    if (server->name_count == (uint64_t)hub->desc.session_topics_max) return "too many topics (session_topics_max)";
    if (!rp_http_decode(at, &size, encoded, is_query)) return "a bad percent-escape in a topic's name";
    if (!rtpush_is_topic(at, size, allow_wild)) return "not a topic's name";
    server->names[server->name_count++] = rp_slice(at, size);
    *used += size;
    return NULL;
}

// All the topics that a target names: behind the mount, and by ?topic=.
static const char *rp_names_read(rtpush_hub *hub, rtpush_slice path, rtpush_slice query, bool allow_wild) {
    rtpush_slice rest = rp_slice_from(path, strlen(hub->desc.mount)), name, value;
    const char *wrong = NULL;
    size_t used = 0;
    hub->server->name_count = 0;
    if (rest.size > 1) wrong = rp_names_add(hub, &used, rp_slice_from(rest, 1), false, allow_wild);
    while (!wrong && rp_query_next(&query, &name, &value))
        if (rp_slice_equals(name, "topic")) wrong = rp_names_add(hub, &used, value, true, allow_wild);
    return wrong;
}

// An entity tag's inside (RFC 9110 §8.8.3).
static rtpush_slice rp_etag_inside(rtpush_slice tag) {
    if (rp_slice_begins(tag, "W/")) tag = rp_slice_from(tag, 2);
    if (tag.size >= 2 && tag.data[0] == '"' && tag.data[tag.size - 1] == '"') tag = rp_slice(tag.data + 1, tag.size - 2);
    return tag;
}

// Where a request starts (PROTOCOL §2). false: a bad value in the query. *by_tag: If-None-Match said it.
static bool rp_start_read(const rtpush_head *head, bool is_poll, rp_start *start, bool *by_tag) {
    static const char *const names[] = {"last_event_id", "since"};
    char text[40];
    *by_tag = false;
    *start = rp_start_parse(rp_http_header(head, "last-event-id"));
    for (unsigned i = 0; i < 2 && start->kind == RP_START_NONE; i++) {
        ptrdiff_t size = rp_query_find(head->query, names[i], text, sizeof text);
        if (size >= 0) *start = rp_start_parse(rp_slice(text, (size_t)size));
        if (size == -2 || start->kind == RP_START_BAD) return false;
    }
    if (start->kind != RP_START_NONE || !is_poll) return true;
    *start = rp_start_parse(rp_etag_inside(rp_http_header(head, "if-none-match")));
    *by_tag = start->kind != RP_START_NONE;
    return true;
}

static void rp_conn_attach(rtpush_hub *hub, rp_conn *c, rp_session *session, int transport) {
    c->session = session;
    c->next = session->conns;
    session->conns = c;
    session->transport = (uint8_t)transport;
    rp_timer_stop(&hub->wheel, &session->linger);
}

static bool rp_start_is_foreign(const rtpush_hub *hub, const rp_start *start) {
    return start->kind == RP_START_CURSOR && strcmp(start->epoch, hub->log.epoch) != 0;
}

// Subscribes the connection to server.names as this session's reader. 0, or a code and it reads nothing.
static int rp_open_reader(rtpush_hub *hub, rp_conn *c, const rp_wire *wire, const rtpush_login *login, rtpush_slice key,
                          const rp_start *start, rp_gap *gap) {
    rp_reader *r = &c->reader;
    rp_server *server = hub->server;
    uint64_t expires = login->expires_ms > 0 ? hub->wheel.now + (uint64_t)login->expires_ms : 0;
    rp_session *session = rp_session_get(hub, login->identity, key, expires);
    int code = RTPUSH_OK;
    if (!session) return RTPUSH_E_MEMORY;
    r->wire = wire;
    r->began = r->ahead = 0;
    r->last_n = 0;
    r->is_level = true;
    rp_conn_attach(hub, c, session, wire->transport);
    for (uint32_t i = 0; i < server->name_count && !code; i++) {
        rp_source *s = rp_hub_source(hub, server->names[i], &code);
        if (!s) break;
        if (!rp_reader_add(hub, r, s, hub->log.head)) { rp_source_release(hub, s); code = RTPUSH_E_MEMORY; }
        else if (!s->is_pattern && rp_source_topic(s)->has_presence) rp_session_attend(hub, session, server->names[i]);
    }
    if (code) {
        rp_conn_leave(hub, c);
        r->wire = &rp_wire_none;
        return code;
    }
    rp_reader_start(hub, r, start, gap);
    if (gap->is_told) hub->stats.gaps++;
    if (hub->is_leaving) c->drain_at = hub->wheel.now + 1, c->drain_ms = (uint32_t)(server->drain_spread / 2);
    return RTPUSH_OK;
}

// What a late subscription has lost, told in the way of the transport.
static void rp_open_gap(rtpush_hub *hub, rp_conn *c, const rp_gap *gap, const char *topic) {
    hub->stats.gaps++;
    if (c->reader.wire == &rp_wire_envelope) {
        rp_envelope_gap_of(hub, c, gap, topic);
    } else if (c->phase == RP_PHASE_STREAM) {
        rp_buf *buf = rp_hub_text(hub);
        rp_event_gap_text(hub, buf, gap, rp_reader_cursor(hub, &c->reader)); // it moves nothing
        rp_event_send(hub, c, buf);
    } else {
        rp_socket_close(hub, c, 4100, "gap");
    }
}

// A subscription on a connection under way. 0 or a code.
static int rp_open_join(rtpush_hub *hub, rp_conn *c, rtpush_slice name, const rp_start *start, rtpush_slice ref) {
    rp_reader *r = &c->reader;
    rp_replay *replay;
    rp_gap gap;
    rtpush_slice topic;
    char text[RP_TOPIC_MAX + 1];
    int code = RTPUSH_OK;
    if (r->count >= (uint64_t)hub->desc.session_topics_max) return RTPUSH_E_SUBSCRIPTIONS;
    rp_source *s = rp_hub_source(hub, name, &code);
    if (!s) return code;
    memcpy(text, name.data, name.size);
    text[name.size] = 0;
    if ((code = rp_reader_join(hub, r, s, start, ref.size, &gap, &replay)) != RTPUSH_OK) { rp_source_release(hub, s); return code; }
    if (replay && ref.size) memcpy(replay + 1, ref.data, ref.size);
    if (r->ahead) rp_conn_arm(hub, c);
    if (!s->is_pattern && rp_source_topic(s)->has_presence && c->session) rp_session_attend(hub, c->session, name);
    if (gap.is_told) rp_open_gap(hub, c, &gap, text);
    if (rp_conn_is_live(c) && rp_push_is_presence(name, &topic)) rp_push_presence(hub, c, name, rp_reader_cursor(hub, r));
    if (!replay && c->reader.wire == &rp_wire_envelope) rp_envelope_ack(hub, c, ref, "cursor", rp_reader_sub(r, s)->start);
    return RTPUSH_OK;
}

static rp_sub *rp_conn_sub(rtpush_hub *hub, rp_conn *c, rtpush_slice name) {
    rp_source *s = rp_hub_find(hub, name, rp_hub_hash(hub, name));
    return s ? rp_reader_sub(&c->reader, s) : NULL;
}

static void rp_conn_unsubscribe(rtpush_hub *hub, rp_conn *c, rtpush_slice name) {
    rp_sub *sub = rp_conn_sub(hub, c, name);
    if (!sub) return;
    if (c->session) rp_session_unattend(hub, c->session, name);
    rp_reader_part_from(hub, &c->reader, sub);
}

// Is a cursor that this log did not reach in time of another one? With a bus that knows: if it said so since.
static bool rp_reader_is_foreign(const rtpush_hub *hub, const rp_reader *r) {
    return !hub->bus_confirms || (hub->bus_asked_ms + RP_AHEAD_MS >= r->ahead_until && hub->bus_head < r->ahead);
}

// A cursor that this log did not reach in time was of another epoch: its subscriptions begin with what is held.
static void rp_open_give_up_ahead(rtpush_hub *hub, rp_conn *c, rp_gap *gap) {
    rp_reader *r = &c->reader;
    rp_start start;
    memset(&start, 0, sizeof start);
    memset(gap, 0, sizeof *gap);
    start.kind = RP_START_EARLIEST;
    gap->is_told = true;
    for (uint16_t i = 0; i < r->count; i++)
        if (rp_sub_entry(&r->subs[i])->pos > hub->log.head) gap->to = RP_MAX(gap->to, rp_source_lost(r->subs[i].source));
    for (uint16_t i = 0; i < r->count; i++)
        if (rp_sub_entry(&r->subs[i])->pos > hub->log.head) rp_reader_place(hub, r, &r->subs[i], &start, 0, gap);
    gap->reason = "epoch";
    rp_cursor_write(gap->from, hub->log.epoch, r->ahead);
    r->ahead = 0;
    hub->stats.gaps++;
    rp_hub_again(hub, r);
}
#endif // RP_SERVER

// ============================================================================
// >>envelope  what an rtpush.v1 client says  (uses: open, json)
//
// JSON text frames (PROTOCOL §3). Strings are decoded in place: the text is ours. What is
// wrong with one is told in an `error`, and the connection lives.
// ============================================================================
#ifdef RP_SERVER
// The members of what was said, as they stand in its text.
typedef struct rp_said {
    rtpush_slice type, topic, event, data, since, key, ref, token, encoding, ephemeral;
} rp_said;

static void rp_said_read(rp_said *said, rtpush_slice text) {
    static const struct { const char *name; size_t at; } members[] = {
        {"type", offsetof(rp_said, type)}, {"topic", offsetof(rp_said, topic)}, {"event", offsetof(rp_said, event)},
        {"data", offsetof(rp_said, data)}, {"since", offsetof(rp_said, since)}, {"key", offsetof(rp_said, key)},
        {"ref", offsetof(rp_said, ref)}, {"token", offsetof(rp_said, token)}, {"encoding", offsetof(rp_said, encoding)},
        {"ephemeral", offsetof(rp_said, ephemeral)}};
    rtpush_slice name, value;
    memset(said, 0, sizeof *said);
    while (rp_json_member(&text, &name, &value))
        for (size_t i = 0; i < RP_COUNT(members); i++)
            if (rp_slice_equals(name, members[i].name))
                memcpy((char *)said + members[i].at, &value, sizeof value);
}

// A string's value, decoded where it stands in `base` and NUL-terminated (over its closing quote). NULL: not a string.
static char *rp_said_string(char *base, const char *origin, rtpush_slice value, size_t *size) {
    if (!value.size || *value.data != '"') return NULL;
    char *at = base + (value.data - origin) + 1;
    *size = rp_json_unescape(at, rp_slice(at, value.size - 2));
    at[*size] = 0;
    return at;
}

// A name: a string without a NUL. false: neither that nor, where it may be, left out.
static bool rp_said_name(char *base, rtpush_slice value, const char **name, bool may_miss) {
    size_t size = 0;
    *name = NULL;
    if (!value.size || rp_slice_equals(value, "null")) return may_miss;
    *name = rp_said_string(base, base, value, &size);
    return *name && strlen(*name) == size;
}

typedef struct rp_owed_ack {
    uint64_t conn;
    size_t ref_size; // the ref follows
} rp_owed_ack;

static void rp_envelope_published(rtpush_hub *hub, uint64_t ticket, uint64_t seq, int code, void *user) {
    rp_owed_ack *owed = (rp_owed_ack *)user;
    rtpush_slice ref = rp_slice(owed + 1, owed->ref_size);
    rp_conn *c = hub->server ? (rp_conn *)rp_slab_find(&hub->server->conns, owed->conn) : NULL;
    (void)ticket;
    if (c && c->phase == RP_PHASE_SOCKET) {
        if (code) rp_envelope_error(hub, c, ref, rp_http_error_code(rp_reply_status(code)), rp_hub_reason(hub, code));
        else rp_envelope_ack(hub, c, ref, "id", seq);
    }
    rp_mem_free(&hub->mem, owed);
}

static void rp_envelope_refuse(rtpush_hub *hub, rp_conn *c, rtpush_slice ref, int code) {
    rp_envelope_error(hub, c, ref, rp_http_error_code(rp_reply_status(code)), rp_hub_reason(hub, code));
}

// Publishes what a client asked for, after on_publish has seen it. 0: `done` is or will be called. Nothing is taken once
// a drain sends readers away: who has gone would never get it.
static int rp_push_publish(rtpush_hub *hub, rp_session *from, rtpush_publication *what) {
    rtpush_publication asked = *what;
    int code = RTPUSH_OK;
    if (hub->is_leaving) return RTPUSH_E_UNAVAILABLE;
    if (hub->desc.on_publish) code = hub->desc.on_publish(hub, rp_session_handle(from), what, hub->desc.user);
    if (code) return code;
    what->done = asked.done; // the answer goes to who asked, whatever the hook changed
    what->done_user = asked.done_user;
    return rp_publish(hub, what, NULL);
}

static int rp_envelope_data(char *base, const rp_said *said, rtpush_publication *what) {
    size_t size = 0;
    if (!said->data.size) return RTPUSH_E_ARGUMENT;
    what->kind = RTPUSH_JSON;
    what->data = said->data.data;
    what->size = said->data.size;
    char *text = rp_said_string(base, base, said->data, &size);
    if (text) {
        what->kind = RTPUSH_TEXT;
        what->data = text;
        what->size = size;
    }
    if (!said->encoding.size || rp_slice_equals(said->encoding, "null")) return RTPUSH_OK;
    ptrdiff_t n = text && rp_slice_equals(said->encoding, "\"base64\"") ? rp_base64_read(text, text, size) : -1;
    what->kind = RTPUSH_BINARY;
    what->size = (size_t)n;
    return n < 0 ? RTPUSH_E_ARGUMENT : RTPUSH_OK;
}

static void rp_envelope_publish(rtpush_hub *hub, rp_conn *c, char *base, const rp_said *said) {
    rtpush_publication what;
    memset(&what, 0, sizeof what);
    if (!rp_said_name(base, said->topic, &what.topic, false) || !rtpush_is_topic(what.topic, strlen(what.topic), false)) {
        rp_envelope_refuse(hub, c, said->ref, RTPUSH_E_TOPIC);
        return;
    }
    const char *identity = rp_session_identity(c->session);
    int code = rp_auth_may(hub, identity, RTPUSH_VERB_PUBLISH, rp_slice_of(what.topic)) ? RTPUSH_OK : RTPUSH_E_FORBIDDEN;
    if (c->phase != RP_PHASE_SOCKET) return; // closed by on_allow
    if (!code && !rp_said_name(base, said->event, &what.event, true)) code = RTPUSH_E_EVENT;
    if (!code && !rp_said_name(base, said->key, &what.key, true)) code = RTPUSH_E_ARGUMENT;
    if (!code) code = rp_envelope_data(base, said, &what);
    what.identity = identity;
    what.ephemeral = rp_slice_equals(said->ephemeral, "true");
    rp_owed_ack *owed = code ? NULL : (rp_owed_ack *)rp_mem_get(&hub->mem, sizeof *owed + said->ref.size);
    if (!code && !owed) code = RTPUSH_E_MEMORY;
    if (owed) {
        owed->conn = rp_conn_tag(c);
        owed->ref_size = said->ref.size;
        if (said->ref.size) memcpy(owed + 1, said->ref.data, said->ref.size);
        what.done = rp_envelope_published;
        what.done_user = owed;
        code = rp_push_publish(hub, c->session, &what);
    }
    if (!code) return;
    rp_mem_free(&hub->mem, owed);
    rp_envelope_refuse(hub, c, said->ref, code);
}

// `since` as a string or a number.
static bool rp_envelope_since(char *base, rtpush_slice value, rp_start *start) {
    size_t size = 0;
    if (rp_slice_equals(value, "null")) value = rp_slice(NULL, 0);
    const char *text = rp_said_string(base, base, value, &size);
    *start = rp_start_parse(text ? rp_slice(text, size) : value);
    bool is_number = value.size && ((*value.data >= '0' && *value.data <= '9') || *value.data == '-');
    return start->kind != RP_START_BAD && (text || is_number || !value.size);
}

static void rp_envelope_join(rtpush_hub *hub, rp_conn *c, const char *topic, const rp_start *start, rtpush_slice ref) {
    int code = rp_open_join(hub, c, rp_slice_of(topic), start, ref);
    if (code) rp_envelope_refuse(hub, c, ref, code);
}

static void rp_envelope_subscribe(rtpush_hub *hub, rp_conn *c, char *base, const rp_said *said) {
    const char *topic;
    rp_start start;
    int code = RTPUSH_OK;
    if (!rp_said_name(base, said->topic, &topic, false) || !rtpush_is_topic(topic, strlen(topic), true)) code = RTPUSH_E_TOPIC;
    else if (!rp_auth_may(hub, rp_session_identity(c->session), RTPUSH_VERB_READ, rp_slice_of(topic))) code = RTPUSH_E_FORBIDDEN;
    if (c->phase != RP_PHASE_SOCKET) return; // closed by on_allow
    if (code) {}
    else if (!rp_envelope_since(base, said->since, &start)) code = RTPUSH_E_ARGUMENT;
    else if (hub->bus_is_away && rp_start_is_foreign(hub, &start)) code = RTPUSH_E_UNAVAILABLE;
    else if (rp_conn_sub(hub, c, rp_slice_of(topic))) rp_envelope_ack(hub, c, said->ref, "cursor", rp_reader_cursor(hub, &c->reader));
    else if (!hub->fetch || !hub->fetch(hub, rp_slice_of(topic), &start, rp_conn_tag(c), &said->ref)) rp_envelope_join(hub, c, topic, &start, said->ref);
    if (code) rp_envelope_refuse(hub, c, said->ref, code);
}

static void rp_envelope_unsubscribe(rtpush_hub *hub, rp_conn *c, char *base, const rp_said *said) {
    const char *topic;
    if (!rp_said_name(base, said->topic, &topic, false) || !rtpush_is_topic(topic, strlen(topic), true)) {
        rp_envelope_refuse(hub, c, said->ref, RTPUSH_E_TOPIC);
        return;
    }
    rp_conn_unsubscribe(hub, c, rp_slice_of(topic));
    rp_envelope_ack(hub, c, said->ref, NULL, 0);
}

static void rp_open_envelope(rtpush_hub *hub, rp_conn *c, const rp_gap *gap) {
    uint64_t id = rp_push_first_id(hub, &c->reader, gap);
    rp_envelope_hello(hub, c, gap);
    if (gap->is_told && rp_conn_is_live(c)) rp_envelope_gap(hub, &c->reader, gap);
    rp_push_presences(hub, c, id);
    rp_conn_arm(hub, c);
    if (c->session) rp_session_announce(hub, c->session);
}

// The first-message login of a connection that was let in without one: what its target asked for begins now.
static void rp_envelope_let_in(rtpush_hub *hub, rp_conn *c, const rtpush_login *login, rtpush_slice ref) {
    rtpush_head head;
    rp_start start;
    rp_gap gap;
    bool by_tag;
    char key[80];
    memset(&head, 0, sizeof head);
    rtpush_slice rest = rp_slice_of(c->text);
    rp_slice_next(&rest, '?', &head.path);
    head.query = rest.data ? rest : rp_slice("", 0);
    ptrdiff_t key_size = rp_query_find(head.query, "session", key, sizeof key);
    const char *wrong = rp_names_read(hub, head.path, head.query, true);
    int code = wrong || !rp_start_read(&head, false, &start, &by_tag) ? RTPUSH_E_ARGUMENT : RTPUSH_OK;
    for (uint32_t i = 0; i < hub->server->name_count && !code; i++)
        if (!rp_auth_may(hub, login->identity, RTPUSH_VERB_READ, hub->server->names[i])) code = RTPUSH_E_FORBIDDEN;
    if (!code) code = rp_open_reader(hub, c, &rp_wire_envelope, login, rp_slice(key, key_size > 0 ? (size_t)key_size : 0), &start, &gap);
    if (code) { rp_socket_close(hub, c, code == RTPUSH_E_FORBIDDEN ? 4003 : 1011, rtpush_strerror(code)); return; }
    c->is_unknown = false;
    rp_conn_forget_text(hub, &c->text);
    rp_open_envelope(hub, c, &gap);
    if (c->phase == RP_PHASE_SOCKET) rp_envelope_ack(hub, c, ref, NULL, 0);
}

static void rp_envelope_auth(rtpush_hub *hub, rp_conn *c, char *base, const rp_said *said) {
    rtpush_login login;
    size_t size = 0;
    memset(&login, 0, sizeof login);
    char *token = rp_said_string(base, base, said->token, &size);
    if (!token) { rp_envelope_refuse(hub, c, said->ref, RTPUSH_E_ARGUMENT); return; }
    login.token = rp_slice(token, size);
    int code = hub->desc.on_login ? hub->desc.on_login(hub, &login, hub->desc.user) : RTPUSH_OK;
    login.identity[sizeof login.identity - 1] = 0;
    if (c->phase != RP_PHASE_SOCKET) return;
    if (!code && !c->is_unknown && hub->desc.on_login && strcmp(login.identity, rp_session_identity(c->session))) code = RTPUSH_E_FORBIDDEN;
    if (code) {
        rp_socket_close(hub, c, code == RTPUSH_E_FORBIDDEN ? 4003 : 4001, code == RTPUSH_E_FORBIDDEN ? "forbidden" : "unauthorized");
    } else if (c->is_unknown) {
        rp_envelope_let_in(hub, c, &login, said->ref);
    } else {
        if (hub->desc.on_login) c->session->expires = login.expires_ms > 0 ? hub->wheel.now + (uint64_t)login.expires_ms : 0;
        rp_conn_arm(hub, c);
        rp_envelope_ack(hub, c, said->ref, NULL, 0);
    }
}

// A text frame of an envelope connection.
static void rp_envelope_read(rtpush_hub *hub, rp_conn *c, char *text, size_t size) {
    rp_said said;
    const char *begin = rp_json_space(text, text + size);
    if (!rtpush_is_json(text, size) || *begin != '{') {
        rp_envelope_error(hub, c, rp_slice(NULL, 0), "bad_request", "not a JSON object");
        return;
    }
    rp_said_read(&said, rp_slice(begin, size - (size_t)(begin - text)));
    if (said.ref.size > 256) {
        rp_envelope_error(hub, c, rp_slice(NULL, 0), "bad_request", "ref is over 256 bytes");
        return;
    }
    if (rp_slice_equals(said.type, "\"auth\"")) rp_envelope_auth(hub, c, text, &said);
    else if (c->is_unknown) rp_socket_close(hub, c, 4001, "unauthorized");
    else if (rp_slice_equals(said.type, "\"publish\"")) rp_envelope_publish(hub, c, text, &said);
    else if (rp_slice_equals(said.type, "\"subscribe\"")) rp_envelope_subscribe(hub, c, text, &said);
    else if (rp_slice_equals(said.type, "\"unsubscribe\"")) rp_envelope_unsubscribe(hub, c, text, &said);
    else rp_envelope_error(hub, c, said.ref, "bad_request", "no such type: subscribe, unsubscribe, publish, auth");
}
#endif // RP_SERVER

// ============================================================================
// >>route  what a request is: a read, a publish, the library's own pages, the host's  (uses: envelope, reply)
// ============================================================================
#ifdef RP_SERVER
// --- origin (THREATS: cross-site WebSocket hijacking) ---

// host[:port] of an origin or Host field, split; the port is the scheme's where there is none.
static void rp_origin_split(rtpush_slice authority, rtpush_slice *host, rtpush_slice *port) {
    size_t i = authority.size;
    while (i && authority.data[i - 1] >= '0' && authority.data[i - 1] <= '9') i--;
    bool has_port = i && authority.data[i - 1] == ':';
    *host = has_port ? rp_slice(authority.data, i - 1) : authority;
    *port = has_port ? rp_slice_from(authority, i) : rp_slice("", 0);
}

static bool rp_slice_same(rtpush_slice a, rtpush_slice b) {
    if (a.size != b.size) return false;
    for (size_t i = 0; i < a.size; i++)
        if (rp_lower(a.data[i]) != rp_lower(b.data[i])) return false;
    return true;
}

static bool rp_origin_is_own(rtpush_slice origin, rtpush_slice host_field) {
    rtpush_slice host, port, own_host, own_port;
    const char *usual = rp_slice_begins(origin, "https://") ? "443" : "80";
    size_t scheme = rp_slice_begins(origin, "https://") ? 8 : rp_slice_begins(origin, "http://") ? 7 : 0;
    if (!scheme || !host_field.size) return false;
    rp_origin_split(rp_slice_from(origin, scheme), &host, &port);
    rp_origin_split(host_field, &own_host, &own_port);
    if (!port.size) port = rp_slice_of(usual);
    if (!own_port.size) own_port = rp_slice_of(usual);
    return rp_slice_same(host, own_host) && rp_slice_same(port, own_port);
}

enum rp_origin { RP_ORIGIN_WRONG, RP_ORIGIN_OWN, RP_ORIGIN_LISTED };

static enum rp_origin rp_origin_of(const rtpush_hub *hub, const rtpush_head *head) {
    rtpush_slice origin = rp_http_header(head, "origin"), part;
    if (!origin.data) return RP_ORIGIN_OWN; // not a browser
    rtpush_slice list = hub->desc.origin ? rp_slice_of(hub->desc.origin) : rp_slice(NULL, 0);
    while (rp_slice_next(&list, ',', &part)) {
        part = rp_slice_trim(part);
        if (rp_slice_is(part, "*") || (part.size == origin.size && !memcmp(part.data, origin.data, part.size))) return RP_ORIGIN_LISTED;
    }
    return rp_origin_is_own(origin, head->host) ? RP_ORIGIN_OWN : RP_ORIGIN_WRONG;
}

// --- login ---

static void rp_route_token(rtpush_hub *hub, const rtpush_head *head, rtpush_login *login) {
    rtpush_slice authorization = rp_http_header(head, "authorization");
    char *text = hub->server->token_text;
    if (authorization.size > 7 && rp_slice_is(rp_slice(authorization.data, 7), "bearer ")) {
        login->token = rp_slice_trim(rp_slice_from(authorization, 7));
        return;
    }
    ptrdiff_t size = rp_query_find(head->query, "token", text, (size_t)hub->desc.line_max + 1);
    login->token = rp_slice(text, size > 0 ? (size_t)size : 0);
}

static int rp_route_login(rtpush_request *request) {
    rtpush_hub *hub = request->hub;
    rtpush_login *login = &request->login;
    memset(login, 0, sizeof *login);
    if (!hub->desc.on_login) return RTPUSH_OK;
    login->request = request;
    rp_route_token(hub, request->head, login);
    int code = hub->desc.on_login(hub, login, hub->desc.user);
    login->identity[sizeof login->identity - 1] = 0;
    return rtpush_utf8(0, login->identity, strlen(login->identity)) ? RTPUSH_E_UNAUTHORIZED : code;
}

// --- reading ---

static bool rp_accepts_events(const rtpush_head *head) {
    for (size_t i = 0; i < head->count; i++) {
        rtpush_slice list = head->headers[i].value, part, type;
        if (!rp_slice_is(head->headers[i].name, "accept")) continue;
        while (rp_slice_next(&list, ',', &part))
            if (rp_slice_next(&part, ';', &type) && rp_slice_is(rp_slice_trim(type), "text/event-stream")) return true;
    }
    return false;
}

// One Prefer field (RFC 7240 §2): the value of `wait`. -1: it has none.
static int64_t rp_prefer_read(const rtpush_hub *hub, rtpush_slice list) {
    rtpush_slice part, word, name;
    uint64_t seconds;
    while (rp_slice_next(&list, ',', &part)) {
        rp_slice_next(&part, ';', &word);
        rp_slice_next(&word, '=', &name);
        if (!rp_slice_is(rp_slice_trim(name), "wait")) continue;
        if (!word.data) return hub->desc.poll_default_ms;
        word = rp_slice_trim(word);
        if (word.size > 1 && *word.data == '"' && word.data[word.size - 1] == '"') word = rp_slice(word.data + 1, word.size - 2);
        if (rp_slice_number(word, &seconds)) return (int64_t)RP_MIN(seconds, (uint64_t)1000000) * 1000;
    }
    return -1;
}

// RFC 7240 §4.3: Prefer: wait=N, in any of the fields. -1: none.
static int64_t rp_prefer_wait(const rtpush_hub *hub, const rtpush_head *head) {
    int64_t wait_ms = -1;
    for (size_t i = 0; i < head->count && wait_ms < 0; i++)
        if (rp_slice_is(head->headers[i].name, "prefer")) wait_ms = rp_prefer_read(hub, head->headers[i].value);
    return wait_ms;
}

// How long a poll may be held, 0: not at all. false: not a number.
static bool rp_poll_wait_read(rtpush_hub *hub, const rtpush_head *head, int64_t *wait_ms) {
    char text[24];
    uint64_t seconds;
    ptrdiff_t size = rp_query_find(head->query, "wait", text, sizeof text);
    *wait_ms = size == 0 ? hub->desc.poll_default_ms : size < 0 ? rp_prefer_wait(hub, head) : 0;
    if (size == -2) return false;
    if (size > 0) {
        if (!rp_slice_number(rp_slice(text, (size_t)size), &seconds)) return false;
        *wait_ms = (int64_t)RP_MIN(seconds, (uint64_t)1000000) * 1000;
    }
    *wait_ms = RP_MAX(RP_MIN(*wait_ms, hub->desc.poll_max_ms), (int64_t)0);
    *wait_ms -= (int64_t)rp_hub_jitter(hub, (uint64_t)*wait_ms / 10 + 1); // so that a crowd's polls do not end as one
    return true;
}

// Has the presence of any of these topics changed since the cursor that was asked from?
static bool rp_poll_presence_is_new(rtpush_hub *hub, const rp_conn *c, uint64_t cursor) {
    rtpush_slice topic;
    for (uint16_t i = 0; i < c->reader.count; i++) {
        if (!rp_push_is_presence(rp_source_name(c->reader.subs[i].source), &topic)) continue;
        const rp_crowd *crowd = rp_crowd_find(hub, topic);
        if ((crowd ? crowd->changed : hub->people->forgotten) > cursor) return true;
    }
    return false;
}

static bool rp_reads_presence(const rp_conn *c) {
    rtpush_slice topic;
    for (uint16_t i = 0; i < c->reader.count; i++)
        if (rp_push_is_presence(rp_source_name(c->reader.subs[i].source), &topic)) return true;
    return false;
}

static void rp_poll_not_modified(rtpush_hub *hub, rp_conn *c) {
    char extra[96];
    rp_poll_extra(hub, extra, RP_MAX(hub->log.head, c->reader.ahead));
    hub->stats.polls_empty++;
    rp_conn_leave(hub, c);
    c->reader.wire = &rp_wire_none;
    rp_reply_whole(hub, c, 304, NULL, rp_slice_of(extra), rp_slice(NULL, 0));
}

// A poll has begun: answered at once, or parked.
static void rp_route_poll(rtpush_hub *hub, rp_conn *c, rp_gap *gap, bool has_cursor, bool by_tag, int64_t wait_ms) {
    rp_poll_answer answer;
    rp_reader *r = &c->reader;
    bool reads_presence = rp_reads_presence(c);
    bool is_changed = reads_presence && (!has_cursor || rp_poll_presence_is_new(hub, c, gap->start));
    if (wait_ms <= 0) c->session->transport = RTPUSH_SHORT_POLL;
    if (c->session) rp_session_announce(hub, c->session);
    if (c->phase != RP_PHASE_HEAD || r->wire != &rp_wire_poll) return;
    rp_poll_gap(hub, r, gap); // on_open may have dropped what it came for
    rp_poll_answer_init(&answer, gap);
    if (c->session->is_ending) { rp_poll_reply(hub, c, &answer, true); return; } // closed by on_open
    answer.has_here = reads_presence && (is_changed || (wait_ms <= 0 && !by_tag));
    bool has_any = gap->is_told || answer.has_here;
    if (!has_any && rp_reader_is_behind(r)) {
        rp_scan scan;
        rp_scan_begin(&scan, hub, r);
        has_any = rp_scan_next(&scan) != NULL;
        if (!has_any) rp_reader_level(hub, r);
    }
    if (hub->is_leaving) answer.reconnect_ms = (int64_t)(hub->server->drain_spread / 2);
    if (has_any || (wait_ms <= 0 && !r->ahead) || hub->is_leaving) {
        if (!has_any && by_tag && wait_ms <= 0) rp_poll_not_modified(hub, c);
        else rp_poll_reply(hub, c, &answer, true);
        return;
    }
    rp_conn_enter(hub, c, RP_PHASE_PARKED);
    c->due = hub->wheel.now + (uint64_t)(wait_ms > 0 ? wait_ms : RP_AHEAD_MS + 100);
    rp_conn_arm(hub, c);
}

static enum rp_events rp_events_asked(const rtpush_head *head) {
    char text[16];
    if (rp_query_find(head->query, "events", text, sizeof text) < 0) return RP_EVENTS_PLAIN;
    return !strcmp(text, "topic") ? RP_EVENTS_TOPIC : !strcmp(text, "envelope") ? RP_EVENTS_ENVELOPE : RP_EVENTS_PLAIN;
}

static const rp_wire *rp_events_wire(const rp_conn *c) {
    if (!c->is_http11 || c->events == RP_EVENTS_TOPIC) return &rp_wire_event_own;
    return c->events == RP_EVENTS_ENVELOPE ? &rp_wire_event_envelope : &rp_wire_event;
}

static void rp_route_events(rtpush_hub *hub, rp_conn *c, const rp_gap *gap) {
    static const char extra[] = "Cache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\nRtpush-Events: envelope\r\n";
    size_t size = c->events == RP_EVENTS_ENVELOPE ? strlen(extra) : strlen(extra) - strlen("Rtpush-Events: envelope\r\n");
    rp_buf *own = rp_conn_own(hub, c);
    if (!own) return;
    uint64_t id = rp_push_first_id(hub, &c->reader, gap);
    rp_reply_head(hub, c, own, 200, "text/event-stream", rp_slice(extra, size), RP_LENGTH_CHUNKED);
    rp_conn_enter(hub, c, RP_PHASE_STREAM);
    c->since = c->beat = hub->wheel.now;
    rp_event_hello(hub, c, gap);
    if (rp_conn_is_live(c)) rp_push_presences(hub, c, id);
    rp_conn_arm(hub, c);
    if (c->session) rp_session_announce(hub, c->session);
}

// --- the WebSocket handshake (RFC 6455 §4.2) ---

static rtpush_slice rp_http_header_once(const rtpush_head *head, const char *name) {
    rtpush_slice found = rp_slice(NULL, 0);
    for (size_t i = 0; i < head->count; i++) {
        if (!rp_slice_is(head->headers[i].name, name)) continue;
        if (found.data) return rp_slice(NULL, 0); // twice: as if not there
        found = head->headers[i].value;
    }
    return found;
}

static bool rp_offers_envelope(const rtpush_head *head) {
    for (size_t i = 0; i < head->count; i++) {
        rtpush_slice list = head->headers[i].value, part;
        if (!rp_slice_is(head->headers[i].name, "sec-websocket-protocol")) continue;
        while (rp_slice_next(&list, ',', &part)) {
            part = rp_slice_trim(part);
            if (rp_slice_equals(part, "rtpush.v1")) return true;
        }
    }
    return false;
}

// true: it is a handshake that can be answered with a 101; else it is refused.
static bool rp_handshake_is_good(rtpush_hub *hub, rp_conn *c, const rtpush_head *head) {
    rtpush_slice version = rp_http_header_once(head, "sec-websocket-version");
    if (!version.data || !rp_slice_is(version, "13")) {
        c->keeps = false;
        rp_reply_error(hub, c, 426, "this server speaks WebSocket version 13", "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n");
        return false;
    }
    if (rp_ws_is_key(rp_http_header_once(head, "sec-websocket-key")) && !head->has_length && !head->is_chunked) return true;
    rp_reply_refuse(hub, c, 400, "a handshake needs one Sec-WebSocket-Key of 16 bytes in base64, and no body");
    return false;
}

static void rp_handshake_answer(rtpush_hub *hub, rp_conn *c, const rtpush_head *head, bool is_envelope, const rp_gap *gap) {
    char extra[256] = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ", to[RP_CURSOR_MAX];
    size_t n = strlen(extra);
    rp_ws_accept(extra + n, rp_http_header_once(head, "sec-websocket-key"));
    n += 28;
    n += (size_t)snprintf(extra + n, sizeof extra - n, "\r\n%s", is_envelope ? "Sec-WebSocket-Protocol: rtpush.v1\r\n" : "");
    if (gap && gap->is_told && !is_envelope)
        snprintf(extra + n, sizeof extra - n, "Rtpush-Gap: %s %s %s\r\n", *gap->from ? gap->from : "-", rp_hub_cursor(hub, to, gap->to), gap->reason);
    rp_buf *own = rp_conn_own(hub, c);
    if (!own) return;
    rp_reply_head(hub, c, own, 101, NULL, rp_slice_of(extra), RP_LENGTH_NONE);
    rp_conn_enter(hub, c, RP_PHASE_SOCKET);
    rp_conn_forget_text(hub, &c->text);
    c->since = c->beat = hub->wheel.now;
    rp_conn_arm(hub, c);
}

// Let in without a login, to send its token as the first message.
static void rp_route_unknown(rtpush_hub *hub, rp_conn *c, const rtpush_head *head) {
    rtpush_slice whole = rp_slice(head->path.data, head->path.size + (head->query.data ? head->query.size + 1 : 0));
    c->is_unknown = true;
    c->reader.wire = &rp_wire_envelope;
    rp_handshake_answer(hub, c, head, true, NULL);
    c->text = rp_mem_text(&hub->mem, whole);
    if (!c->text) rp_conn_drop(hub, c, 1011);
}

// Whether its epoch is another one, or ours is over, cannot be seen now: the client is to come again, or to another node.
static void rp_route_refuse_foreign(rtpush_hub *hub, rp_conn *c, bool is_events) {
    if (!is_events) rp_reply_code(hub, c, RTPUSH_E_UNAVAILABLE);
    else rp_reply_whole(hub, c, 200, "text/event-stream", rp_slice_of("Cache-Control: no-cache, no-transform\r\n"), rp_slice_of("retry: 1000\n\n"));
}

// Has the bus something that this reader needs and the memory does not have? For each name once: then it goes on with
// what there is.
static bool rp_route_is_held(rtpush_hub *hub, rp_conn *c, const rp_start *start) {
    for (uint32_t i = 0; i < hub->server->name_count && hub->fetch && c->holds < hub->server->name_count; i++)
        c->is_held |= hub->fetch(hub, hub->server->names[i], start, rp_conn_tag(c), NULL);
    return c->is_held;
}

// A GET under the mount.
static void rp_route_read(rtpush_request *request) {
    rtpush_hub *hub = request->hub;
    rp_conn *c = request->conn;
    const rtpush_head *head = request->head;
    bool is_socket = head->wants_websocket, is_envelope = is_socket && rp_offers_envelope(head);
    bool is_events = !is_socket && rp_accepts_events(head), by_tag;
    char key[80];
    int64_t wait_ms = 0;
    rp_start start;
    rp_gap gap;
    ptrdiff_t key_size = rp_query_find(head->query, "session", key, sizeof key);
    const char *wrong = rp_names_read(hub, head->path, head->query, true);
    if (!wrong && !hub->server->name_count && !is_envelope) wrong = "no topic is named";
    if (!wrong && !rp_session_key_is_asked(key, key_size)) wrong = rp_session_key_rule;
    if (!wrong && !rp_start_read(head, !is_socket && !is_events, &start, &by_tag)) wrong = "since is a cursor, a number, latest, earliest or -N";
    if (!wrong && !is_socket && !is_events && !rp_poll_wait_read(hub, head, &wait_ms)) wrong = "wait is a number of seconds";
    if (wrong) { rp_reply_error(hub, c, 400, wrong, ""); return; }
    if (c->is_head) wait_ms = 0;
    if (hub->server->is_draining && rp_start_is_foreign(hub, &start)) {
        rp_conn_finish(hub, c); // it has been at our successor: it is to go there again, not to read our log once more (RFC 9112 §9.3.1)
        return;
    }
    for (uint32_t i = 0; i < hub->server->name_count; i++)
        if (!rp_auth_may(hub, request->login.identity, RTPUSH_VERB_READ, hub->server->names[i])) { rp_reply_code(hub, c, RTPUSH_E_FORBIDDEN); return; }
    if (c->is_head && is_events) {
        rp_reply_whole(hub, c, 200, "text/event-stream", rp_slice_of("Cache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\n"), rp_slice(NULL, 0));
        return;
    }
    if (start.kind == RP_START_NONE && !is_socket && !is_events && wait_ms <= 0) start.kind = RP_START_EARLIEST;
    if (rp_route_is_held(hub, c, &start)) return;
    if (hub->bus_is_away && rp_start_is_foreign(hub, &start)) { rp_route_refuse_foreign(hub, c, is_events); return; }
    c->events = (uint8_t)rp_events_asked(head);
    const rp_wire *wire = is_envelope ? &rp_wire_envelope : is_socket ? &rp_wire_raw : !is_events ? &rp_wire_poll : rp_events_wire(c);
    bool has_cursor = start.kind >= RP_START_SEQ;
    int code = rp_open_reader(hub, c, wire, &request->login, rp_slice(key, key_size > 0 ? (size_t)key_size : 0), &start, &gap);
    if (code) { rp_reply_code(hub, c, code); return; }
    if (is_socket) rp_handshake_answer(hub, c, head, is_envelope, &gap);
    if (c->phase == RP_PHASE_DEAD) return;
    if (is_envelope) { rp_open_envelope(hub, c, &gap); return; }
    if (is_socket) {
        rp_push_presences(hub, c, rp_push_first_id(hub, &c->reader, &gap));
        if (c->session) rp_session_announce(hub, c->session);
    } else if (is_events) {
        rp_route_events(hub, c, &gap);
    } else {
        rp_route_poll(hub, c, &gap, has_cursor, by_tag, wait_ms);
    }
}

// --- publishing by POST ---

typedef struct rp_owed_reply {
    uint64_t conn;
    size_t subscribers; // when it was published: a poll that gets it parks no longer when a bus has answered
    char topic[1];
} rp_owed_reply;

static size_t rp_hub_subscribers(rtpush_hub *hub, rtpush_slice name) {
    if (hub->hooks) return hub->hooks->subscribers(hub, name);
    rp_topic *t = rp_hub_find_topic(hub, name);
    size_t count = t ? t->source.count : 0;
    if (t)
        for (uint32_t i = 0; i < t->source.link_count; i++) count += t->source.links[i]->count;
    else
        for (uint32_t i = 0; i < hub->pattern_count; i++)
            if (rp_topic_matches(rp_source_name(hub->patterns[i]), name)) count += hub->patterns[i]->count;
    return count;
}

// The connection that still waits for this; NULL: it has gone, or has its answer now, which is an error.
static rp_conn *rp_post_conn(rtpush_hub *hub, const rp_owed_reply *owed, int code) {
    rp_conn *c = hub->server ? (rp_conn *)rp_slab_find(&hub->server->conns, owed->conn) : NULL;
    if (!c || c->phase != RP_PHASE_WAIT) return NULL;
    if (code) rp_reply_code(hub, c, code);
    return code ? NULL : c;
}

static void rp_post_cleared(rtpush_hub *hub, uint64_t ticket, uint64_t seq, int code, void *user) {
    rp_conn *c = rp_post_conn(hub, (rp_owed_reply *)user, code);
    (void)ticket, (void)seq;
    if (c) rp_reply_whole(hub, c, 204, NULL, rp_slice(NULL, 0), rp_slice(NULL, 0));
    rp_mem_free(&hub->mem, user);
}

static void rp_post_published(rtpush_hub *hub, uint64_t ticket, uint64_t seq, int code, void *user) {
    rp_owed_reply *owed = (rp_owed_reply *)user;
    rp_conn *c = rp_post_conn(hub, owed, code);
    (void)ticket;
    if (c) {
        size_t count = RP_MAX(owed->subscribers, rp_hub_subscribers(hub, rp_slice_of(owed->topic)));
        rp_buf *buf = rp_hub_text(hub);
        rp_buf_text(&hub->mem, buf, "{\"id\":\"");
        rp_spell_cursor(hub, buf, seq);
        rp_buf_text(&hub->mem, buf, "\",\"topic\":");
        rp_json_text(&hub->mem, buf, owed->topic);
        rp_buf_text(&hub->mem, buf, ",\"subscribers\":");
        rp_buf_number(&hub->mem, buf, count);
        rp_buf_text(&hub->mem, buf, "}\n");
        if (buf->is_broken) rp_conn_drop(hub, c, 1011);
        else rp_reply_whole(hub, c, count ? 201 : 202, "application/json", rp_slice(NULL, 0), rp_buf_slice(buf));
    }
    rp_mem_free(&hub->mem, owed);
}

// PROTOCOL §4: what a Content-Type makes of a body.
static int rp_post_kind(const rtpush_head *head) {
    rtpush_slice field = rp_http_header(head, "content-type"), type;
    if (!field.size) return RTPUSH_TEXT;
    rp_slice_next(&field, ';', &type);
    type = rp_slice_trim(type);
    if (rp_slice_is(type, "application/json")) return RTPUSH_JSON;
    if (type.size > 5 && rp_slice_is(rp_slice_from(type, type.size - 5), "+json")) return RTPUSH_JSON;
    if (type.size > 5 && rp_slice_is(rp_slice(type.data, 5), "text/")) return RTPUSH_TEXT;
    return rp_slice_is(type, "application/x-www-form-urlencoded") ? RTPUSH_TEXT : RTPUSH_BINARY;
}

// The one topic that a publish or DELETE names, NUL-terminated. NULL: it is refused.
static const char *rp_route_topic(rtpush_request *request, int verb) {
    rtpush_hub *hub = request->hub;
    char key[80];
    ptrdiff_t key_size = rp_query_find(request->head->query, "session", key, sizeof key);
    const char *wrong = rp_names_read(hub, request->head->path, request->head->query, false);
    if (!wrong && hub->server->name_count != 1) wrong = "name exactly one topic";
    if (!wrong && !rp_session_key_is_asked(key, key_size)) wrong = rp_session_key_rule;
    if (wrong) { rp_reply_error(hub, request->conn, 400, wrong, ""); return NULL; }
    rtpush_slice name = hub->server->names[0];
    if (!rp_auth_may(hub, request->login.identity, verb, name)) { rp_reply_code(hub, request->conn, RTPUSH_E_FORBIDDEN); return NULL; }
    hub->server->names_text[(name.data - hub->server->names_text) + (ptrdiff_t)name.size] = 0;
    return name.data;
}

// The request waits for the end of what it asks for.
static void rp_route_hand_over(rtpush_request *request, rp_session *from, rtpush_publication *what) {
    rtpush_hub *hub = request->hub;
    rp_conn *c = request->conn;
    rp_owed_reply *owed = (rp_owed_reply *)rp_mem_get(&hub->mem, sizeof *owed + strlen(what->topic));
    if (!owed) { rp_reply_code(hub, c, RTPUSH_E_MEMORY); return; }
    owed->conn = rp_conn_tag(c);
    owed->subscribers = hub->desc.bus ? rp_hub_subscribers(hub, rp_slice_of(what->topic)) : 0;
    memcpy(owed->topic, what->topic, strlen(what->topic));
    what->done = what->clear ? rp_post_cleared : rp_post_published;
    what->done_user = owed;
    rp_conn_enter(hub, c, RP_PHASE_WAIT);
    int code = what->clear ? rp_publish(hub, what, NULL) : rp_push_publish(hub, from, what);
    if (!code) return;
    rp_mem_free(&hub->mem, owed);
    if (c->phase == RP_PHASE_WAIT) rp_reply_code(hub, c, code);
}

static void rp_route_publish(rtpush_request *request) {
    rtpush_hub *hub = request->hub;
    rp_conn *c = request->conn;
    rtpush_publication what;
    char event[RP_TOPIC_MAX + 1], key[RP_TOPIC_MAX + 1], flag[8], session[80];
    memset(&what, 0, sizeof what);
    if (!(what.topic = rp_route_topic(request, RTPUSH_VERB_PUBLISH))) return;
    rtpush_slice idempotency = rp_http_header(request->head, "idempotency-key");
    ptrdiff_t event_size = rp_query_find(request->head->query, "event", event, sizeof event);
    ptrdiff_t session_size = rp_query_find(request->head->query, "session", session, sizeof session);
    if (event_size == -2 || idempotency.size >= sizeof key) { rp_reply_error(hub, c, 400, "event or Idempotency-Key is too long", ""); return; }
    memcpy(key, idempotency.size ? idempotency.data : "", idempotency.size);
    key[idempotency.size] = 0;
    what.event = event_size > 0 ? event : NULL;
    what.data = request->body.data;
    what.size = request->body.size;
    what.kind = rp_post_kind(request->head);
    what.key = key;
    what.identity = request->login.identity;
    what.ephemeral = rp_query_find(request->head->query, "ephemeral", flag, sizeof flag) == 1 && *flag == '1';
    rp_session *from = session_size > 0 ? rp_session_named(hub, request->login.identity, rp_slice(session, (size_t)session_size)) : NULL;
    rp_route_hand_over(request, from, &what);
}

static void rp_route_delete(rtpush_request *request) {
    rtpush_publication what;
    memset(&what, 0, sizeof what);
    if (!(what.topic = rp_route_topic(request, RTPUSH_VERB_DELETE))) return;
    what.clear = true;
    rp_route_hand_over(request, NULL, &what);
}

static const char rp_mount_methods[] = "Allow: GET, HEAD, POST, DELETE, OPTIONS\r\n";

static void rp_route_options(rtpush_request *request, bool is_listed) {
    char extra[400];
    snprintf(extra, sizeof extra, "%s%s", rp_mount_methods, !is_listed ? "" :
             "Access-Control-Allow-Methods: GET, HEAD, POST, DELETE\r\n"
             "Access-Control-Allow-Headers: Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, Prefer\r\n"
             "Access-Control-Max-Age: 86400\r\n");
    rp_reply_whole(request->hub, request->conn, 204, NULL, rp_slice_of(extra), rp_slice(NULL, 0));
}

// A request under the mount: its origin, its method, who asks, then what.
static void rp_route_mount(rtpush_request *request) {
    rtpush_hub *hub = request->hub;
    rp_conn *c = request->conn;
    const rtpush_head *head = request->head;
    rtpush_slice method = head->method;
    enum rp_origin origin = rp_origin_of(hub, head);
    bool is_get = rp_slice_equals(method, "GET") || c->is_head;
    bool is_post = rp_slice_equals(method, "POST"), is_delete = rp_slice_equals(method, "DELETE");
    if (origin == RP_ORIGIN_WRONG) { rp_reply_error(hub, c, 403, "this origin is not allowed here (origin)", "Vary: Origin\r\n"); return; }
    if (origin == RP_ORIGIN_LISTED && !(c->text = rp_mem_text(&hub->mem, rp_http_header(head, "origin")))) { rp_conn_drop(hub, c, 1011); return; }
    if (rp_slice_equals(method, "OPTIONS")) { rp_route_options(request, origin == RP_ORIGIN_LISTED); return; }
    if (!is_get && !is_post && !is_delete) { rp_reply_error(hub, c, 405, "GET, HEAD, POST, DELETE and OPTIONS are answered here", rp_mount_methods); return; }
    if (head->wants_websocket && !rp_handshake_is_good(hub, c, head)) return;
    if (is_get && !head->wants_websocket && rp_http_header(head, "sec-websocket-key").data) {
        rp_reply_refuse(hub, c, 400, "a handshake is a GET of HTTP/1.1 with Connection: Upgrade and Upgrade: websocket");
        return;
    }
    int code = rp_route_login(request);
    if (c->phase != RP_PHASE_HEAD) return;
    bool has_token = request->login.token.size || rp_http_header(head, "authorization").data;
    if (code == RTPUSH_E_UNAUTHORIZED && head->wants_websocket && rp_offers_envelope(head) && !has_token) rp_route_unknown(hub, c, head);
    else if (code) rp_reply_code(hub, c, code == RTPUSH_E_FORBIDDEN ? code : RTPUSH_E_UNAUTHORIZED);
    else if (is_get) rp_route_read(request);
    else if (is_post) rp_route_publish(request);
    else rp_route_delete(request);
}
#endif // RP_SERVER

// ============================================================================
// >>script  the browser client, as tools/rtpush.js has it  (uses: reply)
//
// tools/embed.sh writes it: edit the file, not this.
// ============================================================================
#ifdef RP_SERVER
// <script>
static const char rp_script_tag[] = "\"1002628841-34072\"";
static const char *const rp_script[] = {
    "// rtpush.js: the browser client of rtpush. Public domain (UNLICENSE). ES2017. Options: rtpush.d.ts.\n",
    "//\n",
    "//   <script src=\"/rtpush.js\"></script> or import \"/rtpush.js\"     sets the global `rtpush`; CommonJS: require\n",
    "//   const live = rtpush(\"/live\"), off = live.subscribe(\"chat/general\", m => show(m.data), { since: \"-20\" });\n",
    "//\n",
    "// One cursor serves all topics and transports. A browser opens six HTTP/1.1 connections to a host: more streams or\n",
    "// held polls would freeze the site. So tabs share one (Web Lock, BroadcastChannel). Tabs that do not (plain http:, old\n",
    "// browsers, `token` without `share`) use WebSocket, which is not among the six, or short polls.\n",
    "(function (root) {\n",
    "\"use strict\";\n",
    "\n",
    "const DEFAULTS = {\n",
    "  transports: [\"websocket\", \"sse\", \"longpoll\", \"shortpoll\"],\n",
    "  WebSocket: root.WebSocket,\n",
    "  fetch: (url, init) => root.fetch(url, init),\n",
    "  locks: root.navigator && root.navigator.locks,\n",
    "  BroadcastChannel: root.BroadcastChannel,\n",
    "  since: \"\",\n",
    "  credentials: \"same-origin\",\n",
    "  backoff: 500, backoffMax: 30000, stable: 10000, remember: 300000, publishWithin: 100000,\n",
    "  firstByte: 5000, timeout: 10000, wait: 25, interval: 3000,\n",
    "};\n",
    "\n",
    "// Is cursor a at or before b, of one epoch? A seq has 64 bits, so it is compared as text.\n",
    "function isBehind(a, b) {\n",
    "  const [epoch, x] = a.split(\"-\"), [other, y] = b.split(\"-\");\n",
    "  return epoch === other && (x.length < y.length || (x.length === y.length && x <= y));\n",
    "}\n",
    "\n",
    "const isAhead = (a, b) => a !== b && isBehind(b, a);\n",
    "\n",
    "function random() {\n",
    "  let text = \"\";\n",
    "  while (text.length < 24) text += Math.random().toString(36).slice(2);\n",
    "  return text.slice(0, 24);\n",
    "}\n",
    "\n",
    "const fromBase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));\n",
    "\n",
    "const isBytes = (data) => data instanceof ArrayBuffer || ArrayBuffer.isView(data);\n",
    "\n",
    "function matches(pattern, topic) {\n",
    "  const prefix = pattern.replace(/\\*+$/, \"\"), rest = topic.slice(prefix.length);\n",
    "  if (prefix === pattern || !topic.startsWith(prefix) || !rest || (!prefix && topic[0] === \"@\")) return false;\n",
    "  return pattern.endsWith(\"**\") || !rest.includes(\"/\");\n",
    "}\n",
    "\n",
    "const isPresence = (topic) => topic.startsWith(\"@presence/\");\n",
    "// Who is here now: its id is the reader's own cursor.\n",
    "const isSnapshot = (m) => isPresence(m.topic) && !!m.data && !m.data.join && !m.data.leave;\n",
    "\n",
    "function refusal(reason, more) {\n",
    "  return Object.assign(new Error(reason), more);\n",
    "}\n",
    "\n",
    "const isFinal = ({ status }, tries) => status < 500 && status !== 429 && (status !== 401 || tries > 2);\n",
    "\n",
    "// A transport tells its link: alive (bytes came), opened (it works), lost (it is over).\n",
    "class Transport {\n",
    "  constructor(link, name) {\n",
    "    Object.assign(this, { link, live: link.live, name, job: new AbortController() });\n",
    "    Promise.resolve().then(() => this.isDead || this.run()).catch((error) => error).then((error) => link.lost(this, error));\n",
    "  }\n",
    "\n",
    "  // Nothing comes: it does not work here.\n",
    "  limitFirst() {\n",
    "    this.timer = this.live.later(() => this.isOpen || this.link.lost(this), this.live.options.firstByte);\n",
    "  }\n",
    "\n",
    "  // What the envelope says, by either.\n",
    "  told(m) {\n",
    "    const { live, link } = this;\n",
    "    link.alive(this);\n",
    "    if (m.type === \"message\" || m.type === \"gap\") live.take([m], \"\");\n",
    "    else if (m.type === \"heartbeat\") live.take([], m.cursor);\n",
    "    else if (m.type === \"reconnect\") link.lost(this, { delay: m.after });\n",
    "    else if (m.type === \"hello\") {\n",
    "      this.limit = 2 * m.heartbeat;\n",
    "      if (!live.cursor) live.take([], m.cursor);\n",
    "      link.opened(this);\n",
    "    } else if (this.refs) this.answered(m);\n",
    "  }\n",
    "\n",
    "  hasOtherTopics() {\n",
    "    const wanted = this.live.wanted(), topics = this.topics || wanted;\n",
    "    return wanted.size !== topics.size || [...wanted].some((topic) => !topics.has(topic));\n",
    "  }\n",
    "\n",
    "  close() {\n",
    "    this.isDead = true;\n",
    "    this.live.cancel(this.timer);\n",
    "    this.job.abort();\n",
    "    if (this.ws) this.ws.close();\n",
    "  }\n",
    "}\n",
    "\n",
    "// rtpush.v1. Topics that were joined go into the URL, to go on at the cursor; new ones are subscribed to.\n",
    "class Socket extends Transport {\n",
    "  async run() {\n",
    "    Object.assign(this, { asked: new Set(), refs: new Map(), ref: 0 });\n",
    "    const live = this.live, token = await live.token();\n",
    "    if (this.isDead) return null;\n",
    "    for (const topic of live.wanted()) if (live.joined.has(topic)) this.asked.add(topic);\n",
    "    const url = live.address(this.asked, { since: live.cursor }).replace(/^http/, \"ws\");\n",
    "    this.ws = new live.options.WebSocket(url, [\"rtpush.v1\"]);\n",
    "    this.limitFirst();\n",
    "    this.ws.onopen = () => { if (token !== undefined) this.say({ type: \"auth\", token }); };\n",
    "    this.ws.onmessage = (e) => { if (!this.isDead) this.told(JSON.parse(e.data)); };\n",
    "    this.ws.onerror = () => {};\n",
    "    return new Promise((ended) => { this.ws.onclose = (e) => ended(this.closed(e)); });\n",
    "  }\n",
    "\n",
    "  say(o, answer) {\n",
    "    if (answer) this.refs.set(o.ref = ++this.ref, answer);\n",
    "    this.ws.send(JSON.stringify(o));\n",
    "  }\n",
    "\n",
    "  answered(m) {\n",
    "    const answer = this.refs.get(m.ref);\n",
    "    this.refs.delete(m.ref);\n",
    "    if (answer) answer(m);\n",
    "    else if (m.type === \"error\") this.live.emit(\"error\", refusal(m.reason, { code: m.code }));\n",
    "  }\n",
    "\n",
    "  update() {\n",
    "    const wanted = this.live.wanted();\n",
    "    if (!this.isOpen) return;\n",
    "    for (const topic of this.asked) if (!wanted.has(topic)) this.asked.delete(topic), this.say({ type: \"unsubscribe\", topic });\n",
    "    for (const topic of wanted) if (!this.asked.has(topic)) this.subscribe(topic);\n",
    "  }\n",
    "\n",
    "  subscribe(topic) {\n",
    "    this.asked.add(topic);\n",
    "    this.say({ type: \"subscribe\", topic }, (m) => m.type === \"error\" ? this.live.refused(topic, m) : this.live.join(topic, m.cursor));\n",
    "  }\n",
    "\n",
    "  publish({ topic, event, data = \"\", key, ephemeral }, answer) {\n",
    "    this.say({ type: \"publish\", topic, event, data, key, ephemeral }, answer);\n",
    "  }\n",
    "\n",
    "  renew(token) {\n",
    "    if (this.isOpen) this.say({ type: \"auth\", token }, () => {});\n",
    "  }\n",
    "\n",
    "  closed({ code, reason }) {\n",
    "    const retry = /^retry=(\\d+)/.exec(reason), kind = Math.floor(code / 100), isExpired = code === 4001;\n",
    "    return refusal(reason || \"closed\", { code, status: isExpired ? 401 : 0, isFatal: kind === 40 && !isExpired,\n",
    "      delay: retry ? +retry[1] : kind === 42 ? 0 : undefined });\n",
    "  }\n",
    "}\n",
    "\n",
    "// The first long poll is held for a second only.\n",
    "class Poller extends Transport {\n",
    "  async run() {\n",
    "    const live = this.live, isLong = this.name === \"longpoll\";\n",
    "    while (!this.isDead) {\n",
    "      const topics = live.wanted(), at = live.cursor;\n",
    "      if (this.isOpen) for (const topic of topics) live.join(topic, at);\n",
    "      this.topics = topics;\n",
    "      this.isAgain = false;\n",
    "      this.job = new AbortController();\n",
    "      const wait = !isLong ? 0 : this.isOpen ? live.options.wait : 1;\n",
    "      const body = await live.poll(topics, at || \"latest\", wait, this.job)\n",
    "        .catch((error) => { if (!this.isAgain) throw error; });\n",
    "      if (this.isDead) break;\n",
    "      if (!body) continue;\n",
    "      live.take(body.items, body.cursor);\n",
    "      if (!this.isOpen) this.link.opened(this);\n",
    "      if (body.reconnect !== undefined) return { delay: body.reconnect };\n",
    "      if (!isLong && !body.more && !this.isAgain) await new Promise((wake) => { this.wake = wake; this.timer = live.later(wake, live.options.interval); });\n",
    "    }\n",
    "    return null;\n",
    "  }\n",
    "\n",
    "  update() {\n",
    "    if (!this.hasOtherTopics()) return;\n",
    "    this.isAgain = true;\n",
    "    this.job.abort();\n",
    "    if (this.wake) this.wake();\n",
    "  }\n",
    "}\n",
    "\n",
    "// SSE with the envelope in it, read by fetch: an EventSource would show neither heartbeats nor refusals, nor send a token.\n",
    "class Stream extends Transport {\n",
    "  async run() {\n",
    "    const { live, job } = this, topics = this.topics = live.wanted();\n",
    "    this.limitFirst();\n",
    "    const init = await live.init({ Accept: \"text/event-stream\" });\n",
    "    const url = live.address(topics, { events: \"envelope\", since: live.cursor || \"latest\" });\n",
    "    const r = await live.options.fetch(url, Object.assign(init, { signal: job.signal }));\n",
    "    if (!r.ok) throw live.refusalOf(r, await r.text());\n",
    "    if (!/^text\\/event-stream/.test(r.headers.get(\"content-type\"))) throw refusal(\"no event stream\");\n",
    "    const reader = r.body.getReader(), decoder = new TextDecoder();\n",
    "    this.block = {};\n",
    "    for (let rest = \"\"; ;) {\n",
    "      const { value, done } = await reader.read();\n",
    "      if (done) return;\n",
    "      this.link.alive(this);\n",
    "      const lines = (rest + decoder.decode(value, { stream: true })).split(/\\r?\\n/);\n",
    "      rest = lines.pop();\n",
    "      for (const line of lines) this.isDead || this.line(line);\n",
    "    }\n",
    "  }\n",
    "\n",
    "  // A block without data is a heartbeat: its id says how far all has come.\n",
    "  line(line) {\n",
    "    const [, field, value] = /^(\\w+): ?([^]*)/.exec(line) || [], { id, event, data } = this.block;\n",
    "    if (field) this.block[field] = value;\n",
    "    if (line) return;\n",
    "    this.block = {};\n",
    "    if (data) this.told(Object.assign({ type: event }, JSON.parse(data)));\n",
    "    else if (id) this.told({ type: \"heartbeat\", cursor: id });\n",
    "  }\n",
    "\n",
    "  update() {\n",
    "    if (this.hasOtherTopics()) this.isOpen ? this.link.challenge(\"sse\") : this.link.again();\n",
    "  }\n",
    "}\n",
    "\n",
    "// A round goes down the list. If nothing works, the server is away; if a lower one works, those above are passed over.\n",
    "class Link {\n",
    "  constructor(live) {\n",
    "    Object.assign(this, { live, current: null, list: [], index: 0, tries: 0, denied: 0, failed: {}, key: `rtpush ${live.url}` });\n",
    "    try { Object.assign(this.failed, JSON.parse(root.sessionStorage[this.key])); } catch (e) { /* nothing there */ }\n",
    "  }\n",
    "\n",
    "  update() {\n",
    "    const live = this.live, wanted = live.wanted();\n",
    "    for (const topic of live.joined.keys()) if (!wanted.has(topic)) live.joined.delete(topic);\n",
    "    if (live.isPaused) return;\n",
    "    if (!wanted.size && !(this.current instanceof Socket)) {\n",
    "      this.stop();\n",
    "      return live.setState(\"idle\");\n",
    "    }\n",
    "    if (this.rival) this.giveUpRival();\n",
    "    if (this.current) this.current.update();\n",
    "    else if (!this.timer && !this.isWeeding) this.connect();\n",
    "  }\n",
    "\n",
    "  // Until when it is passed over; by the tab's next page, too.\n",
    "  remember(name, until) {\n",
    "    this.failed[name] = until;\n",
    "    try { root.sessionStorage[this.key] = JSON.stringify(this.failed); } catch (e) { /* forbidden */ }\n",
    "  }\n",
    "\n",
    "  can(name) {\n",
    "    const o = this.live.options;\n",
    "    return name === \"websocket\" ? o.WebSocket : name === \"shortpoll\" || !root.document || this.live.share || o.share === false;\n",
    "  }\n",
    "\n",
    "  connect() {\n",
    "    const live = this.live;\n",
    "    this.timer = live.cancel(this.timer);\n",
    "    if (live.isPaused || live.isClosed) return;\n",
    "    if (!this.index) {\n",
    "      const able = live.options.transports.filter((name) => this.can(name));\n",
    "      this.list = able.filter((name) => !(this.failed[name] > Date.now()));\n",
    "      if (!this.list.length) this.list = able;\n",
    "    }\n",
    "    if (!this.list.length) return live.fail(refusal(\"no transport works here\"));\n",
    "    if (live.cursor && !live.hasBegun) for (const topic of live.wanted()) live.join(topic, live.cursor);\n",
    "    const name = this.list[this.index];\n",
    "    live.setState(\"connecting\", { transport: name });\n",
    "    this.current = this.make(name);\n",
    "  }\n",
    "\n",
    "  make(name) {\n",
    "    const Kind = name === \"websocket\" ? Socket : name === \"sse\" ? Stream : Poller;\n",
    "    return new Kind(this, name);\n",
    "  }\n",
    "\n",
    "  alive(t) {\n",
    "    if (t.isDead || t !== this.current) return;\n",
    "    t.heard = Date.now();\n",
    "    this.live.cancel(this.watchTimer);\n",
    "    if (t.limit) this.watchTimer = this.live.later(() => this.lost(t), t.limit);\n",
    "  }\n",
    "\n",
    "  opened(t) {\n",
    "    const live = this.live;\n",
    "    if (t.isDead) return;\n",
    "    t.isOpen = true;\n",
    "    if (t === this.rival) {\n",
    "      this.drop(this.current);\n",
    "      this.current = t;\n",
    "      this.rival = null;\n",
    "    } else this.list.slice(0, this.index).forEach((name) => this.strike(name));\n",
    "    this.remember(t.name, 0);\n",
    "    this.index = this.denied = 0;\n",
    "    live.hasBegun = true;\n",
    "    this.alive(t);\n",
    "    live.cancel(this.stableTimer);\n",
    "    this.stableTimer = live.later(() => { this.tries = 0; }, live.options.stable);\n",
    "    this.planProbe();\n",
    "    live.setState(\"open\", { transport: t.name });\n",
    "    for (const topic of t.topics || []) live.join(topic, live.cursor);\n",
    "    t.update();\n",
    "    live.settle();\n",
    "    live.pump();\n",
    "  }\n",
    "\n",
    "  strike(name) {\n",
    "    const until = this.failed[name], { remember } = this.live.options;\n",
    "    if (!(until > Date.now())) this.remember(name, Date.now() + (until ? remember : Math.min(remember, 15000)));\n",
    "  }\n",
    "\n",
    "  // What is above the current one is tried again beside it.\n",
    "  planProbe() {\n",
    "    const all = this.live.options.transports, above = all.slice(0, all.indexOf(this.current.name)).filter((name) => this.can(name));\n",
    "    const until = (name) => this.failed[name] || 0, next = above.sort((a, b) => until(a) - until(b))[0];\n",
    "    this.live.cancel(this.probeTimer);\n",
    "    if (next) this.probeTimer = this.live.later(() => this.challenge(next), Math.max(until(next) - Date.now(), 1000));\n",
    "  }\n",
    "\n",
    "  challenge(name) {\n",
    "    this.live.cancel(this.probeTimer);\n",
    "    this.rival = this.make(name);\n",
    "  }\n",
    "\n",
    "  giveUpRival() {\n",
    "    this.rival.close();\n",
    "    this.rival = null;\n",
    "    this.planProbe();\n",
    "  }\n",
    "\n",
    "  drop(t) {\n",
    "    if (!t) return;\n",
    "    t.close();\n",
    "    for (const p of this.live.outbox) if (p.via === t) p.via = null, p.tries++;\n",
    "  }\n",
    "\n",
    "  stop() {\n",
    "    this.drop(this.current);\n",
    "    this.drop(this.rival);\n",
    "    this.current = this.rival = null;\n",
    "    this.index = 0;\n",
    "    for (const timer of [\"timer\", \"stableTimer\", \"probeTimer\", \"watchTimer\"]) this[timer] = this.live.cancel(this[timer]);\n",
    "  }\n",
    "\n",
    "  lost(t, why) {\n",
    "    const { live, index } = this, error = why || {};\n",
    "    if (t.isDead) return;\n",
    "    if (t === this.rival) {\n",
    "      if (t.name === this.current.name) return this.again();\n",
    "      this.strike(t.name);\n",
    "      return this.giveUpRival();\n",
    "    }\n",
    "    this.stop();\n",
    "    if (error.status === 401 && (!live.options.token || ++this.denied > 1)) error.isFatal = true;\n",
    "    if (error.isFatal) { live.fail(error); return; }\n",
    "    if (error.status === 401) live.grant = null;\n",
    "    else if (error.status === 403) { this.weed(error); return; }\n",
    "    else if (error.status && error.status !== 503) live.emit(\"error\", error);\n",
    "    if (!t.isOpen && error.delay === undefined && index + 1 < this.list.length && error.status !== 401) {\n",
    "      this.index = index + 1;\n",
    "      this.connect();\n",
    "    } else {\n",
    "      const delay = live.delayOf(error, this.tries++);\n",
    "      this.isObeying = error.delay !== undefined;\n",
    "      live.setState(\"waiting\", { delay });\n",
    "      this.timer = live.later(() => this.connect(), delay);\n",
    "    }\n",
    "    live.pump();\n",
    "  }\n",
    "\n",
    "  // A refusal does not say which topic it means: each is asked for alone.\n",
    "  async weed(error) {\n",
    "    const live = this.live;\n",
    "    let found = false;\n",
    "    this.isWeeding = true;\n",
    "    for (const topic of live.wanted()) {\n",
    "      await live.poll([topic], \"latest\", 0).catch((e) => {\n",
    "        if (e.status === 403) found = true, live.refused(topic, e);\n",
    "      });\n",
    "    }\n",
    "    this.isWeeding = false;\n",
    "    if (live.isClosed) return;\n",
    "    if (!found && live.wanted().size) live.fail(error);\n",
    "    else if (!live.isPaused) this.update();\n",
    "  }\n",
    "\n",
    "  // It may be worth trying now. isSure: the connection is dead.\n",
    "  poke(isSure) {\n",
    "    const t = this.current;\n",
    "    if (this.timer && !this.isObeying) this.connect();\n",
    "    else if (t && t.isOpen && (isSure || Date.now() - t.heard > 30000)) this.again();\n",
    "  }\n",
    "\n",
    "  again() {\n",
    "    this.stop();\n",
    "    this.connect();\n",
    "  }\n",
    "}\n",
    "\n",
    "// Tabs. The leader says what comes, from which cursor to which. A follower with another cursor has missed something:\n",
    "// it holds that back and polls first.\n",
    "class Share {\n",
    "  constructor(live, name) {\n",
    "    Object.assign(this, { live, name, id: live.id, others: new Map(), leader: \"\", held: null, heard: Date.now() });\n",
    "    this.channel = new live.options.BroadcastChannel(name);\n",
    "    this.channel.onmessage = (e) => this.read(e.data);\n",
    "    this.stand();\n",
    "    this.want(\"who\");\n",
    "    this.guard();\n",
    "  }\n",
    "\n",
    "  say(t, more) {\n",
    "    if (this.channel) this.channel.postMessage(Object.assign({ t, id: this.id }, more));\n",
    "  }\n",
    "\n",
    "  want(t) {\n",
    "    this.say(t || \"want\", { topics: [...this.live.topics.keys()] });\n",
    "  }\n",
    "\n",
    "  stand(steal) {\n",
    "    const abort = new AbortController();\n",
    "    const hold = () => new Promise((release) => {\n",
    "      if (this.abort !== abort) return release();\n",
    "      this.release = release;\n",
    "      this.lead();\n",
    "    });\n",
    "    const gone = () => { if (this.abort === abort) this.resign(), this.stand(); };\n",
    "    this.abort = abort;\n",
    "    this.live.options.locks.request(this.name, steal ? { steal } : { signal: abort.signal }, hold).then(gone, gone);\n",
    "  }\n",
    "\n",
    "  lead() {\n",
    "    const live = this.live;\n",
    "    this.isLeader = true;\n",
    "    this.leader = this.id;\n",
    "    this.held = null;\n",
    "    for (const topic of live.joined.keys()) if (live.cursor) live.joined.set(topic, live.cursor); else live.joined.delete(topic);\n",
    "    this.say(\"lead\");\n",
    "    live.link.update();\n",
    "  }\n",
    "\n",
    "  resign() {\n",
    "    if (this.isLeader) this.live.link.stop();\n",
    "    this.isLeader = false;\n",
    "    this.leader = \"\";\n",
    "    if (this.release) this.release();\n",
    "    this.release = null;\n",
    "  }\n",
    "\n",
    "  leave() {\n",
    "    const abort = this.abort;\n",
    "    this.abort = null;\n",
    "    this.resign();\n",
    "    if (abort) abort.abort();\n",
    "    this.say(\"bye\");\n",
    "  }\n",
    "\n",
    "  comeBack() {\n",
    "    this.hold();\n",
    "    this.stand();\n",
    "    this.want(\"who\");\n",
    "  }\n",
    "\n",
    "  close() {\n",
    "    this.leave();\n",
    "    this.channel.close();\n",
    "    this.channel = null;\n",
    "  }\n",
    "\n",
    "  feed(from, items, to) {\n",
    "    if (this.isLeader && (items.length || from !== to)) this.say(\"feed\", { from, items, to });\n",
    "  }\n",
    "\n",
    "  status() {\n",
    "    const { state, transport, cursor, session, joined } = this.live;\n",
    "    if (this.isLeader) this.say(\"status\", { state, transport, cursor, session, joined: [...joined] });\n",
    "  }\n",
    "\n",
    "  read(m) {\n",
    "    if (this.live.isPaused || !this.channel) return;\n",
    "    if (m.topics) this.others.set(m.id, m.topics);\n",
    "    if (m.t === \"bye\") this.others.delete(m.id);\n",
    "    if (this.isLeader) {\n",
    "      if (m.topics || m.t === \"bye\") this.live.link.update();\n",
    "      if (m.topics) this.status();\n",
    "      return;\n",
    "    }\n",
    "    if (m.t === \"lead\" || m.t === \"status\" || m.t === \"feed\") this.follow(m);\n",
    "    if (m.t === \"lead\") this.want();\n",
    "    if (m.t === \"refused\") this.live.refused(m.topic, m);\n",
    "  }\n",
    "\n",
    "  follow(m) {\n",
    "    const live = this.live;\n",
    "    this.heard = Date.now();\n",
    "    if (m.id !== this.leader) {\n",
    "      if (this.leader || live.cursor) this.hold();\n",
    "      this.leader = m.id;\n",
    "    }\n",
    "    if (m.t === \"feed\") {\n",
    "      if (live.cursor && m.from !== live.cursor && !(m.to && isBehind(m.to, live.cursor))) this.hold();\n",
    "      if (this.held) this.held.push(m);\n",
    "      else live.take(m.items, m.to);\n",
    "    } else if (m.t === \"status\") {\n",
    "      live.session = m.session;\n",
    "      live.joined = new Map(m.joined);\n",
    "      if (!live.cursor) live.take([], m.cursor);\n",
    "      else if (m.cursor && !isBehind(m.cursor, live.cursor)) this.hold();\n",
    "      live.setState(m.state, { transport: m.transport });\n",
    "      for (const topic of live.joined.keys()) live.joinedTopic(topic);\n",
    "      live.settle();\n",
    "    }\n",
    "    if (this.held) this.catchUp();\n",
    "  }\n",
    "\n",
    "  hold() {\n",
    "    if (!this.held && this.live.cursor) this.held = [];\n",
    "  }\n",
    "\n",
    "  async catchUp() {\n",
    "    const live = this.live, topics = [...live.topics.keys()], isDone = () => !this.held || live.isClosed;\n",
    "    if (this.isCatching || !topics.every((topic) => live.joined.has(topic))) return;\n",
    "    this.isCatching = true;\n",
    "    for (let tries = 0, isBack = !topics.length; !isDone();) {\n",
    "      if (isBack) {\n",
    "        const held = this.held;\n",
    "        this.held = null;\n",
    "        for (const m of held) live.take(m.items, m.to);\n",
    "        break;\n",
    "      }\n",
    "      try {\n",
    "        const body = await live.poll(topics, live.cursor, 0);\n",
    "        if (isDone()) break;\n",
    "        live.take(body.items, body.cursor);\n",
    "        isBack = !body.more && (!this.held[0] || !isAhead(this.held[0].from, live.cursor));\n",
    "        if (!isBack && !body.more) await live.pause(100);\n",
    "      } catch (e) {\n",
    "        await live.pause(live.delayOf(e, tries++));\n",
    "      }\n",
    "    }\n",
    "    this.isCatching = false;\n",
    "  }\n",
    "\n",
    "  // A silent leader is asked, then replaced.\n",
    "  guard() {\n",
    "    const live = this.live, now = Date.now();\n",
    "    if (!this.isLeader && !live.isPaused && now - this.heard > 60000) {\n",
    "      this.want(\"who\");\n",
    "      live.later(() => { if (!this.isLeader && !live.isPaused && this.heard < now) this.abort.abort(), this.stand(true); }, 3000);\n",
    "    }\n",
    "    live.later(() => this.guard(), 30000);\n",
    "  }\n",
    "}\n",
    "\n",
    "class Live {\n",
    "  constructor(url, options) {\n",
    "    const o = this.options = Object.assign({}, DEFAULTS, options);\n",
    "    Object.assign(this, { id: random(), session: random(), topics: new Map(), joined: new Map(), outbox: [], timers: new Set(),\n",
    "      listeners: { gap: new Set(), state: new Set(), error: new Set() }, cursor: o.since || \"\", state: \"idle\", transport: \"\" });\n",
    "    this.url = new URL(url, root.location ? root.location.href : undefined).href.replace(/\\/+$/, \"\");\n",
    "    this.link = new Link(this);\n",
    "    const share = o.share === undefined ? !o.token && !!root.document : o.share;\n",
    "    if (share && o.locks && o.BroadcastChannel) this.share = new Share(this, `rtpush ${this.url} ${share}`);\n",
    "    this.listen(\"addEventListener\");\n",
    "  }\n",
    "\n",
    "  subscribe(topic, fn, options) {\n",
    "    let since = options && options.since;\n",
    "    const isKnown = this.joined.has(topic);\n",
    "    if (since === undefined && (isKnown ? isPresence(topic) : this.cursor && this.transport && this.transport !== \"websocket\")) since = \"latest\";\n",
    "    const sub = { topic, fn, since, queue: since === undefined ? null : [], floor: \"\" };\n",
    "    const off = () => this.unsubscribe(sub);\n",
    "    off.ready = new Promise((ready) => { sub.ready = ready; });\n",
    "    if (!this.topics.has(topic)) this.topics.set(topic, new Set());\n",
    "    this.topics.get(topic).add(sub);\n",
    "    if (isKnown) this.joinedTopic(topic);\n",
    "    this.refresh();\n",
    "    return off;\n",
    "  }\n",
    "\n",
    "  presence(topic, fn) {\n",
    "    let here, said;\n",
    "    return this.subscribe(`@presence/${topic}`, ({ data }) => {\n",
    "      const { join = [], leave = [], count } = data;\n",
    "      here = new Set(data.here || (join.length + leave.length ? here : []));\n",
    "      join.forEach((name) => here.add(name));\n",
    "      leave.forEach((name) => here.delete(name));\n",
    "      const now = { here: here.size === count ? [...here] : null, count }, text = JSON.stringify(now);\n",
    "      if (text !== said) fn(now);\n",
    "      said = text;\n",
    "    });\n",
    "  }\n",
    "\n",
    "  publish(topic, data, options) {\n",
    "    const { event, ephemeral, key } = options || {};\n",
    "    return new Promise((resolve, reject) => {\n",
    "      if (this.isClosed) return reject(refusal(\"closed\"));\n",
    "      this.outbox.push({ topic, data, event, ephemeral, key: key || random(), resolve, reject, tries: 0, first: 0, via: null });\n",
    "      this.pump();\n",
    "    });\n",
    "  }\n",
    "\n",
    "  on(name, fn) {\n",
    "    this.listeners[name].add(fn);\n",
    "    return () => this.listeners[name].delete(fn);\n",
    "  }\n",
    "\n",
    "  close() {\n",
    "    if (this.isClosed) return;\n",
    "    this.isClosed = true;\n",
    "    this.listen(\"removeEventListener\");\n",
    "    this.link.stop();\n",
    "    if (this.share) this.share.close();\n",
    "    for (const timer of this.timers) this.cancel(timer);\n",
    "    this.topics.clear();\n",
    "    for (const p of this.outbox.splice(0)) p.reject(refusal(\"closed\"));\n",
    "    this.setState(\"closed\");\n",
    "  }\n",
    "\n",
    "  later(fn, ms) {\n",
    "    const timer = setTimeout(() => { this.timers.delete(timer); fn(); }, ms);\n",
    "    this.timers.add(timer);\n",
    "    return timer;\n",
    "  }\n",
    "\n",
    "  cancel(timer) {\n",
    "    clearTimeout(timer);\n",
    "    this.timers.delete(timer);\n",
    "  }\n",
    "\n",
    "  pause(ms) {\n",
    "    return new Promise((done) => this.later(done, ms));\n",
    "  }\n",
    "\n",
    "  // The server's word, or full jitter.\n",
    "  delayOf({ delay }, tries) {\n",
    "    const { backoff, backoffMax } = this.options;\n",
    "    return delay === undefined ? Math.random() * Math.min(backoffMax, backoff * Math.pow(2, tries)) : Math.min(delay, 2147483647);\n",
    "  }\n",
    "\n",
    "  call(fn, ...args) {\n",
    "    try { fn(...args); } catch (e) { setTimeout(() => { throw e; }); }\n",
    "  }\n",
    "\n",
    "  emit(name, ...args) {\n",
    "    for (const fn of [...this.listeners[name]]) this.call(fn, ...args);\n",
    "  }\n",
    "\n",
    "  setState(state, { transport = \"\", delay } = {}) {\n",
    "    if (state === this.state && transport === this.transport && delay === undefined) return;\n",
    "    Object.assign(this, { state, transport });\n",
    "    this.emit(\"state\", state, { transport, delay });\n",
    "    if (this.share) this.share.status();\n",
    "  }\n",
    "\n",
    "  fail(error) {\n",
    "    error.isFatal = true;\n",
    "    this.emit(\"error\", error);\n",
    "    this.close();\n",
    "  }\n",
    "\n",
    "  listen(verb) {\n",
    "    const types = [\"pagehide\", \"pageshow\", \"online\", \"offline\", \"freeze\", \"resume\", \"visibilitychange\"];\n",
    "    if (root.document) for (const type of types) root[verb](type, this, true);\n",
    "  }\n",
    "\n",
    "  handleEvent({ type }) {\n",
    "    if (type === \"pagehide\" || type === \"freeze\") this.sleep();\n",
    "    else if (type === \"pageshow\" || type === \"resume\") this.wake();\n",
    "    else if (type === \"offline\") this.wasOffline = true;\n",
    "    else if (type === \"online\" || root.document.visibilityState === \"visible\") this.poke(type === \"online\" && this.wasOffline);\n",
    "  }\n",
    "\n",
    "  sleep() {\n",
    "    if (this.isPaused) return;\n",
    "    this.isPaused = true;\n",
    "    this.link.stop();\n",
    "    if (this.share) this.share.leave();\n",
    "    this.setState(\"paused\");\n",
    "  }\n",
    "\n",
    "  wake() {\n",
    "    if (!this.isPaused) return this.poke();\n",
    "    this.isPaused = false;\n",
    "    if (this.share) this.share.comeBack();\n",
    "    else this.link.update();\n",
    "  }\n",
    "\n",
    "  poke(isSure) {\n",
    "    this.wasOffline = false;\n",
    "    if (!this.share || this.share.isLeader) this.link.poke(isSure);\n",
    "    else this.share.want(\"who\");\n",
    "    this.pump();\n",
    "  }\n",
    "\n",
    "  subsOf(topic) {\n",
    "    const found = [];\n",
    "    for (const [name, subs] of this.topics) if (name === topic || matches(name, topic)) found.push(...subs);\n",
    "    return found;\n",
    "  }\n",
    "\n",
    "  wanted() {\n",
    "    const all = new Set(this.topics.keys());\n",
    "    if (this.share) for (const other of this.share.others.values()) for (const topic of other) all.add(topic);\n",
    "    return all;\n",
    "  }\n",
    "\n",
    "  refresh() {\n",
    "    if (this.isRefreshing) return;\n",
    "    this.isRefreshing = true;\n",
    "    Promise.resolve().then(() => {\n",
    "      this.isRefreshing = false;\n",
    "      if (this.isClosed) return;\n",
    "      if (this.share && !this.share.isLeader) this.share.want();\n",
    "      else this.link.update();\n",
    "      this.settle();\n",
    "    });\n",
    "  }\n",
    "\n",
    "  unsubscribe(sub) {\n",
    "    const subs = this.topics.get(sub.topic);\n",
    "    sub.isOff = true;\n",
    "    if (!subs || !subs.delete(sub)) return;\n",
    "    if (!subs.size) this.topics.delete(sub.topic);\n",
    "    this.refresh();\n",
    "  }\n",
    "\n",
    "  refused(topic, { code, reason, message }) {\n",
    "    const subs = this.topics.get(topic);\n",
    "    if (subs) {\n",
    "      for (const sub of subs) sub.isOff = true;\n",
    "      this.topics.delete(topic);\n",
    "      this.emit(\"error\", refusal(reason || message, { code, topic }));\n",
    "      this.refresh();\n",
    "    }\n",
    "    if (!this.share || !this.share.isLeader) return;\n",
    "    for (const [id, other] of this.share.others) this.share.others.set(id, other.filter((name) => name !== topic));\n",
    "    this.share.say(\"refused\", { topic, code, reason: reason || message });\n",
    "  }\n",
    "\n",
    "  join(topic, cursor) {\n",
    "    if (this.joined.has(topic) || !cursor) return;\n",
    "    this.joined.set(topic, cursor);\n",
    "    this.joinedTopic(topic);\n",
    "    if (this.share) this.share.status();\n",
    "    this.settle();\n",
    "  }\n",
    "\n",
    "  joinedTopic(topic) {\n",
    "    for (const sub of this.topics.get(topic) || []) if (!sub.queue) sub.ready();\n",
    "  }\n",
    "\n",
    "  take(items, to) {\n",
    "    const from = this.cursor;\n",
    "    for (const item of items) item.type === \"gap\" ? this.tellGap(item) : this.hand(item);\n",
    "    this.advance(to);\n",
    "    if (this.share) this.share.feed(from, items, this.cursor);\n",
    "  }\n",
    "\n",
    "  advance(to) {\n",
    "    if (!to || (!this.isStale && this.cursor && isBehind(to, this.cursor))) return;\n",
    "    this.cursor = to;\n",
    "    this.isStale = false;\n",
    "  }\n",
    "\n",
    "  // The cursor stays (messages older than `to` may follow) until the next message moves it, to another epoch too.\n",
    "  // Until then the server may tell it again.\n",
    "  tellGap({ from, to, reason, topic }) {\n",
    "    const text = JSON.stringify([from, to, reason, topic]);\n",
    "    if (!topic && isBehind(to, this.cursor)) return;\n",
    "    if (!topic && reason === \"epoch\") this.isStale = true;\n",
    "    if (text === this.lastGap) return;\n",
    "    this.lastGap = text;\n",
    "    this.emit(\"gap\", { from, to, reason, topic });\n",
    "  }\n",
    "\n",
    "  hand(m) {\n",
    "    const isNow = isSnapshot(m);\n",
    "    if (!isNow && !this.isStale && this.cursor && isBehind(m.id, this.cursor)) return;\n",
    "    this.lastGap = \"\";\n",
    "    for (const sub of this.subsOf(m.topic)) sub.queue ? sub.queue.push(m) : this.deliver(sub, m);\n",
    "    if (!isNow) this.advance(m.id);\n",
    "  }\n",
    "\n",
    "  deliver(sub, { id, topic, event, data, encoding, replay }) {\n",
    "    if (sub.isOff || this.isClosed) return;\n",
    "    if (sub.floor && isBehind(id, sub.floor) && !isSnapshot({ topic, data })) return;\n",
    "    const m = { id, topic, data: encoding === \"base64\" ? fromBase64(data) : data };\n",
    "    if (event !== undefined) m.event = event;\n",
    "    if (replay) m.replay = true;\n",
    "    this.call(sub.fn, m);\n",
    "  }\n",
    "\n",
    "  // A late subscription's past comes by polls, which move no cursor, while what is live waits in its queue.\n",
    "  settle() {\n",
    "    for (const subs of this.topics.values()) for (const sub of subs) if (sub.queue && !sub.isBusy && this.joined.has(sub.topic)) this.history(sub);\n",
    "  }\n",
    "\n",
    "  async history(sub) {\n",
    "    sub.isBusy = true;\n",
    "    for (let tries = 0; sub.queue && !sub.isOff && !this.isClosed;) {\n",
    "      try {\n",
    "        const body = await this.poll([sub.topic], sub.since, 0), from = this.joined.get(sub.topic) || \"\";\n",
    "        if (sub.isOff || this.isClosed) return;\n",
    "        if (body.gap) this.tellGap(Object.assign({ topic: sub.topic }, body.gap));\n",
    "        for (const m of body.messages) this.deliver(sub, isPresence(m.topic) ? m : Object.assign(m, { replay: true }));\n",
    "        sub.since = body.cursor;\n",
    "        if (!body.more && !isAhead(from, body.cursor)) this.settled(sub, body.cursor);\n",
    "        else if (!body.more) await this.pause(100);\n",
    "      } catch (error) {\n",
    "        if (isFinal(error, tries)) return this.refused(sub.topic, error);\n",
    "        await this.pause(this.delayOf(error, tries++));\n",
    "      }\n",
    "    }\n",
    "  }\n",
    "\n",
    "  settled(sub, floor) {\n",
    "    const queue = sub.queue;\n",
    "    Object.assign(sub, { floor, queue: null });\n",
    "    for (const m of queue) this.deliver(sub, m);\n",
    "    sub.ready();\n",
    "  }\n",
    "\n",
    "  address(topics, query) {\n",
    "    const all = new URLSearchParams({ session: this.session });\n",
    "    for (const topic of topics) all.append(\"topic\", topic);\n",
    "    for (const name of Object.keys(query)) if (query[name]) all.append(name, query[name]);\n",
    "    return `${this.url}?${all}`;\n",
    "  }\n",
    "\n",
    "  async init(headers) {\n",
    "    const token = await this.token();\n",
    "    if (token !== undefined) headers.Authorization = `Bearer ${token}`;\n",
    "    return { headers, cache: \"no-store\", credentials: this.options.credentials };\n",
    "  }\n",
    "\n",
    "  async ask(url, init, ms, job = new AbortController()) {\n",
    "    const timer = this.later(() => job.abort(), ms);\n",
    "    try {\n",
    "      const r = await this.options.fetch(url, Object.assign(init, { signal: job.signal })), text = await r.text();\n",
    "      if (!r.ok) throw this.refusalOf(r, text);\n",
    "      return JSON.parse(text);\n",
    "    } finally {\n",
    "      this.cancel(timer);\n",
    "    }\n",
    "  }\n",
    "\n",
    "  refusalOf(r, text) {\n",
    "    let body = {};\n",
    "    try { body = JSON.parse(text); } catch (e) { /* no JSON */ }\n",
    "    return refusal(body.reason || `HTTP ${r.status}`, { status: r.status, code: body.error,\n",
    "      delay: r.status === 429 || r.status === 503 ? r.headers.get(\"retry-after\") * 1000 || undefined : undefined });\n",
    "  }\n",
    "\n",
    "  async poll(topics, since, wait, job) {\n",
    "    const init = await this.init({ Accept: \"application/json\" });\n",
    "    const body = await this.ask(this.address(topics, { since, wait }), init, wait * 1000 + this.options.timeout, job);\n",
    "    if (!body.cursor || !body.messages) throw refusal(\"not a poll's answer\");\n",
    "    body.items = [].concat(body.gap ? Object.assign({ type: \"gap\" }, body.gap) : [], body.messages);\n",
    "    return body;\n",
    "  }\n",
    "\n",
    "  async token() {\n",
    "    const ask = this.options.token;\n",
    "    if (typeof ask !== \"function\") return ask;\n",
    "    if (this.grant && Date.now() < this.grant.until) return this.grant.token;\n",
    "    if (!this.asking) this.asking = Promise.resolve().then(ask).then((given) => this.keep(given), (error) => { this.asking = null; throw error; });\n",
    "    return this.asking;\n",
    "  }\n",
    "\n",
    "  keep(given) {\n",
    "    const { token, expires } = typeof given === \"object\" ? given : { token: given };\n",
    "    const left = expires - Date.now(), until = left > 0 ? expires - Math.min(30000, left / 5) : Infinity;\n",
    "    this.asking = null;\n",
    "    this.grant = { token, until };\n",
    "    this.cancel(this.tokenTimer);\n",
    "    if (until < Infinity && !this.isClosed) this.tokenTimer = this.later(() => this.renew(), Math.min(until - Date.now(), 2147483647));\n",
    "    return token;\n",
    "  }\n",
    "\n",
    "  renew() {\n",
    "    this.grant = null;\n",
    "    this.token().then((token) => {\n",
    "      const t = this.link.current;\n",
    "      if (t && t.renew) t.renew(token);\n",
    "    }, (error) => { this.emit(\"error\", error); });\n",
    "  }\n",
    "\n",
    "  // In order: new ones by the socket, repeated ones by POST, and the rest wait for those.\n",
    "  pump() {\n",
    "    const t = this.share && !this.share.isLeader ? null : this.link.current;\n",
    "    const socket = t instanceof Socket ? t : null;\n",
    "    for (const p of this.outbox) {\n",
    "      if (p.via === \"post\" || this.postTimer) return;\n",
    "      if (p.via) continue;\n",
    "      if (!socket || p.tries || isBytes(p.data)) return this.post(p);\n",
    "      if (!socket.isOpen) return;\n",
    "      p.via = socket;\n",
    "      p.first = p.first || Date.now();\n",
    "      socket.publish(p, (m) => this.published(p, m.type === \"error\" && { delay: 0 }, m.id));\n",
    "    }\n",
    "  }\n",
    "\n",
    "  async post(p) {\n",
    "    const isRaw = isBytes(p.data), isText = typeof p.data === \"string\" || p.data === undefined;\n",
    "    const query = { event: p.event, ephemeral: p.ephemeral ? 1 : 0 };\n",
    "    p.via = \"post\";\n",
    "    try {\n",
    "      const init = await this.init({ \"Content-Type\": isRaw ? \"application/octet-stream\" : isText ? \"text/plain; charset=utf-8\" : \"application/json\", \"Idempotency-Key\": p.key });\n",
    "      p.first = p.first || Date.now();\n",
    "      const body = isRaw ? p.data : isText ? p.data || \"\" : JSON.stringify(p.data);\n",
    "      const answer = await this.ask(this.address([p.topic], query), Object.assign(init, { method: \"POST\", body }), this.options.timeout);\n",
    "      this.published(p, null, answer.id);\n",
    "    } catch (error) {\n",
    "      this.published(p, error);\n",
    "    }\n",
    "  }\n",
    "\n",
    "  published(p, error, id) {\n",
    "    const at = this.outbox.indexOf(p), isLate = Date.now() - p.first > this.options.publishWithin;\n",
    "    if (at < 0) return;\n",
    "    if (error && !isFinal(error, p.tries) && !isLate) {\n",
    "      if (error.status === 401) this.grant = null;\n",
    "      p.via = null;\n",
    "      this.postTimer = this.later(() => { this.postTimer = 0; this.pump(); }, this.delayOf(error, p.tries++));\n",
    "      return;\n",
    "    }\n",
    "    this.outbox.splice(at, 1);\n",
    "    error ? p.reject(error) : p.resolve(id);\n",
    "    this.pump();\n",
    "  }\n",
    "}\n",
    "\n",
    "const rtpush = (url, options) => new Live(url === undefined ? \"/live\" : url, options);\n",
    "rtpush.rtpush = rtpush;\n",
    "root.rtpush = rtpush;\n",
    "if (typeof module === \"object\" && module.exports) module.exports = rtpush;\n",
    "})(typeof globalThis === \"object\" ? globalThis : self);\n",
    NULL};
// </script>

// Does If-None-Match name this version? (RFC 9110 §13.1.2: by weak comparison)
static bool rp_script_is_known(rtpush_slice tags) {
    rtpush_slice tag, own = rp_etag_inside(rp_slice_of(rp_script_tag));
    while (rp_slice_next(&tags, ',', &tag)) {
        tag = rp_slice_trim(tag);
        if (rp_slice_equals(tag, "*")) return true;
        tag = rp_etag_inside(tag);
        if (tag.size == own.size && !memcmp(tag.data, own.data, own.size)) return true;
    }
    return false;
}

// GET /rtpush.js. false: another path.
static bool rp_script_route(rtpush_request *request) {
    static const char type[] = "text/javascript; charset=utf-8";
    rtpush_hub *hub = request->hub;
    rp_conn *c = request->conn;
    char extra[96];
    if (hub->desc.script_off || !rp_slice_equals(request->head->path, "/rtpush.js")) return false;
    if (rp_reply_only_get(hub, c, request->head)) return true;
    snprintf(extra, sizeof extra, "ETag: %s\r\nCache-Control: no-cache\r\n", rp_script_tag); // kept, and asked for again
    if (rp_script_is_known(rp_http_header(request->head, "if-none-match"))) {
        rp_reply_whole(hub, c, 304, NULL, rp_slice_of(extra), rp_slice(NULL, 0));
        return true;
    }
    rp_buf *buf = rp_hub_text(hub);
    for (const char *const *line = rp_script; *line; line++) rp_buf_text(&hub->mem, buf, *line);
    if (buf->is_broken) rp_conn_drop(hub, c, 1011);
    else rp_reply_whole(hub, c, 200, type, rp_slice_of(extra), rp_buf_slice(buf));
    return true;
}
#endif // RP_SERVER

// ============================================================================
// >>stats  what is measured, as Prometheus text and as JSON  (uses: route)
// ============================================================================
#ifdef RP_SERVER
static void rp_stats_own(rtpush_hub *hub, rtpush_stats *n) {
    *n = hub->stats;
    n->topics = hub->topic_count;
    n->patterns = hub->pattern_count;
    n->messages_held = hub->log.held;
    n->history_bytes = hub->log.bytes;
    n->evicted = hub->log.evictions;
    n->no_memory = hub->mem.failed;
    n->pending = n->owed - n->delivered - n->skipped - n->abandoned;
}

// Those of all loops.
static void rp_stats_read(rtpush_hub *hub, rtpush_stats *n) {
    rp_stats_own(hub, n);
    if (hub->hooks) hub->hooks->gather(hub, n);
}

static void rp_stats_note(rtpush_hub *hub) {
    rtpush_stats n;
    rp_stats_own(hub, &n);
    hub->hooks->note(hub, &n);
}

static void rp_stats_line(rtpush_hub *hub, rp_buf *buf, const char *name, const char *type, const char *help, uint64_t value) {
    char line[256];
    bool is_counter = *type == 'c';
    snprintf(line, sizeof line, "# HELP rtpush_%s%s %s\n# TYPE rtpush_%s%s %s\nrtpush_%s%s %llu\n", name, is_counter ? "_total" : "", help,
             name, is_counter ? "_total" : "", type, name, is_counter ? "_total" : "", (unsigned long long)value);
    rp_buf_text(&hub->mem, buf, line);
}

// Prometheus text format 0.0.4.
static void rp_stats_metrics(rtpush_hub *hub, rp_buf *buf) {
    rtpush_stats n;
    rp_stats_read(hub, &n);
#define RP_STAT_LINE(name, type, help) rp_stats_line(hub, buf, #name, type, help, n.name);
    RTPUSH_STATS(RP_STAT_LINE)
#undef RP_STAT_LINE
}

static void rp_stats_json(rtpush_hub *hub, rp_buf *buf) {
    rtpush_stats n;
    rp_stats_read(hub, &n);
    rp_buf_text(&hub->mem, buf, "{\"cursor\":\"");
    rp_spell_cursor(hub, buf, hub->log.head);
    rp_buf_text(&hub->mem, buf, "\"");
#define RP_STAT_MEMBER(name, type, help) rp_buf_text(&hub->mem, buf, ",\"" #name "\":"), rp_buf_number(&hub->mem, buf, n.name);
    RTPUSH_STATS(RP_STAT_MEMBER)
#undef RP_STAT_MEMBER
    rp_buf_text(&hub->mem, buf, "}\n");
}

// /healthz, /metrics, /stats. false: not one of them.
static bool rp_stats_route(rtpush_request *request) {
    rtpush_hub *hub = request->hub;
    rp_conn *c = request->conn;
    rtpush_slice path = request->head->path;
    bool is_health = rp_slice_equals(path, "/healthz"), is_json = rp_slice_equals(path, "/stats"), is_metrics = rp_slice_equals(path, "/metrics");
    if (hub->desc.expose_off || (!is_health && !is_json && !is_metrics)) return false;
    if (rp_reply_only_get(hub, c, request->head)) return true;
    if (is_health && hub->server->is_draining) {
        rp_reply_error(hub, c, 503, "the server is draining", "Cache-Control: no-store\r\nRetry-After: 1\r\n");
        return true;
    }
    rp_buf *buf = rp_hub_text(hub);
    if (is_health) rp_buf_text(&hub->mem, buf, "ok");
    else if (is_metrics) rp_stats_metrics(hub, buf);
    else rp_stats_json(hub, buf);
    const char *type = is_health ? "text/plain; charset=utf-8" : is_json ? "application/json" : "text/plain; version=0.0.4; charset=utf-8";
    if (buf->is_broken) rp_conn_drop(hub, c, 1011);
    else rp_reply_whole(hub, c, 200, type, rp_slice_of("Cache-Control: no-store\r\n"), rp_buf_slice(buf));
    return true;
}
#endif // RP_SERVER

// ============================================================================
// >>input  bytes in: requests, bodies, frames  (uses: stats, route)
//
// Everything is looked at in the one receive buffer, where it lies; a connection keeps
// only what is incomplete: the start of a head or of a frame in `tail`, a body or a
// message under way in `inflow`. While it may not be read on (a reply is owed, its own
// bytes wait), what has come stays in `tail` and nothing more is received.
// ============================================================================
#ifdef RP_SERVER
static void rp_route(rtpush_hub *hub, rp_conn *c, const rtpush_head *head, rtpush_slice body) {
    rtpush_request request;
    size_t size, mount = strlen(hub->desc.mount);
    memset(&request, 0, sizeof request);
    request.hub = hub;
    request.conn = c;
    request.head = head;
    request.body = body;
    hub->stats.requests++;
    if (!rp_http_decode(hub->server->path_text, &size, head->path, false)) { rp_reply_refuse(hub, c, 400, "a bad percent-escape in the path"); return; }
    request.path = rp_slice(hub->server->path_text, size);
    bool is_under = rp_slice_begins(head->path, hub->desc.mount) && (head->path.size == mount || head->path.data[mount] == '/');
    if (rp_script_route(&request) || rp_stats_route(&request)) return;
    if (is_under) { rp_route_mount(&request); return; }
    if (hub->desc.on_request && hub->desc.on_request(hub, &request, hub->desc.user)) {
        if (!request.is_answered && c->phase == RP_PHASE_HEAD) rp_reply_error(hub, c, 500, "the handler gave no answer", "");
        return;
    }
    if (c->phase != RP_PHASE_HEAD || request.is_answered) return;
    rp_reply_error(hub, c, 404, "there is nothing here", "");
}

static const char *rp_refusal_text(int status) {
    switch (status) {
    case 413: return "the body is over the limit (body_max)";
    case 414: return "the request line is over the limit (line_max)";
    case 417: return "the only expectation met here is 100-continue";
    case 431: return "the header is over a limit (head_max, headers_max)";
    case 501: return "the only transfer coding here is chunked";
    case 505: return "this server speaks HTTP/1.0 and HTTP/1.1";
    default: return "malformed request";
    }
}

static void rp_input_refuse(rtpush_hub *hub, rp_conn *c, int status) { rp_reply_refuse(hub, c, status, rp_refusal_text(status)); }

// One connection too many.
static void rp_input_refuse_over(rtpush_hub *hub, rp_conn *c) {
    bool is_all = c->is_over == RP_OVER_ALL;
    c->keeps = false;
    rp_reply_error(hub, c, is_all ? 503 : 429, is_all ? "too many connections (connections_max)" : "too many connections from one address (connections_per_ip_max)", "Retry-After: 5\r\n");
}

// A body that is not all here: head and body are kept until it is.
static void rp_input_await(rtpush_hub *hub, rp_conn *c, const rtpush_head *head, const char *data, size_t head_size, size_t size) {
    c->inflow = (rp_inflow *)rp_mem_get(&hub->mem, sizeof *c->inflow);
    if (!c->inflow || !rp_buf_put(&hub->mem, &c->inflow->head, data, head_size)) { rp_conn_drop(hub, c, 1011); return; }
    c->inflow->left = head->length;
    c->since = hub->wheel.now;
    c->bytes = 0;
    bool expects = head->expects_continue && size == head_size;
    rp_conn_enter(hub, c, RP_PHASE_BODY);
    if (expects) rp_conn_put(hub, c, rp_slice_of("HTTP/1.1 100 Continue\r\n\r\n"));
    rp_conn_arm(hub, c);
}

// A head, and its body where that is all here. Returns what was taken, 0: more is needed.
static size_t rp_input_head(rtpush_hub *hub, rp_conn *c, const char *data, size_t size) {
    const rtpush_desc *d = &hub->desc;
    rtpush_head *head = &hub->server->head;
    ptrdiff_t n = rtpush_parse_head(head, data, size, (size_t)d->line_max, (size_t)d->head_max, (size_t)d->headers_max);
    if (!n && !c->has_bytes) {
        c->has_bytes = true;
        if (!c->is_first) c->since = hub->wheel.now; // the first one's time began with the connection
        rp_conn_arm(hub, c);
    }
    if (!n) return 0;
    c->is_http11 = n < 0 || head->minor == 1;
    c->is_head = n > 0 && rp_slice_equals(head->method, "HEAD");
    c->keeps = n > 0 && head->keep_alive && !hub->server->is_draining;
    if (n < 0) { rp_input_refuse(hub, c, (int)-n); return size; }
    if (c->is_over) { rp_input_refuse_over(hub, c); return size; }
    size_t head_size = (size_t)n;
    if (head->wants_websocket && (head->length || head->is_chunked)) { rp_input_refuse(hub, c, 400); return size; }
    if (head->length > (uint64_t)d->body_max) { rp_input_refuse(hub, c, 413); return size; }
    if (!head->is_chunked && head->length <= size - head_size) {
        c->holds = (uint16_t)(c->is_held ? c->holds + 1 : 0);
        c->is_held = false;
        rp_route(hub, c, head, rp_slice(data + head_size, (size_t)head->length));
        if (c->is_held) { hub->stats.requests--; return 0; }
        return head_size + (size_t)head->length;
    }
    rp_input_await(hub, c, head, data, head_size, size);
    return head_size;
}

// The whole body is here: the request's head is read again, where it is kept.
static void rp_input_body_done(rtpush_hub *hub, rp_conn *c) {
    rp_inflow *inflow = c->inflow;
    rp_conn_enter(hub, c, RP_PHASE_HEAD);
    rtpush_parse_head(&hub->server->head, inflow->head.data, rp_buf_size(&inflow->head), (size_t)hub->desc.line_max,
                      (size_t)hub->desc.head_max, (size_t)hub->desc.headers_max);
    c->inflow = NULL;
    c->holds = UINT16_MAX; // one with a body is not read again
    rp_route(hub, c, &hub->server->head, rp_buf_slice(&inflow->body));
    rp_buf_free(&hub->mem, &inflow->head);
    rp_buf_free(&hub->mem, &inflow->body);
    rp_mem_free(&hub->mem, inflow);
}

// A part of a body. Returns what was taken.
static size_t rp_input_body(rtpush_hub *hub, rp_conn *c, const char *data, size_t size) {
    rp_inflow *inflow = c->inflow;
    rtpush_slice part = rp_slice(data, (size_t)RP_MIN((uint64_t)size, inflow->left));
    size_t used = part.size;
    bool is_chunked = !inflow->left;
    if (is_chunked) {
        ptrdiff_t n = rtpush_parse_chunked(&inflow->chunked, data, size, &part);
        if (n < 0) { rp_inflow_free(hub, c); rp_input_refuse(hub, c, 400); return size; }
        used = (size_t)n;
        if (part.size > (uint64_t)hub->desc.body_max - rp_buf_size(&inflow->body)) { rp_inflow_free(hub, c); rp_input_refuse(hub, c, 413); return size; }
    } else {
        inflow->left -= used;
    }
    c->bytes += used;
    if (!rp_buf_put(&hub->mem, &inflow->body, part.data, part.size)) {
        rp_inflow_free(hub, c);
        c->keeps = false; // what is left of the body is no request
        rp_reply_code(hub, c, RTPUSH_E_MEMORY);
        return size;
    }
    if (is_chunked ? inflow->chunked.is_done : !inflow->left) rp_input_body_done(hub, c);
    return used;
}

// --- WebSocket ---

// A raw WebSocket's data frame: the host's, or a publish to the first topic it named.
static void rp_raw_read(rtpush_hub *hub, rp_conn *c, unsigned opcode, const char *data, size_t size) {
    rtpush_publication what;
    const rp_source *first = c->reader.count ? c->reader.subs[0].source : NULL;
    char topic[RP_TOPIC_MAX + 1]; // the topic may go while the message is read
    memset(&what, 0, sizeof what);
    snprintf(topic, sizeof topic, "%s", first ? first->name : "");
    what.topic = topic;
    what.data = data;
    what.size = size;
    what.kind = opcode == RP_WS_TEXT ? RTPUSH_TEXT : RTPUSH_BINARY;
    if (hub->desc.on_message) {
        rtpush_message m;
        memset(&m, 0, sizeof m);
        m.topic = what.topic;
        m.event = "";
        m.data = data;
        m.size = size;
        m.kind = what.kind;
        m.time_ms = rp_hub_wall(hub);
        hub->desc.on_message(hub, rp_session_handle(c->session), &m, hub->desc.user);
    } else if (first && !first->is_pattern && rp_auth_may(hub, rp_session_identity(c->session), RTPUSH_VERB_PUBLISH, rp_source_name(first))) {
        rp_push_publish(hub, c->session, &what);
    }
}

static void rp_input_message(rtpush_hub *hub, rp_conn *c, unsigned opcode, char *data, size_t size) {
    if (c->reader.wire != &rp_wire_envelope) rp_raw_read(hub, c, opcode, data, size);
    else if (opcode == RP_WS_TEXT) rp_envelope_read(hub, c, data, size);
    else rp_envelope_error(hub, c, rp_slice(NULL, 0), "bad_request", "binary frames mean nothing in rtpush.v1");
}

// One ping more in this second. false: too many.
static bool rp_input_ping_is_allowed(rtpush_hub *hub, rp_conn *c) {
    uint16_t second = (uint16_t)(hub->wheel.now / 1000 & 0xffff);
    if (c->ping_second != second) c->pings = 0;
    c->ping_second = second;
    return hub->desc.pings_max < 0 || ++c->pings <= (uint64_t)hub->desc.pings_max;
}

static void rp_input_control(rtpush_hub *hub, rp_conn *c, unsigned opcode, const unsigned char *body, size_t size) {
    if (opcode == RP_WS_PONG) return; // its bytes were sign of life
    if (opcode == RP_WS_PING) {
        if (!rp_input_ping_is_allowed(hub, c)) rp_socket_fail(hub, c, 1008, "too many pings");
        else if (c->phase == RP_PHASE_SOCKET) rp_socket_put(hub, c, RP_WS_PONG, body, size); // RFC 6455 §5.5.3: the same data
        return;
    }
    int code = rp_ws_close_code(body, size);
    if (c->phase == RP_PHASE_CLOSING) { rp_conn_finish(hub, c); return; } // the answer to ours
    if (code < 0) { rp_socket_fail(hub, c, -code, "bad close frame"); return; }
    c->code = (uint16_t)code;
    rp_socket_put_close(hub, c, code == 1005 ? 0 : code, ""); // RFC 6455 §5.5.1: the code is echoed
    rp_inflow_free(hub, c);
    rp_conn_finish(hub, c);
}

static const char *rp_ws_reason(int code) {
    switch (code) {
    case 1007: return "not UTF-8";
    case 1008: return "too many fragments (fragments_max)";
    case 1009: return "too large (message_max)";
    case 1011: return "out of memory";
    default: return "protocol error";
    }
}

// Payload of the data frame under way; when it ends a message, the message. Returns what was taken.
static size_t rp_input_payload(rtpush_hub *hub, rp_conn *c, const char *data, size_t size) {
    rp_ws *ws = &c->inflow->ws;
    size_t n = (size_t)RP_MIN((uint64_t)size, ws->left);
    int failed = rp_ws_take(&hub->mem, ws, data, n);
    if (failed) { rp_socket_fail(hub, c, -failed, rp_ws_reason(-failed)); return size; }
    if (ws->left || !ws->frame.is_final) return n;
    rp_inflow *inflow = c->inflow; // the connection may go while the message is read
    c->inflow = NULL;
    rp_buf *message = &inflow->ws.message;
    char nothing[1] = "";
    rp_input_message(hub, c, inflow->ws.opcode, message->data ? message->data + message->start : nothing, rp_buf_size(message));
    rp_buf_free(&hub->mem, message);
    rp_mem_free(&hub->mem, inflow);
    return n;
}

// A data frame's head: the message is read where it lies if it is whole, else put together. Returns what was taken.
static size_t rp_input_data(rtpush_hub *hub, rp_conn *c, const rtpush_frame *frame, char *data, size_t head_size, size_t size) {
    bool is_whole = !c->inflow && frame->is_final && frame->opcode && frame->length <= size - head_size;
    if (is_whole && frame->length <= (uint64_t)hub->desc.message_max) {
        char *payload = data + head_size;
        size_t n = (size_t)frame->length;
        rtpush_mask((unsigned char *)payload, n, frame->key, 0);
        if (frame->opcode == RP_WS_TEXT && rtpush_utf8(0, payload, n)) rp_socket_fail(hub, c, 1007, rp_ws_reason(1007));
        else rp_input_message(hub, c, frame->opcode, payload, n);
        return head_size + n;
    }
    if (!c->inflow) {
        c->inflow = (rp_inflow *)rp_mem_get(&hub->mem, sizeof *c->inflow);
        if (!c->inflow) { rp_socket_fail(hub, c, 1011, rp_ws_reason(1011)); return size; }
        c->inflow->ws.began_ms = hub->wheel.now;
    }
    int failed = rp_ws_begin(&c->inflow->ws, frame, (uint64_t)hub->desc.message_max, (uint32_t)RP_MIN(hub->desc.fragments_max, (int64_t)UINT32_MAX));
    if (failed) { rp_socket_fail(hub, c, -failed, rp_ws_reason(-failed)); return size; }
    rp_conn_arm(hub, c);
    return head_size + rp_input_payload(hub, c, data + head_size, size - head_size);
}

// A frame, or a part of one's payload. Returns what was taken, 0: more is needed.
static size_t rp_input_frame(rtpush_hub *hub, rp_conn *c, char *data, size_t size) {
    rtpush_frame frame;
    if (c->phase == RP_PHASE_CLOSING && c->bytes) {
        size_t passed = (size_t)RP_MIN((uint64_t)size, c->bytes);
        c->bytes -= passed;
        return passed;
    }
    if (c->inflow && c->inflow->ws.left) return rp_input_payload(hub, c, data, size);
    ptrdiff_t n = rtpush_parse_frame(&frame, (const unsigned char *)data, size);
    if (n < 0) { rp_socket_fail(hub, c, (int)-n, rp_ws_reason((int)-n)); return size; }
    if (size >= 2 && !(data[1] & 0x80)) { rp_socket_fail(hub, c, 1002, "client frames are masked"); return size; } // RFC 6455 §5.1
    if (!n) return 0;
    size_t head_size = (size_t)n;
    if (frame.opcode < RP_WS_CLOSE && c->phase == RP_PHASE_CLOSING) { // ours is out: what the peer still says is passed over
        c->bytes = frame.length;
        return head_size;
    }
    if (frame.opcode < RP_WS_CLOSE) { hub->stats.frames_in++; return rp_input_data(hub, c, &frame, data, head_size, size); }
    if (size - head_size < frame.length) return 0; // at most 125 bytes: it waits until it is whole
    hub->stats.frames_in++;
    rtpush_mask((unsigned char *)data + head_size, (size_t)frame.length, frame.key, 0);
    rp_input_control(hub, c, frame.opcode, (const unsigned char *)data + head_size, (size_t)frame.length);
    return head_size + (size_t)frame.length;
}

// --- what has come ---

// Takes what can be taken of the input, in whatever phase that leads to. Returns how much.
static size_t rp_input_take(rtpush_hub *hub, rp_conn *c, char *data, size_t size) {
    size_t at = 0, used = 1;
    while (at < size && used) {
        if ((c->phase == RP_PHASE_HEAD || c->phase == RP_PHASE_SOCKET) && !rp_conn_has_room(hub, c)) break;
        switch ((enum rp_phase)c->phase) {
        case RP_PHASE_HEAD: used = rp_input_head(hub, c, data + at, size - at); break;
        case RP_PHASE_BODY: used = rp_input_body(hub, c, data + at, size - at); break;
        case RP_PHASE_SOCKET:
        case RP_PHASE_CLOSING: used = rp_input_frame(hub, c, data + at, size - at); break;
        case RP_PHASE_STREAM: // nothing is expected: passed over
        case RP_PHASE_LINGER:
        case RP_PHASE_DEAD: used = size - at; break;
        case RP_PHASE_WAIT:
        case RP_PHASE_REPLY:
        case RP_PHASE_PARKED: used = 0; break; // waits for the answer to what came before
        }
        at += used;
    }
    return at;
}

static void rp_input(rtpush_hub *hub, rp_conn *c, char *data, size_t size) {
    c->is_in_input = true;
    size_t used = rp_input_take(hub, c, data, size), left = size - used;
    c->is_in_input = false;
    if (c->phase == RP_PHASE_DEAD) return;
    bool waits = c->is_held || c->phase == RP_PHASE_WAIT || c->phase == RP_PHASE_REPLY || c->phase == RP_PHASE_PARKED || !rp_conn_has_room(hub, c);
    // A parked poll goes on reading a little, to see its client go.
    c->is_paused = left && waits && (c->phase != RP_PHASE_PARKED || left > (uint64_t)hub->desc.head_max);
    if (left) {
        c->tail = rp_server_buf(hub);
        if (!c->tail || !rp_buf_put(&hub->mem, c->tail, data + used, left)) { rp_conn_drop(hub, c, 1011); return; }
    }
    // Answers go at once, while others are still to be read, unless the flush has messages to send with them.
    bool is_alone = c->own && !c->reader.is_blocked && !c->reader.replays && !rp_reader_is_behind(&c->reader);
    if (is_alone) rp_conn_write(hub, &c->reader, NULL, 0, 0);
    rp_conn_watch(hub, c);
}

// Moves what is kept to the front of the receive buffer. Returns how much.
static size_t rp_input_untail(rtpush_hub *hub, rp_conn *c) {
    size_t have = c->tail ? rp_buf_size(c->tail) : 0;
    if (have) memcpy(hub->server->input, c->tail->data + c->tail->start, have);
    rp_server_buf_back(hub, &c->tail);
    return have;
}

// The peer has ended its half.
static void rp_input_end(rtpush_hub *hub, rp_conn *c) {
    c->is_ended = true;
    switch ((enum rp_phase)c->phase) {
    case RP_PHASE_WAIT:
    case RP_PHASE_REPLY: rp_conn_watch(hub, c); break; // the answer under way still goes out
    case RP_PHASE_HEAD: rp_conn_finish(hub, c); break;
    default: rp_conn_drop(hub, c, 1006);
    }
}

// What one receive gives. -errno as rtpush_sys.recv, 0: the peer has ended.
static ptrdiff_t rp_input_recv(rtpush_hub *hub, rp_conn *c, size_t have) {
    char *room = hub->server->input + have;
    size_t cap = (size_t)hub->desc.input_per_turn;
    bool is_passed_over = c->phase == RP_PHASE_LINGER && c->is_shut; // whatever it says in TLS
    ptrdiff_t n;
    do {
        n = rp_conn_tls(c) && !is_passed_over ? rp_tls_recv(rp_conn_tls(c), room, RP_MAX(cap, (size_t)RP_RECORD)) : hub->sys.recv(hub->sys.user, c->fd, room, cap);
        hub->stats.reads++;
    } while (n == -EINTR);
    return n;
}

// One receive, bounded: the others' turn comes before its next one. false: there was nothing, or it has ended.
static bool rp_input_receive_once(rtpush_hub *hub, rp_conn *c) {
    size_t have = c->tail ? rp_buf_size(c->tail) : 0;
    ptrdiff_t n = rp_input_recv(hub, c, have);
    if (rp_errno_is_again(n)) {
        if (rp_conn_tls(c)) rp_conn_watch(hub, c);
        return false;
    }
    if (n == -EPROTO && c->phase == RP_PHASE_HEAD && c->is_first && !c->own) { // TLS: the peer is to read the alert that says why
        rp_conn_finish(hub, c);
        return false;
    }
    if (n < 0) { rp_conn_drop(hub, c, 1006); return false; }
    c->seen = hub->wheel.now;
    if (n == 0) { rp_input_end(hub, c); return false; }
    hub->stats.bytes_in += (uint64_t)n;
    if (c->phase == RP_PHASE_LINGER) {
        c->bytes += (uint64_t)n;
        if (c->bytes > 65536 && c->is_shut) rp_conn_drop(hub, c, 1006); // enough was read past
        return true;
    }
    rp_input_untail(hub, c);
    rp_input(hub, c, hub->server->input, have + (size_t)n);
    return true;
}

static void rp_input_receive(rtpush_hub *hub, rp_conn *c) {
    bool had = rp_input_receive_once(hub, c);
    if (had && rp_conn_tls(c) && rp_tls_is_over(rp_conn_tls(c)) && c->phase != RP_PHASE_DEAD && !c->is_paused) rp_input_receive_once(hub, c);
}

// Input that waited.
static void rp_input_resume(rtpush_hub *hub) {
    rp_conn *c = hub->server->resume;
    hub->server->resume = NULL;
    for (rp_conn *next; c; c = next) {
        next = c->next_resume;
        c->is_resuming = false;
        if (!rp_conn_is_live(c) || !c->tail) continue;
        c->is_paused = false;
        size_t have = rp_input_untail(hub, c);
        rp_input(hub, c, hub->server->input, have);
    }
}
#endif // RP_SERVER

// ============================================================================
// >>clock  what happens to a connection by itself: deadlines, heartbeats, drain  (uses: input)
// ============================================================================
#ifdef RP_SERVER
static void rp_clock_timeout(rtpush_hub *hub, rp_conn *c, const char *what) {
    rp_inflow_free(hub, c);
    rp_reply_refuse(hub, c, 408, what);
}

// Its login has ended (PROTOCOL §5).
static void rp_clock_expired(rtpush_hub *hub, rp_conn *c) {
    if (c->phase == RP_PHASE_SOCKET || c->phase == RP_PHASE_STREAM || c->phase == RP_PHASE_PARKED) rp_push_close(hub, c, 4001, "expired");
}

// Says goodbye, once all that is owed is out (PROTOCOL §6).
static void rp_clock_drain(rtpush_hub *hub, rp_conn *c) {
    char reason[32];
    rp_buf *buf = rp_hub_text(hub);
    c->drain_at = 0;
    if (c->phase == RP_PHASE_HEAD && !c->has_bytes) { rp_conn_finish(hub, c); return; }
    if (rp_reader_is_behind(&c->reader) || c->reader.replays || c->reader.rest.block) {
        c->drain_at = hub->wheel.now + 20;
        return;
    }
    if (c->phase == RP_PHASE_SOCKET) {
        if (c->reader.wire == &rp_wire_envelope) {
            rp_envelope_reconnect_text(hub, buf, c->drain_ms);
            rp_envelope_send(hub, c, buf);
        }
        snprintf(reason, sizeof reason, "retry=%u", (unsigned)c->drain_ms);
        rp_socket_close(hub, c, 1012, reason);
    } else if (c->phase == RP_PHASE_STREAM) {
        rp_event_goodbye(hub, c, c->drain_ms);
        c->code = 1012;
        if (rp_conn_is_live(c)) rp_event_end(hub, c);
    }
}

// The poll that waited for this log to come to its cursor is told nothing, and may ask another node.
static void rp_clock_ahead_poll(rtpush_hub *hub, rp_conn *c) {
    rp_poll_answer answer;
    rp_poll_answer_init(&answer, NULL);
    rp_poll_reply(hub, c, &answer, true);
}

// A cursor ahead of this log (only with a bus): reached, or of another epoch after all, if that is certain.
static void rp_clock_ahead(rtpush_hub *hub, rp_conn *c) {
    rp_reader *r = &c->reader;
    rp_poll_answer answer;
    rp_gap gap;
    memset(&gap, 0, sizeof gap);
    bool is_short = c->session && c->session->transport == RTPUSH_SHORT_POLL;
    if (hub->log.head >= r->ahead) r->ahead = 0;
    else if (hub->wheel.now >= r->ahead_until && rp_reader_is_foreign(hub, r)) rp_open_give_up_ahead(hub, c, &gap);
    else if (hub->wheel.now >= r->ahead_until && c->phase == RP_PHASE_PARKED) { rp_clock_ahead_poll(hub, c); return; }
    else if (hub->wheel.now >= r->ahead_until) r->ahead_until = hub->wheel.now + RP_AHEAD_MS; // a stream goes on waiting
    if (r->ahead || c->phase == RP_PHASE_HEAD) return;
    rp_poll_answer_init(&answer, &gap);
    if (c->phase == RP_PHASE_PARKED && (is_short || gap.is_told)) rp_poll_reply(hub, c, &answer, true);
    else if (c->phase == RP_PHASE_PARKED) return; // it is an ordinary long poll now
    else if (gap.is_told && r->wire->gap) r->wire->gap(hub, r, &gap);
    else if (gap.is_told) rp_socket_close(hub, c, 4100, "gap");
}

static void rp_clock_socket(rtpush_hub *hub, rp_conn *c) {
    uint64_t now = hub->wheel.now;
    if (c->awaits_pong && c->seen >= c->due) c->awaits_pong = false;
    if (c->awaits_pong && now >= rp_later(c->due, hub->desc.dead_ms)) {
        hub->stats.closed_dead++;
        rp_conn_drop(hub, c, 1006);
    } else if (c->inflow && now >= rp_later(c->inflow->ws.began_ms, hub->desc.frame_timeout_ms)) {
        rp_socket_fail(hub, c, 1008, "a message took too long (frame_timeout_ms)");
    } else if (c->is_unknown && now >= rp_later(c->since, hub->desc.auth_timeout_ms)) {
        rp_socket_close(hub, c, 4001, "unauthorized");
    } else if (now >= rp_later(c->beat, hub->desc.heartbeat_ms)) {
        rp_push_heartbeat(hub, c);
    }
}

// What its phase asks for now.
static void rp_clock_phase(rtpush_hub *hub, rp_conn *c) {
    rp_poll_answer answer;
    bool is_due = hub->wheel.now >= rp_conn_deadline(hub, c);
    switch ((enum rp_phase)c->phase) {
    case RP_PHASE_HEAD:
        if (is_due && c->has_bytes) rp_clock_timeout(hub, c, "the head took too long (header_timeout_ms)");
        else if (is_due) rp_conn_finish(hub, c);
        break;
    case RP_PHASE_BODY:
        if (is_due) rp_clock_timeout(hub, c, "the body took too long (body_timeout_ms, body_rate_min)");
        break;
    case RP_PHASE_PARKED:
        rp_poll_answer_init(&answer, NULL);
        if (hub->wheel.now >= c->due) rp_poll_reply(hub, c, &answer, true);
        break;
    case RP_PHASE_STREAM:
        if (hub->wheel.now >= rp_later(c->beat, hub->desc.sse_heartbeat_ms)) rp_push_heartbeat(hub, c);
        break;
    case RP_PHASE_SOCKET: rp_clock_socket(hub, c); break;
    case RP_PHASE_CLOSING:
        if (is_due) rp_conn_finish(hub, c);
        break;
    case RP_PHASE_LINGER:
        if (is_due) rp_conn_drop(hub, c, 1006);
        break;
    case RP_PHASE_WAIT:
    case RP_PHASE_REPLY:
    case RP_PHASE_DEAD: break;
    }
}

static void rp_clock_tick(rtpush_hub *hub, rp_timer *timer) {
    rp_conn *c = RP_OWNER(rp_conn, timer, timer);
    uint64_t now = hub->wheel.now;
    if (c->stalled && now >= rp_later(c->stalled, hub->desc.stall_ms)) rp_conn_drop(hub, c, 1006);
    else if (c->session && c->session->expires && now >= c->session->expires) rp_clock_expired(hub, c);
    else if (c->drain_at && now >= c->drain_at) rp_clock_drain(hub, c);
    else if (c->reader.ahead) rp_clock_ahead(hub, c);
    else rp_clock_phase(hub, c);
    if (c->phase != RP_PHASE_DEAD) rp_conn_arm(hub, c);
}
#endif // RP_SERVER

// ============================================================================
// >>posted  calls from other threads: the only way in  (uses: conn)
// ============================================================================
#ifdef RP_SERVER
static void rp_server_lock(rp_server *server) {
#ifndef RTPUSH_NO_THREADS
    pthread_mutex_lock(&server->lock);
#else
    (void)server;
#endif
}

static void rp_server_unlock(rp_server *server) {
#ifndef RTPUSH_NO_THREADS
    pthread_mutex_unlock(&server->lock);
#else
    (void)server;
#endif
}

// Any thread. fn(hub, arg) runs in the hub's next turn, then `posted` is freed. false: the hub is being destroyed.
static bool rp_posted_push(rtpush_hub *hub, rp_posted *posted, void (*fn)(rtpush_hub *hub, void *arg), void *arg) {
    rp_server *server = hub->server;
    posted->fn = fn;
    posted->arg = arg;
    rp_server_lock(server);
    bool is_closed = server->is_closed, was_empty = !server->posted;
    posted->next = server->posted;
    if (!is_closed) server->posted = posted;
    rp_server_unlock(server);
    if (!is_closed && was_empty) rp_wake_up(&server->wake);
    return !is_closed;
}

// The same with memory of its own, which is the system's: desc.alloc is for the hub's thread alone. 0 or a code: then
// `arg` is still the caller's.
static int rp_posted_send(rtpush_hub *hub, void (*fn)(rtpush_hub *hub, void *arg), void *arg) {
    rp_posted *posted = (rp_posted *)RTPUSH_REALLOC(NULL, sizeof *posted);
    if (!posted) return RTPUSH_E_MEMORY;
    if (rp_posted_push(hub, posted, fn, arg)) return RTPUSH_OK;
    RTPUSH_FREE(posted);
    return RTPUSH_E_STATE;
}

static rp_posted *rp_server_take_posted(rp_server *server) {
    rp_server_lock(server);
    rp_posted *newest = server->posted, *oldest = NULL;
    server->posted = NULL;
    rp_server_unlock(server);
    for (rp_posted *next; newest; newest = next) { // the list is newest first
        next = newest->next;
        newest->next = oldest;
        oldest = newest;
    }
    return oldest;
}

static void rp_server_run_posted(rtpush_hub *hub) {
    rp_posted *posted = rp_server_take_posted(hub->server);
    for (rp_posted *next; posted; posted = next) {
        next = posted->next;
        posted->fn(hub, posted->arg);
        RTPUSH_FREE(posted);
    }
}
#endif // RP_SERVER

// ============================================================================
// >>dial  outgoing connections: URLs, names, connecting, a proxy, bytes  (uses: posted, http, tls)
//
//     NAME -> CONNECT -> [PROXY] -> [TLS] -> OPEN      any -> DEAD
//
// A link gives its owner the bytes that come, in `in`, and sends what lies in `out` when
// the turn ends. Names are looked up by a thread of their own (with RTPUSH_NO_THREADS the
// loop waits for them); each address of a name is tried in turn. The owner sets `due`.
// ============================================================================
#ifdef RP_DIAL
typedef struct rp_url {
    char host[256]; // without brackets; of a Unix socket its path
    char port[8];
    bool is_tls, is_unix, is_ws;
    rtpush_slice path, query; // of the text that was parsed
} rp_url;

// Behind the scheme: [host] [":" port]. Returns what is behind, NULL: malformed.
static const char *rp_url_authority(rp_url *url, const char *p) {
    size_t size = strcspn(p, "/?");
    bool is_bracketed = *p == '[';
    const char *end = p + size, *host_end = is_bracketed ? (const char *)memchr(p, ']', size) : (const char *)memchr(p, ':', size);
    if (is_bracketed && !host_end) return NULL;
    if (!host_end) host_end = end;
    const char *host = p + is_bracketed, *port = host_end + is_bracketed;
    unsigned char address[16];
    size_t host_size = (size_t)(host_end - host);
    if (!host_size || host_size >= sizeof url->host || memchr(p, '@', size)) return NULL;
    if (!is_bracketed && !rp_slice_all(rp_slice(host, host_size), rp_http_is_host)) return NULL;
    memcpy(url->host, host, host_size);
    url->host[host_size] = 0;
    if (is_bracketed && inet_pton(AF_INET6, url->host, address) != 1) return NULL;
    snprintf(url->port, sizeof url->port, "%s", url->is_tls ? "443" : "80");
    if (port == end) return end;
    uint64_t number;
    if (*port != ':' || !rp_slice_number(rp_slice(port + 1, (size_t)(end - port) - 1), &number) || !number || number > 65535) return NULL;
    snprintf(url->port, sizeof url->port, "%u", (unsigned)number);
    return end;
}

static const char *rp_url_unix(rp_url *url, const char *p) {
    const char *mark = strstr(p, ":/");
    size_t size = mark ? (size_t)(mark - p) : strlen(p);
    url->is_unix = true;
    if (!size || size >= sizeof ((struct sockaddr_un *)NULL)->sun_path) return NULL;
    memcpy(url->host, p, size);
    url->host[size] = 0;
    return mark ? mark + 1 : p + size;
}

#ifdef RP_CLIENT
// http, https, ws, wss, unix:SOCKET:/PATH. false: malformed.
static bool rp_url_parse(rp_url *url, const char *text) {
    static const struct { const char *scheme; bool is_tls, is_ws; } known[] = {
        {"http://", false, false}, {"https://", true, false}, {"ws://", false, true}, {"wss://", true, true}};
    const char *rest = NULL;
    memset(url, 0, sizeof *url);
    if (!text || !rp_slice_all(rp_slice_of(text), rp_http_is_target)) return false;
    for (size_t i = 0; i < RP_COUNT(known); i++) {
        size_t size = strlen(known[i].scheme);
        if (strlen(text) < size || !rp_slice_is(rp_slice(text, size), known[i].scheme)) continue;
        url->is_tls = known[i].is_tls;
        url->is_ws = known[i].is_ws;
        rest = rp_url_authority(url, text + size);
    }
    if (!strncmp(text, "unix:", 5)) rest = rp_url_unix(url, text + 5);
    if (!rest) return false;
    url->path = rp_slice(rest, strcspn(rest, "?"));
    if (rest[url->path.size]) url->query = rp_slice_of(rest + url->path.size + 1);
    if (!url->path.size) url->path = rp_slice("/", 1);
    return true;
}
#endif

// As in a Host header (RFC 9110 §7.2).
static void rp_url_host(rp_mem *mem, rp_buf *buf, const rp_url *url, bool has_port) {
    bool is_v6 = strchr(url->host, ':') != NULL, is_default = !strcmp(url->port, url->is_tls ? "443" : "80");
    if (url->is_unix) { rp_buf_text(mem, buf, "localhost"); return; }
    if (is_v6) rp_buf_text(mem, buf, "[");
    rp_buf_text(mem, buf, url->host);
    if (is_v6) rp_buf_text(mem, buf, "]");
    if (!has_port && is_default) return;
    rp_buf_text(mem, buf, ":");
    rp_buf_text(mem, buf, url->port);
}

enum rp_link_phase { RP_LINK_NAME, RP_LINK_CONNECT, RP_LINK_PROXY, RP_LINK_TLS, RP_LINK_OPEN, RP_LINK_DEAD };
enum { RP_ADDRESSES = 8, RP_ADDRESS_MS = 3000, RP_LINK_READ = 65536, RP_LINK_ROOM = 262144, RP_KEYS = 64 };

typedef struct rp_link rp_link;
typedef struct rp_lookup rp_lookup;

// Whose it is: told when it is open, when bytes have come, when it is lost (code, why; OK: the peer has ended).
typedef struct rp_link_owner {
    void (*opened)(rtpush_hub *hub, rp_link *l);
    void (*input)(rtpush_hub *hub, rp_link *l);
    void (*lost)(rtpush_hub *hub, rp_link *l, int code, const char *why);
} rp_link_owner;

// Where to. All of it the owner's, while the link lives.
typedef struct rp_target {
    const rp_url *url, *proxy; // proxy: NULL none
    rp_tls_trust trust;
} rp_target;

struct rp_link {
    rp_slot slot;
    const rp_link_owner *owner;
    void *user;
    rp_target *to;
    int fd;
    uint8_t phase, want;
    bool is_dirty, is_blocked;
    int failed; // a code to fail with when the timer fires
    rp_buf in, out;
    rp_tls *tls;
    rp_lookup *lookup;
    rtpush_peer peers[RP_ADDRESSES];
    uint32_t peer_count, peer_at;
    rp_timer timer;
    rp_link *next, *next_dirty; // next: of the dead
    char why[160];
};

typedef struct rp_dials {
    rp_slab links, clients;
    rp_link *dead, *dirty;
    struct rp_client *dead_clients;
    bool is_closed; // with the hub
    unsigned char keys[RP_KEYS * 4]; // masking keys, taken from the end
    uint32_t keys_left;
} rp_dials;

static const uint64_t RP_TAG_LINK = UINT64_C(1) << 31; // in a tag's index: it is a link's

static uint64_t rp_link_tag(const rp_link *l) { return rp_slab_handle(&l->slot) | RP_TAG_LINK; }

// --- sending, watching ---

static void rp_link_watch(rtpush_hub *hub, rp_link *l) {
    unsigned want = l->phase == RP_LINK_NAME || l->fd < 0 ? 0u : l->phase == RP_LINK_CONNECT ? RTPUSH_WRITE : RTPUSH_READ;
    if (l->is_blocked) want |= RTPUSH_WRITE;
    if (want == l->want || l->phase == RP_LINK_DEAD) return;
    if (!hub->server->backend->watch(hub->server->state, l->fd, rp_link_tag(l), l->want, want)) l->want = (uint8_t)want;
}

// Where to write what is to go out when the turn ends.
static rp_buf *rp_link_out(rtpush_hub *hub, rp_link *l) {
    if (!l->is_dirty) {
        l->is_dirty = true;
        l->next_dirty = hub->dials->dirty;
        hub->dials->dirty = l;
    }
    return &l->out;
}

#ifdef RP_CLIENT
static bool rp_link_has_room(const rp_link *l) { return rp_buf_size(&l->out) < RP_LINK_ROOM; }

// Four bytes from the system's random numbers, never the same ones twice.
static bool rp_dial_key(rtpush_hub *hub, unsigned char key[4]) {
    rp_dials *dials = hub->dials;
    if (!dials->keys_left) {
        if (hub->sys.random(hub->sys.user, dials->keys, sizeof dials->keys)) return false;
        dials->keys_left = RP_KEYS;
    }
    memcpy(key, dials->keys + 4 * --dials->keys_left, 4);
    return true;
}

static void rp_link_frame(rtpush_hub *hub, rp_link *l, unsigned opcode, const void *data, size_t size) {
    unsigned char key[4];
    rp_buf *out = rp_link_out(hub, l);
    if (rp_dial_key(hub, key)) rp_ws_put_masked(&hub->mem, out, opcode, data, size, key);
    else out->is_broken = true;
}
#endif

static ptrdiff_t rp_link_send(rtpush_hub *hub, rp_link *l) {
    rtpush_iov iov;
    iov.base = rp_buf_slice(&l->out).data;
    iov.len = rp_buf_size(&l->out);
    if (l->tls) return rp_tls_send(l->tls, &iov, iov.len ? 1 : 0);
    return iov.len ? hub->sys.send(hub->sys.user, l->fd, &iov, 1) : 0;
}

// Sends what it can. 0, or -errno.
static int rp_link_flush(rtpush_hub *hub, rp_link *l) {
    if (l->out.is_broken) return -ENOMEM;
    if (l->phase < RP_LINK_PROXY || l->phase == RP_LINK_DEAD) return 0;
    if (l->phase == RP_LINK_TLS) return 0; // what is in `out` waits for the handshake
    for (;;) {
        ptrdiff_t n = rp_link_send(hub, l);
        if (n == -EINTR) continue;
        if (n < 0 && !rp_errno_is_again(n)) return (int)n;
        if (n > 0) l->out.start += (size_t)n;
        if (n <= 0 || !rp_buf_size(&l->out)) break;
    }
    l->is_blocked = rp_buf_size(&l->out) || (l->tls && rp_tls_wants_write(l->tls));
    rp_link_watch(hub, l);
    return 0;
}

// --- the end ---

// What a thread fills. `hub` is NULL once nobody waits for it; whoever comes last frees it.
struct rp_lookup {
    rp_posted posted; // how the answer comes back; freed with it
    rtpush_hub *hub;  // under the lock
    uint64_t link;
    char host[256], port[8];
    rtpush_peer peers[RP_ADDRESSES];
    uint32_t count;
    int failed; // getaddrinfo's
#ifndef RTPUSH_NO_THREADS
    pthread_mutex_t lock;
#endif
};

// Nobody waits for the answer any more. One that was posted finds no link.
static void rp_lookup_forget(rp_link *l) {
    if (!l->lookup) return;
#ifndef RTPUSH_NO_THREADS
    rp_lookup *lookup = l->lookup;
    pthread_mutex_lock(&lookup->lock);
    lookup->hub = NULL;
    pthread_mutex_unlock(&lookup->lock);
#endif
    l->lookup = NULL;
}

// Silent: the owner is not told. Freed when the turn ends.
static void rp_link_close(rtpush_hub *hub, rp_link *l) {
    if (!l || l->phase == RP_LINK_DEAD) return;
    if (l->phase == RP_LINK_OPEN) rp_link_flush(hub, l); // last words, as far as they go
    rp_lookup_forget(l);
    rp_timer_stop(&hub->wheel, &l->timer);
    if (l->tls) rp_tls_end(l->tls);
    if (l->want) hub->server->backend->watch(hub->server->state, l->fd, rp_link_tag(l), l->want, 0);
    if (l->fd >= 0) hub->sys.close(hub->sys.user, l->fd);
    l->fd = -1;
    l->want = 0;
    l->phase = RP_LINK_DEAD;
    l->next = hub->dials->dead;
    hub->dials->dead = l;
}

static void rp_link_fail(rtpush_hub *hub, rp_link *l, int code, const char *why) {
    if (l->phase == RP_LINK_DEAD) return;
    if (why != l->why) snprintf(l->why, sizeof l->why, "%s", why);
    rp_link_close(hub, l);
    l->owner->lost(hub, l, code, l->why);
}

static void rp_link_fail_later(rtpush_hub *hub, rp_link *l, int code, const char *why) {
    l->failed = code;
    snprintf(l->why, sizeof l->why, "%s", why);
    rp_timer_start(&hub->wheel, &l->timer, hub->wheel.now);
}

static void rp_link_free(rtpush_hub *hub, rp_link *l) {
    rp_link **at = &hub->dials->dirty;
    while (l->is_dirty && *at && *at != l) at = &(*at)->next_dirty;
    if (l->is_dirty && *at) *at = l->next_dirty;
    rp_buf_free(&hub->mem, &l->in);
    rp_buf_free(&hub->mem, &l->out);
    rp_tls_free(&hub->mem, l->tls);
    rp_slab_give(&hub->dials->links, &l->slot);
}

static void rp_dial_reap(rtpush_hub *hub) {
    rp_link *l;
    while ((l = hub->dials->dead) != NULL) {
        hub->dials->dead = l->next;
        rp_link_free(hub, l);
    }
}

// All links send what they have.
static void rp_dial_flush(rtpush_hub *hub) {
    rp_link *l;
    while ((l = hub->dials->dirty) != NULL) {
        hub->dials->dirty = l->next_dirty;
        l->is_dirty = false;
        int failed = rp_link_flush(hub, l);
        if (failed) rp_link_fail(hub, l, failed == -ENOMEM ? RTPUSH_E_MEMORY : RTPUSH_E_CLOSED, strerror(-failed));
    }
}

// --- connecting ---

static void rp_link_opened(rtpush_hub *hub, rp_link *l) {
    l->phase = RP_LINK_OPEN;
    rp_link_watch(hub, l);
    l->owner->opened(hub, l);
}

static void rp_link_handshake(rtpush_hub *hub, rp_link *l) {
    int done = rp_tls_handshake(l->tls);
    if (done > 0) { l->is_blocked = false; rp_link_opened(hub, l); return; }
    if (done < 0) { rp_link_fail(hub, l, done == -EPROTO ? RTPUSH_E_TLS : RTPUSH_E_CONNECT, rp_tls_why(l->tls)); return; }
    l->is_blocked = rp_tls_wants_write(l->tls);
    rp_link_watch(hub, l);
}

// Connected, or through the proxy: TLS, if that is wanted.
static void rp_link_secure(rtpush_hub *hub, rp_link *l) {
    const char *why = "out of memory";
    if (!l->to->url->is_tls) { rp_link_opened(hub, l); return; }
    l->tls = rp_tls_connect(rp_tls_prepare(&hub->tls, &hub->mem, &hub->sys), l->fd, &l->to->trust, l->to->url->host, &why);
    if (!l->tls) { rp_link_fail(hub, l, RTPUSH_E_TLS, why); return; }
    l->phase = RP_LINK_TLS;
    rp_link_handshake(hub, l);
}

static void rp_link_connected(rtpush_hub *hub, rp_link *l) {
    rp_timer_stop(&hub->wheel, &l->timer);
    if (!l->to->proxy) { rp_link_secure(hub, l); return; }
    rp_buf *out = rp_link_out(hub, l);
    l->phase = RP_LINK_PROXY;
    rp_buf_text(&hub->mem, out, "CONNECT ");
    rp_url_host(&hub->mem, out, l->to->url, true);
    rp_buf_text(&hub->mem, out, " HTTP/1.1\r\nHost: ");
    rp_url_host(&hub->mem, out, l->to->url, true);
    rp_buf_text(&hub->mem, out, "\r\n\r\n");
    rp_link_watch(hub, l);
}

// RFC 9110 §9.3.6: any 2xx is the tunnel.
static void rp_link_proxied(rtpush_hub *hub, rp_link *l) {
    rtpush_head *head = &hub->server->head;
    char why[80];
    ptrdiff_t n = rtpush_parse_answer(head, rp_buf_slice(&l->in).data, rp_buf_size(&l->in), 0, 0);
    if (!n) return;
    if (n > 0 && head->status / 100 == 2) {
        l->in.start += (size_t)n;
        rp_link_secure(hub, l);
        return;
    }
    snprintf(why, sizeof why, n < 0 ? "the proxy's answer is malformed" : "the proxy answers %d", head->status);
    rp_link_fail(hub, l, RTPUSH_E_CONNECT, why);
}

// The next address of the list; when there is none left, the end.
static void rp_link_next_peer(rtpush_hub *hub, rp_link *l, int failed) {
    const rp_url *first = l->to->proxy ? l->to->proxy : l->to->url;
    if (l->want) hub->server->backend->watch(hub->server->state, l->fd, rp_link_tag(l), l->want, 0);
    if (l->fd >= 0) hub->sys.close(hub->sys.user, l->fd);
    l->fd = -1;
    l->want = 0;
    while (l->fd < 0 && l->peer_at < l->peer_count) {
        l->fd = hub->sys.connect(hub->sys.user, &l->peers[l->peer_at++], first->is_unix ? first->host : NULL);
        if (l->fd < 0) failed = l->fd;
    }
    l->phase = RP_LINK_CONNECT;
    if (l->fd < 0) { rp_link_fail_later(hub, l, RTPUSH_E_CONNECT, strerror(-failed)); return; }
    if (l->peer_at < l->peer_count) rp_timer_start(&hub->wheel, &l->timer, hub->wheel.now + RP_ADDRESS_MS);
    rp_link_watch(hub, l);
    if (!l->want) rp_link_fail_later(hub, l, RTPUSH_E_SYSTEM, "the back-end cannot watch it");
}

static void rp_link_timer(rtpush_hub *hub, rp_timer *timer) {
    rp_link *l = RP_OWNER(rp_link, timer, timer);
    if (l->failed) rp_link_fail(hub, l, l->failed, l->why);
    else if (l->phase == RP_LINK_CONNECT) rp_link_next_peer(hub, l, -ETIMEDOUT);
}

// --- names ---

static void rp_lookup_run(rp_lookup *lookup, int flags) {
    struct addrinfo hints, *found = NULL;
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = flags | AI_NUMERICSERV;
    lookup->failed = getaddrinfo(lookup->host, lookup->port, &hints, &found);
    for (const struct addrinfo *i = found; i && lookup->count < RP_ADDRESSES; i = i->ai_next) {
        struct sockaddr_storage address;
        if ((i->ai_family != AF_INET && i->ai_family != AF_INET6) || i->ai_addrlen > sizeof address) continue;
        memset(&address, 0, sizeof address);
        memcpy(&address, i->ai_addr, i->ai_addrlen);
        rp_peer_of(&lookup->peers[lookup->count++], &address);
    }
    if (found) freeaddrinfo(found);
}

// The thread is through with it.
static void rp_lookup_left(rp_lookup *lookup) {
#ifndef RTPUSH_NO_THREADS
    pthread_mutex_lock(&lookup->lock);
    pthread_mutex_unlock(&lookup->lock);
    pthread_mutex_destroy(&lookup->lock);
#else
    (void)lookup;
#endif
}

// On the hub's thread, with the answer.
static void rp_lookup_done(rtpush_hub *hub, void *arg) {
    rp_lookup *lookup = (rp_lookup *)arg;
    rp_lookup_left(lookup);
    rp_link *l = hub->dials ? (rp_link *)rp_slab_find(&hub->dials->links, lookup->link) : NULL;
    if (l && l->phase == RP_LINK_NAME) {
        l->lookup = NULL;
        memcpy(l->peers, lookup->peers, sizeof l->peers);
        l->peer_count = lookup->count;
        if (lookup->count) rp_link_next_peer(hub, l, 0);
        else rp_link_fail(hub, l, RTPUSH_E_CONNECT, lookup->failed ? gai_strerror(lookup->failed) : "the name has no address");
    }
}

#ifndef RTPUSH_NO_THREADS
static void *rp_lookup_thread(void *arg) {
    rp_lookup *lookup = (rp_lookup *)arg;
    rp_lookup_run(lookup, 0);
    pthread_mutex_lock(&lookup->lock);
    bool is_taken = lookup->hub && rp_posted_push(lookup->hub, &lookup->posted, rp_lookup_done, lookup);
    pthread_mutex_unlock(&lookup->lock);
    if (is_taken) return NULL;
    pthread_mutex_destroy(&lookup->lock);
    RTPUSH_FREE(lookup);
    return NULL;
}

// No signal is delivered to the thread: the program's handlers run on its own threads.
static bool rp_lookup_start(rp_lookup *lookup) {
    pthread_t thread;
    pthread_attr_t attr;
    sigset_t all, kept;
    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &kept);
    bool is_started = !pthread_create(&thread, &attr, rp_lookup_thread, lookup);
    pthread_sigmask(SIG_SETMASK, &kept, NULL);
    pthread_attr_destroy(&attr);
    return is_started;
}
#else
static bool rp_lookup_start(rp_lookup *lookup) {
    rp_lookup_run(lookup, 0);
    return rp_posted_push(lookup->hub, &lookup->posted, rp_lookup_done, lookup);
}
#endif

static void rp_link_look_up(rtpush_hub *hub, rp_link *l, const rp_url *url) {
    rp_lookup *lookup = (rp_lookup *)RTPUSH_REALLOC(NULL, sizeof *lookup);
    if (!lookup) { rp_link_fail_later(hub, l, RTPUSH_E_MEMORY, ""); return; }
    memset(lookup, 0, sizeof *lookup);
#ifndef RTPUSH_NO_THREADS
    pthread_mutex_init(&lookup->lock, NULL);
#endif
    memcpy(lookup->host, url->host, sizeof lookup->host);
    memcpy(lookup->port, url->port, sizeof lookup->port);
    lookup->hub = hub;
    lookup->link = rp_slab_handle(&l->slot);
    rp_lookup_run(lookup, AI_NUMERICHOST); // an address is no name: it needs no looking up
    if (!lookup->failed && lookup->count) {
        memcpy(l->peers, lookup->peers, sizeof l->peers);
        l->peer_count = lookup->count;
        rp_lookup_left(lookup);
        RTPUSH_FREE(lookup);
        rp_link_next_peer(hub, l, 0);
        return;
    }
    l->lookup = lookup;
    if (rp_lookup_start(lookup)) return;
    l->lookup = NULL;
    rp_lookup_left(lookup);
    RTPUSH_FREE(lookup);
    rp_link_fail_later(hub, l, RTPUSH_E_SYSTEM, "no thread to look the name up");
}

// Begins a connection; `to` lives as long. What becomes of it the owner is told later. NULL: no memory.
static rp_link *rp_link_open(rtpush_hub *hub, const rp_link_owner *owner, void *user, rp_target *to) {
    rp_link *l = (rp_link *)rp_slab_take(&hub->dials->links);
    const rp_url *first = to->proxy ? to->proxy : to->url;
    if (!l) return NULL;
    l->owner = owner;
    l->user = user;
    l->to = to;
    l->fd = -1;
    l->timer.fire = rp_link_timer;
    if (!first->is_unix) { rp_link_look_up(hub, l, first); return l; }
    l->peer_count = 1;
    rp_link_next_peer(hub, l, 0);
    return l;
}

// --- what is ready ---

// How a connection attempt ended: 0, or -errno.
static int rp_link_error(int fd) {
    int error = 0;
    socklen_t size = sizeof error;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) ? 0 : -error; // not a socket of the system's: it sends, or fails
}

static ptrdiff_t rp_link_recv(rtpush_hub *hub, rp_link *l, char *room, size_t cap) {
    ptrdiff_t n;
    do n = l->tls ? rp_tls_recv(l->tls, room, cap) : hub->sys.recv(hub->sys.user, l->fd, room, cap);
    while (n == -EINTR);
    return n;
}

// The end that came with the last data.
static void rp_link_receive_end(rtpush_hub *hub, rp_link *l) {
    ptrdiff_t n = rp_link_recv(hub, l, hub->server->input, hub->server->input_cap);
    if (!rp_errno_is_again(n)) rp_link_fail(hub, l, n ? RTPUSH_E_CLOSED : RTPUSH_OK, n ? rp_tls_why(l->tls) : "the server ended the connection");
}

// One receive: then the others' turn comes.
static void rp_link_receive(rtpush_hub *hub, rp_link *l) {
    char *room = rp_buf_room(&hub->mem, &l->in, RP_LINK_READ);
    if (!room) { rp_link_fail(hub, l, RTPUSH_E_MEMORY, "out of memory"); return; }
    ptrdiff_t n = rp_link_recv(hub, l, room, RP_LINK_READ);
    if (n == 0) { rp_link_fail(hub, l, RTPUSH_OK, "the server ended the connection"); return; }
    if (n < 0 && !rp_errno_is_again(n)) {
        bool is_said = l->tls && n == -EPROTO; // in TLS 1.3 a client hears only here that its certificate is refused
        rp_link_fail(hub, l, is_said ? RTPUSH_E_TLS : RTPUSH_E_CLOSED, is_said ? rp_tls_why(l->tls) : strerror((int)-n));
        return;
    }
    l->in.end += (size_t)RP_MAX(n, (ptrdiff_t)0);
    if (n > 0 && l->phase == RP_LINK_PROXY) rp_link_proxied(hub, l);
    else if (n > 0) l->owner->input(hub, l);
    if (n > 0 && l->phase == RP_LINK_OPEN && l->tls && rp_tls_is_over(l->tls)) { rp_link_receive_end(hub, l); return; }
    if (l->phase != RP_LINK_DEAD && !rp_buf_size(&l->in)) rp_buf_free(&hub->mem, &l->in); // an idle one keeps nothing
}

#ifdef RP_CLIENT
// Has nothing come over it since, not even its end? Only then may it carry another request.
static bool rp_link_is_quiet(rtpush_hub *hub, rp_link *l) { return rp_errno_is_again(rp_link_recv(hub, l, hub->server->input, hub->server->input_cap)); }
#endif

static void rp_link_ready(rtpush_hub *hub, rp_link *l, unsigned ready) {
    switch ((enum rp_link_phase)l->phase) {
    case RP_LINK_CONNECT: {
        int failed = rp_link_error(l->fd);
        if (failed) rp_link_next_peer(hub, l, failed);
        else rp_link_connected(hub, l);
        return;
    }
    case RP_LINK_TLS: rp_link_handshake(hub, l); return;
    case RP_LINK_PROXY:
    case RP_LINK_OPEN:
        if (ready & RTPUSH_WRITE) rp_link_out(hub, l);
        if (ready & RTPUSH_READ) rp_link_receive(hub, l);
        return;
    case RP_LINK_NAME:
    case RP_LINK_DEAD: return;
    }
}

static void rp_dial_ready(rtpush_hub *hub, const rtpush_event *event) {
    rp_link *l = hub->dials ? (rp_link *)rp_slab_find(&hub->dials->links, event->tag & ~RP_TAG_LINK) : NULL;
    if (l) rp_link_ready(hub, l, event->ready);
}

static bool rp_dial_has_work(const rtpush_hub *hub) { return hub->dials && (hub->dials->dirty || hub->dials->dead); }

static bool rp_dial_prepare(rtpush_hub *hub) {
    if (hub->dials) return true;
    hub->dials = (rp_dials *)rp_mem_get(&hub->mem, sizeof *hub->dials);
    if (hub->dials) rp_slab_init(&hub->dials->links, &hub->mem, sizeof(rp_link));
    return hub->dials != NULL;
}

static void rp_dial_free(rtpush_hub *hub) {
    if (!hub->dials) return;
    rp_slab_free(&hub->dials->links);
    rp_slab_free(&hub->dials->clients);
    rp_mem_free(&hub->mem, hub->dials);
    hub->dials = NULL;
}
#endif // RP_DIAL

// ============================================================================
// >>exchange  a request over a link, and its answer  (uses: dial, http)
//
//     IDLE -> OPENING -> HEAD -> BODY -> IDLE        and over one link again
//                        HEAD -> SOCKET              a 101: frames from here on
//
// The answer's head is shown to the owner, who says whether the body is gathered, or
// handed on as it comes. What breaks HTTP ends the exchange with RTPUSH_E_PROTOCOL.
// ============================================================================
#ifdef RP_CLIENT
enum rp_exchange_step { RP_X_IDLE, RP_X_OPENING, RP_X_HEAD, RP_X_BODY, RP_X_SOCKET };
enum rp_exchange_framing { RP_X_LENGTH, RP_X_CHUNKED, RP_X_TO_END };
enum { RP_X_INTERIM_MAX = 8 }; // 1xx answers before the real one
enum { RP_X_CROSSED_MS = 1000 }; // a kept connection that ends so soon after a request was closed while we wrote (RFC 9112 §9.3.1)

typedef struct rp_exchange rp_exchange;

typedef struct rp_exchange_owner {
    void (*head)(rtpush_hub *hub, rp_exchange *x, const rtpush_head *head); // may stop it, may set is_streamed
    void (*bytes)(rtpush_hub *hub, rp_exchange *x, const char *data, size_t size); // of a streamed body
    size_t (*frame)(rtpush_hub *hub, rp_exchange *x, char *data, size_t size); // of a socket; what was taken, 0: more
    void (*done)(rtpush_hub *hub, rp_exchange *x); // the body is whole; unless streamed it is in .body
    void (*lost)(rtpush_hub *hub, rp_exchange *x, int code, const char *why); // OK: the server ended what may end so
} rp_exchange_owner;

struct rp_exchange {
    const rp_exchange_owner *owner;
    const rp_link_owner *links; // ours, below
    rp_target *to;
    rp_link *link;
    uint8_t step, framing;
    bool keeps;       // the link may carry another request
    bool is_reused;   // it has carried one before this
    bool is_streamed;
    int status;
    unsigned interim;
    rtpush_chunked chunked;
    uint64_t left, wrote_ms; // wrote: when the request went out
    size_t body_max;
    rp_buf request, body; // request: kept until the answer begins
};

static void rp_exchange_stop(rtpush_hub *hub, rp_exchange *x) {
    rp_link *l = x->link;
    x->link = NULL;
    x->step = RP_X_IDLE;
    rp_link_close(hub, l);
}

static void rp_exchange_free(rtpush_hub *hub, rp_exchange *x) {
    rp_exchange_stop(hub, x);
    rp_buf_free(&hub->mem, &x->request);
    rp_buf_free(&hub->mem, &x->body);
}

static void rp_exchange_fail(rtpush_hub *hub, rp_exchange *x, int code, const char *why) {
    rp_exchange_stop(hub, x);
    x->owner->lost(hub, x, code, why);
}

// --- sending ---

static void rp_exchange_write(rtpush_hub *hub, rp_exchange *x) {
    rp_buf *out = rp_link_out(hub, x->link);
    x->step = RP_X_HEAD;
    x->wrote_ms = hub->wheel.now;
    rp_buf_slice_put(&hub->mem, out, rp_buf_slice(&x->request));
}

static void rp_exchange_opened(rtpush_hub *hub, rp_link *l) { rp_exchange_write(hub, (rp_exchange *)l->user); }

// Sends .request, over the link it has or a new one. false: no memory.
static bool rp_exchange_start(rtpush_hub *hub, rp_exchange *x, bool may_reuse) {
    x->is_streamed = false;
    x->interim = 0;
    rp_buf_rewind(&x->body);
    x->is_reused = may_reuse && x->link && x->keeps && rp_link_is_quiet(hub, x->link);
    if (x->request.is_broken) return false;
    if (x->is_reused) { rp_exchange_write(hub, x); return true; }
    rp_exchange_stop(hub, x);
    x->link = rp_link_open(hub, x->links, x, x->to);
    x->step = RP_X_OPENING;
    return x->link != NULL;
}

// --- the answer ---

// RFC 9112 §6.3: where the body ends.
static void rp_exchange_frame(rp_exchange *x, const rtpush_head *head) {
    bool has_none = head->status == 204 || head->status == 304;
    memset(&x->chunked, 0, sizeof x->chunked);
    x->framing = head->is_chunked ? RP_X_CHUNKED : has_none || head->has_length ? RP_X_LENGTH : RP_X_TO_END;
    x->left = has_none ? 0 : head->length;
    x->keeps = head->keep_alive && x->framing != RP_X_TO_END;
}

static void rp_exchange_done(rtpush_hub *hub, rp_exchange *x) {
    rp_link *l = x->link;
    x->step = RP_X_IDLE;
    if (!x->keeps) {
        x->link = NULL;
        rp_link_close(hub, l);
    }
    x->owner->done(hub, x);
}

static size_t rp_exchange_head(rtpush_hub *hub, rp_exchange *x, const char *data, size_t size) {
    rtpush_head *head = &hub->server->head;
    ptrdiff_t n = rtpush_parse_answer(head, data, size, 0, 0);
    if (n == 0) return 0;
    if (n < 0) {
        rp_exchange_fail(hub, x, RTPUSH_E_PROTOCOL, n == -431 ? "the answer's head is larger than 16 KiB, or has more than 64 fields"
                         : n == -501 ? "a transfer coding other than chunked" : "the answer is not HTTP/1.1");
        return size;
    }
    if (head->status / 100 == 1 && head->status != 101) { // RFC 9110 §15.2
        if (++x->interim > RP_X_INTERIM_MAX) rp_exchange_fail(hub, x, RTPUSH_E_PROTOCOL, "too many interim answers");
        return (size_t)n;
    }
    rtpush_slice coding = rp_http_header(head, "content-encoding");
    if (coding.size && !rp_slice_is(coding, "identity")) {
        rp_exchange_fail(hub, x, RTPUSH_E_PROTOCOL, "a content coding that was not asked for");
        return size;
    }
    x->status = head->status;
    x->step = head->status == 101 ? RP_X_SOCKET : RP_X_BODY;
    rp_exchange_frame(x, head);
    if (x->framing == RP_X_LENGTH && !x->left && (size_t)n < size) x->keeps = false; // an answer that nobody asked for follows
    x->owner->head(hub, x, head);
    if (x->step == RP_X_BODY && x->framing == RP_X_LENGTH && !x->left) rp_exchange_done(hub, x);
    return (size_t)n;
}

// Part of the body. false: it is over the limit.
static bool rp_exchange_bytes(rtpush_hub *hub, rp_exchange *x, rtpush_slice part) {
    if (!part.size) return true;
    if (x->is_streamed) { x->owner->bytes(hub, x, part.data, part.size); return true; }
    return part.size <= x->body_max - RP_MIN(x->body_max, rp_buf_size(&x->body)) && rp_buf_put(&hub->mem, &x->body, part.data, part.size);
}

static size_t rp_exchange_body(rtpush_hub *hub, rp_exchange *x, const char *data, size_t size) {
    const rp_link *l = x->link;
    rtpush_slice part = rp_slice(data, size);
    size_t came = size;
    if (x->framing == RP_X_CHUNKED) {
        ptrdiff_t n = rtpush_parse_chunked(&x->chunked, data, size, &part);
        if (n < 0) { rp_exchange_fail(hub, x, RTPUSH_E_PROTOCOL, "a malformed chunk"); return size; }
        size = (size_t)n;
    } else if (x->framing == RP_X_LENGTH) {
        size = part.size = (size_t)RP_MIN((uint64_t)size, x->left);
        x->left -= size;
    }
    if (!rp_exchange_bytes(hub, x, part)) { rp_exchange_fail(hub, x, RTPUSH_E_PROTOCOL, "the answer's body is over the limit (message_max)"); return size; }
    if (x->link != l || x->step != RP_X_BODY) return size; // stopped by what was in it
    bool is_done = x->framing == RP_X_CHUNKED ? x->chunked.is_done : x->framing == RP_X_LENGTH && !x->left;
    if (size < came) x->keeps = false; // an answer that nobody asked for follows
    if (is_done) rp_exchange_done(hub, x);
    return size;
}

static void rp_exchange_input(rtpush_hub *hub, rp_link *l) {
    rp_exchange *x = (rp_exchange *)l->user;
    size_t used = 1;
    while (used && x->link == l && rp_buf_size(&l->in)) {
        char *data = l->in.data + l->in.start;
        size_t size = rp_buf_size(&l->in);
        switch ((enum rp_exchange_step)x->step) {
        case RP_X_HEAD: used = rp_exchange_head(hub, x, data, size); break;
        case RP_X_BODY: used = rp_exchange_body(hub, x, data, size); break;
        case RP_X_SOCKET: used = x->owner->frame(hub, x, data, size); break;
        case RP_X_IDLE:
        case RP_X_OPENING: rp_exchange_stop(hub, x); return; // nothing was asked: this link is not used again
        }
        l->in.start += used;
    }
}

static void rp_exchange_lost(rtpush_hub *hub, rp_link *l, int code, const char *why) {
    rp_exchange *x = (rp_exchange *)l->user;
    enum rp_exchange_step step = (enum rp_exchange_step)x->step;
    bool is_fresh = step == RP_X_HEAD && !rp_buf_size(&l->in) && hub->wheel.now < x->wrote_ms + RP_X_CROSSED_MS; // else a poll that was held
    if (x->link != l) return;
    x->link = NULL;
    if (step == RP_X_IDLE) return;
    if (is_fresh && x->is_reused && rp_exchange_start(hub, x, false)) return;
    x->step = RP_X_IDLE;
    if (step == RP_X_BODY && x->framing == RP_X_TO_END && !code) { x->owner->done(hub, x); return; }
    if (!code && step != RP_X_SOCKET) code = RTPUSH_E_CLOSED;
    x->owner->lost(hub, x, code, why);
}

static const rp_link_owner rp_exchange_links = {rp_exchange_opened, rp_exchange_input, rp_exchange_lost};
#endif // RP_CLIENT

// ============================================================================
// >>client  a reader of a server elsewhere, that comes back: state, place, end  (uses: exchange, longpoll)
//
//     CONNECTING -> OPEN        a transport works
//     CONNECTING -> CONNECTING  it does not: the next of the list, at once
//     any -> WAITING            after a random time, or the one that the server named
//     any -> CLOSED             for good
//
// One exchange reads (a socket, a stream, poll after poll), one posts what no socket takes.
// One cursor is the place in the log, over all topics and transports. Nothing that a server
// sends is believed unseen: what breaks its protocol ends the connection, not the program.
// ============================================================================
#ifdef RP_CLIENT
enum { RP_ORDER_MAX = 4, RP_SENT_MAX = 256, RP_KEY_SIZE = 24, RP_FIRST_EVENT_MS = 5000, RP_GRACE_MS = 10000, RP_GOODBYE_MS = 2000, RP_REASON_MS = 1000, RP_REASON_MAX = 65536 };

// A topic that is wanted. It may have messages beyond the client's cursor, when it got its past on its own.
typedef struct rp_want {
    struct rp_want *next;
    char since[RP_CURSOR_MAX + 34]; // where its past begins, "" from now; then what of it has come
    bool is_own;     // the URL's
    bool is_joined;  // at the client's cursor
    bool is_asked;   // of the connection at hand
    bool has_at;
    rtpush_cursor at; // it has everything up to here, though the client's cursor may be before it
    uint64_t ref;
    size_t size;
    char name[1];
} rp_want;

enum rp_via { RP_VIA_NONE, RP_VIA_SOCKET, RP_VIA_POST };

// A publish under way. Its texts follow the struct.
typedef struct rp_parcel {
    struct rp_parcel *next;
    uint64_t ref, began;
    bool is_ephemeral;
    uint8_t kind, via; // via: rp_via, how it is under way
    unsigned denied;
    rtpush_published done;
    void *done_user;
    const char *topic, *event, *key, *data; // topic: NULL, the URL's
    size_t size;
} rp_parcel;

// How a connection ended.
typedef struct rp_loss {
    int code, status;
    int64_t delay_ms;  // what the server said, -1: nothing
    bool is_away;      // nobody was reached: no transport is to blame
    bool is_final;     // never again
    const char *why;
} rp_loss;

typedef struct rp_client {
    rp_slot slot;
    struct rp_client *next;  // of the dead
    rtpush_hub *hub;
    rtpush_client_desc desc; // strings in `texts`
    char *texts;
    rp_url url, proxy;
    rp_buf location;         // what a redirect changed the URL to
    rp_buf query;            // the URL's, without what is ours
    rtpush_slice base;       // of the path: up to the topic
    rp_target to;
    rp_exchange read, post;
    rp_timer timer;
    uint64_t due, retry_at, better_at, opened, asked; // due: of what `read` waits for
    uint64_t passed_until[RTPUSH_SHORT_POLL + 1];     // by transport
    uint8_t order[RP_ORDER_MAX], order_count, index, failed; // failed: bits of `order` in this round
    uint8_t state, transport;
    bool is_elsewhere;           // the URL is not under the mount: it is taken for a topic's, whose name is not known
    bool is_past;                // what is read is the past of `catching`
    bool is_starved, is_changed; // no memory to begin; the topics are others
    bool is_pinged, has_news, is_enveloped; // news: the last poll brought some; enveloped: SSE with ?events=envelope
    unsigned tries, sent_away, denied, redirected;
    int refused;       // the status that was no yes, while its reason is read
    int64_t refused_ms; // its Retry-After
    int64_t away_ms;   // the server has asked to come back after so long; -1: it has not
    int64_t retry_ms, silence_ms, post_delay_ms;
    uint64_t post_at, post_due;
    unsigned post_tries;
    rp_want *wants, *catching; // catching: whose past is polled for
    rp_parcel *parcels;
    size_t queued;
    uint64_t last_ref;
    rtpush_cursor cursor;
    bool has_cursor, is_stale; // stale: a gap of another epoch was told, the next message moves the cursor there
    rp_buf gap;                // the last one told, until a message follows
    char session[RP_KEY_SIZE + 1], key[25]; // key: Sec-WebSocket-Key
    rp_ws ws;
    rp_stream_in events;
    rp_buf scratch, token;
} rp_client;

static bool rp_client_is_over(const rp_client *c) { return c->state == RTPUSH_CLIENT_CLOSED; }
static rtpush_client rp_client_handle(const rp_client *c) { return rp_slab_handle(&c->slot); }
static bool rp_client_is_socket(const rp_client *c) { return c->transport == RTPUSH_ENVELOPE || c->transport == RTPUSH_WEBSOCKET; }

static rp_client *rp_client_find(rtpush_hub *hub, rtpush_client handle) {
    rp_client *c = hub->dials ? (rp_client *)rp_slab_find(&hub->dials->clients, handle) : NULL;
    return c && !rp_client_is_over(c) ? c : NULL;
}

static bool rp_client_random(rtpush_hub *hub, char out[RP_KEY_SIZE + 1]) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz234567";
    unsigned char bytes[RP_KEY_SIZE];
    if (hub->sys.random(hub->sys.user, bytes, sizeof bytes)) return false;
    for (unsigned i = 0; i < RP_KEY_SIZE; i++) out[i] = letters[bytes[i] & 31];
    out[RP_KEY_SIZE] = 0;
    return true;
}

// --- its timer: the earliest of what it waits for ---

static void rp_client_arm(rp_client *c) {
    if (rp_client_is_over(c)) return;
    uint64_t due = c->state == RTPUSH_CLIENT_WAITING ? c->retry_at : c->due;
    if (c->better_at) due = RP_MIN(due, c->better_at);
    if (c->post_at) due = RP_MIN(due, c->post_at);
    if (c->post_due) due = RP_MIN(due, c->post_due);
    if (c->parcels) due = RP_MIN(due, c->parcels->began + (uint64_t)c->desc.publish_ms);
    if (due == UINT64_MAX) rp_timer_stop(&c->hub->wheel, &c->timer);
    else rp_timer_start(&c->hub->wheel, &c->timer, due);
}

static void rp_client_wait_for(rp_client *c, int64_t ms) {
    c->due = ms < 0 ? UINT64_MAX : c->hub->wheel.now + (uint64_t)ms;
    rp_client_arm(c);
}

// --- state ---

static void rp_client_tell(rp_client *c, int state, const rp_loss *loss, int64_t delay_ms) {
    rtpush_client_status status;
    memset(&status, 0, sizeof status);
    c->state = (uint8_t)state;
    status.state = state;
    status.transport = c->transport;
    status.code = loss ? loss->code : RTPUSH_OK;
    status.status = loss ? loss->status : 0;
    status.reason = loss && loss->why ? loss->why : "";
    status.delay_ms = delay_ms;
    if (c->desc.on_state) c->desc.on_state(c->hub, rp_client_handle(c), &status, c->desc.user);
}

static void rp_parcel_end(rp_client *c, rp_parcel *parcel, uint64_t seq, int code) {
    rp_parcel **at = &c->parcels;
    while (*at != parcel) at = &(*at)->next;
    *at = parcel->next;
    c->queued -= parcel->size;
    if (parcel->done) parcel->done(c->hub, parcel->ref, seq, code, parcel->done_user);
    rp_mem_free(&c->hub->mem, parcel);
}

// For good. It is freed when the turn ends.
static void rp_client_end(rp_client *c, const rp_loss *loss) {
    if (rp_client_is_over(c)) return;
    rp_exchange_stop(c->hub, &c->read);
    rp_exchange_stop(c->hub, &c->post);
    rp_timer_stop(&c->hub->wheel, &c->timer);
    c->due = UINT64_MAX;
    rp_client_tell(c, RTPUSH_CLIENT_CLOSED, loss, 0);
    while (c->parcels) rp_parcel_end(c, c->parcels, 0, RTPUSH_E_GONE);
    c->next = c->hub->dials->dead_clients;
    c->hub->dials->dead_clients = c;
}

static void rp_client_free(rtpush_hub *hub, rp_client *c) {
    rp_mem *mem = &hub->mem;
    rp_exchange_free(hub, &c->read);
    rp_exchange_free(hub, &c->post);
    for (rp_want *want = c->wants, *next; want; want = next) {
        next = want->next;
        rp_mem_free(mem, want);
    }
    rp_stream_in_free(mem, &c->events);
    rp_buf_free(mem, &c->ws.message);
    rp_buf_free(mem, &c->gap);
    rp_buf_free(mem, &c->location);
    rp_buf_free(mem, &c->query);
    rp_buf_free(mem, &c->scratch);
    rp_buf_free(mem, &c->token);
    rp_tls_trust_free(&c->to.trust);
    rp_mem_free(mem, c->texts);
    rp_slab_give(&hub->dials->clients, &c->slot);
}

// --- its place: cursor, gaps ---

static rp_want *rp_client_want(const rp_client *c, rtpush_slice name) {
    for (rp_want *want = c->wants; want; want = want->next)
        if (want->size == name.size && !memcmp(want->name, name.data, name.size)) return want;
    return NULL;
}

static void rp_client_drop_want(rp_client *c, rp_want *want) {
    rp_want **at = &c->wants;
    while (*at != want) at = &(*at)->next;
    *at = want->next;
    if (c->catching == want) c->catching = NULL;
    rp_mem_free(&c->hub->mem, want);
}

static bool rp_client_is_past(const rp_client *c, const rtpush_cursor *id) {
    return c->has_cursor && !c->is_stale && !strcmp(id->epoch, c->cursor.epoch) && id->seq <= c->cursor.seq;
}

static void rp_client_advance(rp_client *c, const rtpush_cursor *id) {
    if (rp_client_is_past(c, id)) return;
    c->cursor = *id;
    c->has_cursor = true;
    c->is_stale = false;
}

static const char *rp_client_cursor_text(const rp_client *c, char buf[RP_CURSOR_MAX]) {
    buf[0] = 0;
    if (c->has_cursor) rp_cursor_write(buf, c->cursor.epoch, c->cursor.seq);
    return buf;
}

// A gap is told once, until a message has followed: the cursor stays meanwhile, since older messages than `to` may
// follow, and a server that is asked again from there tells it again.
static void rp_client_tell_gap(rp_client *c, const char *from, const char *to, const char *reason) {
    rp_mem *mem = &c->hub->mem;
    size_t had = rp_buf_size(&c->gap);
    if (!strcmp(reason, "epoch")) c->is_stale = true;
    rp_buf_text(mem, &c->gap, from);
    rp_buf_put(mem, &c->gap, "\n", 1);
    rp_buf_text(mem, &c->gap, to);
    rp_buf_put(mem, &c->gap, "\n", 1);
    rtpush_slice all = rp_buf_slice(&c->gap);
    bool is_told = !c->gap.is_broken && all.size == 2 * had && !memcmp(all.data, all.data + had, had);
    c->gap.start += had;
    if (is_told || !c->desc.on_gap) return;
    c->desc.on_gap(c->hub, rp_client_handle(c), from, to, reason, c->desc.user);
}

#endif // RP_CLIENT

// ============================================================================
// >>told  what a server says: messages and gaps, in JSON  (uses: client, json, longpoll)
//
// Nothing is believed unseen. What reads something returns NULL, or what is wrong with it: a
// sentence for whoever has to find out, and the end of the connection.
// ============================================================================
#ifdef RP_CLIENT
// The members that anything a server says may have, as they stand in the text; .data NULL: not there.
typedef struct rp_told {
    rtpush_slice type, id, topic, event, data, encoding, replay, cursor, from, to, reason, ref, code, after, heartbeat, messages, gap, more, reconnect;
} rp_told;

// false: not an object, or one with a member twice.
static bool rp_told_read(rp_told *said, rtpush_slice object) {
    const struct { const char *name; rtpush_slice *at; } known[] = {
        {"type", &said->type}, {"id", &said->id}, {"topic", &said->topic}, {"event", &said->event}, {"data", &said->data},
        {"encoding", &said->encoding}, {"replay", &said->replay}, {"cursor", &said->cursor}, {"from", &said->from}, {"to", &said->to},
        {"reason", &said->reason}, {"ref", &said->ref}, {"code", &said->code}, {"after", &said->after}, {"heartbeat", &said->heartbeat},
        {"messages", &said->messages}, {"gap", &said->gap}, {"more", &said->more}, {"reconnect", &said->reconnect}};
    rtpush_slice name, value;
    const char *p = rp_json_space(object.data, object.data + object.size);
    memset(said, 0, sizeof *said);
    if (p == object.data + object.size || *p != '{') return false;
    while (rp_json_member(&object, &name, &value))
        for (size_t i = 0; i < RP_COUNT(known); i++) {
            if (!rp_slice_equals(name, known[i].name)) continue;
            if (known[i].at->data) return false;
            *known[i].at = value;
        }
    return true;
}

// A text's content, NUL-terminated, in c->scratch, which has room for all of the object it is from. NULL: not a text.
static const char *rp_told_text(rp_client *c, rtpush_slice value, size_t *size) {
    if (value.size < 2 || *value.data != '"' || !c->scratch.data) return NULL;
    char *at = c->scratch.data + c->scratch.end;
    size_t n = rp_json_unescape(at, rp_slice(value.data + 1, value.size - 2));
    at[n] = 0;
    c->scratch.end += n + 1;
    if (size) *size = n;
    else if (memchr(at, 0, n)) return NULL; // as a C string it would be another
    return at;
}

static bool rp_told_is(rtpush_slice value, const char *word) {
    return value.size == strlen(word) + 2 && *value.data == '"' && !memcmp(value.data + 1, word, value.size - 2);
}

static bool rp_told_cursor(rtpush_slice value, rtpush_cursor *cursor) {
    return value.size > 2 && *value.data == '"' && rtpush_parse_cursor(cursor, value.data + 1, value.size - 2);
}

// A number of milliseconds, at most a day; -1: none.
static int64_t rp_told_ms(rtpush_slice value) {
    uint64_t ms;
    return rp_slice_number(value, &ms) ? (int64_t)RP_MIN(ms, (uint64_t)86400000) : -1;
}

static bool rp_client_room(rp_client *c, size_t size) {
    rp_buf_rewind(&c->scratch);
    return rp_buf_room(&c->hub->mem, &c->scratch, size + 64) != NULL;
}

// Who is there now: its id is the reader's own cursor (PROTOCOL §7).
static bool rp_client_is_snapshot(rtpush_slice topic, rtpush_slice data) {
    rtpush_slice name, value;
    if (topic.size < 10 || memcmp(topic.data, "@presence/", 10) || !data.size || *data.data != '{') return false;
    while (rp_json_member(&data, &name, &value))
        if (rp_slice_equals(name, "join") || rp_slice_equals(name, "leave")) return false;
    return true;
}

static bool rp_want_has(const rp_want *want, const rtpush_cursor *id) {
    return want->has_at && !strcmp(want->at.epoch, id->epoch) && want->at.seq >= id->seq;
}

static void rp_want_set(rp_want *want, const rtpush_cursor *at) {
    want->at = *at;
    want->has_at = true;
}

// Has no subscription had it yet? One that caught up may be ahead of the client's cursor.
static bool rp_client_lacks(const rp_client *c, rtpush_slice topic, const rtpush_cursor *id) {
    for (const rp_want *want = c->wants; want; want = want->next)
        if (rp_want_has(want, id) && rp_topic_matches(rp_slice(want->name, want->size), topic)) return false;
    return true;
}

// Moves the cursor over a message. false: it has been had. A change of epoch that no gap announced is told as one.
static bool rp_client_pass(rp_client *c, const rtpush_cursor *id, rtpush_slice topic) {
    char from[RP_CURSOR_MAX], to[RP_CURSOR_MAX];
    if (rp_client_is_past(c, id)) return false;
    if (c->has_cursor && !c->is_stale && strcmp(c->cursor.epoch, id->epoch)) {
        rp_cursor_write(to, id->epoch, 0);
        rp_client_tell_gap(c, rp_client_cursor_text(c, from), to, "epoch");
        if (rp_client_is_over(c)) return false;
    }
    rp_buf_rewind(&c->gap);
    bool is_new = rp_client_lacks(c, topic, id);
    rp_client_advance(c, id);
    return is_new;
}

// A message of the past of a subscription: it moves that alone, which goes on from there after a break.
static bool rp_client_pass_replay(rp_client *c, const rtpush_cursor *id, rtpush_slice topic) {
    for (rp_want *want = c->wants; want; want = want->next) {
        if (want->is_joined || !rp_topic_matches(rp_slice(want->name, want->size), topic)) continue;
        if (rp_want_has(want, id)) return false;
        rp_want_set(want, id);
        rp_cursor_write(want->since, id->epoch, id->seq);
    }
    return true;
}

static void rp_client_deliver(rp_client *c, const rtpush_message *m, const char *id) {
    if (c->desc.on_message) c->desc.on_message(c->hub, rp_client_handle(c), m, id, c->desc.user);
}

// The data of a message: a text, base64 of bytes, or JSON as it stands. false: it is none of them.
static bool rp_told_data(rp_client *c, const rp_told *said, rtpush_message *m) {
    if (!said->data.data) return false;
    m->kind = *said->data.data == '"' ? RTPUSH_TEXT : RTPUSH_JSON;
    m->data = said->data.data;
    m->size = said->data.size;
    if (m->kind == RTPUSH_JSON) return !said->encoding.data;
    char *text = c->scratch.data + c->scratch.end;
    if (!rp_told_text(c, said->data, &m->size)) return false;
    m->data = text;
    if (!said->encoding.data) return !rtpush_utf8(0, m->data, m->size); // a lone surrogate is not UTF-8
    ptrdiff_t n = rp_told_is(said->encoding, "base64") ? rp_base64_read(text, text, m->size) : -1;
    m->kind = RTPUSH_BINARY;
    m->size = (size_t)RP_MAX(n, (ptrdiff_t)0);
    return n >= 0;
}

// {"id":…,"topic":…,…}. Returns NULL, or what is wrong with it.
static const char *rp_client_message(rp_client *c, const rp_told *said, size_t size) {
    rtpush_cursor id;
    rtpush_message m;
    char text[RP_CURSOR_MAX];
    memset(&m, 0, sizeof m);
    if (!rp_client_room(c, size)) return "no memory for a message";
    if (!rp_told_cursor(said->id, &id)) return "a message without an id";
    m.topic = rp_told_text(c, said->topic, NULL);
    if (!m.topic || !rtpush_is_topic(m.topic, strlen(m.topic), false)) return "a message without a topic";
    m.event = said->event.data ? rp_told_text(c, said->event, NULL) : "";
    if (!m.event || rtpush_utf8(0, m.event, strlen(m.event))) return "a message's event is not a text";
    if (!rp_told_data(c, said, &m)) return "a message's data is missing, or not what its encoding says";
    if (m.size > (uint64_t)c->desc.message_max) return "a message over the limit (message_max)";
    bool is_replay = c->is_past || rp_slice_equals(said->replay, "true"), is_now = rp_client_is_snapshot(rp_slice_of(m.topic), rp_slice(m.data, m.size));
    m.seq = id.seq;
    m.time_ms = rp_hub_wall(c->hub);
    rp_cursor_write(text, id.epoch, id.seq);
    if (is_now || (is_replay ? rp_client_pass_replay(c, &id, rp_slice_of(m.topic)) : rp_client_pass(c, &id, rp_slice_of(m.topic))))
        rp_client_deliver(c, &m, text);
    return NULL;
}

// {"from":…,"to":…,"reason":…}. As rp_client_message.
static const char *rp_client_gap(rp_client *c, const rp_told *said, size_t size) {
    rtpush_cursor to;
    char text[RP_CURSOR_MAX];
    if (!rp_client_room(c, size)) return "no memory for a gap";
    const char *from = rp_told_text(c, said->from, NULL), *reason = rp_told_text(c, said->reason, NULL);
    if (!from || !reason || !rp_told_cursor(said->to, &to)) return "a gap without from, to and reason";
    rp_cursor_write(text, to.epoch, to.seq);
    rp_client_tell_gap(c, from, text, reason);
    return NULL;
}

#endif // RP_CLIENT

// ============================================================================
// >>seek  how a client connects, and what it does when it has lost  (uses: client, exchange)
//
// A round goes down the list of transports. One that the server (or what stands between)
// does not let through is passed over for a while once a later one has worked; where
// nobody answers, no transport is to blame, and all wait.
// ============================================================================
#ifdef RP_CLIENT
// --- the request ---

// Percent-encoding of what is not unreserved (RFC 3986 §2.3); `keeps`: one more that stands for itself.
static void rp_url_encode(rp_mem *mem, rp_buf *buf, const char *text, char keeps) {
    static const char hex[] = "0123456789ABCDEF";
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        bool is_plain = (c >= '0' && c <= '9') || (rp_lower((char)c) >= 'a' && rp_lower((char)c) <= 'z') || strchr("-._~", c) || c == (unsigned char)keeps;
        char escape[3] = {'%', hex[c >> 4], hex[c & 15]};
        rp_buf_put(mem, buf, is_plain ? text : escape, is_plain ? 1 : 3);
    }
}

static void rp_client_parameter(rp_client *c, rp_buf *buf, char *mark, const char *name, const char *value) {
    rp_buf_put(&c->hub->mem, buf, mark, 1);
    *mark = '&';
    rp_buf_text(&c->hub->mem, buf, name);
    rp_buf_text(&c->hub->mem, buf, "=");
    rp_url_encode(&c->hub->mem, buf, value, '-');
}

static bool rp_client_has_header(const rp_client *c, const char *name) {
    rtpush_slice rest = rp_slice_of(c->desc.headers ? c->desc.headers : ""), line, field, value;
    while (rest.size) {
        ptrdiff_t n = rp_http_line(rest.data, rest.size, &line);
        if (n <= 0) return false;
        if (rp_http_field(line, &field, &value) && rp_slice_is(field, name)) return true;
        rest = rp_slice(rest.data + n, rest.size - (size_t)n);
    }
    return false;
}

static void rp_client_line(rp_client *c, rp_buf *buf, const char *name, const char *value) {
    if (rp_client_has_header(c, name)) return;
    rp_buf_text(&c->hub->mem, buf, name);
    rp_buf_text(&c->hub->mem, buf, ": ");
    rp_buf_text(&c->hub->mem, buf, value);
    rp_buf_text(&c->hub->mem, buf, "\r\n");
}

// Asks for the token, so that a new one is used from here on.
static void rp_client_ask_token(rp_client *c) {
    const char *token = c->desc.on_token ? c->desc.on_token(c->hub, rp_client_handle(c), c->desc.user) : c->desc.token;
    rp_buf_rewind(&c->token);
    if (!token || !*token || !rp_slice_all(rp_slice_of(token), rp_http_is_value)) return;
    rp_buf_text(&c->hub->mem, &c->token, token);
    rp_buf_put(&c->hub->mem, &c->token, "", 1);
}

// Behind the target: version, and what every request says.
static void rp_client_headers(rp_client *c, rp_buf *buf) {
    rp_mem *mem = &c->hub->mem;
    rp_buf_text(mem, buf, " HTTP/1.1\r\n");
    if (!rp_client_has_header(c, "host")) {
        rp_buf_text(mem, buf, "Host: ");
        rp_url_host(mem, buf, &c->url, false);
        rp_buf_text(mem, buf, "\r\n");
    }
    rp_client_line(c, buf, "User-Agent", "rtpush/" RTPUSH_VERSION);
    if (rp_buf_size(&c->token) && !rp_client_has_header(c, "authorization")) {
        rp_buf_text(mem, buf, "Authorization: Bearer ");
        rp_buf_text(mem, buf, rp_buf_slice(&c->token).data);
        rp_buf_text(mem, buf, "\r\n");
    }
    if (c->desc.headers) rp_buf_text(mem, buf, c->desc.headers);
}

// Is a topic asked for in the URL, to go on at the client's cursor? One that has a past to get is subscribed to later.
static bool rp_want_is_in_url(const rp_want *want) { return want->is_joined || !want->since[0]; }

static bool rp_client_owns_topic(const rp_client *c) {
    for (const rp_want *want = c->wants; want; want = want->next)
        if (want->is_own && rp_want_is_in_url(want)) return true;
    return false;
}

// Path and query of a read. only: that topic alone, from its own place.
static void rp_client_target(rp_client *c, rp_buf *buf, const rp_want *only) {
    rp_mem *mem = &c->hub->mem;
    char mark = '?', cursor[RP_CURSOR_MAX];
    bool is_rtpush = c->desc.kind == RTPUSH_SERVER_RTPUSH;
    rp_buf_slice_put(mem, buf, !is_rtpush || (!only && rp_client_owns_topic(c)) ? c->url.path : c->base);
    if (rp_buf_size(&c->query)) {
        rp_buf_put(mem, buf, &mark, 1);
        rp_buf_slice_put(mem, buf, rp_buf_slice(&c->query));
        mark = '&';
    }
    if (!is_rtpush) return;
    for (rp_want *want = c->wants; want; want = want->next) {
        want->is_asked = only ? want == only : rp_want_is_in_url(want);
        if (want->is_asked && (only || !want->is_own)) rp_client_parameter(c, buf, &mark, "topic", want->name);
    }
    const char *since = only ? only->since : c->has_cursor ? rp_client_cursor_text(c, cursor) : c->desc.since && *c->desc.since ? c->desc.since : "latest";
    rp_client_parameter(c, buf, &mark, "since", since);
    if (only) return;
    rp_client_parameter(c, buf, &mark, "session", c->session);
    if (c->transport == RTPUSH_SSE) rp_client_parameter(c, buf, &mark, "events", "envelope");
}

static void rp_client_handshake_lines(rp_client *c, rp_buf *buf) {
    unsigned char key[16];
    if (c->hub->sys.random(c->hub->sys.user, key, sizeof key)) { buf->is_broken = true; return; }
    rp_base64_write(c->key, key, sizeof key); // RFC 6455 §4.1: 16 random bytes
    c->key[24] = 0;
    rp_buf_text(&c->hub->mem, buf, "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ");
    rp_buf_text(&c->hub->mem, buf, c->key);
    rp_buf_text(&c->hub->mem, buf, "\r\n");
    if (c->transport == RTPUSH_ENVELOPE) rp_client_line(c, buf, "Sec-WebSocket-Protocol", "rtpush.v1");
    else if (c->desc.protocol) rp_client_line(c, buf, "Sec-WebSocket-Protocol", c->desc.protocol);
}

// How long a poll is held at most: at first for a moment only, so that it is soon known whether it works.
static int64_t rp_client_hold(const rp_client *c) {
    if (c->transport != RTPUSH_LONG_POLL) return 0;
    return c->state == RTPUSH_CLIENT_OPEN ? c->desc.wait_ms / 1000 : 1;
}

// The request of the transport at hand.
static void rp_client_request(rp_client *c) {
    rp_mem *mem = &c->hub->mem;
    rp_buf *buf = &c->read.request;
    rp_buf_rewind(buf);
    rp_buf_text(mem, buf, "GET ");
    rp_client_target(c, buf, c->catching);
    if (!c->catching && c->transport == RTPUSH_LONG_POLL) {
        rp_buf_text(mem, buf, "&wait=");
        rp_buf_number(mem, buf, (uint64_t)rp_client_hold(c));
    }
    rp_client_headers(c, buf);
    bool is_events = c->transport == RTPUSH_SSE && !c->catching;
    if (is_events) rp_client_line(c, buf, "Accept", "text/event-stream");
    if (is_events && rp_buf_size(&c->events.id) && c->desc.kind == RTPUSH_SERVER_EVENTS) {
        rp_buf_text(mem, buf, "Last-Event-ID: ");
        rp_buf_slice_put(mem, buf, rp_buf_slice(&c->events.id));
        rp_buf_text(mem, buf, "\r\n");
    }
    if (rp_client_is_socket(c) && !c->catching) rp_client_handshake_lines(c, buf);
    rp_buf_text(mem, buf, "\r\n");
}

// --- connecting ---

// A poll's answer has 1 MiB, or one message; escaped, a byte takes up to six.
static size_t rp_client_body_max(const rp_client *c) { return (size_t)c->desc.message_max * 7 + 2097152; }

static void rp_client_cannot(rp_client *c) {
    c->is_starved = true;
    rp_client_wait_for(c, 0);
}

// Whose past is to be polled for: where it does not come by the socket, and once it is known where the others start.
static rp_want *rp_client_next_past(const rp_client *c) {
    bool is_first = !c->has_cursor && c->is_elsewhere;
    rp_want *found = NULL;
    if (c->transport == RTPUSH_ENVELOPE || c->desc.kind != RTPUSH_SERVER_RTPUSH) return NULL;
    for (rp_want *want = c->wants; want; want = want->next) {
        if (rp_want_is_in_url(want)) is_first |= !c->has_cursor;
        else if (!found) found = want;
    }
    return is_first ? NULL : found;
}

// It works. Those above it in the list that did not are passed over for a while.
static void rp_client_opened(rp_client *c) {
    uint64_t now = c->hub->wheel.now, best = 0;
    if (c->state == RTPUSH_CLIENT_OPEN) return;
    for (unsigned i = 0; i < c->index; i++) {
        uint64_t *until = &c->passed_until[c->order[i]];
        if (c->failed >> i & 1) *until = now + (uint64_t)c->desc.remember_ms;
        if (*until && (!best || *until < best)) best = *until;
    }
    c->passed_until[c->transport] = 0;
    c->better_at = best;
    c->opened = now;
    c->failed = 0;
    c->denied = c->redirected = 0;
    rp_client_tell(c, RTPUSH_CLIENT_OPEN, NULL, 0);
}

// Sends the request of what is read next: the past of one topic, or what the transport at hand reads.
static void rp_client_begin(rp_client *c) {
    int64_t ms = c->state == RTPUSH_CLIENT_OPEN ? (int64_t)RP_GRACE_MS : c->desc.connect_timeout_ms;
    c->catching = rp_client_next_past(c);
    if (!c->wants && !c->is_elsewhere && c->transport != RTPUSH_ENVELOPE && c->desc.kind == RTPUSH_SERVER_RTPUSH) { // nothing to read: it may publish
        rp_exchange_stop(c->hub, &c->read);
        c->due = UINT64_MAX;
        rp_client_opened(c);
        return;
    }
    rp_client_request(c);
    c->is_starved = false;
    c->read.body_max = rp_client_body_max(c);
    c->asked = c->hub->wheel.now;
    rp_client_wait_for(c, ms + (c->catching ? 0 : rp_client_hold(c) * 1000));
    if (!rp_exchange_start(c->hub, &c->read, true)) rp_client_cannot(c);
}

// The first of the list from `place` on that is not passed over; order_count: none.
static unsigned rp_client_next_place(const rp_client *c, unsigned place) {
    while (place < c->order_count && c->passed_until[c->order[place]] > c->hub->wheel.now) place++;
    return place;
}

static void rp_client_connect(rp_client *c, const rp_loss *loss) {
    c->transport = c->order[c->index];
    c->is_pinged = c->is_enveloped = c->has_news = false;
    c->better_at = 0;
    c->retry_ms = c->away_ms = -1;
    c->refused = 0;
    rp_stream_in_restart(&c->events);
    rp_buf_free(&c->hub->mem, &c->ws.message);
    memset(&c->ws, 0, sizeof c->ws);
    for (rp_want *want = c->wants; want; want = want->next) want->is_asked = false, want->ref = 0;
    rp_client_tell(c, RTPUSH_CLIENT_CONNECTING, loss, 0);
    if (rp_client_is_over(c)) return;
    rp_client_ask_token(c);
    if (!rp_client_is_over(c)) rp_client_begin(c);
}

// A new round, from the best transport that is not passed over.
static void rp_client_round(rp_client *c) {
    c->failed = 0;
    c->index = (uint8_t)rp_client_next_place(c, 0);
    if (c->index == c->order_count) c->index = 0;
    rp_client_connect(c, NULL);
}

// --- losing ---

static bool rp_status_may_pass(int status) { return status == 408 || status == 425 || status == 429 || status >= 500; }

// How long to wait: what the server said, or full jitter below a bound that doubles. A server that sends away again and
// again whoever has hardly come is not believed to want them at once.
static uint64_t rp_client_delay(rp_client *c, int64_t said_ms) {
    uint64_t bound = (uint64_t)c->desc.backoff_ms, least = (uint64_t)RP_MAX(said_ms, (int64_t)0);
    if (said_ms >= 0 && c->sent_away++ < 2) return least;
    for (unsigned i = 0; i < c->tries && bound < (uint64_t)c->desc.backoff_max_ms; i++) bound *= 2;
    c->tries++;
    return RP_MAX(least, rp_hub_jitter(c->hub, RP_MIN(bound, (uint64_t)c->desc.backoff_max_ms) + 1));
}

// What went by the socket has no answer yet: it goes again.
static void rp_client_unsend(rp_client *c) {
    for (rp_parcel *parcel = c->parcels; parcel; parcel = parcel->next)
        if (parcel->via == RP_VIA_SOCKET) parcel->via = RP_VIA_NONE;
}

// Has the server said no for good? One no is the proxy's, perhaps: then the other transports are asked too.
static bool rp_client_is_refused(rp_client *c, const rp_loss *loss) {
    if (loss->is_final || c->desc.once) return true;
    if (loss->code == RTPUSH_E_UNAUTHORIZED) return !c->desc.on_token || ++c->denied > 2;
    return loss->code == RTPUSH_E_REFUSED && !rp_status_may_pass(loss->status);
}

// The connection that read is gone, or never came to be.
static void rp_client_lost(rp_client *c, const rp_loss *loss) {
    bool was_open = c->state == RTPUSH_CLIENT_OPEN;
    uint64_t now = c->hub->wheel.now;
    if (rp_client_is_over(c)) return;
    rp_exchange_stop(c->hub, &c->read);
    rp_client_unsend(c);
    c->due = UINT64_MAX;
    c->better_at = 0;
    int64_t said_ms = loss->delay_ms >= 0 ? loss->delay_ms : c->away_ms;
    if (was_open && now - c->opened >= (uint64_t)c->desc.stable_ms) c->tries = c->sent_away = 0;
    unsigned next = rp_client_next_place(c, c->index + 1u);
    bool is_blamed = !was_open && !loss->is_away && said_ms < 0 && !loss->is_final && loss->code != RTPUSH_E_UNAUTHORIZED;
    if (is_blamed && next < c->order_count) {
        c->failed |= (uint8_t)(1u << c->index);
        c->index = (uint8_t)next;
        rp_client_connect(c, loss);
        return;
    }
    if (rp_client_is_refused(c, loss)) { rp_client_end(c, loss); return; }
    uint64_t delay = rp_client_delay(c, said_ms);
    c->retry_at = now + delay;
    rp_client_tell(c, RTPUSH_CLIENT_WAITING, loss, (int64_t)delay);
    if (!rp_client_is_over(c)) rp_client_arm(c);
}

static void rp_client_lose(rp_client *c, int code, const char *why) {
    rp_loss loss;
    memset(&loss, 0, sizeof loss);
    loss.code = code;
    loss.delay_ms = -1;
    loss.is_away = code == RTPUSH_E_CONNECT || code == RTPUSH_E_TLS || code == RTPUSH_E_MEMORY || code == RTPUSH_E_SYSTEM;
    loss.why = why;
    rp_client_lost(c, &loss);
}

static void rp_client_break(rp_client *c, const char *why) { rp_client_lose(c, RTPUSH_E_PROTOCOL, why); }

#endif // RP_CLIENT

// ============================================================================
// >>parcel  publishes under way: by the socket that is open, else by POST  (uses: seek)
//
// In the order given, each under its idempotency key, again until there is an answer.
// ============================================================================
#ifdef RP_CLIENT
static rp_parcel *rp_parcel_by_ref(const rp_client *c, uint64_t ref) {
    for (rp_parcel *parcel = c->parcels; parcel; parcel = parcel->next)
        if (parcel->ref == ref) return parcel;
    return NULL;
}

static void rp_parcel_said(rp_client *c, const rp_parcel *parcel, rp_buf *buf) {
    rp_mem *mem = &c->hub->mem;
    rp_buf_text(mem, buf, "{\"type\":\"publish\",\"topic\":");
    rp_json_text(mem, buf, parcel->topic);
    if (*parcel->event) rp_buf_text(mem, buf, ",\"event\":"), rp_json_text(mem, buf, parcel->event);
    rp_buf_text(mem, buf, ",\"key\":");
    rp_json_text(mem, buf, parcel->key);
    if (parcel->is_ephemeral) rp_buf_text(mem, buf, ",\"ephemeral\":true");
    if (parcel->kind == RTPUSH_BINARY) rp_buf_text(mem, buf, ",\"encoding\":\"base64\"");
    rp_buf_text(mem, buf, ",\"data\":");
    if (parcel->kind == RTPUSH_TEXT) rp_json_string(mem, buf, parcel->data, parcel->size);
    else if (parcel->kind == RTPUSH_JSON) rp_buf_put(mem, buf, parcel->data, parcel->size);
    else rp_buf_put(mem, buf, "\"", 1), rp_spell_base64(c->hub, buf, parcel->data, parcel->size), rp_buf_put(mem, buf, "\"", 1);
    rp_buf_text(mem, buf, ",\"ref\":");
    rp_buf_number(mem, buf, parcel->ref);
    rp_buf_text(mem, buf, "}");
}

// Says it over the socket: a text frame of what is in hub.text.
static void rp_client_say(rp_client *c, const rp_buf *text) {
    if (!c->read.link) return;
    if (text->is_broken) { rp_link_out(c->hub, c->read.link)->is_broken = true; return; } // the link ends, and all is said again
    rp_link_frame(c->hub, c->read.link, RP_WS_TEXT, text->data, rp_buf_size(text));
}

// Through the socket, as many as there may be under way.
static void rp_client_pump_socket(rp_client *c) {
    unsigned sent = 0;
    for (rp_parcel *parcel = c->parcels; parcel && sent < RP_SENT_MAX; parcel = parcel->next, sent++) {
        if (parcel->via || !parcel->topic) continue;
        if (!rp_link_has_room(c->read.link)) break;
        rp_buf *buf = rp_hub_text(c->hub);
        rp_parcel_said(c, parcel, buf);
        rp_client_say(c, buf);
        parcel->via = RP_VIA_SOCKET;
    }
}

// The target of a POST: the topic below the mount, or the URL as it is.
static void rp_parcel_target(rp_client *c, const rp_parcel *parcel, rp_buf *buf) {
    rp_mem *mem = &c->hub->mem;
    char mark = '?';
    const rp_want *want = parcel->topic ? rp_client_want(c, rp_slice_of(parcel->topic)) : NULL;
    bool is_own = !parcel->topic || (want && want->is_own);
    rp_buf_slice_put(mem, buf, is_own ? c->url.path : c->base);
    if (!is_own) rp_buf_text(mem, buf, "/"), rp_url_encode(mem, buf, parcel->topic, '/');
    if (rp_buf_size(&c->query)) {
        rp_buf_put(mem, buf, &mark, 1);
        rp_buf_slice_put(mem, buf, rp_buf_slice(&c->query));
        mark = '&';
    }
    if (*parcel->event) rp_client_parameter(c, buf, &mark, "event", parcel->event);
    if (parcel->is_ephemeral) rp_client_parameter(c, buf, &mark, "ephemeral", "1");
}

static void rp_client_post(rp_client *c, rp_parcel *parcel) {
    static const char *const types[] = {"text/plain; charset=utf-8", "text/plain; charset=utf-8", "application/json", "application/octet-stream"};
    rp_mem *mem = &c->hub->mem;
    rp_buf *buf = &c->post.request;
    rp_buf_rewind(buf);
    rp_buf_text(mem, buf, "POST ");
    rp_parcel_target(c, parcel, buf);
    rp_client_headers(c, buf);
    rp_client_line(c, buf, "Content-Type", types[parcel->kind]);
    rp_client_line(c, buf, "Idempotency-Key", parcel->key);
    rp_buf_text(mem, buf, "Content-Length: ");
    rp_buf_number(mem, buf, parcel->size);
    rp_buf_text(mem, buf, "\r\n\r\n");
    rp_buf_put(mem, buf, parcel->data, parcel->size);
    parcel->via = RP_VIA_POST;
    c->post_due = c->hub->wheel.now + (uint64_t)c->desc.connect_timeout_ms;
    if (!rp_exchange_start(c->hub, &c->post, true)) c->post_due = c->hub->wheel.now;
    rp_client_arm(c);
}

// What waits to be published goes out, the way that is open.
static void rp_client_pump(rp_client *c) {
    bool is_trying = c->state == RTPUSH_CLIENT_CONNECTING && !rp_client_is_socket(c); // a POST need not wait for the reading to work
    if ((c->state != RTPUSH_CLIENT_OPEN && !is_trying) || c->desc.kind != RTPUSH_SERVER_RTPUSH) return;
    bool by_socket = c->transport == RTPUSH_ENVELOPE && c->read.step == RP_X_SOCKET;
    if (c->post.step != RP_X_IDLE || c->post_at > c->hub->wheel.now) return; // in the order they were given
    if (by_socket) rp_client_pump_socket(c);
    rp_parcel *parcel = c->parcels;
    while (parcel && (parcel->via || (by_socket && parcel->topic))) parcel = parcel->next;
    if (parcel) rp_client_post(c, parcel);
    else c->post_at = 0;
}

static int rp_code_of_status(int status) {
    switch (status) {
    case 401: return RTPUSH_E_UNAUTHORIZED;
    case 403: return RTPUSH_E_FORBIDDEN;
    case 413: return RTPUSH_E_TOO_BIG;
    default: return RTPUSH_E_REFUSED;
    }
}

static rp_client *rp_client_of_post(rp_exchange *x) { return RP_OWNER(rp_client, post, x); }

static rp_parcel *rp_client_posted(const rp_client *c) {
    rp_parcel *parcel = c->parcels;
    while (parcel && parcel->via != RP_VIA_POST) parcel = parcel->next;
    return parcel;
}

// It did not go through: once more, after a while.
static void rp_post_again(rp_client *c, int64_t delay_ms) {
    rp_parcel *parcel = rp_client_posted(c);
    uint64_t bound = RP_MIN((uint64_t)c->desc.backoff_ms << RP_MIN(c->post_tries, 6u), (uint64_t)c->desc.backoff_max_ms);
    if (parcel) parcel->via = RP_VIA_NONE;
    c->post_tries++;
    c->post_due = 0;
    c->post_at = c->hub->wheel.now + 1 + (delay_ms >= 0 ? (uint64_t)delay_ms : rp_hub_jitter(c->hub, bound));
    rp_client_arm(c);
}

static bool rp_is_digit(char c) { return c >= '0' && c <= '9'; }

static int64_t rp_head_retry_ms(const rtpush_head *head) {
    uint64_t seconds;
    rtpush_slice value = rp_http_header(head, "retry-after");
    if (!value.size || !rp_slice_all(value, rp_is_digit)) return -1; // a date, or nonsense
    if (!rp_slice_number(value, &seconds)) seconds = UINT64_MAX;     // more than there is
    return (int64_t)RP_MIN(seconds, (uint64_t)86400) * 1000;
}

static void rp_post_head(rtpush_hub *hub, rp_exchange *x, const rtpush_head *head) {
    rp_client *c = rp_client_of_post(x);
    c->post_delay_ms = rp_head_retry_ms(head);
    if (x->status == 101) {
        rp_exchange_stop(hub, x);
        rp_post_again(c, -1);
    }
}

static void rp_post_done(rtpush_hub *hub, rp_exchange *x) {
    rp_client *c = rp_client_of_post(x);
    rp_parcel *parcel = rp_client_posted(c);
    rtpush_slice body = rp_buf_slice(&x->body);
    rp_told said;
    rtpush_cursor id;
    (void)hub;
    c->post_due = 0;
    if (!parcel) return;
    bool is_good = x->status / 100 == 2 && rtpush_is_json(body.data, body.size) && rp_told_read(&said, body) && rp_told_cursor(said.id, &id);
    if (x->status == 401 && c->desc.on_token && !parcel->denied++) {
        rp_client_ask_token(c);
        rp_post_again(c, 0);
    } else if (!is_good && (x->status / 100 == 2 || rp_status_may_pass(x->status))) {
        rp_post_again(c, c->post_delay_ms);
    } else {
        c->post_tries = 0;
        rp_parcel_end(c, parcel, is_good ? id.seq : 0, is_good ? RTPUSH_OK : rp_code_of_status(x->status));
        rp_client_pump(c);
    }
}

static void rp_post_lost(rtpush_hub *hub, rp_exchange *x, int code, const char *why) {
    (void)hub, (void)code, (void)why;
    rp_post_again(rp_client_of_post(x), -1);
}

static const rp_exchange_owner rp_post_owner = {rp_post_head, NULL, NULL, rp_post_done, rp_post_lost};

#endif // RP_CLIENT

// ============================================================================
// >>hear  what comes: a socket, an event stream, polls  (uses: told, seek, parcel, sse, ws)
// ============================================================================
#ifdef RP_CLIENT
// --- a socket ---

static rp_client *rp_client_of(rp_exchange *x) { return RP_OWNER(rp_client, read, x); }

// Something came: the peer lives.
static void rp_client_alive(rp_client *c) {
    c->is_pinged = false;
    if (c->state == RTPUSH_CLIENT_OPEN && c->away_ms < 0 && !c->is_changed) rp_client_wait_for(c, c->silence_ms);
}

// Says a close frame (RFC 6455 §7.1.7), and is lost.
static void rp_socket_break(rp_client *c, int close_code, const char *why) {
    rp_buf *out = c->read.link ? rp_link_out(c->hub, c->read.link) : NULL;
    unsigned char body[2] = {(unsigned char)(close_code >> 8), (unsigned char)(close_code & 255)}, key[4];
    if (out && rp_dial_key(c->hub, key)) rp_ws_put_masked(&c->hub->mem, out, RP_WS_CLOSE, body, 2, key);
    rp_client_break(c, why);
}

// What the URL asked for is read now, at the client's cursor.
static void rp_client_joined(rp_client *c) {
    for (rp_want *want = c->wants; want; want = want->next)
        if (want->is_asked && !want->ref) want->is_joined = true;
    if (c->transport == RTPUSH_SSE && c->has_cursor && rp_client_next_past(c)) c->is_changed = true, rp_client_wait_for(c, 0);
}

static void rp_client_subscribe_now(rp_client *c, rp_want *want) {
    rp_mem *mem = &c->hub->mem;
    rp_buf *buf = rp_hub_text(c->hub);
    want->is_asked = true;
    want->ref = ++c->last_ref;
    rp_buf_text(mem, buf, "{\"type\":\"subscribe\",\"topic\":");
    rp_json_text(mem, buf, want->name);
    if (want->since[0]) rp_buf_text(mem, buf, ",\"since\":"), rp_json_text(mem, buf, want->since);
    rp_buf_text(mem, buf, ",\"ref\":");
    rp_buf_number(mem, buf, want->ref);
    rp_buf_text(mem, buf, "}");
    rp_client_say(c, buf);
}

// The socket reads all that is wanted.
static void rp_client_subscribe_all(rp_client *c) {
    if (c->state != RTPUSH_CLIENT_OPEN || c->transport != RTPUSH_ENVELOPE || c->read.step != RP_X_SOCKET) return;
    for (rp_want *want = c->wants; want; want = want->next)
        if (!want->is_asked) rp_client_subscribe_now(c, want);
}

static const char *rp_envelope_said_hello(rp_client *c, const rp_told *said) {
    rtpush_cursor cursor;
    int64_t heartbeat_ms = rp_told_ms(said->heartbeat);
    bool has_cursor = rp_told_cursor(said->cursor, &cursor);
    if (!has_cursor && !(said->cursor.data && *said->cursor.data == '"')) return "a hello without a cursor";
    if (!c->has_cursor && has_cursor) rp_client_advance(c, &cursor);
    if (heartbeat_ms > 0) c->silence_ms = 2 * heartbeat_ms;
    rp_client_joined(c);
    rp_client_opened(c);
    if (rp_client_is_over(c)) return NULL;
    rp_client_alive(c);
    rp_client_subscribe_all(c);
    rp_client_pump(c);
    return NULL;
}

static int rp_code_of_error(rtpush_slice code) {
    if (rp_told_is(code, "unauthorized")) return RTPUSH_E_UNAUTHORIZED;
    if (rp_told_is(code, "forbidden")) return RTPUSH_E_FORBIDDEN;
    if (rp_told_is(code, "too_large")) return RTPUSH_E_TOO_BIG;
    return rp_told_is(code, "unavailable") ? RTPUSH_E_UNAVAILABLE : RTPUSH_E_REFUSED;
}

// One topic is not for us: that is said, with its name as the reason, and it is wanted no more.
static void rp_client_topic_refused(rp_client *c, rp_want *want, int code) {
    char name[RP_TOPIC_MAX + 1];
    rp_loss loss = {code, 0, -1, false, false, name};
    memcpy(name, want->name, want->size + 1);
    rp_client_tell(c, c->state, &loss, 0);
    want = rp_client_want(c, rp_slice_of(name)); // the callback may have dropped it itself
    if (want && code != RTPUSH_E_UNAVAILABLE) rp_client_drop_want(c, want);
}

// An ack or an error, of a subscribe or a publish.
static const char *rp_envelope_said_answer(rp_client *c, const rp_told *said, bool is_error) {
    rtpush_cursor cursor;
    uint64_t ref;
    if (!rp_slice_number(said->ref, &ref)) return NULL;
    for (rp_want *want = c->wants; want; want = want->next) {
        if (want->ref != ref || want->is_joined) continue;
        if (is_error) {
            rp_client_topic_refused(c, want, rp_code_of_error(said->code));
            return NULL;
        }
        if (!rp_told_cursor(said->cursor, &cursor)) return "an ack of a subscribe without a cursor";
        want->is_joined = true;
        want->since[0] = 0;
        rp_want_set(want, &cursor);
        return NULL;
    }
    rp_parcel *parcel = rp_parcel_by_ref(c, ref);
    if (!parcel || !parcel->via) return NULL;
    if (is_error && rp_code_of_error(said->code) == RTPUSH_E_UNAVAILABLE) { // perhaps later, perhaps elsewhere
        parcel->via = RP_VIA_NONE;
        c->post_at = c->hub->wheel.now + (uint64_t)c->desc.backoff_ms;
        rp_client_arm(c);
        return NULL;
    }
    if (!is_error && !rp_told_cursor(said->id, &cursor)) return "an ack of a publish without an id";
    rp_parcel_end(c, parcel, is_error ? 0 : cursor.seq, is_error ? rp_code_of_error(said->code) : RTPUSH_OK);
    rp_client_pump(c);
    return NULL;
}

static void rp_client_sent_away(rp_client *c, int64_t after_ms) {
    rp_loss loss = {RTPUSH_OK, 0, after_ms, false, false, "the server asks to reconnect"};
    rp_client_lost(c, &loss);
}

// It is about to close: what comes before that still counts.
static void rp_client_will_go(rp_client *c, int64_t after_ms) {
    if (after_ms < 0) return;
    c->away_ms = after_ms;
    rp_client_wait_for(c, RP_GOODBYE_MS);
}

// One text of the envelope. Returns NULL, or what is wrong with it.
static const char *rp_envelope_said(rp_client *c, rtpush_slice text) {
    rp_told said;
    rtpush_cursor cursor;
    if (!rtpush_is_json(text.data, text.size) || !rp_told_read(&said, text)) return "what it says is not a JSON object";
    if (rp_told_is(said.type, "hello")) return rp_envelope_said_hello(c, &said);
    if (c->state != RTPUSH_CLIENT_OPEN) return rp_told_is(said.type, "error") ? NULL : "it does not say hello first";
    if (rp_told_is(said.type, "message")) return rp_client_message(c, &said, text.size);
    if (rp_told_is(said.type, "gap")) return rp_client_gap(c, &said, text.size);
    if (rp_told_is(said.type, "ack")) return rp_envelope_said_answer(c, &said, false);
    if (rp_told_is(said.type, "error")) return rp_envelope_said_answer(c, &said, true);
    if (rp_told_is(said.type, "reconnect")) rp_client_will_go(c, rp_told_ms(said.after));
    if (rp_told_is(said.type, "heartbeat") && rp_told_cursor(said.cursor, &cursor)) rp_client_advance(c, &cursor);
    return NULL; // a type that is not known yet is none of our business
}

static void rp_socket_message(rp_client *c, unsigned opcode, rtpush_slice body) {
    rtpush_message m;
    if (c->desc.kind == RTPUSH_SERVER_RTPUSH) {
        const char *wrong = opcode == RP_WS_TEXT ? rp_envelope_said(c, body) : "a binary frame in rtpush.v1";
        if (wrong && !rp_client_is_over(c)) rp_socket_break(c, 1002, wrong);
        return;
    }
    memset(&m, 0, sizeof m);
    m.topic = m.event = "";
    m.data = body.data;
    m.size = body.size;
    m.kind = opcode == RP_WS_TEXT ? RTPUSH_TEXT : RTPUSH_BINARY;
    m.time_ms = rp_hub_wall(c->hub);
    rp_client_deliver(c, &m, "");
}

// The server closes. Whether we come back is in the code (PROTOCOL §5).
static void rp_socket_closed(rp_client *c, int code, rtpush_slice reason) {
    char why[140];
    uint64_t retry;
    rp_loss loss = {code <= 1001 || code == 1005 || code == 1012 ? RTPUSH_OK : RTPUSH_E_CLOSED, code, -1, false, false, why};
    rtpush_slice number = rp_slice(reason.data + 6, reason.size > 6 ? reason.size - 6 : 0);
    snprintf(why, sizeof why, "closed by the server: %d %.*s", code, (int)RP_MIN(reason.size, (size_t)100), reason.size ? reason.data : "");
    if (code == 1012 && reason.size > 6 && !memcmp(reason.data, "retry=", 6) && rp_slice_number(number, &retry)) loss.delay_ms = (int64_t)RP_MIN(retry, (uint64_t)86400000);
    if (code >= 4000 && code < 4100) loss.code = code == 4001 ? RTPUSH_E_UNAUTHORIZED : RTPUSH_E_REFUSED, loss.is_final = code != 4001;
    if (code >= 4200 && code < 4300) loss.delay_ms = 0;
    if (code == 1000 && c->desc.kind == RTPUSH_SERVER_WEBSOCKET) loss.is_final = true; // it has said all it had to say
    rp_client_lost(c, &loss);
}

static void rp_socket_control(rp_client *c, unsigned opcode, const unsigned char *body, size_t size) {
    rp_link *l = c->read.link;
    if (opcode == RP_WS_PONG) return;
    if (opcode == RP_WS_PING) { // RFC 6455 §5.5.3: who does not take our answers needs only the latest
        if (rp_link_has_room(l)) rp_link_frame(c->hub, l, RP_WS_PONG, body, size);
        return;
    }
    int code = rp_ws_close_code(body, size);
    if (code < 0) { rp_socket_break(c, -code, "a malformed close frame"); return; }
    rp_link_frame(c->hub, l, RP_WS_CLOSE, body, code == 1005 ? 0 : 2); // RFC 6455 §5.5.1
    rp_socket_closed(c, code, rp_slice(body + 2, size > 2 ? size - 2 : 0));
}

static const char *rp_socket_wrong(int code) {
    switch (code) {
    case 1007: return "a text that is not UTF-8";
    case 1008: return "a message in too many fragments";
    case 1009: return "a message over the limit (message_max)";
    case 1011: return "no memory for a message";
    default: return "a malformed frame (RFC 6455)";
    }
}

// Payload of the data frame under way. Returns what was taken.
static size_t rp_socket_payload(rp_client *c, const char *data, size_t size) {
    size_t n = (size_t)RP_MIN((uint64_t)size, c->ws.left);
    int failed = rp_ws_take(&c->hub->mem, &c->ws, data, n);
    if (failed) { rp_socket_break(c, -failed, rp_socket_wrong(-failed)); return size; }
    if (c->ws.left || !c->ws.frame.is_final) return n;
    unsigned opcode = c->ws.opcode;
    rp_buf message = c->ws.message; // ours while it is read: what it leads to may end the connection
    memset(&c->ws, 0, sizeof c->ws);
    rp_socket_message(c, opcode, rp_buf_slice(&message));
    rp_buf_free(&c->hub->mem, &message);
    return n;
}

// A message that lies whole in what has come is read there.
static size_t rp_socket_data(rp_client *c, const rtpush_frame *frame, const char *data, size_t head_size, size_t size) {
    bool is_whole = !c->ws.opcode && frame->opcode && frame->is_final && frame->length <= size - head_size;
    uint64_t max = (uint64_t)c->desc.message_max * (c->desc.kind == RTPUSH_SERVER_RTPUSH ? 7 : 1) + 4096; // escaped, a byte takes up to six
    if (c->desc.kind != RTPUSH_SERVER_RTPUSH) max = (uint64_t)c->desc.message_max;
    if (is_whole && frame->length <= max) {
        rtpush_slice body = rp_slice(data + head_size, (size_t)frame->length);
        if (frame->opcode == RP_WS_TEXT && rtpush_utf8(0, body.data, body.size)) rp_socket_break(c, 1007, rp_socket_wrong(1007));
        else rp_socket_message(c, frame->opcode, body);
        return head_size + body.size;
    }
    int failed = rp_ws_begin(&c->ws, frame, max, 1024);
    if (failed) { rp_socket_break(c, -failed, rp_socket_wrong(-failed)); return size; }
    return head_size + rp_socket_payload(c, data + head_size, size - head_size);
}

static size_t rp_read_frame(rtpush_hub *hub, rp_exchange *x, char *data, size_t size) {
    rp_client *c = rp_client_of(x);
    rtpush_frame frame;
    (void)hub;
    rp_client_alive(c);
    if (c->ws.opcode && c->ws.left) return rp_socket_payload(c, data, size);
    ptrdiff_t n = rtpush_parse_frame(&frame, (const unsigned char *)data, size);
    if (n < 0) { rp_socket_break(c, (int)-n, rp_socket_wrong((int)-n)); return size; }
    if (size >= 2 && (data[1] & 0x80)) { rp_socket_break(c, 1002, "a masked frame from a server"); return size; } // RFC 6455 §5.1
    if (!n) return 0;
    if (frame.opcode < RP_WS_CLOSE) return rp_socket_data(c, &frame, data, (size_t)n, size);
    if (size - (size_t)n < frame.length) return 0;
    rp_socket_control(c, frame.opcode, (const unsigned char *)data + n, (size_t)frame.length);
    return (size_t)n + (size_t)frame.length;
}

// --- an event stream ---

static const char *rp_events_plain(rp_client *c, rtpush_slice data, rtpush_slice event, const char *id, const rtpush_cursor *cursor) {
    rtpush_message m;
    const rp_want *first = c->wants;
    memset(&m, 0, sizeof m);
    if (!rp_client_room(c, event.size + data.size)) return "no memory for an event";
    char *name = c->scratch.data + c->scratch.end;
    if (event.size) memcpy(name, event.data, event.size);
    name[event.size] = 0;
    m.event = name;
    m.topic = first && !first->next && !rp_topic_is_pattern(rp_slice(first->name, first->size)) ? first->name : "";
    m.data = data.data;
    m.size = data.size;
    m.kind = rtpush_utf8(0, data.data, data.size) ? RTPUSH_BINARY : RTPUSH_TEXT;
    m.time_ms = rp_hub_wall(c->hub);
    if (cursor) m.seq = cursor->seq;
    if (!cursor || rp_client_pass(c, cursor, rp_slice_of(m.topic))) rp_client_deliver(c, &m, id);
    return NULL;
}

// An event of an rtpush server, in the envelope's JSON or, from an older one or through something between, plain.
static const char *rp_events_rtpush(rp_client *c, rtpush_slice data, rtpush_slice event, const rtpush_cursor *cursor) {
    char id[RP_CURSOR_MAX] = "";
    rp_told said;
    if (rp_slice_equals(event, "gap")) {
        if (!rtpush_is_json(data.data, data.size) || !rp_told_read(&said, data)) return "a gap that is not a JSON object";
        return rp_client_gap(c, &said, data.size);
    }
    if (c->is_enveloped) return rp_envelope_said(c, data);
    if (cursor) rp_cursor_write(id, cursor->epoch, cursor->seq);
    return rp_events_plain(c, data, event, id, cursor);
}

// What is in c->events. Returns NULL, or what is wrong with it.
static const char *rp_events_one(rp_client *c) {
    rp_stream_in *in = &c->events;
    rtpush_slice id = rp_buf_slice(&in->id), data = rp_buf_slice(&in->data), event = rp_buf_slice(&in->event);
    rtpush_cursor cursor;
    bool is_rtpush = c->desc.kind == RTPUSH_SERVER_RTPUSH, is_moved = in->is_moved;
    if (in->has_retry) c->retry_ms = (int64_t)RP_MIN(in->retry_ms, (uint64_t)86400000);
    if (is_rtpush && is_moved && !rtpush_parse_cursor(&cursor, id.data, id.size)) return "an event's id is not a cursor";
    if (is_rtpush && in->has_data) {
        const char *wrong = rp_events_rtpush(c, data, event, is_moved ? &cursor : NULL);
        if (wrong) return wrong;
        if (rp_slice_equals(event, "gap")) return NULL; // its id moves nothing: PROTOCOL §2, and older ones may follow
    } else if (in->has_data) {
        rp_buf_put(&c->hub->mem, &in->id, "", 1); // for its NUL; taken off again
        if (in->id.is_broken) return "no memory for an event";
        in->id.end--;
        return rp_events_plain(c, data, event, rp_buf_slice(&in->id).data, NULL);
    }
    if (is_rtpush && is_moved && !rp_client_is_over(c)) rp_client_advance(c, &cursor);
    return NULL;
}

static void rp_read_bytes(rtpush_hub *hub, rp_exchange *x, const char *data, size_t size) {
    rp_client *c = rp_client_of(x);
    const rp_link *l = x->link;
    size_t max = (size_t)c->desc.message_max * (c->is_enveloped ? 7 : 1) + 4096;
    if (!c->is_enveloped) rp_client_joined(c), rp_client_opened(c);
    rp_client_alive(c);
    while (size && x->link == l) {
        bool is_event;
        ptrdiff_t n = rp_stream_in_take(&hub->mem, &c->events, data, size, max, &is_event);
        if (n < 0) { rp_client_break(c, "an event over the limit (message_max)"); return; }
        data += n;
        size -= (size_t)n;
        if (!is_event) continue;
        const char *wrong = rp_events_one(c);
        rp_stream_in_next(&c->events);
        if (wrong && !rp_client_is_over(c)) { rp_client_break(c, wrong); return; }
    }
    if (x->link == l) rp_client_pump(c);
}

// --- polls ---

// The messages of a body. Returns NULL, or what is wrong.
static const char *rp_poll_read_items(rp_client *c, rtpush_slice list, size_t size) {
    rtpush_slice item;
    rp_told said;
    if (!list.data || *list.data != '[') return "a poll's answer without messages";
    while (rp_json_element(&list, &item) && c->read.step == RP_X_IDLE && !rp_client_is_over(c)) {
        const char *wrong = !rp_told_read(&said, item) ? "a message that is not an object" : NULL;
        rtpush_cursor before = c->cursor;
        if (!wrong) wrong = rp_client_message(c, &said, RP_MIN(item.size, size));
        c->has_news |= memcmp(&before, &c->cursor, sizeof before) != 0;
        if (wrong) return wrong;
    }
    return NULL;
}

// The past of one topic: it moves that one's place only.
static const char *rp_poll_read_past(rp_client *c, const rp_told *said, const rtpush_cursor *to) {
    rp_want *want = c->catching;
    c->is_past = true;
    const char *wrong = rp_poll_read_items(c, said->messages, SIZE_MAX);
    c->is_past = false;
    if (wrong || rp_client_is_over(c) || c->catching != want) return wrong;
    rp_want_set(want, to);
    rp_cursor_write(want->since, to->epoch, to->seq);
    if (said->more.data && rp_slice_equals(said->more, "true")) return NULL;
    want->is_joined = true;
    want->since[0] = 0;
    if (!c->has_cursor) rp_client_advance(c, to); // there is nothing else to read yet
    return NULL;
}

static const char *rp_poll_read(rp_client *c, rtpush_slice body, int64_t *reconnect_ms, bool *has_more) {
    rp_told said, gap;
    rtpush_cursor to;
    const char *wrong = NULL;
    if (!rtpush_is_json(body.data, body.size) || !rp_told_read(&said, body)) return "a poll's answer is not a JSON object";
    if (!rp_told_cursor(said.cursor, &to)) return "a poll's answer without a cursor";
    if (said.gap.data) wrong = rp_told_read(&gap, said.gap) ? rp_client_gap(c, &gap, said.gap.size) : "a gap that is not an object";
    if (wrong || rp_client_is_over(c)) return wrong;
    if (c->catching) return rp_poll_read_past(c, &said, &to);
    wrong = rp_poll_read_items(c, said.messages, body.size);
    if (wrong || rp_client_is_over(c)) return wrong;
    rp_client_advance(c, &to);
    *reconnect_ms = said.reconnect.data ? RP_MAX(rp_told_ms(said.reconnect), (int64_t)0) : -1;
    *has_more = said.more.data && rp_slice_equals(said.more, "true");
    return NULL;
}

// When to ask again: at once after news; a server that answers an empty-handed poll too soon is not asked more often for it.
static int64_t rp_poll_pause(const rp_client *c, bool has_more) {
    uint64_t took = c->hub->wheel.now - c->asked;
    if (c->has_news && (has_more || c->transport == RTPUSH_LONG_POLL)) return 0;
    if (c->transport == RTPUSH_LONG_POLL && took >= RP_MIN((uint64_t)c->desc.wait_ms, UINT64_C(900))) return 0;
    return c->transport == RTPUSH_LONG_POLL ? 1000 : c->desc.interval_ms;
}

static void rp_poll_done(rp_client *c) {
    int64_t reconnect_ms = -1;
    bool has_more = false, was_catching = c->catching != NULL;
    rp_buf body = c->read.body; // ours while it is read
    memset(&c->read.body, 0, sizeof c->read.body);
    c->has_news = false;
    const char *wrong = rp_poll_read(c, rp_buf_slice(&body), &reconnect_ms, &has_more);
    rp_buf_free(&c->hub->mem, &body);
    if (rp_client_is_over(c) || c->state == RTPUSH_CLIENT_WAITING) return;
    if (wrong) { rp_client_break(c, wrong); return; }
    if (was_catching) { rp_client_begin(c); return; }
    rp_client_joined(c);
    rp_client_opened(c);
    if (rp_client_is_over(c)) return;
    if (reconnect_ms >= 0) { rp_client_sent_away(c, reconnect_ms); return; }
    rp_client_pump(c);
    int64_t pause = rp_poll_pause(c, has_more);
    if (pause) rp_client_wait_for(c, pause);
    else rp_client_begin(c);
}

// --- the answer's head ---

// The sentence of an error's body (PROTOCOL §5), or what the status means.
static const char *rp_refusal_reason(rp_client *c, rtpush_slice body) {
    rp_told told;
    bool is_json = rtpush_is_json(body.data, body.size) && rp_client_room(c, body.size) && rp_told_read(&told, body);
    const char *reason = is_json ? rp_told_text(c, told.reason, NULL) : NULL;
    return reason ? reason : rp_http_reason(c->refused);
}

// The answer is not what was asked for.
static void rp_client_refused(rp_client *c, rtpush_slice body) {
    char why[300];
    int status = c->refused;
    rp_loss loss = {status == 401 ? RTPUSH_E_UNAUTHORIZED : RTPUSH_E_REFUSED, status, c->refused_ms, false, false, why};
    bool is_last = rp_client_next_place(c, c->index + 1u) >= c->order_count;
    const char *wanted = rp_client_is_socket(c) ? "a WebSocket" : c->transport == RTPUSH_SSE ? "an event stream" : "a poll";
    if (status / 100 == 2 && (is_last || c->state == RTPUSH_CLIENT_OPEN)) loss.code = RTPUSH_E_PROTOCOL; // a yes, to something else
    if (status == 204 && c->transport == RTPUSH_SSE) loss.code = RTPUSH_OK, loss.is_final = true; // WHATWG HTML §9.2.3: stop
    snprintf(why, sizeof why, "it answers %d where %s was asked for: %.200s", status, wanted, rp_refusal_reason(c, body));
    rp_client_lost(c, &loss);
}

// An error's body is read, for its sentence, if it comes soon.
static void rp_read_refused(rp_client *c, const rtpush_head *head) {
    char why[300];
    rtpush_slice location = rp_http_header(head, "location");
    c->refused = head->status;
    c->refused_ms = rp_status_may_pass(head->status) ? rp_head_retry_ms(head) : -1;
    if (head->status / 100 == 3) {
        rp_loss loss = {RTPUSH_E_REFUSED, head->status, -1, false, false, why};
        snprintf(why, sizeof why, "a redirect (%d) to %.*s is not followed", head->status, (int)RP_MIN(location.size, (size_t)200), location.size ? location.data : "nowhere");
        rp_client_lost(c, &loss);
    } else if (head->status < 400) {
        rp_client_refused(c, rp_slice(NULL, 0));
    } else {
        c->read.body_max = RP_REASON_MAX;
        rp_client_wait_for(c, RP_REASON_MS);
    }
}

// RFC 6455 §4.1: what a server's handshake must and must not say. NULL: it is good.
static const char *rp_handshake_wrong(const rp_client *c, const rtpush_head *head) {
    char accept[28];
    unsigned accepts = 0, protocols = 0;
    const char *offered = c->transport == RTPUSH_ENVELOPE ? "rtpush.v1" : c->desc.protocol ? c->desc.protocol : "";
    bool is_accepted = false, is_offered = true;
    if (!head->wants_websocket) return "a 101 without Upgrade: websocket and Connection: Upgrade";
    rp_ws_accept(accept, rp_slice(c->key, 24));
    for (size_t i = 0; i < head->count; i++) {
        rtpush_slice name = head->headers[i].name, value = head->headers[i].value, list = rp_slice_of(offered), part;
        if (rp_slice_is(name, "sec-websocket-extensions")) return "an extension that was not offered";
        if (rp_slice_is(name, "sec-websocket-accept")) accepts++, is_accepted = value.size == 28 && !memcmp(value.data, accept, 28);
        if (!rp_slice_is(name, "sec-websocket-protocol")) continue;
        protocols++;
        is_offered = false;
        while (rp_slice_next(&list, ',', &part)) {
            part = rp_slice_trim(part);
            is_offered |= part.size == value.size && value.size && !memcmp(part.data, value.data, value.size);
        }
    }
    if (accepts != 1 || !is_accepted) return "a wrong Sec-WebSocket-Accept";
    if (protocols > 1 || !is_offered) return "a subprotocol that was not offered";
    return NULL;
}

static void rp_read_switched(rp_client *c, const rtpush_head *head) {
    const char *wrong = rp_client_is_socket(c) && !c->catching ? rp_handshake_wrong(c, head) : "a 101 that was not asked for";
    if (wrong) { rp_client_break(c, wrong); return; }
    rtpush_slice protocol = rp_http_header(head, "sec-websocket-protocol");
    if (c->transport == RTPUSH_ENVELOPE && !protocol.data) { rp_client_lose(c, RTPUSH_E_REFUSED, "the server does not speak rtpush.v1"); return; }
    c->silence_ms = c->desc.silence_ms;
    if (c->transport == RTPUSH_WEBSOCKET) rp_client_opened(c), rp_client_alive(c);
}

// An absolute URL, or a path here. false: not followed.
static bool rp_client_follow(rp_client *c, const rtpush_head *head) {
    rtpush_slice location = rp_http_header(head, "location");
    rp_mem *mem = &c->hub->mem;
    rp_url url;
    rp_buf text;
    bool is_redirect = head->status == 301 || head->status == 302 || head->status == 303 || head->status == 307 || head->status == 308;
    if (!is_redirect || !location.size || c->redirected >= (unsigned)RP_MAX(c->desc.redirects, 0)) return false;
    memset(&text, 0, sizeof text);
    if (*location.data == '/' && !(location.size > 1 && location.data[1] == '/')) {
        rp_buf_text(mem, &text, c->url.is_tls ? "https://" : "http://");
        rp_url_host(mem, &text, &c->url, true);
    }
    rp_buf_slice_put(mem, &text, location);
    rp_buf_put(mem, &text, "", 1);
    if (text.is_broken || c->url.is_unix || !rp_url_parse(&url, text.data) || url.is_unix || (c->url.is_tls && !url.is_tls)) { rp_buf_free(mem, &text); return false; }
    bool is_same_host = !strcmp(url.host, c->url.host) && !strcmp(url.port, c->url.port);
    if (!is_same_host) { // what we know is not for other ears
        c->desc.token = c->desc.headers = NULL;
        c->desc.on_token = NULL;
        rp_buf_rewind(&c->token);
        rp_buf_rewind(&c->query);
    }
    rtpush_slice tail = rp_slice(c->base.data + c->base.size, c->url.path.size - c->base.size); // the topic: if it is the end of the new path too,
    bool is_kept = url.path.size >= tail.size && !memcmp(url.path.data + url.path.size - tail.size, tail.data, tail.size);
    c->base = rp_slice(url.path.data, url.path.size - (is_kept ? tail.size : 0)); // the others lie beside it
    rp_buf_free(mem, &c->location);
    c->location = text;
    c->url = url;
    c->redirected++;
    rp_exchange_stop(c->hub, &c->read);
    rp_client_begin(c);
    return true;
}

static void rp_read_head(rtpush_hub *hub, rp_exchange *x, const rtpush_head *head) {
    rp_client *c = rp_client_of(x);
    rtpush_slice type = rp_http_header(head, "content-type"), part;
    (void)hub;
    if (head->status == 101) { rp_read_switched(c, head); return; }
    if (head->status / 100 == 3 && rp_client_follow(c, head)) return;
    if (head->status != 200 || (rp_client_is_socket(c) && !c->catching)) { rp_read_refused(c, head); return; }
    if (c->transport != RTPUSH_SSE || c->catching) return;
    if (!rp_slice_next(&type, ';', &part) || !rp_slice_is(rp_slice_trim(part), "text/event-stream")) { rp_read_refused(c, head); return; }
    x->is_streamed = true;
    c->is_enveloped = c->desc.kind == RTPUSH_SERVER_RTPUSH && rp_slice_is(rp_http_header(head, "rtpush-events"), "envelope");
    c->silence_ms = c->desc.silence_ms;
    if (c->desc.kind == RTPUSH_SERVER_RTPUSH) rp_client_wait_for(c, RP_MIN(c->desc.connect_timeout_ms, (int64_t)RP_FIRST_EVENT_MS)); // a proxy that gathers the stream gives a head alone
    else rp_client_opened(c), rp_client_alive(c);
}

static void rp_read_done(rtpush_hub *hub, rp_exchange *x) {
    rp_client *c = rp_client_of(x);
    rp_loss loss = {RTPUSH_OK, 0, c->retry_ms, false, false, "the stream has ended"};
    (void)hub;
    if (x->is_streamed && c->state != RTPUSH_CLIENT_OPEN) loss.code = RTPUSH_E_CLOSED;
    if (c->refused) rp_client_refused(c, rp_buf_slice(&x->body));
    else if (x->is_streamed) rp_client_lost(c, &loss);
    else rp_poll_done(c);
}

static void rp_read_lost(rtpush_hub *hub, rp_exchange *x, int code, const char *why) {
    rp_client *c = rp_client_of(x);
    (void)hub;
    if (c->refused) { rp_client_refused(c, rp_slice(NULL, 0)); return; }
    if (!code) code = RTPUSH_E_CLOSED; // a socket without a close frame
    if (c->desc.kind != RTPUSH_SERVER_EVENTS || c->state != RTPUSH_CLIENT_OPEN) { rp_client_lose(c, code, why); return; }
    rp_loss loss = {code, 0, code == RTPUSH_E_PROTOCOL ? -1 : c->retry_ms, false, false, why}; // WHATWG HTML §9.2.3: after the reconnection time
    rp_client_lost(c, &loss);
}

static const rp_exchange_owner rp_read_owner = {rp_read_head, rp_read_bytes, rp_read_frame, rp_read_done, rp_read_lost};

#endif // RP_CLIENT

// ============================================================================
// >>connect  a client is made, kept and ended  (uses: hear)
// ============================================================================
#ifdef RP_CLIENT
// --- its clock ---

// What it waited for has not come.
static void rp_client_late(rp_client *c) {
    bool is_between = (c->read.step == RP_X_IDLE && !c->is_starved) || c->is_changed;
    c->due = UINT64_MAX;
    if (c->state == RTPUSH_CLIENT_OPEN && is_between) {
        if (c->is_changed) rp_exchange_stop(c->hub, &c->read);
        c->is_changed = false;
        rp_stream_in_restart(&c->events);
        rp_client_begin(c);
        return;
    }
    if (c->is_starved) { rp_client_lose(c, RTPUSH_E_MEMORY, "out of memory"); return; }
    if (c->refused) { rp_client_refused(c, rp_slice(NULL, 0)); return; }
    if (c->away_ms >= 0) { rp_client_sent_away(c, c->away_ms); return; }
    if (c->read.step == RP_X_OPENING) { rp_client_lose(c, RTPUSH_E_CONNECT, "no connection in time (connect_timeout_ms)"); return; }
    if (c->transport == RTPUSH_WEBSOCKET && c->read.step == RP_X_SOCKET && !c->is_pinged) {
        c->is_pinged = true;
        rp_link_frame(c->hub, c->read.link, RP_WS_PING, "", 0);
        rp_client_wait_for(c, RP_GRACE_MS);
        return;
    }
    rp_client_lose(c, RTPUSH_E_TIMEOUT, c->read.step == RP_X_HEAD ? "no answer in time (connect_timeout_ms)" : "nothing comes any more (silence_ms)");
}

static void rp_client_tick(rtpush_hub *hub, rp_timer *timer) {
    rp_client *c = RP_OWNER(rp_client, timer, timer);
    uint64_t now = hub->wheel.now;
    while (c->parcels && now >= c->parcels->began + (uint64_t)c->desc.publish_ms) rp_parcel_end(c, c->parcels, 0, RTPUSH_E_UNAVAILABLE);
    if (rp_client_is_over(c)) return;
    if (c->post_due && now >= c->post_due) {
        rp_exchange_stop(hub, &c->post);
        rp_post_again(c, -1);
    }
    if (c->post_at && now >= c->post_at) c->post_at = 0, rp_client_pump(c);
    if (c->state == RTPUSH_CLIENT_WAITING && now >= c->retry_at) {
        rp_client_round(c);
    } else if (c->state != RTPUSH_CLIENT_WAITING && now >= c->due) {
        rp_client_late(c);
    } else if (c->better_at && now >= c->better_at && c->state == RTPUSH_CLIENT_OPEN) {
        rp_exchange_stop(hub, &c->read); // the better one is tried again
        rp_client_unsend(c);
        rp_client_round(c);
    }
    if (rp_client_is_over(c)) return;
    rp_client_pump(c);
    rp_client_arm(c);
}

static void rp_client_reap(rtpush_hub *hub) {
    rp_client *c;
    while ((c = hub->dials->dead_clients) != NULL) {
        hub->dials->dead_clients = c->next;
        rp_client_free(hub, c);
    }
}

// --- making one ---

// Header lines of the host's, none of which is ours to write.
static bool rp_client_headers_are_good(const char *headers) {
    static const char *const ours[] = {"content-length", "transfer-encoding", "connection", "upgrade", "content-encoding", "last-event-id"};
    rtpush_slice rest = rp_slice_of(headers ? headers : ""), line, name, value;
    while (rest.size) {
        ptrdiff_t n = rp_http_line(rest.data, rest.size, &line);
        if (n <= 0 || !rp_http_field(line, &name, &value)) return false;
        for (size_t i = 0; i < RP_COUNT(ours); i++)
            if (rp_slice_is(name, ours[i])) return false;
        if (name.size > 14 && rp_slice_is(rp_slice(name.data, 14), "sec-websocket-")) return false;
        rest = rp_slice(rest.data + n, rest.size - (size_t)n);
    }
    return true;
}

// "websocket,sse,…" into c->order. false: a word that is none.
static bool rp_client_read_order(rp_client *c, const char *list) {
    static const struct { const char *name; uint8_t transport; } known[] = {
        {"websocket", RTPUSH_ENVELOPE}, {"sse", RTPUSH_SSE}, {"longpoll", RTPUSH_LONG_POLL}, {"shortpoll", RTPUSH_SHORT_POLL}};
    rtpush_slice rest = rp_slice_of(list), part;
    while (rp_slice_next(&rest, ',', &part)) {
        uint8_t transport = RTPUSH_NO_TRANSPORT;
        for (size_t i = 0; i < RP_COUNT(known); i++)
            if (rp_slice_is(rp_slice_trim(part), known[i].name)) transport = known[i].transport;
        if (!transport || c->order_count == RP_ORDER_MAX || memchr(c->order, transport, c->order_count)) return false;
        c->order[c->order_count++] = transport;
    }
    return c->order_count > 0;
}

static bool rp_client_take_order(rp_client *c) {
    const char *list = c->desc.transports;
    if (c->desc.kind != RTPUSH_SERVER_RTPUSH) {
        c->order[c->order_count++] = c->desc.kind == RTPUSH_SERVER_EVENTS ? RTPUSH_SSE : RTPUSH_WEBSOCKET;
        return true;
    }
    return rp_client_read_order(c, list ? list : c->url.is_ws ? "websocket" : "websocket,sse,longpoll,shortpoll");
}

static rp_want *rp_want_add(rp_client *c, rtpush_slice name, const char *since) {
    rp_want *want = (rp_want *)rp_mem_get(&c->hub->mem, sizeof *want + name.size), **at = &c->wants;
    if (!want) return NULL;
    memcpy(want->name, name.data, name.size);
    want->size = name.size;
    snprintf(want->since, sizeof want->since, "%s", since ? since : "");
    while (*at) at = &(*at)->next;
    *at = want;
    return want;
}

// A topic as it stands in a URL. A code.
static int rp_client_want_encoded(rp_client *c, rtpush_slice encoded, bool is_query, bool is_own) {
    size_t size;
    if (!rp_client_room(c, encoded.size)) return RTPUSH_E_MEMORY;
    if (!rp_http_decode(c->scratch.data, &size, encoded, is_query) || !rtpush_is_topic(c->scratch.data, size, true)) return RTPUSH_E_TOPIC;
    if (rp_client_want(c, rp_slice(c->scratch.data, size))) return RTPUSH_OK;
    rp_want *want = rp_want_add(c, rp_slice(c->scratch.data, size), NULL);
    if (want) want->is_own = is_own;
    return want ? RTPUSH_OK : RTPUSH_E_MEMORY;
}

// The URL's query: topics are wanted, what is ours to say is left out, the rest is kept.
static int rp_client_take_query(rp_client *c) {
    static const char *const ours[] = {"last_event_id", "wait", "session", "events", "since"};
    rtpush_slice rest = c->url.query, part, name;
    while (rp_slice_next(&rest, '&', &part)) {
        rtpush_slice value = part;
        bool is_ours = false;
        rp_slice_next(&value, '=', &name);
        if (rp_slice_equals(name, "topic")) {
            int code = rp_client_want_encoded(c, value, true, false);
            if (code) return code;
            continue;
        }
        for (size_t i = 0; i < RP_COUNT(ours); i++) is_ours |= rp_slice_equals(name, ours[i]);
        if (is_ours || !part.size) continue;
        if (rp_buf_size(&c->query)) rp_buf_put(&c->hub->mem, &c->query, "&", 1);
        rp_buf_slice_put(&c->hub->mem, &c->query, part);
    }
    return c->query.is_broken ? RTPUSH_E_MEMORY : RTPUSH_OK;
}

// Where the mount ends and the topic begins. Without the mount in it the URL is a topic's whose name is not known.
static int rp_client_take_path(rp_client *c) {
    rtpush_slice path = c->url.path;
    const char *mount = c->desc.mount ? c->desc.mount : "/live";
    size_t size = strlen(mount);
    while (size && mount[size - 1] == '/') size--;
    bool is_under = path.size >= size && !memcmp(path.data, mount, size) && (path.size == size || path.data[size] == '/');
    c->base = is_under ? rp_slice(path.data, size) : path;
    c->is_elsewhere = !is_under;
    if (is_under && path.size > size) return rp_client_want_encoded(c, rp_slice(path.data + size + 1, path.size - size - 1), false, true);
    c->url.path = c->base;
    return RTPUSH_OK;
}

#define RP_CLIENT_DEFAULTS(X)                                                                                            \
    X(connect_timeout_ms, 10000) X(backoff_ms, 500) X(backoff_max_ms, 30000) X(stable_ms, 10000) X(remember_ms, 300000)  \
    X(wait_ms, 25000) X(interval_ms, 3000) X(silence_ms, 40000) X(message_max, 1048576) X(queue_max, 4194304) X(publish_ms, 100000)

// Every duration is at most a day, every size below 1 GiB, so that sums of them fit.
static void rp_client_fill(rtpush_client_desc *d) {
#define RP_DEFAULT(field, value) d->field = d->field > 0 ? RP_MIN(d->field, (int64_t)86400000) : (value);
    RP_CLIENT_DEFAULTS(RP_DEFAULT)
#undef RP_DEFAULT
}

// Copies the desc's strings, one behind the other.
static bool rp_client_take_texts(rp_client *c, const rtpush_client_desc *desc) {
    const char **const at[] = {&c->desc.url, &c->desc.mount, &c->desc.transports, &c->desc.since, &c->desc.headers, &c->desc.token,
                               &c->desc.protocol, &c->desc.proxy, &c->desc.ca, &c->desc.cert, &c->desc.key};
    size_t size = 1;
    c->desc = *desc;
    for (size_t i = 0; i < RP_COUNT(at); i++) size += *at[i] ? strlen(*at[i]) + 1 : 0;
    char *text = c->texts = (char *)rp_mem_get(&c->hub->mem, size);
    for (size_t i = 0; text && i < RP_COUNT(at); i++) {
        if (!*at[i]) continue;
        size = strlen(*at[i]) + 1;
        memcpy(text, *at[i], size);
        *at[i] = text;
        text += size;
    }
    return text != NULL;
}

static int rp_client_take_desc(rp_client *c, const rtpush_client_desc *desc) {
    if (!rp_client_take_texts(c, desc)) return RTPUSH_E_MEMORY;
    rp_client_fill(&c->desc);
    if (c->desc.kind < RTPUSH_SERVER_RTPUSH || c->desc.kind > RTPUSH_SERVER_EVENTS) return RTPUSH_E_ARGUMENT;
    if (!rp_url_parse(&c->url, c->desc.url)) return RTPUSH_E_URL;
    if (c->desc.proxy && (!rp_url_parse(&c->proxy, c->desc.proxy) || c->proxy.is_tls || c->proxy.is_ws)) return RTPUSH_E_URL;
    if (!rp_client_headers_are_good(c->desc.headers)) return RTPUSH_E_HEADER;
#ifndef RTPUSH_OPENSSL
    if (c->url.is_tls) return RTPUSH_E_TLS;
#endif
    if (!rp_client_take_order(c)) return RTPUSH_E_ARGUMENT;
    if (c->desc.since && rp_start_parse(rp_slice_of(c->desc.since)).kind == RP_START_BAD) return RTPUSH_E_ARGUMENT;
    if (c->desc.token && !rp_slice_all(rp_slice_of(c->desc.token), rp_http_is_value)) return RTPUSH_E_HEADER;
    c->to.url = &c->url;
    c->to.proxy = c->desc.proxy ? &c->proxy : NULL;
    c->to.trust.ca = c->desc.ca;
    c->to.trust.cert = c->desc.cert;
    c->to.trust.key = c->desc.key;
    c->to.trust.insecure = c->desc.insecure;
    if (c->desc.kind != RTPUSH_SERVER_RTPUSH) {
        c->base = c->url.path;
        rp_buf_slice_put(&c->hub->mem, &c->query, c->url.query);
        return c->query.is_broken ? RTPUSH_E_MEMORY : RTPUSH_OK;
    }
    int code = rp_client_take_path(c);
    return code ? code : rp_client_take_query(c);
}

static void rp_client_init_exchange(rp_client *c, rp_exchange *x, const rp_exchange_owner *owner, size_t body_max) {
    x->owner = owner;
    x->links = &rp_exchange_links;
    x->to = &c->to;
    x->body_max = body_max;
}

static int rp_client_new(rtpush_hub *hub, const rtpush_client_desc *desc, rtpush_client *handle) {
    if (hub->server->is_closed || (hub->dials && hub->dials->is_closed)) return RTPUSH_E_STATE;
    if (!rp_dial_prepare(hub)) return RTPUSH_E_MEMORY;
    if (!hub->dials->clients.mem) rp_slab_init(&hub->dials->clients, &hub->mem, sizeof(rp_client));
    rp_client *c = (rp_client *)rp_slab_take(&hub->dials->clients);
    if (!c) return RTPUSH_E_MEMORY;
    c->hub = hub;
    c->timer.fire = rp_client_tick;
    c->due = UINT64_MAX;
    c->retry_ms = -1;
    int code = rp_client_take_desc(c, desc);
    if (!code && !rp_client_random(hub, c->session)) code = RTPUSH_E_SYSTEM;
    rp_client_init_exchange(c, &c->read, &rp_read_owner, rp_client_body_max(c));
    rp_client_init_exchange(c, &c->post, &rp_post_owner, 65536);
    if (code) { rp_client_free(hub, c); return code; }
    c->state = RTPUSH_CLIENT_WAITING;
    c->retry_at = hub->wheel.now;
    rp_client_arm(c);
    *handle = rp_client_handle(c);
    return RTPUSH_OK;
}

// The set of topics has changed: a socket is told, what else reads begins anew.
static void rp_client_changed(rp_client *c) {
    if (c->state != RTPUSH_CLIENT_OPEN) return;
    if (c->transport == RTPUSH_ENVELOPE) { rp_client_subscribe_all(c); return; }
    c->is_changed = true;
    rp_client_wait_for(c, 0);
}

static void rp_client_unwant(rp_client *c, rp_want *want) {
    if (c->state == RTPUSH_CLIENT_OPEN && c->transport == RTPUSH_ENVELOPE && want->is_asked) {
        rp_buf *buf = rp_hub_text(c->hub);
        rp_buf_text(&c->hub->mem, buf, "{\"type\":\"unsubscribe\",\"topic\":");
        rp_json_text(&c->hub->mem, buf, want->name);
        rp_buf_text(&c->hub->mem, buf, "}");
        rp_client_say(c, buf);
    }
    rp_client_drop_want(c, want);
    rp_client_changed(c);
}

static rp_parcel *rp_parcel_new(rp_client *c, const rtpush_publication *what, const char *key) {
    const char *texts[3] = {what->topic, what->event ? what->event : "", key};
    size_t size = sizeof(rp_parcel) + what->size + 1;
    for (unsigned i = 0; i < 3; i++) size += texts[i] ? strlen(texts[i]) + 1 : 0;
    rp_parcel *parcel = (rp_parcel *)rp_mem_get(&c->hub->mem, size);
    if (!parcel) return NULL;
    char *at = (char *)(parcel + 1);
    for (unsigned i = 0; i < 3; i++) {
        if (!texts[i]) continue;
        memcpy(at, texts[i], strlen(texts[i]) + 1);
        texts[i] = at;
        at += strlen(at) + 1;
    }
    if (what->size) memcpy(at, what->data, what->size);
    parcel->topic = texts[0];
    parcel->event = texts[1];
    parcel->key = texts[2];
    parcel->data = at;
    parcel->size = what->size;
    int kind = rtpush_utf8(0, what->data, what->size) ? RTPUSH_BINARY : RTPUSH_TEXT;
    parcel->kind = (uint8_t)(what->kind ? what->kind : kind);
    parcel->is_ephemeral = what->ephemeral;
    parcel->done = what->done;
    parcel->done_user = what->done_user;
    parcel->began = c->hub->sys.now_ms(c->hub->sys.user);
    parcel->ref = ++c->last_ref;
    return parcel;
}

// Is it something that a server would take? A code.
static int rp_client_may_publish(const rp_client *c, const rtpush_publication *what) {
    rtpush_slice event = rp_slice_of(what->event ? what->event : "");
    if (c->desc.kind != RTPUSH_SERVER_RTPUSH) return RTPUSH_E_STATE;
    if (what->kind < RTPUSH_AUTO || what->kind > RTPUSH_BINARY) return RTPUSH_E_ARGUMENT;
    if (what->topic && !rtpush_is_topic(what->topic, strlen(what->topic), false)) return RTPUSH_E_TOPIC;
    if (rtpush_utf8(0, event.data, event.size) || !rp_slice_all(event, rp_http_is_value) || rp_slice_equals(event, "gap")) return RTPUSH_E_EVENT;
    if (what->key && (!*what->key || !rp_slice_all(rp_slice_of(what->key), rp_http_is_value) || rtpush_utf8(0, what->key, strlen(what->key)))) return RTPUSH_E_ARGUMENT;
    if (what->kind == RTPUSH_TEXT && rtpush_utf8(0, what->data, what->size)) return RTPUSH_E_UTF8;
    if (what->kind == RTPUSH_JSON && !rtpush_is_json(what->data, what->size)) return RTPUSH_E_JSON;
    if (what->size > (uint64_t)c->desc.message_max) return RTPUSH_E_TOO_BIG;
    return what->size > (uint64_t)c->desc.queue_max - RP_MIN(c->queued, (size_t)c->desc.queue_max) ? RTPUSH_E_FULL : RTPUSH_OK;
}

static int rp_client_publish(rp_client *c, const rtpush_publication *what) {
    char key[RP_KEY_SIZE + 1];
    rtpush_publication own = *what;
    rp_parcel **at = &c->parcels;
    int code = rp_client_may_publish(c, what);
    if (code) return code;
    if (!what->key && !rp_client_random(c->hub, key)) return RTPUSH_E_SYSTEM;
    for (const rp_want *want = c->wants; want && !own.topic; want = want->next)
        if (want->is_own) own.topic = want->name;
    if (!own.topic && !c->is_elsewhere) own.topic = c->wants && !c->wants->next ? c->wants->name : "";
    if (own.topic && !*own.topic) return RTPUSH_E_TOPIC;
    if (own.topic && rp_topic_is_pattern(rp_slice_of(own.topic))) return RTPUSH_E_TOPIC;
    rp_parcel *parcel = rp_parcel_new(c, &own, what->key ? what->key : key);
    if (!parcel) return RTPUSH_E_MEMORY;
    while (*at) at = &(*at)->next;
    *at = parcel;
    c->queued += parcel->size;
    rp_client_pump(c);
    if (!rp_client_is_over(c)) rp_client_arm(c);
    return RTPUSH_OK;
}

static int rp_client_send(rp_client *c, const void *data, size_t size, int kind) {
    bool is_text = kind == RTPUSH_TEXT || (kind == RTPUSH_AUTO && !rtpush_utf8(0, data, size));
    if (c->transport != RTPUSH_WEBSOCKET || c->state != RTPUSH_CLIENT_OPEN) return RTPUSH_E_STATE;
    if (kind != RTPUSH_AUTO && kind != RTPUSH_TEXT && kind != RTPUSH_BINARY) return RTPUSH_E_ARGUMENT;
    if (is_text && rtpush_utf8(0, data, size)) return RTPUSH_E_UTF8;
    if (size > (uint64_t)c->desc.message_max) return RTPUSH_E_TOO_BIG;
    if (!rp_link_has_room(c->read.link)) return RTPUSH_E_FULL;
    rp_link_frame(c->hub, c->read.link, is_text ? RP_WS_TEXT : RP_WS_BINARY, data, size);
    return c->read.link->out.is_broken ? RTPUSH_E_MEMORY : RTPUSH_OK;
}

// Of the program's own will: a socket says goodbye.
static void rp_client_quit(rp_client *c, int code, const char *reason) {
    unsigned char body[RP_WS_CONTROL_MAX];
    size_t size = RP_MIN(strlen(reason), sizeof body - 2);
    rp_loss loss = {RTPUSH_OK, 0, -1, false, true, "closed by the program"};
    body[0] = (unsigned char)(code >> 8);
    body[1] = (unsigned char)(code & 255);
    memcpy(body + 2, reason, size);
    if (c->read.link && c->read.step == RP_X_SOCKET) rp_link_frame(c->hub, c->read.link, RP_WS_CLOSE, body, size + 2);
    rp_client_end(c, &loss);
}

// All of them, with the hub.
static void rp_client_end_all(rtpush_hub *hub) {
    rp_loss loss = {RTPUSH_E_GONE, 0, -1, false, true, "the hub is destroyed"};
    if (!hub->dials) return;
    hub->dials->is_closed = true;
    for (uint32_t i = 0; i < rp_slab_end(&hub->dials->clients); i++) {
        rp_slot *slot = rp_slab_at(&hub->dials->clients, i);
        if (slot->generation & 1) rp_client_end((rp_client *)(void *)slot, &loss);
    }
    rp_client_reap(hub);
    rp_dial_reap(hub);
}
#endif // RP_CLIENT

// ============================================================================
// >>bus  what a bus tells the hub  (uses: publish, reader, push, conn)
//
// Messages come in the order of their seq; another epoch tells every reader of a gap. The
// buses of the library itself are the rooms below; a host's own uses the same functions.
// ============================================================================
#ifdef RP_SERVER
RTPUSH_DEF int rtpush_bus_deliver(rtpush_hub *hub, const rtpush_message *m) {
    rtpush_publication what;
    rtpush_message checked;
    if (m->seq <= hub->log.head) return RTPUSH_E_ARGUMENT;
    memset(&what, 0, sizeof what);
    what.topic = m->topic;
    what.event = m->event;
    what.data = m->data;
    what.size = m->size;
    what.kind = m->kind;
    what.ephemeral = m->ephemeral;
    int code = rp_publish_check(hub, &what, &checked);
    if (code) return code;
    checked.seq = m->seq;
    checked.time_ms = m->time_ms;
    code = rp_hub_append(hub, &checked);
    if (!code) rp_hub_tap(hub, RP_ITEM_MESSAGE, &checked);
    return code;
}

RTPUSH_DEF int rtpush_bus_clear(rtpush_hub *hub, const char *topic, uint64_t seq) {
    rp_topic *t = rp_hub_find_topic(hub, rp_slice_of(topic));
    if (t) rp_hub_clear(hub, t, seq ? seq : UINT64_MAX);
    rp_hub_tap_other(hub, RP_ITEM_CLEAR, 0, topic, "", rp_slice(NULL, 0), seq);
    return rtpush_is_topic(topic, rp_slice_of(topic).size, false) ? RTPUSH_OK : RTPUSH_E_TOPIC;
}

RTPUSH_DEF void rtpush_bus_wake(rtpush_hub *hub) { hub->bus_is_due = true; }

// Tells one connection that the log it was reading is no more; `was` is where it stood in it.
static void rp_restart_conn(rtpush_hub *hub, rp_conn *c, const char *epoch, uint64_t was) {
    rp_reader *r = &c->reader;
    rp_poll_answer answer;
    rp_gap gap;
    memset(&gap, 0, sizeof gap);
    r->ahead = 0;
    r->began = hub->log.head;
    for (uint16_t i = 0; i < r->count; i++) r->subs[i].told = hub->log.head;
    gap.is_told = true;
    gap.to = hub->log.head;
    gap.reason = "epoch";
    rp_cursor_write(gap.from, epoch, was);
    hub->stats.gaps++;
    rp_poll_answer_init(&answer, &gap);
    if (c->phase == RP_PHASE_PARKED) rp_poll_reply(hub, c, &answer, true);
    else if (r->wire->gap) r->wire->gap(hub, r, &gap);
    else rp_socket_close(hub, c, 4100, "gap");
    rp_reader_end_replays(hub, r);
}

RTPUSH_DEF int rtpush_bus_start(rtpush_hub *hub, const char *epoch, uint64_t floor) {
    char old[9];
    if (!rp_is_epoch(rp_slice_of(epoch))) return RTPUSH_E_ARGUMENT;
    memcpy(old, hub->log.epoch, 9);
    for (uint32_t i = 0; i < rp_slab_end(&hub->server->conns); i++) {
        rp_conn *c = (rp_conn *)(void *)rp_slab_at(&hub->server->conns, i);
        if (c->slot.generation & 1) c->reader.ahead = rp_reader_cursor(hub, &c->reader); // kept there over the change
    }
    rp_hub_restart(hub, epoch, floor);
    rp_hub_tap_other(hub, RP_ITEM_RESTART, 0, "", epoch, rp_slice(NULL, 0), floor);
    while (hub->outbox->key_first && !hub->outbox->key_first->is_pending) rp_key_remove(hub, hub->outbox->key_first);
    for (uint32_t i = 0; i < rp_slab_end(&hub->server->conns); i++) {
        rp_conn *c = (rp_conn *)(void *)rp_slab_at(&hub->server->conns, i);
        if (!(c->slot.generation & 1)) continue;
        if (rp_conn_is_reader(c) && !c->is_unknown) rp_restart_conn(hub, c, old, c->reader.ahead);
        c->reader.ahead = 0;
    }
    return RTPUSH_OK;
}

// Why the bus takes nothing now: `why` (static), NULL: it does again. Logged when it changes.
static void rp_bus_set_why(rtpush_hub *hub, const char *name, const char *why) {
    if (why && !hub->bus_why) rp_hub_log(hub, "%s: %s; publishes are refused", name, why);
    if (!why && hub->bus_why) rp_hub_log(hub, "%s: takes publishes again", name);
    hub->bus_why = why;
}
#endif // RP_SERVER

// ============================================================================
// >>record  what stands in a journal's files, byte by byte  (uses: codec, bytes)
//
// Record: size u32, check u32, then the body: type, kind, flags, topic's size u8; event's
// size u16; 0 u16; seq, time, hash, check u64; topic NUL event NUL data. Little-endian.
// ============================================================================
#ifdef RP_SERVER
enum rp_record_type {
    RP_BEGIN = 1, // of each file: event = epoch, seq = floor, hash and check = the key of the idempotency keys
    RP_MESSAGE,   // hash, check: its idempotency key, if it has one
    RP_MARK,      // of the topic nothing up to seq is held; without a topic: nobody knows what was up to seq
    RP_KEY,       // an idempotency key: hash, check, its message's seq, time = its end
    RP_END        // of base, and of a clean end: seq = the head
};

enum { RP_RECORD_HEAD = 8, RP_RECORD_FIXED = 40, RP_RECORD_EPHEMERAL = 1 };

typedef struct rp_record {
    int type, kind;
    bool is_ephemeral;
    uint64_t seq, hash, check;
    int64_t time_ms;
    const char *topic, *event; // NUL-terminated
    rtpush_slice data;
} rp_record;

static void rp_le_write(char *to, uint64_t value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; i++) to[i] = (char)(unsigned char)(value >> (8 * i));
}

static uint64_t rp_le_read(const char *from, unsigned bytes) {
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++) value |= (uint64_t)(unsigned char)from[i] << (8 * i);
    return value;
}

static uint32_t rp_record_check(const char *body, size_t size) {
    rp_hash_key key;
    key.k0 = size;
    key.k1 = 0;
    return (uint32_t)rp_hash(&key, body, size);
}

static void rp_record_put(rp_mem *mem, rp_buf *buf, const rp_record *r) {
    size_t topic = strlen(r->topic), event = strlen(r->event);
    size_t size = RP_RECORD_FIXED + topic + 1 + event + 1 + r->data.size;
    char *room = rp_buf_room(mem, buf, RP_RECORD_HEAD + size);
    if (!room) return;
    char *body = room + RP_RECORD_HEAD;
    memset(body, 0, RP_RECORD_FIXED);
    body[0] = (char)r->type;
    body[1] = (char)r->kind;
    body[2] = r->is_ephemeral ? RP_RECORD_EPHEMERAL : 0;
    body[3] = (char)(unsigned char)topic;
    rp_le_write(body + 4, event, 2);
    rp_le_write(body + 8, r->seq, 8);
    rp_le_write(body + 16, (uint64_t)r->time_ms, 8);
    rp_le_write(body + 24, r->hash, 8);
    rp_le_write(body + 32, r->check, 8);
    memcpy(body + RP_RECORD_FIXED, r->topic, topic + 1);
    memcpy(body + RP_RECORD_FIXED + topic + 1, r->event, event + 1);
    if (r->data.size) memcpy(body + RP_RECORD_FIXED + topic + 1 + event + 1, r->data.data, r->data.size);
    rp_le_write(room, size, 4);
    rp_le_write(room + 4, rp_record_check(body, size), 4);
    buf->end += RP_RECORD_HEAD + size;
}

// The size of the record that begins here, 0: that cannot be seen yet. At most UINT32_MAX + RP_RECORD_HEAD.
static uint64_t rp_record_size(const char *bytes, size_t size) { return size < RP_RECORD_HEAD ? 0 : RP_RECORD_HEAD + rp_le_read(bytes, 4); }

// Is the record what was written?
static bool rp_record_is_whole(const char *bytes, size_t size) {
    const char *body = bytes + RP_RECORD_HEAD;
    size_t body_size = size - RP_RECORD_HEAD;
    if (body_size < RP_RECORD_FIXED + 2 || rp_record_check(body, body_size) != rp_le_read(bytes + 4, 4)) return false;
    size_t topic = (unsigned char)body[3], event = (size_t)rp_le_read(body + 4, 2);
    if (body_size < RP_RECORD_FIXED + topic + event + 2) return false;
    return !body[RP_RECORD_FIXED + topic] && !body[RP_RECORD_FIXED + topic + 1 + event];
}

// Reads a whole record; what *r points to is in `bytes`.
static void rp_record_read(rp_record *r, const char *bytes) {
    const char *body = bytes + RP_RECORD_HEAD;
    size_t body_size = (size_t)rp_le_read(bytes, 4), topic = (unsigned char)body[3], event = (size_t)rp_le_read(body + 4, 2);
    r->type = body[0];
    r->kind = body[1];
    r->is_ephemeral = body[2] & RP_RECORD_EPHEMERAL;
    r->seq = rp_le_read(body + 8, 8);
    r->time_ms = (int64_t)rp_le_read(body + 16, 8);
    r->hash = rp_le_read(body + 24, 8);
    r->check = rp_le_read(body + 32, 8);
    r->topic = body + RP_RECORD_FIXED;
    r->event = r->topic + topic + 1;
    r->data = rp_slice(r->event + event + 1, body_size - RP_RECORD_FIXED - topic - event - 2);
}

static rp_record rp_record_new(int type, const char *topic, const char *event, uint64_t seq) {
    rp_record r;
    memset(&r, 0, sizeof r);
    r.type = type;
    r.topic = topic;
    r.event = event;
    r.seq = seq;
    return r;
}

static rp_record rp_record_begin(const rtpush_hub *hub) {
    rp_record r = rp_record_new(RP_BEGIN, "", hub->log.epoch, hub->log.floor);
    r.hash = hub->hash_key.k0;
    r.check = hub->hash_key.k1;
    return r;
}

static rtpush_message rp_record_message(const rp_record *r) {
    rtpush_message m;
    memset(&m, 0, sizeof m);
    m.topic = r->topic;
    m.event = r->event;
    m.data = r->data.data;
    m.size = r->data.size;
    m.kind = r->kind;
    m.ephemeral = r->is_ephemeral;
    m.seq = r->seq;
    m.time_ms = r->time_ms;
    return m;
}
#endif // RP_SERVER

// ============================================================================
// >>journal  the log on disk: a restart loses nothing  (uses: record, bus, publish, hub)
//
// A directory of files, each a row of records. Segments `<first seq>.log` are appended to:
// all publishes of a turn in one write, then (sync_always) one fsync, then the readers.
// `base.log` is what was still held of older segments when they were dropped. `head` has
// the highest seq that was given to anybody: a load that ends below it has lost something,
// and begins another epoch. It is also the lock against a second process.
// ============================================================================
#ifdef RP_SERVER
enum { RP_DUMP_BYTES = 1048576, RP_HEAL_SHIFT = 17 };

// A publish between append and its end.
typedef struct rp_due {
    uint64_t ticket;
    bool is_told; // its record is in journal.told, else in journal.out
    size_t at;
} rp_due;

typedef struct rp_journal {
    rtpush_bus bus;
    rtpush_journal_desc desc;
    rtpush_hub *hub;
    int fd, head_fd;       // the segment that is appended to; -1: the next write begins one
    bool is_open, is_closed;
    bool is_suspect;       // the files were removed, or nobody knows what is in them: what is in memory is written first
    uint64_t heal_at;      // and not more often
    bool is_dirty;         // the last record is no END
    uint64_t boot;         // the system's run
    int error;             // errno of what went wrong last
    uint64_t first, size;  // the last segment's first seq, the bytes of its whole records
    uint64_t older, base;  // bytes of the other segments, of base
    uint64_t older_max;    // with more of them they become the base
    uint64_t seq, head;    // given to what is appended, and written
    rp_buf out, told;      // records to write; those of ephemeral ones as they are delivered: their data is not written
    size_t out_written;
    rp_due *due;
    uint32_t due_count, due_cap, due_written, due_given;
    rp_timer sync;
    int dump_fd;           // the next base, while it is written; -1
    uint64_t dump_at, dump_until, dump_size, dump_older;
    char why[96];
    char dir[1];
} rp_journal;

// --- files ---

typedef char rp_path[512];

static const char *rp_journal_path(const rp_journal *j, rp_path path, const char *name) {
    int n = snprintf(path, sizeof(rp_path), "%s/%s", j->dir, name);
    return n > 0 && (size_t)n < sizeof(rp_path) ? path : ""; // "" cannot be opened
}

static const char *rp_journal_segment(const rp_journal *j, rp_path path, uint64_t first) {
    char name[32];
    snprintf(name, sizeof name, "%020" PRIu64 ".log", first);
    return rp_journal_path(j, path, name);
}

// All of it at this place, or false and errno.
static bool rp_file_write(int fd, const char *data, size_t size, uint64_t at) {
    while (size) {
        ssize_t n = pwrite(fd, data, size, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) { errno = n ? errno : ENOSPC; return false; }
        data += n;
        size -= (size_t)n;
        at += (uint64_t)n;
    }
    return true;
}

static bool rp_file_sync(int fd) {
#if defined(__linux__)
    return !fdatasync(fd);
#else
    return !fsync(fd);
#endif
}

// A new name in the directory is on the disk only when the directory is.
static bool rp_journal_sync_dir(const rp_journal *j) {
    if (j->desc.sync_ms < 0 && !j->desc.sync_always) return true;
    int fd = open(j->dir, O_RDONLY | O_CLOEXEC);
    bool is_synced = fd >= 0 && !fsync(fd);
    if (fd >= 0) close(fd);
    return is_synced;
}

static void rp_file_close(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static int rp_journal_compare(const void *a, const void *b) {
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x < y ? -1 : x > y;
}

// The segments' first seqs, ascending; to be freed.
static void rp_journal_list(rp_journal *j, uint64_t **firsts, uint32_t *count) {
    uint32_t cap = 0;
    DIR *dir = opendir(j->dir);
    *firsts = NULL;
    *count = 0;
    for (struct dirent *item; dir && (item = readdir(dir)) != NULL;) {
        uint64_t first;
        rtpush_slice name = rp_slice_of(item->d_name);
        if (name.size != 24 || strcmp(item->d_name + 20, ".log") || !rp_slice_number(rp_slice(name.data, 20), &first)) continue;
        if (!rp_mem_grow(&j->hub->mem, (void **)firsts, &cap, *count, sizeof first)) break;
        (*firsts)[(*count)++] = first;
    }
    if (dir) closedir(dir);
    if (*count) qsort(*firsts, *count, sizeof **firsts, rp_journal_compare);
}

// The system's present run, as a number: what was written in it is still seen, though the process was killed.
static uint64_t rp_boot(void) {
    static const rp_hash_key key = {1, 2};
    char text[64];
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);
    rp_file_close(&fd);
    return n > 0 ? rp_hash(&key, text, (size_t)n) : 0;
}

// --- head ---

enum { RP_HEAD_BYTES = 64 };
static const char rp_head_magic[] = "rtpush j";

typedef struct rp_head_file {
    char epoch[9];
    uint64_t seq, boot;
    uint64_t first, size; // of the segment that was written to last
    bool is_synced; // whatever was acknowledged was on the disk
} rp_head_file;

static bool rp_journal_write_head(rp_journal *j, uint64_t seq, uint64_t size) {
    char bytes[RP_HEAD_BYTES];
    memcpy(bytes, rp_head_magic, 8);
    memcpy(bytes + 8, j->hub->log.epoch, 8);
    rp_le_write(bytes + 16, seq, 8);
    rp_le_write(bytes + 24, j->boot, 8);
    rp_le_write(bytes + 32, j->desc.sync_always, 8);
    rp_le_write(bytes + 40, j->first, 8);
    rp_le_write(bytes + 48, size, 8);
    rp_le_write(bytes + 56, rp_record_check(bytes, 56), 8);
    return rp_file_write(j->head_fd, bytes, sizeof bytes, 0);
}

static bool rp_journal_read_head(const rp_journal *j, rp_head_file *head) {
    char bytes[RP_HEAD_BYTES];
    memset(head, 0, sizeof *head);
    if (pread(j->head_fd, bytes, sizeof bytes, 0) != RP_HEAD_BYTES) return false;
    if (memcmp(bytes, rp_head_magic, 8) || rp_le_read(bytes + 56, 8) != rp_record_check(bytes, 56)) return false;
    memcpy(head->epoch, bytes + 8, 8);
    head->seq = rp_le_read(bytes + 16, 8);
    head->boot = rp_le_read(bytes + 24, 8);
    head->is_synced = rp_le_read(bytes + 32, 8) != 0;
    head->first = rp_le_read(bytes + 40, 8);
    head->size = rp_le_read(bytes + 48, 8);
    return true;
}

// --- what is wrong ---

static void rp_journal_fail(rp_journal *j) {
    snprintf(j->why, sizeof j->why, "the journal cannot be written: %s", strerror(errno));
    rp_bus_set_why(j->hub, j->bus.name, j->why);
}

// The lock. 0 or a code; of RTPUSH_E_SYSTEM errno says more.
static int rp_journal_lock(rp_journal *j, int64_t wait_ms) {
    rp_path path;
    struct timespec nap = {0, 20000000};
    j->head_fd = open(rp_journal_path(j, path, "head"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (j->head_fd < 0) return RTPUSH_E_SYSTEM;
    while (flock(j->head_fd, LOCK_EX | LOCK_NB)) {
        if (errno != EWOULDBLOCK && errno != EINTR) return RTPUSH_E_SYSTEM;
        if ((wait_ms -= 20) < 0) return RTPUSH_E_IN_USE;
        nanosleep(&nap, NULL);
    }
    return RTPUSH_OK;
}

// --- segments ---

// The segment is full, or damaged: the next write begins another.
static void rp_journal_rotate(rp_journal *j) {
    if (j->fd >= 0 && (j->desc.sync_ms >= 0 || j->desc.sync_always)) rp_file_sync(j->fd);
    rp_timer_stop(&j->hub->wheel, &j->sync);
    if (j->fd >= 0) j->older += j->size;
    rp_file_close(&j->fd);
}

// A new segment; or the last one goes on, behind its last whole record, if no message came into it.
static bool rp_journal_begin(rp_journal *j) {
    rp_path path;
    rp_buf buf;
    uint64_t at = j->first == j->head + 1 ? j->size : 0;
    memset(&buf, 0, sizeof buf);
    rp_record begin = rp_record_begin(j->hub);
    rp_record_put(&j->hub->mem, &buf, &begin);
    errno = ENOMEM;
    j->fd = buf.is_broken ? -1 : open(rp_journal_segment(j, path, j->head + 1), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    bool is_begun = j->fd >= 0 && !ftruncate(j->fd, (off_t)at) && rp_file_write(j->fd, buf.data, rp_buf_size(&buf), at) && rp_journal_sync_dir(j);
    j->first = j->head + 1;
    j->size = at;
    if (is_begun) j->size += rp_buf_size(&buf), j->is_dirty = true;
    else rp_file_close(&j->fd);
    rp_buf_free(&j->hub->mem, &buf);
    return is_begun;
}

// --- base: what is held of old segments ---

static bool rp_dump_flush(rp_journal *j, rp_buf *buf) {
    bool is_written = !buf->is_broken && rp_file_write(j->dump_fd, buf->data + buf->start, rp_buf_size(buf), j->dump_size);
    if (buf->is_broken) errno = ENOMEM;
    j->dump_size += rp_buf_size(buf);
    rp_buf_rewind(buf);
    return is_written;
}

static void rp_dump_open(rp_journal *j, rp_buf *buf) {
    rp_path path;
    rp_record begin = rp_record_begin(j->hub);
    j->dump_fd = open(rp_journal_path(j, path, "base.tmp"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    j->dump_at = j->dump_size = 0;
    j->dump_until = j->hub->log.head;
    j->dump_older = j->older;
    rp_record_put(&j->hub->mem, buf, &begin);
}

// Some of the messages. false: an error; *is_all: there are no more.
static bool rp_dump_messages(rp_journal *j, rp_buf *buf, bool *is_all) {
    rtpush_hub *hub = j->hub;
    uint32_t i = rp_log_after(&hub->log, j->dump_at);
    for (; i < hub->log.spine_end && hub->log.spine[i].seq <= j->dump_until && rp_buf_size(buf) < RP_DUMP_BYTES; i++) {
        const rp_msg *m = hub->log.spine[i].msg;
        j->dump_at = hub->log.spine[i].seq;
        if (!m || m->is_ephemeral) continue;
        rtpush_message view = rp_msg_view(m, hub->wheel.now, rp_hub_wall(hub));
        rp_record r = rp_record_new(RP_MESSAGE, view.topic, view.event, view.seq);
        r.kind = view.kind;
        r.time_ms = view.time_ms;
        r.data = rp_slice(view.data, view.size);
        rp_record_put(&hub->mem, buf, &r);
    }
    *is_all = i == hub->log.spine_end || hub->log.spine[i].seq > j->dump_until;
    return rp_dump_flush(j, buf);
}

static void rp_dump_mark(rtpush_hub *hub, rp_buf *buf, rtpush_slice name, uint64_t evicted) {
    char topic[RP_TOPIC_MAX + 1];
    memcpy(topic, name.data ? name.data : "", name.size);
    topic[name.size] = 0;
    rp_record r = rp_record_new(RP_MARK, topic, "", evicted);
    if (evicted) rp_record_put(&hub->mem, buf, &r);
}

// The keys, and what of which topic is lost.
static void rp_dump_marks(rtpush_hub *hub, rp_buf *buf) {
    for (const rp_key *key = hub->outbox->key_first; key; key = key->next) {
        rp_record r = rp_record_new(RP_KEY, "", "", key->seq);
        r.hash = key->node.hash;
        r.check = key->check;
        r.time_ms = rp_hub_wall(hub) + (int64_t)(key->expires - hub->wheel.now);
        if (!key->is_pending && key->expires > hub->wheel.now) rp_record_put(&hub->mem, buf, &r);
    }
    for (const rp_dead *dead = hub->dead_first; dead; dead = dead->next) rp_dump_mark(hub, buf, rp_slice(dead->name, dead->size), dead->evicted);
    for (rp_node *node = rp_table_next(&hub->names, NULL); node; node = rp_table_next(&hub->names, node)) {
        const rp_source *s = RP_OWNER(rp_source, node, node);
        if (!s->is_pattern) rp_dump_mark(hub, buf, rp_source_name(s), rp_source_lost(s));
    }
    rp_dump_mark(hub, buf, rp_slice(NULL, 0), hub->log.floor);
}

// The new base takes the place of the old one and of the segments it covers.
static bool rp_dump_finish(rp_journal *j, rp_buf *buf) {
    rp_path from, to;
    uint64_t *firsts;
    uint32_t count;
    rp_record end = rp_record_new(RP_END, "", "", j->dump_until);
    rp_dump_marks(j->hub, buf);
    rp_record_put(&j->hub->mem, buf, &end);
    if (!rp_dump_flush(j, buf) || !rp_file_sync(j->dump_fd)) return false;
    rp_file_close(&j->dump_fd);
    if (rename(rp_journal_path(j, from, "base.tmp"), rp_journal_path(j, to, "base.log")) || !rp_journal_sync_dir(j)) return false;
    rp_journal_list(j, &firsts, &count);
    for (uint32_t i = 0; i < count; i++)
        if (firsts[i] <= j->dump_until) unlink(rp_journal_segment(j, to, firsts[i]));
    rp_mem_free(&j->hub->mem, firsts);
    j->base = j->dump_size;
    j->older -= j->dump_older;
    j->older_max = RP_MAX(j->base, 4 * (uint64_t)j->desc.segment_bytes);
    return true;
}

static void rp_dump_give_up(rp_journal *j) {
    rp_path path;
    rp_file_close(&j->dump_fd);
    unlink(rp_journal_path(j, path, "base.tmp"));
    j->older_max = j->older + (uint64_t)j->desc.segment_bytes; // again after the next segment
}

enum rp_dump_step { RP_DUMP_MORE, RP_DUMP_DONE, RP_DUMP_FAILED };

// A piece of the new base.
static enum rp_dump_step rp_dump_turn(rp_journal *j, rp_buf *buf) {
    bool is_all = false;
    bool is_fine = j->dump_fd >= 0 && rp_dump_messages(j, buf, &is_all);
    if (is_fine && !is_all) return RP_DUMP_MORE;
    if (is_fine && rp_dump_finish(j, buf)) return RP_DUMP_DONE;
    rp_hub_log(j->hub, "journal %s: base: %s", j->dir, strerror(errno));
    rp_dump_give_up(j);
    return RP_DUMP_FAILED;
}

// When the segments outgrow what is held, it is written anew, a piece in each turn.
static void rp_journal_dump(rp_journal *j) {
    rp_buf buf;
    memset(&buf, 0, sizeof buf);
    if (j->dump_fd < 0 && (j->older <= j->older_max || j->due_count)) return;
    if (j->dump_fd < 0) {
        rp_journal_rotate(j);
        rp_dump_open(j, &buf);
    }
    if (rp_dump_turn(j, &buf) == RP_DUMP_MORE) rtpush_bus_wake(j->hub);
    rp_buf_free(&j->hub->mem, &buf);
}

static bool rp_journal_dump_all(rp_journal *j) {
    rp_buf buf;
    memset(&buf, 0, sizeof buf);
    if (j->dump_fd >= 0) rp_dump_give_up(j);
    enum rp_dump_step step = RP_DUMP_MORE;
    rp_dump_open(j, &buf);
    while (step == RP_DUMP_MORE) step = rp_dump_turn(j, &buf);
    rp_buf_free(&j->hub->mem, &buf);
    return step == RP_DUMP_DONE;
}

// --- writing ---

// Did somebody remove the files under us?
static bool rp_journal_is_removed(const rp_journal *j) {
    struct stat file;
    return fstat(j->fd >= 0 ? j->fd : j->head_fd, &file) || !file.st_nlink;
}

// The files are not to be relied on: what is in memory is all there is, and goes first.
static void rp_journal_suspect(rp_journal *j) {
    rp_journal_rotate(j);
    j->is_suspect = true;
    j->first = 0;
}

static bool rp_journal_heal(rp_journal *j) {
    if (j->hub->wheel.now < j->heal_at) { errno = j->error; return false; }
    j->heal_at = j->hub->wheel.now + (j->hub->log.bytes >> RP_HEAL_SHIFT); // it is all written: 64 MiB not twice in half a second
    rp_file_close(&j->head_fd);
    if (rp_journal_lock(j, 0) || !rp_journal_dump_all(j)) { j->error = errno; return false; }
    j->is_suspect = false;
    j->older = 0;
    return true;
}

// What is appended since the last time, at the segment's end: all of it or nothing.
static bool rp_journal_write(rp_journal *j) {
    const char *data = j->out.data + j->out.start + j->out_written;
    size_t size = rp_buf_size(&j->out) - j->out_written;
    if (!j->is_suspect && rp_journal_is_removed(j)) rp_journal_suspect(j), j->error = ENOENT;
    if (j->is_suspect && !rp_journal_heal(j)) return false;
    if (j->fd < 0 && !rp_journal_begin(j)) return false;
    bool is_written = rp_file_write(j->fd, data, size, j->size);
    bool is_safe = is_written && (!j->desc.sync_always || rp_file_sync(j->fd));
    if (is_safe && rp_journal_write_head(j, j->seq, j->size + size)) {
        j->size += size;
        j->is_dirty = true;
        return true;
    }
    int error = j->error = errno;
    if (ftruncate(j->fd, (off_t)j->size) || is_written) rp_journal_suspect(j); // who knows what a failed fsync left
    errno = error;
    return false;
}

static void rp_journal_sync_due(rtpush_hub *hub, rp_timer *timer) {
    rp_journal *j = RP_OWNER(rp_journal, sync, timer);
    (void)hub;
    if (j->fd < 0 || rp_file_sync(j->fd)) return;
    j->error = errno;
    rp_hub_log(hub, "journal %s: fsync: %s", j->dir, strerror(errno));
    rp_journal_suspect(j);
}

// --- the bus ---

static void rp_due_read(const rp_journal *j, uint32_t i, rp_record *r) {
    const rp_buf *buf = j->due[i].is_told ? &j->told : &j->out;
    rp_record_read(r, buf->data + buf->start + j->due[i].at);
}

// The last seq of a topic that a DELETE drops: of what is held, or is on its way.
static uint64_t rp_journal_last(rp_journal *j, const char *topic) {
    rp_record r;
    for (uint32_t i = j->due_count; i-- > j->due_given;) {
        rp_due_read(j, i, &r);
        if (r.type == RP_MESSAGE && !r.is_ephemeral && !strcmp(r.topic, topic)) return r.seq;
    }
    rp_topic *t = rp_hub_find_topic(j->hub, rp_slice_of(topic));
    for (uint32_t i = t ? t->count : 0; i-- > 0;)
        if (!rp_topic_at(t, i)->is_ephemeral) return rp_topic_at(t, i)->seq;
    return 0;
}

static int rp_journal_append(void *user, rtpush_hub *hub, const rtpush_publication *what, uint64_t ticket) {
    rp_journal *j = (rp_journal *)user;
    int code = RTPUSH_OK;
    rp_record r = rp_record_new(what->clear ? RP_MARK : RP_MESSAGE, what->topic, what->event, j->seq + 1);
    if (j->is_closed) return RTPUSH_E_UNAVAILABLE;
    if (!what->clear && !rp_hub_topic(hub, rp_slice_of(what->topic), &code)) return code; // never to be refused once it is written
    if (!rp_mem_grow(&hub->mem, (void **)&j->due, &j->due_cap, j->due_count, sizeof *j->due)) return RTPUSH_E_MEMORY;
    if (what->clear) r.seq = rp_journal_last(j, what->topic);
    if (what->key && *what->key && !what->clear) rp_key_hash(hub, what, &r.hash, &r.check);
    r.kind = what->kind;
    r.is_ephemeral = what->ephemeral;
    r.time_ms = rp_hub_wall(hub);
    r.data = rp_slice(what->data, what->size);
    rp_due *due = &j->due[j->due_count];
    due->ticket = ticket;
    due->is_told = r.is_ephemeral;
    due->at = rp_buf_size(due->is_told ? &j->told : &j->out);
    if (r.is_ephemeral) rp_record_put(&hub->mem, &j->told, &r), r.data.size = 0;
    rp_record_put(&hub->mem, &j->out, &r);
    bool is_broken = j->out.is_broken || j->told.is_broken;
    j->out.is_broken = j->told.is_broken = false;
    if (is_broken) return RTPUSH_E_MEMORY;
    j->due_count++;
    if (!what->clear) j->seq++;
    return RTPUSH_OK;
}

static int rp_journal_give(rp_journal *j, uint32_t i, uint64_t *seq) {
    rp_record r;
    rp_due_read(j, i, &r);
    *seq = r.seq;
    if (r.type == RP_MARK) return r.seq ? rtpush_bus_clear(j->hub, r.topic, r.seq) : RTPUSH_OK;
    rtpush_message m = rp_record_message(&r);
    return rtpush_bus_deliver(j->hub, &m);
}

static void rp_journal_rewind(rp_journal *j) {
    rp_buf *bufs[2] = {&j->out, &j->told};
    j->due_count = j->due_written = j->due_given = 0;
    j->out_written = 0;
    for (unsigned i = 0; i < 2; i++) {
        if (bufs[i]->cap > RP_DUMP_BYTES) rp_buf_free(&j->hub->mem, bufs[i]);
        else rp_buf_rewind(bufs[i]);
    }
}

// What is written goes into the log, and who published it hears so. Callbacks may append more, for the next turn.
static void rp_journal_deliver(rp_journal *j) {
    while (j->due_given < j->due_written) {
        uint64_t seq, ticket = j->due[j->due_given].ticket;
        int code = rp_journal_give(j, j->due_given, &seq);
        if (code == RTPUSH_E_MEMORY) { rtpush_bus_wake(j->hub); return; } // the next turn tries again
        j->due_given++;
        rp_publish_end(j->hub, ticket, code ? 0 : seq, code);
    }
    if (j->due_given == j->due_count) rp_journal_rewind(j);
}

// Nothing of what was appended is in the file: the same seqs will be given to others.
static void rp_journal_refuse(rp_journal *j) {
    uint32_t end = j->due_count;
    j->seq = j->head;
    j->out.end = j->out.start + j->out_written;
    while (j->due_written < end) rp_publish_end(j->hub, j->due[j->due_written++].ticket, 0, RTPUSH_E_UNAVAILABLE);
    j->due_given = j->due_written;
    if (j->due_given == j->due_count) rp_journal_rewind(j);
}

static void rp_journal_commit(rp_journal *j) {
    if (j->due_written == j->due_count) return;
    if (!rp_journal_write(j)) {
        rp_journal_fail(j);
        rp_journal_refuse(j);
        return;
    }
    j->out_written = rp_buf_size(&j->out);
    j->head = j->seq;
    j->due_written = j->due_count;
    rp_bus_set_why(j->hub, j->bus.name, NULL);
    if (!j->desc.sync_always && j->desc.sync_ms >= 0 && !rp_timer_is_armed(&j->sync))
        rp_timer_start(&j->hub->wheel, &j->sync, j->hub->wheel.now + (uint64_t)j->desc.sync_ms);
}

// The end of it: on the disk, marked as clean, free for another process.
static void rp_journal_finish(rp_journal *j) {
    rp_record end = rp_record_new(RP_END, "", "", j->head);
    bool is_whole = j->is_open && !j->is_closed && j->due_written == j->due_count;
    j->is_closed = true;
    if (j->dump_fd >= 0) rp_dump_give_up(j);
    rp_timer_stop(&j->hub->wheel, &j->sync);
    if (is_whole && j->is_dirty && (j->fd >= 0 || rp_journal_begin(j))) {
        rp_buf_rewind(&j->out);
        rp_record_put(&j->hub->mem, &j->out, &end);
        if (!j->out.is_broken) rp_file_write(j->fd, j->out.data + j->out.start, rp_buf_size(&j->out), j->size);
        rp_file_sync(j->fd);
    }
    rp_file_close(&j->fd);
    rp_file_close(&j->head_fd);
}

static void rp_journal_turn(void *user, rtpush_hub *hub) {
    rp_journal *j = (rp_journal *)user;
    if (j->is_closed) return;
    if (j->due_given == j->due_written) rp_journal_commit(j); // else memory ran out: in their order
    rp_journal_deliver(j);
    if (j->fd >= 0 && j->size >= (uint64_t)j->desc.segment_bytes) rp_journal_rotate(j);
    rp_journal_dump(j);
    if (hub->is_leaving && !j->due_count) rp_journal_finish(j);
}

static void rp_journal_close(void *user, rtpush_hub *hub) {
    rp_journal *j = (rp_journal *)user;
    if (hub && j->hub) {
        rp_journal_finish(j);
        rp_buf_free(&hub->mem, &j->out);
        rp_buf_free(&hub->mem, &j->told);
        rp_mem_free(&hub->mem, j->due);
    }
    RTPUSH_FREE(j);
}
#endif // RP_SERVER

// ============================================================================
// >>load  a journal is read, and cut where it is not whole  (uses: journal, reader)
// ============================================================================
#ifdef RP_SERVER
enum { RP_LOAD_BYTES = 262144 };

typedef struct rp_load {
    rp_journal *journal;
    uint64_t until; // records of messages from here on are void: the next file begins with it
    uint64_t marks; // the highest
    uint64_t until_base; // base has all up to this
    uint64_t reached; // how much of the segment is there that was written to last
    rp_head_file head;
    bool has_head;
    bool has_begun; // a BEGIN was read
    bool is_cut, has_hole; // not all of it was whole; a file is missing, or its end
    bool is_clean;  // the last record is an END
    int code;
} rp_load;

static void rp_load_begin(rp_load *load, const rp_record *r) {
    rtpush_hub *hub = load->journal->hub;
    if (load->has_begun) { memcpy(hub->log.epoch, r->event, 8); return; } // it changed on the way; messages stay
    hub->hash_key.k0 = r->hash; // no table has anything in it yet
    hub->hash_key.k1 = r->check;
    load->code = rtpush_bus_start(hub, r->event, r->seq);
    load->has_begun = !load->code;
}

static void rp_load_key(rtpush_hub *hub, const rp_record *r, int64_t expires) {
    int64_t left = expires - rp_hub_wall(hub);
    if ((!r->hash && !r->check) || left <= 0 || left > hub->desc.keys_ms) return;
    rp_key *key = rp_key_find(hub, r->hash, r->check);
    if (!key) key = rp_key_new(hub, r->hash, r->check);
    if (!key) return; // without it a publish may come twice, as it may after two minutes
    key->is_pending = false;
    key->seq = r->seq;
    key->expires = hub->wheel.now + (uint64_t)left;
    rp_key_expire(hub);
}

static void rp_load_mark(rp_load *load, const rp_record *r) {
    rtpush_hub *hub = load->journal->hub;
    load->marks = RP_MAX(load->marks, r->seq);
    if (!*r->topic) { hub->log.floor = RP_MAX(hub->log.floor, r->seq); return; }
    rtpush_slice name = rp_slice_of(r->topic);
    rp_topic *t = rp_hub_find_topic(hub, name);
    hub->log.safe = hub->log.head;
    if (!t) { rp_dead_mark(hub, name, rp_hub_hash(hub, name), r->seq); return; }
    rp_topic_lose(t, r->seq);
    rp_hub_clear(hub, t, r->seq); // it may be no more
}

static int rp_load_message(rtpush_hub *hub, const rp_record *r) {
    rtpush_message m = rp_record_message(r);
    if (r->seq <= hub->log.head) return RTPUSH_OK; // base has it
    bool is_lost = r->is_ephemeral || r->seq <= rp_hub_lost(hub, rp_slice_of(r->topic));
    int code = is_lost ? RTPUSH_OK : rtpush_bus_deliver(hub, &m);
    if (is_lost) hub->log.head = r->seq;
    rp_load_key(hub, r, r->time_ms + hub->desc.keys_ms);
    return code == RTPUSH_E_MEMORY ? code : RTPUSH_OK; // what no longer fits the limits is no reason to start with nothing
}

// One record. false: it is not to be believed, or is void.
static bool rp_load_record(rp_load *load, const char *bytes, size_t size) {
    rtpush_hub *hub = load->journal->hub;
    rp_record r;
    if (!rp_record_is_whole(bytes, size)) return false;
    rp_record_read(&r, bytes);
    if (r.type != RP_BEGIN && !load->has_begun) return false;
    load->is_clean = r.type == RP_END;
    switch (r.type) {
    case RP_BEGIN: rp_load_begin(load, &r); return !load->code;
    case RP_MESSAGE:
        if (r.seq < load->until) load->code = rp_load_message(hub, &r);
        return !load->code;
    case RP_MARK: rp_load_mark(load, &r); return true;
    case RP_KEY: rp_load_key(hub, &r, r.time_ms); return true;
    case RP_END: hub->log.head = RP_MAX(hub->log.head, r.seq); return true;
    default: return false;
    }
}

// The whole records at the start of what was read.
static bool rp_load_some(rp_load *load, rp_buf *buf, uint64_t *at) {
    for (;;) {
        size_t left = rp_buf_size(buf);
        uint64_t size = rp_record_size(buf->data + buf->start, left);
        if (!size || size > left) return true;
        if (!rp_load_record(load, buf->data + buf->start, (size_t)size)) return false;
        buf->start += (size_t)size;
        *at += size;
    }
}

// Reads on: as much as the record at hand needs, or a piece. false: there is no more, or not all that it says.
static bool rp_load_more(rp_load *load, int fd, rp_buf *buf, uint64_t left) {
    rp_mem *mem = &load->journal->hub->mem;
    uint64_t size = rp_buf_size(buf) ? rp_record_size(buf->data + buf->start, rp_buf_size(buf)) : 0;
    if (!left || size > rp_buf_size(buf) + left) return false;
    char *room = rp_buf_room(mem, buf, (size_t)RP_MIN(left, RP_MAX(size, (uint64_t)RP_LOAD_BYTES)));
    ssize_t n = room ? read(fd, room, (size_t)RP_MIN(left, RP_MAX(size, (uint64_t)RP_LOAD_BYTES))) : -1;
    if (n < 0) load->code = room ? RTPUSH_E_SYSTEM : RTPUSH_E_MEMORY;
    if (n <= 0) return false;
    buf->end += (size_t)n;
    return true;
}

// All of one file, as far as it is whole; there it is cut.
static void rp_load_file(rp_load *load, const char *path) {
    rtpush_hub *hub = load->journal->hub;
    struct stat file;
    rp_buf buf;
    uint64_t at = 0, read_to = 0;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    memset(&buf, 0, sizeof buf);
    memset(&file, 0, sizeof file);
    if (fd < 0 || fstat(fd, &file)) load->code = RTPUSH_E_SYSTEM;
    while (!load->code && rp_load_more(load, fd, &buf, (uint64_t)file.st_size - read_to)) {
        read_to = at + rp_buf_size(&buf);
        bool is_whole = rp_load_some(load, &buf, &at);
        hub->log.safe = hub->log.head; // nobody reads yet
        rp_hub_flush(hub);
        if (!is_whole) break;
    }
    rp_buf_free(&hub->mem, &buf);
    if (!load->code && at < (uint64_t)file.st_size) {
        rp_hub_log(hub, "journal %s: cut at byte %" PRIu64 ": the record there is torn or damaged, %" PRIu64 " bytes are dropped", path, at, (uint64_t)file.st_size - at);
        load->is_cut = true;
        load->is_clean = false;
        if (ftruncate(fd, (off_t)at)) load->code = RTPUSH_E_SYSTEM;
    }
    rp_file_close(&fd);
    load->journal->older += load->journal->size;
    load->journal->size = at;
}

// What comes behind a cut is not the next of anything: it is set aside.
static void rp_load_set_aside(rp_load *load, uint64_t first) {
    rp_path from, to;
    rp_journal_segment(load->journal, from, first);
    snprintf(to, sizeof to, "%.500s.lost", from);
    rp_hub_log(load->journal->hub, "journal %s: it is behind a cut, set aside as .lost", from);
    if (rename(from, to)) load->code = RTPUSH_E_SYSTEM;
}

static void rp_load_all(rp_load *load) {
    rp_journal *j = load->journal;
    rp_path path;
    uint64_t *firsts;
    uint32_t count;
    load->until = UINT64_MAX;
    if (!access(rp_journal_path(j, path, "base.log"), F_OK)) rp_load_file(load, path);
    j->base = j->size;
    j->size = 0;
    load->until_base = j->hub->log.head;
    if (!load->code && j->base && !load->is_clean) load->is_cut = true; // a base ends by END
    rp_journal_list(j, &firsts, &count);
    for (uint32_t i = 0; i < count && !load->code; i++) {
        load->until = i + 1 < count ? firsts[i + 1] : UINT64_MAX;
        bool is_behind_hole = firsts[i] > j->hub->log.head + 1 && !load->is_cut;
        if (is_behind_hole) rp_hub_log(j->hub, "journal %s: a file before %020" PRIu64 ".log is missing, or its end", j->dir, firsts[i]);
        load->is_cut |= is_behind_hole;
        load->has_hole |= is_behind_hole;
        if (load->is_cut) { rp_load_set_aside(load, firsts[i]); continue; }
        rp_load_file(load, rp_journal_segment(j, path, j->first = firsts[i]));
        if (load->has_head && load->head.first == firsts[i]) load->reached = j->size;
    }
    j->older += j->size;
    rp_mem_free(&j->hub->mem, firsts);
}

// May what is loaded go on under its epoch? Not if anybody may have seen more than it has.
static bool rp_load_is_whole(const rp_load *load) {
    const rp_head_file *head = &load->head;
    const rp_log *log = &load->journal->hub->log;
    if (load->has_hole) return false;
    if (!load->has_head) return load->is_clean;
    if (memcmp(head->epoch, log->epoch, 8) || head->seq > log->head) return false;
    if (load->reached < head->size && head->first > load->until_base) return false;
    return load->is_clean || head->is_synced || (head->boot && head->boot == load->journal->boot);
}

static int rp_journal_load(rp_journal *j) {
    rtpush_hub *hub = j->hub;
    rp_load load;
    char epoch[9];
    memcpy(epoch, hub->log.epoch, sizeof epoch);
    memset(&load, 0, sizeof load);
    load.journal = j;
    load.has_head = rp_journal_read_head(j, &load.head);
    rp_load_all(&load);
    if (load.code) return load.code;
    hub->log.head = RP_MAX(hub->log.head, load.marks); // beyond it only behind a cut
    j->seq = j->head = hub->log.safe = hub->log.head;
    j->is_dirty = !load.is_clean;
    if (load.has_begun && rp_load_is_whole(&load)) return RTPUSH_OK;
    if (load.has_begun) rp_hub_log(hub, "journal %s: its tail may be lost: a new epoch", j->dir);
    memcpy(hub->log.epoch, epoch, sizeof epoch);
    if (load.is_cut && !rp_journal_dump_all(j)) return RTPUSH_E_SYSTEM; // what is left becomes a base that is whole
    if (load.is_cut) j->first = j->older = 0;
    return rp_journal_begin(j) && rp_journal_write_head(j, j->head, j->size) ? RTPUSH_OK : RTPUSH_E_SYSTEM;
}

static int rp_journal_open(void *user, rtpush_hub *hub) {
    rp_journal *j = (rp_journal *)user;
    rp_path path;
    if (j->hub) return RTPUSH_E_STATE; // of one hub
    j->hub = hub;
    j->boot = rp_boot();
    int code = mkdir(j->dir, 0700) && errno != EEXIST ? RTPUSH_E_SYSTEM : rp_journal_lock(j, j->desc.wait_ms);
    if (!code) unlink(rp_journal_path(j, path, "base.tmp"));
    if (!code) code = rp_journal_load(j);
    if (code) rp_hub_log(hub, "journal %s: %s", j->dir, code == RTPUSH_E_SYSTEM ? strerror(errno) : code == RTPUSH_E_IN_USE ? "another process has it" : rtpush_strerror(code));
    j->older_max = RP_MAX(j->base, 4 * (uint64_t)j->desc.segment_bytes);
    j->is_open = !code;
    return code;
}

static const rtpush_bus rp_journal_bus = {"journal", rp_journal_open, rp_journal_append, rp_journal_turn, rp_journal_close, NULL};

RTPUSH_DEF const rtpush_bus *rtpush_journal(const char *dir, const rtpush_journal_desc *desc) {
    rp_journal *j = (rp_journal *)RTPUSH_REALLOC(NULL, sizeof *j + strlen(dir));
    if (!j) return NULL;
    memset(j, 0, sizeof *j);
    memcpy(j->dir, dir, strlen(dir) + 1);
    if (desc) j->desc = *desc;
    if (!j->desc.sync_ms) j->desc.sync_ms = 100;
    if (j->desc.segment_bytes <= 0) j->desc.segment_bytes = 8388608;
    j->fd = j->head_fd = j->dump_fd = -1;
    j->sync.fire = rp_journal_sync_due;
    j->bus = rp_journal_bus;
    j->bus.user = j;
    return &j->bus;
}
#endif // RP_SERVER

// ============================================================================
// >>await  readers that wait for older messages  (uses: envelope, conn, topic)
//
// What is older than all that this hub holds of a topic may be elsewhere: in Redis, or with
// another loop. Who asks for it waits until it has been put in front of what is held.
// ============================================================================
#ifdef RP_SHARED
enum { RP_FETCH_MS = 3000 };

// Who waits: a connection whose request is read again, or a subscription of an envelope (then its ref follows). conn 0:
// the other loops.
typedef struct rp_fetch_waiter {
    struct rp_fetch_waiter *next;
    uint64_t conn;
    bool is_subscription;
    rp_start start;
    size_t ref_size;
} rp_fetch_waiter;

typedef struct rp_fetch {
    struct rp_fetch *next;
    rp_fetch_waiter *waiters;
    uint64_t until;
    rp_msg **found; // older than what is held, ascending
    uint32_t count, cap;
    bool is_broken; // not all of it could be kept
    uint64_t lost;  // up to there nobody has anything
    uint32_t most;  // so many messages are kept from now on
    char topic[RP_TOPIC_MAX + 1];
} rp_fetch;

// In the order in which they were asked for.
typedef struct rp_fetches {
    rtpush_hub *hub;
    rp_fetch *first;
} rp_fetches;

static rp_fetch **rp_fetch_find(rp_fetches *all, rtpush_slice topic) {
    rp_fetch **at = &all->first;
    while (*at && !rp_slice_equals(topic, (*at)->topic)) at = &(*at)->next;
    return at;
}

static void rp_fetch_free(rp_fetches *all, rp_fetch *fetch) {
    rtpush_hub *hub = all->hub;
    *rp_fetch_find(all, rp_slice_of(fetch->topic)) = fetch->next;
    for (uint32_t i = 0; i < fetch->count; i++) rp_msg_free(&hub->log, fetch->found[i]);
    rp_mem_free(&hub->mem, fetch->found);
    for (rp_fetch_waiter *waiter = fetch->waiters, *next; waiter; waiter = next) {
        next = waiter->next;
        rp_mem_free(&hub->mem, waiter);
    }
    rp_mem_free(&hub->mem, fetch);
}

// Does a reader that starts there need what the memory may not have?
static bool rp_fetch_is_wanted(rtpush_hub *hub, rtpush_slice name, const rp_start *start) {
    if (rp_topic_is_pattern(name) || !rp_hub_is_durable(hub, name) || start->kind <= RP_START_LATEST) return false;
    const rp_topic *t = rp_hub_find_topic(hub, name);
    bool is_cursor = start->kind == RP_START_SEQ || (start->kind == RP_START_CURSOR && !strcmp(start->epoch, hub->log.epoch));
    return !(t && t->is_whole) && !(is_cursor && start->seq >= rp_hub_lost(hub, name));
}

// One more waits for the topic; it is new if nobody did. NULL: no memory; then it is told of a gap.
static rp_fetch *rp_fetch_wait(rp_fetches *all, rtpush_slice name, const rp_start *start, uint64_t conn, const rtpush_slice *ref, bool *is_new) {
    rtpush_hub *hub = all->hub;
    rp_fetch **at = rp_fetch_find(all, name), *fetch = *at;
    rp_fetch_waiter *waiter = (rp_fetch_waiter *)rp_mem_get(&hub->mem, sizeof *waiter + (ref ? ref->size : 0));
    *is_new = !fetch;
    if (waiter && !fetch && (fetch = *at = (rp_fetch *)rp_mem_get(&hub->mem, sizeof *fetch)) != NULL) {
        memcpy(fetch->topic, name.data, name.size);
        fetch->until = hub->wheel.now + RP_FETCH_MS;
    }
    if (!waiter || !fetch) { rp_mem_free(&hub->mem, waiter); return NULL; }
    waiter->conn = conn;
    waiter->start = *start;
    waiter->is_subscription = ref != NULL;
    if (ref && ref->size) memcpy(waiter + 1, ref->data, waiter->ref_size = ref->size);
    waiter->next = fetch->waiters;
    fetch->waiters = waiter;
    return fetch;
}

// One of its messages; ascending.
static void rp_fetch_put(rp_fetches *all, rp_fetch *fetch, const rtpush_message *m) {
    rtpush_hub *hub = all->hub;
    int code = RTPUSH_OK;
    rp_topic *t = rp_hub_topic(hub, rp_slice_of(fetch->topic), &code);
    uint64_t held = t && t->count ? rp_topic_at(t, 0)->seq : hub->log.head + 1;
    if (m->kind < 0 || m->seq >= held || (fetch->count && m->seq <= fetch->found[fetch->count - 1]->seq)) return;
    bool has_room = t && rp_mem_grow(&hub->mem, (void **)&fetch->found, &fetch->cap, fetch->count, sizeof *fetch->found);
    int64_t age = RP_MAX(rp_hub_wall(hub) - m->time_ms, (int64_t)0);
    rp_msg *msg = has_room ? rp_msg_new(&hub->log, t, m, hub->wheel.now - (uint64_t)age) : NULL;
    if (msg) fetch->found[fetch->count++] = msg;
    else fetch->is_broken = true;
}

static void rp_fetch_wake(rtpush_hub *hub, const rp_fetch_waiter *waiter, const char *topic) {
    if (!waiter->conn && hub->hooks) hub->hooks->past(hub, topic);
    rp_conn *c = (rp_conn *)rp_slab_find(&hub->server->conns, waiter->conn);
    if (!c || !rp_conn_is_live(c)) return;
    if (!waiter->is_subscription) { rp_conn_resume_later(hub, c); return; }
    if (c->phase == RP_PHASE_SOCKET) rp_envelope_join(hub, c, topic, &waiter->start, rp_slice(waiter + 1, waiter->ref_size));
}

// It has come, or it will not: whoever waits goes on with what there is.
static void rp_fetch_end(rp_fetches *all, rp_fetch *fetch, bool is_whole) {
    rtpush_hub *hub = all->hub;
    int code = RTPUSH_OK;
    rp_topic *t = is_whole && !fetch->is_broken ? rp_hub_topic(hub, rp_slice_of(fetch->topic), &code) : NULL;
    if (t && rp_topic_take_back(&hub->log, t, fetch->found, fetch->count, fetch->lost)) {
        fetch->count = 0; // they are the topic's now
        t->is_whole = true;
        t->keep.count = RP_MAX(t->keep.count, fetch->most);
        t->keep.bytes = UINT64_MAX; // what all history may take is the limit
        t->keep.ms = -1;
    }
    for (const rp_fetch_waiter *waiter = fetch->waiters; waiter; waiter = waiter->next) rp_fetch_wake(hub, waiter, fetch->topic);
    rp_fetch_free(all, fetch);
    if (t) rp_log_trim_later(&hub->log, t);
}
#endif // RP_SHARED

// ============================================================================
// >>resp  Redis's protocol (RESP 2 and 3): what is said, what is answered  (uses: base, bytes)
//
// A reply may come in any pieces, and need not be whole to be looked at: an entry of a
// long answer is read as soon as it is there, so memory is that of the largest entry.
// ============================================================================
#ifdef RP_REDIS
enum { RP_RESP_LINE = 4096, RP_RESP_ITEMS = 1 << 20 };

typedef struct rp_resp {
    char type;         // as on the wire: + - : $ * …
    bool is_null;
    rtpush_slice text; // of a line or bulk
    uint64_t children; // items that follow and belong to it
} rp_resp;

// A number in a line; -1 stands for nothing. false: it is none.
static bool rp_resp_number(rtpush_slice line, uint64_t *number, bool *is_null) {
    *is_null = rp_slice_equals(line, "-1");
    return *is_null || rp_slice_number(line, number);
}

// One item, without its children. > 0: its size; 0: it is not all there; -1: this is not RESP, or over size_max.
static ptrdiff_t rp_resp_item(rp_resp *item, const char *data, size_t size, size_t size_max) {
    uint64_t number = 0;
    const char *end = size ? (const char *)memchr(data, '\r', RP_MIN(size, (size_t)RP_RESP_LINE)) : NULL;
    memset(item, 0, sizeof *item);
    if (!end) return size < RP_RESP_LINE ? 0 : -1;
    if (end + 1 == data + size) return 0;
    size_t line = (size_t)(end - data) + 2;
    if (line < 3 || end[1] != '\n') return -1;
    item->type = *data;
    item->text = rp_slice(data + 1, line - 3);
    if (strchr("+-:_,#(", *data)) {
        item->is_null = *data == '_';
        return (ptrdiff_t)line;
    }
    if (!strchr("$!=*~>%|", *data) || !rp_resp_number(item->text, &number, &item->is_null)) return -1;
    if (item->is_null) return (ptrdiff_t)line;
    if (strchr("*~>%|", *data)) {
        item->children = *data == '%' || *data == '|' ? number * 2 : number;
        return number > RP_RESP_ITEMS ? -1 : (ptrdiff_t)line;
    }
    if (number > size_max) return -1;
    if (size - line < number + 2) return 0;
    item->text = rp_slice(data + line, (size_t)number);
    return memcmp(data + line + number, "\r\n", 2) ? -1 : (ptrdiff_t)(line + (size_t)number + 2);
}

// Where the search for a reply's end has come to.
typedef struct rp_resp_scan {
    size_t at;
    uint64_t left; // items to go; 0: a new reply
} rp_resp_scan;

// The size of the reply that begins at data, children and all; 0 and -1 as above.
static ptrdiff_t rp_resp_whole(rp_resp_scan *scan, const char *data, size_t size, size_t size_max) {
    rp_resp item;
    if (!scan->left) scan->at = 0, scan->left = 1;
    while (scan->left) {
        ptrdiff_t n = rp_resp_item(&item, data + scan->at, size - scan->at, size_max);
        if (n <= 0) return n;
        scan->at += (size_t)n;
        scan->left += item.children - 1;
        if (scan->left > RP_RESP_ITEMS || scan->at > 2 * size_max) return -1;
    }
    return (ptrdiff_t)scan->at;
}

// The next item of a reply that is whole. false: it has no more.
static bool rp_resp_next(rtpush_slice *rest, rp_resp *item) {
    ptrdiff_t n = rp_resp_item(item, rest->data, rest->size, rest->size);
    if (n <= 0) return false;
    *rest = rp_slice_from(*rest, (size_t)n);
    return true;
}

// The next item's text, "" of anything that has none.
static rtpush_slice rp_resp_text(rtpush_slice *rest) {
    rp_resp item;
    return rp_resp_next(rest, &item) && !item.children ? item.text : rp_slice("", 0);
}

static void rp_resp_count(rp_mem *mem, rp_buf *buf, size_t count) {
    rp_buf_text(mem, buf, "*");
    rp_buf_number(mem, buf, count);
    rp_buf_text(mem, buf, "\r\n");
}

static void rp_resp_bulk(rp_mem *mem, rp_buf *buf, rtpush_slice s) {
    rp_buf_text(mem, buf, "$");
    rp_buf_number(mem, buf, s.size);
    rp_buf_text(mem, buf, "\r\n");
    rp_buf_slice_put(mem, buf, s);
    rp_buf_text(mem, buf, "\r\n");
}

static void rp_resp_word(rp_mem *mem, rp_buf *buf, const char *word) { rp_resp_bulk(mem, buf, rp_slice_of(word)); }

static void rp_resp_decimal(rp_mem *mem, rp_buf *buf, uint64_t n) {
    char text[20];
    rp_resp_bulk(mem, buf, rp_slice(text, rp_format_number(text, n)));
}
#endif // RP_REDIS

// ============================================================================
// >>redis  two connections to a Redis, kept and made again  (uses: dial, resp)
//
//     AWAY -> [SENTINEL] -> GREET -> JOIN -> LOAD -> LIVE        any -> AWAY, with backoff
//
// One connection asks, in order, and is answered in order; the other follows the stream.
// If one is lost, or silent for too long, both go. What was asked and not answered is
// asked again: the scripts of `stream` see to it that it is done once.
// ============================================================================
#ifdef RP_REDIS
enum rp_redis_phase { RP_REDIS_AWAY, RP_REDIS_SENTINEL, RP_REDIS_GREET, RP_REDIS_JOIN, RP_REDIS_LOAD, RP_REDIS_LIVE, RP_REDIS_OVER };
enum { RP_REDIS_URLS = 8, RP_REDIS_ANSWER_MS = 5000, RP_REDIS_BACKOFF_MS = 50, RP_REDIS_BACKOFF_MAX_MS = 2000, RP_NODE_MAX = 64 };

typedef struct rp_redis rp_redis;
typedef struct rp_letter rp_letter;

// What happens with an answer.
typedef struct rp_ask {
    void (*then)(rp_redis *r, rp_letter *letter, rtpush_slice reply);
    rp_letter *letter; // NULL: it is to something else
} rp_ask;

// A request with a cursor of another epoch: it waits for Redis to say which one is the true one.
typedef struct rp_confirm {
    struct rp_confirm *next;
    uint64_t conn;
} rp_confirm;

typedef struct rp_line {
    rp_link *link;
    rp_resp_scan scan;
    uint64_t due; // an answer must have come by then; UINT64_MAX: none is owed
} rp_line;

// A message, or what nodes say to each other, on its way into the log. Behind the struct: its fields as they are sent,
// then what makes up its idempotency key, then its topic.
struct rp_letter {
    rp_letter *next;
    uint64_t ticket, number, began;
    bool is_sent, is_over; // over: whoever published it has an answer
    bool is_durable, is_clear;
    bool is_doubted;  // Redis has a later one of ours: this one is done, and its entry will come, or never was
    uint64_t doubted_ms;
    size_t fields, fields_size, key_size, topic_size;
};

struct rp_redis {
    rtpush_bus bus;
    rtpush_redis_desc desc; // its texts are ours, below and behind the struct
    rtpush_hub *hub;
    int phase;
    bool is_first;          // the hub is being made: it waits for us
    uint64_t first_until;
    // where to
    rp_url urls[RP_REDIS_URLS], moved; // moved: where a sentinel or -MOVED sent us, if has_moved
    uint32_t url_count, url_at;
    bool has_moved;
    char user[128], password[256], database[12], master[64]; // master: of sentinels
    rp_target to;
    // the connections
    rp_line asking, following, fetching;
    rp_ask *asks;           // a ring
    uint32_t ask_first, ask_count, ask_cap;
    uint64_t failures, retry_at, beat_at, beat_sent;
    rp_timer timer;
    char run[48];           // which process that Redis is
    char shas[3][41];
    uint32_t sha_count;
    uint32_t greetings;     // answers on the following line that are not the stream's
    // the log
    char epoch[9];          // of the stream we follow
    char life[RP_NODE_MAX + 20]; // node:random, new with each process
    char mark[RP_NODE_MAX + 48]; // who appended the last entry that we saw
    uint64_t marked;        // and its seq
    uint64_t counter;       // where the stream ended when we joined
    bool is_loading, is_started, has_said_hello;
    uint64_t entries_left, page;
    char from[48];          // an entry that was passed over: the next question begins behind it; "": behind the head
    uint32_t foreign;       // entries of another epoch, in a row
    bool is_broken;         // the log is to begin anew
    uint64_t last_number;   // of letters
    rp_letter *letters, **letters_end;
    size_t letters_bytes;
    rp_confirm *confirms;
    uint64_t confirm_since; // when the last of them came
    rp_fetches fetches;     // durable topics that are read; the first is under way:
    uint64_t fetch_left, fetch_entries, fetch_first, fetch_until; // its entries to come, that came; the first one's seq
    uint32_t fetch_greetings;
    bool is_fetching, has_fetch_frame;
    bool is_taken, is_forced; // another life has our name; had it, and is dead
    char taker[RP_NODE_MAX + 20];
    char why[160];
    char log[RP_NODE_MAX + 2], node[RP_NODE_MAX + 2]; // longer than what is allowed: that is seen
    char url[1];
};

// --- timers, the end of the connections ---

// When something is to be done next.
static void rp_redis_arm(rp_redis *r) {
    uint64_t at = RP_MIN(r->asking.due, r->following.due);
    if (r->phase == RP_REDIS_AWAY) at = RP_MIN(at, r->retry_at);
    if (r->phase == RP_REDIS_LIVE || r->phase == RP_REDIS_JOIN) at = RP_MIN(at, r->beat_at);
    const rp_letter *letter = r->letters;
    while (letter && letter->is_over) letter = letter->next;
    if (letter) at = RP_MIN(at, letter->began + (uint64_t)r->desc.queue_ms);
    if (r->fetches.first) at = RP_MIN(at, r->fetch_until);
    if (r->confirms) at = RP_MIN(at, r->confirm_since + RP_FETCH_MS);
    rp_timer_start(&r->hub->wheel, &r->timer, RP_MAX(RP_MIN(at, r->hub->wheel.now + 60000), r->hub->wheel.now + 1));
}

static void rp_line_close(rp_redis *r, rp_line *line) {
    if (line->link) rp_link_close(r->hub, line->link);
    line->link = NULL;
    line->due = UINT64_MAX;
    memset(&line->scan, 0, sizeof line->scan);
}

static void rp_letter_free(rp_redis *r, rp_letter *letter) {
    rp_letter **at = &r->letters;
    while (*at != letter) at = &(*at)->next;
    *at = letter->next;
    if (!letter->next) r->letters_end = at;
    r->letters_bytes -= letter->fields_size;
    rp_mem_free(&r->hub->mem, letter);
}

// No answer will come to what was sent: it is sent again. What nobody waits for any more goes.
static void rp_letters_unsend(rp_redis *r) {
    for (rp_letter *letter = r->letters, *next; letter; letter = next) {
        next = letter->next;
        letter->is_sent = letter->is_doubted = false;
        if (letter->is_over) rp_letter_free(r, letter);
    }
}

// Who waited for Redis to say which log is the true one goes on.
static void rp_redis_confirm(rp_redis *r) {
    for (rp_confirm *confirm = r->confirms, *next; confirm; confirm = next) {
        rp_conn *c = (rp_conn *)rp_slab_find(&r->hub->server->conns, confirm->conn);
        next = confirm->next;
        if (c && rp_conn_is_live(c)) rp_conn_resume_later(r->hub, c);
        rp_mem_free(&r->hub->mem, confirm);
    }
    r->confirms = NULL;
}

// The end of both connections; others are made after a while.
static void rp_redis_lose(rp_redis *r, const char *why) {
    uint64_t most = RP_MIN((uint64_t)RP_REDIS_BACKOFF_MS << RP_MIN(r->failures, (uint64_t)10), (uint64_t)RP_REDIS_BACKOFF_MAX_MS);
    if (r->phase == RP_REDIS_AWAY || r->phase == RP_REDIS_OVER) return;
    if (why != r->why) snprintf(r->why, sizeof r->why, "%s", why);
    rp_hub_log(r->hub, "redis %s: %s", r->to.url->host, r->why);
    r->hub->bus_is_away = true;
    rp_redis_confirm(r);
    if (r->is_first && r->hub->wheel.now >= r->first_until) r->hub->load_code = RTPUSH_E_UNAVAILABLE;
    r->phase = RP_REDIS_AWAY;
    r->failures++;
    rp_line_close(r, &r->asking);
    rp_line_close(r, &r->following);
    r->ask_count = 0;
    r->has_moved = false;
    r->url_at = (r->url_at + 1) % r->url_count;
    r->retry_at = r->hub->wheel.now + most / 2 + rp_hub_jitter(r->hub, most / 2 + 1);
    rp_letters_unsend(r);
    rp_redis_arm(r);
}

static void rp_redis_lost(rtpush_hub *hub, rp_link *l, int code, const char *why) {
    rp_redis *r = (rp_redis *)l->user;
    (void)hub;
    if (r->asking.link == l) r->asking.link = NULL;
    if (r->following.link == l) r->following.link = NULL;
    rp_redis_lose(r, why && *why ? why : rtpush_strerror(code));
}

// "MOVED slot host:port" of a Redis Cluster: the next connection goes there.
static void rp_redis_take_moved(rp_redis *r, rtpush_slice error) {
    rtpush_slice word = rp_slice("", 0);
    char text[300];
    if (!rp_slice_begins(error, "MOVED ")) return;
    for (unsigned i = 0; i < 3; i++) rp_slice_next(&error, ' ', &word);
    snprintf(text, sizeof text, "%.*s", (int)RP_MIN(word.size, sizeof text - 1), word.data);
    rp_url url = *r->to.url;
    r->has_moved = rp_url_authority(&url, text) != NULL;
    r->moved = url;
}

// Does the reply say that something is wrong? Then the connections are given up: nothing of it is routine.
static bool rp_redis_is_error(rp_redis *r, rtpush_slice reply) {
    rp_resp item;
    if (rp_resp_next(&reply, &item) && item.type != '-' && item.type != '!') return false;
    snprintf(r->why, sizeof r->why, "%.*s", (int)RP_MIN(item.text.size, (size_t)120), item.text.data ? item.text.data : "");
    if (rp_slice_begins(item.text, "EPOCH")) r->failures = 0; // it has only another log now
    rp_redis_lose(r, r->why);
    rp_redis_take_moved(r, item.text);
    return true;
}

// --- asking ---

static void rp_ask_push(rp_redis *r, void (*then)(rp_redis *, rp_letter *, rtpush_slice), rp_letter *letter) {
    rp_mem *mem = &r->hub->mem;
    if (r->ask_count == r->ask_cap) {
        uint32_t cap = r->ask_cap ? r->ask_cap * 2 : 64;
        rp_ask *asks = (rp_ask *)rp_mem_resize(mem, NULL, cap * sizeof *asks);
        if (!asks) { rp_link_out(r->hub, r->asking.link)->is_broken = true; return; } // the link fails when it is flushed
        for (uint32_t i = 0; i < r->ask_count; i++) asks[i] = r->asks[(r->ask_first + i) & (r->ask_cap - 1)];
        rp_mem_free(mem, r->asks);
        r->asks = asks;
        r->ask_cap = cap;
        r->ask_first = 0;
    }
    rp_ask *ask = &r->asks[(r->ask_first + r->ask_count++) & (r->ask_cap - 1)];
    ask->then = then;
    ask->letter = letter;
    if (r->asking.due == UINT64_MAX) r->asking.due = r->hub->wheel.now + RP_REDIS_ANSWER_MS;
    rp_redis_arm(r);
}

// Begins a command of so many words, which follow.
static rp_buf *rp_redis_ask(rp_redis *r, size_t words, void (*then)(rp_redis *, rp_letter *, rtpush_slice), rp_letter *letter) {
    rp_ask_push(r, then, letter);
    rp_buf *out = rp_link_out(r->hub, r->asking.link);
    rp_resp_count(&r->hub->mem, out, words);
    return out;
}

static void rp_redis_words(rp_redis *r, rp_buf *out, const char *const *words, size_t count) {
    for (size_t i = 0; i < count; i++) rp_resp_word(&r->hub->mem, out, words[i]);
}

static void rp_redis_fine(rp_redis *r, rp_letter *letter, rtpush_slice reply) {
    (void)letter;
    rp_redis_is_error(r, reply);
}

// No message may be larger; a list of nodes neither.
static size_t rp_redis_size_max(const rp_redis *r) { return (size_t)r->hub->desc.message_max + 65536; }

static void rp_redis_answers(rtpush_hub *hub, rp_link *l) {
    rp_redis *r = (rp_redis *)l->user;
    while (l->phase == RP_LINK_OPEN && rp_buf_size(&l->in)) {
        ptrdiff_t n = rp_resp_whole(&r->asking.scan, l->in.data + l->in.start, rp_buf_size(&l->in), rp_redis_size_max(r));
        if (!n) return;
        if (n < 0) { rp_redis_lose(r, "its answer is not RESP, or too large"); return; }
        if (!r->ask_count) { rp_redis_lose(r, "it answers what was not asked"); return; }
        rp_ask ask = r->asks[r->ask_first];
        r->ask_first = (r->ask_first + 1) & (r->ask_cap - 1);
        r->ask_count--;
        r->asking.due = r->ask_count ? hub->wheel.now + RP_REDIS_ANSWER_MS : UINT64_MAX;
        ask.then(r, ask.letter, rp_slice(l->in.data + l->in.start, (size_t)n));
        l->in.start += (size_t)n;
    }
    rp_redis_arm(r);
}

// Who we are, and which database: the first words on a connection. How many commands they are.
static uint32_t rp_redis_greet(rp_redis *r, rp_link *l) {
    rp_mem *mem = &r->hub->mem;
    rp_buf *out = rp_link_out(r->hub, l);
    char name[RP_NODE_MAX + 160];
    const char *auth[3] = {"AUTH", r->user, r->password}, *select[2] = {"SELECT", r->database}, *setname[3] = {"CLIENT", "SETNAME", name};
    uint32_t count = 1;
    if (*r->password) {
        bool has_user = *r->user != 0;
        if (!has_user) auth[1] = r->password;
        rp_resp_count(mem, out, has_user ? 3 : 2);
        rp_redis_words(r, out, auth, has_user ? 3 : 2);
        count++;
    }
    if (*r->database) {
        rp_resp_count(mem, out, 2);
        rp_redis_words(r, out, select, 2);
        count++;
    }
    snprintf(name, sizeof name, "rtpush:%s:%s", r->desc.log, r->life);
    rp_resp_count(mem, out, 3);
    rp_redis_words(r, out, setname, 3);
    return count;
}

// A key of ours, {LOG}:what, and what follows in it; the braces keep all of them on one node of a Redis Cluster.
static void rp_redis_key_of(rp_redis *r, rp_buf *out, const char *what, rtpush_slice rest) {
    rp_mem *mem = &r->hub->mem;
    char head[200];
    int n = snprintf(head, sizeof head, "{%s}:%s", r->desc.log, what);
    rp_buf_text(mem, out, "$");
    rp_buf_number(mem, out, (size_t)n + rest.size);
    rp_buf_text(mem, out, "\r\n");
    rp_buf_text(mem, out, head);
    rp_buf_slice_put(mem, out, rest);
    rp_buf_text(mem, out, "\r\n");
}

static void rp_redis_key(rp_redis *r, rp_buf *out, const char *what) { rp_redis_key_of(r, out, what, rp_slice("", 0)); }

// EVALSHA of a script; keys and arguments follow.
static rp_buf *rp_redis_run(rp_redis *r, unsigned script, size_t keys, size_t args, void (*then)(rp_redis *, rp_letter *, rtpush_slice), rp_letter *letter) {
    rp_buf *out = rp_redis_ask(r, 3 + keys + args, then, letter);
    rp_resp_word(&r->hub->mem, out, "EVALSHA");
    rp_resp_word(&r->hub->mem, out, r->shas[script]);
    rp_resp_decimal(&r->hub->mem, out, keys);
    return out;
}

// --- where it is ---

// [user[:password]@]host[:port][,host[:port]]…[/rest]. false: malformed.
static bool rp_redis_take_hosts(rp_redis *r, rtpush_slice hosts, bool is_tls, const char *port) {
    rtpush_slice host;
    while (rp_slice_next(&hosts, ',', &host)) {
        rp_url *url = &r->urls[r->url_count];
        char text[300];
        if (r->url_count == RP_REDIS_URLS || !host.size || host.size >= sizeof text) return false;
        memcpy(text, host.data, host.size);
        text[host.size] = 0;
        memset(url, 0, sizeof *url);
        url->is_tls = is_tls;
        const char *end = rp_url_authority(url, text);
        if (!end || *end) return false;
        const char *mark = *text == '[' ? strchr(text, ']') : text;
        if (!strchr(mark, ':')) snprintf(url->port, sizeof url->port, "%s", port);
        r->url_count++;
    }
    return r->url_count > 0;
}

static bool rp_redis_take_word(char *to, size_t cap, rtpush_slice word) {
    size_t size;
    if (word.size >= cap || !rp_http_decode(to, &size, word, false)) return false;
    to[size] = 0;
    return true;
}

static bool rp_redis_take_login(rp_redis *r, rtpush_slice login) {
    rtpush_slice user;
    rp_slice_next(&login, ':', &user);
    if (!login.data) return rp_redis_take_word(r->password, sizeof r->password, user);
    return rp_redis_take_word(r->user, sizeof r->user, user) && rp_redis_take_word(r->password, sizeof r->password, login);
}

// redis://[user:pass@]host[:port][/db], rediss://, redis+sentinel://host,host/MASTER, unix:PATH.
static bool rp_redis_take_url(rp_redis *r, const char *text) {
    static const struct { const char *scheme, *port; bool is_tls, is_sentinel; } known[] = {
        {"redis://", "6379", false, false}, {"rediss://", "6379", true, false}, {"redis+sentinel://", "26379", false, true}};
    if (!strncmp(text, "unix:", 5)) {
        r->url_count = 1;
        return rp_url_unix(&r->urls[0], text + 5) != NULL;
    }
    for (size_t i = 0; i < RP_COUNT(known); i++) {
        rtpush_slice rest = rp_slice_of(text), hosts, login;
        if (!rp_slice_begins(rest, known[i].scheme)) continue;
        rest = rp_slice_from(rest, strlen(known[i].scheme));
        rp_slice_next(&rest, '/', &hosts);
        const char *at = hosts.size ? (const char *)memchr(hosts.data, '@', hosts.size) : NULL;
        login = rp_slice(hosts.data, at ? (size_t)(at - hosts.data) : 0);
        if (at) hosts = rp_slice_from(hosts, login.size + 1);
        if (at && !rp_redis_take_login(r, login)) return false;
        bool has_path = rest.data && rest.size;
        uint64_t number;
        if (known[i].is_sentinel) return has_path && rp_redis_take_word(r->master, sizeof r->master, rest) && rp_redis_take_hosts(r, hosts, false, known[i].port);
        if (has_path && (!rp_slice_number(rest, &number) || !rp_redis_take_word(r->database, sizeof r->database, rest))) return false;
        return rp_redis_take_hosts(r, hosts, known[i].is_tls, known[i].port);
    }
    return false;
}
#endif // RP_REDIS

// ============================================================================
// >>stream  the log as a Redis stream  (uses: redis, registry, bus)
//
// Keys {LOG}:log the stream, its ids `<seq>-0`; :seq the last seq; :epoch; :nodes who
// lives, and when it last said so; :done the last letter of each life; :run which process
// Redis is; :need whom a restarted Redis waits for; :key:… idempotency keys. All of it is
// changed by three scripts, each one step of Redis.
//
// An entry: e epoch, n life:number of who appended it, w Redis's clock in ms, k kind, t
// topic, v event, d data. Kinds: t text, j JSON, b binary, capital where ephemeral; c the
// topic's history is dropped; p members came (+name) or left (-name), x all of a dead life's
// members left, h a life began that knows nobody: what nodes tell each other.
// ============================================================================
#ifdef RP_REDIS
enum rp_script { RP_SCRIPT_JOIN, RP_SCRIPT_APPEND, RP_SCRIPT_BEAT, RP_SCRIPTS };
enum { RP_BEAT_MS = 2000, RP_SETTLE_MS = 100, RP_FOLLOW_MS = 2000, RP_FOLLOW_COUNT = 500, RP_LOAD_COUNT = 1000 };

// join: may this node be here, and does the log go on? ARGV: node, life, the epoch it knows, its head, who appended
// that, a new epoch, Redis's run, force, broken. A log goes on if nothing that any node has seen is missing: its counter is
// not behind, the entry that the node saw last is the same. Behind a restart of Redis that is known only when all
// nodes that lived have said so; after 3 s without one of them it is not.
static const char rp_script_join[] =
    "redis.replicate_commands()\n"
    "local t = redis.call('TIME')\n"
    "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
    "local log, seqk, epk, nodes, run, need = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]\n"
    "local node, life, known, head, mark, fresh, id, force, broken = unpack(ARGV)\n"
    "local was = redis.call('HGET', nodes, node)\n"
    "if was and force ~= '1' then\n"
    "  local other, beat = string.match(was, '^(%S+) (%d+)$')\n"
    "  if other and other ~= life and now - tonumber(beat) < 10000 then return {'taken', other, '0'} end\n"
    "end\n"
    "redis.call('HSET', nodes, node, life .. ' ' .. string.format('%.0f', now))\n"
    "local ran = redis.call('HGET', run, 'id')\n"
    "if ran and ran ~= id then\n"
    "  redis.call('DEL', need)\n"
    "  for _, name in ipairs(redis.call('HKEYS', nodes)) do redis.call('SADD', need, name) end\n"
    "end\n"
    "if ran ~= id then redis.call('HSET', run, 'id', id, 'at', string.format('%.0f', now)) end\n"
    "redis.call('SREM', need, node)\n"
    "local epoch = redis.call('GET', epk)\n"
    "local count = tonumber(redis.call('GET', seqk) or '-1')\n"
    "local newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]\n"
    "local last = newest and tonumber(string.match(newest[1], '^%d+')) or 0\n"
    "head = tonumber(head)\n"
    "local lost = not epoch or count < last or broken == '1' or count > 9e15\n"
    "if not lost and known == epoch and head > 0 then\n"
    "  local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]\n"
    "  local first = oldest and tonumber(string.match(oldest[1], '^%d+')) or count + 1\n"
    "  local id = string.format('%.0f-0', head)\n"
    "  local entry = redis.call('XRANGE', log, id, id)[1]\n"
    "  if count < head or (not entry and first <= head) then lost = true end\n"
    "  if entry and mark ~= '' then\n"
    "    for i = 1, #entry[2], 2 do if entry[2][i] == 'n' and entry[2][i + 1] ~= mark then lost = true end end\n"
    "  end\n"
    "end\n"
    "if not lost and redis.call('SCARD', need) > 0 then\n"
    "  if now - tonumber(redis.call('HGET', run, 'at')) < 3000 then return {'wait', epoch, '0'} end\n"
    "  lost = true\n"
    "end\n"
    "if lost then\n"
    "  redis.call('DEL', need)\n"
    "  epoch = fresh\n"
    "  count = math.max(count, last, head)\n"
    "  if count > 9e15 then count = 0 end\n" // a number has 53 bits here
    "  redis.call('DEL', log)\n"
    "  redis.call('SET', epk, epoch)\n"
    "  redis.call('SET', seqk, string.format('%.0f', count))\n"
    "end\n"
    "return {'ok', epoch, string.format('%.0f', count)}\n";

// append: ARGV: epoch, life, number, entries kept, milliseconds a key is kept, of a durable topic how many it keeps ('-':
// its history goes) and how long, `key`, the node's head, then the entry's fields. KEYS behind the four: the idempotency key, if `key` says so;
// the durable topic's stream. A letter that was done before is not done again.
static const char rp_script_append[] =
    "redis.replicate_commands()\n"
    "if redis.call('GET', KEYS[3]) ~= ARGV[1] then return redis.error_reply('EPOCH the log is another one') end\n"
    "local count = tonumber(redis.call('GET', KEYS[2]) or '-1')\n"
    "if count < tonumber(ARGV[9]) then return redis.error_reply('EPOCH the counter is behind') end\n"
    "local key = ARGV[8] == 'key' and KEYS[5]\n"
    "local own = ARGV[6] ~= '' and KEYS[#KEYS]\n"
    "if key then\n"
    "  local was = redis.call('GET', key)\n"
    "  if was then return was end\n"
    "end\n"
    "local done = redis.call('HGET', KEYS[4], ARGV[2])\n"
    "if done and tonumber(done) >= tonumber(ARGV[3]) then return '' end\n"
    "local t = redis.call('TIME')\n"
    "local seq = string.format('%.0f', redis.call('INCR', KEYS[2]))\n"
    "local entry = {seq .. '-0', 'e', ARGV[1], 'n', ARGV[2] .. ':' .. ARGV[3],\n"
    "  'w', string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000)), unpack(ARGV, 10)}\n"
    "local r = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[4], unpack(entry))\n"
    "if type(r) == 'table' and r.err then return redis.error_reply('EPOCH ' .. r.err) end\n"
    "redis.call('HSET', KEYS[4], ARGV[2], ARGV[3])\n"
    "if key then redis.call('SET', key, seq, 'PX', ARGV[5]) end\n"
    "if own and ARGV[6] == '-' then\n"
    "  redis.call('DEL', own)\n"
    "elseif own then\n"
    "  r = redis.pcall('XADD', own, 'MAXLEN', ARGV[6], unpack(entry))\n"
    "  if type(r) == 'table' and r.err then\n" // it has ids of a counter that is lost
    "    redis.call('DEL', own)\n"
    "    redis.call('XADD', own, unpack(entry))\n"
    "  end\n"
    "  redis.call('PEXPIRE', own, ARGV[7])\n"
    "end\n"
    "return seq\n";

// beat: this node lives. ARGV: node, life. Who has not said so for 10 s does not. Answers epoch, seq, then names and lives.
static const char rp_script_beat[] =
    "redis.replicate_commands()\n"
    "local t = redis.call('TIME')\n"
    "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
    "local was = redis.call('HGET', KEYS[3], ARGV[1])\n"
    "if not was or string.sub(was, 1, #ARGV[2] + 1) == ARGV[2] .. ' ' then\n"
    "  redis.call('HSET', KEYS[3], ARGV[1], ARGV[2] .. ' ' .. string.format('%.0f', now))\n"
    "end\n"
    "local out = {redis.call('GET', KEYS[2]) or '', redis.call('GET', KEYS[1]) or '0'}\n"
    "local all = redis.call('HGETALL', KEYS[3])\n"
    "for i = 1, #all, 2 do\n"
    "  local life, beat = string.match(all[i + 1], '^(%S+) (%d+)$')\n"
    "  if not life or now - tonumber(beat) > 10000 then\n"
    "    redis.call('HDEL', KEYS[3], all[i])\n"
    "    if life then redis.call('HDEL', KEYS[4], life) end\n"
    "  else\n"
    "    out[#out + 1] = all[i]\n"
    "    out[#out + 1] = life\n"
    "  end\n"
    "end\n"
    "return out\n";

// --- letters: what is to come into the log ---

static void rp_letter_field(rp_redis *r, rp_buf *buf, rp_letter *letter, const char *name, rtpush_slice value) {
    rp_resp_word(&r->hub->mem, buf, name);
    rp_resp_bulk(&r->hub->mem, buf, value);
    letter->fields += 2;
}

static const char *rp_letter_bytes(const rp_letter *letter) { return (const char *)(letter + 1); }

// Puts it behind the others; what it is made of is in hub.text. NULL: no memory.
static rp_letter *rp_letter_add(rp_redis *r, const rp_letter *head, const rp_buf *text) {
    rtpush_hub *hub = r->hub;
    rp_letter *letter = text->is_broken ? NULL : (rp_letter *)rp_mem_get(&hub->mem, sizeof *letter + rp_buf_size(text));
    if (!letter) return NULL;
    *letter = *head;
    memcpy(letter + 1, rp_buf_slice(text).data, rp_buf_size(text));
    letter->number = ++r->last_number;
    letter->began = hub->wheel.now;
    *r->letters_end = letter;
    r->letters_end = &letter->next;
    r->letters_bytes += letter->fields_size;
    rtpush_bus_wake(hub);
    return letter;
}

static const char rp_kind_letters[] = "?tjb";

static int rp_redis_append(void *user, rtpush_hub *hub, const rtpush_publication *what, uint64_t ticket) {
    rp_redis *r = (rp_redis *)user;
    rp_letter head;
    char kind[2] = {0, 0};
    bool is_full = r->letters_bytes && r->letters_bytes + what->size > (uint64_t)r->desc.queue_bytes;
    if (is_full) rp_bus_set_why(hub, "redis", r->phase == RP_REDIS_LIVE ? "redis: too much is on its way" : r->why);
    if (r->phase == RP_REDIS_OVER || is_full) return RTPUSH_E_UNAVAILABLE;
    memset(&head, 0, sizeof head);
    kind[0] = what->clear ? 'c' : rp_kind_letters[what->kind];
    if (what->ephemeral) kind[0] = (char)(kind[0] - 'a' + 'A');
    rp_buf *buf = rp_hub_text(hub);
    rp_letter_field(r, buf, &head, "k", rp_slice(kind, 1));
    rp_letter_field(r, buf, &head, "t", rp_slice_of(what->topic));
    if (*what->event) rp_letter_field(r, buf, &head, "v", rp_slice_of(what->event));
    if (!what->clear) rp_letter_field(r, buf, &head, "d", rp_slice(what->data, what->size));
    head.fields_size = rp_buf_size(buf);
    if (what->key && *what->key) {
        const char *parts[3] = {what->identity ? what->identity : "", what->topic, what->key};
        for (unsigned i = 0; i < 3; i++) rp_buf_put(&hub->mem, buf, parts[i], strlen(parts[i]) + (i < 2));
        head.key_size = rp_buf_size(buf) - head.fields_size;
    }
    head.topic_size = strlen(what->topic);
    rp_buf_put(&hub->mem, buf, what->topic, head.topic_size);
    head.is_durable = !what->ephemeral && rp_hub_is_durable(r->hub, rp_slice_of(what->topic));
    head.is_clear = what->clear;
    head.ticket = ticket;
    return rp_letter_add(r, &head, buf) ? RTPUSH_OK : RTPUSH_E_MEMORY;
}

// What nodes say to each other; nobody waits for it.
static int rp_redis_tell(rp_redis *r, const char *kind, const char *life, const char *topic, rtpush_slice data) {
    rp_letter head;
    rp_buf buf;
    memset(&head, 0, sizeof head);
    memset(&buf, 0, sizeof buf);
    rp_letter_field(r, &buf, &head, "k", rp_slice_of(kind));
    rp_letter_field(r, &buf, &head, "t", rp_slice_of(topic));
    rp_letter_field(r, &buf, &head, "l", rp_slice_of(life));
    rp_letter_field(r, &buf, &head, "d", data);
    head.fields_size = rp_buf_size(&buf);
    bool is_added = rp_letter_add(r, &head, &buf) != NULL;
    rp_buf_free(&r->hub->mem, &buf);
    return is_added ? RTPUSH_OK : RTPUSH_E_MEMORY;
}

static int rp_redis_announce(rtpush_hub *hub, const char *life, const char *topic, rtpush_slice changes) {
    return rp_redis_tell((rp_redis *)hub->desc.bus->user, "p", life, topic, changes);
}

// Whoever published it is told; the letter stays while an answer may come to it.
static void rp_letter_end(rp_redis *r, rp_letter *letter, uint64_t seq, int code) {
    if (letter->is_over) return;
    letter->is_over = true;
    if (letter->ticket) rp_publish_end(r->hub, letter->ticket, seq, code);
}

static void rp_letter_answered(rp_redis *r, rp_letter *letter, rtpush_slice reply) {
    uint64_t seq = 0;
    rp_resp item;
    if (rp_redis_is_error(r, reply)) return; // it is asked again, or its time is over
    bool is_text = rp_resp_next(&reply, &item) && !item.children && !item.is_null;
    bool is_done = is_text && rp_slice_number(item.text, &seq) && seq;
    if (!is_text || (!is_done && item.text.size)) { rp_redis_lose(r, "its scripts answer strangely"); return; }
    letter->is_sent = false;
    if (!is_done && !letter->is_over) {
        letter->is_sent = letter->is_doubted = true;
        letter->doubted_ms = r->hub->wheel.now;
        return;
    }
    rp_letter_end(r, letter, seq, RTPUSH_OK);
    rp_letter_free(r, letter);
    rp_bus_set_why(r->hub, "redis", NULL);
}

static void rp_letter_send(rp_redis *r, rp_letter *letter) {
    rp_mem *mem = &r->hub->mem;
    size_t keys_count = 4u + (letter->key_size > 0) + letter->is_durable;
    rp_buf *out = rp_redis_run(r, RP_SCRIPT_APPEND, keys_count, 9 + letter->fields, rp_letter_answered, letter);
    const char *bytes = rp_letter_bytes(letter);
    static const char *const keys[] = {"log", "seq", "epoch", "done"};
    for (unsigned i = 0; i < RP_COUNT(keys); i++) rp_redis_key(r, out, keys[i]);
    const char *behind = bytes + letter->fields_size;
    if (letter->key_size) rp_redis_key_of(r, out, "key:", rp_slice(behind, letter->key_size));
    if (letter->is_durable) rp_redis_key_of(r, out, "topic:", rp_slice(behind + letter->key_size, letter->topic_size));
    rp_resp_word(mem, out, r->epoch);
    rp_resp_word(mem, out, r->life);
    rp_resp_decimal(mem, out, letter->number);
    rp_resp_decimal(mem, out, (uint64_t)r->desc.stream_max);
    rp_resp_decimal(mem, out, (uint64_t)r->hub->desc.keys_ms);
    if (letter->is_durable && !letter->is_clear) rp_resp_decimal(mem, out, (uint64_t)r->desc.durable_max);
    else rp_resp_word(mem, out, letter->is_durable ? "-" : "");
    rp_resp_decimal(mem, out, (uint64_t)r->desc.durable_ms);
    rp_resp_word(mem, out, letter->key_size ? "key" : "");
    rp_resp_decimal(mem, out, r->hub->log.head);
    rp_buf_put(mem, out, bytes, letter->fields_size);
    letter->is_sent = true;
}

// Those that waited too long are refused; one that was sent may have been done, and its key would say so.
static void rp_letters_expire(rp_redis *r) {
    for (rp_letter *letter = r->letters, *next; letter; letter = next) {
        next = letter->next;
        if (letter->is_over || r->hub->wheel.now < letter->began + (uint64_t)r->desc.queue_ms) continue;
        if (!letter->ticket) { letter->began = r->hub->wheel.now; continue; } // what nodes tell each other keeps its place
        rp_bus_set_why(r->hub, "redis", r->phase == RP_REDIS_LIVE ? "redis: it does not answer" : r->why);
        rp_letter_end(r, letter, 0, RTPUSH_E_UNAVAILABLE);
        if (!letter->is_sent) rp_letter_free(r, letter);
    }
}

// Redis says that the log ends at `seq`, and we have all of it: a letter in doubt was not done. It goes once more, as a new one.
static void rp_letters_settle(rp_redis *r, uint64_t asked_ms, uint64_t seq) {
    rp_letter *letter = r->letters, *last = NULL;
    if (r->hub->log.head < seq) return;
    while (letter && (!letter->is_doubted || letter->is_over || letter->doubted_ms > asked_ms)) last = letter, letter = letter->next;
    if (!letter) return;
    if (letter->next) {
        *(last ? &last->next : &r->letters) = letter->next;
        *r->letters_end = letter;
        r->letters_end = &letter->next;
        letter->next = NULL;
    }
    letter->number = ++r->last_number;
    letter->is_doubted = letter->is_sent = false;
    rtpush_bus_wake(r->hub);
}

static void rp_redis_turn(void *user, rtpush_hub *hub) {
    rp_redis *r = (rp_redis *)user;
    (void)hub;
    for (rp_letter *letter = r->letters; letter && r->phase == RP_REDIS_LIVE; letter = letter->next)
        if (!letter->is_sent && !letter->is_over) rp_letter_send(r, letter);
    rp_redis_arm(r);
}

// --- entries: what has come into the log ---

typedef struct rp_entry_read {
    uint64_t seq;
    rtpush_slice epoch, origin, wall, kind, topic, event, life, data;
} rp_entry_read;

// false: it is none of ours; *id is what Redis calls it, empty if this is no entry at all.
static bool rp_stream_read(rp_entry_read *e, rtpush_slice reply, rtpush_slice *id) {
    rp_resp item;
    rtpush_slice rest, seq;
    uint64_t number;
    memset(e, 0, sizeof *e);
    *id = rp_slice(NULL, 0);
    if (!rp_resp_next(&reply, &item) || item.children != 2 || !rp_resp_next(&reply, &item)) return false;
    rest = item.text;
    rp_slice_next(&rest, '-', &seq);
    if (!rp_slice_number(seq, &e->seq) || e->seq >= (UINT64_C(1) << 53) || !rest.data || !rp_slice_number(rest, &number)) return false;
    *id = item.text;
    if (!e->seq || number) { e->seq = 0; return false; }
    if (!rp_resp_next(&reply, &item) || item.children % 2) return false;
    for (uint64_t left = item.children; left; left -= 2) {
        rtpush_slice name = rp_resp_text(&reply), value = rp_resp_text(&reply);
        rtpush_slice *to = name.size != 1 ? NULL : *name.data == 'e' ? &e->epoch : *name.data == 'n' ? &e->origin : *name.data == 'w' ? &e->wall
                         : *name.data == 'k' ? &e->kind : *name.data == 't' ? &e->topic : *name.data == 'v' ? &e->event : *name.data == 'l' ? &e->life : *name.data == 'd' ? &e->data : NULL;
        if (to) *to = value;
    }
    return rp_is_epoch(e->epoch) && e->kind.size == 1 && e->topic.size <= RP_TOPIC_MAX && e->event.size <= RP_TOPIC_MAX && e->origin.size;
}

// The message that an entry is; kind -1: it is none.
static void rp_stream_message(const rp_entry_read *e, const char *topic, char event[RP_TOPIC_MAX + 1], rtpush_message *m) {
    const char *known = strchr(rp_kind_letters + 1, rp_lower(*e->kind.data));
    memcpy(event, e->event.data ? e->event.data : "", e->event.size);
    event[e->event.size] = 0;
    memset(m, 0, sizeof *m);
    m->topic = topic;
    m->event = event;
    m->data = e->data.data ? e->data.data : "";
    m->size = e->data.size;
    m->kind = known && *known ? (int)(known - rp_kind_letters) : -1;
    m->ephemeral = *e->kind.data != rp_lower(*e->kind.data);
    m->seq = e->seq;
}

static int rp_stream_deliver(rp_redis *r, const rp_entry_read *e, const char *topic) {
    rtpush_hub *hub = r->hub;
    rtpush_message m;
    char event[RP_TOPIC_MAX + 1];
    uint64_t wall;
    rp_stream_message(e, topic, event, &m);
    if (r->is_loading && rp_slice_number(e->wall, &wall)) m.time_ms = (int64_t)RP_MIN(wall, (uint64_t)INT64_MAX); // what comes now is of now
    bool is_past = m.ephemeral && r->is_loading;
    int code = is_past ? RTPUSH_OK : rtpush_bus_deliver(hub, &m);
    if (code && code != RTPUSH_E_MEMORY) rp_hub_log(hub, "redis: entry %" PRIu64 " of the stream: %s", e->seq, rtpush_strerror(code));
    return code;
}

// The letter of ours that this entry is, if somebody still waits for it.
static void rp_stream_own(rp_redis *r, const rp_entry_read *e) {
    size_t size = strlen(r->life);
    uint64_t number;
    if (e->origin.size <= size + 1 || memcmp(e->origin.data, r->life, size) || e->origin.data[size] != ':') return;
    if (!rp_slice_number(rp_slice_from(e->origin, size + 1), &number)) return;
    for (rp_letter *letter = r->letters; letter && letter->number <= number; letter = letter->next)
        if (letter->number == number) { rp_letter_end(r, letter, e->seq, RTPUSH_OK); return; } // freed by its answer, or a loss
}

// What an entry means. RTPUSH_E_MEMORY: again, later.
static int rp_stream_apply(rp_redis *r, const rp_entry_read *e) {
    rtpush_hub *hub = r->hub;
    char topic[RP_TOPIC_MAX + 1], life[RP_NODE_MAX + 30];
    char kind = *e->kind.data;
    int code = RTPUSH_OK;
    memcpy(topic, e->topic.data ? e->topic.data : "", e->topic.size);
    topic[e->topic.size] = 0;
    snprintf(life, sizeof life, "%.*s", (int)RP_MIN(e->life.size, sizeof life - 1), e->life.size ? e->life.data : "");
    if (kind == 'c') code = rtpush_bus_clear(hub, topic, e->seq);
    else if (strchr(rp_kind_letters + 1, rp_lower(kind))) code = rp_stream_deliver(r, e, topic);
    if (code != RTPUSH_E_MEMORY && hub->log.head < e->seq) code = rp_registry_hear(hub, r->is_loading && kind != 'h' ? '-' : kind, life, topic, e->data, e->seq);
    if (code == RTPUSH_E_MEMORY) return code;
    rp_stream_own(r, e);
    return RTPUSH_OK;
}

// The log is another one, or begins behind what we have: all who read hear of it, and the nodes tell each other anew who is there.
static void rp_stream_restart(rp_redis *r, uint64_t floor) {
    rp_registry_forget(r->hub);
    r->has_said_hello = false;
    rtpush_bus_start(r->hub, r->epoch, floor);
    r->is_started = true;
}

// What stands in the stream and is none of ours is passed over. Its id is where the next question begins.
static void rp_stream_skip(rp_redis *r, const rp_entry_read *e, rtpush_slice id) {
    rp_hub_log(r->hub, "redis: entry %.*s of the stream is not ours", (int)RP_MIN(id.size, (size_t)40), id.data);
    snprintf(r->from, sizeof r->from, "%.*s", (int)RP_MIN(id.size, sizeof r->from - 1), id.data);
    if (r->is_started && e->seq == r->hub->log.head + 1) rp_registry_hear(r->hub, '-', "", "", rp_slice("", 0), e->seq);
}

// An entry of another epoch. Once: there is another log now. Again, behind a join: the log is not what its name says.
static void rp_stream_foreign(rp_redis *r) {
    r->is_broken = ++r->foreign > 1;
    rp_redis_lose(r, "the log is another one");
}

// false: the connections were given up.
static bool rp_stream_take(rp_redis *r, rtpush_slice reply) {
    rtpush_hub *hub = r->hub;
    rp_entry_read e;
    rtpush_slice id;
    if (!rp_stream_read(&e, reply, &id)) {
        if (id.size) rp_stream_skip(r, &e, id);
        else rp_redis_lose(r, "an entry of the stream is not what it should be");
        return id.size > 0;
    }
    if (r->is_started && e.seq <= hub->log.head) return true; // seen before
    if (!rp_slice_equals(e.epoch, r->epoch)) { rp_stream_foreign(r); return false; }
    if (e.seq > r->counter && r->is_started && e.seq != hub->log.head + 1) { rp_redis_lose(r, "entries of the stream are missing"); return false; }
    if (!r->is_started || e.seq != hub->log.head + 1) {
        if (r->is_started) rp_hub_log(hub, "redis: the stream has lost what is before %" PRIu64 ", we were at %" PRIu64, e.seq, hub->log.head);
        rp_stream_restart(r, e.seq - 1);
    }
    if (rp_stream_apply(r, &e)) { rp_redis_lose(r, "out of memory"); return false; }
    snprintf(r->mark, sizeof r->mark, "%.*s", (int)RP_MIN(e.origin.size, sizeof r->mark - 1), e.origin.data);
    r->marked = e.seq;
    r->from[0] = 0;
    r->foreign = 0;
    return true;
}

// --- following ---

static void rp_stream_live(rp_redis *r) {
    bool was_first = r->is_first;
    if (!r->is_started) rp_stream_restart(r, r->counter); // the stream is empty
    r->is_loading = r->is_first = false;
    r->phase = RP_REDIS_LIVE;
    r->beat_at = r->hub->wheel.now; // it tells at once where the log is
    r->hub->bus_is_away = false;
    if (was_first) r->hub->is_loading = false;
    else rp_hub_log(r->hub, "redis %s: here again", r->to.url->host);
    if (!r->has_said_hello) r->has_said_hello = rp_redis_tell(r, "h", r->life, "", rp_slice("", 0)) == RTPUSH_OK;
    rtpush_bus_wake(r->hub);
}

// Asks for what comes next: a page of what is there, or what will be.
static void rp_stream_ask(rp_redis *r) {
    rp_mem *mem = &r->hub->mem;
    rp_buf *out = rp_link_out(r->hub, r->following.link);
    char id[48];
    r->page = 0;
    r->following.due = r->hub->wheel.now + (uint64_t)RP_FOLLOW_MS + (uint64_t)RP_REDIS_ANSWER_MS;
    rp_resp_count(mem, out, r->is_loading ? 6 : 8);
    rp_resp_word(mem, out, r->is_loading ? "XRANGE" : "XREAD");
    if (r->is_loading) {
        if (*r->from) snprintf(id, sizeof id, "(%.40s", r->from);
        else snprintf(id, sizeof id, "%" PRIu64 "-1", r->is_started ? r->hub->log.head : 0); // behind `head-0`
        rp_redis_key(r, out, "log");
        rp_resp_word(mem, out, id);
        rp_resp_word(mem, out, "+");
        rp_resp_word(mem, out, "COUNT");
        rp_resp_decimal(mem, out, RP_LOAD_COUNT);
    } else {
        if (*r->from) snprintf(id, sizeof id, "%.40s", r->from);
        else snprintf(id, sizeof id, "%" PRIu64 "-0", r->hub->log.head);
        rp_resp_word(mem, out, "BLOCK");
        rp_resp_decimal(mem, out, RP_FOLLOW_MS);
        rp_resp_word(mem, out, "COUNT");
        rp_resp_decimal(mem, out, RP_FOLLOW_COUNT);
        rp_resp_word(mem, out, "STREAMS");
        rp_redis_key(r, out, "log");
        rp_resp_word(mem, out, id);
    }
    rp_redis_arm(r);
}

// All entries of an answer are taken.
static void rp_stream_answered(rp_redis *r) {
    if (r->is_loading && r->page < RP_LOAD_COUNT) rp_stream_live(r);
    if (r->phase == RP_REDIS_LOAD || r->phase == RP_REDIS_LIVE) rp_stream_ask(r);
}

// What is around the entries: [[name, [entries]]] of XREAD, [entries] of XRANGE, or nothing. 0: it is not all there.
static ptrdiff_t rp_stream_frame(rp_redis *r, rtpush_slice in) {
    rp_resp item;
    rtpush_slice rest = in;
    for (unsigned step = r->is_loading ? 3 : 0; step < 4; step++) {
        ptrdiff_t n = rp_resp_item(&item, rest.data, rest.size, rp_redis_size_max(r));
        if (n <= 0) return n;
        if (item.type == '-' || item.type == '!') { rp_redis_is_error(r, in); return -1; }
        rest = rp_slice_from(rest, (size_t)n);
        if (item.is_null && !step) break; // nothing came in time
        if (step == 2 ? item.type != '$' : item.type != '*' || (step == 0 && item.children != 1) || (step == 1 && item.children != 2)) return -1;
    }
    r->entries_left = r->page = item.is_null ? 0 : item.children;
    if (!r->is_loading) r->failures = 0; // it follows
    if (!r->entries_left) rp_stream_answered(r);
    return (ptrdiff_t)(in.size - rest.size);
}

// One step with what has come. What was taken; 0: more is needed; -1: the connections were, or are to be, given up.
static ptrdiff_t rp_stream_step(rp_redis *r, rtpush_slice in) {
    if (!r->greetings && !r->entries_left) return rp_stream_frame(r, in);
    ptrdiff_t n = rp_resp_whole(&r->following.scan, in.data, in.size, rp_redis_size_max(r));
    if (n <= 0) return n;
    in.size = (size_t)n;
    if (r->greetings) {
        if (rp_redis_is_error(r, in)) return -1;
        if (--r->greetings) return n;
        if (!r->is_loading) rp_stream_live(r);
        rp_stream_ask(r);
        return n;
    }
    if (!rp_stream_take(r, in)) return -1;
    if (!--r->entries_left) rp_stream_answered(r);
    return n;
}

static void rp_stream_input(rtpush_hub *hub, rp_link *l) {
    rp_redis *r = (rp_redis *)l->user;
    r->following.due = hub->wheel.now + (uint64_t)RP_FOLLOW_MS + (uint64_t)RP_REDIS_ANSWER_MS;
    while (l->phase == RP_LINK_OPEN && rp_buf_size(&l->in)) {
        ptrdiff_t n = rp_stream_step(r, rp_buf_slice(&l->in));
        if (n < 0) rp_redis_lose(r, "its answer to XREAD is not what it should be");
        if (n <= 0) return;
        l->in.start += (size_t)n;
    }
}

static void rp_stream_opened(rtpush_hub *hub, rp_link *l) {
    rp_redis *r = (rp_redis *)l->user;
    r->greetings = rp_redis_greet(r, l);
    r->entries_left = 0;
    r->following.due = hub->wheel.now + RP_REDIS_ANSWER_MS;
    rp_redis_arm(r);
}

static const rp_link_owner rp_stream_links = {rp_stream_opened, rp_stream_input, rp_redis_lost};

static void rp_stream_follow(rp_redis *r) {
    rp_line_close(r, &r->following);
    r->phase = RP_REDIS_LOAD;
    r->following.due = r->hub->wheel.now + RP_REDIS_ANSWER_MS;
    r->following.link = rp_link_open(r->hub, &rp_stream_links, r, &r->to);
    if (!r->following.link) rp_redis_lose(r, "out of memory");
    else rp_redis_arm(r);
}

#endif // RP_REDIS

// ============================================================================
// >>durable  topics whose history Redis keeps by themselves  (uses: redis, stream)
//
// A durable topic's messages stand in a stream of its own, too: what is kept for a user who
// is away does not leave with the common one's oldest. It is read when somebody asks for
// what the memory does not have; who asked waits for that, as for a poll.
// ============================================================================
#ifdef RP_REDIS
static void rp_fetch_entry(rp_redis *r, rp_fetch *fetch, const rp_entry_read *e) {
    rtpush_message m;
    char event[RP_TOPIC_MAX + 1];
    uint64_t wall = 0;
    if (!r->fetch_entries++ && r->desc.durable_max > 0) r->fetch_first = e->seq;
    rp_stream_message(e, fetch->topic, event, &m);
    rp_slice_number(e->wall, &wall);
    m.seq = e->seq;
    m.time_ms = (int64_t)RP_MIN(wall, (uint64_t)INT64_MAX);
    rp_fetch_put(&r->fetches, fetch, &m);
}

static void rp_fetch_done(rp_redis *r, rp_fetch *fetch) {
    bool is_full = r->fetch_entries >= (uint64_t)r->desc.durable_max; // then older ones were dropped
    fetch->lost = is_full ? r->fetch_first - 1 : 0;
    fetch->most = (uint32_t)RP_MIN(r->desc.durable_max, (int64_t)UINT32_MAX);
    rp_fetch_end(&r->fetches, fetch, true);
}

// --- the connection that fetches: one topic after the other, entry by entry ---

static void rp_fetch_ask(rp_redis *r) {
    rp_mem *mem = &r->hub->mem;
    rp_buf *out = rp_link_out(r->hub, r->fetching.link);
    rp_resp_count(mem, out, 4);
    rp_resp_word(mem, out, "XRANGE");
    rp_redis_key_of(r, out, "topic:", rp_slice_of(r->fetches.first->topic));
    rp_resp_word(mem, out, "-");
    rp_resp_word(mem, out, "+");
    r->is_fetching = true;
    r->has_fetch_frame = false;
    r->fetch_entries = r->fetch_first = 0;
}

static void rp_fetch_close(rp_redis *r) {
    rp_line_close(r, &r->fetching);
    r->is_fetching = false;
    while (r->fetches.first) rp_fetch_end(&r->fetches, r->fetches.first, false);
}

// What was taken; 0: more is needed; -1: this is not what was asked for.
static ptrdiff_t rp_fetch_step(rp_redis *r, rtpush_slice in) {
    rp_resp item;
    rp_entry_read e;
    rtpush_slice id;
    bool is_frame = !r->fetch_greetings && !r->has_fetch_frame;
    ptrdiff_t n = is_frame ? rp_resp_item(&item, in.data, in.size, rp_redis_size_max(r)) : rp_resp_whole(&r->fetching.scan, in.data, in.size, rp_redis_size_max(r));
    if (n <= 0) return n;
    if (r->fetch_greetings) {
        if (*in.data == '-') return -1;
        r->fetch_greetings--;
    } else if (is_frame) {
        if (item.type != '*' || !r->is_fetching) return -1;
        r->has_fetch_frame = true;
        r->fetch_left = item.children;
    } else {
        r->fetch_left--;
        if (!rp_stream_read(&e, rp_slice(in.data, (size_t)n), &id)) return id.size ? n : -1;
        rp_fetch_entry(r, r->fetches.first, &e);
    }
    if (r->has_fetch_frame && !r->fetch_left) {
        r->is_fetching = r->has_fetch_frame = false;
        rp_fetch_done(r, r->fetches.first);
    }
    if (!r->fetch_greetings && !r->is_fetching && r->fetches.first) rp_fetch_ask(r);
    return n;
}

static void rp_fetch_input(rtpush_hub *hub, rp_link *l) {
    rp_redis *r = (rp_redis *)l->user;
    (void)hub;
    while (l->phase == RP_LINK_OPEN && rp_buf_size(&l->in)) {
        ptrdiff_t n = rp_fetch_step(r, rp_buf_slice(&l->in));
        if (n < 0) { rp_hub_log(hub, "redis: a topic's stream is not what it should be"); rp_fetch_close(r); return; }
        if (!n) return;
        l->in.start += (size_t)n;
    }
}

static void rp_fetch_opened(rtpush_hub *hub, rp_link *l) {
    rp_redis *r = (rp_redis *)l->user;
    (void)hub;
    r->fetch_greetings = rp_redis_greet(r, l);
    r->has_fetch_frame = false;
}

static void rp_fetch_lost(rtpush_hub *hub, rp_link *l, int code, const char *why) {
    rp_redis *r = (rp_redis *)l->user;
    (void)hub, (void)l, (void)code, (void)why;
    r->fetching.link = NULL;
    rp_fetch_close(r);
}

static const rp_link_owner rp_fetch_links = {rp_fetch_opened, rp_fetch_input, rp_fetch_lost};

static void rp_fetch_expire(rp_redis *r) {
    rp_fetch *first = r->fetches.first;
    if (first && r->hub->wheel.now >= first->until) rp_fetch_close(r); // they were asked for in order
    if (r->fetches.first) r->fetch_until = r->fetches.first->until;
}

// --- asking for a topic ---

static bool rp_redis_await(rp_redis *r, uint64_t conn) {
    rp_confirm *confirm = (rp_confirm *)rp_mem_get(&r->hub->mem, sizeof *confirm);
    if (!confirm) return false;
    confirm->conn = conn;
    confirm->next = r->confirms;
    r->confirms = confirm;
    r->confirm_since = r->hub->wheel.now;
    r->beat_at = RP_MIN(r->beat_at, r->hub->wheel.now + 1); // behind this moment, so that its answer counts
    rp_redis_arm(r);
    return true;
}

// Does a reader that starts there need what only Redis has? Then it waits: true.
static bool rp_redis_fetch(rtpush_hub *hub, rtpush_slice name, const rp_start *start, uint64_t conn, const rtpush_slice *ref) {
    rp_redis *r = (rp_redis *)hub->desc.bus->user;
    bool is_new, is_idle = r->fetching.link && !r->fetches.first && !r->fetch_greetings;
    if (r->phase != RP_REDIS_LIVE) return false;
    if (!ref && rp_start_is_foreign(hub, start)) return rp_redis_await(r, conn);
    if (!rp_fetch_is_wanted(hub, name, start)) return false;
    rp_fetch *fetch = rp_fetch_wait(&r->fetches, name, start, conn, ref, &is_new);
    if (!fetch || !is_new) return fetch != NULL;
    if (r->fetches.first == fetch) r->fetch_until = fetch->until;
    if (!r->fetching.link) r->fetching.link = rp_link_open(hub, &rp_fetch_links, r, &r->to), r->fetch_greetings = 1;
    if (!r->fetching.link) { rp_fetch_free(&r->fetches, fetch); return false; }
    if (is_idle && r->fetching.link->phase == RP_LINK_OPEN) rp_fetch_ask(r);
    rp_redis_arm(r);
    return true;
}
#endif // RP_REDIS

// ============================================================================
// >>join  a node joins those at a Redis, is counted, and leaves  (uses: stream, redis, registry)
// ============================================================================
#ifdef RP_REDIS

static const char *const rp_redis_scripts[RP_SCRIPTS] = {rp_script_join, rp_script_append, rp_script_beat};

static void rp_redis_joined(rp_redis *r, rp_letter *letter, rtpush_slice reply) {
    rp_resp item;
    uint64_t counter;
    (void)letter;
    if (rp_redis_is_error(r, reply)) return;
    rp_resp_next(&reply, &item);
    rtpush_slice status = rp_resp_text(&reply), epoch = rp_resp_text(&reply), count = rp_resp_text(&reply);
    r->is_taken = rp_slice_equals(status, "taken");
    snprintf(r->taker, sizeof r->taker, "%.*s", r->is_taken ? (int)RP_MIN(epoch.size, sizeof r->taker - 1) : 0, epoch.data);
    r->beat_at = r->hub->wheel.now + RP_SETTLE_MS; // asked again
    if (!rp_slice_equals(status, "ok")) return;
    if (!rp_is_epoch(epoch) || !rp_slice_number(count, &counter)) { rp_redis_lose(r, "its scripts answer strangely"); return; }
    r->beat_at = r->hub->wheel.now + RP_BEAT_MS;
    r->counter = counter;
    r->from[0] = 0;
    r->is_loading = !r->is_started || !rp_slice_equals(epoch, r->epoch);
    if (r->is_loading) r->is_started = false;
    memcpy(r->epoch, epoch.data, 8);
    rp_stream_follow(r);
}

static void rp_redis_join(rp_redis *r) {
    rtpush_hub *hub = r->hub;
    rp_mem *mem = &hub->mem;
    static const char *const keys[] = {"log", "seq", "epoch", "nodes", "run", "need"};
    char fresh[9] = "";
    rp_buf *out = rp_redis_run(r, RP_SCRIPT_JOIN, RP_COUNT(keys), 9, rp_redis_joined, NULL);
    if (!rp_hub_random_epoch(hub, fresh)) out->is_broken = true;
    for (unsigned i = 0; i < RP_COUNT(keys); i++) rp_redis_key(r, out, keys[i]);
    rp_resp_word(mem, out, r->desc.node);
    rp_resp_word(mem, out, r->life);
    rp_resp_word(mem, out, r->is_started ? r->epoch : "");
    rp_resp_decimal(mem, out, r->is_started ? hub->log.head : 0);
    rp_resp_word(mem, out, r->is_started && r->marked == hub->log.head ? r->mark : "");
    rp_resp_word(mem, out, fresh);
    rp_resp_word(mem, out, r->run);
    rp_resp_word(mem, out, r->is_forced ? "1" : "0");
    rp_resp_word(mem, out, r->is_broken ? "1" : "0");
    r->is_broken = false;
    r->phase = RP_REDIS_JOIN;
    r->beat_at = UINT64_MAX;
}

// Where the text begins in it; NULL: nowhere.
static const char *rp_slice_find(rtpush_slice s, const char *text) {
    size_t size = strlen(text);
    for (size_t i = 0; i + size <= s.size; i++)
        if (s.data[i] == *text && !memcmp(s.data + i, text, size)) return s.data + i;
    return NULL;
}

// Does a life of our name that was counted still have a connection? If not, it was killed, and the name is free.
static void rp_redis_listed(rp_redis *r, rp_letter *letter, rtpush_slice reply) {
    rp_resp item;
    char name[RP_NODE_MAX + 180];
    (void)letter;
    rp_resp_next(&reply, &item);
    snprintf(name, sizeof name, " name=rtpush:%s:%s ", r->desc.log, r->taker);
    bool is_known = item.type == '$' || item.type == '=';
    bool is_there = is_known && rp_slice_find(item.text, name) != NULL;
    r->is_taken = false;
    r->is_forced = is_known && !is_there;
    r->beat_at = r->hub->wheel.now + (r->is_forced ? 0 : 1000);
    if (!is_there) return;
    rp_hub_log(r->hub, "redis: another node is called %s", r->desc.node);
    if (r->is_first) r->hub->load_code = RTPUSH_E_IN_USE;
}

static void rp_redis_list(rp_redis *r) {
    static const char *const words[] = {"CLIENT", "LIST"};
    rp_redis_words(r, rp_redis_ask(r, 2, rp_redis_listed, NULL), words, 2);
    r->beat_at = UINT64_MAX;
}

// Something else leads now, or was there for a while: what the log is has to be settled again.
static void rp_redis_join_again(rp_redis *r) {
    rp_line_close(r, &r->following);
    r->phase = RP_REDIS_JOIN;
    r->beat_at = r->hub->wheel.now;
}

static int rp_redis_bury(rtpush_hub *hub, const char *life, const char *topic) {
    rp_redis *r = (rp_redis *)hub->desc.bus->user;
    return rp_redis_tell(r, "x", r->life, topic, rp_slice_of(life));
}

static bool rp_slice_is_less(rtpush_slice a, rtpush_slice b) {
    int order = memcmp(a.data, b.data, RP_MIN(a.size, b.size));
    return order < 0 || (!order && a.size < b.size);
}

static void rp_redis_counted(rp_redis *r, rp_letter *letter, rtpush_slice reply) {
    rp_resp item;
    uint64_t seq = 0;
    bool is_least = true, is_ours = true;
    (void)letter;
    if (rp_redis_is_error(r, reply) || r->phase != RP_REDIS_LIVE) return;
    rp_resp_next(&reply, &item);
    uint64_t pairs = item.children > 2 ? (item.children - 2) / 2 : 0;
    rtpush_slice epoch = rp_resp_text(&reply), count = rp_resp_text(&reply);
    if (!rp_slice_equals(epoch, r->epoch) || !rp_slice_number(count, &seq) || seq < r->hub->log.head) { rp_redis_join_again(r); return; }
    r->hub->bus_asked_ms = r->beat_sent;
    r->hub->bus_head = seq;
    r->hub->bus_is_away = false;
    if (r->confirms && r->confirm_since <= r->beat_sent) rp_redis_confirm(r);
    rp_letters_settle(r, r->beat_sent, seq);
    rp_registry_count(r->hub);
    while (pairs--) {
        rtpush_slice node = rp_resp_text(&reply), life = rp_resp_text(&reply);
        rp_registry_counted(r->hub, life);
        if (rp_slice_equals(node, r->desc.node)) is_ours = rp_slice_equals(life, r->life);
        else if (rp_slice_is_less(node, rp_slice_of(r->desc.node))) is_least = false;
    }
    if (!is_ours) { r->is_forced = false; rp_redis_lose(r, "another node has our name"); return; }
    rp_registry_bury(r->hub, is_least ? 1 : 3, rp_redis_bury); // one of us is enough, and more do no harm
}

static void rp_redis_beat(rp_redis *r) {
    static const char *const keys[] = {"seq", "epoch", "nodes", "done"};
    rp_buf *out = rp_redis_run(r, RP_SCRIPT_BEAT, RP_COUNT(keys), 2, rp_redis_counted, NULL);
    for (unsigned i = 0; i < RP_COUNT(keys); i++) rp_redis_key(r, out, keys[i]);
    rp_resp_word(&r->hub->mem, out, r->desc.node);
    rp_resp_word(&r->hub->mem, out, r->life);
    r->beat_sent = r->hub->wheel.now;
    r->beat_at = r->hub->wheel.now + RP_BEAT_MS;
}

// --- the connection's first words ---

static void rp_redis_informed(rp_redis *r, rp_letter *letter, rtpush_slice reply) {
    static const char word[] = "run_id:";
    rp_resp item;
    (void)letter;
    if (rp_redis_is_error(r, reply)) return;
    rp_resp_next(&reply, &item);
    const char *at = rp_slice_find(item.text, word);
    size_t left = at ? item.text.size - (size_t)(at - item.text.data) - sizeof word + 1 : 0, size = 0;
    while (size < left && size < sizeof r->run - 1 && rp_hex_digit(at[sizeof word - 1 + size]) >= 0) size++;
    memcpy(r->run, size ? at + sizeof word - 1 : "-", size ? size : 1);
    r->run[size ? size : 1] = 0;
    rp_redis_join(r);
}

static void rp_redis_loaded_script(rp_redis *r, rp_letter *letter, rtpush_slice reply) {
    (void)letter;
    if (rp_redis_is_error(r, reply)) return;
    rtpush_slice sha = rp_resp_text(&reply);
    if (sha.size != 40 || r->sha_count == RP_SCRIPTS) { rp_redis_lose(r, "it does not load scripts"); return; }
    memcpy(r->shas[r->sha_count++], sha.data, 40);
}

static void rp_redis_say_hello(rp_redis *r) {
    static const char *const info[] = {"INFO", "server"};
    r->phase = RP_REDIS_GREET;
    r->sha_count = 0;
    for (uint32_t left = rp_redis_greet(r, r->asking.link); left; left--) rp_ask_push(r, rp_redis_fine, NULL);
    for (unsigned i = 0; i < RP_SCRIPTS; i++) {
        const char *load[3] = {"SCRIPT", "LOAD", rp_redis_scripts[i]};
        rp_redis_words(r, rp_redis_ask(r, 3, rp_redis_loaded_script, NULL), load, 3);
    }
    rp_redis_words(r, rp_redis_ask(r, 2, rp_redis_informed, NULL), info, 2);
}

// A sentinel says where the master is.
static void rp_redis_told_master(rp_redis *r, rp_letter *letter, rtpush_slice reply) {
    rp_resp item;
    char text[300];
    (void)letter;
    if (rp_redis_is_error(r, reply)) return;
    rp_resp_next(&reply, &item);
    rtpush_slice host = rp_resp_text(&reply), port = rp_resp_text(&reply);
    bool is_v6 = memchr(host.data, ':', host.size) != NULL;
    snprintf(text, sizeof text, is_v6 ? "[%.*s]:%.*s" : "%.*s:%.*s", (int)RP_MIN(host.size, (size_t)200), host.data, (int)RP_MIN(port.size, (size_t)8), port.data);
    rp_url url = *r->to.url;
    if (item.children != 2 || !rp_url_authority(&url, text)) { rp_redis_lose(r, "the sentinel knows no such master"); return; }
    r->moved = url;
    r->has_moved = true;
    rp_line_close(r, &r->asking);
    r->phase = RP_REDIS_AWAY;
    r->retry_at = r->hub->wheel.now;
    rp_redis_arm(r);
}

static void rp_redis_opened(rtpush_hub *hub, rp_link *l) {
    rp_redis *r = (rp_redis *)l->user;
    const char *words[3] = {"SENTINEL", "get-master-addr-by-name", r->master};
    (void)hub;
    r->asking.due = UINT64_MAX;
    if (!*r->master || r->has_moved) { rp_redis_say_hello(r); return; }
    r->phase = RP_REDIS_SENTINEL;
    rp_redis_words(r, rp_redis_ask(r, 3, rp_redis_told_master, NULL), words, 3);
}

static const rp_link_owner rp_redis_links = {rp_redis_opened, rp_redis_answers, rp_redis_lost};

static void rp_redis_connect(rp_redis *r) {
    r->to.url = r->has_moved ? &r->moved : &r->urls[r->url_at];
    r->phase = RP_REDIS_GREET;
    r->asking.due = r->hub->wheel.now + RP_REDIS_ANSWER_MS;
    r->asking.link = rp_link_open(r->hub, &rp_redis_links, r, &r->to);
    if (!r->asking.link) rp_redis_lose(r, "out of memory");
}

static void rp_redis_fire(rtpush_hub *hub, rp_timer *timer) {
    rp_redis *r = RP_OWNER(rp_redis, timer, timer);
    uint64_t now = hub->wheel.now;
    rp_letters_expire(r);
    rp_fetch_expire(r);
    if (now >= RP_MIN(r->asking.due, r->following.due)) rp_redis_lose(r, "it does not answer");
    if (r->confirms && now >= r->confirm_since + RP_FETCH_MS) hub->bus_is_away = true, rp_redis_confirm(r); // until it answers
    if (r->phase == RP_REDIS_AWAY && now >= r->retry_at) rp_redis_connect(r);
    else if (r->phase == RP_REDIS_JOIN && now >= r->beat_at && r->is_taken) rp_redis_list(r);
    else if (r->phase == RP_REDIS_JOIN && now >= r->beat_at) rp_redis_join(r);
    else if (r->phase == RP_REDIS_LIVE && now >= r->beat_at) rp_redis_beat(r);
    rp_redis_arm(r);
}

// --- the bus ---

static bool rp_redis_is_node(const char *name) {
    size_t size = strlen(name);
    for (size_t i = 0; i < size; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", name[i])) return false;
    return size > 0 && size <= RP_NODE_MAX;
}

static int rp_redis_open(void *user, rtpush_hub *hub) {
    rp_redis *r = (rp_redis *)user;
    unsigned char random[8];
    char hex[17];
    if (r->hub) return RTPUSH_E_STATE; // of one hub
    r->hub = r->fetches.hub = hub;
    if (!rp_redis_take_url(r, r->url)) return rp_hub_error(hub, RTPUSH_E_URL, "redis://[USER:PASS@]HOST[:PORT][/DB], rediss, unix:PATH, redis+sentinel://HOST,HOST/MASTER");
    if (!rp_dial_prepare(hub)) return RTPUSH_E_MEMORY;
    if (hub->sys.random(hub->sys.user, random, sizeof random)) return RTPUSH_E_SYSTEM;
    for (unsigned i = 0; i < 8; i++) snprintf(hex + 2 * i, 3, "%02x", random[i]);
    if (!*r->node) snprintf(r->node, sizeof r->node, "node-%.8s", hex);
    r->desc.node = r->node;
    if (!rp_redis_is_node(r->desc.node) || !rp_redis_is_node(r->desc.log)) return rp_hub_error(hub, RTPUSH_E_ARGUMENT, "node and log: 1 to 64 of A-Z a-z 0-9 . _ -");
    snprintf(r->life, sizeof r->life, "%s:%s", r->desc.node, hex);
    r->to.trust.ca = r->desc.ca;
    r->to.trust.insecure = r->desc.insecure;
    r->is_first = hub->is_loading = true;
    r->first_until = hub->wheel.now + (uint64_t)r->desc.start_ms;
    r->retry_at = hub->wheel.now;
    r->to.url = &r->urls[0];
    hub->fetch = rp_redis_fetch;
    hub->bus_confirms = true;
    int code = rp_registry_open(hub, r->life, rp_redis_announce);
    if (!code) rp_redis_connect(r);
    rp_redis_arm(r);
    return code;
}

// A node that goes says so: nobody waits for it.
static void rp_redis_goodbye(rp_redis *r) {
    rp_buf *out = rp_redis_ask(r, 3, rp_redis_fine, NULL);
    rp_resp_word(&r->hub->mem, out, "HDEL");
    rp_redis_key(r, out, "nodes");
    rp_resp_word(&r->hub->mem, out, r->desc.node);
}

static void rp_redis_close(void *user, rtpush_hub *hub) {
    rp_redis *r = (rp_redis *)user;
    if (hub && r->hub) {
        if (r->phase == RP_REDIS_LIVE) rp_redis_goodbye(r);
        r->phase = RP_REDIS_OVER;
        rp_redis_confirm(r);
        while (r->fetches.first) rp_fetch_free(&r->fetches, r->fetches.first);
        rp_line_close(r, &r->fetching);
        rp_line_close(r, &r->asking);
        rp_line_close(r, &r->following);
        rp_timer_stop(&hub->wheel, &r->timer);
        while (r->letters) rp_letter_free(r, r->letters);
        rp_mem_free(&hub->mem, r->asks);
        rp_tls_trust_free(&r->to.trust);
        if (hub->dials) rp_dial_reap(hub);
    }
    RTPUSH_FREE(r);
}

static const rtpush_bus rp_redis_bus = {"redis", rp_redis_open, rp_redis_append, rp_redis_turn, rp_redis_close, NULL};

RTPUSH_DEF const rtpush_bus *rtpush_redis(const char *url, const rtpush_redis_desc *desc) {
    size_t ca = desc && desc->ca ? strlen(desc->ca) + 1 : 0, size = strlen(url) + 1;
    rp_redis *r = (rp_redis *)RTPUSH_REALLOC(NULL, sizeof *r + size + ca);
    if (!r) return NULL;
    memset(r, 0, sizeof *r);
    if (desc) r->desc = *desc;
    memcpy(r->url, url, size);
    if (ca) r->desc.ca = (const char *)memcpy(r->url + size, desc->ca, ca);
    snprintf(r->log, sizeof r->log, "%s", desc && desc->log ? desc->log : "rtpush");
    snprintf(r->node, sizeof r->node, "%s", desc && desc->node ? desc->node : "");
    r->desc.log = r->log;
    if (!r->desc.stream_max) r->desc.stream_max = 100000;
    if (!r->desc.durable_max) r->desc.durable_max = 1000;
    if (!r->desc.durable_ms) r->desc.durable_ms = INT64_C(2592000000);
    if (!r->desc.queue_bytes) r->desc.queue_bytes = 4194304;
    if (!r->desc.queue_ms) r->desc.queue_ms = 5000;
    if (!r->desc.start_ms) r->desc.start_ms = 15000;
    r->letters_end = &r->letters;
    r->asking.due = r->following.due = UINT64_MAX;
    r->timer.fire = rp_redis_fire;
    r->bus = rp_redis_bus;
    r->bus.user = r;
    return &r->bus;
}
#endif // RP_REDIS

// ============================================================================
// >>server  listeners, one turn of the loop, drain  (uses: clock)
//
//     wait -> timers -> what is ready -> input that waited -> posted calls -> flush -> reap
// ============================================================================
#ifdef RP_SERVER
static const uint64_t RP_TAG_WAKE = (uint64_t)0xfffffffeu << 32; // even generations are nobody's

static void rp_listener_watch(rtpush_hub *hub, bool want) {
    rp_server *server = hub->server;
    for (rp_listener *l = server->listeners; l; l = l->next) {
        if (l->is_watched == want) continue;
        if (!server->backend->watch(server->state, l->fd, l->tag, l->is_watched ? RTPUSH_READ : 0u, want ? RTPUSH_READ : 0u)) l->is_watched = want;
    }
}

static void rp_accept_again(rtpush_hub *hub, rp_timer *timer) {
    (void)timer;
    if (!hub->server->is_draining) rp_listener_watch(hub, true);
}

// Descriptors or memory ran out: the listeners rest, so that the loop does not spin.
static void rp_accept_pause(rtpush_hub *hub) {
    rp_listener_watch(hub, false);
    rp_timer_start(&hub->wheel, &hub->server->accept_again, hub->wheel.now + 100);
}

// The spare descriptor is given up to accept one connection and end it, rather than leave it waiting.
static void rp_accept_with_spare(rtpush_hub *hub, rp_listener *listener) {
    rtpush_peer peer;
    if (hub->server->spare_fd < 0) return;
    close(hub->server->spare_fd);
    int fd = hub->sys.accept(hub->sys.user, listener->fd, &peer);
    if (fd >= 0) hub->sys.close(hub->sys.user, fd), hub->stats.refused++;
    hub->server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

enum { RP_REFUSED_MAX = 48 }; // connections beyond the limit that are told so

// A new connection. NULL: no memory.
static rp_conn *rp_conn_new(rtpush_hub *hub, int fd, const rtpush_peer *peer, bool is_tls) {
    rp_tls *tls = is_tls ? rp_tls_accept(hub->tls, fd) : NULL;
    rp_conn *c = !is_tls || tls ? (rp_conn *)rp_slab_take(&hub->server->conns) : NULL;
    if (!c) {
        rp_tls_free(&hub->mem, tls);
        hub->sys.close(hub->sys.user, fd);
        return NULL;
    }
    if (hub->hooks) hub->hooks->connected(hub, 1);
    rp_reader_init(&c->reader, &rp_wire_none);
    c->fd = fd;
#ifdef RTPUSH_OPENSSL
    c->tls = tls;
#endif
    c->peer = *peer;
    c->is_first = c->is_http11 = true;
    c->since = c->seen = hub->wheel.now;
    c->timer.fire = rp_clock_tick;
    hub->stats.connections++;
    hub->stats.accepted++;
    rp_conn_watch(hub, c);
    rp_conn_arm(hub, c);
    return c;
}

static void rp_accept_one(rtpush_hub *hub, int fd, const rtpush_peer *peer, bool is_tls) {
    uint64_t live = hub->hooks ? hub->hooks->connected(hub, 0) : hub->server->conns.live;
    bool is_over = live >= (uint64_t)hub->desc.connections_max, is_ip_over = false;
    if (live >= (uint64_t)hub->desc.connections_max + RP_REFUSED_MAX) {
        hub->sys.close(hub->sys.user, fd);
        hub->stats.refused++;
        return;
    }
    rp_conn *c = rp_conn_new(hub, fd, peer, is_tls);
    if (!c) return;
    if (hub->desc.connections_per_ip_max > 0) is_ip_over = rp_ip_count(hub, c, 1) > (uint64_t)hub->desc.connections_per_ip_max;
    if (!is_over && !is_ip_over) return;
    hub->stats.refused++;
    c->is_over = is_over ? RP_OVER_ALL : RP_OVER_IP;
    if (!is_tls) rp_input_refuse_over(hub, c); // over TLS it has to have asked first
}

static void rp_server_accept(rtpush_hub *hub, rp_listener *listener) {
    for (int64_t i = 0; i < hub->desc.accepts_per_turn; i++) {
        rtpush_peer peer;
        memset(&peer, 0, sizeof peer);
        int fd = hub->sys.accept(hub->sys.user, listener->fd, &peer);
        if (fd >= 0) {
            bool is_dealt = hub->hooks && hub->hooks->deal(hub, fd, &peer, listener->is_tls);
            if (!is_dealt) rp_accept_one(hub, fd, &peer, listener->is_tls);
            continue;
        }
        if (fd == -EINTR || fd == -ECONNABORTED || fd == -EPROTO) continue;
        if (fd == -EMFILE || fd == -ENFILE) rp_accept_with_spare(hub, listener);
        if (!rp_errno_is_again(fd)) rp_accept_pause(hub);
        return;
    }
}

static int rp_listener_add(rtpush_hub *hub, int fd, const char *path, bool is_tls) {
    rp_server *server = hub->server;
    rp_listener *l = (rp_listener *)rp_mem_get(&hub->mem, sizeof *l);
    char *own_path = l && path ? rp_mem_text(&hub->mem, rp_slice_of(path)) : NULL;
    if (!l || (path && !own_path)) {
        rp_mem_free(&hub->mem, l);
        hub->sys.close(hub->sys.user, fd);
        return rp_hub_error(hub, RTPUSH_E_MEMORY, NULL);
    }
    l->fd = fd;
    l->is_tls = is_tls;
    l->path = own_path;
    l->tag = server->listener_count++;
    l->next = server->listeners;
    server->listeners = l;
    rp_listener_watch(hub, true);
    return l->is_watched ? RTPUSH_OK : rp_hub_error(hub, RTPUSH_E_SYSTEM, "watching a listener");
}

static void rp_listeners_close(rtpush_hub *hub) {
    rp_listener *l;
    rp_listener_watch(hub, false);
    while ((l = hub->server->listeners) != NULL) {
        hub->server->listeners = l->next;
        hub->sys.close(hub->sys.user, l->fd);
        if (l->path) unlink(l->path);
        rp_mem_free(&hub->mem, l->path);
        rp_mem_free(&hub->mem, l);
    }
}

// --- the turn ---

static void rp_server_ready(rtpush_hub *hub, const rtpush_event *event) {
    rp_server *server = hub->server;
    if (event->tag == RP_TAG_WAKE) { rp_wake_clear(&server->wake); return; }
#ifdef RP_DIAL
    if (event->tag & RP_TAG_LINK) { rp_dial_ready(hub, event); return; }
#endif
    if (event->tag < server->listener_count) {
        for (rp_listener *l = server->listeners; l; l = l->next)
            if (l->tag == event->tag) { rp_server_accept(hub, l); return; }
        return;
    }
    rp_conn *c = (rp_conn *)rp_slab_find(&server->conns, event->tag);
    if (!c || c->phase == RP_PHASE_DEAD) return;
    if ((event->ready & RTPUSH_WRITE) && c->reader.is_blocked) { // the flush serves it
        c->reader.is_blocked = false;
        rp_hub_again(hub, &c->reader);
    }
    bool is_shaking = (event->ready & RTPUSH_WRITE) && rp_conn_tls_waits(c); // a handshake goes on by reading
    if (((event->ready & RTPUSH_READ) || is_shaking) && (c->want & RTPUSH_READ)) rp_input_receive(hub, c);
}

// What is to be sent to servers elsewhere goes, what is over is freed.
static void rp_server_end_dials(rtpush_hub *hub) {
#ifdef RP_DIAL
    if (!hub->dials) return;
    rp_dial_flush(hub);
#ifdef RP_CLIENT
    rp_client_reap(hub); // before the links: a client closes its own
#endif
    rp_dial_reap(hub);
#else
    (void)hub;
#endif
}

// After the handlers: everyone gets what is new, the dead are buried.
static void rp_server_end_turn(rtpush_hub *hub) {
    if (hub->hooks) hub->bus_is_due |= hub->hooks->is_behind(hub);
    if (hub->bus_is_due) {
        hub->bus_is_due = false;
        if (hub->desc.bus && hub->desc.bus->turn) hub->desc.bus->turn(hub->desc.bus->user, hub);
    }
    if (hub->hooks) hub->hooks->wake(hub);
    rp_hub_flush(hub);
    rp_server_forget_answer(hub);
    rp_people_reap(hub);
    rp_server_reap(hub);
    rp_server_end_dials(hub);
    if (hub->hooks) rp_stats_note(hub);
}

static bool rp_server_has_work(rtpush_hub *hub) {
    rp_server *server = hub->server;
    bool is_posted;
    rp_server_lock(server);
    is_posted = server->posted != NULL;
    rp_server_unlock(server);
#ifdef RP_DIAL
    is_posted |= rp_dial_has_work(hub);
#endif
#ifdef RP_CLIENT
    is_posted |= hub->dials && hub->dials->dead_clients;
#endif
    return is_posted || hub->bus_is_due || server->resume || server->dead || hub->people->ending || rp_hub_has_work(hub) || RP_ATOMIC_READ(&server->is_stopped);
}

// Milliseconds until there is something to do; 0 now, -1 never.
static int rp_server_timeout(rtpush_hub *hub) {
    if (rp_server_has_work(hub)) return 0;
    uint64_t next = rp_wheel_next(&hub->wheel), now = hub->sys.now_ms(hub->sys.user);
    if (next == UINT64_MAX) return -1;
    return next <= now ? 0 : (int)RP_MIN(next - now, (uint64_t)INT32_MAX);
}

static void rp_server_turn(rtpush_hub *hub, int timeout_ms) {
    rp_server *server = hub->server;
    int n = server->backend->wait(server->state, server->events, RP_EVENTS, timeout_ms);
    hub->stats.turns++;
    hub->wall_ms = 0;
    rp_wheel_advance(hub, &hub->wheel, hub->sys.now_ms(hub->sys.user));
    for (int i = 0; i < n; i++) rp_server_ready(hub, &server->events[i]);
    rp_input_resume(hub);
    rp_server_run_posted(hub);
    rp_server_end_turn(hub);
}

// --- drain ---

static void rp_drain_cut(rtpush_hub *hub, rp_timer *timer) {
    (void)timer;
    for (uint32_t i = 0; i < rp_slab_end(&hub->server->conns); i++) {
        rp_slot *slot = rp_slab_at(&hub->server->conns, i);
        if (slot->generation & 1) rp_conn_drop(hub, (rp_conn *)(void *)slot, 1012);
    }
}

// place of count: each client has its own moment to be closed at, and its own delay to come back after.
static void rp_drain_conn(rtpush_hub *hub, rp_conn *c, uint64_t place, uint64_t count) {
    uint64_t loops = RP_MAX(hub->loops, 1u); // they do the same at once: each its share of a step
    uint64_t delay = hub->server->drain_spread * (2 * (place * loops + hub->loop) + 1) / (2 * count * loops);
    rp_poll_answer answer;
    if (c->phase == RP_PHASE_PARKED) {
        rp_poll_answer_init(&answer, NULL);
        answer.reconnect_ms = (int64_t)delay;
        rp_poll_reply(hub, c, &answer, true);
    } else if (c->phase == RP_PHASE_STREAM || c->phase == RP_PHASE_SOCKET) {
        c->drain_at = hub->wheel.now + 1 + hub->server->drain_spread * (place * loops + hub->loop) / (count * loops);
        c->drain_ms = (uint32_t)delay;
        rp_conn_arm(hub, c);
    }
}

// Whoever reads is sent away.
static void rp_drain_leave(rtpush_hub *hub, rp_timer *timer) {
    rp_server *server = hub->server;
    uint64_t readers = 0, place = 0;
    (void)timer;
    hub->is_leaving = hub->bus_is_due = true;
    for (uint32_t i = 0; i < rp_slab_end(&server->conns); i++)
        readers += (rp_slab_at(&server->conns, i)->generation & 1) && rp_conn_is_reader((rp_conn *)(void *)rp_slab_at(&server->conns, i));
    for (uint32_t i = 0; i < rp_slab_end(&server->conns); i++) {
        rp_slot *slot = rp_slab_at(&server->conns, i);
        rp_conn *c = (rp_conn *)(void *)slot;
        if ((slot->generation & 1) && rp_conn_is_reader(c)) rp_drain_conn(hub, c, place++, readers);
    }
}

enum { RP_DRAIN_LAST_MS = 200, RP_DRAIN_IDLE_MS = 500 };

// First the listeners close, and what is on its way is still taken: all that was or will be acknowledged reaches all
// who read. Then, RP_DRAIN_LAST_MS later, readers are sent away.
static void rp_server_drain(rtpush_hub *hub) {
    rp_server *server = hub->server;
    for (rp_listener *l = server->listeners; l; l = l->next) rp_server_accept(hub, l); // who waits already gets in
    rp_listeners_close(hub);
    server->is_draining = true;
    rp_timer_start(&hub->wheel, &server->leave_timer, hub->wheel.now + RP_DRAIN_LAST_MS);
    for (uint32_t i = 0; i < rp_slab_end(&server->conns); i++) {
        rp_slot *slot = rp_slab_at(&server->conns, i);
        rp_conn *c = (rp_conn *)(void *)slot;
        if (!(slot->generation & 1) || !rp_conn_is_live(c)) continue;
        c->keeps = false;
        if (c->phase != RP_PHASE_HEAD || c->is_in_input) continue; // in input: its request is being answered
        c->drain_at = hub->wheel.now + RP_DRAIN_IDLE_MS; // a request may be on its way, on a kept connection too
        rp_conn_arm(hub, c);
    }
}

// --- the end of all ---

static void rp_names_free(rtpush_hub *hub) {
    for (rp_node *node = hub->names.slots ? rp_table_next(&hub->names, NULL) : NULL, *next; node; node = next) {
        rp_source *s = RP_OWNER(rp_source, node, node);
        next = rp_table_next(&hub->names, node);
        rp_mem_free(&hub->mem, s->entries);
        rp_mem_free(&hub->mem, s->links);
        if (!s->is_pattern) {
            rp_mem_free(&hub->mem, rp_source_topic(s)->ring);
            for (unsigned i = 0; i < RP_SPELLINGS; i++) rp_block_unref(&hub->log, rp_source_topic(s)->tails[i]);
        }
        rp_mem_free(&hub->mem, s);
    }
    for (rp_dead *dead = hub->dead_first, *next; dead; dead = next) {
        next = dead->next;
        rp_mem_free(&hub->mem, dead);
    }
    for (rp_rule *rule = hub->rules, *next; rule; rule = next) {
        next = rule->next;
        rp_mem_free(&hub->mem, rule);
    }
    rp_mem_free(&hub->mem, hub->patterns);
    rp_mem_free(&hub->mem, hub->names.slots);
    rp_mem_free(&hub->mem, hub->dead.slots);
}

static void rp_server_free(rtpush_hub *hub) {
    rp_server *server = hub->server;
    if (server->state) server->backend->close(server->state);
    rp_wake_close(&server->wake);
    if (server->spare_fd >= 0) close(server->spare_fd);
    while (server->buf_count) {
        rp_buf *buf = server->bufs[--server->buf_count];
        rp_buf_free(&hub->mem, buf);
        rp_mem_free(&hub->mem, buf);
    }
    rp_buf_free(&hub->mem, &server->body);
    rp_buf_free(&hub->mem, &server->here);
    rp_mem_free(&hub->mem, server->input);
    rp_mem_free(&hub->mem, server->names_text);
    rp_mem_free(&hub->mem, server->path_text);
    rp_mem_free(&hub->mem, server->token_text);
    rp_mem_free(&hub->mem, server->ips.slots);
    rp_slab_free(&server->conns);
    rp_slab_free(&server->streams);
    rp_slab_free(&server->timers);
#ifndef RTPUSH_NO_THREADS
    pthread_mutex_destroy(&server->lock);
#endif
    rp_mem_free(&hub->mem, server);
}

// Everybody leaves; on_close runs for each session.
static void rp_hub_dismiss(rtpush_hub *hub) {
    rp_server *server = hub->server;
    server->depth++; // a destroy inside a callback is this one
    for (uint32_t i = 0; i < rp_slab_end(&server->conns); i++) {
        rp_slot *slot = rp_slab_at(&server->conns, i);
        if (slot->generation & 1) rp_conn_drop(hub, (rp_conn *)(void *)slot, 1001);
    }
    for (uint32_t i = 0; hub->people && i < rp_slab_end(&hub->people->sessions); i++) {
        rp_slot *slot = rp_slab_at(&hub->people->sessions, i);
        if (slot->generation & 1) rp_session_end(hub, (rp_session *)(void *)slot, 1001);
    }
    if (hub->people) rp_people_reap(hub);
    rp_server_reap(hub);
    rp_server_forget_answer(hub);
    rp_listeners_close(hub);
#ifdef RP_CLIENT
    rp_client_end_all(hub);
#endif
    rp_server_lock(server);
    server->is_closed = true;
    rp_server_unlock(server);
    for (rp_posted *posted = rp_server_take_posted(server), *next; posted; posted = next) { // what was posted still runs: it owns its arg
        next = posted->next;
        posted->fn(hub, posted->arg);
        RTPUSH_FREE(posted);
    }
}

// Frees a hub, also one that was not made whole.
static void rp_hub_free(rtpush_hub *hub) {
    rp_mem mem = hub->mem;
    char *own;
    if (hub->hooks) hub->hooks->end(hub);
    if (hub->server) rp_hub_dismiss(hub);
    if (hub->desc.bus && hub->desc.bus->close) hub->desc.bus->close(hub->desc.bus->user, hub);
    rp_outbox_free(hub);
#ifdef RP_SHARED
    rp_registry_free(hub);
#endif
    hub->announce = NULL;
    rp_people_free(hub);
    rp_log_free(&hub->log);
    rp_names_free(hub);
    rp_buf_free(&hub->mem, &hub->text);
#ifdef RP_DIAL
    rp_dial_free(hub);
#endif
    rp_tls_kit_free(hub->tls);
    if (hub->server) rp_server_free(hub);
    memcpy(&own, &hub->desc.mount, sizeof own); // ours, though desc says const
    rp_mem_free(&mem, own);
    memcpy(&own, &hub->desc.origin, sizeof own);
    rp_mem_free(&mem, own);
    rp_mem_free(&mem, hub);
}
#endif // RP_SERVER

// ============================================================================
// >>create  a hub is made, steps, ends  (uses: server)
// ============================================================================
#ifdef RP_SERVER
// Every limit of desc and its default. 0 asks for the default.
#define RP_DEFAULTS(X)                                                                                                           \
    X(head_max, 16384) X(line_max, 8192) X(headers_max, 64) X(body_max, 1048576) X(header_timeout_ms, 10000)                     \
    X(body_timeout_ms, 30000) X(body_rate_min, 1024) X(idle_timeout_ms, 30000) X(message_max, 1048576) X(fragments_max, 1024)     \
    X(frame_timeout_ms, 30000) X(pings_max, 60) X(heartbeat_ms, 20000) X(dead_ms, 10000) X(sse_heartbeat_ms, 15000)               \
    X(sse_retry_ms, 3000) X(poll_max_ms, 55000) X(poll_default_ms, 25000) X(close_timeout_ms, 5000) X(auth_timeout_ms, 10000)     \
    X(stall_ms, 30000) X(ring_max, 262144) X(linger_ms, 15000) X(history, 100) X(history_bytes, 1048576) X(history_ms, 3600000)   \
    X(history_total_bytes, 67108864) X(topics_max, 100000) X(patterns_max, 1000) X(dead_max, 16384) X(session_topics_max, 64)     \
    X(keys_max, 65536) X(keys_ms, 120000) X(presence_ms, 250) X(presence_list_max, 100) X(connections_per_ip_max, -1)             \
    X(accepts_per_turn, 128) X(input_per_turn, 262144) X(writes_per_turn, 1024)

static int64_t rp_connections_default(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur == RLIM_INFINITY) return 1000000;
    return limit.rlim_cur > 128 ? (int64_t)limit.rlim_cur - 64 : (int64_t)limit.rlim_cur / 2;
}

static void rp_desc_fill(rtpush_desc *d) {
#define RP_DEFAULT(field, value) \
    if (!d->field) d->field = (value);
    RP_DEFAULTS(RP_DEFAULT)
#undef RP_DEFAULT
    if (!d->slow) d->slow = RTPUSH_SLOW_CLOSE;
    if (d->connections_max <= 0) d->connections_max = rp_connections_default();
    d->session_topics_max = RP_MIN(RP_MAX(d->session_topics_max, (int64_t)1), (int64_t)RP_NAMES_MAX - 1);
    d->headers_max = RP_MIN(d->headers_max, (int64_t)RTPUSH_HEADERS_MAX);
    d->message_max = RP_MIN(RP_MAX(d->message_max, (int64_t)1), (int64_t)1 << 30); // a size is kept in 32 bits
    d->body_max = RP_MIN(RP_MAX(d->body_max, (int64_t)0), (int64_t)1 << 30);
    d->line_max = RP_MIN(RP_MAX(d->line_max, (int64_t)64), (int64_t)1 << 20);
    d->head_max = RP_MIN(RP_MAX(d->head_max, d->line_max), (int64_t)1 << 20);
    d->input_per_turn = RP_MAX(d->input_per_turn, (int64_t)1);
    d->writes_per_turn = RP_MIN(RP_MAX(d->writes_per_turn, (int64_t)1), (int64_t)UINT32_MAX);
    d->accepts_per_turn = RP_MAX(d->accepts_per_turn, (int64_t)1);
    d->ring_max = RP_MAX(d->ring_max, (int64_t)1024);
    d->presence_ms = RP_MAX(d->presence_ms, (int64_t)1);
    d->history_total_bytes = RP_MAX(d->history_total_bytes, (int64_t)0);
}

static char *rp_desc_text(rp_mem *mem, const char *text, bool *failed) {
    char *copy = text ? rp_mem_text(mem, rp_slice_of(text)) : NULL;
    *failed |= text && !copy;
    return copy;
}

// The desc's strings become the hub's own; the mount loses its last slash.
static bool rp_hub_take_desc(rtpush_hub *hub, const rtpush_desc *desc) {
    bool failed = false;
    hub->desc = *desc;
    rp_desc_fill(&hub->desc);
    char *mount = rp_desc_text(&hub->mem, desc->mount ? desc->mount : "/live", &failed);
    if (mount && *mount && mount[strlen(mount) - 1] == '/') mount[strlen(mount) - 1] = 0;
    hub->desc.mount = mount;
    hub->desc.origin = rp_desc_text(&hub->mem, desc->origin, &failed);
    hub->desc.listen = NULL;
    return !failed;
}

static int rp_server_open(rtpush_hub *hub) {
    rp_mem *mem = &hub->mem;
    const rtpush_desc *d = &hub->desc;
    rp_server *server = (rp_server *)rp_mem_get(mem, sizeof *server);
    if (!server) return RTPUSH_E_MEMORY;
    hub->server = server;
    server->wake.read_fd = server->wake.write_fd = server->spare_fd = -1;
#ifndef RTPUSH_NO_THREADS
    pthread_mutex_init(&server->lock, NULL);
#endif
    rp_slab_init(&server->conns, mem, sizeof(rp_conn));
    rp_slab_init(&server->streams, mem, sizeof(rp_stream));
    rp_slab_init(&server->timers, mem, sizeof(rp_host_timer));
    server->accept_again.fire = rp_accept_again;
    server->drain_timer.fire = rp_drain_cut;
    server->leave_timer.fire = rp_drain_leave;
    server->date_second = -1;
    server->input_cap = (size_t)(d->head_max + RP_MAX(d->input_per_turn, (int64_t)RP_RECORD)) + 1024;
    server->input = (char *)rp_mem_get(mem, server->input_cap);
    server->names_text = (char *)rp_mem_get(mem, (size_t)d->line_max + 2);
    server->path_text = (char *)rp_mem_get(mem, (size_t)d->line_max + 2);
    server->token_text = (char *)rp_mem_get(mem, (size_t)d->line_max + 2);
    if (!server->input || !server->names_text || !server->path_text || !server->token_text || !rp_table_init(mem, &server->ips)) return RTPUSH_E_MEMORY;
    server->backend = d->backend ? d->backend : rp_backend_find(d->backend_name);
    if (!server->backend) return RTPUSH_E_BACKEND;
    server->state = server->backend->open(server->backend->user);
    server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (!server->state || rp_wake_open(&server->wake)) return RTPUSH_E_SYSTEM;
    return server->backend->watch(server->state, server->wake.read_fd, RP_TAG_WAKE, 0, RTPUSH_READ) ? RTPUSH_E_SYSTEM : RTPUSH_OK;
}

// A bus that has not all of its log yet is waited for. What runs inside destroys nothing.
static int rp_hub_load(rtpush_hub *hub) {
    hub->server->depth++;
    while (hub->is_loading && !hub->load_code) rp_server_turn(hub, rp_server_timeout(hub));
    hub->server->depth--;
    return hub->load_code;
}

static int rp_hub_open(rtpush_hub *hub, const rtpush_desc *desc) {
    rp_mem *mem = &hub->mem;
    if (!rp_hub_take_desc(hub, desc)) return RTPUSH_E_MEMORY;
    if (hub->sys.random(hub->sys.user, &hub->hash_key, sizeof hub->hash_key) || !rp_hub_random_epoch(hub, hub->log.epoch)) return RTPUSH_E_SYSTEM;
    memcpy(&hub->jitter, &hub->hash_key, sizeof hub->jitter);
    hub->log.mem = mem;
#ifdef RP_CREW
    hub->log.shares = desc->threads > 1;
#endif
    hub->quiet.quiet_next = hub->quiet.quiet_prev = &hub->quiet;
    rp_wheel_init(&hub->wheel, hub->sys.now_ms(hub->sys.user));
    bool is_ready = rp_table_init(mem, &hub->names) && rp_table_init(mem, &hub->dead);
    if (!is_ready || !rp_outbox_open(hub) || !rp_people_open(hub)) return RTPUSH_E_MEMORY;
    int code = rp_server_open(hub);
    for (const rtpush_rule *rule = desc->rules; !code && rule && rule->pattern; rule++) code = rp_rule_add(hub, rule->pattern, &rule->desc);
    if (!code && desc->bus && desc->bus->open) code = desc->bus->open(desc->bus->user, hub);
    return code ? code : rp_hub_load(hub);
}

// All of a hub but its listener and its crew. NULL: *code says why.
static rtpush_hub *rp_hub_make(const rtpush_desc *desc, int *code) {
    rp_mem mem;
    mem.alloc = desc->alloc ? desc->alloc : rp_mem_default;
    mem.user = desc->alloc_user;
    mem.failed = 0;
    rtpush_hub *hub = (rtpush_hub *)rp_mem_get(&mem, sizeof *hub);
    *code = RTPUSH_E_MEMORY;
    if (!hub) {
        if (desc->bus && desc->bus->close) desc->bus->close(desc->bus->user, NULL);
        return NULL;
    }
    hub->mem = mem;
    hub->last_error = "";
    rp_sys_merge(&hub->sys, desc->sys);
    *code = rp_hub_open(hub, desc);
    if (!*code) return hub;
    rp_hub_free(hub);
    return NULL;
}

// Around what may run callbacks, from outside of a turn too.
static void rp_hub_enter(rtpush_hub *hub) { hub->server->depth++; }

// false: the hub was destroyed inside, and is gone.
static bool rp_hub_exit(rtpush_hub *hub) {
    if (--hub->server->depth || !hub->server->is_doomed) return true;
    rp_hub_free(hub);
    return false;
}

// A turn. RTPUSH_E_STATE: it was stopped, is over, or is gone.
static int rp_hub_step(rtpush_hub *hub, int timeout_ms) {
    rp_server *server = hub->server;
    if (server->is_over || server->is_in_step) return RTPUSH_E_STATE;
    if (RP_ATOMIC_READ(&server->is_stopped)) { RP_ATOMIC_WRITE(&server->is_stopped, 0); return RTPUSH_E_STATE; }
    int own = rp_server_timeout(hub);
    if (timeout_ms < 0 || (own >= 0 && own < timeout_ms)) timeout_ms = own;
    rp_hub_enter(hub);
    server->is_in_step = true;
    rp_server_turn(hub, timeout_ms);
    server->is_in_step = false;
#ifdef RTPUSH_DEBUG
    const char *wrong = rp_check_all(hub);
    if (wrong) rp_hub_log(hub, "invariant broken: %s", wrong);
    RTPUSH_ASSERT(!wrong);
#endif
    server->is_over = server->is_draining && !server->conns.live && (!hub->hooks || hub->hooks->is_over(hub));
    return rp_hub_exit(hub) ? RTPUSH_OK : RTPUSH_E_STATE;
}
#endif // RP_SERVER

// ============================================================================
// >>crew  desc.threads loops in one process, each with its own hub  (uses: create, server, registry, await)
//
// The first hub, the leader, has the log, its own or a bus's. What comes into it goes into
// a list, too, in the same order; the other loops follow that list, each at its own pace,
// and hand the leader what their clients publish. Large messages are in memory once for
// all; readers, spellings, timers and callbacks are of one loop alone. The leader accepts,
// and deals connections round.
// ============================================================================
#ifdef RP_CREW
enum { RP_LOOPS_MAX = 64, RP_LETTERS_MAX = 4194304 };

// What came into the log; what the message points to follows.
typedef struct rp_item {
    struct rp_item *next;
    uint32_t refs; // loops that have not passed it
    enum rp_item_type type;
    size_t total;
    rp_shared *shared; // where the data is, if not behind it
    rtpush_message m;
} rp_item;

typedef struct rp_loop {
    rtpush_bus bus;
    struct rp_crew *crew;
    rtpush_hub *hub;
    rp_item *at;  // the last that it passed
    bool is_awake; // it will look
    char life[RP_TOPIC_MAX];
    rp_fetches fetches; // what it waits for
    rp_timer patience;  // and not for ever
    pthread_t thread;
} rp_loop;

// How many read a name, over all loops.
typedef struct rp_audience {
    rp_node node;
    size_t count, size;
    char name[1];
} rp_audience;

typedef struct rp_crew {
    pthread_mutex_t lock; // of all below but `loops` and `hash_key`, which do not change
    pthread_cond_t changed;
    rp_mem mem;
    rp_hash_key hash_key;
    uint32_t count, running, next; // next: who gets the next connection
    bool is_ending;
    bool is_told;          // the others were woken since something was added; the leader's alone
    rp_item *first, *last;
    size_t bytes, letters; // of items; of letters to the leader
    uint64_t connections;
    rp_table audiences;
    rtpush_stats *stats;
    uint32_t called;       // loops that have not answered rp_crew_call
    int code;
    rp_loop loops[1];
} rp_crew;

static rp_loop *rp_hub_loop(const rtpush_hub *hub) { return &hub->crew->loops[hub->loop]; }

// --- the list ---

static void rp_item_free(rp_item *item) {
    rp_shared_drop(item->shared);
    RTPUSH_FREE(item);
}

static void rp_item_release(rp_crew *crew, rp_item *item) {
    pthread_mutex_lock(&crew->lock);
    bool is_last = !--item->refs;
    if (is_last) {
        crew->bytes -= item->total;
        crew->first = item->next; // each loop goes in order, so they end in order
    }
    pthread_mutex_unlock(&crew->lock);
    if (is_last) rp_item_free(item);
}

// A message of the log, by its seq; NULL: no message has it.
static const rp_msg *rp_log_find(const rp_log *log, uint64_t seq) {
    uint32_t i = seq ? rp_log_after(log, seq - 1) : log->spine_end;
    return i < log->spine_end && log->spine[i].seq == seq ? log->spine[i].msg : NULL;
}

// A copy of what is told, but for bytes that the leader's log shares.
static rp_item *rp_item_new(rtpush_hub *hub, enum rp_item_type type, const rtpush_message *m) {
    bool is_message = type == RP_ITEM_MESSAGE || type == RP_ITEM_PAST;
    const rp_msg *kept = is_message ? rp_log_find(&hub->log, m->seq) : NULL;
    rp_shared *shared = kept ? kept->as[RP_RAW].block->shared : NULL;
    size_t topic = strlen(m->topic) + 1, event = strlen(m->event) + 1, size = sizeof(rp_item) + topic + event + (shared ? 0 : m->size);
    rp_item *item = (rp_item *)RTPUSH_REALLOC(NULL, size);
    if (!item) return NULL;
    item->next = NULL;
    item->refs = hub->crew->count - 1;
    item->type = type;
    item->total = sizeof(rp_item) + topic + event + m->size;
    item->shared = rp_shared_hold(shared);
    item->m = *m;
    if (type != RP_ITEM_PAST) item->m.time_ms = 0; // each loop's own clock counts
    char *to = (char *)(item + 1);
    item->m.topic = (const char *)memcpy(to, m->topic, topic);
    item->m.event = (const char *)memcpy(to + topic, m->event, event);
    item->m.data = shared ? rp_msg_data(kept) : to + topic + event;
    if (m->size && !shared) memcpy(to + topic + event, m->data, m->size);
    return item;
}

// The leader's log has something new. Without memory, or with a loop that is too far behind, it is left out: who
// follows sees the hole, and tells a gap.
static bool rp_crew_tap(rtpush_hub *hub, enum rp_item_type type, const rtpush_message *m) {
    rp_crew *crew = hub->crew;
    rp_item *item = hub->loop ? NULL : rp_item_new(hub, type, m);
    if (!item) return false;
    pthread_mutex_lock(&crew->lock);
    bool has_room = crew->bytes <= (uint64_t)hub->desc.history_total_bytes;
    if (has_room) {
        crew->last->next = item;
        RP_ATOMIC_WRITE(&crew->last, item);
        crew->bytes += item->total;
    }
    pthread_mutex_unlock(&crew->lock);
    crew->is_told &= !has_room; // the leader's alone
    if (!has_room) rp_item_free(item);
    return has_room;
}

// A loop waits for what the leader holds of a topic: it goes into the list once more, and that it is all of it.
static void rp_crew_past(rtpush_hub *hub, const char *topic) {
    rp_topic *t = rp_hub_find_topic(hub, rp_slice_of(topic));
    bool is_whole = t && t->is_whole;
    for (uint32_t i = 0; is_whole && i < t->count; i++) {
        rtpush_message m = rp_msg_view(rp_topic_at(t, i), hub->wheel.now, rp_hub_wall(hub));
        is_whole = m.ephemeral || rp_crew_tap(hub, RP_ITEM_PAST, &m);
    }
    uint32_t most = is_whole ? t->keep.count : 0;
    rp_hub_tap_other(hub, RP_ITEM_WHOLE, is_whole, topic, "", rp_slice(&most, sizeof most), is_whole ? t->source.evicted : 0);
}

// At the end of the leader's turn, so that the others find all of it.
static void rp_crew_wake(rtpush_hub *hub) {
    rp_crew *crew = hub->crew;
    if (hub->loop || crew->is_told) return;
    crew->is_told = true;
    for (uint32_t i = 1; i < crew->count; i++) {
        pthread_mutex_lock(&crew->lock);
        bool was_awake = crew->loops[i].is_awake;
        crew->loops[i].is_awake = true;
        pthread_mutex_unlock(&crew->lock);
        if (!was_awake) rp_wake_up(&crew->loops[i].hub->server->wake);
    }
}

static void rp_loop_whole(rp_loop *loop, rp_fetch *fetch, const rtpush_message *m) {
    memcpy(&fetch->most, m->data, sizeof fetch->most);
    fetch->lost = m->seq;
    rp_fetch_end(&loop->fetches, fetch, m->kind != 0);
}

static int rp_loop_apply(rtpush_hub *hub, const rp_item *item) {
    const rtpush_message *m = &item->m;
    rp_loop *loop = rp_hub_loop(hub);
    rp_fetch *fetch = item->type < RP_ITEM_PAST ? NULL : *rp_fetch_find(&loop->fetches, rp_slice_of(m->topic));
    bool has_seq = item->type == RP_ITEM_MESSAGE || item->type == RP_ITEM_WORD;
    if (has_seq && m->seq > hub->log.head + 1) rtpush_bus_start(hub, hub->log.epoch, m->seq - 1);
    switch (item->type) {
    case RP_ITEM_MESSAGE: return rtpush_bus_deliver(hub, m);
    case RP_ITEM_CLEAR: return rtpush_bus_clear(hub, m->topic, m->seq);
    case RP_ITEM_WORD: return rp_registry_hear(hub, (char)m->kind, m->event, m->topic, rp_slice(m->data, m->size), m->seq);
    case RP_ITEM_RESTART: rp_registry_forget(hub); return rtpush_bus_start(hub, m->event, m->seq);
    case RP_ITEM_PAST: if (fetch) rp_fetch_put(&loop->fetches, fetch, m); break;
    case RP_ITEM_WHOLE: if (fetch) rp_loop_whole(loop, fetch, m); break;
    }
    return RTPUSH_OK;
}

// Takes what the list has. What the loop cannot hold for want of memory it tries again.
static void rp_loop_turn(void *user, rtpush_hub *hub) {
    rp_loop *loop = (rp_loop *)user;
    rp_crew *crew = loop->crew;
    pthread_mutex_lock(&crew->lock);
    rp_item *last = crew->last;
    loop->is_awake = false;
    pthread_mutex_unlock(&crew->lock);
    while (loop->at != last) {
        rp_item *next = loop->at->next;
        hub->log.arriving = next->shared;
        int code = rp_loop_apply(hub, next);
        hub->log.arriving = NULL;
        if (code == RTPUSH_E_MEMORY) { rtpush_bus_wake(hub); return; }
        rp_item_release(crew, loop->at);
        loop->at = next;
    }
}

static bool rp_crew_is_behind(const rtpush_hub *hub) { return hub->loop && rp_hub_loop(hub)->at != RP_ATOMIC_READ(&hub->crew->last); }

// --- publishing: by the leader ---

// To the leader and back. Behind it: topic, event, key, identity, each with its NUL; data.
typedef struct rp_errand {
    rtpush_hub *from;
    rp_posted *back;
    uint64_t ticket, seq;
    int code, kind;
    bool is_ephemeral, is_clear, has_key;
    size_t sizes[4], size;
} rp_errand;

// So many bytes are no longer on their way to the leader.
static void rp_crew_unload(rp_crew *crew, size_t size) {
    pthread_mutex_lock(&crew->lock);
    crew->letters -= size;
    pthread_mutex_unlock(&crew->lock);
}

static void rp_errand_free(rp_crew *crew, rp_errand *errand) {
    rp_crew_unload(crew, errand->size);
    RTPUSH_FREE(errand->back);
    RTPUSH_FREE(errand);
}

static void rp_errand_home(rtpush_hub *hub, void *arg) {
    rp_errand *errand = (rp_errand *)arg;
    rp_publish_end(hub, errand->ticket, errand->seq, errand->code);
    rp_errand_free(hub->crew, errand);
}

static void rp_errand_done(rtpush_hub *hub, uint64_t ticket, uint64_t seq, int code, void *user) {
    rp_errand *errand = (rp_errand *)user;
    rp_posted *back = errand->back;
    (void)ticket;
    if (!hub->crew) { // the other loops have ended
        RTPUSH_FREE(back);
        RTPUSH_FREE(errand);
        return;
    }
    errand->seq = seq;
    errand->code = code;
    errand->back = NULL;
    if (rp_posted_push(errand->from, back, rp_errand_home, errand)) return;
    errand->back = back; // the loop has ended
    rp_errand_free(hub->crew, errand);
}

static void rp_errand_run(rtpush_hub *hub, void *arg) {
    rp_errand *errand = (rp_errand *)arg;
    const char *at = (const char *)(errand + 1), *texts[4];
    rtpush_publication what;
    for (unsigned i = 0; i < 4; at += errand->sizes[i++]) texts[i] = at;
    memset(&what, 0, sizeof what);
    what.topic = texts[0];
    what.event = texts[1];
    what.key = errand->has_key ? texts[2] : NULL;
    what.identity = texts[3];
    what.data = at;
    what.size = errand->size;
    what.kind = errand->kind;
    what.ephemeral = errand->is_ephemeral;
    what.clear = errand->is_clear;
    what.done = rp_errand_done;
    what.done_user = errand;
    int code = rp_publish(hub, &what, NULL);
    if (code) rp_errand_done(hub, 0, 0, code, errand);
}

// What is posted and the errand itself are the system's memory: more than one thread has them.
static rp_errand *rp_errand_new(rtpush_hub *hub, const rtpush_publication *what, uint64_t ticket, rp_posted **there) {
    const char *texts[4] = {what->topic, what->event, what->key ? what->key : "", what->identity ? what->identity : ""};
    size_t sizes[4], size = sizeof(rp_errand) + what->size;
    for (unsigned i = 0; i < 4; i++) size += sizes[i] = strlen(texts[i]) + 1;
    rp_errand *errand = (rp_errand *)RTPUSH_REALLOC(NULL, size);
    rp_posted *back = (rp_posted *)RTPUSH_REALLOC(NULL, sizeof *back);
    *there = (rp_posted *)RTPUSH_REALLOC(NULL, sizeof **there);
    if (!errand || !back || !*there) {
        RTPUSH_FREE(errand);
        RTPUSH_FREE(back);
        RTPUSH_FREE(*there);
        return NULL;
    }
    memset(errand, 0, sizeof *errand);
    errand->from = hub;
    errand->back = back;
    errand->ticket = ticket;
    errand->kind = what->kind;
    errand->is_ephemeral = what->ephemeral;
    errand->is_clear = what->clear;
    errand->has_key = what->key != NULL;
    errand->size = what->size;
    memcpy(errand->sizes, sizes, sizeof sizes);
    char *to = (char *)(errand + 1);
    for (unsigned i = 0; i < 4; to += sizes[i++]) memcpy(to, texts[i], sizes[i]);
    if (what->size) memcpy(to, what->data, what->size);
    return errand;
}

static int rp_loop_append(void *user, rtpush_hub *hub, const rtpush_publication *what, uint64_t ticket) {
    rp_crew *crew = ((rp_loop *)user)->crew;
    rp_posted *there;
    pthread_mutex_lock(&crew->lock);
    bool is_full = crew->letters && crew->letters + what->size > RP_LETTERS_MAX;
    if (!is_full) crew->letters += what->size;
    pthread_mutex_unlock(&crew->lock);
    if (is_full) return RTPUSH_E_UNAVAILABLE;
    rp_errand *errand = rp_errand_new(hub, what, ticket, &there);
    if (errand && rp_posted_push(crew->loops[0].hub, there, rp_errand_run, errand)) return RTPUSH_OK;
    if (errand) RTPUSH_FREE(there), rp_errand_free(crew, errand);
    else rp_crew_unload(crew, what->size);
    return errand ? RTPUSH_E_UNAVAILABLE : RTPUSH_E_MEMORY;
}

// --- older messages: from the leader ---

// The leader fetches what a loop asks for, or has it. Without hooks the other loops have ended.
static void rp_want_run(rtpush_hub *hub, void *arg) {
    rp_start start;
    const char *topic = (const char *)arg;
    memset(&start, 0, sizeof start);
    start.kind = RP_START_EARLIEST;
    if (hub->hooks && !hub->fetch(hub, rp_slice_of(topic), &start, 0, NULL)) rp_crew_past(hub, topic);
    RTPUSH_FREE(arg);
}

static bool rp_loop_want(rtpush_hub *hub, const char *topic) {
    void *text = RTPUSH_REALLOC(NULL, strlen(topic) + 1);
    if (!text) return false;
    memcpy(text, topic, strlen(topic) + 1);
    if (!rp_posted_send(hub->crew->loops[0].hub, rp_want_run, text)) return true;
    RTPUSH_FREE(text);
    return false;
}

// The leader owes an answer; without memory, or at the end, there is none.
static void rp_loop_give_up(rtpush_hub *hub, rp_timer *timer) {
    rp_loop *loop = RP_OWNER(rp_loop, patience, timer);
    while (loop->fetches.first && hub->wheel.now >= loop->fetches.first->until) rp_fetch_end(&loop->fetches, loop->fetches.first, false);
    if (loop->fetches.first) rp_timer_start(&hub->wheel, timer, loop->fetches.first->until);
}

static bool rp_loop_fetch(rtpush_hub *hub, rtpush_slice name, const rp_start *start, uint64_t conn, const rtpush_slice *ref) {
    rp_loop *loop = rp_hub_loop(hub);
    bool is_new;
    if (!rp_fetch_is_wanted(hub, name, start)) return false;
    rp_fetch *fetch = rp_fetch_wait(&loop->fetches, name, start, conn, ref, &is_new);
    if (!fetch || !is_new) return fetch != NULL;
    fetch->until += RP_FETCH_MS; // the leader waits, too
    if (!rp_loop_want(hub, fetch->topic)) { rp_fetch_free(&loop->fetches, fetch); return false; }
    if (loop->fetches.first == fetch) rp_timer_start(&hub->wheel, &loop->patience, fetch->until);
    return true;
}

static void rp_loop_close(void *user, rtpush_hub *hub) {
    rp_loop *loop = (rp_loop *)user;
    if (!hub || !loop->fetches.hub) return;
    while (loop->fetches.first) rp_fetch_free(&loop->fetches, loop->fetches.first);
    rp_timer_stop(&hub->wheel, &loop->patience);
}

// --- who is where ---

typedef struct rp_word {
    size_t life, topic, size;
} rp_word;

// The leader tells the log for a loop.
static void rp_word_run(rtpush_hub *hub, void *arg) {
    rp_word *word = (rp_word *)arg;
    const char *life = (const char *)(word + 1), *topic = life + word->life;
    rtpush_slice changes = rp_slice(topic + word->topic, word->size);
    int code = hub->registry->tell(hub, life, topic, changes);
    if (code) rp_hub_log(hub, "presence: %s", rtpush_strerror(code));
    RTPUSH_FREE(word);
}

static int rp_loop_announce(rtpush_hub *hub, const char *own, const char *topic, rtpush_slice changes) {
    size_t life = strlen(own) + 1, size = strlen(topic) + 1;
    rp_word *word = (rp_word *)RTPUSH_REALLOC(NULL, sizeof *word + life + size + changes.size);
    if (!word) return RTPUSH_E_MEMORY;
    word->life = life;
    word->topic = size;
    word->size = changes.size;
    memcpy(word + 1, own, life);
    memcpy((char *)(word + 1) + life, topic, size);
    if (changes.size) memcpy((char *)(word + 1) + life + size, changes.data, changes.size);
    if (!rp_posted_send(hub->crew->loops[0].hub, rp_word_run, word)) return RTPUSH_OK;
    RTPUSH_FREE(word);
    return RTPUSH_E_MEMORY;
}

// The leader's own way where there is no bus: its log takes the word at once.
static int rp_leader_announce(rtpush_hub *hub, const char *life, const char *topic, rtpush_slice changes) {
    return rp_registry_hear(hub, 'p', life, topic, changes, hub->log.head + 1);
}

// --- audiences, figures, connections ---

static rp_audience *rp_audience_find(const rp_crew *crew, rtpush_slice name) {
    uint64_t hash = rp_hash(&crew->hash_key, name.data, name.size);
    rp_node *node = rp_table_first(&crew->audiences, hash);
    for (; node; node = rp_table_same(node->next, hash)) {
        rp_audience *audience = RP_OWNER(rp_audience, node, node);
        if (audience->size == name.size && !memcmp(audience->name, name.data, name.size)) return audience;
    }
    return NULL;
}

static void rp_crew_subscribed(rtpush_hub *hub, const rp_source *s, int by) {
    rp_crew *crew = hub->crew;
    rtpush_slice name = rp_source_name(s);
    pthread_mutex_lock(&crew->lock);
    rp_audience *audience = rp_audience_find(crew, name);
    if (!audience && by > 0 && (audience = (rp_audience *)rp_mem_get(&crew->mem, sizeof *audience + name.size)) != NULL) {
        memcpy(audience->name, name.data, name.size);
        audience->size = name.size;
        rp_table_add(&crew->mem, &crew->audiences, &audience->node, rp_hash(&crew->hash_key, name.data, name.size));
    }
    if (audience) audience->count += (size_t)(ptrdiff_t)by;
    if (audience && !audience->count) {
        rp_table_remove(&crew->audiences, &audience->node);
        rp_mem_free(&crew->mem, audience);
    }
    pthread_mutex_unlock(&crew->lock);
}

static size_t rp_crew_subscribers(rtpush_hub *hub, rtpush_slice name) {
    rp_crew *crew = hub->crew;
    size_t count = 0;
    pthread_mutex_lock(&crew->lock);
    for (rp_node *node = rp_table_next(&crew->audiences, NULL); node; node = rp_table_next(&crew->audiences, node)) {
        const rp_audience *audience = RP_OWNER(rp_audience, node, node);
        if (rp_topic_matches(rp_slice(audience->name, audience->size), name)) count += audience->count;
    }
    pthread_mutex_unlock(&crew->lock);
    return count;
}

// All loops' figures; those of the log are the leader's, since each loop has a copy of it.
static void rp_crew_gather(rtpush_hub *hub, rtpush_stats *n) {
    rp_crew *crew = hub->crew;
    rtpush_stats sum;
    memset(&sum, 0, sizeof sum);
    pthread_mutex_lock(&crew->lock);
    crew->stats[hub->loop] = *n;
    for (uint32_t i = 0; i < crew->count; i++) {
#define RP_ADD(name, type, help) sum.name += crew->stats[i].name;
        RTPUSH_STATS(RP_ADD)
#undef RP_ADD
    }
    sum.published = crew->stats[0].published;
    sum.topics = crew->stats[0].topics;
    sum.messages_held = crew->stats[0].messages_held;
    sum.evicted = crew->stats[0].evicted;
    pthread_mutex_unlock(&crew->lock);
    *n = sum;
}

static void rp_crew_note(rtpush_hub *hub, const rtpush_stats *n) {
    pthread_mutex_lock(&hub->crew->lock);
    hub->crew->stats[hub->loop] = *n;
    pthread_mutex_unlock(&hub->crew->lock);
}

static uint64_t rp_crew_connected(rtpush_hub *hub, int by) {
    pthread_mutex_lock(&hub->crew->lock);
    uint64_t count = hub->crew->connections += (uint64_t)(int64_t)by;
    pthread_mutex_unlock(&hub->crew->lock);
    return count;
}

typedef struct rp_dealt {
    int fd;
    rtpush_peer peer;
    bool is_tls;
} rp_dealt;

static void rp_dealt_take(rtpush_hub *hub, void *arg) {
    rp_dealt *dealt = (rp_dealt *)arg;
    rp_accept_one(hub, dealt->fd, &dealt->peer, dealt->is_tls);
    RTPUSH_FREE(dealt);
}

// A connection goes to the next loop. false: it is ours.
static bool rp_crew_deal(rtpush_hub *hub, int fd, const rtpush_peer *peer, bool is_tls) {
    rp_crew *crew = hub->crew;
    bool is_counted = hub->desc.connections_per_ip_max > 0; // those of one address are counted by one loop
    uint32_t to = (is_counted ? (uint32_t)rp_hash(&crew->hash_key, peer->addr, sizeof peer->addr) : crew->next++) % crew->count;
    rp_dealt *dealt = to ? (rp_dealt *)RTPUSH_REALLOC(NULL, sizeof *dealt) : NULL;
    if (!dealt) return false;
    dealt->fd = fd;
    dealt->peer = *peer;
    dealt->is_tls = is_tls;
    if (!rp_posted_send(crew->loops[to].hub, rp_dealt_take, dealt)) return true;
    RTPUSH_FREE(dealt);
    return false;
}

// --- the leader asks all ---

typedef struct rp_call {
    rp_posted posted;
    int (*fn)(rtpush_hub *hub, void *arg);
    void *arg;
    rp_crew *crew;
} rp_call;

static void rp_call_run(rtpush_hub *hub, void *arg) {
    rp_call *call = (rp_call *)arg;
    rp_crew *crew = call->crew;
    int code = call->fn(hub, call->arg);
    pthread_mutex_lock(&crew->lock);
    if (code) crew->code = code;
    crew->called--;
    pthread_cond_broadcast(&crew->changed);
    pthread_mutex_unlock(&crew->lock);
}

// Runs fn in every other loop, and waits. 0, or one of their codes.
static int rp_crew_call(rtpush_hub *hub, int (*fn)(rtpush_hub *hub, void *arg), void *arg) {
    rp_crew *crew = hub->crew;
    if (!crew || hub->loop) return RTPUSH_OK;
    crew->code = RTPUSH_OK;
    for (uint32_t i = 1; i < crew->count; i++) {
        rp_call *call = (rp_call *)RTPUSH_REALLOC(NULL, sizeof *call); // freed as a posted one
        if (!call) return RTPUSH_E_MEMORY;
        call->fn = fn;
        call->arg = arg;
        call->crew = crew;
        pthread_mutex_lock(&crew->lock);
        crew->called++;
        pthread_mutex_unlock(&crew->lock);
        if (!rp_posted_push(crew->loops[i].hub, &call->posted, rp_call_run, call)) {
            crew->called--;
            RTPUSH_FREE(call);
            continue;
        }
        pthread_mutex_lock(&crew->lock);
        while (crew->called) pthread_cond_wait(&crew->changed, &crew->lock);
        pthread_mutex_unlock(&crew->lock);
    }
    return crew->code;
}

// --- beginning and end ---

// Until the leader is destroyed; when its drain is over the loop only waits for that.
static void *rp_loop_run(void *arg) {
    rp_loop *loop = (rp_loop *)arg;
    rp_crew *crew = loop->crew;
    bool is_over = false;
    while (!is_over) {
        rp_hub_step(loop->hub, -1);
        pthread_mutex_lock(&crew->lock);
        is_over = crew->is_ending || loop->hub->server->is_over;
        pthread_mutex_unlock(&crew->lock);
    }
    pthread_mutex_lock(&crew->lock);
    crew->running--;
    pthread_mutex_unlock(&crew->lock);
    rp_wake_up(&crew->loops[0].hub->server->wake);
    pthread_mutex_lock(&crew->lock);
    while (!crew->is_ending) pthread_cond_wait(&crew->changed, &crew->lock);
    pthread_mutex_unlock(&crew->lock);
    return NULL;
}

static bool rp_crew_is_over(rtpush_hub *hub) {
    pthread_mutex_lock(&hub->crew->lock);
    bool is_over = hub->loop || !hub->crew->running;
    pthread_mutex_unlock(&hub->crew->lock);
    return is_over;
}

static void rp_crew_free(rp_crew *crew) {
    for (rp_item *item = crew->first, *next; item; item = next) {
        next = item->next;
        rp_item_free(item);
    }
    for (rp_node *node; crew->audiences.slots && (node = rp_table_next(&crew->audiences, NULL)) != NULL;) {
        rp_table_remove(&crew->audiences, node);
        rp_mem_free(&crew->mem, RP_OWNER(rp_audience, node, node));
    }
    rp_mem_free(&crew->mem, crew->audiences.slots);
    rp_mem_free(&crew->mem, crew->stats);
    pthread_cond_destroy(&crew->changed);
    pthread_mutex_destroy(&crew->lock);
    rp_mem_free(&crew->mem, crew);
}

// With the leader, before anything of it goes.
static void rp_crew_end(rtpush_hub *hub) {
    rp_crew *crew = hub->crew;
    if (hub->loop) return;
    pthread_mutex_lock(&crew->lock);
    crew->is_ending = true;
    pthread_cond_broadcast(&crew->changed);
    pthread_mutex_unlock(&crew->lock);
    for (uint32_t i = 1; i < crew->count; i++) {
        if (!crew->loops[i].hub) continue;
        rp_wake_up(&crew->loops[i].hub->server->wake);
        pthread_join(crew->loops[i].thread, NULL);
    }
    for (uint32_t i = 1; i < crew->count; i++)
        if (crew->loops[i].hub) rp_hub_free(crew->loops[i].hub); // nobody posts to it any more
    hub->hooks = NULL;
    hub->crew = NULL;
    rp_crew_free(crew);
}

static const rp_hooks rp_crew_hooks = {rp_crew_tap, rp_crew_wake, rp_crew_is_behind, rp_crew_subscribed, rp_crew_subscribers,
                                       rp_crew_gather, rp_crew_note, rp_crew_connected, rp_crew_deal, rp_crew_is_over, rp_crew_past, rp_crew_end};

// A new loop begins with all that the leader has.
static int rp_loop_open(void *user, rtpush_hub *hub) {
    rp_loop *loop = (rp_loop *)user;
    const rtpush_hub *leader = loop->crew->loops[0].hub;
    int code = rtpush_bus_start(hub, leader->log.epoch, leader->log.floor);
    hub->log.shares = true;
    for (uint32_t i = leader->log.spine_first; i < leader->log.spine_end && !code; i++) {
        if (!leader->log.spine[i].msg || leader->log.spine[i].msg->is_ephemeral) continue;
        rtpush_message m = rp_msg_view(leader->log.spine[i].msg, leader->wheel.now, rp_hub_wall(hub));
        hub->log.arriving = leader->log.spine[i].msg->as[RP_RAW].block->shared;
        code = rtpush_bus_deliver(hub, &m);
    }
    hub->log.arriving = NULL;
    hub->log.safe = hub->log.head = leader->log.head;
    for (const rp_dead *dead = leader->dead_first; dead && !code; dead = dead->next) {
        rtpush_slice name = rp_slice(dead->name, dead->size);
        rp_dead_mark(hub, name, rp_hub_hash(hub, name), dead->evicted);
    }
    for (rp_node *node = rp_table_next(&leader->names, NULL); node && !code; node = rp_table_next(&leader->names, node)) {
        rp_source *s = RP_OWNER(rp_source, node, node);
        rp_topic *t = s->is_pattern ? NULL : rp_hub_topic(hub, rp_source_name(s), &code);
        if (t) rp_topic_lose(t, rp_source_lost(s));
    }
    return code ? code : rp_registry_open(hub, loop->life, rp_loop_announce);
}

static const rtpush_bus rp_loop_bus = {"loop", rp_loop_open, rp_loop_append, rp_loop_turn, rp_loop_close, NULL};

static int rp_loop_begin(rp_crew *crew, uint32_t i, const rtpush_desc *desc) {
    rp_loop *loop = &crew->loops[i];
    rtpush_desc own = *desc;
    sigset_t all, kept;
    int code;
    loop->crew = crew;
    loop->at = crew->last;
    loop->bus = rp_loop_bus;
    loop->bus.user = loop;
    own.bus = &loop->bus;
    own.listen = NULL;
    own.threads = 0;
    own.connections_max = crew->loops[0].hub->desc.connections_max;
    snprintf(loop->life, sizeof loop->life, "%.200s.%u", crew->loops[0].life, (unsigned)i);
    rtpush_hub *hub = rp_hub_make(&own, &code);
    if (!hub) return code;
    hub->crew = crew;
    hub->loop = i;
    hub->loops = crew->count;
    hub->hooks = &rp_crew_hooks;
    if (crew->loops[0].hub->fetch) hub->fetch = rp_loop_fetch;
    loop->fetches.hub = hub;
    loop->patience.fire = rp_loop_give_up;
    loop->hub = hub;
    crew->running++;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &kept);
    bool is_begun = !pthread_create(&loop->thread, NULL, rp_loop_run, loop);
    pthread_sigmask(SIG_SETMASK, &kept, NULL);
    if (is_begun) return RTPUSH_OK;
    crew->running--;
    loop->hub = NULL;
    hub->hooks = NULL;
    rp_hub_free(hub);
    return RTPUSH_E_SYSTEM;
}

static rp_crew *rp_crew_new(uint32_t count) {
    rp_mem mem;
    memset(&mem, 0, sizeof mem);
    mem.alloc = rp_mem_default;
    rp_crew *crew = (rp_crew *)rp_mem_get(&mem, sizeof *crew + count * sizeof(rp_loop));
    if (!crew) return NULL;
    crew->mem = mem;
    crew->count = count;
    crew->is_told = true;
    pthread_mutex_init(&crew->lock, NULL);
    pthread_cond_init(&crew->changed, NULL);
    crew->stats = (rtpush_stats *)rp_mem_get(&crew->mem, count * sizeof *crew->stats);
    crew->last = (rp_item *)RTPUSH_REALLOC(NULL, sizeof *crew->last);
    if (crew->last) memset(crew->last, 0, sizeof *crew->last), crew->last->refs = count - 1;
    crew->first = crew->last;
    crew->bytes = crew->last ? crew->last->total = sizeof *crew->last : 0;
    if (crew->stats && crew->last && rp_table_init(&crew->mem, &crew->audiences)) return crew;
    rp_crew_free(crew);
    return NULL;
}

// Makes a hub the leader of desc.threads loops. 0 or a code; then it is as before.
static int rp_crew_begin(rtpush_hub *hub, const rtpush_desc *desc) {
    uint32_t count = (uint32_t)RP_MIN(desc->threads, (int64_t)RP_LOOPS_MAX);
    rp_crew *crew = count > 1 ? rp_crew_new(count) : NULL;
    int code = RTPUSH_OK;
    if (count <= 1) return RTPUSH_OK;
    if (!crew) return RTPUSH_E_MEMORY;
    crew->hash_key = hub->hash_key;
    crew->loops[0].crew = crew;
    crew->loops[0].hub = hub;
    snprintf(crew->loops[0].life, sizeof crew->loops[0].life, "%s", hub->registry ? hub->registry->own : ":");
    if (!hub->registry) code = rp_registry_open(hub, crew->loops[0].life, rp_leader_announce);
    hub->crew = crew;
    hub->loops = crew->count;
    hub->hooks = &rp_crew_hooks;
    for (uint32_t i = 1; i < count && !code; i++) code = rp_loop_begin(crew, i, desc);
    if (code) rp_crew_end(hub);
    return code;
}
#endif // RP_CREW

// ============================================================================
// >>api  the public functions, from create to destroy  (uses: all above)
// ============================================================================
#ifdef RP_SERVER
// The hub that rtpush_create gave.
static rtpush_hub *rp_hub_leader(rtpush_hub *hub) {
#ifdef RP_CREW
    if (hub->crew) return hub->crew->loops[0].hub;
#endif
    return hub;
}

// The same in every other loop of the process, if hub is their leader.
static int rp_hub_call(rtpush_hub *hub, int (*fn)(rtpush_hub *hub, void *arg), void *arg) {
#ifdef RP_CREW
    return rp_crew_call(hub, fn, arg);
#else
    (void)hub, (void)fn, (void)arg;
    return RTPUSH_OK;
#endif
}

// --- create ---

RTPUSH_DEF rtpush_hub *rtpush_create_ex(const rtpush_desc *desc, int *code) {
    rtpush_hub *hub = rp_hub_make(desc, code);
#ifdef RP_CREW
    if (hub) *code = rp_crew_begin(hub, desc);
#endif
    if (hub && !*code && desc->listen) *code = rtpush_listen(hub, desc->listen, NULL);
    if (!hub || !*code) return hub;
    rp_hub_free(hub);
    return NULL;
}

RTPUSH_DEF rtpush_hub *rtpush_create(const rtpush_desc *desc) {
    int code;
    return rtpush_create_ex(desc, &code);
}

RTPUSH_DEF int rtpush_listen(rtpush_hub *hub, const char *url, int *port) {
    bool is_tls = !strncmp(url, "https://", 8);
    if (hub->server->is_draining) return rp_hub_error(hub, RTPUSH_E_STATE, url);
    if (is_tls && !hub->has_certificate) return rp_hub_error(hub, RTPUSH_E_TLS, "no certificate (rtpush_tls)");
    int fd = hub->sys.listen(hub->sys.user, url);
    if (fd == -EINVAL) return rp_hub_error(hub, RTPUSH_E_URL, url);
    if (fd == -EADDRINUSE) return rp_hub_error(hub, RTPUSH_E_IN_USE, url);
    if (fd < 0) return rp_hub_error(hub, RTPUSH_E_SYSTEM, strerror(-fd));
    if (port) {
        struct sockaddr_storage address;
        rtpush_peer peer;
        socklen_t size = sizeof address;
        memset(&address, 0, sizeof address);
        getsockname(fd, (struct sockaddr *)(void *)&address, &size);
        rp_peer_of(&peer, &address);
        *port = peer.port;
    }
    return rp_listener_add(hub, fd, strncmp(url, "unix:", 5) ? NULL : url + 5, is_tls);
}

RTPUSH_DEF int rtpush_adopt_listener(rtpush_hub *hub, int fd) {
    rp_fd_prepare(fd);
    return rp_listener_add(hub, fd, NULL, false);
}

RTPUSH_DEF int rtpush_adopt_tls_listener(rtpush_hub *hub, int fd) {
    if (!hub->has_certificate) return rp_hub_error(hub, RTPUSH_E_TLS, "no certificate (rtpush_tls)");
    rp_fd_prepare(fd);
    return rp_listener_add(hub, fd, NULL, true);
}

static int rp_tls_one(rtpush_hub *hub, void *arg) {
    const rtpush_tls_desc *desc = (const rtpush_tls_desc *)arg;
    const char *why = "";
    rp_tls_kit *kit = rp_tls_prepare(&hub->tls, &hub->mem, &hub->sys);
    int code = rp_tls_add(kit, desc->cert, desc->key, desc->client_ca, desc->client_optional, &why);
    if (!code) hub->has_certificate = true;
    return code ? rp_hub_error(hub, code, why) : RTPUSH_OK;
}

RTPUSH_DEF int rtpush_tls(rtpush_hub *hub, const rtpush_tls_desc *desc) {
    rtpush_tls_desc copy = *desc;
    if (!desc->cert) return rp_hub_error(hub, RTPUSH_E_ARGUMENT, "no certificate's file");
    int code = rp_tls_one(hub, &copy);
    return code ? code : rp_hub_call(hub, rp_tls_one, &copy);
}

static int rp_tls_reload_one(rtpush_hub *hub, void *arg) {
    const char *why = "";
    (void)arg;
    if (!hub->has_certificate) return RTPUSH_OK;
    int code = rp_tls_reload(hub->tls, &why);
    return code ? rp_hub_error(hub, code, why) : RTPUSH_OK;
}

RTPUSH_DEF int rtpush_tls_reload(rtpush_hub *hub) {
    int code = rp_tls_reload_one(hub, NULL);
    return code ? code : rp_hub_call(hub, rp_tls_reload_one, NULL);
}

RTPUSH_DEF int rtpush_adopt(rtpush_hub *hub, int fd) {
    rtpush_peer peer;
    memset(&peer, 0, sizeof peer);
    rp_fd_prepare(fd);
    return rp_conn_new(hub, fd, &peer, false) ? RTPUSH_OK : RTPUSH_E_MEMORY;
}

RTPUSH_DEF void rtpush_destroy(rtpush_hub *hub) {
    if (!hub) return;
    if (hub->server->depth) hub->server->is_doomed = true;
    else rp_hub_free(hub);
}

// --- running ---

RTPUSH_DEF int rtpush_timeout(rtpush_hub *hub) { return rp_server_timeout(hub); }

RTPUSH_DEF int rtpush_step(rtpush_hub *hub, int timeout_ms) { return rp_hub_step(hub, timeout_ms); }

RTPUSH_DEF int rtpush_run(rtpush_hub *hub) {
    while (!rtpush_step(hub, -1)) {}
    return RTPUSH_OK;
}

RTPUSH_DEF void rtpush_stop(rtpush_hub *hub) {
    hub = rp_hub_leader(hub);
    RP_ATOMIC_WRITE(&hub->server->is_stopped, 1);
    rp_wake_up(&hub->server->wake);
}

RTPUSH_DEF int rtpush_fd(rtpush_hub *hub) { return hub->server->backend->fd ? hub->server->backend->fd(hub->server->state) : -1; }

typedef struct rp_drain_call {
    int64_t spread_ms, deadline_ms;
} rp_drain_call;

static int rp_drain_one(rtpush_hub *hub, void *arg) {
    const rp_drain_call *call = (const rp_drain_call *)arg;
    rp_server *server = hub->server;
    if (server->is_draining) return RTPUSH_E_STATE;
    server->drain_spread = call->spread_ms > 0 ? (uint64_t)RP_MIN(call->spread_ms, (int64_t)UINT32_MAX) : call->spread_ms < 0 ? 0 : 3000;
    if (call->deadline_ms >= 0) rp_timer_start(&hub->wheel, &server->drain_timer, hub->wheel.now + (uint64_t)(call->deadline_ms ? call->deadline_ms : 10000));
    rp_server_drain(hub);
    return RTPUSH_OK;
}

RTPUSH_DEF int rtpush_drain(rtpush_hub *hub, int64_t spread_ms, int64_t deadline_ms) {
    rp_drain_call call;
    call.spread_ms = spread_ms;
    call.deadline_ms = deadline_ms;
    if (hub->loop) return RTPUSH_E_STATE;
    int code = rp_drain_one(hub, &call);
    return code ? code : rp_hub_call(hub, rp_drain_one, &call);
}

RTPUSH_DEF bool rtpush_is_draining(rtpush_hub *hub) { return hub->server->is_draining; }
RTPUSH_DEF const char *rtpush_last_error(rtpush_hub *hub) { return hub->last_error; }
RTPUSH_DEF void *rtpush_user(rtpush_hub *hub) { return hub->desc.user; }
RTPUSH_DEF uint64_t rtpush_now(rtpush_hub *hub) { return hub->wheel.now; }

// --- other threads ---

RTPUSH_DEF int rtpush_post(rtpush_hub *hub, void (*fn)(rtpush_hub *hub, void *arg), void *arg) {
    return rp_posted_send(hub, fn, arg);
}

RTPUSH_DEF int rtpush_post_session(rtpush_hub *hub, rtpush_session session, void (*fn)(rtpush_hub *hub, void *arg), void *arg) {
#ifdef RP_CREW
    uint32_t loop = (uint32_t)(session >> RP_LOOP_SHIFT & RP_LOOP_MASK);
    if (hub->crew && loop >= hub->crew->count) return RTPUSH_E_GONE;
    if (hub->crew) hub = hub->crew->loops[loop].hub;
#endif
    (void)session;
    return rtpush_post(hub, fn, arg);
}

typedef struct rp_async {
    size_t topic_size, size;
} rp_async;

static void rp_async_publish(rtpush_hub *hub, void *arg) {
    rp_async *async = (rp_async *)arg;
    const char *topic = (const char *)(async + 1);
    int code = rtpush_publish(hub, topic, topic + async->topic_size + 1, async->size);
    if (code) rp_hub_log(hub, "publish_async: %s", rtpush_strerror(code));
    RTPUSH_FREE(async);
}

RTPUSH_DEF int rtpush_publish_async(rtpush_hub *hub, const char *topic, const void *data, size_t size) {
    size_t topic_size = topic ? strlen(topic) : 0;
    if (!topic || !rtpush_is_topic(topic, topic_size, false)) return RTPUSH_E_TOPIC;
    if (size > (uint64_t)hub->desc.message_max) return RTPUSH_E_TOO_BIG;
    rp_async *async = (rp_async *)RTPUSH_REALLOC(NULL, sizeof *async + topic_size + 1 + size);
    if (!async) return RTPUSH_E_MEMORY;
    async->topic_size = topic_size;
    async->size = size;
    memcpy(async + 1, topic, topic_size + 1);
    if (size) memcpy((char *)(async + 1) + topic_size + 1, data, size);
    int code = rtpush_post(hub, rp_async_publish, async);
    if (code) RTPUSH_FREE(async);
    return code;
}

// --- publishing ---

RTPUSH_DEF int rtpush_publish_ex(rtpush_hub *hub, const rtpush_publication *what, uint64_t *ticket) {
    rp_hub_enter(hub);
    int code = rp_publish(hub, what, ticket);
    if (code) rp_hub_error(hub, code, NULL);
    rp_hub_exit(hub);
    return code;
}

RTPUSH_DEF int rtpush_publish(rtpush_hub *hub, const char *topic, const void *data, size_t size) {
    rtpush_publication what;
    memset(&what, 0, sizeof what);
    what.topic = topic;
    what.data = data;
    what.size = size;
    return rtpush_publish_ex(hub, &what, NULL);
}

RTPUSH_DEF int rtpush_publish_user(rtpush_hub *hub, const char *name, const void *data, size_t size) {
    char topic[RP_TOPIC_MAX + 1];
    int n = snprintf(topic, sizeof topic, "@user/%s", name ? name : "");
    return n < 0 || (size_t)n >= sizeof topic ? rp_hub_error(hub, RTPUSH_E_TOPIC, NULL) : rtpush_publish(hub, topic, data, size);
}

RTPUSH_DEF int rtpush_send(rtpush_hub *hub, rtpush_session handle, const void *data, size_t size, int kind) {
    rp_session *session = rp_session_find(hub, handle);
    if (!session || session->is_ending) return RTPUSH_E_GONE;
    rp_conn *c = session->conns;
    if (!c || c->phase != RP_PHASE_SOCKET) return RTPUSH_E_TRANSPORT;
    if (size > (uint64_t)hub->desc.message_max) return RTPUSH_E_TOO_BIG;
    if (!rp_conn_has_room(hub, c)) return RTPUSH_E_FULL;
    if (kind != RTPUSH_AUTO && kind != RTPUSH_TEXT && kind != RTPUSH_BINARY) return RTPUSH_E_ARGUMENT;
    bool is_text = kind == RTPUSH_TEXT || (kind == RTPUSH_AUTO && !rtpush_utf8(0, data, size));
    if (is_text && kind != RTPUSH_AUTO && rtpush_utf8(0, data, size)) return RTPUSH_E_UTF8;
    rp_socket_put(hub, c, is_text ? RP_WS_TEXT : RP_WS_BINARY, data, size);
    return c->own && c->own->is_broken ? RTPUSH_E_MEMORY : RTPUSH_OK;
}

// --- the bus ---

RTPUSH_DEF void rtpush_bus_done(rtpush_hub *hub, uint64_t ticket, uint64_t seq, int code) {
    rp_hub_enter(hub);
    rp_publish_end(hub, ticket, seq, code);
    rp_hub_exit(hub);
}

// --- topics ---

static int rp_configure_one(rtpush_hub *hub, void *arg) {
    const rtpush_rule *rule = (const rtpush_rule *)arg;
    const char *pattern = rule->pattern;
    const rtpush_topic_desc *desc = &rule->desc;
    int code = rp_rule_add(hub, pattern, desc);
    if (code) return rp_hub_error(hub, code, pattern);
    for (rp_node *node = rp_table_next(&hub->names, NULL); node; node = rp_table_next(&hub->names, node)) {
        rp_source *s = RP_OWNER(rp_source, node, node);
        if (s->is_pattern || !rp_topic_matches(rp_slice_of(pattern), rp_source_name(s))) continue;
        rp_topic_set(hub, rp_source_topic(s), desc);
        rp_log_trim_later(&hub->log, rp_source_topic(s));
    }
    return RTPUSH_OK;
}

RTPUSH_DEF int rtpush_configure(rtpush_hub *hub, const char *pattern, const rtpush_topic_desc *desc) {
    rtpush_rule rule;
    rule.pattern = pattern;
    rule.desc = *desc;
    int code = rp_configure_one(hub, &rule);
    return code ? code : rp_hub_call(hub, rp_configure_one, &rule);
}

// The connection of a session that a host may subscribe: a WebSocket or an event stream.
static rp_conn *rp_session_stream(rtpush_hub *hub, rtpush_session handle) {
    rp_session *session = rp_session_find(hub, handle);
    for (rp_conn *c = session ? session->conns : NULL; c; c = c->next)
        if (c->phase == RP_PHASE_SOCKET || c->phase == RP_PHASE_STREAM) return c;
    return NULL;
}

RTPUSH_DEF int rtpush_subscribe(rtpush_hub *hub, rtpush_session handle, const char *topic, const char *since) {
    rp_conn *c = rp_session_stream(hub, handle);
    rp_start start = rp_start_parse(since ? rp_slice_of(since) : rp_slice(NULL, 0));
    rtpush_slice name = rp_slice_of(topic);
    if (!c) return rp_session_find(hub, handle) ? RTPUSH_E_TRANSPORT : RTPUSH_E_GONE;
    if (!rtpush_is_topic(topic, name.size, true)) return RTPUSH_E_TOPIC;
    if (start.kind == RP_START_BAD) return RTPUSH_E_ARGUMENT;
    if (rp_conn_sub(hub, c, name)) return RTPUSH_OK;
    return rp_open_join(hub, c, name, &start, rp_slice(NULL, 0));
}

RTPUSH_DEF int rtpush_unsubscribe(rtpush_hub *hub, rtpush_session handle, const char *topic) {
    rp_conn *c = rp_session_stream(hub, handle);
    if (!c) return rp_session_find(hub, handle) ? RTPUSH_E_TRANSPORT : RTPUSH_E_GONE;
    if (!rtpush_is_topic(topic, rp_slice_of(topic).size, true)) return RTPUSH_E_TOPIC;
    rp_conn_unsubscribe(hub, c, rp_slice_of(topic));
    return RTPUSH_OK;
}

RTPUSH_DEF size_t rtpush_history(rtpush_hub *hub, const char *topic, uint64_t since, bool (*each)(const rtpush_message *m, void *user), void *user) {
    size_t count = 0;
    uint64_t head = hub->log.head;
    bool goes_on = true;
    rp_hub_enter(hub);
    while (goes_on) { // found again each time: the callback may change anything
        const rp_topic *t = rp_hub_find_topic(hub, rp_slice_of(topic));
        uint32_t i = t ? rp_topic_after(t, since) : 0;
        if (!t || i == t->count || rp_topic_at(t, i)->seq > head) break;
        const rp_msg *m = rp_topic_at(t, i);
        since = m->seq;
        if (m->is_ephemeral) continue;
        rtpush_message view = rp_msg_view(m, hub->wheel.now, rp_hub_wall(hub));
        rp_block *block = m->as[RP_RAW].block; // the view lives until the callback returns
        block->refs++;
        view.topic = topic;
        count++;
        goes_on = !each || each(&view, user);
        rp_block_unref(&hub->log, block);
    }
    rp_hub_exit(hub);
    return count;
}

RTPUSH_DEF size_t rtpush_presence(rtpush_hub *hub, const char *topic, bool (*each)(const char *name, void *user), void *user) {
    rp_crowd *crowd = rp_crowd_find(hub, rp_slice_of(topic));
    size_t count = crowd ? rp_crowd_size(hub, crowd) : 0;
    rp_buf names; // copied first: the callback may change anything
    memset(&names, 0, sizeof names);
    for (rp_node *node = crowd && each ? rp_table_next(&crowd->members, NULL) : NULL; node; node = rp_table_next(&crowd->members, node)) {
        const rp_member *member = RP_OWNER(rp_member, node, node);
        if (member->refs || rp_member_is_there(hub, member)) rp_buf_put(&hub->mem, &names, member->name, strlen(member->name) + 1);
    }
    rp_hub_enter(hub);
    for (const char *name = names.data, *end = name ? name + rp_buf_size(&names) : NULL; name != end; name += strlen(name) + 1)
        if (!each(name, user)) break;
    rp_buf_free(&hub->mem, &names);
    rp_hub_exit(hub);
    return count;
}

static bool rp_is_here(rtpush_hub *hub, const char *identity) {
    for (uint32_t i = 0; i < rp_slab_end(&hub->people->sessions); i++) {
        rp_slot *slot = rp_slab_at(&hub->people->sessions, i);
        if ((slot->generation & 1) && !strcmp(rp_session_identity((rp_session *)(void *)slot), identity)) return true;
    }
    return false;
}

RTPUSH_DEF size_t rtpush_where(rtpush_hub *hub, const char *identity, bool (*each)(const char *node, void *user), void *user) {
    size_t count = 0;
#ifdef RP_SHARED
    char node[80], last[80] = "";
    rp_crowd *crowd = hub->registry ? rp_crowd_find(hub, rp_slice("", 0)) : NULL;
    rp_member *member = crowd ? rp_crowd_find_member(hub, crowd, identity) : NULL;
    for (const rp_life *life = member ? hub->registry->lives : NULL; life; life = life->next) {
        if (!rp_where_find(hub, life, member)) continue;
        snprintf(node, sizeof node, "%.*s", (int)strcspn(life->name, ":"), life->name);
        if (count && !strcmp(node, last)) continue; // loops of one node
        memcpy(last, node, sizeof last);
        count++;
        if (each && !each(node, user)) each = NULL;
    }
#endif
    if (hub->registry || !rp_is_here(hub, identity)) return count;
    if (each) each("", user);
    return 1;
}

RTPUSH_DEF int rtpush_clear(rtpush_hub *hub, const char *topic) {
    rtpush_publication what;
    if (!topic) return rp_hub_error(hub, RTPUSH_E_TOPIC, NULL);
    memset(&what, 0, sizeof what);
    what.topic = topic;
    what.clear = true;
    return rtpush_publish_ex(hub, &what, NULL);
}

RTPUSH_DEF size_t rtpush_subscribers(rtpush_hub *hub, const char *topic) { return rp_hub_subscribers(hub, rp_slice_of(topic)); }
RTPUSH_DEF const char *rtpush_cursor_text(rtpush_hub *hub, char *buf) { return rp_hub_cursor(hub, buf, hub->log.head); }

// --- sessions ---

RTPUSH_DEF int rtpush_info(rtpush_hub *hub, rtpush_session handle, rtpush_session_info *info) {
    const rp_session *session = rp_session_find(hub, handle);
    memset(info, 0, sizeof *info);
    if (!session) return RTPUSH_E_GONE;
    info->identity = rp_session_identity(session);
    info->transport = session->transport;
    info->user = session->user;
    info->cursor = hub->log.head;
    for (rp_conn *c = session->conns; c; c = c->next) {
        uint64_t cursor = rp_reader_cursor(hub, &c->reader);
        info->peer = c->peer;
        info->cursor = RP_MIN(info->cursor, cursor);
        info->lag += rp_reader_lag(&c->reader);
        info->topics += c->reader.count;
        info->own_bytes += rp_conn_own_size(c);
    }
    return RTPUSH_OK;
}

RTPUSH_DEF int rtpush_set_user(rtpush_hub *hub, rtpush_session handle, void *user) {
    rp_session *session = rp_session_find(hub, handle);
    if (session) session->user = user;
    return session ? RTPUSH_OK : RTPUSH_E_GONE;
}

RTPUSH_DEF void *rtpush_get_user(rtpush_hub *hub, rtpush_session handle) {
    const rp_session *session = rp_session_find(hub, handle);
    return session ? session->user : NULL;
}

// Ends a session, its connections by `code`. It does not linger.
static void rp_session_close(rtpush_hub *hub, rp_session *session, int code, const char *reason) {
    rp_session_end(hub, session, code); // first: what follows finds it ending
    rp_timer_stop(&hub->wheel, &session->linger);
    for (rp_conn *c = session->conns, *next; c; c = next) {
        next = c->next;
        rp_push_close(hub, c, code, reason);
    }
}

RTPUSH_DEF int rtpush_close(rtpush_hub *hub, rtpush_session handle, int code, const char *reason) {
    rp_session *session = rp_session_find(hub, handle);
    bool is_good = code == 1000 || (code >= 3000 && code <= 4999);
    if (!session || session->is_ending) return RTPUSH_E_GONE;
    if (!reason) reason = "";
    if (!is_good || strlen(reason) > RP_WS_CONTROL_MAX - 2 || rtpush_utf8(0, reason, strlen(reason))) return RTPUSH_E_ARGUMENT;
    rp_session_close(hub, session, code, reason);
    return RTPUSH_OK;
}

RTPUSH_DEF size_t rtpush_each(rtpush_hub *hub, bool (*each)(rtpush_hub *hub, rtpush_session session, void *user), void *user) {
    size_t count = 0;
    rp_hub_enter(hub);
    for (uint32_t i = 0; i < rp_slab_end(&hub->people->sessions); i++) {
        rp_slot *slot = rp_slab_at(&hub->people->sessions, i);
        const rp_session *session = (const rp_session *)(const void *)slot;
        if (!(slot->generation & 1) || session->is_ending || !session->is_announced) continue;
        count++;
        if (!each(hub, rp_session_handle(session), user)) break;
    }
    rp_hub_exit(hub);
    return count;
}

static size_t rp_hub_kick(rtpush_hub *hub, const char *identity, int code, const char *reason) {
    size_t count = 0;
    for (uint32_t i = 0; i < rp_slab_end(&hub->people->sessions); i++) {
        rp_slot *slot = rp_slab_at(&hub->people->sessions, i);
        rp_session *session = (rp_session *)(void *)slot;
        if (!(slot->generation & 1) || strcmp(rp_session_identity(session), identity)) continue;
        count += rtpush_close(hub, rp_session_handle(session), code, reason) == RTPUSH_OK;
    }
    return count;
}

#ifdef RP_CREW
// To another loop: the identity follows, then the reason.
typedef struct rp_kick {
    int code;
    size_t identity;
} rp_kick;

static void rp_kick_run(rtpush_hub *hub, void *arg) {
    const rp_kick *kick = (const rp_kick *)arg;
    const char *identity = (const char *)(kick + 1);
    rp_hub_kick(hub, identity, kick->code, identity + kick->identity);
    RTPUSH_FREE(arg);
}

static void rp_kick_post(rtpush_hub *to, const char *identity, int code, const char *reason) {
    size_t size = strlen(identity) + 1, rest = strlen(reason) + 1;
    rp_kick *kick = (rp_kick *)RTPUSH_REALLOC(NULL, sizeof *kick + size + rest);
    if (!kick) return;
    kick->code = code;
    kick->identity = size;
    memcpy(kick + 1, identity, size);
    memcpy((char *)(kick + 1) + size, reason, rest);
    if (rtpush_post(to, rp_kick_run, kick)) RTPUSH_FREE(kick);
}
#endif

RTPUSH_DEF size_t rtpush_kick(rtpush_hub *hub, const char *identity, int code, const char *reason) {
#ifdef RP_CREW
    for (uint32_t i = 0; identity && hub->crew && i < hub->crew->count; i++)
        if (i != hub->loop) rp_kick_post(hub->crew->loops[i].hub, identity, code, reason ? reason : "");
#endif
    return identity ? rp_hub_kick(hub, identity, code, reason) : 0;
}

// --- requests ---

RTPUSH_DEF rtpush_slice rtpush_method(const rtpush_request *request) { return request->head->method; }
RTPUSH_DEF rtpush_slice rtpush_path(const rtpush_request *request) { return request->path; }
RTPUSH_DEF rtpush_slice rtpush_body(const rtpush_request *request) { return request->body; }
RTPUSH_DEF rtpush_peer rtpush_request_peer(const rtpush_request *request) { return request->conn->peer; }
RTPUSH_DEF bool rtpush_is_secure(const rtpush_request *request) { return rp_conn_tls(request->conn) != NULL; }

RTPUSH_DEF ptrdiff_t rtpush_certificate(const rtpush_request *request, char *buf, size_t cap) {
    const rp_tls *tls = rp_conn_tls(request->conn);
    return tls && cap ? rp_tls_peer_name(tls, buf, cap) : -1;
}

RTPUSH_DEF rtpush_slice rtpush_header(const rtpush_request *request, const char *name) { return rp_http_header(request->head, name); }

RTPUSH_DEF ptrdiff_t rtpush_query(const rtpush_request *request, const char *name, char *buf, size_t cap) {
    return rp_query_find(request->head->query, name, buf, cap);
}

RTPUSH_DEF rtpush_slice rtpush_query_text(const rtpush_request *request) { return request->head->query; }

RTPUSH_DEF rtpush_slice rtpush_cookie(const rtpush_request *request, const char *name) {
    rtpush_slice list = rp_http_header(request->head, "cookie"), part, key;
    while (rp_slice_next(&list, ';', &part)) {
        part = rp_slice_trim(part);
        if (rp_slice_next(&part, '=', &key) && part.data && rp_slice_equals(key, name)) return part;
    }
    return rp_slice(NULL, 0);
}

// Header lines of the host's: whole, and none that would end the head or contradict ours. *type: its Content-Type.
static bool rp_headers_are_good(const char *headers) {
    rtpush_slice rest = rp_slice_of(headers ? headers : ""), line, name, value;
    while (rest.size) {
        ptrdiff_t n = rp_http_line(rest.data, rest.size, &line);
        if (n <= 0 || !rp_http_field(line, &name, &value)) return false;
        if (rp_slice_is(name, "content-length") || rp_slice_is(name, "transfer-encoding") || rp_slice_is(name, "connection")) return false;
        rest = rp_slice_from(rest, (size_t)n);
    }
    return true;
}

static int rp_request_may_answer(rtpush_request *request, int status, const char *headers) {
    if (request->is_answered || request->conn->phase != RP_PHASE_HEAD) return RTPUSH_E_STATE;
    if (status < 200 || status > 599) return RTPUSH_E_ARGUMENT;
    if (!rp_headers_are_good(headers)) return rp_hub_error(request->hub, RTPUSH_E_HEADER, NULL);
    return RTPUSH_OK;
}

RTPUSH_DEF int rtpush_reply(rtpush_request *request, int status, const char *headers, const void *body, size_t size) {
    int code = rp_request_may_answer(request, status, headers);
    if (code) return code;
    request->is_answered = true;
    rp_reply_whole(request->hub, request->conn, status, NULL, rp_slice_of(headers ? headers : ""), rp_slice(body, size));
    return RTPUSH_OK;
}

RTPUSH_DEF rtpush_stream rtpush_reply_begin(rtpush_request *request, int status, const char *headers) {
    rtpush_hub *hub = request->hub;
    rp_conn *c = request->conn;
    if (rp_request_may_answer(request, status, headers) || rp_status_is_bare(status)) return 0;
    rp_buf *own = rp_conn_own(hub, c);
    rp_stream *stream = own ? rp_stream_new(hub, c) : NULL;
    if (!stream) return 0;
    request->is_answered = true;
    rp_reply_head(hub, c, own, status, NULL, rp_slice_of(headers ? headers : ""), RP_LENGTH_CHUNKED);
    return rp_slab_handle(&stream->slot);
}

static rp_conn *rp_stream_conn(rtpush_hub *hub, rtpush_stream handle) {
    const rp_stream *stream = (const rp_stream *)rp_slab_find(&hub->server->streams, handle);
    return stream && stream->conn->phase == RP_PHASE_REPLY ? stream->conn : NULL;
}

RTPUSH_DEF int rtpush_stream_write(rtpush_hub *hub, rtpush_stream handle, const void *data, size_t size) {
    rp_conn *c = rp_stream_conn(hub, handle);
    if (!c) return RTPUSH_E_GONE;
    if (!rp_conn_has_room(hub, c)) return RTPUSH_E_FULL;
    rp_buf *own = c->is_head ? NULL : rp_conn_own(hub, c);
    if (own && c->is_http11) rp_chunk_put(&hub->mem, own, data, size);
    else if (own) rp_buf_put(&hub->mem, own, data, size);
    return own && own->is_broken ? RTPUSH_E_MEMORY : RTPUSH_OK;
}

RTPUSH_DEF int rtpush_stream_end(rtpush_hub *hub, rtpush_stream handle) {
    rp_conn *c = rp_stream_conn(hub, handle);
    if (!c) return RTPUSH_E_GONE;
    if (c->is_http11 && !c->is_head) rp_conn_put(hub, c, rp_slice("0\r\n\r\n", 5));
    rp_reply_done(hub, c);
    return RTPUSH_OK;
}

static const char *rp_file_type(const char *path) {
    static const char *const types[][2] = {
        {".html", "text/html; charset=utf-8"}, {".js", "text/javascript; charset=utf-8"}, {".mjs", "text/javascript; charset=utf-8"},
        {".css", "text/css; charset=utf-8"}, {".json", "application/json"}, {".txt", "text/plain; charset=utf-8"}, {".svg", "image/svg+xml"},
        {".png", "image/png"}, {".jpg", "image/jpeg"}, {".gif", "image/gif"}, {".webp", "image/webp"}, {".ico", "image/x-icon"},
        {".wasm", "application/wasm"}, {".woff2", "font/woff2"}, {".pdf", "application/pdf"}};
    for (size_t i = 0; i < RP_COUNT(types); i++) {
        size_t n = strlen(types[i][0]);
        if (strlen(path) > n && !strcmp(path + strlen(path) - n, types[i][0])) return types[i][1];
    }
    return "application/octet-stream";
}

// Opens segment by segment below root, so that no link and no .. leads out of it. -1: there is no such regular file.
static int rp_file_open(const char *root, const char *path, uint64_t *size) {
    rtpush_slice rest = rp_slice_of(path), part;
    struct stat info;
    int at = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (at >= 0 && rp_slice_next(&rest, '/', &part)) {
        char name[256];
        if (!part.size && rest.data) continue;
        bool is_good = part.size && part.size < sizeof name && *part.data != '.' && !memchr(part.data, '\\', part.size);
        if (is_good) memcpy(name, part.data, part.size), name[part.size] = 0;
        int next = is_good ? openat(at, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | (rest.data ? O_DIRECTORY : 0)) : -1;
        close(at);
        at = next;
    }
    if (at >= 0 && !fstat(at, &info) && S_ISREG(info.st_mode)) {
        *size = (uint64_t)info.st_size;
        return at;
    }
    if (at >= 0) close(at);
    return -1;
}

RTPUSH_DEF int rtpush_reply_file(rtpush_request *request, const char *root, const char *path, const char *type) {
    rtpush_hub *hub = request->hub;
    rp_conn *c = request->conn;
    uint64_t size = 0;
    int code = rp_request_may_answer(request, 200, NULL);
    if (!code && type && !rp_slice_all(rp_slice_of(type), rp_http_is_value)) code = rp_hub_error(hub, RTPUSH_E_HEADER, NULL);
    if (code) return code;
    request->is_answered = true;
    int file = rp_file_open(root, path, &size);
    if (file < 0) { rp_reply_error(hub, c, 404, "there is no such file", ""); return RTPUSH_OK; }
    rp_buf *own = rp_conn_own(hub, c);
    rp_stream *stream = own ? rp_stream_new(hub, c) : NULL;
    if (!stream) { close(file); rp_conn_drop(hub, c, 1011); return RTPUSH_E_MEMORY; }
    stream->file = file;
    stream->left = c->is_head ? 0 : size;
    rp_reply_head(hub, c, own, 200, type ? type : rp_file_type(path), rp_slice(NULL, 0), (int64_t)size);
    c->reader.wire = &rp_wire_file;
    return RTPUSH_OK;
}

RTPUSH_DEF int rtpush_accept_websocket(rtpush_request *request, rtpush_session *session) {
    rtpush_hub *hub = request->hub;
    rp_conn *c = request->conn;
    rp_start start;
    rp_gap gap;
    int code = rp_request_may_answer(request, 200, NULL);
    if (session) *session = 0;
    if (code) return code;
    if (!request->head->wants_websocket) return RTPUSH_E_TRANSPORT;
    request->is_answered = true;
    if (rp_origin_of(hub, request->head) == RP_ORIGIN_WRONG) { rp_reply_error(hub, c, 403, "this origin is not allowed here (origin)", ""); return RTPUSH_E_FORBIDDEN; }
    if (!rp_handshake_is_good(hub, c, request->head)) return RTPUSH_E_STATE;
    memset(&start, 0, sizeof start);
    hub->server->name_count = 0;
    code = rp_open_reader(hub, c, &rp_wire_raw, &request->login, rp_slice(NULL, 0), &start, &gap);
    if (code) { rp_reply_code(hub, c, code); return code; }
    if (session) *session = rp_session_handle(c->session);
    rp_handshake_answer(hub, c, request->head, false, &gap);
    if (c->session) rp_session_announce(hub, c->session);
    return RTPUSH_OK;
}

// --- timers ---

static void rp_host_timer_fire(rtpush_hub *hub, rp_timer *timer) {
    rp_host_timer *own = RP_OWNER(rp_host_timer, timer, timer);
    rp_host_timer fired = *own;
    rp_slab_give(&hub->server->timers, &own->slot);
    fired.fn(hub, fired.user);
}

RTPUSH_DEF rtpush_timer rtpush_after(rtpush_hub *hub, int64_t ms, void (*fn)(rtpush_hub *hub, void *user), void *user) {
    rp_host_timer *own = (rp_host_timer *)rp_slab_take(&hub->server->timers);
    if (!own) return 0;
    own->timer.fire = rp_host_timer_fire;
    own->fn = fn;
    own->user = user;
    rp_timer_start(&hub->wheel, &own->timer, hub->sys.now_ms(hub->sys.user) + (uint64_t)RP_MAX(ms, (int64_t)0));
    return rp_slab_handle(&own->slot);
}

RTPUSH_DEF void rtpush_cancel(rtpush_hub *hub, rtpush_timer handle) {
    rp_host_timer *own = (rp_host_timer *)rp_slab_find(&hub->server->timers, handle);
    if (!own) return;
    rp_timer_stop(&hub->wheel, &own->timer);
    rp_slab_give(&hub->server->timers, &own->slot);
}

#ifdef RP_CLIENT
// --- the client ---

RTPUSH_DEF rtpush_client rtpush_connect(rtpush_hub *hub, const rtpush_client_desc *desc) {
    rtpush_client handle = 0;
    int code = rp_client_new(hub, desc, &handle);
    if (code) rp_hub_error(hub, code, desc->url);
    return handle;
}

RTPUSH_DEF int rtpush_client_subscribe(rtpush_hub *hub, rtpush_client handle, const char *topic, const char *since) {
    rp_client *c = rp_client_find(hub, handle);
    rtpush_slice name = rp_slice_of(topic);
    if (!c) return RTPUSH_E_GONE;
    if (c->desc.kind != RTPUSH_SERVER_RTPUSH) return RTPUSH_E_STATE;
    if (!rtpush_is_topic(name.data, name.size, true)) return RTPUSH_E_TOPIC;
    if (since && (strlen(since) > 40 || rp_start_parse(rp_slice_of(since)).kind == RP_START_BAD)) return RTPUSH_E_ARGUMENT;
    if (rp_client_want(c, name)) return RTPUSH_OK;
    if (!rp_want_add(c, name, since)) return RTPUSH_E_MEMORY;
    rp_client_changed(c);
    return RTPUSH_OK;
}

RTPUSH_DEF int rtpush_client_unsubscribe(rtpush_hub *hub, rtpush_client handle, const char *topic) {
    rp_client *c = rp_client_find(hub, handle);
    rp_want *want = c && topic ? rp_client_want(c, rp_slice_of(topic)) : NULL;
    if (!c) return RTPUSH_E_GONE;
    if (want) rp_client_unwant(c, want);
    return RTPUSH_OK;
}

RTPUSH_DEF int rtpush_client_publish(rtpush_hub *hub, rtpush_client handle, const rtpush_publication *what) {
    rp_client *c = rp_client_find(hub, handle);
    return c ? rp_client_publish(c, what) : RTPUSH_E_GONE;
}

RTPUSH_DEF int rtpush_client_send(rtpush_hub *hub, rtpush_client handle, const void *data, size_t size, int kind) {
    rp_client *c = rp_client_find(hub, handle);
    return c ? rp_client_send(c, data, size, kind) : RTPUSH_E_GONE;
}

RTPUSH_DEF int rtpush_client_close(rtpush_hub *hub, rtpush_client handle, int code, const char *reason) {
    rp_client *c = rp_client_find(hub, handle);
    if (!c) return RTPUSH_E_GONE;
    if (code != 1000 && code != 1001 && (code < 3000 || code > 4999)) return RTPUSH_E_ARGUMENT;
    rp_hub_enter(hub);
    rp_client_quit(c, code, reason ? reason : "");
    rp_hub_exit(hub);
    return RTPUSH_OK;
}

RTPUSH_DEF const char *rtpush_client_cursor(rtpush_hub *hub, rtpush_client handle, char *buf) {
    const rp_client *c = rp_client_find(hub, handle);
    *buf = 0;
    return c ? rp_client_cursor_text(c, buf) : buf;
}

RTPUSH_DEF size_t rtpush_client_topics(rtpush_hub *hub, rtpush_client handle) {
    const rp_client *c = rp_client_find(hub, handle);
    size_t count = c && c->is_elsewhere;
    for (const rp_want *want = c ? c->wants : NULL; want; want = want->next) count++;
    return count;
}

RTPUSH_DEF size_t rtpush_client_pending(rtpush_hub *hub, rtpush_client handle) {
    const rp_client *c = rp_client_find(hub, handle);
    size_t count = 0;
    for (const rp_parcel *parcel = c ? c->parcels : NULL; parcel; parcel = parcel->next) count++;
    return count;
}
#endif // RP_CLIENT

// --- statistics ---

RTPUSH_DEF void rtpush_get_stats(rtpush_hub *hub, rtpush_stats *stats) { rp_stats_read(hub, stats); }
RTPUSH_DEF const char *rtpush_check(rtpush_hub *hub) { return rp_check_all(hub); }

#endif // RP_SERVER

#undef RP_OPEN
#undef RP_SERVER
#undef RP_CLIENT
#undef RP_REDIS
#undef RP_DIAL
#undef RP_CREW
#undef RP_SHARED
