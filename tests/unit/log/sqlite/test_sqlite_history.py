"""The log in a SQLite file: whether it is still the one, with the same events, in which a follower stood."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from nodedb_ring import LogError, StoredCommit, follow
from nodedb_ring.log.sqlite import SqliteEventLog
from nodedb_ring.log.sqlite.schema import MIGRATE_FROM_1
from nodedb_ring.log.token import LogToken
from tests.unit.builders import sequences

from .numbered import Driver, Sql, batch_of, numbers, run_of


def filled(path: Path, driver: Driver, last: int, *, step: int = 10) -> SqliteEventLog:
    log = SqliteEventLog(path, driver=driver)
    for first in range(1, last + 1, step):
        log.append(0, run_of(first, step))
    return log


def copied(log: SqliteEventLog, to: Path) -> Path:
    """The file as it is now, as an operator restores it."""
    log.close()
    shutil.copy(log.path, to)
    return to


def test_a_position_is_known_in_its_own_log(path: Path, driver: Driver) -> None:
    with filled(path, driver, 100) as log:
        tokens = {sequence: log.token(0, sequence) for sequence in (-1, 0, 1, 10, 15, 99, 100, 250)}
        log.append(0, run_of(101, 10))
    with SqliteEventLog(path, driver=driver) as log:
        assert {sequence: log.sequence_of(0, token) for sequence, token in tokens.items()} == {
            sequence: sequence for sequence in tokens
        }
        assert LogToken.parse(tokens[15]).first == 11
        assert LogToken.parse(tokens[-1]).first is None


def test_a_log_made_anew_is_another(tmp_path: Path, driver: Driver) -> None:
    with filled(tmp_path / "one.db", driver, 100) as log:
        token, none = log.token(0, 100), log.token(0, 0)
    with filled(tmp_path / "other.db", driver, 200) as other:
        assert other.log_id != log.log_id
        for each in (token, none):
            with pytest.raises(LogError, match=r"is of log [0-9a-f]{16}, and this is log .* made anew"):
                follow(None, other, core_id=0, group="g", after=each)


@pytest.mark.parametrize("grown_by", [0, 50, 100, 300])
def test_an_older_copy_that_has_grown_is_refused(tmp_path: Path, driver: Driver, grown_by: int) -> None:
    """Each event of the copy's own up to the position would be taken for one that was delivered."""
    log = filled(tmp_path / "log.db", driver, 900)
    older = copied(log, tmp_path / "older.db")
    with SqliteEventLog(tmp_path / "log.db", driver=driver) as log:
        for first in range(901, 1001, 10):
            log.append(0, run_of(first, 10))
        at_copy, later = log.token(0, 900), log.token(0, 1000)
    with SqliteEventLog(older, driver=driver) as copy:
        for first in range(901, 901 + grown_by, 10):
            copy.append(0, run_of(first, 10))
        assert follow(None, copy, core_id=0, group="g", after=at_copy).position == 900
        with pytest.raises(LogError, match=r"position 1000 was in a log that had batch 991-.* lost its end"):
            follow(None, copy, core_id=0, group="g", after=later)
        # The number alone does not tell.
        if grown_by >= 100:
            assert follow(None, copy, core_id=0, group="g", after=1000).position == 1000


def test_a_watermark_keeps_it(tmp_path: Path, driver: Driver, sql: Sql) -> None:
    """Of a log whose tables lost their end, as a power cut may leave it, and that was written again."""
    with filled(tmp_path / "events.db", driver, 900) as log:
        with follow(None, log, core_id=0, group="g", max_events=900) as follower:
            assert len(follower.next_batch(0)) == 900
            follower.commit()
        log._execute("", "DELETE FROM nodedb_ring_log WHERE first_sequence > 500")  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(LogError, match=r"group 'g': core 0: position 900 was in a log that had batch 891-"):
            follow(None, log, core_id=0, group="g")
        for first in range(501, 1000, 10):
            log.append(0, run_of(first, 10))
        with pytest.raises(LogError, match=r"group 'g': core 0: position 900 .*rewind=True"):
            follow(None, log, core_id=0, group="g")
        log.save_watermark("g", 0, 500, rewind=True)
        with follow(None, log, core_id=0, group="g") as follower:
            assert sequences(follower.next_batch(0))[0] == 501


