// A journal whose files are cut at every byte, with every bit turned, with junk behind them, or missing: what is loaded is
// a beginning of what was published, and unless that is all of it, under another epoch. Never a crash, never an id twice.
//
//     cut cuts|flips|junk|early|missing|heads|tails FOLDER      the folder is made and emptied
#include "oracle.h"

static op list[OPS];
static int count;
static char epoch[9];
static char dir[256];
static bool is_quick; // without the second restart; of the cuts each eighth has it
static bool is_early; // before the first turn

typedef struct journal {
    files live, clean; // as a kill -9 leaves it, and a clean end
} journal;
static journal kept[16]; // all that were made, to be freed at the end
static int kept_count;


// The list's first `n`, published one a turn or `batch` a turn, with the last op of that kind if it says so.
static journal journal_make(int n, int batch, const rtpush_journal_desc *how, const op *last) {
    uint64_t seqs[OPS];
    int code;
    journal j;
    dir_empty(dir);
    rtpush_hub *hub = hub_open(dir, how, &code);
    if (!hub) { printf("no hub: %s\n%s", rtpush_strerror(code), said); exit(1); }
    for (count = 0; count < n; count++) {
        list[count] = count == n - 1 && last ? *last : op_make(count);
        hand_over(hub, &list[count], &seqs[count]);
        if (count % batch == batch - 1 || count == n - 1) rtpush_step(hub, 0);
    }
    rtpush_step(hub, 0);
    for (int i = 0; i < n; i++) {
        if (!seqs[i] && !list[i].is_clear) { printf("%d has no end\n", i); exit(1); }
        if (seqs[i] == UINT64_MAX) { printf("%d was refused\n%s", i, said); exit(1); }
        list[i].seq = list[i].is_clear ? 0 : seqs[i];
    }
    if (prefix_of(hub, list, n) != n) { printf("the oracle and the hub differ\n"); exit(1); }
    epoch_of(hub, epoch);
    j.live = files_read(dir);
    rtpush_destroy(hub);
    j.clean = files_read(dir);
    return kept[kept_count++] = j;
}

enum { ALL = 1, SAME = 2, NEW = 4, SOME_EPOCH = 8 }; // what is expected beyond the rules: all of it is there; the epoch

// Loads what is in the folder and holds it against the rules.
static void check(const rtpush_journal_desc *how, int expected, const char *what, const char *name, size_t at) {
    int code;
    char now[9];
    checks++;
    rtpush_hub *hub = hub_open(dir, how, &code);
    if (!hub) { wrong("%s %s %zu: it does not start: %s", what, name, at, rtpush_strerror(code)); return; }
    if (!is_early) rtpush_step(hub, 0);
    int n = prefix_of(hub, list, count);
    uint64_t given = state_after(list, count).head, head = head_of(hub);
    epoch_of(hub, now);
    bool is_same = !strcmp(now, epoch), is_all = n == count && head >= given;
    // A base is what was held, not what happened: a part of it was never the state, but what is left of it is true.
    bool is_base = !strcmp(name, "base.log") && n < 0 && !is_same && holds_only(hub, list, count);
    if (n < 0 && !is_base) wrong("%s %s %zu: what it holds was never the state", what, name, at);
    if (n < count && is_same) wrong("%s %s %zu: %d of %d are there, and the epoch is the same", what, name, at, n, count);
    if (is_all && !is_same && !(expected & (NEW | SOME_EPOCH))) wrong("%s %s %zu: all is there, but the epoch is new", what, name, at);
    if ((expected & ALL) && !is_all) wrong("%s %s %zu: %d of %d are there, nothing was to be lost", what, name, at, n, count);
    if ((expected & NEW) && is_same) wrong("%s %s %zu: the epoch is the same", what, name, at);
    if (is_same && head < given) wrong("%s %s %zu: the head fell from %" PRIu64 " to %" PRIu64, what, name, at, given, head);
    // A key of what is there answers it; one of what is lost publishes anew.
    for (int i = 0, left = 2; i < count && left && n >= 0; i++) {
        if (!list[i].is_key || (i < n && i + 14 < n)) continue;
        uint64_t seq = publish(hub, &list[i]);
        left--;
        if (i < n && seq != list[i].seq) wrong("%s %s %zu: the key of %" PRIu64 " answers %" PRIu64, what, name, at, list[i].seq, seq);
        if (i >= n && seq <= head) wrong("%s %s %zu: a lost key answers %" PRIu64, what, name, at, seq);
        head = RP_MAX(head, seq);
    }
    op one = op_make(1000);
    one.topic = 4;
    uint64_t seq = publish(hub, &one);
    if (seq == UINT64_MAX || seq <= head || (is_same && seq <= given)) wrong("%s %s %zu: the next is %" PRIu64 ", given was %" PRIu64, what, name, at, seq, given);
    const char *broken = rtpush_check(hub);
    if (broken) wrong("%s %s %zu: %s", what, name, at, broken);
    rtpush_destroy(hub);
    if (is_quick || (at % 8 && !strcmp(what, "cut") && !getenv("JOURNAL_LONG"))) return;
    // What was repaired stays as it is: the same epoch, and the new message.
    hub = hub_open(dir, how, &code);
    if (!hub) { wrong("%s %s %zu: it does not start again: %s", what, name, at, rtpush_strerror(code)); return; }
    char then[9];
    epoch_of(hub, then);
    if (strcmp(then, now)) wrong("%s %s %zu: another epoch at the next clean start", what, name, at);
    if (head_of(hub) != seq) wrong("%s %s %zu: the head was %" PRIu64 ", is %" PRIu64, what, name, at, seq, head_of(hub));
    if (rtpush_history(hub, topics[4], seq - 1, NULL, NULL) != 1) wrong("%s %s %zu: the new message is gone", what, name, at);
    rtpush_destroy(hub);
}

