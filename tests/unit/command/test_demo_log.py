"""The demo with logs: despite drops and killed processes, the view agrees with the databases exactly."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from nodedb_ring import EventBatch, EventBus, WriteOp, create_event_bus
from nodedb_ring.command.cli import main
from nodedb_ring.command.demo import durable
from nodedb_ring.command.demo.database import open_log, write_flights
from nodedb_ring.command.demo.flights import AIRPORTS, Flight
from nodedb_ring.command.demo.outcome import Outcome
from nodedb_ring.command.demo.report import Verdict
from nodedb_ring.command.demo.run import run
from nodedb_ring.command.demo.snapshot import Snapshot
from nodedb_ring.command.demo.totals import CarrierTotals
from nodedb_ring.command.demo.view import CarrierView
from nodedb_ring.log.sqlite import SqliteEventLog
from nodedb_ring.recovery.state import FollowState
from tests.unit.runners import SECONDS, Running

from .demo_accounts import reckoned_from_the_file, report
from .test_demo_processes import ROLES, at_work, buses_of, kill, owners

ROWS = 5000
MANY = 20_000  # enough that nobody has ended before a kill comes
pytestmark = pytest.mark.usefixtures("no_terminal")


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[EventBus]:
    (tmp_path / "bus").mkdir()
    with EventBus.create("flights", len(AIRPORTS), 64, directory=tmp_path / "bus") as made:
        yield made
        made.unlink()


def test_a_log_in_a_new_file_leaves_pages_of_4_kib(tmp_path: Path) -> None:
    open_log(tmp_path / "db").close()
    with contextlib.closing(sqlite3.connect(tmp_path / "db")) as connection:
        assert connection.execute("PRAGMA page_size").fetchall() == [(4096,)]


def agrees_though_it_dropped(outcome: Outcome, rows: int) -> None:
    expected = reckoned_from_the_file(rows)
    assert outcome.view == expected
    assert outcome.database == expected
    assert outcome.missing == 0
    verdict, text = report(outcome)
    assert verdict is Verdict.AGREE
    assert sum(core.recovered.last_sequence for core in outcome.cores if core.recovered) == 2 * rows
    for core in outcome.cores:
        assert core.recovered is not None
        assert core.producer.dropped > ROWS // 10
        assert core.recovered.replayed >= core.producer.dropped // 2
        assert core.recovered.gaps >= core.recovered.episodes > 0
        assert f" {core.producer.dropped:,} " in text
        assert f" {core.recovered.replayed:,} " in text


# The run in one process.


@pytest.fixture
def logs_asked_before_the_first_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower that asks the log between a commit and its emits would replay what comes by the ring, too."""
    # The writers, and the thread that reads all cores, when it has asked for each.
    asked = threading.Barrier(len(AIRPORTS) + 1)
    ask = FollowState._ask_last  # pyright: ignore[reportPrivateUsage]
    first: list[FollowState] = []

    def ask_and_wait(state: FollowState) -> None:
        is_first = state._last_asked is None  # pyright: ignore[reportPrivateUsage]
        ask(state)
        if is_first:
            first.append(state)
            if len(first) == len(AIRPORTS):
                asked.wait(SECONDS)

    def write_then(*arguments: Any) -> None:
        asked.wait(SECONDS)
        write_flights(*arguments)

    monkeypatch.setattr("nodedb_ring.recovery.state.LAST_SECONDS", math.inf)
    monkeypatch.setattr(FollowState, "_ask_last", ask_and_wait)
    monkeypatch.setattr("nodedb_ring.command.demo.run.write_flights", write_then)


@pytest.mark.usefixtures("logs_asked_before_the_first_commit")
def test_dropped_events_are_read_from_the_log(flights: list[Flight], databases: tuple[Path, Path]) -> None:
    through: list[int] = []
    outcome = run(flights[:ROWS], databases, create_event_bus(2, 64), through.append, logged=True)
    agrees_though_it_dropped(outcome, ROWS)
    assert through[-1] == 2 * ROWS
    for core in outcome.cores:
        assert core.recovered is not None
        # Each event once: from the ring or, if that dropped it, from the log.
        assert core.recovered.replayed == core.producer.dropped
        assert sum(core.events.values()) == core.recovered.last_sequence == core.producer.emitted_sequence


def test_the_database_has_its_events_and_how_far_the_view_came(
    flights: list[Flight], databases: tuple[Path, Path]
) -> None:
    outcome = run(flights[:ROWS], databases, create_event_bus(2, 64), lambda done: None, logged=True)
    for number, core in enumerate(outcome.cores):
        with SqliteEventLog(databases[number]) as log:
            last = log.last_sequence(number)
            assert last is not None
            assert last == sum(core.events.values())
            assert log.load_watermark("demo", number) == last
            view = CarrierView()
            for batch in log.read(number, 0, last):
                view.apply(batch)
            assert view.totals() == core.view


