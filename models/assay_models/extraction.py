"""From what a policy wrote to the bare Python program in it, or the reason why there is none.

The strict rule is CodeScaler's (arXiv 2602.17684): exactly one fenced block, and its body parses.
"""

import ast
import platform
import re
import threading
import warnings
from dataclasses import dataclass
from typing import Literal

Extraction = Literal["strict", "last_block", "raw_code"]
"""Where the program is: in the only fenced block, in the last one, or the whole text."""

Reason = Literal[
    "ok",
    "no_block",
    "multiple_blocks",
    "syntax_error",
    "empty",
    "trivial",
    "too_large",
    "parser_limit",
    "unknown_language",
]
"""What came of it. With `ok` and `trivial` (nothing but comments, constants and `pass`) there is
a program; `parser_limit` means that the parser gave up on the depth of its nesting."""

MAX_CHARACTERS = 65_536
"""Programs longer than this are not parsed, so that no text can hold a thread for long."""

MAX_DEPTH = 1_000
"""Programs whose syntax tree is deeper are refused. Python's own limit lies higher but moves with
the depth of the call stack, and a score must not depend on who calls."""

PARSER = f"{platform.python_implementation()} {platform.python_version()}"
"""Whose syntax decides what parses: a newer Python takes programs that an older one refuses."""

_BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
_PYTHON = frozenset({"", "python", "python3", "py", "py3"})
# fmt: off
_OTHER_LANGUAGES = frozenset(
    {
        "bash", "c", "cc", "cpp", "cs", "csharp", "css", "cxx", "dart", "elixir", "fortran",
        "go", "golang", "haskell", "html", "java", "javascript", "jl", "js", "json", "jsx",
        "julia", "kotlin", "lua", "matlab", "node", "objectivec", "perl", "php", "powershell",
        "ps1", "r", "rb", "rs", "ruby", "rust", "scala", "sh", "shell", "sql", "swift", "ts",
        "tsx", "typescript", "vb", "xml", "yaml", "yml", "zsh",
    }
)
# fmt: on
# The filters of `warnings` belong to the whole process: one parse at a time may set them aside.
_PARSING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Extracted:
    """The program, stripped of surrounding white space, or None and the reason."""

    code: str | None
    reason: Reason


def extract(response: str, mode: Extraction, language: str | None = None) -> Extracted:
    """The Python program in a response.

    A block starts with three backticks, word characters or none, and at once a newline; it ends
    at the next three backticks. Its tag is not believed: what parses is Python. Where the body
    does not parse and the tag is another language's, the reason says so.

    Args:
        response: any text.
        mode: `strict`, CodeScaler's rule; `last_block`, the last of any number of blocks;
            `raw_code`, the whole text. Each of them demands that the program parses.
        language: what the caller says the program is in; any but Python cannot be checked.
    """
    if language is not None and language.strip().lower() not in _PYTHON:
        return Extracted(None, "unknown_language")
    if mode == "raw_code":
        return _checked(response, "")
    blocks = list(_BLOCK.finditer(response))
    if not blocks:
        return Extracted(None, "no_block")
    if mode == "strict" and len(blocks) > 1:
        return Extracted(None, "multiple_blocks")
    tag, body = blocks[-1].groups()
    return _checked(body, tag)


def _checked(text: str, tag: str) -> Extracted:
    code = text.strip()
    if not code:
        return Extracted(None, "empty")
    if len(code) > MAX_CHARACTERS:
        return Extracted(None, "too_large")
    reason = _parsed(code)
    if reason == "syntax_error" and tag.lower() in _OTHER_LANGUAGES:
        reason = "unknown_language"
    return Extracted(code if reason in ("ok", "trivial") else None, reason)


def _parsed(code: str) -> Reason:
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
