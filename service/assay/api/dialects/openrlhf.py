"""OpenRLHF's remote reward: lists of decoded texts in, lists of rewards out.

The query holds prompt and response in one text, rendered with the policy's own template. They are
split by the prompt that the request carries, or else by the template; the reply says by which.
"""

from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, model_validator

from assay.api.dialects._chat_templates import (
    Messages,
    parse_messages,
    strip_leading_tokens,
    strip_trailing_tokens,
)
from assay.api.dialects._items import Fields, response_item, text_item
from assay.api.dialects._service import score, scores_of, select_model
from assay.api.errors import PROBLEMS
from assay.api.json import json_response
from assay.api.json_route import JsonRoute
from assay.api.json_values import Json
from assay.api.parameters import ForeignParameters
from assay.api.schemas import Body, ItemList
from assay.served_model import ServedModel

# The client waits 180 s.
CLIENT_TIMEOUT_SECONDS = 150.0
# Characters of the prompt's end that are searched in a query whose prompt was truncated.
ANCHOR_CHARACTERS = 64
# The response may repeat these characters, so a few of their occurrences are tried, from the last.
MAX_ANCHOR_MATCHES = 8

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["trainers"])


class OpenRlhfBody(Body):
    """`query`: prompt and response in one text. `prompts` and `labels` are sent by later versions.

    A label that is an object adds its context (`evidence`, `tests`, `language`, …) to the item, as
    far as the model's family has these fields.
    """

    query: Annotated[list[str], ItemList()]
    prompts: Annotated[list[str] | None, ItemList()] = None
    labels: Annotated[list[Json] | None, ItemList()] = None

    @model_validator(mode="after")
    def _check_lengths(self) -> "OpenRlhfBody":
        for name, values in (("prompts", self.prompts), ("labels", self.labels)):
            if values is not None and len(values) != len(self.query):
                raise ValueError(f"{name} has {len(values)} entries, query has {len(self.query)}")
        return self


class OpenRlhfReply(BaseModel):
    """`rewards` and `scores` are the same numbers, in the order of `query`.

    In `extra_logs`, `assay_fallback` is 1 if the prompt was not found exactly as it was sent, and
    `assay_truncated` is 1 if the item was truncated.
    """

    rewards: list[float]
    scores: list[float]
    extra_logs: dict[str, list[float]]


class SplitQuery(NamedTuple):
    """The prompt and response of a query; `is_exact` if the prompt was found as it was sent."""

    prompt: str | Messages
    response: str
    is_exact: bool


@router.post("/get_reward", response_model=OpenRlhfReply)
@router.post("/compat/openrlhf/{model}", response_model=OpenRlhfReply)
@router.post("/compat/openrlhf/{model}/get_reward", response_model=OpenRlhfReply)
async def openrlhf(request: Request, body: OpenRlhfBody, parameters: ForeignParameters) -> Response:
    """Score queries for OpenRLHF. An item without a score fails the request."""
    served = select_model(request, parameters)
    absent: list[Any] = [None] * len(body.query)
    rows = zip(body.query, body.prompts or absent, body.labels or absent, strict=True)
    items, fallbacks = [], []
    for query, prompt, label in rows:
        split = split_query(query, prompt)
        items.append(_item(served, query, split, label))
        fallbacks.append(0.0 if split is not None and split.is_exact else 1.0)
    reply = await score(
        request,
        served,
        items,
        parameters=parameters,
        client_timeout=CLIENT_TIMEOUT_SECONDS,
    )
    rewards = scores_of(reply)
    truncated = [float("truncated" in result.flags) for result in reply.results]
    logs = {"assay_fallback": fallbacks, "assay_truncated": truncated}
    return json_response({"rewards": rewards, "scores": rewards, "extra_logs": logs})


def split_query(query: str, prompt: str | None) -> SplitQuery | None:
    """Return the prompt and response of a query; None if they cannot be separated.

    Tried in this order: the prompt as it was sent; its end, because over-long prompts lose their
    beginning; the messages of a known chat template.
    """
    rest = None if prompt is None else _text_after(query, prompt)
    if rest is not None and prompt is not None:
        response, is_exact = rest
        return SplitQuery(*_parse_prompt(prompt, strip_trailing_tokens(response)), is_exact)
    messages = parse_messages(query)
    if messages is None or len(messages) < 2 or messages[-1]["role"] != "assistant":
        return None
    return SplitQuery(messages[:-1], strip_trailing_tokens(messages[-1]["content"]), False)


def _text_after(query: str, prompt: str) -> tuple[str, bool] | None:
    """Return the text after the prompt, and whether the whole prompt was found."""
    query, prompt = strip_leading_tokens(query), strip_leading_tokens(prompt)
    if query.startswith(prompt):
        return query[len(prompt) :], True
    anchor, end = prompt[-ANCHOR_CHARACTERS:], len(prompt)
    for _ in range(MAX_ANCHOR_MATCHES if len(anchor) == ANCHOR_CHARACTERS else 0):
        end = query.rfind(anchor, 0, end) + ANCHOR_CHARACTERS
        if end < ANCHOR_CHARACTERS:
            return None
        if prompt.endswith(query[:end]):
            return query[end:], False
        end -= 1
    return None


def _parse_prompt(prompt: str, response: str) -> tuple[str | Messages, str]:
    """Return the prompt's messages if a template rendered it, and the response.

    Text that the template placed at the start of the assistant's message belongs to the response.
    """
    messages = parse_messages(prompt)
    if messages is None:
        return prompt, response
    if messages[-1]["role"] == "assistant":
        response = messages.pop()["content"] + response
    return messages or prompt, response


def _item(served: ServedModel, query: str, split: SplitQuery | None, label: object) -> Fields:
    if split is None:
        return text_item(served, query)
    return response_item(served, split.prompt, split.response, label)
