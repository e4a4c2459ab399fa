"""What the public names are, as a type checker and as Python see it: each ``assert_type`` here is checked by both.

Longer than 500 lines, because one user's program outside of the repository has to use every public name.
"""

import asyncio
import copy
import os
import pickle
import tempfile
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, Literal, assert_type

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Metric

from nodedb_ring import (
    DEFAULT_EVENT_BUS_CAPACITY,
    EVENT_DTYPE,
    ArgumentError,
    BackpressureConfig,
    BatchError,
    BusyError,
    CapacityError,
    ClosedError,
    CommitMerger,
    CommitNumbers,
    ConsumerStats,
    CorruptLogError,
    CorruptRingError,
    EncodedRows,
    EventBatch,
    EventBus,
    EventConsumer,
    EventLog,
    EventLoopError,
    EventProducer,
    EventRing,
    EventSource,
    EventTooLargeError,
    ExclusiveEventLog,
    FieldError,
    Follower,
    FollowStats,
    ForkError,
    GapCursor,
    GapError,
    GroupClaim,
    IdentifiedEventLog,
    JoiningEventLog,
    LayoutError,
    Lease,
    LiveEventLog,
    LogConflictError,
    LogError,
    LoggedProducer,
    LogUnavailableError,
    Merger,
    NumberedEventLog,
    OwnershipError,
    PlainStream,
    PressureState,
    ProducerStats,
    Projection,
    Reservation,
    RingError,
    RingStats,
    RoleTaken,
    RowError,
    RowProjection,
    Rows,
    RowSchema,
    StoredCommit,
    UnknownColumnError,
    WriteEvent,
    WriteOp,
    create_event_bus,
    encode_rows,
    follow,
    get_include,
    logged,
    merge,
    wait,
    wait_async,
)
from nodedb_ring.batch.members import MemberArray
from nodedb_ring.log.sqlite import SqliteEventLog
from nodedb_ring.metrics import RingCollector


def some_event(sequence: int = 1) -> WriteEvent:
    """An event, by the required fields alone."""
    return WriteEvent(sequence=sequence, collection="orders", op=WriteOp.INSERT, row_id="7", lsn=1)


def some_batch() -> EventBatch:
    """A batch of three."""
    return EventBatch.from_events(some_event(n) for n in (1, 2, 3))


def check_schema() -> None:
    assert_type(EVENT_DTYPE, np.dtype[np.void])
    assert_type(DEFAULT_EVENT_BUS_CAPACITY, Literal[65536])
    assert_type(WriteOp(1), WriteOp)
    assert_type(WriteOp(1).is_data_event, bool)
    assert_type(str(WriteOp.BULK_INSERT), str)
    assert_type(EventSource(0), EventSource)
    assert_type(get_include(), str)


def check_event() -> None:
    event = WriteEvent(
        sequence=np.uint64(1),
        collection="orders",
        op=WriteOp.UPDATE,
        row_id="7",
        lsn=2,
        tenant_id=3,
        vshard_id=4,
        source=EventSource.TRIGGER,
        count=1,
        new_value=b"new",
        old_value=None,
        system_time_ms=0,
        valid_time_ms=None,
        user_id="ann",
        statement_digest=None,
    )
    assert_type(event.sequence, int)
    assert_type(event.collection, str)
    assert_type(event.op, WriteOp)
    assert_type(event.row_id, str)
    assert_type(event.lsn, int)
    assert_type(event.tenant_id, int)
    assert_type(event.vshard_id, int)
    assert_type(event.source, EventSource)
    assert_type(event.count, int)
    assert_type(event.new_value, bytes | None)
    assert_type(event.old_value, bytes | None)
    assert_type(event.system_time_ms, int | None)
    assert_type(event.valid_time_ms, int | None)
    assert_type(event.user_id, str | None)
    assert_type(event.statement_digest, str | None)
    assert_type(event == some_event(), bool)
    assert_type(hash(event), int)
    assert_type({event: 1}, dict[WriteEvent, int])
    assert_type(copy.copy(event), WriteEvent)
    assert_type(copy.deepcopy(event), WriteEvent)


