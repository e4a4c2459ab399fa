# The C API of a ring, for this package and for Cython code compiled against it.
#
# Producer, one thread at a time:  ring_push, ring_push_rows; or ring_reserve, write the rows, ring_publish.
# Consumer, one thread at a time:  ring_take, read the rows, ring_release; or ring_peek, ring_advance.
# Nothing here needs the GIL, raises, or checks which thread calls.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from .core.atomic cimport (
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

from .core.schema cimport FIELD_COUNT, STRING_COUNT

cdef extern from *:
    """
    #ifndef NODEDB_RING_LAYOUT
    #define NODEDB_RING_LAYOUT
    #include <stddef.h>
    #include <stdint.h>

    #define NODEDB_LINE 128                  /* adjacent 64-byte lines are fetched in pairs */
    #define NODEDB_ALIGNED __attribute__((aligned(NODEDB_LINE)))

    /* The head of a block: one line a writer. Positions are counts that only grow, and wrap with their type. */
    typedef struct {
        /* geometry: written once, when the block is made */
        uint64_t magic NODEDB_ALIGNED;
        uint32_t version, core_id;
        uint64_t capacity, arena_bytes;
        uint64_t index_at, rows_at, arena_at, block_bytes;
        uint32_t thresholds[4];              /* enter and leave THROTTLED, enter and leave SUSPENDED, in percent */
        /* the producer's, read by the consumer when it finds nothing */
        uint64_t published NODEDB_ALIGNED;   /* events published */
        uint64_t arena_head;                 /* arena position of the next free byte */
        uint64_t arena_lap;                  /* arena position of the byte at offset 0 in this lap */
        uint64_t arena_floor;                /* arena position of the last start with nothing outstanding */
        uint64_t emitted_sequence;           /* the highest tried */
        uint64_t intent;                     /* the highest about to be tried */
        uint32_t attempted, intended;        /* whether those two hold anything yet */
        uint32_t producer_claim;             /* how often the end was claimed, times two; plus GONE */
        uint32_t pressure;
        /* the producer's counters, read by nobody's hot path */
        uint64_t dropped_full NODEDB_ALIGNED;
        uint64_t dropped_disconnected;
        uint64_t first_dropped, last_dropped;
        uint64_t slots_high_water, bytes_high_water;
        uint64_t transitions[3];             /* into each pressure state */
        uint32_t producer_pid;               /* of the latest claim */
        uint64_t producer_pid_namespace;     /* where that pid is a process; 0 if it does not say */
        /* the consumer's, read by the producer when it finds no room */
        uint64_t taken NODEDB_ALIGNED;       /* events taken */
        uint64_t released;                   /* rows given back */
        uint64_t arena_released;             /* arena position of the oldest byte that may still be read */
        uint64_t batches;                    /* drains and leases that were not empty */
        uint64_t redelivered;                /* events that a successor got again */
        uint32_t consumer_pid;
        uint64_t consumer_pid_namespace;
        /* read by the producer after each publication, so written only to sleep, to claim and to close */
        uint32_t waiting NODEDB_ALIGNED;     /* WAITING_* and WAKER_FENCES: who wants to be woken. A futex */
        uint32_t consumer_claim;             /* as producer_claim */
        /* read by the consumer after each release, so written only by a producer about to sleep */
        uint32_t room_waiting NODEDB_ALIGNED;   /* WAITING_THREAD and WAKER_FENCES, of the producer. A futex */
        uint64_t room_released, room_tail;   /* from where on there is the room that it waits for */
    } nodedb_header;

    /* What each end keeps to itself, on memory that a forked child finds zeroed. An end's own positions are here, and
       the header has copies for the other end: what another process may have overwritten is never trusted. */
    typedef struct {
        uint64_t owner NODEDB_ALIGNED;       /* token of the thread that owns the producer; 0 is nobody */
        uint64_t published, arena_head, arena_lap;
        uint64_t seen_released;              /* the consumer's position when last looked at */
        uint64_t seen_tail;                  /* the same for the arena */
        uint64_t arena_limit;                /* offset in this lap up to which bytes may be written without a look */
        uint64_t watch_slots, watch_bytes;   /* in use, by the cached positions: above either, ring_observe */
        uint64_t overflow_count;             /* dropped since the last overflow that was logged as ended */
        uint64_t overflow_first, overflow_last;
        uint64_t corrupt_value;
        int64_t peer_looked_ns;              /* when it was last asked whether the consumer lives */
        uint32_t overflowing;                /* the last attempt was dropped because full */
        uint32_t noted;                      /* NOTED_* bits: what the next Python call has to log */
        uint32_t pressure;
        uint32_t turned_away_by;             /* the consumer_claim that was GONE when an event was last dropped for it */
        uint32_t corrupt;                    /* what the shared block was found to hold, or SOUND */
    } nodedb_producer_side;

    typedef struct nodedb_lease {
        nodedb_row *rows;                    /* one contiguous run of the store */
        uint64_t position, arena_start;      /* of its first event */
        struct nodedb_lease *older, *newer;  /* in order of position */
        uint32_t count;
    } nodedb_lease;

    typedef struct {
        uint64_t owner NODEDB_ALIGNED;
        uint64_t taken, released;
        uint64_t seen_published;             /* the producer's position when last looked at */
        uint64_t arena_taken;                /* arena position after the last event taken */
        nodedb_lease *oldest, *newest;
        uint64_t corrupt_value;
        int64_t peer_looked_ns;
        uint32_t corrupt;
        uint32_t is_plain_run;               /* what was copied out last: numbers one by one, and no heartbeat */
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
        uint32_t fenced;                     /* no membarrier reaches this process: it fences before it reads `waiting` */
        uint32_t shared;                     /* with other processes: what is read from the block is checked */
        int wake_fd;                         /* what signals an asynchronous waiter, or -1: an eventfd, or a FIFO */
        int watch_fd;                        /* what the waiter watches: wake_fd, or an epoll over it, a timer and peer_fd */
        int timer_fd;                        /* on a shared ring has the waiter look again, whether it is signalled or not */
        int role_fd;                         /* holds the lock of this end's claim, or -1 */
        int peer_fd;                         /* pidfd of the holder of the other end, or -1 */
        uint32_t peer_claim;                 /* the other end's claim that peer_fd was opened for */
        uint32_t peer_busy;                  /* a thread looks for the other end: the next need not */
        uint32_t core_id;
    } nodedb_ring;

    _Static_assert(offsetof(nodedb_header, taken) % NODEDB_LINE == 0, "the two sides share no line");
    _Static_assert(sizeof(nodedb_local) <= 4096, "the local side fits one page");

    /* For a row that whoever made it need not have written all of. ring_stamp writes the rest of what no column names. */
    static inline void nodedb_clear_reserved(nodedb_row *row) { row->reserved = row->reserved_too = 0; }

    /* The same for one that lies in no ring. */
    static inline void nodedb_clear_unnamed(nodedb_row *row) {
        nodedb_clear_reserved(row);
        row->span_offset = row->span_length = 0;
        row->position = row->arena_start = 0;
    }

    /* Moves the six offsets of a row, None's and empty ones too: they all lie in the row's span. Lengths stay. */
    typedef uint32_t nodedb_u32x4 __attribute__((vector_size(16), aligned(4), may_alias));
    static inline void nodedb_shift_fields(nodedb_row *row, uint32_t by) {
        nodedb_u32x4 step = {by, 0, by, 0}, *two = (nodedb_u32x4 *)row->field;
        two[0] += step;
        two[1] += step;
        two[2] += step;
    }

    /* The same for rows that were copied out of a shared ring, checked as they are: whether each has a known op and
       source, a collection and a row_id, and fields that lie in a payload of `room` bytes once they are moved. One verdict
       for all of them, and no branch a row: 2 ns each. Meanwhile the rows from `ahead` on, which are copied next, come from
       the other core's cache. */
    typedef uint64_t nodedb_u64x2 __attribute__((vector_size(16), aligned(4), may_alias));
    static inline int nodedb_shift_checked(nodedb_row *row, const nodedb_row *end, uint32_t by, uint64_t room,
                                           const nodedb_row *ahead) {
        /* A length of all ones is None's: one more, and it is 0, as every other is one too many. */
        const nodedb_u32x4 step = {by, 0, by, 0}, one = {0, 1, 0, 1};
        const nodedb_u64x2 offset = {UINT32_MAX, UINT32_MAX}, most = {room + 1, room + 1};
        nodedb_u64x2 beyond = {0, 0};
        nodedb_u32x4 none = {0, 0, 0, 0};
        unsigned stray = 0;
        for (; row != end; row++, ahead++) {
            nodedb_u32x4 *two = (nodedb_u32x4 *)row->field;
            __builtin_prefetch(ahead);
            __builtin_prefetch(ahead->field);
            for (int k = 0; k < 3; k++) {
                nodedb_u32x4 field = two[k] + step;
                two[k] = field;
                field += one;
                if (k == 0) none |= (nodedb_u32x4)(field == 0);
                beyond |= most - (((nodedb_u64x2)field & offset) + ((nodedb_u64x2)field >> 32));
            }
            stray |= (uint8_t)(row->op - 1) >= NODEDB_LAST_OP;
            stray |= row->source > NODEDB_LAST_SOURCE;
        }
        return (stray | none[1] | none[3] | ((beyond[0] | beyond[1]) >> 63)) == 0;
    }
    #endif
    """
    const uint32_t NULL_LENGTH "NODEDB_NULL_LENGTH"
    const uint8_t HEARTBEAT "NODEDB_HEARTBEAT"
    const int64_t NO_TIME "NODEDB_NO_TIME"

    ctypedef struct EventField "nodedb_field":
        uint32_t offset, length

    ctypedef struct EventRow "nodedb_row":
        uint64_t sequence, lsn, tenant_id
        int64_t system_time_ms, valid_time_ms
        uint32_t vshard_id, count
        uint8_t op, source
        uint16_t reserved
        uint32_t span_offset, span_length, reserved_too
        EventField field[6]
        uint64_t position, arena_start

    ctypedef struct RingHeader "nodedb_header":
        uint64_t magic
        uint32_t version, core_id
        uint64_t capacity, arena_bytes, index_at, rows_at, arena_at, block_bytes
        uint32_t thresholds[4]
        uint64_t published, arena_head, arena_lap, arena_floor, emitted_sequence, intent
        uint32_t attempted, intended, producer_claim, pressure
        uint64_t dropped_full, dropped_disconnected, first_dropped, last_dropped
        uint64_t slots_high_water, bytes_high_water
        uint64_t transitions[3]
        uint32_t producer_pid
        uint64_t producer_pid_namespace
        uint64_t taken, released, arena_released, batches, redelivered
        uint32_t consumer_pid
        uint64_t consumer_pid_namespace
        uint32_t waiting, consumer_claim
        uint32_t room_waiting
        uint64_t room_released, room_tail

    ctypedef struct ProducerSide "nodedb_producer_side":
        uint64_t owner, published, arena_head, arena_lap
        uint64_t seen_released, seen_tail, arena_limit, watch_slots, watch_bytes
        uint64_t overflow_count, overflow_first, overflow_last, corrupt_value
        int64_t peer_looked_ns
        uint32_t overflowing, noted, pressure, turned_away_by, corrupt

    ctypedef struct RingLease "nodedb_lease":
        EventRow* rows
        uint64_t position, arena_start
        RingLease* older
        RingLease* newer
        uint32_t count

    ctypedef struct ConsumerSide "nodedb_consumer_side":
        uint64_t owner, taken, released, seen_published, arena_taken
        RingLease* oldest
        RingLease* newest
        uint64_t corrupt_value
        int64_t peer_looked_ns
        uint32_t corrupt, is_plain_run

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
        uint32_t fenced, shared
        int wake_fd, watch_fd, timer_fd, role_fd, peer_fd
        uint32_t peer_claim, peer_busy, core_id

    void shift_fields "nodedb_shift_fields"(EventRow* row, uint32_t by) noexcept nogil
    void clear_unnamed "nodedb_clear_unnamed"(EventRow* row) noexcept nogil
    void clear_reserved "nodedb_clear_reserved"(EventRow* row) noexcept nogil
    bint shift_checked "nodedb_shift_checked"(
        EventRow* row, const EventRow* end, uint32_t by, uint64_t room, const EventRow* ahead
    ) noexcept nogil

