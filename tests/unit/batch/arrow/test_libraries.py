"""Each library reads every field of what it is given, and ``from_arrow`` reads it back."""

# The stubs of pyarrow and pandas lag behind them, and know no Arrow capsules.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false

from __future__ import annotations

import datetime
import io
from collections.abc import Callable
from typing import Any

import arro3.core
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

from nodedb_ring import EventBatch, WriteEvent
from tests.unit.builders import event, fill, ring

from .columns import TEXTS, TIMESTAMPS, as_fields, imported, rows_of, varied

# Within the years that a datetime has.
EVENTS = [
    WriteEvent(
        **{name: getattr(each, name) for name in WriteEvent.__match_args__ if name not in TIMESTAMPS},
        system_time_ms=None if each.sequence % 3 else 1_700_000_000_123 + each.sequence,
        valid_time_ms=None if each.sequence % 5 else -1 - each.sequence,
    )
    for each in varied(700)
]
BATCH = EventBatch.from_events(EVENTS)
OPERATIONS = "'UPDATE', 'INSERT', 'DELETE', 'BULK_INSERT', 'HEARTBEAT', 'BULK_DELETE'"
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def with_datetimes(fields: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def timestamp(milliseconds: int | None) -> datetime.datetime | None:
        return None if milliseconds is None else EPOCH + datetime.timedelta(milliseconds=milliseconds)

    return [row | {name: timestamp(row[name]) for name in TIMESTAMPS} for row in fields]


def test_polars() -> None:
    for frame in (pl.DataFrame(BATCH), pl.DataFrame(BATCH[:0])):
        assert dict(frame.schema) == {
            "sequence": pl.UInt64(),
            "collection": pl.String(),
            "op": pl.Categorical(),
            "row_id": pl.String(),
            "lsn": pl.UInt64(),
            "tenant_id": pl.UInt64(),
            "vshard_id": pl.UInt32(),
            "source": pl.Categorical(),
            "count": pl.UInt32(),
            "new_value": pl.Binary(),
            "old_value": pl.Binary(),
            "system_time_ms": pl.Datetime("ms", "UTC"),
            "valid_time_ms": pl.Datetime("ms", "UTC"),
            "user_id": pl.String(),
            "statement_digest": pl.String(),
        }
        expected = with_datetimes(as_fields(EVENTS)) if len(frame) else []
        assert frame.with_columns(pl.col(TIMESTAMPS).dt.convert_time_zone("UTC")).to_dicts() == expected


def test_duckdb() -> None:
    batch = BATCH
    with duckdb.connect() as database:
        timestamps = ", ".join(f"epoch_ms({name}) AS {name}" for name in TIMESTAMPS)
        rows = database.execute(f"SELECT * REPLACE ({timestamps}) FROM batch ORDER BY sequence").fetchall()
        names = [column[0] for column in database.description or ()]
    got = [dict(zip(names, row, strict=True)) for row in rows]
    assert got == as_fields(EVENTS)
    assert len(batch) == len(rows)


def test_pandas() -> None:
    frame = pd.DataFrame.from_arrow(BATCH)
    assert str(frame["op"].dtype) == "category"
    assert str(frame["system_time_ms"].dtype) == "datetime64[ms, UTC]"
    for name in frame.columns:
        column = frame[name].astype("int64") if name in TIMESTAMPS else frame[name]
        missing = frame[name].isna()
        expected = [row[name] for row in as_fields(EVENTS)]
        assert [None if gone else value for gone, value in zip(missing, column, strict=True)] == expected


def test_arro3() -> None:
    record_batch = arro3.core.RecordBatch.from_arrow(BATCH)
    assert pa.record_batch(record_batch).equals(imported(BATCH))
    columns = {name: record_batch.column(name).to_pylist() for name in ("sequence", "row_id", "new_value", "user_id")}
    assert columns == {name: [getattr(each, name) for each in EVENTS] for name in columns}


def through_parquet(table: pa.Table) -> pa.Table:
    file = io.BytesIO()
    parquet.write_table(table, file)
    return parquet.read_table(file)


def through_polars_parquet() -> pl.DataFrame:
    file = io.BytesIO()
    pl.DataFrame(BATCH).write_parquet(file)
    file.seek(0)
    return pl.read_parquet(file)


def through_ipc() -> pa.Table:
    file = io.BytesIO()
    with ipc.new_file(file, pa.schema(BATCH)) as writer:
        writer.write(pa.record_batch(BATCH))
    return ipc.open_file(file).read_all()


def through_duckdb(query: str) -> Any:
    batch = BATCH
    database = duckdb.connect()
    assert len(batch)
    return database.sql(query)


WAYS: dict[str, Callable[[], object]] = {
    "itself": lambda: BATCH,
    "pyarrow record batch": lambda: pa.record_batch(BATCH),
    "pyarrow table": lambda: pa.table(BATCH),
    "pyarrow struct array": lambda: pa.record_batch(BATCH).to_struct_array(),
    "pyarrow in pieces": lambda: pa.concat_tables(
        [pa.table(BATCH[:100]), pa.table(BATCH[100:101]), pa.table(BATCH[101:])]
    ),
    "pyarrow reader": lambda: pa.RecordBatchReader.from_batches(pa.schema(BATCH), [pa.record_batch(BATCH)]),
    "Parquet": lambda: through_parquet(pa.table(BATCH)),
    "Arrow file": through_ipc,
    "Polars": lambda: pl.DataFrame(BATCH),
    "Polars, sorted and in pieces": lambda: pl.concat([pl.DataFrame(BATCH[350:]), pl.DataFrame(BATCH[:350])]).sort(
        "sequence"
    ),
    "Polars, enums": lambda: pl.DataFrame(BATCH).with_columns(pl.col("op", "source").cast(pl.String)),
    "Polars, Parquet": through_polars_parquet,
    "DuckDB": lambda: through_duckdb("FROM batch"),
    "DuckDB, sorted": lambda: through_duckdb("SELECT * FROM batch ORDER BY sequence"),
    "DuckDB, enum": lambda: through_duckdb(f"SELECT * REPLACE (op::ENUM({OPERATIONS}) AS op) FROM batch"),
    "pandas": lambda: pd.DataFrame.from_arrow(BATCH),
    "pandas, of pyarrow": lambda: pa.table(BATCH).to_pandas(types_mapper=pd.ArrowDtype),
    "arro3": lambda: arro3.core.RecordBatch.from_arrow(BATCH),
    "arro3 table": lambda: arro3.core.Table.from_arrow(BATCH),
}


@pytest.mark.parametrize("way", WAYS)
def test_there_and_back(way: str) -> None:
    back = EventBatch.from_arrow(WAYS[way]())
    assert list(back) == EVENTS
    # As a ring takes it: in one copy.
    producer, consumer = ring(1024, arena_bytes=2**20)
    assert producer.emit_batch(back) == len(EVENTS)
    assert list(consumer.drain(1000)) == EVENTS


def test_one_expression_from_a_consumer() -> None:
    def filled() -> Any:
        producer, consumer = ring(64, arena_bytes=2**20)
        fill(producer, 1, 50)
        producer.emit(event(51, collection="other"))
        producer.close()
        return consumer

    consumer = filled()
    counted = pl.DataFrame(consumer).group_by("collection").len().sort("collection")
    assert counted.rows() == [("other", 1), ("t", 50)]
    consumer = filled()
    assert pa.table(consumer).num_rows == 51
    consumer = filled()
    assert len(pd.DataFrame.from_arrow(consumer)) == 51
    consumer = filled()
    assert arro3.core.Table.from_arrow(consumer).num_rows == 51
    consumer = filled()
    with duckdb.connect() as database:
        rows = database.execute("SELECT collection, count(*) FROM consumer GROUP BY ALL ORDER BY ALL").fetchall()
    assert rows == [("other", 1), ("t", 50)]
    assert consumer.stats().received == 51


def test_text_that_views_hold_and_text_that_they_do_not_compare_alike() -> None:
    batch = EventBatch.from_events([event(i + 1, row_id=text) for i, text in enumerate(TEXTS)])
    with duckdb.connect() as database:
        database.register("batch", batch)
        found = [database.execute("SELECT sequence FROM batch WHERE row_id = ?", [text]).fetchall() for text in TEXTS]
    assert found == [[(i + 1,)] for i in range(len(TEXTS))]
    frame = pl.DataFrame(batch)
    assert [frame.filter(pl.col("row_id") == text)["sequence"].to_list() for text in TEXTS] == [
        [i + 1] for i in range(len(TEXTS))
    ]
    assert rows_of(imported(batch)) == as_fields(batch)
