"""``python -m benchmarks.top_picture docs/top.svg``: what ``nodedb-ring top`` draws, as a picture.

Two processes hold the ends of four cores and move events between them by a script: one core runs well, one has a slow
consumer, one a consumer that rarely drains, and one a consumer that closes. The drawing is that of the command.
"""

from __future__ import annotations

import argparse
import io
import math
import multiprocessing
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console

from nodedb_ring import EventBatch, EventBus, WriteOp
from nodedb_ring.command.top.view import View
from nodedb_ring.command.top.watch import Watch

from .measure import check

__all__ = ["main"]

_CORES: Final = 4
_INTERVAL: Final = 0.5  # seconds
_STEPS: Final = 24
_COLUMNS: Final = 110


def main(arguments: list[str] | None = None) -> int:
    """Draws the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.top_picture", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="the SVG file to write")
    file: Path = parser.parse_args(arguments).file
    with (
        tempfile.TemporaryDirectory() as directory,
        EventBus.create("flights", _CORES, 16_384, directory=directory) as bus,
        Watch(bus.name, bus.directory) as watch,
    ):
        producer, consumer = _start(_produce, bus), _start(_consume, bus)
        view = View(watch.sample())
        for step in range(_STEPS):
            producer.send(step)
            check("the producers", producer.recv(), step)
            consumer.send(step)
            check("the consumers", consumer.recv(), step)
            time.sleep(_INTERVAL)
            view.add(watch.sample())
        file.write_text(picture(view), encoding="utf-8")
        producer.close()
        consumer.close()
    return 0


def picture(view: View) -> str:
    """The view as an SVG file without external resources."""
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(view)
    svg = console.export_svg(title="nodedb-ring top flights")
    return (
        re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL).replace("Fira Code,", "").replace("\u00a0", "&#160;")
    )


def _start(run: Callable[[str, Path, Connection], None], bus: EventBus) -> Connection:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    multiprocessing.get_context("spawn").Process(
        target=run, args=(bus.name, bus.directory, theirs), daemon=True
    ).start()
    return ours


def _produce(name: str, directory: Path, pipe: Connection) -> None:
    with EventBus.open(name, directory=directory) as bus:
        producers = [bus.producer(core_id) for core_id in range(_CORES)]
        for step in _steps(pipe):
            for producer, count in zip(producers, _emitted(step), strict=True):
                producer.emit_batch(_batch(producer.next_sequence, count))


def _emitted(step: int) -> tuple[int, int, int, int]:
    wave = 0.5 + 0.5 * math.sin(step / 3)
    return 2000 + int(9000 * wave), 800 + 20 * step, 2500, int(1200 * (1 - wave))


def _consume(name: str, directory: Path, pipe: Connection) -> None:
    with EventBus.open(name, directory=directory) as bus:
        consumers = [bus.consumer(core_id) for core_id in range(_CORES)]
        for step in _steps(pipe):
            for core_id, most in ((0, 3000), (1, 13_800)):
                # All but the largest backlog that it may leave.
                consumers[core_id].drain(max(bus.ring_stats(core_id).producer.slots_in_use - most, 1))
            consumers[2].drain(200)
            if step < _STEPS * 2 // 3:
                consumers[3].drain(20_000)
            else:
                consumers[3].close()


def _steps(pipe: Connection) -> Iterator[int]:
    """Runs each step that is asked for and answers when it is done, until the pipe is closed."""
    while True:
        try:
            step = pipe.recv()
        except EOFError:
            return
        yield step
        pipe.send(step)


def _batch(first: int, count: int) -> EventBatch:
    return EventBatch.from_columns(
        sequence=np.arange(first, first + count), lsn=0, op=WriteOp.INSERT, collection="flights", row_id="UA1545"
    )


if __name__ == "__main__":
    raise SystemExit(main())
