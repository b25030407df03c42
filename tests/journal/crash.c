// The process dies before, or in the middle of, each system call that the journal makes; the machine loses its power
// there, and what no fsync has brought to the disk is gone; each call fails, and some after it, and then the disk works
// again. What is loaded afterwards has all that was acknowledged, in its order, and no number names two messages.
//
//     crash kill|power|fail|fail-power FOLDER      FOLDER.disk is a second one, for what is left of a power loss
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

// Every call of the library that changes a file comes by here. They are named after the headers were read.
static int seam_open(const char *path, int flags, ...);
static ssize_t seam_pwrite(int fd, const void *bytes, size_t size, off_t at);
static int seam_ftruncate(int fd, off_t size);
static int seam_fdatasync(int fd);
static int seam_fsync(int fd);
static int seam_rename(const char *from, const char *to);
static int seam_unlink(const char *path);
#define open seam_open
#define pwrite seam_pwrite
#define ftruncate seam_ftruncate
#define fdatasync seam_fdatasync
#define fsync seam_fsync
#define rename seam_rename
#define unlink seam_unlink
#include "oracle.h"
#undef open
#undef pwrite
#undef ftruncate
#undef fdatasync
#undef fsync
#undef rename
#undef unlink

// What the child tells its parent, whenever it dies.
typedef struct told {
    op list[OPS];
    int count, acked, refused;
    long calls;
    bool is_through;
    char epoch[9], wrong[200], last_call[64];
} told;
static told *T;
static char dir[256], disk[300];

// --- the plan, and the seam ---

static struct {
    bool is_armed;
    bool dies, is_power; // at the call `at`; else it fails, and burst-1 after it
    bool is_half;        // a write is half done first
    bool keeps_names;    // of a power loss: names are on the disk without an fsync of the directory
    bool keeps_head;     // and the head's bytes, too
    long at, burst;
    int error;
} P;

// What is on the disk: of each file what the last fsync brought there. After a failed one the kernel forgets that the
// pages are dirty: they are never written unless somebody writes them again.
enum { NODES = 256 };
static struct node {
    ino_t ino;
    char *bytes;
    size_t size;       // on the disk
    off_t bad, bad_to; // forgotten by a failed fsync
} nodes[NODES];
static struct { char name[64]; ino_t ino; } names[64];
static int name_count;

static struct node *node_of(ino_t ino) {
    int i = 0;
    while (i < NODES - 1 && nodes[i].ino && nodes[i].ino != ino) i++;
    nodes[i].ino = ino;
    return &nodes[i];
}

static void disk_sync(int fd, bool is_failed) {
    struct stat st;
    if (fstat(fd, &st)) return;
    struct node *n = node_of(st.st_ino);
    if (is_failed) {
        if (n->bad >= n->bad_to) n->bad = (off_t)n->size;
        n->bad_to = st.st_size;
        return;
    }
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = open(path, O_RDONLY);
    n->bytes = (char *)realloc(n->bytes, (size_t)st.st_size + 1);
    n->size = again < 0 ? 0 : (size_t)read(again, n->bytes, (size_t)st.st_size);
    close(again);
    for (off_t i = n->bad; i < n->bad_to && i < st.st_size; i++) n->bytes[i] = 0;
}

static void disk_sync_names(void) {
    DIR *d = opendir(dir);
    name_count = 0;
    for (struct dirent *item; d && (item = readdir(d)) && name_count < 64;) {
        if (*item->d_name == '.') continue;
        snprintf(names[name_count].name, sizeof names->name, "%.63s", item->d_name);
        names[name_count++].ino = item->d_ino;
    }
    if (d) closedir(d);
}

static void power_loss(void) {
    char path[400];
    if (P.keeps_names) disk_sync_names();
    dir_empty(disk);
    for (int i = 0; i < name_count; i++) {
        struct node *n = node_of(names[i].ino);
        snprintf(path, sizeof path, "%s/%s", dir, names[i].name);
        int fd = P.keeps_head && !strcmp(names[i].name, "head") ? open(path, O_RDONLY) : -1;
        if (fd >= 0) disk_sync(fd, false), close(fd);
        file_write(disk, names[i].name, n->bytes ? n->bytes : "", n->bytes ? n->size : 0);
    }
}

// false: this call fails, errno says how. Does not return where the process dies.
static bool may(const char *call, int fd, const void *bytes, size_t size, off_t at) {
    if (!P.is_armed) return true;
    long number = T->calls++;
    if (number == P.at) snprintf(T->last_call, sizeof T->last_call, "%s", call);
    if (P.dies ? number != P.at : number < P.at || number >= P.at + P.burst) return true;
    // A kill does not cut the head's few bytes, which are one copy inside the kernel.
    bool is_half = P.is_half && number == P.at && size > 1 && (size > RP_HEAD_BYTES || P.is_power || !P.dies);
    if (is_half && pwrite(fd, bytes, size / 2, at) < 0) abort();
    if (!P.dies) { errno = P.error; return false; }
    if (P.is_power) P.is_armed = false, power_loss();
    _exit(0);
}

