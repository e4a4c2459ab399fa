"""A batch, an event and what is encoded, while another thread ends, makes or changes the same."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import numpy as np
import pytest

from nodedb_ring import EventBatch, WriteEvent, encode_rows
from tests.unit.builders import batch, event, fill, ring


@pytest.mark.parametrize("name", ["records", "payload"])
def test_an_array_that_comes_after_the_end_of_its_lease_is_not_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch would keep the lease's rows from the producer as long as it is there itself."""
    producer, consumer = ring(8)
    fill(producer, 1, 8)
    lease = consumer.lease()
    leased = lease.batch
    make = np.frombuffer

    def make_while_the_lease_ends(*arguments: Any) -> object:
        array = make(*arguments)
        with pytest.raises(BufferError):
            lease.release()
        return array

    monkeypatch.setattr(np, "frombuffer", make_while_the_lease_ends)
    array = getattr(leased, name)
    monkeypatch.undo()
    assert len(array) > 0
    assert not producer.emit(event(9))
    del array
    assert producer.emit(event(10))


def test_a_batch_is_made_once() -> None:
    """What another thread reads of it is not replaced."""
    made = batch(1, 3)
    with pytest.raises(TypeError, match="immutable"):
        made.__init__(made.records, made.payload)
    assert made.sequence.tolist() == [1, 2, 3]


def test_a_batch_that_was_never_made_has_no_events() -> None:
    never = EventBatch.__new__(EventBatch)
    producer, _consumer = ring(8)
    uses: list[Callable[[], object]] = [
        *(lambda name=name: getattr(never, name) for name in ("records", "payload", "sequence", "op")),
        *(lambda name=name: getattr(never, name)() for name in ("rows", "gaps", "split", "__arrow_c_array__")),
        *(lambda key=key: never[key] for key in (0, slice(0, 1), [0])),
        lambda: never.strings("row_id"),
        lambda: never.values("new_value"),
        lambda: never.select("op", "lsn"),
        never.plain,
        lambda: EventBatch.concat([never]),
        lambda: pickle.dumps(never),
        lambda: producer.emit_batch(never),
        lambda: list(never),
        lambda: len(never),
        lambda: repr(never),
    ]
    for use in uses:
        with pytest.raises(TypeError, match="no events"):
            use()


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
