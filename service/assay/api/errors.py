"""Errors as problem details (RFC 9457): one shape for every failure of every route."""

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from assay.errors import AssayError, InvalidRequest

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
MAX_PROBLEMS = 20

FOREIGN_SHAPES = {
    "text_1": "for pairs send items [{text, text_pair}] to POST /v1/score",
    "queries": "send one item a query and document, [{text, text_pair}], to POST /v1/score",
    "label_token_ids": "reward models have no label tokens: send items to POST /v1/score",
    "prompt": "put prompt and response into items [{prompt, response}] of POST /v1/score",
    "query": "put the query into items [{query}] of POST /v1/score",
    "messages": "put the conversation into items [{messages}] of POST /v1/score",
    "input": "put the text into items [{text}] of POST /v1/score",
}


class FieldProblem(BaseModel):
    """One field of a malformed request."""

    field: str
    problem: str


class Problem(BaseModel):
    """A problem detail. `retryable` says whether the same request may succeed later."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    hint: str | None
    request_id: str
    errors: list[FieldProblem] | None


def problem_response(error: AssayError, request_id: str) -> Response:
    """The reply that tells the caller what went wrong and how to mend it."""
    body = Problem(
        type=f"urn:assay:problem:{error.code}",
        title=error.title,
        status=error.status,
        detail=error.detail,
        code=error.code,
        retryable=error.retryable,
        hint=error.hint,
        request_id=request_id,
        errors=[FieldProblem(**problem) for problem in error.problems] if error.problems else None,
    )
    headers = {"X-Request-ID": request_id}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    content = orjson.dumps(body.model_dump())
    return Response(content, error.status, headers, media_type=MEDIA_TYPE)


def install_handlers(app: FastAPI) -> None:
    """Answer every exception that reaches the app with a problem detail."""
    app.add_exception_handler(AssayError, _on_assay_error)
    app.add_exception_handler(RequestValidationError, _on_malformed)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_unexpected)


def _request_id(request: Request) -> str:
    return str(request.scope.get("request_id", ""))


def _on_assay_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AssayError)
    return problem_response(error, _request_id(request))


def _on_malformed(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = [_problem(one) for one in error.errors()]
    first = problems[0]
    problem = InvalidRequest(
        f"{first['field']}: {first['problem']}",
        hint=_hint(request, problems),
        problems=problems[:MAX_PROBLEMS],
    )
    return problem_response(problem, _request_id(request))


def _problem(found: Mapping[str, Any]) -> dict[str, str]:
    if found["type"] == "json_invalid":
        return {"field": "body", "problem": f"not valid JSON: {found['ctx']['error']}"}
    field = ".".join(str(part) for part in found["loc"][1:]) or "body"
    return {"field": field, "problem": found["msg"]}


def _hint(request: Request, problems: list[dict[str, str]]) -> str:
    for problem in problems:
        if problem["field"] in FOREIGN_SHAPES:
            return FOREIGN_SHAPES[problem["field"]]
    if "json" not in request.headers.get("content-type", ""):
        return "send a JSON object with Content-Type: application/json"
    return "the shapes of all requests are at /docs"


def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    problem = _HttpProblem(error.status_code)
    response = problem_response(problem, _request_id(request))
    response.headers.update(error.headers or {})
    return response


def _on_unexpected(request: Request, error: Exception) -> Response:
    logger.error("request %s failed", _request_id(request), exc_info=error)
    return problem_response(AssayError("the server failed on this request"), _request_id(request))


class _HttpProblem(AssayError):
    """What the framework itself refuses: no such route, a wrong method, an unreadable body."""

    def __init__(self, status: int) -> None:
        phrase = HTTPStatus(status).phrase
        super().__init__(phrase, hint="the routes and their shapes are at /docs")
        self.status = status
        self.title = phrase
        self.code = phrase.lower().replace(" ", "_")
