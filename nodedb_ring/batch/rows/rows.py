"""``Rows``: the columns inside the values of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final, overload

import numpy as np
import numpy.typing as npt

from ...errors import RowError
from ._decode import RowColumns, decode_rows
from ._export import RowExport
from .field import field_number, goes_on
from .projection import RowProjection
from .schema import RowSchema, unknown_column

if TYPE_CHECKING:
    from .._event_batch import EventBatch
    from ..arrow._schema import Selection

__all__ = ["Rows", "read_rows"]

# As nodedb_row_values.h and nodedb_row_columns.h number them.
_PRESENT: Final = 1
_MALFORMED: Final = 2
_ABSENT: Final = 0
_VALID: Final = 3


@final
class Rows:
    """Row values as columns, one row an event: what ``EventBatch.rows`` returns. Immutable.

    ``rows["dep_delay"]`` is a column as a NumPy array, and ``pl.DataFrame(rows)`` is all of them: libraries that read
    Arrow see a struct of nullable columns, in which text and binary of more than 12 bytes stay where they are, in the
    batch's payload.

    ``rows[2:5]`` shows some of the rows in the same memory. By a list or an array of integers, a mask, or a slice with
    another step, ``rows[...]`` reads those of a packed copy of the batch.

    Thread safety
    -------------
    Immutable: share it freely. It keeps its batch alive. Rows of a lease are readable until the lease ends; arrays that
    were taken before are copies, and stay. While an importer has columns of text or binary, the lease's end is a
    BufferError.
    """

    __slots__ = ("__weakref__", "_batch", "_columns", "_numbers", "_schema", "_source", "_start", "_stop")

    _batch: EventBatch
    _source: tuple[str, str]
    _schema: RowSchema
    _columns: RowColumns
    _numbers: dict[str, int]
    _start: int
    _stop: int

    @classmethod
    def _over(
        cls,
        batch: EventBatch,
        source: tuple[str, str],
        schema: RowSchema,
        columns: RowColumns,
        numbers: dict[str, int],
        *,
        start: int = 0,
    ) -> Rows:
        """Rows whose columns have those numbers in `columns`, and whose events begin at `start` there.

        `source` is the field and ``on_error``.
        """
        rows = cls.__new__(cls)
        rows._batch = batch
        rows._source = source
        rows._schema = schema
        rows._columns = columns
        rows._numbers = numbers
        rows._start = start
        rows._stop = start + len(batch)
        return rows

    @property
    def schema(self) -> RowSchema:
        """The columns and their types."""
        return self._schema

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Which events have a row: a mask of shape (n,), False where the value is None or malformed."""
        return np.equal(self._events(), _PRESENT)

    @property
    def malformed(self) -> npt.NDArray[np.intp]:
        """The positions of events whose value is no row of this schema, in order; only with ``on_error="null"``."""
        return np.flatnonzero(self._events() == _MALFORMED)

    def valid(self, name: str) -> npt.NDArray[np.bool_]:
        """Where a column has a value: a mask of shape (n,).

        Raises
        ------
        UnknownColumnError
            The schema has no such column.
        """
        return np.equal(self._states(name), _VALID)

    def given(self, name: str) -> npt.NDArray[np.bool_]:
        """Where the key of a column stands, be it with null: a mask of shape (n,).

        Raises
        ------
        UnknownColumnError
            The schema has no such column.
        """
        return np.not_equal(self._states(name), _ABSENT)

    def select(self, *names: str) -> Rows:
        """The same rows with some of the columns, in this order. Nothing is decoded again.

        Raises
        ------
        UnknownColumnError
            The schema has no such column.
        RowError
            A name stands there twice.
        """
        schema = RowSchema([(name, self._schema[name]) for name in names])
        numbers = {name: self._numbers[name] for name in names}
        return self._over(self._batch, self._source, schema, self._columns, numbers, start=self._start)

    def with_events(self, *event_columns: str) -> RowProjection:
        """The columns for libraries that read Arrow, with those of the events in front.

        ``pl.DataFrame(rows.with_events("sequence", "op"))`` has the columns ``sequence`` and ``op``, as ``EventBatch``
        exports them, and then those of the rows.

        Raises
        ------
        ValueError
            No such column of events, one that is there twice, or none at all.
        RowError
            The rows have a column of the same name.
        TypeError
            A name that is no str.
        """
        projection = RowProjection(self, event_columns) if event_columns else None
        if projection is None:
            raise ValueError("no columns of events: name some, as in with_events('sequence', 'op')")
        for name in event_columns:
            if name in self._schema:
                others = ", ".join(map(repr, (other for other in self._schema if other != name)))
                raise RowError(
                    f"{name!r}: is a column of the events and of the rows; leave one out, for example by "
                    f"select({others})",
                    column=name,
                )
        return projection

    def plain(self) -> RowProjection:
        """The same columns for Arrow importers that know no view types: text as utf8, binary as binary.

        Nothing of them lies in the batch: their bytes are copied, in one more pass, so what was imported may outlive a
        lease.
        """
        return RowProjection(self, (), plain=True)

    def __arrow_c_schema__(self) -> object:
        """The schema of the rows: the capsule of an ``ArrowSchema``."""
        return self._export().schema()

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        """The rows as Arrow columns: the capsules of an ``ArrowSchema`` and of an ``ArrowArray``, a struct.

        Numbers and views lie where they were decoded, and long text and binary in the payload, all of which the
        importer keeps alive. An event without a row is null in every column.

        Parameters
        ----------
        requested_schema : capsule of an ``ArrowSchema``, optional
            The same columns in the types that the importer would rather have: for text utf8, large_utf8 or utf8_view,
            for binary and raw values binary, large_binary or binary_view. A column that is asked for in any other type
            comes as it does without.

        Raises
        ------
        RowError
            More than 2^31 - 1 bytes of one column, where utf8 or binary is asked for; a `requested_schema` of other
            columns.
        TypeError
            A `requested_schema` that is no such capsule.
        ClosedError
            The lease of the batch has ended.
        """
        return self._export(requested_schema).array()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The same as a stream: the capsule of an ``ArrowArrayStream``.

        It has one array, or as many as utf8 and binary need for more than 2^31 - 1 bytes of one column.
        """
        return self._export(requested_schema).stream()

    def __len__(self) -> int:
        return self._stop - self._start

    @overload
    def __getitem__(self, key: str) -> npt.NDArray[Any]: ...

    @overload
    def __getitem__(self, key: slice | list[int] | list[bool] | npt.NDArray[np.integer[Any] | np.bool_]) -> Rows: ...

    def __getitem__(
        self, key: str | slice | list[int] | list[bool] | npt.NDArray[np.integer[Any] | np.bool_]
    ) -> npt.NDArray[Any] | Rows:
        """A column by its name: a read-only array of shape (n,); or some of the rows, as ``EventBatch`` has them.

        Where there is no value, a column has 0 (False), NaN, NaT, or None where it is of objects; ``valid`` tells.
        Text, binary and raw values are made into objects each time that they are asked for; equal neighbours share one.

        Raises
        ------
        UnknownColumnError
            The schema has no such column.
        ClosedError
            The lease of the batch has ended.
        """
        if isinstance(key, str):
            return self._columns.values(self._number(key), self._start, self._stop)
        if not isinstance(key, slice | list | np.ndarray) or (isinstance(key, np.ndarray) and key.ndim == 0):
            raise TypeError(
                f"rows[{key!r}]: must be the name of a column, a slice, integers or a mask; rows[3:4] is one row, and "
                "batch[3] its event"
            )
        batch = self._batch[key]
        if isinstance(key, slice) and key.indices(len(self))[2] == 1:
            start = self._start + key.indices(len(self))[0]
            return self._over(batch, self._source, self._schema, self._columns, self._numbers, start=start)
        return read_rows(batch, self._source[0], self._schema, self._source[1])

    def __repr__(self) -> str:
        return f"Rows({len(self)} rows of {', '.join(self._schema) or 'no columns'})"

    def _number(self, name: str) -> int:
        try:
            return self._numbers[name]
        except KeyError:
            raise unknown_column(name, self._schema) from None

    def _states(self, name: str) -> npt.NDArray[np.uint8]:
        return self._columns.states(self._number(name), self._start, self._stop)

    def _events(self) -> npt.NDArray[np.uint8]:
        return self._columns.presence(self._start, self._stop)

    def _export(
        self, requested_schema: object | None = None, *, events: Selection | None = None, plain: bool = False
    ) -> RowExport:
        return RowExport(
            self._columns,
            self._batch._block,  # pyright: ignore[reportPrivateUsage]
            tuple(self._numbers.values()),
            self._start,
            self._stop,
            plain=plain,
            events=events,
            requested_schema=requested_schema,
        )


def read_rows(batch: EventBatch, field: str, schema: RowSchema | None, on_error: str) -> Rows:
    """What ``EventBatch.rows`` returns."""
    number = field_number(field)
    passes_over = goes_on(on_error)
    if schema is None:
        schema = RowSchema.infer(batch, field, on_error=on_error)
    elif not isinstance(schema, RowSchema):
        raise TypeError(f"schema {schema!r}: must be a RowSchema, not {type(schema).__name__}: RowSchema({{...}})")
    plan, numbers = schema._prepared(), schema._numbers  # pyright: ignore[reportPrivateUsage]
    columns = decode_rows(batch._block, number, plan, passes_over)  # pyright: ignore[reportPrivateUsage]
    return Rows._over(batch, (field, on_error), schema, columns, numbers)  # pyright: ignore[reportPrivateUsage]
