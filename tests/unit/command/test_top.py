"""``nodedb-ring top`` without a terminal: its tables, what it refuses, and what it needs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from nodedb_ring import EventBus, Lease
from nodedb_ring.command.cli import main
from tests.unit.runners import WITHOUT
from tests.unit.shared_buses import BusMaker, another_users

from .terminal import OnTerminal
from .top_runs import SECONDS, TOP, Time, corrupt, emitting, run, top

ROOT = Path(__file__).parents[3]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that it says when it refuses."""
    assert main(["top", *arguments]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert re.fullmatch(r"nodedb-ring top: .*\n", errors)
    return errors


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
        corrupt(bus)
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
