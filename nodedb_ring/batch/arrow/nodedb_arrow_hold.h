// What an importer holds of an export, and how it is released: on any thread, with or without the GIL, column by
// column. Memory is kept for the next export, and references to Python objects are dropped by a thread that has the
// GIL. The lists below must be one module's: only _export.pyx includes this.

#ifndef NODEDB_ARROW_HOLD_H
#define NODEDB_ARROW_HOLD_H

#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "nodedb_arrow_sheet.h"

// ---- memory of released sheets and text, for the next ones ----

enum { NODEDB_KEPT_SHEETS = 8 };
#define NODEDB_KEPT_BYTES ((size_t)64 << 20)
#define NODEDB_LARGE_SHEET ((size_t)64 << 10) // smaller ones are malloc's business
#define NODEDB_HUGE_PAGE ((size_t)2 << 20)

static struct {
    uint32_t busy;
    size_t bytes;
    void *memory[NODEDB_KEPT_SHEETS];
    size_t size[NODEDB_KEPT_SHEETS];
} nodedb_kept;

// Nobody waits: who finds it busy does without. (A child may have been forked at that moment, too.)
static inline int nodedb_kept_enter(void) { return __atomic_exchange_n(&nodedb_kept.busy, 1, __ATOMIC_ACQUIRE) == 0; }
static inline void nodedb_kept_leave(void) { __atomic_store_n(&nodedb_kept.busy, 0, __ATOMIC_RELEASE); }

static void *nodedb_take_memory(size_t size, size_t *got) {
    void *memory = NULL;
    if (size < NODEDB_LARGE_SHEET) {
        *got = size;
        return aligned_alloc(64, (size + 63) & ~(size_t)63);
    }
    if (nodedb_kept_enter()) {
        int best = -1;
        for (int i = 0; i < NODEDB_KEPT_SHEETS; i++)
            if (nodedb_kept.size[i] >= size && nodedb_kept.size[i] / 4 <= size &&
                (best < 0 || nodedb_kept.size[i] < nodedb_kept.size[best]))
                best = i;
        if (best >= 0) {
            memory = nodedb_kept.memory[best];
            *got = nodedb_kept.size[best];
            nodedb_kept.bytes -= *got;
            nodedb_kept.memory[best] = NULL;
            nodedb_kept.size[best] = 0;
        }
        nodedb_kept_leave();
    }
    if (memory == NULL) {
        size_t step = size >= NODEDB_HUGE_PAGE ? NODEDB_HUGE_PAGE : NODEDB_LARGE_SHEET;
        *got = (size + step - 1) & ~(step - 1);
        memory = aligned_alloc(size >= NODEDB_HUGE_PAGE ? NODEDB_HUGE_PAGE : 4096, *got);
        if (memory != NULL && size >= NODEDB_HUGE_PAGE)
            madvise(memory, *got, MADV_HUGEPAGE);
    }
    return memory;
}

// Keeps it in the place of the smallest one, or frees it.
static void nodedb_give_memory(void *memory, size_t size) {
    void *rest = memory;
    if (size >= NODEDB_LARGE_SHEET && nodedb_kept_enter()) {
        int least = 0;
        for (int i = 1; i < NODEDB_KEPT_SHEETS; i++)
            if (nodedb_kept.size[i] < nodedb_kept.size[least])
                least = i;
        const size_t others = nodedb_kept.bytes - nodedb_kept.size[least];
        if (size > nodedb_kept.size[least] && others + size <= NODEDB_KEPT_BYTES) {
            rest = nodedb_kept.memory[least];
            nodedb_kept.bytes = others + size;
            nodedb_kept.memory[least] = memory;
            nodedb_kept.size[least] = size;
        }
        nodedb_kept_leave();
    }
    free(rest);
}

// ---- zeros, for columns in which everything is None: pages that nobody can write to, and that take no memory

#define NODEDB_ZERO_BYTES ((size_t)64 << 20)
static const void *nodedb_map_zeros(void) {
    void *zeros = mmap(NULL, NODEDB_ZERO_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return zeros == MAP_FAILED ? NULL : zeros;
}

// ---- releasing Python objects, from any thread ----

static nodedb_hold *nodedb_released; // what waits for a thread with the GIL

static int nodedb_has_gil(void) {
#if PY_VERSION_HEX < 0x030D0000
    PyThreadState *now = _PyThreadState_UncheckedGet();
#else
    PyThreadState *now = PyThreadState_GetUnchecked();
#endif
    return now != NULL && now == PyGILState_GetThisThreadState();
}

static void nodedb_drop(nodedb_hold *hold) {
    PyObject *object = hold->object;
    nodedb_give_memory(hold, hold->size);
    Py_DECREF(object);
}

static int nodedb_drop_released(void *unused) {
    nodedb_hold *hold = __atomic_exchange_n(&nodedb_released, NULL, __ATOMIC_ACQUIRE);
    (void)unused;
    while (hold != NULL) {
        nodedb_hold *next = hold->next;
        nodedb_drop(hold);
        hold = next;
    }
    return 0;
}

static void nodedb_release_hold(nodedb_hold *hold) {
    if (hold->object == NULL) {
        nodedb_give_memory(hold, hold->size);
        return;
    }
    // Without an interpreter the process is about to end, and its memory with it.
    if (!Py_IsInitialized())
        return;
    if (nodedb_has_gil()) {
        nodedb_drop(hold);
        return;
    }
    nodedb_hold *first = __atomic_load_n(&nodedb_released, __ATOMIC_RELAXED);
    do
        hold->next = first;
    while (!__atomic_compare_exchange_n(&nodedb_released, &first, hold, 1, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
    // The first of a list calls for the interpreter. Should that have no room for the call, the next export comes.
    if (first == NULL)
        Py_AddPendingCall(nodedb_drop_released, NULL);
}

// ---- what the importer calls ----

static void nodedb_leave_sheet(nodedb_sheet *sheet) {
    if (__atomic_sub_fetch(&sheet->users, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    if (sheet->text != NULL)
        nodedb_give_memory(sheet->text, sheet->text_size);
    nodedb_release_hold(&sheet->hold);
}

static void nodedb_release_dictionary(struct ArrowArray *array) { array->release = NULL; }

static void nodedb_release_column(struct ArrowArray *array) {
    if (array->dictionary != NULL && array->dictionary->release != NULL)
        array->dictionary->release(array->dictionary);
    array->release = NULL;
    nodedb_leave_sheet(array->private_data);
}

static void nodedb_release_struct(struct ArrowArray *array) {
    nodedb_sheet *sheet = array->private_data;
    array->release = NULL;
    for (int i = 0; i < NODEDB_COLUMN_COUNT; i++)
        if (sheet->column[i].release != NULL)
            sheet->column[i].release(&sheet->column[i]);
    nodedb_leave_sheet(sheet);
}

#endif
