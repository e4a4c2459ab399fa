// Rows turned into the columns of Arrow: one pass, in blocks whose rows stay in the first cache while they are read
// column by column.
//
// What is written: fixed columns as they are; a time as i64 and a bit of validity; a variable-length field as a 16-byte
// view and a bit of validity:
//
//     up to 12 bytes   | length | the bytes, zeros after them                |
//     more             | length | first 4 bytes | number of buffer | offset  |
//
// A column in which everything is None is not written at all: `nulls` says so, and the caller has zeros for it. One
// that is not asked for has no target, and is not read: neither in the rows nor in the payload.

#ifndef NODEDB_EXPORT_COLUMNS_H
#define NODEDB_EXPORT_COLUMNS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../../core/nodedb_schema.h"
#include "../nodedb_utf8.h"
#include "../nodedb_view.h"

#define nodedb_always inline __attribute__((always_inline))
#define NODEDB_BLOCK 128 // rows; a multiple of 64, so that bitmaps are whole words

// Where the columns go; NULL where one is not asked for.
// NOLINTNEXTLINE(bugprone-macro-parentheses): it declares a member.
#define NODEDB_EACH(name, kind, presence) NODEDB_IF_NUMBER_##kind(__typeof__(((nodedb_row *)0)->name) *name;)
typedef struct {
    NODEDB_SCHEMA(NODEDB_EACH)
    int8_t *op, *source; // numbered from 0
    int64_t *time[2];    // system, valid
    uint64_t *time_valid[2], time_nulls[2];
    nodedb_view *view[NODEDB_FIELD_COUNT]; // as nodedb_row.field
    uint64_t *valid[NODEDB_FIELD_COUNT];   // none for the first two, which are never None
    uint64_t nulls[NODEDB_FIELD_COUNT];
    uint64_t longs[NODEDB_FIELD_COUNT]; // how many values do not fit their view
    uint8_t kind[NODEDB_FIELD_COUNT];   // of the last block
} nodedb_columns;
#undef NODEDB_EACH

// A column of a kind that the assertions name would be left out, or take another's place.
_Static_assert(NODEDB_COLUMN_valid_time_ms == NODEDB_COLUMN_system_time_ms + 1,
               "arrow/nodedb_export_columns.h: nodedb_columns.time has the two times by their numbers");
#define NODEDB_EACH(name, kind, presence) NODEDB_IF_NUMBER_##kind(-1) NODEDB_IF_FIXED_##kind(+1)
_Static_assert(
    0 NODEDB_SCHEMA(NODEDB_EACH) == 4,
    "arrow/nodedb_export_columns.h: a column that is a time or a member needs a target in nodedb_columns, and "
    "code that writes it in nodedb_write_columns_by");
#undef NODEDB_EACH

// Has the numbers go to their buffers, which `data` has by number of the column.
static inline void nodedb_set_number_targets(nodedb_columns *to, uint8_t *const *data) {
#define NODEDB_EACH(column, kind, presence) NODEDB_IF_NUMBER_##kind(to->column = (void *)data[NODEDB_COLUMN_##column];)
    NODEDB_SCHEMA(NODEDB_EACH)
#undef NODEDB_EACH
}

enum { NODEDB_ALL_NONE, NODEDB_ALL_INLINE, NODEDB_ALL_LONG, NODEDB_MIXED };

typedef struct {
    const uint8_t *bytes; // what views are over: the payload from `base` on
    uint64_t size;
    uint32_t base;
    uint32_t shift; // buffer k of the views begins at byte k << shift
} nodedb_window;

// A view whose 16 bytes do not lie in the window.
static __attribute__((noinline, cold)) nodedb_view nodedb_view_at_edge(const nodedb_window *window, uint32_t length,
                                                                       uint32_t at) {
    uint8_t bytes[16] = {0};
    nodedb_view view;
    // A None may be among what was taken for values; where it would be says nothing.
    if (length == NODEDB_NULL_LENGTH)
        return (nodedb_view){0, 0, 0, 0};
    memcpy(bytes, &length, 4);
    memcpy(bytes + 4, window->bytes + at, length <= NODEDB_VIEW_BYTES ? length : 4);
    memcpy(&view, bytes, 16);
    return view;
}

// The length and the bytes of a value of at most 12; of a longer one, nothing that holds. Reads 16 bytes where the
// window has them, from 4 before the value on, and masks the rest, which in a lease the producer may be writing.
static nodedb_always nodedb_view nodedb_inline_view(const nodedb_window *window, uint64_t room, nodedb_field field) {
    const uint32_t at = field.offset - window->base, length = field.length;
    if (__builtin_expect((uint64_t)at - 4 >= room, 0))
        return nodedb_view_at_edge(window, length <= NODEDB_VIEW_BYTES ? length : 0, at);
    nodedb_view view = *(const nodedb_view *)(window->bytes + at - 4) & nodedb_view_keep[length & 15];
    return view | (nodedb_view){length, 0, 0, 0};
}

