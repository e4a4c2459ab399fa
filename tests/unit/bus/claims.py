"""Claims of the ends of a shared ring, made here or in another process."""

from __future__ import annotations

import pytest

from nodedb_ring import EventBus, EventConsumer, EventProducer, RoleTaken
from tests.unit.shared_buses import Held, claim_consumer, claim_producer, close_consumer, close_producer

End = EventProducer | EventConsumer
ROLES = ["producer", "consumer"]


def claim(bus: EventBus, role: str, core_id: int = 0) -> End:
    return bus.producer(core_id) if role == "producer" else bus.consumer(core_id)


def claim_there(held: Held, role: str, core_id: int = 0) -> None:
    if role == "producer":
        claim_producer(held, core_id)
    else:
        claim_consumer(held, core_id)


def close_there(held: Held, role: str) -> None:
    if role == "producer":
        close_producer(held)
    else:
        close_consumer(held)


def pid_of(bus: EventBus, role: str) -> int | None:
    [stats] = bus.stats()
    return stats.producer_pid if role == "producer" else stats.consumer_pid


def claims_of(bus: EventBus, role: str) -> int:
    [stats] = bus.stats()
    return stats.producer_claims if role == "producer" else stats.consumer_claims


def assert_taken(bus: EventBus, role: str, pid: int) -> None:
    """The end is held: here and in a process of its own a claim is refused, in the holder's name."""
    with pytest.raises(RoleTaken, match=rf"{role}.*\b{pid}\b") as raised:
        claim(bus, role)
    assert raised.value.pid == pid
    assert pid_of(bus, role) == pid
