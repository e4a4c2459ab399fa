// Views as Arrow has them: 16 bytes for a value of text or binary.
//
//     up to 12 bytes   | length | the bytes, zeros after them                |
//     more             | length | first 4 bytes | number of buffer | offset  |

#ifndef NODEDB_VIEW_H
#define NODEDB_VIEW_H

#include <stdint.h>

#define NODEDB_VIEW_BYTES 12 // bytes that a view holds itself

// Its four words.
typedef uint32_t nodedb_view __attribute__((vector_size(16), aligned(4), may_alias));

// Masks for the 16 bytes that begin 4 before a value's start, by the value's length; the last is for lengths over 12.
#define NODEDB_A UINT32_MAX
static const nodedb_view nodedb_view_keep[16] __attribute__((aligned(16))) = {
    {0, 0, 0, 0},
    {0, 0xFF, 0, 0},
    {0, 0xFFFF, 0, 0},
    {0, 0xFFFFFF, 0, 0},
    {0, NODEDB_A, 0, 0},
    {0, NODEDB_A, 0xFF, 0},
    {0, NODEDB_A, 0xFFFF, 0},
    {0, NODEDB_A, 0xFFFFFF, 0},
    {0, NODEDB_A, NODEDB_A, 0},
    {0, NODEDB_A, NODEDB_A, 0xFF},
    {0, NODEDB_A, NODEDB_A, 0xFFFF},
    {0, NODEDB_A, NODEDB_A, 0xFFFFFF},
    {0, NODEDB_A, NODEDB_A, NODEDB_A},
    {0, NODEDB_A, 0, 0},
};
#undef NODEDB_A

#endif
