"""Where in a response its program is: the fenced blocks, by the paper's own pattern."""

import re
from typing import Literal

from assay_models.extraction.languages import Language

Extraction = Literal["strict", "last_block", "raw_code"]
"""Where the program is: in the only fenced block, in the last one, or the whole text."""

_BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
_CPP_BLOCK = re.compile(r"```(\w*|[cC]\+\+\w*)\n(.*?)```", re.DOTALL)


def block(
    response: str, mode: Extraction, language: Language | None
) -> tuple[str, str] | Literal["no_block", "multiple_blocks"]:
    """The tag and the body of the block that counts, or the reason why none does.

    A block starts with three backticks, word characters or none, and at once a newline; it ends at
    the next three backticks. So `c++` opens no block, as in the paper, unless the program is known
    to be C++ beforehand: then `c++` is a tag too, also with a year behind it (`c++17`).
    """
    if mode == "raw_code":
        return "", response
    pattern = _CPP_BLOCK if language == "cpp" else _BLOCK
    found: list[tuple[str, str]] = pattern.findall(response)
    if not found:
        return "no_block"
    if mode == "strict" and len(found) > 1:
        return "multiple_blocks"
    return found[-1]
