// Two rows that are like the one before, read side by side.
//
// Where a value ends, and so where the next key begins, is known only when its first byte has been looked up. A
// processor waits for that at every value, and reads the other row meanwhile. The rows have the same keys in the same
// places, so what there is to ask of a key is asked once for both.
//
// As in nodedb_row_quick.h, what does not go the common way ends the pair. Then its rows are read one by one.

#ifndef NODEDB_ROW_PAIR_H
#define NODEDB_ROW_PAIR_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../../core/nodedb_schema.h"
#include "nodedb_row_keys.h"
#include "nodedb_row_quick.h"
#include "nodedb_row_values.h"

typedef struct {
    const uint8_t *a, *b; // how far each is read
    const uint8_t *a_end, *b_end;
    uint32_t keys; // of each
} nodedb_row_pair;

// Whether the value of an event is there, and lies in the payload.
static inline int nodedb_row_is_inside(const nodedb_row_payload *payload, nodedb_field value) {
    const uint8_t *start = payload->origin + value.offset;
    return value.length != NODEDB_NULL_LENGTH && start >= payload->bytes &&
           (ptrdiff_t)value.length <= payload->end - start;
}

// Reads the heads of two rows. 0: they are not to be read as a pair.
static inline int nodedb_row_open_pair(const nodedb_row_keys *keys, const nodedb_row_payload *payload, nodedb_field a,
                                       nodedb_field b, nodedb_row_pair *pair) {
    uint32_t b_keys = 0;
    if (!nodedb_row_is_inside(payload, a) || !nodedb_row_is_inside(payload, b))
        return 0;
    pair->a_end = payload->origin + a.offset + a.length;
    pair->b_end = payload->origin + b.offset + b.length;
    pair->a = nodedb_row_quick_open(payload, payload->origin + a.offset, pair->a_end, &pair->keys);
    pair->b = nodedb_row_quick_open(payload, payload->origin + b.offset, pair->b_end, &b_keys);
    if (pair->a == NULL || pair->b == NULL || pair->keys != b_keys || b_keys > keys->known)
        return 0;
    // A key and its value may lead NODEDB_QUICK_STEP bytes beyond the row's end, and no further: what is longer is
    // compared with that. So there is room for all of them, and nothing more to ask on the way.
    const ptrdiff_t room = NODEDB_QUICK_ROOM + (ptrdiff_t)b_keys * NODEDB_QUICK_STEP;
    return payload->end - pair->a_end >= room && payload->end - pair->b_end >= room;
}

// Whether a key stands next in both of them. Moves behind it.
static inline int nodedb_row_pass_keys(nodedb_row_pair *pair, const nodedb_row_key *key) {
    uint64_t a[NODEDB_KEY_WORDS], b[NODEDB_KEY_WORDS];
    const uint32_t size = key->size, words = sizeof a;
    memcpy(a, pair->a, sizeof a);
    memcpy(b, pair->b, sizeof b);
    if (((((a[0] ^ key->word[0]) | (b[0] ^ key->word[0])) & key->mask[0]) |
         (((a[1] ^ key->word[1]) | (b[1] ^ key->word[1])) & key->mask[1])) != 0)
        return 0;
    if (__builtin_expect(size > words, 0) &&
        (size > NODEDB_QUICK_KEY || memcmp(pair->a + words, key->bytes + words, size - words) != 0 ||
         memcmp(pair->b + words, key->bytes + words, size - words) != 0))
        return 0;
    pair->a += size;
    pair->b += size;
    return 1;
}

static inline void nodedb_row_set_both_valid(const nodedb_row_column *column, uint64_t row) {
    const uint8_t valid[2] = {NODEDB_ROW_VALID, NODEDB_ROW_VALID};
    memcpy(column->state + row, valid, sizeof valid);
}

