"""What a type checker must refuse, each with the errors that it must give. Never run.

An expected error is an ignore comment with its code, one a checker. An error that does not come leaves its comment
unused, which `test_type_checkers.py` has both checkers report.
"""

from nodedb_ring import (
    BackpressureConfig,
    EventBatch,
    EventConsumer,
    EventProducer,
    Lease,
    WriteEvent,
    WriteOp,
    create_event_bus,
)


def event_fields_have_their_types() -> None:
    WriteEvent(1, "orders", WriteOp.INSERT, "7", 1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    WriteEvent(sequence=1, collection="orders", op=WriteOp.INSERT, row_id="7")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    WriteEvent(sequence="1", collection="orders", op=WriteOp.INSERT, row_id="7", lsn=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    WriteEvent(sequence=1, collection="orders", op=1, row_id="7", lsn=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    WriteEvent(sequence=1, collection=b"orders", op=WriteOp.INSERT, row_id="7", lsn=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    WriteEvent(sequence=1, collection="orders", op=WriteOp.INSERT, row_id="7", lsn=1, new_value="v")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    WriteEvent(sequence=1, collection="orders", op=WriteOp.INSERT, row_id="7", lsn=1, tenant=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def events_are_immutable(event: WriteEvent, batch: EventBatch) -> None:
    event.sequence = 2  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    batch.records = batch.records  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    batch[0] = event  # type: ignore[index]  # pyright: ignore[reportIndexIssue]


def optional_fields_may_be_none(event: WriteEvent, consumer: EventConsumer) -> None:
    event.new_value.hex()  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    print(consumer.try_recv().sequence)  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]


def the_ends_differ(producer: EventProducer, consumer: EventConsumer, event: WriteEvent, batch: EventBatch) -> None:
    consumer.emit(event)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    producer.drain()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    producer.emit(batch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    producer.emit_batch([event])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    producer.pressure_state = 0  # type: ignore[assignment, misc]  # pyright: ignore[reportAttributeAccessIssue]
    consumer.drain(timeout="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    consumer.lease(1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def a_lease_is_not_its_batch(lease: Lease) -> None:
    len(lease)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def columns_go_by_name(batch: EventBatch) -> None:
    batch["sequence"]  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    batch.strings(0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def options_go_by_keyword() -> None:
    create_event_bus(1, 16, 4096)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    create_event_bus("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    create_event_bus(1, backpressure={})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    BackpressureConfig(80)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


class Producer(EventProducer):  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    """The ends are final."""
