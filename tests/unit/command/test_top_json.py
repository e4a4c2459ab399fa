"""``nodedb-ring top --json``: which keys it prints, and when."""

from __future__ import annotations

import datetime
import json

import pytest

from nodedb_ring import EventBus
from nodedb_ring.command.cli import main
from tests.unit.shared_buses import BusMaker, Peer, claim_consumer, claim_producer, drain, emit

from .top_runs import Time, corrupt, emitting, run, top


def test_one_json_object_has_what_inspect_has_and_the_rates(
    make_bus: BusMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    bus = make_bus(2)
    with bus.producer(0) as producer, Peer(bus) as consumer:
        consumer.ask(claim_consumer)
        emitting(producer, 1, 3)()

        def meanwhile() -> None:
            emitting(producer, 4, 20)()
            assert consumer.ask(drain, 5) == [1, 2, 3, 4, 5]

        assert run(bus, Time(meanwhile), once=True, json=True) == 0
        output, errors = capsys.readouterr()
        assert errors == ""
        found = json.loads(output)
        assert main(["inspect", bus.name, "--json"]) == 0
        expected = json.loads(capsys.readouterr().out)
    datetime.datetime.fromisoformat(found.pop("time"))
    expected |= {"incarnation": 1, "is_linked": True, "interval_seconds": 2.0, "captures": []}
    expected["rings"][0] |= {
        "lag": 11,
        "emitted_per_second": 6.5,
        "received_per_second": 2.5,
        "dropped_per_second": 2.0,
        "error": None,
    }
    nothing = {"lag": 0, "emitted_per_second": 0, "received_per_second": 0, "dropped_per_second": 0, "error": None}
    expected["rings"][1] |= nothing
    assert found == expected
    assert found["rings"][0]["consumer_pid"] == consumer.pid


def test_one_json_object_of_a_bus_that_two_other_processes_use(bus: EventBus) -> None:
    with Peer(bus) as producer, Peer(bus) as consumer:
        producer.ask(claim_producer)
        consumer.ask(claim_consumer)
        producer.ask(emit, 1, 20)
        consumer.ask(drain, 7)
        ran = top(bus.name, "--once", "--json", "--interval=0.1")
    assert (ran.returncode, ran.stderr) == (0, "")
    found = json.loads(ran.stdout)
    assert found["interval_seconds"] >= 0.1
    [ring] = found["rings"]
    assert (ring["producer_pid"], ring["consumer_pid"]) == (producer.pid, consumer.pid)
    assert (ring["producer"]["emitted"], ring["producer"]["dropped"], ring["consumer"]["received"]) == (16, 4, 7)
    assert (ring["lag"], ring["emitted_per_second"], ring["received_per_second"]) == (9, 0, 0)


def test_json_is_an_object_a_line(bus: EventBus, capsys: pytest.CaptureFixture[str]) -> None:
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        time = Time(emitting(producer, 1, 4), consumer.drain, emitting(producer, 5, 5))
        assert run(bus, time, count=3, json=True, interval=0.5) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["interval_seconds"] for line in lines] == 3 * [0.5]
    found = [
        [line["rings"][0][name] for name in ("emitted_per_second", "received_per_second", "lag")] for line in lines
    ]
    assert found == [[8, 0, 4], [0, 8, 0], [2, 0, 1]]


def test_the_keys_of_the_json_are_these(bus: EventBus, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs read them: one may come, none may go or be called another name."""
    run(bus, Time(), once=True, json=True)
    found = json.loads(capsys.readouterr().out)
    assert list(found) == [
        *("time", "name", "path", "num_cores", "capacity", "arena_bytes"),
        *("incarnation", "is_linked", "interval_seconds", "rings", "captures"),
    ]
    main(["inspect", bus.name, "--json"])
    inspected = json.loads(capsys.readouterr().out)
    more = ["lag", "emitted_per_second", "received_per_second", "dropped_per_second", "error"]
    assert list(found["rings"][0]) == [*inspected["rings"][0], *more]


def test_json_says_when_the_bus_is_another_one(make_bus: BusMaker, capsys: pytest.CaptureFixture[str]) -> None:
    old = make_bus()
    time = Time(old.unlink, lambda: make_bus(2, name=old.name))
    assert run(old, time, count=3, json=True) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    reported = [(line["is_linked"], line["incarnation"], line["num_cores"], line["interval_seconds"]) for line in lines]
    assert reported == [(False, 1, 1, 2.0), (True, 2, 2, None), (True, 2, 2, 2.0)]
    assert [line["rings"][0]["emitted_per_second"] for line in lines] == [0, None, 0]


def test_json_says_which_ring_is_corrupt(make_bus: BusMaker, capsys: pytest.CaptureFixture[str]) -> None:
    bus = make_bus(2)
    time = Time(lambda: corrupt(bus))
    assert run(bus, time, once=True, json=True) == 0
    first, second = json.loads(capsys.readouterr().out)["rings"]
    assert list(first) == ["core_id", "error"]
    assert first["error"].startswith("core 0: published position 1099511627776: leaves more events than")
    assert (second["core_id"], second["error"], second["lag"]) == (1, None, 0)
