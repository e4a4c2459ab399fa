"""Pressure: NORMAL, THROTTLED, SUSPENDED, with hysteresis; one state a ring, owned by its producer."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from nodedb_ring import BackpressureConfig, EventConsumer, EventProducer, PressureState, create_event_bus
from tests.unit.builders import event, ring, sized
from tests.unit.runners import in_thread

NORMAL, THROTTLED, SUSPENDED = PressureState


class Gauge:
    """A ring whose utilization is set to the percent: an arena of 100 bytes, and events of one byte."""

    def __init__(self, backpressure: BackpressureConfig | None = None) -> None:
        self.producer: EventProducer
        self.consumer: EventConsumer
        self.producer, self.consumer = ring(1024, arena_bytes=100, backpressure=backpressure)
        self.sequence = 0

    def go(self, percent: int) -> None:
        """Moves there event by event. The producer only emits."""
        while self.producer.utilization > percent:
            assert self.consumer.try_recv() is not None
        while self.producer.utilization < percent:
            self.sequence += 1
            assert self.producer.emit(sized(self.sequence, 1))
        assert self.producer.utilization == percent

    def jump(self, percent: int) -> None:
        """Goes up with one event."""
        self.sequence += 1
        assert self.producer.emit(sized(self.sequence, percent - self.producer.utilization))
        assert self.producer.utilization == percent

    @property
    def transitions(self) -> tuple[int, int, int]:
        stats = self.producer.stats()
        return stats.normal_transitions, stats.throttle_transitions, stats.suspend_transitions


def test_the_states() -> None:
    assert [state.name for state in PressureState] == ["NORMAL", "THROTTLED", "SUSPENDED"]
    assert [str(state) for state in PressureState] == ["NORMAL", "THROTTLED", "SUSPENDED"]


@pytest.mark.parametrize(
    ("walk", "states"),
    [
        ([0, 84], [NORMAL, NORMAL]),
        ([85], [THROTTLED]),
        ([85, 94], [THROTTLED, THROTTLED]),
        ([85, 75], [THROTTLED, THROTTLED]),
        ([85, 75, 84, 75], [THROTTLED] * 4),
        ([85, 74], [THROTTLED, NORMAL]),
        ([85, 74, 84], [THROTTLED, NORMAL, NORMAL]),
        ([85, 74, 85], [THROTTLED, NORMAL, THROTTLED]),
        ([85, 95], [THROTTLED, SUSPENDED]),
        ([95], [SUSPENDED]),
        ([100], [SUSPENDED]),
        ([95, 85], [SUSPENDED, SUSPENDED]),
        ([95, 85, 94, 85], [SUSPENDED] * 4),
        ([95, 84], [SUSPENDED, THROTTLED]),
        ([95, 75], [SUSPENDED, THROTTLED]),
        ([95, 74], [SUSPENDED, NORMAL]),
        ([95, 0], [SUSPENDED, NORMAL]),
        ([95, 84, 94], [SUSPENDED, THROTTLED, THROTTLED]),
        ([95, 84, 95], [SUSPENDED, THROTTLED, SUSPENDED]),
        ([95, 84, 74], [SUSPENDED, THROTTLED, NORMAL]),
    ],
)
def test_enter_and_leave(walk: list[int], states: list[PressureState]) -> None:
    gauge = Gauge()
    seen: list[PressureState] = []
    for percent in walk:
        gauge.go(percent)
        seen.append(gauge.producer.pressure_state)
        assert gauge.consumer.pressure_state is seen[-1]
    assert seen == states


def test_straight_from_normal_to_suspended() -> None:
    gauge = Gauge()
    gauge.go(84)
    gauge.jump(95)
    assert gauge.producer.pressure_state is SUSPENDED
    assert gauge.transitions == (0, 0, 1)


def test_event_by_event_it_passes_through_throttled() -> None:
    gauge = Gauge()
    gauge.go(100)
    assert gauge.transitions == (0, 1, 1)


def test_suspended_to_normal_without_throttled_between() -> None:
    gauge = Gauge()
    gauge.jump(95)
    gauge.go(0)
    assert gauge.producer.pressure_state is NORMAL
    assert gauge.transitions == (1, 0, 1)


def test_transitions_into_each_state_are_counted() -> None:
    gauge = Gauge()
    assert gauge.transitions == (0, 0, 0)
    for turn in range(1, 6):
        for percent in (90, 96, 80, 70):
            gauge.go(percent)
            gauge.producer.pressure_state  # noqa: B018
        # In: to 90 throttled, to 96 suspended, to 80 throttled again, to 70 normal.
        assert gauge.transitions == (turn, 2 * turn, turn)


def test_hovering_at_a_threshold_changes_nothing() -> None:
    gauge = Gauge()
    gauge.go(85)
    for _ in range(50):
        gauge.go(84)
        gauge.go(85)
    assert gauge.transitions == (0, 1, 0)


def test_the_slots_count_as_the_arena_does() -> None:
    producer, consumer = ring(64)
    for n in range(1, 55):
        assert producer.emit(event(n))
        assert producer.pressure_state is NORMAL
    assert producer.emit(event(55))  # 85.9 %
    assert producer.pressure_state is THROTTLED
    for n in range(56, 61):
        assert producer.emit(event(n))
        assert producer.pressure_state is THROTTLED
    assert producer.emit(event(61))  # 95.3 %
    assert producer.pressure_state is SUSPENDED
    consumer.drain(13)  # 75.0 %
    assert producer.pressure_state is THROTTLED
    consumer.drain(1)
    assert producer.pressure_state is NORMAL


def test_a_ring_of_one_slot() -> None:
    producer, consumer = ring(1)
    assert producer.emit(event())
    assert producer.pressure_state is SUSPENDED
    consumer.try_recv()
    assert producer.pressure_state is NORMAL


def test_it_is_evaluated_on_emit() -> None:
    gauge = Gauge()
    gauge.go(95)
    assert gauge.transitions == (0, 1, 1)
    for _ in range(60):
        gauge.consumer.try_recv()
    assert gauge.transitions == (0, 1, 1)
    gauge.producer.emit(sized(1, 1))
    assert gauge.transitions == (1, 1, 1)


def test_it_is_evaluated_on_an_emit_that_drops() -> None:
    gauge = Gauge()
    gauge.jump(95)
    while gauge.producer.utilization:
        gauge.consumer.try_recv()
    gauge.jump(80)
    assert gauge.transitions == (0, 1, 1)
    for _ in range(1):
        gauge.consumer.try_recv()
    gauge.jump(90)
    assert not gauge.producer.emit(sized(9, 50))
    assert gauge.producer.stats().dropped_full == 1


def test_it_is_evaluated_when_the_producer_reads_it_so_a_paused_one_can_resume() -> None:
    gauge = Gauge()
    gauge.go(95)
    assert gauge.producer.pressure_state is SUSPENDED
    gauge.consumer.drain()
    assert gauge.producer.pressure_state is NORMAL
    assert gauge.transitions == (1, 1, 1)


def test_the_consumer_computes_it_afresh_and_stores_nothing() -> None:
    gauge = Gauge()
    gauge.go(95)
    for percent, state in ((90, SUSPENDED), (84, THROTTLED), (74, NORMAL), (0, NORMAL)):
        gauge.go(percent)
        assert gauge.consumer.pressure_state is state
        assert gauge.transitions == (0, 1, 1)
    # Seen by the producer, from 95 to 0, it is one transition.
    assert gauge.producer.pressure_state is NORMAL
    assert gauge.transitions == (1, 1, 1)


def test_a_thread_that_does_not_own_the_producer_stores_nothing_either() -> None:
    gauge = Gauge()
    gauge.go(95)
    gauge.consumer.drain()
    assert in_thread(lambda: gauge.producer.pressure_state) is NORMAL
    assert gauge.transitions == (0, 1, 1)


def test_emit_batch_moves_it() -> None:
    from tests.unit.builders import batch

    producer, consumer = ring(1024)
    assert producer.emit_batch(batch(1, 1024)) == 1024
    stats = producer.stats()
    assert stats.suspend_transitions == 1
    assert producer.pressure_state is SUSPENDED
    assert consumer.pressure_state is SUSPENDED


def test_each_ring_has_its_own() -> None:
    producers, _ = create_event_bus(2, 1)
    assert producers[0].emit(event())
    assert [producer.pressure_state for producer in producers] == [SUSPENDED, NORMAL]


# BackpressureConfig


def test_the_default_thresholds() -> None:
    assert dataclasses.asdict(BackpressureConfig()) == {
        "throttle_enter": 85,
        "throttle_exit": 75,
        "suspend_enter": 95,
        "suspend_exit": 85,
    }


def test_thresholds_of_ones_own() -> None:
    gauge = Gauge(BackpressureConfig(throttle_enter=20, throttle_exit=10, suspend_enter=50, suspend_exit=30))
    seen: list[PressureState] = []
    for percent in (19, 20, 49, 50, 30, 29, 10, 9, 50, 9):
        gauge.go(percent)
        seen.append(gauge.producer.pressure_state)
    assert seen == [
        NORMAL, THROTTLED, THROTTLED, SUSPENDED, SUSPENDED, THROTTLED, THROTTLED, NORMAL, SUSPENDED, NORMAL,
    ]  # fmt: skip


def test_the_narrowest_thresholds() -> None:
    gauge = Gauge(BackpressureConfig(throttle_exit=98, throttle_enter=99, suspend_exit=99, suspend_enter=100))
    for percent, state in (
        (98, NORMAL),
        (99, THROTTLED),
        (100, SUSPENDED),
        (99, SUSPENDED),
        (98, THROTTLED),
        (97, NORMAL),
    ):
        gauge.go(percent)
        assert gauge.producer.pressure_state is state


@pytest.mark.parametrize(
    "order",
    [
        {"throttle_exit": 0},
        {"throttle_exit": -5},
        {"throttle_exit": 85},
        {"throttle_exit": 90},
        {"throttle_enter": 86},
        {"throttle_enter": 75},
        {"suspend_exit": 84},
        {"suspend_exit": 95},
        {"suspend_exit": 99},
        {"suspend_enter": 85},
        {"suspend_enter": 101},
        {"suspend_enter": 2**70},
        {"throttle_enter": 0, "throttle_exit": 0},
    ],
)
def test_refuses_thresholds_out_of_order(order: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="throttle_exit") as refused:
        BackpressureConfig(**order)
    for name, value in order.items():
        assert re.search(rf"\b{name}\W+{value}\b", str(refused.value))


@pytest.mark.parametrize("wrong", [85.0, "85", None, True])
def test_thresholds_are_ints(wrong: Any) -> None:
    with pytest.raises(TypeError, match=repr(wrong)):
        BackpressureConfig(throttle_enter=wrong)


def test_a_config_is_frozen() -> None:
    config: Any = BackpressureConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.throttle_enter = 5
    assert config == BackpressureConfig()
    assert hash(config) == hash(BackpressureConfig())
