"""Kills the writer that logs and emits, the follower, or both, at random instants, and compares their two histories.

``python -m tests.stress.recovery --kills 100``. The ring is so small that it drops most of what is emitted, so nearly
everything has to come out of the log. A follower waits in calls, in poll or on an event loop. Some processes are
stopped for a while before they are killed. The writer records what it appended, the follower what it was handed and
what it committed, each in a file of its own that outlives it. In the end:

- every number was delivered, with every byte as its number says, and whatever was appended is among them;
- within one life of a follower the numbers have no hole and no repeat, and they begin behind the last commit.

Exits 1 on the first violation. Where the kills fall differs from run to run.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import enum
import logging
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from nodedb_ring import EventBatch, EventBus, EventConsumer, EventLog, Follower, follow, logged
from nodedb_ring.log.sqlite import SqliteEventLog

from .journal import memory_directory
from .numbered import numbered_events
from .watchdog import PATIENCE

__all__ = ["Outcome", "RecoveryError", "check", "run"]

CAPACITY: Final = 16
GROUP: Final = "stress"
_RECORD: Final = struct.Struct("<QQQ")
_EVENTS: Final = 120
"""Payload bytes of the largest event."""


class RecoveryError(Exception):
    """The histories of writer and follower do not agree."""


class Mark(enum.IntEnum):
    """The kind of a record; two numbers follow it."""

    APPENDED = 1  # first and last number
    BEGUN = 2  # the number behind which a follower began, and nothing
    DELIVERED = 3  # first and last number
    COMMITTED = 4  # the watermark, and nothing


Record = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did."""

    events: int
    kills: int
    dropped: int
    lives: int


def run(directory: Path, *, kills: int, seed: int) -> Outcome:
    """Lets a writer and a follower run, kills them `kills` times, lets them finish, and checks their histories.

    Raises
    ------
    RecoveryError
    """
    chance = random.Random(seed)
    name = f"recovery-{os.getpid()}-{seed}"
    path = directory / "log"
    with SqliteEventLog(path) as log, EventBus.create(name, 1, CAPACITY, arena_bytes=1 << 16) as bus:
        children: dict[str, subprocess.Popen[bytes]] = {}

        def start(role: str) -> None:
            arguments = [role, name, str(path), str(directory / role)]
            children[role] = subprocess.Popen([sys.executable, "-m", "tests.stress.recovery", *arguments])

        try:
            for role in _ROLES:
                start(role)
            done = 0
            while done < kills:
                for role in chance.choice((("write",), ("follow",), ("write", "follow"))):
                    _await_record(children[role], directory / role)
                    time.sleep(chance.uniform(0, 0.1))
                    if chance.random() < 0.2:
                        children[role].send_signal(signal.SIGSTOP)
                        time.sleep(chance.uniform(0, 0.2))
                    children[role].kill()
                    if children[role].wait() != -signal.SIGKILL:
                        raise RecoveryError(f"{role}: ended with exit code {children[role].returncode}")
                    done += 1
                    start(role)
            _finish(children["write"], directory / "write", 0)
            upto = log.last_sequence(0) or 0
            _finish(children["follow"], directory / "follow", upto)
        finally:
            for child in children.values():
                child.kill()
                child.wait()
            bus.unlink()
        dropped = bus.stats()[0].producer.dropped
    lives = check(records(directory / "write"), records(directory / "follow"), upto)
    return Outcome(events=upto, kills=done, dropped=dropped, lives=lives)


def _await_record(child: subprocess.Popen[bytes], journal: Path) -> None:
    """Waits until a child has recorded something in this life: killed before, it would only have begun."""
    size = _size(journal)
    until = time.monotonic() + 10 * PATIENCE
    while _size(journal) == size:
        if child.poll() is not None:
            raise RecoveryError(f"{journal.name}: ended with exit code {child.returncode}")
        if time.monotonic() > until:
            raise RecoveryError(f"{journal.name}: no progress")
        time.sleep(0.002)


def _finish(child: subprocess.Popen[bytes], journal: Path, upto: int) -> None:
    """Sends a child the last number to reach, and waits until it is there."""
    # It is there with its text, or not yet.
    final = journal.with_suffix(".final")
    final.write_text(f"{upto:020}")
    final.replace(journal.with_suffix(".upto"))
    try:
        child.wait(10 * PATIENCE)
    except subprocess.TimeoutExpired:
        raise RecoveryError(f"{journal.name}: does not come to its end") from None
    if child.returncode != 0:
        raise RecoveryError(f"{journal.name}: ended with exit code {child.returncode}")


def _size(journal: Path) -> int:
    return journal.stat().st_size if journal.exists() else 0


def records(path: Path) -> list[Record]:
    """What a process, or several one after another, recorded."""
    data = path.read_bytes()
    if len(data) % _RECORD.size:
        raise RecoveryError(f"{path.name}: {len(data)} bytes, which is not a whole number of records")
    return list(_RECORD.iter_unpack(data))


