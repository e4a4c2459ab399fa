"""How a column that is passed in is read: every value exactly, or a ``BatchError`` that says which row it is in.

NumPy converts most things into most others: a mask is dropped, a fraction cut, a float rounded, an overflow wrapped, a
bool counted. So nothing is converted here that would not come out the same. ``docs/columns.md`` has the table.
"""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Iterable, KeysView, Mapping, Set
from fractions import Fraction
from typing import Any, Final, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import BatchError
from ._packing import join_column
from .integers import as_int, is_masked_array, is_missing
from .rows.encoded import EncodedRows
from .schema import (
    EVENT_DTYPE,
    NO_TIME,
    NULL_LENGTH,
    REQUIRED_FIELDS,
    STRING_FIELDS,
    TIME_FIELDS,
    VALUE_FIELDS,
    EventSource,
    WriteOp,
)

__all__ = ["VariableColumn", "fixed_column", "in_order", "is_buffer", "plain_array", "plain_bytes", "variable_column"]

Bytes: TypeAlias = bytes | bytearray | memoryview | npt.NDArray[np.uint8]
Items: TypeAlias = list[Any] | npt.NDArray[Any]

_MOST_MS: Final = 2**63 - 1
# Milliseconds per tick of each unit of datetime64; years and months are missing, because their length varies.
_UNITS: Final = {
    "W": Fraction(604_800_000),
    "D": Fraction(86_400_000),
    "h": Fraction(3_600_000),
    "m": Fraction(60_000),
    "s": Fraction(1000),
    "ms": Fraction(1),
    "us": Fraction(1, 10**3),
    "ns": Fraction(1, 10**6),
    "ps": Fraction(1, 10**9),
    "fs": Fraction(1, 10**12),
    "as": Fraction(1, 10**15),
}
# Years that no time in milliseconds can hold, but few enough that NumPy converts them to days without an overflow.
_MOST_YEARS: Final = 300_000_000
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_INT64: Final = np.dtype(np.int64)
_NOT_WHOLE: Final = "is not a whole number of milliseconds; truncate or round it to ms first"


class VariableColumn:
    """A variable-length column as data and where each row's bytes lie in it; one row for a scalar."""

    __slots__ = ("data", "is_scalar", "lengths", "starts")

    data: memoryview
    starts: npt.NDArray[Any]
    lengths: npt.NDArray[Any]
    is_scalar: bool

    def __init__(
        self, data: memoryview, starts: npt.NDArray[Any], lengths: npt.NDArray[Any], is_scalar: bool = False
    ) -> None:
        self.data = data
        self.starts = starts
        self.lengths = lengths
        self.is_scalar = is_scalar


def fixed_column(name: str, value: Any, *, check_members: bool = True) -> npt.NDArray[Any]:
    """A fixed column of ``EVENT_DTYPE``, of its own dtype: shape (n,), or () for a scalar.

    Without `check_members` an ``op`` or ``source`` is any number that its column holds.

    Raises
    ------
    BatchError
        A value that the column cannot hold exactly.
    """
    items, missing = _items(name, value)
    if name in TIME_FIELDS:
        return _times(name, items, missing)
    column = _integers(name, items, missing, EVENT_DTYPE[name])
    if check_members and name == "op":
        _check_members(name, column, WriteOp)
    elif check_members and name == "source":
        _check_members(name, column, EventSource)
    return column


