// Copies of the short strings that a row value is made of: a call of memcpy takes longer than the copy.

#ifndef NODEDB_SHORT_COPY_H
#define NODEDB_SHORT_COPY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define NODEDB_SHORT 16

// Copies `size` bytes between places that do not overlap, and reads and writes no others. Up to 16 bytes go as two
// words, which overlap where they have to.
static inline __attribute__((always_inline)) void nodedb_copy_short(uint8_t *to, const uint8_t *from, size_t size) {
    if (size > NODEDB_SHORT) {
        memcpy(to, from, size);
    } else if (size >= 8) {
        uint64_t first, last;
        memcpy(&first, from, 8);
        memcpy(&last, from + size - 8, 8);
        memcpy(to, &first, 8);
        memcpy(to + size - 8, &last, 8);
    } else if (size >= 4) {
        uint32_t first, last;
        memcpy(&first, from, 4);
        memcpy(&last, from + size - 4, 4);
        memcpy(to, &first, 4);
        memcpy(to + size - 4, &last, 4);
    } else if (size != 0) {
        to[0] = from[0];
        to[size >> 1] = from[size >> 1];
        to[size - 1] = from[size - 1];
    }
}

// The same where both places have NODEDB_SHORT bytes at least, whatever `size` is: a short one is one move.
static inline void nodedb_copy_padded(uint8_t *to, const uint8_t *from, size_t size) {
    if (size <= NODEDB_SHORT)
        memcpy(to, from, NODEDB_SHORT);
    else
        memcpy(to, from, size);
}

#endif