// The same of a value of any size: of a longer one its length and its first 4 bytes.
static nodedb_always nodedb_view nodedb_begin_view(const nodedb_window *window, uint64_t room, nodedb_field field) {
    const uint32_t at = field.offset - window->base, length = field.length;
    if (__builtin_expect((uint64_t)at - 4 >= room, 0))
        return nodedb_view_at_edge(window, length, at);
    nodedb_view view = *(const nodedb_view *)(window->bytes + at - 4) & nodedb_view_keep[length < 13 ? length : 13];
    return view | (nodedb_view){length, 0, 0, 0};
}

// Where a value lies that its view does not hold.
static nodedb_always nodedb_view nodedb_refer(nodedb_view view, const nodedb_window *window, nodedb_field field) {
    const uint32_t at = field.offset - window->base;
    return view | (nodedb_view){0, 0, at >> window->shift, at & (((uint32_t)1 << window->shift) - 1)};
}

// The first `from` rows of a nullable field were all None, and nothing was written: makes up for it.
static void nodedb_begin_field(nodedb_columns *to, uint64_t from, int k) {
    if (k < 2 || to->nulls[k] != from)
        return;
    memset(to->view[k], 0, from * sizeof(nodedb_view));
    memset(to->valid[k], 0, from / 8);
}

// Whatever the field holds, without a branch on it: short and long names in turns would be mispredicted, at 10 ns each.
// Says what kind of block it was: the next is likely to be the same.
static __attribute__((noinline)) nodedb_view nodedb_mixed_block(nodedb_columns *to, uint64_t from,
                                                                const nodedb_row *row, uint32_t count, int k,
                                                                const nodedb_window *window, uint64_t room) {
    uint64_t word[NODEDB_BLOCK / 64] = {0};
    uint32_t nulls = 0, longs = 0;
    nodedb_view seen = {0, 0, 0, 0};
    nodedb_begin_field(to, from, k);
    for (uint32_t i = 0; i < count; i++) {
        const nodedb_field field = row[i].field[k];
        const uint32_t none = -(uint32_t)(field.length == NODEDB_NULL_LENGTH);
        const nodedb_field value = {field.offset, field.length & ~none};
        const uint32_t is_long = -(uint32_t)(value.length > NODEDB_VIEW_BYTES);
        const nodedb_view refers = {0, 0, is_long, is_long};
        const nodedb_view view = nodedb_begin_view(window, room, value);
        seen |= view;
        to->view[k][from + i] = view | (nodedb_refer((nodedb_view){0, 0, 0, 0}, window, value) & refers);
        word[i / 64] |= (uint64_t)(none + 1) << i % 64;
        nulls -= none;
        longs -= is_long;
    }
    if (k >= 2)
        memcpy((uint8_t *)to->valid[k] + from / 8, word, (size_t)((count + 63) / 64) * 8);
    to->nulls[k] += nulls;
    to->longs[k] += longs;
    to->kind[k] = nulls == count   ? NODEDB_ALL_NONE
                  : nulls != 0     ? NODEDB_MIXED
                  : longs == 0     ? NODEDB_ALL_INLINE
                  : longs == count ? NODEDB_ALL_LONG
                                   : NODEDB_MIXED;
    return seen;
}

