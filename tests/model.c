// The model of the log: the rooms topic, hub, spell and reader, played at random against an oracle that forgets nothing.
//
//   cc -std=c99 -D_GNU_SOURCE -g -O1 -fsanitize=address,undefined tests/model.c -o build/model -lpthread
//   build/model [--runs N] [--first SEED]    N lives (10,000), then the scenarios
//   build/model --seed SEED [--verbose]      one life again; --verbose tells what happens in it
//   build/model --until [--blind]            lives until one fails; prints how many it took (tests/model_breaks.sh);
//                                            --blind judges only what readers get, not the hub's own books
//
// One seed is one life of a hub: limits, names, readers and what happens, without a socket. The readers are rp_reader
// objects on wires of the test, which take as many bytes as chance says. Their bytes are parsed as a client would;
// each message names itself. For each reader and each message the oracle knows whether it must come, may come or must
// not come; what is held it reads off the rings, what ought to be held it computes. With -DMODEL_BREAKS the flag --break N
// breaks a rule of the header on purpose (see RTPUSH_BREAK there); then a life has to fail.
#ifdef MODEL_BREAKS
static long broken_rule;
#define RTPUSH_BREAK(rule) ((rule) == broken_rule)
#endif
#define RTPUSH_IMPLEMENTATION
#include "../rtpush.h"

#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// ============================================================================
// chance, and what went wrong
// ============================================================================

static uint64_t chance_state;

static uint64_t chance(void) { // splitmix64
    uint64_t x = chance_state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static unsigned below(unsigned n) { return (unsigned)(chance() % n); }
static bool one_in(unsigned n) { return below(n) == 0; }
#define PICK(array) ((array)[below(sizeof(array) / sizeof(array)[0])])

static bool is_verbose;
static bool is_blind; // only what readers get is judged, not the hub's own books
static jmp_buf life_over;
static char why[400];

#define PRINTF_LIKE __attribute__((format(printf, 1, 2)))

static void say(const char *format, ...) PRINTF_LIKE;
static void say(const char *format, ...) {
    va_list args;
    if (!is_verbose) return;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

static void broke(const char *format, ...) PRINTF_LIKE;
static void broke(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    longjmp(life_over, 1);
}

// ============================================================================
// the names
// ============================================================================

enum { NAMES = 14, PATTERNS = 9, SOURCES = NAMES + PATTERNS };
static const char *const source_names[SOURCES] = {
    "a",  "b",   "a/x", "a/y", "a/x/p", "a/x/q", "b/x", "b/y/z", "c/d/e/f", "@u", "@u/a", "@u/b", "@u/b/c", "é/x",
    "**", "a/*", "a/**", "*",  "b/**",  "a/x/*", "@u/*", "@u/**", "c/d/**"};

static bool matches[SOURCES][NAMES];

// The rule of PROTOCOL §1, spelled differently than in the header: by segments.
static bool should_match(const char *pattern, const char *name) {
    if (!strchr(pattern, '*')) return !strcmp(pattern, name);
    if (*name == '@' && *pattern != '@') return false;
    while (*pattern != '*') {
        size_t n = strcspn(pattern, "/");
        if (strcspn(name, "/") != n || strncmp(pattern, name, n) || name[n] != '/') return false;
        pattern += n + 1;
        name += n + 1;
    }
    return pattern[1] == '*' || !strchr(name, '/');
}

// ============================================================================
// the world
// ============================================================================

enum { NOTES = 3000, CLIENTS = 8, SUBS = 6, JOBS = 16, PAYLOAD_MAX = 40000 };

// A message as the oracle remembers it.
typedef struct note {
    uint64_t seq, born;
    uint32_t size, charge;
    uint8_t name;
    bool is_ephemeral, is_gone, is_cleared, has_event, is_held;
} note;

// What a message is to a reader, as an ordinary one and as a replay: two ways that do not touch each other.
enum want { NO, MAY, MUST };

typedef struct way {
    uint8_t want;
    uint8_t subs; // which of the reader's subscriptions want it, as bits
    bool is_done;
} way;

typedef struct state {
    way live, replay;
} state;

static bool is_due(const way *a) { return a->want == MUST && !a->is_done; }

typedef struct sub {
    bool is_used;
    uint8_t source;
    uint64_t from;  // nothing up to here is for it, ahead of the head as it may be
    uint64_t since; // what it has passed is above this
    uint64_t told, said; // gaps cover it up to here: when they arrive, when the server says them
    uint64_t dark; // begun by `earliest` or `-N`: it may be told of a loss below this
} sub;

typedef struct job { // a replay under way, as the client knows it
    bool is_used, is_cancelled;
    uint8_t id, sub;
    uint64_t mark, last;
} job;

typedef struct heap {
    char *data;
    size_t start, end, cap;
} heap;

enum flow { FLOWS, TRICKLES, STANDS };

typedef struct client {
    rp_reader reader; // first: the wire gets its address
    int number;
    bool is_open;     // reads
    bool is_shared;   // its wire has a spelling
    bool is_poll;
    bool is_over;     // to be reaped: closed by the server or broken
    enum flow flow;
    size_t room;      // own bytes it may have
    heap own, in;
    bool had_part;    // `in` held a part of a frame before this write
    sub subs[SUBS];
    job jobs[JOBS];
    uint8_t next_job;
    int checked;      // notes before this one are accounted for
    uint64_t last, cursor, told_cursor; // newest message; where it would resume; below this nothing new may come
    uint64_t has_all; // at the end of a turn it had all up to here
    uint64_t opened;
    state want[NOTES];
} client;

static struct {
    rtpush_hub *hub;
    uint64_t now;
    unsigned long allocations;
    bool fails, may_fail; // allocations do, now and then
    uint64_t failures;
    unsigned seq_step; // a bus may leave numbers out
    int note_count, held_count, held[NOTES];
    note notes[NOTES];
    uint64_t lost[NAMES]; // highest seq of a stored message that is no longer held
    uint64_t cleared[NAMES];
    uint64_t mark[NAMES]; // of the dead
    uint64_t floor;
    client clients[CLIENTS];
    int client_count, name_count, source_count;
    uint8_t sources[SOURCES];
    uint64_t last_safe, use, used[NAMES]; // when a topic was last published to, or lost its last reader
    uint32_t readers[NAMES];
    bool is_making_room;
    bool has_tiny; // messages that cannot name themselves, and then nothing that makes it doubtful which one came
} w;

static struct {
    uint64_t runs, published, ephemerals, delivered, replayed, starts, resumes, gaps_at_start, gaps_later, closes, joins, parts,
        acks, flushes, partial, shorts, clears, evictions, missed_ephemerals, polls, deaths, births, floors, made_room, refused, quiet,
        split, lost_memory, heartbeats, large, rechecks;
} sum;

static void *count_alloc(void *old, size_t size, void *user) {
    (void)user;
    if (!size) {
        if (old) w.allocations--;
        free(old);
        return NULL;
    }
    if (w.fails && one_in(60)) {
        w.failures++;
        return NULL;
    }
    void *p = realloc(old, size);
    if (p && !old) w.allocations++;
    return p;
}

static void heap_put(heap *b, const void *data, size_t n) {
    if (b->start && b->end + n > b->cap) {
        memmove(b->data, b->data + b->start, b->end - b->start);
        b->end -= b->start;
        b->start = 0;
    }
    if (b->end + n > b->cap) {
        b->cap = (b->end + n) * 2 + 256;
        b->data = realloc(b->data, b->cap);
        if (!b->data) exit(3);
    }
    if (n) memcpy(b->data + b->end, data, n);
    b->end += n;
}

static size_t heap_size(const heap *b) { return b->end - b->start; }
static void heap_clear(heap *b) { b->start = b->end = 0; }

// ============================================================================
// payloads that name themselves
// ============================================================================

static char filler[PAYLOAD_MAX + 1000];

static void payload_write(char *out, const note *n) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    char head[5];
    for (int i = 0; i < 3; i++) head[i] = digits[n->seq >> (6 * i) & 63];
    head[3] = (char)('A' + n->name);
    head[4] = n->is_ephemeral ? '~' : '.';
    memcpy(out, head, n->size < 5 ? n->size : 5);
    if (n->size > 5) memcpy(out + 5, filler + n->seq * 31 % 997, n->size - 5);
}

static bool payload_is(const note *n, const char *data, size_t size) {
    char head[5];
    note small = *n;
    if (size != n->size) return false;
    small.size = size < 5 ? (uint32_t)size : 5;
    payload_write(head, &small);
    return !memcmp(head, data, small.size) && (size <= 5 || !memcmp(data + 5, filler + n->seq * 31 % 997, size - 5));
}

static int note_find(uint64_t seq) {
    int low = 0, high = w.note_count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (w.notes[middle].seq < seq) low = middle + 1;
        else high = middle;
    }
    return low;
}

static int note_of(uint64_t seq) {
    int i = note_find(seq);
    return i < w.note_count && w.notes[i].seq == seq ? i : -1;
}

// ============================================================================
// what the client is told
// ============================================================================

// Is a message that was lost covered by gaps of all subscriptions that want it?
static bool is_covered(const client *c, int i, const way *a, bool is_said) {
    unsigned subs = a->subs;
    for (unsigned k = 0; k < SUBS; k++)
        if ((is_said ? c->subs[k].said : c->subs[k].told) >= w.notes[i].seq) subs &= ~(1u << k);
    return !subs;
}

// May the client go without it by now? What is held and not deleted is never lost; what is lost was told.
static bool is_excused(const client *c, int i, const way *a) {
    const note *n = &w.notes[i];
    return !n->is_ephemeral && (n->is_gone || n->is_cleared) && is_covered(c, i, a, false);
}

// Everything up to `seq` has come, or a gap covers it.
static void must_have(client *c, uint64_t seq, const char *when) {
    for (; c->checked < w.note_count && w.notes[c->checked].seq <= seq; c->checked++) {
        const way *a = &c->want[c->checked].live;
        if (!is_due(a) || is_excused(c, c->checked, a)) continue;
        const note *n = &w.notes[c->checked];
        broke("reader %d missed %s message %" PRIu64 " of %s (%s): seen at %s %" PRIu64, c->number, n->is_ephemeral ? "the ephemeral" : "the",
              n->seq, source_names[n->name], n->is_gone ? "gone" : "held", when, seq);
    }
}

