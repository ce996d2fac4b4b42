"""Conversion of a client's texts and messages to the item fields of the model's family."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import ConfigDict, Field, JsonValue

from assay.api.json_values import JsonList, JsonObjects
from assay.errors import InvalidRequest
from assay.served_model import ServedModel
from assay_models.base import NullIsAbsent
from assay_models.items import MAX_MESSAGES, join_text_parts, read_fields

Fields = dict[str, Any]
Messages = list[dict[str, Any]]

PAIR_FIELDS = (("text", "text_pair"), ("premise", "hypothesis"), ("prompt", "response"))
TEXT_FIELDS = ("text", "query")
# Fields that a client's label, an object of ground truth, may add to the item: context of the
# response, and never the response itself.
CONTEXT_FIELDS = frozenset(("collection", "evidence", "language", "system", "tests"))


class ChatMessage(NullIsAbsent):
    """One message as chat APIs write it; other fields than these are ignored.

    `content` is text, or parts of type text. It may be absent beside `tool_calls`.
    """

    model_config = ConfigDict(frozen=True)

    role: str
    content: str | JsonList | None = None
    name: str | None = None
    reasoning_content: str | None = None
    tool_call_id: str | None = None
    tool_calls: JsonObjects | None = None


ChatMessages = Annotated[list[ChatMessage], Field(max_length=MAX_MESSAGES)]


def response_item(
    served: ServedModel, prompt: str | Messages, response: str, label: object = None
) -> Fields:
    """Return the item of a prompt and the policy's response to it.

    Args:
        served: the model. If its items have no field `prompt`, the prompt becomes the `evidence`,
            or is left out. If they have no `response`, the response becomes the family's
            `candidate` field, in which the compared items differ.
        prompt: text, or chat messages.
        response: text.
        label: if it is an object, those of its fields that are context (`CONTEXT_FIELDS`) and that
            the family has are added to the item.
    """
    known = served.family.item.model_fields
    fields: Fields = {"response" if "response" in known else served.family.candidate: response}
    if "prompt" in known:
        fields["prompt"] = prompt if isinstance(prompt, str) else _simplify(prompt)
    elif "evidence" in known:
        fields["evidence"] = prompt if isinstance(prompt, str) else _user_texts(prompt)
    if isinstance(label, Mapping):
        allowed = known.keys() & CONTEXT_FIELDS
        fields |= {name: value for name, value in label.items() if name in allowed}
    return fields


def conversation_item(served: ServedModel, messages: Messages, label: object = None) -> Fields:
    """Return the item of a conversation; its last message is scored.

    Raises:
        InvalidRequest: the last message is not the assistant's, no message precedes it, or it is
            not only text and the model reads no other.
    """
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise InvalidRequest(
            "messages: there is no answer to score",
            hint="the last message is the assistant's answer, after at least one other",
        )
    *prompt, answer = messages
    if _is_text(answer):
        return response_item(served, prompt, answer["content"], label)
    if "messages" in served.family.item.model_fields:
        return {"messages": messages}
    raise InvalidRequest(
        "messages: the answer is not only text",
        hint=f"{served.id} scores the text of an answer; send its content as a string",
    )


def pair_item(served: ServedModel, first: str, second: str) -> Fields:
    """Return the item of a pair of texts: query and document, or premise and hypothesis.

    Raises:
        InvalidRequest: the family has no pair of fields for them.
    """
    for names in PAIR_FIELDS:
        if served.family.item.model_fields.keys() >= set(names):
            return dict(zip(names, (first, second), strict=True))
    raise _unsupported(served, "a pair of texts")


def text_item(served: ServedModel, text: str) -> Fields:
    """Return the item of one text, which is not changed.

    Raises:
        InvalidRequest: the family's items need more than one text.
    """
    for name in TEXT_FIELDS:
        if name in served.family.item.model_fields:
            return {name: text}
    raise _unsupported(served, "a bare text")


def text_messages(messages: Sequence[ChatMessage]) -> Messages:
    """Return each message's fields, with its parts of text joined."""
    return [
        message.model_dump(exclude_none=True) | {"content": _join_text(message.content)}
        for message in messages
    ]


def _join_text(content: str | list[JsonValue] | None) -> str | list[JsonValue] | None:
    """Return the text of parts of text; other content as it is, for its item to be refused."""
    text = join_text_parts(content) if isinstance(content, list) else None
    return content if text is None else text


def _simplify(messages: Messages) -> str | Messages:
    """Return the text of a single user message, which is equivalent and accepted by every family;
    else the messages.
    """
    is_user_only = len(messages) == 1 and messages[0]["role"] == "user"
    return messages[0]["content"] if is_user_only and _is_text(messages[0]) else messages


def _is_text(message: Mapping[str, Any]) -> bool:
    """Return whether a message is its text, besides its role and the name of its author."""
    return isinstance(message["content"], str) and message.keys() <= {"role", "content", "name"}


def _user_texts(messages: Messages) -> list[Any]:
    return [message["content"] for message in messages if message["role"] == "user"]


def _unsupported(served: ServedModel, what: str) -> InvalidRequest:
    known = ", ".join(read_fields(served.family.item))
    return InvalidRequest(
        f"{served.id} cannot score {what}",
        hint=f"its items have the fields {known}: send them to POST /v1/score",
    )
