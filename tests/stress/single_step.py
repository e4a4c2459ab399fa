"""SIGKILL at every instruction: a process is stepped through one call on a small shared ring, and killed on the way.

``python -m tests.stress.single_step`` checks what every store to the shared block leaves, and kills a few processes;
with ``--all`` it kills one after every instruction. Each time successors claim both ends, the producer's first, which
writes wherever it may before anything is taken; they continue for a few laps of the ring; and the history is checked.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import mmap
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final, Literal, NoReturn, TypeVar

import numpy as np

from nodedb_ring import EVENT_DTYPE, EventBatch, EventBus, Lease, RingError, WriteEvent

from .history import Account, ConsumerLife, HistoryError, ProducerLife, check_deliveries, published_numbers
from .journal import Attempt, Journal, Mark, memory_directory
from .numbered import WrongEventError, numbered_events
from .stepping import NativeRun, Stepping, build
from .tracing import CONT, SINGLE_STEP, SYSCALL, TRACEME, can_trace, is_stop, on_one_processor, ptrace, traced
from .watchdog import PATIENCE, StuckError

T = TypeVar("T")

BY_BYTES: Final = (16, 128)
"""Slots and bytes of arena of a ring that runs out of bytes first: what may be written over is written over."""

BY_SLOTS: Final = (8, 1024)
"""Of one that runs out of slots."""

EVENTS: Final = numbered_events(20)


def _plain(call: Callable[..., T], *arguments: object) -> T:
    return call(*arguments)


class Ends:
    """Both ends of one ring in this process, each with its journal. ``call`` makes the calls to step through."""

    def __init__(self, bus: EventBus, directory: Path, which: str, native: Stepping) -> None:
        self.emitted_in = Journal(directory / f"{which}.producer")
        self.taken_in = Journal(directory / f"{which}.consumer")
        self.native = native
        self.call: Callable[..., object] = _plain
        self.events = EVENTS
        self.producer = bus.producer(0)
        self.sequence = self.producer.next_sequence
        self.emitted_in.claimed(self.sequence, 0, 0)
        self.consumer = bus.consumer(0)
        stats = self.consumer.stats()
        self.taken_in.claimed(0, stats.received - stats.held, stats.redelivered)
        self.leases: dict[int, Lease | NativeRun] = {}
        self.last_lease = 0

    # ---- the producer's calls

    def _tried(self, how: Attempt, count: int, call: Callable[[], object]) -> int:
        self.emitted_in.try_events(how, self.sequence, count)
        enqueued = call()
        assert isinstance(enqueued, int)
        self.emitted_in.tried(int(enqueued))
        self.sequence += count
        return int(enqueued)

    def emit(self) -> bool:
        event = self.events.event(self.sequence)
        return bool(self._tried(Attempt.EMIT, 1, lambda: self.call(self.producer.emit, event)))

    def emit_batch(self, count: int) -> int:
        batch = self.events.batch(self.sequence, count)
        return self._tried(Attempt.BATCH, count, lambda: self.call(self.producer.emit_batch, batch))

    def emit_scattered(self, count: int) -> int:
        batch = self.events.scattered(self.sequence, count)
        return self._tried(Attempt.BATCH, count, lambda: self.call(self.producer.emit_batch, batch))

    def reserve(self, count: int) -> int:
        records, payload = self.events.columns(self.sequence, count)
        rows = self.producer.reserve(count, len(payload))
        rows.__enter__()
        assert len(rows) == count
        rows.records[:] = records
        rows.payload[:] = payload

        def leave() -> int:
            self.call(rows.__exit__, None, None, None)
            return int(rows.published)

        return self._tried(Attempt.RESERVE, count, leave)

    def push(self) -> int:
        records, payload = self.events.columns(self.sequence, 1)
        row, room = records.view(np.uint8), np.append(payload, np.uint8(0))
        return self._tried(
            Attempt.EMIT, 1, lambda: int(self.native.push(self.producer.ring, row, room[: max(1, len(payload))]))
        )

    def push_rows(self, count: int) -> int:
        records, payload = self.events.columns(self.sequence, count)
        rows = records.view(np.uint8)
        return self._tried(Attempt.BATCH, count, lambda: self.native.push_rows(self.producer.ring, rows, payload))

    # ---- the consumer's calls

    def _took(self, lease: int, batch: EventBatch) -> int:
        if len(batch):
            self.taken_in.got(lease, batch.sequence)
            self.events.check(batch)
            self.taken_in[Journal.CHECKED] += len(batch)
        return len(batch)

    def drain(self, most: int) -> int:
        self.taken_in.mark(Mark.TAKE, most)
        batch = self.call(self.consumer.drain, most)
        assert isinstance(batch, EventBatch)
        return self._took(0, batch)

    def try_recv(self) -> int:
        self.taken_in.mark(Mark.TAKE, 1)
        event = self.call(self.consumer.try_recv)
        return self._took(0, EventBatch.from_events([event] if isinstance(event, WriteEvent) else []))

    def pop(self) -> int:
        row, payload = np.zeros(EVENT_DTYPE.itemsize, np.uint8), np.zeros(self.consumer.ring.arena_bytes, np.uint8)
        self.taken_in.mark(Mark.TAKE, 1)
        count = self.native.pop(self.consumer.ring, row, payload)
        return self._took(0, EventBatch(row.view(EVENT_DTYPE)[:count], payload))

    def lease(self, most: int) -> int:
        self.taken_in.mark(Mark.LEASE, most)
        lease = self.call(self.consumer.lease, most)
        assert isinstance(lease, Lease)
        if not len(lease.batch):
            lease.release()
            return 0
        self.last_lease += 1
        self.leases[self.last_lease] = lease
        return self._took(self.last_lease, lease.batch)

    def release(self, number: int) -> None:
        lease = self.leases.pop(number)
        assert isinstance(lease, Lease)
        self.events.check(lease.batch)
        self.taken_in.mark(Mark.RELEASING, number)
        self.call(lease.release)
        self.taken_in.mark(Mark.RELEASED, number)

    def take(self, most: int, stops: bool = False) -> None:
        """A lease as native code takes it."""
        run = self.native.Run(self.consumer.ring)
        self.taken_in.mark(Mark.LEASE, most)
        count = run.take(most, stops)
        rows = np.zeros(count * EVENT_DTYPE.itemsize, np.uint8)
        run.read(rows)
        self.last_lease += 1
        self.leases[self.last_lease] = run
        self.taken_in.got(self.last_lease, rows.view(EVENT_DTYPE)["sequence"].copy())

    def give_back(self, number: int) -> None:
        """Ends it."""
        run = self.leases.pop(number)
        assert not isinstance(run, Lease)
        self.taken_in.mark(Mark.RELEASING, number)
        run.release()
        self.taken_in.mark(Mark.RELEASED, number)

    def close(self) -> None:
        self.producer.close()
        self.consumer.close()


@dataclasses.dataclass(frozen=True)
class Operation:
    """A call to die in, and how the ring is before it."""

    name: str
    prepare: Callable[[Ends], object]
    act: Callable[[Ends], object] | None
    claims: Literal["producer", "consumer"] | None = None
    """Not the one who prepared the ring dies, but one who claims this end after its death."""
    geometry: tuple[int, int] = BY_BYTES


def _roll(ends: Ends, events: int) -> None:
    """Moves the ring on, so that its ends lie somewhere in its middle; it is never empty, so the arena moves too."""
    assert ends.emit()
    for _ in range(events):
        assert ends.emit()
        assert ends.drain(1) == 1


def _empty(roll: int) -> Callable[[Ends], None]:
    """Nothing is outstanding."""

    def prepare(ends: Ends) -> None:
        _roll(ends, roll)
        assert ends.drain(9) == 1

    return prepare


def _lagging(ends: Ends) -> None:
    """Nothing is outstanding, the next event starts a lap, and its end is more than a lap past the consumer's mark."""
    while True:
        assert ends.emit_batch(1) == 1
        assert ends.drain(1) == 1
        if ends.events.size(ends.sequence - 1) < ends.events.size(ends.sequence):
            return


