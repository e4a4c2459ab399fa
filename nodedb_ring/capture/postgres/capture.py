"""``PostgresCapture``: the committed changes of a publication as write events of one core."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Generator
from types import TracebackType
from typing import NamedTuple, Self, final

import psycopg2
import psycopg2.extensions

from ...batch.rows.schema import RowSchema
from ...batch.schema import NO_TIME
from ...ends._producer import EventProducer
from ...ends.limits import limit_seconds
from ...ends.logger import log_safely
from ...errors import CaptureError, ClosedError
from ...log import EventLog
from ._pgoutput import Decoder
from .connection import open_sql, refused, shown_dsn, shown_lsn
from .delivery import Delivery, Stopped
from .keepalive import Keepalive
from .outbox import Outbox
from .position import Position, find_position
from .receiver import Receiver
from .slot import check_publication, check_server, create_slot, drop_slot, find_slot
from .source import Source
from .stats import PostgresStats
from .tables import row_schema
from .wake import Wake

__all__ = ["PostgresCapture"]


class _Run(NamedTuple):
    """What captures, once it has begun."""

    decoder: Decoder
    keepalive: Keepalive
    outbox: Outbox
    receiver: Receiver
    needs_snapshot: bool
    must_clear: bool


@final
class PostgresCapture:
    """Captures the tables of a publication of a PostgreSQL database, through a replication slot.

    Nothing is made in the database unless it is asked for: `snapshot`, or ``ensure_slot()``. The server never waits for
    a capture; it keeps its log for the slot, which is watched in ``stats().lag_bytes``.

    Parameters
    ----------
    dsn : str
        A URL or string of libpq. The user needs the right to replicate, and for a snapshot to read the tables.
    producer : EventProducer
        Of the ring that takes the events. It belongs to a thread of the capture from here on.
    publication : str
    slot : str
        One capture at a time receives from it.
    log : EventLog, optional
        Gets the events before the ring does. What it has is confirmed to the server, and each change is in it once,
        whatever is killed. Nobody else may append to the producer's core.
    snapshot : bool
        If there is no slot of that name: begin with the rows that the tables have, as INSERT events, and make the slot
        once they are delivered.
    tenant_id, vshard_id : int
        Of all events.
    slot_timeout : float, optional
        Seconds for which a slot in use is waited for: the server may notice late that another connection has gone. None
        waits without a limit.

    Raises
    ------
    ArgumentError
        `slot_timeout` is negative, or NaN.
    CaptureError
        From ``start`` and ``run``: the server, the publication or the slot is not as it must be.

    Thread safety
    -------------
    ``stats()``, ``stop()`` and ``close()`` may be called from any thread.
    """

    def __init__(
        self,
        dsn: str,
        producer: EventProducer,
        *,
        publication: str,
        slot: str,
        log: EventLog | None = None,
        snapshot: bool = False,
        tenant_id: int = 0,
        vshard_id: int = 0,
        slot_timeout: float | None = 10.0,
    ) -> None:
        if not isinstance(producer, EventProducer):
            raise TypeError(
                f"producer {producer!r}: must be an EventProducer, not {type(producer).__qualname__}; with a log, pass"
                " the producer itself, and log="
            )
        self._source = Source(dsn, publication, slot)
        self._producer, self._log = producer, log
        self._core_id = producer.core_id
        self._wants_snapshot = snapshot
        self._tenant_id, self._vshard_id = tenant_id, vshard_id
        self._slot_timeout = limit_seconds(slot_timeout, "slot_timeout")
        self._stopping = threading.Event()
        self._wake = Wake()
        self._delivery = Delivery(producer, log, self._stopping)
        self._current: _Run | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    # ---- the server's side --------------------------------------------------------------------------------------

    def ensure_slot(self) -> bool:
        """Makes the slot at the server's present position; returns False if it exists.

        Raises
        ------
        CaptureError
            It cannot be made, or is another's. The publication must exist already.
        """
        with self._sql() as cursor:
            check_server(cursor)
            check_publication(cursor, self._source.publication)
            if find_slot(cursor, self._source.slot) is not None:
                return False
            create_slot(cursor, self._source.slot)
            return True

    def drop_slot(self) -> bool:
        """Drops the slot, so that the server keeps no log for it any more; returns False if there is none.

        Raises
        ------
        CaptureError
            It is still in use after `slot_timeout` seconds.
        """
        with self._sql() as cursor:
            if find_slot(cursor, self._source.slot) is None:
                return False
            drop_slot(cursor, self._source.slot, self._slot_timeout)
            return True

    def schema(self, table: str) -> RowSchema:
        """The columns of a table, named as its events name it or as SQL does, for ``batch.rows``.

        Raises
        ------
        CaptureError
            There is no such table.
        """
        with self._sql() as cursor:
            return row_schema(cursor, table)

    @contextlib.contextmanager
    def _sql(self) -> Generator[psycopg2.extensions.cursor, None, None]:
        try:
            connection = open_sql(self._source.dsn)
        except psycopg2.Error as error:
            raise refused(f"{shown_dsn(self._source.dsn)} cannot be reached", error) from error
        try:
            with connection.cursor() as cursor:
                yield cursor
        except psycopg2.Error as error:
            raise refused(shown_dsn(self._source.dsn), error) from error
        finally:
            connection.close()

    # ---- running ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Checks the server, and captures in a thread of its own until ``close()``.

        Raises
        ------
        CaptureError
            As for the class.
        ClosedError
            It has run already.
        """
        run = self._begin()
        self._thread = threading.Thread(
            target=self._run_in_thread, args=(run,), name="nodedb_ring-capture", daemon=True
        )
        self._thread.start()

    def run(self) -> None:
        """Captures in this thread, until another or a signal handler calls ``stop()``.

        Raises
        ------
        CaptureError
            As for the class, and for what cannot be captured.
        """
        self._run(self._begin())

    def stop(self) -> None:
        """Has ``run()`` return soon. May be repeated, and called from a signal handler."""
        self._stopping.set()
        self._wake.set()

    def close(self) -> None:
        """Stops, and waits for the capture's thread. The producer stays open. Idempotent.

        Raises
        ------
        CaptureError
            What ended the capture before, once.
        """
        self.stop()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    @property
    def core_id(self) -> int:
        """The core whose ring takes the events."""
        return self._core_id

    @property
    def slot(self) -> str:
        """The name of the replication slot."""
        return self._source.slot

    @property
    def error(self) -> BaseException | None:
        """What has ended the capture's thread; None while it runs, and after ``close()``."""
        return self._error

    def stats(self) -> PostgresStats:
        """What it has done so far."""
        run = self._current
        if run is None:
            return PostgresStats(
                received=0, emitted=0, position=0, lag_bytes=None, lag_seconds=0.0, connected=False, reconnects=0
            )
        oldest = run.outbox.oldest
        since_ms = int(oldest.batch.system_time_ms[0]) if oldest is not None else run.decoder.time_ms
        is_behind = (oldest is not None or run.decoder.pending) and since_ms != NO_TIME
        return PostgresStats(
            received=run.decoder.received,
            emitted=self._delivery.emitted,
            position=run.receiver.confirmed,
            lag_bytes=run.keepalive.lag_bytes,
            lag_seconds=max(0.0, time.time() - since_ms / 1000) if is_behind else 0.0,
            connected=run.receiver.is_connected,
            reconnects=run.receiver.reconnects,
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        # The first exception is the one to see.
        with contextlib.suppress(Exception):
            self.close()

    def __repr__(self) -> str:
        source = self._source
        return (
            f"<PostgresCapture {shown_dsn(source.dsn)} publication={source.publication!r} slot={source.slot!r}"
            f" at {shown_lsn(self.stats().position)}>"
        )

    def _begin(self) -> _Run:
        if self._current is not None:
            raise ClosedError(f"{self!r}: has run already; make another")
        source = self._source
        with self._sql() as cursor:
            check_server(cursor)
            check_publication(cursor, source.publication)
            found = find_slot(cursor, source.slot)
            if found is None and not self._wants_snapshot:
                raise CaptureError(
                    f"slot {source.slot!r}: does not exist; call ensure_slot() for the changes from now on, or pass"
                    " snapshot=True for the rows that are there, too"
                )
            cursor.execute("SELECT setting::int FROM pg_settings WHERE name = 'wal_sender_timeout'")
            [(timeout_ms,)] = cursor.fetchall()
        log, core_id = self._log, self._core_id
        next_sequence, position = self._producer.next_sequence, Position(0, 0)
        if log is not None:
            position = find_position(log, core_id, source.slot)
            next_sequence = max(next_sequence, (log.last_sequence(core_id) or 0) + 1)
        decoder = Decoder(next_sequence, tenant_id=self._tenant_id, vshard_id=self._vshard_id)
        keepalive = Keepalive(source.dsn, source.slot, int(timeout_ms))
        outbox = Outbox(self._delivery, self._stopping)
        receiver = Receiver(
            *(source, decoder, outbox, keepalive),
            log=log,
            core_id=core_id,
            position=position,
            stopping=self._stopping,
            wake=self._wake,
        )
        # Rows that a broken-off snapshot, or a slot that was dropped, has left with whoever reads the events.
        must_clear = next_sequence > 1
        self._current = _Run(decoder, keepalive, outbox, receiver, found is None, must_clear)
        return self._current

    def _run_in_thread(self, run: _Run) -> None:
        try:
            self._run(run)
        except BaseException as error:
            self._error = error
            log_safely(logging.ERROR, "core %d: the capture has ended: %s", self._core_id, error)

    def _run(self, run: _Run) -> None:
        with contextlib.suppress(Stopped), run.keepalive, run.outbox:
            run.receiver.run(slot_timeout=self._slot_timeout, snapshot=run.needs_snapshot, clear=run.must_clear)
        # An error that came while it was stopped.
        run.outbox.check()
