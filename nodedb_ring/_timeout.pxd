# A timeout as Python callers give it, for the waits of both ends.

from libc.stdint cimport int64_t

cdef enum:
    # A wake costs some 25 microseconds: look for a part of that before sleeping.
    DEFAULT_SPIN_NS = 10000
    # A signal that comes just before a sleep does not interrupt it: look for one every second.
    LONGEST_SLEEP_NS = 1000000000


cdef inline int64_t timeout_ns(object timeout) except? -1:
    """A timeout in seconds as the ring's in nanoseconds. ValueError for one that is negative or no number."""
    cdef double seconds = timeout
    if not seconds >= 0:
        raise ValueError(f"timeout {timeout}: must be 0 or more seconds, or None for no limit")
    return <int64_t>(min(seconds, 9e9) * 1e9)


cdef inline int64_t limit_ns(object timeout) except? -1:
    """The same for a wait: -1 is None, no limit."""
    return -1 if timeout is None else timeout_ns(timeout)
