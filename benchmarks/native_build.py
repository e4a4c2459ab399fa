"""Compiles the native parts of the benchmarks on first use, and keeps them in the user's cache."""

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
from types import ModuleType
from typing import Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

import nodedb_ring

__all__ = ["NativeLoops", "TwoProcesses", "Way", "native_loops", "two_processes"]

_FLAGS = ["-O3", "-std=gnu11"]
_HERE = Path(__file__).parent
_CORE = Path(nodedb_ring.get_include(), "nodedb_ring", "core")
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
    """The compiled module ``native_loops.pyx``."""

    def Way(self, ring: nodedb_ring.EventRing | None, block: mmap.mmap | None) -> Way:  # noqa: N802
        """A transfer over an `EventRing`, or over a plain ring in `block`."""
        ...

    def copy_twice(self, source: _Bytes, middle: _Bytes, out: _Bytes, times: int) -> int:
        """Nanoseconds for two bare memcpys of `source`, the fastest of `times`."""
        ...


class TwoProcesses(Protocol):
    """The compiled module ``two_processes.pyx``; `shared` is a page that both processes have mapped."""

    def meet(self, shared: mmap.mmap) -> None:
        """Returns when both processes have called it."""
        ...

    def ping(self, shared: mmap.mmap, trips: int) -> float:
        """Nanoseconds for a cache line to the other process, which runs ``pong``, and back."""
        ...

    def pong(self, shared: mmap.mmap, trips: int) -> None:
        """The other side of ``ping``."""
        ...

    def futex_ping(self, shared: mmap.mmap, trips: int) -> npt.NDArray[np.int64]:
        """Nanoseconds of each trip from futex to futex and back; the other process runs ``futex_pong``."""
        ...

    def futex_pong(self, shared: mmap.mmap, trips: int) -> None:
        """The other side of ``futex_ping``."""
        ...


def native_loops() -> NativeLoops:
    """The compiled loops over a ring's ``.pxd``."""
    package = Path(nodedb_ring.get_include()) / "nodedb_ring"
    return cast(NativeLoops, _built("native_loops", [*package.rglob("*.pxd"), *package.rglob("*.h")]))


def two_processes() -> TwoProcesses:
    """The compiled functions with which two processes meet."""
    return cast(TwoProcesses, _built("two_processes", []))


def _built(name: str, read: list[Path]) -> ModuleType:
    """The compiled module, from the cache unless a source or header, the compiler's flags or Python changed."""
    sources = [_HERE / f"{name}.pyx", *sorted(_HERE.glob("*.h")), *sorted(read)]
    state = b"\0".join([path.read_bytes() for path in sources] + [" ".join(_FLAGS).encode(), sys.version.encode()])
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "nodedb_ring_benchmarks"
    built = cache / hashlib.sha256(state).hexdigest()[:16]
    if not any(built.glob(f"{name}.*")):
        built.mkdir(parents=True, exist_ok=True)
        _compile(name, built)
    (extension,) = built.glob(f"{name}.*")
    spec = importlib.util.spec_from_file_location(name, extension)
    if spec is None or spec.loader is None:
        raise ImportError(f"{extension}: is not an extension module of this Python")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _compile(name: str, into: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / f"{name}.c"
        _run("-m", "cython", "-3", "-I", nodedb_ring.get_include(), str(_HERE / f"{name}.pyx"), "-o", str(source))
        setup = (
            "from setuptools import Extension, setup\n"
            f"setup(name={name!r}, ext_modules=[Extension({name!r}, [{str(source)!r}], "
            f"include_dirs={[str(_HERE), str(_CORE), nodedb_ring.get_include()]!r}, extra_compile_args={_FLAGS!r})])\n"
        )
        _run("-c", setup, "-q", "build_ext", "--build-lib", str(into), "--build-temp", scratch)


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(
            f"the native parts did not compile ({platform.python_version()}, cython, setuptools and a C compiler are "
            f"needed):\n{done.stdout}{done.stderr}"
        )
