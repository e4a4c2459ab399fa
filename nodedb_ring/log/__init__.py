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
"""Events that a log hands out at once, at most."""


@runtime_checkable
class EventLog(Protocol):
    """A durable log of write events, by core; the sequence numbers of a core only rise.

    Thread safety
    -------------
    Methods may be called from any thread, one at a time or several, as the log's own page says.
    """

    def append(self, core_id: int, batch: EventBatch) -> None:
        """Stores a batch, all or nothing; durable when it returns.

        Its numbers rise strictly, and lie above all that were appended before. A number that is left out is a hole for
        those who follow: a ``GapError``. An empty batch does nothing.

        Raises
        ------
        LogConflictError
            A number that is not above the last one: another writer appended, or a number was used twice.
        """
        ...

    def read(self, core_id: int, first_sequence: int, last_sequence: int) -> Iterator[EventBatch]:
        """What the log has from `first_sequence` to `last_sequence`, both included, in order.

        A batch has at most `MAX_BATCH_EVENTS` events. What was never appended, or was trimmed, does not come. The
        iterator may be dropped at any moment.

        Raises
        ------
        CorruptLogError
            What is stored is not what was appended: names the core and the numbers.
        """
        ...

    def last_sequence(self, core_id: int) -> int | None:
        """The highest number ever appended, trimmed or not; None before the first."""
        ...

    def trim(self, core_id: int, upto: int) -> None:
        """Forgets what has a number of `upto` or less, in whole batches as they were appended."""
        ...

    def load_watermark(self, group: str, core_id: int) -> int | None:
        """The number up to which a consumer group has handled a core's events; None for a group that is new."""
        ...

    def save_watermark(self, group: str, core_id: int, sequence: int) -> None:
        """Stores that number, durably. A lower one than before is stored too: it is how a group starts again."""
        ...


@runtime_checkable
class LiveEventLog(EventLog, Protocol):
    """A log that can tell when something is appended; one that cannot is asked now and then."""

    def wait_beyond(self, core_id: int, sequence: int, timeout: float) -> bool:
        """Waits until ``last_sequence(core_id)`` is above `sequence`, at most `timeout` seconds; True if it is."""
        ...
