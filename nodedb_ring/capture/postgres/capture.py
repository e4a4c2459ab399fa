"""``PostgresCapture``: the committed changes of a publication as write events of one core."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self, final

import psycopg2
import psycopg2.extensions

from ...batch.rows.schema import RowSchema
from ...ends._producer import EventProducer
from ...ends.logger import log_safely
from ...errors import CaptureError, ClosedError
from ...log import EventLog
from ._pgoutput import Decoder
from .connection import is_passing, open_sql, refused, shown_dsn, shown_lsn
from .delivery import Delivery, Stopped
from .keepalive import Keepalive
from .position import Position, find_position, group_of
from .slot import check_publication, check_server, create_slot, drop_slot, find_slot
from .snapshot import take_snapshot
from .stats import PostgresStats
from .stream import SlotInUse, Stream
from .tables import row_schema
from .wake import Wake

__all__ = ["PostgresCapture"]

_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 10.0
"""Seconds before a lost connection is tried again: the first time, and at most."""

_CONFIRM_SECONDS: Final = 0.2
"""How often a position is sent to the server at most, and how late at the latest while nothing else happens."""

_GATHER_SECONDS: Final = 0.0002
_GATHER_EVENTS: Final = 64
"""In the middle of a transaction of more events the capture lets messages gather, in place of waking for each."""

_WATERMARK_SECONDS: Final = 1.0
"""How often the log's watermark follows the last commit."""


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
        Of the ring that takes the events. It belongs to the capture's thread from here on.
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
    slot_timeout : float
        Seconds for which a slot in use is waited for: the server may notice late that another connection has gone.

    Raises
    ------
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
        slot_timeout: float = 10.0,
    ) -> None:
        if not isinstance(producer, EventProducer):
            raise TypeError(
                f"producer {producer!r}: must be an EventProducer, not {type(producer).__qualname__}; with a log, pass the"
                " producer itself, and log="
            )
        self._dsn, self._publication, self._slot = dsn, publication, slot
        self._producer, self._log = producer, log
        self._wants_snapshot = snapshot
        self._tenant_id, self._vshard_id = tenant_id, vshard_id
        self._slot_timeout = slot_timeout
        self._stopping = threading.Event()
        self._wake = Wake()
        self._delivery = Delivery(producer, log, self._stopping)
        self._position = Position(0, 0)
        self._decoder: Decoder | None = None
        self._keepalive: Keepalive | None = None
        self._stream: Stream | None = None
        self._thread: threading.Thread | None = None
        self._has_run = False
        self._error: BaseException | None = None
        self._confirmed = 0
        self._reconnects = 0
        self._system_id: str | None = None
        self._watermark_at = 0.0
        self._confirmed_at = 0.0

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
            check_publication(cursor, self._publication)
            if find_slot(cursor, self._slot) is not None:
                return False
            create_slot(cursor, self._slot)
            return True

    def drop_slot(self) -> bool:
        """Drops the slot, so that the server keeps no log for it any more; returns False if there is none.

        Raises
        ------
        CaptureError
            It is in use.
        """
        with self._sql() as cursor:
            if find_slot(cursor, self._slot) is None:
                return False
            drop_slot(cursor, self._slot)
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
    def _sql(self) -> Iterator[psycopg2.extensions.cursor]:
        try:
            connection = open_sql(self._dsn)
        except psycopg2.Error as error:
            raise refused(f"{shown_dsn(self._dsn)} cannot be reached", error) from error
        try:
            with connection.cursor() as cursor:
                yield cursor
        except psycopg2.Error as error:
            raise refused(shown_dsn(self._dsn), error) from error
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
        self._begin()
        self._thread = threading.Thread(target=self._run_in_thread, name="nodedb_ring-capture", daemon=True)
        self._thread.start()

    def run(self) -> None:
        """Captures in this thread, until another or a signal handler calls ``stop()``.

        Raises
        ------
        CaptureError
            As for the class, and for what cannot be captured.
        """
        self._begin()
        self._run()

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
    def error(self) -> BaseException | None:
        """What has ended the capture's thread; None while it runs, and after ``close()``."""
        return self._error

    def stats(self) -> PostgresStats:
        """What it has done so far."""
        decoder, keepalive = self._decoder, self._keepalive
        behind = 0.0
        if decoder is not None and (decoder.pending or self._delivery.is_busy):
            behind = max(0.0, time.time() - decoder.time_ms / 1000)
        return PostgresStats(
            received=0 if decoder is None else decoder.received,
            emitted=self._delivery.emitted,
            position=self._confirmed,
            lag_bytes=None if keepalive is None else keepalive.lag_bytes,
            lag_seconds=behind,
            connected=self._stream is not None,
            reconnects=self._reconnects,
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
        return (
            f"<PostgresCapture {shown_dsn(self._dsn)} publication={self._publication!r} slot={self._slot!r}"
            f" at {shown_lsn(self._confirmed)}>"
        )

    def _begin(self) -> None:
        if self._has_run:
            raise ClosedError(f"{self!r}: has run already; make another")
        with self._sql() as cursor:
            check_server(cursor)
            check_publication(cursor, self._publication)
            found = find_slot(cursor, self._slot)
            if found is None and not self._wants_snapshot:
                raise CaptureError(
                    f"slot {self._slot!r}: does not exist; call ensure_slot() for the changes from now on, or pass"
                    " snapshot=True for the rows that are there, too"
                )
            cursor.execute("SELECT setting::int FROM pg_settings WHERE name = 'wal_sender_timeout'")
            [(timeout_ms,)] = cursor.fetchall()
            self._must_take_snapshot = found is None
        log, core_id = self._log, self._producer.core_id
        next_sequence = self._producer.next_sequence
        if log is not None:
            self._position = find_position(log, core_id, self._slot)
            next_sequence = max(next_sequence, (log.last_sequence(core_id) or 0) + 1)
        # Rows that a broken-off snapshot, or a slot that was dropped, has left with whoever reads the events.
        self._must_clear = next_sequence > 1
        self._decoder = Decoder(next_sequence=next_sequence, tenant_id=self._tenant_id, vshard_id=self._vshard_id)
        self._keepalive = Keepalive(self._dsn, self._slot, int(timeout_ms))
        self._has_run = True

    def _run_in_thread(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self._error = error
            log_safely(logging.ERROR, "core %d: the capture has ended: %s", self._producer.core_id, error)

    def _run(self) -> None:
        assert self._keepalive is not None
        self._producer.bind()
        self._keepalive.start()
        try:
            self._connect_until_stopped()
        except Stopped:
            pass
        finally:
            self._keepalive.stop()

    def _connect_until_stopped(self) -> None:
        delay = _FIRST_DELAY
        patience = time.monotonic() + self._slot_timeout
        is_first = True
        while not self._stopping.is_set():
            try:
                if self._must_take_snapshot:
                    self._take_snapshot()
                stream = self._connected()
            except SlotInUse:
                if is_first and time.monotonic() > patience:
                    raise
                reason = f"slot {self._slot!r} is in use"
            except psycopg2.Error as error:
                if not is_passing(error):
                    raise refused(shown_dsn(self._dsn), error) from error
                reason = " ".join(str(error).split())
            else:
                if not is_first:
                    log_safely(logging.INFO, "core %d: the server is connected again", self._producer.core_id)
                is_first = False
                began = time.monotonic()
                reason = self._receive(stream)
                if self._stopping.is_set():
                    return
                self._reconnects += 1
                if time.monotonic() - began > _LONGEST_DELAY:
                    delay = _FIRST_DELAY
                log_safely(logging.WARNING, "core %d: the connection was lost: %s", self._producer.core_id, reason)
            self._stopping.wait(delay * random.uniform(0.5, 1.0))  # noqa: S311
            delay = min(2 * delay, _LONGEST_DELAY)

    def _take_snapshot(self) -> None:
        decoder = self._decoder
        assert decoder is not None
        clear, self._must_clear = self._must_clear, True
        self._position = take_snapshot(
            self._dsn, self._publication, self._slot, decoder, self._deliver_snapshot, clear=clear
        )
        self._must_take_snapshot = False

    def _connected(self) -> Stream:
        """A stream that has begun."""
        assert self._decoder is not None
        stream = Stream(self._dsn, self._publication, self._slot)
        try:
            if self._system_id not in {None, stream.system_id}:
                raise CaptureError(
                    f"{shown_dsn(self._dsn)}: is another database cluster than before ({stream.system_id}, not"
                    f" {self._system_id}), whose positions mean something else; capture it from a new snapshot"
                )
            self._system_id = stream.system_id
            if self._position.lsn > stream.server_end:
                raise CaptureError(
                    f"{shown_dsn(self._dsn)}: ends at {shown_lsn(stream.server_end)}, and what was captured already at"
                    f" {shown_lsn(self._position.lsn)}: the server is another one, or an older copy; capture it from a"
                    " new snapshot into another log or core"
                )
            self._decoder.start(after_lsn=self._position.lsn, after_events=self._position.events)
            stream.start()
            stream.watch(self._wake.fileno())
        except BaseException:
            stream.close()
            raise
        return stream

    def _receive(self, stream: Stream) -> str:
        """Until the connection is lost, and says why; or until the capture is stopped."""
        assert self._keepalive is not None
        self._keepalive.attend(stream)
        self._stream = stream
        try:
            self._transfer(stream)
        except psycopg2.Error as error:
            return " ".join(str(error).split())
        finally:
            self._stream = None
            self._keepalive.attend(None)
            # What was confirmed and not sent yet would be sent again to the next capture.
            with contextlib.suppress(psycopg2.Error):
                stream.keep_alive()
            stream.close()
        return "stopped"

    def _transfer(self, stream: Stream) -> None:
        decoder = self._decoder
        assert decoder is not None
        while not self._stopping.is_set():
            stream.read(decoder)
            if decoder.is_large or (decoder.pending and decoder.is_drained and not decoder.is_inside):
                self._deliver(decoder, stream)
            elif not decoder.is_drained:
                continue
            elif decoder.is_inside:
                if decoder.pending > _GATHER_EVENTS:
                    time.sleep(_GATHER_SECONDS)
                else:
                    stream.wait(_CONFIRM_SECONDS)
            else:
                # All that the server has sent is delivered, so all that it has looked at is done with.
                self._confirm(stream, stream.server_position)
                stream.wait(_CONFIRM_SECONDS)

    def _deliver(self, decoder: Decoder, stream: Stream) -> None:
        end, position = decoder.end_lsn, Position(decoder.lsn, decoder.events)
        batch = decoder.take()
        try:
            self._delivery.deliver(batch)
        except Stopped:
            if self._delivery.has_appended:
                stream.confirm(end, at_once=True)
            raise
        self._position = position
        if position.events:
            self._keep_in_log(int(batch.sequence[-1]) - position.events)
        self._confirm(stream, end)

    def _deliver_snapshot(self) -> None:
        assert self._decoder is not None
        self._delivery.deliver(self._decoder.take())

    def _confirm(self, stream: Stream, lsn: int) -> None:
        if lsn <= stream.confirmed:
            return
        now = time.monotonic()
        at_once = now - self._confirmed_at > _CONFIRM_SECONDS
        if at_once:
            self._confirmed_at = now
        stream.confirm(lsn, at_once=at_once)
        self._confirmed = stream.confirmed

    def _keep_in_log(self, before: int) -> None:
        """Has the log keep what comes behind this event, the commit that it ends with, when it is trimmed."""
        now = time.monotonic()
        if self._log is None or now - self._watermark_at < _WATERMARK_SECONDS:
            return
        self._watermark_at = now
        group, core_id = group_of(self._slot), self._producer.core_id
        stored = self._log.load_watermark(group, core_id)
        if stored is None or before > stored:
            self._log.save_watermark(group, core_id, before)
