# What the ring asks of the kernel and of the thread, in C. Only _ring.pyx cimports this: the thread token must have one
# home in a process, and a `static` of a header would have one a module.

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from *:
    """
    #if !defined(__linux__)
    #error "nodedb_ring waits in a futex and forgets its owners with MADV_WIPEONFORK: it builds on Linux only"
    #endif
    #include <errno.h>
    #include <fcntl.h>
    #include <linux/futex.h>
    #include <linux/membarrier.h>
    #include <poll.h>
    #include <pthread.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <sys/epoll.h>
    #include <sys/eventfd.h>
    #include <sys/mman.h>
    #include <sys/stat.h>
    #include <sys/syscall.h>
    #include <sys/timerfd.h>
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

    /* To some milliseconds, for a quarter of the price. */
    static int64_t nodedb_coarse_ns(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
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

    /* What signals an asynchronous waiter: an eventfd within a process, a FIFO between two. Opened for both directions
       a FIFO always has a reader, and so a write to it never raises SIGPIPE. */
    static int nodedb_eventfd(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }
    static int nodedb_open_fifo(const char *path) { return open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW); }
    static void nodedb_signal(int fd) {
        uint64_t one = 1;
        int saved = errno;
        if (write(fd, &one, sizeof one) < 0) { /* EAGAIN: it is signalled already */ }
        errno = saved;
    }
    static void nodedb_clear_signal(int fd) {
        char signals[512];
        int saved = errno;
        while (read(fd, signals, sizeof signals) == (ssize_t)sizeof signals) {}
        errno = saved;
    }
    static int nodedb_epoll(void) { return epoll_create1(EPOLL_CLOEXEC); }
    static int nodedb_epoll_add(int epoll, int fd) {
        struct epoll_event event = {.events = EPOLLIN};
        return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }

    /* A timer to watch beside them: readable `ns` from now on, until it is set again; 0 stops it. */
    static int nodedb_timer(void) { return timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK); }
    static void nodedb_set_timer(int timer, int64_t ns) {
        struct itimerspec once = {.it_value = {ns / 1000000000, ns % 1000000000}};
        int saved = errno;
        timerfd_settime(timer, 0, &once, NULL);
        errno = saved;
    }
    static int nodedb_copy_fd(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, 0); }

    /* Closing a descriptor does not take it out while a forked child has a copy. */
    static void nodedb_epoll_remove(int epoll, int fd) { epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL); }

    /* A process that can be asked whether it has ended, without mistaking the next that gets its number. */
    #ifndef SYS_pidfd_open
    #define SYS_pidfd_open 434
    #endif
    static int nodedb_open_pidfd(uint32_t pid) { return (int)syscall(SYS_pidfd_open, (pid_t)pid, 0); }

    /* In which pid namespace this process's number means this process; 0 where there is no telling. */
    static uint64_t nodedb_pid_namespace(void) {
        struct stat status;
        return stat("/proc/self/ns/pid", &status) == 0 ? (uint64_t)status.st_ino : 0;
    }
    static int nodedb_has_ended(int pidfd) {
        struct pollfd ended = {.fd = pidfd, .events = POLLIN};
        return poll(&ended, 1, 0) == 1;
    }

    /* A role is a write lock on one byte of the bus's file. It belongs to the open file description, and so does not go
       with another descriptor that the process closes, and goes with the process however that ends. */
    static int nodedb_is_locked(int fd, uint64_t byte) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};
        return fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
    }

    /* A forked child shares the description, and would keep the role of a parent that dies. So it closes every one
       first of all, whoever forked. The mutex keeps a fork out of the middle of a claim: a child has none of it, or a
       descriptor that is in the list. A free place in the list holds -1. */
    typedef struct nodedb_held { int fd[64]; struct nodedb_held *next; } nodedb_held;
    static nodedb_held *nodedb_roles = NULL;
    static pthread_mutex_t nodedb_roles_mutex = PTHREAD_MUTEX_INITIALIZER;
    static void nodedb_before_fork(void) { pthread_mutex_lock(&nodedb_roles_mutex); }
    static void nodedb_fork_parent(void) { pthread_mutex_unlock(&nodedb_roles_mutex); }
    static void nodedb_fork_child(void) {
        for (nodedb_held *held = nodedb_roles; held != NULL; held = held->next)
            for (int i = 0; i < 64; i++) {
                if (held->fd[i] >= 0) close(held->fd[i]);
                held->fd[i] = -1;
            }
        pthread_mutex_unlock(&nodedb_roles_mutex);
    }
    static int *nodedb_free_place(void) {
        for (nodedb_held *held = nodedb_roles; held != NULL; held = held->next)
            for (int i = 0; i < 64; i++)
                if (held->fd[i] < 0) return &held->fd[i];
        nodedb_held *more = malloc(sizeof *more);
        if (more == NULL) return NULL;
        for (int i = 0; i < 64; i++) more->fd[i] = -1;
        more->next = nodedb_roles;
        nodedb_roles = more;
        return &more->fd[0];
    }
    /* Opens the file anew and locks the byte: the descriptor that holds the role, or minus the errno: -EAGAIN when
       somebody holds it. */
    static int nodedb_take_role(int file, uint64_t byte) {
        static int registered = 0;   /* under the GIL */
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};
        char path[32];
        int fd, wrong = 0;
        int *place;
        if (!registered) {
            wrong = pthread_atfork(nodedb_before_fork, nodedb_fork_parent, nodedb_fork_child);
            if (wrong != 0) return -wrong;
            registered = 1;
        }
        snprintf(path, sizeof path, "/proc/self/fd/%d", file);
        pthread_mutex_lock(&nodedb_roles_mutex);
        place = nodedb_free_place();
        fd = place == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0) wrong = place == NULL ? ENOMEM : errno;
        else if (fcntl(fd, F_OFD_SETLK, &lock) == 0) *place = fd;
        else { wrong = errno == EACCES ? EAGAIN : errno; close(fd); }
        pthread_mutex_unlock(&nodedb_roles_mutex);
        return wrong == 0 ? fd : -wrong;
    }
    static void nodedb_let_go(int fd) {
        /* The lock goes for all copies of the descriptor: a child that was forked just now may not have closed its own. */
        struct flock all = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
        fcntl(fd, F_OFD_SETLK, &all);
        pthread_mutex_lock(&nodedb_roles_mutex);
        for (nodedb_held *held = nodedb_roles; held != NULL; held = held->next)
            for (int i = 0; i < 64; i++)
                if (held->fd[i] == fd) held->fd[i] = -1;
        close(fd);
        pthread_mutex_unlock(&nodedb_roles_mutex);
    }

    /* membarrier makes every other thread of the process pass a full fence, so that one side of a handshake pays for
       both: the side about to sleep. Each returns whether the kernel lets it. */
    static int nodedb_membarrier_register(void) {
        return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
    }
    static int nodedb_membarrier(void) {
        /* A forked child may have to register anew. */
        return syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0
            || (nodedb_membarrier_register() && syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0);
    }
    /* The same for every process that has registered for it. */
    static int nodedb_membarrier_register_global(void) {
        return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0;
    }
    static int nodedb_membarrier_global(void) {
        return syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0;
    }
    """
    uint64_t this_thread "nodedb_thread_token"() noexcept nogil
    void* map_wiped_on_fork "nodedb_map_wiped_on_fork"(size_t size) noexcept nogil
    void unmap "nodedb_unmap"(void* page, size_t size) noexcept nogil
    int64_t monotonic_ns "nodedb_monotonic_ns"() noexcept nogil
    int futex_wait "nodedb_futex_wait"(uint32_t* word, uint32_t expected, int64_t timeout_ns) noexcept nogil
    void futex_wake "nodedb_futex_wake"(uint32_t* word) noexcept nogil
    int64_t coarse_ns "nodedb_coarse_ns"() noexcept nogil
    int new_eventfd "nodedb_eventfd"() noexcept nogil
    int open_fifo "nodedb_open_fifo"(const char* path) noexcept nogil
    void signal_fd "nodedb_signal"(int fd) noexcept nogil
    void clear_signal "nodedb_clear_signal"(int fd) noexcept nogil
    int new_epoll "nodedb_epoll"() noexcept nogil
    int epoll_add "nodedb_epoll_add"(int epoll, int fd) noexcept nogil
    void epoll_remove "nodedb_epoll_remove"(int epoll, int fd) noexcept nogil
    int new_timer "nodedb_timer"() noexcept nogil
    void set_timer "nodedb_set_timer"(int timer, int64_t ns) noexcept nogil
    int copy_fd "nodedb_copy_fd"(int fd) noexcept nogil
    int open_pidfd "nodedb_open_pidfd"(uint32_t pid) noexcept nogil
    uint64_t pid_namespace "nodedb_pid_namespace"() noexcept nogil
    bint has_ended "nodedb_has_ended"(int pidfd) noexcept nogil
    bint is_locked "nodedb_is_locked"(int fd, uint64_t byte) noexcept nogil
    int take_role "nodedb_take_role"(int file, uint64_t byte) noexcept
    void let_go_fd "nodedb_let_go"(int fd) noexcept
    bint membarrier_register "nodedb_membarrier_register"() noexcept nogil
    bint membarrier "nodedb_membarrier"() noexcept nogil
    bint membarrier_register_global "nodedb_membarrier_register_global"() noexcept nogil
    bint membarrier_global "nodedb_membarrier_global"() noexcept nogil
    int close_fd "close"(int fd) noexcept nogil
