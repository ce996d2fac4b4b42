"""Clients as their makers publish them, each with how it is asked and how it tells of a failure.

They are imported when they are used, because some take seconds.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from support.dialect_clients import sigmoid

QUERY = "Say it."
Ask = Callable[[str, str, Sequence[str]], list[float]]


def in_order(results: Sequence[Any]) -> list[float]:
    """The scores of a ranking, in the order of the request."""
    plain = [one if isinstance(one, dict) else vars(one) for one in results]
    return [one["relevance_score"] for one in sorted(plain, key=lambda one: int(one["index"]))]


def cohere_v2(url: str, model: str, texts: Sequence[str]) -> list[float]:
    with import_module("cohere").ClientV2(api_key="any", base_url=url) as client:
        reply = client.rerank(model=model, query=QUERY, documents=list(texts))
    return in_order(reply.results)


def cohere_v1(url: str, model: str, texts: Sequence[str]) -> list[float]:
    wanted = {"query": QUERY, "documents": list(texts), "return_documents": True}
    with import_module("cohere").Client(api_key="any", base_url=url) as client:
        reply = client.rerank(model=model, **wanted)
    told = [result.document.text for result in reply.results]
    assert told == [texts[result.index] for result in reply.results]
    return in_order(reply.results)


def litellm(provider: str, path: str = "") -> Ask:
    """Through LiteLLM, with nothing but `api_base` to say where the provider is."""

    def ask(url: str, model: str, texts: Sequence[str]) -> list[float]:
        reply = import_module("litellm").rerank(
            model=f"{provider}/{model}",
            query=QUERY,
            documents=list(texts),
            api_base=url + path.format(model=model),
            api_key="any",
        )
        told = [result["document"]["text"] for result in reply.results]
        assert told == [texts[result["index"]] for result in reply.results]
        return in_order(reply.results)

    return ask


def openai_embeddings(url: str, model: str, texts: Sequence[str]) -> list[float]:
    client = import_module("openai").OpenAI(api_key="any", base_url=f"{url}/v1")
    with client:
        reply = client.embeddings.create(model=model, input=list(texts), encoding_format="float")
    return [one.embedding[-1] for one in reply.data]


def openai_classify(url: str, model: str, texts: Sequence[str]) -> list[float]:
    """vLLM's path with its own fields, as its users ask with OpenAI's client."""
    body = {"model": model, "input": list(texts), "use_activation": False}
    with import_module("openai").OpenAI(api_key="any", base_url=url) as client:
        reply = client.post("/classify", body=body, cast_to=object)
    return [one["probs"][-1] for one in reply["data"]]


def triton(url: str, model: str, texts: Sequence[str]) -> list[float]:
    http, numpy = import_module("tritonclient.http"), import_module("numpy")
    column = http.InferInput("text", [len(texts)], "BYTES")
    texts_of_it = numpy.array([text.encode() for text in texts], dtype=object)
    column.set_data_from_numpy(texts_of_it, binary_data=False)
    with http.InferenceServerClient(url.removeprefix("http://")) as client:
        reply = client.infer(model, [column])
    return [float(score) for (score,) in reply.as_numpy("rewards")]


def hugging_face(url: str, model: str, texts: Sequence[str]) -> list[float]:
    client = import_module("huggingface_hub").InferenceClient(f"{url}/compat/tei/{model}/predict")
    (text,) = texts
    return [client.text_classification(text, function_to_apply="none").score]


def body_of(error: Any) -> dict[str, Any]:
    """The problem detail, where the client keeps the reply's body."""
    body = error.body
    assert isinstance(body, dict)
    return body


def quoted(error: Exception) -> dict[str, Any]:
    """The problem detail, where the client puts the reply into its message."""
    text = str(error)
    found: dict[str, Any]
    found, _ = json.JSONDecoder().raw_decode(text[text.index("{") :])
    return found


@dataclass(frozen=True)
class Sdk:
    """One client.

    `ask` has a model score texts at a server, `number` is what it makes of a raw. `error` is what
    it raises, `status` and `problem` read the reply from that. `tries` says how often it asks in
    all where the queue is full, the model is loading or the server at fault; `sleeps` is the module
    whose clock it waits by. `lists` is whether it asks for more than one text, and `empty` what it
    gets for none (None: it is refused).
    """

    name: str
    ask: Ask
    error: str
    status: Callable[[Any], int] = lambda error: int(error.status_code)
    problem: Callable[[Any], dict[str, Any]] = body_of
    number: Callable[[float], float] = float
    tries: int = 1
    sleeps: str | None = None
    lists: bool = True
    empty: list[float] | None = None

    @property
    def raised(self) -> type[Exception]:
        """The class of its errors."""
        module, _, name = self.error.rpartition(".")
        found = getattr(import_module(module), name)
        assert issubclass(found, Exception)
        return found


def _litellm(provider: str, path: str = "") -> Sdk:
    return Sdk(
        name=f"litellm as {provider}",
        ask=litellm(provider, path),
        error="openai.OpenAIError",
        problem=quoted,
        number=sigmoid,
    )


SDKS = [
    Sdk(
        name="cohere.ClientV2",
        ask=cohere_v2,
        error="cohere.core.api_error.ApiError",
        number=sigmoid,
        tries=3,
        sleeps="cohere.core.http_client",
    ),
    Sdk(
        name="cohere.Client",
        ask=cohere_v1,
        error="cohere.core.api_error.ApiError",
        number=sigmoid,
        tries=3,
        sleeps="cohere.core.http_client",
    ),
    _litellm("cohere"),
    _litellm("jina_ai"),
    _litellm("hosted_vllm"),
    _litellm("huggingface", "/compat/tei/{model}"),
    Sdk(
        name="openai.embeddings",
        ask=openai_embeddings,
        error="openai.APIStatusError",
        tries=3,
        sleeps="openai._base_client",
    ),
    Sdk(
        name="openai.post",
        ask=openai_classify,
        error="openai.APIStatusError",
        tries=3,
        sleeps="openai._base_client",
    ),
    Sdk(
        name="tritonclient",
        ask=triton,
        error="tritonclient.utils.InferenceServerException",
        status=lambda error: int(error.status()),
        problem=lambda error: {"detail": error.message()},
        empty=[],
    ),
    Sdk(
        name="huggingface_hub",
        ask=hugging_face,
        error="huggingface_hub.errors.HfHubHTTPError",
        status=lambda error: int(error.response.status_code),
        problem=lambda error: error.response.json(),
        lists=False,
    ),
]