cdef enum: # pressure states, as in backpressure.PressureState
    PRESSURE_NORMAL = 0
    PRESSURE_THROTTLED = 1
    PRESSURE_SUSPENDED = 2

cdef enum: # what `waiting` and `room_waiting` hold
    WAITING_THREAD = 1
    WAITING_FD = 2
    WAKER_FENCES = 4  # stays: the waiter has no membarrier, so whoever may wake it fences before it looks

cdef enum: # what `noted` holds: 1 << state for a transition, and
    NOTED_PRESSURE = 7  # any of those
    NOTED_OVERFLOW_BEGAN = 8
    NOTED_OVERFLOW_ENDED = 16
    NOTED_DISCONNECT = 32
    NOTED_CORRUPT = 64

cdef enum:
    GONE = 1  # in a claim word: the holder of the latest claim has closed or died

ctypedef enum Corruption:
    SOUND
    CORRUPT_PUBLISHED  # more events than slots
    CORRUPT_RELEASED
    CORRUPT_TAIL       # more bytes than the arena has
    CORRUPT_HEAD
    CORRUPT_INDEX      # no row has that number
    CORRUPT_LEDGER     # a row stands at two positions, or at none
    CORRUPT_ROW        # fields outside the arena, or no such op

ctypedef enum PushResult:
    PUSH_DONE
    PUSH_FULL          # dropped and counted: no slot, or no room in the arena
    PUSH_DISCONNECTED  # dropped and counted: the consumer has gone
    PUSH_TOO_LARGE     # refused, nothing counted: larger than the whole arena
    PUSH_CORRUPT       # refused, nothing counted: the shared block is not a ring any more

