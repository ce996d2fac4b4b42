"""Parsing of a text in the calling process, to decide whether it is a program."""

import ast
import threading
import time
import warnings

from assay_models.extraction import grammars
from assay_models.extraction.languages import Candidates
from assay_models.extraction.verdict import MAX_DEPTH, Reason, SyntaxVerdict

GRAMMAR_SECONDS = 0.5
"""The CPU time of the tree-sitter grammars for one text, all candidates together."""

# The filters of `warnings` belong to the whole process: one parse at a time may replace them.
_WARNINGS_LOCK = threading.Lock()


def check_syntax(code: str, candidates: Candidates) -> SyntaxVerdict:
    """Return the first candidate language that `code` parses as, or the reason why it is none.

    The reason is then `parser_limit` if any parser gave up, and the language is the one that was
    declared (see `Candidates.declared`).
    """
    deadline = time.thread_time() + GRAMMAR_SECONDS
    gave_up = False
    for index, language in enumerate(candidates.languages):
        if language == "python":
            reason = _check_python(code)
        else:
            is_guess = index >= candidates.first_guess
            reason = grammars.check_syntax(code, language, is_guess=is_guess, deadline=deadline)
        if reason in ("ok", "trivial"):
            return SyntaxVerdict(reason, language)
        gave_up |= reason == "parser_limit"
    return SyntaxVerdict("parser_limit" if gave_up else "syntax_error", candidates.declared)


def _check_python(code: str) -> Reason:
    try:
        with _WARNINGS_LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
    except (SyntaxError, ValueError):
        return "syntax_error"
    except (MemoryError, RecursionError):
        return "parser_limit"
    if _is_too_deep(tree):
        return "parser_limit"
    return "trivial" if all(map(_does_nothing, tree.body)) else "ok"


def _is_too_deep(tree: ast.Module) -> bool:
    level: list[ast.AST] = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return False
    return True


def _does_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Pass)
