"""A replica of the captured tables, made of their events alone, and what SELECT says of the same tables.

Some changes have no event, as docs/capture.md says: columns are added and dropped, tables are renamed, dropped and
filled by CREATE TABLE AS SELECT. `SchemaHistory` notes these where they happen among the events. Its notes are numbered
by a number in the database's header, so whatever takes back the schema change takes its note back too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple, cast

import apsw
import msgpack

from nodedb_ring import WriteEvent, WriteOp
from nodedb_ring.log.sqlite import LOG_TABLES

from .sqlite_faults import Value

Query = Callable[..., list[tuple[Value, ...]]]
Columns = tuple[str, ...]
RowsById = dict[str, tuple[Value, ...]]
Layout = dict[str, Columns]
"""The captured tables and their columns."""


class Difference(AssertionError):
    """The events, the log, the database or the twin do not say the same."""


class Image(NamedTuple):
    """A table as SELECT gives it. Rows are None where a text is not UTF-8, which Python cannot hold."""

    columns: Columns
    rows: RowsById | None


def quoted(name: str) -> str:
    """A name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def layout_of(query: Query, captured: Callable[[str], bool]) -> Layout:
    """The ordinary tables of ``main`` that are captured."""
    sql = """
        SELECT l.name, x.name FROM pragma_table_list AS l, pragma_table_xinfo(l.name, 'main') AS x
        WHERE l.schema = 'main' AND l.type = 'table' ORDER BY l.name, x.cid
    """
    columns: dict[str, list[str]] = {}
    for table, column in query(sql):
        columns.setdefault(str(table), []).append(str(column))
    return {
        table: tuple(names)
        for table, names in columns.items()
        if captured(table) and not table.lower().startswith("sqlite_") and table.lower() not in LOG_TABLES
    }


def image_of(query: Query, name: str) -> Image:
    """The rows of a table by the row ids that the documentation promises."""
    [(without_rowid,)] = query("SELECT wr FROM pragma_table_list(?) WHERE schema = 'main'", name)
    described = query("SELECT name, type, pk FROM pragma_table_xinfo(?, 'main') ORDER BY cid", name)
    columns = tuple(str(column) for column, _, _ in described)
    selected = [quoted(column) for column in columns]
    if not without_rowid:
        lower = {column.lower() for column in columns}
        selected.insert(0, next(alias for alias in ("rowid", "_rowid_", "oid") if alias not in lower))
    try:
        rows = query(f"SELECT {', '.join(selected)} FROM main.{quoted(name)} NOT INDEXED")
    except UnicodeDecodeError:
        return Image(columns, None)
    if not without_rowid:
        return Image(columns, {str(rowid): tuple(values) for rowid, *values in rows})
    key = sorted((cast("int", pk), place) for place, (_, _, pk) in enumerate(described) if pk)
    places = [place for _, place in key]
    is_text = len(places) == 1 and has_text_affinity(str(described[places[0]][1]))
    return Image(columns, {_key_text([row[place] for place in places], is_text): row for row in rows})


def has_text_affinity(declared: str) -> bool:
    """By the rules of https://sqlite.org/datatype3.html: INT comes first."""
    declared = declared.upper()
    return "INT" not in declared and any(part in declared for part in ("CHAR", "CLOB", "TEXT"))


def _key_text(values: list[Value], is_text: bool) -> str:
    if is_text and isinstance(values[0], str) and not values[0].startswith(("'", "X'")):
        return values[0]
    # Unknown to pyright is collections.abc.Buffer, which Python 3.11 does not have and apsw's types name.
    literal = cast("Callable[[Value], str]", apsw.format_sql_value)  # pyright: ignore[reportUnknownMemberType]
    return ",".join(map(literal, values))


def same(left: tuple[Value, ...], right: tuple[Value, ...]) -> bool:
    """Equal, and of the same types: 3 is not 3.0."""
    return left == right and list(map(type, left)) == list(map(type, right))