static job *job_find(client *c, unsigned id) {
    for (int i = 0; i < JOBS; i++)
        if (c->jobs[i].is_used && c->jobs[i].id == id) return &c->jobs[i];
    return NULL;
}

static void got_replay(client *c, int i, unsigned id) {
    job *j = job_find(c, id);
    way *a = &c->want[i].replay;
    uint64_t seq = w.notes[i].seq;
    if (!j) broke("reader %d got %" PRIu64 " as a replay of nothing", c->number, seq);
    if (seq > j->mark) broke("reader %d got %" PRIu64 " as a replay above its mark %" PRIu64, c->number, seq, j->mark);
    if (seq <= j->last) broke("reader %d got the replay of %" PRIu64 " behind that of %" PRIu64, c->number, seq, j->last);
    j->last = seq;
    sum.replayed++;
    if (j->is_cancelled) return;
    if (!matches[c->subs[j->sub].source][w.notes[i].name]) broke("reader %d got a replay of another topic: %" PRIu64, c->number, seq);
    if (a->is_done || a->want == NO) broke("reader %d got %" PRIu64 " of %s as a replay: %s", c->number, seq, source_names[w.notes[i].name], a->is_done ? "doubled" : "not for it");
    a->is_done = true;
}

static void got_message(client *c, int i) {
    way *a = &c->want[i].live;
    uint64_t seq = w.notes[i].seq;
    const char *name = source_names[w.notes[i].name];
    sum.delivered++;
    if (a->is_done) broke("reader %d got %" PRIu64 " of %s twice", c->number, seq, name);
    if (a->want == NO) broke("reader %d got %" PRIu64 " of %s, which is not for it", c->number, seq, name);
    if (seq <= c->last) broke("reader %d got %" PRIu64 " of %s behind %" PRIu64, c->number, seq, name, c->last);
    if (seq <= c->told_cursor) broke("reader %d got %" PRIu64 " of %s behind its cursor %" PRIu64, c->number, seq, name, c->told_cursor);
    a->is_done = true;
    must_have(c, seq, "the message");
    c->last = c->cursor = seq;
}

// id: UINT64_MAX where the transport names none.
static void got_payload(client *c, uint64_t id, const char *data, size_t size) {
    if (id == UINT64_MAX && size < 3) { // it cannot name itself: the next one that looks so
        for (int i = note_find(c->last + 1); i < w.note_count; i++) {
            const way *a = &c->want[i].live;
            bool may_come = a->want != NO && !a->is_done && (!w.notes[i].is_gone || c->had_part);
            if (!may_come || !payload_is(&w.notes[i], data, size)) continue;
            got_message(c, i);
            return;
        }
        broke("reader %d got %u bytes that no message has that it waits for", c->number, (unsigned)size);
    }
    if (id == UINT64_MAX) {
        id = 0;
        for (unsigned i = 0; i < 3; i++) {
            char d = data[i];
            unsigned digit = d >= 'A' && d <= 'Z' ? (unsigned)(d - 'A') : d >= 'a' && d <= 'z' ? (unsigned)(d - 'a') + 26 : d >= '0' && d <= '9' ? (unsigned)(d - '0') + 52 : d == '-' ? 62 : 63;
            id |= (uint64_t)digit << (6 * i);
        }
    }
    int i = note_of(id);
    if (i < 0) broke("reader %d got a message %" PRIu64 " that never was", c->number, id);
    if (!payload_is(&w.notes[i], data, size)) broke("reader %d got other bytes for message %" PRIu64, c->number, id);
    got_message(c, i);
}

static void got_gap(client *c, uint64_t from, uint64_t to, unsigned subs, bool is_latest) {
    must_have(c, from, "a gap from");
    for (unsigned k = 0; k < SUBS; k++)
        if (subs & 1u << k) c->subs[k].told = RP_MAX(c->subs[k].told, to);
    for (int i = 0; i < w.note_count && w.notes[i].seq <= to && is_latest; i++) // none of them may come any more
        if (c->want[i].live.want == MAY) c->want[i].live.want = NO;
}

// The reader goes on at the head: what is not on its way to it will not come.
static void skip_to_head(client *c) {
    for (int i = 0; i < w.note_count; i++) {
        state *s = &c->want[i];
        if (s->live.want == MUST) s->live.want = MAY;
        if (s->replay.want == MUST) s->replay.want = MAY;
    }
    for (int i = 0; i < JOBS; i++) c->jobs[i].is_cancelled = true;
}

static void got_ack(client *c, unsigned id) {
    job *j = job_find(c, id);
    sum.acks++;
    if (!j) broke("reader %d got an ack for nothing", c->number);
    for (int i = 0; i < w.note_count && w.notes[i].seq <= j->mark && !j->is_cancelled; i++) {
        const way *a = &c->want[i].replay;
        if (!is_due(a) || !(a->subs & 1u << j->sub) || is_excused(c, i, a)) continue;
        broke("reader %d missed the replay of %" PRIu64 " of %s", c->number, w.notes[i].seq, source_names[w.notes[i].name]);
    }
    j->is_used = false;
}

static void got_cursor(client *c, uint64_t seq) {
    if (seq < c->last) broke("reader %d: its cursor %" PRIu64 " is behind message %" PRIu64, c->number, seq, c->last);
    must_have(c, seq, "the cursor");
    c->cursor = c->told_cursor = seq;
}

// ============================================================================
// parsing what came
// ============================================================================

typedef struct own_head { // a frame of the reader's own, as the test's wires spell it
    char mark, type;
    uint8_t id, is_latest;
    uint32_t size;
    uint64_t a, b;
} own_head;

enum { OWN_MARK = 0x0b }; // no shared spelling begins so

static void own_put(client *c, char type, unsigned id, bool is_latest, uint64_t a, uint64_t b, const void *data, size_t size) {
    own_head head;
    memset(&head, 0, sizeof head);
    head.mark = OWN_MARK;
    head.type = type;
    head.id = (uint8_t)id;
    head.is_latest = is_latest;
    head.size = (uint32_t)size;
    head.a = a;
    head.b = b;
    heap_put(&c->own, &head, sizeof head);
    heap_put(&c->own, data, size);
}

static size_t parse_own(client *c, const char *p, size_t n) {
    own_head head;
    if (n < sizeof head) return 0;
    memcpy(&head, p, sizeof head);
    if (n < sizeof head + head.size) return 0;
    const char *data = p + sizeof head;
    int i = head.type == 'm' || head.type == 'r' ? note_of(head.a) : 0;
    if (i < 0 || (head.type == 'r' && !payload_is(&w.notes[i], data, head.size))) broke("reader %d got a wrong message of its own", c->number);
    switch (head.type) {
    case 'm': got_payload(c, head.a, data, head.size); break;
    case 'r': got_replay(c, i, head.id); break;
    case 'g': got_gap(c, head.b, head.a, head.id, head.is_latest); break;
    case 'a':
        got_cursor(c, head.a);
        got_ack(c, head.id);
        break;
    case 'h': got_cursor(c, head.a); break;
    case 'p': break;
    default: broke("reader %d got a broken frame of its own", c->number);
    }
    return sizeof head + head.size;
}

// The value behind `name` up to the next quote; moves *at behind it.
static rtpush_slice parse_member(const char *end, const char **at, const char *name) {
    size_t n = strlen(name);
    if ((size_t)(end - *at) < n || memcmp(*at, name, n)) broke("a spelling lacks %s", name);
    const char *from = *at + n, *to = memchr(from, '"', (size_t)(end - from));
    if (!to) broke("a spelling has no end behind %s", name);
    *at = to + 1;
    return rp_slice(from, (size_t)(to - from));
}

static uint64_t parse_id(const char *data, size_t size) {
    rtpush_cursor cursor;
    if (!rtpush_parse_cursor(&cursor, data, size) || memcmp(cursor.epoch, w.hub->log.epoch, 8)) broke("a spelling has a wrong id");
    return cursor.seq;
}

static void parse_members(client *c, const char *at, const char *end) {
    rtpush_slice id = parse_member(end, &at, "\"id\":\"");
    uint64_t seq = parse_id(id.data, id.size);
    rtpush_slice topic = parse_member(end, &at, ",\"topic\":\"");
    int i = note_of(seq);
    if (i < 0 || strlen(source_names[w.notes[i].name]) != topic.size || memcmp(source_names[w.notes[i].name], topic.data, topic.size))
        broke("message %" PRIu64 " has a wrong topic", seq);
    if (w.notes[i].has_event) parse_member(end, &at, ",\"event\":\"");
    rtpush_slice data = parse_member(end, &at, ",\"data\":\"");
    got_payload(c, seq, data.data, data.size);
}

static size_t parse_frame(client *c, const char *p, size_t n) {
    const unsigned char *u = (const unsigned char *)p;
    static const char before[] = "{\"type\":\"message\",";
    if (n < 2) return 0;
    if (u[0] != 0x81 || u[1] & 0x80) broke("reader %d lost the frames: %02x %02x", c->number, u[0], u[1]);
    size_t head = u[1] < 126 ? 2 : u[1] == 126 ? 4 : 10, size = u[1];
    if (n < head) return 0;
    if (head > 2) size = 0;
    for (size_t i = 2; i < head; i++) size = size << 8 | u[i];
    if (n < head + size) return 0;
    if (c->reader.wire->spelling == RP_RAW) {
        got_payload(c, UINT64_MAX, p + head, size);
    } else {
        if (size < sizeof before || memcmp(p + head, before, sizeof before - 1)) broke("reader %d got no envelope", c->number);
        parse_members(c, p + head + sizeof before - 1, p + head + size);
    }
    return head + size;
}

static size_t parse_event(client *c, const char *p, size_t n) {
    size_t head = 0, size = 0;
    while (head < n && p[head] != '\r') {
        int digit = rp_hex_digit(p[head++]);
        if (digit < 0 || head > 8) broke("reader %d lost the chunks", c->number);
        size = size * 16 + (size_t)digit;
    }
    if (n < head + 2 + size + 2) return 0;
    const char *at = p + head + 2, *end = at + size;
    const char *line = memchr(at, '\n', size);
    if (size < 10 || memcmp(at, "id: ", 4) || !line) broke("reader %d got a block without an id", c->number);
    uint64_t seq = parse_id(at + 4, (size_t)(line - at) - 4);
    at = line + 1;
    if (end - at > 9 && !memcmp(at, "event: e\n", 9)) at += 9;
    if (end - at < 8 || memcmp(at, "data: ", 6) || memcmp(end - 2, "\n\n", 2) || memcmp(end, "\r\n", 2)) broke("reader %d got a broken block", c->number);
    got_payload(c, seq, at + 6, (size_t)(end - at) - 8);
    return head + 2 + size + 2;
}

