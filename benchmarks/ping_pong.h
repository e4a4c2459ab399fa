/* Two threads, or two processes with one shared page, meet here and pass one cache line to and fro. The time of that
   trip is measured first: whatever the two exchange afterwards cannot be faster. */
#ifndef BENCHMARKS_PING_PONG_H
#define BENCHMARKS_PING_PONG_H

#include <stdint.h>
#include <time.h>

#define PING_PONG_ALIGNED __attribute__((aligned(128)))
#define PING_PONG_TRIPS 100

typedef struct {
    uint64_t count PING_PONG_ALIGNED;
    uint64_t arrived PING_PONG_ALIGNED;
} ping_pong;

static inline int64_t ping_pong_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline void ping_pong_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Returns when both sides have called it: 1, or 0 once `patience_ns` have passed without the other. */
static inline int ping_pong_meet(ping_pong *at, int64_t patience_ns) {
    uint64_t round = __atomic_fetch_add(&at->arrived, 1, __ATOMIC_SEQ_CST) / 2;
    int64_t deadline = ping_pong_now() + patience_ns;
    while (__atomic_load_n(&at->arrived, __ATOMIC_ACQUIRE) / 2 == round) {
        ping_pong_pause();
        if (ping_pong_now() > deadline)
            return 0;
    }
    return 1;
}

/* The first side, of `trips` round trips: returns the nanoseconds of the fastest hundred, since other load on a CPU
   only makes them slower. */
static inline int64_t ping_pong_ping(ping_pong *at, uint32_t trips) {
    uint64_t count = __atomic_load_n(&at->count, __ATOMIC_ACQUIRE);
    int64_t best = -1;
    for (uint32_t i = 0; i < trips / PING_PONG_TRIPS; i++) {
        int64_t start = ping_pong_now();
        for (uint32_t k = 0; k < PING_PONG_TRIPS; k++) {
            __atomic_store_n(&at->count, count + 1, __ATOMIC_RELEASE);
            count += 2;
            while (__atomic_load_n(&at->count, __ATOMIC_ACQUIRE) != count) {
            }
        }
        int64_t took = ping_pong_now() - start;
        if (best < 0 || took < best)
            best = took;
    }
    return best;
}

/* The second side. */
static inline void ping_pong_pong(ping_pong *at, uint32_t trips) {
    for (uint32_t i = 0; i < trips; i++) {
        uint64_t seen = __atomic_load_n(&at->count, __ATOMIC_ACQUIRE);
        while (seen % 2 == 0)
            seen = __atomic_load_n(&at->count, __ATOMIC_ACQUIRE);
        __atomic_store_n(&at->count, seen + 1, __ATOMIC_RELEASE);
    }
}

#endif
