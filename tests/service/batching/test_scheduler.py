"""Scheduler: the order of entries, the room of each lane, and freedom from loss and starvation."""

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.schedulers import (
    BUDGET,
    ROWS,
    SPEED,
    empty_scheduler,
    entry,
    filled_scheduler,
    form_batch,
    measured_throughput,
    packed_cost,
    padded_cost,
    token_counts,
)

from assay.batching.entry import Entry
from assay.batching.scheduler import (
    AGEING_FACTOR,
    ASSUMED_SPEED,
    MIN_SHARE,
    RANK,
    WINDOW,
    Batch,
    Cost,
    Scheduler,
    ThroughputEstimator,
)
from assay.types import LANES, Lane
from assay_models.base import Input


class TestFormingBatches:
    def test_equal_entries_are_computed_in_order_of_arrival(self) -> None:
        waiting = [entry(8) for _ in range(12)]
        scheduler = filled_scheduler(waiting)
        assert form_batch(scheduler) == waiting[:8]
        assert form_batch(scheduler) == waiting[8:]
        assert form_batch(scheduler) == []

    @pytest.mark.parametrize("cost", [padded_cost, packed_cost])
    def test_the_leader_is_batched_with_the_nearest_lengths(self, cost: Cost) -> None:
        scheduler = filled_scheduler(
            [entry(10), entry(40, now=-1.7), entry(12), entry(30), entry(11)], cost
        )
        assert token_counts(form_batch(scheduler, budget=48)) == [10, 11, 12]
        assert token_counts(form_batch(scheduler, budget=48)) == [40]

    def test_a_row_is_not_padded_to_many_times_its_length(self) -> None:
        scheduler = filled_scheduler([entry(10), entry(1000)])
        assert token_counts(form_batch(scheduler, budget=4000)) == [10]
        assert token_counts(form_batch(scheduler, budget=4000)) == [1000]

    def test_without_padding_short_and_long_entries_share_a_batch(self) -> None:
        scheduler = filled_scheduler([entry(10), entry(1000)], packed_cost)
        assert token_counts(form_batch(scheduler, budget=4000)) == [10, 1000]

    def test_small_inputs_share_a_batch_in_spite_of_padding(self) -> None:
        scheduler = filled_scheduler([entry(1), entry(50)])
        assert token_counts(form_batch(scheduler, budget=4000)) == [1, 50]

    def test_entries_with_the_leaders_prefix_come_first_in_their_order(self) -> None:
        alike = [entry(n, now=n / 1000, prefix_key=b"k") for n in (10, 30, 20)]
        others = [entry(10, now=0.001), entry(10, now=0.002, prefix_key=b"other")]
        scheduler = filled_scheduler([*alike, *others], packed_cost)
        assert form_batch(scheduler) == [alike[0], alike[2], alike[1]]
        assert form_batch(scheduler) == others

    def test_empty_prefix_keys_do_not_match(self) -> None:
        scheduler = filled_scheduler(
            [entry(10), entry(30), entry(11, prefix_key=b"k")], packed_cost
        )
        assert token_counts(form_batch(scheduler, budget=21)) == [10, 11]

    def test_an_entry_above_the_budget_is_computed_alone(self) -> None:
        scheduler = filled_scheduler([entry(1000), entry(1000)])
        assert token_counts(form_batch(scheduler)) == [1000]
        assert token_counts(form_batch(scheduler)) == [1000]

    def test_the_cost_function_is_called_a_logarithmic_number_of_times(self) -> None:
        calls = 0

        def counting_cost(inputs: Sequence[Input]) -> int:
            nonlocal calls
            calls += 1
            return packed_cost(inputs)

        scheduler = filled_scheduler((entry(10) for _ in range(5000)), counting_cost)
        assert len(scheduler.form(0.0, 3000, WINDOW).entries) == 300
        assert calls <= math.log2(WINDOW) + 3

    def test_expired_entries_are_returned_and_not_computed(self) -> None:
        gone = [entry(8, deadline=1.0) for _ in range(WINDOW + 5)]
        stays = entry(8)
        scheduler = filled_scheduler([*gone, stays])
        batch = scheduler.form(1.0, BUDGET, ROWS)
        assert batch.entries == [stays]
        assert batch.expired == gone
        for waiting in [*gone, stays]:
            scheduler.release(waiting)
        assert scheduler.tokens == 0


