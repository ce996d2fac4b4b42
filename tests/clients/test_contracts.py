"""The contract of grounded answers: its numbers, its failures, and that both can be recomputed."""

import json
import math
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.paths import DOCS

from assay_client import ProtocolError, Result, ScoreReply
from assay_client.rewards.contracts import (
    Account,
    GroundedAnswer,
    Sample,
    answer_of,
    form_of,
    penalty_of,
    recomputed,
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
        0, None, None, status, score, score, channels, tuple(flags), 9, "computed", {}, failure
    )


def reply(*results: Result) -> ScoreReply:
    usage, timing = Usage(1, 9, 1, 0, 0, 0, 0), Timing(0, 0, 0, 0)
    return ScoreReply("score-1", "nli@2", "sha256:aa", results, (), usage, timing)


def account(completion: str, one: Result | None, reference: str = RIGHT, **told: Any) -> Account:
    contract = GroundedAnswer(**told)
    samples = [Sample(completion, [reference], ["The passage."])]
    given = None if one is None else reply(one)
    (found,) = contract.accounts(samples, given)
    return found


class TestAnswer:
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
    def test_what_is_read(self, completion: str, answer: str | None) -> None:
        assert answer_of(completion) == answer

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
    def test_its_form_and_what_is_taken(
        self, length: int | None, form: float, penalty: float
    ) -> None:
        assert (form_of(length), penalty_of(length)) == (pytest.approx(form), penalty)

    def test_its_length_is_that_of_the_answer_alone(self) -> None:
        found = account("thought " * 50 + tagged("x" * 50), result(0.0))
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
    def test_as_squad_has_it(self, answer: str, reference: str, exact: int, f1: float) -> None:
        found = account(tagged(answer), result(0.0), reference)
        assert (found.exact, found.f1) == (exact, pytest.approx(f1))

    def test_the_best_reference_counts(self) -> None:
        samples = [Sample(tagged("red lamp"), ["blue", "red lamp"], "x")]
        (found,) = GroundedAnswer().accounts(samples, reply(result(0.0)))
        assert (found.exact, found.f1) == (1, 1)

    @pytest.mark.parametrize("references", [[], "a text"])
    def test_references_are_a_list_that_holds_one(self, references: Any) -> None:
        with pytest.raises(ValueError, match="reference"):
            GroundedAnswer().accounts([Sample(tagged("x"), references, "y")], reply(result(0.0)))


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
    def test_its_table(self, answer: str, phi: float, alpha: float, reward: float) -> None:
        found = account(tagged(answer), result(phi), alpha=alpha)
        assert found.status == "ok"
        assert found.reward == pytest.approx(reward)

    def test_a_wrong_answer_can_be_positive(self) -> None:
        """The paper says it cannot: length and tags alone are worth one third at phi = 1."""
        found = account(tagged("z" * 80), result(1.0))
        assert (found.exact, found.f1) == (0, 0)
        assert found.reward == pytest.approx(1 / 3)

    @given(st.integers(0, 120), st.booleans(), st.floats(-1.5, 1), st.floats(0, 4))
    def test_it_stays_in_its_range(
        self, length: int, right: bool, phi: float, alpha: float
    ) -> None:
        answer = "r" * length
        found = account(tagged(answer), result(phi), answer if right else "other", alpha=alpha)
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
    def test_the_range(self, alpha: float, low: float, high: float) -> None:
        assert GroundedAnswer(alpha=alpha).range == pytest.approx((low, high), abs=1e-5)

    def test_phi_is_cut(self) -> None:
        assert account(tagged(RIGHT), result(-1.5)).phi == -1

    @given(st.floats(-1, 1), st.floats(-1, 1))
    def test_without_alpha_phi_changes_nothing(self, one: float, other: float) -> None:
        rewards = {account(tagged(RIGHT), result(phi), alpha=0).reward for phi in (one, other)}
        assert rewards == {1.0}


