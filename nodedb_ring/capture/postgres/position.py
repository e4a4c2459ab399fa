"""Where in the server's stream an event log ends, so that a transaction that it has in part is completed.

The stream sends commits in the order of their LSNs, and a restart sends some of them again. The last event of the log
says of which commit it is; how many of that commit's events stand before it says how much of it is there.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from ...batch.schema import NO_TIME
from ...errors import CaptureError
from ...log import EventLog

__all__ = ["Position", "find_position", "group_of"]

_NEAR: Final = 1024
"""Events at the end of the log among which the commit's first one is usually found."""


class Position(NamedTuple):
    """What was delivered: all commits below `lsn`, and the first `events` events of the commit there."""

    lsn: int
    events: int


class _Commit(NamedTuple):
    lsn: int
    time_ms: int


def group_of(slot: str) -> str:
    """The consumer group whose watermark keeps the last commit from being trimmed."""
    return f"capture {slot}"


def find_position(log: EventLog, core_id: int, slot: str) -> Position:
    """Of an empty log, before everything.

    Raises
    ------
    CaptureError
        The commit that the log ends with was trimmed, or its first events were.
    """
    last = log.last_sequence(core_id)
    if last is None:
        return Position(0, 0)
    commit = _commit_at(log, core_id, last)
    if commit is None:
        raise _trimmed(log, core_id, last, slot)
    if commit.time_ms == NO_TIME:
        # A row of a snapshot: no commit of the stream has begun.
        return Position(commit.lsn, 0)
    first = _first_of(log, core_id, last, commit)
    is_cut = first > 1 and _commit_at(log, core_id, first - 1) is None
    if is_cut and log.load_watermark(group_of(slot), core_id) != first - 1:
        raise _trimmed(log, core_id, last, slot)
    return Position(commit.lsn, last - first + 1)


def _trimmed(log: EventLog, core_id: int, last: int, slot: str) -> CaptureError:
    return CaptureError(
        f"log {log!r}: the commit of event {last} of core {core_id} was trimmed, and with it how much of it the log"
        f" has; trim with trim_committed(), which keeps it. To start anew, drop slot {slot!r} and capture with"
        " snapshot=True into another log or core"
    )


def _commit_at(log: EventLog, core_id: int, sequence: int) -> _Commit | None:
    for batch in log.read(core_id, sequence, sequence):
        return _Commit(int(batch.lsn[0]), int(batch.system_time_ms[0]))
    return None


def _first_of(log: EventLog, core_id: int, last: int, commit: _Commit) -> int:
    """The first event of the commit that event `last` is of. All between the two are of it."""
    # Nearly always among the last ones.
    near = max(1, last - _NEAR + 1)
    first = 0
    for batch in log.read(core_id, near, last):
        others = np.flatnonzero((batch.lsn != commit.lsn) | (batch.system_time_ms != commit.time_ms))
        start = int(others[-1]) + 1 if len(others) else 0
        if start == len(batch):
            first = 0
        elif start or not first:
            first = int(batch.sequence[start])
    if first != near:
        return first
    below, first = 0, near
    while below + 1 < first:
        middle = (below + first) // 2
        if _commit_at(log, core_id, middle) == commit:
            first = middle
        else:
            below = middle
    return first
