"""Streams over a batch, a consumer and a follower: their order, their end, their errors, their threads."""

# The stubs of pyarrow and pandas lag behind them, and know no Arrow capsules.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false

from __future__ import annotations

import ctypes
import errno
import functools
import signal
import threading
import time
from collections.abc import Callable

import pyarrow as pa
import pytest

from nodedb_ring import (
    BusyError,
    ClosedError,
    EventBatch,
    EventConsumer,
    EventProducer,
    ForkError,
    GapError,
    OwnershipError,
    follow,
    logged,
)
from nodedb_ring.batch.arrow._export_stream import export_stream
from tests.unit.builders import batch as batch_of
from tests.unit.builders import event, fill, ring, sequences
from tests.unit.ends.test_waiting import on_signal, send, when_main_sleeps
from tests.unit.recovery.memory_log import MemoryLog
from tests.unit.runners import Running, in_child, in_thread, until_asleep
from tests.unit.shared_buses import BusMaker

from .capsules import ArrowArray, ArrowSchema, error_of, moved, next_of, release, schema_of, stream_in
from .columns import as_fields, rows_of, varied


class Stream:
    """What has batches, as a library sees it."""

    def __init__(self, next_batch: Callable[[], EventBatch | None]) -> None:
        self._next_batch = next_batch

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return export_stream(self._next_batch)


def reader_of(source: object) -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_stream(source)


def numbers(table: pa.Table | pa.RecordBatch) -> list[int]:
    return [int(number) for number in table.column("sequence").to_pylist()]


def is_disconnected(producer: EventProducer) -> bool:
    return producer.is_consumer_disconnected


def test_a_batch_is_a_stream_of_one() -> None:
    batch = EventBatch.from_events(varied(300))
    table = reader_of(batch).read_all()
    table.validate(full=True)
    assert rows_of(table) == as_fields(batch)
    assert table.column("lsn").num_chunks == 1
    assert reader_of(batch[:0]).read_all().num_rows == 0
    # Each stream is one of its own.
    assert reader_of(batch).read_all().equals(table)


def test_any_batches_in_order() -> None:
    batches = [batch_of(1, 10), batch_of(11, 11)[:0], batch_of(11, 50)]
    waiting = iter(batches)
    reader = reader_of(Stream(lambda: next(waiting, None)))
    assert reader.schema == pa.schema(batches[0])
    assert [numbers(each) for each in reader] == [sequences(each) for each in batches]


def test_a_consumer_to_its_end() -> None:
    producer, consumer = ring(64, arena_bytes=2**20)
    fill(producer, 1, 50)
    reader = reader_of(consumer)
    assert numbers(reader.read_next_batch()) == list(range(1, 51))
    fill(producer, 51, 60)
    producer.close()
    assert numbers(reader.read_next_batch()) == list(range(51, 61))
    with pytest.raises(StopIteration):
        reader.read_next_batch()
    assert consumer.is_producer_disconnected


def test_a_reader_waits_for_what_comes() -> None:
    producer, consumer = ring(64)
    reader = reader_of(consumer)
    running = Running(reader.read_all)
    for first in range(1, 161, 8):
        running.until_asleep()
        # One publication: of what is emitted one by one, or behind the last slot, the reader may take a part.
        assert producer.emit_batch(batch_of(first, first + 7)) == 8
        while producer.ring.slots_in_use:
            time.sleep(0)
    running.until_asleep()
    producer.close()
    table = running.result()
    assert numbers(table) == list(range(1, 161))
    # Waited for each eight of them.
    assert table.column("lsn").num_chunks == 20


def test_asking_for_schema_and_stream_takes_nothing() -> None:
    producer, consumer = ring()
    fill(producer, 1, 3)
    assert pa.schema(consumer) == pa.schema(batch_of(1, 1))
    reader = reader_of(consumer)
    assert reader.schema == pa.schema(consumer)
    del reader
    # Nor does it make the asking thread the owner.
    assert in_thread(lambda: sequences(consumer.drain())) == [1, 2, 3]


def test_the_thread_that_reads_owns_the_consumer() -> None:
    producer, consumer = ring()
    fill(producer, 1, 2)
    assert sequences(consumer.drain(1)) == [1]
    reader = reader_of(consumer)
    assert numbers(in_thread(reader.read_next_batch)) == [2]
    with pytest.raises(OwnershipError):
        consumer.drain()
    fill(producer, 3, 4)
    # Each call may come from another.
    assert numbers(in_thread(reader.read_next_batch)) == [3, 4]
    consumer.bind()
    fill(producer, 5, 5)
    assert sequences(consumer.drain()) == [5]


