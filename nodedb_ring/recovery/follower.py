"""``Follower``: the stream that ``follow`` makes of a ring and its event log.

::

    ring ──drain──► drained events ─┐
                                    ├─► contiguous batches, each number once ──► the caller
    log ───read───► read events ────┘        │ a hole, or dropped events at the end
     ▲                                       ▼
     └──────────────────────────────── read what is missing

What comes next is decided by the state machine of ``state.py``; the table in ``need.py`` has all transitions. Here are
its two drivers, which differ in how they wait: ``_advance`` in the calling thread; ``_advance_async`` on an event
loop, with the log on another thread.
"""

from __future__ import annotations

import time
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self, final

from ..batch._event_batch import EventBatch
from ..batch.arrow._export_stream import StreamClaim, export_stream
from ..batch.arrow._schema import EVERY_COLUMN, Selection, export_schema
from ..batch.projection import PlainStream
from ..ends.event_loop import check_event_loop
from ..ends.limits import limit_seconds
from ..ends.stats import FollowStats
from ..errors import BusyError, ClosedError, GapError
from ..log import EventLog, ExclusiveEventLog, GroupClaim
from .hand import Hand
from .start import first_owed, identified
from .state import NOTHING, FollowState, Need
from .thread_call import ThreadCall, yield_to_loop

if TYPE_CHECKING:
    from ..ends._consumer import EventConsumer

__all__ = ["Follower"]

_DRAIN: Final = Need.DRAIN
_WAIT: Final = Need.WAIT
_RETURN: Final = Need.RETURN


