"""Random SQL on a captured database, against a twin that keeps its own account.

The twin runs the same script without a capture. Triggers write each of its row changes to a table, so SQLite itself
takes back what is rolled back. At every commit both accounts must hold the same changes, and replaying the events on a
dictionary must give exactly what the captured database holds.
"""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import apsw
import msgpack
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from nodedb_ring import EventConsumer, WriteOp, create_event_bus
from nodedb_ring.capture import SqliteCapture

SCHEMA = """
    PRAGMA foreign_keys = ON;
    CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE CHECK (b <> 4));
    CREATE TABLE w(k, j, v NOT NULL UNIQUE, PRIMARY KEY (j, k)) WITHOUT ROWID;
    CREATE TABLE child(p REFERENCES t(a) ON DELETE CASCADE ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED);
    CREATE TRIGGER t_ai AFTER INSERT ON t WHEN new.b IN (2, 3) BEGIN
      INSERT OR REPLACE INTO w VALUES (new.a, 1, new.b);
      SELECT RAISE(ABORT, 'three') WHERE new.b = 3;
    END;
    CREATE TRIGGER t_au AFTER UPDATE ON t WHEN new.b = 0 BEGIN
      UPDATE w SET k = k + 1;
      SELECT RAISE(ROLLBACK, 'none') WHERE new.a = 0;
    END;
"""
COLUMNS = {"t": "ab", "w": "kjv", "child": "p"}
ROW_ID = {"t": "{0}.a", "w": "{0}.j || ',' || {0}.k", "child": "{0}.rowid"}

Change = tuple[str, str, str, str, str]
"""What happened to a row: operation, table, row id, old row and new row as JSON with sorted keys, or 'null'."""


def account_triggers() -> str:
    """Triggers that write each change to the table `account`; REPLACE fires the delete trigger if they may recurse."""
    statements = ["PRAGMA recursive_triggers = ON", "CREATE TABLE account(op, tab, id, new_id, old, new)"]
    for table, columns in COLUMNS.items():
        images = {
            which: f"json_object({', '.join(f'{c!r}, {which}.{c}' for c in sorted(columns))})"
            for which in ("old", "new")
        }
        for op, old, new in [("INSERT", "new", "new"), ("UPDATE", "old", "new"), ("DELETE", "old", "old")]:
            before = "'null'" if op == "INSERT" else images["old"]
            after = "'null'" if op == "DELETE" else images["new"]
            ids = f"{ROW_ID[table].format(old)}, {ROW_ID[table].format(new)}"
            statements.append(
                f"CREATE TRIGGER {table}_{op} AFTER {op} ON {table} BEGIN"
                f" INSERT INTO account VALUES ('{op}', '{table}', {ids}, {before}, {after}); END"
            )
    return "; ".join(statements)


def accounted(connection: apsw.Connection) -> Iterator[Change]:
    """The twin's account, emptied. A change of the key is the delete and the insert that it stands for."""
    for row in list(connection.execute("DELETE FROM account RETURNING *")):
        op, table, row_id, new_row_id, old, new = map(str, row)
        if row_id == new_row_id:
            yield op, table, row_id, old, new
        else:
            yield "DELETE", table, row_id, old, "null"
            yield "INSERT", table, new_row_id, "null", new


def as_json(value: bytes | None) -> str:
    return "null" if value is None else json.dumps(msgpack.unpackb(value), sort_keys=True, separators=(",", ":"))


def content(connection: apsw.Connection) -> dict[tuple[str, str], str]:
    """Every row of the database, by table and row id."""
    rows: dict[tuple[str, str], str] = {}
    for table, columns in COLUMNS.items():
        names = ", ".join(sorted(columns))
        for row_id, *values in connection.execute(f"SELECT {ROW_ID[table].format(table)}, {names} FROM {table}"):
            row = dict(zip(sorted(columns), values, strict=True))
            rows[table, str(row_id)] = json.dumps(row, separators=(",", ":"))
    return rows


