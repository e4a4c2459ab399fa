"""Every code block of README and docs runs, top to bottom, as somebody would who pastes it block by block.

=================  ====================================================================================================
kind               what happens to it
=================  ====================================================================================================
python             runs, in one namespace a page and one directory a page
python NAME        is written to the file NAME there; or, if no later command runs that, is in a source of that name
sh                 its commands run in that directory, as `shell` describes
output             is what the block before it has printed; ``...`` stands for anything
cython             is in a source that the tests compile, verbatim
sql                runs in the database of the page, statement by statement
json, toml         is read
text, console      is shown, and not code
{directive}        is Sphinx's, whose strict build checks it
=================  ====================================================================================================

A page and its commands make buses of fixed names in /dev/shm, so one run at a time goes through a page.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import doctest
import fcntl
import io
import json
import os
import re
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from types import FrameType

import pytest

import nodedb_ring
from nodedb_ring import EventBus
from nodedb_ring.bus import directory as bus_directory
from nodedb_ring.bus import file as bus_file
from tests.absent_libraries import skip_without_imports_of
from tests.unit.log.nats_server import NatsServer, require_nats_server

from .blocks import PAGES, ROOT, Block, blocks_of
from .shell import buses_of, script_of

SHOWN = {"text", "console", "{eval-rst}", "{toctree}", "{literalinclude}", "{image}", "{figure}"}
SOURCES = {
    kind: [path.read_text() for folder in ("tests", "examples") for path in ROOT.joinpath(folder).rglob(names)]
    for kind, names in (("cython", "*.pyx"), ("python", "*.py"))
}
# What pages print that show no output, or only a part of it.
SAYS = {
    "tour.md": (
        "True [1] ['UA1545'] [ True]",
        "sequence 1 to 8)",
        "delivered=100, replayed=92",
        "['UA1545'",
        "'B6725'",
        "op=WriteOp.INSERT, row_id='1', lsn=1",
    )
}
NATS = "nats://127.0.0.1:4222"
POSTGRES = re.compile(r"postgresql://postgres@127\.0\.0\.1/\w+")
WATCHDOG = 120  # seconds; only a hang takes so long


class Reader:
    """Somebody who follows a page, in a directory of their own."""

    def __init__(self, directory: Path, dsn: str) -> None:
        self._directory, self._dsn = directory, dsn
        self._names: dict[str, object] = {"__name__": "__main__"}
        self._written: set[str] = set()
        self._printed = ""
        self.transcript = ""
        commands = directory / ".bin"
        commands.mkdir()
        for name, arguments in (("python3", ""), ("nodedb-ring", " -m nodedb_ring")):
            command = commands / name
            command.write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
            command.chmod(0o755)
        self._environment = os.environ | {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([nodedb_ring.get_include(), os.environ.get("PYTHONPATH", "")]),
        }

    def follow(self, block: Block, later: list[Block]) -> None:
        """Does what a block asks for."""
        match block.kind:
            case "python" if block.argument:
                self._write(block, later)
            case "python":
                self._run_python(block)
            case "sh":
                self._run_commands(block)
            case "output":
                checker, options = doctest.OutputChecker(), doctest.ELLIPSIS
                matches = checker.check_output(block.text, self._printed.rstrip() + "\n", options)
                assert matches, f"{block.place}: shows\n{block.text}\nand what was printed is\n{self._printed}"
            case "cython":
                assert any(block.text in source for source in SOURCES["cython"]), f"{block.place}: in no source"
            case "sql":
                run_sql(self._dsn, block.text)
            case "json":
                json.loads(block.text)
            case "toml":
                tomllib.loads(block.text)
            case "":
                with pytest.raises(SyntaxError):  # a picture
                    ast.parse(block.text)
            case kind:
                assert kind in SHOWN, f"{block.place}: decide in {__name__} what a block of {kind!r} is"

    def _run_python(self, block: Block) -> None:
        code = compile("\n" * (block.line - 1) + block.text, str(block.page), "exec")
        with contextlib.redirect_stdout(io.StringIO()) as printed, watchdog(block):
            exec(code, self._names)
        self._printed = printed.getvalue()
        self.transcript += self._printed

    def _write(self, block: Block, later: list[Block]) -> None:
        if any(block.argument in command.text for command in later if command.kind == "sh"):
            skip_without_imports_of(block.text)
            self._directory.joinpath(block.argument).write_text(block.text)
            self._written.add(block.argument)
        else:
            assert any(block.text in source for source in SOURCES["python"]), f"{block.place}: in no source"

    def _run_commands(self, block: Block) -> None:
        script = script_of(block, self._written)
        with contextlib.ExitStack() as buses:
            for name in set(buses_of(block)) - set(EventBus.list()):
                bus = buses.enter_context(EventBus.create(name, num_cores=2, capacity=1024))
                buses.callback(bus.unlink)
            done = subprocess.run(
                ["bash", "-ec", script],
                cwd=self._directory,
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=WATCHDOG,
                check=False,
            )
        assert done.returncode == 0, f"{block.place}: {script}\n{done.stdout}{done.stderr}"
        self._printed = done.stdout
        self.transcript += self._printed

    def stop(self) -> None:
        """Ends the servers that the page has left running, as a reader's interpreter does when it ends."""
        for made in self._names.values():
            if isinstance(made, socketserver.BaseServer):
                made.shutdown()
                made.server_close()


