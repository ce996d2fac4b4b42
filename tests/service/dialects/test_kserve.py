"""The v2 inference protocol alone: KServe's at aaac4e29, with NeMo-Aligner's names (af2b3bd9)."""

from typing import Any

import httpx2
import pytest
from doubles import Gate, ScriptedModel
from speakers import column


async def test_the_path_names_the_version(scripted: httpx2.AsyncClient) -> None:
    body = {"inputs": [column("text", ["ab"])]}
    right = await scripted.post("/v2/models/scripted/versions/1/infer", json=body)
    assert right.json() == {
        "model_name": "scripted",
        "model_version": "1",
        "outputs": [{"name": "rewards", "shape": [1, 1], "datatype": "FP64", "data": [2.0]}],
    }
    wrong = await scripted.post("/v2/models/scripted/versions/2/infer", json=body)
    assert (wrong.status_code, wrong.json()["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("inputs", "why"),
    [
        ([], "at least 1"),
        ([{**column("text", ["a"]), "shape": [2]}], "does not fit"),
        ([{**column("text", ["a"]), "shape": [1, 1, 1]}], "at most 2"),
        ([{**column("tokens", []), "datatype": "INT64"}], "BYTES"),
        ([{**column("text", []), "data": [[1]]}], "valid string"),
        ([column("text", ["a"]), column("text_pair", ["a", "b"])], "different numbers"),
        ([column("text", ["a"]), column("text", ["b"])], "same name"),
        ([column("unheard", ["a"])], "no tensors unheard"),
        ([column("sentences", ["a"]), column("text", ["a"])], "no tensors sentences, text"),
    ],
)
async def test_tensors_that_are_no_items_are_refused(
    scripted: httpx2.AsyncClient, inputs: list[Any], why: str
) -> None:
    answer = await scripted.post("/v2/models/scripted/infer", json={"inputs": inputs})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert why in str(answer.json())


async def test_the_timeout_is_in_microseconds(
    monkeypatch: pytest.MonkeyPatch, served: Any, scripted_settings: Any
) -> None:
    gate = Gate()
    monkeypatch.setattr(ScriptedModel, "predict", lambda _, inputs: gate(inputs))
    async with served(scripted_settings) as client:
        body = {"inputs": [column("text", ["ab"])], "parameters": {"timeout": 20_000}}
        answer = await client.post("/v2/models/scripted/infer", json=body)
        gate.open.set()
        assert (answer.status_code, answer.json()["code"]) == (503, "out_of_time")