static bool ends_with(const char *name, const char *end) {
    size_t n = strlen(name), m = strlen(end);
    return n >= m && !strcmp(name + n - m, end);
}

static const file *last_segment(const files *all) {
    const file *last = NULL;
    for (int i = 0; i < all->count; i++)
        if (ends_with(all->at[i].name, ".log") && strcmp(all->at[i].name, "base.log")) last = &all->at[i];
    return last;
}

static size_t log_bytes(const files *all) {
    size_t sum = 0;
    for (int i = 0; i < all->count; i++)
        if (ends_with(all->at[i].name, ".log")) sum += all->at[i].size;
    return sum;
}

// --- the damages ---

static void cuts(const files *all, const rtpush_journal_desc *how, bool every_file) {
    for (int i = 0; i < all->count; i++) {
        const file *f = &all->at[i];
        if (!ends_with(f->name, ".log") || (!every_file && f != last_segment(all))) continue;
        for (size_t n = 0; n <= f->size; n++) {
            files_write(dir, all);
            file_write(dir, f->name, f->bytes, n);
            check(how, n == f->size ? ALL | SAME : 0, "cut", f->name, n);
        }
    }
}

static void flips(const files *all, const rtpush_journal_desc *how) {
    for (int i = 0; i < all->count; i++) {
        const file *f = &all->at[i];
        if (!ends_with(f->name, ".log")) continue;
        for (size_t bit = 0; bit < 8 * f->size; bit++) {
            files_write(dir, all);
            f->bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
            file_write(dir, f->name, f->bytes, f->size);
            f->bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
            check(how, SOME_EPOCH, "bit", f->name, bit);
        }
    }
}

// Behind what is whole there is something: zeros, as a machine's crash leaves them, noise, the same once more, half of it.
static void junk(const files *all, const rtpush_journal_desc *how) {
    const file *f = last_segment(all);
    unsigned char *more = (unsigned char *)malloc(f->size + 8192);
    for (int kind = 0; kind < 6; kind++) {
        size_t add = kind < 2 ? 4096 : kind == 2 ? f->size : kind == 3 ? f->size / 2 : kind == 4 ? 7 : 8;
        memcpy(more, f->bytes, f->size);
        for (size_t i = 0; i < add; i++) more[f->size + i] = kind == 0 || kind == 4 ? 0 : kind == 1 ? (unsigned char)(i * 2654435761u >> 13) : kind == 5 ? 0xff : f->bytes[i];
        files_write(dir, all);
        file_write(dir, f->name, more, f->size + add);
        check(how, ALL | SAME, "junk", f->name, (size_t)kind);
        for (size_t n = 0; n < f->size; n += 13) { // a file that has its length, but not its end
            memcpy(more, f->bytes, f->size);
            memset(more + n, 0, f->size - n);
            files_write(dir, all);
            file_write(dir, f->name, more, f->size);
            if (kind == 0) check(how, 0, "zeros from", f->name, n);
        }
    }
    free(more);
}

// One of the files is not there.
static void missing(const files *all, const rtpush_journal_desc *how) {
    char path[600];
    for (int i = 0; i < all->count; i++) {
        if (!ends_with(all->at[i].name, ".log")) continue;
        files_write(dir, all);
        snprintf(path, sizeof path, "%s/%s", dir, all->at[i].name);
        unlink(path);
        check(how, 0, "missing", all->at[i].name, 0);
    }
    // What is not its own is no part of it.
    files_write(dir, all);
    file_write(dir, "base.tmp", "junk", 4);
    file_write(dir, "1.log", "junk", 4);
    file_write(dir, "notes.log", "junk", 4);
    file_write(dir, "00000000000000000001.log.lost", "junk", 4);
    check(how, ALL | SAME, "foreign files", "", 0);
}

