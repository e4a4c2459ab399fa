# cython: language_level=3, auto_pickle=False, autotestdict=False
# cython: freethreading_compatible=True
"""What ``core/polling.pxd`` decides, with a clock of the test's."""

from libc.stdint cimport int64_t, uint32_t

from nodedb_ring.core.kernel cimport this_cpu
from nodedb_ring.core.layout cimport Spin
from nodedb_ring.core.polling cimport poll_pays, polled


cdef class Waiter:
    """One end, which has not waited yet."""

    cdef Spin spin

    def pays(self, uint32_t waker_cpu, int64_t now, int64_t spin_ns):
        return poll_pays(&self.spin, waker_cpu, now, spin_ns)

    def polled(self, bint is_over, int64_t spin_ns):
        polled(&self.spin, is_over, spin_ns)


def processor():
    """That of the calling thread, plus one."""
    return this_cpu()
