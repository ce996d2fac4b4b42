"""Python: the paper's rule, the language's own, and the names that a program defines."""

import ast
import threading
import warnings
from collections.abc import Callable, Iterator

from assay_models.extraction import newer_python
from assay_models.extraction.languages import SyntaxRule
from assay_models.extraction.verdict import MAX_DEPTH, Reason, SyntaxVerdict

# The filters of `warnings` belong to the whole process: one parse at a time may replace them.
_WARNINGS_LOCK = threading.Lock()
_EFFECTS = (ast.Call, ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_NOT_IMPLEMENTED = "NotImplementedError"


def check_python(code: str, rule: SyntaxRule, *, is_guess: bool) -> SyntaxVerdict:
    """Return whether `code` is a program in Python.

    By the paper's rule it is if this interpreter's `ast.parse` accepts it. By the language's rule
    it must compile as well (a `return` outside a function does not), and syntax that is newer than
    this interpreter is accepted (see `newer_python`). As a guess it must also define something, or
    print.
    """
    if rule == "paper":
        return SyntaxVerdict(_parse(code, ast.parse)[0])
    reason, tree = _parse(code, _compile)
    is_newer = reason == "syntax_error"
    if is_newer:
        reason, tree = _parse(code, _compile_newer)
    if tree is None:
        return SyntaxVerdict(reason)
    defines = tuple(dict.fromkeys(_defined_names(tree)))
    if is_guess and not defines and not _prints(tree):
        return SyntaxVerdict("syntax_error")
    return SyntaxVerdict(reason, None, defines, is_newer)


def _parse(
    code: str, parse: Callable[[str], ast.Module]
) -> tuple[Reason, ast.Module] | tuple[Reason, None]:
    try:
        with _WARNINGS_LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = parse(code)
    except (SyntaxError, ValueError):
        return "syntax_error", None
    except (MemoryError, RecursionError):
        return "parser_limit", None
    if _is_too_deep(tree):
        return "parser_limit", None
    is_trivial = all(_does_nothing(statement) or _is_label(statement) for statement in tree.body)
    return "trivial" if is_trivial else "ok", tree


def _compile(code: str) -> ast.Module:
    tree = ast.parse(code)
    if not _is_too_deep(tree):
        compile(tree, "<program>", "exec", dont_inherit=True)
    return tree


def _compile_newer(code: str) -> ast.Module:
    older = newer_python.in_older_syntax(code)
    if older is None:
        raise SyntaxError
    return _compile(older)


def _is_too_deep(tree: ast.Module) -> bool:
    level: list[ast.AST] = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return False
    return True


def _does_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return not any(isinstance(node, _EFFECTS) for node in ast.walk(statement))
    if isinstance(statement, (*_FUNCTIONS, ast.ClassDef)):
        return not statement.decorator_list and all(map(_does_nothing, statement.body))
    if isinstance(statement, ast.Raise):
        raised = statement.exc.func if isinstance(statement.exc, ast.Call) else statement.exc
        return isinstance(raised, ast.Name) and raised.id == _NOT_IMPLEMENTED
    return isinstance(statement, ast.Pass | ast.Import | ast.ImportFrom)


def _is_label(statement: ast.stmt) -> bool:
    """Return whether it is an annotation alone, such as the line `Output: 8` of a text."""
    return isinstance(statement, ast.AnnAssign) and statement.value is None


def _defined_names(tree: ast.Module) -> Iterator[str]:
    """Yield the names of functions and classes at the top, and of methods, without special ones."""
    for statement in tree.body:
        if isinstance(statement, (*_FUNCTIONS, ast.ClassDef)):
            yield statement.name
        if isinstance(statement, ast.ClassDef):
            methods = (node.name for node in statement.body if isinstance(node, _FUNCTIONS))
            yield from (name for name in methods if not name.startswith("__"))
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Lambda):
            yield from (name.id for name in statement.targets if isinstance(name, ast.Name))


def _prints(tree: ast.Module) -> bool:
    return any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        for node in ast.walk(tree)
    )
