"""producer.reserve: "over up to n contiguous free rows as writable NumPy columns, with a block of payload"."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nodedb_ring import (
    EVENT_DTYPE,
    BatchError,
    BusyError,
    ClosedError,
    EventBatch,
    EventSource,
    EventTooLargeError,
    OwnershipError,
    WriteEvent,
    WriteOp,
)
from tests.unit.builders import batch, event, events, fill, ring, sequences, sized
from tests.unit.runners import in_thread


def test_a_clean_exit_publishes_all_rows_at_once() -> None:
    producer, consumer = ring(8)
    with producer.reserve(3, 6) as rows:
        assert len(rows) == 3
        rows["op"] = WriteOp.INSERT
        rows["lsn"] = [1, 2, 3]
        rows.payload[:] = np.frombuffer(b"t12345", np.uint8)
        rows["collection_length"] = 1
        rows["row_id_offset"] = [1, 2, 3]
        rows["row_id_length"] = 1
        assert consumer.try_recv() is None
        assert producer.stats().emitted == 0
    assert rows.published == 3
    assert list(consumer.drain()) == events(1, 3)
    assert producer.stats().emitted == 3
    assert producer.emitted_sequence == 3


def test_every_column_of_the_dtype_is_writable() -> None:
    producer, consumer = ring(8)
    with producer.reserve(2, 12) as rows:
        rows.payload[:] = np.frombuffer(b"ccrruussnnoo", np.uint8)
        given: dict[str, Any] = {
            "sequence": [8, 2**64 - 1], "lsn": [5, 6], "tenant_id": 7, "system_time_ms": [-1, 4], "valid_time_ms": 9,
            "vshard_id": 3, "count": [1, 4], "op": [WriteOp.UPDATE, WriteOp.BULK_INSERT], "source": [0, 4],
        }  # fmt: skip
        for place, name in enumerate(("collection", "row_id", "user_id", "statement_digest", "new_value", "old_value")):
            given[f"{name}_offset"] = 2 * place
            given[f"{name}_length"] = [2, 1]
        assert set(given) == set(EVENT_DTYPE.names or ())
        for name, value in given.items():
            assert rows[name].shape == (2,)
            assert rows[name].dtype == EVENT_DTYPE[name]
            rows[name][:] = value
    common: dict[str, Any] = {"tenant_id": 7, "vshard_id": 3, "valid_time_ms": 9}
    assert list(consumer.drain()) == [
        WriteEvent(
            sequence=8, collection="cc", op=WriteOp.UPDATE, row_id="rr", lsn=5, user_id="uu", statement_digest="ss",
            new_value=b"nn", old_value=b"oo", system_time_ms=-1, **common,
        ),
        WriteEvent(
            sequence=2**64 - 1, collection="c", op=WriteOp.BULK_INSERT, row_id="r", lsn=6, user_id="u", count=4,
            source=EventSource.DEFERRED,
            statement_digest="s", new_value=b"n", old_value=b"o", system_time_ms=4, **common,
        ),
    ]  # fmt: skip


def test_rows_begin_with_the_next_sequences_and_the_defaults_of_an_event() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 4)
    with producer.reserve(2) as rows:
        rows["op"] = WriteOp.DELETE
        rows["lsn"] = rows["sequence"]
    assert list(consumer.drain())[4:] == [event(n, op=WriteOp.DELETE, collection="", row_id="") for n in (5, 6)]
    assert producer.next_sequence == 7


def test_records_are_the_rows() -> None:
    producer, consumer = ring(8)
    with producer.reserve(2) as rows:
        assert rows.records.dtype == EVENT_DTYPE
        assert rows.records.shape == (2,)
        rows.records["op"] = WriteOp.INSERT
        rows.records[1]["lsn"] = 77
        assert rows["lsn"].tolist() == [0, 77]
    assert consumer.drain().lsn.tolist() == [0, 77]


def test_an_exception_publishes_nothing() -> None:
    producer, consumer = ring(8)
    with pytest.raises(ZeroDivisionError), producer.reserve(3, 10) as rows:  # noqa: PT012
        rows["op"] = WriteOp.INSERT
        raise ZeroDivisionError
    assert rows.published == 0
    assert consumer.try_recv() is None
    assert producer.emitted_sequence is None
    assert producer.stats().emitted == producer.stats().dropped == 0
    assert producer.utilization == 0
    fill(producer, 1, 8)
    assert list(consumer.drain()) == events(1, 8)


def test_at_most_the_free_rows() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 5)
    with producer.reserve(100) as rows:
        assert len(rows) == 3
        rows["op"] = WriteOp.INSERT
    assert producer.utilization == 100
    assert sequences(consumer.drain()) == list(range(1, 9))


def test_a_full_ring_gives_no_rows_and_counts_nothing() -> None:
    producer, consumer = ring(4)
    fill(producer, 1, 4)
    with producer.reserve(2, 5) as rows:
        assert len(rows) == 0
        assert rows["op"].shape == (0,)
        # The same lines that fill rows in must serve for none.
        rows["op"] = WriteOp.INSERT
        rows["row_id_length"][:] = 1
        rows.records["lsn"] = 7
    assert rows.published == 0
    assert producer.stats().dropped == 0
    assert producer.emitted_sequence == 4
    assert len(consumer.drain()) == 4


def test_an_arena_without_such_a_block_gives_no_rows() -> None:
    producer, consumer = ring(8, arena_bytes=100)
    assert producer.emit(sized(1, 60))
    with producer.reserve(2, 41) as rows:
        assert len(rows) == 0
    with producer.reserve(2, 40) as rows:
        assert len(rows) == 2
        assert rows.payload.shape == (40,)
        rows["op"] = WriteOp.INSERT
        rows["new_value_length"] = 40
        rows.payload[:] = 7
    assert [e.new_value for e in consumer.drain()][1:] == [b"\7" * 40] * 2


def test_events_may_share_bytes_of_the_block() -> None:
    producer, consumer = ring(8, arena_bytes=64)
    for _ in range(20):
        with producer.reserve(3, 10) as rows:
            rows["op"] = WriteOp.INSERT
            rows.payload[:] = np.frombuffer(b"0123456789", np.uint8)
            rows["collection_offset"], rows["collection_length"] = [8, 0, 3], [2, 10, 0]
            rows["new_value_offset"], rows["new_value_length"] = [0, 9, 3], [1, 1, 3]
        got = consumer.drain()
        assert got.strings("collection").tolist() == ["89", "0123456789", ""]
        assert got.values("new_value").tolist() == [b"0", b"9", b"345"]
    assert producer.ring.bytes_in_use == 0


def test_payload_that_rows_share_stays_until_the_last_of_them_is_released() -> None:
    producer, consumer = ring(4, arena_bytes=128)
    with producer.reserve(2, 100) as rows:
        rows["op"] = WriteOp.INSERT
        rows["new_value_length"] = 100
        rows.payload[:] = 7
    assert len(consumer.drain(1)) == 1
    assert not producer.emit(sized(3, 100))
    assert consumer.drain(1).values("new_value").tolist() == [b"\7" * 100]
    assert producer.emit(sized(4, 100))


def test_an_event_without_payload_after_a_lap_that_was_started_for_nothing() -> None:
    producer, consumer = ring(8, arena_bytes=64)
    assert producer.emit_batch(EventBatch.from_events([sized(1, 40), sized(2, 20)])) == 2
    consumer.drain(1)
    with pytest.raises(KeyError), producer.reserve(1, 30):
        raise KeyError
    assert producer.emit(sized(3, 0))
    drained = consumer.drain()
    # Checked as a batch from outside is: the empty one, too, lies within its payload.
    assert list(EventBatch(drained.records, drained.payload)) == [sized(2, 20), sized(3, 0)]


@pytest.mark.parametrize("taking", ["try_recv", "drain", "lease"])
def test_rows_of_one_block_are_released_one_by_one(taking: str) -> None:
    # The fields of the rows lie in the block in any order, and overlap: bytes must stay as long as one needs them.
    producer, consumer = ring(16, arena_bytes=64)
    rng = np.random.default_rng(7)
    waiting: list[WriteEvent] = []

    def take() -> None:
        if taking == "try_recv":
            assert consumer.try_recv() == waiting.pop(0)
        elif taking == "drain":
            assert list(consumer.drain(1)) == [waiting.pop(0)]
        else:
            with consumer.lease(1) as leased:
                assert list(leased) == [waiting.pop(0)]

    reserved = 0
    while reserved < 1000:
        number = producer.next_sequence
        with producer.reserve(4, 24) as rows:
            rows["op"] = WriteOp.INSERT
            rows.payload[:] = rng.integers(65, 90, len(rows.payload), np.uint8)
            for i in range(len(rows)):
                start, stop = sorted(int(x) for x in rng.integers(0, 25, 2))
                rows["row_id_offset"][i], rows["row_id_length"][i] = start, stop - start
                text = rows.payload[start:stop].tobytes().decode()
                waiting.append(event(number + i, collection="", row_id=text, lsn=0))
        reserved += rows.published
        filler = sized(producer.next_sequence, int(rng.integers(0, 30)))
        if producer.emit(filler):
            waiting.append(filler)
        for _ in range(min(len(waiting), int(rng.integers(1, 7)))):
            take()
            # What was freed is used again at once.
            filler = sized(producer.next_sequence, 1)
            if rng.random() < 0.3 and producer.emit(filler):
                waiting.append(filler)
    while waiting:
        take()
    assert producer.ring.bytes_in_use == producer.ring.slots_in_use == 0


# checks at the exit


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        ("op", 0, "op 0"),
        ("op", 99, "op 99"),
        ("source", 5, "source 5"),
        ("row_id_offset", 9, "row_id at 9 of 2 bytes"),
        ("row_id_length", 11, "row_id at 0 of 11 bytes"),
        ("collection_length", 2**32 - 1, "collection is None"),
        ("new_value_length", 2**32 - 2, "new_value at 0 of 4294967294 bytes"),
    ],
)
def test_the_exit_checks_every_row(column: str, value: int, shown: str) -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 2)
    with pytest.raises(BatchError, match=f"row 2: {shown}"), producer.reserve(4, 10) as rows:  # noqa: PT012
        rows["op"] = WriteOp.INSERT
        rows["row_id_length"] = 2
        rows.payload[:] = 65
        rows[column][2] = value
    assert rows.published == 0
    assert producer.emitted_sequence == 2
    assert sequences(consumer.drain()) == [1, 2]
    assert producer.emit(event(3))
    assert consumer.try_recv() == event(3)


def test_the_exit_refuses_what_is_not_utf8() -> None:
    producer, consumer = ring(8)
    with pytest.raises(BatchError, match=r"row 0: user_id b'\\xff'"), producer.reserve(1, 1) as rows:  # noqa: PT012
        rows["op"] = WriteOp.INSERT
        rows["user_id_length"] = 1
        rows.payload[:] = 255
    assert consumer.try_recv() is None


def test_rows_that_were_not_filled_in_are_refused() -> None:
    producer, consumer = ring(8)
    with pytest.raises(BatchError, match="op 0"), producer.reserve(2):
        pass
    assert consumer.try_recv() is None


# no view stays writable


def test_no_view_stays_writable_after_it() -> None:
    producer, consumer = ring(8)
    with producer.reserve(2, 4) as rows:
        rows["op"] = WriteOp.INSERT
        held: list[npt.NDArray[Any]] = [rows["sequence"], rows["op"], rows.records, rows.payload]
    with pytest.raises(BatchError), producer.reserve(2, 4) as rows:
        held += [rows["sequence"], rows.records, rows.payload]
    for array in held:
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[1]
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True
    assert sequences(consumer.drain()) == [1, 2]


def test_arrays_derived_from_a_view_cannot_reach_the_ring() -> None:
    producer, consumer = ring(2, arena_bytes=8)
    with producer.reserve(2, 8) as rows:
        rows["op"] = WriteOp.INSERT
        rows["row_id_length"] = 8
        rows.payload[:] = 65
        slices: list[npt.NDArray[Any]] = [rows["sequence"][:], rows.payload[2:]]
        memory = rows.payload.data
    with consumer.lease() as leased:
        for array in slices:
            if array.flags.writeable:
                array[:] = 90
        if not memory.readonly:
            memory[:] = b"Z" * 8
        assert sequences(leased) == [1, 2]
        assert leased.strings("row_id").tolist() == ["AAAAAAAA"] * 2
    fill(producer, 3, 4)
    assert list(consumer.drain()) == events(3, 4)


def test_outside_its_block_it_gives_nothing() -> None:
    producer, _ = ring(8)
    reservation = producer.reserve(2, 4)
    reads: list[Any] = [lambda: reservation["op"], lambda: reservation.records, lambda: reservation.payload]
    for read in reads:
        with pytest.raises(ClosedError):
            read()
    with reservation as rows:
        rows["op"] = WriteOp.INSERT
    for read in reads:
        with pytest.raises(ClosedError):
            read()


def test_a_reservation_serves_once() -> None:
    producer, consumer = ring(8)
    reservation = producer.reserve(1)
    with reservation as rows:
        rows["op"] = WriteOp.INSERT
    with pytest.raises(ClosedError), reservation:
        pass
    assert sequences(consumer.drain(9)) == [1]


def test_an_unknown_column() -> None:
    producer, _ = ring(8)
    with pytest.raises((KeyError, ValueError), match="colour"), producer.reserve(1) as rows:
        rows["colour"]
    assert producer.emit(event())


@pytest.mark.parametrize("n", [0, -1])
def test_n_is_at_least_1(n: int) -> None:
    producer, _ = ring(8)
    with pytest.raises(ValueError, match=f"n {n}:"):
        producer.reserve(n)


def test_payload_bytes_is_not_negative_and_not_more_than_the_arena() -> None:
    producer, _ = ring(8, arena_bytes=100)
    with pytest.raises(ValueError, match="payload_bytes -1:"):
        producer.reserve(1, -1)
    with pytest.raises(EventTooLargeError, match=r"\b101\b.*\b100\b"):
        producer.reserve(1, 101)


# one writer at a time


def test_while_it_is_open_the_producer_emits_nothing_else() -> None:
    producer, consumer = ring(8)
    with producer.reserve(2) as rows:
        rows["op"] = WriteOp.INSERT
        with pytest.raises(BusyError, match="reservation"):
            producer.emit(event(9))
        with pytest.raises(BusyError, match="reservation"):
            producer.emit_batch(batch(1, 1))
        with pytest.raises(BusyError, match="reservation"), producer.reserve(1):
            pass
        assert producer.utilization == 0
        assert producer.stats().emitted == 0
    assert sequences(consumer.drain()) == [1, 2]
    assert producer.emit(event(9))


def test_the_consumer_continues_meanwhile() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 3)
    with producer.reserve(8) as rows:
        assert len(rows) == 5
        assert sequences(consumer.drain()) == [1, 2, 3]
        rows["op"] = WriteOp.INSERT
    assert sequences(consumer.drain()) == [4, 5, 6, 7, 8]


def test_bind_during_a_reservation_is_an_ownership_error() -> None:
    producer, consumer = ring(8)
    with producer.reserve(1) as rows:
        rows["op"] = WriteOp.INSERT
        with pytest.raises(OwnershipError):
            in_thread(producer.bind)
        with pytest.raises(OwnershipError):
            producer.bind()
    assert sequences(consumer.drain()) == [1]
    in_thread(producer.bind)


def test_entering_from_another_thread() -> None:
    producer, _ = ring(8)
    fill(producer, 1, 1)
    reservation = producer.reserve(1)
    with pytest.raises(OwnershipError):
        in_thread(reservation.__enter__)
    assert producer.emit(event(2))


def test_a_closed_producer_publishes_nothing() -> None:
    producer, consumer = ring(8)
    with pytest.raises(ClosedError), producer.reserve(1) as rows:  # noqa: PT012
        rows["op"] = WriteOp.INSERT
        in_thread(producer.close)
    assert consumer.is_producer_disconnected
    assert len(consumer.drain()) == 0


def test_a_consumer_that_goes_meanwhile_drops_and_counts_them() -> None:
    producer, consumer = ring(8)
    with producer.reserve(3) as rows:
        rows["op"] = WriteOp.INSERT
        consumer.close()
    assert rows.published == 0
    stats = producer.stats()
    assert (stats.emitted, stats.dropped_disconnected) == (0, 3)
    assert (stats.first_dropped_sequence, stats.last_dropped_sequence) == (1, 3)
    assert producer.emitted_sequence == 3


def test_a_dropped_reservation_frees_the_producer() -> None:
    producer, consumer = ring(8)
    reservation = producer.reserve(1)
    reservation.__enter__()
    del reservation
    assert producer.emit(event())
    assert consumer.try_recv() == event()


def test_reservations_around_the_end_of_the_ring() -> None:
    producer, consumer = ring(8, arena_bytes=100)
    expected = 1
    for size in (3, 5, 8, 7, 1, 6) * 10:
        with producer.reserve(size, 30) as rows:
            assert len(rows) == size
            rows["op"] = WriteOp.INSERT
            rows.payload[:] = expected % 100
            rows["new_value_length"] = 30
        got = consumer.drain()
        assert sequences(got) == list(range(expected, expected + size))
        assert set(got.values("new_value")) == {bytes([expected % 100]) * 30}
        expected += size


def test_a_reservation_for_a_consumer_that_has_gone_counts_its_highest_number() -> None:
    producer, consumer = ring(8)
    with producer.reserve(2) as rows:
        rows["op"] = WriteOp.INSERT
        rows["sequence"] = [9, 3]
        consumer.close()
    assert rows.published == 0
    assert producer.emitted_sequence == 9
    assert producer.stats().dropped_disconnected == 2
