"""What a column must hold, by ``msgpack.unpackb`` and plain Python."""

from __future__ import annotations

import math
from typing import Any, Final

import msgpack
import numpy as np

from .messages import Row

STAMP_MOST: Final = 2**63 - 1


class Refused(Exception):
    """A value that its column does not take."""


def taken(kind: str, value: Any, message: bytes) -> Any:
    """The value of a column of a type, None for nil.

    Raises
    ------
    Refused
    """
    if value is None:
        return None
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if kind == "raw":
        return message
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "int64" and is_int and -(2**63) <= value < 2**63:
        return value
    if kind == "uint64" and is_int and value >= 0:
        return value
    if kind == "float64" and is_int and int(float(value)) == value:
        return float(value)
    if kind == "float64" and isinstance(value, float):
        return value
    if kind == "str" and isinstance(value, str):
        return value
    if kind == "bytes" and isinstance(value, bytes):
        return value
    if kind == "timestamp" and isinstance(value, msgpack.Timestamp) and value.nanoseconds % 1000 == 0:
        stamp = value.seconds * 1_000_000 + value.nanoseconds // 1000
        if -STAMP_MOST <= stamp <= STAMP_MOST:
            return stamp
    raise Refused(kind)


def column(rows: list[Row | None], name: str, kind: str) -> list[tuple[bool, Any]]:
    """Of each row: whether the key stands there, and its value; of a key that stands twice the last counts.

    Raises
    ------
    Refused
        A value that the column does not take.
    """
    found: list[tuple[bool, Any]] = []
    for row in rows:
        last = [(value, message) for key, value, message in row.pairs if key == name][-1:] if row else []
        found.append((bool(last), taken(kind, *last[0]) if last else None))
    return found


def filler(kind: str) -> Any:
    """What stands in NumPy where there is no value."""
    return {"bool": False, "int64": 0, "uint64": 0, "float64": math.nan, "timestamp": np.datetime64("NaT", "us")}.get(
        kind
    )


def same(one: Any, other: Any) -> bool:
    return bool(one == other) or (one != one and other != other)


def kind_of(values: list[Any]) -> str | None:
    """The type that inference gives to a column of these values; None where they disagree."""
    kinds = set()
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    for value in values:
        if isinstance(value, bool):
            kinds.add("bool")
        elif isinstance(value, int | float):
            kinds.add("number")
        elif isinstance(value, str):
            kinds.add("str")
        elif isinstance(value, bytes):
            kinds.add("bytes")
        elif isinstance(value, msgpack.Timestamp):
            kinds.add("timestamp")
        elif value is not None:
            kinds.add("raw")
    if len(kinds) > 1:
        return None
    if not kinds:
        return "null"
    if kinds != {"number"}:
        return kinds.pop()
    if any(isinstance(value, float) for value in numbers):
        return "float64"
    if max(numbers) < 2**63:
        return "int64"
    return "uint64" if min(numbers) >= 0 else None
