// What a journal is to hold: a list of publishes and DELETEs, and the state after each beginning of that list. Whatever
// is loaded must be one of those states. For cut.c and crash.c, which include it once; it includes the library.
#ifndef JOURNAL_ORACLE_H
#define JOURNAL_ORACLE_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define RTPUSH_IMPLEMENTATION
#define RTPUSH_STATIC
#include "../../rtpush.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OPS = 512, TOPICS = 5, HISTORY = 3, DATA_MAX = 72 };
static const char *const topics[TOPICS] = {"a", "b/c", "ü", "seldom", "never"};

typedef struct op {
    int topic, kind;
    bool is_clear, is_ephemeral, is_key;
    char event[16], data[DATA_MAX], key[16];
    size_t size;
    uint64_t seq; // that it has, or will have; of a DELETE 0
} op;

// The n-th, always the same: all kinds of publish, few topics, so that much is evicted.
static op op_make(int n) {
    op o;
    memset(&o, 0, sizeof o);
    o.topic = n % 13 == 5 ? 3 : n % 3;
    o.is_clear = n % 11 == 9;
    o.is_ephemeral = !o.is_clear && n % 7 == 4;
    o.is_key = !o.is_clear && n % 5 == 2;
    o.kind = n % 4 == 1 ? RTPUSH_JSON : n % 4 == 3 ? RTPUSH_BINARY : RTPUSH_TEXT;
    if (n % 6 == 1) snprintf(o.event, sizeof o.event, "event%d", n);
    if (o.is_key) snprintf(o.key, sizeof o.key, "key%d", n);
    if (o.kind == RTPUSH_JSON) snprintf(o.data, sizeof o.data, "{\"n\":%d}", n);
    else if (n % 8) snprintf(o.data, sizeof o.data, "%d %.*s", n, n * 7 % 40, "----------------------------------------");
    o.size = strlen(o.data);
    if (o.kind == RTPUSH_BINARY) o.data[o.size++] = '\xff';
    return o;
}

typedef struct state {
    int held[TOPICS][HISTORY], count[TOPICS]; // of the list, oldest first
    uint64_t lost[TOPICS];                    // the highest seq that is no longer held
    uint64_t head;
} state;

static void state_add(state *s, const op *list, int at) {
    const op *o = &list[at];
    int *held = s->held[o->topic], *count = &s->count[o->topic];
    if (o->is_clear) {
        if (*count) s->lost[o->topic] = list[held[*count - 1]].seq;
        *count = 0;
        return;
    }
    s->head = o->seq;
    if (o->is_ephemeral) return;
    if (*count == HISTORY) {
        s->lost[o->topic] = list[held[0]].seq;
        memmove(held, held + 1, (HISTORY - 1) * sizeof *held);
        --*count;
    }
    held[(*count)++] = at;
}

static state state_after(const op *list, int count) {
    state s;
    memset(&s, 0, sizeof s);
    for (int i = 0; i < count; i++) state_add(&s, list, i);
    return s;
}

// --- a hub on a journal ---

static char said[4096]; // by on_log, for a failure's report

static void on_log(rtpush_hub *hub, const char *line, void *user) {
    (void)hub, (void)user;
    size_t size = strlen(said);
    snprintf(said + size, sizeof said - size, "    log: %s\n", line);
}

static rtpush_hub *hub_open(const char *dir, const rtpush_journal_desc *how, int *code) {
    rtpush_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.history = HISTORY;
    desc.on_log = on_log;
    desc.backend_name = "poll";
    desc.bus = rtpush_journal(dir, how);
    *said = 0;
    return rtpush_create_ex(&desc, code);
}

static void on_done(rtpush_hub *hub, uint64_t ticket, uint64_t seq, int code, void *user) {
    (void)hub, (void)ticket;
    *(uint64_t *)user = code ? UINT64_MAX : seq;
}

// Hands it over; *seq is 0 until it has ended, UINT64_MAX if it was refused.
static void hand_over(rtpush_hub *hub, const op *o, uint64_t *seq) {
    rtpush_publication what;
    memset(&what, 0, sizeof what);
    what.topic = topics[o->topic];
    what.event = o->event;
    what.data = o->data;
    what.size = o->size;
    what.kind = o->kind;
    what.ephemeral = o->is_ephemeral;
    what.clear = o->is_clear;
    what.key = o->key;
    what.done = on_done;
    what.done_user = seq;
    *seq = 0;
    if (rtpush_publish_ex(hub, &what, NULL)) *seq = UINT64_MAX;
}

// One publish, and its end. UINT64_MAX: refused.
static uint64_t publish(rtpush_hub *hub, const op *o) {
    uint64_t seq;
    hand_over(hub, o, &seq);
    for (int turn = 0; turn < 3 && !seq; turn++) rtpush_step(hub, 0);
    return seq;
}

// --- is it that state? ---

typedef struct comparison {
    const op *list;
    const int *held;
    int count, at;
    bool is_same;
} comparison;

