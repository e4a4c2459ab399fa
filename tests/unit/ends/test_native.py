"""The functions for code that cannot cimport, through ctypes: as Numba's loops call them, and with anything at all."""

from __future__ import annotations

import gc
import pickle
import select
import struct
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from nodedb_ring import (
    EVENT_DTYPE,
    BatchError,
    ClosedError,
    CorruptRingError,
    EventBatch,
    EventBus,
    EventConsumer,
    EventProducer,
    EventTooLargeError,
    OwnershipError,
    WriteEvent,
)
from nodedb_ring.ends._native import end_bytes
from nodedb_ring.native import ENDED, check, emit_rows, handle, take_rows, wait_rows
from tests.unit.builders import FULL, batch, event, events, fill, raw_rows, ring, sequences, sized
from tests.unit.runners import SECONDS, Running, in_child, in_thread

Rows = npt.NDArray[np.void]


def emit(end: npt.NDArray[np.uint8], rows: Rows, payload: npt.NDArray[np.uint8]) -> int:
    return check(emit_rows(end.ctypes, rows.ctypes, len(rows), payload.ctypes, len(payload)))


def emit_all(producer: EventProducer, of: EventBatch) -> int:
    return emit(handle(producer), of.records, of.payload)


def take(consumer: EventConsumer, most: int = 100, room: int = 4096) -> list[WriteEvent] | None:
    """What the checked constructor makes of what was taken; None at the end."""
    rows, payload = np.empty(most, EVENT_DTYPE), np.full(room, 0xEE, np.uint8)
    count = check(take_rows(handle(consumer).ctypes, rows.ctypes, most, payload.ctypes, room))
    return None if count == ENDED else list(EventBatch(rows[:count], payload))


def bound() -> tuple[EventProducer, EventConsumer]:
    producer, consumer = ring(16, arena_bytes=4096)
    producer.bind()
    consumer.bind()
    return producer, consumer


@pytest.fixture
def ends() -> tuple[EventProducer, EventConsumer]:
    return bound()


Ends = tuple[EventProducer, EventConsumer]


def test_native_code_takes_what_python_emitted(ends: Ends) -> None:
    producer, consumer = ends
    sent = [WriteEvent(**FULL), *events(1, 9), sized(10, 100)]
    assert producer.emit_batch(EventBatch.from_events(sent)) == 11
    assert take(consumer, most=4) == sent[:4]
    assert take(consumer) == sent[4:]
    assert take(consumer) == []
    stats = consumer.stats()
    assert (stats.received, stats.batches, stats.held) == (11, 2, 0)


def test_python_drains_what_native_code_emitted(ends: Ends) -> None:
    producer, consumer = ends
    sent = [WriteEvent(**FULL), *events(1, 9)]
    assert emit_all(producer, EventBatch.from_events(sent)) == 10
    assert list(consumer.drain()) == sent


def test_rows_may_lie_anywhere_in_the_payload(ends: Ends) -> None:
    producer, consumer = ends
    rows = raw_rows(2)
    rows["collection_offset"], rows["collection_length"] = [4, 1], 3
    rows["row_id_offset"], rows["row_id_length"] = [0, 4], 2
    assert emit(handle(producer), rows, np.frombuffer(b"abcdefg", np.uint8)) == 2
    assert [(each.collection, each.row_id) for each in consumer.drain()] == [("efg", "ab"), ("bcd", "ef")]


def test_a_full_ring_takes_a_prefix_and_counts_the_rest(ends: Ends) -> None:
    producer, consumer = ends
    assert emit_all(producer, batch(1, 20)) == 16
    assert emit_all(producer, batch(21, 22)) == 0
    stats = producer.stats()
    assert (stats.emitted, stats.dropped_full, stats.first_dropped_sequence, stats.last_dropped_sequence) == (
        16,
        6,
        17,
        22,
    )
    assert sequences(consumer.drain()) == list(range(1, 17))


def test_the_most_that_there_is_room_for_is_taken(ends: Ends) -> None:
    producer, consumer = ends
    sent = [sized(number, 10 * number) for number in range(1, 9)]
    assert producer.emit_batch(EventBatch.from_events(sent)) == 8
    assert take(consumer, room=59) == sent[:2]
    assert take(consumer, room=30) == sent[2:3]
    with pytest.raises(ValueError, match="payload_room"):
        take(consumer, room=39)
    assert take(consumer, room=40) == sent[3:4]
    assert take(consumer, room=260) == sent[4:]


