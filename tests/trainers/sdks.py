"""Published clients of other projects: how each requests scores, and how it reports failures.

They are imported when they are used, because some take seconds.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from support.dialect_messages import sigmoid

QUERY = "Say it."
Score = Callable[[str, str, Sequence[str]], list[float]]


def scores_by_index(results: Sequence[Any]) -> list[float]:
    """Return the scores of a ranking, in the order of the request."""
    rows = [result if isinstance(result, dict) else vars(result) for result in results]
    return [row["relevance_score"] for row in sorted(rows, key=lambda row: int(row["index"]))]


def cohere_v2(url: str, model: str, texts: Sequence[str]) -> list[float]:
    with import_module("cohere").ClientV2(api_key="any", base_url=url) as client:
        reply = client.rerank(model=model, query=QUERY, documents=list(texts))
    return scores_by_index(reply.results)


def cohere_v1(url: str, model: str, texts: Sequence[str]) -> list[float]:
    request = {"query": QUERY, "documents": list(texts), "return_documents": True}
    with import_module("cohere").Client(api_key="any", base_url=url) as client:
        reply = client.rerank(model=model, **request)
    returned = [result.document.text for result in reply.results]
    assert returned == [texts[result.index] for result in reply.results]
    return scores_by_index(reply.results)


def litellm(provider: str, path: str = "") -> Score:
    """Return a function that scores through LiteLLM, with only `api_base` as the address."""

    def score(url: str, model: str, texts: Sequence[str]) -> list[float]:
        reply = import_module("litellm").rerank(
            model=f"{provider}/{model}",
            query=QUERY,
            documents=list(texts),
            api_base=url + path.format(model=model),
            api_key="any",
        )
        returned = [result["document"]["text"] for result in reply.results]
        assert returned == [texts[result["index"]] for result in reply.results]
        return scores_by_index(reply.results)

    return score


def openai_embeddings(url: str, model: str, texts: Sequence[str]) -> list[float]:
    client = import_module("openai").OpenAI(api_key="any", base_url=f"{url}/v1")
    with client:
        reply = client.embeddings.create(model=model, input=list(texts), encoding_format="float")
    return [row.embedding[-1] for row in reply.data]


def openai_classify(url: str, model: str, texts: Sequence[str]) -> list[float]:
    """Score through OpenAI's client with vLLM's path and fields, as vLLM's users do."""
    body = {"model": model, "input": list(texts), "use_activation": False}
    with import_module("openai").OpenAI(api_key="any", base_url=url) as client:
        reply = client.post("/classify", body=body, cast_to=object)
    return [row["probs"][-1] for row in reply["data"]]


def triton(url: str, model: str, texts: Sequence[str]) -> list[float]:
    http, numpy = import_module("tritonclient.http"), import_module("numpy")
    column = http.InferInput("text", [len(texts)], "BYTES")
    encoded = numpy.array([text.encode() for text in texts], dtype=object)
    column.set_data_from_numpy(encoded, binary_data=False)
    with http.InferenceServerClient(url.removeprefix("http://")) as client:
        reply = client.infer(model, [column])
    return [float(score) for (score,) in reply.as_numpy("rewards")]


def hugging_face(url: str, model: str, texts: Sequence[str]) -> list[float]:
    client = import_module("huggingface_hub").InferenceClient(f"{url}/compat/tei/{model}/predict")
    (text,) = texts
    return [client.text_classification(text, function_to_apply="none").score]


def problem_in_body(error: Any) -> dict[str, Any]:
    """Return the problem details of a client that keeps the reply's body."""
    body = error.body
    assert isinstance(body, dict)
    return body


def problem_in_error(error: Any) -> dict[str, Any]:
    """Return the problem of OpenAI's client, which keeps the body's `error` alone."""
    return {"detail": error.body["message"], "code": error.code}


def problem_in_message(error: Exception) -> dict[str, Any]:
    """Return the problem details of a client that puts the reply into its message."""
    text = str(error)
    problem: dict[str, Any]
    problem, _ = json.JSONDecoder().raw_decode(text[text.index("{") :])
    return problem


@dataclass(frozen=True)
class Sdk:
    """A published client.

    Attributes:
        score: scores texts with a server's model.
        error: the path of the base class of its errors.
        read_status: reads the HTTP status from such an error.
        read_problem: reads the problem details from such an error.
        transform: the score that the client's protocol makes of a raw.
        attempts: requests in all if the queue is full, the model is loading or the server fails.
        clock_module: the module whose clock it waits by; None if it does not wait.
        takes_lists: whether it sends more than one text.
        empty_result: its result for no texts; None if that is refused.
    """

    name: str
    score: Score
    error: str
    read_status: Callable[[Any], int] = lambda error: int(error.status_code)
    read_problem: Callable[[Any], dict[str, Any]] = problem_in_body
    transform: Callable[[float], float] = float
    attempts: int = 1
    clock_module: str | None = None
    takes_lists: bool = True
    empty_result: list[float] | None = None

    @property
    def error_class(self) -> type[Exception]:
        """The base class of its errors."""
        module, _, name = self.error.rpartition(".")
        kind: type[Exception] = getattr(import_module(module), name)
        assert issubclass(kind, Exception)
        return kind


def _litellm(provider: str, path: str = "") -> Sdk:
    return Sdk(
        name=f"litellm as {provider}",
        score=litellm(provider, path),
        error="openai.OpenAIError",
        read_problem=problem_in_message,
        transform=sigmoid,
    )


SDKS = [
    Sdk(
        name="cohere.ClientV2",
        score=cohere_v2,
        error="cohere.core.api_error.ApiError",
        transform=sigmoid,
        attempts=3,
        clock_module="cohere.core.http_client",
    ),
    Sdk(
        name="cohere.Client",
        score=cohere_v1,
        error="cohere.core.api_error.ApiError",
        transform=sigmoid,
        attempts=3,
        clock_module="cohere.core.http_client",
    ),
    _litellm("cohere"),
    _litellm("jina_ai"),
    _litellm("hosted_vllm"),
    _litellm("huggingface", "/compat/tei/{model}"),
    Sdk(
        name="openai.embeddings",
        score=openai_embeddings,
        error="openai.APIStatusError",
        read_problem=problem_in_error,
        attempts=3,
        clock_module="openai._base_client",
    ),
    Sdk(
        name="openai.post",
        score=openai_classify,
        error="openai.APIStatusError",
        read_problem=problem_in_error,
        attempts=3,
        clock_module="openai._base_client",
    ),
    Sdk(
        name="tritonclient",
        score=triton,
        error="tritonclient.utils.InferenceServerException",
        read_status=lambda error: int(error.status()),
        read_problem=lambda error: {"detail": error.message()},
        empty_result=[],
    ),
    Sdk(
        name="huggingface_hub",
        score=hugging_face,
        error="huggingface_hub.errors.HfHubHTTPError",
        read_status=lambda error: int(error.response.status_code),
        read_problem=lambda error: error.response.json(),
        takes_lists=False,
    ),
]
