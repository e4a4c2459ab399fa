"""The event log: a durable store of all write events, from which a consumer gets those that its ring dropped.

``EventLog`` is the protocol, six methods that any log implements; five more protocols say what a log may have besides.
``SqliteEventLog`` (``log/sqlite/``) is the embedded
log and ``JetStreamEventLog`` (``log/jetstream/``) the distributed one. ``logged`` (``producer.py``) appends to a log
before it emits; ``encoding.py`` is how either log stores a batch. ``call_lock.py`` and ``nested_waits.py`` are what
both need for calls of signal handlers.

Not here: reading what was dropped (``recovery/``). Log messages go to Python's logger (``ends/logger.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol, runtime_checkable

from ..batch._event_batch import EventBatch

__all__ = [
    "MAX_BATCH_EVENTS",
    "CommitNumbers",
    "EventLog",
    "ExclusiveEventLog",
    "GroupClaim",
    "IdentifiedEventLog",
    "JoiningEventLog",
    "LiveEventLog",
    "NumberedEventLog",
    "StoredCommit",
]

MAX_BATCH_EVENTS: Final = 65_536
"""The most events in a batch that a log returns."""


@runtime_checkable
class EventLog(Protocol):
    """A durable log of write events, by core. The sequence numbers of a core only rise.

    Thread safety
    -------------
    Methods may be called from any thread. Each log says whether several calls run at once.
    """

    def append(self, core_id: int, batch: EventBatch) -> None:
        """Stores a batch, all or nothing; durable when it returns.

        Its numbers rise strictly, and lie above all that were appended before. A number that is left out is a
        ``GapError`` for followers. An empty batch does nothing.

        Raises
        ------
        LogConflictError
            A number is not above the last one: another writer has appended, or a number was used twice.
        """
        ...

    def read(self, core_id: int, first_sequence: int, last_sequence: int) -> Iterator[EventBatch]:
        """What the log has from `first_sequence` to `last_sequence`, both included, in order.

        A batch has at most `MAX_BATCH_EVENTS` events. Numbers that were never appended, or were trimmed, are left out.
        The iterator may be dropped at any time.

        Raises
        ------
        CorruptLogError
            A stored batch is damaged. The message names the core and the numbers.
        """
        ...

    def last_sequence(self, core_id: int) -> int | None:
        """The highest number ever appended, trimmed or not; None before the first."""
        ...

    def trim(self, core_id: int, upto: int) -> None:
        """Deletes batches, as they were appended, whose numbers are all `upto` or less."""
        ...

    def load_watermark(self, group: str, core_id: int) -> int | None:
        """The number up to which a consumer group has handled a core's events; None for a new group."""
        ...

    def save_watermark(self, group: str, core_id: int, sequence: int) -> None:
        """Stores that number, durably.

        A follower never saves a lower one than before. Our logs refuse it, unless they are called with ``rewind=True``,
        so that a group can start again.
        """
        ...


@runtime_checkable
class LiveEventLog(EventLog, Protocol):
    """A log that can wait until something is appended. Other logs are polled."""

    def wait_beyond(self, core_id: int, sequence: int, timeout: float) -> bool:
        """Waits until ``last_sequence(core_id)`` is above `sequence`, at most `timeout` seconds; True if it is."""
        ...


@runtime_checkable
class JoiningEventLog(EventLog, Protocol):
    """A log that joins stored batches itself. Those of other logs are read one by one, and joined by the follower."""

    def read_joined(
        self, core_id: int, first_sequence: int, last_sequence: int, max_events: int
    ) -> Iterator[EventBatch]:
        """As ``EventLog.read``, in batches of `max_events` and a last one. What is intact comes before damage."""
        ...


@runtime_checkable
class IdentifiedEventLog(EventLog, Protocol):
    """A log that knows whether it is still the one, with the same history, in which somebody stood at a position."""

    def token(self, core_id: int, sequence: int) -> str:
        """The position after `sequence` (-1: before the first number) in this log, as a short string."""
        ...

    def sequence_of(self, core_id: int, token: str) -> int:
        """The `sequence` of a token.

        Raises
        ------
        LogError
            The log has not the history in which the token was made. The message says what differs.
        ArgumentError
            It is no token.
        """
        ...

    def load_token(self, group: str, core_id: int) -> str | None:
        """The watermark of a group as a token of the moment when it was saved; None if nothing more is known of it."""
        ...


class GroupClaim(Protocol):
    """That one follower follows a core for a group, and no other does."""

    def check(self) -> None:
        """Asked before each commit, without a wait.

        Raises
        ------
        RoleTaken
            Somebody else has taken it over, because its holder could not be reached for long.
        """
        ...

    def release(self) -> None:
        """Lets others follow. May be repeated, and called from any thread, a signal handler or a finalizer."""
        ...


@runtime_checkable
class ExclusiveEventLog(EventLog, Protocol):
    """A log in which a group has one follower at a time per core. With another log, see to that yourself."""

    def claim_group(self, group: str, core_id: int) -> GroupClaim | None:
        """Claims a core for a group, at once if its last holder has died; None if nothing could be saved anyway.

        Raises
        ------
        RoleTaken
            Somebody else holds it. The message says who, and since when.
        """
        ...


class StoredCommit(NamedTuple):
    """What a log has of a commit in one core.

    Attributes
    ----------
    number : int
        The ``lsn`` of its events; 0 where no capture has stored them, and their ``lsn`` is what somebody chose.
    last_sequence : int
        The last number of the commit; where `number` is 0, of the stored batch.
    """

    number: int
    last_sequence: int


class CommitNumbers(Protocol):
    """The numbers of a database's commits, which captures give: contiguous over all cores of the log."""

    def last(self) -> int:
        """The highest number that was given, trimmed or not; 0 before the first."""
        ...

    def after(self, core_id: int, sequence: int) -> StoredCommit | None:
        """The commit of the first event of a core above `sequence`; None if the log has no such event."""
        ...

    def before(self, core_id: int, sequence: int) -> int:
        """The number of the commit that the event `sequence` is of, be it trimmed; 0 if it has none."""
        ...


@runtime_checkable
class NumberedEventLog(EventLog, Protocol):
    """A log whose events have commit numbers, as those of captured databases do."""

    @property
    def commits(self) -> CommitNumbers:
        """The numbers."""
        ...

    @property
    def log_id(self) -> str:
        """Tells this log from any other: the numbers of one log are compared with each other alone."""
        ...
