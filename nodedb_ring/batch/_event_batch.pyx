# cython: language_level=3, auto_pickle=False, autotestdict=False
# cython: freethreading_compatible=True
"""``EventBatch``: write events as columns over rows and payload."""

import operator

cimport cython

from ._row_block cimport root_of

import numpy as np

from ..errors import BatchError
from ._packing import block_of_events, gather, pack
from ._row_checks import checked_copy
from ._split import split
from .arrow._export import export_array
from .arrow._export_stream import export_stream
from .arrow._import import import_block
from .arrow._schema import EVERY_COLUMN, export_schema
from .columns import fixed_column, in_order, plain_array, plain_bytes, variable_column
from .indexing import chosen_rows
from .integers import as_int
from .projection import Projection
from .rows.rows import read_rows
from .schema import (
    EVENT_DTYPE,
    FIXED_FIELDS,
    NO_TIME,
    NULL_LENGTH,
    REQUIRED_FIELDS,
    STRING_FIELDS,
    TIME_FIELDS,
    VALUE_FIELDS,
    WriteOp,
)

__all__ = ["EventBatch"]

cdef tuple _VARIABLE = STRING_FIELDS + VALUE_FIELDS


cdef object _array_of(EventBatch batch, bint is_rows):
    """The rows or the payload: the array that is kept, or a new one."""
    cdef object array
    with cython.critical_section(batch):
        array = batch._records if is_rows else batch._payload
    if array is not None:
        return array
    array = block_of(batch).records() if is_rows else block_of(batch).payload()
    if _keeps_arrays(batch):
        with cython.critical_section(batch):
            if is_rows:
                batch._records = array
            else:
                batch._payload = array
        _drop_if_over(batch)
    return array


cdef inline bint _keeps_arrays(EventBatch batch):
    """Whether an array is kept for whoever asks next. Not of a slice of a lease, whose end asks its own batch only."""
    return not (root_of(batch.block).is_leased and batch.block.parent is not None)


cdef inline int _drop_if_over(EventBatch batch) except -1:
    """After an array was kept: the lease may have ended since, and not have seen it."""
    cdef RowBlock root = root_of(batch.block)
    cdef bint is_over
    with cython.critical_section(root):
        is_over = root.ended
    return batch.drop_arrays() if is_over else 0


