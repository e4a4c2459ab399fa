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
from typing import NoReturn

import numpy as np

from nodedb_ring import EventBus, RingError

from .history import Account, ConsumerLife, HistoryError, ProducerLife, check_deliveries, published_numbers
from .journal import Journal, memory_directory
from .numbered import WrongEventError
from .stepped_ends import Ends
from .stepped_operations import OPERATIONS, Operation
from .stepping import build
from .tracing import CONT, SINGLE_STEP, SYSCALL, TRACEME, can_trace, is_stop, on_one_processor, ptrace, traced
from .watchdog import PATIENCE, StuckError


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
