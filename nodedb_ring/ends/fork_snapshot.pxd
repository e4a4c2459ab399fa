# What a forked child has of its parent's leases. Only _lease.pyx calls these functions: a `static` of a header has one
# home a module, and the list of arenas must have one in the process.

from libc.stdint cimport uint8_t, uint64_t

cdef extern from "fork_snapshot.h":
    ctypedef struct SnapshotArena "snapshot_arena":
        bint is_kept

    int fork_snapshot_add(SnapshotArena* arena, uint8_t* bytes, uint64_t size, const uint64_t* alive) noexcept nogil
    void fork_snapshot_remove(SnapshotArena* arena) noexcept nogil
    void fork_snapshot_lock() noexcept nogil
    void fork_snapshot_unlock() noexcept nogil
    void fork_snapshot_hold(SnapshotArena* arena, uint64_t start, uint64_t size) noexcept nogil
    void fork_snapshot_hold_nothing(SnapshotArena* arena) noexcept nogil
