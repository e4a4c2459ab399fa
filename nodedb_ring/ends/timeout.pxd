# A timeout as Python callers give it, for the waits of both ends.

from libc.stdint cimport int64_t

cdef extern from "Python.h":
    double PyFloat_AS_DOUBLE(object)
    double PyLong_AsDouble(object)
    void PyErr_Clear()

cdef enum:
    # How long a wait polls before it sleeps: less than a wake, which costs some 25 microseconds.
    DEFAULT_SPIN_NS = 10000
    # The longest sleep between two checks for signals, of which one that comes just before a sleep does not interrupt it,
    # and for what other threads have dropped, of which nothing tells a sleeper. As long as SHARED_SLEEP_NS of _waiting.pyx:
    # a longer one would be two sleeps on a shared ring.
    LONGEST_SLEEP_NS = 80000000
    # The longest time-out in seconds; limits.py has the same constant.
    LONGEST_SECONDS = 1000000000


cdef inline int64_t limit_ns(object timeout) except? -2:
    """A time-out in seconds as the ring's in nanoseconds: -1 means no limit. What is taken and refused: ``limits``."""
    cdef double seconds = -1
    if timeout is None:
        return -1
    if isinstance(timeout, float):
        seconds = PyFloat_AS_DOUBLE(timeout)
    elif isinstance(timeout, int):
        seconds = PyLong_AsDouble(timeout)
        if seconds < 0:
            # Negative, or beyond every float: then there is an error set.
            PyErr_Clear()
    if 0 <= seconds < LONGEST_SECONDS:
        return <int64_t>(seconds * 1e9)
    from .limits import limit_seconds

    timeout = limit_seconds(timeout)
    if timeout is None:
        return -1
    seconds = timeout
    return <int64_t>(seconds * 1e9)
