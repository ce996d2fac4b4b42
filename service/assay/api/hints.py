"""Recognition of bodies that are meant for another route, to improve the hints of a 422."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Check = Callable[[Any], bool]

MAX_CHECKED = 100
MAX_ROUTES = 4
"""The number of routes that a hint names; the first ones are the shortest."""


class BodyShape(NamedTuple):
    """A body of one dialect: the fields that identify it, and the routes that accept it."""

    dialect: str
    routes: tuple[str, ...]
    fields: Mapping[str, Check]

    def matches(self, body: Mapping[str, Any]) -> bool:
        """Return whether the body has these fields, each of the expected type."""
        return all(name in body and check(body[name]) for name, check in self.fields.items())


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value[:MAX_CHECKED])


def _is_objects(value: object) -> bool:
    return bool(value) and isinstance(value, list) and isinstance(value[0], dict)


def _is_any(_: object) -> bool:
    return True


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_list(value: object) -> bool:
    return isinstance(value, list)


_RERANK = (
    "/v1/rerank",
    "/v2/rerank",
    "/rerank",
    "/compat/cohere/{model}/v2/rerank",
    "/compat/cohere/{model}/v1/rerank",
    "/compat/jina/{model}/v1/rerank",
    "/compat/vllm/{model}/rerank",
    "/compat/vllm/{model}/v1/rerank",
)
_POOLING = ("/pooling", "/compat/vllm/{model}/pooling")
_VLLM = ("/classify", "/compat/vllm/{model}/classify")
_SGLANG = ("/classify", "/compat/sglang/{model}/classify")
_EMBEDDINGS = (
    "/v1/embeddings",
    "/compat/sglang/{model}/v1/embeddings",
    "/compat/vllm/{model}/v1/embeddings",
)
_SCORE = ("/v1/score", "/v1/models/{model}/score", "/score")

# The first match is reported, so a shape with more fields comes before one with fewer.
BODY_SHAPES = (
    BodyShape(
        "KServe",
        ("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"),
        {"inputs": _is_objects},
    ),
    BodyShape(
        "NeMo-Gym",
        ("/compat/nemo-gym/{model}/verify", "/verify"),
        {"responses_create_params": _is_any, "response": _is_any},
    ),
    BodyShape(
        "LLaMA-Factory",
        ("/compat/llamafactory/{model}", "/v1/score/evaluation"),
        {"model": _is_text, "messages": _is_texts},
    ),
    BodyShape(
        "TEI", ("/rerank", "/compat/tei/{model}/rerank"), {"query": _is_text, "texts": _is_list}
    ),
    BodyShape("TEI", ("/predict", "/compat/tei/{model}/predict"), {"inputs": _is_any}),
    BodyShape("Cohere", _RERANK, {"query": _is_text, "documents": _is_list}),
    BodyShape("vLLM", _POOLING, {"input": _is_any, "task": _is_any}),
    BodyShape("vLLM", _POOLING, {"messages": _is_list, "task": _is_any}),
    BodyShape("vLLM", _VLLM, {"input": _is_any, "use_activation": _is_any}),
    BodyShape("vLLM or SGLang", (*_VLLM, *_EMBEDDINGS, *_POOLING), {"input": _is_any}),
    BodyShape("SGLang", _SGLANG, {"text": _is_any}),
    BodyShape(
        "OpenRLHF",
        ("/compat/openrlhf/{model}", "/compat/openrlhf/{model}/get_reward", "/get_reward"),
        {"query": _is_list},
    ),
    BodyShape("vLLM", _VLLM, {"model": _is_any, "messages": _is_list}),
    BodyShape("reward-kit", ("/compat/reward-kit/{model}/reward",), {"messages": _is_objects}),
    BodyShape(
        "ROLL", ("/compat/roll/{model}/submit",), {"prompt": _is_text, "rollout_id": _is_any}
    ),
    BodyShape("Assay", _SCORE, {"items": _is_list}),
    BodyShape("Assay", ("/v1/best-of-n",), {"candidates": _is_list}),
    BodyShape(
        "slime",
        ("/compat/slime/{model}", "/compat/slime/{model}/channels"),
        {"prompt": _is_any, "response": _is_text},
    ),
)

# By field: how the native routes accept its content. The first that a body has is the hint: fields
# of other servers come before faults in fields of ours.
NATIVE_HINTS = {
    "text_1": "for pairs send items [{text, text_pair}] to POST /v1/score",
    "queries": "send one item a query and document, [{text, text_pair}], to POST /v1/score",
    "label_token_ids": "reward models have no label tokens: send items to POST /v1/score",
    "prompt": "put prompt and response into items [{prompt, response}] of POST /v1/score",
    "query": "put the query into items [{query}] of POST /v1/score",
    "messages": "put the conversation into items [{messages}] of POST /v1/score",
    "input": "put the text into items [{text}] of POST /v1/score",
    "run": 'run is an object, such as {"id": "my-run", "step": 0}',
    "options": 'options is an object, such as {"truncation": "right"}',
    "items.0": 'an item is an object of fields, such as {"prompt": "…", "response": "…"}',
}

# By field: those of other servers that would change a score and are not supported.
FIELD_HINTS = {
    "max_tokens_per_doc": "no document is cut to a number of tokens: send shorter ones, or cut to "
    "the model's own limit with truncate_prompt_tokens: -1",
    "max_chunks_per_doc": "no document is taken apart: leave it out",
    "max_tokens_per_query": "no query is cut: leave it out",
    "truncate_prompt_tokens": "-1 cuts to the model's own limit; there is no other",
    "rank_fields": "documents are ranked by their `text`: leave it out",
    "relevant_spans": "a document has one score and no spans: leave it out",
    "instruction": "the model's own template has no place for it: leave it out",
    "instruct": "the model's own template has no place for it: leave it out",
    "dimensions": "a reward is one number: leave it out",
    "raw_scores": "relevance is the logistic of the raw: POST /v1/score gives the raw itself",
    "use_activation": "relevance is the logistic of the raw: POST /v1/score gives the raw itself",
    "activation": "it is called use_activation now",
    "softmax": "it is called use_activation now",
    "chat_template": "the model's own template is used: leave it out",
    "chat_template_kwargs": "the model's own template is used as it is: leave it out",
    "mm_processor_kwargs": "only text is scored: leave it out",
    "input_type": "texts are scored as they are: leave it out",
    "truncation": "?truncation=right in the URL cuts what is too long, or left or middle",
    "return_embeddings": "a reward model has no embeddings: leave it out",
}


RUNS = "/v1/runs"


def route_hint(body: object, route: str) -> str | None:
    """Return which dialect the body belongs to, and its routes.

    None if the body matches no dialect, or if `route` already accepts it.
    """
    if not isinstance(body, Mapping):
        return None
    shape = next((shape for shape in BODY_SHAPES if shape.matches(body)), None)
    if shape is None or route in shape.routes or route.startswith(RUNS):
        return None
    routes = " or ".join(shape.routes[:MAX_ROUTES])
    return f"this is how {shape.dialect} asks: POST it to {routes}"


def native_hint(fields: Sequence[str], route: str) -> str | None:
    """Return how a native route accepts one of these fields; None on other routes."""
    if not route.endswith(("/score", "/best-of-n")):
        return None
    return next((hint for field, hint in NATIVE_HINTS.items() if field in fields), None)


def field_hint(fields: Sequence[str]) -> str | None:
    """Return what to do instead of the first unsupported field; None if there is none."""
    return next((FIELD_HINTS[field] for field in fields if field in FIELD_HINTS), None)