// One block of one variable-length field, first as if it were of the kind of the block before. Returns the bits of
// all values, for the check whether they are ASCII.
static nodedb_always nodedb_view nodedb_field_block(nodedb_columns *to, uint64_t from, const nodedb_row *row,
                                                    uint32_t count, int k, const nodedb_window *window, uint64_t room) {
    const nodedb_window here = *window; // a copy that no store can change
    nodedb_view seen = {0, 0, 0, 0};
    if (to->kind[k] == NODEDB_ALL_NONE && to->nulls[k] == from) {
        uint32_t all = NODEDB_NULL_LENGTH;
        _Pragma("GCC unroll 8") for (uint32_t i = 0; i < count; i++) all &= row[i].field[k].length;
        if (all == NODEDB_NULL_LENGTH) {
            to->nulls[k] += count;
            return seen;
        }
    } else if (to->kind[k] == NODEDB_ALL_INLINE || to->kind[k] == NODEDB_ALL_LONG) {
        nodedb_view *view = to->view[k] + from;
        uint64_t stray = 0;
        nodedb_begin_field(to, from, k);
        if (to->kind[k] == NODEDB_ALL_INLINE) {
            _Pragma("GCC unroll 8") for (uint32_t i = 0; i < count; i++) {
                const nodedb_field one = row[i].field[k];
                const nodedb_view begun = nodedb_inline_view(&here, room, one);
                stray |= NODEDB_VIEW_BYTES - (uint64_t)one.length;
                seen |= begun;
                view[i] = begun;
            }
        } else {
            _Pragma("GCC unroll 8") for (uint32_t i = 0; i < count; i++) {
                const nodedb_field one = row[i].field[k];
                const nodedb_view begun = nodedb_begin_view(&here, room, one);
                stray |= (uint64_t)(one.length - (NODEDB_VIEW_BYTES + 1)) << 32;
                seen |= begun;
                view[i] = nodedb_refer(begun, &here, one);
            }
        }
        if (stray >> 63 == 0) {
            if (k >= 2)
                memset((uint8_t *)to->valid[k] + from / 8, 0xFF, (size_t)((count + 63) / 64) * 8);
            if (to->kind[k] == NODEDB_ALL_LONG)
                to->longs[k] += count;
            return seen;
        }
    }
    return nodedb_mixed_block(to, from, row, count, k, window, room);
}

static nodedb_always void nodedb_time_block(nodedb_columns *to, uint64_t from, const nodedb_row *row, uint32_t count,
                                            int k) {
    const uint8_t *time =
        (const uint8_t *)row + (k == 0 ? offsetof(nodedb_row, system_time_ms) : offsetof(nodedb_row, valid_time_ms));
    uint64_t word[NODEDB_BLOCK / 64] = {0};
    if (to->time_nulls[k] == from) {
        uint64_t other = 0;
        _Pragma("GCC unroll 8") for (uint32_t i = 0; i < count; i++) other |=
            (uint64_t)*(const int64_t *)(time + i * sizeof(nodedb_row)) ^ (uint64_t)NODEDB_NO_TIME;
        if (other == 0) {
            to->time_nulls[k] += count;
            return;
        }
        memset(to->time[k], 0, from * 8);
        memset(to->time_valid[k], 0, from / 8);
    }
    uint32_t nulls = 0;
    _Pragma("GCC unroll 8") for (uint32_t i = 0; i < count; i++) {
        const int64_t one = *(const int64_t *)(time + i * sizeof(nodedb_row));
        nulls += one == NODEDB_NO_TIME;
        to->time[k][from + i] = one;
    }
    if (nulls == 0) {
        memset(word, 0xFF, sizeof word);
    } else {
        _Pragma("GCC unroll 8") for (uint32_t i = 0; i < count; i++) word[i / 64] |=
            (uint64_t)(*(const int64_t *)(time + i * sizeof(nodedb_row)) != NODEDB_NO_TIME) << i % 64;
    }
    to->time_nulls[k] += nulls;
    memcpy((uint8_t *)to->time_valid[k] + from / 8, word, (size_t)((count + 63) / 64) * 8);
}

// The fixed columns that are asked for.
static nodedb_always void nodedb_fixed_block(nodedb_columns *to, uint64_t from, const nodedb_row *row, uint32_t n) {
#define NODEDB_COPY(column, value)                                                                                     \
    if (to->column != NULL) {                                                                                          \
        __typeof__(to->column) restrict out = to->column + from;                                                       \
        _Pragma("GCC unroll 8") for (uint32_t i = 0; i < n; i++) out[i] = row[i].value;                                \
    }
#define NODEDB_EACH(name, kind, presence) NODEDB_IF_NUMBER_##kind(NODEDB_COPY(name, name))
    NODEDB_SCHEMA(NODEDB_EACH)
#undef NODEDB_EACH
    NODEDB_COPY(op, op - NODEDB_FIRST_OP)
    NODEDB_COPY(source, source)
#undef NODEDB_COPY
}

// All of them, of a whole block; and whether both times are None in all of it.
static int nodedb_whole_block(nodedb_columns *to, uint64_t from, const nodedb_row *row) {
    uint64_t other = 0;
    nodedb_fixed_block(to, from, row, NODEDB_BLOCK);
    for (int i = 0; i < NODEDB_BLOCK; i++)
        other |= ((uint64_t)row[i].system_time_ms ^ (uint64_t)NODEDB_NO_TIME) |
                 ((uint64_t)row[i].valid_time_ms ^ (uint64_t)NODEDB_NO_TIME);
    return other == 0;
}

