"""Tables with REPLICA IDENTITY NOTHING: INSERTs have no row id, and other changes are refused or not published."""

from __future__ import annotations

import psycopg2.errors
import pytest

from nodedb_ring.errors import CaptureError

from .captured import Captured, captured, maps, new_slot
from .server import Database


def test_a_table_that_gets_it_while_it_is_captured(database: Database) -> None:
    with captured(database, "t(id int PRIMARY KEY, a text)") as core:
        database.execute("INSERT INTO t VALUES (1, 'a'); UPDATE t SET a = 'b'")
        database.execute("ALTER TABLE t REPLICA IDENTITY NOTHING")
        database.execute("INSERT INTO t VALUES (2, 'c')")
        for refused in ("UPDATE t SET a = 'd'", "DELETE FROM t"):
            with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState, match="does not have a replica identity"):
                database.execute(refused)
        with pytest.raises(CaptureError, match=r"table public\.t: has no replica identity.*REPLICA IDENTITY FULL"):
            core.capture().start()
        database.execute("ALTER TABLE t REPLICA IDENTITY DEFAULT")
        database.execute("INSERT INTO t VALUES (3, 'e'); UPDATE t SET a = 'f' WHERE id = 2; DELETE FROM t WHERE id = 3")
        database.execute("ALTER TABLE t REPLICA IDENTITY NOTHING; TRUNCATE t")
        assert maps(core.drain(7)) == [
            ("INSERT", "1", None, {"id": 1, "a": "a"}),
            ("UPDATE", "1", None, {"id": 1, "a": "b"}),
            ("INSERT", "", None, {"id": 2, "a": "c"}),
            ("INSERT", "3", None, {"id": 3, "a": "e"}),
            ("UPDATE", "2", None, {"id": 2, "a": "f"}),
            ("DELETE", "3", {"id": 3}, None),
            ("BULK_DELETE", "", None, None),
        ]


@pytest.mark.parametrize("snapshot", [False, True])
def test_in_a_publication_of_inserts_only(database: Database, snapshot: bool) -> None:
    database.execute(
        "CREATE TABLE t(id int PRIMARY KEY, a text)",
        "ALTER TABLE t REPLICA IDENTITY NOTHING",
        "CREATE PUBLICATION p FOR TABLE t WITH (publish = 'insert')",
    )
    core = Captured(database, new_slot())
    capture = core.capture(snapshot=snapshot)
    if snapshot:
        database.execute("INSERT INTO t VALUES (0, 'there')")
    else:
        capture.ensure_slot()
    with capture:
        if snapshot:
            assert maps(core.drain(1)) == [("INSERT", "", None, {"id": 0, "a": "there"})]
        database.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
        # None of these is published, and the server lets them happen.
        database.execute("UPDATE t SET a = 'c'; UPDATE t SET id = id + 10; DELETE FROM t WHERE id = 11; TRUNCATE t")
        database.execute("INSERT INTO t VALUES (1, 'd')")
        batch = core.drain(3)
        assert maps(batch) == [
            ("INSERT", "", None, {"id": 1, "a": "a"}),
            ("INSERT", "", None, {"id": 2, "a": "b"}),
            ("INSERT", "", None, {"id": 1, "a": "d"}),
        ]
        assert batch.strings("collection").tolist() == ["public.t"] * 3
