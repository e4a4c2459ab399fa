"""What ``nodedb-ring top`` draws: colours and words, widths, sparklines, and what there is no room for."""

from __future__ import annotations

import dataclasses
import io
import os
import random
import re
from collections.abc import Iterator
from typing import Literal

import pytest
from rich.cells import cell_len
from rich.console import Console

from nodedb_ring import EventBus, EventConsumer, EventProducer
from nodedb_ring.command.top.sparkline import sparkline
from nodedb_ring.command.top.view import View, compact
from nodedb_ring.command.top.watch import CorruptRing, Rates, RingSample, Watch
from tests.unit.builders import events
from tests.unit.shared_buses import BusMaker

from .terminal import plain

GREEN, YELLOW, RED, BOLD_RED = "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[1;31m"
SLOTS = 100  # rounded up to 128


class Drawn:
    """A bus of which each sample comes a second after the last, and how it is drawn."""

    def __init__(self, bus: EventBus) -> None:
        self.now = 0.0
        self.watch = Watch(bus.name, bus.directory, lambda: self.now)
        self.view = View(self.watch.sample())

    def sample(self) -> None:
        self.now += 1
        self.view.add(self.watch.sample())

    def codes(self, width: int, height: int = 25) -> str:
        return self._drawn(width, height, "utf-8", "standard")

    def text(self, width: int, height: int = 25, *, encoding: str = "utf-8") -> list[str]:
        return plain(self._drawn(width, height, encoding, None)).splitlines()

    def _drawn(self, width: int, height: int, encoding: str, colours: Literal["standard"] | None) -> str:
        written = io.BytesIO()
        file = io.TextIOWrapper(written, encoding=encoding)
        Console(
            file=file, force_terminal=True, width=width, height=height, color_system=colours, legacy_windows=False
        ).print(self.view)
        file.flush()
        return written.getvalue().decode(encoding)


@pytest.fixture
def drawn(make_bus: BusMaker) -> Iterator[tuple[Drawn, list[EventProducer], list[EventConsumer]]]:
    """Three cores whose ends this process holds, but for the last's consumer."""
    bus = make_bus(3, 100, arena_bytes=2**20)
    producers = [bus.producer(core_id) for core_id in range(3)]
    consumers = [bus.consumer(core_id) for core_id in range(2)]
    drawing = Drawn(bus)
    yield drawing, producers, consumers
    for producer in producers:
        producer.close()
    for consumer in consumers:
        consumer.close()
    drawing.watch.close()


def emit(producer: EventProducer, count: int) -> None:
    first = producer.next_sequence
    for each in events(first, first + count - 1):
        producer.emit(each)


def fill(drawing: Drawn, producers: list[EventProducer]) -> None:
    """Core 0 NORMAL, core 1 THROTTLED, core 2 SUSPENDED and dropping."""
    emit(producers[0], 13)
    emit(producers[1], 110)
    emit(producers[2], 150)
    drawing.sample()


Cores = tuple[Drawn, list[EventProducer], list[EventConsumer]]


def test_pressure_is_a_colour_and_a_word(drawn: Cores) -> None:
    drawing, producers, _ = drawn
    fill(drawing, producers)
    for width in (80, 200):
        _, _, first, second, third, _ = drawing.codes(width).splitlines()
        for line, colour, word, percent in (
            (first, GREEN, "NORMAL", "10%"),
            (second, YELLOW, "THROTTLED", "85%"),
            (third, RED, "SUSPENDED", "100%"),
        ):
            assert f"{colour}{word}" in line
            # The bar has the colour, too.
            assert f"{colour}━" in line or f"{colour}╾" in line
            assert f" {percent} " in plain(line)
            assert not {GREEN, YELLOW, RED} - {colour} & {code for code in (GREEN, YELLOW, RED) if code in line}
        assert f"{BOLD_RED}   22" in third or f"{BOLD_RED}       22" in third


def test_the_bar_shows_the_utilization(drawn: Cores) -> None:
    drawing, producers, _ = drawn
    emit(producers[0], 64)
    emit(producers[2], 128)
    drawing.sample()
    for width in (80, 200):
        bars = [line.split()[2] for line in drawing.text(width)[2:5]]
        assert len({len(bar) for bar in bars}) == 1
        half, empty, whole = (bar.count("━") + bar.count("╾") / 2 for bar in bars)
        assert whole == len(bars[0]) >= 5
        assert abs(half - whole / 2) <= 0.5
        assert empty == 0
    # Hardly anything is something.
    emit(producers[1], 2)
    drawing.sample()
    assert re.fullmatch(r" +1 NORMAL +╾─+ +1% .*", drawing.text(80)[3])


