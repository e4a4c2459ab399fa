"""The columns as an importer asks for them: ``requested_schema``, column by column, in arrays and streams."""

# The stubs of pyarrow and pandas lag behind them, and know no Arrow capsules.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodedb_ring import BatchError, EventBatch
from nodedb_ring.batch.schema import STRING_FIELDS, VALUE_FIELDS
from tests.unit.builders import batch as batch_of
from tests.unit.builders import ring

from .columns import DEFAULT, DICTIONARY, FIELDS, PLAIN, Asked, as_fields, asked, imported, rows_of, varied, with_types

NAMES: Final = ("op", "source")
TEXT_TYPES: Final = (pa.string(), pa.large_string(), pa.string_view())
VALUE_TYPES: Final = (pa.binary(), pa.large_binary(), pa.binary_view())


@settings(max_examples=200, deadline=None)
@given(
    types=st.fixed_dictionaries(
        {
            **dict.fromkeys(STRING_FIELDS, st.sampled_from(TEXT_TYPES)),
            **dict.fromkeys(VALUE_FIELDS, st.sampled_from(VALUE_TYPES)),
            **dict.fromkeys(NAMES, st.sampled_from([*TEXT_TYPES, DICTIONARY])),
        }
    ),
    count=st.sampled_from([0, 1, 128, 300]),
    skipped=st.integers(0, 200),
)
def test_each_column_has_the_requested_type(types: dict[str, pa.DataType], count: int, skipped: int) -> None:
    events = varied(count)
    batch = EventBatch.from_events(events)[skipped:]
    schema = with_types(types)
    for source in (batch, batch.plain()):
        record_batch = asked(source, schema)
        assert record_batch.schema == schema
        assert rows_of(record_batch) == as_fields(events[skipped:])
        reader = pa.RecordBatchReader.from_stream(Asked(source, schema))
        assert reader.schema == schema
        assert rows_of(reader.read_all()) == as_fields(events[skipped:])


@pytest.mark.parametrize(
    "types",
    [
        {"collection": pa.binary(), "new_value": pa.string()},
        {"collection": DICTIONARY, "user_id": pa.null(), "row_id": pa.int32()},
        {"op": pa.dictionary(pa.int32(), pa.string()), "source": pa.dictionary(pa.int8(), pa.large_string())},
        {"op": pa.int8(), "source": pa.uint8()},
        {"sequence": pa.int64(), "lsn": pa.float64(), "system_time_ms": pa.timestamp("us"), "count": pa.string()},
    ],
)
def test_an_unavailable_type_falls_back_to_the_default(types: dict[str, pa.DataType]) -> None:
    batch = EventBatch.from_events(varied(100))
    assert asked(batch, with_types(types)).equals(imported(batch))
    plain = asked(batch.plain(), with_types(types, PLAIN))
    assert plain.equals(imported(batch.plain()))
    # What else is asked for is not given up for it.
    both = asked(batch, with_types(types, PLAIN))
    assert both.schema == with_types({name: DEFAULT.field(name).type for name in types}, PLAIN)
    assert rows_of(both) == as_fields(batch)


def test_pyarrow_gets_the_schema_that_it_asks_for() -> None:
    events = varied(200)
    batch = EventBatch.from_events(events)
    large = with_types(dict.fromkeys(STRING_FIELDS, pa.large_string()) | dict.fromkeys(VALUE_FIELDS, pa.large_binary()))
    for schema in (PLAIN, large):
        assert pa.record_batch(batch, schema=schema).schema == schema
        assert rows_of(pa.table(batch, schema=schema)) == as_fields(events)
        assert pa.RecordBatchReader.from_stream(batch, schema=schema).schema == schema


def test_a_projection_is_asked_for_its_own_columns() -> None:
    batch = EventBatch.from_events(varied(200))
    schema = pa.schema([PLAIN.field(name) for name in ("user_id", "op", "lsn")])
    record_batch = asked(batch.select("user_id", "op", "lsn"), schema)
    assert record_batch.equals(imported(batch.plain()).select(["user_id", "op", "lsn"]))
    with pytest.raises(BatchError, match="requested_schema of 15 columns: must be of user_id, op, lsn"):
        asked(batch.select("user_id", "op", "lsn"), PLAIN)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (pa.schema([]), "requested_schema of 0 columns: must be of sequence, collection, op"),
        (pa.schema([PLAIN.field("op")]), r"of 1 columns: must be of .*; select\(...\) makes a batch of fewer"),
        (PLAIN.append(pa.field("more", pa.string())), "requested_schema of 16 columns"),
        (
            pa.schema([PLAIN.field(name) for name in FIELDS[::-1]]),
            r"column 0 is 'statement_digest', and here it is 'sequence'; select\(...\) makes them in another order",
        ),
        (PLAIN.set(2, pa.field("Op", pa.string())), "column 2 is 'Op', and here it is 'op'"),
        (PLAIN.set(2, pa.field("größe", pa.string())), "column 2 is 'größe'"),
    ],
)
def test_a_schema_of_other_columns_is_refused(schema: pa.Schema, message: str) -> None:
    batch = batch_of(1, 3)
    calls: list[Callable[[object], object]] = [
        batch.__arrow_c_array__,
        batch.__arrow_c_stream__,
        batch.plain().__arrow_c_array__,
        batch.plain().__arrow_c_stream__,
        ring()[1].__arrow_c_stream__,
        ring()[1].plain().__arrow_c_stream__,
    ]
    for call in calls:
        with pytest.raises(BatchError, match=message):
            call(schema.__arrow_c_schema__())


@pytest.mark.parametrize("what", [3, "schema", PLAIN, object()])
def test_other_capsules_are_refused(what: object) -> None:
    batch = batch_of(1, 3)
    for requested in (what, batch.__arrow_c_array__()[1], batch.__arrow_c_stream__()):
        with pytest.raises(TypeError, match="must be the capsule of an ArrowSchema"):
            batch.__arrow_c_array__(requested)


def test_a_type_without_columns_is_refused() -> None:
    with pytest.raises(BatchError, match=r"Arrow format 'u': must be '\+s', columns"):
        batch_of(1, 1).__arrow_c_array__(pa.string().__arrow_c_schema__())


def test_the_capsule_of_a_requested_schema_stays_the_importers() -> None:
    capsule = PLAIN.__arrow_c_schema__()
    for _ in range(2):
        schema, _array = batch_of(1, 1).__arrow_c_array__(capsule)
        assert pa.Schema._import_from_c_capsule(schema) == PLAIN
    assert pa.Schema._import_from_c_capsule(capsule) == PLAIN
    with pytest.raises(BatchError, match="already consumed"):
        batch_of(1, 1).__arrow_c_array__(capsule)


def test_a_consumer_is_asked_for_a_schema() -> None:
    producer, consumer = ring(1024, arena_bytes=2**20)
    events = varied(100)
    large = with_types(dict.fromkeys(STRING_FIELDS, pa.large_string()))
    for schema, source in (
        (PLAIN, consumer),
        (large, consumer),
        (DEFAULT, consumer.plain()),
        (large, consumer.plain()),
    ):
        producer.emit_batch(EventBatch.from_events(events))
        reader = pa.RecordBatchReader.from_stream(source, schema=schema)
        assert reader.schema == schema
        assert rows_of(reader.read_next_batch()) == as_fields(events)
        del reader
