"""What a log stores of a batch, and that nothing but that is read back."""

from __future__ import annotations

import numpy as np
import pytest

from nodedb_ring import EventBatch, WriteEvent, WriteOp, create_event_bus
from nodedb_ring.batch.schema import EVENT_DTYPE
from nodedb_ring.errors import ClosedError, CorruptLogError, LogConflictError
from nodedb_ring.log.encoding import EncodedBatch, check_rising, decode_batch, encode_batch


def event(sequence: int, value: bytes | None = b"value") -> WriteEvent:
    return WriteEvent(
        sequence=sequence,
        collection="orders",
        op=WriteOp.INSERT,
        row_id=str(sequence),
        lsn=sequence,
        user_id="ü" if sequence % 2 else None,
        new_value=value,
    )


def batch_of(*sequences: int) -> EventBatch:
    return EventBatch.from_events([event(sequence) for sequence in sequences])


def decoded(encoded: EncodedBatch, **instead: object) -> EventBatch:
    stored: dict[str, object] = {
        "rows": bytes(encoded.rows),
        "payload": bytes(encoded.payload),
        "checksum": encoded.checksum,
        "first": encoded.first,
        "last": encoded.last,
        "count": encoded.count,
        "core_id": 3,
    } | instead
    return decode_batch(**stored)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_an_encoded_batch_is_decoded() -> None:
    batch = batch_of(5, 6, 9)
    encoded = encode_batch(batch, core_id=3)
    assert (encoded.first, encoded.last, encoded.count) == (5, 9, 3)
    assert list(decoded(encoded)) == list(batch)


def test_a_packed_batch_is_stored_without_a_copy() -> None:
    batch = batch_of(1, 2, 3)
    encoded = encode_batch(batch, core_id=0)
    assert np.shares_memory(np.frombuffer(encoded.rows, np.uint8), batch.records)
    assert np.shares_memory(np.frombuffer(encoded.payload, np.uint8), batch.payload)


@pytest.mark.parametrize("part", [slice(0, 2), slice(2, 5), slice(7, 10)])
def test_of_a_slice_only_its_own_payload_is_stored(part: slice) -> None:
    batch = EventBatch.from_events([event(n, bytes(1000)) for n in range(10)])[part]
    encoded = encode_batch(batch, core_id=3)
    assert len(encoded.payload) < 1100 * len(batch)
    assert list(decoded(encoded)) == list(batch)


def test_of_a_lease_only_its_own_payload_is_stored() -> None:
    [producer], [consumer] = create_event_bus(1, 64)
    for n in range(20):
        producer.emit(event(n, bytes(1000)))
    consumer.drain(15)
    with consumer.lease(5) as batch:
        expected = list(batch)
        encoded = encode_batch(batch, core_id=3)
        assert len(encoded.payload) < 1100 * 5
        assert list(decoded(encoded)) == expected


def test_a_lease_that_has_ended_is_refused() -> None:
    [producer], [consumer] = create_event_bus(1, 64)
    producer.emit(event(1))
    with consumer.lease(5) as batch:
        pass
    with pytest.raises(ClosedError, match="lease"):
        encode_batch(batch, core_id=3)


def test_the_bookkeeping_of_a_ring_does_not_matter() -> None:
    [producer], [consumer] = create_event_bus(1, 64)
    for n in range(20):
        producer.emit(event(n))
    drained = consumer.drain(20)
    rows = drained.records.view(np.uint8).reshape(20, EVENT_DTYPE.itemsize)
    assert rows[:, 112:].any(), "a drained row has no position: this test says nothing"
    again = decoded(encode_batch(drained, core_id=3))
    assert list(again) == [event(n) for n in range(20)]
    [other], [receiver] = create_event_bus(1, 64)
    assert other.emit_batch(again) == 20
    assert list(receiver.drain(20)) == list(again)


def test_an_empty_batch_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="empty"):
        encode_batch(batch_of(), core_id=0)


@pytest.mark.parametrize("numbers", [(1, 1), (2, 1), (1, 2, 3, 3, 4)])
def test_numbers_must_rise(numbers: tuple[int, ...]) -> None:
    with pytest.raises(LogConflictError, match="rise strictly"):
        encode_batch(batch_of(*numbers), core_id=0)


