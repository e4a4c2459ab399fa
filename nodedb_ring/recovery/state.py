"""``FollowState``: a follower's position, and what it needs next. A state machine that neither waits nor sleeps.

``owed`` is the next number that the follower has to deliver. Events below it are duplicates.
Events above it wait until the log has filled the hole. So it does not matter in which order, or how often, ring and
log offer an event.

The state is named after what is needed next: ``need.py`` has the table of its transitions. A driver does it and gives
the state machine the answer: ``Follower`` has a synchronous driver and an asynchronous one.

**The last number tried** (``emitted_sequence``) is read before each drain. What was tried by then is in the ring when
the drain begins, or was dropped. A number of that kind which an empty drain does not show is missing.

**The log is asked** for its last number before the first wait, when the producer has gone, and about once a second. A
producer that died between its append and its emit leaves events of which the ring knows nothing.

**Interrupts.** A signal handler may raise between any two bytecodes, and the next call continues from what the fields
say. CPython runs handlers where a function or a turn of a loop begins and after a call into C, so assignments that
belong together stand together, without a call between them. ``batch`` and ``_pieces`` keep events that lie below
``owed`` until the call that delivers them has nothing left that could raise.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, final

from ..batch._event_batch import EventBatch
from ..errors import GapError
from ..log import EventLog, LiveEventLog
from .joining import read_batches
from .need import Need
from .pieces import next_piece

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
    max_events : int
    linger : float
        Seconds for which a batch that is not full is filled; may be infinite.
    outlives_producer : bool

    Attributes
    ----------
    owed : int
        All lower numbers were delivered, are in ``batch`` or gathered for it, or were passed over.
    undelivered : int
        The first number that the caller has not got. Other threads ask for it: it never falls, at no moment.
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
        "_fill_until",
        "_first_need",
        "_last_asked",
        "_linger",
        "_log",
        "_max_events",
        "_need",
        "_pieces",
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
        "outlives_producer",
        "owed",
        "replay_upto",
        "replayed",
        "seconds",
        "undelivered",
        "wake",
    )

    def __init__(
        self,
        consumer: EventConsumer | None,
        log: EventLog,
        *,
        core_id: int,
        owed: int,
        wants_heartbeats: bool,
        max_events: int = 1024,
        linger: float = 0.0,
        outlives_producer: bool = False,
    ) -> None:
        self._consumer = consumer
        self._log = log
        self._core_id = core_id
        self._wants_heartbeats = wants_heartbeats
        self._max_events = max_events
        self._linger = linger
        self.outlives_producer: Final = outlives_producer
        self.owed: int = owed
        self.undelivered: int = owed
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
        self._first_need = _LAST if consumer is None else _DRAIN
        self._need = self._first_need
        # What is left of a drained batch: it begins after a hole, or was not examined yet. NOTHING: nothing is left.
        self._drained = NOTHING
        # The same of a batch that the log returned, and the iterator of such batches; None: begin to read at `owed`.
        self._read = NOTHING
        self._reading: Iterator[EventBatch] | None = None
        # What is gathered while lingering, and until when; None: nothing is.
        self._pieces: list[EventBatch] = []
        self._fill_until: float | None = None
        # The consumer's emitted_sequence, read before the last drain.
        self._tried: int | None = None
        self._producer_gone = False
        # Something was missing since the ring last had no hole.
        self._catching_up = False
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
        if self._pieces:
            # An exception ended the call that gathered them.
            self._join()
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
        count = self.owed - self.undelivered
        # No signal handler runs from here until the caller has it.
        self.delivered += count
        if self._need is _READ:
            self.replayed += count
        self.undelivered = self.owed
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
            self._catching_up = False  # the path at the cost of the drain
            self.owed += count
            self.batch = batch
            if not self._linger:
                return _RETURN
            self._gather()
        elif len(batch):
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
        self.owed = self.undelivered = gap.last + 1

    @property
    def room(self) -> int:
        """Events that the batch of this call may still take."""
        return self._max_events - (self.owed - self.undelivered)

    # ---- pieces of a batch -----------------------------------------------------------------------------------------

    def _take_drained(self) -> None:
        self._drained, missing_upto = self._take_piece(self._drained)
        if missing_upto is not None:
            self._replay_to(missing_upto)

    def _take_read(self) -> None:
        self._read, missing_upto = self._take_piece(self._read)
        if missing_upto is not None:
            if self._pieces:
                self._join()
                return
            # Neither ring nor log has it. Raised at each call, until the gap is skipped.
            raise self._gap(missing_upto)

    def _gather(self) -> None:
        """While lingering, puts ``batch`` to the pieces, unless it is to be returned with them."""
        batch = self.batch
        if batch is None or not self._linger:
            return
        now = time.monotonic()
        if self._fill_until is None:
            self._fill_until = now + self._linger
        pieces = [*self._pieces, batch]
        self._pieces = pieces
        self.batch = None
        if self.room == 0 or now >= self._fill_until:
            self._join()

    def _join(self) -> None:
        """Makes the pieces ``batch``."""
        pieces = self._pieces
        batch = pieces[0] if len(pieces) == 1 else EventBatch.concat(pieces)
        self._fill_until = None
        self._pieces = []
        self.batch = batch

    def _take_piece(self, batch: EventBatch) -> tuple[EventBatch, int | None]:
        """Takes what comes next of a batch into ``batch``; its rest, and the last number missing before it, if any is.

        Drops duplicates, and passes over heartbeats unless they are wanted.
        """
        try:
            count = batch._block.run_from(self.owed)  # pyright: ignore[reportPrivateUsage]
        except OverflowError:
            count = 0
        if 0 < count <= self.room:
            self.owed += count
            self.batch = batch
            self._gather()
            return NOTHING, None
        piece = next_piece(batch, self.owed, self.room, wants_heartbeats=self._wants_heartbeats)
        begin, stop = piece.begin, piece.stop
        if begin == len(batch):
            self.duplicates += begin
            return NOTHING, None
        if self._need is _READ:
            self._begin_numbers_at(piece.first)
        if piece.first > self.owed or (piece.is_silent and self._pieces):
            if piece.first == self.owed:
                # What was gathered comes before what is passed over.
                self._join()
            rest = batch[begin:]
            self.duplicates += begin
            return rest, piece.first - 1 if piece.first > self.owed else None
        taken, rest = batch[begin:stop], batch[stop:] if stop < len(batch) else NOTHING
        count = stop - begin
        self.duplicates += begin
        self.owed += count
        if piece.is_silent:
            self.undelivered = self.owed
            self.heartbeats += count
        else:
            self.batch = taken
            self._gather()
        return rest, None

    def _begin_numbers_at(self, first: int) -> None:
        """Where numbering begins if nobody has said so: at 1, by convention, unless ring or log has a 0.

        Called once the log is known to have nothing below `first`.
        """
        if self.owed == 0 and first > 0:
            self.owed = self.undelivered = 1

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
        if not self._producer_gone:
            self._need = _WAIT
        elif self.outlives_producer:
            self._need = _GROW
        elif self._pieces:
            # The next call finds the end.
            self._join()
        else:
            self._need = _RETURN
            self.ended = True

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
            self._reading = iter(read_batches(self._log, self._core_id, self.owed, self.replay_upto, self._max_events))
        # An iterator that raises is at its end: the next call begins to read again.
        reading, self._reading = self._reading, None
        batch = next(reading, None)
        if batch is not None:
            self._read = batch
            self._reading = reading
            return
        self._begin_numbers_at(self.replay_upto + (self._drained is not NOTHING))
        if self.owed <= self.replay_upto:
            if self._pieces:
                self._join()
                return
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
        until = self._deadline
        if self._fill_until is not None and (until is None or self._fill_until < until):
            until = self._fill_until
        if until is None:
            self.seconds = WAIT_SECONDS
        else:
            left = until - time.monotonic()
            if left <= 0:
                if self._pieces:
                    self._join()
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
        self._need = self._first_need
