"""What the catalog says of the tables of a publication: their columns, and how a snapshot reads them."""

from __future__ import annotations

import contextlib
import struct
from typing import Final, NamedTuple

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from ...batch.rows.schema import RowSchema
from ...errors import CaptureError
from ._types import row_type

__all__ = ["PublishedTable", "published_tables", "row_schema"]

_COLUMNS_SINCE: Final = 150000
"""PostgreSQL 15, in which a publication may have some of a table's columns and rows."""

_TABLES: Final = """
SELECT c.oid, n.nspname, c.relname, c.relkind, {columns}, {filter}
FROM pg_publication_tables AS t JOIN pg_namespace AS n ON n.nspname = t.schemaname
JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = t.tablename
WHERE t.pubname = %s ORDER BY 2, 3"""

_COLUMNS: Final = """
SELECT a.attname, a.atttypid, c.relreplident = 'f' OR EXISTS (
    SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND a.attnum = ANY (i.indkey)
    AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END)
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum"""

_NAMED: Final = """
SELECT c.oid FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND """
_AS_COLLECTION: Final = _NAMED + "n.nspname || '.' || c.relname = %s"
_AS_IN_SQL: Final = _NAMED + "c.oid = to_regclass(%s)"


class _Column(NamedTuple):
    name: str
    type_oid: int
    is_key: bool


class PublishedTable(NamedTuple):
    """A table of a publication, with the columns that it publishes."""

    oid: int
    schema: str
    name: str
    is_partitioned: bool
    columns: tuple[_Column, ...]
    row_filter: str | None

    def description(self) -> bytes:
        """The message by which the stream would describe it."""
        told = struct.pack(">cI", b"R", self.oid) + self.schema.encode() + b"\0" + self.name.encode() + b"\0d"
        told += struct.pack(">H", len(self.columns))
        for column in self.columns:
            told += bytes([column.is_key]) + column.name.encode() + b"\0" + struct.pack(">Ii", column.type_oid, -1)
        return told

    def copy_statement(self) -> str:
        """What sends its rows. Rows of tables that inherit from it are theirs; those of its partitions are its own."""
        columns = ", ".join(_quoted(column.name) for column in self.columns)
        only = "" if self.is_partitioned else "ONLY "
        where = "" if self.row_filter is None else f" WHERE {self.row_filter}"
        return f"COPY (SELECT {columns} FROM {only}{_quoted(self.schema)}.{_quoted(self.name)}{where}) TO STDOUT"  # noqa: S608


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _columns(cursor: psycopg2.extensions.cursor, oid: int) -> tuple[_Column, ...]:
    cursor.execute(_COLUMNS, (oid,))
    return tuple(_Column(str(name), int(type_oid), bool(is_key)) for name, type_oid, is_key in cursor.fetchall())


def published_tables(cursor: psycopg2.extensions.cursor, publication: str) -> list[PublishedTable]:
    """The tables of a publication, by schema and name."""
    has_columns = cursor.connection.server_version >= _COLUMNS_SINCE
    query = _TABLES.format(
        columns="t.attnames" if has_columns else "NULL", filter="t.rowfilter" if has_columns else "NULL"
    )
    cursor.execute(query, (publication,))
    found: list[PublishedTable] = []
    for oid, schema, name, kind, published, row_filter in cursor.fetchall():
        columns = _columns(cursor, oid)
        if published is not None:
            columns = tuple(column for column in columns if column.name in published)
        found.append(PublishedTable(oid, schema, name, kind == "p", columns, row_filter))
    return found


def row_schema(cursor: psycopg2.extensions.cursor, table: str) -> RowSchema:
    """The types of a table's columns, as its events have them.

    Raises
    ------
    CaptureError
        There is no such table.
    """
    cursor.execute(_AS_COLLECTION, (table,))
    found = cursor.fetchall()
    if not found:
        # That the text is no name of SQL is an error there.
        with contextlib.suppress(psycopg2.errors.InvalidName):
            cursor.execute(_AS_IN_SQL, (table,))
            found = cursor.fetchall()
    if not found:
        raise CaptureError(
            f"table {table!r}: does not exist in this database; write schema.table, as the collection of its events"
        )
    return RowSchema([(column.name, row_type(column.type_oid)) for column in _columns(cursor, int(found[0][0]))])
