"""The commands ``list``, ``inspect`` and ``unlink``: what they print, what they refuse, and that they touch nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodedb_ring import ConsumerStats, EventBus, PressureState, ProducerStats, RingStats, WriteEvent, WriteOp
from nodedb_ring.command.cli import main
from nodedb_ring.command.inspection import inspection
from nodedb_ring.errors import CorruptRingError
from tests.unit.builders import fill

NAME = "flights"
FILE = f"nodedb_ring.{NAME}"
SECONDS = 50


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[EventBus]:
    """Two cores of eight slots, in a directory of the test's own."""
    with EventBus.create(NAME, 2, 8, directory=tmp_path) as made:
        yield made


def event(sequence: int) -> WriteEvent:
    return WriteEvent(sequence=sequence, collection="c", op=WriteOp.INSERT, row_id="r", lsn=sequence)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nodedb_ring", *arguments], capture_output=True, text=True, timeout=SECONDS, check=False
    )


def json_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main([*arguments, "--json"]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    document = json.loads(output)
    assert isinstance(document, dict)
    return document


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a refused command says."""
    assert main(arguments) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"nodedb-ring {arguments[0]}: ")
    assert errors.count("\n") == 1
    assert errors.endswith("\n")
    return errors.removeprefix(f"nodedb-ring {arguments[0]}: ").removesuffix("\n")


def files_that_are_no_bus(directory: Path) -> dict[str, Path]:
    """Of each way to be none one, by its name."""
    whole = (directory / FILE).read_bytes()
    contents = {
        "empty": b"",
        "text": b"not a bus\n" * 1000,
        "truncated": whole[: len(whole) // 2],
        "short": whole[:100],
        "magic": bytes(8) + whole[8:],
    }
    files: dict[str, Path] = {}
    for name, content in contents.items():
        files[name] = directory / f"nodedb_ring.{name}"
        files[name].write_bytes(content)
        files[name].chmod(0o600)
    return files


# list


def test_list_names_the_buses_in_order(tmp_path: Path, bus: EventBus, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "another file").touch()
    with EventBus.create("a-second", 1, 8, directory=tmp_path):
        assert main(["list", f"--directory={tmp_path}"]) == 0
        assert capsys.readouterr() == ("a-second\nflights\n", "")
        assert json_of(capsys, "list", f"--directory={tmp_path}") == {
            "buses": ["a-second", "flights"],
            "unfinished": [],
        }


def test_list_of_nothing_is_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", f"--directory={tmp_path}"]) == 0
    assert capsys.readouterr() == ("", "")
    assert json_of(capsys, "list", f"--directory={tmp_path}") == {"buses": [], "unfinished": []}


def left_unfinished(directory: Path, name: str) -> Path:
    """What a maker of version 0.2 left that was killed."""
    path = directory / f".nodedb_ring.{name}.0123456789abcdef"
    path.write_bytes(bytes(1024))
    return path


def test_files_of_killed_processes_are_reported_and_removed(
    tmp_path: Path, bus: EventBus, capsys: pytest.CaptureFixture[str]
) -> None:
    left = [left_unfinished(tmp_path, name) for name in ("flights", "orders")]
    sizes = [os.stat(path).st_blocks * 512 for path in left]
    assert main(["list", f"--directory={tmp_path}"]) == 0
    assert capsys.readouterr() == (
        "flights\n",
        f"nodedb-ring list: 2 unfinished buses, {sum(sizes):,} bytes, left by processes that were killed while creating"
        f" them: nodedb-ring unlink --unfinished --directory {tmp_path} removes them\n",
    )
    assert json_of(capsys, "list", f"--directory={tmp_path}") == {
        "buses": ["flights"],
        "unfinished": [
            {"name": path.name.split(".")[2], "path": str(path), "bytes": size}
            for path, size in zip(left, sizes, strict=True)
        ],
    }
    with left[0].open("rb"):
        # By somebody who makes it at this moment, perhaps.
        assert json_of(capsys, "list", f"--directory={tmp_path}")["unfinished"] != []
    with left[0].open("rb+"):
        assert main(["unlink", "--unfinished", f"--directory={tmp_path}"]) == 0
        assert [path.exists() for path in left] == [True, False]
    assert main(["list", f"--directory={tmp_path}"]) == 0
    assert "1 unfinished bus, " in capsys.readouterr().err
    assert main(["unlink", "--unfinished", f"--directory={tmp_path}"]) == 0
    assert capsys.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    fill(bus.producer(0), 1, 1)


def test_where_buses_are_made_the_directory_needs_no_telling(capsys: pytest.CaptureFixture[str]) -> None:
    left = left_unfinished(Path("/dev/shm"), f"test-{os.getpid()}")
    try:
        assert main(["list"]) == 0
        assert "creating them: nodedb-ring unlink --unfinished removes them" in capsys.readouterr().err
    finally:
        left.unlink()


def test_list_refuses_a_path_that_is_not_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert str(tmp_path / "nowhere") in refusal(capsys, "list", f"--directory={tmp_path / 'nowhere'}")


def test_without_a_directory_it_is_where_buses_are_made(capsys: pytest.CaptureFixture[str]) -> None:
    with EventBus.create(f"test-{os.getpid()}-list", 1, 8) as made:
        try:
            assert main(["list"]) == 0
            assert made.name in capsys.readouterr().out.splitlines()
            assert json_of(capsys, "inspect", made.name)["path"] == f"/dev/shm/nodedb_ring.{made.name}"
            assert main(["unlink", made.name]) == 0
            assert made.name not in EventBus.list()
        finally:
            made.unlink()


# inspect


def test_inspect_shows_a_line_a_core(tmp_path: Path, bus: EventBus, capsys: pytest.CaptureFixture[str]) -> None:
    producer = bus.producer(1)
    consumer = bus.consumer(1)
    for sequence in range(1, 13):
        producer.emit(event(sequence))
    assert len(consumer.drain(2)) == 2
    lease = consumer.lease(1)
    assert main(["inspect", NAME, f"--directory={tmp_path}"]) == 0
    output, errors = capsys.readouterr()
    lease.release()
    assert errors == ""
    head, blank, *table = output.splitlines()
    assert head == f"{tmp_path / FILE}: 2 cores, 8 slots and {bus.arena_bytes:,} bytes of payload per core"
    assert blank == ""
    headings, first, second = ([cell.strip() for cell in line.split("  ") if cell] for line in table)
    assert dict(zip(headings, first, strict=True)) == {
        "core": "0",
        "pressure": "NORMAL",
        "utilization": "0 %",
        "slots in use": "0",
        "emitted": "0",
        "received": "0",
        "held": "0",
        "redelivered": "0",
        "dropped": "0",
        "producer": "-",
        "consumer": "-",
    }
    assert dict(zip(headings, second, strict=True)) == {
        "core": "1",
        "pressure": "THROTTLED",
        "utilization": "75 %",
        "slots in use": "6",
        "emitted": "8",
        "received": "3",
        "held": "1",
        "redelivered": "0",
        "dropped": "4",
        "producer": str(os.getpid()),
        "consumer": str(os.getpid()),
    }
    assert len({len(line) for line in table}) == 1


def test_inspect_gives_all_of_the_accounts_as_json(
    tmp_path: Path, bus: EventBus, capsys: pytest.CaptureFixture[str]
) -> None:
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        for sequence in range(1, 12):
            producer.emit(event(sequence))
        assert len(consumer.drain(5)) == 5
        document = json_of(capsys, "inspect", NAME, f"--directory={tmp_path}")
        stats = bus.stats()
        assert document == {
            "name": NAME,
            "path": str(tmp_path / FILE),
            "num_cores": 2,
            "capacity": 8,
            "arena_bytes": bus.arena_bytes,
            "rings": [dataclasses.asdict(ring) | {"pressure_state": ring.pressure_state.name} for ring in stats],
        }
        assert stats[0].producer == producer.stats()
        assert stats[0].consumer == consumer.stats()
    assert stats[0].producer.dropped_full == 3
    assert stats[0].producer.first_dropped_sequence == 9
    assert stats[1].producer.emitted_sequence is None


def test_the_keys_of_the_json_are_these(tmp_path: Path, bus: EventBus, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs read them: one may come, none may go or be called another name."""
    document = json_of(capsys, "inspect", NAME, f"--directory={tmp_path}")
    assert list(document) == ["name", "path", "num_cores", "capacity", "arena_bytes", "rings"]
    rings = document["rings"]
    assert isinstance(rings, list)
    assert [list(ring) for ring in rings] == 2 * [
        [
            "core_id",
            "pressure_state",
            "utilization",
            "producer",
            "consumer",
            "producer_pid",
            "consumer_pid",
            "producer_is_elsewhere",
            "consumer_is_elsewhere",
            "producer_claims",
            "consumer_claims",
        ]
    ]
    assert list(rings[0]["producer"]) == [
        "emitted",
        "dropped",
        "dropped_full",
        "dropped_disconnected",
        "first_dropped_sequence",
        "last_dropped_sequence",
        "emitted_sequence",
        "normal_transitions",
        "throttle_transitions",
        "suspend_transitions",
        "slots_in_use",
        "bytes_in_use",
        "slots_high_water",
        "bytes_high_water",
        "high_water_mark",
    ]
    assert list(rings[0]["consumer"]) == ["received", "batches", "held", "redelivered"]


def test_inspect_claims_and_changes_nothing(tmp_path: Path, bus: EventBus) -> None:
    producer, consumer = bus.producer(0), bus.consumer(0)
    producer.emit(event(1))
    before = (tmp_path / FILE).read_bytes()
    ran = command("inspect", NAME, f"--directory={tmp_path}")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert (tmp_path / FILE).read_bytes() == before
    assert producer.emit(event(2))
    assert consumer.drain().sequence.tolist() == [1, 2]
    producer.close()
    consumer.close()


def test_a_wide_figure_keeps_the_columns_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bus: EventBus) -> None:
    counts = dict.fromkeys((field.name for field in dataclasses.fields(ProducerStats)), 10**15)
    huge = RingStats(
        core_id=1,
        pressure_state=PressureState.THROTTLED,
        utilization=100,
        producer=ProducerStats(**counts),
        consumer=ConsumerStats(received=10**15, batches=10**15, held=10**15, redelivered=10**15),
        producer_pid=4_194_304,
        consumer_pid=None,
        producer_claims=1,
        consumer_claims=1,
    )
    first, _ = bus.stats()

    def stats(self: EventBus) -> tuple[RingStats, ...]:
        return first, huge

    monkeypatch.setattr("nodedb_ring.bus.event_bus.EventBus.stats", stats)
    *_, headings, small, large = inspection(NAME, tmp_path, as_json=False).splitlines()
    assert len(headings) == len(small) == len(large)
    assert "THROTTLED        100 %  1,000,000,000,000,000  1,000,000,000,000,000  " in large
    assert large.endswith("  4194304         -")


