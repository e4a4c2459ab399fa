"""What holds for every test."""

from __future__ import annotations

import os
import signal

import pytest


def pytest_configure() -> None:
    """A job that a shell starts in the background may ignore Ctrl-C, and so would all that the tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes for the whole suite. None for a chosen part: it is over before a second one could start."""
    is_whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return 2 if is_whole and len(os.sched_getaffinity(0)) > 1 else 0
