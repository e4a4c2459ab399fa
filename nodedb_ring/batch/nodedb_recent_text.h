// The text that was decoded last: that of the next event is mostly the same.

#ifndef NODEDB_RECENT_TEXT_H
#define NODEDB_RECENT_TEXT_H

#include <Python.h>
#include <string.h>

// NULL is none. What is not ASCII has other bytes in a str than in UTF-8, and counts as another text.
static inline int nodedb_has_bytes(PyObject *text, const char *bytes, Py_ssize_t size) {
    return text != NULL && PyUnicode_IS_COMPACT_ASCII(text) && PyUnicode_GET_LENGTH(text) == size &&
           memcmp(PyUnicode_DATA(text), bytes, (size_t)size) == 0;
}

#ifdef Py_GIL_DISABLED

#include <stdint.h>

// A place for each thread, so that threads share neither a cache line nor the count of references to one str. They are
// given out in turn, and two threads that have the same one exchange what lies there: whoever looks at a text takes it,
// reference and all, and then keeps it or another. So nobody else drops it meanwhile. (A thread's own variable would
// have to be dropped when the thread ends, where nothing can be called that drops it.)
enum { NODEDB_RECENT_PLACES = 64 };

static struct {
    PyObject *text;
} __attribute__((aligned(64))) nodedb_recent[NODEDB_RECENT_PLACES];

// The text that lay there, with its reference; that of `text` is taken over.
static inline PyObject *nodedb_exchange_recent(PyObject *text) {
    static uint32_t threads;
    static __thread PyObject **place;
    if (place == NULL)
        place = &nodedb_recent[__atomic_fetch_add(&threads, 1, __ATOMIC_RELAXED) % NODEDB_RECENT_PLACES].text;
    return __atomic_exchange_n(place, text, __ATOMIC_ACQ_REL);
}

static inline PyObject *nodedb_recent_text(const char *bytes, Py_ssize_t size) {
    PyObject *text = nodedb_exchange_recent(NULL);
    PyObject *found = nodedb_has_bytes(text, bytes, size) ? text : Py_None;
    Py_INCREF(found);
    Py_XDECREF(nodedb_exchange_recent(text));
    return found;
}

#else

static PyObject *nodedb_recent;

static inline PyObject *nodedb_exchange_recent(PyObject *text) {
    PyObject *before = nodedb_recent;
    nodedb_recent = text;
    return before;
}

// The text that was decoded last if it has these bytes, else None: a new reference.
static inline PyObject *nodedb_recent_text(const char *bytes, Py_ssize_t size) {
    PyObject *found = nodedb_has_bytes(nodedb_recent, bytes, size) ? nodedb_recent : Py_None;
    Py_INCREF(found);
    return found;
}

#endif

// The text is the one that was decoded last.
static inline void nodedb_keep_recent(PyObject *text) {
    Py_INCREF(text);
    Py_XDECREF(nodedb_exchange_recent(text));
}

#endif
