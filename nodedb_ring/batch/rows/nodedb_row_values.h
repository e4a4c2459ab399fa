// One value of a row, read into a column of its type.
//
// A column is an array of values and an array of states. Text, binary and raw values are views over the payload that
// the row lies in; nodedb_view.h has their form.

#ifndef NODEDB_ROW_VALUES_H
#define NODEDB_ROW_VALUES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../nodedb_view.h"
#include "nodedb_msgpack.h"

// As ROW_TYPES in schema.py has them.
typedef enum {
    NODEDB_ROW_BOOL,
    NODEDB_ROW_INT64,
    NODEDB_ROW_UINT64,
    NODEDB_ROW_FLOAT64,
    NODEDB_ROW_STR,
    NODEDB_ROW_BYTES,
    NODEDB_ROW_TIMESTAMP,
    NODEDB_ROW_RAW,
    NODEDB_ROW_NULL,
    NODEDB_ROW_TYPES,
} nodedb_row_type;

// Of a column in one event.
enum {
    NODEDB_ROW_ABSENT,    // there is no such key, or no row
    NODEDB_ROW_NIL,       // the key stands there, with nil
    NODEDB_ROW_UNFITTING, // with a value that its column does not take; only while the row is read
    NODEDB_ROW_VALID,
};

typedef enum {
    NODEDB_ROW_OK,
    NODEDB_ROW_CUT,
    NODEDB_ROW_UNUSED_BYTE,
    NODEDB_ROW_NOT_UTF8,
    NODEDB_ROW_NOT_A_MAP,
    NODEDB_ROW_KEY_NOT_TEXT,
    NODEDB_ROW_TRAILING,      // bytes behind the map
    NODEDB_ROW_OUTSIDE,       // the value does not lie in the payload
    NODEDB_ROW_TOO_LONG,      // a value of more bytes than a view holds
    NODEDB_ROW_OTHER_TYPE,    // a value that its column does not take; this and what follows are well-formed
    NODEDB_ROW_OUT_OF_RANGE,  // a number or time that its column cannot hold
    NODEDB_ROW_INEXACT,       // an integer or time that its column would round
    NODEDB_ROW_BAD_TIMESTAMP, // an extension of the timestamp's type that is none
} nodedb_row_fault;

typedef struct {
    int32_t size;
    union {
        uint8_t bytes[NODEDB_VIEW_BYTES];
        struct {
            uint8_t prefix[4];
            int32_t buffer, offset;
        } at;
    } is;
} nodedb_row_view;

_Static_assert(sizeof(nodedb_row_view) == 16, "an Arrow view");

typedef struct {
    nodedb_row_type type;
    uint8_t has_long;          // a value that does not fit its view
    nodedb_row_fault fault;    // of the last value that its type does not fit
    nodedb_msgpack_head found; // its head
    uint8_t *state;            // [rows], NODEDB_ROW_ABSENT before the pass
    void *values;              // [rows]: uint8_t, int64_t, uint64_t, double or nodedb_row_view; nothing of null
} nodedb_row_column;

// The payload that the rows lie in.
typedef struct {
    const uint8_t *origin; // what the offsets of events are from
    const uint8_t *bytes, *end;
    uint32_t shift; // buffer k of the views begins at byte k << shift
} nodedb_row_payload;

static inline nodedb_row_fault nodedb_row_fault_of(nodedb_msgpack_fault fault) {
    return fault == NODEDB_MSGPACK_OK       ? NODEDB_ROW_OK
           : fault == NODEDB_MSGPACK_CUT    ? NODEDB_ROW_CUT
           : fault == NODEDB_MSGPACK_UNUSED ? NODEDB_ROW_UNUSED_BYTE
                                            : NODEDB_ROW_NOT_UTF8;
}

static inline void nodedb_row_set_long_view(const nodedb_row_payload *payload, nodedb_row_column *column, uint64_t row,
                                            const uint8_t *bytes, uint32_t size) {
    nodedb_row_view *view = (nodedb_row_view *)column->values + row;
    const uint64_t offset = (uint64_t)(bytes - payload->bytes);
    view->size = (int32_t)size;
    memcpy(view->is.at.prefix, bytes, 4);
    view->is.at.buffer = (int32_t)(offset >> payload->shift);
    view->is.at.offset = (int32_t)(offset & (((uint64_t)1 << payload->shift) - 1));
    column->has_long = 1;
}

