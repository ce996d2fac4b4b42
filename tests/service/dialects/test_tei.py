"""text-embeddings-inference: docs/openapi.json at 0d124dc."""

from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
from support.dialect_messages import sigmoid
from support.doubles import ScriptedModel

from assay_models.base import Options, Prepared, Raw, Score


async def predict(client: httpx2.AsyncClient, **body: Any) -> Any:
    answer = await client.post("/predict", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ("one", [3.0]),
        (["one"], [3.0]),
        (["first", "four"], [4.0]),
        ([["one"], ["first", "four"]], [[3.0], [4.0]]),
        ([["one"]], [[3.0]]),
    ],
)
async def test_texts_pairs_and_lists_are_scored(
    scripted: httpx2.AsyncClient, inputs: object, expected: list[Any]
) -> None:
    reply = await predict(scripted, inputs=inputs, raw_scores=True)
    entries = reply if isinstance(reply[0], list) else [reply]
    scores = [[label["score"] for label in entry] for entry in entries]
    assert scores == (expected if isinstance(reply[0], list) else [expected])


async def test_scores_are_logistic_unless_raw_scores_are_requested(
    scripted: httpx2.AsyncClient,
) -> None:
    assert await predict(scripted, inputs="ab") == [{"score": sigmoid(2), "label": "reward"}]


@pytest.fixture
def with_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scripted model that returns probabilities, as an entailment model does."""

    def finish(
        _: ScriptedModel, prepared: Prepared, raws: Sequence[Raw], options: Options
    ) -> list[Score]:
        ((raw,),) = raws
        shares = {"entailment": 0.2, "neutral": 0.5, "contradiction": 0.3}
        return [Score(raw / 2, raw, channels=shares, details={"probabilities": shares})]

    monkeypatch.setattr(ScriptedModel, "finish", finish)


@pytest.mark.usefixtures("with_probabilities")
async def test_labels_are_sorted_by_probability(scripted: httpx2.AsyncClient) -> None:
    reply = await predict(scripted, inputs=["a premise", "a claim"])
    assert reply == [
        {"score": 0.5, "label": "neutral"},
        {"score": 0.3, "label": "contradiction"},
        {"score": 0.2, "label": "entailment"},
    ]


@pytest.mark.usefixtures("with_probabilities")
async def test_relevance_is_the_probability_of_the_first_channel(
    scripted: httpx2.AsyncClient,
) -> None:
    answer = await scripted.post("/rerank", json={"query": "q", "texts": ["four"]})
    assert answer.json() == [{"index": 0, "score": 0.2}]


async def test_the_bodys_fields_decide_the_dialect_of_rerank(scripted: httpx2.AsyncClient) -> None:
    tei = await scripted.post("/rerank", json={"query": "q", "texts": ["a"]})
    assert tei.json() == [{"index": 0, "score": sigmoid(1)}]
    vllm = await scripted.post("/rerank", json={"query": "q", "documents": ["a"]})
    result = {"index": 0, "relevance_score": sigmoid(1), "document": {"text": "a"}}
    assert vllm.json()["results"] == [result]
    neither = await scripted.post("/rerank", json={"query": "q"})
    assert neither.status_code == 422


async def test_the_path_may_name_the_model(scripted: httpx2.AsyncClient) -> None:
    for route, body in (("predict", {"inputs": "a"}), ("rerank", {"query": "q", "texts": ["a"]})):
        answer = await scripted.post(f"/compat/tei/scripted@1/{route}", json=body)
        assert (answer.status_code, answer.json()[0]["score"]) == (200, sigmoid(1))


@pytest.mark.parametrize("inputs", [[], [[]], ["a", "b", "c"], [["a"], "b"], [1, 2]])
async def test_malformed_inputs_are_rejected(scripted: httpx2.AsyncClient, inputs: object) -> None:
    answer = await scripted.post("/predict", json={"inputs": inputs})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_parameters_of_hugging_faces_client_are_accepted(
    scripted: httpx2.AsyncClient,
) -> None:
    assert await predict(scripted, inputs="ab", parameters={}) == [
        {"score": sigmoid(2), "label": "reward"}
    ]
    raw = {"function_to_apply": "none", "top_k": 2}
    assert await predict(scripted, inputs="ab", parameters=raw) == [
        {"score": 2.0, "label": "reward"}
    ]
    for wrong in ({"function_to_apply": "softmax"}, {"top_k": 0}, {"candidate_labels": ["a"]}):
        answer = await scripted.post("/predict", json={"inputs": "ab", "parameters": wrong})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


@pytest.mark.usefixtures("with_probabilities")
async def test_top_k_limits_the_labels(scripted: httpx2.AsyncClient) -> None:
    reply = await predict(scripted, inputs=["a premise", "a claim"], parameters={"top_k": 2})
    assert [entry["label"] for entry in reply] == ["neutral", "contradiction"]
