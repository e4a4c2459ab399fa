from collections.abc import Iterator

from ..batch._event_batch import EventBatch
from ._table import Table

__all__ = ["next_rows", "select_rows"]

def select_rows(table: Table) -> str: ...
def next_rows(
    table: Table,
    rows: Iterator[tuple[object, ...]],
    most: int,
    *,
    sequence: int,
    lsn: int,
    time_ms: int,
    tenant_id: int,
    vshard_id: int,
) -> EventBatch | None: ...
