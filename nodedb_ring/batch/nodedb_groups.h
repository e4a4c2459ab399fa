// Numbers for strings, from 0 on in the order in which they come: a hash table that keeps none of their bytes.

#ifndef NODEDB_GROUPS_H
#define NODEDB_GROUPS_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const uint8_t *text;
    uint32_t size;
    uint32_t hash;
} nodedb_group;

// All of it zero is a table without groups.
typedef struct {
    nodedb_group *group;
    uint32_t *place; // of groups, one more than their number; 0: none
    uint32_t count, room;
    uint32_t mask; // of the places, of which there are more than groups
} nodedb_groups;

enum { NODEDB_GROUPS_FIRST = 64 };

static inline uint32_t nodedb_group_hash(const uint8_t *text, uint32_t size) {
    uint64_t hash = size, word = 0;
    for (; size >= 8; text += 8, size -= 8) {
        memcpy(&word, text, 8);
        hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 29;
    }
    word = 0;
    for (uint32_t i = 0; i < size; i++)
        word = word << 8 | text[i];
    hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
    return (uint32_t)(hash >> 32);
}

static inline int nodedb_is_group(const nodedb_group *group, const uint8_t *text, uint32_t size) {
    return group->size == size && memcmp(group->text, text, size) == 0;
}

// Twice as much room; 0, or -1 when there is no memory.
static inline int nodedb_grow_groups(nodedb_groups *groups) {
    if (groups->room > UINT32_MAX / 8)
        return -1;
    const uint32_t room = groups->room == 0 ? NODEDB_GROUPS_FIRST : 2 * groups->room, mask = 2 * room - 1;
    uint32_t *place = calloc((size_t)mask + 1, sizeof *place);
    nodedb_group *group = realloc(groups->group, room * sizeof *group);
    if (group != NULL)
        groups->group = group;
    if (place == NULL || group == NULL) {
        free(place);
        return -1;
    }
    for (uint32_t number = 0; number < groups->count; number++) {
        uint32_t at = group[number].hash & mask;
        while (place[at] != 0)
            at = (at + 1) & mask;
        place[at] = number + 1;
    }
    free(groups->place);
    groups->place = place;
    groups->mask = mask;
    groups->room = room;
    return 0;
}

// The number of a string, which stays where it is; -1 when there is no memory.
static inline int64_t nodedb_group_of(nodedb_groups *groups, const uint8_t *text, uint32_t size) {
    if (groups->count == groups->room && nodedb_grow_groups(groups) != 0)
        return -1;
    const uint32_t hash = nodedb_group_hash(text, size);
    uint32_t at = hash & groups->mask;
    for (; groups->place[at] != 0; at = (at + 1) & groups->mask) {
        const nodedb_group *group = &groups->group[groups->place[at] - 1];
        if (group->hash == hash && nodedb_is_group(group, text, size))
            return groups->place[at] - 1;
    }
    groups->group[groups->count] = (nodedb_group){.text = text, .size = size, .hash = hash};
    groups->place[at] = ++groups->count;
    return groups->count - 1;
}

static inline void nodedb_free_groups(nodedb_groups *groups) {
    free(groups->group);
    free(groups->place);
}

#endif
