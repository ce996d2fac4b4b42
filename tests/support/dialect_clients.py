"""The clients whose wire formats are spoken, each with what it sends and how it reads a reply."""

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2

Turn = tuple[str, str]


def sigmoid(raw: float) -> float:
    return 1 / (1 + math.exp(-raw))


def documents(turns: Sequence[Turn]) -> dict[str, Any]:
    """The answers as documents to rerank."""
    return {
        "model": "{model}",
        "query": "Say it.",
        "documents": [response for _, response in turns],
    }


def by_index(results: Sequence[dict[str, Any]], key: str) -> list[float]:
    """The scores of a ranking, in the order of the request."""
    return [one[key] for one in sorted(results, key=lambda one: int(one["index"]))]


def column(name: str, texts: Sequence[str]) -> dict[str, Any]:
    """A tensor of texts."""
    return {"name": name, "shape": [len(texts)], "datatype": "BYTES", "data": list(texts)}


def chatml(prompt: str, response: str) -> str:
    """A conversation as a policy's template makes it."""
    asked = f"<|im_start|>user\n{prompt}<|im_end|>\n"
    return f"{asked}<|im_start|>assistant\n{response}<|im_end|>\n"


def logs(*fallback: float) -> dict[str, list[float]]:
    """OpenRLHF's extra logs of items that were not cut."""
    return {"assay_fallback": list(fallback), "assay_truncated": [0.0 for _ in fallback]}


def refused(answer: httpx2.Response) -> str:
    """Why the request failed, of a client whose replies have no place for it."""
    problem = answer.json()
    assert answer.status_code in (422, 500), answer.text
    assert (problem["code"], problem["retryable"]) == ("items_failed", False)
    assert [one["field"] for one in problem["errors"]] == ["items.0"], "only what failed"
    return str(problem["errors"][0]["problem"])


def turned_away(answer: httpx2.Response) -> tuple[int, str]:
    """Status and code of a request that may be sent again; when, is in its header."""
    problem = answer.json()
    assert "retry-after" in answer.headers
    assert int(answer.headers["retry-after"]) >= 1
    return answer.status_code, problem["code"]


def tagged(answer: httpx2.Response) -> str:
    """Why a rollout has no reward, in a reply that says so."""
    reply = answer.json()
    assert (answer.status_code, reply["reward"], reply["mask_sample"]) == (200, None, True)
    assert reply["_ng_failure_class"] == "judge_failed"
    return str(reply["_ng_failure_judge_error"])


def rollout(prompt: str, response: str) -> dict[str, Any]:
    """What NeMo-Gym's agent has of a rollout with one answer."""
    said = {"type": "output_text", "text": response, "annotations": []}
    message = {"type": "message", "role": "assistant", "content": [said]}
    return {"responses_create_params": {"input": prompt}, "response": {"output": [message]}}


async def at_once(_: httpx2.AsyncClient, answer: httpx2.Response) -> httpx2.Response:
    """The reply is the result."""
    return answer


async def roll_result(client: httpx2.AsyncClient, ticket: httpx2.Response) -> httpx2.Response:
    """What ROLL gets for its ticket, if it got one."""
    if ticket.status_code != 200:
        return ticket
    question = {"reward_request_id": ticket.json()["reward_request_id"]}
    route = str(ticket.url).replace("/submit", "/result")
    return await client.request("GET", route, json=question)


def unscored(answer: httpx2.Response) -> str:
    """ROLL's word for a score that there is not."""
    reply = answer.json()
    assert (answer.status_code, reply["errcode"]) == (200, 2), answer.text
    assert "reward_score" not in reply
    return str(reply["errmsg"])


def turned_away_by_roll(answer: httpx2.Response) -> tuple[int, str]:
    """Roll's result has the code alone."""
    return 503, unscored(answer).partition(":")[0]


