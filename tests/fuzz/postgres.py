"""Fuzzes the decoder of ``pgoutput`` with ``atheris``: ``python -m tests.fuzz.postgres CORPUS [options]``.

`.ci/fuzz` builds the package with clang's coverage and AddressSanitizer, preloads atheris' runtime, and runs this. An
input is messages, a value of each type, or what COPY sends. Whatever it is, it must end in events or in a CaptureError,
as the decoder in plain Python says; and the events can be read as rows. ``corpus_of_postgres.py`` writes the corpus.
"""

from __future__ import annotations

import sys
from typing import Final

import atheris  # pyright: ignore[reportMissingModuleSource]

from tests.unit.capture.postgres.agreeing import agree_on_copy, agree_on_messages, agree_on_value
from tests.unit.capture.postgres.messages import begin, relation
from tests.unit.capture.postgres.oracle_values import ARRAYS, SCALARS

__all__ = ["fuzz"]

TYPES: Final = [*SCALARS, 25, *ARRAYS]
COLUMNS: Final = [("id", 23, True), ("name", 25, False), ("at", 1184, False), ("n", 1231, False)]


def _messages(option: int, data: bytes) -> None:
    """Each behind its length; behind 255 all that is left. Before them a table may be described."""
    messages = [relation(1, "s.t", COLUMNS), relation(2, "s.u", COLUMNS[:2]), begin(5)] if option & 1 else []
    at = 0
    while at < len(data):
        size = data[at] if data[at] != 255 else len(data)
        messages.append(data[at + 1 : at + 1 + size])
        at += 1 + size
    agree_on_messages(messages, (5, option >> 1))


def _value(option: int, data: bytes) -> None:
    keys = option // len(TYPES)
    agree_on_value(TYPES[option % len(TYPES)], data, (keys % 3 > 0, keys % 3 > 1))


def _copy(option: int, data: bytes) -> None:
    """A number of columns, and then rows, in pieces of one size."""
    agree_on_copy(COLUMNS[: option % 5], data, [1 + option // 5] * (len(data) if option < 250 else 0))


def fuzz(data: bytes) -> None:
    """One input: which of the three, and a byte that each takes in its own way."""
    if len(data) >= 2:
        (_messages, _value, _copy)[data[0] % 3](data[1], data[2:])


if __name__ == "__main__":
    atheris.Setup(sys.argv, fuzz)
    atheris.Fuzz()