@pytest.mark.parametrize("width", [80, 120, 200])
def test_everything_has_room(drawn: Cores, width: int) -> None:
    drawing, producers, consumers = drawn
    for count in range(1, 31):
        emit(producers[0], count)
        assert len(consumers[0].drain()) == count
        drawing.sample()
    fill(drawing, producers)
    lines = drawing.text(width)
    assert all(cell_len(line) <= width for line in lines)
    title, headings, *cores, total = lines
    assert title.endswith("3 cores of 128 slots, the last 1.0 s")
    expected = ["in/s", "out/s", "lag"]
    expected += ["dropped", "dropped/s", "producer", "consumer"] if width >= 100 else ["drops", "/s", "prod.", "cons."]
    assert [heading for heading in headings.split() if heading in expected][: len(expected)] == expected
    assert not any("…" in line for line in lines)
    cells = [[cell for cell in line.split() if not set(cell) & set("━╾╺")] for line in cores]
    pid = str(os.getpid())
    assert cells[0][:9] == ["0", "NORMAL", "10%", "13", "0", "13", "0", "0", pid]
    assert cells[1][:10] == ["1", "THROTTLED", "85%", "110", "0", "110", "0", "0", pid, pid]
    assert cells[2][:10] == ["2", "SUSPENDED", "100%", "128", "0", "128", "22", "22", pid, "-"]
    assert total.split() == ["all", "251", "0", "251", "22", "22"]


def test_a_sparkline_is_of_the_rates_in_until_now(drawn: Cores) -> None:
    drawing, producers, consumers = drawn
    for count in (70, 0, 10, 35, 69):
        emit(producers[0], count)
        consumers[0].drain()
        drawing.sample()
    line = drawing.text(80)[2]
    assert line.rstrip().endswith(" █▁▂▅█")
    # The latest of more than there is room for.
    for count in (20, 40):
        emit(producers[0], count)
        consumers[0].drain()
        drawing.sample()
    history = drawing.text(200)[2].split()[-1]
    assert history == "█▁▂▅█▃▅"
    for _ in range(100):
        drawing.sample()
    line = drawing.text(80)[2]
    assert set(line.split()[-1]) == {"▁"}
    assert cell_len(line) <= 80


def test_an_end_that_has_gone_is_said_to_be(drawn: Cores) -> None:
    drawing, producers, consumers = drawn
    consumers[1].close()
    emit(producers[1], 3)
    drawing.sample()
    lines = drawing.codes(80).splitlines()
    assert f"{BOLD_RED} gone" in lines[3]
    assert "gone" not in lines[2]
    # What it would have got is dropped, at once.
    assert plain(lines[3]).split()[3:9] == ["0%", "0", "0", "0", "3", "3"]


def test_a_corrupt_ring_is_shown_as_such_on_its_line(drawn: Cores) -> None:
    drawing, producers, _ = drawn
    fill(drawing, producers)
    bus = drawing.watch.sample().bus
    with bus.path.open("r+b") as file:
        file.seek(4096 + 128)
        file.write((2**40).to_bytes(8, "little"))
    drawing.sample()
    for width in (80, 200):
        lines = drawing.codes(width).splitlines()
        assert f"{BOLD_RED}CORRUPT" in lines[2]
        assert plain(lines[2]).split() == ["0", "CORRUPT"]
        assert "THROTTLED" in lines[3]
        assert plain(lines[5]).split()[0] == "all"
        note = " ".join(plain(" ".join(lines[6:])).split())
        assert note.startswith("core 0: published position 1099511627776: leaves more events than there are slots")
        assert note.endswith("unlink the bus, create it again, and replay from the log")


def test_it_says_what_became_of_the_name(make_bus: BusMaker) -> None:
    bus = make_bus()
    drawing = Drawn(bus)
    for _ in range(3):
        drawing.sample()
    assert drawing.text(80)[-1].rstrip().endswith("▁▁▁")
    bus.unlink()
    drawing.sample()
    assert f"{bus.name} was unlinked" in drawing.text(80)[3]
    with make_bus(2, 32, name=bus.name).producer(1) as producer:
        drawing.sample()
        assert drawing.text(80)[0].rstrip() == f"{bus.name}  2 cores of 32 slots"
        assert drawing.text(80)[3].split()[:2] == ["1", "NORMAL"]
        assert drawing.text(80)[5].rstrip() == f"{bus.name} was created again: this is bus 2 of that name"
        # And its history begins again, too.
        emit(producer, 5)
        drawing.sample()
        assert drawing.text(80)[2].rstrip().endswith(" ▁")
        assert drawing.text(80)[3].rstrip().endswith(" █")
    drawing.watch.close()


