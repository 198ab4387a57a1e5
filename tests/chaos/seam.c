/* Stands before libc (LD_PRELOAD) and counts the calls that change a file. At the chosen one the process is
   killed, or a write is torn and it is killed, or the disk is full from then on, or fails once, or the clock jumps.
   Pipes, sockets and the standard streams are left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { OFF, COUNT, KILL, TEAR, FULL, FAIL, CLOCK };
static _Atomic long places, fatal, hits, leap_s, full, seconds;
static _Atomic int mode;

void chaos_arm(int what, long at, long by_seconds) {
  places = hits = leap_s = full = 0;
  fatal = at;
  seconds = by_seconds;
  mode = what;
}
long chaos_places(void) { return places; }
long chaos_hits(void) { return hits; }

#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name);

static int is_file(int fd) {
  struct stat found;
  int kept = errno, yes = fd > 2 && fstat(fd, &found) == 0 && S_ISREG(found.st_mode);
  errno = kept;
  return yes;
}

static void die(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

/* 1: this call is to fail, and errno says why. takes_room: it cannot be done on a full disk. */
static int step(int takes_room) {
  if (!mode) return 0;
  long at = places++;
  if (full && takes_room) { hits++; errno = ENOSPC; return 1; }
  if (mode == COUNT || at != fatal) return 0;
  hits++;
  switch (mode) {
    case KILL: case TEAR: die();
    case FULL: full = 1; errno = ENOSPC; return takes_room;
    case FAIL: errno = EIO; return 1;
    case CLOCK: leap_s = seconds;
  }
  return 0;
}

static int tears(void) { return mode == TEAR && places == fatal; }

ssize_t write(int fd, const void *data, size_t size) {
  REAL(write)
  if (!is_file(fd)) return real(fd, data, size);
  if (tears()) { real(fd, data, size / 2); die(); }
  return step(1) ? -1 : real(fd, data, size);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
  REAL(pwrite64)
  if (!is_file(fd)) return real(fd, data, size, at);
  if (tears()) { real(fd, data, size / 2, at); die(); }
  return step(1) ? -1 : real(fd, data, size, at);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) {
  REAL(writev)
  if (!is_file(fd)) return real(fd, parts, count);
  if (tears()) { real(fd, parts, count > 1 ? count / 2 : 0); die(); }
  return step(1) ? -1 : real(fd, parts, count);
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t size) {
  REAL(sendfile64)
  return is_file(to) && step(1) ? -1 : real(to, from, at, size);
}
ssize_t sendfile(int to, int from, off_t *at, size_t size) { return sendfile64(to, from, at, size); }
ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t size, unsigned flags) {
  REAL(copy_file_range)
  return is_file(to) && step(1) ? -1 : real(from, a, to, b, size, flags);
}
int fsync(int fd) { REAL(fsync) return step(0) ? -1 : real(fd); }
int fdatasync(int fd) { REAL(fdatasync) return step(0) ? -1 : real(fd); }
int ftruncate64(int fd, off64_t size) {
  REAL(ftruncate64)
  return is_file(fd) && step(0) ? -1 : real(fd, size);
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
int rename(const char *from, const char *to) { REAL(rename) return step(0) ? -1 : real(from, to); }
int renameat(int a, const char *from, int b, const char *to) {
  REAL(renameat)
  return step(0) ? -1 : real(a, from, b, to);
}
int unlink(const char *path) { REAL(unlink) return step(0) ? -1 : real(path); }
int unlinkat(int folder, const char *path, int flags) {
  REAL(unlinkat)
  return step(0) ? -1 : real(folder, path, flags);
}
int rmdir(const char *path) { REAL(rmdir) return step(0) ? -1 : real(path); }
int mkdir(const char *path, mode_t bits) { REAL(mkdir) return step(1) ? -1 : real(path, bits); }
int symlink(const char *to, const char *path) { REAL(symlink) return step(1) ? -1 : real(to, path); }

#define CHANGES(flags) ((flags) & (O_CREAT | O_TRUNC))
#define OPENER(name) \
  int name(const char *path, int flags, ...) { \
    va_list more; va_start(more, flags); mode_t bits = va_arg(more, mode_t); va_end(more); \
    static int (*real)(const char *, int, ...); \
    if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name); \
    return CHANGES(flags) && step(0) ? -1 : real(path, flags, bits); \
  }
OPENER(open)
OPENER(open64)
#define OPENER_AT(name) \
  int name(int folder, const char *path, int flags, ...) { \
    va_list more; va_start(more, flags); mode_t bits = va_arg(more, mode_t); va_end(more); \
    static int (*real)(int, const char *, int, ...); \
    if (!real) real = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, #name); \
    return CHANGES(flags) && step(0) ? -1 : real(folder, path, flags, bits); \
  }
OPENER_AT(openat)
OPENER_AT(openat64)

int clock_gettime(clockid_t which, struct timespec *told) {
  REAL(clock_gettime)
  int done = real(which, told);
  if (leap_s && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) told->tv_sec += leap_s;
  return done;
}
int gettimeofday(struct timeval *restrict told, void *restrict zone) {
  REAL(gettimeofday)
  int done = real(told, zone);
  told->tv_sec += leap_s;
  return done;
}
time_t time(time_t *told) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (told) *told = now.tv_sec;
  return now.tv_sec;
}
