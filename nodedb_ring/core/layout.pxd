# What a ring is laid out as. nodedb_layout.h says what each field is for.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from .schema cimport FIELD_COUNT, STRING_COUNT

cdef extern from "nodedb_layout.h" nogil:
    const uint64_t MAGIC "NODEDB_MAGIC"
    const uint32_t LAYOUT_VERSION "NODEDB_LAYOUT_VERSION"
    const size_t PAGE "NODEDB_PAGE"
    const size_t LINE "NODEDB_LINE"
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
        EventField field[FIELD_COUNT]
        uint64_t position, arena_start

    ctypedef struct RingHeader "nodedb_header":
        uint64_t magic
        uint32_t version, core_id
        uint64_t capacity, arena_bytes, index_at, rows_at, arena_at, block_bytes
        uint32_t thresholds[4]
        uint64_t published
        uint32_t producer_claim
        uint64_t arena_head, arena_lap, arena_floor, emitted_sequence, intent
        uint32_t attempted, intended, pressure, waker_cpu
        uint64_t dropped_full, dropped_disconnected, first_dropped, last_dropped
        uint64_t slots_high_water, bytes_high_water
        uint64_t transitions[3]
        uint32_t producer_pid
        uint64_t producer_pid_namespace
        uint64_t taken, released, arena_released, batches, redelivered
        uint32_t consumer_pid, room_waker_cpu
        uint64_t consumer_pid_namespace
        uint32_t waiting, consumer_claim, gate_core
        uint32_t room_waiting
        uint64_t room_released, room_tail
        uint32_t gate

    ctypedef struct Spin "nodedb_spin":
        int64_t credit_ns, credited_at

    ctypedef struct ProducerSide "nodedb_producer_side":
        uint64_t owner, published, arena_head, arena_lap
        uint64_t cached_released, cached_tail, arena_limit, watch_slots, watch_bytes
        uint64_t overflow_count, overflow_first, overflow_last, corrupt_value
        int64_t peer_checked_ns
        uint32_t overflowing, pending_log, pressure, consumer_gone_for, corrupt, fences_in_vain
        Spin spin

    ctypedef struct RingLease "nodedb_lease":
        EventRow* rows
        uint64_t position, arena_start
        RingLease* older
        RingLease* newer
        uint32_t count

    ctypedef struct ConsumerSide "nodedb_consumer_side":
        uint64_t owner, taken, released, cached_published, arena_taken
        RingLease* oldest
        RingLease* newest
        uint64_t corrupt_value
        int64_t peer_checked_ns
        uint32_t corrupt, is_plain_run, short_runs, is_fenced
        uint64_t taken_before
        Spin spin

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
        uint8_t* blocks
        uint64_t block_bytes
        uint64_t capacity, mask, arena_bytes
        uint64_t throttle_enter, throttle_exit, suspend_enter, suspend_exit
        uint32_t fenced, shared
        int wake_fd, watch_fd, timer_fd, role_fd, peer_fd
        uint32_t peer_claim, peer_busy, core_id, num_cores, role

    uint64_t index_at "nodedb_index_at"() noexcept
    uint64_t rows_at "nodedb_rows_at"(uint64_t capacity) noexcept
    uint64_t arena_at "nodedb_arena_at"(uint64_t capacity) noexcept
    bint is_after "nodedb_is_after"(uint64_t position, uint64_t other) noexcept
    void shift_fields "nodedb_shift_fields"(EventRow* row, uint32_t by) noexcept
    void ring_stamp "nodedb_stamp"(
        EventRow* row, uint64_t position, uint64_t arena_start, uint32_t span_offset, uint32_t span_length
    ) noexcept nogil
    void clear_unnamed "nodedb_clear_unnamed"(EventRow* row) noexcept
    bint shift_checked "nodedb_shift_checked"(
        EventRow* row, const EventRow* end, uint32_t by, uint64_t room, const EventRow* ahead
    ) noexcept

cdef enum:  # pressure states, as in backpressure.PressureState
    PRESSURE_NORMAL = 0
    PRESSURE_THROTTLED = 1
    PRESSURE_SUSPENDED = 2

cdef enum:  # bits of `waiting` and `room_waiting`
    WAITING_THREAD = 1
    WAITING_FD = 2
    WAITING_GATE = 8  # a thread that sleeps on many rings of a bus, in the gate of one of them
    WAKER_FENCES = 4  # stays: the waiter has no membarrier, so whoever may wake it fences before it loads the word
    SLEEPS_OFTEN = 16  # of `waiting`: the same, until the waker finds that nobody waits any more, and takes it back

cdef enum:  # bits of `pending_log`: 1 << state for a transition into it, and these
    LOG_PRESSURE = 7  # a transition into any state
    LOG_OVERFLOW_BEGAN = 8
    LOG_OVERFLOW_ENDED = 16
    LOG_DISCONNECT = 32
    LOG_CORRUPT = 64

cdef enum:
    GONE = 1  # in a claim word: the holder of the latest claim has closed or died

cdef enum:  # the byte of a bus's file that is locked for an end is twice the core and one of these
    PRODUCER_ROLE = 0
    CONSUMER_ROLE = 1

cdef enum:
    # On a shared ring an end that waits or drops checks at most this often whether the other end's process lives: it
    # takes two system calls.
    PEER_CHECK_NS = 40000000

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
    WAIT_REFUSED       # nothing was waited for: not in so many futexes, or not by this kernel

ctypedef enum Ownership:
    OWNED
    OWNED_ELSEWHERE    # by another thread
    OWNED_BY_PARENT    # of this forked process
