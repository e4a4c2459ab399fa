"""Processes at both ends of shared buses are killed at random instants, and nothing that was published is lost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
KILLS: Final = int(os.environ.get("STRESS_KILLS", "400"))


@pytest.mark.parametrize(("start", "kills"), [("fork", KILLS), ("forkserver", KILLS // 8), ("spawn", KILLS // 40)])
def test_nothing_is_lost(start: str, kills: int) -> None:
    """In a process of its own, which forks: it has one thread and holds no ends."""
    command = [sys.executable, "-m", "tests.stress.kill", "--start", start, "--kills", str(kills)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    made = re.search(r"^kills +([\d,]+):", done.stdout, re.MULTILINE)
    assert made is not None
    assert int(made[1].replace(",", "")) >= kills
