"""Checks what was recorded of all the processes that came and went on one ring, each killed at any instant.

A position is the number of a publication, from 0 on. ``published_numbers`` returns the sequence number at each;
``check_deliveries`` follows every consumer along the positions. Both raise a ``HistoryError`` that says what is wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from .journal import UNKNOWN, Attempt, Mark, Words

Positions = npt.NDArray[np.int64]

RUN: Final = 256
"""Numbers that a producer which dies in ``emit_batch`` may use up."""


class HistoryError(Exception):
    """A ring has lost, repeated, misplaced or miscounted something."""


@dataclasses.dataclass(frozen=True)
class ProducerLife:
    """One process at the producer's end."""

    has_claimed: bool
    next_sequence: int
    """As it found it when it had claimed the end."""
    attempts: Words
    """Shape (n, 4): how, first number, count, how many were enqueued or UNKNOWN."""
    emitted: int
    dropped: int
    """The ring's accounts after its end."""


@dataclasses.dataclass(frozen=True)
class ConsumerLife:
    """One process at the consumer's end."""

    has_claimed: bool
    released: int
    redelivered: int
    """The ring's accounts when it had claimed the end."""
    log: Words
    checked: int
    """Events whose every byte it has seen to be right."""


@dataclasses.dataclass
class Account:
    """Sums over histories that are right."""

    published: int = 0
    dropped: int = 0
    used_up: int = 0
    """Numbers that died with a producer."""
    delivered: int = 0
    """Deliveries that a consumer has recorded, repeated ones included."""
    redelivered: int = 0
    in_flight: int = 0
    """Events of drains that had released them when their process was killed, which is all that it knew of them."""
    unchecked: int = 0
    """Events that were recorded, and whose process was killed before it had checked all of their bytes."""

    def add(self, other: Account) -> None:
        """Adds each sum of another."""
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


def published_numbers(lives: Sequence[ProducerLife], account: Account) -> Words:
    """The sequence number at each position.

    An attempt that a kill cut short has enqueued a prefix of its events; the ring's own count says how many. Which
    number comes next then depends on how far it came.
    """
    runs: list[Words] = []
    emitted = dropped = 0
    may_follow = {1}
    for number, life in enumerate(lives):
        who = f"producer {number}"
        if life.has_claimed:
            if life.next_sequence not in may_follow:
                raise HistoryError(f"{who} continues from {life.next_sequence}: must be in {sorted(may_follow)}")
            account.used_up += life.next_sequence - min(may_follow)
            may_follow = {life.next_sequence}
        for how, first, count, result in life.attempts.tolist():
            if may_follow != {first}:
                raise HistoryError(f"{who} tries {first}: must be {sorted(may_follow)}")
            enqueued, refused = result, count - result
            may_follow = {first + count}
            if result == UNKNOWN:
                enqueued, refused = life.emitted - emitted, life.dropped - dropped
                if not 0 <= enqueued <= count or refused not in {0, count - enqueued}:
                    raise HistoryError(
                        f"{who} died over {count} events from {first} on: {enqueued} enqueued, {refused} dropped"
                    )
                may_follow = _may_follow(Attempt(how), first, count, enqueued, refused)
            elif how == Attempt.RESERVE and enqueued not in {0, count}:
                raise HistoryError(f"{who}: {enqueued} of a reservation of {count} were published")
            runs.append(np.arange(first, first + enqueued, dtype=np.uint64))
            emitted += enqueued
            dropped += refused
        if (life.emitted, life.dropped) != (emitted, dropped):
            raise HistoryError(
                f"after {who} the ring counts {life.emitted} emitted and {life.dropped} dropped: "
                f"must be {emitted} and {dropped}"
            )
    account.published += emitted
    account.dropped += dropped
    return np.concatenate(runs) if runs else np.empty(0, np.uint64)


def _may_follow(how: Attempt, first: int, count: int, enqueued: int, refused: int) -> set[int]:
    """The numbers that a successor may continue from: after all published ones, with at most one run used up."""
    least, end = first + enqueued, first + count
    if refused:
        return {end}
    if how is Attempt.BATCH:
        # Either a run was about to be published, or all of the rest was about to be counted as dropped.
        return {*range(least, min(least + RUN, end) + 1), end}
    return {least, end}


