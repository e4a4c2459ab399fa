// Row values as columns: MessagePack maps from column names to values, one an event, read in one pass.
//
// Whoever wrote the bytes is not trusted: no read goes beyond the payload, and none beyond a row is acted upon.

#ifndef NODEDB_ROW_COLUMNS_H
#define NODEDB_ROW_COLUMNS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../../core/nodedb_schema.h"
#include "nodedb_msgpack.h"
#include "nodedb_row_keys.h"
#include "nodedb_row_values.h"

// Of an event.
enum { NODEDB_NO_ROW, NODEDB_ROW_PRESENT, NODEDB_ROW_MALFORMED };

typedef struct {
    nodedb_row_keys keys;
    nodedb_row_payload payload;
    nodedb_row_column *columns;
    uint32_t count;
    uint32_t fault_column;     // or NODEDB_NO_COLUMN
    nodedb_msgpack_head found; // where that is what is wrong
} nodedb_row_decoder;

// Reads the key at *at, which stands at `place` of its row, and moves *at behind it.
static inline nodedb_row_fault nodedb_row_read_key(nodedb_row_keys *keys, uint64_t place, const uint8_t **at,
                                                   const uint8_t *end, uint32_t *column, nodedb_msgpack_head *found) {
    const uint8_t *start = *at;
    if (nodedb_row_is_predicted(keys, place, start, end)) {
        *at = start + keys->key[place].size;
        *column = keys->key[place].column;
        return NODEDB_ROW_OK;
    }
    const nodedb_row_fault fault = nodedb_row_fault_of(nodedb_msgpack_read(at, end, found));
    if (fault != NODEDB_ROW_OK)
        return fault;
    if (found->kind != NODEDB_MSGPACK_TEXT)
        return NODEDB_ROW_KEY_NOT_TEXT;
    if (nodedb_utf8_prefix(*at, found->size) != found->size)
        return NODEDB_ROW_NOT_UTF8;
    *column = nodedb_row_find(keys->names, *at, found->size);
    *at += found->size;
    nodedb_row_predict(keys, place, start, (uint32_t)(*at - start), *column);
    return NODEDB_ROW_OK;
}

// Reads the head of a row: how many keys there are.
static inline nodedb_row_fault nodedb_row_open(const uint8_t **at, const uint8_t *end, uint64_t *keys,
                                               nodedb_msgpack_head *found) {
    const nodedb_row_fault fault = nodedb_row_fault_of(nodedb_msgpack_read(at, end, found));
    if (fault != NODEDB_ROW_OK)
        return fault;
    if (found->kind != NODEDB_MSGPACK_MAP)
        return NODEDB_ROW_NOT_A_MAP;
    *keys = found->items / 2;
    return NODEDB_ROW_OK;
}

// Finds the column whose last value of the row does not fit.
static __attribute__((noinline, cold)) nodedb_row_fault nodedb_row_unfitting(nodedb_row_decoder *decoder,
                                                                            uint64_t row) {
    for (uint32_t k = 0; k < decoder->count; k++)
        if (decoder->columns[k].state[row] == NODEDB_ROW_UNFITTING) {
            decoder->fault_column = k;
            decoder->found = decoder->columns[k].found;
            return decoder->columns[k].fault;
        }
    return NODEDB_ROW_OK;
}

// Reads one row. After a fault its columns may have been written in part: nodedb_row_forget takes that back.
static inline nodedb_row_fault nodedb_row_decode(nodedb_row_decoder *decoder, uint64_t row, const uint8_t *at,
                                                 const uint8_t *end) {
    uint64_t keys = 0;
    int is_unfitting = 0;
    decoder->fault_column = NODEDB_NO_COLUMN;
    nodedb_row_fault fault = nodedb_row_open(&at, end, &keys, &decoder->found);
    for (uint64_t place = 0; place < keys && fault == NODEDB_ROW_OK; place++) {
        uint32_t column;
        fault = nodedb_row_read_key(&decoder->keys, place, &at, end, &column, &decoder->found);
        if (fault != NODEDB_ROW_OK)
            break;
        if (column == NODEDB_NO_COLUMN) {
            fault = nodedb_row_fault_of(nodedb_msgpack_pass(&at, end, 1));
            continue;
        }
        fault = nodedb_row_read_value(&decoder->payload, decoder->columns + column, row, &at, end);
        if (fault >= NODEDB_ROW_OTHER_TYPE) {
            is_unfitting = 1;
            fault = NODEDB_ROW_OK;
        } else if (fault != NODEDB_ROW_OK) {
            decoder->fault_column = column;
        }
    }
    if (fault != NODEDB_ROW_OK)
        return fault;
    if (at != end)
        return NODEDB_ROW_TRAILING;
    return is_unfitting ? nodedb_row_unfitting(decoder, row) : NODEDB_ROW_OK;
}

