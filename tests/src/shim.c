/* Preloaded into one process of the lab: sets its clock, or makes its disk slow. See shim.rs for what it covers and what not. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

/* The same layout is in shim.rs. */
struct control {
    int64_t clock_ms;       /* the lab writes: how far the clock is off */
    int64_t write_us;       /* the lab writes: how long each write takes longer */
    int64_t clock_reads;    /* we count: readings of a clock that was off */
    int64_t slow_writes;    /* we count: writes that were delayed */
};

static struct control *control;
/* Whether this process' clock may be set. Only then are waits our affair: they have to be for times of day, as librdkafka's are; Java's
   are for monotonic times. */
static int sets_clock;

static int (*real_clock_gettime)(clockid_t, struct timespec *);
static int (*real_timedwait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_pwritev)(int, const struct iovec *, int, off64_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

__attribute__((constructor)) static void start(void) {
    real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    /* The oldest version, which dlsym may give, has condition variables of another layout. */
    real_timedwait = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!real_timedwait) real_timedwait = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_writev = dlsym(RTLD_NEXT, "writev");
    real_pwritev = dlsym(RTLD_NEXT, "pwritev64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    const char *path = getenv("LAB_SHIM");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *map = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED) control = map;
    sets_clock = getenv("LAB_CLOCK") != NULL;
}

static int64_t offset_ms(void) {
    return control ? __atomic_load_n(&control->clock_ms, __ATOMIC_RELAXED) : 0;
}

static void add_ms(struct timespec *at, int64_t ms) {
    int64_t ns = at->tv_nsec + ms % 1000 * 1000000;
    at->tv_sec += ms / 1000 + ns / 1000000000;
    at->tv_nsec = ns % 1000000000;
    if (at->tv_nsec < 0) { at->tv_nsec += 1000000000; at->tv_sec -= 1; }
}

/* ---- the clock ---- */

int clock_gettime(clockid_t clock, struct timespec *at) {
    if (!real_clock_gettime) real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real_clock_gettime(clock, at);
    int64_t ms = offset_ms();
    if (result == 0 && ms != 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        __atomic_add_fetch(&control->clock_reads, 1, __ATOMIC_RELAXED);
        add_ms(at, ms);
    }
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    (void)zone;
    struct timespec now;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    if (result == 0) { at->tv_sec = now.tv_sec; at->tv_usec = now.tv_nsec / 1000; }
    return result;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *at, int base) {
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, at) == 0 ? base : 0;
}

/* As the kernel does: a wait until a time of day ends when the clock shows it, however the clock was set meanwhile. */
int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until) {
    if (!control || !sets_clock) return real_timedwait(cond, mutex, until);
    for (;;) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        int64_t left = (until->tv_sec - now.tv_sec) * 1000 + (until->tv_nsec - now.tv_nsec) / 1000000;
        if (left <= 0 && (until->tv_sec < now.tv_sec || (until->tv_sec == now.tv_sec && until->tv_nsec <= now.tv_nsec)))
            return ETIMEDOUT;
        struct timespec slice;
        real_clock_gettime(CLOCK_REALTIME, &slice);
        add_ms(&slice, left < 1 ? 1 : left > 20 ? 20 : left);
        int result = real_timedwait(cond, mutex, &slice);
        if (result != ETIMEDOUT) return result;
    }
}

/* librdkafka waits so. In glibc the types are the same ones under other names; its own version calls the other within the library, where
   ours is not seen. */
int cnd_timedwait(cnd_t *restrict cond, mtx_t *restrict mutex, const struct timespec *restrict until) {
    int result = pthread_cond_timedwait((pthread_cond_t *)cond, (pthread_mutex_t *)mutex, until);
    return result == 0 ? thrd_success : result == ETIMEDOUT ? thrd_timedout : thrd_error;
}

/* ---- the disk ---- */

static void take_time(int fd) {
    int64_t us = control ? __atomic_load_n(&control->write_us, __ATOMIC_RELAXED) : 0;
    struct stat64 about;
    /* Files only, and not the log. */
    if (us <= 0 || fd < 3 || fstat64(fd, &about) != 0 || !S_ISREG(about.st_mode)) return;
    __atomic_add_fetch(&control->slow_writes, 1, __ATOMIC_RELAXED);
    int kept = errno;
    usleep(us);
    errno = kept;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    if (!real_write) real_write = dlsym(RTLD_NEXT, "write");
    take_time(fd);
    return real_write(fd, bytes, count);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    take_time(fd);
    return real_pwrite(fd, bytes, count, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    take_time(fd);
    return real_pwrite(fd, bytes, count, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    take_time(fd);
    return real_writev(fd, parts, count);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) {
    take_time(fd);
    return real_pwritev(fd, parts, count, at);
}

int fsync(int fd) {
    take_time(fd);
    return real_fsync(fd);
}

int fdatasync(int fd) {
    take_time(fd);
    return real_fdatasync(fd);
}
