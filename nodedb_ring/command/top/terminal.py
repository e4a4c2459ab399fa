"""Draws the view on the terminal's alternate screen at each sample, and prints the last one at the end."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.live import Live

from ..termination import termination_deferred, termination_unwinds
from .view import View
from .watch import BusSample

__all__ = ["draw"]


def draw(first: BusSample, samples: Iterable[BusSample]) -> None:
    """Draws samples as they come. However it ends, it restores the terminal and prints the last view."""
    console = Console()
    view = View(first)
    live = Live(view, console=console, screen=True, auto_refresh=False)
    with termination_unwinds():
        try:
            # An exception inside one of these calls could leave the alternate screen on, or half a view in the
            # console's buffer. Signals that arrive meanwhile are handled between the calls.
            with termination_deferred():
                live.start()
                live.refresh()
            for sample in samples:
                view.add(sample)
                with termination_deferred():
                    live.refresh()
        finally:
            with termination_deferred():
                live.stop()
            console.print(view)
