"""The exceptions of this package.

A full ring and an empty one are values, not exceptions; what is here is misuse. Where the standard library has a
type that callers already catch for the same mistake, ours is a child of it too.
"""


class RingError(Exception):
    """Base of every exception that this package defines."""


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
    """An end was used in a process that inherited it by ``fork``."""


class CaptureError(RingError):
    """A connection cannot be captured, or a change cannot: then its transaction cannot be committed either."""
