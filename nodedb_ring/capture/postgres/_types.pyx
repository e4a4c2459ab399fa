# cython: language_level=3, auto_pickle=False, autotestdict=False
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O1
"""Which type of a row schema's column the values of a type of PostgreSQL have."""

from libc.stdint cimport uint32_t

from .pgoutput cimport (
    POSTGRES_BOOL,
    POSTGRES_BYTEA,
    POSTGRES_FLOAT4,
    POSTGRES_FLOAT8,
    POSTGRES_INTEGER,
    POSTGRES_TIMESTAMPTZ,
    PostgresType,
    postgres_type,
)

__all__ = ["row_type"]

cdef dict _ROW_TYPES = {
    POSTGRES_BOOL: "bool",
    POSTGRES_INTEGER: "int64",
    POSTGRES_FLOAT4: "float64",
    POSTGRES_FLOAT8: "float64",
    POSTGRES_BYTEA: "bytes",
    POSTGRES_TIMESTAMPTZ: "timestamp",
}


def row_type(uint32_t oid):
    """Of the object identifier of a type: arrays are raw, and all that is not known by its number is text."""
    cdef PostgresType found = postgres_type(oid)
    return "raw" if found.is_array else _ROW_TYPES.get(found.kind, "str")
