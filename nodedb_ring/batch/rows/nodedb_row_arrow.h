// Rows as Arrow has them: what an importer gets, how it gives that back, and the columns that have to be made for it.
//
// Values lie where they were decoded, so an importer holds that memory. Made for it are bitmaps of bools and of what is
// valid, and for importers without views the text of plain columns, one value behind the other.

#ifndef NODEDB_ROW_ARROW_H
#define NODEDB_ROW_ARROW_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../arrow/nodedb_arrow_abi.h"
#include "../arrow/nodedb_arrow_sheet.h"
#include "../nodedb_utf8.h"
#include "nodedb_row_values.h"

// ---- arrays ----

// What an importer has of one array of rows. Bitmaps and pointers lie behind it, in the same memory, text in another.
typedef struct {
    nodedb_hold hold;            // of what the values lie in
    void (*drop)(nodedb_hold *); // what lets go of it, with this memory
    void *text;                  // or NULL
    uint64_t users;              // the struct array and its own columns that are not released yet
    const void *no_validity[1];
    struct ArrowArray *column; // [columns], some of which may be somebody else's
    struct ArrowArray **columns;
} nodedb_row_sheet;

static inline void nodedb_leave_row_sheet(nodedb_row_sheet *sheet) {
    if (__atomic_sub_fetch(&sheet->users, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    free(sheet->text);
    sheet->drop(&sheet->hold);
}

static inline void nodedb_release_row_column(struct ArrowArray *array) {
    array->release = NULL;
    nodedb_leave_row_sheet(array->private_data);
}

static inline void nodedb_release_rows(struct ArrowArray *array) {
    nodedb_row_sheet *sheet = array->private_data;
    for (int64_t i = 0; i < array->n_children; i++)
        if (array->children[i]->release != NULL)
            array->children[i]->release(array->children[i]);
    array->release = NULL;
    nodedb_leave_row_sheet(sheet);
}

// ---- what is made ----

// A bit for each byte that is NODEDB_ROW_VALID (of states), or 1 (of bools): `wanted` has it in each of its bytes.
static inline void nodedb_row_pack_bits(const uint8_t *bytes, uint64_t count, uint64_t wanted, uint8_t *bits) {
    const uint64_t ones = 0x0101010101010101u;
    for (uint64_t i = 0; i < count; i += 8) {
        uint64_t eight = ~wanted;
        memcpy(&eight, bytes + i, count - i < 8 ? count - i : 8);
        // Both of them have no more than two bits a byte.
        const uint64_t other = eight ^ wanted;
        const uint64_t is_wanted = ~(other | other >> 1) & ones;
        bits[i / 8] = (uint8_t)((is_wanted * 0x0102040810204080u) >> 56);
    }
}

static inline const uint8_t *nodedb_row_bytes(const nodedb_row_view *view, const nodedb_row_payload *payload) {
    if (view->size <= NODEDB_VIEW_BYTES)
        return view->is.bytes;
    return payload->bytes + ((uint64_t)view->is.at.buffer << payload->shift) + view->is.at.offset;
}

// How many of the values have at most `most` bytes together; *size is of these.
static inline uint64_t nodedb_row_fitting(const nodedb_row_view *views, uint64_t count, uint64_t most, uint64_t *size) {
    uint64_t all = 0;
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t next = all + (uint64_t)views[i].size;
        if (next > most) {
            *size = all;
            return i;
        }
        all = next;
    }
    *size = all;
    return count;
}

// Writes values one behind the other, and `count` + 1 offsets of 32 or 64 bits. The number of values, or that of the
// first text that is not UTF-8: in a ring that processes share it may have changed since it was read.
static inline uint64_t nodedb_row_copy_text(const nodedb_row_view *views, uint64_t count,
                                            const nodedb_row_payload *payload, int is_text, int is_large, void *ends,
                                            uint8_t *text) {
    uint64_t at = 0;
    for (uint64_t i = 0;; i++) {
        if (is_large)
            ((int64_t *)ends)[i] = (int64_t)at;
        else
            ((int32_t *)ends)[i] = (int32_t)at;
        if (i == count)
            return count;
        const size_t size = (size_t)views[i].size;
        memcpy(text + at, nodedb_row_bytes(views + i, payload), size);
        if (is_text && nodedb_utf8_prefix(text + at, size) != size)
            return i;
        at += size;
    }
}

// ---- schemas ----

static inline void nodedb_release_own_schema(struct ArrowSchema *schema) {
    for (int64_t i = 0; i < schema->n_children; i++) {
        if (schema->children[i] != NULL && schema->children[i]->release != NULL)
            schema->children[i]->release(schema->children[i]);
        free(schema->children[i]);
    }
    free((void *)schema->children);
    if (schema->dictionary != NULL && schema->dictionary->release != NULL)
        schema->dictionary->release(schema->dictionary);
    free(schema->dictionary);
    free((char *)schema->format);
    free((char *)schema->name);
    schema->release = NULL;
}

// A schema that owns all that it has, with room for children. 0 where there is no memory; it is to be released then,
// too.
static inline int nodedb_make_schema(struct ArrowSchema *schema, const char *format, const char *name, int64_t flags,
                                     int64_t children) {
    memset(schema, 0, sizeof *schema);
    schema->release = nodedb_release_own_schema;
    schema->flags = flags;
    schema->format = strdup(format);
    schema->name = strdup(name == NULL ? "" : name);
    if (schema->format == NULL || schema->name == NULL)
        return 0;
    if (children == 0)
        return 1;
    schema->children = (struct ArrowSchema **)calloc((size_t)children, sizeof(struct ArrowSchema *));
    if (schema->children == NULL)
        return 0;
    schema->n_children = children;
    for (int64_t i = 0; i < children; i++) {
        schema->children[i] = calloc(1, sizeof(struct ArrowSchema));
        if (schema->children[i] == NULL)
            return 0;
    }
    return 1;
}

// Of a schema of ours, or of one of our events: what nests there are columns, and their dictionaries. As above.
static inline int nodedb_copy_leaf(const struct ArrowSchema *from, struct ArrowSchema *to) {
    if (!nodedb_make_schema(to, from->format, from->name, from->flags, 0))
        return 0;
    if (from->dictionary == NULL)
        return 1;
    to->dictionary = calloc(1, sizeof(struct ArrowSchema));
    return to->dictionary != NULL && nodedb_make_schema(to->dictionary, from->dictionary->format,
                                                        from->dictionary->name, from->dictionary->flags, 0);
}

static inline int nodedb_copy_schema(const struct ArrowSchema *from, struct ArrowSchema *to) {
    if (!nodedb_make_schema(to, from->format, from->name, from->flags, from->n_children))
        return 0;
    for (int64_t i = 0; i < from->n_children; i++)
        if (!nodedb_copy_leaf(from->children[i], to->children[i]))
            return 0;
    return 1;
}

// ---- a stream of arrays that are made already ----

typedef struct {
    struct ArrowSchema schema;
    int64_t count, next;
    struct ArrowArray array[];
} nodedb_row_stream;

static inline int nodedb_row_stream_schema(struct ArrowArrayStream *stream, struct ArrowSchema *out) {
    const nodedb_row_stream *rows = stream->private_data;
    if (nodedb_copy_schema(&rows->schema, out))
        return 0;
    out->release(out);
    return ENOMEM;
}

static inline int nodedb_row_stream_next(struct ArrowArrayStream *stream, struct ArrowArray *out) {
    nodedb_row_stream *rows = stream->private_data;
    memset(out, 0, sizeof *out);
    if (rows->next == rows->count)
        return 0;
    *out = rows->array[rows->next];
    rows->array[rows->next].release = NULL;
    rows->next += 1;
    return 0;
}

// Nothing that it does can go wrong in a way that a number does not tell.
static inline const char *nodedb_row_stream_error(struct ArrowArrayStream *stream) {
    (void)stream;
    return NULL;
}

static inline void nodedb_free_row_stream(nodedb_row_stream *rows) {
    for (int64_t i = 0; i < rows->count; i++)
        if (rows->array[i].release != NULL)
            rows->array[i].release(&rows->array[i]);
    if (rows->schema.release != NULL)
        rows->schema.release(&rows->schema);
    free(rows);
}

static inline void nodedb_release_row_stream(struct ArrowArrayStream *stream) {
    nodedb_free_row_stream(stream->private_data);
    stream->release = NULL;
}

static inline void nodedb_fill_row_stream(struct ArrowArrayStream *stream, nodedb_row_stream *rows) {
    stream->get_schema = nodedb_row_stream_schema;
    stream->get_next = nodedb_row_stream_next;
    stream->get_last_error = nodedb_row_stream_error;
    stream->release = nodedb_release_row_stream;
    stream->private_data = rows;
}

#endif
