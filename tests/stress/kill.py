"""Kills the processes at both ends of a shared bus at random instants, and checks the whole history of each bus.

``python -m tests.stress.kill --seconds 60`` runs for as long as asked. A producer and a consumer run against each
other; one of them, or sometimes both, are killed with SIGKILL; successors claim the ends and continue. Some are
stopped for a while, or before they are killed; some can open no descriptor once they have their end; some buses are
unlinked while they are in use. Consumers wait in calls, in poll and on event loops, most of them without a limit. Then
the history is checked: every event that was published is delivered, in order of position and with every byte right,
again only after a consumer's death, and no sequence number is used twice. Exits 1 on the first violation and says how
to run the same again; where the kills fall differs from run to run.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkContext, ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final, Literal

import numpy as np

from nodedb_ring import EventBus, RingError, RingStats, RoleTaken

from .history import Account, ConsumerLife, HistoryError, ProducerLife, check_deliveries, published_numbers
from .journal import Journal, memory_directory
from .numbered import numbered_events
from .processes import STYLES, Plan, consume, produce
from .watchdog import PATIENCE, StuckError

Role = Literal["producer", "consumer"]
Start = Literal["fork", "spawn", "forkserver"]
Context = ForkContext | SpawnContext | ForkServerContext
CONTEXTS: Final[dict[Start, Context]] = {
    "fork": multiprocessing.get_context("fork"),
    "spawn": multiprocessing.get_context("spawn"),
    "forkserver": multiprocessing.get_context("forkserver"),
}
ROLES: Final[tuple[Role, Role]] = ("producer", "consumer")
VICTIMS: Final[tuple[tuple[Role, ...], ...]] = (("producer",), ("consumer",), ROLES)

GEOMETRIES: Final = [
    # capacity, arena_bytes, payload of the largest event
    (16, 700, 48),
    (1024, 65536, 100),
    (1, 64, 40),
    (1024, 2000, 60),
    (16, 100, 60),
    (2, 4096, 200),
    (1024, 1 << 20, 3000),
    (16, 65536, 300),
    (2, 64, 64),
    (1, 1, 0),
]

KILLS_A_BUS: Final = 40


class ViolationError(Exception):
    """A process gave up, or the ring's own account of its ends is wrong."""


@dataclasses.dataclass
class Tally:
    """What a run has done."""

    killed: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys([*ROLES, "both"], 0))
    in_claim: int = 0
    """Processes that were killed before they had said that they hold their end."""
    left: int = 0
    """Processes that closed their end and went."""
    stopped: int = 0
    """Times that a process was stopped, to continue or to be killed."""
    unlinked: int = 0
    """Buses that were unlinked while they were in use."""
    without_descriptors: int = 0
    """Processes that could open none once they had their end."""
    disconnects: int = 0
    """Times that a consumer saw its producer gone."""
    buses: int = 0
    account: Account = dataclasses.field(default_factory=Account)

    @property
    def kills(self) -> int:
        """Processes killed."""
        return self.killed["producer"] + self.killed["consumer"] + 2 * self.killed["both"]

    def __str__(self) -> str:
        events = self.account
        return "\n".join(
            [
                f"kills       {self.kills:9,}: producer {self.killed['producer']:,}, "
                f"consumer {self.killed['consumer']:,}, both at once {self.killed['both']:,}; "
                f"{self.in_claim:,} while claiming; {self.left:,} more closed and left; {self.buses:,} buses",
                f"published   {events.published:9,} events; {events.dropped:,} dropped and counted, "
                f"{events.used_up:,} numbers used up by a producer's death",
                f"delivered   {events.delivered:9,} events; {events.redelivered:,} of them redelivered, "
                f"{events.in_flight:,} more in a drain's batch when it was killed, "
                f"{events.unchecked:,} not checked to the last byte",
                f"disconnects {self.disconnects:9,} seen by consumers",
                f"stopped     {self.stopped:9,} times a process; {self.without_descriptors:,} more could open no "
                f"descriptor; {self.unlinked:,} buses unlinked in use",
                f"lost        {0:9,}",
            ]
        )


