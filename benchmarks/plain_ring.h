/* What the ring is measured against: the textbook single-producer single-consumer ring of fixed 128-byte rows, with
   each side's copy of the other's position beside its own. No index array, no payload, no counters, nobody to wake.

   Taken in groups it is also the bare copy-through: the least that can be said to the other side about which rows of
   a shared block it may touch is one position a side. */
#ifndef BENCHMARKS_PLAIN_RING_H
#define BENCHMARKS_PLAIN_RING_H

#include <stdint.h>
#include <string.h>

#define PLAIN_ROW 128
#define PLAIN_ALIGNED __attribute__((aligned(128)))

typedef struct {
    uint64_t head PLAIN_ALIGNED; /* rows published; the producer's line */
    uint64_t seen_tail;
    uint64_t tail PLAIN_ALIGNED; /* rows taken; the consumer's line */
    uint64_t seen_head;
    uint8_t *rows PLAIN_ALIGNED; /* [capacity][PLAIN_ROW] */
    uint64_t capacity, mask;
} plain_ring;

/* A contiguous run of free rows, at most `most`. */
static inline uint64_t plain_reserve(plain_ring *ring, uint64_t most, uint8_t **first) {
    uint64_t slot = ring->head & ring->mask;
    uint64_t space = ring->capacity - (ring->head - ring->seen_tail);
    if (space < most) {
        ring->seen_tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
        space = ring->capacity - (ring->head - ring->seen_tail);
    }
    if (most > space)
        most = space;
    if (most > ring->capacity - slot)
        most = ring->capacity - slot;
    *first = ring->rows + slot * PLAIN_ROW;
    return most;
}

static inline void plain_publish(plain_ring *ring, uint64_t count) {
    __atomic_store_n(&ring->head, ring->head + count, __ATOMIC_RELEASE);
}

/* A contiguous run of waiting rows, at most `most`. */
static inline uint64_t plain_take(plain_ring *ring, uint64_t most, const uint8_t **first) {
    uint64_t slot = ring->tail & ring->mask;
    uint64_t ready = ring->seen_head - ring->tail;
    if (ready < most) {
        ring->seen_head = __atomic_load_n(&ring->head, __ATOMIC_ACQUIRE);
        ready = ring->seen_head - ring->tail;
    }
    if (most > ready)
        most = ready;
    if (most > ring->capacity - slot)
        most = ring->capacity - slot;
    *first = ring->rows + slot * PLAIN_ROW;
    return most;
}

static inline void plain_release(plain_ring *ring, uint64_t count) {
    __atomic_store_n(&ring->tail, ring->tail + count, __ATOMIC_RELEASE);
}

static inline int plain_push(plain_ring *ring, const void *row) {
    if (ring->head - ring->seen_tail == ring->capacity) {
        ring->seen_tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
        if (ring->head - ring->seen_tail == ring->capacity)
            return 0;
    }
    memcpy(ring->rows + (ring->head & ring->mask) * PLAIN_ROW, row, PLAIN_ROW);
    __atomic_store_n(&ring->head, ring->head + 1, __ATOMIC_RELEASE);
    return 1;
}

static inline int plain_pop(plain_ring *ring, void *row) {
    if (ring->tail == ring->seen_head) {
        ring->seen_head = __atomic_load_n(&ring->head, __ATOMIC_ACQUIRE);
        if (ring->tail == ring->seen_head)
            return 0;
    }
    memcpy(row, ring->rows + (ring->tail & ring->mask) * PLAIN_ROW, PLAIN_ROW);
    __atomic_store_n(&ring->tail, ring->tail + 1, __ATOMIC_RELEASE);
    return 1;
}

#endif
