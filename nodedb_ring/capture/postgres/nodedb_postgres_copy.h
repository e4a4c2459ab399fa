// A row as COPY writes it in its text format: fields between tabs, with backslashes before what would end one.

#ifndef NODEDB_POSTGRES_COPY_H
#define NODEDB_POSTGRES_COPY_H

#include <stdint.h>

#include "nodedb_postgres_tuples.h"

// COPY writes these escapes, and a backslash before a backslash; no other.
static inline uint8_t postgres_copy_escape(uint8_t letter) {
    switch (letter) {
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    case 'v':
        return '\v';
    default:
        return letter;
    }
}

// The line without its newline. `plain` has room for as many bytes, and the fields are read from there.
static inline PostgresResult postgres_read_copied(const uint8_t *line, uint64_t size, uint8_t *plain,
                                                  const PostgresRelation *relation, PostgresField *fields) {
    uint64_t at = 0;
    for (uint32_t i = 0; i < relation->count; i++) {
        PostgresField *field = &fields[i];
        uint8_t *start = plain;
        field->status = POSTGRES_AS_TEXT;
        if (size - at >= 2 && line[at] == '\\' && line[at + 1] == 'N' && (size - at == 2 || line[at + 2] == '\t')) {
            field->status = POSTGRES_NULL;
            at += 2;
        }
        for (; at < size && line[at] != '\t'; at++) {
            if (line[at] != '\\') {
                *plain++ = line[at];
                continue;
            }
            if (++at == size)
                return PG_TRUNCATED;
            *plain++ = postgres_copy_escape(line[at]);
        }
        field->text = field->status == POSTGRES_NULL ? NULL : start;
        field->size = (uint32_t)(plain - start);
        // Behind the last field the line ends, and behind any other comes a tab.
        if ((at == size) != (i + 1 == relation->count))
            return PG_BAD_TUPLE;
        at++;
    }
    return relation->count == 0 && size != 0 ? PG_TRAILING : PG_OK;
}

#endif
