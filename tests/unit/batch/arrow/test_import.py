"""EventBatch.from_arrow: the types a column may come in, and what is refused, by name."""

# The stubs of pyarrow and pandas lag behind them, and know no Arrow capsules.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodedb_ring import BatchError, EventBatch, WriteEvent, WriteOp
from tests.unit.builders import FULL, event

from .capsules import ArrowArray, ArrowSchema, array_in, capsule_of, schema_in
from .columns import VALUES, imported

COLUMNS: dict[str, list[Any]] = {
    "sequence": [7, 8, 9],
    "collection": ["t", "größe", ""],
    "op": ["INSERT", "UPDATE", "HEARTBEAT"],
    "row_id": ["a", "", "a row id of more than 12 bytes"],
    "lsn": [1, 2, 3],
}
EXPECTED = [
    WriteEvent(sequence=7, collection="t", op=WriteOp.INSERT, row_id="a", lsn=1),
    WriteEvent(sequence=8, collection="größe", op=WriteOp.UPDATE, row_id="", lsn=2),
    WriteEvent(sequence=9, collection="", op=WriteOp.HEARTBEAT, row_id="a row id of more than 12 bytes", lsn=3),
]


def table(**columns: Any) -> pa.Table:
    """The columns above, with others instead; one that is None is left out."""
    return pa.table({name: column for name, column in (COLUMNS | columns).items() if column is not None})


def read(**columns: Any) -> EventBatch:
    return EventBatch.from_arrow(table(**columns))


def test_the_required_columns_suffice() -> None:
    assert list(read()) == EXPECTED
    # With the defaults of WriteEvent: a heartbeat counts 0 rows.
    assert read().count.tolist() == [1, 1, 0]


class Source:
    """Hands out capsules that it was given, again and again."""

    def __init__(self, *, array: object = None, stream: object = None) -> None:
        self._array = array
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        given = {"__arrow_c_array__": self._array, "__arrow_c_stream__": self._stream}.get(name)
        if given is None:
            raise AttributeError(name)
        return lambda requested_schema=None: given


def test_a_capsule_that_somebody_has_emptied_is_refused() -> None:
    stream = read().__arrow_c_stream__()
    assert pa.RecordBatchReader._import_from_c_capsule(stream).read_all().num_rows == 3
    with pytest.raises(BatchError, match="already consumed"):
        EventBatch.from_arrow(Source(stream=stream))
    schema, array = read().__arrow_c_array__()
    assert pa.RecordBatch._import_from_c_capsule(schema, array).num_rows == 3
    with pytest.raises(BatchError, match="already consumed"):
        EventBatch.from_arrow(Source(array=(schema, array)))
    with pytest.raises(BatchError, match="already consumed"):
        EventBatch.from_arrow(Source(array=(read().__arrow_c_schema__(), array)))


@pytest.mark.parametrize("width", ["-1", "9" * 30, "x", ""])
def test_an_invalid_width_is_refused(width: str) -> None:
    batch = table(new_value=[b"one", b"two", b"six"]).combine_chunks().to_batches()[0]
    schema_capsule, array = batch.__arrow_c_array__()
    form = f"w:{width}".encode()
    schema_in(schema_capsule).children[batch.schema.get_field_index("new_value")].contents.format = form
    with pytest.raises(BatchError, match="new_value"):
        EventBatch.from_arrow(Source(array=(schema_capsule, array)))


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


def test_text_that_is_not_utf8() -> None:
    broken = pa.array([b"ok", b"\xff", b""]).cast(pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, broken.buffers())
    with pytest.raises(BatchError, match=r"row 1: row_id b'\\xff': is not UTF-8 from its byte 0 on"):
        read(row_id=text)


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


@pytest.mark.parametrize("source", [pa.array([1, 2]), pl.Series([1.5]), pa.array([[1]]), pa.chunked_array([["a"]])])
def test_invalid_columns(source: object) -> None:
    with pytest.raises(BatchError, match="must be columns, as of a record batch, a table or a struct array"):
        EventBatch.from_arrow(source)


def test_a_stream_that_fails() -> None:
    def batches() -> Any:
        yield table().to_batches()[0]
        raise ValueError("the disk is gone")

    reader = pa.RecordBatchReader.from_batches(table().schema, batches())
    with pytest.raises(BatchError, match=r"the stream of RecordBatchReader failed with error .*the disk is gone"):
        EventBatch.from_arrow(reader)


