"""The view on a terminal: drawn anew at each sample, on a screen of its own, and left behind at the end."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Generator, Iterable
from typing import Final

from rich.console import Console
from rich.live import Live

from ..termination import TERMINATION, termination_unwinds
from .view import View
from .watch import BusSample

__all__ = ["draw"]

_ENDING: Final = {signal.SIGINT, *TERMINATION}


def draw(first: BusSample, samples: Iterable[BusSample]) -> None:
    """Draws samples as they come. However that ends, the terminal is as it was, with the last view left on it."""
    console = Console()
    view = View(first)
    live = Live(view, console=console, screen=True, auto_refresh=False)
    with termination_unwinds():
        try:
            # An exception in the midst of any of these would leave a screen that nobody knows of, or half a view in the
            # console's buffer, to be printed with the last one. Between them nothing is held back.
            with _endings_held_back():
                live.start()
                live.refresh()
            for sample in samples:
                view.add(sample)
                with _endings_held_back():
                    live.refresh()
        finally:
            with _endings_held_back():
                live.stop()
            console.print(view)


@contextlib.contextmanager
def _endings_held_back() -> Generator[None, None, None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
