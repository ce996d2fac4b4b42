"""What can go wrong, from the caller's side.

AssayError
  APIConnectionError        no reply: refused, reset, cut short
    APITimeoutError         no reply in time
  APIStatusError            a reply that says no
    AuthenticationError     401
    PermissionDeniedError   403
    NotFoundError           404
    RequestTooLargeError    413
    InvalidRequestError     422
    RateLimitError          429
    ServerError             5xx
      InferenceFailedError  500
      NotReadyError         503
      DeadlineExceededError 504
  ProtocolError             a reply that is not what it should be
  ItemFailedError           a reply in which an item has no score
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from assay_client.types import Result, ScoreReply


class AssayError(Exception):
    """The base of all errors of this client. They can be pickled, as workers send them home.

    Attributes:
        request_id: the id that the call sent as `X-Request-ID`; the server's log names it too.
    """

    request_id: str | None = None

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} (request {self.request_id})" if self.request_id else message

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[AssayError], args: tuple[Any, ...], state: dict[str, Any]) -> AssayError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


def again(error: AssayError) -> AssayError:
    """The same error for one more caller: an exception that two raise mixes their tracebacks."""
    copy = _restore(type(error), error.args, error.__dict__)
    copy.__cause__ = error.__cause__
    return copy


class APIConnectionError(AssayError):
    """No reply came: the connection was refused, reset, or closed in the middle of the reply."""


class APITimeoutError(APIConnectionError):
    """No reply came in time."""


@dataclass(frozen=True)
class Problem:
    """What an error reply says (RFC 9457), as far as it says it.

    Attributes:
        retryable: None where the reply does not say.
        retry_after: seconds the server asks to wait, None where it does not ask.
        errors: one entry for each field that a 422 refuses.
    """

    status: int
    code: str
    detail: str
    hint: str | None = None
    retryable: bool | None = None
    retry_after: float | None = None
    errors: tuple[Mapping[str, Any], ...] = ()


class APIStatusError(AssayError):
    """The server replied with an error status.

    Attributes:
        status: the HTTP status.
        code: the stable name of the problem, such as `model_not_found`.
        detail: what is wrong with this request.
        hint: how to mend it, or None.
        retryable: whether the same request may succeed later.
        retry_after: seconds the server asks to wait, or None.
        errors: one entry for each field that a 422 refuses.
    """

    def __init__(self, problem: Problem) -> None:
        hint = f" Hint: {problem.hint}" if problem.hint else ""
        super().__init__(f"{problem.status} {problem.code}: {problem.detail}{hint}")
        self.status = problem.status
        self.code = problem.code
        self.detail = problem.detail
        self.hint = problem.hint
        self.retryable = may_succeed_later(problem)
        self.retry_after = problem.retry_after
        self.errors = problem.errors


class InvalidRequestError(APIStatusError):
    """422: the request is malformed, or an item has fields that the model does not take."""


class AuthenticationError(APIStatusError):
    """401: the server wants a key."""


class PermissionDeniedError(APIStatusError):
    """403: the server does not accept this key."""


class NotFoundError(APIStatusError):
    """404: no such model, or no such route."""


class RequestTooLargeError(APIStatusError):
    """413: more bytes, items or tokens than the server takes in one request."""


class RateLimitError(APIStatusError):
    """429: the server has no room for this request now; `retry_after` says when to come back."""


class ServerError(APIStatusError):
    """5xx: the server, or a proxy before it, could not do its part."""


class InferenceFailedError(ServerError):
    """500: the computation failed."""


class NotReadyError(ServerError):
    """503: the model is not ready to score."""


class DeadlineExceededError(ServerError):
    """504: the server dropped the request because its time was over."""


class ProtocolError(AssayError):
    """The reply is not what it should be: not JSON, fields missing, NaN, results that do not match
    the items. No number of it is used."""


class ItemFailedError(AssayError):
    """At least one item could not be scored, and the call asked to raise then.

    Attributes:
        index: the place of the first such item in the request.
        code: why, as a stable name.
        detail: why, in words.
        failed: the results of all such items.
        reply: the whole reply; the scores of the other items are in it.
    """

    def __init__(self, failed: tuple[Result, ...], reply: ScoreReply) -> None:
        first = failed[0]
        reason = first.error
        self.index = first.index
        self.code = reason.code if reason else "unknown"
        self.detail = reason.detail if reason else "no reason was given"
        self.failed = failed
        self.reply = reply
        others = f" ({len(failed)} of {len(reply.results)} items failed)"
        super().__init__(
            f"item {self.index} could not be scored: {self.code}: {self.detail}{others}"
        )


_BY_STATUS: Mapping[int, type[APIStatusError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    413: RequestTooLargeError,
    422: InvalidRequestError,
    429: RateLimitError,
    500: InferenceFailedError,
    503: NotReadyError,
    504: DeadlineExceededError,
}

_RETRIED = frozenset({408, 429, 502, 503, 504})


def may_succeed_later(problem: Problem) -> bool:
    """Whether the same request may be sent again: the status allows it, and the reply, where it
    speaks of it, does not forbid it. A 500 is repeated only where the reply says so."""
    if problem.status == 500:
        return problem.retryable is True
    return problem.status in _RETRIED and problem.retryable is not False


def status_error(problem: Problem) -> APIStatusError:
    """The error of the class that belongs to the status."""
    fallback = ServerError if problem.status >= 500 else APIStatusError
    return _BY_STATUS.get(problem.status, fallback)(problem)
