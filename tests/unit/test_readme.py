"""The README's Python runs, top to bottom, as somebody would who pastes it block by block."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)


def test_every_block_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {"__name__": "readme"}
    for block in blocks():
        exec(compile(block, str(README), "exec"), names)
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