class TestOrder:
    def test_a_short_entry_overtakes_a_long_one_that_arrived_shortly_before(self) -> None:
        lead = AGEING_FACTOR * (60 - 4) / SPEED
        scheduler = filled_scheduler(
            [entry(60, now=0.0), entry(4, now=lead - 0.01), entry(4, now=lead + 0.01)]
        )
        assert token_counts(form_batch(scheduler)) == [4, 4]
        scheduler = filled_scheduler(
            [entry(60, now=0.0), entry(60, now=lead + 0.01), entry(4, now=lead + 0.01)]
        )
        assert token_counts(form_batch(scheduler)) == [60]
        assert token_counts(form_batch(scheduler)) == [4], (
            "the second long entry arrived too shortly before"
        )

    def test_virtual_starts_increase_after_the_clock_is_set_back(self) -> None:
        scheduler = empty_scheduler()
        waiting = [entry(60, now=1e6), *(entry(60, now=5.0 + n) for n in range(3))]
        for late in waiting:
            scheduler.add(late)
        assert [form_batch(scheduler) for _ in waiting] == [[late] for late in waiting]
        assert waiting[-1].virtual_start - waiting[1].virtual_start == pytest.approx(2.0)

    def test_a_higher_lane_leads_and_the_next_lane_fills_the_batch(self) -> None:
        bulk, training, interactive = (entry(10, lane) for lane in reversed(LANES))
        scheduler = filled_scheduler([bulk, training, interactive])
        assert form_batch(scheduler, budget=20) == [interactive, training]
        assert form_batch(scheduler, budget=20) == [bulk]

    def test_a_promoted_entry_keeps_its_virtual_start_and_is_computed_once(self) -> None:
        bulk, training, interactive = (entry(40, lane) for lane in reversed(LANES))
        scheduler = filled_scheduler([bulk, training, interactive])
        scheduler.promote(bulk, "interactive")
        scheduler.promote(bulk, "training")
        assert bulk.lane == "interactive"
        assert [form_batch(scheduler) for _ in range(4)] == [[bulk], [interactive], [training], []]

    @given(shorts=st.lists(st.integers(1, 30), min_size=1, max_size=20))
    @settings(max_examples=50, deadline=None)
    def test_a_long_entry_waits_only_for_leaders_that_arrived_before_its_virtual_start(
        self, shorts: list[int]
    ) -> None:
        """Let short entries arrive endlessly, twice as fast as the device computes them."""
        simulation = Simulation(empty_scheduler())
        long = simulation.arrive(60, "training")
        for tokens in itertools.cycle(shorts):
            simulation.arrive(tokens, "training")
            if simulation.load > 2:
                simulation.compute()
            if long in simulation.done:
                break
        before = [
            waiting
            for waiting in simulation.arrived
            if waiting.enqueued < long.virtual_start and waiting is not long
        ]
        ahead = simulation.batches_before(long)
        assert all(batch.entries[0] in before for batch in ahead)
        assert simulation.batches[len(ahead)].entries[0] is long
        assert long.virtual_start <= AGEING_FACTOR * 60 / SPEED


@dataclass
class Simulation:
    """A device of `SPEED` tokens a second behind a scheduler, in simulated time."""

    scheduler: Scheduler[Entry]
    now: float = 0.0
    computed: float = 0.0
    arrived: list[Entry] = field(default_factory=list)
    done: list[Entry] = field(default_factory=list)
    batches: list[Batch[Entry]] = field(default_factory=list)

    @property
    def load(self) -> float:
        """Arrived tokens per computed token."""
        return sum(token_counts(self.arrived)) / (self.computed + BUDGET)

    def arrive(self, tokens: int, lane: Lane) -> Entry:
        late = entry(tokens, lane, now=self.now)
        self.scheduler.add(late)
        self.arrived.append(late)
        return late

    def compute(self) -> Batch[Entry]:
        batch = self.scheduler.form(self.now, BUDGET, ROWS)
        cost = padded_cost([waiting.input for waiting in batch.entries])
        self.now += cost / SPEED
        self.computed += sum(token_counts(batch.entries))
        self.done += batch.entries
        self.batches.append(batch)
        return batch

    def batches_before(self, last: Entry) -> list[Batch[Entry]]:
        return list(itertools.takewhile(lambda batch: last not in batch.entries, self.batches))


