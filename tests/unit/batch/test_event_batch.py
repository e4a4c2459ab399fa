"""EventBatch: its makers, indexing, immutability, and what a drain returns."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nodedb_ring import EVENT_DTYPE, EventBatch, WriteEvent, WriteOp
from tests.unit.builders import FULL, batch, event, events, raw_rows, ring, sequences
from tests.unit.runners import in_new_interpreter

from .mixed import MIXED, STRINGS, VALUES, columns

FIXED = (
    "sequence",
    "lsn",
    "tenant_id",
    "system_time_ms",
    "valid_time_ms",
    "vshard_id",
    "count",
    "op",
    "source",
)


def drained(of: list[WriteEvent]) -> EventBatch:
    producer, consumer = ring()
    for each in of:
        assert producer.emit(each)
    return consumer.drain()


def remade(of: list[WriteEvent]) -> EventBatch:
    made = EventBatch.from_events(of)
    return EventBatch(made.records, made.payload)


MAKERS: list[Callable[[list[WriteEvent]], EventBatch]] = [EventBatch.from_events, drained, remade]


# from events and back


@pytest.mark.parametrize("make", MAKERS)
def test_a_batch_is_its_events(make: Callable[[list[WriteEvent]], EventBatch]) -> None:
    made = make(MIXED)
    assert len(made) == 4
    assert list(made) == MIXED
    assert [made[i] for i in range(-4, 4)] == MIXED + MIXED


@pytest.mark.parametrize("make", MAKERS)
def test_every_fixed_column_is_an_attribute_of_its_name(
    make: Callable[[list[WriteEvent]], EventBatch],
) -> None:
    made = make(MIXED)
    for name in FIXED:
        column = getattr(made, name)
        assert column.dtype == EVENT_DTYPE[name]
        assert column.shape == (4,)
        wanted = [getattr(each, name) for each in MIXED]
        assert column.tolist() == [-(2**63) if value is None else int(value) for value in wanted]


@pytest.mark.parametrize("make", MAKERS)
def test_variable_columns_come_through_strings_and_values(
    make: Callable[[list[WriteEvent]], EventBatch],
) -> None:
    made = make(MIXED)
    for names, read in ((STRINGS, made.strings), (VALUES, made.values)):
        for name in names:
            column = read(name)
            assert column.dtype == object
            assert column.tolist() == [getattr(each, name) for each in MIXED]


def test_records_and_payload() -> None:
    made = EventBatch.from_events(MIXED)
    assert made.records.dtype == EVENT_DTYPE
    assert made.records.shape == (4,)
    assert made.payload.dtype == np.uint8
    row = made.records[1]
    start, length = int(row["collection_offset"]), int(row["collection_length"])
    assert made.payload[start : start + length].tobytes().decode() == FULL["collection"]


def test_from_events_takes_any_iterable() -> None:
    assert list(EventBatch.from_events(iter(MIXED))) == MIXED
    assert len(EventBatch.from_events(())) == 0


def test_from_events_refuses_other_types() -> None:
    strays: Any = [event(), {"sequence": 2}]
    with pytest.raises(TypeError, match=r"\{'sequence': 2\}"):
        EventBatch.from_events(strays)


def test_the_empty_batch() -> None:
    for made in (
        EventBatch.from_events([]),
        batch(1, 3)[1:1],
        EventBatch(raw_rows(0)),
        EventBatch.concat([]),
    ):
        assert len(made) == 0
        assert list(made) == []
        assert made.sequence.tolist() == []
        assert made.strings("row_id").tolist() == []
        assert made.payload.dtype == np.uint8
        assert made.records.dtype == EVENT_DTYPE
        assert repr(made) == "EventBatch(0 events)"
        with pytest.raises(IndexError):
            made[0]


def test_repr_is_readable() -> None:
    assert repr(batch(3, 9)) == "EventBatch(7 events, sequence 3 to 9)"


@pytest.mark.parametrize("name", ["new_value", "sequence", "colour"])
def test_strings_of_another_column(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        batch(1, 1).strings(name)


@pytest.mark.parametrize("name", ["collection", "sequence", "colour"])
def test_values_of_another_column(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        batch(1, 1).values(name)


# indexing


def test_an_int_is_an_event() -> None:
    made = batch(1, 5)
    indices: list[Any] = [2, -3, np.int64(2), np.uint8(2), np.array(2)]
    for index in indices:
        assert made[index] == event(3)


@pytest.mark.parametrize("index", [5, -6, 2**80])
def test_an_int_outside(index: int) -> None:
    with pytest.raises(IndexError, match=str(index)):
        batch(1, 5)[index]


@pytest.mark.parametrize(
    "cut",
    [
        slice(None), slice(1, 4), slice(2, None), slice(-2, None), slice(3, 1), slice(0, 99), slice(None, None, 2),
        slice(None, None, -1), slice(4, 0, -3), slice(9, 20),
    ],
)  # fmt: skip
def test_a_slice_is_a_batch(cut: slice) -> None:
    whole = EventBatch.from_events([*MIXED, event(9)])
    part = whole[cut]
    assert isinstance(part, EventBatch)
    assert list(part) == [*MIXED, event(9)][cut]
    assert part.strings("row_id").tolist() == whole.strings("row_id")[cut].tolist()
    assert list(EventBatch(part.records, part.payload)) == list(part)


def test_a_slice_of_a_slice() -> None:
    assert sequences(batch(1, 10)[2:9][1:4][::2]) == [4, 6]


def test_a_slice_shares_memory_and_outlives_the_whole() -> None:
    whole = batch(1, 100)
    part = whole[10:20]
    assert np.shares_memory(whole.records, part.records)
    column = part.sequence
    del whole, part
    assert column.tolist() == list(range(11, 21))


def test_slices_of_slices_are_taken_apart_without_recursion() -> None:
    # On a small stack, a few thousand show what a hundred thousand show on a large one.
    printed = in_new_interpreter(
        "import threading\n"
        "from nodedb_ring import EventBatch\n"
        "def cut():\n"
        "    batch = EventBatch.from_columns(sequence=range(1, 5001), lsn=0, op=1, collection='t', row_id='r')\n"
        "    while len(batch) > 1:\n"
        "        batch = batch[1:]\n"
        "    print(batch.sequence.tolist())\n"
        "threading.stack_size(128 * 1024)\n"
        "thread = threading.Thread(target=cut)\n"
        "thread.start()\n"
        "thread.join()\n"
    )
    assert printed == "[5000]\n"


def test_a_boolean_mask_is_a_batch() -> None:
    whole = EventBatch.from_events(MIXED)
    mask: npt.NDArray[np.bool_] = whole.op == WriteOp.INSERT
    assert list(whole[mask]) == [MIXED[0], MIXED[3]]
    chosen: list[bool] = mask.tolist()
    assert list(whole[chosen]) == [MIXED[0], MIXED[3]]
    assert len(whole[~(mask | ~mask)]) == 0
    assert list(whole[mask | ~mask]) == MIXED


@pytest.mark.parametrize("length", [3, 5, 0])
def test_a_mask_of_another_length(length: int) -> None:
    with pytest.raises(IndexError, match=rf"{length}\b.*\b4"):
        EventBatch.from_events(MIXED)[np.ones(length, np.bool_)]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64, ">i4", None])
@pytest.mark.parametrize("numbers", [[0, 2], [3, 0, 0], [-1, -4, 1], [2]])
def test_integers_index_as_with_numpy(numbers: list[int], dtype: Any) -> None:
    if dtype is not None and np.dtype(dtype).kind == "u":
        numbers = [abs(number) % 4 for number in numbers]
    whole = batch(1, 4)
    chosen = whole[numbers if dtype is None else np.array(numbers, dtype)]
    assert chosen.sequence.tolist() == whole.sequence[numbers].tolist()
    assert list(chosen) == [whole[number] for number in numbers]


@pytest.mark.parametrize("index", [[4], [-5], [0, 9], np.array([2**64 - 1], np.uint64), np.array([-128], np.int8)])
def test_integers_that_no_event_has(index: Any) -> None:
    with pytest.raises(IndexError, match=r"^event -?\d+ of a batch of 4$"):
        batch(1, 4)[index]
    assert len(batch(1, 4)[np.zeros(0, np.int64)]) == 0


@pytest.mark.parametrize("index", [[0, 1.5], np.array([1.0]), "sequence", 1.0, None, np.ones((2, 2), np.bool_)])
def test_no_other_index(index: Any) -> None:
    with pytest.raises(TypeError):
        batch(1, 4)[index]


def test_concat() -> None:
    whole = EventBatch.concat(
        [batch(1, 3), EventBatch.from_events(MIXED)[1:], batch(1, 0), columns(new_value=[b"a", None])]
    )
    assert list(whole)[:6] == events(1, 3) + MIXED[1:]
    assert whole.values("new_value")[6:].tolist() == [b"a", None]
    assert list(EventBatch(whole.records, whole.payload)) == list(whole)


def test_iteration_gives_events_again_and_again() -> None:
    made = batch(1, 3)
    assert list(made) == list(made) == events(1, 3)
    assert [type(each) for each in made] == [WriteEvent] * 3


def test_a_batch_that_is_empty_is_false() -> None:
    assert not batch(1, 0)
    assert batch(1, 1)


# immutable


@pytest.mark.parametrize("make", MAKERS)
def test_nothing_of_it_can_be_written(make: Callable[[list[WriteEvent]], EventBatch]) -> None:
    made = make(MIXED)
    arrays: list[npt.NDArray[Any]] = [made.records, made.payload, *(getattr(made, name) for name in FIXED)]
    for array in arrays:
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[1]
    assert list(made) == MIXED


@pytest.mark.parametrize("name", [*FIXED, "records", "payload", "colour"])
def test_no_attribute_can_be_set(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(batch(1, 2), name, 1)


def test_it_copies_what_it_is_given() -> None:
    rows, payload = raw_rows(2), bytearray(b"abcd")
    rows["row_id_length"] = [4, 2]
    made = EventBatch(rows, payload)
    rows["sequence"] = 99
    rows["op"] = 0
    payload[:] = b"\xff\xff\xff\xff"
    assert sequences(made) == [1, 2]
    assert made.strings("row_id").tolist() == ["abcd", "ab"]
    assert made[0].op is WriteOp.INSERT


def test_it_does_not_freeze_what_it_is_given() -> None:
    rows, payload = raw_rows(2), np.zeros(4, np.uint8)
    EventBatch(rows, payload)
    assert rows.flags.writeable
    assert payload.flags.writeable


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(protocol: int) -> None:
    for made in (
        EventBatch.from_events(MIXED),
        EventBatch.from_events(MIXED)[1:3],
        batch(1, 0),
        drained(MIXED),
    ):
        back = pickle.loads(pickle.dumps(made, protocol))
        assert type(back) is EventBatch
        assert list(back) == list(made)
        assert not back.records.flags.writeable


def test_pickling_a_slice_carries_no_more_than_the_slice() -> None:
    whole = EventBatch.from_events([event(n, new_value=b"x" * 1000) for n in range(1, 100)])
    assert len(pickle.dumps(whole[5:6])) < 3000


def test_copies() -> None:
    made = EventBatch.from_events(MIXED)
    assert list(copy.copy(made)) == list(copy.deepcopy(made)) == MIXED


# what a drain returns


def test_a_drained_batch_is_valid() -> None:
    producer, consumer = ring(16, arena_bytes=200)
    for first in range(1, 200, 3):
        for each in (
            event(first, user_id="é" * (first % 7)),
            event(first + 1, new_value=b"\xff" * (first % 30)),
            event(first + 2),
        ):
            assert producer.emit(each)
        out = consumer.drain()
        assert list(EventBatch(out.records, out.payload)) == list(out)


def test_a_drain_is_an_owned_copy() -> None:
    producer, consumer = ring(4, arena_bytes=64)
    assert producer.emit_batch(batch(1, 4)) == 4
    first = consumer.drain()
    row, payload = first.records.copy(), first.payload.copy()
    for n in range(5, 50):
        assert producer.emit(event(n, new_value=b"~" * 20))
        consumer.try_recv()
    del producer, consumer
    assert (first.records == row).all()
    assert (first.payload == payload).all()
    assert list(first) == events(1, 4)


def test_a_dropped_batch_frees_only_its_own_memory() -> None:
    # Batches recycle their buffers: not while an array of them lives.
    producer, consumer = ring(16)
    kept: list[npt.NDArray[np.uint64]] = []
    for n in range(100):
        assert producer.emit_batch(batch(10 * n, 10 * n + 9)) == 10
        kept.append(consumer.drain().sequence)
    for n, column in enumerate(kept):
        assert column.tolist() == list(range(10 * n, 10 * n + 10))
