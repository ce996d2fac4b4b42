"""Scheduler: who goes next, how much room each lane has, and that nobody is lost or starves."""

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
    entry,
    filled,
    formed,
    lengths,
    pace,
    packed,
    padded,
    queue,
)

from assay.batching.entry import Entry
from assay.batching.scheduler import (
    AGEING_FACTOR,
    ASSUMED_SPEED,
    MIN_SHARE,
    RANK,
    WINDOW,
    Batch,
    Scheduler,
    ThroughputEstimator,
)
from assay.types import LANES, Lane
from assay_models.base import Input


class TestForming:
    def test_of_equal_entries_the_first_goes_first(self) -> None:
        waiting = [entry(8) for _ in range(12)]
        one = filled(waiting)
        assert formed(one) == waiting[:8]
        assert formed(one) == waiting[8:]
        assert formed(one) == []

    @pytest.mark.parametrize("cost", [padded, packed])
    def test_the_nearest_in_length_go_with_the_leader(self, cost: object) -> None:
        one = filled([entry(10), entry(40, now=-1.7), entry(12), entry(30), entry(11)], cost)
        assert lengths(formed(one, budget=48)) == [10, 11, 12]
        assert lengths(formed(one, budget=48)) == [40]

    def test_a_row_is_not_padded_to_many_times_its_length(self) -> None:
        one = filled([entry(10), entry(1000)])
        assert lengths(formed(one, budget=4000)) == [10]
        assert lengths(formed(one, budget=4000)) == [1000]

    def test_where_nothing_is_padded_short_and_long_go_together(self) -> None:
        one = filled([entry(10), entry(1000)], packed)
        assert lengths(formed(one, budget=4000)) == [10, 1000]

    def test_small_inputs_are_not_split_for_the_sake_of_padding(self) -> None:
        one = filled([entry(1), entry(50)])
        assert lengths(formed(one, budget=4000)) == [1, 50]

    def test_kin_go_first_in_their_order(self) -> None:
        alike = [entry(n, now=n / 1000, prefix_key=b"k") for n in (10, 30, 20)]
        others = [entry(10, now=0.001), entry(10, now=0.002, prefix_key=b"other")]
        one = filled([*alike, *others], packed)
        assert formed(one) == [alike[0], alike[2], alike[1]]
        assert formed(one) == others

    def test_an_empty_kin_is_no_kin(self) -> None:
        one = filled([entry(10), entry(30), entry(11, prefix_key=b"k")], packed)
        assert lengths(formed(one, budget=21)) == [10, 11]

    def test_what_exceeds_the_budget_goes_alone(self) -> None:
        one = filled([entry(1000), entry(1000)])
        assert lengths(formed(one)) == [1000]
        assert lengths(formed(one)) == [1000]

    def test_the_cost_of_few_batches_is_asked_for(self) -> None:
        asked = 0

        def counted(inputs: Sequence[Input]) -> int:
            nonlocal asked
            asked += 1
            return packed(inputs)

        one = filled((entry(10) for _ in range(5000)), counted)
        assert len(one.form(0.0, 3000, WINDOW).entries) == 300
        assert asked <= math.log2(WINDOW) + 3

    def test_what_has_expired_is_handed_over_and_costs_nothing(self) -> None:
        gone = [entry(8, deadline=1.0) for _ in range(WINDOW + 5)]
        stays = entry(8)
        one = filled([*gone, stays])
        batch = one.form(1.0, BUDGET, ROWS)
        assert batch.entries == [stays]
        assert batch.expired == gone
        for waiting in [*gone, stays]:
            one.release(waiting)
        assert one.tokens == 0


