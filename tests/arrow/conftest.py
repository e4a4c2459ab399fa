"""What the tests of Arrow share: the watchdog of the unit tests, and the shared buses."""

from __future__ import annotations

from tests.unit.conftest import make_bus, watchdog

__all__ = ["make_bus", "watchdog"]
