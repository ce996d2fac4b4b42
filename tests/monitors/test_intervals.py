"""The confidence sequence of a share: its guarantee, and the items that early decisions take."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_monitors.intervals import items_to_exclude, share_at_any_time, wilson

RUNS, ITEMS = 400, 300


def is_ever_missed(source: random.Random, share: float) -> bool:
    """Return whether the interval misses the share after any of the items."""
    hits = 0
    for total in range(1, ITEMS + 1):
        hits += source.random() < share
        estimate = share_at_any_time(hits, total)
        if not estimate.low <= share <= estimate.high:
            return True
    return False


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5])
def test_the_interval_read_after_every_item_misses_one_run_of_a_thousand(share: float) -> None:
    source = random.Random(11)
    missed = sum(is_ever_missed(source, share) for _ in range(RUNS))
    assert wilson(missed, RUNS).low <= 0.001


@given(st.integers(1, 300), st.data())
def test_the_interval_holds_the_estimate_and_mirrors(total: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, total))
    estimate, mirrored = share_at_any_time(hits, total), share_at_any_time(total - hits, total)
    assert 0 <= estimate.low <= hits / total <= estimate.high <= 1
    assert mirrored.high == pytest.approx(1 - estimate.low)


def test_without_items_the_interval_is_zero_to_one() -> None:
    assert tuple(share_at_any_time(0, 0)) == (0.0, 0.0, 1.0, 0)


@pytest.mark.parametrize(("share", "items"), [(0.05, 242), (0.1, 111)])
def test_equal_items_exclude_a_share_of_others_after(share: float, items: int) -> None:
    assert items_to_exclude(share) == items
    assert (1 - share) ** items * (items + 1) <= 0.001 < (1 - share) ** (items - 1) * items
