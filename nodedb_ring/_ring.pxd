# The C API of a ring, for this package and for Cython code compiled against it.
#
# Producer, one thread at a time:  ring_push, ring_push_rows; or ring_reserve, write the rows, ring_publish.
# Consumer, one thread at a time:  ring_take, read the rows, ring_release; or ring_peek, ring_advance.
# Nothing here needs the GIL, raises, or checks which thread calls.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ._atomic cimport (
    compiler_fence,
    fence,
    load_acquire,
    load_relaxed,
    load_relaxed_u32,
    store_relaxed,
    store_relaxed_u32,
    store_release,
    store_release_u32,
    unlikely,
)

cdef extern from *:
    """
    #ifndef NODEDB_RING_LAYOUT
    #define NODEDB_RING_LAYOUT
    #include <stddef.h>
    #include <stdint.h>

    #define NODEDB_NULL_LENGTH UINT32_MAX    /* of a field that is None */
    #define NODEDB_NO_TIME INT64_MIN         /* a stamp that is None: NumPy's NaT */

    typedef struct { uint32_t offset, length; } nodedb_field;

    /* One event. The first name of each field is a column of EVENT_DTYPE; `span_*`, `position` and `arena_start` are
       the ring's own. */
    typedef struct {
        uint64_t sequence, lsn, tenant_id;
        int64_t system_time_ms, valid_time_ms;
        uint32_t vshard_id, count;
        uint8_t op, source;
        uint16_t reserved;
        uint32_t span_offset, span_length;   /* the bytes of the arena that the event's fields lie in */
        uint32_t reserved_too;
        nodedb_field field[6];               /* collection, row_id, user_id, statement_digest, new_value, old_value */
        uint64_t position;                   /* of its publication: the order of events after a crash */
        uint64_t arena_start;                /* arena position of the span's first byte */
    } nodedb_row;

    #define NODEDB_LINE 128                  /* adjacent 64-byte lines are fetched in pairs */
    #define NODEDB_ALIGNED __attribute__((aligned(NODEDB_LINE)))

    /* The head of a block: one line a writer. Positions are counts that only grow, and wrap with their type. */
    typedef struct {
        /* geometry: written once, when the block is made */
        uint64_t magic NODEDB_ALIGNED;
        uint32_t version, core_id;
        uint64_t capacity, arena_bytes;
        uint64_t index_at, rows_at, arena_at, block_bytes;
        /* the producer's, read by the consumer when it finds nothing */
        uint64_t published NODEDB_ALIGNED;   /* events published */
        uint64_t arena_head;                 /* arena position of the next free byte */
        uint64_t arena_lap;                  /* arena position of the byte at offset 0 in this lap */
        uint64_t arena_floor;                /* arena position of the last start with nothing outstanding */
        uint64_t emitted_sequence;           /* the highest tried */
        uint64_t intent;                     /* the highest about to be tried */
        uint32_t attempted, intended;        /* whether those two hold anything yet */
        uint32_t producer_closed, pressure;
        /* the producer's counters, read by nobody's hot path */
        uint64_t dropped_full NODEDB_ALIGNED;
        uint64_t dropped_disconnected;
        uint64_t first_dropped, last_dropped;
        uint64_t slots_high_water, bytes_high_water;
        uint64_t transitions[3];             /* into each pressure state */
        /* the consumer's, read by the producer when it finds no room */
        uint64_t taken NODEDB_ALIGNED;       /* events taken */
        uint64_t released;                   /* rows given back */
        uint64_t arena_released;             /* arena position of the oldest byte that may still be read */
        uint64_t batches;                    /* drains and leases that were not empty */
        /* read by the producer after each publication, so written only to sleep and to close */
        uint32_t waiting NODEDB_ALIGNED;     /* WAITING_* bits: who wants to be woken. A futex */
        uint32_t consumer_closed;
    } nodedb_header;

    /* What each end keeps to itself, on memory that a forked child finds zeroed. */
    typedef struct {
        uint64_t owner NODEDB_ALIGNED;       /* token of the thread that owns the producer; 0 is nobody */
        uint64_t seen_released;              /* the consumer's position when last looked at */
        uint64_t seen_tail;                  /* the same for the arena */
        uint64_t arena_limit;                /* offset in this lap up to which bytes may be written without a look */
        uint64_t watch_slots, watch_bytes;   /* in use, by the cached positions: above either, ring_observe */
        uint64_t overflow_count;             /* dropped since the last overflow that was logged as ended */
        uint64_t overflow_first, overflow_last;
        uint32_t overflowing;                /* the last attempt was dropped because full */
        uint32_t noted;                      /* NOTED_* bits: what the next Python call has to log */
    } nodedb_producer_side;

    typedef struct nodedb_lease {
        nodedb_row *rows;                    /* one contiguous run of the store */
        uint64_t position, arena_start;      /* of its first event */
        struct nodedb_lease *older, *newer;  /* in order of position */
        uint32_t count;
    } nodedb_lease;

    typedef struct {
        uint64_t owner NODEDB_ALIGNED;
        uint64_t seen_published;             /* the producer's position when last looked at */
        uint64_t arena_taken;                /* arena position after the last event taken */
        nodedb_lease *oldest, *newest;
    } nodedb_consumer_side;

    typedef struct {
        nodedb_producer_side producer;
        nodedb_consumer_side consumer;
        uint64_t alive NODEDB_ALIGNED;       /* 1 in the process that made it, 0 in its forked children */
    } nodedb_local;

    typedef struct {
        nodedb_header *header;
        uint32_t *index;                     /* [capacity] which row stands at each position; the consumer writes it */
        nodedb_row *rows;                    /* [capacity] */
        uint8_t *arena;                      /* [arena_bytes] */
        nodedb_local *local;
        uint64_t capacity, mask, arena_bytes;
        uint64_t throttle_enter, throttle_exit, suspend_enter, suspend_exit;   /* percent */
        int wake_fd;                         /* eventfd of an asynchronous waiter, or -1 */
        uint32_t fenced;                     /* the producer must fence before it reads `waiting` */
    } nodedb_ring;

    _Static_assert(sizeof(nodedb_row) == 128, "a row is two cache lines");
    _Static_assert(offsetof(nodedb_row, field) == 64, "the fields fill the second line");
    _Static_assert(offsetof(nodedb_header, taken) % NODEDB_LINE == 0, "the two sides share no line");
    _Static_assert(sizeof(nodedb_local) <= 4096, "the local side fits one page");

    /* Moves the six offsets of a row, None's and empty ones too: they all lie in the row's span. Lengths stay. */
    typedef uint32_t nodedb_u32x4 __attribute__((vector_size(16), aligned(4), may_alias));
    static inline void nodedb_shift_fields(nodedb_row *row, uint32_t by) {
        nodedb_u32x4 step = {by, 0, by, 0}, *two = (nodedb_u32x4 *)row->field;
        two[0] += step;
        two[1] += step;
        two[2] += step;
    }
    #endif
    """
    const uint32_t NULL_LENGTH "NODEDB_NULL_LENGTH"
    const int64_t NO_TIME "NODEDB_NO_TIME"

    ctypedef struct EventField "nodedb_field":
        uint32_t offset, length

    ctypedef struct EventRow "nodedb_row":
        uint64_t sequence, lsn, tenant_id
        int64_t system_time_ms, valid_time_ms
        uint32_t vshard_id, count
        uint8_t op, source
        uint32_t span_offset, span_length
        EventField field[6]
        uint64_t position, arena_start

    ctypedef struct RingHeader "nodedb_header":
        uint64_t magic
        uint32_t version, core_id
        uint64_t capacity, arena_bytes, index_at, rows_at, arena_at, block_bytes
        uint64_t published, arena_head, arena_lap, arena_floor, emitted_sequence, intent
        uint32_t attempted, intended, producer_closed, pressure
        uint64_t dropped_full, dropped_disconnected, first_dropped, last_dropped
        uint64_t slots_high_water, bytes_high_water
        uint64_t transitions[3]
        uint64_t taken, released, arena_released, batches
        uint32_t waiting, consumer_closed

    ctypedef struct ProducerSide "nodedb_producer_side":
        uint64_t owner, seen_released, seen_tail, arena_limit, watch_slots, watch_bytes
        uint64_t overflow_count, overflow_first, overflow_last
        uint32_t overflowing, noted

    ctypedef struct RingLease "nodedb_lease":
        EventRow* rows
        uint64_t position, arena_start
        RingLease* older
        RingLease* newer
        uint32_t count

    ctypedef struct ConsumerSide "nodedb_consumer_side":
        uint64_t owner, seen_published, arena_taken
        RingLease* oldest
        RingLease* newest

    ctypedef struct LocalSide "nodedb_local":
        ProducerSide producer
        ConsumerSide consumer
        uint64_t alive

    ctypedef struct Ring "nodedb_ring":
        RingHeader* header
        uint32_t* index
        EventRow* rows
        uint8_t* arena
        LocalSide* local
        uint64_t capacity, mask, arena_bytes
        uint64_t throttle_enter, throttle_exit, suspend_enter, suspend_exit
        int wake_fd
        uint32_t fenced

    void shift_fields "nodedb_shift_fields"(EventRow* row, uint32_t by) noexcept nogil

