from collections.abc import Callable, Mapping
from typing import final

import apsw

from ..ends._producer import EventProducer
from ..errors import CaptureError
from .sqlite import Table, TransactionLog, Value

__all__ = ["OpenTransaction", "fold", "rows"]

def fold(name: str) -> str: ...
def rows(
    connection: apsw.Connection, sql: str, bindings: tuple[Value | memoryview, ...] = (), *, can_cache: bool = True
) -> list[tuple[Value, ...]]: ...

@final
class OpenTransaction:
    def __init__(
        self,
        connection: apsw.Connection,
        producer: EventProducer,
        *,
        module: str,
        read_tables: Callable[[apsw.Connection], Mapping[str, Table | CaptureError | None]],
        chosen: frozenset[str] | None,
        log: TransactionLog | None,
        first_lsn: int,
        tenant_id: int,
        vshard_id: int,
    ) -> None: ...
    @property
    def lsn(self) -> int: ...
    @property
    def emitted(self) -> int: ...
    @property
    def dropped(self) -> int: ...
    @property
    def pending(self) -> int: ...
    def attach(self) -> None: ...
    def detach(self) -> None: ...
    def record(self, change: apsw.PreUpdate) -> None: ...
    def commit_hook(self) -> bool: ...
    def forget(self) -> None: ...
