"""``MemberArray``: what type checkers take a column of operations or sources for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["MemberArray"]


class MemberArray(np.ndarray[tuple[Any, ...], np.dtype[np.uint8]]):  # noqa: PLW1641
    """Operations or sources as a type checker sees them: an array of which ``==`` and ``!=`` make a mask.

    NumPy declares both as Any, and the type of ``batch[batch.op == WriteOp.INSERT]`` would be Any, too. There are no
    instances: a column is a plain array.
    """

    if TYPE_CHECKING:

        def __eq__(self, other: object, /) -> npt.NDArray[np.bool_]:  # type: ignore[override]
            ...

        def __ne__(self, other: object, /) -> npt.NDArray[np.bool_]:  # type: ignore[override]
            ...
