"""Captured databases, for the tests of harm."""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.capture.captured import JOURNALS, Core, captured


@pytest.fixture(params=JOURNALS)
def core(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Core]:
    with captured(request.param, tmp_path, "t(a INTEGER PRIMARY KEY, b)") as made:
        yield made