def check_event_patterns() -> None:
    match some_event():
        case WriteEvent(sequence, collection, WriteOp.INSERT | WriteOp.UPDATE as op, new_value=value):
            assert_type(sequence, int)
            assert_type(collection, str)
            assert op is WriteOp.INSERT
            assert_type(value, bytes | None)
        case other:
            raise AssertionError(other)


def check_bus() -> None:
    config = BackpressureConfig(throttle_enter=80, throttle_exit=70, suspend_enter=90, suspend_exit=80)
    assert_type(config.throttle_enter, int)
    assert_type(config.throttle_exit, int)
    assert_type(config.suspend_enter, int)
    assert_type(config.suspend_exit, int)
    producers, consumers = create_event_bus(2, 16, arena_bytes=4096, backpressure=config)
    assert_type(producers, list[EventProducer])
    assert_type(consumers, list[EventConsumer])
    assert_type(create_event_bus(1, 1), tuple[list[EventProducer], list[EventConsumer]])


def check_producer() -> None:
    (producer,), (_consumer,) = create_event_bus(1, 16)
    with producer as entered:
        assert_type(entered, EventProducer)
        assert_type(producer.emitted_sequence, int | None)
        assert_type(producer.emit(some_event()), bool)
        assert_type(producer.emit_batch(some_batch()), int)
        assert_type(producer.emit_batch(some_batch(), timeout=None), int)
        assert_type(producer.wait_for_room(1, 0.5, payload_bytes=7), bool)
        assert_type(producer.core_id, int)
        assert_type(producer.capacity, int)
        assert_type(producer.utilization, int)
        assert_type(producer.emitted_sequence, int | None)
        assert_type(producer.next_sequence, int)
        assert_type(producer.pressure_state, PressureState)
        assert_type(producer.is_consumer_disconnected, bool)
        assert_type(producer.stats(), ProducerStats)
        producer.bind()
    producer.close()


def check_producer_stats() -> None:
    (producer,), (_consumer,) = create_event_bus(1, 1)
    stats = producer.stats()
    assert_type(stats.first_dropped_sequence, int | None)
    assert_type(stats.last_dropped_sequence, int | None)
    assert_type(stats.emitted_sequence, int | None)
    producer.emit_batch(some_batch())
    stats = producer.stats()
    assert_type(stats.emitted, int)
    assert_type(stats.dropped, int)
    assert_type(stats.dropped_full, int)
    assert_type(stats.dropped_disconnected, int)
    assert_type(stats.first_dropped_sequence, int | None)
    assert_type(stats.last_dropped_sequence, int | None)
    assert_type(stats.emitted_sequence, int | None)
    assert_type(stats.normal_transitions, int)
    assert_type(stats.throttle_transitions, int)
    assert_type(stats.suspend_transitions, int)
    assert_type(stats.slots_in_use, int)
    assert_type(stats.bytes_in_use, int)
    assert_type(stats.slots_high_water, int)
    assert_type(stats.bytes_high_water, int)
    assert_type(stats.high_water_mark, int)


def check_ring() -> None:
    (producer,), (consumer,) = create_event_bus(1, 16)
    ring = producer.ring
    assert_type(ring, EventRing)
    assert_type(consumer.ring, EventRing)
    assert_type(ring.core_id, int)
    assert_type(ring.capacity, int)
    assert_type(ring.arena_bytes, int)
    assert_type(ring.slots_in_use, int)
    assert_type(ring.bytes_in_use, int)
    assert_type(ring.utilization, int)
    assert_type(ring.emitted_sequence, int | None)
    assert_type(ring.gone, tuple[bool, bool])


