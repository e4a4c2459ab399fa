"""``plain()``: text as utf8, values as binary, no dictionaries; what it copies, how far, and what it holds."""

# The stubs of pyarrow and pandas lag behind them, and know no Arrow capsules.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false

from __future__ import annotations

import ctypes
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodedb_ring import (
    EVENT_DTYPE,
    BatchError,
    ClosedError,
    CorruptRingError,
    EventBatch,
    Projection,
)
from nodedb_ring.batch.arrow._export import export_array
from nodedb_ring.batch.arrow._export_stream import export_stream
from nodedb_ring.batch.arrow._schema import EVERY_COLUMN, EVERY_COLUMN_PLAIN
from tests.unit.builders import batch as batch_of
from tests.unit.builders import event, fill, raw_rows, ring, sized
from tests.unit.runners import Running, in_thread, resident_bytes
from tests.unit.shared_buses import BusMaker

from .capsules import array_in, moved, release, schema_in
from .columns import DEFAULT, FIELDS, PLAIN, as_fields, asked, imported, rows_of, varied, views, with_types

# ---- what is in it ----------------------------------------------------------------------------------------------


def test_the_plain_schema() -> None:
    batch = batch_of(1, 1)
    assert pa.schema(batch.plain()) == PLAIN
    assert pa.record_batch(batch.plain()).schema == pa.table(batch.plain()).schema == PLAIN
    assert isinstance(batch.plain(), Projection)
    assert batch.plain().columns == FIELDS
    assert repr(batch.select("op", "lsn").plain()) == "Projection(op, lsn of 1 events, plain)"
    # An importer that asks for nothing sees what it saw.
    assert pa.schema(batch) == DEFAULT


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 127, 128, 129, 255, 256, 700])
def test_every_field_of_every_event(count: int, portable: bool) -> None:
    events = varied(count)
    plain = imported(EventBatch.from_events(events), selection=EVERY_COLUMN_PLAIN, portable=portable)
    assert plain.schema == PLAIN
    assert rows_of(plain) == as_fields(events)


@pytest.mark.parametrize("first", [0, 1, 127, 128, 129, 256, 300, 700])
def test_the_first_value_behind_many_that_are_none(first: int) -> None:
    # Until then nothing was written, neither ends nor validity.
    given = {"user_id": "somebody", "new_value": b"v" * 20, "system_time_ms": 7}
    events = [event(i, **(given if i - 1 == first else {})) for i in range(1, 702)]
    plain = imported(EventBatch.from_events(events).plain())
    assert rows_of(plain) == as_fields(events)
    assert plain.column("user_id").null_count == 700
    assert plain.column("old_value").null_count == 701


def test_a_none_may_point_anywhere() -> None:
    records = np.zeros(300, EVENT_DTYPE)
    records["op"] = 1
    records["row_id_length"] = np.arange(300) % 4
    for name in ("user_id", "statement_digest", "new_value", "old_value"):
        records[f"{name}_length"] = 2**32 - 1
        records[f"{name}_offset"] = 2**32 - 7
    records["new_value_length"][200] = 2
    records["new_value_offset"][200] = 1
    plain = imported(EventBatch(records, b"abc").plain())
    assert plain.column("row_id").to_pylist() == ["", "a", "ab", "abc"] * 75
    assert plain.column("new_value").to_pylist() == [None] * 200 + [b"bc"] + [None] * 99


def test_events_may_share_their_bytes() -> None:
    # More text than there is payload: what it takes is counted, not guessed.
    records = raw_rows(5000)
    records["collection_length"] = records["new_value_length"] = 1000
    plain = imported(EventBatch(records, b"x" * 1000).plain())
    assert plain.column("collection").to_pylist() == ["x" * 1000] * 5000
    assert plain.column("new_value").to_pylist() == [b"x" * 1000] * 5000


def test_batches_of_every_origin() -> None:
    events = varied(600)
    whole = EventBatch.from_events(events)
    producer, consumer = ring(1024, arena_bytes=2**20)
    producer.emit_batch(whole)
    scattered = EventBatch(whole.records[::-1].copy(), whole.payload)
    for batch, expected in (
        (whole[100:350], events[100:350]),
        (whole[100:350][5:50], events[105:150]),
        (whole[600:], []),
        (whole[::2], events[::2]),
        (consumer.drain(600), events),
        (scattered[10:200], events[::-1][10:200]),
        (EventBatch.concat([whole[:7], whole[300:]]), events[:7] + events[300:]),
    ):
        assert rows_of(imported(batch.plain())) == as_fields(expected)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 255, 256, 257, 1023, 1024, 1025, 3000])
