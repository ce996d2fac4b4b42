"""Requests of the dialects, and readers of their replies."""

import math
from collections.abc import Sequence
from typing import Any

import httpx2

PromptResponse = tuple[str, str]
"""A prompt and the response to it."""


def sigmoid(raw: float) -> float:
    """Return the logistic of a raw."""
    return 1 / (1 + math.exp(-raw))


def rerank_body(pairs: Sequence[PromptResponse]) -> dict[str, Any]:
    """Return a rerank request whose documents are the responses."""
    return {
        "model": "{model}",
        "query": "Say it.",
        "documents": [response for _, response in pairs],
    }


def scores_by_index(results: Sequence[dict[str, Any]], key: str) -> list[float]:
    """Return the scores of a ranking, in the order of the request."""
    return [entry[key] for entry in sorted(results, key=lambda entry: int(entry["index"]))]


def text_tensor(name: str, texts: Sequence[str]) -> dict[str, Any]:
    """Return a tensor of texts, as the v2 inference protocol writes it."""
    return {"name": name, "shape": [len(texts)], "datatype": "BYTES", "data": list(texts)}


def chatml(prompt: str, response: str) -> str:
    """Return a conversation rendered with the ChatML template."""
    question = f"<|im_start|>user\n{prompt}<|im_end|>\n"
    return f"{question}<|im_start|>assistant\n{response}<|im_end|>\n"


def extra_logs(*fallback: float) -> dict[str, list[float]]:
    """Return OpenRLHF's extra logs for items that were not truncated."""
    return {"assay_fallback": list(fallback), "assay_truncated": [0.0 for _ in fallback]}


def items_failed_problem(answer: httpx2.Response) -> str:
    """Return the problem of item 0, from a format without a place for item errors."""
    problem = answer.json()
    assert answer.status_code in (422, 500), answer.text
    assert (problem["code"], problem["retryable"]) == ("items_failed", False)
    assert [error["field"] for error in problem["errors"]] == ["items.0"], "only the failed item"
    return str(problem["errors"][0]["problem"])


def retryable_refusal(answer: httpx2.Response) -> tuple[int, str]:
    """Return status and code of a refusal that carries a `Retry-After` header."""
    problem = answer.json()
    assert "retry-after" in answer.headers
    assert int(answer.headers["retry-after"]) >= 1
    return answer.status_code, problem["code"]


def nemo_gym_failure(answer: httpx2.Response) -> str:
    """Return the reason that NeMo-Gym's reply gives for a rollout without a reward."""
    reply = answer.json()
    assert (answer.status_code, reply["reward"], reply["mask_sample"]) == (200, None, True)
    assert reply["_ng_failure_class"] == "judge_failed"
    return str(reply["_ng_failure_judge_error"])


def rollout(prompt: str, response: str) -> dict[str, Any]:
    """Return a rollout with one answer, as NeMo-Gym's agent sends it."""
    part = {"type": "output_text", "text": response, "annotations": []}
    message = {"type": "message", "role": "assistant", "content": [part]}
    return {"responses_create_params": {"input": prompt}, "response": {"output": [message]}}


async def same_reply(_: httpx2.AsyncClient, answer: httpx2.Response) -> httpx2.Response:
    """Return the reply itself: it holds the result."""
    return answer


async def roll_result(client: httpx2.AsyncClient, submitted: httpx2.Response) -> httpx2.Response:
    """Fetch the result of a ROLL submission, or return the reply if it was refused."""
    if submitted.status_code != 200:
        return submitted
    question = {"reward_request_id": submitted.json()["reward_request_id"]}
    route = str(submitted.url).replace("/submit", "/result")
    return await client.request("GET", route, json=question)


def roll_error(answer: httpx2.Response) -> str:
    """Return the message of a ROLL result that has no score."""
    reply = answer.json()
    assert (answer.status_code, reply["errcode"]) == (200, 2), answer.text
    assert "reward_score" not in reply
    return str(reply["errmsg"])


def roll_refusal(answer: httpx2.Response) -> tuple[int, str]:
    """Return status and code of a refusal; ROLL's result carries the code only."""
    return 503, roll_error(answer).partition(":")[0]
