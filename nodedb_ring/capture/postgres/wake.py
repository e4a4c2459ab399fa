"""``Wake``: ends a wait for a connection from another thread, or from a signal handler."""

from __future__ import annotations

import contextlib
import os
from typing import final

__all__ = ["Wake"]


@final
class Wake:
    """A descriptor that can be read from the first ``set`` on. It is closed with the object."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def set(self) -> None:
        """May be repeated."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._descriptor, 1)

    def fileno(self) -> int:
        """For ``select``."""
        return self._descriptor

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