def test_values_of_every_size(size: int) -> None:
    value = bytes(i % 251 for i in range(size))
    batch = EventBatch.from_events([event(i, new_value=value, old_value=value[:3]) for i in range(1, 12)])
    for record_batch in (imported(batch.plain()), imported(batch[3:9].plain())):
        assert set(record_batch.column("new_value").to_pylist()) == {value}
        assert set(record_batch.column("old_value").to_pylist()) == {value[:3]}


def test_bitmaps_only_where_something_is_null() -> None:
    batch = EventBatch.from_events([event(i, new_value=b"x", user_id="u" if i % 2 else None) for i in range(1, 200)])
    plain = imported(batch.plain())
    for name, nulls in (("new_value", 0), ("user_id", 99), ("old_value", 199), ("valid_time_ms", 199)):
        assert plain.column(name).null_count == nulls
        assert (plain.column(name).buffers()[0] is None) == (nulls == 0)


@settings(max_examples=150, deadline=None)
@given(
    columns=st.permutations(FIELDS).flatmap(lambda mixed: st.integers(1, 15).map(lambda n: tuple(mixed[:n]))),
    count=st.sampled_from([1, 64, 130, 400]),
    first=st.integers(0, 60),
)
def test_any_columns(columns: tuple[str, ...], count: int, first: int) -> None:
    events = varied(count)
    record_batch = imported(EventBatch.from_events(events)[first:].select(*columns).plain())
    assert record_batch.schema == pa.schema([PLAIN.field(name) for name in columns])
    assert rows_of(record_batch) == [{name: row[name] for name in columns} for row in as_fields(events[first:])]


def test_there_and_back() -> None:
    events = varied(300)
    assert list(EventBatch.from_arrow(EventBatch.from_events(events).plain())) == events


# ---- more than offsets of 32 bits reach -------------------------------------------------------------------------


def test_an_array_of_too_much_text_is_refused() -> None:
    # With 2 ** 31 - 1 in place of 1000 this is a batch of more than 2 GiB.
    batch = EventBatch.from_events([sized(i, 300) for i in range(1, 11)])
    with pytest.raises(BatchError, match=r"3 of 10 events fit one array: .* at most 1000 bytes; export parts"):
        export_array(batch._block, EVERY_COLUMN_PLAIN, longest=1000)  # pyright: ignore[reportPrivateUsage]
    assert imported(batch, selection=EVERY_COLUMN_PLAIN, longest=3000).num_rows == 10
    # Neither views nor offsets of 64 bits have that bound.
    assert imported(batch, longest=1000).num_rows == 10
    large = with_types({"new_value": pa.large_binary(), "op": pa.large_string()})
    capsules = export_array(batch._block, EVERY_COLUMN, large.__arrow_c_schema__(), longest=1000)  # pyright: ignore[reportPrivateUsage]
    assert pa.RecordBatch._import_from_c_capsule(*capsules).schema == large


class Parts:
    """A stream whose arrays have at most so many bytes of text a column."""

    def __init__(self, batches: list[EventBatch], longest: int) -> None:
        self._batches = batches
        self._longest = longest

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        coming = iter(self._batches)
        return export_stream(lambda: next(coming, None), EVERY_COLUMN_PLAIN, longest=self._longest)


