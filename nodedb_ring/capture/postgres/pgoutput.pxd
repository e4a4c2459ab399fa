# cython: language_level=3
# What the decoder reads messages with, and writes events.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "nodedb_postgres_bytes.h" nogil:
    ctypedef enum PostgresResult:
        PG_OK
        PG_TRUNCATED
        PG_TRAILING
        PG_UNKNOWN_MESSAGE
        PG_UNKNOWN_RELATION
        PG_BAD_RELATION
        PG_BAD_TUPLE
        PG_BAD_VALUE
        PG_BAD_ARRAY
        PG_NOT_UTF8
        PG_BAD_ORDER
        PG_TOO_LARGE
        PG_NO_MEMORY
    ctypedef struct PostgresInput:
        const uint8_t* at
        const uint8_t* end
    ctypedef struct PostgresOutput:
        uint8_t* bytes
        uint64_t used, room
    uint64_t postgres_left(const PostgresInput* input) noexcept
    PostgresResult postgres_read_u8(PostgresInput* input, uint8_t* value) noexcept
    PostgresResult postgres_read_u32(PostgresInput* input, uint32_t* value) noexcept
    PostgresResult postgres_read_u64(PostgresInput* input, uint64_t* value) noexcept
    PostgresResult postgres_put(PostgresOutput* output, const uint8_t* bytes, uint64_t size) noexcept

cdef extern from "nodedb_postgres_numbers.h" nogil:
    bint postgres_make_locale() noexcept

cdef extern from "nodedb_postgres_types.h" nogil:
    enum:
        POSTGRES_TEXT
        POSTGRES_BOOL
        POSTGRES_INTEGER
        POSTGRES_FLOAT4
        POSTGRES_FLOAT8
        POSTGRES_NUMERIC
        POSTGRES_BYTEA
        POSTGRES_TIMESTAMPTZ
    ctypedef struct PostgresType:
        uint8_t kind
        uint8_t is_array
    PostgresType postgres_type(uint32_t oid) noexcept

cdef extern from "nodedb_postgres_relations.h" nogil:
    enum:
        POSTGRES_MOST_COLUMNS
    ctypedef struct PostgresColumn:
        uint32_t name_at, name_size
    ctypedef struct PostgresRelation:
        uint16_t count, key_count
        uint32_t collection_size
        uint8_t* collection
        uint8_t* names
        PostgresColumn* columns
    ctypedef struct PostgresRelations:
        pass
    void postgres_relations_clear(PostgresRelations* relations) noexcept
    PostgresRelation* postgres_relation_find(const PostgresRelations* relations, uint32_t oid) noexcept
    PostgresResult postgres_read_relation(PostgresRelations* relations, PostgresInput* input) noexcept

cdef extern from "nodedb_postgres_tuples.h" nogil:
    ctypedef struct PostgresField:
        pass
    PostgresResult postgres_read_tuple(
        PostgresInput* input, const PostgresRelation* relation, PostgresField* fields) noexcept
    PostgresResult postgres_put_row_id(
        PostgresOutput* output, const PostgresRelation* relation, const PostgresField* fields,
        const PostgresField* before, uint32_t* bad_column) noexcept
    PostgresResult postgres_put_map(
        PostgresOutput* output, const PostgresRelation* relation, const PostgresField* fields, bint of_key,
        uint32_t* bad_column) noexcept

cdef extern from "nodedb_postgres_copy.h" nogil:
    PostgresResult postgres_read_copied(
        const uint8_t* line, uint64_t size, uint8_t* plain, const PostgresRelation* relation, PostgresField* fields
    ) noexcept