@dataclass(frozen=True)
class Speaker:
    """One client.

    `body` makes its request from prompts and responses, `scores` reads its reply. `sent` is a
    request of its own, byte by byte, and `got` what a model that counts letters answers. `number`
    is what it makes of a raw; `patience` the seconds after which it gets a 503; `lists` whether it
    sends more than one item, and `empty` the reply to none, or its scores (None: refused);
    `cuts` whether its URL may ask for truncation.
    `failed` reads why an item has no score, `refusal` why all of a request has none; `fetch`
    gets the result, where the reply is not it.
    `understood_by` names those on whose routes `sent` means the same.
    """

    name: str
    route: str
    body: Callable[[Sequence[Turn]], dict[str, Any]]
    scores: Callable[[Any], list[float]]
    sent: bytes
    got: Callable[[Any], bool]
    number: Callable[[float], float] = float
    patience: float | None = None
    lists: bool = True
    empty: Any = None
    cuts: bool = False
    failed: Callable[[httpx2.Response], str] = refused
    fetch: Callable[[httpx2.AsyncClient, httpx2.Response], Awaitable[httpx2.Response]] = at_once
    refusal: Callable[[httpx2.Response], tuple[int, str]] = turned_away
    understood_by: frozenset[str] = frozenset()

    @property
    def path(self) -> str:
        """The route without its query."""
        return self.route.partition("?")[0]