class Replica:
    """What a consumer knows that began with the first event."""

    def __init__(self, images: Mapping[str, Image]) -> None:
        self.tables = dict(images)
        self.sequence = 0
        self.lsn = 0

    def apply(self, event: WriteEvent) -> None:
        """One event, which must fit what is there."""
        place = f"sequence {event.sequence}: {event.op!s} {event.collection} {event.row_id}"
        if event.sequence != self.sequence + 1 or event.lsn not in (self.lsn, self.lsn + 1):
            raise Difference(f"{place}: lsn {event.lsn} after sequence {self.sequence}, lsn {self.lsn}")
        self.sequence, self.lsn = event.sequence, event.lsn
        if event.collection not in self.tables:
            raise Difference(f"{place}: there is no captured table of this name")
        columns, rows = self.tables[event.collection]
        if rows is None:
            raise Difference(f"{place}: committed in a table with text that is not UTF-8")
        old = _values(place, columns, event.old_value)
        new = _values(place, columns, event.new_value)
        there = rows.get(event.row_id)
        expected = {WriteOp.INSERT: (False, True), WriteOp.UPDATE: (True, True), WriteOp.DELETE: (True, False)}
        if (old is not None, new is not None) != expected[event.op]:
            raise Difference(f"{place}: old {old}, new {new}")
        if (old is None) != (there is None) or (old is not None and there is not None and not same(old, there)):
            raise Difference(f"{place}: old {old}, but the row was {there}")
        if new is None:
            del rows[event.row_id]
        else:
            rows[event.row_id] = new

    def change_layout(self, layout: Layout, images: Mapping[str, Image]) -> None:
        """What one statement did to the schema; `images` are those of new and of altered tables, as they are now."""
        gone = [name for name in self.tables if name not in layout]
        new = [name for name in layout if name not in self.tables]
        if len(gone) == len(new) == 1:  # no statement drops a table and makes one, so this is a renaming
            _check_same_rows(f"{gone[0]} renamed to {new[0]}", self.tables[gone[0]], images[new[0]])
        for name in gone:
            del self.tables[name]
        for name, columns in layout.items():
            if name not in self.tables:
                self.tables[name] = images[name]
            elif self.tables[name].columns != columns:
                _check_same_rows(f"{name} altered", self.tables[name], images[name])
                self.tables[name] = images[name]

    def reload(self, name: str, image: Image) -> None:
        """Another connection wrote to this table."""
        self.tables[name] = image

    def renumber(self, name: str, image: Image) -> None:
        """VACUUM gave new rowids to the same rows."""
        before, after = self.tables[name].rows, image.rows
        if before is None or after is None or Counter(before.values()) != Counter(after.values()):
            raise Difference(f"{name} after VACUUM: {_shown(before)}, but SELECT says {_shown(after)}")
        self.tables[name] = image

    def check(self, name: str, image: Image) -> None:
        """The table must be what SELECT says."""
        columns, rows = self.tables[name]
        if columns != image.columns:
            raise Difference(f"{name}: columns {columns} by the events, {image.columns} in the database")
        _check_rows(name, rows, image.rows)


def _values(place: str, columns: Columns, packed: bytes | None) -> tuple[Value, ...] | None:
    if packed is None:
        return None
    row = cast("dict[str, Value]", msgpack.unpackb(packed))
    if tuple(row) != columns:
        raise Difference(f"{place}: columns {tuple(row)}, but the table has {columns}")
    return tuple(row.values())


def _check_same_rows(what: str, before: Image, after: Image) -> None:
    """A column may have come, gone or got another name; the others must be as they were."""
    if before.rows is None or after.rows is None:
        raise Difference(f"{what}: text that is not UTF-8")
    if len(before.columns) == len(after.columns):
        pairs = [(place, place) for place in range(len(before.columns))]
    else:
        places = {column: place for place, column in enumerate(after.columns)}
        pairs = [(place, places[column]) for place, column in enumerate(before.columns) if column in places]
    kept_before = {row_id: tuple(row[i] for i, _ in pairs) for row_id, row in before.rows.items()}
    kept_after = {row_id: tuple(row[j] for _, j in pairs) for row_id, row in after.rows.items()}
    _check_rows(what, kept_before, kept_after)


