"""Kills writers that log and emit, the reader that follows their cores, or both, and compares their histories.

``python -m tests.stress.recovery --kills 100 --cores 2 --log jetstream``. The rings are so small that they drop most of
what is emitted, so nearly everything has to come out of the log. Each core has a writer. One process reads them all and
outlives the writers: it waits for its followers in calls, or merges them in a thread or on an event loop; with one
core, it may poll as well. Some processes are stopped for a while before they are killed. With the log on JetStream the
server is killed as well, and started again. A writer records what it appended, the reader what it was handed and what
it committed, in a file for each core that outlives them. In the end, for each core:

- every number was delivered, with every byte as its number says, and whatever was appended is among them;
- within one life of a follower the numbers have no hole and no repeat, and they begin behind the last commit.

Exits 1 on the first violation. Where the kills fall differs from run to run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
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
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from nodedb_ring import EventBatch, EventBus, EventConsumer, EventLog, follow, logged, merge, wait
from nodedb_ring.errors import ClosedError
from nodedb_ring.log.sqlite import SqliteEventLog
from tests.unit.log.nats_server import NatsServer

from .journal import memory_directory
from .numbered import numbered_events
from .watchdog import PATIENCE

if TYPE_CHECKING:
    from nodedb_ring.log.jetstream import JetStreamEventLog

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


def run(directory: Path, *, kills: int, seed: int, cores: int = 1, server: NatsServer | None = None) -> Outcome:
    """Lets a writer a core and a reader run, kills `kills` of them, lets them finish, and checks their histories.

    Parameters
    ----------
    server : NatsServer, optional
        Runs, and is killed, too. Without one the log is in SQLite.

    Raises
    ------
    RecoveryError
    """
    chance = random.Random(seed)
    name = f"recovery-{os.getpid()}-{seed}"
    place = str(directory / "log") if server is None else server.url
    reader, writers = "follow", [f"write-{core_id}" for core_id in range(cores)]
    with open_log(place) as log, EventBus.create(name, cores, CAPACITY, arena_bytes=1 << 16) as bus:
        children: dict[str, subprocess.Popen[bytes]] = {}

        def start(role: str) -> None:
            arguments = [role, name, place, str(directory)]
            children[role] = subprocess.Popen([sys.executable, "-m", "tests.stress.recovery", *arguments])

        def kill(role: str) -> None:
            _await_record(children[role], directory, role)
            time.sleep(chance.uniform(0, 0.1))
            if chance.random() < 0.2:
                children[role].send_signal(signal.SIGSTOP)
                time.sleep(chance.uniform(0, 0.2))
            children[role].kill()
            if children[role].wait() != -signal.SIGKILL:
                raise RecoveryError(f"{role}: ended with exit code {children[role].returncode}")
            start(role)

        try:
            for role in (reader, *writers):
                start(role)
            done = 0
            while done < kills:
                writer = chance.choice(writers)
                for role in chance.choice(((writer,), (reader,), (writer, reader))):
                    kill(role)
                    done += 1
                if server is not None and chance.random() < 0.2:
                    server.kill()
                    time.sleep(chance.uniform(0, 0.2))
                    server.start()
                    done += 1
            for writer in writers:
                _finish(children[writer], directory / writer, "")
            upto = [log.last_sequence(core_id) or 0 for core_id in range(cores)]
            _finish(children[reader], directory / reader, " ".join(map(str, upto)))
        finally:
            for child in children.values():
                child.kill()
                child.wait()
            bus.unlink()
        dropped = sum(ring.producer.dropped for ring in bus.stats())
    lives = [
        check(records(directory / f"write-{core_id}"), records(_journal(directory, core_id)), last)
        for core_id, last in enumerate(upto)
    ]
    return Outcome(events=sum(upto), kills=done, dropped=dropped, lives=max(lives))


def open_log(place: str) -> SqliteEventLog | JetStreamEventLog:
    """The log in a file, or on a server."""
    if not place.startswith("nats://"):
        return SqliteEventLog(place)
    from nodedb_ring.log.jetstream import JetStreamEventLog

    # As long as a server that is killed takes to come back.
    return JetStreamEventLog(place, "stress", timeout=6 * PATIENCE)


def _journal(directory: Path, core_id: int) -> Path:
    """What the reader was handed of a core."""
    return directory / f"follow-{core_id}"


def _await_record(child: subprocess.Popen[bytes], directory: Path, role: str) -> None:
    """Waits until a child has recorded something in this life: killed before, it would only have begun."""
    size = _size(directory, role)
    until = time.monotonic() + 10 * PATIENCE
    while _size(directory, role) == size:
        if child.poll() is not None:
            raise RecoveryError(f"{role}: ended with exit code {child.returncode}")
        if time.monotonic() > until:
            raise RecoveryError(f"{role}: no progress")
        time.sleep(0.002)


def _finish(child: subprocess.Popen[bytes], role: Path, upto: str) -> None:
    """Sends a child the last number of each core to reach, and waits until it is there."""
    # It is there with its text, or not yet.
    final = role.with_suffix(".final")
    final.write_text(upto)
    final.replace(role.with_suffix(".upto"))
    try:
        child.wait(10 * PATIENCE)
    except subprocess.TimeoutExpired:
        raise RecoveryError(f"{role.name}: does not come to its end") from None
    if child.returncode != 0:
        raise RecoveryError(f"{role.name}: ended with exit code {child.returncode}")


def _size(directory: Path, role: str) -> int:
    """The bytes of its journals."""
    journals = [directory / role] if role.startswith("write") else directory.glob("follow-*")
    return sum(journal.stat().st_size for journal in journals if journal.exists())


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


def _open_journal(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def _write(name: str, log: EventLog, core_id: int, directory: Path) -> None:
    events = numbered_events(_EVENTS)
    chance = random.Random()
    journal, final = _open_journal(directory / f"write-{core_id}"), directory / f"write-{core_id}.upto"
    with EventBus.open(name) as bus, logged(bus.producer(core_id), log) as core:
        while not final.exists():
            first = core.next_sequence
            batch = events.batch(first, chance.randint(1, 50))
            core.emit_batch(batch)
            _note(journal, Mark.APPENDED, first, first + len(batch) - 1)
            # Now and then the follower catches up, and takes from the ring again.
            time.sleep(0.02 if chance.random() < 0.02 else 0)


def _follow(name: str, log: EventLog, directory: Path) -> None:
    with contextlib.ExitStack() as ends:
        bus = ends.enter_context(EventBus.open(name))
        readings = [
            ends.enter_context(_Reading(consumer, log, _journal(directory, consumer.core_id)))
            for consumer in bus.consumers()
        ]
        # Nobody else closes them, and merge() goes on until somebody does.
        ending = threading.Thread(target=_close_at, args=(readings, directory / "follow.upto"), daemon=True)
        ending.start()
        takes = [_by_wait, _merged, _merged_on_a_loop] + [_by_poll] * (len(readings) == 1)
        random.choice(takes)(readings)
        ending.join()


class _Reading:
    """One core's follower, and the journal of what it was handed."""

    def __init__(self, consumer: EventConsumer, log: EventLog, journal: Path) -> None:
        self._events = numbered_events(_EVENTS)
        self._journal = _open_journal(journal)
        self.consumer = consumer
        self.follower = follow(consumer, log, group=GROUP, heartbeats=True, until="closed")
        self.committed = self.follower.position or 0
        _note(self._journal, Mark.BEGUN, self.committed)

    def handle(self, batch: EventBatch) -> None:
        """Checks and commits a batch."""
        self._events.check(batch)
        first, position = int(batch.sequence[0]), int(batch.sequence[-1])
        if position - first != len(batch) - 1:
            raise RecoveryError(f"{first} to {position} in a batch of {len(batch)}")
        _note(self._journal, Mark.DELIVERED, first, position)
        self.follower.commit()
        _note(self._journal, Mark.COMMITTED, position)
        self.committed = position

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.follower.close()
        self.consumer.close()


