"""Buses created in a directory, what a creation leaves there, and what one that must fail raises."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nodedb_ring import EventBus
from tests.unit.shared_buses import SHM

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
NOBODY = 65534


def refusal(call: Callable[[], object]) -> tuple[str, int | None, str]:
    """What a call raises: its type, its errno and its text."""
    try:
        call()
    except Exception as error:
        return type(error).__name__, getattr(error, "errno", None), str(error)
    return "nothing", None, ""


def named(directory: Path = SHM) -> set[str]:
    """The files in a directory that this process created."""
    return {name for name in os.listdir(directory) if f"test-{os.getpid()}-" in name}


def create(directory: Path, name: str = "bus") -> EventBus:
    return EventBus.create(name, 1, 16, directory=directory)