class ForgetfulView(CarrierView):
    """Never sees the first event of a batch, though it was delivered."""

    def apply(self, batch: EventBatch) -> None:
        super().apply(batch[1:])


def test_no_drop_excuses_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, flights: list[Flight], databases: tuple[Path, Path]
) -> None:
    monkeypatch.setattr("nodedb_ring.command.demo.run.CarrierView", ForgetfulView)
    outcome = run(flights[:ROWS], databases, create_event_bus(2, 64), lambda done: None, logged=True)
    verdict, text = report(outcome)
    assert verdict is Verdict.DISAGREE
    for number, core in enumerate(outcome.cores):
        assert core.missing > 0
        assert f"core {number}: the view is missing {core.missing:,} events, but the log has them all." in text


# What a restart begins from.


class Stop(threading.Event):
    """Is set once it has been asked so many times."""

    def __init__(self, asked: int) -> None:
        super().__init__()
        self.left = asked

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("logged", [True, False])
def test_a_writer_continues_after_the_rows_in_its_database(
    logged: bool, flights: list[Flight], databases: tuple[Path, Path]
) -> None:
    newark = [flight for flight in flights[:ROWS] if flight.origin == "EWR"]
    written = [0]
    for transactions in (0, 1, 2, 100):
        producers, _ = create_event_bus(1, 65_536)
        with contextlib.ExitStack() as ends:
            log = ends.enter_context(SqliteEventLog(databases[0], driver="apsw")) if logged else None
            write_flights(databases[0], newark, producers[0], Stop(transactions), log)
            assert log is None or (log.last_sequence(0) or 0) == sum(written) + producers[0].stats().emitted
        written.append(producers[0].stats().emitted)
    assert written[:2] == [0, 0]
    assert min(written[2:]) > 0
    assert sum(written) == 2 * len(newark)
    with contextlib.closing(sqlite3.connect(databases[0])) as database:
        [counts] = database.execute(
            "SELECT count(*), count(dep_time), (SELECT count(*) FROM cancellations) FROM flights"
        )
    cancelled = sum(flight.dep_time is None for flight in newark)
    assert counts == (len(newark) - cancelled, len(newark) - cancelled, cancelled)


def test_a_writer_with_a_log_does_not_wait(flights: list[Flight], databases: tuple[Path, Path]) -> None:
    newark = [flight for flight in flights[:ROWS] if flight.origin == "EWR"]
    [producer], [_] = create_event_bus(1, 64)
    stop = threading.Event()
    give_up = threading.Timer(20, stop.set)
    give_up.start()
    with SqliteEventLog(databases[0], driver="apsw") as log:
        write_flights(databases[0], newark, producer, stop, log)
        give_up.cancel()
        assert log.last_sequence(0) == 2 * len(newark)
    assert (producer.stats().emitted, producer.stats().dropped) == (64, 2 * len(newark) - 64)


def test_a_view_continues_from_a_snapshot() -> None:
    totals = {"UA": CarrierTotals(4, 2, 1, 30), "AA": CarrierTotals(1, 0, 1, 0)}
    view = CarrierView(totals, {WriteOp.INSERT: 5, WriteOp.DELETE: 2})
    assert view.totals() == totals
    assert view.events() == {op: {WriteOp.INSERT: 5, WriteOp.DELETE: 2}.get(op, 0) for op in WriteOp}


def test_a_snapshot_is_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "view"
    assert Snapshot.load(path) == Snapshot()
    saved = Snapshot(
        position=7,
        totals={"UA": CarrierTotals(4, 2, 1, -30)},
        events={WriteOp.INSERT: 5, WriteOp.HEARTBEAT: 2},
        gaps=1,
        replayed=2,
        episodes=3,
    )
    saved.save(path)
    assert Snapshot.load(path) == saved
    Snapshot(position=8).save(path)
    assert Snapshot.load(path) == Snapshot(position=8)