#if defined(__x86_64__)
// Four rows at a time: two neighbouring words of each become four of one column and four of the other.
__attribute__((target("avx2"))) static nodedb_always void nodedb_two_columns(const nodedb_row *row, size_t at,
                                                                             __m256i *first, __m256i *second) {
#define NODEDB_TWO(i) _mm_loadu_si128((const __m128i *)((const uint8_t *)(row + (i)) + (at)))
    const __m256i even = _mm256_inserti128_si256(_mm256_castsi128_si256(NODEDB_TWO(0)), NODEDB_TWO(2), 1);
    const __m256i odd = _mm256_inserti128_si256(_mm256_castsi128_si256(NODEDB_TWO(1)), NODEDB_TWO(3), 1);
#undef NODEDB_TWO
    *first = _mm256_unpacklo_epi64(even, odd);
    *second = _mm256_unpackhi_epi64(even, odd);
}

// The code below depends on which columns are adjacent in a row.
#define NODEDB_EACH(name, kind, presence) NODEDB_IF_NUMBER_##kind(+1)
_Static_assert(
    0 NODEDB_SCHEMA(NODEDB_EACH) == 5,
    "arrow/nodedb_export_columns.h: nodedb_fixed_block_avx2 writes five numbers: have it write the new one, too, "
    "as by a loop over out[i] = row[i].name, and then change this number");
#undef NODEDB_EACH
_Static_assert(offsetof(nodedb_row, lsn) == offsetof(nodedb_row, sequence) + 8 &&
                   offsetof(nodedb_row, system_time_ms) == offsetof(nodedb_row, tenant_id) + 8 &&
                   offsetof(nodedb_row, vshard_id) == offsetof(nodedb_row, valid_time_ms) + 8 &&
                   offsetof(nodedb_row, count) == offsetof(nodedb_row, vshard_id) + 4 &&
                   offsetof(nodedb_row, source) == offsetof(nodedb_row, op) + 1,
               "arrow/nodedb_export_columns.h: nodedb_fixed_block_avx2 reads columns by pairs that are neighbours");
__attribute__((target("avx2"))) static int nodedb_fixed_block_avx2(nodedb_columns *to, uint64_t from,
                                                                   const nodedb_row *row) {
    const __m256i no_time = _mm256_set1_epi64x(NODEDB_NO_TIME);
    const __m256i halves = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    __m256i *sequence = (__m256i *)(to->sequence + from), *lsn = (__m256i *)(to->lsn + from);
    __m256i *tenant_id = (__m256i *)(to->tenant_id + from);
    __m128i *vshard_id = (__m128i *)(to->vshard_id + from), *rows = (__m128i *)(to->count + from);
    __m128i *op = (__m128i *)(to->op + from), *source = (__m128i *)(to->source + from);
    __m256i other = _mm256_setzero_si256();
    for (int i = 0; i < NODEDB_BLOCK; i += 16, row += 16) {
        _Pragma("GCC unroll 4") for (size_t k = 0; k < 4; k++) {
            __m256i one, two;
            nodedb_two_columns(row + 4 * k, offsetof(nodedb_row, sequence), &one, &two);
            _mm256_storeu_si256(sequence++, one);
            _mm256_storeu_si256(lsn++, two);
            nodedb_two_columns(row + 4 * k, offsetof(nodedb_row, tenant_id), &one, &two);
            _mm256_storeu_si256(tenant_id++, one);
            other = _mm256_or_si256(other, _mm256_xor_si256(two, no_time));
            nodedb_two_columns(row + 4 * k, offsetof(nodedb_row, valid_time_ms), &one, &two);
            other = _mm256_or_si256(other, _mm256_xor_si256(one, no_time));
            two = _mm256_permutevar8x32_epi32(two, halves);
            _mm_storeu_si128(vshard_id++, _mm256_castsi256_si128(two));
            _mm_storeu_si128(rows++, _mm256_extracti128_si256(two, 1));
        }
// op and source are adjacent, too.
#define NODEDB_BYTES(i) (*(const int16_t *)&row[i].op)
        const __m128i low = _mm_setr_epi16(NODEDB_BYTES(0), NODEDB_BYTES(1), NODEDB_BYTES(2), NODEDB_BYTES(3),
                                           NODEDB_BYTES(4), NODEDB_BYTES(5), NODEDB_BYTES(6), NODEDB_BYTES(7));
        const __m128i high = _mm_setr_epi16(NODEDB_BYTES(8), NODEDB_BYTES(9), NODEDB_BYTES(10), NODEDB_BYTES(11),
                                            NODEDB_BYTES(12), NODEDB_BYTES(13), NODEDB_BYTES(14), NODEDB_BYTES(15));
#undef NODEDB_BYTES
        const __m128i byte = _mm_set1_epi16(0xFF);
        const __m128i ops = _mm_packus_epi16(_mm_and_si128(low, byte), _mm_and_si128(high, byte));
        _mm_storeu_si128(op++, _mm_sub_epi8(ops, _mm_set1_epi8(NODEDB_FIRST_OP)));
        _mm_storeu_si128(source++, _mm_packus_epi16(_mm_srli_epi16(low, 8), _mm_srli_epi16(high, 8)));
    }
    return _mm256_testz_si256(other, other);
}
#endif

