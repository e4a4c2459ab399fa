"""A few of the kills of ``python -m tests.stress.postgres``."""

from __future__ import annotations

import pytest

from tests.absent_libraries import needs


@pytest.mark.slow
@needs("psycopg2")
def test_the_events_make_the_rows_whatever_is_killed() -> None:
    from .postgres import run

    assert run(20, seed=1) == []
