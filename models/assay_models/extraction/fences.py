"""The fenced blocks of a response, found as a reader finds them."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from assay_models.extraction.languages import tag_of

MAX_BLOCKS = 64
"""The number of blocks of a response that are read."""
MAX_ENDS = 5
"""The number of fences that are tried as the end of one block."""

# A fence opens a block if no backtick follows on its line. One that does not is matched up to that
# backtick, without `end`: no fence before it can open a block, and none is tried.
_OPENING = re.compile(
    r"(?<![`~])(?P<fence>`{3,}+|~{3,}+)[ \t]*+(?P<info>[^`\n]*+)(?P<end>$)?", re.MULTILINE
)
_BEFORE = re.compile(r"[ \t]*(?:>[ \t]*|(?:[-*+]|\d{1,9}[.)])[ \t]+)*")
_TAG_ALONE = re.compile(r"[\w+#.{}-]*[ \t]*")
_QUOTE = re.compile(r"^[ \t]*(?:>[ \t]?)+", re.MULTILINE)
_INDENTATION = re.compile(r"^([ \t]*)\S", re.MULTILINE)
_LONG_TEXT = re.compile(r"\"\"\"|'''|`|/\*|[rR]#*\"")
# Fences with prose between them are a program in these: templates of text.
_TEMPLATE_LANGUAGES = frozenset(("javascript", "typescript"))
_DOCUMENTS = frozenset(("markdown", "md", "mdx"))

IsProgram = Callable[[str, str], bool]
"""A function that decides whether a tag and a body are those of a program."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its tag (a language's name where it is one), its body without indentation
    and white space around it, and whether it is closed."""

    tag: str
    body: str
    is_closed: bool


class _End(NamedTuple):
    """A possible end of a block: where its body ends, where the next block may begin, and whether
    the fence there opens that block."""

    cut: int
    resume: int
    opens_next: bool = False


def find_blocks(text: str, is_program: IsProgram, max_characters: int) -> Iterator[Block]:
    """Yield the blocks of a text whose lines end with newlines, in order, without empty ones.

    A fence is three or more backticks or tildes. The opening one may stand in a list, in a quote or
    behind prose. A block ends at a fence of its kind that leaves a program before it, first of all
    the next that is alone on its line. So a fence in a docstring ends no block, and a block that
    was left open ends before the next one, or with the text. Where no fence leaves a program, the
    block ends at the first that a reader would take for its end.
    """
    place = 0
    for _ in range(MAX_BLOCKS):
        opening = _next_opening(text, place)
        if opening is None:
            return
        tag, before = tag_of(opening["info"]), _line_before(text, opening.start())
        quoted = ">" in before and _BEFORE.fullmatch(before) is not None
        start = min(opening.end() + 1, len(text))
        ends = _ends(text, start, opening["fence"], start + 2 * max_characters)
        if tag in _TEMPLATE_LANGUAGES:
            ends.sort(key=lambda end: end.cut)
        for end in (*ends, _visible_end(ends)):
            body = text[start : end.cut]
            if len(body) <= 2 * max_characters and is_program(tag, _clean(body, quoted)):
                break
        place = end.resume
        if body := _clean(body, quoted):
            yield Block(tag, body, end.cut < len(text))


def outdent(body: str) -> str:
    """Return a text without the indentation of its first line that is not blank.

    A line with less loses what it has: it lies inside a string of several lines.
    """
    first = _INDENTATION.search(body)
    width = len(first[1]) if first else 0
    return re.sub(rf"^[ \t]{{1,{width}}}", "", body, flags=re.MULTILINE) if width else body


def _clean(body: str, quoted: bool) -> str:
    return outdent(_QUOTE.sub("", body) if quoted else body).strip()


def _next_opening(text: str, place: int) -> re.Match[str] | None:
    """Return the next fence that opens a block; a fenced Markdown document is read as prose."""
    for opening in _OPENING.finditer(text, place):
        if opening["end"] is None or tag_of(opening["info"]) in _DOCUMENTS:
            continue
        before = _line_before(text, opening.start())
        is_after_prose = before.endswith((" ", "\t", ":", ">")) and opening["fence"][0] == "`"
        if _BEFORE.fullmatch(before) or (is_after_prose and _TAG_ALONE.fullmatch(opening["info"])):
            return opening
    return None


def _line_before(text: str, place: int) -> str:
    return text[text.rfind("\n", 0, place) + 1 : place]


def _ends(text: str, start: int, fence: str, limit: int) -> list[_End]:
    """List the possible ends of a block in the order in which they are tried.

    Fences further on are tried only where the body may be open text, such as a docstring.
    """
    mark = f"(?<!{fence[0]}){fence[0]}{{{len(fence)},}}+"
    alone = [
        _End(match.start(), match.end())
        for match in islice(
            re.compile(rf"^[ \t>]*+{mark}[^\S\n]*$", re.MULTILINE).finditer(text, start, limit),
            MAX_ENDS,
        )
    ]
    first = alone[0].cut if alone else min(limit, len(text))
    if not _LONG_TEXT.search(text, start, first):
        alone = alone[:1]
    others = islice(re.compile(mark).finditer(text, start, first), MAX_ENDS)
    tail = [_End(len(text), len(text))] if not alone else []
    return [*alone, *(_other_end(text, match) for match in others), *tail]


def _other_end(text: str, fence: re.Match[str]) -> _End:
    """Return the end of a block at a fence that is not alone: it may open the next block."""
    line = text.rfind("\n", 0, fence.start()) + 1
    opening = _OPENING.match(text, fence.start())
    opens_next = opening is not None and opening["end"] is not None
    if opens_next and _BEFORE.fullmatch(text, line, fence.start()):
        return _End(line, line, opens_next=True)
    return _End(fence.start(), fence.end())


def _visible_end(ends: list[_End]) -> _End:
    """Return the end of a block that is no program: before the next opening, or the first fence."""
    return next((end for end in ends if end.opens_next), ends[0])
