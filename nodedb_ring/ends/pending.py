"""What a thread that sleeps in compiled code has to do now and then for other threads."""

from __future__ import annotations

__all__ = ["run_pending"]


def run_pending() -> None:
    """Runs the interpreter once, which drops what other threads have dropped of this thread's objects.

    Without the GIL an object belongs to the thread that made it. If another thread drops the last reference, the owner
    takes note when it next runs Python code. Until then a lease or an array of it keeps its rows.
    """
