"""``python -m benchmarks.rows``: row values into columns and back, compared with the decoders of MessagePack there are.

The rows are the flights of 2013 as capture writes them, ten columns. Each way ends in the same five NumPy columns and,
where it says so, in the same Arrow table of ten. Every answer is checked before it is timed. The ways run in turn:
figures are the best of the rounds, and ratios are medians over the rounds.
"""

# The stubs of pyarrow know no Arrow capsules.
# pyright: reportArgumentType=false, reportUnknownParameterType=false, reportMissingTypeArgument=false

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

import msgpack
import msgspec
import numpy as np
import numpy.typing as npt
import ormsgpack
import polars as pl
import pyarrow as pa

from nodedb_ring import EventBatch, RowSchema, WriteOp, encode_rows
from nodedb_ring.command.demo.flights import load_flights

from .measure import check, no_collection
from .suite import Show, run_suite
from .table import Row

__all__ = ["main"]

ROWS: Final = 65_536
SCHEMA: Final = RowSchema(
    {
        "flight_id": "int64",
        "date": "str",
        "carrier": "str",
        "number": "int64",
        "tailnum": "str",
        "origin": "str",
        "dest": "str",
        "sched_dep_time": "int64",
        "dep_time": "int64",
        "dep_delay": "int64",
    }
)
NUMBERS: Final = ("flight_id", "number", "sched_dep_time", "dep_time", "dep_delay")
_ARROW: Final = pa.schema(
    [(name, pa.int64() if kind == "int64" else pa.string_view()) for name, kind in SCHEMA.items()]
)

Numbers: TypeAlias = list[npt.NDArray[np.int64]]
"""Five columns, 0 where there is no number."""


class Flight(msgspec.Struct):
    """A row as ``msgspec`` decodes it."""

    flight_id: int
    date: str
    carrier: str
    number: int
    tailnum: str | None
    origin: str
    dest: str
    sched_dep_time: int
    dep_time: int | None
    dep_delay: int | None


def flight_rows(count: int) -> list[dict[str, Any]]:
    """The first flights of the year, a mapping each."""
    return [flight._asdict() for flight in load_flights(count)]


def batch_of(values: object) -> EventBatch:
    """A batch of INSERT events with these values."""
    count = len(values.offsets) - 1 if hasattr(values, "offsets") else len(values)  # type: ignore[arg-type]
    return EventBatch.from_columns(
        sequence=np.arange(count) + 1, collection="flights", op=WriteOp.INSERT, row_id="", lsn=0, new_value=values
    )


# ---- ways into columns ------------------------------------------------------------------------------------------


def numbers_of_dicts(rows: Iterable[dict[str, Any]]) -> Numbers:
    rows = list(rows)
    return [np.array([row[name] or 0 for row in rows], np.int64) for name in NUMBERS]


def numbers_of_structs(rows: list[Flight]) -> Numbers:
    return [
        np.array([row.flight_id for row in rows], np.int64),
        np.array([row.number for row in rows], np.int64),
        np.array([row.sched_dep_time for row in rows], np.int64),
        np.array([row.dep_time or 0 for row in rows], np.int64),
        np.array([row.dep_delay or 0 for row in rows], np.int64),
    ]


def table_of_dicts(rows: list[dict[str, Any]]) -> Any:
    return pa.RecordBatch.from_pylist(rows, _ARROW)


def table_of_structs(rows: list[Flight]) -> Any:
    columns = [pa.array([getattr(row, name) for row in rows], _ARROW.field(name).type) for name in SCHEMA]
    return pa.RecordBatch.from_arrays(columns, schema=_ARROW)


