"""Votes: shares, what a group must be, and that neither order nor notation changes a vote."""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_models.base import ItemError, Options, Score
from assay_models.card import ModelCard
from assay_models.families.group_vote.clusters import clusters_of
from assay_models.families.group_vote.model import GroupVoteModel
from assay_models.items import GroupVoteItem
from assay_models.registry import Runtime
from assay_models.repository import ModelRepository, embedded_root

ENTRY = ModelRepository([embedded_root()]).find("group-vote")
SILENT = {"response": "I do not know.\nSorry."}


def load(**options: Any) -> GroupVoteModel:
    card = ModelCard.model_validate(ENTRY.card.model_dump() | {"options": options})
    return GroupVoteModel.load(card, ModelRepository([embedded_root()]).locate(ENTRY), Runtime())


def vote(
    items: Sequence[dict[str, Any]], model: GroupVoteModel | None = None, **numbers: float
) -> list[Score]:
    model = model or load()
    options = Options(numbers=tuple(numbers.items()))
    prepared = model.prepare([GroupVoteItem.model_validate(item) for item in items], options)

    async def raws() -> Any:
        return await model.predict(prepared.inputs) if prepared.inputs else []

    return model.finish(prepared, asyncio.run(raws()), options)


def numbers(*answers: str) -> list[dict[str, Any]]:
    return [{"answer": answer, "answer_type": "number"} for answer in answers]


def test_share_is_that_of_equal_answers_whatever_their_notation() -> None:
    scores = vote(numbers("0.5", "1/2", "0.50", "2"))
    assert [score.score for score in scores] == [0.75, 0.75, 0.75, 0.25]
    details = scores[0].details
    assert (details["clusters"], details["majority_share"]) == (2, 0.75)
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert details["vote_entropy"] == pytest.approx(expected)


def test_one_answer_that_can_be_read_of_seven_has_a_seventh_and_no_whole_vote() -> None:
    group = [SILENT] * 6 + [{"response": r"\boxed{3}"}]
    scores = vote(group)
    assert [score.score for score in scores] == [0.0] * 6 + [1 / 7]
    assert scores[0].flags == ("no_answer",)
    with pytest.raises(ItemError) as raised:
        vote(group, load(denominator="parseable"))
    assert raised.value.code == "too_few_answers"


def test_share_of_the_answers_that_could_be_read_is_larger() -> None:
    model = load(denominator="parseable", min_parseable=2)
    scores = vote([*numbers("4", "4", "5"), {**SILENT, "answer_type": "number"}], model)
    assert [score.score for score in scores] == [2 / 3, 2 / 3, 1 / 3, 0.0]


def test_mathematics_is_clustered_by_value() -> None:
    forms = (r"\frac{\sqrt2}{2}", r"\frac{1}{\sqrt 2}", "0.5", r"2^{-1/2}")
    assert [score.score for score in vote([{"answer": form} for form in forms])] == [
        *[0.75, 0.75],
        0.25,
        0.75,
    ]


def test_programs_vote_by_signature() -> None:
    scores = vote([{"signature": "[1, 2]"}, {"signature": "[1, 2]"}, {"signature": "[1,2]"}])
    assert [score.score for score in scores] == [2 / 3, 2 / 3, 1 / 3]
    assert [score.score for score in vote([{"signature": ""}] * 2)] == [1.0, 1.0]


def test_an_item_that_is_sent_alone_votes_with_its_peers() -> None:
    (score,) = vote([{**numbers("4")[0], "peers": ["4.0", "5", "no number"]}])
    assert score.score == 0.5


def test_a_group_that_is_cut_is_flagged_and_its_missing_answers_count() -> None:
    scores = vote(numbers("4", "4", "5"), group_size=6)
    assert [score.score for score in scores] == [2 / 6, 2 / 6, 1 / 6]
    assert all("partial_group" in score.flags for score in scores)
    assert not any(score.flags for score in vote(numbers("4", "4", "5"), group_size=3))


@pytest.mark.parametrize(
    ("items", "code"),
    [
        (numbers("4"), "group_too_small"),
        ([*numbers("4"), {"answer": "4", "answer_type": "short"}], "mixed_group"),
        ([{"signature": "4"}, {"answer": "4"}], "mixed_group"),
        ([{**numbers("4")[0], "peers": ["4"]}, *numbers("4")], "mixed_group"),
    ],
)
def test_a_group_that_cannot_vote_has_an_error(items: list[dict[str, Any]], code: str) -> None:
    with pytest.raises(ItemError) as raised:
        vote(items)
    assert raised.value.code == code


@given(
    st.lists(st.sampled_from(["1", "1.0", "2", "2/1", "x", "0.5", "1/2"]), min_size=2), st.data()
)
def test_order_changes_no_vote(answers: list[str], data: Any) -> None:
    moved = data.draw(st.permutations(range(len(answers))))
    before = [score.score for score in vote(numbers(*answers), MODEL)]
    after = [score.score for score in vote(numbers(*(answers[i] for i in moved)), MODEL)]
    assert after == [before[i] for i in moved]


MODEL = load()


def test_clusters_are_numbered_by_their_first_members() -> None:
    assert clusters_of(["b", None, "a", "b", None]) == (0, -1, 1, 0, -1)