def _close_at(readings: list[_Reading], final: Path) -> None:
    """Closes each follower when it has committed the last number, of which the parent informs."""
    while not final.exists():
        time.sleep(0.01)
    open_ones = list(zip(readings, map(int, final.read_text().split()), strict=True))
    while open_ones:
        for reading, upto in open_ones:
            if reading.committed >= upto:
                reading.follower.close()
        open_ones = [(reading, upto) for reading, upto in open_ones if reading.committed < upto]
        time.sleep(0.01)


def _by_wait(readings: list[_Reading]) -> None:
    running = {reading.follower: reading for reading in readings}
    while running:
        for follower in wait(list(running), random.choice([0.05, None])):
            # It may be closed meanwhile, which is an end and no error.
            batch = next(follower, None)
            if batch is None:
                del running[follower]
            else:
                running[follower].handle(batch)


def _by_poll(readings: list[_Reading]) -> None:
    [reading] = readings
    poll = select.poll()
    poll.register(reading.consumer.fileno(), select.POLLIN)
    with contextlib.suppress(ClosedError):
        while True:
            batch = reading.follower.next_batch(0)
            if len(batch):
                reading.handle(batch)
            else:
                poll.poll()


def _merged(readings: list[_Reading]) -> None:
    for core_id, batch in merge(reading.follower for reading in readings):
        readings[core_id].handle(batch)


def _merged_on_a_loop(readings: list[_Reading]) -> None:
    async def read() -> None:
        async for core_id, batch in merge(reading.follower for reading in readings):
            readings[core_id].handle(batch)

    asyncio.run(read())


def main() -> int:
    """Runs as one of the children, or until so many kills are done."""
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        role, name, place, journals = sys.argv[1:]
        logging.getLogger("nodedb_ring").setLevel(logging.ERROR)  # the rings overflow all the time, and say so
        with open_log(place) as log:
            if role == "follow":
                _follow(name, log, Path(journals))
            else:
                _write(name, log, int(role.removeprefix("write-")), Path(journals))
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.stress.recovery", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, metavar="N")
    parser.add_argument("--cores", type=int, default=1, metavar="N")
    parser.add_argument("--log", choices=["sqlite", "jetstream"], default="sqlite")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30), help="of when whom is killed")
    options = parser.parse_args()
    with contextlib.ExitStack() as ends:
        directory = ends.enter_context(memory_directory())
        server = None
        if options.log == "jetstream":
            server = NatsServer(directory / "nats")
            server.start()
            ends.callback(server.kill)
        try:
            outcome = run(directory, kills=options.kills, seed=options.seed, cores=options.cores, server=server)
        except RecoveryError as error:
            print(f"recovery, seed {options.seed}: {error}", file=sys.stderr)
            return 1
    print(
        f"recovery, cores {options.cores}, {options.log}: {outcome.events:,} events appended, {outcome.dropped:,}"
        f" attempts dropped by rings of {CAPACITY}, {outcome.kills} kills, {outcome.lives} lives of the reader; all"
        " delivered, in order"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