@cython.final
@cython.no_gc
cdef class EventBatch:
    """Write events as columns: rows of ``EVENT_DTYPE`` and the payload that their offsets are into. Immutable.

    Parameters
    ----------
    records : array of ``EVENT_DTYPE``, shape (n,)
    payload : bytes-like or array of uint8, shape (m,)

    Both are copied, and checked once. What ``EventConsumer.drain`` returns is valid as it is, and not checked again.

    Raises
    ------
    BatchError
        Another dtype or shape, a masked element, an unknown op or source, an offset outside the payload, a string that
        is not UTF-8.

    Thread safety
    -------------
    Immutable: share it freely. A batch of ``EventConsumer.lease`` is readable until its lease ends.
    """

    def __init__(self, records, payload=b""):
        if not isinstance(records, np.ndarray) or records.dtype != EVENT_DTYPE:
            kind = records.dtype if isinstance(records, np.ndarray) else type(records).__name__
            raise BatchError(f"records of {kind}: must be an array of EVENT_DTYPE")
        if records.ndim != 1:
            raise BatchError(f"records of shape {records.shape}: must have one dimension")
        rows = np.ascontiguousarray(plain_array("records", records))
        block = checked_copy(_flat_bytes(rows), plain_bytes("payload", payload))
        with cython.critical_section(self):
            if self.block is not None:
                raise TypeError("an EventBatch is immutable: its __init__ is called once")
            self.block = block

    @property
    def _block(self):
        return block_of(self)

    @staticmethod
    def _over(RowBlock block not None):
        """A batch over a block that is known to be valid."""
        return batch_over(block)

    @classmethod
    def from_events(cls, events):
        """The batch of some events, in order.

        Raises
        ------
        BatchError
            `events` is a set or a mapping: rows have an order, and no keys.
        TypeError
            One of them is not a ``WriteEvent``.
        """
        return batch_over(block_of_events(list(in_order("events", events))))

    @classmethod
    def from_columns(cls, **columns):
        """The batch of some columns, named as the fields of ``WriteEvent`` and with the same defaults.

        A fixed column is an array or sequence of ints, shape (n,), or one int for all rows; timestamps may be
        ``datetime64`` or datetimes, and None where there is no time. A variable-length column is a list of str (bytes
        for the two values), one str or bytes for all rows, or a pair ``(data, offsets)``: row i is
        ``data[offsets[i]:offsets[i + 1]]``, with n + 1 offsets. At least one column must say how many rows there are.

        Columns of pandas, pyarrow and Polars are taken too, and what is masked or missing there is None. Every value is
        taken exactly, or refused: docs/columns.md has a table of what becomes of which type.

        Raises
        ------
        BatchError
            A value that its column cannot hold exactly, which row it is in, columns of unequal length, an offset
            outside its data, or columns that ``EventBatch(records, payload)`` refuses.
        TypeError
            A required column is missing, or a name is not a column.
        """
        unknown = sorted(set(columns) - set(FIXED_FIELDS) - set(_VARIABLE))
        if unknown:
            raise TypeError(f"{unknown[0]!r}: no such column; columns are {', '.join(FIXED_FIELDS + _VARIABLE)}")
        missing = [name for name in REQUIRED_FIELDS if name not in columns]
        if missing:
            raise TypeError(f"columns missing: {', '.join(missing)}")
        fixed = {name: fixed_column(name, columns[name]) for name in FIXED_FIELDS if name in columns}
        variable = {name: variable_column(name, columns[name]) for name in _VARIABLE if name in columns}
        sizes = {name: len(column) for name, column in fixed.items() if column.ndim == 1}
        sizes |= {name: len(column.lengths) for name, column in variable.items() if not column.is_scalar}
        if not sizes:
            raise BatchError("every column is a scalar: pass at least one array or list, for the number of rows")
        if len(set(sizes.values())) > 1:
            raise BatchError(f"columns of unequal length: {', '.join(f'{n} {size}' for n, size in sizes.items())}")
        records = np.zeros(next(iter(sizes.values())), EVENT_DTYPE)
        records["count"] = 1
        for name in TIME_FIELDS:
            records[name] = NO_TIME
        for name, column in fixed.items():
            records[name] = column
        if "count" not in fixed:
            records["count"][records["op"] == WriteOp.HEARTBEAT] = 0
        payload = bytearray()
        for name in _VARIABLE:
            if name not in variable:
                records[f"{name}_length"] = NULL_LENGTH
                continue
            starts = variable[name].starts + len(payload)
            payload += variable[name].data
            if len(payload) >= NULL_LENGTH:
                raise BatchError(
                    f"payload of {len(payload)} bytes: a batch holds at most {NULL_LENGTH - 1}; use several"
                )
            records[f"{name}_offset"] = starts
            records[f"{name}_length"] = variable[name].lengths
        checked = checked_copy(_flat_bytes(records), np.frombuffer(payload, np.uint8))
        # Field after field becomes event after event, which a ring takes in one copy.
        return batch_over(pack([checked]))

    @classmethod
    def from_arrow(cls, source):
        """The events of an Arrow object: a record batch, table, data frame, relation, or other exporter of capsules.

        `source` has ``__arrow_c_array__``, or ``__arrow_c_stream__``, which is read to its end. Columns are named as
        the fields of ``WriteEvent``, in any order, with the same defaults for those that are missing; the first five
        fields and no others are required. They may have the types that this package exports, or those that other
        libraries use: text as utf8, large_utf8, utf8_view, or a dictionary of one; values as any form of binary;
        numbers as integers of any width, if they fit; ``op`` and ``source`` as names or numbers; times as timestamps of
        any unit, in UTC whether they name a zone or not, or as integers, which are milliseconds. The index of a pandas
        frame, which the schema's metadata names, is left out unless it has the name of a field. Everything is copied.

        Raises
        ------
        BatchError
            An unknown column, one of another type, a null where there must be a value, a number out of range, a time
            that is not a whole number of milliseconds, or columns that ``EventBatch(records, payload)`` refuses.
        TypeError
            `source` exports no capsules.
        """
        return batch_over(import_block(source))

    @classmethod
    def concat(cls, batches):
        """The events of several batches, in order, in memory that it owns."""
        return batch_over(pack([batch._block for batch in in_order("batches", batches)]))

    @property
    def records(self):
        """The rows: a read-only array of ``EVENT_DTYPE``, shape (n,)."""
        return _array_of(self, True)

    @property
    def payload(self):
        """The bytes that the rows' offsets are into: a read-only array of uint8.

        A batch of a lease shows its ring's arena up to the end of its own last event.
        """
        return _array_of(self, False)

    cdef int drop_arrays(self) except -1:
        cdef object records, payload
        with cython.critical_section(self):
            records, payload = self._records, self._payload
            self._records = None
            self._payload = None
        return 0

    @property
    def sequence(self):
        """Sequence numbers, a read-only view of shape (n,), as are all the columns below."""
        return self.records["sequence"]

    @property
    def lsn(self):
        """Log sequence numbers."""
        return self.records["lsn"]

    @property
    def tenant_id(self):
        """Tenants."""
        return self.records["tenant_id"]

    @property
    def vshard_id(self):
        """Virtual shards."""
        return self.records["vshard_id"]

    @property
    def op(self):
        """Operations, the numbers of ``WriteOp``: ``batch.op == WriteOp.INSERT`` is a mask."""
        return self.records["op"]

    @property
    def source(self):
        """Sources, the numbers of ``EventSource``."""
        return self.records["source"]

    @property
    def count(self):
        """Rows written by each event."""
        return self.records["count"]

    @property
    def system_time_ms(self):
        """Milliseconds since the epoch; ``.view("datetime64[ms]")`` shows timestamps, and NaT for None."""
        return self.records["system_time_ms"]

    @property
    def valid_time_ms(self):
        """Milliseconds since the epoch; ``.view("datetime64[ms]")`` shows timestamps, and NaT for None."""
        return self.records["valid_time_ms"]

    def strings(self, name):
        """A string column: an array of str or None, shape (n,). Equal neighbours share one object.

        `name` is ``collection``, ``row_id``, ``user_id`` or ``statement_digest``.
        """
        if name not in STRING_FIELDS:
            raise ValueError(f"{name!r}: no column of strings; those are {', '.join(STRING_FIELDS)}")
        return block_of(self).texts(_VARIABLE.index(name))

    def values(self, name):
        """A column of values: an array of bytes or None, shape (n,). `name` is ``new_value`` or ``old_value``."""
        if name not in VALUE_FIELDS:
            raise ValueError(f"{name!r}: no column of values; those are {', '.join(VALUE_FIELDS)}")
        return block_of(self).values(_VARIABLE.index(name))

    def rows(self, field="new_value", schema=None, *, on_error="raise"):
        """The columns inside the values, which are MessagePack maps from column name to value, as capture writes them.

        Keys that the schema lacks are passed over; of a key that stands twice the last counts; an event whose value is
        None has no row. An integer may stand in a column of floats if it is exact, and nothing else is converted. It is
        one pass, without the GIL. ``docs/rows.md`` has examples.

        Parameters
        ----------
        field : {"new_value", "old_value"}
        schema : RowSchema, optional
            The columns wanted. Without one it is inferred from this batch, which takes about as long again.
        on_error : {"raise", "null"}
            What becomes of a value that is no such map: truncated, with bytes behind it, with a value that its column
            does not take, with text that is not UTF-8. With "null" its event has no row; ``Rows.malformed`` lists it.

        Raises
        ------
        RowError
            A malformed value, which it names with event and column; or one that a schema cannot be inferred from.
        ArgumentError
            Another `field` or `on_error`.
        ClosedError
            The lease of this batch has ended.
        """
        return read_rows(self, field, schema, on_error)

    def gaps(self, after=None):
        """The holes in the batch's numbers: an array of shape (k, 2), the first and the last number of each, in order.

        With `after` it checks the numbers above `after` and below the batch's highest, including those before its first
        event; otherwise those between its lowest and its highest. A number after a higher one is late, not
        a hole. The batch does not show what was dropped after it: ``GapCursor`` reports that, too.
        """
        numbers = self.sequence
        if after is not None:
            after = as_int(after)
            if not 0 <= after < 2**64:
                raise ValueError(f"after {after}: must be in 0 .. {2**64 - 1}")
            numbers = numbers[numbers > after]
        if numbers.size and (numbers[1:] <= numbers[:-1]).any():
            numbers = np.unique(numbers)
        if after is not None and numbers.size:
            numbers = np.concatenate([np.array([after], np.uint64), numbers])
        before = np.flatnonzero(np.diff(numbers) > 1)
        return np.stack([numbers[before] + np.uint64(1), numbers[before + 1] - np.uint64(1)], axis=1)

    def split(self, name="collection"):
        """The events by table: a batch of each, in order, by the table's name.

        The tables are in the order of their first events. Their batches own their memory: they outlive a lease. No
        string is made but one a table. `name` may be ``row_id``, too, and the events are then by row.

        Raises
        ------
        ValueError
            Another column.
        """
        if name not in REQUIRED_FIELDS or name not in STRING_FIELDS:
            raise ValueError(
                f"{name!r}: events are split by collection or row_id; filter by another column with a mask"
            )
        parts = split(block_of(self), _VARIABLE.index(name))
        return {text: batch_over(block) for text, block in parts.items()}

    def select(self, *columns):
        """Some columns, in this order, for libraries that read Arrow: ``pl.DataFrame(batch.select("op", "lsn"))``.

        Only these are made, in as much less time and memory. Columns are named as the fields of ``WriteEvent``.

        Raises
        ------
        ValueError
            An unknown column, one that is there twice, or none at all.
        TypeError
            A name that is not a str.
        """
        return Projection(block_of(self), columns)

    def plain(self):
        """The same columns for Arrow importers that know no view types: strings and names as utf8, values as binary.

        There is no dictionary among them either, and nothing of them lies in the batch: their bytes are copied, in one
        more pass, so what was imported may outlive a lease. ``docs/arrow.md`` says which library needs which.
        """
        return Projection(block_of(self), EVERY_COLUMN.names, plain=True)

    def __arrow_c_schema__(self):
        """The schema of every batch: the capsule of an ``ArrowSchema``."""
        return export_schema()

    def __arrow_c_array__(self, requested_schema=None):
        """The events as Arrow columns: the capsules of an ``ArrowSchema`` and of an ``ArrowArray``, a struct.

        Fixed columns are copied, None becomes null, and strings and values of more than 12 bytes stay where they are,
        in the payload, which the importer keeps alive.

        Parameters
        ----------
        requested_schema : capsule of an ``ArrowSchema``, optional
            The same columns in the types that the importer would rather have: for strings utf8, large_utf8 or
            utf8_view, for values binary, large_binary or binary_view, for ``op`` and ``source`` those of strings or the
            dictionary. A column that is requested in any other type has its default type.

        Raises
        ------
        BatchError
            A value of more than 2^31 - 1 bytes, which no Arrow view holds; more than that of one column, where utf8 or
            binary is asked for; a `requested_schema` of other columns.
        TypeError
            A `requested_schema` that is not such a capsule.
        ClosedError
            The lease of this batch has ended. While an importer has a batch of a lease, its end is a BufferError.
        CorruptRingError
            A string of a shared ring is not UTF-8.
        """
        return export_array(block_of(self), EVERY_COLUMN, requested_schema)

    def __arrow_c_stream__(self, requested_schema=None):
        """The same as a stream: the capsule of an ``ArrowArrayStream``.

        It has one array, or as many as utf8 and binary need for more than 2^31 - 1 bytes of one column.
        """
        batches = iter([self])
        return export_stream(lambda: next(batches, None), EVERY_COLUMN, requested_schema)

    def __len__(self):
        return block_of(self).count

    def __iter__(self):
        return map(block_of(self).event, range(len(self)))

    def __getitem__(self, key):
        """One event by number; a batch in the same memory by a slice of step 1; a packed copy by a mask or integers."""
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step == 1:
                return batch_over(block_of(self).slice(start, max(start, stop), pin=False))
            return batch_over(gather(block_of(self), np.arange(start, stop, step, dtype=np.int64)))
        if isinstance(key, (list, np.ndarray)):
            if isinstance(key, np.ndarray) and key.ndim == 0 and key.dtype.kind in "iu":
                return self[int(plain_array("mask", key))]
            return batch_over(gather(block_of(self), chosen_rows(key, len(self), "a batch")))
        number = operator.index(key)
        if not -len(self) <= number < len(self):
            raise IndexError(f"event {number} of a batch of {len(self)}")
        return block_of(self).event(number % len(self))

    def __repr__(self):
        if not len(self):
            return "EventBatch(0 events)"
        if block_of(self).is_over:
            return f"EventBatch({len(self)} events, of a lease that has ended)"
        first, last = int(self.sequence[0]), int(self.sequence[-1])
        return f"EventBatch({len(self)} events, sequence {first} to {last})"

    def __reduce__(self):
        packed = pack([block_of(self)])
        # By bytes: a copy of a structured array has whatever its memory held where no column lies.
        rows = _flat_bytes(packed.records()).copy().view(EVENT_DTYPE)
        return EventBatch, (rows, packed.payload().copy())


cdef object _flat_bytes(array):
    # A structured array would be described field by field to whoever asks for its buffer.
    return np.frombuffer(array.data, np.uint8) if array.size else np.empty(0, np.uint8)
