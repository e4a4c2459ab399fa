# cython: language_level=3
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "nodedb_own_statements.h" nogil:
    ctypedef struct OwnStatements:
        void* db
    ctypedef struct LogRow:
        int64_t core_id, first, last, count, checksum, batch_id, commit
        const void* rows
        const void* payload
        uint64_t rows_bytes, payload_bytes
    enum OwnStatement:
        SCHEMA_VERSION
        DATA_VERSION
    int own_number(
        OwnStatements* statements, OwnStatement which, int64_t core_id, int64_t* number, int* found
    ) noexcept
    uint32_t own_file_version(OwnStatements* statements) noexcept
    int own_last_sequence(OwnStatements* statements, int64_t core_id, int64_t* last) noexcept
    int own_last_commit(OwnStatements* statements, int64_t* last) noexcept
    int own_append(OwnStatements* statements, const LogRow* row) noexcept
    const char* own_message(OwnStatements* statements) noexcept
