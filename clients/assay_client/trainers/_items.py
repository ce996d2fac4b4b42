"""From what trainers pass to the items of a request."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from assay_client._transport.zip import zipped

Message = Mapping[str, Any]
Sources = Mapping[str, Any]


def build_item(sources: Sources, fields: Mapping[str, str]) -> dict[str, Any]:
    """The item whose fields are taken from these sources.

    Raises:
        ValueError: a source is not there; the message names it, and those that are there.
    """
    missing = [source for source in fields.values() if sources.get(source) is None]
    if missing:
        there = ", ".join(sorted(name for name, value in sources.items() if value is not None))
        raise ValueError(
            f"there is no {missing[0]!r} to score; there is: {there}. Say with fields what each "
            "field of an item is taken from"
        )
    return {field: _listed(sources[source]) for field, source in fields.items()}


def _listed(value: Any) -> Any:
    """An array of a trainer's data set as a list."""
    return value.tolist() if hasattr(value, "tolist") else value


def held_against(label: Any) -> dict[str, Any]:
    """What a label says by name: its fields, where it is an object, or the JSON of one."""
    if isinstance(label, str) and label.lstrip().startswith("{"):
        try:
            label = json.loads(label)
        except ValueError:
            return {}
    return dict(label) if isinstance(label, Mapping) else {}


def turn(prompt: Any, completion: Any) -> dict[str, Any]:
    """Prompt and response, from texts or from conversations.

    Args:
        prompt: a text, or messages.
        completion: a text, or the messages that followed; the last is the response, and what
            came before it (calls of tools, their answers) joins the prompt.

    Raises:
        ValueError: no response is in it, or one that is not text.
    """
    if isinstance(completion, str):
        return {"prompt": messages_of(prompt), "response": completion}
    turns = messages_of(completion)
    if not isinstance(turns, list) or not turns or turns[-1]["role"] != "assistant":
        raise ValueError(
            "a completion must be a text, or messages of which the assistant's is last"
        )
    earlier = turns[:-1]
    before = messages_of(prompt)
    if earlier and isinstance(before, str):
        before = [{"role": "user", "content": before}]
    return {"prompt": [*before, *earlier] if earlier else before, "response": turns[-1]["content"]}


def messages_of(value: Any) -> Any:
    """Messages with a role and a text, or the text that it is already.

    Raises:
        ValueError: a message holds something else than text.
    """
    if value is None or isinstance(value, str):
        return value
    return [
        {"role": str(_get(one, "role")), "content": text_of(_get(one, "content"))} for one in value
    ]


def text_of(content: Any) -> str:
    """The text of a message's content, which may be in parts.

    Raises:
        ValueError: a part is not text: a reward model that reads text would not see it.
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
    """A field of a message, which may be a mapping or an object."""
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def group_name(prompt: Any) -> str:
    """A name for the items of one prompt: a digest, the same in every process."""
    text = json.dumps(prompt, sort_keys=True, ensure_ascii=True, default=str)
    return blake2b(text.encode(), digest_size=8).hexdigest()


def whole_groups(scores: Sequence[float | None], groups: Iterable[str]) -> list[float | None]:
    """The scores, with None for each member of a group in which one is missing."""
    names = list(groups)
    broken = {name for name, score in zipped(names, scores) if score is None}
    return [None if name in broken else score for name, score in zipped(names, scores)]


def without_ends(text: str, ends: Sequence[str]) -> str:
    """The text without the tokens that end a turn, where a trainer decodes them too."""
    cut = text.rstrip()
    while any(cut.endswith(end) for end in ends):
        cut = next(cut[: -len(end)] for end in ends if cut.endswith(end)).rstrip()
    return cut if cut != text.rstrip() else text


# What ends a turn in the templates of common policies.
END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "</s>", "<end_of_turn>")
