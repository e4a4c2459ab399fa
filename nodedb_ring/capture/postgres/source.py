"""``Source``: what is captured."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Source"]


class Source(NamedTuple):
    """A publication of a database, through a slot."""

    dsn: str
    publication: str
    slot: str
