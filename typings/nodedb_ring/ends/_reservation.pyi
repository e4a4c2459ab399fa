from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, final, overload

import numpy as np
import numpy.typing as npt

from ._producer_base import ProducerBase

__all__ = ["Reservation"]

_U64: TypeAlias = Literal["sequence", "lsn", "tenant_id"]
_I64: TypeAlias = Literal["system_time_ms", "valid_time_ms"]
_U32: TypeAlias = Literal[
    "vshard_id",
    "count",
    "collection_offset",
    "collection_length",
    "row_id_offset",
    "row_id_length",
    "user_id_offset",
    "user_id_length",
    "statement_digest_offset",
    "statement_digest_length",
    "new_value_offset",
    "new_value_length",
    "old_value_offset",
    "old_value_length",
]
_U8: TypeAlias = Literal["op", "source"]

@final
class Reservation:
    def __new__(cls, producer: ProducerBase, wanted: int, payload_bytes: int) -> Self: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, column: _U64, /) -> npt.NDArray[np.uint64]: ...
    @overload
    def __getitem__(self, column: _I64, /) -> npt.NDArray[np.int64]: ...
    @overload
    def __getitem__(self, column: _U32, /) -> npt.NDArray[np.uint32]: ...
    @overload
    def __getitem__(self, column: _U8, /) -> npt.NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, column: str, /) -> npt.NDArray[np.integer[Any]]: ...
    def __setitem__(self, column: str, value: Any, /) -> None: ...
    @property
    def records(self) -> npt.NDArray[np.void]: ...
    @property
    def payload(self) -> npt.NDArray[np.uint8]: ...
    @property
    def published(self) -> int: ...
