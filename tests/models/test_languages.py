"""Language detection: the texts that a checker of English reads, and those that it does not."""

import pytest

from assay_models.languages import Languages, known_codes

ENGLISH = Languages(("en",))


@pytest.mark.parametrize(
    "text",
    [
        "\u6e21\u8f6e\u4e5d\u70b9\u79bb\u5f00\u6e2f\u53e3\u3002",
        "\u6bdb\u6cfd\u4e1c",
        "\u30d5\u30a7\u30ea\u30fc\u306f\u4e5d\u6642\u306b\u51fa\u307e\u3059\u3002",
        "\ud398\ub9ac\ub294 \uc544\ud649 \uc2dc\uc5d0 \ub5a0\ub0a9\ub2c8\ub2e4.",
        (
            "\u041f\u0430\u0440\u043e\u043c "
            "\u043e\u0442\u0445\u043e\u0434\u0438\u0442 \u0432 "
            "\u0434\u0435\u0432\u044f\u0442\u044c."
        ),
        (
            "\u0627\u0644\u0639\u0628\u0627\u0631\u0629 "
            "\u062a\u063a\u0627\u062f\u0631 \u0641\u064a "
            "\u0627\u0644\u062a\u0627\u0633\u0639\u0629."
        ),
        (
            "\u05d4\u05de\u05e2\u05d1\u05d5\u05e8\u05ea "
            "\u05d9\u05d5\u05e6\u05d0\u05ea \u05d1\u05ea\u05e9\u05e2."
        ),
        (
            "\u03a4\u03bf \u03c0\u03bb\u03bf\u03af\u03bf "
            "\u03c6\u03b5\u03cd\u03b3\u03b5\u03b9 \u03c3\u03c4\u03b9\u03c2 "
            "\u03b5\u03bd\u03bd\u03ad\u03b1."
        ),
        "Die kleine F\u00e4hre verl\u00e4sst den Hafen jeden Morgen um neun Uhr.",
        "Le ferry part du port \u00e0 neuf heures du matin.",
        "El transbordador sale del puerto a las nueve de la ma\u00f1ana.",
        "Il traghetto parte dal porto alle nove di mattina.",
        "De veerboot vertrekt elke ochtend om negen uur uit de haven.",
        "A balsa sai do porto todos os dias \u00e0s nove horas da manh\u00e3.",
        "Prom odp\u0142ywa z portu codziennie o dziewi\u0105tej rano.",
        "Kapal feri berangkat dari pelabuhan pukul sembilan pagi.",
    ],
)
def test_other_languages_are_not_read(text: str) -> None:
    assert not ENGLISH.can_read(text)


@pytest.mark.parametrize(
    "text",
    [
        "The ferry to the island leaves at nine.",
        "the mitochondrion is the powerhouse of the cell",
        "Patients were given amoxicillin, clavulanate, ibuprofen and paracetamol.",
        "Wolfgang Amadeus Mozart, Salzburg",
        "Staphylococcus aureus and Escherichia coli were found.",
        "Beijing (\u5317\u4eac) is the capital of China.",
        "TNF-\u03b1 and IL-1\u03b2 rose in both groups.",
        "\u03b1 > \u03b2",
        "E = mc\u00b2",
        "x = y + 3 * z",
        "for i in range(10): print(i)",
        "SELECT name FROM users WHERE id = 3;",
        "`le chat dort sur le canap\u00e9` is what it prints",
        "https://fr.example.org/le-chat-dort-sur-le-canape",
        "HbA1c 6.5 % (48 mmol/mol)",
        "1,234.56 7.8e9 0x1f",
        "\U0001f600\U0001f600",
        "",
    ],
)
def test_english_names_numbers_formulae_and_code_are_read(text: str) -> None:
    assert ENGLISH.can_read(text)


def test_two_words_are_too_few_to_detect_a_language() -> None:
    assert ENGLISH.can_read("Katten sover.")


def test_a_card_can_name_several_languages_or_any() -> None:
    german = "Die kleine F\u00e4hre verl\u00e4sst den Hafen jeden Morgen um neun Uhr."
    assert Languages(("en", "de")).can_read(german)
    assert Languages(("zh",)).can_read("\u6e21\u8f6e\u4e5d\u70b9\u79bb\u5f00\u6e2f\u53e3\u3002")
    assert not Languages(("zh",)).can_read("The ferry to the island leaves at nine.")
    assert Languages(("any",)).can_read("\u6e21\u8f6e" + german)


def test_the_codes_are_iso_codes() -> None:
    assert {"any", "de", "en", "zh"} <= known_codes()
    assert "klingon" not in known_codes()