static size_t parse_item(client *c, const char *p, size_t n) {
    const char *end = memchr(p, '}', n);
    if (*p != '{') broke("reader %d lost the items", c->number);
    if (!end) return 0;
    parse_members(c, p + 1, end);
    return (size_t)(end - p) + 1;
}

static void parse(client *c) {
    heap *in = &c->in;
    size_t n = 1;
    while (n && heap_size(in)) {
        const char *p = in->data + in->start;
        size_t size = heap_size(in);
        if (*p == OWN_MARK) n = parse_own(c, p, size);
        else if (c->reader.wire->spelling == RP_EVENT) n = parse_event(c, p, size);
        else if (c->reader.wire->spelling == RP_ITEM) n = parse_item(c, p, size);
        else n = parse_frame(c, p, size);
        in->start += n;
        if (n) c->had_part = false;
    }
    if (!heap_size(in)) heap_clear(in);
}

// ============================================================================
// the wires
// ============================================================================

static client *client_of(rp_reader *r) { return (client *)(void *)r; }

// The reader leaves, as when a connection ends; the turn's end buries it.
static void client_end(client *c) {
    if (c->is_over) return;
    c->is_over = true;
    c->is_open = false;
    rp_reader_leave(w.hub, &c->reader);
    c->reader.is_blocked = true; // nobody serves it any more
}

static size_t client_takes(client *c, size_t total) {
    switch (c->flow) {
    case TRICKLES: {
        size_t n = below(one_in(3) ? 5000 : 300);
        return n < total ? n : total;
    }
    case STANDS: return 0;
    case FLOWS: break;
    }
    return total;
}

static size_t took_part(client *c, const void *data, size_t size, size_t *left) {
    size_t n = size < *left ? size : *left;
    heap_put(&c->in, data, n);
    *left -= n;
    return n;
}

static ptrdiff_t wire_write(rtpush_hub *hub, rp_reader *r, const rtpush_iov *iov, int count, size_t size) {
    client *c = client_of(r);
    size_t shared = 0, check = 0;
    if (c->is_over) return -1;
    if (w.is_making_room) broke("a write inside an append");
    for (int i = 0; i < count; i++) check += iov[i].len;
    if (check != size) broke("a vector of %u bytes is said to have %u", (unsigned)check, (unsigned)size);
    size_t total = size + r->rest.size + heap_size(&c->own), left = client_takes(c, total), taken = left;
    if (total && one_in(400)) { // the peer is gone
        say("    reader %d breaks", c->number);
        client_end(c);
        return -1;
    }
    if (r->rest.block) {
        size_t n = took_part(c, rp_piece_iov(&r->rest).base, r->rest.size, &left);
        r->rest.at += (uint32_t)n;
        r->rest.size -= (uint32_t)n;
        if (!r->rest.size) rp_reader_rest_sent(hub, r);
        sum.split++;
    }
    c->own.start += took_part(c, c->own.data ? c->own.data + c->own.start : NULL, heap_size(&c->own), &left);
    if (!heap_size(&c->own)) heap_clear(&c->own);
    for (int i = 0; i < count && left; i++) shared += took_part(c, iov[i].base, iov[i].len, &left);
    sum.shorts += taken < total;
    r->is_blocked = taken < total;
    if (total) say("    reader %d takes %u of %u bytes", c->number, (unsigned)taken, (unsigned)total);
    parse(c);
    c->had_part = heap_size(&c->in) > 0;
    return (ptrdiff_t)shared;
}

static bool wire_put(rtpush_hub *hub, rp_reader *r, const rp_msg *m, bool is_replay) {
    client *c = client_of(r);
    (void)hub;
    if (c->is_over || heap_size(&c->own) >= c->room) return false;
    unsigned id = 0;
    if (is_replay) memcpy(&id, r->replays + 1, sizeof id);
    own_put(c, is_replay ? 'r' : 'm', id, false, m->seq, 0, rp_msg_data(m), m->size);
    return true;
}

// Is there a reason to tell a reader that it lost something? A message that it waits for is no longer held and no gap
// that covers it was said. Or it is below the floor, where nobody knows.
static void must_be_lost(const client *c, const char *what) {
    uint64_t at = RP_MAX(c->cursor, c->has_all);
    for (int i = w.note_count; i-- > 0;) {
        const way *live = &c->want[i].live, *replay = &c->want[i].replay;
        if (!w.notes[i].is_gone || w.notes[i].is_ephemeral) continue;
        if (live->want != NO && !live->is_done && !is_covered(c, i, live, true)) return;
        if (replay->want != NO && !replay->is_done && !is_covered(c, i, replay, true)) return;
    }
    for (unsigned k = 0; k < SUBS; k++) {
        const sub *s = &c->subs[k];
        if (!s->is_used) continue;
        if ((at < w.floor && s->said < w.floor) || (at < s->dark && s->said < s->dark)) return;
        for (int j = 0; j < JOBS; j++) { // another subscription brought it, but the one that is replayed is behind it
            if (!c->jobs[j].is_used || c->jobs[j].is_cancelled || c->jobs[j].sub != k) continue;
            if (s->said < w.floor) return;
            for (unsigned name = 0; name < NAMES; name++)
                if (matches[s->source][name] && w.lost[name] > s->said) return;
        }
    }
    broke("reader %d has lost nothing (it has all up to %" PRIu64 ") and is %s", c->number, at, what);
}

static unsigned gap_said(client *c, uint64_t to) {
    unsigned subs = 0;
    bool is_new = false;
    for (unsigned k = 0; k < SUBS; k++) {
        if (!c->subs[k].is_used) continue;
        subs |= 1u << k;
        is_new |= c->subs[k].said < to;
        c->subs[k].said = RP_MAX(c->subs[k].said, to);
    }
    if (!is_new) broke("reader %d is told a gap to %" PRIu64 " twice", c->number, to);
    sum.gaps_later++;
    return subs;
}

static void wire_gap(rtpush_hub *hub, rp_reader *r, const rp_gap *gap) {
    client *c = client_of(r);
    uint64_t from = parse_id(gap->from, strlen(gap->from));
    bool is_latest = gap->to == hub->log.head; // or it makes no difference
    for (unsigned k = 0; k < r->count; k++) {
        const rp_sub *s = &r->subs[k];
        is_latest &= rp_sub_entry(s)->pos >= gap->to;
        say("    %s at %" PRIu64 ", evicted %" PRIu64 ", last %" PRIu64, s->source->name, rp_sub_entry(s)->pos, s->source->evicted, s->source->last);
    }
    must_be_lost(c, "told a gap");
    say("    reader %d is told a gap from %" PRIu64 " to %" PRIu64 "%s", c->number, from, gap->to, is_latest ? ", the head" : "");
    own_put(c, 'g', gap_said(c, gap->to), is_latest, gap->to, from, NULL, 0);
    if (is_latest) skip_to_head(c);
}

static void wire_close(rtpush_hub *hub, rp_reader *r, enum rp_closing why_closed) {
    client *c = client_of(r);
    (void)hub;
    if (why_closed == RP_CLOSE_SLOW) must_be_lost(c, "closed as slow");
    else if (!w.failures) broke("reader %d is closed for want of memory", c->number);
    say("    reader %d is closed", c->number);
    client_end(c);
    sum.closes++;
}

static void wire_replayed(rtpush_hub *hub, rp_reader *r, const rp_replay *replay) {
    unsigned id;
    memcpy(&id, replay + 1, sizeof id);
    own_put(client_of(r), 'a', id, false, rp_reader_cursor(hub, r), 0, NULL, 0);
}

static void poll_answer(rtpush_hub *hub, client *c, bool is_due) {
    rp_reader *r = &c->reader;
    rp_scan scan;
    rp_msg *m, *last = NULL;
    unsigned count = 0, max = one_in(2) ? 1 + below(5) : 1000;
    bool has_more = false;
    rp_scan_begin(&scan, hub, r);
    while ((m = rp_scan_next(&scan)) != NULL) {
        has_more = count == max;
        if (has_more) break;
        if (!rp_spell(hub, m, RP_ITEM)) {
            if (!w.failures) broke("no memory for an item");
            client_end(c);
            return;
        }
        rtpush_iov iov = rp_piece_iov(&m->as[RP_ITEM]);
        parse_item(c, (const char *)iov.base, iov.len);
        rp_reader_took(hub, r, m, true);
        last = m;
        count++;
    }
    if (!has_more) rp_reader_level(hub, r);
    if (!count && !is_due) return;
    got_cursor(c, has_more ? last->seq : RP_MAX(hub->log.head, r->ahead));
    say("    poll %d is answered with %u, cursor %" PRIu64, c->number, count, c->cursor);
    client_end(c);
    sum.polls++;
}

static void wire_answer(rtpush_hub *hub, rp_reader *r) {
    client *c = client_of(r);
    if (c->is_over) return;
    const rp_source *gone = rp_reader_gone(r);
    if (gone) {
        must_be_lost(c, "told a gap in a poll");
        got_gap(c, 0, gone->evicted, gap_said(c, gone->evicted), false);
    }
    if (gone || rp_reader_is_behind(r)) poll_answer(hub, c, gone != NULL);
}

static const rp_wire wires[] = {
    {"raw", RTPUSH_WEBSOCKET, RP_RAW, wire_write, wire_put, NULL, wire_gap, wire_close, wire_replayed},
    {"envelope", RTPUSH_ENVELOPE, RP_ENVELOPE, wire_write, wire_put, NULL, wire_gap, wire_close, wire_replayed},
    {"event", RTPUSH_SSE, RP_EVENT, wire_write, wire_put, NULL, wire_gap, wire_close, wire_replayed},
    {"item", RTPUSH_SSE, RP_ITEM, wire_write, wire_put, NULL, wire_gap, wire_close, wire_replayed},
    {"own", RTPUSH_SSE, -1, wire_write, wire_put, NULL, wire_gap, wire_close, wire_replayed},
    {"mute", RTPUSH_WEBSOCKET, RP_RAW, wire_write, wire_put, NULL, NULL, wire_close, wire_replayed}, // cannot tell a gap
    {"poll", RTPUSH_LONG_POLL, RP_ITEM, wire_write, NULL, wire_answer, NULL, wire_close, NULL}};
