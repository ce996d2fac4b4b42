"""Splitting of a response into claims, and phi."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from assay_models.base import ItemError
from assay_models.families.nli import claims as claims_module
from assay_models.families.nli.claims import (
    WEIGHTS,
    Claim,
    ClaimVerdict,
    DroppedPiece,
    label_shares,
    phi,
    split_claims,
)
from assay_models.items import LABELS, Label
from assay_models.preemption import preempted_by


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
    assert texts("- Lead melts at 327 °C\n2. Tin melts at 232 °C\n\n* Zinc is harder than tin") == [
        "Lead melts at 327 °C",
        "Tin melts at 232 °C",
        "Zinc is harder than tin",
    ]


@pytest.mark.parametrize(("length", "kept"), [(15, 0), (16, 1)])
def test_pieces_of_fifteen_characters_or_fewer_are_dropped_and_counted(
    length: int, kept: int
) -> None:
    split = split_claims("x" * length)
    assert (len(split.claims), len(split.dropped)) == (kept, 1 - kept)


@pytest.mark.parametrize("response", ["", "   \n\t ", "...", "Yes. No."])
def test_a_response_can_have_no_claim(response: str) -> None:
    assert split_claims(response).claims == ()


PIECES = (
    *("a", "b", " ", " ", ".", "!", "?", "\u2026", "\u3002", "\uff01", "\uff1f", "\n", "\r\n", "-"),
    *("1", '"', "'", ")", "(", "*", ">", "#", "```", "~~~", "\x00", "\u200b", "\ufeff", "\u2028"),
    *(
        "Dr. ",
        "e.g. ",
        "St. ",
        "[1]",
        "2.5 mg",
        "[^1]",
        "https://a.b/c ",
        "A claim that is long enough. ",
    ),
    *(
        "[^1]",
        "<think>",
        "</think>",
        " (Smith, 2020)",
        "\u30101\u3011",
        ": ",
        "[a](https://b.c)",
        "\u2020",
    ),
    *("\u6e21\u8f6e", "\U0001f600", "- ", "1. ", "# ", "e\u0301", "\ud800"),
)


@given(st.lists(st.sampled_from(PIECES), max_size=80).map("".join))
@example("a<think></think>a")
@example("The ferry <think>Hm.</think>carries forty cars.")
def test_claims_and_dropped_pieces_are_disjoint_and_leave_out_only_white_space(
    response: str,
) -> None:
    split = split_claims(response)
    for claim in split.claims:
        place = response[claim.start : claim.end]
        assert place == place.strip()
        assert claim.text == claim.text.strip() != ""
        is_read = place.rstrip('"').endswith(("?", ":"))  # a question or a lead-in that states
        if place.isascii() and not claim.citations and not is_read:
            assert claim.text == place
    starts = [claim.start for claim in split.claims]
    assert starts == sorted(starts)
    end = 0
    pieces: list[Claim | DroppedPiece] = [*split.claims, *split.dropped]
    for piece in sorted(pieces, key=lambda piece: piece.start):
        assert end <= piece.start < piece.end <= len(response)
        assert not response[end : piece.start].strip()
        end = piece.end
    assert not response[end:].strip()


@pytest.mark.parametrize(
    ("piece", "reason"),
    [
        ("Is the bridge made of steel?", "question"),
        ('Is it true that "the bridge is made of steel"?\u201d', "question"),
        ("\u8fd9\u5ea7\u6865\u662f\u94a2\u505a\u7684\u5417\uff1f", "question"),
        ("## How the bridge was built", "heading"),
        ("**How the bridge was built:**", "heading"),
        ("```python\nbridge = build(steel)\n```", "code"),
        ("~~~\nbridge = build(steel)", "code"),
        ("```python\n# The bridge is made of steel.\nbridge = 1\n```", "code"),
        ("Was the bridge ever made of wood?", "question"),
        ("How many people built the bridge?", "question"),
        ("Build the bridge like this:", "lead_in"),
        ("The bridge has the following parts:", "lead_in"),
        ("I do not know the answer.", "refusal"),
        ("I don't know.", "refusal"),
        ("The passages do not mention the bridge, so I cannot say.", "refusal"),
        ("Source: Harbour Office, page 4", "source"),
        ("[1]", "citation"),
        ("<think>Was it really 1932? It may be.</think>", "thought"),
        ("<think>\nWas it really 1932?\n\nThe bridge is made of wood.", "thought"),
        ("https://example.com/bridge.html", "url"),
        ("1932 1953 1954 1955 1956 1957", "no_letters"),
        ("\U0001f309\U0001f309\U0001f309", "no_letters"),
        ("x" * 65, "no_words"),
        ("Steel it is.", "too_short"),
        ("\u662f\u7684\u3002", "too_short"),
    ],
)
def test_a_dropped_piece_has_its_reason_and_place(piece: str, reason: str) -> None:
    response = f"The bridge opened in 1932.\n{piece}\n"
    split = split_claims(response)
    assert [claim.text for claim in split.claims] == ["The bridge opened in 1932."]
    (dropped,) = split.dropped
    assert (dropped.reason, response[dropped.start : dropped.end]) == (reason, piece)


@pytest.mark.parametrize(
    "piece",
    [
        "# The bridge is made of steel.",
        "## The bridge is made of steel ##",
        "**The bridge is made of steel**",
        "__The bridge is made of steel.__",
        "**The bridge is made of steel:**",
        "```\nThe bridge is made of steel.\n```",
        "```python\nThe bridge is made of steel.\n```",
        "The bridge is made of steel?",
        "The bridge is made of steel, isn't it?",
        "Did you know that the bridge is made of steel?",
        "Isn\u2019t it true that the bridge is made of steel?",
        "The bridge is made of steel:",
        "Is it so?\u200b The bridge is made of steel.",
    ],
)
def test_a_statement_is_a_claim_wherever_it_stands(piece: str) -> None:
    stated = {text.rstrip(".") for text in texts(f"The bridge opened in 1932.\n{piece}\n")}
    assert stated == {"The bridge opened in 1932", "The bridge is made of steel"}


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<think>Hm, nine.</think>The ferry leaves at nine.", "The ferry leaves at nine."),
        ("Hm, nine.\n</think>\n\nThe ferry leaves at nine.", "The ferry leaves at nine."),
        ("[THINK]Hm.[/THINK]The ferry leaves at nine.", "The ferry leaves at nine."),
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>"
            "The ferry leaves at nine.",
            "The ferry leaves at nine.",
        ),
        ("The tag `</think>` ends a thought.", "The tag `</think>` ends a thought."),
        ("The tag <think> opens a thought.", "The tag <think> opens a thought."),
    ],
)
def test_thoughts_are_no_part_of_the_answer(response: str, answer: str) -> None:
    split = split_claims(response)
    assert split.answer == answer
    assert [claim.text for claim in split.claims] == [answer]


@pytest.mark.parametrize(
    ("response", "share"),
    [
        ("The bridge opened in 1932.", 0.0),
        ("> - The bridge opened in 1932. [1]", 0.0),
        ("<think>Did it?</think>The bridge opened in 1932.", 0.0),
        ("The bridge opened in 1932. Did the bridge open in 1932?", 18 / 35),
        ("abcdefghij:\n# abcdefghij\n```\nabcdefghij = 1\n```", 1.0),
        ("", 0.0),
    ],
)
def test_unjudged_is_the_share_of_letters_outside_of_claims(response: str, share: float) -> None:
    assert split_claims(response).unjudged == pytest.approx(share)


def test_text_after_a_closed_block_is_read() -> None:
    response = "```\na = 1\n```\nThe bridge opened in 1932."
    assert texts(response) == ["The bridge opened in 1932."]


def test_markers_are_dropped_pieces() -> None:
    response = "> - The bridge opened in 1932.\n12) It was built by two firms."
    split = split_claims(response)
    assert texts(response) == ["The bridge opened in 1932.", "It was built by two firms."]
    assert [response[piece.start : piece.end] for piece in split.dropped] == [">", "-", "12)"]
    assert {piece.reason for piece in split.dropped} == {"marker"}


@pytest.mark.parametrize(
    "claim",
    [
        "Dr. J. Osei of the U.S. team gave 2.5 mg, i.e. half of it.",
        "See https://example.com/a.b?c=d for the 1.2.3 release.",
        "The price fell by 2.1% to $3.50 at 5 p.m. in London.",
        "He lives in St. Gallen near Mt. Hood today.",
        "The call `a.b()` returns x.y in version 3.11.",
        "\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002",
    ],
)
def test_abbreviations_numbers_and_links_do_not_end_a_sentence(claim: str) -> None:
    other = "Another claim follows here."
    assert texts(f"{claim} {other}") == [claim, other]


@pytest.mark.parametrize(
    "text",
    [
        f"I do not know{' ' * 500_000}why",
        f"# x{' ' * 500_000}y",
        f"# x{'#' * 500_000}y",
        "```\n" + "The ferry leaves at nine.\n" * 20_000 + "```",
        "We saw St. " * 50_000,
        "a [1] b " * 50_000,
    ],
)
def test_the_claims_of_any_text_are_found_in_one_pass(text: str) -> None:
    assert all(claim.start < claim.end <= len(text) for claim in split_claims(text).claims)


@pytest.mark.parametrize("close", [" #", " ##", "##", "   #"])
def test_the_hashes_that_close_a_heading_are_no_part_of_its_claim(close: str) -> None:
    assert texts(f"#  The ferry leaves at nine.{close}") == ["The ferry leaves at nine."]


@pytest.mark.parametrize("end", [" ?", " :"])
def test_a_statement_is_read_without_the_blank_before_its_mark(end: str) -> None:
    assert texts(f"The ferry leaves at nine{end}") == ["The ferry leaves at nine."]


def test_the_lines_of_a_block_that_is_repeated_are_claims_each() -> None:
    line = "The ferry leaves at nine.\n"
    assert len(texts(f"```\n{line * 3}```\n")) == 3


def test_a_wide_character_counts_as_three_letters() -> None:
    assert texts("\u9e1f\u4f1a\u98de\u5440\u54c8\u3002") == ["\u9e1f\u4f1a\u98de\u5440\u54c8\u3002"]


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
def test_phi_by_table(
    verdicts: list[tuple[Label, float]], unclipped: float, clipped: float
) -> None:
    result = phi([ClaimVerdict(label, confidence) for label, confidence in verdicts])
    assert result.unclipped == pytest.approx(unclipped, abs=1e-12)
    assert result.clipped == pytest.approx(clipped, abs=1e-12)


@pytest.mark.parametrize(
    ("weights", "unclipped", "clipped"),
    [
        ({}, -0.1, -0.1),
        ({"contradiction": -1.0}, 0.1 / 3, 0.1 / 3),
        ({"neutral": 0.5}, 0.0, 0.0),
        ({"entailment": 0.0, "contradiction": -6.0}, -1.6, -1.0),
        ({"entailment": 5.0, "contradiction": 0.0}, 1.5, 1.0),
    ],
)
def test_phi_with_other_weights_by_table(
    weights: dict[Label, float], unclipped: float, clipped: float
) -> None:
    verdicts = [
        ClaimVerdict("entailment", 0.9),
        ClaimVerdict("neutral", 0.6),
        ClaimVerdict("contradiction", 0.8),
    ]
    result = phi(verdicts, {**WEIGHTS, **weights})
    assert result.unclipped == pytest.approx(unclipped, abs=1e-12)
    assert result.clipped == pytest.approx(clipped, abs=1e-12)


@pytest.mark.parametrize("new", LABELS)
def test_changing_a_label_changes_phi_by_the_formula(new: Label) -> None:
    others = [ClaimVerdict("entailment", 0.7), ClaimVerdict("neutral", 0.9)]
    before = phi([*others, ClaimVerdict("entailment", 0.6)]).unclipped
    after = phi([*others, ClaimVerdict(new, 0.6)]).unclipped
    assert after - before == pytest.approx((WEIGHTS[new] - 1.0) * 0.6 / 3, abs=1e-12)


def test_label_shares_sum_to_one() -> None:
    verdicts = [
        ClaimVerdict("entailment", 0.7),
        ClaimVerdict("neutral", 0.9),
        ClaimVerdict("neutral", 0.5),
    ]
    assert label_shares(verdicts) == {
        "entailment": pytest.approx(1 / 3),
        "neutral": pytest.approx(2 / 3),
        "contradiction": 0.0,
    }


def test_a_response_of_too_many_pieces_is_refused_while_it_is_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(claims_module, "MAX_PIECES", 100)
    points: list[int] = []
    refused = pytest.raises(ItemError, match="more than 100 sentences and other pieces")
    with preempted_by(lambda tokens, inputs: points.append(inputs)), refused as caught:
        split_claims("No.\n" * 10_000)
    assert caught.value.code == "input_too_long"
    assert len(points) < 1000, "the rest of the response is not read"
    assert len(split_claims("No.\n" * 100).dropped) == 100
