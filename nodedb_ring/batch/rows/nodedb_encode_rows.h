// Columns as rows of MessagePack, in two passes: how many bytes each row has, then those bytes.
//
// Both go through some rows at a time, column by column: a loop is of one type, and what it writes is still in the
// cache when the next column comes. A row without a value as a whole has no bytes, which no map has.

#ifndef NODEDB_ENCODE_ROWS_H
#define NODEDB_ENCODE_ROWS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "nodedb_encode_values.h"

enum { ENCODE_RUN = 256 };

// An event's value has at most so many bytes: a length of all ones is None.
#define ENCODE_MOST_OF_A_ROW ((uint64_t)UINT32_MAX - 1)

typedef struct {
    const encode_type *type;
    const struct ArrowArray *array;
    int64_t first;        // the element of row 0
    const uint8_t *given; // by row, whether the column's key stands there at all; NULL: everywhere
} encode_column;

// Rows whose columns lie in one array each.
typedef struct {
    int64_t rows;
    const struct ArrowArray *whole; // the struct of which null is no row; NULL: there are no such
    const uint8_t *present;         // whether there is a row; NULL: everywhere
    const encode_column *columns;
    uint32_t count;
} encode_piece;

typedef struct {
    encode_fault fault;
    uint32_t column; // UINT32_MAX: of none
    int64_t row;     // of the piece
} encode_trouble;

// ---- one column of a run ----------------------------------------------------------------------------------------

// A column as a loop reads it. What a loop writes may be anything for all that the compiler knows: it would read the
// pointers of an array again for each value, but not those of a copy that nobody else has seen.
typedef struct {
    encode_type type;
    struct ArrowArray array;
    const void *buffers[3];
    const uint8_t *valid, *given;
    int64_t first;
    encode_window window;
} encode_loop;

ENCODE_INLINE void encode_begin_loop(encode_loop *loop, encode_kind kind, char letter, const encode_column *column,
                                     int64_t start, int64_t count, int measures) {
    loop->type = *column->type;
    loop->array = *column->array;
    loop->valid = encode_validity(column->array);
    loop->given = column->given == NULL ? NULL : column->given + start;
    loop->first = column->first + start;
    if (kind >= ENCODE_BOOL && kind <= ENCODE_RAW && letter != 'v') {
        for (int k = 0; k < 3; k++)
            loop->buffers[k] = k < loop->array.n_buffers ? loop->array.buffers[k] : NULL;
        loop->array.buffers = loop->buffers;
    }
    loop->window = (encode_window){NULL, 0, 0, 0};
    if ((kind == ENCODE_TEXT || kind == ENCODE_BINARY || kind == ENCODE_RAW) && letter != 'v' && letter != 'w')
        loop->window = encode_window_of(&loop->array, letter, loop->first, count, measures && kind == ENCODE_TEXT);
}

ENCODE_INLINE encode_fault encode_measure_loop(encode_kind kind, char letter, const encode_column *column,
                                               int64_t start, int64_t count, uint64_t *size, int64_t *row) {
    encode_loop loop;
    encode_begin_loop(&loop, kind, letter, column, start, count, 1);
    for (int64_t k = 0; k < count; k++) {
        if (loop.given != NULL && !loop.given[k])
            continue;
        uint64_t bytes = loop.type.key_size;
        const encode_fault fault =
            encode_measure(kind, letter, &loop.type, &loop.array, loop.valid, &loop.window, loop.first + k, &bytes);
        if (fault != ENCODE_OK) {
            *row = start + k;
            return fault;
        }
        size[k] += bytes;
    }
    return ENCODE_OK;
}

ENCODE_INLINE encode_fault encode_write_loop(encode_kind kind, char letter, const encode_column *column, int64_t start,
                                             int64_t count, uint8_t **at, uint8_t *const *end, int64_t *row) {
    uint64_t key[ENCODE_KEY_ROOM / 8];
    encode_loop loop;
    encode_begin_loop(&loop, kind, letter, column, start, count, 0);
    memcpy(key, loop.type.key, sizeof key);
    for (int64_t k = 0; k < count; k++) {
        uint8_t *to = at[k], *const row_end = end[k];
        encode_fault fault = ENCODE_CHANGED;
        if (loop.given != NULL && !loop.given[k])
            continue;
        if (loop.type.key_size <= ENCODE_KEY_ROOM && msgpack_has_room(to, row_end, ENCODE_KEY_ROOM)) {
            // What is behind the key is written over by the value, and by what follows it in the row.
            memcpy(to, key, ENCODE_KEY_ROOM);
            to += loop.type.key_size;
        } else {
            to = msgpack_write_bytes(to, row_end, loop.type.key, loop.type.key_size);
        }
        if (to != NULL)
            fault = encode_write(kind, letter, &loop.type, &loop.array, loop.valid, &loop.window, loop.first + k, &to,
                                 row_end);
        if (fault != ENCODE_OK) {
            *row = start + k;
            return fault;
        }
        at[k] = to;
    }
    return ENCODE_OK;
}

