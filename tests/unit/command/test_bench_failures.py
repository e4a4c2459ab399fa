"""The command ``nodedb-ring bench``: wrong answers, dead processes and signals leave no figure, no bus and no child."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nodedb_ring import EventBus, EventConsumer, EventProducer, WriteEvent
from nodedb_ring.command.bench import pair, run
from nodedb_ring.command.bench.latency import Latency
from nodedb_ring.command.bench.measurement import Measurement
from nodedb_ring.command.bench.pair import pair_of_processes
from nodedb_ring.command.bench.sending import send_batches, send_singly
from nodedb_ring.command.bench.throughput import Throughput
from nodedb_ring.command.cli import main
from nodedb_ring.errors import WrongAnswerError
from tests.unit.shared_buses import is_alive

from .bench_runs import COMMAND, SMALL, WATCHDOG, nothing_is_left, small, transfer

pytestmark = pytest.mark.usefixtures("no_terminal")


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
