"""From what a policy wrote to the bare program in it, or the reason why there is none.

The strict rule is CodeScaler's (arXiv 2602.17684): exactly one fenced block, and its body parses.
The paper knows Python alone; for other languages the same rule holds with their own grammar.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from assay_models.extraction.blocks import Extraction, block
from assay_models.extraction.languages import (
    LANGUAGES,
    Candidates,
    Language,
    candidates,
    is_unchecked,
    language_named,
)
from assay_models.extraction.syntax import judge
from assay_models.extraction.verdict import MAX_DEPTH, Reason, Verdict
from assay_models.extraction.visible import visible

__all__ = [
    "LANGUAGES",
    "MAX_CHARACTERS",
    "MAX_DEPTH",
    "Candidates",
    "Extracted",
    "Extraction",
    "Judge",
    "Language",
    "Reason",
    "Verdict",
    "extract",
]

MAX_CHARACTERS = 65_536
"""Programs longer than this are not parsed, so that no text can hold a thread for long."""

Judge = Callable[[str, Candidates], Verdict]
"""What says whether a text is a program in one of some languages."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """The program, stripped of surrounding white space, or None and the reason.

    `language` is what the text was taken for, None where it was taken for nothing. `hidden` counts
    the characters that were removed because nobody sees them (see `visible`).
    """

    code: str | None
    reason: Reason
    language: Language | None = None
    hidden: int = 0


def extract(
    response: str,
    mode: Extraction,
    language: str | None = None,
    languages: Sequence[Language] = LANGUAGES,
    judge: Judge = judge,
) -> Extracted:
    """The program in a response.

    Which blocks there are is the paper's pattern (see `block`), which languages the body is tried
    as depends on who says so: the caller, the fence's tag, nobody (see `candidates`). Python's
    rule is the paper's to the letter, whatever the tag: the body is Python if `ast.parse` takes
    it. A body in another language must parse without an error or a missing token under that
    language's tree-sitter grammar. A grammar is no compiler: it knows no types, no names and no
    macros. Where nothing parses and the tag is that of a language that is not accepted, the reason
    says so.

    What is hidden in a program is removed, and the rest must parse as well.

    Args:
        response: any text.
        mode: `strict`, CodeScaler's rule; `last_block`, the last of any number of blocks;
            `raw_code`, the whole text. Each of them demands that the program parses.
        language: what the caller says the program is in; any that is not accepted has no program.
        languages: those that are accepted. If it is one, every text is taken to be in it.
        judge: runs the parsers, in this process by default. That is for texts one trusts: there
            are texts on which a tree-sitter grammar takes minutes and gigabytes. A server passes
            `Parsers.judge`, which is bounded.
    """
    named = language_named(language) if language and language.strip() else None
    if language and language.strip() and named not in languages:
        return Extracted(None, "unknown_language")
    if len(languages) == 1:
        named = languages[0]
    found = block(response, mode, named)
    if isinstance(found, str):
        return Extracted(None, found)
    tag, body = found
    code = body.strip()
    if not code:
        return Extracted(None, "empty")
    if len(code) > MAX_CHARACTERS:
        return Extracted(None, "too_large")
    verdict = judge(code, candidates(tag, named, languages))
    if verdict.is_program:
        return _shown(code, verdict, judge)
    if verdict.reason == "syntax_error" and is_unchecked(tag, languages):
        return Extracted(None, "unknown_language")
    return Extracted(None, verdict.reason, verdict.language)


def _shown(code: str, verdict: Verdict, judge: Judge) -> Extracted:
    language = verdict.language
    shown, hidden = visible(code)
    if not hidden:
        return Extracted(code, verdict.reason, language)
    shown = shown.strip()
    assert language is not None
    again = judge(shown, Candidates((language,), 1)) if shown else Verdict("empty")
    return Extracted(shown if again.is_program else None, again.reason, language, hidden)
