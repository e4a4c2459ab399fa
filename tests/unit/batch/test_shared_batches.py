"""A batch, an event and what is encoded, while another thread ends, makes or changes the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from nodedb_ring import EventBatch, WriteEvent, encode_rows
from tests.unit.builders import batch, event, fill, ring


class EndsMeanwhile:
    """The block of a lease that another thread ends after an array was made of it, before the batch keeps that."""

    is_lent = True
    is_slice = False

    def __init__(self, whole: EventBatch) -> None:
        self.whole = whole
        self.is_over = False

    def records(self) -> object:
        self.is_over = True
        return self.whole.records

    def payload(self) -> object:
        self.is_over = True
        return self.whole.payload


@pytest.mark.parametrize("name", ["records", "payload"])
def test_an_array_that_comes_after_the_end_of_its_lease_is_not_kept(name: str) -> None:
    """The batch would keep the lease's rows from the producer as long as it is there itself."""
    whole = batch(1, 3)
    block: Any = EndsMeanwhile(whole)
    ending = EventBatch._over(block)  # pyright: ignore[reportPrivateUsage]
    assert getattr(ending, name) is getattr(whole, name)
    assert getattr(ending, f"_{name}") is None


def test_what_reads_all_rows_of_a_lease_lets_go_of_them() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 6)
    with consumer.lease() as leased:
        block = leased._block  # pyright: ignore[reportPrivateUsage]
        part = leased[1:4]
        for each in (leased, part):
            each.strings("row_id")
            each.values("new_value")
            EventBatch.concat([each, each])
            each[[True] * len(each)]
            each.split()
            list(each)
            each.rows()
        assert (block.views, block.pins) == (1, 0)
        del each, part
    assert producer.emit(event(7))


def test_a_field_of_an_event_is_set_once() -> None:
    """What another thread has read of it is not replaced, not even where ``__init__`` failed half-way."""
    made: Any = WriteEvent.__new__(WriteEvent)
    with pytest.raises(TypeError, match="row_id"):
        made.__init__(sequence=1, collection="first", op=1, row_id=5, lsn=1)
    with pytest.raises(TypeError, match="immutable"):
        made.__init__(sequence=1, collection="second", op=1, row_id="5", lsn=1)
    assert made.collection == "first"
    untouched: Any = WriteEvent.__new__(WriteEvent)
    with pytest.raises(TypeError, match="sequence"):
        untouched.__init__(sequence="x", collection="first", op=1, row_id="5", lsn=1)
    untouched.__init__(sequence=1, collection="second", op=1, row_id="5", lsn=1)
    assert untouched.collection == "second"


class Growing(list[int]):
    """A list to which another thread adds between two looks at it."""

    def __iter__(self) -> Iterator[int]:
        self.append(len(self))
        return super().__iter__()


def test_a_list_that_grows_is_counted_as_it_is_written() -> None:
    data, offsets = encode_rows({"a": [Growing([0, 1]), [0]]})
    written = [bytes(data[offsets[i] : offsets[i + 1]]) for i in range(2)]
    assert [msgpack.unpackb(row) for row in written] == [{"a": [0, 1, 2]}, {"a": [0]}]
