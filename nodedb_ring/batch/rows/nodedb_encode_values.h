// One value of an Arrow array as MessagePack: first how many bytes it has, then those bytes.
//
// Whoever made the array is not trusted further than Arrow's interface allows: indices, offsets and views are checked
// when they are read, each time. Values that change between the two passes are found because a writer never leaves its
// row.
//
// A value nests as deep as its type, and types are planned with a bound on that: the recursion ends.

#ifndef NODEDB_ENCODE_VALUES_H
#define NODEDB_ENCODE_VALUES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../arrow/nodedb_arrow_abi.h"
#include "../arrow/nodedb_arrow_values.h"
#include "../nodedb_utf8.h"
#include "nodedb_msgpack_write.h"

typedef enum {
    ENCODE_NULL,     // no value is anything but nil
    ENCODE_CONSTANT, // one value for all rows, which stands behind the key
    ENCODE_BOOL,
    ENCODE_INTEGER,
    ENCODE_HALF,
    ENCODE_FLOAT,
    ENCODE_DOUBLE,
    ENCODE_TIMESTAMP,
    ENCODE_TEXT,
    ENCODE_BINARY,
    ENCODE_RAW, // bytes that are MessagePack already
    ENCODE_DICTIONARY,
    ENCODE_LIST,
    ENCODE_STRUCT,
    ENCODE_MAP,
} encode_kind;

typedef enum {
    ENCODE_OK,
    ENCODE_OUTSIDE,      // a value, a list or a dictionary's index that lies outside of its buffers
    ENCODE_NOT_UTF8,     //
    ENCODE_TOO_LONG,     // more bytes or items than MessagePack counts
    ENCODE_ROW_TOO_LONG, // more bytes than a value of an event has
    ENCODE_INEXACT,      // a stamp that is no whole number of microseconds
    ENCODE_OUT_OF_RANGE, // a stamp that 64 bits of microseconds do not hold
    ENCODE_NULL_KEY,     // of a map
    ENCODE_CHANGED,      // not what it was when it was measured
} encode_fault;

// How the values of a column come, or those inside of them.
typedef struct encode_type {
    encode_kind kind;
    // Of an integer or a dictionary's index: its format. Of text, bytes and lists: their layout, which is the format's
    // last letter, or w where all have one size. Of a timestamp: its unit, one of s m u n.
    char letter;
    int64_t width; // of layout w
    uint32_t count;
    struct encode_type
        *child;         // [count]: the values of a dictionary or list, the fields of a struct, key and value of a map
    const uint8_t *key; // the packed name of a column or field; ENCODE_KEY_ROOM bytes may be read at least
    uint32_t key_size;
} encode_type;

enum { ENCODE_KEY_ROOM = 16 };

#define ENCODE_INLINE static inline __attribute__((always_inline))

// Where the text of some values lies, one behind another, as far as their offsets say so. All of it zero: nothing is
// known.
typedef struct {
    const uint8_t *low;
    uint64_t size;
    uint64_t wide; // values that begin at fewer bytes behind `low` have ENCODE_WIDE bytes that may be read
    int is_ascii;
} encode_window;

enum { ENCODE_WIDE = 16, ENCODE_VIEW = 12 };

// ---- reading ----------------------------------------------------------------------------------------------------

ENCODE_INLINE const uint8_t *encode_validity(const struct ArrowArray *array) {
    return array->n_buffers > 0 && array->null_count != 0 ? array->buffers[0] : NULL;
}

ENCODE_INLINE int encode_is_valid(const uint8_t *bits, int64_t i) {
    return bits == NULL || (bits[i >> 3] >> (i & 7) & 1);
}

// The numbers or offsets of an array with such a buffer. That it is there, and long enough, the plan has checked.
ENCODE_INLINE const uint8_t *encode_numbers(const struct ArrowArray *array) { return array->buffers[1]; }

