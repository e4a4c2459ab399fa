"""``follow``: a ring and the log behind it as one stream of batches, without holes.

::

    ring ──drain──► rest of a drained batch ─┐
                                             ├─► pieces: contiguous, each number once ──► the caller
    log ───read───► rest of a read batch ────┘        │ a hole, or the silent tail
     ▲                                                ▼
     └─────────────────────────────────── read what is missing

A follower stands before one number, the next it owes. What lies below is dropped, what lies above waits until the log
has filled the hole. So it does not matter in which order, or how often, ring and log offer an event.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self, final

import numpy as np

from ..batch.arrow._export import StreamClaim, export_stream
from ..batch.arrow._schema import EVERY_COLUMN, Selection, export_schema
from ..batch.event_batch import EventBatch
from ..batch.projection import PlainStream
from ..batch.schema import WriteOp
from ..ends.event_loop import check_event_loop
from ..ends.limits import event_count, limit_seconds
from ..ends.stats import FollowStats
from ..errors import BusyError, ClosedError, GapError, LogError
from ..log import EventLog, LiveEventLog

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..ends._consumer import EventConsumer

__all__ = ["Follower", "follow"]

_LOOK: Final = 0.1
"""Seconds that a wait may miss what the ring does not signal: a drop, or a number that only the log has."""
_IDLE_LOOK: Final = 1.0
"""Seconds between two looks into the log while the ring is empty, for what a producer logged before it died."""
_POLL: Final = 0.02
"""Seconds between two looks into a log that cannot tell when something is appended, where there is no ring."""
_NOTHING: Final = EventBatch.from_events([])


def follow(
    consumer: EventConsumer | None,
    log: EventLog,
    *,
    group: str,
    core_id: int | None = None,
    start: Literal["earliest", "latest"] = "earliest",
    after: int | None = None,
    max_events: int = 1024,
    heartbeats: bool = False,
) -> Follower:
    """Every event of a core, once and in order: from the ring while it can, and from the log where it must.

    Parameters
    ----------
    consumer : EventConsumer or None
        The ring. None follows the log alone, live, from a machine that has no ring.
    log : EventLog
        What the producer appends to before it emits.
    group : str
        Under this name the log keeps how far this follower has come.
    core_id : int, optional
        The consumer's own by default.
    start : "earliest" or "latest"
        Where a group begins that is new: at the first event that the log still has, or behind the last one now.
    after : int, optional
        Begins behind this number instead, whatever the log remembers of the group. 0: at the first number, 1.
    max_events : int, default 1024
        Most events of a batch that comes from the ring.
    heartbeats : bool, default False
        Whether heartbeats are delivered. They move the position in any case.

    Raises
    ------
    ValueError, TypeError
        A core that cannot be told, another `start`, a count below 1.
    LogError
        The log cannot be read; or log and ring end before `after`, or before the group's watermark.
    """
    if core_id is None:
        if consumer is None:
            raise TypeError("core_id: must be given where there is no consumer to take it from")
        core_id = consumer.core_id
    if start not in ("earliest", "latest"):
        raise ValueError(f"start {start!r}: must be 'earliest' or 'latest'")
    max_events = event_count(max_events)
    if after is not None and not 0 <= after < 2**64 - 1:
        raise ValueError(f"after {after}: must be in 0 .. {2**64 - 2}")
    return Follower(
        consumer,
        log,
        group=group,
        core_id=core_id,
        start=start,
        after=after,
        max_events=max_events,
        heartbeats=heartbeats,
    )


def _slice_of(deadline: float | None) -> float:
    """Seconds to wait before the next look."""
    return _LOOK if deadline is None else max(0.0, min(_LOOK, deadline - time.monotonic()))


@final
class Follower:
    """What ``follow`` makes: an iterator of batches, ``for`` or ``async for``. Each has contiguous numbers.

    With a ring it ends once the producer has gone, the ring is empty and the log has no more. Without one it ends when
    it is closed. It holds one batch of the ring and one of the log at a time, however much is missing.

    Raises
    ------
    GapError
        On the way: neither ring nor log has an event. The position stays; ``skip`` goes on without it.
    CorruptLogError, LogUnavailableError
        On the way: the log cannot be read. The next call tries again.

    Notes
    -----
    What a call had in hand when a signal handler raised, the next call returns. A handler may ``commit()``, which does
    not cover what the call that it interrupts is about to return, and ``close()``. It may not ask for the next batch in
    the midst of such a call: `BusyError`.

    Thread safety
    -------------
    That of the consumer: one thread at a time; the asynchronous form reads the log on a thread of its own. ``close``,
    ``stats`` and ``position`` from any thread.
    """

    __slots__ = (
        "__weakref__",
        "_at_work",
        "_closing",
        "_committed",
        "_consumer",
        "_core_id",
        "_duplicates",
        "_ended",
        "_episodes",
        "_gaps",
        "_group",
        "_handed",
        "_heartbeats",
        "_heartbeats_wanted",
        "_in_hand",
        "_is_asked",
        "_is_catching_up",
        "_is_closed",
        "_is_replaying",
        "_log",
        "_log_looked",
        "_max_events",
        "_next",
        "_replay",
        "_replay_rest",
        "_replay_upto",
        "_replayed",
        "_ring_rest",
        "_stream_claim",
    )

    def __init__(
        self,
        consumer: EventConsumer | None,
        log: EventLog,
        *,
        group: str,
        core_id: int,
        start: Literal["earliest", "latest"],
        after: int | None,
        max_events: int,
        heartbeats: bool,
    ) -> None:
        self._consumer = consumer
        self._log = log
        self._group = group
        self._core_id = core_id
        self._max_events = max_events
        self._heartbeats_wanted = heartbeats
        self._is_closed = False
        # Wakes who waits. Not an Event: a wait that a signal handler interrupts may have the lock that its set() takes.
        self._closing: SimpleQueue[None] = SimpleQueue()
        self._stream_claim = StreamClaim()
        self._ended = False
        # A call for the next batch is in progress.
        self._is_asked = False
        # The batch that lies before _next and that no call has returned yet: a signal handler may raise in between.
        self._in_hand: EventBatch | None = None
        # Drained and not handed out yet; this very object when there is nothing.
        self._ring_rest = _NOTHING
        # While the log fills a hole, up to and with _replay_upto; an iterator that is None is to be begun at _next.
        self._is_replaying = False
        self._replay: Iterator[EventBatch] | None = None
        self._replay_upto = -1
        self._replay_rest = _NOTHING
        # Something was missing since the ring was last seen without a hole.
        self._is_catching_up = False
        # When the log was last asked for its end; None: not yet.
        self._log_looked: float | None = None
        # The thread that an asynchronous call has reading the log.
        self._at_work: Future[None] | None = None
        self._handed = self._replayed = self._gaps = self._episodes = self._duplicates = self._heartbeats = 0
        # The number to look for: everything below was handed out, is in hand, or was passed over. 0: where numbering
        # begins.
        self._next = self._first_owed(start, after)
        # _next when the watermark was saved.
        self._committed = self._next

    def _first_owed(self, start: str, after: int | None) -> int:
        mark = after if after is not None else self._log.load_watermark(self._group, self._core_id)
        # After the watermark: who saved that had been handed the number, and so it is in one of the two by now.
        last = self._log.last_sequence(self._core_id)
        tried = None if self._consumer is None else self._consumer.emitted_sequence
        known = [number for number in (last, tried) if number is not None]
        end = max(known, default=0)
        if mark is not None:
            if mark > end:
                stands = f"after {mark}" if after is not None else f"group {self._group!r} stands at {mark}"
                remedy = f"follow(after={end})" if after is not None else "save_watermark() or follow(after=...)"
                raise LogError(
                    f"core {self._core_id}: {stands}, and log and ring end at {end}: the log lost its end, or was made"
                    f" anew, and what comes would be taken for delivered; {remedy} goes on there"
                )
            return mark + 1
        if start == "latest":
            # The group exists from now on: a restart before its first commit misses nothing. (Where there is nothing
            # yet, that holds for numbers from 1, as a watermark cannot lie before 0.)
            self._log.save_watermark(self._group, self._core_id, end)
            return max(known) + 1 if known else 0
        if last is None:
            return 0
        for batch in self._log.read(self._core_id, 0, last):
            if len(batch):
                return int(batch.sequence[0])
        return last + 1

    # ---- the stream ------------------------------------------------------------------------------------------------

    def next_batch(self, timeout: float | None = None) -> EventBatch:
        """The next batch, waiting for it at most `timeout` seconds; None waits until there is one, or the end.

        Empty when the time is over, and at the end; then ``ended`` tells which. A `timeout` that is negative or NaN is
        an `ArgumentError`.
        """
        timeout = limit_seconds(timeout)
        if self._is_closed:
            raise self._closed_already()
        return self._advance(timeout)

    def _advance(self, timeout: float | None) -> EventBatch:
        """The next batch; `_NOTHING` itself if there is none."""
        if self._is_asked:
            raise self._asked_already()
        self._is_asked = True
        try:
            batch = self._find(timeout)
            count = len(batch)
        except BaseException:
            self._is_asked = False
            raise
        # No signal handler comes from here on to the caller: CPython looks for one where a function or a turn of a loop
        # begins, and after a call into C.
        self._handed += count
        if self._is_replaying:
            self._replayed += count
        self._in_hand = None
        self._is_asked = False
        return batch

    def _find(self, timeout: float | None) -> EventBatch:
        if self._in_hand is not None:
            return self._in_hand
        if self._at_work is not None:
            # A call for an event loop was cancelled, and its thread may still be reading.
            from concurrent.futures import wait

            wait([self._at_work])
            self._at_work = None
        self._ended = False
        run = self._take_run()
        if run is not None:
            return run
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            batch = self._ready()
            if len(batch) or self._is_closed:
                return batch
            if self._is_replaying:
                self._read_log()
            elif not self._look(_slice_of(deadline)) and self._is_over(deadline):
                return _NOTHING

    async def next_batch_async(self, timeout: float | None = None) -> EventBatch:
        """As ``next_batch``, for an event loop of asyncio's: ``await`` it. On another it is an `EventLoopError`."""
        timeout = limit_seconds(timeout)
        if self._is_closed:
            raise self._closed_already()
        return await self._advance_async(timeout)

    async def _advance_async(self, timeout: float | None) -> EventBatch:
        check_event_loop(f"follower of core {self._core_id}")
        if self._is_asked:
            raise self._asked_already()
        self._is_asked = True
        try:
            batch = await self._find_async(timeout)
            count = len(batch)
        except BaseException:
            self._is_asked = False
            raise
        # As in _advance.
        self._handed += count
        if self._is_replaying:
            self._replayed += count
        self._in_hand = None
        self._is_asked = False
        return batch

    async def _find_async(self, timeout: float | None) -> EventBatch:
        await self._finish_work()
        if self._in_hand is not None:
            return self._in_hand
        self._ended = False
        run = self._take_run()
        if run is not None:
            return run
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            batch = self._ready()
            if len(batch) or self._is_closed:
                return batch
            if self._is_replaying:
                await self._in_thread(self._read_log)
            elif not await self._look_async(_slice_of(deadline)) and self._is_over(deadline):
                return _NOTHING

    def _is_over(self, deadline: float | None) -> bool:
        return self._ended or (deadline is not None and time.monotonic() >= deadline)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> EventBatch:
        if not self._is_closed:
            # Not next_batch, which raises if another thread has closed this by then.
            batch = self._advance(None)
            if batch is not _NOTHING:
                return batch
        raise StopIteration

    def __arrow_c_schema__(self) -> object:
        """The schema of every batch: the capsule of an ``ArrowSchema``."""
        return export_schema()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The batches that iterating yields, as a stream of Arrow arrays: the capsule of an ``ArrowArrayStream``.

        The importer may ask on a thread of its own, which becomes the owner of the consumer. An exception, a GapError
        say, is an error of the stream; ``next_batch`` raises it again. ``commit()`` when the importer has done its
        work. `requested_schema` is as for a batch.

        Raises
        ------
        BusyError
            Another stream of this follower is there: its importer has not let go of it, be it at its end or not.
        BatchError, TypeError
            As for a batch: of `requested_schema`.
        ClosedError
            The follower is closed. Or another stream was handed its events, and this one would begin at the end.
        """
        return self._export(EVERY_COLUMN, requested_schema)

    def plain(self) -> PlainStream:
        """The same stream for Arrow importers that know no view types: strings as utf8, values as binary."""
        return PlainStream(f"follower of core {self._core_id}", self._export)

    def _export(self, selection: Selection, requested_schema: object | None) -> object:
        if self._is_closed:
            raise self._closed_already()
        return export_stream(
            self._bind_and_advance,
            selection,
            requested_schema,
            claim=self._stream_claim,
            owner=f"follower of core {self._core_id}",
            is_over=self._has_nothing_more,
        )

    def _has_nothing_more(self) -> bool:
        """Whether the next call would find the end."""
        consumer = self._consumer
        if consumer is None or not consumer.is_producer_disconnected:
            return False
        # What was drained or read and waits in here is known to one of them.
        known = (consumer.emitted_sequence, self._log.last_sequence(self._core_id))
        return all(number is None or number < self._next for number in known)

    def _bind_and_advance(self) -> EventBatch | None:
        """What a stream asks for: the next batch, on the thread that asks, or None at the end."""
        if self._is_closed:
            return None
        if self._consumer is not None:
            self._consumer.bind()
        batch = self._advance(None)
        return None if batch is _NOTHING else batch

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> EventBatch:
        if not self._is_closed:
            batch = await self._advance_async(None)
            if batch is not _NOTHING:
                return batch
        raise StopAsyncIteration

    # ---- pieces of what is there -----------------------------------------------------------------------------------

    def _take_run(self) -> EventBatch | None:
        """The common case, at the cost of the drain: nothing is missing, and nothing is left from before."""
        if self._consumer is None or self._is_replaying or self._ring_rest is not _NOTHING:
            return None
        batch = self._consumer.drain(self._max_events)
        try:
            count = batch._block.run_from(self._next)  # pyright: ignore[reportPrivateUsage]
        except OverflowError:
            # The highest number there is was handed out: what comes are duplicates.
            count = 0
        if count == 0:
            if len(batch):
                self._ring_rest = batch
            return None
        self._is_catching_up = False
        # Together: no signal handler comes between.
        self._next += count
        self._in_hand = batch
        return batch

    def _ready(self) -> EventBatch:
        """The next piece that can be handed out without a wait and without the log; empty if there is none."""
        while True:
            if self._is_replaying:
                if not len(self._replay_rest):
                    return _NOTHING
                piece, self._replay_rest, missing_upto = self._cut(self._replay_rest)
                if missing_upto is not None:
                    # Nobody has what lies between. Said at each call, until it is skipped.
                    raise self._gap(missing_upto)
                if len(piece):
                    return piece
                continue
            if not len(self._ring_rest):
                return _NOTHING
            piece, rest, missing_upto = self._cut(self._ring_rest)
            self._ring_rest = rest if len(rest) else _NOTHING
            if missing_upto is not None:
                self._fill(missing_upto)
            elif len(piece):
                return piece

    def _cut(self, batch: EventBatch) -> tuple[EventBatch, EventBatch, int | None]:
        """What of a batch comes next, its rest, and the last number that is missing before it, if any is.

        Drops what was handed out before, and passes over heartbeats unless they are wanted. What comes next is in hand
        from then on. A batch that is cut again since a signal handler raised has its rest come next.
        """
        numbers = batch.sequence
        fresh = numbers >= self._next
        begin = int(fresh.argmax()) if fresh.any() else len(batch)
        self._duplicates += begin
        if begin == len(batch):
            return _NOTHING, _NOTHING, None
        first = int(numbers[begin])
        if self._is_replaying:
            self._expect_first(first)
        if first > self._next:
            return _NOTHING, batch[begin:], first - 1
        broken = np.flatnonzero(numbers[begin:] != np.arange(len(batch) - begin, dtype=np.uint64) + np.uint64(first))
        stop = begin + int(broken[0]) if broken.size else len(batch)
        if not self._heartbeats_wanted:
            silent = batch.op[begin:stop] == WriteOp.HEARTBEAT
            if silent.any():
                # Either the heartbeats that it begins with, which are passed over, or what comes before the first.
                is_silent = bool(silent[0])
                other = np.flatnonzero(silent != is_silent)
                stop = begin + int(other[0]) if other.size else stop
                if is_silent:
                    rest = batch[stop:]
                    self._heartbeats += stop - begin
                    self._next += stop - begin
                    return _NOTHING, rest, None
        piece, rest = batch[begin:stop], batch[stop:]
        # Together: no signal handler comes between.
        self._next += stop - begin
        self._in_hand = piece
        return piece, rest, None

    # ---- what is missing -------------------------------------------------------------------------------------------

    def _expect_first(self, first: int) -> None:
        """Where numbering begins that nobody has told: at 1, by convention, unless ring or log begins with a 0.

        Asked once the log has nothing lower than `first`.
        """
        if self._next == 0 and first > 0:
            self._next = 1

    def _fill(self, upto: int) -> None:
        """Has the log deliver what is missing, `upto` included, before anything else."""
        if upto > 0 or not len(self._ring_rest):
            self._gaps += 1
            self._episodes += not self._is_catching_up
            self._is_catching_up = True
        # Else the ring begins with 1: whether there is a 0 before it is a question, and most often no hole.
        self._is_replaying = True
        self._replay_upto = upto

    def _read_log(self) -> None:
        """Reads the next batch of the log, or ends the replay when all is there that was missing."""
        if self._next > self._replay_upto:
            self._replay = None
            self._is_replaying = False
            return
        if self._replay is None:
            self._replay = iter(self._log.read(self._core_id, self._next, self._replay_upto))
        replay, self._replay = self._replay, None
        batch = next(replay, None)
        if batch is not None:
            self._replay_rest = batch
            self._replay = replay
            return
        self._expect_first(self._replay_upto + bool(len(self._ring_rest)))
        if self._next <= self._replay_upto:
            raise self._gap(self._replay_upto)
        self._is_replaying = False

    def _gap(self, last: int) -> GapError:
        first = self._next
        return GapError(
            f"core {self._core_id}: neither the ring nor the log has {first} to {last}; look why the log lacks them"
            " (was it trimmed, or did something emit without it?), or skip() to go on without them",
            self._core_id,
            first,
            last,
        )

    def skip(self, gap: GapError) -> None:
        """Goes on behind a gap that nobody can fill. Its events are lost for this group once it commits."""
        if gap.core_id != self._core_id or gap.first != self._next:
            raise ValueError(
                f"gap {gap.first} to {gap.last} of core {gap.core_id}: is not where this follower stands, before"
                f" {self._next} of core {self._core_id}"
            )
        self._next = gap.last + 1

    # ---- waiting ---------------------------------------------------------------------------------------------------

    def _look(self, seconds: float) -> bool:
        """Waits for the ring, or for the log where there is none. Whether there is something to hand out or to fill."""
        if self._consumer is None:
            return self._look_at_end_of_log() or self._wait_for_log(seconds)
        # In this order: what was tried by now is in the ring when the drain looks, or was dropped.
        tail = self._consumer.emitted_sequence
        batch = self._consumer.drain(self._max_events, seconds if self._is_settled(tail) else 0.0)
        if len(batch):
            self._ring_rest = batch
            return True
        return self._look_behind_ring(tail)

    async def _look_async(self, seconds: float) -> bool:
        if self._consumer is None:
            return bool(await self._in_thread(self._look, seconds))
        tail = self._consumer.emitted_sequence
        batch = await self._consumer.drain_async(self._max_events, seconds if self._is_settled(tail) else 0.0)
        if len(batch):
            self._ring_rest = batch
            return True
        return bool(await self._in_thread(self._look_behind_ring, tail))

    def _is_settled(self, tail: int | None) -> bool:
        """Whether a wait is in order: nothing is known to be missing, and the log was asked."""
        return self._log_looked is not None and (tail is None or tail < self._next)

    def _look_behind_ring(self, tail: int | None) -> bool:
        """After the ring was found empty: what is missing up to `tail`, or what the log alone knows of."""
        if tail is not None and tail >= self._next:
            self._fill(tail)
            return True
        is_over = False
        if self._consumer is not None and self._consumer.is_producer_disconnected:
            is_over = True
            tail = self._consumer.emitted_sequence
            if tail is not None and tail >= self._next:
                # Tried after the look at the ring began, and before the producer went: the next look finds it.
                return True
        if is_over or self._log_looked is None or time.monotonic() - self._log_looked >= _IDLE_LOOK:
            # A producer that died when it had appended and had not tried to emit yet: only the log knows.
            if self._look_at_end_of_log():
                return True
            self._ended = is_over
        self._is_catching_up = False
        return False

    def _look_at_end_of_log(self) -> bool:
        last = self._log.last_sequence(self._core_id)
        self._log_looked = time.monotonic()
        if last is not None and last >= self._next:
            self._fill(last)
            return True
        return False

    def _wait_for_log(self, seconds: float) -> bool:
        if isinstance(self._log, LiveEventLog):
            self._log.wait_beyond(self._core_id, self._next - 1, seconds)
        else:
            with contextlib.suppress(Empty):
                self._closing.get(timeout=min(seconds, _POLL))
        return False

    async def _in_thread(self, work: Callable[..., object], *arguments: object) -> object:
        """Has a thread do what may block. A cancelled call leaves it at work, and the next call waits for its end."""
        import asyncio
        from concurrent.futures import Future

        done: Future[None] = Future()
        found: list[object] = []
        raised: list[BaseException] = []

        def run() -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                found.append(work(*arguments))
            except BaseException as error:
                raised.append(error)
            finally:
                done.set_result(None)

        self._at_work = done
        try:
            asyncio.get_running_loop().run_in_executor(None, run)
        except BaseException:
            # Whether a thread has it is not known: it is waited for, unless it will do nothing.
            if done.cancel():
                self._at_work = None
            raise
        await self._finish_work()
        if raised:
            raise raised[0]
        return found[0]

    async def _finish_work(self) -> None:
        # No future of a loop, which may have ended since; and what a cancelled call would have raised, the next look or
        # read meets again.
        if self._at_work is not None:
            import asyncio

            await asyncio.shield(asyncio.wrap_future(self._at_work))
            self._at_work = None

    # ---- accounts --------------------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Saves how far this follower has come, all batches handed out so far included. A restart goes on behind it.

        From a signal handler, mind that the last of them may not be handled yet.
        """
        owed = self._owed
        if owed > self._committed:
            self._log.save_watermark(self._group, self._core_id, owed - 1)
            self._committed = owed

    @property
    def core_id(self) -> int:
        """The core that is followed."""
        return self._core_id

    @property
    def group(self) -> str:
        """The group that it follows for."""
        return self._group

    @property
    def position(self) -> int | None:
        """The last number handed out or passed over; None before the first."""
        return self._owed - 1 if self._owed else None

    @property
    def _owed(self) -> int:
        """The first number that the caller has not got."""
        held = self._in_hand
        return self._next if held is None else self._next - len(held)

    @property
    def ended(self) -> bool:
        """Whether the last call found the end: the producer gone, ring and log at their end. Or this was closed."""
        return self._ended or self._is_closed

    def stats(self) -> FollowStats:
        """The accounts of this follower, a snapshot."""
        tried = None if self._consumer is None else self._consumer.emitted_sequence
        known = self._replay_upto if tried is None else max(tried, self._replay_upto)
        return FollowStats(
            delivered=self._handed,
            replayed=self._replayed,
            gaps=self._gaps,
            episodes=self._episodes,
            duplicates=self._duplicates,
            heartbeats=self._heartbeats,
            position=self.position,
            lag=max(0, known + 1 - max(self._owed, 1)),
        )

    def close(self) -> None:
        """Ends the stream, a waiting call included, within a tenth of a second; may be repeated. Waits for nothing.

        Consumer and log stay open: they are the caller's. Nothing is committed.
        """
        self._is_closed = True
        self._closing.put(None)

    def _closed_already(self) -> ClosedError:
        return ClosedError(f"follower of core {self._core_id}: is closed; follow() again, from the last commit")

    def _asked_already(self) -> BusyError:
        return BusyError(
            f"follower of core {self._core_id}: a call for its next batch is in progress; ask when it has returned"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        where = "before the first event" if self.position is None else f"at {self.position}"
        return f"<Follower of core {self._core_id}, group {self._group!r}, {where}>"
