// A row of the stream, and what an event has of it: its key as a row id, and its columns as a map.

#ifndef NODEDB_POSTGRES_TUPLES_H
#define NODEDB_POSTGRES_TUPLES_H

#include <stdint.h>
#include <string.h>

#include "nodedb_postgres_bytes.h"
#include "nodedb_postgres_relations.h"
#include "nodedb_postgres_values.h"

// The letters of the protocol.
enum { POSTGRES_NULL = 'n', POSTGRES_UNCHANGED = 'u', POSTGRES_AS_TEXT = 't' };

typedef struct PostgresField {
    const uint8_t *text;
    uint32_t size;
    uint8_t status;
} PostgresField;

// As many fields as the relation has columns.
static inline PostgresResult postgres_read_tuple(PostgresInput *input, const PostgresRelation *relation,
                                                 PostgresField *fields) {
    uint16_t count;
    PostgresResult result = postgres_read_u16(input, &count);
    if (result != PG_OK)
        return result;
    if (count != relation->count)
        return PG_BAD_TUPLE;
    for (uint32_t i = 0; i < count; i++) {
        PostgresField *field = &fields[i];
        field->text = NULL;
        field->size = 0;
        result = postgres_read_u8(input, &field->status);
        if (result == PG_OK && field->status == POSTGRES_AS_TEXT) {
            result = postgres_read_u32(input, &field->size);
            if (result == PG_OK)
                result = postgres_read_bytes(input, field->size, &field->text);
        } else if (result == PG_OK && field->status != POSTGRES_NULL && field->status != POSTGRES_UNCHANGED) {
            return PG_BAD_TUPLE;
        }
        if (result != PG_OK)
            return result;
    }
    return PG_OK;
}

// The row id. A large value of the key that an UPDATE leaves as it is stands in `before`, the old row, alone.
static inline PostgresResult postgres_put_row_id(PostgresOutput *output, const PostgresRelation *relation,
                                                 const PostgresField *fields, const PostgresField *before,
                                                 uint32_t *bad_column) {
    const int is_alone = relation->key_count == 1;
    int is_first = 1;
    for (uint32_t i = 0; i < relation->count; i++) {
        if (!relation->columns[i].is_key)
            continue;
        const PostgresField *field = &fields[i];
        if (field->status == POSTGRES_UNCHANGED && before != NULL)
            field = &before[i];
        *bad_column = i;
        if (field->status == POSTGRES_UNCHANGED)
            return PG_BAD_TUPLE;
        PostgresResult result = is_first ? PG_OK : postgres_put_byte(output, ',');
        if (result == PG_OK)
            result = postgres_put_key(output, relation->columns[i].type, field->text, field->size, is_alone);
        if (result != PG_OK)
            return result;
        is_first = 0;
    }
    return PG_OK;
}

// The map of the columns; without those that are unchanged, and with `of_key`, those of the key alone.
static inline PostgresResult postgres_put_map(PostgresOutput *output, const PostgresRelation *relation,
                                              const PostgresField *fields, int of_key, uint32_t *bad_column) {
    const PostgresColumn *columns = relation->columns;
    uint32_t given = 0;
    for (uint32_t i = 0; i < relation->count; i++)
        given += fields[i].status != POSTGRES_UNCHANGED && (!of_key || columns[i].is_key);
    PostgresResult result = postgres_need(output, POSTGRES_MOST_OF_SCALAR);
    if (result != PG_OK)
        return result;
    uint8_t *to = output->bytes + output->used;
    to = msgpack_write_head(to, to + POSTGRES_MOST_OF_SCALAR, msgpack_map, given);
    output->used = (uint64_t)(to - output->bytes);
    for (uint32_t i = 0; i < relation->count; i++) {
        if (fields[i].status == POSTGRES_UNCHANGED || (of_key && !columns[i].is_key))
            continue;
        *bad_column = i;
        result = postgres_need(output, columns[i].name_size + NODEDB_SHORT);
        if (result != PG_OK)
            return result;
        nodedb_copy_padded(output->bytes + output->used, relation->names + columns[i].name_at, columns[i].name_size);
        output->used += columns[i].name_size;
        result = fields[i].status == POSTGRES_NULL
                     ? postgres_put_byte(output, MSGPACK_NIL_BYTE)
                     : postgres_put_typed(output, columns[i].type, fields[i].text, fields[i].size);
        if (result != PG_OK)
            return result;
    }
    return PG_OK;
}

#endif
