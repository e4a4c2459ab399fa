"""Events of every kind, and what Arrow columns say of them."""

# The stubs of pyarrow and pandas lag behind them, and know no Arrow capsules.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import pyarrow as pa

from nodedb_ring import EventBatch, EventSource, Projection, WriteEvent, WriteOp
from nodedb_ring.batch.arrow._export import export_array

FIELDS: Final = (
    "sequence",
    "collection",
    "op",
    "row_id",
    "lsn",
    "tenant_id",
    "vshard_id",
    "source",
    "count",
    "new_value",
    "old_value",
    "system_time_ms",
    "valid_time_ms",
    "user_id",
    "statement_digest",
)
TIMESTAMPS: Final = ("system_time_ms", "valid_time_ms")

# Around the 12 bytes that a view holds itself.
TEXTS: Final = ("", "a", "flights", "größe", "x" * 11, "y" * 12, "z" * 13, "漢字" * 2, "漢字漢字x", "long " * 40)
VALUES: Final = (None, b"", b"\0", b"\xff\xfe", b"v" * 12, b"w" * 13, bytes(range(256)))
TIMES: Final = (None, 0, -1, 1_700_000_000_000, -(2**63) + 1, 2**63 - 1)

# What comes to whom asks for nothing, and what ``plain()`` has.
DICTIONARY: Final = pa.dictionary(pa.int8(), pa.string())
DEFAULT: Final = pa.schema(
    [
        pa.field("sequence", pa.uint64(), nullable=False),
        pa.field("collection", pa.string_view(), nullable=False),
        pa.field("op", DICTIONARY, nullable=False),
        pa.field("row_id", pa.string_view(), nullable=False),
        pa.field("lsn", pa.uint64(), nullable=False),
        pa.field("tenant_id", pa.uint64(), nullable=False),
        pa.field("vshard_id", pa.uint32(), nullable=False),
        pa.field("source", DICTIONARY, nullable=False),
        pa.field("count", pa.uint32(), nullable=False),
        pa.field("new_value", pa.binary_view()),
        pa.field("old_value", pa.binary_view()),
        pa.field("system_time_ms", pa.timestamp("ms", "UTC")),
        pa.field("valid_time_ms", pa.timestamp("ms", "UTC")),
        pa.field("user_id", pa.string_view()),
        pa.field("statement_digest", pa.string_view()),
    ]
)
_PLAIN_TYPES: Final = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary(), DICTIONARY: pa.string()}
PLAIN: Final = pa.schema([field.with_type(_PLAIN_TYPES.get(field.type, field.type)) for field in DEFAULT])


def varied(count: int, first: int = 1) -> list[WriteEvent]:
    """Events in which every field takes all of its kinds of values, each at a pace of its own."""
    return [
        WriteEvent(
            sequence=first + i,
            collection=TEXTS[i // 7 % len(TEXTS)],
            op=WriteOp(i % 6 + 1),
            row_id=TEXTS[i % len(TEXTS)],
            lsn=2**64 - 1 - i,
            tenant_id=i * 2**33,
            vshard_id=2**32 - 1 - i,
            source=EventSource(i % 5),
            count=i,
            new_value=VALUES[i % len(VALUES)],
            old_value=VALUES[i // 3 % len(VALUES)],
            system_time_ms=TIMES[i % len(TIMES)],
            valid_time_ms=TIMES[i // 5 % len(TIMES)],
            user_id=None if i % 11 < 4 else TEXTS[i % len(TEXTS)],
            statement_digest=None if i % 300 < 200 else TEXTS[i // 2 % len(TEXTS)],
        )
        for i in range(count)
    ]


def fields_of(event: WriteEvent) -> dict[str, Any]:
    """The fields of an event, operation and source by name."""
    fields: dict[str, Any] = {name: getattr(event, name) for name in FIELDS}
    return fields | {"op": str(event.op), "source": str(event.source)}


def as_fields(events: Iterable[WriteEvent]) -> list[dict[str, Any]]:
    return [fields_of(event) for event in events]


def rows_of(table: pa.RecordBatch | pa.Table) -> list[dict[str, Any]]:
    """What columns hold, timestamps as numbers: a datetime has years from 1 to 9999 only."""
    columns = {name: table.column(name) for name in table.schema.names}
    for name in columns.keys() & TIMESTAMPS:
        columns[name] = columns[name].cast(pa.int64())
    lists = {name: column.to_pylist() for name, column in columns.items()}
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


class Exported:
    """A batch, exported with other options than its own methods choose."""

    def __init__(self, batch: EventBatch | Projection, **options: Any) -> None:
        self._batch = batch
        self._options = options

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        return export_array(self._batch._block, **self._options)  # pyright: ignore[reportPrivateUsage]


def imported(batch: EventBatch | Projection, **options: Any) -> pa.RecordBatch:
    """The batch as pyarrow sees it, every buffer checked."""
    record_batch = pa.record_batch(Exported(batch, **options) if options else batch)
    record_batch.validate(full=True)
    return record_batch


def views(batch: EventBatch) -> int:
    """How many objects refer to the memory of a batch."""
    return batch._block.views  # pyright: ignore[reportPrivateUsage]


def with_types(types: dict[str, pa.DataType], schema: pa.Schema = DEFAULT) -> pa.Schema:
    """A schema with other types of some columns."""
    return pa.schema([field.with_type(types.get(field.name, field.type)) for field in schema])


class Asked:
    """What has batches, by an importer that asks for a schema."""

    def __init__(self, source: Any, schema: pa.Schema) -> None:
        self._source = source
        self._schema = schema

    def __arrow_c_array__(self, requested_schema: object | None = None) -> Any:
        return self._source.__arrow_c_array__(self._schema.__arrow_c_schema__())

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> Any:
        return self._source.__arrow_c_stream__(self._schema.__arrow_c_schema__())


def asked(source: Any, schema: pa.Schema) -> pa.RecordBatch:
    """The batch as pyarrow gets it when it asks for a schema, every buffer checked."""
    record_batch = pa.record_batch(Asked(source, schema))
    record_batch.validate(full=True)
    return record_batch
