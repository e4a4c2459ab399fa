// Which columns row values have, and values of which kinds: one pass over the rows, with a table of names that grows.

#ifndef NODEDB_ROW_KINDS_H
#define NODEDB_ROW_KINDS_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../core/nodedb_schema.h"
#include "nodedb_msgpack.h"
#include "nodedb_row_columns.h"
#include "nodedb_row_keys.h"
#include "nodedb_row_pair.h"
#include "nodedb_row_quick.h"

// Rows that somebody else wrote must not make millions of columns, each of which takes memory for every event.
#define NODEDB_MOST_COLUMNS 4096

typedef enum {
    NODEDB_KIND_NIL,
    NODEDB_KIND_BOOL,
    NODEDB_KIND_INT, // from 0 to the greatest int64_t
    NODEDB_KIND_BIG, // an integer above that
    NODEDB_KIND_NEGATIVE,
    NODEDB_KIND_FLOAT,
    NODEDB_KIND_TEXT,
    NODEDB_KIND_BINARY,
    NODEDB_KIND_TIMESTAMP,
    NODEDB_KIND_OTHER, // arrays, maps, extensions
    NODEDB_KIND_COUNT,
} nodedb_row_kind;

// Of one column. What its last event has is not entered until the next one: the same key may stand there again, or the
// row turn out to be none.
typedef struct {
    uint32_t seen; // a bit for each kind
    nodedb_row_kind last;
    uint64_t last_event;
    uint64_t first[NODEDB_KIND_COUNT]; // event of each kind that was seen
} nodedb_row_kinds;

typedef enum {
    NODEDB_INFER_OK,
    NODEDB_INFER_MALFORMED,
    NODEDB_INFER_TOO_MANY, // columns
    NODEDB_INFER_NO_MEMORY,
} nodedb_infer_end;

typedef struct {
    nodedb_row_keys keys; // of `names`
    nodedb_row_names names;
    nodedb_row_kinds *kinds;
    uint32_t room; // for names and kinds; the table has twice as many places
    nodedb_infer_end end;
    nodedb_row_fault fault;
    nodedb_msgpack_head found;
} nodedb_row_infer;

static inline void nodedb_infer_free(nodedb_row_infer *infer) {
    free(infer->names.name);
    free(infer->names.table);
    free(infer->kinds);
}

static inline void nodedb_infer_rebuild(nodedb_row_infer *infer) {
    memset(infer->names.table, 0xFF, ((size_t)infer->names.mask + 1) * sizeof(uint32_t));
    for (uint32_t k = 0; k < infer->names.count; k++)
        nodedb_row_enter(&infer->names, k);
}

// Makes room for one more column; 0 where there is no memory.
static inline int nodedb_infer_grow(nodedb_row_infer *infer) {
    const uint32_t room = infer->room == 0 ? 16 : 2 * infer->room;
    nodedb_row_name *name = realloc(infer->names.name, room * sizeof(nodedb_row_name));
    if (name == NULL)
        return 0;
    infer->names.name = name;
    nodedb_row_kinds *kinds = realloc(infer->kinds, room * sizeof(nodedb_row_kinds));
    if (kinds == NULL)
        return 0;
    infer->kinds = kinds;
    uint32_t *table = realloc(infer->names.table, 2 * (size_t)room * sizeof(uint32_t));
    if (table == NULL)
        return 0;
    infer->names.table = table;
    infer->names.mask = 2 * room - 1;
    infer->room = room;
    nodedb_infer_rebuild(infer);
    return 1;
}

// Before the first row; 0 where there is no memory.
static inline int nodedb_infer_begin(nodedb_row_infer *infer, uint64_t secret, const uint8_t *limit) {
    memset(infer, 0, sizeof *infer);
    infer->names.secret = secret;
    infer->keys.names = &infer->names;
    infer->keys.limit = limit;
    return nodedb_infer_grow(infer);
}

static inline nodedb_infer_end nodedb_infer_add(nodedb_row_infer *infer, const uint8_t *name, uint32_t size,
                                                uint32_t *column) {
    const uint32_t number = infer->names.count;
    if (number == NODEDB_MOST_COLUMNS)
        return NODEDB_INFER_TOO_MANY;
    if (number == infer->room && !nodedb_infer_grow(infer))
        return NODEDB_INFER_NO_MEMORY;
    infer->names.name[number] =
        (nodedb_row_name){.bytes = name, .size = size, .hash = nodedb_row_hash(name, size, infer->names.secret)};
    memset(infer->kinds + number, 0, sizeof(nodedb_row_kinds));
    infer->kinds[number].last_event = UINT64_MAX;
    infer->names.count += 1;
    nodedb_row_enter(&infer->names, number);
    *column = number;
    return NODEDB_INFER_OK;
}

