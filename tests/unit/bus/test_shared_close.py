"""``EventBus.close()`` on another thread while an end is claimed through the bus's descriptor."""

from __future__ import annotations

import os
import threading

import pytest

from nodedb_ring import ClosedError, EventBus
from nodedb_ring.bus.file import BusFile
from tests.unit.forks import FORKS
from tests.unit.runners import in_child

from .claims import ROLES, claim

SECONDS = 20.0


class Held:
    """Keeps whoever asks for a path to wake by, which is between the check that a bus is open and the claim."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_there = threading.Event()
        self.let_go = threading.Event()
        wake_path = BusFile.wake_path

        def held(file: BusFile, core_id: int) -> bytes:
            if threading.current_thread() is not threading.main_thread():
                self.is_there.set()
                assert self.let_go.wait(SECONDS)
            return wake_path(file, core_id)

        monkeypatch.setattr(BusFile, "wake_path", held)


@pytest.mark.parametrize("role", ROLES)
def test_a_descriptor_is_not_closed_under_a_claim(role: str, bus: EventBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number could be another file's by then, and the end would be claimed there, where nobody else looks."""
    held = Held(monkeypatch)
    ends: list[object] = []
    claiming = threading.Thread(target=lambda: ends.append(claim(bus, role)))
    claiming.start()
    assert held.is_there.wait(SECONDS)
    closing = threading.Thread(target=bus.close)
    closing.start()
    closing.join(0.1)
    # Where close() does not wait this fails always, and where it does never.
    os.fstat(bus._file.fileno())  # pyright: ignore[reportPrivateUsage]
    held.let_go.set()
    claiming.join(SECONDS)
    closing.join(SECONDS)
    assert len(ends) == 1
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(bus._file.fileno())  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(ClosedError):
        claim(bus, role)


@pytest.mark.parametrize("fork", FORKS)
def test_a_child_does_not_wait_for_a_thread_of_its_parent(
    fork: object, bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    claiming = threading.Thread(target=claim, args=(bus, "producer"))
    claiming.start()
    try:
        assert held.is_there.wait(SECONDS)
        assert in_child(lambda: claim(bus, "consumer").core_id, fork) == 0  # type: ignore[arg-type]
    finally:
        held.let_go.set()
        claiming.join(SECONDS)
