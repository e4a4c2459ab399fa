"""A ring with a log behind it, and the numbers that its follower delivers."""

from __future__ import annotations

from nodedb_ring import EventConsumer, Follower
from nodedb_ring.log.producer import LoggedProducer, logged
from tests.unit.builders import ring, sequences

from .memory_log import MemoryLog

TOP = 2**64 - 1


def taken(follower: Follower) -> list[list[int]]:
    """The numbers of each batch that comes without a wait."""
    found = []
    while len(each := follower.next_batch(0)):
        numbers = sequences(each)
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        found.append(numbers)
    return found


def flat(follower: Follower) -> list[int]:
    return [number for numbers in taken(follower) for number in numbers]


def logged_ring(capacity: int) -> tuple[LoggedProducer, EventConsumer, MemoryLog]:
    producer, consumer = ring(capacity)
    log = MemoryLog()
    return logged(producer, log), consumer, log
