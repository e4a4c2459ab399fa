"""The demo between processes: the same agreement, nobody waits for the dead, and nothing is left behind."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path, PosixPath

import pytest

from nodedb_ring import EventBus, RingStats
from nodedb_ring.command.cli import main
from nodedb_ring.command.demo.flights import AIRPORTS, Flight
from nodedb_ring.command.demo.outcome import Outcome
from nodedb_ring.command.demo.processes import run
from nodedb_ring.command.demo.report import Verdict
from tests.unit.runners import Running
from tests.unit.shared_buses import is_alive

from .demo_accounts import missing_to_the_event, reckoned_from_the_file, report

ROWS = 5000
MANY = 50_000  # enough that all children are at work for a while
SECONDS = 50
ROLES = ["the writer of core 0", "the writer of core 1", "the consumer"]
ENDED_BEFORE = 100_000  # rows of a command that is ended long before the last of them
COMMAND = [sys.executable, "-m", "nodedb_ring", "demo", "--processes", f"--rows={ENDED_BEFORE}"]


pytestmark = pytest.mark.usefixtures("no_terminal")


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[EventBus]:
    with shared_bus(tmp_path / "bus", capacity=2 * ROWS) as made:
        yield made


@contextlib.contextmanager
def shared_bus(directory: Path, capacity: int) -> Generator[EventBus, None, None]:
    """A bus in a directory of its own, which is empty once it is unlinked."""
    directory.mkdir()
    with EventBus.create("flights", len(AIRPORTS), capacity, directory=directory) as made:
        yield made
        made.unlink()
    assert list(directory.iterdir()) == []


def run_quietly(flights: list[Flight], databases: tuple[Path, Path], bus: EventBus) -> Outcome:
    return run(flights[:MANY], databases, bus, lambda done: None, lambda line: None)


def buses_of(demo: int) -> list[str]:
    """The names of the buses that the process `demo` has made for its demo, and that are there now."""
    return [name for name in EventBus.list() if name.startswith(f"demo-{demo}-")]


def until(come: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not come():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.002)


def owners(rings: tuple[RingStats, ...]) -> list[int | None]:
    """Who holds the ends: the writers by core, then the consumer, of all rings or of none."""
    consumers = {ring.consumer_pid for ring in rings}
    return [*(ring.producer_pid for ring in rings), consumers.pop() if len(consumers) == 1 else None]


# The run.


def test_view_databases_and_file_agree(flights: list[Flight], databases: tuple[Path, Path], bus: EventBus) -> None:
    through: list[int] = []
    said: list[str] = []
    outcome = run(flights[:ROWS], databases, bus, through.append, said.append)
    expected = reckoned_from_the_file(ROWS)
    assert outcome.view == expected
    assert outcome.database == expected
    assert outcome.missing == 0
    assert [sum(core.events.values()) for core in outcome.cores] == [
        2 * sum(flight.origin in airports for flight in flights[:ROWS]) for airports in AIRPORTS
    ]
    assert [core.producer.emitted for core in outcome.cores] == [core.consumer.received for core in outcome.cores]
    assert through == sorted(through)
    assert through[-1] == 2 * ROWS
    assert said == []
    assert outcome.seconds > 0
    assert report(outcome)[0] is Verdict.AGREE
    assert owners(bus.stats()) == [None, None, None]
    assert multiprocessing.active_children() == []


def test_the_two_writers_and_the_consumer_are_processes_of_their_own(
    flights: list[Flight], databases: tuple[Path, Path], bus: EventBus
) -> None:
    seen: set[int] = set()

    def observe(done: int) -> None:
        seen.update(pid for pid in owners(bus.stats()) if pid is not None)

    run(flights[:MANY], databases, bus, observe, lambda line: None)
    assert len(seen) == 3
    assert os.getpid() not in seen


def test_exactly_the_dropped_events_are_missing(
    flights: list[Flight], databases: tuple[Path, Path], tmp_path: Path
) -> None:
    through: list[int] = []
    said: list[str] = []
    with shared_bus(tmp_path / "bus", capacity=64) as bus:
        outcome = run(flights[:ROWS], databases, bus, through.append, said.append)
    assert through[-1] == 2 * ROWS
    missing_to_the_event(outcome, ROWS)
    # The writers' warnings came here, each kind once per core.
    assert len(said) == len(set(said))
    for core in range(2):
        assert sum(line.startswith(f"WARNING core {core}: the ring overflows") for line in said) == 1


def test_a_database_that_says_otherwise_is_found_out(
    flights: list[Flight], databases: tuple[Path, Path], bus: EventBus
) -> None:
    def tamper(done: int) -> None:
        # All is through: the writers have nothing more to write.
        if done == 2 * ROWS:
            with contextlib.closing(sqlite3.connect(databases[1])) as database, database:
                database.execute("UPDATE flights SET dep_delay = 1000 WHERE flight_id = 4")

    outcome = run(flights[:ROWS], databases, bus, tamper, lambda line: None)
    assert outcome.missing == 0
    verdict, text = report(outcome)
    assert verdict is Verdict.DISAGREE
    carrier = flights[3].carrier
    assert f"{carrier}: the view says {outcome.view[carrier]}, the databases {outcome.database[carrier]}." in text


@pytest.mark.parametrize(("victim", "role"), list(enumerate(ROLES)))
def test_a_child_that_is_killed_ends_the_run_by_its_name(
    victim: int, role: str, flights: list[Flight], slow_databases: tuple[Path, Path], bus: EventBus
) -> None:
    killed = Running(lambda: kill(at_work(bus)[victim]))
    with pytest.raises(ChildProcessError) as error:
        run_quietly(flights, slow_databases, bus)
    assert str(error.value) == f"{role}, process {killed.result()}, was killed by SIGKILL"
    assert owners(bus.stats()) == [None, None, None]
    assert multiprocessing.active_children() == []
    for database, airports, writer in zip(slow_databases, AIRPORTS, ROLES, strict=False):
        if writer != role:
            # When asked to end, it closed its database in order, which removes the WAL, long before the last flight.
            assert not Path(f"{database}-wal").exists()
            with contextlib.closing(sqlite3.connect(database)) as connection:
                [(written,)] = connection.execute("SELECT count(*) FROM flights")
            assert written < sum(flight.origin in airports for flight in flights[:MANY])


class Deadly(PosixPath):
    """Ends the process that is given it."""

    def __reduce__(self) -> tuple[Callable[[int], object], tuple[int]]:
        return os._exit, (3,)


def test_a_child_that_dies_before_it_reads_its_flights_is_named(
    flights: list[Flight], databases: tuple[Path, Path], bus: EventBus
) -> None:
    # They are more than the kernel keeps for a reader who never comes.
    with pytest.raises(ChildProcessError, match=r"the writer of core 0, process \d+, ended with exit code 3"):
        run_quietly(flights, (Deadly(databases[0]), databases[1]), bus)
    assert multiprocessing.active_children() == []


def test_a_writer_that_fails_ends_the_run_by_its_name(
    flights: list[Flight], databases: tuple[Path, Path], bus: EventBus, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ChildProcessError, match=r"the writer of core 1, process \d+, ended with exit code 1"):
        run_quietly(flights, (databases[0], databases[1] / "nowhere"), bus)
    assert "CantOpenError" in capfd.readouterr().err
    assert multiprocessing.active_children() == []


def test_a_consumer_that_fails_stops_the_writers(
    flights: list[Flight], databases: tuple[Path, Path], bus: EventBus, capfd: pytest.CaptureFixture[str]
) -> None:
    with bus.consumer(1), pytest.raises(ChildProcessError, match=r"the consumer, process \d+, ended with exit code 1"):
        run_quietly(flights, databases, bus)
    assert "RoleTaken: consumer of core 1" in capfd.readouterr().err
    assert multiprocessing.active_children() == []


# The command.


@pytest.mark.usefixtures("at_hand")
def test_command_agrees_and_leaves_no_bus(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--processes", f"--rows={ROWS}"]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    name = f"demo-{os.getpid()}-"
    lines = output.splitlines()
    assert lines[0].startswith(f"bus {name}")
    assert lines[1] == f"writing {ROWS:,} flights into 2 databases"
    assert lines[-1].startswith("The view and the databases agree exactly: ")
    assert "\x1b" not in output
    assert buses_of(os.getpid()) == []


@pytest.mark.usefixtures("at_hand")
def test_command_says_what_an_overflow_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--processes", f"--rows={ROWS}", "--capacity=64"]) == 1
    output = capsys.readouterr().out
    assert output.count("the ring overflows") == 2
    assert "events in all. Give the rings a larger --capacity." in output
    assert buses_of(os.getpid()) == []


@pytest.mark.usefixtures("at_hand")
def test_command_names_the_child_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    killed = Running(lambda: kill(demo_at_work(os.getpid())[1]))
    assert main(["demo", "--processes", f"--rows={ENDED_BEFORE}"]) == 2
    errors = capsys.readouterr().err
    assert errors == f"nodedb-ring demo: the writer of core 1, process {killed.result()}, was killed by SIGKILL\n"
    nothing_is_left(os.getpid(), [], tmp_path)


@pytest.mark.parametrize(
    ("number", "to_all", "code", "said"),
    [
        (signal.SIGINT, False, 130, "nodedb-ring: interrupted\n"),
        # As a terminal does it: to the whole process group.
        (signal.SIGINT, True, 130, "nodedb-ring: interrupted\n"),
        (signal.SIGTERM, False, 143, ""),
        (signal.SIGHUP, False, 129, ""),
    ],
)
def test_a_signal_stops_all_of_it(number: signal.Signals, to_all: bool, code: int, said: str, tmp_path: Path) -> None:
    with subprocess.Popen(
        COMMAND,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        start_new_session=True,
    ) as demo:
        try:
            pids = demo_at_work(demo.pid)
            if to_all:
                os.killpg(demo.pid, number)
            else:
                demo.send_signal(number)
            output, errors = demo.communicate(timeout=SECONDS)
        finally:
            demo.terminate()
    assert (demo.returncode, errors) == (code, said)
    assert "The view" not in output
    nothing_is_left(demo.pid, pids, tmp_path)


@pytest.mark.parametrize("ends", [[0, 1, 2], [2]], ids=["at work", "before the writers have come"])
def test_children_whose_parent_was_killed_end_too(ends: list[int], tmp_path: Path) -> None:
    with subprocess.Popen(
        COMMAND, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"TMPDIR": str(tmp_path)}
    ) as demo:
        try:
            until(lambda: buses_of(demo.pid) != [])
            with EventBus.open(buses_of(demo.pid)[0]) as bus:
                until(lambda: all(owners(bus.stats())[end] for end in ends))
                children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()
                demo.kill()
                bus.unlink()
            assert len(children) >= 3
            until(lambda: not any(is_alive(int(child)) for child in children))
        finally:
            demo.terminate()


def test_ctrl_c_while_the_children_start_is_quiet_too(tmp_path: Path) -> None:
    with subprocess.Popen(
        COMMAND,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    ) as demo:
        try:
            assert demo.stdout is not None
            while not demo.stdout.readline().startswith("writing "):
                pass
            time.sleep(0.05)
            os.killpg(demo.pid, signal.SIGINT)
            _, errors = demo.communicate(timeout=SECONDS)
        finally:
            demo.terminate()
    assert (demo.returncode, errors) == (130, "nodedb-ring: interrupted\n")
    nothing_is_left(demo.pid, [], tmp_path)


def at_work(bus: EventBus) -> list[int]:
    """The process ids of the writers by core, and of the consumer, once events go through both rings."""
    rings: list[RingStats] = []

    def all_are() -> bool:
        rings[:] = bus.stats()
        return all(owners(tuple(rings))) and all(ring.producer.emitted for ring in rings)

    until(all_are)
    return [pid for pid in owners(tuple(rings)) if pid is not None]


def demo_at_work(demo: int) -> list[int]:
    """The same of the process `demo` and its bus."""
    until(lambda: buses_of(demo) != [])
    with EventBus.open(buses_of(demo)[0]) as bus:
        return at_work(bus)


def kill(pid: int) -> int:
    assert pid > 1, "that would be more than one process"
    os.kill(pid, signal.SIGKILL)
    return pid


def nothing_is_left(demo: int, pids: list[int], files: Path) -> None:
    assert buses_of(demo) == []
    assert [pid for pid in pids if is_alive(pid)] == []
    assert list(files.iterdir()) == []
