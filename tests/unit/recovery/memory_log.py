"""An event log in memory: small, and able to fail when a test says so."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from nodedb_ring import EventBatch, LogConflictError
from tests.unit.builders import batch as batch_of


class LogDownError(OSError):
    """What this log raises when a test makes it fail."""


class MemoryLog:
    """Batches as they were appended, by core.

    Attributes
    ----------
    reads : list of (int, int)
        The ranges that were asked for.
    handed : int
        Events handed out by `read`.
    fail_after : int or None
        `read` raises before it hands out the batch after so many; once, for it is None again then.
    is_down : bool
        Every method raises while it is set.
    """

    def __init__(self) -> None:
        self.batches: dict[int, list[EventBatch]] = {}
        self.last: dict[int, int] = {}
        self.marks: dict[tuple[str, int], int] = {}
        self.saved: list[int] = []
        self.reads: list[tuple[int, int]] = []
        self.handed = 0
        self.fail_after: int | None = None
        self.is_down = False
        self.changed = threading.Condition()
        # When a test sets it, read waits for it before each batch, and sets `at_gate` first.
        self.gate: threading.Event | None = None
        self.at_gate = threading.Event()

    def _check_up(self) -> None:
        if self.is_down:
            raise LogDownError("down")

    def append(self, core_id: int, batch: EventBatch) -> None:
        self._check_up()
        if not len(batch):
            return
        numbers = [int(number) for number in batch.sequence]
        if numbers != sorted(set(numbers)) or numbers[0] <= self.last.get(core_id, -1):
            raise LogConflictError(f"{numbers[0]} after {self.last.get(core_id)}")
        with self.changed:
            self.batches.setdefault(core_id, []).append(batch[:])
            self.last[core_id] = numbers[-1]
            self.changed.notify_all()

    def put(self, first: int, last: int, core_id: int = 0) -> None:
        """Appends events of the numbers `first` to `last`, one batch."""
        self.append(core_id, batch_of(first, last))

    def read(self, core_id: int, first_sequence: int, last_sequence: int) -> Iterator[EventBatch]:
        assert 0 <= first_sequence <= last_sequence < 2**64
        self._check_up()
        self.reads.append((first_sequence, last_sequence))
        return self._batches_of(core_id, first_sequence, last_sequence)

    def _batches_of(self, core_id: int, first: int, last: int) -> Iterator[EventBatch]:
        for each in list(self.batches.get(core_id, [])):
            within = each[(each.sequence >= first) & (each.sequence <= last)]
            if not len(within):
                continue
            self._check_up()
            if self.gate is not None:
                self.at_gate.set()
                assert self.gate.wait(30)
            if self.fail_after is not None:
                if self.fail_after == 0:
                    self.fail_after = None
                    raise LogDownError("lost in the midst of a read")
                self.fail_after -= 1
            self.handed += len(within)
            yield within

    def last_sequence(self, core_id: int) -> int | None:
        self._check_up()
        return self.last.get(core_id)

    def trim(self, core_id: int, upto: int) -> None:
        self._check_up()
        self.batches[core_id] = [each for each in self.batches.get(core_id, []) if int(each.sequence[-1]) > upto]

    def load_watermark(self, group: str, core_id: int) -> int | None:
        self._check_up()
        return self.marks.get((group, core_id))

    def save_watermark(self, group: str, core_id: int, sequence: int) -> None:
        self._check_up()
        self.saved.append(sequence)
        self.marks[group, core_id] = sequence


class LiveMemoryLog(MemoryLog):
    """The same, and it notifies waiters when something was appended."""

    waits = 0

    def wait_beyond(self, core_id: int, sequence: int, timeout: float) -> bool:
        with self.changed:
            self.waits += 1
            self.changed.notify_all()
            return self.changed.wait_for(lambda: self.last.get(core_id, -1) > sequence, timeout)
