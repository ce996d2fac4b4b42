"""Clients of every dialect: the requests that each sends and how it reads a reply."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2

from support.dialect_messages import (
    PromptResponse,
    chatml,
    extra_logs,
    items_failed_problem,
    nemo_gym_failure,
    rerank_body,
    retryable_refusal,
    roll_error,
    roll_refusal,
    roll_result,
    rollout,
    same_reply,
    scores_by_index,
    sigmoid,
    text_tensor,
)


@dataclass(frozen=True)
class DialectClient:
    """A client of one dialect.

    Attributes:
        name: The client, for test ids.
        route: Its route, with its query if it has one.
        build_body: Build its request from prompts and responses.
        read_scores: Read the scores from its reply.
        example: A request as the client sends it, byte by byte.
        is_expected_reply: Whether a reply to `example` is the one of a model that scores
            a response by its number of letters.
        transform: The score that the dialect makes of a raw.
        client_timeout: Seconds after which a held request is answered with 503, if it is held.
        takes_lists: Whether it sends more than one item a request.
        empty_reply: The reply to no items, or its scores; None if such a request is refused.
        scores_responses: Whether it sends prompt and response, and returns the score as it is.
        read_item_error: Read why an item has no score.
        fetch_result: Fetch the result, where the reply does not hold it.
        read_refusal: Read status and code of a request that was refused as a whole.
        compatible_with: Clients on whose routes `example` means the same.
    """

    name: str
    route: str
    build_body: Callable[[Sequence[PromptResponse]], dict[str, Any]]
    read_scores: Callable[[Any], list[float]]
    example: bytes
    is_expected_reply: Callable[[Any], bool]
    transform: Callable[[float], float] = float
    client_timeout: float | None = None
    takes_lists: bool = True
    empty_reply: Any = None
    scores_responses: bool = False
    read_item_error: Callable[[httpx2.Response], str] = items_failed_problem
    fetch_result: Callable[[httpx2.AsyncClient, httpx2.Response], Awaitable[httpx2.Response]] = (
        same_reply
    )
    read_refusal: Callable[[httpx2.Response], tuple[int, str]] = retryable_refusal
    compatible_with: frozenset[str] = frozenset()

    @property
    def path(self) -> str:
        """Route without its query."""
        return self.route.partition("?")[0]


DIALECT_CLIENTS = [
    DialectClient(
        name="OpenRLHF",
        scores_responses=True,
        route="/compat/openrlhf/{model}",
        build_body=lambda pairs: {
            "query": [prompt + response for prompt, response in pairs],
            "prompts": [prompt for prompt, _ in pairs],
            "labels": [None for _ in pairs],
        },
        read_scores=lambda reply: reply["rewards"],
        example=b'{"query": ["<|im_start|>user\\n2 + 2?<|im_end|>\\n'
        b'<|im_start|>assistant\\n4<|im_end|>"], '
        b'"prompts": ["<|im_start|>user\\n2 + 2?<|im_end|>\\n<|im_start|>assistant\\n"], '
        b'"labels": ["4"]}',
        is_expected_reply=lambda reply: (
            reply
            == {
                "rewards": [1.0],
                "scores": [1.0],
                "extra_logs": extra_logs(0.0),
            }
        ),
        client_timeout=150.0,
        empty_reply={
            "rewards": [],
            "scores": [],
            "extra_logs": extra_logs(),
        },
    ),
    DialectClient(
        name="slime",
        scores_responses=True,
        route="/compat/slime/{model}",
        build_body=lambda pairs: {"prompt": pairs[0][0], "response": pairs[0][1], "label": None},
        read_scores=lambda reply: [reply],
        example=b'{"prompt": [{"role": "user", "content": "2 + 2?"}], "response": "4", '
        b'"label": "4"}',
        is_expected_reply=lambda reply: reply == 1.0,
        client_timeout=100.0,
        takes_lists=False,
    ),
    DialectClient(
        name="vLLM classify",
        route="/classify",
        build_body=lambda pairs: {
            "model": "{model}",
            "input": [response for _, response in pairs],
            "use_activation": True,
        },
        read_scores=lambda reply: [row["probs"][-1] for row in reply["data"]],
        example=b'{"model": "{model}", "input": "<|im_start|>user\\nhi<|im_end|>\\n", '
        b'"use_activation": false}',
        is_expected_reply=lambda reply: reply["data"][-1]["probs"][-1] == 30.0,
        transform=sigmoid,
        compatible_with=frozenset(("vLLM pooling", "verl on vLLM")),
    ),
    DialectClient(
        name="vLLM pooling",
        route="/pooling",
        build_body=lambda pairs: {
            "model": "{model}",
            "input": [response for _, response in pairs],
            "task": "classify",
        },
        read_scores=lambda reply: [row["data"][0] for row in reply["data"]],
        example=b'{"model":"{model}","messages":[{"role":"user","content":"2?"},'
        b'{"role":"assistant","content":"four"}],"task":"classify"}',
        is_expected_reply=lambda reply: reply["data"][0]["data"] == [4.0],
    ),
    DialectClient(
        name="Jina",
        route="/v1/rerank",
        build_body=rerank_body,
        read_scores=lambda reply: scores_by_index(reply["results"], "relevance_score"),
        example=b'{"model":"{model}","query":"What?","documents":["it",{"text":"that"}],'
        b'"return_documents":true}',
        is_expected_reply=lambda reply: (
            [row["document"]["text"] for row in reply["results"]] == ["that", "it"]
        ),
        transform=sigmoid,
        compatible_with=frozenset(("Cohere", "TEI rerank")),
    ),
    DialectClient(
        name="Cohere",
        route="/v2/rerank",
        build_body=rerank_body,
        read_scores=lambda reply: scores_by_index(reply["results"], "relevance_score"),
        example=b'{"model": "{model}", "query": "What?", "documents": ["that", "it"], "top_n": 1}',
        is_expected_reply=lambda reply: (
            reply["results"] == [{"index": 0, "relevance_score": sigmoid(4)}]
        ),
        transform=sigmoid,
        compatible_with=frozenset(("Jina", "TEI rerank")),
    ),
    DialectClient(
        name="TEI predict",
        route="/predict?model={model}",
        build_body=lambda pairs: {"inputs": [[response] for _, response in pairs]},
        read_scores=lambda reply: [row[0]["score"] for row in reply],
        example=b'{"inputs":"What?","raw_scores":true,"truncate":true,"truncation_direction":"Left"}',
        is_expected_reply=lambda reply: reply == [{"score": 5.0, "label": "reward"}],
        transform=sigmoid,
    ),
    DialectClient(
        name="TEI rerank",
        route="/rerank?model={model}",
        build_body=lambda pairs: {"query": "Say it.", "texts": [response for _, response in pairs]},
        read_scores=lambda reply: scores_by_index(reply, "score"),
        example=b'{"query":"What?","texts":["it","that"],"raw_scores":true,"return_text":true}',
        is_expected_reply=lambda reply: (
            reply
            == [
                {"index": 1, "score": 4.0, "text": "that"},
                {"index": 0, "score": 2.0, "text": "it"},
            ]
        ),
        transform=sigmoid,
    ),
    DialectClient(
        name="SGLang classify",
        route="/classify",
        build_body=lambda pairs: {"model": "{model}", "text": [response for _, response in pairs]},
        read_scores=lambda reply: [row["embedding"][0] for row in reply],
        example=b'{"model": "{model}", "text": ["one", "three"]}',
        is_expected_reply=lambda reply: [row["embedding"] for row in reply] == [[3.0], [5.0]],
    ),
    DialectClient(
        name="SGLang embeddings",
        route="/v1/embeddings",
        build_body=lambda pairs: {"model": "{model}", "input": [response for _, response in pairs]},
        read_scores=lambda reply: [row["embedding"][-1] for row in reply["data"]],
        example=b'{"model": "{model}", "input": "<|im_start|>user\\nhi<|im_end|>\\n"}',
        is_expected_reply=lambda reply: reply["data"][-1]["embedding"][-1] == 30.0,
        compatible_with=frozenset(
            ("vLLM classify", "vLLM pooling", "SGLang classify", "verl on vLLM", "verl on SGLang")
        ),
    ),
    DialectClient(
        name="LLaMA-Factory",
        scores_responses=True,
        route="/compat/llamafactory/{model}",
        build_body=lambda pairs: {"model": "model", "messages": [chatml(*pair) for pair in pairs]},
        read_scores=lambda reply: reply["scores"],
        example=b'{"model": "model", "messages": ["<|endoftext|><|im_start|>user\\n2 + 2?'
        b"<|im_end|>\\n"
        b'<|im_start|>assistant\\n4<|im_end|>\\n"]}',
        is_expected_reply=lambda reply: reply["scores"] == [1.0],
        client_timeout=600.0,
        empty_reply=[],
    ),
    DialectClient(
        name="NeMo-Gym",
        scores_responses=True,
        route="/compat/nemo-gym/{model}/verify",
        build_body=lambda pairs: rollout(*pairs[0]),
        read_scores=lambda reply: [reply["reward"]],
        example=b'{"responses_create_params":{"input":[{"role":"user","content":"2 + 2?"}]},'
        b'"response":{"id":"resp_1","object":"response","output":[{"id":"msg_1","type":"message",'
        b'"role":"assistant","status":"completed","content":[{"type":"output_text","text":"4",'
        b'"annotations":[]}]}]},"expected_answer":"4"}',
        is_expected_reply=lambda reply: (reply["reward"], reply["expected_answer"]) == (1.0, "4"),
        client_timeout=300.0,
        takes_lists=False,
        read_item_error=nemo_gym_failure,
    ),
    DialectClient(
        name="KServe",
        route="/v2/models/{model}/infer",
        build_body=lambda pairs: {
            "inputs": [text_tensor("sentences", [response for _, response in pairs])]
        },
        read_scores=lambda reply: reply["outputs"][0]["data"],
        example=b'{"id":"7","inputs":[{"name":"prompt","shape":[2,1],"datatype":"BYTES","data":[["a"],'
        b'["b"]]},{"name":"response","shape":[2,1],"datatype":"BYTES","data":[["one"],["three"]]}],'
        b'"outputs":[{"name":"rewards"}],"parameters":{"timeout":30000000}}',
        is_expected_reply=lambda reply: (
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
        empty_reply=[],
    ),
    DialectClient(
        name="reward-kit",
        scores_responses=True,
        route="/compat/reward-kit/{model}/reward",
        build_body=lambda pairs: {
            "messages": [
                {"role": "user", "content": pairs[0][0]},
                {"role": "assistant", "content": pairs[0][1]},
            ]
        },
        read_scores=lambda reply: [reply["score"]],
        example=b'{"messages": [{"role": "user", "content": "2 + 2?"}, '
        b'{"role": "assistant", "content": "4"}], '
        b'"original_messages": [{"role": "user", "content": "2 + 2?"}], "ground_truth": "4"}',
        is_expected_reply=lambda reply: (
            (reply["score"], reply["metrics"]["reward"]["score"]) == (1.0, 1.0)
        ),
        takes_lists=False,
    ),
    DialectClient(
        name="ROLL",
        scores_responses=True,
        route="/compat/roll/{model}/submit",
        build_body=lambda pairs: {
            "prompt": pairs[0][0],
            "response": pairs[0][1],
            "rollout_id": "r",
        },
        read_scores=lambda reply: [reply["reward_score"]],
        example=b'{"priority": 1, "project_id": "p", "experiment_id": "e", "global_step": 0, '
        b'"data_id": "d", "rollout_id": "r", "prompt": "2 + 2?", "response": "4", '
        b'"reward_info": {"ground_truth": "4"}, "reward_manager": {"rules": []}, "timeout": 300}',
        is_expected_reply=lambda reply: (reply["errcode"], reply["reward_score"]) == (0, 1.0),
        client_timeout=300.0,
        takes_lists=False,
        read_item_error=lambda answer: roll_error(answer).removeprefix(
            "items_failed: item 0 has no score: "
        ),
        read_refusal=roll_refusal,
        fetch_result=roll_result,
    ),
    DialectClient(
        name="verl on vLLM",
        route="/compat/vllm/{model}/classify",
        build_body=lambda pairs: {
            "model": "/data/checkpoints/rm",
            "input": pairs[0][1],
            "use_activation": False,
        },
        read_scores=lambda reply: [reply["data"][-1]["probs"][-1]],
        example=b'{"model": "/data/checkpoints/rm", "input": "<|im_start|>user\\nhi<|im_end|>\\n", '
        b'"use_activation": false}',
        is_expected_reply=lambda reply: reply["data"][-1]["probs"][-1] == 30.0,
        client_timeout=300.0,
        takes_lists=False,
        compatible_with=frozenset(("vLLM pooling", "vLLM classify", "SGLang classify")),
    ),
    DialectClient(
        name="verl on SGLang",
        route="/compat/sglang/{model}/v1/embeddings",
        build_body=lambda pairs: {"model": "/data/checkpoints/rm", "input": pairs[0][1]},
        read_scores=lambda reply: [reply["data"][-1]["embedding"][-1]],
        example=b'{"model": "/data/checkpoints/rm", "input": "<|im_start|>user\\nhi<|im_end|>\\n"}',
        is_expected_reply=lambda reply: reply["data"][-1]["embedding"][-1] == 30.0,
        client_timeout=300.0,
        takes_lists=False,
        compatible_with=frozenset(
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