static int seam_open(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    int mode = flags & O_CREAT ? va_arg(list, int) : 0;
    va_end(list);
    bool is_ours = !strncmp(path, dir, strlen(dir));
    if (is_ours && !may(flags & O_CREAT ? "open to write" : "open", -1, NULL, 0, 0)) return -1;
    return open(path, flags, mode);
}

static ssize_t seam_pwrite(int fd, const void *bytes, size_t size, off_t at) {
    struct stat st;
    long number = T->calls;
    if (!may("pwrite", fd, bytes, size, at)) return P.is_half && number == P.at && size > 1 ? (ssize_t)(size / 2) : -1;
    ssize_t n = pwrite(fd, bytes, size, at);
    if (P.is_armed && n > 0 && !fstat(fd, &st)) { // written again: no longer forgotten
        struct node *node = node_of(st.st_ino);
        if (at <= node->bad && at + n > node->bad) node->bad = at + n;
    }
    return n;
}

static int seam_ftruncate(int fd, off_t size) {
    struct stat st;
    if (!may("ftruncate", fd, NULL, 0, 0)) return -1;
    if (P.is_armed && !fstat(fd, &st)) {
        struct node *n = node_of(st.st_ino);
        if (n->bad_to > size) n->bad_to = size;
    }
    return ftruncate(fd, size);
}

static int seam_sync(const char *call, int fd) {
    struct stat st;
    bool is_dir = !fstat(fd, &st) && S_ISDIR(st.st_mode), is_fine = may(call, -1, NULL, 0, 0);
    if (P.is_armed && is_dir && is_fine) disk_sync_names();
    if (P.is_armed && !is_dir) disk_sync(fd, !is_fine);
    return is_fine ? 0 : -1;
}

static int seam_fdatasync(int fd) { return seam_sync("fdatasync", fd); }
static int seam_fsync(int fd) { return seam_sync("fsync", fd); }
static int seam_rename(const char *from, const char *to) { return may("rename", -1, NULL, 0, 0) ? rename(from, to) : -1; }
static int seam_unlink(const char *path) { return may("unlink", -1, NULL, 0, 0) ? unlink(path) : -1; }

// --- the child ---

enum { PUBLISHES = 36, TRIES = 12 };

// Hands over up to `size` more and waits for their end. Refused: they are the next to be tried again.
static bool batch(rtpush_hub *hub, int size) {
    uint64_t seqs[8], seq = state_after(T->list, T->acked).head;
    T->count = T->acked;
    for (int i = 0; i < size; i++) {
        op o = op_make(T->count);
        o.seq = o.is_clear ? 0 : ++seq;
        T->list[T->count] = o; // before it can be in a file
        T->count++;
        hand_over(hub, &o, &seqs[i]);
    }
    for (int turn = 0; turn < 3; turn++) rtpush_step(hub, 0);
    int fine = 0;
    for (int i = 0; i < size; i++) fine += seqs[i] != UINT64_MAX && (seqs[i] || T->list[T->acked + i].is_clear);
    for (int i = 0; i < size && fine; i++) {
        const op *o = &T->list[T->acked + i];
        if (fine != size) snprintf(T->wrong, sizeof T->wrong, "%d of a batch of %d are acknowledged", fine, size);
        else if (!o->is_clear && seqs[i] != o->seq) snprintf(T->wrong, sizeof T->wrong, "publish %d has %" PRIu64 ", not %" PRIu64, T->acked + i, seqs[i], o->seq);
    }
    if (fine == size) T->acked = T->count;
    else T->refused++;
    return fine == size;
}

static void child(const rtpush_journal_desc *how) {
    int code;
    P.is_armed = true;
    rtpush_hub *hub = hub_open(dir, how, &code);
    for (int tries = 0; !hub && tries < TRIES; tries++) hub = hub_open(dir, how, &code);
    if (!hub) { snprintf(T->wrong, sizeof T->wrong, "it never starts: %s", rtpush_strerror(code)); _exit(0); }
    epoch_of(hub, T->epoch);
    for (int tries = 0, size = 1; T->acked < PUBLISHES && !*T->wrong; size = size % 4 + 1) {
        tries = batch(hub, size) ? 0 : tries + 1;
        if (tries > TRIES) snprintf(T->wrong, sizeof T->wrong, "it does not heal: %.150s", said + (strlen(said) > 150 ? strlen(said) - 150 : 0));
    }
    T->is_through = true;
    P.is_armed = false;
    if (P.is_power) power_loss();
    _exit(0);
}

// --- the parent ---

static long cautious; // all is there, and yet the epoch is new

