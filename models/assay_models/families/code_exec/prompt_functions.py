"""Functions that a prompt gives to the program that it asks for: they belong to the task."""

import ast
import re
from collections.abc import Iterator, Sequence

_BLOCK = re.compile(r"^[ \t]*```[^\n]*\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL)
MAX_CHARACTERS = 65_536


def helpers_of(prompt: str, entry_points: Sequence[str], tests: Sequence[str]) -> str:
    """Return the complete functions of a prompt that tests name, with what it imports.

    They are taken from a text of Python that also holds a function without a body, the one that is
    asked for; from no other, because a complete function may be what is to be changed.

    Args:
        prompt: Python, or a text with blocks of code.
        entry_points: the names of the functions that are tested.
        tests: only what they name is returned.
    """
    words = frozenset(re.findall(r"\w+", "\n".join(tests)))
    for tree in _trees(prompt[-MAX_CHARACTERS:]):
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        stubs = {node.name for node in functions if _is_stub(node)}
        own = {node.name for node in functions} - stubs
        if not stubs.isdisjoint(entry_points) and not own.isdisjoint(words):
            kept = [node for node in tree.body if _is_import(node) or _name(node) in own]
            return ast.unparse(ast.Module(kept, []))
    return ""


def _trees(prompt: str) -> Iterator[ast.Module]:
    for text in (prompt, *_BLOCK.findall(prompt)):
        try:
            yield ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue


def _is_stub(function: ast.FunctionDef) -> bool:
    """Return whether a function does nothing but say what it should do."""
    return all(
        isinstance(node, ast.Pass | ast.Raise)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in function.body
    )


def _is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _name(node: ast.stmt) -> str:
    return node.name if isinstance(node, ast.FunctionDef) else ""
