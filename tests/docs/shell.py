"""What the tests make of a page's shell commands: which of them run, and how."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib

from nodedb_ring.command.cli import command_parser

from .blocks import ROOT, Block

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
# Installing, and what a developer runs: .ci/run does, or nobody here can.
OTHERS = {"ruff", "bash", "sphinx"}
# So much of a command as shows that it works.
SHORTENED = {"demo": " --rows 500"}


def script_of(block: Block, written: set[str]) -> str:
    """The commands of a block that run here, as a script; fails for one that nobody has decided about.

    `written` are the files that the page has asked its reader to make.
    """
    lines = [
        " && ".join(filter(None, (run(block, command, written) for command in line.split(" && "))))
        for line in block.text.splitlines()
    ]
    return "\n".join(filter(None, lines))


def run(block: Block, command: str, written: set[str]) -> str | None:
    """The command as it runs here; None for one that does not."""
    words = shlex.split(command, comments=True)
    bare = re.sub(r"\s+#.*", "", command).rstrip()
    match words:
        case []:
            return None
        case ["taskset", "-c", _, *_]:
            return run(block, command.split(maxsplit=3)[3], written)
        case ["nodedb-ring", "bench", *_]:
            command_parser().parse_args(words[1:])  # takes a minute
            return None
        case ["nodedb-ring", "top", *arguments] if "--once" not in arguments:
            command_parser().parse_args(words[1:])  # takes until somebody has seen enough
            return None
        case ["nodedb-ring", name, *_] | ["python3", "-m", "nodedb_ring", name, *_]:
            return bare + SHORTENED.get(name, "")
        case ["python3", script, *_] if script in written:
            return bare
        case ["wait"] | ["sleep", _]:
            return bare
        case ["timeout", *_]:
            # The page kills it; if it ends earlier, it must have failed.
            return f"{bare} >/dev/null || true"
        case ["python3", "-m", "pip", "install", *packages] | ["pip", "install", *packages]:
            for extra in re.findall(r"\[([\w,]+)\]", " ".join(packages)):
                assert set(extra.split(",")) <= set(EXTRAS), f"{block.place}: no such extra: {extra}"
            return None
        case ["python3", "-m", module, *_]:
            assert module in OTHERS or importlib.util.find_spec(module) is not None, (
                f"{block.place}: no module {module}"
            )
            return None
        case _:
            assert words[0] in OTHERS, f"{block.place}: decide in {__name__} whether this runs: {command}"
            return None


def buses_of(block: Block) -> list[str]:
    """The buses that its commands take for there."""
    return sorted(set(re.findall(r"^nodedb-ring (?:inspect|top|unlink) (\w+)", block.text, re.MULTILINE)))
