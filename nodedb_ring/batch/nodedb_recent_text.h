// The text that was decoded last: that of the next event is mostly the same.
//
// Whoever looks at it takes it, reference and all, and then keeps it or another: so nobody else drops it meanwhile.

#ifndef NODEDB_RECENT_TEXT_H
#define NODEDB_RECENT_TEXT_H

#include <Python.h>

#ifdef Py_GIL_DISABLED

#include <stdint.h>

// A place for each thread, so that threads share neither a cache line nor the count of references to one str. They are
// given out in turn, and two threads that have the same one exchange what lies there. (A thread's own variable would
// have to be dropped when the thread ends, where nothing can be called that drops it.)
enum { NODEDB_RECENT_PLACES = 64 };

static struct {
    PyObject *text;
} __attribute__((aligned(64))) nodedb_recent[NODEDB_RECENT_PLACES];

static PyObject **nodedb_recent_place(void) {
    static uint32_t threads;
    static __thread PyObject **place;
    if (place == NULL)
        place = &nodedb_recent[__atomic_fetch_add(&threads, 1, __ATOMIC_RELAXED) % NODEDB_RECENT_PLACES].text;
    return place;
}

static inline PyObject *nodedb_exchange_recent(PyObject *text) {
    return __atomic_exchange_n(nodedb_recent_place(), text, __ATOMIC_ACQ_REL);
}

#else

static PyObject *nodedb_recent;

static inline PyObject *nodedb_exchange_recent(PyObject *text) {
    PyObject *before = nodedb_recent;
    nodedb_recent = text;
    return before;
}

#endif

// NULL where there is none. The reference is the caller's.
static inline PyObject *nodedb_take_recent(void) { return nodedb_exchange_recent(NULL); }

// Takes the reference over.
static inline void nodedb_keep_recent(PyObject *text) {
    PyObject *before = nodedb_exchange_recent(text);
    Py_XDECREF(before);
}

#endif
