"""From what clients send to the fields of an item, by what the model's family knows."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

from assay.errors import InvalidRequest
from assay.served_model import ServedModel

Fields = dict[str, Any]
Messages = list[dict[str, str]]

PAIRS = (("text", "text_pair"), ("premise", "hypothesis"), ("prompt", "response"))
SINGLES = ("text", "query")
# What a label may add: what an answer is held against, and never the answer.
CONTEXT = frozenset(("collection", "evidence", "language", "system", "tests"))


class ChatMessage(BaseModel):
    """One turn as chat APIs write it; what is neither role nor text is not scored."""

    model_config = ConfigDict(frozen=True)

    role: str
    content: str | list[JsonValue]


def answer(
    served: ServedModel, prompt: str | Messages, response: str, label: object = None
) -> Fields:
    """A prompt and what the policy wrote for it.

    Args:
        served: the model; one that knows no `prompt` takes it for the `evidence`, or not at all,
            and one that knows no `response` takes that for the field that its candidates vary in.
        prompt: text, or chat messages.
        response: text.
        label: where it is an object, what it says of the item's context (`CONTEXT`) joins it, as
            far as the family knows it.
    """
    known = served.family.item.model_fields
    fields: Fields = {"response" if "response" in known else served.family.candidate: response}
    if "prompt" in known:
        fields["prompt"] = prompt if isinstance(prompt, str) else _shortest(prompt)
    elif "evidence" in known:
        fields["evidence"] = prompt if isinstance(prompt, str) else _asked(prompt)
    if isinstance(label, Mapping):
        joined = known.keys() & CONTEXT
        fields |= {name: value for name, value in label.items() if name in joined}
    return fields


def conversation(served: ServedModel, turns: Messages, label: object = None) -> Fields:
    """A whole conversation, whose last turn is what is scored.

    Raises:
        InvalidRequest: the last turn is not the assistant's, or there is none before it.
    """
    if len(turns) < 2 or turns[-1]["role"] != "assistant":
        raise InvalidRequest(
            "messages: there is no answer to score",
            hint="the last message is the assistant's answer, after at least one other",
        )
    return answer(served, turns[:-1], turns[-1]["content"], label)


def pair(served: ServedModel, first: str, second: str) -> Fields:
    """Two texts that belong together: query and document, premise and hypothesis.

    Raises:
        InvalidRequest: the family takes no pairs.
    """
    for names in PAIRS:
        if served.family.item.model_fields.keys() >= set(names):
            return dict(zip(names, (first, second), strict=True))
    raise _misfit(served, "a pair of texts")


def single(served: ServedModel, text: str) -> Fields:
    """One text, taken as it is.

    Raises:
        InvalidRequest: the family needs more than a text.
    """
    for name in SINGLES:
        if name in served.family.item.model_fields:
            return {name: text}
    raise _misfit(served, "a bare text")


def turns(messages: Sequence[ChatMessage]) -> Messages:
    """Roles and texts.

    Raises:
        InvalidRequest: a message holds something else than text.
    """
    return [{"role": one.role, "content": _text(one.content)} for one in messages]


def _text(content: str | list[JsonValue]) -> str:
    if isinstance(content, str):
        return content
    texts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
    if not all(isinstance(text, str) for text in texts):
        raise InvalidRequest("messages: only text can be scored", hint="send content as a string")
    return "".join(str(text) for text in texts)


def _shortest(messages: Messages) -> str | Messages:
    """One turn of the user's is the same as its text, which every family takes."""
    only = len(messages) == 1 and messages[0]["role"] == "user"
    return messages[0]["content"] if only else messages


def _asked(messages: Messages) -> list[str]:
    return [message["content"] for message in messages if message["role"] == "user"]


def _misfit(served: ServedModel, what: str) -> InvalidRequest:
    known = ", ".join(served.family.item.model_fields)
    return InvalidRequest(
        f"{served.id} cannot score {what}",
        hint=f"its items have the fields {known}: send them to POST /v1/score",
    )