ctypedef enum WaitResult:
    WAIT_READY         # something to take, or room; or an end that has gone
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
cdef void ring_wake_producer(Ring* ring) noexcept nogil
cdef uint32_t ring_percent(Ring* ring, uint64_t slots, uint64_t payload) noexcept nogil
cdef uint32_t ring_next_pressure(Ring* ring, uint32_t state, uint32_t percent) noexcept nogil
cdef void ring_occupancy(Ring* ring, uint64_t* slots, uint64_t* payload) noexcept nogil

# In bulk. ring_push_rows returns how many went in, a prefix; the rest is dropped and counted. Offsets are into `payload`.
cdef uint64_t ring_push_rows(
    Ring* ring, const EventRow* rows, uint64_t count, const uint8_t* payload
) noexcept nogil
# The same without the dropping: what finds no room, or no consumer, as `why` then says, is left to the caller.
cdef uint64_t ring_fit_rows(
    Ring* ring, const EventRow* rows, uint64_t count, const uint8_t* payload, PushResult* why
) noexcept nogil
# And that for rows that lie packed in `payload`, one behind the other, the last up to `end`.
cdef uint64_t ring_fit_packed(
    Ring* ring, const EventRow* rows, uint64_t count, const uint8_t* payload, uint64_t end, PushResult* why
) noexcept nogil
# The payload of the first of the rows that no arena of this size could ever hold; 0 where each may fit.
cdef uint64_t ring_too_large(
    Ring* ring, const EventRow* rows, uint64_t count, uint64_t payload_bytes
) noexcept nogil
# ring_measure tells how many events ring_copy_out can copy, at most `most`, and the payload bytes that takes.
cdef uint64_t ring_measure(Ring* ring, uint64_t most, uint64_t* payload_bytes) noexcept nogil
# Returns the bytes of payload written; the offsets of the copied rows are into it. On a shared ring every row is checked
# in its copy: one that cannot be makes this end corrupt, and nothing is given back.
cdef uint64_t ring_copy_out(
    Ring* ring, uint64_t count, EventRow* rows, uint8_t* payload, uint64_t payload_room
) noexcept nogil
cdef void ring_producer_corrupt(Ring* ring, Corruption what, uint64_t value) noexcept nogil
cdef void ring_consumer_corrupt(Ring* ring, Corruption what, uint64_t value) noexcept nogil

