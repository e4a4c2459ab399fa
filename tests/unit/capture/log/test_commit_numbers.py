"""The lsn of logged events: one count of all captured commits of a database, whoever makes them."""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import apsw
import pytest

from nodedb_ring import EventBatch, FieldError, StoredCommit, create_event_bus
from nodedb_ring.capture import SqliteCapture
from nodedb_ring.log.sqlite import SqliteEventLog
from tests.unit.builders import event

from .logged import LoggedCore, all_logged


def second_capture(core: LoggedCore, connection: apsw.Connection | None = None, core_id: int = 1) -> SqliteCapture:
    producers, _ = create_event_bus(core_id + 1)
    if connection is None:
        connection = apsw.Connection(core.connection.filename)
        connection.set_busy_timeout(10000)
    return SqliteCapture(connection, producers[core_id], log=core.log)


def lsns(log: SqliteEventLog, core_id: int) -> list[int]:
    return [each.lsn for each in all_logged(log, core_id)]


def test_two_connections_share_one_count(core: LoggedCore) -> None:
    other = apsw.Connection(core.connection.filename)
    with second_capture(core, other) as second:
        for key in range(6):
            (core.connection, other)[key % 2].execute(f"INSERT INTO t VALUES ({key}, {key})")
            assert (core.capture.lsn, second.lsn)[key % 2] == key + 1
    other.close()
    assert [lsns(core.log, core_id) for core_id in (0, 1)] == [[1, 3, 5], [2, 4, 6]]
    assert core.log.commits.last() == 6


def test_a_transaction_that_is_undone_uses_no_number(core: LoggedCore) -> None:
    core.sql("INSERT INTO t VALUES (1, 1)")
    core.sql("BEGIN; INSERT INTO t VALUES (2, 2); ROLLBACK")
    core.sql("INSERT INTO t VALUES (3, 3)")
    assert lsns(core.log, 0) == [1, 2]


@pytest.mark.parametrize("trimmed", [(0,), (1,), (0, 1)])
def test_a_trim_does_not_lose_the_number(core: LoggedCore, trimmed: tuple[int, ...]) -> None:
    with second_capture(core) as second:
        core.sql("INSERT INTO t VALUES (1, 1)")
        core.sql("INSERT INTO t VALUES (2, 2)")
        second._connection.execute("INSERT INTO t VALUES (3, 3)")  # type: ignore[union-attr] # pyright: ignore
        for core_id in trimmed:
            core.log.trim(core_id, 100)
        assert core.log.commits.last() == 3
        core.sql("INSERT INTO t VALUES (4, 4)")
        assert core.log.commits.last() == 4
    assert lsns(core.log, 0)[-1] == 4


def test_what_others_append_takes_no_number(core: LoggedCore) -> None:
    core.sql("INSERT INTO t VALUES (1, 1)")
    core.log.append(3, EventBatch.from_events([event(1, lsn=700)]))
    core.sql("INSERT INTO t VALUES (2, 2)")
    core.log.append(3, EventBatch.from_events([event(2, lsn=701)]))
    core.log.append(3, EventBatch.from_events([event(3, lsn=702)]))
    core.log.trim(0, 100)
    assert core.log.commits.last() == 2
    core.sql("INSERT INTO t VALUES (3, 3)")
    assert lsns(core.log, 0) == [3]
    assert core.log.commits.after(3, 0) == StoredCommit(0, 1)
    assert core.log.commits.after(0, 0) == StoredCommit(3, 3)
    assert [core.log.commits.before(0, sequence) for sequence in (2, 3)] == [2, 3]
    assert core.log.commits.after(0, 3) is None


def test_two_captures_of_one_transaction_have_a_number_each(core: LoggedCore) -> None:
    core.sql("CREATE TABLE u(x)")
    core.capture.close()
    core.start(tables=["t"])
    producers, _ = create_event_bus(2)
    with SqliteCapture(core.connection, producers[1], tables=["u"], log=core.log):
        for key in range(3):
            core.sql(f"BEGIN; INSERT INTO u VALUES (1); INSERT INTO t VALUES ({key}, {key}); COMMIT")
    assert sorted(lsns(core.log, 0) + lsns(core.log, 1)) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("core", ["delete"], indirect=True)
def test_a_commit_that_is_repeated_has_the_number_that_is_next(core: LoggedCore) -> None:
    """A reader keeps a commit from finishing, with a rollback journal. Two captures have numbered it by then."""
    core.sql("CREATE TABLE u(x)")
    core.capture.close()
    core.start(tables=["t"])
    producers, _ = create_event_bus(2)
    with SqliteCapture(core.connection, producers[1], tables=["u"], log=core.log):
        reader = apsw.Connection(core.connection.filename)
        reading = reader.execute("BEGIN; SELECT * FROM t UNION SELECT 1, 2")
        next(reading)
        core.sql("BEGIN; INSERT INTO t VALUES (1, 1); INSERT INTO u VALUES (1)")
        for _ in range(2):
            with pytest.raises(apsw.BusyError):
                core.sql("COMMIT")
        reader.close(True)
        core.sql("COMMIT")
        assert (lsns(core.log, 0), lsns(core.log, 1)) == ([1], [2])
        core.sql("INSERT INTO t VALUES (2, 2)")
        assert lsns(core.log, 0) == [1, 3]


def test_first_lsn_is_the_least_number(core: LoggedCore) -> None:
    core.sql("INSERT INTO t VALUES (1, 1)")
    core.capture.close()
    core.start(first_lsn=1)
    core.sql("INSERT INTO t VALUES (2, 2)")
    core.capture.close()
    core.start(first_lsn=50)
    core.sql("INSERT INTO t VALUES (3, 3)")
    assert lsns(core.log, 0) == [1, 2, 50]
    core.capture.close()
    with pytest.raises(FieldError, match=f"lsn {2**63}: a log in SQLite stores numbers up to"):
        core.start(first_lsn=2**63)