def variable_column(name: str, value: Any) -> VariableColumn:
    """A variable-length column, of which a scalar is stored once.

    Raises
    ------
    BatchError
        A value that the column cannot hold exactly.
    """
    is_text = name in STRING_FIELDS
    scalar = str if is_text else bytes
    if _is_pair(value):
        column = _offset_column(name, *value)
        if isinstance(value, EncodedRows) and name in VALUE_FIELDS:
            # A row that is there has a byte at least.
            column.lengths[column.lengths == 0] = NULL_LENGTH
        return column
    items, missing = ([value], None) if isinstance(value, scalar) else _items(name, value)
    is_scalar = isinstance(value, scalar) or _is_lone(items)
    values = _strings(name, items, missing, scalar)
    if is_scalar and not isinstance(values[0], scalar | None):
        raise BatchError(f"{name} of {type(values[0]).__name__}: must be {scalar.__name__}, or a column of it")
    if name in REQUIRED_FIELDS:
        for row, item in enumerate(values):
            if item is None:
                where = "" if is_scalar else f"row {row}: "
                raise BatchError(f"{where}{name} is None: must be a string; use an empty one if there is no value")
    data, lengths = join_column(values, is_text, name, is_scalar)
    sizes = np.where(lengths == NULL_LENGTH, 0, lengths.astype(np.int64))
    return VariableColumn(memoryview(data), np.cumsum(sizes) - sizes, lengths, is_scalar)


