"""Scheduler under random programs: nothing lost, nothing doubled, every bound held."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.schedulers import BUDGET, NEVER, ROWS, entry, formed, lengths, packed, padded, queue

from assay.batching.entry import Entry
from assay.batching.scheduler import RANK, Batch, Cost
from assay.types import LANES, Lane


class Model:
    """What may be done to a queue, beside what then must hold of it."""

    def __init__(self, cost: Cost) -> None:
        self.cost = cost
        self.queue = queue(cost)
        self.now = 0.0
        self.waiting: list[Entry] = []
        self.taken: list[Entry] = []

    def add(self, tokens: int, lane: Lane, stays: float) -> None:
        late = entry(tokens, lane, self.now, self.now + stays, prefix_key=b"k" * (tokens % 3))
        self.queue.add(late)
        self.waiting.append(late)

    def promote(self, which: int, lane: Lane) -> None:
        everyone = self.waiting + self.taken
        if everyone:
            self.queue.promote(everyone[which % len(everyone)], lane)

    def release(self, which: int) -> None:
        everyone = self.waiting + self.taken
        if everyone:
            one = everyone[which % len(everyone)]
            self.queue.release(one)
            (self.waiting if one in self.waiting else self.taken).remove(one)

    def form(self, put_back: bool) -> None:
        batch = self.queue.form(self.now, BUDGET, ROWS)
        for late in batch.expired:
            assert late.deadline <= self.now
            self.waiting.remove(late)
            self.queue.release(late)
        for one in batch.entries:
            assert one.deadline > self.now
            self.waiting.remove(one)
        self.check(batch)
        if put_back and batch.entries:
            self.queue.put_back(batch, batch.entries)
            self.waiting += batch.entries
        else:
            self.taken += batch.entries

    def check(self, batch: Batch[Entry]) -> None:
        if not batch.entries:
            assert not self.waiting
            return
        inputs = [one.input for one in batch.entries]
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
    st.tuples(st.just("add"), st.integers(1, 100), lanes, st.sampled_from([0.5, 5.0, NEVER])),
    st.tuples(st.just("add"), st.integers(1, 20), lanes, st.just(NEVER)),
    st.tuples(st.just("promote"), st.integers(0, 99), lanes),
    st.tuples(st.just("release"), st.integers(0, 99)),
    st.tuples(st.just("form"), st.booleans()),
)


@pytest.mark.parametrize("cost", [padded, packed])
@given(steps=st.lists(st.tuples(steps, st.floats(-2.0, 2.0)), max_size=80))
@settings(max_examples=150, deadline=None)
def test_nothing_is_lost_or_doubled_and_all_bounds_hold(
    cost: Cost, steps: list[tuple[tuple[str, object], float]]
) -> None:
    model = Model(cost)
    for (name, *arguments), passed in steps:
        model.now += passed
        getattr(model, name)(*arguments)
        assert model.queue.tokens == sum(lengths(model.waiting + model.taken))
    while model.waiting:
        model.form(put_back=False)
    for one in list(model.taken):
        model.queue.release(one)
    assert model.queue.tokens == 0
    assert not model.queue.holds_full_batch(1, 1)


def test_a_hundred_thousand_who_left_are_passed_once_and_let_go() -> None:
    one = queue()
    crowd = [entry(8, now=n / 1e6) for n in range(100_000)]
    for waiting in crowd:
        one.add(waiting)
    for waiting in crowd[:-20]:
        one.release(waiting)
    assert [*formed(one), *formed(one), *formed(one)] == crowd[-20:]
    assert one.tokens == 20 * 8