def test_the_end_is_reported_after_the_last_event(ends: Ends) -> None:
    producer, consumer = ends
    fill(producer, 1, 3)
    producer.close()
    assert take(consumer, most=2) == events(1, 2)
    assert take(consumer, most=2) == events(3, 3)
    assert take(consumer) is None
    assert take(consumer) is None


def test_a_wait_ends_with_an_event_an_end_or_its_time(ends: Ends) -> None:
    producer, consumer = ends

    def wait(nanoseconds: int) -> int:
        consumer.bind()
        return check(wait_rows(handle(consumer).ctypes, nanoseconds))

    assert wait(0) == wait(1_000_000) == wait(-1) == 0
    for end in (lambda: producer.emit(event(1)), producer.close):
        waiting = Running(lambda: wait(60_000_000_000))
        waiting.until_asleep()
        end()
        assert waiting.result() == 1
        assert wait(0) == 1
        consumer.drain()


def spoil(column: str, value: int) -> tuple[Rows, npt.NDArray[np.uint8]]:
    rows = raw_rows(3)
    rows[1][column] = value
    return rows, np.array([0xC3, 0x28, 65, 66], np.uint8)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("op", 0),
        ("op", 7),
        ("source", 5),
        ("collection_length", 2**32 - 1),
        ("row_id_length", 2**32 - 1),
        ("row_id_length", 2),  # is not UTF-8
        ("user_id_length", 5),
        ("new_value_length", 5),
        ("old_value_length", 2**32 - 2),
    ],
)
def test_one_invalid_row_refuses_the_whole_batch(column: str, value: int, ends: Ends) -> None:
    producer, consumer = ends
    rows, payload = spoil(column, value)
    with pytest.raises(BatchError):
        EventBatch(rows, payload)
    with pytest.raises(BatchError, match="EventBatch"):
        emit(handle(producer), rows, payload)
    assert producer.emitted_sequence is None
    assert len(consumer.drain()) == 0


def test_counts_below_0_are_refused(ends: Ends) -> None:
    producer, consumer = ends
    rows, payload = raw_rows(1), np.zeros(8, np.uint8)
    for count, size in ((-1, 8), (1, -1), (1, 2**32 - 1)):
        with pytest.raises(BatchError):
            check(emit_rows(handle(producer).ctypes, rows.ctypes, count, payload.ctypes, size))
    fill(producer, 1, 1)
    assert take_rows(handle(consumer).ctypes, rows.ctypes, -1, payload.ctypes, 8) == 0
    assert take_rows(handle(consumer).ctypes, rows.ctypes, 1, payload.ctypes, -1) == 0
    assert take(consumer) == events(1, 1)


def test_an_event_that_never_fits_is_refused_with_all_others(ends: Ends) -> None:
    producer, consumer = ends
    with pytest.raises(EventTooLargeError, match="arena_bytes"):
        emit_all(producer, EventBatch.from_events([sized(1, 10), sized(2, 4097)]))
    assert producer.emitted_sequence is None
    assert emit_all(producer, EventBatch.from_events([sized(2, 4096)])) == 1
    assert take(consumer) == [sized(2, 4096)]


CALLS: list[Callable[[EventProducer, EventConsumer], object]] = [
    lambda producer, _: emit_all(producer, batch(1, 1)),
    lambda _, consumer: take(consumer),
    lambda _, consumer: check(wait_rows(handle(consumer).ctypes, 0)),
]


@pytest.mark.parametrize("call", CALLS)
def test_another_thread_is_refused_until_it_binds(call: Callable[..., object], ends: Ends) -> None:
    with pytest.raises(OwnershipError, match=r"bind\(\)"):
        in_thread(lambda: call(*ends))
    for end in ends:
        in_thread(end.bind)
    with pytest.raises(OwnershipError):
        call(*ends)
    for end in ends:
        end.bind()
    call(*ends)


@pytest.mark.parametrize("call", CALLS)
def test_an_end_that_nobody_bound_is_refused(call: Callable[..., object]) -> None:
    with pytest.raises(OwnershipError):
        call(*ring())


@pytest.mark.parametrize("call", CALLS)
def test_a_forked_child_is_refused(call: Callable[..., object], ends: Ends) -> None:
    def child() -> str:
        try:
            call(*ends)
        except OwnershipError as error:
            return str(error)
        return "it was let in"

    assert "fork" in in_child(child)
    call(*ends)


