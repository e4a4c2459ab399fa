// Memory of dropped batches, kept for the next ones: fresh memory costs more to touch than to copy into.

#ifndef NODEDB_BUFFER_POOL_H
#define NODEDB_BUFFER_POOL_H

#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

enum { NODEDB_POOL_BUFFERS = 8 };

// Buffers grow in steps, so that the next batch, a little larger, fits the same one. Those of a batch of a few events
// grow in small steps: such a batch may be kept, and then its memory is, too.
#define NODEDB_BUFFER_STEP ((size_t)16 * 1024)
#define NODEDB_SMALL_STEP ((size_t)512)

// A pool keeps no more bytes than this: a consumer that once drained far more than usual releases them.
#define NODEDB_POOL_BYTES ((size_t)128 * 1024 * 1024)

typedef struct {
    int count; // of the buffers, which are the first ones
    void *buffer[NODEDB_POOL_BUFFERS];
    size_t size[NODEDB_POOL_BUFFERS];
    size_t held; // bytes in all of them
    uint32_t busy;
} nodedb_buffer_pool;

// Whether this thread has the pool for itself, until it leaves it. With the GIL it always has. Without, it does not
// wait for another one: a thread that blocks leaves the critical section of its ring too, in the midst of taking
// events.
#ifdef Py_GIL_DISABLED
static inline int nodedb_pool_enter(nodedb_buffer_pool *pool) {
    return __atomic_exchange_n(&pool->busy, 1, __ATOMIC_ACQUIRE) == 0;
}

static inline void nodedb_pool_leave(nodedb_buffer_pool *pool) { __atomic_store_n(&pool->busy, 0, __ATOMIC_RELEASE); }
#else
static inline int nodedb_pool_enter(nodedb_buffer_pool *pool) {
    (void)pool;
    return 1;
}

static inline void nodedb_pool_leave(nodedb_buffer_pool *pool) { (void)pool; }
#endif

// The smallest buffer that holds `size` bytes, else a fresh one; NULL when there is no memory.
static inline void *nodedb_pool_take(nodedb_buffer_pool *pool, size_t size, size_t *got) {
    void *buffer = NULL;
    if (nodedb_pool_enter(pool)) {
        int best = -1;
        for (int i = 0; i < pool->count; i++)
            if (pool->size[i] >= size && (best < 0 || pool->size[i] < pool->size[best]))
                best = i;
        if (best >= 0) {
            buffer = pool->buffer[best];
            *got = pool->size[best];
            pool->held -= *got;
            pool->count--;
            pool->buffer[best] = pool->buffer[pool->count];
            pool->size[best] = pool->size[pool->count];
        }
        nodedb_pool_leave(pool);
    }
    if (buffer != NULL)
        return buffer;
    const size_t step = size >= NODEDB_BUFFER_STEP ? NODEDB_BUFFER_STEP : NODEDB_SMALL_STEP;
    *got = (size + step - 1) / step * step;
    return malloc(*got);
}

// Keeps a buffer, in the place of the smallest where all are taken.
static inline void nodedb_pool_give(nodedb_buffer_pool *pool, void *buffer, size_t size) {
    void *freed = buffer;
    if (nodedb_pool_enter(pool)) {
        int place = pool->count;
        if (place == NODEDB_POOL_BUFFERS) {
            place = 0;
            for (int i = 1; i < NODEDB_POOL_BUFFERS; i++)
                if (pool->size[i] < pool->size[place])
                    place = i;
        }
        const int is_free = place == pool->count;
        const size_t before = is_free ? 0 : pool->size[place];
        if (size > before && pool->held + size <= NODEDB_POOL_BYTES) {
            freed = is_free ? NULL : pool->buffer[place];
            pool->count += is_free;
            pool->held += size - before;
            pool->buffer[place] = buffer;
            pool->size[place] = size;
        }
        nodedb_pool_leave(pool);
    }
    free(freed);
}

static inline void nodedb_pool_free(nodedb_buffer_pool *pool) {
    for (int i = 0; i < pool->count; i++)
        free(pool->buffer[i]);
}

#endif