def plain_array(what: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array without its mask.

    Raises
    ------
    BatchError
        Something of it is masked.
    """
    if not is_masked_array(array):
        return array
    mask: npt.NDArray[Any] = np.ma.getmaskarray(array)
    if mask.dtype.names is not None:
        for name in mask.dtype.names:
            if mask[name].any():
                raise BatchError(f"row {_first(mask[name])}: {name} of {what} is masked: must have a value")
    elif mask.any():
        raise BatchError(f"row {_first(mask)}: {what} is masked: must have a value")
    return np.asarray(array)


def plain_bytes(what: str, data: Bytes) -> npt.NDArray[np.uint8]:
    """Bytes as a contiguous array of uint8, shape (m,).

    Raises
    ------
    BatchError
        Something else.
    """
    if isinstance(data, np.ndarray):
        if data.dtype != np.uint8 or data.ndim != 1:
            raise BatchError(f"{what} of {data.dtype}, shape {data.shape}: must be bytes or one row of uint8")
        return np.ascontiguousarray(plain_array(what, data))
    try:
        return np.frombuffer(data, np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        raise BatchError(f"{what} of {type(data).__name__}: must be bytes or an array of uint8: {error}") from None


def in_order(what: str, values: Iterable[Any]) -> Iterable[Any]:
    """The same, unless their order is that of a hash.

    Raises
    ------
    BatchError
        A set, which has no order, or a mapping, of which only the keys would be taken.
    """
    if type(values) is list or type(values) is tuple:
        # Most are, and the checks below are of abstract classes, which takes longer than a batch of one.
        return values
    if isinstance(values, Mapping):
        raise BatchError(f"{what} of {type(values).__name__}: rows have no keys; pass a list of its values")
    if isinstance(values, Set) and not isinstance(values, KeysView):
        raise BatchError(
            f"{what} of {type(values).__name__}: has no order, but rows have one; pass a list, for example sorted(...)"
        )
    return values


# ---- what was passed --------------------------------------------------------------------------------------------


def _items(name: str, value: Any) -> tuple[Items, npt.NDArray[np.bool_] | None]:
    """The values of a column in order: an array, of shape () for a scalar, or a list; and where there is none."""
    if isinstance(value, str | bytes):
        return _scalar(value), None
    if is_masked_array(value):
        mask = np.ma.getmaskarray(value)
        return _one_dimension(name, np.asarray(value)), mask if mask.dtype == np.bool_ else None
    if isinstance(value, np.ndarray | np.generic):
        return _one_dimension(name, np.asarray(value)), None
    if isinstance(value, list | tuple):
        return list(value), None
    if not _is_iterable(value):
        return _scalar(value), None
    in_order(name, value)
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and len(shape) != 1:
        raise BatchError(f"{name} of shape {shape}: must have one dimension, or be a scalar")
    array = _numbers_of(value) if _is_array(value) else None
    # What pandas takes for missing: in a column of strings also NaN.
    missing = np.asarray(value.isna(), np.bool_) if hasattr(value, "isna") else None
    return (_list_of(value) if array is None else array), missing


def _is_iterable(value: Any) -> bool:
    try:
        iter(value)
    except TypeError:
        return False
    return True


def _one_dimension(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.ndim > 1:
        raise BatchError(f"{name} of shape {array.shape}: must have one dimension, or be a scalar")
    return array


def _is_array(value: Any) -> bool:
    """Whether NumPy is given an array, and does not make one of values that it would convert to one another."""
    return hasattr(value, "__array__") or isinstance(value, range) or is_buffer(value)


def is_buffer(value: Any) -> bool:
    """Whether it exports its memory, as arrays do."""
    try:
        memoryview(value)
    except TypeError:
        return False
    return True


def _numbers_of(value: Any) -> npt.NDArray[Any] | None:
    """Another library's column, or a buffer, as integers or times, if it is one of those and none is missing.

    Where some are, or there is no such type, NumPy is given floats, and a number may have become another.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = np.asarray(value)
    except Exception:
        return None
    return array if array.ndim == 1 and array.dtype.kind in "iuM" else None


def _list_of(value: Any) -> list[Any]:
    for method in ("to_pylist", "to_list", "tolist"):
        if hasattr(value, method):
            return list(getattr(value, method)())
    return list(value)


def _scalar(value: Any) -> npt.NDArray[Any]:
    scalar = np.empty((), object)
    scalar[()] = value
    return scalar


def _objects(values: list[Any]) -> npt.NDArray[np.object_]:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _first(mask: npt.NDArray[np.bool_]) -> int:
    return int(np.flatnonzero(mask)[0])


def _at(items: Items, row: int) -> str:
    """How a row is named in front of a complaint; a scalar has none."""
    return "" if isinstance(items, np.ndarray) and items.ndim == 0 else f"row {row}: "


# ---- fixed columns ----------------------------------------------------------------------------------------------


def _integers(name: str, items: Items, missing: npt.NDArray[np.bool_] | None, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if isinstance(items, np.ndarray) and items.dtype.kind != "O":
        if items.dtype.kind in "iu" and (missing is None or not missing.any()):
            return _in_range(name, items, dtype)
        if items.size == 0:
            return np.empty(0, dtype)
        if items.dtype.kind not in "iu" and (missing is None or not missing.ravel()[0]):
            _refuse(name, items, 0)
    values = items.ravel().tolist() if isinstance(items, np.ndarray) else items
    if missing is None and isinstance(items, list):
        array = _array_of_ints(values)
        if array is not None:
            return _in_range(name, array, dtype)
    numbers: list[int] = []
    for row, (item, absent) in enumerate(zip(values, _absent(values, missing), strict=True)):
        if absent or (is_missing(item) and not _is_lone(items)):
            raise BatchError(f"{_at(items, row)}{name} is {'masked or missing' if absent else item}: must have a value")
        try:
            numbers.append(as_int(item))
        except TypeError:
            _refuse(name, items, row)
    exact = _objects(numbers)
    return _in_range(name, exact.reshape(items.shape) if isinstance(items, np.ndarray) else exact, dtype)


def _absent(values: list[Any], missing: npt.NDArray[np.bool_] | None) -> list[bool]:
    return [False] * len(values) if missing is None else missing.ravel().tolist()


def _is_lone(items: Items) -> bool:
    return isinstance(items, np.ndarray) and items.ndim == 0


def _array_of_ints(values: list[Any]) -> npt.NDArray[Any] | None:
    """A list of nothing but integers as an array, if there is one type that holds them all."""
    for kind in set(map(type, values)):
        if issubclass(kind, bool | np.timedelta64) or not issubclass(kind, int | np.integer):
            return None
    array = np.array(values) if values else np.empty(0, np.int64)
    return array if array.dtype.kind in "iu" else None


def _in_range(name: str, array: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Integers, or objects that are ints, as a column of `dtype`."""
    if array.size == 0 or (array.dtype.kind != "O" and np.can_cast(array.dtype, dtype)):
        return array.astype(dtype)
    bounds = np.iinfo(dtype)
    if not bounds.min <= int(array.min()) <= int(array.max()) <= bounds.max:
        for row, number in enumerate(array.ravel().tolist()):
            if not bounds.min <= number <= bounds.max:
                raise BatchError(f"{_at(array, row)}{name} {number}: must be in {bounds.min} .. {bounds.max}")
    return array.astype(dtype)


def _refuse(name: str, items: Items, row: int) -> NoReturn:
    """For a value that is not an integer, nor a time where that would do."""
    array = items if isinstance(items, np.ndarray) else _dtype_of(items)
    item = (items.ravel() if isinstance(items, np.ndarray) else items)[row]
    wanted = "a time or an integer, of milliseconds" if name in TIME_FIELDS else "an integer"
    shown = item.item() if isinstance(item, np.generic) else item
    raise BatchError(
        f"{_at(items, row)}{name} {shown!r} of {array.dtype}: must be {wanted}, and {type(item).__name__} is none; "
        "convert the column first"
    )


def _dtype_of(items: list[Any]) -> npt.NDArray[Any]:
    """What NumPy would make of a list, for a message."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(items)
    except Exception:
        return np.empty(0, object)


def _check_members(name: str, column: npt.NDArray[Any], members: type[WriteOp] | type[EventSource]) -> None:
    known = np.array(list(members))
    stray = ~np.isin(column, known)
    if stray.any():
        row = _first(np.atleast_1d(stray))
        value = int(np.atleast_1d(column)[row])
        listed = ", ".join(f"{int(member)} ({member})" for member in members)
        raise BatchError(f"{_at(column, row)}{name} {value}: unknown; known are {listed}")


# ---- times ------------------------------------------------------------------------------------------------------


def _times(name: str, items: Items, missing: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.int64]:
    if isinstance(items, np.ndarray) and items.dtype.kind != "O":
        if missing is not None and missing.all():
            return np.full(items.shape, NO_TIME)
        if items.dtype.kind == "M":
            known = items if missing is None else np.where(missing, np.array("NaT", items.dtype), items)
            return _milliseconds(name, known, items, 0)
        if items.dtype.kind in "iu":
            # What lies under a mask is nobody's number.
            column = _in_range(
                name, items if missing is None else np.where(missing, items.dtype.type(0), items), _INT64
            )
            return column if missing is None else np.where(missing, np.int64(NO_TIME), column)
        if items.size == 0:
            return np.empty(0, np.int64)
        _refuse(name, items, 0 if missing is None else _first(~missing))
    values = items.ravel().tolist() if isinstance(items, np.ndarray) else items
    times = [
        NO_TIME if absent or is_missing(item) else _time(name, items, row, item)
        for row, (item, absent) in enumerate(zip(values, _absent(values, missing), strict=True))
    ]
    exact = _objects(times)
    return _in_range(name, exact.reshape(items.shape) if isinstance(items, np.ndarray) else exact, _INT64)


def _time(name: str, items: Items, row: int, item: Any) -> int:
    """The milliseconds of one value that is there."""
    if hasattr(item, "to_datetime64"):
        # A Timestamp of pandas: as a datetime it would lose its nanoseconds.
        item = item.to_datetime64()
    if isinstance(item, np.datetime64):
        return int(_milliseconds(name, np.asarray(item), items, row))
    if isinstance(item, datetime.datetime):
        # Without a zone it is UTC, as NumPy and Arrow take it.
        since = (item if item.tzinfo is not None else item.replace(tzinfo=datetime.UTC)) - _EPOCH
        milliseconds, rest = divmod(since, datetime.timedelta(milliseconds=1))
        if rest:
            raise BatchError(f"{_at(items, row)}{name} {item}: {_NOT_WHOLE}")
        return milliseconds
    if isinstance(item, datetime.date):
        return (item.toordinal() - _EPOCH.toordinal()) * 86_400_000
    try:
        return as_int(item)
    except TypeError:
        _refuse(name, items, row)


def _milliseconds(name: str, timestamps: npt.NDArray[Any], items: Items, first: int) -> npt.NDArray[np.int64]:
    """datetime64 of any unit as milliseconds, NaT as None. The first of them is row `first` of `items`."""
    unit, count = np.datetime_data(timestamps.dtype)
    nat = np.isnat(timestamps)
    ticks = np.where(nat, 0, timestamps.astype(timestamps.dtype.newbyteorder("=")).view(np.int64))
    whole, far = ticks, np.zeros_like(nat)
    if unit in ("Y", "M"):
        far = np.abs(ticks) > _MOST_YEARS * (12 if unit == "M" else 1) // count
        days = (np.where(far, 0, ticks) * count).astype(f"datetime64[{unit}]").astype("datetime64[D]")
        whole, scale = days.view(np.int64), _UNITS["D"]
    elif unit in _UNITS:
        scale = _UNITS[unit] * count
    elif not nat.all():
        raise BatchError(f"{_at(items, first + _first(~nat))}{name} {int(ticks[~nat][0])}: a datetime64 without a unit")
    else:
        scale = Fraction(1)
    cut = whole % scale.denominator != 0
    whole = whole // scale.denominator
    far |= np.abs(whole) > _MOST_MS // scale.numerator
    if cut.any() or far.any():
        row = _first(cut | far)
        shown = f"{int(ticks.ravel()[row])} {'' if count == 1 else count}{unit}"
        wrong = "does not fit 64 bits of ms" if far.ravel()[row] else _NOT_WHOLE
        raise BatchError(f"{_at(items, first + row)}{name} {shown}: {wrong}")
    return np.where(nat, NO_TIME, whole * scale.numerator)


# ---- variable columns -------------------------------------------------------------------------------------------


def _strings(name: str, items: Items, missing: npt.NDArray[np.bool_] | None, scalar: type[str | bytes]) -> list[Any]:
    """The values of a column of str or bytes, unchecked but for what is missing."""
    if isinstance(items, list):
        values = items
    else:
        if items.dtype.kind == "S" and scalar is bytes:
            raise BatchError(
                f"{name} of {items.dtype}: such an array has no zeros at the end of a value, be they of the value or"
                " not; pass a list of bytes, an array of objects, or (data, offsets)"
            )
        none = getattr(items.dtype, "na_object", None)
        # Not all times are Python's: NumPy 2.5 and newer raise for those.
        flat = items.ravel()
        values = list(flat) if items.dtype.kind in "mM" else flat.tolist()
        values = [None if value is none else value for value in values]
    if missing is not None:
        values = [None if absent else value for value, absent in zip(values, _absent(values, missing), strict=True)]
    return [value if isinstance(value, scalar) or not is_missing(value) else None for value in values]


def _is_pair(value: Any) -> bool:
    """Whether it is data and offsets, and not two values."""
    if not isinstance(value, tuple) or len(value) != 2 or isinstance(value[1], str | bytes) or is_missing(value[1]):
        return False
    return isinstance(value[0], np.ndarray) or is_buffer(value[0])


def _offset_column(name: str, data: Any, offsets: Any) -> VariableColumn:
    flat = plain_bytes(f"{name} data", data)
    what = f"{name} offset"
    items, missing = _items(what, offsets)
    ends = _integers(what, items, missing, _INT64)
    if ends.ndim != 1 or not ends.size:
        raise BatchError(f"{name} offsets of shape {ends.shape}: must be n + 1 integers")
    stray = (ends[1:] < ends[:-1]) | (ends[:-1] < 0) | (ends[1:] > len(flat))
    if stray.any() or not 0 <= ends[0] <= len(flat):
        row = _first(stray) if stray.any() else 0
        raise BatchError(
            f"row {row}: {name} offsets from {ends[0]} to {ends[-1]}: must not fall, and must lie in data of"
            f" {len(flat)} bytes; of this row they are {ends[row : row + 2].tolist()}"
        )
    lengths = np.diff(ends)
    if (lengths >= NULL_LENGTH).any():
        row = _first(lengths >= NULL_LENGTH)
        raise BatchError(f"row {row}: {name} of {lengths[row]} bytes: at most {NULL_LENGTH - 1} fit")
    return VariableColumn(flat.data, ends[:-1], lengths.astype(np.uint32))
