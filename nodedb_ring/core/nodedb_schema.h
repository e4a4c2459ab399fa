// The schema of a write event: its columns in one list, and the row that they lie in. This is the one place.
//
// Derived from the list, by the preprocessor or from the table `nodedb_schema`:
//
//   the numbers of columns and fields           the enums below
//   FIXED_FIELDS, EVENT_DTYPE and their like    batch/_schema.pyx reads the table, batch/schema.py makes them of it
//   WriteEvent's __match_args__ and keywords    batch/_event.pyx
//   columns out of Arrow, their types           batch/arrow/_import.pyx
//   columns for Arrow, their formats            batch/arrow/_schema.pyx, batch/arrow/nodedb_export_columns.h
//
// What cannot be derived is compared with it: the row by the assertions at the end of this file, the rest by
// tests/unit/batch/test_schema.py. CONTRIBUTING.md has the steps of adding a column.

#ifndef NODEDB_SCHEMA_H
#define NODEDB_SCHEMA_H

#include <stddef.h>
#include <stdint.h>

// COLUMN(name, kind, presence), in the order of WriteEvent's arguments.
//
//   NUMBER    an unsigned integer, as wide as the row's member of that name
//   TIME      milliseconds since the epoch in 64 bits, NODEDB_NO_TIME where there is none
//   MEMBER    the number of a WriteOp or of an EventSource in 8 bits
//   TEXT      UTF-8 in the payload
//   BYTES     bytes in the payload, behind the text
//
//   REQUIRED  must be passed, and is never None
//   DEFAULT   is a number where it is not passed, and never None
//   NULLABLE  is None where it is not passed
//
// The columns of an event, in order: name, kind, presence. In the payload, text precedes bytes, each in this order.
#define NODEDB_SCHEMA(COLUMN)                                                                                          \
    COLUMN(sequence, NUMBER, REQUIRED)                                                                                 \
    COLUMN(collection, TEXT, REQUIRED)                                                                                 \
    COLUMN(op, MEMBER, REQUIRED)                                                                                       \
    COLUMN(row_id, TEXT, REQUIRED)                                                                                     \
    COLUMN(lsn, NUMBER, REQUIRED)                                                                                      \
    COLUMN(tenant_id, NUMBER, DEFAULT)                                                                                 \
    COLUMN(vshard_id, NUMBER, DEFAULT)                                                                                 \
    COLUMN(source, MEMBER, DEFAULT)                                                                                    \
    COLUMN(count, NUMBER, DEFAULT)                                                                                     \
    COLUMN(new_value, BYTES, NULLABLE)                                                                                 \
    COLUMN(old_value, BYTES, NULLABLE)                                                                                 \
    COLUMN(system_time_ms, TIME, NULLABLE)                                                                             \
    COLUMN(valid_time_ms, TIME, NULLABLE)                                                                              \
    COLUMN(user_id, TEXT, NULLABLE)                                                                                    \
    COLUMN(statement_digest, TEXT, NULLABLE)

// The range of operations and sources; compared with WriteOp and EventSource when batch/schema.py is imported.
#define NODEDB_FIRST_OP 1
#define NODEDB_LAST_OP 6
#define NODEDB_HEARTBEAT 6
#define NODEDB_LAST_SOURCE 4

#define NODEDB_NULL_LENGTH UINT32_MAX // of a field that is None
#define NODEDB_NO_TIME INT64_MIN      // a time that is None: NumPy's NaT

// NODEDB_IF_TEXT_##kind(...) expands to its arguments for columns of kind TEXT, to nothing for others; so do the rest.
#define NODEDB_IF_NUMBER_NUMBER(...) __VA_ARGS__
#define NODEDB_IF_NUMBER_TIME(...)
#define NODEDB_IF_NUMBER_MEMBER(...)
#define NODEDB_IF_NUMBER_TEXT(...)
#define NODEDB_IF_NUMBER_BYTES(...)
#define NODEDB_IF_FIXED_NUMBER(...) __VA_ARGS__
#define NODEDB_IF_FIXED_TIME(...) __VA_ARGS__
#define NODEDB_IF_FIXED_MEMBER(...) __VA_ARGS__
#define NODEDB_IF_FIXED_TEXT(...)
#define NODEDB_IF_FIXED_BYTES(...)
#define NODEDB_IF_TEXT_NUMBER(...)
#define NODEDB_IF_TEXT_TIME(...)
#define NODEDB_IF_TEXT_MEMBER(...)
#define NODEDB_IF_TEXT_TEXT(...) __VA_ARGS__
#define NODEDB_IF_TEXT_BYTES(...)
#define NODEDB_IF_BYTES_NUMBER(...)
#define NODEDB_IF_BYTES_TIME(...)
#define NODEDB_IF_BYTES_MEMBER(...)
#define NODEDB_IF_BYTES_TEXT(...)
#define NODEDB_IF_BYTES_BYTES(...) __VA_ARGS__

// NODEDB_COLUMN_sequence and so on: the columns by number, in the order of the list.
#define NODEDB_EACH(name, kind, presence) NODEDB_COLUMN_##name,
enum { NODEDB_SCHEMA(NODEDB_EACH) NODEDB_COLUMN_COUNT };
#undef NODEDB_EACH

