"""Each script of ``examples/`` is run as a user would run it, in an empty directory, and what it prints is read."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nodedb_ring import EventBus
from tests.absent_libraries import needs
from tests.unit.log.nats_server import require_nats_server

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SECONDS = 120


def run(script: str, directory: Path, *, path: str = os.environ.get("PATH", os.defpath)) -> str:
    """What a script prints. Warnings are errors, nothing may be left behind, and a script that hangs is ended."""
    sources = sorted(EXAMPLES.rglob("*"))
    buses = set(EventBus.list())
    # In a session of its own, so that its children end with it.
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-X", "faulthandler", str(EXAMPLES / script)],
        cwd=directory,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "TMPDIR": str(directory), "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            printed, reported = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # faulthandler prints where it hangs
            process.wait()
            end_group(process.pid)
            pytest.fail(f"{script} still runs after {SECONDS} s: {process.communicate()}")
        finally:
            end_group(process.pid)
    assert process.returncode == 0, f"{script} ended with {process.returncode}:\n{printed}\n{reported}"
    # What the ring logs is no trouble; an exception that nobody waited for is.
    assert not [line for line in reported.splitlines() if not re.match(r"core \d+: ", line)], reported
    left = [file.name for file in directory.iterdir()]
    assert not left, f"{script} leaves {left}"
    named = Path(script).stem.replace("_", "-")
    assert not [bus for bus in set(EventBus.list()) - buses if bus.startswith(named)]
    assert sorted(EXAMPLES.rglob("*")) == sources, "an example writes beside itself"
    return printed


def end_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


@needs("polars")
def test_polars_windows(tmp_path: Path) -> None:
    printed = run("polars_windows.py", tmp_path)
    windows, batches, sales = numbers(printed.splitlines()[0])
    # Ten minutes and the two seconds by which times are early, two windows a second; and one sale in the last instant.
    assert (windows, sales) == (2 * 602 + 1, 60_000)
    assert batches >= 60_000 // 1024
    assert re.search(r"shop\s+┆ 2013-01-01 04:59:59 UTC ┆ 47\s+┆ 1979", printed)


@needs("duckdb")
def test_duckdb_last_batches(tmp_path: Path) -> None:
    lines = run("duckdb_last_batches.py", tmp_path).splitlines()
    assert len(lines) >= 50_000 // 1024 // 10
    asked: list[list[tuple[str, int, int, int]]] = [ast.literal_eval(line.partition(": ")[2]) for line in lines]
    for top in asked:
        flights = [count for _, count, _, _ in top]
        assert len(top) == 3
        assert flights == sorted(flights, reverse=True)
        # Eight batches at most, of which two events in three are inserts.
        assert 0 < sum(flights) <= 8 * 1024
    assert max(latest for _, _, latest, _ in asked[-1]) == 49_999
    assert lines[-1].startswith("the last 8 of ")


def test_parquet_by_hour(tmp_path: Path) -> None:
    printed = run("parquet_by_hour.py", tmp_path)
    first, second, hours = numbers(printed)
    # Two chunks of 10,000 or a batch more; then everything.
    assert 20_000 <= first <= 2 * (10_000 + 1024)
    assert (second, hours) == (50_000, 8)


@needs("polars")
def test_several_tables(tmp_path: Path) -> None:
    orders = range(1, 10_001)
    unpaid = sum(n % 97 for n in orders if n % 10 == 0)
    assert numbers(run("several_tables.py", tmp_path)) == [len(orders), len(orders) * 9 // 10, unpaid]


def test_cython_producer(tmp_path: Path) -> None:
    printed = run("cython_producer/run.py", tmp_path)
    assert "60000 readings, their sum is 3746250.0" in printed


def test_numba_rows(tmp_path: Path) -> None:
    assert run("numba_rows.py", tmp_path) == f"60000 events, the sum of their values is {sum_of_steps(60_000)}\n"


def sum_of_steps(events: int) -> int:
    return sum(n * n % 1009 - 504 for n in range(1, events + 1))


def test_web_server(tmp_path: Path) -> None:
    printed = run("web_server.py", tmp_path)
    request, _, answer = printed.partition(": ")
    assert re.fullmatch(r"request \d+", request)
    assert ast.literal_eval(answer) == {"sequence": 50_000, "flights": {"AA": 16_666, "B6": 16_667, "UA": 16_667}}


@pytest.fixture(scope="session")
def nats_server() -> str:
    """The path with nats-server in it, where Debian puts it too."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), str(Path(require_nats_server()).parent)))


def test_dask_cores(tmp_path: Path, nats_server: str) -> None:
    printed = run("dask_cores.py", tmp_path, path=nats_server)
    head, _, rows = printed.partition(": ")
    assert numbers(head) == [80_000, 4, 2]
    # Each core's rows go to the three tables in turn, from another one on.
    assert ast.literal_eval(rows) == {
        table: sum((core_id + n) % 3 == place for core_id in range(4) for n in range(1, 20_001))
        for place, table in enumerate(("airports", "flights", "planes"))
    }


def test_every_example_is_run_and_shown() -> None:
    scripts = {str(file.relative_to(EXAMPLES)) for file in EXAMPLES.rglob("*.py*") if file.parent.name != "__pycache__"}
    page = (ROOT / "docs" / "examples.md").read_text()
    shown = re.findall(r"^```\{literalinclude\} \.\./examples/(\S+)$", page, re.MULTILINE)
    assert sorted(shown) == sorted(scripts)
    tested = set(re.findall(r'run\("(\S+)"', Path(__file__).read_text()))
    assert tested == scripts - {"cython_producer/setup.py", "cython_producer/sensor.pyx"}


@pytest.mark.parametrize("script", sorted(EXAMPLES.rglob("*.py"), key=str), ids=lambda file: file.stem)
def test_an_example_says_what_it_needs_and_how_it_is_run(script: Path) -> None:
    reported = ast.get_docstring(ast.parse(script.read_text())) or ""
    if script.name != "setup.py":
        assert "Needs " in reported
        assert f"``python {script.relative_to(ROOT)}" in reported
