"""The comparison of replicas with and without shared flights: its items and its figures."""

from collections import Counter

import pytest

from benchmarks.shared_flight import GROUP_SIZE, Block, Texts, _ratios, requests_of


@pytest.mark.parametrize(("share", "distinct"), [(0.0, 8), (0.25, 6), (0.5, 4)])
def test_groups_have_the_share_of_duplicates(share: float, distinct: int) -> None:
    texts = Texts()
    items = [tuple(item.values()) for item in texts.groups(5, share)]
    groups = [items[start : start + GROUP_SIZE] for start in range(0, len(items), GROUP_SIZE)]
    assert [len(set(group)) for group in groups] == [distinct] * 5
    assert len(set(items)) == 5 * distinct
    later = {tuple(item.values()) for item in texts.items(100)}
    assert not later & set(items), "no item is sent in two blocks"


def test_ratios_are_those_of_the_pairs() -> None:
    measured = [{"on": Block(2.0, 3.0, 5), "off": Block(1.0, 2.0, 8)}] * 3
    text = _ratios(measured)
    assert "processor times 1.500 [1.500, 1.500]" in text
    assert "seconds times 2.000 [2.000, 2.000]" in text


def test_large_requests_are_fewer() -> None:
    sizes = [requests_of(size) for size in (1, 64, 1024)]
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) >= 3
    assert Counter(sizes)[sizes[0]] == 1
