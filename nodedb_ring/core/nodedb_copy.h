/* Copies of rows and payload in bulk.
 *
 * Not memcpy: for a size of at most 8 KiB gcc may write `rep movs` in place of the call, and the memcpy of glibc 2.36
 * takes it for longer ones. Some AMD processors are several times slower with it when source and destination lie almost
 * the same way in their pages (glibc's bug 30994). Moves of 16 bytes are as fast as memcpy elsewhere. */
#ifndef NODEDB_COPY_H
#define NODEDB_COPY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t nodedb_sixteen __attribute__((vector_size(16), aligned(1), may_alias));

/* Copies `size` bytes between places that do not overlap. */
static inline void nodedb_copy(void *to, const void *from, size_t size) {
    uint8_t *out = (uint8_t *)to;
    const uint8_t *in = (const uint8_t *)from;
    for (; size >= 4 * sizeof(nodedb_sixteen); size -= 4 * sizeof(nodedb_sixteen)) {
        const nodedb_sixteen *source = (const nodedb_sixteen *)in;
        nodedb_sixteen *target = (nodedb_sixteen *)out;
        const nodedb_sixteen first = source[0], second = source[1], third = source[2], fourth = source[3];
        target[0] = first;
        target[1] = second;
        target[2] = third;
        target[3] = fourth;
        in += 4 * sizeof(nodedb_sixteen);
        out += 4 * sizeof(nodedb_sixteen);
    }
    memcpy(out, in, size);
}

#endif
