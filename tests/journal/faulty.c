// A disk that fails when it is told to, for LD_PRELOAD: calls on files below FAULTY_DIR, as the file FAULTY_CONTROL says:
//
//     CALLS ERRNO [half] [drop]     CALLS: of write fsync ftruncate open rename unlink, comma separated
//
// half: a write is done by half first (and with ERRNO 0 it is just short); drop: a failed fsync loses what was not
// yet on the disk, as the kernel forgets that it is to be written. An empty or missing file: all is well.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

typedef struct plan {
    int error;
    bool is_half, is_drop;
} plan;

static bool is_below(const char *path) {
    const char *dir = getenv("FAULTY_DIR");
    return dir && path && !strncmp(path, dir, strlen(dir));
}

static bool is_ours(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return false;
    path[n] = 0;
    return is_below(path);
}

// Is this call to fail? By raw system calls, as ours are the ones that would be asked again.
static bool fails(const char *call, plan *p) {
    char text[256], calls[128] = "", words[2][16] = {"", ""};
    const char *control = getenv("FAULTY_CONTROL");
    int fd = control ? (int)syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t n = fd < 0 ? 0 : syscall(SYS_read, fd, text, sizeof text - 1);
    if (fd >= 0) syscall(SYS_close, fd);
    if (n <= 0) return false;
    text[n] = 0;
    memset(p, 0, sizeof *p);
    if (sscanf(text, "%127s %d %15s %15s", calls, &p->error, words[0], words[1]) < 2 || !strstr(calls, call)) return false;
    p->is_half = !strcmp(words[0], "half") || !strcmp(words[1], "half");
    p->is_drop = !strcmp(words[0], "drop") || !strcmp(words[1], "drop");
    return true;
}

// --- writing ---

static bool was_half; // the half was done: now the error

static ssize_t faulty(int fd, const void *bytes, size_t size, off_t at, bool has_place, plan p) {
    bool is_now = p.is_half && size > 1 && (!was_half || !p.error);
    was_half = is_now;
    if (!is_now && p.error) { errno = p.error; return -1; }
    if (is_now) size /= 2;
    return has_place ? REAL(pwrite)(fd, bytes, size, at) : REAL(write)(fd, bytes, size);
}

ssize_t write(int fd, const void *bytes, size_t size) {
    plan p;
    return is_ours(fd) && fails("write", &p) ? faulty(fd, bytes, size, 0, false, p) : REAL(write)(fd, bytes, size);
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t at) {
    plan p;
    return is_ours(fd) && fails("write", &p) ? faulty(fd, bytes, size, at, true, p) : REAL(pwrite)(fd, bytes, size, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t at) { return pwrite(fd, bytes, size, at); }

ssize_t writev(int fd, const struct iovec *iov, int count) {
    plan p;
    return is_ours(fd) && fails("write", &p) ? faulty(fd, iov[0].iov_base, iov[0].iov_len, 0, false, p) : REAL(writev)(fd, iov, count);
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t at) {
    plan p;
    return is_ours(fd) && fails("write", &p) ? faulty(fd, iov[0].iov_base, iov[0].iov_len, at, true, p) : REAL(pwritev)(fd, iov, count, at);
}

// --- syncing ---

enum { FILES = 64 };
static struct { ino_t ino; off_t size; } synced[FILES]; // how much of each file is on the disk

static off_t *synced_of(ino_t ino) {
    int i = 0;
    while (i < FILES - 1 && synced[i].ino && synced[i].ino != ino) i++;
    synced[i].ino = ino;
    return &synced[i].size;
}

static int sync_by(int fd, int (*real)(int)) {
    plan p;
    struct stat st;
    if (!is_ours(fd) || fstat(fd, &st) || !S_ISREG(st.st_mode)) return real(fd);
    if (!fails("fsync", &p)) { *synced_of(st.st_ino) = st.st_size; return real(fd); }
    static const char zeros[4096];
    for (off_t at = *synced_of(st.st_ino); p.is_drop && at < st.st_size; at += (off_t)sizeof zeros) {
        size_t left = (size_t)(st.st_size - at);
        if (REAL(pwrite)(fd, zeros, left < sizeof zeros ? left : sizeof zeros, at) < 0) abort();
    }
    errno = p.error;
    return -1;
}

int fsync(int fd) { return sync_by(fd, REAL(fsync)); }
int fdatasync(int fd) { return sync_by(fd, REAL(fdatasync)); }

// --- the rest ---

int ftruncate(int fd, off_t size) {
    plan p;
    if (is_ours(fd) && fails("ftruncate", &p)) { errno = p.error; return -1; }
    return REAL(ftruncate)(fd, size);
}
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }

static bool refuses(const char *call, const char *path) {
    plan p;
    if (!is_below(path) || !fails(call, &p)) return false;
    errno = p.error;
    return true;
}

static int open_by(const char *path, int flags, int mode) {
    return refuses("open", path) ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

#define MODE(flags, mode) \
    int mode = 0; va_list list; va_start(list, flags); if ((flags) & (O_CREAT | O_TMPFILE)) mode = va_arg(list, int); va_end(list)

int open(const char *path, int flags, ...) { MODE(flags, mode); return open_by(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, mode); return open_by(path, flags, mode); }

int rename(const char *from, const char *to) { return refuses("rename", from) ? -1 : REAL(rename)(from, to); }
int unlink(const char *path) { return refuses("unlink", path) ? -1 : REAL(unlink)(path); }
