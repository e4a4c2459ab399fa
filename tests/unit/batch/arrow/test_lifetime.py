"""Who holds an export holds the batch: capsules, columns apart, threads without the GIL, the end of the process."""

# The stubs of pyarrow and pandas lag behind them, and know no Arrow capsules.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false

from __future__ import annotations

import functools
import gc
import weakref

import pyarrow as pa
import pytest

from nodedb_ring import EventBatch, create_event_bus
from tests.unit.builders import batch as batch_of
from tests.unit.builders import event, ring, sized
from tests.unit.ends.test_lease_fork import Child, overwrite
from tests.unit.runners import Running, in_child, in_new_interpreter, in_thread, resident_bytes
from tests.unit.shared_buses import BusMaker

from .capsules import ArrowArray, array_in, moved, release, schema_in, stream_in
from .columns import as_fields, imported, rows_of, varied, views


def test_imported_columns_outlive_batch_and_consumer() -> None:
    producer, consumer = ring(1024, arena_bytes=2**20)
    events = varied(700)
    producer.emit_batch(EventBatch.from_events(events))
    record_batch = imported(consumer.drain(1000))
    consumer.close()
    producer.close()
    del consumer, producer
    gc.collect()
    # Memory that was freed too early is used again by now.
    others = [imported(EventBatch.from_events(varied(700, first=i))) for i in range(1, 20)]
    assert rows_of(record_batch) == as_fields(events)
    assert len(others) == 19


USED_AGAIN = """
from tests.unit.batch.arrow.columns import imported
from tests.unit.builders import batch

held = imported(batch(1, 2000))
address = held.column("sequence").buffers()[1].address
other = imported(batch(2001, 4000))
assert other.column("sequence").buffers()[1].address != address
assert held.column("sequence").to_pylist() == list(range(1, 2001))
one_column = held.column("row_id")
del held
third = imported(batch(4001, 6000))
assert third.column("sequence").buffers()[1].address != address, "one column keeps all of them"
assert one_column.to_pylist() == [str(i) for i in range(1, 2001)]
del one_column
fourth = imported(batch(6001, 8000))
assert fourth.column("sequence").buffers()[1].address == address
print("done")
"""


def test_memory_is_used_again_after_the_release_and_not_before() -> None:
    """In an interpreter of its own: the buffers of earlier tests would be used again first."""
    assert in_new_interpreter(USED_AGAIN) == "done\n"


KEPT_AFTER = """
from tests.unit.builders import batch
from tests.unit.runners import resident_bytes

one = batch(1, 200_000)
before = resident_bytes()
exports = [one.__arrow_c_array__() for _ in range(10)]
held = resident_bytes() - before
del exports
print(held, resident_bytes() - before)
"""


def test_a_bounded_part_of_the_memory_is_kept_for_the_next_exports() -> None:
    held, kept = (int(each) for each in in_new_interpreter(KEPT_AFTER).split())
    assert held >= 100 * 2**20, "too little for the bound to show"
    # 64 MiB, as docs/arrow.md says, and what malloc keeps of everything else.
    assert kept <= (64 + 16) * 2**20


def test_an_export_holds_its_batch_until_it_is_released() -> None:
    batch = batch_of(1, 10)
    assert views(batch) == 0
    schema, array = batch.__arrow_c_array__()
    assert views(batch) == 1
    del array
    assert views(batch) == 0
    record_batch = imported(batch)
    assert views(batch) == 1
    gone = weakref.ref(batch)
    del batch
    assert gone() is None
    assert record_batch.column("sequence").to_pylist() == list(range(1, 11))
    del schema


def test_columns_may_be_moved_out_one_by_one() -> None:
    batch = batch_of(1, 10)
    _, capsule = batch.__arrow_c_array__()
    struct = moved(array_in(capsule))
    del capsule
    columns = [moved(struct.children[i].contents) for i in range(struct.n_children)]
    release(struct)
    assert views(batch) == 1
    for column in columns[1:]:
        release(column)
    assert views(batch) == 1
    release(columns[0], with_gil=True)
    assert views(batch) == 0