def _waiting(roll: int, count: int) -> Callable[[Ends], None]:
    """So many events wait."""

    def prepare(ends: Ends) -> None:
        _roll(ends, roll)
        assert ends.emit_batch(count - 1) == count - 1

    return prepare


def _full(roll: int) -> Callable[[Ends], None]:
    """No event gets in."""

    def prepare(ends: Ends) -> None:
        _roll(ends, roll)
        while ends.emit():
            pass

    return prepare


def _leased(roll: int, *leases: int, released: tuple[int, ...] = (), then: int = 0) -> Callable[[Ends], None]:
    """Events are held by leases of so many each, some of which have ended; others wait."""

    def prepare(ends: Ends) -> None:
        _waiting(roll, sum(leases))(ends)
        for count in leases:
            assert ends.lease(count) == count
        for number in released:
            ends.release(number)
        if then:
            assert ends.emit_batch(then) == then

    return prepare


def _taken(roll: int, runs: int) -> Callable[[Ends], None]:
    """Events are held one by one by native code."""

    def prepare(ends: Ends) -> None:
        _waiting(roll, runs)(ends)
        for _ in range(runs):
            ends.take(1)

    return prepare


OPERATIONS: Final = [
    # What native code calls, and claims: the shortest first.
    Operation("ring_push", _waiting(3, 2), Ends.push),
    Operation("ring_push_rows", _waiting(1, 1), lambda ends: ends.push_rows(3)),
    Operation("ring_pop", _waiting(2, 2), Ends.pop),
    Operation("ring_take", _waiting(6, 3), lambda ends: ends.take(2, stops=True)),
    Operation("ring_release", _taken(2, 3), lambda ends: ends.give_back(2)),
    Operation("ring_release of the oldest", _taken(4, 4), lambda ends: ends.give_back(1)),
    Operation("claim of the producer", _leased(2, 1, 1, 1, released=(2,), then=2), None, "producer"),
    Operation("claim of the consumer", _leased(2, 2, 1, 2, released=(2,), then=2), None, "consumer"),
    # What Python calls.
    Operation("emit", _waiting(3, 2), Ends.emit),
    Operation("emit into an empty ring", _empty(5), Ends.emit),
    Operation("emit behind leases", _leased(1, 1, 1, 1, released=(2,)), Ends.emit),
    Operation("emit without a byte free", _full(6), Ends.emit),
    Operation("emit without a slot free", _full(6), Ends.emit, geometry=BY_SLOTS),
    # One of these goes round the end of the arena.
    *[Operation(f"emit, the arena moved by {roll}", _waiting(roll, 2), Ends.emit) for roll in range(6, 12)],
    Operation("emit_batch", _waiting(6, 1), lambda ends: ends.emit_batch(3)),
    Operation("emit_batch at the start of a lap", _lagging, lambda ends: ends.emit_batch(1)),
    Operation("emit_batch, some dropped", _waiting(2, 5), lambda ends: ends.emit_batch(6), geometry=BY_SLOTS),
    Operation("emit_batch round the arena", _waiting(9, 1), lambda ends: ends.emit_batch(4)),
    Operation("emit_batch, scattered", _waiting(8, 1), lambda ends: ends.emit_scattered(4)),
    Operation("reserve", _waiting(4, 1), lambda ends: ends.reserve(2)),
    Operation("lease", _leased(2, 1, 1, then=2), lambda ends: ends.lease(2)),
    Operation("release in order", _leased(3, 1, 2, then=1), lambda ends: ends.release(1)),
    Operation("release out of order", _leased(5, 1, 2, then=1), lambda ends: ends.release(2)),
    Operation("release the first last", _leased(6, 1, 1, 1, released=(3, 2), then=1), lambda ends: ends.release(1)),
    Operation("release, all held", _leased(1, 2, 3, 1), lambda ends: ends.release(2)),
    Operation("drain", _waiting(6, 4), lambda ends: ends.drain(3)),
    Operation("drain all", _waiting(8, 4), lambda ends: ends.drain(5)),
    Operation("drain in runs", _leased(5, 1, 1, 1, released=(2, 3), then=3), lambda ends: ends.drain(4)),
    Operation("try_recv", _waiting(3, 3), Ends.try_recv),
    Operation("close of both", _leased(3, 1, 1, released=(2,), then=2), lambda ends: ends.call(ends.close)),
]