def check_reservation() -> None:
    (producer,), (_consumer,) = create_event_bus(1, 16)
    reservation = producer.reserve(2, payload_bytes=8)
    assert_type(reservation, Reservation)
    with reservation as rows:
        assert_type(rows, Reservation)
        assert_type(len(rows), int)
        assert_type(rows["sequence"], npt.NDArray[np.uint64])
        assert_type(rows["lsn"], npt.NDArray[np.uint64])
        assert_type(rows["tenant_id"], npt.NDArray[np.uint64])
        assert_type(rows["system_time_ms"], npt.NDArray[np.int64])
        assert_type(rows["valid_time_ms"], npt.NDArray[np.int64])
        assert_type(rows["vshard_id"], npt.NDArray[np.uint32])
        assert_type(rows["count"], npt.NDArray[np.uint32])
        assert_type(rows["op"], npt.NDArray[np.uint8])
        assert_type(rows["source"], npt.NDArray[np.uint8])
        assert_type(rows["collection_offset"], npt.NDArray[np.uint32])
        assert_type(rows["collection_length"], npt.NDArray[np.uint32])
        assert_type(rows["row_id_offset"], npt.NDArray[np.uint32])
        assert_type(rows["row_id_length"], npt.NDArray[np.uint32])
        assert_type(rows["user_id_offset"], npt.NDArray[np.uint32])
        assert_type(rows["user_id_length"], npt.NDArray[np.uint32])
        assert_type(rows["statement_digest_offset"], npt.NDArray[np.uint32])
        assert_type(rows["statement_digest_length"], npt.NDArray[np.uint32])
        assert_type(rows["new_value_offset"], npt.NDArray[np.uint32])
        assert_type(rows["new_value_length"], npt.NDArray[np.uint32])
        assert_type(rows["old_value_offset"], npt.NDArray[np.uint32])
        assert_type(rows["old_value_length"], npt.NDArray[np.uint32])
        for name in rows.records.dtype.names or ():
            assert_type(rows[name], npt.NDArray[np.integer[Any]])
        assert_type(rows.records, npt.NDArray[np.void])
        assert_type(rows.payload, npt.NDArray[np.uint8])
        rows["op"] = WriteOp.HEARTBEAT
        rows["lsn"] = [1, 2]
        rows["count"][:] = 0
    assert_type(reservation.published, int)


def check_consumer() -> None:
    (producer,), (consumer,) = create_event_bus(1, 16)
    assert_type(consumer.try_recv(), WriteEvent | None)
    producer.emit(some_event())
    assert_type(consumer.try_recv(), WriteEvent | None)
    with consumer as entered:
        assert_type(entered, EventConsumer)
        assert_type(consumer.recv(0.0), WriteEvent | None)
        assert_type(consumer.drain(), EventBatch)
        assert_type(consumer.drain(8, timeout=0.0), EventBatch)
        assert_type(consumer.core_id, int)
        assert_type(consumer.pressure_state, PressureState)
        assert_type(consumer.is_producer_disconnected, bool)
        consumer.bind()
        stats = consumer.stats()
        assert_type(stats, ConsumerStats)
        assert_type(stats.received, int)
        assert_type(stats.batches, int)
        assert_type(stats.held, int)
        producer.emit(some_event(2))
        producer.close()
        assert_type(iter(consumer), EventConsumer)
        for batch in consumer:
            assert_type(batch, EventBatch)
    consumer.close()


def check_lease() -> None:
    (producer,), (consumer,) = create_event_bus(1, 16)
    producer.emit_batch(some_batch())
    lease = consumer.lease(2, timeout=None)
    assert_type(lease, Lease)
    assert_type(lease.batch, EventBatch)
    lease.release()
    with consumer.lease() as batch:
        assert_type(batch, EventBatch)


def check_asyncio() -> None:
    async def main() -> None:
        (producer,), (consumer,) = create_event_bus(1, 16)
        producer.emit(some_event())
        waiting: Coroutine[Any, Any, EventBatch] = consumer.drain_async(8, timeout=1)
        assert_type(await waiting, EventBatch)
        assert_type(await consumer.recv_async(0.0), WriteEvent | None)
        producer.emit(some_event(2))
        producer.close()
        assert_type(aiter(consumer), EventConsumer)
        async for batch in consumer:
            assert_type(batch, EventBatch)

    asyncio.run(main())


def check_many() -> None:
    producers, consumers = create_event_bus(2, 16)
    assert_type(wait(consumers, 0), list[EventConsumer])
    for producer in producers:
        producer.emit(some_event())
        producer.close()
    merged = merge(consumers, max_events=8)
    assert_type(merged, Merger)
    for core_id, batch in merged:
        assert_type(core_id, int)
        assert_type(batch, EventBatch)

    async def main() -> None:
        assert_type(await wait_async(consumers, timeout=1.0), list[EventConsumer])
        async for core_id, batch in merge(consumers):
            assert_type(core_id, int)
            assert_type(batch, EventBatch)

    asyncio.run(main())


