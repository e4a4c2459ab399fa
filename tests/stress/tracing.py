"""Children that are stepped instruction by instruction, under ptrace."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
from collections.abc import Generator
from types import FrameType
from typing import Final

from .watchdog import PATIENCE

TRACEME: Final = 0
CONT: Final = 7
SINGLE_STEP: Final = 9
SYSCALL: Final = 24

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def ptrace(request: int, pid: int) -> None:
    """One request, of which the child is all the arguments."""
    if _libc.ptrace(request, pid, None, None) != 0:
        raise OSError(ctypes.get_errno(), f"ptrace({request})")


def can_trace() -> str:
    """Why no child can be traced here, if the machine's policy forbids it; nothing otherwise."""
    pid = os.fork()
    if pid == 0:
        if _libc.ptrace(TRACEME, 0, None, None) != 0:
            os._exit(ctypes.get_errno())
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status):
        return f"this machine forbids PTRACE_TRACEME: {os.strerror(os.WEXITSTATUS(status))}"
    refused = _libc.ptrace(SINGLE_STEP, pid, None, None) != 0
    reason = f"this machine forbids PTRACE_SINGLESTEP: {os.strerror(ctypes.get_errno())}" if refused else ""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return reason


def is_stop(status: int, by: signal.Signals) -> bool:
    """Whether a child was stopped by this signal."""
    return os.WIFSTOPPED(status) and os.WSTOPSIG(status) == by


@contextlib.contextmanager
def traced(pid: int) -> Generator[None]:
    """Kills and reaps a child in the end, and sooner if it makes no end: no operation waits for anything."""

    def give_up(_signal: int, _frame: FrameType | None) -> None:
        os.kill(pid, signal.SIGKILL)

    usual = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, 10 * PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@contextlib.contextmanager
def on_one_processor() -> Generator[None]:
    """Keeps this process and its children on one processor, where a step costs no message to another; logs nothing."""
    usual, level = os.sched_getaffinity(0), logging.root.manager.disable
    os.sched_setaffinity(0, {max(usual)})
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)
        os.sched_setaffinity(0, usual)
