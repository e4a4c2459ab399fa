"""The demo: its flights, its view, and that its check can fail."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
import sqlite3
import time
from collections.abc import Sequence
from importlib.metadata import Distribution, distribution
from pathlib import Path

import apsw
import msgpack
import numpy as np
import pytest

from nodedb_ring import EventBatch, WriteEvent, WriteOp, create_event_bus
from nodedb_ring.command.cli import main
from nodedb_ring.command.demo.flights import AIRPORTS, Flight, load_flights
from nodedb_ring.command.demo.log import warnings_shown
from nodedb_ring.command.demo.outcome import Outcome
from nodedb_ring.command.demo.report import Verdict
from nodedb_ring.command.demo.run import run
from nodedb_ring.command.demo.totals import CarrierTotals, add_totals
from nodedb_ring.command.demo.view import CarrierView

from .demo_accounts import missing_to_the_event, reckoned_from_the_file, report

ROWS = 5000
pytestmark = pytest.mark.usefixtures("no_terminal")


def run_quietly(flights: Sequence[Flight], databases: tuple[Path, Path], capacity: int = 65_536) -> Outcome:
    return run(flights, databases, create_event_bus(2, capacity), lambda done: None)


# The flights.


def test_the_year_is_whole_and_in_order(flights: list[Flight]) -> None:
    assert len(flights) == 336_776
    assert {flight.flight_id for flight in flights} == set(range(1, len(flights) + 1))
    dates = [flight.date for flight in flights]
    assert dates == sorted(dates)
    assert (dates[0], dates[-1]) == ("2013-01-01", "2013-12-31")
    assert sum(flight.dep_time is None for flight in flights) == 8_255
    assert all((flight.dep_time is None) == (flight.dep_delay is None) for flight in flights)
    assert flights[0] == Flight(1, "2013-01-01", "UA", 1545, "N14228", "EWR", "IAH", 515, 517, 2)


def test_each_flight_belongs_to_one_core(flights: list[Flight]) -> None:
    assert {flight.origin for flight in flights} == {"EWR", "JFK", "LGA"}
    assert sorted(airport for airports in AIRPORTS for airport in airports) == ["EWR", "JFK", "LGA"]


def test_a_part_of_the_year_is_its_beginning(flights: list[Flight]) -> None:
    assert load_flights(7) == flights[:7]


def test_a_package_without_its_flights_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def another(name: str) -> Distribution:
        return distribution("msgpack")

    monkeypatch.setattr("nodedb_ring.command.demo.flights.distribution", another)
    with pytest.raises(FileNotFoundError, match=r"has no flights\.csv\.zip"):
        load_flights(1)


# The view.


def change(op: WriteOp, old: tuple[str, int | None] | None, new: tuple[str, int | None] | None) -> WriteEvent:
    old_value, new_value = (
        None if row is None else msgpack.packb({"flight_id": 1, "carrier": row[0], "dep_delay": row[1]})
        for row in (old, new)
    )
    return WriteEvent(
        sequence=1, collection="flights", op=op, row_id="1", lsn=1, old_value=old_value, new_value=new_value
    )


def totals_of(*events: WriteEvent) -> dict[str, CarrierTotals]:
    view = CarrierView()
    view.apply(EventBatch.from_events(events))
    return view.totals()


def test_each_operation_has_its_effect() -> None:
    scheduled = change(WriteOp.INSERT, None, ("UA", None))
    flown = change(WriteOp.UPDATE, ("UA", None), ("UA", -7))
    cancelled = change(WriteOp.DELETE, ("UA", None), None)
    assert totals_of() == {}
    assert totals_of(scheduled) == {"UA": CarrierTotals(1, 0, 0, 0)}
    assert totals_of(scheduled, flown) == {"UA": CarrierTotals(1, 1, 0, -7)}
    assert totals_of(scheduled, scheduled, cancelled) == {"UA": CarrierTotals(2, 0, 1, 0)}


def test_a_row_that_changes_again_is_taken_back_first() -> None:
    scheduled = change(WriteOp.INSERT, None, ("UA", None))
    flown = change(WriteOp.UPDATE, ("UA", None), ("UA", 10))
    corrected = change(WriteOp.UPDATE, ("UA", 10), ("UA", 25))
    sold = change(WriteOp.UPDATE, ("UA", 10), ("DL", 10))
    withdrawn = change(WriteOp.UPDATE, ("UA", 10), ("UA", None))
    assert totals_of(scheduled, flown, corrected) == {"UA": CarrierTotals(1, 1, 0, 25)}
    assert totals_of(scheduled, flown, sold) == {"UA": CarrierTotals(1, 0, 0, 0), "DL": CarrierTotals(0, 1, 0, 10)}
    assert totals_of(scheduled, flown, withdrawn) == {"UA": CarrierTotals(1, 0, 0, 0)}


def test_a_heartbeat_is_counted_and_changes_nothing() -> None:
    view = CarrierView()
    view.apply(EventBatch.from_events([change(WriteOp.HEARTBEAT, None, None)]))
    assert view.totals() == {}
    assert view.events()[WriteOp.HEARTBEAT] == 1


@pytest.mark.parametrize("size", [1, 3, 64, 1000])
def test_the_view_does_not_depend_on_how_events_are_batched(size: int) -> None:
    random = np.random.default_rng(13)
    carriers = ["9E", "AA", "UA", "YV"]
    delays: list[int | None] = [None, -20, 0, 5, 1301]
    rows = [(carriers[random.integers(4)], delays[random.integers(5)]) for _ in range(1000)]
    ops = (WriteOp.INSERT, WriteOp.UPDATE, WriteOp.DELETE)
    kinds = [ops[random.integers(3)] for _ in rows]
    events = [
        change(op, None if op is WriteOp.INSERT else old, None if op is WriteOp.DELETE else new)
        for op, old, new in zip(kinds, rows, rows[::-1], strict=True)
    ]
    view = CarrierView()
    for start in range(0, len(events), size):
        view.apply(EventBatch.from_events(events[start : start + size]))
    assert view.totals() == totals_of(*events)
    assert view.events() == {op: kinds.count(op) for op in WriteOp}


def test_totals_of_cores_add_up() -> None:
    assert add_totals(
        [{"UA": CarrierTotals(4, 2, 1, 30)}, {"UA": CarrierTotals(1, 1, 0, -9), "AA": CarrierTotals(1, 0, 1, 0)}]
    ) == {
        "AA": CarrierTotals(1, 0, 1, 0),
        "UA": CarrierTotals(5, 3, 1, 21),
    }
    assert CarrierTotals(5, 3, 1, 21).mean_delay == 7
    assert CarrierTotals(1, 0, 1, 0).mean_delay is None


# The run.


def test_view_databases_and_file_agree(flights: list[Flight], databases: tuple[Path, Path]) -> None:
    through: list[int] = []
    outcome = run(flights[:ROWS], databases, create_event_bus(2), through.append)
    expected = reckoned_from_the_file(ROWS)
    assert sum(totals.cancelled for totals in expected.values()) > 0
    assert outcome.view == expected
    assert outcome.database == expected
    assert outcome.missing == 0
    assert [sum(core.events.values()) for core in outcome.cores] == [
        2 * sum(flight.origin in airports for flight in flights[:ROWS]) for airports in AIRPORTS
    ]
    assert through == sorted(through)
    assert through[-1] == 2 * ROWS
    assert report(outcome)[0] is Verdict.AGREE


def test_a_core_without_flights_agrees(flights: list[Flight], databases: tuple[Path, Path]) -> None:
    newark = [flight for flight in flights[:200] if flight.origin == "EWR"]
    outcome = run_quietly(newark, databases)
    assert outcome.cores[1].producer.emitted_sequence is None
    assert report(outcome)[0] is Verdict.AGREE


def test_exactly_the_dropped_events_are_missing(flights: list[Flight], databases: tuple[Path, Path]) -> None:
    outcome = run_quietly(flights[:ROWS], databases, capacity=64)
    missing_to_the_event(outcome, ROWS)


def test_writers_wait_for_a_consumer_that_is_slow(
    monkeypatch: pytest.MonkeyPatch, flights: list[Flight], databases: tuple[Path, Path]
) -> None:
    bus = producers, _ = create_event_bus(2, 16_384)
    deadline = time.monotonic() + 30

    class LateView(CarrierView):
        """Takes no batch until the writer of core 1 was throttled."""

        def apply(self, batch: EventBatch) -> None:
            while producers[1].stats().throttle_transitions == 0 and time.monotonic() < deadline:
                time.sleep(0.001)
            super().apply(batch)

    monkeypatch.setattr("nodedb_ring.command.demo.run.CarrierView", LateView)
    outcome = run(flights[: 4 * ROWS], databases, bus, lambda done: None)
    assert outcome.cores[1].producer.throttle_transitions > 0
    assert outcome.missing == 0
    assert report(outcome)[0] is Verdict.AGREE


class MiscountingView(CarrierView):
    """Takes every flight of United for one of Delta's."""

    def totals(self) -> dict[str, CarrierTotals]:
        totals = super().totals()
        totals["DL"] = totals.pop("UA")
        return totals


