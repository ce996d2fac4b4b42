"""Citations: the forms that are removed, and brackets that are part of a statement."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_models.families.nli import citations as module
from assay_models.families.nli.citations import citations, without
from assay_models.preemption import preempted_by

STATEMENT = "The ferry carries forty cars."


def removed(text: str) -> str:
    return without(text, 0, len(text), citations(text)).strip()


@pytest.mark.parametrize(
    "text",
    [
        "The ferry carries forty cars [1].",
        "The ferry carries forty cars[1].",
        "The ferry carries forty cars.[1]",
        "The ferry carries forty cars [1, 3].",
        "The ferry carries forty cars [1-3].",
        "The ferry carries forty cars [1][2].",
        "The ferry carries forty cars [1] and [2].",
        "The ferry carries forty cars [[1]].",
        "The ferry carries forty cars [^1].",
        "The ferry carries forty cars.[^note]",
        "The ferry carries forty cars [doc_2].",
        "The ferry carries forty cars [doc_2, doc_3].",
        "The ferry carries forty cars [Document 2].",
        "The ferry carries forty cars [citation:1].",
        "The ferry carries forty cars (Harbour Office, 2020).",
        "The ferry carries forty cars (Smith et al., 2020; Jones 2019).",
        "The ferry carries forty cars (Smith & Jones, 2020a, p. 4).",
        "The ferry carries forty cars (see Smith and Jones 2020).",
        "The ferry carries forty cars (Smith et al. 2020).",
        "The ferry carries forty cars [Smith et al., 2020].",
        "The ferry carries forty cars (Source: page 4).",
        "The ferry carries forty cars (source 4).",
        "The ferry carries forty cars [Source: Harbour Office].",
        "The ferry carries forty cars (p. 4).",
        "The ferry carries forty cars (pp. 4\u20136).",
        "The ferry carries forty cars.\xb9",
        "The ferry carries forty cars\xb9\xb2.",
        "The ferry carries forty cars.\xb9,\xb2",
        "The ferry carries forty cars\u2020.",
        "The ferry carries forty cars.<sup>[1]</sup>",
        "The ferry carries forty cars<sup>1</sup>.",
        "The ferry carries forty cars\u30104\u2020source\u3011.",
        "The ferry carries forty cars\u30104:0\u2020ferry.pdf\u3011.",
        "The ferry carries forty cars (https://harbour.example/ferry).",
        "The ferry carries forty cars https://harbour.example/ferry.",
        "The ferry carries forty cars <https://harbour.example/ferry>.",
        "The ferry carries forty cars ([Harbour Office](https://harbour.example/ferry)).",
        "The ferry carries forty cars [1](https://harbour.example/ferry).",
        "The ferry carries forty [cars](https://harbour.example/ferry).",
        "The ferry carries forty cars \\cite{smith2020}.",
        "The ferry carries forty cars~\\citep[p.~4]{smith2020}.",
        "The ferry carries forty cars [@smith2020; @jones].",
        'The <cite index="1">ferry carries forty cars</cite>.',
        "The ferry carries forty cars \ue200cite\ue202turn0search0\ue201.",
        "The ferry carries forty cars ([1]).",
        "The ferry [1] carries forty cars.",
        "The ferry (Smith et al., 2020) carries forty cars.",
        'The ferry carries forty cars<ref name="a"/>.',
        "The ferry carries forty cars (Harbour Office, https://a.b/c).",
    ],
)
def test_citations_are_removed_from_a_statement(text: str) -> None:
    assert removed(text) == STATEMENT


@pytest.mark.parametrize(
    "text",
    [
        "The museum opened (1998) in June.",
        "It closed (May 2020) for a year.",
        "It closed (March, 2019) again.",
        'He wrote "teh [sic] cat".',
        "The function f(x) is continuous.",
        "It is the ferry (the largest in Europe) of the line.",
        "The value lies in [0, 1].",
        "The value lies in the range [1, 3].",
        "The list [1, 2] is sorted.",
        "It covers 40 m\xb2 of land.",
        "The area is 40 square metres\xb2 wide.",
        "The element x[1] is zero.",
        "Use `a[1]` and `(Smith, 2020)` here.",
        "The fair (Expo 2020) took place in Dubai.",
        "The system (Windows 2000) was released.",
        "It is at https://harbour.example today.",
        "See https://example.com/a.b?c=d for the 1.2.3 release.",
        "He [the captain] left.",
        "Water (H2O) boils.",
        "The act (section 5) applies.",
        "It rose 10\xb3 times.",
        "The site is www.harbour.example.",
        "It costs (in 2020) nine euros.",
        "The ferry (capacity: 40 cars) left.",
        "The year [1998] was dry.",
        "x = [1, 3] is given.",
        "It weighs 5 kg (11 lb).",
        "Its length (40 m, 2020) grew.",
        "Einstein found E = mc\xb2 in 1905.",
        "The ferry (built 1998) sank.",
        "The team (Smith, Jones and Lee) won.",
        "He won the medal (page boy) there.",
    ],
)
def test_what_belongs_to_a_statement_stays(text: str) -> None:
    assert citations(text) == []
    assert removed(text) == text


def test_of_a_link_with_words_only_the_words_stay() -> None:
    text = "The [forty cars](https://harbour.example/a_(b)) are red."
    assert removed("The [forty cars](https://harbour.example/ferry) are red.") == (
        "The forty cars are red."
    )
    assert "forty cars" in removed(text)


def test_a_citation_leaves_no_blank_before_a_stop_and_one_between_words() -> None:
    assert removed("The ferry [1] carries [2], they say, cars [3] .") == (
        "The ferry carries, they say, cars."
    )
    assert removed("[1] The ferry carries cars [2]") == "The ferry carries cars"


@pytest.mark.parametrize(
    "unit", ["(", "[", "[1", "(A", "https://a ", "\u00b9", "[a](", "<ref ", "\\cite"]
)
def test_citations_of_any_text_are_found_in_one_pass(unit: str) -> None:
    spans = citations(unit * (200_000 // len(unit)))
    assert all(first[1] <= second[0] for first, second in pairwise(spans))


HIDDEN = "It collapsed in 1950 and killed four hundred people, and the mayor was jailed"


@pytest.mark.parametrize(
    "mark",
    [
        f"(source: {HIDDEN})",
        f"[Source: {HIDDEN}]",
        f"(context: {HIDDEN})",
        f"({HIDDEN} see https://harbour.example)",
        f"<ref>{HIDDEN}</ref>",
        f"\u3010{HIDDEN}\u3011",
        f"\ue200{HIDDEN}\ue201",
        f"\\cite{{{HIDDEN}}}",
        f'[1](/x "{HIDDEN}")',
    ],
)
def test_a_statement_written_as_a_source_is_no_citation(mark: str) -> None:
    text = f"The bridge opened in 1900 {mark}."
    spans = citations(text)
    assert HIDDEN in without(text, 0, len(text), spans)


@pytest.mark.parametrize(
    "text",
    [
        "He died there (Berlin, 1945).",
        "The treaty (Versailles, 1919) ended the war.",
        "He won (Wimbledon, 2004) and lost the next year.",
        "The merger of (Exxon and Mobil, 1999) was the largest.",
        "The answer equals [3].",
        "The set contains [1, 2, 3].",
        "The median age was 45 [32-61] years.",
        "Force equals mass times acceleration\u00b2.",
    ],
)
def test_a_fact_in_brackets_is_a_part_of_its_statement(text: str) -> None:
    assert citations(text) == []


PARTS = (
    *("(", ")", "[", "[[", "]", "]]", "1", ", ", "-", " and ", "see ", "Source: ", "doc_2", "`"),
    *("https://a.b/c", "HTTPS://", "wwww.a", "www.", "<ref>", "</ref>", "<cite>", "![x]", "[^a]"),
    *("\\cite{a}", "^1^", "\u00b9", "\u2020", "\u30104\u2020s\u3011", "<sup>1</sup>", " ", "\n"),
)


@given(st.lists(st.sampled_from(PARTS)).map("".join))
def test_citations_are_those_of_one_search_of_the_text(text: str) -> None:
    flags = re.IGNORECASE
    at_once = re.compile(f"(?={module._OPENING.pattern})(?:{module._CITATION.pattern})", flags)
    spans = [mark.span() for mark in module._matches(text)]
    assert spans == [mark.span() for mark in at_once.finditer(text)]


@pytest.mark.parametrize("unit", ["(", "[^", "<", "`"])
def test_a_text_of_brackets_has_a_preemption_point_at_each(unit: str) -> None:
    points: list[int] = []
    with preempted_by(lambda tokens, _: points.append(tokens)):
        assert not citations(unit * 5000 if unit != "`" else unit * 2 * 5000)
    assert len(points) >= 5000