cdef enum:
    FIELD_COUNT = 6
    STRING_COUNT = 4  # the first so many fields are UTF-8

cdef enum: # pressure states, as in backpressure.PressureState
    PRESSURE_NORMAL = 0
    PRESSURE_THROTTLED = 1
    PRESSURE_SUSPENDED = 2

cdef enum: # what `waiting` holds
    WAITING_THREAD = 1
    WAITING_FD = 2

cdef enum: # what `noted` holds: 1 << state for a transition, and
    NOTED_OVERFLOW_BEGAN = 8
    NOTED_OVERFLOW_ENDED = 16
    NOTED_DISCONNECT = 32

ctypedef enum PushResult:
    PUSH_DONE
    PUSH_FULL          # dropped and counted: no slot, or no room in the arena
    PUSH_DISCONNECTED  # dropped and counted: the consumer has gone
    PUSH_TOO_LARGE     # refused, nothing counted: larger than the whole arena

ctypedef enum WaitResult:
    WAIT_READY         # something to take, or an end that closed
    WAIT_TIMEOUT
    WAIT_INTERRUPTED   # by a signal

# The slow paths, in _ring.pyx.
cdef bint ring_make_room(Ring* ring, uint64_t slots, uint64_t payload) noexcept nogil
cdef void ring_drop(Ring* ring, uint64_t first, uint64_t last, uint64_t count, PushResult reason) noexcept nogil
cdef void ring_drop_rows(
    Ring* ring, const EventRow* rows, uint64_t done, uint64_t count, PushResult why
) noexcept nogil
cdef void ring_observe(Ring* ring) noexcept nogil
cdef void ring_settle(Ring* ring) noexcept nogil
cdef void ring_wake(Ring* ring) noexcept nogil
cdef uint32_t ring_percent(Ring* ring, uint64_t slots, uint64_t payload) noexcept nogil
cdef uint32_t ring_next_pressure(Ring* ring, uint32_t state, uint32_t percent) noexcept nogil
cdef void ring_occupancy(Ring* ring, uint64_t* slots, uint64_t* payload) noexcept nogil

