"""No text makes a text tool work more than in proportion to its length.

Steps are counted where the work is Python's: lines of our modules. Regular expressions and other
libraries count no steps: the nightly test gives them long texts and far more time than they need.
"""

import inspect
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pkgutil import iter_modules
from types import FrameType, FunctionType
from typing import Any

import pytest
from support.hostile_texts import UNITS, repeated
from support.tiers import only_nightly

from assay_models import answers, extraction, languages, thoughts
from assay_models.answers import bounds, canonical, cleaning, latex, numbers, structures
from assay_models.answers import extraction as answer_extraction
from assay_models.base import ItemError
from assay_models.extraction import (
    asked,
    blocks,
    fences,
    grammars,
    hidden_characters,
    macros,
    newer_python,
    solution,
)
from assay_models.extraction import languages as program_languages
from assay_models.extraction.verdict import SyntaxVerdict
from assay_models.families import nli, qpp
from assay_models.families.nli import (
    chunking,
    citations,
    claims,
    gaming_signals,
    pieces,
    sentences,
    statements,
    tables,
    verbs,
)
from assay_models.families.qpp import features, query_text, rewrites
from assay_monitors import scripts

MAX_PROGRAM = extraction.MAX_CHARACTERS
# A text's length, and seconds of one processor that no tool comes near.
LONG_TEXT, MAX_SECONDS = 1 << 18, 60.0
# Many steps for each character, and the growth of steps that is allowed over four times the length.
# Both must be exceeded: some work begins only at a length.
MANY_STEPS, MAX_STEPS = 30, 6.0
SHORT, LONG = 200, 800


def _tokens(text: str) -> list[tuple[int, int]]:
    return [token.span() for token in re.finditer(r"\w+|[^\w\s]", text)]


def _refused(code: str, candidates: object) -> SyntaxVerdict:
    return SyntaxVerdict("syntax_error")


def _accepted(code: str, candidates: object) -> SyntaxVerdict:
    return SyntaxVerdict("ok", "python")


def _read_answers(text: str) -> None:
    for kind in canonical.ANSWER_TYPES:
        with suppress(canonical.Unreadable):
            canonical.read_answer(text, kind)


def _answer(text: str) -> str:
    return text[: bounds.MAX_CHARACTERS]


def _read_evidence(text: str) -> None:
    evidence = chunking.Evidence({0: text}, _tokens, 60)
    list(evidence.chunks(60, 32))
    list(evidence.copied("a b c", 60))


# By the functions that each calls, with a text as a stranger may send it.
TOOLS: dict[tuple[Callable[..., Any], ...], Callable[[str], Any]] = {
    (thoughts.thoughts,): thoughts.thoughts,
    (thoughts.without_end_tokens,): thoughts.without_end_tokens,
    (languages.Languages.can_read,): languages.Languages(("en",)).can_read,
    (languages.script_letters,): languages.script_letters,
    (asked.asked_by_prompt,): asked.asked_by_prompt,
    (asked.asked_by_tests,): lambda text: asked.asked_by_tests([text]),
    (blocks.find_block,): lambda text: blocks.find_block(text, "last_block", "cpp"),
    (fences.find_blocks,): lambda text: list(
        fences.find_blocks(text, lambda tag, body: False, MAX_PROGRAM)
    ),
    (fences.outdent,): fences.outdent,
    (hidden_characters.remove_hidden,): hidden_characters.remove_hidden,
    (hidden_characters.without_hidden_starts,): hidden_characters.without_hidden_starts,
    (macros.expand,): lambda text: macros.expand(f"#define a(x) x\n{text[:MAX_PROGRAM]}"),
    (program_languages.find_language,): program_languages.find_language,
    (
        program_languages.tag_of,
        program_languages.candidate_languages,
        program_languages.names_unaccepted_language,
        program_languages.is_side_tag,
    ): program_languages.tag_of,
    (grammars.nests_too_deep,): grammars.nests_too_deep,
    (extraction.extract, solution.find_solution): lambda text: extraction.extract(
        text, "solution", check=_refused
    ),
    (extraction.extract,): lambda text: extraction.extract(
        f"```python\n{text}\n```\n{text}", "solution", check=_accepted
    ),
    (sentences.sentences,): lambda text: list(sentences.sentences(text)),
    (sentences.lines, sentences.stripped): lambda text: list(sentences.lines(text)),
    (pieces.pieces,): lambda text: list(pieces.pieces(text)),
    (claims.split_claims,): claims.split_claims,
    (claims.clean_claim, citations.without): claims.clean_claim,
    (claims.has_content,): claims.has_content,
    (citations.citations,): citations.citations,
    (statements.read_statement,): statements.read_statement,
    (statements.is_statement,): statements.is_statement,
    (statements.is_refusal,): statements.is_refusal,
    (tables.tables,): lambda text: list(tables.tables(text)),
    (chunking.Evidence.copied, chunking.cut_text): _read_evidence,
    (gaming_signals.measure_gaming_signals, gaming_signals.has_hidden_characters): lambda text: (
        gaming_signals.measure_gaming_signals(text, [text], [text])
    ),
    (verbs.has_finite_verb,): verbs.has_finite_verb,
    (query_text.normalise, query_text.has_unseen): query_text.normalise,
    (query_text.text_flags, query_text.has_letters): lambda text: query_text.text_flags(text, []),
    (features.read_features, features.words_of): features.read_features,
    (rewrites.novelty, rewrites.length_change): lambda text: rewrites.novelty(text, text),
    (answer_extraction.extract_answer, answer_extraction.last_boxed): (
        answer_extraction.extract_answer
    ),
    (answer_extraction.last_tag,): answer_extraction.last_tag,
    (answer_extraction.last_line,): answer_extraction.last_line,
    (bounds.broken_bound,): bounds.broken_bound,
    (cleaning.clean, cleaning.closing_brace): lambda text: cleaning.clean(_answer(text)),
    (canonical.read_answer, canonical.normalised, canonical.choice_form): _read_answers,
    (latex.as_latex,): lambda text: latex.as_latex(_answer(text)),
    (numbers.split_mark, numbers.read_number): lambda text: numbers.read_number(
        numbers.split_mark(_answer(text), is_number=True).base
    ),
    (structures.structured_form, structures.split_list, structures.bounded_form): lambda text: (
        structures.structured_form(_answer(text), lambda part: None)
    ),
    (scripts.dominant_script,): scripts.dominant_script,
}
# Parsers whose time is not ours to bound: they run in processes that are killed.
IN_KILLED_PROCESSES: frozenset[Callable[..., Any]] = frozenset(
    {
        grammars.check_syntax,
        newer_python.in_older_syntax,
        import_module("assay_models.extraction.python_syntax").check_python,
        import_module("assay_models.extraction.syntax").check_syntax,
        import_module("assay_models.extraction.worker").pack_request,
    }
)
# These read names of our own, not texts of a stranger.
NO_TEXTS: frozenset[Callable[..., Any]] = frozenset(
    {features.bin_of, features.ngrams, structures.set_form}
)
MODULES = (
    "assay_models.thoughts",
    "assay_models.languages",
    "assay_monitors.scripts",
    *(
        f"{answers.__name__}.{name}"
        for name in ("bounds", "canonical", "cleaning", "extraction", "latex", "numbers")
    ),
    f"{answers.__name__}.structures",
    *(f"assay_models.extraction.{module.name}" for module in iter_modules(extraction.__path__)),
    *(f"{nli.__name__}.{name}" for name in ("chunking", "citations", "claims", "gaming_signals")),
    *(
        f"{nli.__name__}.{name}"
        for name in ("pieces", "sentences", "statements", "tables", "verbs")
    ),
    *(f"{qpp.__name__}.{name}" for name in ("features", "query_text", "rewrites")),
)
TOOL_IDS = [functions[0].__name__ for functions in TOOLS]


