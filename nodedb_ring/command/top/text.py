"""A sample as text that needs no terminal: one JSON object, or aligned lines."""

from __future__ import annotations

import datetime
import json

from ..inspection import aligned, bus_line, bus_object, holder, ring_object
from .watch import AnyRing, BusSample, CorruptRing, RingSample

__all__ = ["as_json", "as_table", "owners", "standing"]


def as_json(sample: BusSample, *, indent: int | None) -> str:
    """One object: that of ``nodedb-ring inspect --json``, and what only several samples tell.

    It has ``time``, ``incarnation``, ``is_linked`` and ``interval_seconds``, which the rates are over, and each ring
    ``lag`` (events), ``emitted_per_second``, ``received_per_second``, ``dropped_per_second`` and ``error``, null in a
    sound one. Of a corrupt ring there is ``core_id`` and ``error`` alone. Rates and interval are null in the first
    sample of a bus.
    """
    document: dict[str, object] = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        **bus_object(sample.bus),
        "incarnation": sample.incarnation,
        "is_linked": sample.is_linked,
        "interval_seconds": sample.seconds,
        "rings": [_ring_object(ring) for ring in sample.rings],
    }
    return json.dumps(document, indent=indent) + "\n"


def _ring_object(ring: AnyRing) -> dict[str, object]:
    if isinstance(ring, CorruptRing):
        return {"core_id": ring.core_id, "error": ring.error}
    rates = ring.rates
    return {
        **ring_object(ring.stats),
        "lag": ring.stats.lag,
        "emitted_per_second": None if rates is None else rates.emitted,
        "received_per_second": None if rates is None else rates.received,
        "dropped_per_second": None if rates is None else rates.dropped,
        "error": None,
    }


def as_table(sample: BusSample) -> str:
    """Which bus, and over how long; a line a core; a line for whatever is wrong."""
    over = "" if sample.seconds is None else f"; rates over {sample.seconds:.2f} s"
    table = [
        [
            "core",
            "pressure",
            "utilization",
            "in/s",
            "out/s",
            "lag",
            "held",
            "dropped",
            "dropped/s",
            "producer",
            "consumer",
        ],
        *(_cells(ring) for ring in sample.rings),
    ]
    notes = "".join(f"{note}\n" for note in standing(sample))
    return f"{bus_line(sample.bus)}{over}\n\n{aligned(table)}{notes}"


def _cells(ring: AnyRing) -> list[str]:
    if isinstance(ring, CorruptRing):
        return [str(ring.core_id), "CORRUPT", *9 * [""]]
    stats, rates = ring.stats, ring.rates
    return [
        str(ring.core_id),
        str(stats.pressure_state),
        f"{stats.utilization} %",
        "-" if rates is None else _per_second(rates.emitted),
        "-" if rates is None else _per_second(rates.received),
        f"{stats.lag:,}",
        f"{stats.consumer.held:,}",
        f"{stats.producer.dropped:,}",
        "-" if rates is None else _per_second(rates.dropped),
        *owners(ring),
    ]


def _per_second(rate: float) -> str:
    # An event now and then is not none.
    return f"{rate:,.2g}" if 0 < rate < 10 else f"{rate:,.0f}"


def owners(ring: RingSample) -> tuple[str, str]:
    """Who holds the two ends: a process, ``gone`` when the last one has closed it or died, ``-`` before the first."""
    stats = ring.stats
    producer = holder(stats.producer_pid, is_elsewhere=stats.producer_is_elsewhere)
    consumer = holder(stats.consumer_pid, is_elsewhere=stats.consumer_is_elsewhere)
    return (
        "gone" if stats.producer_pid is None and stats.producer_claims else producer,
        "gone" if stats.consumer_pid is None and stats.consumer_claims else consumer,
    )


def standing(sample: BusSample) -> list[str]:
    """What is wrong with a bus or its rings, a sentence each; nothing as a rule."""
    notes = [ring.error for ring in sample.rings if isinstance(ring, CorruptRing)]
    if not sample.is_linked:
        notes.append(
            f"{sample.bus.name} was unlinked: this is the last bus of that name, which its users may still have open"
        )
    elif sample.incarnation > 1:
        notes.append(f"{sample.bus.name} was created anew: this is bus {sample.incarnation} of that name")
    return notes
