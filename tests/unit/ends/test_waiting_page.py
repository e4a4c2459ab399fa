"""docs/waiting.md: its examples print what their comments say, and each row of its tables is so."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nodedb_ring import ClosedError, EventBatch, EventConsumer, EventProducer
from tests.unit.builders import batch, event, fill, ring, sequences
from tests.unit.runners import Running

PAGE = (Path(__file__).parents[3] / "docs" / "waiting.md").read_text()


def rows(heading: str) -> list[str]:
    """The left cells of the table that has this heading among its first line's."""
    [body] = re.findall(rf"^\|.*{re.escape(heading)}.*\|\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [row.strip("| ").split(" | ")[0].strip() for row in body.splitlines()]


def test_the_examples_print_what_their_comments_say(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {"__name__": "waiting"}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        exec(compile(block, "waiting.md", "exec"), names)
    said = [re.match(r"[\d ]+", comment) for comment in re.findall(r"^ *print\(.*?\) *# (.*)$", PAGE, re.MULTILINE)]
    printed = capsys.readouterr().out.splitlines()
    assert [match and match[0].strip() for match in said] == ["10", "11", "49990 0", "500"]
    assert printed == ["10 0", "11 None", "49990 0", "500", "50500 True"]


# What shuts a queue down, and what does so here: by the left cell of each row.


def no_more_puts_and_the_rest_is_delivered() -> None:
    producer, consumer = ring(4)
    with producer:
        fill(producer, 1, 3)
    assert sequences(consumer.drain(2)) == [1, 2]
    assert [sequences(each) for each in consumer] == [[3]]


def what_is_queued_is_dropped() -> None:
    producer, consumer = ring(4)
    fill(producer, 1, 3)
    consumer.close()
    assert producer.utilization == 75
    with pytest.raises(ClosedError):
        consumer.drain()
    assert consumer.stats().received == 0


def getting_ends_once_all_is_taken() -> None:
    producer, consumer = ring(4)
    fill(producer, 1, 3)
    producer.close()
    assert not consumer.is_producer_disconnected
    assert [sequences(each) for each in consumer] == [[1, 2, 3]]
    assert len(consumer.drain(timeout=None)) == 0
    assert consumer.is_producer_disconnected


def putting_says_false_and_the_writer_goes_on() -> None:
    producer, consumer = ring(4)
    consumer.close()
    assert not producer.emit(event(1))
    assert producer.emit_batch(batch(2, 3)) == 0
    assert producer.is_consumer_disconnected
    assert producer.stats().dropped_disconnected == 3


def a_put_or_a_get_that_waits_returns() -> None:
    producer, consumer = ring(2)
    fill(producer, 1, 2)

    def put() -> tuple[int, bool]:
        producer.bind()
        return producer.emit_batch(batch(3, 4), timeout=None), producer.wait_for_room(timeout=None)

    putting = Running(put)
    putting.until_asleep()
    consumer.close()
    assert putting.result() == (0, False)

    producer, consumer = ring(2)

    def get() -> EventBatch:
        consumer.bind()
        return consumer.drain(timeout=None)

    getting = Running(get)
    getting.until_asleep()
    producer.close()
    assert len(getting.result()) == 0


def using_one_s_own_is_an_error() -> None:
    producer, consumer = ring(2)
    producer.close()
    consumer.close()
    puts: list[Callable[[EventProducer], object]] = [
        lambda end: end.emit(event(1)),
        lambda end: end.emit_batch(batch(1, 1), timeout=None),
        lambda end: end.wait_for_room(),
    ]
    gets: list[Callable[[EventConsumer], object]] = [
        lambda end: end.try_recv(),
        lambda end: end.drain(timeout=None),
        lambda end: end.lease(),
    ]
    for put in puts:
        with pytest.raises(ClosedError):
            put(producer)
    for get in gets:
        with pytest.raises(ClosedError):
            get(consumer)


SHUTDOWN: dict[str, Callable[[], None]] = {
    "`q.shutdown()`: no more puts, the rest is delivered": no_more_puts_and_the_rest_is_delivered,
    "`q.shutdown(immediate=True)`: drop what is queued": what_is_queued_is_dropped,
    "`get()` raises `ShutDown` once all is taken": getting_ends_once_all_is_taken,
    "`put()` raises `ShutDown`": putting_says_false_and_the_writer_goes_on,
    "a `put` or `get` that waits raises `ShutDown`": a_put_or_a_get_that_waits_returns,
    "using what you have shut down yourself": using_one_s_own_is_an_error,
}


@pytest.mark.parametrize("row", rows("`queue.Queue`"))
def test_a_row_of_the_queue_table_is_so(row: str) -> None:
    SHUTDOWN[row]()


# What ends a wait, and what it comes to then: by the left cell of each row, in each of the three columns.

End = EventProducer | EventConsumer
Wait = Callable[[EventProducer, EventConsumer, float | None], object]


def drains(producer: EventProducer, consumer: EventConsumer, timeout: float | None) -> object:
    consumer.bind()
    return sequences(consumer.drain(timeout=timeout))


def emits(producer: EventProducer, consumer: EventConsumer, timeout: float | None) -> object:
    producer.bind()
    return producer.emit_batch(batch(3, 4), timeout)


def looks_for_room(producer: EventProducer, consumer: EventConsumer, timeout: float | None) -> object:
    producer.bind()
    return producer.wait_for_room(2, timeout)


def comes_to(wait: Wait, end_it: Callable[[End, End], object], timeout: float | None = None) -> tuple[object, int, int]:
    """What a wait returns, and how much was dropped as full and as disconnected.

    `end_it` is called while it sleeps, with the end that waits and the other one.
    """
    producer, consumer = ring(2)
    own, other = (consumer, producer) if wait is drains else (producer, consumer)
    if own is producer:
        fill(producer, 1, 2)
    waiter = Running(lambda: wait(producer, consumer, timeout))
    if timeout is None:
        waiter.until_asleep()
    end_it(own, other)
    result = waiter.result()
    stats = producer.stats()
    return result, stats.dropped_full, stats.dropped_disconnected


def it_gets_what_it_waits_for() -> None:
    def serve(own: End, other: End) -> object:
        return other.emit(event(1)) if isinstance(other, EventProducer) else other.drain()

    assert [comes_to(wait, serve) for wait in (drains, emits, looks_for_room)] == [([1], 0, 0), (2, 0, 0), (True, 0, 0)]


def its_time_is_over() -> None:
    def do_nothing(own: End, other: End) -> None:
        pass

    outcomes = [comes_to(wait, do_nothing, 0.01) for wait in (drains, emits, looks_for_room)]
    assert outcomes == [([], 0, 0), (0, 2, 0), (False, 0, 0)]


def the_other_end_goes() -> None:
    outcomes = [comes_to(wait, lambda _, other: other.close()) for wait in (drains, emits, looks_for_room)]
    assert outcomes == [([], 0, 0), (0, 0, 2), (False, 0, 0)]


def its_own_end_is_closed() -> None:
    outcomes = [comes_to(wait, lambda own, _: own.close()) for wait in (drains, emits, looks_for_room)]
    assert outcomes == [([], 0, 0), (0, 0, 0), (False, 0, 0)]


ENDS: dict[str, Callable[[], None]] = {
    "what it waits for": it_gets_what_it_waits_for,
    "the time is over": its_time_is_over,
    "the other end closes, is collected or its process dies": the_other_end_goes,
    "its own end is closed, by another thread or a signal handler": its_own_end_is_closed,
}
ELSEWHERE = {"a signal handler raises (Ctrl-C)"}
"""These take a signal handler in the waiting thread: test_waiting and test_room have them, of each wait."""


def test_every_row_of_the_table_of_waits_has_its_test() -> None:
    assert set(rows("`wait_for_room(n, timeout)`")) == ENDS.keys() | ELSEWHERE


@pytest.mark.parametrize("row", sorted(ENDS))
def test_a_row_of_the_table_of_waits_is_so(row: str) -> None:
    ENDS[row]()
