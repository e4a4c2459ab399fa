"""Dashboard, alerts and page of the metrics: they name what is exported, and all of it."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from nodedb_ring import BackpressureConfig, create_event_bus, follow
from nodedb_ring.metrics import RingCollector
from tests.absent_libraries import ABSENT, reason
from tests.unit.recovery.memory_log import MemoryLog

from .builders import event

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "metrics.md").read_text()
DASHBOARD: dict[str, Any] = json.loads((DOCS / "grafana-dashboard.json").read_text())
RULES = (DOCS / "prometheus-rules.yml").read_text()

Labels = Mapping[str, set[str]]


@pytest.fixture(scope="module")
def exported() -> dict[str, Labels]:
    """Every metric, its labels and the values that they take, of one ring, one follower and one capture."""
    if "psycopg2" in ABSENT:
        pytest.skip(reason("psycopg2"))
    from nodedb_ring.capture.postgres import PostgresCapture, PostgresStats

    (producer,), (consumer,) = create_event_bus(1, 8)
    producer.emit(event(1))
    follower = follow(consumer, MemoryLog(), group="totals", after=0)
    capture = PostgresCapture("", producer, publication="p", slot="s")
    stats = PostgresStats(received=1, emitted=1, position=1, lag_bytes=1, lag_seconds=1.0, connected=True, reconnects=1)
    registry = CollectorRegistry()
    registry.register(RingCollector([producer], name="orders", followers=[follower], captures=[capture]))
    # Without a server it knows neither position nor lag.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PostgresCapture, "stats", lambda _: stats)
        page = generate_latest(registry).decode()
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return dict(found)


SELECTOR = re.compile(r"\b(nodedb_ring_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


def complaints(expression: str, exported: Mapping[str, Labels]) -> Iterator[str]:
    """What an expression of PromQL names that is not exported."""
    grouped = [
        label for labels in re.findall(r"\b(?:by|on|ignoring)\s*\(([^)]*)\)", expression) for label in labels.split(",")
    ]
    selectors = SELECTOR.findall(expression)
    if not selectors:
        yield f"{expression}: of no metric"
    for name, matchers in selectors:
        if name not in exported:
            yield f"{expression}: {name} is not exported"
            continue
        for label, _, value in MATCHER.findall(matchers):
            if label not in exported[name]:
                yield f"{expression}: {name} has no label {label}"
            elif not value.startswith("$") and value not in exported[name][label]:
                yield f"{expression}: {name} has no {label} {value}"
        for label in grouped:
            if label.strip() not in exported[name]:
                yield f"{expression}: {name} has no label {label.strip()}"


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("rate(nodedb_ring_emitted_total[5m])", "nodedb_ring_emitted_total is not exported"),
        ('nodedb_ring_claimed{role="producer"}', "nodedb_ring_claimed has no label role"),
        ('nodedb_ring_claimed{end="writer"}', "nodedb_ring_claimed has no end writer"),
        ("sum by (bus, reason) (nodedb_ring_up)", "nodedb_ring_up has no label reason"),
        ("up == 0", "of no metric"),
    ],
)
def test_an_expression_of_what_is_not_there_is_seen(
    expression: str, complaint: str, exported: Mapping[str, Labels]
) -> None:
    [said] = complaints(expression, exported)
    assert complaint in said


# The dashboard.

PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
QUERIED = [panel for panel in PANELS if panel["type"] != "row"]
TARGETS: list[dict[str, Any]] = [target for panel in QUERIED for target in panel["targets"]]


def test_every_query_of_the_dashboard_is_of_what_is_exported(exported: Mapping[str, Labels]) -> None:
    assert [said for target in TARGETS for said in complaints(target["expr"], exported)] == []
    for target in TARGETS:
        for _, matchers in SELECTOR.findall(target["expr"]):
            chosen = {(label, value) for label, _, value in MATCHER.findall(matchers)}
            assert {("bus", "$bus"), ("core", "$core")} <= chosen, f"{target['expr']}: does not heed the variables"
        legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        kept = {
            label.strip() for labels in re.findall(r"\bby \(([^)]*)\)", target["expr"]) for label in labels.split(",")
        }
        assert legend == kept, f"{target['expr']}: {target['legendFormat']}"


def test_every_metric_is_on_the_dashboard(exported: Mapping[str, Labels]) -> None:
    shown = {name for target in TARGETS for name, _ in SELECTOR.findall(target["expr"])}
    assert set(exported) - shown == set()


def test_counters_are_shown_as_rates_and_gauges_are_not(exported: Mapping[str, Labels]) -> None:
    for target in TARGETS:
        rated = re.findall(r"\b(?:rate|increase)\((nodedb_ring_\w+)", target["expr"])
        named = [name for name, _ in SELECTOR.findall(target["expr"])]
        assert [name for name in named if name.endswith("_total")] == rated, target["expr"]


def test_the_variables_choose_bus_and_core_of_a_data_source(exported: Mapping[str, Labels]) -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "bus", "core"]
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    for name in ("bus", "core"):
        query = variables[name]["query"]["query"]
        assert variables[name]["definition"] == query
        assert re.fullmatch(rf"label_values\(.*, {name}\)", query)
        named = SELECTOR.findall(query)
        assert named
        assert all(name in exported[metric] for metric, _ in named)
    # And nothing names a data source of its own.
    sources = re.findall(r'"uid": "([^"]*)"', json.dumps(DASHBOARD))
    assert set(sources) == {"${datasource}", DASHBOARD["uid"]}
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in [*QUERIED, *TARGETS])


def test_panels_have_ids_of_their_own_and_lie_beside_one_another() -> None:
    assert DASHBOARD["schemaVersion"] >= 42
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len({panel["title"] for panel in QUERIED if panel["title"] != "Lag"}) == len(QUERIED) - 1
    for panel in QUERIED:
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0
        assert panel["description"].endswith(".")
    cells = [
        (x, y)
        for panel in PANELS
        for box in [panel["gridPos"]]
        for x, y in itertools.product(range(box["x"], box["x"] + box["w"]), range(box["y"], box["y"] + box["h"]))
    ]
    assert len(set(cells)) == len(cells), "panels overlap"
    assert max(x for x, _ in cells) < 24


def test_utilization_has_the_thresholds_of_pressure() -> None:
    [panel] = [panel for panel in QUERIED if panel["title"] == "Utilization"]
    config = BackpressureConfig()
    percents = {config.throttle_enter, config.throttle_exit, config.suspend_enter, config.suspend_exit}
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [step["value"] for step in steps] == [None, *(percent / 100 for percent in sorted(percents))]
    assert panel["fieldConfig"]["defaults"]["unit"] == "percentunit"


def test_the_timeline_of_pressure_maps_every_state(exported: Mapping[str, Labels]) -> None:
    [panel] = [panel for panel in QUERIED if panel["type"] == "state-timeline"]
    [mapping] = panel["fieldConfig"]["defaults"]["mappings"]
    shown = [value["text"].lower() for value in mapping["options"].values()]
    assert set(shown) == exported["nodedb_ring_pressure_state"]["state"]
    [target] = panel["targets"]
    assert re.findall(r'(\d \* )?max by [^{]*\{[^}]*state="(\w+)"\}', target["expr"]) == [
        ("", shown[1]),
        ("2 * ", shown[2]),
    ]


# The alerts.

ALERTS = re.findall(r"- alert: (\w+)\n +expr: (.*)\n", RULES)


def test_every_alert_is_of_what_is_exported(exported: Mapping[str, Labels]) -> None:
    assert len(ALERTS) == RULES.count("alert:") == RULES.count("expr:") > 0
    assert [said for _, expression in ALERTS for said in complaints(expression, exported)] == []
    labels = {label for of in exported.values() for label in of}
    assert set(re.findall(r"\$labels\.(\w+)", RULES)) <= labels


def test_the_page_has_the_alerts_of_the_rule_file() -> None:
    assert re.findall(r"^\| `(Nodedb\w+)` \| `([^`]*)` \|", PAGE, re.MULTILINE) == ALERTS


# The page.


def test_the_page_lists_the_exported_metrics(exported: Mapping[str, Labels]) -> None:
    described: dict[str, set[str]] = {}
    values: dict[str, set[str]] = {}
    for name, more in re.findall(r"^\| `(nodedb_ring_\w+)` \| (.*?) ?\|", PAGE, re.MULTILINE):
        own, _, taken = more.partition(":")
        described[name] = {"bus", "core", *re.findall(r"`(\w+)`", own)}
        for label in re.findall(r"`(\w+)`", own) if taken else []:
            values[label] = set(re.findall(r"`(\w+)`", taken))
    assert described == {name: set(labels) for name, labels in exported.items()}
    assert values == {
        label: exported[name][label]
        for name, label in (
            ("nodedb_ring_dropped_events_total", "reason"),
            ("nodedb_ring_pressure_state", "state"),
            ("nodedb_ring_claimed", "end"),
        )
    }