# In bulk. ring_push_rows returns how many went in, a prefix; the rest is dropped and counted. Offsets are into `payload`.
cdef uint64_t ring_push_rows(
    Ring* ring, const EventRow* rows, uint64_t count, const uint8_t* payload
) noexcept nogil
# The same for rows that lie packed in `payload`, one behind the other, the last up to `end`.
cdef uint64_t ring_push_packed(
    Ring* ring, const EventRow* rows, uint64_t count, const uint8_t* payload, uint64_t end
) noexcept nogil
# ring_measure tells how many events ring_copy_out can copy, at most `most`, and the payload bytes that takes.
cdef uint64_t ring_measure(Ring* ring, uint64_t most, uint64_t* payload_bytes) noexcept nogil
# Returns the bytes of payload written; the offsets of the copied rows are into it.
cdef uint64_t ring_copy_out(Ring* ring, uint64_t count, EventRow* rows, uint8_t* payload) noexcept nogil

# Sleeping, closing, and who calls.
cdef WaitResult ring_wait(Ring* ring, int64_t timeout_ns, uint32_t spins) noexcept nogil
cdef bint ring_arm(Ring* ring) noexcept nogil
cdef void ring_disarm(Ring* ring) noexcept nogil
cdef bint ring_producer_gone(Ring* ring) noexcept nogil
cdef void ring_close_producer(Ring* ring) noexcept nogil
cdef void ring_close_consumer(Ring* ring) noexcept nogil
cdef uint64_t thread_token() noexcept nogil
cdef int64_t monotonic() noexcept nogil


