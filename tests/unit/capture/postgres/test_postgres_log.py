"""With a log: each change is in it once, whatever ends the capture in between."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from nodedb_ring import EventBatch, create_event_bus, follow
from nodedb_ring.capture.postgres import PostgresCapture
from nodedb_ring.errors import CaptureError, LogUnavailableError
from nodedb_ring.log.sqlite import SqliteEventLog

from .captured import Captured, Replica, maps, new_slot, until
from .server import Database


class Interrupted(Exception):
    """What a log of the test's raises in place of the end of a process."""


class HookedLog:
    """A log that calls the test before and after each append."""

    def __init__(self, log: SqliteEventLog) -> None:
        self.log = log
        self.before: Callable[[EventBatch], None] = lambda _: None
        self.after: Callable[[EventBatch], None] = lambda _: None
        self.appends = 0

    def append(self, core_id: int, batch: EventBatch) -> None:
        self.before(batch)
        self.log.append(core_id, batch)
        self.appends += 1
        self.after(batch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)

    def read(self, core_id: int, first_sequence: int, last_sequence: int) -> Iterator[EventBatch]:
        return self.log.read(core_id, first_sequence, last_sequence)


class Logged:
    """A database with one table, a log, and a new ring for each capture."""

    def __init__(self, database: Database, directory: Path) -> None:
        database.execute("CREATE TABLE t(id int PRIMARY KEY, a text)", "CREATE PUBLICATION p FOR TABLE t")
        self.database = database
        self.log = SqliteEventLog(directory / "log.db")
        self.hooked = HookedLog(self.log)
        self.slot = new_slot()
        self.core = Captured(database, self.slot)

    def capture(self, **settings: Any) -> PostgresCapture:
        """As of a new process: with a ring of its own, whose consumer drains what comes."""
        self.core = Captured(self.database, self.slot, capacity=65536)
        return self.core.capture(log=self.hooked, **settings)

    def has(self, count: int) -> bool:
        return (self.log.last_sequence(0) or 0) >= count

    def mark(self) -> int:
        return self.log.load_watermark(f"capture {self.slot}", 0) or 0

    def replica(self) -> dict[str, dict[str, Any]]:
        made = Replica()
        made.apply(self.log.read(0, 1, 2**62))
        return made.tables.get("public.t", {})

    def table(self) -> dict[str, dict[str, Any]]:
        return {str(i): {"id": i, "a": a} for i, a in self.database.execute("SELECT id, a FROM t")}


@pytest.fixture
def logged(database: Database, tmp_path: Path) -> Iterator[Logged]:
    made = Logged(database, tmp_path)
    made.capture().ensure_slot()
    yield made
    made.log.close()


def insert(first: int, last: int) -> str:
    return f"INSERT INTO t SELECT i, 'a' || i FROM generate_series({first}, {last}) i"


def test_the_log_has_the_events_before_the_ring_does(logged: Logged) -> None:
    seen: list[int] = []
    with logged.capture():
        logged.hooked.after = lambda _: seen.append(logged.core.producer.stats().emitted)
        logged.database.execute(insert(1, 3))
        batch = logged.core.drain(3)
    assert seen == [0]
    [stored] = logged.log.read(0, 1, 10)
    assert maps(stored) == maps(batch)
    assert stored.lsn.tolist() == batch.lsn.tolist()


def run_until_interrupted(capture: PostgresCapture) -> None:
    with pytest.raises(Interrupted):
        capture.run()


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("part", [1, 2, 3])
def test_a_transaction_that_was_logged_in_part_is_completed(logged: Logged, part: int, stored: bool) -> None:
    def interrupt(_: EventBatch) -> None:
        if logged.hooked.appends == part - (not stored):
            raise Interrupted

    logged.database.execute(insert(1, 20_000))
    if stored:
        logged.hooked.after = interrupt
    else:
        logged.hooked.before = interrupt
    run_until_interrupted(logged.capture())
    assert (logged.log.last_sequence(0) or 0) < 20_000 or (part, stored) == (3, True)
    logged.hooked.before = logged.hooked.after = lambda _: None
    with logged.capture():
        logged.database.execute("UPDATE t SET a = 'b' WHERE id = 1")
        until(lambda: logged.has(20_001))
    assert logged.log.last_sequence(0) == 20_001
    assert logged.replica() == logged.table()


