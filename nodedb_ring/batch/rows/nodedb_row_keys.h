// The keys of row values: which number a name has, found by its hash or by where it stood in the row before.
//
// Rows of one table have their keys in one order. So the key that stood at the same place of an earlier row is compared
// first, its head included, as two words; only where that fails is a key read and looked up.

#ifndef NODEDB_ROW_KEYS_H
#define NODEDB_ROW_KEYS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "nodedb_msgpack.h"

#define NODEDB_NO_COLUMN UINT32_MAX
#define NODEDB_KEY_WORDS 2
#define NODEDB_PREDICTED 128 // keys of a row, from its first on

typedef struct {
    const uint8_t *bytes;
    uint64_t hash;
    uint32_t size;
} nodedb_row_name;

// The numbers of names. The table has the number of a name at the place of its hash, or at the next free one behind it;
// it has more places than there are names.
typedef struct {
    nodedb_row_name *name;
    uint32_t *table; // NODEDB_NO_COLUMN: free
    uint32_t mask;   // places, less 1: a power of two
    uint32_t count;
    uint64_t secret; // that who writes the rows does not know, and cannot choose names of one hash by
} nodedb_row_names;

// A key as it stood at one place of an earlier row.
typedef struct {
    uint64_t word[NODEDB_KEY_WORDS], mask[NODEDB_KEY_WORDS];
    const uint8_t *bytes; // with its head
    uint32_t size, column;
} nodedb_row_key;

// What one pass over rows knows of their keys.
typedef struct {
    const nodedb_row_names *names;
    const uint8_t *limit; // nothing is read from here on; it may lie behind the row's end
    uint32_t known;       // places with a key
    nodedb_row_key key[NODEDB_PREDICTED];
} nodedb_row_keys;

static inline uint64_t nodedb_row_mix(uint64_t a, uint64_t b) {
    const unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t nodedb_row_hash(const uint8_t *bytes, uint32_t size, uint64_t secret) {
    uint64_t hash = secret ^ size, eight;
    uint32_t i = 0;
    for (; i + 8 <= size; i += 8) {
        memcpy(&eight, bytes + i, 8);
        hash = nodedb_row_mix(hash ^ eight, secret | 1);
    }
    eight = 0;
    memcpy(&eight, bytes + i, size - i);
    return nodedb_row_mix(hash ^ eight, secret | 1);
}

static inline uint32_t nodedb_row_find(const nodedb_row_names *names, const uint8_t *bytes, uint32_t size) {
    const uint64_t hash = nodedb_row_hash(bytes, size, names->secret);
    for (uint32_t place = (uint32_t)hash & names->mask;; place = (place + 1) & names->mask) {
        const uint32_t number = names->table[place];
        if (number == NODEDB_NO_COLUMN)
            return NODEDB_NO_COLUMN;
        const nodedb_row_name *name = names->name + number;
        if (name->hash == hash && name->size == size && memcmp(name->bytes, bytes, size) == 0)
            return number;
    }
}

// Enters the last of the names, which is none of the others, in the table.
static inline void nodedb_row_enter(nodedb_row_names *names, uint32_t number) {
    uint32_t place = (uint32_t)names->name[number].hash & names->mask;
    while (names->table[place] != NODEDB_NO_COLUMN)
        place = (place + 1) & names->mask;
    names->table[place] = number;
}

static inline void nodedb_row_predict(nodedb_row_keys *keys, uint64_t place, const uint8_t *bytes, uint32_t size,
                                      uint32_t column) {
    nodedb_row_key *key;
    // Places come one after the other, so what lies before the last known one is known.
    if (place >= NODEDB_PREDICTED || place > keys->known)
        return;
    if (place == keys->known)
        keys->known += 1;
    key = keys->key + place;
    for (uint32_t k = 0; k < NODEDB_KEY_WORDS; k++) {
        const uint32_t from = 8 * k, left = size > from ? size - from : 0;
        key->word[k] = 0;
        key->mask[k] = left >= 8 ? UINT64_MAX : ((uint64_t)1 << 8 * left) - 1;
        memcpy(&key->word[k], bytes + from, left < 8 ? left : 8);
    }
    key->bytes = bytes;
    key->size = size;
    key->column = column;
}

// Whether the key at `at`, of which two words can be read, is the one that stood at this place before.
static inline int nodedb_row_is_key(const nodedb_row_key *key, const uint8_t *at) {
    uint64_t word[NODEDB_KEY_WORDS];
    memcpy(word, at, sizeof word);
    return (((word[0] ^ key->word[0]) & key->mask[0]) | ((word[1] ^ key->word[1]) & key->mask[1])) == 0;
}

// The same of any bytes before `end`.
static inline int nodedb_row_is_predicted(const nodedb_row_keys *keys, uint64_t place, const uint8_t *at,
                                          const uint8_t *end) {
    const nodedb_row_key *key = keys->key + place;
    const ptrdiff_t words = sizeof(key->word);
    if (place >= keys->known || key->size > end - at || keys->limit - at < words || !nodedb_row_is_key(key, at))
        return 0;
    return key->size <= words || memcmp(at + words, key->bytes + words, (size_t)(key->size - words)) == 0;
}

#endif
