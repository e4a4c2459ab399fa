"""``nodedb-ring top`` as a command: what it prints and draws, what it refuses, and how it ends."""

from __future__ import annotations

import datetime
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nodedb_ring import EventBus, EventProducer, Lease
from nodedb_ring.command.cli import main
from nodedb_ring.command.top.command import run_top
from tests.unit.builders import event, events
from tests.unit.runners import WITHOUT
from tests.unit.shared_buses import BusMaker, Peer, another_users, claim_consumer, claim_producer, drain, emit

from .terminal import CTRL_C, OnTerminal, plain

ROOT = Path(__file__).parents[3]
SECONDS = 50
TOP = ["-m", "nodedb_ring", "top"]
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


class Time:
    """A clock that only passes when somebody pauses, for the time that he does; meanwhile something is done."""

    def __init__(self, *meanwhile: Callable[[], object]) -> None:
        self.now = 0.0
        self._meanwhile = list(meanwhile)

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds
        if self._meanwhile:
            self._meanwhile.pop(0)()


def run(bus: EventBus, time: Time, **options: Any) -> int:
    given: dict[str, Any] = {"interval": 2.0, "count": None, "once": False, "json": False}
    return run_top(bus.name, bus.directory, clock=time, pause=time.pause, **(given | options))


def top(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, with pipes for a terminal."""
    return subprocess.run(
        [sys.executable, *TOP, *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env=os.environ | environment,
    )


def emitting(producer: EventProducer, first: int, last: int) -> Callable[[], object]:
    return lambda: [producer.emit(each) for each in events(first, last)]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that it says when it refuses."""
    assert main(["top", *arguments]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert re.fullmatch(r"nodedb-ring top: .*\n", errors)
    return errors


# JSON


def test_one_json_object_has_what_inspect_has_and_the_rates(
    make_bus: BusMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    bus = make_bus(2)
    with bus.producer(0) as producer, Peer(bus) as consumer:
        consumer.ask(claim_consumer)
        emitting(producer, 1, 3)()

        def meanwhile() -> None:
            emitting(producer, 4, 20)()
            assert consumer.ask(drain, 5) == [1, 2, 3, 4, 5]

        assert run(bus, Time(meanwhile), once=True, json=True) == 0
        output, errors = capsys.readouterr()
        assert errors == ""
        found = json.loads(output)
        assert main(["inspect", bus.name, "--json"]) == 0
        expected = json.loads(capsys.readouterr().out)
    datetime.datetime.fromisoformat(found.pop("time"))
    expected |= {"incarnation": 1, "is_linked": True, "interval_seconds": 2.0}
    expected["rings"][0] |= {
        "lag": 11,
        "emitted_per_second": 6.5,
        "received_per_second": 2.5,
        "dropped_per_second": 2.0,
        "error": None,
    }
    nothing = {"lag": 0, "emitted_per_second": 0, "received_per_second": 0, "dropped_per_second": 0, "error": None}
    expected["rings"][1] |= nothing
    assert found == expected
    assert found["rings"][0]["consumer_pid"] == consumer.pid


def test_one_json_object_of_a_bus_that_two_other_processes_use(bus: EventBus) -> None:
    with Peer(bus) as producer, Peer(bus) as consumer:
        producer.ask(claim_producer)
        consumer.ask(claim_consumer)
        producer.ask(emit, 1, 20)
        consumer.ask(drain, 7)
        ran = top(bus.name, "--once", "--json", "--interval=0.1")
    assert (ran.returncode, ran.stderr) == (0, "")
    found = json.loads(ran.stdout)
    assert found["interval_seconds"] >= 0.1
    [ring] = found["rings"]
    assert (ring["producer_pid"], ring["consumer_pid"]) == (producer.pid, consumer.pid)
    assert (ring["producer"]["emitted"], ring["producer"]["dropped"], ring["consumer"]["received"]) == (16, 4, 7)
    assert (ring["lag"], ring["emitted_per_second"], ring["received_per_second"]) == (9, 0, 0)


def test_json_is_an_object_a_line(bus: EventBus, capsys: pytest.CaptureFixture[str]) -> None:
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        time = Time(emitting(producer, 1, 4), consumer.drain, emitting(producer, 5, 5))
        assert run(bus, time, count=3, json=True, interval=0.5) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["interval_seconds"] for line in lines] == 3 * [0.5]
    found = [
        [line["rings"][0][name] for name in ("emitted_per_second", "received_per_second", "lag")] for line in lines
    ]
    assert found == [[8, 0, 4], [0, 8, 0], [2, 0, 1]]


def test_the_keys_of_the_json_are_these(bus: EventBus, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs read them: one may come, none may go or be called another name."""
    run(bus, Time(), once=True, json=True)
    found = json.loads(capsys.readouterr().out)
    assert list(found) == [
        *("time", "name", "path", "num_cores", "capacity", "arena_bytes"),
        *("incarnation", "is_linked", "interval_seconds", "rings"),
    ]
    main(["inspect", bus.name, "--json"])
    inspected = json.loads(capsys.readouterr().out)
    more = ["lag", "emitted_per_second", "received_per_second", "dropped_per_second", "error"]
    assert list(found["rings"][0]) == [*inspected["rings"][0], *more]


def test_json_says_when_the_bus_is_another_one(make_bus: BusMaker, capsys: pytest.CaptureFixture[str]) -> None:
    old = make_bus()
    time = Time(old.unlink, lambda: make_bus(2, name=old.name))
    assert run(old, time, count=3, json=True) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    reported = [(line["is_linked"], line["incarnation"], line["num_cores"], line["interval_seconds"]) for line in lines]
    assert reported == [(False, 1, 1, 2.0), (True, 2, 2, None), (True, 2, 2, 2.0)]
    assert [line["rings"][0]["emitted_per_second"] for line in lines] == [0, None, 0]


def test_json_says_which_ring_is_corrupt(make_bus: BusMaker, capsys: pytest.CaptureFixture[str]) -> None:
    bus = make_bus(2)
    time = Time(lambda: _corrupt(bus))
    assert run(bus, time, once=True, json=True) == 0
    first, second = json.loads(capsys.readouterr().out)["rings"]
    assert list(first) == ["core_id", "error"]
    assert first["error"].startswith("core 0: published position 1099511627776: leaves more events than")
    assert (second["core_id"], second["error"], second["lag"]) == (1, None, 0)


def _corrupt(bus: EventBus) -> None:
    """Overwrites the published position of core 0."""
    with bus.path.open("r+b") as file:
        file.seek(4096 + 128)
        file.write((2**40).to_bytes(8, "little"))


# Tables


def test_once_is_a_table(make_bus: BusMaker, capsys: pytest.CaptureFixture[str]) -> None:
    bus = make_bus(3, 8)
    with bus.producer(1) as producer, bus.consumer(1) as consumer:

        def meanwhile() -> None:
            emitting(producer, 1, 12)()
            consumer.drain(1)
            leases.append(consumer.lease(1))

        leases: list[Lease] = []
        with bus.consumer(2):
            pass
        assert run(bus, Time(meanwhile), once=True) == 0
        leases.pop().release()
    output, errors = capsys.readouterr()
    assert errors == ""
    pid = f"{os.getpid():>{len('producer')}}"
    assert output == (
        f"{bus.path}: 3 cores, 8 slots and 65,536 bytes of payload per core; rates over 2.00 s\n\n"
        "core  pressure   utilization  in/s  out/s  lag  held  dropped  dropped/s  producer  consumer\n"
        "0     NORMAL             0 %     0      0    0     0        0          0         -         -\n"
        f"1     SUSPENDED         87 %     4      1    6     1        4          2  {pid}  {pid}\n"
        "2     NORMAL             0 %     0      0    0     0        0          0         -      gone\n"
    )


def test_what_is_wrong_follows_the_table(make_bus: BusMaker, capsys: pytest.CaptureFixture[str]) -> None:
    bus = make_bus(2)

    def meanwhile() -> None:
        _corrupt(bus)
        bus.unlink()

    assert run(bus, Time(meanwhile), once=True) == 0
    _, _, _, first, second, *notes = capsys.readouterr().out.splitlines()
    assert first.split() == ["0", "CORRUPT"]
    assert second.split()[:2] == ["1", "NORMAL"]
    assert notes[0].startswith("core 0: published position 1099511627776: ")
    assert notes[1].startswith(f"{bus.name} was unlinked: ")


def test_a_table_says_that_the_bus_was_created_again(make_bus: BusMaker, capsys: pytest.CaptureFixture[str]) -> None:
    bus = make_bus()

    def meanwhile() -> None:
        bus.unlink()
        make_bus(name=bus.name)

    assert run(bus, Time(meanwhile), once=True) == 0
    title, _, _, line, note = capsys.readouterr().out.splitlines()
    assert "rates over" not in title
    assert line.split() == ["0", "NORMAL", "0", "%", "-", "-", "0", "0", "0", "-", "-", "-"]
    assert note == f"{bus.name} was created again: this is bus 2 of that name"


def test_without_a_terminal_it_is_a_table_an_interval(bus: EventBus, capsys: pytest.CaptureFixture[str]) -> None:
    with bus.producer(0) as producer:
        assert run(bus, Time(emitting(producer, 1, 1), emitting(producer, 2, 9)), count=2) == 0
    first, second = capsys.readouterr().out.split("\n\n/")
    assert first.splitlines()[-1].split()[:5] == ["0", "NORMAL", "6", "%", "0.5"]
    assert second.splitlines()[-1].split()[:5] == ["0", "NORMAL", "56", "%", "4"]


@pytest.mark.parametrize("options", [["--once"], ["--count=2"], ["--once", "--json"], ["--count=2", "--json"]])
def test_without_a_terminal_there_are_no_control_codes(bus: EventBus, options: list[str]) -> None:
    forced = {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1", "CLICOLOR_FORCE": "1"}
    ran = top(bus.name, "--interval=0.1", *options, **forced)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.fullmatch(r"[\x20-\x7e\n]+", ran.stdout)


@pytest.mark.parametrize("options", [["--json"], []])
def test_it_ends_when_its_reader_has_seen_enough(bus: EventBus, options: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, *TOP, bus.name, "--interval=0.1", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert bus.name in process.stdout.readline().decode()
        process.stdout.close()
        try:
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()
        assert process.stderr.read() == b""


@pytest.mark.parametrize("options", [["--json"], []])
def test_ctrl_c_ends_what_is_printed(bus: EventBus, options: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, *TOP, bus.name, "--interval=0.1", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert bus.name in process.stdout.readline().decode()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert (process.returncode, errors) == (130, b"nodedb-ring: interrupted\n")


def test_it_changes_no_byte_of_a_bus(bus: EventBus) -> None:
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        emitting(producer, 1, 3)()
        before = bus.path.read_bytes()
        assert top(bus.name, "--interval=0.1", "--count=2").returncode == 0
        assert bus.path.read_bytes() == before
        assert consumer.drain().sequence.tolist() == [1, 2, 3]


# Refusals


@pytest.mark.parametrize("options", [[], ["--once"], ["--json"], ["--once", "--json"]])
def test_no_such_bus_is_refused(options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "arrivals", f"--directory={tmp_path}", *options)
    assert "no bus of this name" in said
    assert str(tmp_path / "nodedb_ring.arrivals") in said


def test_other_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nodedb_ring.flights").write_bytes(b"not a bus\n" * 1000)
    assert "is not a bus" in refused(capsys, "flights", f"--directory={tmp_path}")
    assert "'../flights'" in refused(capsys, "../flights", f"--directory={tmp_path}")


def test_another_users_bus_is_refused(bus: EventBus, capsys: pytest.CaptureFixture[str]) -> None:
    with another_users(bus.path):
        assert "belongs to user" in refused(capsys, bus.name)


def test_another_file_of_the_name_ends_it(
    bus: EventBus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pause(seconds: float) -> None:
        bus.unlink()
        bus.path.write_bytes(b"not a bus\n" * 1000)

    monkeypatch.setattr("nodedb_ring.command.top.command.run_top.__kwdefaults__", {"clock": Time(), "pause": pause})
    assert "is not a bus" in refused(capsys, bus.name)


@pytest.mark.parametrize("value", ["0", "-1", "0.09", "3601", "nan", "inf", "1e400", "soon", ""])
def test_an_invalid_interval_is_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["top", "flights", f"--interval={value}"])
    assert exit_info.value.code == 2
    assert f"--interval: {value!r}: must be a number of seconds, 0.1 to 3600" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [[], ["a", "b"], ["a", "--count=0"], ["a", "--count=many"], ["a", "--once", "--count=2"], ["a", "--interval"]],
)
def test_invalid_calls_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["top", *arguments])
    assert exit_info.value.code == 2
    assert "usage: nodedb-ring" in capsys.readouterr().err


def test_help_names_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["top", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for part in ("--interval S", "--count N", "--once", "--json", "--directory DIR", "default: 1)", "130 interrupted"):
        assert part in said
    with pytest.raises(SystemExit):
        main(["--help"])
    assert " top " in capsys.readouterr().out


# Without rich


@pytest.mark.parametrize("options", [["--once"], ["--count=1"], ["--once", "--json"], ["--count=1", "--json"]])
def test_without_rich_it_prints(bus: EventBus, options: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT, "rich", "top", bus.name, "--interval=0.1", *options],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert bus.name in ran.stdout


def test_without_rich_it_says_on_a_terminal_what_to_install(bus: EventBus) -> None:
    with OnTerminal("-c", WITHOUT, "rich", "top", bus.name) as terminal:
        assert terminal.end() == (
            2,
            "nodedb-ring top: needs rich to draw, which is not installed: pip install 'nodedb_ring[live]'"
            " (--once and --json do without)\n",
        )
        assert terminal.output == ""
    with OnTerminal("-c", WITHOUT, "rich", "top", bus.name, "--once", "--interval=0.1") as terminal:
        assert terminal.end() == (0, "")
        assert "core  pressure" in terminal.output


def test_the_extra_names_rich() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [requirement.partition(">")[0] for requirement in extras["live"]] == ["rich"]


def test_another_missing_module_is_not_mistaken_for_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> int:
        raise ModuleNotFoundError("No module named 'elsewhere'", name="elsewhere")

    monkeypatch.setattr("nodedb_ring.command.top.command.run_top", broken)
    with pytest.raises(ModuleNotFoundError, match="elsewhere"):
        main(["top", "flights"])


# On a terminal


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


# Its page


def test_the_page_names_what_is_printed(bus: EventBus, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "top.md").read_text()
    named = re.findall(r"^\| (`\w.*?) \|", page, re.MULTILINE)
    keys = {key for cell in named for key in re.findall(r"`(\w+)`", cell)}
    run(bus, Time(), once=True, json=True)
    found = json.loads(capsys.readouterr().out)
    assert main(["inspect", bus.name, "--json"]) == 0
    inspected = json.loads(capsys.readouterr().out)
    assert keys == (found.keys() - inspected.keys()) | (found["rings"][0].keys() - inspected["rings"][0].keys())
    run(bus, Time(), once=True)
    headings = capsys.readouterr().out.splitlines()[2].split()
    assert headings in [line.split() for line in page.splitlines()]


def test_the_picture_loads_nothing() -> None:
    """A reader's browser asks nobody for it; and it shows each state."""
    svg = (ROOT / "docs" / "top.svg").read_text()
    assert not re.search(r"url\((?!#)|href|@import|<script", svg)
    for word in ("flights", "NORMAL", "THROTTLED", "SUSPENDED", "gone", "all"):
        assert re.search(rf"[>;]{word}[<&]", svg), word
