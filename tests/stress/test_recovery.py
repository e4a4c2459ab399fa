"""Writers, their reader and the log's server are killed at random: what was appended is delivered."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.unit.log.nats_server import require_nats_server

from .recovery import Mark, Record, RecoveryError, check

ROOT: Final = Path(__file__).parents[2]
KILLS: Final = os.environ.get("STRESS_RECOVERY_KILLS", "10")

APPENDED: Final[list[Record]] = [(Mark.APPENDED, 1, 4), (Mark.APPENDED, 6, 9)]
SOUND: Final[list[Record]] = [
    (Mark.BEGUN, 0, 0),
    (Mark.DELIVERED, 1, 4),
    (Mark.COMMITTED, 4, 0),
    (Mark.DELIVERED, 5, 6),
    # Killed before its commit: delivered again.
    (Mark.BEGUN, 4, 0),
    (Mark.DELIVERED, 5, 7),
    # Killed between its commit and the record of it.
    (Mark.BEGUN, 7, 0),
    (Mark.DELIVERED, 8, 9),
]


@pytest.mark.parametrize(("cores", "log"), [("1", "sqlite"), ("2", "sqlite"), ("8", "jetstream")])
def test_nothing_is_lost(cores: str, log: str) -> None:
    if log == "jetstream":
        require_nats_server()
    command = [sys.executable, "-m", "tests.stress.recovery", "--kills", KILLS, "--cores", cores, "--log", log]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.search(r"([\d,]+) attempts dropped .* (\d+) kills, (\d+) lives", done.stdout)
    assert said is not None, done.stdout
    dropped, kills, lives = (int(number.replace(",", "")) for number in said.groups())
    assert dropped > 0
    assert kills >= int(KILLS)
    assert lives > 1


def test_a_sound_history_passes() -> None:
    assert check(APPENDED, SOUND, 9) == 3


@pytest.mark.parametrize(
    ("place", "record", "why"),
    [
        (1, (Mark.DELIVERED, 2, 4), "life 1: 2 to 4 was delivered after 0"),
        (3, (Mark.DELIVERED, 4, 6), "life 1: 4 to 6 was delivered after 4"),
        (2, (Mark.COMMITTED, 5, 0), "life 1: 5 was committed at 4"),
        (4, (Mark.BEGUN, 5, 0), "life 1 began behind 5; committed was 4"),
        (6, (Mark.BEGUN, 8, 0), "life 2 began behind 8; committed was 4"),
        (7, (Mark.DELIVERED, 8, 8), "8 was delivered last; written was up to 9"),
        (7, (Mark.APPENDED, 8, 9), "record 1 among those of a follower"),
    ],
)
def test_each_violation_is_seen(place: int, record: Record, why: str) -> None:
    handed = list(SOUND)
    handed[place] = record
    with pytest.raises(RecoveryError) as refused:
        check(APPENDED, handed, 9)
    assert str(refused.value) == why


@pytest.mark.parametrize("appended", [[(Mark.APPENDED, 1, 4), (Mark.APPENDED, 4, 9)], [(Mark.APPENDED, 1, 10)]])
def test_a_number_that_is_appended_twice_or_never_delivered_is_seen(appended: list[Record]) -> None:
    with pytest.raises(RecoveryError, match="was appended after"):
        check(appended, SOUND, 9)