// NODEDB_FIELD_collection and so on: the variable-length columns by number, in the order of the payload.
#define NODEDB_EACH(name, kind, presence) NODEDB_IF_TEXT_##kind(NODEDB_FIELD_##name, )
#define NODEDB_EACH_BYTES(name, kind, presence) NODEDB_IF_BYTES_##kind(NODEDB_FIELD_##name, )
enum { NODEDB_SCHEMA(NODEDB_EACH) NODEDB_STRING_COUNT };
enum { NODEDB_LAST_STRING = NODEDB_STRING_COUNT - 1, NODEDB_SCHEMA(NODEDB_EACH_BYTES) NODEDB_FIELD_COUNT };
#undef NODEDB_EACH
#undef NODEDB_EACH_BYTES

typedef struct {
    uint32_t offset, length;
} nodedb_field;

// One event. What is named as in the list is a column of EVENT_DTYPE; `span_*`, `position` and `arena_start` are the
// ring's own. What is reserved is 0 in every row that is made, and never read: what another version wrote there may be
// anything.
typedef struct {
    uint64_t sequence, lsn, tenant_id;
    int64_t system_time_ms, valid_time_ms;
    uint32_t vshard_id, count;
    uint8_t op, source;
    uint16_t reserved;
    uint32_t span_offset, span_length; // the bytes of the arena that the event's fields lie in
    uint32_t reserved_too;
    nodedb_field field[NODEDB_FIELD_COUNT]; // by NODEDB_FIELD_collection and so on
    uint64_t position;                      // of its publication: the order of events after a crash
    uint64_t arena_start;                   // arena position of the span's first byte
} nodedb_row;

// The list as a table, for code that goes by a column's number.
typedef enum { NODEDB_NUMBER, NODEDB_TIME, NODEDB_MEMBER, NODEDB_TEXT, NODEDB_BYTES } nodedb_kind;
typedef enum { NODEDB_REQUIRED, NODEDB_DEFAULT, NODEDB_NULLABLE } nodedb_presence;
typedef struct {
    const char *name, *kind_name, *presence_name;
    nodedb_kind kind;
    nodedb_presence presence;
    uint8_t offset, size; // of the column in a row; of text and bytes, where they lie in the payload
    uint8_t field;        // number of the field, of text and bytes
} nodedb_column;

#define NODEDB_FIXED_PLACE(name) .offset = offsetof(nodedb_row, name), .size = sizeof(((nodedb_row *)0)->name)
#define NODEDB_FIELD_PLACE(name)                                                                                       \
    .offset = offsetof(nodedb_row, field) + NODEDB_FIELD_##name * sizeof(nodedb_field), .size = sizeof(nodedb_field),  \
    .field = NODEDB_FIELD_##name
#define NODEDB_EACH(column, of_kind, how)                                                                              \
    {.name = #column,                                                                                                  \
     .kind_name = #of_kind,                                                                                            \
     .presence_name = #how,                                                                                            \
     .kind = NODEDB_##of_kind,                                                                                         \
     .presence = NODEDB_##how,                                                                                         \
     NODEDB_IF_FIXED_##of_kind(NODEDB_FIXED_PLACE(column)) NODEDB_IF_TEXT_##of_kind(NODEDB_FIELD_PLACE(column))        \
         NODEDB_IF_BYTES_##of_kind(NODEDB_FIELD_PLACE(column))},
static const nodedb_column nodedb_schema[NODEDB_COLUMN_COUNT] __attribute__((unused)) = {NODEDB_SCHEMA(NODEDB_EACH)};
#undef NODEDB_EACH

// ---- what the list and the row must agree on ----

#define NODEDB_EACH(name, kind, presence) NODEDB_IF_FIXED_##kind(+sizeof(((nodedb_row *)0)->name))
_Static_assert(NODEDB_SCHEMA(NODEDB_EACH) + sizeof(((nodedb_row *)0)->reserved) +
                       sizeof(((nodedb_row *)0)->reserved_too) + 2 * sizeof(uint32_t) ==
                   offsetof(nodedb_row, field),
               "core/nodedb_schema.h: the fixed columns of NODEDB_SCHEMA, what is reserved and the span make up the "
               "first line of nodedb_row: add a column to both, and take its bytes from what is reserved");
#undef NODEDB_EACH
#define NODEDB_EACH(name, kind, presence) NODEDB_IF_NUMBER_##kind(&&(__typeof__(((nodedb_row *)0)->name))-1 > 0)
_Static_assert(1 NODEDB_SCHEMA(NODEDB_EACH), "core/nodedb_schema.h: a NUMBER is unsigned");
#undef NODEDB_EACH
_Static_assert(sizeof(nodedb_row) == 128, "core/nodedb_schema.h: a row is two cache lines");
_Static_assert(offsetof(nodedb_row, field) == 64, "core/nodedb_schema.h: the fields begin the second line");
_Static_assert(NODEDB_FIELD_collection == 0 && NODEDB_FIELD_row_id == 1,
               "core/nodedb_schema.h: collection and row_id, which are never None, are the first two fields");

#endif
