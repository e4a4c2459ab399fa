"""EventBatch: "immutable and checked once, when it is made"; its columns, its makers, and what it refuses."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nodedb_ring import EVENT_DTYPE, BatchError, EventBatch, EventSource, WriteEvent, WriteOp
from tests.unit.builders import FULL, batch, event, events, raw_rows, ring, sequences
from tests.unit.runners import in_new_interpreter

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
STRINGS = ("collection", "row_id", "user_id", "statement_digest")
VALUES = ("new_value", "old_value")
LEAST: dict[str, Any] = {"sequence": [1, 2], "collection": "t", "op": WriteOp.INSERT, "row_id": "", "lsn": 0}
MIXED = [
    event(1),
    WriteEvent(**FULL),
    event(2, op=WriteOp.HEARTBEAT),
    event(3, row_id="", new_value=b"", user_id="é"),
]


def columns(**given: Any) -> EventBatch:
    return EventBatch.from_columns(**(LEAST | given))


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


def test_from_events_refuses_what_is_no_event() -> None:
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


# records and payload


def as_uint8(data: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, as_uint8])
def test_payload_is_bytes_like_or_uint8(kind: Callable[[bytes], Any]) -> None:
    rows = raw_rows(1)
    rows["collection_length"] = 3
    assert EventBatch(rows, kind(b"abc")).strings("collection").tolist() == ["abc"]


def test_arrays_of_any_stride() -> None:
    rows, payload = raw_rows(6), np.frombuffer(b"a_b_c_", np.uint8)
    rows["row_id_length"] = 3
    made = EventBatch(rows[::2], payload[::2])
    assert sequences(made) == [1, 3, 5]
    assert made.strings("row_id").tolist() == ["abc"] * 3
    assert sequences(EventBatch(rows[::-1], payload)) == [6, 5, 4, 3, 2, 1]


def test_rows_may_share_payload_and_lie_in_any_order() -> None:
    rows = raw_rows(3)
    rows["collection_offset"], rows["collection_length"] = [4, 0, 2], [2, 6, 3]
    rows["new_value_offset"], rows["new_value_length"] = 0, [0, 6, 1]
    made = EventBatch(rows, b"aabbcc")
    assert made.strings("collection").tolist() == ["cc", "aabbcc", "bbc"]
    producer, consumer = ring()
    assert producer.emit_batch(made) == 3
    out = consumer.drain()
    assert list(out) == list(made)
    for part in (made[1:], made[::-1], made[[True, False, True]]):
        assert list(EventBatch.concat([part, part])) == list(part) * 2


@pytest.mark.parametrize("records", [[1], None, np.zeros(2), np.zeros(2, [("sequence", "<u8")]), "rows"])
def test_refuses_records_of_another_dtype(records: Any) -> None:
    with pytest.raises(BatchError) as refused:
        EventBatch(records, b"")
    shown = str(getattr(records, "dtype", type(records).__name__))
    assert shown in str(refused.value)


def test_refuses_rows_of_the_other_byte_order() -> None:
    with pytest.raises(BatchError, match="EVENT_DTYPE"):
        EventBatch(raw_rows(1).astype(EVENT_DTYPE.newbyteorder(">")))


@pytest.mark.parametrize("shape", [(), (2, 2)])
def test_refuses_records_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(BatchError) as refused:
        EventBatch(np.zeros(shape, EVENT_DTYPE))
    assert str(shape) in str(refused.value)


@pytest.mark.parametrize("payload", [np.zeros(2, np.int64), np.zeros((2, 2), np.uint8), "text", 7, None])
def test_refuses_a_payload_of_another_type(payload: Any) -> None:
    with pytest.raises(BatchError) as refused:
        EventBatch(raw_rows(1), payload)
    shown = str(getattr(payload, "dtype", type(payload).__name__))
    assert shown in str(refused.value)


@pytest.mark.parametrize(("name", "value"), [("op", 0), ("op", 7), ("op", 255), ("source", 5), ("source", 200)])
def test_refuses_an_unknown_op_or_source(name: str, value: int) -> None:
    rows = raw_rows(3)
    rows[name][2] = value
    with pytest.raises(BatchError, match=f"row 2: {name} {value}"):
        EventBatch(rows, b"")


@pytest.mark.parametrize("name", STRINGS + VALUES)
@pytest.mark.parametrize(
    ("offset", "length"), [(0, 11), (10, 1), (11, 0), (2**32 - 1, 2), (2**32 - 1, 2**32 - 2), (5, 6)]
)
def test_refuses_offsets_outside_the_payload(name: str, offset: int, length: int) -> None:
    rows = raw_rows(2)
    rows[f"{name}_offset"][1], rows[f"{name}_length"][1] = offset, length
    with pytest.raises(BatchError, match=rf"row 1: {name} at {offset} of {length} bytes.*\b10\b"):
        EventBatch(rows, b"0123456789")


@pytest.mark.parametrize("name", STRINGS + VALUES)
def test_a_field_may_end_with_the_payload(name: str) -> None:
    rows = raw_rows(2)
    rows[f"{name}_offset"], rows[f"{name}_length"] = [10, 0], [0, 10]
    made = EventBatch(rows, b"0123456789")
    wanted = b"0123456789" if name in VALUES else "0123456789"
    assert [getattr(each, name) for each in made] == [wanted[:0], wanted]


@pytest.mark.parametrize("name", ["collection", "row_id"])
def test_refuses_none_where_a_string_is_required(name: str) -> None:
    rows = raw_rows(2)
    rows[f"{name}_length"][1] = 2**32 - 1
    with pytest.raises(BatchError, match=f"row 1: {name} is None"):
        EventBatch(rows, b"")


BAD_UTF8 = [
    b"\x80", b"\xbf", b"\xc0\xaf", b"\xc1\xbf", b"\xc2", b"\xc2\x20", b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xe1\x80",
    b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf", b"\xf0\x9f\x98", b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80", b"\xfe", b"\xff", b"12345678\xff", b"1234567\xc3", b"\xe1\x80\x20", b"\xf1\x80\x80\x20",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_UTF8)
@pytest.mark.parametrize("name", STRINGS)
def test_refuses_what_is_not_utf8(name: str, text: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        text.decode()
    rows = raw_rows(2)
    # Whatever bytes stand after the field, they are not of it.
    rows[f"{name}_offset"][1], rows[f"{name}_length"][1] = 2, len(text)
    with pytest.raises(BatchError) as refused:
        EventBatch(rows, b"ab" + text + b"\x80\x80\x80")
    assert f"row 1: {name} {text!r}" in str(refused.value)


def test_utf8_is_what_python_says_it_is() -> None:
    rows = raw_rows(1)
    tried = [
        bytes([lead, *rest])
        for lead in range(0x7F, 256)
        for rest in ([], [0x7F], [0x80], [0x8F], [0x90], [0x9F], [0xA0], [0xBF], [0xC0])
    ]
    tried += [
        two + more
        for two in tried
        if len(two) == 2
        for more in (b"\x80", b"\xbf", b"\x80\x80", b"\xbf\xbf", b"\x80\x7f", b"x")
    ]
    for text in tried:
        rows["user_id_length"] = len(text)
        try:
            wanted: str | None = text.decode()
        except UnicodeDecodeError:
            wanted = None
        try:
            got: str | None = EventBatch(rows, text).strings("user_id")[0]
        except BatchError:
            got = None
        assert got == wanted, text


@pytest.mark.parametrize("size", [*range(1, 26), 63, 64, 65])
def test_a_byte_that_is_not_utf8_is_found_wherever_it_stands(size: int) -> None:
    rows = raw_rows(1)
    rows["row_id_length"] = size
    assert EventBatch(rows, b"a" * size).strings("row_id").tolist() == ["a" * size]
    for place in range(size):
        text = b"a" * place + b"\xff" + b"a" * (size - place - 1)
        with pytest.raises(BatchError, match="row 0: row_id"):
            EventBatch(rows, text)
    # And what follows a text is not of it.
    assert EventBatch(rows, b"a" * size + b"\xff" * 8).strings("row_id").tolist() == ["a" * size]


@pytest.mark.parametrize("name", VALUES)
def test_values_are_any_bytes(name: str) -> None:
    rows = raw_rows(1)
    rows[f"{name}_length"] = 256
    assert EventBatch(rows, bytes(range(256))).values(name)[0] == bytes(range(256))


# from columns


def test_from_columns_takes_every_column() -> None:
    given: dict[str, Any] = {name: [getattr(each, name) for each in MIXED] for name in WriteEvent.__match_args__}
    assert list(EventBatch.from_columns(**given)) == MIXED


def test_from_columns_has_the_defaults_of_an_event() -> None:
    made = EventBatch.from_columns(sequence=[1, 2], collection=["t", "t"], op=[1, 6], row_id=["1", "2"], lsn=[1, 2])
    assert list(made) == [event(1), event(2, op=WriteOp.HEARTBEAT)]


@pytest.mark.parametrize("name", ["sequence", "collection", "op", "row_id", "lsn"])
def test_from_columns_wants_the_required_ones(name: str) -> None:
    given = {column: value for column, value in LEAST.items() if column != name} | {"tenant_id": [1, 2]}
    with pytest.raises(TypeError, match=name):
        EventBatch.from_columns(**given)


def test_from_columns_knows_no_other() -> None:
    with pytest.raises(TypeError, match="colour"):
        columns(colour=[1, 2])


def test_scalars_broadcast() -> None:
    made = columns(
        tenant_id=7, vshard_id=np.uint32(8), source=EventSource.TRIGGER, count=9, system_time_ms=-5, valid_time_ms=None,
        new_value=b"v", old_value=None, user_id="u", statement_digest=None, collection="ü",
    )  # fmt: skip
    assert list(made) == [
        WriteEvent(
            sequence=n, collection="ü", op=WriteOp.INSERT, row_id="", lsn=0, tenant_id=7, vshard_id=8, count=9,
            source=EventSource.TRIGGER, system_time_ms=-5, new_value=b"v", user_id="u",
        )
        for n in (1, 2)
    ]  # fmt: skip


def test_a_scalar_is_stored_once() -> None:
    made = EventBatch.from_columns(sequence=np.arange(1000), collection="t" * 100, op=1, row_id="", lsn=0)
    assert made.strings("collection").tolist() == ["t" * 100] * 1000


def test_all_scalars_say_no_length() -> None:
    with pytest.raises(BatchError, match="scalar"):
        columns(sequence=1)


def test_no_rows() -> None:
    assert len(columns(sequence=[])) == 0
    assert len(columns(sequence=np.empty(0, np.uint64), row_id=[], new_value=[])) == 0


@pytest.mark.parametrize("dtype", ["<u1", "<i2", ">u4", "<i8", "<u8"])
def test_fixed_columns_of_any_integer_type(dtype: str) -> None:
    assert sequences(columns(sequence=np.array([3, 4], dtype))) == [3, 4]


def test_fixed_columns_as_any_sequence() -> None:
    for given in ([3, 4], (3, 4), range(3, 5), np.array([3, 9, 4])[::2], [np.uint64(3), 4]):
        assert sequences(columns(sequence=given)) == [3, 4]


def test_numbers_on_both_sides_of_two_to_the_63() -> None:
    # One list of ints, for which NumPy alone has no integer type.
    assert sequences(columns(sequence=[1, 2**63])) == [1, 2**63]
    assert sequences(columns(sequence=[2**64 - 1, 0])) == [2**64 - 1, 0]


def test_stamps_as_datetime64_and_with_none() -> None:
    when = np.array(["2020-01-01T00:00:00.001", "NaT"], "datetime64[ms]")
    made = columns(system_time_ms=when, valid_time_ms=[None, 5])
    assert [each.system_time_ms for each in made] == [1_577_836_800_001, None]
    assert [each.valid_time_ms for each in made] == [None, 5]
    for unit, ticks in (("s", 1000), ("ms", 1), ("D", 86_400_000)):
        moved = columns(system_time_ms=np.array([1, -1], f"datetime64[{unit}]"))
        assert moved.system_time_ms.tolist() == [ticks, -ticks]
    assert [e.system_time_ms for e in columns(system_time_ms=np.datetime64("1970-01-02"))] == [86_400_000] * 2


@pytest.mark.parametrize("name", STRINGS)
def test_strings_as_a_list_or_a_pair(name: str) -> None:
    for given in (
        ["é", ""],
        ("é", ""),
        np.array(["é", ""]),
        np.array(["é", ""], object),
        ("é".encode(), [0, 2, 2]),
        (bytearray(b"__\xc3\xa9__"), (2, 4, 4)),
        (np.frombuffer(b"\xc3\xa9", np.uint8), np.array([0, 2, 2], np.uint32)),
        (memoryview(b"\xc3\xa9"), np.array([0, 2, 2], np.int64)),
    ):
        assert columns(**{name: given}).strings(name).tolist() == ["é", ""]


@pytest.mark.parametrize("name", VALUES)
def test_values_as_a_list_or_a_pair(name: str) -> None:
    for given in (
        [b"\xff", b""],
        (b"\xff", b""),
        (b"\xff", [0, 1, 1]),
        (bytearray(b"__\xff"), np.array([2, 3, 3], np.uint8)),
    ):
        assert columns(**{name: given}).values(name).tolist() == [b"\xff", b""]


@pytest.mark.parametrize("name", ["user_id", "statement_digest", "new_value", "old_value"])
def test_none_in_a_list(name: str) -> None:
    empty: Any = b"" if name in VALUES else ""
    made = columns(**{name: [None, empty]})
    assert [getattr(each, name) for each in made] == [None, empty]
    both: tuple[Any, Any] = (empty, None)
    assert [getattr(each, name) for each in columns(**{name: both})] == [empty, None]


def test_pairs_of_several_columns_do_not_mix() -> None:
    made = columns(collection=(b"aabb", [0, 2, 4]), row_id=["x", "yy"], new_value=(b"12345", [1, 3, 5]), old_value=b"o")
    assert [(e.collection, e.row_id, e.new_value, e.old_value) for e in made] == [
        ("aa", "x", b"23", b"o"),
        ("bb", "yy", b"45", b"o"),
    ]
    producer, consumer = ring()
    assert producer.emit_batch(made) == 2
    assert list(consumer.drain()) == list(made)


def test_refuses_columns_of_unequal_length() -> None:
    with pytest.raises(BatchError, match=r"sequence 2.*lsn 3|lsn 3.*sequence 2"):
        columns(lsn=[1, 2, 3])
    with pytest.raises(BatchError, match=r"row_id 1\b"):
        columns(row_id=["a"])
    with pytest.raises(BatchError, match=r"new_value 3\b"):
        columns(new_value=(b"", [0, 0, 0, 0]))
    with pytest.raises(BatchError, match=r"tenant_id 1\b"):
        columns(tenant_id=[1])


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("sequence", [1.0, 2.0], "float64"),
        ("sequence", ["1", "2"], "U1"),
        ("lsn", np.array([True, False]), "bool"),
        ("lsn", None, "object"),
        ("op", ["INSERT", "INSERT"], "U6"),
        ("count", np.array([1, 2], "timedelta64[ms]"), "timedelta64"),
        ("tenant_id", np.array([1, 2], "datetime64[ms]"), "datetime64"),
        ("collection", [b"a", b"b"], "b'a'"),
        ("collection", b"a", "bytes"),
        ("row_id", [1, 2], "1"),
        ("user_id", [object, None], "object"),
        ("new_value", ["a", b"b"], "'a'"),
        ("new_value", "a", "str"),
        ("old_value", [bytearray(b"a"), None], "bytearray"),
        ("new_value", (b"ab", [0.0, 1.0, 2.0]), "float64"),
        ("row_id", (np.zeros(2), [0, 1, 2]), "float64"),
    ],
)
def test_refuses_wrong_dtypes(name: str, value: object, shown: str) -> None:
    with pytest.raises(BatchError) as refused:
        columns(**{name: value})
    assert name in str(refused.value) or "payload" in str(refused.value)
    assert shown in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("sequence", [1, -1], "-1"),
        ("sequence", [1, 2**64], str(2**64)),
        ("tenant_id", -7, "-7"),
        ("lsn", 2**70, str(2**70)),
        ("vshard_id", [0, 2**32], str(2**32)),
        ("count", np.array([0, -3]), "-3"),
        ("op", [1, 256], "256"),
        ("system_time_ms", 2**63, str(2**63)),
        ("valid_time_ms", [None, 2**63], str(2**63)),
    ],
)
def test_refuses_integers_out_of_range(name: str, value: object, shown: str) -> None:
    with pytest.raises(BatchError, match=name) as refused:
        columns(**{name: value})
    assert shown in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"), [("op", [1, 0]), ("op", 7), ("op", [9, 1]), ("source", [0, 5]), ("source", 77)]
)
def test_columns_refuse_an_unknown_op_or_source(name: str, value: int | list[int]) -> None:
    stray = value if isinstance(value, int) else next(v for v in value if v not in (0 if name == "source" else 1, 1))
    with pytest.raises(BatchError, match=f"{name} {stray}: unknown"):
        columns(**{name: value})


@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (2, 2)])
def test_refuses_columns_of_more_dimensions(shape: tuple[int, ...]) -> None:
    with pytest.raises(BatchError, match="lsn"):
        columns(lsn=np.zeros(shape, np.int64))
    with pytest.raises(BatchError, match="system_time_ms"):
        columns(system_time_ms=np.zeros(shape, "datetime64[ms]"))


def test_refuses_ragged_columns() -> None:
    with pytest.raises(BatchError, match="lsn"):
        columns(lsn=[[1], [2, 3]])


@pytest.mark.parametrize(
    "offsets",
    [
        [0, 1, 5],
        [-1, 1, 2],
        [2, 1, 2],
        [0, 3, 1],
        [3, 4, 5],
        [],
        [0],
        [[0, 1, 2]],
        np.array([0, 1, 2**63], np.uint64),
    ],
)
@pytest.mark.parametrize("name", ["row_id", "new_value"])
def test_refuses_offsets_outside_their_data(name: str, offsets: object) -> None:
    with pytest.raises(BatchError):
        columns(**{name: (b"abcd", offsets)})


def test_refuses_offsets_outside_their_data_in_words() -> None:
    with pytest.raises(BatchError, match=r"row_id offsets from 0 to 9.*\b4 bytes"):
        columns(row_id=(b"abcd", [0, 2, 9]))


@pytest.mark.parametrize("name", STRINGS)
def test_columns_refuse_what_is_not_utf8(name: str) -> None:
    with pytest.raises(BatchError, match=name) as refused:
        columns(**{name: (b"ok\xff", [0, 2, 3])})
    assert repr(b"\xff") in str(refused.value)
    # Valid as a whole, cut in the middle of a character.
    with pytest.raises(BatchError, match=name):
        columns(**{name: ("é".encode(), [0, 1, 2])})
    for given in (["a", "\ud800"], "\ud800"):
        with pytest.raises(BatchError, match=name) as refused:
            columns(**{name: given})
        assert repr("\ud800") in str(refused.value)


@pytest.mark.parametrize("name", ["collection", "row_id"])
def test_columns_refuse_none_where_a_string_is_required(name: str) -> None:
    for given in (None, ["a", None]):
        with pytest.raises(BatchError, match=name):
            columns(**{name: given})


def test_columns_are_copied() -> None:
    numbers, data = np.array([1, 2], np.uint64), bytearray(b"ab")
    made = columns(sequence=numbers, row_id=(data, [0, 1, 2]))
    numbers[:] = 9
    data[:] = b"zz"
    assert list(made) == [event(1, row_id="a", lsn=0), event(2, row_id="b", lsn=0)]


# what a drain returns


def test_what_a_drain_returns_is_valid_by_construction() -> None:
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


def test_a_dropped_batch_takes_no_one_elses_memory_along() -> None:
    # Batches recycle their buffers: not while an array of them lives.
    producer, consumer = ring(16)
    kept: list[npt.NDArray[np.uint64]] = []
    for n in range(100):
        assert producer.emit_batch(batch(10 * n, 10 * n + 9)) == 10
        kept.append(consumer.drain().sequence)
    for n, column in enumerate(kept):
        assert column.tolist() == list(range(10 * n, 10 * n + 10))
