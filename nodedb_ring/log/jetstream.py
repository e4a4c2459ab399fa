"""``JetStreamEventLog``: the log on NATS, for followers on other machines and for copies on several servers."""

from __future__ import annotations

import asyncio
import base64
import bisect
import contextlib
import inspect
import json
import logging
import math
import os
import re
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, ParamSpec, TypeAlias, TypeVar

from ..batch.event_batch import EventBatch
from ..ends.limits import limit_seconds
from ..ends.logger import tell
from ..errors import (
    ArgumentError,
    BusyError,
    ClosedError,
    CorruptLogError,
    ForkError,
    LogConflictError,
    LogError,
    LogUnavailableError,
)
from .call_lock import CallLock
from .encoding import check_rising, encode_batch
from .jetstream_message import Stored, cut, decode, encode, head_of, message_bytes
from .loop_thread import LoopCall, LoopEndedError, LoopThread

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


_P = ParamSpec("_P")
_T = TypeVar("_T")
_Callback: TypeAlias = Callable[..., Coroutine[Any, Any, None]]

_HEADERS_BYTES: Final = 1024
"""Room for the headers of a message, which count into the server's max_payload."""
_PREFETCH: Final = 4
_MARKS: Final = 4096
_RECONNECT_SECONDS: Final = 0.1
_PROBE_SECONDS: Final = 0.05
_STOP_SECONDS: Final = 10.0
"""For which a close waits for the connection's thread, whatever the patience with a server is."""
_OWN_CALLBACKS: Final = ("error_cb", "disconnected_cb", "reconnected_cb")
_LONGEST_WAIT: Final = 3600.0
"""Seconds that a wait sleeps at once; it goes on if there is more to wait for."""
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

    appends: CallLock = field(default_factory=CallLock)
    is_appending: bool = False
    publishing: asyncio.Task[None] | None = None
    """The task that publishes, or the last that did."""
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
    """Messages from the thread that appends to the event loop that publishes; a slot each until it is acknowledged.

    ``take_slot`` is the thread's, the rest is called on the loop.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._freed: SimpleQueue[int] = SimpleQueue()
        self.queue: deque[_Message] = deque()
        self.wake = asyncio.Event()
        self.ended = False
        self.finished = False

    def take_slot(self) -> bool:
        """Waits for a slot. False: nothing is published any more."""
        while not self._slots and not self.finished:
            self._slots += self._freed.get()
        self._slots -= 1
        return not self.finished

    def free(self, slots: int) -> None:
        self._freed.put(slots)

    def put(self, message: _Message) -> None:
        self.queue.append(message)
        self.wake.set()

    def end(self) -> None:
        self.ended = True
        self.wake.set()

    def finish(self) -> None:
        """Nothing is published any more: lets go whoever waits for a slot."""
        self.finished = True
        self._freed.put(0)


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
        For ``nats.connect``: ``user``, ``password``, ``token``, ``tls``, ``user_credentials``, ``name`` and so on. Its
        callbacks run on the connection's thread, after the log's own: they may ``close`` the log, and whatever waits
        for the connection is a `BusyError` there.

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
    connection. A signal handler may call anything in the midst of any call, but append to a core in the midst of an
    append to it: `BusyError`. After ``fork`` the child must make a log of its own.
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
        for name in _OWN_CALLBACKS:
            callback = connect_options.get(name)
            if callback is not None and not inspect.iscoroutinefunction(callback):
                raise TypeError(f"{name} {callback!r}: must be a coroutine function (async def)")
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
        # No lock over these: what the loop's thread waits for, a signal handler may have interrupted. See LoopThread.
        self._cores: dict[int, _Core] = {}
        self._waiting: set[SimpleQueue[None]] = set()
        self._seen: dict[int, int] = {}
        self._watched: set[int] = set()
        self._in_flight: dict[str, asyncio.Future[int]] = {}
        self._inbox = ""
        self._sent = 0
        self._bucket: KeyValue | None = None
        self._last_error: BaseException | None = None
        self._away_since: float | None = None
        self._client = Client()
        self._thread = LoopThread(f"nodedb-ring-log-{stream}", self._client.close)
        self._loop = self._thread.loop
        try:
            self._thread.start()
            self._call("it was not opened", self._connect, connect_options)
        except BaseException:
            self._thread.stop(min(self._timeout, _STOP_SECONDS))
            raise
        self._js: JetStreamContext = self._client.jetstream(timeout=min(self._timeout, 2.0))

    @property
    def stream(self) -> str:
        """The name that streams, subjects and bucket begin with."""
        return self._stream

    def close(self) -> None:
        """Ends the connection. Calls in progress raise `ClosedError`. Closing again does nothing.

        From a signal handler too, whatever it interrupts.
        """
        if self._pid == os.getpid():
            self._closed = True
            self._wake_waiting()
            self._thread.stop(min(self._timeout, _STOP_SECONDS))

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
        BusyError
            A signal handler appends in the midst of an append to the same core.
        """
        self.append_all(core_id, (batch,))

    def append_all(self, core_id: int, batches: Iterable[EventBatch]) -> None:
        """Appends batch after batch, with `window` publishes in flight; returns when all are acknowledged.

        After an error what came before is stored, in order, up to some batch; ``last_sequence`` says to which. What
        `batches` raises, comes out when those before it are acknowledged.
        """
        core = self._core(core_id)
        core.appends.run(self._append_all, core_id, core, batches)

    def _append_all(self, core_id: int, core: _Core, batches: Iterable[EventBatch]) -> None:
        self._check_open()
        if core.is_appending:
            raise BusyError(
                f"log {self._stream}: an append to core {core_id} is in progress, which this call interrupts;"
                " append when it has returned"
            )
        core.is_appending = True
        try:
            stored: frozenset[str] = frozenset()
            if core.position is None:
                stored = self._call(_unacknowledged(core_id), self._learn, core_id, core)
            self._feed(core_id, core, batches, stored)
        finally:
            core.is_appending = False

    def _feed(self, core_id: int, core: _Core, batches: Iterable[EventBatch], stored: frozenset[str]) -> None:
        last = core.last
        feed: _Feed | None = None
        publishing: LoopCall[None] | None = None
        try:
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
                        publishing = self._begin_to_publish(core_id, core, feed)
                    for message in waiting:
                        if not feed.take_slot():
                            break
                        self._soon(feed.put, message)
                        last = message.last
                    if feed.finished:
                        break
            finally:
                if feed is not None and publishing is not None:
                    with contextlib.suppress(ClosedError):
                        self._soon(feed.end)
                    self._result(_unacknowledged(core_id), publishing)
        except BaseException:
            # Of a signal handler, say. Whether what is in flight comes is asked before the next append.
            if publishing is not None:
                publishing.cancel()
            raise

    def _begin_to_publish(self, core_id: int, core: _Core, feed: _Feed) -> LoopCall[None]:
        position = core.position
        assert position is not None  # noqa: S101 - _append_all has asked
        # From here on the publishing alone knows it; an exception anywhere leaves it to be asked.
        core.position = None
        return self._begin(lambda: self._publish(core_id, core, feed, position), feed.finish)

    def read(self, core_id: int, first_sequence: int, last_sequence: int) -> Iterator[EventBatch]:
        """``EventLog.read``: a few messages are fetched ahead, so at most that many are in memory."""
        core = self._core(core_id)
        self._check_open()
        return self._read(core_id, core, first_sequence, last_sequence)

    def last_sequence(self, core_id: int) -> int | None:
        """``EventLog.last_sequence``, asked of the server."""
        undone = f"the last number of core {core_id} was not read"
        return self._call(undone, self._ask_settled_last, core_id, self._core(core_id))

    def trim(self, core_id: int, upto: int) -> None:
        """``EventLog.trim``: forgets messages whose events are all at or below `upto`.

        The last message stays on the server, for its number; once it is trimmed, it is not read any more.
        """
        undone = f"core {core_id} was not trimmed to {upto}, or only in part"
        self._call(undone, self._trim, core_id, self._core(core_id), upto)

    def load_watermark(self, group: str, core_id: int) -> int | None:
        """``EventLog.load_watermark``."""
        undone = f"the watermark of group {group!r}, core {core_id}, was not read"
        return self._call(undone, self._load, _watermark_key(group, core_id))

    def save_watermark(self, group: str, core_id: int, sequence: int) -> None:
        """``EventLog.save_watermark``: returns when the server has acknowledged it."""
        undone = f"the watermark {sequence} of group {group!r}, core {core_id}, was not acknowledged"
        self._call(undone, self._save, _watermark_key(group, core_id), sequence)

    def wait_beyond(self, core_id: int, sequence: int, timeout: float) -> bool:
        """``LiveEventLog.wait_beyond``: whoever appends tells what is stored; nothing is asked meanwhile.

        While the server is away it waits; it raises `LogUnavailableError` when that has lasted for the log's own
        timeout.
        """
        limit = limit_seconds(timeout)
        self._check_open()
        self._thread.check_elsewhere()
        until = math.inf if limit is None else time.monotonic() + limit
        if core_id not in self._watched:
            if self._away_since is None:
                self._call(f"core {core_id} is not watched", self._watch, core_id)
            if limit == 0:
                return self._seen.get(core_id, -1) > sequence
        if self._wait_for_note(core_id, sequence, until):
            return True
        self._check_open()
        away_since = self._away_since
        if away_since is not None:
            if time.monotonic() - away_since > self._timeout:
                raise LogUnavailableError(f"log {self._stream}: {self._unavailable()}")
            return False
        # A note that the client dropped, or that no one sent, must not be missed for ever.
        last = self.last_sequence(core_id)
        return last is not None and last > sequence

    def _wait_for_note(self, core_id: int, sequence: int, until: float) -> bool:
        woken: SimpleQueue[None] = SimpleQueue()
        try:
            # In this order, as who tells has the other: what is not seen wakes.
            self._waiting.add(woken)
            while self._seen.get(core_id, -1) <= sequence and not self._closed:
                left = until - time.monotonic()
                if left <= 0:
                    break
                with contextlib.suppress(Empty):
                    woken.get(timeout=min(left, _LONGEST_WAIT))
        finally:
            self._waiting.discard(woken)
        return self._seen.get(core_id, -1) > sequence

    def _wake_waiting(self) -> None:
        for woken in tuple(self._waiting):
            woken.put(None)

    # ---- the way to the thread of the connection

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

    def _call(
        self, undone: str, work: Callable[_P, Coroutine[Any, Any, _T]], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Waits for what the connection's thread does. `undone` is what an error says."""
        self._check_open()
        return self._result(undone, self._begin(lambda: work(*args, **kwargs)))

    def _begin(
        self, work: Callable[[], Coroutine[Any, Any, _T]], on_end: Callable[[], object] | None = None
    ) -> LoopCall[_T]:
        try:
            return self._thread.begin(work, on_end)
        except LoopEndedError as error:
            raise self._closed_meanwhile() from error

    def _soon(self, callback: Callable[..., object], *arguments: object) -> None:
        try:
            self._thread.call_soon(callback, *arguments)
        except LoopEndedError as error:
            raise self._closed_meanwhile() from error

    def _result(self, undone: str, call: LoopCall[_T]) -> _T:
        try:
            return call.result()
        except CancelledError as error:
            if self._closed:
                raise self._closed_meanwhile(undone) from error
            raise
        except BaseException as error:
            # A KeyboardInterrupt of the waiting thread, above all.
            call.cancel()
            if self._closed and isinstance(error, LogUnavailableError | nats.errors.Error):
                # It met the closed connection before it was cancelled.
                raise self._closed_meanwhile(undone) from error
            if isinstance(error, LogUnavailableError):
                raise LogUnavailableError(f"log {self._stream}: {undone}: {error}") from error
            if isinstance(error, nats.errors.Error):
                raise LogError(f"log {self._stream}: {undone}: the server refuses: {error}") from error
            raise

    def _closed_meanwhile(self, undone: str = "nothing was begun") -> ClosedError:
        return ClosedError(f"log {self._stream}: was closed meanwhile; {undone}")

    def _core(self, core_id: int) -> _Core:
        if not 0 <= core_id < 2**64:
            raise ValueError(f"core_id {core_id}: must be from 0 to {2**64 - 1}")
        # A thread of the parent may have been appending at the fork.
        self._check_process()
        core = self._cores.get(core_id)
        return self._cores.setdefault(core_id, _Core()) if core is None else core

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
            f"no answer from {', '.join(self._shown)}{patience}{why};"
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
        }
        own: tuple[_Callback, ...] = (self._on_error, self._on_disconnect, self._on_reconnect)
        settings |= options
        for name, ours in zip(_OWN_CALLBACKS, own, strict=True):
            settings[name] = _both(ours, options.get(name))
        try:
            async with asyncio.timeout(None if self._timeout == math.inf else self._timeout):
                await self._client.connect(servers=self._servers, **settings)
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

    async def _get(self, core_id: int, position: int, replicas: int = 3) -> Stored | None:
        """The message at a position; None if it was trimmed. Of several servers the leader is asked: others lag."""
        name = self._name(core_id)
        try:
            raw = await self._patiently(lambda: self._js.get_msg(name, seq=position, direct=replicas == 1))
        except nats.js.errors.NotFoundError:
            return None
        body = raw.data or b""
        head = head_of(body, core_id, position)
        self._core(core_id).mark(head.last, position)
        return Stored(position, (raw.headers or {}).get("Nats-Msg-Id", ""), body, head)

    async def _ask_settled_last(self, core_id: int, core: _Core) -> int | None:
        if not core.is_appending:
            await self._settle(core)
        return await self._ask_last(core_id, core)

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
        if last > self._seen.get(core_id, -1):
            self._seen[core_id] = last
            self._wake_waiting()

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
        size = message_bytes(encoded)
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
        message_id = f"{core_id}-{encoded.first}-{encoded.last}-{encoded.checksum:08x}-{self._nonce}"
        yield _Message(encoded.first, encoded.last, message_id, encode(encoded, core_id))

    async def _settle(self, core: _Core) -> None:
        """After a signal handler has raised in the thread that fed the publishing: what is on its way comes, or not."""
        if core.publishing is not None and not core.publishing.done():
            core.publishing.cancel()
            await asyncio.wait([core.publishing])
        waiting = [message.ack for message in core.doubtful if message.ack is not None and not message.ack.done()]
        if waiting:
            await asyncio.wait(waiting, timeout=self._patience())

    async def _learn(self, core_id: int, core: _Core) -> frozenset[str]:
        """Where the stream ends; makes it if there is none. Returns the doubtful messages that did come."""
        await self._settle(core)
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

    async def _publish(self, core_id: int, core: _Core, feed: _Feed, position: int) -> None:
        """Publishes what is fed, `window` at a time, until the feed ends and all is acknowledged."""
        core.publishing = asyncio.current_task()
        flying: deque[_Message] = deque()
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
                    feed.free(freed)
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

    def _patience(self) -> float:
        """Seconds after which an acknowledgement counts as lost."""
        return max(0.05, min(self._timeout / 4, 2.0))

    async def _wait(self, feed: _Feed, flying: deque[_Message]) -> None:
        """Until something is fed or acknowledged; an acknowledgement that does not come counts as lost."""
        if not flying:
            await feed.wake.wait()
            return
        try:
            async with asyncio.timeout(self._patience()):
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
        undone = f"events {first} to {last} of core {core_id} were not read, or not all of them"
        start = None if first > last else self._call(undone, self._find, core_id, core, first, last)
        if start is None:
            return
        position, extent, floor = start
        first = max(first, floor + 1)
        ahead: deque[tuple[int, LoopCall[Stored | None]]] = deque()
        ending = extent.last
        # Short ranges are the usual ones: what is fetched ahead for them would be thrown away.
        depth = 1
        try:
            while ahead or position <= ending:
                while position <= ending and len(ahead) < depth:
                    self._check_open()
                    ahead.append((position, self._fetch(core_id, position, extent.replicas)))
                    position += 1
                depth = min(depth * 2, _PREFETCH)
                at, fetched = ahead.popleft()
                stored = self._result(undone, fetched)
                if stored is None:
                    self._call(undone, self._check_trimmed, core_id, at)
                    continue
                if stored.head.first > last:
                    return
                if stored.head.last < first:
                    continue
                yield from cut(decode(stored), first, last)
                if stored.head.last >= last:
                    return
        finally:
            for _, fetched in ahead:
                fetched.cancel()

    def _fetch(self, core_id: int, position: int, replicas: int) -> LoopCall[Stored | None]:
        return self._begin(lambda: self._get(core_id, position, replicas))

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


def _unacknowledged(core_id: int) -> str:
    return f"not all that was appended to core {core_id} is acknowledged; last_sequence({core_id}) tells what is stored"


def _both(ours: _Callback, theirs: _Callback | None) -> _Callback:
    """A callback of the connection's that does what the log needs, and then what the user wants."""

    async def both(*arguments: Any) -> None:
        await ours(*arguments)
        if theirs is not None:
            try:
                await theirs(*arguments)
            except Exception:
                # It would end the client's own task, which connects again.
                tell(logging.ERROR, "a callback of a JetStreamEventLog's connection raised", exc_info=True)

    return both


def _watermark_key(group: str, core_id: int) -> str:
    # A key is of letters, digits and few signs; a group's name is what it likes.
    return f"watermark.{core_id}.g{base64.urlsafe_b64encode(group.encode()).decode()}"


def _floor_key(core_id: int) -> str:
    return f"trimmed.{core_id}"