def test_a_commit_between_an_append_and_its_confirmation_is_not_repeated(logged: Logged) -> None:
    def interrupt(_: EventBatch) -> None:
        raise Interrupted

    for i in range(1, 6):
        logged.hooked.after = interrupt
        logged.database.execute(insert(3 * i, 3 * i + 2))
        run_until_interrupted(logged.capture())
        assert logged.log.last_sequence(0) == 3 * i
    logged.hooked.after = lambda _: None
    with logged.capture():
        logged.database.execute(insert(100, 100))
        until(lambda: logged.has(16))
    assert logged.replica() == logged.table()


def test_a_trimmed_log_goes_on_where_it_ended(logged: Logged) -> None:
    def interrupt(batch: EventBatch) -> None:
        raise Interrupted

    with logged.capture():
        logged.database.execute(*(insert(i, i) for i in range(1, 10)))
        until(lambda: logged.has(9))
        # The watermark of the capture itself follows once a second, with what is captured then.
        until(lambda: bool(logged.database.execute(insert_next())) and logged.mark() > 1)
        until(lambda: logged.database.execute("SELECT count(*) FROM t") == [(logged.log.last_sequence(0),)])
    reader = logged.log
    last = reader.last_sequence(0) or 0
    reader.save_watermark("reader", 0, last)
    trimmed = reader.trim_committed()
    assert 0 < trimmed[0] < last
    logged.hooked.after = interrupt
    logged.database.execute(insert(1001, 1001))
    run_until_interrupted(logged.capture())
    logged.hooked.after = lambda _: None
    with logged.capture():
        logged.database.execute(insert(1002, 1002))
        until(lambda: logged.has(last + 2))
    [batch] = [EventBatch.concat(list(reader.read(0, last + 1, last + 10)))]
    assert batch.strings("row_id").tolist() == ["1001", "1002"]


def insert_next() -> str:
    return "INSERT INTO t SELECT coalesce(max(id), 0) + 1, 'next' FROM t RETURNING id"


def test_a_log_without_its_last_commit_is_refused(logged: Logged) -> None:
    with logged.capture():
        logged.database.execute(insert(1, 3))
        until(lambda: logged.has(3))
    logged.log.trim(0, 3)
    with pytest.raises(CaptureError, match=r"the commit of event 3 of core 0 was trimmed.*trim_committed\(\)"):
        logged.capture().start()


def test_a_log_that_is_ahead_of_the_server_is_refused(logged: Logged) -> None:
    logged.log.append(0, EventBatch.from_columns(sequence=[1], collection="x", op=1, row_id="1", lsn=2**60))
    with pytest.raises(CaptureError, match="the server is another one, or an older copy"):
        logged.capture().run()


def test_a_log_that_cannot_be_reached_is_waited_for(logged: Logged) -> None:
    failures = iter([True, True, False])

    def fail(_: EventBatch) -> None:
        if next(failures, False):
            raise LogUnavailableError("no server")

    logged.hooked.before = fail
    with logged.capture():
        logged.database.execute(insert(1, 3))
        until(lambda: logged.has(3))
        assert maps(logged.core.drain(3)) == maps(EventBatch.concat(list(logged.log.read(0, 1, 3))))