@final
class Follower:
    """What ``follow`` makes: an iterator of batches, ``for`` or ``async for``. Each has contiguous numbers.

    With a ring it ends once the producer has gone, the ring is empty and the log has no more. Without a ring, and with
    ``until="closed"``, it ends when it is closed. It holds at most one batch of the ring, one of the log, and what it
    gathers for the next batch. While it lives and is not closed, its group has no other follower of this core.

    Raises
    ------
    GapError
        From a call for the next batch: neither ring nor log has the next event. The position stays where it is, and
        ``skip`` continues without the event.
    CorruptLogError, LogUnavailableError
        From a call for the next batch: the log cannot be read. The next call tries again.

    Notes
    -----
    If a signal handler raises during a call, the next call returns what that one would have returned. A handler may
    call ``commit()``, which does not cover what the interrupted call is about to return, and ``close()``. If it asks
    for the next batch during such a call, that is a `BusyError`.

    Thread safety
    -------------
    One thread at a time asks for batches, as with the consumer. The asynchronous methods read the log on another
    thread. ``close``, ``stats`` and ``position`` from any thread.
    """

    __slots__ = (
        "__weakref__",
        "_claim",
        "_committed",
        "_consumer",
        "_core_id",
        "_group",
        "_hand",
        "_is_closed",
        "_log",
        "_log_call",
        "_state",
        "_stream_claim",
        "_turn",
    )

    def __init__(
        self,
        consumer: EventConsumer | None,
        log: EventLog,
        *,
        group: str,
        core_id: int,
        start: Literal["earliest", "latest"],
        after: int | str | None,
        max_events: int,
        linger: float,
        heartbeats: bool,
        outlives_producer: bool,
    ) -> None:
        self._consumer = consumer
        self._log = log
        self._group = group
        self._core_id = core_id
        self._is_closed = False
        # What a merge by commit has taken and not yielded: it comes before everything else.
        self._hand = Hand()
        self._stream_claim = StreamClaim()
        # Empty while a call for the next batch is in progress. To delete the key is one step, in which one of two
        # threads fails; and neither that nor putting it back is a call, after which a signal handler could run.
        self._turn: dict[None, None] = {None: None}
        # What asynchronous calls ask the log through; None before the first.
        self._log_call: ThreadCall | None = None
        # The claim first: nobody else moves the watermark that is read next.
        self._claim: GroupClaim | None = None
        if isinstance(log, ExclusiveEventLog):
            self._claim = log.claim_group(group, core_id)
        if self._claim is not None:
            # One that nobody closes lets others follow when it is collected.
            weakref.finalize(self, self._claim.release).atexit = False
        try:
            owed = first_owed(consumer, log, group=group, core_id=core_id, start=start, after=after)
            # Where it begins before the watermark, that stays until it has been passed.
            mark = None if after is None else log.load_watermark(group, core_id)
        except BaseException:
            self._release()
            raise
        self._state = FollowState(
            consumer,
            log,
            core_id=core_id,
            owed=owed,
            wants_heartbeats=heartbeats,
            max_events=max_events,
            linger=linger,
            outlives_producer=outlives_producer,
        )
        # The first number above the watermark that was saved last.
        self._committed = owed if mark is None else max(owed, mark + 1)

    # ---- the stream ------------------------------------------------------------------------------------------------

    def next_batch(self, timeout: float | None = None) -> EventBatch:
        """The next batch, waiting for it at most `timeout` seconds; None waits until there is one, or the end.

        Empty when the time is over and at the end; ``ended`` distinguishes the two. A `timeout` that is negative or NaN
        is an `ArgumentError`.
        """
        timeout = limit_seconds(timeout)
        if self._is_closed:
            raise self._closed_already()
        return self._take(timeout)

    async def next_batch_async(self, timeout: float | None = None) -> EventBatch:
        """As ``next_batch``, for an event loop of asyncio's: ``await`` it. On another it is an `EventLoopError`."""
        timeout = limit_seconds(timeout)
        if self._is_closed:
            raise self._closed_already()
        return await self._take_async(timeout)

    def _take(self, timeout: float | None) -> EventBatch:
        """The next batch; ``NOTHING`` itself if there is none."""
        if self._hand.batches:
            return self._hand.take(len(self._hand.batches[0]))
        return self._take_new(timeout)

    def _take_new(self, timeout: float | None) -> EventBatch:
        """The next one behind those in the hand."""
        try:
            del self._turn[None]
        except KeyError:
            raise self._in_call_already() from None
        try:
            self._advance(timeout)
            batch = self._state.deliver()
        except BaseException:
            self._turn[None] = None
            raise
        # No signal handler runs between the delivery and the caller: see state.py.
        self._turn[None] = None
        return batch

    async def _take_async(self, timeout: float | None) -> EventBatch:
        if self._hand.batches:
            return self._hand.take(len(self._hand.batches[0]))
        return await self._take_new_async(timeout)

    async def _take_new_async(self, timeout: float | None) -> EventBatch:
        check_event_loop(f"follower of core {self._core_id}")
        try:
            del self._turn[None]
        except KeyError:
            raise self._in_call_already() from None
        try:
            await self._advance_async(timeout)
            if self._state.batch is None:
                # A task that polls lets the loop's other tasks run.
                await yield_to_loop()
            batch = self._state.deliver()
        except BaseException:
            self._turn[None] = None
            raise
        self._turn[None] = None
        return batch

    def _has_more(self) -> bool:
        """Whether the next call would return without waiting: with a batch, which is kept for it, an error or the end.

        An error that the next call would raise is not raised here, and it may have passed by then.
        """
        if self._state.batch is not None or self._hand.batches or self._is_closed:
            return True
        try:
            del self._turn[None]
        except KeyError:
            raise self._in_call_already() from None
        try:
            self._advance(0.0)
        except Exception:
            return True
        finally:
            self._turn[None] = None
        return self._state.batch is not None or self.ended

    async def _has_more_async(self) -> bool:
        """The same on an event loop."""
        if self._state.batch is not None or self._hand.batches or self._is_closed:
            return True
        try:
            del self._turn[None]
        except KeyError:
            raise self._in_call_already() from None
        try:
            await self._advance_async(0.0)
        except Exception:
            return True
        finally:
            self._turn[None] = None
        return self._state.batch is not None or self.ended

    def _advance(self, timeout: float | None) -> None:
        """Does what the state machine needs until this call can return."""
        if self._log_call is not None:
            self._log_call.finish()
        state, consumer = self._state, self._consumer
        need = state.begin(None if timeout is None else time.monotonic() + timeout)
        while need is not _RETURN and not self._is_closed:
            if need is _DRAIN and consumer is not None:
                need = state.drained(consumer.drain(state.room))
            elif need is _WAIT and consumer is not None:
                need = state.drained(consumer.drain(state.room, state.seconds))
            else:
                need = state.ask_log(need)

    async def _advance_async(self, timeout: float | None) -> None:
        """The same on an event loop."""
        if self._log_call is None:
            self._log_call = ThreadCall()
        await self._log_call.finish_async()
        state, consumer = self._state, self._consumer
        need = state.begin(None if timeout is None else time.monotonic() + timeout)
        while need is not _RETURN and not self._is_closed:
            if need is _DRAIN and consumer is not None:
                need = state.drained(consumer.drain(state.room))
            elif need is _WAIT and consumer is not None:
                need = state.drained(await consumer.drain_async(state.room, state.seconds))
            else:
                need = await self._log_call.run(state.ask_log, need)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> EventBatch:
        if not self._is_closed:
            # Not next_batch, which raises if another thread has closed this by then.
            batch = self._take(None)
            if batch is not NOTHING:
                return batch
        raise StopIteration

    def __arrow_c_schema__(self) -> object:
        """The schema of every batch: the capsule of an ``ArrowSchema``."""
        return export_schema()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The batches that iterating yields, as a stream of Arrow arrays: the capsule of an ``ArrowArrayStream``.

        If the importer reads on a thread of its own, that thread becomes the owner of the consumer. An exception, such
        as a GapError, is an error of the stream, and ``next_batch`` raises it again. Call ``commit()`` when the
        importer has handled the events. `requested_schema` is as for a batch.

        Raises
        ------
        BusyError
            The importer of another stream of this follower has not released that stream, whether it is at its end or
            not.
        BatchError, TypeError
            As for a batch, because of `requested_schema`.
        ClosedError
            The follower is closed. Or another stream has delivered all of its events.
        """
        return self._export(EVERY_COLUMN, requested_schema)

    def plain(self) -> PlainStream:
        """The same stream for Arrow importers that know no view types: strings as utf8, values as binary."""
        return PlainStream(f"follower of core {self._core_id}", self._export)

    def _export(self, selection: Selection, requested_schema: object | None) -> object:
        if self._is_closed:
            raise self._closed_already()
        return export_stream(
            self._bind_and_take,
            selection,
            requested_schema,
            claim=self._stream_claim,
            owner=f"follower of core {self._core_id}",
            is_over=self._has_nothing_more,
        )

    def _has_nothing_more(self) -> bool:
        """Whether the next call would find the end."""
        consumer = self._consumer
        if consumer is None or self._state.outlives_producer or not consumer.is_producer_disconnected:
            return False
        # Numbers that were drained or read and not delivered yet are known to one of the two.
        known = (consumer.emitted_sequence, self._log.last_sequence(self._core_id))
        return all(number is None or number < self._undelivered for number in known)

    def _bind_and_take(self) -> EventBatch | None:
        """What a stream asks for: the next batch, on the thread that asks, or None at the end."""
        if self._is_closed:
            return None
        if self._consumer is not None:
            self._consumer.bind()
        batch = self._take(None)
        return None if batch is NOTHING else batch

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> EventBatch:
        if not self._is_closed:
            batch = await self._take_async(None)
            if batch is not NOTHING:
                return batch
        raise StopAsyncIteration

    def skip(self, gap: GapError) -> None:
        """Continues after a gap that cannot be filled. Once the group commits, it never gets those events."""
        self._state.skip(gap)

    # ---- position --------------------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Saves the watermark of all batches returned so far. A restart continues after it.

        It never moves back: a follower that began before the group's watermark, by ``after=``, saves nothing until it
        has passed that. In a signal handler: the last of these batches may not have been handled yet.
        """
        undelivered = self._undelivered
        if undelivered > self._committed:
            if self._claim is not None:
                self._claim.check()
            self._log.save_watermark(self._group, self._core_id, undelivered - 1)
            self._committed = undelivered

    @property
    def _undelivered(self) -> int:
        """The first number that the caller has not got."""
        first = self._hand.first
        return self._state.undelivered if first is None else first

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
        """The last number delivered or passed over; None before the first."""
        undelivered = self._undelivered
        return undelivered - 1 if undelivered else None

    @property
    def token(self) -> str:
        """The position in this very log, to store with a result and resume with ``follow(after=token)``. Asks the log.

        Raises
        ------
        LogError
            The log is no ``IdentifiedEventLog``, or cannot be read.
        """
        log = identified(self._log, "follower.token")
        return log.token(self._core_id, self._undelivered - 1)

    @property
    def ended(self) -> bool:
        """Whether the last call found the end (the producer gone, ring and log without more), or this was closed."""
        return self._state.ended or self._is_closed

    def stats(self) -> FollowStats:
        """A snapshot of this follower's counters."""
        state = self._state
        tried = None if self._consumer is None else self._consumer.emitted_sequence
        known = state.replay_upto if tried is None else max(tried, state.replay_upto)
        return FollowStats(
            delivered=state.delivered - len(self._hand),
            replayed=state.replayed,
            gaps=state.gaps,
            episodes=state.episodes,
            duplicates=state.duplicates,
            heartbeats=state.heartbeats,
            position=self.position,
            lag=max(0, known + 1 - max(self._undelivered, 1)),
        )

    def close(self) -> None:
        """Ends the stream. May be repeated. It does not wait; a waiting call ends within a tenth of a second.

        Consumer and log stay open, since they are the caller's. Nothing is committed. The group may have another
        follower from now on.
        """
        self._is_closed = True
        self._state.wake.put(None)
        self._release()

    def _release(self) -> None:
        if self._claim is not None:
            self._claim.release()

    def _closed_already(self) -> ClosedError:
        return ClosedError(f"follower of core {self._core_id}: is closed; follow() again, from the last commit")

    def _in_call_already(self) -> BusyError:
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
