"""``follow``: a ring and its event log as one stream of batches, without holes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from ..ends.limits import event_count, limit_seconds
from ..log import EventLog
from .follower import Follower

if TYPE_CHECKING:
    from ..ends._consumer import EventConsumer

__all__ = ["Follower", "follow"]


def follow(
    consumer: EventConsumer | None,
    log: EventLog,
    *,
    group: str,
    core_id: int | None = None,
    start: Literal["earliest", "latest"] = "earliest",
    after: int | str | None = None,
    max_events: int = 1024,
    linger: float = 0.0,
    heartbeats: bool = False,
    until: Literal["producer", "closed"] = "producer",
) -> Follower:
    """Every event of a core, once and in order: from the ring, and from the log where the ring dropped some.

    Parameters
    ----------
    consumer : EventConsumer or None
        The ring. None follows the log alone, for instance on another machine.
    log : EventLog
        The log that the producer appends to before it emits.
    group : str
        The consumer group, under whose name the log keeps the watermark.
    core_id : int, optional
        The consumer's core by default.
    start : "earliest" or "latest"
        Where a new group begins: at the first event that the log still has, or after the last event.
    after : int or str, optional
        Begins after this number instead of the group's watermark. 0 begins at the first number, 1. A string is what
        ``follower.token`` was: the log must still have the history of that moment.
    max_events : int, default 1024
        The most events in a batch. Batches that the log has stored are joined, or split.
    linger : float, default 0
        Seconds to wait for a batch to fill once it has an event. 0 returns what there is.
    heartbeats : bool, default False
        Whether heartbeats are delivered. They move the position in any case.
    until : "producer" or "closed"
        When it ends: once the ring's producer has gone and there is no more, or when it is closed. Then it reads from
        the log while there is no producer, and goes on with the ring's next one.

    Raises
    ------
    ValueError, TypeError
        No `core_id` and no consumer to take it from, another `start` or `until`, a count below 1, no token.
    LogError
        The log cannot be read. Or log and ring end before `after`, or before the group's watermark. Or the log is not
        the one, or has not the history, in which `after` or the watermark was made.
    RoleTaken
        The group has a follower of this core already. The message says who, and since when.
    """
    if core_id is None:
        if consumer is None:
            raise TypeError("core_id: must be given where there is no consumer to take it from")
        core_id = consumer.core_id
    if start not in ("earliest", "latest"):
        raise ValueError(f"start {start!r}: must be 'earliest' or 'latest'")
    if until not in ("producer", "closed"):
        raise ValueError(f"until {until!r}: must be 'producer' or 'closed'")
    max_events = event_count(max_events)
    longest = limit_seconds(linger, "linger")
    if after is not None and not isinstance(after, str) and not 0 <= after < 2**64 - 1:
        raise ValueError(f"after {after}: must be in 0 .. {2**64 - 2}")
    return Follower(
        consumer,
        log,
        group=group,
        core_id=core_id,
        start=start,
        after=after,
        max_events=max_events,
        linger=math.inf if longest is None else longest,
        heartbeats=heartbeats,
        outlives_producer=until == "closed",
    )
