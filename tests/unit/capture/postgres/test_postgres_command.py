"""The command ``capture``, as a process beside the database."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from nodedb_ring import EventBus
from nodedb_ring.command.cli import main
from nodedb_ring.log.sqlite import SqliteEventLog

from ...runners import WITHOUT
from .captured import drain, new_slot, until
from .server import Database

SECONDS = 30.0


@pytest.fixture
def arguments(database: Database, tmp_path: Path) -> list[str]:
    database.execute("CREATE TABLE t(id int PRIMARY KEY, a text)", "CREATE PUBLICATION p FOR TABLE t")
    database.execute("INSERT INTO t VALUES (1, 'a')")
    names = ["--publication", "p", "--slot", new_slot(), "--bus", "b", "--directory", str(tmp_path)]
    return ["capture", database.dsn, *names, "--capacity", "1024"]


@contextlib.contextmanager
def running(arguments: list[str]) -> Generator[subprocess.Popen[str], None, None]:
    command = [sys.executable, "-m", "nodedb_ring", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def opened(directory: Path) -> EventBus:
    def exists() -> bool:
        with contextlib.suppress(FileNotFoundError):
            EventBus.open("b", directory=directory).close()
            return True
        return False

    until(exists)
    return EventBus.open("b", directory=directory)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_restart_goes_on(database: Database, arguments: list[str], tmp_path: Path, number: signal.Signals) -> None:
    arguments += ["--snapshot", "--log", str(tmp_path / "log.db")]
    with running(arguments) as process, opened(tmp_path) as bus, bus.consumer(0) as consumer:
        assert drain(consumer, 1).strings("row_id").tolist() == ["1"]
        database.execute("INSERT INTO t VALUES (2, 'b')")
        assert drain(consumer, 1).strings("row_id").tolist() == ["2"]
        process.send_signal(number)
        assert process.wait(SECONDS) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""
        database.execute("INSERT INTO t VALUES (3, 'c')")
        with running(arguments) as again:
            batch = drain(consumer, 1)
            assert (batch.strings("row_id").tolist(), batch.sequence.tolist()) == (["3"], [3])
            again.send_signal(number)
            assert again.wait(SECONDS) == 0
    with SqliteEventLog(tmp_path / "log.db") as log:
        assert log.last_sequence(0) == 3


def test_a_ring_that_is_full_again_and_again_is_not_told(
    database: Database, arguments: list[str], tmp_path: Path
) -> None:
    arguments += ["--snapshot"]
    with running(arguments) as process, opened(tmp_path) as bus, bus.consumer(0) as consumer:
        database.execute("INSERT INTO t SELECT i, 'a' FROM generate_series(2, 10001) i")
        for _ in range(4):
            until(lambda: bus.ring_stats(0).utilization > 80)
            assert len(drain(consumer, 2000)) == 2000
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=SECONDS)
        assert (process.returncode, error) == (0, "")


def test_top_shows_it(
    database: Database, arguments: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    top = ["top", "b", "--directory", str(tmp_path), "--once", "--json", "--interval", "0.1"]

    def shown() -> list[dict[str, Any]]:
        assert main(top) == 0
        captures: list[dict[str, Any]] = json.loads(capfd.readouterr().out)["captures"]
        return captures

    arguments += ["--snapshot"]
    slot = arguments[arguments.index("--slot") + 1]
    with running(arguments) as process, opened(tmp_path) as bus, bus.consumer(0) as consumer:
        [event] = drain(consumer, 1)
        until(lambda: [(each["connected"], each["received"]) for each in shown()] == [(True, 1)])
        [found] = shown()
        assert (found["pid"], found["slot"], found["has_gone"]) == (process.pid, slot, False)
        assert found["position"] >= event.lsn
        process.kill()
        process.wait(SECONDS)
        [left] = shown()
        assert (left["pid"], left["has_gone"]) == (process.pid, True)
        with running(arguments) as again:
            until(lambda: [each["pid"] for each in shown()] == [again.pid])
            again.send_signal(signal.SIGTERM)
            assert again.wait(SECONDS) == 0
        assert shown() == []
    assert list(tmp_path.glob(".*.capture*")) == []


def test_what_is_refused(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("nodedb-ring capture: slot 'slot_")
    assert error.count("\n") == 1
    assert main([*arguments, "--log", "nats://localhost:1"]) == 2
    assert "names no stream; write nats://localhost:1/STREAM" in capsys.readouterr().err
    assert main([*arguments, "--core", "5"]) == 2
    assert "core" in capsys.readouterr().err
    wrong = ["capture", "host=127.0.0.1 port=1", *arguments[2:]]
    assert main(wrong) == 2
    assert "cannot be reached" in capsys.readouterr().err


def test_the_slot_is_made_when_asked_for(database: Database, arguments: list[str], tmp_path: Path) -> None:
    with (
        running([*arguments, "--create-slot"]),
        opened(tmp_path) as bus,
        bus.consumer(0) as consumer,
    ):
        until(
            lambda: (
                database.execute("SELECT count(*) FROM pg_replication_slots WHERE active AND slot_name LIKE 'slot%'")
                != [(0,)]
            )
        )
        database.execute("INSERT INTO t VALUES (2, 'b')")
        assert drain(consumer, 1).strings("row_id").tolist() == ["2"]


def test_without_psycopg2(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, "psycopg2", *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (
        2,
        "nodedb-ring capture: needs psycopg2, which is not installed: pip install 'nodedb_ring[postgres]'\n",
    )
