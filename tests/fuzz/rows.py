"""Fuzzes the decoder and the encoder of row values with ``atheris``: ``python -m tests.fuzz.rows CORPUS [options]``.

`.ci/fuzz` builds the package with clang's coverage and AddressSanitizer, preloads atheris' runtime, and runs this. An
input is some values of a batch and a schema for them. Whatever it is, reading it must end in rows or in a RowError; and
what was read must, encoded, read back equal, byte for byte what ``msgpack`` makes of the same values.
"""

from __future__ import annotations

import sys

import atheris  # pyright: ignore[reportMissingModuleSource]
import msgpack
import numpy as np

from nodedb_ring import EventBatch, RowError, RowSchema, encode_rows

__all__ = ["fuzz"]

TYPES = ("bool", "int64", "uint64", "float64", "str", "bytes", "timestamp", "raw")
NAMES = ("a", "b", "carrier", "a column of more than sixteen bytes")
# Behind the others: rows are read two at a time only where some payload follows.
ROOM = msgpack.packb({"room": bytes(4096)})


def _batch(values: list[bytes | None]) -> EventBatch:
    return EventBatch.from_columns(
        sequence=np.arange(len(values)), collection="t", op=1, row_id="", lsn=0, new_value=values
    )


def _read(batch: EventBatch, schema: RowSchema) -> None:
    rows = batch.rows(schema=schema, on_error="null")
    broken = set(rows.malformed.tolist())
    try:
        batch.rows(schema=schema)
    except RowError as error:
        if error.position != min(broken):
            raise AssertionError(f"the first of {broken} is another") from error
    else:
        assert not broken
    again = EventBatch.from_columns(
        sequence=np.arange(len(rows)), collection="t", op=1, row_id="", lsn=0, new_value=encode_rows(rows)
    ).rows(schema=schema)
    assert again.present.tolist() == rows.present.tolist()
    for name in schema:
        assert again.given(name).tolist() == rows.given(name).tolist(), name
        assert again.valid(name).tolist() == rows.valid(name).tolist(), name
        # As text: NaN is no NaN's equal.
        assert repr(again[name].tolist()) == repr(rows[name].tolist()), name


def _read_as_pairs(values: list[bytes | None], schema: RowSchema) -> None:
    """Every value beside one like it gives what it gives beside any other."""
    rows = _batch(values).rows(schema=schema, on_error="null")
    twice = _batch([*(value for value in values for _ in range(2)), ROOM]).rows(schema=schema, on_error="null")
    for half in (twice[:-1:2], twice[1:-1:2]):
        assert half.present.tolist() == rows.present.tolist()
        for name in schema:
            assert half.given(name).tolist() == rows.given(name).tolist(), name
            assert half.valid(name).tolist() == rows.valid(name).tolist(), name
            assert repr(half[name].tolist()) == repr(rows[name].tolist()), name


def _infer(batch: EventBatch) -> None:
    try:
        schema = RowSchema.infer(batch, on_error="null")
    except RowError:
        return
    _read(batch, schema)


def _encode(values: list[bytes]) -> None:
    """What `msgpack` can read, as a column of objects."""
    objects = []
    for value in values:
        try:
            objects.append(msgpack.unpackb(value, strict_map_key=False, timestamp=3))
        except Exception:
            continue
    try:
        data, offsets = encode_rows({"v": objects})
    except RowError:
        return
    for i, value in enumerate(objects):
        expected = msgpack.packb({"v": value}, datetime=True)
        assert data[offsets[i] : offsets[i + 1]].tobytes() == expected, value


def fuzz(data: bytes) -> None:
    """One input: a byte for the columns' types, then values, each behind its length; 255 is None."""
    if len(data) < 2:
        return
    types = np.random.default_rng(data[0]).integers(0, len(TYPES), len(NAMES))
    schema = RowSchema({name: TYPES[kind] for name, kind in zip(NAMES, types, strict=True)})
    values: list[bytes | None] = []
    at = 1
    while at < len(data):
        size = data[at]
        values.append(None if size == 255 else data[at + 1 : at + 1 + size])
        at += 1 + (0 if size == 255 else size)
    batch = _batch(values)
    _read(batch, schema)
    _read_as_pairs(values, schema)
    _infer(batch)
    _encode([value for value in values if value is not None])


if __name__ == "__main__":
    atheris.Setup(sys.argv, fuzz)
    atheris.Fuzz()
