"""Signals at every bytecode, for the tests of recovery."""

from __future__ import annotations

from tests.unit.log.interrupting import interrupts

__all__ = ["interrupts"]
