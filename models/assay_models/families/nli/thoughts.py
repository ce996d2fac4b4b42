"""Thoughts of a policy in a response: text that is no part of its answer."""

import re
from collections.abc import Iterator

from assay_models.families.nli.sentences import Span

_NAME = "(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad|seed:think)"
# A tag in quotes or in code is written about, not used.
_UNQUOTED = "(?<![`\"'])"
_CLOSE = rf"{_UNQUOTED}(?:</{_NAME}>|\[/THINK\]|\u25c1/think\u25b7|<\|END_THINKING\|>)"
_OPENING = re.compile(
    rf"{_UNQUOTED}(?:<{_NAME}>|\[THINK\]|\u25c1think\u25b7|<\|START_THINKING\|>|"
    r"(?P<channel><\|channel\|>(?:analysis|commentary)))"
)
_CLOSING = re.compile(_CLOSE)
_CHANNEL_END = re.compile(
    r"<\|end\|>(?:<\|start\|>assistant)?(?:<\|channel\|>final)?(?:<\|message\|>)?"
)


def thoughts(response: str) -> Iterator[Span]:
    """Yield start and end of each thought with its tags, in characters.

    A thought that is not closed lasts to the end, if its tag opens a line. A tag that closes one
    before any is opened ends a thought that the prompt opened.
    """
    reached = 0
    opening, closing = _OPENING.search(response), _CLOSING.search(response)
    if closing and (opening is None or closing.start() < opening.start()):
        reached = closing.end()
        yield 0, reached
    while opening := _OPENING.search(response, reached):
        end = _CHANNEL_END if opening["channel"] else _CLOSING
        closing = end.search(response, opening.end())
        if closing is None:
            if not response[: opening.start()].rpartition("\n")[2].strip():
                yield opening.start(), len(response)
            return
        reached = closing.end()
        yield opening.start(), reached