// Writes the columns of `count` rows. The number of rows, or that of the first with text that is not UTF-8: then
// `field` says which.
static nodedb_always uint64_t nodedb_write_columns_by(int (*whole_block)(nodedb_columns *, uint64_t,
                                                                         const nodedb_row *),
                                                      nodedb_columns *to, const nodedb_row *rows, uint64_t count,
                                                      const nodedb_window *window, int *field) {
    // Places that have 16 bytes of the window around them: from 4 on, so many.
    const uint64_t room = window->size >= 16 ? window->size - 15 : 0;
#define NODEDB_EACH(name, kind, presence) NODEDB_IF_NUMBER_##kind(&&to->name != NULL)
    const int every_fixed = to->op != NULL && to->source != NULL NODEDB_SCHEMA(NODEDB_EACH);
#undef NODEDB_EACH
    for (uint64_t from = 0; from < count; from += NODEDB_BLOCK) {
        const nodedb_row *row = rows + from;
        const uint32_t n = count - from < NODEDB_BLOCK ? count - from : NODEDB_BLOCK;
        int no_stamps = 0;
        if (every_fixed && n == NODEDB_BLOCK)
            no_stamps = whole_block(to, from, row);
        else
            nodedb_fixed_block(to, from, row, n);
        if (no_stamps && to->time_nulls[0] == from && to->time_nulls[1] == from) {
            to->time_nulls[0] += n;
            to->time_nulls[1] += n;
        } else {
            if (to->time[0] != NULL)
                nodedb_time_block(to, from, row, n, 0);
            if (to->time[1] != NULL)
                nodedb_time_block(to, from, row, n, 1);
        }
        for (int k = 0; k < NODEDB_FIELD_COUNT; k++) {
            if (to->view[k] == NULL)
                continue;
            const uint64_t longs = to->longs[k];
            // A count that the compiler knows makes other loops.
            const nodedb_view seen = n == NODEDB_BLOCK
                                         ? nodedb_field_block(to, from, row, NODEDB_BLOCK, k, window, room)
                                         : nodedb_field_block(to, from, row, n, k, window, room);
            const uint32_t not_ascii = (seen[1] | seen[2] | seen[3]) & 0x80808080u;
            if (k >= NODEDB_STRING_COUNT || (longs == to->longs[k] && not_ascii == 0))
                continue;
            // Text that is long, or not ASCII.
            for (uint32_t i = 0; i < n; i++) {
                const nodedb_field one = row[i].field[k];
                const uint8_t *text = window->bytes + (uint32_t)(one.offset - window->base);
                if (one.length == NODEDB_NULL_LENGTH || (one.length <= NODEDB_VIEW_BYTES && not_ascii == 0))
                    continue;
                if (nodedb_utf8_prefix(text, one.length) != one.length) {
                    *field = k;
                    return from + i;
                }
            }
        }
    }
    return count;
}
static uint64_t nodedb_write_columns_portable(nodedb_columns *to, const nodedb_row *rows, uint64_t count,
                                              const nodedb_window *window, int *field) {
    return nodedb_write_columns_by(nodedb_whole_block, to, rows, count, window, field);
}
#if defined(__x86_64__)
__attribute__((target("avx2"))) static uint64_t nodedb_write_columns_avx2(nodedb_columns *to, const nodedb_row *rows,
                                                                          uint64_t count, const nodedb_window *window,
                                                                          int *field) {
    return nodedb_write_columns_by(nodedb_fixed_block_avx2, to, rows, count, window, field);
}
#endif
static uint64_t nodedb_write_columns(nodedb_columns *to, const nodedb_row *rows, uint64_t count,
                                     const nodedb_window *window, int *field, int portable) {
#if defined(__x86_64__)
    if (!portable && __builtin_cpu_supports("avx2"))
        return nodedb_write_columns_avx2(to, rows, count, window, field);
#endif
    return nodedb_write_columns_portable(to, rows, count, window, field);
}

#endif