def test_numbers_must_begin_above_the_last() -> None:
    check_rising(batch_of(6, 7), above=5)
    check_rising(batch_of(0), above=None)
    with pytest.raises(LogConflictError, match="sequence 5: the log has 5 already; number events from 6 on"):
        check_rising(batch_of(5, 6), above=5)


@pytest.mark.parametrize("number", ["first", "last", "count", "checksum"])
def test_another_number_is_found(number: str) -> None:
    encoded = encode_batch(batch_of(5, 6, 9), core_id=3)
    with pytest.raises(CorruptLogError, match=r"core 3, events .* restore"):
        decoded(encoded, **{number: getattr(encoded, number) ^ 1})


def test_another_core_is_found() -> None:
    encoded = encode_batch(batch_of(5, 6, 9), core_id=3)
    with pytest.raises(CorruptLogError, match="core 2, events 5 to 9: checksum"):
        decoded(encoded, core_id=2)


@pytest.mark.parametrize("column", ["rows", "payload"])
def test_every_bit_counts(column: str) -> None:
    encoded = encode_batch(batch_of(5, 6, 9), core_id=3)
    sound = bytes(getattr(encoded, column))
    for place in range(len(sound)):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(CorruptLogError, match="checksum"):
            decoded(encoded, **{column: bytes(damaged)})


@pytest.mark.parametrize("column", ["rows", "payload"])
@pytest.mark.parametrize("value", [b"", None, "text", 7])
def test_a_torn_column_is_found(column: str, value: object) -> None:
    encoded = encode_batch(batch_of(5, 6, 9), core_id=3)
    with pytest.raises(CorruptLogError, match="core 3, events 5 to 9"):
        decoded(encoded, **{column: value})


@pytest.mark.parametrize("cut", [1, 64, 128])
def test_torn_rows_are_found(cut: int) -> None:
    encoded = encode_batch(batch_of(5, 6, 9), core_id=3)
    with pytest.raises(CorruptLogError, match="bytes of rows for 3 events"):
        decoded(encoded, rows=bytes(encoded.rows)[:-cut])


@pytest.mark.parametrize("number", ["first", "last", "count", "checksum"])
@pytest.mark.parametrize("value", [None, "text", -1, 2**64, 1.5])
def test_an_invalid_number_is_found(number: str, value: object) -> None:
    with pytest.raises(CorruptLogError, match="core 3"):
        decoded(encode_batch(batch_of(5, 6, 9), core_id=3), **{number: value})


def forged(batch: EventBatch, *, rows: bytes | None = None, last: int | None = None) -> EncodedBatch:
    """Encoded with the right checksum, whatever it holds."""
    from nodedb_ring.log import encoding

    encoded = encode_batch(batch, core_id=3)
    body = bytes(encoded.rows) if rows is None else rows
    end = encoded.last if last is None else last
    checksum = encoding._checksum((3, encoded.first, end, encoded.count), body, encoded.payload)  # pyright: ignore[reportPrivateUsage]
    return EncodedBatch(encoded.first, end, encoded.count, memoryview(body), encoded.payload, checksum)


def test_a_checksum_alone_does_not_make_events_of_bytes() -> None:
    batch = batch_of(5, 6, 9)
    rows = batch.records.copy()
    rows["op"][1] = 77
    with pytest.raises(CorruptLogError, match="op 77"):
        decoded(forged(batch, rows=rows.tobytes()))
    rows = batch.records.copy()
    rows["new_value_offset"][1] = 2**31
    with pytest.raises(CorruptLogError, match="outside the payload"):
        decoded(forged(batch, rows=rows.tobytes()))


def test_a_checksum_alone_does_not_make_numbers_rise() -> None:
    batch = batch_of(5, 6, 9)
    rows = batch.records.copy()
    rows["sequence"][1] = 9
    with pytest.raises(CorruptLogError, match="do not rise"):
        decoded(forged(batch, rows=rows.tobytes()))
    with pytest.raises(CorruptLogError, match="do not rise"):
        decoded(forged(batch, last=8))
