"""The exceptions of this package.

A full ring and an empty one are values, not exceptions; what is here is misuse. Where the standard library has a
type that callers already catch for the same mistake, ours is a child of it too.
"""

from __future__ import annotations


class RingError(Exception):
    """Base of every exception that this package defines."""


class ArgumentError(RingError, ValueError):
    """An argument that no call can take: a time-out that is negative or NaN, a count below 1, a path of no file."""


class CapacityError(RingError, ValueError):
    """A ring of the size asked for cannot be made."""


class FieldError(RingError, ValueError):
    """A value that a field of a write event cannot hold."""


class BatchError(RingError, ValueError):
    """Columns that are not a batch of write events."""


class EventTooLargeError(RingError, ValueError):
    """An event whose payload is larger than the whole arena: it could never be enqueued."""


class ClosedError(RingError, ValueError):
    """An end, a lease or a reservation was used after it was closed."""


class OwnershipError(RingError):
    """An end was used by a thread that does not own it, or bound while a call is in progress."""


class BusyError(OwnershipError):
    """An end was used while another call on it, a waiter or an open reservation, is in progress."""


class ForkError(OwnershipError):
    """An end was used in a process that inherited it by ``fork``, or a lease where nothing of it could be kept."""


class EventLoopError(RingError, RuntimeError):
    """An asynchronous method was awaited where no asyncio event loop runs."""


class RoleTaken(OwnershipError):  # noqa: N818 - the name is the contract's
    """An end of a shared ring was claimed that a live process holds.

    Attributes
    ----------
    pid : int or None
        The process that holds it; None in the moment before it has said so, and where it is in another pid namespace,
        a container's say: there its number, which the message has, is another process's here.
    """

    def __init__(self, message: str, pid: int | None) -> None:
        super().__init__(message)
        self.pid = pid

    def __reduce__(self) -> tuple[type[RoleTaken], tuple[str, int | None]]:
        return type(self), (str(self), self.pid)


class LayoutError(RingError, ValueError):
    """A file is no bus, or one of another version, layout or size, or of before the machine's start."""


class CorruptRingError(RingError):
    """A shared block holds what no ring can: something else wrote to it. The end that found it takes no more calls."""


class CaptureError(RingError):
    """A connection cannot be captured, or a change cannot: then its transaction cannot be committed either."""


class WrongAnswerError(RingError):
    """What was about to be timed does not do what it must: a benchmark has no figure then."""


class LogError(RingError):
    """Base of what an event log raises."""


class LogConflictError(LogError, ValueError):
    """An event was appended whose number is not above the log's last: a second writer, or a number used twice."""


class CorruptLogError(LogError):
    """What a log has stored is not what was appended: its checksum, its size or its rows say so."""


class LogUnavailableError(LogError, ConnectionError):
    """The server of a log cannot be reached, or does not answer in time."""


class GapError(LogError):
    """Events were written that neither the ring nor the log has.

    Attributes
    ----------
    core_id : int
    first, last : int
        The numbers that are missing, both included.
    """

    def __init__(self, message: str, core_id: int, first: int, last: int) -> None:
        super().__init__(message)
        self.core_id = core_id
        self.first = first
        self.last = last

    def __reduce__(self) -> tuple[type[GapError], tuple[str, int, int, int]]:
        return type(self), (str(self), self.core_id, self.first, self.last)
