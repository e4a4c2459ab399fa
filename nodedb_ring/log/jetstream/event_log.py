"""``JetStreamEventLog``: the event log on NATS, for followers on other machines and for copies on several servers."""

from __future__ import annotations

import math
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple

from nats.js import api

from ...batch._event_batch import EventBatch
from ...ends.limits import limit_seconds
from ...errors import ArgumentError
from .. import GroupClaim
from ..token import LogToken
from .appending import Appender
from .claims import Claims, KeyClaim
from .connection import Connection, check_callbacks
from .history import History
from .notices import Notices
from .reading import Reader
from .stream import CoreStream, StreamSettings
from .watermarks import Watermark, WatermarkBucket, watermark_key

__all__ = ["JetStreamEventLog"]

_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_STORAGE: Final = {"file": api.StorageType.FILE, "memory": api.StorageType.MEMORY}


class _Core(NamedTuple):
    """One core's part of an event log."""

    stream: CoreStream
    notices: Notices
    appender: Appender
    reader: Reader
    history: History


class JetStreamEventLog:
    """An event log on NATS JetStream; a ``LiveEventLog``. Needs nats-server 2.9 or newer.

    Each core has a stream ``<stream>_core_<n>`` with one subject, ``<stream>.core.<n>``. So the positions of messages
    are known before they are acknowledged: many publishes may be in flight, and each says which message it has to
    follow. Watermarks are in the key-value bucket ``<stream>``. Streams and bucket are made at the first write. A
    message is a batch. A batch above the server's ``max_payload`` becomes several messages.

    Parameters
    ----------
    servers : str or sequence of str
        URLs such as ``nats://host:4222``. The client learns the other servers of a cluster. Credentials in a URL are
        shown neither by ``repr()`` nor in messages.
    stream : str
        Letters, digits, ``_`` and ``-``.
    replicas : int
        Servers that keep a copy, of streams and a bucket that are made from now on.
    storage : {"file", "memory"}
        Where the servers keep it. With "memory", a server that stops loses everything.
    window : int
        Publishes in flight, in ``append_all``. Their messages, each of at most ``max_payload``, are held in memory.
    timeout : float or None
        Seconds without any progress, through reconnects and restarts, after which a call raises
        `LogUnavailableError`; above 0. With None or infinity a call waits until ``close()``.
    duplicate_window : float
        Seconds for which the server remembers the ids of messages; above 0.
    **connect_options
        For ``nats.connect``: ``user``, ``password``, ``token``, ``tls``, ``user_credentials``, ``name`` and so on.
        Callbacks run on the connection's thread, after the log's own. They may ``close`` the log. Any call that waits
        for the connection is a `BusyError` there.

    Raises
    ------
    LogUnavailableError
        No server answers, or none accepts the credentials. Every method may raise it.
    ArgumentError
        A `timeout` or `duplicate_window` is NaN, or not above 0.

    What an acknowledgement promises
    --------------------------------
    * With file storage, a server that is killed and started again has every acknowledged batch. After a power cut or a
      crash of the machine it may lack the last ones: a server acknowledges when it has written to the file, and calls
      fsync every ``sync_interval``, which is two minutes by default. With ``sync_interval: always`` in the
      ``jetstream`` block of its configuration (2.10 or newer) it calls fsync before it acknowledges, and appends are
      slow.
    * With ``replicas=3`` an acknowledgement means that two of three servers have the batch, so one server may be lost
      with its disk. Each server calls fsync as late as a single one, so power cuts of several servers at once can take
      acknowledged batches.
    * If a log loses acknowledged batches while a writer runs, the writer's next append raises `CorruptLogError`.
    * If an acknowledgement does not come, the publish is sent again with the same ``Nats-Msg-Id`` for the same
      position, and is stored once: within the duplicate window the server drops the copy, and after it the server
      refuses the position.
    * A second writer gets `LogConflictError`, by ``Nats-Expected-Last-Sequence`` and, after a publish in flight,
      ``Nats-Expected-Last-Msg-Id``.
    * After `LogUnavailableError` an append may have been stored, whole or, of several messages, the first ones. The
      same batch may be appended again with the same log object: what was stored is not stored twice. For another
      batch, or with another object, ask ``last_sequence`` first.

    Thread safety
    -------------
    Any thread, several at once; appends to one core wait for each other. The connection has a thread of its own. A
    signal handler may make any call, whatever it interrupts, with one exception: an append to a core during an append
    to the same core is a `BusyError`. After ``fork`` the child has to make a log of its own.
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
        check_callbacks(connect_options)
        self._stream = stream
        self._window = window
        self._settings = StreamSettings(_STORAGE[storage], replicas, duplicate_window)
        # Part of each message's id: another writer's batch of the same numbers is not a duplicate of this object's.
        self._nonce = secrets.token_hex(8)
        self._cores: dict[int, _Core] = {}
        self._connection = Connection(
            [servers] if isinstance(servers, str) else servers,
            stream,
            timeout=math.inf if limit is None else limit,
            options=connect_options,
        )
        self._connection.on_messages_lost = self._catch_up
        self._bucket = WatermarkBucket(self._connection, self._settings, stream)
        self._claims = Claims(self._connection, self._settings, stream)

    @property
    def stream(self) -> str:
        """The name that streams, subjects and bucket begin with."""
        return self._stream

    def close(self) -> None:
        """Ends the connection. Calls in progress raise `ClosedError`. May be repeated.

        A signal handler may call it, whatever it interrupts.
        """
        connection = self._connection
        if not connection.is_inherited:
            connection.is_closed = True
            for core in self._cores.copy().values():
                core.stream.stored.close()
            connection.stop()

    def __enter__(self) -> JetStreamEventLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._connection.is_closed else "open"
        return f"JetStreamEventLog({', '.join(self._connection.shown_servers)}, {self._stream!r}, {state})"

    def append(self, core_id: int, batch: EventBatch) -> None:
        """``EventLog.append``: returns when the server has acknowledged it.

        A batch above the server's ``max_payload`` is stored as several messages, each all or nothing.

        Raises
        ------
        LogConflictError, LogUnavailableError
        LogError
            One event is larger than the server's ``max_payload``, or the server refuses it.
        BusyError
            A signal handler appends while it interrupts an append to the same core.
        """
        self.append_all(core_id, (batch,))

    def append_all(self, core_id: int, batches: Iterable[EventBatch]) -> None:
        """Appends batch after batch, with `window` publishes in flight; returns when all are acknowledged.

        After an error the batches are stored in order up to some batch, and ``last_sequence`` says up to which. If
        `batches` raises, the exception is raised when the batches before it are acknowledged.
        """
        self._core(core_id).appender.append_all(batches)

    def read(self, core_id: int, first_sequence: int, last_sequence: int) -> Iterator[EventBatch]:
        """``EventLog.read``: a few messages are fetched ahead, so at most that many are in memory."""
        core = self._core(core_id)
        self._connection.check_open()
        return core.reader.read(first_sequence, last_sequence)

    def last_sequence(self, core_id: int) -> int | None:
        """``EventLog.last_sequence``, asked of the server."""
        undone = f"the last number of core {core_id} was not read"
        return self._connection.call(undone, self._core(core_id).appender.last_sequence)

    def trim(self, core_id: int, upto: int) -> None:
        """``EventLog.trim``: deletes messages whose events are all at or below `upto`.

        The last message stays on the server for its number. Once it is trimmed, it is not read any more.
        """
        undone = f"core {core_id} was not trimmed to {upto}, or only in part"
        self._connection.call(undone, self._core(core_id).reader.trim, upto)

    def load_watermark(self, group: str, core_id: int) -> int | None:
        """``EventLog.load_watermark``."""
        mark = self._watermark(group, core_id)
        return None if mark is None else mark.sequence

    def load_token(self, group: str, core_id: int) -> str | None:
        """``IdentifiedEventLog.load_token``; None also for a watermark that a release up to 0.2 has saved."""
        mark = self._watermark(group, core_id)
        return None if mark is None else mark.token

    def _watermark(self, group: str, core_id: int) -> Watermark | None:
        undone = f"the watermark of group {group!r}, core {core_id}, was not read"
        return self._connection.call(undone, self._bucket.load_watermark, watermark_key(group, core_id))

    def save_watermark(self, group: str, core_id: int, sequence: int, *, rewind: bool = False) -> None:
        """``EventLog.save_watermark``: returns when the server has acknowledged it.

        Raises
        ------
        LogError
            The group's watermark is higher, and `rewind` is not set.
        """
        undone = f"the watermark {sequence} of group {group!r}, core {core_id}, was not acknowledged"
        history, key = self._core(core_id).history, watermark_key(group, core_id)

        async def save() -> None:
            token = await history.token(sequence)
            await self._bucket.save_watermark(key, sequence, str(token), rewind=rewind)

        self._connection.call(undone, save)

    def claim_group(self, group: str, core_id: int) -> GroupClaim:
        """``ExclusiveEventLog.claim_group``, by a key of the bucket ``<stream>_followers``.

        A holder whose process has died, or that has closed its log, is succeeded at once, one that is stopped or cut
        off after half a minute.

        Raises
        ------
        RoleTaken
        """
        self._core(core_id)
        begun: list[KeyClaim] = []
        try:
            undone = f"core {core_id} was not claimed for group {group!r}"
            return self._connection.call(undone, self._claims.claim, group, core_id, begun)
        except BaseException:
            # A signal handler's exception may come when the claim is there.
            for claim in begun:
                claim.release()
            raise

    def token(self, core_id: int, sequence: int) -> str:
        """``IdentifiedEventLog.token``. If this object has not read or appended the event, it asks the server."""
        undone = f"core {core_id} at {sequence} has no token yet"
        return str(self._connection.call(undone, self._core(core_id).history.token, sequence))

    def sequence_of(self, core_id: int, token: str) -> int:
        """``IdentifiedEventLog.sequence_of``.

        Raises
        ------
        LogError
            The stream was made anew, has lost its end, or was restored from an older copy.
        ArgumentError
            It is no token.
        """
        undone = f"the token {token} was not checked"
        return self._connection.call(undone, self._core(core_id).history.sequence_of, LogToken.parse(token))

    def wait_beyond(self, core_id: int, sequence: int, timeout: float) -> bool:
        """``LiveEventLog.wait_beyond``: every append is announced to the waiters, so the server is not polled.

        While no server is connected it waits; it raises `LogUnavailableError` when that has lasted for the log's own
        timeout.
        """
        limit = limit_seconds(timeout)
        core = self._core(core_id)
        connection, stored = self._connection, core.stream.stored
        connection.check_open()
        connection.thread.check_elsewhere()
        until = math.inf if limit is None else time.monotonic() + limit
        if not core.notices.is_subscribed:
            if connection.disconnected_since is None:
                connection.call(f"core {core_id} is not watched", core.notices.subscribe)
            if limit == 0:
                return stored.value > sequence
        if stored.wait_beyond(sequence, until):
            return True
        connection.check_open()
        if not connection.check_connected():
            return False
        # A notice that was lost, or never published, delays the answer and no more.
        last = self.last_sequence(core_id)
        return last is not None and last > sequence

    def _core(self, core_id: int) -> _Core:
        if not 0 <= core_id < 2**64:
            raise ValueError(f"core_id {core_id}: must be from 0 to {2**64 - 1}")
        # First: in a forked child, what another thread of the parent held at that moment is never released.
        self._connection.check_process()
        core = self._cores.get(core_id)
        return self._cores.setdefault(core_id, self._new_core(core_id)) if core is None else core

    def _new_core(self, core_id: int) -> _Core:
        prefix, connection = self._stream, self._connection
        stream = CoreStream(
            connection, self._settings, core_id, name=f"{prefix}_core_{core_id}", subject=f"{prefix}.core.{core_id}"
        )
        notices = Notices(connection, stream, f"{prefix}.stored.{core_id}")
        appender = Appender(connection, prefix, stream, notices, window=self._window, nonce=self._nonce)
        reader = Reader(connection, stream, self._bucket)
        return _Core(stream, notices, appender, reader, History(stream, reader))

    async def _catch_up(self) -> None:
        for core in self._cores.copy().values():
            await core.notices.catch_up()
