"""The checker of histories is checked first: each way in which a ring can go wrong is one that it sees."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from .history import Account, ConsumerLife, HistoryError, ProducerLife, check_deliveries, published_numbers
from .journal import UNKNOWN, Attempt, Mark

Log = list[int]


def produced(
    next_sequence: int, *attempts: tuple[Attempt, int, int, int], emitted: int, dropped: int = 0
) -> ProducerLife:
    return ProducerLife(True, next_sequence, np.array(attempts, np.uint64).reshape(-1, 4), emitted, dropped)


def take(most: int) -> Log:
    return [Mark.TAKE | most << 8]


def lease(most: int) -> Log:
    return [Mark.LEASE | most << 8]


def got(number: int, *sequence: int) -> Log:
    return [Mark.GOT | len(sequence) << 8, number, *sequence]


def releasing(number: int) -> Log:
    return [Mark.RELEASING | number << 8]


def released(number: int) -> Log:
    return [Mark.RELEASED | number << 8]


def consumed(released: int, redelivered: int, *log: Log, has_claimed: bool = True) -> ConsumerLife:
    words = np.array([word for record in log for word in record], np.uint64)
    return ConsumerLife(has_claimed, released, redelivered, words, 0)


EMITS = [(Attempt.EMIT, 1, 1, 1), (Attempt.BATCH, 2, 3, 2), (Attempt.RESERVE, 5, 2, 2)]
DYING = produced(1, *EMITS, (Attempt.BATCH, 7, 600, UNKNOWN), emitted=15, dropped=1)


def numbers(*lives: ProducerLife) -> list[int]:
    return [int(number) for number in published_numbers(lives, Account())]


def test_acknowledged_events_and_a_prefix_of_the_last_attempt_are_published() -> None:
    account = Account()
    after = produced(17 + 256, (Attempt.EMIT, 17 + 256, 1, 0), emitted=15, dropped=2)
    assert published_numbers([DYING, after], account).tolist() == [1, 2, 3, 5, 6, *range(7, 17)]
    assert (account.published, account.dropped, account.used_up) == (15, 2, 256)


@pytest.mark.parametrize("following", [17, 18, 17 + 256, 607])
def test_a_dead_batch_uses_up_a_run_or_all_that_it_dropped(following: int) -> None:
    assert len(numbers(DYING, produced(following, emitted=15, dropped=1))) == 15


@pytest.mark.parametrize("following", [1, 7, 16, 17 + 257, 606, 608])
def test_a_successor_that_continues_from_another_number_is_an_error(following: int) -> None:
    with pytest.raises(HistoryError, match=f"continues from {following}"):
        numbers(DYING, produced(following, emitted=15, dropped=1))


@pytest.mark.parametrize(("following", "emitted"), [(8, 5), (9, 6)])
def test_a_dead_emit_uses_up_one_number(following: int, emitted: int) -> None:
    dying = produced(1, *EMITS, (Attempt.EMIT, 7, 1, UNKNOWN), emitted=emitted, dropped=1)
    if emitted == 5:
        numbers(dying, produced(7, emitted=5, dropped=1))
        numbers(dying, produced(8, emitted=5, dropped=1))
    with pytest.raises(HistoryError, match="continues from"):
        numbers(dying, produced(following + 1, emitted=emitted, dropped=1))
    if emitted == 6:
        with pytest.raises(HistoryError, match="continues from 7"):
            numbers(dying, produced(7, emitted=6, dropped=1))


@pytest.mark.parametrize(
    ("emitted", "dropped"),
    [(4, 1), (6, 1), (5, 0), (5, 2)],
)
def test_the_rings_count_is_the_journals(emitted: int, dropped: int) -> None:
    with pytest.raises(HistoryError, match="must be 5 and 1"):
        numbers(produced(1, *EMITS, emitted=emitted, dropped=dropped))


def test_a_reservation_goes_in_whole() -> None:
    with pytest.raises(HistoryError, match="1 of a reservation of 2"):
        numbers(produced(1, (Attempt.RESERVE, 1, 2, 1), emitted=1, dropped=1))


NUMBERS = np.array([1, 2, 3, 5, 6, 9], np.uint64)
FIRST = consumed(0, 0, lease(2), got(1, 1, 2), lease(9), got(2, 3), releasing(2), released(2))


def deliver(*lives: ConsumerLife) -> Account:
    account = Account()
    check_deliveries(NUMBERS, lives, account)
    return account


def test_held_events_come_again_and_then_the_others() -> None:
    account = deliver(FIRST, consumed(1, 2, take(1), got(0, 1), take(9), got(0, 2, 5, 6), take(9), got(0, 9), take(9)))
    assert (account.delivered, account.redelivered, account.in_flight) == (8, 2, 0)


def test_an_unconfirmed_release_is_decided_by_the_released_position() -> None:
    before = consumed(0, 0, lease(2), got(1, 1, 2), lease(9), got(2, 3), releasing(2))
    rest = take(9), got(0, 5, 6, 9)
    deliver(before, consumed(1, 2, take(9), got(0, 1, 2), *rest))
    deliver(before, consumed(0, 3, take(9), got(0, 1, 2, 3), *rest))
    with pytest.raises(HistoryError, match="2 events were released"):
        deliver(before, consumed(2, 1, take(9), got(0, 2, 3), *rest))


def test_a_drain_in_doubt_is_one_run() -> None:
    before = consumed(0, 0, lease(1), got(1, 1), take(3))
    account = deliver(before, consumed(2, 1, take(9), got(0, 1, 5, 6, 9)))
    assert (account.delivered, account.in_flight) == (5, 2)
    deliver(before, consumed(2, 2, take(9), got(0, 1, 5, 6, 9)))
    with pytest.raises(HistoryError, match="4 events were released"):
        deliver(before, consumed(4, 1, take(9), got(0, 1, 9)))
    with pytest.raises(HistoryError, match="event 6 of position 4 was delivered where 5 of 3 was due: lost"):
        deliver(before, consumed(2, 1, take(9), got(0, 1, 6, 9)))
    with pytest.raises(HistoryError, match="event 3 of position 2 was delivered where 5 of 3 was due: not due"):
        deliver(before, consumed(2, 1, take(9), got(0, 1, 3, 5, 6, 9)))


@pytest.mark.parametrize(
    ("log", "found"),
    [
        ([take(9), got(0, 1, 2, 5, 6)], "1 published events were never delivered"),
        ([take(9), got(0, 1, 2, 6, 9)], "lost or late"),
        ([take(9), got(0, 2, 1, 5, 6, 9)], "lost or late"),
        ([take(9), got(0, 1, 2, 3, 5, 6, 9)], "not due again"),
        ([take(9), got(0, 1, 2, 4, 5, 6, 9)], "never published"),
        ([take(9), got(0, 1, 2, 5, 6, 9, 9)], "not due again"),
        ([take(2), got(0, 1, 2, 5, 6, 9)], "5 events came where 2 were asked for"),
        ([lease(9), got(1, 1, 2, 5, 6, 9)], "1 leases never ended"),
    ],
)
def test_lost_repeated_and_reordered_events_are_detected(log: list[Log], found: str) -> None:
    with pytest.raises(HistoryError, match=found):
        deliver(FIRST, consumed(1, 2, *log))


@pytest.mark.parametrize(("released", "redelivered"), [(0, 3), (2, 1), (1, 1), (1, 3)])
def test_the_count_of_redelivered_events_equals_the_journals(released: int, redelivered: int) -> None:
    with pytest.raises(HistoryError, match=r"released|redelivered"):
        deliver(FIRST, consumed(released, redelivered, take(9), got(0, 1, 2, 5, 6, 9)))


def test_a_death_in_a_claim_may_count_twice() -> None:
    in_vain = dataclasses.replace(consumed(0, 0), has_claimed=False)
    deliver(FIRST, in_vain, consumed(1, 4, take(9), got(0, 1, 2, 5, 6, 9)))
    with pytest.raises(HistoryError, match="redelivered"):
        deliver(FIRST, in_vain, consumed(1, 5, take(9), got(0, 1, 2, 5, 6, 9)))
