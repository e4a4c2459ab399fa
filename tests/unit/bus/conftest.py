"""What the tests of shared buses share: directories in which buses are created."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodedb_ring.bus import directory as bus_directory
from tests.unit.shared_buses import SHM, new_name


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that every user may come to and write to, in memory."""
    made = SHM / f"{new_name()}.d"
    made.mkdir()
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def without_tmpfile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that makes no files without a name."""

    def refuse(path: str, flags: int) -> int:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), path)

    monkeypatch.setattr(bus_directory, "_open_without_name", refuse)
