# Copies of rows and payload in bulk.

cdef extern from "nodedb_copy.h" nogil:
    void nodedb_copy(void* to, const void* source, size_t size) noexcept
