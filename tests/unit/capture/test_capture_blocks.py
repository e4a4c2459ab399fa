"""The blocks in which a capture keeps the changes of a transaction: their bounds, and values that did not change."""

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import contextlib
import itertools
import math
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import apsw
import msgpack
import pytest

from nodedb_ring import EventConsumer, WriteEvent, WriteOp, create_event_bus
from nodedb_ring.capture import SqliteCapture
from nodedb_ring.log.sqlite import SqliteEventLog

BLOCK = 65_536
SERIES = "WITH RECURSIVE c(x) AS (SELECT {0} UNION ALL SELECT x + 1 FROM c WHERE x < {1}) INSERT INTO t SELECT x FROM c"


@contextlib.contextmanager
def captured(connection: apsw.Connection, **options: Any) -> Generator[EventConsumer]:
    [producer], [consumer] = create_event_bus(1, capacity=4 * BLOCK)
    with SqliteCapture(connection, producer, **options):
        yield consumer


def row(value: bytes | None) -> Any:
    return None if value is None else msgpack.unpackb(value)


@pytest.mark.parametrize("undone_from", [1, BLOCK - 3, BLOCK - 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 4])
def test_a_rollback_to_any_side_of_a_blocks_end(undone_from: int) -> None:
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY)")
    with captured(connection) as consumer:
        connection.execute("BEGIN")
        connection.execute(SERIES.format(1, undone_from))
        connection.execute("SAVEPOINT s")
        connection.execute(SERIES.format(undone_from + 1, 2 * BLOCK))
        connection.execute("ROLLBACK TO s; INSERT INTO t VALUES (1000000); COMMIT")
        batch = consumer.drain(4 * BLOCK)
    assert batch.strings("row_id").tolist() == [str(a) for a in range(1, undone_from + 1)] + ["1000000"]
    assert batch.sequence.tolist() == list(range(1, undone_from + 2))


def test_everything_undone_over_several_blocks_leaves_nothing() -> None:
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY)")
    with captured(connection) as consumer:
        connection.execute("BEGIN; SAVEPOINT s")
        connection.execute(SERIES.format(1, BLOCK + 10))
        connection.execute("ROLLBACK TO s; COMMIT")
        connection.execute("INSERT INTO t VALUES (5)")
        [event] = consumer.drain()
    assert (event.sequence, event.lsn, event.row_id) == (1, 1, "5")


def test_a_log_has_one_row_a_block(tmp_path: Path) -> None:
    path = tmp_path / "core.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY)")
    with SqliteEventLog(path, driver="apsw") as log, captured(connection, log=log) as consumer:
        connection.execute(SERIES.format(1, 2 * BLOCK))
        counts = [count for (count,) in connection.execute("SELECT count FROM nodedb_ring_log")]
        logged = list(log.read(0, 0, 2**62))
        emitted = consumer.drain(4 * BLOCK)
    assert sum(counts) == 2 * BLOCK
    assert max(counts) <= BLOCK
    assert len(counts) == 3
    assert [event for batch in logged for event in batch] == list(emitted)


@pytest.mark.parametrize(("before", "after"), [(0.0, -0.0), (-0.0, 0.0), (0.0, 0.0), (-0.0, -0.0)])
def test_zeros_of_either_sign_are_told_apart(before: float, after: float) -> None:
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE t(a, b, c)")
    connection.execute("INSERT INTO t VALUES (?, 'same', 1)", (before,))
    stored = connection.execute("SELECT a FROM t").get
    with captured(connection) as consumer:
        connection.execute("UPDATE t SET a = ?, c = 2", (after,))
        [event] = consumer.drain()
    found = connection.execute("SELECT a FROM t").get
    old, new = row(event.old_value), row(event.new_value)
    assert (math.copysign(1, old["a"]), math.copysign(1, new["a"])) == (
        math.copysign(1, stored),
        math.copysign(1, found),
    )
    assert (old["b"], old["c"], new["b"], new["c"]) == ("same", 1, "same", 2)


VALUES = (
    None,
    0,
    1,
    -1,
    127,
    128,
    2**63 - 1,
    -(2**63),
    0.0,
    1.0,
    1.5,
    "",
    "1",
    "x" * 31,
    "é" * 20,
    b"",
    b"1",
    b"\0" * 300,
)


def test_an_update_has_every_value_of_both_images() -> None:
    """Where a value is the same in both, no object of the second is made: all pairs, in columns of each affinity."""
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a, i INTEGER, r REAL, t TEXT, b BLOB, n NUMERIC)")
    with captured(connection) as consumer:
        for old, new in itertools.product(VALUES, VALUES):
            connection.execute("DELETE FROM t; INSERT INTO t VALUES (1, ?1, ?1, ?1, ?1, ?1, ?1)", (old,))
            [before] = connection.execute("SELECT * FROM t")
            consumer.drain()
            connection.execute("UPDATE t SET a = ?1, i = ?1, r = ?1, t = ?1, b = ?1, n = ?1", (new,))
            [after] = connection.execute("SELECT * FROM t")
            [event] = consumer.drain()
            assert [repr(v) for v in row(event.old_value).values()] == [repr(v) for v in before]
            assert [repr(v) for v in row(event.new_value).values()] == [repr(v) for v in after]


