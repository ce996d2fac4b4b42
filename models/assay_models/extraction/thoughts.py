"""Removal of a response's thoughts, which are no part of its answer."""

import re
from dataclasses import dataclass, field

_NAMES = "think|thinking|thoughts?|reason|reasoning|reflection|analysis|scratchpad|seed:think"
# Tokens of chat templates that open and close thoughts, in the same order.
_OPENING_TOKENS = (
    *("<|begin_of_thought|>", "[THINK]", "◁think▷", "<|START_THINKING|>"),
    *("<|channel|>analysis<|message|>",),
)
_CLOSING_TOKENS = (
    *("<|end_of_thought|>", "[/THINK]", "◁/think▷", "<|END_THINKING|>"),
    *("<|end|>",),
)
_TAG = re.compile(
    rf"(?P<first>^[ \t>]*)?(?<![`'\"])"
    rf"(?:<(?P<opens>{_NAMES})(?:[ \t][^<>\n]*)?>|</(?P<closes>{_NAMES})[ \t]*>"
    rf"|(?P<opens_token>{'|'.join(map(re.escape, _OPENING_TOKENS))})"
    rf"|(?P<closes_token>{'|'.join(map(re.escape, _CLOSING_TOKENS))}))",
    re.IGNORECASE | re.MULTILINE,
)
# A fenced Markdown document is read as prose.
_FENCE = re.compile(r"^[ \t>]*(?:```|~~~)(?![`~]*[ \t]*(?:markdown|mdx?)\b)", re.MULTILINE)


@dataclass(slots=True)
class _Answer:
    """The parts of a response that are kept, up to the place that was read."""

    text: str
    parts: list[str] = field(default_factory=list)
    read: int = 0
    fences: int = 0
    counted: int = 0
    skipped: int = 0

    def is_in_block(self, place: int) -> bool:
        """Return whether an odd number of fences was opened or closed before that place."""
        self.fences += sum(1 for _ in _FENCE.finditer(self.text, self.counted, place))
        self.counted = place
        return self.fences % 2 == 1

    def resume(self, place: int, kept: int | None) -> None:
        """Continue to read at that place; keep what comes before `kept`, or nothing at all."""
        if kept is None:
            self.parts.clear()
            self.fences = 0
        else:
            self.parts.append(self.text[self.read : kept])
        self.read = self.counted = place


def remove_thoughts(text: str) -> tuple[str, bool]:
    """Return the answer without its thoughts, and whether it ends inside of one.

    A thought stands between tags (`<think>`, `<reasoning>` and others) or between the tokens of a
    chat template. One whose opening is part of the prompt begins with the response, and one that is
    not closed ends with it. Tags inside a fenced block, in quotes or behind a backtick are text.
    """
    answer, tags = _Answer(text), list(_TAG.finditer(text))
    closings = {_kind(tag): tag.start() for tag in tags if not _opens(tag)}
    pending = iter(tags)
    for tag in pending:
        if _is_text(answer, tag):
            continue
        if not _opens(tag):
            answer.resume(tag.end(), None)
        elif closings.get(_kind(tag), -1) > tag.start():
            closing = next(
                later for later in pending if not _opens(later) and _kind(later) == _kind(tag)
            )
            answer.resume(closing.end(), max(tag.start(), tag.end("first")))
        elif tag["first"] is not None:
            answer.resume(len(text), tag.start())
            return "".join(answer.parts), True
    return "".join([*answer.parts, text[answer.read :]]), False


def _opens(tag: re.Match[str]) -> bool:
    return tag["opens"] is not None or tag["opens_token"] is not None


def _kind(tag: re.Match[str]) -> str:
    """Return the name of a tag, or the place of a token among its kind."""
    name = tag["opens"] or tag["closes"]
    if name:
        return name.lower()
    tokens = _OPENING_TOKENS if tag["opens_token"] else _CLOSING_TOKENS
    used = (tag["opens_token"] or tag["closes_token"]).lower()
    return str([token.lower() for token in tokens].index(used))


def _is_text(answer: _Answer, tag: re.Match[str]) -> bool:
    """Return whether a tag is a part of a program.

    A tag that closes a thought may stand behind a fence that the thought left open.
    """
    if not answer.is_in_block(tag.start()):
        answer.skipped = 0
        return False
    if _opens(tag):
        answer.skipped += 1
        return True
    if not answer.skipped and tag["first"] is not None:
        return False
    answer.skipped = max(0, answer.skipped - 1)
    return True
