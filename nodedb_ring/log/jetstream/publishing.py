"""``Publisher``: sends messages to their positions in a stream, a window of them in flight, until all are acknowledged.

Positions in a stream are known before they are acknowledged, since a core has one writer: each publish says after which
position, and after which message in flight, it has to be stored. If an acknowledgement does not come, everything in
flight is sent again, each message to the position that it had: the server drops what it has already, within the
duplicate window by the message's id, and after it by the position.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Final, final

import nats.errors
import nats.js.errors

from ...errors import CorruptLogError, LogConflictError
from .connection import RETRY_SECONDS, TRANSIENT_ERRORS, Connection
from .notices import Notices
from .stream import CoreStream, Seen

__all__ = ["MessageQueue", "PendingMessage", "Publisher", "StreamEnd"]

_WRONG_LAST_SEQUENCE: Final = 10071
_WRONG_LAST_ID: Final = 10070
_WRONG_LAST: Final = frozenset({_WRONG_LAST_ID, _WRONG_LAST_SEQUENCE, 10164})
"""The server's error codes where a message was expected to follow another one than the last."""


@dataclass(slots=True)
class PendingMessage:
    """A batch, or a part of one, that is to be stored."""

    first: int
    last: int
    message_id: str
    body: bytes
    position: int = 0
    ack: asyncio.Future[int] | None = None
    """The position at which the server has it; None before it is sent."""


@dataclass(slots=True)
class StreamEnd:
    """What a writer knows of where its stream ends."""

    position: int | None = None
    """Of the last message; None: the server has to be asked."""
    last: int | None = None
    unconfirmed: list[PendingMessage] = field(default_factory=list[PendingMessage])
    """Sent and not acknowledged when publishing ended with an error."""


