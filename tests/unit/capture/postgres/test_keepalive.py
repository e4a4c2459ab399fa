"""The thread that answers the server, on a stream of the test's."""

from __future__ import annotations

import threading
from typing import cast

import psycopg2
import psycopg2.extensions
import pytest

from nodedb_ring.capture.postgres import keepalive
from nodedb_ring.capture.postgres.keepalive import Keepalive
from nodedb_ring.capture.postgres.stream import Stream


class Answered:
    """A stream that counts answers, and may have lost its connection."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.answers = 0

    def keep_alive(self) -> None:
        self.answers += 1
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [None, psycopg2.OperationalError("lost")])
def test_the_server_hears_from_the_stream_that_is_attended(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    """Also when the lag cannot be asked for, and when a stream has been lost."""
    asked = threading.Semaphore(0)

    def unreachable(dsn: str) -> psycopg2.extensions.connection:
        asked.release()
        raise psycopg2.OperationalError("nobody listens")

    def rounds() -> None:
        """Two whole ones from now on: it answers, and then asks for the lag."""
        while asked.acquire(blocking=False):
            pass  # of rounds that were before
        for _ in range(3):
            while not asked.acquire(timeout=0.1):
                assert "nodedb_ring-keepalive" in {thread.name for thread in threading.enumerate()}

    monkeypatch.setattr(keepalive, "open_sql", unreachable)
    first, second = Answered(error), Answered(error)
    with Keepalive("", "s", 3) as thread:
        thread.attend(cast("Stream", first))
        rounds()
        thread.attend(None)
        answers = first.answers
        rounds()
        thread.attend(cast("Stream", second))
        rounds()
    assert first.answers == answers >= 2
    assert second.answers >= 2
    assert thread.lag_bytes is None