static bool compare(const rtpush_message *m, void *user) {
    comparison *c = (comparison *)user;
    const op *o = c->at < c->count ? &c->list[c->held[c->at++]] : NULL;
    c->is_same = c->is_same && o && m->seq == o->seq && m->kind == o->kind && !strcmp(m->event, o->event) && m->size == o->size && !memcmp(m->data, o->data, o->size);
    return c->is_same;
}

static bool is_state(rtpush_hub *hub, const op *list, const state *s) {
    for (int t = 0; t < TOPICS; t++) {
        comparison c = {list, s->held[t], s->count[t], 0, true};
        rtpush_history(hub, topics[t], 0, compare, &c);
        if (!c.is_same || c.at != c.count || rp_hub_lost(hub, rp_slice_of(topics[t])) != s->lost[t]) return false;
    }
    return true;
}

static bool is_known(const rtpush_message *m, void *user) {
    comparison *c = (comparison *)user;
    bool is_found = false;
    for (int i = 0; i < c->count && !is_found; i++) {
        const op *o = &c->list[i];
        is_found = m->seq == o->seq && !strcmp(m->topic, topics[o->topic]) && m->kind == o->kind && m->size == o->size && !memcmp(m->data, o->data, o->size);
    }
    c->is_same &= is_found;
    return true;
}

// Is all that it holds what was published?
static bool holds_only(rtpush_hub *hub, const op *list, int count) {
    comparison c = {list, NULL, count, 0, true};
    for (int t = 0; t < TOPICS; t++) rtpush_history(hub, topics[t], 0, is_known, &c);
    return c.is_same;
}

// The longest beginning of the list, of at most `most`, whose state it is; -1: none.
static int prefix_of(rtpush_hub *hub, const op *list, int most) {
    for (int n = most; n >= 0; n--) {
        state s = state_after(list, n);
        if (is_state(hub, list, &s)) return n;
    }
    return -1;
}

static void epoch_of(rtpush_hub *hub, char epoch[9]) {
    char text[32];
    memcpy(epoch, rtpush_cursor_text(hub, text), 8);
    epoch[8] = 0;
}

static uint64_t head_of(rtpush_hub *hub) {
    char text[32];
    return strtoull(rtpush_cursor_text(hub, text) + 9, NULL, 10);
}

// --- failures ---

static int wrongs, checks;

// At most three of a sort are printed, and of all counted.
__attribute__((format(printf, 1, 2))) static void wrong(const char *format, ...) {
    static const char *seen[64];
    static int times[64];
    int i = 0;
    va_list list;
    va_start(list, format);
    while (i < 63 && seen[i] && seen[i] != format) i++;
    seen[i] = format;
    wrongs++;
    if (++times[i] <= 3) {
        printf("wrong: ");
        vprintf(format, list);
        printf("\n%s", said);
    }
    va_end(list);
}

static int report(const char *name) {
    printf("%s: %d checks, %d wrong\n", name, checks, wrongs);
    fflush(stdout);
    return wrongs ? 1 : 0;
}

// --- files ---

typedef struct file {
    char name[64];
    unsigned char *bytes;
    size_t size;
} file;

typedef struct files {
    file at[64];
    int count;
} files;

static int by_name(const void *a, const void *b) { return strcmp(((const file *)a)->name, ((const file *)b)->name); }

__attribute__((unused)) static files files_read(const char *dir) {
    files all;
    memset(&all, 0, sizeof all);
    DIR *d = opendir(dir);
    char path[512];
    for (struct dirent *item; d && (item = readdir(d));) {
        if (item->d_name[0] == '.' || all.count == 64) continue;
        file *f = &all.at[all.count];
        struct stat st;
        snprintf(f->name, sizeof f->name, "%.63s", item->d_name);
        snprintf(path, sizeof path, "%s/%s", dir, f->name);
        int fd = open(path, O_RDONLY);
        if (fd < 0 || fstat(fd, &st)) abort();
        f->size = (size_t)st.st_size;
        f->bytes = (unsigned char *)malloc(f->size + 1);
        if (read(fd, f->bytes, f->size) != (ssize_t)f->size) abort();
        close(fd);
        all.count++;
    }
    if (d) closedir(d);
    qsort(all.at, (size_t)all.count, sizeof *all.at, by_name);
    return all;
}

__attribute__((unused)) static void files_free(files *all) {
    for (int i = 0; i < all->count; i++) free(all->at[i].bytes);
    all->count = 0;
}

static void dir_empty(const char *dir) {
    DIR *d = opendir(dir);
    char path[600];
    if (!d) { mkdir(dir, 0700); return; }
    for (struct dirent *item; (item = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", dir, item->d_name);
        if (strcmp(item->d_name, ".") && strcmp(item->d_name, "..")) unlink(path);
    }
    closedir(d);
}

static void file_write(const char *dir, const char *name, const void *bytes, size_t size) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, bytes, size) != (ssize_t)size) abort();
    close(fd);
}

__attribute__((unused)) static void files_write(const char *dir, const files *all) {
    dir_empty(dir);
    for (int i = 0; i < all->count; i++) file_write(dir, all->at[i].name, all->at[i].bytes, all->at[i].size);
}
#endif
