"""What the schema of a database says of its tables: how their rows are captured, and of which types the columns are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

import apsw

from ..batch.rows.row_types import RowType
from ..batch.rows.schema import RowSchema
from ..errors import CaptureError
from ..log.sqlite import LOG_TABLES
from ._own_sql import fold, rows
from ._table import Table

__all__ = ["affinity_of", "read_tables", "row_schema"]

_AFFINITIES: Final = {
    "INTEGER": ("INT",),
    "TEXT": ("CHAR", "CLOB", "TEXT"),
    "BLOB": ("BLOB",),
    "REAL": ("REAL", "FLOA", "DOUB"),
}

_ROW_TYPES: Final[dict[str, RowType]] = {
    "INTEGER": "int64",
    "REAL": "float64",
    "TEXT": "str",
    "BLOB": "bytes",
    "NUMERIC": "raw",  # a number, or text that is none
    "": "raw",
}


def read_tables(connection: apsw.Connection) -> dict[str, Table | CaptureError | None]:
    """How the rows of each table of `main` read, but SQLite's own.

    None for one that is never captured: a virtual table keeps its data there, or it is a log's.
    """
    query = (
        "SELECT t.name, t.type, t.wr, c.name, c.type, c.pk, c.hidden"
        " FROM pragma_table_list AS t JOIN pragma_table_xinfo(t.name, 'main') AS c"
        " WHERE t.schema = 'main' AND t.type IN ('table', 'shadow') ORDER BY t.name, c.cid"
    )
    tables: dict[str, Table | CaptureError | None] = {}
    for name, found in itertools.groupby(rows(connection, query), lambda row: str(row[0])):
        if fold(name).startswith("sqlite_"):
            continue
        columns = list(found)
        _, kind, without_rowid, *_ = columns[0]
        described = [(str(column), str(declared), primary, hidden) for *_, column, declared, primary, hidden in columns]
        left_out = kind == "shadow" or fold(name) in LOG_TABLES
        tables[name] = None if left_out else _table(name, bool(without_rowid), described)
    return tables


def _table(name: str, without_rowid: bool, described: Sequence[tuple[str, str, object, object]]) -> Table | CaptureError:
    columns: list[str] = []
    key: list[tuple[int, int, str]] = []
    for place, (column, declared, primary, hidden) in enumerate(described):
        if hidden == 2:
            return CaptureError(
                f"table {name}: SQLite's hook cannot read rows with the virtual generated column {column};"
                " make it STORED, or leave the table out of tables="
            )
        columns.append(column)
        if isinstance(primary, int) and primary > 0:
            key.append((primary, place, declared))
    key.sort()
    return Table(
        name,
        tuple(columns),
        real={place for place, (_, declared, _, _) in enumerate(described) if affinity_of(declared) == "REAL"},
        key=tuple(place for _, place, _ in key) if without_rowid else (),
        is_text_key=len(key) == 1 and affinity_of(key[0][2]) == "TEXT",
    )


def affinity_of(declared_type: str) -> str:
    """By SQLite's rules, in their order; "" for a column without a type, whose values stay as they are."""
    if not declared_type:
        return ""
    declared_type = declared_type.upper()
    for affinity, parts in _AFFINITIES.items():
        if any(part in declared_type for part in parts):
            return affinity
    return "NUMERIC"


def row_schema(connection: apsw.Connection, table: str) -> RowSchema:
    """The types of the columns of a table of `main` whose rows can be captured.

    Raises
    ------
    CaptureError
        There is no such table, or its rows cannot be captured.
    """
    known = {fold(name): described for name, described in read_tables(connection).items()}
    found = known.get(fold(table))
    if found is None:
        raise CaptureError(
            f"table {table!r}: no ordinary table of {connection.filename!r} has this name; its name is the collection"
            " of the events"
        )
    if isinstance(found, CaptureError):
        raise found
    query = "SELECT name, type FROM pragma_table_xinfo(?, 'main') ORDER BY cid"
    # A STRICT table's types are among those that the rules give, but for ANY.
    return RowSchema(
        [
            (str(name), "raw" if str(declared).upper() == "ANY" else _ROW_TYPES[affinity_of(str(declared))])
            for name, declared in rows(connection, query, (found.name,))
        ]
    )