def _nanoseconds(way: Callable[[], object], times: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(times):
        way()
    return (time.perf_counter_ns() - start) / times


def _in_turn(ways: dict[str, Callable[[], object]], rounds: int, rows: int) -> dict[str, list[float]]:
    """Nanoseconds a row of each way in each round."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    with no_collection():
        # A turn takes 50 ms or more. A short one would find the cache as the way before it left it.
        times = {name: max(1, round(50e6 / _nanoseconds(way, 1))) for name, way in ways.items()}
        for _ in range(rounds):
            for name, way in ways.items():
                took[name].append(_nanoseconds(way, times[name]) / rows)
    return took


def _ratio(took: dict[str, list[float]], name: str, to: str) -> float:
    return statistics.median(one / other for one, other in zip(took[name], took[to], strict=True))


def _against(group: str, took: dict[str, list[float]], to: str) -> Callable[..., Row]:
    """What makes the rows of a group that say how many times as long one way takes as the way `to`."""

    def row(what: str, name: str, goal: float | None = None) -> Row:
        return Row(
            group=group,
            what=what,
            value=_ratio(took, name, to),
            unit="x",
            goal=goal,
            at_least=True,
            beside=f"{min(took[name]):.0f} ns per row",
        )

    return row


def decoding(rows: list[dict[str, Any]], rounds: int) -> list[Row]:
    """Rows into NumPy columns and an Arrow table."""
    values = [msgpack.packb(row) for row in rows]
    batch = batch_of(values)
    typed = msgspec.msgpack.Decoder(Flight)

    def by_rows(schema: RowSchema | None = SCHEMA) -> tuple[Numbers, Any]:
        decoded = batch.rows("new_value", schema)
        return [decoded[name] for name in NUMBERS], pa.record_batch(decoded)

    def loop() -> object:
        for value in values:
            msgpack.unpackb(value)
        return None

    def structs() -> list[Flight]:
        return [typed.decode(value) for value in values]

    expected = numbers_of_dicts(rows)
    table = table_of_dicts(rows)
    for name, (numbers, arrow) in {
        "rows": by_rows(),
        "inferred": by_rows(None),
        "msgspec": (numbers_of_structs(structs()), table_of_structs(structs())),
        "msgpack": (numbers_of_dicts(map(msgpack.unpackb, values)), table_of_dicts(list(map(msgpack.unpackb, values)))),
        "ormsgpack": (
            numbers_of_dicts(map(ormsgpack.unpackb, values)),
            table_of_dicts(list(map(ormsgpack.unpackb, values))),
        ),
    }.items():
        check(f"{name}: numbers", [each.tolist() for each in numbers], [each.tolist() for each in expected])
        check(f"{name}: table", arrow.to_pydict(), table.to_pydict())

    def with_table(unpack: Callable[[bytes], Any]) -> object:
        decoded = [unpack(value) for value in values]
        return numbers_of_dicts(decoded), table_of_dicts(decoded)

    def structs_with_table() -> object:
        decoded = structs()
        return numbers_of_structs(decoded), table_of_structs(decoded)

    took = _in_turn(
        {
            "rows": by_rows,
            "inferred": lambda: by_rows(None),
            "loop": loop,
            "msgspec": lambda: numbers_of_structs(structs()),
            "ormsgpack": lambda: numbers_of_dicts(map(ormsgpack.unpackb, values)),
            "msgspec, table": structs_with_table,
            "ormsgpack, table": lambda: with_table(ormsgpack.unpackb),
            "msgpack, table": lambda: with_table(msgpack.unpackb),
        },
        rounds,
        len(rows),
    )
    one = batch[:1]
    check("one row", one.rows("new_value", SCHEMA)["number"].tolist(), expected[1][:1].tolist())
    many = 200
    single = _in_turn({"one": lambda: [one.rows("new_value", SCHEMA) for _ in range(many)]}, rounds, many)

    size = sum(map(len, values)) / len(values)
    against = _against("decode", took, "rows")
    return [
        Row(
            group="decode",
            what="10 columns: Arrow table, 5 NumPy columns, per row",
            value=min(took["rows"]),
            unit="ns",
            beside=f"median {statistics.median(took['rows']):.0f}; rows of {size:.0f} bytes",
        ),
        against("typed msgspec, 5 NumPy columns, ratio to this", "msgspec", 18.0),
        against("msgpack.unpackb of each, nothing else, ratio to this", "loop", 30.0),
        against("ormsgpack, 5 NumPy columns, ratio to this", "ormsgpack"),
        against("typed msgspec, table and columns, ratio to this", "msgspec, table"),
        against("msgpack, table and columns, ratio to this", "msgpack, table"),
        against("ormsgpack, table and columns, ratio to this", "ormsgpack, table"),
        Row(
            group="decode",
            what="schema inferred, ratio to a given one",
            value=_ratio(took, "inferred", "rows"),
            unit="x",
            goal=2.0,
            beside=f"{min(took['inferred']):.0f} ns per row",
        ),
        Row(group="decode", what="rows of a batch of one", value=min(single["one"]) / 1000, unit="us", goal=3.0),
    ]


def encoding(rows: list[dict[str, Any]], rounds: int) -> list[Row]:
    """Columns into rows."""
    frame = pl.DataFrame(rows)
    table = pa.RecordBatch.from_pylist(rows)
    decoded = batch_of(encode_rows(frame)).rows("new_value", SCHEMA)
    values = [msgpack.packb(row) for row in rows]
    joined = b"".join(values)
    for name, source in {"polars": frame, "pyarrow": table, "rows": decoded}.items():
        data, offsets = encode_rows(source)
        check(f"encode_rows of {name}: bytes", data.tobytes() == joined, True)
        check(f"encode_rows of {name}: offsets", np.diff(offsets).tolist(), [len(value) for value in values])
    check("ormsgpack", [ormsgpack.packb(row) for row in rows], values)
    structs = [Flight(**row) for row in rows]
    # A Struct's keys are in the order of its fields, which is the rows'.
    check("msgspec", [msgspec.msgpack.encode(row) for row in structs], values)
    encoder = msgspec.msgpack.Encoder()
    took = _in_turn(
        {
            "polars": lambda: encode_rows(frame),
            "pyarrow": lambda: encode_rows(table),
            "rows": lambda: encode_rows(decoded),
            "packb": lambda: [msgpack.packb(row) for row in rows],
            "msgspec": lambda: [encoder.encode(row) for row in structs],
            "ormsgpack": lambda: [ormsgpack.packb(row) for row in rows],
            "from frame": lambda: [msgpack.packb(row) for row in frame.iter_rows(named=True)],
        },
        rounds,
        len(rows),
    )

    against = _against("encode", took, "polars")
    return [
        Row(
            group="encode",
            what="encode_rows of a Polars frame, 10 columns, per row",
            value=min(took["polars"]),
            unit="ns",
            beside=f"median {statistics.median(took['polars']):.0f}",
        ),
        Row(group="encode", what="encode_rows of a pyarrow batch, per row", value=min(took["pyarrow"]), unit="ns"),
        Row(group="encode", what="encode_rows of Rows, per row", value=min(took["rows"]), unit="ns"),
        against("msgpack.packb of each dict, ratio to Polars", "packb", 10.0),
        against("typed msgspec of each object, ratio to Polars", "msgspec"),
        against("ormsgpack.packb of each dict, ratio to Polars", "ormsgpack"),
        against("frame.iter_rows and msgpack.packb, ratio to Polars", "from frame"),
    ]


def splitting(rows: list[dict[str, Any]], rounds: int) -> list[Row]:
    """Batches by table, compared with a mask of each name."""
    values = encode_rows(pl.DataFrame(rows))
    names = ["flights", "planes", "weather", "airlines"]
    tables = [names[number // 10 % len(names)] for number in range(len(rows))]
    batch = EventBatch.from_columns(
        sequence=np.arange(len(rows)) + 1, collection=tables, op=WriteOp.INSERT, row_id="", lsn=0, new_value=values
    )

    def by_mask() -> dict[str, EventBatch]:
        collections = batch.strings("collection")
        return {name: batch[np.asarray(collections == name, np.bool_)] for name in names}

    parts, masked = batch.split("collection"), by_mask()
    check("tables", list(parts), names)
    for name in names:
        check(name, parts[name].sequence.tolist(), masked[name].sequence.tolist())
        check(name, parts[name].payload.tobytes() == masked[name].payload.tobytes(), True)
    took = _in_turn({"split": batch.split, "mask": by_mask}, rounds, len(rows))
    return [
        Row(group="split", what="split into 4 tables, per event", value=min(took["split"]), unit="ns"),
        Row(
            group="split",
            what="strings and a mask of each table, ratio to this",
            value=_ratio(took, "mask", "split"),
            unit="x",
            beside=f"{min(took['mask']):.0f} ns per event",
        ),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Runs it: 0, or with ``--strict`` 1 if a goal was missed."""

    def run(parts: set[str], quick: bool, show: Show) -> None:
        rows = flight_rows(ROWS)
        rounds = 5 if quick else 15
        if "decode" in parts:
            show("Row values into columns", decoding(rows, rounds))
        if "encode" in parts:
            show("Columns into row values", encoding(rows, rounds))
        if "split" in parts:
            show("Events by table", splitting(rows, rounds))

    return run_suite("benchmarks.rows", __doc__, ("decode", "encode", "split"), run, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
