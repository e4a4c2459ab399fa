# What the ring asks of the kernel and of the thread, in C. Only _ring.pyx cimports this: the thread token must have one
# home in a process, and a `static` of a header would have one a module.

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from *:
    """
    #if !defined(__linux__)
    #error "nodedb_ring waits in a futex and forgets its owners with MADV_WIPEONFORK: it builds on Linux only"
    #endif
    #include <errno.h>
    #include <linux/futex.h>
    #include <linux/membarrier.h>
    #include <sys/eventfd.h>
    #include <sys/mman.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>

    /* A number for this thread that no other thread of the process ever has, unlike a pthread id, which the next
       thread may get. A thread keeps it for life, whichever interpreter state it is given. */
    static uint64_t nodedb_last_token = 0;
    static __thread uint64_t nodedb_token = 0;
    static inline uint64_t nodedb_thread_token(void) {
        if (__builtin_expect(nodedb_token == 0, 0))
            nodedb_token = __atomic_add_fetch(&nodedb_last_token, 1, __ATOMIC_RELAXED);
        return nodedb_token;
    }

    /* Zeroed memory that the kernel gives to a forked child as zeros again, whoever forks. */
    static void *nodedb_map_wiped_on_fork(size_t bytes) {
        void *page = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED) return NULL;
        if (madvise(page, bytes, MADV_WIPEONFORK) != 0) {
            int saved = errno;
            munmap(page, bytes);
            errno = saved;
            return NULL;
        }
        return page;
    }
    static void nodedb_unmap(void *page, size_t bytes) { munmap(page, bytes); }

    static int64_t nodedb_monotonic_ns(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    }

    /* Sleeps while *word == expected; a negative timeout is no limit. Returns 0, or the errno that ended the sleep. */
    static int nodedb_futex_wait(uint32_t *word, uint32_t expected, int64_t timeout_ns) {
        struct timespec limit = {timeout_ns / 1000000000, timeout_ns % 1000000000};
        long rc = syscall(SYS_futex, word, FUTEX_WAIT, expected, timeout_ns < 0 ? NULL : &limit, NULL, 0);
        return rc == 0 ? 0 : errno;
    }
    static void nodedb_futex_wake(uint32_t *word) {
        int saved = errno;
        syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
        errno = saved;
    }

    static int nodedb_eventfd(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }
    static void nodedb_eventfd_signal(int fd) {
        uint64_t one = 1;
        int saved = errno;
        if (write(fd, &one, sizeof one) < 0) { /* EAGAIN: it is signalled already */ }
        errno = saved;
    }
    static void nodedb_eventfd_clear(int fd) {
        uint64_t count;
        if (read(fd, &count, sizeof count) < 0) { /* EAGAIN: nothing was signalled */ }
    }

    /* membarrier makes every other thread of the process pass a full fence, so that one side of a handshake pays for
       both: the side about to sleep. Returns whether the kernel has it. */
    static int nodedb_membarrier_register(void) {
        return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
    }
    static void nodedb_membarrier(void) {
        /* A forked child may have to register anew. */
        if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0 && nodedb_membarrier_register())
            syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
    }
    """
    uint64_t this_thread "nodedb_thread_token"() noexcept nogil
    void* map_wiped_on_fork "nodedb_map_wiped_on_fork"(size_t size) noexcept nogil
    void unmap "nodedb_unmap"(void* page, size_t size) noexcept nogil
    int64_t monotonic_ns "nodedb_monotonic_ns"() noexcept nogil
    int futex_wait "nodedb_futex_wait"(uint32_t* word, uint32_t expected, int64_t timeout_ns) noexcept nogil
    void futex_wake "nodedb_futex_wake"(uint32_t* word) noexcept nogil
    int new_eventfd "nodedb_eventfd"() noexcept nogil
    void eventfd_signal "nodedb_eventfd_signal"(int fd) noexcept nogil
    void eventfd_clear "nodedb_eventfd_clear"(int fd) noexcept nogil
    bint membarrier_register "nodedb_membarrier_register"() noexcept nogil
    void membarrier "nodedb_membarrier"() noexcept nogil
    int close_fd "close"(int fd) noexcept nogil
