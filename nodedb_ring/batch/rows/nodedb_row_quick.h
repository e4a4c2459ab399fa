// A row that is like the one before, read with few questions.
//
// Its keys are those of an earlier row, in their order, and its values are of what is common. Not a value is compared
// with the row's end on the way, only with that of the payload, from which there is room for any key and value that is
// read here. Whether the row ends where it should shows behind its last value: if it does not, or if anything else is
// out of the common, nothing that was written counts, and the row is read again, with care.

#ifndef NODEDB_ROW_QUICK_H
#define NODEDB_ROW_QUICK_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "nodedb_msgpack.h"
#include "nodedb_row_keys.h"
#include "nodedb_row_values.h"

#define NODEDB_QUICK_KEY 32  // bytes of a key, with its head
#define NODEDB_QUICK_STEP 64 // bytes of such a key and of the longest value that is not compared with the row's end
#define NODEDB_QUICK_ROOM 96 // bytes from a key on that may be read: the key, and text of 31 bytes or whole words

// How an integer lies behind its first byte: of the 8 bytes from `skip` on, as many as remain after a shift by `shift`;
// in `bytes` bytes in all, 0 of what is no integer. The widths differ from row to row, and branches on them would be
// guessed wrong.
typedef struct {
    uint64_t mask; // takes back the sign of what has none
    uint8_t bytes, skip, shift;
} nodedb_integer_form;

#define NODEDB_SIGNED(bytes, skip, shift) {UINT64_MAX, bytes, skip, shift}
#define NODEDB_UNSIGNED(bytes, skip, shift) {UINT64_MAX >> (shift), bytes, skip, shift}
static const nodedb_integer_form nodedb_integer_forms[256] = {
    [0x00 ... 0x7F] = NODEDB_SIGNED(1, 0, 56), [0xE0 ... 0xFF] = NODEDB_SIGNED(1, 0, 56),
    [0xCC] = NODEDB_UNSIGNED(2, 1, 56),        [0xD0] = NODEDB_SIGNED(2, 1, 56),
    [0xCD] = NODEDB_UNSIGNED(3, 1, 48),        [0xD1] = NODEDB_SIGNED(3, 1, 48),
    [0xCE] = NODEDB_UNSIGNED(5, 1, 32),        [0xD2] = NODEDB_SIGNED(5, 1, 32),
    [0xCF] = NODEDB_UNSIGNED(9, 1, 0),         [0xD3] = NODEDB_SIGNED(9, 1, 0),
};
#undef NODEDB_SIGNED
#undef NODEDB_UNSIGNED

// Up to 12 bytes, before which 4 lie that may be read, and 12 behind their start.
static inline nodedb_view nodedb_row_quick_words(const uint8_t *bytes, uint32_t size) {
    return *(const nodedb_view *)(bytes - 4) & nodedb_view_keep[size];
}

// The view of them.
static inline void nodedb_row_quick_view(nodedb_row_view *view, nodedb_view words, uint32_t size) {
    *(nodedb_view *)view = words | (nodedb_view){size, 0, 0, 0};
}

static inline int nodedb_row_is_ascii(nodedb_view words) {
    uint64_t half[2];
    memcpy(half, &words, sizeof half);
    return ((half[0] | half[1]) & 0x8080808080808080u) == 0;
}

// The integer at `at`, whose first byte has this form, as 64 bits.
static inline int64_t nodedb_row_quick_integer(const nodedb_integer_form *form, const uint8_t *at) {
    return ((int64_t)nodedb_msgpack_u64(at + form->skip) >> form->shift) & (int64_t)form->mask;
}

// Whether it is too large for an int64_t: that form alone has no sign in all of its 64 bits.
static inline int nodedb_row_is_large(uint32_t first, int64_t number) { return (number < 0) & (first == 0xCF); }

// What is not so common. Nobody else has the address of where the row is read: it stays in a register.
static inline const uint8_t *nodedb_row_quick_other(const nodedb_row_payload *payload, nodedb_row_column *column,
                                                    uint64_t row, const uint8_t *at, const uint8_t *end) {
    const uint8_t *behind = at;
    return nodedb_row_read_value(payload, column, row, &behind, end) == NODEDB_ROW_OK ? behind : NULL;
}

// Bytes of a value that has nothing behind its head, by its first byte; 0 of any other.
static const uint8_t nodedb_scalar_bytes[256] = {
    [0x00 ... 0x7F] = 1, [0xC0] = 1, [0xC2 ... 0xC3] = 1, [0xCA] = 5, [0xCB] = 9, [0xCC] = 2, [0xCD] = 3,
    [0xCE] = 5,          [0xCF] = 9, [0xD0] = 2,          [0xD1] = 3, [0xD2] = 5, [0xD3] = 9, [0xE0 ... 0xFF] = 1,
};

// From byte 32 - n on: the highest bits of n bytes.
static const uint8_t nodedb_high_bits[64] = {[0 ... 31] = 0x80};

// Whether up to 31 bytes are ASCII; 32 may be read.
static inline int nodedb_row_quick_is_ascii(const uint8_t *bytes, uint32_t size) {
    uint64_t word[4], high[4];
    memcpy(word, bytes, sizeof word);
    memcpy(high, nodedb_high_bits + 32 - size, sizeof high);
    return ((word[0] & high[0]) | (word[1] & high[1]) | (word[2] & high[2]) | (word[3] & high[3])) == 0;
}

