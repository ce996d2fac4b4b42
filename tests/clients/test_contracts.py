"""The contract of grounded answers: its numbers, its failures, and recomputation of both."""

import json
import math
import pickle
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.paths import DOCS

from assay_client import ProtocolError, Result, ScoreReply
from assay_client.rewards.contracts import (
    GroundedAnswer,
    RewardBreakdown,
    Sample,
    extract_answer,
    format_penalty,
    format_score,
    recompute_reward,
)
from assay_client.types import ItemError, Timing, Usage

PAGE = DOCS / "how-to" / "trainers" / "grounded-answers.md"
RIGHT = "the keeper of corrin light raises goats and the lamp of corrin light always burns red"
WRONG = "a person of some other town once wrote letters about several entirely different matters"


def tagged(text: str) -> str:
    return f"<answer>{text}</answer>"


def result(phi: float | None, error: str | None = None, flags: Sequence[str] = ()) -> Result:
    channels = {} if phi is None else {"phi": phi}
    failure = None if error is None else ItemError(error, "why")
    status: Any = "ok" if error is None else "error"
    score = None if error else phi
    return Result(
        index=0,
        id=None,
        group=None,
        status=status,
        score=score,
        raw=score,
        channels=channels,
        flags=tuple(flags),
        tokens=9,
        source="computed",
        details={},
        error=failure,
    )


def reply(*results: Result) -> ScoreReply:
    return ScoreReply(
        id="score-1",
        model="nli@2",
        fingerprint="sha256:aa",
        results=results,
        groups=(),
        usage=Usage(items=1, tokens=9, computed=1, cached=0, shared=0, rule=0, failed=0),
        timing=Timing(0, 0, 0, 0),
    )


def breakdown_of(
    completion: str, result: Result | None, reference: str = RIGHT, **arguments: Any
) -> RewardBreakdown:
    """Return the breakdown of one sample; the arguments are the contract's."""
    contract = GroundedAnswer(**arguments)
    samples = [Sample(completion, [reference], ["The passage."])]
    (found,) = contract.breakdowns(samples, None if result is None else reply(result))
    return found


class TestExtraction:
    @pytest.mark.parametrize(
        ("completion", "answer"),
        [
            ("<answer>yes</answer>", "yes"),
            ("so <answer>\n yes </answer> indeed", "yes"),
            ("<answer>no</answer> <answer>yes</answer>", "yes"),
            ("<answer><answer>yes</answer>", "yes"),
            ("<answer></answer>", ""),
            ("<answer>yes", None),
            ("yes</answer>", None),
            ("</answer>yes<answer>", None),
            ("<ANSWER>yes</ANSWER>", None),
            ("", None),
        ],
    )
    def test_the_answer_is_the_text_of_the_last_pair_of_tags(
        self, completion: str, answer: str | None
    ) -> None:
        assert extract_answer(completion) == answer

    @pytest.mark.parametrize(
        ("length", "form", "penalty"),
        [
            (None, 0, -0.5),
            (0, 0.5, -0.3),
            (19, 0.5, -0.3),
            (20, 0.5, -0.3),
            (49, 0.5 + 29 / 120, -0.3),
            (50, 0.75, 0),
            (79, 0.5 + 59 / 120, 0),
            (80, 1, 0),
            (4000, 1, 0),
        ],
    )
    def test_form_and_penalty_depend_on_the_length(
        self, length: int | None, form: float, penalty: float
    ) -> None:
        assert format_score(length) == pytest.approx(form)
        assert format_penalty(length) == penalty

    def test_only_the_answer_counts_for_the_length(self) -> None:
        found = breakdown_of("thought " * 50 + tagged("x" * 50), result(0.0))
        assert (found.form, found.penalty) == (0.75, 0)


class TestMatching:
    @pytest.mark.parametrize(
        ("answer", "reference", "exact", "f1"),
        [
            ("The Red, red lamp!", "red red lamp", 1, 1),
            ("red lamp", "a lamp", 0, 2 / 3),
            ("red red", "red", 0, 2 / 3),
            ("the", "lamp", 0, 0),
            ("the", "a", 1, 1),
            ("It's red", "its red", 1, 1),
            ("blue", "red", 0, 0),
        ],
    )
    def test_exact_match_and_f1_are_those_of_squad(
        self, answer: str, reference: str, exact: int, f1: float
    ) -> None:
        found = breakdown_of(tagged(answer), result(0.0), reference)
        assert found.exact == exact
        assert found.f1 == pytest.approx(f1)

    def test_the_best_reference_counts(self) -> None:
        samples = [Sample(tagged("red lamp"), ["blue", "red lamp"], "x")]
        (found,) = GroundedAnswer().breakdowns(samples, reply(result(0.0)))
        assert (found.exact, found.f1) == (1, 1)

    @pytest.mark.parametrize("references", [[], "a text"])
    def test_references_must_be_a_list_with_a_reference(self, references: Any) -> None:
        with pytest.raises(ValueError, match="reference"):
            GroundedAnswer().breakdowns([Sample(tagged("x"), references, "y")], reply(result(0.0)))


