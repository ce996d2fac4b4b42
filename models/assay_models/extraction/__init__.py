"""Extraction of the bare program from a response, or the reason why there is none.

The strict rule is CodeScaler's (arXiv 2602.17684): exactly one fenced block, and its body parses.
The paper covers only Python; for other languages the same rule holds with their own grammar.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from assay_models.extraction.blocks import Extraction, find_block
from assay_models.extraction.hidden_characters import remove_hidden
from assay_models.extraction.languages import (
    LANGUAGES,
    Candidates,
    Language,
    SyntaxRule,
    candidate_languages,
    find_language,
    names_unaccepted_language,
)
from assay_models.extraction.solution import Choice, find_solution
from assay_models.extraction.syntax import check_syntax
from assay_models.extraction.verdict import MAX_DEPTH, Reason, SyntaxChecker, SyntaxVerdict

__all__ = [
    "LANGUAGES",
    "MAX_CHARACTERS",
    "MAX_DEPTH",
    "Candidates",
    "Choice",
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


@dataclass(frozen=True, slots=True)
class Extracted:
    """The program, stripped of surrounding white space, or None and the reason.

    `language` is the one that the text was taken for, None where it was taken for none. `hidden`
    counts the invisible characters that were removed (see `remove_hidden`). `choice` says which of
    several blocks was taken. `is_newer`: see `SyntaxVerdict`.
    """

    code: str | None
    reason: Reason
    language: Language | None = None
    hidden: int = 0
    choice: Choice | None = None
    is_newer: bool = False


def extract(
    response: str,
    mode: Extraction,
    *,
    language: str | None = None,
    languages: Sequence[Language] = LANGUAGES,
    asked: frozenset[str] = frozenset(),
    check: SyntaxChecker = check_syntax,
) -> Extracted:
    """Extract the program from a response.

    Blocks are found by the paper's pattern (see `find_block`), or as a reader finds them with
    `solution` (see `find_solution`). The languages that the body is tried as depend on the caller's
    language, else on the fence's tag (see `candidate_languages`).

    By the paper's rule the body is Python if `ast.parse` accepts it, whatever the tag. A body in
    another language must parse without an error or a missing token under that language's
    tree-sitter grammar. A grammar is no compiler: it knows no types, no names and no macros.
    `solution` asks whether the language accepts the program: in Python it must compile, also in the
    syntax of a newer Python than the server's; in C and C++ a program's own macros are expanded.
    Where nothing parses and the tag is that of a language that is not accepted, the reason says so.

    Hidden characters in a program are removed, and the rest must parse as well.

    Args:
        response: any text.
        mode: `strict`, CodeScaler's rule; `last_block`, the last of any number of blocks;
            `raw_code`, the whole text; `solution`, the program in any wrapping. Each of them
            demands that the program parses.
        language: the program's language by the caller; any that is not accepted has no program.
        languages: those that are accepted. If it is one, every text is taken to be in it.
        asked: the names that the program should define, for `solution`.
        check: runs the parsers, in this process by default. That is for trusted texts: there are
            texts on which a tree-sitter grammar takes minutes and gigabytes. A server passes
            `ParserPool.check_syntax`, which is bounded.
    """
    named = find_language(language) if language and language.strip() else None
    if language and language.strip() and named not in languages:
        return Extracted(None, "unknown_language")
    if len(languages) == 1:
        named = languages[0]
    if mode == "solution":
        found = find_solution(response, named, languages, asked, check, MAX_CHARACTERS)
        return _extracted(found.code, found.verdict, check, "language", found.choice)
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
    if verdict.reason == "syntax_error" and names_unaccepted_language(tag, languages):
        return Extracted(None, "unknown_language")
    return _extracted(code, verdict, check, "paper")


def _extracted(
    code: str,
    verdict: SyntaxVerdict,
    check: SyntaxChecker,
    rule: SyntaxRule,
    choice: Choice | None = None,
) -> Extracted:
    """Return the program without its hidden characters, if it is one without them."""
    language = verdict.language
    if language is None or not verdict.is_program:
        return Extracted(None, verdict.reason, language)
    shown, hidden = remove_hidden(code)
    if hidden:
        code, visible = shown.strip(), Candidates((language,), 1, rule)
        verdict = check(code, visible) if code else SyntaxVerdict("empty")
    program = code if verdict.is_program else None
    return Extracted(program, verdict.reason, language, hidden, choice, verdict.is_newer)