class TestOrder:
    def test_a_short_one_overtakes_a_long_one_that_came_shortly_before(self) -> None:
        lead = AGEING_FACTOR * (60 - 4) / SPEED
        one = filled([entry(60, now=0.0), entry(4, now=lead - 0.01), entry(4, now=lead + 0.01)])
        assert lengths(formed(one)) == [4, 4]
        one = filled([entry(60, now=0.0), entry(60, now=lead + 0.01), entry(4, now=lead + 0.01)])
        assert lengths(formed(one)) == [60]
        assert lengths(formed(one)) == [4], "the second long one came too shortly before"

    def test_turns_go_on_when_the_clock_is_set_back(self) -> None:
        one = queue()
        waiting = [entry(60, now=1e6), *(entry(60, now=5.0 + n) for n in range(3))]
        for late in waiting:
            one.add(late)
        assert [formed(one) for _ in waiting] == [[late] for late in waiting]
        assert waiting[-1].virtual_start - waiting[1].virtual_start == pytest.approx(2.0)

    def test_a_higher_lane_goes_first_and_what_is_left_is_filled_from_the_next(self) -> None:
        bulk, training, interactive = (entry(10, lane) for lane in reversed(LANES))
        one = filled([bulk, training, interactive])
        assert formed(one, budget=20) == [interactive, training]
        assert formed(one, budget=20) == [bulk]

    def test_an_entry_that_moves_up_keeps_its_turn_and_is_not_there_twice(self) -> None:
        bulk, training, interactive = (entry(40, lane) for lane in reversed(LANES))
        one = filled([bulk, training, interactive])
        one.promote(bulk, "interactive")
        one.promote(bulk, "training")
        assert bulk.lane == "interactive"
        assert [formed(one) for _ in range(4)] == [[bulk], [interactive], [training], []]

    @given(shorts=st.lists(st.integers(1, 30), min_size=1, max_size=20))
    @settings(max_examples=50, deadline=None)
    def test_a_long_entry_waits_only_for_batches_led_by_what_came_before_its_turn(
        self, shorts: list[int]
    ) -> None:
        """Shorts come for ever, twice as fast as the device computes."""
        simulation = Simulation(queue())
        long = simulation.come(60, "training")
        for tokens in itertools.cycle(shorts):
            simulation.come(tokens, "training")
            if simulation.load > 2:
                simulation.compute()
            if long in simulation.done:
                break
        before = [
            one for one in simulation.came if one.enqueued < long.virtual_start and one is not long
        ]
        ahead = simulation.batches_before(long)
        assert all(batch.entries[0] in before for batch in ahead)
        assert simulation.batches[len(ahead)].entries[0] is long
        assert long.virtual_start <= AGEING_FACTOR * 60 / SPEED


@dataclass
class Simulation:
    """A device of `SPEED` tokens a second behind a queue, in a time of its own."""

    queue: Scheduler[Entry]
    now: float = 0.0
    computed: float = 0.0
    came: list[Entry] = field(default_factory=list)
    done: list[Entry] = field(default_factory=list)
    batches: list[Batch[Entry]] = field(default_factory=list)

    @property
    def load(self) -> float:
        """Tokens come for each computed."""
        return sum(lengths(self.came)) / (self.computed + BUDGET)

    def come(self, tokens: int, lane: Lane) -> Entry:
        late = entry(tokens, lane, self.now)
        self.queue.add(late)
        self.came.append(late)
        return late

    def compute(self) -> Batch[Entry]:
        batch = self.queue.form(self.now, BUDGET, ROWS)
        cost = padded([one.input for one in batch.entries])
        self.now += cost / SPEED
        self.computed += sum(lengths(batch.entries))
        self.done += batch.entries
        self.batches.append(batch)
        return batch

    def batches_before(self, last: Entry) -> list[Batch[Entry]]:
        return list(itertools.takewhile(lambda one: last not in one.entries, self.batches))


class TestShares:
    @given(
        seed=st.integers(0, 2**32),
        lanes=st.sampled_from([LANES, LANES[:2], LANES[1:], ("interactive", "bulk")]),
        longest=st.sampled_from([1, 8, 60, 200]),
    )
    @settings(max_examples=60, deadline=None)
    def test_each_lane_that_waits_gets_its_share_and_a_higher_one_the_rest(
        self, seed: int, lanes: tuple[Lane, ...], longest: int
    ) -> None:
        choice = random.Random(seed)
        simulation = Simulation(queue())
        served = dict.fromkeys(LANES, 0.0)
        slack = 3 * max(BUDGET, longest) + longest
        for _ in range(150):
            for lane in lanes:
                for _ in range(ROWS + 1):
                    simulation.come(choice.randint(1, longest), lane)
            batch = simulation.compute().entries
            factor = padded([one.input for one in batch]) / sum(lengths(batch))
            for one in batch:
                served[one.lane] += factor * one.input.tokens
            for lane in lanes[1:]:
                above = sum(served[other] for other in LANES[: RANK[lane] + 1])
                assert served[lane] >= MIN_SHARE[lane] * (above - slack) - slack
        for lane in lanes[1:]:
            above = sum(served[other] for other in LANES[: RANK[lane] + 1])
            assert served[lane] <= MIN_SHARE[lane] * above + slack, "no more than its share"

    def test_one_entry_of_bulk_is_served_under_endless_interactive_work(self) -> None:
        simulation = Simulation(queue())
        bulk = simulation.come(50, "bulk")
        while bulk not in simulation.done:
            for _ in range(ROWS + 1):
                simulation.come(8, "interactive")
            simulation.compute()
        ratio = MIN_SHARE["bulk"] / (1 - MIN_SHARE["bulk"])
        before = [one for batch in simulation.batches_before(bulk) for one in batch.entries]
        assert sum(lengths(before)) <= 50 / ratio + BUDGET

    def test_a_lane_earns_nothing_while_it_does_not_wait(self) -> None:
        simulation = Simulation(queue())
        for _ in range(100):
            simulation.come(60, "interactive")
            simulation.compute()
        bulk = simulation.come(60, "bulk")
        interactive = simulation.come(60, "interactive")
        assert simulation.compute().entries == [interactive]
        assert simulation.compute().entries == [bulk]

    def test_a_lane_owes_nothing_for_what_it_got_while_the_others_were_idle(self) -> None:
        simulation = Simulation(queue())
        for _ in range(100):
            simulation.come(60, "training")
            simulation.compute()
        for _ in range(10):
            simulation.come(60, "training")
            simulation.come(60, "interactive")
        leaders = [simulation.compute().lane for _ in range(8)]
        assert leaders.count("training") == 2

    def test_putting_a_batch_back_undoes_it(self) -> None:
        one = filled([entry(60, "interactive") for _ in range(8)] + [entry(60, "training")])
        plain = filled([entry(60, "interactive") for _ in range(8)] + [entry(60, "training")])
        for _ in range(9):
            batch = one.form(0.0, BUDGET, ROWS)
            one.put_back(batch, batch.entries)
            again = one.form(0.0, BUDGET, ROWS)
            assert again.entries == batch.entries
            assert again.lane == plain.form(0.0, BUDGET, ROWS).lane


