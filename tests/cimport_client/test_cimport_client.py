"""A Cython package outside of this one is compiled against the .pxd, and works a ring without the GIL."""

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import nodedb_ring
from nodedb_ring import EventBatch, EventConsumer, OwnershipError, WriteEvent, WriteOp, create_event_bus

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The client, compiled by its own setup.py in a directory that has nothing else."""
    place = tmp_path_factory.mktemp("client")
    for name in ("client.pyx", "setup.py"):
        shutil.copy(HERE / name, place)
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=place,
        env=os.environ | {"PYTHONPATH": nodedb_ring.get_include()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (shared,) = place.glob("client.*.so")
    spec = importlib.util.spec_from_file_location("client", shared)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def native_insert(sequence: int) -> WriteEvent:
    """The event that the client writes for a sequence number."""
    return WriteEvent(
        sequence=sequence,
        collection="native",
        op=WriteOp.INSERT,
        row_id=f"r{sequence % 10}",
        lsn=sequence,
        new_value=sequence.to_bytes(8, "little"),
    )


def heartbeat(sequence: int) -> WriteEvent:
    """The heartbeat that the client writes for a sequence number."""
    return WriteEvent(sequence=sequence, collection="", op=WriteOp.HEARTBEAT, row_id="", lsn=sequence)


def drain_all(consumer: EventConsumer) -> list[WriteEvent]:
    return list(EventBatch.concat(list(consumer)))


def test_a_nogil_thread_emits_while_python_drains(client: ModuleType) -> None:
    (producer,), (consumer,) = create_event_bus(1, 256)
    count = 100_000
    accepted: list[int] = []

    def emit() -> None:
        accepted.append(client.push(producer, 1, count))
        producer.close()

    thread = threading.Thread(target=emit)
    thread.start()
    batches = list(consumer)
    thread.join()
    received = EventBatch.concat(batches)

    stats = producer.stats()
    assert accepted == [len(received)]
    assert (stats.emitted, stats.dropped) == (len(received), count - len(received))
    assert stats.emitted_sequence == count
    sequences = received.sequence.tolist()
    assert sequences == sorted(set(sequences))
    assert received.strings("collection").tolist() == ["native"] * len(received)
    assert received.values("new_value").tolist() == [n.to_bytes(8, "little") for n in sequences]
    assert received.strings("row_id").tolist() == [f"r{n % 10}" for n in sequences]
    assert received[0] == native_insert(sequences[0])


def test_push_rows_enqueues_a_prefix_and_drops_the_rest(client: ModuleType) -> None:
    (producer,), (consumer,) = create_event_bus(1, 64)
    assert client.push_rows(producer, 1, 50) == 50
    assert client.push_rows(producer, 51, 50) == 14
    stats = producer.stats()
    assert (stats.emitted, stats.dropped_full, stats.first_dropped_sequence) == (64, 36, 65)
    producer.close()
    assert drain_all(consumer) == [native_insert(n) for n in range(1, 65)]


def test_rows_are_written_in_place_between_events_with_payload(client: ModuleType) -> None:
    (producer,), (consumer,) = create_event_bus(1, 64)
    assert client.push(producer, 1, 3) == 3
    assert client.publish_heartbeats(producer, 4, 10) == 10
    assert client.push(producer, 14, 1) == 1
    assert client.publish_heartbeats(producer, 15, 100) == 50
    assert producer.stats().dropped == 0, "reserving rows that are not there drops nothing"
    producer.close()
    expected = [native_insert(n) for n in (1, 2, 3)]
    expected += [heartbeat(n) for n in range(4, 14)]
    expected += [native_insert(14)]
    expected += [heartbeat(n) for n in range(15, 65)]
    assert drain_all(consumer) == expected


def python_events(count: int) -> list[WriteEvent]:
    """Events of Python's, with values of 0 to 6 bytes and some without."""
    return [
        WriteEvent(
            sequence=n,
            collection="tables/é",
            op=WriteOp.UPDATE,
            row_id=str(n),
            lsn=n,
            new_value=None if n % 5 == 0 else bytes([n % 251]) * (n % 7),
            old_value=b"old",
            statement_digest="d" * (n % 3),
        )
        for n in range(1, count + 1)
    ]


def test_native_leases_come_back_in_any_order_while_python_emits(client: ModuleType) -> None:
    (producer,), (consumer,) = create_event_bus(1, 64, arena_bytes=4096)
    events = python_events(2000)
    emitted = 48
    assert producer.emit_batch(EventBatch.from_events(events[:emitted])) == emitted
    read = 0
    while read < len(events):
        older, younger = client.take(consumer, 20), client.take(consumer, 20)
        assert older.count > 0
        runs = [events[read : read + older.count], events[read + older.count :][: younger.count]]
        read += sum(map(len, runs))
        expected = [sum(sum(event.new_value or b"") for event in run) for run in runs]
        assert younger.sum_values() == expected[1]
        younger.release()
        # Fills the ring to the last slot: into the younger run's rows, and not into the older's.
        room = min(64 - producer.ring.slots_in_use, len(events) - emitted)
        assert producer.emit_batch(EventBatch.from_events(events[emitted : emitted + room])) == room
        emitted += room
        assert older.sum_values() == expected[0]
        older.release()
        older.release()
    assert client.take(consumer, 20).count == 0
    assert producer.stats().dropped == 0
    assert (producer.ring.slots_in_use, producer.ring.bytes_in_use) == (0, 0)


def test_a_native_lease_that_is_dropped_gives_its_rows_back(client: ModuleType) -> None:
    (producer,), (consumer,) = create_event_bus(1, 16)
    assert client.push(producer, 1, 16) == 16
    taken = client.take(consumer, 16)
    assert client.push(producer, 17, 1) == 0
    del taken
    assert client.push(producer, 18, 1) == 1


def test_pop_copies_what_python_emitted(client: ModuleType) -> None:
    (producer,), (consumer,) = create_event_bus(1, 16, arena_bytes=4096)
    assert client.pop(consumer, 64) is None
    for event in python_events(200):
        assert producer.emit(event)
        size = sum(len(text.encode()) for text in (event.collection, event.row_id, event.statement_digest or ""))
        size += len(event.new_value or b"") + len(event.old_value or b"")
        assert client.pop(consumer, size - 1) == -size, "too little room leaves the event in the ring"
        assert client.pop(consumer, size) == (event.sequence, event.collection, event.new_value)
    assert consumer.stats().received == 200


def test_the_client_owns_the_end_it_works(client: ModuleType) -> None:
    (producer,), (consumer,) = create_event_bus(1, 16)
    thread = threading.Thread(target=client.push, args=(producer, 1, 1))
    thread.start()
    thread.join()
    with pytest.raises(OwnershipError, match=r"producer\.bind\(\)"):
        producer.emit(native_insert(2))
    producer.bind()
    assert producer.emit(native_insert(2))
    np.testing.assert_array_equal(consumer.drain().sequence, [1, 2])
