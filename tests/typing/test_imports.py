"""Imports between the folders of the package go one way; for Python modules ``lint-imports`` says so in ``.ci/run``.

Here are the files that it cannot read: what a .pyx or .pxd imports and cimports of the package.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

import nodedb_ring

PACKAGE: Final = Path(nodedb_ring.__file__).parent

LAYERS: Final = ("errors", "core", "_ring", "batch", "ends", "bus", "log", "recovery", "fan_in", "capture")
"""From the bottom to the top: a file imports from its own layer, and from those before it."""

STATEMENT: Final = re.compile(
    r"^[ \t]*from[ \t]+([\w.]+)[ \t]+c?import[ \t]+(\([^)]*\)|.*)|^[ \t]*c?import[ \t]+([\w.]+)", re.MULTILINE
)
"""``from MODULE import NAMES`` or ``import MODULE``, either with a ``cimport``."""

FILES: Final = sorted(path for kind in ("*.pyx", "*.pxd") for path in PACKAGE.rglob(kind))


def imported(path: Path, text: str) -> list[str]:
    """The modules of the package that a file at `path` imports, by their absolute names, in the order of the text."""
    package = (PACKAGE.name, *path.relative_to(PACKAGE).parent.parts)
    found: list[str] = []
    for source, names, whole in STATEMENT.findall(text):
        module = source or whole
        dots = len(module) - len(module.lstrip("."))
        rest = [part for part in module[dots:].split(".") if part]
        base = [*package[: len(package) - dots + 1], *rest] if dots else rest
        if base[:1] != [PACKAGE.name]:
            continue
        if rest and base != [PACKAGE.name]:
            found.append(".".join(base))
        else:
            # From a package itself: what is imported may be one of its modules.
            bare = re.sub(r"#.*", "", names).strip("()")
            found += [".".join([*base, name.split()[0]]) for name in bare.split(",") if name.strip()]
    return found


def layer(module: str) -> int:
    return LAYERS.index(module.split(".")[1])


def upwards(path: Path, text: str) -> list[str]:
    """What a file imports from above its own layer."""
    own = ".".join((PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts))
    return [module for module in imported(path, text) if layer(module) > layer(own)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_compiled_module_imports_from_its_own_layer_and_below(path: Path) -> None:
    assert upwards(path, path.read_text()) == []


def test_every_import_of_the_package_is_found() -> None:
    text = """
from ..errors import BatchError
from .._ring cimport EventRing
from . cimport utf8, columns  # two
from .arrow.columns cimport (
    Columns,
    View,
)
from ..core._room cimport ring_make_room
import numpy as np
cimport cython
from libc.string cimport memcpy
import nodedb_ring.bus.file
def later():
    from ..ends import limits
"""
    path = PACKAGE / "batch" / "_event.pyx"
    assert imported(path, text) == [
        "nodedb_ring.errors",
        "nodedb_ring._ring",
        "nodedb_ring.batch.utf8",
        "nodedb_ring.batch.columns",
        "nodedb_ring.batch.arrow.columns",
        "nodedb_ring.core._room",
        "nodedb_ring.bus.file",
        "nodedb_ring.ends",
    ]
    assert upwards(path, text) == ["nodedb_ring.bus.file", "nodedb_ring.ends"]