// The same loop for each type that is common, and one for the others.
#define ENCODE_BY_TYPE(type, LOOP)                                                                                     \
    switch ((type)->kind << 8 | (type)->letter) {                                                                      \
        LOOP(ENCODE_INTEGER, 'c')                                                                                      \
        LOOP(ENCODE_INTEGER, 'C')                                                                                      \
        LOOP(ENCODE_INTEGER, 's')                                                                                      \
        LOOP(ENCODE_INTEGER, 'S')                                                                                      \
        LOOP(ENCODE_INTEGER, 'i')                                                                                      \
        LOOP(ENCODE_INTEGER, 'I')                                                                                      \
        LOOP(ENCODE_INTEGER, 'l')                                                                                      \
        LOOP(ENCODE_INTEGER, 'L')                                                                                      \
        LOOP(ENCODE_BOOL, 'b')                                                                                         \
        LOOP(ENCODE_FLOAT, 'f')                                                                                        \
        LOOP(ENCODE_DOUBLE, 'g')                                                                                       \
        LOOP(ENCODE_TIMESTAMP, 's')                                                                                    \
        LOOP(ENCODE_TIMESTAMP, 'm')                                                                                    \
        LOOP(ENCODE_TIMESTAMP, 'u')                                                                                    \
        LOOP(ENCODE_TIMESTAMP, 'n')                                                                                    \
        LOOP(ENCODE_TEXT, 'u')                                                                                         \
        LOOP(ENCODE_TEXT, 'U')                                                                                         \
        LOOP(ENCODE_TEXT, 'v')                                                                                         \
        LOOP(ENCODE_BINARY, 'z')                                                                                       \
        LOOP(ENCODE_BINARY, 'Z')                                                                                       \
        LOOP(ENCODE_BINARY, 'v')                                                                                       \
        LOOP(ENCODE_RAW, 'Z')                                                                                          \
    default:                                                                                                           \
        break;                                                                                                         \
    }

static encode_fault encode_measure_column(const encode_column *column, int64_t start, int64_t count, uint64_t *size,
                                          int64_t *row) {
    const encode_type *type = column->type;
#define ENCODE_LOOP(kind, letter)                                                                                      \
    case (kind) << 8 | (letter):                                                                                       \
        return encode_measure_loop(kind, letter, column, start, count, size, row);
    ENCODE_BY_TYPE(type, ENCODE_LOOP)
#undef ENCODE_LOOP
    return encode_measure_loop(type->kind, type->letter, column, start, count, size, row);
}

static encode_fault encode_write_column(const encode_column *column, int64_t start, int64_t count, uint8_t **at,
                                        uint8_t *const *end, int64_t *row) {
    const encode_type *type = column->type;
#define ENCODE_LOOP(kind, letter)                                                                                      \
    case (kind) << 8 | (letter):                                                                                       \
        return encode_write_loop(kind, letter, column, start, count, at, end, row);
    ENCODE_BY_TYPE(type, ENCODE_LOOP)
#undef ENCODE_LOOP
    return encode_write_loop(type->kind, type->letter, column, start, count, at, end, row);
}

#undef ENCODE_BY_TYPE

// ---- runs of rows -----------------------------------------------------------------------------------------------

static inline int encode_is_row(const encode_piece *piece, int64_t row) {
    if (piece->present != NULL && !piece->present[row])
        return 0;
    return piece->whole == NULL || nodedb_is_valid(piece->whole, piece->whole->offset + row);
}

static inline int64_t encode_most_from(const encode_piece *piece, int64_t start) {
    return piece->rows - start < ENCODE_RUN ? piece->rows - start : ENCODE_RUN;
}

