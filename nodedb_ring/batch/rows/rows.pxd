# Row values as columns. nodedb_row_values.h and nodedb_row_columns.h say how they are read, nodedb_row_kinds.h what is
# inferred, nodedb_row_keys.h how keys are found.

from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t

from ...core.layout cimport EventRow

cdef extern from "nodedb_msgpack.h" nogil:
    ctypedef enum MsgpackKind "nodedb_msgpack_kind":
        MSGPACK_NIL "NODEDB_MSGPACK_NIL"
        MSGPACK_BOOL "NODEDB_MSGPACK_BOOL"
        MSGPACK_POSITIVE "NODEDB_MSGPACK_POSITIVE"
        MSGPACK_NEGATIVE "NODEDB_MSGPACK_NEGATIVE"
        MSGPACK_FLOAT "NODEDB_MSGPACK_FLOAT"
        MSGPACK_TEXT "NODEDB_MSGPACK_TEXT"
        MSGPACK_BINARY "NODEDB_MSGPACK_BINARY"
        MSGPACK_EXTENSION "NODEDB_MSGPACK_EXTENSION"
        MSGPACK_ARRAY "NODEDB_MSGPACK_ARRAY"
        MSGPACK_MAP "NODEDB_MSGPACK_MAP"

    ctypedef union MsgpackNumber:
        uint64_t u
        int64_t i
        double f

    ctypedef struct MsgpackHead "nodedb_msgpack_head":
        MsgpackKind kind
        int8_t extension
        uint32_t size
        uint64_t items
        MsgpackNumber number

cdef extern from "nodedb_row_keys.h" nogil:
    const uint32_t NO_COLUMN "NODEDB_NO_COLUMN"

    ctypedef struct RowName "nodedb_row_name":
        const uint8_t* bytes
        uint64_t hash
        uint32_t size

    ctypedef struct RowNames "nodedb_row_names":
        RowName* name
        uint32_t* table
        uint32_t mask, count
        uint64_t secret

    ctypedef struct RowKeys "nodedb_row_keys":
        const RowNames* names
        const uint8_t* limit
        uint32_t known

    uint64_t row_hash "nodedb_row_hash"(const uint8_t* bytes, uint32_t size, uint64_t secret) noexcept
    void row_enter "nodedb_row_enter"(RowNames* names, uint32_t number) noexcept

cdef extern from "nodedb_row_values.h" nogil:
    ctypedef enum RowType "nodedb_row_type":
        ROW_BOOL "NODEDB_ROW_BOOL"
        ROW_INT64 "NODEDB_ROW_INT64"
        ROW_UINT64 "NODEDB_ROW_UINT64"
        ROW_FLOAT64 "NODEDB_ROW_FLOAT64"
        ROW_STR "NODEDB_ROW_STR"
        ROW_BYTES "NODEDB_ROW_BYTES"
        ROW_TIMESTAMP "NODEDB_ROW_TIMESTAMP"
        ROW_RAW "NODEDB_ROW_RAW"
        ROW_NULL "NODEDB_ROW_NULL"
        ROW_TYPES "NODEDB_ROW_TYPES"

    enum:
        ROW_ABSENT "NODEDB_ROW_ABSENT"
        ROW_NIL "NODEDB_ROW_NIL"
        ROW_VALID "NODEDB_ROW_VALID"
        ROW_INLINE "NODEDB_VIEW_BYTES"

    ctypedef enum RowFault "nodedb_row_fault":
        ROW_OK "NODEDB_ROW_OK"
        ROW_CUT "NODEDB_ROW_CUT"
        ROW_UNUSED_BYTE "NODEDB_ROW_UNUSED_BYTE"
        ROW_NOT_UTF8 "NODEDB_ROW_NOT_UTF8"
        ROW_NOT_A_MAP "NODEDB_ROW_NOT_A_MAP"
        ROW_KEY_NOT_TEXT "NODEDB_ROW_KEY_NOT_TEXT"
        ROW_TRAILING "NODEDB_ROW_TRAILING"
        ROW_OUTSIDE "NODEDB_ROW_OUTSIDE"
        ROW_TOO_LONG "NODEDB_ROW_TOO_LONG"
        ROW_OTHER_TYPE "NODEDB_ROW_OTHER_TYPE"
        ROW_OUT_OF_RANGE "NODEDB_ROW_OUT_OF_RANGE"
        ROW_INEXACT "NODEDB_ROW_INEXACT"
        ROW_BAD_TIMESTAMP "NODEDB_ROW_BAD_TIMESTAMP"

    ctypedef struct RowViewAt:
        int32_t buffer, offset

    ctypedef union RowViewIs:
        uint8_t bytes[12]
        RowViewAt at

    ctypedef struct RowView "nodedb_row_view":
        int32_t size
        RowViewIs iss "is"

    ctypedef struct RowColumn "nodedb_row_column":
        RowType type
        uint8_t has_long
        uint8_t* state
        void* values

    ctypedef struct RowPayload "nodedb_row_payload":
        const uint8_t* origin
        const uint8_t* bytes
        const uint8_t* end
        uint32_t shift