# Sleeping, closing, and who calls.
cdef WaitResult ring_wait(Ring* ring, int64_t timeout_ns, int64_t spin_ns) noexcept nogil
# The producer's: until `slots` rows and a span of `payload` bytes are free, or an end has gone, which counts as ready.
# Once it sleeps it lets `gather` slots come free, for a millisecond at most: at least `slots`, and as many to hurry.
cdef WaitResult ring_wait_room(
    Ring* ring, uint64_t slots, uint64_t payload, uint64_t gather, int64_t timeout_ns, int64_t spin_ns
) noexcept nogil
cdef bint ring_arm(Ring* ring) noexcept nogil
cdef void ring_disarm(Ring* ring) noexcept nogil
cdef void ring_signal(Ring* ring) noexcept nogil
cdef bint ring_producer_gone(Ring* ring) noexcept nogil
cdef void ring_close_producer(Ring* ring) noexcept nogil
cdef void ring_close_consumer(Ring* ring) noexcept nogil
# Whether the process that holds the other end is dead; then the end is GONE from here on. Two system calls.
cdef bint ring_consumer_lost(Ring* ring) noexcept nogil
cdef bint ring_producer_lost(Ring* ring) noexcept nogil
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


cdef inline EventRow* ring_row(Ring* ring, uint64_t position) noexcept nogil:
    """The row that stands at a position. Masked, so that it is one of the ring's whatever the index holds."""
    return ring.rows + (load_relaxed_u32(&ring.index[position & ring.mask]) & ring.mask)