def waits_for_followers(consumer: EventConsumer, follower: Follower) -> None:
    assert_type(wait([follower]), list[Follower])
    assert_type(wait([consumer, follower], timeout=None), list[EventConsumer | Follower])
    assert_type(merge([consumer, follower]), Merger)
    in_order = merge([follower], 100, by="lsn")
    assert_type(in_order, CommitMerger)
    for core_id, batch in in_order:
        assert_type(core_id, int)
        assert_type(batch, EventBatch)
    assert_type(in_order.skip(GapError("", -1, 2, 3)), None)


def check_shared() -> None:
    name = f"public-names-{os.getpid()}"
    with EventBus.create(name, 1, 16, arena_bytes=4096, backpressure=BackpressureConfig(), directory=None) as bus:
        assert_type(bus, EventBus)
        assert_type(bus.is_linked, bool)
        assert_type(EventBus.open(name), EventBus)
        assert_type(EventBus.list(), list[str])
        assert_type(pickle.loads(pickle.dumps(bus)), Any)
        assert_type(bus.name, str)
        assert_type(bus.directory, Path)
        assert_type(bus.path, Path)
        assert_type(bus.num_cores, int)
        assert_type(bus.capacity, int)
        assert_type(bus.arena_bytes, int)
        assert_type(bus.producer(0), EventProducer)
        [consumer] = bus.consumers()
        assert_type(consumer, EventConsumer)
        consumer.close()
        consumer = bus.consumer(0)
        assert_type(consumer, EventConsumer)
        assert_type(consumer.fileno(), int)
        assert_type(consumer.spin, float)
        consumer.spin = 0
        (stats,) = bus.stats()
        assert_type(bus.stats(), tuple[RingStats, ...])
        assert_type(bus.ring_stats(0), RingStats)
        assert_type(stats.producer, ProducerStats)
        assert_type(stats.consumer.redelivered, int)
        assert_type(stats.producer_pid, int | None)
        assert_type(stats.consumer_claims, int)
        assert_type(stats.pressure_state, PressureState)
        bus.unlink()
    assert_type(bus.close(), None)


def check_batch() -> None:
    batch = some_batch()
    assert_type(EventBatch(batch.records, batch.payload), EventBatch)
    assert_type(EventBatch(np.empty(0, EVENT_DTYPE), b""), EventBatch)
    assert_type(EventBatch.concat([batch, batch]), EventBatch)
    assert_type(
        EventBatch.from_columns(sequence=[1, 2], collection="orders", op=WriteOp.INSERT, row_id=["7", "8"], lsn=1),
        EventBatch,
    )
    assert_type(len(batch), int)
    assert_type(batch[0], WriteEvent)
    assert_type(batch[np.int64(0)], WriteEvent)
    assert_type(batch[1:], EventBatch)
    assert_type(batch.select("op", "lsn"), Projection)
    assert_type(batch.select("op").columns, tuple[str, ...])
    assert_type(batch[[True, False, True]], EventBatch)
    mask: npt.NDArray[np.bool_] = batch.op == WriteOp.INSERT
    assert_type(batch[mask], EventBatch)
    assert_type(batch[batch.op == WriteOp.INSERT], EventBatch)
    assert_type(batch[batch.source != EventSource.USER], EventBatch)
    assert_type(batch[(batch.op == WriteOp.DELETE) & (batch.lsn > 3)], EventBatch)
    assert_type(batch[~(batch.op == WriteOp.HEARTBEAT)], EventBatch)
    assert_type(iter(batch), Iterator[WriteEvent])
    for event in batch:
        assert_type(event, WriteEvent)


def check_columns() -> None:
    batch = some_batch()
    assert_type(batch.records, npt.NDArray[np.void])
    assert_type(batch.payload, npt.NDArray[np.uint8])
    assert_type(batch.sequence, npt.NDArray[np.uint64])
    assert_type(batch.lsn, npt.NDArray[np.uint64])
    assert_type(batch.tenant_id, npt.NDArray[np.uint64])
    assert_type(batch.vshard_id, npt.NDArray[np.uint32])
    # Arrays of uint8 that a type checker knows to be compared into masks.
    numbers: list[npt.NDArray[np.uint8]] = [batch.op, batch.source]
    assert_type(numbers[0], npt.NDArray[np.uint8])
    assert_type(batch.op, MemberArray)
    assert_type(batch.source, MemberArray)
    assert_type(batch.count, npt.NDArray[np.uint32])
    assert_type(batch.system_time_ms, npt.NDArray[np.int64])
    assert_type(batch.valid_time_ms, npt.NDArray[np.int64])
    assert_type(batch.strings("collection"), npt.NDArray[np.object_])
    assert_type(batch.values("new_value"), npt.NDArray[np.object_])
    assert_type(batch.gaps(), npt.NDArray[np.uint64])
    assert_type(batch.gaps(after=7), npt.NDArray[np.uint64])


