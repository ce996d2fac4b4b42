"""Parsing of a text in the calling process, to decide whether it is a program."""

import time
from dataclasses import replace

from assay_models.extraction import grammars
from assay_models.extraction.languages import Candidates
from assay_models.extraction.python_syntax import check_python
from assay_models.extraction.verdict import SyntaxVerdict

GRAMMAR_SECONDS = 0.5
"""The CPU time of the tree-sitter grammars for one text, all candidates together."""


def check_syntax(code: str, candidates: Candidates) -> SyntaxVerdict:
    """Return the first candidate language that `code` parses as, or the reason why it is none.

    The reason is then `parser_limit` if any parser gave up, and the language is the one that was
    declared (see `Candidates.declared`).
    """
    deadline = time.thread_time() + GRAMMAR_SECONDS
    gave_up = False
    for index, language in enumerate(candidates.languages):
        is_guess = index >= candidates.first_guess
        if language == "python":
            verdict = check_python(code, candidates.rule, is_guess=is_guess)
        else:
            verdict = grammars.check_syntax(
                code, language, candidates.rule, is_guess=is_guess, deadline=deadline
            )
        if verdict.is_program:
            return replace(verdict, language=language)
        gave_up |= verdict.reason == "parser_limit"
    return SyntaxVerdict("parser_limit" if gave_up else "syntax_error", candidates.declared)
