"""Splitting of long lists into requests, and joining of their replies."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_client import ScoreReply, Timing, Usage
from assay_client._transport.replies import read_score
from assay_client._transport.requests import join, split

names = st.sampled_from([None, "a", "b", "c"])
lists = st.lists(st.fixed_dictionaries({}, optional={"group": names}), min_size=1, max_size=40)


def _largest(items: list[dict[str, Any]]) -> int:
    groups = [item["group"] for item in items if item.get("group") is not None]
    return max([groups.count(name) for name in groups], default=1)


@given(items=lists, spare=st.integers(0, 5))
def test_parts_have_each_item_once_and_never_split_a_group(
    items: list[dict[str, Any]], spare: int
) -> None:
    limit = _largest(items) + spare
    parts = split(items, limit)
    assert sorted(index for part in parts for index in part) == list(range(len(items)))
    assert all(0 < len(part) <= limit and part == sorted(part) for part in parts)
    for name in ("a", "b", "c"):
        assert sum(any(items[i].get("group") == name for i in part) for part in parts) <= 1


@given(items=lists)
def test_items_that_fit_one_request_are_not_split(items: list[dict[str, Any]]) -> None:
    assert split(items, len(items)) == [list(range(len(items)))]


@given(count=st.integers(1, 30), limit=st.integers(1, 30))
def test_without_groups_parts_are_full(count: int, limit: int) -> None:
    parts = split([{}] * count, limit)
    assert [index for part in parts for index in part] == list(range(count))
    assert all(len(part) == limit for part in parts[:-1])


@given(items=lists)
def test_a_group_larger_than_a_request_is_refused(items: list[dict[str, Any]]) -> None:
    largest = _largest(items)
    if largest > 1:
        with pytest.raises(ValueError, match="does not fit in one request"):
            split(items, largest - 1)


def _reply(items: list[dict[str, Any]]) -> ScoreReply:
    """Return the reply to these items, each of which has its own score as `value`."""
    results = [
        {"index": place, "status": "ok", "score": item["value"], "raw": None, "channels": {}}
        | {"flags": [], "tokens": 2, "source": "rule"}
        for place, item in enumerate(items)
    ]
    names = dict.fromkeys(item["group"] for item in items if item.get("group"))
    rest: dict[str, Any] = {"mean": None, "std": None, "ranks": []}
    rest |= {"zero_variance": False, "n": 1, "scored": 1}
    body = {
        "id": "score-1",
        "model": "m@1",
        "fingerprint": "f",
        "results": results,
        "groups": [{"group": name, **rest} for name in names],
        "usage": {"items": len(items), "tokens": 2, "computed": 1, "cached": 1, "shared": 1},
        "timing": {"prepare_ms": 1, "queue_ms": 1, "predict_ms": 1, "total_ms": 1},
    }
    return read_score(json.dumps(body).encode(), "m", items)


@given(items=lists, spare=st.integers(0, 5))
def test_the_joined_reply_equals_that_of_a_single_request(
    items: list[dict[str, Any]], spare: int
) -> None:
    valued = [{**item, "value": float(index)} for index, item in enumerate(items)]
    parts = split(valued, _largest(valued) + spare)
    joined = join(parts, [_reply([valued[i] for i in part]) for part in parts])
    whole = _reply(valued)
    assert joined.results == whole.results
    assert joined.groups == whole.groups
    count = len(parts)
    assert joined.usage == Usage(len(items), 2 * count, count, count, count, 0, 0)
    assert joined.timing == Timing(count, count, count, count)