// Passes over the value at `at`, from which on there is room: what is behind it, or NULL where it is malformed.
static inline const uint8_t *nodedb_row_quick_pass(const uint8_t *at, const uint8_t *end) {
    const uint8_t first = *at, bytes = nodedb_scalar_bytes[first];
    const uint8_t *behind = at;
    if (bytes != 0)
        return at + bytes;
    if ((first & 0xE0) == 0xA0 && nodedb_row_quick_is_ascii(at + 1, first & 0x1F))
        return at + 1 + (first & 0x1F);
    return nodedb_msgpack_pass(&behind, end, 1) == NODEDB_MSGPACK_OK ? behind : NULL;
}

// Reads the value at `at`, from which on there is room: what is behind it, or NULL where it is malformed.
static inline const uint8_t *nodedb_row_quick_value(const nodedb_row_payload *payload, nodedb_row_column *column,
                                                    uint64_t row, const uint8_t *at, const uint8_t *end) {
    const uint32_t first = *at;
    const nodedb_row_type type = column->type;
    if (type == NODEDB_ROW_INT64 || type == NODEDB_ROW_UINT64) {
        const nodedb_integer_form *form = nodedb_integer_forms + first;
        const int64_t number = nodedb_row_quick_integer(form, at);
        const int is_other =
            type == NODEDB_ROW_INT64 ? nodedb_row_is_large(first, number) : (number < 0) & (first != 0xCF);
        if (form->bytes != 0 && !is_other) {
            ((int64_t *)column->values)[row] = number;
            column->state[row] = NODEDB_ROW_VALID;
            return at + form->bytes;
        }
    } else if (type == NODEDB_ROW_STR && (first & 0xE0) == 0xA0) {
        const uint32_t size = first & 0x1F;
        column->state[row] = NODEDB_ROW_VALID;
        if (size <= NODEDB_VIEW_BYTES) {
            const nodedb_view words = nodedb_row_quick_words(at + 1, size);
            nodedb_row_quick_view((nodedb_row_view *)column->values + row, words, size);
            if (nodedb_row_is_ascii(words))
                return at + 1 + size;
        }
        return nodedb_row_set_text(payload, column, row, at + 1, size) == NODEDB_ROW_OK ? at + 1 + size : NULL;
    } else if (type == NODEDB_ROW_FLOAT64 && first == 0xCB) {
        ((double *)column->values)[row] = nodedb_msgpack_f64(at + 1);
        column->state[row] = NODEDB_ROW_VALID;
        return at + 9;
    } else if (type == NODEDB_ROW_BOOL && (first & 0xFE) == 0xC2) {
        ((uint8_t *)column->values)[row] = first & 1;
        column->state[row] = NODEDB_ROW_VALID;
        return at + 1;
    }
    if (first == 0xC0) {
        column->state[row] = NODEDB_ROW_NIL;
        return at + 1;
    }
    return nodedb_row_quick_other(payload, column, row, at, end);
}

// Reads the head of a row: where its first key is, or NULL. So many `keys` there are.
static inline const uint8_t *nodedb_row_quick_open(const nodedb_row_payload *payload, const uint8_t *at,
                                                   const uint8_t *end, uint32_t *keys) {
    // A view reads 4 bytes before its own, of which a row's first has but 3 in front: the row's head, a key, its own
    // head.
    if (at == payload->bytes || end - at < 3)
        return NULL;
    *keys = *at & 0x0F;
    if ((*at & 0xF0) == 0x80)
        return at + 1;
    *keys = nodedb_msgpack_u16(at + 1);
    return *at == 0xDE ? at + 3 : NULL;
}

// Whether the key at `at` is the one that stood at this place before, and there is room for it and for its value.
static inline int nodedb_row_quick_key(const nodedb_row_payload *payload, const nodedb_row_key *key,
                                       const uint8_t *at) {
    const uint32_t words = 8 * NODEDB_KEY_WORDS;
    if (payload->end - at < NODEDB_QUICK_ROOM || key->size > NODEDB_QUICK_KEY || !nodedb_row_is_key(key, at))
        return 0;
    return __builtin_expect(key->size <= words, 1) || memcmp(at + words, key->bytes + words, key->size - words) == 0;
}

// Reads a row. 0: it is none of the common ones, or malformed.
static inline int nodedb_row_quick(const nodedb_row_keys *keys, const nodedb_row_payload *payload,
                                   nodedb_row_column *columns, uint64_t row, const uint8_t *at, const uint8_t *end) {
    uint32_t count = 0;
    at = nodedb_row_quick_open(payload, at, end, &count);
    if (at == NULL || count > keys->known)
        return 0;
    for (uint32_t place = 0; place < count; place++) {
        const nodedb_row_key *key = keys->key + place;
        if (!nodedb_row_quick_key(payload, key, at))
            return 0;
        at += key->size;
        at = key->column == NODEDB_NO_COLUMN ? nodedb_row_quick_pass(at, end)
                                             : nodedb_row_quick_value(payload, columns + key->column, row, at, end);
        if (at == NULL)
            return 0;
    }
    return at == end;
}

#endif
