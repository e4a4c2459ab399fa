"""``Rows``: what it shows of a batch, of a lease, and of parts of them."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgpack
import numpy as np
import polars as pl
import pytest

from nodedb_ring import (
    ClosedError,
    CorruptRingError,
    EventBatch,
    RowError,
    RowProjection,
    Rows,
    RowSchema,
    UnknownColumnError,
    create_event_bus,
)
from tests.unit.builders import event, ring
from tests.unit.runners import SECONDS, Running
from tests.unit.shared_buses import BusMaker

from .messages import batch_of

LONG = "text of more than twelve bytes"
SCHEMA = RowSchema({"a": "int64", "b": "str", "c": "float64"})
VALUES: list[dict[str, Any] | None] = [
    {"a": 1, "b": LONG, "c": None},
    None,
    {},
    {"c": 2.5, "b": "short"},
    {"a": -5, "c": 1},
]


def batch() -> EventBatch:
    return batch_of(*[None if value is None else msgpack.packb(value) for value in VALUES])


def test_what_it_shows() -> None:
    rows = batch().rows("new_value", SCHEMA)
    assert isinstance(rows, Rows)
    assert len(rows) == 5
    assert rows.schema == SCHEMA
    assert rows.present.tolist() == [True, False, True, True, True]
    assert rows.malformed.tolist() == []
    assert rows["a"].tolist() == [1, 0, 0, 0, -5]
    assert rows["b"].tolist() == [LONG, None, None, "short", None]
    assert np.array_equal(rows["c"], [np.nan, np.nan, np.nan, 2.5, 1.0], equal_nan=True)
    assert rows.valid("c").tolist() == [False, False, False, True, True]
    assert rows.given("c").tolist() == [True, False, False, True, True]
    assert repr(rows) == "Rows(5 rows of a, b, c)"
    assert repr(rows.select()) == "Rows(5 rows of no columns)"
    with pytest.raises(ValueError, match="read-only"):
        rows["a"][0] = 1


def test_without_a_schema_it_is_inferred() -> None:
    assert batch().rows().schema == SCHEMA
    assert batch().rows()["a"].tolist() == [1, 0, 0, 0, -5]


def test_fewer_columns_in_another_order() -> None:
    rows = batch().rows("new_value", SCHEMA).select("c", "a")
    assert rows.schema == RowSchema({"c": "float64", "a": "int64"})
    assert rows["a"].tolist() == [1, 0, 0, 0, -5]
    assert pl.DataFrame(rows).columns == ["c", "a"]
    with pytest.raises(UnknownColumnError, match="'b'"):
        rows["b"]
    with pytest.raises(RowError, match="column 'a': stands twice"):
        rows.select("a", "a")


@pytest.mark.parametrize(
    "key",
    [
        slice(None), slice(1, 4), slice(-2, None), slice(3, 1), slice(9, 12), slice(0, 5, 2), slice(None, None, -1),
        [0, 3], [-1, 0, 0], [True, False, False, True, True], np.array([4, 1], np.uint8), np.arange(0),
        np.array([True, False, True, False, False]),
    ],
    ids=repr,
)  # fmt: skip
def test_some_of_the_rows(key: Any) -> None:
    """As of a batch that has only those."""
    rows = batch().rows("new_value", SCHEMA)[key]
    wanted = EventBatch.concat([batch()[key]]).rows("new_value", SCHEMA)
    assert len(rows) == len(wanted) == len(np.arange(5)[np.array(key) if isinstance(key, list) else key])
    assert rows.present.tolist() == wanted.present.tolist()
    for name in SCHEMA:
        assert rows[name].tolist() == wanted[name].tolist() or np.array_equal(rows[name], wanted[name], equal_nan=True)
        assert rows.valid(name).tolist() == wanted.valid(name).tolist()
    assert pl.DataFrame(rows).equals(pl.DataFrame(wanted))
    assert pl.DataFrame(rows.plain()).equals(pl.DataFrame(wanted))
    assert pl.DataFrame(rows.with_events("sequence")).equals(pl.DataFrame(wanted.with_events("sequence")))


def test_parts_of_parts() -> None:
    rows = batch().rows("new_value", SCHEMA)[1:][1:].select("a", "b")[1:]
    assert rows["a"].tolist() == [0, -5]
    assert rows["b"].tolist() == ["short", None]
    assert rows[[1]]["a"].tolist() == [-5]
    assert list(rows[[1]].schema) == ["a", "b"]


def test_malformed_positions_in_parts() -> None:
    rows = batch_of(b"\xc1", msgpack.packb({"a": 1}), b"").rows(on_error="null")
    assert rows.malformed.tolist() == [0, 2]
    assert rows[1:].malformed.tolist() == [1]
    assert rows[[2, 1]].malformed.tolist() == [0]


@pytest.mark.parametrize("key", [3, None, 1.5, np.array(2), (1, 2), [[1]], [1.5], np.zeros(5)])
def test_other_keys(key: Any) -> None:
    with pytest.raises(TypeError):
        batch().rows("new_value", SCHEMA)[key]


@pytest.mark.parametrize("key", [[5], [-6], [True], np.array([2**63], np.uint64)])
def test_keys_that_no_row_has(key: Any) -> None:
    with pytest.raises(IndexError):
        batch().rows("new_value", SCHEMA)[key]


def test_it_keeps_its_batch_alive() -> None:
    whole = batch()
    rows = whole.rows("new_value", SCHEMA)
    seen = weakref.ref(whole)
    del whole
    gc.collect()
    assert seen() is not None
    assert rows["b"][0] == LONG
    column = rows["a"]
    del rows
    gc.collect()
    assert seen() is None
    assert column.tolist() == [1, 0, 0, 0, -5]


def test_columns_of_events_in_front() -> None:
    rows = batch().rows("new_value", SCHEMA)
    projection = rows.with_events("op", "sequence")
    assert isinstance(projection, RowProjection)
    assert projection.columns == ("op", "sequence", "a", "b", "c")
    assert len(projection) == 5
    assert repr(projection) == "RowProjection(op, sequence, a, b, c of 5 rows)"
    assert repr(projection.plain()) == "RowProjection(op, sequence, a, b, c of 5 rows, plain)"
    with pytest.raises(ValueError, match="no columns of events"):
        rows.with_events()
    with pytest.raises(ValueError, match="'b': no such column"):
        rows.with_events("b")
    clash = batch_of(msgpack.packb({"lsn": 1, "a": 2})).rows()
    with pytest.raises(RowError, match=r"'lsn': is a column of the events and of the rows; .*select\('a'\)"):
        clash.with_events("lsn")
    assert pl.DataFrame(clash.select("a").with_events("lsn")).row(0) == (100, 2)


# ---- followers, leases, Arrow


def test_rows_of_a_batch_from_arrow() -> None:
    assert EventBatch.from_arrow(batch()).rows("new_value", SCHEMA)["b"].tolist() == [LONG, None, None, "short", None]


def leased() -> tuple[Any, Any]:
    producer, consumer = ring()
    producer.emit_batch(batch())
    return producer, consumer


def test_rows_of_a_lease_are_readable_until_it_ends() -> None:
    _, consumer = leased()
    with consumer.lease() as events:
        rows = events.rows("new_value", SCHEMA)
        numbers, texts, valid = rows["a"], rows["b"], rows.valid("a")
        frame = pl.DataFrame(rows.plain())
    assert numbers.tolist() == [1, 0, 0, 0, -5]
    assert texts.tolist() == [LONG, None, None, "short", None]
    assert valid.tolist() == [True, False, False, False, True]
    assert frame["b"].to_list() == [LONG, None, None, "short", None]
    assert len(rows) == 5
    assert rows.schema == SCHEMA
    calls = (
        lambda: rows["a"],
        lambda: rows["b"],
        lambda: rows.valid("a"),
        lambda: rows.present,
        lambda: rows.malformed,
        lambda: rows[1:],
        lambda: rows[[1]],
        rows.__arrow_c_array__,
        rows.plain().__arrow_c_array__,
        lambda: events.rows("new_value", SCHEMA),
        lambda: RowSchema.infer(events),
    )
    for call in calls:
        with pytest.raises(ClosedError):
            call()
    assert consumer.stats().held == 0


@pytest.mark.parametrize("read", [lambda events: events.rows("new_value", SCHEMA), RowSchema.infer])
def test_a_pass_keeps_its_lease(read: Callable[[EventBatch], object]) -> None:
    """A long one lets other threads run, and they may end the lease."""
    producer, consumer = ring(capacity=4096, arena_bytes=1 << 20)
    producer.emit_batch(batch_of(*[msgpack.packb({"a": i, "b": LONG}) for i in range(4000)]))
    with consumer.lease(4096) as events:
        block = events._block  # pyright: ignore[reportPrivateUsage]
        stop = threading.Event()

        def read_on() -> None:
            while not stop.is_set():
                read(events)

        reader = Running(read_on)
        try:
            # Its thread gives the GIL away inside of a pass.
            deadline = time.monotonic() + SECONDS
            while block.pins == 0:
                assert time.monotonic() < deadline, "no pass keeps the lease"
                time.sleep(0)
        finally:
            stop.set()
        reader.result()
        assert block.pins == 0


def test_an_importer_of_text_keeps_a_lease() -> None:
    _, consumer = leased()
    lease = consumer.lease()
    capsules = lease.batch.rows("new_value", SCHEMA).__arrow_c_array__()
    with pytest.raises(BufferError):
        lease.release()
    assert consumer.stats().held == 5
    del capsules
    assert consumer.stats().held == 0


def test_an_importer_of_numbers_does_not() -> None:
    _, consumer = leased()
    with consumer.lease() as events:
        frame = pl.DataFrame(events.rows("new_value", SCHEMA).select("a", "c"))
    assert consumer.stats().held == 0
    assert frame["a"].to_list() == [1, None, None, None, -5]


def test_a_lease_that_goes_on_in_the_next_lap_of_the_arena() -> None:
    [producer], [consumer] = create_event_bus(1, 64, arena_bytes=65536)
    values = [msgpack.packb({"i": i, "t": "x" * (3000 + i)}) for i in range(60)]
    sequence = 0
    for first in range(0, 60, 10):
        for value in values[first : first + 10]:
            sequence += 1
            assert producer.emit(event(sequence, new_value=value))
        with consumer.lease() as events:
            rows = events.rows()
            assert rows["i"].tolist() == list(range(first, first + len(events)))
            assert [len(text) for text in rows["t"]] == [3000 + i for i in range(first, first + len(events))]
            assert pl.DataFrame(rows.plain())["t"].to_list() == rows["t"].tolist()
        assert len(consumer.drain()) == 10 - len(rows)


def test_text_that_changes_in_a_shared_ring(make_bus: BusMaker) -> None:
    """It was read and checked; whoever shares the ring can still write there."""
    bus = make_bus(1, 16)
    producer, consumer = bus.producer(0), bus.consumer(0)
    producer.emit(event(1, new_value=msgpack.packb({"t": LONG})))
    lease = consumer.lease()
    rows = lease.batch.rows()
    payload = bytes(lease.batch.payload)
    with open(bus.path, "r+b") as file:
        whole = file.read()
        at = whole.index(payload[payload.index(LONG.encode()) :][: len(LONG)])
        file.seek(at + 13)
        file.write(b"\xff")
    with pytest.raises(CorruptRingError, match="is not UTF-8"):
        rows["t"]
    with pytest.raises(CorruptRingError, match="is not UTF-8"):
        rows.plain().__arrow_c_array__()
    del rows
    lease.release()


def test_any_number_of_threads_may_read() -> None:
    whole = batch_of(*[msgpack.packb({"i": i, "t": f"{LONG} {i}"}) for i in range(5000)])
    wanted = whole.rows()["t"].tolist()
    rows = whole.rows()

    def read(source: EventBatch) -> bool:
        return bool(source.rows("new_value", rows.schema)["t"].tolist() == rows["t"].tolist() == wanted)

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(read, [whole] * 16))