class TestShares:
    @given(
        seed=st.integers(0, 2**32),
        lanes=st.sampled_from([LANES, LANES[:2], LANES[1:], ("interactive", "bulk")]),
        longest=st.sampled_from([1, 8, 60, 200]),
    )
    @settings(max_examples=60, deadline=None)
    def test_each_waiting_lane_gets_its_minimum_share_and_no_more(
        self, seed: int, lanes: tuple[Lane, ...], longest: int
    ) -> None:
        choice = random.Random(seed)
        simulation = Simulation(empty_scheduler())
        served = dict.fromkeys(LANES, 0.0)
        slack = 3 * max(BUDGET, longest) + longest
        for _ in range(150):
            for lane in lanes:
                for _ in range(ROWS + 1):
                    simulation.arrive(choice.randint(1, longest), lane)
            batch = simulation.compute().entries
            factor = padded_cost([waiting.input for waiting in batch]) / sum(token_counts(batch))
            for waiting in batch:
                served[waiting.lane] += factor * waiting.input.tokens
            for lane in lanes[1:]:
                above = sum(served[other] for other in LANES[: RANK[lane] + 1])
                assert served[lane] >= MIN_SHARE[lane] * (above - slack) - slack
        for lane in lanes[1:]:
            above = sum(served[other] for other in LANES[: RANK[lane] + 1])
            assert served[lane] <= MIN_SHARE[lane] * above + slack, "no more than its share"

    def test_a_bulk_entry_is_computed_under_endless_interactive_load(self) -> None:
        simulation = Simulation(empty_scheduler())
        bulk = simulation.arrive(50, "bulk")
        while bulk not in simulation.done:
            for _ in range(ROWS + 1):
                simulation.arrive(8, "interactive")
            simulation.compute()
        ratio = MIN_SHARE["bulk"] / (1 - MIN_SHARE["bulk"])
        before = [waiting for batch in simulation.batches_before(bulk) for waiting in batch.entries]
        assert sum(token_counts(before)) <= 50 / ratio + BUDGET

    def test_an_empty_lane_gains_no_deficit(self) -> None:
        simulation = Simulation(empty_scheduler())
        for _ in range(100):
            simulation.arrive(60, "interactive")
            simulation.compute()
        bulk = simulation.arrive(60, "bulk")
        interactive = simulation.arrive(60, "interactive")
        assert simulation.compute().entries == [interactive]
        assert simulation.compute().entries == [bulk]

    def test_a_lane_does_not_pay_for_work_done_while_the_others_were_idle(self) -> None:
        simulation = Simulation(empty_scheduler())
        for _ in range(100):
            simulation.arrive(60, "training")
            simulation.compute()
        for _ in range(10):
            simulation.arrive(60, "training")
            simulation.arrive(60, "interactive")
        leaders = [simulation.compute().lane for _ in range(8)]
        assert leaders.count("training") == 2

    def test_putting_a_batch_back_restores_the_scheduler(self) -> None:
        scheduler = filled_scheduler(
            [entry(60, "interactive") for _ in range(8)] + [entry(60, "training")]
        )
        plain = filled_scheduler(
            [entry(60, "interactive") for _ in range(8)] + [entry(60, "training")]
        )
        for _ in range(9):
            batch = scheduler.form(0.0, BUDGET, ROWS)
            scheduler.put_back(batch, batch.entries)
            again = scheduler.form(0.0, BUDGET, ROWS)
            assert again.entries == batch.entries
            assert again.lane == plain.form(0.0, BUDGET, ROWS).lane


class TestQueueRoom:
    def test_a_lane_leaves_room_for_higher_lanes(self) -> None:
        scheduler = empty_scheduler(max_tokens=160)
        assert [scheduler.room(lane) for lane in LANES] == [160, 150, 120]
        scheduler.add(entry(120, "bulk"))
        assert scheduler.excess(1, "bulk") == 1
        assert scheduler.excess(30, "training") == 0
        scheduler.add(entry(30, "training"))
        assert scheduler.excess(5, "bulk") == 5
        assert scheduler.excess(5, "training") == 5
        assert scheduler.excess(10, "interactive") == 0
        assert scheduler.excess(11, "interactive") == 1

    def test_bulk_has_no_room_if_training_fills_both_lanes_share(self) -> None:
        scheduler = empty_scheduler(max_tokens=160)
        scheduler.add(entry(150, "training"))
        assert scheduler.excess(1, "bulk") == 1
        assert scheduler.excess(10, "interactive") == 0

    def test_interactive_entries_may_fill_the_whole_queue(self) -> None:
        scheduler = empty_scheduler(max_tokens=160)
        scheduler.add(entry(160, "interactive"))
        assert [scheduler.excess(1, lane) for lane in LANES] == [1, 1, 1]

    def test_a_promotion_frees_room_in_the_lower_lane(self) -> None:
        scheduler = empty_scheduler(max_tokens=160)
        bulk = entry(120, "bulk")
        scheduler.add(bulk)
        scheduler.promote(bulk, "interactive")
        assert scheduler.excess(40, "bulk") == 0
        assert scheduler.tokens == 120


class TestThroughput:
    def test_the_drain_rate_includes_gaps_between_forward_passes(self) -> None:
        measured = ThroughputEstimator()
        assert measured.drain_rate is None
        measured.resume(10.0)
        for number in range(1, 20):
            measured.record(100, 1.0, 10.0 + 2 * number, full=True)
        assert measured.drain_rate == pytest.approx(50.0)
        assert measured.speed == pytest.approx(100.0)

    def test_the_drain_rate_excludes_idle_time(self) -> None:
        measured = measured_throughput()
        measured.resume(1000.0)
        measured.record(100, 1.0, 1001.0, full=True)
        assert measured.drain_rate == pytest.approx(SPEED)

    def test_a_small_batch_does_not_lower_the_speed(self) -> None:
        measured = ThroughputEstimator()
        measured.resume(0.0)
        measured.record(1, 1.0, 1.0, full=False)
        assert measured.speed == ASSUMED_SPEED
        measured = measured_throughput()
        measured.record(1, 1.0, 2.0, full=False)
        assert measured.speed == SPEED
        measured.record(50, 1.0, 3.0, full=True)
        assert SPEED / 2 < measured.speed < SPEED

    @pytest.mark.parametrize("ended", [-1e9, 0.0, 1.0, 1e12])
    def test_a_clock_jump_keeps_speed_and_drain_rate_positive(self, ended: float) -> None:
        measured = measured_throughput()
        measured.record(100, max(0.0, ended), ended, full=True)
        measured.record(100, 1.0, ended + 1, full=True)
        assert measured.speed > 0
        assert measured.drain_rate is not None
        assert measured.drain_rate > 0