// How many rows from `start` on, at most ENCODE_RUN, are all there, or are all not.
static inline int64_t encode_run_from(const encode_piece *piece, int64_t start) {
    const int64_t most = encode_most_from(piece, start);
    const int is_row = encode_is_row(piece, start);
    int64_t count = 1;
    if (piece->present == NULL && (piece->whole == NULL || encode_validity(piece->whole) == NULL))
        return most;
    while (count < most && encode_is_row(piece, start + count) == is_row)
        count++;
    return count;
}

// The same of rows that were measured: one that is there has a byte at least.
static inline int64_t encode_measured_run(const encode_piece *piece, int64_t start, int64_t from, const int64_t *ends) {
    const int64_t most = encode_most_from(piece, start);
    const int is_row = ends[start] != from;
    int64_t count = 1;
    while (count < most && (ends[start + count] != ends[start + count - 1]) == is_row)
        count++;
    return count;
}

// How many keys a row has.
static inline uint32_t encode_keys(const encode_piece *piece, int64_t row) {
    uint32_t keys = piece->count;
    for (uint32_t k = 0; k < piece->count; k++)
        keys -= piece->columns[k].given != NULL && !piece->columns[k].given[row];
    return keys;
}

static inline int encode_leaves_keys_out(const encode_piece *piece) {
    for (uint32_t k = 0; k < piece->count; k++)
        if (piece->columns[k].given != NULL)
            return 1;
    return 0;
}

// The bytes of each row, counted on: ends[k] is where row k ends, if the first begins at `from`.
static encode_trouble encode_measure_piece(const encode_piece *piece, int64_t from, int64_t *ends) {
    const int is_sparse = encode_leaves_keys_out(piece);
    const uint64_t head = msgpack_head_size(msgpack_map, piece->count);
    encode_trouble trouble = {ENCODE_OK, UINT32_MAX, 0};
    uint64_t size[ENCODE_RUN];
    int64_t count;
    for (int64_t start = 0; start < piece->rows; start += count) {
        count = encode_run_from(piece, start);
        if (!encode_is_row(piece, start)) {
            for (int64_t k = 0; k < count; k++)
                ends[start + k] = from;
            continue;
        }
        for (int64_t k = 0; k < count; k++)
            size[k] = is_sparse ? msgpack_head_size(msgpack_map, encode_keys(piece, start + k)) : head;
        for (uint32_t c = 0; c < piece->count; c++) {
            trouble.fault = encode_measure_column(piece->columns + c, start, count, size, &trouble.row);
            if (trouble.fault != ENCODE_OK) {
                trouble.column = c;
                return trouble;
            }
        }
        for (int64_t k = 0; k < count; k++) {
            if (size[k] > ENCODE_MOST_OF_A_ROW) {
                trouble.fault = ENCODE_ROW_TOO_LONG;
                trouble.row = start + k;
                return trouble;
            }
            from += (int64_t)size[k];
            ends[start + k] = from;
        }
    }
    return trouble;
}

// Writes the rows to `data`, the first from `from` on and each up to its end.
static encode_trouble encode_write_piece(const encode_piece *piece, uint8_t *data, int64_t from, const int64_t *ends) {
    const int is_sparse = encode_leaves_keys_out(piece);
    encode_trouble trouble = {ENCODE_OK, UINT32_MAX, 0};
    uint8_t *at[ENCODE_RUN], *end[ENCODE_RUN];
    int64_t count;
    for (int64_t start = 0; start < piece->rows; start += count) {
        count = encode_measured_run(piece, start, from, ends);
        if (ends[start] == from)
            continue;
        for (int64_t k = 0; k < count; k++) {
            const uint32_t keys = is_sparse ? encode_keys(piece, start + k) : piece->count;
            end[k] = data + ends[start + k];
            at[k] = msgpack_write_head(data + from, end[k], msgpack_map, keys);
            from = ends[start + k];
            if (at[k] == NULL) {
                trouble.fault = ENCODE_CHANGED;
                trouble.row = start + k;
                return trouble;
            }
        }
        for (uint32_t c = 0; c < piece->count; c++) {
            trouble.fault = encode_write_column(piece->columns + c, start, count, at, end, &trouble.row);
            if (trouble.fault != ENCODE_OK) {
                trouble.column = c;
                return trouble;
            }
        }
        for (int64_t k = 0; k < count; k++) {
            if (at[k] != end[k]) {
                trouble.fault = ENCODE_CHANGED;
                trouble.row = start + k;
                return trouble;
            }
        }
    }
    return trouble;
}

#endif
