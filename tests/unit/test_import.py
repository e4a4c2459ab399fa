"""``import nodedb_ring``: what most users do not need is imported by what needs it."""

from __future__ import annotations

import pytest

from .runners import in_new_interpreter

PROGRAM = """
import sys
import numpy
before = set(sys.modules)
import nodedb_ring
print(*sorted(set(sys.modules) - before))
"""
# Of each: how long it takes to import, or that it is an extra, which may not be installed.
HEAVY = [
    *("asyncio", "concurrent.futures", "hashlib", "json", "multiprocessing", "random", "secrets", "selectors"),
    *("socket", "sqlite3", "ssl", "subprocess", "tempfile", "uuid", "argparse", "unittest"),
    *("apsw", "msgpack", "nats", "rich", "prometheus_client", "pyarrow", "pandas", "polars"),
    *("nodedb_ring.log.sqlite", "nodedb_ring.log.jetstream", "nodedb_ring.capture.sqlite"),
    *("nodedb_ring.command", "nodedb_ring.metrics", "nodedb_ring.native"),
]


@pytest.fixture(scope="module")
def imported() -> list[str]:
    """What the package imports that NumPy does not."""
    return in_new_interpreter(PROGRAM).split()


def test_the_package_is_imported_whole(imported: list[str]) -> None:
    assert {"nodedb_ring._ring", "nodedb_ring.ends._producer", "nodedb_ring.recovery.follow"} <= set(imported)


@pytest.mark.parametrize("module", HEAVY)
def test_a_module_that_most_users_do_not_need_is_not_imported(imported: list[str], module: str) -> None:
    assert module not in imported
