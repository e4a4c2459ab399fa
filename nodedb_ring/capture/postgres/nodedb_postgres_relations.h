// The tables that the stream has described, by their object identifiers.
//
// A description holds for the changes behind it: the server sends another when the table has changed. Names are kept
// in the form in which they are written for each row.

#ifndef NODEDB_POSTGRES_RELATIONS_H
#define NODEDB_POSTGRES_RELATIONS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../batch/nodedb_utf8.h"
#include "../../batch/rows/nodedb_msgpack_write.h"
#include "nodedb_postgres_bytes.h"
#include "nodedb_postgres_types.h"

// A row has at most 1,600 columns in PostgreSQL.
enum { POSTGRES_MOST_COLUMNS = 1664 };

typedef struct PostgresColumn {
    PostgresType type;
    uint8_t is_key;
    uint32_t name_at, name_size; // of the name as MessagePack, in the relation's names
} PostgresColumn;

typedef struct PostgresRelation {
    uint32_t oid;
    uint16_t count, key_count;
    uint32_t collection_size;
    uint8_t *collection; // schema.table
    uint8_t *names;
    PostgresColumn columns[];
} PostgresRelation;

typedef struct PostgresRelations {
    PostgresRelation **slots; // open addressing
    uint32_t mask, used;
} PostgresRelations;

static inline void postgres_relation_free(PostgresRelation *relation) {
    if (relation != NULL) {
        free(relation->collection);
        free(relation->names);
    }
    free(relation);
}

static inline void postgres_relations_clear(PostgresRelations *relations) {
    for (uint32_t i = 0; relations->slots != NULL && i <= relations->mask; i++)
        postgres_relation_free(relations->slots[i]);
    free((void *)relations->slots);
    memset(relations, 0, sizeof(*relations));
}

// Where a table stands, or would.
static inline PostgresRelation **postgres_relation_slot(const PostgresRelations *relations, uint32_t oid) {
    uint32_t i = (oid * 0x9E3779B1u) & relations->mask;
    while (relations->slots[i] != NULL && relations->slots[i]->oid != oid)
        i = (i + 1) & relations->mask;
    return &relations->slots[i];
}

static inline PostgresRelation *postgres_relation_find(const PostgresRelations *relations, uint32_t oid) {
    return relations->slots == NULL ? NULL : *postgres_relation_slot(relations, oid);
}

static inline PostgresResult postgres_relations_grow(PostgresRelations *relations) {
    PostgresRelations grown = {.mask = relations->slots == NULL ? 63 : 2 * relations->mask + 1,
                               .used = relations->used};
    grown.slots = (PostgresRelation **)calloc((size_t)grown.mask + 1, sizeof(*grown.slots));
    if (grown.slots == NULL)
        return PG_NO_MEMORY;
    for (uint32_t i = 0; relations->slots != NULL && i <= relations->mask; i++)
        if (relations->slots[i] != NULL)
            *postgres_relation_slot(&grown, relations->slots[i]->oid) = relations->slots[i];
    free((void *)relations->slots);
    *relations = grown;
    return PG_OK;
}

// Takes the relation, in place of an older description of the same table.
static inline PostgresResult postgres_relations_put(PostgresRelations *relations, PostgresRelation *relation) {
    if (relations->slots == NULL || 2 * relations->used > relations->mask) {
        const PostgresResult result = postgres_relations_grow(relations);
        if (result != PG_OK)
            return result;
    }
    PostgresRelation **slot = postgres_relation_slot(relations, relation->oid);
    relations->used += *slot == NULL;
    postgres_relation_free(*slot);
    *slot = relation;
    return PG_OK;
}

static inline PostgresResult postgres_read_columns(PostgresInput *input, PostgresRelation *relation,
                                                   PostgresOutput *names) {
    for (uint32_t i = 0; i < relation->count; i++) {
        PostgresColumn *column = &relation->columns[i];
        const uint8_t *name;
        uint32_t size, oid, modifier;
        PostgresResult result = postgres_read_u8(input, &column->is_key);
        if (result == PG_OK)
            result = postgres_read_name(input, &name, &size);
        if (result == PG_OK)
            result = postgres_read_u32(input, &oid);
        if (result == PG_OK)
            result = postgres_read_u32(input, &modifier);
        if (result == PG_OK)
            result = postgres_need(names, (uint64_t)size + 5 + NODEDB_SHORT);
        if (result != PG_OK)
            return result;
        if (nodedb_utf8_prefix(name, size) != size)
            return PG_BAD_RELATION;
        column->type = postgres_type(oid);
        column->is_key &= 1;
        relation->key_count += column->is_key;
        uint8_t *to = names->bytes + names->used;
        to = msgpack_write_head(to, to + 5, msgpack_text, size);
        if (to == NULL)
            return PG_TOO_LARGE;
        memcpy(to, name, size);
        column->name_at = (uint32_t)names->used;
        column->name_size = (uint32_t)(to + size - (names->bytes + names->used));
        names->used += column->name_size;
    }
    // What copies a short name reads NODEDB_SHORT bytes.
    return postgres_need(names, NODEDB_SHORT);
}

static inline PostgresResult postgres_read_collection(PostgresInput *input, PostgresOutput *collection) {
    const uint8_t *schema, *table;
    uint32_t schema_size, table_size;
    PostgresResult result = postgres_read_name(input, &schema, &schema_size);
    if (result == PG_OK)
        result = postgres_read_name(input, &table, &table_size);
    if (result != PG_OK)
        return result;
    if (nodedb_utf8_prefix(schema, schema_size) != schema_size || nodedb_utf8_prefix(table, table_size) != table_size)
        return PG_BAD_RELATION;
    // The server leaves the name of its own schema out.
    result = schema_size == 0 ? postgres_put(collection, (const uint8_t *)"pg_catalog", 10)
                              : postgres_put(collection, schema, schema_size);
    if (result == PG_OK)
        result = postgres_put_byte(collection, '.');
    return result == PG_OK ? postgres_put(collection, table, table_size) : result;
}

// The message that describes a table, behind its letter.
static inline PostgresResult postgres_read_relation(PostgresRelations *relations, PostgresInput *input) {
    PostgresOutput collection = {0}, names = {0};
    PostgresRelation *relation = NULL;
    uint32_t oid;
    uint16_t count;
    uint8_t identity;
    PostgresResult result = postgres_read_u32(input, &oid);
    if (result == PG_OK)
        result = postgres_read_collection(input, &collection);
    if (result == PG_OK)
        result = postgres_read_u8(input, &identity);
    if (result == PG_OK)
        result = postgres_read_u16(input, &count);
    if (result == PG_OK && count > POSTGRES_MOST_COLUMNS)
        result = PG_BAD_RELATION;
    if (result == PG_OK) {
        relation = calloc(1, sizeof(*relation) + count * sizeof(PostgresColumn));
        if (relation == NULL) {
            result = PG_NO_MEMORY;
        } else {
            relation->oid = oid;
            relation->count = count;
            result = postgres_read_columns(input, relation, &names);
        }
    }
    if (result == PG_OK && postgres_left(input) != 0)
        result = PG_TRAILING;
    if (result == PG_OK)
        result = postgres_relations_put(relations, relation);
    if (result != PG_OK) {
        free(collection.bytes);
        free(names.bytes);
        free(relation);
        return result;
    }
    relation->collection = collection.bytes;
    relation->collection_size = (uint32_t)collection.used;
    relation->names = names.bytes;
    return PG_OK;
}

#endif
