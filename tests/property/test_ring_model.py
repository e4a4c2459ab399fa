"""A bus of one ring against a plain model: a deque of events, an array of row numbers, and every legal arena.

The model gets each call that was made to the ring and predicts the result. It predicts slots, order, runs of rows,
accounts and pressure exactly. The ring chooses where an event goes in the arena, within a rule: behind the last one, or
at the beginning when nothing is outstanding. So the model keeps the set of arenas that the rule allows, removes those
that disagree with what the ring does, and fails when none is left.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nodedb_ring import ClosedError, EventBatch, EventTooLargeError, PressureState, WriteEvent, create_event_bus
from nodedb_ring.batch.schema import NULL_LENGTH, VALUE_FIELDS

from .drawn_events import contents, reserved_rows
from .plain_ring import NORMAL, SUSPENDED, THROTTLED, VARIABLE, Account, Arena, Held, Span, next_pressure, payload_size


class RingModel(RuleBasedStateMachine):
    """The rules are the calls of both ends; the invariants compare every account after each of them."""

    @initialize(capacity=st.sampled_from([1, 2, 4, 16]), arena_bytes=st.sampled_from([1, 16, 40, 64, 100, 300, 65536]))
    def make(self, capacity: int, arena_bytes: int) -> None:
        (self.producer,), (self.consumer,) = create_event_bus(1, capacity, arena_bytes=arena_bytes)
        self.capacity, self.size = capacity, arena_bytes
        self.waiting: deque[WriteEvent] = deque()
        self.held: list[Held] = []
        self.index = list(range(capacity))  # the row at each position
        self.taken = self.released = 0
        self.outstanding: list[int] = []  # positions published and not released, in order
        self.arenas: set[Arena] = {Arena(0, 0, ())}
        self.account = Account()
        self.states: set[PressureState] = {NORMAL}
        self.producer_closed = self.consumer_closed = False

    # ---- what the model knows ----

    @property
    def slots(self) -> int:
        return self.account.emitted - self.released

    def percent(self, payload: int) -> int:
        return max(self.slots * 100 // self.capacity, payload * 100 // self.size)

    def observe(self) -> int:
        """Strikes out the arenas that the ring is not in; returns the utilization."""
        in_use = self.producer.stats().bytes_in_use
        legal = {arena for arena in self.arenas if arena.in_use() == in_use}
        assert legal, f"{in_use} bytes in use: legal are {sorted({arena.in_use() for arena in self.arenas})}"
        self.arenas = legal
        return self.percent(in_use)

    def move_pressure(self, before: int, exact: bool) -> None:
        """After attempts: the producer measured at the end, and perhaps on the way there from `before`."""
        after = self.observe()
        old = set(self.states)
        if not exact:
            for percent in range(before, after + 1):
                self.states |= {next_pressure(state, percent) for state in self.states}
        self.states = {next_pressure(state, after) for state in self.states}
        stats = self.producer.stats()
        entered = {
            NORMAL: stats.normal_transitions,
            THROTTLED: stats.throttle_transitions,
            SUSPENDED: stats.suspend_transitions,
        }
        if exact and len(old) == 1:
            for state in self.states - old:
                self.account.entered[state] += 1
            assert entered == self.account.entered
        self.account.entered = entered

    def attempt(self, events: list[WriteEvent], accepted: int, before: int) -> None:
        """Counts attempts, of which the first so many were enqueued, and checks that the arena explains it."""
        account = self.account
        account.attempts += len(events)
        account.highest = max([event.sequence for event in events] + [account.highest or 0])
        for number, event in enumerate(events):
            size = payload_size(event)
            placed = {place for arena in self.arenas for place in arena.places(self.size, size)}
            if self.consumer_closed or self.slots == self.capacity:
                assert number >= accepted, "an event was enqueued without a slot, or without a consumer"
            if number < accepted:
                assert placed, f"{size} bytes were enqueued although no arena has room: {self.arenas}"
                self.arenas = {arena.publish([Span(arena.head, arena.head + size)]) for arena in placed}
                self.publish(event)
            else:
                if not self.consumer_closed and self.slots < self.capacity:
                    self.arenas = {arena for arena in self.arenas if not arena.places(self.size, size)}
                    assert self.arenas, f"{size} bytes were refused where every arena has room"
                break
        self.drop(events[accepted:])
        self.high_water()
        self.move_pressure(before, exact=len(events) == 1)

    def publish(self, event: WriteEvent) -> None:
        self.outstanding.append(self.account.emitted)
        self.account.emitted += 1
        self.waiting.append(event)

    def drop(self, refused: list[WriteEvent]) -> None:
        account = self.account
        if not refused:
            return
        if account.first_dropped is None:
            account.first_dropped = refused[0].sequence
        account.last_dropped = refused[-1].sequence
        if self.consumer_closed:
            account.disconnected += len(refused)
        else:
            account.full += len(refused)

    def high_water(self) -> None:
        if self.slots:
            self.account.slots_high = max(self.account.slots_high, self.slots)
            self.account.bytes_high = max(self.account.bytes_high, self.producer.stats().bytes_in_use)

    def run(self, most: int) -> int:
        """The length of the contiguous run of rows at the front."""
        slot = self.taken % self.capacity
        most = min(most, len(self.waiting), self.capacity - slot)
        count = 0
        while count < most and self.index[slot + count] == self.index[slot] + count:
            count += 1
        return count

    def take(self, count: int) -> Held:
        positions = list(range(self.taken, self.taken + count))
        rows = [self.index[position % self.capacity] for position in positions]
        self.taken += count
        if count:
            last = self.outstanding.index(positions[-1])
            self.arenas = {arena._replace(taken=arena.spans[last].end) for arena in self.arenas}
        return Held([self.waiting.popleft() for _ in positions], rows, positions, None)

    def give_back(self, gone: Held) -> None:
        for row in gone.rows:
            self.index[self.released % self.capacity] = row
            self.released += 1
        without = {self.outstanding.index(position) for position in gone.positions}
        left = [position for position in self.outstanding if position not in gone.positions]
        after: set[Arena] = set()
        for arena in self.arenas:
            after |= set(arena.tails(without, bool(left) and left[0] < self.taken))
        self.arenas = after
        self.outstanding = left

    def numbered(self, fields: list[dict[str, Any]], first: int) -> list[WriteEvent]:
        return [WriteEvent(sequence=first + i, **each) for i, each in enumerate(fields)]

    def sequence(self, step: int) -> int:
        """Mostly the next number; now and then one that was tried already, or one after a hole."""
        return max(0, self.producer.next_sequence + step)

    def out(self) -> list[Held]:
        """The leases that have not ended, not those that an array outlives."""
        return [held for held in getattr(self, "held", ()) if held.lease is not None]

    # ---- the producer's calls ----

    steps = st.sampled_from([0, 0, 0, 0, 5, -2])

    @precondition(lambda self: not self.producer_closed)
    @rule(content=contents(), step=steps)
    def emit(self, content: dict[str, Any], step: int) -> None:
        event = WriteEvent(sequence=self.sequence(step), **content)
        before = self.observe()
        if payload_size(event) > self.size:
            with pytest.raises(EventTooLargeError):
                self.producer.emit(event)
            return
        self.attempt([event], int(self.producer.emit(event)), before)

    @precondition(lambda self: not self.producer_closed)
    @rule(fields=st.lists(contents(), max_size=20), step=steps)
    def emit_batch(self, fields: list[dict[str, Any]], step: int) -> None:
        events = self.numbered(fields, self.sequence(step))
        batch = EventBatch.from_events(events)
        before = self.observe()
        if any(payload_size(event) > self.size for event in events):
            with pytest.raises(EventTooLargeError):
                self.producer.emit_batch(batch)
            return
        accepted = self.producer.emit_batch(batch)
        if events:
            self.attempt(events, accepted, before)

    @precondition(lambda self: not self.producer_closed)
    @rule(wanted=reserved_rows, block=st.integers(0, 60), fails=st.booleans(), data=st.data())
    def reserve(
        self, wanted: list[tuple[dict[str, Any], tuple[Any, ...]]], block: int, fails: bool, data: st.DataObject
    ) -> None:
        block = min(block, self.size)
        first = self.sequence(0)
        letters = bytes(ord("a") + (first + i) % 26 for i in range(block))
        before = self.observe()
        placed = {place for arena in self.arenas for place in arena.places(self.size, block)}
        events: list[WriteEvent] = []
        spans: list[tuple[int, int]] = []
        try:
            with self.producer.reserve(len(wanted), block) as rows:
                if len(rows):
                    assert placed, f"a block of {block} bytes was reserved where no arena has room"
                    assert len(rows) == min(len(wanted), self.capacity - self.slots)
                    self.arenas = placed
                    if block:
                        rows.payload[:] = np.frombuffer(letters, np.uint8)
                elif self.slots < self.capacity:
                    self.arenas = {arena for arena in self.arenas if not arena.places(self.size, block)}
                    assert self.arenas, f"a block of {block} bytes was refused where every arena has room"
                for i in range(len(rows)):
                    event, used = self.fill(rows, i, *wanted[i], first + i, letters)
                    events.append(event)
                    spans.append(used)
                if fails:
                    raise KeyError(first)
        except KeyError:
            assert self.producer.next_sequence == first
            return
        assert rows.published == (0 if self.consumer_closed else len(events))
        if not events:
            return
        self.account.attempts += len(events)
        self.account.highest = max(self.account.highest or 0, events[-1].sequence)
        if self.consumer_closed:
            self.drop(events)
        else:
            self.arenas = {arena.publish(self.pinned(spans, arena.head)) for arena in self.arenas}
            for event in events:
                self.publish(event)
        self.high_water()
        self.move_pressure(before, exact=False)

    def fill(
        self, rows: Any, i: int, fixed: dict[str, Any], stretch: tuple[Any, ...], sequence: int, letters: bytes
    ) -> tuple[WriteEvent, tuple[int, int]]:
        """Writes row `i` of a reservation; returns it as an event, with the bytes of the block from where to where."""
        variable: dict[str, Any] = {}
        low, high = NULL_LENGTH, 0
        for name, at in zip(VARIABLE, stretch, strict=True):
            if at is None and name not in ("collection", "row_id"):
                rows[f"{name}_length"][i] = NULL_LENGTH
                variable[name] = None
                continue
            start = (at or (0, 0))[0] % (len(letters) + 1)
            value = letters[start : start + (at or (0, 0))[1]]
            rows[f"{name}_offset"][i], rows[f"{name}_length"][i] = start, len(value)
            variable[name] = value if name in VALUE_FIELDS else value.decode()
            if value:
                low, high = min(low, start), max(high, start + len(value))
        for name, value in fixed.items():
            rows[name][i] = -(2**63) if value is None else value
        return WriteEvent(sequence=sequence, **fixed, **variable), (low, high)

    def pinned(self, used: list[tuple[int, int]], head: int) -> list[Span]:
        """What each row of a reservation pins: from the first byte that it or a later one uses, to that of the next."""
        end = max(high for _, high in used)
        starts: list[int] = []
        for low, _ in reversed(used):
            end_or_later = starts[-1] if starts else end
            starts.append(min(low, end_or_later))
        starts.reverse()
        ends = [*starts[1:], end]
        return [Span(head + start, head + stop) for start, stop in zip(starts, ends, strict=True)]

    @rule()
    def look_at_the_pressure(self) -> None:
        state = self.producer.pressure_state
        self.move_pressure(0, exact=True)
        self.states &= {state}
        assert self.states

    # ---- the consumer's calls ----

    @precondition(lambda self: not self.consumer_closed)
    @rule()
    def try_recv(self) -> None:
        event = self.consumer.try_recv()
        if not self.waiting:
            assert event is None
            return
        gone = self.take(1)
        assert event == gone.events[0]
        self.give_back(gone)

    @precondition(lambda self: not self.consumer_closed)
    @rule(most=st.integers(1, 20))
    def drain(self, most: int) -> None:
        batch = self.consumer.drain(most)
        gone = self.take(min(most, len(self.waiting)))
        self.compare(batch, gone.events)
        if gone.events:
            self.account.batches += 1
        for k in range(len(gone.events)):
            self.give_back(Held([], [gone.rows[k]], [gone.positions[k]], None))

    @precondition(lambda self: not self.consumer_closed and len(self.held) < 4)
    @rule(most=st.integers(1, 20))
    def lease(self, most: int) -> None:
        lease = self.consumer.lease(most)
        assert len(lease.batch) == self.run(most)
        if len(lease.batch) == 0:
            lease.release()
            return
        held = self.take(len(lease.batch))
        self.account.batches += 1
        held.lease = lease
        self.compare(lease.batch, held.events)
        self.held.append(held)

    @precondition(lambda self: self.out())
    @rule(which=st.integers(0, 3), way=st.sampled_from(["release", "drop", "with", "raise"]))
    def end_a_lease(self, which: int, way: str) -> None:
        held = self.out()[which % len(self.out())]
        lease = held.lease
        assert lease is not None
        self.compare(lease.batch, held.events)
        if way == "release":
            lease.release()
        elif way == "with":
            with lease:
                pass
        elif way == "raise":
            with pytest.raises(KeyError), lease:
                raise KeyError(which)
        held.lease = None
        del lease
        self.held.remove(held)
        self.give_back(held)

    @precondition(lambda self: self.out())
    @rule(which=st.integers(0, 3), part=st.sampled_from(["records", "payload", "column", "slice"]))
    def end_a_lease_that_an_array_outlives(self, which: int, part: str) -> None:
        held = self.out()[which % len(self.out())]
        assert held.lease is not None
        batch = held.lease.batch
        if part == "slice" or not len(batch.payload):
            held.kept = batch[0:1]
        else:
            array = {"records": batch.records, "payload": batch.payload, "column": batch.lsn}[part]
            assert not array.flags.writeable
            held.kept, held.kept_bytes = array[:], array.tobytes()
            del array
        del batch
        with pytest.raises(BufferError):
            held.lease.release()
        held.lease = None

    @precondition(lambda self: any(held.kept is not None for held in self.held))
    @rule()
    def drop_an_array_that_outlived_its_lease(self) -> None:
        held = next(held for held in self.held if held.kept is not None)
        if isinstance(held.kept, np.ndarray) and held.kept.dtype != np.uint8:
            assert held.kept.tobytes() == held.kept_bytes
        held.kept = None
        self.held.remove(held)
        self.give_back(held)

    def compare(self, batch: EventBatch, events: list[WriteEvent]) -> None:
        """Field by field, as events and as columns; and the batch must pass the check of one from outside."""
        assert list(batch) == events
        assert batch.sequence.tolist() == [event.sequence for event in events]
        again = EventBatch(batch.records, batch.payload)
        assert again.strings("row_id").tolist() == [event.row_id for event in events]
        assert again.values("new_value").tolist() == [event.new_value for event in events]

    # ---- closing ----

    @precondition(lambda self: not self.producer_closed and self.account.attempts > 12)
    @rule()
    def close_the_producer(self) -> None:
        self.producer.close()
        self.producer_closed = True
        with pytest.raises(ClosedError):
            self.producer.emit_batch(EventBatch.from_events([]))

    @precondition(lambda self: not self.consumer_closed and self.account.attempts > 12)
    @rule()
    def close_the_consumer(self) -> None:
        self.consumer.close()
        self.consumer_closed = True
        with pytest.raises(ClosedError):
            self.consumer.try_recv()

    # ---- after every step ----

    @invariant()
    def accounts_agree(self) -> None:
        if not hasattr(self, "account"):
            return
        account, stats, taken = self.account, self.producer.stats(), self.consumer.stats()
        percent = self.observe()
        assert stats.emitted == account.emitted
        assert (stats.dropped_full, stats.dropped_disconnected) == (account.full, account.disconnected)
        assert stats.emitted + stats.dropped == account.attempts
        assert (stats.first_dropped_sequence, stats.last_dropped_sequence) == (
            account.first_dropped,
            account.last_dropped,
        )
        assert stats.emitted_sequence == self.producer.emitted_sequence == account.highest
        assert self.producer.next_sequence == (1 if account.highest is None else account.highest + 1)
        assert stats.slots_in_use == self.slots <= self.capacity
        assert stats.slots_high_water == account.slots_high
        # The rest of a lap that a reservation left for nothing is in use too, and may be seen before the next event.
        account.bytes_most = max(account.bytes_most, stats.bytes_in_use)
        assert account.bytes_high <= stats.bytes_high_water <= account.bytes_most
        assert (taken.received, taken.held, taken.batches) == (
            self.taken,
            sum(len(held.events) for held in self.held),
            account.batches,
        )
        assert self.producer.utilization == percent
        assert 0 <= percent <= 100
        self.states = {s for s in self.states if next_pressure(s, percent) is self.consumer.pressure_state}
        assert self.states, f"the consumer sees {self.consumer.pressure_state} at {percent} %"
        assert self.producer.is_consumer_disconnected == self.consumer_closed
        assert self.consumer.is_producer_disconnected == (self.producer_closed and not self.waiting)

    @invariant()
    def leases_read_as_when_taken(self) -> None:
        for held in getattr(self, "held", ()):
            if held.lease is not None:
                assert list(held.lease.batch) == held.events


RingModel.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestRingModel = RingModel.TestCase