@pytest.mark.parametrize("upto", [100, 105, 899, 900])
def test_a_trim_forgets_no_position_that_may_be_resumed(tmp_path: Path, driver: Driver, upto: int) -> None:
    with filled(tmp_path / "log.db", driver, 900) as log:
        older = {sequence: log.token(0, sequence) for sequence in (5, 50, upto)}
        log.trim(0, upto)
        for sequence, token in older.items():
            assert log.sequence_of(0, token) == sequence
        first = LogToken.parse(older[upto]).first
        other = LogToken.parse(older[upto])._replace(batch_id=12345)
        with pytest.raises(LogError, match=f"had batch {first}-3039"):
            log.sequence_of(0, str(other))


def test_a_position_in_a_hole_is_of_the_batch_before_it(log: SqliteEventLog) -> None:
    log.append(0, batch_of(1, 2, 3))
    before = log.token(0, 8)
    log.append(0, batch_of(7, 9))
    assert LogToken.parse(before).first == 1
    assert log.sequence_of(0, before) == 8
    assert LogToken.parse(log.token(0, 5)).first == 1


def test_appended_by_statements_of_ones_own(log: SqliteEventLog, sql: Sql) -> None:
    log.append(0, batch_of(1))
    log.append(0, batch_of(2))
    ids = [found for (found,) in sql("SELECT batch_id FROM nodedb_ring_log")]
    assert len(set(ids)) == 2
    assert 0 not in ids


def as_version_1(path: Path) -> None:
    """Makes a log what releases up to 0.2 wrote."""
    connection = sqlite3.connect(path)
    for table, column in (
        ("log", "batch_id"),
        ("log", "commit_number"),
        ("watermark", "first_sequence"),
        ("watermark", "batch_id"),
    ):
        connection.execute(f"ALTER TABLE nodedb_ring_{table} DROP COLUMN {column}")
    for column in ("trimmed_sequence", "trimmed_batch_id", "trimmed_commit"):
        connection.execute(f"ALTER TABLE nodedb_ring_core DROP COLUMN {column}")
    connection.execute("ALTER TABLE nodedb_ring_log_version DROP COLUMN log_id")
    connection.execute("DROP TABLE nodedb_ring_follower")
    connection.execute("UPDATE nodedb_ring_log_version SET version = 1")
    connection.commit()
    connection.close()


def test_a_log_of_version_1_is_brought_to_this_version(path: Path, driver: Driver, sql: Sql) -> None:
    with filled(path, driver, 100) as log:
        log.trim(0, 20)
        log.save_watermark("g", 0, 55)
        columns = sql("SELECT name, sql FROM sqlite_master ORDER BY name")
    as_version_1(path)
    with pytest.raises(LogError, match="is of version 1, and this is version 2; open it once without read_only"):
        SqliteEventLog(path, driver=driver, read_only=True)
    with SqliteEventLog(path, driver=driver) as log, follow(None, log, core_id=0, group="g") as follower:
        assert sequences(follower.next_batch(0)) == list(range(56, 101))
        follower.commit()
        assert log.sequence_of(0, follower.token) == 100
        log.append(0, run_of(101, 10))
        token = log.token(0, 110)
        assert numbers(log) == list(range(21, 111))
    with SqliteEventLog(path, driver=driver) as log:
        assert log.sequence_of(0, token) == 110
    names = {name for name, _ in columns}
    assert {name for name, _ in sql("SELECT name, sql FROM sqlite_master")} == names
    assert len(MIGRATE_FROM_1) == 10


def test_commit_numbers_lie_above_the_lsn_of_version_1(path: Path, driver: Driver) -> None:
    with SqliteEventLog(path, driver=driver) as log:
        log.append(0, batch_of(1, 2))
        log.append(1, run_of(1, 40))
        log.append(0, batch_of(7))
    as_version_1(path)
    with SqliteEventLog(path, driver=driver) as log:
        assert log.commits.last() == max(batch.lsn[-1] for batch in log.read(1, 40, 40))
        assert log.commits.after(1, 0) == StoredCommit(0, 40)
        log.append(0, batch_of(8))
        assert log.commits.last() == 39


def test_an_interrupted_migration_leaves_version_1(path: Path, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path, driver, 100).close()
    as_version_1(path)
    with monkeypatch.context() as patch:
        patch.setattr("nodedb_ring.log.sqlite.opening.MIGRATE_FROM_1", (*MIGRATE_FROM_1[:4], "no SQL"))
        with pytest.raises(LogError):
            SqliteEventLog(path, driver=driver)
    with SqliteEventLog(path, driver=driver) as log:
        assert numbers(log) == list(range(1, 101))
