"""What libraries do with plain columns that they cannot do with views; and a consumer in DuckDB."""

# The stubs of pyarrow and pandas lag behind them, and know no Arrow capsules.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import adbc_driver_sqlite.dbapi as adbc
import arro3.core
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

from nodedb_ring import BusyError, ClosedError, EventBatch, EventConsumer, WriteEvent, follow
from tests.unit.builders import batch as batch_of
from tests.unit.builders import event, ring, sequences
from tests.unit.recovery.memory_log import MemoryLog

from .columns import FIELDS, PLAIN, TIMESTAMPS, as_fields, rows_of
from .test_libraries import BATCH, EVENTS, with_datetimes

# In the range of SQLite's integers, which are 64 bits with a sign.
SIGNED: Final = [
    WriteEvent(**{name: getattr(each, name) for name in WriteEvent.__match_args__ if name != "lsn"}, lsn=each.sequence)
    for each in EVENTS
]


def filled(batch: EventBatch) -> EventConsumer:
    """A consumer whose ring has those events, and whose producer has gone."""
    producer, consumer = ring(1024, arena_bytes=2**20)
    assert producer.emit_batch(batch) == len(batch)
    producer.close()
    return consumer


def followed(batch: EventBatch) -> Any:
    log = MemoryLog()
    log.append(0, batch)
    return follow(filled(batch[:0]), log, group="g", max_events=2**16, heartbeats=True)


ORIGINS: Final[dict[str, Callable[[EventBatch], Any]]] = {
    "batch": lambda batch: batch.plain(),
    "projection": lambda batch: batch.select(*FIELDS).plain(),
    "consumer": lambda batch: filled(batch).plain(),
    "follower": lambda batch: followed(batch).plain(),
    "requested of a batch": lambda batch: pa.table(batch, schema=PLAIN),
    "requested of a consumer": lambda batch: pa.RecordBatchReader.from_stream(filled(batch), schema=PLAIN).read_all(),
    "requested of a follower": lambda batch: pa.RecordBatchReader.from_stream(followed(batch), schema=PLAIN).read_all(),
}


# ---- pyarrow ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=ORIGINS)
def table(request: pytest.FixtureRequest) -> pa.Table:
    made = pa.table(ORIGINS[request.param](BATCH))
    assert made.schema == PLAIN
    made.validate(full=True)
    return made


def test_filter(table: pa.Table) -> None:
    rows = as_fields(EVENTS)
    assert rows_of(table.filter(pc.field("collection") == "größe")) == [
        row for row in rows if row["collection"] == "größe"
    ]
    assert rows_of(table.filter(pc.field("op") == "INSERT")) == [row for row in rows if row["op"] == "INSERT"]
    assert rows_of(table.filter(pc.field("new_value") == b"\xff\xfe")) == [
        row for row in rows if row["new_value"] == b"\xff\xfe"
    ]
    assert rows_of(table.filter(pc.starts_with(table["row_id"], "long"))) == [
        row for row in rows if row["row_id"].startswith("long")
    ]
    assert rows_of(table.filter(pc.field("user_id").is_null())) == [row for row in rows if row["user_id"] is None]


def test_take(table: pa.Table) -> None:
    chosen = [699, 0, 350, 350, 1]
    assert rows_of(table.take(chosen)) == [as_fields(EVENTS)[i] for i in chosen]


def test_sort_by(table: pa.Table) -> None:
    sorted_rows = rows_of(table.sort_by([("collection", "descending"), ("sequence", "ascending")]))
    # In the order of the bytes, which for UTF-8 is that of the characters.
    expected = sorted(as_fields(EVENTS), key=lambda row: row["sequence"])
    assert sorted_rows == sorted(expected, key=lambda row: str(row["collection"]), reverse=True)


def test_join(table: pa.Table) -> None:
    sizes = pa.table({"collection": ["flights", "größe", "nowhere"], "size": [1, 2, 3]})
    joined = table.join(sizes, "collection", join_type="inner").sort_by("sequence")
    known = {"flights": 1, "größe": 2}
    expected = [row | {"size": known[row["collection"]]} for row in as_fields(EVENTS) if row["collection"] in known]
    assert rows_of(joined) == expected
    # And with text among what is joined to.
    other = pa.table({"sequence": pa.array([5, 6], pa.uint64())})
    assert rows_of(other.join(table, "sequence").sort_by("sequence").select(list(FIELDS))) == as_fields(EVENTS[4:6])


def test_write_dataset_and_a_filtered_read(table: pa.Table, tmp_path: Path) -> None:
    for form in ("parquet", "ipc"):
        root = tmp_path / form
        partitioning = ds.partitioning(pa.schema([PLAIN.field("op")]), flavor="hive")
        ds.write_dataset(table, root, format=form, partitioning=partitioning)
        assert {path.parent.name for path in root.glob("*/*")} == {
            f"op={op}" for op in {str(each.op) for each in EVENTS}
        }
        read = ds.dataset(root, format=form, partitioning=partitioning)
        chosen = read.to_table(filter=(pc.field("collection") == "flights") & (pc.field("op") == "DELETE"))
        expected = [row for row in as_fields(EVENTS) if row["collection"] == "flights" and row["op"] == "DELETE"]
        assert expected
        assert rows_of(chosen.select(list(FIELDS)).sort_by("sequence")) == expected
        assert read.count_rows() == len(EVENTS)


