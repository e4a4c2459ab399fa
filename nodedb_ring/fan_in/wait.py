"""``wait`` and ``wait_async``: which of many ends have something to hand out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, overload

from ..ends.event_loop import check_event_loop
from ..ends.limits import limit_seconds
from ._wait_set import WaitSet
from .asynchronous import until_ready

if TYPE_CHECKING:
    from ..ends._consumer import EventConsumer
    from ..recovery.follower import Follower

__all__ = ["wait", "wait_async"]


@overload
def wait(  # pyright: ignore[reportOverlappingOverload]
    ends: Iterable[EventConsumer], timeout: float | None = None
) -> list[EventConsumer]: ...
@overload
def wait(ends: Iterable[Follower], timeout: float | None = None) -> list[Follower]: ...
@overload
def wait(ends: Iterable[EventConsumer | Follower], timeout: float | None = None) -> list[EventConsumer | Follower]: ...
def wait(ends: Iterable[EventConsumer | Follower], timeout: float | None = None) -> Sequence[EventConsumer | Follower]:
    """The ends that have something to hand out or have ended, waiting until there is one.

    As ``multiprocessing.connection.wait`` does it for connections. It takes nothing: call ``drain()`` or
    ``next_batch(0)`` of each end that it returns. It returns all that are ready, so a busy core hides no other, and it
    returns them again until they are drained. An end that has ended is returned each time: leave it out of the next
    call. The wait releases the GIL and sleeps in the kernel, and answers signals.

    Parameters
    ----------
    ends : iterable of EventConsumer and Follower
        Of private and of shared rings, in any mixture. They become the calling thread's.
    timeout : float or None, default None
        Seconds to wait; 0 does not wait, None waits without a limit.

    Returns
    -------
    list
        In the order of `ends`. Empty when the time is over, and at once if `ends` is empty.

        A consumer is in it if it has events, its producer has gone, or it is closed, in which case its next call is a
        `ClosedError`. A follower is in it if its next call would return a batch or the end, or raise an error.

    Raises
    ------
    TypeError
        Something in `ends` is neither, or `ends` is a single end.
    ArgumentError
        An end is in it twice, or a follower and its own consumer are. A `timeout` that is negative or NaN.
    OwnershipError
        An end is another thread's. The message names it, and no end has changed hands.
    BusyError
        Another call waits on one of them.
    ForkError
        This process inherited one by fork.
    OSError
        No descriptor is left, where it needs some: for more than 128 ends, or on kernels before 5.16.

    Notes
    -----
    On a shared ring it notices the death of the producer within 200 ms, and later with more than about 500 ends: their
    checks take 1 % of a core at most. The rings wake it for an event, and not for a dropped one, nor for one that only
    the log has: followers are asked for those ten times a second. A follower without a ring is asked 50 times a second.
    """
    return WaitSet(ends).wait(timeout)


@overload
async def wait_async(ends: Iterable[EventConsumer], timeout: float | None = None) -> list[EventConsumer]: ...
@overload
async def wait_async(ends: Iterable[Follower], timeout: float | None = None) -> list[Follower]: ...
@overload
async def wait_async(
    ends: Iterable[EventConsumer | Follower], timeout: float | None = None
) -> list[EventConsumer | Follower]: ...
async def wait_async(
    ends: Iterable[EventConsumer | Follower], timeout: float | None = None
) -> Sequence[EventConsumer | Follower]:
    """As ``wait``, for an event loop of asyncio's: ``await`` it. A cancelled wait takes nothing.

    Raises
    ------
    EventLoopError
        It is awaited on another loop, trio's say.
    """
    check_event_loop("wait_async()")
    seconds = limit_seconds(timeout)
    return await until_ready(WaitSet(ends), seconds)