def run_sql(dsn: str, text: str) -> None:
    import psycopg2

    with contextlib.closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for statement in filter(str.strip, re.sub(r"--.*", "", text).split(";")):
            cursor.execute(statement)


@contextlib.contextmanager
def watchdog(block: Block) -> Generator[None]:
    """Ends code that hangs: every wait of the package answers signals."""

    def give_up(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"{block.place}: no end within {WATCHDOG} s")

    usual = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, WATCHDOG)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)


def is_held(name: str) -> bool:
    """Whether a process has an end of a bus."""
    with EventBus.open(name) as bus:
        return any(pid is not None for ring in bus.stats() for pid in (ring.producer_pid, ring.consumer_pid))


def remove(names: Iterable[str]) -> None:
    for name in names:
        bus_file.remove(name, bus_directory.DEFAULT_DIRECTORY)


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    with open(Path(tempfile.gettempdir(), f"nodedb_ring-pages-{os.getuid()}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def nats_url(tmp_path: Path) -> Iterator[str]:
    """The address of a server that takes the place of the one at `NATS`."""
    require_nats_server()
    with NatsServer(tmp_path / ".nats") as server:
        yield server.url


@pytest.fixture
def postgres_dsn() -> Iterator[str]:
    """The address of a database that takes the place of the one at `POSTGRES`."""
    skip_without_imports_of("import psycopg2")
    from tests.unit.capture.postgres.server import PostgresServer

    with PostgresServer() as server:
        yield f"postgresql://postgres@127.0.0.1:{server.port}/{server.database().name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks, dsn = blocks_of(page), ""
    if any(POSTGRES.search(block.text) for block in blocks):
        dsn = request.getfixturevalue("postgres_dsn")
        blocks = [dataclasses.replace(block, text=POSTGRES.sub(dsn, block.text)) for block in blocks]
    reader = Reader(tmp_path, dsn)
    if any(NATS in block.text for block in blocks):
        url: str = request.getfixturevalue("nats_url")
        blocks = [dataclasses.replace(block, text=block.text.replace(NATS, url)) for block in blocks]
    made = set(re.findall(r'EventBus\.create\(\s*"([\w.-]+)"', "".join(block.text for block in blocks)))
    # A run that was killed in its midst left them.
    remove(name for name in made.intersection(EventBus.list()) if not is_held(name))
    there, threads = set(EventBus.list()), set(threading.enumerate())
    try:
        for number, block in enumerate(blocks):
            reader.follow(block, blocks[number + 1 :])
    finally:
        # What a page that failed has left would fail it the next time, too.
        remove(made.intersection(EventBus.list()) - there)
        reader.stop()
    # A thread that continues would hold the interpreter's lock at some moment in which a later test forks.
    for thread in set(threading.enumerate()) - threads:
        thread.join(WATCHDOG)
        assert not thread.is_alive(), f"{page.name} leaves {thread}"
    for text in SAYS.get(page.name, ()):
        assert text in reader.transcript


def test_the_readme_begins_with_its_commands_and_an_example() -> None:
    """The demo and the tests are its first two commands, which .ci/run executes; the example ends within 25 lines."""
    commands, example = blocks_of(PAGES[0])[:2]
    assert (commands.kind, example.kind) == ("sh", "python")
    demo, tests = commands.text.splitlines()
    assert "nodedb_ring demo" in demo
    assert "pytest" in tests
    assert example.line + example.text.count("\n") <= 25
