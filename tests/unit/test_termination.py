"""SIGTERM and SIGHUP unwind what a command does, unless it was told to ignore them."""

from __future__ import annotations

import signal

import pytest

from nodedb_ring.termination import TERMINATION, termination_unwinds


@pytest.mark.parametrize("number", TERMINATION)
def test_a_signal_is_an_exit_with_a_shell_s_code(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended, termination_unwinds():
        signal.raise_signal(number)
    assert ended.value.code == 128 + number
    assert signal.getsignal(number) is before


def test_what_nohup_ignores_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with termination_unwinds():
            signal.raise_signal(signal.SIGHUP)
            with pytest.raises(SystemExit):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