def test_while_a_stream_waits_others_are_refused() -> None:
    producer, consumer = ring()
    reader = reader_of(consumer)
    running = Running(reader.read_next_batch)
    running.until_asleep()
    with pytest.raises(OwnershipError):
        consumer.drain()
    with pytest.raises(BusyError):
        consumer.bind()
    with pytest.raises(BusyError, match="a stream of it is there already"):
        reader_of(consumer)
    fill(producer, 1, 1)
    assert numbers(running.result()) == [1]
    # And the stream, while another call waits.
    consumer.bind()

    def wait() -> list[int]:
        consumer.bind()
        return sequences(consumer.drain(timeout=None))

    waiting = Running(wait)
    waiting.until_asleep()
    with pytest.raises(OSError, match="BusyError: consumer of core 0: a call waits"):
        reader.read_next_batch()
    fill(producer, 2, 2)
    assert waiting.result() == [2]


def test_closing_the_consumer_ends_its_stream() -> None:
    _producer, consumer = ring()
    running = Running(reader_of(consumer).read_all)
    running.until_asleep()
    consumer.close()
    assert running.result().num_rows == 0
    with pytest.raises(ClosedError, match="core 0"):
        consumer.__arrow_c_stream__()


def test_a_stream_keeps_its_consumer() -> None:
    producer, consumer = ring()
    fill(producer, 1, 3)
    reader = reader_of(consumer)
    del consumer
    assert numbers(reader.read_next_batch()) == [1, 2, 3]
    assert not producer.is_consumer_disconnected
    del reader
    # pyarrow released it without the GIL; what it held is freed when the interpreter next handles pending calls.
    assert is_disconnected(producer)


def test_a_signal_ends_the_wait_with_an_error_and_nothing_is_lost() -> None:
    producer, consumer = ring()
    stream = stream_in(consumer.__arrow_c_stream__())

    def interrupt() -> None:
        raise KeyboardInterrupt("enough")

    array = ArrowArray()
    with on_signal(signal.SIGUSR1, interrupt):
        sender = when_main_sleeps(send(signal.SIGUSR1))
        assert next_of(stream, array) == errno.EINTR
        sender.result()
    assert error_of(stream) == "KeyboardInterrupt: enough"
    assert array.release is None
    # The stream continues when it is asked again.
    fill(producer, 1, 2)
    assert next_of(stream, array) == 0
    assert array.length == 2
    release(array)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyError("größe"), errno.EIO),
        (ValueError("why"), errno.EINVAL),
        (MemoryError("none"), errno.ENOMEM),
        (KeyboardInterrupt(), errno.EINTR),
        (SystemExit(7), errno.EIO),
        (GapError("a hole", 0, 1, 2), errno.EIO),
    ],
)
def test_an_exception_is_an_error_of_the_stream(error: BaseException, code: int) -> None:
    failures = [error]

    def next_batch() -> EventBatch | None:
        if failures:
            raise failures.pop()
        return batch_of(1, 3)

    stream = stream_in(export_stream(next_batch))
    assert error_of(stream) is None
    array = ArrowArray()
    assert next_of(stream, array) == code
    assert error_of(stream) == f"{type(error).__name__}: {error}"
    assert next_of(stream, array) == 0
    release(array)


class FailsOnce:
    """A batch whose first export fails, as it does when there is no memory for its columns."""

    def __init__(self, batch: EventBatch) -> None:
        self._batch = batch
        self._failed = False

    @property
    def _block(self) -> object:
        if not self._failed:
            self._failed = True
            raise MemoryError("no memory for the columns")
        return self._batch._block  # pyright: ignore[reportPrivateUsage]


def test_a_batch_that_could_not_be_handed_over_comes_when_asked_again() -> None:
    coming = iter([FailsOnce(batch_of(1, 2)), batch_of(3, 4), None])
    capsule = export_stream(lambda: next(coming))  # type: ignore[arg-type,return-value]
    stream, array = stream_in(capsule), ArrowArray()
    assert next_of(stream, array) == errno.ENOMEM
    assert "no memory" in (error_of(stream) or "")
    lengths: list[int] = []
    firsts: list[int] = []
    while next_of(stream, array) == 0 and array.release:
        lengths.append(array.length)
        column = array.children[0].contents
        firsts.append(ctypes.cast(column.buffers[1], ctypes.POINTER(ctypes.c_uint64))[0])
        release(array)
    assert (lengths, firsts) == ([2, 2], [1, 3])


