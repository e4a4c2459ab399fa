"""EventBatch.from_arrow: the types a column may come in."""

# The stubs of pyarrow and pandas lag behind them, and know no Arrow capsules.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodedb_ring import BatchError, EventBatch, WriteEvent
from tests.unit.builders import FULL

from .columns import VALUES, imported
from .tables import COLUMNS, EXPECTED, read, table


def test_the_required_columns_suffice() -> None:
    assert list(read()) == EXPECTED
    # With the defaults of WriteEvent: a heartbeat counts 0 rows.
    assert read().count.tolist() == [1, 1, 0]


def test_columns_come_in_any_order() -> None:
    assert list(EventBatch.from_arrow(table().select(list(COLUMNS)[::-1]))) == EXPECTED


def test_every_field() -> None:
    full = [WriteEvent(**FULL), WriteEvent(**(FULL | {"sequence": 1, "system_time_ms": None, "old_value": None}))]
    assert list(EventBatch.from_arrow(imported(EventBatch.from_events(full)))) == full


@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()]
)
def test_integers_of_any_width(kind: pa.DataType) -> None:
    names = ("sequence", "lsn", "tenant_id", "vshard_id", "count", "op", "source")
    columns = {name: pa.array([1, 2, 3], kind) for name in names}
    batch = read(**columns)
    for name in names:
        assert getattr(batch, name).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("column", "value", "allowed"),
    [
        ("sequence", -1, "0 .. 18446744073709551615"),
        ("lsn", -(2**63), "0 .. 18446744073709551615"),
        ("tenant_id", -1, "0 .. 18446744073709551615"),
        ("vshard_id", 2**32, "0 .. 4294967295"),
        ("count", -5, "0 .. 4294967295"),
        ("op", 256, "0 .. 255"),
        ("source", -1, "0 .. 255"),
        ("system_time_ms", 2**63, f"{-(2**63)} .. {2**63 - 1}"),
    ],
)
def test_an_integer_that_does_not_fit(column: str, value: int, allowed: str) -> None:
    with pytest.raises(BatchError) as caught:
        read(**{column: pa.array([1, value, 1], pa.uint64() if value >= 2**63 else pa.int64())})
    assert str(caught.value) == f"row 1: {column} {value}: must be in {allowed}"


@pytest.mark.parametrize(
    "index", [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()]
)
@pytest.mark.parametrize("values", [pa.string(), pa.large_string(), pa.string_view()])
def test_text_in_every_form(index: pa.DataType, values: pa.DataType) -> None:
    texts = ["t", "größe", "a name of more than 12 bytes"]

    def form(names: list[str | None]) -> pa.Array:
        words = list(dict.fromkeys(name for name in names if name is not None))
        indices = pa.array([None if name is None else words.index(name) for name in names], index)
        return pa.DictionaryArray.from_arrays(indices, pa.array(words).cast(values))

    columns: list[dict[str, pa.Array]] = [
        {"collection": form([*texts]), "op": form(["DELETE", "DELETE", "INSERT"]), "user_id": form([None, "u", None])},
        {
            "collection": pa.array(texts).cast(values),
            "op": pa.array(["DELETE", "DELETE", "INSERT"]).cast(values),
            "user_id": pa.array([None, "u", None]).cast(values),
        },
    ]
    for each in columns:
        batch = read(**each)
        assert batch.strings("collection").tolist() == texts
        assert batch.strings("user_id").tolist() == [None, "u", None]
        assert batch.op.tolist() == [3, 3, 1]


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int32(), pa.binary())]
)
def test_values_in_every_form(kind: pa.DataType) -> None:
    for part in (VALUES[:3], VALUES[3:6], VALUES[-3:]):
        column = pa.array(part, pa.binary())
        column = column.dictionary_encode() if pa.types.is_dictionary(kind) else column.cast(kind)
        assert read(new_value=column).values("new_value").tolist() == list(part)


def test_values_of_one_size() -> None:
    column = pa.array([b"ab", None, b"cd"], pa.binary(2))
    assert read(new_value=column).values("new_value").tolist() == [b"ab", None, b"cd"]
    assert read(new_value=pa.array([b"", None, b""], pa.binary(0))).values("new_value").tolist() == [b"", None, b""]


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
@pytest.mark.parametrize(("unit", "a_millisecond"), [("ms", 1), ("us", 1000), ("ns", 1_000_000)])
def test_stamps_of_every_unit(unit: str, a_millisecond: int, zone: str | None) -> None:
    # Whatever the zone, the number is an instant; without one it is taken for UTC.
    column = pa.array([1_700_000_000_123 * a_millisecond, None, -a_millisecond], pa.timestamp(unit, zone))
    batch = read(system_time_ms=column, valid_time_ms=column)
    none = -(2**63)
    assert batch.system_time_ms.tolist() == batch.valid_time_ms.tolist() == [1_700_000_000_123, none, -1]


