// What a ring is laid out as: a block's header, what each end keeps to itself, and how rows are moved. nodedb_schema.h
// has the row.

#ifndef NODEDB_RING_LAYOUT_H
#define NODEDB_RING_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "nodedb_schema.h"

#define NODEDB_MAGIC UINT64_C(0x31676E6972626465) // "edbring1", little-endian
#define NODEDB_LAYOUT_VERSION 3
#define NODEDB_PAGE 4096
#define NODEDB_LINE 128 // adjacent 64-byte lines are fetched in pairs
#define NODEDB_ALIGNED __attribute__((aligned(NODEDB_LINE)))

// The head of a block: one line a writer. Positions are counts that only grow, and wrap with their type.
typedef struct {
    // geometry: written once, when the block is made
    uint64_t magic NODEDB_ALIGNED;
    uint32_t version, core_id;
    uint64_t capacity, arena_bytes;
    uint64_t index_at, rows_at, arena_at, block_bytes;
    uint32_t thresholds[4]; // enter and leave THROTTLED, enter and leave SUSPENDED, in percent
    // the producer's, read by the consumer when it finds nothing: that takes the line away, so no other word that is
    // stored for each event lies in it
    uint64_t published NODEDB_ALIGNED; // events published
    uint32_t producer_claim;           // how often the end was claimed, times two; plus GONE
    // the producer's, stored for each event and read by nobody's hot path
    uint64_t arena_head NODEDB_ALIGNED; // arena position of the next free byte
    uint64_t arena_lap;                 // arena position of the byte at offset 0 in this lap
    uint64_t arena_floor;               // arena position of the last start with nothing outstanding
    uint64_t emitted_sequence;          // the highest tried
    uint64_t intent;                    // the highest about to be tried
    uint32_t attempted, intended;       // whether those two hold anything yet
    uint32_t pressure;
    uint32_t waker_cpu; // the processor that the consumer was last woken from, plus one; 0 is unknown
    // the producer's counters, read by nobody's hot path
    uint64_t dropped_full NODEDB_ALIGNED;
    uint64_t dropped_disconnected;
    uint64_t first_dropped, last_dropped;
    uint64_t slots_high_water, bytes_high_water;
    uint64_t transitions[3];         // into each pressure state
    uint32_t producer_pid;           // of the latest claim
    uint64_t producer_pid_namespace; // where that pid is a process; 0 if it is not known
    // the consumer's, read by the producer when it finds no room
    uint64_t taken NODEDB_ALIGNED; // events taken
    uint64_t released;             // rows released
    uint64_t arena_released;       // arena position of the oldest byte that may still be read
    uint64_t batches;              // drains and leases that were not empty
    uint64_t redelivered;          // events that a successor got again
    uint32_t consumer_pid;
    uint32_t room_waker_cpu; // as waker_cpu: where the producer was last woken from
    uint64_t consumer_pid_namespace;
    // read by the producer after each publication, so written only to sleep, to claim and to close
    uint32_t waiting NODEDB_ALIGNED; // WAITING_*, WAKER_FENCES, SLEEPS_OFTEN: who wants to be woken. A futex
    uint32_t consumer_claim;         // as producer_claim
    uint32_t gate_core;              // with WAITING_GATE: the core in whose `gate` the waiter sleeps
    // read by the consumer after each release, so written only by a producer about to sleep
    uint32_t room_waiting NODEDB_ALIGNED; // WAITING_THREAD and WAKER_FENCES, of the producer. A futex
    uint64_t room_released, room_tail;    // from where on there is the room that it waits for
    // written by any core's producer that wakes a reader of many cores
    uint32_t gate NODEDB_ALIGNED; // counts these wakes. A futex, in which this ring's consumer sleeps
} nodedb_header;

// How long the polls before a sleep may still take in vain, and until when that is reckoned.
typedef struct {
    int64_t credit_ns, credited_at;
} nodedb_spin;

// What each end keeps to itself, in memory that a forked child finds zeroed. An end's own positions are here, and the
// header has copies for the other end: what another process may have overwritten is never trusted.
typedef struct {
    uint64_t owner NODEDB_ALIGNED; // token of the thread that owns the producer; 0 is nobody
    uint64_t published, arena_head, arena_lap;
    uint64_t cached_released;          // the consumer's position when it was last loaded
    uint64_t cached_tail;              // the same for the arena
    uint64_t arena_limit;              // offset in this lap up to which bytes may be written without a load
    uint64_t watch_slots, watch_bytes; // in use, by the cached positions: above either, ring_observe
    uint64_t overflow_count;           // dropped since the last overflow that was logged as ended
    uint64_t overflow_first, overflow_last;
    uint64_t corrupt_value;
    int64_t peer_checked_ns; // when it was last checked whether the consumer lives
    uint32_t overflowing;    // the last attempt was dropped because full
    uint32_t pending_log;    // LOG_* bits: what the next Python call has to log
    uint32_t pressure;
    uint32_t consumer_gone_for; // the consumer_claim that was GONE when an event was last dropped for it
    uint32_t corrupt;           // what the shared block was found to hold, or SOUND
    uint32_t fences_in_vain;    // of publications, one after the other, for a reader that sleeps often
    nodedb_spin spin;
} nodedb_producer_side;

typedef struct nodedb_lease {
    nodedb_row *rows;                   // one contiguous run of the store
    uint64_t position, arena_start;     // of its first event
    struct nodedb_lease *older, *newer; // in order of position
    uint32_t count;
} nodedb_lease;

