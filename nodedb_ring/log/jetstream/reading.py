"""``Reader``: a range of a core's numbers, fetched a few messages ahead; and what a trim forgets."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple, final

from ...batch._event_batch import EventBatch
from ...errors import CorruptLogError
from .connection import Connection
from .loop_thread import LoopCall
from .message import StoredMessage, decode, events_between
from .stream import CoreStream, Extent, Seen
from .watermarks import WatermarkBucket, trimmed_key

__all__ = ["Reader"]

_PREFETCH: Final = 4


class _Found(NamedTuple):
    """Where a range begins in the stream, the stream's extent, and the number up to which it was trimmed, or -1."""

    position: int
    extent: Extent
    trimmed_upto: int


@final
class Reader:
    """Reads and trims one core's stream.

    Thread safety
    -------------
    ``read`` from any thread, the coroutines on the connection's.
    """

    def __init__(self, connection: Connection, stream: CoreStream, bucket: WatermarkBucket) -> None:
        self._connection: Final = connection
        self._stream: Final = stream
        self._bucket: Final = bucket

    def read(self, first: int, last: int) -> Iterator[EventBatch]:
        """``EventLog.read``."""
        connection, stream = self._connection, self._stream
        undone = f"events {first} to {last} of core {stream.core_id} were not read, or not all of them"
        found = None if first > last else connection.call(undone, self._find, first, last)
        if found is None:
            return
        position, extent, trimmed_upto = found
        first = max(first, trimmed_upto + 1)
        fetches: deque[tuple[int, LoopCall[StoredMessage | None]]] = deque()
        # Most ranges are short, and what is fetched beyond their end is fetched for nothing.
        depth = 1
        try:
            while fetches or position <= extent.last:
                while position <= extent.last and len(fetches) < depth:
                    connection.check_open()
                    fetches.append((position, self._fetch(position, extent.replicas)))
                    position += 1
                depth = min(depth * 2, _PREFETCH)
                at, fetch = fetches.popleft()
                stored = connection.result(undone, fetch)
                if stored is None:
                    connection.call(undone, self._check_trimmed, at)
                    continue
                if stored.header.first > last:
                    return
                if stored.header.last < first:
                    continue
                yield from events_between(decode(stored), first, last)
                if stored.header.last >= last:
                    return
        finally:
            for _, fetch in fetches:
                fetch.cancel()

    def _fetch(self, position: int, replicas: int) -> LoopCall[StoredMessage | None]:
        return self._connection.begin(lambda: self._stream.get(position, replicas))

    async def _find(self, first: int, last: int) -> _Found | None:
        """Where the first message lies that ends at or after `first`: a binary search that begins with what is known.

        The extent ends with the message that has `last`, if that one is known.
        """
        stream = self._stream
        extent = await stream.extent()
        if extent is None or extent.last == 0:
            return None
        low, high = max(1, extent.first), extent.last + 1
        before, after = stream.positions.before(first), stream.positions.at_or_after(first)
        if before is not None:
            low = max(low, before + 1)
        if after is not None:
            high = min(high, after)
        while low < high:
            middle = (low + high) // 2
            stored = await stream.get(middle, extent.replicas)
            if stored is None or stored.header.last < first:
                low = middle + 1
            else:
                high = middle
        end = stream.positions.at_or_after(last)
        if end is not None:
            extent = extent._replace(last=min(extent.last, end))
        trimmed_upto = await self._bucket.load(trimmed_key(stream.core_id))
        return _Found(max(low, extent.first), extent, -1 if trimmed_upto is None else trimmed_upto)

    async def first_from(self, number: int) -> Seen | None:
        """The first message that ends at or after a number."""
        found = await self._find(number, number)
        stored = None if found is None else await self._stream.get(found.position, found.extent.replicas)
        return None if stored is None else _seen(stored)

    async def last_at(self, number: int) -> Seen | None:
        """The last message that begins at or before a number."""
        found = None if number < 0 else await self._find(number, number)
        if found is None:
            return None
        for position in (found.position, found.position - 1):
            if found.extent.first <= position <= found.extent.last:
                stored = await self._stream.get(position, found.extent.replicas)
                if stored is not None and stored.header.first <= number:
                    return _seen(stored)
        return None

    async def _check_trimmed(self, position: int) -> None:
        """Of a message that is missing: raises unless the stream begins after it by now."""
        extent = await self._stream.extent()
        if extent is not None and extent.first <= position:
            raise CorruptLogError(
                f"core {self._stream.core_id}: message {position} of stream {self._stream.name} is missing, and"
                f" {extent.first} before it is there; it was deleted, or the server lost it"
            )

    async def trim(self, upto: int) -> None:
        """``EventLog.trim``. The last message stays on the server, for its number."""
        if upto < 0:
            return
        found = await self._find(upto + 1, 2**64)
        if found is None:
            return
        position, extent, trimmed_upto = found
        if position > extent.last:
            # Saved before the purge: whoever reads between the two finds the last message trimmed, or everything.
            last = await self._stream.last_sequence()
            if last is not None and last <= upto and last > trimmed_upto:
                await self._bucket.save(trimmed_key(self._stream.core_id), last)
            position = extent.last
        # A purge up to 1 is a purge of everything to servers before 2.10.
        if position > max(1, extent.first):
            await self._stream.purge_below(position)


def _seen(stored: StoredMessage) -> Seen:
    return Seen(stored.header.last, stored.position, stored.header.first, stored.message_id)
