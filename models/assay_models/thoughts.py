"""Thoughts of a response, which are no part of its answer."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

Span = tuple[int, int]

_NAMES = "think|thinking|thoughts?|reason|reasoning|reflection|analysis|scratchpad|seed:think"
_TURN_END = "<|end|>"
# Tokens of chat templates that open a thought, and those that close it.
_TOKENS = (
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),
    (r"\[THINK\]", r"\[/THINK\]"),
    (r"\u25c1think\u25b7", r"\u25c1/think\u25b7"),
    (r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),
    (
        r"<\|channel\|>(?:analysis|commentary)",
        rf"{re.escape(_TURN_END)}(?:<\|start\|>assistant)?(?:<\|channel\|>final)?(?:<\|message\|>)?",
    ),
)
_PAIRS = "".join(
    f"|(?P<opens_{number}>{opening})|(?P<closes_{number}>{closing})"
    for number, (opening, closing) in enumerate(_TOKENS)
)
# A tag in quotes or in code is written about, not used.
_TAG = re.compile(
    rf"(?P<first>^[ \t>]*+)?(?<![`'\"])"
    rf"(?:<(?P<opens>{_NAMES})(?:[ \t][^<>\n]*)?>|</(?P<closes>{_NAMES})[ \t]*>{_PAIRS})",
    re.IGNORECASE | re.MULTILINE,
)
_ANY_NAME = "any name"
# A fenced Markdown document is read as prose.
_FENCE = re.compile(r"^[ \t>]*+(?:```|~~~)(?![`~]*[ \t]*(?:markdown|mdx?)\b)", re.MULTILINE)


class _Tag(NamedTuple):
    """A tag or a token: its place, whether it opens a thought, and the kinds that it belongs to.

    `line` is the start of its line where nothing but blanks and quotation marks stand before it.
    """

    start: int
    end: int
    opens: bool
    kinds: tuple[str, ...]
    line: int | None


@dataclass(slots=True)
class _Blocks:
    """The fenced blocks of a text, up to the place that was read."""

    text: str
    fences: int = 0
    read: int = 0
    skipped: int = 0

    def hold(self, tag: _Tag) -> bool:
        """Return whether a tag is text of a block.

        A tag that closes a thought may stand behind a fence that the thought left open.
        """
        self.fences += sum(1 for _ in _FENCE.finditer(self.text, self.read, tag.start))
        self.read = tag.start
        if self.fences % 2 == 0:
            self.skipped = 0
            return False
        if tag.opens:
            self.skipped += 1
            return True
        if not self.skipped and tag.line is not None:
            return False
        self.skipped = max(0, self.skipped - 1)
        return True


def thoughts(text: str) -> tuple[list[Span], bool]:
    """Return start and end of each thought with its tags, and whether the text ends inside of one.

    A thought stands between tags (`<think>`, `<reasoning>` and others) or between the tokens of a
    chat template. It ends at the next tag of its own name, or, where none follows, of another. A
    tag that closes none ends a thought whose opening is part of the prompt: that begins with the
    text. A thought that is not closed ends with the text, if its tag opens a line. Tags inside a
    fenced block, in quotes or behind a backtick are text.
    """
    text = text.replace("\r", "\n")
    blocks, tags = _Blocks(text), list(_tags(text))
    closed = {kind: tag.start for tag in tags if not tag.opens for kind in tag.kinds}
    found: list[Span] = []
    pending = iter(tags)
    for tag in pending:
        if blocks.hold(tag):
            continue
        if not tag.opens:
            if text[tag.start : tag.end].lower() != _TURN_END:
                found, blocks.fences, blocks.read = [(0, tag.end)], 0, tag.end
            continue
        kind = next((kind for kind in tag.kinds if closed.get(kind, -1) > tag.start), None)
        if kind is not None:
            closing = next(later for later in pending if not later.opens and kind in later.kinds)
            found.append((tag.start, closing.end))
            blocks.read = closing.end
        elif tag.line is not None:
            return [*found, (tag.line, len(text))], True
    return found, False


def _tags(text: str) -> Iterator[_Tag]:
    for found in _TAG.finditer(text):
        role, _, pair = (found.lastgroup or "").partition("_")
        is_first = found["first"] is not None
        yield _Tag(
            found.end("first") if is_first else found.start(),
            found.end(),
            role == "opens",
            (pair,) if pair else (found[role].lower(), _ANY_NAME),
            found.start() if is_first else None,
        )
