"""A pandas frame that was filtered comes back: its index is not a column of it, and pandas says which it is."""

# The stubs of pyarrow and pandas lag behind them, and know no Arrow capsules.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false

from __future__ import annotations

import struct
from collections.abc import Callable

import pandas as pd
import pyarrow as pa
import pytest

from nodedb_ring import BatchError, EventBatch

from .capsules import schema_in
from .tables import EXPECTED, Source, table


def pandas_frame() -> pd.DataFrame:
    frame = table(user_id=["u", "v", "w"]).to_pandas()
    # Filtered so that its index is not a range any more, and is stored as a column.
    return frame[[True, False, True]].pipe(lambda part: pd.concat([part, part.iloc[:1]]))


FRAMES: dict[str, Callable[[pd.DataFrame], object]] = {
    "filtered": lambda frame: frame,
    "sorted": lambda frame: frame.sort_values("lsn", ascending=False),
    "an index with a name": lambda frame: frame.rename_axis("where it came from"),
    "an index whose name is not a str": lambda frame: frame.rename_axis(7),
    "an index of two levels": lambda frame: frame.set_index([pd.Index(["x", "y", "z"]), pd.Index([1.5, 2.5, 3.5])]),
    "an index of timestamps": lambda frame: frame.set_index(pd.date_range("2024-01-01", periods=3)),
    "a range": lambda frame: frame.reset_index(drop=True),
    "an index that is a field": lambda frame: frame.set_index("sequence"),
    "two of them": lambda frame: frame.set_index(["lsn", "op"]),
    "a field and something else": lambda frame: frame.set_index(["lsn", pd.Index([True, False, True], name="more")]),
    "through pyarrow": pa.Table.from_pandas,
    "through a batch of pyarrow's": lambda frame: pa.Table.from_pandas(frame).combine_chunks().to_batches()[0],
    "its index first": lambda frame: pa.Table.from_pandas(frame).select(["__index_level_0__", *frame.columns]),
}


@pytest.mark.filterwarnings("ignore:The DataFrame has non-str index name")
@pytest.mark.parametrize("kind", FRAMES)
def test_a_pandas_frame_comes_back_without_its_index(kind: str) -> None:
    source = FRAMES[kind](pandas_frame())
    batch = EventBatch.from_arrow(source)
    expected = [(7, "t", 1, "u"), (9, "", 3, "w"), (7, "t", 1, "u")]
    if kind == "sorted":
        expected = [expected[1], expected[0], expected[2]]
    assert [(each.sequence, each.collection, each.lsn, each.user_id) for each in batch] == expected


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {b"pandas": b""},
        {b"pandas": b"\xff"},
        {b"pandas": b"[]"},
        {b"pandas": b"{}"},
        {b"pandas": b"null"},
        {b"pandas": b'{"index_columns": null}'},
        {b"pandas": b'{"index_columns": 5}'},
        {b"pandas": b'{"index_columns": [{"kind": "range", "name": "__index_level_0__"}, 5, ["__index_level_0__"]]}'},
        {b"pandas": b'{"index_columns": ["__index_level_1__"], "columns": ["__index_level_0__"]}'},
        {b"pandas": b"[" * 100_000},
        {b"polars": b'{"index_columns": ["__index_level_0__"]}', b"": b"pandas", b"pandas2": b"pandas"},
        {b"a value": b"pandas", b'{"index_columns": ["__index_level_0__"]}': b"", b"pandas": b"{}"},
    ],
)
def test_only_what_the_metadata_calls_an_index_is_left_out(metadata: dict[bytes, bytes] | None) -> None:
    named_like_one = table().append_column("__index_level_0__", pa.array([1, 2, 3])).replace_schema_metadata(metadata)
    with pytest.raises(BatchError, match="column '__index_level_0__': no such field"):
        EventBatch.from_arrow(named_like_one)


def test_a_level_is_called_by_a_str() -> None:
    for name in ("5", "None"):
        source = table().append_column(name, pa.array([1, 2, 3]))
        with pytest.raises(BatchError, match=f"column '{name}': no such field"):
            EventBatch.from_arrow(source.replace_schema_metadata({b"pandas": b'{"index_columns": [5, null]}'}))


def test_a_column_beside_the_index_is_refused_by_name() -> None:
    frame = pandas_frame().assign(more=1)
    with pytest.raises(BatchError, match="column 'more': no such field"):
        EventBatch.from_arrow(frame)


def test_metadata_that_is_found_behind_other_metadata() -> None:
    metadata = {b"a": b"x" * 300, b"": b"", b"pandas": b'{"index_columns": ["__index_level_0__"]}', b"z": b"pandas"}
    source = table().append_column("__index_level_0__", pa.array([1, 2, 3])).replace_schema_metadata(metadata)
    assert list(EventBatch.from_arrow(source)) == EXPECTED


def test_metadata_that_is_broken_is_refused() -> None:
    batch = table().combine_chunks().to_batches()[0]
    for sizes in ([1, -1], [1, 6, -5]):
        schema_capsule, array = batch.__arrow_c_array__()
        count, first, *rest = sizes
        broken = struct.pack("=ii", count, first) + (b"pandas" + struct.pack("=i", *rest) if rest else b"")
        schema_in(schema_capsule).metadata = broken
        with pytest.raises(BatchError, match=r"metadata of -[15] bytes: is broken"):
            EventBatch.from_arrow(Source(array=(schema_capsule, array)))
