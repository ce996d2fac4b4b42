"""Gaming signals: measures and flags of an answer's text."""

import pytest

from assay_models.families.nli.gaming_signals import has_hidden_characters, measure_gaming_signals

EVIDENCE = (
    "The ferry to the island leaves the old harbour at nine in the morning. "
    "It carries forty cars and two hundred passengers across the strait."
)


def test_overlap_is_the_share_of_the_claims_words_in_the_evidence() -> None:
    signals = measure_gaming_signals("x", ["The FERRY leaves at dawn."], [EVIDENCE])
    assert signals.overlap == pytest.approx(4 / 5)


def test_copied_is_the_share_of_words_in_runs_from_the_evidence() -> None:
    copied = EVIDENCE.split(". ")[0]
    assert measure_gaming_signals(copied, [copied], [EVIDENCE]).copied == 1.0
    reworded = "At nine in the morning a ferry sails from the old harbour to the island."
    assert measure_gaming_signals(reworded, [reworded], [EVIDENCE]).copied == 0.0
    half = f"{copied}. Nobody knows why it does so on every single working day."
    assert measure_gaming_signals(half, [half], [EVIDENCE]).copied == pytest.approx(14 / 25)


def test_repetition_is_the_share_of_repeated_runs() -> None:
    once = "The ferry leaves at nine."
    assert measure_gaming_signals(once, [once], [EVIDENCE]).repetition == 0.0
    # Of 22 runs of four words five are new.
    assert measure_gaming_signals(
        " ".join([once] * 5), [once], [EVIDENCE]
    ).repetition == pytest.approx(17 / 22)


def test_flags_name_the_conspicuous_measures() -> None:
    assert measure_gaming_signals("It leaves at nine.", ["It leaves at nine."], [""]).flags() == (
        "short_answer",
    )
    assert measure_gaming_signals(EVIDENCE, [EVIDENCE], [EVIDENCE]).flags() == ("copied",)
    looping = "and so on and on " * 20
    assert measure_gaming_signals(looping, [looping], [EVIDENCE]).flags() == ("repetition",)


@pytest.mark.parametrize(("unjudged", "flags"), [(0.09, ()), (0.1, ("unjudged_text",))])
def test_a_tenth_of_unjudged_letters_is_flagged(unjudged: float, flags: tuple[str, ...]) -> None:
    answer = "Nobody knows why the ferry does so on every single working day."
    assert measure_gaming_signals(answer, [answer], [""], unjudged=unjudged).flags() == flags


def test_claims_without_a_response_have_no_length() -> None:
    signals = measure_gaming_signals(None, ["It leaves."], [EVIDENCE])
    assert signals.characters is None
    assert signals.flags() == ()
    assert signals.to_dict() == {
        "characters": None,
        "overlap": 1.0,
        "copied": 0.0,
        "repetition": 0.0,
        "unjudged": None,
    }


@pytest.mark.parametrize(
    ("text", "hidden"), [("a\u200bb", True), ("\u202eabc", True), ("é ß", False)]
)
def test_characters_without_a_glyph_are_hidden(text: str, hidden: bool) -> None:
    assert has_hidden_characters(["plain", text]) is hidden
