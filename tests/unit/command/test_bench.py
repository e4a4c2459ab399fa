"""The command ``nodedb-ring bench``: every answer checked, every figure measured, and nothing left behind."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nodedb_ring import EventBatch, EventBus, EventConsumer, EventProducer, WriteEvent, __version__, create_event_bus
from nodedb_ring.command.bench import pair, run
from nodedb_ring.command.bench.latency import Latency
from nodedb_ring.command.bench.machine import Machine, two_cpus
from nodedb_ring.command.bench.measurement import Measurement
from nodedb_ring.command.bench.pair import pair_of_processes
from nodedb_ring.command.bench.plot import DOTS_PER_INCH, SIZE_INCHES, picture
from nodedb_ring.command.bench.report import report
from nodedb_ring.command.bench.results import (
    PERCENTILES,
    LatencyResult,
    PercentileResult,
    Results,
    Spread,
    ThroughputResult,
)
from nodedb_ring.command.bench.sending import send_batches, send_singly
from nodedb_ring.command.bench.settings import WAITS, Settings
from nodedb_ring.command.bench.throughput import Throughput
from nodedb_ring.command.bench.workload import Tally, lap_of
from nodedb_ring.command.cli import main
from nodedb_ring.errors import WrongAnswerError
from tests.unit.runners import WITHOUT, Running, in_thread
from tests.unit.shared_buses import is_alive

WATCHDOG = 60  # seconds; only a hang takes so long
COMMAND = [sys.executable, "-m", "nodedb_ring", "bench"]
SMALL = ["--quick", "--capacities=64,100", "--batch-sizes=1,16,128", "--value-bytes=20", "--seconds=0.3"]

pytestmark = pytest.mark.usefixtures("no_terminal")


def small(**changes: Any) -> Settings:
    settings = Settings.of(quick=True, capacities=[64, 128], batch_sizes=[1, 16, 128], value_bytes=20, seconds=0.3)
    return dataclasses.replace(settings, **changes)


def nothing_is_left() -> None:
    assert [name for name in EventBus.list() if name.startswith(f"bench-{os.getpid()}-")] == []
    assert multiprocessing.active_children() == []


# The command, from end to end.


def test_a_run_prints_tables_and_writes_json_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, drawing = tmp_path / "results.json", tmp_path / "bench.png"
    file.write_text("of the last run")
    assert main(["bench", *SMALL, f"--json={file}", f"--plot={drawing}"]) == 0
    output, errors = capsys.readouterr()
    document = json.loads(file.read_text())
    is_complete(document)
    assert document["settings"]["capacities"] == [64, 128]
    assert document["settings"]["batch_sizes"] == [1, 16, 128]

    lines = output.splitlines()
    assert document["machine"]["processor"] in lines[0]
    assert "values of 20 bytes" in lines[1]
    start = lines.index("Throughput, million events/s")
    assert lines[start + 1].split() == ["batch", "size", "capacity", "64", "capacity", "128"]
    assert [line.split()[0] for line in lines[start + 2 : start + 5]] == ["1", "16", "128"]
    assert lines[start + 4].split()[1] == "-"  # 128 at once do not go through a ring of 64
    [median] = [
        one["events_per_second"]["median"] / 1e6
        for one in document["throughput"]
        if (one["capacity"], one["batch_size"]) == (128, 128)
    ]
    assert float(lines[start + 4].split()[2].replace(",", "")) == pytest.approx(median, rel=0.01, abs=0.005)
    assert lines[start + 6] == "Latency one way, µs, at 10,000 events/s"
    assert [line.split()[0] for line in lines[start + 8 :]] == ["spinning", "parked"]

    # No terminal: a line a round, and one at the end.
    assert [line.partition(";")[0] for line in errors.splitlines()] == [f"{n} of 21 measured" for n in (0, 7, 14, 21)]
    assert is_png(drawing.read_bytes())
    nothing_is_left()


def test_json_alone_is_all_of_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *SMALL, "--json"]) == 0
    is_complete(json.loads(capsys.readouterr().out))


def test_on_a_terminal_there_is_a_bar() -> None:
    ran = subprocess.run(
        [*COMMAND, *SMALL],
        capture_output=True,
        text=True,
        timeout=WATCHDOG,
        check=False,
        # What rich takes for a terminal, whatever the output is.
        env=os.environ | {"TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1", "COLUMNS": "120"},
    )
    assert ran.returncode == 0, ran.stderr
    assert "\x1b[" in ran.stderr
    assert "measured; " not in ran.stderr
    # It is drawn ten times a second, and in any case at the end.
    assert "100 %" in ran.stderr
    assert "done" in ran.stderr
    assert "\x1b" not in ran.stdout
    assert ran.stdout.count("million events/s") == 1


def test_help_names_every_option_and_the_exit_codes() -> None:
    ran = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, timeout=WATCHDOG, check=True)
    for option in (
        "--quick",
        "--capacities",
        "--batch-sizes",
        "--value-bytes",
        "--seconds",
        "--json",
        "--plot",
        "exit code: 0",
    ):
        assert option in ran.stdout


def is_complete(document: dict[str, Any]) -> None:
    """Whether it is as docs/benchmarks.md says, and its figures agree with one another."""
    fields = {field.name for field in dataclasses.fields(Results)}
    assert set(document) == fields
    assert (document["schema"], document["nodedb_ring"]) == (1, __version__)
    assert set(document["machine"]) == {field.name for field in dataclasses.fields(Machine)}
    assert document["machine"]["cpus"] == len(os.sched_getaffinity(0))
    settings = document["settings"]
    assert set(settings) == {field.name for field in dataclasses.fields(Settings)}
    assert [(one["capacity"], one["batch_size"]) for one in document["throughput"]] == [
        (capacity, size) for capacity in settings["capacities"] for size in settings["batch_sizes"] if size <= capacity
    ]
    for one in document["throughput"]:
        rounds = one["rounds"]
        assert len(rounds) == settings["rounds"]
        assert len(set(rounds)) == len(rounds)  # measured again each time
        assert min(rounds) > 0
        assert one["events_per_second"] == dataclasses.asdict(Spread.of(rounds))
    assert [(one["wait"], one["spin_seconds"]) for one in document["latency"]] == list(WAITS.items())
    for one in document["latency"]:
        assert one["capacity"] == settings["capacities"][-1]
        assert one["events_per_round"] == round(settings["seconds_latency"] * document["latency_rate"])
        assert [point["percentile"] for point in one["percentiles"]] == list(PERCENTILES)
        for name in ("median", "least", "most"):
            figures = [point["nanoseconds"][name] for point in one["percentiles"]]
            assert figures == sorted(figures)
            assert figures[0] > 0
    written = json.dumps(document)
    for secret in (os.uname().nodename, str(Path.home()), str(Path.cwd())):
        assert secret not in written


def test_every_field_of_the_json_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "benchmarks.md").read_text()
    kinds = (Results, Machine, Settings, ThroughputResult, LatencyResult, PercentileResult, Spread)
    names = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []


def is_png(data: bytes) -> bool:
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    size = struct.unpack(">II", data[16:24])
    return size == tuple(round(inches * DOTS_PER_INCH) for inches in SIZE_INCHES)


# What is refused, before anything is measured.


@pytest.fixture
def never_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*arguments: object) -> None:
        raise AssertionError("it measures")

    monkeypatch.setattr("nodedb_ring.command.bench.command.run", started)


@pytest.mark.usefixtures("never_runs")
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--capacities=64", "--batch-sizes=1,65"], "batch size 65: must be at most 64 events, the largest capacity"),
        (
            ["--capacities=8,64", "--batch-sizes=16"],
            "capacity 8: must be at least 16 events, the smallest batch size",
        ),
        ([f"--capacities={2**33}"], f"capacity {2**33}: must be at most"),
        ([f"--value-bytes={2**32}"], f"arena_bytes {1025 * (2**32 + 16)}: must be"),
        (["--seconds=0.1"], "--seconds 0.1: 5 rounds of 18 kinds of transfer need at least 0.8; give more seconds"),
        (["--plot=bench.picture"], "--plot bench.picture: must end in a picture format: "),
        (["--plot=bench"], "--plot bench: must end in a picture format: "),
    ],
)
def test_invalid_measurements_are_refused(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"nodedb-ring bench: {complaint}")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("--capacities=64,many", "'many': must be a whole number, at least 1"),
        ("--capacities=", "'': must be a whole number, at least 1"),
        ("--batch-sizes=0", "'0': must be a whole number, at least 1"),
        ("--value-bytes=-1", "'-1': must be a whole number, at least 1"),
        ("--seconds=0", "'0': must be a number of seconds, more than 0"),
        ("--seconds=nan", "'nan': must be a number of seconds, more than 0"),
        ("--seconds=long", "'long': must be a number of seconds, more than 0"),
    ],
)
def test_an_invalid_number_is_refused(argument: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["bench", argument])
    assert exit_info.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.usefixtures("never_runs")
@pytest.mark.parametrize("option", ["--plot", "--json"])
def test_a_file_that_cannot_be_written_is_refused(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "nowhere" / "bench.png", tmp_path / "folder.png"):
        assert main(["bench", f"{option}={path}"]) == 2
        errors = capsys.readouterr().err
        assert errors.startswith("nodedb-ring bench: ")
        assert str(path) in errors
        assert errors.count("\n") == 1


def test_rings_that_do_not_fit_are_refused_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    # 35 TB of them: the file system says so before it takes a page.
    assert main(["bench", f"--capacities={2**28}", "--value-bytes=1"]) == 2
    assert "nodedb-ring bench: " in capsys.readouterr().err
    nothing_is_left()


# A run that ends early.


class Losing(Throughput):
    """Drops an event on the way, in the timed part."""

    def write(self, producer: EventProducer) -> tuple[int, int]:
        producer.emit_batch(self.lap.batches[0][:-1])
        return super().write(producer)


class Silent(Throughput):
    """Says that it sent more than it did: the last ones were lost."""

    def write(self, producer: EventProducer) -> tuple[int, int]:
        sent, start = super().write(producer)
        return sent + 1, start


class Damaging(Throughput):
    """Sends a value in the lap that is not what it should be."""

    def send_lap(self, producer: EventProducer) -> bool:
        first = self.lap.events[0]
        value = bytes(len(first.new_value or b""))
        assert value != first.new_value
        producer.emit(
            WriteEvent(
                sequence=1, collection=first.collection, op=first.op, row_id=first.row_id, lsn=1, new_value=value
            )
        )
        return send_singly(producer, self.lap.events[1:])


class LateStamps(Latency):
    """Its timestamps are of a clock that is an hour ahead."""

    def write(self, producer: EventProducer) -> Any:
        written = super().write(producer)
        return written + np.uint64(1)


class Dying(Throughput):
    """Its writer is killed."""

    def write(self, producer: EventProducer) -> tuple[int, int]:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().write(producer)


class DyingInLap(Throughput):
    """Its writer is killed before the clock runs; the reader misses events then."""

    def send_lap(self, producer: EventProducer) -> bool:
        send_batches(producer, self.lap.batches[:3])
        os.kill(os.getpid(), signal.SIGKILL)
        return True


class DyingReader(Throughput):
    """Its reader is killed."""

    def read(self, consumer: EventConsumer) -> tuple[int, int]:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().read(consumer)


def transfer(kind: Callable[..., Throughput] = Throughput, batch_size: int = 16) -> Throughput:
    return kind(capacity=64, batch_size=batch_size, value_bytes=20, seconds=0.02)


@pytest.mark.parametrize(
    ("measurement", "complaint"),
    [
        (transfer(Losing), r"events \d+ to \d+ arrived, and \d+ to \d+ were next"),
        (transfer(Silent), r"[\d,]+ events arrived, and [\d,]+ were sent"),
        (transfer(Damaging), r"WriteEvent\(.*\) arrived, and WriteEvent\(.*\) was sent"),
        (
            LateStamps(capacity=64, value_bytes=20, rate=10_000, events=100, spin=0.0),
            "the timestamps that arrived are not those that were sent",
        ),
    ],
)
def test_a_wrong_answer_prints_no_figure(measurement: Measurement[object], complaint: str) -> None:
    with pair_of_processes(small(), None) as both, pytest.raises(WrongAnswerError, match=complaint):
        both.measure(measurement)
    nothing_is_left()


@pytest.mark.parametrize(
    ("kind", "role"), [(Dying, "the writer"), (DyingInLap, "the writer"), (DyingReader, "the reader")]
)
def test_a_process_that_is_killed_is_named(kind: Callable[..., Throughput], role: str) -> None:
    with (
        pair_of_processes(small(), None) as both,
        pytest.raises(ChildProcessError, match=rf"{role}, process \d+, was killed by SIGKILL"),
    ):
        both.measure(transfer(kind))
    nothing_is_left()


def test_the_command_prints_no_figures_after_a_wrong_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "Throughput", Losing)
    kept, new = tmp_path / "kept.json", tmp_path / "new.png"
    kept.write_text("of the last run")
    assert main(["bench", *SMALL, f"--json={kept}", f"--plot={new}"]) == 3
    output, errors = capsys.readouterr()
    assert output == ""
    assert "\nnodedb-ring bench: wrong answer: events " in errors
    assert kept.read_text() == "of the last run"
    assert not new.exists()
    nothing_is_left()


@pytest.mark.parametrize(
    ("number", "to_all", "code", "said"),
    [
        (signal.SIGINT, False, 130, ["nodedb-ring: interrupted"]),
        # As a terminal does it: to the whole process group.
        (signal.SIGINT, True, 130, ["nodedb-ring: interrupted"]),
        (signal.SIGTERM, False, 143, []),
        (signal.SIGHUP, False, 129, []),
    ],
)
@pytest.mark.parametrize("measuring", [False, True], ids=["while it starts", "while it measures"])
def test_a_signal_leaves_no_bus_no_child_and_no_file(
    measuring: bool, number: signal.Signals, to_all: bool, code: int, said: list[str], tmp_path: Path
) -> None:
    arguments = ["--seconds=300", f"--plot={tmp_path / 'bench.png'}"]
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as bench:
        try:
            assert bench.stderr is not None
            if measuring:
                assert bench.stderr.readline().startswith("0 of 100 measured; round 1 of 5")
            else:
                until_it_has_a_bus(bench)
            children = Path(f"/proc/{bench.pid}/task/{bench.pid}/children").read_text().split()
            if to_all:
                os.killpg(bench.pid, number)
            else:
                bench.send_signal(number)
            output, errors = bench.communicate(timeout=WATCHDOG)
        finally:
            bench.kill()
    assert (bench.returncode, output) == (code, "")
    assert [line for line in errors.splitlines() if "measured; " not in line] == said
    assert len(children) >= 2 or not measuring
    # One of them is multiprocessing's own, which ends when it finds that the others have.
    until_gone(children)
    assert [name for name in EventBus.list() if name.startswith(f"bench-{bench.pid}-")] == []
    assert list(tmp_path.iterdir()) == []


def until_gone(children: list[str]) -> None:
    deadline = time.monotonic() + WATCHDOG
    while left := [child for child in children if is_alive(int(child))]:
        assert time.monotonic() < deadline, left
        time.sleep(0.002)


def until_it_has_a_bus(bench: subprocess.Popen[str]) -> None:
    while not [name for name in EventBus.list() if name.startswith(f"bench-{bench.pid}-")]:
        assert bench.poll() is None, "it ended before it had a bus"
        time.sleep(0.002)


def test_no_bus_has_a_name_while_it_measures() -> None:
    with pair_of_processes(small(), None) as both:
        assert [name for name in EventBus.list() if name.startswith(f"bench-{os.getpid()}-")] == []
        assert both.measure(transfer()) > 0
    nothing_is_left()


def test_processes_that_cannot_start_leave_no_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(pair, "spawn", refused)
    with pytest.raises(OSError, match="no more processes"), pair_of_processes(small(), None):
        pass
    nothing_is_left()


# Without the extras.


def without(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, module, "bench", *arguments],
        capture_output=True,
        text=True,
        timeout=WATCHDOG,
        check=False,
    )


def test_without_matplotlib_a_plot_is_refused_before_it_measures(tmp_path: Path) -> None:
    ran = without("matplotlib", f"--plot={tmp_path / 'bench.png'}")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (
        "nodedb-ring bench: --plot needs matplotlib, which is not installed: pip install 'nodedb_ring[plot]'\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["matplotlib", "rich"])
def test_without_an_extra_all_else_works(module: str) -> None:
    ran = without(module, *SMALL, "--json")
    assert ran.returncode == 0, ran.stderr
    is_complete(json.loads(ran.stdout))
    assert ran.stderr.startswith("0 of 21 measured; round 1 of 3: capacity 64, batches of 1\n")


def test_another_missing_module_is_not_mistaken_for_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**options: object) -> None:
        raise ModuleNotFoundError("No module named 'elsewhere'", name="elsewhere")

    monkeypatch.setattr("nodedb_ring.command.bench.command.run_bench", broken)
    with pytest.raises(ModuleNotFoundError, match="elsewhere"):
        main(["bench"])


# The parts.


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
