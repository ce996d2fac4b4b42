"""No body causes a server error: fuzzing of the whole schema, and bodies outside any schema."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, CheckContext, GenerationMode, Response
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from support.servers import listening

from assay.api.examples import EXAMPLES
from assay.app import create_app
from assay.settings import Settings

pytestmark = pytest.mark.slow

DEADLINE_CODES = {"deadline_exceeded", "out_of_time"}


def server_error(context: CheckContext, response: Response, case: Case[Any]) -> bool | None:
    """Check that the reply is no server error, except for a deadline that was too short."""
    if response.status_code >= 500 and response.json().get("code") in DEADLINE_CODES:
        return None
    return not_a_server_error(context, response, case)


CHECKS = [
    server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The URL of a real server of the reference model on loopback."""
    with listening(Settings(models=("reference",), max_body_bytes=1_000_000)) as url:
        yield url


SCHEMA = schemathesis.openapi.from_dict(create_app(Settings(models=("reference",))).openapi())
RESULTS = list(SCHEMA.get_all_operations())
OPERATIONS = {result.ok().label: result.ok() for result in RESULTS if isinstance(result, Ok)}
assert len(OPERATIONS) == len(RESULTS), "an operation is not valid OpenAPI"
FUZZED = [
    (label, mode)
    for label, operation in OPERATIONS.items()
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    if operation.body or mode is GenerationMode.POSITIVE
]


# A caller of a trainer's route waits until a model is loaded, which takes longer than 10 s.
SLOW_TO_LOAD = EXAMPLES["LoadBody"].body


@pytest.mark.parametrize(("label", "mode"), FUZZED)
def test_every_route_keeps_its_schema(address: str, label: str, mode: GenerationMode) -> None:
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=OPERATIONS[label].as_strategy(generation_mode=mode))
    def fuzz(case: Case[Any]) -> None:
        if case.body == SLOW_TO_LOAD:
            case.body = {"model": "reference@1"}
        case.call_and_validate(base_url=address, checks=CHECKS)

    fuzz()


ROUTES = ["/score", "/v1/score", "/v1/models/reference/score", "/v1/best-of-n"]
VALID = b'{"model":"reference","items":[{"text":"a"}]}'
BODIES = {
    "nothing": b"",
    "not json": b"score this",
    "cut off": VALID[:-3],
    "two values": VALID + VALID,
    "array": b"[]",
    "string": b'"a"',
    "number": b"1",
    "null": b"null",
    "NaN outside items": b'{"model":NaN,"items":[{"text":"a"}]}',
    "huge number outside items": b'{"model":1e999,"items":[{"text":"a"}]}',
    "lone surrogate outside items": b'{"model":"\\ud800","items":[{"text":"a"}]}',
    "infinity": b'{"model":"reference","items":[{"text":"a"}],"options":{"raw":Infinity}}',
    "deep array": b"[" * 200_000,
    "deep object": b'{"a":' * 100_000,
    "closed depth": b'{"model":"reference","items":' + b"[" * 900 + b"]" * 900 + b"}",
    "latin-1": '{"model":"reference","items":[{"text":"é"}]}'.encode("latin-1"),
    "utf-16": VALID.decode().encode("utf-16"),
    "nul bytes": b"\x00" * 64,
    "missing items": b'{"model":"reference"}',
    "no items": b'{"model":"reference","items":[]}',
    "wrong item": b'{"model":"reference","items":["a"]}',
    "null item": b'{"model":"reference","items":[null]}',
    "wrong type": b'{"model":"reference","items":[{"text":{}}]}',
    "unknown field": b'{"model":"reference","items":[{"text":"a"}],"temperature":1}',
    "unknown item field": b'{"model":"reference","items":[{"txt":"a"}]}',
    "unknown option": b'{"model":"reference","items":[{"text":"a"}],"options":{"x":1}}',
    "model of another type": b'{"model":{},"items":[{"text":"a"}]}',
    "huge": b'{"model":"reference","items":[{"text":"' + b"x" * 1_000_001 + b'"}]}',
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", BODIES)
def test_a_malformed_body_is_a_problem_detail(address: str, route: str, name: str) -> None:
    headers = {"content-type": "application/json"}
    answer = httpx2.post(address + route, content=BODIES[name], headers=headers)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["detail"]
    assert problem["hint"]


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "a/b/c"])
def test_another_content_type_is_rejected_with_a_hint(address: str, kind: str) -> None:
    answer = httpx2.post(f"{address}/v1/score", content=VALID, headers={"content-type": kind})
    assert answer.status_code == 422
    assert "Content-Type: application/json" in answer.json()["hint"]


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ({"text_1": "a", "text_2": ["b"]}, "text_pair"),
        ({"queries": ["a"], "documents": ["b"]}, "text_pair"),
        ({"label_token_ids": [1], "query": "a", "items": ["b"]}, "label tokens"),
        ({"prompt": "a", "response": "b", "label": None}, "prompt and response into items"),
    ],
)
def test_a_body_for_another_server_gets_a_hint_with_the_right_route(
    address: str, body: dict[str, object], hint: str
) -> None:
    problem = httpx2.post(f"{address}/score", json=body).json()
    assert problem["status"] == 422
    assert hint in problem["hint"]
    assert "/v1/score" in problem["hint"]


@pytest.mark.parametrize("value", ["0", "-5", "soon", "1e3", "99999999999"])
def test_a_malformed_timeout_header_is_rejected(address: str, value: str) -> None:
    headers = {"x-assay-timeout-ms": value, "content-type": "application/json"}
    assert httpx2.post(f"{address}/v1/score", content=VALID, headers=headers).status_code == 422


def test_an_unknown_route_is_a_problem_detail(address: str) -> None:
    answer = httpx2.get(f"{address}/v2/nothing")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
