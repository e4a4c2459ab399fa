"""What is passed as a value, a row or a column is taken exactly or refused by its name, beside what the table has.

The table itself is in ``tests/unit/batch/arrow/test_column_kinds.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nodedb_ring import EVENT_DTYPE, BatchError, EventBatch, EventSource, WriteEvent, WriteOp
from nodedb_ring.batch.integers import as_int
from tests.unit.builders import batch, event, events, raw_rows, ring, sequences


def columns(**given: Any) -> EventBatch:
    least: dict[str, Any] = {"sequence": [1, 2], "collection": "t", "op": 1, "row_id": "", "lsn": 0}
    return EventBatch.from_columns(**(least | given))


def masked(values: Any, mask: Any, dtype: Any = None) -> Any:
    return np.ma.array(values, mask=mask, dtype=dtype)


# an event


@pytest.mark.parametrize(
    "name", ["sequence", "lsn", "tenant_id", "vshard_id", "count", "op", "source", "system_time_ms", "valid_time_ms"]
)
@pytest.mark.parametrize(
    "value",
    [
        True, False, np.True_, 7.0, np.float64(7), "7", b"7", masked(1, True), np.ma.masked, np.timedelta64(7, "ms"),
        np.datetime64(7, "ms"), [1], np.array([1, 2]),
    ],
)  # fmt: skip
def test_an_event_refuses_other_numbers(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"(?s)^{name} .*: must be "):
        event(**{name: value}) if name != "sequence" else event(value, row_id="", lsn=0)


@pytest.mark.parametrize("value", [1, np.uint8(1), np.int64(1), np.array(1), masked(1, False), WriteOp.INSERT])
def test_an_event_takes_what_is_an_integer(value: Any) -> None:
    made = WriteEvent(sequence=value, collection="t", op=1, row_id="", lsn=value, count=value, system_time_ms=value)  # type: ignore[arg-type]
    assert (made.sequence, made.lsn, made.count, made.system_time_ms) == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("value", "why"),
    [(True, "bool"), (masked(3, True), "masked"), (3.0, "float"), (np.ma.masked, "masked"), (None, "None")],
)
def test_not_an_integer(value: object, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        as_int(value)


# rows


@pytest.mark.parametrize("name", EVENT_DTYPE.names or ())
def test_rows_that_are_masked_are_refused(name: str) -> None:
    rows = masked(raw_rows(3), False)
    assert len(EventBatch(rows)) == 3
    rows[name][1] = np.ma.masked
    with pytest.raises(BatchError, match=f"^row 1: {name} of records is masked"):
        EventBatch(rows)


def test_a_payload_that_is_masked_is_refused() -> None:
    assert EventBatch(raw_rows(1), masked([97, 98], False, np.uint8)).payload.tolist() == [97, 98]
    with pytest.raises(BatchError, match=r"^row 1: payload is masked"):
        EventBatch(raw_rows(1), masked([97, 98], [0, 1], np.uint8))


def test_a_mask_that_is_masked_selects_nothing() -> None:
    whole = batch(1, 3)
    assert sequences(whole[masked([True, False, True], False)]) == [1, 3]
    with pytest.raises(BatchError, match=r"^row 2: mask is masked"):
        whole[masked([True, False, True], [0, 0, 1])]
    with pytest.raises(BatchError, match="mask is masked"):
        whole[masked(1, True)]


# order


SETS: list[Callable[[list[Any]], Any]] = [set, frozenset, dict.fromkeys]


@pytest.mark.parametrize("kind", SETS)
def test_events_and_batches_have_an_order(kind: Callable[[list[Any]], Any]) -> None:
    with pytest.raises(BatchError, match="events of "):
        EventBatch.from_events(kind(events(1, 5)))
    with pytest.raises(BatchError, match="batches of "):
        EventBatch.concat(kind([batch(1, 2), batch(3, 4)]))
    assert sequences(EventBatch.from_events(dict.fromkeys(events(1, 5)).keys())) == [1, 2, 3, 4, 5]
    assert sequences(EventBatch.concat({1: batch(1, 2), 2: batch(3, 4)}.values())) == [1, 2, 3, 4]


def test_a_stray_among_events_is_named_by_its_row() -> None:
    strays: Any = [event(1), event(2), None]
    with pytest.raises(TypeError, match=r"^row 2: None: must be a WriteEvent"):
        EventBatch.from_events(strays)


# nothing


def test_an_empty_mask_of_an_empty_batch() -> None:
    for nothing in (batch(1, 0), EventBatch(raw_rows(0)), batch(1, 3)[1:1]):
        assert len(nothing[[]]) == 0
        assert len(nothing[np.zeros(0, np.bool_)]) == 0
    with pytest.raises(IndexError, match="mask of 0 for a batch of 3"):
        batch(1, 3)[[]]
    # But an array says what it is of.
    floats: Any = np.zeros(0)
    with pytest.raises(TypeError, match="float64"):
        batch(1, 0)[floats]


@pytest.mark.parametrize(
    "empty", [[], (), np.empty(0), np.empty(0, object), np.empty(0, "U1"), np.empty(0, "M8[s]"), iter(())]
)
def test_no_rows_of_any_type(empty: Any) -> None:
    assert len(columns(sequence=[], system_time_ms=[], row_id=[], new_value=empty)) == 0
    assert len(columns(sequence=[], system_time_ms=empty)) == 0
    assert len(columns(sequence=np.empty(0), lsn=np.empty(0, object), count=[], user_id=())) == 0


# names and ranges, by their row


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("op", [1, 7], "row 1: op 7: unknown; known are 1 (INSERT)"),
        ("op", [0, 1], "row 0: op 0: unknown"),
        ("op", np.array([1, 300]), "row 1: op 300: must be in 0 .. 255"),
        ("op", 9, "op 9: unknown"),
        ("source", [0, 5], "row 1: source 5: unknown"),
        ("source", -1, "source -1: must be in 0 .. 255"),
        ("vshard_id", [2**32, 0], "row 0: vshard_id 4294967296: must be in 0 .. 4294967295"),
        ("count", [1, -1], "row 1: count -1: must be in 0 .. 4294967295"),
        ("tenant_id", np.array([0, -3], ">i8"), "row 1: tenant_id -3: must be in"),
        ("system_time_ms", [None, 2**63], "row 1: system_time_ms 9223372036854775808: must be in"),
        ("system_time_ms", 2**63, "system_time_ms 9223372036854775808: must be in"),
        ("system_time_ms", np.datetime64(1, "us"), "system_time_ms 1 us: is not a whole number of milliseconds"),
        ("system_time_ms", np.array([0, 3], "M8[250us]"), "row 1: system_time_ms 3 250us: is not a whole number"),
        ("system_time_ms", np.array([0, 2**61], "M8[D]"), "row 1: system_time_ms 2305843009213693952 D: does not fit"),
        ("collection", ["a", None], "row 1: collection is None: must be a string"),
        ("collection", masked(["a", "b"], [1, 0]), "row 0: collection is None"),
        ("row_id", None, "row_id is None: must be a string"),
        ("row_id", ["a", "\ud800"], "row 1: row_id '\\ud800': has a lone surrogate"),
        ("row_id", "\ud800", "row_id '\\ud800': has a lone surrogate"),
        ("user_id", ["a", 5], "row 1: user_id 5: must be a str, not int"),
        ("new_value", [b"a", "b"], "row 1: new_value 'b': must be bytes or None, not str"),
        ("new_value", 5, "new_value of int: must be bytes"),
        ("new_value", (b"abc", [0, 2, 1]), "row 1: new_value offsets from 0 to 1: must not fall"),
        ("new_value", (b"abc", [0, 2, 4]), "row 1: new_value offsets from 0 to 4: must not fall, and must lie in"),
        ("new_value", (b"abc", [-1, 2, 3]), "row 0: new_value offsets from -1 to 3"),
        ("new_value", (b"abc", [0, 1.5, 3]), "row 1: new_value offset 1.5 of float64: must be an integer"),
    ],
)  # fmt: skip
def test_a_complaint_names_its_row(name: str, value: Any, said: str) -> None:
    with pytest.raises(BatchError) as caught:
        columns(**{name: value})
    assert str(caught.value).startswith(said)


def test_members_are_taken_by_their_numbers() -> None:
    made = columns(op=[WriteOp.UPDATE, 3], source=np.array([EventSource.TRIGGER, EventSource.USER], ">u2"))
    assert [(each.op, each.source) for each in made] == [
        (WriteOp.UPDATE, EventSource.TRIGGER),
        (WriteOp.DELETE, EventSource.USER),
    ]


def test_a_scalar_of_bytes_keeps_its_zeros() -> None:
    assert columns(new_value=np.bytes_(b"a\0")).values("new_value").tolist() == [b"a\0"] * 2
    assert columns(user_id=np.str_("a\0")).strings("user_id").tolist() == ["a\0"] * 2


def test_a_number_of_years_that_numpy_overflows() -> None:
    for unit in "YMWDhms":
        for ticks in (2**62, -(2**62), 2**63 - 1, -(2**63) + 1):
            with pytest.raises(BatchError, match="does not fit 64 bits of ms"):
                columns(system_time_ms=np.array([0, ticks], f"M8[{unit}]"))


@pytest.mark.parametrize(("unit", "days"), [("Y", 365.2425), ("M", 365.2425 / 12)])
def test_a_number_of_years_whose_days_wrap_to_a_few(unit: str, days: float) -> None:
    around = int(2**64 / days)
    wrapped = np.arange(around - 40, around + 40)
    # What NumPy makes of some of these is a day of our time.
    seen = np.abs(wrapped.astype(f"M8[{unit}]").astype("M8[D]").view(np.int64))
    assert seen.min() < 10**6
    for tick in wrapped.tolist():
        with pytest.raises(BatchError, match="does not fit 64 bits of ms"):
            columns(system_time_ms=np.array([0, tick], f"M8[{unit}]"))


def test_every_timestamp_equals_integer_arithmetic() -> None:
    # Against integers of Python: by NumPy's own casts some of these come out wrong.
    rng = np.random.default_rng(11)
    scales = {
        "s": (1000, 1),
        "ms": (1, 1),
        "us": (1, 1000),
        "ns": (1, 10**6),
        "h": (3_600_000, 1),
        "W": (604_800_000, 1),
    }
    for unit, (by, through) in scales.items():
        for count in (1, 4, 25):
            dtype = f"M8[{unit}]" if count == 1 else f"M8[{count}{unit}]"
            for size in (8, 20, 40, 62):
                for tick in rng.integers(-(2**size), 2**size, 20).tolist():
                    whole, rest = divmod(tick * count * by, through)
                    fits = rest == 0 and abs(whole) < 2**63
                    given = np.array([0, tick], dtype)
                    if fits:
                        assert columns(system_time_ms=given).system_time_ms.tolist() == [0, whole]
                    else:
                        with pytest.raises(BatchError, match=r"^row 1: system_time_ms"):
                            columns(system_time_ms=given)


# a reservation


def test_a_reservation_broadcasts_one_value_and_refuses_another_number_of_them() -> None:
    producer, consumer = ring(8)
    with producer.reserve(3) as rows:
        rows["op"] = [1]
        rows["lsn"] = np.array([7])
        rows["count"] = 5
        rows["vshard_id"] = np.uint64(6)
        rows["valid_time_ms"] = None
        rows["system_time_ms"] = [None, 5, np.datetime64(1, "s")]
        with pytest.raises(BatchError, match="lsn of 2 values: must be one, or one for each of the 3 rows"):
            rows["lsn"] = [1, 2]
        with pytest.raises(BatchError, match="lsn of shape"):
            rows["lsn"] = np.zeros((1, 3), np.uint64)
    made = consumer.drain()
    assert made.lsn.tolist() == [7, 7, 7]
    assert [(each.count, each.vshard_id, each.valid_time_ms) for each in made] == [(5, 6, None)] * 3
    assert [each.system_time_ms for each in made] == [None, 5, 1000]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("op", 256), ("op", True), ("op", [1, 2, 1.0]), ("lsn", [1, True, 2]),
        ("lsn", -1), ("lsn", 2**64), ("count", 1.5),
        ("vshard_id", 2**32),
        ("lsn", masked([1, 2, 3], [0, 1, 0])), ("row_id_length", [0, 0, 2**32]), ("row_id_offset", None),
        ("system_time_ms", np.array([2**62] * 3, "M8[s]")), ("system_time_ms", np.array([1] * 3, "M8[us]")),
        ("system_time_ms", 2**63), ("lsn", {1, 2, 3}), ("lsn", np.array([1, 2, -3])), ("count", np.array([2**32] * 3)),
    ],
)  # fmt: skip
def test_a_reservation_takes_no_number_that_is_not_exact(name: str, value: Any) -> None:
    producer, consumer = ring(8)
    with producer.reserve(3) as rows:
        before: npt.NDArray[Any] = rows[name].copy()
        with pytest.raises(BatchError, match=name):
            rows[name] = value
        assert (rows[name] == before).all()
        rows["op"] = 1
    assert len(consumer.drain()) == 3
