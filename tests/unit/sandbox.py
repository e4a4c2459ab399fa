"""Processes that the kernel refuses something: system calls, by a filter as containers have one, or mounts."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

import pytest

from .runners import in_child

T = TypeVar("T")

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_NUMBERS: Final = {
    "x86_64": {
        "linkat": 265,
        "link": 86,
        "madvise": 28,
        "mknod": 133,
        "mknodat": 259,
        "fcntl": 72,
        "membarrier": 324,
        "pidfd_open": 434,
        "futex_waitv": 449,
    },
    "aarch64": {
        "linkat": 37,
        "madvise": 233,
        "mknodat": 33,
        "fcntl": 25,
        "membarrier": 283,
        "pidfd_open": 434,
        "futex_waitv": 449,
    },
}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x50000
_NUMBER_AT, _ARGUMENTS_AT = 0, 16
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000


class Refusal(NamedTuple):
    """A system call that fails; with `argument`, (place, value), only where that one is passed."""

    name: str
    error: int = errno.EPERM
    argument: tuple[int, int] | None = None


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def refused_from_here_on(*refusals: Refusal) -> None:
    """For the rest of this process's life."""
    code: list[tuple[int, int, int, int]] = []
    numbers = _NUMBERS[platform.machine()]
    for refusal in refusals:
        if refusal.name not in numbers:
            continue  # aarch64 has no such call
        verdict = (_RETURN, 0, 0, _ERRNO | refusal.error)
        code.append((_LOAD, 0, 0, _NUMBER_AT))
        if refusal.argument is None:
            code += [(_JUMP_IF_EQUAL, 0, 1, numbers[refusal.name]), verdict]
        else:
            place, value = refusal.argument
            code += [
                (_JUMP_IF_EQUAL, 0, 3, numbers[refusal.name]),
                (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * place),
                (_JUMP_IF_EQUAL, 0, 1, value),
                verdict,
            ]
    code.append((_RETURN, 0, 0, _ALLOW))
    packed = b"".join(struct.pack("HBBI", *each) for each in code)
    buffer = ctypes.create_string_buffer(packed, len(packed))
    program = _Program(len(code), ctypes.addressof(buffer))
    _checked(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(_LIBC.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0))


def refusing(*refusals: Refusal) -> Callable[[Callable[[], T]], T]:
    """Runs a call in a child to which those system calls are refused, and returns what it returns."""
    if platform.machine() not in _NUMBERS:
        pytest.skip(f"the numbers of the system calls of {platform.machine()} are not written down here")

    def run(call: Callable[[], T]) -> T:
        def refused() -> T:
            refused_from_here_on(*refusals)
            return call()

        return in_child(refused)

    return run


def mounting(kind: str, at: str, options: str = "") -> Callable[[Callable[[], T]], T]:
    """Runs a call in a child that has a file system of its own there; skips the test where that is not allowed."""

    def mount() -> int:
        if _LIBC.unshare(CLONE_NEWNS) != 0:
            return ctypes.get_errno()
        if _LIBC.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) != 0:
            return ctypes.get_errno()
        if _LIBC.mount(b"none", os.fsencode(at), kind.encode(), 0, options.encode()) != 0:
            return ctypes.get_errno()
        return 0

    wrong = in_child(mount)
    if wrong:
        pytest.skip(f"this process may mount no {kind}: {os.strerror(wrong)}")

    def run(call: Callable[[], T]) -> T:
        def mounted() -> T:
            assert mount() == 0
            return call()

        return in_child(mounted)

    return run


def _checked(result: int) -> None:
    if result != 0:
        wrong = ctypes.get_errno()
        raise OSError(wrong, os.strerror(wrong))
