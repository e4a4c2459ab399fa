"""``JetStreamEventLog``: the log on NATS, for followers on other machines and for copies on several servers."""

from __future__ import annotations

import asyncio
import base64
import bisect
import contextlib
import json
import math
import os
import re
import secrets
import struct
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, TypeVar

import numpy as np

from ..batch import EventBatch
from ..errors import (
    ArgumentError,
    ClosedError,
    CorruptLogError,
    ForkError,
    LogConflictError,
    LogError,
    LogUnavailableError,
)
from ..limits import limit_seconds
from . import MAX_BATCH_EVENTS
from .encoding import check_rising, decode_batch, encode_batch

try:
    import nats
    import nats.errors
    import nats.js.errors
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext, api
    from nats.js.kv import KeyValue
except ImportError as _error:
    raise ImportError("JetStreamEventLog needs nats-py: pip install 'nodedb_ring[nats]'") from _error

__all__ = ["JetStreamEventLog"]

_T = TypeVar("_T")

_MAGIC: Final = b"NRL1"
# Magic, count, core, first and last number, bytes of rows, checksum: in front of the rows and the payload.
_HEAD: Final = struct.Struct("<4sIQQQQI")
_HEADERS_BYTES: Final = 1024
"""Room for the headers of a message, which count into the server's max_payload."""
_PREFETCH: Final = 4
_MARKS: Final = 4096
_RECONNECT_SECONDS: Final = 0.1
_PROBE_SECONDS: Final = 0.05
_STOP_SECONDS: Final = 10.0
"""For which a close waits for the connection's thread, whatever the patience with a server is."""
_WRONG_LAST_ID: Final = 10070
_WRONG_LAST: Final = frozenset({_WRONG_LAST_ID, 10071, 10164})
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_SCHEME: Final = re.compile(r"(nats|tls|ws|wss)://")
_STORAGE: Final = {"file": api.StorageType.FILE, "memory": api.StorageType.MEMORY}
# What passes: the server is away, starting, electing a leader, or slow.
_PASSING: Final = (
    nats.errors.TimeoutError,
    nats.errors.NoRespondersError,
    nats.errors.OutboundBufferLimitError,
    nats.errors.ConnectionReconnectingError,
    nats.errors.StaleConnectionError,
    nats.js.errors.ServiceUnavailableError,
    nats.js.errors.NoStreamResponseError,
    ConnectionError,
    TimeoutError,
)


class _Head(NamedTuple):
    events: int
    core_id: int
    first: int
    last: int
    rows_bytes: int
    checksum: int


class _Stored(NamedTuple):
    """A message as the server has it."""

    position: int
    message_id: str
    body: bytes
    head: _Head


class _Extent(NamedTuple):
    """What the server says of a core's stream."""

    first: int
    last: int
    replicas: int
    created: object


@dataclass(slots=True)
class _Message:
    """A batch, or a part of one, on its way."""

    first: int
    last: int
    message_id: str
    body: bytes
    position: int = 0
    ack: asyncio.Future[int] | None = None
    """The position at which the server has it."""


