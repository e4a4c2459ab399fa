# Values as MessagePack, each in its shortest form. A function returns where the next byte goes; NULL, and nothing is
# written, where the value does not fit before `end`.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "nodedb_msgpack_write.h" nogil:
    ctypedef struct Heads "msgpack_heads":
        pass

    const Heads OF_TEXT "msgpack_text"
    const Heads OF_BINARY "msgpack_binary"
    const Heads OF_ARRAY "msgpack_array"
    const Heads OF_MAP "msgpack_map"
    const uint64_t MOST "MSGPACK_MOST"
    const uint8_t NIL "MSGPACK_NIL_BYTE"
    const uint8_t FALSE "MSGPACK_FALSE_BYTE"

    uint8_t* write_byte "msgpack_write_byte"(uint8_t* at, const uint8_t* end, uint8_t byte) noexcept
    uint8_t* write_integer "msgpack_write_integer"(
        uint8_t* at, const uint8_t* end, uint64_t bits, bint is_negative) noexcept
    uint8_t* write_double "msgpack_write_double"(uint8_t* at, const uint8_t* end, uint64_t bits) noexcept
    uint8_t* write_head "msgpack_write_head"(uint8_t* at, const uint8_t* end, Heads heads, uint64_t length) noexcept
    uint8_t* write_timestamp "msgpack_write_timestamp"(
        uint8_t* at, const uint8_t* end, int64_t seconds, uint32_t nanoseconds) noexcept
