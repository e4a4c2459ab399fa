# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O1
"""The columns of a write event as ``core/nodedb_schema.h`` lists them, for ``schema.py`` to make its constants of."""

from ..core.schema cimport COLUMN_COUNT, FIRST_OP, LAST_OP, LAST_SOURCE, SCHEMA

__all__ = ["columns", "members"]


def columns():
    """Name, kind, presence, offset in a row and size in bytes of each column, in the order of the list."""
    return tuple([
        (
            SCHEMA[i].name.decode(),
            SCHEMA[i].kind_name.decode(),
            SCHEMA[i].presence_name.decode(),
            SCHEMA[i].offset,
            SCHEMA[i].size,
        )
        for i in range(COLUMN_COUNT)
    ])


def members():
    """The numbers of operations, and those of sources."""
    return range(FIRST_OP, LAST_OP + 1), range(LAST_SOURCE + 1)
