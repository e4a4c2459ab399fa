"""A log on a disk that is full, which is a small one of its own: see ``full_disk.py``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .numbered import Driver

ROOT = Path(__file__).parents[4]
IN_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]


@pytest.fixture(scope="module")
def mounting() -> list[str]:
    """How a command may mount something that ends with it."""
    for how in (["unshare", "--mount"], IN_NAMESPACE):
        if shutil.which("unshare") and subprocess.run([*how, "true"], capture_output=True, check=False).returncode == 0:
            return how
    pytest.skip("needs user namespaces, or root, to mount a small disk")


@pytest.mark.parametrize("size", ["small", "large"])
def test_trims_free_room_and_a_closed_log_is_read(
    mounting: list[str], tmp_path: Path, driver: Driver, size: str
) -> None:
    mount = f'mount -t tmpfs -o size=16m none "{tmp_path}"'
    run = f'{mount} && exec "{sys.executable}" -m tests.unit.log.sqlite.full_disk "$@"'
    done = subprocess.run(
        [*mounting, "sh", "-c", run, "sh", str(tmp_path), driver, size],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
