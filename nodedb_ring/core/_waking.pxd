# Waking whoever waits at the other end.

from .layout cimport Ring

# What the other end calls once it has published, or released, and finds that somebody waits. `ring_wake` says whether
# somebody did.
cdef void ring_answer(Ring* ring) noexcept nogil
cdef bint ring_wake(Ring* ring) noexcept nogil
cdef void ring_wake_producer(Ring* ring) noexcept nogil

# Ends an end for good, and wakes whoever waits at either.
cdef void ring_close_producer(Ring* ring) noexcept nogil
cdef void ring_close_consumer(Ring* ring) noexcept nogil
