"""``Stream``: one connection that receives the changes, and what is confirmed on it.

Confirmations and keepalives come from another thread (``keepalive.py``) while this one waits for the ring or the log;
a lock keeps the two apart, because psycopg2's calls on one connection may not interleave.
"""

from __future__ import annotations

import select
import threading
from typing import Any, final

import psycopg2
import psycopg2.errors

from ...errors import CaptureError
from ._pgoutput import Decoder
from .connection import is_passing, open_replication, parsed_lsn, refused, shown_lsn
from .source import Source

__all__ = ["SlotInUse", "Stream"]


class SlotInUse(CaptureError):  # noqa: N818 - a state of the slot
    """Another connection receives from the slot, or the server has not noticed yet that ours has gone."""


@final
class Stream:
    """The connection. Closed once, by whoever has it.

    Parameters
    ----------
    source : Source

    Raises
    ------
    CaptureError
        The server refuses to send.
    psycopg2.Error
        The connection was lost, see `is_passing`.
    """

    def __init__(self, source: Source) -> None:
        self._publication, self._slot = source.publication, source.slot
        self._lock = threading.Lock()
        self._connection = open_replication(source.dsn)
        self.confirmed: int = 0
        try:
            self._cursor: Any = self._connection.cursor()
            self._cursor.execute("IDENTIFY_SYSTEM")
            [(system, _timeline, end, *_)] = self._cursor.fetchall()
            self.system_id: str = str(system)
            self.server_end: int = parsed_lsn(end)
        except BaseException:
            self._connection.close()
            raise

    def start(self) -> None:
        """Begins to receive, from the slot's position on."""
        quoted = '"' + self._publication.replace('"', '""') + '"'
        try:
            self._cursor.start_replication(
                slot_name=self._slot,
                decode=False,
                status_interval=10,
                options={"proto_version": "1", "publication_names": quoted},
            )
        except psycopg2.errors.ObjectInUse as error:
            raise SlotInUse(
                f"slot {self._slot!r}: {error.diag.message_primary}; stop that capture, or choose another slot"
            ) from error
        except psycopg2.errors.UndefinedObject as error:
            raise CaptureError(
                f"slot {self._slot!r}: does not exist any more; it was dropped, or a standby without it has taken over."
                " Changes may be missing, so capture with snapshot=True into another log or core"
            ) from error
        except psycopg2.Error as error:
            if is_passing(error):
                raise
            raise refused(f"slot {self._slot!r}, publication {self._publication!r}", error) from error
        self._poll = select.poll()
        self._poll.register(self._connection.fileno(), select.POLLIN)

    def watch(self, descriptor: int) -> None:
        """Has `wait` return when `descriptor` can be read, too."""
        self._poll.register(descriptor, select.POLLIN)

    def read(self, decoder: Decoder) -> int:
        """Reads what has arrived into the decoder; returns how many messages.

        Raises
        ------
        CaptureError
            A message is corrupt, or the server cannot decode its log.
        psycopg2.Error
            The connection was lost.
        """
        with self._lock:
            try:
                return decoder.read(self._cursor.read_message)
            except psycopg2.errors.UndefinedObject as error:
                raise CaptureError(
                    f"publication {self._publication!r}: did not exist when a change was made that slot"
                    f" {self._slot!r} has still to send ({error.diag.message_primary}); a slot must be made after its"
                    " publication: drop the slot, make both again, and take a new snapshot"
                ) from error
            except psycopg2.Error as error:
                if is_passing(error):
                    raise
                raise refused(f"slot {self._slot!r}", error) from error

    def wait(self, seconds: float) -> None:
        """Until something arrives."""
        self._poll.poll(1000.0 * seconds)

    @property
    def server_position(self) -> int:
        """Up to where the server has sent all that there is, as of the last message."""
        return int(self._cursor.wal_end)

    def confirm(self, lsn: int, *, at_once: bool) -> None:
        """Tells the server that it need not send anything below `lsn` again, with the next message to it."""
        with self._lock:
            self.confirmed = max(self.confirmed, lsn)
            self._cursor.send_feedback(write_lsn=lsn, flush_lsn=lsn, apply_lsn=lsn, force=at_once)

    def keep_alive(self) -> None:
        """Tells the server that this side lives."""
        with self._lock:
            self._cursor.send_feedback(force=True)

    def close(self) -> None:
        """May be repeated."""
        self._connection.close()

    def __repr__(self) -> str:
        return f"<Stream of slot {self._slot} at {shown_lsn(self.confirmed)}>"