@pytest.mark.parametrize("call", CALLS)
def test_a_closed_end_is_refused(call: Callable[..., object], ends: Ends) -> None:
    for end in ends:
        end.close()
    with pytest.raises(ClosedError):
        call(*ends)


def test_an_open_reservation_bars_the_end(ends: Ends) -> None:
    producer, consumer = ends
    with producer.reserve(1) as rows:
        with pytest.raises(ClosedError, match="reservation"):
            emit_all(producer, batch(1, 1))
        rows["op"] = 1
    assert emit_all(producer, batch(2, 2)) == 1
    assert sequences(consumer.drain()) == [1, 2]


def test_an_invalid_handle_is_refused(ends: Ends) -> None:
    producer, consumer = ends
    rows, payload = raw_rows(1), np.zeros(64, np.uint8)
    for wrong in (payload, handle(consumer)):
        with pytest.raises(TypeError, match="handle"):
            emit(wrong, rows, payload)
    for wrong in (payload, handle(producer)):
        with pytest.raises(TypeError, match="handle"):
            check(take_rows(wrong.ctypes, rows.ctypes, 1, payload.ctypes, 64))
        with pytest.raises(TypeError, match="handle"):
            check(wait_rows(wrong.ctypes, 0))
    with pytest.raises(TypeError, match="handle"):
        check(emit_rows(None, rows.ctypes, 1, payload.ctypes, 64))
    with pytest.raises(TypeError, match="EventProducer"):
        handle(producer.ring)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_handle_keeps_its_end_alive() -> None:
    producer, consumer = bound()
    held = handle(producer)
    del producer
    gc.collect()
    assert not consumer.is_producer_disconnected
    sent = batch(1, 3)
    assert emit(held, sent.records, sent.payload) == 3
    del held
    assert list(consumer.drain()) == list(sent)
    assert consumer.is_producer_disconnected


def test_a_handle_is_read_only_and_of_this_process(ends: Ends) -> None:
    held = handle(ends[0])
    assert not held.flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        held.flags.writeable = True
    with pytest.raises(TypeError, match="address"):
        pickle.dumps(end_bytes(ends[0]).obj)
    # The array's bytes can be copied, but a copy keeps no end alive, and elsewhere they mean nothing.
    for copy in (held.copy(), pickle.loads(pickle.dumps(held))):
        with pytest.raises(TypeError, match="handle"):
            emit(copy, np.empty(0, EVENT_DTYPE), np.empty(0, np.uint8))


def test_a_descriptor_is_armed_again_by_a_call_that_finds_nothing(ends: Ends) -> None:
    producer, consumer = ends
    readable = select.poll()
    readable.register(consumer.fileno(), select.POLLIN)
    for first in (1, 3, 5):
        fill(producer, first, first + 1)
        assert readable.poll(SECONDS * 1000)
        assert take(consumer) == events(first, first + 1)
        assert take(consumer) == []
        assert not readable.poll(0)


PUBLISHED, RELEASED = 128, 520


@pytest.mark.parametrize(
    ("at", "call"),
    [(RELEASED, lambda producer, _: emit_all(producer, batch(4, 4))), (PUBLISHED, lambda _, consumer: take(consumer))],
)
def test_a_corrupt_block_is_reported(at: int, call: Callable[..., object], bus: EventBus) -> None:
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        producer.bind()
        consumer.bind()
        fill(producer, 1, 3)
        with bus.path.open("r+b", buffering=0) as file:
            file.seek(4096 + at)
            file.write(struct.pack("<Q", 2**63))
        for _ in range(2):
            with pytest.raises(CorruptRingError):
                call(producer, consumer)


def test_threads_pass_events_on(ends: Ends) -> None:
    producer, consumer = ends
    count = 20_000

    def send() -> int:
        producer.bind()
        done = 0
        for first in range(1, count + 1, 10):
            done += emit_all(producer, batch(first, first + 9))
        producer.close()
        return done

    sending = Running(send)
    held = handle(consumer)
    taken: list[WriteEvent] = []
    while (some := take(consumer, most=7, room=70)) is not None:
        taken += some
        if not some:
            check(wait_rows(held.ctypes, 1_000_000_000))
    numbers = [each.sequence for each in taken]
    assert len(numbers) == sending.result() == count - producer.stats().dropped
    assert numbers == sorted(set(numbers))
    assert taken == [event(number) for number in numbers]
