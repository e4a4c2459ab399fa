"""What a mutant is, and the checks that catch mutants."""

from __future__ import annotations

import dataclasses

CHECKS = {
    "capture": ["tests/unit/capture/harm"],
    "schema": ["tests/unit/capture/test_capture_schema.py", "-k", "schema_change"],
    "blocks": ["tests/unit/capture/test_capture_blocks.py"],
    "differential": ["tests/stress/test_differential.py", "-k", "all or joins"],
    "async": ["tests/unit/ends/test_asynchronous.py", "-k", "goes_ends"],
    "fan-in": ["tests/unit/fan_in/test_wait.py", "tests/unit/fan_in/test_wait_signals.py"],
    "fan-in commits": ["tests/unit/fan_in/test_commits.py"],
    "commit numbers": ["tests/unit/capture/log/test_commit_numbers.py"],
    "snapshot": ["tests/unit/capture/test_snapshot.py"],
    "foreign": ["tests/unit/capture/log/test_foreign.py", "-k", "not default and not without"],
    "pgoutput": ["tests/unit/capture/postgres/test_pgoutput.py", "tests/unit/capture/postgres/test_copy.py"],
    "pgoutput pages": ["tests/unit/capture/postgres/test_guarded.py", "-k", "types0-True or lie or row"],
    "capture position": ["tests/unit/capture/postgres/test_position.py"],
    "delivery": ["tests/unit/capture/postgres/test_delivery.py", "tests/unit/capture/postgres/test_keepalive.py"],
    "snapshot order": ["tests/unit/capture/postgres/test_snapshot_order.py"],
    "confirmed": ["tests/unit/capture/postgres/test_postgres_capture.py", "-k", "not_confirmed or another_slot"],
    "reconnect": ["tests/unit/capture/postgres/test_postgres_failures.py", "-k", "twice and [30]"],
    "fan-in async": ["tests/unit/fan_in/test_wait_async.py"],
    "fan-in merge": ["tests/unit/fan_in/test_merge.py"],
    "takes": ["tests/unit/fan_in/test_interrupted_takes.py"],
    "fan-in followers": ["tests/unit/fan_in/test_followers.py"],
    "consumers": ["tests/unit/bus/test_shared_consumers.py"],
    "gates": ["tests/unit/fan_in/test_gates.py"],
    "wakes": ["tests/unit/core/test_lost_wakes.py", "tests/unit/core/test_pid_namespaces.py"],
    "woken": ["tests/stress/test_native_traffic.py", "-k", "sleeping_consumer_is_woken and 0"],
    "fences": ["tests/unit/core/test_fences.py"],
    "polling": ["tests/unit/core/test_polling.py"],
    "bus": [
        "tests/unit/bus/test_private_bus.py",
        "tests/unit/bus/test_private_room.py",
        "tests/unit/bus/test_private_accounts.py",
    ],
    "lease": ["tests/unit/ends/test_lease.py", "tests/unit/ends/test_lease_ending.py"],
    "traceback": ["tests/unit/ends/test_lease_traceback.py", "tests/unit/batch/test_shared_batches.py"],
    "fork": ["tests/unit/ends/test_lease_fork.py"],
    "bytes": ["tests/unit/batch/test_row_bytes.py"],
    "columns": ["tests/unit/batch/test_columns.py"],
    "encode": ["tests/unit/batch/rows/test_encode_refusals.py"],
    "encoded": ["tests/unit/batch/rows/test_encode_rows.py", "-k", "struct or slice or given"],
    "pages": ["tests/unit/batch/rows/test_guarded_encode.py"],
    "split": ["tests/unit/batch/rows/test_split.py"],
    "rows": ["tests/unit/batch/rows/test_malformed.py", "-k", "said or truncation or timestamps"],
    "row pairs": ["tests/unit/batch/rows/test_pairs.py"],
    "history": ["tests/unit/log/sqlite/test_sqlite_history.py"],
    "claims": ["tests/unit/log/sqlite/test_sqlite_claims.py"],
    "joining": ["tests/unit/log/sqlite/test_sqlite_upkeep.py", "-k", "intact or joined"],
    "linger": ["tests/unit/recovery/test_follow_joined.py"],
    "row pages": ["tests/unit/batch/rows/test_guarded.py"],
    "row lease": ["tests/unit/batch/rows/test_rows.py", "-k", "lease"],
    "pressure": ["tests/unit/core/test_pressure.py"],
    "reserve": ["tests/unit/ends/test_reservation.py"],
    "room": ["tests/unit/ends/test_wait_for_room.py", "-k", "role_is_kept"],
    "role": [
        "tests/unit/bus/test_shared_roles.py",
        "tests/unit/bus/test_shared_forks.py",
        "tests/unit/bus/test_shared_successors.py",
        "-k",
        "claim",
    ],
    "death": ["tests/unit/bus/test_shared_disconnect.py", "-k", "has_gone_and_a_successor"],
    "sleep": ["tests/stress/test_native_traffic.py", "-k", "announced or that_sleeps or sleeps_on"],
    "step": ["tests/stress/test_single_step.py"],
    "between": ["tests/stress/test_interleaving.py"],
    "tsan": ["tests/stress/test_native_traffic.py", "-k", "every_pair or arena or wrap"],
    "traffic": ["tests/stress/test_native_traffic.py"],
    "kill": ["tests/stress/test_kill.py", "-k", "fork-"],
    "model": ["tests/property/test_ring_model.py"],
}
FREE_THREADS = {
    "first producer": ["tests/stress/test_free_threads_first_use.py", "-k", "becomes_the_producer and emit"],
    "first consumer": ["tests/stress/test_free_threads_first_use.py", "-k", "becomes_the_consumer and drain"],
    "one end": ["tests/stress/test_free_threads_first_use.py", "-k", "one_end_of_a_kind"],
    "closed producer": [
        "tests/stress/test_free_threads_close.py",
        "-k",
        "(comes_before_the_end or where_it_stopped) and emit",
    ],
    "dropped leases": ["tests/stress/test_free_threads_leases.py", "-k", "go_back_once and private"],
    "read leases": ["tests/stress/test_free_threads_leases.py", "-k", "read_right and event"],
    "asleep": ["tests/stress/test_free_threads_leases.py", "-k", "while_the_consumer_sleeps"],
}
CHECKS |= FREE_THREADS
ATTEMPTS = {"tsan": 6, "traffic": 6, "kill": 6, "woken": 4} | dict.fromkeys(FREE_THREADS, 4)
"""Runs after which a race that was not met counts as one that the check does not see; the others have one."""


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One break: pairs of text in one file, each of which stands there once; modules to compile again.

    These are the modules whose inlined code the check runs: the tests' own native modules are compiled in any case.
    File and modules go by their paths in the package.
    """

    what: str
    check: str
    file: str
    edits: tuple[tuple[str, str], ...]
    rebuild: tuple[str, ...] | None = None
    """None is the file's own module."""
    also: str = ""
    """A check that draws lots and has to see this one, too."""

    @property
    def modules(self) -> tuple[str, ...]:
        return (self.file.removesuffix(".pyx"),) if self.rebuild is None else self.rebuild

    @property
    def checks(self) -> list[str]:
        return [self.check, self.also] if self.also else [self.check]
