"""Which values of a batch are read as rows, and what is done with those that are none."""

from __future__ import annotations

from typing import Final

from ...errors import ArgumentError
from ..schema import STRING_FIELDS, VALUE_FIELDS

__all__ = ["field_number", "goes_on"]

_NUMBERS: Final = {name: len(STRING_FIELDS) + k for k, name in enumerate(VALUE_FIELDS)}


def field_number(name: str) -> int:
    """The number that a column of values has among an event's fields.

    Raises
    ------
    ArgumentError
        There is no such column.
    """
    try:
        return _NUMBERS[name]
    except (KeyError, TypeError):
        raise ArgumentError(f"{name!r}: no column of values; those are {', '.join(VALUE_FIELDS)}") from None


def goes_on(on_error: str) -> bool:
    """Whether malformed row values are passed over.

    Raises
    ------
    ArgumentError
        `on_error` is neither "raise" nor "null".
    """
    if on_error not in ("raise", "null"):
        raise ArgumentError(f"on_error {on_error!r}: must be 'raise' or 'null'")
    return on_error == "null"