cdef inline uint32_t ring_run(Ring* ring, uint64_t position, uint64_t most, EventRow** first) noexcept nogil:
    """How many rows, of the `most` from `position` on, lie one behind the other in the store; 0 for an index of no row."""
    cdef uint64_t slot = position & ring.mask
    cdef uint32_t* index = ring.index + slot
    cdef uint32_t start = load_relaxed_u32(index)
    cdef uint32_t run = 1
    if unlikely(start > ring.mask):
        return 0
    first[0] = ring.rows + start
    most = min(most, ring.capacity - max(slot, <uint64_t>start))
    while run < most and index[run] == start + run:
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

    The sleeper's membarrier in _announce stands for both fences of this handshake: either it sees what was published,
    or this load sees that it waits. Where no membarrier reaches this process, the fence is here; where the sleeper has
    none, the word says so, and the fence is in ring_wake.
    """
    if unlikely(ring.fenced != 0):
        fence()
    else:
        compiler_fence()
    if unlikely(load_relaxed_u32(&ring.header.waiting) != 0):
        ring_wake(ring)


cdef inline bint ring_index_names_a_row(Ring* ring, uint64_t position) noexcept nogil:
    """Whether the index has a row for a position that is free; if not, the producer is corrupt."""
    cdef uint32_t row = load_relaxed_u32(&ring.index[position & ring.mask])
    if unlikely(row > ring.mask):
        ring_producer_corrupt(ring, CORRUPT_INDEX, row)
        return False
    return True


cdef inline PushResult ring_admit(Ring* ring, uint64_t sequence, uint64_t payload, EventRow** row) noexcept nogil:
    """Finds room for one event of `payload` bytes, and the row to write it to; or drops and counts it."""
    cdef RingHeader* header = ring.header
    cdef ProducerSide* side = &ring.local.producer
    if unlikely(payload > ring.arena_bytes):
        return PUSH_TOO_LARGE
    ring_intend(ring, sequence)
    if unlikely(load_relaxed_u32(&header.consumer_claim) & GONE):
        ring_drop(ring, sequence, sequence, 1, PUSH_DISCONNECTED)
        return PUSH_DISCONNECTED
    if unlikely(
        side.published - side.seen_released >= ring.capacity
        or side.arena_head - side.arena_lap + payload > side.arena_limit
    ):
        if not ring_make_room(ring, 1, payload):
            if side.corrupt != SOUND:
                return PUSH_CORRUPT
            ring_drop(ring, sequence, sequence, 1, PUSH_FULL)
            return PUSH_FULL
    if unlikely(not ring_index_names_a_row(ring, side.published)):
        return PUSH_CORRUPT
    row[0] = ring_row(ring, side.published)
    return PUSH_DONE


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
    side.arena_head = arena_head
    store_release(&header.arena_head, arena_head)
    side.published += count
    # Publishes rows and payload; pairs with the acquire in ring_available.
    store_release(&header.published, side.published)
    ring_attempted(ring, sequence)
    ring_notify(ring)
    if unlikely(
        side.published - side.seen_released > side.watch_slots
        or arena_head - side.seen_tail > side.watch_bytes
        or side.overflowing != 0
    ):
        ring_settle(ring)


cdef inline PushResult ring_push(
    Ring* ring, const EventRow* row, const uint8_t* payload, uint32_t payload_bytes
) noexcept nogil:
    """Copies one event in: a row whose offsets lie in [0, payload_bytes], and its payload."""
    cdef ProducerSide* side = &ring.local.producer
    cdef EventRow* to
    cdef PushResult result = ring_admit(ring, row.sequence, payload_bytes, &to)
    cdef uint64_t start, offset
    if unlikely(result != PUSH_DONE):
        return result
    start = side.arena_head
    offset = start - side.arena_lap
    memcpy(to, row, sizeof(EventRow))
    if offset != 0:
        shift_fields(to, <uint32_t>offset)
    clear_reserved(to)
    if payload_bytes != 0:
        memcpy(ring.arena + offset, payload, payload_bytes)
    ring_stamp(to, side.published, start, offset, payload_bytes)
    ring_publish_stamped(ring, 1, start + payload_bytes, row.sequence)
    return PUSH_DONE


cdef inline uint32_t ring_reserve(Ring* ring, uint32_t most, EventRow** first) noexcept nogil:
    """A contiguous run of free rows to write in place: at most `most`, 0 when full. Drops and counts nothing."""
    cdef uint64_t published = ring.local.producer.published
    cdef uint64_t free = ring.capacity - (published - ring.local.producer.seen_released)
    cdef uint32_t run
    if free < most:
        ring_make_room(ring, most, 0)
        free = ring.capacity - (published - ring.local.producer.seen_released)
    if free == 0 or most == 0:
        return 0
    run = ring_run(ring, published, min(free, <uint64_t>most), first)
    if unlikely(run == 0):
        ring_producer_corrupt(ring, CORRUPT_INDEX, ring.index[published & ring.mask])
    return run


cdef inline void ring_publish(Ring* ring, EventRow* rows, uint32_t count) noexcept nogil:
    """Publishes the first `count` rows of the last ring_reserve: rows without payload, in order of sequence."""
    cdef ProducerSide* side = &ring.local.producer
    cdef uint64_t start = side.arena_head
    cdef uint64_t offset = start - side.arena_lap
    cdef uint32_t i
    if count == 0:
        return
    for i in range(count):
        ring_stamp(rows + i, side.published + i, start, offset, 0)
    if offset != 0:
        for i in range(count):
            shift_fields(rows + i, <uint32_t>offset)
    ring_intend(ring, rows[count - 1].sequence)
    ring_publish_stamped(ring, count, start, rows[count - 1].sequence)


# ---- consumer -------------------------------------------------------------------------------------------------------

cdef inline uint64_t ring_available(Ring* ring, uint64_t wanted) noexcept nogil:
    """How many events wait; looks at the producer's line only when it knows of fewer than `wanted`."""
    cdef ConsumerSide* side = &ring.local.consumer
    cdef uint64_t ready = side.seen_published - side.taken
    cdef uint64_t published
    if ready < wanted:
        # Acquires the rows and payload; pairs with the release in ring_publish_stamped.
        published = load_acquire(&ring.header.published)
        if unlikely(published - side.released > ring.capacity):
            ring_consumer_corrupt(ring, CORRUPT_PUBLISHED, published)
            return 0
        side.seen_published = published
        ready = published - side.taken
    return ready