def test_other_objects_are_an_error_of_the_stream() -> None:
    with pytest.raises(OSError, match="AttributeError"):
        reader_of(Stream(lambda: "no batch")).read_next_batch()  # type: ignore[arg-type, return-value]


def test_moved_and_released_on_a_thread_without_the_gil() -> None:
    producer, consumer = ring()
    fill(producer, 1, 2)
    stream = moved(stream_in(consumer.__arrow_c_stream__()))
    array = ArrowArray()
    assert in_thread(lambda: next_of(stream, array)) == 0
    in_thread(lambda: release(stream))
    assert array.length == 2
    in_thread(lambda: release(array))
    del consumer
    assert is_disconnected(producer)


def test_the_schema_of_a_stream() -> None:
    stream = stream_in(batch_of(1, 1).__arrow_c_stream__())
    schema = ArrowSchema()
    assert schema_of(stream, schema) == 0
    assert (schema.format, schema.n_children) == (b"+s", 15)
    release(schema)


def test_a_forked_child_is_refused() -> None:
    _producer, consumer = ring()

    def child() -> str:
        with pytest.raises(ForkError) as caught:
            consumer.__arrow_c_stream__()
        return str(caught.value)

    assert "inherited by fork" in in_child(child)


def test_a_shared_bus(make_bus: BusMaker) -> None:
    bus = make_bus(capacity=64)
    with bus.consumer(0) as consumer:
        running = Running(reader_of(consumer).read_all)
        running.until_asleep()
        with bus.producer(0) as producer:
            fill(producer, 1, 40)
        assert numbers(running.result()) == list(range(1, 41))


def test_large_rings_come_in_large_arrays() -> None:
    producer, consumer = ring(65536)
    producer.emit_batch(batch_of(1, 40000))
    producer.close()
    assert [each.num_rows for each in reader_of(consumer)] == [16384, 16384, 40000 - 2 * 16384]


def test_a_follower_fills_the_holes() -> None:
    producer, consumer = ring(4)
    log = MemoryLog()
    with logged(producer, log) as core:
        for sequence in range(1, 31):
            core.emit(event(sequence))
    with follow(consumer, log, group="g") as follower:
        reader = reader_of(follower)
        assert reader.schema == pa.schema(follower)
        assert numbers(in_thread(reader.read_all)) == list(range(1, 31))
        assert follower.ended
        assert log.load_watermark("g", 0) is None
        follower.commit()
    assert log.load_watermark("g", 0) == 30
    with pytest.raises(ClosedError, match="follower of core 0"):
        follower.__arrow_c_stream__()
    with pytest.raises(StopIteration):
        reader.read_next_batch()


def test_a_follower_of_a_log_alone() -> None:
    log = MemoryLog()
    log.append(0, batch_of(1, 5))
    follower = follow(None, log, core_id=0, group="g")
    reader = reader_of(follower)
    assert numbers(reader.read_next_batch()) == [1, 2, 3, 4, 5]
    running = Running(reader.read_all)
    until_asleep(running.thread.native_id or 0)
    follower.close()
    assert running.result().num_rows == 0


def test_a_gap_is_an_error_of_the_stream_and_can_be_skipped() -> None:
    producer, consumer = ring(4)
    log = MemoryLog()
    fill(producer, 3, 5)
    producer.close()
    follower = follow(consumer, log, group="g")
    reader = reader_of(follower)
    with pytest.raises(OSError, match="GapError: core 0: neither the ring nor the log has 1 to 2"):
        reader.read_next_batch()
    with pytest.raises(GapError) as caught:
        follower.next_batch()
    follower.skip(caught.value)
    assert numbers(reader.read_next_batch()) == [3, 4, 5]


def test_readers_and_producers_at_once() -> None:
    def pipeline(core: int) -> list[int]:
        producer, consumer = ring(256)
        running = Running(reader_of(consumer).read_all)
        sent = 0
        while sent < 5000:
            sent += producer.emit_batch(batch_of(sent + 1, min(sent + 100, 5000)))
        producer.close()
        return numbers(running.result())

    threads = [Running(functools.partial(pipeline, core)) for core in range(3)]
    for thread in threads:
        assert thread.result() == list(range(1, 5001))


def test_a_consumer_is_handed_over_not_shared() -> None:
    consumer: EventConsumer
    producer, consumer = ring()
    fill(producer, 1, 1)
    barrier = threading.Barrier(2)

    def read() -> list[int]:
        barrier.wait()
        return numbers(reader_of(consumer).read_next_batch())

    running = Running(read)
    barrier.wait()
    assert running.result() == [1]
