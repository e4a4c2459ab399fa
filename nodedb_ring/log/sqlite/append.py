"""A batch as the statements that append it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ...batch._event_batch import EventBatch
from ...errors import LogError
from .. import MAX_BATCH_EVENTS
from ..encoding import check_rising, encode_batch
from ..token import new_batch_id
from .drivers import Bindings
from .schema import APPEND, APPENDED_COMMIT, COLUMNS_BESIDE_CORE, MOST

__all__ = ["append_statements", "as_one_statement"]

PART_BYTES: Final = 64 * 1024 * 1024
"""The payload of a row, unless a single event has more."""
MOST_BYTES: Final = 1_000_000_000 - 1024
"""The payload of a single event: SQLite's default limit of a row, less what stands beside the payload."""


def append_statements(core_id: int, batch: EventBatch, commit: int = 0) -> list[tuple[str, Bindings]]:
    """The statements that append a batch, with their bindings, to be run in one transaction. An empty batch has none.

    `commit` is the number of the commit that a capture stores it with; 0 for anybody else.

    If a statement violates a constraint (``sqlite3.IntegrityError``, ``apsw.ConstraintError``), the log already has a
    number of the batch, or a higher one. The bindings are views of the batch's memory.

    Raises
    ------
    LogConflictError
        The batch's numbers do not rise strictly.
    LogError
        A number, or one event, is larger than SQLite can store.
    """
    statements: list[tuple[str, Bindings]] = []
    check_rising(batch)
    for part in _parts(batch):
        encoded = encode_batch(part, core_id=core_id)
        if encoded.last > MOST:
            raise LogError(f"sequence {encoded.last}: SQLite stores numbers up to {MOST}")
        if len(encoded.payload) > MOST_BYTES:
            raise LogError(
                f"sequence {encoded.first}: an event of {len(encoded.payload)} bytes; at most {MOST_BYTES} fit"
            )
        numbers = (core_id, encoded.first, encoded.last, encoded.count, encoded.checksum)
        statements.append((APPEND, (*numbers, encoded.rows, encoded.payload, new_batch_id(), commit)))
    return statements


def _parts(batch: EventBatch) -> Iterator[EventBatch]:
    """A batch in parts of bounded size, each of which becomes a row."""
    count = len(batch)
    if count > MAX_BATCH_EVENTS:
        for at in range(0, count, MAX_BATCH_EVENTS):
            yield from _parts(batch[at : at + MAX_BATCH_EVENTS])
        return
    if count > 1 and len(batch.payload) > PART_BYTES:
        # The payload of a slice or a lease may be mostly that of other events.
        batch = EventBatch.concat([batch])
        if len(batch.payload) > PART_BYTES:
            yield from _parts(batch[: count // 2])
            yield from _parts(batch[count // 2 :])
            return
    if count:
        yield batch


def as_one_statement(statements: list[tuple[str, Bindings]]) -> tuple[str, Bindings]:
    """The same as one statement, which SQLite does whole or not at all: no exception can come between its rows.

    SQLite holds the rows twice while it runs, since the statement reads the table that it writes to.
    """
    [(sql, bindings), *others] = statements
    rows, values = [sql], list(bindings)
    for _, (_core_id, *more) in others:
        places = range(len(values) + 1, len(values) + 1 + COLUMNS_BESIDE_CORE)
        *numbers, commit = places
        rows.append(f"(?1, {', '.join(f'?{place}' for place in numbers)}, {APPENDED_COMMIT.format(commit)})")
        values += more
    return ", ".join(rows), tuple(values)