// The view of a value of up to 12 bytes; whether they are ASCII.
static inline int nodedb_row_set_inline_view(const nodedb_row_payload *payload, nodedb_row_view *view,
                                             const uint8_t *bytes, uint32_t size) {
    uint64_t low = 0;
    uint32_t high = 0;
    if (payload->end - bytes >= NODEDB_VIEW_BYTES) {
        // As two words, of which the value's own bytes stay: a copy of `size` bytes would be a branch on the size.
        const uint64_t low_mask = size >= 8 ? UINT64_MAX : ((uint64_t)1 << 8 * size) - 1;
        const uint64_t high_mask = size <= 8 ? 0 : ((uint64_t)1 << 8 * (size - 8)) - 1;
        memcpy(&low, bytes, 8);
        memcpy(&high, bytes + 8, 4);
        low &= low_mask;
        high &= (uint32_t)high_mask;
    } else if (size > 8) {
        memcpy(&low, bytes, 8);
        memcpy(&high, bytes + 8, size - 8);
    } else {
        memcpy(&low, bytes, size);
    }
    view->size = (int32_t)size;
    memcpy(view->is.bytes, &low, 8);
    memcpy(view->is.bytes + 8, &high, 4);
    return ((low | high) & 0x8080808080808080u) == 0;
}

static inline nodedb_row_fault nodedb_row_set_bytes(const nodedb_row_payload *payload, nodedb_row_column *column,
                                                    uint64_t row, const uint8_t *bytes, uint64_t size) {
    if (size <= NODEDB_VIEW_BYTES)
        nodedb_row_set_inline_view(payload, (nodedb_row_view *)column->values + row, bytes, (uint32_t)size);
    else if (size <= INT32_MAX)
        nodedb_row_set_long_view(payload, column, row, bytes, (uint32_t)size);
    else
        return NODEDB_ROW_TOO_LONG;
    return NODEDB_ROW_OK;
}

static inline nodedb_row_fault nodedb_row_set_text(const nodedb_row_payload *payload, nodedb_row_column *column,
                                                   uint64_t row, const uint8_t *bytes, uint32_t size) {
    if (size <= NODEDB_VIEW_BYTES) {
        if (nodedb_row_set_inline_view(payload, (nodedb_row_view *)column->values + row, bytes, size))
            return NODEDB_ROW_OK;
        return nodedb_utf8_prefix_of_any(bytes, size) == size ? NODEDB_ROW_OK : NODEDB_ROW_NOT_UTF8;
    }
    if (nodedb_utf8_prefix(bytes, size) != size)
        return NODEDB_ROW_NOT_UTF8;
    if (size > INT32_MAX)
        return NODEDB_ROW_TOO_LONG;
    nodedb_row_set_long_view(payload, column, row, bytes, size);
    return NODEDB_ROW_OK;
}

// The extension -1 in its three forms, as microseconds since the epoch.
static inline nodedb_row_fault nodedb_row_timestamp(const uint8_t *at, uint32_t size, int64_t *microseconds) {
    int64_t seconds, sum;
    uint64_t nanoseconds = 0;
    if (size == 4) {
        seconds = nodedb_msgpack_u32(at);
    } else if (size == 8) {
        const uint64_t packed = nodedb_msgpack_u64(at);
        nanoseconds = packed >> 34;
        seconds = (int64_t)(packed & (((uint64_t)1 << 34) - 1));
    } else if (size == 12) {
        nanoseconds = nodedb_msgpack_u32(at);
        seconds = (int64_t)nodedb_msgpack_u64(at + 4);
    } else {
        return NODEDB_ROW_BAD_TIMESTAMP;
    }
    if (nanoseconds >= 1000000000)
        return NODEDB_ROW_BAD_TIMESTAMP;
    if (nanoseconds % 1000 != 0)
        return NODEDB_ROW_INEXACT;
    // The least int64_t is NumPy's NaT.
    if (__builtin_mul_overflow(seconds, (int64_t)1000000, &sum) ||
        __builtin_add_overflow(sum, (int64_t)(nanoseconds / 1000), &sum) || sum == INT64_MIN)
        return NODEDB_ROW_OUT_OF_RANGE;
    *microseconds = sum;
    return NODEDB_ROW_OK;
}

// Whether a double holds an integer exactly. What is rounded up to 2^64 no uint64_t holds.
static inline int nodedb_row_is_exact(const nodedb_msgpack_head *head, double *value) {
    if (head->kind == NODEDB_MSGPACK_NEGATIVE) {
        *value = (double)head->number.i;
        return (int64_t)*value == head->number.i;
    }
    *value = (double)head->number.u;
    return *value < 0x1p64 && (uint64_t)*value == head->number.u;
}

