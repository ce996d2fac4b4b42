"""The place of the final answer in a response."""

import re
from typing import Literal, NamedTuple

from assay_models.thoughts import thoughts, without_end_tokens

AnswerPlace = Literal["auto", "last_boxed", "answer_tag", "answer_line", "whole"]

MAX_BARE_CHARACTERS = 200
"""The length of a response of one line that is an answer by itself."""

_BRACES = re.compile(r"\\(?:boxed|fbox)\s*(?P<box>\{)|\\[{}\\]|\{|\}")
_BARE_BOX = re.compile(r"\\boxed\s+([^\s{}\\$]+)")
_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_LINE = re.compile(
    r"####[ \t]{0,8}(?=[-+$\d.\\])|\banswer[ \t]{0,8}(?:is\b|choice is\b|[*_]{0,3}[ \t]{0,8}[:=])"
    r"[ \t]{0,8}:?[*_]{0,3}[ \t]{0,8}(?=\S)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!]\s+(?=[A-Z])|\bI hope\b|<\|im_")
_INLINE = re.compile(r"(?<![\\\w])\$([^$]+)\$|\\\(((?:[^\\]|\\(?!\)))+)\\\)")
_BETWEEN = re.compile(
    r"(?:\s|,|;|\.|\$|and|or|\\[()\[\],;]|\\q?quad|\\text\s*\{\s*,?\s*(?:and|or)\s*\})*"
)


class _Box(NamedTuple):
    """A box: the place of its command, and where its content begins and its brace ends."""

    opening: int
    start: int
    end: int


def extract_answer(response: str, place: AnswerPlace = "auto") -> str | None:
    r"""Return the final answer of a response; None if it has none.

    Thoughts are no part of a response. The last answer of a kind counts. `auto` takes the content
    of the last `\\boxed{}`, else of the last `<answer>` tag, else the last line `Answer: …`,
    `The answer is …` or `#### …`, else a response of one short line as a whole.
    """
    text = _without_thoughts(response)
    finders = {
        "last_boxed": last_boxed,
        "answer_tag": last_tag,
        "answer_line": last_line,
        "whole": _whole,
    }
    if place != "auto":
        return finders[place](text) or None
    for find in (last_boxed, last_tag, last_line, _bare):
        found = find(text)
        if found:
            return found
    return None


def last_boxed(text: str) -> str | None:
    r"""Return the content of the `\\boxed{}` that is closed last, or of the last `\\boxed 4`.

    Boxes with nothing but `,`, `and` or `or` between them are one list.
    """
    boxes = _boxes(text)
    if not boxes:
        bare = _BARE_BOX.findall(text)
        return bare[-1] if bare else None
    contents, first = list[str](), len(text)
    for box in reversed(boxes):
        if contents and not (box.end <= first and _BETWEEN.fullmatch(text, box.end, first)):
            break
        contents.append(text[box.start : box.end - 1].strip())
        first = box.opening
    return ", ".join(reversed(contents))


def _boxes(text: str) -> list[_Box]:
    """Return the boxes in the order in which they are closed, without those inside of others."""
    boxes, opened = list[_Box](), list[tuple[int, int] | None]()
    for match in _BRACES.finditer(text):
        if match[0] == "}" and opened:
            start = opened.pop()
            if start is not None:
                while boxes and boxes[-1].opening > start[0]:
                    boxes.pop()
                boxes.append(_Box(*start, match.end()))
        elif match["box"] or match[0] == "{":
            opened.append((match.start(), match.end()) if match["box"] else None)
    return boxes


def last_tag(text: str) -> str | None:
    """Return the content of the last `<answer>` tag that is closed."""
    start = found = None
    for match in _TAG.finditer(text):
        if not match[1]:
            start = match.end()
        elif start is not None:
            found, start = (start, match.start()), None
    return text[slice(*found)].strip() if found else None


def last_line(text: str) -> str | None:
    """Return what stands behind the last `Answer:`, `The answer is` or `####`."""
    start = None
    for match in _LINE.finditer(text):
        start = match.end()
    if start is None:
        return None
    end = text.find("\n", start)
    line = text[start : len(text) if end < 0 else end]
    cut = _SENTENCE_END.search(line)
    return (line[: cut.start()] if cut else line).strip().strip("*_ ")


def _whole(text: str) -> str:
    return text.strip()


def _bare(text: str) -> str | None:
    stripped = text.strip()
    is_bare = "\n" not in stripped and len(stripped) <= MAX_BARE_CHARACTERS
    if not is_bare:
        return None
    inline = _INLINE.findall(stripped)
    has_words = _BETWEEN.fullmatch(_INLINE.sub("", stripped)) is None
    return "".join(inline[-1]).strip() if inline and has_words else stripped


def _without_thoughts(response: str) -> str:
    response = without_end_tokens(response)
    spans, _ = thoughts(response)
    places = [0, *(place for span in spans for place in span), len(response)]
    parts = [response[start:end] for start, end in zip(places[::2], places[1::2], strict=True)]
    return "\n".join(parts)
