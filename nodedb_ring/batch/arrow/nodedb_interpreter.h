// Whether the interpreter is ending.

#ifndef NODEDB_INTERPRETER_H
#define NODEDB_INTERPRETER_H

#include <Python.h>

// Whether Python can be called: a thread that asked for the GIL while the interpreter ends would not come back.
static inline int nodedb_is_ending(void) {
#if PY_VERSION_HEX < 0x030D0000
    return !Py_IsInitialized() || _Py_IsFinalizing();
#else
    return !Py_IsInitialized() || Py_IsFinalizing();
#endif
}

#endif
