"""Whether a wait polls before it sleeps. The clock is the test's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol, cast

import pytest

from tests.stress.compiling import compiled

SPIN = 10_000
SHARE = 8
"""Polls in vain may take one part in so many of the time."""

PATIENCE = 4
"""Polls in vain that one which gained something makes up for."""

ELSEWHERE = 10_000
"""A processor that this machine does not have."""


class Waiter(Protocol):
    def pays(self, waker_cpu: int, now: int, spin_ns: int) -> bool: ...
    def polled(self, is_over: bool, spin_ns: int) -> None: ...


class Calls(Protocol):
    def Waiter(self) -> Waiter: ...
    def processor(self) -> int: ...


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Calls:
    source = Path(__file__).with_name("polling_calls.pyx")
    return cast("Calls", compiled(source, tmp_path_factory.mktemp("polling_calls")))


def in_vain(waiter: Waiter, now: int, wait_ns: int, waits: int, spin: int = SPIN) -> list[bool]:
    """Waits one after the other, which no poll shortens: which of them polled."""
    done: list[bool] = []
    for number in range(waits):
        done.append(waiter.pays(ELSEWHERE, now + number * wait_ns, spin))
        if done[-1]:
            waiter.polled(is_over=False, spin_ns=spin)
    return done


@pytest.mark.parametrize("wait_ns", [SPIN, 2 * SPIN, 5 * SPIN])
def test_polls_in_vain_take_an_eighth_of_the_time(calls: Calls, wait_ns: int) -> None:
    waits = 1000
    done = in_vain(calls.Waiter(), 10**15, wait_ns, waits)
    assert done[:PATIENCE] == [True] * PATIENCE
    most = waits * wait_ns / SHARE + PATIENCE * SPIN
    assert most - 2 * SPIN <= sum(done) * SPIN <= most


@pytest.mark.parametrize("spin", [SPIN, 1000 * SPIN])
def test_a_long_wait_polls_every_time(calls: Calls, spin: int) -> None:
    assert all(in_vain(calls.Waiter(), 10**15, SHARE * spin, 1000, spin))


def test_time_that_passed_long_ago_is_not_saved_up(calls: Calls) -> None:
    waiter = calls.Waiter()
    assert all(in_vain(waiter, 10**15, SPIN, PATIENCE))
    assert sum(in_vain(waiter, 2 * 10**15, SPIN, 50)) <= PATIENCE + 50 / SHARE


def test_a_poll_that_gains_something_makes_up_for_those_in_vain(calls: Calls) -> None:
    waiter = calls.Waiter()
    in_vain(waiter, 10**15, SPIN, 100)
    now = 10**15 + 100 * SPIN
    while not waiter.pays(ELSEWHERE, now, SPIN):
        now += SPIN
    waiter.polled(is_over=True, spin_ns=SPIN)
    for number in range(1000):
        # One of five in vain.
        assert waiter.pays(ELSEWHERE, now, SPIN)
        waiter.polled(is_over=number % 5 != 0, spin_ns=SPIN)


def test_nobody_polls_who_is_told_not_to(calls: Calls) -> None:
    assert not calls.Waiter().pays(ELSEWHERE, 10**15, 0)


def test_nobody_polls_on_the_processor_of_the_other_end(calls: Calls) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        here = calls.processor()
        assert here == min(before) + 1
        assert not calls.Waiter().pays(here, 10**15, SPIN)
        assert calls.Waiter().pays(ELSEWHERE, 10**15, SPIN)
        # Where that is, is unknown.
        assert calls.Waiter().pays(0, 10**15, SPIN)
    finally:
        os.sched_setaffinity(0, before)
