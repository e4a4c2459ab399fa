"""``Receiver``: connects, reads and hands over to the outbox, until it is stopped."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from typing import Final, final

import psycopg2

from ...ends.logger import log_safely
from ...errors import CaptureError, LogUnavailableError
from ...log import EventLog
from ._pgoutput import Decoder
from .connection import is_passing, refused, shown_dsn, shown_lsn
from .keepalive import Keepalive
from .outbox import Outbox, Parcel
from .position import Position, group_of
from .snapshot import take_snapshot
from .source import Source
from .stream import SlotInUse, Stream
from .wake import Wake

__all__ = ["Receiver"]

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
class Receiver:
    """One run of a capture.

    Parameters
    ----------
    source : Source
    decoder : Decoder
    outbox : Outbox
    keepalive : Keepalive
    log : EventLog or None
        Whose watermark follows, in the name of the slot.
    core_id : int
    position : Position
        What the log has already.
    stopping : threading.Event
    wake : Wake
        Set, like `stopping`, when the capture is to stop.

    Attributes
    ----------
    confirmed : int
        The LSN that the server was told.
    reconnects : int
    is_connected : bool
    """

    def __init__(
        self,
        source: Source,
        decoder: Decoder,
        outbox: Outbox,
        keepalive: Keepalive,
        *,
        log: EventLog | None,
        core_id: int,
        position: Position,
        stopping: threading.Event,
        wake: Wake,
    ) -> None:
        self._source = source
        self._decoder, self._outbox, self._keepalive = decoder, outbox, keepalive
        self._log, self._core_id = log, core_id
        self._position = position
        self._stopping, self._wake = stopping, wake
        self._system_id: str | None = None
        self._confirmed_at = self._watermark_at = 0.0
        self.confirmed: int = 0
        self.reconnects: int = 0
        self.is_connected: bool = False

    def run(self, *, slot_timeout: float | None, snapshot: bool, clear: bool) -> None:
        """Until it is stopped.

        Parameters
        ----------
        slot_timeout : float or None
            Seconds for which a slot in use is waited for at first; None for no limit.
        snapshot : bool
            Whether the rows that are there come first, and the slot is still to be made.
        clear : bool
            Whether a BULK_DELETE of each table comes before them.
        """
        delay = _FIRST_DELAY
        patience = None if slot_timeout is None else time.monotonic() + slot_timeout
        has_streamed = False
        while not self._stopping.is_set():
            try:
                if snapshot:
                    self._position = self._snapshot_position(clear=clear)
                    snapshot = False
                stream = self._connected()
            except SlotInUse as error:
                if patience is not None and time.monotonic() > patience:
                    raise
                reason = str(error)
            except psycopg2.Error as error:
                if not is_passing(error):
                    raise refused(shown_dsn(self._source.dsn), error) from error
                # Of a snapshot, the rows that have their numbers already; the next one clears them.
                self._put(Position(self._decoder.lsn, 0))
                clear = True
                reason = " ".join(str(error).split())
            else:
                self.reconnects += has_streamed
                has_streamed = True
                # From here on a slot in use is ours, of a connection that the server does not know to be lost.
                patience = None
                began = time.monotonic()
                reason = self._receive(stream)
                if self._stopping.is_set():
                    return
                if time.monotonic() - began > _LONGEST_DELAY:
                    delay = _FIRST_DELAY
            log_safely(logging.WARNING, "core %d: not connected to the server: %s", self._core_id, reason)
            self._stopping.wait(delay * random.uniform(0.5, 1.0))  # noqa: S311
            delay = min(2 * delay, _LONGEST_DELAY)

    def _put(self, position: Position) -> None:
        """Hands over what is decoded. From here on it counts as delivered: only the end of the run can prevent it."""
        if self._decoder.pending:
            end_lsn = self._decoder.end_lsn
            self._position = position
            self._outbox.put(Parcel(self._decoder.take(), position, end_lsn))

    def _snapshot_position(self, *, clear: bool) -> Position:
        """That of a snapshot, which is delivered."""
        decoder = self._decoder
        return take_snapshot(
            self._source, decoder, lambda: self._put(Position(decoder.lsn, 0)), self._outbox.flush, clear=clear
        )

    def _connected(self) -> Stream:
        """A stream that has begun, behind what was delivered."""
        shown = shown_dsn(self._source.dsn)
        stream = Stream(self._source)
        try:
            if self._system_id not in {None, stream.system_id}:
                raise CaptureError(
                    f"{shown}: is another database cluster than before ({stream.system_id}, not {self._system_id}),"
                    " whose positions mean something else; capture it from a new snapshot"
                )
            self._system_id = stream.system_id
            if self._position.lsn > stream.server_end:
                raise CaptureError(
                    f"{shown}: ends at {shown_lsn(stream.server_end)}, and what was captured already at"
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
        self._keepalive.attend(stream)
        self.is_connected = True
        reason = "the capture is stopped"
        try:
            self._transfer(stream)
        except psycopg2.Error as error:
            reason = " ".join(str(error).split())
        finally:
            self.is_connected = False
            self._keepalive.attend(None)
            if self._stopping.is_set():
                self._outbox.close()
            # What was delivered and not confirmed yet would be sent again to the next capture.
            with contextlib.suppress(psycopg2.Error):
                self._confirm(stream, self._outbox.delivered.end_lsn, at_once=True)
            stream.close()
        if not self._stopping.is_set():
            # What was committed, and sent in part. The rest comes again.
            self._put(Position(self._decoder.lsn, self._decoder.events))
        return reason

    def _transfer(self, stream: Stream) -> None:
        decoder, outbox = self._decoder, self._outbox
        while not self._stopping.is_set():
            outbox.check()
            stream.read(decoder)
            if decoder.is_large or (decoder.pending and decoder.is_drained and not decoder.is_inside):
                self._put(Position(decoder.lsn, decoder.events))
            elif not decoder.is_drained:
                continue
            elif decoder.is_inside:
                if decoder.pending > _GATHER_EVENTS:
                    time.sleep(_GATHER_SECONDS)
                else:
                    stream.wait(_CONFIRM_SECONDS)
            else:
                self._idle(stream)
            self._confirm(stream, outbox.delivered.end_lsn)

    def _idle(self, stream: Stream) -> None:
        """All that the server has sent is read, to the end of a transaction."""
        if self._outbox.oldest is None:
            # And delivered, so all that the server has looked at is done with.
            self._confirm(stream, stream.server_position)
        stream.wait(_CONFIRM_SECONDS)

    def _confirm(self, stream: Stream, lsn: int, *, at_once: bool = False) -> None:
        if lsn <= stream.confirmed and not at_once:
            return
        now = time.monotonic()
        if now - self._confirmed_at > _CONFIRM_SECONDS:
            at_once = True
        if at_once:
            self._confirmed_at = now
            self._keep_in_log()
        stream.confirm(lsn, at_once=at_once)
        self.confirmed = max(self.confirmed, stream.confirmed)

    def _keep_in_log(self) -> None:
        """Has the log keep the commit that it ends with, when it is trimmed."""
        now = time.monotonic()
        delivered = self._outbox.delivered
        events = delivered.position.events
        if self._log is None or now - self._watermark_at < _WATERMARK_SECONDS or not events:
            return
        self._watermark_at = now
        before = delivered.last_sequence - events
        # A log that cannot be reached is asked again later; the delivery waits for it.
        with contextlib.suppress(LogUnavailableError):
            stored = self._log.load_watermark(group_of(self._source.slot), self._core_id)
            if stored is None or before > stored:
                self._log.save_watermark(group_of(self._source.slot), self._core_id, before)
