"""Errors as problem details (RFC 9457), the same object for every failure of every route."""

import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from assay.api.encodings import SUPPORTED_CODINGS
from assay.api.hints import field_hint, native_hint, route_hint
from assay.api.paths import route_path
from assay.errors import MAX_PROBLEMS, AssayError, InvalidRequest, ModelNotFound
from assay.types import VALUE_ERROR, InvalidValue, field_name

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
METHODS = ("DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT")
# Clients of these routes read a text under `error`: the v2 inference protocol, and TEI.
TEXT_ERROR_PATHS = ("/v2/models/", "/compat/tei/", "/predict")
INVALID = "invalid_request_error"
ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
BINARY = "inference-header-content-length"


class FieldProblem(BaseModel):
    """One field of a malformed request."""

    field: str
    problem: str


class ErrorObject(BaseModel):
    """A problem as OpenAI's API and its clients write it.

    `message` is `detail` and `hint` in one text, and `param` the first field at fault.
    """

    message: str
    type: str
    code: str
    param: str | None


class Problem(BaseModel):
    """A problem detail (RFC 9457), with what clients of other servers read.

    `retryable` says whether the same request may succeed later. `error` is an object, as OpenAI's
    clients read it; on the routes of the v2 inference protocol and of TEI it is its message alone,
    as theirs do. `error_type` is TEI's name of `code`.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    hint: str | None
    request_id: str
    errors: list[FieldProblem] | None
    error: ErrorObject | str
    error_type: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": title, "content": {"application/problem+json": {}}}
    for status, title in (
        (400, "Unreadable body"),
        (401, "API key required"),
        (403, "API key not accepted, or without the scope"),
        (404, "Model not found"),
        (413, "Request too large"),
        (415, "Unsupported Content-Encoding"),
        (422, "Invalid request"),
        (429, "Overloaded; Retry-After says when to try again"),
        (500, "The model failed, or the server"),
        (503, "Model not ready, or the server is shutting down"),
        (504, "Deadline exceeded"),
    )
}


def problem_response(error: AssayError, scope: Mapping[str, Any]) -> Response:
    """Return the reply to a failed request: a problem detail with the error's status.

    Args:
        error: the error to report.
        scope: the request's scope, with the id that `AccessMiddleware` set.
    """
    request_id = str(scope.get("request_id", ""))
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
        error=_foreign_error(error, route_path(scope)),
        error_type=error.code,
    )
    headers = {"X-Request-ID": request_id}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
        headers["Accept-Encoding"] = SUPPORTED_CODINGS
    return Response(orjson.dumps(body.model_dump()), error.status, headers, media_type=MEDIA_TYPE)


def install_handlers(app: FastAPI) -> None:
    """Register handlers that turn every exception of the app into a problem detail."""
    app.add_exception_handler(AssayError, _on_assay_error)
    app.add_exception_handler(RequestValidationError, _on_malformed)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_unexpected)


def _foreign_error(error: AssayError, path: str) -> ErrorObject | str:
    message = error.detail if error.hint is None else f"{error.detail} ({error.hint})"
    if path.startswith(TEXT_ERROR_PATHS):
        return message
    kind = ERROR_TYPES.get(error.status, INVALID if error.status < 500 else "server_error")
    fields = [problem["field"] for problem in error.problems or ()]
    if isinstance(error, ModelNotFound):
        fields = ["model"]
    param = fields[0] if fields else None
    return ErrorObject(message=message, type=kind, code=error.code, param=param)


def _on_assay_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AssayError)
    return problem_response(error, request.scope)


def _on_malformed(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = error.errors()
    # An invalid value is wrong for each type that its field may have: it is reported once.
    fields = (_field_problem(item, error.body) for item in errors[:MAX_PROBLEMS])
    problems = _invalid_values(errors) or list(fields)
    first = problems[0]
    problem = InvalidRequest(
        f"{first['field']}: {first['problem']}",
        hint=_query_hint(request, errors) or _hint(request, error.body, problems),
        problems=problems[:MAX_PROBLEMS],
    )
    return problem_response(problem, request.scope)


def _invalid_values(errors: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    values = dict.fromkeys(item["input"] for item in errors if _is_invalid(item.get("input")))
    return [{"field": value.place or "body", "problem": value.problem} for value in values]


def _is_invalid(value: object) -> bool:
    return isinstance(value, InvalidValue)


def _field_problem(error: Mapping[str, Any], body: object) -> dict[str, str]:
    if error["type"] == "json_invalid":
        return {"field": "body", "problem": f"not valid JSON: {error['ctx']['error']}"}
    message = error["msg"].removeprefix(VALUE_ERROR)
    source, *place = error["loc"]
    if source != "body":
        return {"field": ".".join(map(str, place)) or source, "problem": message}
    field = field_name(error, place, body) if place else "body"
    return {"field": field or "body", "problem": message}


def _query_hint(request: Request, errors: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the parameters that a scoring route's URL may have, if one of them is wrong."""
    query_type = getattr(request.scope.get("route"), "query_type", None)
    if query_type is None or not any(item["loc"][0] == "query" for item in errors):
        return None
    return f"parameters of this URL: {', '.join(query_type.model_fields)}"


def _hint(request: Request, body: object, problems: list[dict[str, str]]) -> str:
    if BINARY in request.headers:
        return "tensors are JSON here: say binary_data=False wherever the client lets you"
    route = getattr(request.scope.get("route"), "path", "")
    fields = [problem["field"] for problem in problems]
    hints = [route_hint(body, route), native_hint(fields, route), field_hint(fields)]
    if any(hints):
        return "; ".join(hint for hint in hints if hint)
    is_read = isinstance(body, Mapping) or "json" in request.headers.get("content-type", "")
    if request.method == "POST" and not is_read:
        return "send a JSON object with Content-Type: application/json"
    return "the shapes of all requests are at /docs"


def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, AssayError):  # the framework wraps those of reading the body
        return problem_response(error.__cause__, request.scope)
    detail, headers = None, dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = allowed = ", ".join(_allowed_methods(request))
        detail = f"{request.url.path} takes {allowed}, not {request.method}"
    response = problem_response(_HttpProblem(error.status_code, detail), request.scope)
    response.headers.update(headers)
    return response


def _allowed_methods(request: Request) -> list[str]:
    """Return the methods that the request's path takes on any of its routes."""
    routes = request.app.router.routes
    allowed = [
        method
        for method in METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes
        )
    ]
    return sorted({*allowed, "HEAD"} if "GET" in allowed else allowed)


def _on_unexpected(request: Request, error: Exception) -> Response:
    logger.error("request %s failed", request.scope.get("request_id"), exc_info=error)
    return problem_response(AssayError("the server failed on this request"), request.scope)


class _HttpProblem(AssayError):
    """An error of the framework itself: no such route, a wrong method, an unreadable body."""

    def __init__(self, status: int, detail: str | None = None) -> None:
        phrase = HTTPStatus(status).phrase
        super().__init__(
            detail or phrase,
            hint="the routes and their shapes are at /docs",
            status=status,
            title=phrase,
            code=phrase.lower().replace(" ", "_"),
        )
