"""The demo with PostgreSQL: the same agreement, and nothing of it is left on the server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

import psycopg2
import pytest

from nodedb_ring import EventBatch, create_event_bus
from nodedb_ring.capture.postgres import PostgresCapture
from nodedb_ring.command.cli import main
from nodedb_ring.command.demo.flights import Flight
from nodedb_ring.command.demo.outcome import Outcome
from nodedb_ring.command.demo.postgres import run
from nodedb_ring.command.demo.postgres_database import NAME, demo_dsn, demo_objects, end_position, write_flights
from nodedb_ring.command.demo.report import Verdict
from nodedb_ring.command.demo.totals import CarrierTotals
from nodedb_ring.command.demo.view import CarrierView
from nodedb_ring.errors import CaptureError
from tests.unit.capture.postgres.server import Database, PostgresServer
from tests.unit.runners import WITHOUT

from .demo_accounts import reckoned_from_the_file, report
from .test_demo_processes import until

ROWS = 5000
SECONDS = 50
pytestmark = pytest.mark.usefixtures("no_terminal")

# The command with a thousand flights, which reads no file for them.
FEW = """
import os, sys
from nodedb_ring.command.cli import main
from nodedb_ring.command.demo import command, postgres
from nodedb_ring.command.demo.flights import Flight

command.load_flights = lambda most: [
    Flight(number, "2013-01-01", "UA", number, None, ("EWR", "JFK")[number % 2], "IAH", 515, 517, 2)
    for number in range(1000)
]
"""
# Its writers wait after some flights, until they are told to end. Then one of them sends the signal AGAIN, while the
# demo waits for it.
HELD = """
write = postgres.write_flights

def write_some(dsn, flights, stop):
    write(dsn, flights[:100], stop)
    stop.wait()
    if flights[0].origin == "EWR":
        os.kill(os.getpid(), int(os.environ["AGAIN"]))

postgres.write_flights = write_some
"""
RUN = "sys.exit(main(sys.argv[1:]))"


def demo(database: Database, *arguments: str) -> int:
    return main(["demo", f"--postgres={database.dsn}", f"--rows={ROWS}", *arguments])


def made(database: Database) -> list[str]:
    """What there is on the server by the demo's name."""
    return [
        what
        for what, table, column in (
            ("slot", "pg_replication_slots", "slot_name"),
            ("publication", "pg_publication", "pubname"),
            ("schema", "pg_namespace", "nspname"),
        )
        if database.execute(f"SELECT FROM {table} WHERE {column} = '{NAME}'")
    ]


@pytest.fixture(autouse=True)
def nothing_is_left(database: Database) -> Iterator[None]:
    """Whatever a test does."""
    yield
    assert made(database) == []


# The run.


def run_quietly(flights: list[Flight], database: Database, capacity: int = 65_536, arena: int | None = None) -> Outcome:
    through: list[int] = []
    dsn = demo_dsn(database.dsn)
    [producer], _ = bus = create_event_bus(1, capacity, arena_bytes=arena)
    capture = PostgresCapture(dsn, producer, publication=NAME, slot=NAME)
    with demo_objects(dsn, capture):
        assert made(database) == ["slot", "publication", "schema"]
        outcome = run(flights, dsn, bus, capture, through.append)
    assert through == sorted(through)
    assert through[-1] == 2 * len(flights)
    return outcome


@pytest.mark.parametrize("capacity", [65_536, 64])
def test_view_database_and_file_agree(capacity: int, flights: list[Flight], database: Database) -> None:
    outcome = run_quietly(flights[:ROWS], database, capacity)
    expected = reckoned_from_the_file(ROWS)
    assert outcome.view == expected
    assert outcome.database == expected
    assert outcome.missing == 0
    [core] = outcome.cores
    assert sum(core.events.values()) == core.producer.emitted == 2 * ROWS
    # The capture waits for room in a full ring, and nothing is dropped.
    assert core.producer.dropped == 0
    verdict, text = report(outcome)
    assert verdict is Verdict.AGREE
    assert "core 0 (EWR, JFK, LGA)" in text
    assert "total" not in text


def test_all_is_written_before_the_first_event_is_in_the_view(
    monkeypatch: pytest.MonkeyPatch, flights: list[Flight], database: Database
) -> None:
    """The writers do not wait for the ring, which is full meanwhile, and what it has not taken yet is waited for."""
    is_written = threading.Event()

    def end_when_written(dsn: str) -> int:
        is_written.set()
        return end_position(dsn)

    class LateView(CarrierView):
        """Takes no batch before all is written."""

        def apply(self, batch: EventBatch) -> None:
            assert is_written.wait(SECONDS)
            super().apply(batch)

    monkeypatch.setattr("nodedb_ring.command.demo.postgres.end_position", end_when_written)
    monkeypatch.setattr("nodedb_ring.command.demo.postgres.CarrierView", LateView)
    outcome = run_quietly(flights[:ROWS], database, capacity=64)
    assert outcome.view == outcome.database == reckoned_from_the_file(ROWS)