class ForgetfulView(CarrierView):
    """Never sees the first event of a batch, though its ring delivered it."""

    def apply(self, batch: EventBatch) -> None:
        super().apply(batch[1:])


class FailingView(CarrierView):
    """Cannot continue."""

    def apply(self, batch: EventBatch) -> None:
        raise ArithmeticError("no more")


def test_a_wrong_view_is_found_out(
    monkeypatch: pytest.MonkeyPatch, flights: list[Flight], databases: tuple[Path, Path]
) -> None:
    monkeypatch.setattr("nodedb_ring.command.demo.run.CarrierView", MiscountingView)
    outcome = run_quietly(flights[:ROWS], databases)
    assert outcome.missing == 0
    verdict, text = report(outcome)
    assert verdict is Verdict.DISAGREE
    assert f"UA: the view says None, the databases {outcome.database['UA']}." in text
    assert f"DL: the view says {outcome.view['DL']}, the databases {outcome.database['DL']}." in text
    assert "AA: the view says" not in text
    lines = text.splitlines()
    assert {line.split()[0] for line in lines if line.split()[-1:] == ["NO"]} == {"UA", "DL", "all"}
    [united] = [line.split() for line in lines if line.startswith("UA ")]
    assert united[:4] == ["UA", "-", "vs", f"{outcome.database['UA'].flown:,}"]
    assert lines[-1] == "The view and the databases DISAGREE, and no overflow explains it: a bug."


