// What a message of the replication stream is read from, and what its events are written to.
//
// The bytes come from a network. A reader never looks behind its end: it says PG_TRUNCATED, and the message is refused
// whole. What is written grows as it is needed.

#ifndef NODEDB_POSTGRES_BYTES_H
#define NODEDB_POSTGRES_BYTES_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../batch/nodedb_short_copy.h"
#include "../../core/nodedb_layout.h"

typedef enum PostgresResult {
    PG_OK,
    PG_TRUNCATED,        // ends before its last field
    PG_TRAILING,         // has bytes behind its last field
    PG_UNKNOWN_MESSAGE,  // begins with a letter that protocol version 1 does not have
    PG_UNKNOWN_RELATION, // is about a table that no message has described
    PG_BAD_RELATION,     // describes a table with more columns than PostgreSQL has, or is not UTF-8
    PG_BAD_TUPLE,        // has a row of another number of columns, or of a format that was not asked for
    PG_BAD_VALUE,        // has a value that its column's type does not have
    PG_BAD_ARRAY,        // has an array whose braces and quotes do not match
    PG_NOT_UTF8,         // has text that is not UTF-8
    PG_BAD_ORDER,        // has a change outside of a transaction, or a transaction inside of another
    PG_TOO_LARGE,        // makes an event of more than 4 GiB
    PG_NO_MEMORY,
} PostgresResult;

// ---- reading ----------------------------------------------------------------------------------------------------

typedef struct PostgresInput {
    const uint8_t *at, *end;
} PostgresInput;

static inline uint64_t postgres_left(const PostgresInput *input) { return (uint64_t)(input->end - input->at); }

static inline PostgresResult postgres_read_u8(PostgresInput *input, uint8_t *value) {
    if (postgres_left(input) < 1)
        return PG_TRUNCATED;
    *value = *input->at++;
    return PG_OK;
}

static inline PostgresResult postgres_read_u16(PostgresInput *input, uint16_t *value) {
    if (postgres_left(input) < 2)
        return PG_TRUNCATED;
    memcpy(value, input->at, 2);
    *value = __builtin_bswap16(*value);
    input->at += 2;
    return PG_OK;
}

static inline PostgresResult postgres_read_u32(PostgresInput *input, uint32_t *value) {
    if (postgres_left(input) < 4)
        return PG_TRUNCATED;
    memcpy(value, input->at, 4);
    *value = __builtin_bswap32(*value);
    input->at += 4;
    return PG_OK;
}

static inline PostgresResult postgres_read_u64(PostgresInput *input, uint64_t *value) {
    if (postgres_left(input) < 8)
        return PG_TRUNCATED;
    memcpy(value, input->at, 8);
    *value = __builtin_bswap64(*value);
    input->at += 8;
    return PG_OK;
}

static inline PostgresResult postgres_read_bytes(PostgresInput *input, uint64_t size, const uint8_t **bytes) {
    if (postgres_left(input) < size)
        return PG_TRUNCATED;
    *bytes = input->at;
    input->at += size;
    return PG_OK;
}

// Text that ends with a zero, which is not part of its size.
static inline PostgresResult postgres_read_name(PostgresInput *input, const uint8_t **name, uint32_t *size) {
    const uint8_t *zero = postgres_left(input) == 0 ? NULL : memchr(input->at, 0, postgres_left(input));
    if (zero == NULL || zero - input->at > (ptrdiff_t)INT32_MAX)
        return PG_TRUNCATED;
    *name = input->at;
    *size = (uint32_t)(zero - input->at);
    input->at = zero + 1;
    return PG_OK;
}

// ---- writing ----------------------------------------------------------------------------------------------------

typedef struct PostgresOutput {
    uint8_t *bytes;
    uint64_t used, room;
} PostgresOutput;

static __attribute__((noinline)) PostgresResult postgres_grow(PostgresOutput *output, uint64_t size) {
    // Offsets and lengths of a row have 32 bits.
    if (size >= NODEDB_NULL_LENGTH || output->used + size >= NODEDB_NULL_LENGTH)
        return PG_TOO_LARGE;
    const uint64_t room = 2 * (output->used + size) + 1024;
    uint8_t *grown = realloc(output->bytes, room);
    if (grown == NULL)
        return PG_NO_MEMORY;
    output->bytes = grown;
    output->room = room;
    return PG_OK;
}

// Room for `size` bytes more.
static inline PostgresResult postgres_need(PostgresOutput *output, uint64_t size) {
    return output->bytes != NULL && output->room - output->used >= size ? PG_OK : postgres_grow(output, size);
}

static inline PostgresResult postgres_put(PostgresOutput *output, const uint8_t *bytes, uint64_t size) {
    const PostgresResult result = postgres_need(output, size);
    if (result != PG_OK)
        return result;
    nodedb_copy_short(output->bytes + output->used, bytes, size);
    output->used += size;
    return PG_OK;
}

static inline PostgresResult postgres_put_byte(PostgresOutput *output, uint8_t byte) {
    const PostgresResult result = postgres_need(output, 1);
    if (result == PG_OK)
        output->bytes[output->used++] = byte;
    return result;
}

#endif
