"""``RingCollector`` beside threads, processes and a server that scrape while rings are in use."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from urllib.request import Request, urlopen

import pytest
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.parser import text_string_to_metric_families as parse_text

from nodedb_ring import EventBus, EventConsumer, create_event_bus, follow
from nodedb_ring.metrics import RingCollector
from tests.unit.recovery.memory_log import MemoryLog

from .builders import event, events, fill
from .runners import Running, in_child, in_thread
from .scrapes import (
    Samples,
    assert_no_counter_went_back,
    bus_samples,
    parse_openmetrics,
    registry_of,
    samples_of,
    scraped,
    series,
)
from .shared_buses import BusMaker, Peer, claim_consumer, claim_producer, close_consumer, emit_whole, lease, release


def test_a_bus_may_be_closed_while_it_is_scraped(make_bus: BusMaker) -> None:
    bus = make_bus(2)
    names = [f"{bus.name}-{number}" for number in range(10)]
    opened = [EventBus.open(bus.name) for _ in names]
    collector = RingCollector()
    registry = registry_of(collector)
    for name, each in zip(names, opened, strict=True):
        collector.add(each, name=name)
    scraping, stop = threading.Event(), threading.Event()

    def scrape() -> set[float]:
        ups: set[float] = set()
        while not stop.is_set():
            samples = samples_of(parse_text(generate_latest(registry).decode()))
            ups |= {value for (name, _), value in samples.items() if name == "nodedb_ring_up"}
            scraping.set()
        return ups

    scraper = Running(scrape)
    for name, each in zip(names, opened, strict=True):
        scraping.clear()
        assert scraping.wait(30)
        each.close()
        if name != names[-1]:
            collector.remove(name)
    stop.set()
    assert scraper.result() <= {0.0, 1.0}
    assert scraped(registry) == {series("up", bus=names[-1], core=core_id): 0 for core_id in (0, 1)}


@pytest.mark.parametrize("then", ["_check_core", "_check_open"])
def test_a_bus_that_is_closed_in_the_midst_of_a_read_is_down(
    then: str, bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = getattr(EventBus, then)

    def check_and_close(self: EventBus, *args: object) -> None:
        check(self, *args)
        self.close()

    registry = registry_of(RingCollector(bus))
    monkeypatch.setattr(EventBus, then, check_and_close)
    assert scraped(registry) == {series("up", bus=bus.name, core=0): 0}


def test_a_scrape_from_another_thread_does_not_own_an_end() -> None:
    (producer,), (consumer,) = create_event_bus(1, 8)
    follower = follow(consumer, MemoryLog(), group="totals")
    registry = registry_of(RingCollector([producer, consumer], name="orders", followers=[follower]))
    in_thread(lambda: scraped(registry))
    # The thread that moved events first owns the ends.
    assert producer.emit(event(1))
    assert len(follower.next_batch(0)) == 1


def test_a_forked_child_exports_a_shared_bus(bus: EventBus) -> None:
    registry = registry_of(RingCollector(bus))
    producer = bus.producer(0)
    fill(producer, 1, 3)
    assert in_child(lambda: scraped(registry)) == bus_samples(bus)


@contextmanager
def served(registry: CollectorRegistry) -> Generator[str, None, None]:
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def fetched(url: str, accept: str = "text/plain") -> str:
    with urlopen(Request(url, headers={"Accept": accept}), timeout=30) as answer:
        assert answer.status == 200
        text: bytes = answer.read()
    return text.decode()


def test_a_server_exports_while_another_thread_and_another_process_emit(make_bus: BusMaker) -> None:
    shared = make_bus(1, 64)
    (producer,), (consumer,) = create_event_bus(1, 64)
    collector = RingCollector(shared)
    collector.add([producer], name="private")
    count = 6_000

    twice = threading.Event()

    def emit_all() -> None:
        producer.bind()
        for each in events(1, count):
            if each.sequence == count:
                twice.wait()  # so that it is scraped at work, however slow that is
            while not producer.emit(each):
                pass

    def drain_all(of: Sequence[EventConsumer]) -> None:
        for each in of:
            each.bind()
        left = {id(each): count for each in of}
        while any(left.values()):
            for each in of:
                left[id(each)] -= len(each.drain(32))

    seen: list[Samples] = []
    with served(registry_of(collector)) as url, Peer(shared) as writer:
        writer.ask(claim_producer)
        writer.post(emit_whole, 1, count)
        emitting = Running(emit_all)
        draining = Running(lambda: drain_all([consumer, shared.consumer(0)]))
        try:
            while draining.thread.is_alive():
                seen.append(samples_of(parse_text(fetched(url))))
                if len(seen) == 2:
                    twice.set()
        finally:
            twice.set()
        emitting.result()
        draining.result()
        writer.answer()
        seen.append(samples_of(parse_openmetrics(fetched(url, "application/openmetrics-text"))))
        narrow = samples_of(parse_text(fetched(f"{url}?name[]=nodedb_ring_up")))
    assert len(seen) > 2
    for before, after in itertools.pairwise(seen):
        assert_no_counter_went_back(before, after)
    for samples in seen:
        for bus in ("private", shared.name):
            ring = {"bus": bus, "core": 0}
            assert samples[series("used_slots", **ring)] <= 64
            assert 0 <= samples[series("lag_events", **ring)] <= 64
            assert 0 <= samples[series("utilization_ratio", **ring)] <= 1
            states = [samples[series("pressure_state", state=s, **ring)] for s in ("normal", "throttled", "suspended")]
            assert sorted(states) == [0, 0, 1]
    for bus in ("private", shared.name):
        ring = {"bus": bus, "core": 0}
        assert seen[-1][series("emitted_events_total", **ring)] == count
        assert seen[-1][series("received_events_total", **ring)] == count
        assert seen[-1][series("lag_events", **ring)] == 0
    assert narrow == {series("up", bus=bus, core=0): 1 for bus in ("private", shared.name)}


def test_a_lease_that_outlives_its_holder_s_close_is_held(bus: EventBus) -> None:
    registry = registry_of(RingCollector(bus))
    ring = {"bus": bus.name, "core": 0}
    with Peer(bus) as reader:
        fill(bus.producer(0), 1, 5)
        reader.ask(claim_consumer)
        reader.ask(lease, 3)
        reader.ask(close_consumer)
        samples = scraped(registry)
        assert samples[series("held_events", **ring)] == 3
        assert samples[series("lag_events", **ring)] == 2
        reader.ask(release, 0)
        assert scraped(registry)[series("held_events", **ring)] == 0
