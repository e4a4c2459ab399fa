"""The ways in which a wait sleeps, and signals at every bytecode."""

from __future__ import annotations

import pytest

from nodedb_ring.fan_in import _wait_set
from tests.unit.log.interrupting import interrupts

__all__ = ["interrupts", "sleep"]


@pytest.fixture(params=["gate", "futexes", "epoll"])
def sleep(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Has waits sleep in one futex where they can, in ``futex_waitv``, or in one epoll, as on older kernels."""
    monkeypatch.setattr(_wait_set, "uses_gates", request.param == "gate")
    if request.param == "epoll":
        monkeypatch.setattr(_wait_set, "most_futexes", 1)
    else:
        # The kernel of the machine that runs the tests has it, or the tests say so: no wait fell back before.
        assert _wait_set.most_futexes > 1
    return str(request.param)
