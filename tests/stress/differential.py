"""Random SQL on a captured database; a replica made of the events alone must hold what the database holds.

``python -m tests.stress.differential --seconds 60`` runs seed after seed. Each is a fresh database, in memory or in a
file, with or without a log. After each end of a transaction the replica is compared with SELECT, types too, the
database's b-trees are checked, and the ring with the log. Most seeds also run on a twin without a capture, which must
go the same way: the same errors, counters and rows. Everything that is drawn follows from the seed.

Exits 1 on the first difference, and prints a script that shows it again with the steps that it takes.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from .journal import memory_directory
from .sqlite_run import CAPACITY, InvalidError, Kind, Run
from .sqlite_schemas import read_tables
from .sqlite_session import Step
from .sqlite_statements import CASES, Case, Statements

MOST_REPLAYS: Final = 3000


class Found(Exception):
    """A difference, and the steps that lead to it."""

    def __init__(self, difference: BaseException, kind: Kind, steps: list[Step]) -> None:
        super().__init__(difference)
        self.difference = difference
        last = traceback.extract_tb(difference.__traceback__)[-1]
        self.place = last.filename, last.lineno  # which check it is
        self.kind = kind
        self.steps = steps


def replay(kind: Kind, steps: Sequence[Step], *, tally: Counter[str] | None = None) -> None:
    """Carries the steps out on a new database; raises `Difference` if one shows."""

    def body(run: Run) -> None:
        for step in steps:
            run.step(step)

    in_run(kind, body, Counter() if tally is None else tally)


def in_run(kind: Kind, body: Callable[[Run], object], tally: Counter[str]) -> None:
    with memory_directory() as folder:
        run = Run(kind, folder, tally)
        try:
            body(run)
        except InvalidError:
            raise
        except Exception as error:
            raise Found(error, kind, run.steps) from error
        finally:
            run.close()


def run_seed(seed: int, case: Case = CASES["all"], *, tally: Counter[str] | None = None, verbose: bool = False) -> None:
    """One random run; raises `Found`."""
    chance = random.Random(seed)
    journal = chance.choice(["memory", "memory", "wal", "delete"])
    log = journal != "memory" and chance.random() < 0.5
    kind = Kind(journal, log, twin=chance.random() < 0.6)

    def body(run: Run) -> None:
        query = run.query
        statements = Statements(
            chance,
            query,
            lambda: run.captured.connection.in_transaction,
            case,
            twin=kind.twin,
            fails=chance.choice([0.0, 0.1, 0.3]),
            full=not log,
        )

        def step(step: Step) -> None:
            if verbose:
                print(step, flush=True)
            run.step(step)

        for first in statements.setting_up():
            step(first)
        for _ in range(chance.randrange(2, 5)):
            step(statements.first_table())
        for _ in range(chance.randrange(12)):
            step(statements.first_change())
        tables = sorted(table.name for table in read_tables(query) if (table.schema, table.kind) == ("main", "table"))
        chosen = chance.random() < 0.2 and tables and "rollback in function" not in case.faults
        names = tuple(chance.sample(tables, chance.randrange(1, len(tables) + 1))) if chosen else None
        statements.chosen = None if names is None else frozenset(name.lower() for name in names)
        step(Step("capture", bindings=() if names is None else (names,)))
        for _ in range(chance.choice([20, 60, 150])):
            for following in statements.next():
                step(following)
                if run.pending > CAPACITY // 2:
                    step(Step("sql", "ROLLBACK"))  # what the ring has no room for is dropped, as it should be
        run.finish()

    try:
        in_run(kind, body, Counter() if tally is None else tally)
    except InvalidError:
        return


def shrunk(found: Found) -> Found:
    """The same kind of difference with fewer steps: pieces are left out for as long as it still shows."""
    steps = list(found.steps)
    size, replays = max(1, len(steps) // 2), 0
    while replays < MOST_REPLAYS:
        start, shorter = 0, False
        while start < len(steps) and replays < MOST_REPLAYS:
            fewer = steps[:start] + steps[start + size :]
            replays += 1
            try:
                replay(found.kind, fewer)
                start += size
            except InvalidError:
                start += size
            except Found as again:
                if again.place == found.place:
                    found, steps, shorter = again, again.steps, True
                else:
                    start += size
        if size == 1 and not shorter:
            break
        size = max(1, size // 2)
    return found


def script(found: Found) -> str:
    """A program that shows it again."""
    return "\n".join(
        [
            "from tests.stress.differential import replay",
            "from tests.stress.sqlite_faults import Fault",
            "from tests.stress.sqlite_run import Kind",
            "from tests.stress.sqlite_session import Step",
            "",
            f"replay({found.kind}, [",
            *[f"    {step}," for step in found.steps],
            "])",
        ]
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.differential", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long to continue (default: 60)")
    parser.add_argument("--seeds", type=int, help="how many seeds to run (default: no limit)")
    parser.add_argument("--seed", type=int, default=1, help="the first (default: 1)")
    parser.add_argument("--case", choices=CASES, default="all", help="restricts what is drawn (default: all)")
    parser.add_argument("--whole", action="store_true", help="print all steps of a difference, not the fewest")
    parser.add_argument("--all", action="store_true", help="continue after a difference")
    parser.add_argument("--verbose", action="store_true", help="print each step before it runs")
    asked = parser.parse_args()
    faulthandler.enable()
    began = time.monotonic()
    tally: Counter[str] = Counter()
    seed, found_some = asked.seed, False
    while time.monotonic() - began < asked.seconds and (asked.seeds is None or seed < asked.seed + asked.seeds):
        # A process that SQLite kills leaves this line: the same seed with --verbose shows the step.
        print(f"seed {seed}", end="\r", file=sys.stderr, flush=True)
        try:
            run_seed(seed, CASES[asked.case], tally=tally, verbose=asked.verbose)
        except Found as found:
            seconds = time.monotonic() - began
            print(f"DIFFERENCE in seed {seed} after {seconds:.1f} s, {tally['statements']} statements")
            if not asked.whole:
                found = shrunk(found)
            print(script(found))
            print(
                f"{type(found.difference).__name__}: {found.difference}",
                *getattr(found.difference, "__notes__", []),
                sep="\n",
            )
            if not asked.all:
                return 1
            found_some = True
        tally["seeds"] += 1
        seed += 1
    seconds = time.monotonic() - began
    counts = ", ".join(f"{what} {count:,}" for what, count in sorted(tally.items()))
    print(f"{counts}; {tally['statements'] / seconds:,.0f} statements a second, {seconds:.1f} s")
    return int(found_some)


if __name__ == "__main__":
    sys.exit(main())
