"""The durable log behind the ring: what a ring may drop, because the log has it.

``EventLog`` is the protocol; ``SqliteEventLog`` (``log/sqlite.py``) the embedded one, ``JetStreamEventLog``
(``log/jetstream.py``) the distributed one. Whoever has a log of their own implements six methods. ``logged``
(``log/producer.py``) writes the log before the ring.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol, runtime_checkable

from ..batch.event_batch import EventBatch

__all__ = ["MAX_BATCH_EVENTS", "EventLog", "LiveEventLog"]

MAX_BATCH_EVENTS: Final = 65_536
"""Maximum number of events per batch that a log returns."""


@runtime_checkable
class EventLog(Protocol):
    """A durable log of write events, by core. The sequence numbers of a core only increase.

    Thread safety
    -------------
    Methods may be called from any thread. Each log says whether several threads may call it at the same time.
    """

    def append(self, core_id: int, batch: EventBatch) -> None:
        """Stores a batch completely or not at all. It is durable when the call returns.

        Its sequence numbers must increase strictly, and be above all numbers appended before. A number that is left out
        is a ``GapError`` for followers. An empty batch does nothing.

        Raises
        ------
        LogConflictError
            A number that is not above the last one: another writer appended, or a number was used twice.
        """
        ...

    def read(self, core_id: int, first_sequence: int, last_sequence: int) -> Iterator[EventBatch]:
        """Yields the events from `first_sequence` to `last_sequence`, both included, in order.

        A batch has at most `MAX_BATCH_EVENTS` events. Events that were never appended, or were trimmed, are omitted.
        The iterator may be abandoned at any time.

        Raises
        ------
        CorruptLogError
            A stored batch differs from the appended one. The message names the core and the numbers.
        """
        ...

    def last_sequence(self, core_id: int) -> int | None:
        """The highest sequence number ever appended, even if it was trimmed; None before the first."""
        ...

    def trim(self, core_id: int, upto: int) -> None:
        """Removes events with numbers up to `upto`, but only whole batches as they were appended."""
        ...

    def load_watermark(self, group: str, core_id: int) -> int | None:
        """The number up to which a consumer group has handled a core's events; None for a new group."""
        ...

    def save_watermark(self, group: str, core_id: int, sequence: int) -> None:
        """Stores that number durably. It may be lower than before, which restarts the group from there."""
        ...


@runtime_checkable
class LiveEventLog(EventLog, Protocol):
    """A log that can wait for an append. Logs without this method are polled."""

    def wait_beyond(self, core_id: int, sequence: int, timeout: float) -> bool:
        """Waits until ``last_sequence(core_id)`` is above `sequence`, at most `timeout` seconds; True if it is."""
        ...
