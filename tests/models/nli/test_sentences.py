"""Where sentences lie: exact places, whatever the text, and work that grows as its length does."""

import pytest

from assay_models.families.nli import sentences as module
from assay_models.families.nli.sentences import REACH, lines, sentences

SENTENCE = "The ferry to the island leaves at nine. "


def texts(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


def test_a_long_text_is_segmented_as_a_short_one() -> None:
    found = texts(SENTENCE * (3 * REACH // len(SENTENCE)))
    assert set(found) == {SENTENCE.strip()}
    assert len(found) == 3 * REACH // len(SENTENCE)


@pytest.mark.parametrize("start", [0, 3, 40])
def test_places_are_those_of_the_whole_text(start: int) -> None:
    text = f"{'x' * start}  {SENTENCE}{SENTENCE}"
    found = list(sentences(text, start, len(text) - 1))
    assert [text[first:last] for first, last in found] == [SENTENCE.strip()] * 2


@pytest.mark.parametrize("text", ["", " \n\u3000", "\ufeff"])
def test_there_may_be_none(text: str) -> None:
    assert texts(text) == []


def test_half_a_character_is_segmented_like_any_other() -> None:
    text = f"{SENTENCE}An odd \ud800 one. Last."
    assert texts(text) == [SENTENCE.strip(), "An odd \ud800 one.", "Last."]


def test_every_kind_of_line_end_ends_a_line() -> None:
    text = "a\nb\r\nc\u2028d\x0be"
    assert [text[start:end] for start, end in lines(text)] == [
        "a\n",
        "b\r\n",
        "c\u2028",
        "d\x0b",
        "e",
    ]


@pytest.mark.parametrize("unit", [".", '"', "a. ", "\u6211\u3002", "1. ", "?", "(a) ", "\u201c"])
def test_no_text_is_segmented_over_and_over(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    segmented = module._segmented

    def counting(piece: str) -> list[tuple[int, int]]:
        seen.append(len(piece))
        return segmented(piece)

    monkeypatch.setattr(module, "_segmented", counting)
    text = unit * (40_000 // len(unit))
    assert len(list(sentences(text))) <= len(text)
    assert max(seen) <= REACH
    assert sum(seen) <= 2 * len(text)
