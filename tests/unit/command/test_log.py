"""The command ``log``: what it prints, what it does, and what it refuses."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from nodedb_ring import EventBatch, WriteOp, follow
from nodedb_ring.command.cli import main
from nodedb_ring.log.sqlite import SqliteEventLog


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log of two cores, of which one has a group that has committed."""
    path = tmp_path / "events.db"
    with SqliteEventLog(path) as log:
        for core_id in (0, 3):
            for first in range(1, 101, 10):
                batch = EventBatch.from_columns(
                    sequence=range(first, first + 10), collection="t", op=WriteOp.INSERT, row_id="r", lsn=1
                )
                log.append(core_id, batch)
        log.save_watermark("totals", 0, 55)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main(["log", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def found(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, object]:
    code, printed, error = run(capsys, *arguments, "--json")
    assert (code, error) == (0, "")
    document: dict[str, object] = json.loads(printed)
    return document


def test_text(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SqliteEventLog(path) as log, follow(None, log, core_id=3, group="totals"):
        code, printed, _ = run(capsys, path)
        head, *rows = printed.splitlines()
        assert code == 0
        assert head.startswith(f"{path}: log {log.log_id}; database ")
    assert [row.split()[:6] for row in rows if row][1:3] == [
        ["0", "1", "100", "100", "10", "13,000"],
        ["3", "1", "100", "100", "10", "13,000"],
    ]
    [none, holder] = [row.split() for row in rows if row.startswith("totals")]
    assert none == ["totals", "0", "55", "45", "-"]
    assert holder[:5] == ["totals", "3", "-", "100", "process"]


def test_json(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = found(capsys, path)
    assert list(document) == ["path", "log_id", "bytes", "cores", "groups"]
    assert document["groups"] == [{"group": "totals", "core_id": 0, "sequence": 55, "lag": 45, "holder": None}]


def test_trim_and_drop_group(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cores = found(capsys, path, "--trim")["cores"]
    assert isinstance(cores, list)
    assert [each["first_sequence"] for each in cores] == [51, 1]
    code, _, error = run(capsys, path, "--drop-group", "other")
    assert (code, error) == (2, "nodedb-ring log: group 'other': the log has none of this name; it has totals\n")
    assert found(capsys, path, "--drop-group", "totals")["groups"] == []


def test_check(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = run(capsys, path, "--check")
    assert code == 0
    assert printed.endswith("\nevery stored batch is intact\n")
    connection = sqlite3.connect(path)
    connection.execute("UPDATE nodedb_ring_log SET checksum = 0 WHERE core_id = 3 AND first_sequence = 21")
    connection.commit()
    connection.close()
    code, printed, _ = run(capsys, path, "--check")
    assert code == 1
    assert printed.splitlines()[-1].startswith("core 3, events 21 to 30: checksum ")


def test_backup(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy.db"
    assert run(capsys, path, "--backup", copy)[0] == 0
    assert found(capsys, copy)["cores"] == found(capsys, path)["cores"]
    code, _, error = run(capsys, path, "--backup", copy)
    assert code == 2
    assert "copy.db: is there already" in error


def test_a_file_without_a_log_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.db"
    for option in ("--trim", "--json"):
        assert run(capsys, other, option) == (2, "", f"nodedb-ring log: {other}: there is no such file\n")
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE mine(x)")
    connection.close()
    before = other.read_bytes()
    for option in ("--trim", "--json"):
        code, _, error = run(capsys, other, option)
        assert (code, "has no log" in error) == (2, True)
    assert other.read_bytes() == before
