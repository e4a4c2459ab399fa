"""``CallLock``: one thread at a time, and a signal handler that comes in between is let through."""

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

    A signal handler runs in the midst of what the main thread does. If that holds the lock, the handler's own call
    cannot wait for it: it would wait for ever. So the thread that holds the lock may call again, and whoever uses this
    keeps what it guards whole between any two bytecodes, or refuses the inner call. If another thread holds it,
    handlers that arrive in a row wait each in the midst of the other; before the stack ends they are refused.

    Not a ``with`` block: Python 3.14 may leave one without its ``__exit__`` if a handler raises while ``__enter__``
    returns (CPython issue 148874), and other threads would wait for ever.

    Thread safety
    -------------
    Any thread.
    """

    __slots__ = ("_lock", "_waits")

    def __init__(self) -> None:
        self._lock: Final = threading.RLock()
        self._waits: Final = NestedWaits()

    def run(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Does the work when no other thread does any.

        Raises
        ------
        BusyError
            Many calls of this thread wait already, all but the first of signal handlers.
        """
        try:
            if not self._lock.acquire(blocking=False):
                self._waits.wait(self._lock.acquire)
            return work(*args, **kwargs)
        finally:
            # Not suppress(): one may come before its block.
            try:  # noqa: SIM105
                self._lock.release()
            except RuntimeError:
                # A handler raised while this waited for its turn, which it has not had.
                pass
