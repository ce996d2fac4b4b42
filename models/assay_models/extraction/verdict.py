"""The verdict of the parsers on a text."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from assay_models.extraction.languages import Candidates, Language

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
    "unclosed_thought",
]
"""The outcome of an extraction.

With `ok` and `trivial` there is a program: a trivial one holds nothing but comments, constants,
imports, `pass` and definitions whose bodies hold no more than that. `parser_limit` means that a
parser gave up, on the depth of the nesting or on the work. `unclosed_thought` means that the
response ends before its answer begins.
"""

MAX_DEPTH = 1_000
"""The greatest depth of a syntax tree.

Python's own limit lies higher, but it moves with the depth of the call stack, and a score must not
depend on the caller.
"""


@dataclass(frozen=True, slots=True)
class SyntaxVerdict:
    """The outcome for one text, and the language it was taken for, if for any.

    `defines` are the names that a program defines: functions, classes and their methods. It is
    empty under the paper's rule. `is_newer` is whether it is Python that this server's interpreter
    is too old for.
    """

    reason: Reason
    language: Language | None = None
    defines: tuple[str, ...] = ()
    is_newer: bool = False

    @property
    def is_program(self) -> bool:
        """Whether there is a program that may be scored."""
        return self.reason in ("ok", "trivial")


SyntaxChecker = Callable[[str, Candidates], SyntaxVerdict]
"""A function that decides whether a text is a program in one of some languages."""