enum { WIRE_POLL = 6 };

// ============================================================================
// what is held
// ============================================================================

// Everyone who has room had its turn: it is not owed anything that goes.
static bool is_served(const client *c) {
    return c->is_open && !c->reader.is_blocked && !c->reader.is_queued && !c->reader.replays;
}

static rp_topic *topic_of(unsigned name) {
    return rp_hub_find_topic(w.hub, rp_slice_of(source_names[name]));
}

// Why a stored message may have gone, computed from the whole history.
static bool may_go(int at) {
    const note *m = &w.notes[at];
    rtpush_topic_desc rule = *rp_hub_rule(w.hub, rp_slice_of(source_names[m->name]));
    int64_t count = rule.history ? rule.history : w.hub->desc.history, bytes = rule.history_bytes ? rule.history_bytes : w.hub->desc.history_bytes;
    int64_t ms = rule.history_ms ? rule.history_ms : w.hub->desc.history_ms, younger = 0;
    uint64_t charge = 0;
    bool is_oldest = true;
    for (int i = at; i < w.note_count; i++) {
        const note *n = &w.notes[i];
        if (n->name != m->name) continue;
        charge += n->charge;
        if (i > at && !n->is_ephemeral) younger++;
    }
    for (int i = 0; i < w.held_count && w.held[i] < at; i++) is_oldest &= !w.notes[w.held[i]].is_held;
    if (m->is_cleared || younger >= (count < 0 ? 0 : count) || charge > (uint64_t)(bytes < 0 ? 0 : bytes)) return true;
    if (ms >= 0 && w.now - m->born >= (uint64_t)ms) return true;
    if (w.hub->desc.history_total_bytes < 1000000 && is_oldest) return true;
    return w.is_making_room && !topic_of(m->name);
}

static void note_goes(int at) {
    note *n = &w.notes[at];
    n->is_gone = true;
    if (!n->is_ephemeral) {
        if (!is_blind && !may_go(at)) broke("message %" PRIu64 " of %s was dropped for no reason", n->seq, source_names[n->name]);
        w.lost[n->name] = RP_MAX(w.lost[n->name], n->seq);
        sum.evictions++;
    }
    for (int i = 0; i < w.client_count; i++) {
        client *c = &w.clients[i];
        way *a = &c->want[at].live;
        if (!c->is_open || (!is_due(a) && !is_due(&c->want[at].replay))) continue;
        if (is_served(c) && !is_blind) broke("message %" PRIu64 " of %s went before reader %d had its turn", n->seq, source_names[n->name], c->number);
        if (!n->is_ephemeral) continue;
        a->want = c->reader.rest.block || heap_size(&c->own) ? MAY : NO;
        sum.missed_ephemerals++;
    }
}

// Reads off the rings what is held now.
static void look(void) {
    int kept = 0;
    for (int i = 0; i < w.held_count; i++) w.notes[w.held[i]].is_held = false;
    for (int name = 0; name < NAMES; name++) {
        const rp_topic *t = topic_of((unsigned)name);
        for (uint32_t i = 0; t && i < t->count; i++) {
            int at = note_of(rp_topic_at(t, i)->seq);
            if (at < 0 || (!is_blind && (w.notes[at].name != name || w.notes[at].is_gone))) broke("%s holds a message that it should not", source_names[name]);
            w.notes[at].is_held = true;
        }
    }
    for (int i = 0; i < w.held_count; i++) {
        int at = w.held[i];
        if (w.notes[at].is_held) w.held[kept++] = at;
        else note_goes(at);
    }
    w.held_count = kept;
}

static bool is_dead(unsigned name, uint64_t *evicted) {
    rtpush_slice text = rp_slice_of(source_names[name]);
    const rp_dead *dead = rp_dead_find(w.hub, text, rp_hub_hash(w.hub, text));
    if (dead) *evicted = dead->evicted;
    return dead != NULL;
}

// The marks of the dead and the floor are what the lost messages say.
static void look_at_marks(void) {
    uint64_t floor = w.hub->log.floor, evicted = 0;
    if (is_blind) w.floor = floor;
    if (is_blind) return;
    bool is_explained = floor == w.floor || w.failures;
    for (unsigned name = 0; name < NAMES; name++) {
        const rp_topic *t = topic_of(name);
        bool has_mark = is_dead(name, &evicted);
        if (!t && !has_mark && w.lost[name] > floor) broke("%s has lost %" PRIu64 " and nothing remembers it", source_names[name], w.lost[name]);
        if (!t && has_mark && RP_MAX(evicted, floor) < w.lost[name]) broke("the mark of %s is %" PRIu64 ", it lost %" PRIu64, source_names[name], evicted, w.lost[name]);
        if (t && t->source.evicted < w.lost[name]) broke("the mark of %s is %" PRIu64 ", it lost %" PRIu64, source_names[name], t->source.evicted, w.lost[name]);
        if (t && t->source.evicted > RP_MAX(w.lost[name], floor)) broke("the mark of %s is %" PRIu64 ", it lost only %" PRIu64, source_names[name], t->source.evicted, w.lost[name]);
        if (w.lost[name] == floor || w.mark[name] == floor) is_explained = true;
        w.mark[name] = has_mark ? evicted : 0;
    }
    if (floor < w.floor) broke("the floor went down");
    if (!is_explained) broke("the floor rose to %" PRIu64 " where nothing was lost", floor);
    if (floor > w.floor && !w.failures && w.hub->dead.count != (size_t)w.hub->desc.dead_max) broke("the floor rose while there was room for the dead");
    if (w.hub->dead.count > (size_t)w.hub->desc.dead_max) broke("too many dead");
    sum.floors += floor > w.floor;
    w.floor = floor;
}

// After a flush: nothing is held that should have gone, nothing lives that nobody needs.
static void look_at_retention(void) {
    rtpush_hub *hub = w.hub;
    if (is_blind) return;
    bool is_flushed = !hub->log.dirty_first;
    if (is_flushed && !hub->again_first && hub->log.safe != hub->log.head) broke("after a whole flush safe is not the head");
    if (hub->log.safe < w.last_safe) broke("safe went down");
    w.last_safe = hub->log.safe;
    for (unsigned name = 0; name < NAMES; name++) {
        const rp_topic *t = topic_of(name);
        uint64_t bytes = 0, stored = 0;
        if (!t) continue;
        for (uint32_t i = 0; i < t->count; i++) {
            const note *n = &w.notes[note_of(rp_topic_at(t, i)->seq)];
            bytes += n->charge;
            stored += !n->is_ephemeral;
            if (n->is_ephemeral && n->seq <= hub->log.safe) broke("the ephemeral message %" PRIu64 " is still held", n->seq);
        }
        const note *oldest = t->count ? &w.notes[note_of(rp_topic_at(t, 0)->seq)] : NULL;
        bool may_wait = oldest && oldest->seq > hub->log.safe;
        bool is_old = oldest && t->keep.ms >= 0 && w.now - oldest->born >= (uint64_t)t->keep.ms;
        if (!may_wait && (stored > t->keep.count || bytes > t->keep.bytes || is_old || (oldest && oldest->is_cleared)))
            broke("%s holds more than it may: %u messages, %u bytes, the oldest %" PRIu64 "%s%s", source_names[name], (unsigned)stored, (unsigned)bytes,
                  oldest ? oldest->seq : 0, is_old ? ", too old" : "", oldest && oldest->is_cleared ? ", deleted" : "");
        if (is_flushed && !t->count && !t->source.count) broke("%s is empty, has no reader and lives on", source_names[name]);
    }
    for (uint32_t i = 0; i < hub->pattern_count && is_flushed; i++)
        if (!hub->patterns[i]->count) broke("the pattern %s has no reader and lives on", hub->patterns[i]->name);
    bool may_trim = w.held_count && w.notes[w.held[0]].seq <= hub->log.safe;
    if (may_trim && hub->log.bytes > (uint64_t)hub->desc.history_total_bytes) broke("the budget of all history is not kept");
}

// Blocks and their references, counted from all who may have one: held messages, tails, half-sent rests.
static void look_at_blocks(void) {
    static struct { const rp_block *block; uint32_t refs; } seen[16384];
    size_t count = 0;
    uint64_t bytes = 0;
    rtpush_hub *hub = w.hub;
    if (is_blind) return;
#define SEEN(b)                                                          \
    do {                                                                 \
        size_t k_ = count;                                               \
        while (k_ > 0 && seen[k_ - 1].block != (b)) k_--;                \
        if (k_) seen[k_ - 1].refs++;                                     \
        else if (count < 16384) seen[count].block = (b), seen[count++].refs = 1; \
    } while (0)
    for (unsigned name = 0; name < NAMES; name++) {
        const rp_topic *t = topic_of(name);
        for (unsigned k = 0; t && k < RP_SPELLINGS; k++) {
            if (t->tails[k]) SEEN(t->tails[k]);
            for (uint32_t i = 0; i < t->count; i++)
                if (rp_topic_at(t, i)->as[k].block) SEEN(rp_topic_at(t, i)->as[k].block);
        }
        bytes += t ? t->count * sizeof(rp_msg) : 0;
    }
    for (int i = 0; i < w.client_count; i++)
        if (w.clients[i].reader.rest.block) SEEN(w.clients[i].reader.rest.block);
#undef SEEN
    for (size_t i = 0; i < count; i++) {
        bytes += sizeof(rp_block) + seen[i].block->cap;
        if (seen[i].refs != seen[i].block->refs) broke("a block has %u references and says %u", seen[i].refs, seen[i].block->refs);
    }
    if (bytes != hub->log.bytes) broke("blocks and messages have %" PRIu64 " bytes, the log says %" PRIu64, bytes, hub->log.bytes);
    sum.rechecks++;
}

// The topics that went to make room were those without readers that were used last the longest ago.
static void look_at_room(const bool *was_there) {
    uint64_t newest_gone = 0;
    for (unsigned name = 0; name < NAMES; name++)
        if (was_there[name] && !topic_of(name)) newest_gone = RP_MAX(newest_gone, w.used[name]), sum.made_room++;
    for (unsigned name = 0; name < NAMES && newest_gone && !is_blind; name++) {
        const rp_topic *t = topic_of(name);
        if (!t || !was_there[name] || t->source.count || t->source.is_dirty || t->source.last > w.hub->log.safe) continue;
        if (w.used[name] < newest_gone) broke("%s was not used for longer than a topic that went to make room", source_names[name]);
    }
}

