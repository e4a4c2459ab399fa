"""A sample as plain text: one JSON object, or an aligned table."""

from __future__ import annotations

import dataclasses
import datetime
import json
from typing import Final

from ..inspection import aligned, bus_line, bus_object, holder, ring_object
from .watch import AnyRing, BusSample, CaptureSample, CorruptRing, RingSample

__all__ = ["as_json", "as_table", "capture_line", "owners", "problems"]

_OLD: Final = 5.0
"""Seconds without news of a capture, which writes every second, from which on its line says so."""


def as_json(sample: BusSample, *, indent: int | None) -> str:
    """One object with the fields of ``nodedb-ring inspect --json`` and more.

    It adds ``time``, ``incarnation``, ``is_linked`` and ``interval_seconds`` (the time that the rates cover), and to
    each ring ``lag`` (events), ``emitted_per_second``, ``received_per_second``, ``dropped_per_second`` and ``error``
    (null). A corrupt ring has only ``core_id`` and ``error``. ``captures`` has an object for each capture, with the
    fields of `CaptureStatus` and ``has_gone``. Rates and interval are null in the first sample of a bus.
    """
    document: dict[str, object] = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        **bus_object(sample.bus),
        "incarnation": sample.incarnation,
        "is_linked": sample.is_linked,
        "interval_seconds": sample.seconds,
        "rings": [_ring_object(ring) for ring in sample.rings],
        "captures": [
            {**dataclasses.asdict(capture.status), "has_gone": capture.has_gone} for capture in sample.captures
        ],
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
    """One line for the bus and the interval, one line per core, and one line for each problem."""
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
    captures = "".join(f"{capture_line(capture)}\n" for capture in sample.captures)
    notes = "".join(f"{note}\n" for note in problems(sample))
    return f"{bus_line(sample.bus)}{over}\n\n{aligned(table)}{captures}{notes}"


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
    # Two digits below 10, so that a low rate is not shown as 0.
    return f"{rate:,.2g}" if 0 < rate < 10 else f"{rate:,.0f}"


def owners(ring: RingSample) -> tuple[str, str]:
    """The holders of the two ends: a process id, ``gone`` after the last holder, ``-`` before the first."""
    stats = ring.stats
    producer = holder(stats.producer_pid, is_elsewhere=stats.producer_is_elsewhere)
    consumer = holder(stats.consumer_pid, is_elsewhere=stats.consumer_is_elsewhere)
    return (
        "gone" if stats.producer_pid is None and stats.producer_claims else producer,
        "gone" if stats.consumer_pid is None and stats.consumer_claims else consumer,
    )


def capture_line(capture: CaptureSample) -> str:
    """One line for a capture: where it is, how far behind, and whether it is connected."""
    status = capture.status
    where = f"core {status.core_id}: slot {status.slot} at {status.position >> 32:X}/{status.position & 0xFFFFFFFF:X}"
    if capture.has_gone:
        return f"{where}; its capture has gone (process {status.pid}), and the server keeps its WAL"
    lag_bytes = "an unknown number of" if status.lag_bytes is None else f"{status.lag_bytes:,}"
    connection = "connected" if status.connected else "not connected"
    reconnects = "1 reconnect" if status.reconnects == 1 else f"{status.reconnects:,} reconnects"
    age = f"; {capture.age:.0f} s ago" if capture.age > _OLD else ""
    return f"{where}, {lag_bytes} bytes and {status.lag_seconds:.1f} s behind, {connection}, {reconnects}{age}"


def problems(sample: BusSample) -> list[str]:
    """One sentence for each problem of the bus or its rings."""
    notes = [ring.error for ring in sample.rings if isinstance(ring, CorruptRing)]
    if not sample.is_linked:
        notes.append(
            f"{sample.bus.name} was unlinked: this is the last bus of that name, which its users may still have open"
        )
    elif sample.incarnation > 1:
        notes.append(f"{sample.bus.name} was created again: this is bus {sample.incarnation} of that name")
    return notes
