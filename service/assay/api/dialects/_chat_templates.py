"""A conversation read back from the text that a policy's chat template made of it."""

import re
from collections.abc import Iterator

Messages = list[dict[str, str]]

# How the common templates open a turn, role included, and close it: ChatML, Llama 3, Gemma.
HEADS = (
    (re.compile(r"<\|im_start\|>([^\n<]{1,64})\n"), "<|im_end|>"),
    (re.compile(r"<\|start_header_id\|>([^\n<]{1,64})<\|end_header_id\|>\n\n"), "<|eot_id|>"),
    (re.compile(r"<start_of_turn>([^\n<]{1,64})\n"), "<end_of_turn>"),
)
ROLES = {"model": "assistant"}
BEGINNINGS = ("<|begin_of_text|>", "<bos>", "<s>", "<pad>", "<|endoftext|>")
ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "<eos>",
    "</s>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "<pad>",
)
BEGINNING = re.compile(f"(?:{'|'.join(map(re.escape, BEGINNINGS))})*")
# Matched from behind, so that it takes one pass whatever the text.
END = re.compile(rf"(?:\s*(?:{'|'.join(re.escape(token[::-1]) for token in ENDS)}))*")


def turns_of(text: str) -> Messages | None:
    """The turns, in order; None where the text does not open as a known template does."""
    told = without_beginning(text)
    for head, tail in HEADS:
        if head.match(told):
            return list(_turns(told, head, tail))
    return None


def without_beginning(text: str) -> str:
    """The text after the tokens that mark a sequence's beginning, or fill up a row on the left."""
    found = BEGINNING.match(text)
    return text[found.end() :] if found else text


def without_end(text: str) -> str:
    """The text before the tokens that end a turn, or fill up a row on the right."""
    found = END.match(text[::-1])
    return text[: len(text) - found.end()] if found else text


def _turns(text: str, head: re.Pattern[str], tail: str) -> Iterator[dict[str, str]]:
    marks = list(head.finditer(text))
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    for mark, end in zip(marks, ends, strict=True):
        role = mark[1]
        content = text[mark.end() : end].partition(tail)[0]
        yield {"role": ROLES.get(role, role), "content": content}
