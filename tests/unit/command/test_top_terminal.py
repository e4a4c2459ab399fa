"""``nodedb-ring top`` on a terminal: what it draws, and how it leaves the terminal when it ends."""

from __future__ import annotations

import re
import signal

import pytest

from nodedb_ring import EventBus
from tests.unit.builders import event
from tests.unit.shared_buses import Peer, claim_producer, emit

from .terminal import CTRL_C, OnTerminal, plain
from .top_runs import TOP

# The signal comes between the first control code and the second.
ENDED_AT_ONCE = """
import signal, sys
from rich.console import Console

show_cursor = Console.show_cursor

def interrupted(console, show=True):
    if not show:
        signal.raise_signal(signal.SIGTERM)
    return show_cursor(console, show)

Console.show_cursor = interrupted
from nodedb_ring.command.cli import main
sys.exit(main(["top", *sys.argv[1:]]))
"""
# And this one while the screen is put back.
ENDED_TWICE = """
import signal, sys
from rich.console import Console

show_cursor = Console.show_cursor

def interrupted(console, show=True):
    if show:
        signal.raise_signal(signal.SIGINT)
    return show_cursor(console, show)

Console.show_cursor = interrupted
from nodedb_ring.command.cli import main
sys.exit(main(["top", *sys.argv[1:]]))
"""
# As both, by a signal to the process, which a thread gets that masks nothing. The pipe shows when it was handled there.
BESIDE_A_THREAD = """
import os, signal, sys, threading
from rich.console import Console

threading.Thread(target=threading.Event().wait, daemon=True).start()
reading, writing = os.pipe()
os.set_blocking(writing, False)
signal.set_wakeup_fd(writing)
show_cursor = Console.show_cursor
where = sys.argv.pop(1) == "end"

def interrupted(console, show=True):
    if show == where:
        os.kill(os.getpid(), signal.SIGTERM)
        os.read(reading, 1)
    return show_cursor(console, show)

Console.show_cursor = interrupted
from nodedb_ring.command.cli import main
sys.exit(main(["top", *sys.argv[1:]]))
"""
ALTERNATE_SCREEN, ORDINARY_SCREEN = "\x1b[?1049h", "\x1b[?1049l"
CURSOR_HIDDEN, CURSOR_SHOWN = "\x1b[?25l", "\x1b[?25h"


def test_it_draws_until_ctrl_c_and_leaves_the_terminal_as_it_was(bus: EventBus) -> None:
    with Peer(bus) as producer, OnTerminal(*TOP, bus.name, "--interval=0.1") as terminal:
        assert ALTERNATE_SCREEN in terminal.until("NORMAL")
        assert CURSOR_HIDDEN in terminal.output
        # It continues: what happens from now on shows.
        producer.ask(claim_producer)
        producer.ask(emit, 1, 20)
        terminal.until("SUSPENDED")
        terminal.until(str(producer.pid))
        terminal.press(CTRL_C)
        assert terminal.end() == (130, "nodedb-ring: interrupted\n")
        drawn, _, left = terminal.output.rpartition(ORDINARY_SCREEN)
        assert drawn
        assert terminal.output.rindex(CURSOR_SHOWN) > terminal.output.rindex(CURSOR_HIDDEN)
        # The last view stays, below the prompt.
        title, headings, line = plain(left).splitlines()
        assert re.match(rf"{re.escape(bus.name)}  1 core of 16 slots, the last \d+\.\d s", title)
        assert headings.split()[:2] == ["core", "pressure"]
        assert line.split()[:2] == ["0", "SUSPENDED"]
        # The process prints its own interrupt to stderr: Ctrl-C's echo is the terminal's.
        assert "Traceback" not in terminal.output


def test_it_draws_as_often_as_asked(bus: EventBus) -> None:
    with OnTerminal(*TOP, bus.name, "--interval=0.1", "--count=3") as terminal:
        assert terminal.end() == (0, "")
        # The first sample has no rates; three have, and the last of them is printed once more at the end.
        assert plain(terminal.output).count("core pressure") == 5


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_that_ends_it_leaves_the_terminal_as_it_was(bus: EventBus, number: signal.Signals, code: int) -> None:
    with OnTerminal(*TOP, bus.name, "--interval=0.1") as terminal:
        terminal.until("NORMAL")
        terminal.process.send_signal(number)
        assert terminal.end() == (code, "")
        assert terminal.output.rindex(CURSOR_SHOWN) > terminal.output.rindex(CURSOR_HIDDEN)
        assert ORDINARY_SCREEN in terminal.output


def test_a_signal_while_the_screen_is_made_up_leaves_the_terminal_as_it_was(bus: EventBus) -> None:
    with OnTerminal("-c", ENDED_AT_ONCE, bus.name, "--interval=0.1") as terminal:
        assert terminal.end() == (143, "")
        assert terminal.output.index(ALTERNATE_SCREEN) < terminal.output.index(ORDINARY_SCREEN)
        assert terminal.output.index(CURSOR_HIDDEN) < terminal.output.index(CURSOR_SHOWN)


@pytest.mark.parametrize("where", ["start", "end"])
def test_a_signal_that_another_thread_gets_leaves_the_terminal_as_it_was(bus: EventBus, where: str) -> None:
    with OnTerminal("-c", BESIDE_A_THREAD, where, bus.name, "--interval=0.1", "--count=1") as terminal:
        assert terminal.end() == (143, "")
        assert terminal.output.index(ALTERNATE_SCREEN) < terminal.output.index(ORDINARY_SCREEN)
        assert terminal.output.index(CURSOR_HIDDEN) < terminal.output.rindex(CURSOR_SHOWN)


def test_a_second_signal_leaves_the_terminal_as_it_was_too(bus: EventBus) -> None:
    with OnTerminal("-c", ENDED_TWICE, bus.name, "--interval=0.1") as terminal:
        terminal.until("NORMAL")
        terminal.press(CTRL_C)
        assert terminal.end() == (130, "nodedb-ring: interrupted\n")
        assert ORDINARY_SCREEN in terminal.output
        assert terminal.output.rindex(CURSOR_SHOWN) > terminal.output.rindex(CURSOR_HIDDEN)


def test_an_error_leaves_the_terminal_as_it_was(bus: EventBus) -> None:
    with OnTerminal(*TOP, bus.name, "--interval=0.1") as terminal:
        terminal.until("NORMAL")
        # It is there whole, or not yet: an empty file is refused in other words.
        other = bus.path.with_name(f"{bus.path.name}.other")
        other.write_bytes(b"not a bus\n" * 1000)
        other.replace(bus.path)
        code, errors = terminal.end()
        assert code == 2
        assert re.fullmatch(r"nodedb-ring top: .* is not a bus, .*\n", errors)
        assert terminal.output.rindex(CURSOR_SHOWN) > terminal.output.rindex(CURSOR_HIDDEN)


def test_a_terminal_that_can_do_nothing_gets_tables(bus: EventBus) -> None:
    with OnTerminal(*TOP, bus.name, "--interval=0.1", "--count=2", TERM="dumb") as terminal:
        assert terminal.end() == (0, "")
        assert "\x1b" not in terminal.output
        assert terminal.output.count("rates over") == 2


def test_it_draws_on_a_terminal_without_unicode(bus: EventBus) -> None:
    with bus.producer(0) as producer:
        producer.emit(event(1))
        with OnTerminal(*TOP, bus.name, "--interval=0.1", "--count=1", PYTHONIOENCODING="ascii") as terminal:
            assert terminal.end() == (0, "")
            assert terminal.output.isascii()
            assert "NORMAL" in terminal.output
