// Values and arrays of PostgreSQL, from the text in which the server writes them, as MessagePack.

#ifndef NODEDB_POSTGRES_VALUES_H
#define NODEDB_POSTGRES_VALUES_H

#include <stdint.h>
#include <string.h>

#include "../../batch/nodedb_utf8.h"
#include "../../batch/rows/nodedb_msgpack_write.h"
#include "nodedb_postgres_bytes.h"
#include "nodedb_postgres_numbers.h"
#include "nodedb_postgres_types.h"

enum {
    // Bytes of the longest value that has no length of its own, a timestamp; the head of any other is shorter.
    POSTGRES_MOST_OF_SCALAR = 15,
    // PostgreSQL's own limit of an array's dimensions.
    POSTGRES_MOST_DIMENSIONS = 6,
};

static inline int postgres_hex_digit(uint8_t character) {
    const uint8_t letter = character | 0x20;
    if (postgres_is_digit(character))
        return character - '0';
    return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

// The bytes that bytea's `\x6869` says, at `to`.
static inline int postgres_parse_hex(const uint8_t *text, uint64_t size, uint8_t *to) {
    for (uint64_t i = 0; i < size; i += 2) {
        const int high = postgres_hex_digit(text[i]), low = postgres_hex_digit(text[i + 1]);
        if (high < 0 || low < 0)
            return 0;
        *to++ = (uint8_t)(high << 4 | low);
    }
    return 1;
}

static inline PostgresResult postgres_put_bytea(PostgresOutput *output, const uint8_t *text, uint64_t size) {
    if (size < 2 || size % 2 != 0 || text[0] != '\\' || text[1] != 'x')
        return PG_BAD_VALUE;
    const uint64_t count = size / 2 - 1;
    uint8_t *to = output->bytes + output->used, *end = output->bytes + output->room;
    to = msgpack_write_head(to, end, msgpack_binary, count);
    if (to == NULL)
        return PG_TOO_LARGE;
    if (!postgres_parse_hex(text + 2, size - 2, to))
        return PG_BAD_VALUE;
    output->used = (uint64_t)(to + count - output->bytes);
    return PG_OK;
}

// One value. It is never longer than its text and POSTGRES_MOST_OF_SCALAR.
static inline PostgresResult postgres_put_value(PostgresOutput *output, PostgresKind kind, const uint8_t *text,
                                                uint64_t size) {
    uint64_t bits;
    uint32_t narrow_bits, nanoseconds;
    int64_t seconds;
    int is_negative;
    double wide;
    float narrow;
    const PostgresResult result = postgres_need(output, size + POSTGRES_MOST_OF_SCALAR);
    if (result != PG_OK)
        return result;
    uint8_t *to = output->bytes + output->used, *end = output->bytes + output->room;
    switch (kind) {
    case POSTGRES_BOOL:
        if (size != 1 || (text[0] != 't' && text[0] != 'f'))
            return PG_BAD_VALUE;
        *to++ = MSGPACK_FALSE_BYTE + (text[0] == 't');
        break;
    case POSTGRES_INTEGER:
        if (!postgres_parse_integer(text, size, &bits, &is_negative))
            return PG_BAD_VALUE;
        to = msgpack_write_integer(to, end, bits, is_negative);
        break;
    case POSTGRES_FLOAT8:
        if (!postgres_parse_double(text, size, &wide))
            return PG_BAD_VALUE;
        memcpy(&bits, &wide, 8);
        to = msgpack_write_double(to, end, bits);
        break;
    case POSTGRES_FLOAT4:
        if (!postgres_parse_float(text, size, &narrow))
            return PG_BAD_VALUE;
        memcpy(&narrow_bits, &narrow, 4);
        to = msgpack_write_float(to, end, narrow_bits);
        break;
    case POSTGRES_TIMESTAMPTZ:
        if (!postgres_parse_timestamptz(text, size, &seconds, &nanoseconds))
            return PG_BAD_VALUE;
        to = msgpack_write_timestamp(to, end, seconds, nanoseconds);
        break;
    case POSTGRES_BYTEA:
        return postgres_put_bytea(output, text, size);
    case POSTGRES_NUMERIC:
    case POSTGRES_TEXT:
    default:
        if (nodedb_utf8_prefix(text, size) != size)
            return PG_NOT_UTF8;
        to = msgpack_write_head(to, end, msgpack_text, size);
        if (to == NULL)
            return PG_TOO_LARGE;
        nodedb_copy_short(to, text, size);
        to += size;
    }
    output->used = (uint64_t)(to - output->bytes);
    return PG_OK;
}

// ---- arrays -----------------------------------------------------------------------------------------------------

// One more than the delimiters of the level that `at` is in, up to its brace; 0 if it has none.
static inline uint64_t postgres_count_items(const uint8_t *at, const uint8_t *end, uint8_t delimiter) {
    uint64_t count = 1, depth = 0;
    int is_quoted = 0;
    for (; at < end; at++) {
        if (*at == '\\' && at + 1 < end)
            at++;
        else if (*at == '"')
            is_quoted = !is_quoted;
        else if (is_quoted)
            continue;
        else if (*at == '{')
            depth++;
        else if (*at == '}' && depth-- == 0)
            return count;
        else if (*at == delimiter && depth == 0)
            count++;
    }
    return 0;
}

// One element, and moves `at` behind it.
static inline PostgresResult postgres_put_element(PostgresOutput *output, PostgresType type, const uint8_t **at,
                                                  const uint8_t *end) {
    const uint8_t *from = *at;
    uint64_t size = 0;
    if (*from != '"') {
        while (from + size < end && from[size] != type.delimiter && from[size] != '}') {
            // The server quotes an element that has one of these.
            if (from[size] == '{' || from[size] == '"' || from[size] == '\\')
                return PG_BAD_ARRAY;
            size++;
        }
        *at = from + size;
        if (size == 0 || from + size == end)
            return PG_BAD_ARRAY;
        return postgres_is(from, size, "NULL") ? postgres_put_byte(output, MSGPACK_NIL_BYTE)
                                               : postgres_put_value(output, type.kind, from, size);
    }
    // Without its quotes and backslashes, behind the room that it takes as a value.
    const uint64_t most = (uint64_t)(end - from);
    const PostgresResult result = postgres_need(output, 2 * (most + POSTGRES_MOST_OF_SCALAR));
    if (result != PG_OK)
        return result;
    uint8_t *plain = output->bytes + output->used + most + POSTGRES_MOST_OF_SCALAR;
    for (from++; from < end && *from != '"'; from++) {
        if (*from == '\\')
            from++;
        if (from == end)
            return PG_BAD_ARRAY;
        plain[size++] = *from;
    }
    if (from == end)
        return PG_BAD_ARRAY;
    *at = from + 1;
    return postgres_put_value(output, type.kind, plain, size);
}

// An array of any number of dimensions, as arrays in arrays. Its bounds, where they do not begin with 1, are left out.
static inline PostgresResult postgres_put_array(PostgresOutput *output, PostgresType type, const uint8_t *text,
                                                uint64_t size) {
    uint64_t left[POSTGRES_MOST_DIMENSIONS]; // items still to come, of each level
    const uint8_t *at = text, *end = text + size;
    uint32_t depth = 0;
    PostgresResult result;
    if (size != 0 && *at == '[') {
        at = memchr(text, '=', size);
        if (at == NULL)
            return PG_BAD_ARRAY;
        at++;
    }
    if (end - at == 2 && at[0] == '{' && at[1] == '}')
        return postgres_put_byte(output, 0x90);
    for (;;) {
        if (at == end)
            return PG_BAD_ARRAY;
        if (*at == '{') {
            if (depth == POSTGRES_MOST_DIMENSIONS)
                return PG_BAD_ARRAY;
            const uint64_t count = postgres_count_items(++at, end, type.delimiter);
            if (count == 0)
                return PG_BAD_ARRAY;
            result = postgres_need(output, POSTGRES_MOST_OF_SCALAR);
            if (result != PG_OK)
                return result;
            uint8_t *to = output->bytes + output->used;
            to = msgpack_write_head(to, to + POSTGRES_MOST_OF_SCALAR, msgpack_array, count);
            output->used = (uint64_t)(to - output->bytes);
            left[depth++] = count;
            continue;
        }
        if (depth == 0)
            return PG_BAD_ARRAY;
        result = postgres_put_element(output, type, &at, end);
        if (result != PG_OK)
            return result;
        // Behind an element comes a delimiter, or the brace of each level that it ends.
        while (depth != 0 && --left[depth - 1] == 0) {
            if (at == end || *at != '}')
                return PG_BAD_ARRAY;
            at++;
            depth--;
        }
        if (depth == 0)
            break;
        if (at == end || *at != type.delimiter)
            return PG_BAD_ARRAY;
        at++;
    }
    return at == end ? PG_OK : PG_BAD_ARRAY;
}

static inline PostgresResult postgres_put_typed(PostgresOutput *output, PostgresType type, const uint8_t *text,
                                                uint64_t size) {
    return type.is_array ? postgres_put_array(output, type, text, size)
                         : postgres_put_value(output, type.kind, text, size);
}

// ---- row ids ----------------------------------------------------------------------------------------------------

static inline int postgres_looks_like_a_literal(const uint8_t *text, uint64_t size) {
    return size != 0 && (text[0] == '\'' || (size > 1 && text[0] == 'X' && text[1] == '\''));
}

static inline PostgresResult postgres_put_quoted(PostgresOutput *output, const uint8_t *text, uint64_t size) {
    const PostgresResult result = postgres_need(output, 2 * size + 2);
    if (result != PG_OK)
        return result;
    uint8_t *to = output->bytes + output->used;
    *to++ = '\'';
    for (uint64_t i = 0; i < size; i++) {
        if (text[i] == '\'')
            *to++ = '\'';
        *to++ = text[i];
    }
    *to++ = '\'';
    output->used = (uint64_t)(to - output->bytes);
    return PG_OK;
}

// A value of a key: itself if it is text and alone, and else as a literal of SQL. `text` is NULL for a null.
static inline PostgresResult postgres_put_key(PostgresOutput *output, PostgresType type, const uint8_t *text,
                                              uint64_t size, int is_alone) {
    static const uint8_t hex[] = "0123456789ABCDEF";
    const PostgresKind kind = type.is_array ? POSTGRES_TEXT : type.kind;
    PostgresResult result;
    if (text == NULL)
        return postgres_put(output, (const uint8_t *)"NULL", 4);
    if (nodedb_utf8_prefix(text, size) != size)
        return PG_NOT_UTF8;
    switch (kind) {
    case POSTGRES_BOOL:
        return size == 1 && *text == 't' ? postgres_put(output, (const uint8_t *)"TRUE", 4)
                                         : postgres_put(output, (const uint8_t *)"FALSE", 5);
    case POSTGRES_INTEGER:
    case POSTGRES_FLOAT4:
    case POSTGRES_FLOAT8:
    case POSTGRES_NUMERIC:
        // NaN and Infinity are literals in quotes alone.
        if (size != 0 && postgres_is_digit(text[size - 1]))
            return postgres_put(output, text, size);
        return postgres_put_quoted(output, text, size);
    case POSTGRES_BYTEA:
        if (size < 2 || size % 2 != 0 || text[0] != '\\' || text[1] != 'x')
            return PG_BAD_VALUE;
        result = postgres_need(output, size + 1);
        if (result != PG_OK)
            return result;
        uint8_t *to = output->bytes + output->used;
        *to++ = 'X';
        *to++ = '\'';
        for (uint64_t i = 2; i < size; i++) {
            const int digit = postgres_hex_digit(text[i]);
            if (digit < 0)
                return PG_BAD_VALUE;
            *to++ = hex[digit];
        }
        *to++ = '\'';
        output->used = (uint64_t)(to - output->bytes);
        return PG_OK;
    case POSTGRES_TIMESTAMPTZ:
    case POSTGRES_TEXT:
    default:
        if (is_alone && !postgres_looks_like_a_literal(text, size))
            return postgres_put(output, text, size);
        return postgres_put_quoted(output, text, size);
    }
}

#endif
