"""What the values of a column are that is passed to ``encode_rows`` by its name: an array, or objects.

Numbers and stamps of NumPy stay as they are, as Arrow has them. Everything else is taken as a list of objects.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ...errors import RowError
from ..columns import in_order, is_buffer
from ..integers import is_masked_array, is_missing

__all__ = ["NumberColumn", "is_scalar_value", "numbers_or_objects"]

# NumPy's kind and size of a number, and the letter of Arrow's format.
_LETTERS: Final = {
    ("b", 1): "b",
    ("i", 1): "c",
    ("u", 1): "C",
    ("i", 2): "s",
    ("u", 2): "S",
    ("i", 4): "i",
    ("u", 4): "I",
    ("i", 8): "l",
    ("u", 8): "L",
    ("f", 2): "e",
    ("f", 4): "f",
    ("f", 8): "g",
}
_STAMP_UNITS: Final = {"s": "s", "ms": "m", "us": "u", "ns": "n"}
_COARSE_UNITS: Final = ("Y", "M", "W", "D", "h", "m", "s")


class NumberColumn(NamedTuple):
    """Numbers or stamps in the layout of Arrow: bytes of the values, and bits of which are there, or None for all."""

    format: str
    length: int
    values: npt.NDArray[np.uint8]
    valid: npt.NDArray[np.uint8] | None


def is_scalar_value(value: Any) -> bool:
    """Whether it is one value for all rows, and no column."""
    if isinstance(value, str | bytes | np.generic) or is_missing(value):
        return True
    if isinstance(value, np.ndarray):
        return value.ndim == 0
    try:
        iter(value)
    except TypeError:
        return not hasattr(value, "__arrow_c_array__") and not hasattr(value, "__arrow_c_stream__")
    return False


def numbers_or_objects(name: str, value: Any) -> NumberColumn | list[Any]:
    """The values of a column, which exports no Arrow capsules.

    Raises
    ------
    RowError
        A column of a type that MessagePack has not, or with more dimensions than one.
    """
    if isinstance(value, np.ndarray):
        return _array_column(name, value)
    if isinstance(value, list | tuple):
        return list(value)
    in_order(f"column {name!r}", value)
    # What pandas takes for missing: of floats also NaN.
    missing = np.asarray(value.isna(), np.bool_) if hasattr(value, "isna") else None
    if hasattr(value, "__array__") or is_buffer(value):
        array = np.asarray(value)
        if array.dtype.kind in "biufM":
            return _array_column(name, array if missing is None else np.ma.masked_array(array, missing))
    values = list(value.tolist() if hasattr(value, "tolist") else value)
    if missing is not None:
        values = [None if absent else item for item, absent in zip(values, missing.tolist(), strict=True)]
    return values


def _array_column(name: str, array: npt.NDArray[Any]) -> NumberColumn | list[Any]:
    if array.ndim != 1:
        raise RowError(
            f"column {name!r} has the shape {array.shape}: must have one dimension; pass a list of its rows",
            column=name,
        )
    mask = np.ma.getmaskarray(array) if is_masked_array(array) else None
    plain = np.asarray(array)
    if plain.dtype.kind == "M":
        unit, plain = _stamps(name, plain, mask)
        return _numbers(f"ts{unit}:UTC", plain, mask)
    letter = _LETTERS.get((plain.dtype.kind, plain.dtype.itemsize))
    if letter is not None:
        return _numbers(letter, plain, mask)
    if plain.dtype.kind in "SVcmf":
        raise RowError(
            f"column {name!r} is an array of {plain.dtype}: {_why_not(plain.dtype)}, or leave it out", column=name
        )
    values = plain.tolist()
    if mask is not None:
        values = [None if absent else item for item, absent in zip(values, mask.tolist(), strict=True)]
    none = getattr(plain.dtype, "na_object", None)
    return values if none is None else [None if item is none else item for item in values]


def _why_not(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "S":
        return "such an array has no zeros at the end of a value, be they of the value or not; pass a list of bytes"
    remedy = {"m": "cast it to an integer", "f": "cast it to float64", "V": "pass a list of its values"}
    return f"is no type of MessagePack; {remedy.get(dtype.kind, 'pass its parts as columns')}"


def _numbers(letter: str, array: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None) -> NumberColumn:
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    flat = np.packbits(native, bitorder="little") if letter == "b" else native.view(np.uint8)
    valid = None if mask is None or not mask.any() else np.packbits(~mask, bitorder="little")
    return NumberColumn(letter, len(array), flat, valid)


def _stamps(
    name: str, stamps: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None
) -> tuple[str, npt.NDArray[np.int64]]:
    """Stamps as integers, of a unit that Arrow has."""
    unit, count = np.datetime_data(stamps.dtype)
    nat = np.isnat(stamps) if mask is None else np.isnat(stamps) | mask
    known = unit in _STAMP_UNITS and count == 1
    wanted = unit if known else "s" if unit in _COARSE_UNITS else "us"
    if unit == "generic" and not nat.all():
        raise RowError(f"column {name!r} is of datetime64 without a unit; give it one, with astype", column=name)
    if known:
        cast = stamps.astype(f"=M8[{wanted}]", copy=False)
    else:
        there = np.where(nat, np.array("NaT", stamps.dtype), stamps)
        row = _first_changed(there, f"M8[{wanted}]")
        if row is not None:
            raise RowError(
                f"row {row}: column {name!r}: {stamps[row]} is no whole number of microseconds that 64 bits hold; "
                "truncate or round it first",
                position=row,
                column=name,
            )
        cast = there.astype(f"M8[{wanted}]")
    return _STAMP_UNITS[wanted], cast.view(np.int64)


def _first_changed(stamps: npt.NDArray[Any], dtype: str) -> int | None:
    """The first of these stamps, which may be NaT, that another unit does not hold."""
    try:
        with np.errstate(all="ignore"):
            changed = ~np.isnat(stamps) & (stamps.astype(dtype).astype(stamps.dtype) != stamps)
    except OverflowError:
        # NumPy 2.5 and newer do not wrap around, and do not say which it was.
        if len(stamps) == 1:
            return 0
        half = len(stamps) // 2
        before = _first_changed(stamps[:half], dtype)
        if before is not None:
            return before
        after = _first_changed(stamps[half:], dtype)
        return None if after is None else half + after
    return int(np.flatnonzero(changed)[0]) if changed.any() else None
