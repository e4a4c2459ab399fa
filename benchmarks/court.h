/* Where two threads, or two processes over one shared page, meet, and pass a line between them: the way of that line is
   measured before whatever crosses it is. */
#ifndef BENCHMARKS_COURT_H
#define BENCHMARKS_COURT_H

#include <stdint.h>
#include <time.h>

#define COURT_ALIGNED __attribute__((aligned(128)))
#define COURT_HUNDRED 100

typedef struct {
    uint64_t ball COURT_ALIGNED;
    uint64_t arrived COURT_ALIGNED;
} court;

static inline int64_t court_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline void court_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Returns when both sides have called it: 1, or 0 once `patience_ns` have passed without the other. */
static inline int court_meet(court *at, int64_t patience_ns) {
    uint64_t round = __atomic_fetch_add(&at->arrived, 1, __ATOMIC_SEQ_CST) / 2;
    int64_t deadline = court_now() + patience_ns;
    while (__atomic_load_n(&at->arrived, __ATOMIC_ACQUIRE) / 2 == round) {
        court_pause();
        if (court_now() > deadline) return 0;
    }
    return 1;
}

/* Nanoseconds of the fastest hundred of `trips`: whoever else wants a core only ever makes them slower. */
static inline int64_t court_serve(court *at, uint32_t trips) {
    uint64_t ball = __atomic_load_n(&at->ball, __ATOMIC_ACQUIRE);
    int64_t best = -1;
    for (uint32_t i = 0; i < trips / COURT_HUNDRED; i++) {
        int64_t start = court_now();
        for (uint32_t k = 0; k < COURT_HUNDRED; k++) {
            __atomic_store_n(&at->ball, ball + 1, __ATOMIC_RELEASE);
            ball += 2;
            while (__atomic_load_n(&at->ball, __ATOMIC_ACQUIRE) != ball) {}
        }
        int64_t took = court_now() - start;
        if (best < 0 || took < best) best = took;
    }
    return best;
}

static inline void court_give_back(court *at, uint32_t trips) {
    for (uint32_t i = 0; i < trips; i++) {
        uint64_t seen = __atomic_load_n(&at->ball, __ATOMIC_ACQUIRE);
        while (seen % 2 == 0) seen = __atomic_load_n(&at->ball, __ATOMIC_ACQUIRE);
        __atomic_store_n(&at->ball, seen + 1, __ATOMIC_RELEASE);
    }
}

#endif
