"""Conversion of trainers' arguments to the items of a request."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from assay_client._transport.zip import zip_strict

Message = Mapping[str, Any]
Sources = Mapping[str, Any]


def build_item(sources: Sources, fields: Mapping[str, str]) -> dict[str, Any]:
    """Build an item.

    Args:
        sources: the values of a sample, by name.
        fields: the source of each field of the item.

    Raises:
        ValueError: a source is missing; the message names it, and the sources that there are.
    """
    missing = [source for source in fields.values() if sources.get(source) is None]
    if missing:
        there = ", ".join(sorted(name for name, value in sources.items() if value is not None))
        raise ValueError(
            f"there is no {missing[0]!r} to score; there is: {there}. Say with fields what each "
            "field of an item is taken from"
        )
    return {field: _as_list(sources[source]) for field, source in fields.items()}


def _as_list(value: Any) -> Any:
    """Convert an array of a trainer's data set to a list; return other values unchanged."""
    return value.tolist() if hasattr(value, "tolist") else value


def row_values(columns: Mapping[str, Any], rows: int, row: int) -> dict[str, Any]:
    """Return one row of a trainer's columns: those that are lists with a value for each row."""
    return {
        name: values[row]
        for name, values in columns.items()
        if isinstance(values, list) and len(values) == rows
    }


def label_fields(label: Any) -> dict[str, Any]:
    """Return the fields of a label that is an object, or the JSON of one; else none."""
    if isinstance(label, str) and label.lstrip().startswith("{"):
        try:
            label = json.loads(label)
        except ValueError:
            return {}
    return dict(label) if isinstance(label, Mapping) else {}


def prompt_and_response(prompt: Any, completion: Any) -> dict[str, Any]:
    """Return prompt and response, from texts or from conversations.

    Args:
        prompt: a text, or messages.
        completion: a text, or the messages that followed; the last is the response, and earlier
            ones (calls of tools, their answers) join the prompt.

    Raises:
        ValueError: it has no response, or one that is not text.
    """
    if isinstance(completion, str):
        return {"prompt": to_messages(prompt), "response": completion}
    messages = to_messages(completion)
    if not isinstance(messages, list) or not messages or messages[-1]["role"] != "assistant":
        raise ValueError(
            "a completion must be a text, or messages of which the assistant's is last"
        )
    earlier, response = messages[:-1], messages[-1]["content"]
    before = to_messages(prompt)
    if earlier and isinstance(before, str):
        before = [{"role": "user", "content": before}]
    return {"prompt": [*before, *earlier] if earlier else before, "response": response}


def to_messages(value: Any) -> Any:
    """Return messages with a role and a text; return a text, or None, unchanged.

    Raises:
        ValueError: a message holds something else than text.
    """
    if value is None or isinstance(value, str):
        return value
    return [
        {"role": str(_get(message, "role")), "content": content_text(_get(message, "content"))}
        for message in value
    ]


def content_text(content: Any) -> str:
    """Return the text of a message's content, which may be in parts.

    Raises:
        ValueError: a part is not text: a reward model that reads text would ignore it.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    texts = [_get(part, "text") for part in content]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a message holds a part that is not text, which cannot be scored")
    return "".join(map(str, texts))


def _get(value: Any, name: str) -> Any:
    """Return a field of a message, which may be a mapping or an object."""
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def group_name(prompt: Any) -> str:
    """Return a name for the items of one prompt: a digest, the same in every process."""
    text = json.dumps(prompt, sort_keys=True, ensure_ascii=True, default=str)
    return blake2b(text.encode(), digest_size=8).hexdigest()


def drop_incomplete_groups(
    scores: Sequence[float | None], groups: Iterable[str]
) -> list[float | None]:
    """Return the scores, with None for each member of a group in which one is missing."""
    names = list(groups)
    incomplete = {name for name, score in zip_strict(names, scores) if score is None}
    return [None if name in incomplete else score for name, score in zip_strict(names, scores)]


def strip_end_tokens(text: str, ends: Sequence[str]) -> str:
    """Return the text without end tokens, for trainers that decode them too."""
    stripped = text.rstrip()
    while any(stripped.endswith(end) for end in ends):
        stripped = next(stripped[: -len(end)] for end in ends if stripped.endswith(end)).rstrip()
    return stripped if stripped != text.rstrip() else text


# The tokens that end a message in the templates of common policies.
END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "</s>", "<end_of_turn>")
