"""``nodedb-ring capture --log nats://``: a log on JetStream, and signals that end the command while others write."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from pathlib import Path

from nodedb_ring import follow
from nodedb_ring.log.jetstream import JetStreamEventLog
from tests.unit.log.nats_server import NatsServer, require_nats_server

from .captured import Replica, new_slot, until
from .server import Database
from .test_postgres_command import SECONDS, opened, running

ROWS = 2000
SIGNALS = (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM)


class Writer(threading.Thread):
    """Inserts, updates and deletes rows until it is told to end, by transactions of very different sizes."""

    def __init__(self, database: Database) -> None:
        super().__init__(daemon=True)
        self._database = database
        self.done = threading.Event()

    def run(self) -> None:
        last = 0
        with self._database.session() as cursor:
            for size in itertools.cycle((1, 3, 700, 1, 20)):
                if self.done.is_set():
                    return
                cursor.execute(
                    f"BEGIN; INSERT INTO t SELECT i, 'a' || i FROM generate_series({last + 1}, {last + size}) i;"
                    f"UPDATE t SET a = 'b' WHERE id = {last + 1}; DELETE FROM t WHERE id = {last - 5}; COMMIT"
                )
                last += size
                # So that the log has the rest in time.
                time.sleep(0.01)


def test_each_change_is_in_the_log_once_and_with_the_follower_too(database: Database, tmp_path: Path) -> None:
    require_nats_server()
    database.execute("CREATE TABLE t(id int PRIMARY KEY, a text)", "CREATE PUBLICATION p FOR TABLE t")
    database.execute("INSERT INTO t SELECT -i, 'there' FROM generate_series(1, 100) i")
    slot = new_slot()
    writer, followed, ended = Writer(database), Replica(), threading.Event()

    with NatsServer(tmp_path / "nats") as nats, JetStreamEventLog(nats.url, "CHANGES", timeout=SECONDS) as log:
        arguments = ["capture", database.dsn, "--publication", "p", "--slot", slot, "--bus", "b", "--capacity", "1024"]
        arguments += ["--directory", str(tmp_path), "--log", f"{nats.url}/CHANGES", "--snapshot"]

        def read() -> None:
            with opened(tmp_path) as bus, bus.consumer(0) as consumer:
                follower = follow(consumer, log, group="g", start="earliest")
                while not ended.is_set():
                    followed.apply([follower.next_batch(0.1)])

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            for number in SIGNALS:
                before = log.last_sequence(0) or 0
                with running(arguments) as process:
                    if not writer.is_alive():
                        until(
                            lambda: (
                                database.execute(f"SELECT FROM pg_replication_slots WHERE slot_name = '{slot}'") != []
                            )
                        )
                        writer.start()
                    until(lambda before=before: (log.last_sequence(0) or 0) > before + ROWS)  # type: ignore[misc]
                    process.send_signal(number)
                    assert process.wait(SECONDS) == (0 if number == signal.SIGTERM else -number)
            writer.done.set()
            writer.join()
            [(end,)] = database.execute("SELECT pg_current_wal_insert_lsn() - '0/0'")
            query = f"SELECT confirmed_flush_lsn - '0/0' >= {end} FROM pg_replication_slots WHERE slot_name = '{slot}'"
            with running(arguments) as process:
                until(lambda: database.execute(query) == [(True,)])
                until(lambda: followed.sequence == log.last_sequence(0))
                process.send_signal(signal.SIGTERM)
                assert process.wait(SECONDS) == 0
        finally:
            writer.done.set()
            ended.set()
            reader.join()
        logged = Replica()
        logged.apply(log.read(0, 1, 2**62))
    rows = {str(key): {"id": key, "a": a} for key, a in database.execute("SELECT id, a FROM t")}
    assert len(rows) > ROWS
    assert logged.tables["public.t"] == rows
    assert followed.tables["public.t"] == rows
    assert logged.sequence == followed.sequence