static inline nodedb_row_kind nodedb_row_kind_of(const nodedb_msgpack_head *head) {
    switch (head->kind) {
    case NODEDB_MSGPACK_NIL:
        return NODEDB_KIND_NIL;
    case NODEDB_MSGPACK_BOOL:
        return NODEDB_KIND_BOOL;
    case NODEDB_MSGPACK_POSITIVE:
        return head->number.u > INT64_MAX ? NODEDB_KIND_BIG : NODEDB_KIND_INT;
    case NODEDB_MSGPACK_NEGATIVE:
        return NODEDB_KIND_NEGATIVE;
    case NODEDB_MSGPACK_FLOAT:
        return NODEDB_KIND_FLOAT;
    case NODEDB_MSGPACK_TEXT:
        return NODEDB_KIND_TEXT;
    case NODEDB_MSGPACK_BINARY:
        return NODEDB_KIND_BINARY;
    case NODEDB_MSGPACK_EXTENSION:
        return head->extension == -1 ? NODEDB_KIND_TIMESTAMP : NODEDB_KIND_OTHER;
    default:
        return NODEDB_KIND_OTHER;
    }
}

// Enters what the last event has.
static inline void nodedb_infer_settle(nodedb_row_kinds *kinds) {
    const uint32_t bit = (uint32_t)1 << kinds->last;
    if ((kinds->seen & bit) == 0 && kinds->last != NODEDB_KIND_NIL) {
        kinds->seen |= bit;
        kinds->first[kinds->last] = kinds->last_event;
    }
}

static inline void nodedb_infer_note(nodedb_row_kinds *kinds, uint64_t event, nodedb_row_kind kind) {
    if (kinds->last_event != event) {
        nodedb_infer_settle(kinds);
        kinds->last_event = event;
    }
    kinds->last = kind;
}

// By the highest bit of a value's second byte, which is the sign of a number, and its first byte; NODEDB_KIND_COUNT
// where these do not tell.
#define NODEDB_FIRST_KINDS(unsigned64, integer)                                                                        \
    {                                                                                                                  \
        [0x00 ... 0x7F] = NODEDB_KIND_INT,                                                                             \
        [0x80 ... 0x9F] = NODEDB_KIND_OTHER,                                                                           \
        [0xA0 ... 0xBF] = NODEDB_KIND_TEXT,                                                                            \
        [0xC0] = NODEDB_KIND_NIL,                                                                                      \
        [0xC1] = NODEDB_KIND_COUNT,                                                                                    \
        [0xC2 ... 0xC3] = NODEDB_KIND_BOOL,                                                                            \
        [0xC4 ... 0xC6] = NODEDB_KIND_BINARY,                                                                          \
        [0xC7 ... 0xC9] = NODEDB_KIND_COUNT,                                                                           \
        [0xCA ... 0xCB] = NODEDB_KIND_FLOAT,                                                                           \
        [0xCC ... 0xCE] = NODEDB_KIND_INT,                                                                             \
        [0xCF] = (unsigned64),                                                                                         \
        [0xD0 ... 0xD3] = (integer),                                                                                   \
        [0xD4 ... 0xD8] = NODEDB_KIND_COUNT,                                                                           \
        [0xD9 ... 0xDB] = NODEDB_KIND_TEXT,                                                                            \
        [0xDC ... 0xDF] = NODEDB_KIND_OTHER,                                                                           \
        [0xE0 ... 0xFF] = NODEDB_KIND_NEGATIVE,                                                                        \
    }
static const uint8_t nodedb_first_kinds[2][256] = {
    NODEDB_FIRST_KINDS(NODEDB_KIND_INT, NODEDB_KIND_INT),
    NODEDB_FIRST_KINDS(NODEDB_KIND_BIG, NODEDB_KIND_NEGATIVE),
};
#undef NODEDB_FIRST_KINDS

static __attribute__((noinline)) nodedb_row_kind nodedb_infer_by_head(const uint8_t *at, const uint8_t *end) {
    nodedb_msgpack_head head;
    return nodedb_msgpack_read(&at, end, &head) == NODEDB_MSGPACK_OK ? nodedb_row_kind_of(&head) : NODEDB_KIND_COUNT;
}

// The kind of the value at `at`, from which on there is room; NODEDB_KIND_COUNT where it is malformed.
static inline nodedb_row_kind nodedb_infer_kind(const uint8_t *at, const uint8_t *end) {
    const nodedb_row_kind kind = nodedb_first_kinds[at[1] >> 7][*at];
    return kind == NODEDB_KIND_COUNT ? nodedb_infer_by_head(at, end) : kind;
}

// As nodedb_row_quick in nodedb_row_quick.h: a row that is like the one before. 0: it is none, or malformed.
static inline int nodedb_infer_quick(nodedb_row_infer *infer, const nodedb_row_payload *payload, uint64_t event,
                                     const uint8_t *at, const uint8_t *end) {
    uint32_t count = 0;
    at = nodedb_row_quick_open(payload, at, end, &count);
    if (at == NULL || count > infer->keys.known)
        return 0;
    for (uint32_t place = 0; place < count; place++) {
        const nodedb_row_key *key = infer->keys.key + place;
        if (!nodedb_row_quick_key(payload, key, at))
            return 0;
        at += key->size;
        const nodedb_row_kind kind = nodedb_infer_kind(at, end);
        if (kind == NODEDB_KIND_COUNT)
            return 0;
        nodedb_infer_note(infer->kinds + key->column, event, kind);
        at = nodedb_row_quick_pass(at, end);
        if (at == NULL)
            return 0;
    }
    return at == end;
}

