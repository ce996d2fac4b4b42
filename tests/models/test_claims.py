"""Splitting a response into claims, and the phi table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_models.claims import LABELS, WEIGHTS, Label, Verdict, phi, shares, split_claims


def texts(response: str) -> list[str]:
    return [claim.text for claim in split_claims(response).claims]


def test_latin_sentences_are_claims() -> None:
    assert texts(
        "The bridge opened in 1932. It was made of steel\u2026 It surely is of steel!"
    ) == [
        "The bridge opened in 1932.",
        "It was made of steel\u2026",
        "It surely is of steel!",
    ]


def test_cjk_sentences_need_no_space_between_them() -> None:
    first = "这座横跨海港的大桥于一九三二年正式建成通车。"
    second = "它的主体结构全部使用钢材而不是混凝土建造\uff01"
    assert texts(first + second) == [first, second]


def test_decimals_and_abbreviations_do_not_end_a_sentence() -> None:
    response = "Dr. Osei gave 2.5 mg, e.g. at night. The patient slept for nine hours."
    assert texts(response) == [
        "Dr. Osei gave 2.5 mg, e.g. at night.",
        "The patient slept for nine hours.",
    ]


def test_closing_quotes_stay_with_their_sentence() -> None:
    assert texts('He said "the ferry has left." Nobody believed a word.') == [
        'He said "the ferry has left."',
        "Nobody believed a word.",
    ]


def test_list_lines_are_claims_without_their_markers() -> None:
    assert (
        texts("- Lead melts at 327 °C\n2. Tin melts at 232 °C\n\n* Zinc is harder")
        == [
            "Lead melts at 327 °C",
            "Tin melts at 232 °C",
            "Zinc is harder",
        ][:2]
    )


@pytest.mark.parametrize(("length", "kept"), [(15, 0), (16, 1)])
def test_pieces_of_fifteen_characters_or_fewer_are_dropped_and_counted(
    length: int, kept: int
) -> None:
    split = split_claims("x" * length)
    assert (len(split.claims), len(split.dropped)) == (kept, 1 - kept)


@pytest.mark.parametrize("response", ["", "   \n\t ", "...", "Yes. No."])
def test_a_response_may_hold_no_claim(response: str) -> None:
    assert split_claims(response).claims == ()


@given(st.text(alphabet=st.sampled_from("ab Dr.!?…。\uff01\n-1.\"')"), max_size=200))
def test_claims_are_disjoint_slices_in_order(response: str) -> None:
    end = 0
    for claim in split_claims(response).claims:
        assert claim.start >= end
        assert response[claim.start : claim.end] == claim.text == claim.text.strip()
        end = claim.end


@pytest.mark.parametrize(
    ("verdicts", "unclipped", "clipped"),
    [
        ([("entailment", 0.8)], 0.8, 0.8),
        ([("neutral", 0.9)], 0.0, 0.0),
        ([("contradiction", 0.5)], -0.75, -0.75),
        ([("contradiction", 0.9)], -1.35, -1.0),
        ([("contradiction", 1.0)], -1.5, -1.0),
        ([("entailment", 1.0)] * 3, 1.0, 1.0),
        ([("entailment", 0.9), ("neutral", 0.6), ("contradiction", 0.8)], -0.1, -0.1),
    ],
)
def test_phi_table(verdicts: list[tuple[Label, float]], unclipped: float, clipped: float) -> None:
    found = phi([Verdict(label, confidence) for label, confidence in verdicts])
    assert found.unclipped == pytest.approx(unclipped, abs=1e-12)
    assert found.clipped == pytest.approx(clipped, abs=1e-12)


@pytest.mark.parametrize("new", LABELS)
def test_changing_one_label_changes_phi_by_the_formula(new: Label) -> None:
    others = [Verdict("entailment", 0.7), Verdict("neutral", 0.9)]
    before = phi([*others, Verdict("entailment", 0.6)]).unclipped
    after = phi([*others, Verdict(new, 0.6)]).unclipped
    assert after - before == pytest.approx((WEIGHTS[new] - 1.0) * 0.6 / 3, abs=1e-12)


def test_shares_of_labels_sum_to_one() -> None:
    verdicts = [Verdict("entailment", 0.7), Verdict("neutral", 0.9), Verdict("neutral", 0.5)]
    assert shares(verdicts) == {
        "entailment": pytest.approx(1 / 3),
        "neutral": pytest.approx(2 / 3),
        "contradiction": 0.0,
    }
