"""``Notices``: messages to those who wait that something was stored. One may get lost."""

from __future__ import annotations

import contextlib
from typing import Final, final

import nats.errors
from nats.aio.msg import Msg

from .connection import Connection
from .stream import CoreStream

__all__ = ["Notices"]

_FLUSH_SECONDS: Final = 2


@final
class Notices:
    """The notices of one core: each append publishes the last number stored, on a subject without a stream.

    If the server republished what it stores, it would store half as fast.

    Thread safety
    -------------
    On the connection's thread; ``is_subscribed`` can be read from any.
    """

    def __init__(self, connection: Connection, stream: CoreStream, subject: str) -> None:
        self._connection: Final = connection
        self._stream: Final = stream
        self._subject: Final = subject
        self.is_subscribed: bool = False

    async def announce(self, last: int) -> None:
        """Informs all waiters, in any process, that everything up to `last` is stored."""
        with contextlib.suppress(nats.errors.Error, ConnectionError):
            await self._connection.client.publish(self._subject, str(last).encode())

    async def subscribe(self) -> None:
        """Begins to receive them, and asks for what was stored before."""
        if not self.is_subscribed:
            client = self._connection.client
            await self._connection.retry(lambda: client.subscribe(self._subject, cb=self._on_message))
            self.is_subscribed = True
            await self._connection.retry(lambda: client.flush(_FLUSH_SECONDS))
        await self._stream.last_sequence()

    async def catch_up(self) -> None:
        """Asks the server for what lost notices would have said."""
        if self.is_subscribed:
            await self._stream.last_sequence()

    async def _on_message(self, message: Msg) -> None:
        if message.data.isdigit():
            self._stream.stored.advance(int(message.data))
