// Writing MessagePack: how many bytes a value has in its shortest form, and those bytes.
//
// A writer is given where the value goes and where its row ends. It writes nothing beyond the end: it returns NULL,
// which happens only if the value is another than the one that was measured.

#ifndef NODEDB_MSGPACK_WRITE_H
#define NODEDB_MSGPACK_WRITE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../nodedb_short_copy.h"

enum { MSGPACK_NIL_BYTE = 0xC0, MSGPACK_FALSE_BYTE = 0xC2 };

// MessagePack counts bytes and items with at most 32 bits.
#define MSGPACK_MOST ((uint64_t)UINT32_MAX)

// By how many bits a number has, 1 at least: its bytes. Of one that is not negative, and of the complement of a
// negative one.
static const uint8_t msgpack_integer_sizes[2][65] = {
    {0, 1, 1, 1, 1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5,
     9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9},
    {0, 1, 1, 1, 1, 1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 9,
     9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9},
};
// By its bytes: the first of them, which is the number itself where there is but one.
static const uint8_t msgpack_integer_heads[2][10] = {
    {0, 0, 0xCC, 0xCD, 0, 0xCE, 0, 0, 0, 0xCF},
    {0, 0, 0xD0, 0xD1, 0, 0xD2, 0, 0, 0, 0xD3},
};
static const uint8_t msgpack_integer_itself[10] = {[1] = 0xFF};

static inline void msgpack_put_u16(uint8_t *at, uint16_t value) {
    value = __builtin_bswap16(value);
    memcpy(at, &value, 2);
}

static inline void msgpack_put_u32(uint8_t *at, uint32_t value) {
    value = __builtin_bswap32(value);
    memcpy(at, &value, 4);
}

static inline void msgpack_put_u64(uint8_t *at, uint64_t value) {
    value = __builtin_bswap64(value);
    memcpy(at, &value, 8);
}

static inline int msgpack_has_room(const uint8_t *at, const uint8_t *end, uint64_t size) {
    return (uint64_t)(end - at) >= size;
}

// ---- numbers ----------------------------------------------------------------------------------------------------

// `bits` are sign-extended if the number is negative. Sizes of numbers are hard to predict: no branch depends on one.
static inline uint32_t msgpack_integer_size(uint64_t bits, int is_negative) {
    const uint64_t magnitude = bits ^ (0 - (uint64_t)is_negative);
    return msgpack_integer_sizes[is_negative][64 - __builtin_clzll(magnitude | 1)];
}

static inline uint8_t *msgpack_write_integer(uint8_t *at, const uint8_t *end, uint64_t bits, int is_negative) {
    const uint32_t size = msgpack_integer_size(bits, is_negative), half = 4 * (9 - size);
    const uint8_t first = msgpack_integer_heads[is_negative][size] | (msgpack_integer_itself[size] & (uint8_t)bits);
    // The number stands at the left of eight bytes. Those behind it are written over by what comes next in the row.
    const uint64_t left = bits << half << half;
    if (msgpack_has_room(at, end, 9)) {
        at[0] = first;
        msgpack_put_u64(at + 1, left);
        return at + size;
    }
    if (!msgpack_has_room(at, end, size))
        return NULL;
    at[0] = first;
    for (uint32_t i = 1; i < size; i++)
        at[i] = (uint8_t)(left >> (64 - 8 * i));
    return at + size;
}

static inline uint8_t *msgpack_write_byte(uint8_t *at, const uint8_t *end, uint8_t byte) {
    if (!msgpack_has_room(at, end, 1))
        return NULL;
    *at = byte;
    return at + 1;
}

static inline uint8_t *msgpack_write_float(uint8_t *at, const uint8_t *end, uint32_t bits) {
    if (!msgpack_has_room(at, end, 5))
        return NULL;
    at[0] = 0xCA;
    msgpack_put_u32(at + 1, bits);
    return at + 5;
}

static inline uint8_t *msgpack_write_double(uint8_t *at, const uint8_t *end, uint64_t bits) {
    if (!msgpack_has_room(at, end, 9))
        return NULL;
    at[0] = 0xCB;
    msgpack_put_u64(at + 1, bits);
    return at + 9;
}

// ---- timestamps -------------------------------------------------------------------------------------------------

static inline uint32_t msgpack_timestamp_size(int64_t seconds, uint32_t nanoseconds) {
    if (((uint64_t)seconds >> 34) != 0)
        return 15;
    return nanoseconds == 0 && seconds <= (int64_t)UINT32_MAX ? 6 : 10;
}

static inline uint8_t *msgpack_write_timestamp(uint8_t *at, const uint8_t *end, int64_t seconds, uint32_t nanoseconds) {
    const uint32_t size = msgpack_timestamp_size(seconds, nanoseconds);
    if (!msgpack_has_room(at, end, size))
        return NULL;
    if (size == 6) {
        at[0] = 0xD6;
        at[1] = 0xFF;
        msgpack_put_u32(at + 2, (uint32_t)seconds);
    } else if (size == 10) {
        at[0] = 0xD7;
        at[1] = 0xFF;
        msgpack_put_u64(at + 2, (uint64_t)nanoseconds << 34 | (uint64_t)seconds);
    } else {
        at[0] = 0xC7;
        at[1] = 12;
        at[2] = 0xFF;
        msgpack_put_u32(at + 3, nanoseconds);
        msgpack_put_u64(at + 7, (uint64_t)seconds);
    }
    return at + size;
}

// ---- heads of what has a length ---------------------------------------------------------------------------------

// The first bytes of each width of length: in the first byte itself, in 8, 16 and 32 bits; 0 where there is none. In
// the first byte there is room for lengths below `within`.
typedef struct {
    uint8_t here, within, of_8, of_16, of_32;
} msgpack_heads;

static const msgpack_heads msgpack_text = {0xA0, 32, 0xD9, 0xDA, 0xDB};
static const msgpack_heads msgpack_binary = {0, 0, 0xC4, 0xC5, 0xC6};
static const msgpack_heads msgpack_array = {0x90, 16, 0, 0xDC, 0xDD};
static const msgpack_heads msgpack_map = {0x80, 16, 0, 0xDE, 0xDF};

// `length` is at most MSGPACK_MOST.
static inline uint32_t msgpack_head_size(msgpack_heads heads, uint64_t length) {
    if (length < heads.within)
        return 1;
    if (length <= UINT8_MAX && heads.of_8 != 0)
        return 2;
    return length <= UINT16_MAX ? 3 : 5;
}

static inline uint8_t *msgpack_write_head(uint8_t *at, const uint8_t *end, msgpack_heads heads, uint64_t length) {
    const uint32_t size = msgpack_head_size(heads, length);
    if (!msgpack_has_room(at, end, size))
        return NULL;
    if (size == 1) {
        at[0] = (uint8_t)(heads.here | length);
    } else if (size == 2) {
        at[0] = heads.of_8;
        at[1] = (uint8_t)length;
    } else if (size == 3) {
        at[0] = heads.of_16;
        msgpack_put_u16(at + 1, (uint16_t)length);
    } else {
        at[0] = heads.of_32;
        msgpack_put_u32(at + 1, (uint32_t)length);
    }
    return at + size;
}

// Bytes as they are.
static inline __attribute__((always_inline)) uint8_t *msgpack_write_bytes(uint8_t *at, const uint8_t *end,
                                                                          const uint8_t *bytes, uint64_t size) {
    if (!msgpack_has_room(at, end, size))
        return NULL;
    nodedb_copy_short(at, bytes, size);
    return at + size;
}

#endif
