"""Refuses system calls to this process, and to the children it makes, as a container's profile does."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import Final

NUMBERS: Final = {
    "x86_64": {"pidfd_open": 434, "membarrier": 324},
    "aarch64": {"pidfd_open": 434, "membarrier": 283},
}[platform.machine()]

_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECCOMP: Final = 22
_SECCOMP_MODE_FILTER: Final = 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW: Final = 0x7FFF0000
_FAIL_WITH: Final = 0x00050000


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def refuse(name: str) -> None:
    """From now on that system call fails with EPERM here. It cannot be undone: call it in a process of its own."""
    code = [
        (_LOAD, 0, 0, 0),
        (_JUMP_IF_EQUAL, 0, 1, NUMBERS[name]),
        (_RETURN, 0, 0, _FAIL_WITH | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    packed = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *each) for each in code))
    program = _Program(len(code), ctypes.addressof(packed))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*call) != 0:
            wrong = ctypes.get_errno()
            raise OSError(wrong, os.strerror(wrong))
