"""EventBatch.from_columns: which columns it takes, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nodedb_ring import BatchError, EventBatch, EventSource, WriteEvent, WriteOp
from tests.unit.builders import event, ring, sequences

from .mixed import LEAST, MIXED, STRINGS, VALUES, columns


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


def test_from_columns_refuses_unknown_columns() -> None:
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


def test_only_scalars_are_refused() -> None:
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


def test_timestamps_as_datetime64_and_with_none() -> None:
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
