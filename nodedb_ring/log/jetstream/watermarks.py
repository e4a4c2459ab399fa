"""``WatermarkBucket``: the key-value bucket with the watermarks of groups, and with how far each core was trimmed."""

from __future__ import annotations

import base64
import re
from typing import Final, NamedTuple, final

import nats.js.errors
from nats.js.kv import KeyValue

from ...errors import CorruptLogError, LogError
from .connection import Connection
from .stream import StreamSettings

__all__ = ["Watermark", "WatermarkBucket", "trimmed_key", "watermark_key"]

_NUMBER: Final = re.compile(rb"-?[0-9]+")
_WATERMARK: Final = re.compile(rb"([0-9]+)(?: (\S+))?")


def watermark_key(group: str, core_id: int) -> str:
    """The key of a group's watermark. Keys have letters, digits and few signs, so the group's name is encoded."""
    return f"watermark.{core_id}.g{base64.urlsafe_b64encode(group.encode()).decode()}"


def trimmed_key(core_id: int) -> str:
    """The key of the number up to which a core was trimmed."""
    return f"trimmed.{core_id}"


class Watermark(NamedTuple):
    """What is stored of a group and core: the number, the token of that moment, and the server's revision."""

    sequence: int
    token: str | None
    revision: int


@final
class WatermarkBucket:
    """Numbers by key. The bucket is made with the first.

    Thread safety
    -------------
    On the connection's thread.
    """

    def __init__(self, connection: Connection, settings: StreamSettings, name: str) -> None:
        self._connection: Final = connection
        self._settings: Final = settings
        self._name: Final = name
        self._bucket: KeyValue | None = None
        # The watermarks that were read or saved last.
        self._known: Final[dict[str, Watermark]] = {}

    async def load(self, key: str) -> int | None:
        """The number under a key; None if there is none.

        Raises
        ------
        CorruptLogError
            What is stored there is not a number.
        """
        bucket = await self._find()
        if bucket is None:
            return None
        try:
            entry = await self._connection.retry(lambda: bucket.get(key))
        except nats.js.errors.NotFoundError:
            return None
        value = entry.value or b""
        if not _NUMBER.fullmatch(value):
            raise CorruptLogError(f"bucket {self._name}, key {key}: {value!r} is not a number; delete the key")
        return int(value)

    async def save(self, key: str, number: int) -> None:
        """Stores a number under a key; returns when the server has acknowledged it."""
        bucket = await self._find() or await self._create()
        await self._connection.retry(lambda: bucket.put(key, str(number).encode()))

    async def load_watermark(self, key: str) -> Watermark | None:
        """The watermark under a key; None if there is none. Those of releases up to 0.2 have no token.

        Raises
        ------
        CorruptLogError
            What is stored there is none.
        """
        bucket = await self._find()
        if bucket is None:
            return None
        try:
            entry = await self._connection.retry(lambda: bucket.get(key))
        except nats.js.errors.NotFoundError:
            self._known.pop(key, None)
            return None
        value = entry.value or b""
        found = _WATERMARK.fullmatch(value)
        if found is None:
            raise CorruptLogError(f"bucket {self._name}, key {key}: {value!r} is no watermark; delete the key")
        token = None if found[2] is None else found[2].decode()
        self._known[key] = mark = Watermark(int(found[1]), token, entry.revision or 0)
        return mark

    async def save_watermark(self, key: str, sequence: int, token: str, *, rewind: bool) -> None:
        """Stores a watermark; returns when the server has acknowledged it.

        Raises
        ------
        LogError
            A higher one is stored, and `rewind` is not set.
        """
        bucket = await self._find() or await self._create()
        value = f"{sequence} {token}".encode()
        while True:
            # The server stores it after that one, or not at all.
            before = self._known.get(key) or await self.load_watermark(key)
            if before is not None and sequence < before.sequence and not rewind:
                before = await self.load_watermark(key)
                if before is not None and sequence < before.sequence:
                    raise LogError(
                        f"the watermark {sequence} was not saved: it stands at {before.sequence} already; rewind=True"
                        " moves it back, and the group gets events again"
                    )
            try:
                if before is None:
                    revision = await self._connection.retry(lambda: bucket.create(key, value))
                else:
                    last = before.revision
                    revision = await self._connection.retry(lambda: bucket.update(key, value, last=last))  # noqa: B023
            except nats.js.errors.KeyWrongLastSequenceError:
                # Somebody else's, or this one, whose acknowledgement was lost.
                self._known.pop(key, None)
                continue
            self._known[key] = Watermark(sequence, token, revision)
            return

    async def _find(self) -> KeyValue | None:
        if self._bucket is None:
            try:
                self._bucket = await self._connection.retry(lambda: self._connection.jetstream.key_value(self._name))
            except nats.js.errors.NotFoundError:
                return None
        return self._bucket

    async def _create(self) -> KeyValue:
        bucket = await self._connection.retry(
            lambda: self._connection.jetstream.create_key_value(
                bucket=self._name, history=1, storage=self._settings.storage, replicas=self._settings.replicas
            )
        )
        self._bucket = bucket
        return bucket
