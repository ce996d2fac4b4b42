"""The fenced blocks of a response, found by the pattern of CodeScaler (arXiv 2602.17684)."""

import re
from typing import Literal

from assay_models.extraction.languages import Language

Extraction = Literal["strict", "last_block", "raw_code", "solution"]
"""The place of the program: the only fenced block, the last one, the whole text, or where a reader
finds it."""

_BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
_CPP_BLOCK = re.compile(r"```(\w*|[cC]\+\+\w*)\n(.*?)```", re.DOTALL)


def find_block(
    response: str, mode: Extraction, language: Language | None
) -> tuple[str, str] | Literal["no_block", "multiple_blocks"]:
    """Return the tag and the body of the block with the program, or the reason why there is none.

    A block starts with three backticks, word characters or none, and at once a newline; it ends at
    the next three backticks. So `c++` opens no block, as in the paper, unless the program is known
    to be C++ beforehand: then `c++` is a tag too, also with a year behind it (`c++17`).
    """
    if mode == "raw_code":
        return "", response
    pattern = _CPP_BLOCK if language == "cpp" else _BLOCK
    blocks: list[tuple[str, str]] = pattern.findall(response)
    if not blocks:
        return "no_block"
    if mode == "strict" and len(blocks) > 1:
        return "multiple_blocks"
    return blocks[-1]
