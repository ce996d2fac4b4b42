"""The v2 inference protocol: KServe's at aaac4e29, with NeMo-Aligner's names (af2b3bd9)."""

from typing import Any

import httpx2
import orjson
import pytest
from support.dialect_messages import text_tensor
from support.doubles import Gate, ScriptedModel


async def test_a_version_is_a_number(scripted: httpx2.AsyncClient) -> None:
    body = {"inputs": [text_tensor("text", ["ab"])]}
    padded = await scripted.post("/v2/models/scripted/versions/01/infer", json=body)
    assert (padded.status_code, padded.json()["model_version"]) == (200, "1")
    word = await scripted.post("/v2/models/scripted/versions/abc/infer", json=body)
    assert (word.status_code, word.json()["code"]) == (422, "invalid_request")


async def test_the_path_selects_the_version(scripted: httpx2.AsyncClient) -> None:
    body = {"inputs": [text_tensor("text", ["ab"])]}
    right = await scripted.post("/v2/models/scripted/versions/1/infer", json=body)
    assert right.json() == {
        "model_name": "scripted",
        "model_version": "1",
        "outputs": [{"name": "rewards", "shape": [1, 1], "datatype": "FP64", "data": [2.0]}],
    }
    wrong = await scripted.post("/v2/models/scripted/versions/2/infer", json=body)
    assert (wrong.status_code, wrong.json()["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ([], "at least 1"),
        ([{**text_tensor("text", ["a"]), "shape": [2]}], "texts do not have the shape [2]"),
        ([{**text_tensor("text", ["a"]), "shape": [1, 1, 1]}], "at most 2"),
        ([{**text_tensor("tokens", []), "datatype": "INT64"}], "BYTES"),
        ([{**text_tensor("text", []), "data": [[1]]}], "valid string"),
        ([text_tensor("text", ["a"]), text_tensor("text_pair", ["a", "b"])], "different numbers"),
        ([text_tensor("text", ["a"]), text_tensor("text", ["b"])], "same name"),
        ([text_tensor("unknown", ["a"])], "no tensors unknown"),
        (
            [text_tensor("sentences", ["a"]), text_tensor("text", ["a"])],
            "no tensors sentences, text",
        ),
    ],
)
async def test_malformed_tensors_are_rejected(
    scripted: httpx2.AsyncClient, inputs: list[Any], reason: str
) -> None:
    answer = await scripted.post("/v2/models/scripted/infer", json={"inputs": inputs})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert reason in str(answer.json())


async def test_the_timeout_is_in_microseconds(
    monkeypatch: pytest.MonkeyPatch, served: Any, scripted_settings: Any
) -> None:
    gate = Gate()
    monkeypatch.setattr(ScriptedModel, "predict", lambda _, inputs: gate(inputs))
    async with served(scripted_settings) as client:
        body = {"inputs": [text_tensor("text", ["ab"])], "parameters": {"timeout": 20_000}}
        answer = await client.post("/v2/models/scripted/infer", json=body)
        gate.open.set()
        assert (answer.status_code, answer.json()["code"]) == (503, "out_of_time")


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/json"}])
async def test_a_problem_is_repeated_as_a_text_under_error(
    scripted: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    for route, content, status, reason in (
        ("scripted", b'{"inputs": []}', 422, "inputs: List should have at least 1 item"),
        ("other", orjson.dumps({"inputs": [text_tensor("text", ["a"])]}), 404, "no model 'other'"),
        (
            "scripted",
            orjson.dumps({"inputs": [text_tensor("text", ["refused"])]}),
            422,
            "item 0 has no",
        ),
    ):
        url = f"/v2/models/{route}/infer"
        answer = await scripted.post(url, content=content, headers=headers)
        problem = answer.json()
        assert (answer.status_code, problem["status"]) == (status, status)
        assert problem["error"].startswith(reason)
        assert problem["hint"] in problem["error"]


async def test_json_without_a_content_type_is_accepted_on_this_route_only(
    scripted: httpx2.AsyncClient,
) -> None:
    content = orjson.dumps({"inputs": [text_tensor("text", ["abc"])]})
    answer = await scripted.post("/v2/models/scripted/infer", content=content)
    assert (answer.status_code, answer.json()["outputs"][0]["data"]) == (200, [3.0])
    content = orjson.dumps({"model": "scripted", "items": [{"text": "abc"}]})
    assert (await scripted.post("/v1/score", content=content)).status_code == 422


async def test_a_web_page_has_to_name_the_content_type(scripted: httpx2.AsyncClient) -> None:
    content = orjson.dumps({"inputs": [text_tensor("text", ["abc"])]})
    page = {"origin": "https://example.org", "sec-fetch-site": "same-origin"}
    answer = await scripted.post("/v2/models/scripted/infer", content=content, headers=page)
    assert answer.status_code == 422
    assert "Content-Type: application/json" in answer.json()["hint"]
    typed = page | {"content-type": "application/json"}
    answer = await scripted.post("/v2/models/scripted/infer", content=content, headers=typed)
    assert answer.status_code == 200


async def test_binary_tensors_get_a_hint(
    scripted: httpx2.AsyncClient,
) -> None:
    content = orjson.dumps({"inputs": [text_tensor("text", ["abc"])]})
    length = {"Inference-Header-Content-Length": str(len(content))}
    binary = await scripted.post(
        "/v2/models/scripted/infer", content=content + b"\x03\x00\x00\x00abc", headers=length
    )
    assert (binary.status_code, binary.json()["code"]) == (422, "invalid_request")
    assert "binary_data=False" in binary.json()["error"]


async def test_health_of_a_ready_model(scripted: httpx2.AsyncClient) -> None:
    for route in ("health/live", "health/ready", "models/scripted/ready"):
        assert (await scripted.get(f"/v2/{route}")).status_code == 200
    answer = await scripted.get("/v2/models/scripted/versions/1/ready")
    assert (answer.status_code, answer.json()) == (200, {"name": "scripted", "ready": True})
    answer = await scripted.get("/v2/models/scripted/versions/2/ready")
    assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")


async def test_health_of_a_model_that_is_loading(loading: httpx2.AsyncClient) -> None:
    assert (await loading.get("/v2/health/live")).status_code == 200
    assert (await loading.get("/v2/health/ready")).status_code == 503
    answer = await loading.get("/v2/models/scripted/ready")
    assert (answer.status_code, answer.json()["code"]) == (503, "model_not_ready")
    assert "loading" in answer.json()["error"]
