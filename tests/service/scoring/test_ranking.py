"""Ranking: groups, ranks, margins, ties and confidence."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from assay.scoring.ranking import rank, ranking, summarise, ties
from assay.types import ItemFailure, ItemResult
from assay_models.card import Calibration

CALIBRATION = Calibration(
    margins=(0.0, 1.0, 3.0), confidence=(0.5, 0.6, 0.9), dataset="pairs", n=100, command="measure"
)


def result(index: int, score: float | None, group: str | None = "g") -> ItemResult:
    failure = None if score is not None else ItemFailure("inference_failed", "scripted")
    status: Literal["ok", "error"] = "ok" if score is not None else "error"
    return ItemResult(index, None, group, status, score, score, {}, [], 1, "computed", {}, failure)


def results(*scores: float | None) -> list[ItemResult]:
    return [result(index, score) for index, score in enumerate(scores)]


def test_equal_scores_share_a_rank_and_missing_ones_have_none() -> None:
    assert rank([2.0, None, 3.0, 2.0, 1.0]) == [2, None, 1, 2, 4]


def test_a_group_has_mean_std_and_ranks() -> None:
    (group,) = summarise(results(1.0, 3.0, None), 0.0)
    assert (group.n, group.scored, group.mean, group.std) == (3, 2, 2.0, 1.0)
    assert group.ranks == [2, 1, None]
    assert not group.zero_variance


@pytest.mark.parametrize(("resolution", "degenerate"), [(0.0, False), (0.01, True)])
def test_a_group_within_the_resolution_has_zero_variance(
    resolution: float, degenerate: bool
) -> None:
    (group,) = summarise(results(1.0, 1.005), resolution)
    assert group.zero_variance is degenerate


def test_a_group_without_scores_has_no_statistics() -> None:
    (group,) = summarise(results(None, None), 1.0)
    assert (group.scored, group.mean, group.std, group.zero_variance) == (0, None, None, False)


def test_groups_are_in_the_order_of_their_first_items() -> None:
    mixed = [result(0, 1.0, "b"), result(1, 2.0, "a"), result(2, 3.0, "b"), result(3, 1.0, None)]
    groups = summarise(mixed, 0.0)
    assert [(group.group, group.n) for group in groups] == [("b", 2), ("a", 1)]


def test_a_margin_is_the_distance_to_the_next_rank() -> None:
    places = ranking(results(1.0, None, 4.0, 1.5))
    assert [(p.index, p.score, p.margin) for p in places] == [
        (2, 4.0, 2.5),
        (3, 1.5, 0.5),
        (0, 1.0, None),
        (1, None, None),
    ]


def test_ties_are_neighbouring_ranks_within_the_margin() -> None:
    places = ranking(results(5.0, 4.9, 4.8, 1.0, 0.9))
    assert ties(places, 0.11) == [[0, 1, 2], [3, 4]]
    assert ties(places, 0.0) == []


@given(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_a_ranking_holds_every_candidate_in_descending_order(
    scores: list[float | None],
) -> None:
    places = ranking(results(*scores))
    assert sorted(place.index for place in places) == list(range(len(scores)))
    known = [place.score for place in places if place.score is not None]
    assert known == sorted(known, reverse=True)
    assert all(place.score is None for place in places[len(known) :])


def test_a_calibrated_model_gives_a_confidence_for_each_rank() -> None:
    places = ranking(results(0.0, 2.0, 7.0, None, 0.0), CALIBRATION)
    assert [place.confidence for place in places] == [0.9, pytest.approx(0.75), 0.5, None, None]


def test_a_candidate_without_a_raw_has_no_confidence() -> None:
    by_rule = ItemResult(1, None, None, "ok", 0.0, None, {}, [], 0, "rule", {}, None)
    places = ranking([result(0, 2.0), by_rule], CALIBRATION)
    assert [(place.margin, place.confidence) for place in places] == [(2.0, None), (None, None)]


@given(st.floats(0, 100), st.floats(0, 100))
def test_confidence_increases_with_the_distance(first: float, second: float) -> None:
    low, high = sorted((first, second))
    assert 0.5 <= CALIBRATION.confidence_at(low) <= CALIBRATION.confidence_at(-high) <= 0.9


@pytest.mark.parametrize(
    "wrong",
    [
        {"margins": (0.0, 1.0)},
        {"margins": (0.5, 1.0, 3.0)},
        {"margins": (0.0, 3.0, 1.0)},
        {"confidence": (0.5, 0.9, 0.6)},
        {"confidence": (0.4, 0.6, 0.9)},
    ],
)
def test_a_decreasing_calibration_is_rejected(wrong: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ValidationError):
        Calibration.model_validate(CALIBRATION.model_dump() | wrong)
