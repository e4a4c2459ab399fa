"""The old and new rows of events are what SQLite has stored."""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

from pathlib import Path

import msgpack

from nodedb_ring.capture.sqlite import Value
from tests.unit.capture.captured import Core, inserted, open_database


def test_an_added_real_column_has_floats_in_the_rows_that_were_there(core: Core) -> None:
    core.sql("INSERT INTO t VALUES (1, 1), (2, 2); ALTER TABLE t ADD COLUMN r REAL DEFAULT 3")
    core.changes()
    core.sql("UPDATE t SET a = 5 WHERE a = 1; DELETE FROM t WHERE a = 2")
    images = [image for change in core.changes() for image in (change.old, change.new) if image is not None]
    assert [(image["r"], type(image["r"])) for image in images] == [(3.0, float)] * 3


def test_records_that_sqlite_copies_whole(core: Core) -> None:
    """INSERT ... SELECT * between equal tables copies records, defaults and all that they lack; not under a capture."""
    core.sql("CREATE TABLE u(a INTEGER PRIMARY KEY, b, r REAL DEFAULT 3)")
    core.sql("INSERT INTO t VALUES (1, 1); ALTER TABLE t ADD COLUMN r REAL DEFAULT 3")
    core.capture.close()
    core.start()
    core.changes()
    core.sql("INSERT INTO u SELECT * FROM t")
    assert core.changes() == [inserted("u", "1", a=1, b=1, r=3.0)]


BOUNDS = [0, 1, 31, 32, 127, 128, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1]
VALUES: list[Value] = [
    *(number for bound in BOUNDS for number in (bound, -bound, -bound - 1)),
    *(None, 0.0, -0.0, 1.5, float("inf"), -1e300),
    *("x" * size for size in (0, 31, 32, 255, 256, 65_535, 65_536)),
    *(b"\xff" * size for size in (0, 255, 256, 65_535, 65_536)),
    "é\0漢😀",
]


def test_values_are_packed_as_msgpack_packs_them(tmp_path: Path) -> None:
    core = Core(open_database("memory", tmp_path), arena_bytes=1 << 22)
    wide = [f"column {n} é" for n in range(20)]
    core.sql(f"CREATE TABLE t(a, b); CREATE TABLE w({', '.join(f'{name!r}' for name in wide)})")
    core.start()
    for value in VALUES:
        core.sql("INSERT INTO t VALUES (?, 'end')", value)
    core.sql(f"INSERT INTO w VALUES ({', '.join(map(str, range(20)))})")
    *events, last = core.events()
    assert [event.new_value for event in events] == [msgpack.packb({"a": value, "b": "end"}) for value in VALUES]
    assert last.new_value == msgpack.packb(dict(zip(wide, range(20), strict=True)))