// Where the items of list i stand in the child, its offset included.
static inline encode_fault encode_items(const struct ArrowArray *array, char letter, int64_t width, int64_t i,
                                        int64_t *first, int64_t *count) {
    const struct ArrowArray *child = array->children[0];
    int32_t narrow[2];
    int64_t wide[2];
    switch (letter) {
    case 'w':
        if (__builtin_mul_overflow(i, width, &wide[0]) || __builtin_add_overflow(wide[0], width, &wide[1]))
            return ENCODE_OUTSIDE;
        break;
    case 'l':
        memcpy(narrow, encode_numbers(array) + i * 4, 8);
        wide[0] = narrow[0];
        wide[1] = narrow[1];
        break;
    default:
        memcpy(wide, encode_numbers(array) + i * 8, 16);
        break;
    }
    if (wide[0] < 0 || wide[1] < wide[0] || wide[1] > child->length)
        return ENCODE_OUTSIDE;
    *first = child->offset + wide[0];
    *count = wide[1] - wide[0];
    return (uint64_t)*count > MSGPACK_MOST ? ENCODE_TOO_LONG : ENCODE_OK;
}

// The entry that index i of a dictionary array names, the dictionary's offset included.
static inline encode_fault encode_entry(const struct ArrowArray *array, char letter, int64_t i, int64_t *entry) {
    uint64_t index;
    if (nodedb_integer_at(encode_numbers(array), letter, i, &index) || index >= (uint64_t)array->dictionary->length)
        return ENCODE_OUTSIDE;
    *entry = array->dictionary->offset + (int64_t)index;
    return ENCODE_OK;
}

// A stamp of so many ticks since the epoch. The time that a reader has is 64 bits of microseconds.
ENCODE_INLINE encode_fault encode_time(char unit, int64_t ticks, int64_t *seconds, uint32_t *nanoseconds) {
    const int64_t rate = unit == 's' ? 1 : unit == 'm' ? 1000 : unit == 'u' ? 1000000 : 1000000000;
    int64_t rest = ticks % rate, microseconds;
    *seconds = ticks / rate;
    if (rest < 0) {
        rest += rate;
        *seconds -= 1;
    }
    *nanoseconds = (uint32_t)(rest * (1000000000 / rate));
    if (unit == 'n' && *nanoseconds % 1000 != 0)
        return ENCODE_INEXACT;
    if (unit == 's' || unit == 'm')
        if (__builtin_mul_overflow(ticks, 1000000 / rate, &microseconds))
            return ENCODE_OUT_OF_RANGE;
    return ENCODE_OK;
}

// Exact: a float has all the bits of a half.
static inline uint32_t encode_float_of_half(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t exponent = half >> 10 & 0x1F, fraction = half & 0x3FF;
    if (exponent == 0x1F)
        return sign | 0x7F800000u | fraction << 13;
    if (exponent == 0) {
        if (fraction == 0)
            return sign;
        for (exponent = 1; (fraction & 0x400) == 0; exponent--)
            fraction <<= 1;
        fraction &= 0x3FF;
    }
    return sign | (exponent + 112) << 23 | fraction << 13;
}

// ---- text -------------------------------------------------------------------------------------------------------

static inline int encode_offset(const struct ArrowArray *array, char letter, int64_t i, int64_t *offset) {
    int32_t narrow;
    if (letter == 'U' || letter == 'Z') {
        memcpy(offset, encode_numbers(array) + 8 * i, 8);
    } else {
        memcpy(&narrow, encode_numbers(array) + 4 * i, 4);
        *offset = narrow;
    }
    return *offset >= 0;
}

// Of values i and on, `count` of them. What lies outside is checked value by value, and so is all that is no ASCII.
static inline encode_window encode_window_of(const struct ArrowArray *array, char letter, int64_t i, int64_t count,
                                             int is_text) {
    encode_window window = {NULL, 0, 0, 0};
    int64_t low, high;
    if (!encode_offset(array, letter, i, &low) || !encode_offset(array, letter, i + count, &high) || high < low)
        return window;
    if (array->buffers[2] == NULL)
        return window;
    window.low = (const uint8_t *)array->buffers[2] + low;
    window.size = (uint64_t)(high - low);
    window.wide = window.size >= ENCODE_WIDE ? window.size - ENCODE_WIDE + 1 : 0;
    window.is_ascii = is_text && nodedb_is_ascii(window.low, window.size);
    return window;
}