@dataclasses.dataclass
class Steps:
    """How far a process came."""

    count: int = 0
    stores: int = 0
    """Steps that changed the shared block."""
    first_store: int = 0
    """Steps up to the first of them."""
    has_finished: bool = False


class SingleStep:
    """Ends processes in the middle of calls, and checks what their successors find."""

    def __init__(self, directory: Path) -> None:
        place = directory / "stepping"
        place.mkdir()
        self.native = build(place)
        self.directory = directory
        self.buses = 0
        self.kept: list[object] = []

    def end_in(self, operation: Operation, kills: int | None) -> tuple[Steps, int]:
        """What an operation takes, and how many were killed in it: so many, spread evenly; None is every instruction.

        What a kill leaves is the block as it is at that instruction, and no lock. So a copy of it after each store is
        all that any kill can leave, and one process is enough to see it all; the kills show that it is so.
        """
        skipped = 0
        if operation.claims:
            # It opens files first: from one system call to the next, up to the last before the block is another.
            skipped = self._run(operation, None, by=SYSCALL).first_store - 1
        whole = self._run(operation, None, skipped)
        assert whole.has_finished
        instants = range(whole.count) if kills is None else range(0, whole.count, 1 + whole.count // kills)
        for steps in instants:
            self._run(operation, steps, skipped)
        return whole, len(instants)

    def _run(self, operation: Operation, limit: int | None, skipped: int = 0, by: int = SINGLE_STEP) -> Steps:
        """Runs an operation up to a limit and kills the process; or to its end, with a check after each store.

        The first steps, up to `skipped`, are system calls.
        """
        self.buses += 1
        place = self.directory / str(self.buses)
        place.mkdir()
        made = Steps()
        capacity, arena_bytes = operation.geometry
        bus = EventBus.create("step", 1, capacity, arena_bytes=arena_bytes, directory=place)
        try:
            with self._started(bus, place, operation) as pid:
                for _ in range(skipped):
                    ptrace(SYSCALL, pid)
                    _wait(pid, place)
                self._step(bus, place, operation, pid, by, limit, made)
            self._succeed(bus, place, operation)
        except Exception as error:
            error.add_note(f"in {operation.name}, after {made.count} instructions, the last of {made.stores} stores")
            raise
        finally:
            bus.unlink()
            bus.close()
            shutil.rmtree(place)
        return made

    @contextlib.contextmanager
    def _started(self, bus: EventBus, place: Path, operation: Operation) -> Generator[int]:
        """The process that is to die, stopped where the operation begins."""
        if operation.claims:
            pid = os.fork()
            if pid == 0:
                self._live(place, lambda: self._prepare(bus, place, operation))
            assert os.waitpid(pid, 0)[1] == 0, Journal(place / "dead.producer").text
        pid = os.fork()
        if pid == 0:
            self._live(place, lambda: self._perform(bus, place, operation))
        with traced(pid):
            assert is_stop(_wait(pid, place), signal.SIGSTOP)
            yield pid

    def _step(
        self, bus: EventBus, place: Path, operation: Operation, pid: int, by: int, limit: int | None, made: Steps
    ) -> None:
        with bus.path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as block:
            before = block[:]
            while made.count != limit:
                ptrace(by, pid)
                status = _wait(pid, place)
                if is_stop(status, signal.SIGSTOP):
                    made.has_finished = True
                    # It says what came of it, and ends.
                    ptrace(CONT, pid)
                    status = _wait(pid, place)
                    assert os.WIFEXITED(status)
                    return
                if not is_stop(status, signal.SIGTRAP):
                    raise HistoryError(f"the process ended with {status:#x}")
                made.count += 1
                now = block[:]
                if now != before:
                    before = now
                    made.stores += 1
                    made.first_store = made.first_store or made.count
                    if limit is None:
                        self._succeed_in_copy(bus, place, operation, now)

    def _succeed_in_copy(self, bus: EventBus, place: Path, operation: Operation, block: bytes) -> None:
        copies = place / "copies"
        copies.mkdir(exist_ok=True)
        (copies / bus.path.name).write_bytes(block)
        with EventBus.open(bus.name, directory=copies) as copy:
            self._succeed(copy, place, operation)
            copy.unlink()

    def _live(self, place: Path, body: Callable[[], object]) -> NoReturn:
        """A process that dies, if nothing else ends it, without a word to the ring."""
        gc.disable()  # a collection would be of what the parent left, and no part of the operation
        code = 1
        try:
            body()
            code = 0
        except BaseException:
            Journal(place / "dead.producer").say(traceback.format_exc())
        finally:
            os._exit(code)

    def _prepare(self, bus: EventBus, place: Path, operation: Operation) -> Ends:
        ends = Ends(bus, place, "dead", self.native)
        # An end that is collected is closed: these die with their process.
        self.kept.append(ends)
        operation.prepare(ends)
        return ends

    def _perform(self, bus: EventBus, place: Path, operation: Operation) -> None:
        ptrace(TRACEME, 0)
        if operation.act is not None:
            ends = self._prepare(bus, place, operation)
            ends.call = self.native.between_stops
            operation.act(ends)
        elif operation.claims == "producer":
            producer = self.native.between_stops(bus.producer, 0)
            self.kept.append(producer)
            Journal(place / "heir.producer").claimed(producer.next_sequence, 0, 0)
        else:
            consumer = self.native.between_stops(bus.consumer, 0)
            self.kept.append(consumer)
            stats = consumer.stats()
            Journal(place / "heir.consumer").claimed(0, stats.received - stats.held, stats.redelivered)

    def _succeed(self, bus: EventBus, place: Path, operation: Operation) -> None:
        """Claims both ends, works the ring for some laps, and checks the history."""
        past = ("dead", "heir") if operation.claims else ("dead",)
        producers = [_producer_life(bus, Journal(place / f"{who}.producer")) for who in past]
        consumers = [_consumer_life(Journal(place / f"{who}.consumer")) for who in past]
        for name in ("live.producer", "live.consumer"):
            Journal(place / name).clear()
        ends = Ends(bus, place, "live", self.native)
        # What is outstanding must be safe from whatever the producer may write.
        for _ in range(2 * bus.capacity):
            ends.emit()
        while ends.lease(4):
            pass
        for number in sorted(ends.leases, key=lambda number: number % 3):
            ends.release(number)
            ends.emit()
        while ends.drain(bus.capacity):
            pass
        for _ in range(2):
            self._fill(ends)
        ends.close()
        producers.append(_producer_life(bus, ends.emitted_in))
        consumers.append(_consumer_life(ends.taken_in))
        account = Account()
        numbers = published_numbers(producers, account)
        if not np.all(numbers[1:] > numbers[:-1]):
            raise HistoryError("a sequence number was published twice")
        check_deliveries(numbers, consumers, account)

    def _fill(self, ends: Ends) -> None:
        """An empty ring takes as many events as it has slots, and bytes for."""
        capacity, arena_bytes = ends.producer.capacity, ends.producer.ring.arena_bytes
        sizes = [ends.events.size(ends.sequence + i) for i in range(capacity + 1)]
        fit = sum(1 for i in range(capacity) if sum(sizes[: i + 1]) <= arena_bytes)
        enqueued = ends.emit_batch(capacity + 1)
        if enqueued != fit:
            raise HistoryError(f"an empty ring took {enqueued} events of {sizes} bytes: must be {fit}")
        while ends.drain(capacity // 2):
            pass


def _producer_life(bus: EventBus, journal: Journal) -> ProducerLife:
    (stats,) = bus.stats()
    return ProducerLife(
        bool(journal[Journal.CLAIMED]),
        journal[Journal.NEXT_SEQUENCE],
        journal.log.reshape(-1, 4),
        stats.producer.emitted,
        stats.producer.dropped,
    )


def _consumer_life(journal: Journal) -> ConsumerLife:
    return ConsumerLife(
        bool(journal[Journal.CLAIMED]),
        journal[Journal.RELEASED],
        journal[Journal.REDELIVERED],
        journal.log,
        journal[Journal.CHECKED],
    )


def _wait(pid: int, place: Path) -> int:
    """The status of the child at its next stop."""
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise HistoryError(f"the process failed:\n{Journal(place / 'dead.producer').text}")
    if os.WIFSIGNALED(status):
        if os.WTERMSIG(status) == signal.SIGKILL:
            raise StuckError(f"no end of an operation after {10 * PATIENCE} s")
        raise HistoryError(f"the process died of signal {os.WTERMSIG(status)}")
    return status


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.single_step", description=__doc__)
    parser.add_argument("--all", action="store_true", help="kill after every instruction")
    parser.add_argument("--only", default="", metavar="WORD", help="operations whose name has the word")
    asked = parser.parse_args()
    reason = can_trace()
    if reason:
        print(reason)
        return 2
    with memory_directory() as directory, on_one_processor():
        steps = SingleStep(directory)
        for operation in OPERATIONS:
            if asked.only not in operation.name:
                continue
            began = time.monotonic()
            try:
                whole, kills = steps.end_in(operation, None if asked.all else 8)
            except (HistoryError, StuckError, RingError, WrongEventError) as error:
                print(f"VIOLATION: {type(error).__name__}: {error}", *getattr(error, "__notes__", []), sep="\n")
                return 1
            print(
                f"{operation.name:32} {whole.count:6,} instructions, {whole.stores:4} stores to the block, "
                f"{kills:6,} kills, nothing lost ({time.monotonic() - began:.1f} s)",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
