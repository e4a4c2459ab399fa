"""What a process that may be killed at any instant has done so far: words in a file that its parent maps too.

A store to a shared mapping survives the process that made it, so what is written here before a SIGKILL is there after
it. A record counts once ``length`` covers it, and that is stored last.
"""

from __future__ import annotations

import contextlib
import enum
import mmap
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

WORDS: Final = 1 << 19
"""Of a journal: what a process does in some tenths of a second."""

UNKNOWN: Final = 2**64 - 1
"""The result of an attempt that has not returned yet."""

_HEAD: Final = 32
_TEXT_WORDS: Final = 1024
_LOG: Final = _HEAD + _TEXT_WORDS


@contextlib.contextmanager
def memory_directory() -> Generator[Path]:
    """A place in memory, if there is one: a journal on a disk would be written out all the time."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="stress-") as name:
        yield Path(name)


class Attempt(enum.IntEnum):
    """How a producer emits."""

    EMIT = 1
    BATCH = 2
    RESERVE = 3


class Mark(enum.IntEnum):
    """Records of a consumer; the word's other bits are a number."""

    TAKE = 1
    """About to take and release at most so many."""
    LEASE = 2
    """About to lease at most so many."""
    GOT = 3
    """So many sequence numbers follow, after the number of their lease, 0 for events that were released."""
    RELEASING = 4
    """About to end the lease of this number."""
    RELEASED = 5


class Journal:
    """One process's record. Words of the head have one writer each; all of them start as 0."""

    # Words of the head.
    LENGTH, CLAIMED, NEXT_SEQUENCE, RELEASED, REDELIVERED, TICKS, CHECKED, GONE, CLOSED, STOP, TEXT = range(11)

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("a+b") as file:
            file.truncate((_LOG + WORDS) * 8)
            self._map = mmap.mmap(file.fileno(), (_LOG + WORDS) * 8)
        self.words: Words = np.frombuffer(self._map, np.uint64)
        self._view = memoryview(self._map).cast("Q")
        self._end = _LOG + int(self._view[self.LENGTH])

    def __getitem__(self, word: int) -> int:
        return int(self._view[word])

    def __setitem__(self, word: int, value: int) -> None:
        self._view[word] = value

    def clear(self) -> None:
        """Makes it the journal of another process."""
        used = _LOG + self[self.LENGTH]
        self.words[:used] = 0
        self._end = _LOG

    @property
    def is_full(self) -> bool:
        """Whether there is hardly room for another record."""
        return self._end > len(self.words) - 8192

    @property
    def log(self) -> Words:
        """A copy of the words that count."""
        return self.words[_LOG : _LOG + self[self.LENGTH]].copy()

    def claimed(self, next_sequence: int, released: int, redelivered: int) -> None:
        """Says how a producer or a consumer found its ring."""
        self[self.NEXT_SEQUENCE] = next_sequence
        self[self.RELEASED] = released
        self[self.REDELIVERED] = redelivered
        self[self.CLAIMED] = 1

    def tick(self) -> None:
        """Says that the process is getting on."""
        self._view[self.TICKS] += 1

    def try_events(self, how: Attempt, first: int, count: int) -> None:
        """Says which numbers are about to be emitted."""
        view, at = self._view, self._end
        view[at], view[at + 1], view[at + 2], view[at + 3] = how, first, count, UNKNOWN
        self._end = at + 4
        view[self.LENGTH] = self._end - _LOG

    def tried(self, enqueued: int) -> None:
        """Records how many of them were enqueued."""
        self._view[self._end - 1] = enqueued

    def mark(self, mark: Mark, number: int) -> None:
        """Appends a record of one word."""
        self._view[self._end] = mark | number << 8
        self._end += 1
        self._view[self.LENGTH] = self._end - _LOG

    def got(self, lease: int, sequence: Words) -> None:
        """Appends what was taken."""
        end = self._end + 2 + len(sequence)
        self._view[self._end] = Mark.GOT | len(sequence) << 8
        self._view[self._end + 1] = lease
        self.words[self._end + 2 : end] = sequence
        self._end = end
        self._view[self.LENGTH] = end - _LOG

    def say(self, text: str) -> None:
        """Leaves a message: why the process gave up."""
        data = text.encode()[-_TEXT_WORDS * 8 :]
        self._map[_HEAD * 8 : _HEAD * 8 + len(data)] = data
        self[self.TEXT] = len(data)

    @property
    def text(self) -> str:
        """The message, if any."""
        return self._map[_HEAD * 8 : _HEAD * 8 + self[self.TEXT]].decode(errors="replace")