class _Consumers:
    """What the next consumer gets: `again`, positions in order, and then all from `fresh` on."""

    def __init__(self, numbers: Words) -> None:
        self.numbers = numbers
        self.again: Positions = np.empty(0, np.int64)
        self.fresh = 0
        self.released = 0
        self.redelivered = 0
        self.leases: dict[int, Positions] = {}
        self.doubt: Mark | None = None
        self.doubt_number = 0
        self.claimed_in_vain = 0
        self.delivered = 0
        self.in_flight = 0

    def take(self, count: int) -> Positions:
        old = self.again[:count]
        self.again = self.again[count:]
        new = np.arange(self.fresh, self.fresh + count - len(old), dtype=np.int64)
        self.fresh += len(new)
        return np.concatenate([old, new])

    def succeed(self, life: ConsumerLife) -> None:
        """Settles what the predecessor's death left open, by what the successor found."""
        more = life.released - self.released
        possible = range(1)
        if self.doubt is Mark.TAKE:
            possible = range(self.doubt_number + 1)
        elif self.doubt is Mark.RELEASING:
            count = len(self.leases[self.doubt_number])
            possible = range(0, count + 1, count)
        if more not in possible:
            raise HistoryError(
                f"{life.released} events were released: must be {self.released}, and {list(possible)} more "
                f"(doubt: {self.doubt} {self.doubt_number})"
            )
        most_taken = 0
        if self.doubt is Mark.TAKE:
            gone = self.take(more)
            if self.fresh > len(self.numbers):
                raise HistoryError(f"{self.fresh} events were released, {len(self.numbers)} were published")
            self.in_flight += len(gone)
            most_taken = self.doubt_number - more
        elif self.doubt is Mark.LEASE:
            most_taken = self.doubt_number
        elif more:
            del self.leases[self.doubt_number]
        self.released = life.released
        held = np.sort(np.concatenate([*self.leases.values(), np.empty(0, np.int64)]))
        self.leases = {}
        again = life.redelivered - self.redelivered
        # A process that dies in a claim may have counted already, and its successor finds the same events.
        if not len(held) <= again <= (len(held) + most_taken) * (1 + self.claimed_in_vain):
            raise HistoryError(
                f"{again} counted as redelivered: must be {len(held)} .. {len(held) + most_taken} "
                f"({self.claimed_in_vain} died claiming)"
            )
        self.redelivered = life.redelivered
        self.claimed_in_vain = 0
        self.again = np.concatenate([held, self.again])
        self.doubt = None

    def follow(self, log: Words) -> None:
        """Goes through one consumer's records."""
        at = 0
        while at < len(log):
            mark, number = Mark(int(log[at]) & 0xFF), int(log[at]) >> 8
            at += 1
            if mark is Mark.GOT:
                self.got(number, int(log[at]), log[at + 1 : at + 1 + number])
                at += 1 + number
                continue
            if mark is Mark.RELEASED:
                self.released += len(self.leases.pop(number))
                self.doubt = None
                continue
            self.doubt, self.doubt_number = mark, number

    def got(self, count: int, lease: int, sequence: Words) -> None:
        if count > self.doubt_number:
            raise HistoryError(f"{count} events came where {self.doubt_number} were asked for")
        positions = self.take(count)
        if self.fresh > len(self.numbers) or not np.array_equal(self.numbers[positions], sequence):
            raise HistoryError(self.difference(positions, sequence))
        self.delivered += count
        if lease:
            self.leases[lease] = positions
        else:
            self.released += count
        self.doubt = None

    def difference(self, positions: Positions, sequence: Words) -> str:
        for position, came in zip(positions.tolist(), sequence.tolist(), strict=True):
            due = int(self.numbers[position]) if position < len(self.numbers) else None
            if due == came:
                continue
            (found,) = np.nonzero(self.numbers == np.uint64(came))
            if not len(found):
                return f"event {came} was delivered and never published; {due} was due at position {position}"
            kind = "lost or late" if found[0] > position else "not due again"
            return f"event {came} of position {found[0]} was delivered where {due} of {position} was due: {kind}"
        raise AssertionError


def check_deliveries(numbers: Words, lives: Sequence[ConsumerLife], account: Account) -> None:
    """Follows the consumers: every position in order, held ones again after a death, and nothing else.

    The last of them must have ended by itself, when the producer had gone and nothing was left.
    """
    state = _Consumers(numbers)
    checked = 0
    for number, life in enumerate(lives):
        try:
            if not life.has_claimed:
                state.claimed_in_vain += 1
                continue
            state.succeed(life)
            state.follow(life.log)
            checked += life.checked
        except HistoryError as error:
            raise HistoryError(f"consumer {number} of {len(lives)}: {error}") from None
    left = len(numbers) - state.fresh + len(state.again)
    if left or state.leases or state.doubt is Mark.RELEASING:
        raise HistoryError(f"{left} published events were never delivered, {len(state.leases)} leases never ended")
    account.delivered += state.delivered
    account.redelivered += state.redelivered
    account.in_flight += state.in_flight
    account.unchecked += max(0, state.delivered - checked)
