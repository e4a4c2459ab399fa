"""The errors for a thread, or a process, that calls an end which it does not own."""

from __future__ import annotations

from ..errors import ForkError, OwnershipError

__all__ = ["forked", "owned_elsewhere"]


def owned_elsewhere(end: str, core_id: int) -> OwnershipError:
    """For a call from a thread other than the end's own."""
    return OwnershipError(
        f"{end} of core {core_id}: belongs to another thread; call {end}.bind() in this one to hand it over"
    )


def forked(end: str, core_id: int) -> ForkError:
    """For a call in a process that inherited the end."""
    return ForkError(
        f"{end} of core {core_id}: was inherited by fork, and stays with the parent; make a bus after the fork, "
        "or claim an end of a shared one there"
    )