// Passes over two values of which there is nothing to note. 0: they are none of the common rows, malformed, or bring
// a kind that is new to its column.
static inline int nodedb_infer_pair(const nodedb_row_infer *infer, const nodedb_row_payload *payload, nodedb_field a,
                                    nodedb_field b) {
    nodedb_row_pair pair = {0};
    if (!nodedb_row_open_pair(&infer->keys, payload, a, b, &pair))
        return 0;
    const nodedb_row_key *const stop = infer->keys.key + pair.keys;
    for (const nodedb_row_key *key = infer->keys.key; key != stop; key++) {
        if (!nodedb_row_pass_keys(&pair, key))
            return 0;
        const uint32_t kinds =
            1u << nodedb_infer_kind(pair.a, pair.a_end) | 1u << nodedb_infer_kind(pair.b, pair.b_end);
        // NODEDB_KIND_COUNT is never seen.
        if ((kinds & ~infer->kinds[key->column].seen) != 0 || !nodedb_row_pass_values(&pair))
            return 0;
    }
    return pair.a == pair.a_end && pair.b == pair.b_end;
}

static __attribute__((noinline)) nodedb_row_fault nodedb_infer_row(nodedb_row_infer *infer, uint64_t event,
                                                                   const uint8_t *at, const uint8_t *end) {
    uint64_t keys = 0;
    nodedb_row_fault fault = nodedb_row_open(&at, end, &keys, &infer->found);
    for (uint64_t place = 0; place < keys && fault == NODEDB_ROW_OK; place++) {
        const uint8_t *key = at;
        uint32_t column;
        fault = nodedb_row_read_key(&infer->keys, place, &at, end, &column, &infer->found);
        if (fault != NODEDB_ROW_OK)
            break;
        if (column == NODEDB_NO_COLUMN) {
            const uint32_t size = infer->found.size;
            infer->end = nodedb_infer_add(infer, at - size, size, &column);
            if (infer->end != NODEDB_INFER_OK)
                return NODEDB_ROW_OK;
            nodedb_row_predict(&infer->keys, place, key, (uint32_t)(at - key), column);
        }
        nodedb_msgpack_head head;
        fault = nodedb_row_fault_of(nodedb_msgpack_read(&at, end, &head));
        if (fault != NODEDB_ROW_OK)
            break;
        nodedb_infer_note(infer->kinds + column, event, nodedb_row_kind_of(&head));
        fault = nodedb_row_pass_rest(&head, &at, end);
    }
    return fault != NODEDB_ROW_OK || at == end ? fault : NODEDB_ROW_TRAILING;
}

// Takes back what was noted of an event.
static inline void nodedb_infer_unnote(nodedb_row_infer *infer, uint64_t event) {
    for (uint32_t k = 0; k < infer->names.count; k++)
        if (infer->kinds[k].last_event == event)
            infer->kinds[k].last = NODEDB_KIND_NIL;
}

// Takes back what a malformed row brought. `before` columns there were before it.
static inline void nodedb_infer_forget(nodedb_row_infer *infer, uint64_t event, uint32_t before) {
    nodedb_infer_unnote(infer, event);
    if (infer->names.count != before) {
        infer->names.count = before;
        infer->keys.known = 0;
        nodedb_infer_rebuild(infer);
    }
}

// Looks at the values of one field. The number of events, or that of the one at which it ended; `end` says why. With
// `goes_on` malformed rows are passed over.
static inline uint64_t nodedb_infer_all(nodedb_row_infer *infer, const nodedb_row_payload *payload,
                                        const nodedb_row *rows, uint64_t count, int field, int goes_on) {
    int is_common = 0; // the row before
    for (uint64_t i = 0; i < count; i++) {
        const nodedb_field at = rows[i].field[field];
        const uint8_t *start = payload->origin + at.offset;
        const uint32_t before = infer->names.count;
        if (is_common && i + 1 < count && nodedb_infer_pair(infer, payload, at, rows[i + 1].field[field])) {
            i += 1;
            continue;
        }
        if (at.length == NODEDB_NULL_LENGTH)
            continue;
        is_common = 0;
        infer->fault = NODEDB_ROW_OUTSIDE;
        if (nodedb_row_is_inside(payload, at)) {
            is_common = nodedb_infer_quick(infer, payload, i, start, start + at.length);
            if (is_common)
                continue;
            nodedb_infer_unnote(infer, i);
            infer->fault = nodedb_infer_row(infer, i, start, start + at.length);
            if (infer->end != NODEDB_INFER_OK)
                return i;
        }
        if (infer->fault == NODEDB_ROW_OK)
            continue;
        if (!goes_on || infer->fault == NODEDB_ROW_OUTSIDE) {
            infer->end = NODEDB_INFER_MALFORMED;
            return i;
        }
        nodedb_infer_forget(infer, i, before);
    }
    for (uint32_t k = 0; k < infer->names.count; k++)
        nodedb_infer_settle(infer->kinds + k);
    return count;
}

#endif
