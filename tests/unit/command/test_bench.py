"""The command ``nodedb-ring bench``: what it prints and writes, what it refuses, and what it needs."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nodedb_ring.command.bench.machine import Machine
from nodedb_ring.command.bench.results import LatencyResult, PercentileResult, Results, Spread, ThroughputResult
from nodedb_ring.command.bench.settings import Settings
from nodedb_ring.command.cli import main
from tests.unit.runners import WITHOUT

from .bench_runs import COMMAND, SMALL, WATCHDOG, is_complete, is_png, nothing_is_left

pytestmark = pytest.mark.usefixtures("no_terminal")


# The command, from end to end.


def test_a_run_prints_tables_and_writes_json_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, drawing = tmp_path / "results.json", tmp_path / "bench.png"
    file.write_text("of the last run")
    assert main(["bench", *SMALL, f"--json={file}", f"--plot={drawing}"]) == 0
    output, errors = capsys.readouterr()
    document = json.loads(file.read_text())
    is_complete(document)
    assert document["settings"]["capacities"] == [64, 128]
    assert document["settings"]["batch_sizes"] == [1, 16, 128]

    lines = output.splitlines()
    assert document["machine"]["processor"] in lines[0]
    assert "values of 20 bytes" in lines[1]
    start = lines.index("Throughput, million events/s")
    assert lines[start + 1].split() == ["batch", "size", "capacity", "64", "capacity", "128"]
    assert [line.split()[0] for line in lines[start + 2 : start + 5]] == ["1", "16", "128"]
    assert lines[start + 4].split()[1] == "-"  # 128 at once do not go through a ring of 64
    [median] = [
        one["events_per_second"]["median"] / 1e6
        for one in document["throughput"]
        if (one["capacity"], one["batch_size"]) == (128, 128)
    ]
    assert float(lines[start + 4].split()[2].replace(",", "")) == pytest.approx(median, rel=0.01, abs=0.005)
    assert lines[start + 6] == "Latency one way, µs, at 10,000 events/s"
    assert [line.split()[0] for line in lines[start + 8 :]] == ["spinning", "parked"]

    # No terminal: a line a round, and one at the end.
    assert [line.partition(";")[0] for line in errors.splitlines()] == [f"{n} of 21 measured" for n in (0, 7, 14, 21)]
    assert is_png(drawing.read_bytes())
    nothing_is_left()


def test_json_alone_is_all_of_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *SMALL, "--json"]) == 0
    is_complete(json.loads(capsys.readouterr().out))


def test_on_a_terminal_there_is_a_bar() -> None:
    ran = subprocess.run(
        [*COMMAND, *SMALL],
        capture_output=True,
        text=True,
        timeout=WATCHDOG,
        check=False,
        # What rich takes for a terminal, whatever the output is.
        env=os.environ | {"TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1", "COLUMNS": "120"},
    )
    assert ran.returncode == 0, ran.stderr
    assert "\x1b[" in ran.stderr
    assert "measured; " not in ran.stderr
    # It is drawn ten times a second, and in any case at the end.
    assert "100 %" in ran.stderr
    assert "done" in ran.stderr
    assert "\x1b" not in ran.stdout
    assert ran.stdout.count("million events/s") == 1


def test_help_names_every_option_and_the_exit_codes() -> None:
    ran = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, timeout=WATCHDOG, check=True)
    for option in (
        "--quick",
        "--capacities",
        "--batch-sizes",
        "--value-bytes",
        "--seconds",
        "--json",
        "--plot",
        "exit code: 0",
    ):
        assert option in ran.stdout


def test_every_field_of_the_json_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "benchmarks.md").read_text()
    kinds = (Results, Machine, Settings, ThroughputResult, LatencyResult, PercentileResult, Spread)
    names = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []


# What is refused, before anything is measured.


@pytest.fixture
def never_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*arguments: object) -> None:
        raise AssertionError("it measures")

    monkeypatch.setattr("nodedb_ring.command.bench.command.run", started)


@pytest.mark.usefixtures("never_runs")
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--capacities=64", "--batch-sizes=1,65"], "batch size 65: must be at most 64 events, the largest capacity"),
        (
            ["--capacities=8,64", "--batch-sizes=16"],
            "capacity 8: must be at least 16 events, the smallest batch size",
        ),
        ([f"--capacities={2**33}"], f"capacity {2**33}: must be at most"),
        ([f"--value-bytes={2**32}"], f"arena_bytes {1025 * (2**32 + 16)}: must be"),
        (["--seconds=0.1"], "--seconds 0.1: 5 rounds of 18 kinds of transfer need at least 0.8; give more seconds"),
        (["--plot=bench.picture"], "--plot bench.picture: must end in a picture format: "),
        (["--plot=bench"], "--plot bench: must end in a picture format: "),
    ],
)
def test_invalid_measurements_are_refused(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"nodedb-ring bench: {complaint}")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("--capacities=64,many", "'many': must be a whole number, at least 1"),
        ("--capacities=", "'': must be a whole number, at least 1"),
        ("--batch-sizes=0", "'0': must be a whole number, at least 1"),
        ("--value-bytes=-1", "'-1': must be a whole number, at least 1"),
        ("--seconds=0", "'0': must be a number of seconds, more than 0"),
        ("--seconds=nan", "'nan': must be a number of seconds, more than 0"),
        ("--seconds=long", "'long': must be a number of seconds, more than 0"),
    ],
)
def test_an_invalid_number_is_refused(argument: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["bench", argument])
    assert exit_info.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.usefixtures("never_runs")
@pytest.mark.parametrize("option", ["--plot", "--json"])
def test_a_file_that_cannot_be_written_is_refused(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "nowhere" / "bench.png", tmp_path / "folder.png"):
        assert main(["bench", f"{option}={path}"]) == 2
        errors = capsys.readouterr().err
        assert errors.startswith("nodedb-ring bench: ")
        assert str(path) in errors
        assert errors.count("\n") == 1


def test_rings_that_do_not_fit_are_refused_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    # 35 TB of them: the file system says so before it takes a page.
    assert main(["bench", f"--capacities={2**28}", "--value-bytes=1"]) == 2
    assert "nodedb-ring bench: " in capsys.readouterr().err
    nothing_is_left()


# Without the extras.


def without(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, module, "bench", *arguments],
        capture_output=True,
        text=True,
        timeout=WATCHDOG,
        check=False,
    )


def test_without_matplotlib_a_plot_is_refused_before_it_measures(tmp_path: Path) -> None:
    ran = without("matplotlib", f"--plot={tmp_path / 'bench.png'}")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (
        "nodedb-ring bench: --plot needs matplotlib, which is not installed: pip install 'nodedb_ring[plot]'\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["matplotlib", "rich"])
def test_without_an_extra_all_else_works(module: str) -> None:
    ran = without(module, *SMALL, "--json")
    assert ran.returncode == 0, ran.stderr
    is_complete(json.loads(ran.stdout))
    assert ran.stderr.startswith("0 of 21 measured; round 1 of 3: capacity 64, batches of 1\n")


def test_another_missing_module_is_not_mistaken_for_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**options: object) -> None:
        raise ModuleNotFoundError("No module named 'elsewhere'", name="elsewhere")

    monkeypatch.setattr("nodedb_ring.command.bench.command.run_bench", broken)
    with pytest.raises(ModuleNotFoundError, match="elsewhere"):
        main(["bench"])
