"""``AckInbox``: publishes whose acknowledgements are awaited, many at a time, in one inbox."""

from __future__ import annotations

import asyncio
import json
from typing import Final, final

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

__all__ = ["AckInbox"]


@final
class AckInbox:
    """The subject on which the servers acknowledge publishes, and the acknowledgements that are pending.

    ``JetStreamContext.publish_async`` would do, but nats-py 2.16 drops the acknowledgements that are errors.

    Thread safety
    -------------
    On the event loop of the connection.

    Attributes
    ----------
    pending : dict
        By reply subject, the futures of the positions at which the server stores the messages.
    """

    def __init__(self, client: Client) -> None:
        self._client: Final = client
        self._inbox = ""
        self._count = 0
        self.pending: Final[dict[str, asyncio.Future[int]]] = {}

    async def subscribe(self) -> None:
        """Begins to receive; once, after the connection was made."""
        self._inbox = self._client.new_inbox()
        await self._client.subscribe(f"{self._inbox}.*", cb=self._on_message)

    def expect(self) -> tuple[str, asyncio.Future[int]]:
        """A reply subject for one publish, and its acknowledgement."""
        self._count += 1
        reply = f"{self._inbox}.{self._count}"
        ack: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.pending[reply] = ack
        ack.add_done_callback(lambda done: self._forget(reply, done))
        return reply, ack

    async def publish(self, subject: str, body: bytes, reply: str, headers: dict[str, str]) -> None:
        """Publishes under a reply subject of ``expect``. What fails becomes the acknowledgement's exception."""
        try:
            await self._client.publish(subject, body, reply=reply, headers=headers)
        except (nats.errors.Error, ConnectionError) as error:
            ack = self.pending.get(reply)
            if ack is not None and not ack.done():
                ack.set_exception(error)

    def fail_pending(self) -> None:
        """After a disconnect: the acknowledgements that have not come do not come."""
        for ack in list(self.pending.values()):
            if not ack.done():
                ack.set_exception(ConnectionResetError("disconnected before the acknowledgement"))

    def _forget(self, reply: str, ack: asyncio.Future[int]) -> None:
        del self.pending[reply]
        if not ack.cancelled():
            # Read, or asyncio says that it never was.
            ack.exception()

    async def _on_message(self, message: Msg) -> None:
        ack = self.pending.get(message.subject)
        if ack is None or ack.done():
            return
        if not message.data:
            ack.set_exception(nats.js.errors.NoStreamResponseError())
            return
        answer = json.loads(message.data)
        if "error" in answer:
            try:
                nats.js.errors.APIError.from_error(answer["error"])
            except nats.js.errors.APIError as error:
                ack.set_exception(error)
        else:
            ack.set_result(answer["seq"])
