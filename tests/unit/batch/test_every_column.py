"""Every column of the schema, in every place that has to know it.

The list in ``core/nodedb_schema.h`` is the one place where the columns stand. What can be derived of it is; here is
checked what cannot, column by column. These messages lead a developer who adds a column from place to place.
"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pytest

from nodedb_ring import EventBatch, EventSource, WriteEvent, WriteOp, create_event_bus
from nodedb_ring.batch.schema import COLUMNS, EVENT_DTYPE, FIXED_FIELDS, STRING_FIELDS, VALUE_FIELDS, Column

ROOT: Final = Path(__file__).parents[3]
NAMES: Final = tuple(column.name for column in COLUMNS)
ENUMS: Final = {"op": WriteOp, "source": EventSource}


def samples(column: Column) -> tuple[Any, Any]:
    """Two values of a column that differ, neither of them its default."""
    if column.name in ENUMS:
        first, second = list(ENUMS[column.name])[1:3]
        return first, second
    if column.kind == "TEXT":
        return f"{column.name}, a", f"{column.name}, b"
    if column.kind == "BYTES":
        return column.name.encode(), b"other"
    most = 2 ** (8 * column.size - (column.kind == "TIME")) - 1
    return most, most - 1


FULL: Final[dict[str, Any]] = {column.name: samples(column)[0] for column in COLUMNS}
each_column: Final = pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)


def full_event(**others: Any) -> WriteEvent:
    return WriteEvent(**{**FULL, **others})


def read(batch: EventBatch, column: Column) -> Any:
    """The first value of a column."""
    if column.name in STRING_FIELDS:
        return batch.strings(column.name)[0]
    if column.name in VALUE_FIELDS:
        return batch.values(column.name)[0]
    assert hasattr(EventBatch, column.name), f"batch/_event_batch.pyx: EventBatch has no property {column.name}"
    return int(getattr(batch, column.name)[0])


def stub_of_event() -> ast.ClassDef:
    tree = ast.parse((ROOT / "typings/nodedb_ring/batch/_event.pyi").read_text())
    [found] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "WriteEvent"]
    return found


@each_column
def test_an_event_keeps_it(column: Column) -> None:
    assert hasattr(WriteEvent, column.name), f"batch/_event.pyx: WriteEvent has no attribute {column.name}"
    kept = getattr(full_event(), column.name)
    assert kept == FULL[column.name], f"batch/_event.pyx: _fill() does not store {column.name}"
    assert f"{column.name}=" in repr(full_event())


@each_column
def test_events_that_differ_in_it_are_not_equal(column: Column) -> None:
    assert full_event() == full_event()
    assert full_event(**{column.name: samples(column)[1]}) != full_event()


@each_column
def test_it_is_left_out_where_it_may_be(column: Column) -> None:
    rest = {name: value for name, value in FULL.items() if name != column.name}
    if column.presence == "REQUIRED":
        with pytest.raises(TypeError, match=column.name):
            WriteEvent(**rest)
    else:
        default = getattr(WriteEvent(**rest), column.name)
        assert (default is None) == (column.presence == "NULLABLE")


@each_column
def test_it_passes_a_ring(column: Column) -> None:
    (producer,), (consumer,) = create_event_bus(1, 8)
    assert producer.emit(full_event())
    assert read(consumer.drain(), column) == FULL[column.name]


@each_column
def test_it_passes_from_columns(column: Column) -> None:
    columns = {name: [value] for name, value in FULL.items()}
    assert read(EventBatch.from_columns(**columns), column) == FULL[column.name]


@each_column
@pytest.mark.parametrize("count", [1, 130, 300])
def test_it_passes_arrow(column: Column, count: int) -> None:
    batch = EventBatch.from_events([full_event(sequence=number) for number in range(1, count + 1)])
    exported = pa.record_batch(batch)
    assert exported.schema.names == list(NAMES)
    values = exported.column(column.name)
    last = (values.cast(pa.int64()) if column.kind == "TIME" else values)[-1].as_py()
    expected = count if column.name == "sequence" else FULL[column.name]
    place = "batch/arrow/nodedb_export_columns.h: nodedb_write_columns_by"
    assert last == (str(expected) if column.kind == "MEMBER" else expected), f"{place} does not write {column.name}"
    assert read(EventBatch.from_arrow(exported), column) == (1 if column.name == "sequence" else FULL[column.name])


def test_the_signature_has_them_all() -> None:
    parameters = inspect.signature(WriteEvent).parameters
    assert tuple(parameters) == NAMES, "batch/_event.pyx: the first line of WriteEvent's docstring is its signature"
    required = {name for name, each in parameters.items() if each.default is inspect.Parameter.empty}
    assert required == {column.name for column in COLUMNS if column.presence == "REQUIRED"}
    for column in COLUMNS:
        described = (WriteEvent.__doc__ or "").partition("Parameters")[2]
        assert column.name in described, f"batch/_event.pyx: WriteEvent's docstring does not describe {column.name}"


def test_the_stub_has_them_all() -> None:
    place = "typings/nodedb_ring/batch/_event.pyi"
    stub = stub_of_event()
    [names] = [
        node.value
        for node in stub.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "__match_args__"
    ]
    assert names is not None
    assert ast.literal_eval(names) == WriteEvent.__match_args__ == NAMES, f"{place}: __match_args__"
    functions = {node.name: node for node in stub.body if isinstance(node, ast.FunctionDef)}
    keywords = tuple(argument.arg for argument in functions["__init__"].args.kwonlyargs)
    assert keywords == NAMES, f"{place}: __init__"
    missing = [name for name in NAMES if name not in functions]
    assert not missing, f"{place}: no property for {missing}"


def test_cython_code_sees_them_all() -> None:
    text = (ROOT / "nodedb_ring/core/layout.pxd").read_text()
    row = text.partition('EventRow "nodedb_row"')[2].partition("ctypedef")[0]
    missing = [name for name in FIXED_FIELDS if name not in row.replace(",", " ").split()]
    assert not missing, f"core/layout.pxd: EventRow has no {missing}"
    text = (ROOT / "nodedb_ring/core/schema.pxd").read_text()
    missing = [name for name in NAMES if f'"NODEDB_COLUMN_{name}"' not in text]
    assert not missing, f"core/schema.pxd: no number for {missing}"


@pytest.mark.parametrize("page", ["arrow.md", "columns.md", "layout.md"])
def test_the_pages_that_list_columns_have_them_all(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    missing = [name for name in NAMES if name not in text]
    assert not missing, f"docs/{page}: names every column but {missing}"


def test_the_dtype_has_them_all() -> None:
    assert set(FIXED_FIELDS) | set(STRING_FIELDS) | set(VALUE_FIELDS) == set(NAMES)
    halves = {f"{name}_{half}" for name in STRING_FIELDS + VALUE_FIELDS for half in ("offset", "length")}
    assert set(EVENT_DTYPE.names or ()) == set(FIXED_FIELDS) | halves