def test_where_there_is_no_room_for_all_the_fullest_are_shown(make_bus: BusMaker) -> None:
    bus = make_bus(40)
    drawing = Drawn(bus)
    with bus.producer(7) as seventh, bus.producer(30) as thirtieth:
        emit(seventh, 3)
        emit(thirtieth, 16)
        drawing.sample()
        lines = drawing.text(80, height=9)
        assert len(lines) == 9
        shown = [line.split()[0] for line in lines[2:-2]]
        assert shown == ["0", "1", "2", "7", "30"]
        assert lines[-2].split()[:4] == ["all", "19", "0", "19"]
        assert lines[-1].rstrip() == "the fullest 5 of 40 cores; a taller terminal shows more"
        assert len(drawing.text(80, height=60)) == 43
        # Never taller than the terminal, however low that is.
        assert all(len(drawing.text(80, height=height)) <= max(height, 5) for height in (1, 4, 5, 8, 30, 43, 44, 60))
    drawing.watch.close()


def test_a_corrupt_ring_is_among_those_shown(make_bus: BusMaker) -> None:
    bus = make_bus(9)
    drawing = Drawn(bus)
    drawing.sample()
    sample = drawing.watch.sample()
    with bus.path.open("r+b") as file:
        block = (bus.path.stat().st_size - 4096) // 9
        file.seek(4096 + 8 * block + 128)
        file.write((2**40).to_bytes(8, "little"))
    drawing.sample()
    assert isinstance(drawing.watch.sample().rings[8], CorruptRing)
    assert sample.bus.num_cores == 9
    lines = drawing.text(200, height=8)
    assert any(line.split()[:2] == ["8", "CORRUPT"] for line in lines)
    drawing.watch.close()


def test_a_terminal_without_unicode_gets_ascii(drawn: Cores) -> None:
    drawing, producers, consumers = drawn
    for count in (60, 1, 30):
        emit(producers[0], count)
        consumers[0].drain()
        drawing.sample()
    emit(producers[0], 100)
    drawing.sample()
    line = drawing.text(80, encoding="ascii")[2]
    assert line.rstrip().endswith(" +.:#")
    assert " ####- " in line


def test_the_widest_figures_fit_into_80_columns(drawn: Cores) -> None:
    drawing, producers, _ = drawn
    fill(drawing, producers)
    drawing.now += 1
    sample = drawing.watch.sample()
    ring = sample.rings[2]
    assert isinstance(ring, RingSample)
    wide = dataclasses.replace(
        ring,
        stats=dataclasses.replace(
            ring.stats,
            producer=dataclasses.replace(ring.stats.producer, emitted=ring.stats.consumer.received + 45_600_000),
            producer_pid=4_194_304,
            consumer_pid=4_194_303,
        ),
        rates=Rates(emitted=45_600_000, received=45_600_000, dropped=45_600_000),
    )
    drawing.view.add(dataclasses.replace(sample, rings=(*sample.rings[:2], wide)))
    lines = drawing.text(80)
    assert all(cell_len(line) <= 80 for line in lines)
    _, _, percent, *figures, spark = [cell for cell in lines[4].split() if not set(cell) & set("━╾─")]
    assert percent == "100%"
    assert figures == ["45.6M", "45.6M", "45.6M", "22", "45.6M", "4194304", "4194303"]
    assert spark[-1] == "█"


def test_a_narrow_terminal_gets_what_it_has_room_for(drawn: Cores) -> None:
    drawing, producers, _ = drawn
    fill(drawing, producers)
    for width in (20, 40, 60):
        lines = drawing.text(width)
        assert all(cell_len(line) <= width for line in lines)
        # Still one line per core, cut off at its end.
        assert len(lines) == 6
        assert all(line.endswith("…") for line in lines[1:])


# Numbers


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0"),
        (0.0, "0"),
        (0.01, "<0.1"),
        (0.06, "0.1"),
        (2.5, "2.5"),
        (9, "9"),
        (9.96, "10"),
        (42.4, "42"),
        (999, "999"),
        (999.4, "999"),
        (999.6, "1k"),
        (1000, "1k"),
        (1234, "1.23k"),
        (45_678, "45.7k"),
        (999_499, "999k"),
        (999_500, "1M"),
        (10_300_000, "10.3M"),
        (2**64 - 1, "18.4E"),
    ],
)
def test_a_number_is_five_characters_at_most(number: float, shown: str) -> None:
    assert compact(number) == shown


def test_every_number_is_five_characters_at_most() -> None:
    chance = random.Random(5)
    for _ in range(20_000):
        number = 10 ** chance.uniform(-3, 26)
        assert len(compact(number)) <= 5, number
        assert len(compact(int(number))) <= 5, number


def test_a_sparkline_tells_little_from_nothing() -> None:
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([0, 1e-9, 1]) == "▁▂█"
    assert sparkline([1, 2, 3, 4, 5, 6, 7]) == "▂▃▄▅▆▇█"
    assert sparkline([7, 0, 3], ascii_only=True) == "#_:"
