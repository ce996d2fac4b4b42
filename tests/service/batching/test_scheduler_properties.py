"""Scheduler under random operations: no entry is lost or computed twice, and all bounds hold."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.schedulers import (
    BUDGET,
    NO_DEADLINE,
    ROWS,
    empty_scheduler,
    entry,
    form_batch,
    packed_cost,
    padded_cost,
    token_counts,
)

from assay.batching.entry import Entry
from assay.batching.scheduler import RANK, Batch, Cost
from assay.types import LANES, Lane


class Model:
    """A model of the scheduler: its operations, and the invariants that hold after each."""

    def __init__(self, cost: Cost) -> None:
        self.cost = cost
        self.scheduler = empty_scheduler(cost)
        self.now = 0.0
        self.waiting: list[Entry] = []
        self.taken: list[Entry] = []

    def add(self, tokens: int, lane: Lane, seconds: float) -> None:
        added = entry(
            tokens, lane, now=self.now, deadline=self.now + seconds, prefix_key=b"k" * (tokens % 3)
        )
        self.scheduler.add(added)
        self.waiting.append(added)

    def promote(self, which: int, lane: Lane) -> None:
        entries = self.waiting + self.taken
        if entries:
            self.scheduler.promote(entries[which % len(entries)], lane)

    def release(self, which: int) -> None:
        entries = self.waiting + self.taken
        if entries:
            released = entries[which % len(entries)]
            self.scheduler.release(released)
            (self.waiting if released in self.waiting else self.taken).remove(released)

    def form(self, put_back: bool) -> None:
        batch = self.scheduler.form(self.now, BUDGET, ROWS)
        for late in batch.expired:
            assert late.deadline <= self.now
            self.waiting.remove(late)
            self.scheduler.release(late)
        for computed in batch.entries:
            assert computed.deadline > self.now
            self.waiting.remove(computed)
        self.check(batch)
        if put_back and batch.entries:
            self.scheduler.put_back(batch, batch.entries)
            self.waiting += batch.entries
        else:
            self.taken += batch.entries

    def check(self, batch: Batch[Entry]) -> None:
        if not batch.entries:
            assert not self.waiting
            return
        inputs = [computed.input for computed in batch.entries]
        assert len(inputs) <= ROWS
        assert len(inputs) == 1 or self.cost(inputs) <= BUDGET
        leader = batch.entries[0]
        assert leader.lane == batch.lane
        for other in self.waiting:
            if other.lane == leader.lane and other.deadline > self.now:
                assert leader.virtual_start <= other.virtual_start
            assert RANK[other.lane] >= RANK[leader.lane] or batch.by_share


lanes = st.sampled_from(LANES)
steps = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 100), lanes, st.sampled_from([0.5, 5.0, NO_DEADLINE])),
    st.tuples(st.just("add"), st.integers(1, 20), lanes, st.just(NO_DEADLINE)),
    st.tuples(st.just("promote"), st.integers(0, 99), lanes),
    st.tuples(st.just("release"), st.integers(0, 99)),
    st.tuples(st.just("form"), st.booleans()),
)


@pytest.mark.parametrize("cost", [padded_cost, packed_cost])
@given(steps=st.lists(st.tuples(steps, st.floats(-2.0, 2.0)), max_size=80))
@settings(max_examples=150, deadline=None)
def test_no_entry_is_lost_or_computed_twice_and_all_bounds_hold(
    cost: Cost, steps: list[tuple[tuple[str, object], float]]
) -> None:
    model = Model(cost)
    for (name, *arguments), passed in steps:
        model.now += passed
        getattr(model, name)(*arguments)
        assert model.scheduler.tokens == sum(token_counts(model.waiting + model.taken))
    while model.waiting:
        model.form(put_back=False)
    for computed in list(model.taken):
        model.scheduler.release(computed)
    assert model.scheduler.tokens == 0
    assert not model.scheduler.holds_full_batch(1, 1)


def test_a_hundred_thousand_released_entries_are_passed_once_and_removed() -> None:
    scheduler = empty_scheduler()
    entries = [entry(8, now=n / 1e6) for n in range(100_000)]
    for waiting in entries:
        scheduler.add(waiting)
    for waiting in entries[:-20]:
        scheduler.release(waiting)
    assert [row for _ in range(3) for row in form_batch(scheduler)] == entries[-20:]
    assert scheduler.tokens == 20 * 8
