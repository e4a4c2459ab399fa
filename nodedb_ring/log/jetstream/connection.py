"""``Connection``: to the NATS servers, on a thread of its own; the way in for every call of the event log."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import math
import os
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar, final

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext

from ...ends.logger import log_safely
from ...errors import ClosedError, ForkError, LogError, LogUnavailableError
from .acks import AckInbox
from .loop_thread import LoopCall, LoopEndedError, LoopThread

__all__ = ["RETRY_SECONDS", "TRANSIENT_ERRORS", "Connection", "check_callbacks"]

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Callback: TypeAlias = Callable[..., Coroutine[Any, Any, None]]

RETRY_SECONDS: Final = 0.05
"""Between two attempts at what fails for a while."""
TRANSIENT_ERRORS: Final = (
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
"""The server is away, starting, electing a leader, or slow: to be retried."""

_RECONNECT_SECONDS: Final = 0.1
_STOP_SECONDS: Final = 10.0
"""For how long a close waits for the connection's thread at most, whatever the timeout for the servers is."""
_CALLBACKS: Final = ("error_cb", "disconnected_cb", "reconnected_cb")
_SCHEME: Final = re.compile(r"(nats|tls|ws|wss)://")


@final
class Connection:
    """A connection to the servers of one event log.

    Parameters
    ----------
    servers : sequence of str
    log_name : str
        The event log's, for messages and for the thread's name.
    timeout : float
        Seconds without any progress after which a call fails; may be infinite.
    options : mapping
        For ``nats.connect``.

    Raises
    ------
    LogUnavailableError

    Thread safety
    -------------
    ``check_open``, ``call``, ``begin``, ``call_soon``, ``result`` and ``stop`` from any thread; the coroutines on the
    connection's own.

    Attributes
    ----------
    acks : AckInbox
    jetstream : JetStreamContext
    is_closed : bool
        Whether the event log was closed.
    disconnected_since : float or None
        Since when no server is connected, by ``time.monotonic``.
    last_error : BaseException or None
        For messages: what the client met last.
    ack_timeout : float
        Seconds after which an acknowledgement counts as lost.
    on_messages_lost : callable or None
        Called, on the thread of the connection, when messages of subscriptions may have been lost.
    """

    jetstream: JetStreamContext

    def __init__(self, servers: Sequence[str], log_name: str, *, timeout: float, options: Mapping[str, Any]) -> None:
        self.servers: Final = list(servers)
        self.shown_servers: Final = [_without_credentials(url) for url in servers]
        self.timeout: Final = timeout
        self.ack_timeout: float = max(0.05, min(timeout / 4, 2.0))
        self.is_closed: bool = False
        self.disconnected_since: float | None = None
        self.last_error: BaseException | None = None
        self.on_messages_lost: Callable[[], Awaitable[object]] | None = None
        self._log_name: Final = log_name
        self._pid: Final = os.getpid()
        self.client: Final = Client()
        self.acks: Final = AckInbox(self.client)
        # Nothing that its loop waits for may be held by another thread: see loop_thread.py.
        self.thread: Final = LoopThread(f"nodedb-ring-log-{log_name}", self.client.close)
        try:
            self.thread.start()
            self.call("it was not opened", self._connect, options)
        except BaseException:
            self.stop()
            raise
        self.jetstream = self.client.jetstream(timeout=min(timeout, 2.0))

    def stop(self) -> None:
        """Ends the connection and its thread. May be repeated."""
        self.thread.stop(min(self.timeout, _STOP_SECONDS))

    # ---- from any thread -------------------------------------------------------------------------------------------

    @property
    def is_inherited(self) -> bool:
        """Whether this is a forked child's copy."""
        return self._pid != os.getpid()

    def check_open(self) -> None:
        """Refuses a call after ``close()`` or in a forked child."""
        self.check_process()
        if self.is_closed:
            raise ClosedError(f"log {self._log_name}: is closed")

    def check_process(self) -> None:
        """Refuses a call in a forked child."""
        if self.is_inherited:
            raise ForkError(
                f"log {self._log_name}: was inherited by fork, and its connection stays with the parent;"
                " make a JetStreamEventLog after the fork"
            )

    def call(self, undone: str, work: Callable[_P, Coroutine[Any, Any, _T]], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Waits for what a coroutine does on the connection's thread. `undone` is what an error says."""
        self.check_open()
        return self.result(undone, self.begin(lambda: work(*args, **kwargs)))

    def begin(
        self, work: Callable[[], Coroutine[Any, Any, _T]], on_end: Callable[[], object] | None = None
    ) -> LoopCall[_T]:
        """Starts a coroutine on the connection's thread; ``result`` waits for it. As ``LoopThread.begin``."""
        try:
            return self.thread.begin(work, on_end)
        except LoopEndedError as error:
            raise self._closed_meanwhile() from error

    def call_soon(self, callback: Callable[..., object], *arguments: object) -> None:
        """Has the connection's thread call something. Waits for nothing."""
        try:
            self.thread.call_soon(callback, *arguments)
        except LoopEndedError as error:
            raise self._closed_meanwhile() from error

    def result(self, undone: str, call: LoopCall[_T]) -> _T:
        """Waits for a call of ``begin``. `undone` is what an error says."""
        try:
            return call.result()
        except CancelledError as error:
            if self.is_closed:
                raise self._closed_meanwhile(undone) from error
            raise
        except BaseException as error:
            # A KeyboardInterrupt of the waiting thread, above all.
            call.cancel()
            if self.is_closed and isinstance(error, LogUnavailableError | nats.errors.Error):
                # It met the closed connection before it was cancelled.
                raise self._closed_meanwhile(undone) from error
            if isinstance(error, LogUnavailableError):
                raise LogUnavailableError(f"log {self._log_name}: {undone}: {error}") from error
            if isinstance(error, nats.errors.Error):
                raise LogError(f"log {self._log_name}: {undone}: the server refuses: {error}") from error
            raise

    def unavailable(self) -> LogUnavailableError:
        """What to raise when no server has answered in time."""
        why = f": {self.last_error}" if self.last_error is not None and str(self.last_error) else ""
        for url, shown in zip(self.servers, self.shown_servers, strict=True):
            # An error of the client may name it with its credentials.
            why = why.replace(url, shown)
        limit = "" if self.timeout == math.inf else f" in {self.timeout:g} s"
        return LogUnavailableError(
            f"no answer from {', '.join(self.shown_servers)}{limit}{why};"
            " check that nats-server runs there with JetStream (nats-server -js), the URL and the credentials"
        )

    def check_connected(self) -> bool:
        """Whether a server is connected.

        Raises
        ------
        LogUnavailableError
            None has been for as long as the timeout.
        """
        since = self.disconnected_since
        if since is None:
            return True
        if time.monotonic() - since > self.timeout:
            raise LogUnavailableError(f"log {self._log_name}: {self.unavailable()}")
        return False

    def _closed_meanwhile(self, undone: str = "nothing was begun") -> ClosedError:
        return ClosedError(f"log {self._log_name}: was closed meanwhile; {undone}")

    # ---- on the connection's thread --------------------------------------------------------------------------------

    async def retry(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Retries after transient errors until it succeeds or the timeout is over.

        Raises
        ------
        LogUnavailableError
        """
        until = self.thread.loop.time() + self.timeout
        while True:
            try:
                return await attempt()
            except TRANSIENT_ERRORS as error:
                if self.thread.loop.time() >= until:
                    self.remember(error)
                    raise self.unavailable() from error
            except nats.errors.ConnectionClosedError as error:
                raise self.unavailable() from error
            await asyncio.sleep(RETRY_SECONDS)

    def remember(self, error: BaseException) -> None:
        """Has messages say this error, if it says anything itself."""
        if str(error):
            self.last_error = error

    async def _connect(self, options: Mapping[str, Any]) -> None:
        settings: dict[str, Any] = {
            "name": f"nodedb_ring log {self._log_name}",
            "reconnect_time_wait": _RECONNECT_SECONDS,
            "max_reconnect_attempts": -1,
            "connect_timeout": min(2.0, self.timeout),
            # Publishes that the client keeps while it reconnects it sends in its own order. Publishes are retried here.
            "pending_size": 0,
        }
        settings |= options
        own: tuple[_Callback, ...] = (self._on_error, self._on_disconnect, self._on_reconnect)
        for name, callback in zip(_CALLBACKS, own, strict=True):
            settings[name] = _chained(callback, options.get(name))
        try:
            async with asyncio.timeout(None if self.timeout == math.inf else self.timeout):
                await self.client.connect(servers=self.servers, **settings)
                await self.acks.subscribe()
        except (*TRANSIENT_ERRORS, OSError, nats.errors.Error) as error:
            with contextlib.suppress(Exception):
                await self.client.close()
            if not isinstance(error, TimeoutError):
                self.last_error = error
            raise self.unavailable() from error

    async def _on_error(self, error: Exception) -> None:
        self.last_error = error
        if isinstance(error, nats.errors.SlowConsumerError):
            self._messages_lost()

    async def _on_disconnect(self) -> None:
        self.disconnected_since = time.monotonic()
        self.acks.fail_pending()

    async def _on_reconnect(self) -> None:
        self.disconnected_since = None
        self.last_error = None
        self._messages_lost()

    def _messages_lost(self) -> None:
        if self.on_messages_lost is not None:
            # A task of its own: the client awaits callbacks in the task that reads the connection.
            task = self.thread.loop.create_task(_awaited(self.on_messages_lost))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())


async def _awaited(work: Callable[[], Awaitable[object]]) -> None:
    await work()


def check_callbacks(options: Mapping[str, Any]) -> None:
    """Refuses callbacks of a user's that the client could not await.

    Raises
    ------
    TypeError
    """
    for name in _CALLBACKS:
        callback = options.get(name)
        if callback is not None and not inspect.iscoroutinefunction(callback):
            raise TypeError(f"{name} {callback!r}: must be a coroutine function (async def)")


def _chained(own: _Callback, users: _Callback | None) -> _Callback:
    """A callback for the client: what the event log needs, and then what the user wants."""

    async def both(*arguments: Any) -> None:
        await own(*arguments)
        if users is not None:
            try:
                await users(*arguments)
            except Exception:
                # It would end the client's own task, which reconnects.
                log_safely(logging.ERROR, "a callback of a JetStreamEventLog's connection raised", exc_info=True)

    return both


def _without_credentials(url: str) -> str:
    """A URL as it may be shown: without what stands before its host, be that a token or a name and a password."""
    scheme = _SCHEME.match(url)
    at = url.rfind("@")
    return url if at < 0 else f"{scheme[0] if scheme else ''}***{url[at:]}"
