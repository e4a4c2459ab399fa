"""SqliteCapture with a log: a process that is killed leaves database and log in agreement."""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import apsw
import msgpack
import pytest

from nodedb_ring import EventBus, WriteOp
from nodedb_ring.capture import SqliteCapture
from nodedb_ring.log.sqlite import SqliteEventLog
from tests.unit.capture.captured import drained, open_database

from .logged import FILE_JOURNALS, all_logged, numbers

CHILD = """
    import os, signal, sys
    import apsw
    from nodedb_ring import EventBus
    from nodedb_ring.capture import SqliteCapture
    from nodedb_ring.log.sqlite import SqliteEventLog

    database, bus, directory, emitted = sys.argv[1:]

    class DyingProducer:
        \"\"\"Takes so many events; the next one kills.\"\"\"

        def __init__(self, producer, emitted):
            self.left = emitted
            self.producer = producer
            self.ring = producer.ring
            self.core_id = producer.core_id

        @property
        def next_sequence(self):
            return self.producer.next_sequence

        def emit(self, event):
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
            return self.producer.emit(event)

    connection = apsw.Connection(database)
    producer = DyingProducer(EventBus.open(bus, directory=directory).producer(0), int(emitted))
    capture = SqliteCapture(connection, producer, log=SqliteEventLog(database, driver="apsw"))
    connection.execute("INSERT INTO t VALUES (1, 1)")
    connection.execute("BEGIN; INSERT INTO t VALUES (2, 2); INSERT INTO t VALUES (3, 3); COMMIT")
"""


@pytest.mark.parametrize("emitted", [0, 1, 2])
@pytest.mark.parametrize("journal", FILE_JOURNALS)
def test_a_process_killed_between_commit_and_emit(journal: str, emitted: int, tmp_path: Path) -> None:
    connection = open_database(journal, tmp_path)
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)")
    connection.close()
    path = tmp_path / "core.db"
    with EventBus.create("killed", 1, 16, directory=tmp_path) as bus:
        consumer = bus.consumer(0)
        command = [sys.executable, "-c", textwrap.dedent(CHILD), str(path), "killed", str(tmp_path), str(emitted)]
        died = subprocess.run(command, check=False, timeout=40)
        assert died.returncode == -signal.SIGKILL
        committed = 1 if emitted == 0 else 3  # the first transaction is of one row
        connection = apsw.Connection(str(path))
        log = SqliteEventLog(path, driver="apsw")
        assert [a for (a,) in connection.execute("SELECT a FROM t")] == list(range(1, committed + 1))
        logged = all_logged(log)
        assert [(event.sequence, event.row_id) for event in logged] == [(a, str(a)) for a in range(1, committed + 1)]
        assert drained(consumer) == logged[:emitted]
        # The successor's numbers are not those that only the log has.
        producer = bus.producer(0)
        with SqliteCapture(connection, producer, log=log):
            connection.execute("INSERT INTO t VALUES (10, 10)")
        [event] = drained(consumer)
        assert (event.sequence, event.lsn, event.row_id) == (committed + 1, logged[-1].lsn + 1, "10")
        assert all_logged(log) == [*logged, event]
        producer.close()
        consumer.close()
        connection.close()
        log.close()
        bus.unlink()


WRITER = """
    import random, sys
    import apsw
    from nodedb_ring import create_event_bus
    from nodedb_ring.capture import SqliteCapture
    from nodedb_ring.log.sqlite import SqliteEventLog

    database, seed = sys.argv[1:]
    chance = random.Random(int(seed))
    connection = apsw.Connection(database)
    connection.set_busy_timeout(10_000)
    [producer], [consumer] = create_event_bus(1, capacity=16)
    capture = SqliteCapture(connection, producer, log=SqliteEventLog(database, driver="apsw"))
    committed = False
    while True:
        connection.execute("BEGIN IMMEDIATE")
        for _ in range(chance.randrange(1, 30)):
            a = chance.randrange(1, 100)
            connection.execute("SAVEPOINT s")
            if chance.random() < 0.3:
                connection.execute("DELETE FROM t WHERE a = ?", (a,))
            else:
                connection.execute("INSERT OR REPLACE INTO t VALUES (?, ?)", (a, chance.randrange(1000)))
            connection.execute("ROLLBACK TO s" if chance.random() < 0.2 else "RELEASE s")
        connection.execute("ROLLBACK" if chance.random() < 0.1 else "COMMIT")
        if not committed and capture.emitted:
            committed = True
            print("committed", flush=True)
"""


@pytest.mark.parametrize("journal", FILE_JOURNALS)
def test_a_process_killed_anywhere(journal: str, tmp_path: Path) -> None:
    """Whenever it dies, the log has the rows of the database, from the first to the last, with every number."""
    connection = open_database(journal, tmp_path)
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)")
    connection.close()
    path = tmp_path / "core.db"
    chance = random.Random(journal)
    lengths = [0]
    for life in range(4):
        command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path), str(life)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"committed\n"
            time.sleep(chance.uniform(0.0, 0.2))
            writer.kill()
        connection = apsw.Connection(str(path))
        with SqliteEventLog(path, driver="apsw") as log:
            logged = all_logged(log)
        rows: dict[str, Any] = {}
        for event in logged:
            if event.new_value is None:
                del rows[event.row_id]
            else:
                assert (event.op is WriteOp.INSERT) == (event.row_id not in rows)
                rows[event.row_id] = msgpack.unpackb(event.new_value)["b"]
        assert rows == {str(a): b for a, b in connection.execute("SELECT a, b FROM t")}
        assert numbers(logged) == list(range(1, len(logged) + 1))
        connection.close()
        lengths.append(len(logged))
    assert all(later > earlier for earlier, later in itertools.pairwise(lengths))
