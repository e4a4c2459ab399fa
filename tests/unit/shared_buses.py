"""Shared buses under names that no other test has, and other processes to use them from."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import select
import signal
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar
from warnings import catch_warnings, simplefilter

import pytest

from nodedb_ring import BackpressureConfig, EventBus, EventConsumer, EventProducer, Lease

from .builders import event, events, sequences

P = ParamSpec("P")
T = TypeVar("T")

SECONDS: Final = 40
SHM: Final = Path("/dev/shm")
METHODS: Final = ["fork", "spawn", "forkserver"]

_numbers = itertools.count()


def new_name() -> str:
    return f"test-{os.getpid()}-{next(_numbers)}"


class BusMaker:
    """Makes buses of one ring of 16 slots, unless asked for others, and removes them all in the end."""

    def __init__(self) -> None:
        self._made = contextlib.ExitStack()

    def __call__(
        self,
        num_cores: int = 1,
        capacity: int = 16,
        *,
        name: str | None = None,
        arena_bytes: int | None = None,
        backpressure: BackpressureConfig | None = None,
        directory: Path | None = None,
    ) -> EventBus:
        bus = EventBus.create(
            new_name() if name is None else name,
            num_cores,
            capacity,
            arena_bytes=arena_bytes,
            backpressure=backpressure,
            directory=directory,
        )
        self._made.callback(_remove, bus)
        return bus

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._made.close()


def _remove(bus: EventBus) -> None:
    try:
        bus.unlink()
        bus.close()
    finally:
        # Also what an unlink that does too little leaves: the next run must not find it.
        for path in bus.directory.glob(f"*{bus.name}*"):
            path.unlink()


class Held:
    """What another process holds of a bus."""

    def __init__(self, bus: EventBus) -> None:
        self.bus = bus
        self.leases: list[Lease] = []
        self.others: list[object] = []

    producer: EventProducer
    consumer: EventConsumer


class Peer:
    """Another process that has a bus open and does what it is asked, one call after the other, until it is killed."""

    def __init__(self, bus: EventBus, method: str = "fork") -> None:
        context: Any = multiprocessing.get_context(method)
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, bus), daemon=True)
        with catch_warnings():
            # Python 3.12 warns of forking beside threads, those of a linear algebra library included.
            simplefilter("ignore", DeprecationWarning)
            self._process.start()
        theirs.close()
        self.pid: int = self._process.pid

    def post(self, call: Callable[Concatenate[Held, P], object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Has a function of a module called there with what is held, and does not wait for what it returns."""
        assert not kwargs
        self._connection.send((call, args))

    def answer(self) -> Any:
        """What the oldest call that was posted returned; what it raised is raised here."""
        assert self._connection.poll(SECONDS), f"no answer within {SECONDS} s"
        succeeded, value = self._connection.recv()
        assert succeeded, value
        return value

    def ask(self, call: Callable[Concatenate[Held, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        self.post(call, *args, **kwargs)
        answer: T = self.answer()
        return answer

    def kill(self) -> None:
        """SIGKILL; it is dead and reaped when this returns."""
        os.kill(self.pid, signal.SIGKILL)
        # With a timeout, this would wait for those who inherited its pipe, too: the children that it forked.
        self._process.join()
        assert self._process.exitcode == -signal.SIGKILL

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.is_alive():
            os.kill(self.pid, signal.SIGKILL)
        self._process.join()
        self._process.close()
        self._connection.close()


def _serve(connection: Any, bus: EventBus) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS)
    held = Held(bus)
    while True:
        try:
            call, args = connection.recv()
        except EOFError:
            return
        try:
            answer = (True, call(held, *args))
        except BaseException:
            answer = (False, traceback.format_exc())
        connection.send(answer)


# What a peer is asked to do.


def claim_producer(held: Held, core_id: int = 0) -> None:
    held.producer = held.bus.producer(core_id)


def claim_consumer(held: Held, core_id: int = 0) -> None:
    held.consumer = held.bus.consumer(core_id)


def emit(held: Held, first: int, last: int) -> list[bool]:
    return [held.producer.emit(each) for each in events(first, last)]


def emit_whole(held: Held, first: int, last: int) -> None:
    """Emits until everything is in."""
    for sequence in range(first, last + 1):
        while not held.producer.emit(event(sequence)):
            pass


def drain(held: Held, max_events: int = 1024) -> list[int]:
    return sequences(held.consumer.drain(max_events))


def lease(held: Held, max_events: int = 1024) -> list[int]:
    held.leases.append(held.consumer.lease(max_events))
    return sequences(held.leases[-1].batch)


def release(held: Held, which: int) -> None:
    held.leases.pop(which).release()


def close_producer(held: Held) -> None:
    held.producer.close()


def close_consumer(held: Held) -> None:
    held.consumer.close()


def next_sequence(held: Held) -> int:
    return held.producer.next_sequence


def refusal(held: Held, call: Callable[[Held], object]) -> tuple[str, str, int | None]:
    """The name and text of what a call raises there, and the pid that it names."""
    try:
        call(held)
    except Exception as error:
        return type(error).__name__, str(error), getattr(error, "pid", None)
    return "nothing", "", None


@contextlib.contextmanager
def another_users(path: Path) -> Generator[None, None, None]:
    """Makes a file another user's: really so if we are root, who may do that; else it is we who become another."""
    if os.geteuid() == 0:
        os.chown(path, 65534, -1)
        try:
            yield
        finally:
            os.chown(path, 0, -1)
    else:
        other = os.geteuid() + 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "geteuid", lambda: other)
            yield


# Processes that are nobody's child here.


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and not only what its parent has not reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter if it goes between the opening and the reading
        return False


def end(pid: int) -> None:
    """Kills a process, and returns when it is dead. Its parent reaps it."""
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            assert select.select([process], [], [], SECONDS)[0], f"{pid} does not die"
        finally:
            os.close(process)


# Words of a ring's header, for tests that stand in for a process that stopped or died between two of its steps.

PRODUCER_PID: Final = 456
PRODUCER_PID_NAMESPACE: Final = 464
CONSUMER_PID: Final = 552
CONSUMER_PID_NAMESPACE: Final = 560
WAKER_CPU: Final = 308
WAITING: Final = 640
GATE_CORE: Final = 648
ROOM_WAITING: Final = 768
GATE: Final = 896
WAITING_THREAD: Final = 1
WAITING_FD: Final = 2
WAITING_GATE: Final = 8
WAKER_FENCES: Final = 4
SLEEPS_OFTEN: Final = 16


def header_word(bus: EventBus, offset: int, size: int = 4) -> int:
    """A word of the header of core 0, as docs/layout.md places them."""
    with open(bus.path, "rb") as file:
        return int.from_bytes(os.pread(file.fileno(), size, 4096 + offset), "little")


def set_header_word(bus: EventBus, offset: int, value: int, size: int = 4) -> None:
    with open(bus.path, "r+b") as file:
        os.pwrite(file.fileno(), value.to_bytes(size, "little"), 4096 + offset)
