"""``merge``: the batches of many ends, in turn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, overload

from ..ends.limits import event_count
from ..errors import ArgumentError
from ._merger import Merger
from ._wait_set import WaitSet
from .commits import CommitMerger

if TYPE_CHECKING:
    from ..ends._consumer import EventConsumer
    from ..recovery.follower import Follower

__all__ = ["merge"]


@overload
def merge(ends: Iterable[EventConsumer | Follower], max_events: int = 1024, *, by: None = None) -> Merger: ...
@overload
def merge(ends: Iterable[Follower], max_events: int = 1024, *, by: Literal["lsn"]) -> CommitMerger: ...
def merge(
    ends: Iterable[EventConsumer | Follower], max_events: int = 1024, *, by: Literal["lsn"] | None = None
) -> Merger | CommitMerger:
    """The batches of all ends as one stream of ``(core_id, batch)``, ``for`` or ``async for``, until all have ended.

    The order within a core is that of its ring; batches of several cores have no common order. The ends that have
    something take turns, one batch each, so a busy core delays the others by one batch.

    With ``by="lsn"`` it yields whole commits in the order of their numbers, which captures of one database give to the
    events of all their cores: pass followers of all of them. The core that has the number that is due has its turn, and
    the others wait.

    Parameters
    ----------
    ends : iterable of EventConsumer and Follower
        As for ``wait``. They become the thread's that iterates.
    max_events : int, default 1024
        The most events in a batch of a consumer. A follower has its own. With ``by="lsn"`` the most in a batch of
        several commits.
    by : "lsn", optional
        The order of the batches: that of the commits of a captured database, whose log is a `SqliteEventLog`.

    Raises
    ------
    TypeError, ArgumentError
        As for ``wait``; `max_events` below 1. With ``by="lsn"``: an end that is no follower, two logs, or two
        followers of one core.
    LogError
        With ``by="lsn"``: a log that has no commit numbers.
    """
    if by is not None:
        if by != "lsn":
            raise ArgumentError(f"by {by!r}: must be 'lsn', or left out")
        return CommitMerger(ends, event_count(max_events))
    return Merger(WaitSet(ends), event_count(max_events))