@final
class MessageQueue:
    """Messages from the thread that appends to the loop that publishes. Each has a slot until it is acknowledged.

    Thread safety
    -------------
    ``take_slot`` on the thread that appends, everything else on the loop.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._freed: Final[SimpleQueue[int]] = SimpleQueue()
        self.messages: Final[deque[PendingMessage]] = deque()
        self.changed: Final = asyncio.Event()
        self.is_complete: bool = False
        """No more messages come."""
        self.is_abandoned: bool = False
        """Nothing is published any more."""

    def take_slot(self) -> bool:
        """Waits for a slot. False: nothing is published any more."""
        while not self._slots and not self.is_abandoned:
            self._slots += self._freed.get()
        self._slots -= 1
        return not self.is_abandoned

    def free(self, slots: int) -> None:
        """Releases slots."""
        self._freed.put(slots)

    def put(self, message: PendingMessage) -> None:
        """Adds a message."""
        self.messages.append(message)
        self.changed.set()

    def complete(self) -> None:
        """Says that there is no other message."""
        self.is_complete = True
        self.changed.set()

    def abandon(self) -> None:
        """Says that nothing is published any more, also to a thread that waits for a slot."""
        self.is_abandoned = True
        self._freed.put(0)


@final
class Publisher:
    """Publishes what one append puts into a queue.

    Thread safety
    -------------
    On the connection's thread.

    Attributes
    ----------
    task : asyncio.Task or None
        The task that runs it, while it does.
    """

    def __init__(
        self,
        connection: Connection,
        stream: CoreStream,
        notices: Notices,
        queue: MessageQueue,
        end: StreamEnd,
        *,
        position: int,
        window: int,
    ) -> None:
        self._connection: Final = connection
        self._stream: Final = stream
        self._notices: Final = notices
        self._queue: Final = queue
        self._end: Final = end
        self._position = position
        self._window: Final = window
        self._in_flight: Final[deque[PendingMessage]] = deque()
        # Slots of acknowledged messages, not released yet.
        self._acknowledged = 0
        # When something was acknowledged last, or sent while nothing was in flight.
        self._progress_at = 0.0
        self.task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Publishes until the queue is complete and everything is acknowledged.

        Raises
        ------
        LogConflictError, CorruptLogError, LogUnavailableError
        """
        self.task = asyncio.current_task()
        self._progress_at = self._now()
        queue = self._queue
        try:
            while self._in_flight or queue.messages or not queue.is_complete:
                while self._may_send():
                    await self._send_next()
                while self._is_first_answered():
                    await self._take_answer()
                await self._free_slots()
                queue.changed.clear()
                if not (self._may_send() or self._is_first_answered() or self._is_done()):
                    await self._wait()
            self._end.position = self._position
        except BaseException:
            # Whether these were stored is asked before the next append.
            self._end.unconfirmed = list(self._in_flight)
            raise
        finally:
            # On the loop's thread the last reference to a task has to go: see LoopCall.
            self.task = None

    def _now(self) -> float:
        return self._connection.thread.loop.time()

    def _may_send(self) -> bool:
        return bool(self._queue.messages) and len(self._in_flight) < self._window

    def _is_first_answered(self) -> bool:
        return bool(self._in_flight) and (ack := self._in_flight[0].ack) is not None and ack.done()

    def _is_done(self) -> bool:
        return self._queue.is_complete and not self._in_flight and not self._queue.messages

    async def _send_next(self) -> None:
        message = self._queue.messages.popleft()
        self._position += 1
        message.position = self._position
        before = self._in_flight[-1] if self._in_flight else None
        self._in_flight.append(message)
        await self._send(message, before)
        if before is None:
            self._progress_at = self._now()

    async def _send(self, message: PendingMessage, before: PendingMessage | None) -> None:
        """Publishes a message to its position, `before` being one in flight that it has to follow."""
        headers = {
            "Nats-Msg-Id": message.message_id,
            "Nats-Expected-Stream": self._stream.name,
            "Nats-Expected-Last-Sequence": str(message.position - 1),
        }
        if before is not None:
            # The position is enough for a message that follows an acknowledged one. But if the one before is refused,
            # because another writer took its position, this one must not be stored at the next.
            headers["Nats-Expected-Last-Msg-Id"] = before.message_id
        acks = self._connection.acks
        reply, message.ack = acks.expect()
        message.ack.add_done_callback(lambda _: self._queue.changed.set())
        await acks.publish(self._stream.subject, message.body, reply, headers)

    async def _take_answer(self) -> None:
        """Handles the acknowledgement, or the error, of the first message in flight."""
        message = self._in_flight[0]
        if not await self._check_stored(message):
            if self._now() - self._progress_at > self._connection.timeout:
                raise self._connection.unavailable()
            await self._send_again()
            return
        self._in_flight.popleft()
        self._end.last = message.last
        self._stream.positions.add(Seen(message.last, message.position, message.first, message.message_id))
        self._acknowledged += 1
        self._progress_at = self._now()

    async def _free_slots(self) -> None:
        # Several at a time: each time wakes the thread that appends, and the two take turns for the GIL.
        if self._acknowledged and (self._acknowledged >= self._window // 2 or not self._in_flight):
            self._queue.free(self._acknowledged)
            self._acknowledged = 0
            if self._end.last is not None:
                await self._notices.announce(self._end.last)

    async def _wait(self) -> None:
        """Until the queue or an acknowledgement changes. One that does not come in time counts as lost."""
        if not self._in_flight:
            await self._queue.changed.wait()
            return
        try:
            async with asyncio.timeout(self._connection.ack_timeout):
                await self._queue.changed.wait()
        except TimeoutError:
            ack = self._in_flight[0].ack
            if ack is not None and not ack.done():
                ack.set_exception(nats.errors.TimeoutError())

    async def _check_stored(self, message: PendingMessage) -> bool:
        """What an answer means: True, the message is stored at its position; False, it has to be sent again."""
        ack, core_id = message.ack, self._stream.core_id
        if ack is None:
            return False
        error = ack.exception()
        if error is None:
            if ack.result() != message.position:
                raise LogConflictError(
                    f"core {core_id}, events {message.first} to {message.last}: the server has them at {ack.result()},"
                    f" and they were sent for {message.position}; is the stream {self._stream.name} written to by"
                    " others?"
                )
            return True
        if isinstance(error, TRANSIENT_ERRORS):
            self._connection.remember(error)
            return False
        if isinstance(error, nats.js.errors.APIError) and error.err_code in _WRONG_LAST:
            stored = await self._stream.get(message.position)
            if stored is None and error.err_code == _WRONG_LAST_ID:
                # Sent after one that was refused; or the server was started again and knows no old ids.
                return False
            if stored is None:
                raise CorruptLogError(
                    f"core {core_id}: the stream {self._stream.name} does not end at {message.position - 1}, where"
                    f" this writer had it acknowledged ({error.description}): the server has lost messages, or"
                    " something deleted them"
                )
            if stored.message_id == message.message_id:
                return True
            raise LogConflictError(
                f"core {core_id}, events {message.first} to {message.last}: another writer has appended"
                f" {stored.header.first} to {stored.header.last}; let one writer alone append to a core"
            )
        if isinstance(error, nats.errors.ConnectionClosedError):
            raise self._connection.unavailable() from error
        raise error

    async def _send_again(self) -> None:
        """Sends everything in flight, each message to the position that it had."""
        # A starting server answers "no responders" at once, so there is a pause in either case.
        await asyncio.sleep(RETRY_SECONDS / 5 if self._connection.client.is_connected else RETRY_SECONDS)
        before: PendingMessage | None = None
        for message in self._in_flight:
            if message.ack is not None and not message.ack.done():
                message.ack.cancel()
            await self._send(message, before)
            before = message