// Who reads what, to see last readers go.
static void look_at_use(void) {
    uint64_t use = ++w.use; // those that go at once are alike
    for (unsigned name = 0; name < NAMES; name++) {
        const rp_topic *t = topic_of(name);
        uint32_t readers = t ? t->source.count : 0;
        if (t && ((w.readers[name] && !readers) || !w.used[name])) w.used[name] = use;
        if (!t) w.used[name] = 0;
        w.readers[name] = readers;
    }
}

static void check_all(void) {
    for (int i = 0; i < w.client_count; i++)
        if (w.clients[i].reader.ahead <= w.hub->log.head) w.clients[i].reader.ahead = 0; // as the clock does
    const char *wrong = is_blind ? NULL : rp_check_all(w.hub);
    if (wrong) broke("rp_check_all: %s", wrong);
}

// ============================================================================
// what happens
// ============================================================================

static void publish(unsigned name, bool is_ephemeral) {
    static char data[PAYLOAD_MAX];
    static const unsigned sizes[] = {3, 12, 40, 130, 600, 3000};
    rtpush_hub *hub = w.hub;
    rtpush_message m;
    if (w.note_count == NOTES) return;
    int at = w.note_count;
    note *n = &w.notes[at];
    memset(n, 0, sizeof *n);
    n->seq = hub->log.head + 1 + (w.seq_step ? below(w.seq_step) : 0);
    n->name = (uint8_t)name;
    n->born = w.now;
    n->is_ephemeral = is_ephemeral;
    n->has_event = one_in(6);
    n->size = w.has_tiny && !is_ephemeral && one_in(8) ? below(3) : one_in(80) ? 15000 + below(4000) : one_in(200) ? 30000 : PICK(sizes) + below(20);
    n->charge = n->size + (n->has_event ? 1 : 0);
    payload_write(data, n);
    memset(&m, 0, sizeof m);
    m.topic = source_names[name];
    m.event = n->has_event ? "e" : "";
    m.data = data;
    m.size = n->size;
    m.kind = RTPUSH_TEXT;
    m.ephemeral = is_ephemeral;
    m.seq = n->seq;
    bool is_new = !topic_of(name), is_full = is_new && hub->topic_count >= (uint64_t)hub->desc.topics_max, was_there[NAMES];
    uint64_t head = hub->log.head, failures = w.failures;
    look_at_use();
    for (unsigned i = 0; i < NAMES; i++) was_there[i] = topic_of(i) != NULL;
    w.is_making_room = true;
    int code = rp_hub_append(hub, &m);
    if (!code) {
        w.held[w.held_count++] = at;
        w.note_count++;
        for (int i = 0; i < w.client_count; i++) {
            client *c = &w.clients[i];
            memset(&c->want[at], 0, sizeof c->want[at]);
            for (unsigned k = 0; k < SUBS && c->is_open; k++) {
                if (!c->subs[k].is_used || !matches[c->subs[k].source][name] || c->subs[k].from >= n->seq) continue;
                c->want[at].live.want = MUST;
                c->want[at].live.subs |= (uint8_t)(1u << k);
            }
        }
    }
    look();
    look_at_room(was_there);
    w.is_making_room = false;
    if (code && hub->log.head != head) broke("a refused message moved the head");
    if (code && code != RTPUSH_E_TOPICS && w.failures == failures) broke("a publish failed: %s", rtpush_strerror(code));
    if (code == RTPUSH_E_TOPICS) {
        if (!is_full) broke("a topic was refused although there is room");
        for (unsigned i = 0; i < NAMES; i++) {
            const rp_topic *t = topic_of(i);
            if (t && !t->source.count && !t->source.is_dirty && t->source.last <= hub->log.safe) broke("a topic was refused although %s could go", source_names[i]);
        }
        sum.refused++;
    }
    look_at_marks();
    sum.births += is_new && !code;
    look_at_use();
    if (code) return;
    w.used[name] = ++w.use;
    say("publish %" PRIu64 " to %s%s, %u bytes", n->seq, source_names[name], is_ephemeral ? ", ephemeral" : "", n->size);
    sum.published++;
    sum.ephemerals += is_ephemeral;
    sum.large += n->size > RP_BLOCK_ALONE;
}

static void reap(void) {
    for (int i = 0; i < w.client_count; i++) {
        client *c = &w.clients[i];
        if (!c->is_over) continue;
        rp_hub_not_again(w.hub, &c->reader);
        rp_piece_drop(&w.hub->log, &c->reader.rest);
        c->is_over = false;
        heap_clear(&c->own);
        heap_clear(&c->in);
    }
}

static void flush(void) {
    rtpush_hub *hub = w.hub;
    say("flush");
    uint32_t topics = hub->topic_count;
    rp_hub_flush(hub);
    sum.flushes++;
    sum.partial += hub->log.dirty_first != NULL;
    sum.deaths += topics > hub->topic_count ? topics - hub->topic_count : 0;
    look();
    look_at_marks();
    look_at_retention();
    reap();
    for (int i = 0; i < w.client_count && !hub->log.dirty_first; i++)
        if (is_served(&w.clients[i])) w.clients[i].has_all = hub->log.head;
    check_all();
}

static void configure(unsigned source) {
    static const int64_t counts[] = {0, 1, 2, 3, 8, 100, -1}, byte_sizes[] = {0, 200, 1000, 8000, 1048576}, ages[] = {0, 20, 300, -1, 3600000};
    rtpush_topic_desc rule;
    memset(&rule, 0, sizeof rule);
    rule.history = PICK(counts);
    rule.history_bytes = PICK(byte_sizes);
    rule.history_ms = PICK(ages);
    rule.slow = w.hub->desc.slow;
    say("configure %s: %d messages, %d bytes, %d ms", source_names[source], (int)rule.history, (int)rule.history_bytes, (int)rule.history_ms);
    if (rtpush_configure(w.hub, source_names[source], &rule) && !w.fails) broke("configure failed");
}

static void advance(uint64_t ms) {
    say("%" PRIu64 " ms pass", ms);
    w.now += ms;
    rp_wheel_advance(w.hub, &w.hub->wheel, w.now);
}

static void clear(unsigned name) {
    rp_topic *t = topic_of(name);
    if (!t) return;
    say("delete %s", source_names[name]);
    for (int i = 0; i < w.held_count; i++) {
        note *n = &w.notes[w.held[i]];
        if (n->name == name && !n->is_ephemeral) n->is_cleared = true, w.cleared[name] = n->seq;
    }
    rp_hub_clear(w.hub, t, UINT64_MAX);
    sum.clears++;
    look();
    look_at_marks();
}

// --- readers come ---

typedef struct verdict {
    uint64_t pos;
    bool must_gap, may_gap, is_other;
    uint64_t lost; // at least
} verdict;

static verdict should_start(const rp_start *start, const bool *reads) {
    verdict v;
    uint64_t maybe = w.floor;
    memset(&v, 0, sizeof v);
    for (unsigned name = 0; name < NAMES; name++) {
        if (!reads[name]) continue;
        v.lost = RP_MAX(v.lost, w.lost[name]);
        maybe = RP_MAX(maybe, RP_MAX(w.lost[name], w.cleared[name]));
    }
    v.pos = w.hub->log.head;
    if (start->kind == RP_START_NONE || start->kind == RP_START_LATEST) return v;
    v.pos = 0;
    if (start->kind == RP_START_EARLIEST || start->kind == RP_START_LAST) return v;
    v.is_other = start->kind == RP_START_BAD || (start->kind == RP_START_CURSOR && memcmp(start->epoch, w.hub->log.epoch, 8));
    if (!v.is_other && start->seq > w.hub->log.head && !w.hub->desc.bus) v.is_other = true;
    if (v.is_other) {
        v.must_gap = v.may_gap = true;
        return v;
    }
    v.pos = start->seq;
    v.must_gap = v.pos < v.lost;
    v.may_gap = v.pos < maybe;
    return v;
}

static void check_verdict(const client *c, const verdict *v, const rp_start *start, const rp_gap *gap) {
    uint64_t maybe = RP_MAX(v->lost, w.floor);
    for (unsigned name = 0; name < NAMES; name++) maybe = RP_MAX(maybe, w.cleared[name]);
    if (v->must_gap && !gap->is_told) broke("reader %d starts at %" PRIu64 ", lost up to %" PRIu64 ": a false \"no gap\"", c->number, v->pos, v->lost);
    if (!v->may_gap && gap->is_told) broke("reader %d starts at %" PRIu64 ", lost up to %" PRIu64 ", floor %" PRIu64 ": a false gap to %" PRIu64, c->number, v->pos, v->lost, w.floor, gap->to);
    if (!gap->is_told) return;
    if (gap->to < v->lost || gap->to > maybe) broke("reader %d is told a gap to %" PRIu64 ", lost is %" PRIu64, c->number, gap->to, v->lost);
    if (strcmp(gap->reason, v->is_other ? "epoch" : "evicted")) broke("reader %d is told a gap of reason %s", c->number, gap->reason);
    if ((start->kind == RP_START_BAD) != !gap->from[0]) broke("reader %d is told a gap from \"%s\"", c->number, gap->from);
    sum.gaps_at_start++;
}

// Is a stored message among the last n of its topic?
static bool is_among_last(int at, uint64_t n) {
    uint64_t younger = 0;
    for (int i = at + 1; i < w.note_count; i++) younger += w.notes[i].name == w.notes[at].name && !w.notes[i].is_ephemeral && w.notes[i].is_held;
    return younger < n;
}

// Up to where a subscription that was told of no gap when it began may be told of one: where the mark of its source
// speaks of messages that it has, or, with `-N` of a pattern, did not ask for.
static uint64_t dark_of(unsigned source, const rp_start *start, uint64_t lost) {
    if (start->kind == RP_START_LAST && source >= NAMES) return w.hub->log.head;
    return start->kind == RP_START_LAST || start->kind == RP_START_EARLIEST ? RP_MAX(lost, w.floor) : 0;
}

