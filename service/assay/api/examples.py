"""A real request for each kind of body, by the name of its class: /docs fills it in and sends it.

All name embedded models, which a server without settings serves.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Example(NamedTuple):
    """One request: its body, and the embedded model that scores it."""

    body: Mapping[str, Any]
    model: str = "code"


PROMPT = "Write a function add(a, b) that returns the sum."
RESPONSE = "```python\ndef add(a, b):\n    return a + b\n```"
USER = {"role": "user", "content": PROMPT}
ASSISTANT = {"role": "assistant", "content": RESPONSE}
CHAT = f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n{RESPONSE}<|im_end|>\n"
ITEM = {"prompt": PROMPT, "response": RESPONSE}
QUERY = "How many cars does the ferry carry?"
DOCUMENTS = ["The ferry carries forty cars.", "The harbour closes at noon."]
SEARCHES = ["a man plays a guitar", "someone"]
GOLD = [{"prompt": "p1", "proxy": 1.5, "gold": 1.0}, {"prompt": "p1", "proxy": 0.5, "gold": 0.0}]

EXAMPLES: Mapping[str, Example] = {
    "ScoreBody": Example({"model": "code", "items": [ITEM]}),
    "ModelScoreBody": Example({"items": [ITEM]}),
    "BestOfNBody": Example(
        {"model": "code", "prompt": PROMPT, "candidates": [RESPONSE, "```python\npass\n```"]}
    ),
    "LoadBody": Example({"model": "code@2"}),
    "Telemetry": Example({"step": 0, "values": {"kl": 0.01}}),
    "Gold": Example({"step": 0, "source": "held-out tests", "items": GOLD}),
    "OpenRlhfBody": Example({"query": [PROMPT + RESPONSE], "prompts": [PROMPT], "labels": [""]}),
    "SlimeBody": Example({"prompt": [USER], "response": RESPONSE}),
    "VllmClassifyBody": Example({"model": "code", "messages": [USER, ASSISTANT]}),
    "VllmPoolingBody": Example({"model": "code", "messages": [USER, ASSISTANT]}),
    "SglangClassifyBody": Example({"model": "video-qpp", "text": SEARCHES}, "video-qpp"),
    "EmbeddingsBody": Example({"model": "video-qpp", "input": SEARCHES}, "video-qpp"),
    "RerankBody": Example(
        {"model": "nli-small", "query": QUERY, "documents": DOCUMENTS}, "nli-small"
    ),
    "TeiRerankBody": Example(
        {"model": "nli-small", "query": QUERY, "texts": DOCUMENTS}, "nli-small"
    ),
    "TeiPredictBody": Example(
        {"model": "nli-small", "inputs": [[DOCUMENTS[0], QUERY]]}, "nli-small"
    ),
    "LlamaFactoryBody": Example({"model": "model", "messages": [CHAT]}),
    "VerifyBody": Example(
        {"responses_create_params": {"input": [USER]}, "response": {"output": [ASSISTANT]}}
    ),
    "SeedBody": Example({}),
    "AggregateBody": Example({"verify_responses": [{"reward": 1.0}]}),
    "InferBody": Example(
        {
            "inputs": [
                {"name": name, "shape": [1], "datatype": "BYTES", "data": [text]}
                for name, text in ITEM.items()
            ]
        }
    ),
    "RewardKitBody": Example({"messages": [USER, ASSISTANT]}),
    "RollTask": Example({"prompt": PROMPT, "response": RESPONSE, "rollout_id": "r1"}),
}
