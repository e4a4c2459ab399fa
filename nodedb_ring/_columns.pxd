# Rows turned into the columns of Arrow: one pass, in blocks whose rows stay in the first cache while they are read
# column by column.
#
# What is written, for n events:  fixed columns as they are; a stamp as i64 and a bit of validity; a variable-length field
# as a 16-byte view and a bit of validity:
#
#     up to 12 bytes   | length | the bytes, zeros after them                |
#     more             | length | first 4 bytes | number of buffer | offset  |
#
# A column in which everything is None is not written at all: `nulls` says so, and the caller has zeros for it.

from libc.stdint cimport int8_t, int64_t, uint8_t, uint32_t, uint64_t

from ._ring cimport EventRow
from ._utf8 cimport utf8_prefix

cdef extern from *:
    """
    #ifndef NODEDB_COLUMNS
    #define NODEDB_COLUMNS
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>

    #define NODEDB_INLINE 12                 /* bytes that a view holds itself */
    #define NODEDB_BLOCK 128                 /* rows; a multiple of 64, so that bitmaps are whole words */

    typedef uint32_t nodedb_view __attribute__((vector_size(16), aligned(4), may_alias));

    typedef struct {
        uint64_t *sequence, *lsn, *tenant_id;
        uint32_t *vshard_id, *count;
        int8_t *op, *source;                 /* numbered from 0 */
        int64_t *time[2];                    /* system, valid */
        uint64_t *time_valid[2], time_nulls[2];
        nodedb_view *view[6];                /* as nodedb_row.field */
        uint64_t *valid[6], nulls[6];        /* none for the first two, which are never None */
        uint64_t longs[6];                   /* how many values do not fit their view: 0, or some */
    } nodedb_columns;

    typedef struct {
        const uint8_t *bytes;                /* what views are over: the payload from `base` on */
        uint64_t size;
        uint32_t base;
        uint32_t shift;                      /* buffer k of the views begins at byte k << shift */
    } nodedb_window;

    /* What stays of the 16 bytes from 4 before a value's start: by its length, and 13 for one that is longer. */
    #define NODEDB_A UINT32_MAX
    static const nodedb_view nodedb_keep[14] __attribute__((aligned(16))) = {
        {0, 0, 0, 0}, {0, 0xFF, 0, 0}, {0, 0xFFFF, 0, 0}, {0, 0xFFFFFF, 0, 0}, {0, NODEDB_A, 0, 0},
        {0, NODEDB_A, 0xFF, 0}, {0, NODEDB_A, 0xFFFF, 0}, {0, NODEDB_A, 0xFFFFFF, 0}, {0, NODEDB_A, NODEDB_A, 0},
        {0, NODEDB_A, NODEDB_A, 0xFF}, {0, NODEDB_A, NODEDB_A, 0xFFFF}, {0, NODEDB_A, NODEDB_A, 0xFFFFFF},
        {0, NODEDB_A, NODEDB_A, NODEDB_A}, {0, NODEDB_A, 0, 0},
    };

    static __attribute__((noinline, cold)) nodedb_view nodedb_view_at_edge(const nodedb_window *window, uint32_t length, uint32_t at) {
        uint8_t bytes[16] = {0};
        nodedb_view view;
        if (length == NODEDB_NULL_LENGTH) return (nodedb_view){0, 0, 0, 0};
        memcpy(bytes, &length, 4);
        memcpy(bytes + 4, window->bytes + at, length <= NODEDB_INLINE ? length : 4);
        memcpy(&view, bytes, 16);
        if (length > NODEDB_INLINE) {
            view[2] = at >> window->shift;
            view[3] = at & (((uint32_t)1 << window->shift) - 1);
        }
        return view;
    }

    /* Reads 16 bytes where the window has them, and masks what is not the value's. */
    static inline __attribute__((always_inline)) nodedb_view nodedb_view_of(const nodedb_window *window, uint64_t room, nodedb_field field) {
        uint32_t at = field.offset - window->base, length = field.length;
        if (__builtin_expect((uint64_t)at - 4 >= room, 0)) return nodedb_view_at_edge(window, length, at);
        nodedb_view view = *(const nodedb_view *)(window->bytes + at - 4);
        view &= nodedb_keep[length < 13 ? length : 13];
        if (length > NODEDB_INLINE) {
            view[2] = at >> window->shift;
            view[3] = at & (((uint32_t)1 << window->shift) - 1);
        }
        view[0] = length;
        return view;
    }

    static inline __attribute__((always_inline)) nodedb_view nodedb_views(
        nodedb_view *restrict to, const nodedb_row *row, uint32_t count, int k, const nodedb_window *window, uint64_t room, uint64_t *longs) {
        nodedb_view seen = {0, 0, 0, 0};
        uint64_t over = 0;
        for (uint32_t i = 0; i < count; i++) {
            nodedb_view view = nodedb_view_of(window, room, row[i].field[k]);
            over += row[i].field[k].length > NODEDB_INLINE;
            seen |= view;
            to[i] = view;
        }
        *longs = over;
        return seen;
    }

    /* One block of one nullable field. `from` is how many rows were before. */
    static inline __attribute__((always_inline)) nodedb_view nodedb_nullable(
        nodedb_columns *to, uint64_t from, const nodedb_row *row, uint32_t count, int k, const nodedb_window *window, uint64_t room, uint64_t *longs) {
        uint64_t word[NODEDB_BLOCK / 64] = {0}, valid = 0;
        nodedb_view seen = {0, 0, 0, 0};
        *longs = 0;
        for (uint32_t w = 0; w * 64 < count; w++) {
            uint32_t m = count - w * 64 < 64 ? count - w * 64 : 64;
            uint64_t bits = 0;
            for (uint32_t i = 0; i < m; i++)
                bits |= (uint64_t)(row[w * 64 + i].field[k].length != NODEDB_NULL_LENGTH) << i;
            word[w] = bits;
            valid += __builtin_popcountll(bits);
        }
        if (valid == 0 && to->nulls[k] == from) {
            to->nulls[k] += count;
            return seen;
        }
        if (to->nulls[k] == from) {
            memset(to->view[k], 0, from * sizeof(nodedb_view));
            memset(to->valid[k], 0, from / 8);
        }
        to->nulls[k] += count - valid;
        memcpy((uint8_t *)to->valid[k] + from / 8, word, (count + 63) / 64 * 8);
        if (valid == count)
            return nodedb_views(to->view[k] + from, row, count, k, window, room, longs);
        uint64_t over = 0;
        for (uint32_t i = 0; i < count; i++) {
            nodedb_view view = {0, 0, 0, 0};
            if (word[i / 64] >> i % 64 & 1) {
                view = nodedb_view_of(window, room, row[i].field[k]);
                over += row[i].field[k].length > NODEDB_INLINE;
            }
            seen |= view;
            to->view[k][from + i] = view;
        }
        *longs = over;
        return seen;
    }

    static inline __attribute__((always_inline)) void nodedb_stamps(
        nodedb_columns *to, uint64_t from, const nodedb_row *row, uint32_t count, int k) {
        uint64_t word[NODEDB_BLOCK / 64] = {0}, valid = 0;
        for (uint32_t w = 0; w * 64 < count; w++) {
            uint32_t m = count - w * 64 < 64 ? count - w * 64 : 64;
            uint64_t bits = 0;
            for (uint32_t i = 0; i < m; i++)
                bits |= (uint64_t)((&row[w * 64 + i].system_time_ms)[k] != NODEDB_NO_TIME) << i;
            word[w] = bits;
            valid += __builtin_popcountll(bits);
        }
        if (valid == 0 && to->time_nulls[k] == from) {
            to->time_nulls[k] += count;
            return;
        }
        if (to->time_nulls[k] == from) {
            memset(to->time[k], 0, from * 8);
            memset(to->time_valid[k], 0, from / 8);
        }
        to->time_nulls[k] += count - valid;
        memcpy((uint8_t *)to->time_valid[k] + from / 8, word, (count + 63) / 64 * 8);
        for (uint32_t i = 0; i < count; i++) {
            int64_t time = (&row[i].system_time_ms)[k];
            to->time[k][from + i] = time == NODEDB_NO_TIME ? 0 : time;
        }
    }

    /* Whether the views of a block of text must be looked at: something is long, or not ASCII. Else they are UTF-8. */
    static inline int nodedb_is_doubtful(nodedb_view seen, uint64_t longs) {
        return longs != 0 || ((seen[0] | seen[1] | seen[2] | seen[3]) & 0x80808080u) != 0;
    }

    /* Writes the columns of `count` rows. The number of rows, or that of the first with text that is not UTF-8: then
       `field` says which. */
    static uint64_t nodedb_write_columns(
        nodedb_columns *to, const nodedb_row *rows, uint64_t count, const nodedb_window *window, int *field) {
        /* Places that have 16 bytes of the window around them: from 4 on, so many. */
        const uint64_t room = window->size >= 16 ? window->size - 15 : 0;
        for (uint64_t from = 0; from < count; from += NODEDB_BLOCK) {
            const nodedb_row *row = rows + from;
            const uint32_t n = count - from < NODEDB_BLOCK ? count - from : NODEDB_BLOCK;
            const nodedb_row *ahead = from + 2 * NODEDB_BLOCK <= count ? row + NODEDB_BLOCK : row;
            for (uint32_t i = 0; i < n; i++) {
                __builtin_prefetch(&ahead[i]);
                __builtin_prefetch(window->bytes + (uint32_t)(ahead[i].field[0].offset - window->base));
            }
            for (uint32_t i = 0; i < n; i++) to->sequence[from + i] = row[i].sequence;
            for (uint32_t i = 0; i < n; i++) to->lsn[from + i] = row[i].lsn;
            for (uint32_t i = 0; i < n; i++) to->tenant_id[from + i] = row[i].tenant_id;
            for (uint32_t i = 0; i < n; i++) to->vshard_id[from + i] = row[i].vshard_id;
            for (uint32_t i = 0; i < n; i++) to->count[from + i] = row[i].count;
            for (uint32_t i = 0; i < n; i++) to->op[from + i] = row[i].op - 1;
            for (uint32_t i = 0; i < n; i++) to->source[from + i] = row[i].source;
            nodedb_stamps(to, from, row, n, 0);
            nodedb_stamps(to, from, row, n, 1);
            for (int k = 0; k < 6; k++) {
                uint64_t longs;
                nodedb_view seen = k < 2 ? nodedb_views(to->view[k] + from, row, n, k, window, room, &longs)
                                         : nodedb_nullable(to, from, row, n, k, window, room, &longs);
                to->longs[k] += longs;
                if (k < 4 && nodedb_is_doubtful(seen, longs))
                    for (uint32_t i = 0; i < n; i++) {
                        nodedb_field one = row[i].field[k];
                        if (one.length != NODEDB_NULL_LENGTH
                            && nodedb_utf8_prefix(window->bytes + (uint32_t)(one.offset - window->base), one.length) != one.length) {
                            *field = k;
                            return from + i;
                        }
                    }
            }
        }
        return count;
    }
    #endif
    """
    ctypedef struct View "nodedb_view":
        pass

    ctypedef struct Columns "nodedb_columns":
        uint64_t* sequence
        uint64_t* lsn
        uint64_t* tenant_id
        uint32_t* vshard_id
        uint32_t* count
        int8_t* op
        int8_t* source
        int64_t* time[2]
        uint64_t* time_valid[2]
        uint64_t time_nulls[2]
        View* view[6]
        uint64_t* valid[6]
        uint64_t nulls[6]
        uint64_t longs[6]

    ctypedef struct Window "nodedb_window":
        const uint8_t* bytes
        uint64_t size
        uint32_t base, shift

    uint64_t write_columns "nodedb_write_columns"(
        Columns* to, const EventRow* rows, uint64_t count, const Window* window, int* field
    ) noexcept nogil