@pytest.mark.parametrize("longest", [300, 301, 599, 600, 1000, 10_000])
def test_a_stream_of_too_much_text_comes_in_parts(longest: int) -> None:
    events = [sized(i, 300) for i in range(1, 11)]
    batches = [EventBatch.from_events(events), batch_of(11, 15), EventBatch.from_events(events)[4:]]
    parts = list(pa.RecordBatchReader.from_stream(Parts(batches, longest)))
    for part in parts:
        part.validate(full=True)
        assert part.column("new_value").nbytes <= longest + 8 * part.num_rows + 8
    assert [number for part in parts for number in part.column("sequence").to_pylist()] == [
        *range(1, 16),
        *range(5, 11),
    ]
    assert rows_of(parts[0]) == as_fields(events[: longest // 300])


def test_parts_by_the_names_of_operations() -> None:
    # 6 bytes of "INSERT" each, and "user" of 4.
    parts = list(pa.RecordBatchReader.from_stream(Parts([batch_of(1, 20)], 18)))
    assert [part.num_rows for part in parts] == [3, 3, 3, 3, 3, 3, 2]


def test_a_value_that_is_too_long_by_itself_is_an_error_of_the_stream() -> None:
    reader = pa.RecordBatchReader.from_stream(Parts([EventBatch.from_events([sized(1, 300)])], 299))
    with pytest.raises(pa.ArrowInvalid, match="new_value of 300 bytes: utf8 and binary of Arrow hold at most 299"):
        reader.read_next_batch()


# ---- what it holds ----------------------------------------------------------------------------------------------


def test_it_holds_nothing_of_the_batch() -> None:
    batch = EventBatch.from_events(varied(500))
    plain = imported(batch.plain())
    assert views(batch) == 0
    # One column that refers to the payload does.
    mixed = asked(batch, with_types({"user_id": pa.string_view()}, PLAIN))
    assert views(batch) == 1
    del mixed
    assert views(batch) == 0
    assert rows_of(plain) == as_fields(batch)


def test_it_outlives_a_lease() -> None:
    producer, consumer = ring(16, arena_bytes=1024)
    events = [event(i, collection=f"a longer name of table {i}", new_value=bytes([i]) * 20) for i in range(1, 9)]
    assert producer.emit_batch(EventBatch.from_events(events)) == 8
    with consumer.lease() as leased:
        plain = imported(leased.plain())
        reader = pa.RecordBatchReader.from_stream(leased.plain())
    assert consumer.stats().held == 0
    for _ in range(10):
        fill(producer, 9, 20)
        assert len(consumer.drain()) == 12
    assert rows_of(plain) == as_fields(events)
    # What had not been read when the lease ended is refused.
    with pytest.raises(pa.ArrowInvalid, match="ClosedError"):
        reader.read_next_batch()
    with pytest.raises(ClosedError):
        leased.plain().__arrow_c_array__()


def test_text_of_a_shared_ring_is_checked_as_it_was_copied(make_bus: BusMaker) -> None:
    for text in ("flights", "a longer name of a table"):
        bus = make_bus(capacity=1024)
        with bus.producer(0) as producer, bus.consumer(0) as consumer:
            producer.emit_batch(EventBatch.from_events([event(i, collection=text) for i in range(1, 301)]))
            raw = bus.path.read_bytes()
            at = -1
            for _ in range(250):
                at = raw.index(text.encode(), at + 1)
            with bus.path.open("r+b") as file:
                file.seek(at + len(text) - 1)
                file.write(b"\xff")
            with consumer.lease(300) as leased:
                with pytest.raises(CorruptRingError):
                    leased.plain().__arrow_c_array__()
                assert imported(leased.select("row_id", "lsn").plain()).num_rows == 300
                assert rows_of(imported(leased[:249].plain()))[248]["collection"] == text
            consumer.close()


def test_a_broken_character_is_not_mended_by_the_next_value(make_bus: BusMaker) -> None:
    # Side by side in their column the halves are one character, and each alone is none.
    bus = make_bus()
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        events = [event(1, collection="x", row_id="first", new_value=b"v"), event(2, collection="y", row_id="second")]
        producer.emit_batch(EventBatch.from_events(events))
        raw = bus.path.read_bytes()
        with bus.path.open("r+b") as file:
            for place, byte in zip((raw.index(b"first") + 4, raw.index(b"second")), "é".encode(), strict=True):
                file.seek(place)
                file.write(bytes([byte]))
        batch = consumer.drain()
        with pytest.raises(CorruptRingError):
            batch.select("row_id").plain().__arrow_c_array__()


@pytest.mark.parametrize("with_gil", [False, True])
def test_a_release_on_another_thread(with_gil: bool) -> None:
    batch = EventBatch.from_events([sized(i, 100) for i in range(1, 3001)])
    expected = imported(batch.plain())

    def export() -> None:
        _, capsule = batch.plain().__arrow_c_array__()
        struct = moved(array_in(capsule))
        columns = [moved(struct.children[i].contents) for i in range(struct.n_children)]
        values = columns[FIELDS.index("new_value")]
        in_thread(lambda: release(struct, with_gil=with_gil))
        for column in columns:
            if column is not values:
                in_thread(lambda column=column: release(column, with_gil=with_gil))  # type: ignore[misc]
        # One column keeps the text of all: nobody else is given its memory.
        assert imported(batch.plain()).equals(expected)
        assert ctypes.string_at(values.buffers[2], 300_000) == b"".join(expected.column("new_value").to_pylist())
        in_thread(lambda: release(values, with_gil=with_gil))

    for _ in range(10):
        export()
    before = resident_bytes()
    for _ in range(50):
        export()
    # 50 of some 700 KiB.
    assert resident_bytes() - before < 2000 * 4096
    assert views(batch) == 0


def test_large_batches_on_many_threads() -> None:
    # So large that the passes let other threads run.
    batch = EventBatch.concat([EventBatch.from_events(varied(2000))] * 20)
    expected = pa.table(batch).cast(PLAIN)

    def export() -> int:
        return [pa.table(batch.plain()).equals(expected) for _ in range(10)].count(True)

    assert [thread.result() for thread in [Running(export) for _ in range(4)]] == [10] * 4


def test_nothing_leaks() -> None:
    batch = EventBatch.from_events([sized(i, 50) for i in range(1, 1000)])
    broken = EventBatch.from_events([sized(i, 300) for i in range(1, 200)])
    requested = PLAIN.__arrow_c_schema__()
    wrong = pa.schema([]).__arrow_c_schema__()

    def export() -> None:
        for _ in range(200):
            batch.plain().__arrow_c_schema__()
            batch.plain().__arrow_c_array__()
            batch.plain().__arrow_c_stream__()
            batch.__arrow_c_array__(requested)
            pa.table(batch, schema=PLAIN)
            with pytest.raises(BatchError):
                batch.__arrow_c_array__(wrong)
            with pytest.raises(BatchError):
                export_array(broken._block, EVERY_COLUMN_PLAIN, longest=1000)  # pyright: ignore[reportPrivateUsage]

    export()
    before = resident_bytes()
    for _ in range(4):
        export()
    # 800 times 5 exports of some 200 KiB would be 800 MB.
    assert resident_bytes() - before < 2000 * 4096
    assert views(batch) == views(broken) == 0


def test_text_that_is_refused_does_not_leak(make_bus: BusMaker) -> None:
    bus = make_bus(capacity=1024)
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        producer.emit_batch(
            EventBatch.from_events([event(i, collection="flights", new_value=b"v" * 200) for i in range(1, 801)])
        )
        raw = bus.path.read_bytes()
        with bus.path.open("r+b") as file:
            file.seek(raw.rindex(b"flights"))
            file.write(b"\xff")
        batch = consumer.drain(1024)

        def export() -> None:
            for _ in range(100):
                with pytest.raises(CorruptRingError):
                    batch.plain().__arrow_c_array__()

        export()
        before = resident_bytes()
        for _ in range(4):
            export()
        # 400 of 250 KiB each.
        assert resident_bytes() - before < 2000 * 4096
        assert views(batch) == 0


def test_it_creates_no_object_per_row() -> None:
    batch = EventBatch.from_events([event(i, user_id=f"user {i}", new_value=b"v" * 20) for i in range(1, 10_001)])
    batch.plain().__arrow_c_array__()
    before = sys.getallocatedblocks()
    kept = batch.plain().__arrow_c_array__()
    assert sys.getallocatedblocks() - before < 100
    assert len(kept) == 2


def test_schemas_may_be_moved_out() -> None:
    capsule = batch_of(1, 1).plain().__arrow_c_schema__()
    struct = moved(schema_in(capsule))
    columns = [moved(struct.children[i].contents) for i in range(struct.n_children)]
    release(struct)
    assert [column.format for column in columns[:3]] == [b"L", b"u", b"u"]
    assert not any(column.dictionary for column in columns)
    for column in columns:
        release(column)


# ---- streams ----------------------------------------------------------------------------------------------------


def test_a_consumer_in_plain_columns() -> None:
    producer, consumer = ring(1024, arena_bytes=2**20)
    events = varied(700)
    producer.emit_batch(EventBatch.from_events(events))
    plain = consumer.plain()
    assert repr(plain) == "PlainStream(consumer of core 0)"
    assert pa.schema(plain) == PLAIN
    assert not hasattr(plain, "__arrow_c_array__")
    producer.close()
    table = pa.table(plain)
    assert table.schema == PLAIN
    assert rows_of(table) == as_fields(events)
    assert consumer.is_producer_disconnected
    # It keeps the consumer, as the stream itself does.
    kept = ring()[1].plain()
    assert pa.schema(kept) == PLAIN
