"""The logger ``nodedb_ring``. A handler's exception does not end the call that logs: the ring has changed by then."""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from collections.abc import Mapping
from typing import Final

__all__ = ["log_safely"]

_LOGGER: Final = logging.getLogger("nodedb_ring")


def log_safely(
    level: int, message: str, *arguments: object, extra: Mapping[str, object] | None = None, exc_info: bool = False
) -> None:
    """Logs a line, as ``logging.Logger.log`` does; the record names the code that called the package.

    An error of a handler or a filter is printed, unless ``logging.raiseExceptions`` is off: that is what handlers of
    the standard library do with their own. An interrupt passes.
    """
    try:
        _LOGGER.log(level, message, *arguments, extra=extra, exc_info=exc_info, stacklevel=2)
    except Exception:
        if logging.raiseExceptions:
            # Standard error may be closed, too.
            with contextlib.suppress(Exception):
                traceback.print_exc(file=sys.stderr)