// Reads two values of one column into rows `row` and `row` + 1, and moves behind them. 0: they are not of what is most
// common, and nothing that was written counts.
static inline int nodedb_row_pair_values(nodedb_row_pair *pair, nodedb_row_column *column, uint64_t row) {
    const uint32_t a = *pair->a, b = *pair->b;
    if (column->type == NODEDB_ROW_INT64) {
        const nodedb_integer_form *a_form = nodedb_integer_forms + a, *b_form = nodedb_integer_forms + b;
        const int64_t a_number = nodedb_row_quick_integer(a_form, pair->a);
        const int64_t b_number = nodedb_row_quick_integer(b_form, pair->b);
        if ((a_form->bytes == 0) | (b_form->bytes == 0) | nodedb_row_is_large(a, a_number) |
            nodedb_row_is_large(b, b_number))
            return 0;
        ((int64_t *)column->values)[row] = a_number;
        ((int64_t *)column->values)[row + 1] = b_number;
        pair->a += a_form->bytes;
        pair->b += b_form->bytes;
    } else if (column->type == NODEDB_ROW_STR) {
        const uint32_t a_size = a - 0xA0, b_size = b - 0xA0;
        nodedb_row_view *view = (nodedb_row_view *)column->values + row;
        if ((a_size > NODEDB_VIEW_BYTES) | (b_size > NODEDB_VIEW_BYTES))
            return 0;
        const nodedb_view a_words = nodedb_row_quick_words(pair->a + 1, a_size);
        const nodedb_view b_words = nodedb_row_quick_words(pair->b + 1, b_size);
        if (!nodedb_row_is_ascii(a_words | b_words))
            return 0;
        nodedb_row_quick_view(view, a_words, a_size);
        nodedb_row_quick_view(view + 1, b_words, b_size);
        pair->a += 1 + a_size;
        pair->b += 1 + b_size;
    } else if (column->type == NODEDB_ROW_FLOAT64) {
        if ((a != 0xCB) | (b != 0xCB))
            return 0;
        ((double *)column->values)[row] = nodedb_msgpack_f64(pair->a + 1);
        ((double *)column->values)[row + 1] = nodedb_msgpack_f64(pair->b + 1);
        pair->a += 9;
        pair->b += 9;
    } else {
        return 0;
    }
    nodedb_row_set_both_valid(column, row);
    return 1;
}

// Passes over two values. 0: one of them is malformed.
static inline int nodedb_row_pass_values(nodedb_row_pair *pair) {
    const uint32_t a = *pair->a, b = *pair->b, a_bytes = nodedb_scalar_bytes[a], b_bytes = nodedb_scalar_bytes[b];
    const uint32_t a_size = a - 0xA0, b_size = b - 0xA0;
    if ((a_bytes != 0) & (b_bytes != 0)) {
        pair->a += a_bytes;
        pair->b += b_bytes;
        return 1;
    }
    if ((a_size <= NODEDB_VIEW_BYTES) & (b_size <= NODEDB_VIEW_BYTES) &&
        nodedb_row_is_ascii(nodedb_row_quick_words(pair->a + 1, a_size) |
                            nodedb_row_quick_words(pair->b + 1, b_size))) {
        pair->a += 1 + a_size;
        pair->b += 1 + b_size;
        return 1;
    }
    pair->a = nodedb_row_quick_pass(pair->a, pair->a_end);
    pair->b = nodedb_row_quick_pass(pair->b, pair->b_end);
    return pair->a != NULL && pair->b != NULL;
}

// Any value of a row. Twice in the code it would be twice in the cache.
static __attribute__((noinline)) const uint8_t *nodedb_row_pair_other(const nodedb_row_payload *payload,
                                                                      nodedb_row_column *columns, uint32_t column,
                                                                      uint64_t row, const uint8_t *at,
                                                                      const uint8_t *end) {
    return column == NODEDB_NO_COLUMN ? nodedb_row_quick_pass(at, end)
                                      : nodedb_row_quick_value(payload, columns + column, row, at, end);
}

// Reads two values of events `row` and `row` + 1. 0: they are none of the common rows, or malformed.
static __attribute__((noinline)) int nodedb_row_quick_pair(const nodedb_row_keys *keys,
                                                           const nodedb_row_payload *payload,
                                                           nodedb_row_column *columns, uint64_t row, nodedb_field a,
                                                           nodedb_field b) {
    nodedb_row_pair pair = {0};
    if (!nodedb_row_open_pair(keys, payload, a, b, &pair))
        return 0;
    const nodedb_row_key *const stop = keys->key + pair.keys;
    for (const nodedb_row_key *key = keys->key; key != stop; key++) {
        const uint32_t column = key->column;
        if (!nodedb_row_pass_keys(&pair, key))
            return 0;
        if (column != NODEDB_NO_COLUMN && nodedb_row_pair_values(&pair, columns + column, row))
            continue;
        pair.a = nodedb_row_pair_other(payload, columns, column, row, pair.a, pair.a_end);
        pair.b = nodedb_row_pair_other(payload, columns, column, row + 1, pair.b, pair.b_end);
        if (pair.a == NULL || pair.b == NULL)
            return 0;
    }
    return pair.a == pair.a_end && pair.b == pair.b_end;
}

#endif
