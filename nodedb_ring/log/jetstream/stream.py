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

__all__ = ["CoreStream", "Extent", "Seen", "StreamSettings"]

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


class Seen(NamedTuple):
    """A message that was seen: its last number, its position, its first number and its id."""

    last: int
    position: int
    first: int
    message_id: str


@final
class PositionIndex:
    """Messages that were seen, in order: where a search begins. Of bounded size."""

    def __init__(self) -> None:
        self._entries: list[Seen] = []

    def add(self, seen: Seen) -> None:
        """Remembers a message."""
        at = bisect.bisect_left(self._entries, seen)
        if at == len(self._entries) or self._entries[at] != seen:
            self._entries.insert(at, seen)
            if len(self._entries) > _MOST_KNOWN:
                del self._entries[:-1:2]

    def clear(self) -> None:
        self._entries.clear()

    def last_number_at(self, position: int) -> int | None:
        """The last number of the message at a position."""
        return next((seen.last for seen in reversed(self._entries) if seen.position == position), None)

    def highest_position(self) -> int | None:
        return self._entries[-1].position if self._entries else None

    def before(self, number: int) -> int | None:
        """The last known position of a message that ends below a number."""
        at = bisect.bisect_left(self._entries, (number, 0))
        return self._entries[at - 1].position if at else None

    def at_or_after(self, number: int) -> int | None:
        """The first known position of a message that ends at a number or above."""
        at = bisect.bisect_left(self._entries, (number, 0))
        return self._entries[at].position if at < len(self._entries) else None

    def covering(self, number: int) -> Seen | None:
        """The message that has a number, if that is known."""
        at = bisect.bisect_left(self._entries, (number, 0))
        return self._entries[at] if at < len(self._entries) and self._entries[at].first <= number else None


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
    created : object
        When the server made it, as of the last answer; None: there was none.
    """

    def __init__(
        self, connection: Connection, settings: StreamSettings, core_id: int, *, name: str, subject: str
    ) -> None:
        self._connection: Final = connection
        self._settings: Final = settings
        self.created: object = None
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
            self.created = None
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
        if self.created != extent.created or (highest is not None and highest > extent.last):
            self.created = extent.created
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
        message_id = (raw.headers or {}).get("Nats-Msg-Id", "")
        self.positions.add(Seen(header.last, position, header.first, message_id))
        return StoredMessage(position, message_id, body, header)

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
