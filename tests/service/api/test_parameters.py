"""Headers and queries of all scoring routes: model, truncation, run and step."""

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.dialect_messages import roll_result
from support.scoring_routes import FOREIGN, NATIVE, SCORING, Scoring
from support.servers import Served

from assay.runs.steps import RunStep
from assay.scoring.service import ScoreCall
from assay.settings import Settings

HOT, COLD = "application/json", "application/vnd.another+json"


async def post(
    client: httpx2.AsyncClient,
    scoring: Scoring,
    query: str = "",
    *,
    kind: str = HOT,
    **headers: str,
) -> httpx2.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    content = json.dumps(scoring.body).encode()
    answer = await client.post(
        scoring.route + query, content=content, headers={"content-type": kind, **names}
    )
    if answer.status_code == 200 and "reward_request_id" in answer.text:
        await roll_result(client, answer)
    return answer


@pytest.fixture
async def scoring_paths(client: httpx2.AsyncClient) -> list[str]:
    """The paths of all routes that score, by their parameters in OpenAPI."""
    paths = (await client.get("/openapi.json")).json()["paths"]
    return [
        path
        for path, methods in paths.items()
        for operation in methods.values()
        if any(parameter["name"] == "X-Assay-Run" for parameter in operation.get("parameters", ()))
    ]


async def test_every_scoring_route_is_tested(scoring_paths: Sequence[str]) -> None:
    tested = {
        scoring.route.rstrip("?")
        .replace("scripted", "{model}")
        .replace("ns/1/", "ns/{version}/")
        .replace("/0-0/", "/{rollout}/")
        for scoring in SCORING
    }
    assert set(scoring_paths) == tested - {"/score"}, "which is the short form of /v1/score"


@pytest.mark.parametrize("kind", [HOT, COLD])
@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("run=exp-17&step=12&split=eval", {}),
        ("", {"x_assay_run": "exp-17", "x_assay_step": "12", "x_assay_split": "eval"}),
        ("run=exp-17", {"x_assay_step": "12", "x_assay_split": "eval", "x_assay_run": "exp-17"}),
    ],
)
async def test_run_and_step_come_by_header_or_query(
    client: httpx2.AsyncClient,
    calls: list[ScoreCall],
    kind: str,
    query: str,
    headers: dict[str, str],
) -> None:
    for scoring in SCORING:
        answer = await post(client, scoring, query, kind=kind, **headers)
        assert answer.status_code == 200, (scoring.route, answer.text)
        assert calls.pop().run == RunStep("exp-17", 12, "eval"), scoring.route
        assert not calls


@pytest.mark.parametrize("kind", [HOT, COLD])
@pytest.mark.parametrize(
    ("query", "headers", "field"),
    [
        ("run=exp-17&step=x", {}, "step"),
        ("run=exp-17&step=-1", {}, "step"),
        ("step=3", {}, "run"),
        ("run=a", {"x_assay_run": "b"}, "run"),
        ("run=a&step=1", {"x_assay_step": "2"}, "step"),
        ("", {"x_assay_run": "a", "x_assay_step": "1.5"}, "step"),
        ("stpe=3", {}, "stpe"),
        ("run=a&split=shadow/train", {}, "split"),
        ("", {"x_assay_run": "a", "x_assay_split": "shadow/train"}, "split"),
        ("", {"x_assay_timeout_ms": "0"}, "timeout"),
        ("", {"x_assay_priority": "first"}, "priority"),
    ],
)
async def test_a_wrong_parameter_is_refused_by_name(
    client: httpx2.AsyncClient,
    calls: list[ScoreCall],
    kind: str,
    query: str,
    headers: dict[str, str],
    field: str,
) -> None:
    for scoring in SCORING:
        problem = (await post(client, scoring, query, kind=kind, **headers)).json()
        assert (problem["status"], problem["code"]) == (422, "invalid_request"), scoring.route
        assert field in problem["detail"].lower(), (scoring.route, problem)
        assert problem["hint"]
        assert not calls, "nothing was scored"


@pytest.mark.parametrize("query", ["stpe=3", "truncaton=left", "Model=scripted"])
async def test_an_unknown_parameter_of_the_url_is_refused_with_the_known_ones(
    client: httpx2.AsyncClient, query: str
) -> None:
    native, foreign = SCORING[0], FOREIGN[0]
    assert (await post(client, native, query)).json()["hint"] == (
        "parameters of this URL: run, step, split"
    )
    assert (await post(client, foreign, query)).json()["hint"] == (
        "parameters of this URL: run, step, split, model, truncation"
    )


