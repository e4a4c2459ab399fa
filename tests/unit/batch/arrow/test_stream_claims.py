"""One stream at a time of a consumer or a follower: who is refused, and when the next may come."""

# The stubs of pyarrow and pandas lag behind them, and know no Arrow capsules.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false

from __future__ import annotations

import errno
import threading

import pyarrow as pa
import pytest

from nodedb_ring import BatchError, BusyError, ClosedError, EventBatch, follow, logged
from nodedb_ring.batch.arrow._export_stream import StreamClaim, export_stream
from tests.unit.builders import batch as batch_of
from tests.unit.builders import event, fill, ring, sequences
from tests.unit.recovery.memory_log import MemoryLog
from tests.unit.runners import Running, in_child, in_thread
from tests.unit.shared_buses import BusMaker

from .capsules import ArrowArray, moved, next_of, release, stream_in
from .test_streams import numbers, reader_of


def test_a_second_stream_is_refused_while_the_first_lives() -> None:
    producer, consumer = ring()
    fill(producer, 1, 3)
    first = reader_of(consumer)
    refused = (
        "consumer of core 0: a stream of it is there already, and a second would take events away from it; read it"
    )
    for again in (consumer, consumer.plain()):
        with pytest.raises(BusyError, match=refused):
            reader_of(again)
    with pytest.raises(BusyError, match=refused):
        EventBatch.from_arrow(consumer)
    assert consumer.stats().received == 0
    # It lives between its batches, too.
    assert numbers(first.read_next_batch()) == [1, 2, 3]
    with pytest.raises(BusyError):
        reader_of(consumer)
    # What needs no stream still works.
    assert pa.schema(consumer) == first.schema
    consumer.bind()
    fill(producer, 4, 4)
    assert sequences(consumer.drain()) == [4]
    del first
    fill(producer, 5, 5)
    second = reader_of(consumer.plain())
    assert numbers(second.read_next_batch()) == [5]
    with pytest.raises(BusyError):
        reader_of(consumer)


def test_a_second_stream_of_a_follower_is_refused_too() -> None:
    log = MemoryLog()
    log.append(0, batch_of(1, 5))
    log.append(1, batch_of(1, 2))
    follower, other = (follow(None, log, core_id=core, group="g") for core in (0, 1))
    first = reader_of(follower.plain())
    assert first.schema == pa.schema(batch_of(1, 1).plain())
    for again in (follower, follower.plain()):
        with pytest.raises(BusyError, match="follower of core 0: a stream of it is there already"):
            reader_of(again)
    # Each end has its own.
    assert numbers(reader_of(other).read_next_batch()) == [1, 2]
    assert numbers(first.read_next_batch()) == [1, 2, 3, 4, 5]
    del first
    log.append(0, batch_of(6, 7))
    assert numbers(reader_of(follower).read_next_batch()) == [6, 7]


@pytest.mark.parametrize("with_gil", [False, True])
def test_releasing_a_stream_allows_the_next(with_gil: bool) -> None:
    _producer, consumer = ring()
    # A capsule that nobody consumed.
    consumer.__arrow_c_stream__()
    # One that was moved out, and released on a thread of the importer's.
    struct = moved(stream_in(consumer.__arrow_c_stream__()))
    with pytest.raises(BusyError):
        consumer.__arrow_c_stream__()
    in_thread(lambda: release(struct, with_gil=with_gil))
    # One that was refused for what it asked for.
    with pytest.raises(BatchError):
        consumer.__arrow_c_stream__(pa.schema([]).__arrow_c_schema__())
    kept = consumer.__arrow_c_stream__()
    with pytest.raises(BusyError):
        consumer.__arrow_c_stream__()
    assert stream_in(kept).release


def test_a_release_makes_room_before_anything_of_python_runs() -> None:
    # The release frees the claim itself: what it leaves to the interpreter may wait for long.
    claim = StreamClaim()
    struct = moved(stream_in(export_stream(lambda: None, claim=claim, owner="it")))
    outcome: list[str] = []

    def release_and_make() -> None:
        release(struct)
        export_stream(lambda: None, claim=claim, owner="it")
        outcome.append("made")

    in_thread(release_and_make)
    assert outcome == ["made"]


def test_a_stream_at_its_end_stays_there_and_still_counts(make_bus: BusMaker) -> None:
    # DuckDB joins a consumer with itself by one scan behind the other: the second would find nothing, and say so.
    bus = make_bus(capacity=64)
    consumer = bus.consumer(0)
    with bus.producer(0) as producer:
        fill(producer, 1, 3)
    first = stream_in(consumer.__arrow_c_stream__())
    array = ArrowArray()
    assert next_of(first, array) == 0
    assert array.length == 3
    release(array)
    assert next_of(first, array) == 0
    assert not array.release
    with pytest.raises(BusyError):
        consumer.__arrow_c_stream__()
    with bus.producer(0) as successor:
        fill(successor, 4, 6)
    # What a successor emits is for the next stream.
    assert next_of(first, array) == 0
    assert not array.release
    release(first)
    assert numbers(reader_of(consumer).read_all()) == [4, 5, 6]
    consumer.close()


