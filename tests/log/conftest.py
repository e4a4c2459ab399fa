"""What the tests of the logs share: the watchdog of the unit tests, and signals at every bytecode."""

from __future__ import annotations

from tests.unit.conftest import watchdog

from .interrupting import interrupts

__all__ = ["interrupts", "watchdog"]
