"""``SqliteCapture.schema``: the types of a table's columns, and that the table's own events can be read with them."""

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import apsw
import pytest

from nodedb_ring import RowSchema, create_event_bus
from nodedb_ring.capture import CaptureError, SqliteCapture

DECLARED = {
    "INTEGER": "int64",
    "int": "int64",
    "BIGINT UNSIGNED": "int64",
    "FLOATING POINT": "int64",  # it has INT in it
    "VARCHAR(255)": "str",
    "clob": "str",
    "TEXT": "str",
    "BLOB": "bytes",
    "REAL": "float64",
    "DOUBLE PRECISION": "float64",
    "float": "float64",
    "NUMERIC": "raw",
    "DECIMAL(10, 5)": "raw",
    "BOOLEAN": "raw",
    "DATE": "raw",
    "ANY": "raw",
    "": "raw",
}


@pytest.mark.parametrize("declared", DECLARED)
def test_by_the_rules_of_affinity(declared: str) -> None:
    connection = apsw.Connection(":memory:")
    connection.execute(f"CREATE TABLE t(a {declared})")
    with SqliteCapture(connection, create_event_bus(1)[0][0]) as capture:
        assert capture.schema("t") == RowSchema({"a": DECLARED[declared]})


def test_a_strict_table_and_its_events() -> None:
    connection = apsw.Connection(":memory:")
    connection.execute(
        "CREATE TABLE Strict(i INT, j INTEGER PRIMARY KEY, r REAL, t TEXT, b BLOB, a ANY, g INT AS (i + 1) STORED)"
        " STRICT"
    )
    [producer], [consumer] = create_event_bus(1)
    with SqliteCapture(connection, producer) as capture:
        schema = capture.schema("strict")
        connection.execute("INSERT INTO Strict VALUES (1, 2, 3, 'x', X'00ff', 1.5), (NULL, 3, NULL, NULL, NULL, 'y')")
    types = {"i": "int64", "j": "int64", "r": "float64", "t": "str", "b": "bytes", "a": "raw", "g": "int64"}
    assert dict(schema) == types
    rows = consumer.drain().rows(schema=schema)
    assert rows["j"].tolist() == [2, 3]
    assert (rows["r"][0], rows["t"].tolist(), rows["b"].tolist()) == (3.0, ["x", None], [b"\x00\xff", None])
    assert rows.valid("i").tolist() == [True, False]


def test_it_follows_the_schema() -> None:
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE t(a INTEGER, b TEXT)")
    [producer], [consumer] = create_event_bus(1)
    with SqliteCapture(connection, producer) as capture:
        before = capture.schema("T")
        connection.execute(
            "INSERT INTO t VALUES (1, 'x'); ALTER TABLE t ADD COLUMN c REAL; INSERT INTO t VALUES (2, 'y', 0.5)"
        )
        after = capture.schema("t")
    assert before == RowSchema({"a": "int64", "b": "str"})
    assert after == RowSchema({"a": "int64", "b": "str", "c": "float64"})
    batch = consumer.drain()
    assert batch.rows(schema=before)["a"].tolist() == [1, 2]
    rows = batch.rows(schema=after)
    assert (rows["a"].tolist(), rows.given("c").tolist(), rows["c"][1]) == ([1, 2], [False, True], 0.5)


def test_what_has_no_schema() -> None:
    connection = apsw.Connection(":memory:")
    connection.execute(
        "CREATE TABLE t(a); CREATE TABLE u(a); CREATE VIEW v AS SELECT 1 AS a; CREATE TABLE g(a, b AS (a))"
    )
    capture = SqliteCapture(connection, create_event_bus(1)[0][0], tables=["t"])
    with pytest.raises(CaptureError, match="table 'u': is not captured"):
        capture.schema("u")
    capture.close()
    with pytest.raises(CaptureError, match="closed"):
        capture.schema("t")
    connection.execute("DROP TABLE g")
    with SqliteCapture(connection, create_event_bus(1)[0][0]) as capture:
        for name in ("v", "w", "sqlite_schema"):
            with pytest.raises(CaptureError, match=f"table '{name}': no ordinary table"):
                capture.schema(name)
        connection.execute("CREATE TABLE g(a, b AS (a))")
        with pytest.raises(CaptureError, match=r"table g: .*virtual generated column b"):
            capture.schema("g")