typedef struct {
    uint64_t owner NODEDB_ALIGNED;
    uint64_t taken, released;
    uint64_t cached_published; // the producer's position when it was last loaded
    uint64_t arena_taken;      // arena position after the last event taken
    nodedb_lease *oldest, *newest;
    uint64_t corrupt_value;
    int64_t peer_checked_ns;
    uint32_t corrupt;
    uint32_t is_plain_run; // what was copied out last: numbers one by one, and no heartbeat
    uint32_t short_runs;   // sleeps, one after the other, with few events between
    uint32_t is_fenced;    // of this sleep: whoever wakes it fences, and no membarrier is due
    uint64_t taken_before; // events taken before the last sleep
    nodedb_spin spin;
} nodedb_consumer_side;

typedef struct {
    nodedb_producer_side producer;
    nodedb_consumer_side consumer;
    uint64_t alive NODEDB_ALIGNED; // 1 in the process that made it, 0 in its forked children
} nodedb_local;

typedef struct {
    nodedb_header *header;
    uint32_t *index;  // [capacity] which row stands at each position; the consumer writes it
    nodedb_row *rows; // [capacity]
    uint8_t *arena;   // [arena_bytes]
    nodedb_local *local;
    uint8_t *blocks; // of all cores of the bus, `block_bytes` each; NULL on a private ring
    uint64_t block_bytes;
    uint64_t capacity, mask, arena_bytes;
    uint64_t throttle_enter, throttle_exit, suspend_enter, suspend_exit; // percent
    uint32_t fenced;     // no membarrier reaches this process: it fences before it reads `waiting`
    uint32_t shared;     // with other processes: what is read from the block is checked
    int wake_fd;         // what signals an asynchronous waiter, or -1: an eventfd, or a FIFO
    int watch_fd;        // what the waiter watches: wake_fd, or an epoll over it, a timer and peer_fd
    int timer_fd;        // on a shared ring has the waiter check again, whether it is signalled or not
    int role_fd;         // holds the lock of this end's claim, or -1
    int peer_fd;         // pidfd of the holder of the other end, or -1
    uint32_t peer_claim; // the other end's claim that peer_fd was opened for
    uint32_t peer_busy;  // a thread checks whether the other end lives: the next need not
    uint32_t core_id, num_cores;
    uint32_t role; // which end role_fd is the claim of: PRODUCER_ROLE or CONSUMER_ROLE
} nodedb_ring;

_Static_assert(offsetof(nodedb_header, taken) % NODEDB_LINE == 0, "the two sides share no line");
_Static_assert(sizeof(nodedb_local) <= NODEDB_PAGE, "the local side fits one page");

// Where the parts of a block begin, in bytes from its own beginning.
static inline uint64_t nodedb_whole_pages(uint64_t bytes) {
    return (bytes + NODEDB_PAGE - 1) / NODEDB_PAGE * NODEDB_PAGE;
}

static inline uint64_t nodedb_index_at(void) { return nodedb_whole_pages(sizeof(nodedb_header)); }

static inline uint64_t nodedb_rows_at(uint64_t capacity) {
    return nodedb_whole_pages(nodedb_index_at() + sizeof(uint32_t) * capacity);
}

static inline uint64_t nodedb_arena_at(uint64_t capacity) {
    return nodedb_rows_at(capacity) + sizeof(nodedb_row) * capacity;
}

// Whether a position is behind another one: positions wrap with their type.
static inline int nodedb_is_after(uint64_t position, uint64_t other) { return (int64_t)(position - other) > 0; }

// For a row that lies in no ring, and that whoever made it need not have written all of.
static inline void nodedb_clear_unnamed(nodedb_row *row) {
    row->reserved = row->reserved_too = 0;
    row->span_offset = row->span_length = 0;
    row->position = row->arena_start = 0;
}

typedef uint32_t nodedb_u32x4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef uint64_t nodedb_u64x2 __attribute__((vector_size(16), aligned(4), may_alias));

// Writes what the ring needs of a row, and clears what is reserved. As whole vectors: rows are copied by those, and a
// processor that loads what it has just stored waits if that was stored in smaller pieces.
static inline void nodedb_stamp(nodedb_row *row, uint64_t position, uint64_t arena_start, uint32_t span_offset,
                                uint32_t span_length) {
    const uint32_t members = (uint32_t)row->op | (uint32_t)row->source << 8;
    *(nodedb_u32x4 *)&row->op = (nodedb_u32x4){members, span_offset, span_length, 0};
    *(nodedb_u64x2 *)&row->position = (nodedb_u64x2){position, arena_start};
}

// Moves the six offsets of a row, None's and empty ones too: they all lie in the row's span. Lengths stay.
static inline void nodedb_shift_fields(nodedb_row *row, uint32_t by) {
    nodedb_u32x4 step = {by, 0, by, 0}, *two = (nodedb_u32x4 *)row->field;
    two[0] += step;
    two[1] += step;
    two[2] += step;
}

// The same for rows that were copied out of a shared ring, checked as they are: whether each has a known op and source,
// a collection and a row_id, and fields that lie in a payload of `room` bytes once they are moved. One verdict for all
// of them, and no branch a row: 2 ns each. Meanwhile the rows from `ahead` on, which are copied next, come from the
// other core's cache.
static inline int nodedb_shift_checked(nodedb_row *row, const nodedb_row *end, uint32_t by, uint64_t room,
                                       const nodedb_row *ahead) {
    // A length of all ones is None's: one more, and it is 0, as every other is one too many.
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
            if (k == 0)
                none |= (nodedb_u32x4)(field == 0);
            beyond |= most - (((nodedb_u64x2)field & offset) + ((nodedb_u64x2)field >> 32));
        }
        stray |= (uint8_t)(row->op - 1) >= NODEDB_LAST_OP;
        stray |= row->source > NODEDB_LAST_SOURCE;
    }
    return (stray | none[1] | none[3] | ((beyond[0] | beyond[1]) >> 63)) == 0;
}

#endif
