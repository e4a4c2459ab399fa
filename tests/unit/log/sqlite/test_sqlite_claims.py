"""The log in a SQLite file: a group has one follower at a time per core."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nodedb_ring import LogError, RoleTaken, follow
from nodedb_ring.log.sqlite import SqliteEventLog

from .numbered import Driver, run_of

HOLDER = """
import sys, time
from nodedb_ring import follow
from nodedb_ring.log.sqlite import SqliteEventLog

log = SqliteEventLog(sys.argv[1])
follower = follow(None, log, core_id=0, group="g")
print("held", flush=True)
time.sleep(600)
"""


def test_a_second_follower_is_refused_and_told_who_follows(log: SqliteEventLog, path: Path, driver: Driver) -> None:
    log.append(0, run_of(1, 10))
    with SqliteEventLog(path, driver=driver) as other, follow(None, log, core_id=0, group="g") as first:
        for each in (log, other):
            with pytest.raises(
                RoleTaken, match=rf"core 0 is followed for group 'g' by process {os.getpid()} on "
            ) as raised:
                follow(None, each, core_id=0, group="g")
            assert raised.value.pid == os.getpid()
            assert socket.gethostname() in str(raised.value)
        # Of other cores and groups it says nothing.
        follow(None, other, core_id=1, group="g").close()
        follow(None, other, core_id=0, group="h").close()
        first.close()
        follow(None, other, core_id=0, group="g").close()


def test_a_follower_that_nobody_has_any_more_holds_nothing(log: SqliteEventLog) -> None:
    follower = follow(None, log, core_id=0, group="g")
    del follower
    gc.collect()
    follow(None, log, core_id=0, group="g").close()


def test_a_follower_that_could_not_begin_holds_nothing(log: SqliteEventLog) -> None:
    with pytest.raises(LogError):
        follow(None, log, core_id=0, group="g", after=10)
    follow(None, log, core_id=0, group="g").close()


def test_a_dead_holder_is_succeeded_at_once(log: SqliteEventLog, path: Path) -> None:
    log.append(0, run_of(1, 10))
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RoleTaken, match=f"process {holder.pid} on ") as raised:
            follow(None, log, core_id=0, group="g")
        assert raised.value.pid == holder.pid
        # Stopped is not dead.
        holder.send_signal(signal.SIGSTOP)
        with pytest.raises(RoleTaken):
            follow(None, log, core_id=0, group="g")
        holder.kill()
        holder.wait()
        follow(None, log, core_id=0, group="g").close()


def test_a_forked_child_does_not_keep_it(log: SqliteEventLog) -> None:
    """Its copy of the descriptor would hold the lock for as long as it lives."""
    follower = follow(None, log, core_id=0, group="g")
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        with pytest.raises(RoleTaken):
            follow(None, log, core_id=0, group="g")
        follower.close()
        follow(None, log, core_id=0, group="g").close()
    finally:
        os.write(go[1], b"x")
        os.waitpid(child, 0)
        for fd in (*ready, *go):
            os.close(fd)


def test_the_slower_of_two_does_not_move_a_watermark_back(log: SqliteEventLog, path: Path, driver: Driver) -> None:
    log.append(0, run_of(1, 600))
    with SqliteEventLog(path, driver=driver) as other:
        slow = follow(None, log, core_id=0, group="g", max_events=100)
        slow.next_batch(0)
        slow._release()  # pyright: ignore[reportPrivateUsage] # as if it had been closed, and commits still
        with follow(None, other, core_id=0, group="g", max_events=600) as fast:
            fast.next_batch(0)
            fast.commit()
        with pytest.raises(LogError, match="it stands at 600 already"):
            slow.commit()
        assert other.load_watermark("g", 0) == 600


def test_a_follower_that_begins_earlier_leaves_the_watermark_until_it_has_passed_it(log: SqliteEventLog) -> None:
    log.append(0, run_of(1, 10))
    log.save_watermark("g", 0, 6)
    with follow(None, log, core_id=0, group="g", after=2, max_events=3) as follower:
        for expected in (6, 8, 10):
            follower.next_batch(0)
            follower.commit()
            assert log.load_watermark("g", 0) == expected


def test_a_read_only_log_claims_nothing(log: SqliteEventLog, path: Path, driver: Driver) -> None:
    log.append(0, run_of(1, 10))
    with (
        SqliteEventLog(path, driver=driver, read_only=True) as reader,
        follow(None, log, core_id=0, group="g"),
        follow(None, reader, core_id=0, group="g") as follower,
    ):
        assert len(follower.next_batch(0)) == 10
        with pytest.raises(LogError, match=r"watermark 10 of group 'g', core 0, was not saved: it is read-only"):
            follower.commit()