class TestFormula:
    @pytest.mark.parametrize(
        ("answer", "phi", "alpha", "reward"),
        [
            (RIGHT, 1.0, 1.0, 2.0),
            (RIGHT, 0.0, 1.0, 1.0),
            (RIGHT, -1.0, 1.0, 0.0),
            (RIGHT, -1.0, 2.0, -1.0),
            (RIGHT, 0.9, 0.0, 1.0),
            (WRONG, 1.0, 1.0, 1 / 3 + 0.25 * 2 * 2 * 1 / 27),
        ],
    )
    def test_the_reward_follows_the_formula(
        self, answer: str, phi: float, alpha: float, reward: float
    ) -> None:
        found = breakdown_of(tagged(answer), result(phi), alpha=alpha)
        assert found.status == "ok"
        assert found.reward == pytest.approx(reward)

    def test_a_wrong_answer_can_be_positive(self) -> None:
        """Check that length and tags alone give one third at phi = 1, which the paper denies."""
        found = breakdown_of(tagged("z" * 80), result(1.0))
        assert (found.exact, found.f1) == (0, 0)
        assert found.reward == pytest.approx(1 / 3)

    @given(st.integers(0, 120), st.booleans(), st.floats(-1.5, 1), st.floats(0, 4))
    def test_the_reward_stays_in_its_range(
        self, length: int, right: bool, phi: float, alpha: float
    ) -> None:
        answer = "r" * length
        found = breakdown_of(tagged(answer), result(phi), answer if right else "other", alpha=alpha)
        low, high = GroundedAnswer(alpha=alpha).range
        assert found.reward is not None
        assert low - 1e-9 <= found.reward <= high + 1e-9

    @pytest.mark.parametrize(
        ("alpha", "low", "high"),
        [
            (0, -0.5, 1),
            (1, -0.5, 2),
            (1.5, 0.5 * -0.956944 - 0.3, 2.5),
            (2, -1.256944, 3),
            (9, -8, 10),
        ],
    )
    def test_the_range_depends_on_alpha(self, alpha: float, low: float, high: float) -> None:
        assert GroundedAnswer(alpha=alpha).range == pytest.approx((low, high), abs=1e-5)

    def test_phi_is_clipped(self) -> None:
        assert breakdown_of(tagged(RIGHT), result(-1.5)).phi == -1

    @given(st.floats(-1, 1), st.floats(-1, 1))
    def test_without_alpha_phi_changes_nothing(self, first: float, second: float) -> None:
        rewards = {
            breakdown_of(tagged(RIGHT), result(phi), alpha=0).reward for phi in (first, second)
        }
        assert rewards == {1.0}


class TestFailures:
    @pytest.mark.parametrize("status", ["no_claims", "no_search", "unsupported_language"])
    def test_a_failure_of_the_policy_has_phi_minus_one(self, status: str) -> None:
        found = breakdown_of(tagged(RIGHT), result(None, status))
        assert (found.status, found.phi, found.substituted) == (status, -1, True)
        assert found.reward == pytest.approx(0)

    @pytest.mark.parametrize("status", ["no_evidence", "too_many_pairs", "input_too_long", "nan"])
    def test_any_other_failure_has_no_reward(self, status: str) -> None:
        found = breakdown_of(tagged(RIGHT), result(None, status))
        assert (found.status, found.phi, found.reward) == (status, None, None)
        assert found.base == 1

    def test_a_failure_never_equals_a_neutral_result(self) -> None:
        silent = breakdown_of(tagged(RIGHT), result(0.0)).reward
        for status in ("no_claims", "no_evidence", "inference_failed"):
            assert breakdown_of(tagged(RIGHT), result(None, status)).reward != silent

    def test_a_substitute_of_the_server_is_not_used_as_phi(self) -> None:
        substituted = replace(result(None, "no_evidence"), score=0.5)
        assert breakdown_of(tagged(RIGHT), substituted).reward is None

    def test_without_a_reply_there_is_no_reward(self) -> None:
        found = breakdown_of(tagged(RIGHT), None)
        assert (found.status, found.reward, found.model) == ("unscored", None, None)

    def test_fallbacks_can_be_set(self) -> None:
        fallbacks = {"no_evidence": -0.5}
        found = breakdown_of(tagged(RIGHT), result(None, "no_evidence"), fallbacks=fallbacks)
        assert found.reward == pytest.approx(0.5)
        assert (
            breakdown_of(tagged(RIGHT), result(None, "no_claims"), fallbacks=fallbacks).reward
            is None
        )

    def test_without_a_tag_the_checker_is_not_asked(self) -> None:
        contract, samples = GroundedAnswer(), [Sample(RIGHT, [RIGHT], "x")]
        assert contract.items(samples) == []
        (found,) = contract.breakdowns(samples, None)
        assert (found.status, found.base, found.reward) == ("no_answer", 0, -0.5)

    def test_a_model_without_phi_raises_a_protocol_error(self) -> None:
        other = replace(result(0.5), channels={"reward": 0.5})
        with pytest.raises(ProtocolError, match="phi"):
            breakdown_of(tagged(RIGHT), other)

    @pytest.mark.parametrize(
        "arguments",
        [
            {"alpha": -0.1},
            {"alpha": math.nan},
            {"alpha": math.inf},
            {"fallbacks": {"no_claims": -1.5}},
            {"fallbacks": {"no_claims": math.nan}},
            {"fallbacks": {"ok": 0.0}},
            {"fallbacks": {"no_answer": 0.0}},
        ],
    )
    def test_numbers_out_of_range_are_refused(self, arguments: Any) -> None:
        with pytest.raises(ValueError, match="must"):
            GroundedAnswer(**arguments)