def test_a_second_stream_raises_instead_of_returning_nothing() -> None:
    # Some versions of DuckDB scan twice in one query, and release the first stream before they ask for the second.
    producer, consumer = ring()
    fill(producer, 1, 3)
    assert numbers(reader_of(consumer).read_next_batch()) == [1, 2, 3]
    # More may come.
    assert reader_of(consumer).schema == pa.schema(consumer)
    fill(producer, 4, 4)
    producer.close()
    # And some is left.
    assert numbers(reader_of(consumer.plain()).read_next_batch()) == [4]
    for again in (consumer, consumer.plain()):
        with pytest.raises(ClosedError, match="consumer of core 0: its events were handed to another stream, and the"):
            reader_of(again)
    # It is refused, and not claimed.
    with pytest.raises(ClosedError, match="there are none for a second; read it into a table first"):
        pa.table(consumer)
    consumer.bind()
    assert len(consumer.drain()) == 0


def test_an_empty_stream_is_as_empty_the_second_time() -> None:
    producer, consumer = ring()
    producer.close()
    follower = follow(consumer, MemoryLog(), group="g")
    for source in (consumer, consumer.plain(), follower, follower.plain()):
        for _ in range(2):
            assert pa.table(source).num_rows == 0


def test_a_successor_has_a_stream_of_its_own(make_bus: BusMaker) -> None:
    bus = make_bus(capacity=64)
    with bus.consumer(0) as consumer:
        for first in (1, 4, 7):
            with bus.producer(0) as producer:
                fill(producer, first, first + 2)
            assert numbers(pa.table(consumer)) == list(range(first, first + 3))
            with pytest.raises(ClosedError):
                pa.table(consumer)


def test_a_stream_after_a_follower_s_batches_raises_instead_of_returning_nothing() -> None:
    producer, consumer = ring(4)
    log = MemoryLog()
    with logged(producer, log) as core:
        for sequence in range(1, 31):
            core.emit(event(sequence))
        follower = follow(consumer, log, group="g", max_events=2)
        reader = reader_of(follower)
        seen: list[int] = []
        # Of the ring, then of the log, and a rest that waits in the follower.
        while len(seen) < 30:
            seen += numbers(reader.read_next_batch())
            del reader
            reader = reader_of(follower)
        del reader
    assert seen == list(range(1, 31))
    with pytest.raises(ClosedError, match="follower of core 0: its events were handed to another stream"):
        reader_of(follower)
    # What only the log has by now is something.
    log.append(0, batch_of(31, 32))
    assert numbers(reader_of(follower.plain()).read_all()) == [31, 32]
    with pytest.raises(ClosedError, match="follower of core 0"):
        reader_of(follower)
    follower.close()
    with pytest.raises(ClosedError, match="is closed"):
        reader_of(follower)


def test_a_stream_of_a_follower_at_a_hole_raises_the_gap_again() -> None:
    producer, consumer = ring()
    fill(producer, 1, 2)
    fill(producer, 5, 5)
    producer.close()
    follower = follow(consumer, MemoryLog(), group="g")
    assert numbers(reader_of(follower).read_next_batch()) == [1, 2]
    # The 5 was drained with them, and waits behind what nobody has.
    assert consumer.is_producer_disconnected
    with pytest.raises(OSError, match="GapError: core 0: neither the ring nor the log has 3 to 4"):
        reader_of(follower).read_next_batch()


def test_an_error_does_not_end_a_stream() -> None:
    claim, failures = StreamClaim(), [ValueError("once")]

    def next_batch() -> EventBatch | None:
        if failures:
            raise failures.pop()
        return None

    stream, array = stream_in(export_stream(next_batch, claim=claim, owner="it")), ArrowArray()
    assert next_of(stream, array) == errno.EINVAL
    with pytest.raises(BusyError, match="it: a stream of it is there already"):
        export_stream(next_batch, claim=claim, owner="it")
    assert next_of(stream, array) == 0
    release(stream)
    assert export_stream(next_batch, claim=claim, owner="it") is not None


def test_of_many_threads_one_gets_the_stream() -> None:
    _producer, consumer = ring()
    for _ in range(20):
        barrier = threading.Barrier(4)

        def make(barrier: threading.Barrier = barrier) -> object:
            barrier.wait()
            try:
                return consumer.__arrow_c_stream__()
            except BusyError:
                return None

        made = [thread.result() for thread in [Running(make) for _ in range(4)]]
        assert [stream is None for stream in made].count(False) == 1
        del made


def test_a_child_of_fork_has_nothing_to_do_with_the_streams_of_its_parent() -> None:
    _producer, consumer = ring()
    stream = consumer.__arrow_c_stream__()

    def child() -> bool:
        release(moved(stream_in(stream)))
        return True

    assert in_child(child)
    with pytest.raises(BusyError):
        consumer.__arrow_c_stream__()