// Reads a value whose head was read, and whose bytes lie at `at`, into row `row` of a column that is neither raw nor
// null.
static inline nodedb_row_fault nodedb_row_set(const nodedb_row_payload *payload, nodedb_row_column *column,
                                              uint64_t row, const nodedb_msgpack_head *head, const uint8_t *at) {
    const nodedb_msgpack_kind kind = head->kind;
    const int is_integer = kind == NODEDB_MSGPACK_POSITIVE || kind == NODEDB_MSGPACK_NEGATIVE;
    switch (column->type) {
    case NODEDB_ROW_BOOL:
        if (kind != NODEDB_MSGPACK_BOOL)
            return NODEDB_ROW_OTHER_TYPE;
        ((uint8_t *)column->values)[row] = (uint8_t)head->number.u;
        return NODEDB_ROW_OK;
    case NODEDB_ROW_INT64:
        if (!is_integer)
            return NODEDB_ROW_OTHER_TYPE;
        if (kind == NODEDB_MSGPACK_POSITIVE && head->number.u > INT64_MAX)
            return NODEDB_ROW_OUT_OF_RANGE;
        ((int64_t *)column->values)[row] = head->number.i;
        return NODEDB_ROW_OK;
    case NODEDB_ROW_UINT64:
        if (!is_integer)
            return NODEDB_ROW_OTHER_TYPE;
        if (kind == NODEDB_MSGPACK_NEGATIVE)
            return NODEDB_ROW_OUT_OF_RANGE;
        ((uint64_t *)column->values)[row] = head->number.u;
        return NODEDB_ROW_OK;
    case NODEDB_ROW_FLOAT64:
        if (is_integer)
            return nodedb_row_is_exact(head, (double *)column->values + row) ? NODEDB_ROW_OK : NODEDB_ROW_INEXACT;
        if (kind != NODEDB_MSGPACK_FLOAT)
            return NODEDB_ROW_OTHER_TYPE;
        ((double *)column->values)[row] = head->number.f;
        return NODEDB_ROW_OK;
    case NODEDB_ROW_STR:
        if (kind != NODEDB_MSGPACK_TEXT)
            return NODEDB_ROW_OTHER_TYPE;
        return nodedb_row_set_text(payload, column, row, at, head->size);
    case NODEDB_ROW_BYTES:
        if (kind != NODEDB_MSGPACK_BINARY)
            return NODEDB_ROW_OTHER_TYPE;
        return nodedb_row_set_bytes(payload, column, row, at, head->size);
    case NODEDB_ROW_TIMESTAMP:
        if (kind != NODEDB_MSGPACK_EXTENSION || head->extension != -1)
            return NODEDB_ROW_OTHER_TYPE;
        return nodedb_row_timestamp(at, head->size, (int64_t *)column->values + row);
    default:
        return NODEDB_ROW_OTHER_TYPE;
    }
}

// Moves *at behind what a head says is to follow.
static inline nodedb_row_fault nodedb_row_pass_rest(const nodedb_msgpack_head *head, const uint8_t **at,
                                                    const uint8_t *end) {
    const uint8_t *bytes = *at;
    *at += head->size;
    if (head->kind == NODEDB_MSGPACK_TEXT && nodedb_utf8_prefix(bytes, head->size) != head->size)
        return NODEDB_ROW_NOT_UTF8;
    return nodedb_row_fault_of(nodedb_msgpack_pass(at, end, head->items));
}

// Reads the value at *at into row `row` of a column, and moves *at behind it.
//
// Of a fault from NODEDB_ROW_OTHER_TYPE on, *at is behind the value too, and the state is NODEDB_ROW_UNFITTING: the
// same key may stand there again.
static __attribute__((noinline)) nodedb_row_fault nodedb_row_read_value(const nodedb_row_payload *payload,
                                                                        nodedb_row_column *column, uint64_t row,
                                                                        const uint8_t **at, const uint8_t *end) {
    const uint8_t *start = *at;
    nodedb_msgpack_head head;
    nodedb_row_fault fault = nodedb_row_fault_of(nodedb_msgpack_read(at, end, &head));
    if (fault != NODEDB_ROW_OK)
        return fault;
    if (head.kind == NODEDB_MSGPACK_NIL) {
        column->state[row] = NODEDB_ROW_NIL;
        return NODEDB_ROW_OK;
    }
    if (column->type == NODEDB_ROW_RAW) {
        fault = nodedb_row_pass_rest(&head, at, end);
        if (fault == NODEDB_ROW_OK)
            fault = nodedb_row_set_bytes(payload, column, row, start, (uint64_t)(*at - start));
        column->state[row] = NODEDB_ROW_VALID;
        return fault;
    }
    fault = nodedb_row_set(payload, column, row, &head, *at);
    if (fault >= NODEDB_ROW_OTHER_TYPE) {
        column->state[row] = NODEDB_ROW_UNFITTING;
        column->fault = fault;
        column->found = head;
        fault = nodedb_row_pass_rest(&head, at, end);
        return fault == NODEDB_ROW_OK ? column->fault : fault;
    }
    column->state[row] = NODEDB_ROW_VALID;
    *at += head.size;
    return fault;
}

#endif
