"""Long texts: the same tokens as in one call of the tokenizer, by calls of a bounded length."""

from collections.abc import Callable
from itertools import product
from typing import get_args

import pytest
from support.checkpoints import (
    DECODERS,
    KINDS,
    Classifiers,
    Kind,
)

from assay_models.base import ItemError, Truncation
from assay_models.families.classifier import truncation as truncation_module
from assay_models.families.classifier.truncation import (
    MAX_CHARACTERS,
    PIECE_CHARACTERS,
    pieces,
)
from assay_models.items import Message
from assay_models.preemption import preempted_by

pytestmark = pytest.mark.weights

WORDS = " ".join(f"word{number} on the ring" for number in range(2500))
LINES = "\n".join(f"the line {number}, and more: (in it)" for number in range(1400))
IDEOGRAMS = "".join(chr(0x4E00 + number * 7 % 4000) for number in range(36_000))
RUN, SPACES = "a" * 36_000, "a" + " " * 36_000 + "b"
TEXTS = {"words": WORDS, "lines": LINES, "ideograms": IDEOGRAMS, "run": RUN, "spaces": SPACES}
SPACED = ("words", "lines")
CUTS: tuple[Truncation, ...] = tuple(cut for cut in get_args(Truncation) if cut != "error")


@pytest.fixture
def in_one_call(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function after whose call every text is tokenized as a whole."""
    return lambda: monkeypatch.setattr(truncation_module, "MAX_CHARACTERS", 1 << 30)


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_text_is_truncated_to_the_tokens_of_one_call(
    classifiers: Classifiers, kind: Kind, in_one_call: Callable[[], None]
) -> None:
    classifier = classifiers[kind]
    cases = list(product(TEXTS, CUTS))
    got = {case: classifier.encode_text(TEXTS[case[0]], None, case[1]) for case in cases}
    in_one_call()
    for name, cut in cases:
        whole, sequence = classifier.encode_text(TEXTS[name], None, cut), got[name, cut]
        assert (sequence.ids, sequence.type_ids) == (whole.ids, whole.type_ids), (name, cut)
        if name in SPACED:
            assert sequence.truncated == whole.truncated, (name, cut)


@pytest.mark.parametrize("kind", KINDS)
def test_long_pairs_are_truncated_to_the_tokens_of_one_call(
    classifiers: Classifiers, kind: Kind, in_one_call: Callable[[], None]
) -> None:
    classifier = classifiers[kind]
    short = "a ring on the line"
    cuts = dict(zip([(short, WORDS), (WORDS, LINES), (LINES, WORDS)], CUTS, strict=True))
    cases = [*cuts.items(), ((WORDS, short), "middle")]
    got = [classifier.encode_text(*pair, cut) for pair, cut in cases]
    in_one_call()
    assert got == [classifier.encode_text(*pair, cut) for pair, cut in cases]


@pytest.mark.parametrize("kind", sorted(DECODERS))
def test_long_conversations_are_truncated_to_the_tokens_of_one_call(
    classifiers: Classifiers, kind: Kind, in_one_call: Callable[[], None]
) -> None:
    classifier = classifiers[kind]
    cases = list(
        zip([("a question", WORDS), (LINES, "an answer"), (WORDS, LINES)], CUTS, strict=True)
    )

    def encode(texts: tuple[str, str], cut: Truncation) -> object:
        roles = ("user", "assistant")
        messages = [
            Message(role=role, content=text) for role, text in zip(roles, texts, strict=True)
        ]
        return classifier.encode_chat(messages, cut)

    got = [encode(*case) for case in cases]
    in_one_call()
    assert got == [encode(*case) for case in cases]


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_text_has_the_tokens_and_places_of_one_call(
    classifiers: Classifiers, kind: Kind, in_one_call: Callable[[], None]
) -> None:
    formatter = classifiers[kind].formatter
    got = {name: formatter.tokenize(TEXTS[name]) for name in SPACED}
    in_one_call()
    for name in SPACED:
        whole = formatter.tokenize(TEXTS[name])
        assert [TEXTS[name][slice(*span)] for span in got[name].offsets] == [
            TEXTS[name][slice(*span)] for span in whole.offsets
        ]
        assert got[name].unknown == whole.unknown


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_that_is_far_too_long_is_refused_at_its_beginning(
    classifiers: Classifiers, kind: Kind
) -> None:
    points = 0

    def count(tokens: int, inputs: int) -> None:
        nonlocal points
        points += 1

    with preempted_by(count), pytest.raises(ItemError) as caught:
        classifiers[kind].encode_text(WORDS * 20, None, "error")
    assert caught.value.code == "input_too_long"
    assert "tokens or more, the model takes 40: shorten it" in caught.value.detail
    assert points < 8, "megabytes more change nothing"


def test_no_call_of_the_tokenizer_is_longer_than_a_piece(
    classifiers: Classifiers, monkeypatch: pytest.MonkeyPatch
) -> None:
    formatter = classifiers["bert"].formatter
    lengths: list[int] = []

    class Recorder:
        def encode(self, text: str, pair: str | None = None, **options: bool) -> object:
            lengths.append(len(text) + len(pair or ""))
            return backend.encode(text, pair, **options)

    backend = formatter._backends["literal"]
    monkeypatch.setitem(formatter._backends, "literal", Recorder())
    formatter.tokenize(WORDS)
    for cut in CUTS:
        formatter.encode_text(WORDS, LINES, cut)
    assert len(lengths) > 10
    assert max(lengths) <= 4 * PIECE_CHARACTERS, "two ends of two texts"


@pytest.mark.parametrize("text", [*TEXTS.values(), "", "short"])
def test_pieces_are_the_text_and_end_between_words(text: str) -> None:
    parts = list(pieces(text))
    assert "".join(piece for _, piece in parts) == text
    assert [start for start, _ in parts] == [
        sum(len(piece) for _, piece in parts[:number]) for number in range(len(parts))
    ]
    assert max(len(piece) for _, piece in parts) <= MAX_CHARACTERS
    if text in (WORDS, LINES):
        assert all(piece[0] in " \n" for _, piece in parts[1:])
