# The schema of a write event, for code that goes by a column's number. nodedb_schema.h is the one place where it stands.

from libc.stdint cimport uint8_t

cdef extern from "nodedb_schema.h" nogil:
    enum:
        SEQUENCE "NODEDB_COLUMN_sequence"
        COLLECTION "NODEDB_COLUMN_collection"
        OP "NODEDB_COLUMN_op"
        ROW_ID "NODEDB_COLUMN_row_id"
        LSN "NODEDB_COLUMN_lsn"
        TENANT_ID "NODEDB_COLUMN_tenant_id"
        VSHARD_ID "NODEDB_COLUMN_vshard_id"
        SOURCE "NODEDB_COLUMN_source"
        COUNT "NODEDB_COLUMN_count"
        NEW_VALUE "NODEDB_COLUMN_new_value"
        OLD_VALUE "NODEDB_COLUMN_old_value"
        SYSTEM_TIME "NODEDB_COLUMN_system_time_ms"
        VALID_TIME "NODEDB_COLUMN_valid_time_ms"
        USER_ID "NODEDB_COLUMN_user_id"
        STATEMENT_DIGEST "NODEDB_COLUMN_statement_digest"
        COLUMN_COUNT "NODEDB_COLUMN_COUNT"
        STRING_COUNT "NODEDB_STRING_COUNT"  # the first so many fields are UTF-8
        FIELD_COUNT "NODEDB_FIELD_COUNT"
        FIELD_COLLECTION "NODEDB_FIELD_collection"
        FIELD_ROW_ID "NODEDB_FIELD_row_id"
        FIELD_USER_ID "NODEDB_FIELD_user_id"
        FIELD_STATEMENT_DIGEST "NODEDB_FIELD_statement_digest"
        FIELD_NEW_VALUE "NODEDB_FIELD_new_value"
        FIELD_OLD_VALUE "NODEDB_FIELD_old_value"
        FIRST_OP "NODEDB_FIRST_OP"
        LAST_OP "NODEDB_LAST_OP"
        LAST_SOURCE "NODEDB_LAST_SOURCE"

    ctypedef enum Kind "nodedb_kind":
        NUMBER "NODEDB_NUMBER"
        TIME "NODEDB_TIME"
        MEMBER "NODEDB_MEMBER"
        TEXT "NODEDB_TEXT"
        BYTES "NODEDB_BYTES"

    ctypedef enum Presence "nodedb_presence":
        REQUIRED "NODEDB_REQUIRED"
        DEFAULT "NODEDB_DEFAULT"
        NULLABLE "NODEDB_NULLABLE"

    ctypedef struct Column "nodedb_column":
        const char* name
        const char* kind_name
        const char* presence_name
        Kind kind
        Presence presence
        uint8_t offset, size, field

    const Column SCHEMA "nodedb_schema"[1]