ENCODE_INLINE int encode_is_utf8(char letter, const nodedb_span *span, const encode_window *window) {
    const uint64_t at = (uintptr_t)span->at - (uintptr_t)window->low, size = (uint64_t)span->size;
    if (window->is_ascii && at <= window->size && size <= window->size - at)
        return 1;
    if (letter == 'v' && size <= ENCODE_VIEW) {
        // A view has all of its bytes, and those behind a short text are 0.
        uint64_t first;
        uint32_t last;
        memcpy(&first, span->at, 8);
        memcpy(&last, span->at + 8, 4);
        if ((first & 0x8080808080808080u) == 0 && (last & 0x80808080u) == 0)
            return 1;
    }
    return nodedb_utf8_prefix(span->at, size) == size;
}

// Few bytes go in a copy of one size, where what is behind them may be read and will be written over.
ENCODE_INLINE uint8_t *encode_write_span(char letter, uint8_t *to, const uint8_t *end, const nodedb_span *span,
                                         const encode_window *window) {
    const uint64_t size = (uint64_t)span->size;
    if (letter == 'v') {
        if (size <= ENCODE_VIEW && msgpack_has_room(to, end, ENCODE_VIEW)) {
            memcpy(to, span->at, ENCODE_VIEW);
            return to + size;
        }
    } else if (size <= ENCODE_WIDE && msgpack_has_room(to, end, ENCODE_WIDE) &&
               (uintptr_t)span->at - (uintptr_t)window->low < window->wide) {
        memcpy(to, span->at, ENCODE_WIDE);
        return to + size;
    }
    return msgpack_write_bytes(to, end, span->at, size);
}

// ---- one value --------------------------------------------------------------------------------------------------

// A value is as deep as its type, and EncodePlan refuses a type that is more than 64 deep: so deep does this recursion
// go, and no deeper.
// NOLINTBEGIN(misc-no-recursion)

static encode_fault encode_measure_nested(const encode_type *type, const struct ArrowArray *array, int64_t i,
                                          uint64_t *size);
static encode_fault encode_write_nested(const encode_type *type, const struct ArrowArray *array, int64_t i,
                                        uint8_t **at, const uint8_t *end);

// Adds the bytes of value i, the array's offset included, to *size. Where `kind` and `letter` are constants it is the
// code of that type alone.
ENCODE_INLINE encode_fault encode_measure(encode_kind kind, char letter, const encode_type *type,
                                          const struct ArrowArray *array, const uint8_t *valid,
                                          const encode_window *window, int64_t i, uint64_t *size) {
    if (kind == ENCODE_CONSTANT)
        return ENCODE_OK;
    if (kind == ENCODE_NULL || !encode_is_valid(valid, i)) {
        *size += 1;
        return ENCODE_OK;
    }
    switch (kind) {
    case ENCODE_BOOL:
        *size += 1;
        return ENCODE_OK;
    case ENCODE_INTEGER: {
        uint64_t bits;
        const int is_negative = nodedb_integer_at(encode_numbers(array), letter, i, &bits);
        *size += msgpack_integer_size(bits, is_negative);
        return ENCODE_OK;
    }
    case ENCODE_HALF:
    case ENCODE_FLOAT:
        *size += 5;
        return ENCODE_OK;
    case ENCODE_DOUBLE:
        *size += 9;
        return ENCODE_OK;
    case ENCODE_TIMESTAMP: {
        int64_t ticks, seconds;
        uint32_t nanoseconds;
        memcpy(&ticks, encode_numbers(array) + 8 * i, 8);
        if (ticks == INT64_MIN) { // NaT
            *size += 1;
            return ENCODE_OK;
        }
        const encode_fault fault = encode_time(letter, ticks, &seconds, &nanoseconds);
        if (fault != ENCODE_OK)
            return fault;
        *size += msgpack_timestamp_size(seconds, nanoseconds);
        return ENCODE_OK;
    }
    case ENCODE_TEXT:
    case ENCODE_BINARY:
    case ENCODE_RAW: {
        nodedb_span span;
        if (nodedb_span_at(array, letter, type->width, i, &span))
            return ENCODE_OUTSIDE;
        if ((uint64_t)span.size > MSGPACK_MOST)
            return ENCODE_TOO_LONG;
        if (kind == ENCODE_TEXT && !encode_is_utf8(letter, &span, window))
            return ENCODE_NOT_UTF8;
        *size += (uint64_t)span.size;
        if (kind != ENCODE_RAW)
            *size += msgpack_head_size(kind == ENCODE_TEXT ? msgpack_text : msgpack_binary, (uint64_t)span.size);
        return ENCODE_OK;
    }
    default:
        return encode_measure_nested(type, array, i, size);
    }
}