def test_events_lost_without_an_overflow_are_found_out(
    monkeypatch: pytest.MonkeyPatch, flights: list[Flight], databases: tuple[Path, Path]
) -> None:
    monkeypatch.setattr("nodedb_ring.command.demo.run.CarrierView", ForgetfulView)
    outcome = run_quietly(flights[:ROWS], databases)
    verdict, text = report(outcome)
    assert verdict is Verdict.DISAGREE
    for number, core in enumerate(outcome.cores):
        assert core.missing == core.consumer.batches > 0
        assert f"core {number}: the view is missing {core.missing} events, but the producer counted 0 drops." in text
    missing = [f"{core.missing}" for core in outcome.cores]
    assert f"missing from the view {' '.join(missing)} {outcome.missing}" in re.sub(" +", " ", text)


def test_the_last_screen_fits_a_small_terminal(flights: list[Flight], databases: tuple[Path, Path]) -> None:
    """All of a run with logs and kills, with room for the line of kept databases and the prompt."""
    outcome = run(flights[: 10 * ROWS], databases, create_event_bus(2, 64), lambda done: None, logged=True)
    assert len(outcome.view) >= 15
    roles = ("the writer of core 0", "the writer of core 1", "the consumer")
    text = report(dataclasses.replace(outcome, killed=dict.fromkeys(roles, 3)))[1]
    assert sum(-(-max(len(line.rstrip()), 1) // 80) for line in text.splitlines()) <= 38 - (16 - len(outcome.view))


def test_a_consumer_that_fails_stops_the_writers(
    monkeypatch: pytest.MonkeyPatch, flights: list[Flight], databases: tuple[Path, Path]
) -> None:
    monkeypatch.setattr("nodedb_ring.command.demo.run.CarrierView", FailingView)
    with pytest.raises(ArithmeticError, match="no more"):
        run_quietly(flights, databases)
    with contextlib.closing(sqlite3.connect(databases[1])) as database:
        [(written,)] = database.execute("SELECT count(*) FROM flights")
    assert written < sum(flight.origin in AIRPORTS[1] for flight in flights) // 2


def test_a_writer_that_fails_ends_the_run(flights: list[Flight], databases: tuple[Path, Path]) -> None:
    with pytest.raises(apsw.CantOpenError):
        run_quietly(flights[:ROWS], (databases[0], databases[1] / "nowhere"))


# The command.


def test_command_agrees_and_writes_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", f"--rows={ROWS}"]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    assert output.startswith(f"writing {ROWS:,} flights into 2 databases\n")
    expected = reckoned_from_the_file(ROWS)
    lines = output.splitlines()
    assert re.split("  +", lines[1].strip()) == [
        *("carrier", "flown", "cancelled", "mean delay, view", "mean delay, SQL", "equal")
    ]
    rows = {line.split()[0]: line.split()[1:] for line in lines[2 : 3 + len(expected)]}
    united, delay = expected["UA"], sum(row.delay for row in expected.values())
    mean = f"{united.mean_delay:.3f}"
    assert rows["UA"] == [f"{united.flown:,}", f"{united.cancelled:,}", mean, "min", mean, "min", "yes"]
    flown, cancelled = (sum(row[place] for row in expected.values()) for place in (1, 2))
    mean = f"{delay / flown:.3f}"
    assert rows["all"] == [f"{flown:,}", f"{cancelled:,}", mean, "min", mean, "min", "yes"]
    assert rows.keys() == {*expected, "all"}
    assert lines[-1] == f"The view and the databases agree exactly: all {len(expected)} carriers are equal."
    assert "NO" not in output
    assert "\x1b" not in output
    assert "\r" not in output
    assert max(map(len, output.splitlines())) <= 120


@pytest.mark.usefixtures("at_hand")
def test_command_draws_its_progress_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert main(["demo", f"--rows={ROWS}"]) == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out)
    through = [int(done) for done in re.findall(rf"(\d+)/{2 * ROWS}\b", plain)]
    assert through == sorted(through)
    assert through[-1] == 2 * ROWS


@pytest.mark.usefixtures("at_hand")
def test_command_says_what_an_overflow_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", f"--rows={ROWS}", "--capacity=64"]) == 1
    output = capsys.readouterr().out
    [missing] = re.findall(r"The view is missing ([\d,]+) events in all", output)
    [dropped] = re.findall(r"^dropped .*? ([\d,]+) *\n", output, re.MULTILINE)
    assert missing == dropped
    # Each kind of warning once per core: suspended, the overflow's beginning, its end.
    warnings = [line for line in output.splitlines() if line.startswith("WARNING ")]
    assert len(warnings) == len(set(warnings)) <= 6
    assert sum("the ring overflows" in line for line in warnings) == 2
    assert "more warnings like these" in output


@pytest.mark.usefixtures("at_hand")
def test_command_tells_a_wrong_view(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("nodedb_ring.command.demo.run.CarrierView", MiscountingView)
    assert main(["demo", f"--rows={ROWS}"]) == 3
    assert "The view and the databases DISAGREE" in capsys.readouterr().out


@pytest.mark.usefixtures("at_hand")
def test_kept_databases_are_ordinary_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", f"--rows={ROWS}", f"--keep={tmp_path / 'flights'}"]) == 0
    files = [tmp_path / "flights.0", tmp_path / "flights.1"]
    assert sorted(tmp_path.iterdir()) == files
    assert f"databases kept: {files[0]}, {files[1]}" in capsys.readouterr().out
    rows = 0
    for file, airports in zip(files, AIRPORTS, strict=True):
        with contextlib.closing(sqlite3.connect(file)) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert database.execute("SELECT DISTINCT origin FROM flights ORDER BY origin").fetchall() == [
                (airport,) for airport in airports
            ]
            for table in ("flights", "cancellations"):
                [(count,)] = database.execute(f"SELECT count(*) FROM {table}")
                rows += count
    assert rows == ROWS


def test_a_warning_that_cannot_be_printed_has_no_effect(capsys: pytest.CaptureFixture[str]) -> None:
    def show(_: str) -> None:
        raise BrokenPipeError("nobody reads")

    with warnings_shown(show):
        logging.getLogger("nodedb_ring").warning("core 0: the ring overflows")
    assert "nobody reads" in capsys.readouterr().err  # as logging shows what a handler raises
