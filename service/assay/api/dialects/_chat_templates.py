"""Chat messages, parsed from the text that a policy's chat template rendered."""

import re
from collections.abc import Iterator

Messages = list[dict[str, str]]

# The start of a message (with its role) and its end in common templates: ChatML, Llama 3, Gemma.
DELIMITERS = (
    (re.compile(r"<\|im_start\|>([^\n<]{1,64})\n"), "<|im_end|>"),
    (re.compile(r"<\|start_header_id\|>([^\n<]{1,64})<\|end_header_id\|>\n\n"), "<|eot_id|>"),
    (re.compile(r"<start_of_turn>([^\n<]{1,64})\n"), "<end_of_turn>"),
)
ROLE_NAMES = {"model": "assistant"}
LEADING_TOKENS = ("<|begin_of_text|>", "<bos>", "<s>", "<pad>", "<|endoftext|>")
TRAILING_TOKENS = (
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
LEADING = re.compile(f"(?:{'|'.join(map(re.escape, LEADING_TOKENS))})*")
# Matched on the reversed text, so that it takes linear time.
TRAILING = re.compile(
    rf"(?:\s*(?:{'|'.join(re.escape(token[::-1]) for token in TRAILING_TOKENS)}))*"
)


def parse_messages(text: str) -> Messages | None:
    """Return the messages of a rendered text, in order; None if no known template rendered it."""
    stripped = strip_leading_tokens(text)
    for start, end in DELIMITERS:
        if start.match(stripped):
            return list(_split_messages(stripped, start, end))
    return None


def strip_leading_tokens(text: str) -> str:
    """Return the text without the tokens that begin a sequence or pad it on the left."""
    match = LEADING.match(text)
    return text[match.end() :] if match else text


def strip_trailing_tokens(text: str) -> str:
    """Return the text without the tokens that end a message or pad it on the right."""
    match = TRAILING.match(text[::-1])
    return text[: len(text) - match.end()] if match else text


def _split_messages(text: str, start: re.Pattern[str], end: str) -> Iterator[dict[str, str]]:
    heads = list(start.finditer(text))
    stops = [*(head.start() for head in heads[1:]), len(text)]
    for head, stop in zip(heads, stops, strict=True):
        role = head[1]
        content = text[head.end() : stop].partition(end)[0]
        yield {"role": ROLE_NAMES.get(role, role), "content": content}
