"""The Python of README and docs runs, top to bottom, as somebody would who pastes it block by block."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def blocks(page: Path = README) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def run_blocks(page: Path) -> None:
    names: dict[str, object] = {"__name__": page.stem}
    for block in blocks(page):
        exec(compile(block, str(page), "exec"), names)


def test_every_block_of_the_recovery_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    run_blocks(ROOT / "docs" / "recovery.md")
    printed = capsys.readouterr().out
    assert "sequence 1 to 8)" in printed
    assert "delivered=100, replayed=92" in printed
    assert "position=100, lag=0)" in printed


def test_every_block_runs(capsys: pytest.CaptureFixture[str]) -> None:
    run_blocks(README)
    printed = capsys.readouterr().out
    assert "True [1] ['UA1545'] [ True]" in printed
    assert "op=WriteOp.INSERT, row_id='1', lsn=1" in printed
    assert "'B6725'" in printed


def test_the_commands_come_first_and_the_example_within_25_lines() -> None:
    lines = README.read_text().splitlines()
    commands = [line for line in lines if line.startswith("python3 -m pip install")]
    assert "nodedb_ring demo" in commands[0]
    assert "pytest" in commands[1]
    example = blocks()[0].splitlines()
    assert lines.index(example[-1]) < 25
