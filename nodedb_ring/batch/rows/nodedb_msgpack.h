// Reading MessagePack: the head of one value at a time, and what follows it, never beyond `end`.
//
// Whoever wrote the bytes is not trusted. Nothing here recurses: a value that nests others is passed over by counting
// the values that are still to come.

#ifndef NODEDB_MSGPACK_H
#define NODEDB_MSGPACK_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../nodedb_utf8.h"

typedef enum {
    NODEDB_MSGPACK_NIL,
    NODEDB_MSGPACK_BOOL,
    NODEDB_MSGPACK_POSITIVE, // an integer from 0 on, in number.u
    NODEDB_MSGPACK_NEGATIVE, // one below 0, in number.i
    NODEDB_MSGPACK_FLOAT,
    NODEDB_MSGPACK_TEXT,
    NODEDB_MSGPACK_BINARY,
    NODEDB_MSGPACK_EXTENSION,
    NODEDB_MSGPACK_ARRAY,
    NODEDB_MSGPACK_MAP,
} nodedb_msgpack_kind;

typedef enum {
    NODEDB_MSGPACK_OK,
    NODEDB_MSGPACK_CUT,      // the value goes on behind the end
    NODEDB_MSGPACK_UNUSED,   // the byte 0xC1, which begins no value
    NODEDB_MSGPACK_NOT_UTF8, // text that is not
} nodedb_msgpack_fault;

// The head of a value.
typedef struct {
    nodedb_msgpack_kind kind;
    int8_t extension; // its type
    uint32_t size;    // bytes behind the head, of text, binary and extensions
    uint64_t items;   // values behind the head: an array's, or a map's keys and values
    union {
        uint64_t u; // of a bool, 0 or 1
        int64_t i;
        double f;
    } number;
} nodedb_msgpack_head;

static inline uint16_t nodedb_msgpack_u16(const uint8_t *at) {
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return __builtin_bswap16(value);
}

static inline uint32_t nodedb_msgpack_u32(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return __builtin_bswap32(value);
}

static inline uint64_t nodedb_msgpack_u64(const uint8_t *at) {
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return __builtin_bswap64(value);
}