// Writes value i to *at, and moves *at behind it; never to `end` or beyond.
ENCODE_INLINE encode_fault encode_write(encode_kind kind, char letter, const encode_type *type,
                                        const struct ArrowArray *array, const uint8_t *valid,
                                        const encode_window *window, int64_t i, uint8_t **at, const uint8_t *end) {
    uint8_t *to = *at;
    if (kind == ENCODE_CONSTANT)
        return ENCODE_OK;
    if (kind == ENCODE_NULL || !encode_is_valid(valid, i)) {
        *at = msgpack_write_byte(to, end, MSGPACK_NIL_BYTE);
        return *at == NULL ? ENCODE_CHANGED : ENCODE_OK;
    }
    switch (kind) {
    case ENCODE_BOOL:
        to =
            msgpack_write_byte(to, end, (uint8_t)(MSGPACK_FALSE_BYTE + (encode_numbers(array)[i >> 3] >> (i & 7) & 1)));
        break;
    case ENCODE_INTEGER: {
        uint64_t bits;
        const int is_negative = nodedb_integer_at(encode_numbers(array), letter, i, &bits);
        to = msgpack_write_integer(to, end, bits, is_negative);
        break;
    }
    case ENCODE_HALF: {
        uint16_t half;
        memcpy(&half, encode_numbers(array) + 2 * i, 2);
        to = msgpack_write_float(to, end, encode_float_of_half(half));
        break;
    }
    case ENCODE_FLOAT: {
        uint32_t bits;
        memcpy(&bits, encode_numbers(array) + 4 * i, 4);
        to = msgpack_write_float(to, end, bits);
        break;
    }
    case ENCODE_DOUBLE: {
        uint64_t bits;
        memcpy(&bits, encode_numbers(array) + 8 * i, 8);
        to = msgpack_write_double(to, end, bits);
        break;
    }
    case ENCODE_TIMESTAMP: {
        int64_t ticks, seconds;
        uint32_t nanoseconds;
        memcpy(&ticks, encode_numbers(array) + 8 * i, 8);
        if (ticks == INT64_MIN)
            to = msgpack_write_byte(to, end, MSGPACK_NIL_BYTE);
        else if (encode_time(letter, ticks, &seconds, &nanoseconds) != ENCODE_OK)
            return ENCODE_CHANGED;
        else
            to = msgpack_write_timestamp(to, end, seconds, nanoseconds);
        break;
    }
    case ENCODE_TEXT:
    case ENCODE_BINARY:
    case ENCODE_RAW: {
        nodedb_span span;
        if (nodedb_span_at(array, letter, type->width, i, &span) || (uint64_t)span.size > MSGPACK_MOST)
            return ENCODE_CHANGED;
        if (kind != ENCODE_RAW)
            to = msgpack_write_head(to, end, kind == ENCODE_TEXT ? msgpack_text : msgpack_binary, (uint64_t)span.size);
        if (to != NULL)
            to = encode_write_span(letter, to, end, &span, window);
        break;
    }
    default:
        return encode_write_nested(type, array, i, at, end);
    }
    if (to == NULL)
        return ENCODE_CHANGED;
    *at = to;
    return ENCODE_OK;
}

// ---- values that hold others ------------------------------------------------------------------------------------

static inline encode_fault encode_measure_any(const encode_type *type, const struct ArrowArray *array, int64_t i,
                                              uint64_t *size) {
    const encode_window unknown = {NULL, 0, 0, 0};
    return encode_measure(type->kind, type->letter, type, array, encode_validity(array), &unknown, i, size);
}

static inline encode_fault encode_write_any(const encode_type *type, const struct ArrowArray *array, int64_t i,
                                            uint8_t **at, const uint8_t *end) {
    const encode_window unknown = {NULL, 0, 0, 0};
    return encode_write(type->kind, type->letter, type, array, encode_validity(array), &unknown, i, at, end);
}

