"""``LogToken``: a position in one certain log, and what tells whether a log is still that one."""

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple

from ..errors import ArgumentError, LogError

__all__ = ["LogToken", "check_same_log", "history_differs", "new_batch_id", "new_log_id"]

_TOKEN: Final = re.compile(
    r"nrl1\.([0-9a-f]{16})\.([0-9]{1,20})\.(-1|[0-9]{1,20})\.(?:([0-9]{1,20})-([0-9a-f]{1,16}))?"
)


class LogToken(NamedTuple):
    """A position of a core, and the last batch that the log had at or before it.

    A batch gets its id at random when it is stored, and a stored batch never changes. So a log that has the batch under
    this id has the same events before it, too.

    Attributes
    ----------
    log_id : str
        Sixteen hexadecimal digits, drawn when the log was made.
    core_id : int
    sequence : int
        The last number that counts as delivered; -1 before the first.
    first, batch_id : int or None
        The first number of that batch, and its id. None where the log had none.
    """

    log_id: str
    core_id: int
    sequence: int
    first: int | None
    batch_id: int | None

    def __str__(self) -> str:
        batch = "" if self.first is None or self.batch_id is None else f"{self.first}-{self.batch_id:x}"
        return f"nrl1.{self.log_id}.{self.core_id}.{self.sequence}.{batch}"

    @classmethod
    def parse(cls, text: str) -> LogToken:
        """The token of a string.

        Raises
        ------
        ArgumentError
            It is not one.
        """
        found = _TOKEN.fullmatch(text)
        if found is None:
            raise ArgumentError(f"token {text!r}: is not what follower.token or log.token() returned")
        log_id, core_id, sequence, first, batch_id = found.groups()
        return cls(
            log_id,
            int(core_id),
            int(sequence),
            None if first is None else int(first),
            None if batch_id is None else int(batch_id, 16),
        )


def new_batch_id() -> int:
    """A random number from 1 to 2**63 - 1."""
    return int.from_bytes(os.urandom(8), "little") >> 1 or 1


def new_log_id() -> str:
    """A random id of a log."""
    return os.urandom(8).hex()


def check_same_log(token: LogToken, *, log_id: str, core_id: int) -> None:
    """Refuses a token of another log or core.

    Raises
    ------
    LogError
    """
    if token.core_id != core_id:
        raise LogError(f"core {core_id}: the token is of core {token.core_id}; resume each core from its own")
    if token.log_id != log_id:
        raise LogError(
            f"core {core_id}: position {token.sequence} is of log {token.log_id}, and this is log {log_id}: another"
            f" one, or one that was made anew; {_REMEDY}"
        )


def history_differs(token: LogToken, found: str) -> LogError:
    """What to raise for a position whose batch the log does not have. `found` says what it has instead."""
    return LogError(
        f"core {token.core_id}: position {token.sequence} was in a log that had batch {token.first}-"
        f"{token.batch_id or 0:x}, and this log has {found}: it lost its end, or is an older copy, and its events are"
        f" not those that were delivered; {_REMEDY}"
    )


_REMEDY: Final = (
    "compare what you derived with this log; then follow(after=n), or save_watermark(..., rewind=True), continues where"
    " you say"
)
