// CRC-32C (Castagnoli; RFC 3720 has test vectors), reflected: byte by byte, and with the instruction that processors
// have for it. zlib's CRC-32 took half of the time in which a log is read.

#ifndef NODEDB_CRC32C_H
#define NODEDB_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static uint32_t nodedb_crc32c_table[256];
static int nodedb_crc32c_has_instruction;
// Before the first call of the others.
static inline void nodedb_crc32c_prepare(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t rest = byte;
        for (int bit = 0; bit < 8; bit++)
            rest = rest >> 1 ^ (0x82F63B78u & -(rest & 1));
        nodedb_crc32c_table[byte] = rest;
    }
#if defined(__x86_64__)
    nodedb_crc32c_has_instruction = __builtin_cpu_supports("sse4.2");
#endif
}

static inline uint32_t nodedb_crc32c_portable(uint32_t crc, const uint8_t *data, size_t size) {
    for (; size != 0; data++, size--)
        crc = crc >> 8 ^ nodedb_crc32c_table[(crc ^ *data) & 0xFF];
    return crc;
}
#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static inline uint32_t nodedb_crc32c_fast(uint32_t crc, const uint8_t *data,
                                                                            size_t size) {
    uint64_t wide = crc, eight;
    for (; size >= 8; data += 8, size -= 8) {
        memcpy(&eight, data, 8);
        wide = __builtin_ia32_crc32di(wide, eight);
    }
    return nodedb_crc32c_portable((uint32_t)wide, data, size);
}
#else
#define nodedb_crc32c_fast nodedb_crc32c_portable
#endif
static inline uint32_t nodedb_crc32c(uint32_t crc, const uint8_t *data, size_t size, int portable) {
    crc = ~crc;
    return ~(nodedb_crc32c_has_instruction && !portable ? nodedb_crc32c_fast(crc, data, size)
                                                        : nodedb_crc32c_portable(crc, data, size));
}

#endif
