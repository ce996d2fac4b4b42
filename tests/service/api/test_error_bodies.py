"""The body of a failed request, as clients of other servers read it."""

from typing import Any

import httpx2
import pytest
from support.servers import Served

from assay.settings import Settings

TOO_LARGE = {"model": "reference", "input": "x" * 2000}
OBJECT_FIELDS = {"message", "type", "code", "param"}


async def failed(
    served: Served, settings: Settings, method: str, path: str, **parts: Any
) -> httpx2.Response:
    async with served(settings) as client:
        answer = await client.request(method, path, **parts)
    problem = answer.json()
    assert problem["status"] == answer.status_code >= 400
    assert problem["error_type"] == problem["code"]
    return answer


@pytest.mark.parametrize(
    ("path", "status", "code", "kind", "param"),
    [
        ("/v1/embeddings", 422, "invalid_request", "invalid_request_error", "input"),
        ("/v1/rerank", 422, "invalid_request", "invalid_request_error", "query"),
        ("/v2/rerank", 422, "invalid_request", "invalid_request_error", "query"),
        ("/rerank", 422, "invalid_request", "invalid_request_error", "query"),
        ("/classify", 422, "invalid_request", "invalid_request_error", "body"),
        ("/pooling", 422, "invalid_request", "invalid_request_error", "body"),
        ("/v1/score", 422, "invalid_request", "invalid_request_error", "items"),
        ("/v1/models/other/score", 422, "invalid_request", "invalid_request_error", "items"),
        ("/v1/chat/completions", 404, "not_found", "invalid_request_error", None),
        ("/nothing", 404, "not_found", "invalid_request_error", None),
    ],
)
async def test_a_failed_request_has_openais_error(
    served: Served,
    reference_settings: Settings,
    path: str,
    status: int,
    code: str,
    kind: str,
    param: str | None,
) -> None:
    answer = await failed(served, reference_settings, "POST", path, json={})
    error, problem = answer.json()["error"], answer.json()
    assert (answer.status_code, set(error)) == (status, OBJECT_FIELDS)
    assert (error["type"], error["code"], error["param"]) == (kind, code, param)
    assert error["message"] == f"{problem['detail']} ({problem['hint']})"


@pytest.mark.parametrize(
    ("headers", "parts", "status", "kind"),
    [
        ({}, {"json": {}}, 401, "authentication_error"),
        ({"Authorization": "Bearer b"}, {"json": {}}, 403, "permission_error"),
        (
            {"Authorization": "Bearer a-key-of-this-test"},
            {"json": TOO_LARGE},
            413,
            "invalid_request_error",
        ),
        (
            {"Authorization": "Bearer a-key-of-this-test"},
            {"json": {"model": "x"}},
            422,
            "invalid_request_error",
        ),
    ],
)
async def test_a_refusal_before_the_routes_has_openais_error(
    served: Served, headers: dict[str, str], parts: dict[str, Any], status: int, kind: str
) -> None:
    settings = Settings.model_validate(
        {"models": ("reference",), "api_keys": ("a-key-of-this-test",), "max_body_bytes": 1000}
    )
    answer = await failed(served, settings, "POST", "/v1/embeddings", headers=headers, **parts)
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)


@pytest.mark.parametrize("path", ["/predict", "/compat/tei/reference/rerank"])
async def test_teis_clients_read_a_text(
    served: Served, reference_settings: Settings, path: str
) -> None:
    problem = (await failed(served, reference_settings, "POST", path, json={})).json()
    assert problem["error"] == f"{problem['detail']} ({problem['hint']})"


async def test_an_unknown_model_is_the_parameter_at_fault(
    served: Served, reference_settings: Settings
) -> None:
    body = {"model": "other", "input": "a"}
    answer = await failed(served, reference_settings, "POST", "/v1/embeddings", json=body)
    assert answer.json()["error"] == {
        "message": "no model 'other' is served (served: reference@1)",
        "type": "invalid_request_error",
        "code": "model_not_found",
        "param": "model",
    }
