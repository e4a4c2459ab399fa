# Whether a wait polls before it sleeps: as long as that gains something, or takes little of the time. Of both ends.

from libc.stdint cimport int64_t, uint32_t

from .kernel cimport this_cpu
from .layout cimport Spin

cdef enum:
    # Polls in vain may take one part in so many of all time.
    SHARE = 8
    # And so many polls more after one that gained something.
    PATIENCE = 4


cdef inline bint poll_pays(Spin* spin, uint32_t waker_cpu, int64_t now, int64_t spin_ns) noexcept nogil:
    """Whether a wait that begins `now` begins with a poll of `spin_ns`.

    Not where the other end was last seen on this very processor: while the waiter polls there, nothing comes.
    """
    cdef int64_t most = PATIENCE * spin_ns
    if spin_ns <= 0 or (waker_cpu != 0 and waker_cpu == this_cpu()):
        return False
    spin.credit_ns = min(spin.credit_ns + (now - spin.credited_at) // SHARE, most)
    spin.credited_at = now
    return spin.credit_ns >= spin_ns


cdef inline void polled(Spin* spin, bint is_over, int64_t spin_ns) noexcept nogil:
    """After a poll: whether the wait was over by then."""
    spin.credit_ns = PATIENCE * spin_ns if is_over else spin.credit_ns - spin_ns