class Replica:
    """What a consumer knows of the database from the events alone."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], str] = {}
        self.sequence = 0

    def apply(self, consumer: EventConsumer, lsn: int) -> Iterator[Change]:
        for e in list(consumer.drain(1_000_000)):
            self.sequence += 1
            assert (e.sequence, e.lsn) == (self.sequence, lsn)
            place = e.collection, e.row_id
            old, new = as_json(e.old_value), as_json(e.new_value)
            assert self.rows.get(place, "null") == old
            assert (e.op is WriteOp.INSERT) == (old == "null")
            assert (e.op is WriteOp.DELETE) == (new == "null")
            if new == "null":
                del self.rows[place]
            else:
                self.rows[place] = new
            yield str(e.op), e.collection, e.row_id, old, new


small = st.integers(0, 5).map(str)
conflict = st.sampled_from(["", "OR ABORT", "OR FAIL", "OR ROLLBACK", "OR IGNORE", "OR REPLACE"])
savepoint = st.sampled_from("pqr")


def rows_of(*columns: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    row = st.tuples(*columns).map(lambda values: f"({', '.join(values)})")
    return st.lists(row, min_size=1, max_size=3).map(", ".join)


writes = st.one_of(
    st.builds("INSERT {} INTO t VALUES {}".format, conflict, rows_of(small | st.just("NULL"), small)),
    st.builds("INSERT {} INTO w VALUES {}".format, conflict, rows_of(small, small, small | st.just("NULL"))),
    st.builds("INSERT INTO child VALUES {}".format, rows_of(small)),
    st.builds("INSERT INTO t VALUES {} ON CONFLICT(a) DO UPDATE SET b = {}".format, rows_of(small, small), small),
    st.builds("UPDATE {} t SET a = a + {} WHERE a >= {}".format, conflict, small, small),
    st.builds("UPDATE {} t SET b = b + {} WHERE a <= {}".format, conflict, small, small),
    st.builds("UPDATE {} w SET k = k + {}, v = {} + v WHERE j <= {}".format, conflict, small, small, small),
    st.builds("DELETE FROM t WHERE a > {}".format, small),
    st.sampled_from(["DELETE FROM t", "DELETE FROM w", "DELETE FROM child"]),
)
control = st.one_of(
    st.sampled_from(["BEGIN", "BEGIN", "COMMIT", "ROLLBACK"]),
    st.builds("SAVEPOINT {}".format, savepoint),
    st.builds("SAVEPOINT {}".format, savepoint),
    st.builds("RELEASE {}".format, savepoint),
    st.builds("ROLLBACK TO {}".format, savepoint),
)
scripts = st.lists(writes | control, max_size=40)


@contextmanager
def database() -> Generator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    try:
        yield connection
    finally:
        connection.close()


def outcome(connection: apsw.Connection, statement: str) -> str:
    try:
        connection.execute(statement).fetchall()
    except apsw.Error as error:
        return type(error).__name__
    return "done"


@settings(max_examples=400, deadline=None)
@given(scripts)
@example(["BEGIN", "INSERT INTO t VALUES (1, 1)", "SAVEPOINT p", "DELETE FROM t", "ROLLBACK TO p", "COMMIT"])
@example(["SAVEPOINT p", "INSERT INTO t VALUES (1, 1)", "ROLLBACK TO p", "INSERT INTO t VALUES (2, 1)", "RELEASE p"])
@example(["BEGIN", "INSERT INTO t VALUES (1, 1)", "INSERT INTO t VALUES (0, 0), (5, 1)", "COMMIT"])
@example(["INSERT OR FAIL INTO t VALUES (0, 0), (1, 1), (2, 4), (3, 5)"])
def test_events_are_what_was_committed(script: list[str]) -> None:
    [producer], [consumer] = create_event_bus(1, capacity=4096)
    with database() as captured, database() as twin:
        captured.execute(SCHEMA)
        twin.execute(SCHEMA + account_triggers())
        replica = Replica()
        lsn = 0
        with SqliteCapture(captured, producer) as capture:
            for statement in [*script, "ROLLBACK"]:
                result = outcome(captured, statement)
                # The twin is a fair witness only while it goes the same way.
                assert outcome(twin, statement) == result
                assert content(twin) == content(captured)
                assert twin.in_transaction == captured.in_transaction
                event(f"{statement.split()[0]} {result}")
                if captured.in_transaction:
                    assert list(replica.apply(consumer, lsn)) == []
                    continue
                expected = Counter(accounted(twin))
                lsn += bool(expected)
                assert Counter(replica.apply(consumer, lsn)) == expected
                assert replica.rows == content(captured)
                assert (capture.lsn, capture.pending, capture.dropped) == (lsn, 0, 0)