cdef inline uint64_t row_lap(const EventRow* row) noexcept nogil:
    """The arena position where the lap that a row's span lies in begins: an empty span may stand at either end of one."""
    return row.arena_start - row.span_offset


cdef inline bint row_is_packed(const EventRow* row, uint64_t* payload) noexcept nogil:
    """Whether the fields of a row lie back to back from the first one's offset on; `payload` is their bytes in all."""
    cdef uint32_t start = row.field[0].offset
    cdef uint32_t stray = 0, length
    cdef uint64_t size = 0
    cdef int k
    for k in range(FIELD_COUNT):
        stray |= row.field[k].offset - start - <uint32_t>size
        length = row.field[k].length
        size += 0 if length == NULL_LENGTH else length
    payload[0] = size
    return stray == 0


cdef inline void row_pack(
    EventRow* to, const EventRow* row, uint8_t* base, uint64_t offset, const uint8_t* payload
) noexcept nogil:
    """Copies the fields of `row` out of `payload`, wherever they lie, back to back to `base + offset`."""
    cdef uint32_t length
    cdef int k
    for k in range(FIELD_COUNT):
        to.field[k].offset = <uint32_t>offset
        length = row.field[k].length
        if length != NULL_LENGTH and length != 0:
            memcpy(base + offset, payload + row.field[k].offset, length)
            offset += length


cdef inline uint32_t ring_run(const uint32_t* index, uint32_t most) noexcept nogil:
    """How many of the first `most` indices count up from the first: a run of the store."""
    cdef uint32_t first = index[0]
    cdef uint32_t run = 1
    while run < most and index[run] == first + run:
        run += 1
    return run


ctypedef enum Claim:
    CLAIM_OK
    CLAIM_OTHER_THREAD
    CLAIM_FORKED


cdef inline Claim ring_claim(Ring* ring, uint64_t* owner) noexcept nogil:
    """Whether this thread owns an end, which is its first user's. Call it with the GIL: two may claim at once."""
    cdef uint64_t token = thread_token()
    if owner[0] == token:
        return CLAIM_OK
    if ring.local.alive == 0:
        return CLAIM_FORKED
    if owner[0] != 0:
        return CLAIM_OTHER_THREAD
    owner[0] = token
    return CLAIM_OK


# ---- producer -------------------------------------------------------------------------------------------------------