# ---- ADBC -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ORIGINS)
def test_adbc_of_sqlite(origin: str) -> None:
    source = ORIGINS[origin](EventBatch.from_events(SIGNED))
    with adbc.connect() as connection, connection.cursor() as cursor:
        assert cursor.adbc_ingest("events", source, mode="create") in (len(SIGNED), -1)
        cursor.execute(f"SELECT {', '.join(FIELDS)} FROM events ORDER BY sequence")
        rows = [dict(zip(FIELDS, row, strict=True)) for row in cursor.fetchall()]
    # It writes a timestamp as text, without its zone.
    with_timestamps = [
        row | {name: None if row[name] is None else row[name].replace(tzinfo=None) for name in TIMESTAMPS}
        for row in with_datetimes(as_fields(SIGNED))
    ]
    for row in rows:
        row.update(
            {name: None if row[name] is None else datetime.datetime.fromisoformat(row[name]) for name in TIMESTAMPS}
        )
    assert rows == with_timestamps


# ---- others -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ORIGINS)
def test_others_read_it_as_well(origin: str) -> None:
    expected = as_fields(EVENTS)
    frame = pl.DataFrame(ORIGINS[origin](BATCH))
    assert frame.schema["op"] == frame.schema["collection"] == pl.String()
    assert frame.with_columns(pl.col(TIMESTAMPS).dt.convert_time_zone("UTC")).to_dicts() == with_datetimes(expected)
    assert pa.table(arro3.core.Table.from_arrow(ORIGINS[origin](BATCH))).equals(pa.table(BATCH.plain()))
    pandas_frame = pd.DataFrame.from_arrow(ORIGINS[origin](BATCH))
    assert pandas_frame["op"].tolist() == [row["op"] for row in expected]
    source = ORIGINS[origin](BATCH)
    with duckdb.connect() as database:
        database.register("source", source)
        rows = database.execute("SELECT sequence, op, row_id, new_value FROM source ORDER BY sequence").fetchall()
    assert rows == [tuple(row[name] for name in ("sequence", "op", "row_id", "new_value")) for row in expected]


@pytest.mark.parametrize("origin", ORIGINS)
def test_there_and_back(origin: str) -> None:
    assert list(EventBatch.from_arrow(ORIGINS[origin](BATCH))) == EVENTS


# ---- a consumer in DuckDB ---------------------------------------------------------------------------------------


def test_duckdb_hands_out_stamps() -> None:
    # Versions below 2 need pytz for that.
    batch = EventBatch.from_events([event(1, system_time_ms=1_700_000_000_123), event(2)])
    with duckdb.connect() as database:
        database.register("batch", batch)
        rows = database.execute("SELECT system_time_ms FROM batch ORDER BY sequence").fetchall()
    assert rows[1] == (None,)
    assert rows[0][0] == datetime.datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=datetime.UTC)


TWICE: Final = {
    "two subqueries": (
        "SELECT (SELECT count(*) FROM source), (SELECT max(sequence) FROM source WHERE collection = 'a')",
        [(3000, 2999)],
    ),
    "a union": (
        "SELECT collection, count(*) FROM (SELECT collection FROM source WHERE collection = 'a' UNION ALL "
        "SELECT collection FROM source WHERE collection = 'b') GROUP BY ALL ORDER BY ALL",
        [("a", 1500), ("b", 1500)],
    ),
    "a join": ("SELECT count(*) FROM source one JOIN source other USING (sequence)", [(3000,)]),
}


@pytest.mark.parametrize("kind", ["consumer", "plain", "follower"])
@pytest.mark.parametrize("twice", TWICE)
def test_duckdb_never_shares_the_events_out_between_two_scans(twice: str, kind: str) -> None:
    batch = EventBatch.from_columns(sequence=range(1, 3001), collection=["a", "b"] * 1500, op=1, row_id="", lsn=0)
    producer, consumer = ring(4096, arena_bytes=2**20)
    producer.emit_batch(batch)
    producer.close()
    source = consumer if kind == "consumer" else consumer.plain() if kind == "plain" else followed(batch)
    query, right = TWICE[twice]
    with duckdb.connect() as database:
        database.register("source", source)
        # Some versions read it once for both, and then the answer is right; else they ask for two streams, some of them
        # one behind the other.
        try:
            answer: object = database.execute(query).fetchall()
        except (BusyError, ClosedError, duckdb.Error) as error:
            answer = str(error)
    refusals = ("of core 0: a stream of it is there already", "of core 0: its events were handed to another stream")
    assert answer == right or any(refusal in str(answer) for refusal in refusals)


def test_a_limit_takes_whole_arrays() -> None:
    producer, consumer = ring(65536, arena_bytes=2**20)
    producer.emit_batch(batch_of(1, 40_000))
    producer.close()
    with duckdb.connect() as database:
        database.register("source", consumer)
        assert database.execute("SELECT sequence FROM source LIMIT 5").fetchall() == [(i,) for i in range(1, 6)]
    taken = consumer.stats().received
    # How many is up to its threads.
    assert taken in (16384, 32768, 40_000)
    consumer.bind()
    assert sequences(consumer.drain(65536)) == list(range(taken + 1, 40_001))
