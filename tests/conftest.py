"""What holds for every test."""

from __future__ import annotations

import os
import signal

import pytest

from .absent_libraries import stand_in

stand_in()


def pytest_configure(config: pytest.Config) -> None:
    """Leaves out slow tests where nothing was chosen, and makes Ctrl-C and SIGHUP work.

    A job that a shell starts in the background may ignore Ctrl-C, and one of nohup ignores SIGHUP. So would all that
    the tests start.
    """
    if _is_whole(config) and not config.option.markexpr:
        config.option.markexpr = "not slow"
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes for the whole suite. None for a chosen part: it is over before a second one could start."""
    return 2 if _is_whole(config) and len(os.sched_getaffinity(0)) > 1 else 0


def _is_whole(config: pytest.Config) -> bool:
    """Whether no folder, file or test was named on the command line."""
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS
