"""WriteEvent: "immutable, keyword-only, hashable, picklable, with ==, a readable repr, __match_args__"."""

from __future__ import annotations

import copy
import enum
import pickle
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest

from nodedb_ring import EventSource, FieldError, WriteEvent, WriteOp
from tests.unit.builders import FULL, event, ring

FIELDS = (
    "sequence", "collection", "op", "row_id", "lsn", "tenant_id", "vshard_id", "source", "count", "new_value",
    "old_value", "system_time_ms", "valid_time_ms", "user_id", "statement_digest",
)  # fmt: skip
REQUIRED = FIELDS[:5]
LEAST: dict[str, Any] = {"sequence": 1, "collection": "t", "op": WriteOp.INSERT, "row_id": "7", "lsn": 10}
U64, U32 = 2**64 - 1, 2**32 - 1
OTHER: dict[str, Any] = {
    "sequence": 5, "collection": "u", "op": WriteOp.UPDATE, "row_id": "8", "lsn": 11, "tenant_id": 1, "vshard_id": 1,
    "source": EventSource.TRIGGER, "count": 2, "new_value": b"", "old_value": b"x", "system_time_ms": 0,
    "valid_time_ms": -1, "user_id": "", "statement_digest": "select",
}  # fmt: skip


class Name(str):
    """A str that brings something along."""

    extra: object


class Blob(bytes):
    """A bytes of another type."""


class Tenant(enum.IntEnum):
    """Integers are whatever has __index__."""

    ACME = 42


def fields_of(it: WriteEvent) -> dict[str, Any]:
    return {name: getattr(it, name) for name in FIELDS}


def with_field(name: str, value: Any) -> WriteEvent:
    given: dict[str, Any] = {"sequence": 1, name: value}
    return event(**given)


def test_every_field_is_kept_as_given() -> None:
    assert fields_of(WriteEvent(**FULL)) == FULL


def test_types_of_the_fields() -> None:
    made = WriteEvent(**FULL)
    assert [type(getattr(made, name)) for name in FIELDS] == [type(FULL[name]) for name in FIELDS]


def test_defaults() -> None:
    assert fields_of(WriteEvent(**LEAST)) == LEAST | {
        "tenant_id": 0, "vshard_id": 0, "source": EventSource.USER, "count": 1, "new_value": None, "old_value": None,
        "system_time_ms": None, "valid_time_ms": None, "user_id": None, "statement_digest": None,
    }  # fmt: skip


@pytest.mark.parametrize("op", WriteOp)
def test_count_is_1_by_default_and_0_for_a_heartbeat(op: WriteOp) -> None:
    assert event(op=op).count == (0 if op is WriteOp.HEARTBEAT else 1)
    assert event(op=op, count=9).count == 9


def test_match_args_name_every_field() -> None:
    assert WriteEvent.__match_args__ == FIELDS


def test_match_statement() -> None:
    match WriteEvent(**FULL):
        case WriteEvent(op=WriteOp.INSERT):
            pytest.fail("another operation matched")
        case WriteEvent(number, "größe", WriteOp.BULK_DELETE, row_id, lsn=lsn):
            assert (number, row_id, lsn) == (U64, "id-7", 2**63)
        case _:
            pytest.fail("nothing matched")


@pytest.mark.parametrize("name", REQUIRED)
def test_required(name: str) -> None:
    given = {field: value for field, value in LEAST.items() if field != name}
    with pytest.raises(TypeError, match=name):
        WriteEvent(**given)


def test_keyword_only() -> None:
    make: Any = WriteEvent
    with pytest.raises(TypeError, match="positional"):
        make(*LEAST.values())
    with pytest.raises(TypeError, match="positional"):
        make(1, collection="t", op=WriteOp.INSERT, row_id="7", lsn=10)


def test_unknown_keyword() -> None:
    make: Any = WriteEvent
    with pytest.raises(TypeError, match="colour"):
        make(**LEAST, colour=1)


def test_keywords_in_any_order_and_made_at_run_time() -> None:
    assert WriteEvent(**dict(reversed(FULL.items()))) == WriteEvent(**FULL)
    # Names that are not the interned ones of a call.
    assert WriteEvent(**{"".join(list(name)): value for name, value in FULL.items()}) == WriteEvent(**FULL)


# immutable


