"""``CommitMerger``: the commits of a database, each whole, in the order of their numbers.

The numbers say whose turn it is. Captures give them under the database's write lock, without a hole: so the number that
is due is that of one core, and a core whose next number is larger waits. Three questions are left for the log:

- **Where do we begin?** With the least number that any core has still to deliver. Groups may have committed some cores
  later than others: numbers up to the highest that was delivered may be gone already, and are not missing.
- **Is a commit whole?** Yes if a later one of its core follows. Otherwise the log knows its last event.
- **Does a core that has nothing yet have what is due?** When some core has a larger number, the one due is in the log:
  it was committed before. If it is in none of the cores that are merged, nobody will ever deliver it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple, Self, final

import numpy as np

from ..ends.event_loop import check_event_loop
from ..errors import ArgumentError, GapError, LogError
from ..log import NumberedEventLog
from ..recovery.follower import Follower
from ..recovery.state import NOTHING
from ..recovery.thread_call import ThreadCall, yield_to_loop
from ._wait_set import WaitSet
from .asynchronous import until_ready

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..batch._event_batch import EventBatch
    from ..ends._consumer import EventConsumer

__all__ = ["CommitMerger"]

ASK_SECONDS: Final = 0.01
"""Seconds to wait for the number that is due before the log is asked who has it: most often it comes at once."""


# What is private to a follower is the merge's business here.
# pyright: reportPrivateUsage=false


@final
class _Core:
    """A follower, and what is known of its next commits."""

    __slots__ = (
        "_edges",
        "_known_end",
        "_looked_at",
        "_numbers",
        "_place",
        "bound",
        "core_id",
        "follower",
        "hand",
        "log",
    )

    def __init__(self, follower: Follower, log: NumberedEventLog) -> None:
        self.follower = follower
        self.log = log
        self.core_id = follower.core_id
        self.hand = follower._hand
        # It has nothing more to deliver at or below this number.
        self.bound = 0
        # Where the commits of the hand's first batch begin, and behind them its length; and their numbers.
        self._looked_at: EventBatch | None = None
        self._edges: list[int] = []
        self._numbers: list[int] = []
        self._place = 0
        # The last commit whose end the log was asked for, and that end.
        self._known_end = (0, 0)

    @property
    def next_number(self) -> int | None:
        """The number of the next commit that is at hand."""
        hand = self.hand
        if not hand.batches:
            return None
        batch = hand.batches[0]
        if batch is not self._looked_at:
            lsn = batch.lsn
            edges = np.flatnonzero(lsn[1:] != lsn[:-1]) + 1
            self._edges = [0, *edges.tolist(), len(batch)]
            self._numbers = lsn[self._edges[:-1]].tolist()
            self._place = 0
            self._looked_at = batch
        while self._edges[self._place + 1] <= hand.start:
            self._place += 1
        return self._numbers[self._place]

    def whole(self, most: int) -> tuple[int, int, bool]:
        """Which commits at hand are whole and follow each other without a hole: at most `most` events, or one commit.

        The last number of these, where they end in the hand's first batch, and whether the batch's last commit comes
        next, of which there may be more.
        """
        hand, edges, numbers, place = self.hand, self._edges, self._numbers, self._place
        last = len(numbers) - 1
        stop, number = hand.start, numbers[place] - 1
        while (
            place < last
            and numbers[place] == number + 1
            and (stop == hand.start or edges[place + 1] - hand.start <= most)
        ):
            number += 1
            place += 1
            stop = edges[place]
        is_next = place == last and numbers[last] == number + 1
        return number, stop, is_next and (stop == hand.start or edges[-1] - hand.start <= most)

    def next_stored(self) -> int | None:
        """The number of the first commit that the log has behind all that was taken."""
        return self._checked(self.follower._state.owed - 1)

    def next_undelivered(self) -> int | None:
        """The same, behind what was delivered."""
        return self._checked(self.follower._undelivered - 1)

    def _checked(self, after: int) -> int | None:
        found = self.log.commits.after(self.core_id, after)
        if found is None:
            return None
        if found.number == 0:
            raise LogError(
                f"core {self.core_id}: no capture has stored the events after {after}, so their lsn are no commit"
                " numbers; merge this core without by='lsn'"
            )
        return found.number

    def is_at_end(self, number: int, *, hides_errors: bool = False) -> bool:
        """Whether all of the commit that ends what is at hand is at hand. Asks the log."""
        if self._known_end[0] != number:
            sequence = int(self.hand.batches[-1].sequence[-1])
            found = self.log.commits.after(self.core_id, sequence - 1)
            if found is None or found.number != number:
                if hides_errors:
                    return False
                raise LogError(
                    f"core {self.core_id}: the log does not have event {sequence} as one of commit {number}, its lsn;"
                    " was it emitted by something else than a capture with this log?"
                )
            self._known_end = (number, found.last_sequence)
        # Not what is at hand: heartbeats behind the last event are passed over.
        return self.follower._state.owed > self._known_end[1]


class _Take(NamedTuple):
    """A step: one more batch into the hand. The answer says whether there was one within the time."""

    core: _Core
    seconds: float | None
    hides_errors: bool = False
    """Whether an error of the follower is for a later call: it comes again."""


class _Wait(NamedTuple):
    """A step: until one of these has something, or has ended. The answer says whether one has."""

    cores: list[_Core]
    seconds: float | None


class _Ask(NamedTuple):
    """A step: a question to the log, which may block. The answer is its own."""

    question: Callable[[], bool]


_Steps = Generator[_Take | _Wait | _Ask, bool, tuple[_Core, int, int] | None]


@final
class CommitMerger:
    """What ``merge(followers, by="lsn")`` makes: an iterator of ``(core_id, batch)``, ``for`` or ``async for``.

    A batch has one or several whole commits of a core, whose numbers follow each other and those of the batch before.
    It ends when all followers have ended. What it has taken and not yielded counts as not delivered: ``commit()`` of a
    follower covers the batches that were yielded, and a follower that is used without this merge has them first.

    Raises
    ------
    GapError
        From a call for the next batch: no core has a commit number. ``core_id`` is -1, and ``first`` and ``last`` are
        commit numbers. Each call raises it again, until ``skip()``. Or a follower cannot go on, as it says itself.
    LogError
        From a call for the next batch: the ``lsn`` of a core's events are no commit numbers.
    OwnershipError, BusyError, ForkError
        As for ``wait``.

    Thread safety
    -------------
    One thread at a time. ``close()`` of a follower from any thread.
    """

    __slots__ = ("_cores", "_due", "_excused", "_log_call", "_most")

    def __init__(self, ends: Iterable[EventConsumer | Follower], max_events: int) -> None:
        self._cores = [_numbered(end) for end in WaitSet(ends).ends]
        ids = {core.log.log_id for core in self._cores}
        if len(ids) > 1:
            raise ArgumentError(
                f"ends: have {len(ids)} logs, and commit numbers are those of one database; merge the followers of each"
                " log alone"
            )
        if len({core.core_id for core in self._cores}) < len(self._cores):
            raise ArgumentError("ends: two followers follow the same core; pass one of them")
        self._most = max_events
        # The number of the next commit; None until the log was asked. Numbers up to `_excused` may be gone already.
        self._due: int | None = None
        self._excused = 0
        self._log_call = ThreadCall()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[int, EventBatch]:
        steps, answer = self._steps(), None
        while True:
            try:
                step = steps.send(answer)  # type: ignore[arg-type]
            except StopIteration as end:
                found = end.value
                break
            if isinstance(step, _Take):
                answer = _take(step)
            elif isinstance(step, _Wait):
                answer = bool(WaitSet([core.follower for core in step.cores]).wait(step.seconds))
            else:
                answer = step.question()
        if found is None:
            raise StopIteration
        core, stop, number = found
        batch = core.hand.take(stop)
        # No signal handler runs from here until the caller has it.
        self._due = number + 1
        return core.core_id, batch

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, EventBatch]:
        check_event_loop("merge()")
        await yield_to_loop()
        steps, answer = self._steps(), None
        while True:
            try:
                step = steps.send(answer)  # type: ignore[arg-type]
            except StopIteration as end:
                found = end.value
                break
            if isinstance(step, _Take):
                answer = await _take_async(step)
            elif isinstance(step, _Wait):
                answer = bool(await until_ready(WaitSet([core.follower for core in step.cores]), step.seconds))
            else:
                answer = await self._log_call.run(step.question)
        if found is None:
            raise StopAsyncIteration
        core, stop, number = found
        batch = core.hand.take(stop)
        self._due = number + 1
        return core.core_id, batch

    def skip(self, gap: GapError) -> None:
        """Continues after commit numbers that no core has."""
        if gap.core_id != -1 or self._due is None or not self._due <= gap.first <= gap.last:
            raise ValueError(
                f"gap {gap.first} to {gap.last} of core {gap.core_id}: is none of this merge's, at commit {self._due}"
            )
        self._due = gap.last + 1

    # ---- whose turn it is ------------------------------------------------------------------------------------------

    def _steps(self) -> _Steps:
        """What has to be done for the next batch: its core, where it ends, and its last number. None at the end."""
        if self._due is None:
            yield _Ask(self._begin)
        while self._cores:
            core = self._holder()
            if core is None:
                yield from self._find_due()
                continue
            start = core.hand.start
            number, stop, is_last = core.whole(self._most)
            if is_last and (yield from self._complete(core, number + 1, has_others=stop > start)):
                number, stop = number + 1, len(core.hand.batches[0])
            # Otherwise more was gathered.
            if stop > start:
                return core, stop, number
        return None

    def _begin(self) -> bool:
        due = 1 + self._cores[0].log.commits.last() if self._cores else 1
        for core in self._cores:
            self._excused = max(self._excused, core.log.commits.before(core.core_id, core.follower._undelivered - 1))
            number = core.next_undelivered()
            if number is not None:
                due = min(due, number)
        self._due = due
        return True

    def _holder(self) -> _Core | None:
        for core in self._cores:
            if core.next_number == self._due:
                return core
        return None

    def _complete(self, core: _Core, number: int, *, has_others: bool) -> Generator[_Take | _Wait | _Ask, bool, bool]:
        """Whether the last commit at hand of a core's first batch ends there. Where it does not, gathers the rest.

        If there are commits before it, they can be yielded first, and nothing is waited for.
        """
        hand = core.hand
        while True:
            count = len(hand.batches)
            is_open = count == 1 or hand.batches[-1].lsn[-1] == number
            if is_open and not (yield _Take(core, 0.0, hides_errors=has_others)):
                if (yield _Ask(lambda: core.is_at_end(number, hides_errors=has_others))):
                    break
                if has_others:
                    return False
                if not (yield _Take(core, None)):
                    raise LogError(f"core {core.core_id}: has ended within commit {number}; follow it again")
            if hand.batches[1].lsn[0] != number:
                return True
            if has_others:
                return False
            if hand.batches[-1].lsn[-1] != number:
                break
        if len(hand.batches) > 1:
            hand.join()
            return False
        return True

    def _find_due(self) -> Generator[_Take | _Wait | _Ask, bool, None]:
        """Nobody has the number that is due at hand: takes more, waits, or finds that it is missing."""
        has_grown = False
        for core in list(self._cores):
            if not core.hand.batches:
                if (yield _Take(core, 0.0)):
                    has_grown = True
                elif core.follower.ended:
                    self._cores.remove(core)
        if has_grown or not self._cores:
            return
        numbers = [(number, core.core_id) for core in self._cores if (number := core.next_number) is not None]
        if not numbers:
            yield _Wait(self._cores, None)
            return
        lowest, core_id = min(numbers)
        due = self._due
        if due is None or lowest < due:
            raise _no_commit_number(core_id, lowest, f"commit {due} is due")
        hungry = [core for core in self._cores if not core.hand.batches and core.bound < lowest - 1]
        if not hungry:
            self._pass_over(due, lowest)
        elif not (yield _Wait(hungry, ASK_SECONDS)):
            if not (yield _Ask(lambda: self._set_bounds(hungry, lowest))):
                raise _no_commit_number(core_id, lowest, "the log has not come so far")
            having = [core for core in hungry if core.bound < lowest - 1]
            if having:
                # It is in the log, so it comes.
                yield _Wait(having, None)

    def _set_bounds(self, cores: list[_Core], number: int) -> bool:
        """Finds out how far each of these has nothing more to deliver; False if the log has not given `number` yet."""
        last = cores[0].log.commits.last()
        for core in cores:
            # Asked after the last one: what is committed meanwhile is larger.
            following = core.next_stored()
            core.bound = last if following is None else following - 1
        return last >= number

    def _pass_over(self, due: int, lowest: int) -> None:
        first = max(due, self._excused + 1)
        if first < lowest:
            cores = ", ".join(str(core.core_id) for core in self._cores)
            what = f"commit {first}" if first == lowest - 1 else f"commits {first} to {lowest - 1}"
            raise GapError(
                f"{what}: none of the cores {cores} has it, and {lowest} is there; merge all cores that captures write,"
                " or skip() to continue without",
                -1,
                first,
                lowest - 1,
            )
        self._due = lowest


def _no_commit_number(core_id: int, lsn: int, why: str) -> LogError:
    return LogError(
        f"core {core_id}: has an event of lsn {lsn}, and {why}, so its lsn are not the commit numbers of this database;"
        " merge this core without by='lsn'"
    )


def _numbered(end: EventConsumer | Follower) -> _Core:
    if not isinstance(end, Follower):
        raise TypeError(f"ends: by='lsn' merges followers, and this is {end!r}; follow() it with its log")
    log = end._log
    if not isinstance(log, NumberedEventLog):
        raise LogError(f"ends: by='lsn' needs a log that numbers commits, as SqliteEventLog does, and this is {log!r}")
    return _Core(end, log)


def _take(step: _Take) -> bool:
    follower, hand = step.core.follower, step.core.hand
    if follower._is_closed:
        return False
    try:
        batch = follower._take_new(step.seconds)
    except LogError:
        if step.hides_errors:
            return False
        raise
    # No signal handler runs until it is in the hand.
    if batch is NOTHING:
        return False
    hand.batches = (*hand.batches, batch)
    return True


async def _take_async(step: _Take) -> bool:
    follower, hand = step.core.follower, step.core.hand
    if follower._is_closed:
        return False
    try:
        batch = await follower._take_new_async(step.seconds)
    except LogError:
        if step.hides_errors:
            return False
        raise
    if batch is NOTHING:
        return False
    hand.batches = (*hand.batches, batch)
    return True
