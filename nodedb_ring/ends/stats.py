"""Statistics of the two ends and of followers, as immutable snapshots."""

from __future__ import annotations

import dataclasses

from ..core.backpressure import PressureState

__all__ = ["ConsumerStats", "FollowStats", "ProducerStats", "RingStats"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProducerStats:
    """Statistics of one producer. ``emitted + dropped`` is the number of events that it tried to emit.

    Attributes
    ----------
    emitted : int
        Events enqueued.
    dropped : int
        Events dropped: ``dropped_full + dropped_disconnected``. A retry counts again.
    dropped_full, dropped_disconnected : int
        Dropped because the ring was full, and because the consumer had closed or died.
    first_dropped_sequence, last_dropped_sequence : int or None
        Sequence numbers of the first and the latest dropped event; None before the first.
    emitted_sequence : int or None
        The highest sequence number tried, dropped events included; None before the first.
    normal_transitions, throttle_transitions, suspend_transitions : int
        How often each pressure state was entered.
    slots_in_use, bytes_in_use : int
        Slots and bytes of the arena in use.
    slots_high_water, bytes_high_water : int
        The maximum in use after any publication.
    high_water_mark : int
        The higher of ``slots_high_water`` and ``bytes_high_water`` as utilization, in whole percent.
    """

    emitted: int
    dropped: int
    dropped_full: int
    dropped_disconnected: int
    first_dropped_sequence: int | None
    last_dropped_sequence: int | None
    emitted_sequence: int | None
    normal_transitions: int
    throttle_transitions: int
    suspend_transitions: int
    slots_in_use: int
    bytes_in_use: int
    slots_high_water: int
    bytes_high_water: int
    high_water_mark: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerStats:
    """Statistics of one consumer.

    Attributes
    ----------
    received : int
        Events taken from the ring, including leased ones.
    batches : int
        Drains and leases that were not empty.
    held : int
        Rows that leases hold now.
    redelivered : int
        On a shared bus, events delivered again to a successor, because the last consumer had not released them.
    handed_out : int
        ``received + redelivered``. ``received`` alone decreases when a successor begins.
    """

    received: int
    batches: int
    held: int
    redelivered: int

    @property
    def handed_out(self) -> int:
        """Events taken from the ring, counting redelivered ones again. Never decreases."""
        return self.received + self.redelivered


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RingStats:
    """Statistics of one ring of a shared bus, available to any process.

    Attributes
    ----------
    core_id : int
    pressure_state : PressureState
    utilization : int
        The higher of slots and arena in use, in whole percent.
    producer : ProducerStats
    consumer : ConsumerStats
    producer_pid, consumer_pid : int or None
        The processes that hold the two ends; None if no live process does.
    producer_is_elsewhere, consumer_is_elsewhere : bool
        The process is in another pid namespace, for example in a container, so its pid has no meaning here.
    producer_claims, consumer_claims : int
        How often each end was claimed.
    lag : int
        Events that wait: enqueued, and not taken by the consumer. Leased events count as taken, until their consumer
        dies and they wait for a successor. Dropped events do not count.
    """

    core_id: int
    pressure_state: PressureState
    utilization: int
    producer: ProducerStats
    consumer: ConsumerStats
    producer_pid: int | None
    consumer_pid: int | None
    producer_is_elsewhere: bool = False
    consumer_is_elsewhere: bool = False
    producer_claims: int
    consumer_claims: int

    @property
    def lag(self) -> int:
        """Events that wait for the consumer."""
        # The producer's count is read first, and the consumer may take events before its own is read.
        return max(0, self.producer.emitted - self.consumer.received)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FollowStats:
    """Statistics of one follower.

    Attributes
    ----------
    delivered : int
        Events delivered.
    replayed : int
        Events delivered that came from the log.
    gaps : int
        Holes for which the log was read, including events before the ring's first one and the silent tail.
    episodes : int
        Times that it switched from the ring to the log.
    duplicates : int
        Events that were read a second time, and discarded.
    heartbeats : int
        Heartbeats skipped.
    position : int or None
        The last sequence number delivered or skipped; None before the first.
    lag : int
        Sequence numbers between ``position`` and the highest one known to be tried.
    """

    delivered: int
    replayed: int
    gaps: int
    episodes: int
    duplicates: int
    heartbeats: int
    position: int | None
    lag: int
