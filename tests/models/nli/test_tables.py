"""Tables in Markdown: their rows as sentences."""

import pytest

from assay_models.families.nli.tables import tables


def rows(text: str) -> list[str]:
    return [row.sentence for table in tables(text) for row in table.rows]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (
            "| City | Founded | Cars |\n|---|:-:|--:|\n| Ard | 1820 | 40,000 |\n| Belm | 1755 | |",
            ["Ard: Founded 1820, Cars 40,000.", "Belm: Founded 1755."],
        ),
        ("City | Founded\n--- | ---\nArden | 1820\nno row", ["Arden: Founded 1820."]),
        ("| | 2019 |\n|-|-|\n| Cars | 40 |", ["Cars: 2019 40."]),
        ("| A |\n|---|\n| a \\| b |", ["a \\| b."]),
        ("| A | B |\n|---|---|\n| | |", []),
        ("| A | B |\n|---|---|\n| a | b | c |", ["a: B b, c."]),
        ("a | b\nc | d", []),
        ("no table", []),
        ("|---|---|\n| a | b |", []),
    ],
)
def test_rows_are_sentences_with_their_headers(text: str, sentences: list[str]) -> None:
    assert rows(text) == sentences


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (f"a|b\n{' ' * 500_000}x", 0),
        (f"a|b\n|-|-{' ' * 500_000}x", 0),
        (f"a|b\n{'|-' * 250_000}x", 0),
        (f"a|b\n{'|-' * 250_000}|", 1),
    ],
)
def test_the_tables_of_any_text_are_found_in_one_pass(text: str, count: int) -> None:
    assert len(list(tables(text))) == count


def test_the_rows_under_far_longer_headers_are_read_as_they_are_written() -> None:
    header = f"City | {'Founded ' * 1_000}"
    found = rows(f"{header}\n-|-\n" + "Arden|1820\n" * 10_000)
    assert set(found) == {"Arden|1820"}
    assert rows(f"{header}\n-|-\nArden|1820") == [f"Arden: {'Founded ' * 1_000}1820."]


def test_two_tables_have_their_places() -> None:
    text = "x\n| A | B |\n|-|-|\n| 1 | 2 |\n\ny\n| C | D |\n|-|-|\n| 3 | 4 |"
    first, second = tables(text)
    assert text[first.start : first.end] == "| A | B |\n|-|-|\n| 1 | 2 |\n"
    assert [text[row.start : row.end].strip() for row in second.rows] == ["| 3 | 4 |"]
