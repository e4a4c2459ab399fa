"""The compiled traffic as the tests see it, and how it is built."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Final, Protocol, cast

from nodedb_ring import EventRing, get_include

SOURCE: Final = Path(__file__).parent / "native_traffic.pyx"

SETUP: Final = """
from Cython.Build import cythonize
from setuptools import Extension, setup

traffic = Extension("native_traffic", ["native_traffic.pyx"], extra_compile_args=["-std=gnu11"])
setup(name="native_traffic", ext_modules=cythonize([traffic], include_path=[{include!r}]))
"""


class StopFlag(Protocol):
    """Ends the loops of both ends."""

    def set(self) -> None: ...


class TurnsCounter(Protocol):
    """Takes the two threads of a close race through their rounds."""


class NativeTraffic(Protocol):
    """``native_traffic.pyx``."""

    MIXED: int
    PUSH: int
    ROWS: int
    SCATTERED: int
    RESERVE: int
    POP: int
    PEEK: int
    TAKE: int
    LEASE: int
    COPY: int

    def Stop(self) -> StopFlag: ...

    def produce(
        self, ring: EventRing, stop: StopFlag, enqueued: bytearray, *, first: int, how: int, most: int, seed: int,
        insists: bool, in_step: bool = False, jitter: int = 300, closes: bool = True,
    ) -> int: ...  # fmt: skip

    def consume(
        self, ring: EventRing, stop: StopFlag, received: bytearray, *, first: int, how: int, most: int, seed: int,
        spins: int = -1,
    ) -> tuple[int, int]: ...  # fmt: skip

    def Turns(self) -> TurnsCounter: ...

    def close_after_one(self, ring: EventRing, stop: StopFlag, turns: TurnsCounter, rounds: int, seed: int) -> int: ...

    def look_for_the_last(self, ring: EventRing, stop: StopFlag, turns: TurnsCounter, rounds: int) -> int: ...

    def waits_see_what_came_before(self, ring: EventRing) -> tuple[bool, bool]: ...

    def start_at(self, ring: EventRing, position: int, arena_position: int) -> None: ...

    def progress(self, ring: EventRing) -> tuple[int, int]: ...

    def close_both(self, ring: EventRing) -> None: ...


def build(into: Path) -> NativeTraffic:
    """Compiles the module into a directory, as any Cython package that uses this one would, and imports it."""
    (into / SOURCE.name).write_text(SOURCE.read_text())
    (into / "setup.py").write_text(SETUP.format(include=get_include()))
    # A sanitizer that is preloaded into the tests has no business in the compiler.
    settings = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=into, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = into.glob("native_traffic.*.so")
    spec = importlib.util.spec_from_file_location("native_traffic", built)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast("NativeTraffic", module)
