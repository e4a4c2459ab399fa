"""Every file and every test that a page names is there: in the documentation, CONTRIBUTING.md and both README.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .blocks import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "tests" / "README.md"])
GATE = "".join(path.read_text() for path in sorted((ROOT / ".ci" / "mutation").glob("*.py")))
# The changelog names what was removed, and so does the last table of the design page.
HISTORY = ("## Differences from the original proposal", "## 0.2.0")
# The folders that a page's paths may be relative to, besides the root. The columns of its tables say which.
BASES = {
    "CONTRIBUTING.md": ("", "nodedb_ring", "tests"),
    "tests/README.md": ("", "nodedb_ring", "tests"),
    "docs/design.md": ("", "nodedb_ring"),
}
# What a path in the tree may begin with.
FOLDERS = {
    path.name for base in (ROOT, ROOT / "nodedb_ring", ROOT / "tests") for path in base.iterdir() if path.is_dir()
}
TESTS = {
    name
    for path in (ROOT / "tests").rglob("*.py")
    for name in re.findall(r"^(?:async )?def (\w+)", path.read_text(), re.MULTILINE)
}


def is_path(word: str) -> bool:
    """Whether this names a file or folder of the tree; not if it has a placeholder."""
    if not re.fullmatch(r"[\w.*/-]+", word) or "NAME" in word:
        return False
    return word.partition("/")[0] in FOLDERS if "/" in word else bool(re.fullmatch(r"test_[\w*]+\.py", word))


def named(page: Path) -> Iterator[str]:
    """Each word in code font, outside of blocks, that is a path in the tree or the name of a test."""
    text = page.read_text()
    for heading in HISTORY:
        text = text.partition(heading)[0]
    for span in re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)):
        for word in span.split():
            path, _, test = word.partition("::")
            if test or re.fullmatch(r"test_\w+", path) or is_path(path):
                yield word


def is_there(word: str, bases: tuple[str, ...]) -> bool:
    path, _, test = word.partition("::")
    if re.fullmatch(r"test_\w+", path):
        return path in TESTS
    found = [each for base in bases for each in (ROOT / base).glob(path.rstrip("/"))]
    if test:
        return any(re.search(rf"^(?:async )?def {test}\(", each.read_text(), re.MULTILINE) for each in found)
    return bool(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_path_and_test_that_a_page_names_is_there(page: Path) -> None:
    bases = BASES.get(str(page.relative_to(ROOT)), ("",))
    assert [word for word in named(page) if not is_there(word, bases)] == []


def test_names_are_found_on_the_pages_that_have_most() -> None:
    assert len(list(named(ROOT / "docs" / "verification.md"))) > 40
    assert len(list(named(ROOT / "CONTRIBUTING.md"))) > 80


@pytest.mark.parametrize("word", ["tests/unit/nothing.py", "test_nothing", "tests/unit/test_import.py::test_nothing"])
def test_a_missing_file_or_test_is_noticed(word: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"See `{word}`.\n")
    assert list(named(page)) == [word]
    assert not is_there(word, ("",))


def test_each_word_for_the_mutation_gate_selects_a_mutant() -> None:
    titles = re.findall(r'^    Mutant\("([^"]+)"', GATE, re.MULTILINE)
    assert len(titles) > 70
    words = {word for page in PAGES for word in re.findall(r"\.ci/mutants ([a-z]+)`", page.read_text())}
    assert len(words) > 4
    assert [word for word in sorted(words) if not any(word in title for title in titles)] == []


def test_each_check_of_the_mutation_gate_that_is_named_is_there() -> None:
    checks = re.findall(r'^    "([\w -]+)": \[\s*"tests/', GATE, re.MULTILINE)
    page = (ROOT / "docs" / "verification.md").read_text()
    words = {word for cell in re.findall(r"\| mutants ([^|]*)\|", page) for word in re.findall(r"`([\w -]+)`", cell)}
    assert len(words) > 12
    assert words <= {*checks}
