"""Captured databases with a log, for the tests of both."""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .logged import FILE_JOURNALS, LoggedCore, logged_core


@pytest.fixture(params=FILE_JOURNALS)
def core(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LoggedCore]:
    made = logged_core(request.param, tmp_path)
    assert list(made.connection.execute("PRAGMA journal_mode")) == [(request.param,)]
    yield made
    made.connection.close()
    made.log.close()