def _public_functions_of_texts() -> Iterator[FunctionType]:
    for name in MODULES:
        module = import_module(name)
        for value in vars(module).values():
            is_own = isinstance(value, FunctionType) and value.__module__ == name
            if is_own and not value.__name__.startswith("_") and _takes_text(value):
                yield value


def _takes_text(function: FunctionType) -> bool:
    annotations = [item.annotation for item in inspect.signature(function).parameters.values()]
    return any("str" in str(getattr(kind, "__name__", kind)) or kind is str for kind in annotations)


def test_every_public_function_that_takes_a_text_is_in_the_table() -> None:
    listed = {function for functions in TOOLS for function in functions}
    listed |= IN_KILLED_PROCESSES | NO_TEXTS
    functions = list(_public_functions_of_texts())
    assert len(functions) > len(MODULES)
    assert [function.__qualname__ for function in functions if function not in listed] == []


def steps(tool: Callable[[str], Any], text: str) -> int:
    """Return the number of lines of our modules that a tool executes on a text."""
    count = 0

    def count_line(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return count_line

    def enter(frame: FrameType, event: str, argument: object) -> Any:
        return count_line if "assay_mo" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        tool(text)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("functions", TOOLS, ids=TOOL_IDS)
def test_the_steps_of_a_tool_grow_as_the_text_does(functions: tuple[Any, ...]) -> None:
    wrong = {}
    for unit in UNITS:
        few, many = (steps(TOOLS[functions], repeated(unit, length)) for length in (SHORT, LONG))
        if many > MANY_STEPS * LONG and many > MAX_STEPS * few:
            wrong[unit] = (few, many)
    assert wrong == {}


@only_nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("functions", TOOLS, ids=TOOL_IDS)
def test_a_tool_reads_a_long_text_of_any_unit(functions: tuple[Any, ...]) -> None:
    # Steps inside regular expressions are not counted above. Time of the square of the length would
    # be many minutes here, and that of the slowest tool is two seconds.
    slow = {}
    for unit in UNITS:
        began = time.thread_time()
        with suppress(ItemError):  # a tool may refuse a text of too many pieces
            TOOLS[functions](repeated(unit, LONG_TEXT))
        taken = time.thread_time() - began
        if taken > MAX_SECONDS:
            slow[unit] = taken
    assert slow == {}


def test_a_text_of_tokens_of_a_template_is_read_in_short_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[int] = []

    class Counting:
        def search(self, text: str, start: int, end: int) -> re.Match[str] | None:
            read.append(end - start)
            return re.compile(r"</s>\Z").search(text, start, end)

    monkeypatch.setattr(thoughts, "_END_TOKEN", Counting())
    assert thoughts.without_end_tokens("Yes." + "</s>" * 5_000) == "Yes."
    assert len(read) == 5_001
    assert max(read) <= 40


def test_a_name_prefix_is_sought_at_the_end_of_a_growing_sentence_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[int] = []
    pattern = sentences._NAME_PREFIX

    class Counting:
        def search(self, text: str) -> re.Match[str] | None:
            read.append(len(text))
            return pattern.search(text)

    monkeypatch.setattr(sentences, "_NAME_PREFIX", Counting())
    text = "We saw St. " * 4_000
    assert list(sentences.sentences(text)) == [(0, len(text) - 1)]
    assert len(read) >= 3_999
    assert max(read) <= 4