@pytest.mark.parametrize("option", [[], ["--json"]])
@pytest.mark.parametrize("name", ["inspect", "unlink"])
def test_no_such_bus_is_refused(
    name: str, option: list[str], tmp_path: Path, bus: EventBus, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = option if name == "inspect" else []
    assert "arrivals" in refusal(capsys, name, "arrivals", f"--directory={tmp_path}", *arguments)


@pytest.mark.parametrize("name", ["", "../flights", "a/b", ".hidden", "a\nb"])
@pytest.mark.parametrize("which", ["inspect", "unlink"])
def test_invalid_names_are_refused(
    which: str, name: str, tmp_path: Path, bus: EventBus, capsys: pytest.CaptureFixture[str]
) -> None:
    assert repr(name) in refusal(capsys, which, name, f"--directory={tmp_path}")
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


def test_inspect_refuses_a_file_that_is_not_a_bus(
    tmp_path: Path, bus: EventBus, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, file in files_that_are_no_bus(tmp_path).items():
        before = file.read_bytes()
        assert name in refusal(capsys, "inspect", name, f"--directory={tmp_path}")
        assert file.read_bytes() == before


@pytest.mark.parametrize("which", ["inspect", "unlink"])
def test_another_users_bus_is_refused(
    which: str, tmp_path: Path, bus: EventBus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = os.geteuid() + 1
    monkeypatch.setattr("nodedb_ring.bus.file.os.geteuid", lambda: stranger)
    said = refusal(capsys, which, NAME, f"--directory={tmp_path}")
    assert f"belongs to user {os.stat(tmp_path / FILE).st_uid}, and this process runs as {stranger}" in said
    assert (tmp_path / FILE).exists()
    assert json_of(capsys, "list", f"--directory={tmp_path}") == {"buses": [], "unfinished": []}


def test_inspect_refuses_a_block_that_is_not_a_ring(
    tmp_path: Path, bus: EventBus, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (tmp_path / FILE).read_bytes()
    # Behind the page of the bus's own head: the first ring's.
    (tmp_path / FILE).write_bytes(whole[:4096] + bytes(8) + whole[4104:])
    assert "core 0: magic 0x0" in refusal(capsys, "inspect", NAME, f"--directory={tmp_path}")


def test_a_corrupt_bus_is_refused(
    tmp_path: Path, bus: EventBus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stats(self: EventBus) -> tuple[RingStats, ...]:
        raise CorruptRingError("core 0: released 9: is beyond")

    monkeypatch.setattr("nodedb_ring.bus.event_bus.EventBus.stats", stats)
    assert refusal(capsys, "inspect", NAME, f"--directory={tmp_path}") == "core 0: released 9: is beyond"


# unlink


def test_unlink_removes_the_name_and_processes_that_have_it_open_continue(
    tmp_path: Path, bus: EventBus, capsys: pytest.CaptureFixture[str]
) -> None:
    producer, consumer = bus.producer(0), bus.consumer(0)
    assert main(["unlink", NAME, f"--directory={tmp_path}"]) == 0
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert producer.emit(event(1))
    assert consumer.drain().sequence.tolist() == [1]
    assert NAME in refusal(capsys, "unlink", NAME, f"--directory={tmp_path}")


def test_unlink_removes_a_damaged_bus(tmp_path: Path, bus: EventBus, capsys: pytest.CaptureFixture[str]) -> None:
    for name, file in files_that_are_no_bus(tmp_path).items():
        assert main(["unlink", name, f"--directory={tmp_path}"]) == 0
        assert not file.exists()
    assert capsys.readouterr() == ("", "")
    assert EventBus.list(directory=tmp_path) == [NAME]


def test_unlink_refuses_other_kinds_of_files(tmp_path: Path, bus: EventBus, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nodedb_ring.directory").mkdir()
    (tmp_path / "nodedb_ring.link").symlink_to(tmp_path / FILE)
    (tmp_path / "flights").touch()
    before = sorted(tmp_path.iterdir())
    for name in ("directory", "link"):
        assert name in refusal(capsys, "unlink", name, f"--directory={tmp_path}")
    assert sorted(tmp_path.iterdir()) == before