cdef extern from "nodedb_row_columns.h" nogil:
    enum:
        NO_ROW "NODEDB_NO_ROW"
        ROW_PRESENT "NODEDB_ROW_PRESENT"
        ROW_MALFORMED "NODEDB_ROW_MALFORMED"

    ctypedef struct RowDecoder "nodedb_row_decoder":
        RowKeys keys
        RowPayload payload
        RowColumn* columns
        uint32_t count, fault_column
        MsgpackHead found

    # The number of events, or that of the first malformed one.
    uint64_t decode_all "nodedb_row_decode_all"(
        RowDecoder* decoder, const EventRow* rows, uint64_t count, int field, uint8_t* events, bint goes_on, RowFault* fault
    ) noexcept
    # How many values a column has; those that are none are given what stands for them.
    uint64_t settle_column "nodedb_row_settle"(const RowColumn* column, uint64_t count) noexcept
    uint64_t count_valid "nodedb_row_count_valid"(const uint8_t* state, uint64_t count) noexcept
    size_t row_width "nodedb_row_width"(RowType type) noexcept

cdef extern from "nodedb_row_kinds.h" nogil:
    const uint32_t MOST_COLUMNS "NODEDB_MOST_COLUMNS"

    enum:
        KIND_BOOL "NODEDB_KIND_BOOL"
        KIND_INT "NODEDB_KIND_INT"
        KIND_BIG "NODEDB_KIND_BIG"
        KIND_NEGATIVE "NODEDB_KIND_NEGATIVE"
        KIND_FLOAT "NODEDB_KIND_FLOAT"
        KIND_TEXT "NODEDB_KIND_TEXT"
        KIND_BINARY "NODEDB_KIND_BINARY"
        KIND_TIMESTAMP "NODEDB_KIND_TIMESTAMP"
        KIND_OTHER "NODEDB_KIND_OTHER"
        KIND_COUNT "NODEDB_KIND_COUNT"

    ctypedef struct RowKinds "nodedb_row_kinds":
        uint32_t seen
        uint64_t first[KIND_COUNT]

    ctypedef enum InferEnd "nodedb_infer_end":
        INFER_OK "NODEDB_INFER_OK"
        INFER_MALFORMED "NODEDB_INFER_MALFORMED"
        INFER_TOO_MANY "NODEDB_INFER_TOO_MANY"
        INFER_NO_MEMORY "NODEDB_INFER_NO_MEMORY"

    ctypedef struct RowInfer "nodedb_row_infer":
        RowKeys keys
        RowNames names
        RowKinds* kinds
        InferEnd end
        RowFault fault
        MsgpackHead found

    bint infer_begin "nodedb_infer_begin"(RowInfer* infer, uint64_t secret, const uint8_t* limit) noexcept
    void infer_free "nodedb_infer_free"(RowInfer* infer) noexcept
    # The number of events, or that of the one at which it ended.
    uint64_t infer_all "nodedb_infer_all"(
        RowInfer* infer, const RowPayload* payload, const EventRow* rows, uint64_t count, int field, bint goes_on
    ) noexcept
