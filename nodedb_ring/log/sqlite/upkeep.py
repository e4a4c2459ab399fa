"""What a log has, who reads it, whether it is intact, and copies of it: for those who run it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from ...errors import CorruptLogError, LogError
from ..encoding import decode_batch
from .claims import Holder, claims_path, is_claimed, place_of
from .drivers import Connection, Query

__all__ = ["CoreRange", "GroupPosition", "copy_to", "cores", "damage", "groups", "lowest_marks", "still_followed"]


class CoreRange(NamedTuple):
    """What a log has of a core.

    Attributes
    ----------
    core_id : int
    first_sequence : int or None
        The first number that it still has; None if everything was trimmed.
    last_sequence : int
        The highest number ever appended.
    events, batches : int
        What it still has.
    size : int
        Bytes of their rows and payload.
    """

    core_id: int
    first_sequence: int | None
    last_sequence: int
    events: int
    batches: int
    size: int


class GroupPosition(NamedTuple):
    """Where a group stands in a core.

    Attributes
    ----------
    group : str
    core_id : int
    sequence : int or None
        Its watermark; None if it has followed and not committed yet.
    lag : int
        Numbers from there to the core's highest one.
    holder : str or None
        The process that follows now, its machine, and since when; None if nobody does.
    """

    group: str
    core_id: int
    sequence: int | None
    lag: int
    holder: str | None


_CORES: Final = """
SELECT core_id, min(first_sequence), max(last_sequence), sum(count), count(*), sum(length(rows) + length(payload))
    FROM nodedb_ring_log GROUP BY core_id
UNION ALL SELECT core_id, NULL, last_sequence, 0, 0, 0 FROM nodedb_ring_core
    WHERE core_id NOT IN (SELECT core_id FROM nodedb_ring_log)
ORDER BY core_id"""
_GROUPS: Final = """
SELECT group_name, core_id, sequence, pid, host, since
    FROM (SELECT group_name, core_id FROM nodedb_ring_watermark
        UNION SELECT group_name, core_id FROM nodedb_ring_follower)
    LEFT JOIN nodedb_ring_watermark USING (group_name, core_id)
    LEFT JOIN nodedb_ring_follower USING (group_name, core_id)
ORDER BY group_name, core_id"""
_RANGES: Final = "SELECT core_id, first_sequence, last_sequence FROM nodedb_ring_log ORDER BY core_id, first_sequence"
_ROW: Final = (
    "SELECT last_sequence, count, checksum, rows, payload FROM nodedb_ring_log WHERE core_id = ? AND first_sequence = ?"
)


def cores(query: Query) -> list[CoreRange]:
    """``SqliteEventLog.cores``."""
    return [CoreRange(*row) for row in query("the cores were not read", _CORES, ())]


def groups(query: Query, path: str) -> list[GroupPosition]:
    """``SqliteEventLog.groups``."""
    ranges = {each.core_id: each for each in cores(query)}
    found: list[GroupPosition] = []
    for group, core_id, sequence, *holder in query("the groups were not read", _GROUPS, ()):
        known = ranges.get(core_id)
        last = 0 if known is None else known.last_sequence
        stands = sequence
        if stands is None:
            first = None if known is None else known.first_sequence
            stands = last if first is None else first - 1
        follows = holder[0] is not None and is_claimed(claims_path(path), place_of(group, core_id))
        found.append(
            GroupPosition(group, core_id, sequence, max(0, last - stands), str(Holder(*holder)) if follows else None)
        )
    return found


def lowest_marks(positions: list[GroupPosition]) -> dict[int, int]:
    """The number up to which all groups of a core are done, by core, where every group has committed."""
    by_core: dict[int, list[int | None]] = {}
    for each in positions:
        by_core.setdefault(each.core_id, []).append(each.sequence)
    return {
        core_id: min(mark for mark in marks if mark is not None)
        for core_id, marks in by_core.items()
        if None not in marks
    }


def damage(query: Query) -> Iterator[CorruptLogError | None]:
    """Reads every stored batch; what is wrong with it, or None."""
    for core_id, first, _ in query("the batches were not listed", _RANGES, ()):
        rows = query(f"the batch of core {core_id} from {first} on was not read", _ROW, (core_id, first))
        if not rows:
            # Trimmed meanwhile.
            continue
        [(last, count, checksum, row_bytes, payload)] = rows
        try:
            decode_batch(row_bytes, payload, checksum, core_id=core_id, first=first, last=last, count=count)
        except CorruptLogError as error:
            yield error
        else:
            yield None


def copy_to(source: Connection, target: str) -> None:
    """Copies a database into a file that is not there yet, and appears when it is whole.

    Raises
    ------
    FileExistsError
    """
    if os.path.exists(target):
        raise FileExistsError(f"{target}: is there already; a backup overwrites nothing, so name another file")
    unfinished = f"{target}.{os.getpid()}.unfinished"
    try:
        source.copy_to(unfinished)
        try:
            # Unlike a rename, it overwrites nothing.
            os.link(unfinished, target)
        except FileExistsError as error:
            raise FileExistsError(f"{target}: was made by somebody else meanwhile; name another file") from error
    finally:
        for left in ("", "-wal", "-shm", "-journal"):
            if os.path.exists(unfinished + left):
                os.unlink(unfinished + left)


def still_followed(position: GroupPosition) -> LogError:
    """What to raise for a group that is to be dropped, and follows."""
    return LogError(
        f"group {position.group!r} is not dropped: core {position.core_id} is followed by {position.holder}; close that"
        " follower first"
    )