class TestBreakdowns:
    def test_breakdowns_keep_the_order_and_items_have_an_answer(self) -> None:
        contract = GroundedAnswer()
        samples = [
            Sample(tagged("one"), ["one"], ["first", "second"]),
            Sample("two", ["two"], "first"),
            Sample(tagged("three"), ["three"], "third"),
        ]
        assert contract.items(samples) == [
            {"response": "one", "evidence": ["first", "second"]},
            {"response": "three", "evidence": "third"},
        ]
        found = contract.breakdowns(samples, reply(result(1.0), result(-0.5, flags=["truncated"])))
        assert [row.phi for row in found] == [1.0, None, -0.5]
        assert [row.flags for row in found] == [(), (), ("truncated",)]
        assert [row.model for row in found] == ["nli@2", None, "nli@2"]
        assert found[0].fingerprint == "sha256:aa"

    def test_a_reply_to_other_items_is_refused(self) -> None:
        samples = [Sample(tagged("one"), ["one"], "x")]
        with pytest.raises(ValueError, match="2 results for 1"):
            GroundedAnswer().breakdowns(samples, reply(result(1.0), result(1.0)))

    @given(
        st.sampled_from([RIGHT, WRONG, "short", ""]),
        st.sampled_from([None, "no_claims", "no_evidence"]),
        st.floats(-1, 1),
        st.floats(0, 2),
        st.booleans(),
    )
    def test_the_reward_can_be_recomputed_from_json(
        self, answer: str, error: str | None, phi: float, alpha: float, with_tag: bool
    ) -> None:
        checked = result(None if error else phi, error) if with_tag else None
        found = breakdown_of(tagged(answer) if with_tag else answer, checked, alpha=alpha)
        read_back = json.loads(json.dumps(found.to_dict()))
        assert read_back["contract"] == "grounded-answer@1"
        assert recompute_reward(read_back) == found.reward

    def test_an_unknown_contract_is_refused(self) -> None:
        breakdown = breakdown_of(tagged(RIGHT), result(1.0)).to_dict()
        with pytest.raises(ValueError, match="grounded-answer@2"):
            recompute_reward({**breakdown, "contract": "grounded-answer@2"})

    def test_a_contract_can_be_pickled(self) -> None:
        contract = GroundedAnswer(alpha=0.5, fallbacks={"no_evidence": -1.0})
        assert pickle.loads(pickle.dumps(contract)) == contract


def test_the_pages_table_agrees_with_the_contract() -> None:
    table = PAGE.read_text().partition("| length | EM |")[2].partition("\n\n")[0]
    rows = table.splitlines()[2:]
    assert len(rows) >= 10
    for row in rows:
        length, exact, f1, phi, alpha, reward = (
            cell.strip(" `") for cell in row[1:-1].split("|")[:6]
        )
        parts = {
            "contract": "grounded-answer@1",
            "status": "no_answer" if length == "none" else "ok",
            "exact": float(exact),
            "f1": float(f1),
            "form": format_score(None if length == "none" else int(length)),
            "penalty": format_penalty(None if length == "none" else int(length)),
            "phi": None if length == "none" else float(phi),
            "alpha": float(alpha),
        }
        assert recompute_reward(parts) == pytest.approx(float(reward), abs=5e-4), row