// The head cut, missing, damaged, of another boot.
static void heads(const journal *j, const rtpush_journal_desc *how) {
    for (int is_clean = 0; is_clean < 2; is_clean++) {
        const files *all = is_clean ? &j->clean : &j->live;
        int expected = ALL | (is_clean ? SOME_EPOCH : NEW);
        const char *what = is_clean ? "clean" : "live";
        char path[600];
        const file *head = NULL;
        for (int i = 0; i < all->count; i++)
            if (!strcmp(all->at[i].name, "head")) head = &all->at[i];
        files_write(dir, all);
        snprintf(path, sizeof path, "%s/head", dir);
        unlink(path);
        check(how, expected, what, "no head", 0);
        for (size_t n = 0; n < RP_HEAD_BYTES; n += getenv("JOURNAL_LONG") ? 1 : 5) {
            files_write(dir, all);
            file_write(dir, "head", head->bytes, n);
            check(how, expected, what, "head cut to", n);
        }
        for (size_t bit = 0; bit < 8 * RP_HEAD_BYTES; bit += getenv("JOURNAL_LONG") ? 1 : 3) {
            files_write(dir, all);
            head->bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
            file_write(dir, "head", head->bytes, head->size);
            head->bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
            check(how, ALL | SOME_EPOCH, what, "head, bit", bit);
        }
        // A crash of the machine, as far as it can be told: the same files, another boot.
        unsigned char other[RP_HEAD_BYTES];
        memcpy(other, head->bytes, sizeof other);
        other[24] ^= 1;
        rp_le_write((char *)other + 56, rp_record_check((char *)other, 56), 8);
        files_write(dir, all);
        file_write(dir, "head", other, sizeof other);
        check(how, ALL | (is_clean || how->sync_always ? SAME : NEW), what, "another boot", (size_t)how->sync_always);
    }
}

// The last thing of all is each kind once: cut off, whatever it was, it was acknowledged.
static void tails(const rtpush_journal_desc *how) {
    for (int kind = 0; kind < 4; kind++) {
        op last = op_make(24);
        last.topic = 0;
        last.is_clear = kind == 1;
        last.is_ephemeral = kind == 2;
        last.is_key = kind == 3;
        snprintf(last.key, sizeof last.key, "%s", kind == 3 ? "last" : "");
        journal j = journal_make(12, 1, how, &last);
        const file *f = last_segment(&j.live);
        size_t size = f->size, whole = size;
        // Where the last record begins: each is as long as it says.
        for (size_t at = 0; at < size; at += RP_RECORD_HEAD + rp_le_read((const char *)f->bytes + at, 4)) whole = at;
        for (size_t n = whole; n < size; n++) {
            int code;
            char now[9];
            files_write(dir, &j.live);
            file_write(dir, f->name, f->bytes, n);
            checks++;
            rtpush_hub *hub = hub_open(dir, how, &code);
            if (!hub) { wrong("tail %d cut to %zu: it does not start", kind, n); continue; }
            epoch_of(hub, now);
            if (!strcmp(now, epoch)) wrong("the last is a %s; cut off at byte %zu of %zu: the same epoch", kind == 1 ? "DELETE" : kind == 2 ? "ephemeral message" : "message", n, size);
            rtpush_destroy(hub);
        }
    }
}

int main(int argc, char **argv) {
    rtpush_journal_desc always, some, small;
    memset(&always, 0, sizeof always);
    some = small = always;
    always.sync_always = true;
    small.sync_ms = -1;
    small.segment_bytes = 500; // with a base, and several segments behind it
    if (argc != 3) return 2;
    const char *what = argv[1];
    snprintf(dir, sizeof dir, "%s", argv[2]);
    if (!strcmp(what, "cuts")) {
        bool is_long = getenv("JOURNAL_LONG") != NULL;
        journal j = journal_make(is_long ? 40 : 26, 3, &always, NULL);
        printf("%zu bytes\n", log_bytes(&j.live));
        cuts(&j.live, &always, false);
        cuts(&j.clean, &some, false);
        j = journal_make(is_long ? 70 : 46, 1, &small, NULL);
        printf("%d files, %zu bytes\n", j.live.count, log_bytes(&j.live));
        cuts(&j.live, &small, true);
    } else if (!strcmp(what, "flips")) {
        is_quick = true;
        journal j = journal_make(7, 2, &always, NULL);
        printf("%zu bytes\n", log_bytes(&j.live));
        flips(&j.live, &always);
        j = journal_make(46, 1, &small, NULL);
        printf("%d files, %zu bytes\n", j.live.count, log_bytes(&j.live));
        if (getenv("JOURNAL_LONG")) flips(&j.live, &small), flips(&j.clean, &small);
    } else if (!strcmp(what, "junk")) {
        journal j = journal_make(40, 3, &always, NULL);
        junk(&j.live, &always);
        junk(&j.clean, &some);
    } else if (!strcmp(what, "early")) {
        is_early = true;
        journal j = journal_make(40, 3, &always, NULL);
        junk(&j.live, &always);
    } else if (!strcmp(what, "missing")) {
        journal j = journal_make(70, 1, &small, NULL);
        missing(&j.live, &small);
        missing(&j.clean, &small);
    } else if (!strcmp(what, "heads")) {
        journal j = journal_make(30, 1, &always, NULL);
        heads(&j, &always);
        j = journal_make(30, 1, &some, NULL);
        heads(&j, &some);
    } else if (!strcmp(what, "tails")) {
        tails(&always);
    } else return 2;
    for (int i = 0; i < kept_count; i++) files_free(&kept[i].live), files_free(&kept[i].clean);
    return report(what);
}
