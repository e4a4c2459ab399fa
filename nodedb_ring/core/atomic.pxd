# Loads and stores that order memory, one fence of each kind, and hints to the processor.

from libc.stdint cimport uint32_t, uint64_t

cdef extern from "nodedb_atomic.h" nogil:
    uint64_t load_relaxed "nodedb_load_relaxed"(const uint64_t* word) noexcept
    uint64_t load_acquire "nodedb_load_acquire"(const uint64_t* word) noexcept
    void store_relaxed "nodedb_store_relaxed"(uint64_t* word, uint64_t value) noexcept
    void store_release "nodedb_store_release"(uint64_t* word, uint64_t value) noexcept
    uint32_t load_relaxed_u32 "nodedb_load_relaxed"(const uint32_t* word) noexcept
    uint32_t load_acquire_u32 "nodedb_load_acquire"(const uint32_t* word) noexcept
    void store_relaxed_u32 "nodedb_store_relaxed"(uint32_t* word, uint32_t value) noexcept
    void store_release_u32 "nodedb_store_release"(uint32_t* word, uint32_t value) noexcept
    uint32_t exchange_u32 "nodedb_exchange"(uint32_t* word, uint32_t value) noexcept
    uint32_t fetch_or_u32 "nodedb_fetch_or"(uint32_t* word, uint32_t bits) noexcept
    uint64_t fetch_add "nodedb_fetch_add"(uint64_t* word, uint64_t count) noexcept
    uint32_t fetch_add_u32 "nodedb_fetch_add"(uint32_t* word, uint32_t count) noexcept
    uint32_t fetch_and_u32 "nodedb_fetch_and"(uint32_t* word, uint32_t bits) noexcept
    bint replace_u32 "nodedb_replace"(uint32_t* word, uint32_t old, uint32_t value) noexcept
    void fence "nodedb_fence"() noexcept
    void compiler_fence "nodedb_compiler_fence"() noexcept
    void prefetch "nodedb_prefetch"(const void* place) noexcept
    void prefetch_to_write "nodedb_prefetch_to_write"(const void* place) noexcept
    bint unlikely "nodedb_unlikely"(bint condition) noexcept
    void pause "nodedb_pause"() noexcept
