// What waiting asks of the kernel: clocks, futexes, the descriptors that event loops watch, and membarrier.
//
// Nothing here keeps a state, so any module may include it.

#ifndef NODEDB_RING_KERNEL_H
#define NODEDB_RING_KERNEL_H

#if !defined(__linux__)
#error "nodedb_ring waits in a futex and forgets its owners with MADV_WIPEONFORK: it builds on Linux only"
#endif

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

// Zeroed memory that the kernel gives to a forked child as zeros again, whoever forks.
static inline void *nodedb_map_wiped_on_fork(size_t bytes) {
    void *page = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return NULL;
    if (madvise(page, bytes, MADV_WIPEONFORK) != 0) {
        int saved = errno;
        munmap(page, bytes);
        errno = saved;
        return NULL;
    }
    return page;
}

static inline void nodedb_unmap(void *page, size_t bytes) { munmap(page, bytes); }

static inline int64_t nodedb_clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

// Nanoseconds on a clock that only goes forward.
static inline int64_t nodedb_monotonic_ns(void) { return nodedb_clock_ns(CLOCK_MONOTONIC); }

// The same to some milliseconds, for a quarter of the price.
static inline int64_t nodedb_coarse_ns(void) { return nodedb_clock_ns(CLOCK_MONOTONIC_COARSE); }

// The processor that this thread runs on, plus one; 0 if that is unknown.
static inline uint32_t nodedb_this_cpu(void) { return (uint32_t)(sched_getcpu() + 1); }

// Sleeps while *word == expected; a negative timeout means no limit. Returns 0, or the errno that ended the sleep.
static inline int nodedb_futex_wait(uint32_t *word, uint32_t expected, int64_t timeout_ns) {
    struct timespec limit = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    long rc = syscall(SYS_futex, word, FUTEX_WAIT, expected, timeout_ns < 0 ? NULL : &limit, NULL, 0);
    return rc == 0 ? 0 : errno;
}

// The same for several words, until one of them is woken, which is `*woken` then, or is not as expected any more.
// ENOSYS or EPERM: the kernel is older than 5.16, or a sandbox lacks the call. At most NODEDB_MOST_FUTEXES.
#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
#define NODEDB_MOST_FUTEXES 128
static inline int nodedb_futex_waitv(uint32_t **words, const uint32_t *expected, uint32_t count, int64_t timeout_ns,
                                     uint32_t *woken) {
    // As the kernel has it: headers of its older versions lack the struct.
    struct {
        uint64_t expected, word;
        uint32_t flags, reserved;
    } waits[NODEDB_MOST_FUTEXES];
    const uint32_t of_32_bits = 2;
    struct timespec until;
    for (uint32_t i = 0; i < count; i++) {
        waits[i].expected = expected[i];
        waits[i].word = (uintptr_t)words[i];
        waits[i].flags = of_32_bits;
        waits[i].reserved = 0;
    }
    if (timeout_ns >= 0) {
        // A time on the clock, not one from now on.
        timeout_ns += nodedb_monotonic_ns();
        until.tv_sec = timeout_ns / 1000000000;
        until.tv_nsec = timeout_ns % 1000000000;
    }
    long rc = syscall(SYS_futex_waitv, waits, count, 0, timeout_ns < 0 ? NULL : &until, CLOCK_MONOTONIC);
    if (rc < 0)
        return errno;
    *woken = (uint32_t)rc;
    return 0;
}

static inline void nodedb_futex_wake(uint32_t *word) {
    int saved = errno;
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
    errno = saved;
}

// What signals an asynchronous waiter: an eventfd within a process, a FIFO between two. Opened for both directions a
// FIFO always has a reader, and so a write to it never raises SIGPIPE.
static inline int nodedb_eventfd(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

static inline int nodedb_open_fifo(const char *path) {
    return open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
}

static inline void nodedb_signal(int fd) {
    uint64_t one = 1;
    int saved = errno;
    // EAGAIN says that it is signalled already.
    ssize_t written = write(fd, &one, sizeof one);
    (void)written;
    errno = saved;
}

static inline void nodedb_clear_signal(int fd) {
    char signals[512];
    int saved = errno;
    while (read(fd, signals, sizeof signals) == (ssize_t)sizeof signals) {
    }
    errno = saved;
}

static inline int nodedb_epoll(void) { return epoll_create1(EPOLL_CLOEXEC); }

static inline int nodedb_epoll_add(int epoll, int fd) {
    struct epoll_event event = {.events = EPOLLIN};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

// Sleeps until one of its descriptors is readable; a negative timeout means no limit. Returns 0, or the errno that
// ended the sleep. Rounded up to milliseconds: epoll_pwait2 is newer than the kernels that need this.
static inline int nodedb_epoll_wait(int epoll, int64_t timeout_ns) {
    struct epoll_event event;
    int64_t ms = timeout_ns < 0 ? -1 : (timeout_ns + 999999) / 1000000;
    int rc = epoll_wait(epoll, &event, 1, ms > INT32_MAX ? INT32_MAX : (int)ms);
    return rc > 0 ? 0 : rc == 0 ? ETIMEDOUT : errno;
}

// Closing a descriptor does not take it out while a forked child has a copy.
static inline void nodedb_epoll_remove(int epoll, int fd) { epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL); }

// A timer to watch beside them: readable `ns` from now on, until it is set again; 0 stops it.
static inline int nodedb_timer(void) { return timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK); }

static inline void nodedb_set_timer(int timer, int64_t ns) {
    struct itimerspec once = {.it_value = {ns / 1000000000, ns % 1000000000}};
    int saved = errno;
    timerfd_settime(timer, 0, &once, NULL);
    errno = saved;
}

static inline int nodedb_copy_fd(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, 0); }

// A process that can be asked whether it has ended, without mistaking the next that gets its number.
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
static inline int nodedb_open_pidfd(uint32_t pid) { return (int)syscall(SYS_pidfd_open, (pid_t)pid, 0); }

static inline int nodedb_has_ended(int pidfd) {
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    return poll(&ended, 1, 0) == 1;
}

// The pid namespace in which this process has its pid; 0 if that is unknown.
static inline uint64_t nodedb_pid_namespace(void) {
    struct stat status;
    return stat("/proc/self/ns/pid", &status) == 0 ? (uint64_t)status.st_ino : 0;
}

// membarrier makes every other thread of the process pass a full fence, so that one side of a handshake pays for both:
// the side about to sleep. Each returns whether the kernel lets it.
static inline int nodedb_membarrier_register(void) {
    return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
}

static inline int nodedb_membarrier(void) {
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0)
        return 1;
    // A forked child may have to register again.
    return nodedb_membarrier_register() && syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
}

// The same for every process that has registered for it.
static inline int nodedb_membarrier_register_global(void) {
    return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0;
}

static inline int nodedb_membarrier_global(void) {
    return syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0;
}

#endif