@pytest.mark.parametrize(
    ("body", "query", "expected"),
    [
        ({"id": "a"}, "step=4", RunStep("a", 4, None)),
        ({"id": "a", "step": 4}, "run=a&step=4", RunStep("a", 4, None)),
        ({"id": "a", "step": 4, "split": "eval"}, "", RunStep("a", 4, "eval")),
        (None, "run=a", RunStep("a")),
        ({"id": "a", "step": 4}, "step=5", None),
        ({"id": "a"}, "run=b", None),
    ],
)
async def test_the_run_of_the_body_agrees_with_the_url(
    client: httpx2.AsyncClient,
    calls: list[ScoreCall],
    body: dict[str, Any] | None,
    query: str,
    expected: RunStep | None,
) -> None:
    answer = await client.post(f"/v1/score?{query}", json={**SCORING[0].body, "run": body})
    if expected is None:
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert answer.json()["detail"].startswith("run: ")
    else:
        assert answer.status_code == 200, answer.text
        assert [call.run for call in calls] == [expected]


async def test_items_of_a_run_in_a_header_reach_its_record(
    served: Served, scripted_settings: Settings, tmp_path: Path
) -> None:
    settings = scripted_settings.model_copy(update={"runs": tmp_path / "runs.db"})
    async with served(settings) as client:
        for scoring in SCORING:
            answer = await post(client, scoring, x_assay_run="by-header", x_assay_step="3")
            assert answer.is_success, scoring.route
    async with served(settings) as client:  # the first server wrote what it had when it closed
        (stream,) = (await client.get("/v1/runs/by-header/series")).json()["streams"]
    (step,) = stream["steps"]
    assert (step["step"], step["items"]) == (3, len(SCORING))


@pytest.mark.parametrize("kind", [HOT, COLD])
@pytest.mark.parametrize("side", ["error", "left", "right", "middle"])
async def test_the_url_sets_truncation(
    client: httpx2.AsyncClient, calls: list[ScoreCall], kind: str, side: str
) -> None:
    for scoring in FOREIGN:
        answer = await post(client, scoring, f"truncation={side}", kind=kind)
        assert answer.status_code == 200, (scoring.route, answer.text)
        assert calls.pop().options.truncation == side, scoring.route


TRUNCATING = [
    Scoring("/rerank?", {"query": "a", "documents": ["b"], "truncate_prompt_tokens": -1}),
    Scoring("/rerank?", {"query": "a", "texts": ["b"], "truncate": True}),
    Scoring("/rerank?", {"query": "a", "texts": ["b"], "is_truncated": True}),
    Scoring("/predict?", {"inputs": "a", "truncate": True}),
    Scoring("/classify?", {"input": "a", "truncate_prompt_tokens": -1}),
    Scoring("/pooling?", {"input": "a", "truncate_prompt_tokens": -1}),
]


@pytest.mark.parametrize("scoring", TRUNCATING, ids=str)
@pytest.mark.parametrize(
    ("side", "query", "expected"),
    [
        (None, "", None),
        ("left", "", "left"),
        ("left", "truncation=left", "left"),
        (None, "truncation=middle", "middle"),
        ("left", "truncation=right", "conflict"),
        (None, "truncation=error", "conflict"),
    ],
)
async def test_truncation_of_the_body_agrees_with_the_url(
    client: httpx2.AsyncClient,
    calls: list[ScoreCall],
    scoring: Scoring,
    side: str | None,
    query: str,
    expected: str | None,
) -> None:
    is_vllm = "truncate_prompt_tokens" in scoring.body
    name = "truncation_side" if is_vllm else "truncation_direction"
    body = {**scoring.body, name: side}
    answer = await client.post(scoring.route + query, json=body)
    if expected == "conflict":
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert answer.json()["detail"].startswith(f"?{query}: ")
        return
    default = "left" if scoring.route in ("/classify?", "/pooling?") else "right"
    assert [call.options.truncation for call in calls] == [expected or default]


async def test_an_item_that_is_too_long_names_the_options_of_its_route(
    served: Served, reference_settings: Settings
) -> None:
    text = "word " * 5000
    async with served(reference_settings) as client:
        items = {"model": "reference", "items": [{"text": text}]}
        (result,) = (await client.post("/v1/score", json=items)).json()["results"]
        assert "set options.truncation to left" in result["error"]["detail"]
        for route, body in [
            ("/v1/rerank", {"query": "a", "documents": [text]}),
            ("/predict", {"inputs": text}),
            ("/compat/slime/reference", {"prompt": "a", "response": text}),
        ]:
            detail = (await client.post(route, json=body)).json()["detail"]
            assert "set ?truncation= to left" in detail
            assert "options.truncation" not in detail


