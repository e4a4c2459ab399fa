"""``History``: tokens of positions in one core's stream, and whether the stream still has the history of one.

A stream is told from one of the same name that was made later by the time of its creation, which the server knows. A
message is told from any other by its id, which has a random part for each event log object that appends.
"""

from __future__ import annotations

import hashlib
from typing import Final, final

from ..token import LogToken, check_same_log, history_differs
from .reading import Reader
from .stream import CoreStream

__all__ = ["History"]

_NO_STREAM: Final = "0" * 16
"""The id in tokens that were made before the core's stream was."""


@final
class History:
    """One core's.

    Thread safety
    -------------
    On the connection's thread.
    """

    def __init__(self, stream: CoreStream, reader: Reader) -> None:
        self._stream: Final = stream
        self._reader: Final = reader

    async def token(self, sequence: int) -> LogToken:
        """``IdentifiedEventLog.token``. Asks nothing of the server if this object has read or appended the message."""
        stream = self._stream
        entry = stream.positions.covering(sequence)
        if entry is None or stream.created is None:
            entry = await self._reader.last_at(sequence)
        log_id = _log_id(stream.created)
        if entry is None:
            return LogToken(log_id, stream.core_id, sequence, None, None)
        return LogToken(log_id, stream.core_id, sequence, entry.first, _batch_id(entry.message_id))

    async def sequence_of(self, token: LogToken) -> int:
        """``IdentifiedEventLog.sequence_of``."""
        stream = self._stream
        extent = await stream.extent()
        log_id = _log_id(stream.created)
        if token.log_id == _NO_STREAM and token.first is None:
            # It was made before anything was stored: whatever is there came later.
            return token.sequence
        check_same_log(token, log_id=log_id, core_id=stream.core_id)
        if token.first is None or extent is None:
            return token.sequence
        found = await self._reader.first_from(token.first)
        if found is None:
            raise history_differs(token, "none there")
        batch_id = _batch_id(found.message_id)
        if (found.first, batch_id) == (token.first, token.batch_id):
            return token.sequence
        if found.first > token.first and extent.first > 1 and found.position == extent.first:
            # It was trimmed.
            return token.sequence
        raise history_differs(token, f"batch {found.first}-{batch_id:x}")


def _log_id(created: object) -> str:
    return _NO_STREAM if created is None else hashlib.blake2b(str(created).encode(), digest_size=8).hexdigest()


def _batch_id(message_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(message_id.encode(), digest_size=8).digest(), "little") >> 1