cdef inline EventRow* ring_peek(Ring* ring) noexcept nogil:
    """The next event, still in the ring, or NULL. It stays readable until ring_advance."""
    if ring_available(ring, 1) == 0:
        return NULL
    return ring_row(ring, ring.local.consumer.taken)


cdef inline bint span_lies_in(Ring* ring, const EventRow* row) noexcept nogil:
    return <uint64_t>row.span_offset + row.span_length <= ring.arena_bytes


cdef inline bint ring_peek_copy(Ring* ring, EventRow* row) noexcept nogil:
    """Copies the next event's row, offsets into the arena, checked if the ring is shared. It stays until ring_advance."""
    cdef EventRow* waiting = ring_peek(ring)
    if waiting == NULL:
        return False
    memcpy(row, waiting, sizeof(EventRow))
    if ring.shared and unlikely(not shift_checked(row, row + 1, 0, ring.arena_bytes, row) or not span_lies_in(ring, row)):
        ring_consumer_corrupt(ring, CORRUPT_ROW, row.position)
        return False
    return True


cdef inline void ring_give_back(
    Ring* ring, const EventRow* rows, uint32_t count, uint64_t position
) noexcept nogil:
    """Returns a run of rows that stood at `position`, at the next free positions. Slots first, then arena."""
    cdef RingHeader* header = ring.header
    cdef ConsumerSide* side = &ring.local.consumer
    cdef uint64_t released = side.released
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
    elif side.seen_published != side.taken:
        tail = ring_row(ring, side.taken).arena_start
    else:
        tail = side.arena_taken
    side.released = released + count
    # Publishes the indices, and that the rows are read; pairs with the acquire in ring_make_room.
    store_release(&header.released, released + count)
    if tail != header.arena_released:
        # Publishes that the payload is read; pairs with the acquire in ring_make_room.
        store_release(&header.arena_released, tail)
    # ring_notify's handshake the other way round, the producer's membarrier in _announce_room standing for both fences.
    if unlikely(ring.fenced != 0):
        fence()
    else:
        compiler_fence()
    if unlikely(load_relaxed_u32(&header.room_waiting) != 0):
        ring_wake_producer(ring)


