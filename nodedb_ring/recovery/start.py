"""``first_owed``: the number at which a follower begins, and whether the log is still the one where it stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import LogError
from ..log import EventLog, IdentifiedEventLog

if TYPE_CHECKING:
    from ..ends._consumer import EventConsumer

__all__ = ["first_owed", "identified"]


def first_owed(
    consumer: EventConsumer | None,
    log: EventLog,
    *,
    group: str,
    core_id: int,
    start: str,
    after: int | str | None,
) -> int:
    """The first number to deliver, as the arguments of ``follow`` say; 0 where the core's numbering has not begun.

    Raises
    ------
    LogError
        `after` or the group's watermark lies beyond the end of log and ring, or the log has not the history in which
        the token `after`, or the watermark, was made.
    """
    if isinstance(after, str):
        mark: int | None = identified(log, "after=token").sequence_of(core_id, after)
        if mark == -1:
            return 0
    elif after is not None:
        mark = after
    else:
        mark = _watermark(log, group, core_id)
    # Asked after the watermark: whoever saved that had been given its number, so one of the two has it by now.
    last = log.last_sequence(core_id)
    tried = None if consumer is None else consumer.emitted_sequence
    known = [number for number in (last, tried) if number is not None]
    end = max(known, default=0)
    if mark is not None:
        if mark > end:
            stands = f"after {mark}" if after is not None else f"group {group!r} stands at {mark}"
            remedy = f"follow(after={end})" if after is not None else "save_watermark() or follow(after=...)"
            raise LogError(
                f"core {core_id}: {stands}, and log and ring end at {end}: the log lost its end, or was made"
                f" again, and new events would be taken for delivered ones; {remedy} continues there"
            )
        return mark + 1
    if start == "latest":
        # The group exists from now on, so a restart before its first commit misses nothing. (Where nothing was
        # numbered yet, that holds for numbers from 1, since a watermark cannot lie before 0.)
        log.save_watermark(group, core_id, end)
        return max(known) + 1 if known else 0
    if last is None:
        return 0
    for batch in log.read(core_id, 0, last):
        if len(batch):
            return int(batch.sequence[0])
    return last + 1


def _watermark(log: EventLog, group: str, core_id: int) -> int | None:
    token = log.load_token(group, core_id) if isinstance(log, IdentifiedEventLog) else None
    if token is None or not isinstance(log, IdentifiedEventLog):
        return log.load_watermark(group, core_id)
    try:
        return log.sequence_of(core_id, token)
    except LogError as error:
        raise type(error)(f"group {group!r}: {error}") from error


def identified(log: EventLog, what: str) -> IdentifiedEventLog:
    """The log, if it knows its own history.

    Raises
    ------
    LogError
    """
    if not isinstance(log, IdentifiedEventLog):
        raise LogError(f"{what}: needs a log with the methods of IdentifiedEventLog, and this is {log!r}")
    return log
