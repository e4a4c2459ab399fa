"""Commits of connections that are not captured are noticed, and those of captures and of the log itself are not."""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any, cast

import apsw
import pytest

from nodedb_ring import EventBatch, create_event_bus, follow
from nodedb_ring.capture import CaptureError, SqliteCapture
from tests.unit.builders import event

from .logged import LoggedCore

MESSAGE = "another connection has committed to it that is not captured"


def other(core: LoggedCore) -> apsw.Connection:
    connection = apsw.Connection(core.connection.filename)
    connection.set_busy_timeout(10000)
    return connection


def raising(core: LoggedCore) -> LoggedCore:
    core.capture.close()
    return core.start(on_foreign_commit="raise")


def test_a_foreign_commit_is_an_error_once(core: LoggedCore) -> None:
    raising(core)
    core.sql("INSERT INTO t VALUES (1, 1)")
    foreign = other(core)
    foreign.execute("INSERT INTO t VALUES (2, 2)")
    with pytest.raises(CaptureError, match=MESSAGE):
        core.sql("INSERT INTO t VALUES (3, 3)")
    assert core.rows("SELECT a FROM t") == [1, 2]
    core.sql("INSERT INTO t VALUES (3, 3)")
    foreign.execute("DELETE FROM t WHERE a = 2")
    core.sql("BEGIN")
    with pytest.raises(CaptureError, match=MESSAGE):
        core.sql("UPDATE t SET b = 7")
    core.sql("ROLLBACK")
    core.sql("UPDATE t SET b = b + 7")
    assert [event.sequence for event in core.logged()] == [1, 2, 3, 4]
    foreign.close()


def test_one_before_the_first_transaction(core: LoggedCore) -> None:
    raising(core)
    other(core).execute("INSERT INTO t VALUES (2, 2)")
    with pytest.raises(CaptureError, match=MESSAGE):
        core.sql("INSERT INTO t VALUES (3, 3)")


def test_one_of_another_process(core: LoggedCore) -> None:
    raising(core)
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('INSERT INTO t VALUES (2, 2)'); c.commit()"
    )
    subprocess.run([sys.executable, "-c", program, core.connection.filename], check=True)
    with pytest.raises(CaptureError, match=MESSAGE):
        core.sql("INSERT INTO t VALUES (3, 3)")


def test_a_warning_by_default(core: LoggedCore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    other(core).execute("INSERT INTO t VALUES (2, 2)")
    for key in (3, 4):
        core.sql(f"INSERT INTO t VALUES ({key}, {key})")
    assert len([record for record in caplog.records if MESSAGE in record.message]) == 1
    core.capture.close()
    core.start(on_foreign_commit="ignore")
    other(core).execute("INSERT INTO t VALUES (5, 5)")
    core.sql("INSERT INTO t VALUES (6, 6)")
    assert len([record for record in caplog.records if MESSAGE in record.message]) == 1


@pytest.mark.parametrize("core_id", [0, 1])
def test_captures_of_one_log_know_each_other(core: LoggedCore, core_id: int) -> None:
    """Even of one core: its rings are private, and its numbers are the log's."""
    raising(core)
    second = other(core)
    producers, _ = create_event_bus(2)
    with SqliteCapture(second, producers[core_id], log=core.log, on_foreign_commit="raise"):
        for key in range(12):
            (core.connection, second)[key // 2 % 2].execute(f"INSERT INTO t VALUES ({key}, {key})")
    second.close()


def test_own_commits_are_not_foreign(core: LoggedCore) -> None:
    raising(core)
    for key in range(3):
        core.sql(f"CREATE TABLE u{key}(a)")
        core.sql("CREATE TEMP TABLE IF NOT EXISTS v(a)")
        core.sql("INSERT INTO v VALUES (1)")
        core.sql("PRAGMA user_version = 7")
        core.sql(f"INSERT INTO t VALUES ({key}, {key})")


WORK: dict[str, Callable[[LoggedCore], object]] = {
    "append": lambda core: core.log.append(5, EventBatch.from_events([event((core.log.last_sequence(5) or 0) + 1)])),
    "watermark": lambda core: core.log.save_watermark("g", 0, (core.log.load_watermark("g", 0) or 0) + 1),
    "trim": lambda core: core.log.trim(0, (core.log.last_sequence(0) or 1) - 1),
    "follow": lambda core: follow(None, core.log, core_id=0, group="f").close(),
}


@pytest.mark.parametrize("kind", WORK)
def test_the_logs_own_work_is_not_foreign(core: LoggedCore, kind: str) -> None:
    raising(core)
    for key in range(4):
        core.sql(f"INSERT INTO t VALUES ({key}, {key})")
        WORK[kind](core)
    core.sql("INSERT INTO t VALUES (77, 77)")
    other(core).execute("INSERT INTO t VALUES (99, 99)")
    with pytest.raises(CaptureError, match=MESSAGE):
        core.sql("INSERT INTO t VALUES (100, 100)")


def test_without_a_log(core: LoggedCore, caplog: pytest.LogCaptureFixture) -> None:
    core.capture.close()
    [producer], _ = create_event_bus(1)
    foreign = other(core)
    with SqliteCapture(core.connection, producer):
        foreign.execute("INSERT INTO t VALUES (1, 1)")
        core.sql("INSERT INTO t VALUES (2, 2)")
    assert caplog.records == []
    with SqliteCapture(core.connection, producer, on_foreign_commit="raise"):
        core.sql("INSERT INTO t VALUES (3, 3)")
        foreign.execute("INSERT INTO t VALUES (4, 4)")
        with pytest.raises(CaptureError, match=f"{MESSAGE}.*or pass on_foreign_commit='ignore'"):
            core.sql("INSERT INTO t VALUES (5, 5)")
    with pytest.raises(ValueError, match="on_foreign_commit 'stop': must be"):
        SqliteCapture(core.connection, producer, on_foreign_commit=cast("Any", "stop"))
