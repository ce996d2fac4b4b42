"""The text of a query: its normal form and its flags."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_models.families.qpp.query_text import has_letters, normalise, text_flags

QUERY = "a café on the beach"
SAME = {
    "runs of white space": "  a\tcaf\u00e9 \n\n on the  beach ",
    "no-break space": "a\u00a0caf\u00e9\u202fon the\u3000beach",
    "zero width": "a caf\u00e9 o\u200bn t\u200che be\u2060ach\ufeff",
    "soft hyphen": "a ca\u00adf\u00e9 on the be\u00adach",
    "direction": "\u202ea caf\u00e9 on\u2066 the beach\u200f",
    "tags": "a caf\u00e9 on the beach\U000e0061\U000e007f",
    "control characters": "a\x07 caf\u00e9 on\x7f the beach\x00",
    "full width": "\uff41 caf\u00e9 on the \uff42\uff45\uff41\uff43\uff48",
    "mathematical letters": "a caf\u00e9 on the \U0001d41b\U0001d41e\U0001d41a\U0001d41c\U0001d421",
    "decomposed": "a cafe\u0301 on the beach",
    "strange marks": "a caf\u00e9 o\u0335n t\u0332he bea\u20d2ch\ufe0f",
    "fillers": "a caf\u00e9\u115f on\u3164 the\u2800 beach",
}


@pytest.mark.parametrize("query", SAME.values(), ids=SAME)
def test_a_query_that_is_seen_as_another_has_its_normal_form(query: str) -> None:
    assert normalise(query) == QUERY


@given(st.text())
def test_the_normal_form_is_its_own(query: str) -> None:
    assert normalise(normalise(query)) == normalise(query)


@pytest.mark.parametrize(
    ("query", "flags"),
    [
        ("a man plays guitar", ()),
        ("Wolfgang plays in Kraków", ()),
        ("a cafe\u0301 on the beach", ()),
        ("5 µm of π", ()),
        ("a man plays gui\u200btar", ("hidden_characters",)),
        ("a man plays guitar\ufe0f", ("hidden_characters",)),
        ("un homme joue de la guitare", ("not_english",)),
        ("ein hund läuft am strand", ("not_english",)),
        ("un perro corre por la playa", ("not_english",)),
        ("мужчина играет на гитаре", ("foreign_script",)),
        ("رجل يعزف على الجيتار", ("foreign_script",)),
        ("一个男人在弹吉他", ("foreign_script",)),
        ("a m\u0430n plays guitar", ("foreign_script",)),
    ],
)
def test_a_query_that_is_no_plain_english_text_is_flagged(
    query: str, flags: tuple[str, ...]
) -> None:
    assert text_flags(query, []) == flags


@pytest.mark.parametrize(
    ("pieces", "is_unknown"),
    [
        ([None, 0, 1, 2, None], False),
        ([None, 0, 0, 0, 1, 2, None], False),
        ([None, 0, 0, 0, 1, None], True),
        ([None, None], False),
    ],
)
def test_words_that_the_tokenizer_cuts_to_pieces_are_flagged(
    pieces: list[int | None], is_unknown: bool
) -> None:
    assert ("unknown_words" in text_flags("a kite", pieces)) is is_unknown


@pytest.mark.parametrize(
    ("text", "holds"), [("???", False), ("12345 67890 !!!", False), ("7 a", True), ("猫", True)]
)
def test_a_text_without_letters_has_none(text: str, holds: bool) -> None:
    assert has_letters(text) is holds
