"""Extraction of the bare program from a response, or the reason why there is none.

The strict rule is CodeScaler's (arXiv 2602.17684): exactly one fenced block, and its body parses.
The paper covers only Python; for other languages the same rule holds with their own grammar.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from assay_models.extraction.blocks import Extraction, find_block
from assay_models.extraction.hidden_characters import remove_hidden
from assay_models.extraction.languages import (
    LANGUAGES,
    Candidates,
    Language,
    candidate_languages,
    find_language,
    names_unaccepted_language,
)
from assay_models.extraction.syntax import check_syntax
from assay_models.extraction.verdict import MAX_DEPTH, Reason, SyntaxVerdict

__all__ = [
    "LANGUAGES",
    "MAX_CHARACTERS",
    "MAX_DEPTH",
    "Candidates",
    "Extracted",
    "Extraction",
    "Language",
    "Reason",
    "SyntaxChecker",
    "SyntaxVerdict",
    "extract",
]

MAX_CHARACTERS = 65_536
"""The length of a program up to which it is parsed, so that no text can hold a thread for long."""

SyntaxChecker = Callable[[str, Candidates], SyntaxVerdict]
"""A function that decides whether a text is a program in one of some languages."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """The program, stripped of surrounding white space, or None and the reason.

    `language` is the one that the text was taken for, None where it was taken for none. `hidden`
    counts the invisible characters that were removed (see `remove_hidden`).
    """

    code: str | None
    reason: Reason
    language: Language | None = None
    hidden: int = 0


def extract(
    response: str,
    mode: Extraction,
    *,
    language: str | None = None,
    languages: Sequence[Language] = LANGUAGES,
    check: SyntaxChecker = check_syntax,
) -> Extracted:
    """Extract the program from a response.

    Blocks are found by the paper's pattern (see `find_block`). The languages that the body is tried
    as depend on the caller's language, else on the fence's tag (see `candidate_languages`).
    Python's rule is the paper's to the letter, whatever the tag: the body is Python if `ast.parse`
    accepts it. A body in another language must parse without an error or a missing token under that
    language's tree-sitter grammar. A grammar is no compiler: it knows no types, no names and no
    macros. Where nothing parses and the tag is that of a language that is not accepted, the reason
    says so.

    Hidden characters in a program are removed, and the rest must parse as well.

    Args:
        response: any text.
        mode: `strict`, CodeScaler's rule; `last_block`, the last of any number of blocks;
            `raw_code`, the whole text. Each of them demands that the program parses.
        language: the program's language by the caller; any that is not accepted has no program.
        languages: those that are accepted. If it is one, every text is taken to be in it.
        check: runs the parsers, in this process by default. That is for trusted texts: there are
            texts on which a tree-sitter grammar takes minutes and gigabytes. A server passes
            `ParserPool.check_syntax`, which is bounded.
    """
    named = find_language(language) if language and language.strip() else None
    if language and language.strip() and named not in languages:
        return Extracted(None, "unknown_language")
    if len(languages) == 1:
        named = languages[0]
    block = find_block(response, mode, named)
    if isinstance(block, str):
        return Extracted(None, block)
    tag, body = block
    code = body.strip()
    if not code:
        return Extracted(None, "empty")
    if len(code) > MAX_CHARACTERS:
        return Extracted(None, "too_large")
    verdict = check(code, candidate_languages(tag, named, languages))
    if verdict.is_program:
        return _without_hidden(code, verdict, check)
    if verdict.reason == "syntax_error" and names_unaccepted_language(tag, languages):
        return Extracted(None, "unknown_language")
    return Extracted(None, verdict.reason, verdict.language)


def _without_hidden(code: str, verdict: SyntaxVerdict, check: SyntaxChecker) -> Extracted:
    language = verdict.language
    shown, hidden = remove_hidden(code)
    if not hidden:
        return Extracted(code, verdict.reason, language)
    shown = shown.strip()
    assert language is not None
    again = check(shown, Candidates((language,), 1)) if shown else SyntaxVerdict("empty")
    return Extracted(shown if again.is_program else None, again.reason, language, hidden)
