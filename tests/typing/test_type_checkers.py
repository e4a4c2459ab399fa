"""The types of the public names, as type checkers see them outside of the repository, beside the built modules."""

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
import numpy.typing as npt
import pytest

import nodedb_ring
from nodedb_ring import WriteOp
from nodedb_ring.batch.members import MemberArray

HERE = Path(__file__).parent
EXAMPLES = HERE / "public_names.py"
MISUSE = HERE / "misuse.py"


def conforms(value: Any, kind: Any) -> bool:
    """Whether a value is of a type as ``assert_type`` is given it."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if hasattr(origin, "__value__"):
        # An alias of a type statement, as NDArray is since NumPy 2.5.
        return conforms(value, origin.__value__[args])
    if origin in (Union, types.UnionType):
        return any(conforms(value, option) for option in args)
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in args)
    if kind in (None, type(None)):
        return value is None
    if kind is MemberArray:
        # What the annotation adds for type checkers; the column is a plain array.
        return conforms(value, npt.NDArray[np.uint8])
    if kind in (int, str, bytes):
        # True is an int, and a member of an enumeration too: where they are meant, the example says so.
        return type(value) is kind
    if not isinstance(value, origin or kind):
        return False
    if origin is np.ndarray:
        return conforms(value.dtype, args[1])
    if origin is np.dtype:
        return args[0] is Any or issubclass(value.type, get_origin(args[0]) or args[0])
    if origin is list:
        return all(conforms(item, args[0]) for item in value)
    if origin is dict:
        return all(conforms(key, args[0]) and conforms(item, args[1]) for key, item in value.items())
    if origin is tuple:
        if args[1:] == (...,):
            return all(conforms(item, args[0]) for item in value)
        return len(value) == len(args) and all(map(conforms, value, args))
    return True


@pytest.mark.parametrize(
    ("value", "kind", "fits"),
    [
        (1, int, True),
        (True, int, False),
        (WriteOp.INSERT, int, False),
        (WriteOp.INSERT, WriteOp, True),
        (None, int | None, True),
        ("1", int | None, False),
        ([1, "1"], list[int], False),
        ((1, "1"), tuple[int, str], True),
        ((1, 2, 3), tuple[int, ...], True),
        ((1, "1"), tuple[int, ...], False),
        (np.zeros(1, np.uint8), npt.NDArray[np.uint8], True),
        (np.zeros(1, np.uint8), npt.NDArray[np.uint32], False),
        (np.zeros(1, np.uint8), npt.NDArray[np.integer[Any]], True),
        (np.zeros(1, np.uint8), npt.NDArray[Any], True),
        ([0], npt.NDArray[Any], False),
        (np.zeros(1, object), npt.NDArray[np.object_], True),
        (65536, Literal[65536], True),
        (65535, Literal[65536], False),
    ],
)
def test_conforms_tells_types_apart(value: object, kind: object, fits: bool) -> None:
    assert conforms(value, kind) is fits


def checks() -> list[str]:
    return [
        node.name
        for node in ast.parse(EXAMPLES.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
    ]


@pytest.mark.parametrize("name", checks())
def test_python_agrees_with_the_types(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asserted = 0

    def assert_type(value: object, kind: object) -> object:
        nonlocal asserted
        asserted += 1
        assert conforms(value, kind), f"{value!r} is a {type(value).__name__}, and not {kind}"
        return value

    monkeypatch.setattr(typing, "assert_type", assert_type)
    spec = importlib.util.spec_from_file_location("public_names", EXAMPLES)
    assert spec is not None
    assert spec.loader is not None
    examples = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(examples)
    check: Callable[[], None] = getattr(examples, name)
    check()
    assert asserted > 0


def test_the_examples_use_every_public_name() -> None:
    functions = [node for node in ast.parse(EXAMPLES.read_text()).body if isinstance(node, ast.FunctionDef)]
    used = {name.id for function in functions for name in ast.walk(function) if isinstance(name, ast.Name)}
    assert set(nodedb_ring.__all__) - used == set()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory outside of the repository that holds the examples alone."""
    for source in (EXAMPLES, MISUSE):
        shutil.copy(source, tmp_path)
    return tmp_path


def environment(variable: str) -> dict[str, str]:
    """Shows a checker where the package under test is: for an installed one, by the Python that it finds first."""
    root = nodedb_ring.get_include()
    found = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    return found if "site-packages" in Path(root).parts else found | {variable: root}


def run_mypy(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mypy", "--strict", "--warn-unreachable", "--follow-imports=silent"]
    return subprocess.run(
        [*command, "--cache-dir", str(directory / "cache"), EXAMPLES.name, MISUSE.name],
        cwd=directory,
        env=environment("MYPYPATH"),
        capture_output=True,
        text=True,
        check=False,
    )


def run_pyright(directory: Path) -> subprocess.CompletedProcess[str]:
    settings = {
        "include": [EXAMPLES.name, MISUSE.name],
        "typeCheckingMode": "strict",
        # Each checker obeys its own comments, so that each has to give its own errors.
        "enableTypeIgnoreComments": False,
        "reportUnnecessaryTypeIgnoreComment": True,
    }
    (directory / "pyrightconfig.json").write_text(json.dumps(settings))
    return subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable],
        cwd=directory,
        env=environment("PYTHONPATH"),
        capture_output=True,
        text=True,
        check=False,
    )


CHECKERS = pytest.mark.parametrize("run", [run_mypy, run_pyright])
Run = Callable[[Path], subprocess.CompletedProcess[str]]


@CHECKERS
def test_a_checker_outside_agrees_with_all_but_what_is_wrong(run: Run, outside: Path) -> None:
    """Two things are made wrong, to show that the types do come from the package: these it sees, and nothing else."""
    with (outside / EXAMPLES.name).open("a") as examples:
        examples.write("\n\nassert_type(some_event().sequence, str)\n")
    with (outside / MISUSE.name).open("a") as misuse:
        misuse.write("\n\nWriteOp(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]\n")
    last = {path.name: len(path.read_text().splitlines()) for path in (outside / EXAMPLES.name, outside / MISUSE.name)}
    checked = run(outside)
    complaints = re.findall(r"(\w+\.py):(\d+):.*\berror\b", checked.stdout)
    assert {name: int(line) for name, line in complaints} == last, checked.stdout + checked.stderr
    assert len(complaints) == 2, checked.stdout


def test_pyright_finds_every_public_type_known(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "pyright", "--ignoreexternal", "--outputjson", "--verifytypes", "nodedb_ring"],
        cwd=tmp_path,
        env=environment("PYTHONPATH"),
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(found.stdout)
    completeness = report["typeCompleteness"]
    incomplete = [symbol["name"] for symbol in completeness["symbols"] if not symbol["isTypeKnown"]]
    assert completeness["exportedSymbolCounts"]["withKnownType"] > 100, found.stdout[:2000]
    assert incomplete == []
    assert completeness["completenessScore"] == 1
