// What a forked child has of its parent's leases: a private copy of their payload, as it stood at the fork.
//
// A lease of a shared ring is read where it lies, in a mapping of the bus's file. A child inherits that mapping, and
// the parent may end the lease at once: then the child would see what the producer writes there next. MADV_WIPEONFORK
// is for private memory only. MADV_DONTFORK leaves a hole, which another library's handler may fill before anybody
// reads there.
//
//     fork() is called            -> snapshot_before_fork(): copies the payload of the leases that are out
//     the child, first of all     -> snapshot_in_child(): moves the copy to where the arena was, for every view to see
//     the parent, first of all    -> snapshot_in_parent(): drops the copy
//
// It is copied before the fork, since afterwards the two run at once. The rest of the arena is zeros in the child.
// Where there is no memory for the copy all of it is, and `is_kept` stays 0: then the leases refuse there. It stays 0,
// too, in a child that is made without handlers, by a raw clone, which continues to share the file.
//
// Thread safety: the mutex guards all of this. It is held over the fork, so that no lease comes or goes between the
// copy and the fork, whichever thread forks, and whether or not that one has the GIL.

#ifndef NODEDB_RING_FORK_SNAPSHOT_H
#define NODEDB_RING_FORK_SNAPSHOT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

enum { SNAPSHOT_PAGE = 4096 };

// An arena that is leased from, in a mapping which nothing else in the process uses.
typedef struct snapshot_arena {
    uint8_t *bytes;
    uint64_t size;
    const uint64_t *alive;          // 1 in the process that leases, 0 in its children, whatever made them
    int is_leased;                  // a lease is out
    uint64_t held_start, held_size; // the bytes from the oldest lease to the newest; they continue at the beginning
    uint8_t *copy;                  // over a fork, of the pages that the arena lies in
    int is_kept;                    // in a child: what was held at the fork is there
    struct snapshot_arena *next;
} snapshot_arena;

static snapshot_arena *snapshot_arenas = NULL;
static pthread_mutex_t snapshot_mutex = PTHREAD_MUTEX_INITIALIZER;

static inline void fork_snapshot_lock(void) { pthread_mutex_lock(&snapshot_mutex); }
static inline void fork_snapshot_unlock(void) { pthread_mutex_unlock(&snapshot_mutex); }

static inline uint8_t *snapshot_first_page(const snapshot_arena *arena) {
    return arena->bytes - (uintptr_t)arena->bytes % SNAPSHOT_PAGE;
}

static inline size_t snapshot_pages_size(const snapshot_arena *arena) {
    const size_t size = (size_t)(arena->bytes - snapshot_first_page(arena)) + arena->size;
    return (size + SNAPSHOT_PAGE - 1) / SNAPSHOT_PAGE * SNAPSHOT_PAGE;
}

static inline void snapshot_before_fork(void) {
    fork_snapshot_lock();
    for (snapshot_arena *arena = snapshot_arenas; arena != NULL; arena = arena->next) {
        const uint64_t room = arena->size - arena->held_start;
        const uint64_t first = arena->held_size < room ? arena->held_size : room;
        uint8_t *to;
        if (!arena->is_leased || *arena->alive == 0)
            continue;
        arena->copy = mmap(NULL, snapshot_pages_size(arena), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (arena->copy == MAP_FAILED)
            continue;
        to = arena->copy + (arena->bytes - snapshot_first_page(arena));
        memcpy(to + arena->held_start, arena->bytes + arena->held_start, first);
        memcpy(to, arena->bytes, arena->held_size - first);
    }
}

static inline void snapshot_in_parent(void) {
    for (snapshot_arena *arena = snapshot_arenas; arena != NULL; arena = arena->next) {
        if (arena->copy != NULL && arena->copy != MAP_FAILED)
            munmap(arena->copy, snapshot_pages_size(arena));
        arena->copy = NULL;
    }
    fork_snapshot_unlock();
}

static inline void snapshot_in_child(void) {
    for (snapshot_arena *arena = snapshot_arenas; arena != NULL; arena = arena->next) {
        uint8_t *page = snapshot_first_page(arena);
        const size_t size = snapshot_pages_size(arena);
        if (arena->copy == NULL)
            continue;
        if (arena->copy != MAP_FAILED)
            arena->is_kept = mremap(arena->copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, page) == page;
        if (!arena->is_kept)
            (void)mmap(page, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
        arena->copy = NULL;
    }
    fork_snapshot_unlock();
}

// From here on children have what this arena holds for leases. 0, or an errno: the handlers could not be registered.
static inline int fork_snapshot_add(snapshot_arena *arena, uint8_t *bytes, uint64_t size, const uint64_t *alive) {
    static int registered = 0;
    int wrong = 0;
    memset(arena, 0, sizeof *arena);
    arena->bytes = bytes;
    arena->size = size;
    arena->alive = alive;
    fork_snapshot_lock();
    if (!registered) {
        wrong = pthread_atfork(snapshot_before_fork, snapshot_in_parent, snapshot_in_child);
        registered = wrong == 0;
    }
    if (wrong == 0) {
        arena->next = snapshot_arenas;
        snapshot_arenas = arena;
    }
    fork_snapshot_unlock();
    return wrong;
}

static inline void fork_snapshot_remove(snapshot_arena *arena) {
    fork_snapshot_lock();
    for (snapshot_arena **link = &snapshot_arenas; *link != NULL; link = &(*link)->next)
        if (*link == arena) {
            *link = arena->next;
            break;
        }
    fork_snapshot_unlock();
}

// With the lock: what the leases hold now, be it nothing. `size` bytes from `start` on: numbers of a block that was
// written over by something else may be anything, and then it is all of the arena.
static inline void fork_snapshot_hold(snapshot_arena *arena, uint64_t start, uint64_t size) {
    const int sound = start <= arena->size && size <= arena->size;
    arena->is_leased = 1;
    arena->held_start = sound ? start : 0;
    arena->held_size = sound ? size : arena->size;
}

static inline void fork_snapshot_hold_nothing(snapshot_arena *arena) { arena->is_leased = 0; }

#endif
