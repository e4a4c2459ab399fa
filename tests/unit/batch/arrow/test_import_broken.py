"""EventBatch.from_arrow of arrays that break Arrow's rules: an error, not a crash."""

# The stubs of pyarrow and pandas lag behind them, and know no Arrow capsules.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nodedb_ring import BatchError, EventBatch

from .capsules import ArrowArray, ArrowSchema, array_in, capsule_of, schema_in
from .tables import COLUMNS, Source, read, table


def test_a_capsule_that_somebody_has_emptied_is_refused() -> None:
    stream = read().__arrow_c_stream__()
    assert pa.RecordBatchReader._import_from_c_capsule(stream).read_all().num_rows == 3
    with pytest.raises(BatchError, match="already consumed"):
        EventBatch.from_arrow(Source(stream=stream))
    schema, array = read().__arrow_c_array__()
    assert pa.RecordBatch._import_from_c_capsule(schema, array).num_rows == 3
    with pytest.raises(BatchError, match="already consumed"):
        EventBatch.from_arrow(Source(array=(schema, array)))
    with pytest.raises(BatchError, match="already consumed"):
        EventBatch.from_arrow(Source(array=(read().__arrow_c_schema__(), array)))


@pytest.mark.parametrize("width", ["-1", "9" * 30, "x", ""])
def test_an_invalid_width_is_refused(width: str) -> None:
    batch = table(new_value=[b"one", b"two", b"six"]).combine_chunks().to_batches()[0]
    schema_capsule, array = batch.__arrow_c_array__()
    form = f"w:{width}".encode()
    schema_in(schema_capsule).children[batch.schema.get_field_index("new_value")].contents.format = form
    with pytest.raises(BatchError, match="new_value"):
        EventBatch.from_arrow(Source(array=(schema_capsule, array)))


def test_text_that_is_not_utf8() -> None:
    broken = pa.array([b"ok", b"\xff", b""]).cast(pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, broken.buffers())
    with pytest.raises(BatchError, match=r"row 1: row_id b'\\xff': is not UTF-8 from its byte 0 on"):
        read(row_id=text)


class Broken:
    """Arrays whose structs were written over."""

    def __init__(self, source: pa.RecordBatch) -> None:
        self.capsules = source.__arrow_c_array__()
        self.schema: ArrowSchema = schema_in(self.capsules[0])
        self.array: ArrowArray = array_in(self.capsules[1])
        self.kept: list[Any] = []
        self.names = (b"arrow_schema", b"arrow_array")

    def column(self, name: str) -> ArrowArray:
        names = [self.schema.children[i].contents.name.decode() for i in range(self.schema.n_children)]
        child: ArrowArray = self.array.children[names.index(name)].contents
        return child

    def write(self, name: str, buffer: int, data: bytes) -> None:
        held = ctypes.create_string_buffer(data, len(data))
        self.kept.append(held)
        self.column(name).buffers[buffer] = ctypes.addressof(held)

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        return capsule_of(self.schema, self.names[0]), capsule_of(self.array, self.names[1])


def broken() -> Broken:
    columns = {"collection": pa.array(COLUMNS["collection"]).cast(pa.string_view())}
    columns["user_id"] = pa.array(["a", "b", "a"]).dictionary_encode()
    columns["row_id"] = pa.array([f"{n} rows of more than 12" for n in range(3)]).cast(pa.string_view())
    return Broken(table(**columns).to_batches()[0])


def int64s(*numbers: int) -> bytes:
    return np.array(numbers, np.int64).tobytes()


def int32s(*numbers: int) -> bytes:
    return np.array(numbers, np.int32).tobytes()


def test_the_undamaged_array_is_accepted() -> None:
    assert len(EventBatch.from_arrow(broken())) == 3


def garbage_too_short(it: Broken) -> None:
    it.column("lsn").length = 2


def garbage_negative_length(it: Broken) -> None:
    it.array.length = -1


def garbage_negative_offset(it: Broken) -> None:
    it.column("lsn").offset = -1


def garbage_huge_offset(it: Broken) -> None:
    it.column("lsn").offset = 2**63 - 2


def garbage_struct_offset(it: Broken) -> None:
    it.array.offset = 1


def garbage_children(it: Broken) -> None:
    it.array.n_children = 3


def garbage_buffers(it: Broken) -> None:
    it.column("op").n_buffers = 2


def garbage_no_data(it: Broken) -> None:
    it.column("lsn").buffers[1] = None


def garbage_no_text(it: Broken) -> None:
    it.column("op").buffers[2] = None


def garbage_falling_offsets(it: Broken) -> None:
    it.write("op", 1, int32s(0, 6, 5, 12))


def garbage_negative_start(it: Broken) -> None:
    it.write("op", 1, int32s(-6, 0, 6, 12))


def garbage_view_buffer(it: Broken) -> None:
    it.write("row_id", 1, int32s(20, 0, 9, 0) * 3)


def garbage_view_offset(it: Broken) -> None:
    it.write("row_id", 1, int32s(20, 0, 0, -1) * 3)


def garbage_view_end(it: Broken) -> None:
    it.write("row_id", 1, int32s(20, 0, 0, 2**31 - 20) * 3)


def garbage_view_length(it: Broken) -> None:
    it.write("row_id", 1, int32s(-20, 0, 0, 0) * 3)


def garbage_view_sizes(it: Broken) -> None:
    it.column("row_id").buffers[it.column("row_id").n_buffers - 1] = None


def garbage_view_without_payload(it: Broken) -> None:
    it.column("row_id").buffers[2] = None


def garbage_few_view_buffers(it: Broken) -> None:
    it.column("row_id").n_buffers = 2


def garbage_no_dictionary(it: Broken) -> None:
    it.column("user_id").dictionary = None


def garbage_dictionary_length(it: Broken) -> None:
    it.column("user_id").dictionary.contents.length = -2


def garbage_no_schema_format(it: Broken) -> None:
    it.schema.children[0].contents.format = None


def garbage_many_columns(it: Broken) -> None:
    it.schema.n_children = -1


@pytest.mark.parametrize("name", [name for name in list(globals()) if name.startswith("garbage_")])
def test_garbage_is_an_error_and_not_a_crash(name: str) -> None:
    it = broken()
    globals()[name](it)
    with pytest.raises(BatchError):
        EventBatch.from_arrow(it)


@pytest.mark.parametrize("index", [2, 3, -1, 2**31 - 1])
def test_an_index_that_its_dictionary_does_not_have(index: int) -> None:
    it = broken()
    it.write("user_id", 1, int32s(0, index, 0))
    with pytest.raises(BatchError, match=f"row 1: user_id is entry {index} of a dictionary of 2"):
        EventBatch.from_arrow(it)