cdef inline void ring_intend(Ring* ring, uint64_t sequence) noexcept nogil:
    """Says which number is about to be tried, so that a successor never uses it again."""
    cdef RingHeader* header = ring.header
    if unlikely(header.intended == 0):
        store_relaxed(&header.intent, sequence)
        store_release_u32(&header.intended, 1)
    elif sequence > header.intent:
        store_relaxed(&header.intent, sequence)


cdef inline void ring_attempted(Ring* ring, uint64_t sequence) noexcept nogil:
    """Publishes the highest number tried. Pairs with the acquire in EventRing.emitted_sequence."""
    cdef RingHeader* header = ring.header
    if unlikely(header.attempted == 0):
        store_release(&header.emitted_sequence, sequence)
        store_release_u32(&header.attempted, 1)
    elif sequence > header.emitted_sequence:
        store_release(&header.emitted_sequence, sequence)


cdef inline void ring_notify(Ring* ring) noexcept nogil:
    """Wakes the consumer if it sleeps.

    The sleeper's membarrier in ring_arm stands for both fences of this handshake: either it sees what was published,
    or this load sees that it waits. Where the kernel has no membarrier, the fence is here.
    """
    if unlikely(ring.fenced != 0):
        fence()
    else:
        compiler_fence()
    if unlikely(load_relaxed_u32(&ring.header.waiting) != 0):
        ring_wake(ring)


cdef inline PushResult ring_admit(Ring* ring, uint64_t sequence, uint64_t payload) noexcept nogil:
    """Finds room for one event of `payload` bytes, or drops and counts it."""
    cdef RingHeader* header = ring.header
    cdef ProducerSide* side = &ring.local.producer
    if unlikely(payload > ring.arena_bytes):
        return PUSH_TOO_LARGE
    ring_intend(ring, sequence)
    if unlikely(load_relaxed_u32(&header.consumer_closed) != 0):
        ring_drop(ring, sequence, sequence, 1, PUSH_DISCONNECTED)
        return PUSH_DISCONNECTED
    if unlikely(
        header.published - side.seen_released >= ring.capacity
        or header.arena_head - header.arena_lap + payload > side.arena_limit
    ):
        if not ring_make_room(ring, 1, payload):
            ring_drop(ring, sequence, sequence, 1, PUSH_FULL)
            return PUSH_FULL
    return PUSH_DONE


cdef inline EventRow* ring_head_row(Ring* ring) noexcept nogil:
    """The row at the next position: the producer's to write once ring_admit has found room."""
    return ring.rows + ring.index[ring.header.published & ring.mask]


cdef inline uint8_t* ring_head_payload(Ring* ring) noexcept nogil:
    """Where the next event's payload goes."""
    return ring.arena + (ring.header.arena_head - ring.header.arena_lap)


cdef inline void ring_stamp(
    EventRow* row, uint64_t position, uint64_t arena_start, uint64_t span_offset, uint64_t span_length
) noexcept nogil:
    row.position = position
    row.arena_start = arena_start
    row.span_offset = <uint32_t>span_offset
    row.span_length = <uint32_t>span_length


cdef inline void ring_publish_stamped(
    Ring* ring, uint64_t count, uint64_t arena_head, uint64_t sequence
) noexcept nogil:
    """Publishes `count` rows that are written and stamped, of which `sequence` is the highest number.

    The arena's head goes first: a successor that finds the rows must find their payload taken too.
    """
    cdef RingHeader* header = ring.header
    cdef ProducerSide* side = &ring.local.producer
    store_release(&header.arena_head, arena_head)
    # Publishes rows and payload; pairs with the acquire in ring_available.
    store_release(&header.published, header.published + count)
    ring_attempted(ring, sequence)
    ring_notify(ring)
    if unlikely(
        header.published - side.seen_released > side.watch_slots
        or arena_head - side.seen_tail > side.watch_bytes
        or side.overflowing != 0
    ):
        ring_settle(ring)


