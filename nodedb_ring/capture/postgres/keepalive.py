"""``Keepalive``: a thread that answers the server while the capture waits for the ring or the log.

The server ends a connection from which it hears nothing for ``wal_sender_timeout``. The same thread asks how much log
the slot holds back, on a connection of its own.
"""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType
from typing import Final, Self, final

import psycopg2
import psycopg2.extensions

from .connection import open_sql
from .slot import slot_lag
from .stream import Stream

__all__ = ["Keepalive"]

_LAG_SECONDS: Final = 2.0
"""How often it asks for the lag."""


@final
class Keepalive:
    """A thread, and a context manager that begins and ends it.

    Parameters
    ----------
    dsn, slot : str
    timeout_ms : int
        The server's ``wal_sender_timeout``; 0 for none.
    """

    def __init__(self, dsn: str, slot: str, timeout_ms: int) -> None:
        self._dsn, self._slot = dsn, slot
        self._interval = min(_LAG_SECONDS, timeout_ms / 3000) if timeout_ms else _LAG_SECONDS
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nodedb_ring-keepalive", daemon=True)
        self._connection: psycopg2.extensions.connection | None = None
        self.lag_bytes: int | None = None

    def attend(self, stream: Stream | None) -> None:
        """Answers on this stream from here on."""
        with self._lock:
            self._stream = stream

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self._interval):
                with self._lock:
                    if self._stream is not None:
                        # The thread that reads finds out what is wrong with the connection.
                        with contextlib.suppress(psycopg2.Error):
                            self._stream.keep_alive()
                self._ask()
        finally:
            # The slot goes on without the capture, so what was last known says nothing.
            self.lag_bytes = None
            if self._connection is not None:
                self._connection.close()

    def _ask(self) -> None:
        try:
            if self._connection is None:
                self._connection = open_sql(self._dsn)
            with self._connection.cursor() as cursor:
                self.lag_bytes = slot_lag(cursor, self._slot)
        except psycopg2.Error:
            self.lag_bytes = None
            if self._connection is not None:
                self._connection.close()
                self._connection = None