def test_stamps_in_seconds_and_as_numbers() -> None:
    assert read(system_time_ms=pa.array([5, None, -5], pa.timestamp("s"))).system_time_ms.tolist() == [
        5000,
        -(2**63),
        -5000,
    ]
    assert read(system_time_ms=pa.array([5, None, -5], pa.int16())).system_time_ms.tolist() == [5, -(2**63), -5]
    assert read(valid_time_ms=pa.array([2**63 - 1, -(2**63), 0])).valid_time_ms.tolist() == [2**63 - 1, -(2**63), 0]


@pytest.mark.parametrize("unit", ["us", "ns"])
def test_a_timestamp_that_is_not_a_whole_number_of_milliseconds(unit: str) -> None:
    with pytest.raises(
        BatchError, match=f"row 2: valid_time_ms -1500 {unit}: is not a whole number of milliseconds; truncate"
    ):
        read(valid_time_ms=pa.array([0, None, -1500], pa.timestamp(unit)))


@pytest.mark.parametrize("seconds", [2**63 // 1000 + 1, -(2**63) // 1000 - 1])
def test_a_stamp_that_is_too_far_away(seconds: int) -> None:
    with pytest.raises(BatchError, match=f"row 0: system_time_ms {seconds} s: does not fit"):
        read(system_time_ms=pa.array([seconds, 0, 0], pa.timestamp("s")))


def test_all_null_columns_without_a_type() -> None:
    nothing = pa.nulls(3)
    names = ("new_value", "old_value", "system_time_ms", "valid_time_ms", "user_id", "statement_digest")
    assert list(read(**dict.fromkeys(names, nothing))) == EXPECTED
    assert list(EventBatch.from_arrow(table().slice(0, 0))) == []
    assert len(EventBatch.from_arrow(pa.table({name: pa.nulls(0) for name in COLUMNS}))) == 0


def test_parts_of_arrays() -> None:
    record_batch = table(user_id=[None, "u", "v"]).combine_chunks().to_batches()[0]
    struct = record_batch.to_struct_array()
    longer = pa.concat_arrays([struct, struct, struct])
    for start in range(9):
        for count in range(9 - start):
            batch = EventBatch.from_arrow(longer.slice(start, count))
            assert batch.sequence.tolist() == [7, 8, 9, 7, 8, 9, 7, 8, 9][start : start + count]
            assert batch.strings("user_id").tolist() == [None, "u", "v"] * 3 == [] or (
                batch.strings("user_id").tolist() == ([None, "u", "v"] * 3)[start : start + count]
            )
            # A slice of its columns, too: offsets on both levels.
            columns = [longer.field(i).slice(1) for i in range(longer.type.num_fields)]
            inner = pa.StructArray.from_arrays(columns, fields=list(longer.type)).slice(min(start, 8), count)
            numbers = ([7, 8, 9] * 3)[1:][start : start + count]
            assert EventBatch.from_arrow(inner).sequence.tolist() == numbers


def column_of(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, min_size=3, max_size=3)


TEXT = st.text(max_size=15)


@given(
    text=column_of(TEXT),
    user=column_of(st.none() | TEXT),
    value=column_of(st.none() | st.binary(max_size=15)),
    timestamp=column_of(st.none() | st.integers(-(2**63) + 1, 2**63 - 1)),
    number=column_of(st.integers(0, 2**64 - 1)),
    kind=st.sampled_from([pa.string(), pa.large_string(), pa.string_view()]),
    start=st.integers(0, 3),
)
@settings(deadline=None, max_examples=150)
def test_any_columns(
    text: list[str],
    user: list[str | None],
    value: list[bytes | None],
    timestamp: list[int | None],
    number: list[int],
    kind: pa.DataType,
    start: int,
) -> None:
    batch = EventBatch.from_arrow(
        table(
            sequence=pa.array(number, pa.uint64()),
            row_id=pa.array(text, pa.string()).cast(kind),
            user_id=pa.array(user, pa.string()).cast(kind),
            new_value=pa.array(value, pa.binary()),
            valid_time_ms=pa.array(timestamp, pa.timestamp("ms", "UTC")),
        ).slice(start)
    )
    assert batch.sequence.tolist() == number[start:]
    assert batch.strings("row_id").tolist() == text[start:]
    assert batch.strings("user_id").tolist() == user[start:]
    assert batch.values("new_value").tolist() == value[start:]
    assert [each.valid_time_ms for each in batch] == timestamp[start:]
