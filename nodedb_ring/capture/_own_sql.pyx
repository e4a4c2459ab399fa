# cython: language_level=3, auto_pickle=False, autotestdict=False
# cython: freethreading_compatible=True
"""SQL of the capture's own on the connection of its user, and names as SQLite compares them.

Compiled, because the hook calls it: Python runs signal handlers where a Python function begins.
"""

import apsw

__all__ = ["fold", "rows"]


def rows(connection, sql, bindings=(), *, can_cache=True):
    """Runs SQL of our own, unseen by the tracers and the cursor factory that the connection's user has set."""
    cursor = apsw.Cursor(connection)
    cursor.exec_trace = _let_pass
    cursor.row_trace = _as_it_is
    return list(cursor.execute(sql, bindings, can_cache=can_cache))


def _let_pass(cursor, sql, bindings):
    return True


def _as_it_is(cursor, row):
    return row


def fold(str name):
    """The name as SQLite compares it: without case, but of ASCII letters only."""
    return name.lower() if name.isascii() else name.translate(_LOWER)


cdef dict _LOWER = {upper: upper + 32 for upper in range(65, 91)}