cdef inline void ring_advance_rows(Ring* ring, const EventRow* rows, uint32_t count, uint64_t arena_end) noexcept nogil:
    """Takes and gives back at once the next `count` rows, which lie at `rows` and end at `arena_end` of the arena."""
    cdef ConsumerSide* side = &ring.local.consumer
    cdef uint64_t position = side.taken
    side.arena_taken = arena_end
    side.taken = position + count
    store_relaxed(&ring.header.taken, position + count)
    ring_give_back(ring, rows, count, position)


cdef inline void ring_advance(Ring* ring) noexcept nogil:
    """Takes and gives back at once the row that ring_peek showed."""
    cdef EventRow* row = ring_row(ring, ring.local.consumer.taken)
    ring_advance_rows(ring, row, 1, row.arena_start + row.span_length)


cdef inline int ring_pop(Ring* ring, EventRow* row, uint8_t* payload, uint32_t payload_room) noexcept nogil:
    """Copies one event out: 1, or 0 when empty, or -1 when its span_length, now in `row`, exceeds `payload_room`."""
    if not ring_peek_copy(ring, row):
        return 0
    if row.span_length > payload_room:
        return -1
    if row.span_offset != 0:
        shift_fields(row, -row.span_offset)
    if row.span_length != 0:
        memcpy(payload, ring.arena + row.span_offset, row.span_length)
    ring_advance(ring)
    return 1


cdef inline uint32_t ring_take(Ring* ring, uint32_t most, RingLease* lease) noexcept nogil:
    """Takes a contiguous run, at most `most`, to read in place; 0 when empty. `lease` stays put until ring_release."""
    cdef ConsumerSide* side = &ring.local.consumer
    cdef uint64_t ready = min(ring_available(ring, most), <uint64_t>most)
    cdef EventRow* last
    if ready == 0:
        return 0
    lease.count = ring_run(ring, side.taken, ready, &lease.rows)
    if unlikely(lease.count == 0):
        ring_consumer_corrupt(ring, CORRUPT_INDEX, ring.index[side.taken & ring.mask])
        return 0
    lease.position = side.taken
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
    side.taken += lease.count
    store_relaxed(&ring.header.taken, side.taken)
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
    cdef uint32_t* _pid                   # where the block says who holds the role that was claimed
    cdef uint64_t* _pid_namespace         # and in which namespace
    cdef bint is_pin_logged               # the log has been told once of a lease that arrays outlive
    cdef bint is_over                     # the consumer is closed: its role is free with its last lease

    cdef int _take_role(self, int file_fd, bytes wake_path, uint64_t role) except -1
    # What watches for a signal to an asynchronous waiter, made when first asked for.
    cdef int open_watch_fd(self) except -1
    # Another number for it, for whoever watches beside the one who has that.
    cdef int copy_watch_fd(self) except -1
    # Frees the role that this ring was claimed in, for others to claim; on a private ring nothing.
    cdef void let_go(self) noexcept
    cdef object corruption(self, uint32_t what, uint64_t value)
