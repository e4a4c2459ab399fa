"""``first_owed``: the number at which a follower begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import LogError
from ..log import EventLog

if TYPE_CHECKING:
    from ..ends._consumer import EventConsumer

__all__ = ["first_owed"]


def first_owed(
    consumer: EventConsumer | None, log: EventLog, *, group: str, core_id: int, start: str, after: int | None
) -> int:
    """The first number to deliver, as the arguments of ``follow`` say; 0 where the core's numbering has not begun.

    Raises
    ------
    LogError
        `after` or the group's watermark lies beyond the end of log and ring.
    """
    mark = after if after is not None else log.load_watermark(group, core_id)
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
