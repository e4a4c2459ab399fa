"""``RowSchema``: which columns row values have, and of which types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, cast, final

from ...errors import RowError, UnknownColumnError
from ._decode import RowPlan
from ._infer import infer_columns
from .field import field_number, goes_on
from .row_types import ROW_TYPES, RowType

if TYPE_CHECKING:
    from .._event_batch import EventBatch

__all__ = ["ROW_TYPES", "RowSchema", "RowType"]

_WIDER: Final[dict[frozenset[RowType], RowType]] = {
    frozenset(("int64", "uint64")): "uint64",
    frozenset(("int64", "float64")): "float64",
    frozenset(("uint64", "float64")): "float64",
}


@final
class RowSchema(Mapping[str, RowType]):
    """The columns of row values: a mapping of name to type, in order. Immutable and hashable.

    Parameters
    ----------
    columns : mapping of str to str, or iterable of such pairs

    Every column is nullable. The types, and what a column of each is in NumPy and in Arrow:

    ============= ============================================== ================== ====================
    type          takes                                          NumPy              Arrow
    ============= ============================================== ================== ====================
    ``bool``      true and false                                 bool               bool
    ``int64``     integers from -2^63 to 2^63 - 1                int64              int64
    ``uint64``    integers from 0 to 2^64 - 1                    uint64             uint64
    ``float64``   floats, and integers that it holds exactly     float64            float64
    ``str``       text                                           object: str        utf8_view
    ``bytes``     binary                                         object: bytes      binary_view
    ``timestamp`` the extension -1, whole microseconds           datetime64[us]     timestamp[us, UTC]
    ``raw``       any value, as the MessagePack that it is       object: bytes      binary_view
    ``null``      nothing but nil: what is inferred of only that object: None       null
    ============= ============================================== ================== ====================

    Two schemas are equal if they have the same columns of the same types in the same order. ``a | b`` has the columns
    of both, those of `a` first; where a column's types differ, it takes what both take: ``float64`` of integers and
    floats, ``uint64`` of ``int64`` and ``uint64``, any other type for ``null``.

    Raises
    ------
    RowError
        A type that is none of these, a name that is empty or repeated or that Arrow cannot hold, two types that do not
        go together.
    TypeError
        `columns` is neither, or a name or type is no str.
    """

    __slots__ = ("__weakref__", "_columns", "_numbers", "_plan")

    _columns: dict[str, RowType]
    _numbers: dict[str, int]
    _plan: RowPlan | None

    def __init__(self, columns: Mapping[str, str] | Iterable[tuple[str, str]]) -> None:
        self._columns = {}
        self._plan = None
        for key, kind in _pairs(columns):
            name = _checked_name(key)
            if name in self._columns:
                raise RowError(f"column {name!r}: stands twice in the schema; name it once", column=name)
            self._columns[name] = _checked_type(name, kind)
        self._numbers = {name: number for number, name in enumerate(self._columns)}

    @classmethod
    def infer(cls, batch: EventBatch, field: str = "new_value", *, on_error: str = "raise") -> RowSchema:
        """The schema of the row values that a batch has: its columns in order of first appearance.

        Integers and floats make ``float64``; integers above int64 make ``uint64`` if none is negative; arrays, maps and
        extensions but the timestamp's make ``raw``; a column of nothing but nil is ``null``. A column is inferred of at
        most 4096.

        Parameters
        ----------
        batch : EventBatch
        field : {"new_value", "old_value"}
        on_error : {"raise", "null"}
            With "null" malformed row values are passed over.

        Raises
        ------
        RowError
            A column has values that no type takes together: it names both events. Or a row value is malformed, or has
            more columns than that.
        ClosedError
            The lease of this batch has ended.
        """
        block = batch._block  # pyright: ignore[reportPrivateUsage]
        return cls(infer_columns(block, field_number(field), goes_on(on_error)))

    def __getitem__(self, name: str) -> RowType:
        try:
            return self._columns[name]
        except KeyError:
            raise unknown_column(name, self) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __or__(self, other: RowSchema) -> RowSchema:
        if not isinstance(other, RowSchema):
            return NotImplemented
        columns = dict(self._columns)
        for name, kind in other._columns.items():
            columns[name] = _widened(name, columns.get(name, kind), kind)
        return RowSchema(columns)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RowSchema):
            return NotImplemented
        return self is other or list(self._columns.items()) == list(other._columns.items())

    def __hash__(self) -> int:
        return hash(tuple(self._columns.items()))

    def _prepared(self) -> RowPlan:
        """The schema made ready for decoding, once; by two threads perhaps twice, which comes to the same."""
        plan = self._plan
        if plan is None:
            plan = RowPlan(tuple(self._columns), tuple(map(ROW_TYPES.index, self._columns.values())))
            self._plan = plan
        return plan

    def __repr__(self) -> str:
        return f"RowSchema({self._columns!r})"

    def __reduce__(self) -> tuple[type[RowSchema], tuple[dict[str, RowType]]]:
        return RowSchema, (self._columns,)


def unknown_column(name: object, schema: RowSchema) -> UnknownColumnError:
    """The error for a column that a schema lacks."""
    known = f"columns are {', '.join(schema)}" if schema else "the schema has no columns"
    return UnknownColumnError(f"{name!r}: no such column; {known}", column=name if isinstance(name, str) else None)


def _pairs(columns: object) -> Iterable[tuple[object, object]]:
    if isinstance(columns, Mapping):
        return cast("Iterable[tuple[object, object]]", columns.items())
    if isinstance(columns, str) or not isinstance(columns, Iterable):
        raise TypeError(f"columns {columns!r}: must be a mapping of names to types, as in {{'carrier': 'str'}}")
    pairs = list(columns)
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"{pair!r}: must be a pair of name and type, as in ('carrier', 'str')")
    return pairs


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"column {name!r}: a name must be a str, not {type(name).__name__}")
    if not name:
        raise RowError("column '': the name is empty; name the column, or leave it out of the schema", column=name)
    if "\0" in name:
        raise RowError(f"column {name!r}: its name has a NUL, which ends a name in Arrow; leave it out", column=name)
    try:
        name.encode()
    except UnicodeEncodeError:
        raise RowError(
            f"column {name!r}: its name has a lone surrogate, which UTF-8 cannot hold; leave it out", column=name
        ) from None
    return name


def _checked_type(name: str, kind: object) -> RowType:
    if not isinstance(kind, str):
        raise TypeError(f"column {name!r}: its type must be a str, not {type(kind).__name__}: {', '.join(ROW_TYPES)}")
    if kind not in ROW_TYPES:
        raise RowError(f"column {name!r}: type {kind!r} is unknown; types are {', '.join(ROW_TYPES)}", column=name)
    return kind


def _widened(name: str, one: RowType, other: RowType) -> RowType:
    """The type that takes what both take."""
    if other in (one, "null"):
        return one
    if one == "null":
        return other
    wider = _WIDER.get(frozenset((one, other)))
    if wider is None:
        raise RowError(
            f"column {name!r}: is {one} in one schema and {other} in the other, and no type takes both; make "
            "them agree, for example with 'raw' in both",
            column=name,
        )
    return wider