static inline double nodedb_msgpack_f32(const uint8_t *at) {
    const uint32_t bits = nodedb_msgpack_u32(at);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline double nodedb_msgpack_f64(const uint8_t *at) {
    const uint64_t bits = nodedb_msgpack_u64(at);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Bytes of a head, by its first byte; 0 for the one that begins no value.
static const uint8_t nodedb_msgpack_head_bytes[256] = {
    [0x00 ... 0xC0] = 1, [0xC1] = 0,          [0xC2 ... 0xC3] = 1, // fixint, fixmap, fixarray, fixstr, nil; bool
    [0xC4] = 2,          [0xC5] = 3,          [0xC6] = 5,          // bin
    [0xC7] = 3,          [0xC8] = 4,          [0xC9] = 6,          // ext, with its type
    [0xCA] = 5,          [0xCB] = 9,                               // float
    [0xCC] = 2,          [0xCD] = 3,          [0xCE] = 5,          // uint
    [0xCF] = 9,          [0xD0] = 2,          [0xD1] = 3,          // and int
    [0xD2] = 5,          [0xD3] = 9,          [0xD4 ... 0xD8] = 2, // and fixext, with its type
    [0xD9] = 2,          [0xDA] = 3,          [0xDB] = 5,          // str
    [0xDC] = 3,          [0xDD] = 5,          [0xDE] = 3,          // array; map
    [0xDF] = 5,          [0xE0 ... 0xFF] = 1,                      // and negative fixint
};

static inline nodedb_msgpack_fault nodedb_msgpack_integer(nodedb_msgpack_head *head, int64_t value) {
    head->kind = value < 0 ? NODEDB_MSGPACK_NEGATIVE : NODEDB_MSGPACK_POSITIVE;
    head->number.i = value;
    return NODEDB_MSGPACK_OK;
}

static inline nodedb_msgpack_fault nodedb_msgpack_positive(nodedb_msgpack_head *head, uint64_t value) {
    head->kind = NODEDB_MSGPACK_POSITIVE;
    head->number.u = value;
    return NODEDB_MSGPACK_OK;
}

static inline nodedb_msgpack_fault nodedb_msgpack_float(nodedb_msgpack_head *head, double value) {
    head->kind = NODEDB_MSGPACK_FLOAT;
    head->number.f = value;
    return NODEDB_MSGPACK_OK;
}

static inline nodedb_msgpack_fault nodedb_msgpack_items(nodedb_msgpack_head *head, nodedb_msgpack_kind kind,
                                                        uint64_t items) {
    head->kind = kind;
    head->items = items;
    return NODEDB_MSGPACK_OK;
}

// Of text, binary and extensions: whether so many bytes lie before `end`, behind the head.
static inline nodedb_msgpack_fault nodedb_msgpack_sized(nodedb_msgpack_head *head, nodedb_msgpack_kind kind,
                                                        uint32_t size, const uint8_t *at, const uint8_t *end) {
    head->kind = kind;
    head->size = size;
    return size > (uint64_t)(end - at) ? NODEDB_MSGPACK_CUT : NODEDB_MSGPACK_OK;
}

// Reads the head at *at and moves *at behind it. The `size` bytes that follow it lie before `end`, too.
static inline nodedb_msgpack_fault nodedb_msgpack_read(const uint8_t **at, const uint8_t *end,
                                                       nodedb_msgpack_head *head) {
    const uint8_t *p = *at;
    if (p >= end)
        return NODEDB_MSGPACK_CUT;
    const uint8_t first = *p, bytes = nodedb_msgpack_head_bytes[first];
    if (bytes == 0)
        return NODEDB_MSGPACK_UNUSED;
    if (bytes > end - p)
        return NODEDB_MSGPACK_CUT;
    const uint8_t *behind = *at = p + bytes;
    p += 1;
    head->size = 0;
    head->items = 0;
    switch (first) {
    case 0x00 ... 0x7F:
    case 0xE0 ... 0xFF:
        return nodedb_msgpack_integer(head, (int8_t)first);
    case 0x80 ... 0x8F:
        return nodedb_msgpack_items(head, NODEDB_MSGPACK_MAP, 2 * (uint64_t)(first & 0x0F));
    case 0x90 ... 0x9F:
        return nodedb_msgpack_items(head, NODEDB_MSGPACK_ARRAY, first & 0x0F);
    case 0xA0 ... 0xBF:
        return nodedb_msgpack_sized(head, NODEDB_MSGPACK_TEXT, first & 0x1F, behind, end);
    case 0xC2:
    case 0xC3:
        head->kind = NODEDB_MSGPACK_BOOL;
        head->number.u = first & 1;
        return NODEDB_MSGPACK_OK;
    case 0xC4:
        return nodedb_msgpack_sized(head, NODEDB_MSGPACK_BINARY, *p, behind, end);
    case 0xC5:
        return nodedb_msgpack_sized(head, NODEDB_MSGPACK_BINARY, nodedb_msgpack_u16(p), behind, end);
    case 0xC6:
        return nodedb_msgpack_sized(head, NODEDB_MSGPACK_BINARY, nodedb_msgpack_u32(p), behind, end);
    case 0xC7:
        head->extension = (int8_t)p[1];
        return nodedb_msgpack_sized(head, NODEDB_MSGPACK_EXTENSION, *p, behind, end);
    case 0xC8:
        head->extension = (int8_t)p[2];
        return nodedb_msgpack_sized(head, NODEDB_MSGPACK_EXTENSION, nodedb_msgpack_u16(p), behind, end);
    case 0xC9:
        head->extension = (int8_t)p[4];
        return nodedb_msgpack_sized(head, NODEDB_MSGPACK_EXTENSION, nodedb_msgpack_u32(p), behind, end);
    case 0xCA:
        return nodedb_msgpack_float(head, nodedb_msgpack_f32(p));
    case 0xCB:
        return nodedb_msgpack_float(head, nodedb_msgpack_f64(p));
    case 0xCC:
        return nodedb_msgpack_positive(head, *p);
    case 0xCD:
        return nodedb_msgpack_positive(head, nodedb_msgpack_u16(p));
    case 0xCE:
        return nodedb_msgpack_positive(head, nodedb_msgpack_u32(p));
    case 0xCF:
        return nodedb_msgpack_positive(head, nodedb_msgpack_u64(p));
    case 0xD0:
        return nodedb_msgpack_integer(head, (int8_t)*p);
    case 0xD1:
        return nodedb_msgpack_integer(head, (int16_t)nodedb_msgpack_u16(p));
    case 0xD2:
        return nodedb_msgpack_integer(head, (int32_t)nodedb_msgpack_u32(p));
    case 0xD3:
        return nodedb_msgpack_integer(head, (int64_t)nodedb_msgpack_u64(p));
    case 0xD4 ... 0xD8:
        head->extension = (int8_t)*p;
        return nodedb_msgpack_sized(head, NODEDB_MSGPACK_EXTENSION, 1u << (first - 0xD4), behind, end);
    case 0xD9:
        return nodedb_msgpack_sized(head, NODEDB_MSGPACK_TEXT, *p, behind, end);
    case 0xDA:
        return nodedb_msgpack_sized(head, NODEDB_MSGPACK_TEXT, nodedb_msgpack_u16(p), behind, end);
    case 0xDB:
        return nodedb_msgpack_sized(head, NODEDB_MSGPACK_TEXT, nodedb_msgpack_u32(p), behind, end);
    case 0xDC:
        return nodedb_msgpack_items(head, NODEDB_MSGPACK_ARRAY, nodedb_msgpack_u16(p));
    case 0xDD:
        return nodedb_msgpack_items(head, NODEDB_MSGPACK_ARRAY, nodedb_msgpack_u32(p));
    case 0xDE:
        return nodedb_msgpack_items(head, NODEDB_MSGPACK_MAP, 2 * (uint64_t)nodedb_msgpack_u16(p));
    case 0xDF:
        return nodedb_msgpack_items(head, NODEDB_MSGPACK_MAP, 2 * (uint64_t)nodedb_msgpack_u32(p));
    default: // 0xC0: for 0xC1 there is no head
        head->kind = NODEDB_MSGPACK_NIL;
        return NODEDB_MSGPACK_OK;
    }
}

// Moves *at behind `values` values, whatever they nest: all of it is well-formed, and its text is UTF-8.
static inline nodedb_msgpack_fault nodedb_msgpack_pass(const uint8_t **at, const uint8_t *end, uint64_t values) {
    while (values != 0) {
        nodedb_msgpack_head head;
        const nodedb_msgpack_fault fault = nodedb_msgpack_read(at, end, &head);
        if (fault != NODEDB_MSGPACK_OK)
            return fault;
        if (head.kind == NODEDB_MSGPACK_TEXT && nodedb_utf8_prefix(*at, head.size) != head.size)
            return NODEDB_MSGPACK_NOT_UTF8;
        *at += head.size;
        values += head.items - 1;
        // Each of them takes a byte at least. So the count stays below the number of bytes, and this comes to an end.
        if (values > (uint64_t)(end - *at))
            return NODEDB_MSGPACK_CUT;
    }
    return NODEDB_MSGPACK_OK;
}

#endif
