"""``KeyClaim``: that one follower follows a core for a group, held by a key of a bucket whose keys live for a while.

The holder writes its key again before it ends, and answers requests on a subject of its own. The server knows at once
when nobody listens there any more: then the holder has died, or closed its connection, and is succeeded. A holder that
is connected and does not answer, such as a stopped process, is succeeded when its key has ended.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import time
from datetime import UTC, datetime
from typing import Any, Final, final

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.kv import KeyValue

from ...errors import ClosedError, RoleTaken
from .connection import TRANSIENT_ERRORS, Connection
from .stream import StreamSettings

__all__ = ["Claims", "KeyClaim"]

CLAIM_SECONDS: Final = 30.0
"""For how long a key lives that its holder does not write again."""
_PING_SECONDS: Final = 1.0
_RECONNECT_SECONDS: Final = 0.3
"""For how long a holder may be without its connection, after a restart of the server, and count as alive."""


@final
class Claims:
    """The bucket of one event log's claims, made with the first.

    Thread safety
    -------------
    On the connection's thread.
    """

    def __init__(self, connection: Connection, settings: StreamSettings, name: str) -> None:
        self._connection: Final = connection
        self._name: Final = f"{name}_followers"
        self._log_name: Final = name
        self._settings: Final = settings
        self._bucket: KeyValue | None = None

    async def claim(self, group: str, core_id: int, begun: list[KeyClaim]) -> KeyClaim:
        """``ExclusiveEventLog.claim_group``. Adds the claim to `begun` before there is anything to release."""
        bucket = await self._find()
        connection = self._connection
        key = f"{core_id}.g{base64.urlsafe_b64encode(group.encode()).decode()}"
        claim = KeyClaim(connection, bucket, key, self._log_name)
        begun.append(claim)
        try:
            await claim.answer()
            while True:
                with contextlib.suppress(nats.js.errors.KeyWrongLastSequenceError):
                    await claim.write(after=None)
                    return claim
                try:
                    entry = await connection.retry(lambda: bucket.get(key))
                except nats.js.errors.NotFoundError:
                    continue
                holder = _parsed(entry.value)
                if entry.value != claim.value and await self._is_alive(str(holder.get("subject", ""))):
                    raise _taken(self._log_name, group, core_id, holder)
                with contextlib.suppress(nats.js.errors.KeyWrongLastSequenceError):
                    await claim.write(after=entry.revision)
                    return claim
        except BaseException:
            await claim.end()
            raise

    async def _is_alive(self, subject: str) -> bool:
        """Whether somebody listens on a subject; a holder that reconnects gets a moment for it."""
        if not subject:
            return False
        for attempt in range(2):
            if await self._connection.retry(lambda: self._answers(subject)):
                return True
            if attempt == 0:
                await asyncio.sleep(_RECONNECT_SECONDS)
        return False

    async def _answers(self, subject: str) -> bool:
        """Asks once. Where the connection is lost before, the client's error is raised, and it is asked again."""
        try:
            await self._connection.client.request(subject, b"", timeout=_PING_SECONDS)
        except nats.errors.NoRespondersError:
            return False
        except (nats.errors.TimeoutError, TimeoutError):
            # It listens, and is slow.
            return True
        return True

    async def _find(self) -> KeyValue:
        if self._bucket is None:
            jetstream = self._connection.jetstream
            try:
                self._bucket = await self._connection.retry(lambda: jetstream.key_value(self._name))
            except nats.js.errors.NotFoundError:
                self._bucket = await self._connection.retry(
                    lambda: jetstream.create_key_value(
                        bucket=self._name,
                        history=1,
                        ttl=CLAIM_SECONDS,
                        storage=self._settings.storage,
                        replicas=self._settings.replicas,
                    )
                )
        return self._bucket


@final
class KeyClaim:
    """A key that is written again until it is released, or its process has died.

    Thread safety
    -------------
    ``release`` and ``check`` from any thread, also in a signal handler or a finalizer; the coroutines on the
    connection's.
    """

    def __init__(self, connection: Connection, bucket: KeyValue, key: str, log_name: str) -> None:
        self._connection: Final = connection
        self._bucket: Final = bucket
        self._key: Final = key
        self._log_name: Final = log_name
        self._subject: Final = connection.client.new_inbox()
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None
        self._revision = 0
        self._taken_by: RoleTaken | None = None
        self.value: Final = json.dumps(
            {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time(), "subject": self._subject}
        ).encode()

    # ---- from any thread -------------------------------------------------------------------------------------------

    def release(self) -> None:
        """``GroupClaim.release``. It does not wait."""
        with contextlib.suppress(ClosedError):
            if not self._connection.is_inherited:
                self._connection.call_soon(self._begin_to_end)

    def check(self) -> None:
        """``GroupClaim.check``."""
        if self._taken_by is not None:
            raise self._taken_by

    # ---- on the connection's thread --------------------------------------------------------------------------------

    async def answer(self) -> None:
        """Begins to answer those who ask whether the holder is alive."""
        client = self._connection.client
        self._subscription = await self._connection.retry(lambda: client.subscribe(self._subject, cb=self._on_request))
        await self._connection.retry(client.flush)

    async def write(self, *, after: int | None) -> None:
        """Writes the key, if its revision is `after`, or if there is none; and again, until the claim ends."""
        bucket, key, value = self._bucket, self._key, self.value
        if after is None:
            self._revision = await self._connection.retry(lambda: bucket.create(key, value))
        else:
            self._revision = await self._connection.retry(lambda: bucket.update(key, value, last=after))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep())

    async def end(self) -> None:
        """Stops answering, and deletes the key if it is still this claim's."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        subscription, self._subscription = self._subscription, None
        with contextlib.suppress(nats.errors.Error, ConnectionError, TimeoutError):
            if subscription is not None:
                await subscription.unsubscribe()
            if task is not None and self._taken_by is None:
                await self._bucket.delete(self._key, last=self._revision)

    def _begin_to_end(self) -> None:
        task = self._connection.thread.loop.create_task(self.end())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _keep(self) -> None:
        while self._taken_by is None:
            await asyncio.sleep(CLAIM_SECONDS / 3)
            with contextlib.suppress(*TRANSIENT_ERRORS, nats.errors.Error):
                await self._write_again()

    async def _write_again(self) -> None:
        try:
            self._revision = await self._bucket.update(self._key, self.value, last=self._revision)
        except nats.js.errors.KeyWrongLastSequenceError:
            try:
                entry = await self._bucket.get(self._key)
            except nats.js.errors.NotFoundError:
                # The server was started again, or the key had ended and nobody wanted it.
                self._revision = await self._bucket.create(self._key, self.value)
                return
            if entry.value == self.value:
                self._revision = entry.revision or 0
                return
            core_id, _, group = self._key.partition(".g")
            name = base64.urlsafe_b64decode(group).decode()
            self._taken_by = _taken(self._log_name, name, int(core_id), _parsed(entry.value))

    async def _on_request(self, message: Msg) -> None:
        await message.respond(b"")


def _parsed(value: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(value or b"")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _taken(log_name: str, group: str, core_id: int, holder: dict[str, Any]) -> RoleTaken:
    host, since = holder.get("host"), holder.get("since")
    when = "?" if not isinstance(since, float) else datetime.fromtimestamp(since, UTC).isoformat(" ", "seconds")
    pid = holder.get("pid")
    return RoleTaken(
        f"log {log_name}: core {core_id} is followed for group {group!r} by process {pid} on {host}, since {when};"
        " close that follower, or name another group",
        pid if isinstance(pid, int) and host == socket.gethostname() else None,
    )
