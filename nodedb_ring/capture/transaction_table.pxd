# cython: language_level=3
from libc.stdint cimport int64_t, uint64_t

from .own_statements cimport OwnStatements

cdef extern from "nodedb_transaction_table.h":
    ctypedef struct OwnerMethods:
        int (*check_schema)(void* owner) except -1
        int (*sync)(void* owner) except -1
        int (*commit)(void* owner) except -1
    ctypedef struct TransactionTable:
        OwnStatements statements
        bint connected
        bint writes_log
        bint joined
        bint schema_doubtful
        bint schema_read
        bint schema_unsure
        bint marks_lost
        uint64_t rollbacks
        int64_t standing
    TransactionTable* transaction_table_new(void* owner, const OwnerMethods* methods, const char* name) noexcept
    void transaction_table_disown(TransactionTable* table) noexcept
    void transaction_table_release(void* table) noexcept
    void transaction_table_clear(TransactionTable* table) noexcept
    void transaction_table_undone(TransactionTable* table) noexcept
    void transaction_table_register_next(TransactionTable* table) noexcept
