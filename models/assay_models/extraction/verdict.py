"""What parsers say of a text."""

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
"""What came of it. With `ok` and `trivial` there is a program: a trivial one holds nothing but
comments, constants and `pass` in Python, and nothing but comments, constants, imports and empty
bodies in another language. `parser_limit` means that a parser gave up, on the depth of the nesting
or on the work."""

MAX_DEPTH = 1_000
"""Programs whose syntax tree is deeper are refused. Python's own limit lies higher but moves with
the depth of the call stack, and a score must not depend on who calls."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the parsers made of a text, and the language it was taken for, if for any."""

    reason: Reason
    language: Language | None = None

    @property
    def is_program(self) -> bool:
        """Whether there is a program that may be scored."""
        return self.reason in ("ok", "trivial")
