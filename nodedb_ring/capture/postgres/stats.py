"""``PostgresStats``: what a capture has done, and how far behind it is."""

from __future__ import annotations

import dataclasses

__all__ = ["PostgresStats"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PostgresStats:
    """Statistics of a capture of PostgreSQL.

    Attributes
    ----------
    received : int
        Row changes and truncated tables that were received; those that are sent again count again.
    emitted : int
        Events that the ring has taken.
    position : int
        The LSN that was confirmed to the server: it sends nothing below again.
    lag_bytes : int or None
        Bytes of log between the server's end and the confirmed position, which it keeps for the slot. None while it is
        not known.
    lag_seconds : float
        How long ago the oldest change was committed that is received and not delivered; 0 if there is none.
    connected : bool
        Whether the stream is connected.
    reconnects : int
        How often the connection was lost and made again.
    """

    received: int
    emitted: int
    position: int
    lag_bytes: int | None
    lag_seconds: float
    connected: bool
    reconnects: int