def check(appended: list[Record], handed: list[Record], upto: int) -> int:
    """Compares the two histories; returns how many lives the follower had.

    Raises
    ------
    RecoveryError
    """
    lives = position = committed = delivered = 0
    for mark, first, last in handed:
        match Mark(mark):
            case Mark.BEGUN:
                # The record of a commit may be missing, when the follower was killed between the two.
                if first not in (committed, delivered):
                    raise RecoveryError(f"life {lives} began behind {first}; committed was {committed}")
                lives += 1
                position = committed = first
            case Mark.DELIVERED:
                if first != position + 1 or last < first:
                    raise RecoveryError(f"life {lives}: {first} to {last} was delivered after {position}")
                position = last
                delivered = last
            case Mark.COMMITTED:
                if first != position:
                    raise RecoveryError(f"life {lives}: {first} was committed at {position}")
                committed = first
            case _:
                raise RecoveryError(f"record {mark} among those of a follower")
    if position != upto:
        raise RecoveryError(f"{position} was delivered last; written was up to {upto}")
    expected = 1
    for _, first, last in appended:
        if first < expected or last > upto:
            raise RecoveryError(f"{first} to {last} was appended after {expected - 1}")
        expected = last + 1
    return lives


# In the children.


def _note(journal: int, mark: Mark, first: int, last: int = 0) -> None:
    os.write(journal, _RECORD.pack(mark, first, last))


def _write(name: str, log: EventLog, journal: int, final: Path) -> None:
    events = numbered_events(_EVENTS)
    chance = random.Random()
    with EventBus.open(name) as bus, logged(bus.producer(0), log) as core:
        while not final.exists():
            first = core.next_sequence
            batch = events.batch(first, chance.randint(1, 50))
            core.emit_batch(batch)
            _note(journal, Mark.APPENDED, first, first + len(batch) - 1)
            # Now and then the follower catches up, and takes from the ring again.
            time.sleep(0.02 if chance.random() < 0.02 else 0)


def _follow(name: str, log: EventLog, journal: int, final: Path) -> None:
    events = numbered_events(_EVENTS)
    with (
        EventBus.open(name) as bus,
        bus.consumer(0) as consumer,
        follow(consumer, log, group=GROUP, heartbeats=True) as follower,
    ):
        _note(journal, Mark.BEGUN, follower.position or 0)
        wait = random.choice([_by_call, _by_poll, _on_a_loop])(follower, consumer)
        while True:
            # A writer that was killed is an end, and then another continues.
            batch = wait()
            if not len(batch):
                if final.exists() and (follower.position or 0) >= int(final.read_text() or "0"):
                    return
                continue
            events.check(batch)
            first, position = int(batch.sequence[0]), int(batch.sequence[-1])
            if position - first != len(batch) - 1:
                raise RecoveryError(f"{first} to {position} in a batch of {len(batch)}")
            _note(journal, Mark.DELIVERED, first, position)
            follower.commit()
            _note(journal, Mark.COMMITTED, position)


def _by_call(follower: Follower, _: EventConsumer) -> Callable[[], EventBatch]:
    return lambda: follower.next_batch(0.05)


def _by_poll(follower: Follower, consumer: EventConsumer) -> Callable[[], EventBatch]:
    poll = select.poll()
    poll.register(consumer.fileno(), select.POLLIN)

    def wait() -> EventBatch:
        batch = follower.next_batch(0)
        if not len(batch):
            poll.poll()
        return batch

    return wait


def _on_a_loop(follower: Follower, _: EventConsumer) -> Callable[[], EventBatch]:
    runner = asyncio.Runner()
    return lambda: runner.run(follower.next_batch_async(0.05))


_ROLES: Final = {"write": _write, "follow": _follow}


def main() -> int:
    """Runs as one of the children, or until so many kills are done."""
    if len(sys.argv) > 1 and sys.argv[1] in _ROLES:
        role, name, path, journal = sys.argv[1:]
        logging.getLogger("nodedb_ring").setLevel(logging.ERROR)  # the ring overflows all the time, and says so
        with SqliteEventLog(path) as log:
            opened = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            _ROLES[role](name, log, opened, Path(journal).with_suffix(".upto"))
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.stress.recovery", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, metavar="N")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30), help="of when whom is killed")
    options = parser.parse_args()
    with memory_directory() as directory:
        try:
            outcome = run(directory, kills=options.kills, seed=options.seed)
        except RecoveryError as error:
            print(f"recovery, seed {options.seed}: {error}", file=sys.stderr)
            return 1
    print(
        f"recovery: {outcome.events:,} events appended, {outcome.dropped:,} attempts dropped by a ring of {CAPACITY},"
        f" {outcome.kills} kills, {outcome.lives} lives of the follower; all delivered, in order"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