def check_arrow() -> None:
    (producer,), (consumer,) = create_event_bus(1, 16)
    batch = some_batch()
    producer.emit_batch(batch)
    assert_type(EventBatch.from_arrow(batch), EventBatch)
    assert_type(batch.__arrow_c_schema__(), object)
    assert_type(batch.__arrow_c_array__(), tuple[object, object])
    assert_type(batch.__arrow_c_array__(requested_schema=batch.__arrow_c_schema__()), tuple[object, object])
    assert_type(batch.__arrow_c_stream__(), object)
    assert_type(consumer.__arrow_c_schema__(), object)
    assert_type(consumer.__arrow_c_stream__(None), object)
    assert_type(batch.plain(), Projection)
    assert_type(batch.select("op").plain(), Projection)
    assert_type(batch.plain().__arrow_c_array__(None), tuple[object, object])
    plain = consumer.plain()
    assert_type(plain, PlainStream)
    assert_type(plain.__arrow_c_schema__(), object)
    assert_type(plain.__arrow_c_stream__(requested_schema=None), object)


def check_rows() -> None:
    encoded = encode_rows({"carrier": ["UA", None], "dep_delay": np.array([2, -4])})
    assert_type(encoded, EncodedRows)
    assert_type(encoded.data, npt.NDArray[np.uint8])
    assert_type(encoded.offsets, npt.NDArray[np.int64])
    batch = EventBatch.from_columns(
        sequence=[1, 2], collection="flights", op=WriteOp.INSERT, row_id="", lsn=1, new_value=encoded
    )
    assert_type(batch.split(), dict[str, EventBatch])
    assert_type(batch[[1, 0]], EventBatch)
    schema = RowSchema({"carrier": "str", "dep_delay": "int64"})
    assert_type(schema | RowSchema.infer(batch, "new_value", on_error="null"), RowSchema)
    assert_type(list(schema), list[str])
    rows = batch.rows("new_value", schema, on_error="raise")
    assert_type(rows, Rows)
    assert_type(rows.schema, RowSchema)
    assert_type(len(rows), int)
    assert_type(rows["dep_delay"], npt.NDArray[Any])
    assert_type(rows.present, npt.NDArray[np.bool_])
    assert_type(rows.malformed, npt.NDArray[np.intp])
    assert_type(rows.valid("carrier"), npt.NDArray[np.bool_])
    assert_type(rows.given("carrier"), npt.NDArray[np.bool_])
    assert_type(rows[1:], Rows)
    assert_type(rows[[1, 0]], Rows)
    assert_type(rows[rows.present], Rows)
    assert_type(rows.select("dep_delay"), Rows)
    projection = rows.with_events("sequence")
    assert_type(projection, RowProjection)
    assert_type(projection.columns, tuple[str, ...])
    assert_type(rows.plain(), RowProjection)
    assert_type(rows.__arrow_c_stream__(), object)
    assert_type(projection.__arrow_c_array__(), tuple[object, object])
    try:
        schema["tailnum"]
    except UnknownColumnError as error:
        assert_type((error.position, error.sequence, error.column), tuple[int | None, int | None, str | None])


def exports_a_follower(follower: Follower) -> None:
    assert_type(follower.__arrow_c_schema__(), object)
    assert_type(follower.__arrow_c_stream__(), object)
    assert_type(follower.plain(), PlainStream)