SPEAKERS = [
    Speaker(
        name="OpenRLHF",
        cuts=True,
        route="/compat/openrlhf/{model}",
        body=lambda turns: {
            "query": [prompt + response for prompt, response in turns],
            "prompts": [prompt for prompt, _ in turns],
            "labels": [None for _ in turns],
        },
        scores=lambda reply: reply["rewards"],
        sent=b'{"query": ["<|im_start|>user\\n2 + 2?<|im_end|>\\n'
        b'<|im_start|>assistant\\n4<|im_end|>"], '
        b'"prompts": ["<|im_start|>user\\n2 + 2?<|im_end|>\\n<|im_start|>assistant\\n"], '
        b'"labels": ["4"]}',
        got=lambda reply: (
            reply
            == {
                "rewards": [1.0],
                "scores": [1.0],
                "extra_logs": logs(0.0),
            }
        ),
        patience=150.0,
        empty={
            "rewards": [],
            "scores": [],
            "extra_logs": logs(),
        },
    ),
    Speaker(
        name="slime",
        cuts=True,
        route="/compat/slime/{model}",
        body=lambda turns: {"prompt": turns[0][0], "response": turns[0][1], "label": None},
        scores=lambda reply: [reply],
        sent=b'{"prompt": [{"role": "user", "content": "2 + 2?"}], "response": "4", "label": "4"}',
        got=lambda reply: reply == 1.0,
        patience=100.0,
        lists=False,
    ),
    Speaker(
        name="vLLM classify",
        route="/classify",
        body=lambda turns: {
            "model": "{model}",
            "input": [response for _, response in turns],
            "use_activation": True,
        },
        scores=lambda reply: [one["probs"][-1] for one in reply["data"]],
        sent=b'{"model": "{model}", "input": "<|im_start|>user\\nhi<|im_end|>\\n", '
        b'"use_activation": false}',
        got=lambda reply: reply["data"][-1]["probs"][-1] == 30.0,
        number=sigmoid,
        understood_by=frozenset(("vLLM pooling", "verl on vLLM")),
    ),
    Speaker(
        name="vLLM pooling",
        route="/pooling",
        body=lambda turns: {
            "model": "{model}",
            "input": [response for _, response in turns],
            "task": "classify",
        },
        scores=lambda reply: [one["data"][0] for one in reply["data"]],
        sent=b'{"model":"{model}","messages":[{"role":"user","content":"2?"},'
        b'{"role":"assistant","content":"four"}],"task":"classify"}',
        got=lambda reply: reply["data"][0]["data"] == [4.0],
    ),
    Speaker(
        name="Jina",
        route="/v1/rerank",
        body=documents,
        scores=lambda reply: by_index(reply["results"], "relevance_score"),
        sent=b'{"model":"{model}","query":"What?","documents":["it",{"text":"that"}],'
        b'"return_documents":true}',
        got=lambda reply: [one["document"]["text"] for one in reply["results"]] == ["that", "it"],
        number=sigmoid,
        understood_by=frozenset(("Cohere", "TEI rerank")),
    ),
    Speaker(
        name="Cohere",
        route="/v2/rerank",
        body=documents,
        scores=lambda reply: by_index(reply["results"], "relevance_score"),
        sent=b'{"model": "{model}", "query": "What?", "documents": ["that", "it"], "top_n": 1}',
        got=lambda reply: reply["results"] == [{"index": 0, "relevance_score": sigmoid(4)}],
        number=sigmoid,
        understood_by=frozenset(("Jina", "TEI rerank")),
    ),
    Speaker(
        name="TEI predict",
        route="/predict?model={model}",
        body=lambda turns: {"inputs": [[response] for _, response in turns]},
        scores=lambda reply: [one[0]["score"] for one in reply],
        sent=b'{"inputs":"What?","raw_scores":true,"truncate":true,"truncation_direction":"Left"}',
        got=lambda reply: reply == [{"score": 5.0, "label": "reward"}],
        number=sigmoid,
    ),
    Speaker(
        name="TEI rerank",
        route="/rerank?model={model}",
        body=lambda turns: {"query": "Say it.", "texts": [response for _, response in turns]},
        scores=lambda reply: by_index(reply, "score"),
        sent=b'{"query":"What?","texts":["it","that"],"raw_scores":true,"return_text":true}',
        got=lambda reply: (
            reply
            == [
                {"index": 1, "score": 4.0, "text": "that"},
                {"index": 0, "score": 2.0, "text": "it"},
            ]
        ),
        number=sigmoid,
    ),
    Speaker(
        name="SGLang classify",
        route="/classify",
        body=lambda turns: {"model": "{model}", "text": [response for _, response in turns]},
        scores=lambda reply: [one["embedding"][0] for one in reply],
        sent=b'{"model": "{model}", "text": ["one", "three"]}',
        got=lambda reply: [one["embedding"] for one in reply] == [[3.0], [5.0]],
    ),
    Speaker(
        name="SGLang embeddings",
        route="/v1/embeddings",
        body=lambda turns: {"model": "{model}", "input": [response for _, response in turns]},
        scores=lambda reply: [one["embedding"][-1] for one in reply["data"]],
        sent=b'{"model": "{model}", "input": "<|im_start|>user\\nhi<|im_end|>\\n"}',
        got=lambda reply: reply["data"][-1]["embedding"][-1] == 30.0,
        understood_by=frozenset(
            ("vLLM classify", "vLLM pooling", "SGLang classify", "verl on vLLM", "verl on SGLang")
        ),
    ),
    Speaker(
        name="LLaMA-Factory",
        cuts=True,
        route="/compat/llamafactory/{model}",
        body=lambda turns: {"model": "model", "messages": [chatml(*turn) for turn in turns]},
        scores=lambda reply: reply["scores"],
        sent=b'{"model": "model", "messages": ["<|endoftext|><|im_start|>user\\n2 + 2?<|im_end|>\\n'
        b'<|im_start|>assistant\\n4<|im_end|>\\n"]}',
        got=lambda reply: reply["scores"] == [1.0],
        patience=600.0,
        empty=[],
    ),
    Speaker(
        name="NeMo-Gym",
        cuts=True,
        route="/compat/nemo-gym/{model}/verify",
        body=lambda turns: rollout(*turns[0]),
        scores=lambda reply: [reply["reward"]],
        sent=b'{"responses_create_params":{"input":[{"role":"user","content":"2 + 2?"}]},'
        b'"response":{"id":"resp_1","object":"response","output":[{"id":"msg_1","type":"message",'
        b'"role":"assistant","status":"completed","content":[{"type":"output_text","text":"4",'
        b'"annotations":[]}]}]},"expected_answer":"4"}',
        got=lambda reply: (reply["reward"], reply["expected_answer"]) == (1.0, "4"),
        patience=300.0,
        lists=False,
        failed=tagged,
    ),
    Speaker(
        name="KServe",
        route="/v2/models/{model}/infer",
        body=lambda turns: {"inputs": [column("sentences", [said for _, said in turns])]},
        scores=lambda reply: reply["outputs"][0]["data"],
        sent=b'{"id":"7","inputs":[{"name":"prompt","shape":[2,1],"datatype":"BYTES","data":[["a"],'
        b'["b"]]},{"name":"response","shape":[2,1],"datatype":"BYTES","data":[["one"],["three"]]}],'
        b'"outputs":[{"name":"rewards"}],"parameters":{"timeout":30000000}}',
        got=lambda reply: (
            reply
            == {
                "model_name": "scripted",
                "model_version": "1",
                "id": "7",
                "outputs": [
                    {"name": "rewards", "shape": [2, 1], "datatype": "FP64", "data": [3.0, 5.0]}
                ],
            }
        ),
        empty=[],
    ),
    Speaker(
        name="reward-kit",
        cuts=True,
        route="/compat/reward-kit/{model}/reward",
        body=lambda turns: {
            "messages": [
                {"role": "user", "content": turns[0][0]},
                {"role": "assistant", "content": turns[0][1]},
            ]
        },
        scores=lambda reply: [reply["score"]],
        sent=b'{"messages": [{"role": "user", "content": "2 + 2?"}, '
        b'{"role": "assistant", "content": "4"}], '
        b'"original_messages": [{"role": "user", "content": "2 + 2?"}], "ground_truth": "4"}',
        got=lambda reply: (reply["score"], reply["metrics"]["reward"]["score"]) == (1.0, 1.0),
        lists=False,
    ),
    Speaker(
        name="ROLL",
        cuts=True,
        route="/compat/roll/{model}/submit",
        body=lambda turns: {"prompt": turns[0][0], "response": turns[0][1], "rollout_id": "r"},
        scores=lambda reply: [reply["reward_score"]],
        sent=b'{"priority": 1, "project_id": "p", "experiment_id": "e", "global_step": 0, '
        b'"data_id": "d", "rollout_id": "r", "prompt": "2 + 2?", "response": "4", '
        b'"reward_info": {"ground_truth": "4"}, "reward_manager": {"rules": []}, "timeout": 300}',
        got=lambda reply: (reply["errcode"], reply["reward_score"]) == (0, 1.0),
        patience=300.0,
        lists=False,
        failed=lambda answer: unscored(answer).removeprefix("items_failed: item 0 has no score: "),
        refusal=turned_away_by_roll,
        fetch=roll_result,
    ),
    Speaker(
        name="verl on vLLM",
        route="/compat/vllm/{model}/classify",
        body=lambda turns: {
            "model": "/data/checkpoints/rm",
            "input": turns[0][1],
            "use_activation": False,
        },
        scores=lambda reply: [reply["data"][-1]["probs"][-1]],
        sent=b'{"model": "/data/checkpoints/rm", "input": "<|im_start|>user\\nhi<|im_end|>\\n", '
        b'"use_activation": false}',
        got=lambda reply: reply["data"][-1]["probs"][-1] == 30.0,
        patience=300.0,
        lists=False,
        understood_by=frozenset(("vLLM pooling", "vLLM classify", "SGLang classify")),
    ),
    Speaker(
        name="verl on SGLang",
        route="/compat/sglang/{model}/v1/embeddings",
        body=lambda turns: {"model": "/data/checkpoints/rm", "input": turns[0][1]},
        scores=lambda reply: [reply["data"][-1]["embedding"][-1]],
        sent=b'{"model": "/data/checkpoints/rm", "input": "<|im_start|>user\\nhi<|im_end|>\\n"}',
        got=lambda reply: reply["data"][-1]["embedding"][-1] == 30.0,
        patience=300.0,
        lists=False,
        understood_by=frozenset(
            (
                "vLLM classify",
                "vLLM pooling",
                "SGLang classify",
                "SGLang embeddings",
                "verl on vLLM",
            )
        ),
    ),
]
