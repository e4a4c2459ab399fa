"""The view on a terminal: drawn anew at each sample, on a screen of its own, and left behind at the end."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.live import Live

from ..termination import termination_deferred, termination_unwinds
from .view import View
from .watch import BusSample

__all__ = ["draw"]


def draw(first: BusSample, samples: Iterable[BusSample]) -> None:
    """Draws samples as they come. However that ends, the terminal is as it was, with the last view left on it."""
    console = Console()
    view = View(first)
    live = Live(view, console=console, screen=True, auto_refresh=False)
    with termination_unwinds():
        try:
            # An exception in the midst of any of these would leave a screen that nobody knows of, or half a view in the
            # console's buffer, to be printed with the last one. Between them nothing is held back.
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
