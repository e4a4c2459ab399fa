"""What the commands ``list`` and ``inspect`` print about shared buses: aligned text, or one JSON object."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from ..bus.directory import DEFAULT_DIRECTORY, unfinished
from ..bus.event_bus import EventBus
from ..ends.stats import RingStats

__all__ = ["aligned", "bus_line", "bus_object", "holder", "inspection", "listing", "ring_object", "unfinished_note"]


def listing(directory: Path, *, as_json: bool) -> str:
    """The names of this user's buses, one per line; as JSON an object with ``buses`` and ``unfinished``.

    ``buses`` is an array of the names. ``unfinished`` is an array of objects with ``name``, ``path`` and ``bytes``: the
    files of processes that were killed while they created a bus, and that no process has open.

    Raises
    ------
    OSError
        The directory cannot be read.
    """
    names = EventBus.list(directory=directory)
    if as_json:
        left = [
            {"name": each.name, "path": str(each.path), "bytes": each.size} for each in unfinished(directory.absolute())
        ]
        return _json({"buses": names, "unfinished": left})
    return "".join(f"{name}\n" for name in names)


def unfinished_note(directory: Path) -> str:
    """A sentence about unfinished files of killed processes; empty if there are none."""
    left = unfinished(directory)
    if not left:
        return ""
    where = "" if directory == DEFAULT_DIRECTORY else f" --directory {directory}"
    size = sum(each.size for each in left)
    return (
        f"{len(left)} unfinished {'bus' if len(left) == 1 else 'buses'}, {size:,} bytes, left by processes that were"
        f" killed while creating them: nodedb-ring unlink --unfinished{where} removes them"
    )


def inspection(name: str, directory: Path, *, as_json: bool) -> str:
    """The state of the rings of the bus `name`. It claims no end and delays nobody.

    As JSON an object with ``name``, ``path``, ``num_cores``, ``capacity`` (slots per ring), ``arena_bytes`` (per ring)
    and ``rings``: one object per core with the fields of `RingStats`. ``pressure_state`` is a name; ``producer`` and
    ``consumer`` are objects with the fields of `ProducerStats` and `ConsumerStats`.

    Raises
    ------
    LayoutError, CorruptRingError, OSError
        The bus cannot be opened or read.
    """
    with EventBus.open(name, directory=directory) as bus:
        rings = bus.stats()
        if as_json:
            return _json({**bus_object(bus), "rings": [ring_object(ring) for ring in rings]})
        return f"{bus_line(bus)}\n\n{_table(rings)}"


def bus_object(bus: EventBus) -> dict[str, object]:
    """The name, place and size of a bus, for a JSON object."""
    return {
        "name": bus.name,
        "path": str(bus.path),
        "num_cores": bus.num_cores,
        "capacity": bus.capacity,
        "arena_bytes": bus.arena_bytes,
    }


def bus_line(bus: EventBus) -> str:
    """The name, place and size of a bus as text."""
    return (
        f"{bus.path}: {bus.num_cores} {'core' if bus.num_cores == 1 else 'cores'},"
        f" {bus.capacity:,} slots and {bus.arena_bytes:,} bytes of payload per core"
    )


def _json(document: dict[str, object]) -> str:
    return json.dumps(document, indent=2) + "\n"


def ring_object(ring: RingStats) -> dict[str, object]:
    """The statistics of a ring, for a JSON object."""
    return {**dataclasses.asdict(ring), "pressure_state": str(ring.pressure_state)}


def _table(rings: tuple[RingStats, ...]) -> str:
    """One line per core."""
    table = [
        [
            "core",
            "pressure",
            "utilization",
            "slots in use",
            "emitted",
            "received",
            "held",
            "redelivered",
            "dropped",
            "producer",
            "consumer",
        ],
        *(
            [
                str(ring.core_id),
                str(ring.pressure_state),
                f"{ring.utilization} %",
                f"{ring.producer.slots_in_use:,}",
                f"{ring.producer.emitted:,}",
                f"{ring.consumer.received:,}",
                f"{ring.consumer.held:,}",
                f"{ring.consumer.redelivered:,}",
                f"{ring.producer.dropped:,}",
                holder(ring.producer_pid, is_elsewhere=ring.producer_is_elsewhere),
                holder(ring.consumer_pid, is_elsewhere=ring.consumer_is_elsewhere),
            ]
            for ring in rings
        ),
    ]
    return aligned(table)


def aligned(table: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines. The first two columns are aligned left, the others, which hold numbers, right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    )
    return "".join(f"{line}\n" for line in lines)


def holder(pid: int | None, *, is_elsewhere: bool) -> str:
    """The process that holds an end; ``elsewhere`` means in another pid namespace, such as a container."""
    if pid is None:
        return "-"
    return f"{pid} elsewhere" if is_elsewhere else str(pid)
