"""``FollowState``: a follower's position, and what it needs next. A state machine that neither waits nor sleeps.

``owed`` is the next number that the follower has to deliver. Events below it are duplicates.
Events above it wait until the log has filled the hole. So it does not matter in which order, or how often, ring and
log offer an event.

The state is named after what is needed next. A driver does it and gives the state machine the answer: ``Follower`` has
a synchronous driver and an asynchronous one.

======== ================================= ======================================== ===================================
Need     The driver                        Answer                                   Next
======== ================================= ======================================== ===================================
DRAIN    drains the ring without waiting   events from ``owed`` on                  RETURN with them, then DRAIN
                                           events after a hole                      READ, up to the hole's end
                                           nothing, and a number was dropped        READ, up to the last number tried
                                           nothing, and the log is to be asked      LAST
                                           nothing                                  WAIT
READ     reads the log's next batch        events from ``owed`` on                  RETURN with them, then READ
                                           events after a hole, or the end of the   ``GapError``, then READ
                                           log before the hole's end
                                           the hole is filled                       DRAIN
LAST     asks the log for its last number  ``owed`` or above                        READ, up to that number
                                           less, and the producer has gone          RETURN with nothing: the end
                                           less                                     WAIT
WAIT     drains the ring, waiting at most  as for DRAIN
         ``seconds`` for an event
         when the call's time is over      --                                       RETURN with nothing
RETURN   returns to its caller
======== ================================= ======================================== ===================================

Without a ring, DRAIN does not occur: a call begins with LAST. In place of WAIT there is GROW: the driver waits at most
``seconds`` for the log to have more, and LAST follows.

**The last number tried** (``emitted_sequence``) is read before each drain. What was tried by then is in the ring when
the drain begins, or was dropped. A number of that kind which an empty drain does not show is missing.

**The log is asked** for its last number before the first wait, when the producer has gone, and about once a second. A
producer that died between its append and its emit leaves events of which the ring knows nothing.

**Interrupts.** A signal handler may raise between any two bytecodes, and the next call continues from what the fields
say. CPython runs handlers where a function or a turn of a loop begins and after a call into C, so assignments that
belong together stand together, without a call between them. ``batch`` keeps events that lie below ``owed`` until the
call that delivers them has nothing left that could raise.
"""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, final

import numpy as np

from ..batch.event_batch import EventBatch
from ..batch.schema import WriteOp
from ..errors import GapError
from ..log import EventLog, LiveEventLog

if TYPE_CHECKING:
    from ..ends._consumer import EventConsumer

__all__ = ["NOTHING", "FollowState", "Need"]

WAIT_SECONDS: Final = 0.1
"""The longest single wait. The ring wakes no waiter for a dropped event, nor for one that only the log has."""
LAST_SECONDS: Final = 1.0
"""Seconds between two questions for the log's last number while the ring is empty."""
POLL_SECONDS: Final = 0.02
"""Seconds between two questions to a log that is not a ``LiveEventLog``, where there is no ring."""
NOTHING: Final = EventBatch.from_events([])
"""Stands for "no batch"; compared by identity."""


class Need(enum.Enum):
    """What a follower needs next; the module's table has the transitions."""

    DRAIN = "drain"
    WAIT = "wait"
    READ = "read"
    LAST = "last"
    GROW = "grow"
    RETURN = "return"


# The members as globals, for the path without holes: an attribute of an Enum costs a lookup in its metaclass.
_DRAIN: Final = Need.DRAIN
_WAIT: Final = Need.WAIT
_READ: Final = Need.READ
_LAST: Final = Need.LAST
_GROW: Final = Need.GROW
_RETURN: Final = Need.RETURN


