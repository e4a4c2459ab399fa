"""The event log: a durable store of all write events, from which a consumer gets those that its ring dropped.

``EventLog`` is the protocol, six methods that any log implements. ``SqliteEventLog`` (``log/sqlite/``) is the embedded
log and ``JetStreamEventLog`` (``log/jetstream/``) the distributed one. ``logged`` (``producer.py``) appends to a log
before it emits; ``encoding.py`` is how either log stores a batch. ``call_lock.py`` and ``nested_waits.py`` are what
both need for calls of signal handlers.

Not here: reading what was dropped (``recovery/``). Log messages go to Python's logger (``ends/logger.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol, runtime_checkable

from ..batch.event_batch import EventBatch

__all__ = ["MAX_BATCH_EVENTS", "EventLog", "LiveEventLog"]

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
        """Stores that number, durably. A lower one than before is stored too, so that a group can start again."""
        ...


@runtime_checkable
class LiveEventLog(EventLog, Protocol):
    """A log that can wait until something is appended. Other logs are polled."""

    def wait_beyond(self, core_id: int, sequence: int, timeout: float) -> bool:
        """Waits until ``last_sequence(core_id)`` is above `sequence`, at most `timeout` seconds; True if it is."""
        ...
