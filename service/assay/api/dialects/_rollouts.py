"""A NeMo-Gym rollout as an item: OpenAI's Responses API, read as the messages of a chat.

The messages are those that NeMo-Gym's own converter sends to a policy behind a chat API:
nemo_gym/responses_converter.py at 07d6b0d0.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from assay.api.dialects._items import Fields, Messages, response_item
from assay.errors import InvalidRequest, quote
from assay.served_model import ServedModel
from assay_models.items import join_text_parts

Entry = Mapping[str, JsonValue]

# OpenAI's two names of one role; chat templates know only the second.
ROLE_NAMES = {"developer": "system"}
CALL_FIELDS = ("tool_calls", "tool_call_id")
# Fields of the request by which the policy saw texts that the request does not hold.
REFERENCES = ("previous_response_id", "prompt")


def rollout_item(
    served: ServedModel, params: Entry, *, output: Sequence[JsonValue], data: Entry
) -> Fields:
    """Return the item of a rollout: the assistant's last text, and all before it as the prompt.

    Args:
        served: the model.
        params: `responses_create_params`: what the policy was asked.
        output: `response.output`: what it answered, with its calls of tools and their results.
        data: the rollout's other fields; those that are context are added to the item.

    Raises:
        InvalidRequest: the rollout holds no text of the assistant, or the policy saw what cannot
            become a message.
    """
    _check_params(served, params)
    given = params["input"]
    entries: list[JsonValue] = (
        given if isinstance(given, list) else [{"role": "user", "content": given}]
    )
    prompt = _read_messages("responses_create_params.input", entries)
    answers = _read_messages("response.output", output)
    while answers and not _is_answer(answers[-1]):
        answers.pop()
    if not answers:
        raise InvalidRequest("the rollout holds no message of the assistant")
    *earlier, last = answers
    messages = _join_calls([*_with_instructions(params, prompt), *earlier])
    return response_item(served, messages, last["content"], data)


def _check_params(served: ServedModel, params: Entry) -> None:
    """Check that the request holds all that the policy saw.

    Raises:
        InvalidRequest: it refers to texts elsewhere, or lists tools and the model reads chats. Such
            a model would score another conversation than the policy's.
    """
    missing = [name for name in REFERENCES if params.get(name)]
    if params.get("tools") and "messages" in served.family.item.model_fields:
        missing.append("tools")
    if missing:
        raise InvalidRequest(
            f"responses_create_params.{missing[0]}: the policy saw it, and an item cannot hold it"
        )


def _with_instructions(params: Entry, prompt: Messages) -> Messages:
    """Return the prompt with the instructions before it, joined with the system messages there."""
    instructions = params.get("instructions")
    if not instructions:
        return prompt
    if not isinstance(instructions, str):
        raise InvalidRequest("responses_create_params.instructions: only a text can be scored")
    texts = [instructions]
    while prompt and prompt[0]["role"] == "system":
        texts.append(prompt.pop(0)["content"])
    return [{"role": "system", "content": "\n\n".join(texts)}, *prompt]


def _read_messages(place: str, entries: Iterable[JsonValue]) -> Messages:
    """Return the messages of a list of the Responses API.

    Reasoning is left out: the model is asked for the answer, and chat templates drop the thoughts
    of earlier answers.
    """
    messages = []
    for position, entry in enumerate(entries):
        where = f"{place}.{position}"
        if not isinstance(entry, Mapping):
            raise InvalidRequest(f"{where}: an entry is an object")
        if entry.get("type") != "reasoning":
            messages.append(_read_entry(where, entry))
    return messages


def _read_entry(where: str, entry: Entry) -> dict[str, Any]:
    match entry:
        case {"type": "function_call", "name": str(name)}:
            call = {"name": name, "arguments": entry.get("arguments", "")}
            tool_call = {"id": entry.get("call_id"), "type": "function", "function": call}
            return {"role": "assistant", "content": None, "tool_calls": [tool_call]}
        case {"type": "function_call_output"}:
            content = _read_text(where, entry.get("output"))
            return {"role": "tool", "content": content, "tool_call_id": entry.get("call_id")}
        case {"role": str(role)}:
            calls = {name: entry[name] for name in CALL_FIELDS if entry.get(name)}
            is_call = "tool_calls" in calls and entry.get("content") is None
            text = None if is_call else _read_text(where, entry.get("content"))
            return {"role": ROLE_NAMES.get(role, role), "content": text, **calls}
    raise InvalidRequest(
        f"{where}: an entry of type {quote(entry.get('type'))} cannot be a message"
    )


def _read_text(where: str, content: JsonValue) -> str:
    text = join_text_parts(content) if isinstance(content, list) else content
    if not isinstance(text, str):
        raise InvalidRequest(f"{where}: a message holds something else than text")
    return text


def _is_answer(message: Mapping[str, Any]) -> bool:
    return message["role"] == "assistant" and message["content"] is not None


def _join_calls(messages: Messages) -> Messages:
    """Return the messages with those of the assistant that follow one another in one."""
    joined: Messages = []
    for message in messages:
        if joined and joined[-1]["role"] == message["role"] == "assistant":
            message = _join(joined.pop(), message)
        joined.append(message)
    return joined


def _join(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    texts = [message["content"] for message in (first, second) if message["content"] is not None]
    calls = [*(first.get("tool_calls") or ()), *(second.get("tool_calls") or ())]
    content = "".join(texts) if texts else None
    return {"role": "assistant", "content": content} | ({"tool_calls": calls} if calls else {})
