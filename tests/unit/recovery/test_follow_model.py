"""Any course of events against what a follower promises: all that was logged, each once, in order."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nodedb_ring import EventBatch, EventProducer, Follower, WriteEvent, WriteOp, follow
from tests.unit.builders import event, ring, sequences

from .memory_log import LogDownError, MemoryLog


class Following(RuleBasedStateMachine):
    """A ring of 1 to 8 slots, its log, and followers of one group one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.log = MemoryLog()
        # All that was logged, in order: its number, and whether the follower is to hand it out.
        self.logged: list[tuple[int, bool]] = []
        # Logged, and not in the ring: never tried, or dropped.
        self.missed: list[WriteEvent] = []
        self.got: list[int] = []
        self.committed = 0
        self.closed = False

    @initialize(
        capacity=st.integers(1, 8),
        wanted=st.booleans(),
        first=st.integers(0, 1),
        most=st.integers(1, 5),
        linger=st.sampled_from([0.0, 60.0]),
    )
    def begin(self, capacity: int, wanted: bool, first: int, most: int, linger: float) -> None:
        self.linger = linger
        self.producer: EventProducer
        self.producer, self.consumer = ring(capacity)
        self.wanted = wanted
        self.most = most
        self.next = first
        self.follower = self._follow()

    def _follow(self) -> Follower:
        return follow(
            self.consumer, self.log, group="g", heartbeats=self.wanted, max_events=self.most, linger=self.linger
        )

    def _new(self, count: int, silent: list[bool]) -> EventBatch:
        made: list[WriteEvent] = []
        for place in range(count):
            is_silent = silent[place % len(silent)]
            kind = {"op": WriteOp.HEARTBEAT, "count": 0} if is_silent else {}
            made.append(event(self.next, **kind))
            self.logged.append((self.next, self.wanted or not is_silent))
            self.next += 1
        batch = EventBatch.from_events(made)
        self.log.append(0, batch)
        return batch

    silences = st.one_of(st.just([False]), st.lists(st.booleans(), min_size=1, max_size=5))

    @precondition(lambda self: not self.closed)
    @rule(count=st.integers(1, 12), silent=silences)
    def emit_batch(self, count: int, silent: list[bool]) -> None:
        batch = self._new(count, silent)
        self.missed += list(batch)[self.producer.emit_batch(batch) :]

    @precondition(lambda self: not self.closed)
    @rule(count=st.integers(1, 4), silent=silences)
    def emit_one_by_one(self, count: int, silent: list[bool]) -> None:
        for each in self._new(count, silent):
            if not self.producer.emit(each):
                self.missed.append(each)

    @precondition(lambda self: not self.closed)
    @rule(count=st.integers(1, 3))
    def log_and_do_not_emit(self, count: int) -> None:
        """As a producer does that dies in between, or continues later: see retry."""
        self.missed += list(self._new(count, [False]))

    @precondition(lambda self: self.missed and not self.closed)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.missed) - 1))
        if self.producer.emit(self.missed[place]):
            del self.missed[place]

    @precondition(lambda self: self.logged and not self.closed)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """A ring may offer again what it has offered, as a shared one does when its consumer died."""
        number, _ = data.draw(st.sampled_from(self.logged))
        [again] = [each for batch in self.log.read(0, number, number) for each in batch]
        self.producer.emit(again)

    @rule(steps=st.integers(1, 3))
    def take(self, steps: int) -> None:
        for _ in range(steps):
            self._take_one()

    def _take_one(self) -> bool:
        before, handed, ended = self.follower.stats(), self.log.handed, self.follower.position
        batch = self.follower.next_batch(0)
        numbers = sequences(batch)
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
        self.got += numbers
        after = self.follower.stats()
        assert after.delivered == before.delivered + len(numbers)
        assert (after.position or 0) >= (ended or 0)
        if numbers:
            assert after.position == numbers[-1]
        # As few batches of the log at a time as fill one: more are read when nothing of them is left to hand out.
        held = self.log.handed - handed
        largest = max((len(each) for each in self.log.batches.get(0, [])), default=0)
        if after.heartbeats == before.heartbeats:
            assert held < self.most + largest or self.linger
        return bool(numbers)

    @rule()
    def fail_and_go_on(self) -> None:
        self.log.fail_after = 0
        try:
            self._take_one()
        except LogDownError:
            position = self.follower.position
            assert self._expected_up_to(position) == self.got
        self.log.fail_after = None

    @rule()
    def commit(self) -> None:
        self.follower.commit()
        self.committed = len(self.got)
        stats = self.follower.stats()
        if stats.delivered or stats.heartbeats:
            assert self.log.marks["g", 0] == stats.position

    @rule()
    def restart(self) -> None:
        """Another follower of the group continues behind the last commit, or at the first event that there is."""
        had = self.log.marks.get(("g", 0))
        self.follower.close()
        del self.got[self.committed :]
        self.follower = self._follow()
        if had is not None:
            assert self.follower.position == had

    @precondition(lambda self: not self.closed)
    @rule()
    def close_producer(self) -> None:
        self.producer.close()
        self.closed = True

    def _expected_up_to(self, position: int | None) -> list[int]:
        return [] if position is None else [number for number, is_due in self.logged if is_due and number <= position]

    @invariant()
    def nothing_is_lost_doubled_or_out_of_order(self) -> None:
        if hasattr(self, "follower"):
            assert self.got == self._expected_up_to(self.follower.position)

    def teardown(self) -> None:
        if not hasattr(self, "follower"):
            return
        if not self.closed:
            # What the ring has tried comes while the producer lives, whether anything comes after it or not.
            while self._take_one():
                pass
            tried = self.producer.emitted_sequence
            if tried is not None:
                assert self.follower.position is not None
                assert self.follower.position >= tried
            self.producer.close()
        while self._take_one():
            pass
        assert self.follower.ended
        assert self.got == [number for number, is_due in self.logged if is_due]
        assert self.follower.stats().lag == 0
        assert list(self.follower) == []


TestFollowing = Following.TestCase
TestFollowing.settings = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