class Broken:
    """Arrays whose structs were written over."""

    def __init__(self, source: pa.RecordBatch) -> None:
        self.capsules = source.__arrow_c_array__()
        self.schema: ArrowSchema = schema_in(self.capsules[0])
        self.array: ArrowArray = array_in(self.capsules[1])
        self.kept: list[Any] = []
        self.names = (b"arrow_schema", b"arrow_array")

    def column(self, name: str) -> ArrowArray:
        names = [self.schema.children[i].contents.name.decode() for i in range(self.schema.n_children)]
        child: ArrowArray = self.array.children[names.index(name)].contents
        return child

    def write(self, name: str, buffer: int, data: bytes) -> None:
        held = ctypes.create_string_buffer(data, len(data))
        self.kept.append(held)
        self.column(name).buffers[buffer] = ctypes.addressof(held)

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        return capsule_of(self.schema, self.names[0]), capsule_of(self.array, self.names[1])


def broken() -> Broken:
    columns = {"collection": pa.array(COLUMNS["collection"]).cast(pa.string_view())}
    columns["user_id"] = pa.array(["a", "b", "a"]).dictionary_encode()
    columns["row_id"] = pa.array([f"{n} rows of more than 12" for n in range(3)]).cast(pa.string_view())
    return Broken(table(**columns).to_batches()[0])


def int64s(*numbers: int) -> bytes:
    return np.array(numbers, np.int64).tobytes()


def int32s(*numbers: int) -> bytes:
    return np.array(numbers, np.int32).tobytes()


def test_the_undamaged_array_is_accepted() -> None:
    assert len(EventBatch.from_arrow(broken())) == 3


def garbage_too_short(it: Broken) -> None:
    it.column("lsn").length = 2


def garbage_negative_length(it: Broken) -> None:
    it.array.length = -1


def garbage_negative_offset(it: Broken) -> None:
    it.column("lsn").offset = -1


def garbage_huge_offset(it: Broken) -> None:
    it.column("lsn").offset = 2**63 - 2


def garbage_struct_offset(it: Broken) -> None:
    it.array.offset = 1


def garbage_children(it: Broken) -> None:
    it.array.n_children = 3


def garbage_buffers(it: Broken) -> None:
    it.column("op").n_buffers = 2


def garbage_no_data(it: Broken) -> None:
    it.column("lsn").buffers[1] = None


def garbage_no_text(it: Broken) -> None:
    it.column("op").buffers[2] = None


def garbage_falling_offsets(it: Broken) -> None:
    it.write("op", 1, int32s(0, 6, 5, 12))


def garbage_negative_start(it: Broken) -> None:
    it.write("op", 1, int32s(-6, 0, 6, 12))


def garbage_view_buffer(it: Broken) -> None:
    it.write("row_id", 1, int32s(20, 0, 9, 0) * 3)


def garbage_view_offset(it: Broken) -> None:
    it.write("row_id", 1, int32s(20, 0, 0, -1) * 3)


def garbage_view_end(it: Broken) -> None:
    it.write("row_id", 1, int32s(20, 0, 0, 2**31 - 20) * 3)


def garbage_view_length(it: Broken) -> None:
    it.write("row_id", 1, int32s(-20, 0, 0, 0) * 3)


def garbage_view_sizes(it: Broken) -> None:
    it.column("row_id").buffers[it.column("row_id").n_buffers - 1] = None


def garbage_view_without_payload(it: Broken) -> None:
    it.column("row_id").buffers[2] = None


def garbage_few_view_buffers(it: Broken) -> None:
    it.column("row_id").n_buffers = 2


def garbage_no_dictionary(it: Broken) -> None:
    it.column("user_id").dictionary = None


def garbage_dictionary_length(it: Broken) -> None:
    it.column("user_id").dictionary.contents.length = -2


def garbage_no_schema_format(it: Broken) -> None:
    it.schema.children[0].contents.format = None


def garbage_many_columns(it: Broken) -> None:
    it.schema.n_children = -1


@pytest.mark.parametrize("name", [name for name in list(globals()) if name.startswith("garbage_")])
def test_garbage_is_an_error_and_not_a_crash(name: str) -> None:
    it = broken()
    globals()[name](it)
    with pytest.raises(BatchError):
        EventBatch.from_arrow(it)


@pytest.mark.parametrize("index", [2, 3, -1, 2**31 - 1])
def test_an_index_that_its_dictionary_does_not_have(index: int) -> None:
    it = broken()
    it.write("user_id", 1, int32s(0, index, 0))
    with pytest.raises(BatchError, match=f"row 1: user_id is entry {index} of a dictionary of 2"):
        EventBatch.from_arrow(it)


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
