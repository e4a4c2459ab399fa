// What an importer holds of an export.

#ifndef NODEDB_ARROW_SHEET_H
#define NODEDB_ARROW_SHEET_H

#include <Python.h>
#include <stddef.h>
#include <stdint.h>

#include "../../core/nodedb_schema.h"
#include "nodedb_arrow_abi.h"

// What is released with the last that an importer holds: a Python object, and the memory that this is the head of.
typedef struct nodedb_hold {
    PyObject *object; // or NULL: then there is no need for the GIL
    size_t size;
    struct nodedb_hold *next; // in the list of those that wait for a thread with the GIL
} nodedb_hold;

// What an importer has of one batch. The columns lie behind it, in the same memory.
typedef struct {
    nodedb_hold hold; // of the batch whose payload the views are over, if there are any
    void *text;       // the bytes of plain columns, or NULL: memory of its own
    size_t text_size;
    uint64_t users;                                // the struct array and its columns that are not released yet
    struct ArrowArray column[NODEDB_COLUMN_COUNT]; // by their numbers; `columns` are those that are exported
    struct ArrowArray *columns[NODEDB_COLUMN_COUNT];
    struct ArrowArray dictionary[2]; // of op, of source
    const void *no_validity[1];
} nodedb_sheet;

#endif
