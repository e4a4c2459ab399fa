"""``Hand``: batches that a follower has taken for a merge by commit, and has not handed out yet."""

from __future__ import annotations

from typing import final

from ..batch._event_batch import EventBatch

__all__ = ["Hand"]


@final
class Hand:
    """What comes before the follower's next batch: it counts as not delivered.

    A signal handler may raise between any two bytecodes but those of assignments that stand together. So what is taken
    out is made first, and then removed, and nothing is called between that and the return to the caller.

    Other threads read ``first`` and the length. So ``start`` is set to 0 before the batch that it is of goes, and read
    after ``batches``: what they find is the hand as it is, or with events that were handed out just now.

    Attributes
    ----------
    batches : tuple of EventBatch
        In order. None of them is empty.
    start : int
        Events of the first one that were handed out.

    Thread safety
    -------------
    One thread at a time, as for the follower; ``first`` and the length from any.
    """

    __slots__ = ("batches", "start")

    def __init__(self) -> None:
        self.batches: tuple[EventBatch, ...] = ()
        self.start: int = 0

    def __len__(self) -> int:
        return sum(map(len, self.batches)) - self.start

    @property
    def first(self) -> int | None:
        """The number of its first event; None if there is none."""
        batches = self.batches
        return int(batches[0].sequence[self.start]) if batches else None

    def join(self) -> None:
        """Makes one batch of what is there."""
        joined = EventBatch.concat([self.batches[0][self.start :], *self.batches[1:]])
        self.start = 0
        self.batches = (joined,)

    def take(self, stop: int) -> EventBatch:
        """Removes the first batch's events before number `stop` of that batch, and returns them."""
        first, *others = self.batches
        taken = first[self.start : stop] if self.start or stop < len(first) else first
        rest = tuple(others)
        if stop == len(first):
            self.start = 0
            self.batches = rest
        else:
            self.start = stop
        return taken
