"""The machine on which figures were measured. It holds no host names, user names or paths."""

from __future__ import annotations

import dataclasses
import os
import platform
from pathlib import Path

import numpy as np

__all__ = ["Machine", "describe_machine", "two_cpus"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine, and its load around the run.

    Attributes
    ----------
    processor : str
        The name of the model, or the architecture if the kernel reports no name.
    cpus : int
        CPUs that the run may use.
    pinned_to : tuple of int, or None
        The CPUs of the writer and of the reader; None if there is only one CPU.
    kernel, python, numpy : str
        Versions.
    load_before, load_after : float
        Load average over one minute; the run itself adds two.
    """

    processor: str
    cpus: int
    pinned_to: tuple[int, int] | None
    kernel: str
    python: str
    numpy: str
    load_before: float
    load_after: float


def describe_machine(pinned_to: tuple[int, int] | None, load_before: float) -> Machine:
    """The machine as it is now, at the end of the run."""
    return Machine(
        processor=_processor(),
        cpus=len(os.sched_getaffinity(0)),
        pinned_to=pinned_to,
        kernel=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        numpy=np.__version__,
        load_before=round(load_before, 2),
        load_after=round(os.getloadavg()[0], 2),
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() in {"model name", "model"} and not value.strip().isdigit():
            return value.strip()
    return platform.machine()


def two_cpus() -> tuple[int, int] | None:
    """Two CPUs that this process may use, on different cores if possible; None if there is only one CPU.

    Two hardware threads of one core share its caches, so events between them do not cross from core to core.
    """
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        return None
    siblings = _siblings(first)
    return first, next((cpu for cpu in others if cpu not in siblings), others[0])


def _siblings(cpu: int) -> set[int]:
    """The CPUs that are hardware threads of the same core, including this one."""
    try:
        listed = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:  # no such file system, as in some containers
        return {cpu}
    spans = (span.partition("-") for span in listed.split(","))
    return {number for first, _, last in spans for number in range(int(first), int(last or first) + 1)}