static inline void nodedb_row_forget(nodedb_row_decoder *decoder, uint64_t row) {
    for (uint32_t k = 0; k < decoder->count; k++)
        decoder->columns[k].state[row] = NODEDB_ROW_ABSENT;
}

// Reads the values of one field. The number of events, or that of the first malformed one, whose fault is in *fault; with
// `goes_on` those are marked, and passed over.
static inline uint64_t nodedb_row_decode_all(nodedb_row_decoder *decoder, const nodedb_row *rows, uint64_t count,
                                             int field, uint8_t *events, int goes_on, nodedb_row_fault *fault) {
    const nodedb_row_payload *payload = &decoder->payload;
    for (uint64_t i = 0; i < count; i++) {
        const nodedb_field at = rows[i].field[field];
        const uint8_t *start = payload->origin + at.offset;
        events[i] = NODEDB_NO_ROW;
        if (at.length == NODEDB_NULL_LENGTH)
            continue;
        if (start < payload->bytes || (ptrdiff_t)at.length > payload->end - start) {
            *fault = NODEDB_ROW_OUTSIDE;
            return i;
        }
        *fault = nodedb_row_decode(decoder, i, start, start + at.length);
        events[i] = NODEDB_ROW_PRESENT;
        if (*fault == NODEDB_ROW_OK)
            continue;
        if (!goes_on)
            return i;
        nodedb_row_forget(decoder, i);
        events[i] = NODEDB_ROW_MALFORMED;
    }
    return count;
}

static inline uint64_t nodedb_row_count_valid(const uint8_t *state, uint64_t count) {
    uint64_t valid = 0;
    for (uint64_t i = 0; i < count; i++)
        valid += state[i] == NODEDB_ROW_VALID;
    return valid;
}

static inline void nodedb_row_fill(const nodedb_row_column *column, uint64_t count, uint64_t bits) {
    uint64_t *values = column->values;
    for (uint64_t i = 0; i < count; i++)
        values[i] = column->state[i] == NODEDB_ROW_VALID ? values[i] : bits;
}

// After the pass: how many values a column has; where there is none it is given what stands for that in NumPy.
static inline uint64_t nodedb_row_settle(const nodedb_row_column *column, uint64_t count) {
    const uint64_t valid = nodedb_row_count_valid(column->state, count);
    if (valid == count)
        return valid;
    switch (column->type) {
    case NODEDB_ROW_BOOL:
        for (uint64_t i = 0; i < count; i++)
            ((uint8_t *)column->values)[i] &= column->state[i] == NODEDB_ROW_VALID;
        break;
    case NODEDB_ROW_FLOAT64:
        nodedb_row_fill(column, count, 0x7FF8000000000000u);
        break;
    case NODEDB_ROW_TIMESTAMP:
        nodedb_row_fill(column, count, (uint64_t)1 << 63);
        break;
    case NODEDB_ROW_INT64:
    case NODEDB_ROW_UINT64:
        nodedb_row_fill(column, count, 0);
        break;
    case NODEDB_ROW_NULL:
        break;
    default:
        for (uint64_t i = 0; i < count; i++)
            if (column->state[i] != NODEDB_ROW_VALID)
                memset((nodedb_row_view *)column->values + i, 0, sizeof(nodedb_row_view));
    }
    return valid;
}

// Bytes of a value in a column.
static inline size_t nodedb_row_width(nodedb_row_type type) {
    return type == NODEDB_ROW_BOOL                                                                 ? 1
           : type == NODEDB_ROW_NULL                                                               ? 0
           : type == NODEDB_ROW_STR || type == NODEDB_ROW_BYTES || type == NODEDB_ROW_RAW ? sizeof(nodedb_row_view)
                                                                                          : 8;
}

#endif
