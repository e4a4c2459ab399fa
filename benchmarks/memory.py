"""How much memory grows while millions of events go through one ring."""

from __future__ import annotations

from .machine import resident_bytes
from .measure import check
from .sample import new_ring, ready_events
from .table import Row

__all__ = ["memory"]

_GROUP = 1024
_MOST_GROWTH_MIB = 1.0


def memory(count: int) -> list[Row]:
    """`count` events, emitted one by one and drained into owned batches; resident memory before and after."""
    producer, consumer = new_ring()
    events = ready_events(_GROUP)
    emit = producer.emit
    taken = 0

    def pass_on(groups: int) -> int:
        passed = 0
        for _ in range(groups):
            for event in events:
                emit(event)
            batch = consumer.drain(_GROUP)
            passed += len(batch)
            check("the last event of a batch", int(batch.sequence[-1]), _GROUP)
        return passed

    # Twice through every slot, so that everything that is allocated once exists.
    taken += pass_on(2 * producer.capacity // _GROUP)
    before = resident_bytes()
    groups = count // _GROUP
    taken += pass_on(groups)
    grown = (resident_bytes() - before) / 2**20
    check("events taken", (taken, producer.stats().dropped), (producer.stats().emitted, 0))
    return [
        Row(
            group="memory",
            what=f"resident memory after {groups * _GROUP / 1e6:.1f} M events, growth",
            value=grown,
            unit="MiB",
            goal=_MOST_GROWTH_MIB,
            beside=f"{before / 2**20:.0f} MiB at the start",
        )
    ]
