// One value of an Arrow array of any layout that a column may come in.

#ifndef NODEDB_ARROW_VALUES_H
#define NODEDB_ARROW_VALUES_H

#include <stdint.h>
#include <string.h>

#include "nodedb_arrow_abi.h"

// The bytes of one value, or NULL for None.
typedef struct {
    const uint8_t *at;
    int64_t size;
} nodedb_span;

// Where the letter is a constant, what is left is the code of that layout alone.
#define NODEDB_INLINE static inline __attribute__((always_inline))

static inline int nodedb_is_valid(const struct ArrowArray *array, int64_t i) {
    const uint8_t *bits = array->n_buffers > 0 ? array->buffers[0] : NULL;
    return bits == NULL || array->null_count == 0 || (bits[i >> 3] >> (i & 7) & 1);
}

// Integer i of a buffer, sign-extended, by the letter of its format; whether it is below 0. It may be unaligned.
NODEDB_INLINE int nodedb_integer_at(const void *data, char letter, int64_t i, uint64_t *bits) {
    const uint8_t *at = data;
#define NODEDB_READ(type)                                                                                              \
    {                                                                                                                  \
        type one;                                                                                                      \
        memcpy(&one, at + i * (int64_t)sizeof one, sizeof one);                                                        \
        *bits = (uint64_t)one;                                                                                         \
        return one < 0;                                                                                                \
    }
    switch (letter) {
    case 'c':
        NODEDB_READ(int8_t)
    case 's':
        NODEDB_READ(int16_t)
    case 'i':
        NODEDB_READ(int32_t)
    case 'l':
        NODEDB_READ(int64_t)
    default:
        break;
    }
#undef NODEDB_READ
#define NODEDB_READ(type)                                                                                              \
    {                                                                                                                  \
        type one;                                                                                                      \
        memcpy(&one, at + i * (int64_t)sizeof one, sizeof one);                                                        \
        *bits = one;                                                                                                   \
        return 0;                                                                                                      \
    }
    switch (letter) {
    case 'C':
        NODEDB_READ(uint8_t)
    case 'S':
        NODEDB_READ(uint16_t)
    case 'I':
        NODEDB_READ(uint32_t)
    default:
        NODEDB_READ(uint64_t)
    }
#undef NODEDB_READ
}

// Value i of a column of text or bytes, by the letter of its layout: 0, or 1 if it does not lie in its buffers.
NODEDB_INLINE int nodedb_span_at(const struct ArrowArray *array, char letter, int64_t width, int64_t i,
                                 nodedb_span *span) {
    switch (letter) {
    case 'u':
    case 'z': {
        int32_t ends[2];
        memcpy(ends, (const uint8_t *)array->buffers[1] + i * 4, 8);
        span->at = (const uint8_t *)array->buffers[2] + ends[0];
        span->size = (int64_t)ends[1] - ends[0];
        if (ends[0] < 0 || span->size < 0)
            return 1;
        break;
    }
    case 'U':
    case 'Z': {
        int64_t ends[2];
        memcpy(ends, (const uint8_t *)array->buffers[1] + i * 8, 16);
        if (ends[0] < 0 || ends[1] < ends[0])
            return 1;
        span->at = (const uint8_t *)array->buffers[2] + ends[0];
        span->size = ends[1] - ends[0];
        break;
    }
    case 'w':
        span->at = (const uint8_t *)array->buffers[1] + i * width;
        span->size = width;
        break;
    default: {
        const uint8_t *view = (const uint8_t *)array->buffers[1] + i * 16;
        int32_t part[4];
        int64_t parts = array->n_buffers - 3, room;
        memcpy(part, view, 16);
        span->size = part[0];
        if (part[0] < 0)
            return 1;
        if (part[0] <= 12) {
            span->at = view + 4;
            return 0;
        }
        if (part[2] < 0 || part[2] >= parts || part[3] < 0)
            return 1;
        memcpy(&room, (const int64_t *)array->buffers[2 + parts] + part[2], 8);
        if ((int64_t)part[3] + part[0] > room)
            return 1;
        span->at = (const uint8_t *)array->buffers[2 + part[2]] + part[3];
        if (array->buffers[2 + part[2]] == NULL)
            return 1;
        return 0;
    }
    }
    // Nothing is read of an empty value, whose buffer may be none; but NULL is None.
    if (span->size == 0)
        span->at = (const uint8_t *)"";
    else if (array->buffers[letter == 'w' ? 1 : 2] == NULL)
        return 1;
    return 0;
}

#undef NODEDB_INLINE
#endif