def test_a_dictionary_may_be_moved_out_too() -> None:
    _, capsule = batch_of(1, 2).__arrow_c_array__()
    struct = moved(array_in(capsule))
    dictionary = moved(struct.children[2].contents.dictionary.contents)
    release(struct)
    assert dictionary.length == 6
    release(dictionary)


def test_schemas_may_be_moved_out_too() -> None:
    capsule = batch_of(1, 1).__arrow_c_schema__()
    struct = moved(schema_in(capsule))
    del capsule
    columns = [moved(struct.children[i].contents) for i in range(struct.n_children)]
    release(struct)
    assert [column.name for column in columns][:3] == [b"sequence", b"collection", b"op"]
    assert columns[2].dictionary.contents.format == b"u"
    for column in columns:
        release(column)


@pytest.mark.parametrize("with_gil", [False, True])
def test_a_release_on_another_thread(with_gil: bool) -> None:
    producer, consumer = ring()
    producer.emit(event(1))
    lease = consumer.lease()
    _, capsule = lease.batch.__arrow_c_array__()
    struct = moved(array_in(capsule))
    with pytest.raises(BufferError):
        lease.release()
    assert consumer.stats().held == 1
    del lease
    in_thread(lambda: release(struct, with_gil=with_gil))
    # Without the GIL it is left to the interpreter, which comes by before the next line.
    assert consumer.stats().held == 0


def test_a_lease_sees_at_its_end_what_its_own_thread_released() -> None:
    """The interpreter would come by on the main thread alone, and that waits for this one."""
    producer, consumer = ring()
    producer.emit(event(1))

    def read() -> None:
        consumer.bind()
        with consumer.lease() as batch:
            _, capsule = batch.__arrow_c_array__()
            struct = moved(array_in(capsule))
            release(struct)

    in_thread(read)
    assert consumer.stats().held == 0


def test_an_export_frees_what_earlier_importers_released() -> None:
    batch = batch_of(1, 3)
    structs = [moved(array_in(batch.__arrow_c_array__()[1])) for _ in range(100)]
    assert views(batch) == 100

    def release_all(part: list[ArrowArray]) -> None:
        for one in part:
            release(one)

    threads = [Running(functools.partial(release_all, structs[i::4])) for i in range(4)]
    for thread in threads:
        thread.result()
    batch.__arrow_c_array__()
    assert views(batch) == 0


def test_unconsumed_capsules_do_not_leak() -> None:
    batch = EventBatch.from_events([sized(i, 50) for i in range(1, 1000)])

    def export() -> None:
        for _ in range(300):
            batch.__arrow_c_schema__()
            batch.__arrow_c_array__()
            batch.__arrow_c_stream__()

    export()
    before = resident_bytes()
    for _ in range(5):
        export()
    # 1500 sheets of 160 KiB each would be 60,000 pages.
    assert resident_bytes() - before < 2000 * 4096
    assert views(batch) == 0


def test_an_export_that_a_traceback_keeps_holds_the_rows(caplog: pytest.LogCaptureFixture) -> None:
    producer, consumer = ring(16)
    producer.emit(sized(1, 40))
    kept: list[pa.Table] = []
    with pytest.raises(ZeroDivisionError), consumer.lease() as batch:  # noqa: PT012
        kept.append(pa.table(batch))
        raise ZeroDivisionError
    assert consumer.stats().held == 1
    assert rows_of(kept[0]) == as_fields([sized(1, 40)])
    assert "1 arrays still refer to it" in caplog.text
    kept.clear()
    gc.collect()
    assert consumer.stats().held == 0


