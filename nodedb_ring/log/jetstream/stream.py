"""``CoreStream``: one core's stream on the servers. Positions in it are its sequence numbers, 1, 2, 3 and so on."""

from __future__ import annotations

import bisect
from typing import Final, NamedTuple, final

import nats.js.errors
from nats.js import api

from ...errors import CorruptLogError, LogError
from .connection import Connection
from .high_water import HighWaterMark
from .message import StoredMessage, header_of

__all__ = ["CoreStream", "Extent", "StreamSettings"]

_MOST_KNOWN: Final = 4096
_LAST_ATTEMPTS: Final = 8
"""How often the last message is asked for that is purged meanwhile."""


class StreamSettings(NamedTuple):
    """With what streams and bucket are made."""

    storage: api.StorageType
    replicas: int
    duplicate_window: float


class Extent(NamedTuple):
    """What the server says of a stream: its first and its last position, how many servers have it, when it was made."""

    first: int
    last: int
    replicas: int
    created: object


@final
class PositionIndex:
    """Last numbers and positions of messages that were seen, in order: where a search begins. Of bounded size."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, int]] = []

    def add(self, last: int, position: int) -> None:
        """Remembers that the message at a position ends with the number `last`."""
        at = bisect.bisect_left(self._entries, (last, position))
        if at == len(self._entries) or self._entries[at] != (last, position):
            self._entries.insert(at, (last, position))
            if len(self._entries) > _MOST_KNOWN:
                del self._entries[:-1:2]

    def clear(self) -> None:
        self._entries.clear()

    def last_number_at(self, position: int) -> int | None:
        """The last number of the message at a position."""
        return next((last for last, known in reversed(self._entries) if known == position), None)

    def highest_position(self) -> int | None:
        return self._entries[-1][1] if self._entries else None

    def before(self, number: int) -> int | None:
        """The last known position of a message that ends below a number."""
        at = bisect.bisect_left(self._entries, (number, 0))
        return self._entries[at - 1][1] if at else None

    def at_or_after(self, number: int) -> int | None:
        """The first known position of a message that ends at a number or above."""
        at = bisect.bisect_left(self._entries, (number, 0))
        return self._entries[at][1] if at < len(self._entries) else None


@final
class CoreStream:
    """The stream of one core: whether it is there, where it ends, its messages.

    Thread safety
    -------------
    On the connection's thread; ``stored`` from any.

    Attributes
    ----------
    stored : HighWaterMark
        The highest number known to be stored.
    positions : PositionIndex
    """

    def __init__(
        self, connection: Connection, settings: StreamSettings, core_id: int, *, name: str, subject: str
    ) -> None:
        self._connection: Final = connection
        self._settings: Final = settings
        self._created: object = None
        self.core_id: Final = core_id
        self.name: Final = name
        self.subject: Final = subject
        self.stored: Final = HighWaterMark()
        self.positions: Final = PositionIndex()

    async def extent(self) -> Extent | None:
        """Where it begins and ends; None if there is no such stream."""
        try:
            info = await self._connection.retry(lambda: self._connection.jetstream.stream_info(self.name))
        except nats.js.errors.NotFoundError:
            self.positions.clear()
            return None
        subjects = info.config.subjects or []
        if subjects != [self.subject]:
            raise LogError(
                f"stream {self.name} has the subjects {subjects}, not {self.subject}: it is not a log; use another name"
            )
        extent = Extent(info.state.first_seq, info.state.last_seq, info.config.num_replicas or 1, info.created)
        highest = self.positions.highest_position()
        # Another stream of the same name, or one that a power cut made shorter: positions mean something else.
        if self._created != extent.created or (highest is not None and highest > extent.last):
            self._created = extent.created
            self.positions.clear()
        return extent

    async def create(self) -> None:
        """Makes it.

        Raises
        ------
        LogError
            The server refuses.
        """
        config = api.StreamConfig(
            name=self.name,
            subjects=[self.subject],
            storage=self._settings.storage,
            num_replicas=self._settings.replicas,
            retention=api.RetentionPolicy.LIMITS,
            discard=api.DiscardPolicy.NEW,
            max_age=0,
            max_bytes=-1,
            max_msgs=-1,
            duplicate_window=self._settings.duplicate_window,
            allow_direct=True,
        )
        try:
            await self._connection.retry(lambda: self._connection.jetstream.add_stream(config))
        except nats.js.errors.APIError as error:
            raise LogError(f"stream {self.name} cannot be made: {error.description}") from error

    async def get(self, position: int, replicas: int = 3) -> StoredMessage | None:
        """The message at a position; None if it was trimmed. Of several servers the leader is asked: others lag."""
        try:
            raw = await self._connection.retry(
                lambda: self._connection.jetstream.get_msg(self.name, seq=position, direct=replicas == 1)
            )
        except nats.js.errors.NotFoundError:
            return None
        body = raw.data or b""
        header = header_of(body, self.core_id, position)
        self.positions.add(header.last, position)
        return StoredMessage(position, (raw.headers or {}).get("Nats-Msg-Id", ""), body, header)

    async def last_sequence(self) -> int | None:
        """The last number that is stored, asked of the server."""
        for _ in range(_LAST_ATTEMPTS):
            extent = await self.extent()
            if extent is None or extent.last == 0:
                return None
            last = self.positions.last_number_at(extent.last)
            if last is None:
                found = await self.get(extent.last, extent.replicas)
                if found is None:
                    continue
                last = found.header.last
            self.stored.advance(last)
            return last
        raise CorruptLogError(
            f"core {self.core_id}: stream {self.name} says that its last message is one that it does not have;"
            " something else deletes from it"
        )

    async def purge_below(self, position: int) -> None:
        """Deletes the messages before a position."""
        await self._connection.retry(lambda: self._connection.jetstream.purge_stream(self.name, seq=position))