class TestFailures:
    @pytest.mark.parametrize("status", ["no_claims", "no_search", "unsupported_language"])
    def test_what_the_policy_brings_about_stands_at_minus_one(self, status: str) -> None:
        found = account(tagged(RIGHT), result(None, status))
        assert (found.status, found.phi, found.substituted) == (status, -1, True)
        assert found.reward == pytest.approx(0)

    @pytest.mark.parametrize("status", ["no_evidence", "too_many_pairs", "input_too_long", "nan"])
    def test_what_others_bring_about_has_no_reward(self, status: str) -> None:
        found = account(tagged(RIGHT), result(None, status))
        assert (found.status, found.phi, found.reward) == (status, None, None)
        assert found.base == 1

    def test_a_failure_is_never_the_same_as_silence(self) -> None:
        silent = account(tagged(RIGHT), result(0.0)).reward
        for status in ("no_claims", "no_evidence", "inference_failed"):
            assert account(tagged(RIGHT), result(None, status)).reward != silent

    def test_a_substitute_of_the_server_is_no_phi(self) -> None:
        failed = result(None, "no_evidence")
        one = Result(*[*vars(failed).values()][:4], 0.5, *[*vars(failed).values()][5:])
        assert one.score == 0.5
        assert account(tagged(RIGHT), one).reward is None

    def test_no_reply(self) -> None:
        found = account(tagged(RIGHT), None)
        assert (found.status, found.reward, found.model) == ("unscored", None, None)

    def test_stand_ins_can_be_chosen(self) -> None:
        searching = {"no_evidence": -0.5}
        found = account(tagged(RIGHT), result(None, "no_evidence"), standins=searching)
        assert found.reward == pytest.approx(0.5)
        assert account(tagged(RIGHT), result(None, "no_claims"), standins=searching).reward is None

    def test_without_a_tag_nothing_is_asked_and_phi_cannot_matter(self) -> None:
        contract, samples = GroundedAnswer(), [Sample(RIGHT, [RIGHT], "x")]
        assert contract.items(samples) == []
        (found,) = contract.accounts(samples, None)
        assert (found.status, found.base, found.reward) == ("no_answer", 0, -0.5)

    def test_a_model_without_phi_is_a_mistake(self) -> None:
        other = result(0.5)
        other = Result(*[*vars(other).values()][:6], {"reward": 0.5}, *[*vars(other).values()][7:])
        with pytest.raises(ProtocolError, match="phi"):
            account(tagged(RIGHT), other)

    @pytest.mark.parametrize(
        "told",
        [
            {"alpha": -0.1},
            {"alpha": math.nan},
            {"alpha": math.inf},
            {"standins": {"no_claims": -1.5}},
            {"standins": {"no_claims": math.nan}},
            {"standins": {"ok": 0.0}},
            {"standins": {"no_answer": 0.0}},
        ],
    )
    def test_numbers_that_cannot_be_meant(self, told: Any) -> None:
        with pytest.raises(ValueError, match="must"):
            GroundedAnswer(**told)


class TestAccounts:
    def test_they_keep_the_order_and_ask_for_those_with_an_answer(self) -> None:
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
        found = contract.accounts(samples, reply(result(1.0), result(-0.5, flags=["truncated"])))
        assert [one.phi for one in found] == [1.0, None, -0.5]
        assert [one.flags for one in found] == [(), (), ("truncated",)]
        assert [one.model for one in found] == ["nli@2", None, "nli@2"]
        assert found[0].fingerprint == "sha256:aa"

    def test_a_reply_to_something_else_is_refused(self) -> None:
        samples = [Sample(tagged("one"), ["one"], "x")]
        with pytest.raises(ValueError, match="2 results for 1"):
            GroundedAnswer().accounts(samples, reply(result(1.0), result(1.0)))

    @given(
        st.sampled_from([RIGHT, WRONG, "short", ""]),
        st.sampled_from([None, "no_claims", "no_evidence"]),
        st.floats(-1, 1),
        st.floats(0, 2),
        st.booleans(),
    )
    def test_the_number_can_be_recomputed_from_what_is_told(
        self, answer: str, error: str | None, phi: float, alpha: float, with_tag: bool
    ) -> None:
        one = result(None if error else phi, error) if with_tag else None
        found = account(tagged(answer) if with_tag else answer, one, alpha=alpha)
        told = json.loads(json.dumps(found.told()))
        assert told["contract"] == "grounded-answer@1"
        assert recomputed(told) == found.reward

    def test_another_contract_is_not_guessed_at(self) -> None:
        told = account(tagged(RIGHT), result(1.0)).told()
        with pytest.raises(ValueError, match="grounded-answer@2"):
            recomputed({**told, "contract": "grounded-answer@2"})

    def test_a_contract_can_be_pickled(self) -> None:
        contract = GroundedAnswer(alpha=0.5, standins={"no_evidence": -1.0})
        assert pickle.loads(pickle.dumps(contract)) == contract


def test_the_pages_table_is_what_the_contract_gives() -> None:
    table = PAGE.read_text().partition("| length | EM |")[2].partition("\n\n")[0]
    rows = table.splitlines()[2:]
    assert len(rows) >= 10
    for row in rows:
        length, exact, f1, phi, alpha, reward = (
            cell.strip(" `") for cell in row[1:-1].split("|")[:6]
        )
        told = {
            "contract": "grounded-answer@1",
            "status": "no_answer" if length == "none" else "ok",
            "exact": float(exact),
            "f1": float(f1),
            "form": form_of(None if length == "none" else int(length)),
            "penalty": penalty_of(None if length == "none" else int(length)),
            "phi": None if length == "none" else float(phi),
            "alpha": float(alpha),
        }
        assert recomputed(told) == pytest.approx(float(reward), abs=5e-4), row
