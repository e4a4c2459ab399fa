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
#include "nodedb_row_pair.h"
#include "nodedb_row_quick.h"
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
static __attribute__((noinline)) nodedb_row_fault nodedb_row_decode(nodedb_row_decoder *decoder, uint64_t row,
                                                                    const uint8_t *at, const uint8_t *end) {
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

// Reads the values of one field. The number of events, or that of the first malformed one, whose fault is in *fault;
// with `goes_on` those are marked, and passed over.
static __attribute__((noinline, unused)) uint64_t nodedb_row_decode_all(nodedb_row_decoder *decoder,
                                                                        const nodedb_row *rows, uint64_t count,
                                                                        int field, uint8_t *events, int goes_on,
                                                                        nodedb_row_fault *fault) {
    const nodedb_row_payload *payload = &decoder->payload;
    int is_common = 0; // the row before
    for (uint64_t i = 0; i < count; i++) {
        const nodedb_field at = rows[i].field[field];
        const uint8_t *start = payload->origin + at.offset;
        if (is_common && i + 1 < count &&
            nodedb_row_quick_pair(&decoder->keys, payload, decoder->columns, i, at, rows[i + 1].field[field])) {
            events[i] = NODEDB_ROW_PRESENT;
            events[++i] = NODEDB_ROW_PRESENT;
            continue;
        }
        events[i] = NODEDB_NO_ROW;
        if (at.length == NODEDB_NULL_LENGTH)
            continue;
        if (!nodedb_row_is_inside(payload, at)) {
            *fault = NODEDB_ROW_OUTSIDE;
            return i;
        }
        events[i] = NODEDB_ROW_PRESENT;
        is_common = nodedb_row_quick(&decoder->keys, payload, decoder->columns, i, start, start + at.length);
        if (is_common)
            continue;
        nodedb_row_forget(decoder, i);
        *fault = nodedb_row_decode(decoder, i, start, start + at.length);
        if (*fault == NODEDB_ROW_OK)
            continue;
        if (!goes_on)
            return i;
        nodedb_row_forget(decoder, i);
        events[i] = NODEDB_ROW_MALFORMED;
    }
    return count;
}

#define NODEDB_ALL_VALID 0x0303030303030303u // eight states

static inline uint64_t nodedb_row_count_valid(const uint8_t *state, uint64_t count) {
    uint64_t valid = 0, i = 0, eight;
    for (; i + 8 <= count; i += 8) {
        memcpy(&eight, state + i, 8);
        // Both bits of a state that is valid; the product adds the bytes up.
        valid += ((eight & eight >> 1 & 0x0101010101010101u) * 0x0101010101010101u) >> 56;
    }
    for (; i < count; i++)
        valid += state[i] == NODEDB_ROW_VALID;
    return valid;
}

// What stands in a column of NumPy where there is no value: False, 0, NaN, NaT; of a view nothing.
static inline void nodedb_row_clear(const nodedb_row_column *column, uint64_t row) {
    const uint64_t nan = 0x7FF8000000000000u, nat = (uint64_t)1 << 63;
    switch (column->type) {
    case NODEDB_ROW_BOOL:
        ((uint8_t *)column->values)[row] = 0;
        break;
    case NODEDB_ROW_INT64:
    case NODEDB_ROW_UINT64:
        ((uint64_t *)column->values)[row] = 0;
        break;
    case NODEDB_ROW_FLOAT64:
        ((uint64_t *)column->values)[row] = nan;
        break;
    case NODEDB_ROW_TIMESTAMP:
        ((uint64_t *)column->values)[row] = nat;
        break;
    case NODEDB_ROW_NULL:
        break;
    default:
        memset((nodedb_row_view *)column->values + row, 0, sizeof(nodedb_row_view));
    }
}

// After the pass: how many values a column has. Where there is none it is given what stands for that.
static inline uint64_t nodedb_row_settle(const nodedb_row_column *column, uint64_t count) {
    const uint64_t valid = nodedb_row_count_valid(column->state, count);
    if (valid == count || column->type == NODEDB_ROW_NULL)
        return valid;
    for (uint64_t i = 0; i < count; i += 8) {
        const uint64_t some = count - i < 8 ? count - i : 8;
        uint64_t eight = NODEDB_ALL_VALID;
        memcpy(&eight, column->state + i, some);
        for (uint64_t k = 0; eight != NODEDB_ALL_VALID && k < some; k++)
            if (column->state[i + k] != NODEDB_ROW_VALID)
                nodedb_row_clear(column, i + k);
    }
    return valid;
}

// Bytes of a value in a column.
static inline size_t nodedb_row_width(nodedb_row_type type) {
    return type == NODEDB_ROW_BOOL                                                        ? 1
           : type == NODEDB_ROW_NULL                                                      ? 0
           : type == NODEDB_ROW_STR || type == NODEDB_ROW_BYTES || type == NODEDB_ROW_RAW ? sizeof(nodedb_row_view)
                                                                                          : 8;
}

#endif