def test_a_save_that_is_cut_short_leaves_the_snapshot_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "view"
    Snapshot(position=7).save(path)

    def half(of: Path, text: str) -> None:
        with of.open("w") as file:
            file.write(text[: len(text) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(KeyboardInterrupt):
        Snapshot(position=8).save(path)
    assert Snapshot.load(path) == Snapshot(position=7)


# The run between processes.


def test_between_processes_too(flights: list[Flight], databases: tuple[Path, Path], bus: EventBus) -> None:
    through: list[int] = []
    outcome = durable.run(flights[:ROWS], databases, bus, through.append, lambda line: None)
    agrees_though_it_dropped(outcome, ROWS)
    assert through == sorted(through)
    assert through[-1] == 2 * ROWS
    assert outcome.killed == {}
    assert owners(bus.stats()) == [None, None, None]
    assert multiprocessing.active_children() == []


def test_killed_processes_continue_where_they_stopped(
    monkeypatch: pytest.MonkeyPatch, flights: list[Flight], databases: tuple[Path, Path], bus: EventBus
) -> None:
    # Early in a long run: a child that has ended before the parent kills it is not counted as killed.
    monkeypatch.setattr("nodedb_ring.command.demo.durable._some_of", lambda events: [events // 8, events // 16, 1])
    said: list[str] = []
    outcome = durable.run(flights[: 3 * MANY], databases, bus, lambda done: None, said.append, chaos=True)
    assert outcome.killed == dict.fromkeys(ROLES, durable.KILLS)
    for role in ROLES:
        assert sum(line.startswith(f"killed {role}, process ") for line in said) == durable.KILLS
        assert f"{role} 3" in report(outcome)[1]
    agrees_though_it_dropped(outcome, 3 * MANY)
    # Not as often as it was killed: some died before they had come so far.
    for ring in bus.stats():
        assert 1 < ring.producer_claims <= 1 + durable.KILLS
        assert 1 < ring.consumer_claims <= 1 + durable.KILLS
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(("victim", "role"), list(enumerate(ROLES))[1:])
def test_a_child_that_somebody_else_kills_ends_the_run_by_its_name(
    victim: int, role: str, flights: list[Flight], slow_databases: tuple[Path, Path], bus: EventBus
) -> None:
    killed = Running(lambda: kill(at_work(bus)[victim]))
    with pytest.raises(ChildProcessError) as error:
        durable.run(flights[:MANY], slow_databases, bus, lambda done: None, lambda line: None)
    assert str(error.value) == f"{role}, process {killed.result()}, was killed by SIGKILL"
    assert multiprocessing.active_children() == []


def test_a_consumer_that_fails_ends_the_run_by_its_name(
    flights: list[Flight], databases: tuple[Path, Path], bus: EventBus, capfd: pytest.CaptureFixture[str]
) -> None:
    # Whatever is stored is damaged at once; and what the ring drops of the first transactions is read from there.
    with (
        SqliteEventLog(databases[0], driver="apsw"),
        contextlib.closing(apsw.Connection(str(databases[0]))) as database,
    ):
        database.execute(
            "CREATE TRIGGER damage AFTER INSERT ON nodedb_ring_log BEGIN"
            " UPDATE nodedb_ring_log SET checksum = checksum + 1 WHERE first_sequence = new.first_sequence; END"
        )
    with pytest.raises(ChildProcessError, match=r"the consumer, process \d+, ended with exit code 1"):
        durable.run(flights[:MANY], databases, bus, lambda done: None, lambda line: None)
    assert "CorruptLogError" in capfd.readouterr().err
    assert multiprocessing.active_children() == []


# The command.


@pytest.mark.usefixtures("at_hand")
@pytest.mark.parametrize("more", [[], ["--processes"]])
def test_command_agrees_though_the_rings_overflow(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "flights"
    assert main(["demo", f"--rows={ROWS}", "--capacity=64", f"--log={path}", *more]) == 0
    output = capsys.readouterr().out
    assert "\nThe view and the databases agree exactly: " in output
    for row in ("dropped", "holes", "replayed from the log", "catch-ups"):
        assert f"\n{row} " in output
    assert output.splitlines()[-1] == f"databases kept: {path}.0, {path}.1"
    # The locks of those who followed are left with the logs.
    logs = [tmp_path / "flights.0", tmp_path / "flights.1"]
    assert sorted(tmp_path.iterdir()) == sorted([*logs, *(Path(f"{log}-followers") for log in logs)])


@pytest.mark.usefixtures("at_hand")
def test_a_log_is_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "flights.1").write_text("mine")
    assert main(["demo", "--rows=1", f"--log={tmp_path / 'flights'}"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.usefixtures("at_hand")
def test_command_with_chaos_needs_nothing_else_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["demo", "--chaos", f"--rows={MANY}", "--capacity=64"]) == 0
    output = capsys.readouterr().out
    assert "\nTimes killed and started again: the writer of core 0 " in output
    assert output.count("; it starts again\n") >= durable.KILLS
    assert output.splitlines()[-1].startswith("The view and the databases agree exactly: ")
    assert list(tmp_path.iterdir()) == []
    assert buses_of(os.getpid()) == []
