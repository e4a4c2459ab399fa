"""What ``nodedb-ring top`` shows of a capture: the file that it writes, one that is left over, and one of anything."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nodedb_ring import EventBus
from nodedb_ring.command.capture_status import CaptureStatus, read_status
from nodedb_ring.command.cli import main

from .test_top_view import BOLD_RED, Drawn
from .top_runs import Time, run


def status_path(bus: EventBus, core_id: int = 0) -> Path:
    return bus.directory / f".nodedb_ring.{bus.name}.{core_id}.capture"


def fields(**other: Any) -> dict[str, Any]:
    """As a capture of this process writes them."""
    values: dict[str, Any] = {
        "core_id": 0,
        "slot": "analytics",
        "pid": os.getpid(),
        "time": time.time(),
        "received": 7,
        "emitted": 5,
        "position": 0x1_0000_00AB,
        "lag_bytes": 4096,
        "lag_seconds": 1.5,
        "connected": True,
        "reconnects": 3,
    }
    return values | other


@pytest.fixture
def write(bus: EventBus) -> Iterator[Callable[..., None]]:
    """Writes the file of core 0."""

    def written(**other: Any) -> None:
        status_path(bus).write_text(json.dumps(fields(**other)))

    yield written
    status_path(bus).unlink(missing_ok=True)


def table(bus: EventBus, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert run(bus, Time(), once=True) == 0
    return capsys.readouterr().out.splitlines()


def document(bus: EventBus, capsys: pytest.CaptureFixture[str]) -> Any:
    assert run(bus, Time(), once=True, json=True) == 0
    return json.loads(capsys.readouterr().out)["captures"]


def test_a_capture_has_a_line_and_an_object(
    bus: EventBus, write: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    with bus.producer(0):
        before = table(bus, capsys)
        write()
        assert table(bus, capsys)[len(before) :] == [
            "core 0: slot analytics at 1/AB, 4,096 bytes and 1.5 s behind, connected, 3 reconnects"
        ]
        [found] = document(bus, capsys)
        assert found | {"time": 0} == fields(time=0, has_gone=False)
        write(connected=False, lag_bytes=None, reconnects=1)
        assert table(bus, capsys)[-1] == (
            "core 0: slot analytics at 1/AB, an unknown number of bytes and 1.5 s behind, not connected, 1 reconnect"
        )
        write(time=time.time() - 1000.0)
        assert "3 reconnects; 10" in table(bus, capsys)[-1]


@pytest.mark.parametrize("is_held", [False, True])
def test_a_file_of_a_process_that_has_gone(
    bus: EventBus, write: Callable[..., None], capsys: pytest.CaptureFixture[str], is_held: bool
) -> None:
    # Another process holds the producer's end by now, or none does.
    write(pid=os.getpid() + 1 if is_held else os.getpid())
    producer = bus.producer(0)
    if not is_held:
        producer.close()
    assert table(bus, capsys)[-1].startswith("core 0: slot analytics at 1/AB; its capture has gone (process ")
    [found] = document(bus, capsys)
    assert found["has_gone"]


def test_it_is_drawn_in_red_where_something_is_wrong(bus: EventBus, write: Callable[..., None]) -> None:
    with bus.producer(0):
        write()
        drawing = Drawn(bus)
        try:
            drawing.sample()
            assert drawing.text(120)[-1].startswith("core 0: slot analytics at 1/AB, 4,096 bytes")
            assert BOLD_RED not in drawing.codes(120)
            write(connected=False)
            drawing.sample()
            assert f"{BOLD_RED}core 0: slot analytics" in drawing.codes(120)
        finally:
            drawing.watch.close()


GARBAGE = [
    *(b"", b"\xff\xfe", b"null", b"[]", b"7", b'{"core_id": 0}', b"[" * 4096, b"{" * 10_000, b"NaN"),
    *(
        json.dumps(fields(**{name: wrong})).encode()
        for name, wrong in (
            *(("pid", "7"), ("pid", True), ("slot", 7), ("position", 1.5), ("position", None), ("core_id", 1)),
            *(("lag_bytes", "many"), ("lag_seconds", None), ("connected", 1), ("time", "now"), ("more", 1)),
        )
    ),
]


# By number: the values have the pid in them, and workers would collect different tests.
@pytest.mark.parametrize("written", GARBAGE, ids=range(len(GARBAGE)))
def test_anything_else_is_passed_over(bus: EventBus, written: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    status_path(bus).write_bytes(written)
    try:
        assert document(bus, capsys) == []
        assert "slot" not in table(bus, capsys)[-1]
    finally:
        status_path(bus).unlink()


def test_what_is_no_file_is_passed_over(bus: EventBus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    makers: list[Callable[[Path], object]] = [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(tmp_path / "there")]
    (tmp_path / "there").write_text(json.dumps(fields()))
    for make in makers:
        make(status_path(bus))
        try:
            assert document(bus, capsys) == []
        finally:
            (status_path(bus).rmdir if status_path(bus).is_dir() else status_path(bus).unlink)()


def test_unlink_removes_it_and_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--directory", str(tmp_path)]
    with (
        EventBus.create("b", 2, 8, directory=tmp_path) as bus,
        EventBus.create("b.1", 1, 8, directory=tmp_path) as other,
    ):
        ours = [status_path(bus, core_id) for core_id in (0, 1)]
        ours.append(tmp_path / f"{ours[0].name}.4711")
        others = status_path(other)
        for path in (*ours, others):
            path.write_text(json.dumps(fields()))
        assert main(["list", *where]) == 0
        assert capsys.readouterr() == ("b\nb.1\n", "")
        assert main(["unlink", "--unfinished", *where]) == 0
        assert all(path.exists() for path in ours)
        assert main(["unlink", "b", *where]) == 0
        assert [path for path in ours if path.exists()] == []
        assert read_status("b.1", tmp_path, 0) == CaptureStatus(**json.loads(others.read_text()))
        assert main(["unlink", "b.1", *where]) == 0
        assert list(tmp_path.iterdir()) == []
