"""Mutated requests of every scoring route: no server error, no lost item, every problem named."""

import json
import math
from collections import Counter
from typing import Any

import pytest
from support.fuzzing import FuzzedRequest, Reply, call, fuzzed_requests
from support.servers import loaded
from support.tiers import only_nightly

from assay.settings import Settings

NATIVE = ("/v1/score", "/score", "/v1/models/scripted/score", "/v1/best-of-n")
# By field of a foreign body: the lists of a reply that have an entry for each of its items.
LISTS = {
    "/get_reward": ("query", "rewards"),
    "/compat/openrlhf/scripted": ("query", "rewards"),
    "/compat/openrlhf/scripted/get_reward": ("query", "rewards"),
    "/v1/score/evaluation": ("messages", "scores"),
    "/compat/llamafactory/scripted": ("messages", "scores"),
    "/pooling": ("input", "data"),
    "/v1/embeddings": ("input", "data"),
}


def check(request: FuzzedRequest, reply: Reply) -> str:
    """Check one reply, and return its kind."""
    assert reply.status < 500, "no server error"
    value = json.loads(reply.content, parse_constant=lambda name: pytest.fail(name))
    if reply.status >= 400:
        _check_problem(value, reply)
        return f"{reply.status} {value['code']}"
    if request.path in NATIVE:
        field = "candidates" if request.path.endswith("best-of-n") else "items"
        _check_results(request.body, field, value["results"])
    elif request.path in LISTS and isinstance(request.body, dict):
        field, entries = LISTS[request.path]
        if isinstance(sent := request.body.get(field), list):
            assert len(value[entries]) == len(sent), "no item is lost"
    return str(reply.status)


def _check_problem(problem: dict[str, Any], reply: Reply) -> None:
    assert reply.headers[b"content-type"] == b"application/problem+json"
    assert problem["status"] == reply.status
    assert problem["detail"]
    assert problem["hint"]
    if reply.status == 422:
        named = [error["field"] for error in problem["errors"] or ()]
        assert all(named)
        assert named or ": " in problem["detail"] or " cannot score " in problem["detail"]


def _check_results(body: Any, field: str, results: list[dict[str, Any]]) -> None:
    if isinstance(body, dict):
        assert len(results) == len(body[field]), "no item is lost"
    assert [result["index"] for result in results] == list(range(len(results)))
    for result in results:
        if result["status"] == "ok":
            assert math.isfinite(result["score"])
        else:
            assert result["error"]["code"] in ("invalid_json", "invalid_item")
            assert result["error"]["detail"]


async def fuzz(settings: Settings, seed: int, count: int) -> Counter[str]:
    """Return the number of replies of each kind."""
    kinds: Counter[str] = Counter()
    async with loaded(settings) as app:
        for number, request in enumerate(fuzzed_requests(seed, count)):
            reply = await call(app, request)
            try:
                kinds[check(request, reply)] += 1
            except (AssertionError, KeyError, TypeError, ValueError) as error:
                error.add_note(f"request {number} of seed {seed}: {request}\n{reply}")
                raise
    return kinds


async def test_mutated_requests_are_answered_or_refused_by_name(
    scripted_settings: Settings,
) -> None:
    kinds = await fuzz(scripted_settings, seed=1, count=3_000)
    assert kinds["200"] > 300, "requests reach the model"
    assert kinds["422 invalid_request"] > 300


@only_nightly
@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_many_mutated_requests_are_answered_or_refused_by_name(
    scripted_settings: Settings,
) -> None:
    kinds = await fuzz(scripted_settings, seed=2, count=100_000)
    assert kinds.total() == 100_000