def test_a_log_that_does_not_take_the_watermark_is_asked_again(logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [LogUnavailableError("no server")] * 2

    def load_watermark(group: str, core_id: int) -> int | None:
        if failures:
            raise failures.pop()
        return logged.log.load_watermark(group, core_id)

    monkeypatch.setattr(logged.hooked, "load_watermark", load_watermark, raising=False)
    with logged.capture():
        # It follows once a second, with what is captured then.
        until(lambda: bool(logged.database.execute(insert_next())) and logged.mark() > 0)
        until(lambda: logged.replica() == logged.table())
    assert not failures


def test_a_follower_gets_what_the_ring_has_not(logged: Logged) -> None:
    def interrupt(_: EventBatch) -> None:
        raise Interrupted

    logged.hooked.after = interrupt
    logged.database.execute(insert(1, 3))
    run_until_interrupted(logged.capture())
    logged.hooked.after = lambda _: None
    with logged.capture():
        logged.database.execute(insert(4, 6))
        follower = follow(logged.core.consumer, logged.log, group="g", start="earliest", max_events=6, linger=5.0)
        batch = next(iter(follower))
        assert batch.strings("row_id").tolist() == ["1", "2", "3", "4", "5", "6"]


def test_without_a_consumer_the_log_goes_on(logged: Logged) -> None:
    with logged.capture():
        logged.core.consumer.close()
        logged.database.execute(insert(1, 3))
        until(lambda: logged.has(3))
        logged.database.execute(insert(4, 6))
        until(lambda: logged.has(6))
    assert logged.replica() == logged.table()


def test_stopping_while_the_ring_is_full_confirms_what_the_log_has(logged: Logged) -> None:
    capture = Captured(logged.database, logged.slot, capacity=4).capture(log=logged.log)
    capture.start()
    logged.database.execute(insert(1, 100))
    until(lambda: logged.has(100))
    capture.close()
    with logged.capture():
        logged.database.execute(insert(101, 101))
        until(lambda: logged.has(101))
    assert logged.replica() == logged.table()


@pytest.fixture
def impatient(database: Database) -> Database:
    """A database whose server hears from its receivers within ten seconds, or lets them go."""
    database.dsn += " options='-c wal_sender_timeout=10000'"
    return database


def until_answered(database: Database, slot: str, times: int) -> None:
    """Until the server has heard so often from whoever receives from the slot."""
    query = (
        "SELECT reply_time FROM pg_stat_replication AS r JOIN pg_replication_slots AS s ON s.active_pid = r.pid"
        f" WHERE slot_name = '{slot}'"
    )
    for _ in range(times):
        before = database.execute(query)
        until(lambda before=before: database.execute(query) != before)  # type: ignore[misc]


@contextlib.contextmanager
def busy_threads(count: int) -> Generator[None, None, None]:
    """Threads that never wait for anything."""
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            pass

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("busy", [0, 4])
def test_a_full_ring_keeps_the_connection(impatient: Database, busy: int) -> None:
    impatient.execute("CREATE TABLE t(id int PRIMARY KEY, a text)", "CREATE PUBLICATION p FOR TABLE t")
    core = Captured(impatient, new_slot(), capacity=64)
    capture = core.capture()
    capture.ensure_slot()
    with capture:
        with busy_threads(busy):
            # More than the socket holds, so that the server waits, too.
            impatient.execute("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i")
            until(lambda: core.producer.utilization > 90)
            until_answered(impatient, core.slot, 4)
            assert core.consumer.stats().received == 0
            assert capture.stats().reconnects == 0
            assert capture.stats().lag_seconds > 4.0
            assert (capture.stats().lag_bytes or 0) > 1_000_000
        batch = core.drain(20_000)
        assert batch.strings("row_id").tolist() == [str(i) for i in range(1, 20_001)]
        assert capture.stats().reconnects == 0


def test_a_slow_log_keeps_the_connection(impatient: Database, tmp_path: Path) -> None:
    logged = Logged(impatient, tmp_path)
    logged.hooked.before = lambda _: until_answered(impatient, logged.slot, 4)
    capture = logged.capture()
    capture.ensure_slot()
    # It is the log alone that is waited for.
    logged.core.consumer.close()
    with capture:
        impatient.execute(insert(1, 3))
        # More than outbox and socket hold, so that the server waits, too.
        impatient.execute("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(4, 60000) i")
        until(lambda: logged.hooked.appends >= 1)
        assert not logged.has(60_000)
        assert capture.stats().reconnects == 0
        logged.hooked.before = lambda _: None
        until(lambda: logged.has(60_000))
        assert capture.stats().reconnects == 0
    assert logged.replica() == logged.table()
    logged.log.close()


def test_bus_with_another_core(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE t(id int PRIMARY KEY)", "CREATE PUBLICATION p FOR TABLE t")
    producers, consumers = create_event_bus(2)
    with SqliteEventLog(tmp_path / "log.db") as log:
        slot = new_slot()
        capture = PostgresCapture(
            database.dsn, producers[1], publication="p", slot=slot, log=log, tenant_id=7, vshard_id=8
        )
        capture.ensure_slot()
        with capture:
            database.execute("INSERT INTO t VALUES (1)")
            [event] = consumers[1].drain(1, timeout=10.0)
        assert (event.tenant_id, event.vshard_id) == (7, 8)
        assert (log.last_sequence(0), log.last_sequence(1)) == (None, 1)
