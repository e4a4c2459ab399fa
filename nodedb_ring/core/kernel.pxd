# What waiting asks of the kernel: clocks, futexes, the descriptors that event loops watch, and membarrier.

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "nodedb_kernel.h" nogil:
    void* map_wiped_on_fork "nodedb_map_wiped_on_fork"(size_t size) noexcept
    void unmap "nodedb_unmap"(void* page, size_t size) noexcept
    int64_t monotonic_ns "nodedb_monotonic_ns"() noexcept
    uint32_t this_cpu "nodedb_this_cpu"() noexcept
    int futex_wait "nodedb_futex_wait"(uint32_t* word, uint32_t expected, int64_t timeout_ns) noexcept
    int futex_waitv "nodedb_futex_waitv"(
        uint32_t** words, const uint32_t* expected, uint32_t count, int64_t timeout_ns, uint32_t* woken
    ) noexcept
    void futex_wake "nodedb_futex_wake"(uint32_t* word) noexcept
    int64_t coarse_ns "nodedb_coarse_ns"() noexcept
    int new_eventfd "nodedb_eventfd"() noexcept
    int open_fifo "nodedb_open_fifo"(const char* path) noexcept
    void signal_fd "nodedb_signal"(int fd) noexcept
    void clear_signal "nodedb_clear_signal"(int fd) noexcept
    int new_epoll "nodedb_epoll"() noexcept
    int epoll_add "nodedb_epoll_add"(int epoll, int fd) noexcept
    int epoll_wait "nodedb_epoll_wait"(int epoll, int64_t timeout_ns) noexcept
    void epoll_remove "nodedb_epoll_remove"(int epoll, int fd) noexcept
    int new_timer "nodedb_timer"() noexcept
    void set_timer "nodedb_set_timer"(int timer, int64_t ns) noexcept
    int copy_fd "nodedb_copy_fd"(int fd) noexcept
    int open_pidfd "nodedb_open_pidfd"(uint32_t pid) noexcept
    uint64_t pid_namespace "nodedb_pid_namespace"() noexcept
    bint has_ended "nodedb_has_ended"(int pidfd) noexcept
    bint membarrier_register "nodedb_membarrier_register"() noexcept
    bint membarrier "nodedb_membarrier"() noexcept
    bint membarrier_register_global "nodedb_membarrier_register_global"() noexcept
    bint membarrier_global "nodedb_membarrier_global"() noexcept
    int close_fd "close"(int fd) noexcept
