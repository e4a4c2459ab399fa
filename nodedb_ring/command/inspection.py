"""What the commands ``list`` and ``inspect`` say of the buses between processes: aligned text, or one JSON object."""

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
    """The names of this user's buses, one a line; as JSON an object of ``buses``, the names, and ``unfinished``.

    That is what creations left that were killed, and nobody has open: objects of ``name``, ``path`` and ``bytes``.

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
    """A sentence on what creations left that were killed; empty where there is nothing."""
    left = unfinished(directory)
    if not left:
        return ""
    where = "" if directory == DEFAULT_DIRECTORY else f" --directory {directory}"
    size = sum(each.size for each in left)
    return (
        f"{len(left)} unfinished {'bus' if len(left) == 1 else 'buses'}, {size:,} bytes, left by whoever was killed"
        f" while making them: nodedb-ring unlink --unfinished{where} removes that"
    )


def inspection(name: str, directory: Path, *, as_json: bool) -> str:
    """How the rings of the bus `name` stand. No end is claimed, and nobody who has one is held up.

    As JSON an object of ``name``, ``path``, ``num_cores``, ``capacity`` (slots a ring), ``arena_bytes`` (a ring) and
    ``rings``: one object a core with the fields of `RingStats`, ``pressure_state`` by its name, and with the objects
    ``producer`` and ``consumer`` of the fields of `ProducerStats` and `ConsumerStats`.

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
    """What a bus is, for a JSON object."""
    return {
        "name": bus.name,
        "path": str(bus.path),
        "num_cores": bus.num_cores,
        "capacity": bus.capacity,
        "arena_bytes": bus.arena_bytes,
    }


def bus_line(bus: EventBus) -> str:
    """The same as text."""
    return (
        f"{bus.path}: {bus.num_cores} {'core' if bus.num_cores == 1 else 'cores'},"
        f" {bus.capacity:,} slots and {bus.arena_bytes:,} bytes of payload a core"
    )


def _json(document: dict[str, object]) -> str:
    return json.dumps(document, indent=2) + "\n"


def ring_object(ring: RingStats) -> dict[str, object]:
    """The accounts of a ring, for a JSON object."""
    return {**dataclasses.asdict(ring), "pressure_state": str(ring.pressure_state)}


def _table(rings: tuple[RingStats, ...]) -> str:
    """A line a core."""
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
    """Rows of cells as lines. The columns after the first two are flush right, as numbers want to be."""
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
    """The process that holds an end; ``elsewhere`` is another pid namespace, a container's say."""
    if pid is None:
        return "-"
    return f"{pid} elsewhere" if is_elsewhere else str(pid)
