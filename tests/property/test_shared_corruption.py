"""A shared block overwritten with anything gives answers that can be, or CorruptRingError: never a crash, never a hang.

Each case makes a bus, uses it, and overwrites its file, at places and with values that the seed picks: between two
calls, or from another process while the calls run. Cases run in a child process: one that takes its process down, or
does not come to an end, is a failure that names the seed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import mmap
import os
import random
import signal
import struct
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NoReturn
from warnings import catch_warnings, simplefilter

import pytest

from nodedb_ring import (
    CorruptRingError,
    EventBatch,
    EventBus,
    EventConsumer,
    EventProducer,
    EventSource,
    LayoutError,
    Lease,
    PressureState,
    RoleTaken,
    WriteEvent,
    WriteOp,
)
from tests.unit.builders import event

SECONDS_A_CASE: Final = 20
PAGE: Final = 4096
LARGEST: Final = 2**64 - 1

# Where a block says its index array, its rows and its arena begin.
INDEX_AT, ROWS_AT, ARENA_AT, BLOCK_BYTES = 32, 40, 48, 56
ROW_BYTES: Final = 128


class Block:
    """The bytes of one core's ring, for a test that writes to the file without any rules."""

    def __init__(self, bus: EventBus, core_id: int) -> None:
        with bus.path.open("r+b") as file:
            self.bytes = mmap.mmap(file.fileno(), 0)
        self.start = PAGE + core_id * ((len(self.bytes) - PAGE) // bus.num_cores)
        self.capacity = bus.capacity
        self.index_at, self.rows_at, self.arena_at, size = struct.unpack_from("<4Q", self.bytes, self.start + INDEX_AT)
        self.end = self.start + size

    def word(self, at: int) -> int:
        [word] = struct.unpack_from("<Q", self.bytes, self.start + at)
        return int(word)

    def overwrite(self, chance: random.Random) -> None:
        """Writes one to a few words or bytes, most of them where they matter."""
        for _ in range(chance.choice([1, 1, 1, 2, 8])):
            where = chance.random()
            if where < 0.45:
                # The lines of the header: the producer's, its counters, the consumer's, and who waits.
                line = chance.choice([128, 128, 256, 384, 384, 512])
                self._word(chance, line, line + 72)
            elif where < 0.6:
                self._index(chance)
            elif where < 0.85:
                self._row(chance)
            elif where < 0.95:
                self._noise(chance, self.arena_at, self.end - self.start)
            else:
                # Anywhere, the head page and the other ring too.
                self._noise(chance, -self.start, len(self.bytes) - self.start)

    def _word(self, chance: random.Random, low: int, high: int) -> None:
        size = chance.choice([4, 8])
        at = chance.randrange(low, high, size)
        form = "<I" if size == 4 else "<Q"
        [before] = struct.unpack_from(form, self.bytes, self.start + at)
        struct.pack_into(form, self.bytes, self.start + at, _another(chance, before) % 256**size)

    def _index(self, chance: random.Random) -> None:
        at = self.start + self.index_at + 4 * chance.randrange(self.capacity)
        [before] = struct.unpack_from("<I", self.bytes, at)
        value = chance.choice([chance.randrange(self.capacity), _another(chance, before) % 2**32])
        struct.pack_into("<I", self.bytes, at, value)

    def _row(self, chance: random.Random) -> None:
        row = self.rows_at + ROW_BYTES * chance.randrange(self.capacity)
        if chance.random() < 0.2:
            other = self.start + self.rows_at + ROW_BYTES * chance.randrange(self.capacity)
            self.bytes[self.start + row : self.start + row + ROW_BYTES] = self.bytes[other : other + ROW_BYTES]
        else:
            # The numbers of an event may be any: its kind, its span, its fields, its position.
            self._word(chance, row + 40, row + ROW_BYTES)

    def _noise(self, chance: random.Random, low: int, high: int) -> None:
        length = chance.choice([1, 4, 64, 300])
        at = self.start + chance.randrange(low, high)
        length = min(length, len(self.bytes) - at)
        self.bytes[at : at + length] = chance.randbytes(length)


def _another(chance: random.Random, before: int) -> int:
    choice = chance.randrange(7)
    if choice == 0:
        return chance.choice([0, 1, 2**31, 2**32 - 1, 2**63, LARGEST, LARGEST - 1])
    if choice == 1:
        return before + chance.choice([1, -1])
    if choice == 2:
        return before ^ (1 << chance.randrange(64))
    if choice == 3:
        return before + chance.randrange(-70, 70)
    if choice == 4:
        return chance.randrange(300)
    if choice == 5:
        return before + chance.choice([2**31, 2**32, 2**63])
    return chance.getrandbits(64)


def check_event(each: WriteEvent) -> None:
    """What is given out is an event, whatever was written over it."""
    assert isinstance(each.op, WriteOp)
    assert isinstance(each.source, EventSource)
    for text in (each.collection, each.row_id, each.user_id, each.statement_digest):
        assert text is None or text.encode().decode() == text
    for value in (each.new_value, each.old_value):
        assert value is None or isinstance(value, bytes)
    assert each == WriteEvent(**{name: getattr(each, name) for name in WriteEvent.__match_args__})


def check_batch(batch: EventBatch, most: int) -> None:
    assert len(batch) <= most
    assert batch.records.shape == (len(batch),)
    for name in ("new_value", "old_value"):
        batch.values(name)
    total = int(batch.payload.astype("u8").sum())
    assert total >= 0
    for name in ("collection", "row_id", "user_id", "statement_digest"):
        # Text is decoded when it is asked for: this is where a corrupt payload is found.
        with contextlib.suppress(CorruptRingError):
            batch.strings(name)
    for number in range(len(batch)):
        with contextlib.suppress(CorruptRingError):
            check_event(batch[number])


def close(end: EventProducer | EventConsumer | None) -> None:
    """An end of a corrupt ring can be closed."""
    if end is not None:
        try:
            end.close()
        except CorruptRingError as error:
            raise AssertionError("close() raises") from error


class Case:
    """One bus, both of its ends, and calls that the seed picks."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.chance = chance = random.Random(seed)
        self.bus = EventBus.create(
            f"case-{os.getpid()}-{seed}",
            chance.choice([1, 2]),
            chance.choice([1, 2, 4, 16, 64]),
            arena_bytes=chance.choice([64, 300, 4096]),
            directory=directory,
        )
        self.core_id = chance.randrange(self.bus.num_cores)
        self.block = Block(self.bus, self.core_id)
        self.producer: EventProducer | None = self.bus.producer(self.core_id)
        self.consumer: EventConsumer | None = self.bus.consumer(self.core_id)
        self.leases: list[Lease] = []
        self.number = 1
        self.outcomes: set[str] = set()
        self.calls: list[Callable[[], None]] = [
            self.emit,
            self.emit,
            self.emit_batch,
            self.reserve,
            self.drain,
            self.drain_within,
            self.try_recv,
            self.lease,
            self.release,
            self.observe,
            self.succeed_producer,
            self.succeed_consumer,
            self.watch,
        ]

    def close(self) -> None:
        self.leases.clear()
        self.producer = self.consumer = None
        self.bus.unlink()
        self.bus.close()

    def call(self) -> None:
        self.attempt(self.chance.choice(self.calls))

    def attempt(self, call: Callable[[], None]) -> None:
        try:
            call()
        except (CorruptRingError, LayoutError) as error:
            # A claim checks the layout as opening does, and the layout may be what was overwritten.
            if isinstance(error, LayoutError) and call not in (self.succeed_producer, self.succeed_consumer):
                raise
            self.outcomes.add("corrupt")
        else:
            self.outcomes.add("answered")

    def event(self) -> WriteEvent:
        self.number += 1
        size = self.chance.choice([0, 1, 8, 30])
        return event(self.number, new_value=self.chance.choice([None, self.chance.randbytes(size)]), user_id="ü")

    def emit(self) -> None:
        if self.producer is not None:
            assert self.producer.emit(self.event()) in (True, False)

    def emit_batch(self) -> None:
        if self.producer is not None:
            events = [self.event() for _ in range(self.chance.randrange(1, 80))]
            assert 0 <= self.producer.emit_batch(EventBatch.from_events(events)) <= len(events)

    def reserve(self) -> None:
        if self.producer is not None:
            with self.producer.reserve(self.chance.randrange(1, 20), self.chance.choice([0, 0, 16])) as rows:
                assert len(rows) <= 20
                rows["op"] = WriteOp.INSERT
                # By default the numbers continue from what the block says was tried.
                rows["sequence"] = range(self.number, self.number + len(rows))

    def drain(self) -> None:
        if self.consumer is not None:
            most = self.chance.randrange(1, 100)
            check_batch(self.consumer.drain(most), most)

    def drain_within(self) -> None:
        if self.consumer is not None:
            check_batch(self.consumer.drain(timeout=0.0005), 1024)

    def try_recv(self) -> None:
        if self.consumer is not None:
            received = self.consumer.try_recv()
            if received is not None:
                check_event(received)

    def lease(self) -> None:
        if self.consumer is not None:
            most = self.chance.randrange(1, 10)
            lease = self.consumer.lease(most)
            self.leases.append(lease)
            check_batch(lease.batch, most)

    def release(self) -> None:
        if self.leases:
            lease = self.leases.pop(self.chance.randrange(len(self.leases)))
            # It may have been read before something was written over it, or after.
            check_batch(lease.batch, 10)
            lease.release()

    def observe(self) -> None:
        """Calls that move no event return, whatever bytes they read."""
        for stats in self.bus.stats():
            assert 0 <= stats.utilization <= 100
            assert 0 <= stats.producer.slots_in_use <= self.bus.capacity
            assert 0 <= stats.producer.bytes_in_use <= self.bus.arena_bytes
            assert 0 <= stats.consumer.held <= self.bus.capacity
            assert isinstance(stats.pressure_state, PressureState)
            repr(stats)
        if self.producer is not None:
            repr((self.producer.stats(), self.producer.is_consumer_disconnected, self.producer.next_sequence))
            assert 0 <= self.producer.utilization <= 100
            assert isinstance(self.producer.pressure_state, PressureState)
        if self.consumer is not None:
            repr((self.consumer.stats(), self.consumer.is_producer_disconnected, self.consumer.core_id))
            assert isinstance(self.consumer.pressure_state, PressureState)

    def succeed_producer(self) -> None:
        close(self.producer)
        self.producer = None
        self.producer = self.bus.producer(self.core_id)

    def succeed_consumer(self) -> None:
        self.leases.clear()
        close(self.consumer)
        self.consumer = None
        self.consumer = self.bus.consumer(self.core_id)

    def watch(self) -> None:
        if self.consumer is not None:
            assert self.consumer.fileno() >= 0


def between_calls(seed: int, directory: Path) -> set[str]:
    """Overwrites between calls, a few times in a case."""
    case = Case(seed, directory)
    try:
        for _ in range(case.chance.randrange(12)):
            case.call()
        for _ in range(case.chance.randrange(1, 5)):
            case.block.overwrite(case.chance)
            for _ in range(case.chance.randrange(1, 12)):
                case.call()
        # Corruption does not lose a role: the end can be closed, and then nobody holds it.
        for call in (case.succeed_producer, case.succeed_consumer):
            case.attempt(call)
    finally:
        case.close()
    return case.outcomes


def vandalize(block: Block, chance: random.Random) -> NoReturn:
    signal.alarm(SECONDS_A_CASE)
    try:
        while True:
            block.overwrite(chance)
            if chance.random() < 0.3:
                time.sleep(chance.random() / 5000)
    finally:
        os._exit(1)


def while_it_runs(seed: int, directory: Path) -> set[str]:
    """Overwrites from another process, without a pause, while calls are made."""
    case = Case(seed, directory)
    vandal = os.fork()
    if vandal == 0:
        vandalize(case.block, random.Random(-seed))
    try:
        for _ in range(40):
            case.call()
            if case.producer is None or "corrupt" in case.outcomes:
                # What was found corrupt stays so: begin again with what the file holds now.
                case.attempt(case.succeed_producer)
                case.attempt(case.succeed_consumer)
    finally:
        os.kill(vandal, signal.SIGKILL)
        _, status = os.waitpid(vandal, 0)
        case.close()
    assert os.WTERMSIG(status) == signal.SIGKILL
    return case.outcomes


def live_and_die(case: Case) -> NoReturn:
    signal.alarm(SECONDS_A_CASE)
    try:
        case.producer, case.consumer = case.bus.producer(case.core_id), case.bus.consumer(case.core_id)
        calls = [case.emit, case.emit, case.emit_batch, case.lease, case.lease, case.release, case.drain]
        for _ in range(case.chance.randrange(60)):
            case.chance.choice(calls)()
        os.kill(os.getpid(), signal.SIGKILL)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def succession_of_the_dead(seed: int, directory: Path) -> set[str]:
    """A process dies with leases out and an open attempt; its block is overwritten before anyone succeeds it."""
    case = Case(seed, directory)
    chance = case.chance
    try:
        assert case.producer is not None
        assert case.consumer is not None
        case.producer.close()
        case.consumer.close()
        holder = os.fork()
        if holder == 0:
            live_and_die(case)
        _, status = os.waitpid(holder, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
        case.producer = case.consumer = None
        for _ in range(chance.randrange(1, 4)):
            case.block.overwrite(chance)
        for call in (case.observe, case.succeed_producer, case.succeed_consumer):
            case.attempt(call)
        for _ in range(chance.randrange(20)):
            case.call()
        case.attempt(case.observe)
    finally:
        case.close()
    return case.outcomes


Kind = Callable[[int, Path], set[str]]


def run(kind: Kind, seeds: range, directory: Path, report: mmap.mmap) -> set[str]:
    """Runs cases in a child process; what it was doing last is in `report`."""
    reading, writing = os.pipe()
    with catch_warnings():
        # Python 3.12 warns of forking beside threads, those of a linear algebra library included.
        simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(reading)
        reported = ""
        try:
            faulthandler.enable()
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            outcomes: set[str] = set()
            for seed in seeds:
                report[:8] = seed.to_bytes(8, "little")
                signal.alarm(SECONDS_A_CASE)
                outcomes |= kind(seed, directory)
            reported = " ".join(sorted(outcomes))
        except BaseException:
            reported = traceback.format_exc()
        finally:
            os.write(writing, reported.encode(errors="replace")[:60000])
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        reported = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    seed = int.from_bytes(report[:8], "little")
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        what = "does not come to an end" if name == "SIGALRM" else f"ended its process by {name}"
        pytest.fail(f"{kind.__name__}, seed {seed}: {what}")
    assert status == 0
    if "Traceback" in reported:
        pytest.fail(f"{kind.__name__}, seed {seed}:\n{reported}")
    return set(reported.split())


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for path in tmp_path.iterdir():
        path.unlink()


@pytest.mark.parametrize("batch", range(6))
@pytest.mark.parametrize(("kind", "cases"), [(between_calls, 60), (while_it_runs, 12), (succession_of_the_dead, 40)])
def test_anything_written_over_a_block(kind: Kind, cases: int, batch: int, directory: Path) -> None:
    report = mmap.mmap(-1, 8)
    assert run(kind, range(batch * cases, (batch + 1) * cases), directory, report) == {"answered", "corrupt"}


def crash(seed: int, directory: Path) -> set[str]:
    if seed == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    return set()


def hang(seed: int, directory: Path) -> set[str]:
    signal.alarm(1)
    while True:
        time.sleep(1)


def wrong(seed: int, directory: Path) -> set[str]:
    raise RoleTaken("said wrongly", 1)


@pytest.mark.parametrize(
    ("kind", "text"),
    [(crash, "crash, seed 3: ended its process by SIGSEGV"), (hang, "hang, seed 1: does not"), (wrong, "said wrongly")],
)
def test_the_harness_detects_each_kind_of_error(kind: Kind, text: str, directory: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match=text):
        run(kind, range(1, 5), directory, mmap.mmap(-1, 8))
