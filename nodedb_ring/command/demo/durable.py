"""The run between processes with logs: any of them may be killed at any instant, and continues when started again.

A writer continues from its database, which commits rows and events in one transaction. The consumer continues from its
snapshots, one per core. So neither depends on the ring, which may have dropped events, or on the other process.

Each child has a link to the parent. It reports there that it has claimed its ends of the bus; then a writer gets its
flights. Warnings of the children come back over the link. The consumer ends when the parent says that all is written,
because a writer that is gone may have been killed and may come back. The views come back as their snapshots.
"""

from __future__ import annotations

import contextlib
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_links
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ... import EventBus, EventConsumer, follow, wait
from ...log.sqlite import SqliteEventLog
from ..child_process import Child, send, stop
from ..termination import termination_deferred
from .children import TerminationFlag, spawn
from .database import ask_databases, open_log, write_flights
from .flights import AIRPORTS, Flight, flights_by_core
from .outcome import Outcome, collect_outcome
from .snapshot import Snapshot
from .view import CarrierView

__all__ = ["KILLS", "run"]

KILLS: Final = 3
"""How often chaos kills each process, unless it ends before."""

_TICK: Final = 0.1  # seconds between two progress reports
_CHAOS_TICK: Final = 0.002  # the same while there are processes to kill
_LATE: Final = 0.02  # the longest delay in seconds from an event to its kill
_SAVE: Final = 0.1  # seconds between two snapshots
_GROUP: Final = "demo"
_READY: Final = None
_ALL_WRITTEN: Final = None

_random = secrets.SystemRandom()


def run(
    flights: Sequence[Flight],
    databases: tuple[Path, Path],
    bus: EventBus,
    progress: Callable[[int], object],
    show: Callable[[str], object],
    *,
    chaos: bool = False,
) -> Outcome:
    """Writes `flights` into two databases from two processes while a third keeps the view; then asks the databases.

    Parameters
    ----------
    flights : sequence of Flight, by date
    databases : two Paths
        Empty files. Each will hold the log of its events, too.
    bus : EventBus
        A new bus with two rings. The caller unlinks it.
    progress : callable
        Called regularly with the number of events in the saved views.
    show : callable
        Called with each warning of the bus in a child and each kill, one line at a time.
    chaos : bool, default False
        Each process is killed `KILLS` times, at random instants, and started again.

    Raises
    ------
    ChildProcessError
        A child failed, or was killed from outside; the message says which.
    """
    with contextlib.ExitStack() as ends:
        directory = ends.enter_context(tempfile.TemporaryDirectory(prefix="nodedb-ring-"))
        logs = [ends.enter_context(open_log(path)) for path in databases]
        snapshots = [Path(directory, f"view.{number}") for number in range(len(AIRPORTS))]
        children = _Children(bus, flights_by_core(flights), databases, logs, snapshots=snapshots, show=show)
        try:
            children.start_all()
            started = time.perf_counter()
            children.run(progress, chaos=chaos)
            seconds = time.perf_counter() - started
        finally:
            stop(children.children)
        views = [
            Snapshot.load(path).core_view(last_sequence=log.last_sequence(number) or 0)
            for number, (path, log) in enumerate(zip(snapshots, logs, strict=True))
        ]
    return collect_outcome(
        [(bus.capacity, ring.producer, ring.consumer) for ring in bus.stats()],
        views,
        ask_databases(*databases),
        seconds=seconds,
        killed=children.killed,
    )


