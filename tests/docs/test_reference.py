"""The reference: each public name has one place in it, and something to say there."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest

import nodedb_ring
from nodedb_ring import errors

from .blocks import PAGES, ROOT

API = ROOT / "docs" / "api"
PAGES_OF_REFERENCE = "".join(page.read_text() for page in sorted(API.glob("*.md")))
# The modules besides the package that users import from, with what of them is theirs.
LEAVES = {
    "nodedb_ring.capture": ["SqliteCapture", "Snapshot", "CaptureError"],
    "nodedb_ring.capture.postgres": ["PostgresCapture", "PostgresStats"],
    "nodedb_ring.errors": ["WrongAnswerError"],
    "nodedb_ring.log": ["MAX_BATCH_EVENTS"],
    "nodedb_ring.log.jetstream": ["JetStreamEventLog"],
    "nodedb_ring.log.sqlite": ["SqliteEventLog", "CoreRange", "GroupPosition"],
    "nodedb_ring.metrics": ["RingCollector"],
    "nodedb_ring.native": ["ENDED", "check", "emit_rows", "handle", "take_rows", "wait_rows"],
}


def documented() -> list[str]:
    """The full names of what the pages document, as often as they do."""
    found: list[str] = []
    for page in sorted(API.glob("*.md")):
        module = ""
        for directive, name in re.findall(r"^\.\. (currentmodule|auto\w+):: ([\w.]+)", page.read_text(), re.MULTILINE):
            if directive == "currentmodule":
                module = name
            elif directive != "automodule":
                found.append(name if name.startswith("nodedb_ring.") else f"{module}.{name}")
    return found


def public() -> list[str]:
    """The full names of everything public."""
    names = [f"nodedb_ring.{name}" for name in nodedb_ring.__all__]
    return names + [f"{module}.{name}" for module, own in LEAVES.items() for name in own]


def test_each_public_name_is_documented_once() -> None:
    assert sorted(documented()) == sorted(public())


def test_the_leaves_have_no_other_class_of_their_own() -> None:
    """What a user-facing module defines beyond `LEAVES` is of the package itself, or private."""
    for name, own in LEAVES.items():
        module = importlib.import_module(name)
        names = getattr(module, "__all__", nodedb_ring.__all__)
        classes = {key for key in names if inspect.isclass(vars(module).get(key))}
        assert classes <= {*own, *nodedb_ring.__all__}, name


def test_every_exception_is_public() -> None:
    defined = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    assert defined <= {name.rpartition(".")[2] for name in public()}


@pytest.mark.parametrize("name", public())
def test_every_public_member_has_a_docstring(name: str) -> None:
    """Autodoc leaves out what has none, and nobody would notice.

    A plain attribute of a compiled class cannot have one, and is written out on its page.
    """
    module, _, path = name.rpartition(".")
    value = getattr(importlib.import_module(module), path)
    if not inspect.isclass(value):
        return
    assert inspect.getdoc(value)
    fields = getattr(value, "__dataclass_fields__", {})
    said_above = {*fields, *getattr(value, "__match_args__", ()), *getattr(value, "__members__", ())}
    written = re.findall(rf"^\.\. autoclass:: {path}\n((?: .*\n|\n)*)", PAGES_OF_REFERENCE, re.MULTILINE)
    said_above.update(re.findall(r"^ +\.\. attribute:: (\w+)", "".join(written), re.MULTILINE))
    for member, thing in vars(value).items():
        if not member.startswith("_") and member not in said_above and not inspect.ismemberdescriptor(thing):
            assert inspect.getdoc(getattr(value, member)), f"{name}.{member}"


def test_pages_outside_the_site_link_to_files() -> None:
    """Sphinx checks the links between docs; of README and the others, each relative one must be a file."""
    pages = [PAGES[0], *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md"))]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)|`(docs/[\w/.-]+)`", page.read_text()):
            link = next(filter(None, target))
            assert "://" in link or (ROOT / link).exists(), f"{page.name}: {link}"
