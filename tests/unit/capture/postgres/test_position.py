"""Where a log ends, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nodedb_ring import EventBatch
from nodedb_ring.batch.schema import NO_TIME
from nodedb_ring.capture.postgres.position import Position, find_position, group_of
from nodedb_ring.errors import CaptureError
from nodedb_ring.log.sqlite import SqliteEventLog


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteEventLog]:
    with SqliteEventLog(tmp_path / "log.db") as made:
        yield made


def append(log: SqliteEventLog, lsn: int, *parts: int, time_ms: int = 1_700_000_000_000) -> None:
    """A commit of so many events, in parts."""
    for count in parts:
        first = (log.last_sequence(0) or 0) + 1
        log.append(
            0,
            EventBatch.from_columns(
                sequence=range(first, first + count), collection="t", op=1, row_id="", lsn=lsn, system_time_ms=time_ms
            ),
        )


def test_an_empty_log_has_nothing(log: SqliteEventLog) -> None:
    assert find_position(log, 0, "s") == Position(0, 0)


@pytest.mark.parametrize("before", [0, 1, 3, 1023, 1024, 3000])
@pytest.mark.parametrize("parts", [(1,), (3,), (2, 1), (1023,), (1024,), (1025,), (5000,), (2000, 3, 2000)])
def test_how_much_of_the_last_commit_there_is(log: SqliteEventLog, before: int, parts: tuple[int, ...]) -> None:
    append(log, 10, *([before] if before else []))
    append(log, 20, *parts)
    assert find_position(log, 0, "s") == Position(20, sum(parts))


def test_rows_of_a_snapshot_are_of_no_commit(log: SqliteEventLog) -> None:
    append(log, 20, 5, time_ms=NO_TIME)
    assert find_position(log, 0, "s") == Position(20, 0)
    # The first commit may have the LSN of the snapshot.
    append(log, 20, 3)
    assert find_position(log, 0, "s") == Position(20, 3)


def test_a_commit_that_was_trimmed_is_refused(log: SqliteEventLog) -> None:
    append(log, 10, 2)
    append(log, 20, 3)
    append(log, 20, 3)
    log.trim(0, 2)
    # By the watermark the trim has left all of the commit.
    log.save_watermark(group_of("s"), 0, 2)
    assert find_position(log, 0, "s") == Position(20, 6)
    log.trim(0, 5)
    with pytest.raises(CaptureError, match=r"the commit of event 8 of core 0 was trimmed.*trim_committed\(\)"):
        find_position(log, 0, "s")
    log.trim(0, 8)
    with pytest.raises(CaptureError, match=r"the commit of event 8 of core 0 was trimmed"):
        find_position(log, 0, "s")
