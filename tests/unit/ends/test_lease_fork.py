"""A lease in a forked child shows what it showed at the fork, whatever the parent does next."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import signal
import traceback
import warnings
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nodedb_ring import EventBatch, EventBus, EventConsumer, EventProducer, ForkError, Lease
from tests.unit.builders import event, ring, sequences, sized
from tests.unit.forks import FORKS, raw_fork
from tests.unit.runners import in_child, in_new_interpreter
from tests.unit.shared_buses import SECONDS, BusMaker

from .end_calls import kind_of


class Child:
    """A forked child that reads when the test asks for it, after the parent has continued."""

    def __init__(self, observe: Callable[[], object], fork: Callable[[], int] = os.fork) -> None:
        read_end, self._write_end = os.pipe()
        self._answer, answering = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = fork()
        if self._pid == 0:
            answer: object
            try:
                signal.alarm(SECONDS)
                os.read(read_end, 1)
                answer = (True, observe())
            except BaseException:
                answer = (False, traceback.format_exc())
            try:
                os.write(answering, pickle.dumps(answer))
            finally:
                os._exit(0)
        os.close(read_end)
        os.close(answering)

    def answer(self) -> Any:
        os.write(self._write_end, b"x")
        os.close(self._write_end)
        with open(self._answer, "rb") as pipe:
            data = pipe.read()
        _, status = os.waitpid(self._pid, 0)
        assert status == 0, f"the child ended with {status}"
        succeeded, value = pickle.loads(data)
        assert succeeded, value
        return value


def overwrite(producer: EventProducer, consumer: EventConsumer, first: int, letter: bytes = b"Z") -> int:
    """Fills every row and every byte that is free, several times over; returns the next number."""
    for _ in range(3):
        while producer.emit(event(first, collection="~" * 9, new_value=letter * 17)):
            first += 1
        consumer.drain(10_000)
    return first


@contextlib.contextmanager
def ends_of(
    kind: str, make_bus: BusMaker, capacity: int, arena_bytes: int
) -> Generator[tuple[EventProducer, EventConsumer], None, None]:
    if kind == "private":
        yield ring(capacity, arena_bytes=arena_bytes)
    else:
        bus = make_bus(1, capacity, arena_bytes=arena_bytes)
        with bus.producer(0) as producer, bus.consumer(0) as consumer:
            yield producer, consumer


def values_of(batch: EventBatch) -> list[Any]:
    """All that can be read of a batch, by every way that there is."""
    packed = EventBatch.concat([batch])
    return [
        list(batch),
        [batch[i] for i in range(len(batch))],
        batch.strings("collection").tolist(),
        batch.values("new_value").tolist(),
        list(batch[1:]),
        list(batch[np.ones(len(batch), np.bool_)]),
        packed.payload.tobytes(),
        batch.sequence.tolist(),
    ]


@pytest.mark.parametrize("fork", FORKS)
@pytest.mark.parametrize("kind", ["private", "shared"])
@pytest.mark.parametrize("sizes", [(4, 256), (16, 500), (64, 70_000)])
def test_a_child_sees_its_own_events(
    kind: str, sizes: tuple[int, int], fork: Callable[[], int], make_bus: BusMaker
) -> None:
    with ends_of(kind, make_bus, *sizes) as (producer, consumer):
        for n in (1, 2, 3):
            assert producer.emit(event(n, collection=f"table {n}", new_value=bytes([64 + n]) * 50))
        with consumer.lease() as batch:
            before = values_of(batch)
            start = int(batch.records["new_value_offset"][0])
            views = [batch.payload[start : start + 150]]
            shown = views[0].tobytes()
            child = Child(lambda: (values_of(batch), views[0].tobytes()), fork)
            views.clear()
        overwrite(producer, consumer, 4)
        assert child.answer() == (before, shown)


def test_a_child_sees_leases_of_every_lap(make_bus: BusMaker) -> None:
    # The arena goes round, with leases at its end and at its beginning, and a released one between them.
    bus = make_bus(1, 16, arena_bytes=300)
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        sizes = [90, 80, 70, 60, 50, 40]
        for n, size in enumerate(sizes[:3], 1):
            assert producer.emit(sized(n, size))
        consumer.drain(1)
        leases = [consumer.lease(1)]
        assert producer.emit(sized(4, 60))
        assert producer.emit(sized(5, 20))
        leases += [consumer.lease(1), consumer.lease(1), consumer.lease(1)]
        leases.pop(1).release()
        batches = [lease.batch for lease in leases]
        before = [values_of(batch) for batch in batches]
        assert [sequences(batch) for batch in batches] == [[2], [4], [5]]
        child = Child(lambda: [values_of(batch) for batch in batches])
        batches.clear()
        for lease in leases:
            lease.release()
        overwrite(producer, consumer, 6)
        assert child.answer() == before


def test_a_child_sees_events_without_payload(make_bus: BusMaker) -> None:
    bus = make_bus(1, 16)
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        assert producer.emit(sized(1, 0))
        with consumer.lease() as batch:
            child = Child(lambda: list(batch))
        overwrite(producer, consumer, 2)
        assert child.answer() == [sized(1, 0)]


@pytest.mark.parametrize("most", [1, 100])
def test_a_child_sees_a_lease_that_fills_the_arena(most: int, make_bus: BusMaker) -> None:
    bus = make_bus(1, 16, arena_bytes=240)
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        first = overwrite(producer, consumer, 1)
        for n in range(first, first + 3):
            assert producer.emit(sized(n, 80))
        consumer.drain(1)
        # In the middle of a lap, so that the next event begins the next.
        assert producer.emit(sized(first + 3, 80))
        assert producer.utilization == 100
        leases = [consumer.lease(most) for _ in range(3)]
        before = [list(lease.batch) for lease in leases]
        child = Child(lambda: [list(lease.batch) for lease in leases])
        for lease in leases:
            lease.release()
        overwrite(producer, consumer, first + 4)
        assert child.answer() == before
        assert sum(map(len, before)) == 3


def test_a_child_sees_leases_of_several_cores_and_buses(make_bus: BusMaker) -> None:
    # Blocks of few slots share pages with their neighbours.
    buses = [make_bus(3, 4, arena_bytes=200), make_bus(2, 4, arena_bytes=5000)]
    ends = [(bus.producer(core), bus.consumer(core)) for bus in buses for core in range(bus.num_cores)]
    for core, (producer, _) in enumerate(ends):
        assert producer.emit(event(1, new_value=bytes([97 + core]) * 60))
    leases = [consumer.lease() for _, consumer in ends]
    before = [lease.batch.values("new_value")[0] for lease in leases]
    assert before == [bytes([97 + core]) * 60 for core in range(5)]
    child = Child(lambda: [lease.batch.values("new_value")[0] for lease in leases])
    for lease in leases:
        lease.release()
    for producer, consumer in ends:
        overwrite(producer, consumer, 2)
    assert child.answer() == before


def test_a_view_from_before_the_fork_keeps_what_it_showed(make_bus: BusMaker) -> None:
    bus = make_bus(1, 4, arena_bytes=256)
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        assert producer.emit(event(1, new_value=b"A" * 60))
        views: list[Any] = []
        children: list[Child] = []
        with pytest.raises(BufferError), consumer.lease() as batch:  # noqa: PT012
            views.append(batch.payload[-60:])
            children.append(Child(views[0].tobytes))
        assert consumer.stats().held == 1
        views.clear()
        assert consumer.stats().held == 0
        overwrite(producer, consumer, 2)
        assert children[0].answer() == b"A" * 60


@pytest.mark.parametrize("fork", FORKS)
def test_a_child_of_a_child_sees_them_too(fork: Callable[[], int], make_bus: BusMaker) -> None:
    bus = make_bus(1, 4, arena_bytes=256)
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        assert producer.emit(event(1, new_value=b"A" * 60))
        with consumer.lease() as batch:
            before = values_of(batch)
            child = Child(lambda: in_child(lambda: values_of(batch), fork), fork)
        overwrite(producer, consumer, 2)
        assert child.answer() == before


def test_the_bus_works_in_a_child_that_has_a_lease(make_bus: BusMaker) -> None:
    # What the child claims is the bus itself, and not what a lease showed there.
    bus = make_bus(1, 4, arena_bytes=256)
    producer, consumer = bus.producer(0), bus.consumer(0)
    assert producer.emit(event(1, new_value=b"A" * 60))
    lease = consumer.lease()

    def observe() -> list[Any]:
        seen: list[Any] = [list(lease.batch)]
        with bus.consumer(0) as inheritor, bus.producer(0) as successor:
            seen += [successor.emit(event(n, new_value=b"B" * 60)) for n in (2, 3)]
            leased = inheritor.lease()
            seen += [list(leased.batch), in_child(lambda: list(leased.batch))]
            leased.release()
        seen.append(list(lease.batch))
        return seen

    child = Child(observe)
    producer.close()
    lease.release()
    consumer.close()
    answer = child.answer()
    first = event(1, new_value=b"A" * 60)
    others = [event(n, new_value=b"B" * 60) for n in (2, 3)]
    assert answer == [[first], True, True, others, others, [first]]


def test_a_child_leaves_the_leases_of_its_parent_alone(make_bus: BusMaker) -> None:
    bus = make_bus(1, 4, arena_bytes=256)
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        for n in (1, 2):
            assert producer.emit(event(n, new_value=b"A" * 60))
        leases = [consumer.lease(1), consumer.lease(1)]

        def observe() -> int:
            leases.pop().release()
            leases.clear()
            return 7

        assert Child(observe).answer() == 7
        assert consumer.stats().held == 2
        assert [list(lease.batch) for lease in leases] == [[event(n, new_value=b"A" * 60)] for n in (1, 2)]


def test_a_lease_that_had_ended_is_over_there_too(make_bus: BusMaker) -> None:
    bus = make_bus(1, 4, arena_bytes=256)
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        assert producer.emit(event(1, new_value=b"A" * 60))
        with consumer.lease() as batch:
            pass
        assert Child(lambda: kind_of(lambda: list(batch))).answer() == "ClosedError"


def refusals(batch: EventBatch, part: EventBatch) -> list[str]:
    calls: list[Callable[[], object]] = [
        lambda: list(batch), lambda: batch[0], lambda: batch.strings("row_id"), lambda: batch.values("new_value"),
        lambda: batch.payload, lambda: batch[1:], lambda: batch[[True]], lambda: EventBatch.concat([batch]),
        batch.__arrow_c_array__, lambda: batch.select("row_id").__arrow_c_array__(), lambda: list(part),
        lambda: part.payload, lambda: pickle.dumps(batch),
    ]  # fmt: skip
    return [kind_of(call) for call in calls]


def test_a_child_forked_without_handlers_is_refused(make_bus: BusMaker) -> None:
    # The C library does not run handlers for it, so nothing was copied: the producer has overwritten the bytes by now.
    bus = make_bus(1, 4, arena_bytes=256)
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        assert producer.emit(event(1, new_value=b"A" * 60))
        with consumer.lease() as batch:
            parts = [batch[:]]
            # Nor may a child of that child take over what it was refused.
            child = Child(lambda: [refusals(batch, parts[0]), in_child(lambda: refusals(batch, parts[0]))], raw_fork)
            parts.clear()
        overwrite(producer, consumer, 2)
        assert child.answer() == [["ForkError"] * 13] * 2


def test_the_refusal_says_what_to_do(make_bus: BusMaker) -> None:
    bus = make_bus(1, 4, arena_bytes=256)
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        assert producer.emit(event(1))
        lease = consumer.lease()

        def observe() -> str:
            with pytest.raises(ForkError) as refused:
                list(lease.batch)
            return str(refused.value)

        assert "before the fork" in in_child(observe, raw_fork)


WITHOUT_MEMORY = """
import os
import resource
from pathlib import Path
from nodedb_ring import EventBus, ForkError, WriteEvent

