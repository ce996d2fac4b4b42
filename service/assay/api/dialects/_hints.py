"""By which fields a body is known, and the route that takes it: for hints, and for nothing else."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Check = Callable[[Any], bool]


class Shape(NamedTuple):
    """The body of one protocol: the fields that give it away, and the routes that take it."""

    speaker: str
    routes: tuple[str, ...]
    fields: Mapping[str, Check]

    def fits(self, body: Mapping[str, Any]) -> bool:
        """Whether the body has these fields, each of its kind."""
        return all(name in body and check(body[name]) for name, check in self.fields.items())


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _anything(_: object) -> bool:
    return True


def _text(value: object) -> bool:
    return isinstance(value, str)


def _list(value: object) -> bool:
    return isinstance(value, list)


_RERANK = ("/v1/rerank", "/v2/rerank", "/rerank")
_POOLING = ("/pooling", "/compat/vllm/{model}/pooling")
_VLLM = ("/classify", "/compat/vllm/{model}/classify")
_SGLANG = ("/classify", "/compat/sglang/{model}/classify")
_EMBEDDINGS = ("/v1/embeddings", "/compat/sglang/{model}/v1/embeddings")
_SCORE = ("/v1/score", "/v1/models/{model}/score", "/score")

# The first that fits is named, so what asks for more comes before what asks for less.
SHAPES = (
    Shape(
        "KServe",
        ("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"),
        {"inputs": _objects},
    ),
    Shape(
        "NeMo-Gym",
        ("/compat/nemo-gym/{model}/verify", "/verify"),
        {"responses_create_params": _anything, "response": _anything},
    ),
    Shape(
        "LLaMA-Factory",
        ("/compat/llamafactory/{model}", "/v1/score/evaluation"),
        {"model": _text, "messages": _texts},
    ),
    Shape("TEI", ("/rerank", "/compat/tei/{model}/rerank"), {"query": _text, "texts": _list}),
    Shape("TEI", ("/predict", "/compat/tei/{model}/predict"), {"inputs": _anything}),
    Shape("Cohere", _RERANK, {"query": _text, "documents": _list}),
    Shape("vLLM", _POOLING, {"input": _anything, "task": _anything}),
    Shape("vLLM", _POOLING, {"messages": _list, "task": _anything}),
    Shape("vLLM", _VLLM, {"input": _anything, "use_activation": _anything}),
    Shape("vLLM or SGLang", (*_VLLM, *_EMBEDDINGS), {"input": _anything}),
    Shape("SGLang", _SGLANG, {"text": _anything}),
    Shape(
        "OpenRLHF",
        ("/compat/openrlhf/{model}", "/compat/openrlhf/{model}/get_reward", "/get_reward"),
        {"query": _list},
    ),
    Shape("vLLM", _VLLM, {"model": _anything, "messages": _list}),
    Shape("reward-kit", ("/compat/reward-kit/{model}/reward",), {"messages": _objects}),
    Shape("ROLL", ("/compat/roll/{model}/submit",), {"prompt": _text, "rollout_id": _anything}),
    Shape("Assay", _SCORE, {"items": _list}),
    Shape("Assay", ("/v1/best-of-n",), {"candidates": _list}),
    Shape(
        "slime",
        ("/compat/slime/{model}", "/compat/slime/{model}/channels"),
        {"prompt": _anything, "response": _text},
    ),
)

SPEAKERS = frozenset(shape.speaker for shape in SHAPES)

NATIVE = {
    "text_1": "for pairs send items [{text, text_pair}] to POST /v1/score",
    "queries": "send one item a query and document, [{text, text_pair}], to POST /v1/score",
    "label_token_ids": "reward models have no label tokens: send items to POST /v1/score",
    "prompt": "put prompt and response into items [{prompt, response}] of POST /v1/score",
    "query": "put the query into items [{query}] of POST /v1/score",
    "messages": "put the conversation into items [{messages}] of POST /v1/score",
    "input": "put the text into items [{text}] of POST /v1/score",
}

# What would have to change a number, and cannot.
REFUSED = {
    "max_tokens_per_doc": "no document is cut to a number of tokens: leave it out and send what "
    "shall be compared, or cut to the model's own limit with truncate_prompt_tokens: -1",
    "max_chunks_per_doc": "no document is taken apart: leave it out",
    "max_tokens_per_query": "no query is cut: leave it out",
    "rank_fields": "documents are ranked by their `text`: leave it out",
    "relevant_spans": "a document has one score and no spans: leave it out",
    "instruction": "the model's own template has no place for it: leave it out",
    "dimensions": "a reward is one number: leave it out",
}


def route_of(body: object, here: str) -> str | None:
    """Whose body this is and where it belongs; None if nobody's, or if it is `here` already."""
    if not isinstance(body, Mapping):
        return None
    shape = next((shape for shape in SHAPES if shape.fits(body)), None)
    if shape is None or here in shape.routes:
        return None
    return f"this is how {shape.speaker} asks: POST it to {' or '.join(shape.routes)}"


def native_hint(fields: Sequence[str], here: str) -> str | None:
    """How the native routes take what stands in the first of these fields; None elsewhere."""
    if not here.endswith(("/score", "/best-of-n")):
        return None
    return next((NATIVE[field] for field in fields if field in NATIVE), None)


def refusal_hint(fields: Sequence[str]) -> str | None:
    """What to do instead of the first of these fields; None where it is nobody's."""
    return next((REFUSED[field] for field in fields if field in REFUSED), None)
