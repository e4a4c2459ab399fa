# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O1
"""One ring: an array of indices, a store of rows and an arena of payload, in one block of memory.

Positions are counts that only grow; the slot of a position is ``position & (capacity - 1)``. ``index[slot]`` is
the number of the row at that position. Every row has one owner at a time::

    released           taken             published         released + capacity
       |                 |                   |                   |
       |  held by leases |  waits: consumer  |  free: producer   |
       |  (any order)    |  may take         |  may write        |

    released .. taken                 in leases, which know their own rows
    taken .. published                index[] names the rows that wait
    published .. released + capacity  index[] names the rows that are free

The producer writes rows at the positions from ``published`` on and publishes them by storing ``published``. The consumer
takes positions by storing ``taken``, and releases a row by writing its index at position ``released`` and storing
``released``. Only the consumer writes ``index``. So rows never move, several leases may be out at once and end
in any order, and after a crash the rows show which events are outstanding. (After AF_XDP's fill and completion rings
and NVMe's queues, in one array.)

What each side publishes for the other:

=====================  ===============================  ============================================
stored with release    by                               loaded with acquire, by the other side, in
=====================  ===============================  ============================================
``published``          ``ring_publish_stamped``         ``ring_available``: rows and payload are written
``released``           ``ring_release_run``             ``ring_make_room``: rows are read, indices written
``arena_released``     ``ring_release_run``             ``ring_make_room``: payload is read
``emitted_sequence``   ``ring_attempted``               ``EventRing.emitted_sequence``
``producer_claim``     ``ring_close_producer``          ``ring_producer_gone``: then ``published`` once more
``*_claim``            ``ring_open_claim``              ``_mark_dead``: then the pid is that claim's or a later one's
``waiting``            ``_announce``, its membarrier    ``ring_notify``; with SLEEPS_OFTEN the fence is ``ring_wake``'s
``room_waiting``       ``_announce_room``, the same     ``ring_release_run``, ``ring_wake_producer``
=====================  ===============================  ============================================

Each word has one writer but the claims: a claim that its holder left open is marked ``GONE`` by whoever finds the holder
dead, by compare-and-swap, so that a successor's claim is never taken for its predecessor's.

Store order, so that either side may die between any two stores: the producer stores intent, payload and row,
``arena_head``, ``published``, ``emitted_sequence``; the consumer the indices, ``released``, ``arena_released``. What a
successor makes of what it finds: ``adopt_producer`` and ``adopt_consumer`` of ``core/succession.pxd``.

An end works from its own positions, which it keeps in memory of its own; the header has copies for the other end. Of a
block that is shared with other processes, every number that is read back is checked, or masked, before it is used.

The arena is a ring of bytes whose positions only grow too. An event's span never wraps: what does not fit before the
end of a lap starts the next one. Space comes back in publication order, at the oldest event still held.

The producer's hot path is in ``core/push.pxd``, the consumer's in ``core/take.pxd``; beside them lie the chapters: room and
pressure (``_room``), copying in bulk (``_bulk``), waiting (``_waiting``), waking (``_waking``), claims (``_claims``) and ``succession``.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport ENOMEM, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from .core._claims cimport is_role_held, ring_claim_role, ring_holder, ring_open_claim, ring_release_role
from .core._room cimport ring_next_pressure, ring_observe, ring_occupancy, ring_percent
from .core._waking cimport ring_wake
from .core.atomic cimport exchange_u32, fence, load_acquire, load_acquire_u32
from .core.kernel cimport close_fd, map_wiped_on_fork, membarrier_register, unmap
from .core.layout cimport (
    CONSUMER_ROLE,
    CORRUPT_HEAD,
    CORRUPT_INDEX,
    CORRUPT_LEDGER,
    CORRUPT_PUBLISHED,
    CORRUPT_RELEASED,
    CORRUPT_ROW,
    CORRUPT_TAIL,
    GONE,
    LAYOUT_VERSION,
    LINE,
    MAGIC,
    PAGE,
    PRODUCER_ROLE,
    SOUND,
    WAKER_FENCES,
    ConsumerSide,
    EventRow,
    LocalSide,
    ProducerSide,
    Ring,
    RingHeader,
    arena_at,
    index_at,
    rows_at,
)
from .core.succession cimport adopt_consumer, adopt_producer

import os

from .core.backpressure import PressureState
from .errors import CorruptRingError, LayoutError

__all__ = ["EventRing", "block_bytes"]

cdef tuple _STATES = tuple(PressureState)


def block_bytes(capacity: int, arena_bytes: int) -> int:
    """Bytes of a block for `capacity` events and `arena_bytes` of payload. Neither is checked here."""
    rows = (index_at() + 4 * capacity + PAGE - 1) // PAGE * PAGE
    return rows + sizeof(EventRow) * capacity + (arena_bytes + PAGE - 1) // PAGE * PAGE


cdef int _write_geometry(Ring* ring, uint64_t size) except -1:
    cdef RingHeader* header = ring.header
    header.index_at = index_at()
    header.rows_at = rows_at(ring.capacity)
    header.arena_at = arena_at(ring.capacity)
    header.block_bytes = size
    header.capacity = ring.capacity
    header.arena_bytes = ring.arena_bytes
    header.thresholds[0] = <uint32_t>ring.throttle_enter
    header.thresholds[1] = <uint32_t>ring.throttle_exit
    header.thresholds[2] = <uint32_t>ring.suspend_enter
    header.thresholds[3] = <uint32_t>ring.suspend_exit
    header.core_id = ring.core_id
    header.version = LAYOUT_VERSION
    header.magic = MAGIC
    return 0


cdef int _check_geometry(Ring* ring, uint64_t size) except -1:
    cdef RingHeader* header = ring.header
    if header.magic != MAGIC:
        raise LayoutError(f"core {ring.core_id}: magic {header.magic:#x}: is not a ring, which has {MAGIC:#x}")
    if header.version != LAYOUT_VERSION:
        raise LayoutError(
            f"core {ring.core_id}: layout version {header.version}: this build reads {LAYOUT_VERSION}; use one version"
        )
    for name, is_there, expected in (
        ("core_id", header.core_id, ring.core_id),
        ("capacity", header.capacity, ring.capacity),
        ("arena_bytes", header.arena_bytes, ring.arena_bytes),
        ("block_bytes", header.block_bytes, size),
        ("index_at", header.index_at, index_at()),
        ("rows_at", header.rows_at, rows_at(ring.capacity)),
        ("arena_at", header.arena_at, arena_at(ring.capacity)),
        ("throttle_enter", header.thresholds[0], ring.throttle_enter),
        ("throttle_exit", header.thresholds[1], ring.throttle_exit),
        ("suspend_enter", header.thresholds[2], ring.suspend_enter),
        ("suspend_exit", header.thresholds[3], ring.suspend_exit),
    ):
        if is_there != expected:
            raise LayoutError(f"core {ring.core_id}: {name} {is_there}: the bus was made with {expected}")
    return 0


cdef dict _CORRUPTIONS = {
    CORRUPT_PUBLISHED: "published position {}: leaves more events than there are slots",
    CORRUPT_RELEASED: "released position {}: is not within a ring's length of what was published",
    CORRUPT_TAIL: "arena tail {}: is not within the arena's length of its head",
    CORRUPT_HEAD: "arena head {}: lies outside its lap",
    CORRUPT_INDEX: "row number {} in the index: there is no such row",
    CORRUPT_LEDGER: "row {}: stands at two positions, or at one that no event has",
    CORRUPT_ROW: "row of position {}, or one behind it: is not an event; its fields lie outside the arena, say",
}


cdef object _corruption(uint32_t core_id, uint32_t what, uint64_t value):
    return CorruptRingError(
        f"core {core_id}: {_CORRUPTIONS[what].format(value)}; something else has written to this block: "
        "unlink the bus, create it again, and replay from the log"
    )


cdef class EventRing:
    """One bounded single-producer single-consumer ring, laid out in a block of memory that it is given.

    Python code uses the two ends that ``create_event_bus`` hands out; this class is what they share, and what Cython
    code cimports to push and take without the GIL (``_ring.pxd``).

    Parameters
    ----------
    block : writable buffer, zeroed, of ``block_bytes(capacity, arena_bytes)`` bytes, aligned to a page
    core_id : int
    capacity : int, a power of two up to 2**32
    arena_bytes : int, 1 to 2**32 - 1
    thresholds : (int, int, int, int)
        Enter and leave ``THROTTLED``, enter and leave ``SUSPENDED``, in percent.
    blocks : writable buffer, optional
        The blocks of all cores of a bus, one behind the other, of which `block` is one, perhaps in another mapping. It
        is laid out already, and stays as it is: check that it was laid out so.

    Raises
    ------
    LayoutError
        The block to attach to says something else of itself: which.

    Thread safety
    -------------
    Properties may be read from any thread: each is a snapshot. One thread at a time may push, one may take.
    """

    def __cinit__(
        self, block: object, *, core_id: int, capacity: int, arena_bytes: int, thresholds: tuple, blocks: object = None
    ):
        cdef Ring* ring = &self.ring
        cdef uint64_t i
        cdef int wrong
        ring.wake_fd = ring.watch_fd = ring.timer_fd = ring.role_fd = ring.peer_fd = -1
        if capacity < 1 or capacity > 2**32 or capacity & (capacity - 1):
            raise ValueError(f"capacity {capacity}: must be a power of two, at most {2**32}")
        if not 1 <= arena_bytes < 2**32:
            raise ValueError(f"arena_bytes {arena_bytes}: must be in 1 .. {2**32 - 1}")
        PyObject_GetBuffer(block, &self._block, PyBUF_WRITABLE)
        self._has_block = True
        if self._block.len < block_bytes(capacity, arena_bytes):
            raise ValueError(f"block of {self._block.len} bytes: {block_bytes(capacity, arena_bytes)} are needed")
        if <size_t>self._block.buf % LINE != 0:
            raise ValueError(f"block at {<size_t>self._block.buf:#x}: must be aligned to {LINE} bytes")
        ring.throttle_enter, ring.throttle_exit, ring.suspend_enter, ring.suspend_exit = thresholds
        ring.core_id = core_id
        ring.capacity = capacity
        ring.mask = ring.capacity - 1
        ring.arena_bytes = arena_bytes
        # Not at the import: beside other threads the first call takes the kernel milliseconds, and later ones nothing.
        ring.fenced = 0 if membarrier_register() else 1
        ring.header = <RingHeader*>self._block.buf
        if blocks is None:
            _write_geometry(ring, self._block.len)
        else:
            PyObject_GetBuffer(blocks, &self._blocks, PyBUF_WRITABLE)
            self._has_blocks = True
            ring.blocks = <uint8_t*>self._blocks.buf
            ring.block_bytes = self._block.len
            ring.num_cores = <uint32_t>(self._blocks.len // self._block.len)
            _check_geometry(ring, self._block.len)
        # From what was asked for, and not from the block: what is in the block may change at any time.
        ring.index = <uint32_t*>(<uint8_t*>self._block.buf + index_at())
        ring.rows = <EventRow*>(<uint8_t*>self._block.buf + rows_at(ring.capacity))
        ring.arena = <uint8_t*>self._block.buf + arena_at(ring.capacity)
        ring.local = <LocalSide*>map_wiped_on_fork(PAGE)
        if ring.local == NULL:
            wrong = errno
            if wrong != ENOMEM:
                raise OSError(
                    wrong,
                    f"madvise(MADV_WIPEONFORK): {os.strerror(wrong)}: it needs Linux 4.14 or newer, and a sandbox that "
                    "allows it; without it a forked child would take its parent's ends for its own",
                )
            raise MemoryError("no memory for the local side of a ring")
        ring.local.alive = 1
        if blocks is not None:
            ring.shared = 1
            return
        with nogil:
            for i in range(ring.capacity):
                ring.index[i] = <uint32_t>i
            # Touch every page now: the first touch of memory costs more than copying it.
            memset(ring.rows, 0, sizeof(EventRow) * ring.capacity)
            memset(ring.arena, 0, ring.arena_bytes)
            # The limits are zero, so the first emit calls ring_make_room before it writes a byte.
            ring_observe(ring)

    def __dealloc__(self):
        if self.ring.local == NULL and not self._has_block:
            return  # Cython refused an argument before __cinit__ began: every descriptor is 0, and not ours
        ring_release_role(&self.ring)
        if self.ring.peer_fd >= 0:
            close_fd(self.ring.peer_fd)
        if self.ring.watch_fd >= 0 and self.ring.watch_fd != self.ring.wake_fd:
            close_fd(self.ring.watch_fd)
        if self.ring.wake_fd >= 0:
            close_fd(self.ring.wake_fd)
        if self.ring.timer_fd >= 0:
            close_fd(self.ring.timer_fd)
        if self.ring.local != NULL:
            unmap(self.ring.local, PAGE)
        if self._has_blocks:
            PyBuffer_Release(&self._blocks)
        if self._has_block:
            PyBuffer_Release(&self._block)

    def __reduce__(self):
        raise TypeError("a private ring lives in the memory of one process and cannot be pickled")

    def adopt_producer(self, file_fd: int, wake_path: bytes):
        """Claims the producer's end of an attached ring, and continues where the last producer stopped.

        Parameters
        ----------
        file_fd : int
            The bus's file. It is opened again for the claim.
        wake_path : bytes
            The FIFO that signals an asynchronous waiter; empty where there is none, since the bus was unlinked.

        Raises
        ------
        RoleTaken
            A process that lives holds the end.
        CorruptRingError
            The state in the block cannot be continued.
        OSError
            No descriptor is left.
        """
        cdef Ring* ring = &self.ring
        ring_claim_role(ring, file_fd, wake_path, PRODUCER_ROLE)
        adopt_producer(ring)
        if ring.local.producer.corrupt != SOUND:
            ring_release_role(ring)
            self.check_producer()
        # What the last holder waited for is over, and whether it could have a membarrier.
        exchange_u32(&ring.header.room_waiting, WAKER_FENCES if ring.fenced else 0)
        ring_open_claim(ring, PRODUCER_ROLE)
        # Whoever waits is woken, and watches the new holder.
        fence()
        ring_wake(ring)

    def adopt_consumer(self, file_fd: int, wake_path: bytes):
        """The same for the consumer's end: what was published and not released is delivered again, in order.

        Until ``open_consumer`` the producer does not know of it, and ``give_back_consumer`` leaves no trace.
        """
        cdef Ring* ring = &self.ring
        cdef bint has_memory
        ring_claim_role(ring, file_fd, wake_path, CONSUMER_ROLE)
        with nogil:
            has_memory = adopt_consumer(ring)
        if not has_memory:
            ring_release_role(ring)
            raise MemoryError(f"no memory to go through the {ring.capacity} rows of core {ring.core_id}")
        if ring.local.consumer.corrupt != SOUND:
            ring_release_role(ring)
            self.check_consumer()

    def open_consumer(self):
        """Opens the claim of the consumer's end that ``adopt_consumer`` took over."""
        cdef Ring* ring = &self.ring
        exchange_u32(&ring.header.waiting, WAKER_FENCES if ring.fenced else 0)
        ring_open_claim(ring, CONSUMER_ROLE)

    def give_back_consumer(self):
        """Frees the end that ``adopt_consumer`` took over. Nobody else has it yet."""
        ring_release_role(&self.ring)

    cdef int check_producer(self) except -1:
        cdef ProducerSide* side = &self.ring.local.producer
        if side.corrupt != SOUND:
            raise _corruption(self.ring.core_id, side.corrupt, side.corrupt_value)
        return 0

    cdef int check_consumer(self) except -1:
        cdef ConsumerSide* side = &self.ring.local.consumer
        if side.corrupt != SOUND:
            raise _corruption(self.ring.core_id, side.corrupt, side.corrupt_value)
        return 0

    @property
    def claims(self) -> tuple[int, int]:
        """How often the producer's end and the consumer's were claimed. Always 0 on a private ring."""
        return (
            load_acquire_u32(&self.ring.header.producer_claim) >> 1,
            load_acquire_u32(&self.ring.header.consumer_claim) >> 1,
        )

    @property
    def gone(self) -> tuple[bool, bool]:
        """Whether the latest holder of the producer's end, and of the consumer's, has closed it or was found dead."""
        return (
            load_acquire_u32(&self.ring.header.producer_claim) & GONE != 0,
            load_acquire_u32(&self.ring.header.consumer_claim) & GONE != 0,
        )

    def check_positions(self):
        """Checks that the two ends' positions can be those of a ring, as far as a snapshot of moving numbers allows.

        Raises
        ------
        CorruptRingError
            They cannot.
        """
        cdef RingHeader* header = self.ring.header
        cdef uint64_t released, published
        for _ in range(100):
            released = load_acquire(&header.released)
            published = load_acquire(&header.published)
            # Only where nothing was released meanwhile do the two belong together.
            if load_acquire(&header.released) == released:
                if published - released > self.ring.capacity:
                    raise _corruption(self.ring.core_id, CORRUPT_PUBLISHED, published)
                return

    def holders(self, file_fd: int) -> tuple[tuple[int | None, bool], tuple[int | None, bool]]:
        """Who holds the two ends, by the locks of the bus's file: pid, and whether it is of another pid namespace.

        (None, False) for an end that no process holds.
        """
        producer = consumer = (None, False)
        if is_role_held(file_fd, self.ring.core_id, PRODUCER_ROLE):
            producer = ring_holder(&self.ring, PRODUCER_ROLE)
        if is_role_held(file_fd, self.ring.core_id, CONSUMER_ROLE):
            consumer = ring_holder(&self.ring, CONSUMER_ROLE)
        return producer, consumer

    @property
    def core_id(self) -> int:
        """The Data Plane core whose events this ring carries."""
        return self.ring.header.core_id

    @property
    def capacity(self) -> int:
        """Slots, each usable: a power of two."""
        return self.ring.capacity

    @property
    def arena_bytes(self) -> int:
        """Bytes of payload that the ring may hold."""
        return self.ring.arena_bytes

    @property
    def slots_in_use(self) -> int:
        """Events published and not yet released, leased ones included: a snapshot."""
        cdef uint64_t slots, payload
        ring_occupancy(&self.ring, &slots, &payload)
        return slots

    @property
    def bytes_in_use(self) -> int:
        """Bytes of the arena that cannot be written yet: a snapshot."""
        cdef uint64_t slots, payload
        ring_occupancy(&self.ring, &slots, &payload)
        return payload

    @property
    def utilization(self) -> int:
        """Whole percent in use, 0 to 100, the fuller of slots and arena: a snapshot."""
        cdef uint64_t slots, payload
        ring_occupancy(&self.ring, &slots, &payload)
        return ring_percent(&self.ring, slots, payload)

    @property
    def pressure_state(self) -> PressureState:
        """The state that follows the producer's last one at what is in use now: a snapshot, which stores nothing."""
        cdef uint64_t slots, payload
        ring_occupancy(&self.ring, &slots, &payload)
        return _STATES[
            ring_next_pressure(
                &self.ring,
                load_acquire_u32(&self.ring.header.pressure),
                ring_percent(&self.ring, slots, payload),
            )
        ]

    @property
    def emitted_sequence(self) -> int | None:
        """The highest sequence number tried, enqueued or not; None while nothing was tried."""
        # Acquire, so that the number read next is one that was tried; pairs with ring_attempted.
        if load_acquire_u32(&self.ring.header.attempted) == 0:
            return None
        return load_acquire(&self.ring.header.emitted_sequence)
