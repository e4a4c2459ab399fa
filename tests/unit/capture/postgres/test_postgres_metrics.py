"""What ``RingCollector`` exports of a capture, by its own statistics."""

from __future__ import annotations

import dataclasses
import gc

import pytest
from prometheus_client import CollectorRegistry

from nodedb_ring import create_event_bus
from nodedb_ring.capture.postgres import PostgresCapture, PostgresStats
from nodedb_ring.metrics import RingCollector
from tests.unit.scrapes import Samples, capture_samples, registry_of, scraped, series

from .captured import captured, until
from .server import Database
from .test_postgres_failures import terminate

STATS = PostgresStats(
    received=7, emitted=5, position=2**40 + 1, lag_bytes=4096, lag_seconds=1.5, connected=True, reconnects=3
)


def unstarted(slot: str = "s", core_id: int = 0) -> PostgresCapture:
    producers, _ = create_event_bus(core_id + 1, 8)
    return PostgresCapture("", producers[core_id], publication="p", slot=slot)


def of_captures(registry: CollectorRegistry) -> Samples:
    return {one: value for one, value in scraped(registry).items() if "_capture_" in one[0]}


def test_a_capture_is_exported_as_its_stats_say(monkeypatch: pytest.MonkeyPatch) -> None:
    captures = [unstarted("a"), unstarted("b", core_id=1)]
    registry = registry_of(RingCollector(name="orders", captures=captures))
    # Before its start there is neither a position nor a lag.
    fresh = scraped(registry)
    assert fresh == capture_samples("orders", 0, "a", captures[0].stats()) | capture_samples(
        "orders", 1, "b", captures[1].stats()
    )
    assert series("capture_position", bus="orders", core=0, slot="a") not in fresh
    assert series("capture_lag_bytes", bus="orders", core=0, slot="a") not in fresh
    for stats in (STATS, dataclasses.replace(STATS, lag_bytes=0, connected=False)):
        monkeypatch.setattr(PostgresCapture, "stats", lambda _, stats=stats: stats)
        assert scraped(registry) == capture_samples("orders", 0, "a", stats) | capture_samples("orders", 1, "b", stats)


def test_a_capture_that_is_dropped_is_collected_and_its_metrics_end() -> None:
    capture = unstarted()
    registry = registry_of(RingCollector(name="orders", captures=[capture]))
    assert of_captures(registry)
    del capture
    gc.collect()
    assert of_captures(registry) == {}


def test_a_later_capture_takes_the_place_of_an_earlier_one_until_it_is_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = unstarted(), unstarted()
    first_stats = dataclasses.replace(STATS, received=1)
    monkeypatch.setattr(PostgresCapture, "stats", lambda of: STATS if of is second else first_stats)
    collector = RingCollector(name="orders", captures=[first])
    registry = registry_of(collector)
    assert of_captures(registry) == capture_samples("orders", 0, "s", first_stats)
    collector.add(name="orders", captures=[second])
    assert of_captures(registry) == capture_samples("orders", 0, "s", STATS)
    collector.remove("orders")
    assert of_captures(registry) == {}


@pytest.mark.parametrize("name", [None, 7])
def test_captures_need_a_name(name: str | None) -> None:
    with pytest.raises(TypeError, match=rf"name {name}: must be a str"):
        RingCollector(name=name, captures=[unstarted()])


def test_a_capture_of_a_server(database: Database) -> None:
    with captured(database, "t(id int PRIMARY KEY)") as core:
        capture = core.running
        assert capture is not None
        assert (capture.core_id, capture.slot) == (0, core.slot)
        registry = registry_of(RingCollector([core.producer], name="orders", captures=[capture]))
        whose = {"bus": "orders", "core": 0, "slot": core.slot}
        database.execute("INSERT INTO t VALUES (1), (2)")
        batch = core.drain(2)
        until(lambda: capture.stats().position > int(batch.lsn[-1]) and capture.stats().lag_bytes is not None)
        samples = scraped(registry)
        assert samples[series("capture_received_changes_total", **whose)] == 2
        assert samples[series("capture_emitted_events_total", **whose)] == 2
        assert samples[series("emitted_events_total", bus="orders", core=0)] == 2
        assert samples[series("capture_position", **whose)] > int(batch.lsn[-1])
        assert samples[series("capture_lag_bytes", **whose)] >= 0
        assert samples[series("capture_lag_seconds", **whose)] == 0
        assert samples[series("capture_connected", **whose)] == 1
        assert samples[series("capture_reconnects_total", **whose)] == 0
        terminate(database, core.slot)
        until(lambda: scraped(registry)[series("capture_reconnects_total", **whose)] == 1)
    # What the slot holds back afterwards is not known here.
    last = scraped(registry)
    assert last[series("capture_connected", **whose)] == 0
    assert series("capture_lag_bytes", **whose) not in last
