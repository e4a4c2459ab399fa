"""EventBatch.from_arrow: schemas, nulls, values and objects that are refused, by name."""

# The stubs of pyarrow and pandas lag behind them, and know no Arrow capsules.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from nodedb_ring import BatchError, EventBatch
from tests.unit.builders import event

from .columns import imported
from .tables import COLUMNS, read, table


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("lsn", pa.array([1.0, 2.0, 3.0]), "column 'lsn' is float64: must be an integer type"),
        ("lsn", pa.array(["1", "2", "3"]), "column 'lsn' is utf8: must be an integer type"),
        ("lsn", pa.array([True, False, True]), "column 'lsn' is bool: must be an integer type"),
        (
            "lsn",
            pa.array([1, 2, 3]).dictionary_encode(),
            "column 'lsn' is dictionary of int64: must be an integer type",
        ),
        ("lsn", pa.array([1, 2, 3], pa.timestamp("ms")), "column 'lsn' is timestamp[ms]: must be an integer type"),
        (
            "sequence",
            pa.array([1, 2, 3], pa.decimal128(5, 0)),
            "column 'sequence' is decimal(5,0): must be an integer type",
        ),
        ("collection", pa.array([1, 2, 3]), "column 'collection' is int64: must be utf8, large_utf8, utf8_view or a"),
        ("collection", pa.array([b"", b"", b""]), "column 'collection' is binary: must be utf8"),
        ("row_id", pa.array([[1], [2], [3]]), "column 'row_id' is list: must be utf8"),
        ("row_id", pa.array([1, 1, 2]).dictionary_encode(), "column 'row_id' is dictionary of int64: must be utf8"),
        (
            "op",
            pa.array([b"", b"", b""]),
            "column 'op' is binary: must be names, as utf8 or a dictionary of it, or numbers",
        ),
        ("op", pa.array([1, 1, 2]).dictionary_encode(), "column 'op' is dictionary of int64: must be names"),
        ("source", pa.array([0.5, 0.5, 0.5]), "column 'source' is float64: must be names"),
        ("new_value", pa.array(["a", "b", "c"]), "column 'new_value' is utf8: must be binary, large_binary"),
        ("old_value", pa.array([1, 2, 3]), "column 'old_value' is int64: must be binary"),
        ("user_id", pa.array([b"", b"", b""], pa.binary(0)), "column 'user_id' is fixed-size binary(0): must be utf8"),
        ("system_time_ms", pa.array([1, 2, 3], pa.date32()), "column 'system_time_ms' is date32: must be timestamp"),
        (
            "valid_time_ms",
            pa.array([1, 2, 3], pa.time32("ms")),
            "column 'valid_time_ms' is time32[ms]: must be timestamp",
        ),
        ("valid_time_ms", pa.array([1, 2, 3], pa.duration("ms")), "is of the Arrow format 'tDm': must be timestamp"),
        ("lsns", pa.array([1, 2, 3]), "column 'lsns': no such field; select those that are: collection"),
        ("lsn", None, "columns missing: lsn"),
        ("op", None, "columns missing: op"),
    ],
)
def test_a_wrong_schema_is_refused_by_name(column: str, value: pa.Array | None, message: str) -> None:
    with pytest.raises(BatchError) as caught:
        read(**{column: value})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "column", ["sequence", "collection", "op", "row_id", "lsn", "tenant_id", "vshard_id", "source", "count"]
)
def test_a_null_where_there_must_be_a_value(column: str) -> None:
    whole = imported(EventBatch.from_events([event(1), event(2), event(3)]))
    values = whole.column(column).to_pylist()
    values[1] = None
    place = whole.schema.get_field_index(column)
    holed = whole.set_column(place, pa.field(column, pa.array(values).type), pa.array(values))
    with pytest.raises(BatchError, match=f"row 1: {column} is null: must have a value"):
        EventBatch.from_arrow(holed)
    untyped = whole.set_column(place, pa.field(column, pa.null()), pa.nulls(3))
    with pytest.raises(BatchError, match=f"row 0: {column} is null: must have a value"):
        EventBatch.from_arrow(untyped)


def test_a_null_in_a_dictionary() -> None:
    words = pa.array(["a", None])
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int8()), words)
    assert read(user_id=column).strings("user_id").tolist() == ["a", None, None]
    with pytest.raises(BatchError, match="row 1: collection is null"):
        read(collection=column)


def test_rows_are_counted_across_arrays() -> None:
    with pytest.raises(BatchError, match="row 4: lsn -2"):
        EventBatch.from_arrow(pa.concat_tables([table(), table(lsn=[1, -2, 3])]))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("op", ["INSERT", "UPSERT", "DELETE"], "row 1: op 'UPSERT': unknown; known are INSERT, UPDATE, DELETE"),
        ("op", ["INSERT", "insert", "DELETE"], "row 1: op 'insert': unknown"),
        ("op", [1, 2, 7], "row 2: op 7: unknown; known are 1 (INSERT)"),
        ("op", [0, 2, 3], "row 0: op 0: unknown"),
        ("source", ["user", "user", ""], "row 2: source '': unknown; known are user, trigger"),
        ("source", [0, 5, 0], "row 1: source 5: unknown"),
    ],
)
def test_an_unknown_operation_or_source(column: str, value: list[Any], message: str) -> None:
    with pytest.raises(BatchError) as caught:
        read(**{column: value})
    assert message in str(caught.value)


def test_a_column_twice() -> None:
    twice = pa.Table.from_arrays([*table().columns, table().column(0)], [*table().schema.names, "sequence"])
    with pytest.raises(BatchError, match="column 'sequence': is there twice"):
        EventBatch.from_arrow(twice)


def test_rows_that_are_null_as_a_whole() -> None:
    struct = table().to_batches()[0].to_struct_array()
    holed = pa.StructArray.from_arrays(
        [struct.field(i) for i in range(5)], names=list(COLUMNS), mask=pa.array([False, True, False])
    )
    with pytest.raises(BatchError, match="row 1: is null as a whole"):
        EventBatch.from_arrow(holed)


@pytest.mark.parametrize("source", [None, 7, "text", [1, 2], {"sequence": [1]}, np.zeros(3), object()])
def test_an_object_without_capsules(source: object) -> None:
    with pytest.raises(TypeError, match="has neither __arrow_c_array__ nor __arrow_c_stream__"):
        EventBatch.from_arrow(source)


@pytest.mark.parametrize(
    "column",
    [
        lambda: pa.array([1, 2]),
        lambda: pl.Series([1.5]),
        lambda: pa.array([[1]]),
        lambda: pa.chunked_array([["a"]]),
    ],
)
def test_invalid_columns(column: Callable[[], object]) -> None:
    with pytest.raises(BatchError, match="must be columns, as of a record batch, a table or a struct array"):
        EventBatch.from_arrow(column())


def test_a_stream_that_fails() -> None:
    def batches() -> Any:
        yield table().to_batches()[0]
        raise ValueError("the disk is gone")

    reader = pa.RecordBatchReader.from_batches(table().schema, batches())
    with pytest.raises(BatchError, match=r"the stream of RecordBatchReader failed with error .*the disk is gone"):
        EventBatch.from_arrow(reader)
