"""Compiles a module of these tests against the package, as any Cython package that uses it would."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

from nodedb_ring import get_include

__all__ = ["compiled"]

_SETUP: Final = """
from Cython.Build import cythonize
from setuptools import Extension, setup

module = Extension({name!r}, [{file!r}], extra_compile_args=["-std=gnu11", *{flags!r}])
setup(name={name!r}, ext_modules=cythonize([module], include_path={include!r}))
"""


def compiled(source: Path, into: Path, *flags: str) -> ModuleType:
    """Builds a .pyx in a directory, and imports it. It may cimport the .pxd files beside it."""
    name = source.stem
    include = [get_include(), str(source.parent)]
    (into / source.name).write_text(source.read_text())
    (into / "setup.py").write_text(_SETUP.format(name=name, file=source.name, flags=flags, include=include))
    # A sanitizer that is preloaded into the tests has no business in the compiler.
    settings = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=into, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = into.glob(f"{name}.*.so")
    spec = importlib.util.spec_from_file_location(name, built)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
