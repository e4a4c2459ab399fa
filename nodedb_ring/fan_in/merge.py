"""``merge``: the batches of many ends, in turn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..ends.limits import event_count
from ._merger import Merger
from ._wait_set import WaitSet

if TYPE_CHECKING:
    from ..ends._consumer import EventConsumer
    from ..recovery.follow import Follower

__all__ = ["merge"]


def merge(ends: Iterable[EventConsumer | Follower], max_events: int = 1024) -> Merger:
    """The batches of all ends as one stream of ``(core_id, batch)``, ``for`` or ``async for``, until all have ended.

    The order within a core is that of its ring; batches of several cores have no common order. The ends that have
    something take turns, one batch each, so a busy core delays the others by one batch.

    Parameters
    ----------
    ends : iterable of EventConsumer and Follower
        As for ``wait``. They become the thread's that iterates.
    max_events : int, default 1024
        The most events in a batch of a consumer. A follower has its own.

    Raises
    ------
    TypeError, ArgumentError
        As for ``wait``; `max_events` below 1.
    """
    return Merger(WaitSet(ends), event_count(max_events))