def test_a_forked_child_sees_in_a_table_of_a_lease_what_it_showed(make_bus: BusMaker) -> None:
    bus = make_bus(1, 16, arena_bytes=1000)
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        events = [sized(1, 40), sized(2, 200)]
        producer.emit_batch(EventBatch.from_events(events))
        tables: list[pa.Table] = []
        children: list[Child] = []
        with pytest.raises(BufferError), consumer.lease() as batch:  # noqa: PT012
            tables.append(pa.table(batch))
            children.append(Child(lambda: [rows_of(tables[0]), rows_of(pa.table(batch))]))
        tables.clear()
        gc.collect()
        assert consumer.stats().held == 0
        overwrite(producer, consumer, 3)
        # The batch itself is open there still: it was at the fork.
        assert children[0].answer() == [as_fields(events)] * 2


def test_a_capsule_that_was_consumed_releases_nothing_twice() -> None:
    batch = batch_of(1, 3)
    schema, array = batch.__arrow_c_array__()
    record_batch = pa.RecordBatch._import_from_c_capsule(schema, array)
    del schema, array
    assert views(batch) == 1
    assert record_batch.num_rows == 3
    stream = batch.__arrow_c_stream__()
    taken = moved(stream_in(stream))
    del stream
    release(taken)
    del record_batch
    assert views(batch) == 0


def test_a_forked_child_has_what_was_imported() -> None:
    record_batch = imported(batch_of(1, 1000))

    def child() -> list[int]:
        assert imported(batch_of(5, 1200)).num_rows == 1196
        return [int(number) for number in record_batch.column("sequence").to_pylist()]

    assert in_child(child) == list(range(1, 1001))


AT_EXIT = """
import atexit, ctypes, sys, threading
import pyarrow as pa
from nodedb_ring import EventBatch, create_event_bus
from tests.unit.batch.arrow.capsules import array_in, moved, release, stream_in
from tests.unit.builders import batch
{body}
print("done")
"""

BODIES = {
    "held by a module": "sys.kept = pa.record_batch(batch(1, 1000))",
    "held by a cycle": "kept = [pa.record_batch(batch(1, 1000))]; kept.append(kept)",
    "a stream half read": """
(producer,), (consumer,) = create_event_bus(1, 16)
producer.emit_batch(batch(1, 10))
sys.kept = pa.RecordBatchReader.from_stream(consumer)
sys.kept.read_next_batch()
""",
    "released by a thread that the interpreter does not wait for": """
structs = [moved(array_in(batch(1, 1000).__arrow_c_array__()[1])) for _ in range(1000)]
def work():
    for struct in structs:
        release(struct)
threading.Thread(target=work, daemon=True).start()
""",
    "a stream that a thread reads at the end": """
(producer,), (consumer,) = create_event_bus(1, 16)
producer.emit_batch(batch(1, 10))
reader = pa.RecordBatchReader.from_stream(consumer)
threading.Thread(target=reader.read_all, daemon=True).start()
""",
    "released by libc when the interpreter has gone": """
struct = moved(array_in(batch(1, 1000).__arrow_c_array__()[1]))
libc = ctypes.CDLL(None)
kept = [struct]
ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
libc.__cxa_atexit(ctypes.c_void_p(struct.release), ctypes.c_void_p(ctypes.addressof(struct)), None)
""",
}


@pytest.mark.parametrize("what", BODIES)
def test_the_interpreter_may_end_meanwhile(what: str) -> None:
    assert in_new_interpreter(AT_EXIT.format(body=BODIES[what])) == "done\n"


def test_many_exports_on_many_threads() -> None:
    (producer,), (consumer,) = create_event_bus(1, 4096)
    batch = batch_of(1, 2000)
    expected = imported(batch)

    def export() -> int:
        right = 0
        for _ in range(50):
            right += pa.record_batch(batch).equals(expected)
        return right

    assert [thread.result() for thread in [Running(export) for _ in range(4)]] == [50] * 4
    del producer, consumer
