"""Pools of the latest points: the fewest that hold enough values, however far back they go."""

from hypothesis import given
from hypothesis import strategies as st

from assay_monitors.intervals import share_at_any_time
from assay_monitors.rules.progress import pooled
from assay_monitors.rules.rolling import Tally, merge_all, pool_recent
from assay_monitors.rules.shares import pool_counts, share_findings, share_progress

counts_of_names = st.dictionaries(st.sampled_from("abc"), st.integers(0, 4))


@given(st.lists(counts_of_names, max_size=30), st.integers(1, 20))
def test_a_pool_is_the_fewest_latest_parts_that_hold_enough(
    counts: list[dict[str, int]], needed: int
) -> None:
    parts = [Tally(dict(count)) for count in counts]
    for end, pool in enumerate(pool_recent(parts, Tally, needed), 1):
        latest = [merge_all(parts[start:end], Tally) for start in reversed(range(end))]
        fewest = next((whole for whole in latest if whole.count >= needed), None)
        assert pool == fewest
    assert parts == [Tally(dict(count)) for count in counts]


class CountingTally(Tally):
    """A tally that counts the merges of all of its kind."""

    merges = 0

    def merge(self, other: Tally) -> None:
        CountingTally.merges += 1
        super().merge(other)


def test_pools_of_many_points_take_a_few_merges_for_each_point() -> None:
    CountingTally.merges = 0
    parts = [CountingTally({"a": 1}) for _ in range(2_000)]
    pools = pool_recent(parts, CountingTally, 1_000)
    assert [pool and pool.count for pool in pools] == [None] * 999 + [1_000] * 1_001
    assert CountingTally.merges <= 6 * len(parts)


def test_items_of_more_than_a_hundred_points_are_added_up() -> None:
    counts = [(step % 2, 1) for step in range(250)]
    assert [pool.items for pool in pool_counts(counts, 200)] == [*range(1, 200), *[200] * 51]
    assert share_progress(counts[:150]) == (150, 200, "items")
    assert pooled([Tally({"a": 1})] * 150, 200) == (150, 200, "items")


def test_before_there_are_enough_a_share_is_assessed_by_all_items_so_far() -> None:
    counts = [(0, 1)] * 120 + [(1, 1)] * 60
    finding = share_findings(counts, warn=0.1, critical=0.9)[-1]
    assert finding is not None
    assert (finding.value, finding.evidence["items"]) == (60 / 180, 180.0)
    assert finding.evidence["low"] == share_at_any_time(60, 180).low
