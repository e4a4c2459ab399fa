from collections.abc import Callable, Mapping
from typing import final

import apsw

from ..ends._producer import EventProducer
from ..errors import CaptureError
from ._table import Table
from .foreign import ForeignCommits

__all__ = ["OpenTransaction"]

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
        logged_core: int | None,
        first_lsn: int,
        tenant_id: int,
        vshard_id: int,
        foreign: ForeignCommits | None = None,
    ) -> None: ...
    @property
    def lsn(self) -> int: ...
    @property
    def emitted(self) -> int: ...
    @property
    def dropped(self) -> int: ...
    @property
    def pending(self) -> int: ...
    @property
    def last_sequence(self) -> int: ...
    def attach(self) -> None: ...
    def detach(self) -> None: ...
    def record(self, change: apsw.PreUpdate) -> None: ...
    def commit_hook(self) -> bool: ...
    def forget(self) -> None: ...
