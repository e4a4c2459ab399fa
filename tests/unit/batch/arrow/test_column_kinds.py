"""What each kind of column is read as, by the table of docs/columns.md: exactly, or refused with its row.

A row of that table without samples, and a sample without a row, is a failure.
"""

# The stubs of pyarrow and pandas lag behind them, and know no Arrow capsules.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from nodedb_ring import BatchError, EventBatch
from tests.unit.builders import ring

from .column_samples import NO_TIME, SAMPLES, Sample

COLUMNS: Final = {"numbers": "lsn", "timestamps": "system_time_ms", "strings": "user_id", "values": "new_value"}
PAGE: Final = Path(__file__).parents[4] / "docs" / "columns.md"


def test_the_page_has_these_rows() -> None:
    assert len(PAGE_ROWS) == len(SAMPLES)
    for label, row in zip(SAMPLES, PAGE_ROWS, strict=True):
        assert row["what is passed"].startswith(label)


def page_rows() -> list[Mapping[str, str]]:
    table = PAGE.read_text().split("## The table\n", 1)[1].split("\n## ", 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


PAGE_ROWS: Final = page_rows()


@pytest.mark.parametrize("place", range(len(SAMPLES)), ids=list(SAMPLES))
@pytest.mark.parametrize("kind", COLUMNS)
def test_the_page_says_what_the_samples_show(kind: str, place: int) -> None:
    said = PAGE_ROWS[place][kind]
    samples = list(SAMPLES.values())[place]
    results = [() if sample.whole else getattr(sample, kind) for sample in samples]
    taken = [result for result in results if isinstance(result, list)]
    if said.startswith("refused"):
        assert not taken
    elif said.startswith("None"):
        assert [NO_TIME] in taken or [None] in taken
    else:
        assert said.startswith("taken")
        assert taken


CASES: Final = [
    pytest.param(sample, id=f"{label}-{i}") for label, samples in SAMPLES.items() for i, sample in enumerate(samples)
]


GIVEN: Final[dict[str, Any]] = {"collection": "t", "op": 1, "row_id": "", "lsn": 0}


def read(name: str, column: Any, rows: int) -> list[Any]:
    batch = EventBatch.from_columns(**({"sequence": range(1, rows + 1)} | GIVEN | {name: column}))
    return values_of(batch, name)


def values_of(batch: EventBatch, name: str) -> list[Any]:
    found: Any
    if name in ("lsn", "system_time_ms"):
        found = getattr(batch, name)
    else:
        found = batch.strings(name) if name == "user_id" else batch.values(name)
    listed: list[Any] = found.tolist()
    return listed


@pytest.mark.parametrize("sample", CASES)
@pytest.mark.parametrize(("kind", "name"), COLUMNS.items())
def test_a_column_is_read_exactly_or_refused_by_its_row(kind: str, name: str, sample: Sample) -> None:
    expected: Any = getattr(sample, kind)
    if isinstance(expected, list) and not sample.whole:
        assert read(name, sample.make(), sample.rows) == expected
        return
    assert isinstance(expected, int)
    with pytest.raises(BatchError) as caught:
        read(name, sample.make(), sample.rows)
    said = str(caught.value)
    assert name in said
    if sample.whole or expected < 0:
        # A scalar has no row, and neither has what is not a column.
        return
    assert said.startswith(f"row {expected}: {name}")


@pytest.mark.parametrize("sample", CASES)
@pytest.mark.parametrize("kind", ["numbers", "timestamps"])
def test_a_reservation_takes_the_same(kind: str, sample: Sample) -> None:
    name = COLUMNS[kind]
    expected: Any = getattr(sample, kind)
    producer, consumer = ring(16)
    with producer.reserve(sample.rows) as rows:
        rows["op"] = 1
        if isinstance(expected, list) and not sample.whole:
            rows[name] = sample.make()
            assert rows[name].tolist() == expected
        else:
            with pytest.raises(BatchError, match=name):
                rows[name] = sample.make()
            assert rows[name].tolist() == [0 if kind == "numbers" else NO_TIME] * sample.rows
    assert len(consumer.drain()) == sample.rows


def may_be_framed(sample: Sample) -> bool:
    """Whether a data frame may hold this column."""
    try:
        return isinstance(sample.make(), pl.Series | pa.Array | pa.ChunkedArray | pd.Series)
    except pytest.skip.Exception:
        return True  # of a library that is absent: each of its tests is skipped, and says why


# What a data frame may hold of these, by both ways in.
FRAMED: Final = [
    pytest.param(sample, id=f"{label}-{i}")
    for label, samples in SAMPLES.items()
    for i, sample in enumerate(samples)
    if not sample.whole and may_be_framed(sample)
]


def framed(column: Any, name: str, rows: int) -> Any:
    required = {
        "sequence": list(range(1, rows + 1)),
        "collection": ["t"] * rows,
        "op": [1] * rows,
        "row_id": [""] * rows,
    }
    given = required | ({} if name == "lsn" else {"lsn": [0] * rows})
    if isinstance(column, pl.Series):
        return pl.DataFrame(given | {name: column})
    if isinstance(column, pd.Series):
        return pd.DataFrame(given | {name: column.reset_index(drop=True)})
    return pa.table(given | {name: column})


def by_arrow(name: str, sample: Sample) -> list[Any] | str:
    """What a column is read as in a frame, or the complaint; nothing where the frame's library has no such column."""
    try:
        return values_of(EventBatch.from_arrow(framed(sample.make(), name, sample.rows)), name)
    except BatchError as error:
        return str(error)
    except (pa.ArrowException, TypeError, NotImplementedError, pl.exceptions.PolarsError):
        return name


@pytest.mark.parametrize("sample", FRAMED)
@pytest.mark.parametrize(("kind", "name"), COLUMNS.items())
def test_from_arrow_reads_the_same_or_refuses(kind: str, name: str, sample: Sample) -> None:
    found = by_arrow(name, sample)
    if isinstance(found, str):
        assert name in found
    else:
        assert found == getattr(sample, kind)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0], pa.int8())),
            "is 'arrow.bool8', an extension over int8",
        ),
        (pd.Series(pd.period_range("2020", periods=2)), "is 'pandas.period', an extension over int64"),
    ],
)
@pytest.mark.parametrize("name", ["lsn", "system_time_ms", "count"])
def test_from_arrow_refuses_extension_types(name: str, column: Any, message: str) -> None:
    with pytest.raises(BatchError, match=f"column '{name}' {message}: must be .*; convert it first"):
        EventBatch.from_arrow(framed(column, name, 2))


def test_from_arrow_takes_text_and_bytes_of_an_extension() -> None:
    source = framed(pa.array(['{"a": 1}', None], pa.json_()), "user_id", 2)
    assert EventBatch.from_arrow(source).strings("user_id").tolist() == ['{"a": 1}', None]
    ids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0123456789abcdef", None], pa.binary(16)))
    assert EventBatch.from_arrow(framed(ids, "new_value", 2)).values("new_value").tolist() == [
        b"0123456789abcdef",
        None,
    ]