class _Children:
    """The writers, by core, then the consumer."""

    def __init__(
        self,
        bus: EventBus,
        shards: Sequence[Sequence[Flight]],
        databases: Sequence[Path],
        logs: Sequence[SqliteEventLog],
        *,
        snapshots: Sequence[Path],
        show: Callable[[str], object],
    ) -> None:
        self.children: list[Child] = []
        self.killed: dict[str, int] = {}
        self._shards = shards
        self._databases = databases
        self._logs = logs
        self._snapshots = snapshots
        self._bus = bus
        self._show = show
        self._consumer = len(shards)
        self._is_all_written = False

    def start_all(self) -> None:
        """Starts all, and waits until they have claimed their ends of the bus."""
        for place in range(self._consumer + 1):
            with termination_deferred():
                self.children.append(self._start(place))
        for child in self.children:
            child.await_ready()

    def run(self, progress: Callable[[int], object], *, chaos: bool) -> None:
        """Starts their work and waits until all have ended without error. With `chaos` it kills some on the way."""
        doomed: list[list[int]] = [[] for _ in self.children]
        if chaos:
            every = [2 * len(shard) for shard in self._shards]
            doomed = [_some_of(events) for events in (*every, sum(every))]
            self.killed = {child.role: 0 for child in self.children}
        running = set(range(len(self.children)))
        for place in running:
            self._give_work(place)
        shown = time.monotonic()
        while running:
            ready = wait_for_links(
                [self.children[place].link for place in running], _CHAOS_TICK if any(doomed) else _TICK
            )
            readable = {place for place in running if self.children[place].link in ready}
            running -= {place for place in readable if not self._handle_message(place)}
            for place in running:
                if doomed[place] and self._events_through(place) >= doomed[place][-1]:
                    self._kill(place, doomed[place].pop())
            if not self._is_all_written and running <= {self._consumer}:
                self._is_all_written = True
                self._give_work(self._consumer)
            if time.monotonic() - shown >= _TICK:
                progress(self._events_through(self._consumer))
                shown = time.monotonic()
        progress(self._events_through(self._consumer))

    def _start(self, place: int) -> Child:
        if place == self._consumer:
            return spawn("the consumer", _consume, self._bus, self._databases, self._snapshots)
        return spawn(f"the writer of core {place}", _write, self._bus, place, self._databases[place])

    def _give_work(self, place: int) -> None:
        """Sends a ready writer its flights; informs the consumer, which runs already, when all is written."""
        if place < self._consumer:
            send(self.children[place], self._shards[place])
        elif self._is_all_written:
            send(self.children[place], _ALL_WRITTEN)

    def _handle_message(self, place: int) -> bool:
        """Handles one message of a child; False if the child has ended without error."""
        try:
            message: str | None = self.children[place].receive()
        except EOFError:
            return False
        if message is None:  # _READY
            self._give_work(place)
        else:
            self._show(message)
        return True

    def _events_through(self, place: int) -> int:
        """The events that a writer has committed, or that are in the saved views of the consumer."""
        if place < self._consumer:
            return self._logs[place].last_sequence(place) or 0
        return sum(Snapshot.load(path).position or 0 for path in self._snapshots)

    def _kill(self, place: int, event: int) -> None:
        """Kills a child after a random delay and starts it again, unless it has ended without error before."""
        child = self.children[place]
        time.sleep(_random.uniform(0, _LATE))
        child.process.kill()
        child.process.join()
        if child.process.exitcode == 0:
            return
        if child.process.exitcode != -signal.SIGKILL:
            raise child.failure()
        child.link.close()
        self.killed[child.role] += 1
        self._show(f"killed {child.role}, process {child.process.pid}, after event {event:,}; it starts again")
        with termination_deferred():
            self.children[place] = self._start(place)


def _some_of(events: int) -> list[int]:
    """Events after which a child is killed, the last first. None is near the end, where the child might end first."""
    within = range(1, max(2, events * 3 // 4))
    return sorted(_random.sample(within, min(KILLS, len(within))), reverse=True)


# In the children.


def _write(link: Connection, bus: EventBus, core_id: int, database: Path) -> None:
    with SqliteEventLog(database, driver="apsw") as log, bus.producer(core_id) as producer:
        link.send(_READY)
        flights: list[Flight] = link.recv()
        # SIGTERM from here on leaves whole transactions and a properly closed database.
        write_flights(database, flights, producer, TerminationFlag(), log)


def _consume(link: Connection, bus: EventBus, databases: Sequence[Path], snapshots: Sequence[Path]) -> None:
    consumers = bus.consumers()
    link.send(_READY)
    with contextlib.ExitStack() as ends:
        running = [ends.enter_context(_Core(*core)) for core in zip(consumers, databases, snapshots, strict=True)]
        try:
            _keep_views(running, link)
        except EOFError:
            sys.exit("the demo that started this process has gone")


def _keep_views(running: list[_Core], link: Connection) -> None:
    """Reads all cores from this thread until all is written and in their views."""
    is_all_written = False
    while running:
        ready = wait([core.follower for core in running], _TICK)
        for core in running:
            if core.follower in ready:
                core.take()
            core.save_when_due()
        if link.poll():
            link.recv()
            is_all_written = True
        if is_all_written:
            for core in [core for core in running if core.has_all()]:
                running.remove(core)
                core.save()


class _Core:
    """One core's view and snapshot, which continues from the last snapshot."""

    def __init__(self, consumer: EventConsumer, database: Path, path: Path) -> None:
        self._path = path
        self._before = Snapshot.load(path)
        self._view = CarrierView(self._before.totals, self._before.events)
        self._saved = time.monotonic()
        self._ends = contextlib.ExitStack()
        self._ends.enter_context(consumer)
        log = self._ends.enter_context(SqliteEventLog(database, driver="apsw"))
        # A writer that is gone may have been killed, and may come back.
        self.follower = self._ends.enter_context(
            follow(consumer, log, group=_GROUP, after=self._before.position, until="closed")
        )
        self._log = log

    def take(self) -> None:
        """Takes what its follower has into the view."""
        batch = self.follower.next_batch(0)
        if len(batch):
            self._view.apply(batch)

    def has_all(self) -> bool:
        """Whether everything in the log is in the view."""
        return (self.follower.position or 0) >= (self._log.last_sequence(self.follower.core_id) or 0)

    def save_when_due(self) -> None:
        """Saves the snapshot if the last one is old enough."""
        if time.monotonic() - self._saved >= _SAVE:
            self.save()

    def save(self) -> None:
        """Saves the snapshot and then the watermark, which may lag behind the snapshot but must not run ahead."""
        stats, before = self.follower.stats(), self._before
        Snapshot(
            position=self.follower.position,
            totals=self._view.totals(),
            events=self._view.events(),
            gaps=before.gaps + stats.gaps,
            replayed=before.replayed + stats.replayed,
            episodes=before.episodes + stats.episodes,
        ).save(self._path)
        self.follower.commit()
        self._saved = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ends.close()