KEYS = (0, -7, 2**63 - 1, -(2**63), 1.5, 1e300, "", "a", "'", "it''s", "X'", "Xa", "a\0b", "é", b"", b"\x00\xff", "1,2")


def test_row_ids_are_the_literals_that_apsw_writes() -> None:
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE t(k, l, v, PRIMARY KEY(l, k)) WITHOUT ROWID")
    with captured(connection) as consumer:
        for k, l in itertools.product(KEYS, KEYS):  # noqa: E741
            connection.execute("INSERT INTO t VALUES (?, ?, NULL)", (k, l))
            [event] = consumer.drain()
            assert event.row_id == f"{apsw.format_sql_value(l)},{apsw.format_sql_value(k)}"


def test_a_change_of_one_part_of_the_key() -> None:
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE t(k, l, v, PRIMARY KEY(k, l)) WITHOUT ROWID")
    with captured(connection) as consumer:
        connection.execute("INSERT INTO t VALUES (1, 'a', 0); UPDATE t SET v = 1; UPDATE t SET l = 'b', v = 2")
        told = [(e.op, e.row_id, row(e.old_value), row(e.new_value)) for e in consumer.drain()]
    assert told == [
        (WriteOp.INSERT, "1,'a'", None, {"k": 1, "l": "a", "v": 0}),
        (WriteOp.UPDATE, "1,'a'", {"k": 1, "l": "a", "v": 0}, {"k": 1, "l": "a", "v": 1}),
        (WriteOp.DELETE, "1,'a'", {"k": 1, "l": "a", "v": 1}, None),
        (WriteOp.INSERT, "1,'b'", None, {"k": 1, "l": "b", "v": 2}),
    ]


def test_a_batch_outlives_the_transactions_after_it() -> None:
    """The block of a transaction is used again for the next one; what was drained is a copy."""
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    with captured(connection) as consumer:
        drained: list[WriteEvent] = []
        batches = []
        for a in range(50):
            connection.execute("INSERT INTO t VALUES (?, ?)", (a, "x" * a))
            batches.append(consumer.drain())
        for batch in batches:
            drained += list(batch)
    assert [(e.row_id, row(e.new_value)["b"]) for e in drained] == [(str(a), "x" * a) for a in range(50)]


def test_the_logs_statements_are_prepared_once(tmp_path: Path) -> None:
    path = tmp_path / "core.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY)")
    prepared: list[str | None] = []

    def authorize(_: int, first: str | None, *__: str | None) -> int:
        prepared.append(first)
        return apsw.SQLITE_OK

    with SqliteEventLog(path, driver="apsw") as log, captured(connection, log=log):
        connection.authorizer = authorize
        connection.execute("INSERT INTO t VALUES (?)", (0,))
        assert "nodedb_ring_log" in prepared
        prepared.clear()
        for a in range(1, 10):
            connection.execute("INSERT INTO t VALUES (?)", (a,))
        assert prepared == []
        connection.authorizer = None


def test_a_connection_can_be_closed_before_its_capture(tmp_path: Path) -> None:
    """The capture's statements do not keep it open."""
    path = tmp_path / "core.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY)")
    [producer], _ = create_event_bus(1)
    with SqliteEventLog(path, driver="apsw") as log:
        capture = SqliteCapture(connection, producer, log=log)
        connection.execute("INSERT INTO t VALUES (1)")
        connection.close()
        capture.close()


@pytest.mark.parametrize("size", range(41))
def test_names_and_values_of_every_length(size: int) -> None:
    """Short ones are copied as words, which overlap or go beyond them."""
    name = "n" * max(size, 1)
    text = "".join(chr(ord("a") + i % 26) for i in range(size))
    kept = {"id": 1, name: text, "b": text.encode()[::-1], "last": -1}
    connection = apsw.Connection(":memory:")
    connection.execute(f"CREATE TABLE t(id INTEGER PRIMARY KEY, {name}, b, last)")
    with captured(connection) as consumer:
        connection.execute("INSERT INTO t VALUES (?, ?, ?, ?)", tuple(kept.values()))
        connection.execute("DELETE FROM t")
    inserted, deleted = consumer.drain()
    assert inserted.new_value == deleted.old_value == msgpack.packb(kept)


def test_changes_are_read_by_name_where_apsw_has_no_getters() -> None:
    """Another apsw may make its attributes otherwise. Here a class without getters stands for its type."""
    script = """
import apsw
names = "database_name table_name opcode depth rowid rowid_new blob_write new old update".split()
apsw.PreUpdate = type("PreUpdate", (), dict.fromkeys(names))
from nodedb_ring import create_event_bus
from nodedb_ring.capture import SqliteCapture
[producer], [consumer] = create_event_bus(1)
connection = apsw.Connection(":memory:")
connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
with SqliteCapture(connection, producer):
    connection.execute("INSERT INTO t VALUES (1, 'x'); UPDATE t SET b = 'y'; UPDATE t SET a = 2; DELETE FROM t")
batch = consumer.drain()
print(batch.op.tolist(), batch.strings("row_id").tolist(), batch.rows()["b"].tolist())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[1, 2, 3, 1, 3] ['1', '1', '1', '2', '2'] ['x', 'y', None, 'y', None]\n"
