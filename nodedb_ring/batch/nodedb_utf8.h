// Whether text is ASCII, and where it stops being UTF-8.

#ifndef NODEDB_UTF8_H
#define NODEDB_UTF8_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

// Most text is ASCII. The last word overlaps the one before: no byte by byte at the end, whose count would be guessed
// wrong for one name in two.
static inline int nodedb_is_ascii(const uint8_t *text, size_t size) {
    uint64_t seen = 0, eight;
    uint32_t four, last;
    if (size >= 8) {
        for (size_t i = 0; i + 8 < size; i += 8) {
            memcpy(&eight, text + i, 8);
            seen |= eight;
        }
        memcpy(&eight, text + size - 8, 8);
        seen |= eight;
    } else if (size >= 4) {
        memcpy(&four, text, 4);
        memcpy(&last, text + size - 4, 4);
        seen = four | last;
    } else if (size > 0) {
        seen = text[0] | text[size / 2] | text[size - 1];
    }
    return (seen & 0x8080808080808080u) == 0;
}

// By the Unicode standard's table 3-7.
static __attribute__((noinline)) size_t nodedb_utf8_prefix_of_any(const uint8_t *text, size_t size) {
    size_t i = 0;
    while (i < size) {
        uint64_t eight;
        if (i + 8 <= size) {
            memcpy(&eight, text + i, 8);
            if ((eight & 0x8080808080808080u) == 0) {
                i += 8;
                continue;
            }
        }
        uint8_t lead = text[i];
        if (lead < 0x80) {
            i += 1;
            continue;
        }
        size_t more = lead >= 0xC2 && lead <= 0xDF   ? 1
                      : lead >= 0xE0 && lead <= 0xEF ? 2
                      : lead >= 0xF0 && lead <= 0xF4 ? 3
                                                     : 0;
        if (more == 0 || size - i <= more)
            return i;
        uint8_t second = text[i + 1];
        uint8_t least = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
        uint8_t most = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
        if (second < least || second > most)
            return i;
        for (size_t k = 2; k <= more; k++)
            if ((text[i + k] & 0xC0) != 0x80)
                return i;
        i += more + 1;
    }
    return size;
}

// Where text stops being UTF-8, or `size` where it does not.
static inline size_t nodedb_utf8_prefix(const uint8_t *text, size_t size) {
    return nodedb_is_ascii(text, size) ? size : nodedb_utf8_prefix_of_any(text, size);
}
#endif
