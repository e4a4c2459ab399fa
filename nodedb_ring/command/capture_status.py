"""What ``nodedb-ring capture`` leaves beside its bus for ``nodedb-ring top``: a small file with its statistics.

The file of a process that was killed stays. Whether it still holds is up to the ring: the capture that writes it has
the producer's end of the core, and the kernel knows which process that is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..bus.directory import PREFIX

if TYPE_CHECKING:
    from ..capture.postgres import PostgresStats

__all__ = ["CaptureStatus", "read_status", "remove_statuses", "status_written"]

_SECONDS: Final = 1.0
"""How often it is written."""

_MOST_BYTES: Final = 4096
"""The size of a file that could be one: a slot's name has 63 bytes at most."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CaptureStatus:
    """A capture, as it was at a moment.

    Attributes
    ----------
    core_id : int
    slot : str
    pid : int
        Its process.
    time : float
        The moment, in seconds since 1970.
    received, emitted, position, lag_bytes, lag_seconds, connected, reconnects
        As of `PostgresStats`.
    """

    core_id: int
    slot: str
    pid: int
    time: float
    received: int
    emitted: int
    position: int
    lag_bytes: int | None
    lag_seconds: float
    connected: bool
    reconnects: int


_NUMBERS: Final = ("core_id", "pid", "received", "emitted", "position", "reconnects")


def _path(name: str, directory: Path, core_id: int) -> Path:
    # Hidden, so that it is no bus; and its end is not that of a bus that is being made.
    return directory / f".{PREFIX}{name}.{core_id}.capture"


@contextlib.contextmanager
def status_written(
    name: str, directory: Path, core_id: int, slot: str, stats: Callable[[], PostgresStats]
) -> Generator[None, None, None]:
    """In the block a thread writes the file, and after it there is none. A file that cannot be written is left out."""
    done = threading.Event()
    path = _path(name, directory, core_id)

    def write() -> None:
        while True:
            with contextlib.suppress(OSError):
                _write(path, {"core_id": core_id, "slot": slot, **dataclasses.asdict(stats())})
            if done.wait(_SECONDS):
                return

    thread = threading.Thread(target=write, name="nodedb_ring-status", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(OSError):
            path.unlink()


def _write(path: Path, fields: dict[str, object]) -> None:
    """Replaces the file, so that a reader finds the old one or the new one."""
    document = json.dumps({**fields, "pid": os.getpid(), "time": time.time()})
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with io.FileIO(beside, "x", opener=_new) as file:
            file.write(document.encode())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _new(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def read_status(name: str, directory: Path, core_id: int) -> CaptureStatus | None:
    """What the last capture of a core has written; None if there is nothing, or nothing that makes sense."""
    # ValueError is of JSON and UTF-8, and RecursionError of JSON that nests too deep.
    with (
        contextlib.suppress(OSError, ValueError, RecursionError),
        io.FileIO(_path(name, directory, core_id), opener=_there) as file,
    ):
        if os.fstat(file.fileno()).st_uid == os.geteuid():
            return _checked(json.loads(file.read(_MOST_BYTES) or b""), core_id)
    return None


def _there(path: str, flags: int) -> int:
    # O_NONBLOCK: it may be a FIFO, whose opening would wait for the other end.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _checked(found: Any, core_id: int) -> CaptureStatus | None:
    names = {field.name for field in dataclasses.fields(CaptureStatus)}
    if not isinstance(found, dict) or found.keys() != names or found["core_id"] != core_id:
        return None
    lag_bytes = found["lag_bytes"]
    makes_sense = (
        all(type(found[name]) is int for name in _NUMBERS)
        and (lag_bytes is None or type(lag_bytes) is int)
        and type(found["time"]) is type(found["lag_seconds"]) is float
        and isinstance(found["connected"], bool)
        and isinstance(found["slot"], str)
    )
    return CaptureStatus(**found) if makes_sense else None


def remove_statuses(name: str, directory: Path) -> None:
    """Removes the files that killed captures of a bus have left."""
    ours = re.compile(re.escape(f".{PREFIX}{name}.") + r"\d+\.capture(\.\d+)?")
    for path in directory.iterdir():
        if ours.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()
