# A batch as Cython code sees it: in fields, since most batches are small, and names cost more than the events.

cimport cython

from ._row_block cimport RowBlock


@cython.no_gc
cdef class EventBatch:
    cdef RowBlock block  # set once, before anybody else sees the batch
    # Made when they are first asked for; guarded by a critical section of the batch.
    cdef object _records
    cdef object _payload
    cdef object __weakref__

    # Drops the two at the end of a lease.
    cdef int drop_arrays(self) except -1


# A batch over a block that is known to be valid.
cdef inline EventBatch batch_over(RowBlock block):
    cdef EventBatch batch = EventBatch.__new__(EventBatch)
    batch.block = block
    return batch


# The block of a batch. One that __init__ never made has none.
cdef inline RowBlock block_of(EventBatch batch):
    if batch.block is None:
        raise TypeError("an EventBatch that __init__ never made has no events")
    return batch.block
