"""Exceptions of the client.

AssayError
  APIConnectionError          no reply: refused, reset, cut short
    APITimeoutError           no reply in time
  APIStatusError              an error status
    AuthenticationError       401
    PermissionDeniedError     403
    NotFoundError             404
    RequestTooLargeError      413
    UnprocessableEntityError  422
    RateLimitError            429
    InternalServerError       5xx
      InferenceFailedError    500
      NotReadyError           503
      DeadlineExceededError   504
  ProtocolError               a reply that is malformed or does not match the request
  ItemFailedError             a reply in which an item has no score
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from assay_client.types import Response, Result, ScoreReply


class AssayError(Exception):
    """Base class of all errors of this client. They can be pickled, so workers can return them.

    Attributes:
        message: the description, without the request id.
        request_id: the id that the call sent as `X-Request-ID`; the server's log has it too.
    """

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.message} (request {self.request_id})" if self.request_id else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__)


E = TypeVar("E", bound=AssayError)


def _restore(
    kind: type[E], args: tuple[Any, ...], state: dict[str, Any], cause: BaseException | None = None
) -> E:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    error.__cause__ = cause
    return error


def copy_error(error: E, request_id: str | None = None) -> E:
    """Return a copy with the same cause.

    Two callers must not raise the same exception object: that would mix their tracebacks.

    Args:
        error: the error to copy.
        request_id: the id of the copy, if the error has none.
    """
    state = {**error.__dict__, "request_id": error.request_id or request_id}
    return _restore(type(error), error.args, state, error.__cause__)


class APIConnectionError(AssayError):
    """No reply: the connection was refused, reset, or closed in the middle of the reply."""


class APITimeoutError(APIConnectionError):
    """No reply in time."""


@dataclass(frozen=True)
class Problem:
    """Problem details of an error reply (RFC 9457), as far as the reply has them.

    Attributes:
        retryable: None if the reply does not say.
        retry_after: seconds that the server asks to wait, None if it does not ask.
        errors: one entry for each field that a 422 refuses.
    """

    code: str
    detail: str
    hint: str | None = None
    retryable: bool | None = None
    retry_after: float | None = None
    errors: tuple[Mapping[str, Any], ...] = ()


class APIStatusError(AssayError):
    """A reply with an error status.

    Attributes:
        status_code: the HTTP status.
        code: the stable name of the problem, such as `model_not_found`.
        detail: the reason, for this request.
        hint: how to fix it, or None.
        retryable: whether the same request may succeed later.
        retry_after: seconds that the server asks to wait, or None.
        errors: one entry for each field that a 422 refuses.
        response: the HTTP response.
        body: the problem as parsed from JSON; None if the reply is not a JSON object.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        response: Response,
        body: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> None:
        hint = f" Hint: {problem.hint}" if problem.hint else ""
        super().__init__(
            f"{response.status_code} {problem.code}: {problem.detail}{hint}", request_id=request_id
        )
        self.status_code = response.status_code
        self.code = problem.code
        self.detail = problem.detail
        self.hint = problem.hint
        self.retryable = _may_succeed_later(response.status_code, problem.retryable, body)
        self.retry_after = problem.retry_after
        self.errors = problem.errors
        self.response = response
        self.body = body


class UnprocessableEntityError(APIStatusError):
    """422: the request is malformed, or an item has fields that the model does not take."""


class AuthenticationError(APIStatusError):
    """401: the server requires a key."""


class PermissionDeniedError(APIStatusError):
    """403: the server does not accept this key."""


class NotFoundError(APIStatusError):
    """404: no such model, or no such route."""


class RequestTooLargeError(APIStatusError):
    """413: more bytes, items or tokens than the server takes in one request."""


class RateLimitError(APIStatusError):
    """429: the server has no room for this request now; `retry_after` says when to retry."""


class InternalServerError(APIStatusError):
    """5xx: the server, or a proxy before it, failed."""


class InferenceFailedError(InternalServerError):
    """500: the computation failed."""


class NotReadyError(InternalServerError):
    """503: the model is not ready to score."""


class DeadlineExceededError(InternalServerError):
    """504: the server dropped the request because its deadline passed."""


class ProtocolError(AssayError):
    """A malformed reply: not JSON, fields missing, NaN, or results that do not match the items.

    No number of such a reply is used.
    """


class ItemFailedError(AssayError):
    """At least one item could not be scored, and the call asked for an error in this case.

    Attributes:
        index: the place of the first such item in the request.
        code: the reason, as a stable name.
        detail: the reason, in words.
        failed: the results of all such items.
        reply: the whole reply; the scores of the other items are in it.
    """

    def __init__(
        self, failed: tuple[Result, ...], reply: ScoreReply, *, request_id: str | None = None
    ) -> None:
        first = failed[0]
        reason = first.error
        self.index = first.index
        self.code = reason.code if reason else "unknown"
        self.detail = reason.detail if reason else "no reason was given"
        self.failed = failed
        self.reply = reply
        share = f" ({len(failed)} of {len(reply.results)} items failed)"
        super().__init__(
            f"item {self.index} could not be scored: {self.code}: {self.detail}{share}",
            request_id=request_id,
        )


_BY_STATUS: Mapping[int, type[APIStatusError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    413: RequestTooLargeError,
    422: UnprocessableEntityError,
    429: RateLimitError,
    500: InferenceFailedError,
    503: NotReadyError,
    504: DeadlineExceededError,
}

_RETRYABLE_STATUS_CODES = frozenset({408, 429, 502, 503, 504})


def _may_succeed_later(
    status_code: int, retryable: bool | None, body: Mapping[str, Any] | None
) -> bool:
    """Return whether the same request may be sent again.

    The status must allow it, and the reply must not forbid it. A 500 is repeated only if the reply
    says that it may be, or is no JSON object: then it is a proxy's, whose server was lost.
    """
    if status_code == 500:
        return body is None or retryable is True
    return status_code in _RETRYABLE_STATUS_CODES and retryable is not False


def make_status_error(
    problem: Problem, response: Response, body: Mapping[str, Any] | None
) -> APIStatusError:
    """Return the error of the class that belongs to the status."""
    fallback = InternalServerError if response.status_code >= 500 else APIStatusError
    kind = _BY_STATUS.get(response.status_code, fallback)
    return kind(problem, response=response, body=body)