cdef inline PushResult ring_push(
    Ring* ring, const EventRow* row, const uint8_t* payload, uint32_t payload_bytes
) noexcept nogil:
    """Copies one event in: a row whose offsets lie in [0, payload_bytes], and its payload."""
    cdef PushResult result = ring_admit(ring, row.sequence, payload_bytes)
    cdef EventRow* to
    cdef uint64_t start, offset
    if unlikely(result != PUSH_DONE):
        return result
    start = ring.header.arena_head
    offset = start - ring.header.arena_lap
    to = ring_head_row(ring)
    memcpy(to, row, sizeof(EventRow))
    if offset != 0:
        shift_fields(to, <uint32_t>offset)
    if payload_bytes != 0:
        memcpy(ring.arena + offset, payload, payload_bytes)
    ring_stamp(to, ring.header.published, start, offset, payload_bytes)
    ring_publish_stamped(ring, 1, start + payload_bytes, row.sequence)
    return PUSH_DONE


cdef inline uint32_t ring_reserve(Ring* ring, uint32_t most, EventRow** first) noexcept nogil:
    """A contiguous run of free rows to write in place: at most `most`, 0 when full. Drops and counts nothing."""
    cdef uint64_t published = ring.header.published
    cdef uint64_t free = ring.capacity - (published - ring.local.producer.seen_released)
    cdef uint64_t slot = published & ring.mask
    if free < most:
        ring_make_room(ring, most, 0)
        free = ring.capacity - (published - ring.local.producer.seen_released)
    if most > free:
        most = <uint32_t>free
    if most > ring.capacity - slot:
        most = <uint32_t>(ring.capacity - slot)
    if most == 0:
        return 0
    first[0] = ring.rows + ring.index[slot]
    return ring_run(ring.index + slot, most)


cdef inline void ring_publish(Ring* ring, EventRow* rows, uint32_t count) noexcept nogil:
    """Publishes the first `count` rows of the last ring_reserve: rows without payload, in order of sequence."""
    cdef RingHeader* header = ring.header
    cdef uint64_t start = header.arena_head
    cdef uint64_t offset = start - header.arena_lap
    cdef uint32_t i
    if count == 0:
        return
    for i in range(count):
        ring_stamp(rows + i, header.published + i, start, offset, 0)
    if offset != 0:
        for i in range(count):
            shift_fields(rows + i, <uint32_t>offset)
    ring_intend(ring, rows[count - 1].sequence)
    ring_publish_stamped(ring, count, start, rows[count - 1].sequence)


# ---- consumer -------------------------------------------------------------------------------------------------------

cdef inline uint64_t ring_available(Ring* ring, uint64_t wanted) noexcept nogil:
    """How many events wait; looks at the producer's line only when it knows of fewer than `wanted`."""
    cdef ConsumerSide* side = &ring.local.consumer
    cdef uint64_t ready = side.seen_published - ring.header.taken
    if ready < wanted:
        # Acquires the rows and payload; pairs with the release in ring_publish_stamped.
        side.seen_published = load_acquire(&ring.header.published)
        ready = side.seen_published - ring.header.taken
    return ready


cdef inline EventRow* ring_peek(Ring* ring) noexcept nogil:
    """The next event, still in the ring, or NULL. It stays readable until ring_advance."""
    if ring_available(ring, 1) == 0:
        return NULL
    return ring.rows + ring.index[ring.header.taken & ring.mask]


