"""tests/README.md: its table knows every module of the package, and names tests and folders that there are."""

from __future__ import annotations

import re
from fnmatch import fnmatch

from .blocks import ROOT

PAGE = (ROOT / "tests" / "README.md").read_text()
ROWS = [
    [re.findall(r"`([^`]+)`", cell) for cell in line.strip("|").split("|")]
    for line in PAGE.partition("## To change a file")[2].partition("Outside the package")[0].splitlines()
    if line.startswith("| `")
]


def test_every_module_has_a_row() -> None:
    package = ROOT / "nodedb_ring"
    modules = {str(path.relative_to(package)) for kind in ("*.py", "*.pyx") for path in package.rglob(kind)}
    patterns = [pattern for row in ROWS for pattern in row[0]]
    assert [name for name in sorted(modules) if not any(fnmatch(name, pattern) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in modules)] == []


def test_every_test_that_it_names_is_there() -> None:
    named = {name for row in ROWS for cell in (row[1], row[3]) for name in cell if not name.startswith((".ci/", "-m"))}
    helpers = set(re.findall(r"\| `((?:unit|stress)/[\w/]+\.py)` \|", PAGE))
    assert len(helpers) > 10
    assert [name for name in sorted(named | helpers) if not (ROOT / "tests" / name).exists()] == []


def test_every_test_of_a_unit_belongs_to_a_row() -> None:
    covered = [ROOT / "tests" / name for row in ROWS for name in row[1] + row[3]]
    files = sorted((ROOT / "tests" / "unit").rglob("test_*.py"))
    assert [path.name for path in files if not any(path == each or each in path.parents for each in covered)] == []


def test_every_folder_is_explained() -> None:
    folders = {path.parent.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("test_*.py")}
    explained = PAGE.partition("## Folders")[2].partition("Helper modules")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", explained, re.MULTILINE)) == folders