@pytest.fixture
async def two_models(
    served: Served, scripted_settings: Settings
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a server of the scripted and the reference model."""
    settings = scripted_settings.model_copy(update={"models": ("scripted", "reference")})
    async with served(settings) as client:
        yield client


def without_model(scoring: Scoring) -> Scoring:
    """Return a scoring whose body names no model, but for a constant of LLaMA-Factory's client."""
    body = {name: value for name, value in scoring.body.items() if name != "model"}
    is_constant = scoring.body.get("model") == "model"
    return Scoring(scoring.route, {**body, "model": "model"} if is_constant else body)


@pytest.mark.parametrize("kind", [HOT, COLD])
async def test_the_url_names_the_model(
    two_models: httpx2.AsyncClient, calls: list[ScoreCall], kind: str
) -> None:
    for scoring in map(without_model, FOREIGN):
        answer = await post(two_models, scoring, "model=scripted", kind=kind)
        assert answer.status_code == 200, (scoring.route, answer.text)
        assert calls.pop().model == "scripted@1", scoring.route


async def test_two_models_in_one_request_are_refused(
    two_models: httpx2.AsyncClient, calls: list[ScoreCall]
) -> None:
    for scoring in FOREIGN:
        names_model = "scripted" in scoring.route or scoring.body.get("model") == "scripted"
        answer = await post(two_models, scoring, "model=reference")
        if names_model:
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
            assert answer.json()["detail"].startswith("model: "), scoring.route
            assert not calls
        else:
            assert calls.pop().model == "reference@1", scoring.route


async def test_a_bare_name_and_its_version_are_one_model(two_models: httpx2.AsyncClient) -> None:
    body = {"model": "scripted@1", "input": "a"}
    answer = await two_models.post("/compat/vllm/scripted/classify?model=scripted", json=body)
    assert answer.status_code == 200, answer.text


async def test_a_clients_own_name_of_the_model_gives_way_to_the_path(
    two_models: httpx2.AsyncClient,
) -> None:
    body = {"model": "/data/checkpoints/rm", "input": "a"}
    assert (await two_models.post("/classify", json=body)).json()["code"] == "model_not_found"
    for route in ("/compat/vllm/scripted/classify", "/classify?model=scripted"):
        assert (await two_models.post(route, json=body)).json()["model"] == "scripted@1"


async def test_openapi_lists_the_parameters_of_every_scoring_route(
    client: httpx2.AsyncClient, scoring_paths: Sequence[str]
) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert len(scoring_paths) >= 30
    for path in scoring_paths:
        listed = [parameter["name"] for parameter in paths[path]["post"]["parameters"]]
        is_native = f"{path}?".startswith(NATIVE)
        assert {"run", "step", "split"} <= set(listed)
        assert is_native or {"model", "truncation"} <= set(listed), path
        assert listed.count("model") == ("{model}" in path) + (not is_native), path


@pytest.mark.parametrize("headers", [{"X-Assay-Run": ""}, {"X-Assay-Priority": ""}, {}])
@pytest.mark.parametrize("query", ["", "?run=", "?run=&step="])
async def test_an_empty_parameter_counts_as_absent(
    served: Served, scripted_settings: Settings, headers: dict[str, str], query: str
) -> None:
    body = {"model": "scripted", "items": [{"text": "a"}]}
    async with served(scripted_settings) as client:
        assert (await client.post(f"/v1/score{query}", json=body, headers=headers)).is_success


async def test_a_run_beyond_ascii_is_refused_in_a_header_and_taken_in_the_query(
    served: Served, scripted_settings: Settings
) -> None:
    body = {"model": "scripted", "items": [{"text": "a"}]}
    async with served(scripted_settings) as client:
        header = {b"X-Assay-Run": "läuf".encode()}
        refused = (await client.post("/v1/score", json=body, headers=header)).json()
        assert refused["errors"][0]["problem"].startswith("a header carries ASCII only: use ?run=")
        assert (await client.post("/v1/score", params={"run": "läuf"}, json=body)).is_success


@pytest.mark.parametrize("kind", [HOT, COLD])
async def test_a_repeated_parameter_is_refused_by_name(
    client: httpx2.AsyncClient, kind: str
) -> None:
    content = json.dumps({"model": "scripted", "items": [{"text": "a"}]})
    twice = [("content-type", kind), ("X-Assay-Run", "a"), ("X-Assay-Run", "b")]
    for query, headers, name in (
        ("?run=a&run=b", twice[:1], "run"),
        ("?step=1&run=a&step=1", twice[:1], "step"),
        ("", twice, "X-Assay-Run"),
    ):
        answer = await client.post(f"/v1/score{query}", content=content, headers=headers)
        assert answer.status_code == 422
        assert [error["field"] for error in answer.json()["errors"]] == [name]
