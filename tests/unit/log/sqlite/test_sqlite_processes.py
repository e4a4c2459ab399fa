"""The log in a SQLite file beside other processes, forked children and threads."""

# apsw's stubs name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nodedb_ring.errors import ForkError
from nodedb_ring.log.sqlite import BUSY_SECONDS, CHECKPOINT_BYTES, SqliteEventLog, append_statements
from nodedb_ring.log.sqlite.drivers import DRIVERS

from .numbered import Driver, batch_of, calls_of, numbers


def test_beside_a_process_that_holds_a_read_lock_and_copies_the_wal(
    log: SqliteEventLog, path: Path, driver: Driver
) -> None:
    """As Litestream does: a read transaction that keeps others from a checkpoint, and short write locks."""
    log.append(0, batch_of(1))
    other = DRIVERS[driver](str(path), BUSY_SECONDS)
    try:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM nodedb_ring_log")
        # Several times what an append may find to copy.
        for first in range(2, 42):
            log.append(0, batch_of(first, value=bytes(300_000)))
        assert os.path.getsize(f"{path}-wal") > 2 * CHECKPOINT_BYTES
        log.trim(0, 10)
        other.execute("COMMIT")
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert os.path.getsize(f"{path}-wal") == 0
        log.append(0, batch_of(42))
        assert numbers(log) == list(range(11, 43))
        log.close()
        # Who is not the last to close the file leaves the write-ahead log to the others.
        assert os.path.exists(f"{path}-wal")
    finally:
        other.close()
    with SqliteEventLog(path, driver=driver) as again:
        assert numbers(again) == list(range(11, 43))


def in_child(work: Callable[[], None]) -> int:
    """The exit code of a forked child that ran `work`."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_in_a_forked_child(log: SqliteEventLog, path: Path, driver: Driver) -> None:
    log.append(0, batch_of(1))
    reading = log.read(0, 0, 10)

    def work() -> None:
        for call in calls_of(log, reading):
            with pytest.raises(ForkError, match="inherited by fork"):
                call()
        log.close()

    # As another thread may hold it at that moment: nobody releases it in the child.
    assert log._calls.run(in_child, work) == 0  # pyright: ignore[reportPrivateUsage]
    log.append(0, batch_of(2))
    assert numbers(log) == [1, 2]


@pytest.mark.parametrize("end", ["del log", "pass"])
def test_a_forked_child_that_ends_takes_nothing_from_those_who_opened_the_file_since(
    path: Path, driver: Driver, end: str
) -> None:
    """What Python collects SQLite closes: the child would take itself for the last user, and delete the WAL."""
    script = f"""if True:
        import os, signal
        from nodedb_ring import EventBatch, WriteOp
        from nodedb_ring.log.sqlite import SqliteEventLog

        def batch(n):
            return EventBatch.from_columns(sequence=[n], lsn=[n], op=WriteOp.INSERT, collection="t", row_id="r")

        log = SqliteEventLog({str(path)!r}, driver={driver!r})
        log.append(0, batch(1))
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(write_end)
            os.read(read_end, 1)
            {end}
        else:
            log.close()
            writer = os.fork()
            if writer == 0:
                SqliteEventLog({str(path)!r}, driver={driver!r}).append(0, batch(2))
                os.kill(os.getpid(), signal.SIGKILL)
            os.waitpid(writer, 0)
            os.close(write_end)
            os.waitpid(child, 0)
            print(SqliteEventLog({str(path)!r}, driver={driver!r}).last_sequence(0))
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "2\n", done.stderr


def test_threads_take_turns(log: SqliteEventLog) -> None:
    def work(core_id: int) -> None:
        for n in range(1, 51):
            log.append(core_id, batch_of(n))
            assert numbers(log, core_id) == list(range(1, n + 1))

    threads = [threading.Thread(target=work, args=(core_id,)) for core_id in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [log.last_sequence(core_id) for core_id in range(4)] == [50] * 4


APPENDER = """
import sys
from nodedb_ring import EventBatch, WriteEvent, WriteOp
from nodedb_ring.errors import LogConflictError
from nodedb_ring.log.sqlite import SqliteEventLog

path, driver, first, last, size = sys.argv[1:]
refused = 0
print("ready", flush=True)
sys.stdin.readline()
with SqliteEventLog(path, driver=driver) as log:
    for n in range(int(first), int(last)):
        value = bytes(int(size))
        event = WriteEvent(sequence=n, collection="t", op=WriteOp.INSERT, row_id=str(n), lsn=n, new_value=value)
        try:
            log.append(0, EventBatch.from_events([event]))
            if int(size):
                print(n, flush=True)
        except LogConflictError:
            refused += 1
print(refused)
"""


def appender(path: Path, driver: str, first: int, last: int, size: int = 0) -> subprocess.Popen[str]:
    """A process that appends numbers one by one, once a line is written to it."""
    arguments = [sys.executable, "-c", APPENDER, str(path), driver, str(first), str(last), str(size)]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_of_two_processes_that_append_the_same_number_one_does(path: Path, driver: Driver) -> None:
    """They also make the file at the same moment, with a library each."""
    count = 300
    processes = [appender(path, which, 1, count + 1) for which in (driver, "sqlite3")]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    refused = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    with SqliteEventLog(path, driver=driver) as log:
        there = numbers(log)
    assert there == list(range(1, count + 1))
    assert sum(refused) == count


def test_a_process_killed_while_it_appends_leaves_a_prefix(path: Path, driver: Driver) -> None:
    appended = 0
    for _ in range(3):
        with appender(path, driver, appended + 1, 10**6, size=20_000) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            for _ in range(20):
                appended = int(process.stdout.readline())
            time.sleep(0.03)
            process.send_signal(signal.SIGKILL)
            # Not communicate(): it leaves out what readline() has read ahead.
            lines = process.stdout.read().splitlines(keepends=True)
        assert process.returncode == -signal.SIGKILL
        reported = [int(line) for line in lines if line.endswith("\n")]
        appended = reported[-1] if reported else appended
        with SqliteEventLog(path, driver=driver) as log:
            last = log.last_sequence(0)
            # It may have been killed between an append and saying so.
            assert last in {appended, appended + 1}
            appended = last or 0
            assert numbers(log) == list(range(1, appended + 1))


def test_it_may_be_used_beside_a_capture_of_the_same_library(path: Path) -> None:
    """Two connections of apsw's in one process, one with a transaction of the user's."""
    import apsw

    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE mine(x)")
    with SqliteEventLog(path, driver="apsw") as log:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO mine VALUES (1)")
        for statement, bindings in append_statements(0, batch_of(1, 2)):
            connection.execute(statement, bindings)
        assert numbers(log) == []
        connection.execute("COMMIT")
        assert numbers(log) == [1, 2]
        [(statement, bindings)] = append_statements(0, batch_of(2))
        with pytest.raises(apsw.ConstraintError):
            connection.execute(statement, bindings)
    connection.close()
