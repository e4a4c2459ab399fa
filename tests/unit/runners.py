"""Code run elsewhere: in another thread, in a forked child, in an interpreter of its own."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Generic, TypeVar

import nodedb_ring

T = TypeVar("T")
SECONDS = 30
WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from nodedb_ring.command.cli import main
if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))
"""
"""``python -c`` of this, MODULE and arguments: ``nodedb-ring`` where that module is not installed."""


class Running(Generic[T]):
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], T]) -> None:
        self.future: Future[T] = Future()
        self.thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self.thread.start()

    def _run(self, call: Callable[[], T]) -> None:
        try:
            self.future.set_result(call())
        except BaseException as error:
            self.future.set_exception(error)

    def result(self) -> T:
        """What the call returned or raised. Its thread has ended, too."""
        self.thread.join(SECONDS)
        return self.future.result(SECONDS)

    def until_asleep(self) -> None:
        assert self.thread.native_id is not None
        until_asleep(self.thread.native_id)


def in_thread(call: Callable[[], T]) -> T:
    return Running(call).result()


def until_asleep(native_id: int) -> None:
    """Returns when a thread of this process sleeps in the kernel though the GIL is free."""
    seen = 0
    deadline = time.monotonic() + SECONDS
    while seen < 5:
        assert time.monotonic() < deadline, "the thread does not go to sleep"
        # Sleeping gives the GIL away: a thread that only waited for it runs on.
        time.sleep(0.001)
        state = Path(f"/proc/self/task/{native_id}/stat").read_text().rpartition(")")[2].split()[0]
        seen = seen + 1 if state == "S" else 0


def in_child(call: Callable[[], T], fork: Callable[[], int] = os.fork) -> T:
    """What `call` returns in a forked child; an exception of the child is raised here."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of forking beside threads, those of a linear algebra library included.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = fork()
    if child == 0:
        answer: tuple[bool, T | BaseException | str]
        try:
            signal.alarm(SECONDS)
            answer = (True, call())
        except BaseException:
            answer = (False, traceback.format_exc())
        try:
            os.write(writing, pickle.dumps(answer))
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with {status}"
    succeeded, value = pickle.loads(data)
    assert succeeded, value
    returned: T = value
    return returned


def resident_bytes() -> int:
    """Of this process's memory, what is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def in_new_interpreter(source: str) -> str:
    """What a program prints. It has to end well: this is for what would take the test run down with it."""
    root = str(Path(nodedb_ring.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error", "-c", source],
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"ended with {done.returncode}:\n{done.stderr}"
    return done.stdout