static encode_fault encode_measure_nested(const encode_type *type, const struct ArrowArray *array, int64_t i,
                                          uint64_t *size) {
    encode_fault fault = ENCODE_OK;
    int64_t first = 0, count = 0;
    if (type->kind == ENCODE_DICTIONARY) {
        fault = encode_entry(array, type->letter, i, &first);
        return fault != ENCODE_OK ? fault : encode_measure_any(type->child, array->dictionary, first, size);
    }
    if (type->kind == ENCODE_STRUCT) {
        *size += msgpack_head_size(msgpack_map, type->count);
        for (uint32_t k = 0; k < type->count && fault == ENCODE_OK; k++) {
            *size += type->child[k].key_size;
            fault = encode_measure_any(type->child + k, array->children[k], array->children[k]->offset + i, size);
        }
        return fault;
    }
    fault = encode_items(array, type->letter, type->width, i, &first, &count);
    if (fault != ENCODE_OK)
        return fault;
    *size += msgpack_head_size(type->kind == ENCODE_MAP ? msgpack_map : msgpack_array, (uint64_t)count);
    for (int64_t k = 0; k < count; k++) {
        if (type->kind == ENCODE_LIST) {
            fault = encode_measure_any(type->child, array->children[0], first + k, size);
        } else {
            const struct ArrowArray *entries = array->children[0], *keys = entries->children[0];
            if (!nodedb_is_valid(entries, first + k) || !nodedb_is_valid(keys, keys->offset + first + k))
                return ENCODE_NULL_KEY;
            for (int half = 0; half < 2 && fault == ENCODE_OK; half++)
                fault = encode_measure_any(type->child + half, entries->children[half],
                                           entries->children[half]->offset + first + k, size);
        }
        // A list may have the same items again and again: this bounds what they come to, and how long it takes.
        if (fault == ENCODE_OK && *size > MSGPACK_MOST)
            fault = ENCODE_TOO_LONG;
        if (fault != ENCODE_OK)
            return fault;
    }
    return ENCODE_OK;
}

static encode_fault encode_write_nested(const encode_type *type, const struct ArrowArray *array, int64_t i,
                                        uint8_t **at, const uint8_t *end) {
    encode_fault fault = ENCODE_OK;
    int64_t first = 0, count = 0;
    uint8_t *to = NULL;
    if (type->kind == ENCODE_DICTIONARY) {
        fault = encode_entry(array, type->letter, i, &first);
        return fault != ENCODE_OK ? ENCODE_CHANGED : encode_write_any(type->child, array->dictionary, first, at, end);
    }
    if (type->kind == ENCODE_STRUCT) {
        to = msgpack_write_head(*at, end, msgpack_map, type->count);
        for (uint32_t k = 0; k < type->count && fault == ENCODE_OK; k++) {
            const encode_type *field = type->child + k;
            if (to != NULL)
                to = msgpack_write_bytes(to, end, field->key, field->key_size);
            if (to == NULL)
                return ENCODE_CHANGED;
            fault = encode_write_any(field, array->children[k], array->children[k]->offset + i, &to, end);
        }
        *at = to;
        return to == NULL ? ENCODE_CHANGED : fault;
    }
    if (encode_items(array, type->letter, type->width, i, &first, &count) != ENCODE_OK)
        return ENCODE_CHANGED;
    to = msgpack_write_head(*at, end, type->kind == ENCODE_MAP ? msgpack_map : msgpack_array, (uint64_t)count);
    if (to == NULL)
        return ENCODE_CHANGED;
    for (int64_t k = 0; k < count && fault == ENCODE_OK; k++) {
        const struct ArrowArray *items = array->children[0];
        if (type->kind == ENCODE_LIST) {
            fault = encode_write_any(type->child, items, first + k, &to, end);
            continue;
        }
        for (int half = 0; half < 2 && fault == ENCODE_OK; half++)
            fault = encode_write_any(type->child + half, items->children[half],
                                     items->children[half]->offset + first + k, &to, end);
    }
    *at = to;
    return fault;
}

// NOLINTEND(misc-no-recursion)

#endif
