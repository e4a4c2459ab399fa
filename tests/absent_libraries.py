"""Libraries that have no wheel for a CPython without the GIL, and what the tests import in their place there.

On any other interpreter nothing of this happens: a library that is missing fails the tests that import it.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import sys
import sysconfig
from types import ModuleType
from typing import Any, Final, NoReturn

import pytest

# Extra `test` of pyproject.toml has them, and `free-threads` has not: tests/typing/test_packaging.py compares the two.
WITHOUT_WHEELS: Final = ("duckdb", "gevent", "polars", "psycopg2-binary")
ABSENT: Final = frozenset(
    name
    for name in (wheel.removesuffix("-binary") for wheel in WITHOUT_WHEELS)
    if sysconfig.get_config_var("Py_GIL_DISABLED") and importlib.util.find_spec(name) is None
)


_MODULES: Final = {"psycopg2": ("errors", "extensions", "extras")}
"""Modules of a library that ours imports by themselves."""


def reason(name: str) -> str:
    """Why a test is skipped."""
    return f"{name} has no wheel for a CPython without the GIL"


def needs(name: str) -> pytest.MarkDecorator:
    """Marks a test that imports a library in another process."""
    assert name in {wheel.removesuffix("-binary") for wheel in WITHOUT_WHEELS}
    return pytest.mark.skipif(name in ABSENT, reason=reason(name))


def skip_without_imports_of(program: str) -> None:
    """Skips a test that is about to run a program which imports a library that is absent."""
    for name in sorted(ABSENT):
        if re.search(rf"^\s*(?:import|from) {name}\b", program, re.MULTILINE):
            pytest.skip(reason(name))


class _Names(type):
    """Every name of a library that is absent is a class, and so has every name again."""

    def __getattr__(cls, name: str) -> Any:
        return _name_of(cls.__module__, name)

    def __call__(cls, *_arguments: object, **_named: object) -> NoReturn:
        pytest.skip(reason(cls.__module__))


def _name_of(library: str, name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    # An exception, so that it may stand in an except clause, which then never catches anything.
    return _Names(name, (BaseException,), {"__module__": library})


class _StandIn(ModuleType):
    """A library of which nothing is an instance, and which skips the test that calls it: what needs it not, still runs.

    That is the rest of a test's file, and all other libraries of a parametrized test.
    """

    def __getattr__(self, name: str) -> Any:
        return _name_of(self.__name__, name)


def stand_in() -> None:
    """Has ``import`` find something for each library that is absent."""
    for library in ABSENT:
        for name in (library, *(f"{library}.{part}" for part in _MODULES.get(library, ()))):
            module = _StandIn(name)
            module.__spec__ = importlib.machinery.ModuleSpec(name, None)
            sys.modules[name] = module
