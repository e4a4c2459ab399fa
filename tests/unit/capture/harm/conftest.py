"""Captured databases, for the tests of harm."""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.capture.captured import JOURNALS, Core, open_database


@pytest.fixture(params=JOURNALS)
def core(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Core]:
    connection = open_database(request.param, tmp_path)
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    yield Core(connection).start()
    connection.close()