@final
class FollowState:
    """The state machine of one follower. See the module for its states.

    Parameters
    ----------
    consumer : EventConsumer or None
    log : EventLog
    core_id : int
    owed : int
        The first number to deliver; 0 also where nobody knows at which number the core begins.
    wants_heartbeats : bool

    Attributes
    ----------
    owed : int
        All lower numbers were delivered, are in ``batch``, or were passed over.
    batch : EventBatch or None
        What the next return delivers.
    seconds : float
        For which WAIT and GROW wait.
    ended : bool
        Whether the last call found the end.
    delivered, replayed, gaps, episodes, duplicates, heartbeats : int
        As ``FollowStats`` says.

    Thread safety
    -------------
    One thread at a time. Its attributes can be read from any thread.
    """

    __slots__ = (
        "_catching_up",
        "_consumer",
        "_core_id",
        "_deadline",
        "_drained",
        "_first_need",
        "_last_asked",
        "_log",
        "_need",
        "_producer_gone",
        "_read",
        "_reading",
        "_tried",
        "_wants_heartbeats",
        "batch",
        "delivered",
        "duplicates",
        "ended",
        "episodes",
        "gaps",
        "heartbeats",
        "owed",
        "replay_upto",
        "replayed",
        "seconds",
        "wake",
    )

    def __init__(
        self, consumer: EventConsumer | None, log: EventLog, *, core_id: int, owed: int, wants_heartbeats: bool
    ) -> None:
        self._consumer = consumer
        self._log = log
        self._core_id = core_id
        self._wants_heartbeats = wants_heartbeats
        self.owed: int = owed
        self.batch: EventBatch | None = None
        self.seconds: float = 0.0
        self.ended: bool = False
        self.delivered: int = 0
        self.replayed: int = 0
        self.gaps: int = 0
        self.episodes: int = 0
        self.duplicates: int = 0
        self.heartbeats: int = 0
        # The last number that the log is to fill in, of the present hole or the last one.
        self.replay_upto: int = -1
        # Ends a wait for a log that cannot wait itself. Not an Event: a signal handler may interrupt the wait while
        # that has the lock which set() takes.
        self.wake: SimpleQueue[None] = SimpleQueue()
        self._deadline: float | None = None
        # What a call needs first.
        self._first_need = _LAST if consumer is None else _DRAIN
        self._need = self._first_need
        # What is left of a drained batch: it begins after a hole, or was not examined yet. NOTHING: nothing is left.
        self._drained = NOTHING
        # The same of a batch that the log returned, and the iterator of such batches; None: begin to read at `owed`.
        self._read = NOTHING
        self._reading: Iterator[EventBatch] | None = None
        # The consumer's emitted_sequence, read before the last drain.
        self._tried: int | None = None
        self._producer_gone = False
        # Something was missing since the ring last had no hole.
        self._catching_up = False
        # When the log was last asked for its last number; None: not yet.
        self._last_asked: float | None = None

    # ---- a call ----------------------------------------------------------------------------------------------------

    def begin(self, deadline: float | None) -> Need:
        """A call for the next batch begins: what it needs. A replay continues, and everything else is asked again.

        Parameters
        ----------
        deadline : float or None
            When the call's time is over, of ``time.monotonic``.

        Raises
        ------
        GapError
            The log lacks what comes next.
        """
        self.ended = False
        self._deadline = deadline
        if self._need is not _READ:
            self._need = self._first_need
            if self._consumer is not None and self.batch is None and self._drained is NOTHING:
                # The usual case, which _next_need would find, too.
                self._tried = self._consumer.emitted_sequence
                return _DRAIN
        return self._next_need()

    def _next_need(self) -> Need:
        while self.batch is None:
            if self._need is _READ:
                if len(self._read):
                    self._take_read()
                elif self.owed <= self.replay_upto:
                    return _READ
                else:
                    self._reading = None
                    self._need = self._first_need
            elif self._drained is not NOTHING:
                self._take_drained()
            elif self._need is _WAIT or self._need is _GROW:
                return self._wait_or_return()
            else:
                if self._consumer is not None:
                    self._tried = self._consumer.emitted_sequence
                return self._need
        return _RETURN

    def deliver(self) -> EventBatch:
        """What a call returns: ``batch``, which is the caller's from now on, or ``NOTHING`` itself."""
        batch = self.batch
        if batch is None:
            return NOTHING
        # At half the cost of len().
        count = batch._block.count  # pyright: ignore[reportPrivateUsage]
        # No signal handler runs from here until the caller has it.
        self.delivered += count
        if self._need is _READ:
            self.replayed += count
        self.batch = None
        return batch

    # ---- answers of the driver -------------------------------------------------------------------------------------

    def drained(self, batch: EventBatch) -> Need:
        """DRAIN and WAIT: what the ring had. Returns what is needed next."""
        try:
            count = batch._block.run_from(self.owed)  # pyright: ignore[reportPrivateUsage]
        except OverflowError:
            # The highest number there is was delivered: what comes are duplicates.
            count = 0
        if count:
            # Nothing is missing: the path at the cost of the drain.
            self._catching_up = False
            self.owed += count
            self.batch = batch
            return _RETURN
        if len(batch):
            self._drained = batch
        else:
            self._check_tail()
        return self._next_need()

    def ask_log(self, need: Need) -> Need:
        """READ, LAST and GROW: asks the log, which may block. Returns what is needed next.

        Raises
        ------
        GapError
            The log lacks what comes next.
        """
        if need is _READ:
            self._read_next()
        elif need is _LAST:
            self._ask_last()
        else:
            self._wait_for_growth()
        return self._next_need()

    def skip(self, gap: GapError) -> None:
        """``Follower.skip``."""
        if gap.core_id != self._core_id or gap.first != self.owed:
            raise ValueError(
                f"gap {gap.first} to {gap.last} of core {gap.core_id}: is not at this follower's position, before"
                f" {self.owed} of core {self._core_id}"
            )
        self.owed = gap.last + 1

    @property
    def undelivered(self) -> int:
        """The first number that the caller has not got."""
        held = self.batch
        return self.owed if held is None else self.owed - len(held)

    # ---- pieces of a batch -----------------------------------------------------------------------------------------

    def _take_drained(self) -> None:
        self._drained, missing_upto = self._take_piece(self._drained)
        if missing_upto is not None:
            self._replay_to(missing_upto)

    def _take_read(self) -> None:
        self._read, missing_upto = self._take_piece(self._read)
        if missing_upto is not None:
            # Neither ring nor log has it. Raised at each call, until the gap is skipped.
            raise self._gap(missing_upto)

    def _take_piece(self, batch: EventBatch) -> tuple[EventBatch, int | None]:
        """Takes what comes next of a batch into ``batch``; its rest, and the last number missing before it, if any is.

        Drops duplicates, and passes over heartbeats unless they are wanted.
        """
        numbers = batch.sequence
        fresh = numbers >= self.owed
        begin = int(fresh.argmax()) if fresh.any() else len(batch)
        if begin == len(batch):
            self.duplicates += begin
            return NOTHING, None
        first = int(numbers[begin])
        if self._need is _READ:
            self._begin_numbers_at(first)
        if first > self.owed:
            rest = batch[begin:]
            self.duplicates += begin
            return rest, first - 1
        broken = np.flatnonzero(numbers[begin:] != np.arange(len(batch) - begin, dtype=np.uint64) + np.uint64(first))
        stop = begin + int(broken[0]) if broken.size else len(batch)
        is_silent = False
        if not self._wants_heartbeats:
            # Either the heartbeats that it begins with, or what comes before the first.
            silent = batch.op[begin:stop] == WriteOp.HEARTBEAT
            is_silent = bool(silent[0])
            others = np.flatnonzero(silent != is_silent)
            stop = begin + int(others[0]) if others.size else stop
        piece, rest = batch[begin:stop], batch[stop:] if stop < len(batch) else NOTHING
        self.duplicates += begin
        self.owed += stop - begin
        if is_silent:
            self.heartbeats += stop - begin
        else:
            self.batch = piece
        return rest, None

    def _begin_numbers_at(self, first: int) -> None:
        """Where numbering begins if nobody has said so: at 1, by convention, unless ring or log has a 0.

        Called once the log is known to have nothing below `first`.
        """
        if self.owed == 0 and first > 0:
            self.owed = 1

    # ---- what is missing -------------------------------------------------------------------------------------------

    def _check_tail(self) -> None:
        """After an empty drain: whether a number was tried that the ring does not have."""
        consumer = self._consumer
        if consumer is None:
            return
        tried = self._tried
        if tried is not None and tried >= self.owed:
            self._replay_to(tried)
            return
        is_gone = consumer.is_producer_disconnected
        if is_gone:
            tried = consumer.emitted_sequence
            if tried is not None and tried >= self.owed:
                # Tried after the drain began and before the producer went: the next drain has it, or finds it dropped.
                self._need = _DRAIN
                return
        self._producer_gone = is_gone
        if is_gone or self._last_asked is None or time.monotonic() - self._last_asked >= LAST_SECONDS:
            self._need = _LAST
        else:
            self._nothing_missing()

    def _ask_last(self) -> None:
        last = self._log.last_sequence(self._core_id)
        self._last_asked = time.monotonic()
        if last is not None and last >= self.owed:
            self._replay_to(last)
        else:
            self._nothing_missing()

    def _nothing_missing(self) -> None:
        if self._consumer is None:
            self._need = _GROW
            return
        self._catching_up = False
        if self._producer_gone:
            self._need = _RETURN
            self.ended = True
        else:
            self._need = _WAIT

    def _replay_to(self, upto: int) -> None:
        """Has the log deliver what is missing, `upto` included, before anything else."""
        if upto > 0 or self._drained is NOTHING:
            self.gaps += 1
            self.episodes += not self._catching_up
            self._catching_up = True
        # Otherwise the ring begins with 1, and the log is asked for a 0 before it: most often that is not a hole.
        self.replay_upto = upto
        self._need = _READ

    def _read_next(self) -> None:
        if self._reading is None:
            self._reading = iter(self._log.read(self._core_id, self.owed, self.replay_upto))
        # An iterator that raises is at its end: the next call begins to read again.
        reading, self._reading = self._reading, None
        batch = next(reading, None)
        if batch is not None:
            self._read = batch
            self._reading = reading
            return
        self._begin_numbers_at(self.replay_upto + (self._drained is not NOTHING))
        if self.owed <= self.replay_upto:
            raise self._gap(self.replay_upto)

    def _gap(self, last: int) -> GapError:
        first = self.owed
        return GapError(
            f"core {self._core_id}: neither the ring nor the log has {first} to {last}; check why the log lacks them"
            " (was it trimmed, or did something emit without it?), or skip() to continue without them",
            self._core_id,
            first,
            last,
        )

    # ---- waiting ---------------------------------------------------------------------------------------------------

    def _wait_or_return(self) -> Need:
        if self._deadline is None:
            self.seconds = WAIT_SECONDS
        else:
            left = self._deadline - time.monotonic()
            if left <= 0:
                return _RETURN
            self.seconds = min(WAIT_SECONDS, left)
        if self._consumer is not None:
            self._tried = self._consumer.emitted_sequence
            if self._tried is not None and self._tried >= self.owed:
                # Tried since the last drain: a wait would be for what comes after it.
                self._need = _DRAIN
        return self._need

    def _wait_for_growth(self) -> None:
        if isinstance(self._log, LiveEventLog):
            self._log.wait_beyond(self._core_id, self.owed - 1, self.seconds)
        else:
            with contextlib.suppress(Empty):
                self.wake.get(timeout=min(self.seconds, POLL_SECONDS))
        self._need = _LAST
