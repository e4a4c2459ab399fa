# The memory under a batch: rows and payload, whoever owns them.

from libc.stdint cimport uint8_t, uint64_t

from ..core.layout cimport EventRow

cdef extern from "nodedb_buffer_pool.h":
    ctypedef struct Pool "nodedb_buffer_pool":
        pass

    void* pool_take "nodedb_pool_take"(Pool* pool, size_t size, size_t* got) noexcept
    void pool_give "nodedb_pool_give"(Pool* pool, void* buffer, size_t size) noexcept
    void pool_free "nodedb_pool_free"(Pool* pool) noexcept

cdef enum Packing:
    PACKING_UNKNOWN  # nobody has asked yet
    PACKED
    SCATTERED


cdef class BufferPool:
    cdef Pool pool

    # Memory of `size` bytes, `got` in all; NULL when there is none.
    cdef void* take(self, size_t size, size_t* got) noexcept
    cdef void give(self, void* buffer, size_t size) noexcept


# `views`, `pins` and `ended` of a block that leases or slices share are guarded by a critical section of the root: the
# block that has the memory. What is read of a lease without a pin is read inside of one, too, after check_open().
cdef class RowBlock:
    cdef EventRow* rows
    cdef uint8_t* bytes
    cdef readonly uint64_t count
    cdef readonly uint64_t payload_bytes
    cdef readonly Py_ssize_t views    # spans and slices alive that refer to this block
    cdef bint ended                   # of a lease or a reservation that is over: nothing new may refer to it
    cdef bint writable
    cdef Packing packing
    cdef bint is_run                  # numbers one by one and no heartbeat, found while it was drained
    cdef RowBlock parent              # whose memory this is a part of, or None; has none itself
    cdef BufferPool pool              # where the memory goes back to, or None
    cdef void* memory                 # to free, or NULL
    cdef size_t memory_bytes
    cdef readonly Py_ssize_t pins     # views of this block and of its slices that read memory whether it is over or not
    cdef bint is_leased               # lies in a ring
    cdef bint is_pin                  # a slice that is one of its parent's pins

    cdef void unviewed(self) noexcept
    cdef void unpinned(self) noexcept
    # What reads all rows reads those of this: itself, or where a lease may end meanwhile, a slice that keeps it from that.
    # Raises as check_open.
    cdef RowBlock pinned(self)
    cdef bint is_torn(self) noexcept
    # Of a lease it says so for as long as the critical section of the root is held, and no longer.
    cdef int check_open(self) except -1
    # Whether the rows lie packed in the payload, one behind the other, and where the last one ends.
    cdef bint is_packed(self, uint64_t* end) noexcept
    # Where in the payload the rows' bytes begin, and how many there are: all of it, or of a slice its own part where that
    # is one.
    cdef uint64_t stretch(self, uint64_t* base) noexcept


# The block that has the memory which this one is, or is a part of.
cdef inline RowBlock root_of(RowBlock block):
    return block if block.parent is None else block.parent


# Room for `count` rows and `payload_bytes`, out of `pool` where one is given. Contents undefined. Runs no Python code.
cdef RowBlock new_block(uint64_t count, uint64_t payload_bytes, BufferPool pool)
