"""Compiles the native loops when they are first needed, and keeps them in the user's cache."""

from __future__ import annotations

import hashlib
import importlib.util
import mmap
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

import nodedb_ring

__all__ = ["NativeLoops", "Way", "native_loops"]

_NAME = "native_loops"
_FLAGS = ["-O3", "-std=gnu11"]
_HERE = Path(__file__).parent
_Bytes: TypeAlias = npt.NDArray[np.uint8]


class Way(Protocol):
    """One way of rows between two threads, as ``native_loops.pyx`` has it."""

    def send(self, count: int, together: int, pauses: int, trips: int) -> tuple[float, int]:
        """The producer's side of a transfer: nanoseconds a round trip of a line, and the time of the start."""
        ...

    def receive(self, count: int, together: int, pauses: int, trips: int, check: bool) -> tuple[int, int]:
        """The consumer's side of it: rows that were wrong, and the time of the end."""
        ...

    def turns(self, count: int, together: int, check: bool) -> tuple[int, int]:
        """Both in one thread: rows that were wrong, and nanoseconds."""
        ...


class NativeLoops(Protocol):
    """The compiled module."""

    def Way(self, ring: nodedb_ring.EventRing | None, block: mmap.mmap | None) -> Way:  # noqa: N802
        """A way over a ring of ours, or over a plain ring in `block`."""
        ...

    def copy_twice(self, source: _Bytes, middle: _Bytes, out: _Bytes, times: int) -> int:
        """Nanoseconds for two bare memcpys of `source`, the fastest of `times`."""
        ...


def native_loops() -> NativeLoops:
    """The compiled loops, made anew when their sources, the ring's headers, the compiler's flags or Python changed."""
    headers = Path(nodedb_ring.get_include()) / "nodedb_ring"
    read = [_HERE / f"{_NAME}.pyx", _HERE / "plain_ring.h", headers / "_ring.pxd", headers / "_atomic.pxd"]
    state = b"\0".join([path.read_bytes() for path in read] + [" ".join(_FLAGS).encode(), sys.version.encode()])
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "nodedb_ring_benchmarks"
    built = cache / hashlib.sha256(state).hexdigest()[:16]
    if not any(built.glob(f"{_NAME}.*")):
        built.mkdir(parents=True, exist_ok=True)
        _compile(built)
    (extension,) = built.glob(f"{_NAME}.*")
    spec = importlib.util.spec_from_file_location(_NAME, extension)
    if spec is None or spec.loader is None:
        raise ImportError(f"{extension}: is no extension module of this Python")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast(NativeLoops, module)


def _compile(into: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / f"{_NAME}.c"
        _run("-m", "cython", "-3", "-I", nodedb_ring.get_include(), str(_HERE / f"{_NAME}.pyx"), "-o", str(source))
        setup = (
            "from setuptools import Extension, setup\n"
            f"setup(name={_NAME!r}, ext_modules=[Extension({_NAME!r}, [{str(source)!r}], "
            f"include_dirs=[{str(_HERE)!r}], extra_compile_args={_FLAGS!r})])\n"
        )
        _run("-c", setup, "-q", "build_ext", "--build-lib", str(into), "--build-temp", scratch)


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(
            f"the native loops did not compile ({platform.python_version()}, cython, setuptools and a C compiler are "
            f"needed):\n{done.stdout}{done.stderr}"
        )
