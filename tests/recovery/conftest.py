"""What the tests of recovery share: the watchdog and the shared buses of the unit tests, signals at every bytecode."""

from __future__ import annotations

from tests.log.interrupting import interrupts
from tests.unit.conftest import make_bus, watchdog

__all__ = ["interrupts", "make_bus", "watchdog"]
