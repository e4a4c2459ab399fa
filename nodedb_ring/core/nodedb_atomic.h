// Loads and stores that order memory between threads and processes, one fence of each kind, and hints to the processor.
//
// The words they act on are plain uint64_t and uint32_t of a ring's block, so that the block keeps one layout whatever
// compiles it.

#ifndef NODEDB_RING_ATOMIC_H
#define NODEDB_RING_ATOMIC_H

#include <stdint.h>

#define nodedb_load_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define nodedb_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define nodedb_store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define nodedb_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define nodedb_exchange(p, v) __atomic_exchange_n((p), (v), __ATOMIC_ACQ_REL)
#define nodedb_fetch_or(p, v) __atomic_fetch_or((p), (v), __ATOMIC_SEQ_CST)
#define nodedb_fetch_add(p, v) __atomic_fetch_add((p), (v), __ATOMIC_RELEASE)
#define nodedb_fetch_and(p, v) __atomic_fetch_and((p), (v), __ATOMIC_ACQ_REL)
#define nodedb_replace(p, old, v)                                                                                      \
    __atomic_compare_exchange_n((p), &(uint32_t){old}, (v), 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)
#define nodedb_fence() __atomic_thread_fence(__ATOMIC_SEQ_CST)

// Keeps the compiler from moving anything across; costs the processor nothing.
#define nodedb_compiler_fence() __atomic_signal_fence(__ATOMIC_SEQ_CST)

// Asks for a line: a hint.
#define nodedb_prefetch(p) __builtin_prefetch((p))
// Asks for a line to be this core's own when it is written to: a hint. gcc has no prefetchw for plain x86-64.
#if defined(__x86_64__)
#define nodedb_prefetch_to_write(p) __asm__ __volatile__("prefetchw (%0)" : : "r"(p))
#else
#define nodedb_prefetch_to_write(p) __builtin_prefetch((p), 1)
#endif

#define nodedb_unlikely(x) __builtin_expect(!!(x), 0)

#if defined(__x86_64__)
#define nodedb_pause() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define nodedb_pause() __asm__ __volatile__("yield")
#else
#define nodedb_pause() nodedb_compiler_fence()
#endif

#endif
