"""``python -m benchmarks.arrow``: a batch into an Arrow record batch and back, compared with NumPy and pyarrow.

Every answer is checked before it is timed: both ways must give the same record batch, and it must give the same events.
The ways run in turn. Each runs a few times in a row and its best time counts, so that it does not measure the caches
that the one before it left. Figures are the best of the rounds; ratios are medians over the rounds.
"""

# pyarrow's stubs do not know Arrow capsules.
# pyright: reportArgumentType=false, reportUnknownParameterType=false, reportMissingTypeArgument=false

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from nodedb_ring import EventBatch, EventSource, WriteEvent, WriteOp, create_event_bus
from nodedb_ring.batch.schema import NO_TIME, NULL_LENGTH, STRING_FIELDS, VALUE_FIELDS

from .machine import describe
from .measure import check, no_collection
from .sample import ready_events
from .suite import silence_rings
from .table import Row, print_rows

__all__ = ["main"]

EVENTS: Final = 65_536
_TWELVE: Final = (
    *("sequence", "lsn", "tenant_id", "system_time_ms", "valid_time_ms", "vshard_id", "count", "op", "source"),
    *("collection_offset", "row_id_offset", "new_value_offset"),
)
_FOUR: Final = ("collection", "op", "lsn", "count")
_IN_A_ROW: Final = 4
_INLINE: Final = 12
_KEEP: Final = np.array(
    [[0xFF] * n + [0] * (_INLINE - n) for n in range(_INLINE + 1)] + [[0xFF] * 4 + [0] * (_INLINE - 4)], np.uint8
).view(np.uint32)
"""What stays of 12 bytes, by length; of a longer value its first four."""


def full_events(count: int) -> list[WriteEvent]:
    """Events with every field set: nothing is null, and each statement is longer than a string view holds inline."""
    return [
        WriteEvent(
            sequence=each.sequence,
            collection=each.collection,
            op=WriteOp(each.sequence % 6 + 1),
            row_id=each.row_id,
            lsn=each.lsn,
            tenant_id=each.sequence % 10,
            vshard_id=each.sequence % 256,
            source=EventSource(each.sequence % 5),
            new_value=each.new_value,
            old_value=each.new_value,
            system_time_ms=1_700_000_000_000 + each.sequence,
            valid_time_ms=1_600_000_000_000 + each.sequence,
            user_id=f"user{each.sequence % 100}",
            statement_digest=f"{each.sequence:032x}",
        )
        for each in ready_events(count)
    ]


