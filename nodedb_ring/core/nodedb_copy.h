/* Copies of rows and payload in bulk.
 *
 * In pieces: for a size of at most 8 KiB gcc may write `rep movs` in place of a call of memcpy, and the memcpy of glibc
 * 2.36 takes it for sizes above about 2 KiB. Some AMD processors are several times slower with it when source and
 * destination lie almost the same way in their pages (glibc's bug 30994). */
#ifndef NODEDB_COPY_H
#define NODEDB_COPY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define NODEDB_COPY_PIECE ((size_t)1024)

/* Copies `size` bytes between places that do not overlap. */
static inline void nodedb_copy(void *to, const void *from, size_t size) {
    size_t piece = 0;
    for (size_t done = 0; done < size; done += piece) {
        piece = size - done < NODEDB_COPY_PIECE ? size - done : NODEDB_COPY_PIECE;
        /* Hides from gcc that the size is small, so that memcpy is called. */
        __asm__("" : "+r"(piece));
        memcpy((uint8_t *)to + done, (const uint8_t *)from + done, piece);
    }
}

#endif