def _check_rows(what: str, reported: RowsById | None, found: RowsById | None) -> None:
    if reported is None or found is None:
        raise Difference(f"{what}: text that is not UTF-8")
    if reported == found and all(map(same, reported.values(), (found[row_id] for row_id in reported))):
        return
    row_ids = [*reported, *(row_id for row_id in found if row_id not in reported)]
    wrong = [
        f"  {row_id}: {reported.get(row_id, 'nothing')} by the events, {found.get(row_id, 'nothing')} in the database"
        for row_id in row_ids
        if row_id not in reported or row_id not in found or not same(reported[row_id], found[row_id])
    ]
    raise Difference("\n".join([f"{what}: {len(wrong)} rows differ", *wrong[:10]]))


def _shown(rows: RowsById | None) -> str:
    return "text that is not UTF-8" if rows is None else str(sorted(map(repr, rows.values()))[:10])


class _Note(NamedTuple):
    """The schema after a statement changed it."""

    parent: int  # the note that was true before
    position: int  # of how many changes of the transaction it comes behind
    layout: Layout
    images: dict[str, Image]


_FIRST_NOTE: Final = 1000


class SchemaHistory:
    """Where among the changes of the open transaction the schema changed, with whatever was taken back left out."""

    def __init__(self, query: Query, captured: Callable[[str], bool]) -> None:
        self._query = query
        self._captured = captured
        self._last = _FIRST_NOTE
        query(f"PRAGMA main.application_id = {_FIRST_NOTE}")
        self._committed = _FIRST_NOTE
        self._notes: dict[int, _Note] = {}
        self.layout = layout_of(query, captured)
        self._version = self._read("schema_version"), _FIRST_NOTE

    def _read(self, what: str) -> int:
        [(number,)] = self._query(f"PRAGMA main.{what}")
        assert isinstance(number, int)
        return number

    def observe(self, position: int) -> None:
        """To be called between statements, while the database is being written to."""
        current = self._read("application_id")
        version = self._read("schema_version"), current  # of an undone schema SQLite gives the number again
        if version == self._version:
            return
        self._version = version
        known = self.layout if current == self._committed else self._notes[current].layout
        layout = layout_of(self._query, self._captured)
        if layout == known:
            return
        self._last += 1
        images = self._images(known, layout)
        self._notes[self._last] = _Note(current, position, layout, images)
        self._query(f"PRAGMA main.application_id = {self._last}")
        self._version = version[0], self._last

    def _images(self, before: Layout, after: Layout) -> dict[str, Image]:
        return {name: image_of(self._query, name) for name, columns in after.items() if before.get(name) != columns}

    def replay(self, replica: Replica, events: Iterable[WriteEvent]) -> None:
        """Applies the events of what was committed, and the schema changes at their places among them."""
        current = committed = self._read("application_id")
        path: list[_Note] = []
        while current != self._committed:
            path.append(self._notes[current])
            current = path[-1].parent
        for position, event in enumerate(events):
            while path and path[-1].position <= position:
                note = path.pop()
                replica.change_layout(note.layout, note.images)
            replica.apply(event)
        for note in reversed(path):
            replica.change_layout(note.layout, note.images)
        self._version = self._read("schema_version"), committed
        layout = layout_of(self._query, self._captured)
        known = {name: image.columns for name, image in replica.tables.items()}
        if layout != known:  # by a statement that was its own transaction, or by another connection
            replica.change_layout(layout, self._images(known, layout))
        self.layout = layout
        self._committed = committed
        self._notes.clear()