@pytest.mark.parametrize("name", FIELDS)
def test_no_field_can_be_set_or_deleted(name: str) -> None:
    made = WriteEvent(**LEAST)
    before = fields_of(made)
    attempts: list[Callable[[], None]] = [
        lambda: setattr(made, name, OTHER[name]),
        lambda: object.__setattr__(made, name, OTHER[name]),
        lambda: delattr(made, name),
    ]
    for attempt in attempts:
        with pytest.raises(AttributeError):
            attempt()
    assert fields_of(made) == before


def test_no_new_attribute() -> None:
    with pytest.raises(AttributeError):
        object.__setattr__(event(), "colour", "red")


def test_calling_init_again_changes_nothing() -> None:
    made = WriteEvent(**LEAST)
    again: Any = getattr(made, "__init__")  # noqa: B009
    with pytest.raises(TypeError, match="immutable"):
        again(**OTHER)
    with pytest.raises(TypeError):
        again()
    assert made == WriteEvent(**LEAST)


def test_no_subclass_can_make_it_mutable() -> None:
    with pytest.raises(TypeError):
        type("Mutable", (WriteEvent,), {})


# == and hash


def test_equal_events_are_equal_and_hash_alike() -> None:
    assert WriteEvent(**FULL) == WriteEvent(**FULL)
    assert hash(WriteEvent(**FULL)) == hash(WriteEvent(**FULL))
    assert len({WriteEvent(**FULL), WriteEvent(**FULL), WriteEvent(**LEAST)}) == 2


@pytest.mark.parametrize("name", FIELDS)
def test_equality_compares_every_field(name: str) -> None:
    one, other = WriteEvent(**LEAST), WriteEvent(**(LEAST | {name: OTHER[name]}))
    assert one != other
    assert not one == other  # noqa: SIM201
    assert {one: "found"}.get(other) is None


def test_an_event_does_not_equal_other_types() -> None:
    assert event() != fields_of(event())
    assert (event() == None) is False  # noqa: E711
    assert event() == mock.ANY


def test_events_have_no_order() -> None:
    one: Any = event(1)
    with pytest.raises(TypeError):
        _ = one < event(2)


# repr


@pytest.mark.parametrize(
    "made",
    [
        WriteEvent(**LEAST),
        WriteEvent(**FULL),
        event(op=WriteOp.HEARTBEAT),
        event(op=WriteOp.HEARTBEAT, count=1),
    ]
    + [WriteEvent(**(LEAST | {name: value})) for name, value in OTHER.items()]
    + [event(count=0), event(row_id="a'b\"\\\n\0"), event(new_value=b"'\"\\\0")],
)
def test_repr_evaluates_back(made: WriteEvent) -> None:
    names = {"WriteEvent": WriteEvent, "WriteOp": WriteOp, "EventSource": EventSource}
    assert eval(repr(made), names) == made


def test_repr_leaves_defaults_out() -> None:
    assert repr(WriteEvent(**LEAST)) == (
        "WriteEvent(sequence=1, collection='t', op=WriteOp.INSERT, row_id='7', lsn=10)"
    )


# pickle and copy


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("made", [WriteEvent(**LEAST), WriteEvent(**FULL), event(op=WriteOp.HEARTBEAT, count=3)])
def test_pickle(made: WriteEvent, protocol: int) -> None:
    back = pickle.loads(pickle.dumps(made, protocol))
    assert type(back) is WriteEvent
    assert fields_of(back) == fields_of(made)
    assert hash(back) == hash(made)


def test_copies_are_the_event() -> None:
    made = WriteEvent(**FULL)
    assert copy.copy(made) == made
    assert copy.deepcopy([made, made]) == [made, made]


