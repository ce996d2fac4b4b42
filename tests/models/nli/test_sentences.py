"""Sentences: exact spans for any text, in linear time."""

import pytest

from assay_models.families.nli import sentences as module
from assay_models.families.nli.sentences import SEGMENT_CHARACTERS, lines, sentences

SENTENCE = "The ferry to the island leaves at nine. "


def texts(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


def test_a_text_of_several_segments_is_split_like_a_short_one() -> None:
    result = texts(SENTENCE * (3 * SEGMENT_CHARACTERS // len(SENTENCE)))
    assert set(result) == {SENTENCE.strip()}
    assert len(result) == 3 * SEGMENT_CHARACTERS // len(SENTENCE)


@pytest.mark.parametrize("start", [0, 3, 40])
def test_spans_are_those_of_the_whole_text(start: int) -> None:
    text = f"{'x' * start}  {SENTENCE}{SENTENCE}"
    spans = list(sentences(text, start, len(text) - 1))
    assert [text[first:last] for first, last in spans] == [SENTENCE.strip()] * 2


@pytest.mark.parametrize("text", ["", " \n\u3000", "\ufeff"])
def test_a_text_without_content_has_no_sentences(text: str) -> None:
    assert texts(text) == []


def test_a_lone_surrogate_is_segmented_like_any_other_character() -> None:
    text = f"{SENTENCE}An odd \ud800 one. Last."
    assert texts(text) == [SENTENCE.strip(), "An odd \ud800 one.", "Last."]


def test_every_line_separator_ends_a_line() -> None:
    text = "a\nb\r\nc\u2028d\x0be"
    assert [text[start:end] for start, end in lines(text)] == [
        "a\n",
        "b\r\n",
        "c\u2028",
        "d\x0b",
        "e",
    ]


@pytest.mark.parametrize("unit", [".", '"', "a. ", "\u6211\u3002", "1. ", "?", "(a) ", "\u201c"])
def test_segmentation_takes_linear_time(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    segmented = module._segmented

    def counting(piece: str) -> list[tuple[int, int]]:
        lengths.append(len(piece))
        return segmented(piece)

    monkeypatch.setattr(module, "_segmented", counting)
    text = unit * (40_000 // len(unit))
    assert len(list(sentences(text))) <= len(text)
    assert max(lengths) <= SEGMENT_CHARACTERS
    assert sum(lengths) <= 2 * len(text)
