from collections.abc import Callable
from typing import Final, Self, SupportsIndex, final

from .schema import EventSource, WriteOp

__all__ = ["WriteEvent"]

@final
class WriteEvent:
    __match_args__: Final = (
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
    def __init__(
        self,
        *,
        sequence: SupportsIndex,
        collection: str,
        op: WriteOp,
        row_id: str,
        lsn: SupportsIndex,
        tenant_id: SupportsIndex = 0,
        vshard_id: SupportsIndex = 0,
        source: EventSource = EventSource.USER,
        count: SupportsIndex | None = None,
        new_value: bytes | None = None,
        old_value: bytes | None = None,
        system_time_ms: SupportsIndex | None = None,
        valid_time_ms: SupportsIndex | None = None,
        user_id: str | None = None,
        statement_digest: str | None = None,
    ) -> None: ...
    @property
    def sequence(self) -> int: ...
    @property
    def collection(self) -> str: ...
    @property
    def op(self) -> WriteOp: ...
    @property
    def row_id(self) -> str: ...
    @property
    def lsn(self) -> int: ...
    @property
    def tenant_id(self) -> int: ...
    @property
    def vshard_id(self) -> int: ...
    @property
    def source(self) -> EventSource: ...
    @property
    def count(self) -> int: ...
    @property
    def new_value(self) -> bytes | None: ...
    @property
    def old_value(self) -> bytes | None: ...
    @property
    def system_time_ms(self) -> int | None: ...
    @property
    def valid_time_ms(self) -> int | None: ...
    @property
    def user_id(self) -> str | None: ...
    @property
    def statement_digest(self) -> str | None: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Callable[..., WriteEvent], tuple[int | str | bytes | None, ...]]: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, memo: dict[int, object]) -> Self: ...
