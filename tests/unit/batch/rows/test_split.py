"""EventBatch.split: every event once, in order, in the batch of its table."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodedb_ring import ClosedError, EventBatch
from tests.unit.builders import event, ring

NAMES = st.sampled_from(["t", "u", "größe", "", "a table of many letters", "a table of many letterz", "t\0"])


def batch_of(names: list[str]) -> EventBatch:
    return EventBatch.from_events(
        event(number, collection=name, new_value=None if number % 3 == 0 else b"v" * (number % 40))
        for number, name in enumerate(names, 1)
    )


@settings(deadline=None)
@given(st.lists(NAMES, max_size=60))
def test_each_event_is_in_the_batch_of_its_table(names: list[str]) -> None:
    batch = batch_of(names)
    parts = batch.split("collection")
    assert list(parts) == list(dict.fromkeys(names))
    for name, part in parts.items():
        assert list(part) == [each for each in batch if each.collection == name]


@settings(deadline=None)
@given(st.lists(NAMES, max_size=30), st.integers(0, 30), st.integers(0, 30))
def test_a_part_of_a_batch_is_split_alike(names: list[str], start: int, stop: int) -> None:
    part = batch_of(names)[start:stop]
    expected: dict[str, list[object]] = {}
    for each in part:
        expected.setdefault(each.collection, []).append(each)
    assert {name: list(of) for name, of in part.split().items()} == expected


def test_rows_that_are_not_packed_are_packed() -> None:
    whole = batch_of(["t", "u", "t"])
    records, payload = whole.records.copy(), np.concatenate([whole.payload, np.frombuffer(b"elsewhere", np.uint8)])
    records["new_value_offset"][2], records["new_value_length"][2] = len(whole.payload), 9
    parts = EventBatch(records, payload).split()
    assert parts["t"][1].new_value == b"elsewhere"
    assert len(parts["u"].payload) == len(b"u2" + b"vv")


def test_many_tables_are_told_apart() -> None:
    names = [f"table {number}" for number in range(5000)]
    parts = batch_of(names + names[::-1]).split()
    assert list(parts) == names
    assert all(int(part.sequence[0]) + int(part.sequence[1]) == 10_001 for part in parts.values())


def test_it_splits_by_row_too() -> None:
    batch = EventBatch.from_events(event(number, row_id=str(number % 2)) for number in range(1, 6))
    assert {name: part.sequence.tolist() for name, part in batch.split("row_id").items()} == {"1": [1, 3, 5], "0": [2, 4]}


@pytest.mark.parametrize("name", ["user_id", "new_value", "lsn", "table", ""])
def test_other_columns_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="split by collection or row_id"):
        batch_of(["t"]).split(name)


def test_no_events_are_of_no_table() -> None:
    assert batch_of([]).split() == {}


def test_what_was_split_outlives_its_lease() -> None:
    producer, consumer = ring()
    for number, name in enumerate("aab", 1):
        assert producer.emit(event(number, collection=name))
    with consumer.lease() as leased:
        parts = leased.split()
    assert [part.sequence.tolist() for part in parts.values()] == [[1, 2], [3]]
    with pytest.raises(ClosedError):
        leased.split()


def test_names_of_every_length_are_told_apart() -> None:
    names = ["x" * length + last for length, last in itertools.product(range(20), "ab")]
    assert list(batch_of(names * 2).split()) == list(dict.fromkeys(names))
