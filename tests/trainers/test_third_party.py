"""Rerankers of other projects with a real server: by base URL and model alone, and by base URL with
the name that they send of their own accord.
"""

import json
import math
import os
import shutil
import subprocess
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import httpx2
import pytest
from support.paths import ROOT

from .conftest import process

FOLDER = ROOT / ".venv" / "third-party"
HERE = ROOT / "tests" / "trainers" / "third_party"
needs_clients = pytest.mark.skipif(
    not FOLDER.is_dir() or shutil.which("node") is None,
    reason="no clients of other projects: `make .venv/third-party` fetches them (needs npm)",
)
pytestmark = [pytest.mark.slow, pytest.mark.weights]

MODEL = "nli-small"
QUERY = "The ferry carries forty cars across the strait."
DOCUMENTS = ["Cats sleep.", "The ferry carries forty cars.", "The ferry sank.", "It rains."]
TOO_LONG = ["The ferry carries forty cars. " * 5000]

# By client: how many documents it asks for by default.
LIMITS = {
    "haystack cohere": 10,
    "haystack tei": 10,
    "infinity": None,
    "langchain cohere": 3,
    "langchain.js cohere": 3,
    "litellm huggingface": None,
    "llama-index cohere": 2,
    "llama-index jina": 2,
    "llama-index tei": 5,
    "llama-index xinference": 5,
}
# These have no setting for a model.
WITHOUT_MODEL = {"haystack tei", "llama-index tei"}
# By client: a base URL whose path names the model, so that the client's own name is not read.
NAMED_BY_PATH = {
    "haystack cohere": "/compat/cohere/{model}",
    "infinity": "/compat/vllm/{model}",
    "litellm huggingface": "/compat/tei/{model}",
    "llama-index cohere": "/compat/cohere/{model}",
    "llama-index jina": "/compat/jina/{model}",
    "llama-index tei": "/compat/tei/{model}",
    "llama-index xinference": "/compat/jina/{model}",
}
# Clients that show nothing of a refusal: one asserts the number of results, the other parses a
# text as a list.
SILENT = {"llama-index tei", "infinity"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of a server of the smallest embedded model that scores pairs."""
    with process(ASSAY_MODELS=MODEL) as address:
        yield address


def answer_of(name: str, url: str, *model: str, documents: list[str] = DOCUMENTS) -> Any:
    """Return the answer of a client that runs in a process of its own."""
    program = [str(FOLDER / "bin" / "python"), str(HERE / "clients.py")]
    if name not in LIMITS or name.startswith("langchain.js"):  # which finds its packages from `cwd`
        program = ["node", "--input-type=module", "-e", (HERE / "clients.mjs").read_text()]
    quiet = {"HAYSTACK_TELEMETRY_ENABLED": "False", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    inherited = {
        key: text for key, text in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    ended = subprocess.run(
        [*program, name, url, *model],
        input=json.dumps({"query": QUERY, "documents": documents}),
        env={**inherited, **quiet},
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.stdout, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def expected(url: str, limit: int | None) -> list[list[Any]]:
    """Return the ranking that the native scores make: the logistic of each, best first."""
    items = [{"premise": QUERY, "hypothesis": text} for text in DOCUMENTS]
    reply = httpx2.post(f"{url}/v1/score", json={"model": MODEL, "items": items}, timeout=60)
    scores = [result["score"] for result in reply.json()["results"]]
    ranked = sorted(zip(DOCUMENTS, scores, strict=True), key=lambda pair: -pair[1])
    return [[text, pytest.approx(1 / (1 + math.exp(-score)))] for text, score in ranked][:limit]


@needs_clients
@pytest.mark.parametrize("name", LIMITS)
def test_a_reranker_with_base_url_and_model_has_the_native_scores(url: str, name: str) -> None:
    answer = answer_of(name, url, *(() if name in WITHOUT_MODEL else (MODEL,)))
    assert answer == {"ranking": expected(url, LIMITS[name])}


@needs_clients
@pytest.mark.parametrize("name", NAMED_BY_PATH)
def test_a_reranker_with_a_base_url_alone_has_the_native_scores(url: str, name: str) -> None:
    answer = answer_of(name, url + NAMED_BY_PATH[name].format(model=MODEL))
    assert answer == {"ranking": expected(url, LIMITS[name])}


@needs_clients
def test_infinitys_name_for_no_model_is_the_only_model(url: str) -> None:
    assert answer_of("infinity", url) == {"ranking": expected(url, None)}


@needs_clients
@pytest.mark.parametrize("name", sorted(LIMITS.keys() - WITHOUT_MODEL - {"litellm huggingface"}))
def test_a_reranker_shows_that_its_model_is_not_served(url: str, name: str) -> None:
    assert "no model 'other' is served" in answer_of(name, url, "other")["error"]


@needs_clients
@pytest.mark.parametrize("name", sorted(LIMITS.keys() - SILENT))
def test_a_reranker_shows_why_a_document_has_no_score(url: str, name: str) -> None:
    model = () if name in WITHOUT_MODEL else (MODEL,)
    assert "input_too_long" in answer_of(name, url, *model, documents=TOO_LONG)["error"]


@needs_clients
def test_openais_node_client_lists_the_models(url: str) -> None:
    (model,) = answer_of("openai models", url)["models"]
    assert (model["id"], model["object"], model["owned_by"]) == ("nli-small@1", "model", "assay")


@needs_clients
@pytest.mark.parametrize(
    ("name", "model", "status", "code", "param"),
    [
        ("openai embeddings", MODEL, "422 nli-small@1 cannot score", "invalid_request", None),
        ("openai embeddings", "other", "404 no model 'other'", "model_not_found", "model"),
        ("openai chat", MODEL, "404 Not Found", "not_found", None),
    ],
)
def test_openais_node_client_shows_the_problem(
    url: str, name: str, model: str, status: str, code: str, param: str | None
) -> None:
    answer = answer_of(name, url, model)
    assert answer["error"].startswith(f"Error: {status}")
    assert (answer["code"], answer.get("param")) == (code, param)


def test_openais_python_client_lists_models_and_shows_problems(url: str) -> None:
    openai = import_module("openai")
    with openai.OpenAI(api_key="any", base_url=f"{url}/v1", max_retries=0) as client:
        (model,) = client.models.list().data
        assert (model.id, model.object) == ("nli-small@1", "model")
        assert client.models.retrieve("nli-small@1").created == model.created
        with pytest.raises(openai.NotFoundError) as caught:
            client.embeddings.create(model="other", input="a")
    assert "no model 'other' is served" in caught.value.message
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
