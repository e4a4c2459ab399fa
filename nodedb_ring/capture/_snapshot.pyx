# cython: language_level=3, auto_pickle=False, autotestdict=False
# cython: freethreading_compatible=True
"""Rows of a table as INSERT events: what a capture would have written when they were inserted."""

from libc.stdint cimport int64_t, uint64_t

from ._change_block cimport OP_INSERT, ChangeBlock
from ._sqlite_changes cimport write_change
from ._table cimport Table

from ..batch._event_batch import EventBatch
from ..errors import CaptureError
from ._own_sql import fold

__all__ = ["next_rows", "select_rows"]


def select_rows(Table table not None):
    """The query of a table's rows: before the columns stands the rowid, if it has one."""
    columns = [_quoted(column) for column in table.columns]
    if table.key_count == 0:
        taken = {fold(column) for column in table.columns}
        free = [name for name in ("rowid", "_rowid_", "oid") if name not in taken]
        if not free:
            raise CaptureError(
                f"table {table.name}: its columns hide all names of the rowid, which is the row_id of its events; rename"
                " one of them, or leave the table out of tables="
            )
        columns.insert(0, free[0])
    return f"SELECT {', '.join(columns)} FROM main.{_quoted(table.name)}"


def _quoted(str name):
    return '"' + name.replace('"', '""') + '"'


def next_rows(
    Table table not None, rows, Py_ssize_t most, *, uint64_t sequence, uint64_t lsn, int64_t time_ms, uint64_t tenant_id,
    uint64_t vshard_id
):
    """The next `most` rows of an iterator over that query, or as many as have 64 MiB; None at its end."""
    cdef ChangeBlock block = ChangeBlock.__new__(ChangeBlock)
    cdef bint has_rowid = table.key_count == 0
    cdef tuple row, values
    cdef int64_t rowid = 0
    cdef uint64_t i
    for row in rows:
        if has_rowid:
            rowid = row[0]
            values = row[1:]
        else:
            values = row
        write_change(block, table, OP_INSERT, 0, rowid, values, values, None)
        block.keep()
        if block.count == <uint64_t>most or block.is_full():
            break
    if block.count == 0:
        return None
    block.stamp(sequence, lsn, time_ms, tenant_id, vshard_id)
    for i in range(block.count):
        block.rows[i].sequence = sequence
    return EventBatch._over(block)
