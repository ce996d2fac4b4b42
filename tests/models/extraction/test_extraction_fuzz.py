"""Any response extracts to a program or a reason; `recipes.code.studies.fuzz` tries a million."""

import random
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay_models.extraction import (
    LANGUAGES,
    Candidates,
    Extracted,
    Language,
    SyntaxVerdict,
    extract,
)
from assay_models.extraction.pool import ParserPool
from recipes.code.studies import fuzz

pytestmark = pytest.mark.slow

LANGUAGE = st.sampled_from(LANGUAGES)


@pytest.fixture(scope="module")
def parsers() -> Iterator[ParserPool]:
    made = ParserPool()
    yield made
    made.close()


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(chance=st.randoms(use_true_random=False))
def test_any_response_extracts_and_what_comes_out_is_a_program(
    parsers: ParserPool, chance: random.Random
) -> None:
    asked: list[Candidates] = []

    def check(code: str, candidates: Candidates) -> SyntaxVerdict:
        asked.append(candidates)
        return parsers.check_syntax(code, candidates)

    accepted, found = fuzz.run_case(chance, check)
    assert fuzz.violations(accepted, found) == []
    # Once for the text, once more for what is visible of it, and each parser once at most.
    assert len(asked) <= 2
    assert all(len(candidates.languages) == len(set(candidates.languages)) for candidates in asked)


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (Extracted("x =", "ok", "python"), "it does not parse"),
        (Extracted("x = 1", "syntax_error", "python"), "a reason without its program"),
        (Extracted(None, "ok", "python"), "a reason without its program"),
        (Extracted("fn f() {}", "ok", "rust"), "a language that is not accepted"),
        (Extracted("x = 1 ", "ok", "python"), "white space around it"),
        (Extracted("x = 1  # \u200ba", "ok", "python"), "hidden characters"),
    ],
)
def test_a_fault_is_seen(found: Extracted, fault: str) -> None:
    assert fault in fuzz.violations(("python", "go"), found)


def test_the_command_reports_a_rate_and_the_slowest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fuzz", "--count", "60", "--seed", "5"])
    fuzz.main()
    out = capsys.readouterr().out
    assert "60 responses" in out
    assert "slowest: " in out


def test_the_command_fails_where_a_rule_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> tuple[tuple[Language, ...], Extracted]:
        return ("python",), Extracted("x =", "ok", "python")

    monkeypatch.setattr(sys, "argv", ["fuzz", "--count", "1", "--seed", "7"])
    monkeypatch.setattr(fuzz, "run_case", broken)
    with pytest.raises(SystemExit, match="seed 7: it does not parse"):
        fuzz.main()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(language=LANGUAGE, before=st.text(), after=st.text())
def test_prose_without_backticks_changes_nothing_in_any_language(
    language: Language, before: str, after: str
) -> None:
    code = {
        "go": "func f() { g() }",
        "rust": "fn f() { g(); }",
        "javascript": "function f() { g(); }",
        "typescript": "function f(x: number) { g(x); }",
        "java": "class A { void f() { g(); } }",
        "c": "#include <a.h>\nvoid f() { g(); }",
        "cpp": "template <class T> void f(T x) { g(x); }",
    }.get(language, "x = f(1)")
    block = f"```{language}\n{code}\n```"
    prose = f"{before.replace('`', '')}\n{block}\n{after.replace('`', '')}"
    found = extract(prose, "strict")
    assert (found.code, found.language) == (code, language)
