"""What the two ends count: frozen records, each a snapshot."""

from __future__ import annotations

import dataclasses

from ..core.backpressure import PressureState

__all__ = ["ConsumerStats", "FollowStats", "ProducerStats", "RingStats"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProducerStats:
    """The accounts of one producer, ``emitted + dropped`` being every attempt it made.

    Attributes
    ----------
    emitted : int
        Events enqueued.
    dropped : int
        Attempts refused: ``dropped_full + dropped_disconnected``. A retry counts again.
    dropped_full, dropped_disconnected : int
        Refused because the ring was full, and because the consumer had gone.
    first_dropped_sequence, last_dropped_sequence : int or None
        Sequence numbers of the first and the latest refused attempt.
    emitted_sequence : int or None
        The highest sequence number tried, enqueued or not; None before the first attempt.
    normal_transitions, throttle_transitions, suspend_transitions : int
        How often each pressure state was entered.
    slots_in_use, bytes_in_use : int
        Slots and bytes of the arena that are not free now.
    slots_high_water, bytes_high_water : int
        The most that were in use after any publication.
    high_water_mark : int
        ``slots_high_water`` and ``bytes_high_water`` as utilization: whole percent, the fuller of the two.
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
    """The accounts of one consumer.

    Attributes
    ----------
    received : int
        Events taken out of the ring, leased ones included.
    batches : int
        Drains and leases that were not empty.
    held : int
        Rows that leases hold now.
    redelivered : int
        On a shared bus, events that a successor got again: the last consumer had taken them and not given them back.
    handed_out : int
        Both: ``received`` alone falls back where a successor begins.
    """

    received: int
    batches: int
    held: int
    redelivered: int

    @property
    def handed_out(self) -> int:
        """Events taken out of the ring, each redelivered one once more: never falls back."""
        return self.received + self.redelivered


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RingStats:
    """One core's ring of a shared bus, as any process sees it.

    Attributes
    ----------
    core_id : int
    pressure_state : PressureState
    utilization : int
        Whole percent in use, the fuller of slots and arena.
    producer : ProducerStats
    consumer : ConsumerStats
    producer_pid, consumer_pid : int or None
        The processes that hold the two ends now; None where no live process does.
    producer_is_elsewhere, consumer_is_elsewhere : bool
        That process is in another pid namespace, a container's say: here its pid is nobody's, or another process's.
    producer_claims, consumer_claims : int
        How often each end was claimed.
    lag : int
        Events that wait: enqueued, and not taken by the consumer. What leases hold has been taken and is not counted,
        until its consumer dies and a successor is to get it again. What was dropped never was in the ring.
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
        # The producer's count is read first, and the consumer goes on meanwhile.
        return max(0, self.producer.emitted - self.consumer.received)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FollowStats:
    """The accounts of one follower.

    Attributes
    ----------
    delivered : int
        Events handed out.
    replayed : int
        Of those, events that came from the log.
    gaps : int
        Holes that the log was asked to fill, the one before the ring's first event and the silent tail included.
    episodes : int
        Times that it turned from the ring to the log.
    duplicates : int
        Events that ring or log offered again, and that were dropped.
    heartbeats : int
        Heartbeats passed over.
    position : int or None
        The last number handed out or passed over; None before the first.
    lag : int
        Numbers between that and the highest one known to be tried.
    """

    delivered: int
    replayed: int
    gaps: int
    episodes: int
    duplicates: int
    heartbeats: int
    position: int | None
    lag: int
