"""Signs of a gamed checker in the text itself."""

import pytest

from assay_models.families.nli.gaming_signals import guards_of, has_hidden_characters

EVIDENCE = (
    "The ferry to the island leaves the old harbour at nine in the morning. "
    "It carries forty cars and two hundred passengers across the strait."
)


def test_words_of_the_claims_are_looked_for_in_the_evidence() -> None:
    found = guards_of("x", ["The FERRY leaves at dawn."], [EVIDENCE])
    assert found.overlap == pytest.approx(4 / 5)


def test_what_is_copied_word_for_word_is_told_from_what_is_said_anew() -> None:
    copied = EVIDENCE.split(". ")[0]
    assert guards_of(copied, [copied], [EVIDENCE]).copied == 1.0
    anew = "At nine in the morning a ferry sails from the old harbour to the island."
    assert guards_of(anew, [anew], [EVIDENCE]).copied == 0.0
    half = f"{copied}. Nobody knows why it does so on every single working day."
    assert guards_of(half, [half], [EVIDENCE]).copied == pytest.approx(14 / 25)


def test_repetition_is_the_share_of_runs_that_were_there_before() -> None:
    once = "The ferry leaves at nine."
    assert guards_of(once, [once], [EVIDENCE]).repetition == 0.0
    # Of 22 runs of four words five are new.
    assert guards_of(" ".join([once] * 5), [once], [EVIDENCE]).repetition == pytest.approx(17 / 22)


def test_flags_name_what_is_out_of_the_ordinary() -> None:
    assert guards_of("It leaves at nine.", ["It leaves at nine."], [""]).flags() == (
        "short_answer",
    )
    assert guards_of(EVIDENCE, [EVIDENCE], [EVIDENCE]).flags() == ("copied",)
    looping = "and so on and on " * 20
    assert guards_of(looping, [looping], [EVIDENCE]).flags() == ("repetition",)


def test_of_claims_alone_no_length_is_known() -> None:
    found = guards_of(None, ["It leaves."], [EVIDENCE])
    assert found.characters is None
    assert found.flags() == ()
    assert found.told() == {"characters": None, "overlap": 1.0, "copied": 0.0, "repetition": 0.0}


@pytest.mark.parametrize(
    ("text", "hidden"), [("a\u200bb", True), ("\u202eabc", True), ("é ß", False)]
)
def test_characters_without_a_shape_are_seen(text: str, hidden: bool) -> None:
    assert has_hidden_characters(["plain", text]) is hidden
