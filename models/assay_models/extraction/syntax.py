"""Whether a text is a program: the parsers are run here, in the process that calls."""

import ast
import threading
import time
import warnings

from assay_models.extraction import grammars
from assay_models.extraction.languages import Candidates
from assay_models.extraction.verdict import MAX_DEPTH, Reason, Verdict

GRAMMAR_SECONDS = 0.5
"""CPU time that the tree-sitter grammars have for one text, all candidates together."""

# The filters of `warnings` belong to the whole process: one parse at a time may set them aside.
_PARSING = threading.Lock()


def judge(code: str, candidates: Candidates) -> Verdict:
    """The first candidate that `code` parses as; where it is none, why not.

    The reason is then `parser_limit` if any parser gave up, and the language is the one that was
    named (see `Candidates.sure`).
    """
    until = time.thread_time() + GRAMMAR_SECONDS
    gave_up = False
    for place, language in enumerate(candidates.languages):
        if language == "python":
            reason = _python(code)
        else:
            reason = grammars.judge(code, language, place >= candidates.guessed, until)
        if reason in ("ok", "trivial"):
            return Verdict(reason, language)
        gave_up |= reason == "parser_limit"
    return Verdict("parser_limit" if gave_up else "syntax_error", candidates.sure)


def _python(code: str) -> Reason:
    try:
        with _PARSING, warnings.catch_warnings():
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
