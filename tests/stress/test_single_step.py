"""A process is killed after every store of a call to a shared block, and its successors find nothing amiss."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from .journal import memory_directory
from .single_step import SingleStep
from .stepped_operations import OPERATIONS, Operation
from .tracing import can_trace, on_one_processor

KILLS = 3
"""Processes killed in each operation: ``python -m tests.stress.single_step --all`` kills after every instruction."""


@pytest.fixture(scope="module")
def steps() -> Generator[SingleStep]:
    reason = can_trace()
    if reason:
        pytest.skip(reason)
    with memory_directory() as directory, on_one_processor():
        yield SingleStep(directory)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_a_kill_anywhere_loses_nothing(steps: SingleStep, operation: Operation) -> None:
    whole, kills = steps.end_in(operation, KILLS)
    assert whole.count > whole.stores > 0
    assert 0 < kills <= KILLS