# ranges


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("sequence", 0, U64),
        ("lsn", 0, U64),
        ("tenant_id", 0, U64),
        ("vshard_id", 0, U32),
        ("count", 0, U32),
        ("system_time_ms", -(2**63) + 1, 2**63 - 1),
        ("valid_time_ms", -(2**63) + 1, 2**63 - 1),
    ],
)
def test_integers_have_the_range_of_their_column(name: str, least: int, most: int) -> None:
    for value in (least, most, 0, 1, most // 2):
        assert getattr(with_field(name, value), name) == value
    for value in (least - 1, most + 1, -(2**70), 2**70):
        with pytest.raises(FieldError, match=f"{name} {value}:"):
            with_field(name, value)


@pytest.mark.parametrize("name", ["system_time_ms", "valid_time_ms"])
def test_minus_one_is_a_stamp_like_any_other(name: str) -> None:
    assert getattr(event(**{name: -1}), name) == -1


@pytest.mark.parametrize("name", ["sequence", "lsn", "tenant_id", "vshard_id", "count", "system_time_ms"])
def test_every_kind_of_integer_is_accepted(name: str) -> None:
    for value in (Tenant.ACME, np.uint64(42), np.int8(42)):
        kept = getattr(with_field(name, value), name)
        assert kept == 42
        assert type(kept) is int


@pytest.mark.parametrize("name", ["sequence", "lsn", "tenant_id", "vshard_id", "count", "system_time_ms"])
@pytest.mark.parametrize("value", ["7", 7.0, b"7", [7]])
def test_nothing_else_does(name: str, value: object) -> None:
    with pytest.raises(TypeError) as refused:
        with_field(name, value)
    assert name in str(refused.value)
    assert repr(value) in str(refused.value)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_required_field_is_not_none(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} None"):
        with_field(name, None)


# op and source


@pytest.mark.parametrize("op", WriteOp)
def test_an_op_may_come_as_its_number(op: WriteOp) -> None:
    assert event(op=int(op)).op is op


@pytest.mark.parametrize("source", EventSource)
def test_a_source_may_come_as_its_number(source: EventSource) -> None:
    assert event(source=int(source)).source is source


@pytest.mark.parametrize(("name", "value"), [("op", 0), ("op", 7), ("source", 5), ("op", -1), ("source", 2**70)])
def test_unknown_op_or_source(name: str, value: int) -> None:
    with pytest.raises(FieldError, match=f"{name} {value}: unknown") as refused:
        with_field(name, value)
    assert ("HEARTBEAT" if name == "op" else "CRDT_SYNC") in str(refused.value)


@pytest.mark.parametrize("name", ["op", "source"])
@pytest.mark.parametrize("value", ["INSERT", 1.0, None])
def test_op_and_source_are_not_strings(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=name):
        with_field(name, value)


# strings and values


@pytest.mark.parametrize("name", ["collection", "row_id", "user_id", "statement_digest"])
def test_strings_are_what_utf8_can_hold(name: str) -> None:
    for text in ("", "a\0b", "é", "漢", "😀", "x" * 100_000):
        assert getattr(with_field(name, text), name) == text
    for text in ("\ud800", "a\udfffb", "漢\udc80"):
        with pytest.raises(FieldError, match=name) as refused:
            with_field(name, text)
        assert repr(text) in str(refused.value)


@pytest.mark.parametrize("name", ["collection", "row_id", "user_id", "statement_digest"])
@pytest.mark.parametrize("value", [b"t", 7])
def test_strings_are_str(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=name) as refused:
        with_field(name, value)
    assert repr(value) in str(refused.value)


@pytest.mark.parametrize("name", ["new_value", "old_value"])
@pytest.mark.parametrize("value", ["t", 7, bytearray(b"t")])
def test_values_are_bytes(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=name) as refused:
        with_field(name, value)
    assert repr(value) in str(refused.value)


def test_subclasses_of_str_and_bytes_become_plain() -> None:
    name = Name("t")
    name.extra = [1]
    made = event(collection=name, user_id=name, new_value=Blob(b"v"))
    assert (type(made.collection), type(made.user_id), type(made.new_value)) == (str, str, bytes)
    assert made == event(collection="t", user_id="t", new_value=b"v")


@pytest.mark.parametrize("name", ["new_value", "old_value", "user_id", "statement_digest"])
def test_none_is_not_empty(name: str) -> None:
    empty = b"" if name.endswith("value") else ""
    nothing, something = event(), with_field(name, empty)
    assert getattr(nothing, name) is None
    assert getattr(something, name) == empty
    assert nothing != something
    producer, consumer = ring()
    assert producer.emit(nothing)
    assert producer.emit(something)
    assert consumer.try_recv() == nothing
    assert consumer.try_recv() == something


@pytest.mark.parametrize(
    "made", [WriteEvent(**LEAST), WriteEvent(**FULL), event(row_id="a\0é漢😀", new_value=bytes(range(256)))]
)
def test_a_ring_gives_back_the_event_that_it_got(made: WriteEvent) -> None:
    producer, consumer = ring()
    for _ in range(3):  # at other places of the arena, too
        assert producer.emit(made)
    for _ in range(3):
        received = consumer.try_recv()
        assert received is not None
        assert received is not made
        assert fields_of(received) == fields_of(made)


def test_an_event_outlives_what_it_was_made_of() -> None:
    made = event(collection="".join(["ta", "ble"]), new_value=bytes(bytearray(b"value")))
    producer, consumer = ring()
    assert producer.emit(made)
    assert consumer.try_recv() == event(collection="table", new_value=b"value")