def check_recovery() -> None:
    (producer,), (consumer,) = create_event_bus(1, 8)
    assert_type(consumer.emitted_sequence, int | None)
    batch, gaps = GapCursor(consumer, 0).drain(16, 0.0)
    assert_type(batch, EventBatch)
    assert_type(gaps, npt.NDArray[np.uint64])
    with tempfile.TemporaryDirectory() as folder, SqliteEventLog(Path(folder, "log")) as stored:
        log: EventLog = stored
        assert_type(log.last_sequence(0), int | None)
        assert_type(log.load_watermark("group", 0), int | None)
        assert_type(log.read(0, 1, 2), Iterator[EventBatch])
        assert_type(isinstance(log, LiveEventLog), bool)
        joining: JoiningEventLog = stored
        assert_type(joining.read_joined(0, 1, 2, 1024), Iterator[EventBatch])
        identified: IdentifiedEventLog = stored
        assert_type(identified.token(0, -1), str)
        assert_type(identified.load_token("group", 0), str | None)
        assert_type(identified.sequence_of(0, identified.token(0, -1)), int)
        numbered: NumberedEventLog = stored
        commits: CommitNumbers = numbered.commits
        assert_type(commits.last(), int)
        assert_type(commits.before(0, 1), int)
        assert_type(commits.after(0, 0), StoredCommit | None)
        exclusive: ExclusiveEventLog = stored
        claim: GroupClaim | None = exclusive.claim_group("another", 0)
        if claim is not None:
            assert_type(claim.check(), None)
            assert_type(claim.release(), None)
        core = logged(producer, log)
        assert_type(core, LoggedProducer)
        assert_type(core.emit(some_event()), bool)
        assert_type(core.emit_batch(some_batch()[1:]), int)
        core.close()
        with follow(consumer, log, group="group", start="earliest") as follower:
            assert_type(follower, Follower)
            for each in follower:
                assert_type(each, EventBatch)
                assert_type(follower.commit(), None)
            assert_type(follower.group, str)
            assert_type(follower.position, int | None)
            assert_type(follower.token, str)
            assert_type(follower.ended, bool)
            assert_type(follower.next_batch(0.0), EventBatch)
            stats = follower.stats()
            assert_type(stats, FollowStats)
            assert_type(stats.replayed, int)


def check_metrics() -> None:
    producers, consumers = create_event_bus(2, 16)
    collector = RingCollector(producers, name="orders")
    assert_type(collector, RingCollector)
    with tempfile.TemporaryDirectory() as folder, SqliteEventLog(Path(folder, "log")) as log:
        follower = follow(consumers[0], log, group="group")
        assert_type(collector.add([*producers, *consumers], name="again", followers=[follower]), None)
        assert_type(collector.remove("again"), None)
    assert_type(collector.describe(), Iterator[Metric])
    registry = CollectorRegistry()
    registry.register(collector)
    for metric in collector.collect():
        assert_type(metric, Metric)


async def follows_on_a_loop(follower: Follower, log: LiveEventLog) -> None:
    async for batch in follower:
        assert_type(batch, EventBatch)
    assert_type(await follower.next_batch_async(0.1), EventBatch)
    assert_type(log.wait_beyond(0, 7, 0.1), bool)


def check_errors() -> None:
    ours: list[type[RingError]] = [
        ArgumentError,
        BatchError,
        CapacityError,
        ClosedError,
        EventTooLargeError,
        FieldError,
        LayoutError,
        CorruptRingError,
        EventLoopError,
        OwnershipError,
        RowError,
        UnknownColumnError,
    ]
    assert_type(ours[0]("why"), RingError)
    values: list[type[ValueError]] = [
        ArgumentError,
        BatchError,
        CapacityError,
        ClosedError,
        EventTooLargeError,
        FieldError,
        LayoutError,
    ]
    assert_type(values[0]("why"), ValueError)
    ownership: list[type[OwnershipError]] = [BusyError, ForkError]
    assert_type(ownership[0]("why"), OwnershipError)
    taken = RoleTaken("why", 7)
    assert_type(taken.pid, int | None)
    an_ownership_error: OwnershipError = taken
    assert_type(an_ownership_error.args, tuple[Any, ...])
    gap = GapError("why", 0, 5, 7)
    assert_type((gap.core_id, gap.first, gap.last), tuple[int, int, int])
    of_the_log: list[type[LogError]] = [CorruptLogError, LogConflictError, LogUnavailableError]
    assert_type(of_the_log[0]("why"), LogError)
    try:
        create_event_bus(0)
    except CapacityError as error:
        assert_type(error, CapacityError)
