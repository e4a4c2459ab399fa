"""The log on JetStream, interrupted at every bytecode, and called by signal handlers and the connection's callbacks."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from nodedb_ring import EventBatch, WriteOp, follow
from nodedb_ring.errors import BusyError, ClosedError, LogConflictError, LogUnavailableError, RingError
from nodedb_ring.log import EventLog
from nodedb_ring.log.producer import logged
from tests.unit.builders import ring
from tests.unit.log.interrupting import Interrupts, handled, interrupted_at_each
from tests.unit.log.nats_server import NatsServer
from tests.unit.runners import Running, until_asleep

if os.environ.get("CI") != "true":
    pytest.importorskip("nats")

from nodedb_ring.log.jetstream import JetStreamEventLog

names = (f"interrupted{number}" for number in itertools.count())

# Slow: each call runs once for each of its bytecodes.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("program")]


@pytest.fixture(scope="module")
def server(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One for the tests that do it no harm."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as running:
        yield running


@pytest.fixture
def log(server: NatsServer) -> Iterator[JetStreamEventLog]:
    with JetStreamEventLog(server.url, next(names), storage="memory", timeout=10) as opened:
        yield opened


def batch_of(first: int, count: int = 1) -> EventBatch:
    return EventBatch.from_columns(
        sequence=range(first, first + count), collection="t", op=WriteOp.INSERT, row_id="r", lsn=1
    )


def following(log: EventLog, core_id: int = 0) -> int:
    last = log.last_sequence(core_id)
    return 1 if last is None else last + 1


def append_next(log: EventLog, core_id: int = 0) -> None:
    log.append(core_id, batch_of(following(log, core_id)))


def numbers(log: EventLog, core_id: int = 0) -> list[int]:
    return [int(number) for batch in log.read(core_id, 0, 2**64 - 1) for number in batch.sequence]


# ---- exceptions of signal handlers


def test_an_interrupted_append_is_complete_or_absent_and_the_next_works(
    log: JetStreamEventLog, interrupts: Interrupts
) -> None:
    before = 0

    def begin() -> Callable[[], None]:
        nonlocal before
        before = following(log)
        batches = [batch_of(before, 2), batch_of(before + 2, 2)]
        return lambda: log.append_all(0, batches)

    outcomes: set[int] = set()
    count = 0
    for count in interrupted_at_each(interrupts, begin):  # noqa: B007
        # A publish in flight arrives, or not, before the last number is returned.
        append_next(log)
        outcomes.add(following(log) - before - 1)
    assert count > 300
    assert outcomes >= {0, 4}
    assert outcomes <= {0, 2, 4}
    # A publishing task that does not learn that there is no more would stay forever.
    assert len(asyncio.all_tasks(log._connection.thread.loop)) < 20  # pyright: ignore[reportPrivateUsage]
    there = numbers(log)
    assert there == list(range(1, len(there) + 1))


def test_the_last_number_is_returned_after_the_interrupted_batch_has_arrived(own: NatsServer) -> None:
    """The server takes the batch from its socket after the handler raised: an earlier answer would be wrong."""
    with JetStreamEventLog(own.url, "log", timeout=20) as log:
        append_next(log)
        core = log._core(0)  # pyright: ignore[reportPrivateUsage]
        ask = core.stream.last_sequence
        settled: list[bool] = []

        async def watched() -> int | None:
            unconfirmed = core.appender.end.unconfirmed
            settled.extend(message.ack is not None and message.ack.done() for message in unconfirmed)
            return await ask()

        core.stream.last_sequence = watched  # type: ignore[method-assign]
        log._connection.ack_timeout = 30.0  # pyright: ignore[reportPrivateUsage]
        own.pause()
        main = threading.main_thread()

        def interrupt() -> None:
            while not log._connection.acks.pending:  # pyright: ignore[reportPrivateUsage]
                threading.Event().wait(0.001)
            until_asleep(main.native_id or 0)
            signal.pthread_kill(main.ident or 0, signal.SIGINT)

        sending = Running(interrupt)
        with pytest.raises(KeyboardInterrupt):
            log.append(0, batch_of(2))
        sending.result()
        asking = Running(lambda: following(log))
        asking.until_asleep()
        own.resume()
        assert asking.result() == 3
        assert settled == [True]
        log.append(0, batch_of(3))
        assert numbers(log) == [1, 2, 3]


@pytest.mark.parametrize("call", ["save_watermark", "last_sequence", "read", "trim"])
def test_all_calls_work_after_an_interrupted_one(log: JetStreamEventLog, interrupts: Interrupts, call: str) -> None:
    for _ in range(4):
        append_next(log)

    def begin() -> Callable[[], object]:
        calls: dict[str, Callable[[], object]] = {
            "save_watermark": lambda: log.save_watermark("g", 0, 3),
            "last_sequence": lambda: log.last_sequence(0),
            "read": lambda: numbers(log),
            "trim": lambda: log.trim(0, 2),
        }
        return calls[call]

    count = 0
    for count in interrupted_at_each(interrupts, begin):
        log.save_watermark("h", 0, count)
        assert log.load_watermark("h", 0) == count
    assert count > 100
    append_next(log)
    assert numbers(log)[-3:] == [3, 4, 5]


def test_an_interrupted_wait_is_forgotten(log: JetStreamEventLog, interrupts: Interrupts) -> None:
    append_next(log)
    for _ in interrupted_at_each(interrupts, lambda: lambda: log.wait_beyond(0, 1, 0.0005)):
        assert not log._core(0).stream.stored.waiting  # pyright: ignore[reportPrivateUsage]


def test_an_interrupted_close_can_be_repeated(server: NatsServer, interrupts: Interrupts) -> None:
    name = next(names)
    log = JetStreamEventLog(server.url, name, timeout=10)
    log.close()

    def begin() -> Callable[[], None]:
        nonlocal log
        log = JetStreamEventLog(server.url, name, timeout=10)
        return log.close

    for _ in interrupted_at_each(interrupts, begin):
        log.close()
        assert not [thread for thread in threading.enumerate() if name in thread.name]
    log.close()


def test_an_interrupted_emit_does_not_conflict_with_the_next(log: JetStreamEventLog, interrupts: Interrupts) -> None:
    producer, _consumer = ring(4096)
    both = logged(producer, log)

    def begin() -> Callable[[], object]:
        batch = batch_of(both.next_sequence)
        return lambda: both.emit_batch(batch)

    for _ in interrupted_at_each(interrupts, begin):
        both.emit_batch(batch_of(both.next_sequence))
    there = numbers(log)
    assert there == list(range(1, len(there) + 1))


# ---- calls of signal handlers


def test_a_handler_may_call_the_log_in_the_midst_of_an_append(log: JetStreamEventLog, interrupts: Interrupts) -> None:
    """All but append to the same core, which is refused."""
    append_next(log, 1)
    with follow(None, log, core_id=1, group="g") as follower:
        refused: list[BusyError | None] = []

        def work() -> None:
            append_next(log, 1)
            follower.next_batch(10)
            follower.commit()
            assert log.load_watermark("g", 1) == follower.position
            assert following(log, 1) - 1 in numbers(log, 1)
            log.trim(1, following(log, 1) - 3)
            try:
                append_next(log)
            except BusyError as error:
                refused.append(error)
            else:
                refused.append(None)

        at, came, conflicts = 0, True, 0
        with handled(work) as done:
            while came:
                batch = batch_of(following(log))
                try:
                    came = interrupts.call_interrupted(lambda: log.append(0, batch), at, signal.SIGTERM)  # noqa: B023
                except LogConflictError:
                    conflicts += 1
                at += 1
    assert done == [None] * len(done)
    assert at > 300
    assert {type(error) for error in refused} == {BusyError, type(None)}
    assert f"log {log.stream}: an append to core 0 is in progress, which this call" in str(next(filter(None, refused)))
    assert conflicts < len(refused) / 2
    there = numbers(log)
    assert there == list(range(1, len(there) + 1))


@pytest.mark.parametrize("call", ["last_sequence", "wait_beyond", "save_watermark"])
def test_a_handler_may_append_in_the_midst_of_another_call(
    log: JetStreamEventLog, interrupts: Interrupts, call: str
) -> None:
    append_next(log)
    calls: dict[str, Callable[[], object]] = {
        "last_sequence": lambda: log.last_sequence(0),
        "wait_beyond": lambda: log.wait_beyond(0, 10**6, 0.0005),
        "save_watermark": lambda: log.save_watermark("g", 0, 3),
    }
    at, came = 0, True
    with handled(lambda: append_next(log)) as done:
        while came:
            came = interrupts.call_interrupted(calls[call], at, signal.SIGTERM)
            at += 1
    assert done == [None] * (at - 1)
    assert following(log) == at + 1


@pytest.mark.parametrize("call", ["append", "wait_beyond", "close"])
def test_a_handler_may_close_the_log_that_it_interrupts(server: NatsServer, interrupts: Interrupts, call: str) -> None:
    name = next(names)
    log = JetStreamEventLog(server.url, name, storage="memory", timeout=10)

    def close() -> None:
        log.close()

    calls: dict[str, Callable[[], object]] = {
        "append": lambda: append_next(log),
        "wait_beyond": lambda: log.wait_beyond(0, 10**6, 0.0005),
        "close": close,
    }
    refusals: list[str] = []
    at, came = 0, True
    with handled(close) as done:
        while came:
            log.close()
            log = JetStreamEventLog(server.url, name, storage="memory", timeout=10)
            try:
                came = interrupts.call_interrupted(calls[call], at, signal.SIGTERM)
            except ClosedError as error:
                refusals.append(str(error))
            at += 3
    log.close()
    assert done == [None] * len(done)
    assert bool(refusals) == (call != "close")
    assert all(name in refusal for refusal in refusals)
    assert not [thread for thread in threading.enumerate() if name in thread.name]


def test_a_call_that_meets_the_closed_connection_says_that_the_log_is_closed(log: JetStreamEventLog) -> None:
    """Before it is cancelled: the server is there."""
    connection = log._connection  # pyright: ignore[reportPrivateUsage]

    async def asked_while_closing() -> int | None:
        await connection.client.close()
        connection.is_closed = True
        return await log._core(0).stream.last_sequence()  # pyright: ignore[reportPrivateUsage]

    with pytest.raises(ClosedError, match=f"log {log.stream}: was closed meanwhile; nothing was asked"):
        connection.call("nothing was asked", asked_while_closing)


def test_a_batch_whose_making_appends_is_refused(log: JetStreamEventLog) -> None:
    """It waits for itself: no signal is needed for that."""

    def batches() -> Iterator[EventBatch]:
        yield batch_of(1)
        log.append(0, batch_of(2))

    with pytest.raises(BusyError, match="an append to core 0 is in progress"):
        log.append_all(0, batches())
    assert numbers(log) == [1]
    log.append(0, batch_of(2))


# ---- callbacks of the connection's


def test_a_users_callbacks_are_called_beside_the_logs_own(own: NatsServer) -> None:
    """The log hears of a lost connection all the same: what is in flight is not waited for, and notes are made up."""
    reported: list[str] = []
    back = threading.Event()

    async def disconnected() -> None:
        reported.append("disconnected")
        raise ValueError("of the user's")

    async def reconnected() -> None:
        reported.append("reconnected")
        back.set()

    async def failed(error: Exception) -> None:
        reported.append("error")

    async def closed() -> None:
        reported.append("closed")

    log = JetStreamEventLog(
        own.url,
        "log",
        timeout=20,
        disconnected_cb=disconnected,
        reconnected_cb=reconnected,
        error_cb=failed,
        closed_cb=closed,
    )
    with log:
        append_next(log)
        assert not log.wait_beyond(0, 1, 0)
        own.pause()
        # In flight when the connection goes: its acknowledgement is lost with that, and not by a time-out.
        appending = Running(lambda: log.append(0, batch_of(2)))
        while not log._connection.acks.pending:  # pyright: ignore[reportPrivateUsage]
            threading.Event().wait(0.001)
        own.kill()
        own.start()
        appending.result()
        assert back.wait(30)
        assert numbers(log) == [1, 2]
        assert log._connection.disconnected_since is None  # pyright: ignore[reportPrivateUsage]
        assert log._connection.last_error is None  # pyright: ignore[reportPrivateUsage]
    assert {"disconnected", "error", "reconnected"} <= set(reported)
    assert reported[-1] == "closed"


def wait_for_ever(log: JetStreamEventLog) -> None:
    """Until it raises."""
    while True:
        log.wait_beyond(0, 0, 0.05)


def test_the_log_notices_a_lost_connection_with_any_callbacks(own: NatsServer) -> None:
    async def nothing(*_: object) -> None:
        return None

    with JetStreamEventLog(
        own.url, "log", timeout=0.3, disconnected_cb=nothing, error_cb=nothing, reconnected_cb=nothing
    ) as log:
        own.kill()
        with pytest.raises(LogUnavailableError, match=own.url):
            wait_for_ever(log)
        own.start()
        # Not before it knows that it is connected again does it ask.
        while log._connection.disconnected_since is not None:  # pyright: ignore[reportPrivateUsage]
            threading.Event().wait(0.01)
        append_next(log)


def test_an_exception_of_a_users_callback_is_logged(own: NatsServer, caplog: pytest.LogCaptureFixture) -> None:
    async def disconnected() -> None:
        raise ValueError("of the user's")

    with caplog.at_level(logging.ERROR, "nodedb_ring"):
        JetStreamEventLog(own.url, "log", timeout=10, disconnected_cb=disconnected).close()
    assert "a callback of a JetStreamEventLog's connection raised" in caplog.text
    assert "of the user's" in caplog.text


def test_a_callback_may_close_the_log_and_call_nothing_that_waits(own: NatsServer) -> None:
    """It runs on the thread that would have to answer."""
    reported: list[RingError] = []
    logs: list[JetStreamEventLog] = []

    async def disconnected() -> None:
        calls: list[Callable[[], object]] = [
            lambda: logs[0].last_sequence(0),
            lambda: logs[0].append(0, batch_of(1)),
            lambda: logs[0].save_watermark("g", 0, 1),
            lambda: logs[0].wait_beyond(0, 1, 10),
            lambda: list(logs[0].read(0, 0, 1)),
        ]
        for call in calls:
            try:
                call()
            except BusyError as error:
                reported.append(error)
        logs[0].close()

    logs.append(JetStreamEventLog(own.url, "log", timeout=10, disconnected_cb=disconnected))
    own.kill()
    with pytest.raises(ClosedError):
        wait_for_ever(logs[0])
    logs[0].close()
    assert len(reported) >= 5
    assert "hand its work to another thread" in str(reported[0])


def test_a_callback_that_is_not_a_coroutine_function_is_refused(server: NatsServer) -> None:
    with pytest.raises(TypeError, match=r"disconnected_cb <function .*>: must be a coroutine function \(async def\)"):
        JetStreamEventLog(server.url, "x", disconnected_cb=lambda: None)


def test_an_error_says_what_was_not_done(own: NatsServer) -> None:
    with JetStreamEventLog(own.url, "log", timeout=0.2) as log:
        append_next(log)
        own.kill()
        undone: dict[str, Callable[[], object]] = {
            "log log: not all that was appended to core 0 is acknowledged; last_sequence(0) returns": lambda: (
                log.append(0, batch_of(2))
            ),
            "log log: core 0 was not trimmed to 1, or only in part": lambda: log.trim(0, 1),
            "log log: the watermark 3 of group 'g', core 0, was not acknowledged": lambda: log.save_watermark(
                "g", 0, 3
            ),
            "log log: the watermark of group 'g', core 0, was not read": lambda: log.load_watermark("g", 0),
            "log log: the last number of core 0 was not read": lambda: log.last_sequence(0),
            "log log: events 1 to 3 of core 0 were not read, or not all of them": lambda: list(log.read(0, 1, 3)),
            "log x: it was not opened": lambda: JetStreamEventLog(own.url, "x", timeout=0.2),
        }
        for words, call in undone.items():
            with pytest.raises(LogUnavailableError) as raised:
                call()
            assert str(raised.value).startswith(words), words
            assert f"no answer from {own.url} in 0.2 s" in str(raised.value)
