"""Evidence longer than the encoder: every part is read, and reports name the places."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.checkpoints import load_model
from support.marked_checker import DENIES, FILLER, SUPPORTS, build_marked, prose

from assay_models.base import ItemError, Options, Prepared, Raw, RewardModel, Score
from assay_models.families.nli.chunking import Chunk, Evidence, cut_text
from assay_models.items import NliItem

CLAIM = "The ferry leaves at nine."


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    return load_model(build_marked(tmp_path_factory.mktemp("marked")))


def prepare(model: RewardModel, truncation: Any = "error", **fields: Any) -> Prepared:
    return model.prepare([NliItem(**fields)], Options(truncation=truncation))


def score(model: RewardModel, **fields: Any) -> Score:
    prepared = prepare(model, **fields)
    raws: list[Raw] = []
    for start in range(0, len(prepared.inputs), 64):
        batch = model.predict(prepared.inputs[start : start + 64])
        assert isinstance(batch, Sequence)
        raws += batch
    return model.finish(prepared, raws, Options())[0]


def words(text: str) -> list[tuple[int, int]]:
    """Tokenize for tests: a word is one token, and one more for each hyphen in it."""
    tokens, start = [], 0
    for word in text.split(" "):
        for part in word.split("-"):
            if part:
                tokens.append((start, start + len(part)))
            start += len(part) + 1
    return tokens


def test_a_claim_that_only_the_last_of_forty_passages_supports_is_entailed(
    marked: RewardModel,
) -> None:
    passages = [f"{prose(5)} Page {number}." for number in range(39)]
    passages.append(f"{prose(5)} The ferry {SUPPORTS} leaves at nine. {prose(5)}")
    result = score(marked, evidence=passages, claims=[CLAIM])
    (claim,) = result.details["claims"]
    assert (claim["label"], claim["passage"]) == ("entailment", 39)
    best = claim["best_supported"]
    assert best["passage"] == 39
    assert "The ferry < leaves at nine." in passages[39][best["start"] : best["end"]]
    assert result.channels["support"] == 1.0
    assert result.flags == ()


def test_a_claim_denied_in_the_middle_of_six_thousand_words_is_contradicted(
    marked: RewardModel,
) -> None:
    half = prose(400)
    evidence = f"{half} The harbour is closed {DENIES} in winter. {half}"
    assert len(evidence.split()) > 6000
    result = score(marked, evidence=evidence, claims=[CLAIM])
    (claim,) = result.details["claims"]
    worst = claim["worst_contradicted"]
    assert claim["label"] == "contradiction"
    assert worst["start"] < evidence.index(DENIES) < worst["end"]
    assert worst["start"] > len(evidence) / 2 - 300
    assert worst["end"] < len(evidence) / 2 + 300
    assert claim["chunk"] == {"start": worst["start"], "end": worst["end"]}


def test_a_mark_at_any_sentence_is_found(marked: RewardModel) -> None:
    evidence = prose(24)
    for place in [at for at, letter in enumerate(evidence) if letter == "."]:
        text = evidence[:place] + " " + SUPPORTS + evidence[place:]
        (claim,) = score(marked, evidence=text, claims=[CLAIM]).details["claims"]
        assert claim["label"] == "entailment"
        assert claim["chunk"]["start"] <= place < claim["chunk"]["end"]


def test_a_chunk_and_the_pair_of_its_text_have_the_same_key(marked: RewardModel) -> None:
    evidence = prose(20)
    prepared = prepare(marked, evidence=evidence, claims=[CLAIM, "The other claim."])
    assert len({row.key for row in prepared.inputs}) == len(prepared.inputs) > 6
    assert max(row.tokens for row in prepared.inputs) <= 256
    (_, chunks), _ = prepared.state.claims
    for chunk, row in zip(chunks, prepared.inputs, strict=False):
        pair = prepare(marked, premise=evidence[chunk.start : chunk.end], hypothesis=CLAIM)
        assert pair.inputs[0].key == row.key


def test_a_passage_that_fits_is_one_chunk(marked: RewardModel) -> None:
    prepared = prepare(marked, evidence=f"  {FILLER[0]}\n", claims=[CLAIM])
    assert prepared.state.claims[0][1] == (Chunk(0, 0, len(FILLER[0]) + 3),)


def test_the_chunks_of_a_claim_do_not_depend_on_other_claims(marked: RewardModel) -> None:
    evidence = [prose(12), prose(9)]
    longer = "The ferry to the far island in the north leaves at nine in the morning of every day."
    alone = prepare(marked, evidence=evidence, claims=[CLAIM]).inputs
    beside = prepare(marked, evidence=evidence, claims=[longer, CLAIM]).inputs
    assert [row.key for row in beside[-len(alone) :]] == [row.key for row in alone]


def test_a_sentence_longer_than_the_window_is_read_in_windows(marked: RewardModel) -> None:
    endless = "and the river flows on " * 60
    evidence = endless + DENIES + " " + endless
    (claim,) = score(marked, evidence=evidence, claims=[CLAIM]).details["claims"]
    assert claim["label"] == "contradiction"
    assert claim["chunk"]["start"] <= evidence.index(DENIES) < claim["chunk"]["end"]
    assert claim["chunk"]["end"] - claim["chunk"]["start"] < 400


def test_a_claim_that_leaves_no_room_is_an_item_error_with_its_index(marked: RewardModel) -> None:
    long_claim = "the ferry leaves the harbour " * 8
    with pytest.raises(ItemError, match=r"claim 1 has \d+ tokens, the model takes \d+") as error:
        prepare(marked, evidence=prose(9), claims=[CLAIM, long_claim])
    assert error.value.code == "input_too_long"
    assert "options.truncation to left, right or middle" in error.value.detail


def test_a_claim_is_truncated_only_if_requested_and_then_flagged(marked: RewardModel) -> None:
    long_claim = "the ferry leaves the harbour " * 20
    prepared = prepare(marked, "right", evidence=prose(9), claims=[long_claim])
    assert prepared.flags[0] == "truncated"
    assert prepared.details["truncated_tokens"] > 100
    assert max(row.tokens for row in prepared.inputs) <= 256
    (_, chunks), *_ = prepared.state.claims
    assert (chunks[0].start, chunks[-1].end) == (0, len(prose(9)))


def test_evidence_is_never_truncated(marked: RewardModel) -> None:
    prepared = prepare(marked, "right", evidence=prose(40), claims=[CLAIM])
    assert prepared.flags == ()
    assert "truncated_tokens" not in prepared.details


def test_the_error_of_a_long_pair_suggests_evidence_and_claims(marked: RewardModel) -> None:
    with pytest.raises(ItemError, match="`evidence` and `claims`") as error:
        prepare(marked, premise=prose(40), hypothesis=CLAIM)
    assert error.value.code == "input_too_long"


def test_the_card_can_limit_the_tokens_of_a_chunk(tmp_path: Path) -> None:
    model = load_model(build_marked(tmp_path, options={"chunk_tokens": 48}))
    narrow = prepare(model, evidence=prose(4), claims=[CLAIM])
    assert max(row.tokens for row in narrow.inputs) <= 48 + len(CLAIM.replace(" ", "")) + 3
    assert len(narrow.inputs) >= 4


def test_coverage_is_the_share_of_the_evidence_that_decided(marked: RewardModel) -> None:
    passages = [f"The ferry {SUPPORTS} leaves.", "x" * 30, f"No ferry {DENIES} leaves today."]
    result = score(marked, evidence=passages, claims=[CLAIM])
    total = sum(map(len, passages))
    assert result.channels["coverage"] == pytest.approx(len(passages[0]) / total)
    assert result.flags == ("disputed_evidence",)
    silent = score(marked, evidence=passages[1], claims=[CLAIM])
    assert silent.channels["coverage"] == 0.0


WORDS = st.lists(st.sampled_from(["a.", "b", "c-d", "e!", "f-g-h.", "\n", "i"]), max_size=120)


@given(WORDS, st.integers(3, 20))
def test_chunks_fit_and_cover_the_text(parts: list[str], window: int) -> None:
    text = " ".join(parts)
    spans = cut_text(text, words(text), window, words)
    covered = set()
    for start, end in spans:
        assert 0 <= start < end <= len(text)
        assert len(words(text[start:end])) <= window
        covered |= set(range(start, end))
    assert [start for start, _ in spans] == sorted(start for start, _ in spans)
    assert all(letter.isspace() for at, letter in enumerate(text) if at not in covered)


def test_the_last_sentence_of_a_chunk_is_the_first_of_the_next() -> None:
    first, second, third = "Ships left the port.", "Trains left the town.", "Nobody stayed."
    fourth, fifth = "Rain fell all night.", "Snow fell all day."
    text = " ".join([first, second, third, fourth, fifth])
    spans = [text[start:end] for start, end in cut_text(text, words(text), 10, words)]
    assert spans == [" ".join([first, second, third]), " ".join([third, fourth, fifth])]


def test_a_span_with_more_tokens_alone_is_halved() -> None:
    def longer_alone(text: str) -> list[tuple[int, int]]:
        tokens = words(text)
        return tokens + tokens[-1:] * 3 if len(tokens) > 4 else tokens

    text = "a b c d e f g h i."
    spans = cut_text(text, words(text), 9, longer_alone)
    assert [text[start:end] for start, end in spans] == ["a b c d e f ", "g h i."]


def test_passages_are_tokenized_once() -> None:
    tokenized: list[str] = []

    def counting(text: str) -> list[tuple[int, int]]:
        tokenized.append(text)
        return words(text)

    evidence = Evidence({0: "a b c. d e f.", 3: "g."}, counting, 8)
    first = list(evidence.chunks(3, 3))
    assert first == list(evidence.chunks(3, 3))
    assert [chunk.passage for chunk in first] == [0, 0, 3]
    assert tokenized.count("a b c. d e f.") == 1


def test_a_copied_sentence_is_a_chunk_of_its_own() -> None:
    passages = {0: "The ferry leaves at nine. It is red.", 2: "Old. The ferry leaves at nine!"}
    evidence = Evidence(passages, words, 8)
    assert list(evidence.copied("the  ferry leaves at nine", 5)) == [
        Chunk(0, 0, 25),
        Chunk(2, 5, 30),
    ]
    assert list(evidence.copied("The ferry leaves at nine.", 4)) == []
    assert list(evidence.copied("The ferry leaves at ten.", 9)) == []


@pytest.mark.parametrize(
    "passage", ["The ferry leaves at nine.", "It is false that the ferry leaves at nine. So."]
)
def test_only_a_whole_sentence_among_others_is_copied(passage: str) -> None:
    assert list(Evidence({0: passage}, words, 8).copied("The ferry leaves at nine.", 9)) == []


TABLE = "Prices of 2020:\n\n| Plan | Price |\n|:--|--:|\n| Basic | 9 euros |\n| Pro | 29 euros |\n"


def test_each_row_of_a_table_is_a_chunk_that_has_its_headers() -> None:
    evidence = Evidence({0: f"{TABLE}\nThat is all."}, words, 8)
    chunks = list(evidence.chunks(9, 9))
    assert [evidence.text(chunk).strip() for chunk in chunks] == [
        "Prices of 2020:",
        "Basic: Price 9 euros.",
        "Pro: Price 29 euros.",
        "That is all.",
    ]
    places = [evidence.passages[0][chunk.start : chunk.end] for chunk in chunks]
    assert places[1:3] == ["| Basic | 9 euros |", "| Pro | 29 euros |"]


def test_a_row_that_is_too_long_is_read_as_it_is_written() -> None:
    evidence = Evidence({0: TABLE}, words, 3)
    assert [evidence.text(chunk) for chunk in evidence.chunks(9, 9)][1] == "| Basic | 9 euros |"


def test_a_claim_is_compared_with_a_row_and_not_with_the_table(marked: RewardModel) -> None:
    row = prepare(marked, premise="Pro: Price 29 euros.", hypothesis="Pro costs 29 euros.")
    keys = [
        item.key for item in prepare(marked, evidence=TABLE, claims=["Pro costs 29 euros."]).inputs
    ]
    assert len(keys) == 3
    assert row.inputs[0].key in keys