static void look(const rtpush_journal_desc *how, const char *where, const char *what) {
    int code;
    char now[9];
    checks++;
    if (*T->wrong) { wrong("%s: %s", what, T->wrong); return; }
    rtpush_hub *hub = hub_open(where, how, &code);
    if (!hub) { wrong("%s: it does not start: %s", what, rtpush_strerror(code)); return; }
    rtpush_step(hub, 0);
    int n = prefix_of(hub, T->list, T->count);
    uint64_t head = head_of(hub), given = state_after(T->list, T->acked).head;
    epoch_of(hub, now);
    bool is_same = !strcmp(now, T->epoch);
    if (n < 0) wrong("%s: what it holds was never the state (%d acknowledged, %d tried, head %" PRIu64 ")", what, T->acked, T->count, head);
    else if (n < T->acked) wrong("%s: %d were acknowledged, %d are there, %s epoch", what, T->acked, n, is_same ? "the same" : "another");
    if (*T->epoch && !is_same) cautious++;
    if (*T->epoch && !is_same && !P.is_power && P.dies) wrong("%s: killed, and the epoch is new", what);
    op one = op_make(1000);
    one.topic = 4;
    uint64_t seq = publish(hub, &one);
    if (seq == UINT64_MAX || seq <= head || (is_same && seq <= given)) wrong("%s: the next is %" PRIu64 ", given was %" PRIu64, what, seq, given);
    const char *broken = rtpush_check(hub);
    if (broken) wrong("%s: %s", what, broken);
    state s = state_after(T->list, n < 0 ? 0 : n);
    rtpush_destroy(hub);
    hub = hub_open(where, how, &code);
    if (!hub) { wrong("%s: it does not start again: %s", what, rtpush_strerror(code)); return; }
    char then[9];
    epoch_of(hub, then);
    rtpush_step(hub, 0);
    for (int t = 0; t < TOPICS - 1; t++)
        if (n >= 0 && rtpush_history(hub, topics[t], 0, NULL, NULL) != (size_t)s.count[t]) wrong("%s: %s changes by another restart", what, topics[t]);
    if (strcmp(then, now) || head_of(hub) != seq || rtpush_history(hub, topics[4], seq - 1, NULL, NULL) != 1) wrong("%s: the new message is gone by another restart", what);
    rtpush_destroy(hub);
}

static void run(const rtpush_journal_desc *how) {
    char what[256];
    memset(T, 0, sizeof *T);
    dir_empty(dir);
    dir_empty(disk);
    int status;
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) child(how);
    waitpid(pid, &status, 0);
    snprintf(what, sizeof what, "%s call %ld (%s%s), burst %ld%s%s, %s", P.dies ? "dies at" : "fails at", P.at, P.is_half ? "half " : "", T->last_call, P.burst,
             P.is_power ? ", power loss" : "", P.keeps_names ? P.keeps_head ? " but names and head" : " but names" : P.keeps_head ? " but head" : "",
             how->sync_always ? "always" : "off");
    if (!WIFEXITED(status) || WEXITSTATUS(status)) wrong("%s: the child ended by %x", what, status);
    look(how, P.is_power ? disk : dir, what);
}

int main(int argc, char **argv) {
    rtpush_journal_desc how;
    if (argc != 3) return 2;
    const char *name = argv[1];
    snprintf(dir, sizeof dir, "%s", argv[2]);
    snprintf(disk, sizeof disk, "%s.disk", argv[2]);
    T = (told *)mmap(NULL, sizeof *T, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memset(&how, 0, sizeof how);
    how.segment_bytes = 400; // so that segments end, and a base is made of them
    bool is_fail = !strncmp(name, "fail", 4), is_power = strstr(name, "power") != NULL;
    if (!is_fail && !is_power && strcmp(name, "kill")) return 2;
    int step = getenv("JOURNAL_LONG") ? 1 : is_fail ? 4 : is_power ? 2 : 1;
    // variant: bit 0 half writes; then of a kill the mode of fsync; of a power loss what is kept; of a failure the burst
    for (int variant = 0; variant < 16; variant++) {
        memset(&P, 0, sizeof P);
        how.sync_always = is_power || is_fail || variant & 2;
        how.sync_ms = how.sync_always ? 0 : -1;
        P.is_half = variant & 1;
        P.dies = !is_fail;
        P.is_power = is_power;
        P.keeps_names = variant & 2;
        P.keeps_head = variant & 4;
        P.burst = is_fail ? (long[]){1, 2, 3, 8}[variant >> 1 & 3] : 1;
        P.error = variant & 1 ? ENOSPC : EIO;
        if (is_fail && is_power) P.keeps_names = P.keeps_head = variant & 8;
        if (!is_fail && variant >= (is_power ? 8 : 4)) break;
        if (is_fail && !is_power && variant >= 8) break;
        for (P.at = variant % step; ; P.at += step) {
            run(&how);
            if (P.dies ? T->is_through : T->calls <= P.at) break;
        }
    }
    printf("%s: another epoch, though all was there: %ld\n", name, cautious);
    return report(name);
}
