"""A program on a terminal of its own: what it writes there, and keys that are pressed."""

from __future__ import annotations

import codecs
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from types import TracebackType
from typing import Any, Final, Self

SECONDS: Final = 40
CTRL_C: Final = b"\x03"
# A session without one takes the first terminal that its leader opens for its own: then Ctrl-C is an interrupt.
_TAKE_TERMINAL: Final = """
import os, sys
os.close(os.open(os.ttyname(0), os.O_RDWR))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
_CONTROL: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class OnTerminal:
    """A Python program in a session of its own, whose controlling terminal is a new pseudo-terminal."""

    def __init__(self, *arguments: str, columns: int = 80, lines: int = 24, **environment: str) -> None:
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))
        self._before = self.settings()
        kept = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=subprocess.PIPE,
            env=kept | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | environment,
            start_new_session=True,
        )
        os.close(theirs)
        self.output = ""
        # A read may end in the midst of a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def settings(self) -> list[Any]:
        """How the terminal is set: echo, line editing and so on."""
        return termios.tcgetattr(self._ours)

    def until(self, text: str) -> str:
        """Reads until that was written, and returns all that was written so far."""
        while text not in self.output:
            assert self._read(), f"{text!r} is not in {self.output!r}"
        return self.output

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def end(self) -> tuple[int, str]:
        """The exit code, and what it wrote to stderr. The terminal's settings have to be as they were."""
        while self._read():
            pass
        assert self.process.stderr is not None
        errors = self.process.stderr.read().decode()
        code = self.process.wait(SECONDS)
        assert self.settings() == self._before
        return code, errors

    def _read(self) -> bool:
        assert select.select([self._ours], [], [], SECONDS)[0], f"nothing more within {SECONDS} s: {self.output!r}"
        try:
            more = os.read(self._ours, 65536)
        except OSError:  # what a terminal says that nobody writes to any more
            return False
        self.output += self._decoder.decode(more)
        return bool(more)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
        os.close(self._ours)


def plain(output: str) -> str:
    """Without what moves the cursor and changes colours."""
    return _CONTROL.sub("", output)
