"""A request of every scoring route, native and of other servers."""

import json
from typing import Any, NamedTuple

from support.dialect_clients import DIALECT_CLIENTS
from support.dialect_messages import rollout, text_tensor

PAIRS = [("Say it.", "aaa")]


class Scoring(NamedTuple):
    """A scoring route and a body for it."""

    route: str
    body: dict[str, Any]

    @property
    def is_native(self) -> bool:
        """Whether the route is one of Assay's own."""
        return self.route.startswith(NATIVE)


NATIVE = ("/v1/score?", "/v1/models/", "/v1/best-of-n", "/score")
ITEM = {"prompt": "Say it.", "response": "aaa"}
CHAT = [{"role": "user", "content": "2?"}, {"role": "assistant", "content": "four"}]
SCORING = [
    Scoring("/v1/score?", {"model": "scripted", "items": [ITEM]}),
    Scoring("/score?", {"model": "scripted", "items": [ITEM]}),
    Scoring("/v1/models/scripted/score?", {"items": [ITEM]}),
    Scoring("/v1/best-of-n?", {"model": "scripted", "candidates": ["a"]}),
    *(
        Scoring(f"{route}?", json.loads(json.dumps(body).replace("{model}", "scripted")))
        for client in DIALECT_CLIENTS
        for route, body in [(client.path.format(model="scripted"), client.build_body(PAIRS))]
    ),
    Scoring("/verify?", rollout(*PAIRS[0])),
    Scoring("/ng-rollout/0-0/verify?", rollout(*PAIRS[0])),
    Scoring("/compat/nemo-gym/scripted/ng-rollout/0-0/verify?", rollout(*PAIRS[0])),
    Scoring("/v1/score/evaluation?", {"model": "model", "messages": ["a"]}),
    Scoring("/compat/openrlhf/scripted/get_reward?", {"query": ["a"]}),
    Scoring("/get_reward?", {"query": ["a"]}),
    Scoring("/compat/slime/scripted/channels?", {"prompt": "a", "response": "b"}),
    Scoring("/compat/tei/scripted/predict?", {"inputs": "a"}),
    Scoring("/compat/tei/scripted/rerank?", {"query": "a", "texts": ["b"]}),
    Scoring("/compat/sglang/scripted/classify?", {"text": "a"}),
    Scoring("/compat/vllm/scripted/pooling?", {"messages": CHAT}),
    Scoring("/compat/vllm/scripted/v1/embeddings?", {"input": "a"}),
    *(
        Scoring(f"/compat/{path}?", {"query": "a", "documents": ["b"]})
        for path in (
            "cohere/scripted/v1/rerank",
            "cohere/scripted/v2/rerank",
            "jina/scripted/v1/rerank",
            "vllm/scripted/rerank",
            "vllm/scripted/v1/rerank",
        )
    ),
    Scoring("/v2/models/scripted/versions/1/infer?", {"inputs": [text_tensor("sentences", ["a"])]}),
]
FOREIGN = [scoring for scoring in SCORING if not scoring.is_native]