class TestRoom:
    def test_a_lane_leaves_room_for_those_above(self) -> None:
        one = queue(max_tokens=160)
        assert [one.room(lane) for lane in LANES] == [160, 150, 120]
        one.add(entry(120, "bulk"))
        assert one.excess(1, "bulk") == 1
        assert one.excess(30, "training") == 0
        one.add(entry(30, "training"))
        assert one.excess(5, "bulk") == 5
        assert one.excess(5, "training") == 5
        assert one.excess(10, "interactive") == 0
        assert one.excess(11, "interactive") == 1

    def test_bulk_cannot_take_what_training_must_leave(self) -> None:
        one = queue(max_tokens=160)
        one.add(entry(150, "training"))
        assert one.excess(1, "bulk") == 1
        assert one.excess(10, "interactive") == 0

    def test_interactive_work_may_hold_everything_and_then_nothing_else_fits(self) -> None:
        one = queue(max_tokens=160)
        one.add(entry(160, "interactive"))
        assert [one.excess(1, lane) for lane in LANES] == [1, 1, 1]

    def test_moving_up_makes_room_in_the_lane_below(self) -> None:
        one = queue(max_tokens=160)
        bulk = entry(120, "bulk")
        one.add(bulk)
        one.promote(bulk, "interactive")
        assert one.excess(40, "bulk") == 0
        assert one.tokens == 120


class TestPace:
    def test_drain_counts_the_gaps_between_forward_passes(self) -> None:
        measured = ThroughputEstimator()
        assert measured.drain_rate is None
        measured.resume(10.0)
        for number in range(1, 20):
            measured.record(100, 1.0, 10.0 + 2 * number, full=True)
        assert measured.drain_rate == pytest.approx(50.0)
        assert measured.speed == pytest.approx(100.0)

    def test_drain_does_not_count_the_time_without_work(self) -> None:
        measured = pace()
        measured.resume(1000.0)
        measured.record(100, 1.0, 1001.0, full=True)
        assert measured.drain_rate == pytest.approx(SPEED)

    def test_a_small_batch_does_not_slow_the_device_down(self) -> None:
        measured = ThroughputEstimator()
        measured.resume(0.0)
        measured.record(1, 1.0, 1.0, full=False)
        assert measured.speed == ASSUMED_SPEED
        measured = pace()
        measured.record(1, 1.0, 2.0, full=False)
        assert measured.speed == SPEED
        measured.record(50, 1.0, 3.0, full=True)
        assert SPEED / 2 < measured.speed < SPEED

    @pytest.mark.parametrize("ended", [-1e9, 0.0, 1.0, 1e12])
    def test_a_clock_that_jumps_harms_nothing(self, ended: float) -> None:
        measured = pace()
        measured.record(100, max(0.0, ended), ended, full=True)
        measured.record(100, 1.0, ended + 1, full=True)
        assert measured.speed > 0
        assert measured.drain_rate is not None
        assert measured.drain_rate > 0