def test_what_ends_the_capture_ends_the_run(flights: list[Flight], database: Database) -> None:
    with pytest.raises(CaptureError, match="is larger than the arena of core 0"):
        run_quietly(flights[:ROWS], database, capacity=64, arena=64)


class FailingView(CarrierView):
    """Cannot continue."""

    def apply(self, batch: EventBatch) -> None:
        raise ArithmeticError("no more")


def test_a_view_that_fails_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, flights: list[Flight], database: Database
) -> None:
    monkeypatch.setattr("nodedb_ring.command.demo.postgres.CarrierView", FailingView)
    with pytest.raises(ArithmeticError, match="no more"):
        run_quietly(flights[:ROWS], database)


# The command.


@pytest.mark.usefixtures("at_hand")
def test_command_agrees_and_writes_plain_text(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert demo(database) == 0
        output, errors = capsys.readouterr()
        assert errors == ""
        lines = output.splitlines()
        assert lines[:2] == [
            f"schema, publication and slot {NAME} are made, and removed at the end",
            f"writing {ROWS:,} flights into PostgreSQL, by 2 connections",
        ]
        carriers = len(reckoned_from_the_file(ROWS))
        assert lines[-1] == f"The view and the database agree exactly: all {carriers} carriers are equal."
        assert max(map(len, lines)) <= 80
        assert made(database) == []


class MiscountingView(CarrierView):
    """Takes every flight of United for one of Delta's."""

    def totals(self) -> dict[str, CarrierTotals]:
        totals = super().totals()
        totals["DL"] = totals.pop("UA")
        return totals


@pytest.mark.usefixtures("at_hand")
def test_command_tells_a_wrong_view(
    monkeypatch: pytest.MonkeyPatch, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nodedb_ring.command.demo.postgres.CarrierView", MiscountingView)
    assert demo(database) == 3
    output = capsys.readouterr().out
    assert "UA: the view says None, the database CarrierTotals(" in output
    assert output.endswith("The view and the database DISAGREE, and no overflow explains it: a bug.\n")


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    """The only line."""
    output, errors = capsys.readouterr()
    assert output == ""
    [line] = errors.splitlines()
    assert line.startswith("nodedb-ring demo: ")
    return line


@pytest.mark.usefixtures("at_hand")
@pytest.mark.parametrize(
    ("what", "statement"),
    [
        ("schema", f"CREATE SCHEMA {NAME}"),
        ("publication", f"CREATE PUBLICATION {NAME}"),
        ("slot", f"SELECT pg_create_logical_replication_slot('{NAME}', 'pgoutput')"),
    ],
)
def test_what_is_there_stays_and_is_named(
    what: str, statement: str, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    database.execute(statement)
    assert demo(database) == 2
    line = refused(capsys)
    assert f": {what} {NAME}: exists already" in line
    assert made(database) == [what]
    remedy = line.rpartition("remove it: ")[2]
    database.execute(*remedy.split("; "))
    assert demo(database) == 0


@pytest.mark.usefixtures("at_hand")
def test_what_a_killed_demo_left_is_removed_by_the_line_that_names_it(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FEW + HELD + RUN, "demo", f"--postgres={database.dsn}"],
        stdout=subprocess.DEVNULL,
    ) as killed:
        try:
            until(lambda: written(database) > 0)
        finally:
            killed.kill()
    assert demo(database) == 2
    line = refused(capsys)
    assert f": slot and publication and schema {NAME}: exists already" in line
    until(lambda: not database.execute("SELECT FROM pg_replication_slots WHERE active"))
    database.execute(*line.rpartition("remove it: ")[2].split("; "))


@pytest.mark.usefixtures("at_hand")
def test_a_user_without_rights_is_refused_and_nothing_stays(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    user = f"user_of_{database.name}"
    database.execute(f"CREATE ROLE {user} LOGIN")
    dsn = database.dsn.replace("user=postgres", f"user={user}")
    try:
        assert main(["demo", f"--postgres={dsn}", "--rows=1"]) == 2
        assert "permission denied for database" in refused(capsys)
        database.execute(f"GRANT CREATE ON DATABASE {database.name} TO {user}")
        assert main(["demo", f"--postgres={dsn}", "--rows=1"]) == 2
        assert f"slot '{NAME}' was not created: must be superuser or replication role" in refused(capsys)
    finally:
        database.execute(f"DROP OWNED BY {user}", f"DROP ROLE {user}")


@pytest.mark.usefixtures("at_hand")
def test_a_transaction_that_stays_open_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nodedb_ring.command.demo.postgres_database._LOCK_TIMEOUT", "100ms")
    with database.session() as cursor:
        cursor.execute("BEGIN; SELECT txid_current()")
        assert demo(database) == 2
        assert f"slot '{NAME}' was not created: canceling statement due to lock timeout" in refused(capsys)


@pytest.mark.usefixtures("at_hand")
def test_a_server_without_logical_decoding_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with PostgresServer(wal_level="replica") as server:
        assert demo(Database(server, "postgres")) == 2
        assert "wal_level is replica: changes cannot be decoded; run ALTER SYSTEM SET wal_level" in refused(capsys)


@pytest.mark.usefixtures("at_hand")
def test_a_server_that_dies_leaves_a_line_that_says_what_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = PostgresServer()
    is_dead = threading.Event()

    class Deadly(CarrierView):
        """Kills the server."""

        def apply(self, batch: EventBatch) -> None:
            if not is_dead.is_set():
                server.kill()
                is_dead.set()
            super().apply(batch)

    def write_in_two_parts(dsn: str, flights: Sequence[Flight], stop: threading.Event) -> None:
        write_flights(dsn, flights[:100], stop)
        is_dead.wait(SECONDS)
        write_flights(dsn, flights[100:], stop)

    monkeypatch.setattr("nodedb_ring.command.demo.postgres.CarrierView", Deadly)
    monkeypatch.setattr("nodedb_ring.command.demo.postgres.write_flights", write_in_two_parts)
    try:
        server.start()
        assert demo(Database(server, "postgres")) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert f"not removed from the server: slot and publication and schema {NAME}; remove it: SELECT" in line
        server.start()
        left = Database(server, "postgres")
        assert made(left) == ["slot", "publication", "schema"]
        left.execute(*line.partition("remove it: ")[2].partition(" (user=")[0].split("; "))
        assert made(left) == []
    finally:
        server.remove()


@pytest.mark.usefixtures("at_hand")
def test_a_server_that_is_not_there_and_a_dsn_that_is_none(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--rows=1", "--postgres=host=127.0.0.1 port=1"]) == 2
    assert "host=127.0.0.1 port=1: " in refused(capsys)
    assert main(["demo", "--rows=1", "--postgres=flights"]) == 2
    assert "takes a DSN, such as postgresql://user@host/database" in refused(capsys)


@pytest.mark.parametrize("option", ["--keep=f", "--log=f", "--processes", "--chaos"])
def test_options_of_sqlite_are_refused(option: str, database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo(database, option) == 2
    assert refused(capsys) == (
        f"nodedb-ring demo: argument --postgres: not allowed with argument {option.partition('=')[0]}"
    )


def test_without_psycopg2(database: Database) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, "psycopg2", "demo", f"--postgres={database.dsn}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        "nodedb-ring demo: needs psycopg2 for --postgres, which is not installed:"
        " pip install 'nodedb_ring[postgres]'\n",
    )


# Signals.


def written(database: Database) -> int:
    try:
        [(count,)] = database.execute(f"SELECT count(*) FROM {NAME}.flights")
    except psycopg2.errors.UndefinedTable:
        return 0
    return int(count)


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "nodedb-ring: interrupted\n"), (signal.SIGTERM, 143, "")],
)
def test_a_signal_and_another_one_end_it_and_remove_all(
    number: signal.Signals, code: int, said: str, database: Database
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FEW + HELD + RUN, "demo", f"--postgres={database.dsn}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"AGAIN": str(int(number))},
    ) as process:
        try:
            until(lambda: written(database) > 0)
            assert made(database) == ["slot", "publication", "schema"]
            process.send_signal(number)
            output, errors = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert (process.returncode, errors) == (code, said)
    assert "The view" not in output


@pytest.mark.usefixtures("at_hand")
@pytest.mark.parametrize("before", [True, False])
def test_ctrl_c_while_the_slot_is_made(
    before: bool, monkeypatch: pytest.MonkeyPatch, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    ensure_slot = PostgresCapture.ensure_slot

    def interrupted(capture: PostgresCapture) -> bool:
        if before:
            signal.raise_signal(signal.SIGINT)
        is_made = ensure_slot(capture)
        if not before:
            signal.raise_signal(signal.SIGINT)
        return is_made

    monkeypatch.setattr(PostgresCapture, "ensure_slot", interrupted)
    assert demo(database) == 130
    assert capsys.readouterr() == ("", "nodedb-ring: interrupted\n")


@pytest.mark.usefixtures("at_hand")
def test_ctrl_c_while_all_is_removed(
    monkeypatch: pytest.MonkeyPatch, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    drop_slot = PostgresCapture.drop_slot

    def interrupted(capture: PostgresCapture) -> bool:
        signal.raise_signal(signal.SIGINT)
        return drop_slot(capture)

    monkeypatch.setattr(PostgresCapture, "drop_slot", interrupted)
    assert demo(database) == 130
    assert capsys.readouterr().err == "nodedb-ring: interrupted\n"


def test_into_a_closed_pipe_it_is_silent_and_removes_all(database: Database) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-c", FEW + RUN, "demo", f"--postgres={database.dsn}"],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
