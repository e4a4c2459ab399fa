"""Shows the bus's own warnings in the demo."""

from __future__ import annotations

import collections
import contextlib
import logging
from collections.abc import Callable, Generator

__all__ = ["warnings_shown"]


@contextlib.contextmanager
def warnings_shown(show: Callable[[str], object]) -> Generator[None, None, None]:
    """Shows warnings as they come, each kind once per core, and at the end how many more there were."""
    logger = logging.getLogger("nodedb_ring")
    handler = _FirstOfEachKind(show)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        for core, count in handler.repeated.items():
            show(f"core {core}: {count:,} more warnings like these")


class _FirstOfEachKind(logging.Handler):
    """Shows the first warning of each kind: a ring that overflows at every commit would warn thousands of times."""

    def __init__(self, show: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self.repeated: collections.Counter[object] = collections.Counter()
        self._show = show
        self._shown: set[tuple[str, object]] = set()

    def emit(self, record: logging.LogRecord) -> None:
        core: object = vars(record).get("core")
        kind = (str(record.msg), core)
        if kind in self._shown:
            self.repeated[core] += 1
            return
        self._shown.add(kind)
        try:
            self._show(f"{record.levelname} {record.getMessage()}")
        except Exception:
            self.handleError(record)  # a handler must not raise: the commit that logged would fail
