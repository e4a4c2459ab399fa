"""The index of a pandas frame among the columns of an Arrow schema."""

from __future__ import annotations

__all__ = ["index_columns"]


def index_columns(metadata: bytes | None) -> frozenset[str]:
    """The names of the columns that are a frame's index and none of its columns, by what pandas says of it.

    `metadata` is the value of a schema's key ``pandas``, JSON whose ``index_columns`` has the name of each level that
    is stored as a column; a range needs none, and is a mapping there. Empty where it says nothing of the kind.
    """
    if metadata is None:
        return frozenset()
    # Only for frames of pandas, which has imported it.
    import json

    try:
        levels = json.loads(metadata)["index_columns"]
        return frozenset(level for level in levels if isinstance(level, str))
    except (ValueError, TypeError, KeyError, RecursionError):
        return frozenset()