class Seat:
    """An end of the bus, and the processes that hold it one after the other."""

    def __init__(self, bus: EventBus, role: Role, directory: Path, start: Start) -> None:
        self.bus, self.role = bus, role
        self.journal = Journal(directory / f"{bus.name}.{role}")
        self.context = CONTEXTS[start]
        self.process: BaseProcess | None = None
        self.leaves = False
        self.lives = 0
        self.claims = 0

    def begin(self, plan: Plan) -> None:
        """Starts the next life."""
        self.journal.clear()
        self.leaves = plan.steps != 0
        target = produce if self.role == "producer" else consume
        self.process = self.context.Process(target=target, args=(self.bus, plan), daemon=True)
        self.process.start()

    def stats(self) -> RingStats:
        """The ring's account."""
        (stats,) = self.bus.stats()
        return stats

    @property
    def holder(self) -> int | None:
        """Whom the ring takes to be at this end."""
        stats = self.stats()
        return stats.producer_pid if self.role == "producer" else stats.consumer_pid

    def is_refused_to_others(self) -> None:
        """Tries to claim the end while its process lives."""
        claim = self.bus.producer if self.role == "producer" else self.bus.consumer
        assert self.process is not None
        try:
            claim(0).close()
        except RoleTaken as error:
            if error.pid != self.process.pid:
                raise ViolationError(f"{self.process.pid} is the {self.role}, and {error.pid} is said to be") from None
        else:
            raise ViolationError(f"{self.process.pid} is the {self.role}, and another could claim the end")

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended by itself: closed its end and left."""
        assert self.process is not None
        code = self.process.exitcode
        if code is not None and (code != 0 or not self.journal[Journal.GONE]):
            raise ViolationError(f"the {self.role} ended with {code}:\n{self.journal.text}")
        return code is not None

    def kill(self) -> None:
        """Kills the process by its id."""
        assert self.process is not None
        # It is there, or there as a zombie: nobody else has its id.
        self.process.kill()

    def signal(self, number: signal.Signals) -> None:
        """Stops the process, or lets it continue, unless it has ended by itself."""
        assert self.process is not None
        assert self.process.pid is not None
        if self.process.exitcode is None:
            # It is there, or there as a zombie: nobody else has its id.
            os.kill(self.process.pid, number)

    def reap(self) -> bool:
        """Waits for the end of a process that was killed; whether the kill was what ended it."""
        assert self.process is not None
        self.process.join()
        code = self.process.exitcode
        if code != -signal.SIGKILL:
            # It closed and left just before.
            assert self.has_ended
        self.process.close()
        self.process = None
        self.lives += 1
        self.claims += self.journal[Journal.CLAIMED]
        stats = self.stats()
        claims = stats.producer_claims if self.role == "producer" else stats.consumer_claims
        if not self.claims <= claims <= self.lives:
            raise ViolationError(f"{claims} claims by {self.role}s: {self.claims} of {self.lives} said that they had")
        if self.holder is not None:
            raise ViolationError(f"the {self.role} has gone, and {self.holder} is said to hold its end")
        return code == -signal.SIGKILL

    def producer_life(self) -> ProducerLife:
        """What the producer that has ended did."""
        stats = self.stats().producer
        return ProducerLife(
            bool(self.journal[Journal.CLAIMED]),
            self.journal[Journal.NEXT_SEQUENCE],
            self.journal.log.reshape(-1, 4),
            stats.emitted,
            stats.dropped,
        )

    def consumer_life(self) -> ConsumerLife:
        """What the consumer that has ended did."""
        return ConsumerLife(
            bool(self.journal[Journal.CLAIMED]),
            self.journal[Journal.RELEASED],
            self.journal[Journal.REDELIVERED],
            self.journal.log,
            self.journal[Journal.CHECKED],
        )


class Rounds:
    """One bus, the processes that come and go on it, and its history."""

    def __init__(self, directory: Path, number: int, seed: int, start: Start, tally: Tally) -> None:
        self.random = random.Random(f"{seed} {number}")
        self.capacity, self.arena_bytes, self.most = GEOMETRIES[number % len(GEOMETRIES)]
        self.tally = tally
        numbered_events(self.most)
        self.is_forking = start == "fork"
        self.unlinks_after = self.random.randrange(8) if self.is_forking and self.random.random() < 0.3 else None
        """Kills before the bus is unlinked. Only a fork is given it without its name."""
        self.bus = EventBus.create(
            f"kill-{number}", 1, self.capacity, arena_bytes=self.arena_bytes, directory=directory
        )
        self.seats: dict[Role, Seat] = {role: Seat(self.bus, role, directory, start) for role in ROLES}
        self.producers: list[ProducerLife] = []
        self.consumers: list[ConsumerLife] = []
        self.deaths = 0
        """Of producers in the life of the present consumer, and one more if there was none when it came."""

    def __str__(self) -> str:
        return f"capacity {self.capacity}, arena of {self.arena_bytes}, events up to {self.most}"

    def begin(self, role: Role, leaves: bool = True) -> None:
        """Starts a process at one end."""
        seat = self.seats[role]
        if role == "consumer":
            self.deaths = 1
        handles = ["given", "by name", "pickled"] if self.is_forking and self.unlinks_after is None else ["given"]
        has_no_descriptors = self.random.random() < 0.2
        self.tally.without_descriptors += has_no_descriptors
        seat.begin(
            Plan(
                journal=seat.journal.path,
                most=self.most,
                seed=self.random.getrandbits(32),
                steps=self.random.randint(1, 100) if leaves and self.random.random() < 0.05 else 0,
                style=self.random.choices(list(STYLES), list(STYLES.values()))[0],
                handle=self.random.choice(handles),
                has_no_descriptors=has_no_descriptors,
            )
        )

    def account_for(self, role: Role) -> None:
        """Reaps the process at one end and keeps what it did."""
        seat = self.seats[role]
        was_killed = seat.reap()
        self.tally.left += not was_killed
        self.tally.in_claim += was_killed and not seat.journal[Journal.CLAIMED]
        if role == "producer":
            self.producers.append(seat.producer_life())
            self.deaths += 1
            return
        seen = seat.journal[Journal.CLOSED]
        # One that leaves by itself may have closed its end, and not have been reaped yet.
        producer = self.seats["producer"]
        if seen > self.deaths + bool(producer.process and producer.leaves):
            raise ViolationError(f"a consumer saw its producer gone {seen} times: {self.deaths} had gone")
        self.tally.disconnects += seen
        self.consumers.append(seat.consumer_life())

    def run(self, kills: int, deadline: float) -> None:
        """Kills up to so many processes, lets the last ones end, and checks everything."""
        for role in ROLES:
            self.begin(role)
        end = self.tally.kills + kills
        while self.tally.kills < end and time.monotonic() < deadline:
            self.pause()
            self.replace_the_leavers()
            killed = self.tally.kills - (end - kills)
            if self.unlinks_after is not None and killed >= self.unlinks_after and self.bus.is_linked:
                self.bus.unlink()
                self.tally.unlinked += 1
            victims: tuple[Role, ...] = self.random.choices(VICTIMS, [45, 45, 10])[0]
            if self.random.random() < 0.1:
                # Stopped first, so that the other waits for one that lives and does nothing.
                self.seats[victims[0]].signal(signal.SIGSTOP)
                self.tally.stopped += 1
                time.sleep(self.random.random() * 0.1)
            for role in victims[:: self.random.choice([1, -1])]:
                self.seats[role].kill()
            self.tally.killed["both" if len(victims) > 1 else victims[0]] += 1
            for role in victims:
                self.account_for(role)
            if self.random.random() < 0.2:
                # Now and then long enough for the survivor to notice.
                time.sleep(0.25 if self.random.random() < 0.05 else self.random.random() * 0.003)
            for role in victims[:: self.random.choice([1, -1])]:
                self.begin(role)
        self.finish()

    def pause(self) -> None:
        """Lets them run for a while: not at all, until both are at it, or for some milliseconds more."""
        draw = self.random.random()
        if draw < 0.15:
            time.sleep(self.random.random() * 0.003)
            return
        self.wait("both ends were claimed and used", self.are_running)
        for role, seat in self.seats.items():
            assert seat.process is not None
            pid = seat.process.pid
            holder = seat.holder
            if seat.leaves:
                continue
            if holder != pid and not seat.has_ended:
                raise ViolationError(f"{pid} is the {role}, and {holder} is said to be")
            if draw > 0.9 and not seat.has_ended:
                seat.is_refused_to_others()
        if self.random.random() < 0.1:
            stopped = self.seats[self.random.choice(ROLES)]
            stopped.signal(signal.SIGSTOP)
            self.tally.stopped += 1
            time.sleep(self.random.random() * 0.1)
            stopped.signal(signal.SIGCONT)
        time.sleep(self.random.random() * (0.002 if draw < 0.4 else 0.008 if draw < 0.95 else 0.05))

    def are_running(self) -> bool:
        """Whether both ends have been claimed and used by their present processes."""
        return all(seat.has_ended or seat.journal[Journal.TICKS] > 1 for seat in self.seats.values())

    def replace_the_leavers(self) -> None:
        """Starts a successor to each process that has closed its end and left."""
        for role, seat in self.seats.items():
            if seat.has_ended:
                self.account_for(role)
                self.begin(role)

    def wait(self, what: str, is_so: Callable[[], bool]) -> None:
        """Waits until something is so, as long as the two make progress."""
        last, since = self.progress(), time.monotonic()
        while not is_so():
            time.sleep(0.0003)
            if self.progress() != last:
                last, since = self.progress(), time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                raise StuckError(f"no progress in {PATIENCE} s, before {what}: {self.bus.stats()}")

    def progress(self) -> tuple[int, ...]:
        """Changes while events move, or a process begins or ends. Polling without finding anything is not progress."""
        (stats,) = self.bus.stats()
        moved = [stats.producer.emitted, stats.consumer.received]
        for seat in self.seats.values():
            journal = seat.journal
            moved += [journal[Journal.CLAIMED], journal[Journal.GONE], min(2, journal[Journal.TICKS])]
        return tuple(moved)

    def finish(self) -> None:
        """Ends the producer one way or the other; the consumer must end by itself, having got everything."""
        self.replace_the_leavers()
        producer, consumer = self.seats["producer"], self.seats["consumer"]
        if self.random.random() < 0.5:
            producer.kill()
        else:
            producer.journal[Journal.STOP] = 1
            self.wait("the producer closed and left", lambda: producer.has_ended)
        self.account_for("producer")
        if consumer.leaves:
            # It may go before it has got everything.
            self.wait("the consumer left", lambda: consumer.has_ended)
            self.account_for("consumer")
            self.begin("consumer", leaves=False)
        consumer.journal[Journal.STOP] = 1
        self.wait("the consumer saw its producer gone, and left", lambda: consumer.has_ended)
        self.account_for("consumer")
        account = Account()
        numbers = published_numbers(self.producers, account)
        if not np.all(numbers[1:] > numbers[:-1]):
            raise HistoryError("a sequence number was published twice")
        check_deliveries(numbers, self.consumers, account)
        in_use = self.bus.stats()[0].producer.slots_in_use
        if in_use:
            raise HistoryError(f"all was delivered, and {in_use} slots are in use")
        self.tally.account.add(account)
        self.tally.buses += 1

    def close(self) -> None:
        """Ends what still runs, and removes the bus."""
        for seat in self.seats.values():
            if seat.process is not None:
                seat.process.kill()
                seat.process.join()
        self.bus.unlink()
        self.bus.close()


def run(*, seconds: float, kills: int | None, seed: int, start: Start) -> Tally:
    """Runs bus after bus, until the time or the kills are over.

    Raises
    ------
    ViolationError, HistoryError, StuckError, RingError
        What was found; a note says how to run the same again.
    """
    tally = Tally()
    deadline = time.monotonic() + seconds
    number = 0
    if start == "forkserver":
        CONTEXTS[start].set_forkserver_preload(["tests.stress.processes"])
    with memory_directory() as directory:
        while time.monotonic() < deadline and (kills is None or tally.kills < kills):
            rounds = Rounds(directory, number, seed, start, tally)
            try:
                rounds.run(KILLS_A_BUS if kills is None else min(KILLS_A_BUS, kills - tally.kills), deadline)
            except Exception as error:
                error.add_note(f"seed {seed}, start {start}, bus {number} ({rounds}), after {tally.kills} kills")
                raise
            finally:
                rounds.close()
            number += 1
    return tally


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.kill", description=__doc__)
    parser.add_argument("--seconds", type=float, help="how long to continue (default: 10, or without end with --kills)")
    parser.add_argument("--kills", type=int, help="how many processes to kill (default: no limit)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of all that is drawn (default: the time)")
    parser.add_argument("--start", choices=CONTEXTS, default="fork", help="how processes start (default: fork)")
    asked = parser.parse_args()
    seconds = asked.seconds
    if seconds is None:
        seconds = 10.0 if asked.kills is None else math.inf
    began = time.monotonic()
    try:
        tally = run(seconds=seconds, kills=asked.kills, seed=asked.seed, start=asked.start)
    except (ViolationError, HistoryError, StuckError, RingError) as error:
        print(f"VIOLATION: {type(error).__name__}: {error}", *getattr(error, "__notes__", []), sep="\n")
        return 1
    print(tally)
    print(f"seed {asked.seed}, start {asked.start}, {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