static const char *choose_start(const client *c) {
    static char text[64];
    uint64_t head = w.hub->log.head, seq = below((unsigned)head + 1);
    switch (below(16)) {
    case 0: return "";
    case 1: return "latest";
    case 2: return "earliest";
    case 3: snprintf(text, sizeof text, "-%u", 1 + below(4)); return text;
    case 4: snprintf(text, sizeof text, "%" PRIu64, seq); return text;
    case 5: snprintf(text, sizeof text, "zzzzzzzz-%" PRIu64, seq); return text;
    case 6: return "what?";
    case 7:
        if (one_in(2) && !w.hub->desc.bus) return "latest";
        snprintf(text, sizeof text, "%s-%" PRIu64, w.hub->log.epoch, head + 1 + below(one_in(2) ? 12 : 100));
        return text;
    case 8:
    case 9: snprintf(text, sizeof text, "%s-%" PRIu64, w.hub->log.epoch, head - (uint64_t)below((unsigned)RP_MIN(head, (uint64_t)8) + 1)); return text;
    case 10: snprintf(text, sizeof text, "%s-%" PRIu64, w.hub->log.epoch, w.floor); return text;
    case 11: snprintf(text, sizeof text, "%s-%" PRIu64, w.hub->log.epoch, w.lost[below(NAMES)] - (uint64_t)(w.lost[0] ? below(2) : 0)); return text;
    default: break;
    }
    if (c->opened && c->cursor <= head) seq = c->cursor;
    snprintf(text, sizeof text, "%s-%" PRIu64, w.hub->log.epoch, seq);
    return text;
}

static void refuse_is_right(int code, unsigned source) {
    rtpush_hub *hub = w.hub;
    if (code == RTPUSH_E_MEMORY && w.fails) return;
    if (source < NAMES ? code != RTPUSH_E_TOPICS || hub->topic_count < (uint64_t)hub->desc.topics_max
                       : code != RTPUSH_E_PATTERNS || hub->pattern_count < (uint64_t)hub->desc.patterns_max)
        broke("%s was refused: %s", source_names[source], rtpush_strerror(code));
    sum.refused++;
}

static rp_source *find_source(unsigned source, int *code) {
    bool was_there[NAMES];
    *code = RTPUSH_OK;
    look_at_use();
    for (unsigned i = 0; i < NAMES; i++) was_there[i] = topic_of(i) != NULL;
    w.is_making_room = true;
    rp_source *s = rp_hub_source(w.hub, rp_slice_of(source_names[source]), code);
    look();
    look_at_room(was_there);
    w.is_making_room = false;
    look_at_marks();
    if (!s) refuse_is_right(*code, source);
    return s;
}

// What the oracle expects of a reader that starts so: all its subscriptions are new.
static void expect(client *c, const rp_start *start, const verdict *v, const rp_gap *gap) {
    memset(c->want, 0, (size_t)w.note_count * sizeof *c->want);
    for (int i = 0; i < w.note_count; i++) {
        const note *n = &w.notes[i];
        way *a = &c->want[i].live;
        if (n->is_gone || n->is_ephemeral || n->seq <= v->pos) continue;
        for (unsigned k = 0; k < SUBS; k++)
            if (c->subs[k].is_used && matches[c->subs[k].source][n->name]) a->subs |= (uint8_t)(1u << k);
        if (!a->subs || (start->kind == RP_START_LAST && !is_among_last(i, start->seq))) continue;
        a->want = n->is_cleared ? MAY : MUST;
    }
    for (unsigned k = 0; k < SUBS; k++) {
        c->subs[k].told = c->subs[k].said = gap->is_told ? gap->to : 0;
        c->subs[k].dark = dark_of(c->subs[k].source, start, v->lost);
        c->subs[k].since = start->kind == RP_START_LAST ? w.hub->log.head : v->pos;
    }
    c->checked = 0;
    c->last = c->cursor = c->told_cursor = c->has_all = 0;
}

static void drop_subs(client *c) {
    memset(c->subs, 0, sizeof c->subs);
    memset(c->jobs, 0, sizeof c->jobs);
}

static void open_reader(client *c) {
    rtpush_hub *hub = w.hub;
    rp_reader *r = &c->reader;
    bool is_resumed = c->opened && one_in(2), reads[NAMES];
    const char *text = choose_start(c);
    rp_start start = rp_start_parse(rp_slice_of(text));
    rp_gap gap;
    uint8_t wanted[SUBS];
    unsigned count = 0;
    int code = RTPUSH_OK;
    if (is_resumed)
        for (unsigned k = 0; k < SUBS; k++)
            if (c->subs[k].is_used) wanted[count++] = c->subs[k].source;
    if (!count) {
        count = one_in(2) ? 1 : 1 + below(4);
        for (unsigned k = 0; k < count; k++) wanted[k] = w.sources[below((unsigned)w.source_count)];
    }
    drop_subs(c);
    const rp_wire *wire = &wires[below(7)];
    c->is_poll = wire == &wires[WIRE_POLL];
    rp_reader_init(r, wire);
    c->flow = one_in(3) ? TRICKLES : FLOWS;
    if (c->is_poll) c->flow = FLOWS;
    c->room = one_in(3) ? 100 + below(3000) : 100000;
    heap_clear(&c->own);
    heap_clear(&c->in);
    c->had_part = false;
    memset(reads, 0, sizeof reads);
    unsigned used = 0;
    for (unsigned k = 0; k < count && !code; k++) {
        rp_source *s = find_source(wanted[k], &code);
        if (!s) break;
        if (rp_reader_sub(r, s)) continue;
        if (!rp_reader_add(hub, r, s, hub->log.head)) {
            if (!w.fails) broke("no memory to subscribe");
            rp_source_release(hub, s);
            code = RTPUSH_E_MEMORY;
            break;
        }
        look_at_use();
        c->subs[used].is_used = true;
        c->subs[used++].source = wanted[k];
        for (unsigned name = 0; name < NAMES; name++) reads[name] |= matches[wanted[k]][name];
    }
    if (code) {
        rp_reader_leave(hub, r);
        drop_subs(c);
        look();
        look_at_marks();
        return;
    }
    verdict v = should_start(&start, reads);
    rp_reader_start(hub, r, &start, &gap);
    say("reader %d (%s) starts at \"%s\" with %u sources%s%s", c->number, wire->name, text, used, gap.is_told ? ", a gap: " : "", gap.is_told ? gap.reason : "");
    for (unsigned k = 0; k < used; k++) say("    %s", source_names[c->subs[k].source]);
    check_verdict(c, &v, &start, &gap);
    expect(c, &start, &v, &gap);
    for (unsigned k = 0; k < used; k++) c->subs[k].from = v.pos > hub->log.head ? v.pos : 0;
    c->is_open = true;
    c->opened++;
    sum.starts++;
    sum.resumes += is_resumed && start.kind == RP_START_CURSOR;
    uint64_t id = rp_push_first_id(hub, r, &gap);
    if (gap.is_told && id > gap.to) broke("reader %d gets the id %" PRIu64 " with a gap to %" PRIu64, c->number, id, gap.to);
    got_cursor(c, id);
    c->told_cursor = gap.is_told ? 0 : id;
    if (!c->is_poll) return;
    rp_scan scan;
    bool has_any = gap.is_told;
    rp_scan_begin(&scan, hub, r);
    has_any |= rp_scan_next(&scan) != NULL;
    if (!has_any) rp_reader_level(hub, r);
    if (has_any || (one_in(4) && !r->ahead)) poll_answer(hub, c, true);
    reap();
}

// A subscription on a reader under way.
static void join(client *c) {
    rtpush_hub *hub = w.hub;
    rp_reader *r = &c->reader;
    uint8_t source = w.sources[below((unsigned)w.source_count)];
    unsigned at = 0;
    int code;
    rp_gap gap;
    rp_replay *replay;
    bool reads[NAMES];
    for (unsigned k = 0; k < SUBS; k++)
        if (c->subs[k].is_used && c->subs[k].source == source) return;
    while (at < SUBS && c->subs[at].is_used) at++;
    const char *text = choose_start(c);
    rp_start start = rp_start_parse(rp_slice_of(text));
    if (at == SUBS || !r->wire->put || r->ahead > hub->log.head) return;
    if ((start.kind == RP_START_SEQ || start.kind == RP_START_CURSOR) && start.seq > hub->log.head) return;
    unsigned id = c->next_job++;
    if (job_find(c, id)) return;
    rp_source *s = find_source(source, &code);
    if (!s) return;
    for (unsigned name = 0; name < NAMES; name++) reads[name] = matches[source][name];
    verdict v = should_start(&start, reads);
    uint64_t mark = rp_reader_cursor(hub, r);
    code = rp_reader_join(hub, r, s, &start, sizeof id, &gap, &replay);
    if (code) {
        if (!w.fails) broke("no memory to join");
        rp_source_release(hub, s);
        look();
        look_at_marks();
        return;
    }
    look_at_use();
    if (replay) memcpy(replay + 1, &id, sizeof id);
    say("reader %d joins %s at \"%s\", cursor %" PRIu64 "%s%s", c->number, source_names[source], text, mark, replay ? ", with a replay" : "", gap.is_told ? ", a gap" : "");
    check_verdict(c, &v, &start, &gap);
    bool is_back = start.kind == RP_START_LAST || v.pos < mark;
    if (is_back != (replay != NULL)) broke("reader %d: a replay is begun, or not, against the rule", c->number);
    c->subs[at].is_used = true;
    c->subs[at].source = source;
    c->subs[at].from = 0;
    c->subs[at].told = c->subs[at].said = gap.is_told ? gap.to : 0;
    c->subs[at].since = start.kind == RP_START_LAST ? w.hub->log.head : v.pos;
    c->subs[at].dark = dark_of(source, &start, v.lost);
    for (int i = 0; i < w.note_count; i++) {
        const note *n = &w.notes[i];
        bool is_late = n->seq <= mark, is_other = false, is_passed = false, is_sure = !n->is_cleared && n->seq > v.pos && !n->is_ephemeral;
        way *a = is_late ? &c->want[i].replay : &c->want[i].live;
        if (!matches[source][n->name] || n->is_gone || n->seq <= v.pos || (is_late && n->is_ephemeral)) continue;
        if (start.kind == RP_START_LAST && !is_among_last(i, start.seq)) is_sure = false;
        for (unsigned k = 0; k < SUBS; k++) {
            if (k == at || !c->subs[k].is_used || !matches[c->subs[k].source][n->name]) continue;
            is_other = true;
            is_passed |= c->subs[k].since < n->seq;
        }
        if (!is_late) {
            bool is_wanted = is_due(a) || (n->is_cleared && a->want == MAY && !a->is_done); // by the others
            if (is_sure || !is_due(a)) a->subs = (uint8_t)((is_wanted ? a->subs : 0) | 1u << at);
            if (!is_due(a)) a->want = is_sure ? MUST : MAY, a->is_done = false;
        } else if (!is_passed || n->is_cleared) { // PROTOCOL §3: what one of its subscriptions has passed, another does not bring again
            if (!is_sure && start.kind == RP_START_LAST && mark == hub->log.head && !n->is_cleared) continue; // exactly those
            a->want = is_sure && !is_other ? MUST : MAY;
            a->subs = (uint8_t)(1u << at);
            a->is_done = false;
        }
    }
    if (replay) {
        job *j = c->jobs;
        while (j < c->jobs + JOBS && j->is_used) j++;
        if (j == c->jobs + JOBS) broke("too many jobs for the test");
        j->is_used = true;
        j->is_cancelled = false;
        j->id = (uint8_t)id;
        j->sub = (uint8_t)at;
        j->mark = mark;
        j->last = 0;
    }
    sum.joins++;
    if (gap.is_told && !r->wire->gap) client_end(c), reap(); // as a raw WebSocket
}