cdef inline void ring_give_back(
    Ring* ring, const EventRow* rows, uint32_t count, uint64_t position
) noexcept nogil:
    """Returns a run of rows that stood at `position`, at the next free positions. Slots first, then arena."""
    cdef RingHeader* header = ring.header
    cdef ConsumerSide* side = &ring.local.consumer
    cdef uint64_t released = header.released
    cdef uint64_t tail
    cdef uint32_t first, i
    if position != released:
        # Out of order. In order the indices already stand there, since nobody writes them between take and release.
        first = <uint32_t>(rows - ring.rows)
        for i in range(count):
            ring.index[(released + i) & ring.mask] = first + i
    # The arena is free up to the oldest event that is held or waits: where that begins, since events of one reservation
    # may share bytes. With neither, up to the end of the last taken.
    if side.oldest != NULL:
        tail = side.oldest.arena_start
    elif side.seen_published != header.taken:
        tail = ring.rows[ring.index[header.taken & ring.mask]].arena_start
    else:
        tail = side.arena_taken
    # Publishes the indices, and that the rows are read; pairs with the acquire in ring_make_room.
    store_release(&header.released, released + count)
    if tail != header.arena_released:
        # Publishes that the payload is read; pairs with the acquire in ring_make_room.
        store_release(&header.arena_released, tail)


cdef inline void ring_advance(Ring* ring, uint32_t count) noexcept nogil:
    """Takes and gives back at once the run of `count` rows that ring_peek showed the first of."""
    cdef uint64_t position = ring.header.taken
    cdef EventRow* rows = ring.rows + ring.index[position & ring.mask]
    cdef EventRow* last = rows + (count - 1)
    ring.local.consumer.arena_taken = last.arena_start + last.span_length
    store_relaxed(&ring.header.taken, position + count)
    ring_give_back(ring, rows, count, position)


cdef inline int ring_pop(Ring* ring, EventRow* row, uint8_t* payload, uint32_t payload_room) noexcept nogil:
    """Copies one event out: 1, or 0 when empty, or -1 when its span_length, now in `row`, exceeds `payload_room`."""
    cdef EventRow* waiting = ring_peek(ring)
    if waiting == NULL:
        return 0
    memcpy(row, waiting, sizeof(EventRow))
    if row.span_length > payload_room:
        return -1
    if row.span_offset != 0:
        shift_fields(row, -row.span_offset)
    if row.span_length != 0:
        memcpy(payload, ring.arena + row.span_offset, row.span_length)
    ring_advance(ring, 1)
    return 1


cdef inline uint32_t ring_take(Ring* ring, uint32_t most, RingLease* lease) noexcept nogil:
    """Takes a contiguous run, at most `most`, to read in place; 0 when empty. `lease` stays put until ring_release."""
    cdef RingHeader* header = ring.header
    cdef ConsumerSide* side = &ring.local.consumer
    cdef uint64_t ready = ring_available(ring, most)
    cdef uint64_t slot = header.taken & ring.mask
    cdef EventRow* last
    if most > ready:
        most = <uint32_t>ready
    if most > ring.capacity - slot:
        most = <uint32_t>(ring.capacity - slot)
    if most == 0:
        return 0
    lease.count = ring_run(ring.index + slot, most)
    lease.rows = ring.rows + ring.index[slot]
    lease.position = header.taken
    lease.arena_start = lease.rows.arena_start
    lease.older = side.newest
    lease.newer = NULL
    if side.newest == NULL:
        side.oldest = lease
    else:
        side.newest.newer = lease
    side.newest = lease
    last = lease.rows + (lease.count - 1)
    side.arena_taken = last.arena_start + last.span_length
    store_relaxed(&header.taken, header.taken + lease.count)
    return lease.count


cdef inline void ring_release(Ring* ring, RingLease* lease) noexcept nogil:
    """Gives back what ring_take took, in any order among several."""
    cdef ConsumerSide* side = &ring.local.consumer
    if lease.older == NULL:
        side.oldest = lease.newer
    else:
        lease.older.newer = lease.newer
    if lease.newer == NULL:
        side.newest = lease.older
    else:
        lease.newer.older = lease.older
    ring_give_back(ring, lease.rows, lease.count, lease.position)


cdef class EventRing:
    """One bounded ring over one block of memory. `ring` is what the functions above take."""

    cdef Ring ring
    cdef Py_buffer _block
    cdef bint _has_block
    cdef bint has_producer, has_consumer  # each end is handed out once

    cdef int open_wake_fd(self) except -1
