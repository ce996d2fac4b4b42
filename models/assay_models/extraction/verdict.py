"""The verdict of the parsers on a text."""

from dataclasses import dataclass
from typing import Literal

from assay_models.extraction.languages import Language

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
"""The outcome of an extraction.

With `ok` and `trivial` there is a program: a trivial one holds nothing but comments, constants and
`pass` in Python, and nothing but comments, constants, imports and empty bodies in another language.
`parser_limit` means that a parser gave up, on the depth of the nesting or on the work.
"""

MAX_DEPTH = 1_000
"""The greatest depth of a syntax tree.

Python's own limit lies higher, but it moves with the depth of the call stack, and a score must not
depend on the caller.
"""


@dataclass(frozen=True, slots=True)
class SyntaxVerdict:
    """The outcome for one text, and the language it was taken for, if for any."""

    reason: Reason
    language: Language | None = None

    @property
    def is_program(self) -> bool:
        """Whether there is a program that may be scored."""
        return self.reason in ("ok", "trivial")
