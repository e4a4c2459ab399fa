"""``CallLock``: calls of one thread at a time, and of a signal handler that interrupts one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar, final

from .nested_waits import NestedWaits

__all__ = ["CallLock"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


@final
class CallLock:
    """Runs calls one after the other, whichever thread they come from.

    A signal handler runs while the main thread is interrupted. If that thread holds the lock, the handler's call cannot
    wait for the lock: it would wait for ever. So the thread that holds the lock may call again. The guarded state
    therefore has to be consistent between any two bytecodes, or the inner call has to be refused. If another thread
    holds the lock, handlers that interrupt each other all wait, until ``NestedWaits`` refuses the next.

    This is not a context manager: Python 3.14 may leave a ``with`` block without ``__exit__`` if a handler raises while
    ``__enter__`` returns (CPython issue 148874), and other threads would wait for ever.

    Thread safety
    -------------
    Any thread.
    """

    __slots__ = ("_lock", "_waits")

    def __init__(self) -> None:
        self._lock: Final = threading.RLock()
        self._waits: Final = NestedWaits()

    def run(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Calls `work` when no other thread is in a call.

        Raises
        ------
        BusyError
            Too many calls of this thread are waiting: see ``NestedWaits``.
        """
        try:
            if not self._lock.acquire(blocking=False):
                self._waits.wait(self._lock.acquire)
            return work(*args, **kwargs)
        finally:
            # Not suppress(): a signal handler may raise before its block begins.
            try:  # noqa: SIM105
                self._lock.release()
            except RuntimeError:
                # A handler raised while this call waited, so it does not hold the lock.
                pass
