"""Ways to fork: by Python, by the C library, and by neither."""

from __future__ import annotations

import ctypes
import os
import platform
import signal

libc = ctypes.PyDLL(None, use_errno=True)  # keeps the GIL: the child continues with it


def c_fork() -> int:
    """A fork that Python knows nothing of."""
    pid: int = libc.fork()
    return pid


FORKS = [os.fork, c_fork]
CLONE = {"x86_64": 56, "aarch64": 220}[platform.machine()]


def raw_fork() -> int:
    """A fork that the C library knows nothing of."""
    pid: int = libc.syscall(CLONE, int(signal.SIGCHLD), 0, 0, 0, 0)
    return pid