bus = EventBus.create(NAME, 1, 16, arena_bytes=64 << 20)
try:
    producer, consumer = bus.producer(0), bus.consumer(0)
    producer.emit(WriteEvent(sequence=1, collection="c", op=1, row_id="r", lsn=1, new_value=b"A" * 60))
    lease = consumer.lease()
    batch = lease.batch
    view = batch.payload[-60:]
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + (32 << 20), limits[1]))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            batch.values("new_value")
        except ForkError:
            code = 0 if view.tobytes() == bytes(60) else 2
        os._exit(code)
    resource.setrlimit(resource.RLIMIT_AS, limits)
    assert os.waitpid(child, 0)[1] == 0
    assert batch.values("new_value")[0] == view.tobytes() == b"A" * 60
    child = os.fork()
    if child == 0:
        os._exit(0 if batch.values("new_value")[0] == view.tobytes() == b"A" * 60 else 3)
    assert os.waitpid(child, 0)[1] == 0
    print("refused, then kept")
finally:
    bus.unlink()
"""


def test_a_fork_without_memory_for_the_copy(tmp_path: Path) -> None:
    program = WITHOUT_MEMORY.replace("NAME", repr(f"test-{os.getpid()}-{tmp_path.name}"))
    assert in_new_interpreter(program) == "refused, then kept\n"


def mappings(bus: EventBus) -> list[str]:
    """Where the file of a bus is mapped in this process."""
    status = bus.path.stat()
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line.split()[0] for line in lines if line.split()[3:5] == [device, str(status.st_ino)]]


def mapping_count() -> int:
    return Path("/proc/self/maps").read_text().count("\n")


def test_the_parent_keeps_nothing_of_the_copies(make_bus: BusMaker) -> None:
    bus = make_bus(1, 64, arena_bytes=1 << 20)
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        assert producer.emit(event(1, new_value=b"A" * 60))
        with consumer.lease() as batch:
            before, shared = mapping_count(), mappings(bus)
            for _ in range(10):
                assert Child(lambda: len(batch)).answer() == 1
            assert mapping_count() <= before + 3
            assert mappings(bus) == shared
            assert in_child(lambda: mappings(bus)) != shared


def test_a_fork_without_leases_copies_nothing(make_bus: BusMaker) -> None:
    bus = make_bus(1, 64, arena_bytes=1 << 20)
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        for n in (1, 2, 3):
            assert producer.emit(event(n))
        leases = [consumer.lease(1), consumer.lease(1)]
        assert sequences(consumer.drain()) == [3]
        for lease in leases:
            lease.release()
        assert len(mappings(bus)) == 2
        assert in_child(lambda: mappings(bus)) == mappings(bus)


def test_a_ring_whose_rows_were_written_over_ends_no_fork(make_bus: BusMaker) -> None:
    # The copy is measured by rows that another process can write to: whatever they say, it stays within the arena.
    bus = make_bus(1, 16, arena_bytes=300)
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        for n in (1, 2):
            assert producer.emit(sized(n, 90))
        leases = [consumer.lease(1), consumer.lease(1)]
        rng = np.random.default_rng(5)
        data = bus.path.read_bytes()
        at = 4096 + int(np.frombuffer(data, np.uint64, 1, 4096 + 40)[0])
        before = [each for lease in leases for each in lease.batch]
        for n in range(3, 33):
            with open(bus.path, "r+b") as file:
                file.seek(at)
                file.write(rng.bytes(2 * 128))
            # A lease that comes, and one that goes, measures again.
            assert producer.emit(event(n))
            with consumer.lease(1) as spare:
                assert sequences(spare) == [n]
            # Right, or none of its own any more; but it does end.
            assert len(Child(lambda: [kind_of(functools.partial(list, one.batch)) for one in leases]).answer()) == 2
            assert [each for lease in leases for each in lease.batch] == before


def test_leases_that_come_and_go_leave_nothing_registered(make_bus: BusMaker) -> None:
    leases: list[Lease] = []
    for _ in range(5):
        bus: EventBus = make_bus(1, 16)
        producer, consumer = bus.producer(0), bus.consumer(0)
        assert producer.emit(event(1, new_value=b"A" * 60))
        leases.append(consumer.lease())
        # The lease outlives both ends, and the bus.
        bus.close()
        del producer, consumer, bus
        assert Child(lambda: list(leases[0].batch)).answer() == [event(1, new_value=b"A" * 60)]
        leases.clear()
        assert Child(lambda: 3).answer() == 3
