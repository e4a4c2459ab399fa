// A schema that was exported: one allocation, freed with the last of the schema and its columns, which an importer may
// move out of it.

#ifndef NODEDB_ARROW_SCHEMA_H
#define NODEDB_ARROW_SCHEMA_H

#include <stdint.h>
#include <stdlib.h>

#include "../../core/nodedb_schema.h"
#include "nodedb_arrow_abi.h"

typedef struct {
    uint64_t users;
    struct ArrowSchema column[NODEDB_COLUMN_COUNT], *columns[NODEDB_COLUMN_COUNT], dictionary[2];
} nodedb_arrow_schema;

static inline void nodedb_release_nothing(struct ArrowSchema *schema) { schema->release = NULL; }

static inline void nodedb_release_schema(struct ArrowSchema *schema) {
    nodedb_arrow_schema *all = schema->private_data;
    if (schema->dictionary != NULL && schema->dictionary->release != NULL)
        schema->dictionary->release(schema->dictionary);
    for (int64_t i = 0; i < schema->n_children; i++)
        if (schema->children[i]->release != NULL)
            schema->children[i]->release(schema->children[i]);
    schema->release = NULL;
    if (__atomic_sub_fetch(&all->users, 1, __ATOMIC_ACQ_REL) == 0)
        free(all);
}

#endif
