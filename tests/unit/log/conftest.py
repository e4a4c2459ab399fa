"""Signals at every bytecode, for the tests of the logs."""

from __future__ import annotations

from .interrupting import interrupts

__all__ = ["interrupts"]
