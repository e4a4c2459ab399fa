"""The code blocks of a Markdown page."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block; an indented one has no kind."""

    page: Path
    line: int  # of its first line of code, from 1
    kind: str  # the first word behind the fence: python, sh, {toctree}, ...
    argument: str  # what follows it
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    found: list[Block] = []
    for token in MarkdownIt().parse(page.read_text()):
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            kind, _, argument = token.info.strip().partition(" ")
            line = token.map[0] + (2 if token.type == "fence" else 1)
            found.append(Block(page, line, kind, argument.strip(), token.content))
    return found
