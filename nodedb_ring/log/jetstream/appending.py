"""``Appender``: appends to one core, one after the other, and what is known of them when one ends with an error."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from typing import Final, final

from ...batch._event_batch import EventBatch
from ...errors import BusyError, ClosedError, LogError
from ..call_lock import CallLock
from ..encoding import check_rising, encode_batch
from .connection import Connection
from .loop_thread import LoopCall
from .message import encode, message_bytes
from .notices import Notices
from .publishing import MessageQueue, PendingMessage, Publisher, StreamEnd
from .stream import CoreStream

__all__ = ["Appender"]

_HEADERS_BYTES: Final = 1024
"""Room for the headers of a message, which count into the server's max_payload."""


@final
class Appender:
    """Appends to one core.

    Parameters
    ----------
    connection : Connection
    log_name : str
        For messages.
    stream : CoreStream
    notices : Notices
    window : int
        Publishes in flight.
    nonce : str
        Of this event log object alone: another writer's batch of the same numbers has another message id.

    Thread safety
    -------------
    ``append_all`` from any thread, the coroutines on the connection's.

    Attributes
    ----------
    calls : CallLock
    end : StreamEnd
    is_appending : bool
    """

    def __init__(
        self, connection: Connection, log_name: str, stream: CoreStream, notices: Notices, *, window: int, nonce: str
    ) -> None:
        self._connection: Final = connection
        self._log_name: Final = log_name
        self._stream: Final = stream
        self._notices: Final = notices
        self._window: Final = window
        self._nonce: Final = nonce
        # That of the present append, or of the last.
        self._publisher: Publisher | None = None
        self.calls: Final = CallLock()
        self.end: Final = StreamEnd()
        self.is_appending: bool = False

    # ---- on the thread that appends --------------------------------------------------------------------------------

    def append_all(self, batches: Iterable[EventBatch]) -> None:
        """Appends batch after batch; returns when all are acknowledged."""
        self.calls.run(self._append_all, batches)

    def _append_all(self, batches: Iterable[EventBatch]) -> None:
        self._connection.check_open()
        if self.is_appending:
            raise BusyError(
                f"log {self._log_name}: an append to core {self._stream.core_id} is in progress, which this call"
                " interrupts; append when it has returned"
            )
        self.is_appending = True
        try:
            stored: frozenset[str] = frozenset()
            if self.end.position is None:
                stored = self._connection.call(self._undone, self._find_end)
            self._queue_all(batches, stored)
        finally:
            self.is_appending = False

    @property
    def _undone(self) -> str:
        core_id = self._stream.core_id
        return (
            f"not all that was appended to core {core_id} is acknowledged;"
            f" last_sequence({core_id}) returns what is stored"
        )

    def _queue_all(self, batches: Iterable[EventBatch], stored: frozenset[str]) -> None:
        """Hands the messages of batches to a publisher, but for those that are stored already."""
        last = self.end.last
        queue: MessageQueue | None = None
        publishing: LoopCall[None] | None = None
        try:
            try:
                for batch in batches:
                    if not len(batch):
                        continue
                    messages = list(self._messages(batch))
                    pending = [message for message in messages if message.message_id not in stored]
                    if not pending:
                        continue
                    # Of a batch that is stored in part, its front lies below the last number.
                    check_rising(batch[len(batch) - 1 :] if len(pending) < len(messages) else batch, last)
                    if queue is None:
                        queue = MessageQueue(2 * self._window)
                        publishing = self._begin_to_publish(queue)
                    for message in pending:
                        if not queue.take_slot():
                            break
                        self._connection.call_soon(queue.put, message)
                        last = message.last
                    if queue.is_abandoned:
                        break
            finally:
                if queue is not None and publishing is not None:
                    with contextlib.suppress(ClosedError):
                        self._connection.call_soon(queue.complete)
                    self._connection.result(self._undone, publishing)
        except BaseException:
            # A signal handler's, for one. Whether what is in flight gets stored is asked before the next append.
            if publishing is not None:
                publishing.cancel()
            raise

    def _begin_to_publish(self, queue: MessageQueue) -> LoopCall[None]:
        position = self.end.position
        assert position is not None  # noqa: S101 - _append_all has asked
        # From here on the publisher alone knows it. If it ends with an exception, the server is asked.
        self.end.position = None
        publisher = Publisher(
            self._connection,
            self._stream,
            self._notices,
            queue,
            self.end,
            position=position,
            window=self._window,
        )
        self._publisher = publisher
        return self._connection.begin(publisher.run, queue.abandon)

    def _messages(self, batch: EventBatch) -> Iterator[PendingMessage]:
        """A batch as messages that fit the server's max_payload."""
        core_id = self._stream.core_id
        encoded = encode_batch(batch, core_id=core_id)
        size = message_bytes(encoded)
        most = self._connection.client.max_payload - _HEADERS_BYTES
        if size > most:
            if len(batch) == 1:
                raise LogError(
                    f"event {encoded.first} of core {core_id}: {size} bytes, and the server takes {most};"
                    " raise max_payload in the configuration of nats-server"
                )
            parts = min(len(batch), -(-size // most))
            for start in range(0, len(batch), step := -(-len(batch) // parts)):
                yield from self._messages(batch[start : start + step])
            return
        message_id = f"{core_id}-{encoded.first}-{encoded.last}-{encoded.checksum:08x}-{self._nonce}"
        yield PendingMessage(encoded.first, encoded.last, message_id, encode(encoded, core_id))

    # ---- on the connection's thread --------------------------------------------------------------------------------

    async def last_sequence(self) -> int | None:
        """The last number stored, once what an interrupted append sent has been stored or has failed."""
        if not self.is_appending:
            await self._settle()
        return await self._stream.last_sequence()

    async def _settle(self) -> None:
        """After an append that ended with an exception: waits until what it sent is acknowledged or counts as lost."""
        task = None if self._publisher is None else self._publisher.task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        acks = [message.ack for message in self.end.unconfirmed if message.ack is not None and not message.ack.done()]
        if acks:
            await asyncio.wait(acks, timeout=self._connection.ack_timeout)

    async def _find_end(self) -> frozenset[str]:
        """Asks where the stream ends; makes it if there is none. The ids of unconfirmed messages that are stored."""
        await self._settle()
        extent = await self._stream.extent()
        if extent is None:
            await self._stream.create()
            extent = await self._stream.extent()
        self.end.last = await self._stream.last_sequence()
        stored: set[str] = set()
        for message in self.end.unconfirmed:
            found = await self._stream.get(message.position)
            if found is not None and found.message_id == message.message_id:
                stored.add(message.message_id)
        self.end.unconfirmed = []
        self.end.position = 0 if extent is None else extent.last
        return frozenset(stored)