static void part(client *c) {
    rp_reader *r = &c->reader;
    unsigned at = below(SUBS);
    if (!c->subs[at].is_used || r->count < 2) return;
    say("reader %d leaves %s", c->number, source_names[c->subs[at].source]);
    rtpush_slice name = rp_slice_of(source_names[c->subs[at].source]);
    rp_source *s = rp_hub_find(w.hub, name, rp_hub_hash(w.hub, name));
    bool may_come = r->rest.block || heap_size(&c->own) || c->had_part;
    rp_reader_part_from(w.hub, r, rp_reader_sub(r, s));
    uint64_t mark = 0;
    for (int i = 0; i < JOBS; i++) {
        job *j = &c->jobs[i];
        if (j->is_used && j->sub == at) j->is_cancelled = true;
        else if (j->is_used) mark = RP_MAX(mark, j->mark);
    }
    for (int i = 0; i < w.note_count; i++) {
        way *live = &c->want[i].live, *replay = &c->want[i].replay;
        bool is_other = may_come;
        if (!matches[c->subs[at].source][w.notes[i].name]) continue;
        for (unsigned k = 0; k < SUBS; k++) is_other |= k != at && c->subs[k].is_used && matches[c->subs[k].source][w.notes[i].name];
        live->subs &= (uint8_t)~(1u << at);
        replay->subs &= (uint8_t)~(1u << at);
        if (!live->subs && !live->is_done && live->want != NO) live->want = is_other ? MAY : NO;
        if (!replay->subs && replay->want == MUST) replay->want = MAY;
        // What this subscription had passed, a replay that waits may bring now.
        if (w.notes[i].seq <= mark && !is_due(replay)) replay->want = MAY, replay->is_done = false;
    }
    c->subs[at].is_used = false;
    sum.parts++;
    look();
    look_at_marks();
}

static void wake(client *c) {
    if (!c->reader.is_blocked) return;
    c->reader.is_blocked = false;
    rp_hub_again(w.hub, &c->reader);
}

static void heartbeat(client *c) {
    if (c->reader.is_blocked || c->is_poll || c->reader.replays || c->reader.ahead > w.hub->log.head) return;
    if (!rp_reader_is_behind(&c->reader)) rp_reader_level(w.hub, &c->reader); // what is told is written down
    own_put(c, 'h', 0, false, rp_reader_cursor(w.hub, &c->reader), 0, NULL, 0);
    rp_hub_again(w.hub, &c->reader);
    sum.heartbeats++;
}

// Everybody drains; then everybody has everything.
static void settle(void) {
    rtpush_hub *hub = w.hub;
    say("settle");
    for (int i = 0; i < w.client_count; i++)
        if (w.clients[i].is_open) w.clients[i].flow = FLOWS, wake(&w.clients[i]);
    for (int turn = 0; rp_hub_has_work(hub); turn++) {
        if (turn == 20000) broke("the hub never comes to rest");
        flush();
    }
    for (int i = 0; i < w.client_count; i++) {
        client *c = &w.clients[i];
        if (!c->is_open) continue;
        must_have(c, hub->log.head, "rest, at");
        for (int k = 0; k < JOBS; k++)
            if (c->jobs[k].is_used && !c->jobs[k].is_cancelled) broke("reader %d got no ack for its replay", c->number);
        if (c->reader.rest.block || heap_size(&c->own) || heap_size(&c->in) || c->reader.is_blocked) broke("reader %d has a rest at rest", c->number);
        if (rp_reader_lag(&c->reader)) broke("reader %d has a lag at rest", c->number);
        if (rp_reader_cursor(hub, &c->reader) != RP_MAX(hub->log.head, c->reader.ahead)) broke("reader %d has a cursor below the head at rest", c->number);
    }
    sum.quiet++;
}

// ============================================================================
// a life
// ============================================================================

static void life_open(void) {
    static const int64_t counts[] = {1, 2, 3, 5, 8, 20, 100, -1}, byte_sizes[] = {200, 1000, 8000, 1048576, 1048576, 1048576}, ages[] = {20, 300, -1, 3600000, 3600000};
    static const int64_t totals[] = {1500, 8000, 40000, 67108864, 67108864, 67108864}, deads[] = {1, 2, 3, 16384}, tops[] = {3, 5, 8, 100000, 100000};
    static const int slows[] = {RTPUSH_SLOW_CLOSE, RTPUSH_SLOW_SKIP, RTPUSH_SLOW_SKIP, RTPUSH_SLOW_LATEST};
    static const rtpush_bus bus = {"none", NULL, NULL, NULL, NULL, NULL};
    rtpush_hub *hub = calloc(1, sizeof *hub);
    if (!hub) exit(3);
    w.hub = hub;
    w.now = 1000000 + below(100000);
    w.allocations = 0;
    w.fails = false;
    w.failures = 0;
    w.note_count = w.held_count = 0;
    memset(w.lost, 0, sizeof w.lost);
    memset(w.cleared, 0, sizeof w.cleared);
    memset(w.mark, 0, sizeof w.mark);
    memset(w.used, 0, sizeof w.used);
    memset(w.readers, 0, sizeof w.readers);
    w.use = 0;
    w.floor = w.last_safe = 0;
    w.is_making_room = false;
    hub->mem.alloc = count_alloc;
    hub->desc.connections_max = 1;
    hub->desc.history = PICK(counts);
    hub->desc.history_bytes = PICK(byte_sizes);
    hub->desc.history_ms = PICK(ages);
    hub->desc.history_total_bytes = PICK(totals);
    hub->desc.dead_max = PICK(deads);
    hub->desc.topics_max = PICK(tops);
    hub->desc.patterns_max = one_in(3) ? 2 : 1000;
    hub->desc.writes_per_turn = one_in(2) ? 1 + below(5) : 1024;
    hub->desc.slow = PICK(slows);
    w.seq_step = 0;
    w.has_tiny = one_in(3);
    w.may_fail = one_in(6);
    if (w.has_tiny && hub->desc.slow == RTPUSH_SLOW_LATEST) hub->desc.slow = RTPUSH_SLOW_SKIP;
    if (one_in(4)) hub->desc.bus = &bus, w.seq_step = 1 + below(4);
    rp_desc_fill(&hub->desc);
    for (unsigned i = 0; i < sizeof hub->hash_key; i++) ((unsigned char *)&hub->hash_key)[i] = (unsigned char)below(256);
    memcpy(hub->log.epoch, "k3f9x2ab", 9);
    hub->log.mem = &hub->mem;
    if (one_in(5)) { // as after a load: nobody knows what was below
        hub->log.head = hub->log.floor = hub->log.safe = 1 + below(30);
        w.floor = w.last_safe = hub->log.floor;
    }
    hub->quiet.quiet_next = hub->quiet.quiet_prev = &hub->quiet;
    rp_wheel_init(&hub->wheel, w.now);
    if (!rp_table_init(&hub->mem, &hub->names) || !rp_table_init(&hub->mem, &hub->dead)) exit(3);
    for (unsigned i = below(3); i-- > 0;) {
        rtpush_topic_desc rule;
        memset(&rule, 0, sizeof rule);
        if (one_in(2)) rule.history = PICK(counts);
        if (one_in(3)) rule.history_bytes = PICK(byte_sizes);
        if (one_in(3)) rule.history_ms = PICK(ages);
        if (!w.has_tiny) rule.slow = PICK(slows);
        rtpush_configure(hub, source_names[below(SOURCES)], &rule);
    }
    // Names and patterns that happen in this life, names twice as often.
    w.source_count = 0;
    w.name_count = 2 + (int)below(7);
    for (int i = 0; i < w.name_count; i++) w.sources[w.source_count++] = (uint8_t)below(NAMES);
    for (unsigned i = below(5); i-- > 0;) w.sources[w.source_count++] = (uint8_t)(NAMES + below(PATTERNS));
    w.client_count = 1 + (int)(one_in(4) ? below(CLIENTS) : CLIENTS - below(3) - 1);
    for (int i = 0; i < w.client_count; i++) {
        client *c = &w.clients[i];
        heap own = c->own, in = c->in;
        memset(c, 0, offsetof(client, want));
        c->own = own;
        c->in = in;
        heap_clear(&c->own);
        heap_clear(&c->in);
        c->number = i;
    }
}

static void life_close(void) {
    rtpush_hub *hub = w.hub;
    w.fails = w.may_fail = false;
    settle();
    for (int i = 0; i < w.client_count; i++)
        if (w.clients[i].is_open) client_end(&w.clients[i]);
    look();
    flush();
    look_at_blocks();
    if (hub->stats.subscriptions) broke("subscriptions are left when everybody has gone");
    rp_log_free(&hub->log);
    rp_names_free(hub);
    rp_buf_free(&hub->mem, &hub->text);
    if (w.allocations) broke("%lu allocations are left at the end", w.allocations);
    free(hub);
}

static void publish_some(void) {
    unsigned count = one_in(3) ? 1 + below(6) : one_in(40) ? 60 + below(90) : 1;
    unsigned name = w.sources[below((unsigned)w.name_count)];
    for (unsigned i = 0; i < count; i++) {
        if (one_in(4)) name = w.sources[below((unsigned)w.name_count)];
        publish(name, one_in(8));
    }
}

