"""The differential test of capture on a few seeds; ``python -m tests.stress.differential`` runs more of them."""

from __future__ import annotations

from collections import Counter

import pytest

from .differential import run_seed
from .sqlite_statements import CASES


@pytest.mark.parametrize("case", sorted(CASES))
@pytest.mark.parametrize("first", range(1, 31, 10))
def test_events_alone_rebuild_the_database(case: str, first: int) -> None:
    tally: Counter[str] = Counter()
    for seed in range(first, first + 10):
        run_seed(seed, CASES[case], tally=tally, verbose=False)
    assert tally["statements"] > 100
    assert tally["events"] > 10
