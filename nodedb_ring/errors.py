"""The exceptions of this package.

A full or empty ring is reported by a return value, not by an exception. If the standard library has an exception for
the same mistake, ours derives from it too, so that code which catches that type still works.
"""

from __future__ import annotations


class RingError(Exception):
    """Base of every exception that this package defines."""


class ArgumentError(RingError, ValueError):
    """An invalid argument: a negative or NaN timeout, a count below 1, a path that is not a file."""


class CapacityError(RingError, ValueError):
    """A ring of the requested size cannot be created."""


class FieldError(RingError, ValueError):
    """A value that a field of a write event cannot hold."""


class BatchError(RingError, ValueError):
    """Columns that do not form a valid batch of write events."""


class RowError(RingError, ValueError):
    """A row value that is no map of its schema's columns, a schema that is none, or columns that form no row values.

    Attributes
    ----------
    position : int or None
        Of the event in its batch, from 0; of the row where rows are encoded. None where it is about no single one.
    sequence : int or None
        Of that event.
    column : str or None
        The column that it is about.
    """

    def __init__(
        self, message: str, *, position: int | None = None, sequence: int | None = None, column: str | None = None
    ) -> None:
        super().__init__(message)
        self.position = position
        self.sequence = sequence
        self.column = column

    def __reduce__(self) -> tuple[type[RowError], tuple[str], dict[str, int | str | None]]:
        return type(self), (str(self),), {"position": self.position, "sequence": self.sequence, "column": self.column}


class UnknownColumnError(RowError, KeyError):
    """A column that is not in the schema."""

    def __str__(self) -> str:
        # As a KeyError it would show the message in quotes.
        return Exception.__str__(self)


class EventTooLargeError(RingError, ValueError):
    """An event with a payload larger than the whole arena, which could never be enqueued."""


class ClosedError(RingError, ValueError):
    """An end, a lease or a reservation was used after it was closed."""


class OwnershipError(RingError):
    """An end was used by a thread that does not own it, or bound while a call is in progress."""


class BusyError(OwnershipError):
    """An end was used while another call on it, a waiter or an open reservation, is in progress."""


class ForkError(OwnershipError):
    """An end was used in a process that inherited it by ``fork``, or a lease could not be copied before the fork."""


class EventLoopError(RingError, RuntimeError):
    """An asynchronous method was awaited without a running asyncio event loop."""


class RoleTaken(OwnershipError):  # noqa: N818 - the name is the contract's
    """A live process already holds the end of a shared ring that was to be claimed.

    Attributes
    ----------
    pid : int or None
        The process that holds the end. None if it has not stored its pid yet, or if it is in another pid namespace, for
        example in a container. In that case the message has its number there, which may be another process here.
    """

    def __init__(self, message: str, pid: int | None) -> None:
        super().__init__(message)
        self.pid = pid

    def __reduce__(self) -> tuple[type[RoleTaken], tuple[str, int | None]]:
        return type(self), (str(self), self.pid)


class LayoutError(RingError, ValueError):
    """A file is not a bus, or is a bus of another version, layout or size, or from before the machine's last start."""


class CorruptRingError(RingError):
    """A shared block is invalid, because something else wrote to it. The end that found it accepts no more calls."""


class CaptureError(RingError):
    """A connection cannot be captured, or a change cannot, in which case its transaction cannot be committed."""


class WrongAnswerError(RingError):
    """A benchmark produced a wrong answer, so it reports no figure."""


class LogError(RingError):
    """Base of the exceptions of event logs."""


class LogConflictError(LogError, ValueError):
    """An appended event's number is not above the log's last one: a second writer, or a number used twice."""


class CorruptLogError(LogError):
    """A stored batch differs from the appended one, according to its checksum, its size or its rows."""


class LogUnavailableError(LogError, ConnectionError):
    """The log's server cannot be reached, or does not answer in time."""


class GapError(LogError):
    """Neither the ring nor the log has events that were written.

    Attributes
    ----------
    core_id : int
    first, last : int
        The first and the last missing sequence number.
    """

    def __init__(self, message: str, core_id: int, first: int, last: int) -> None:
        super().__init__(message)
        self.core_id = core_id
        self.first = first
        self.last = last

    def __reduce__(self) -> tuple[type[GapError], tuple[str, int, int, int]]:
        return type(self), (str(self), self.core_id, self.first, self.last)