@dataclass(slots=True)
class _Core:
    """What this instance knows of a core's stream. Positions are the stream's sequence numbers, 1, 2, 3 ... ."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    position: int | None = None
    """Of the last message, as far as this instance appended it; None: must be asked."""
    last: int | None = None
    doubtful: list[_Message] = field(default_factory=list["_Message"])
    """Were sent, and nothing was heard of them until the patience was over."""
    created: object = None
    marks: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """Last numbers and positions of messages that were seen, in order: where a search begins."""

    def mark(self, last: int, position: int) -> None:
        """Remembers where a message lies."""
        at = bisect.bisect_left(self.marks, (last, position))
        if at == len(self.marks) or self.marks[at] != (last, position):
            self.marks.insert(at, (last, position))
            if len(self.marks) > _MARKS:
                del self.marks[:-1:2]


class _Feed:
    """Messages from the thread that appends to the event loop that publishes; a slot each until it is acknowledged."""

    def __init__(self, slots: int) -> None:
        self._number = slots
        self.slots = threading.Semaphore(slots)
        self.queue: deque[_Message] = deque()
        self.wake = asyncio.Event()
        self.ended = False
        self.finished = False

    def put(self, message: _Message) -> None:
        self.queue.append(message)
        self.wake.set()

    def end(self) -> None:
        self.ended = True
        self.wake.set()

    def finish(self, _: Future[None]) -> None:
        """Nothing is published any more: lets go whoever waits for a slot."""
        self.finished = True
        self.slots.release(self._number)


class JetStreamEventLog:
    """An event log on NATS JetStream; a ``LiveEventLog``. Needs nats-server 2.9 or newer.

    Each core has a stream of its own, ``<stream>_core_<n>``, with the one subject ``<stream>.core.<n>``: so the
    positions in a stream are known before they are acknowledged, many publishes may be in flight and each still says
    which message it must follow. Watermarks lie in the key-value bucket ``<stream>``. Streams and bucket are made when
    first written to. A message is a batch; one that the server's ``max_payload`` does not hold becomes several.

    Parameters
    ----------
    servers : str or sequence of str
        URLs as ``nats://host:4222``; the others of a cluster are found out. Credentials in them are not
        shown, neither by ``repr()`` nor in messages.
    stream : str
        Letters, digits, ``_`` and ``-``.
    replicas : int
        Servers that keep a copy, for streams and a bucket that are yet to be made.
    storage : {"file", "memory"}
        Where the servers keep it. In memory, a server that stops forgets.
    window : int
        Publishes in flight, of ``append_all``; their messages, each of at most ``max_payload``, are held in memory.
    timeout : float or None
        Seconds that a call goes on without any progress, through reconnects and restarts, before it raises
        `LogUnavailableError`; above 0. None and infinity wait until ``close()``.
    duplicate_window : float
        Seconds for which the server knows the ids of messages; above 0.
    **connect_options
        For ``nats.connect``: ``user``, ``password``, ``token``, ``tls``, ``user_credentials``, ``name`` and so on.

    Raises
    ------
    LogUnavailableError
        No server answers, or none lets us in. Also from every method.
    ArgumentError
        A `timeout` or `duplicate_window` that is not above 0, or NaN.

    What an acknowledgement promises
    --------------------------------
    * With file storage, a server that is killed and started again has every acknowledged batch. The operating system
      may not: a server acknowledges when it has written, and calls fsync every ``sync_interval``, which is two minutes
      by default. A power cut or a crash of the machine can take what was acknowledged since. ``sync_interval: always``
      in the ``jetstream`` block of the server's configuration (2.10 or newer) makes the acknowledgement mean the disk,
      and appends slow.
    * With ``replicas=3`` an acknowledgement means that two servers of three have it, so one may be lost with all it
      has; each of them fsyncs as late as one alone. Power cuts of several at once can take acknowledged batches.
    * A log that lost acknowledged batches under a running writer is found: the writer's next append raises
      `CorruptLogError`.
    * A publish whose acknowledgement does not come is sent again under the same ``Nats-Msg-Id``, at the same
      position, so it is stored once: within the duplicate window the server drops the copy, and after it the
      position refuses it.
    * A second writer is refused (``Nats-Expected-Last-Sequence``, and ``Nats-Expected-Last-Msg-Id`` behind a publish
      in flight): `LogConflictError`.
    * After `LogUnavailableError` an append may have been stored, or, of several messages, the front of it. The same
      batch may be appended again on the same log object: what was stored is not stored twice. Another batch, or
      another object, asks ``last_sequence`` first.

    Thread safety
    -------------
    Any thread, several at once; appends of one core come one after the other. A thread of its own runs the
    connection. After ``fork`` the child must make a log of its own.
    """

    def __init__(
        self,
        servers: str | Sequence[str],
        stream: str,
        *,
        replicas: int = 1,
        storage: Literal["file", "memory"] = "file",
        window: int = 16,
        timeout: float | None = 10.0,
        duplicate_window: float = 120.0,
        **connect_options: Any,
    ) -> None:
        if not _NAME.fullmatch(stream):
            raise ValueError(f"stream {stream!r}: must be of letters, digits, _ and -")
        if storage not in _STORAGE:
            raise ValueError(f"storage {storage!r}: must be 'file' or 'memory'")
        if not 1 <= window <= 1024:
            raise ValueError(f"window {window}: must be from 1 to 1024; 8 to 16 are usual")
        limit = limit_seconds(timeout)
        if limit == 0:
            raise ArgumentError(f"timeout {timeout}: must be above 0 seconds, or None for no limit")
        if not limit_seconds(duplicate_window, "duplicate_window"):
            raise ArgumentError(f"duplicate_window {duplicate_window}: must be a number of seconds, above 0")
        if not 1 <= replicas <= 5:
            raise ValueError(f"replicas {replicas}: must be from 1 to 5")
        self._servers = [servers] if isinstance(servers, str) else list(servers)
        self._shown = [_without_credentials(url) for url in self._servers]
        self._stream = stream
        self._replicas = replicas
        self._storage = _STORAGE[storage]
        self._window = window
        self._timeout = math.inf if limit is None else limit
        self._duplicate_window = duplicate_window
        # Of this instance alone: another writer's batch of the same numbers is no duplicate of ours.
        self._nonce = secrets.token_hex(8)
        self._pid = os.getpid()
        self._closed = False
        self._cores: dict[int, _Core] = {}
        self._lock = threading.Lock()
        self._appended = threading.Condition(self._lock)
        self._seen: dict[int, int] = {}
        self._watched: set[int] = set()
        self._in_flight: dict[str, asyncio.Future[int]] = {}
        self._inbox = ""
        self._sent = 0
        self._bucket: KeyValue | None = None
        self._last_error: BaseException | None = None
        self._away_since: float | None = None
        self._client = Client()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"nodedb-ring-log-{stream}", daemon=True)
        self._thread.start()
        try:
            self._call(self._connect(connect_options))
        except BaseException:
            self._stop()
            raise
        self._js: JetStreamContext = self._client.jetstream(timeout=min(self._timeout, 2.0))

    @property
    def stream(self) -> str:
        """The name that streams, subjects and bucket begin with."""
        return self._stream

    def close(self) -> None:
        """Ends the connection. Calls in progress raise `ClosedError`. Closing again does nothing."""
        if self._closed or self._pid != os.getpid():
            return
        with self._appended:
            self._closed = True
            self._appended.notify_all()
        self._stop()

    def __enter__(self) -> JetStreamEventLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"JetStreamEventLog({', '.join(self._shown)}, {self._stream!r}, {state})"

    def append(self, core_id: int, batch: EventBatch) -> None:
        """``EventLog.append``: returns when the server has acknowledged it.

        A batch above the server's ``max_payload`` is stored as several messages, each all or nothing.

        Raises
        ------
        LogConflictError, LogUnavailableError
        LogError
            One event is larger than the server's ``max_payload``, or the server refuses it.
        """
        self.append_all(core_id, (batch,))

    def append_all(self, core_id: int, batches: Iterable[EventBatch]) -> None:
        """Appends batch after batch, with `window` publishes in flight; returns when all are acknowledged.

        After an error what came before is stored, in order, up to some batch; ``last_sequence`` says to which. What
        `batches` raises, comes out when those before it are acknowledged.
        """
        core = self._core(core_id)
        with core.lock:
            self._check_open()
            stored: frozenset[str] = frozenset()
            if core.position is None:
                stored = self._call(self._learn(core_id, core))
            last = core.last
            feed: _Feed | None = None
            run: Future[None] | None = None
            try:
                for batch in batches:
                    if not len(batch):
                        continue
                    # A batch that a call before this one sent, and could not tell whether it came, is passed over.
                    messages = list(self._messages(core_id, batch))
                    waiting = [message for message in messages if message.message_id not in stored]
                    if not waiting:
                        continue
                    check_rising(batch[len(batch) - 1 :] if len(waiting) < len(messages) else batch, last)
                    if feed is None:
                        feed = _Feed(2 * self._window)
                        run = self._begin(self._publish(core_id, core, feed))
                        run.add_done_callback(feed.finish)
                    for message in waiting:
                        feed.slots.acquire()
                        if feed.finished:
                            break
                        self._loop.call_soon_threadsafe(feed.put, message)
                        last = message.last
                    if feed.finished:
                        break
            finally:
                if feed is not None and run is not None:
                    with contextlib.suppress(RuntimeError):
                        self._loop.call_soon_threadsafe(feed.end)
                    self._result(run)

    def read(self, core_id: int, first_sequence: int, last_sequence: int) -> Iterator[EventBatch]:
        """``EventLog.read``: a few messages are fetched ahead, so at most that many are in memory."""
        core = self._core(core_id)
        self._check_open()
        return self._read(core_id, core, first_sequence, last_sequence)

    def last_sequence(self, core_id: int) -> int | None:
        """``EventLog.last_sequence``, asked of the server."""
        return self._call(self._ask_last(core_id, self._core(core_id)))

    def trim(self, core_id: int, upto: int) -> None:
        """``EventLog.trim``: forgets messages whose events are all at or below `upto`.

        The last message stays on the server, for its number; once it is trimmed, it is not read any more.
        """
        self._call(self._trim(core_id, self._core(core_id), upto))

    def load_watermark(self, group: str, core_id: int) -> int | None:
        """``EventLog.load_watermark``."""
        return self._call(self._load(_watermark_key(group, core_id)))

    def save_watermark(self, group: str, core_id: int, sequence: int) -> None:
        """``EventLog.save_watermark``: returns when the server has acknowledged it."""
        self._call(self._save(_watermark_key(group, core_id), sequence))

    def wait_beyond(self, core_id: int, sequence: int, timeout: float) -> bool:
        """``LiveEventLog.wait_beyond``: whoever appends tells what is stored; nothing is asked meanwhile.

        While the server is away it waits; it raises `LogUnavailableError` when that has lasted for the log's own
        timeout.
        """
        limit = limit_seconds(timeout)
        self._check_open()
        until = None if limit is None else time.monotonic() + limit
        if core_id not in self._watched:
            if self._away_since is None:
                self._call(self._watch(core_id))
            if limit == 0:
                return self._seen.get(core_id, -1) > sequence
        with self._appended:
            while self._seen.get(core_id, -1) <= sequence and not self._closed:
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    break
                self._appended.wait(left)
            if self._seen.get(core_id, -1) > sequence:
                return True
        self._check_open()
        away_since = self._away_since
        if away_since is not None:
            if time.monotonic() - away_since > self._timeout:
                raise self._unavailable()
            return False
        # A note that the client dropped, or that no one sent, must not be missed for ever.
        last = self.last_sequence(core_id)
        return last is not None and last > sequence

    # ---- the thread of the connection, and the way to it

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        # What came between the end of the connection and here has a thread that waits for it.
        self._loop.run_until_complete(self._disconnect())
        self._loop.close()

    def _stop(self) -> None:
        patience = min(self._timeout, _STOP_SECONDS)
        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(self._disconnect(), self._loop).result(patience)
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(patience)

    async def _disconnect(self) -> None:
        mine = asyncio.current_task()
        with contextlib.suppress(Exception):
            await self._client.close()
        await asyncio.sleep(0)
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _check_open(self) -> None:
        self._check_process()
        if self._closed:
            raise ClosedError(f"log {self._stream}: is closed")

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise ForkError(
                f"log {self._stream}: was inherited by fork, and its connection stays with the parent;"
                " make a JetStreamEventLog after the fork"
            )

    def _call(self, work: Coroutine[Any, Any, _T]) -> _T:
        try:
            self._check_open()
        except BaseException:
            work.close()
            raise
        return self._result(self._begin(work))

    def _begin(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError as error:
            work.close()
            raise ClosedError(f"log {self._stream}: was closed meanwhile") from error

    def _result(self, future: Future[_T]) -> _T:
        try:
            return future.result()
        except CancelledError as error:
            if self._closed:
                raise ClosedError(f"log {self._stream}: was closed meanwhile") from error
            raise
        except BaseException as error:
            # A KeyboardInterrupt of the waiting thread, above all.
            future.cancel()
            if isinstance(error, nats.errors.Error):
                raise LogError(f"log {self._stream}: the server refuses: {error}") from error
            raise

    def _core(self, core_id: int) -> _Core:
        if not 0 <= core_id < 2**64:
            raise ValueError(f"core_id {core_id}: must be from 0 to {2**64 - 1}")
        # A thread of the parent may have held the lock at the fork.
        self._check_process()
        with self._lock:
            return self._cores.setdefault(core_id, _Core())

    def _name(self, core_id: int) -> str:
        return f"{self._stream}_core_{core_id}"

    def _subject(self, core_id: int) -> str:
        return f"{self._stream}.core.{core_id}"

    def _note(self, core_id: int) -> str:
        """The subject on which whoever appends tells of what is stored."""
        return f"{self._stream}.stored.{core_id}"

    def _unavailable(self) -> LogUnavailableError:
        why = f": {self._last_error}" if self._last_error is not None and str(self._last_error) else ""
        for url, shown in zip(self._servers, self._shown, strict=True):
            # As an error may name it that comes from below.
            why = why.replace(url, shown)
        patience = "" if self._timeout == math.inf else f" in {self._timeout:g} s"
        return LogUnavailableError(
            f"log {self._stream}: no answer from {', '.join(self._shown)}{patience}{why};"
            " check that nats-server runs there with JetStream (nats-server -js), the URL and the credentials"
        )

    # ---- connection

    async def _connect(self, options: dict[str, Any]) -> None:
        settings: dict[str, Any] = {
            "name": f"nodedb_ring log {self._stream}",
            "reconnect_time_wait": _RECONNECT_SECONDS,
            "max_reconnect_attempts": -1,
            "connect_timeout": min(2.0, self._timeout),
            # What the client keeps while it is disconnected it sends in its own order; we send again ourselves.
            "pending_size": 0,
            "error_cb": self._on_error,
            "disconnected_cb": self._on_disconnect,
            "reconnected_cb": self._on_reconnect,
        }
        try:
            async with asyncio.timeout(None if self._timeout == math.inf else self._timeout):
                await self._client.connect(servers=self._servers, **(settings | options))
                self._inbox = self._client.new_inbox()
                await self._client.subscribe(f"{self._inbox}.*", cb=self._on_answer)
        except (*_PASSING, OSError, nats.errors.Error) as error:
            with contextlib.suppress(Exception):
                await self._client.close()
            if not isinstance(error, TimeoutError):
                self._last_error = error
            raise self._unavailable() from error

    async def _on_error(self, error: Exception) -> None:
        self._last_error = error
        if isinstance(error, nats.errors.SlowConsumerError):
            await self._look_again()

    async def _on_disconnect(self) -> None:
        self._away_since = time.monotonic()
        for ack in list(self._in_flight.values()):
            if not ack.done():
                ack.set_exception(ConnectionResetError("disconnected before the acknowledgement"))

    async def _on_reconnect(self) -> None:
        self._away_since = None
        self._last_error = None
        await self._look_again()

    async def _look_again(self) -> None:
        # Not awaited here: the client's callbacks come from the task that reads the connection.
        task = self._loop.create_task(self._look_at_watched())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _look_at_watched(self) -> None:
        for core_id in list(self._watched):
            await self._ask_last(core_id, self._core(core_id))

    async def _patiently(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Tries until it is answered, or the patience is over."""
        until = self._loop.time() + self._timeout
        while True:
            try:
                return await attempt()
            except _PASSING as error:
                if self._loop.time() >= until:
                    if str(error):
                        self._last_error = error
                    raise self._unavailable() from error
            except nats.errors.ConnectionClosedError as error:
                raise self._unavailable() from error
            await asyncio.sleep(_PROBE_SECONDS)

    # ---- asking

    async def _ask_extent(self, core_id: int) -> _Extent | None:
        name = self._name(core_id)
        try:
            info = await self._patiently(lambda: self._js.stream_info(name))
        except nats.js.errors.NotFoundError:
            self._core(core_id).marks.clear()
            return None
        subjects, wanted = info.config.subjects or [], self._subject(core_id)
        if subjects != [wanted]:
            raise LogError(f"stream {name} has the subjects {subjects}, not {wanted}: it is no log; use another name")
        extent = _Extent(info.state.first_seq, info.state.last_seq, info.config.num_replicas or 1, info.created)
        core = self._core(core_id)
        # Another stream of the same name, or one that a power cut made shorter: positions mean something else.
        if core.created != extent.created or (core.marks and core.marks[-1][1] > extent.last):
            core.created = extent.created
            core.marks.clear()
        return extent

    async def _get(self, core_id: int, position: int, replicas: int = 3) -> _Stored | None:
        """The message at a position; None if it was trimmed. Of several servers the leader is asked: others lag."""
        name = self._name(core_id)
        try:
            raw = await self._patiently(lambda: self._js.get_msg(name, seq=position, direct=replicas == 1))
        except nats.js.errors.NotFoundError:
            return None
        body = raw.data or b""
        head = _head_of(body, core_id, position)
        self._core(core_id).mark(head.last, position)
        return _Stored(position, (raw.headers or {}).get("Nats-Msg-Id", ""), body, head)

    async def _ask_last(self, core_id: int, core: _Core) -> int | None:
        for _ in range(8):
            extent = await self._ask_extent(core_id)
            if extent is None or extent.last == 0:
                return None
            last = next((last for last, position in reversed(core.marks) if position == extent.last), None)
            if last is None:
                stored = await self._get(core_id, extent.last, extent.replicas)
                if stored is None:
                    continue
                last = stored.head.last
            self._tell(core_id, last)
            return last
        raise CorruptLogError(
            f"core {core_id}: stream {self._name(core_id)} says that its last message is one that it does not have;"
            " something else deletes from it"
        )

    def _tell(self, core_id: int, last: int) -> None:
        with self._appended:
            if last > self._seen.get(core_id, -1):
                self._seen[core_id] = last
                self._appended.notify_all()

    async def _watch(self, core_id: int) -> None:
        async def on_note(message: Msg) -> None:
            if message.data.isdigit():
                self._tell(core_id, int(message.data))

        if core_id not in self._watched:
            await self._patiently(lambda: self._client.subscribe(self._note(core_id), cb=on_note))
            self._watched.add(core_id)
            await self._patiently(lambda: self._client.flush(2))
        await self._ask_last(core_id, self._core(core_id))

    # ---- appending

    def _messages(self, core_id: int, batch: EventBatch) -> Iterator[_Message]:
        encoded = encode_batch(batch, core_id=core_id)
        size = _HEAD.size + len(encoded.rows) + len(encoded.payload)
        room = self._client.max_payload - _HEADERS_BYTES
        if size > room:
            if len(batch) == 1:
                raise LogError(
                    f"event {encoded.first} of core {core_id}: {size} bytes, and the server takes {room};"
                    " raise max_payload in the configuration of nats-server"
                )
            parts = min(len(batch), -(-size // room))
            for start in range(0, len(batch), step := -(-len(batch) // parts)):
                yield from self._messages(core_id, batch[start : start + step])
            return
        head = _HEAD.pack(
            _MAGIC, encoded.count, core_id, encoded.first, encoded.last, len(encoded.rows), encoded.checksum
        )
        message_id = f"{core_id}-{encoded.first}-{encoded.last}-{encoded.checksum:08x}-{self._nonce}"
        yield _Message(encoded.first, encoded.last, message_id, b"".join((head, encoded.rows, encoded.payload)))

    async def _learn(self, core_id: int, core: _Core) -> frozenset[str]:
        """Where the stream ends; makes it if there is none. Returns the doubtful messages that did come."""
        extent = await self._ask_extent(core_id)
        if extent is None:
            config = api.StreamConfig(
                name=self._name(core_id),
                subjects=[self._subject(core_id)],
                storage=self._storage,
                num_replicas=self._replicas,
                retention=api.RetentionPolicy.LIMITS,
                discard=api.DiscardPolicy.NEW,
                max_age=0,
                max_bytes=-1,
                max_msgs=-1,
                duplicate_window=self._duplicate_window,
                allow_direct=True,
            )
            try:
                await self._patiently(lambda: self._js.add_stream(config))
            except nats.js.errors.APIError as error:
                raise LogError(f"stream {config.name} cannot be made: {error.description}") from error
            extent = await self._ask_extent(core_id)
        core.last = await self._ask_last(core_id, core)
        stored: set[str] = set()
        for message in core.doubtful:
            found = await self._get(core_id, message.position)
            if found is not None and found.message_id == message.message_id:
                stored.add(message.message_id)
        core.doubtful = []
        core.position = 0 if extent is None else extent.last
        return frozenset(stored)

    async def _send(self, core_id: int, message: _Message, before: _Message | None) -> None:
        """Publishes a message to its position, `before` being one in flight that it must follow."""
        headers = {
            "Nats-Msg-Id": message.message_id,
            "Nats-Expected-Stream": self._name(core_id),
            "Nats-Expected-Last-Sequence": str(message.position - 1),
        }
        if before is not None:
            # The position alone would do for one that follows an acknowledged message. But if the one before is
            # refused since another writer took its position, that position is no longer free for this one to follow.
            headers["Nats-Expected-Last-Msg-Id"] = before.message_id
        self._sent += 1
        reply = f"{self._inbox}.{self._sent}"
        message.ack = ack = self._loop.create_future()
        self._in_flight[reply] = ack
        ack.add_done_callback(lambda done: self._landed(reply, done))
        try:
            await self._client.publish(self._subject(core_id), message.body, reply=reply, headers=headers)
        except (nats.errors.Error, ConnectionError) as error:
            if not ack.done():
                ack.set_exception(error)

    def _landed(self, reply: str, ack: asyncio.Future[int]) -> None:
        del self._in_flight[reply]
        if not ack.cancelled():
            ack.exception()

    async def _on_answer(self, message: Msg) -> None:
        # JetStreamContext.publish_async would do, but nats-py 2.16 drops the answers that are errors.
        ack = self._in_flight.get(message.subject)
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

    async def _publish(self, core_id: int, core: _Core, feed: _Feed) -> None:
        """Publishes what is fed, `window` at a time, until the feed ends and all is acknowledged."""
        flying: deque[_Message] = deque()
        position = core.position
        assert position is not None  # noqa: S101 - append_all has asked
        core.position = None
        try:
            progress = self._loop.time()
            freed = 0
            while flying or feed.queue or not feed.ended:
                while feed.queue and len(flying) < self._window:
                    message = feed.queue.popleft()
                    position += 1
                    message.position = position
                    before = flying[-1] if flying else None
                    flying.append(message)
                    await self._send(core_id, message, before)
                    assert message.ack is not None  # noqa: S101
                    message.ack.add_done_callback(lambda _: feed.wake.set())
                    if len(flying) == 1:
                        progress = self._loop.time()
                while flying and (ack := flying[0].ack) is not None and ack.done():
                    if not await self._is_stored(core_id, flying[0], ack):
                        if self._loop.time() - progress > self._timeout:
                            raise self._unavailable()
                        await self._send_again(core_id, flying, feed)
                        continue
                    message = flying.popleft()
                    core.last = message.last
                    core.mark(message.last, message.position)
                    freed += 1
                    progress = self._loop.time()
                if freed and (freed >= self._window // 2 or not flying):
                    # Some at a time: each release wakes the thread that appends, and the two take turns for the GIL.
                    feed.slots.release(freed)
                    freed = 0
                    if core.last is not None:
                        await self._tell_others(core_id, core.last)
                feed.wake.clear()
                if feed.ended and not flying and not feed.queue:
                    break
                if flying and flying[0].ack is not None and flying[0].ack.done():
                    continue
                if feed.queue and len(flying) < self._window:
                    continue
                await self._wait(feed, flying)
            core.position = position
        except BaseException:
            # Whether these came is asked before the next append.
            core.doubtful = list(flying)
            raise

    async def _tell_others(self, core_id: int, last: int) -> None:
        """A note for those who wait, which may be lost. Had the server republish it, and it stored half as fast."""
        with contextlib.suppress(nats.errors.Error, ConnectionError):
            await self._client.publish(self._note(core_id), str(last).encode())

    async def _wait(self, feed: _Feed, flying: deque[_Message]) -> None:
        """Until something is fed or acknowledged; an acknowledgement that does not come counts as lost."""
        if not flying:
            await feed.wake.wait()
            return
        patience = max(0.05, min(self._timeout / 4, 2.0))
        try:
            async with asyncio.timeout(patience):
                await feed.wake.wait()
        except TimeoutError:
            ack = flying[0].ack
            if ack is not None and not ack.done():
                ack.set_exception(nats.errors.TimeoutError())

    async def _is_stored(self, core_id: int, message: _Message, ack: asyncio.Future[int]) -> bool:
        """What an answer means: True, the message lies at its position; False, send it again."""
        error = ack.exception()
        if error is None:
            found = ack.result()
            if found != message.position:
                raise LogConflictError(
                    f"core {core_id}, events {message.first} to {message.last}: the server has them at {found}, and"
                    f" they were sent for {message.position}; is the stream {self._name(core_id)} written to by others?"
                )
            return True
        if isinstance(error, _PASSING):
            if str(error):
                self._last_error = error
            return False
        if isinstance(error, nats.js.errors.APIError) and error.err_code in _WRONG_LAST:
            stored = await self._get(core_id, message.position)
            if stored is None and error.err_code == _WRONG_LAST_ID:
                # Sent behind one that was refused; or the server has started anew, and knows no id that is old.
                return False
            if stored is None:
                raise CorruptLogError(
                    f"core {core_id}: the stream {self._name(core_id)} does not end at {message.position - 1}, where"
                    f" this writer had it acknowledged ({error.description}): the server has lost messages, or"
                    " something deleted them"
                )
            if stored.message_id == message.message_id:
                return True
            raise LogConflictError(
                f"core {core_id}, events {message.first} to {message.last}: another writer has appended"
                f" {stored.head.first} to {stored.head.last}; let one writer alone append to a core"
            )
        if isinstance(error, nats.errors.ConnectionClosedError):
            raise self._unavailable() from error
        raise error

    async def _send_again(self, core_id: int, flying: deque[_Message], feed: _Feed) -> None:
        """All that is in flight, each at the position it had. What came the first time is a duplicate the second."""
        if not self._client.is_connected:
            await asyncio.sleep(_PROBE_SECONDS)
        else:
            # What answers "no responders" does so at once while a server starts.
            await asyncio.sleep(_PROBE_SECONDS / 5)
        before: _Message | None = None
        for message in flying:
            if message.ack is not None and not message.ack.done():
                message.ack.cancel()
            await self._send(core_id, message, before)
            before = message
            assert message.ack is not None  # noqa: S101
            message.ack.add_done_callback(lambda _: feed.wake.set())

    # ---- reading and trimming

    def _read(self, core_id: int, core: _Core, first: int, last: int) -> Iterator[EventBatch]:
        start = None if first > last else self._call(self._find(core_id, core, first, last))
        if start is None:
            return
        position, extent, floor = start
        first = max(first, floor + 1)
        ahead: deque[tuple[int, Future[_Stored | None]]] = deque()
        ending = extent.last
        # Short ranges are the usual ones: what is fetched ahead for them would be thrown away.
        depth = 1
        try:
            while ahead or position <= ending:
                while position <= ending and len(ahead) < depth:
                    self._check_open()
                    ahead.append((position, self._begin(self._get(core_id, position, extent.replicas))))
                    position += 1
                depth = min(depth * 2, _PREFETCH)
                at, future = ahead.popleft()
                stored = self._result(future)
                if stored is None:
                    self._call(self._check_trimmed(core_id, at))
                    continue
                if stored.head.first > last:
                    return
                if stored.head.last < first:
                    continue
                yield from _cut(_decode(stored), first, last)
                if stored.head.last >= last:
                    return
        finally:
            for _, future in ahead:
                future.cancel()

    async def _find(self, core_id: int, core: _Core, first: int, last: int) -> tuple[int, _Extent, int] | None:
        """The position of the first message that ends at or after `first`; by halving, from what is known.

        The extent ends with the message that has `last`, if that one is known.
        """
        extent = await self._ask_extent(core_id)
        if extent is None or extent.last == 0:
            return None
        low, high = max(1, extent.first), extent.last + 1
        at = bisect.bisect_left(core.marks, (first, 0))
        if at:
            low = max(low, core.marks[at - 1][1] + 1)
        if at < len(core.marks):
            high = min(high, core.marks[at][1])
        while low < high:
            middle = (low + high) // 2
            stored = await self._get(core_id, middle, extent.replicas)
            if stored is None or stored.head.last < first:
                low = middle + 1
            else:
                high = middle
        at = bisect.bisect_left(core.marks, (last, 0))
        if at < len(core.marks):
            extent = extent._replace(last=min(extent.last, core.marks[at][1]))
        floor = await self._load(_floor_key(core_id))
        return max(low, extent.first), extent, -1 if floor is None else floor

    async def _check_trimmed(self, core_id: int, position: int) -> None:
        extent = await self._ask_extent(core_id)
        if extent is not None and extent.first <= position:
            raise CorruptLogError(
                f"core {core_id}: message {position} of stream {self._name(core_id)} is missing, and {extent.first}"
                " before it is there; it was deleted, or the server lost it"
            )

    async def _trim(self, core_id: int, core: _Core, upto: int) -> None:
        if upto < 0:
            return
        found = await self._find(core_id, core, upto + 1, 2**64)
        if found is None:
            return
        position, extent, floor = found
        if position > extent.last:
            # The floor first: whoever reads between sees the last message trimmed, or everything.
            last = await self._ask_last(core_id, core)
            if last is not None and last <= upto and last > floor:
                await self._save(_floor_key(core_id), last)
            position = extent.last
        # A purge up to 1 is a purge of everything to servers before 2.10.
        if position > max(1, extent.first):
            name = self._name(core_id)
            await self._patiently(lambda: self._js.purge_stream(name, seq=position))

    # ---- the bucket

    async def _load(self, key: str) -> int | None:
        bucket = await self._find_bucket()
        if bucket is None:
            return None
        try:
            entry = await self._patiently(lambda: bucket.get(key))
        except nats.js.errors.NotFoundError:
            return None
        value = entry.value or b""
        if not re.fullmatch(rb"-?[0-9]+", value):
            raise CorruptLogError(f"bucket {self._stream}, key {key}: {value!r} is no number; delete the key")
        return int(value)

    async def _save(self, key: str, sequence: int) -> None:
        bucket = await self._find_bucket()
        if bucket is None:
            bucket = await self._patiently(
                lambda: self._js.create_key_value(
                    bucket=self._stream, history=1, storage=self._storage, replicas=self._replicas
                )
            )
            self._bucket = bucket
        found = bucket
        await self._patiently(lambda: found.put(key, str(sequence).encode()))

    async def _find_bucket(self) -> KeyValue | None:
        if self._bucket is None:
            try:
                self._bucket = await self._patiently(lambda: self._js.key_value(self._stream))
            except nats.js.errors.NotFoundError:
                return None
        return self._bucket


def _without_credentials(text: str) -> str:
    """A URL as it may be shown: what stands before its host, a token or a name and a password, is left out."""
    scheme = _SCHEME.match(text)
    at = text.rfind("@")
    return text if at < 0 else f"{scheme[0] if scheme else ''}***{text[at:]}"


def _watermark_key(group: str, core_id: int) -> str:
    # A key is of letters, digits and few signs; a group's name is what it likes.
    return f"watermark.{core_id}.g{base64.urlsafe_b64encode(group.encode()).decode()}"


def _floor_key(core_id: int) -> str:
    return f"trimmed.{core_id}"


def _head_of(body: bytes, core_id: int, position: int) -> _Head:
    if len(body) < _HEAD.size or body[: len(_MAGIC)] != _MAGIC:
        raise CorruptLogError(
            f"core {core_id}, message {position}: {len(body)} bytes that are no batch; something else has written to"
            " the subject, or an event log of another version"
        )
    head = _Head(*_HEAD.unpack_from(body)[1:])
    if head.core_id != core_id:
        raise CorruptLogError(f"core {core_id}, message {position}: is of core {head.core_id}")
    return head


def _decode(stored: _Stored) -> EventBatch:
    head = stored.head
    whole = memoryview(stored.body)
    split = _HEAD.size + head.rows_bytes
    return decode_batch(
        whole[_HEAD.size : split],
        whole[split:],
        head.checksum,
        core_id=head.core_id,
        first=head.first,
        last=head.last,
        count=head.events,
    )


def _cut(batch: EventBatch, first: int, last: int) -> Iterator[EventBatch]:
    numbers = batch.sequence
    start = int(np.searchsorted(numbers, np.uint64(max(first, 0)), "left"))
    stop = int(np.searchsorted(numbers, np.uint64(min(last, 2**64 - 1)), "right"))
    for begin in range(start, stop, MAX_BATCH_EVENTS):
        yield batch[begin : min(stop, begin + MAX_BATCH_EVENTS)]
