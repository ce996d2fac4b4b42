"""OpenRLHF's remote reward: lists of decoded texts in, lists of rewards out.

The query holds prompt and response in one text with the policy's own template; the response is told
apart by the prompt that comes with it, or else by the template. Which of the two it was is said.
"""

from typing import Any, NamedTuple

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, JsonValue, model_validator

from assay.api.dialects._chat_templates import Messages, turns_of, without_beginning, without_end
from assay.api.dialects._items import Fields, answer, single
from assay.api.dialects._service import TRUNCATION, numbers, options_of, resolve_model, score
from assay.api.errors import PROBLEMS
from assay.api.hot_routes import JsonRoute
from assay.api.json import json_response
from assay.api.schemas import Priority, Timeout
from assay.served_model import ServedModel

# The client waits 180 s.
PATIENCE = 150.0
# So much of a prompt's end must be found in the query, where the prompt's beginning was cut off.
ANCHOR = 64
# The answer may repeat that end, or the prompt itself; beyond a few places it is not looked for.
TRIES = 8

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["trainers"])


class OpenRlhfBody(BaseModel):
    """`query`: prompt and response in one text; `prompts` and `labels` came with later versions.

    A label that is an object gives the item its `evidence`, `tests` or `language`, as far as the
    model's family knows them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    query: list[str]
    prompts: list[str] | None = None
    labels: list[JsonValue] | None = None

    @model_validator(mode="after")
    def _equally_long(self) -> "OpenRlhfBody":
        for name, given in (("prompts", self.prompts), ("labels", self.labels)):
            if given is not None and len(given) != len(self.query):
                raise ValueError(f"{name} has {len(given)} entries, query has {len(self.query)}")
        return self


class OpenRlhfReply(BaseModel):
    """`rewards` and `scores` are the same numbers, in the order of `query`. In `extra_logs`,
    `assay_fallback` is 1 where the prompt was not found as it was sent, `assay_truncated` where
    the item was cut.
    """

    rewards: list[float]
    scores: list[float]
    extra_logs: dict[str, list[float]]


class Split(NamedTuple):
    """A query taken apart; `exact` where the prompt was found as it was sent."""

    prompt: str | Messages
    response: str
    exact: bool


@router.post("/compat/openrlhf/{model}", response_model=OpenRlhfReply, openapi_extra=TRUNCATION)
@router.post(
    "/compat/openrlhf/{model}/get_reward", response_model=OpenRlhfReply, openapi_extra=TRUNCATION
)
async def openrlhf(
    request: Request,
    model: str,
    body: OpenRlhfBody,
    timeout: Timeout = None,
    priority: Priority = "training",
) -> Response:
    """OpenRLHF: rewards for queries. Any item without a score fails the request."""
    return await _rewards(request, resolve_model(request, model), body, timeout, priority)


@router.post("/get_reward", response_model=OpenRlhfReply, openapi_extra=TRUNCATION)
async def get_reward(
    request: Request,
    body: OpenRlhfBody,
    model: str | None = None,
    timeout: Timeout = None,
    priority: Priority = "training",
) -> Response:
    """OpenRLHF, where one model is served or `?model=` names it."""
    return await _rewards(request, resolve_model(request, model), body, timeout, priority)


async def _rewards(
    request: Request,
    served: ServedModel,
    body: OpenRlhfBody,
    timeout: int | None,
    priority: Priority,
) -> Response:
    nothing: list[Any] = [None] * len(body.query)
    rows = zip(body.query, body.prompts or nothing, body.labels or nothing, strict=True)
    items, fallbacks = [], []
    for query, prompt, label in rows:
        split = split_query(query, prompt)
        items.append(_item(served, query, split, label))
        fallbacks.append(0.0 if split is not None and split.exact else 1.0)
    reply = await score(
        request, served, items, timeout, priority, patience=PATIENCE, options=options_of(request)
    )
    rewards = numbers(reply)
    cut = [float("truncated" in result.flags) for result in reply.results]
    logs = {"assay_fallback": fallbacks, "assay_truncated": cut}
    return json_response({"rewards": rewards, "scores": rewards, "extra_logs": logs})


def split_query(query: str, prompt: str | None) -> Split | None:
    """Prompt and response of a query; None where nothing tells them apart.

    The prompt as it was sent comes first; then its end, because over-long prompts lose their
    beginning; then the turns of a known chat template.
    """
    found = None if prompt is None else _after(query, prompt)
    if found is not None and prompt is not None:
        response, exact = found
        return Split(*_read(prompt, without_end(response)), exact)
    turns = turns_of(query)
    if turns is None or len(turns) < 2 or turns[-1]["role"] != "assistant":
        return None
    return Split(turns[:-1], without_end(turns[-1]["content"]), False)


def _after(query: str, prompt: str) -> tuple[str, bool] | None:
    told, bare = without_beginning(query), without_beginning(prompt)
    if told.startswith(bare):
        return told[len(bare) :], True
    anchor, end = bare[-ANCHOR:], len(bare)
    for _ in range(TRIES if len(anchor) == ANCHOR else 0):
        end = told.rfind(anchor, 0, end) + ANCHOR
        if end < ANCHOR:
            return None
        if bare.endswith(told[:end]):
            return told[end:], False
        end -= 1
    return None


def _read(prompt: str, response: str) -> tuple[str | Messages, str]:
    """The prompt's turns, where a template made it. What the template put into the answer's mouth
    belongs to the answer.
    """
    turns = turns_of(prompt)
    if turns is None:
        return prompt, response
    if turns[-1]["role"] == "assistant":
        response = turns.pop()["content"] + response
    return turns or prompt, response


def _item(served: ServedModel, query: str, split: Split | None, label: object) -> Fields:
    if split is None:
        return single(served, query)
    return answer(served, split.prompt, split.response, label)