def by_hand(batch: EventBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The same columns made with NumPy and pyarrow, over the same payload."""
    records = batch.records
    payload = pa.py_buffer(batch.payload)
    windows = np.ndarray(len(batch.payload) - _INLINE + 1, f"V{_INLINE}", batch.payload, strides=(1,))
    columns = [_column_by_hand(records, field, payload, windows) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _column_by_hand(records: npt.NDArray[np.void], field: Any, payload: Any, windows: npt.NDArray[np.void]) -> Any:
    if field.name in STRING_FIELDS + VALUE_FIELDS:
        return _views_by_hand(records, field, payload, windows)
    if field.name == "op":
        return pa.DictionaryArray.from_arrays((records["op"] - 1).astype(np.int8), [str(op) for op in WriteOp])
    if field.name == "source":
        return pa.DictionaryArray.from_arrays(records["source"].view(np.int8), [str(source) for source in EventSource])
    column = records[field.name]
    if not field.nullable:
        return pa.array(column)
    none = column == NO_TIME
    if none.all():
        return pa.nulls(len(column), field.type)
    values = np.ascontiguousarray(column)
    valid = pa.py_buffer(np.packbits(~none, bitorder="little")) if none.any() else None
    return pa.Array.from_buffers(field.type, len(column), [valid, pa.py_buffer(values)])


def _views_by_hand(records: npt.NDArray[np.void], field: Any, payload: Any, windows: npt.NDArray[np.void]) -> Any:
    lengths = np.ascontiguousarray(records[f"{field.name}_length"])
    none = lengths == NULL_LENGTH
    if none.all():
        return pa.nulls(len(lengths), field.type)
    offsets = np.ascontiguousarray(records[f"{field.name}_offset"])
    if none.any():
        raise ValueError("the events of this benchmark have all of a column or nothing")
    views = np.empty((len(lengths), 4), np.uint32)
    views[:, 0] = lengths
    # The last event's bytes end after its strings: there are always 12 from a string or a value on.
    begun = windows[offsets].view(np.uint32).reshape(-1, 3)
    np.bitwise_and(begun, _KEEP[np.minimum(lengths, _INLINE + 1)], out=views[:, 1:])
    long = lengths > _INLINE
    if long.all():
        views[:, 2] = 0
        views[:, 3] = offsets
    elif long.any():
        views[long, 2] = 0
        views[long, 3] = offsets[long]
    return pa.Array.from_buffers(
        field.type, len(lengths), [None, pa.py_buffer(views), *([payload] if long.any() else [])]
    )


def twelve_fields(batch: EventBatch) -> list[Any]:
    """For comparison: ``pa.array`` of twelve views of the fixed fields, without strings."""
    return [pa.array(batch.records[name]) for name in _TWELVE]


def _in_turn(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Nanoseconds per event of each way, round by round. The result of a call is dropped before the next one."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    clock = time.perf_counter_ns
    with no_collection():
        for _ in range(rounds):
            for name, way in ways.items():
                best = float("inf")
                for _ in range(_IN_A_ROW):
                    start = clock()
                    made = way()
                    best = min(best, (clock() - start) / EVENTS)
                    del made
                took[name].append(best)
    return took


def _measure(kind: str, events: list[WriteEvent], rounds: int, *, goals: bool) -> list[Row]:
    (producer,), (consumer,) = create_event_bus(1, EVENTS, arena_bytes=512 * EVENTS)
    producer.emit_batch(EventBatch.from_events(events))
    batch = consumer.drain(EVENTS)
    ours = pa.record_batch(batch)
    ours.validate(full=True)
    check("the events", list(EventBatch.from_arrow(ours)) == events, True)
    check("the record batch by hand", by_hand(batch, ours.schema).equals(ours), True)
    check("the rows of the data frame", pl.DataFrame(batch).height, EVENTS)
    four = pa.record_batch(batch.select(*_FOUR))
    check("the selected columns", four.equals(ours.select(list(_FOUR))), True)
    schema = ours.schema
    plain_schema = pa.schema(batch.plain())
    plain = pa.table(batch.plain())
    plain.validate(full=True)
    check("the plain columns", pa.table(batch).cast(plain_schema).equals(plain), True)
    source = np.concatenate([batch.records.view(np.uint8).reshape(-1), batch.payload])
    copy = np.empty_like(source)
    took = _in_turn(
        {
            "ours": lambda: pa.record_batch(batch),
            "by hand": lambda: by_hand(batch, schema),
            "twelve": lambda: twelve_fields(batch),
            "copy": lambda: np.copyto(copy, source),
            "plain": lambda: pa.record_batch(batch.plain()),
            "cast": lambda: pa.table(batch).cast(plain_schema),
            "four": lambda: pa.record_batch(batch.select(*_FOUR)),
            "polars": lambda: pl.DataFrame(batch),
            "back": lambda: EventBatch.from_arrow(ours),
        },
        rounds,
    )
    best = {name: min(of) for name, of in took.items()}

    def ratio(name: str, to: str = "ours") -> float:
        return statistics.median(other / one for one, other in zip(took[to], took[name], strict=True))

    def row(what: str, value: float, unit: str = "ns", **rest: Any) -> Row:
        return Row(group="arrow", what=f"{kind}: {what}", value=value, unit=unit, **rest)

    typical = statistics.median(took["ours"])
    return [
        row(
            "into a record batch, 15 columns, per event",
            best["ours"],
            goal=8.0 if goals else None,
            beside=f"median {typical:.1f}; a bare copy of rows and payload {best['copy']:.1f} ns",
        ),
        row(
            "the same with NumPy and pyarrow, ratio to this",
            ratio("by hand"),
            "x",
            goal=2.0 if goals else None,
            at_least=True,
            beside=f"{best['by hand']:.1f} ns per event",
        ),
        row(
            "pa.array of 12 field views, no strings, ratio to this",
            ratio("twelve"),
            "x",
            goal=2.0 if goals else None,
            at_least=True,
            beside=f"{best['twelve']:.1f} ns per event",
        ),
        row("plain(), of the record batch with views", ratio("plain"), "x", beside=f"{best['plain']:.1f} ns per event"),
        row(
            "the same by pyarrow's cast of the views, of plain()",
            ratio("cast", "plain"),
            "x",
            beside=f"{best['cast']:.1f} ns per event, the export included",
        ),
        row(f"{', '.join(_FOUR)} alone, per event", best["four"]),
        row("into a Polars data frame, per event", best["polars"]),
        row("out of a record batch, checked, per event", best["back"]),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Runs it: 0, or with ``--strict`` 1 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.arrow", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a goal is missed")
    options = parser.parse_args(arguments)
    silence_rings()
    print(", ".join(f"{name} {value}" for name, value in describe().items()))
    rows = _measure("usual events", ready_events(EVENTS), options.rounds, goals=True)
    rows += _measure("every field set", full_events(EVENTS), max(1, options.rounds // 4), goals=False)
    print_rows(f"Batches of {EVENTS} events with 128-byte values", rows)
    return 1 if options.strict and any(row.reached is False for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
