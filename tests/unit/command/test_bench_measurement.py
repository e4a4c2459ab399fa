"""The parts of ``nodedb-ring bench``: settings, laps, tallies, senders, percentiles, report and picture."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from nodedb_ring import EventBatch, EventProducer, WriteEvent, create_event_bus
from nodedb_ring.command.bench.latency import Latency
from nodedb_ring.command.bench.machine import Machine, two_cpus
from nodedb_ring.command.bench.plot import picture
from nodedb_ring.command.bench.report import report
from nodedb_ring.command.bench.results import LatencyResult, Results, Spread, ThroughputResult
from nodedb_ring.command.bench.settings import WAITS, Settings
from nodedb_ring.command.bench.throughput import Throughput
from nodedb_ring.command.bench.workload import Tally, lap_of
from nodedb_ring.errors import WrongAnswerError
from tests.unit.runners import Running, in_thread

from .bench_runs import WATCHDOG, is_png, small, transfer

pytestmark = pytest.mark.usefixtures("no_terminal")


def test_settings_share_the_time_out() -> None:
    settings = Settings.of(capacities=[1000, 3, 1024], batch_sizes=[512, 1, 1], seconds=30)
    assert (settings.capacities, settings.batch_sizes) == ((4, 1024), (1, 512))
    assert settings.transfers == [(4, 1), (1024, 1), (1024, 512)]
    whole = settings.rounds * (3 * settings.seconds_throughput + len(WAITS) * settings.seconds_latency)
    assert whole == pytest.approx(30)


def test_a_small_ring_does_without_the_usual_batches_that_it_cannot_hold() -> None:
    assert Settings.of(capacities=[100]).batch_sizes == (1, 4, 16, 64)


def test_the_payload_never_bounds_a_ring() -> None:
    for value_bytes in (1, 128, 300, 5000):
        settings = Settings.of(quick=True, capacities=[256], batch_sizes=[1], value_bytes=value_bytes, seconds=1)
        (producer,), (consumer,) = create_event_bus(1, 256, arena_bytes=settings.arena_bytes(256))
        events = lap_of(1, value_bytes).events[:256]
        for start in range(5):
            assert all(producer.emit(event) for event in events)
            assert not producer.emit(events[0])
            assert len(consumer.drain(100 + start)) == 100 + start  # and then from elsewhere in the arena
            assert len(consumer.drain()) == 156 - start


@pytest.mark.parametrize("batch_size", [1, 7, 1024, 6000])
def test_a_lap_is_whole_batches_of_events_that_all_differ(batch_size: int) -> None:
    lap = lap_of(batch_size, 20)
    assert {len(batch) for batch in lap.batches} == {batch_size}
    assert [event for batch in lap.batches for event in batch] == list(lap.events)
    assert [event.sequence for event in lap.events] == list(range(1, len(lap.events) + 1))
    assert len({event.new_value for event in lap.events}) == len(lap.events)
    assert {len(event.new_value or b"") for event in lap.events} == {20}


def test_a_lap_of_large_values_is_small() -> None:
    lap = lap_of(1, 2**22)
    assert 1 <= len(lap.events) <= 10


LAP = lap_of(16, 20)
WHOLE = EventBatch.concat(LAP.batches)


def swapped() -> EventBatch:
    order = [*range(2000), 2001, 2000, *range(2002, len(WHOLE))]
    return EventBatch.from_events([WHOLE[place] for place in order])


@pytest.mark.parametrize("thorough", [True, False])
@pytest.mark.parametrize(
    ("came", "caught_by_a_sample"),
    [
        (EventBatch.concat([WHOLE[:2000], WHOLE[2001:]]), True),
        (EventBatch.concat([WHOLE[:2000], WHOLE[1999:]]), True),
        (WHOLE[1:], True),
        (swapped(), False),
    ],
    ids=["lost", "repeated", "first lost", "swapped"],
)
def test_a_tally_finds_what_is_not_at_its_place(came: EventBatch, caught_by_a_sample: bool, thorough: bool) -> None:
    tally = Tally(LAP, thorough=thorough)

    def take() -> None:
        for start in range(0, len(came), 16):
            tally.take(came[start : start + 16])
        tally.close()

    if thorough or caught_by_a_sample:
        with pytest.raises(WrongAnswerError, match=r"events \d+ to \d+ arrived, and \d+ to \d+ were next"):
            take()
    else:
        take()


@pytest.mark.parametrize("thorough", [True, False])
def test_a_tally_takes_laps_in_batches_of_any_size(thorough: bool) -> None:
    tally = Tally(LAP, thorough=thorough)
    twice = EventBatch.concat([WHOLE, WHOLE])
    for start in range(0, len(twice), 1000):
        tally.take(twice[start : start + 1000])
    tally.close()
    assert tally.count == len(twice)


def test_a_thorough_tally_compares_every_field() -> None:
    event = LAP.events[5]
    fields: dict[str, Any] = {name: getattr(event, name) for name in WriteEvent.__match_args__}
    for name, other in (("row_id", "x"), ("tenant_id", 1), ("new_value", None), ("old_value", b""), ("user_id", "x")):
        changed: dict[str, Any] = fields | {name: other}
        batch = EventBatch.from_events([*LAP.events[:5], WriteEvent(**changed)])
        with pytest.raises(WrongAnswerError, match="arrived, and"):
            Tally(LAP, thorough=True).take(batch)


@pytest.mark.parametrize("batch_size", [1, 16, 64])
def test_a_sender_waits_and_nothing_is_lost(batch_size: int) -> None:
    (producer,), (consumer,) = create_event_bus(1, 64)
    measurement = dataclasses.replace(transfer(batch_size=batch_size), seconds=0.05)
    reading = Running(lambda: measurement.read(consumer))
    sent, start = in_thread(lambda: write_and_close(measurement, producer))
    came, end = reading.result()
    assert came == sent > 64
    assert end > start


def write_and_close(measurement: Throughput, producer: EventProducer) -> tuple[int, int]:
    with producer:
        return measurement.write(producer)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_a_sender_ends_when_the_reader_has_gone(batch_size: int) -> None:
    (producer,), (consumer,) = create_event_bus(1, 64)
    measurement = dataclasses.replace(transfer(batch_size=batch_size), seconds=1000)
    consumer.close()
    assert measurement.write(producer)[0] == 0


def test_an_event_cannot_come_before_it_was_sent() -> None:
    trip = Latency(capacity=64, value_bytes=20, rate=10_000, events=2, spin=0.0)
    sent = np.array([100, 200], np.uint64)
    assert trip.figure(sent, (sent, sent + np.uint64(7))).tolist() == [7, 7]
    with pytest.raises(WrongAnswerError, match=r"1 ns before it was sent: the cores' clocks differ"):
        trip.figure(sent, (sent, sent - np.uint64(1)))


def test_percentiles_are_of_events_that_there_were() -> None:
    rounds = [np.arange(1, 1001) * 10, np.arange(1, 1001) * 30, np.arange(1, 1001) * 20]
    result = LatencyResult.of("parked", 0.0, 64, rounds)
    assert result.at(50.0) == Spread(median=10_020, least=5_010, most=15_030)
    assert result.at(0.0) == Spread(median=20, least=10, most=30)
    assert result.at(100.0) == Spread(median=20_000, least=10_000, most=30_000)
    assert result.events_per_round == 1000


def results(capacities: tuple[int, ...] = (64, 128), batch_sizes: tuple[int, ...] = (1, 16)) -> Results:
    settings = small(capacities=capacities, batch_sizes=batch_sizes)
    took = np.arange(1, 1001) * 1000
    return Results(
        nodedb_ring="1.2.3",
        seconds=4.5,
        machine=Machine(
            processor="Abacus",
            cpus=2,
            pinned_to=None,
            kernel="Linux 6",
            python="CPython 3",
            numpy="2",
            load_before=0.1,
            load_after=1.9,
        ),
        settings=settings,
        latency_rate=10_000,
        throughput=tuple(
            ThroughputResult.of(capacity, size, [capacity * size * 1e3, capacity * size * 3e3, capacity * size * 2e3])
            for capacity, size in settings.transfers
        ),
        latency=tuple(LatencyResult.of(wait, spin, 128, [took, took * 2, took * 3]) for wait, spin in WAITS.items()),
    )


def test_the_report_has_the_figures_in_their_units() -> None:
    assert report(results()) == (
        "Abacus, 2 CPUs, Linux 6, CPython 3, NumPy 2, nodedb_ring 1.2.3\n"
        "one process to another, on one CPU; values of 20 bytes; load 0.1 before, 1.9 after\n"
        "median of 3 rounds (least to most); every answer was checked\n"
        "\n"
        "Throughput, million events/s\n"
        "batch size          capacity 64         capacity 128\n"
        "1           0.13 (0.06 to 0.19)  0.26 (0.13 to 0.38)\n"
        "16          2.05 (1.02 to 3.07)  4.10 (2.05 to 6.14)\n"
        "\n"
        "Latency one way, µs, at 10,000 events/s\n"
        "reader                     p50                   p90                   p99                   p99.9"
        "                 slowest\n"
        "spinning  1,002 (501 to 1,503)  1,802 (901 to 2,703)  1,982 (991 to 2,973)  2,000 (1,000 to 3,000)"
        "  2,000 (1,000 to 3,000)\n"
        "parked    1,002 (501 to 1,503)  1,802 (901 to 2,703)  1,982 (991 to 2,973)  2,000 (1,000 to 3,000)"
        "  2,000 (1,000 to 3,000)\n"
    )


@pytest.mark.parametrize(
    ("capacities", "batch_sizes"),
    [
        ((64,), (1,)),
        ((64, 128), (1, 16, 128)),
        (tuple(2**n for n in range(4, 13)), tuple(range(1, 17))),
    ],
    ids=["one point", "two lines", "more lines than colours"],
)
@pytest.mark.parametrize("suffix", [".png", ".PNG", ".svg"])
def test_a_picture_of_any_grid_is_drawn(capacities: tuple[int, ...], batch_sizes: tuple[int, ...], suffix: str) -> None:
    drawn = picture(results(capacities, batch_sizes), suffix)
    if suffix == ".svg":
        assert b"<svg" in drawn
    else:
        assert is_png(drawn)


def test_two_cpus_are_of_those_allowed() -> None:
    allowed = os.sched_getaffinity(0)
    cpus = two_cpus()
    if len(allowed) > 1:
        assert cpus is not None
        assert set(cpus) <= allowed
        assert len(set(cpus)) == 2
    assert in_process_on_one_cpu() == "None"


def in_process_on_one_cpu() -> str:
    source = (
        "import os\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from nodedb_ring.command.bench.machine import two_cpus\n"
        "print(two_cpus())\n"
    )
    return subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=WATCHDOG, check=True
    ).stdout.strip()
