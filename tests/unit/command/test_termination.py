"""SIGTERM and SIGHUP unwind what a command does, unless it was started to ignore them, and not while a child starts."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing import resource_tracker, util
from pathlib import Path

import pytest

from nodedb_ring.command.bench.pair import pair_of_processes
from nodedb_ring.command.bench.settings import Settings
from nodedb_ring.command.demo import durable, processes
from nodedb_ring.command.termination import TERMINATION, termination_deferred, termination_unwinds
from tests.unit.ends.test_waiting import Interrupted, on_signal
from tests.unit.shared_buses import BusMaker


@pytest.mark.parametrize("number", TERMINATION)
def test_a_signal_is_an_exit_with_a_shell_s_code(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended, termination_unwinds():
        signal.raise_signal(number)
    assert ended.value.code == 128 + number
    assert signal.getsignal(number) is before


def test_signals_ignored_by_nohup_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with termination_unwinds():
            signal.raise_signal(signal.SIGHUP)
            with pytest.raises(SystemExit):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, *TERMINATION])
def test_a_signal_during_the_block_is_handled_at_its_end(number: signal.Signals) -> None:
    done: list[str] = []

    def interrupt(*_: object) -> None:
        done.append("served")
        raise Interrupted

    with on_signal(number, interrupt):
        with pytest.raises(Interrupted):  # noqa: PT012
            with termination_deferred():
                signal.raise_signal(number)
                signal.raise_signal(number)
                done.append("all")
            done.append("beyond")
        with pytest.raises(Interrupted):
            signal.raise_signal(number)
    assert done == ["all", "served", "served"]


def test_signals_that_would_not_unwind_are_left_alone() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with termination_deferred():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def start_a_benchmark(_: BusMaker, __: Path) -> None:
    with pair_of_processes(Settings.of(quick=True, capacities=[64], seconds=0.3), None):
        pass


def start_the_demo(make_bus: BusMaker, place: Path) -> None:
    processes.run([], (place / "0", place / "1"), make_bus(2), lambda done: None, lambda line: None)


def start_the_durable_demo(make_bus: BusMaker, place: Path) -> None:
    durable.run([], (place / "0", place / "1"), make_bus(2), lambda done: None, lambda line: None)


@pytest.mark.parametrize("start", [start_a_benchmark, start_the_demo, start_the_durable_demo])
@pytest.mark.parametrize("children", [1, 2])
def test_a_child_interrupted_while_it_starts_prints_nothing(
    children: int,
    start: Callable[[BusMaker, Path], None],
    make_bus: BusMaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    started: list[int] = []
    spawn = util.spawnv_passfds

    def spawn_and_signal(path: bytes, arguments: Sequence[bytes], files: Sequence[int]) -> int:
        # The child waits for what it is to do, which multiprocessing writes next.
        started.append(spawn(path, arguments, files))
        if len(started) == children:
            signal.raise_signal(signal.SIGTERM)
        return started[-1]

    resource_tracker.ensure_running()
    monkeypatch.setattr(util, "spawnv_passfds", spawn_and_signal)
    with pytest.raises(SystemExit), termination_unwinds():
        start(make_bus, tmp_path)
    assert len(started) == children
    for pid in started:
        with contextlib.suppress(ChildProcessError):  # as it must be: it was waited for
            os.waitpid(pid, 0)
    assert capfd.readouterr().err == ""