static void act(void) {
    w.fails = w.may_fail && one_in(3);
    client *c = &w.clients[below((unsigned)w.client_count)];
    unsigned what = below(100);
    if (what < 32) publish_some();
    else if (what < 60) flush();
    else if (what < 63) advance(one_in(2) ? below(20) : below(400));
    else if (what < 66) {
        if (!w.has_tiny) clear(w.sources[below((unsigned)w.name_count)]);
    } else if (what < 68) check_all();
    else if (what < 69) {
        if (one_in(2)) settle();
        else configure(below(SOURCES));
    } else if (what < 70) look_at_blocks();
    else if (!c->is_open) open_reader(c);
    else if (what < 79) {
        if (!w.has_tiny) join(c);
    } else if (what < 82) {
        if (!w.has_tiny) part(c);
    } else if (what < 85) c->flow = c->is_poll ? FLOWS : (enum flow)below(3);
    else if (what < 91) wake(c);
    else if (what < 94) heartbeat(c);
    else if (what < 95) {
        if (!c->is_poll) own_put(c, 'p', 0, false, 0, 0, filler, below(600)), rp_hub_again(w.hub, &c->reader);
    } else if (what < 98) {
        say("reader %d goes", c->number);
        client_end(c);
        look();
        look_at_marks();
        reap();
    }
}

static bool live(uint64_t seed) {
    chance_state = seed * 0x2545f4914f6cdd1du + 1;
    if (setjmp(life_over)) return false;
    life_open();
    for (unsigned i = 40 + below(120); i-- > 0;) act();
    life_close();
    sum.runs++;
    return true;
}

// ============================================================================
// scenarios
// ============================================================================

static int passed_count, failed_count;

// Runs a scenario in a life of its own; `setup` limits are set by it.
static void scenario(const char *name, void (*play)(void)) {
    chance_state = 7;
    if (setjmp(life_over)) {
        printf("not ok %s: %s\n", name, why);
        failed_count++;
        return;
    }
    play();
    life_close();
    printf("ok %s\n", name);
    passed_count++;
}

static void scenario_open(void) {
    life_open();
    rtpush_desc *d = &w.hub->desc;
    d->history = 10;
    d->history_bytes = 1048576;
    d->history_ms = 3600000;
    d->history_total_bytes = 67108864;
    d->dead_max = 16384;
    d->topics_max = 100000;
    d->patterns_max = 1000;
    d->writes_per_turn = 1024;
    d->slow = RTPUSH_SLOW_SKIP;
    d->bus = NULL;
    w.seq_step = 0;
    w.may_fail = w.has_tiny = false;
    while (w.hub->rules) {
        rp_rule *next = w.hub->rules->next;
        rp_mem_free(&w.hub->mem, w.hub->rules);
        w.hub->rules = next;
    }
    w.client_count = CLIENTS;
    for (int i = 0; i < CLIENTS; i++) {
        memset(&w.clients[i].reader, 0, sizeof w.clients[i].reader);
        w.clients[i].is_open = w.clients[i].is_over = false;
        w.clients[i].number = i;
        w.clients[i].opened = 0;
        drop_subs(&w.clients[i]);
    }
}

// A reader of the sources that stands from its first byte on.
static void scenario_reader(client *c, const rp_wire *wire, const char *const *names, enum flow flow) {
    rp_start start = rp_start_parse(rp_slice_of("latest"));
    rp_gap gap;
    int code = RTPUSH_OK;
    bool reads[NAMES] = {false};
    rp_reader_init(&c->reader, wire);
    c->flow = flow;
    c->room = 4096;
    for (unsigned k = 0; names[k]; k++) {
        unsigned source = 0;
        while (strcmp(source_names[source], names[k])) source++;
        rp_reader_add(w.hub, &c->reader, rp_hub_source(w.hub, rp_slice_of(names[k]), &code), w.hub->log.head);
        c->subs[k].is_used = true;
        c->subs[k].source = (uint8_t)source;
        for (unsigned name = 0; name < NAMES; name++) reads[name] |= matches[source][name];
    }
    verdict v = should_start(&start, reads);
    rp_reader_start(w.hub, &c->reader, &start, &gap);
    expect(c, &start, &v, &gap);
    c->is_open = true;
}

// DESIGN: a slow reader costs O(1) memory, not a queue. 2,900 messages, 3 MB, go past readers that take nothing: what
// the hub holds is bounded by retention and one half-sent message each, and does not grow.
static void play_stalled(void) {
    static const char *const one[] = {"a", NULL}, *const some[] = {"a", "b", NULL}, *const wild[] = {"**", NULL}, *const both[] = {"a", "a/**", "b", NULL};
    static const char *const *const reads[] = {one, some, wild, both, one, some, wild, both};
    unsigned long allocations = 0;
    uint64_t bytes = 0;
    scenario_open();
    for (int i = 0; i < CLIENTS; i++) scenario_reader(&w.clients[i], &wires[i < 4 ? i : i == 4 ? 4 : i - 4], reads[i], STANDS);
    for (int round = 0; round < 290; round++) {
        for (int i = 0; i < 10; i++) publish(i % 2 ? 0 : 1, false);
        flush();
        if (round == 20) allocations = w.allocations, bytes = w.hub->log.bytes;
        // twice what two topics of ten messages may hold at the largest size drawn here, in five spellings
        if (round > 20 && w.allocations > allocations + 40) broke("%lu allocations after %d rounds, %lu after 20", w.allocations, round, allocations);
        if (round > 20 && w.hub->log.bytes > bytes + 20u * 5u * 2u * 31000u) broke("the log grows: %" PRIu64 " bytes", w.hub->log.bytes);
        for (int i = 0; i < CLIENTS; i++)
            if (heap_size(&w.clients[i].own) > w.clients[i].room + 31000) broke("own bytes grow");
    }
    look_at_blocks();
}

// One that stands must not hold others up, and a small budget must not starve anybody: all that flow have all, each turn.
static void play_fair(void) {
    static const char *const one[] = {"a", NULL};
    scenario_open();
    w.hub->desc.writes_per_turn = 3;
    for (int i = 0; i < CLIENTS; i++) scenario_reader(&w.clients[i], &wires[0], one, i ? FLOWS : STANDS);
    for (int round = 0; round < 100; round++) { // a publish in each turn: the walk never ends
        publish(0, false);
        flush();
        for (int i = 1; i < CLIENTS && round > 10; i++)
            if (w.clients[i].last + 10 < w.hub->log.head) broke("reader %d is %" PRIu64 " behind", i, w.hub->log.head - w.clients[i].last);
    }
}

// ============================================================================
// main
// ============================================================================

static void tell(double seconds) {
#define TELL(field) printf("  %-18s %12" PRIu64 "\n", #field, sum.field)
    TELL(runs); TELL(published); TELL(ephemerals); TELL(large); TELL(delivered); TELL(replayed); TELL(acks); TELL(polls);
    TELL(starts); TELL(resumes); TELL(joins); TELL(parts); TELL(gaps_at_start); TELL(gaps_later); TELL(closes);
    TELL(evictions); TELL(missed_ephemerals); TELL(clears); TELL(births); TELL(deaths); TELL(floors); TELL(made_room); TELL(refused);
    TELL(flushes); TELL(partial); TELL(shorts); TELL(split); TELL(heartbeats); TELL(quiet); TELL(rechecks);
#undef TELL
    printf("  %-18s %12.1f\n", "seconds", seconds);
}

static volatile uint64_t seeds_so_far;

// With a rule broken anything may happen: a crash and an endless loop are finds, too.
static void on_signal(int number) {
    char line[80];
    int n = snprintf(line, sizeof line, "found after %" PRIu64 ": %s\n", seeds_so_far, number == SIGALRM ? "does not end" : "crash");
    if (n > 0 && write(1, line, (size_t)n) < 0) _exit(3);
    _exit(1);
}

// Lives that failed once, too rare for chance to find them again soon; they come after the others.
static const uint64_t kept_seeds[] = {61198, 78586, 162524, 187140, 236605, 292781, 294029, 367194};
enum { KEPT = sizeof kept_seeds / sizeof *kept_seeds };

int main(int argc, char **argv) {
    uint64_t runs = 10000, first = 1, passed = 0, failed = 0;
    bool is_until = false;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--runs") && i + 1 < argc) runs = strtoull(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--first") && i + 1 < argc) first = strtoull(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--seed") && i + 1 < argc) first = strtoull(argv[++i], NULL, 10), runs = 1;
        else if (!strcmp(argv[i], "--verbose")) is_verbose = true;
        else if (!strcmp(argv[i], "--until")) is_until = true;
        else if (!strcmp(argv[i], "--blind")) is_blind = true;
#ifdef MODEL_BREAKS
        else if (!strcmp(argv[i], "--break") && i + 1 < argc) broken_rule = strtol(argv[++i], NULL, 10);
#endif
        else return fprintf(stderr, "model: what is %s?\n", argv[i]), 2;
    }
    for (size_t i = 0; i < sizeof filler; i++) filler[i] = (char)('a' + (i * 7 + i / 26) % 26);
    for (unsigned s = 0; s < SOURCES; s++)
        for (unsigned n = 0; n < NAMES; n++) matches[s][n] = should_match(source_names[s], source_names[n]);
    if (is_until) {
        const int numbers[] = {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGALRM};
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) signal(numbers[i], on_signal);
        alarm(100);
    }
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (uint64_t i = 0, all = runs + (runs > 1 ? KEPT : 0); i < all; i++) {
        uint64_t seed = i < runs ? first + i : kept_seeds[i - runs];
        seeds_so_far = i + 1;
        if (live(seed)) continue;
        failed++;
        if (is_until) {
            printf("found after %" PRIu64 ": %s\n", seeds_so_far, why);
            fflush(stdout);
            _exit(1);
        }
        printf("not ok model_seed_%" PRIu64 ": %s\n", seed, why);
        if (failed == 20) break;
    }
    clock_gettime(CLOCK_MONOTONIC, &to);
    if (runs > 1) tell((double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9);
    if (!failed) printf("ok model_%" PRIu64 "_lives_against_the_oracle\n", runs), passed++;
    if (runs > 1) {
        scenario("a_slow_reader_costs_no_queue", play_stalled);
        scenario("a_walk_that_never_ends_starves_nobody", play_fair);
    }
    passed += (uint64_t)passed_count;
    failed += (uint64_t)failed_count;
    printf("%" PRIu64 " passed, %" PRIu64 " failed\n", passed, failed);
    fflush(stdout);
    if (failed) _exit(1); // what a broken life left behind is no leak of its own
    return 0;
}
