"""The events that the writer sends repeatedly, and how the reader checks them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np

from ...batch._event import WriteEvent
from ...batch._event_batch import EventBatch
from ...batch.schema import WriteOp
from ...errors import WrongAnswerError

__all__ = ["COLLECTION", "Lap", "Tally", "lap_of", "payload_bytes"]

COLLECTION: Final = "flights"

_ROW_ID_DIGITS: Final = 9
_LEAST_EVENTS: Final = 5 * 1024
"""Few enough to stay in the core's cache, like new events. Not a power of two, so that a slot of the ring gets a
different event in the next lap."""
_MOST_BYTES: Final = 2**23
_CHECK_EVERY: Final = 1024


def payload_bytes(value_bytes: int) -> int:
    """Payload bytes of one event in the arena."""
    return len(COLLECTION) + _ROW_ID_DIGITS + value_bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Lap:
    """Events numbered from 1, and the same events in batches."""

    events: Sequence[WriteEvent]
    batches: Sequence[EventBatch]


def lap_of(batch_size: int, value_bytes: int) -> Lap:
    """A lap of whole batches; each event has its own row id and value. Cached."""
    kind = batch_size, value_bytes
    if kind not in _laps:
        _laps[kind] = _make_lap(batch_size, value_bytes)
    return _laps[kind]


_laps: dict[tuple[int, int], Lap] = {}


def _make_lap(batch_size: int, value_bytes: int) -> Lap:
    wanted = min(_LEAST_EVENTS, _MOST_BYTES // payload_bytes(value_bytes) + 1)
    count = -(-wanted // batch_size) * batch_size
    events = [
        WriteEvent(
            sequence=number,
            collection=COLLECTION,
            op=WriteOp.INSERT,
            row_id=f"{number:0{_ROW_ID_DIGITS}}",
            lsn=number,
            new_value=_value(number, value_bytes),
        )
        for number in range(1, count + 1)
    ]
    batches = [EventBatch.from_events(events[start : start + batch_size]) for start in range(0, count, batch_size)]
    return Lap(events, batches)


def _value(number: int, value_bytes: int) -> bytes:
    word = (number * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "little")
    return (word * (value_bytes // 8 + 1))[:value_bytes]


class Tally:
    """Counts the events of consecutive laps and checks that each is at its place.

    Parameters
    ----------
    lap : Lap
    thorough : bool
        Whether every field of every event is compared. Otherwise the numbers of one batch per 1024 events are checked:
        a lost or repeated event shifts all later ones.
    """

    def __init__(self, lap: Lap, *, thorough: bool) -> None:
        self.count: int = 0
        self._lap = lap
        self._thorough = thorough
        self._seen = 0  # events up to the last check
        self._last: EventBatch | None = None

    def take(self, batch: EventBatch) -> None:
        """Counts and checks a batch.

        Raises
        ------
        WrongAnswerError
            It is not what the writer sent next.
        """
        self.count += len(batch)
        self._last = batch
        if self._thorough or self.count - self._seen >= _CHECK_EVERY:
            self._check(batch)

    def close(self) -> None:
        """Checks the last batch, too, however small."""
        if self._last is not None:
            self._check(self._last)

    def _check(self, batch: EventBatch) -> None:
        places = np.arange(self.count - len(batch), self.count) % len(self._lap.events)
        if not np.array_equal(batch.sequence, places + 1):
            raise WrongAnswerError(
                f"events {_span(batch.sequence.tolist())} arrived, and {_span((places + 1).tolist())} were next"
            )
        if self._thorough:
            for event, place in zip(batch, places.tolist(), strict=True):
                if event != self._lap.events[place]:
                    raise WrongAnswerError(f"{event} arrived, and {self._lap.events[place]} was sent")
        self._seen = self.count


def _span(numbers: list[int]) -> str:
    return f"{numbers[0]} to {numbers[-1]}"
