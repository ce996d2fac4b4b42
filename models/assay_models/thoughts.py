"""Thoughts of a response, which are no part of its answer."""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
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
_TAG = re.compile(
    rf"(?P<first>^[ \t>]*+)?"
    rf"(?:<(?P<opens>{_NAMES})(?:[ \t][^<>\n]*)?>|</(?P<closes>{_NAMES})[ \t]*>{_PAIRS})",
    re.IGNORECASE | re.MULTILINE,
)
_ANY_NAME = "any name"
# A fence stands at the start of a line, of a quote or of an entry of a list; behind prose it has at
# most a tag. A fenced Markdown document is read as prose.
_FENCE = re.compile(
    r"^(?:[ \t>]*+(?:(?:[-*+]|\d{1,9}[.)])[ \t]++)*+(?:```|~~~)"
    r"|[^`\n]*+```(?=[\w+#.{}-]*+[ \t]*+$))"
    r"(?![`~]*[ \t]*(?:markdown|mdx?)\b)",
    re.MULTILINE,
)
_QUOTES = frozenset("`'\"")
_NEAR_CHARACTERS = 200
_MAX_TOKEN_CHARACTERS = 40
_END_TOKEN = re.compile(r"(?:<\|[^|<>\s]{1,32}\|>|</s>|<eos>|<end_of_turn>)\Z")
_CONTROL_TOKEN = re.compile(r"(?:<\|[^|<>\s]{1,32}\|>|</?s>|<eos>|<end_of_turn>)\Z")


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

    places: Sequence[int]
    fences: int = 0
    read: int = 0
    skipped: int = 0

    def hold(self, tag: _Tag) -> bool:
        """Return whether a tag is text of a block.

        A tag that closes a thought may stand behind a fence that the thought left open; then the
        fences behind it are complete.
        """
        first, here = bisect_left(self.places, self.read), bisect_left(self.places, tag.start)
        self.fences += max(0, here - first)
        self.read = tag.start
        if self.fences % 2 == 0:
            self.skipped = 0
            return False
        if tag.opens:
            self.skipped += 1
            return True
        if not self.skipped and tag.line is not None and (len(self.places) - here) % 2 == 0:
            return False
        self.skipped = max(0, self.skipped - 1)
        return True


def thoughts(text: str) -> tuple[list[Span], bool]:
    """Return start and end of each thought with its tags, and whether the text ends inside of one.

    A thought stands between tags (`<think>`, `<reasoning>` and others) or between the tokens of a
    chat template. It ends at the next tag of its own name, or, where none follows, of another. A
    tag that closes none ends a thought whose opening is part of the prompt: that begins with the
    text. A thought that is not closed ends with the text, if its tag opens a line. Tags inside a
    fenced block or in quotes are text, and so is one that closes nothing and ends the text.
    """
    text = text.replace("\r", "\n")
    blocks = _Blocks([fence.start() for fence in _FENCE.finditer(text)])
    tags = list(_tags(text))
    last = _stripped_end(text, _end_without(_CONTROL_TOKEN, text)) if tags else 0
    closed = {kind: tag.start for tag in tags if not tag.opens for kind in tag.kinds}
    found: list[Span] = []
    pending = iter(tags)
    for tag in pending:
        if blocks.hold(tag):
            continue
        if not tag.opens:
            if tag.end < last and _ends_thought(text, tag):
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


def without_end_tokens(text: str) -> str:
    """Return a text without the tokens of chat templates that it ends with."""
    return text[: _end_without(_END_TOKEN, text)]


def _end_without(tokens: re.Pattern[str], text: str) -> int:
    """Return the end of a text before the tokens that it ends with, white space among them."""
    end = len(text)
    while True:
        stop = _stripped_end(text, end)
        token = tokens.search(text, max(0, stop - _MAX_TOKEN_CHARACTERS), stop)
        if token is None:
            return end
        end = token.start()


def _stripped_end(text: str, end: int) -> int:
    # A slice for each token would copy the whole text each time.
    while end and text[end - 1].isspace():
        end -= 1
    return end


def _ends_thought(text: str, tag: _Tag) -> bool:
    """Return whether a tag that closes no tag of the text ends a thought that the prompt opened."""
    if text[tag.start : tag.end].lower() == _TURN_END:
        return False
    before = text[max(0, tag.start - _NEAR_CHARACTERS) : tag.start].rpartition("\n")[2]
    behind = text[tag.end : tag.end + _NEAR_CHARACTERS].partition("\n")[0]
    return not any(before.count(quote) % 2 and quote in behind for quote in '`"')


def _is_quoted(text: str, start: int, end: int, *, opens: bool) -> bool:
    """Return whether a tag is written about, not used. A thought may end with a quote."""
    quote, behind = text[start - 1 : start], text[end : end + 3]
    is_closed = behind[:1] == quote and behind != quote * 3
    return quote in _QUOTES and (opens or is_closed)


def _tags(text: str) -> Iterator[_Tag]:
    for found in _TAG.finditer(text):
        start, end = (
            found.end("first") if found["first"] is not None else found.start(),
            found.end(),
        )
        opens = (found.lastgroup or "").startswith("opens")
        if _is_quoted(text, start, end, opens=opens):
            continue
        role, _, pair = (found.lastgroup or "").partition("_")
        is_first = found["first"] is not None
        yield _Tag(
            found.end("first") if is_first else found.start(),
            found.end(),
            role == "opens",
            (pair,) if pair else (found[role].lower(), _ANY_NAME),
            found.start() if is_first else None,
        )
